//! The writer thread: takes all pending appends, writes them at once, syncs once, then answers.
//!
//! In: groups of calls from `queue`. Out: entries in the active segment, the watermark, and then the calls' offsets.
//! Promise: nothing is published to readers or answered before sync and watermark have succeeded; after a failure the
//! place of the failed group is cut off or abandoned for a new segment, so no later entry stands behind half a group.
//!
//! A failed fsync is not tried again: the kernel may have marked the pages clean without having written them. The
//! segment is given up at its last durable entry and a new one begun, whose header says where the old one ends.

use std::io::IoSlice;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use events::Offset;
use runtime::UnixMicros;

use super::directory::{Directory, PROBE_FILE};
use super::disk::{self, DiskFile};
use super::held::Segment;
use super::marks::{Mark, Marks};
use super::queue::{Call, Taken};
use super::recovery::write_footer;
use super::segment::{EntryHeader, SegmentHeader};
use super::watermark::{Acknowledged, Watermark};
use super::{Shared, Usage, entry_bytes, retention};
use crate::{AppendRecord, Error, Result};

const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(5);
/// How soon to look for room again after a failed append.
const PROBE_INTERVAL: Duration = Duration::from_millis(200);
/// Readers register while the program starts; nothing is removed before they had the time.
const RETENTION_GRACE: Duration = if cfg!(test) { Duration::ZERO } else { Duration::from_secs(30) };
const PROBE_BYTES_MIN: u64 = 4 << 10;
const PROBE_BYTES_MAX: u64 = 16 << 20;

pub(super) struct Writer {
    pub shared: Arc<Shared>,
    pub directory: Directory,
    pub watermark: Watermark,
    pub file: Arc<dyn DiskFile>,
    /// Nothing may be written to the active segment any more.
    pub abandoned: bool,
    /// Bytes of the group that failed last.
    pub failed_bytes: u64,
}

/// A group on its way: what to write and what to publish when it is durable.
struct Group<'a> {
    start: u64,
    headers: Vec<[u8; super::segment::ENTRY_HEADER_BYTES]>,
    frames: Vec<&'a Bytes>,
    /// Slot and mark of each record.
    marks: Vec<(usize, Mark)>,
    /// Offsets per call.
    offsets: Vec<Vec<Offset>>,
    appended_at: UnixMicros,
    frame_bytes: u64,
    /// The active segment as it will be.
    after: Segment,
}

impl Writer {
    /// Runs until the log is closed and everything accepted is answered.
    pub fn run(mut self) {
        let shared = self.shared.clone();
        let _stopped = Stopped(shared.clone());
        let now = || shared.clock.instant().into_std();
        let started = now();
        let mut due = started + MAINTENANCE_INTERVAL;
        loop {
            let rotated = match shared.queue.take(due) {
                Taken::Group(calls) => self.commit(calls),
                Taken::Due => {
                    due = now();
                    false
                }
                Taken::Closed => return,
            };
            if rotated || now() >= due {
                let may_remove =
                    shared.bounds.usage == Usage::Spool || now().duration_since(started) >= RETENTION_GRACE;
                self.maintain(may_remove);
                due = now() + MAINTENANCE_INTERVAL;
            }
            if shared.failure.lock().is_some() {
                due = due.min(now() + PROBE_INTERVAL);
            }
        }
    }

    /// Makes a group durable and answers its calls. Returns true if a segment was sealed on the way.
    fn commit(&mut self, calls: Vec<Call>) -> bool {
        let bytes = calls.iter().map(|call| call.bytes).sum();
        let mut rotated = false;
        let outcome = self.make_room().and_then(|sealed| {
            rotated = sealed;
            self.write_group(&calls)
        });
        self.shared.queue.release(bytes);
        match outcome {
            Ok(offsets) => {
                self.shared.recovered();
                calls.into_iter().zip(offsets).for_each(|(call, offsets)| call.resolve(Ok(offsets)));
                self.shared.appended.notify_waiters();
            }
            Err(error) => {
                self.failed_bytes = bytes;
                self.shared.metrics.append_failures.inc();
                self.shared.failed(&error);
                calls.into_iter().for_each(|call| call.resolve(Err(error.clone())));
            }
        }
        rotated
    }

    fn make_room(&mut self) -> Result<bool> {
        let full = self.shared.held.lock().active().end >= self.shared.bounds.segment_bytes;
        if full || self.abandoned {
            self.rotate()?;
            return Ok(true);
        }
        Ok(false)
    }

    fn write_group(&mut self, calls: &[Call]) -> Result<Vec<Vec<Offset>>> {
        let mut group = self.lay_out(calls);
        let path = group.after.path.clone();
        if let Err(error) = group.write(&*self.file) {
            self.cut(group.start, false);
            return Err(Error::io("writing", path, error));
        }
        let timer = self.shared.metrics.sync_seconds.start_timer();
        let synced = self.file.sync();
        timer.observe_duration();
        self.shared.metrics.syncs.inc();
        if let Err(error) = synced {
            self.cut(group.start, true);
            return Err(Error::io("syncing", path, error));
        }
        let acknowledged = Acknowledged { segment: group.after.first_sequence, end: group.after.end };
        if let Err(error) = self.watermark.write(acknowledged) {
            self.cut(group.start, true);
            return Err(error);
        }
        self.shared.metrics.appended_records.inc_by(group.marks.len() as u64);
        self.shared.metrics.appended_bytes.inc_by(group.frame_bytes);
        Ok(self.publish(group))
    }

    /// Numbers the records of a group.
    fn lay_out<'a>(&self, calls: &'a [Call]) -> Group<'a> {
        let mut after = self.shared.held.lock().active().clone();
        let start = after.end;
        let appended_at = self.shared.clock.now().max(after.last_at);
        if after.is_empty() {
            after.first_at = appended_at;
        }
        after.last_at = appended_at;
        let records = calls.iter().map(|call| call.records.len()).sum();
        let mut group = Group {
            start,
            headers: Vec::with_capacity(records),
            frames: Vec::with_capacity(records),
            marks: Vec::with_capacity(records),
            offsets: Vec::with_capacity(calls.len()),
            appended_at,
            frame_bytes: 0,
            after,
        };
        for call in calls {
            let offsets = call
                .records
                .iter()
                .map(|record| group.push(record, self.directory.layout.slot(record.topic_partition)));
            let offsets = offsets.collect();
            group.offsets.push(offsets);
        }
        group
    }

    fn publish(&self, group: Group<'_>) -> Vec<Vec<Offset>> {
        let mut held = self.shared.held.lock();
        for (slot, mark) in group.marks {
            held.active_marks.push(slot, mark, group.appended_at);
        }
        *held.active_mut() = group.after;
        self.shared.note_held(&held);
        group.offsets
    }

    /// Takes what a failed group left behind off the segment's end; if that cannot be trusted, gives the segment up.
    fn cut(&mut self, end: u64, sync_failed: bool) {
        let cut = self.file.set_len(end);
        self.abandoned |= sync_failed || cut.is_err();
    }

    /// Begins a new segment, then seals the old one with its footer.
    fn rotate(&mut self) -> Result<()> {
        // If this fails half-way the new file may already count, and the old one must not grow behind its back.
        let given_up = std::mem::replace(&mut self.abandoned, true);
        let old = self.shared.held.lock().active().clone();
        let header = SegmentHeader {
            log_id: self.directory.log_id,
            first_sequence: old.next_sequence,
            // An empty segment is replaced by its successor of the same name.
            previous_end: if old.is_empty() { old.previous_end } else { old.end },
            created_at: self.shared.clock.now().max(old.last_at),
            partitions: self.directory.layout.0,
            base: old.next.clone(),
        };
        let path = self.directory.segment_path(header.first_sequence);
        let content = header.encode();
        let file = disk::replace_file(&*self.directory.disk, &path, &content);
        let file = file.map_err(|error| Error::io("beginning", &path, error))?;
        let old_file = std::mem::replace(&mut self.file, file);
        self.abandoned = false;
        let marks = self.publish_segment(&old, header, path, content.len() as u64);
        if !old.is_empty() && !given_up {
            match write_footer(&*old_file, old.end, &marks) {
                Ok(file_bytes) => self.set_file_bytes(old.first_sequence, file_bytes),
                Err(error) => tracing::debug!(path = %old.path.display(), %error, "footer not written"),
            }
        }
        Ok(())
    }

    fn publish_segment(&self, old: &Segment, header: SegmentHeader, path: std::path::PathBuf, end: u64) -> Arc<Marks> {
        let mut held = self.shared.held.lock();
        let marks = Marks::new(header.base.len(), header.created_at);
        let marks = Arc::new(std::mem::replace(&mut held.active_marks, marks));
        if old.is_empty() {
            held.segments.pop_back();
        } else {
            // Before readers see the segment as sealed, as its footer is not there yet.
            self.shared.cache.lock().put(old.first_sequence, marks.clone());
        }
        held.segments.push_back(Segment {
            path,
            first_sequence: header.first_sequence,
            next_sequence: header.first_sequence,
            previous_end: header.previous_end,
            end,
            file_bytes: end,
            first_at: header.created_at,
            last_at: header.created_at,
            next: header.base.clone(),
            base: header.base,
        });
        self.shared.note_held(&held);
        marks
    }

    fn set_file_bytes(&self, first_sequence: u64, file_bytes: u64) {
        let mut held = self.shared.held.lock();
        if let Some(segment) = held.segments.iter_mut().find(|segment| segment.first_sequence == first_sequence) {
            segment.file_bytes = file_bytes;
        }
        self.shared.note_held(&held);
    }

    fn maintain(&mut self, may_remove: bool) {
        if self.shared.failure.lock().is_some() && self.probe().is_ok() {
            self.shared.recovered();
        }
        let now = self.shared.clock.now();
        let is_over = {
            let held = self.shared.held.lock();
            let active = held.active();
            let is_read = || held.all_committed(active);
            !active.is_empty()
                && match self.shared.bounds.usage {
                    Usage::Log => now.since(active.first_at) > self.shared.bounds.retention_age,
                    Usage::Spool => is_read(),
                }
        };
        // A quiet log would otherwise keep its only segment for ever.
        if is_over && let Err(error) = self.rotate() {
            self.shared.failed(&error);
        }
        if may_remove {
            retention::remove_expired(&self.shared, &self.directory, now);
        }
        #[cfg(test)]
        self.shared.maintained.send_modify(|count| *count += 1);
    }

    /// Finds out whether a group like the last one would fit now.
    fn probe(&self) -> std::io::Result<()> {
        let path = self.directory.path.join(PROBE_FILE);
        let zeros = [0; 64 << 10];
        let bytes = self.failed_bytes.clamp(PROBE_BYTES_MIN, PROBE_BYTES_MAX);
        let file = self.directory.disk.create(&path)?;
        let outcome = (0..bytes.div_ceil(zeros.len() as u64))
            .try_for_each(|index| disk::write_all(&*file, &mut [IoSlice::new(&zeros)], index * zeros.len() as u64))
            .and_then(|()| file.sync());
        self.directory.disk.remove(&path)?;
        outcome
    }
}

impl<'a> Group<'a> {
    fn push(&mut self, record: &'a AppendRecord, slot: usize) -> Offset {
        let offset = Offset(self.after.next[slot]);
        let header = EntryHeader {
            frame_bytes: record.frame.len() as u32,
            topic_partition: record.topic_partition,
            group_start: self.start,
            sequence: self.after.next_sequence,
            offset,
            appended_at: self.appended_at,
        };
        self.headers.push(header.encode(&record.frame));
        self.frames.push(&record.frame);
        self.marks.push((slot, Mark { position: self.after.end, frame_bytes: header.frame_bytes }));
        self.frame_bytes += u64::from(header.frame_bytes);
        self.after.next[slot] += 1;
        self.after.next_sequence += 1;
        self.after.end += entry_bytes(&record.frame);
        self.after.file_bytes = self.after.end;
        offset
    }

    fn write(&mut self, file: &dyn DiskFile) -> std::io::Result<()> {
        let pairs = self.headers.iter().zip(&self.frames);
        let mut slices: Vec<IoSlice<'_>> =
            pairs.flat_map(|(header, frame)| [IoSlice::new(header), IoSlice::new(frame)]).collect();
        disk::write_all(file, &mut slices, self.start)
    }
}

/// However the thread ends, nobody waits for it in vain.
struct Stopped(Arc<Shared>);

impl Drop for Stopped {
    fn drop(&mut self) {
        self.0.queue.abort();
        self.0.stopped.send_replace(true);
    }
}
