//! Erasing contexts: gone from every file, held off when they come late, back when they are seen anew.

use std::path::Path;
use std::sync::Arc;

use eventlog::LogReader as _;
use eventlog::memory::MemoryLog;
use events::{ErasedContexts, Topic};
use indexer::table::StateTable;
use indexer::{Beyond, Config, MergeScope, SnapshotStore, append_erasures};
use runtime::{Clock, DurationText};
use serde_json::{Value, json};
use tantivy::TantivyDocument;
use tantivy::schema::Value as _;

use crate::common::store::CopyStore;
use crate::common::table::FakeTable;
use crate::common::{BASE, Flow, PARTITIONS, Seen, ago, config, new_log, place, until, user, whole_answer};

/// In everything that is told of the person who is erased, and in nothing else.
const NEEDLE: &str = "nadja";

fn erased(until: i64, contexts: &[(&str, &str)]) -> Arc<ErasedContexts> {
    let names = contexts.iter().map(|(kind, key)| ((*kind).to_owned(), (*key).to_owned()));
    Arc::new(ErasedContexts::new(crate::common::environment(), until, names))
}

fn nadja() -> Arc<ErasedContexts> {
    erased(Clock::system().now().0, &[("user", "nadja-1")])
}

fn as_seen(plan: &str, seconds_ago: i64) -> Seen {
    let context = json!({"kind": "user", "key": "nadja-1", "name": "Nadja", "email": "nadja@shop.example", "plan": plan,
        "address": {"street": "Nadja street"}, "tags": ["of nadja", "vip"]});
    Seen::context(&context, ago(seconds_ago))
}

/// The person alone, in combinations, anonymous ones and others, among others.
fn everybody() -> Vec<Seen> {
    let mut seen: Vec<_> = (0..50).map(|n| user(n, "gold", 1000 - n as i64)).collect();
    seen.extend([as_seen("silver", 400), as_seen("gold", 300).by("web")]);
    // By their keys alone, which takes no attributes away.
    let together = |parts: &[(&str, &str)], at| Seen::together(parts, at).into_iter().map(Seen::key_only);
    seen.extend(together(&[("org", "lagoa"), ("user", "nadja-1")], ago(200)));
    seen.extend(together(&[("device", "d"), ("user", "nadja-1")], ago(190)));
    seen.extend(together(&[("org", "lagoa"), ("user", "u001")], ago(180)));
    seen
}

async fn erase(flow: &Flow, contexts: &ErasedContexts) {
    let ends = append_erasures(&flow.log, contexts, Clock::system().now()).await.unwrap();
    assert_eq!(ends.len(), PARTITIONS as usize);
    until(|| flow.indexer.covers(&ends)).await;
}

async fn erase_and_merge(flow: &Flow, contexts: &ErasedContexts) {
    erase(flow, contexts).await;
    flow.indexer.merge(MergeScope::WithRemoved).await.unwrap();
}

fn has(bytes: &[u8]) -> bool {
    bytes.to_ascii_lowercase().windows(NEEDLE.len()).any(|window| window == NEEDLE.as_bytes())
}

/// Where the needle is in an index: in bytes of files, in terms, in stored documents, dead ones too, and in columns.
fn found_in(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for partition in 0..PARTITIONS {
        let shard = dir.join(partition.to_string());
        for file in std::fs::read_dir(&shard).unwrap() {
            let path = file.unwrap().path();
            if std::fs::read(&path).is_ok_and(|bytes| has(&bytes)) {
                found.push(format!("bytes of {}", path.display()));
            }
        }
        let index = tantivy::Index::open_in_dir(&shard).unwrap();
        let (terms, record) = (index.schema().get_field("terms").unwrap(), index.schema().get_field("record").unwrap());
        let reader = index.reader().unwrap();
        for segment in reader.searcher().segment_readers() {
            let dictionary = segment.inverted_index(terms).unwrap();
            let mut all = dictionary.terms().stream().unwrap();
            while all.advance() {
                found.extend(has(all.key()).then(|| format!("term {:?}", String::from_utf8_lossy(all.key()))));
            }
            for document in segment.get_store_reader(1).unwrap().iter::<TantivyDocument>(None) {
                let document = document.unwrap();
                let text = document.get_first(record).and_then(|value| value.as_str()).unwrap();
                found.extend(has(text.as_bytes()).then(|| format!("document {text}")));
            }
            let order = segment.fast_fields().bytes("order").unwrap().unwrap();
            let mut all = order.dictionary().stream().unwrap();
            while all.advance() {
                found.extend(has(all.key()).then(|| "column order".to_owned()));
            }
        }
    }
    found
}

async fn values(flow: &Flow, attribute: &str) -> String {
    flow.get(&format!("{BASE}/context-attributes/{attribute}")).await.1.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_byte_is_left_in_any_file_of_the_index() {
    let dir = tempfile::tempdir().unwrap();
    let flow = Flow::start(dir.path(), new_log());
    flow.see(&everybody()).await;
    assert!(found_in(dir.path()).len() > 4, "the search finds what is there");
    let scope = nadja();
    // Herself, two combinations.
    assert_eq!(flow.indexer.documents_of(&scope).unwrap(), 3);
    let others = flow.search("kind equals org|kind equals device|key equals u001").await;
    erase(&flow, &scope).await;
    assert!(flow.search("key equals nadja-1").await.is_empty());
    assert!(flow.search("q equals nadja").await.is_empty());
    assert!(!values(&flow, "email").await.contains(NEEDLE) && !values(&flow, "tags").await.contains(NEEDLE));
    assert_eq!(flow.indexer.documents_of(&scope).unwrap(), 0);
    flow.indexer.merge(MergeScope::WithRemoved).await.unwrap();
    assert_eq!(found_in(dir.path()), Vec::<String>::new());
    assert_eq!(flow.search("kind equals org|kind equals device|key equals u001").await, others);
    assert_eq!(flow.indexer.status().contexts, 52, "fifty users, an organisation and a device");
    let (_, instances) =
        flow.post(&format!("{BASE}/context-instances/search"), &json!({"filter": "kinds contains org"})).await;
    assert_eq!(instances["totalCount"], 1, "that with another user stays: {instances}");

    // What is read again at a start brings nothing back, not even for a moment.
    let log = flow.log.clone();
    flow.stop().await;
    let flow = Flow::start(dir.path(), log.clone());
    flow.caught_up().await;
    flow.see(&[user(7, "changed", 1)]).await;
    assert_eq!(found_in(dir.path()), Vec::<String>::new());
    let after = whole_answer(&flow).await;
    flow.stop().await;
    // An index that is made again from the log passes by what was erased in it, and ends as the other.
    let anew = tempfile::tempdir().unwrap();
    let flow = Flow::start(anew.path(), log);
    flow.caught_up().await;
    assert_eq!(whole_answer(&flow).await, after);
    flow.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_deleted_before_is_erased_too() {
    let dir = tempfile::tempdir().unwrap();
    let flow = Flow::start(dir.path(), new_log());
    flow.see(&everybody()).await;
    for path in ["org%3Alagoa%3Auser%3Anadja-1", "device%3Ad%3Auser%3Anadja-1", "user%3Anadja-1"] {
        let status = flow.call(crate::common::delete(&format!("{BASE}/context-instances/{path}"))).await.0;
        assert_eq!(status, http::StatusCode::NO_CONTENT, "{path}");
        flow.caught_up().await;
    }
    assert!(flow.search("key equals nadja-1").await.is_empty());
    assert!(!found_in(dir.path()).is_empty(), "deleted states name what is deleted");
    erase_and_merge(&flow, &nadja()).await;
    assert_eq!(found_in(dir.path()), Vec::<String>::new());
    flow.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_received_before_stays_away_and_what_is_newer_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let flow = Flow::start(dir.path(), new_log());
    flow.see(&everybody()).await;
    let at = ago(100);
    erase(&flow, &erased(at, &[("user", "nadja-1")])).await;
    // Received before, whenever it was seen, alone or in a combination: it was on its way.
    let together = |received| {
        let parts = Seen::together(&[("org", "new"), ("user", "nadja-1")], ago(150));
        parts.into_iter().map(move |part| part.key_only().received(received)).collect::<Vec<_>>()
    };
    flow.see(&[as_seen("late", 120).received(at), as_seen("late", 130).received(at - 1)]).await;
    flow.see(&together(at)).await;
    assert!(flow.search("key equals nadja-1").await.is_empty());
    assert_eq!(flow.search("key equals new").await, ["new"], "the others of the combination are seen");
    // Received later, though it was seen before.
    let back = json!({"kind": "user", "key": "nadja-1", "plan": "bronze"});
    flow.see(&[Seen::context(&back, ago(150)).received(at + 1)]).await;
    let (_, found) = flow.post(crate::common::SEARCH, &json!({"filter": "key equals nadja-1"})).await;
    assert_eq!(found["items"][0]["context"], back);
    flow.see(&together(at + 1)).await;
    let search = json!({"filter": "kindKeys contains \"user:nadja-1\""});
    let (_, instances) = flow.post(&format!("{BASE}/context-instances/search"), &search).await;
    assert_eq!(instances["totalCount"], 2, "{instances}");
    // And what is even later comes too late still.
    flow.see(&[as_seen("late", 101).received(at)]).await;
    let (_, again) = flow.post(crate::common::SEARCH, &json!({"filter": "key equals nadja-1"})).await;
    assert_eq!(again["items"][0]["context"], back);
    flow.stop().await;
}

/// Between the time of an erasure and the row that says so there may be newer sightings in the log.
#[tokio::test(flavor = "multi_thread")]
async fn newer_sightings_that_the_log_has_first_come_back_without_what_is_older() {
    let dir = tempfile::tempdir().unwrap();
    let flow = Flow::start(dir.path(), new_log());
    flow.see(&everybody()).await;
    let at = Clock::system().now().0;
    // The first says nothing new, the second holds an attribute back whose value is known from before.
    let held_back =
        json!({"kind": "user", "key": "nadja-1", "plan": "new", "_meta": {"redactedAttributes": ["/email"]}});
    let newer = [as_seen("gold", 0).key_only().received(at + 1), Seen::context(&held_back, at).received(at + 2)];
    flow.see(&newer).await;
    let (_, mixed) = flow.post(crate::common::SEARCH, &json!({"filter": "key equals nadja-1"})).await;
    assert_eq!(mixed["items"][0]["context"]["email"], "nadja@shop.example");
    erase_and_merge(&flow, &erased(at, &[("user", "nadja-1")])).await;
    let (_, found) = flow.post(crate::common::SEARCH, &json!({"filter": "key equals nadja-1"})).await;
    assert_eq!(found["items"][0]["context"]["plan"], "new");
    assert_eq!(found["items"][0]["context"].get("email"), None, "{found}");
    assert!(!found_in(dir.path()).iter().any(|place| place.contains("nadja@") || place.contains("street")));
    // The same erasure again changes nothing.
    let before = whole_answer(&flow).await;
    erase(&flow, &erased(at, &[("user", "nadja-1")])).await;
    assert_eq!(whole_answer(&flow).await, before);
    flow.stop().await;
}

fn with_table(dir: &Path, log: MemoryLog, table: &Arc<FakeTable>) -> Flow {
    let config = Config { table_interval: DurationText::millis(20), ..config() };
    let table: Arc<dyn StateTable> = Arc::clone(table) as Arc<dyn StateTable>;
    Flow::start_kept(dir, log, config, Beyond { table: Some(table), ..Beyond::default() })
}

async fn covered(flow: &Flow) {
    flow.caught_up().await;
    for partition in 0..PARTITIONS {
        let end = flow.log.bounds(place(partition)).await.unwrap().end;
        until(|| flow.log.committed(indexer::TABLE_READER, place(partition)) == Some(end)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn table_of_states_forgets_and_an_index_made_from_it_too() {
    let dir = tempfile::tempdir().unwrap();
    let table = Arc::new(FakeTable::default());
    let flow = with_table(dir.path(), new_log(), &table);
    flow.see(&everybody()).await;
    flow.see(&[Seen::context(&json!({"kind": "user", "key": "bo", "plan": "gold"}), ago(60))]).await;
    covered(&flow).await;
    let at = Clock::system().now().0;
    let scope = erased(at, &[("user", "nadja-1"), ("user", "bo")]);
    erase(&flow, &scope).await;
    let back = Seen::context(&json!({"kind": "user", "key": "bo", "plan": "new"}), ago(-1));
    flow.see(&[back]).await;
    covered(&flow).await;
    let states = || table.states().iter().filter(|state| has(format!("{state:?}").as_bytes())).count();
    assert!(states() >= 3, "older rows are in the table still");
    let done = flow.indexer.erase_states("id", Arc::clone(&scope)).await.unwrap().unwrap();
    assert!(done.rows >= 5, "{done:?}");
    assert_eq!(states(), 0);
    let of_bo: Vec<String> =
        table.states().into_iter().filter(|state| state.key == "bo").map(|state| state.context).collect();
    assert_eq!(of_bo, [r#"{"kind":"user","key":"bo","plan":"new"}"#], "what came back is there, and nothing else");
    let before = whole_answer(&flow).await;
    let log = flow.log.clone();
    flow.stop().await;
    for partition in 0..PARTITIONS {
        log.truncate_before(place(partition), log.committed(indexer::TABLE_READER, place(partition)).unwrap());
    }
    std::fs::remove_dir_all(dir.path()).unwrap();
    let flow = with_table(dir.path(), log, &table);
    until(|| !flow.indexer.is_rebuilding()).await;
    flow.caught_up().await;
    assert_eq!(whole_answer(&flow).await, before);
    assert_eq!(found_in(dir.path()), Vec::<String>::new());
    // The table has told it what to hold off.
    flow.see(&[as_seen("late", 0).received(at)]).await;
    assert!(flow.search("key equals nadja-1").await.is_empty());
    flow.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_are_made_anew_and_earlier_ones_are_gone() {
    let (dir, store) = (tempfile::tempdir().unwrap(), CopyStore::default());
    let beyond = || Beyond { snapshots: Some(SnapshotStore::new(Arc::new(store.clone()))), ..Beyond::default() };
    let quick = Config { snapshot_interval: DurationText::millis(30), ..config() };
    let flow = Flow::start_kept(dir.path(), new_log(), quick.clone(), beyond());
    for round in 0..3 {
        flow.see(&everybody()).await;
        flow.see(&[user(round, "changed", 0)]).await;
        let copied = async || store.newest(0).await.is_some_and(|newest| newest.sequence > round as u64 + 1);
        crate::common::until_async(copied).await;
    }
    erase_and_merge(&flow, &nadja()).await;
    let renewed = flow.indexer.renew_copies().await.unwrap().unwrap();
    assert_eq!(renewed.len(), PARTITIONS as usize);
    assert!(renewed.iter().all(|copy| copy.sequence > 1 && copy.removed > 0), "{renewed:?}");
    for partition in 0..PARTITIONS {
        let newest = store.newest(partition).await.unwrap();
        let mut named = newest.objects();
        named.sort_unstable();
        let folder = format!("{partition}/files/");
        let paths = store.paths().await;
        let there = paths.iter().filter_map(|path| path.as_ref().strip_prefix(&folder));
        let mut there: Vec<_> = there.map(str::to_owned).collect();
        there.sort_unstable();
        assert_eq!(there, named, "nothing else is there");
        assert_eq!(store.manifests(partition).await.len(), 1);
    }
    // What is in the copies is what is in the index, and that was searched.
    assert_eq!(found_in(dir.path()), Vec::<String>::new());
    let before = whole_answer(&flow).await;
    let log = flow.log.clone();
    flow.stop().await;
    let elsewhere = tempfile::tempdir().unwrap();
    let flow = Flow::start_kept(elsewhere.path(), log, quick, beyond());
    until(|| !flow.indexer.is_rebuilding()).await;
    flow.caught_up().await;
    assert_eq!(whole_answer(&flow).await, before);
    assert_eq!(found_in(elsewhere.path()), Vec::<String>::new());
    flow.stop().await;
}

/// Merging goes on beside indexing, and frees all that was removed before it began.
#[tokio::test(flavor = "multi_thread")]
async fn merging_beside_arrivals_ends() {
    let dir = tempfile::tempdir().unwrap();
    let flow = Flow::start(dir.path(), new_log());
    flow.see(&everybody()).await;
    erase(&flow, &nadja()).await;
    let arrivals = async {
        for round in 0..30 {
            flow.see(&(0..20).map(|n| user(n, &format!("plan {round}"), 30 - round)).collect::<Vec<_>>()).await;
        }
    };
    let (merged, ()) = tokio::join!(flow.indexer.merge(MergeScope::WithRemoved), arrivals);
    assert_eq!(merged.unwrap().len(), PARTITIONS as usize);
    assert_eq!(found_in(dir.path()), Vec::<String>::new());
    flow.caught_up().await;
    flow.indexer.merge(MergeScope::All).await.unwrap();
    for partition in 0..PARTITIONS {
        let meta: Value =
            serde_json::from_slice(&std::fs::read(dir.path().join(format!("{partition}/meta.json"))).unwrap()).unwrap();
        assert!(meta["segments"].as_array().unwrap().len() <= 1, "{meta}");
    }
    assert_eq!(flow.indexer.status().contexts, 52);
    assert_eq!(flow.log.partitions(Topic::Contexts), PARTITIONS);
    flow.stop().await;
}
