//! One shard at work: log -> fold -> index, its lag, and its recovery.
//!
//! In: records of one `contexts` partition. Out: commits of its index, and the offset up to which the log may forget.
//! Promise: reading starts where the index itself says it stopped, so that a crash between any two steps repeats rows
//! but skips none, and repeated rows fold to the same state. A shard whose directory is gone, foreign or damaged begins
//! anew from the start of the log; nothing else in the process notices but searches, which lack its contexts meanwhile.
//! Seam: a snapshot would be fetched in `open_shard` before an empty directory is filled from the log.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use eventlog::{FetchedRecord, LogReader, frame};
use events::{Environment, LogBatch, Offset, Topic, TopicPartition};
use hashbrown::HashMap;
use parking_lot::{Mutex, RwLock};
use runtime::{Runtime, Shutdown, UnixMicros};
use tokio::sync::Notify;
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

use crate::config::{Config, ShardBudget};
use crate::fold::{Seen, SeenLately, Sighting, fold};
use crate::index::{self, FORMAT, OpenedShard, Position, ShardReader, ShardWriter};
use crate::metrics::Metrics;
use crate::record::ContextRecord;
use crate::terms::EnvironmentPrefix;
use crate::{Error, Result};

/// Name under which the log knows this reader.
pub const READER: &str = "indexer";

/// Bytes asked of the log at once.
const FETCH_BYTES: usize = 4 << 20;
/// An idle shard looks this often whether its directory is still there.
const IDLE_WAIT: Duration = Duration::from_secs(2);
/// Where only unchanged contexts were read, the offset is saved this often, so that the log can forget them.
const OFFSET_COMMIT_INTERVAL: Duration = Duration::from_secs(10);
/// How often old contexts are looked for.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(3600);
/// Larger indexes are not read through after the start.
const CHECKED_BYTES_MAX: u64 = 1 << 30;
/// After a failure that passes by itself.
const RETRY_WAIT: Duration = Duration::from_secs(1);

/// Where a shard stands.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// First offset that no commit covers.
    pub next: i64,
    /// One past the last record of the log, when last looked.
    pub end: i64,
    /// When the log took the oldest record that was fetched and not committed; None if there is none.
    pub waiting_since: Option<UnixMicros>,
    pub last_commit: Option<UnixMicros>,
    /// Newest received-at time covered by a commit.
    pub received_at: Option<UnixMicros>,
    pub rebuilds: u64,
}

/// What searches see of a shard.
pub struct Shard {
    pub partition: u32,
    pub path: PathBuf,
    reader: RwLock<Option<ShardReader>>,
    pub progress: Mutex<Progress>,
    /// Something failed that damage may explain: the files are to be checked.
    is_suspect: AtomicBool,
    /// Files do not fit their checksums.
    is_damaged: AtomicBool,
    /// Wakes the task for either.
    wake: Notify,
}

impl Shard {
    pub fn new(partition: u32, path: PathBuf) -> Self {
        Self {
            partition,
            path,
            reader: RwLock::new(None),
            progress: Mutex::default(),
            is_suspect: AtomicBool::new(false),
            is_damaged: AtomicBool::new(false),
            wake: Notify::new(),
        }
    }

    /// # Errors
    /// `NotOpen` between losing an index and having begun a new one.
    pub fn reader(&self) -> Result<ShardReader> {
        self.reader.read().clone().ok_or(Error::NotOpen { partition: self.partition })
    }

    /// Runs a read of the index. Damage shows as an error or as a panic of Tantivy; so may a mistake of ours, which a
    /// client could repeat at will: hence it only makes the task check the files, and these decide.
    pub fn guarded<T>(&self, action: &'static str, read: impl FnOnce() -> Result<T>) -> Result<T> {
        let result = catch_unwind(AssertUnwindSafe(read)).unwrap_or(Err(Error::Panicked { action }));
        if let Err(Error::Panicked { .. } | Error::Damaged { .. } | Error::Index { .. }) = &result {
            self.is_suspect.store(true, Ordering::Relaxed);
            self.wake.notify_one();
        }
        result
    }
}

/// What a shard works with.
#[derive(Clone)]
pub struct Surroundings {
    pub log: Arc<dyn LogReader>,
    pub runtime: Runtime,
    pub config: Config,
    pub budget: ShardBudget,
    pub metrics: Metrics,
}

/// The writing side of a shard.
pub struct ShardTask {
    shard: Arc<Shard>,
    surroundings: Surroundings,
    open: Option<OpenWriter>,
}

struct OpenWriter {
    writer: ShardWriter,
    topic_id: String,
    /// First offset not folded yet; None: the first that the log holds.
    next: Option<i64>,
    received_at: i64,
    /// What the last commit covers.
    committed: Option<Position>,
    pending: HashMap<Vec<u8>, Pending>,
    pending_bytes: usize,
    seen: SeenLately,
    environments: HashMap<(String, String), EnvironmentPrefix>,
    /// Set when something waits for a commit.
    dirty: bool,
    /// Set when the offset alone has moved.
    moved: bool,
    last_commit: Option<Instant>,
    last_expiry: Option<Instant>,
}

struct Pending {
    environment: EnvironmentPrefix,
    record: ContextRecord,
    is_stored: bool,
}

impl ShardTask {
    /// Opens the shard's index.
    ///
    /// # Errors
    /// As [`index::open`].
    pub fn open(shard: Arc<Shard>, surroundings: Surroundings) -> Result<Self> {
        let mut task = Self { shard, surroundings, open: None };
        task.open_shard()?;
        Ok(task)
    }

    fn topic_partition(&self) -> TopicPartition {
        TopicPartition::new(Topic::Contexts, self.shard.partition)
    }

    fn open_shard(&mut self) -> Result<()> {
        let OpenedShard { writer, position, discarded } = index::open(&self.shard.path, self.surroundings.budget)?;
        let partition = self.shard.partition;
        if let Some(reason) = discarded {
            tracing::warn!(partition, reason, "index begun anew from the log");
            self.note_rebuild();
        }
        let topic_id = self.surroundings.log.topic_id(Topic::Contexts).to_string();
        let mut progress = self.shard.progress.lock();
        let mut next = None;
        let mut received_at = i64::MIN;
        if let Some(position) = position {
            received_at = position.received_at;
            if position.topic_id == topic_id {
                next = Some(position.next);
            } else {
                // What is stored stays true; what this log holds is folded into it from its start.
                tracing::warn!(
                    partition,
                    stored = position.topic_id,
                    current = topic_id,
                    "the index was made from another log"
                );
            }
        }
        progress.next = next.unwrap_or(0);
        progress.received_at = known_time(received_at);
        *self.shard.reader.write() = Some(writer.reader().clone());
        self.shard.is_damaged.store(false, Ordering::Relaxed);
        let is_suspect = self.shard.is_suspect.swap(false, Ordering::Relaxed);
        if is_suspect || index::size_bytes(writer.path()) <= CHECKED_BYTES_MAX {
            check_files_beside(&writer, Arc::clone(&self.shard));
        }
        self.open = Some(OpenWriter {
            next,
            writer,
            topic_id,
            received_at,
            committed: None,
            pending: HashMap::new(),
            pending_bytes: 0,
            seen: SeenLately::new(self.surroundings.budget.seen_entries),
            environments: HashMap::new(),
            dirty: false,
            moved: false,
            last_commit: None,
            last_expiry: None,
        });
        Ok(())
    }

    fn note_rebuild(&self) {
        self.surroundings.metrics.rebuilds.inc();
        self.shard.progress.lock().rebuilds += 1;
    }

    /// Works until shutdown begins, then commits what was folded.
    pub async fn run(mut self, shutdown: Shutdown) {
        self.surroundings.log.commit(READER, self.topic_partition(), Offset(self.shard.progress.lock().next));
        while !shutdown.has_begun() {
            if let Err(error) = self.step(&shutdown).await {
                self.recover(error, &shutdown).await;
            }
        }
        if let Err(error) = self.blocking(OpenWriter::commit_if_dirty).await {
            tracing::error!(partition = self.shard.partition, %error, "last commit of the index failed; its rows are read again at the next start");
        }
    }

    /// One fetch with what follows from it.
    async fn step(&mut self, shutdown: &Shutdown) -> Result<()> {
        if self.open.is_none() {
            self.open_shard()?;
        }
        let (next, wait) = match self.open.as_ref().map(|open| (open.next, open.wait_max(&self.surroundings.config))) {
            Some((Some(next), wait)) => (next, wait),
            Some((None, wait)) => (self.surroundings.log.bounds(self.topic_partition()).await?.start.0, wait),
            None => return Ok(()),
        };
        let fetch = self.surroundings.log.fetch(self.topic_partition(), Offset(next), FETCH_BYTES, wait);
        let fetched = tokio::select! {
            fetched = fetch => fetched,
            () = shutdown.begun() => return Ok(()),
            () = self.shard.wake.notified() => return self.check_suspicion(),
        };
        let fetched = match fetched {
            Ok(fetched) => fetched,
            Err(eventlog::Error::OffsetOutOfRange { held, .. }) => {
                tracing::error!(partition = self.shard.partition, next, held = %held, "the log does not hold what the index asks for; reading what it holds");
                if let Some(open) = &mut self.open {
                    open.next = Some(held.start.0);
                }
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let is_idle = fetched.is_empty();
        if let Some(first) = fetched.first() {
            self.shard.progress.lock().waiting_since.get_or_insert(first.appended_at);
        }
        self.blocking(move |open, surroundings| {
            if is_idle && !open.writer.is_in_place() {
                return Err(Error::Damaged { what: "its directory is gone".into() });
            }
            open.take(&fetched, surroundings)?;
            open.expire_if_due(surroundings)?;
            open.commit_if_due(surroundings)
        })
        .await?;
        let bounds = self.surroundings.log.bounds(self.topic_partition()).await?;
        self.shard.progress.lock().end = bounds.end.0;
        Ok(())
    }

    /// Starts a check of the files, or reports what it found.
    fn check_suspicion(&self) -> Result<()> {
        if self.shard.is_damaged.load(Ordering::Relaxed) {
            return Err(Error::Damaged { what: "a checksum does not fit".into() });
        }
        if let Some(open) = &self.open
            && self.shard.is_suspect.swap(false, Ordering::Relaxed)
        {
            check_files_beside(&open.writer, Arc::clone(&self.shard));
        }
        Ok(())
    }

    /// Runs work on a thread that may block, and publishes what it has committed.
    async fn blocking(
        &mut self,
        work: impl FnOnce(&mut OpenWriter, &Surroundings) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        let surroundings = self.surroundings.clone();
        let joined = tokio::task::spawn_blocking(move || {
            let result = work(&mut open, &surroundings);
            (open, result)
        })
        .await;
        // A panic takes the writer with it, and so frees its lock.
        let (mut open, result) = joined.map_err(|_| Error::Panicked { action: "indexing" })?;
        result?;
        self.publish(&mut open);
        self.open = Some(open);
        Ok(())
    }

    /// Tells the log and the status what can be searched now.
    fn publish(&self, open: &mut OpenWriter) {
        let mut progress = self.shard.progress.lock();
        if let Some(committed) = open.committed.take() {
            progress.next = committed.next;
            progress.received_at = known_time(committed.received_at);
            progress.last_commit = Some(self.surroundings.runtime.clock.now());
            // After the commit, never before: what the log forgets must be in the index.
            self.surroundings.log.commit(READER, self.topic_partition(), Offset(committed.next));
        }
        if let (false, Some(next)) = (open.dirty, open.next) {
            // Nothing waits: what was read since changed nothing.
            progress.next = next;
            progress.received_at = known_time(open.received_at);
            progress.waiting_since = None;
        }
    }

    /// After a failure: throws a damaged index away, tries anything else again. Opening it again tells whether it can
    /// still be opened, and checks its files.
    async fn recover(&mut self, error: Error, shutdown: &Shutdown) {
        let partition = self.shard.partition;
        // Frees the lock; what was folded and not committed is read again.
        self.open = None;
        if matches!(error, Error::Damaged { .. }) {
            tracing::warn!(partition, %error, "index begun anew from the log");
            *self.shard.reader.write() = None;
            self.note_rebuild();
            match index::discard(&self.shard.path).and_then(|()| self.open_shard()) {
                Ok(()) => return,
                Err(error) => tracing::error!(partition, %error, "index could not be begun anew, trying again"),
            }
        } else {
            tracing::error!(partition, %error, "indexing failed, trying again");
            self.shard.is_suspect.store(true, Ordering::Relaxed);
        }
        tokio::select! {
            () = self.surroundings.runtime.clock.wait(RETRY_WAIT) => {}
            () = shutdown.begun() => {}
        }
    }
}

fn known_time(micros: i64) -> Option<UnixMicros> {
    (micros > i64::MIN).then_some(UnixMicros(micros))
}

/// Damage within a file shows only when it is read. So all files are read once after opening, and whenever something
/// failed that damage may explain, beside the work.
fn check_files_beside(writer: &ShardWriter, shard: Arc<Shard>) {
    let (index, path) = (writer.index().clone(), writer.path().to_owned());
    std::thread::spawn(move || {
        if index::has_damaged_files(&index, &path) {
            shard.is_damaged.store(true, Ordering::Relaxed);
            shard.wake.notify_one();
        }
    });
}

impl OpenWriter {
    /// How long to wait for records before something else is due.
    fn wait_max(&self, config: &Config) -> Duration {
        if !self.dirty {
            return IDLE_WAIT;
        }
        let since = self.last_commit.map_or(Duration::MAX, |at| at.elapsed());
        config.commit_interval.get().saturating_sub(since)
    }

    fn take(&mut self, fetched: &[FetchedRecord], surroundings: &Surroundings) -> Result<()> {
        for record in fetched {
            match frame::decode(&record.frame) {
                Ok(LogBatch::Sightings(batch)) => self.fold_rows(batch.sightings(), surroundings)?,
                Ok(_) => {
                    tracing::error!(offset = record.offset.0, "record of another topic among the contexts passed over")
                }
                Err(error) => {
                    surroundings.metrics.corrupt_records.inc();
                    tracing::error!(offset = record.offset.0, %error, "unreadable record passed over");
                }
            }
            self.next = Some(record.offset.0 + 1);
            self.moved = true;
            if self.pending_bytes >= surroundings.budget.pending_bytes {
                self.commit(surroundings)?;
            }
        }
        Ok(())
    }

    fn fold_rows(&mut self, rows: &RecordBatch, surroundings: &Surroundings) -> Result<()> {
        let text = |column: usize| rows.column(column).as_string::<i32>();
        let time = |column: usize| rows.column(column).as_primitive::<TimestampMicrosecondType>();
        let (projects, environments, kinds, keys) = (text(0), text(1), text(2), text(3));
        let (anonymous, contexts) = (rows.column(4).as_boolean(), text(5));
        let (seen_at, received_at, applications) = (time(6), time(7), text(8));
        let refresh = surroundings.config.refresh_interval.get().as_micros() as i64;
        surroundings.metrics.sightings.inc_by(rows.num_rows() as u64);
        for row in 0..rows.num_rows() {
            let sighting = Sighting {
                environment: self.environment(projects.value(row), environments.value(row)),
                kind: kinds.value(row),
                key: keys.value(row),
                anonymous: anonymous.value(row),
                context: contexts.is_valid(row).then(|| contexts.value(row)),
                seen_at: seen_at.value(row),
                application: if applications.is_valid(row) { applications.value(row) } else { "" },
            };
            self.received_at = self.received_at.max(received_at.value(row));
            self.see(&sighting, refresh, &surroundings.metrics)?;
        }
        Ok(())
    }

    fn environment(&mut self, project: &str, key: &str) -> EnvironmentPrefix {
        // The set of environments is small and fixed by the configuration.
        let name = (project.to_owned(), key.to_owned());
        *self.environments.entry(name).or_insert_with(|| EnvironmentPrefix::new(&Environment::new(project, key)))
    }

    fn see(&mut self, sighting: &Sighting<'_>, refresh: i64, metrics: &Metrics) -> Result<()> {
        let identity = sighting.environment.identity(sighting.kind, sighting.key);
        let identity_hash = xxh3_64(&identity);
        if self.seen.covers(identity_hash, sighting, refresh) {
            metrics.unchanged_sightings.inc();
            return Ok(());
        }
        let (stored, is_stored) = match self.pending.remove(&identity) {
            Some(pending) => {
                self.pending_bytes -= pending.record.bytes() + identity.len();
                (Some(pending.record), pending.is_stored)
            }
            None => match self.writer.reader().find_unless(&identity, |seen| seen.covers(sighting, refresh))? {
                Some((seen, None)) => {
                    self.seen.remember(identity_hash, seen);
                    metrics.unchanged_sightings.inc();
                    return Ok(());
                }
                Some((_, stored)) => (stored, true),
                None => (None, false),
            },
        };
        let (record, unreadable) = fold(stored, sighting);
        metrics.unreadable_contexts.inc_by(u64::from(unreadable));
        self.seen.remember(identity_hash, Seen::of(&record));
        self.pending_bytes += record.bytes() + identity.len();
        self.pending.insert(identity, Pending { environment: sighting.environment, record, is_stored });
        self.dirty = true;
        Ok(())
    }

    fn expire_if_due(&mut self, surroundings: &Surroundings) -> Result<()> {
        let now = surroundings.runtime.clock.instant();
        if self.last_expiry.is_some_and(|at| now - at < EXPIRY_INTERVAL) {
            return Ok(());
        }
        self.last_expiry = Some(now);
        let cutoff = surroundings.runtime.clock.now().saturating_sub(surroundings.config.retention.get());
        self.dirty |= self.writer.expire(cutoff.0)?;
        Ok(())
    }

    fn commit_if_due(&mut self, surroundings: &Surroundings) -> Result<()> {
        let interval = if self.dirty {
            surroundings.config.commit_interval.get()
        } else if self.moved {
            OFFSET_COMMIT_INTERVAL
        } else {
            return Ok(());
        };
        if self.last_commit.is_none_or(|at| at.elapsed() >= interval) { self.commit(surroundings) } else { Ok(()) }
    }

    fn commit_if_dirty(&mut self, surroundings: &Surroundings) -> Result<()> {
        if self.dirty || self.moved { self.commit(surroundings) } else { Ok(()) }
    }

    fn commit(&mut self, surroundings: &Surroundings) -> Result<()> {
        let timer = surroundings.metrics.commit_seconds.start_timer();
        for pending in self.pending.values() {
            self.writer.put(&pending.environment, &pending.record, pending.is_stored)?;
        }
        let next = self.next.unwrap_or(0);
        let position =
            Position { format: FORMAT, topic_id: self.topic_id.clone(), next, received_at: self.received_at };
        self.writer.commit(&position)?;
        self.committed = Some(position);
        surroundings.metrics.written_contexts.inc_by(self.pending.len() as u64);
        surroundings.metrics.commits.inc();
        timer.observe_duration();
        tracing::debug!(next, contexts = self.pending.len(), "index committed");
        self.pending.clear();
        self.pending.shrink_to(1024);
        self.pending_bytes = 0;
        self.dirty = false;
        self.moved = false;
        self.last_commit = Some(Instant::now());
        Ok(())
    }
}
