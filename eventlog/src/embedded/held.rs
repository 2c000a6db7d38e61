//! What the log holds, as readers may see it: only what is durable.
//!
//! The writer thread is the only one to change segments; readers take what they need under the lock and read files
//! without it.

use std::collections::VecDeque;
use std::path::PathBuf;

use events::{Offset, OffsetRange, TopicPartition};
use runtime::UnixMicros;

use super::directory::Layout;
use super::marks::Marks;

/// One segment file. Everything before `end` is durable.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub path: PathBuf,
    pub first_sequence: u64,
    pub next_sequence: u64,
    /// Where the entries of the segment before this one end.
    pub previous_end: u64,
    pub end: u64,
    pub file_bytes: u64,
    pub first_at: UnixMicros,
    pub last_at: UnixMicros,
    /// First offset per slot.
    pub base: Box<[i64]>,
    /// One past the last offset per slot.
    pub next: Box<[i64]>,
}

impl Segment {
    pub fn is_empty(&self) -> bool {
        self.first_sequence == self.next_sequence
    }
}

/// How far a reader has got in one partition.
struct Reader {
    name: &'static str,
    slot: usize,
    next: i64,
}

pub(super) struct Held {
    layout: Layout,
    /// Oldest first. The last one is being written.
    pub segments: VecDeque<Segment>,
    /// Marks of the last segment.
    pub active_marks: Marks,
    readers: Vec<Reader>,
}

impl Held {
    pub fn new(layout: Layout, segments: VecDeque<Segment>, active_marks: Marks) -> Self {
        Self { layout, segments, active_marks, readers: Vec::new() }
    }

    pub fn active(&self) -> &Segment {
        self.segments.back().expect("a log has at least one segment")
    }

    pub fn active_mut(&mut self) -> &mut Segment {
        self.segments.back_mut().expect("a log has at least one segment")
    }

    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.file_bytes).sum()
    }

    pub fn range(&self, slot: usize) -> OffsetRange {
        let first = self.segments.front().expect("a log has at least one segment").base[slot];
        OffsetRange::new(Offset(first), Offset(self.active().next[slot]))
    }

    /// The segment that holds an offset of the retained range of a slot.
    pub fn segment_of(&self, slot: usize, offset: Offset) -> &Segment {
        &self.segments[self.segments.partition_point(|segment| segment.next[slot] <= offset.0)]
    }

    pub fn register(&mut self, name: &'static str, topic_partitions: impl Iterator<Item = TopicPartition>) {
        for topic_partition in topic_partitions {
            let slot = self.layout.slot(topic_partition);
            if self.reader(name, slot).is_none() {
                let next = self.range(slot).start.0;
                self.readers.push(Reader { name, slot, next });
            }
        }
    }

    /// Notes a commit; of a reader that did not register, too.
    pub fn commit(&mut self, name: &'static str, topic_partition: TopicPartition, next: Offset) {
        self.register(name, std::iter::once(topic_partition));
        let slot = self.layout.slot(topic_partition);
        if let Some(reader) = self.reader(name, slot) {
            reader.next = reader.next.max(next.0);
        }
    }

    fn reader(&mut self, name: &'static str, slot: usize) -> Option<&mut Reader> {
        self.readers.iter_mut().find(|reader| reader.name == name && reader.slot == slot)
    }

    /// True if every record of the segment has a reader and all its readers have committed past it.
    ///
    /// Records that nobody registered for are kept: their reader may be switched off or still on its way.
    pub fn all_committed(&self, segment: &Segment) -> bool {
        (0..self.layout.slots()).filter(|slot| segment.next[*slot] > segment.base[*slot]).all(|slot| {
            let mut readers = self.readers.iter().filter(|reader| reader.slot == slot).peekable();
            readers.peek().is_some() && readers.all(|reader| reader.next >= segment.next[slot])
        })
    }
}
