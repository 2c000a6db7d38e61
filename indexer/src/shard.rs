//! One shard at work: log -> fold -> index, its lag, and its recovery.
//!
//! In: records of one `contexts` partition. Out: commits of its index, and the offset up to which the log may forget.
//! Promise: reading starts where the index itself says it stopped, so that a crash between any two steps repeats rows
//! but skips none, and repeated rows fold to the same state. A shard whose directory is gone, foreign or damaged begins
//! anew from a copy on the object store (`restore`), else from the table of states (`seed`), and from the log; nothing
//! else in the process notices but searches, which lack its contexts meanwhile.

mod open_writer;

mod bound;
mod erase;
mod orders;
mod predecessor;

mod restore;
mod seed;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use eventlog::LogReader;
use events::{Offset, Topic, TopicPartition, limits};
use parking_lot::{Mutex, RwLock};
use runtime::{Runtime, Shutdown, UnixMicros};
use tokio::sync::Notify;

use crate::config::{Config, ShardBudget};
use crate::index::{self, OpenedShard, ShardReader, ShardWriter};
use crate::metrics::Metrics;
use crate::snapshot::SnapshotStore;
use crate::table::StateTable;
use crate::{Error, Result};
use open_writer::OpenWriter;
use orders::Orders;
pub use orders::{MergeScope, Merged};
pub use predecessor::path_before;
use predecessor::{Predecessor, Renewals};

/// Name under which the log knows this reader.
pub const READER: &str = "indexer";

/// Bytes asked of the log at once.
const FETCH_BYTES: usize = 4 << 20;
/// An idle shard looks this often whether its directory is still there.
const IDLE_WAIT: Duration = Duration::from_secs(2);
/// Larger indexes are not read through after the start.
const CHECKED_BYTES_MAX: u64 = 1 << 30;
/// After a start the log is read again from this long ago, as far as it reaches, though the index covers it: what was seen
/// and not worth a write is remembered nowhere else, and may be newer than what clients repeat from that time.
const LOOK_BACK: Duration = limits::DEDUP_WINDOW_MIN;
/// After a failure that passes by itself.
pub const RETRY_WAIT: Duration = Duration::from_secs(1);

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
    /// The shard is being made again.
    pub is_rebuilding: bool,
    /// Meanwhile the one before is searched. Without one, what can be searched is not all that was covered before.
    pub has_predecessor: bool,
    /// The log has not been read yet to where it ended when the shard was opened: another process may have had it searchable
    /// further.
    pub is_behind: bool,
}

impl Progress {
    /// Searches find less than all that was covered before.
    pub fn lacks_contexts(&self) -> bool {
        self.is_rebuilding && !self.has_predecessor
    }
}

/// What searches see of a shard.
pub struct Shard {
    pub partition: u32,
    pub path: PathBuf,
    reader: RwLock<Option<ShardReader>>,
    pub progress: Mutex<Progress>,
    /// Changes before the directory is replaced by another, so that nobody takes files of both for one index.
    pub generation: AtomicU64,
    /// Something failed that damage may explain: the files are to be checked.
    is_suspect: AtomicBool,
    /// Files do not fit their checksums.
    is_damaged: AtomicBool,
    is_being_checked: AtomicBool,
    /// What others want done with the writer.
    orders: Orders,
    renewals: Renewals,
    /// Wakes the task for any of these.
    wake: Notify,
    /// Whether this process works on it.
    is_held: AtomicBool,
    /// Of whoever works on it.
    pub turn: tokio::sync::Mutex<()>,
}

impl Shard {
    pub fn new(partition: u32, path: PathBuf) -> Self {
        Self {
            partition,
            path,
            reader: RwLock::new(None),
            progress: Mutex::default(),
            generation: AtomicU64::new(0),
            is_suspect: AtomicBool::new(false),
            is_damaged: AtomicBool::new(false),
            is_being_checked: AtomicBool::new(false),
            orders: Orders::default(),
            renewals: Renewals::default(),
            wake: Notify::new(),
            is_held: AtomicBool::new(true),
            turn: tokio::sync::Mutex::default(),
        }
    }

    pub fn topic_partition(&self) -> TopicPartition {
        TopicPartition::new(Topic::Contexts, self.partition)
    }

    pub fn is_held(&self) -> bool {
        self.is_held.load(Ordering::Acquire)
    }

    /// Whether this process works on it from now on. One that does not knows nothing of it.
    pub fn set_held(&self, is_held: bool) {
        if !is_held {
            *self.reader.write() = None;
            *self.progress.lock() = Progress::default();
        }
        self.is_held.store(is_held, Ordering::Release);
    }

    /// # Errors
    /// `NotOpen` between losing an index and having begun a new one.
    pub fn reader(&self) -> Result<ShardReader> {
        self.reader.read().clone().ok_or(Error::NotOpen { partition: self.partition })
    }

    /// The first offset that is not covered, and a reader that covers all before it; None while that is not so.
    pub fn whole(&self) -> Option<(i64, ShardReader)> {
        let progress = self.progress.lock();
        if progress.is_rebuilding { None } else { Some((progress.next, self.reader().ok()?)) }
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
    /// From which an index that is begun anew takes what the log no longer holds.
    pub table: Option<Arc<dyn StateTable>>,
    /// Copies of shards, from which one comes back faster.
    pub snapshots: Option<SnapshotStore>,
}

/// The writing side of a shard.
pub struct ShardTask {
    shard: Arc<Shard>,
    surroundings: Surroundings,
    open: Option<OpenWriter>,
    /// Failures since the last success: only the first is told as an error.
    failures: u64,
    /// The shard is new: it takes over a copy if there is one.
    needs_restore: bool,
    /// The copy that was taken over, while the directory is what became of it.
    restored_from: Option<u64>,
    /// Copies of this number and later ones led to a damaged shard before.
    copies_below: Option<u64>,
    /// No copy served when last asked for one.
    has_no_copy: bool,
    /// The shard is new and has no copy: it takes over what the table holds before it reads the log.
    needs_seed: bool,
    /// What was seen lately is not known yet.
    needs_look_back: bool,
    /// What is searched while the shard is made anew.
    predecessor: Option<Predecessor>,
    /// Where the log ended when it was first asked after the opening.
    end_at_opening: i64,
}

impl ShardTask {
    /// Opens the shard's index.
    ///
    /// # Errors
    /// As [`index::open`].
    pub fn open(shard: Arc<Shard>, surroundings: Surroundings) -> Result<Self> {
        let mut task = Self {
            shard,
            surroundings,
            open: None,
            failures: 0,
            needs_restore: false,
            restored_from: None,
            copies_below: None,
            has_no_copy: false,
            needs_seed: false,
            needs_look_back: false,
            predecessor: None,
            end_at_opening: 0,
        };
        task.find_predecessor()?;
        task.open_shard()?;
        // What a process that died while it took a copy over has left; one that does so now holds the lock.
        index::discard(&task.incoming())?;
        Ok(task)
    }

    fn topic_partition(&self) -> TopicPartition {
        self.shard.topic_partition()
    }

    fn open_shard(&mut self) -> Result<()> {
        let OpenedShard { writer, position, discarded } = index::open(&self.shard.path, self.surroundings.budget)?;
        let partition = self.shard.partition;
        if let Some(reason) = discarded {
            tracing::warn!(partition, reason, "index begun anew");
            self.note_rebuild();
        }
        let topic_id = self.surroundings.log.topic_id(Topic::Contexts).to_string();
        let mut progress = self.shard.progress.lock();
        let mut next = None;
        let mut received_at = i64::MIN;
        self.has_no_copy = false;
        self.needs_restore = position.is_none() && self.surroundings.snapshots.is_some();
        self.needs_seed = position.is_none() && self.surroundings.table.is_some();
        progress.is_rebuilding = self.needs_restore || self.needs_seed || self.predecessor.is_some();
        self.needs_look_back = true;
        progress.is_behind = true;
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
        if self.predecessor.is_none() {
            progress.received_at = known_time(received_at);
            *self.shard.reader.write() = Some(writer.reader().clone());
        }
        self.shard.is_damaged.store(false, Ordering::Relaxed);
        let is_suspect = self.shard.is_suspect.swap(false, Ordering::Relaxed);
        if is_suspect || index::size_bytes(writer.path()) <= CHECKED_BYTES_MAX {
            self.check_files(&writer);
        }
        let seen_entries = self.surroundings.budget.seen_entries;
        self.open = Some(OpenWriter::new(writer, topic_id, next, received_at, seen_entries));
        Ok(())
    }

    fn note_rebuild(&self) {
        self.surroundings.metrics.rebuilds.inc();
        {
            let mut progress = self.shard.progress.lock();
            progress.rebuilds += 1;
            // Until it is open again and knows what it takes over: a shard that is gone must not look whole.
            progress.is_rebuilding = true;
        }
        self.shard.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Works until shutdown begins, then commits what was folded.
    pub async fn run(mut self, shutdown: Shutdown) {
        self.surroundings.log.commit(READER, self.topic_partition(), Offset(self.shard.progress.lock().next));
        while !shutdown.has_begun() {
            match self.step(&shutdown).await {
                Ok(()) => self.failures = 0,
                Err(error) => self.recover(error, &shutdown).await,
            }
        }
        if let Err(error) = self.blocking(OpenWriter::commit_if_dirty).await {
            tracing::error!(partition = self.shard.partition, %error, "last commit of the index failed; its rows are read again at the next start");
        }
    }

    /// One fetch with what follows from it.
    async fn step(&mut self, shutdown: &Shutdown) -> Result<()> {
        // Before it is opened again, which begins a new check, and before any record is folded into it: that may fail
        // each time, and with records at hand nothing would wait for the check's signal.
        if self.shard.is_damaged.swap(false, Ordering::Relaxed) {
            return Err(Error::Damaged { what: "a checksum does not fit".into() });
        }
        if self.open.is_none() {
            self.open_shard()?;
        }
        if self.needs_restore
            && let Some(snapshots) = self.surroundings.snapshots.clone()
        {
            return self.restore(&snapshots, shutdown).await;
        }
        if self.needs_seed
            && let Some(table) = self.surroundings.table.clone()
        {
            return self.seed(table.as_ref(), shutdown).await;
        }
        if self.needs_look_back {
            return self.look_back().await;
        }
        if let Some(asked) = self.shard.renewals.take() {
            // Who asked may have gone.
            let _ = asked.send(self.renew().await);
            return Ok(());
        }
        if let Some(order) = self.shard.orders.take() {
            return self.blocking(order).await;
        }
        let (next, wait) = match self.open.as_ref().map(|open| (open.next, open.wait_max(&self.surroundings.config))) {
            Some((Some(next), wait)) => (next, wait),
            Some((None, wait)) => (self.surroundings.log.bounds(self.topic_partition()).await?.start.0, wait),
            None => return Ok(()),
        };
        let fetch = self.surroundings.log.fetch(self.topic_partition(), Offset(next), FETCH_BYTES, wait);
        let fetched = tokio::select! {
            biased;
            fetched = fetch => fetched,
            () = shutdown.begun() => return Ok(()),
            () = self.shard.wake.notified() => return self.check_suspicion(),
        };
        let fetched = match fetched {
            Ok(fetched) => fetched,
            Err(eventlog::Error::OffsetOutOfRange { held, .. }) => {
                if self.gives_way(next, held.start.0).await? {
                    return Ok(());
                }
                tracing::error!(partition = self.shard.partition, next, held = %held, "the log does not hold what the index asks for; reading what it holds");
                if let Some(open) = &mut self.open {
                    (open.next, open.covered) = (Some(held.start.0), held.start.0);
                }
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        fetched.iter().for_each(|record| record.tell(crate::LOG_READER, self.topic_partition()));
        let is_idle = fetched.is_empty();
        let covered = self.open.as_ref().map_or(0, |open| open.covered);
        let mut fresh = fetched.iter().filter(|record| record.offset.0 >= covered);
        if let (Some(first), Some(last)) = (fresh.next(), fetched.last()) {
            // Before the work: a shard that cannot commit must not look caught up.
            let mut progress = self.shard.progress.lock();
            progress.waiting_since.get_or_insert(first.appended_at);
            progress.end = progress.end.max(last.offset.0 + 1);
        }
        self.blocking(move |open, surroundings| {
            if is_idle && !open.writer.is_in_place() {
                return Err(Error::Damaged { what: "its directory is gone".into() });
            }
            open.take(&fetched, surroundings)?;
            open.expire_if_due(surroundings)?;
            open.keep_bound_if_due(surroundings)?;
            open.commit_if_due(surroundings)
        })
        .await?;
        self.go_back_if_erased().await?;
        let bounds = self.surroundings.log.bounds(self.topic_partition()).await?;
        {
            let mut progress = self.shard.progress.lock();
            progress.end = bounds.end.0;
            let has_read_all = is_idle && progress.waiting_since.is_none();
            progress.is_behind &= !has_read_all && progress.next < self.end_at_opening;
        }
        self.replace_predecessor(bounds.end.0);
        Ok(())
    }

    /// Goes back to where what was seen lately begins.
    async fn look_back(&mut self) -> Result<()> {
        let since = self.surroundings.runtime.clock.now().saturating_sub(LOOK_BACK);
        let offset = self.surroundings.log.offset_at(self.topic_partition(), since).await?;
        let held = self.surroundings.log.bounds(self.topic_partition()).await?;
        if let Some(next) = self.open.as_ref().and_then(|open| open.next)
            && self.gives_way(next, held.start.0).await?
        {
            return Ok(());
        }
        // A log that ends before what the index covers is another story, and told when it is read.
        if let Some(open) = &mut self.open
            && let Some(next) = open.next.filter(|next| *next <= held.end.0)
        {
            open.next = Some(next.min(offset.0));
        }
        self.needs_look_back = false;
        self.end_at_opening = held.end.0;
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
            self.check_files(&open.writer);
        }
        Ok(())
    }

    /// Files in simulation are not damaged, and it has no other thread.
    fn check_files(&self, writer: &ShardWriter) {
        if !self.surroundings.runtime.is_simulated() {
            check_files_beside(writer, Arc::clone(&self.shard));
        }
    }

    /// Runs work on a thread that may block, and publishes what it has committed.
    async fn blocking(
        &mut self,
        work: impl FnOnce(&mut OpenWriter, &Surroundings) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        let surroundings = self.surroundings.clone();
        let is_simulated = surroundings.runtime.is_simulated();
        let work = move || {
            let result = work(&mut open, &surroundings);
            (open, result)
        };
        let joined = if is_simulated { Ok(work()) } else { tokio::task::spawn_blocking(work).await };
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
            if self.predecessor.is_none() {
                progress.received_at = known_time(committed.received_at);
            }
            progress.last_commit = Some(self.surroundings.runtime.clock.now());
            // After the commit, never before: what the log forgets must be in the index.
            self.surroundings.log.commit(READER, self.topic_partition(), Offset(committed.next));
        }
        if let (false, Some(next)) = (open.dirty, open.next) {
            // Nothing waits: what was read since changed nothing.
            progress.next = next.max(open.covered);
            if self.predecessor.is_none() {
                progress.received_at = known_time(open.received_at);
            }
            progress.waiting_since = None;
        }
    }

    /// After a failure: throws a damaged index away, tries anything else again. Opening it again tells whether it can
    /// still be opened, and checks its files.
    async fn recover(&mut self, error: Error, shutdown: &Shutdown) {
        let partition = self.shard.partition;
        self.failures += 1;
        // Frees the lock; what was folded and not committed is read again.
        self.open = None;
        if matches!(error, Error::Damaged { .. }) {
            tracing::warn!(partition, %error, "index begun anew");
            // It may have been so when it was copied, in a way that no check sees.
            if let Some(sequence) = self.restored_from.take() {
                self.copies_below = Some(self.copies_below.map_or(sequence, |below| below.min(sequence)));
            }
            if self.predecessor.is_none() {
                *self.shard.reader.write() = None;
            }
            self.note_rebuild();
            match index::discard(&self.shard.path).and_then(|()| self.open_shard()) {
                Ok(()) => return,
                Err(error) => tracing::error!(partition, %error, "index could not be begun anew, trying again"),
            }
        } else {
            if self.failures == 1 {
                tracing::error!(partition, %error, "indexing failed, trying again");
            } else {
                tracing::debug!(partition, %error, failures = self.failures, "indexing failed again");
            }
            self.shard.is_suspect.store(true, Ordering::Relaxed);
        }
        tokio::select! {
            biased;
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
    if shard.is_being_checked.swap(true, Ordering::Relaxed) {
        return;
    }
    let (index, path) = (writer.index().clone(), writer.path().to_owned());
    let generation = shard.generation.load(Ordering::Acquire);
    std::thread::spawn(move || {
        let is_damaged = index::has_damaged_files(&index, &path);
        shard.is_being_checked.store(false, Ordering::Relaxed);
        // What was found of a directory that has been replaced since says nothing of the present one.
        if is_damaged && shard.generation.load(Ordering::Acquire) == generation {
            shard.is_damaged.store(true, Ordering::Relaxed);
            shard.wake.notify_one();
        }
    });
}
