//! Where each record lies in its segment: in memory for the segment being written, in the footer of a sealed one.
//!
//! Offsets of a partition are consecutive, so a mark needs only position and length. A footer spares the next start
//! from reading the segment; it is never needed, as a walk gives the same. Little-endian, version 1:
//!
//! | field | bytes | meaning |
//! |---|---|---|
//! | magic | 4 | `TGFT` |
//! | version | 2 | 1 |
//! | reserved | 2 | 0 |
//! | first_at, last_at | 8 + 8 | `appended_at` of the first and the last entry |
//! | counts | 4 each | entries of every partition |
//! | marks | 12 each | per entry, partition after partition: position (8), frame_bytes (4) |
//! | checksum | 4 | CRC-32C of all before |
//! | footer_bytes | 4 | length of the footer, all fields |
//! | magic | 4 | `TGFE`, the last bytes of the file |

use std::collections::VecDeque;
use std::sync::Arc;

use runtime::UnixMicros;

use super::disk::{self, DiskFile};
use super::segment::{Unreadable, array};

const MAGIC: [u8; 4] = *b"TGFT";
const END_MAGIC: [u8; 4] = *b"TGFE";
const VERSION: u16 = 1;
const FIXED_BYTES: usize = 24;
const TRAILER_BYTES: usize = 12;
const MARK_BYTES: usize = 12;

/// Place of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub position: u64,
    pub frame_bytes: u32,
}

/// Places of all records of a segment, per slot in order of their offsets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Marks {
    pub first_at: UnixMicros,
    pub last_at: UnixMicros,
    pub slots: Vec<Vec<Mark>>,
}

impl Marks {
    pub fn new(slots: usize, created_at: UnixMicros) -> Self {
        Self { first_at: created_at, last_at: created_at, slots: vec![Vec::new(); slots] }
    }

    pub fn is_empty(&self) -> bool {
        self.slots.iter().all(Vec::is_empty)
    }

    pub fn push(&mut self, slot: usize, mark: Mark, appended_at: UnixMicros) {
        if self.is_empty() {
            self.first_at = appended_at;
        }
        self.last_at = appended_at;
        self.slots[slot].push(mark);
    }

    pub fn footer(&self) -> Vec<u8> {
        let marks = self.slots.iter().map(Vec::len).sum::<usize>();
        let bytes = FIXED_BYTES + 4 * self.slots.len() + MARK_BYTES * marks + TRAILER_BYTES;
        let mut out = Vec::with_capacity(bytes);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&self.first_at.0.to_le_bytes());
        out.extend_from_slice(&self.last_at.0.to_le_bytes());
        self.slots.iter().for_each(|slot| out.extend_from_slice(&(slot.len() as u32).to_le_bytes()));
        for mark in self.slots.iter().flatten() {
            out.extend_from_slice(&mark.position.to_le_bytes());
            out.extend_from_slice(&mark.frame_bytes.to_le_bytes());
        }
        let checksum = crc32c::crc32c(&out);
        out.extend_from_slice(&checksum.to_le_bytes());
        out.extend_from_slice(&(bytes as u32).to_le_bytes());
        out.extend_from_slice(&END_MAGIC);
        out
    }

    /// Reads the footer of a segment whose entries end at `end`; `None` if there is no intact one right there.
    pub fn read_footer(file: &dyn DiskFile, end: u64, slots: usize) -> Result<Option<Self>, Unreadable> {
        let file_bytes = file.bytes()?;
        let Some(bytes) = file_bytes.checked_sub(end).filter(|bytes| *bytes >= (FIXED_BYTES + TRAILER_BYTES) as u64)
        else {
            return Ok(None);
        };
        let mut trailer = [0; 8];
        disk::read_exact(file, &mut trailer, file_bytes - 8)?;
        if trailer[4..] != END_MAGIC || u64::from(u32::from_le_bytes(array(&trailer, 0))) != bytes {
            return Ok(None);
        }
        let mut footer = vec![0; bytes as usize];
        disk::read_exact(file, &mut footer, end)?;
        Ok(Self::decode(&footer, slots))
    }

    fn decode(footer: &[u8], slots: usize) -> Option<Self> {
        let content = &footer[..footer.len() - TRAILER_BYTES];
        let intact = footer[..4] == MAGIC
            && u16::from_le_bytes(array(footer, 4)) == VERSION
            && u32::from_le_bytes(array(footer, content.len())) == crc32c::crc32c(content)
            && content.len() >= FIXED_BYTES + 4 * slots;
        if !intact {
            return None;
        }
        let time = |at| UnixMicros(i64::from_le_bytes(array(footer, at)));
        let (counts, marks) = content[FIXED_BYTES..].split_at(4 * slots);
        let mut marks = marks.chunks_exact(MARK_BYTES).map(|mark| Mark {
            position: u64::from_le_bytes(array(mark, 0)),
            frame_bytes: u32::from_le_bytes(array(mark, 8)),
        });
        let counts = counts.chunks_exact(4).map(|count| u32::from_le_bytes(array(count, 0)) as usize);
        let slots: Vec<Vec<Mark>> = counts.map(|count| marks.by_ref().take(count).collect()).collect();
        Some(Self { first_at: time(8), last_at: time(16), slots })
    }
}

/// Footers of the sealed segments that were read last.
#[derive(Default)]
pub(super) struct MarksCache(VecDeque<(u64, Arc<Marks>)>);

impl MarksCache {
    /// Compactor and indexer read in two or three places at a time; a footer has about 12 bytes per record.
    const SEGMENTS_MAX: usize = 6;

    pub fn get(&mut self, first_sequence: u64) -> Option<Arc<Marks>> {
        let index = self.0.iter().position(|(key, _)| *key == first_sequence)?;
        let found = self.0.remove(index)?;
        self.0.push_front(found);
        self.0.front().map(|(_, marks)| marks.clone())
    }

    pub fn put(&mut self, first_sequence: u64, marks: Arc<Marks>) {
        self.0.retain(|(key, _)| *key != first_sequence);
        self.0.push_front((first_sequence, marks));
        self.0.truncate(Self::SEGMENTS_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn footer_reads_back_and_notices_every_flipped_byte() {
        let mut marks = Marks::new(3, UnixMicros(5));
        marks.push(0, Mark { position: 96, frame_bytes: 10 }, UnixMicros(7));
        marks.push(2, Mark { position: 162, frame_bytes: 0 }, UnixMicros(9));
        let footer = marks.footer();
        assert_eq!(Marks::decode(&footer, 3), Some(marks));
        for position in 0..footer.len() - 8 {
            let mut bytes = footer.clone();
            bytes[position] ^= 1;
            assert_eq!(Marks::decode(&bytes, 3), None, "byte {position}");
        }
    }

    #[test]
    fn cache_keeps_the_last_used() {
        let mut cache = MarksCache::default();
        let marks = Arc::new(Marks::new(1, UnixMicros(0)));
        (0..MarksCache::SEGMENTS_MAX as u64).for_each(|key| cache.put(key, marks.clone()));
        assert!(cache.get(0).is_some());
        cache.put(100, marks);
        assert!(cache.get(0).is_some() && cache.get(1).is_none());
    }
}
