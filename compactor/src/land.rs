//! The walk of one topic from the log into its table.
//!
//! [`Lander::run`] repeats rounds until shutdown. A round: go to where the table stands (only at first, and after
//! somebody else moved it); take records while they come, until the commit interval is over or the buffer is full; sort
//! the rows into files; make files, offsets and the account of the rows visible in one commit; tell the log.
//!
//! Order matters: unreadable records first (into `dead_letters`, with an offset of their own), then files, then the
//! commit that names them, then the log. A crash between leaves garbage in the table's folder, never a table that points
//! at nothing and never a row twice.
//! When a round fails, the buffer is kept and landed again later: the guard of the commit decides whether it still
//! fits. Only a fenced batch is dropped and read again.

use std::sync::Arc;
use std::time::Duration;

use eventlog::{Assignment, LogReader};
use events::{Topic, TopicPartition};
use futures::future::select_all;
use runtime::{ErrorKind, Runtime, Shutdown, UnixMicros};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::commit::{Change, NewFiles};
use crate::consume::{DedupSettings, PartitionReader, Poisoned, READER, Stored, Taken, readers};
use crate::expand::{Expansion, FrameRows, Group, expand};
use crate::ledger::{Destination, Tally};
use crate::metrics::Metrics;
use crate::poison;
use crate::status::{StatusBoard, TopicProgress};
use crate::table::Table;
use crate::table::actions::OwnInfo;
use crate::table::state::TableState;
use crate::write::{DataFile, Effort, ROW_GROUP_ROWS, RollingWriter, discard};
use crate::{Error, Result, Step, Steps};

/// With nothing to read, wake this often to look at the lag.
const IDLE_WAIT: Duration = Duration::from_secs(5);
/// Pause after taking a few records, so that a trickle of small ones is not taken one at a time.
const GATHER_WAIT: Duration = Duration::from_millis(100);
/// Further behind than this there is no pause.
const RECORDS_BEHIND: i64 = 64;
const BACKOFF_FIRST: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// Shutdown waits this long for a last commit; what is not committed is read again from the log.
const LAST_COMMIT_MAX: Duration = Duration::from_secs(5);

/// Settings of one lander.
#[derive(Clone, Debug)]
pub(crate) struct LandSettings {
    pub commit_interval: Duration,
    pub buffer_bytes: usize,
    pub target_file_bytes: u64,
    pub dedup: DedupSettings,
}

/// Rows that wait for their commit.
#[derive(Default)]
struct Buffer {
    frames: Vec<FrameRows>,
    bytes: usize,
    tally: Tally,
    poisoned: Vec<Poisoned>,
    /// When the first record came in.
    since: Option<Instant>,
}

impl Buffer {
    fn count(&mut self, topic: Topic, rows: &FrameRows) {
        let destination = if topic == Topic::DeadLetters { Destination::DeadLettered } else { Destination::Landed };
        self.tally.count(rows.payloads(), &rows.dropped, destination);
    }

    /// What is left without the partitions that are another process's now.
    fn of_partitions(mut self, topic: Topic, is_held: impl Fn(TopicPartition) -> bool) -> Self {
        self.frames.retain(|rows| is_held(rows.source));
        self.poisoned.retain(|poisoned| is_held(poisoned.topic_partition));
        let rows = self.frames.iter().map(|rows| rows.bytes).sum::<usize>();
        self.bytes = rows + self.poisoned.iter().map(|poisoned| poisoned.bytes.len()).sum::<usize>();
        let is_empty = self.frames.is_empty() && self.poisoned.is_empty();
        let mut left = Self { since: self.since.filter(|_| !is_empty), tally: Tally::default(), ..self };
        let frames = std::mem::take(&mut left.frames);
        frames.iter().for_each(|rows| left.count(topic, rows));
        Self { frames, ..left }
    }
}

/// Lands one topic in one table.
pub(crate) struct Lander {
    topic: Topic,
    table: Arc<Table>,
    /// Where unreadable records go.
    dead_letters: Arc<Table>,
    log: Arc<dyn LogReader>,
    settings: LandSettings,
    runtime: Runtime,
    metrics: Metrics,
    assignment: Assignment,
    readers: Vec<PartitionReader>,
    buffer: Buffer,
    status: StatusBoard,
    landed: Arc<Notify>,
    steps: Steps,
}

/// What the landers of a process have in common.
#[derive(Clone)]
pub(crate) struct LandContext {
    pub dead_letters: Arc<Table>,
    pub log: Arc<dyn LogReader>,
    pub settings: LandSettings,
    pub runtime: Runtime,
    pub metrics: Metrics,
    pub status: StatusBoard,
    /// Told after each commit.
    pub landed: Arc<Notify>,
    pub steps: Steps,
}

impl Lander {
    pub fn new(topic: Topic, table: Arc<Table>, context: LandContext) -> Self {
        let LandContext { dead_letters, log, settings, runtime, metrics, status, landed, steps } = context;
        let readers = readers(&log, topic, settings.dedup);
        let assignment = Assignment::all(log.as_ref(), &[topic]);
        Self {
            topic,
            table,
            dead_letters,
            log,
            settings,
            runtime,
            metrics,
            assignment,
            readers,
            buffer: Buffer::default(),
            status,
            landed,
            steps,
        }
    }

    /// Works only on what `assignment` holds.
    pub fn follow(&mut self, assignment: Assignment) {
        self.assignment = assignment;
    }

    /// Tells how far behind the table is before the first record is taken.
    pub async fn look(&mut self) -> Result<()> {
        for reader in &mut self.readers {
            let stored = Stored::of(&*self.table.state().await, reader);
            reader.look(&stored, self.log.as_ref()).await?;
        }
        self.report().await
    }

    /// Lands until shutdown; failures are repeated with growing pauses.
    pub async fn run(&mut self, shutdown: &Shutdown) -> Result<()> {
        let mut backoff = BACKOFF_FIRST;
        while !shutdown.has_begun() {
            match self.round(shutdown).await {
                Ok(()) => backoff = BACKOFF_FIRST,
                Err(error @ Error::Stopped(_)) => return Err(error),
                Err(error) => {
                    self.metrics.failed_rounds.with_label_values(&[self.table.spec.name]).inc();
                    tracing::warn!(topic = %self.topic, %error, "rows could not be landed, they stay in the log and are tried again");
                    let pause = self.runtime.entropy.jitter(backoff);
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                    unless(self.runtime.clock.wait(pause), shutdown.begun()).await;
                }
            }
        }
        let clock = self.runtime.clock.clone();
        match unless(self.flush(), clock.wait(LAST_COMMIT_MAX)).await {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                tracing::info!(topic = %self.topic, %error, "no last commit, the log still holds the rows")
            }
            None => tracing::info!(topic = %self.topic, "no time for a last commit, the log still holds the rows"),
        }
        Ok(())
    }

    /// Gathers until a commit is due, then commits.
    pub async fn round(&mut self, shutdown: &Shutdown) -> Result<()> {
        loop {
            self.position().await?;
            if self.is_due() || shutdown.has_begun() {
                break;
            }
            let taken = self.take_available().await?;
            self.report().await?;
            if self.is_due() {
                break;
            }
            if taken == 0 {
                self.wait_for_records(shutdown).await?;
                if self.buffer.since.is_none() {
                    return Ok(());
                }
            } else if !self.readers.iter().any(|reader| reader.has_fetched() || reader.waiting() >= RECORDS_BEHIND) {
                let pause = GATHER_WAIT.min(self.until_due());
                unless(self.runtime.clock.wait(pause), shutdown.begun()).await;
            }
        }
        self.flush().await
    }

    /// Reads and lands everything the log holds now. For tests and tools.
    pub async fn land_available(&mut self) -> Result<()> {
        self.position().await?;
        loop {
            let taken = self.take_available().await?;
            if taken == 0 || self.buffer.bytes >= self.settings.buffer_bytes {
                self.flush().await?;
                self.position().await?;
            }
            if taken == 0 {
                return self.report().await;
            }
        }
    }

    fn until_due(&self) -> Duration {
        match self.buffer.since {
            None => IDLE_WAIT,
            Some(since) => {
                (since + self.settings.commit_interval).saturating_duration_since(self.runtime.clock.instant())
            }
        }
    }

    fn is_due(&self) -> bool {
        self.buffer.bytes >= self.settings.buffer_bytes || (self.buffer.since.is_some() && self.until_due().is_zero())
    }

    /// Lets go of partitions that are another process's now: what was taken of them can no longer be committed.
    fn follow_assignment(&mut self) {
        let Some(held) = self.assignment.news() else { return };
        for reader in &mut self.readers {
            reader.set_held(held.contains(&reader.topic_partition));
        }
        let buffer = std::mem::take(&mut self.buffer);
        self.buffer = buffer.of_partitions(self.topic, |source| held.contains(&source));
    }

    /// Brings readers that have no place yet to where the table stands.
    async fn position(&mut self) -> Result<()> {
        self.follow_assignment();
        if !self.readers.iter().any(PartitionReader::needs_place) {
            return Ok(());
        }
        self.table.refresh().await?;
        for reader in &mut self.readers {
            if !reader.needs_place() {
                continue;
            }
            let stored = Stored::of(&*self.table.state().await, reader);
            let positioned =
                reader.position(self.table.spec.name, &stored, self.log.as_ref(), self.settings.dedup).await;
            stop_if_fatal(reader, positioned)?;
        }
        Ok(())
    }

    /// Takes what the log holds now, as much as the buffer has room for. Returns the number of records.
    async fn take_available(&mut self) -> Result<usize> {
        let mut taken = 0;
        for number in 0..self.readers.len() {
            let reader = &mut self.readers[number];
            if !reader.is_at_work() {
                continue;
            }
            if !reader.has_fetched() {
                let fetched =
                    reader.fetch(self.log.as_ref(), Duration::ZERO).await.map(|records| reader.accept(records));
                stop_if_fatal(reader, fetched)?;
            }
            while self.buffer.bytes < self.settings.buffer_bytes {
                let Some(record) = self.readers[number].take() else { break };
                self.buffer_record(record);
                taken += 1;
                // Unpacking is pure computation: give ingest on the same thread its turn.
                tokio::task::yield_now().await;
            }
        }
        self.metrics.buffered_bytes.with_label_values(&[self.table.spec.name]).set(self.buffer.bytes as i64);
        Ok(taken)
    }

    fn buffer_record(&mut self, record: Taken) {
        let now = self.runtime.clock.instant();
        match record {
            Taken::Frame(rows) => {
                self.buffer.count(self.topic, &rows);
                let dropped = rows.dropped.iter().filter(|dropped| **dropped).count();
                self.metrics.deduplicated_payloads.with_label_values(&[self.table.spec.name]).inc_by(dropped as u64);
                self.buffer.bytes += rows.bytes;
                self.buffer.frames.push(rows);
            }
            Taken::Poisoned(poisoned) => {
                tracing::warn!(topic = %self.topic, offset = %poisoned.offset, what = poisoned.what, "log record cannot be read, its bytes go to the dead letters");
                self.metrics.unreadable_records.inc();
                self.buffer.bytes += poisoned.bytes.len();
                self.buffer.poisoned.push(poisoned);
            }
        }
        self.buffer.since.get_or_insert(now);
    }

    /// Waits until any partition has a record, the commit is due, the assignment changes or shutdown begins.
    async fn wait_for_records(&mut self, shutdown: &Shutdown) -> Result<()> {
        let wait = self.until_due();
        let log = self.log.as_ref();
        let interruption = interrupted(&self.assignment, shutdown);
        let fetches: Vec<_> = (self.readers.iter().enumerate())
            .filter(|(_, reader)| reader.is_at_work())
            .map(|(number, reader)| Box::pin(async move { (number, reader.fetch(log, wait).await) }))
            .collect();
        if fetches.is_empty() {
            unless(self.runtime.clock.wait(wait), interruption).await;
            return Ok(());
        }
        let Some(((number, records), _, _)) = unless(select_all(fetches), interruption).await else {
            return Ok(());
        };
        let reader = &mut self.readers[number];
        let accepted = records.map(|records| reader.accept(records));
        stop_if_fatal(reader, accepted)
    }

    /// Lands the buffer. On failure it is kept, unless it was fenced.
    pub async fn flush(&mut self) -> Result<()> {
        if self.buffer.since.is_none() {
            return Ok(());
        }
        if !self.buffer.poisoned.is_empty() {
            poison::land(&self.dead_letters, &self.buffer.poisoned).await?;
            self.steps.at(Step::PoisonLanded)?;
        }
        let (files, newest_received_at, written) = self.write().await;
        if written.is_err() {
            // The next attempt writes files of its own; a full disk must not fill further with each.
            discard(&self.table, &files).await;
            return written;
        }
        self.steps.at(Step::FilesWritten)?;
        match self.commit(&files, newest_received_at).await {
            Ok(()) => self.committed(&files, newest_received_at).await,
            Err(error) => self.not_committed(&files, error).await,
        }
    }

    /// The files that were written, the latest receipt of their rows, and whether that is all of them.
    async fn write(&self) -> (Vec<DataFile>, Option<i64>, Result<()>) {
        let expansion = expand(self.topic, &self.buffer.frames);
        let mut files = Vec::new();
        for group in &expansion.groups {
            let (closed, written) = self.write_group(&expansion, group).await;
            files.extend(closed);
            if written.is_err() {
                return (files, None, written);
            }
        }
        (files, expansion.newest_received_at, Ok(()))
    }

    async fn write_group(&self, expansion: &Expansion<'_>, group: &Group) -> (Vec<DataFile>, Result<()>) {
        let (partition, target_bytes) = (group.partition.clone(), self.settings.target_file_bytes);
        let mut writer = match RollingWriter::new(&self.table, partition, Effort::Landing, target_bytes) {
            Ok(writer) => writer,
            Err(error) => return (Vec::new(), Err(error)),
        };
        let written = async {
            for rows in group.rows.chunks(ROW_GROUP_ROWS) {
                let chunks = expansion.encode(rows, writer.target()).await?;
                writer.write_row_group(chunks).await?;
            }
            writer.close().await
        };
        let written = written.await;
        (writer.into_closed().await, written)
    }

    async fn commit(&self, files: &[DataFile], newest_received_at: Option<i64>) -> Result<()> {
        let now = self.table.now_millis();
        let moved: Vec<&PartitionReader> = self.readers.iter().filter(|reader| !reader.range().is_empty()).collect();
        let offsets: Vec<_> =
            moved.iter().map(|reader| format!("{}:{}", reader.topic_partition, reader.range())).collect();
        let change = Change {
            operation: "STREAMING UPDATE",
            parameters: vec![("offsets", offsets.join(" ").into())],
            txns: moved.iter().map(|reader| (reader.app_id.clone(), reader.next.0)).collect(),
            own: OwnInfo { ledger: self.buffer.tally.entries(), newest_received_at, ..Default::default() },
            files: NewFiles::new(files, now, true),
            ..Default::default()
        };
        let table = self.table.spec.name;
        let bases: Vec<_> = moved
            .iter()
            .map(|reader| (reader.app_id.clone(), reader.topic_partition, reader.base, reader.start))
            .collect();
        let guard = move |state: &TableState| {
            for (app_id, topic_partition, base, start) in &bases {
                let stored = state.txns.get(app_id).copied();
                if stored != *base {
                    let stored = events::Offset(stored.unwrap_or_default());
                    return Err(Error::Fenced { table, topic_partition: *topic_partition, start: *start, stored });
                }
            }
            Ok(())
        };
        self.table.commit(&change, &guard).await.map(|_| ())
    }

    async fn committed(&mut self, files: &[DataFile], newest_received_at: Option<i64>) -> Result<()> {
        self.steps.at(Step::Committed)?;
        let name = self.table.spec.name;
        self.metrics.landed_rows.with_label_values(&[name]).inc_by(files.iter().map(|file| file.rows).sum());
        self.metrics.landed_bytes.with_label_values(&[name]).inc_by(files.iter().map(|file| file.bytes).sum());
        for reader in self.readers.iter_mut().filter(|reader| reader.is_positioned()) {
            self.metrics.dedup_evicted_early.inc_by(reader.take_evicted_early());
            if !reader.range().is_empty() {
                reader.landed();
                self.log.commit(READER, reader.topic_partition, reader.next);
            }
        }
        self.buffer = Buffer::default();
        let newest = newest_received_at.filter(|_| self.topic == Topic::Events).map(UnixMicros);
        self.status.set_landed(Some(self.runtime.clock.now()), newest);
        self.landed.notify_one();
        self.report().await
    }

    async fn not_committed(&mut self, files: &[DataFile], error: Error) -> Result<()> {
        let never_visible = matches!(error, Error::Fenced { .. } | Error::Contended { .. });
        if never_visible {
            discard(&self.table, files).await;
        }
        if let Error::Fenced { .. } = error {
            tracing::info!(topic = %self.topic, %error, "batch dropped, reading again from where the table stands");
            self.metrics.fenced_batches.with_label_values(&[self.table.spec.name]).inc();
            self.buffer = Buffer::default();
            self.readers.iter_mut().for_each(PartitionReader::unposition);
            return Ok(());
        }
        Err(error)
    }

    async fn report(&mut self) -> Result<()> {
        let mut progress = TopicProgress::default();
        for reader in self.readers.iter_mut().filter(|reader| reader.is_held()) {
            if let Ok(held) = self.log.bounds(reader.topic_partition).await {
                reader.end = reader.end.max(held.end);
            }
            progress.lag_records += (reader.end.0 - reader.start.0).max(0) as u64;
            progress.stopped.extend(reader.stopped.clone());
        }
        let held = self.readers.iter().filter(|reader| reader.is_held());
        progress.oldest_waiting_at = held.filter_map(PartitionReader::waiting_since).min();
        self.metrics.lag_records.with_label_values(&[self.table.spec.name]).set(progress.lag_records as i64);
        self.status.set_topic(self.topic, progress);
        Ok(())
    }
}

/// Resolves when the assignment changes or shutdown begins.
async fn interrupted(assignment: &Assignment, shutdown: &Shutdown) {
    tokio::select! {
        () = assignment.changed() => {}
        () = shutdown.begun() => {}
    }
}

/// The answer of `work`, or nothing if `signal` comes first.
pub(crate) async fn unless<T>(work: impl Future<Output = T>, signal: impl Future) -> Option<T> {
    tokio::select! {
        biased;
        answer = work => Some(answer),
        _ = signal => None,
    }
}

/// A partition that can never go on is left out, loudly; the others go on.
fn stop_if_fatal(reader: &mut PartitionReader, result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::Fatal => {
            tracing::error!(topic_partition = %reader.topic_partition, %error, "partition stopped");
            reader.stopped = Some(format!("{}: {error}", reader.topic_partition));
            Ok(())
        }
        result => result,
    }
}

#[cfg(test)]
pub(crate) mod tests;

#[cfg(test)]
mod s3;
