//! Reads one partition of the log from where the table stands, and drops repeated payloads.
//!
//! In: records of the log. Out: [`Taken`]: decoded frames with their offset and the payloads to drop, or the bytes of a
//! record that cannot be decoded.
//! Promise: every record from the table's offset on is handed out once and in order, until [`PartitionReader::position`]
//! is called again. The start offset comes from the table, never from the log's own bookkeeping.
//! A payload counts as seen if it stands before in the partition: after a restart the window is rebuilt from the index
//! of the frames before the start offset, so that what landed before the restart is still known after it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use eventlog::{FetchedRecord, LogReader, frame};
use events::{Offset, OffsetRange, TopicPartition};
use runtime::UnixMicros;

use crate::dedup::DedupWindow;
use crate::expand::FrameRows;
use crate::table::state::TableState;
use crate::{Error, Result};

/// Name under which retention of the log waits for us.
pub(crate) const READER: &str = "compactor";

/// Encoded bytes fetched at once; a record unpacks to several times its size.
const FETCH_BYTES_MAX: usize = 1 << 20;
const REBUILD_FETCH_BYTES: usize = 8 << 20;

/// One record, taken from the log.
pub(crate) enum Taken {
    Frame(FrameRows),
    /// Its bytes go to the dead letters, the partition goes on.
    Poisoned(Poisoned),
}

/// A record that cannot be decoded.
#[derive(Clone, Debug)]
pub(crate) struct Poisoned {
    pub topic_partition: TopicPartition,
    /// Names topic and partition with the identity of the log.
    pub app_id: String,
    pub offset: Offset,
    pub appended_at: UnixMicros,
    pub what: String,
    pub bytes: Bytes,
}

/// Place of one partition: what the table covers, what was taken since, what was fetched.
pub(crate) struct PartitionReader {
    pub topic_partition: TopicPartition,
    /// Name of the partition in the table's `txn` actions.
    pub app_id: String,
    /// What the table said when the reader was positioned; `None` if it had never heard of the partition.
    pub base: Option<i64>,
    /// One past the last record taken.
    pub next: Offset,
    /// First record that is taken but not landed.
    pub start: Offset,
    /// One past the last record of the log, as last seen.
    pub end: Offset,
    /// When the log had taken the first record that is not landed, as far as known.
    waiting_since: Option<UnixMicros>,
    /// The same of the last record taken.
    reached: Option<UnixMicros>,
    positioned: bool,
    /// Whether this process works on it.
    held: bool,
    /// Why this partition does not go on.
    pub stopped: Option<String>,
    window: DedupWindow,
    fetched: VecDeque<FetchedRecord>,
}

/// Length of a window and its bound on entries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DedupSettings {
    pub window: Duration,
    pub entries_max: usize,
}

impl PartitionReader {
    pub fn new(log: &dyn LogReader, topic_partition: TopicPartition, dedup: DedupSettings) -> Self {
        Self {
            topic_partition,
            app_id: app_id(log, topic_partition),
            base: None,
            next: Offset(0),
            start: Offset(0),
            end: Offset(0),
            waiting_since: None,
            reached: None,
            positioned: false,
            held: true,
            stopped: None,
            window: DedupWindow::new(dedup.window, dedup.entries_max),
            fetched: VecDeque::new(),
        }
    }

    pub fn is_positioned(&self) -> bool {
        self.positioned
    }

    pub fn is_held(&self) -> bool {
        self.held
    }

    /// Whether [`Self::position`] is to be called before anything is taken.
    pub fn needs_place(&self) -> bool {
        self.held && !self.positioned && self.stopped.is_none()
    }

    /// Whether records are to be taken from it.
    pub fn is_at_work(&self) -> bool {
        self.positioned && self.stopped.is_none()
    }

    /// Forgets what was taken; [`Self::position`] follows.
    pub fn unposition(&mut self) {
        self.positioned = false;
        self.fetched.clear();
    }

    /// Whether this process works on it from now on. When it is held again after it was not, another process may have
    /// moved the table's offset, and what stopped it may be over.
    pub fn set_held(&mut self, held: bool) {
        if self.held && !held {
            self.unposition();
            self.next = self.start;
            self.stopped = None;
            self.waiting_since = None;
            self.window.clear();
        }
        self.held = held;
    }

    pub fn range(&self) -> OffsetRange {
        OffsetRange::new(self.start, self.next)
    }

    /// Looks how far behind the table is, without taking a place: rebuilding the window can take long.
    pub async fn look(&mut self, stored: &Stored, log: &dyn LogReader) -> Result<()> {
        let held = log.bounds(self.topic_partition).await?;
        let start = stored.offset.map_or(held.start, |offset| Offset(offset.clamp(held.start.0, held.end.0)));
        (self.start, self.next, self.end) = (start, start, held.end);
        self.waiting_since = self.time_at(log, start).await?;
        Ok(())
    }

    /// When the log took the record at an offset.
    async fn time_at(&self, log: &dyn LogReader, offset: Offset) -> Result<Option<UnixMicros>> {
        let records = log.fetch(self.topic_partition, offset, 1, Duration::ZERO).await?;
        Ok(records.first().map(|record| record.appended_at))
    }

    /// Goes to where the table stands and rebuilds the window of payload ids before it.
    ///
    /// # Errors
    /// `TopicReplaced` or `OffsetLost` (kind `Fatal`) if log and table do not fit together.
    pub async fn position(
        &mut self,
        table: &'static str,
        stored: &Stored,
        log: &dyn LogReader,
        dedup: DedupSettings,
    ) -> Result<()> {
        self.unposition();
        let held = log.bounds(self.topic_partition).await?;
        self.base = stored.offset;
        self.start = match (stored.offset, &stored.other_log) {
            (Some(offset), _) if offset < held.start.0 || offset > held.end.0 => {
                let topic_partition = self.topic_partition;
                return Err(Error::OffsetLost { topic_partition, stored: Offset(offset), held });
            }
            (Some(offset), _) => Offset(offset),
            (None, Some(known)) => {
                let found = self.app_id.clone();
                return Err(Error::TopicReplaced {
                    table,
                    topic_partition: self.topic_partition,
                    known: known.clone(),
                    found,
                });
            }
            (None, None) => held.start,
        };
        self.next = self.start;
        self.end = held.end;
        self.window = DedupWindow::new(dedup.window, dedup.entries_max);
        self.waiting_since = self.time_at(log, self.start).await?;
        // While there is no record at the start, the one before. Never our own clock: set an hour ahead, it would put the
        // window behind everything that the log holds.
        let start_time = match self.waiting_since {
            None if self.start > held.start => self.time_at(log, Offset(self.start.0 - 1)).await?,
            time => time,
        };
        if let Some(time) = start_time {
            self.rebuild_window(log, time.saturating_sub(dedup.window)).await?;
        }
        self.positioned = true;
        Ok(())
    }

    /// Peeks into every record from a time on up to the start offset.
    async fn rebuild_window(&mut self, log: &dyn LogReader, since: UnixMicros) -> Result<()> {
        let mut offset = log.offset_at(self.topic_partition, since).await?;
        while offset < self.start {
            let records = log.fetch(self.topic_partition, offset, REBUILD_FETCH_BYTES, Duration::ZERO).await?;
            let Some(last) = records.last() else { break };
            offset = last.offset.next();
            for record in records.iter().filter(|record| record.offset < self.start) {
                // An unreadable record has no payloads to remember; it went to the dead letters when it was its turn.
                let Ok(index) = frame::peek(&record.frame) else { continue };
                for payload in &index.payloads {
                    self.window.insert(payload, record.appended_at);
                }
            }
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Records after those already fetched; waits up to `wait_max` for the first. Changes nothing: see [`Self::accept`].
    pub async fn fetch(&self, log: &dyn LogReader, wait_max: Duration) -> Result<Vec<FetchedRecord>> {
        Ok(log.fetch(self.topic_partition, self.next, FETCH_BYTES_MAX, wait_max).await?)
    }

    pub fn accept(&mut self, records: Vec<FetchedRecord>) {
        assert!(self.fetched.is_empty(), "records of {} fetched twice", self.topic_partition);
        assert!(
            records.first().is_none_or(|record| record.offset >= self.next),
            "{} went backwards",
            self.topic_partition
        );
        if let Some(first) = records.first() {
            self.waiting_since.get_or_insert(first.appended_at);
        }
        records.iter().for_each(|record| record.tell(crate::LOG_READER, self.topic_partition));
        self.fetched = records.into();
    }

    /// What was taken is in the table now.
    pub fn landed(&mut self) {
        self.base = Some(self.next.0);
        self.start = self.next;
        let fetched = self.fetched.front().map(|record| record.appended_at);
        // What follows the last record taken is hardly younger than that.
        self.waiting_since = fetched.or(self.reached.filter(|_| self.end > self.next));
    }

    /// When the log had taken the oldest record that is not landed; `None` if there is none, or it was not read yet.
    pub fn waiting_since(&self) -> Option<UnixMicros> {
        self.waiting_since.filter(|_| self.end > self.start)
    }

    /// Records of the log that are not taken yet, as far as known.
    pub fn waiting(&self) -> i64 {
        self.end.0 - self.next.0
    }

    pub fn has_fetched(&self) -> bool {
        !self.fetched.is_empty()
    }

    /// The next fetched record, decoded and checked for repetitions.
    pub fn take(&mut self) -> Option<Taken> {
        let record = self.fetched.pop_front()?;
        self.next = record.offset.next();
        self.end = self.end.max(self.next);
        self.reached = Some(record.appended_at);
        self.waiting_since.get_or_insert(record.appended_at);
        Some(match self.open(&record) {
            Ok(rows) => Taken::Frame(rows),
            Err(what) => Taken::Poisoned(Poisoned {
                topic_partition: self.topic_partition,
                app_id: self.app_id.clone(),
                offset: record.offset,
                appended_at: record.appended_at,
                what,
                bytes: record.frame,
            }),
        })
    }

    pub fn take_evicted_early(&mut self) -> u64 {
        self.window.take_evicted_early()
    }

    fn open(&mut self, record: &FetchedRecord) -> std::result::Result<FrameRows, String> {
        let index = frame::peek(&record.frame).map_err(|error| error.to_string())?;
        let batch = frame::decode(&record.frame).map_err(|error| error.to_string())?;
        if batch.topic() != self.topic_partition.topic {
            return Err(format!("a record of topic {} in {}", batch.topic(), self.topic_partition));
        }
        if index.payloads.len() != batch.payloads().map_or(0, arrow::array::RecordBatch::num_rows) {
            return Err(format!("index of {} payloads does not fit the body", index.payloads.len()));
        }
        let dropped = index.payloads.iter().map(|payload| !self.window.insert(payload, record.appended_at)).collect();
        let not_rows = || "sightings have no rows for a table".to_owned();
        FrameRows::new(self.topic_partition, record.offset, batch, dropped).ok_or_else(not_rows)
    }
}

/// What a table knows of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stored {
    pub offset: Option<i64>,
    /// Set if it knows the topic only under another identity.
    pub other_log: Option<String>,
}

impl Stored {
    pub fn of(state: &TableState, reader: &PartitionReader) -> Self {
        let offset = state.txns.get(&reader.app_id).copied();
        let topic = |app_id: &str| app_id.rsplit_once('/').map(|(topic, _)| topic.to_owned()).unwrap_or_default();
        let (own, prefix) = (topic(&reader.app_id), format!("{}/", reader.topic_partition.topic));
        // A partition that was added to a known topic is no replacement.
        let known = || state.txns.keys().any(|app_id| topic(app_id) == own);
        let other = || state.txns.keys().find(|app_id| app_id.starts_with(&prefix) && topic(app_id) != own);
        let other_log = if offset.is_some() || known() { None } else { other().cloned() };
        Self { offset, other_log }
    }
}

/// Shared by the readers of a process.
/// Name under which a table knows a partition of this log.
pub(crate) fn app_id(log: &dyn LogReader, topic_partition: TopicPartition) -> String {
    let TopicPartition { topic, partition } = topic_partition;
    format!("{topic}/{}/{partition}", log.topic_id(topic))
}

pub(crate) fn readers(log: &Arc<dyn LogReader>, topic: events::Topic, dedup: DedupSettings) -> Vec<PartitionReader> {
    log.register(READER, topic);
    let partitions = log.partitions(topic);
    (0..partitions)
        .map(|partition| PartitionReader::new(log.as_ref(), TopicPartition::new(topic, partition), dedup))
        .collect()
}
