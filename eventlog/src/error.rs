//! What can go wrong with the log, and what to do about it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use events::batch::BatchError;
use events::{Offset, OffsetRange, TopicId, TopicPartition};
use runtime::ErrorKind;

pub type Result<T> = std::result::Result<T, Error>;

/// An error of the log. Cheap to clone, as one failed group commit answers many appends.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "append refused: the log holds {held_bytes} bytes of at most {max_bytes}, and a reader has not committed what could go"
    )]
    Full { held_bytes: u64, max_bytes: u64 },
    #[error("append refused: {pending_bytes} bytes wait to be written, at most {max_bytes} may")]
    Backlogged { pending_bytes: u64, max_bytes: u64 },
    #[error(
        "append refused: Kafka does not take it, and the spill for that time holds {held_bytes} bytes of at most {max_bytes}"
    )]
    SpillFull { held_bytes: u64, max_bytes: u64 },
    #[error("{action} {} failed: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: Arc<std::io::Error> },
    #[error("the log is closed")]
    Closed,
    #[error("record of {bytes} bytes exceeds the {max_bytes} bytes that one may have")]
    RecordTooLarge { bytes: u64, max_bytes: u64 },
    #[error("fetch of {topic_partition} from offset {from}: the log holds {held}")]
    OffsetOutOfRange { topic_partition: TopicPartition, from: Offset, held: OffsetRange },
    #[error("{} at byte {position}: {what}", path.display())]
    Corrupt { path: PathBuf, position: u64, what: String },
    #[error("{} is not usable: {what}", path.display())]
    Refused { path: PathBuf, what: String },
    #[error("no answer from the Kafka brokers {brokers} within {waited:?}: {reason}")]
    BrokersSilent { brokers: String, waited: Duration, reason: String },
    #[error("the Kafka brokers {brokers} do not let us in: {reason}; see [kafka.librdkafka]")]
    BrokersRefuse { brokers: String, reason: String },
    #[error("{action} is not allowed by the Kafka brokers: {reason}")]
    Denied { action: String, reason: String },
    #[error("{action} failed: {reason}")]
    Kafka { action: String, reason: String },
    #[error("Kafka settings are not usable: {reason}")]
    KafkaSettings { reason: String },
    #[error("topics do not fit the configuration: {}", mismatches.join("; "))]
    TopicMismatch { mismatches: Vec<String> },
    #[error("append to {topic_partition} was not acknowledged, its record may be in the log or not: {reason}")]
    Unacknowledged { topic_partition: TopicPartition, reason: String },
    #[error(
        "topic {name} is not the one that was opened: its id was {opened} and is {found}, so it was deleted; restart to let the tables and the index say from where the new one is read"
    )]
    TopicReplaced { name: String, opened: TopicId, found: String },
    #[error(
        "{topic_partition} of the log has shrunk: it ended at offset {known} and ends at {found}, acknowledged records are gone; find out which broker lost them before anything reads on"
    )]
    Shrunk { topic_partition: TopicPartition, known: Offset, found: Offset },
    #[error("unreadable frame: {0}")]
    Frame(String),
    #[error("unreadable frame: {0}")]
    Batch(#[from] BatchError),
}

impl Error {
    pub fn io(action: &'static str, path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::Io { action, path: path.into(), source: Arc::new(source) }
    }

    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Full { .. } | Self::Backlogged { .. } | Self::SpillFull { .. } => ErrorKind::Overloaded,
            Self::Io { .. }
            | Self::Closed
            | Self::BrokersSilent { .. }
            | Self::Kafka { .. }
            | Self::Unacknowledged { .. } => ErrorKind::Retry,
            Self::RecordTooLarge { .. } => ErrorKind::Reject,
            Self::Frame(_) | Self::Batch(_) => ErrorKind::Corrupt,
            Self::OffsetOutOfRange { .. }
            | Self::Corrupt { .. }
            | Self::Refused { .. }
            | Self::BrokersRefuse { .. }
            | Self::Denied { .. }
            | Self::KafkaSettings { .. }
            | Self::TopicMismatch { .. }
            | Self::TopicReplaced { .. }
            | Self::Shrunk { .. } => ErrorKind::Fatal,
        }
    }
}
