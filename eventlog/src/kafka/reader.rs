//! Reads partitions from given offsets.
//!
//! Two consumers, so that two readers of one partition at different places (the index and the table of contexts) do not
//! drag one place back and forth; within a consumer each partition has a [`Cursor`] of its own. A fetch takes the cursor
//! that stands at its offset, else one without a place, else the one that was used longest ago.
//!
//! The brokers' own bookkeeping is not used: a place is always given by who asks (`assign` at an explicit offset), and one
//! that the log does not hold is an error (`auto.offset.reset=error`), never the beginning or the end instead.
//!
//! # What an empty answer means
//! That there was nothing at that place: either the brokers said so, and nobody here was told of a later record, or the
//! asked time is over. A fetch without time to wait therefore still waits for the brokers to say either; if they do not
//! within [`PATIENCE`], it is an error.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use events::{Offset, OffsetRange, TopicPartition};
use parking_lot::Mutex;
use rdkafka::TopicPartitionList;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode as Code;
use runtime::{Clock, UnixMicros};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, Semaphore};

use super::callbacks::Callbacks;
use super::cursor::Cursor;
use super::metrics::Metrics;
use super::state::State;
use crate::{Error, FetchedRecord, Result};

/// Longest time for the brokers to say anything of a place.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest time of one question, and how many may be asked at once: each blocks a thread.
const QUESTION_TIME: Duration = Duration::from_secs(5);
const QUESTIONS_MAX: usize = 4;
/// A partition whose leader changes has none for a moment, and one that has just become leader may know a smaller end. How
/// often the brokers are asked again.
const LEADER_LOOKS: usize = 10;
const LEADER_STEP: Duration = Duration::from_millis(200);

type LogConsumer = Arc<BaseConsumer<Callbacks>>;

/// One consumer with its places.
struct Lane {
    // Dropped before the consumer that they belong to.
    cursors: Mutex<HashMap<TopicPartition, Arc<AsyncMutex<Cursor>>>>,
    consumer: LogConsumer,
}

pub(super) struct Reader {
    lanes: [Lane; 2],
    state: Arc<State>,
    clock: Clock,
    metrics: Metrics,
    questions: Arc<Semaphore>,
    fetches: AtomicU64,
}

/// Makes one of the two consumers.
///
/// # Errors
/// `KafkaSettings` if librdkafka refuses the settings together.
pub(super) fn consumer(config: &ClientConfig) -> Result<LogConsumer> {
    let consumer = config.create_with_context(Callbacks::default());
    consumer.map(Arc::new).map_err(|error| Error::KafkaSettings { reason: error.to_string() })
}

impl Reader {
    pub fn new(consumers: [LogConsumer; 2], state: Arc<State>, clock: Clock, metrics: Metrics) -> Self {
        Self {
            lanes: consumers.map(|consumer| Lane { consumer, cursors: Mutex::default() }),
            state,
            clock,
            metrics,
            questions: Arc::new(Semaphore::new(QUESTIONS_MAX)),
            fetches: AtomicU64::new(0),
        }
    }

    pub async fn fetch(
        &self,
        topic_partition: TopicPartition,
        from: Offset,
        bytes_max: usize,
        wait_max: Duration,
    ) -> Result<Vec<FetchedRecord>> {
        self.state.check(topic_partition.topic)?;
        if from < Offset(0) {
            return Err(self.out_of_range(topic_partition, from).await);
        }
        let begun = self.clock.instant();
        let mut cursor = self.cursor_at(topic_partition, from).await?;
        cursor.used = self.fetches.fetch_add(1, Ordering::Relaxed);
        let arrived = cursor.arrived.clone();
        loop {
            let lost = self.state.changed.notified();
            let taken = cursor.take(bytes_max);
            // After the records were taken: they may come from a topic that took the place of ours.
            self.state.check(topic_partition.topic)?;
            match taken {
                Ok(records) if !records.is_empty() => {
                    let last = records.last().map_or(from, |record| record.offset.next());
                    self.state.saw_end(topic_partition, last);
                    return Ok(records);
                }
                Ok(_) => {}
                Err(error) => {
                    cursor.forget_place();
                    drop(cursor);
                    return Err(self.explain(topic_partition, from, &error).await);
                }
            }
            let is_told = cursor.is_at_end && from >= self.state.end(topic_partition);
            let deadline = begun + if is_told { wait_max } else { wait_max.max(PATIENCE) };
            tokio::select! {
                () = arrived.notified() => {}
                () = lost => {}
                () = tokio::time::sleep_until(deadline) => {
                    if is_told {
                        return Ok(Vec::new());
                    }
                    // Perhaps it is the way to this broker: the next attempt begins anew.
                    cursor.forget_place();
                    return Err(Error::Kafka {
                        action: format!("reading {topic_partition} from offset {from}"),
                        reason: format!("no answer within {:?}", begun.elapsed()),
                    });
                }
            }
        }
    }

    /// A cursor that stands at `from`, for us alone.
    async fn cursor_at(&self, topic_partition: TopicPartition, from: Offset) -> Result<OwnedMutexGuard<Cursor>> {
        let cursor = self.choose(topic_partition, from).await;
        if cursor.next() == Some(from) {
            return Ok(cursor);
        }
        self.metrics.repositions.inc();
        let mut cursor = cursor;
        let moved = tokio::task::spawn_blocking(move || cursor.go_to(from).map(|()| cursor)).await;
        moved.map_err(|_| Error::Closed)?.map_err(|error| Error::Kafka {
            action: format!("going to offset {from} of {topic_partition}"),
            reason: error.to_string(),
        })
    }

    async fn choose(&self, topic_partition: TopicPartition, from: Offset) -> OwnedMutexGuard<Cursor> {
        let cursors = self.lanes.each_ref().map(|lane| lane.cursor(topic_partition, &self.state));
        let mut free: Vec<_> = cursors.iter().filter_map(|cursor| cursor.clone().try_lock_owned().ok()).collect();
        let rank = |cursor: &OwnedMutexGuard<Cursor>| match cursor.next() {
            Some(next) if next == from => (0, 0),
            None => (1, 0),
            Some(_) => (2, cursor.used),
        };
        free.sort_by_key(rank);
        match free.into_iter().next() {
            Some(cursor) => cursor,
            // More than two at once in one partition: whoever comes last waits.
            None => cursors[1].clone().lock_owned().await,
        }
    }

    /// What an error of librdkafka means for who asked.
    async fn explain(&self, topic_partition: TopicPartition, from: Offset, error: &KafkaError) -> Error {
        if error.rdkafka_error_code() == Some(Code::AutoOffsetReset) {
            return self.out_of_range(topic_partition, from).await;
        }
        Error::Kafka { action: format!("reading {topic_partition} from offset {from}"), reason: error.to_string() }
    }

    async fn out_of_range(&self, topic_partition: TopicPartition, from: Offset) -> Error {
        match self.bounds(topic_partition).await {
            Ok(held) if from < held.start || from > held.end => Error::OffsetOutOfRange { topic_partition, from, held },
            // It was out of range a moment ago, so the log is changing.
            Ok(held) => Error::Kafka {
                action: format!("reading {topic_partition} from offset {from}"),
                reason: format!("the brokers refused the offset, and hold {held}"),
            },
            Err(error) => error,
        }
    }

    pub async fn bounds(&self, topic_partition: TopicPartition) -> Result<OffsetRange> {
        let mut looks = 0;
        loop {
            self.state.check(topic_partition.topic)?;
            // Before the question: an append that is acknowledged while it is under way may not be counted.
            let known = self.state.end(topic_partition);
            let (start, end) = self.watermarks(topic_partition).await?;
            if end >= known {
                self.state.saw_end(topic_partition, end);
                return Ok(OffsetRange::new(start.min(end), end));
            }
            looks += 1;
            if looks > LEADER_LOOKS {
                return Err(Error::Shrunk { topic_partition, known, found: end });
            }
            self.clock.wait(LEADER_STEP).await;
        }
    }

    async fn watermarks(&self, topic_partition: TopicPartition) -> Result<(Offset, Offset)> {
        let (name, partition) = self.place(topic_partition);
        let asked = self.ask(format!("asking for the bounds of {topic_partition}"), move |consumer| {
            consumer.fetch_watermarks(&name, partition, QUESTION_TIME)
        });
        asked.await.map(|(low, high)| (Offset(low), Offset(high)))
    }

    pub async fn offset_at(&self, topic_partition: TopicPartition, time: UnixMicros) -> Result<Offset> {
        self.state.check(topic_partition.topic)?;
        // The brokers know milliseconds: the first that is not before `time`. Negative ones have other meanings there.
        let millis = time.0.saturating_add(999).div_euclid(1000).max(0);
        let mut looks = 0;
        loop {
            match self.first_since(topic_partition, millis).await? {
                Since::At(offset) => return Ok(offset),
                Since::Nothing => return Ok(self.bounds(topic_partition).await?.end),
                Since::NoLeader(reason) if looks == LEADER_LOOKS => {
                    let action = format!("asking for the first record of {topic_partition} since a time");
                    return Err(Error::Kafka { action, reason });
                }
                Since::NoLeader(_) => {
                    looks += 1;
                    self.clock.wait(LEADER_STEP).await;
                }
            }
        }
    }

    async fn first_since(&self, topic_partition: TopicPartition, millis: i64) -> Result<Since> {
        let (name, partition) = self.place(topic_partition);
        let asked = format!("asking for the first record of {topic_partition} since a time");
        let asked = self.ask(asked, move |consumer| {
            let mut times = TopicPartitionList::new();
            times.add_partition_offset(&name, partition, rdkafka::Offset::Offset(millis))?;
            let found = consumer.offsets_for_times(times, QUESTION_TIME);
            let found = found.and_then(|found| {
                let found = found.find_partition(&name, partition);
                let found = found.ok_or(KafkaError::OffsetFetch(Code::UnknownPartition))?;
                found.error().map(|()| found.offset())
            });
            match found {
                Ok(rdkafka::Offset::Offset(offset)) => Ok(Since::At(Offset(offset))),
                Ok(_) => Ok(Since::Nothing),
                // librdkafka asks others again itself, but not for this.
                Err(error) if error.rdkafka_error_code().is_some_and(is_without_leader) => {
                    Ok(Since::NoLeader(error.to_string()))
                }
                Err(error) => Err(error),
            }
        });
        asked.await
    }

    fn place(&self, topic_partition: TopicPartition) -> (String, i32) {
        (self.state.names.of(topic_partition.topic).to_owned(), topic_partition.partition.0 as i32)
    }

    /// Asks the brokers on a thread that may block.
    async fn ask<T: Send + 'static>(
        &self,
        action: String,
        question: impl FnOnce(&BaseConsumer<Callbacks>) -> std::result::Result<T, KafkaError> + Send + 'static,
    ) -> Result<T> {
        if !self.state.is_reachable() {
            // The watch says when they are back; until then each question would hold a thread for nothing.
            let reason = self.state.unavailable().unwrap_or_default();
            return Err(Error::Kafka { action, reason });
        }
        let room = self.questions.clone().acquire_owned().await.map_err(|_| Error::Closed)?;
        let consumer = self.lanes[0].consumer.clone();
        let answer = tokio::task::spawn_blocking(move || {
            let _room = room;
            question(&consumer)
        });
        let answer = answer.await.map_err(|_| Error::Closed)?;
        answer.map_err(|error| Error::Kafka { action, reason: error.to_string() })
    }
}

/// What the brokers say of the first record since a time.
enum Since {
    At(Offset),
    /// All are older.
    Nothing,
    NoLeader(String),
}

fn is_without_leader(code: Code) -> bool {
    matches!(code, Code::NotLeaderForPartition | Code::LeaderNotAvailable | Code::FencedLeaderEpoch)
}

impl Lane {
    fn cursor(&self, topic_partition: TopicPartition, state: &State) -> Arc<AsyncMutex<Cursor>> {
        let mut cursors = self.cursors.lock();
        let make = || Arc::new(AsyncMutex::new(Cursor::new(&self.consumer, &state.names, topic_partition)));
        cursors.entry(topic_partition).or_insert_with(make).clone()
    }
}
