//! Commits whose answers get lost, come late or meet other writers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use runtime::Runtime;
use url::Url;

use super::*;
use crate::fixtures::NOON;
use crate::fixtures::faults::{Fault, FaultStore};
use crate::metrics::Metrics;
use crate::schema::LEDGER;
use crate::table::store::Storage;

async fn table(store: &FaultStore) -> Table {
    static SEED: AtomicU64 = AtomicU64::new(1);
    let runtime = Runtime::simulated(NOON, SEED.fetch_add(1, Ordering::Relaxed));
    let storage = Storage::with_store(Arc::new(store.clone()), Url::parse("memory:///lake").unwrap()).unwrap();
    let metrics = Metrics::new(&runtime.telemetry);
    Table::open(&LEDGER, &storage, Duration::ZERO, runtime, metrics).await.unwrap()
}

fn moves(to: i64) -> Change {
    Change { operation: "WRITE", txns: vec![("a".into(), to)], ..Default::default() }
}

fn stands_at(expected: Option<i64>) -> impl Fn(&TableState) -> Result<()> + Send + Sync {
    move |state| match state.txns.get("a").copied() == expected {
        true => Ok(()),
        false => Err(Error::FileGone { table: "ledger", path: "a".into() }),
    }
}

/// A commit of somebody else that moves "a".
fn others(to: i64) -> Bytes {
    actions::encode(&moves(to).actions("other", 0))
}

async fn reread(store: &FaultStore) -> TableState {
    table(store).await.state().await.clone()
}

#[tokio::test]
async fn lost_answer_is_settled_by_looking() {
    let store = FaultStore::default();
    let table = table(&store).await;
    store.next_commits([Fault::AnswerLost]);
    assert_eq!(table.commit(&moves(5), &stands_at(None)).await.unwrap(), 1);
    assert_eq!(reread(&store).await.version, 1, "it was not committed a second time");
}

#[tokio::test]
async fn lost_write_is_repeated() {
    let store = FaultStore::default();
    let table = table(&store).await;
    store.next_commits([Fault::Lost, Fault::Lost]);
    assert_eq!(table.commit(&moves(5), &stands_at(None)).await.unwrap(), 1);
    assert_eq!(reread(&store).await.txns["a"], 5);
}

#[tokio::test]
async fn write_that_lands_late_is_one_commit() {
    let store = FaultStore::default();
    let table = table(&store).await;
    store.next_commits([Fault::Late]);
    assert_eq!(table.commit(&moves(5), &stands_at(None)).await.unwrap(), 1);
    assert_eq!(reread(&store).await.version, 1);
}

#[tokio::test]
async fn other_writers_commit_is_stepped_over() {
    let store = FaultStore::default();
    let table = table(&store).await;
    let other = Change { operation: "WRITE", txns: vec![("b".into(), 1)], ..Default::default() };
    store.next_commits([Fault::Overtaken(actions::encode(&other.actions("other", 0)))]);
    assert_eq!(table.commit(&moves(5), &stands_at(None)).await.unwrap(), 2);
    let state = reread(&store).await;
    assert_eq!((state.version, state.txns["a"], state.txns["b"]), (2, 5, 1));
}

#[tokio::test]
async fn change_that_no_longer_fits_is_refused() {
    let store = FaultStore::default();
    let table = table(&store).await;
    store.next_commits([Fault::Overtaken(others(9))]);
    let error = table.commit(&moves(5), &stands_at(None)).await.unwrap_err();
    assert!(matches!(error, Error::FileGone { .. }), "{error}");
    let state = reread(&store).await;
    assert_eq!((state.version, state.txns["a"]), (1, 9));
}

/// The zombie's write was under way when the other one committed: it may neither land nor be believed to have landed.
#[tokio::test]
async fn late_write_of_a_zombie_never_lands() {
    let store = FaultStore::default();
    let (zombie, owner) = (table(&store).await, table(&store).await);
    store.next_commits([Fault::Lost]);
    let change = moves(5);
    let guard = stands_at(None);
    let zombies = zombie.commit(&change, &guard);
    let owners = async {
        owner.refresh().await.unwrap();
        owner.commit(&moves(7), &stands_at(None)).await
    };
    let (zombies, owners) = tokio::join!(zombies, owners);
    assert_eq!(owners.unwrap(), 1);
    assert!(matches!(zombies, Err(Error::FileGone { .. })));
    assert_eq!(reread(&store).await.txns["a"], 7);
}

#[tokio::test]
async fn table_of_a_newer_version_is_refused() {
    let store = FaultStore::default();
    let table = table(&store).await;
    store.next_commits([Fault::Overtaken(Bytes::from_static(
        br#"{"protocol":{"minReaderVersion":3,"minWriterVersion":7}}"#,
    ))]);
    let error = table.commit(&moves(5), &stands_at(None)).await.unwrap_err();
    assert!(error.to_string().contains("reader version 3"), "{error}");
}
