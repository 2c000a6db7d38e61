//! A few bytes beside the log that are overwritten often: how far somebody has got.
//!
//! The file has its full size from the beginning, so that it can be written when the disk is full. Two slots, written in
//! turn and synced each time: a write that is torn leaves the one before. Little-endian, each slot:
//!
//! | field | bytes | meaning |
//! |---|---|---|
//! | sequence | 8 | the larger one counts; 0: never written |
//! | content_bytes | 4 | length of the content |
//! | checksum | 4 | CRC-32C of all other fields |
//! | content | content_bytes | the rest of the slot is not read |

use std::io::{ErrorKind, IoSlice};
use std::path::PathBuf;
use std::sync::Arc;

use super::disk::{self, Disk, DiskFile};
use super::segment::array;
use crate::{Error, Result};

const HEADER_BYTES: usize = 16;
const BLOCK_BYTES: usize = 4096;

pub(crate) struct Notes {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    slot_bytes: usize,
    sequence: u64,
}

impl Notes {
    /// Opens the file, or makes one for contents of up to `content_bytes_max`, and reads the last content.
    ///
    /// # Errors
    /// `Corrupt` if something was written and no slot is readable.
    pub(super) fn open(disk: &dyn Disk, path: PathBuf, content_bytes_max: usize) -> Result<(Self, Option<Vec<u8>>)> {
        let slot_bytes = (HEADER_BYTES + content_bytes_max).next_multiple_of(BLOCK_BYTES);
        let failed = |action| {
            let path = path.clone();
            move |error| Error::io(action, path, error)
        };
        let file = match disk.open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let file = disk::replace_file(disk, &path, &vec![0; 2 * slot_bytes]).map_err(failed("writing"))?;
                return Ok((Self { path, file, slot_bytes, sequence: 0 }, None));
            }
            Err(error) => return Err(failed("opening")(error)),
        };
        let mut bytes = vec![0; 2 * slot_bytes];
        disk::read_exact(&*file, &mut bytes, 0).map_err(failed("reading"))?;
        let newest = bytes.chunks_exact(slot_bytes).filter_map(decode).max_by_key(|(sequence, _)| *sequence);
        if newest.is_none() && bytes.iter().any(|byte| *byte != 0) {
            let what = "neither of its two slots is readable, so nobody knows how far it was read".into();
            return Err(Error::Corrupt { path, position: 0, what });
        }
        let sequence = newest.as_ref().map_or(0, |(sequence, _)| *sequence);
        Ok((Self { path, file, slot_bytes, sequence }, newest.map(|(_, content)| content)))
    }

    /// Replaces the content; it is durable when this returns.
    pub fn write(&mut self, content: &[u8]) -> Result<()> {
        assert!(HEADER_BYTES + content.len() <= self.slot_bytes, "{} bytes of notes do not fit", content.len());
        let sequence = self.sequence + 1;
        let mut slot = Vec::with_capacity(HEADER_BYTES + content.len());
        slot.extend_from_slice(&sequence.to_le_bytes());
        slot.extend_from_slice(&(content.len() as u32).to_le_bytes());
        slot.extend_from_slice(&checksum(&slot, content).to_le_bytes());
        slot.extend_from_slice(content);
        let position = (sequence % 2) * self.slot_bytes as u64;
        disk::write_all(&*self.file, &mut [IoSlice::new(&slot)], position)
            .and_then(|()| self.file.sync())
            .map_err(|error| Error::io("writing", &self.path, error))?;
        self.sequence = sequence;
        Ok(())
    }
}

fn checksum(header: &[u8], content: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(header), content)
}

fn decode(slot: &[u8]) -> Option<(u64, Vec<u8>)> {
    let sequence = u64::from_le_bytes(array(slot, 0));
    let content_bytes = u32::from_le_bytes(array(slot, 8)) as usize;
    let content = slot[HEADER_BYTES..].get(..content_bytes)?;
    let intact = u32::from_le_bytes(array(slot, 12)) == checksum(&slot[..12], content);
    (sequence > 0 && intact).then(|| (sequence, content.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::super::disk::LocalDisk;
    use super::*;

    #[test]
    fn last_content_reads_back_and_a_torn_one_leaves_the_one_before() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("notes");
        let open = || Notes::open(&LocalDisk, path.clone(), 100);
        let (mut notes, content) = open().unwrap();
        assert_eq!(content, None);
        for number in 1..=5_u8 {
            notes.write(&[number; 90]).unwrap();
            assert_eq!(open().unwrap().1.unwrap(), [number; 90]);
        }
        let bytes = std::fs::read(&path).unwrap();
        for position in BLOCK_BYTES..BLOCK_BYTES + HEADER_BYTES + 90 {
            let mut torn = bytes.clone();
            torn[position] ^= 1;
            std::fs::write(&path, torn).unwrap();
            assert_eq!(open().unwrap().1.unwrap(), [4; 90], "byte {position}");
        }
        std::fs::write(&path, vec![1; bytes.len()]).unwrap();
        assert!(matches!(open(), Err(Error::Corrupt { .. })));
    }
}
