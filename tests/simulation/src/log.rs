//! The log of a seed, and one process's way to it.
//!
//! [`SimulatedLog`] keeps every record that ever became durable, also what retention removes, as the oracle's book.
//! [`NodeLog`] is the log as one process sees it: appends take time, fail before or after their effect, take effect late,
//! in part or twice, or are never answered.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use eventlog::memory::MemoryLog;
use eventlog::{AppendRecord, Error, FetchedRecord, LogReader, LogWriter, Result, WriterHealth, frame};
use events::{Offset, OffsetRange, Topic, TopicId, TopicPartition};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use runtime::UnixMicros;

use crate::node::Node;
use crate::planted::Planted;
use crate::store::Bucket;
use crate::world::{Fate, Service, World};

/// Records younger than this are kept, as the window of payload ids is rebuilt from them.
const KEPT: Duration = Duration::from_secs(15 * 60);

/// All records, by partition: when the log took each, and its bytes.
pub type Book = BTreeMap<TopicPartition, Vec<(UnixMicros, Bytes)>>;

/// What went too early from a partition.
#[derive(Clone, Copy, Debug)]
pub struct Truncated {
    /// First offset that nobody had read; equal to `before` if all was read.
    pub unread: i64,
    /// First offset that is still there.
    pub before: i64,
}

impl Truncated {
    pub fn has_lost_rows(self) -> bool {
        self.unread < self.before
    }
}

pub struct SimulatedLog {
    world: Arc<World>,
    memory: MemoryLog,
    book: Mutex<Book>,
    truncated: Mutex<BTreeMap<TopicPartition, Truncated>>,
}

impl SimulatedLog {
    pub fn new(world: &Arc<World>) -> Arc<Self> {
        Arc::new(Self {
            world: Arc::clone(world),
            memory: MemoryLog::new(world.clock.clone(), world.plan.partitions, "one"),
            book: Mutex::default(),
            truncated: Mutex::default(),
        })
    }

    pub fn book(&self) -> Book {
        self.book.lock().clone()
    }

    pub fn truncated(&self) -> BTreeMap<TopicPartition, Truncated> {
        self.truncated.lock().clone()
    }

    pub fn end(&self, topic_partition: TopicPartition) -> i64 {
        self.book.lock().get(&topic_partition).map_or(0, |records| records.len() as i64)
    }

    pub fn topic_partitions(&self) -> Vec<TopicPartition> {
        let of = |topic: Topic| {
            (0..LogReader::partitions(&self.memory, topic)).map(move |number| TopicPartition::new(topic, number))
        };
        Topic::ALL.into_iter().flat_map(of).collect()
    }

    /// Name of a partition in the tables' offsets.
    pub fn app_id(&self, topic_partition: TopicPartition) -> String {
        let topic = topic_partition.topic;
        format!("{topic}/{}/{}", self.memory.topic_id(topic), topic_partition.partition)
    }

    pub async fn write(&self, who: &str, records: Vec<AppendRecord>) -> Result<Vec<Offset>> {
        let now = self.world.clock.now();
        let offsets = self.memory.append(records.clone()).await?;
        let mut book = self.book.lock();
        for (record, offset) in records.into_iter().zip(&offsets) {
            self.world.note(format_args!("{who} appends {}@{offset}", record.topic_partition));
            let kept = book.entry(record.topic_partition).or_default();
            assert_eq!(kept.len() as i64, offset.0, "the log gave an offset twice");
            kept.push((now, record.frame));
        }
        Ok(offsets)
    }

    /// Removes what is old and what `readers` have committed, as retention does.
    pub fn trim(&self, readers: &[(&'static str, &[Topic])]) {
        let now = self.world.clock.now();
        for topic_partition in self.topic_partitions() {
            let mut committed = readers
                .iter()
                .filter(|(_, topics)| topics.contains(&topic_partition.topic))
                .map(|(reader, _)| self.memory.committed(reader, topic_partition).unwrap_or_default());
            let Some(first_needed) = committed.next().map(|first| committed.fold(first, Offset::min)) else { continue };
            let old = |records: &Vec<(UnixMicros, Bytes)>| records.partition_point(|(at, _)| now.since(*at) > KEPT);
            let first_young = self.book.lock().get(&topic_partition).map_or(0, old);
            let first = Offset(first_needed.0.min(first_young as i64));
            self.world.note(format_args!("log trims {topic_partition} before {first}"));
            self.memory.truncate_before(topic_partition, first);
        }
    }

    /// Removes everything of a partition, read or not.
    pub fn truncate(&self, topic_partition: TopicPartition) {
        let end = Offset(self.end(topic_partition));
        let unread = self.memory.committed(compactor::LOG_READER, topic_partition).unwrap_or_default();
        self.world.note(format_args!("log truncates {topic_partition} before {end}"));
        self.memory.truncate_before(topic_partition, end);
        let mut truncated = self.truncated.lock();
        let entry = truncated.entry(topic_partition).or_insert(Truncated { unread: unread.0, before: end.0 });
        // Where rows were lost before, the partition has stopped there.
        entry.unread = if entry.has_lost_rows() { entry.unread } else { unread.0 };
        entry.before = end.0;
    }
}

/// The log as one process sees it.
pub struct NodeLog {
    node: Arc<Node>,
    log: Arc<SimulatedLog>,
    /// Where the tables lie that the log may forget records for.
    bucket: Arc<Bucket>,
}

impl NodeLog {
    pub fn new(node: &Arc<Node>, log: &Arc<SimulatedLog>, bucket: &Arc<Bucket>) -> Arc<Self> {
        Arc::new(Self { node: Arc::clone(node), log: Arc::clone(log), bucket: Arc::clone(bucket) })
    }

    fn world(&self) -> &Arc<World> {
        &self.node.world
    }

    async fn append_with(&self, records: Vec<AppendRecord>, fate: Fate) -> Result<Vec<Offset>> {
        let world = self.world();
        let effect = |records: Vec<AppendRecord>| {
            let (log, node) = (Arc::clone(&self.log), Arc::clone(&self.node));
            async move { log.write(&node.name, records).await }
        };
        if fate != Fate::Done {
            world.note(format_args!("{} appending {fate:?}", self.node.name));
        }
        match fate {
            Fate::Done => world.send(world.latency(), effect(records)).await,
            Fate::Refused if world.happens(0.5) => Err(Error::Backlogged { pending_bytes: 1, max_bytes: 1 }),
            Fate::Refused => Err(Error::Closed),
            Fate::AnswerLost if world.happens(0.3) => {
                world.send_unawaited(world.latency(), effect(records));
                pending().await
            }
            Fate::AnswerLost if is_repeatable(&records) && world.happens(0.3) => {
                world.send(world.latency(), effect(records.clone())).await?;
                world.send(world.latency(), effect(records)).await
            }
            Fate::AnswerLost => {
                world.send(world.latency(), effect(records)).await?;
                Err(Error::Closed)
            }
            Fate::Late(delay) => {
                world.send_unawaited(delay, effect(records));
                Err(Error::Closed)
            }
            Fate::Torn => {
                let some = records.into_iter().filter(|_| world.happens(0.5)).collect();
                world.send(world.latency(), effect(some)).await?;
                Err(Error::Closed)
            }
        }
    }

    /// Acknowledges what was only sent, and is lost with its process.
    fn acknowledge_before_it_is_durable(&self, records: Vec<AppendRecord>) -> Vec<Offset> {
        let world = self.world();
        let offsets = vec![Offset(0); records.len()];
        let (log, node) = (Arc::clone(&self.log), Arc::clone(&self.node));
        world.send_unawaited(world.millis(0..3_000), async move {
            if !node.is_dead() {
                log.write(&node.name, records).await.ok();
            }
        });
        offsets
    }

    async fn reading(&self) -> Result<()> {
        self.node.step().await;
        if self.world().read_fails(Service::Log) { Err(Error::Closed) } else { Ok(()) }
    }
}

/// Whether everything in the records has an id, so that a repetition can be told.
fn is_repeatable(records: &[AppendRecord]) -> bool {
    records.iter().all(|record| {
        frame::peek(&record.frame).is_ok_and(|index| index.payloads.iter().all(|payload| payload.payload_id.is_some()))
    })
}

impl LogWriter for NodeLog {
    fn append(&self, records: Vec<AppendRecord>) -> BoxFuture<'_, Result<Vec<Offset>>> {
        Box::pin(async move {
            self.node.step().await;
            if self.world().is_planted(Planted::AckBeforeDurability) {
                return Ok(self.acknowledge_before_it_is_durable(records));
            }
            let fate = self.world().fate(Service::Log);
            let answer = self.append_with(records, fate).await;
            self.node.step().await;
            answer
        })
    }

    fn partitions(&self, topic: Topic) -> u32 {
        LogWriter::partitions(&self.log.memory, topic)
    }

    fn health(&self) -> WriterHealth {
        WriterHealth::Ready
    }
}

impl LogReader for NodeLog {
    fn partitions(&self, topic: Topic) -> u32 {
        LogReader::partitions(&self.log.memory, topic)
    }

    fn topic_id(&self, topic: Topic) -> TopicId {
        self.log.memory.topic_id(topic)
    }

    fn fetch(
        &self,
        topic_partition: TopicPartition,
        from: Offset,
        bytes_max: usize,
        wait_max: Duration,
    ) -> BoxFuture<'_, Result<Vec<FetchedRecord>>> {
        Box::pin(async move {
            self.reading().await?;
            // Sometimes a fetch brings fewer records than it could.
            let bytes_max = if self.world().happens(0.2) { 1 } else { bytes_max };
            let fetched = self.log.memory.fetch(topic_partition, from, bytes_max, wait_max).await;
            self.node.step().await;
            fetched
        })
    }

    fn bounds(&self, topic_partition: TopicPartition) -> BoxFuture<'_, Result<OffsetRange>> {
        Box::pin(async move {
            self.reading().await?;
            self.log.memory.bounds(topic_partition).await
        })
    }

    fn offset_at(&self, topic_partition: TopicPartition, time: UnixMicros) -> BoxFuture<'_, Result<Offset>> {
        Box::pin(async move {
            self.reading().await?;
            if self.world().is_planted(Planted::DedupWindowLost) {
                return Ok(self.log.memory.bounds(topic_partition).await?.end);
            }
            self.log.memory.offset_at(topic_partition, time).await
        })
    }

    fn register(&self, reader: &'static str, topic: Topic) {
        self.log.memory.register(reader, topic);
    }

    fn commit(&self, reader: &'static str, topic_partition: TopicPartition, next: Offset) {
        if reader == compactor::LOG_READER {
            let watch = self.bucket.watch.lock();
            let table = watch.table(topic_partition.topic.name());
            let landed = table.and_then(|table| table.txns.get(&self.log.app_id(topic_partition)).copied());
            if landed.unwrap_or(0) < next.0 {
                let name = &self.node.name;
                let what = format!("{name} lets the log forget {topic_partition} before {next}, landed {landed:?}");
                drop(watch);
                self.world().violated(what);
            }
        }
        self.log.memory.commit(reader, topic_partition, next);
    }
}
