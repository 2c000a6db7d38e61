//! What can go wrong between log and table, and what the compactor does about it.

use events::{Offset, OffsetRange, TopicPartition};
use runtime::ErrorKind;

pub type Result<T> = std::result::Result<T, Error>;

/// An error of the compactor.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{action} {path} failed: {source}")]
    Store { action: &'static str, path: String, source: object_store::Error },
    #[error(transparent)]
    Log(#[from] eventlog::Error),
    /// Somebody else moved the partition on. The batch is dropped and read again from where the table stands.
    #[error("batch of {topic_partition} starts at {start}, but table {table} already stands at {stored}")]
    Fenced { table: &'static str, topic_partition: TopicPartition, start: Offset, stored: Offset },
    /// Files that a merge or retention wanted to replace are no longer in the table.
    #[error("file {path} of table {table} is no longer live")]
    FileGone { table: &'static str, path: String },
    /// The commit may or may not become visible. Its files must stay, nothing of it may be repeated under a new id.
    #[error("commit of version {version} to table {table} is undecided after {attempts} attempts: {source}")]
    Undecided { table: &'static str, version: u64, attempts: u32, source: object_store::Error },
    /// The commit is known not to be visible.
    #[error("commit to table {table} met other commits {attempts} times")]
    Contended { table: &'static str, attempts: u32 },
    /// They are written anew.
    #[error("files for table {table} were begun {} s ago and may no longer be committed", age.as_secs())]
    FilesTooOld { table: &'static str, age: std::time::Duration },
    #[error("table {table} is not usable: {what}")]
    Table { table: &'static str, what: String },
    #[error(
        "{topic_partition}: table {table} was fed from another log ({known}), not from {found}; put that log back, or move the table away"
    )]
    TopicReplaced { table: &'static str, topic_partition: TopicPartition, known: String, found: String },
    #[error("{topic_partition}: the table continues at {stored}, but the log holds {held}; events in between are gone")]
    OffsetLost { topic_partition: TopicPartition, stored: Offset, held: OffsetRange },
    #[error("parquet file {path}: {source}")]
    Parquet { path: String, source: parquet::errors::ParquetError },
    #[error("columns do not fit together: {0}")]
    Arrow(#[from] arrow::error::ArrowError),
    #[error(
        "merge of {files} files of table {table} read {rows_read} rows (key sum {sum_read:016x}) and wrote {rows_written} ({sum_written:016x})"
    )]
    MergeMismatch {
        table: &'static str,
        files: usize,
        rows_read: u64,
        sum_read: u64,
        rows_written: u64,
        sum_written: u64,
    },
    #[error("delta: {0}")]
    Delta(Box<deltalake_core::DeltaTableError>),
    #[error("sql: {0}")]
    Sql(Box<datafusion::error::DataFusionError>),
    #[error("configuration: {0}")]
    Config(String),
    #[error("stopped at {0}")]
    Stopped(&'static str),
}

impl Error {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Log(error) => error.kind(),
            Self::Store { .. } | Self::Undecided { .. } | Self::Contended { .. } => ErrorKind::Retry,
            Self::Fenced { .. } | Self::FileGone { .. } | Self::FilesTooOld { .. } | Self::Delta(_) => ErrorKind::Retry,
            // The store failed beneath the writer or reader, not the file.
            Self::Parquet { source: parquet::errors::ParquetError::External(_), .. } => ErrorKind::Retry,
            Self::Parquet { .. } | Self::Arrow(_) => ErrorKind::Fatal,
            Self::Sql(_) | Self::Config(_) => ErrorKind::Reject,
            Self::Table { .. } | Self::TopicReplaced { .. } | Self::OffsetLost { .. } => ErrorKind::Fatal,
            Self::MergeMismatch { .. } | Self::Stopped(_) => ErrorKind::Fatal,
        }
    }

    pub(crate) fn store(action: &'static str, path: impl ToString, source: object_store::Error) -> Self {
        Self::Store { action, path: path.to_string(), source }
    }

    pub(crate) fn parquet(path: impl ToString, source: parquet::errors::ParquetError) -> Self {
        Self::Parquet { path: path.to_string(), source }
    }
}

impl From<deltalake_core::DeltaTableError> for Error {
    fn from(error: deltalake_core::DeltaTableError) -> Self {
        Self::Delta(Box::new(error))
    }
}

impl From<datafusion::error::DataFusionError> for Error {
    fn from(error: datafusion::error::DataFusionError) -> Self {
        Self::Sql(Box::new(error))
    }
}
