//! Going through the entries of a segment one by one, with every checksum.

use std::io::{self, BufReader, Read};

use super::disk::{self, DiskFile};
use super::segment::{ENTRY_HEADER_BYTES, ENTRY_MAGIC, EntryHeader, Unreadable};

const BUFFER_BYTES: usize = 256 << 10;

/// Entries of a file from a position up to an end.
pub(super) struct Walk<'a> {
    reader: BufReader<Cursor<'a>>,
    position: u64,
    end: u64,
    frame: Vec<u8>,
}

impl<'a> Walk<'a> {
    pub fn new(file: &'a dyn DiskFile, from: u64, end: u64) -> Self {
        let reader = BufReader::with_capacity(BUFFER_BYTES, Cursor { file, position: from });
        Self { reader, position: from, end, frame: Vec::new() }
    }

    /// Where the next entry would begin.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next entry with its position; `None` at the end. After an error the walk is over.
    pub fn next(&mut self) -> Result<Option<(u64, EntryHeader)>, Unreadable> {
        let (position, left) = (self.position, self.end.saturating_sub(self.position));
        let damaged = |what| Unreadable::Damaged { position, what };
        if left == 0 {
            return Ok(None);
        }
        let body_left = left.checked_sub(ENTRY_HEADER_BYTES as u64);
        let body_left = body_left.ok_or_else(|| damaged(format!("{left} bytes are too few for an entry")))?;
        let mut header = [0; ENTRY_HEADER_BYTES];
        self.reader.read_exact(&mut header)?;
        let frame_bytes = EntryHeader::frame_bytes(&header).map_err(damaged)?;
        if u64::from(frame_bytes) > body_left {
            return Err(damaged(format!("an entry of {frame_bytes} bytes, only {body_left} follow")));
        }
        self.frame.resize(frame_bytes as usize, 0);
        self.reader.read_exact(&mut self.frame)?;
        let header = EntryHeader::decode(&header, &self.frame).map_err(damaged)?;
        self.position += ENTRY_HEADER_BYTES as u64 + u64::from(frame_bytes);
        Ok(Some((position, header)))
    }
}

struct Cursor<'a> {
    file: &'a dyn DiskFile,
    position: u64,
}

impl Read for Cursor<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.position)?;
        self.position += read as u64;
        Ok(read)
    }
}

/// Looks behind a damaged place for an intact entry of a later group, and returns its position.
///
/// Entries of the damaged group itself prove nothing: a torn write may reach the disk in any order.
pub(super) fn later_group(file: &dyn DiskFile, damage: u64, end: u64) -> Result<Option<u64>, Unreadable> {
    let mut window = vec![0; BUFFER_BYTES];
    let mut start = damage + 1;
    while start < end {
        let bytes = (end - start).min(BUFFER_BYTES as u64) as usize;
        disk::read_exact(file, &mut window[..bytes], start)?;
        for (index, four) in window[..bytes].windows(ENTRY_MAGIC.len()).enumerate() {
            let position = start + index as u64;
            if four == ENTRY_MAGIC && proves_loss(file, damage, position, end)? {
                return Ok(Some(position));
            }
        }
        if bytes < BUFFER_BYTES {
            break;
        }
        start += (bytes - (ENTRY_MAGIC.len() - 1)) as u64;
    }
    Ok(None)
}

fn proves_loss(file: &dyn DiskFile, damage: u64, position: u64, end: u64) -> Result<bool, Unreadable> {
    match Walk::new(file, position, end).next() {
        Ok(entry) => Ok(entry.is_some_and(|(_, entry)| entry.group_start > damage && entry.group_start <= position)),
        Err(Unreadable::Damaged { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}
