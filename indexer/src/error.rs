//! What can go wrong with the index, and what to do about it.

use std::path::PathBuf;

use runtime::ErrorKind;
use tantivy::TantivyError;
use tantivy::directory::error::{OpenDirectoryError, OpenReadError, OpenWriteError};

use crate::filter::FilterError;

pub type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Filter(#[from] FilterError),
    #[error("the index of partition {partition} is not open yet")]
    NotOpen { partition: u32 },
    #[error("{} is in use by another process", path.display())]
    Locked { path: PathBuf },
    #[error("{action} {} failed: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
    #[error("{action} failed: {source}")]
    Index { action: &'static str, source: TantivyError },
    #[error("the index is damaged: {what}")]
    Damaged { what: String },
    #[error("{action} failed: {source}")]
    Table { action: &'static str, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("{action} {path} failed: {source}")]
    Snapshot { action: &'static str, path: String, source: Box<object_store::Error> },
    #[error("searches still read files of merged segments of partition {partition}")]
    StillRead { partition: u32 },
    #[error("the copies of partition {partition} belong to another process")]
    NotOurs { partition: u32 },
    #[error("{action} is switched off in this process")]
    SwitchedOff { action: &'static str },
    #[error("the index of partition {partition} cannot be made anew: the log begins at offset {log_start}, and the table of states ends {}", end_text(*table_end))]
    NotCovered { partition: u32, table_end: Option<i64>, log_start: i64 },
    #[error("{action} panicked")]
    Panicked { action: &'static str },
    #[error("the filter matches more than {max} contexts whose versions would have to be compared one by one")]
    TooBroad { max: u64 },
    #[error("no process with a part of the index answers: {why}")]
    Unreached { why: String },
    #[error("{message}")]
    Refused { kind: ErrorKind, message: String },
    #[error("what the export had located is not there any more")]
    RowsGone,
    #[error(transparent)]
    Log(#[from] eventlog::Error),
}

impl Error {
    pub fn index(action: &'static str) -> impl FnOnce(TantivyError) -> Self {
        move |source| Self::Index { action, source }
    }

    pub fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }

    /// `Corrupt` while opening means: the index can be thrown away and rebuilt.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Filter(_) => ErrorKind::Reject,
            Self::Refused { kind, .. } => *kind,
            Self::NotOpen { .. }
            | Self::Unreached { .. }
            | Self::RowsGone
            | Self::StillRead { .. }
            | Self::NotOurs { .. }
            | Self::Table { .. }
            | Self::Snapshot { .. } => ErrorKind::Retry,
            Self::TooBroad { .. } => ErrorKind::Overloaded,
            Self::Locked { .. } | Self::SwitchedOff { .. } | Self::NotCovered { .. } => ErrorKind::Fatal,
            Self::Damaged { .. } => ErrorKind::Corrupt,
            Self::Panicked { .. } => ErrorKind::Fatal,
            Self::Io { source, .. } => io_kind(source),
            Self::Index { source, .. } => index_kind(source),
            Self::Log(error) => error.kind(),
        }
    }
}

fn end_text(table_end: Option<i64>) -> String {
    table_end.map_or_else(|| "before it".into(), |end| format!("at {end}"))
}

fn io_kind(error: &std::io::Error) -> ErrorKind {
    use std::io::ErrorKind as Io;
    match error.kind() {
        Io::NotFound | Io::UnexpectedEof | Io::InvalidData | Io::InvalidInput | Io::Other | Io::NotADirectory => {
            ErrorKind::Corrupt
        }
        _ => ErrorKind::Retry,
    }
}

/// What a rebuild would not cure (no space, no permission) is tried again; everything else counts as damage.
fn index_kind(error: &TantivyError) -> ErrorKind {
    match error {
        TantivyError::IoError(source) => io_kind(source),
        TantivyError::OpenReadError(OpenReadError::IoError { io_error, .. })
        | TantivyError::OpenWriteError(OpenWriteError::IoError { io_error, .. })
        | TantivyError::OpenDirectoryError(OpenDirectoryError::IoError { io_error, .. }) => io_kind(io_error),
        TantivyError::LockFailure(..) | TantivyError::SystemError(_) => ErrorKind::Retry,
        _ => ErrorKind::Corrupt,
    }
}
