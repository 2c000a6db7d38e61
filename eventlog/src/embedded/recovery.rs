//! Start: from files that a process left behind, whenever and however it ended, to a log that goes on.
//!
//! Sealed segments are taken by their footers, so a start does not read the whole log; their frames are checked when
//! somebody reads them. The last segment is read whole. What is unreadable there is either the end of a write that
//! nobody was told of, and is cut, or damage to what was acknowledged, and stops the start with file and position.
//! What tells them apart is in `watermark` and in `walk::later_group`.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;

use super::directory::{Directory, PROBE_FILE, segment_files};
use super::disk::{self, DiskFile, TEMPORARY};
use super::held::Segment;
use super::marks::{Mark, Marks};
use super::segment::{SegmentHeader, Unreadable};
use super::walk::{self, Walk};
use super::watermark::{Acknowledged, Watermark};
use crate::{Error, Result};

pub(super) struct Recovered {
    pub segments: VecDeque<Segment>,
    pub active_file: Arc<dyn DiskFile>,
    pub active_marks: Marks,
    pub watermark: Watermark,
}

pub(super) fn recover(directory: &Directory) -> Result<Recovered> {
    remove_leftovers(directory)?;
    let (mut watermark, acknowledged) = Watermark::open(&*directory.disk, &directory.path)?;
    let opened = open_segments(directory)?;
    let Some((active, sealed)) = opened.split_last() else {
        let what = "it has a format file but no segment: half copied or damaged".into();
        return Err(Error::Refused { path: directory.path.clone(), what });
    };
    let mut segments = VecDeque::with_capacity(opened.len());
    for (opened, after) in sealed.iter().zip(&opened[1..]) {
        segments.push_back(recover_sealed(directory, opened, &after.header, acknowledged)?);
    }
    if acknowledged.segment > active.header.first_sequence {
        let segment = directory.segment_path(acknowledged.segment);
        let what = format!("the log was acknowledged up to byte {} of this file, which is gone", acknowledged.end);
        return Err(Error::Corrupt { path: segment, position: 0, what });
    }
    let (segment, active_marks) = recover_active(directory, active, acknowledged)?;
    watermark.write(Acknowledged { segment: segment.first_sequence, end: segment.end })?;
    segments.push_back(segment);
    Ok(Recovered { segments, active_file: active.file.clone(), active_marks, watermark })
}

fn remove_leftovers(directory: &Directory) -> Result<()> {
    let failed = |error| Error::io("listing", &directory.path, error);
    for entry in std::fs::read_dir(&directory.path).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name == PROBE_FILE || name.ends_with(TEMPORARY) {
            directory.disk.remove(&path).map_err(|error| Error::io("removing", path, error))?;
        }
    }
    Ok(())
}

struct Opened {
    path: std::path::PathBuf,
    file: Arc<dyn DiskFile>,
    header: SegmentHeader,
}

fn open_segments(directory: &Directory) -> Result<Vec<Opened>> {
    let files = segment_files(&directory.path)?.into_iter();
    files.map(|(first_sequence, path)| open_segment(directory, first_sequence, path)).collect()
}

fn open_segment(directory: &Directory, first_sequence: u64, path: std::path::PathBuf) -> Result<Opened> {
    let file = directory.disk.open(&path).map_err(|error| Error::io("opening", &path, error))?;
    let header = SegmentHeader::read(&*file, &directory.log_id, directory.layout.0);
    let header = header.map_err(|unreadable| error(&path, unreadable))?;
    if header.first_sequence != first_sequence {
        let what = format!("its header says that it begins with sequence {}", header.first_sequence);
        return Err(Error::Corrupt { path, position: 24, what });
    }
    Ok(Opened { path, file, header })
}

/// A segment that another one follows: everything up to the end that its follower names is acknowledged.
fn recover_sealed(
    directory: &Directory,
    opened: &Opened,
    after: &SegmentHeader,
    acknowledged: Acknowledged,
) -> Result<Segment> {
    let Opened { path, file, header } = opened;
    let end = after.previous_end;
    let corrupt = |position, what| Error::Corrupt { path: path.clone(), position, what };
    let file_bytes = file.bytes().map_err(|error| Error::io("reading", path, error))?;
    if file_bytes < end || (acknowledged.segment == header.first_sequence && acknowledged.end > end) {
        let end = end.max(acknowledged.end);
        return Err(corrupt(file_bytes.min(end), format!("it ends here, but was acknowledged up to byte {end}")));
    }
    let slots = directory.layout.slots();
    let footer = Marks::read_footer(&**file, end, slots).map_err(|unreadable| error(path, unreadable))?;
    let marks = match footer {
        Some(marks) => marks,
        None => {
            let marks = marks_by_walk(&**file, header, end, slots).map_err(|unreadable| error(path, unreadable))?;
            // The footer spares the next start this walk; without it everything works all the same.
            if let Err(error) = write_footer(&**file, end, &marks) {
                tracing::debug!(path = %path.display(), %error, "footer not written");
            }
            marks
        }
    };
    let segment = segment(opened, &marks, end, file.bytes().unwrap_or(file_bytes));
    if segment.next_sequence != after.first_sequence || segment.next != after.base {
        let what = format!(
            "sequence {} follows, but the next file begins with {}",
            segment.next_sequence, after.first_sequence
        );
        return Err(corrupt(end, what));
    }
    Ok(segment)
}

/// Writes the footer of a sealed segment over whatever was abandoned behind its entries.
pub(super) fn write_footer(file: &dyn DiskFile, end: u64, marks: &Marks) -> std::io::Result<u64> {
    let footer = marks.footer();
    file.set_len(end)?;
    disk::write_all(file, &mut [IoSlice::new(&footer)], end)?;
    file.sync()?;
    Ok(end + footer.len() as u64)
}

fn segment(opened: &Opened, marks: &Marks, end: u64, file_bytes: u64) -> Segment {
    let Opened { path, header, .. } = opened;
    let counts = marks.slots.iter().map(|slot| slot.len() as i64);
    let next: Box<[i64]> = header.base.iter().zip(counts).map(|(base, count)| base + count).collect();
    let entries: usize = marks.slots.iter().map(Vec::len).sum();
    Segment {
        path: path.clone(),
        first_sequence: header.first_sequence,
        next_sequence: header.first_sequence + entries as u64,
        previous_end: header.previous_end,
        end,
        file_bytes,
        first_at: marks.first_at,
        last_at: marks.last_at,
        base: header.base.clone(),
        next,
    }
}

/// Reads all entries up to `end`, which must be intact.
pub(super) fn marks_by_walk(
    file: &dyn DiskFile,
    header: &SegmentHeader,
    end: u64,
    slots: usize,
) -> std::result::Result<Marks, Unreadable> {
    let (marks, _, damage) = walk_all(file, header, end, slots)?;
    damage.map_or(Ok(marks), Err)
}

/// Reads entries up to `end` or to the first that is not right; returns where it stopped, and why if too early.
fn walk_all(
    file: &dyn DiskFile,
    header: &SegmentHeader,
    end: u64,
    slots: usize,
) -> std::result::Result<(Marks, u64, Option<Unreadable>), Unreadable> {
    let layout = super::directory::Layout(header.partitions);
    let mut marks = Marks::new(slots, header.created_at);
    let mut walk = Walk::new(file, SegmentHeader::bytes(slots), end);
    let mut sequence = header.first_sequence;
    loop {
        let start = walk.position();
        let (position, entry) = match walk.next() {
            Ok(Some(found)) => found,
            Ok(None) => return Ok((marks, start, None)),
            Err(Unreadable::Io(error)) => return Err(Unreadable::Io(error)),
            Err(damage) => return Ok((marks, start, Some(damage))),
        };
        let topic_partition = entry.topic_partition;
        if topic_partition.partition.0 >= header.partitions[topic_partition.topic as usize] {
            let what = format!("an entry of {topic_partition}, which does not exist");
            return Ok((marks, start, Some(Unreadable::Damaged { position, what })));
        }
        let slot = layout.slot(topic_partition);
        let offset = header.base[slot] + marks.slots[slot].len() as i64;
        if entry.sequence != sequence || entry.offset.0 != offset {
            let what = format!(
                "sequence {} and offset {} of {topic_partition} where {sequence} and {offset} were expected",
                entry.sequence, entry.offset
            );
            return Ok((marks, start, Some(Unreadable::Damaged { position, what })));
        }
        marks.push(slot, Mark { position, frame_bytes: entry.frame_bytes }, entry.appended_at);
        sequence += 1;
    }
}

/// The segment that was being written: kept up to its last intact entry, or refused.
fn recover_active(directory: &Directory, opened: &Opened, acknowledged: Acknowledged) -> Result<(Segment, Marks)> {
    let Opened { path, file, header } = opened;
    let slots = directory.layout.slots();
    let failed = |unreadable| error(path, unreadable);
    let io = |action: &'static str| move |error| Error::io(action, path.clone(), error);
    let acknowledged_end = if acknowledged.segment == header.first_sequence { acknowledged.end } else { 0 };
    let acknowledged_end = acknowledged_end.max(SegmentHeader::bytes(slots));
    let file_bytes = file.bytes().map_err(io("reading"))?;
    let (marks, end, damage) = walk_all(&**file, header, file_bytes, slots).map_err(failed)?;
    if end < acknowledged_end {
        let what = match damage {
            Some(Unreadable::Damaged { what, .. }) => what,
            _ => "it ends here".into(),
        };
        let what = format!("{what}; everything up to byte {acknowledged_end} was acknowledged");
        return Err(Error::Corrupt { path: path.clone(), position: end, what });
    }
    if let Some(Unreadable::Damaged { what, .. }) = damage {
        if let Some(intact) = walk::later_group(&**file, end, file_bytes).map_err(failed)? {
            let what = format!("{what}; what follows at byte {intact} was written after this had been synced");
            return Err(Error::Corrupt { path: path.clone(), position: end, what });
        }
        let cut_bytes = file_bytes - end;
        tracing::info!(path = %path.display(), position = end, cut_bytes, "cut an unfinished write that nobody was told of");
        file.set_len(end).map_err(io("cutting"))?;
        file.sync().map_err(io("syncing"))?;
    }
    if end > acknowledged_end {
        rewrite(&**file, acknowledged_end, end).map_err(io("writing"))?;
    }
    Ok((segment(opened, &marks, end, end), marks))
}

/// Makes entries durable that are there but were never acknowledged.
///
/// A plain fsync is not enough: if an earlier fsync of them failed, the kernel may hold their pages as clean although
/// they are not on disk, so they are written again.
fn rewrite(file: &dyn DiskFile, from: u64, end: u64) -> std::io::Result<()> {
    let mut chunk = vec![0; (end - from).min(1 << 20) as usize];
    let mut position = from;
    while position < end {
        let bytes = (end - position).min(chunk.len() as u64) as usize;
        disk::read_exact(file, &mut chunk[..bytes], position)?;
        disk::write_all(file, &mut [IoSlice::new(&chunk[..bytes])], position)?;
        position += bytes as u64;
    }
    file.sync()
}

pub(super) fn error(path: &Path, unreadable: Unreadable) -> Error {
    match unreadable {
        Unreadable::Io(error) => Error::io("reading", path, error),
        Unreadable::Damaged { position, what } => Error::Corrupt { path: path.into(), position, what },
    }
}
