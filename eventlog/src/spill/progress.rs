//! How far each partition of the spill has been drained, as it survives the process.
//!
//! Noted before anything beyond `handed` is handed to the log: after a crash, what lies from `drained` to `handed` may be
//! in the log, and what lies beyond was never sent from here. An older note than the truth is harmless, it only makes more
//! records be looked for. Little-endian, version 1:
//!
//! | field | bytes | meaning |
//! |---|---|---|
//! | version | 4 | 1 |
//! | topics | 3 times 4 | `topic_mark` of each |
//! | partitions | 24 each | `drained`, `handed`, `from`, in the order of topics and partitions |

use std::collections::BTreeMap;

use events::{Offset, TopicPartition};

const VERSION: u32 = 1;
const HEADER_BYTES: usize = 16;
const LANE_BYTES: usize = 24;

/// One partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Lane {
    /// Everything before it, in the store, is in the log.
    pub drained: Offset,
    /// Nothing from here on was ever sent from the store.
    pub handed: Offset,
    /// Where in the log's partition to look for what lies between; 0: by time.
    pub from: Offset,
}

/// Bytes of the notes of so many partitions.
pub(super) fn bytes(partitions: usize) -> usize {
    HEADER_BYTES + LANE_BYTES * partitions
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    topics: [u32; 3],
    pub lanes: BTreeMap<TopicPartition, Lane>,
}

impl Progress {
    pub fn new(topics: [u32; 3], topic_partitions: impl Iterator<Item = TopicPartition>) -> Self {
        Self { topics, lanes: topic_partitions.map(|place| (place, Lane::default())).collect() }
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes(self.lanes.len()));
        out.extend_from_slice(&VERSION.to_le_bytes());
        self.topics.iter().for_each(|topic| out.extend_from_slice(&topic.to_le_bytes()));
        for lane in self.lanes.values() {
            [lane.drained, lane.handed, lane.from]
                .iter()
                .for_each(|place| out.extend_from_slice(&place.0.to_le_bytes()));
        }
        out
    }

    /// Takes up what was noted. In a topic that was made anew no place means anything: there it is looked for by time.
    ///
    /// Returns false if the notes are of another shape.
    pub fn take_up(&mut self, noted: &[u8]) -> bool {
        let number = |at: usize| noted.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes);
        if noted.len() != bytes(self.lanes.len()) || number(0) != Some(VERSION) {
            return false;
        }
        let place =
            |at: usize| noted[at..at + 8].try_into().map_or(Offset(0), |bytes| Offset(i64::from_le_bytes(bytes)));
        for ((topic_partition, lane), at) in self.lanes.iter_mut().zip((HEADER_BYTES..).step_by(LANE_BYTES)) {
            let topic = topic_partition.topic as usize;
            let is_same = number(4 + 4 * topic) == Some(self.topics[topic]);
            let from = if is_same { place(at + 16) } else { Offset(0) };
            *lane = Lane { drained: place(at), handed: place(at + 8), from };
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use events::Topic;

    use super::*;

    fn progress(topics: [u32; 3]) -> Progress {
        Progress::new(topics, (0..3).map(|number| TopicPartition::new(Topic::Events, number)))
    }

    #[test]
    fn notes_read_back_and_places_of_another_topic_do_not_count() {
        let mut noted = progress([1; 3]);
        for (number, lane) in noted.lanes.values_mut().enumerate() {
            *lane = Lane { drained: Offset(number as i64), handed: Offset(20), from: Offset(30) };
        }
        let bytes = noted.encode();
        let mut same = progress([1; 3]);
        assert!(same.take_up(&bytes) && same == noted);
        let mut other = progress([2; 3]);
        assert!(other.take_up(&bytes));
        assert!(other.lanes.values().all(|lane| lane.handed == Offset(20) && lane.from == Offset(0)));
        assert!(!other.take_up(&bytes[1..]));
    }
}
