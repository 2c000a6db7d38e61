//! How far the log has been acknowledged, in a small file of its own.
//!
//! Written after the sync of a group and before its appends resolve, and not synced itself: after the death of the
//! process it is exact, because the page cache outlives the process; after the loss of power it may be older than the
//! truth, never newer. Recovery takes damage before it for loss and damage behind it for a torn write, unless
//! `walk::later_group` proves otherwise.
//!
//! Two slots of 512 bytes, written in turn, so that one torn sector leaves the other. Little-endian, version 1:
//!
//! | field | bytes | meaning |
//! |---|---|---|
//! | magic | 4 | `TGAK` |
//! | version | 2 | 1 |
//! | reserved | 2 | 0 |
//! | segment | 8 | first sequence of the segment |
//! | end | 8 | position in its file up to which everything is acknowledged |
//! | checksum | 4 | CRC-32C of the 24 bytes before |

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::{self, Disk, DiskFile};
use super::segment::array;
use crate::{Error, Result};

const FILE: &str = "acknowledged";
const MAGIC: [u8; 4] = *b"TGAK";
const VERSION: u16 = 1;
const SLOT_BYTES: usize = 512;
const CONTENT_BYTES: usize = 28;

/// Everything before `end` in the segment, and all earlier segments, is acknowledged. Ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Acknowledged {
    pub segment: u64,
    pub end: u64,
}

pub(super) struct Watermark {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    /// Slot of the next write.
    slot: usize,
}

impl Watermark {
    pub fn create(disk: &dyn Disk, directory: &Path, acknowledged: Acknowledged) -> Result<()> {
        let path = directory.join(FILE);
        let content = [encode(acknowledged), encode(acknowledged)].concat();
        disk::replace_file(disk, &path, &content).map_err(|error| Error::io("writing", path, error))?;
        Ok(())
    }

    /// # Errors
    /// `Refused` if the file is missing, `Corrupt` if neither slot is readable.
    pub fn open(disk: &dyn Disk, directory: &Path) -> Result<(Self, Acknowledged)> {
        let path = directory.join(FILE);
        let file = match disk.open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let what = format!("its file {FILE:?} is missing: half copied or damaged");
                return Err(Error::Refused { path: directory.into(), what });
            }
            Err(error) => return Err(Error::io("opening", path, error)),
        };
        let read_slot = |slot: usize| {
            let mut bytes = [0; CONTENT_BYTES];
            disk::read_exact(&*file, &mut bytes, (slot * SLOT_BYTES) as u64).ok().and_then(|()| decode(&bytes))
        };
        let slots = [read_slot(0), read_slot(1)];
        let Some(acknowledged) = slots.into_iter().flatten().max() else {
            let what = "neither of its two slots is readable, so nobody knows what was acknowledged".into();
            return Err(Error::Corrupt { path, position: 0, what });
        };
        let slot = usize::from(slots[0] == Some(acknowledged));
        Ok((Self { path, file, slot }, acknowledged))
    }

    pub fn write(&mut self, acknowledged: Acknowledged) -> Result<()> {
        let position = (self.slot * SLOT_BYTES) as u64;
        let content = encode(acknowledged);
        disk::write_all(&*self.file, &mut [IoSlice::new(&content[..CONTENT_BYTES])], position)
            .map_err(|error| Error::io("writing", &self.path, error))?;
        self.slot = 1 - self.slot;
        Ok(())
    }
}

fn encode(acknowledged: Acknowledged) -> [u8; SLOT_BYTES] {
    let mut out = [0; SLOT_BYTES];
    out[..4].copy_from_slice(&MAGIC);
    out[4..6].copy_from_slice(&VERSION.to_le_bytes());
    out[8..16].copy_from_slice(&acknowledged.segment.to_le_bytes());
    out[16..24].copy_from_slice(&acknowledged.end.to_le_bytes());
    let checksum = crc32c::crc32c(&out[..24]);
    out[24..28].copy_from_slice(&checksum.to_le_bytes());
    out
}

fn decode(bytes: &[u8; CONTENT_BYTES]) -> Option<Acknowledged> {
    let intact = bytes[..4] == MAGIC
        && u16::from_le_bytes(array(bytes, 4)) == VERSION
        && u32::from_le_bytes(array(bytes, 24)) == crc32c::crc32c(&bytes[..24]);
    let number = |at| u64::from_le_bytes(array(bytes, at));
    intact.then(|| Acknowledged { segment: number(8), end: number(16) })
}
