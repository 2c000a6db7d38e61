//! Shards that are made anew beside the ones before, which are searched meanwhile.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use eventlog::LogReader as _;
use eventlog::memory::MemoryLog;
use indexer::table::StateTable;
use indexer::{Beyond, Config, Error};
use runtime::DurationText;

use crate::common::table::FakeTable;
use crate::common::{Flow, PARTITIONS, config, new_log, place, pretend_format, until, user, whole_answer};

fn start(dir: &Path, log: MemoryLog, table: &Arc<FakeTable>) -> Flow {
    let config = Config { table_interval: DurationText::millis(20), ..config() };
    let beyond = Beyond { table: Some(Arc::clone(table) as Arc<dyn StateTable>), ..Beyond::default() };
    Flow::start_kept(dir, log, config, beyond)
}

/// Twenty contexts in index and table, a few of them seen again.
async fn filled(dir: &Path, table: &Arc<FakeTable>) -> Flow {
    let flow = start(dir, new_log(), table);
    flow.see(&(0..20).map(|n| user(n, "gold", 1000 - n as i64)).collect::<Vec<_>>()).await;
    flow.see(&(0..5).map(|n| user(n, "silver", 500)).collect::<Vec<_>>()).await;
    for partition in 0..PARTITIONS {
        let end = flow.log.bounds(place(partition)).await.unwrap().end;
        until(|| flow.log.committed(indexer::TABLE_READER, place(partition)) == Some(end)).await;
    }
    flow
}

fn leftovers(dir: &Path) -> usize {
    std::fs::read_dir(dir).unwrap().filter(|entry| entry.as_ref().unwrap().path().extension().is_some()).count()
}

fn is_renewing(flow: &Flow) -> bool {
    flow.indexer.status().is_rebuilding
}

#[tokio::test(flavor = "multi_thread")]
async fn shard_is_searched_until_the_new_one_has_caught_up() {
    let (dir, table) = (tempfile::tempdir().unwrap(), Arc::new(FakeTable::default()));
    let flow = filled(dir.path(), &table).await;
    let before = whole_answer(&flow).await;
    table.is_slow.store(true, Ordering::Relaxed);
    let renewals = (0..PARTITIONS).map(|partition| {
        let indexer = Arc::clone(&flow.indexer);
        tokio::spawn(async move { indexer.renew(partition).await })
    });
    let renewals: Vec<_> = renewals.collect();
    until(|| flow.indexer.status().shards.iter().all(|shard| shard.is_rebuilding)).await;
    assert_eq!(whole_answer(&flow).await, before);
    assert!(!flow.indexer.is_rebuilding(), "searches lack nothing");
    flow.append(&[user(30, "bronze", 1)]).await;
    assert_eq!(whole_answer(&flow).await, before, "nothing newer is found, and nothing is missing");
    assert!(is_renewing(&flow) && leftovers(dir.path()) == 2, "all of it was seen while both were there");
    let mut contexts = 0;
    for renewal in renewals {
        contexts += renewal.await.unwrap().unwrap();
    }
    assert!((20..=21).contains(&contexts), "{contexts}");
    flow.caught_up().await;
    assert_eq!((flow.search("plan equals bronze").await.len(), flow.search("plan equals silver").await.len()), (1, 5));
    assert_eq!(flow.search("kind equals user").await.len(), 21);
    assert_eq!((is_renewing(&flow), leftovers(dir.path())), (false, 0));
    assert!(flow.indexer.status().shards.iter().all(|shard| shard.rebuilds == 1));
    flow.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shard_of_an_older_format_is_searched_while_the_new_one_is_made() {
    let (dir, table) = (tempfile::tempdir().unwrap(), Arc::new(FakeTable::default()));
    let flow = filled(dir.path(), &table).await;
    let (before, mut log) = (whole_answer(&flow).await, flow.log.clone());
    flow.stop().await;
    pretend_format(dir.path(), 3);
    table.is_slow.store(true, Ordering::Relaxed);
    // Killed meanwhile: the next goes on searching the old.
    for _ in 0..3 {
        let flow = start(dir.path(), log, &table);
        assert_eq!(whole_answer(&flow).await, before, "from the first moment");
        assert!(is_renewing(&flow) && !flow.indexer.is_rebuilding());
        log = flow.kill().await;
    }
    let flow = start(dir.path(), log, &table);
    until(|| !is_renewing(&flow)).await;
    assert_eq!(whole_answer(&flow).await, before);
    flow.see(&[user(30, "bronze", 1)]).await;
    assert_eq!(flow.search("plan equals bronze").await, ["u030"]);
    assert_eq!(leftovers(dir.path()), 0);
    let log = flow.log.clone();
    flow.stop().await;
    // It has the present format now.
    let flow = start(dir.path(), log, &table);
    assert!(!is_renewing(&flow) && flow.indexer.status().contexts == 21);
    flow.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn formats_that_cannot_be_searched_are_not() {
    for format in [2, 6] {
        let (dir, table) = (tempfile::tempdir().unwrap(), Arc::new(FakeTable::default()));
        let flow = filled(dir.path(), &table).await;
        let (before, log) = (whole_answer(&flow).await, flow.log.clone());
        flow.stop().await;
        pretend_format(dir.path(), format);
        table.is_slow.store(true, Ordering::Relaxed);
        let flow = start(dir.path(), log, &table);
        assert!(flow.indexer.is_rebuilding(), "searches lack contexts, and say so");
        until(|| !is_renewing(&flow)).await;
        flow.caught_up().await;
        assert_eq!(whole_answer(&flow).await, before);
        flow.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn shard_is_kept_where_it_could_not_be_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let flow = Flow::start(dir.path(), new_log());
    flow.see(&[user(1, "gold", 10)]).await;
    let refused = flow.indexer.renew(0).await;
    assert!(matches!(refused, Err(Error::SwitchedOff { .. })), "{refused:?}");
    assert!(matches!(flow.indexer.renew(PARTITIONS).await, Err(Error::NotOpen { .. })));
    assert_eq!(flow.search("plan equals gold").await, ["u001"]);
    flow.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shard_is_kept_where_the_log_has_forgotten_what_the_table_lacks() {
    let (dir, table) = (tempfile::tempdir().unwrap(), Arc::new(FakeTable::default()));
    let flow = filled(dir.path(), &table).await;
    let before = whole_answer(&flow).await;
    for partition in 0..PARTITIONS {
        flow.log.truncate_before(place(partition), flow.log.bounds(place(partition)).await.unwrap().end);
        table.partitions.lock().get_mut(&partition).unwrap().next -= 1;
        let refused = flow.indexer.renew(partition).await;
        assert!(matches!(refused, Err(Error::NotCovered { .. })), "{refused:?}");
    }
    assert_eq!(whole_answer(&flow).await, before);
    flow.stop().await;
}
