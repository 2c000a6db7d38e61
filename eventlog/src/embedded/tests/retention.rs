//! What goes, when, and what may never go.

use super::*;

const HOUR: i64 = 3_600_000;

/// A log of many segments written at hour 0, opened at another hour.
async fn opened_at(dir: &TempDir, config: &Config, hour: i64) -> Arc<EmbeddedLog> {
    let at = |hour| Runtime::simulated(UnixMicros::from_millis(hour * HOUR), 1);
    if files_with(dir.path(), ".seg").is_empty() {
        let log = EmbeddedLog::open(dir.path(), config, &at(0)).unwrap();
        for number in 0..20 {
            log.append(vec![record(EVENTS, &[number; 100]), record(CONTEXTS, &[number; 100])]).await.unwrap();
        }
        log.close().await;
    }
    EmbeddedLog::open(dir.path(), config, &at(hour)).unwrap()
}

async fn maintain(log: &EmbeddedLog) {
    let mut maintained = log.shared.maintained.subscribe();
    log.shared.queue.make_due();
    maintained.changed().await.unwrap();
}

fn config() -> Config {
    Config { retention_age: DurationText::secs(1800), ..small_segments() }
}

async fn earliest(log: &EmbeddedLog) -> i64 {
    log.bounds(EVENTS).await.unwrap().start.0
}

#[tokio::test]
async fn nothing_goes_that_a_reader_has_not_committed() {
    let dir = directory();
    let log = opened_at(&dir, &config(), 2).await;
    maintain(&log).await;
    assert_eq!(earliest(&log).await, 0, "nobody has registered");
    log.register("table", Topic::Events);
    log.register("index", Topic::Contexts);
    maintain(&log).await;
    assert_eq!(earliest(&log).await, 0, "registered, nothing committed");
    log.commit("table", EVENTS, Offset(20));
    log.commit("index", CONTEXTS, Offset(7));
    maintain(&log).await;
    let (events, contexts) = (log.bounds(EVENTS).await.unwrap(), log.bounds(CONTEXTS).await.unwrap());
    assert!(contexts.start.0 > 0 && contexts.start.0 <= 7, "{contexts}");
    assert_eq!(events.start, contexts.start);
    // A second reader of a topic holds what is left.
    log.register("audit", Topic::Events);
    log.commit("index", CONTEXTS, Offset(20));
    maintain(&log).await;
    assert_eq!(log.bounds(EVENTS).await.unwrap(), events);
    log.commit("audit", EVENTS, Offset(20));
    log.commit("audit", EVENTS, Offset(3));
    maintain(&log).await;
    assert_eq!(log.bounds(EVENTS).await.unwrap(), OffsetRange::new(Offset(20), Offset(20)));
    assert_eq!(files_with(dir.path(), ".seg").len(), 1);
    log.close().await;
    // Offsets go on where they were although no record is left.
    let log = opened_at(&dir, &config(), 3).await;
    assert_eq!(append(&log, EVENTS, b"x").await.unwrap(), Offset(20));
    let error = log.fetch(EVENTS, Offset(3), 100, Duration::ZERO).await.unwrap_err();
    assert!(matches!(error, Error::OffsetOutOfRange { .. }), "{error}");
}

async fn commit_all(log: &EmbeddedLog) {
    for (topic_partition, range) in log.ranges() {
        log.commit("reader", topic_partition, range.end);
    }
    maintain(log).await;
}

#[tokio::test]
async fn what_is_young_and_fits_stays() {
    let dir = directory();
    let keep = Config { retention_age: DurationText::secs(100_000), ..config() };
    let log = opened_at(&dir, &keep, 2).await;
    commit_all(&log).await;
    assert_eq!(earliest(&log).await, 0);
    log.close().await;
    // Too large: down to the bound, not further.
    let small = Config { retention_bytes: ByteSize(3000), ..keep };
    let log = opened_at(&dir, &small, 2).await;
    commit_all(&log).await;
    assert!(log.bytes() <= 3000 && log.bytes() > 2000, "{}", log.bytes());
    assert_eq!(
        log.bytes(),
        files_with(dir.path(), ".seg").iter().map(|path| path.metadata().unwrap().len()).sum::<u64>()
    );
    assert!(read_all(&log, EVENTS).await.unwrap().len() > 2);
}

#[tokio::test]
async fn deduplication_window_stays_however_small_the_bounds() {
    let dir = directory();
    let greedy = Config { retention_bytes: ByteSize(0), retention_age: DurationText::secs(0), ..config() };
    let log = opened_at(&dir, &greedy, 0).await;
    commit_all(&log).await;
    assert_eq!(earliest(&log).await, 0);
}

#[tokio::test]
async fn quiet_log_lets_its_only_segment_go() {
    let dir = directory();
    let config = Config { segment_bytes: ByteSize::mib(64), ..config() };
    let log = opened_at(&dir, &config, 2).await;
    commit_all(&log).await;
    assert_eq!(log.bounds(EVENTS).await.unwrap(), OffsetRange::new(Offset(20), Offset(20)));
}
