//! Shards divided among several processes, and moved from one to another.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use eventlog::memory::MemoryLog;
use eventlog::{Assigner, LogReader as _};
use events::Offset;
use indexer::{Beyond, Config, SnapshotStore};
use runtime::DurationText;

use crate::common::store::CopyStore;
use crate::common::{Flow, PARTITIONS, Seen, append, config, new_log, partition_of, place, until, user};

/// A process that works on what its assigner says.
struct Member {
    flow: Flow,
    assigner: Assigner,
}

impl Member {
    fn start(dir: &Path, log: &MemoryLog, beyond: Beyond) -> Self {
        let assigner = Assigner::new();
        let beyond = Beyond { assignment: Some(assigner.assignment()), ..beyond };
        let config = Config { snapshot_interval: DurationText::millis(30), ..config() };
        Self { flow: Flow::start_kept(dir, log.clone(), config, beyond), assigner }
    }

    fn assign(&self, partitions: &[u32]) {
        self.assigner.assign(partitions.iter().map(|partition| place(*partition)));
    }

    /// Waits until exactly these shards are here and hold all that the log does.
    async fn holds(&self, partitions: &[u32]) {
        let mut ends = Vec::new();
        for partition in partitions {
            ends.push((*partition, self.flow.log.bounds(place(*partition)).await.unwrap().end.0));
        }
        until(|| {
            let shards = self.flow.indexer.status().shards;
            let whole = shards.iter().filter(|shard| shard.is_open && !shard.is_rebuilding);
            let here: Vec<_> = whole.map(|shard| (shard.partition, shard.next)).collect();
            here.len() == shards.len() && here == ends
        })
        .await;
    }
}

fn users(numbers: std::ops::Range<usize>, plan: &str) -> Vec<Seen> {
    numbers.map(|n| user(n, plan, 100)).collect()
}

fn keys_of(seen: &[Seen], partition: u32) -> Vec<String> {
    seen.iter().filter(|seen| partition_of(seen) == partition).map(|seen| seen.key.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_that_are_held_are_searched_and_no_others() {
    let (log, one_dir, other_dir) = (new_log(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let seen = users(0..20, "gold");
    append(&log, &seen).await;
    let one = Member::start(one_dir.path(), &log, Beyond::default());
    let other = Member::start(other_dir.path(), &log, Beyond::default());
    assert_eq!(one.flow.indexer.status().shards, []);
    assert_eq!(one.flow.search("plan equals gold").await, Vec::<String>::new());
    one.assign(&[0]);
    other.assign(&[1]);
    one.holds(&[0]).await;
    other.holds(&[1]).await;
    assert_eq!(one.flow.search("plan equals gold").await, keys_of(&seen, 0));
    assert_eq!(other.flow.search("plan equals gold").await, keys_of(&seen, 1));
    one.flow.stop().await;
    other.flow.stop().await;
}

/// What happened while a shard was elsewhere is there when it comes back; its old directory is no trap.
#[tokio::test(flavor = "multi_thread")]
async fn shard_that_comes_back_has_what_it_missed() {
    let (log, one_dir, other_dir) = (new_log(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    append(&log, &users(0..20, "gold")).await;
    let one = Member::start(one_dir.path(), &log, Beyond::default());
    let other = Member::start(other_dir.path(), &log, Beyond::default());
    one.assign(&[0, 1]);
    one.holds(&[0, 1]).await;
    one.assign(&[]);
    other.assign(&[0, 1]);
    let changed = users(5..8, "silver");
    append(&log, &changed).await;
    other.holds(&[0, 1]).await;
    until(|| one.flow.indexer.status().shards.is_empty()).await;
    other.assign(&[0]);
    one.assign(&[1]);
    one.holds(&[1]).await;
    assert_eq!(one.flow.search("plan equals silver").await, keys_of(&changed, 1));
    one.flow.stop().await;
    other.flow.stop().await;
}

/// The log has forgotten what a shard missed while it was elsewhere: the copy of its last owner has it.
#[tokio::test(flavor = "multi_thread")]
async fn shard_that_comes_back_too_late_for_the_log_takes_the_copy() {
    let store = CopyStore::default();
    let beyond = || Beyond { snapshots: Some(SnapshotStore::new(Arc::new(store.clone()))), ..Beyond::default() };
    let (log, one_dir, other_dir) = (new_log(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    append(&log, &users(0..20, "gold")).await;
    let one = Member::start(one_dir.path(), &log, beyond());
    one.assign(&[0, 1]);
    one.holds(&[0, 1]).await;
    let other = Member::start(other_dir.path(), &log, beyond());
    one.assign(&[]);
    other.assign(&[0, 1]);
    let changed = users(5..12, "silver");
    append(&log, &changed).await;
    other.holds(&[0, 1]).await;
    for partition in 0..PARTITIONS {
        let end = log.bounds(place(partition)).await.unwrap().end.0;
        let covers = async || store.newest(partition).await.is_some_and(|newest| newest.next() == Some(end));
        crate::common::until_async(covers).await;
        log.truncate_before(place(partition), Offset(end));
    }
    other.assign(&[]);
    one.assign(&[0, 1]);
    one.holds(&[0, 1]).await;
    assert_eq!(one.flow.search("plan equals silver").await.len(), changed.len());
    assert_eq!(one.flow.indexer.status().contexts, 20);
    one.flow.stop().await;
    other.flow.stop().await;
}

/// Shards go to and fro under load, at times held by both and at times by nobody; in the end the newest states are found.
#[tokio::test(flavor = "multi_thread")]
async fn newest_states_are_found_after_many_moves() {
    let (log, one_dir, other_dir) = (new_log(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let one = Member::start(one_dir.path(), &log, Beyond::default());
    let other = Member::start(other_dir.path(), &log, Beyond::default());
    let shares: [(&[u32], &[u32]); 6] =
        [(&[0], &[1]), (&[0, 1], &[1]), (&[1], &[0]), (&[], &[]), (&[], &[0, 1]), (&[1], &[1])];
    let mut newest = BTreeMap::new();
    for round in 0..30 {
        let (to_one, to_other) = shares[round % shares.len()];
        one.assign(to_one);
        other.assign(to_other);
        let seen: Vec<_> = (round..round + 5).map(|n| user(n, &format!("plan{round}"), 100 - round as i64)).collect();
        append(&log, &seen).await;
        newest.extend(seen.iter().map(|seen| (seen.key.clone(), format!("plan{round}"))));
        if round % 4 == 0 {
            one.holds(to_one).await;
        }
    }
    one.assign(&[0]);
    other.assign(&[1]);
    one.holds(&[0]).await;
    other.holds(&[1]).await;
    for (key, plan) in &newest {
        let found = [&one, &other]
            .map(async |member| member.flow.search(&format!("key equals {key}, plan equals {plan}")).await);
        let found = futures::future::join_all(found).await.concat();
        assert_eq!(found, [key.as_str()], "{plan}");
    }
    one.flow.stop().await;
    other.flow.stop().await;
}
