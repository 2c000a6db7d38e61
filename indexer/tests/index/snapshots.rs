//! What outlives the machine: copies of shards on an object store, and the owners that come after.

use std::path::Path as FilePath;
use std::sync::Arc;

use eventlog::LogReader as _;
use eventlog::memory::MemoryLog;
use events::Offset;
use indexer::{Beyond, Config, SnapshotStore};
use object_store::path::Path;
use runtime::{Clock, DurationText};
use serde_json::json;

use crate::common::store::{CopyStore, Fault, SeenManifest};
use crate::common::{Flow, PARTITIONS, Seen, ago, config, new_log, place, until, until_async, user, whole_answer};

fn quick() -> Config {
    Config { snapshot_interval: DurationText::millis(30), ..config() }
}

/// An interval that never comes: only what is done at the start is.
fn once() -> Config {
    Config { snapshot_interval: DurationText::secs(3600), ..config() }
}

fn beyond(store: &CopyStore) -> Beyond {
    Beyond { snapshots: Some(SnapshotStore::new(Arc::new(store.clone()))), ..Beyond::default() }
}

fn start(dir: &FilePath, log: MemoryLog, config: Config, store: &CopyStore) -> Flow {
    Flow::start_kept(dir, log, config, beyond(store))
}

/// Waits until the newest copies cover all that the log holds now.
async fn copied(flow: &Flow, store: &CopyStore) {
    flow.caught_up().await;
    for partition in 0..PARTITIONS {
        let end = flow.log.bounds(place(partition)).await.unwrap().end.0;
        let covers = async || store.newest(partition).await.is_some_and(|newest| newest.next() == Some(end));
        if end > 0 {
            until_async(covers).await;
        }
    }
}

/// The log forgets all that the newest copies cover.
async fn forget(log: &MemoryLog, store: &CopyStore) {
    for partition in 0..PARTITIONS {
        if let Some(next) = store.newest(partition).await.and_then(|newest| newest.next()) {
            log.truncate_before(place(partition), Offset(next));
        }
    }
}

fn users(numbers: std::ops::Range<usize>, plan: &str) -> Vec<Seen> {
    numbers.map(|n| user(n, plan, 100)).collect()
}

fn metric(flow: &Flow, name: &str) -> f64 {
    let text = flow.runtime.telemetry.render();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name}")).parse().unwrap()
}

/// A process with the contexts `u000` to `count`, all of them copied.
async fn owner(dir: &FilePath, store: &CopyStore, count: usize) -> Flow {
    let flow = start(dir, new_log(), quick(), store);
    flow.see(&users(0..count, "gold")).await;
    copied(&flow, store).await;
    flow
}

const RESTORED: &str = "tidegate_index_snapshots_restored_total";
const PASSED_OVER: &str = "tidegate_index_snapshots_passed_over_total";

/// A log that has forgotten `count` contexts, which are in the copies, and what the API tells of them.
async fn lost_machine(store: &CopyStore, count: usize) -> (MemoryLog, Vec<serde_json::Value>) {
    let dir = tempfile::tempdir().unwrap();
    let flow = start(dir.path(), new_log(), quick(), store);
    flow.see(&users(0..count, "gold")).await;
    flow.see(&users(3..5, "silver")).await;
    copied(&flow, store).await;
    forget(&flow.log, store).await;
    let answer = whole_answer(&flow).await;
    let log = flow.log.clone();
    flow.stop().await;
    (log, answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn new_owner_takes_the_copy_over_and_reads_on() {
    let store = CopyStore::default();
    let dir = tempfile::tempdir().unwrap();
    let flow = owner(dir.path(), &store, 30).await;
    forget(&flow.log, &store).await;
    // From here on only the log knows.
    store.set_away(true);
    flow.see(&[user(3, "silver", 10), user(100, "new", 9)]).await;
    let before = whole_answer(&flow).await;
    let log = flow.log.clone();
    flow.stop().await;

    store.set_away(false);
    let other = tempfile::tempdir().unwrap();
    let flow = start(other.path(), log, quick(), &store);
    flow.caught_up().await;
    until(|| !flow.indexer.is_rebuilding()).await;
    assert_eq!(whole_answer(&flow).await, before);
    assert_eq!((metric(&flow, RESTORED), metric(&flow, PASSED_OVER)), (f64::from(PARTITIONS), 0.0));
    // It goes on from there, and what it writes is copied too.
    flow.see(&[user(5, "changed", 1)]).await;
    assert_eq!(flow.search("plan equals changed").await, ["u005"]);
    copied(&flow, &store).await;
    let leftovers = std::fs::read_dir(other.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(leftovers.into_iter().all(|name| !name.to_string_lossy().contains("incoming")));
    flow.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn index_that_is_there_is_not_fetched() {
    let store = CopyStore::default();
    let dir = tempfile::tempdir().unwrap();
    let flow = owner(dir.path(), &store, 30).await;
    let log = flow.log.clone();
    flow.stop().await;
    let flow = start(dir.path(), log, quick(), &store);
    flow.see(&users(30..31, "gold")).await;
    assert_eq!((flow.indexer.status().contexts, metric(&flow, RESTORED)), (31, 0.0));
    flow.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn index_lost_while_running_comes_back_from_the_copy() {
    let store = CopyStore::default();
    let dir = tempfile::tempdir().unwrap();
    let flow = owner(dir.path(), &store, 30).await;
    forget(&flow.log, &store).await;
    let before = whole_answer(&flow).await;
    std::fs::remove_dir_all(dir.path()).unwrap();
    until(|| flow.indexer.status().shards.iter().all(|shard| shard.rebuilds == 1 && !shard.is_rebuilding)).await;
    assert_eq!(whole_answer(&flow).await, before);
    flow.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_new_files_are_uploaded_and_idle_shards_cost_nothing() {
    let store = CopyStore::default();
    let dir = tempfile::tempdir().unwrap();
    let flow = owner(dir.path(), &store, 50).await;
    let (first, first_files) = (store.newest(0).await.unwrap(), store.files_put());
    flow.see(&users(50..51, "gold")).await;
    copied(&flow, &store).await;
    let second =
        store.manifests(u32::from(crate::common::partition_of(&user(50, "gold", 100)) == 1)).await.pop().unwrap();
    assert_eq!(store.puts_max(), 1, "no file was written twice");
    let added = store.files_put() - first_files;
    assert!(added > 0 && added <= 7, "{added} files for a segment of one context");
    assert!(second.objects().len() > added, "the others are named again");
    // The restart knows from the manifest what is there.
    let log = flow.log.clone();
    flow.stop().await;
    let before = store.files_put();
    let flow = start(dir.path(), log, quick(), &store);
    until_async(async || store.newest(0).await.unwrap().epoch() != first.epoch()).await;
    copied(&flow, &store).await;
    assert_eq!(store.files_put(), before);
    let sequence = store.newest(0).await.unwrap().sequence;
    flow.see(&users(0..50, "gold")).await;
    for _ in 0..5 {
        copied(&flow, &store).await;
    }
    assert!(store.newest(0).await.unwrap().sequence <= sequence + 1);
    flow.stop().await;
}

/// Whatever happens to a file or manifest of the newest copy: the one before it serves, and the log has the rest.
#[tokio::test(flavor = "multi_thread")]
async fn damaged_copy_gives_way_to_the_one_before() {
    let store = CopyStore::default();
    let dir = tempfile::tempdir().unwrap();
    let flow = owner(dir.path(), &store, 30).await;
    forget(&flow.log, &store).await;
    flow.see(&users(20..40, "silver")).await;
    copied(&flow, &store).await;
    let before = whole_answer(&flow).await;
    let log = flow.log.clone();
    flow.stop().await;

    for damage in ["flipped", "truncated", "removed", "manifest flipped", "manifest cut", "manifest foreign"] {
        let damaged = store.fork().await;
        for partition in 0..PARTITIONS {
            damage_newest(&damaged, partition, damage).await;
        }
        let dir = tempfile::tempdir().unwrap();
        let flow = start(dir.path(), log.clone(), once(), &damaged);
        flow.caught_up().await;
        until(|| !flow.indexer.is_rebuilding()).await;
        assert_eq!(whole_answer(&flow).await, before, "{damage}");
        assert_eq!(metric(&flow, RESTORED), f64::from(PARTITIONS), "{damage}");
        assert!(metric(&flow, PASSED_OVER) >= f64::from(PARTITIONS), "{damage}");
        flow.stop().await;
    }
}

/// Spoils the newest copy of a partition, and leaves those before it.
async fn damage_newest(store: &CopyStore, partition: u32, damage: &str) {
    let manifests = store.manifests(partition).await;
    let newest = manifests.last().unwrap();
    let spoil = |content: &[u8]| {
        let mut content = content.to_vec();
        let middle = content.len() / 2;
        match damage.rsplit(' ').next().unwrap() {
            "flipped" => content[middle] ^= 0x10,
            "truncated" | "cut" => content.truncate(middle),
            _ => content = b"{\"checksum\":\"0\",\"manifest\":{\"version\":1}}".to_vec(),
        }
        content
    };
    if damage.starts_with("manifest") {
        let content = store.read(&newest.path).await;
        store.write(&newest.path, spoil(&content)).await;
        return;
    }
    // A file that copies with another offset do not name.
    let older: Vec<String> =
        manifests.iter().filter(|older| older.next() != newest.next()).flat_map(SeenManifest::objects).collect();
    let own =
        newest.objects().into_iter().find(|object| !older.contains(object) && object.ends_with(".store")).unwrap();
    let path = Path::from(format!("{partition}/files/{own}"));
    if damage == "removed" {
        store.remove(&path).await;
    } else {
        let content = store.read(&path).await;
        store.write(&path, spoil(&content)).await;
    }
}

/// A file that was damaged before it was copied fits the manifest, but not its own checksum.
#[tokio::test(flavor = "multi_thread")]
async fn copy_of_a_damaged_index_is_passed_over() {
    let store = CopyStore::default();
    let dir = tempfile::tempdir().unwrap();
    let flow = start(dir.path(), new_log(), once(), &store);
    flow.see(&users(0..30, "gold")).await;
    let log = flow.log.clone();
    flow.stop().await;
    for partition in 0..PARTITIONS {
        let shard = dir.path().join(partition.to_string());
        let files = std::fs::read_dir(&shard).unwrap().map(|entry| entry.unwrap().path());
        let path = files.into_iter().find(|path| path.extension().is_some_and(|kind| kind == "store")).unwrap();
        let mut content = std::fs::read(&path).unwrap();
        content[0] ^= 0xFF;
        std::fs::write(&path, content).unwrap();
    }
    // This one copies at once, before or after it finds out; whoever comes next must not fall for it.
    let flow = start(dir.path(), log.clone(), quick(), &store);
    copied(&flow, &store).await;
    flow.stop().await;
    let dir = tempfile::tempdir().unwrap();
    let flow = start(dir.path(), log, once(), &store);
    flow.caught_up().await;
    until(|| !flow.indexer.is_rebuilding()).await;
    assert_eq!(flow.search("n exists true").await.len(), 30);
    flow.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_copy_that_serves_the_log_does() {
    let store = CopyStore::default();
    let dir = tempfile::tempdir().unwrap();
    let flow = owner(dir.path(), &store, 30).await;
    let log = flow.log.clone();
    flow.stop().await;
    for path in store.paths().await.into_iter().filter(|path| path.extension() != Some("json")) {
        store.remove(&path).await;
    }
    let dir = tempfile::tempdir().unwrap();
    let flow = start(dir.path(), log, quick(), &store);
    flow.caught_up().await;
    assert_eq!(flow.search("n exists true").await.len(), 30);
    assert_eq!(metric(&flow, RESTORED), 0.0);
    assert!(metric(&flow, PASSED_OVER) > 0.0);
    // And the copies that it makes are whole again.
    flow.see(&users(30..31, "gold")).await;
    copied(&flow, &store).await;
    let log = flow.log.clone();
    flow.stop().await;
    let dir = tempfile::tempdir().unwrap();
    let flow = start(dir.path(), log, quick(), &store);
    until(|| metric(&flow, RESTORED) == f64::from(PARTITIONS)).await;
    flow.stop().await;
}

/// The answer to a manifest is lost in each way that it can be; the owner goes on as the owner, without a gap.
#[tokio::test(flavor = "multi_thread")]
async fn unclear_answers_are_resolved_by_reading() {
    for fault in [Fault::AnswerLost, Fault::Lost, Fault::Late] {
        let store = CopyStore::default();
        let dir = tempfile::tempdir().unwrap();
        let flow = start(dir.path(), new_log(), quick(), &store);
        flow.see(&users(0..10, "gold")).await;
        copied(&flow, &store).await;
        let epochs = [store.newest(0).await.unwrap(), store.newest(1).await.unwrap()];
        store.next_manifests([fault; 3]);
        for round in 0..4 {
            flow.see(&users(0..10, &format!("plan {round}"))).await;
            copied(&flow, &store).await;
        }
        until(|| store.faults_left() == 0).await;
        for (partition, first) in epochs.iter().enumerate() {
            let manifests = store.manifests(partition as u32).await;
            let sequences: Vec<u64> = manifests.iter().map(|manifest| manifest.sequence).collect();
            assert_eq!(sequences, (1..=manifests.len() as u64).collect::<Vec<_>>(), "{fault:?}");
            assert_eq!(manifests.last().unwrap().epoch(), first.epoch(), "{fault:?}: still the owner");
        }
        let log = flow.log.clone();
        flow.stop().await;
        forget(&log, &store).await;
        let other = tempfile::tempdir().unwrap();
        let flow = start(other.path(), log, quick(), &store);
        flow.caught_up().await;
        assert_eq!(flow.search("plan equals \"plan 3\"").await.len(), 10, "{fault:?}");
        flow.stop().await;
    }
}

/// The owner before goes on indexing, as it does not know; what it copies is not the newest any more.
#[tokio::test(flavor = "multi_thread")]
async fn owner_that_was_overtaken_publishes_no_more() {
    let store = CopyStore::default();
    let (zombie_dir, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // It looks after its copies seldom, so that it finds out late.
    let slow = Config { snapshot_interval: DurationText::millis(700), ..config() };
    let zombie = start(zombie_dir.path(), new_log(), slow, &store);
    zombie.see(&users(0..30, "gold")).await;
    copied(&zombie, &store).await;
    let before = [store.newest(0).await.unwrap(), store.newest(1).await.unwrap()];
    let flow = start(dir.path(), zombie.log.clone(), quick(), &store);
    for (partition, before) in before.iter().enumerate() {
        until_async(async || store.newest(partition as u32).await.unwrap().epoch() != before.epoch()).await;
    }
    let overtaken = store.files_put_by(before[0].epoch());
    for round in 0..10 {
        zombie.see(&users(0..30, &format!("plan {round}"))).await;
    }
    // It has tried, and found its numbers taken.
    until(|| store.files_put_by(before[0].epoch()) > overtaken).await;
    copied(&flow, &store).await;
    zombie.stop().await;
    for (partition, before) in before.iter().enumerate() {
        let manifests = store.manifests(partition as u32).await;
        let (theirs, ours): (Vec<_>, Vec<_>) =
            manifests.iter().partition(|manifest| manifest.sequence <= before.sequence);
        assert!(theirs.iter().all(|manifest| manifest.epoch() == before.epoch()));
        assert!(ours.iter().all(|manifest| manifest.epoch() == ours[0].epoch()) && ours[0].epoch() != before.epoch());
    }
    assert_eq!(flow.search("plan equals \"plan 9\"").await.len(), 30);
    flow.stop().await;
}

/// Somebody starts a program for a moment, by mistake: it claims the copies and is gone.
#[tokio::test(flavor = "multi_thread")]
async fn owner_that_fell_silent_is_replaced() {
    let store = CopyStore::default();
    let (dir, other_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let flow = owner(dir.path(), &store, 30).await;
    let before = [store.newest(0).await.unwrap(), store.newest(1).await.unwrap()];
    let other = start(other_dir.path(), flow.log.clone(), once(), &store);
    for (partition, before) in before.iter().enumerate() {
        until_async(async || store.newest(partition as u32).await.unwrap().epoch() != before.epoch()).await;
    }
    other.kill().await;
    flow.see(&users(0..30, "silver")).await;
    copied(&flow, &store).await;
    assert_ne!(store.newest(0).await.unwrap().epoch(), before[0].epoch(), "it has claimed them again");
    flow.stop().await;
}

/// Two processes begin at once, again and again: one of them owns each partition, and every manifest has one writer.
#[tokio::test(flavor = "multi_thread")]
async fn claims_that_meet_leave_one_owner() {
    let store = CopyStore::default();
    let log = new_log();
    for round in 0..5 {
        let dirs: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
        let flows: Vec<_> = dirs.iter().map(|dir| start(dir.path(), log.clone(), quick(), &store)).collect();
        flows[0].append(&users(0..30, &format!("plan {round}"))).await;
        for flow in &flows {
            flow.caught_up().await;
        }
        copied(&flows[0], &store).await;
        for flow in flows {
            flow.stop().await;
        }
    }
    for partition in 0..PARTITIONS {
        let manifests = store.manifests(partition).await;
        let mut seen: Vec<&str> = Vec::new();
        for manifest in &manifests {
            if seen.last() != Some(&manifest.epoch()) {
                assert!(!seen.contains(&manifest.epoch()), "an owner that was overtaken came back");
                seen.push(manifest.epoch());
            }
        }
        let offsets: Vec<i64> = manifests.iter().filter_map(SeenManifest::next).collect();
        assert!(offsets.is_sorted(), "{offsets:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn store_that_is_away_is_waited_for() {
    let store = CopyStore::default();
    let (log, before) = lost_machine(&store, 20).await;
    store.set_away(true);
    let dir = tempfile::tempdir().unwrap();
    let flow = start(dir.path(), log, quick(), &store);
    until(|| store.refused() > 2).await;
    assert!(flow.indexer.is_rebuilding() && flow.indexer.status().contexts == 0);
    store.set_away(false);
    flow.caught_up().await;
    until(|| !flow.indexer.is_rebuilding()).await;
    assert_eq!(whole_answer(&flow).await, before);
    // Away again: what is searched does not notice, and the copies catch up.
    store.set_away(true);
    let refused = store.refused();
    flow.see(&users(0..5, "bronze")).await;
    until(|| store.refused() > refused + 2).await;
    assert_eq!(flow.search("plan equals bronze").await.len(), 5);
    store.set_away(false);
    copied(&flow, &store).await;
    flow.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn process_that_died_while_taking_over_begins_again() {
    let store = CopyStore::default();
    let (mut log, before) = lost_machine(&store, 20).await;
    let dir = tempfile::tempdir().unwrap();
    for reads in [0, 1, 3, 8] {
        store.close_gate(reads);
        let flow = start(dir.path(), log, once(), &store);
        until(|| store.waiting() > 0).await;
        assert!(flow.indexer.is_rebuilding());
        log = flow.kill().await;
        store.open_gate();
    }
    let flow = start(dir.path(), log, once(), &store);
    flow.caught_up().await;
    until(|| !flow.indexer.is_rebuilding()).await;
    assert_eq!(whole_answer(&flow).await, before);
    flow.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn manifest_that_lists_do_not_show_is_found() {
    let store = CopyStore::default();
    let (log, before) = lost_machine(&store, 20).await;
    for partition in 0..PARTITIONS {
        store.hide_from_lists(&store.newest(partition).await.unwrap().path);
    }
    let dir = tempfile::tempdir().unwrap();
    let flow = start(dir.path(), log, quick(), &store);
    flow.caught_up().await;
    until(|| !flow.indexer.is_rebuilding()).await;
    assert_eq!(whole_answer(&flow).await, before);
    flow.stop().await;
}

/// A machine comes back with what it had long ago; the log has gone on and forgotten, others have kept up.
#[tokio::test(flavor = "multi_thread")]
async fn directory_that_the_log_has_left_behind_gives_way_to_the_copy() {
    let store = CopyStore::default();
    let (old_dir, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let flow = start(old_dir.path(), new_log(), quick(), &store);
    flow.see(&users(0..20, "gold")).await;
    copied(&flow, &store).await;
    let log = flow.log.clone();
    flow.stop().await;
    let flow = start(dir.path(), log, quick(), &store);
    flow.see(&users(10..40, "silver")).await;
    flow.see(&users(10..40, "bronze")).await;
    copied(&flow, &store).await;
    forget(&flow.log, &store).await;
    let before = whole_answer(&flow).await;
    let log = flow.log.clone();
    flow.stop().await;
    let flow = start(old_dir.path(), log, quick(), &store);
    until(|| metric(&flow, RESTORED) == f64::from(PARTITIONS)).await;
    flow.caught_up().await;
    assert_eq!(whole_answer(&flow).await, before);
    flow.stop().await;
}

/// Copies that were made while contexts came in and segments were merged: each is one commit, whole by itself.
#[tokio::test(flavor = "multi_thread")]
async fn every_copy_is_one_commit() {
    let store = CopyStore::default();
    let dir = tempfile::tempdir().unwrap();
    let flow = start(dir.path(), new_log(), Config { snapshot_interval: DurationText::millis(1), ..config() }, &store);
    let mut counts: Vec<Vec<usize>> = vec![vec![0]; PARTITIONS as usize];
    for round in 0..60 {
        let seen: Vec<_> =
            (0..12).map(|n| user((round * 7 + n) % 200, &format!("plan {round}"), 1000 - round as i64)).collect();
        flow.append(&seen).await;
        for partition in 0..PARTITIONS {
            // Each round is one record where the partition has any, so offsets count rounds.
            let known = counts[partition as usize].len() as i64 - 1;
            if flow.log.bounds(place(partition)).await.unwrap().end.0 > known {
                counts[partition as usize].push(round + 1);
            }
        }
        if round % 3 == 0 {
            flow.caught_up().await;
        }
    }
    copied(&flow, &store).await;
    flow.stop().await;
    let manifests = store.manifests(0).await;
    let with_content: Vec<_> = manifests.iter().filter(|manifest| manifest.next().is_some()).collect();
    assert!(with_content.len() > 3, "{} copies", with_content.len());
    for manifest in with_content {
        let alone = store.fork().await;
        for other in manifests.iter().filter(|other| other.sequence > manifest.sequence) {
            alone.remove(&other.path).await;
        }
        let expected = newest_plans(counts[0][manifest.next().unwrap() as usize]);
        let dir = tempfile::tempdir().unwrap();
        let log = MemoryLog::new(Clock::system(), [1, PARTITIONS, 1], "test");
        let flow = start(dir.path(), log, once(), &alone);
        until(|| metric(&flow, RESTORED) >= 1.0 && flow.indexer.status().shards[0].contexts as usize == expected.len())
            .await;
        for (key, plan) in &expected {
            let found = flow.search(&format!("key equals {key},plan equals \"{plan}\"")).await;
            assert_eq!(found, [key.as_str()], "copy {} of {} rounds", manifest.sequence, manifest.next().unwrap());
        }
        flow.kill().await;
    }
}

/// The contexts of partition 0 after so many rounds of the test above.
fn newest_plans(rounds: usize) -> Vec<(String, String)> {
    let mut plans = std::collections::BTreeMap::new();
    for round in 0..rounds {
        for n in 0..12 {
            let seen = user((round * 7 + n) % 200, "", 0);
            if crate::common::partition_of(&seen) == 0 {
                plans.insert(seen.key, format!("plan {round}"));
            }
        }
    }
    plans.into_iter().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn copy_of_another_log_is_taken_in_and_read_on_from_its_start() {
    let store = CopyStore::default();
    let (_, _) = lost_machine(&store, 20).await;
    let dir = tempfile::tempdir().unwrap();
    let other = MemoryLog::new(Clock::system(), [1, PARTITIONS, 1], "another");
    let flow = start(dir.path(), other, quick(), &store);
    flow.see(&[user(0, "from the new log", 1)]).await;
    until(|| flow.indexer.status().contexts == 20).await;
    assert_eq!(flow.search("plan equals \"from the new log\"").await, ["u000"]);
    copied(&flow, &store).await;
    flow.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_of_a_newer_version_are_left_alone() {
    let store = CopyStore::default();
    let (log, _) = lost_machine(&store, 20).await;
    let newest = store.newest(0).await.unwrap();
    let mut newer = newest.body.clone();
    newer["version"] = json!(2);
    newer["sequence"] = json!(newest.sequence + 1);
    let text = newer.to_string();
    let checksum = format!("{:016x}", xxhash_rust::xxh3::xxh3_64(text.as_bytes()));
    let path = Path::from(format!("0/{:020}.json", newest.sequence + 1));
    store.write(&path, format!(r#"{{"checksum":"{checksum}","manifest":{text}}}"#).into_bytes()).await;
    let dir = tempfile::tempdir().unwrap();
    let flow = start(dir.path(), log, quick(), &store);
    flow.see(&users(0..20, "silver")).await;
    until_async(async || store.newest(1).await.unwrap().epoch() != newest.epoch()).await;
    let last = store.newest(0).await.unwrap();
    assert_eq!((last.sequence, last.path), (newest.sequence + 1, path));
    flow.stop().await;
}

/// Age of what was seen is kept as it was: the copy knows it, the log does not.
#[tokio::test(flavor = "multi_thread")]
async fn times_come_over_too() {
    let store = CopyStore::default();
    let dir = tempfile::tempdir().unwrap();
    let flow = start(dir.path(), new_log(), quick(), &store);
    let seen_at = ago(86_400);
    flow.see(&[Seen::context(&json!({"kind": "user", "key": "u", "plan": "gold"}), seen_at)]).await;
    copied(&flow, &store).await;
    forget(&flow.log, &store).await;
    let before = whole_answer(&flow).await;
    let log = flow.log.clone();
    flow.stop().await;
    let dir = tempfile::tempdir().unwrap();
    let flow = start(dir.path(), log, quick(), &store);
    until(|| !flow.indexer.is_rebuilding()).await;
    assert_eq!(whole_answer(&flow).await, before);
    flow.stop().await;
}
