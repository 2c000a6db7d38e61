//! A log in memory that does what a test tells it to, and a store in memory.

use std::collections::VecDeque;
use std::time::Duration;

use events::{OffsetRange, TopicId};
use runtime::{Clock, UnixMicros};
use tokio::sync::oneshot;

use super::*;
use crate::memory::MemoryLog;
use crate::{FetchedRecord, LogReader};

/// What becomes of one call of `send`.
#[derive(Clone, Copy, Debug)]
pub(super) enum Act {
    Store,
    Refuse,
    /// Nothing is handed over.
    Backlogged,
    /// After a time it is told that the records are not there.
    Absent(Duration),
    /// They are stored, if at all, after the first time; what it knows, if anything, is told after the second.
    Late {
        stored: Option<Duration>,
        told: Duration,
        knows: bool,
    },
}

type Chooser = Box<dyn FnMut() -> Act + Send>;

pub(super) struct FaultyLog {
    memory: MemoryLog,
    clock: Clock,
    script: Mutex<VecDeque<Act>>,
    chooser: Mutex<Option<Chooser>>,
    away: Mutex<Option<String>>,
}

impl FaultyLog {
    pub fn new(memory: MemoryLog, clock: &Clock) -> Self {
        let (clock, script) = (clock.clone(), Mutex::default());
        Self { memory, clock, script, chooser: Mutex::default(), away: Mutex::default() }
    }

    /// The next calls.
    pub fn acts(&self, acts: impl IntoIterator<Item = Act>) {
        self.script.lock().extend(acts);
    }

    /// All further calls.
    pub fn choose(&self, chooser: impl FnMut() -> Act + Send + 'static) {
        *self.chooser.lock() = Some(Box::new(chooser));
    }

    pub fn set_away(&self, is_away: bool) {
        *self.away.lock() = is_away.then(|| "away".to_owned());
    }

    /// All records, partition after partition.
    pub fn numbers(&self) -> Vec<u32> {
        ALL.into_iter().flat_map(|place| self.numbers_of(place)).collect()
    }

    pub fn numbers_of(&self, place: TopicPartition) -> Vec<u32> {
        let records = self.memory.records(place);
        records.iter().map(|frame| u32::from_le_bytes(frame[..].try_into().unwrap())).collect()
    }

    fn next(&self) -> Act {
        let scripted = self.script.lock().pop_front();
        scripted.unwrap_or_else(|| self.chooser.lock().as_mut().map_or(Act::Store, |choose| choose()))
    }
}

fn error() -> Error {
    Error::Unacknowledged { topic_partition: EVENTS, reason: "a test".into() }
}

impl TracedLog for FaultyLog {
    fn send(&self, records: Vec<TracedRecord>) -> Result<Fates> {
        let count = records.len();
        let (answer, fates) = oneshot::channel();
        match self.next() {
            Act::Store => return self.memory.send(records),
            Act::Backlogged => return Err(Error::Backlogged { pending_bytes: 1, max_bytes: 1 }),
            Act::Refuse => {
                let _ = answer.send(vec![Fate::Refused(Error::RecordTooLarge { bytes: 1, max_bytes: 0 }); count]);
            }
            Act::Absent(after) => {
                let clock = self.clock.clone();
                tokio::spawn(async move {
                    clock.wait(after).await;
                    let _ = answer.send(vec![Fate::Absent(error()); count]);
                });
            }
            Act::Late { stored, told, knows } => {
                let (memory, clock) = (self.memory.clone(), self.clock.clone());
                // The network, which outlives the process.
                let effect = tokio::spawn({
                    let clock = clock.clone();
                    async move {
                        clock.wait(stored?).await;
                        memory.send(records).ok()?.await.ok()
                    }
                });
                tokio::spawn(async move {
                    clock.wait(told).await;
                    let unknown = vec![Fate::Unknown(error()); count];
                    let known = if knows { effect.await.ok().flatten() } else { None };
                    let _ = answer.send(known.unwrap_or(unknown));
                });
            }
        }
        Ok(fates)
    }

    fn end_seen(&self, topic_partition: TopicPartition) -> Offset {
        self.memory.end_seen(topic_partition)
    }
}

impl LogWriter for FaultyLog {
    fn append(&self, records: Vec<AppendRecord>) -> BoxFuture<'_, Result<Vec<Offset>>> {
        self.memory.append(records)
    }

    fn partitions(&self, topic: Topic) -> u32 {
        LogWriter::partitions(&self.memory, topic)
    }

    fn health(&self) -> WriterHealth {
        self.away.lock().clone().map_or(WriterHealth::Ready, WriterHealth::Unavailable)
    }
}

impl LogReader for FaultyLog {
    fn partitions(&self, topic: Topic) -> u32 {
        LogReader::partitions(&self.memory, topic)
    }

    fn topic_id(&self, topic: Topic) -> TopicId {
        self.memory.topic_id(topic)
    }

    fn fetch(
        &self,
        topic_partition: TopicPartition,
        from: Offset,
        bytes_max: usize,
        wait_max: Duration,
    ) -> BoxFuture<'_, Result<Vec<FetchedRecord>>> {
        self.memory.fetch(topic_partition, from, bytes_max.min(8), wait_max)
    }

    fn bounds(&self, topic_partition: TopicPartition) -> BoxFuture<'_, Result<OffsetRange>> {
        self.memory.bounds(topic_partition)
    }

    fn offset_at(&self, topic_partition: TopicPartition, time: UnixMicros) -> BoxFuture<'_, Result<Offset>> {
        self.memory.offset_at(topic_partition, time)
    }

    fn register(&self, _reader: &'static str, _topic: Topic) {}

    fn commit(&self, _reader: &'static str, _topic_partition: TopicPartition, _next: Offset) {}
}

/// What it holds is durable at once.
pub(super) struct MemoryStore {
    memory: MemoryLog,
    notes: Mutex<Option<Vec<u8>>>,
    pub is_full: AtomicBool,
}

impl MemoryStore {
    pub fn new(memory: MemoryLog) -> Self {
        Self { memory, notes: Mutex::default(), is_full: AtomicBool::new(false) }
    }
}

impl Store for MemoryStore {
    fn append(&self, records: Vec<AppendRecord>) -> BoxFuture<'_, Result<Vec<Offset>>> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            if self.is_full.load(Ordering::Relaxed) {
                return Err(Error::Full { held_bytes: 1, max_bytes: 1 });
            }
            let offsets = self.memory.append(records).await;
            tokio::task::yield_now().await;
            offsets
        })
    }

    fn health(&self) -> WriterHealth {
        match self.is_full.load(Ordering::Relaxed) {
            false => WriterHealth::Ready,
            true => WriterHealth::Unavailable("full".into()),
        }
    }

    fn fetch(
        &self,
        topic_partition: TopicPartition,
        from: Offset,
        bytes_max: usize,
    ) -> BoxFuture<'_, Result<Vec<FetchedRecord>>> {
        self.memory.fetch(topic_partition, from, bytes_max, Duration::ZERO)
    }

    fn range(&self, topic_partition: TopicPartition) -> OffsetRange {
        self.memory.range(topic_partition)
    }

    fn release(&self, topic_partition: TopicPartition, next: Offset) {
        self.memory.truncate_before(topic_partition, next);
    }

    fn bytes(&self) -> u64 {
        0
    }

    fn notes(&self) -> Option<Vec<u8>> {
        self.notes.lock().clone()
    }

    fn note(&self, notes: Vec<u8>) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            *self.notes.lock() = Some(notes);
            tokio::task::yield_now().await;
            Ok(())
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}
