//! Appends: records go to an idempotent producer, and a call is answered when the brokers have acknowledged all of them.
//!
//! In: records, with names where somebody keeps copies of them. Out: the fate of each. Promise: nothing counts as stored but what a delivery report says was
//! acknowledged by every copy that counts; a record that expired (`kafka.message_timeout`) is an error.
//!
//! One record is one Kafka message. They are not put into transactions: who owns a partition is decided at the table.
//!
//! # A place that is not told
//! An idempotent producer that repeats a request whose answer was lost can be answered "I have this already" (duplicate
//! sequence number). Then the record is stored, and librdkafka reports success without an offset. The append has
//! succeeded, and its offset is [`Offset::UNKNOWN`]: nobody who appends needs the place, and asking for it would mean to
//! read the partition back.
//!
//! # What is not known
//! librdkafka tells of each failed message whether it can be on a broker (`rd_kafka_message_status`), and never takes a doubt
//! back. Those that cannot be there are [`Fate::Absent`], others [`Fate::Unknown`].
//!
//! # A producer that gives up
//! When the order of a partition can no longer be kept apart from loss (a gap in the sequence, a broker that forgot the
//! producer in a way that cannot be mended), librdkafka stops the producer for good. A new one takes over with the next
//! append; what the old one had not delivered fails. Without this, appends would fail until a restart.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use events::{Offset, TopicPartition};
use parking_lot::{Mutex, RwLock};
use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode as Code;

use super::callbacks::Callbacks;
use super::calls::{Call, Pending, Report};
use super::metrics::Metrics;
use super::native;
use super::state::State;
use super::trace;
use crate::traced::{Fate, Fates};
use crate::{AppendRecord, Error, Result, TraceParent};

/// Called by the producer's thread.
pub(super) struct Deliveries {
    callbacks: Callbacks,
    state: Arc<State>,
    outcome: Arc<Outcome>,
    metrics: Metrics,
    record_bytes_max: u64,
}

/// How the last appends went.
#[derive(Default)]
pub(super) struct Outcome {
    /// Why the last append failed, until one succeeds.
    failure: Mutex<Option<String>>,
    has_failed: AtomicBool,
}

impl Outcome {
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().clone()
    }

    /// Also when a question that stands for an append was answered well: nobody appends to a log that is not ready.
    pub fn recovered(&self) {
        if self.has_failed.swap(false, Ordering::Relaxed) {
            *self.failure.lock() = None;
        }
    }

    fn failed(&self, error: &Error) {
        *self.failure.lock() = Some(error.to_string());
        self.has_failed.store(true, Ordering::Relaxed);
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.callbacks.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.callbacks.error(error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<Report>;

    fn delivery(&self, result: &DeliveryResult<'_>, report: Box<Report>) {
        match result {
            Ok(message) => {
                self.metrics.appended_records.inc();
                self.metrics.appended_bytes.inc_by(report.bytes);
                self.outcome.recovered();
                let offset = if message.offset() < 0 { Offset::UNKNOWN } else { Offset(message.offset()) };
                if offset != Offset::UNKNOWN {
                    self.state.saw_end(report.topic_partition, offset.next());
                }
                report.settle(Fate::Stored(offset));
            }
            Err((error, message)) => {
                let is_refused = error.rdkafka_error_code().is_some_and(is_for_good);
                let error = refusal(error, &report, self.record_bytes_max);
                self.metrics.append_failures.inc();
                self.outcome.failed(&error);
                report.settle(match native::may_be_stored(message) {
                    true => Fate::Unknown(error),
                    false if is_refused => Fate::Refused(error),
                    false => Fate::Absent(error),
                });
            }
        }
    }
}

/// Whether the same record would be refused again.
fn is_for_good(code: Code) -> bool {
    use Code::{ClusterAuthorizationFailed, InvalidRecord, MessageSizeTooLarge, TopicAuthorizationFailed};
    matches!(code, MessageSizeTooLarge | InvalidRecord | TopicAuthorizationFailed | ClusterAuthorizationFailed)
}

/// The error for a record that was not stored.
fn refusal(error: &KafkaError, report: &Report, record_bytes_max: u64) -> Error {
    let reason = match error.rdkafka_error_code() {
        Some(Code::MessageSizeTooLarge) => {
            return Error::RecordTooLarge { bytes: report.bytes, max_bytes: record_bytes_max };
        }
        Some(Code::MessageTimedOut) => "the brokers did not acknowledge it in time (kafka.message_timeout)".into(),
        Some(code) => code.to_string(),
        None => error.to_string(),
    };
    Error::Unacknowledged { topic_partition: report.topic_partition, reason }
}

type RecordProducer = ThreadedProducer<Deliveries>;

pub(super) struct Writer {
    config: ClientConfig,
    state: Arc<State>,
    record_bytes_max: u64,
    metrics: Metrics,
    producer: RwLock<Arc<RecordProducer>>,
    is_closed: AtomicBool,
    pub pending: Arc<Pending>,
    pub outcome: Arc<Outcome>,
}

impl Writer {
    /// # Errors
    /// `KafkaSettings` if librdkafka refuses the settings together.
    pub fn new(
        config: ClientConfig,
        state: Arc<State>,
        record_bytes_max: u64,
        pending_bytes_max: u64,
        metrics: Metrics,
    ) -> Result<Self> {
        let outcome = Arc::<Outcome>::default();
        let producer = start(&config, &state, &outcome, &metrics, record_bytes_max)?;
        Ok(Self {
            config,
            state,
            record_bytes_max,
            metrics,
            producer: RwLock::new(Arc::new(producer)),
            is_closed: AtomicBool::new(false),
            pending: Arc::new(Pending::new(pending_bytes_max)),
            outcome,
        })
    }

    /// Hands records to the producer, each with the name at its place in `names`, if there is one.
    ///
    /// # Errors
    /// As `append`, for what is refused at once.
    pub fn send(&self, records: &[AppendRecord], names: &[Vec<u8>]) -> Result<Fates> {
        // An unknown partition is the caller's mistake and stops the caller.
        records.iter().for_each(|record| self.state.assert_known(record.topic_partition));
        if self.is_closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        let bytes = |record: &AppendRecord| record.frame.len() as u64;
        let max_bytes = self.record_bytes_max;
        if let Some(bytes) = records.iter().map(bytes).find(|bytes| *bytes > max_bytes) {
            return Err(Error::RecordTooLarge { bytes, max_bytes });
        }
        let producer = self.producer()?;
        self.pending.reserve(records.iter().map(bytes).sum())?;
        let (call, outcome) = Call::new(records.len());
        let reports: Vec<_> = (records.iter().enumerate())
            .map(|(index, record)| Report::new(&call, &self.pending, index, record.topic_partition, bytes(record)))
            .collect();
        let mut refused = None;
        for (index, (record, report)) in records.iter().zip(reports).enumerate() {
            match &refused {
                // What follows would come after a gap.
                Some(error) => report.settle(Fate::Absent(Error::clone(error))),
                None => refused = self.send_one(&producer, record, names.get(index), report),
            }
        }
        Ok(outcome)
    }

    /// Returns why the record was refused, if it was.
    fn send_one(
        &self,
        producer: &RecordProducer,
        record: &AppendRecord,
        name: Option<&Vec<u8>>,
        report: Report,
    ) -> Option<Error> {
        let TopicPartition { topic, partition } = record.topic_partition;
        let mut message = BaseRecord::<(), [u8], _>::with_opaque_to(self.state.names.of(topic), Box::new(report))
            .partition(partition.0 as i32)
            .payload(&record.frame[..]);
        if name.is_some() || record.trace.is_some() {
            message = message.headers(headers(name, record.trace));
        }
        let (error, message) = producer.send(message).err()?;
        let report = message.delivery_opaque;
        let error = refusal(&error, &report, self.record_bytes_max);
        self.metrics.append_failures.inc();
        self.outcome.failed(&error);
        report.settle(Fate::Absent(error.clone()));
        Some(error)
    }

    /// The producer, or a new one if it has stopped for good.
    fn producer(&self) -> Result<Arc<RecordProducer>> {
        let current = self.producer.read().clone();
        let Some((code, reason)) = current.client().fatal_error() else { return Ok(current) };
        let mut slot = self.producer.write();
        if Arc::ptr_eq(&slot, &current) {
            tracing::warn!(%code, reason, "the Kafka producer has stopped for good, a new one takes over");
            self.metrics.producers_replaced.inc();
            let fresh = start(&self.config, &self.state, &self.outcome, &self.metrics, self.record_bytes_max)?;
            let given_up = std::mem::replace(&mut *slot, Arc::new(fresh));
            // It fails what it still holds and waits for its thread, which is no work for a caller.
            std::thread::spawn(move || drop((given_up, current)));
        }
        Ok(slot.clone())
    }

    /// Refuses further appends and waits until those accepted are answered, at most `wait_max`. Blocks.
    pub fn close(&self, wait_max: Duration) {
        self.is_closed.store(true, Ordering::Release);
        let producer = self.producer.read().clone();
        if let Err(error) = producer.flush(wait_max) {
            tracing::info!(%error, pending_bytes = self.pending.bytes(), "appends were still under way, nobody was told that they are stored");
        }
    }

    /// What librdkafka does itself when it cannot go on.
    #[cfg(test)]
    pub fn stop_producer_for_good(&self) {
        super::native::stop_for_good(self.producer.read().client());
    }

    pub fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }
}

fn headers(name: Option<&Vec<u8>>, parent: Option<TraceParent>) -> OwnedHeaders {
    let mut headers = OwnedHeaders::new_with_capacity(2);
    if let Some(name) = name {
        headers = headers.insert(Header { key: trace::HEADER, value: Some(name) });
    }
    if let Some(parent) = parent {
        headers = headers.insert(Header { key: TraceParent::HEADER, value: Some(&parent.to_string()) });
    }
    headers
}

fn start(
    config: &ClientConfig,
    state: &Arc<State>,
    outcome: &Arc<Outcome>,
    metrics: &Metrics,
    record_bytes_max: u64,
) -> Result<RecordProducer> {
    let (callbacks, state) = (Callbacks::default(), state.clone());
    let (outcome, metrics) = (outcome.clone(), metrics.clone());
    let deliveries = Deliveries { callbacks, state, outcome, metrics, record_bytes_max };
    let producer = config.create_with_context(deliveries);
    producer.map_err(|error| Error::KafkaSettings { reason: error.to_string() })
}
