//! A spilled record: the record, with what has to be known to bring it into the log exactly once.
//!
//! It is the frame of a record in the store. Little-endian, version 1, or 2 if it has a trace:
//!
//! | field | bytes | meaning |
//! |---|---|---|
//! | magic | 4 | `TGSP` |
//! | version | 2 | 1 or 2 |
//! | flags | 2 | 1: it had been handed to the log when it was spilled, and may be there |
//! | id | 16 | [`RecordId`], the same in the log |
//! | from | 8 | if it may be there: where in its partition to look for it; 0: by time |
//! | topic | 4 | [`topic_mark`] of the topic that `from` was meant for; in another one it means nothing |
//! | trace | 25 | in version 2 only: [`TraceParent`] |
//! | frame | rest | of the record |

use bytes::{BufMut, Bytes, BytesMut};
use events::{Offset, TopicId, TopicPartition};
use runtime::UnixMicros;

use crate::traced::TracedRecord;
use crate::{AppendRecord, FetchedRecord, RecordId, TraceParent};

const MAGIC: [u8; 4] = *b"TGSP";
const VERSION: u16 = 1;
const VERSION_TRACED: u16 = 2;
const HEADER_BYTES: usize = 36;
const MAY_BE_THERE: u16 = 1;

/// What is kept of a record beside its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label {
    pub id: RecordId,
    /// Set if the record may be in the log, at this place or later.
    pub from: Option<Offset>,
}

/// Tells a topic from one that was made anew under its name.
pub(super) fn topic_mark(id: &TopicId) -> u32 {
    crc32c::crc32c(id.0.as_bytes())
}

/// Puts a label before a record.
pub(super) fn encode(record: &AppendRecord, label: Label, topic_mark: u32) -> AppendRecord {
    let mut frame = BytesMut::with_capacity(HEADER_BYTES + TraceParent::BYTES + record.frame.len());
    frame.put_slice(&MAGIC);
    frame.put_u16_le(if record.trace.is_some() { VERSION_TRACED } else { VERSION });
    frame.put_u16_le(if label.from.is_some() { MAY_BE_THERE } else { 0 });
    frame.put_slice(&label.id.0);
    frame.put_i64_le(label.from.map_or(0, |from| from.0));
    frame.put_u32_le(topic_mark);
    if let Some(trace) = record.trace {
        frame.put_slice(&trace.to_bytes());
    }
    frame.put_slice(&record.frame);
    AppendRecord::new(record.topic_partition, frame.freeze())
}

/// A record read from the store.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Its place in the store.
    pub offset: Offset,
    pub label: Label,
    pub taken_at: UnixMicros,
    trace: Option<TraceParent>,
    frame: Bytes,
}

impl Entry {
    /// None if it is not one of ours. `topic_mark`: of the topic as it is now.
    pub fn decode(fetched: &FetchedRecord, topic_mark: u32) -> Option<Self> {
        let (header, rest) = fetched.frame.split_first_chunk::<HEADER_BYTES>()?;
        let number = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        if header[..4] != MAGIC {
            return None;
        }
        let trace = match number(4) {
            VERSION => None,
            VERSION_TRACED => Some(TraceParent::from_bytes(rest.first_chunk()?)),
            _ => return None,
        };
        let (mut id, mut from) = ([0; 16], [0; 8]);
        id.copy_from_slice(&header[8..24]);
        from.copy_from_slice(&header[24..32]);
        let place = if header[32..] == topic_mark.to_le_bytes() { i64::from_le_bytes(from) } else { 0 };
        let from = (number(6) & MAY_BE_THERE != 0).then_some(Offset(place));
        Some(Self {
            offset: fetched.offset,
            label: Label { id: RecordId(id), from },
            taken_at: fetched.appended_at,
            frame: fetched.frame.slice(HEADER_BYTES + trace.map_or(0, |_| TraceParent::BYTES)..),
            trace,
        })
    }

    pub fn traced(&self, topic_partition: TopicPartition) -> TracedRecord {
        let record = AppendRecord { topic_partition, trace: self.trace, frame: self.frame.clone() };
        TracedRecord { id: self.label.id, taken_at: Some(self.taken_at), record }
    }
}

#[cfg(test)]
mod tests {
    use events::Topic;

    use super::*;

    #[test]
    fn label_and_frame_read_back() {
        let topic_partition = TopicPartition::new(Topic::Contexts, 3);
        let parent = TraceParent::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        for (from, trace) in [(None, None), (Some(Offset(0)), parent), (Some(Offset(1 << 40)), None)] {
            let label = Label { id: RecordId([9; 16]), from };
            let record = AppendRecord { topic_partition, trace, frame: Bytes::from_static(b"frame") };
            let frame = encode(&record, label, 6).frame;
            let fetched = FetchedRecord { offset: Offset(4), appended_at: UnixMicros(5), id: None, trace: None, frame };
            let entry = Entry::decode(&fetched, 6).unwrap();
            assert_eq!((entry.label, entry.offset), (label, Offset(4)));
            let read = entry.traced(topic_partition).record;
            assert_eq!((&read.frame[..], read.trace), (&b"frame"[..], trace));
            let other = FetchedRecord { frame: fetched.frame.slice(1..), ..fetched.clone() };
            assert!(Entry::decode(&other, 6).is_none());
            let elsewhere = Entry::decode(&fetched, 7).unwrap().label;
            assert_eq!(elsewhere.from, from.map(|_| Offset(0)));
        }
    }
}
