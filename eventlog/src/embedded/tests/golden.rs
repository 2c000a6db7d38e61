//! Segments of every version ever written stay readable.

use super::super::directory::segment_files;
use super::super::marks::{Mark, Marks};
use super::super::segment::{EntryHeader, SegmentHeader};
use super::*;

/// A sealed segment of version 1 with three records.
fn sample() -> Vec<u8> {
    let header = SegmentHeader {
        log_id: [7; 16],
        first_sequence: 0,
        previous_end: 0,
        created_at: UnixMicros(1_700_000_000_000_000),
        partitions: [2, 1, 1],
        base: vec![0; 4].into(),
    };
    let mut out = header.encode();
    let mut marks = Marks::new(4, header.created_at);
    let group_start = out.len() as u64;
    let records = [(EVENTS, 0, "first"), (CONTEXTS, 0, ""), (EVENTS, 1, "third")];
    for (sequence, (topic_partition, offset, frame)) in records.into_iter().enumerate() {
        let (appended_at, position) = (UnixMicros(1_700_000_001_000_000), out.len() as u64);
        let entry = EntryHeader {
            frame_bytes: frame.len() as u32,
            topic_partition,
            group_start,
            sequence: sequence as u64,
            offset: Offset(offset),
            appended_at,
        };
        out.extend_from_slice(&entry.encode(frame.as_bytes()));
        out.extend_from_slice(frame.as_bytes());
        let slot = Layout(header.partitions).slot(topic_partition);
        marks.push(slot, Mark { position, frame_bytes: entry.frame_bytes }, appended_at);
    }
    out.extend_from_slice(&marks.footer());
    out
}

/// From the package, where tests run: a path fixed at the build would be another checkout's that shares the target directory.
const GOLDEN: &str = "src/embedded/tests/segment_v1.golden";

#[test]
fn segment_is_written_as_version_1_says() {
    if std::env::var_os("UPDATE_GOLDEN").is_some() && !std::fs::exists(GOLDEN).unwrap() {
        std::fs::write(GOLDEN, sample()).unwrap();
    }
    assert_eq!(sample(), std::fs::read(GOLDEN).unwrap());
}

/// If this fails the reader broke; never replace the file.
#[tokio::test]
async fn golden_segment_of_version_1_stays_readable() {
    let golden = std::fs::read(GOLDEN).unwrap();
    let dir = directory();
    drop(open(&dir));
    // Another log's segment in a directory that says it is that log.
    let format = "tidegate log\nversion 1\nlog 07070707070707070707070707070707\npartitions events=2 contexts=1 dead_letters=1\n";
    let format = format!("{format}checksum {:08x}\n", crc32c::crc32c(format.as_bytes()));
    std::fs::write(dir.path().join("format"), format).unwrap();
    let (_, segment) = segment_files(dir.path()).unwrap().remove(0);
    std::fs::write(segment, golden).unwrap();
    let log = open(&dir);
    assert_eq!(read_all(&log, EVENTS).await.unwrap(), ["first", "third"]);
    assert_eq!(read_all(&log, CONTEXTS).await.unwrap(), [""]);
    let fetched = log.fetch(EVENTS, Offset(1), 100, Duration::ZERO).await.unwrap();
    assert_eq!(fetched[0].appended_at, UnixMicros(1_700_000_001_000_000));
}
