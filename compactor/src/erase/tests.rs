//! What goes and what stays, what is noted, and erasing beside merges and through deaths.

use ::events::Environment;
use runtime::UnixMicros;

use super::*;
use crate::fixtures::{EVENTS_0, EVENTS_1, Event, NOON, Payload, World, custom, feature, is_stopped, payload, summary};

const ID: &str = "erasure-1";

fn erased(until: UnixMicros, contexts: &[(&str, &str)]) -> ::events::ErasedContexts {
    let contexts = contexts.iter().map(|(kind, key)| ((*kind).to_owned(), (*key).to_owned()));
    ::events::ErasedContexts::new(Environment::new("default", "dev"), until.0, contexts)
}

fn events_of(user: &str) -> Vec<Event> {
    vec![feature("flag-a", user), feature("flag-b", user), custom("buys", user), summary("flag-a", 7)]
}

fn at(id: &str, seconds: i64, events: Vec<Event>) -> Payload {
    Payload { received_at: UnixMicros(NOON.0 + seconds * 1_000_000), ..payload(id, events) }
}

async fn rows_with(world: &World, text: &str) -> i64 {
    world
        .number(&format!(
            "SELECT count(*) FROM events WHERE context_key = '{text}' OR context LIKE '%{text}%' OR context_keys['user'] = '{text}'"
        ))
        .await
}

/// The bytes of every column of every live file.
async fn is_in_files(world: &World, text: &str) -> bool {
    let lines = world.lines("SELECT * FROM events").await;
    lines.iter().any(|line| line.contains(text))
}

#[tokio::test]
async fn rows_keep_their_place_and_lose_the_person() {
    let world = World::local();
    world.events(EVENTS_0, &[at("1", 0, events_of("ana")), at("2", 0, events_of("bo"))]).await;
    world.events(EVENTS_1, &[at("3", 1, events_of("ana")), at("4", 9, events_of("ana"))]).await;
    let elsewhere = Payload { environment: "test", ..at("5", 0, events_of("ana")) };
    world.events(EVENTS_0, &[elsewhere]).await;
    let compactor = world.compactor().await;
    compactor.land_available().await.unwrap();
    let counts = "SELECT flag_key, sum(evaluations) FROM evaluation_counts GROUP BY flag_key ORDER BY flag_key";
    let flags = "SELECT kind, flag_key, event_key, count(*) FROM events GROUP BY 1, 2, 3 ORDER BY 1, 2, 3";
    let before = (world.lines(counts).await, world.lines(flags).await);
    let files_before = world.compactor_files().await;

    let scope = erased(UnixMicros(NOON.0 + 5_000_000), &[("user", "ana"), ("org", "nobody")]);
    let done = compactor.erase(ID, &scope, NOON).await.unwrap();
    assert_eq!(rows_with(&world, "ana").await, 6, "what was received later, and in another environment");
    assert_eq!(rows_with(&world, "bo").await, 3);
    assert_eq!((world.lines(counts).await, world.lines(flags).await), before);
    world.expect_rows(20).await;
    assert_eq!(done.rows, 6, "of two payloads, without their counters");
    assert!(done.files > 0 && done.files <= files_before as u64 && done.searched_files >= done.files, "{done:?}");
    assert_eq!(done.version_after, done.version_before + 1);
    assert!(world.number("SELECT count(*) FROM events WHERE context_kind = 'user' AND context_key IS NULL").await == 6);

    let again = compactor.erase(ID, &scope, NOON).await.unwrap();
    assert_eq!((again.rows, again.files, again.version_after), (done.rows, done.files, done.version_after));
    let other = compactor.erase("another", &scope, NOON).await.unwrap();
    assert_eq!((other.rows, other.files), (0, 0), "nothing is left");
}

#[tokio::test]
async fn part_of_a_combination_takes_all_of_it() {
    let world = World::local();
    world.events(EVENTS_0, &[at("1", 0, events_of("ana"))]).await;
    let compactor = world.compactor().await;
    compactor.land_available().await.unwrap();
    // Each context of the fixture is a combination with this organisation.
    let done = compactor.erase(ID, &erased(NOON, &[("org", "acme")]), NOON).await.unwrap();
    assert_eq!(done.rows, 3);
    assert!(!is_in_files(&world, "ana").await && !is_in_files(&world, "acme").await);
}

#[tokio::test]
async fn files_that_cannot_hold_it_are_not_touched() {
    let world = World::local();
    world.events(EVENTS_0, &[at("1", 0, events_of("bo")), at("2", 0, vec![summary("flag-a", 3)])]).await;
    let compactor = world.compactor().await;
    compactor.land_available().await.unwrap();
    let before = world.lines("SELECT * FROM events ORDER BY log_offset, log_row").await;
    let version = compactor.status().table_version;
    let done = compactor.erase(ID, &erased(NOON, &[("user", "ana")]), NOON).await.unwrap();
    assert_eq!((done.rows, done.files), (0, 0));
    assert_eq!(done.version_before, done.version_after);
    assert_eq!(compactor.status().table_version, version);
    assert_eq!(world.lines("SELECT * FROM events ORDER BY log_offset, log_row").await, before);
}

/// Merges and erasures replace the same files; both end, and no row is lost, doubled or missed.
#[tokio::test]
async fn erasing_beside_merges() {
    let world = World::local();
    let compactor = world.compactor().await;
    for piece in 0..12 {
        let user = format!("user-{}", piece % 3);
        world.events(EVENTS_0, &[at(&format!("p{piece}"), piece, events_of(&user))]).await;
        compactor.land_available().await.unwrap();
    }
    let scope = erased(UnixMicros(NOON.0 + 1_000_000_000), &[("user", "user-1")]);
    let other = world.compactor().await;
    let (erased, merged) = tokio::join!(compactor.erase(ID, &scope, NOON), other.land_available());
    merged.unwrap();
    erased.unwrap();
    compactor.erase(ID, &scope, NOON).await.unwrap();
    assert!(!is_in_files(&world, "user-1").await);
    assert_eq!(rows_with(&world, "user-2").await, 12);
    world.expect_rows(48).await;
}

#[tokio::test]
async fn death_at_any_step_is_made_up_for() {
    for step in [Step::EraseWritten, Step::EraseCommitted] {
        let world = World::local();
        world.events(EVENTS_0, &[at("1", 0, events_of("ana")), at("2", 0, events_of("bo"))]).await;
        world.land().await;
        let scope = erased(NOON, &[("user", "ana")]);
        let dying = world.compactor_dying(Steps::new(move |reached| reached == step)).await.unwrap();
        assert!(is_stopped(dying.erase(ID, &scope, NOON).await));
        let done = world.compactor().await.erase(ID, &scope, NOON).await.unwrap();
        assert_eq!(done.rows, 3, "{step:?}: counted once, whoever did it");
        assert!(!is_in_files(&world, "ana").await);
        world.expect_rows(8).await;
    }
}

#[tokio::test]
async fn landed_offsets_are_told() {
    let world = World::local();
    world.events(EVENTS_0, &[at("1", 0, events_of("ana"))]).await;
    let compactor = world.compactor().await;
    let ends = [::events::Offset(1), ::events::Offset(0)];
    assert!(!compactor.has_landed(&ends).await.unwrap());
    compactor.land_available().await.unwrap();
    assert!(compactor.has_landed(&ends).await.unwrap());
}
