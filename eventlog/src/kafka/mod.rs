//! A log on Apache Kafka: three topics, a record is a message.
//!
//! [`topics`] makes the topics or holds them against the configuration; [`writer`] appends through an idempotent producer,
//! whose reports answer the [`calls`]; [`reader`] reads from explicit offsets through [`cursor`]s; [`watch`] asks each
//! second whether an append would succeed and whether the topics are still the same, for [`state`]; [`native`] holds the
//! request that the crate `rdkafka` lacks; [`group`] divides the partitions among processes; [`config`] is the section `[kafka]`.
//!
//! What differs from the embedded log:
//! - Retention is Kafka's, by time and bytes. It does not wait for readers: what nobody has read for `kafka.retention` is
//!   gone, and its reader stops with `OffsetOutOfRange`. `commit` only notes the slowest reader of each partition in the
//!   consumer group `<topic_prefix>readers`, for the usual tools that show lag; nothing starts from there.
//! - Several processes use one log, so the end of a partition moves without us.
//! - The offset of an append may be unknown (see [`writer`]).
//!
//! # Measured
//! `tests::measure`, opt-level 1, one broker on the same 2 cores, which others kept at load 10, records that cannot be packed: 8 callers
//! of 4 KiB 12,900 appends/s at 22 core-us each; 8 of 64 KiB 3,280 appends/s (215 MB/s) at 74 core-us, half acknowledged within
//! 1.5 ms and 99 of 100 within 15 ms; 8 of 256 KiB 396 MB/s. One partition of 320 MB is read at 800 MB/s. At rest 1.6 % of a core.

mod callbacks;
mod calls;
pub mod config;
mod cursor;
mod group;
mod metrics;
mod names;
mod native;
mod reader;
mod state;
mod topics;
mod trace;
mod watch;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use events::{Offset, OffsetRange, Topic, TopicId, TopicPartition};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use rdkafka::admin::AdminClient;
use rdkafka::consumer::{BaseConsumer, Consumer};
use runtime::{Clock, Runtime, UnixMicros};
use serde::{Deserialize, Serialize};

use self::callbacks::Callbacks;
use self::metrics::Metrics;
use self::names::Names;
use self::native::{Failure, TopicDescription};
use self::reader::Reader;
use self::state::State;
use self::topics::{Ensured, Wanted};
use self::watch::{Progress, RunningWatch, Watch};
use self::writer::Writer;
use crate::traced::{Fate, Fates, TracedLog, TracedRecord};
use crate::{AppendRecord, Assigner, Error, FetchedRecord, LogReader, LogWriter, Result, WriterHealth};

pub use self::config::Config;
pub use self::group::GroupMember;

/// Longest time for the first answer of a broker, and of one attempt to get it.
const FIRST_ANSWER_TIME: Duration = Duration::from_secs(10);
const FIRST_ATTEMPT_TIME: Duration = Duration::from_secs(2);
const CALLBACKS_TIME: Duration = Duration::from_millis(50);

/// What the brokers have said of the topics, so that a log can be opened while they are away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownTopics {
    /// What they are of: another configuration means other topics.
    topic_prefix: String,
    partitions: [u32; 3],
    topic_ids: [String; 3],
    min_in_sync: usize,
}

/// A log on Kafka. See the module for how it works and the traits for what it promises.
pub struct KafkaLog {
    config: Config,
    state: Arc<State>,
    known: KnownTopics,
    writer: Arc<Writer>,
    reader: Reader,
    progress: Arc<Progress>,
    watch: Mutex<Option<RunningWatch>>,
}

impl KafkaLog {
    /// Finds the brokers, makes the topics or checks them, and starts the log's threads.
    ///
    /// `log`: numbers of partitions and the bound on what is pending; the rest is for the embedded log.
    ///
    /// # Errors
    /// Kind `Fatal`: `BrokersRefuse` (credentials, TLS), `Denied` (rights), `KafkaSettings`, `TopicMismatch`. Kind `Retry`:
    /// `BrokersSilent`, `Kafka`. None takes longer than half a minute.
    pub async fn open(config: &Config, log: &crate::Config, runtime: &Runtime) -> Result<Arc<Self>> {
        let (config, log, runtime) = (config.clone(), log.clone(), runtime.clone());
        let handle = tokio::runtime::Handle::current();
        // Much of it blocks.
        let opened = tokio::task::spawn_blocking(move || handle.block_on(open(&config, &log, &runtime)));
        opened.await.unwrap_or(Err(Error::Closed))
    }

    /// Opens the log without asking the brokers, as they were when it was last open. It takes nothing until they answer;
    /// topics that turn out to be others stop their readers. Settings and rights are looked at again by the next `open`.
    ///
    /// # Errors
    /// `KafkaSettings`; `TopicMismatch` if the configuration is of other topics.
    pub async fn open_unasked(
        config: &Config,
        log: &crate::Config,
        runtime: &Runtime,
        known: KnownTopics,
    ) -> Result<Arc<Self>> {
        if (&known.topic_prefix, known.partitions) != (&config.topic_prefix, partitions(log)) {
            let mismatches = vec!["they were of another kafka.topic_prefix or other numbers of partitions".into()];
            return Err(Error::TopicMismatch { mismatches });
        }
        let consumers = [reader::consumer(&config.consumer())?, reader::consumer(&config.consumer())?];
        let opened = assemble(config, log, runtime, consumers, known)?;
        opened.state.set_unavailable(Some("no broker has answered since the start".into()), false);
        Ok(opened)
    }

    /// What is to be kept for [`Self::open_unasked`].
    pub fn known_topics(&self) -> &KnownTopics {
        &self.known
    }

    /// Refuses further appends and waits for those accepted, at most `wait_max`. Reading goes on.
    pub async fn close(&self, wait_max: Duration) {
        let writer = self.writer.clone();
        // It reports itself what it could not do.
        let _ = tokio::task::spawn_blocking(move || writer.close(wait_max)).await;
        *self.watch.lock() = None;
    }

    /// Bytes of appends that are not acknowledged yet.
    pub fn pending_bytes(&self) -> u64 {
        self.writer.pending.bytes()
    }

    /// Lets this process take part in the work of `stage` on `topics`. What it holds is told to the assignment until the
    /// member is dropped.
    ///
    /// # Errors
    /// `KafkaSettings` if librdkafka refuses the settings together. Brokers that are away are waited for.
    pub fn join(&self, stage: &str, topics: &[Topic], assigner: Assigner) -> Result<GroupMember> {
        let names = topics.iter().map(|topic| (*topic, self.state.names.of(*topic).to_owned())).collect();
        GroupMember::join(&self.config.member(stage), names, assigner)
    }

    pub fn topic_partitions(&self) -> Vec<TopicPartition> {
        self.state.topic_partitions().collect()
    }
}

async fn open(config: &Config, log: &crate::Config, runtime: &Runtime) -> Result<Arc<KafkaLog>> {
    let names = Names::new(&config.topic_prefix);
    let partitions = partitions(log);
    let consumers = [reader::consumer(&config.consumer())?, reader::consumer(&config.consumer())?];
    let described = first_answer(&consumers[0], &names, config, &runtime.clock)?;
    let admin: AdminClient<Callbacks> = config
        .admin()
        .create_with_context(Callbacks::default())
        .map_err(|error| Error::KafkaSettings { reason: error.to_string() })?;
    let wanted = Topic::ALL.map(|topic| {
        let (name, partitions) = (names.of(topic).to_owned(), partitions[topic as usize]);
        Wanted { topic, name, partitions, config }
    });
    let Ensured { topics, min_in_sync } = topics::ensure(&admin, &wanted, described, &runtime.clock).await?;
    check_rights(&topics, &names)?;
    let topic_ids = Topic::ALL.map(|topic| topics[topic as usize].id.clone());
    let known = KnownTopics { topic_prefix: config.topic_prefix.clone(), partitions, topic_ids, min_in_sync };
    assemble(config, log, runtime, consumers, known)
}

fn partitions(log: &crate::Config) -> [u32; 3] {
    [log.events_partitions, log.contexts_partitions, log.dead_letters_partitions]
}

/// Starts the log's threads.
fn assemble(
    config: &Config,
    log: &crate::Config,
    runtime: &Runtime,
    consumers: [Arc<BaseConsumer<Callbacks>>; 2],
    known: KnownTopics,
) -> Result<Arc<KafkaLog>> {
    let names = Names::new(&config.topic_prefix);
    let topic_ids = known.topic_ids.each_ref().map(|id| TopicId(id.as_str().into()));
    let state = Arc::new(State::new(names, known.partitions, topic_ids));
    let metrics = Metrics::new(&runtime.telemetry);
    let (largest, pending) = (config.record_bytes_max.0, log.pending_bytes_max.0);
    let writer = Arc::new(Writer::new(config.producer(), state.clone(), largest, pending, metrics.clone())?);
    let progress = Arc::<Progress>::default();
    let watch = Watch {
        consumers: consumers.clone(),
        state: state.clone(),
        outcome: writer.outcome.clone(),
        progress: progress.clone(),
        metrics: metrics.clone(),
        clock: runtime.clock.clone(),
        min_in_sync: known.min_in_sync,
    };
    let watch = watch.start().map_err(|error| Error::Kafka {
        action: "starting the watch of the brokers".into(),
        reason: error.to_string(),
    })?;
    let reader = Reader::new(consumers, state.clone(), runtime.clock.clone(), metrics);
    let config = config.clone();
    Ok(Arc::new(KafkaLog { config, state, known, writer, reader, progress, watch: Mutex::new(Some(watch)) }))
}

/// Asks for the topics until a broker answers, or it is clear that none will.
fn first_answer(
    consumer: &BaseConsumer<Callbacks>,
    names: &Names,
    config: &Config,
    clock: &Clock,
) -> Result<Vec<std::result::Result<TopicDescription, Failure>>> {
    let begun = clock.instant();
    let brokers = || config.brokers.clone();
    loop {
        let failure = match native::describe_topics(consumer.client(), names.all(), FIRST_ATTEMPT_TIME) {
            Ok(described) => return Ok(described),
            Err(failure) => failure,
        };
        // Why connections fail comes as events of this consumer.
        watch::serve_callbacks(consumer, CALLBACKS_TIME);
        let last = consumer.context().last_failure();
        if let Some(last) = last.as_ref().filter(|last| last.is_final()) {
            return Err(Error::BrokersRefuse { brokers: brokers(), reason: last.reason.clone() });
        }
        if begun.elapsed() >= FIRST_ANSWER_TIME {
            let reason = last.map_or(failure.reason, |last| last.reason);
            return Err(Error::BrokersSilent { brokers: brokers(), waited: FIRST_ANSWER_TIME, reason });
        }
    }
}

fn check_rights(topics: &[TopicDescription], names: &Names) -> Result<()> {
    for (topic, name) in topics.iter().zip(names.all()) {
        for (right, verb, may) in [("READ", "reading", topic.may_read), ("WRITE", "writing", topic.may_write)] {
            if !may {
                let action = format!("{verb} topic {name}");
                return Err(Error::Denied { action, reason: format!("our user lacks the right {right} on it") });
            }
        }
    }
    Ok(())
}

impl LogWriter for KafkaLog {
    fn append(&self, records: Vec<AppendRecord>) -> BoxFuture<'_, Result<Vec<Offset>>> {
        Box::pin(async move {
            if records.is_empty() {
                return Ok(Vec::new());
            }
            let fates = self.writer.send(&records, &[])?;
            let fates = fates.await.map_err(|_| Error::Closed)?;
            fates.into_iter().map(Fate::stored).collect()
        })
    }

    fn partitions(&self, topic: Topic) -> u32 {
        self.state.partitions[topic as usize]
    }

    fn health(&self) -> WriterHealth {
        let why = if self.writer.is_closed() {
            Some(Error::Closed.to_string())
        } else {
            self.state.unavailable().or_else(|| self.writer.outcome.failure()).or_else(|| {
                let pending = &self.writer.pending;
                pending.is_full().then(|| format!("{} bytes wait for the Kafka brokers", pending.bytes()))
            })
        };
        why.map_or(WriterHealth::Ready, WriterHealth::Unavailable)
    }
}

impl TracedLog for KafkaLog {
    fn send(&self, records: Vec<TracedRecord>) -> Result<Fates> {
        let names: Vec<_> = records.iter().map(trace::encode).collect();
        let records: Vec<_> = records.into_iter().map(|traced| traced.record).collect();
        self.writer.send(&records, &names)
    }

    fn end_seen(&self, topic_partition: TopicPartition) -> Offset {
        self.state.end(topic_partition)
    }
}

impl LogReader for KafkaLog {
    fn partitions(&self, topic: Topic) -> u32 {
        self.state.partitions[topic as usize]
    }

    fn topic_id(&self, topic: Topic) -> TopicId {
        self.state.topic_ids[topic as usize].clone()
    }

    fn fetch(
        &self,
        topic_partition: TopicPartition,
        from: Offset,
        bytes_max: usize,
        wait_max: Duration,
    ) -> BoxFuture<'_, Result<Vec<FetchedRecord>>> {
        self.state.assert_known(topic_partition);
        Box::pin(self.reader.fetch(topic_partition, from, bytes_max, wait_max))
    }

    fn bounds(&self, topic_partition: TopicPartition) -> BoxFuture<'_, Result<OffsetRange>> {
        self.state.assert_known(topic_partition);
        Box::pin(self.reader.bounds(topic_partition))
    }

    fn offset_at(&self, topic_partition: TopicPartition, time: UnixMicros) -> BoxFuture<'_, Result<Offset>> {
        self.state.assert_known(topic_partition);
        Box::pin(self.reader.offset_at(topic_partition, time))
    }

    /// Nothing to do: Kafka's retention waits for nobody.
    fn register(&self, _reader: &'static str, _topic: Topic) {}

    /// Noted in a consumer group, for tools that show lag.
    fn commit(&self, reader: &'static str, topic_partition: TopicPartition, next: Offset) {
        self.progress.note(reader, topic_partition, next);
    }
}

#[cfg(test)]
pub(crate) mod tests;
