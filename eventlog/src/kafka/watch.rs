//! Watches the brokers from a thread of its own: whether an append would succeed, and whether the topics are still ours.
//!
//! One question each [`INTERVAL`] for all topics tells whether a broker answers, whether every partition has a leader and
//! enough copies, and the identity of the topics. A topic with another identity was deleted and made again: its readers
//! stop, as offsets mean something else there. The same holds for a topic that stays missing for [`MISSING_MAX`].
//! Records of such a topic can be read for up to [`INTERVAL`] before that is seen; asking with every fetch would double
//! the requests of a reader, and a stored offset of the old topic can only be met by a new one that has outgrown it.
//!
//! The same thread serves librdkafka's callbacks, and notes the slowest reader's progress in a consumer group.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use events::{Offset, Topic, TopicId, TopicPartition};
use parking_lot::Mutex;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::types::RDKafkaErrorCode as Code;
use runtime::Clock;
use std::sync::atomic::{AtomicBool, Ordering};

use super::callbacks::Callbacks;
use super::metrics::Metrics;
use super::native::{self, Failure, TopicDescription};
use super::state::State;
use super::writer::Outcome;
use crate::Error;

/// How often the brokers are asked.
const INTERVAL: Duration = Duration::from_secs(1);
/// Longest time of one question.
const QUESTION_TIME: Duration = Duration::from_secs(4);
/// A broker that has just started may not know a topic for a moment.
const MISSING_MAX: Duration = Duration::from_secs(10);
/// How often progress is noted in the consumer group.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);
/// Callbacks of each consumer are served for so long, one after the other.
const CALLBACKS_TIME: Duration = Duration::from_millis(50);

/// How far the readers of each partition have got.
#[derive(Default)]
pub(super) struct Progress(Mutex<BTreeMap<TopicPartition, BTreeMap<&'static str, Offset>>>);

impl Progress {
    pub fn note(&self, reader: &'static str, topic_partition: TopicPartition, next: Offset) {
        self.0.lock().entry(topic_partition).or_default().insert(reader, next);
    }

    /// Where the slowest reader of each partition is.
    fn slowest(&self) -> Vec<(TopicPartition, Offset)> {
        let readers = self.0.lock();
        readers.iter().filter_map(|(place, nexts)| Some((*place, *nexts.values().min()?))).collect()
    }
}

pub(super) struct Watch {
    pub consumers: [Arc<BaseConsumer<Callbacks>>; 2],
    pub state: Arc<State>,
    pub outcome: Arc<Outcome>,
    pub progress: Arc<Progress>,
    pub metrics: Metrics,
    pub clock: Clock,
    /// Copies without which an append fails.
    pub min_in_sync: usize,
}

/// The running thread; stopped when dropped.
pub(super) struct RunningWatch {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for RunningWatch {
    fn drop(&mut self) {
        // Not joined: it may be asking, and holds nothing but clients.
        self.stop.store(true, Ordering::Relaxed);
        drop(self.thread.take());
    }
}

/// Serves what librdkafka has to say, for so long.
pub(super) fn serve_callbacks(consumer: &BaseConsumer<Callbacks>, time: Duration) {
    match consumer.poll(time) {
        Some(Ok(message)) => {
            // Every partition has a queue of its own before it is assigned, which librdkafka can lose until the cursor goes
            // to its place anew. Then the record is read again.
            let offset = rdkafka::Message::offset(&message);
            tracing::debug!(offset, "a record came outside of its partition's queue");
        }
        Some(Err(error)) => tracing::debug!(target: "librdkafka", %error),
        None => {}
    }
}

impl Watch {
    pub fn start(self) -> std::io::Result<RunningWatch> {
        let stop = Arc::<AtomicBool>::default();
        let asked = stop.clone();
        let thread = std::thread::Builder::new().name("kafka-watch".into()).spawn(move || self.run(&asked))?;
        Ok(RunningWatch { stop, thread: Some(thread) })
    }

    fn run(self, stop: &AtomicBool) {
        let now = || self.clock.instant().into_std();
        let (mut due, mut progress_due) = (now() + INTERVAL, now() + PROGRESS_INTERVAL);
        let mut missing_since = [None; 3];
        self.metrics.is_reachable.set(1);
        while !stop.load(Ordering::Relaxed) {
            self.consumers.iter().for_each(|consumer| serve_callbacks(consumer, CALLBACKS_TIME));
            if now() >= due {
                self.look(&mut missing_since);
                due = now() + INTERVAL;
            }
            if now() >= progress_due && self.state.is_reachable() {
                self.note_progress();
                progress_due = now() + PROGRESS_INTERVAL;
            }
        }
    }

    fn look(&self, missing_since: &mut [Option<Instant>; 3]) {
        let client = self.consumers[0].client();
        client.context().forget_failure();
        let described = native::describe_topics(client, self.state.names.all(), QUESTION_TIME);
        let (is_reachable, why) = match described {
            Err(failure) => {
                // What connections failed of says more than that the time is over.
                serve_callbacks(&self.consumers[0], CALLBACKS_TIME);
                let reason = client.context().last_failure().map_or(failure.reason, |failure| failure.reason);
                (false, Some(format!("no answer from the Kafka brokers: {reason}")))
            }
            Ok(topics) => {
                for ((topic, found), since) in Topic::ALL.into_iter().zip(&topics).zip(missing_since) {
                    self.compare(topic, found, since);
                }
                (true, self.obstacle(&topics))
            }
        };
        self.metrics.is_reachable.set(i64::from(why.is_none()));
        if why.is_none() {
            self.outcome.recovered();
        }
        if self.state.set_unavailable(why.clone(), is_reachable) {
            match why {
                Some(why) => tracing::warn!(why, "Kafka takes no records"),
                None => tracing::info!("Kafka takes records again"),
            }
        }
    }

    /// Why an append would fail.
    fn obstacle(&self, topics: &[Result<TopicDescription, Failure>]) -> Option<String> {
        topics.iter().zip(self.state.names.all()).find_map(|(topic, name)| match topic {
            Err(failure) => Some(format!("topic {name}: {}", failure.reason)),
            Ok(topic) => topic.partitions.iter().enumerate().find_map(|(number, partition)| {
                if !partition.has_leader {
                    Some(format!("partition {number} of topic {name} has no leader"))
                } else if partition.in_sync < self.min_in_sync {
                    let (found, needed) = (partition.in_sync, self.min_in_sync);
                    Some(format!("partition {number} of topic {name} has {found} copies in sync, {needed} are needed"))
                } else {
                    None
                }
            }),
        })
    }

    fn compare(&self, topic: Topic, found: &Result<TopicDescription, Failure>, missing_since: &mut Option<Instant>) {
        let opened = &self.state.topic_ids[topic as usize];
        let found = match found {
            Ok(topic) if *topic.id == *opened.0 => {
                *missing_since = None;
                return;
            }
            Ok(topic) => topic.id.clone(),
            Err(failure) if failure.code == Code::UnknownTopicOrPartition => {
                let now = self.clock.instant().into_std();
                if now.duration_since(*missing_since.get_or_insert(now)) < MISSING_MAX {
                    return;
                }
                "none".to_owned()
            }
            // Says nothing of the topic.
            Err(_) => return,
        };
        if self.state.check(topic).is_ok() {
            let name = self.state.names.of(topic).to_owned();
            let error = Error::TopicReplaced { name, opened: TopicId(opened.0.clone()), found };
            tracing::error!(%error, "reading of a topic stops");
            self.state.lose(topic, error);
        }
    }

    fn note_progress(&self) {
        let mut offsets = TopicPartitionList::new();
        for (topic_partition, next) in self.progress.slowest() {
            let (name, partition) = (self.state.names.of(topic_partition.topic), topic_partition.partition.0 as i32);
            // Fails for offsets that do not exist, such as those before 0.
            let _ = offsets.add_partition_offset(name, partition, rdkafka::Offset::Offset(next.0));
        }
        if offsets.count() > 0
            && let Err(error) = self.consumers[0].commit(&offsets, CommitMode::Async)
        {
            tracing::debug!(%error, "progress not noted in the consumer group");
        }
    }
}
