//! What the log can do to an append, one case each.

use super::*;
use crate::LogReader;

const SECOND: Duration = Duration::from_secs(1);

async fn append(process: &Process, numbers: &[u32]) -> Result<Vec<Offset>> {
    process.append(numbers.iter().map(|number| record(EVENTS, *number)).collect()).await
}

#[tokio::test(start_paused = true)]
async fn log_that_answers_is_used_alone() {
    let world = World::new(1);
    let process = world.start().await;
    assert_eq!(append(&process, &[1, 2]).await.unwrap(), [Offset(0), Offset(1)]);
    assert!(!process.status().is_spilling);
    assert_eq!(world.store.range(EVENTS).end, Offset(0));
}

#[tokio::test(start_paused = true)]
async fn log_that_is_away_for_ten_minutes_gets_all_in_order_when_it_is_back() {
    let world = World::new(1);
    let process = world.start().await;
    world.log.set_away(true);
    for number in 0..600 {
        append(&process, &[number]).await.unwrap();
        world.runtime.clock.wait(SECOND).await;
    }
    let status = process.status();
    assert_eq!((status.records, status.breaker, status.is_spilling), (600, BreakerState::Open, true));
    assert!(status.oldest.unwrap() >= 599 * SECOND);
    assert_eq!(process.health(), WriterHealth::Ready);
    assert!(world.numbers().is_empty());
    world.log.set_away(false);
    // They come between those that are drained, and stay behind.
    for number in 600..700 {
        append(&process, &[number]).await.unwrap();
        world.runtime.clock.wait(SECOND / 20).await;
    }
    drained(&process).await;
    assert_eq!(world.numbers(), (0..700).collect::<Vec<_>>());
    let status = process.status();
    assert_eq!((status.breaker, status.oldest, status.found), (BreakerState::Closed, None, 0));
    assert_eq!(append(&process, &[700]).await.unwrap(), [Offset(700)]);
    // Where the compactor looks for twins, they are where they were spilled.
    let first = world.log.fetch(EVENTS, Offset(0), 1, Duration::ZERO).await.unwrap();
    assert!(world.runtime.clock.now().since(first[0].appended_at) >= 600 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn append_that_hangs_is_spilled_and_found_when_the_log_tells() {
    let world = World::new(1);
    let process = world.start().await;
    world.log.acts([Act::Late { stored: Some(3 * SECOND), told: 4 * SECOND, knows: true }]);
    let begun = world.runtime.clock.instant();
    assert_eq!(append(&process, &[1, 2]).await.unwrap(), [Offset::UNKNOWN; 2]);
    assert!(begun.elapsed() < 2 * SECOND);
    append(&process, &[3]).await.unwrap();
    drained(&process).await;
    assert_eq!(world.numbers(), [1, 2, 3]);
    let status = process.status();
    assert_eq!((status.drained, status.found), (1, 2));
    assert_eq!(process.inner.doubts.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn append_that_failed_without_a_trace_is_drained_at_once() {
    let world = World::new(1);
    let process = world.start().await;
    world.log.acts([Act::Absent(SECOND / 2), Act::Absent(SECOND / 2)]);
    let begun = world.runtime.clock.instant();
    append(&process, &[1]).await.unwrap();
    drained(&process).await;
    assert!(begun.elapsed() < DOUBT_REST, "nothing was in doubt");
    assert_eq!(world.numbers(), [1]);
}

#[tokio::test(start_paused = true)]
async fn append_of_unknown_fate_is_looked_for_after_a_rest() {
    for stored in [None, Some(SECOND / 4), Some(8 * SECOND)] {
        let world = World::new(1);
        let process = world.start().await;
        append(&process, &[1]).await.unwrap();
        world.log.acts([Act::Late { stored, told: SECOND / 2, knows: false }]);
        let begun = world.runtime.clock.instant();
        append(&process, &[2]).await.unwrap();
        append(&process, &[3]).await.unwrap();
        drained(&process).await;
        assert!(begun.elapsed() >= DOUBT_REST);
        assert_eq!(world.numbers(), [1, 2, 3]);
    }
}

#[tokio::test(start_paused = true)]
async fn drain_whose_acknowledgement_is_lost_doubles_nothing() {
    let world = World::new(1);
    let process = world.start().await;
    world.log.set_away(true);
    append(&process, &[1, 2, 3]).await.unwrap();
    world.log.acts([Act::Late { stored: Some(SECOND), told: 2 * SECOND, knows: false }]);
    world.log.set_away(false);
    drained(&process).await;
    assert_eq!(world.numbers(), [1, 2, 3]);
    assert_eq!(process.status().found, 1, "the probe");
}

#[tokio::test(start_paused = true)]
async fn process_that_dies_leaves_nothing_out_and_doubles_nothing() {
    for stored in [None, Some(3 * SECOND), Some(9 * SECOND)] {
        let world = World::new(1);
        let process = world.start().await;
        world.log.acts([Act::Late { stored, told: 60 * SECOND, knows: true }]);
        append(&process, &[1]).await.unwrap();
        append(&process, &[2, 3]).await.unwrap();
        drop(process);
        let process = world.start().await;
        assert_eq!(process.status().records, 3);
        append(&process, &[4]).await.unwrap();
        drained(&process).await;
        assert_eq!(world.numbers(), [1, 2, 3, 4]);
        drop(process);
        let process = world.start().await;
        assert!(!process.status().is_spilling, "all was noted");
    }
}

#[tokio::test(start_paused = true)]
async fn full_log_sends_appends_to_the_disk() {
    let world = World::new(1);
    let process = world.start().await;
    world.log.acts([Act::Backlogged]);
    append(&process, &[1]).await.unwrap();
    drained(&process).await;
    assert_eq!(world.numbers(), [1]);
}

#[tokio::test(start_paused = true)]
async fn record_that_is_refused_for_good_is_an_error_and_is_not_spilled() {
    let world = World::new(1);
    let process = world.start().await;
    world.log.acts([Act::Refuse]);
    assert!(matches!(append(&process, &[1]).await, Err(Error::RecordTooLarge { .. })));
    assert!(!process.status().is_spilling);
}

#[tokio::test(start_paused = true)]
async fn record_that_is_refused_while_draining_holds_up_its_partition_only_and_is_told() {
    let world = World::new(1);
    let process = world.start().await;
    world.log.set_away(true);
    append(&process, &[1]).await.unwrap();
    process.append(vec![record(CONTEXTS, 2)]).await.unwrap();
    world.log.acts([Act::Refuse]);
    world.log.set_away(false);
    until(&world.runtime.clock, "the way to the log", || !process.status().is_spilling).await;
    assert_eq!(world.numbers(), [2]);
    assert_eq!(process.status().records, 1);
    drop(process);
    let process = world.start().await;
    drained(&process).await;
    assert_eq!(world.numbers(), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn when_both_are_full_the_caller_is_told_to_wait() {
    let world = World::new(1);
    let process = world.start().await;
    world.log.set_away(true);
    world.store.is_full.store(true, Ordering::Relaxed);
    let error = append(&process, &[1]).await.unwrap_err();
    assert!(matches!(error, Error::SpillFull { .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::Overloaded);
    assert!(matches!(process.health(), WriterHealth::Unavailable(_)));
    world.store.is_full.store(false, Ordering::Relaxed);
    append(&process, &[1]).await.unwrap();
    assert_eq!(process.health(), WriterHealth::Ready);
    world.log.set_away(false);
    drained(&process).await;
    assert_eq!(world.numbers(), [1]);
}

#[tokio::test(start_paused = true)]
async fn append_in_doubt_that_finds_no_room_waits_for_the_log() {
    let world = World::new(1);
    let process = world.start().await;
    world.store.is_full.store(true, Ordering::Relaxed);
    world.log.acts([Act::Late { stored: Some(3 * SECOND), told: 3 * SECOND, knows: true }]);
    append(&process, &[1]).await.unwrap();
    world.log.acts([Act::Late { stored: Some(3 * SECOND), told: 3 * SECOND, knows: false }]);
    until(&world.runtime.clock, "the way to the log", || !process.status().is_spilling).await;
    let error = append(&process, &[2]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Retry, "{error}: it may be in the log, and must not be sent again from here");
    assert_eq!(process.inner.doubts.len(), 0);
    assert_eq!(world.numbers(), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn clean_end_leaves_the_rest_for_the_next_start() {
    let world = World::new(1);
    let process = world.start().await;
    world.log.set_away(true);
    append(&process, &[1]).await.unwrap();
    process.stop(SECOND).await;
    assert!(matches!(append(&process, &[2]).await, Err(Error::Closed)));
    world.log.set_away(false);
    let process = world.start().await;
    drained(&process).await;
    assert_eq!(world.numbers(), [1]);
}
