//! Where spilled records are kept until they have been drained.

use std::path::Path;
use std::sync::Arc;

use events::{Offset, OffsetRange, Topic, TopicPartition};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use runtime::{ByteSize, Runtime, Telemetry};

use crate::embedded::EmbeddedLog;
use crate::embedded::notes::Notes;
use crate::{AppendRecord, Config, Error, FetchedRecord, LogReader, LogWriter, Result, WriterHealth};

/// Smallest part of the spill that is given back at once.
const SEGMENTS: u64 = 16;
const SEGMENT_BYTES_MIN: u64 = 64 << 10;
const NOTES_FILE: &str = "drained";

/// A durable queue of records per partition, with room for notes beside it.
pub trait Store: Send + Sync + 'static {
    /// As [`LogWriter::append`].
    fn append(&self, records: Vec<AppendRecord>) -> BoxFuture<'_, Result<Vec<Offset>>>;

    fn health(&self) -> WriterHealth;

    /// Records from `from` on that are there, together at most `bytes_max` but at least one.
    fn fetch(
        &self,
        topic_partition: TopicPartition,
        from: Offset,
        bytes_max: usize,
    ) -> BoxFuture<'_, Result<Vec<FetchedRecord>>>;

    fn range(&self, topic_partition: TopicPartition) -> OffsetRange;

    /// Lets go of what lies before `next`.
    fn release(&self, topic_partition: TopicPartition, next: Offset);

    /// Bytes that it takes.
    fn bytes(&self) -> u64;

    /// The last notes.
    fn notes(&self) -> Option<Vec<u8>>;

    /// Makes other notes durable, also when there is no more room for records.
    fn note(&self, notes: Vec<u8>) -> BoxFuture<'_, Result<()>>;

    /// Makes what was accepted durable and lets go of everything.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// The reader of an embedded log that drains it.
const READER: &str = "drain";

/// A store in local files.
pub struct LocalStore {
    log: Arc<EmbeddedLog>,
    notes: Arc<Mutex<Notes>>,
    noted: Mutex<Option<Vec<u8>>>,
}

impl LocalStore {
    /// Opens the store in `dir`, or makes one that takes at most about `bytes_max`. `log`: numbers of partitions and the bound
    /// on what is pending.
    ///
    /// # Errors
    /// As [`EmbeddedLog::open`].
    pub fn open(dir: &Path, bytes_max: ByteSize, log: &Config, runtime: &Runtime) -> Result<Self> {
        // Its metrics have the names of the log's, which are taken.
        let runtime = Runtime { telemetry: Telemetry::new(), ..runtime.clone() };
        Self::on(EmbeddedLog::open_spool(dir, &Self::config(bytes_max, log), &runtime)?, log)
    }

    pub(super) fn config(bytes_max: ByteSize, log: &Config) -> Config {
        let segment_bytes = (bytes_max.0 / SEGMENTS).clamp(SEGMENT_BYTES_MIN, Config::default().segment_bytes.0);
        Config { bytes_max, segment_bytes: ByteSize(segment_bytes), ..log.clone() }
    }

    pub(super) fn on(spool: Arc<EmbeddedLog>, log: &Config) -> Result<Self> {
        let partitions = log.events_partitions + log.contexts_partitions + log.dead_letters_partitions;
        let (notes, noted) = spool.notes(NOTES_FILE, super::progress::bytes(partitions as usize))?;
        Topic::ALL.into_iter().for_each(|topic| spool.register(READER, topic));
        Ok(Self { log: spool, notes: Arc::new(Mutex::new(notes)), noted: Mutex::new(noted) })
    }

    /// Bytes of appends that are not durable yet.
    pub fn pending_bytes(&self) -> u64 {
        self.log.pending_bytes()
    }
}

impl Store for LocalStore {
    fn append(&self, records: Vec<AppendRecord>) -> BoxFuture<'_, Result<Vec<Offset>>> {
        self.log.append(records)
    }

    fn health(&self) -> WriterHealth {
        self.log.health()
    }

    fn fetch(
        &self,
        topic_partition: TopicPartition,
        from: Offset,
        bytes_max: usize,
    ) -> BoxFuture<'_, Result<Vec<FetchedRecord>>> {
        self.log.fetch(topic_partition, from, bytes_max, std::time::Duration::ZERO)
    }

    fn range(&self, topic_partition: TopicPartition) -> OffsetRange {
        self.log.range(topic_partition)
    }

    fn release(&self, topic_partition: TopicPartition, next: Offset) {
        self.log.commit(READER, topic_partition, next);
    }

    fn bytes(&self) -> u64 {
        self.log.bytes()
    }

    fn notes(&self) -> Option<Vec<u8>> {
        self.noted.lock().clone()
    }

    fn note(&self, content: Vec<u8>) -> BoxFuture<'_, Result<()>> {
        let notes = self.notes.clone();
        Box::pin(async move {
            let written = tokio::task::spawn_blocking(move || notes.lock().write(&content)).await;
            written.unwrap_or(Err(Error::Closed))
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.log.close())
    }
}
