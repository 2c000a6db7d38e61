//! Membership in a group of processes of one role, which divides the partitions of the log among them.
//!
//! In: rebalances of the group. Out: what this process holds, told to an [`Assigner`]. They are cooperative: a partition
//! that stays with its process is not touched. With a name of its own, a process that is back before its session is over
//! finds what it had, and nobody else moves.
//! The consumer of the group reads no records and commits no offsets: where to read comes from the table or from the index,
//! and reading is the log's business. Its partitions are paused as soon as they are given; that it is the one who has them
//! is all that it is for.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use events::{Topic, TopicPartition};
use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;

use super::callbacks::Callbacks;
use crate::{Assigner, Error, Result};

/// The thread looks this often whether it is to leave. Rebalances wake it at once.
const POLL: Duration = Duration::from_millis(200);

/// A process in its group. Leaves when it is dropped.
pub struct GroupMember {
    is_leaving: Arc<AtomicBool>,
    fault: Arc<Mutex<Option<String>>>,
    thread: Option<JoinHandle<()>>,
}

impl GroupMember {
    /// Joins the group for `topics`, each with its name at the brokers. Returns before anything is assigned.
    pub(super) fn join(client: &ClientConfig, topics: Vec<(Topic, String)>, assigner: Assigner) -> Result<Self> {
        let names: Vec<String> = topics.iter().map(|(_, name)| name.clone()).collect();
        let fault = Arc::new(Mutex::default());
        let context = GroupContext {
            callbacks: Callbacks::default(),
            topics: topics.into_iter().map(|(topic, name)| (name, topic)).collect(),
            assigner,
            held: Mutex::default(),
        };
        let refused = |error: KafkaError| Error::KafkaSettings { reason: error.to_string() };
        let consumer: BaseConsumer<GroupContext> = client.create_with_context(context).map_err(refused)?;
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        consumer.subscribe(&names).map_err(refused)?;
        let is_leaving = Arc::new(AtomicBool::new(false));
        let thread = std::thread::Builder::new().name("kafka-group".into()).spawn({
            let (is_leaving, fault) = (Arc::clone(&is_leaving), Arc::clone(&fault));
            move || stay(&consumer, &is_leaving, &fault)
        });
        let thread = thread.map_err(|error| Error::Kafka {
            action: "starting the thread of the group".into(),
            reason: error.to_string(),
        })?;
        Ok(Self { is_leaving, fault, thread: Some(thread) })
    }

    /// Why this process is in the group no more, though nobody asked it to leave.
    pub fn fault(&self) -> Option<String> {
        self.fault.lock().clone()
    }
}

impl Drop for GroupMember {
    fn drop(&mut self) {
        self.is_leaving.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// Answers the group until this process leaves it.
fn stay(consumer: &BaseConsumer<GroupContext>, is_leaving: &AtomicBool, fault: &Mutex<Option<String>>) {
    while !is_leaving.load(Ordering::Acquire) {
        if let Some(Err(error)) = consumer.poll(POLL) {
            tracing::debug!(%error, "group of processes");
        }
        if let Some((code, reason)) = consumer.client().fatal_error() {
            let group = consumer.context();
            tracing::error!(%code, reason, "this process is thrown out of its group, and works on no partition any more");
            *fault.lock() = Some(format!("thrown out of the group: {reason}"));
            group.hold(|held| held.clear());
            return;
        }
    }
}

struct GroupContext {
    callbacks: Callbacks,
    topics: HashMap<String, Topic>,
    assigner: Assigner,
    held: Mutex<BTreeSet<TopicPartition>>,
}

impl GroupContext {
    fn hold(&self, change: impl FnOnce(&mut BTreeSet<TopicPartition>)) {
        let mut held = self.held.lock();
        change(&mut held);
        self.assigner.assign(held.iter().copied());
    }

    fn named(&self, list: &TopicPartitionList) -> Vec<TopicPartition> {
        let named = |name: &str, partition: i32| {
            let partition = u32::try_from(partition).ok()?;
            Some(TopicPartition::new(*self.topics.get(name)?, partition))
        };
        list.elements().iter().filter_map(|element| named(element.topic(), element.partition())).collect()
    }
}

impl ClientContext for GroupContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.callbacks.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.callbacks.error(error, reason);
    }
}

impl ConsumerContext for GroupContext {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, code: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let named = self.named(list);
        let names: Vec<String> = named.iter().map(TopicPartition::to_string).collect();
        let done = match code {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                self.hold(|held| held.extend(named));
                tracing::info!(partitions = names.join(" "), "partitions assigned to this process");
                // From the end, so that next to nothing is fetched before the pause.
                let from_end = list.set_all_offsets(Offset::End);
                from_end.and_then(|()| consumer.incremental_assign(list)).and_then(|()| consumer.pause(list))
            }
            _ => {
                // First here, then there: the group waits for this answer before it gives them to another process.
                self.hold(|held| held.retain(|place| !named.contains(place)));
                tracing::info!(partitions = names.join(" "), "partitions taken from this process");
                consumer.incremental_unassign(list)
            }
        };
        if let Err(error) = done {
            tracing::warn!(%error, "the group's answer could not be acted upon; it will be asked again");
        }
    }
}
