//! Exactly once, whatever dies and whoever else is at work.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use eventlog::Assigner;
use events::Offset;
use runtime::ByteSize;
use url::Url;

use super::*;
use crate::Storage;
use crate::fixtures::faults::{Fault, FaultStore};
use crate::fixtures::{
    EVENTS_0, EVENTS_1, LETTERS_0, NOON, World, custom, feature, is_stopped, letters_batch, payload, summary,
};

pub(super) fn some_payload(number: i64) -> crate::fixtures::Payload {
    payload(&format!("p{number}"), vec![feature("flag", "ann"), summary("flag", number), custom("click", "bob")])
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_land_with_their_columns() {
    let world = World::local();
    world.events(EVENTS_0, &[some_payload(5)]).await;
    world.events(EVENTS_1, &[some_payload(6)]).await;
    world.append(LETTERS_0, &letters_batch(&[payload("bad", vec![])])).await;
    let compactor = world.compactor().await;
    compactor.land_available().await.unwrap();

    world.expect_rows(6).await;
    let rows = world
        .lines(
            "SELECT kind, flag_key, event_key, count, context_key, context_keys['org'], context_kinds[1], payload_index, log_partition, log_offset, \
             log_row, sdk, event_date FROM events ORDER BY log_partition, log_row",
        )
        .await;
    assert_eq!(rows[0], "feature flag   ann acme  0 0 0 0 PythonClient 2026-11-22");
    assert_eq!(rows[1], "summary flag  5   user 1 0 0 1 PythonClient 2026-11-22");
    assert_eq!(rows[2], "custom  click  bob acme  2 0 0 2 PythonClient 2026-11-22");
    assert_eq!(world.number("SELECT sum(evaluations) FROM evaluation_counts").await, 11);
    assert_eq!(
        world.lines("SELECT id, reason, byte_offset, payload_id, path FROM dead_letters").await,
        ["bad invalid_json 3 bad /bulk"]
    );
    for (view, _) in crate::VIEWS {
        world.query(&format!("SELECT * FROM {view}")).await;
    }

    let status = compactor.status();
    assert_eq!((status.lag_records, status.files), (0, 3 + 1 + 2));
    assert_eq!(status.newest_received_at, Some(NOON));
    assert_eq!(world.log.committed(READER, EVENTS_0), Some(Offset(1)));
    assert_eq!(world.log.committed(READER, LETTERS_0), Some(Offset(1)));
}

/// Dies at each step, at its first and its second occurrence, and is started again until all is landed.
#[tokio::test(flavor = "multi_thread")]
async fn rows_land_exactly_once_across_deaths() {
    for step in [Step::FilesWritten, Step::Committed] {
        for occurrence in [0, 1] {
            let world = World::local();
            let met = Arc::new(AtomicUsize::new(0));
            for round in 0..3 {
                world.events(EVENTS_0, &[some_payload(round)]).await;
                world.events(EVENTS_1, &[some_payload(round + 100)]).await;
                // The client did not see the first answer and sent the payload again.
                world.events(EVENTS_0, &[some_payload(round)]).await;
                let met = Arc::clone(&met);
                let dies = Steps::new(move |at| at == step && met.fetch_add(1, Ordering::Relaxed) == occurrence);
                let died = is_stopped(world.compactor_dying(dies).await.unwrap().land_available().await);
                assert_eq!(died, round as usize == occurrence, "{step:?} {occurrence} {round}");
            }
            world.land().await;
            world.expect_rows(18).await;
            let ledger = "SELECT sum(accepted), sum(landed), sum(deduplicated), sum(dead_lettered) FROM ledger";
            assert_eq!(world.lines(ledger).await, ["27 18 9 0"], "{step:?} {occurrence}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn payload_repeated_after_a_restart_is_dropped() {
    let world = World::local();
    world.events(EVENTS_0, &[some_payload(1), some_payload(2)]).await;
    world.append(LETTERS_0, &letters_batch(&[payload("bad", vec![])])).await;
    world.land().await;
    world.events(EVENTS_0, &[some_payload(2), some_payload(3), some_payload(3)]).await;
    world.append(LETTERS_0, &letters_batch(&[payload("bad", vec![]), payload("", vec![]), payload("", vec![])])).await;
    world.land().await;
    world.expect_rows(9).await;
    assert_eq!(world.number("SELECT count(*) FROM dead_letters").await, 3, "only payloads with an id repeat");
    assert_eq!(world.lines("SELECT accepted, landed, deduplicated, dead_lettered FROM ledger").await, ["19 9 7 3"]);
}

/// What was taken of a partition that has gone to another process can no longer be committed; the rest can.
#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_partition_that_has_gone_leave_the_buffer() {
    let world = World::local();
    let assigner = Assigner::new();
    assigner.assign([EVENTS_0, EVENTS_1, LETTERS_0]);
    let compactor = world.compactor().await.follow(assigner.assignment());
    world.events(EVENTS_0, &[some_payload(1)]).await;
    world.append_bytes(EVENTS_0, Bytes::from_static(b"nobody can read this")).await;
    world.events(EVENTS_1, &[some_payload(2)]).await;
    {
        let mut work = compactor.work.lock().await;
        work.events.position().await.unwrap();
        assert_eq!(work.events.take_available().await.unwrap(), 3);
        assigner.assign([EVENTS_1]);
        work.events.position().await.unwrap();
        work.events.flush().await.unwrap();
        assert_eq!(work.events.buffer.bytes, 0);
    }
    world.expect_rows(3).await;
    assert_eq!(world.lines("SELECT DISTINCT log_partition FROM events").await, ["1"]);
    assert_eq!(world.number("SELECT count(*) FROM dead_letters").await, 0);
    compactor.land_available().await.unwrap();
    assert_eq!(compactor.status().lag_records, 0, "what is another's is not its lag");

    let other = world.compactor().await;
    other.land_available().await.unwrap();
    world.expect_rows(6).await;
    assert_eq!(world.number("SELECT count(*) FROM dead_letters").await, 1);
    let account = "SELECT sum(accepted), sum(landed), sum(dead_lettered) FROM ledger";
    assert_eq!(world.lines(account).await, ["7 6 1"]);

    // It comes back, and is read on from where the other one has left it, with all that is known of repetitions.
    world.events(EVENTS_0, &[some_payload(1), some_payload(3)]).await;
    assigner.assign([EVENTS_0, EVENTS_1, LETTERS_0]);
    compactor.land_available().await.unwrap();
    world.expect_rows(9).await;
    assert_eq!(compactor.metrics.fenced_batches.with_label_values(&["events"]).get(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn partition_that_comes_while_nothing_happens_is_taken_up() {
    let world = World::local();
    let assigner = Assigner::new();
    let compactor = Arc::new(world.compactor().await.follow(assigner.assignment()));
    world.events(EVENTS_0, &[some_payload(1)]).await;
    let shutdown = Shutdown::new();
    let running = tokio::spawn({
        let (compactor, shutdown) = (Arc::clone(&compactor), shutdown.clone());
        async move { compactor.run(&shutdown).await }
    });
    tokio::task::yield_now().await;
    assert_eq!(world.log.committed(READER, EVENTS_0), Some(Offset(0)), "registered, and no more");
    assigner.assign([EVENTS_0]);
    let deadline = Instant::now() + Duration::from_secs(30);
    while world.log.committed(READER, EVENTS_0) != Some(Offset(1)) {
        assert!(Instant::now() < deadline, "not landed");
        tokio::task::yield_now().await;
    }
    shutdown.begin();
    running.await.unwrap().unwrap();
    world.expect_rows(3).await;
}

/// The process that takes over has a clock of its own; only the log's time says what the window holds.
#[tokio::test(flavor = "multi_thread")]
async fn payload_repeated_after_a_restart_is_dropped_by_a_clock_that_is_ahead() {
    let world = World::local();
    world.events(EVENTS_0, &[some_payload(5)]).await;
    world.land().await;
    let ahead = Runtime::simulated(NOON.saturating_add(Duration::from_secs(3_600)), 8);
    let log = Arc::new(world.log.clone());
    let next = crate::Compactor::open_on(world.storage.clone(), &world.config, log, ahead, Steps::default()).await;
    let next = next.unwrap();
    next.land_available().await.unwrap();
    world.events(EVENTS_0, &[some_payload(5)]).await;
    next.land_available().await.unwrap();
    world.expect_rows(3).await;
}

/// Whoever asks sees the account of exactly the rows that are visible, also before the table `ledger` has followed.
#[tokio::test(flavor = "multi_thread")]
async fn account_is_exact_with_each_commit() {
    let world = World::local();
    let compactor = world.compactor().await;
    for round in 1..=3 {
        world.events(EVENTS_0, &[some_payload(round), some_payload(1)]).await;
        world.append(LETTERS_0, &letters_batch(&[payload("", vec![])])).await;
        let mut work = compactor.work.lock().await;
        work.events.land_available().await.unwrap();
        work.dead_letters.land_available().await.unwrap();
        if round == 2 {
            work.upkeep.copy_ledger().await.unwrap();
        }
        let accounts = world.lines("SELECT accepted, landed, deduplicated, dead_lettered FROM ledger").await;
        assert_eq!(accounts, [format!("{} {} {} {round}", 7 * round, 3 * round, 3 * round)]);
        assert_eq!(world.number("SELECT count(*) FROM events").await, 3 * round);
    }
    assert_eq!(
        world.number("SELECT CAST(sum(landed) AS BIGINT) FROM ledger_entries").await,
        6,
        "as other readers see it"
    );
}

/// What only repeats moves the offset all the same.
#[tokio::test(flavor = "multi_thread")]
async fn batch_of_repetitions_commits_its_offsets() {
    let world = World::local();
    world.events(EVENTS_0, &[some_payload(1)]).await;
    world.land().await;
    world.events(EVENTS_0, &[some_payload(1)]).await;
    world.land().await;
    world.expect_rows(3).await;
    assert_eq!(world.log.committed(READER, EVENTS_0), Some(Offset(2)));
}

/// A process that was thought dead wakes up with rows in its buffer that its successor has landed.
#[tokio::test(flavor = "multi_thread")]
async fn zombies_batch_is_dropped() {
    let world = World::local();
    world.events(EVENTS_0, &[some_payload(1)]).await;
    let (zombie, owner) = (world.compactor().await, world.compactor().await);
    let mut zombie = zombie.work.lock().await;
    zombie.events.position().await.unwrap();
    assert_eq!(zombie.events.take_available().await.unwrap(), 1);

    owner.land_available().await.unwrap();
    world.events(EVENTS_0, &[some_payload(2)]).await;
    owner.land_available().await.unwrap();
    zombie.events.flush().await.unwrap();
    world.expect_rows(6).await;
    assert_eq!(zombie.events.metrics.fenced_batches.with_label_values(&["events"]).get(), 1);

    // It reads on from where the table stands, and then the owner is the one that is late.
    world.events(EVENTS_0, &[some_payload(3), some_payload(1)]).await;
    zombie.events.land_available().await.unwrap();
    owner.land_available().await.unwrap();
    world.expect_rows(9).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_answers_of_the_store_double_nothing() {
    for faults in [
        vec![Fault::AnswerLost],
        vec![Fault::Late],
        vec![Fault::Lost, Fault::Lost],
        vec![Fault::Late, Fault::AnswerLost],
    ] {
        let store = FaultStore::default();
        let world =
            World::on(Storage::with_store(Arc::new(store.clone()), Url::parse("memory:///lake").unwrap()).unwrap());
        let compactor = world.compactor().await;
        for round in 0..3 {
            world.events(EVENTS_0, &[some_payload(round)]).await;
            store.next_commits(faults.clone());
            compactor.work.lock().await.events.land_available().await.unwrap();
        }
        world.expect_rows(9).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unreadable_record_goes_to_the_dead_letters_once() {
    for step in [None, Some(Step::PoisonLanded), Some(Step::FilesWritten), Some(Step::Committed)] {
        let world = World::local();
        world.events(EVENTS_0, &[some_payload(1)]).await;
        world.append_bytes(EVENTS_0, Bytes::from_static(b"no frame")).await;
        world.append(EVENTS_0, &letters_batch(&[payload("astray", vec![])])).await;
        world.events(EVENTS_0, &[some_payload(2)]).await;
        if let Some(step) = step {
            let dying = world.compactor_dying(Steps::new(move |at| at == step)).await.unwrap();
            assert!(is_stopped(dying.land_available().await), "{step:?}");
        }
        world.land().await;
        world.expect_rows(6).await;
        let letters =
            world.lines("SELECT reason, log_offset, body IS NOT NULL FROM dead_letters ORDER BY log_offset").await;
        assert_eq!(letters, ["unreadable_record 1 true", "unreadable_record 2 true"], "{step:?}");
        assert_eq!(world.number("SELECT CAST(sum(dead_lettered) AS BIGINT) FROM ledger").await, 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn full_buffer_is_committed_before_more_is_read() {
    let mut world = World::local();
    world.config.memory_budget = ByteSize::mib(16);
    world.config.merge = false;
    for number in 0..40 {
        let events = (0..2_000).map(|row| feature(&format!("flag-{row}"), &format!("user-{number}-{row}"))).collect();
        world.events(EVENTS_0, &[payload(&number.to_string(), events)]).await;
    }
    let compactor = world.compactor().await;
    let limit = world.config.shares().buffer_bytes;
    let mut work = compactor.work.lock().await;
    work.events.position().await.unwrap();
    let mut rounds = 0;
    while work.events.take_available().await.unwrap() > 0 {
        let largest = work.events.buffer.frames.iter().map(|frame| frame.bytes).max().unwrap();
        assert!(work.events.buffer.bytes < limit + largest, "one record past the limit at most");
        assert!(largest < limit);
        work.events.flush().await.unwrap();
        rounds += 1;
    }
    assert!(rounds > 1, "all of it would have fitted");
    drop(work);
    world.expect_rows(80_000).await;
}

/// Lag is told from the start on and after a commit that leaves a backlog behind.
#[tokio::test(flavor = "multi_thread")]
async fn age_of_a_backlog_is_told() {
    let mut world = World::local();
    world.config.memory_budget = ByteSize::mib(16);
    for number in 0..40 {
        let events = (0..2_000).map(|row| feature(&format!("flag-{row}"), &format!("user-{number}-{row}"))).collect();
        world.events(EVENTS_0, &[payload(&number.to_string(), events)]).await;
    }
    // The log, which has the same clock, took these an hour ago.
    world.runtime.clock.set_ahead(3_600_000_000);
    let compactor = world.compactor().await;
    let waits = |least: u64| {
        let status = compactor.status();
        assert!(status.lag_records >= least && status.lag_seconds >= 3_600.0, "{status:?}");
    };
    waits(40);
    {
        let mut work = compactor.work.lock().await;
        work.events.position().await.unwrap();
        waits(40);
        assert!(work.events.take_available().await.unwrap() > 0);
        work.events.flush().await.unwrap();
        waits(1);
    }
    compactor.land_available().await.unwrap();
    let status = compactor.status();
    assert_eq!((status.lag_records, status.lag_seconds), (0, 0.0));
}

/// A full disk while files are written: what was written is deleted again, and all of it lands when there is room.
#[tokio::test(flavor = "multi_thread")]
async fn full_disk_while_writing_files_costs_no_row_and_leaves_no_file() {
    let store = FaultStore::default();
    let world = World::on(Storage::with_store(Arc::new(store.clone()), Url::parse("memory:///lake").unwrap()).unwrap());
    let compactor = world.compactor().await;
    world.events(EVENTS_0, &[some_payload(1)]).await;
    let mut work = compactor.work.lock().await;
    // One file for each of the three kinds of event: the third one meets the full disk.
    store.next_writes([None, None, Some(Fault::Full)]);
    let error = work.events.land_available().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Retry, "{error}");
    assert_eq!(store.data_files().await, 0);
    assert_eq!(work.events.buffer.frames.len(), 1, "the rows are kept");
    work.events.land_available().await.unwrap();
    assert_eq!(store.data_files().await, 3);
    drop(work);
    world.expect_rows(3).await;
}

/// A full disk at the commit: nothing becomes visible, nothing is lost, nothing lands twice.
#[tokio::test(start_paused = true)]
async fn full_disk_while_committing_costs_no_row() {
    let store = FaultStore::default();
    let world = World::on(Storage::with_store(Arc::new(store.clone()), Url::parse("memory:///lake").unwrap()).unwrap());
    let compactor = world.compactor().await;
    world.events(EVENTS_0, &[some_payload(1)]).await;
    let mut work = compactor.work.lock().await;
    store.next_commits(vec![Fault::Full; 10]);
    let error = work.events.land_available().await.unwrap_err();
    assert!(matches!(error, Error::Undecided { .. }), "{error}");
    assert_eq!(work.events.table.state().await.version, 0);
    work.events.land_available().await.unwrap();
    assert_eq!(work.events.table.state().await.version, 1);
    assert_eq!(world.compactor_files().await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn log_that_does_not_fit_the_table_stops_its_partition_only() {
    let mut world = World::local();
    for number in 0..3 {
        world.events(EVENTS_0, &[some_payload(number)]).await;
    }
    world.land().await;
    for number in 3..6 {
        world.events(EVENTS_0, &[some_payload(number)]).await;
    }
    world.events(EVENTS_1, &[some_payload(9)]).await;
    world.log.truncate_before(EVENTS_0, Offset(5));
    let compactor = world.compactor().await;
    compactor.land_available().await.unwrap();
    assert!(compactor.status().stopped[0].contains("the table continues at 3"), "{:?}", compactor.status().stopped);
    world.expect_rows(12).await;

    world.log = eventlog::memory::MemoryLog::new(world.runtime.clock.clone(), [2, 1, 1], "two");
    world.events(EVENTS_1, &[some_payload(10)]).await;
    let compactor = world.compactor().await;
    compactor.land_available().await.unwrap();
    assert_eq!(compactor.status().stopped.len(), 2);
    assert!(compactor.status().stopped[0].contains("fed from another log"), "{:?}", compactor.status().stopped);
    world.expect_rows(12).await;
}

/// The loop as the program runs it: rows become visible by themselves, shutdown commits what is buffered.
#[tokio::test(flavor = "multi_thread")]
async fn running_stage_lands_and_shuts_down() {
    let mut world = World::local();
    world.config.commit_interval = runtime::DurationText::secs(3600);
    let compactor = Arc::new(world.compactor().await);
    let shutdown = Shutdown::new();
    let running = tokio::spawn({
        let (compactor, shutdown) = (Arc::clone(&compactor), shutdown.clone());
        async move { compactor.run(&shutdown).await }
    });
    world.events(EVENTS_0, &[some_payload(1)]).await;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while compactor.status().lag_records == 0 {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    shutdown.begin();
    running.await.unwrap().unwrap();
    world.expect_rows(3).await;
    assert_eq!(compactor.status().lag_records, 0);
}

/// Not a check: says how fast rows go from log to table. `cargo test --release -p compactor -- --ignored landing_speed`.
/// Input: frames of 16 payloads with 30 events of 10 flags and 100 contexts each, as a busy server sends them.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn landing_speed() {
    let world = World::local();
    let (frames, payloads, events) = (400, 16, 30);
    for frame in 0..frames {
        let payload_of = |number: i64| {
            let event = |row: i64| {
                feature(&format!("flag-{}", row % 10), &format!("user-{}", (number * 7 + row * 13 + frame) % 100))
            };
            payload(&format!("{frame}-{number}"), (0..events).map(event).collect())
        };
        let payloads: Vec<_> = (0..payloads).map(payload_of).collect();
        world.events(EVENTS_0, &payloads).await;
    }
    let compactor = world.compactor().await;
    let mut work = compactor.work.lock().await;
    let begun = std::time::Instant::now();
    work.events.land_available().await.unwrap();
    let rows = frames * payloads * events;
    let seconds = begun.elapsed().as_secs_f64();
    let bytes = work.events.table.state().await.bytes;
    eprintln!(
        "{rows} rows in {seconds:.3} s: {:.0} rows/s, {:.1} bytes a row",
        rows as f64 / seconds,
        bytes as f64 / rows as f64
    );
}
