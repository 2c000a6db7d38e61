//! What outlives the log: states in a table, and the index that comes back from it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use eventlog::LogReader as _;
use eventlog::memory::MemoryLog;
use http::StatusCode;
use indexer::api::Generation;
use indexer::table::StateTable;
use indexer::{Beyond, SnapshotStore};
use runtime::DurationText;
use serde_json::json;

use crate::common::store::CopyStore;
use crate::common::table::FakeTable;
use crate::common::{
    Flow, PARTITIONS, SEARCH, Seen, ago, config, new_log, place, post, pretend_format, until, user, whole_answer,
};

fn start(dir: &std::path::Path, log: MemoryLog, table: &Arc<FakeTable>) -> Flow {
    let config = indexer::Config { table_interval: DurationText::millis(20), ..config() };
    let table: Arc<dyn StateTable> = Arc::clone(table) as Arc<dyn StateTable>;
    Flow::start_whole(dir, log, config, Generation::Union, Beyond { table: Some(table), ..Beyond::default() })
}

/// Waits until the table covers the log.
async fn covered(flow: &Flow) {
    flow.caught_up().await;
    for partition in 0..PARTITIONS {
        let end = flow.log.bounds(place(partition)).await.unwrap().end;
        until(|| flow.log.committed(indexer::TABLE_READER, place(partition)) == Some(end)).await;
    }
}

/// The log forgets all that its readers allow.
fn forget(log: &MemoryLog) {
    for partition in 0..PARTITIONS {
        let readers = [indexer::LOG_READER, indexer::TABLE_READER];
        let allowed = readers.map(|reader| log.committed(reader, place(partition)).unwrap()).into_iter().min();
        log.truncate_before(place(partition), allowed.unwrap());
    }
}

/// A flow that has seen contexts of all sorts, all of them in its table.
async fn filled() -> (tempfile::TempDir, Arc<FakeTable>, Flow) {
    let dir = tempfile::tempdir().unwrap();
    let table = Arc::new(FakeTable::default());
    let flow = start(dir.path(), new_log(), &table);
    flow.see(&of_all_sorts()).await;
    covered(&flow).await;
    (dir, table, flow)
}

/// Contexts of all sorts: changed, held back, keys alone, anonymous, of several applications and environments.
fn of_all_sorts() -> Vec<Seen> {
    let mut seen: Vec<_> = (0..20).map(|n| user(n, "gold", 1000 - n as i64)).collect();
    seen.push(user(3, "silver", 500).by("PythonClient/9.17.0"));
    let held_back = json!({"kind": "user", "key": "u004", "_meta": {"redactedAttributes": ["/email"]}});
    seen.push(Seen::context(&held_back, ago(400)));
    seen.push(user(5, "gold", 300).key_only());
    seen.push(Seen::context(&json!({"kind": "device", "key": "known by its key"}), ago(200)).key_only());
    seen.push(Seen::context(&json!({"kind": "user", "key": "hidden", "anonymous": true, "plan": "gold"}), ago(100)));
    seen.extend(Seen::together(&[("org", "lagoa"), ("user", "u001")], ago(90)));
    seen.extend(Seen::together(&[("org", "lagoa"), ("user", "u002")], ago(80)).into_iter().map(|part| part.by("web")));
    seen.push(user(0, "bronze", 50).in_environment(events::Environment::new("shop", "test")));
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_index_comes_back_whole_though_the_log_has_forgotten() {
    let (dir, table, flow) = filled().await;
    forget(&flow.log);
    flow.see(&[user(6, "changed", 30), user(100, "new", 20)]).await;
    covered(&flow).await;
    forget(&flow.log);
    // From here on only the log knows.
    table.fails.store(true, Ordering::Relaxed);
    flow.see(&[user(7, "late", 10), user(4, "late", 9), user(101, "newest", 8)]).await;
    let before = whole_answer(&flow).await;
    until(|| table.refused.load(Ordering::Relaxed) > 0).await;
    forget(&flow.log);
    let log = flow.log.clone();
    flow.stop().await;

    std::fs::remove_dir_all(dir.path()).unwrap();
    table.fails.store(false, Ordering::Relaxed);
    let flow = start(dir.path(), log, &table);
    flow.caught_up().await;
    until(|| !flow.indexer.is_rebuilding()).await;
    assert_eq!(whole_answer(&flow).await, before);
    // A later sighting of the key alone does not list an anonymous context: it is known as such still.
    flow.see(&[Seen::context(&json!({"kind": "user", "key": "hidden"}), ago(1)).key_only()]).await;
    assert!(flow.search("key equals hidden").await.is_empty());
    covered(&flow).await;
    flow.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn index_of_an_older_format_comes_back_from_the_table() {
    let (dir, table, flow) = filled().await;
    forget(&flow.log);
    flow.see(&[user(7, "late", 10)]).await;
    let before = whole_answer(&flow).await;
    let log = flow.log.clone();
    flow.stop().await;
    pretend_format(dir.path(), 3);
    let flow = start(dir.path(), log, &table);
    until(|| !flow.indexer.is_rebuilding()).await;
    flow.caught_up().await;
    assert!(flow.indexer.status().shards.iter().all(|shard| shard.rebuilds == 1));
    assert_eq!(whole_answer(&flow).await, before);
    flow.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_deleted_stays_so_in_an_index_made_again() {
    let (dir, table, flow) = filled().await;
    for path in ["/context-instances/org%3Alagoa%3Auser%3Au001", "/context-instances/user%3Au007"] {
        assert_eq!(
            flow.call(crate::common::delete(&format!("{}{path}", crate::common::BASE))).await.0,
            StatusCode::NO_CONTENT
        );
    }
    let user_path = "/api/v2/users/shop/prod/u005";
    assert_eq!(flow.call(crate::common::delete(user_path)).await.0, StatusCode::NO_CONTENT);
    covered(&flow).await;
    forget(&flow.log);
    let before = whole_answer(&flow).await;
    assert_eq!(flow.search("key equals u007|key equals u005|key equals u001").await, ["u001"]);
    let log = flow.log.clone();
    flow.stop().await;
    std::fs::remove_dir_all(dir.path()).unwrap();
    let flow = start(dir.path(), log, &table);
    until(|| !flow.indexer.is_rebuilding()).await;
    flow.caught_up().await;
    assert_eq!(whole_answer(&flow).await, before);
    flow.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rebuild_that_was_killed_begins_anew() {
    let dir = tempfile::tempdir().unwrap();
    let table = Arc::new(FakeTable::default());
    let flow = start(dir.path(), new_log(), &table);
    let many: Vec<_> = (0..100).map(|n| user(n, "gold", 1000 - n as i64)).collect();
    flow.see(&many).await;
    flow.see(&[user(3, "silver", 500), user(4, "silver", 500)]).await;
    covered(&flow).await;
    forget(&flow.log);
    let before = whole_answer(&flow).await;
    let mut log = flow.log.clone();
    flow.stop().await;

    std::fs::remove_dir_all(dir.path()).unwrap();
    table.is_slow.store(true, Ordering::Relaxed);
    for round in 0..2 {
        let flow = start(dir.path(), log, &table);
        until(|| flow.indexer.status().contexts > 10).await;
        let status = flow.indexer.status();
        assert!(status.is_rebuilding && status.contexts < 100, "{status:?}");
        let (code, headers, answer) = flow.call_whole(post(SEARCH, &json!({"filter": "plan equals gold"}))).await;
        assert_eq!((code, headers["x-tidegate-index"].to_str().unwrap()), (StatusCode::OK, "rebuilding"));
        assert!(!answer["items"].as_array().unwrap().is_empty(), "what is there is found");
        log = flow.log.clone();
        if round == 0 { drop(flow.kill().await) } else { flow.stop().await }
    }

    table.is_slow.store(false, Ordering::Relaxed);
    let flow = start(dir.path(), log, &table);
    flow.caught_up().await;
    until(|| !flow.indexer.is_rebuilding()).await;
    assert_eq!(whole_answer(&flow).await, before);
    let (_, headers, _) = flow.call_whole(post(SEARCH, &json!({}))).await;
    assert!(!headers.contains_key("x-tidegate-index"));
    flow.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn index_lost_while_running_comes_back_whole() {
    let (dir, _table, flow) = filled().await;
    forget(&flow.log);
    let before = whole_answer(&flow).await;
    std::fs::remove_dir_all(dir.path()).unwrap();
    until(|| flow.indexer.status().shards.iter().all(|shard| shard.rebuilds == 1 && !shard.is_rebuilding)).await;
    assert_eq!(whole_answer(&flow).await, before);
    flow.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn table_takes_only_what_was_touched_and_changed() {
    let dir = tempfile::tempdir().unwrap();
    let table = Arc::new(FakeTable::default());
    let flow = start(dir.path(), new_log(), &table);
    let seen: Vec<_> = (0..20).map(|n| user(n, "gold", 100)).collect();
    flow.see(&seen).await;
    covered(&flow).await;
    let after_base = table.written.load(Ordering::Relaxed);
    assert!(after_base >= 20);
    flow.see(&[user(3, "silver", 10)]).await;
    covered(&flow).await;
    assert_eq!(table.written.load(Ordering::Relaxed), after_base + 1);
    // Seen again a moment later: nothing that the index writes, so nothing that the table takes.
    let again: Vec<_> = (4..20).map(|n| user(n, "gold", 95)).collect();
    flow.see(&again).await;
    covered(&flow).await;
    assert_eq!(table.written.load(Ordering::Relaxed), after_base + 1);
    flow.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn log_of_another_identity_is_taken_in_on_top_of_the_table() {
    let (dir, table, flow) = filled().await;
    let contexts = flow.indexer.status().contexts;
    flow.stop().await;
    std::fs::remove_dir_all(dir.path()).unwrap();
    let other = MemoryLog::new(runtime::Clock::system(), [1, PARTITIONS, 1], "another");
    let flow = start(dir.path(), other, &table);
    flow.see(&[user(0, "from the new log", 1)]).await;
    until(|| !flow.indexer.is_rebuilding()).await;
    assert_eq!(flow.indexer.status().contexts, contexts);
    assert_eq!(flow.search("plan equals \"from the new log\"").await, ["u000"]);
    covered(&flow).await;
    flow.stop().await;
}

/// The log no longer holds what comes after the copy, but the table covers that too.
#[tokio::test(flavor = "multi_thread")]
async fn copy_that_the_log_has_left_behind_gives_way_to_the_table() {
    let dir = tempfile::tempdir().unwrap();
    let (table, copies) = (Arc::new(FakeTable::default()), CopyStore::default());
    let beyond = || Beyond {
        table: Some(Arc::clone(&table) as Arc<dyn StateTable>),
        snapshots: Some(SnapshotStore::new(Arc::new(copies.clone()))),
        ..Beyond::default()
    };
    let config = || indexer::Config {
        table_interval: DurationText::millis(20),
        snapshot_interval: DurationText::millis(20),
        ..config()
    };
    let flow = Flow::start_kept(dir.path(), new_log(), config(), beyond());
    flow.see(&of_all_sorts()).await;
    covered(&flow).await;
    for partition in 0..PARTITIONS {
        let end = flow.log.bounds(place(partition)).await.unwrap().end.0;
        let is_copied = async || copies.newest(partition).await.is_some_and(|newest| newest.next() == Some(end));
        crate::common::until_async(is_copied).await;
    }
    copies.set_away(true);
    let many: Vec<_> = (0..10).map(|n| user(n, "after the copy", 10)).collect();
    flow.see(&many).await;
    covered(&flow).await;
    forget(&flow.log);
    flow.see(&[user(100, "newest", 5)]).await;
    let before = whole_answer(&flow).await;
    let log = flow.log.clone();
    flow.stop().await;

    std::fs::remove_dir_all(dir.path()).unwrap();
    copies.set_away(false);
    let flow = Flow::start_kept(dir.path(), log, config(), beyond());
    flow.caught_up().await;
    until(|| !flow.indexer.is_rebuilding()).await;
    assert_eq!(whole_answer(&flow).await, before);
    assert!(flow.runtime.telemetry.render().contains("tidegate_index_snapshots_restored_total 0"));
    flow.stop().await;
}

/// A machine comes back with what it had long ago: the log has forgotten what came then, the table has it.
#[tokio::test(flavor = "multi_thread")]
async fn directory_that_the_log_has_left_behind_is_made_again() {
    let (old_dir, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let table = Arc::new(FakeTable::default());
    let flow = start(old_dir.path(), new_log(), &table);
    flow.see(&of_all_sorts()).await;
    covered(&flow).await;
    let log = flow.log.clone();
    flow.stop().await;
    let flow = start(dir.path(), log, &table);
    let many: Vec<_> = (0..30).map(|n| user(n, "meanwhile", 10)).collect();
    flow.see(&many).await;
    covered(&flow).await;
    forget(&flow.log);
    let before = whole_answer(&flow).await;
    let log = flow.log.clone();
    flow.stop().await;
    let flow = start(old_dir.path(), log, &table);
    until(|| flow.indexer.status().shards.iter().all(|shard| shard.rebuilds == 1 && !shard.is_rebuilding)).await;
    flow.caught_up().await;
    assert_eq!(whole_answer(&flow).await, before);
    flow.stop().await;
}
