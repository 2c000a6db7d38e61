//! Reading records back: which lie where is decided under the lock, reading and checking happen without it.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use events::{Offset, TopicPartition};
use runtime::UnixMicros;

use super::Shared;
use super::disk::{self, DiskFile};
use super::held::Segment;
use super::marks::{Mark, Marks};
use super::recovery::{self, marks_by_walk};
use super::segment::{ENTRY_HEADER_BYTES, EntryHeader, SegmentHeader, array};
use crate::{Error, FetchedRecord, Result};

/// Neighbours are read in one go if no more than this lies between them,
const GAP_BYTES_MAX: u64 = 16 << 10;
/// and together they are no longer than this.
const RUN_BYTES_MAX: u64 = 1 << 20;

/// Records to read from one segment.
pub(super) struct Plan {
    topic_partition: TopicPartition,
    from: Offset,
    bytes_max: usize,
    segment: Segment,
    /// Marks of the records if the segment is the active one; those of a sealed one come from its footer.
    marks: Option<Vec<Mark>>,
}

impl Shared {
    /// Finds the records from `from` on; `None` if there are none yet.
    pub(super) fn plan(&self, topic_partition: TopicPartition, from: Offset, bytes_max: usize) -> Result<Option<Plan>> {
        let slot = self.layout.slot(topic_partition);
        let held = self.held.lock();
        let range = held.range(slot);
        if from < range.start || from > range.end {
            return Err(Error::OffsetOutOfRange { topic_partition, from, held: range });
        }
        if from == range.end {
            return Ok(None);
        }
        let segment = held.segment_of(slot, from).clone();
        let active = segment.first_sequence == held.active().first_sequence;
        let marks = active.then(|| {
            let index = (from.0 - segment.base[slot]) as usize;
            choose(&held.active_marks.slots[slot][index..], bytes_max).to_vec()
        });
        Ok(Some(Plan { topic_partition, from, bytes_max, segment, marks }))
    }

    /// Reads and checks the records of a plan. Blocks.
    pub(super) fn read(&self, plan: &Plan) -> Result<Vec<FetchedRecord>> {
        let slot = self.layout.slot(plan.topic_partition);
        let file = self.open(plan.topic_partition, plan.from, &plan.segment)?;
        let from_footer;
        let marks = match &plan.marks {
            Some(marks) => marks.as_slice(),
            None => {
                from_footer = self.marks(&*file, &plan.segment)?;
                let index = (plan.from.0 - plan.segment.base[slot]) as usize;
                choose(&from_footer.slots[slot][index..], plan.bytes_max)
            }
        };
        read_marks(&*file, &plan.segment.path, plan.topic_partition, plan.from, marks)
    }

    /// The first retained offset appended at or after `time`. Blocks.
    pub(super) fn first_at(&self, topic_partition: TopicPartition, time: UnixMicros) -> Result<Offset> {
        let slot = self.layout.slot(topic_partition);
        let (segment, active_marks) = {
            let held = self.held.lock();
            // Times never go back, so whole segments are skipped by their last one.
            let index = held.segments.partition_point(|segment| segment.last_at < time);
            let Some(segment) = held.segments.get(index) else {
                return Ok(held.range(slot).end);
            };
            let active = index + 1 == held.segments.len();
            (segment.clone(), active.then(|| held.active_marks.slots[slot].clone()))
        };
        let base = segment.base[slot];
        let file = self.open(topic_partition, Offset(base), &segment)?;
        let marks = match active_marks {
            Some(marks) => marks,
            None => self.marks(&*file, &segment)?.slots[slot].clone(),
        };
        let (mut low, mut high) = (0, marks.len());
        while low < high {
            let middle = (low + high) / 2;
            let offset = Offset(base + middle as i64);
            let record = read_marks(&*file, &segment.path, topic_partition, offset, &marks[middle..=middle])?;
            if record[0].appended_at < time {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(Offset(base + low as i64))
    }

    fn open(&self, topic_partition: TopicPartition, from: Offset, segment: &Segment) -> Result<Arc<dyn DiskFile>> {
        self.disk.open(&segment.path).map_err(|error| match error.kind() {
            // Retention took it in the meantime.
            ErrorKind::NotFound => {
                let held = self.held.lock().range(self.layout.slot(topic_partition));
                Error::OffsetOutOfRange { topic_partition, from, held }
            }
            _ => Error::io("opening", &segment.path, error),
        })
    }

    fn marks(&self, file: &dyn DiskFile, segment: &Segment) -> Result<Arc<Marks>> {
        if let Some(marks) = self.cache.lock().get(segment.first_sequence) {
            return Ok(marks);
        }
        let slots = self.layout.slots();
        let load = || match Marks::read_footer(file, segment.end, slots)? {
            Some(marks) => Ok(marks),
            None => {
                let header = SegmentHeader::read(file, &self.log_id, self.layout.0)?;
                marks_by_walk(file, &header, segment.end, slots)
            }
        };
        let marks = Arc::new(load().map_err(|unreadable| recovery::error(&segment.path, unreadable))?);
        self.cache.lock().put(segment.first_sequence, marks.clone());
        Ok(marks)
    }
}

/// The first marks that together have at most `bytes_max` of frames, but at least one.
fn choose(marks: &[Mark], bytes_max: usize) -> &[Mark] {
    let mut bytes = 0;
    let fitting = marks.iter().take_while(|mark| {
        bytes += mark.frame_bytes as usize;
        bytes <= bytes_max
    });
    let count = fitting.count().max(1);
    &marks[..count]
}

fn read_marks(
    file: &dyn DiskFile,
    path: &Path,
    topic_partition: TopicPartition,
    from: Offset,
    mut marks: &[Mark],
) -> Result<Vec<FetchedRecord>> {
    let mut records = Vec::with_capacity(marks.len());
    while let Some(first) = marks.first() {
        let joined = marks.windows(2).take_while(|pair| {
            pair[1].position - end_of(pair[0]) <= GAP_BYTES_MAX && end_of(pair[1]) - first.position <= RUN_BYTES_MAX
        });
        let (run, rest) = marks.split_at(1 + joined.count());
        marks = rest;
        let mut bytes = vec![0; (end_of(run[run.len() - 1]) - first.position) as usize];
        disk::read_exact(file, &mut bytes, first.position).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => {
                let what = "the file ends within acknowledged records".into();
                Error::Corrupt { path: path.into(), position: first.position, what }
            }
            _ => Error::io("reading", path, error),
        })?;
        let bytes = Bytes::from(bytes);
        for mark in run {
            let offset = Offset(from.0 + records.len() as i64);
            let at = (mark.position - first.position) as usize;
            let entry = bytes.slice(at..at + ENTRY_HEADER_BYTES + mark.frame_bytes as usize);
            let record = check(&entry, topic_partition, offset);
            records.push(record.map_err(|what| Error::Corrupt { path: path.into(), position: mark.position, what })?);
        }
    }
    Ok(records)
}

fn check(entry: &Bytes, topic_partition: TopicPartition, offset: Offset) -> std::result::Result<FetchedRecord, String> {
    let frame = entry.slice(ENTRY_HEADER_BYTES..);
    let header = EntryHeader::decode(&array(entry, 0), &frame)?;
    if header.topic_partition != topic_partition || header.offset != offset {
        let (held, at) = (header.topic_partition, header.offset);
        return Err(format!("offset {at} of {held} where offset {offset} of {topic_partition} was expected"));
    }
    Ok(FetchedRecord { offset, appended_at: header.appended_at, id: None, trace: None, frame })
}

fn end_of(mark: Mark) -> u64 {
    mark.position + ENTRY_HEADER_BYTES as u64 + u64::from(mark.frame_bytes)
}
