//! What is written is read back, newest last; two writers; what SQL shows.

use futures::TryStreamExt;

use super::*;
use crate::fixtures::World;

const TOPIC: &str = "topic";

fn state(key: &str, plan: &str) -> ContextState {
    ContextState {
        project: "shop".into(),
        environment: "prod".into(),
        kind: "user".into(),
        key: key.into(),
        anonymous: false,
        last_seen: 1_795_341_600_000_001,
        attributes_at: (plan != "unknown").then_some(1_795_341_600_000_000),
        content: u64::MAX - 7,
        applications: vec![("GoSDK/1.2".into(), 1_795_341_600_000_001), (String::new(), 5)],
        context: format!(r#"{{"kind":"user","key":"{key}","plan":"{plan}"}}"#),
    }
}

async fn open(world: &World) -> ContextTable {
    let runtime = world.new_runtime();
    let metrics = Metrics::new(&runtime.telemetry);
    ContextTable::open_on(&world.storage, &Config::default(), runtime, metrics).await.unwrap()
}

async fn write(table: &ContextTable, sequence: i64, next: i64, is_base: bool, states: &[ContextState]) -> Result<()> {
    let change = ContextChange { partition: 1, topic_id: TOPIC.into(), sequence, next, is_base };
    let batches: Vec<std::result::Result<_, Error>> = states.chunks(2).map(|chunk| Ok(chunk.to_vec())).collect();
    table.write(&change, futures::stream::iter(batches).boxed()).await
}

async fn read(table: &ContextTable, partition: u32) -> Vec<(ContextState, bool)> {
    let batches: Vec<_> = table.read(partition).await.unwrap().try_collect().await.unwrap();
    batches.into_iter().flat_map(|batch| batch.states.into_iter().map(move |one| (one, batch.may_replace))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn states_come_back_as_they_were_and_older_ones_first() {
    let world = World::local();
    let table = open(&world).await;
    assert_eq!(table.position(1, TOPIC).await.unwrap(), ContextPosition::default());
    let first = [state("a", "gold"), state("b", "silver"), state("c", "unknown")];
    write(&table, 0, 10, true, &first).await.unwrap();
    write(&table, 1, 20, false, &[state("a", "bronze")]).await.unwrap();
    write(&table, 2, 30, false, &[]).await.unwrap();

    let other = open(&world).await;
    let position = other.position(1, TOPIC).await.unwrap();
    assert_eq!((position.next, position.sequence, position.files), (Some(30), 3, 2));
    assert!(position.base_bytes > 0 && position.base_bytes < position.bytes);
    assert_eq!(other.position(1, "another topic").await.unwrap().next, None);
    assert!(read(&other, 0).await.is_empty(), "another partition");
    let expected = [(&first[0], false), (&first[1], false), (&first[2], false), (&state("a", "bronze"), true)];
    assert_eq!(read(&other, 1).await, expected.map(|(state, may_replace)| (state.clone(), may_replace)));

    let plans = "SELECT key, context FROM contexts ORDER BY key";
    let lines = world.lines(plans).await;
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[0].contains("bronze") && lines[1].contains("silver"), "{lines:?}");
    assert_eq!(world.number("SELECT count(*) FROM context_states").await, 4);
    assert_eq!(world.number("SELECT count(*) FROM contexts WHERE applications['GoSDK/1.2'] = last_seen").await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn new_base_replaces_its_partition_alone() {
    let world = World::local();
    let table = open(&world).await;
    write(&table, 0, 10, true, &[state("a", "gold"), state("gone", "gold")]).await.unwrap();
    write(&table, 1, 20, false, &[state("a", "silver")]).await.unwrap();
    let elsewhere = ContextChange { partition: 0, topic_id: TOPIC.into(), sequence: 0, next: 5, is_base: true };
    let one: Vec<std::result::Result<_, Error>> = vec![Ok(vec![state("z", "gold")])];
    table.write(&elsewhere, futures::stream::iter(one).boxed()).await.unwrap();
    write(&table, 2, 30, true, &[state("a", "silver")]).await.unwrap();
    assert_eq!(read(&table, 1).await, [(state("a", "silver"), false)]);
    assert_eq!(read(&table, 0).await, [(state("z", "gold"), false)]);
    assert_eq!(world.number("SELECT count(*) FROM contexts").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn slower_of_two_writers_is_refused() {
    let world = World::local();
    let (one, other) = (open(&world).await, open(&world).await);
    write(&one, 0, 10, true, &[state("a", "gold")]).await.unwrap();
    let refused = write(&other, 0, 8, true, &[state("a", "old")]).await;
    assert!(matches!(refused, Err(Error::Fenced { .. })), "{refused:?}");
    assert_eq!(read(&other, 1).await, [(state("a", "gold"), false)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn failing_states_change_nothing() {
    let world = World::local();
    let table = open(&world).await;
    let change = ContextChange { partition: 1, topic_id: TOPIC.into(), sequence: 0, next: 9, is_base: true };
    let states = vec![Ok(vec![state("a", "gold")]), Err(Error::Stopped("here"))];
    let failed = table.write(&change, futures::stream::iter(states).boxed()).await;
    assert!(matches!(failed, Err(Error::Stopped("here"))));
    assert_eq!(table.position(1, TOPIC).await.unwrap(), ContextPosition::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn erased_states_go_from_all_partitions() {
    let world = World::local();
    let table = open(&world).await;
    let multi = |key: &str| ContextState { kind: "multi".into(), ..state(key, "unknown") };
    let elsewhere = ContextState { environment: "test".into(), ..state("a", "gold") };
    write(&table, 0, 10, true, &[state("a", "gold"), state("b", "gold"), multi("org:o:user:a"), elsewhere.clone()])
        .await
        .unwrap();
    write(&table, 1, 20, false, &[state("a", "silver")]).await.unwrap();
    let change = ContextChange { partition: 0, topic_id: TOPIC.into(), sequence: 0, next: 5, is_base: true };
    let one: Vec<std::result::Result<_, Error>> = vec![Ok(vec![multi("device:d:user:a"), multi("device:d:org:o")])];
    table.write(&change, futures::stream::iter(one).boxed()).await.unwrap();

    let environment = events::Environment::new("shop", "prod");
    let erased = ErasedContexts::new(environment, i64::MAX, [("user".to_owned(), "a".to_owned())]);
    let began = world.runtime.clock.now();
    let done = table.erase("id", &erased, began).await.unwrap();
    assert_eq!((done.searched_files, done.files, done.rows), (3, 3, 4));
    assert_eq!(read(&table, 1).await, [(state("b", "gold"), false), (elsewhere.clone(), false)]);
    assert_eq!(read(&table, 0).await, [(multi("device:d:org:o"), false)]);
    // A write that was prepared before does not bring them back.
    let late = write(&table, 2, 30, false, &[state("a", "late")]).await;
    assert!(matches!(late, Err(Error::Fenced { .. })), "{late:?}");
    let position = table.position(1, TOPIC).await.unwrap();
    assert_eq!((position.next, position.sequence), (Some(20), 3));
    write(&table, 3, 30, false, &[state("c", "gold")]).await.unwrap();
    let again = table.erase("id", &erased, began).await.unwrap();
    assert_eq!((again.files, again.rows, again.version_after), (done.files, done.rows, done.version_after));
}
