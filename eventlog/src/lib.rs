//! The log between ingest and everything after it.
//!
//! Three topics (`events`, `contexts`, `dead_letters`), each with a fixed number of partitions. A record is one
//! micro-batch in the wire format of [`frame`]; the log itself never looks inside.
//!
//! The durability promise: when [`LogWriter::append`] resolves with offsets, every record of that call survives the
//! death of the process and the loss of power (embedded: covered by an fsync; Kafka: `acks=all`). If it resolves with
//! an error, each record may or may not be in the log; the caller has not promised anything to anybody yet.
//!
//! Readers ask by offset and never miss or reorder records of a partition. Retention never passes a registered reader
//! that has not committed. Where a reader starts is the reader's business: it keeps its offset beside its result.

#![cfg_attr(test, allow(clippy::unwrap_used))]

use bytes::Bytes;
use events::{Offset, OffsetRange, Topic, TopicId, TopicPartition};
use futures::future::BoxFuture;
use runtime::UnixMicros;

pub mod assignment;
pub mod config;
#[cfg(test)]
mod contract;
pub mod embedded;
pub mod error;
pub mod frame;
pub mod kafka;
pub mod lock;
pub mod memory;
pub mod metrics;
pub mod spill;
pub mod traced;
pub mod traceparent;

pub use assignment::{Assigner, Assignment};
pub use config::Config;
pub use error::{Error, Result};
pub use traced::{RecordId, TracedLog};
pub use traceparent::TraceParent;

use std::time::Duration;

/// One record to append. `frame` comes from [`frame::RecordWriter`] or [`frame::encode`].
#[derive(Clone, Debug)]
pub struct AppendRecord {
    pub topic_partition: TopicPartition,
    /// Whose request this is for, if that is traced.
    pub trace: Option<TraceParent>,
    pub frame: Bytes,
}

impl AppendRecord {
    pub fn new(topic_partition: TopicPartition, frame: Bytes) -> Self {
        Self { topic_partition, trace: None, frame }
    }
}

/// One record read.
#[derive(Clone, Debug)]
pub struct FetchedRecord {
    pub offset: Offset,
    /// When the log took it, or who kept it for the log.
    pub appended_at: UnixMicros,
    /// Name of the record, if its writer gave it one and the log keeps names.
    pub id: Option<RecordId>,
    /// Whose request it was for, if that was traced and the log keeps this.
    pub trace: Option<TraceParent>,
    pub frame: Bytes,
}

impl FetchedRecord {
    /// Tells who follows a trace that `reader` has the record. One line under the target `tidegate::record`, at level debug.
    pub fn tell(&self, reader: &str, topic_partition: TopicPartition) {
        if let Some(trace) = self.trace {
            let (partition, offset) = (topic_partition.partition.0, self.offset.0);
            tracing::debug!(target: "tidegate::record", reader, topic = %topic_partition.topic, partition, offset, %trace, "record read");
        }
    }
}

/// What a log says of its ability to take records now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriterHealth {
    /// An append would be accepted now.
    Ready,
    /// Appends fail for now; the text says why (disk full, broker away).
    Unavailable(String),
}

/// The writing side. Used by ingest alone.
pub trait LogWriter: Send + Sync {
    /// Appends records, of any topics and partitions, and resolves when all of them are durable.
    ///
    /// Returns their offsets in the order given; [`Offset::UNKNOWN`] for a record that is durable at a place that the log did
    /// not tell. Several calls may be under way at once; records of one call keep their order within a partition, records
    /// of concurrent calls have none.
    ///
    /// # Errors
    /// `Full`, `Backlogged` (kind `Overloaded`): nothing was written; others of kind `Retry`: nothing was promised, and it
    /// may have been written; `RecordTooLarge` (kind `Reject`).
    fn append(&self, records: Vec<AppendRecord>) -> BoxFuture<'_, Result<Vec<Offset>>>;

    /// Resolves when everything that was acknowledged before can be read.
    fn settled(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    /// How many partitions `topic` has; fixed for the life of the log.
    fn partitions(&self, topic: Topic) -> u32;

    fn health(&self) -> WriterHealth;
}

/// The reading side. Used by compactor and indexer.
pub trait LogReader: Send + Sync {
    fn partitions(&self, topic: Topic) -> u32;

    /// Identity of the topic: a recreated topic has another one.
    fn topic_id(&self, topic: Topic) -> TopicId;

    /// Records from `from` on, in order, together at most `bytes_max` (but at least one record if there is one).
    /// Waits up to `wait_max` for the first; an empty answer means that none came.
    ///
    /// # Errors
    /// `OffsetOutOfRange` (kind `Fatal`) if `from` is older than what is retained or lies past the end of the log;
    /// `Corrupt` with file and byte position.
    fn fetch(
        &self,
        topic_partition: TopicPartition,
        from: Offset,
        bytes_max: usize,
        wait_max: Duration,
    ) -> BoxFuture<'_, Result<Vec<FetchedRecord>>>;

    /// The retained range: from the earliest record to one past the last durable one.
    fn bounds(&self, topic_partition: TopicPartition) -> BoxFuture<'_, Result<OffsetRange>>;

    /// The first retained offset whose record was appended at or after `time`; the end of the log if there is none.
    fn offset_at(&self, topic_partition: TopicPartition, time: UnixMicros) -> BoxFuture<'_, Result<Offset>>;

    /// Makes retention wait for `reader` on every partition of `topic`, from the earliest record on. Kafka's does not wait.
    fn register(&self, reader: &'static str, topic: Topic);

    /// Tells retention that `reader` will not ask for records before `next` again. Never goes back.
    fn commit(&self, reader: &'static str, topic_partition: TopicPartition, next: Offset);
}
