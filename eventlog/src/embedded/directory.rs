//! The directory as a whole: who owns it, which log it is, which partitions it has.
//!
//! | file | content |
//! |---|---|
//! | `lock` | see [`crate::lock`] |
//! | `format` | text, below; written last when a log is made, so that its presence means a whole log |
//! | `acknowledged` | see `watermark` |
//! | `<first sequence, 20 digits>.seg` | see `segment` |
//! | others | see `notes` |
//! | `*.new`, `probe` | left by a process that died; removed at start |
//!
//! `format`, version 1, five lines:
//!
//! ```text
//! tidegate log
//! version 1
//! log <32 hex digits>
//! partitions events=2 contexts=2 dead_letters=1
//! checksum <CRC-32C of the lines before, 8 hex digits>
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;

use events::{Topic, TopicId, TopicPartition};
use runtime::Runtime;

use super::disk::{self, Disk};
use super::segment::{LogId, SegmentHeader};
use super::watermark::{Acknowledged, Watermark};
use crate::lock::DirectoryLock;
use crate::{Config, Error, Result};

const FORMAT_VERSION: u32 = 1;
const FORMAT_FILE: &str = "format";
pub(super) const PROBE_FILE: &str = "probe";
pub(super) const SEGMENT_EXTENSION: &str = "seg";

/// How many partitions each topic has; numbers them through as slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout(pub [u32; 3]);

impl Layout {
    pub fn slots(self) -> usize {
        self.0.iter().map(|count| *count as usize).sum()
    }

    /// Panics if the topic has no such partition: the caller asked `partitions` for the number.
    pub fn slot(self, topic_partition: TopicPartition) -> usize {
        let (topic, partition) = (topic_partition.topic as usize, topic_partition.partition.0);
        assert!(partition < self.0[topic], "{topic_partition} does not exist, the log has {self}");
        self.0[..topic].iter().map(|count| *count as usize).sum::<usize>() + partition as usize
    }

    pub fn topic_partitions(self) -> impl Iterator<Item = TopicPartition> {
        let of = move |topic: Topic| (0..self.0[topic as usize]).map(move |number| TopicPartition::new(topic, number));
        Topic::ALL.into_iter().flat_map(of)
    }
}

impl std::fmt::Display for Layout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [events, contexts, dead_letters] = self.0;
        write!(f, "events={events} contexts={contexts} dead_letters={dead_letters}")
    }
}

/// A locked directory that holds a log.
pub(super) struct Directory {
    pub path: PathBuf,
    pub disk: Arc<dyn Disk>,
    pub log_id: LogId,
    pub layout: Layout,
    /// Unlocks when dropped.
    _lock: DirectoryLock,
}

impl Directory {
    /// Locks the directory and makes a log in it if there is none.
    ///
    /// # Errors
    /// `Refused` if another process has it, its format is newer, it is not a whole log, or the configured numbers of
    /// partitions differ from its own.
    pub fn open(path: &Path, disk: Arc<dyn Disk>, config: &Config, runtime: &Runtime) -> Result<Self> {
        let layout = Layout([config.events_partitions, config.contexts_partitions, config.dead_letters_partitions]);
        for (topic, count) in Topic::ALL.iter().zip(layout.0) {
            if !(1..=PARTITIONS_MAX).contains(&count) {
                let what = format!("log.{topic}_partitions is {count}, expected 1 to {PARTITIONS_MAX}");
                return Err(Error::Refused { path: path.into(), what });
            }
        }
        let lock = DirectoryLock::take(path)?;
        let format = path.join(FORMAT_FILE);
        let log_id = match std::fs::read_to_string(&format) {
            Ok(text) => {
                let (log_id, held) = read_format(&text).map_err(|what| Error::Refused { path: format, what })?;
                refuse_changed_partitions(path, layout, held)?;
                log_id
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => make(path, &*disk, layout, runtime)?,
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                return Err(Error::Refused { path: format, what: "it is not text".into() });
            }
            Err(error) => return Err(Error::io("reading", format, error)),
        };
        Ok(Self { path: path.into(), disk, log_id, layout, _lock: lock })
    }

    pub fn topic_id(&self, topic: Topic) -> TopicId {
        TopicId(format!("{}-{topic}", hex(&self.log_id)).into())
    }

    pub fn segment_path(&self, first_sequence: u64) -> PathBuf {
        segment_path(&self.path, first_sequence)
    }
}

/// Bounds the size of a segment's header.
const PARTITIONS_MAX: u32 = 4096;

fn segment_path(directory: &Path, first_sequence: u64) -> PathBuf {
    directory.join(format!("{first_sequence:020}.{SEGMENT_EXTENSION}"))
}

/// Segment files in order of their first sequence.
pub(super) fn segment_files(directory: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let failed = |error| Error::io("listing", directory, error);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == SEGMENT_EXTENSION) {
            let number = path.file_stem().and_then(|stem| stem.to_str()).filter(|stem| stem.len() == 20);
            let Some(first_sequence) = number.and_then(|stem| stem.parse().ok()) else {
                return Err(Error::Refused { path, what: "its name is not that of a segment".into() });
            };
            files.push((first_sequence, path));
        }
    }
    files.sort();
    Ok(files)
}

/// Makes an empty log: watermark and first segment, then the format file that makes them count.
fn make(path: &Path, disk: &dyn Disk, layout: Layout, runtime: &Runtime) -> Result<LogId> {
    // Without a format file nothing was ever acknowledged, unless somebody removed it.
    for (_, segment) in segment_files(path)? {
        let bytes = std::fs::metadata(&segment).map_err(|error| Error::io("reading", &segment, error))?.len();
        if bytes > SegmentHeader::bytes(layout.slots()) {
            let what = format!("it has no file {FORMAT_FILE:?}, but segments with records: half copied or damaged");
            return Err(Error::Refused { path: path.into(), what });
        }
        disk.remove(&segment).map_err(|error| Error::io("removing", &segment, error))?;
    }
    let log_id: LogId = *runtime.entropy.uuid().as_bytes();
    let header = SegmentHeader {
        log_id,
        first_sequence: 0,
        previous_end: 0,
        created_at: runtime.clock.now(),
        partitions: layout.0,
        base: vec![0; layout.slots()].into(),
    };
    let segment = segment_path(path, 0);
    disk::replace_file(disk, &segment, &header.encode()).map_err(|error| Error::io("writing", segment, error))?;
    Watermark::create(disk, path, Acknowledged { segment: 0, end: SegmentHeader::bytes(layout.slots()) })?;
    let format = path.join(FORMAT_FILE);
    let text = write_format(&log_id, layout);
    disk::replace_file(disk, &format, text.as_bytes()).map_err(|error| Error::io("writing", format, error))?;
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        disk.sync_dir(parent).map_err(|error| Error::io("syncing", parent, error))?;
    }
    Ok(log_id)
}

fn write_format(log_id: &LogId, layout: Layout) -> String {
    let text = format!("tidegate log\nversion {FORMAT_VERSION}\nlog {}\npartitions {layout}\n", hex(log_id));
    let checksum = crc32c::crc32c(text.as_bytes());
    format!("{text}checksum {checksum:08x}\n")
}

fn read_format(text: &str) -> std::result::Result<(LogId, Layout), String> {
    let version = text.strip_prefix("tidegate log\nversion ").and_then(|rest| rest.lines().next());
    let version: u32 = version.and_then(|line| line.parse().ok()).ok_or("it is not the format file of a log")?;
    if version > FORMAT_VERSION {
        return Err(format!("the log has format version {version}, this program reads up to {FORMAT_VERSION}"));
    }
    let damaged = || "the file is half-written or damaged".to_owned();
    let (before, checksum) = text.rsplit_once("checksum ").ok_or_else(damaged)?;
    if checksum != format!("{:08x}\n", crc32c::crc32c(before.as_bytes())) {
        return Err(damaged());
    }
    let line = |name: &str| before.lines().find_map(|line| line.strip_prefix(name)).ok_or_else(damaged);
    let log_id = u128::from_str_radix(line("log ")?, 16).map_err(|_| damaged())?.to_be_bytes();
    let counts = line("partitions ")?.split(' ').map(|word| word.split_once('=').and_then(|(_, n)| n.parse().ok()));
    let counts: Option<Vec<u32>> = counts.collect();
    let counts = counts.and_then(|counts| counts.try_into().ok()).ok_or_else(damaged)?;
    Ok((log_id, Layout(counts)))
}

fn refuse_changed_partitions(path: &Path, configured: Layout, held: Layout) -> Result<()> {
    let pairs = Topic::ALL.iter().zip(configured.0.iter().zip(held.0));
    let changed = pairs.filter(|(_, (configured, held))| **configured != *held);
    let changed: Vec<String> = changed
        .map(|(topic, (configured, held))| {
            format!("log.{topic}_partitions is {configured} but the log was made with {held}")
        })
        .collect();
    if changed.is_empty() {
        return Ok(());
    }
    Err(Error::Refused { path: path.into(), what: format!("{}; the number is fixed", changed.join(", ")) })
}

fn hex(log_id: &LogId) -> String {
    format!("{:032x}", u128::from_be_bytes(*log_id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn format_file_reads_back_and_notices_every_change() {
        let text = write_format(&[0xab; 16], Layout([2, 3, 1]));
        assert_eq!(read_format(&text).unwrap(), ([0xab; 16], Layout([2, 3, 1])));
        for end in 0..text.len() {
            assert!(read_format(&text[..end]).is_err(), "{end} bytes");
        }
        assert!(read_format(&text.replace("events=2", "events=4")).unwrap_err().contains("damaged"));
        let error = read_format(&text.replace("version 1", "version 2")).unwrap_err();
        assert!(error.contains("version 2") && error.contains("up to 1"), "{error}");
    }

    #[test]
    fn slots_number_the_partitions_through() {
        let layout = Layout([2, 3, 1]);
        let slots: Vec<usize> = layout.topic_partitions().map(|topic_partition| layout.slot(topic_partition)).collect();
        assert_eq!(slots, [0, 1, 2, 3, 4, 5]);
    }
}
