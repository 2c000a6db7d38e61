//! A log in memory, for tests and simulation: same contract, nothing survives the process.
//!
//! Faults are put in by the test that needs them: [`MemoryLog::fail_appends`] loses or repeats acknowledgements.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use events::{Offset, OffsetRange, Topic, TopicId, TopicPartition};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use runtime::{Clock, UnixMicros};
use tokio::sync::Notify;

use crate::traced::{Fate, Fates, RecordId, TracedLog, TracedRecord};
use crate::traceparent::TraceParent;
use crate::{AppendRecord, Error, FetchedRecord, LogReader, LogWriter, Result, WriterHealth};

/// What becomes of the next appends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendFault {
    /// The record is not written and the caller gets an error.
    Refused,
    /// The record is written and the caller gets an error all the same.
    AcknowledgementLost,
}

/// A log in memory. Clones share one log.
#[derive(Clone)]
pub struct MemoryLog(Arc<Shared>);

struct Shared {
    clock: Clock,
    partitions: [u32; 3],
    topic_ids: [TopicId; 3],
    state: Mutex<State>,
    appended: Notify,
}

#[derive(Default)]
struct State {
    records: BTreeMap<TopicPartition, Held>,
    committed: BTreeMap<(&'static str, TopicPartition), Offset>,
    faults: Vec<AppendFault>,
}

struct Kept {
    appended_at: UnixMicros,
    id: Option<RecordId>,
    trace: Option<TraceParent>,
    frame: Bytes,
}

#[derive(Default)]
struct Held {
    first: i64,
    records: Vec<Kept>,
}

impl Held {
    fn range(&self) -> OffsetRange {
        OffsetRange::new(Offset(self.first), Offset(self.first + self.records.len() as i64))
    }
}

impl MemoryLog {
    /// A log with `partitions` partitions for events, contexts and dead letters; `generation` becomes part of its topic ids.
    pub fn new(clock: Clock, partitions: [u32; 3], generation: &str) -> Self {
        let topic_ids = Topic::ALL.map(|topic| TopicId(format!("{generation}-{topic}").into()));
        let appended = Notify::new();
        Self(Arc::new(Shared { clock, partitions, topic_ids, state: Mutex::default(), appended }))
    }

    /// The next appends meet these faults, one each.
    pub fn fail_appends(&self, faults: impl IntoIterator<Item = AppendFault>) {
        self.0.state.lock().faults.extend(faults);
    }

    /// Removes records before `first`, as retention would.
    pub fn truncate_before(&self, topic_partition: TopicPartition, first: Offset) {
        let mut state = self.0.state.lock();
        let held = state.records.entry(topic_partition).or_default();
        let count = (first.0 - held.first).clamp(0, held.records.len() as i64);
        held.records.drain(..count as usize);
        held.first += count;
    }

    /// Frames of all records of a partition that are held.
    pub fn records(&self, topic_partition: TopicPartition) -> Vec<Bytes> {
        let state = self.0.state.lock();
        let held = state.records.get(&topic_partition).into_iter();
        held.flat_map(|held| held.records.iter().map(|kept| kept.frame.clone())).collect()
    }

    /// What is held of a partition.
    pub fn range(&self, topic_partition: TopicPartition) -> OffsetRange {
        self.0.state.lock().records.entry(topic_partition).or_default().range()
    }

    /// What `reader` has committed for a partition.
    pub fn committed(&self, reader: &'static str, topic_partition: TopicPartition) -> Option<Offset> {
        self.0.state.lock().committed.get(&(reader, topic_partition)).copied()
    }

    fn write(
        &self,
        records: impl Iterator<Item = (Option<RecordId>, Option<UnixMicros>, AppendRecord)>,
    ) -> Result<Vec<Offset>> {
        let now = self.0.clock.now();
        let mut state = self.0.state.lock();
        let fault = if state.faults.is_empty() { None } else { Some(state.faults.remove(0)) };
        if fault == Some(AppendFault::Refused) {
            return Err(Error::Closed);
        }
        let mut offsets = Vec::new();
        for (id, taken_at, record) in records {
            let held = state.records.entry(record.topic_partition).or_default();
            offsets.push(held.range().end);
            let AppendRecord { trace, frame, .. } = record;
            held.records.push(Kept { appended_at: taken_at.unwrap_or(now), id, trace, frame });
        }
        drop(state);
        self.0.appended.notify_waiters();
        if fault.is_some() { Err(Error::Closed) } else { Ok(offsets) }
    }

    fn read(&self, topic_partition: TopicPartition, from: Offset, bytes_max: usize) -> Result<Vec<FetchedRecord>> {
        let mut state = self.0.state.lock();
        let held = state.records.entry(topic_partition).or_default();
        let range = held.range();
        if from < range.start || from > range.end {
            return Err(Error::OffsetOutOfRange { topic_partition, from, held: range });
        }
        let mut bytes = 0;
        let mut fetched = Vec::new();
        for (index, kept) in held.records.iter().enumerate().skip((from.0 - held.first) as usize) {
            bytes += kept.frame.len();
            if bytes > bytes_max && !fetched.is_empty() {
                break;
            }
            let offset = Offset(held.first + index as i64);
            let Kept { appended_at, id, trace, ref frame } = *kept;
            fetched.push(FetchedRecord { offset, appended_at, id, trace, frame: frame.clone() });
        }
        Ok(fetched)
    }
}

impl LogWriter for MemoryLog {
    fn append(&self, records: Vec<AppendRecord>) -> BoxFuture<'_, Result<Vec<Offset>>> {
        Box::pin(async move { self.write(records.into_iter().map(|record| (None, None, record))) })
    }

    fn partitions(&self, topic: Topic) -> u32 {
        self.0.partitions[topic as usize]
    }

    fn health(&self) -> WriterHealth {
        WriterHealth::Ready
    }
}

impl TracedLog for MemoryLog {
    fn send(&self, records: Vec<TracedRecord>) -> Result<Fates> {
        let count = records.len();
        let traced = records.into_iter().map(|traced| (Some(traced.id), traced.taken_at, traced.record));
        let fates = match self.write(traced) {
            Ok(offsets) => offsets.into_iter().map(Fate::Stored).collect(),
            Err(error) => vec![Fate::Unknown(error); count],
        };
        let (answer, outcome) = tokio::sync::oneshot::channel();
        // The receiver is below.
        let _ = answer.send(fates);
        Ok(outcome)
    }

    fn end_seen(&self, topic_partition: TopicPartition) -> Offset {
        self.0.state.lock().records.get(&topic_partition).map_or(Offset(0), |held| held.range().end)
    }
}

impl LogReader for MemoryLog {
    fn partitions(&self, topic: Topic) -> u32 {
        self.0.partitions[topic as usize]
    }

    fn topic_id(&self, topic: Topic) -> TopicId {
        self.0.topic_ids[topic as usize].clone()
    }

    fn fetch(
        &self,
        topic_partition: TopicPartition,
        from: Offset,
        bytes_max: usize,
        wait_max: Duration,
    ) -> BoxFuture<'_, Result<Vec<FetchedRecord>>> {
        Box::pin(async move {
            let deadline = tokio::time::Instant::now() + wait_max;
            loop {
                let appended = self.0.appended.notified();
                tokio::pin!(appended);
                appended.as_mut().enable();
                let fetched = self.read(topic_partition, from, bytes_max)?;
                if !fetched.is_empty() || tokio::time::timeout_at(deadline, appended).await.is_err() {
                    return Ok(fetched);
                }
            }
        })
    }

    fn bounds(&self, topic_partition: TopicPartition) -> BoxFuture<'_, Result<OffsetRange>> {
        Box::pin(async move { Ok(self.range(topic_partition)) })
    }

    fn offset_at(&self, topic_partition: TopicPartition, time: UnixMicros) -> BoxFuture<'_, Result<Offset>> {
        Box::pin(async move {
            let mut state = self.0.state.lock();
            let held = state.records.entry(topic_partition).or_default();
            let index = held.records.partition_point(|kept| kept.appended_at < time);
            Ok(Offset(held.first + index as i64))
        })
    }

    fn register(&self, reader: &'static str, topic: Topic) {
        let mut state = self.0.state.lock();
        for partition in 0..self.0.partitions[topic as usize] {
            let topic_partition = TopicPartition::new(topic, partition);
            let first = state.records.entry(topic_partition).or_default().range().start;
            state.committed.entry((reader, topic_partition)).or_insert(first);
        }
    }

    fn commit(&self, reader: &'static str, topic_partition: TopicPartition, next: Offset) {
        let mut state = self.0.state.lock();
        let committed = state.committed.entry((reader, topic_partition)).or_default();
        *committed = next.max(*committed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: TopicPartition = TopicPartition::new(Topic::Events, 0);

    fn record(byte: u8) -> AppendRecord {
        AppendRecord::new(EVENTS, Bytes::from(vec![byte; 10]))
    }

    fn log() -> MemoryLog {
        MemoryLog::new(Clock::system(), [1, 1, 1], "test")
    }

    #[tokio::test]
    async fn fetch_waits_for_the_first_record() {
        let log = log();
        let reader = log.clone();
        let fetch = tokio::spawn(async move { reader.fetch(EVENTS, Offset(0), 100, Duration::from_secs(60)).await });
        assert_eq!(log.append(vec![record(1), record(2)]).await.unwrap(), [Offset(0), Offset(1)]);
        assert_eq!(fetch.await.unwrap().unwrap().len(), 2);
    }

    #[tokio::test]
    async fn one_record_comes_even_if_it_is_larger_than_asked() {
        let log = log();
        log.append(vec![record(1), record(2)]).await.unwrap();
        assert_eq!(log.fetch(EVENTS, Offset(0), 1, Duration::ZERO).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn truncated_start_is_an_error() {
        let log = log();
        log.append(vec![record(1), record(2)]).await.unwrap();
        log.truncate_before(EVENTS, Offset(1));
        let error = log.fetch(EVENTS, Offset(0), 100, Duration::ZERO).await.unwrap_err();
        assert!(matches!(error, Error::OffsetOutOfRange { .. }));
        assert_eq!(log.bounds(EVENTS).await.unwrap(), OffsetRange::new(Offset(1), Offset(2)));
    }

    #[tokio::test]
    async fn lost_acknowledgement_keeps_the_record() {
        let log = log();
        log.fail_appends([AppendFault::Refused, AppendFault::AcknowledgementLost]);
        assert!(log.append(vec![record(1)]).await.is_err());
        assert!(log.append(vec![record(2)]).await.is_err());
        assert_eq!(log.bounds(EVENTS).await.unwrap().end, Offset(1));
    }
}
