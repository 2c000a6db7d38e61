//! Group commit, bounds, and a disk that fails at every step.

use std::sync::mpsc;

use super::faulty_disk::{Fault, FaultyDisk, Op};
use super::*;

/// A disk whose next sync of a group waits for the sender.
fn gated(disk: &FaultyDisk) -> (mpsc::Receiver<()>, mpsc::Sender<()>) {
    let (reached, wait_reached) = mpsc::channel();
    let (open, wait_open) = mpsc::channel();
    let mut gate = Some((reached, wait_open));
    disk.plan(move |op| {
        if op == Op::Sync
            && let Some((reached, wait_open)) = gate.take()
        {
            reached.send(()).unwrap();
            wait_open.recv().unwrap();
        }
        None
    });
    (wait_reached, open)
}

#[tokio::test]
async fn appends_that_come_during_a_sync_share_the_next_one() {
    let dir = directory();
    let disk = FaultyDisk::new();
    let log = disk.open(dir.path(), &config());
    let (reached, open) = gated(&disk);
    let first = tokio::spawn({
        let log = log.clone();
        async move { append(&log, EVENTS, b"first").await }
    });
    tokio::task::spawn_blocking(move || reached.recv().unwrap()).await.unwrap();
    let calls: Vec<_> =
        (0..20_u8).map(|number| log.append(vec![record(EVENTS, &[number]), record(CONTEXTS, b"c")])).collect();
    let mut calls = Box::pin(futures::future::try_join_all(calls));
    // Polled once, all 20 are in the queue and none is done.
    assert!(futures::poll!(&mut calls).is_pending());
    assert_eq!(log.bounds(EVENTS).await.unwrap().end, Offset(0), "nothing is visible before it is durable");
    open.send(()).unwrap();
    assert_eq!(first.await.unwrap().unwrap(), Offset(0));
    let offsets = calls.await.unwrap();
    assert_eq!(offsets[19], [Offset(20), Offset(19)]);
    assert_eq!(log.shared.metrics.syncs.get(), 2);
    assert_eq!(log.pending_bytes(), 0);
}

#[tokio::test]
async fn backlog_is_bounded_in_bytes() {
    let dir = directory();
    let disk = FaultyDisk::new();
    let log = disk.open(dir.path(), &Config { pending_bytes_max: ByteSize(1000), ..config() });
    let (reached, open) = gated(&disk);
    // Larger than the bound, but alone.
    let mut first = log.append(vec![record(EVENTS, &[0; 2000])]);
    assert!(futures::poll!(&mut first).is_pending());
    tokio::task::spawn_blocking(move || reached.recv().unwrap()).await.unwrap();
    let error = append(&log, EVENTS, &[0; 10]).await.unwrap_err();
    assert!(matches!(error, Error::Backlogged { pending_bytes: 2056, max_bytes: 1000 }), "{error}");
    assert_eq!(error.kind(), ErrorKind::Overloaded);
    open.send(()).unwrap();
    first.await.unwrap();
    append(&log, EVENTS, &[0; 10]).await.unwrap();
}

#[tokio::test]
async fn close_finishes_what_was_accepted() {
    let dir = directory();
    let log = open(&dir);
    let mut calls: Vec<_> = (0..10).map(|_| log.append(vec![record(EVENTS, b"x")])).collect();
    for call in &mut calls {
        assert!(futures::poll!(call).is_pending());
    }
    log.close().await;
    for call in calls {
        call.await.unwrap();
    }
    assert!(matches!(log.health(), WriterHealth::Unavailable(_)));
    assert_eq!(read_all(&log, EVENTS).await.unwrap().len(), 10);
}

#[tokio::test]
async fn full_disk_fails_appends_until_there_is_room_again() {
    let dir = directory();
    let disk = FaultyDisk::new();
    let log = disk.open(dir.path(), &small_segments());
    append(&log, EVENTS, &[1; 300]).await.unwrap();
    let full = |op| matches!(op, Op::Write | Op::Create).then_some(Fault::Half(libc::ENOSPC));
    disk.plan(full);
    for _ in 0..5 {
        let error = append(&log, EVENTS, &[2; 300]).await.unwrap_err();
        assert!(matches!(error, Error::Io { .. }) && error.kind() == ErrorKind::Retry, "{error}");
        let WriterHealth::Unavailable(why) = log.health() else { panic!("ready on a full disk") };
        assert!(why.contains("No space left"), "{why}");
    }
    disk.plan(|_| None);
    // Nobody has to append for the log to find out.
    while log.health() != WriterHealth::Ready {
        maintain(&log).await;
    }
    for _ in 0..5 {
        append(&log, EVENTS, &[3; 300]).await.unwrap();
    }
    let expected = [1, 3, 3, 3, 3, 3];
    assert_eq!(read_all(&log, EVENTS).await.unwrap().iter().map(|frame| frame[0]).collect::<Vec<_>>(), expected);
    log.close().await;
    assert!(files_with(dir.path(), "probe").is_empty() && files_with(dir.path(), ".new").is_empty());
    assert_eq!(read_all(&open(&dir), EVENTS).await.unwrap().len(), 6);
}

#[tokio::test]
async fn failed_sync_is_not_repeated_on_the_same_file() {
    let dir = directory();
    let disk = FaultyDisk::new();
    let log = disk.open(dir.path(), &config());
    append(&log, EVENTS, b"before").await.unwrap();
    let mut failures = 1;
    disk.plan(move |op| {
        let fails = op == Op::Sync && failures > 0;
        failures -= i32::from(fails);
        fails.then_some(Fault::Error(libc::EIO))
    });
    let error = append(&log, EVENTS, b"failed").await.unwrap_err();
    assert!(error.to_string().contains("syncing"), "{error}");
    assert_eq!(append(&log, EVENTS, b"after").await.unwrap(), Offset(1));
    assert_eq!(files_with(dir.path(), ".seg").len(), 2);
    assert_eq!(log.health(), WriterHealth::Ready);
    assert_eq!(read_all(&log, EVENTS).await.unwrap(), ["before", "after"]);
}

/// More operations than the scenario has.
const STEPS: u64 = 64;

#[tokio::test]
async fn scenario_has_fewer_steps_than_are_tried() {
    let dir = directory();
    let disk = FaultyDisk::new();
    let log = disk.open(dir.path(), &small_segments());
    let count = disk.count();
    assert!(scenario(&log).await.iter().all(|(_, ok)| *ok));
    assert!(files_with(dir.path(), ".seg").len() >= 4);
    assert!((40..STEPS).contains(&count.load(Ordering::Relaxed)), "{count:?}");
}

/// Nine appends over some segments; what became of each.
async fn scenario(log: &EmbeddedLog) -> Vec<(u8, bool)> {
    let mut outcomes = Vec::new();
    for number in 0..9_u8 {
        let records = ALL.map(|topic_partition| record(topic_partition, &[number; 30]));
        outcomes.push((number, log.append(records.into()).await.is_ok()));
    }
    outcomes
}

async fn numbers(log: &EmbeddedLog) -> Vec<u8> {
    let frames = read_all(log, ALL[0]).await.unwrap();
    for topic_partition in &ALL[1..] {
        assert_eq!(read_all(log, *topic_partition).await.unwrap(), frames);
    }
    frames.iter().map(|frame| frame[0]).collect()
}

/// Some operations in a row fail, from each in turn; then everything works again.
#[tokio::test]
async fn any_fault_costs_at_most_the_groups_it_meets() {
    for fault in [Fault::Error(libc::EIO), Fault::Half(libc::ENOSPC)] {
        for (failing, width) in (0..STEPS).flat_map(|failing| [1, 2, 4].map(|width| (failing, width))) {
            let what = format!("{fault:?} at {width} steps from {failing}");
            let dir = directory();
            let disk = FaultyDisk::new();
            let log = disk.open(dir.path(), &small_segments());
            let mut step = 0;
            disk.plan(move |_| {
                step += 1;
                (failing..failing + width).contains(&(step - 1)).then_some(fault)
            });
            let outcomes = scenario(&log).await;
            let acknowledged: Vec<u8> = outcomes.iter().filter(|(_, ok)| *ok).map(|(number, _)| *number).collect();
            assert!(acknowledged.len() as u64 >= 9 - width, "{what}: {outcomes:?}");
            assert_eq!(numbers(&log).await, acknowledged, "{what}");
            log.close().await;
            let log = EmbeddedLog::open(dir.path(), &small_segments(), &Runtime::system()).unwrap();
            // What failed can come back, even in part, but only behind all that was acknowledged.
            for topic_partition in ALL {
                let frames = read_all(&log, topic_partition).await.unwrap();
                let recovered: Vec<u8> = frames.iter().map(|frame| frame[0]).collect();
                let more = recovered.strip_prefix(acknowledged.as_slice());
                let more = more.unwrap_or_else(|| panic!("{what}: {recovered:?}"));
                assert!(
                    more.is_empty() || more.len() == 1 && more.first() > acknowledged.last(),
                    "{what}: {recovered:?}"
                );
            }
            append(&log, EVENTS, b"x").await.unwrap();
        }
    }
}

/// A new segment that may already count must not be outgrown by the old one.
#[tokio::test]
async fn segment_whose_successor_is_half_made_takes_no_more() {
    let dir = directory();
    let config = Config { retention_age: DurationText::secs(0), ..config() };
    let disk = FaultyDisk::new();
    let log = disk.open(dir.path(), &config);
    append(&log, EVENTS, b"before").await.unwrap();
    disk.plan(|op| (op == Op::SyncDir).then_some(Fault::Error(libc::EIO)));
    maintain(&log).await;
    disk.plan(|_| None);
    append(&log, EVENTS, b"after").await.unwrap();
    drop(log);
    let log = EmbeddedLog::open(dir.path(), &config, &Runtime::system()).unwrap();
    assert_eq!(read_all(&log, EVENTS).await.unwrap(), ["before", "after"]);
}

/// From one operation on nothing works any more, as if the process or the disk had died there.
#[tokio::test]
async fn death_at_any_step_keeps_what_was_acknowledged() {
    for fault in [Fault::Error(libc::EIO), Fault::Half(libc::ENOSPC)] {
        for failing in 0..STEPS {
            let dir = directory();
            let disk = FaultyDisk::new();
            let log = disk.open(dir.path(), &small_segments());
            let mut step = 0;
            disk.plan(move |_| {
                step += 1;
                (step > failing).then_some(fault)
            });
            let outcomes = scenario(&log).await;
            let acknowledged: Vec<u8> = outcomes.iter().filter(|(_, ok)| *ok).map(|(number, _)| *number).collect();
            drop(log);
            let log = EmbeddedLog::open(dir.path(), &small_segments(), &Runtime::system()).unwrap();
            let mut frames = Vec::new();
            for topic_partition in ALL {
                frames = read_all(&log, topic_partition).await.unwrap();
                let recovered: Vec<u8> = frames.iter().map(|frame| frame[0]).collect();
                let more = recovered.strip_prefix(acknowledged.as_slice());
                assert!(
                    more.is_some_and(|more| more.len() <= 1),
                    "{fault:?} at step {failing}: {recovered:?} {outcomes:?}"
                );
            }
            assert_eq!(append(&log, LETTERS, b"x").await.unwrap(), Offset(frames.len() as i64));
        }
    }
}

async fn maintain(log: &EmbeddedLog) {
    let mut maintained = log.shared.maintained.subscribe();
    log.shared.queue.make_due();
    maintained.changed().await.unwrap();
}
