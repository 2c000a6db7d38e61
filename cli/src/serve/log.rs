//! The log of this process, embedded or on Kafka with a spill before it, behind one face.
//!
//! Whichever it is, the data directory belongs to one process at a time: index and keys are kept there too.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use eventlog::config::Kind;
use eventlog::embedded::EmbeddedLog;
use eventlog::kafka::{KafkaLog, KnownTopics};
use eventlog::lock::DirectoryLock;
use eventlog::spill::{LocalStore, Settings as SpillSettings, SpillLog, Store};
use eventlog::{LogReader, LogWriter};
use events::{OffsetRange, TopicPartition};
use runtime::Runtime;
use serde_json::{Value, json};

use crate::config::Settings;

/// Folder of the embedded log in the data directory, and of the lock in any case.
pub const FOLDER: &str = "log";

/// Folder of the spill in the data directory.
const SPILL_FOLDER: &str = "spill";
/// What is known of the topics, beside the spill.
const TOPICS_FILE: &str = "topics.json";

type Spill = SpillLog<KafkaLog, LocalStore>;

/// Whether the process appends what clients send, which is spilled while Kafka does not take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appends {
    Events,
    Little,
}

/// An open log. Cheap to clone.
#[derive(Clone)]
pub enum Log {
    Embedded(Arc<EmbeddedLog>),
    Kafka { log: Arc<KafkaLog>, spill: Option<Arc<Spill>>, _lock: Arc<DirectoryLock> },
}

impl Log {
    /// Opens the log that the settings name, and takes the data directory.
    pub async fn open(settings: &Settings, appends: Appends, runtime: &Runtime) -> anyhow::Result<Self> {
        let dir = settings.data_dir.join(FOLDER);
        match settings.log.kind {
            Kind::Embedded => {
                let log = EmbeddedLog::open(&dir, &settings.log, runtime);
                Ok(Self::Embedded(log.with_context(|| format!("opening the log {}", dir.display()))?))
            }
            Kind::Kafka => {
                let lock = lock(&dir)?;
                let spills = appends == Appends::Events;
                let log = open_kafka(settings, spills, runtime).await.context("opening the log on Kafka")?;
                let spill = if spills { open_spill(&log, settings, runtime).await? } else { None };
                let spill = spill.map(Arc::new);
                Ok(Self::Kafka { log, spill, _lock: Arc::new(lock) })
            }
        }
    }

    pub fn writer(&self) -> Arc<dyn LogWriter> {
        match self {
            Self::Embedded(log) => log.clone(),
            Self::Kafka { spill: Some(spill), .. } => spill.clone(),
            Self::Kafka { log, .. } => log.clone(),
        }
    }

    pub fn reader(&self) -> Arc<dyn LogReader> {
        match self {
            Self::Embedded(log) => log.clone(),
            Self::Kafka { log, .. } => log.clone(),
        }
    }

    /// Bytes of appends that are not durable yet.
    pub fn pending_bytes(&self) -> u64 {
        match self {
            Self::Embedded(log) => log.pending_bytes(),
            Self::Kafka { log, spill, .. } => {
                log.pending_bytes() + spill.as_ref().map_or(0, |spill| spill.store().pending_bytes())
            }
        }
    }

    /// Sets the gauges that are only set when they are asked for.
    pub fn refresh_gauges(&self) {
        if let Self::Kafka { spill: Some(spill), .. } = self {
            spill.status();
        }
    }

    /// Refuses further appends and makes those accepted durable, as far as that is possible in `wait_max`.
    pub async fn close(&self, wait_max: Duration) {
        match self {
            Self::Embedded(log) => {
                if tokio::time::timeout(wait_max, log.close()).await.is_err() {
                    tracing::warn!("the log did not close in time; everything acknowledged was synced before");
                }
            }
            Self::Kafka { log, spill, .. } => {
                let Some(spill) = spill else { return log.close(wait_max).await };
                spill.stop(wait_max / 2).await;
                log.close(wait_max / 2).await;
                spill.store().close().await;
            }
        }
    }

    /// What it holds, for the pipeline page. A partition whose broker does not answer is left out.
    pub async fn state(&self) -> Value {
        match self {
            Self::Embedded(log) => {
                json!({"kind": "embedded", "bytes": log.bytes(), "partitions": partitions(log.ranges())})
            }
            Self::Kafka { log, spill, .. } => {
                let asked = log
                    .topic_partitions()
                    .into_iter()
                    .map(|place| async move { log.bounds(place).await.ok().map(|range| (place, range)) });
                let ranges = futures::future::join_all(asked).await;
                let spill = spill.as_ref().map(|spill| spill_state(spill));
                json!({"kind": "kafka", "partitions": partitions(ranges.into_iter().flatten()), "spill": spill})
            }
        }
    }
}

/// The log on Kafka; one that was open before with this spill also while no broker answers.
async fn open_kafka(settings: &Settings, spills: bool, runtime: &Runtime) -> eventlog::Result<Arc<KafkaLog>> {
    let spills = spills && settings.kafka.spill_max.0 > 0;
    let file = settings.data_dir.join(SPILL_FOLDER).join(TOPICS_FILE);
    match KafkaLog::open(&settings.kafka, &settings.log, runtime).await {
        Ok(log) => {
            if spills && let Err(error) = keep(&file, log.known_topics()) {
                tracing::warn!(file = %file.display(), %error, "topics not noted, the next start needs a broker");
            }
            Ok(log)
        }
        Err(error @ eventlog::Error::BrokersSilent { .. }) if spills => {
            let known = std::fs::read(&file).ok().and_then(|text| serde_json::from_slice(&text).ok());
            let Some(known) = known else { return Err(error) };
            tracing::warn!(%error, "started all the same, events are kept on the local disk until a broker answers");
            KafkaLog::open_unasked(&settings.kafka, &settings.log, runtime, known).await
        }
        Err(error) => Err(error),
    }
}

/// Replaces a file in one step.
fn keep(file: &Path, known: &KnownTopics) -> std::io::Result<()> {
    std::fs::create_dir_all(file.parent().unwrap_or(Path::new(".")))?;
    let new = file.with_extension("json.new");
    std::fs::write(&new, serde_json::to_vec(known)?)?;
    std::fs::File::open(&new)?.sync_all()?;
    std::fs::rename(new, file)
}

/// None if nothing is to be spilled and nothing is left from when it was.
async fn open_spill(log: &Arc<KafkaLog>, settings: &Settings, runtime: &Runtime) -> anyhow::Result<Option<Spill>> {
    let dir = settings.data_dir.join(SPILL_FOLDER);
    let bytes_max = settings.kafka.spill_max;
    if bytes_max.0 == 0 && !dir.exists() {
        return Ok(None);
    }
    let context = || format!("opening the spill {}", dir.display());
    let store = LocalStore::open(&dir, bytes_max, &settings.log, runtime).with_context(context)?;
    // Without room in the spill it is the log that says how long an append may take.
    let after = if bytes_max.0 == 0 { settings.kafka.message_timeout } else { settings.kafka.spill_after };
    let spill_settings = SpillSettings::new(after.get(), settings.log.pending_bytes_max.0);
    let spill = SpillLog::open(log.clone(), Arc::new(store), spill_settings, runtime).await;
    spill.with_context(context).map(Some)
}

fn spill_state(spill: &Spill) -> Value {
    let status = spill.status();
    json!({
        "breaker": status.breaker.name(),
        "spilling": status.is_spilling,
        "bytes": status.bytes,
        "records": status.records,
        "oldestSeconds": status.oldest.map(|age| age.as_secs()),
        "drainedTotal": status.drained,
        "foundTotal": status.found,
    })
}

fn lock(dir: &Path) -> anyhow::Result<DirectoryLock> {
    DirectoryLock::take(dir).with_context(|| format!("taking the data directory by {}", dir.display()))
}

fn partitions(ranges: impl IntoIterator<Item = (TopicPartition, OffsetRange)>) -> Vec<Value> {
    let shown = ranges.into_iter().map(|(place, range)| {
        json!({
            "topic": place.topic.name(),
            "partition": place.partition.0,
            "earliest": range.start.0,
            "next": range.end.0,
        })
    });
    shown.collect()
}
