//! Restarts, lost and damaged directories, foreign logs, unreadable records, and what the log may forget.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use eventlog::memory::MemoryLog;
use eventlog::{AppendRecord, LogWriter as _};
use events::{Offset, Topic, TopicPartition};
use http::StatusCode;
use indexer::{Config, Error, Indexer};
use runtime::{Clock, DurationText, Runtime};
use serde_json::json;

use crate::common::{Flow, PARTITIONS, SEARCH, Seen, ago, new_log, until};

fn contexts(count: usize) -> Vec<Seen> {
    (0..count).map(|n| Seen::context(&json!({"kind": "user", "key": format!("u{n:03}"), "n": n}), ago(10))).collect()
}

fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let shards = std::fs::read_dir(dir).unwrap().map(|shard| shard.unwrap().path());
    shards
        .flat_map(|shard| std::fs::read_dir(shard).unwrap().map(|file| file.unwrap().path()).collect::<Vec<_>>())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn restart_goes_on_where_the_index_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let flow = Flow::start(dir.path(), new_log());
    flow.see(&contexts(20)).await;
    let before: Vec<_> = flow.indexer.status().shards.iter().map(|shard| shard.next).collect();
    let log = flow.log.clone();
    flow.stop().await;

    for partition in 0..PARTITIONS {
        let topic_partition = TopicPartition::new(Topic::Contexts, partition);
        let committed = log.committed("indexer", topic_partition).unwrap();
        assert_eq!(committed, Offset(before[partition as usize]));
        // What was committed is never asked for again.
        log.truncate_before(topic_partition, committed);
    }
    let flow = Flow::start(dir.path(), log);
    assert_eq!(flow.indexer.status().contexts, 20, "searchable before anything is read");
    flow.see(&[Seen::context(&json!({"kind": "user", "key": "u000", "n": "changed"}), ago(1))]).await;
    assert_eq!(flow.search("n equals changed").await, ["u000"]);
    assert_eq!(flow.search("n equals 7").await, ["u007"]);
    assert_eq!(flow.indexer.status().contexts, 20);
    assert!(flow.indexer.status().shards.iter().all(|shard| shard.rebuilds == 0));
    flow.stop().await;
}

/// Names of lists of deleted documents that the next commits might want, for each segment of the shard in `shard`.
fn coming_lists_of_deleted(shard: &Path) -> Vec<std::path::PathBuf> {
    let meta: serde_json::Value = serde_json::from_slice(&std::fs::read(shard.join("meta.json")).unwrap()).unwrap();
    let next = meta["opstamp"].as_u64().unwrap() + 1;
    let ids = meta["segments"].as_array().unwrap().iter().map(|segment| segment["segment_id"].as_str().unwrap());
    let ids: Vec<String> = ids.map(|id| id.replace('-', "")).collect();
    let of_segment =
        |id: &String| (next..next + 100).map(|opstamp| shard.join(format!("{id}.{opstamp}.del"))).collect::<Vec<_>>();
    ids.iter().flat_map(of_segment).collect()
}

/// A process that dies between writing such a list and the commit that names it leaves one.
#[tokio::test(flavor = "multi_thread")]
async fn files_that_no_commit_names_do_not_stand_in_the_way() {
    let dir = tempfile::tempdir().unwrap();
    let flow = Flow::start(dir.path(), new_log());
    flow.see(&contexts(20)).await;
    let log = flow.log.clone();
    flow.stop().await;
    let mut leftovers = Vec::new();
    for partition in 0..PARTITIONS {
        let shard = dir.path().join(partition.to_string());
        leftovers.extend(coming_lists_of_deleted(&shard));
        leftovers.push(shard.join(".tmpAbC123"));
    }
    assert!(leftovers.len() > 100);
    leftovers.iter().for_each(|file| std::fs::write(file, "half").unwrap());

    let flow = Flow::start(dir.path(), log);
    assert!(leftovers.iter().all(|file| !file.exists()));
    let changed: Vec<_> = (0..20).map(|n| json!({"kind": "user", "key": format!("u{n:03}"), "n": "changed"})).collect();
    flow.see(&changed.iter().map(|context| Seen::context(context, ago(1))).collect::<Vec<_>>()).await;
    assert_eq!(flow.search("n equals changed").await.len(), 20);
    assert!(flow.indexer.status().shards.iter().all(|shard| shard.rebuilds == 0));
    flow.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_directory_is_rebuilt_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let flow = Flow::start(dir.path(), new_log());
    flow.see(&contexts(20)).await;
    let log = flow.log.clone();
    flow.stop().await;
    std::fs::remove_dir_all(dir.path()).unwrap();
    let flow = Flow::start(dir.path(), log);
    flow.caught_up().await;
    assert_eq!(flow.indexer.status().contexts, 20);
    flow.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_directory_is_rebuilt_while_running() {
    let dir = tempfile::tempdir().unwrap();
    let flow = Flow::start(dir.path(), new_log());
    flow.see(&contexts(20)).await;
    std::fs::remove_dir_all(dir.path()).unwrap();
    until(|| flow.indexer.status().shards.iter().all(|shard| shard.rebuilds == 1)).await;
    flow.caught_up().await;
    until(|| flow.indexer.status().contexts == 20).await;
    flow.see(&contexts(25)).await;
    until(|| flow.indexer.status().contexts == 25).await;
    flow.stop().await;
}

/// Whatever happens to any one file: what comes back is whole.
#[tokio::test(flavor = "multi_thread")]
async fn damaged_files_are_seen_and_the_index_rebuilt() {
    let dir = tempfile::tempdir().unwrap();
    let flow = Flow::start(dir.path(), new_log());
    flow.see(&contexts(20)).await;
    let mut log = flow.log.clone();
    flow.stop().await;
    let names: Vec<_> = files(dir.path())
        .into_iter()
        .filter(|path| !path.to_string_lossy().contains(".lock") && path.extension().is_some())
        .collect();
    let mut kinds: Vec<_> = names.iter().map(|path| path.extension().unwrap().to_owned()).collect();
    kinds.sort();
    kinds.dedup();
    assert_eq!(
        kinds,
        ["fast", "fieldnorm", "idx", "json", "pos", "store", "term"],
        "every part of a segment, and metadata"
    );
    for kind in kinds {
        for damage in ["flipped", "truncated", "emptied", "removed"] {
            // Metadata first, as removing it means a lost index.
            let path = files(dir.path()).into_iter().find(|path| path.extension() == Some(&kind)).unwrap();
            let mut content = std::fs::read(&path).unwrap();
            let middle = content.len() / 2;
            match damage {
                "flipped" if content.is_empty() => continue,
                "flipped" => content[middle] ^= 0xFF,
                "truncated" => content.truncate(middle),
                _ => content.clear(),
            }
            if damage == "removed" {
                std::fs::remove_file(&path).unwrap()
            } else {
                std::fs::write(&path, content).unwrap()
            }
            let flow = Flow::start(dir.path(), log.clone());
            // What is damaged may fail or be missing for a moment; what comes back is whole.
            let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
            loop {
                let (status, answer) = flow.post(SEARCH, &json!({"filter": "n exists true", "limit": 50})).await;
                if status == StatusCode::OK && answer["totalCount"] == 20 {
                    break;
                }
                assert!(tokio::time::Instant::now() < deadline, "{kind:?} {damage}: {status} {answer}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            flow.caught_up().await;
            log = flow.log.clone();
            flow.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn index_of_another_log_takes_in_this_one() {
    let dir = tempfile::tempdir().unwrap();
    let flow = Flow::start(dir.path(), new_log());
    flow.see(&contexts(10)).await;
    flow.stop().await;
    let flow = Flow::start(dir.path(), MemoryLog::new(Clock::system(), [1, PARTITIONS, 1], "another"));
    flow.see(&[Seen::context(&json!({"kind": "user", "key": "u000", "n": "new"}), ago(1))]).await;
    assert_eq!(flow.search("n equals new").await, ["u000"]);
    assert_eq!(flow.indexer.status().contexts, 10);
    flow.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unreadable_record_is_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let flow = Flow::start(dir.path(), new_log());
    for partition in 0..PARTITIONS {
        let topic_partition = TopicPartition::new(Topic::Contexts, partition);
        flow.log.append(vec![AppendRecord::new(topic_partition, Bytes::from_static(b"no frame"))]).await.unwrap();
    }
    flow.see(&contexts(5)).await;
    assert_eq!(flow.indexer.status().contexts, 5);
    flow.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unchanged_contexts_are_not_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = Runtime::system();
    let log = new_log();
    let flow = Flow::start(dir.path(), log);
    let seen = contexts(5);
    flow.see(&seen).await;
    let commit = flow.indexer.status().last_commit;
    let bytes = flow.indexer.status().bytes;
    for _ in 0..10 {
        flow.see(&seen).await;
    }
    assert_eq!((flow.indexer.status().last_commit, flow.indexer.status().bytes), (commit, bytes));
    assert!(flow.indexer.status().lag_records == 0 && flow.indexer.status().lag_seconds == 0.0);
    drop(runtime);
    flow.stop().await;
}

/// The newer sighting was not worth a write, as it changed nothing; it is newer all the same.
#[tokio::test(flavor = "multi_thread")]
async fn older_attributes_that_come_late_do_not_win() {
    let dir = tempfile::tempdir().unwrap();
    let flow = Flow::start(dir.path(), new_log());
    let seen = |plan: &str, at| Seen::context(&json!({"kind": "user", "key": "u", "plan": plan}), at);
    flow.see(&[seen("new", ago(100))]).await;
    flow.see(&[seen("new", ago(50))]).await;
    flow.see(&[seen("old", ago(70))]).await;
    assert_eq!(flow.search("plan equals new").await, ["u"]);
    flow.see(&[seen("newest", ago(40))]).await;
    assert_eq!(flow.search("plan equals newest").await, ["u"]);
    // Nor after a restart, when nothing but the log knows of the newer sighting.
    flow.see(&[seen("newest", ago(20))]).await;
    let log = flow.log.clone();
    flow.stop().await;
    let flow = Flow::start(dir.path(), log);
    flow.see(&[seen("old", ago(30))]).await;
    assert_eq!(flow.search("plan equals newest").await, ["u"]);
    flow.see(&[seen("last", ago(10))]).await;
    assert_eq!(flow.search("plan equals last").await, ["u"]);
    flow.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn directory_in_use_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let flow = Flow::start(dir.path(), new_log());
    flow.see(&contexts(3)).await;
    let second = Indexer::open(dir.path(), Config::default(), Arc::new(new_log()), &Runtime::system());
    assert!(matches!(second.err(), Some(Error::Locked { .. })));
    assert_eq!(flow.indexer.status().contexts, 3);
    flow.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn little_memory_means_more_commits_and_the_same_contexts() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        memory_budget: runtime::ByteSize::mib(1),
        commit_interval: DurationText::secs(3600),
        ..Config::default()
    };
    let flow = Flow::start_with(dir.path(), new_log(), config, indexer::api::Generation::Union);
    let large = "x".repeat(20_000);
    let seen: Vec<_> = (0..400)
        .map(|n| Seen::context(&json!({"kind": "user", "key": format!("u{n}"), "large": large}), ago(1)))
        .collect();
    for part in seen.chunks(50) {
        flow.append(part).await;
    }
    until(|| flow.indexer.status().contexts > 100).await;
    flow.stop().await;
}
