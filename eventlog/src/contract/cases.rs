//! The promises, one by one.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use events::{Offset, OffsetRange};
use runtime::{ErrorKind, UnixMicros};

use super::*;
use crate::{Error, FetchedRecord};

const NO_TIME: Duration = Duration::ZERO;
const MUCH_TIME: Duration = Duration::from_secs(60);

fn record(topic_partition: TopicPartition, frame: &[u8]) -> AppendRecord {
    AppendRecord::new(topic_partition, Bytes::copy_from_slice(frame))
}

fn frames(records: &[FetchedRecord]) -> Vec<&[u8]> {
    records.iter().map(|record| &record.frame[..]).collect()
}

/// All that the log says it holds of a partition, in steps of some records, offsets checked.
async fn read_all(log: &Log, topic_partition: TopicPartition) -> Vec<Bytes> {
    let range = log.reader.bounds(topic_partition).await.unwrap();
    let (mut next, mut read) = (range.start, Vec::new());
    while next < range.end {
        let records = log.reader.fetch(topic_partition, next, 100, NO_TIME).await.unwrap();
        assert!(!records.is_empty(), "nothing at {next} of {range}");
        for record in records {
            assert_eq!(record.offset, next);
            next = next.next();
            read.push(record.frame);
        }
    }
    read
}

pub(super) async fn offsets_are_consecutive_per_partition(log: Log) {
    assert!(log.writer.append(Vec::new()).await.unwrap().is_empty());
    let records = vec![record(EVENTS, b"a"), record(CONTEXTS, b"b"), record(EVENTS, b"c")];
    assert_eq!(log.writer.append(records).await.unwrap(), [Offset(0), Offset(0), Offset(1)]);
    assert_eq!(log.append(EVENTS, b"d").await.unwrap(), Offset(2));
    assert_eq!(log.append(EVENTS_1, b"e").await.unwrap(), Offset(0));
    assert_eq!(read_all(&log, EVENTS).await, ["a", "c", "d"]);
    assert_eq!(read_all(&log, EVENTS_1).await, ["e"]);
    assert_eq!(read_all(&log, CONTEXTS).await, ["b"]);
    assert_ne!(log.reader.topic_id(Topic::Events), log.reader.topic_id(Topic::Contexts));
    assert_eq!(log.reader.partitions(Topic::Events), log.writer.partitions(Topic::Events));
}

pub(super) async fn fetch_waits_for_the_first_record(log: Log) {
    let reader = log.reader.clone();
    let fetch = tokio::spawn(async move { reader.fetch(EVENTS, Offset(0), 100, MUCH_TIME).await });
    log.append(CONTEXTS, b"not this").await.unwrap();
    log.append(EVENTS, b"this").await.unwrap();
    assert_eq!(frames(&fetch.await.unwrap().unwrap()), [b"this"]);
}

pub(super) async fn fetch_gives_up_in_time(log: Log) {
    assert!(log.reader.fetch(EVENTS, Offset(0), 100, NO_TIME).await.unwrap().is_empty());
    assert!(log.reader.fetch(EVENTS, Offset(0), 100, Duration::from_millis(5)).await.unwrap().is_empty());
    log.append(EVENTS, b"x").await.unwrap();
    assert_eq!(log.reader.fetch(EVENTS, Offset(0), 100, NO_TIME).await.unwrap().len(), 1);
    assert!(log.reader.fetch(EVENTS, Offset(1), 100, NO_TIME).await.unwrap().is_empty());
}

pub(super) async fn fetch_stays_within_bytes_but_gives_at_least_one(log: Log) {
    log.writer.append((0..10).map(|_| record(EVENTS, &[7; 10])).collect()).await.unwrap();
    // What is cut off one answer comes with the next, from the same place or another.
    let mut next = Offset(0);
    for (bytes_max, count) in [(1, 1), (10, 1), (29, 2), (30, 3), (1000, 3)] {
        let records = log.reader.fetch(EVENTS, next, bytes_max, MUCH_TIME).await.unwrap();
        assert_eq!(records.len(), count, "{bytes_max} from {next}");
        assert_eq!(records[0].offset, next);
        next = records[count - 1].offset.next();
    }
    assert_eq!(log.reader.fetch(EVENTS, Offset(4), 25, MUCH_TIME).await.unwrap().len(), 2);
}

pub(super) async fn place_outside_of_the_log_is_told_with_what_it_holds(log: Log) {
    for frame in [b"a", b"b"] {
        log.append(EVENTS, frame).await.unwrap();
    }
    for outside in [-1, 3, 1000] {
        let error = log.reader.fetch(EVENTS, Offset(outside), 100, MUCH_TIME).await.unwrap_err();
        let whole = OffsetRange::new(Offset(0), Offset(2));
        assert!(matches!(error, Error::OffsetOutOfRange { held, .. } if held == whole), "{outside}: {error}");
        assert_eq!(error.kind(), ErrorKind::Fatal);
    }
    assert_eq!(log.reader.fetch(EVENTS, Offset(1), 100, MUCH_TIME).await.unwrap().len(), 1);
}

pub(super) async fn what_bounds_tell_is_there_without_waiting(log: Log) {
    for number in 0..20 {
        let at_end = log.reader.bounds(EVENTS).await.unwrap().end;
        assert_eq!(at_end, Offset(number));
        assert!(log.reader.fetch(EVENTS, at_end, 100, NO_TIME).await.unwrap().is_empty());
        log.append(EVENTS, &[number as u8]).await.unwrap();
        assert_eq!(frames(&log.reader.fetch(EVENTS, at_end, 100, NO_TIME).await.unwrap()), [[number as u8]]);
    }
}

pub(super) async fn two_readers_of_a_partition_go_each_their_own_way(log: Log) {
    log.writer.append((0..100u8).map(|number| record(EVENTS, &[number; 10])).collect()).await.unwrap();
    let (mut ahead, mut behind) = (Offset(50), Offset(0));
    while ahead < Offset(100) || behind < Offset(100) {
        for place in [&mut ahead, &mut behind] {
            let records = log.reader.fetch(EVENTS, *place, 35, NO_TIME).await.unwrap();
            assert_eq!(records.is_empty(), *place == Offset(100));
            for record in records {
                assert_eq!((record.offset, record.frame[0]), (*place, place.0 as u8));
                *place = place.next();
            }
        }
    }
}

pub(super) async fn offset_at_finds_the_first_record_of_a_time(log: Log) {
    assert_eq!(log.reader.offset_at(EVENTS, UnixMicros(0)).await.unwrap(), Offset(0));
    for frame in [b"a", b"b", b"c"] {
        log.append(EVENTS, frame).await.unwrap();
        // The clocks of logs differ in their steps: the next record has a later time in all of them.
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    let records = log.reader.fetch(EVENTS, Offset(0), 1000, NO_TIME).await.unwrap();
    for record in &records {
        assert_eq!(log.reader.offset_at(EVENTS, record.appended_at).await.unwrap(), record.offset);
        let after = UnixMicros(record.appended_at.0 + 1);
        assert_eq!(log.reader.offset_at(EVENTS, after).await.unwrap(), record.offset.next());
    }
    assert_eq!(log.reader.offset_at(EVENTS, UnixMicros(-5_000_000)).await.unwrap(), Offset(0));
    let now = Clock::system().now();
    assert!(now.since(records[0].appended_at) < MUCH_TIME && records[0].appended_at.since(now) < MUCH_TIME);
}

pub(super) async fn concurrent_appends_are_there_once(log: Log) {
    let appends = (0..64u8).map(|number| {
        let writer = log.writer.clone();
        tokio::spawn(async move {
            let records = (0..4).map(|part| record([EVENTS, CONTEXTS][part % 2], &[number, part as u8]));
            writer.append(records.collect()).await.unwrap()
        })
    });
    let mut places = BTreeSet::new();
    for append in appends.collect::<Vec<_>>() {
        let offsets = append.await.unwrap();
        assert!(offsets[0] < offsets[2] && offsets[1] < offsets[3], "records of one call keep their order");
        places.extend(offsets.into_iter().enumerate().map(|(part, offset)| (part % 2, offset)));
    }
    assert_eq!(places.len(), 256);
    for topic_partition in [EVENTS, CONTEXTS] {
        let read = read_all(&log, topic_partition).await;
        assert_eq!(read.len(), 128);
        assert_eq!(read.into_iter().collect::<BTreeSet<_>>().len(), 128);
    }
}

pub(super) async fn fetch_that_is_given_up_loses_nothing(log: Log) {
    let mut next = Offset(0);
    for number in 0..50u8 {
        // Given up at another moment each time, before or after the record came.
        let wait = Duration::from_micros(u64::from(number) * 200);
        let frame = [number];
        let append = log.append(EVENTS, &frame);
        let fetch = tokio::time::timeout(wait, log.reader.fetch(EVENTS, next, 100, MUCH_TIME));
        let (appended, fetched) = tokio::join!(append, fetch);
        appended.unwrap();
        if let Ok(records) = fetched {
            next = records.unwrap().last().unwrap().offset.next();
        }
    }
    while next < Offset(50) {
        let records = log.reader.fetch(EVENTS, next, 1000, NO_TIME).await.unwrap();
        assert_eq!(records[0].offset, next);
        next = records.last().unwrap().offset.next();
    }
}

pub(super) async fn large_and_empty_records_read_back(log: Log) {
    let large = vec![1; 3 << 20];
    let records = [&b"a"[..], &large, b"", b"b"].map(|frame| record(EVENTS, frame));
    log.writer.append(records.into()).await.unwrap();
    let mut lengths = Vec::new();
    while lengths.len() < 4 {
        let fetch = log.reader.fetch(EVENTS, Offset(lengths.len() as i64), usize::MAX, MUCH_TIME);
        lengths.extend(fetch.await.unwrap().iter().map(|record| record.frame.len()));
    }
    assert_eq!(lengths, [1, 3 << 20, 0, 1]);
}

pub(super) async fn unknown_partition_stops_the_caller_alone(log: Log) {
    let writer = log.writer.clone();
    let records = vec![record(TopicPartition::new(Topic::Events, 9), b"x")];
    let call = tokio::spawn(async move { writer.append(records).await });
    // In memory, a partition comes to be when it is first used.
    assert!(call.await.map_or_else(|error| error.is_panic(), |outcome| outcome.is_ok()));
    log.append(EVENTS, b"y").await.unwrap();
}
