//! What a dead process or a bad sector leaves behind: at each byte, either all that was acknowledged is there, or the
//! start is refused with file and position.

use super::super::segment::SegmentHeader;
use super::*;

/// A log of one segment, and after each group: its length and the watermark file.
struct History {
    dir: TempDir,
    segment: PathBuf,
    bytes: Vec<u8>,
    steps: Vec<(usize, Vec<u8>)>,
}

const GROUPS: usize = 7;
const RECORDS_PER_GROUP: usize = 2;

impl History {
    async fn new() -> Self {
        let dir = directory();
        let log = open(&dir);
        let segment = files_with(dir.path(), ".seg").remove(0);
        let acknowledged = dir.path().join("acknowledged");
        let state = || (segment.metadata().unwrap().len() as usize, std::fs::read(&acknowledged).unwrap());
        let mut steps = vec![state()];
        for number in 0..GROUPS as u8 {
            let records = vec![record(EVENTS, &[2 * number; 9]), record(EVENTS, &[2 * number + 1; 5])];
            log.append(records).await.unwrap();
            steps.push(state());
        }
        log.close().await;
        let bytes = std::fs::read(&segment).unwrap();
        Self { dir, segment, bytes, steps }
    }

    /// How many groups were acknowledged when the file had `length` bytes.
    fn acknowledged(&self, length: usize) -> usize {
        self.steps.iter().rposition(|(end, _)| *end <= length).unwrap_or(0)
    }

    /// Puts this content and the watermark after `groups` groups into the directory, and opens it.
    fn open(&self, content: &[u8], groups: usize) -> Result<Arc<EmbeddedLog>> {
        std::fs::write(&self.segment, content).unwrap();
        std::fs::write(self.dir.path().join("acknowledged"), &self.steps[groups].1).unwrap();
        EmbeddedLog::open(self.dir.path(), &config(), &Runtime::system())
    }

    fn expect_corrupt(&self, opened: Result<Arc<EmbeddedLog>>, position_max: usize) -> String {
        let error = opened.err().unwrap_or_else(|| panic!("damage at byte {position_max} went unnoticed"));
        let Error::Corrupt { path, position, .. } = &error else { panic!("{error}") };
        assert_eq!(*path, self.segment);
        assert!(*position <= position_max as u64, "{error}, but byte {position_max} was damaged");
        error.to_string()
    }
}

async fn numbers(log: &EmbeddedLog) -> Vec<u8> {
    read_all(log, EVENTS).await.unwrap().iter().map(|frame| frame[0]).collect()
}

fn first(count: usize) -> Vec<u8> {
    (0..count as u8).collect()
}

#[tokio::test]
async fn file_that_ends_at_any_byte_keeps_what_was_acknowledged() {
    let history = History::new().await;
    for length in SegmentHeader::bytes(4) as usize..=history.bytes.len() {
        let acknowledged = history.acknowledged(length);
        let mut zeros = history.bytes[..length].to_vec();
        zeros.resize(history.bytes.len(), 0);
        // The file ends there; or it has its full length but the rest was never written; or, after the loss of power,
        // the watermark is older than the truth.
        for (content, groups) in
            [(&history.bytes[..length], acknowledged), (&zeros, acknowledged), (&history.bytes[..length], 0)]
        {
            let log = history.open(content, groups).unwrap();
            let recovered = numbers(&log).await;
            assert!(recovered.len() >= acknowledged * RECORDS_PER_GROUP, "{length} bytes: {recovered:?}");
            assert_eq!(recovered, first(recovered.len()));
            assert_eq!(history.segment.metadata().unwrap().len(), log.bytes(), "cut after {length} bytes");
            if length % 16 == 0 {
                assert_eq!(append(&log, EVENTS, b"x").await.unwrap(), Offset(recovered.len() as i64));
                log.close().await;
                assert_eq!(numbers(&open(&history.dir)).await.len(), recovered.len() + 1);
            }
        }
    }
}

#[tokio::test]
async fn file_shorter_than_acknowledged_is_refused() {
    let history = History::new().await;
    for length in 0..history.steps[4].0 {
        let error = history.expect_corrupt(history.open(&history.bytes[..length], 4), length);
        assert!(error.contains("byte"), "{error}");
    }
}

#[tokio::test]
async fn flipped_byte_is_cut_or_refused_but_never_passed_over() {
    let history = History::new().await;
    let groups = 4;
    for position in 0..history.bytes.len() {
        for mask in [0x01, 0x80] {
            let mut content = history.bytes.clone();
            content[position] ^= mask;
            let opened = history.open(&content, groups);
            if position < history.steps[GROUPS - 1].0 {
                // Acknowledged, or synced before something intact behind it was written.
                history.expect_corrupt(opened, position);
            } else {
                let recovered = numbers(&opened.unwrap()).await;
                assert!(recovered.len() >= (GROUPS - 1) * RECORDS_PER_GROUP, "byte {position}");
                assert_eq!(recovered, first(recovered.len()));
            }
        }
    }
    // The very same damage in the last group is refused once that is acknowledged.
    let last = history.bytes.len() - 1;
    let mut content = history.bytes.clone();
    content[last] ^= 1;
    history.expect_corrupt(history.open(&content, GROUPS), last);
}

#[tokio::test]
async fn flipped_byte_in_a_sealed_segment_is_found_by_start_or_fetch() {
    let dir = directory();
    let log = EmbeddedLog::open(dir.path(), &small_segments(), &Runtime::system()).unwrap();
    for number in 0..20 {
        append(&log, EVENTS, &[number; 30]).await.unwrap();
    }
    log.close().await;
    let sealed = files_with(dir.path(), ".seg").remove(0);
    let good = std::fs::read(&sealed).unwrap();
    let mut intact = 0;
    for position in 0..good.len() {
        let mut content = good.clone();
        content[position] ^= 0x10;
        std::fs::write(&sealed, content).unwrap();
        let outcome = match EmbeddedLog::open(dir.path(), &small_segments(), &Runtime::system()) {
            Ok(log) => read_all(&log, EVENTS).await,
            Err(error) => Err(error),
        };
        match outcome {
            Ok(frames) => {
                // Damage to the footer costs nothing but a walk.
                assert_eq!(frames.iter().map(|frame| frame[0]).collect::<Vec<_>>(), first(20));
                intact += 1;
            }
            Err(Error::Corrupt { path, position: named, .. }) => assert!(path == sealed && named <= position as u64),
            Err(error) => panic!("byte {position}: {error}"),
        }
    }
    assert!(intact > 0 && intact < 160, "{intact}");
}

#[tokio::test]
async fn missing_segments_are_refused() {
    let dir = directory();
    let log = EmbeddedLog::open(dir.path(), &small_segments(), &Runtime::system()).unwrap();
    for number in 0..40 {
        append(&log, EVENTS, &[number; 30]).await.unwrap();
    }
    log.close().await;
    let segments = files_with(dir.path(), ".seg");
    for missing in [1, segments.len() - 1] {
        let content = std::fs::read(&segments[missing]).unwrap();
        std::fs::remove_file(&segments[missing]).unwrap();
        let error = EmbeddedLog::open(dir.path(), &small_segments(), &Runtime::system()).err().unwrap();
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
        std::fs::write(&segments[missing], content).unwrap();
    }
    assert_eq!(
        numbers(&EmbeddedLog::open(dir.path(), &small_segments(), &Runtime::system()).unwrap()).await,
        first(40)
    );
}

#[tokio::test]
async fn damaged_watermark_falls_back_to_its_other_slot_or_is_refused() {
    let history = History::new().await;
    let watermark = history.dir.path().join("acknowledged");
    let good = history.steps[GROUPS].1.clone();
    for position in 0..good.len() {
        let mut content = good.clone();
        content[position] ^= 4;
        std::fs::write(&watermark, content).unwrap();
        assert_eq!(numbers(&open(&history.dir)).await.len(), GROUPS * RECORDS_PER_GROUP);
    }
    for content in [vec![0; 1024], Vec::new()] {
        std::fs::write(&watermark, content).unwrap();
        let error = EmbeddedLog::open(history.dir.path(), &config(), &Runtime::system()).err().unwrap();
        assert!(matches!(&error, Error::Corrupt { path, .. } if *path == watermark), "{error}");
    }
}

#[tokio::test]
async fn crash_while_a_segment_begins_leaves_no_trace() {
    let history = History::new().await;
    std::fs::write(history.dir.path().join("00000000000000000014.seg.new"), b"TGS").unwrap();
    std::fs::write(history.dir.path().join("probe"), b"0000").unwrap();
    let log = history.open(&history.bytes, GROUPS).unwrap();
    assert_eq!(numbers(&log).await, first(GROUPS * RECORDS_PER_GROUP));
    assert_eq!(files_with(history.dir.path(), ".new").len() + files_with(history.dir.path(), "probe").len(), 0);
}
