//! Bytes of a segment file: a header, entries of all partitions interleaved as they came, and a footer once sealed.
//!
//! All integers are little-endian. Version 1:
//!
//! | header field | bytes | meaning |
//! |---|---|---|
//! | magic | 4 | `TGSG` |
//! | version | 2 | 1 |
//! | reserved | 2 | 0 |
//! | log | 16 | identity of the log |
//! | first_sequence | 8 | sequence of the first entry; also the file's name |
//! | previous_end | 8 | where the entries of the segment before this one end; bytes after it were abandoned or are its footer |
//! | created_at | 8 | microseconds since the epoch |
//! | partitions | 12 | number of partitions of events, contexts, dead letters (4 each) |
//! | base | 8 each | next offset of every partition when the segment began |
//! | checksum | 4 | CRC-32C of all before |
//!
//! | entry field | bytes | meaning |
//! |---|---|---|
//! | magic | 4 | `TGEN`, to find entries behind damage |
//! | checksum | 4 | CRC-32C of the rest of the entry |
//! | frame_bytes | 4 | length of the frame |
//! | partition | 4 | |
//! | topic | 1 | as in the frame |
//! | reserved | 7 | 0 |
//! | group_start | 8 | position in the file of the first entry of its group commit |
//! | sequence | 8 | number of the entry in the whole log, without gaps |
//! | offset | 8 | number of the record in its partition, without gaps |
//! | appended_at | 8 | microseconds since the epoch; never goes back |
//! | frame | frame_bytes | the record, see [`crate::frame`] |
//!
//! `group_start` says more than it seems: a group is written only after the one before it was synced. An intact entry
//! whose group starts behind a damaged place proves that the damage is not a torn write but a loss.

use std::io;

use events::{Offset, Topic, TopicPartition};
use runtime::UnixMicros;

use super::disk::{self, DiskFile};

pub(super) const VERSION: u16 = 1;
const MAGIC: [u8; 4] = *b"TGSG";
pub(super) const ENTRY_MAGIC: [u8; 4] = *b"TGEN";
const FIXED_BYTES: usize = 60;
pub(super) const ENTRY_HEADER_BYTES: usize = 56;

pub(super) type LogId = [u8; 16];

/// Why bytes could not be taken: the medium failed, or what it gave is wrong.
#[derive(Debug)]
pub(super) enum Unreadable {
    Io(io::Error),
    Damaged { position: u64, what: String },
}

impl From<io::Error> for Unreadable {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub log_id: LogId,
    pub first_sequence: u64,
    pub previous_end: u64,
    pub created_at: UnixMicros,
    pub partitions: [u32; 3],
    /// Next offset per slot.
    pub base: Box<[i64]>,
}

impl SegmentHeader {
    /// Length of the header, which is where entries start.
    pub const fn bytes(slots: usize) -> u64 {
        (FIXED_BYTES + 8 * slots + 4) as u64
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(Self::bytes(self.base.len()) as usize);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&self.log_id);
        out.extend_from_slice(&self.first_sequence.to_le_bytes());
        out.extend_from_slice(&self.previous_end.to_le_bytes());
        out.extend_from_slice(&self.created_at.0.to_le_bytes());
        self.partitions.iter().for_each(|count| out.extend_from_slice(&count.to_le_bytes()));
        self.base.iter().for_each(|offset| out.extend_from_slice(&offset.to_le_bytes()));
        let checksum = crc32c::crc32c(&out);
        out.extend_from_slice(&checksum.to_le_bytes());
        out
    }

    /// Reads the header of a file that must belong to the log and have its partitions.
    pub fn read(file: &dyn DiskFile, log_id: &LogId, partitions: [u32; 3]) -> Result<Self, Unreadable> {
        let damaged = |what: String| Unreadable::Damaged { position: 0, what };
        let slots = partitions.iter().map(|count| *count as usize).sum();
        let (wanted, held) = (Self::bytes(slots), file.bytes()?);
        let mut bytes = vec![0; wanted.min(held) as usize];
        disk::read_exact(file, &mut bytes, 0)?;
        if bytes.len() < 6 || bytes[..4] != MAGIC {
            return Err(damaged("it does not begin with the magic of a segment".into()));
        }
        let version = u16::from_le_bytes(array(&bytes, 4));
        if version > VERSION {
            return Err(damaged(format!("segment version {version}, this program reads up to {VERSION}")));
        }
        if held < wanted {
            return Err(damaged(format!("a header of {wanted} bytes in a file of {held}")));
        }
        let (content, checksum) = bytes.split_at(bytes.len() - 4);
        let (stored, computed) = (u32::from_le_bytes(array(checksum, 0)), crc32c::crc32c(content));
        if stored != computed {
            return Err(damaged(format!("header checksum {computed:08x}, stored {stored:08x}")));
        }
        let header = Self {
            log_id: array(&bytes, 8),
            first_sequence: u64::from_le_bytes(array(&bytes, 24)),
            previous_end: u64::from_le_bytes(array(&bytes, 32)),
            created_at: UnixMicros(i64::from_le_bytes(array(&bytes, 40))),
            partitions: [48, 52, 56].map(|at| u32::from_le_bytes(array(&bytes, at))),
            base: (0..slots).map(|slot| i64::from_le_bytes(array(&bytes, FIXED_BYTES + 8 * slot))).collect(),
        };
        if header.log_id != *log_id || header.partitions != partitions {
            return Err(damaged("it belongs to another log".into()));
        }
        Ok(header)
    }
}

/// An entry without its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EntryHeader {
    pub frame_bytes: u32,
    pub topic_partition: TopicPartition,
    pub group_start: u64,
    pub sequence: u64,
    pub offset: Offset,
    pub appended_at: UnixMicros,
}

impl EntryHeader {
    pub fn encode(&self, frame: &[u8]) -> [u8; ENTRY_HEADER_BYTES] {
        assert_eq!(self.frame_bytes as usize, frame.len());
        let mut out = [0; ENTRY_HEADER_BYTES];
        out[..4].copy_from_slice(&ENTRY_MAGIC);
        out[8..12].copy_from_slice(&self.frame_bytes.to_le_bytes());
        out[12..16].copy_from_slice(&self.topic_partition.partition.0.to_le_bytes());
        out[16] = self.topic_partition.topic as u8;
        out[24..32].copy_from_slice(&self.group_start.to_le_bytes());
        out[32..40].copy_from_slice(&self.sequence.to_le_bytes());
        out[40..48].copy_from_slice(&self.offset.0.to_le_bytes());
        out[48..56].copy_from_slice(&self.appended_at.0.to_le_bytes());
        let checksum = checksum(&out, frame);
        out[4..8].copy_from_slice(&checksum.to_le_bytes());
        out
    }

    /// How many bytes of frame follow a header, as far as that can be said without the checksum.
    pub fn frame_bytes(bytes: &[u8; ENTRY_HEADER_BYTES]) -> Result<u32, String> {
        if bytes[..4] != ENTRY_MAGIC {
            return Err("no entry begins here".into());
        }
        Ok(u32::from_le_bytes(array(bytes, 8)))
    }

    /// Checks and reads an entry.
    pub fn decode(bytes: &[u8; ENTRY_HEADER_BYTES], frame: &[u8]) -> Result<Self, String> {
        let frame_bytes = Self::frame_bytes(bytes)?;
        let (stored, computed) = (u32::from_le_bytes(array(bytes, 4)), checksum(bytes, frame));
        if stored != computed || frame_bytes as usize != frame.len() {
            return Err(format!("entry checksum {computed:08x}, stored {stored:08x}"));
        }
        let topic = Topic::from_code(bytes[16]).ok_or_else(|| format!("topic {} is unknown", bytes[16]))?;
        Ok(Self {
            frame_bytes,
            topic_partition: TopicPartition::new(topic, u32::from_le_bytes(array(bytes, 12))),
            group_start: u64::from_le_bytes(array(bytes, 24)),
            sequence: u64::from_le_bytes(array(bytes, 32)),
            offset: Offset(i64::from_le_bytes(array(bytes, 40))),
            appended_at: UnixMicros(i64::from_le_bytes(array(bytes, 48))),
        })
    }
}

fn checksum(header: &[u8; ENTRY_HEADER_BYTES], frame: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&header[8..]), frame)
}

pub(super) fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the slice has N bytes")
}
