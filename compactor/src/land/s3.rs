//! The tables on a real S3 server: the same promises, and clear errors where they cannot be given.

use super::tests::some_payload;
use super::*;
use crate::fixtures::s3::{self, Answer, Proxy};
use crate::fixtures::{EVENTS_0, EVENTS_1, LETTERS_0, World, is_stopped, letters_batch, payload};
use crate::{Compactor, Storage};

async fn open(config: crate::StorageConfig) -> crate::Error {
    let world = World::local();
    let storage = Storage::open(&config).unwrap();
    let log = Arc::new(world.log.clone());
    let opened = Compactor::open_on(storage, &world.config, log, world.new_runtime(), Steps::default()).await;
    opened.err().expect("it must not open")
}

/// Landing, merges, the library's checkpoint, SQL, and a death between files and commit.
#[tokio::test(flavor = "multi_thread")]
async fn tables_live_on_s3() {
    let world = World::on(s3::storage(&s3::endpoint()));
    for number in 0..66 {
        world.events(EVENTS_0, &[some_payload(number)]).await;
        world.compactor().await.work.lock().await.events.land_available().await.unwrap();
    }
    world.events(EVENTS_1, &[some_payload(100), some_payload(100)]).await;
    world.append(LETTERS_0, &letters_batch(&[payload("bad", vec![])])).await;
    let dying = world.compactor_dying(Steps::new(|at| at == Step::FilesWritten)).await.unwrap();
    assert!(is_stopped(dying.land_available().await));
    world.land().await;

    world.expect_rows(67 * 3).await;
    assert_eq!(world.number("SELECT count(*) FROM dead_letters").await, 1);
    assert_eq!(world.lines("SELECT landed, deduplicated FROM ledger").await, ["201 3"]);
    assert!(world.compactor_files().await < 30, "files were merged");
    let state = crate::table::load::load("events", &world.storage.table("events")).await.unwrap().unwrap();
    assert!(state.checkpoint_version >= 64, "checkpoint at {}", state.checkpoint_version);
}

/// The server carried the commit out, but its answer is lost, or an error makes the library repeat the request.
#[tokio::test(flavor = "multi_thread")]
async fn lost_answers_of_s3_double_nothing() {
    for answer in [Answer::Cut, Answer::Error] {
        // Three tables are made with a commit each, then rows land in two.
        let proxy = Proxy::start(answer, 5).await;
        let world = World::on(s3::storage(&proxy.endpoint));
        let compactor = loop {
            match world.compactor_dying(Steps::default()).await {
                Ok(compactor) => break compactor,
                // Making a table may be tried again.
                Err(error) => assert_eq!(error.kind(), ErrorKind::Retry, "{error}"),
            }
        };
        for round in 0..5 {
            world.events(EVENTS_0, &[some_payload(round)]).await;
            compactor.work.lock().await.events.land_available().await.unwrap();
        }
        assert_eq!(proxy.spoiled(), 5, "{answer:?}");
        world.expect_rows(15).await;
        let table = compactor.work.lock().await.events.table.clone();
        assert_eq!(table.state().await.version, 5, "{answer:?}: one commit for each landing");
    }
}

#[tokio::test]
async fn wrong_set_ups_are_told_apart() {
    let endpoint = s3::endpoint();
    let with = |name: &str, value: &str| {
        let mut config = s3::config(&endpoint);
        config.options.insert(name.into(), value.into());
        config
    };
    let error = open(with("secret_access_key", "not-the-one")).await;
    assert!(error.to_string().contains("refuses these credentials"), "{error}");
    let error = open(with("access_key_id", "nobody")).await;
    assert!(error.to_string().contains("refuses these credentials"), "{error}");
    let error = open(crate::StorageConfig { url: "s3://there-is-none/lake".into(), ..s3::config(&endpoint) }).await;
    assert!(error.to_string().contains("no such bucket"), "{error}");
    let error = open(with("conditional_put", "disabled")).await;
    assert!(error.to_string().contains("does not honour conditional writes"), "{error}");
    // Nobody listens on this port.
    let error = open(with("endpoint", "http://127.0.0.1:1")).await;
    assert_eq!(error.kind(), ErrorKind::Retry, "{error}");
}
