//! One place in one partition: a queue of librdkafka that fills itself from there on.
//!
//! A cursor is moved by taking its partition out of the consumer's assignment and putting it back at another offset;
//! librdkafka drops what was fetched for the place before. What arrives is taken without waiting; the queue's own signal
//! wakes who waits.

use std::sync::Arc;

use bytes::Bytes;
use events::{Offset, TopicPartition};
use rdkafka::TopicPartitionList;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{BorrowedMessage, Message};
use runtime::UnixMicros;
use tokio::sync::Notify;

use super::callbacks::Callbacks;
use super::names::Names;
use super::trace;
use crate::FetchedRecord;

pub(super) struct Cursor {
    consumer: Arc<BaseConsumer<Callbacks>>,
    names: Names,
    topic_partition: TopicPartition,
    queue: Option<PartitionQueue<Callbacks>>,
    is_assigned: bool,
    /// The record that is taken next; `None` if it has no place.
    next: Option<Offset>,
    /// Whether the brokers said that there was nothing at `next`.
    pub is_at_end: bool,
    /// Taken from the queue and not handed out, as an answer was full.
    left_over: Option<FetchedRecord>,
    failure: Option<KafkaError>,
    /// Signalled when the queue is no longer empty.
    pub arrived: Arc<Notify>,
    /// When it was used last, in fetches.
    pub used: u64,
}

impl Cursor {
    pub fn new(consumer: &Arc<BaseConsumer<Callbacks>>, names: &Names, topic_partition: TopicPartition) -> Self {
        Self {
            consumer: consumer.clone(),
            names: names.clone(),
            topic_partition,
            queue: None,
            is_assigned: false,
            next: None,
            is_at_end: false,
            left_over: None,
            failure: None,
            arrived: Arc::default(),
            used: 0,
        }
    }

    pub fn next(&self) -> Option<Offset> {
        self.next
    }

    /// What it has is of no use: it goes to a place anew before it is asked again.
    pub fn forget_place(&mut self) {
        self.next = None;
    }

    /// Goes to `from`. Asks librdkafka's main thread, so it may block for a moment.
    pub fn go_to(&mut self, from: Offset) -> KafkaResult<()> {
        self.forget_place();
        (self.is_at_end, self.left_over, self.failure) = (false, None, None);
        let (name, partition) = (self.names.of(self.topic_partition.topic), self.topic_partition.partition.0 as i32);
        let mut place = TopicPartitionList::new();
        place.add_partition_offset(name, partition, rdkafka::Offset::Offset(from.0))?;
        if self.is_assigned {
            self.consumer.incremental_unassign(&place)?;
            self.is_assigned = false;
        }
        // Each time anew: librdkafka forgets a partition that is not assigned while the brokers do not know its topic, as when
        // they start, and the queue of what it forgot stays empty for ever.
        drop(self.queue.take());
        let queue = self.consumer.split_partition_queue(name, partition);
        let mut queue = queue.ok_or_else(|| KafkaError::Subscription(format!("no queue for {name}/{partition}")))?;
        let arrived = self.arrived.clone();
        queue.set_nonempty_callback(move || arrived.notify_one());
        self.queue = Some(queue);
        self.consumer.incremental_assign(&place)?;
        (self.is_assigned, self.next) = (true, Some(from));
        Ok(())
    }

    /// Takes what has arrived, together at most `bytes_max` but at least one record if there is one.
    ///
    /// # Errors
    /// What librdkafka reports of the partition, after the records that came before.
    pub fn take(&mut self, bytes_max: usize) -> KafkaResult<Vec<FetchedRecord>> {
        let mut taken = Vec::new();
        let mut bytes = 0;
        while let Some(record) = self.pull()? {
            bytes += record.frame.len();
            if bytes > bytes_max && !taken.is_empty() {
                self.left_over = Some(record);
                break;
            }
            self.next = Some(record.offset.next());
            taken.push(record);
            if self.failure.is_some() {
                break;
            }
        }
        Ok(taken)
    }

    /// The next record, if there is one.
    fn pull(&mut self) -> KafkaResult<Option<FetchedRecord>> {
        if let Some(record) = self.left_over.take() {
            return Ok(Some(record));
        }
        let (Some(queue), Some(next)) = (&self.queue, self.next) else { return Ok(None) };
        loop {
            match queue.poll(std::time::Duration::ZERO) {
                None => return Ok(None),
                Some(Ok(message)) if message.offset() >= next.0 => {
                    let record = record(&message);
                    self.is_at_end = false;
                    return Ok(Some(record));
                }
                // Lies before the place in the same batch.
                Some(Ok(_)) => {}
                Some(Err(KafkaError::PartitionEOF(_))) => self.is_at_end = true,
                Some(Err(error)) => return Err(error),
            }
        }
    }
}

fn record(message: &BorrowedMessage<'_>) -> FetchedRecord {
    let (id, taken_at) = trace::of(message).unzip();
    let broker_time = || UnixMicros::from_millis(message.timestamp().to_millis().unwrap_or_default());
    FetchedRecord {
        offset: Offset(message.offset()),
        appended_at: taken_at.flatten().unwrap_or_else(broker_time),
        id,
        trace: trace::parent_of(message),
        frame: Bytes::copy_from_slice(message.payload().unwrap_or_default()),
    }
}
