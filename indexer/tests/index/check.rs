//! Holding the table of states against the index, and mending either.

use std::sync::Arc;

use eventlog::LogReader as _;
use events::ContextState;
use indexer::table::StateTable;
use indexer::{Beyond, Checked, Config};
use runtime::DurationText;
use serde_json::json;

use crate::common::table::FakeTable;
use crate::common::{Flow, PARTITIONS, Seen, ago, config, new_log, place, until, user};

async fn filled(dir: &std::path::Path, table: &Arc<FakeTable>, config: Config) -> Flow {
    let config = Config { table_interval: DurationText::millis(20), ..config };
    let beyond = Beyond { table: Some(Arc::clone(table) as Arc<dyn StateTable>), ..Beyond::default() };
    let flow = Flow::start_kept(dir, new_log(), config, beyond);
    let mut seen: Vec<_> = (0..60).map(|n| user(n, "gold", 1000 - n as i64)).collect();
    seen.extend((0..20).map(|n| user(n, "silver", 500 - n as i64).by("web")));
    seen.extend(Seen::together(&[("org", "lagoa"), ("user", "u001")], ago(90)));
    seen.push(Seen::context(&json!({"kind": "user", "key": "hidden", "anonymous": true}), ago(80)));
    flow.see(&seen).await;
    flow.call(crate::common::delete("/api/v2/users/shop/prod/u005")).await;
    flow.caught_up().await;
    for partition in 0..PARTITIONS {
        let end = flow.log.bounds(place(partition)).await.unwrap().end;
        until(|| flow.log.committed(indexer::TABLE_READER, place(partition)) == Some(end)).await;
    }
    flow
}

async fn check(flow: &Flow, repairs: bool) -> Checked {
    let mut sum = Checked::default();
    for partition in 0..PARTITIONS {
        let one = flow.indexer.check(partition, repairs).await.unwrap().unwrap();
        sum.in_index += one.in_index;
        sum.in_table += one.in_table;
        sum.only_in_index += one.only_in_index;
        sum.only_in_table += one.only_in_table;
        sum.different += one.different;
        sum.repaired += one.repaired;
    }
    sum
}

fn differences(checked: &Checked) -> [u64; 4] {
    [checked.only_in_index, checked.only_in_table, checked.different, checked.repaired]
}

/// Changes the rows of a key, or takes them away.
fn change(table: &FakeTable, key: &str, change: impl Fn(&mut ContextState) -> bool) {
    for kept in table.partitions.lock().values_mut() {
        for states in &mut kept.changes {
            states.retain_mut(|state| state.key != key || change(state));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn differences_are_told_and_mended_from_the_right_side() {
    let (dir, table) = (tempfile::tempdir().unwrap(), Arc::new(FakeTable::default()));
    let flow = filled(dir.path(), &table, config()).await;
    let whole = check(&flow, false).await;
    assert_eq!(differences(&whole), [0; 4]);
    // Sixty users, one of them deleted, an organisation, a combination, one who is hidden.
    assert_eq!((whole.in_index, whole.in_table), (63, 63));

    // The table has lost one and its newest of another, and knows something newer of a third, and one more.
    change(&table, "u010", |_| false);
    change(&table, "u011", |state| {
        state.context = state.context.replace("silver", "tampered");
        true
    });
    change(&table, "u030", |state| {
        state.context = state.context.replace("gold", "newer");
        state.last_seen += 1;
        true
    });
    let (ghost_place, ghost) = {
        let partitions = table.partitions.lock();
        let of = |key: &str| {
            let has = |kept: &crate::common::table::Kept| kept.changes.concat().iter().any(|state| state.key == key);
            *partitions.iter().find(|(_, kept)| has(kept)).unwrap().0
        };
        let state = |key: &str| partitions[&of(key)].changes.concat().into_iter().find(|state| state.key == key);
        let context = r#"{"kind":"user","key":"ghost","plan":"gold"}"#.to_owned();
        (of("u031"), ContextState { key: "ghost".into(), context, ..state("u031").unwrap() })
    };
    table.partitions.lock().get_mut(&ghost_place).unwrap().changes[0].push(ghost);
    assert_eq!(differences(&check(&flow, false).await), [1, 1, 2, 0]);
    assert_eq!(differences(&check(&flow, true).await), [1, 1, 2, 4]);
    flow.caught_up().await;
    assert_eq!(differences(&check(&flow, false).await), [0; 4]);
    assert_eq!(flow.search("key equals ghost").await, ["ghost"]);
    assert_eq!(flow.search("plan equals newer").await, ["u030"]);
    let plans: Vec<_> = table.states().into_iter().filter(|state| state.key == "u011").collect();
    assert!(plans.last().unwrap().context.contains("silver"), "{plans:?}");
    assert!(flow.search("key equals u005").await.is_empty());
    flow.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_meanwhile_is_no_fault() {
    let (dir, table) = (tempfile::tempdir().unwrap(), Arc::new(FakeTable::default()));
    let flow = filled(dir.path(), &table, config()).await;
    let arrivals = async {
        for round in 0..40 {
            flow.see(&(0..10).map(|n| user(n, &format!("plan {round}"), 40 - round)).collect::<Vec<_>>()).await;
        }
    };
    let checks = async {
        for _ in 0..10 {
            assert_eq!(differences(&check(&flow, true).await), [0; 4]);
        }
    };
    tokio::join!(arrivals, checks);
    flow.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_went_for_the_bound_is_no_fault() {
    let (dir, table) = (tempfile::tempdir().unwrap(), Arc::new(FakeTable::default()));
    let flow = filled(dir.path(), &table, Config { environment_contexts_max: 30, ..config() }).await;
    until(|| flow.indexer.status().contexts <= 30).await;
    let checked = check(&flow, true).await;
    assert_eq!(differences(&checked), [0; 4]);
    assert!(checked.in_table > checked.in_index);
    flow.stop().await;
}
