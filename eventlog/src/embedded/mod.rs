//! A log in local files: one interleaved stream of all partitions, so that one fsync covers a whole group of appends.
//!
//! `append` puts a call into the [`queue`]; the [`writer`] thread takes all that wait, writes them to the active
//! [`segment`], syncs, notes the [`watermark`], publishes them in [`held`] and answers. Readers find places by
//! [`marks`] and [`read`] files with pread; no copy of the log is kept in memory. [`recovery`] brings a directory back
//! after any end; [`retention`] removes what is no longer needed; [`directory`] says which files there are and who owns
//! them; [`disk`] is the seam for faults; [`notes`] keeps what whoever reads it has to remember.
//!
//! # Why not raft-engine
//! raft-engine 0.4.2 was the first choice (a fast, proven log). Read against what this log promises:
//! - fsync that fails: `LogFileWriter::sync` unwraps, `Engine::write` has `.expect("pipe::sync()")`, `sync_dir`
//!   unwraps: the process dies. Here a full or failing disk must be an error to the caller, and then work again.
//! - ENOSPC on write: `SinglePipe::append` truncates and rotates, which needs room for a new file and passes through
//!   the same panicking sync; preallocation (`allocate`) that failed still counts as capacity.
//! - Damage: with `TolerateTailCorruption`, the default, everything from the first unreadable batch of the last file
//!   on is truncated, acknowledged or not (`recover_queue_imp`), with a log line; `AbsoluteConsistency` refuses torn
//!   tails too. There is no mark of what was acknowledged, so the two cannot be told apart. A gap between files drops
//!   all files before it. Errors name file number and offset only in the log text.
//! - Memory: an index entry per record for the whole log (`memtable`), and a second queue that rewrites live records,
//!   for a use (many small raft groups) that is not ours.
//!
//! # Measured
//! `tests::measure`, dev profile at opt-level 1, ext4, 2 cores that others kept at load 7: 8 callers of 4 KiB 5,800
//! appends/s (24 MB/s, 820 syncs/s), 8 of 64 KiB 1,300 appends/s (87 MB/s, 230 syncs/s), 8 of 256 KiB 184 MB/s; a sync
//! covers 6 to 8 of 8 callers and 40 of 64. Open with 1 GiB: 0.02 s.
//!
//! Fsync after each write on ext4, 2-core machine: 64 KiB appended 394 us, into a preallocated file 370 us, over
//! written zeros 277 us; 256 KiB 484/533/439 us; 1 MiB 1.35/1.14/1.25 ms. Preallocation (fallocate) gains nothing that
//! repeats, and writing zeros first doubles what the disk writes, so segments simply grow.

mod directory;
mod disk;
mod held;
mod marks;
pub(crate) mod notes;
mod queue;
mod read;
mod recovery;
mod retention;
mod segment;
mod walk;
mod watermark;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use events::{Offset, OffsetRange, Topic, TopicId, TopicPartition};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use runtime::{Clock, Runtime, UnixMicros};
use tokio::sync::{Notify, watch};

use self::directory::{Directory, Layout};
use self::disk::{Disk, LocalDisk};
use self::held::Held;
use self::marks::MarksCache;
use self::notes::Notes;
use self::queue::Queue;
use self::writer::Writer;
use crate::metrics::Metrics;
use crate::{AppendRecord, Config, Error, FetchedRecord, LogReader, LogWriter, Result, WriterHealth};

/// A log in a directory of its own. See the module for how it works and the traits for what it promises.
pub struct EmbeddedLog {
    shared: Arc<Shared>,
    topic_ids: [TopicId; 3],
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What callers and the writer thread share.
struct Shared {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    layout: Layout,
    log_id: segment::LogId,
    clock: Clock,
    bounds: Bounds,
    metrics: Metrics,
    queue: Queue,
    held: Mutex<Held>,
    held_bytes: AtomicU64,
    cache: Mutex<MarksCache>,
    appended: Notify,
    /// Why the last attempt to append failed, until one succeeds or there is room again.
    failure: Mutex<Option<String>>,
    stopped: watch::Sender<bool>,
    #[cfg(test)]
    maintained: watch::Sender<u64>,
}

struct Bounds {
    segment_bytes: u64,
    retention_bytes: u64,
    retention_age: Duration,
    bytes_max: u64,
    usage: Usage,
}

/// What the log is used for, which says what is kept beside what a reader still needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Usage {
    /// Also what the de-duplication window is rebuilt from, and what there is room for.
    Log,
    /// Nothing: what all have read goes.
    Spool,
}

impl EmbeddedLog {
    /// Opens the log in `dir`, or makes one, and starts its writer thread.
    ///
    /// Readers must register within half a minute from here: until then retention removes nothing.
    ///
    /// # Errors
    /// `Refused`: another process has the directory, it is of a newer version or half-written, or the configured
    /// numbers of partitions are not its own. `Corrupt`: acknowledged records are damaged; names file and position.
    pub fn open(dir: &Path, config: &Config, runtime: &Runtime) -> Result<Arc<Self>> {
        Self::open_on(Arc::new(LocalDisk), dir, config, Usage::Log, runtime)
    }

    /// As [`Self::open`], for records that are kept until they have been read, and no longer.
    ///
    /// # Errors
    /// As `open`.
    pub(crate) fn open_spool(dir: &Path, config: &Config, runtime: &Runtime) -> Result<Arc<Self>> {
        Self::open_on(Arc::new(LocalDisk), dir, config, Usage::Spool, runtime)
    }

    fn open_on(disk: Arc<dyn Disk>, dir: &Path, config: &Config, usage: Usage, runtime: &Runtime) -> Result<Arc<Self>> {
        let directory = Directory::open(dir, disk.clone(), config, runtime)?;
        let recovered = recovery::recover(&directory)?;
        let topic_ids = Topic::ALL.map(|topic| directory.topic_id(topic));
        let held = Held::new(directory.layout, recovered.segments, recovered.active_marks);
        let shared = Arc::new(Shared {
            disk,
            path: dir.into(),
            layout: directory.layout,
            log_id: directory.log_id,
            clock: runtime.clock.clone(),
            bounds: Bounds {
                segment_bytes: config.segment_bytes.0,
                retention_bytes: config.retention_bytes.0,
                retention_age: config.retention_age.get(),
                bytes_max: config.bytes_max.0,
                usage,
            },
            metrics: Metrics::new(&runtime.telemetry),
            queue: Queue::new(config.pending_bytes_max.0),
            held: Mutex::new(held),
            held_bytes: AtomicU64::new(0),
            cache: Mutex::default(),
            appended: Notify::new(),
            failure: Mutex::default(),
            stopped: watch::Sender::new(false),
            #[cfg(test)]
            maintained: watch::Sender::new(0),
        });
        shared.note_held(&shared.held.lock());
        let writer = Writer {
            shared: shared.clone(),
            directory,
            watermark: recovered.watermark,
            file: recovered.active_file,
            abandoned: false,
            failed_bytes: 0,
        };
        let thread = std::thread::Builder::new().name("log-writer".into()).spawn(move || writer.run());
        let thread = thread.map_err(|error| Error::io("starting the writer of", dir, error))?;
        Ok(Arc::new(Self { shared, topic_ids, thread: Mutex::new(Some(thread)) }))
    }

    /// Refuses further appends, makes those accepted durable and lets go of the directory. Reading goes on.
    pub async fn close(&self) {
        self.shared.queue.close();
        // An error means that the sender is gone, and it lives as long as we do.
        let _ = self.shared.stopped.subscribe().wait_for(|stopped| *stopped).await;
        self.join();
    }

    /// Bytes of segment files on disk.
    pub fn bytes(&self) -> u64 {
        self.shared.held_bytes.load(Ordering::Relaxed)
    }

    /// Bytes of appends that are not durable yet.
    pub fn pending_bytes(&self) -> u64 {
        self.shared.queue.pending_bytes()
    }

    /// A file of notes in the log's directory, and what it says.
    ///
    /// # Errors
    /// `Corrupt` if nobody can tell what it said.
    pub(crate) fn notes(&self, name: &str, content_bytes_max: usize) -> Result<(Notes, Option<Vec<u8>>)> {
        Notes::open(&*self.shared.disk, self.shared.path.join(name), content_bytes_max)
    }

    /// The retained range of every partition.
    pub fn ranges(&self) -> Vec<(TopicPartition, OffsetRange)> {
        let held = self.shared.held.lock();
        let topic_partitions = self.shared.layout.topic_partitions();
        topic_partitions
            .map(|topic_partition| (topic_partition, held.range(self.shared.layout.slot(topic_partition))))
            .collect()
    }

    pub(crate) fn range(&self, topic_partition: TopicPartition) -> OffsetRange {
        self.shared.held.lock().range(self.shared.layout.slot(topic_partition))
    }

    fn join(&self) {
        if let Some(thread) = self.thread.lock().take() {
            // If it panicked, that was reported when it happened.
            let _ = thread.join();
        }
    }

    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Shared) -> Result<T> + Send + 'static) -> Result<T> {
        let shared = self.shared.clone();
        let outcome = tokio::task::spawn_blocking(move || work(&shared)).await;
        outcome.unwrap_or(Err(Error::Closed))
    }
}

impl Drop for EmbeddedLog {
    fn drop(&mut self) {
        self.shared.queue.close();
        self.join();
    }
}

impl Shared {
    fn note_held(&self, held: &Held) {
        let bytes = held.bytes();
        self.held_bytes.store(bytes, Ordering::Relaxed);
        self.metrics.held_bytes.set(bytes as i64);
        self.metrics.segments.set(held.segments.len() as i64);
    }

    fn failed(&self, error: &Error) {
        if self.failure.lock().replace(error.to_string()).is_none() {
            tracing::error!(%error, "the log takes no records until this is over");
        }
    }

    fn recovered(&self) {
        if self.failure.lock().take().is_some() {
            tracing::info!("the log takes records again");
        }
    }
}

impl LogWriter for EmbeddedLog {
    fn append(&self, records: Vec<AppendRecord>) -> BoxFuture<'_, Result<Vec<Offset>>> {
        Box::pin(async move {
            if records.is_empty() {
                return Ok(Vec::new());
            }
            // An unknown partition is the caller's mistake and stops the caller, not the writer thread.
            for record in &records {
                self.shared.layout.slot(record.topic_partition);
            }
            let outcome = self.shared.queue.push(records, self.bytes(), self.shared.bounds.bytes_max)?;
            outcome.await.unwrap_or(Err(Error::Closed))
        })
    }

    fn partitions(&self, topic: Topic) -> u32 {
        self.shared.layout.0[topic as usize]
    }

    fn health(&self) -> WriterHealth {
        let max_bytes = self.shared.bounds.bytes_max;
        let held_bytes = self.bytes() + self.pending_bytes();
        if self.shared.queue.is_closed() {
            WriterHealth::Unavailable(Error::Closed.to_string())
        } else if let Some(failure) = self.shared.failure.lock().clone() {
            WriterHealth::Unavailable(failure)
        } else if held_bytes >= max_bytes {
            WriterHealth::Unavailable(Error::Full { held_bytes, max_bytes }.to_string())
        } else {
            WriterHealth::Ready
        }
    }
}

impl LogReader for EmbeddedLog {
    fn partitions(&self, topic: Topic) -> u32 {
        self.shared.layout.0[topic as usize]
    }

    fn topic_id(&self, topic: Topic) -> TopicId {
        self.topic_ids[topic as usize].clone()
    }

    fn fetch(
        &self,
        topic_partition: TopicPartition,
        from: Offset,
        bytes_max: usize,
        wait_max: Duration,
    ) -> BoxFuture<'_, Result<Vec<FetchedRecord>>> {
        Box::pin(async move {
            let deadline = self.shared.clock.instant() + wait_max;
            loop {
                let appended = self.shared.appended.notified();
                tokio::pin!(appended);
                appended.as_mut().enable();
                if let Some(plan) = self.shared.plan(topic_partition, from, bytes_max)? {
                    return self.blocking(move |shared| shared.read(&plan)).await;
                }
                if tokio::time::timeout_at(deadline, appended).await.is_err() {
                    return Ok(Vec::new());
                }
            }
        })
    }

    fn bounds(&self, topic_partition: TopicPartition) -> BoxFuture<'_, Result<OffsetRange>> {
        let range = self.range(topic_partition);
        Box::pin(async move { Ok(range) })
    }

    fn offset_at(&self, topic_partition: TopicPartition, time: UnixMicros) -> BoxFuture<'_, Result<Offset>> {
        Box::pin(self.blocking(move |shared| shared.first_at(topic_partition, time)))
    }

    fn register(&self, reader: &'static str, topic: Topic) {
        let count = self.shared.layout.0[topic as usize];
        let topic_partitions = (0..count).map(|partition| TopicPartition::new(topic, partition));
        self.shared.held.lock().register(reader, topic_partitions);
    }

    fn commit(&self, reader: &'static str, topic_partition: TopicPartition, next: Offset) {
        self.shared.held.lock().commit(reader, topic_partition, next);
    }
}

/// Bytes that a frame takes in a segment.
fn entry_bytes(frame: &Bytes) -> u64 {
    (segment::ENTRY_HEADER_BYTES + frame.len()) as u64
}

#[cfg(test)]
pub(crate) mod tests;
