//! The log of this process, embedded or on Kafka, behind one face.
//!
//! Whichever it is, the data directory belongs to one process at a time: index and keys are kept there too.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use eventlog::config::Kind;
use eventlog::embedded::EmbeddedLog;
use eventlog::kafka::KafkaLog;
use eventlog::lock::DirectoryLock;
use eventlog::{LogReader, LogWriter};
use events::{OffsetRange, TopicPartition};
use runtime::Runtime;
use serde_json::{Value, json};

use crate::config::Settings;

/// Folder of the embedded log in the data directory, and of the lock in any case.
pub const FOLDER: &str = "log";

/// An open log. Cheap to clone.
#[derive(Clone)]
pub enum Log {
    Embedded(Arc<EmbeddedLog>),
    Kafka { log: Arc<KafkaLog>, _lock: Arc<DirectoryLock> },
}

impl Log {
    /// Opens the log that the settings name, and takes the data directory.
    pub async fn open(settings: &Settings, runtime: &Runtime) -> anyhow::Result<Self> {
        let dir = settings.data_dir.join(FOLDER);
        match settings.log.kind {
            Kind::Embedded => {
                let log = EmbeddedLog::open(&dir, &settings.log, runtime);
                Ok(Self::Embedded(log.with_context(|| format!("opening the log {}", dir.display()))?))
            }
            Kind::Kafka => {
                let lock = lock(&dir)?;
                let log = KafkaLog::open(&settings.kafka, &settings.log, runtime).await;
                Ok(Self::Kafka { log: log.context("opening the log on Kafka")?, _lock: Arc::new(lock) })
            }
        }
    }

    pub fn writer(&self) -> Arc<dyn LogWriter> {
        match self {
            Self::Embedded(log) => log.clone(),
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
            Self::Kafka { log, .. } => log.pending_bytes(),
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
            Self::Kafka { log, .. } => log.close(wait_max).await,
        }
    }

    /// What it holds, for the pipeline page. A partition whose broker does not answer is left out.
    pub async fn state(&self) -> Value {
        match self {
            Self::Embedded(log) => {
                json!({"kind": "embedded", "bytes": log.bytes(), "partitions": partitions(log.ranges())})
            }
            Self::Kafka { log, .. } => {
                let asked = log
                    .topic_partitions()
                    .into_iter()
                    .map(|place| async move { log.bounds(place).await.ok().map(|range| (place, range)) });
                let ranges = futures::future::join_all(asked).await;
                json!({"kind": "kafka", "partitions": partitions(ranges.into_iter().flatten())})
            }
        }
    }
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
