//! The embedded log through its front door, on real files and on a disk with faults.

mod crash;
mod faults;
mod faulty_disk;
mod golden;
mod measure;
mod model;
mod retention;

use std::path::PathBuf;

use runtime::{ByteSize, DurationText, ErrorKind};
use tempfile::TempDir;

pub(crate) use self::faulty_disk::{Fault, FaultyDisk, Op};
use super::*;

const EVENTS: TopicPartition = TopicPartition::new(Topic::Events, 0);
const EVENTS_1: TopicPartition = TopicPartition::new(Topic::Events, 1);
const CONTEXTS: TopicPartition = TopicPartition::new(Topic::Contexts, 0);
const LETTERS: TopicPartition = TopicPartition::new(Topic::DeadLetters, 0);
const ALL: [TopicPartition; 4] = [EVENTS, EVENTS_1, CONTEXTS, LETTERS];

/// A directory of its own, in memory where there is such a place: thousands of syncs would only cost time here.
fn directory() -> TempDir {
    TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap()
}

fn config() -> Config {
    Config { events_partitions: 2, contexts_partitions: 1, dead_letters_partitions: 1, ..Config::default() }
}

fn small_segments() -> Config {
    Config { segment_bytes: ByteSize(600), ..config() }
}

fn open(dir: &TempDir) -> Arc<EmbeddedLog> {
    EmbeddedLog::open(dir.path(), &config(), &Runtime::system()).unwrap()
}

fn refusal(dir: &Path, config: &Config) -> String {
    let error = EmbeddedLog::open(dir, config, &Runtime::system()).err().unwrap();
    assert!(matches!(error, Error::Refused { .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::Fatal);
    error.to_string()
}

fn record(topic_partition: TopicPartition, frame: &[u8]) -> AppendRecord {
    AppendRecord::new(topic_partition, Bytes::copy_from_slice(frame))
}

async fn append(log: &EmbeddedLog, topic_partition: TopicPartition, frame: &[u8]) -> Result<Offset> {
    log.append(vec![record(topic_partition, frame)]).await.map(|offsets| offsets[0])
}

/// All records of a partition, their offsets checked.
async fn read_all(log: &EmbeddedLog, topic_partition: TopicPartition) -> Result<Vec<Bytes>> {
    let range = log.bounds(topic_partition).await?;
    let mut next = range.start;
    let mut frames = Vec::new();
    while next < range.end {
        for record in log.fetch(topic_partition, next, 100, Duration::ZERO).await? {
            assert_eq!(record.offset, next);
            next = next.next();
            frames.push(record.frame);
        }
    }
    Ok(frames)
}

fn files_with(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let paths = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = paths.filter(|path| path.to_str().unwrap().ends_with(ending)).collect();
    paths.sort();
    paths
}

#[tokio::test]
async fn offsets_are_consecutive_per_partition_and_across_restarts() {
    let dir = directory();
    let topic_id = {
        let log = open(&dir);
        let offsets =
            log.append(vec![record(EVENTS, b"a"), record(CONTEXTS, b"b"), record(EVENTS, b"")]).await.unwrap();
        assert_eq!(offsets, [Offset(0), Offset(0), Offset(1)]);
        log.close().await;
        assert!(matches!(append(&log, EVENTS, b"late").await, Err(Error::Closed)));
        LogReader::topic_id(&*log, Topic::Events)
    };
    let log = open(&dir);
    assert_eq!(append(&log, EVENTS, b"c").await.unwrap(), Offset(2));
    assert_eq!(append(&log, CONTEXTS, b"d").await.unwrap(), Offset(1));
    assert_eq!(read_all(&log, EVENTS).await.unwrap(), ["a", "", "c"]);
    assert_eq!(read_all(&log, CONTEXTS).await.unwrap(), ["b", "d"]);
    assert_eq!(log.topic_id(Topic::Events), topic_id);
    assert!(topic_id.0.ends_with("-events"));
    assert!(log.append(Vec::new()).await.unwrap().is_empty());
}

#[tokio::test]
async fn fetch_waits_for_the_first_record_and_gives_up_in_time() {
    let dir = directory();
    let log = open(&dir);
    assert!(log.fetch(EVENTS, Offset(0), 100, Duration::from_millis(5)).await.unwrap().is_empty());
    let reader = log.clone();
    let fetch = tokio::spawn(async move { reader.fetch(EVENTS, Offset(0), 100, Duration::from_secs(60)).await });
    append(&log, CONTEXTS, b"not this").await.unwrap();
    append(&log, EVENTS, b"this").await.unwrap();
    assert_eq!(fetch.await.unwrap().unwrap()[0].frame, "this");
}

#[tokio::test]
async fn fetch_stays_within_bytes_but_gives_at_least_one() {
    let dir = directory();
    let log = open(&dir);
    log.append((0..10).map(|_| record(EVENTS, &[7; 10])).collect()).await.unwrap();
    for (bytes_max, count) in [(1, 1), (10, 1), (29, 2), (30, 3), (1000, 10)] {
        assert_eq!(log.fetch(EVENTS, Offset(0), bytes_max, Duration::ZERO).await.unwrap().len(), count, "{bytes_max}");
    }
    for outside in [-1, 11] {
        let error = log.fetch(EVENTS, Offset(outside), 100, Duration::ZERO).await.unwrap_err();
        assert!(matches!(error, Error::OffsetOutOfRange { .. }), "{error}");
    }
}

#[tokio::test]
async fn records_far_apart_and_large_ones_read_back() {
    let dir = directory();
    let log = open(&dir);
    let large = vec![1; 3 << 20];
    log.append(vec![record(EVENTS, b"a"), record(CONTEXTS, &large), record(EVENTS, &large), record(EVENTS, b"b")])
        .await
        .unwrap();
    let fetched = log.fetch(EVENTS, Offset(0), usize::MAX, Duration::ZERO).await.unwrap();
    assert_eq!(fetched.iter().map(|record| record.frame.len()).collect::<Vec<_>>(), [1, 3 << 20, 1]);
}

#[tokio::test]
async fn segments_roll_and_everything_stays_readable() {
    let dir = directory();
    let log = EmbeddedLog::open(dir.path(), &small_segments(), &Runtime::system()).unwrap();
    for number in 0..60 {
        append(&log, ALL[number % 4], &[number as u8; 40]).await.unwrap();
    }
    assert!(files_with(dir.path(), ".seg").len() >= 8);
    assert_eq!(
        log.bytes(),
        files_with(dir.path(), ".seg").iter().map(|path| path.metadata().unwrap().len()).sum::<u64>()
    );
    for reopened in [false, true] {
        let reopen = || EmbeddedLog::open(dir.path(), &small_segments(), &Runtime::system()).unwrap();
        let log = if reopened {
            log.close().await;
            reopen()
        } else {
            log.clone()
        };
        for (index, topic_partition) in ALL.into_iter().enumerate() {
            let frames = read_all(&log, topic_partition).await.unwrap();
            assert_eq!(
                frames.iter().map(|frame| frame[0] as usize).collect::<Vec<_>>(),
                (index..60).step_by(4).collect::<Vec<_>>()
            );
        }
    }
}

#[tokio::test]
async fn offset_at_finds_the_first_record_of_a_time() {
    let dir = directory();
    for hour in 0..4 {
        let runtime = Runtime::simulated(UnixMicros::from_millis(hour * 3_600_000), 1);
        let log = EmbeddedLog::open(dir.path(), &small_segments(), &runtime).unwrap();
        log.append(vec![record(EVENTS, &[0; 100]), record(CONTEXTS, &[0; 100]), record(EVENTS, &[0; 100])])
            .await
            .unwrap();
    }
    let log = open(&dir);
    for (millis, offset) in [(-5, 0), (0, 0), (1_800_000, 2), (3_600_000, 2), (7_200_000, 4), (99_000_000, 8)] {
        assert_eq!(log.offset_at(EVENTS, UnixMicros::from_millis(millis)).await.unwrap(), Offset(offset), "{millis}");
    }
    assert_eq!(log.offset_at(LETTERS, UnixMicros(0)).await.unwrap(), Offset(0));
}

#[tokio::test]
async fn time_never_goes_back_in_the_log() {
    let dir = directory();
    for seconds in [1000, 10] {
        let runtime = Runtime::simulated(UnixMicros::from_millis(seconds * 1000), 1);
        let log = EmbeddedLog::open(dir.path(), &config(), &runtime).unwrap();
        append(&log, EVENTS, b"x").await.unwrap();
    }
    let fetched = open(&dir).fetch(EVENTS, Offset(0), 100, Duration::ZERO).await.unwrap();
    assert!(fetched[1].appended_at >= fetched[0].appended_at);
}

#[tokio::test]
async fn second_open_is_refused_with_the_process_id_until_the_first_is_closed() {
    let dir = directory();
    let log = open(&dir);
    let error = refusal(dir.path(), &config());
    assert!(error.contains(&std::process::id().to_string()), "{error}");
    log.close().await;
    open(&dir);
}

#[tokio::test]
async fn newer_half_written_and_missing_parts_are_refused() {
    let dir = directory();
    append(&open(&dir), EVENTS, b"x").await.unwrap();
    let format = dir.path().join("format");
    let text = std::fs::read_to_string(&format).unwrap();
    for (changed, expected) in [
        (text.replace("version 1", "version 7"), "version 7"),
        (text[..40].to_owned(), "half-written"),
        (String::new(), "not the format file"),
    ] {
        std::fs::write(&format, changed).unwrap();
        let error = refusal(dir.path(), &config());
        assert!(error.contains(expected), "{error}");
    }
    std::fs::remove_file(&format).unwrap();
    assert!(refusal(dir.path(), &config()).contains("no file \"format\""));
    std::fs::write(&format, text).unwrap();
    let acknowledged = dir.path().join("acknowledged");
    let content = std::fs::read(&acknowledged).unwrap();
    std::fs::remove_file(&acknowledged).unwrap();
    assert!(refusal(dir.path(), &config()).contains("\"acknowledged\" is missing"));
    std::fs::write(&acknowledged, content).unwrap();
    assert_eq!(read_all(&open(&dir), EVENTS).await.unwrap(), ["x"]);
    std::fs::remove_file(&files_with(dir.path(), ".seg")[0]).unwrap();
    assert!(refusal(dir.path(), &config()).contains("no segment"));
}

#[test]
fn changed_partitions_are_refused_with_both_numbers() {
    let dir = directory();
    drop(open(&dir));
    let error = refusal(dir.path(), &Config { events_partitions: 5, ..config() });
    assert!(error.contains("log.events_partitions is 5") && error.contains("made with 2"), "{error}");
    let error = refusal(dir.path(), &Config { contexts_partitions: 0, ..config() });
    assert!(error.contains("log.contexts_partitions is 0"), "{error}");
}

#[tokio::test]
async fn unfinished_creation_is_begun_anew() {
    let dir = directory();
    drop(open(&dir));
    std::fs::remove_file(dir.path().join("format")).unwrap();
    std::fs::write(dir.path().join("format.new"), "tidegate l").unwrap();
    let log = open(&dir);
    append(&log, EVENTS, b"x").await.unwrap();
    assert!(files_with(dir.path(), ".new").is_empty());
}

#[tokio::test]
async fn full_log_refuses_appends_and_says_so() {
    let dir = directory();
    let config = Config { bytes_max: ByteSize(2000), ..config() };
    let log = EmbeddedLog::open(dir.path(), &config, &Runtime::system()).unwrap();
    while log.append(vec![record(EVENTS, &[0; 100])]).await.is_ok() {}
    let error = append(&log, EVENTS, &[0; 100]).await.unwrap_err();
    assert!(matches!(error, Error::Full { max_bytes: 2000, .. }), "{error}");
    assert!(log.bytes() <= 2000);
    assert_eq!(error.kind(), ErrorKind::Overloaded);
    assert!(matches!(log.health(), WriterHealth::Ready), "smaller ones may still fit");
}

#[tokio::test]
async fn unknown_partition_stops_the_caller_alone() {
    let dir = directory();
    let log = open(&dir);
    let other = log.clone();
    let call = tokio::spawn(async move { append(&other, TopicPartition::new(Topic::Events, 9), b"x").await });
    assert!(call.await.unwrap_err().is_panic());
    append(&log, EVENTS, b"y").await.unwrap();
}
