//! What is known of the brokers and the topics, shared by writer, readers and the watch.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use events::{Offset, Topic, TopicId, TopicPartition};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::names::Names;
use crate::{Error, Result};

pub(super) struct State {
    pub names: Names,
    pub partitions: [u32; 3],
    pub topic_ids: [TopicId; 3],
    /// Why the brokers would not take records now, as the watch saw it last.
    unavailable: Mutex<Option<String>>,
    is_reachable: AtomicBool,
    /// Why a topic is read no more.
    lost: Mutex<[Option<Error>; 3]>,
    /// Told when a topic is lost.
    pub changed: Notify,
    /// One past the last record of each partition that anybody here was told of: by an acknowledgement, or by the brokers.
    ends: [Vec<AtomicI64>; 3],
}

impl State {
    pub fn new(names: Names, partitions: [u32; 3], topic_ids: [TopicId; 3]) -> Self {
        let ends = partitions.map(|count| (0..count).map(|_| AtomicI64::new(0)).collect());
        Self {
            names,
            partitions,
            topic_ids,
            unavailable: Mutex::default(),
            is_reachable: AtomicBool::new(true),
            lost: Mutex::default(),
            changed: Notify::new(),
            ends,
        }
    }

    /// Panics if there is no such partition, which is the caller's mistake.
    pub fn assert_known(&self, topic_partition: TopicPartition) {
        let count = self.partitions[topic_partition.topic as usize];
        assert!(
            topic_partition.partition.0 < count,
            "{topic_partition} does not exist, the topic has {count} partitions"
        );
    }

    pub fn topic_partitions(&self) -> impl Iterator<Item = TopicPartition> {
        let of = |topic| (0..self.partitions[topic as usize]).map(move |number| TopicPartition::new(topic, number));
        Topic::ALL.into_iter().flat_map(of)
    }

    pub fn unavailable(&self) -> Option<String> {
        self.unavailable.lock().clone()
    }

    pub fn is_reachable(&self) -> bool {
        self.is_reachable.load(Ordering::Relaxed)
    }

    /// Returns whether this is a change.
    pub fn set_unavailable(&self, why: Option<String>, is_reachable: bool) -> bool {
        self.is_reachable.store(is_reachable, Ordering::Relaxed);
        let before = std::mem::replace(&mut *self.unavailable.lock(), why.clone());
        before.is_some() != why.is_some()
    }

    /// # Errors
    /// Why the topic is read no more.
    pub fn check(&self, topic: Topic) -> Result<()> {
        self.lost.lock()[topic as usize].clone().map_or(Ok(()), Err)
    }

    pub fn lose(&self, topic: Topic, why: Error) {
        self.lost.lock()[topic as usize] = Some(why);
        self.changed.notify_waiters();
    }

    pub fn end(&self, topic_partition: TopicPartition) -> Offset {
        Offset(self.slot(topic_partition).load(Ordering::Acquire))
    }

    /// The log was seen to reach `end`.
    pub fn saw_end(&self, topic_partition: TopicPartition, end: Offset) {
        self.slot(topic_partition).fetch_max(end.0, Ordering::AcqRel);
    }

    fn slot(&self, topic_partition: TopicPartition) -> &AtomicI64 {
        &self.ends[topic_partition.topic as usize][topic_partition.partition.0 as usize]
    }
}
