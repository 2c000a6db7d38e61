//! Merges small files of one table partition into larger ones.
//!
//! [`plan`] is pure: which files of a partition to merge next, if any. [`execute`] reads them side by side, writes their
//! rows in order to new files, reads back what it wrote, and swaps old for new in one commit that changes no data.
//!
//! Files are merged with files of like size: each row is then rewritten once per level, not once per merge. In a partition
//! that no longer receives rows, everything small is merged, whatever its size.

mod execute;

pub(crate) use execute::{Checksum, execute, read_back, reading_schema};

/// A row group as stored, as large as it usually is.
const ROW_GROUP_BYTES: u64 = 4 << 20;

/// Files of one merge. More would save few merges and cost memory and open requests each.
const FILES_MAX: usize = 32;
/// A level holds files up to four times the size of the level below.
const LEVEL_SHIFT: u32 = 2;
const LEVEL_FIRST_BYTES: u64 = 64 << 10;
/// Decoded rows and bookkeeping of one open input.
const INPUT_BYTES: u64 = 512 << 10;

/// One live file of the partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub path: String,
    pub bytes: u64,
}

/// Bounds of a merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MergeSettings {
    pub target_bytes: u64,
    /// Files of one level that are worth a merge.
    pub files_min: usize,
    pub memory_bytes: u64,
    /// The row group being written, before compression.
    pub row_group_bytes: usize,
}

/// Picks the files of one partition to merge next; none if it is in shape.
///
/// `receiving`: whether rows still arrive in this partition.
/// Returns at least two paths, in order of size, together at most the target size, none of which is half the target or
/// larger. The memory bound is kept unless two files alone exceed it.
pub(crate) fn plan(files: &[Candidate], receiving: bool, settings: MergeSettings) -> Option<Vec<String>> {
    let mut small: Vec<&Candidate> = files.iter().filter(|file| file.bytes < settings.target_bytes / 2).collect();
    small.sort_by(|a, b| (a.bytes, &a.path).cmp(&(b.bytes, &b.path)));
    if !receiving {
        return Some(take_fitting(&small, settings)).filter(|set| set.len() >= 2);
    }
    let files_min = settings.files_min.max(2);
    let levels = small.chunk_by(|a, b| level(a.bytes) == level(b.bytes));
    let mut full = levels.filter(|level| level.len() >= files_min);
    full.next().map(|level| take_fitting(level, settings)).filter(|set| set.len() >= 2)
}

fn take_fitting(files: &[&Candidate], settings: MergeSettings) -> Vec<String> {
    let (mut bytes, mut memory) = (0, 0);
    let mut set = Vec::new();
    for file in files.iter().take(FILES_MAX) {
        bytes += file.bytes;
        memory += input_memory(file.bytes);
        if bytes > settings.target_bytes || (memory > settings.memory_bytes && set.len() >= 2) {
            break;
        }
        set.push(file.path.clone());
    }
    set
}

fn level(bytes: u64) -> u32 {
    let steps = bytes / LEVEL_FIRST_BYTES;
    if steps == 0 { 0 } else { 1 + steps.ilog2() / LEVEL_SHIFT }
}

/// A reader holds one row group as stored and, unpacked, one page per column.
fn input_memory(bytes: u64) -> u64 {
    2 * bytes.min(ROW_GROUP_BYTES) + INPUT_BYTES
}

#[cfg(test)]
mod tests;
