//! What can go wrong with the log, and what to do about it.

use std::path::PathBuf;
use std::sync::Arc;

use events::batch::BatchError;
use events::{Offset, OffsetRange, TopicPartition};
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
            Self::Full { .. } | Self::Backlogged { .. } => ErrorKind::Overloaded,
            Self::Io { .. } | Self::Closed => ErrorKind::Retry,
            Self::RecordTooLarge { .. } => ErrorKind::Reject,
            Self::Frame(_) | Self::Batch(_) => ErrorKind::Corrupt,
            Self::OffsetOutOfRange { .. } | Self::Corrupt { .. } | Self::Refused { .. } => ErrorKind::Fatal,
        }
    }
}
