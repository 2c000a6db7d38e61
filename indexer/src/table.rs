//! What the index asks of a table of states: a place that keeps them longer than the log keeps sightings.
//!
//! The index knows no tables. Whoever composes the program hands one in as a [`StateTable`]; `keep` writes to it, and
//! `shard::seed` reads from it when a shard has to be made again. Everything that changes it goes through `keep`, one after
//! the other.

use events::{ContextState, ErasedContexts};
use futures::future::BoxFuture;
use futures::stream::BoxStream;

use crate::Result;

/// What failed in the table.
pub type TableError = Box<dyn std::error::Error + Send + Sync>;

/// Where the states of one partition stand in the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TablePosition {
    /// First offset of the topic that the table does not cover; `None` if it covers nothing of this topic.
    pub next: Option<i64>,
    /// Names this position: a change is made only if nothing else was changed since.
    pub sequence: i64,
    pub files: usize,
    pub bytes: u64,
    /// Of these, bytes of the last change that held all states.
    pub base_bytes: u64,
    /// When that change was made, milliseconds.
    pub base_written_at: i64,
}

/// A change of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableChange {
    pub partition: u32,
    pub topic_id: String,
    /// Of the position on which the change is based.
    pub sequence: i64,
    /// First offset that the table does not cover afterwards.
    pub next: i64,
    /// Whether the states are all of the partition, in place of what the table holds.
    pub is_base: bool,
}

/// States read from the table.
#[derive(Clone, Debug, Default)]
pub struct TableBatch {
    pub states: Vec<ContextState>,
    /// Whether batches before may hold older states of the same contexts.
    pub may_replace: bool,
}

/// What an erasure has done in the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ErasedStates {
    /// Files that were searched.
    pub searched_files: u64,
    /// Files of other writers, which were not.
    pub foreign_files: u64,
    pub files: u64,
    pub rows: u64,
    pub version_before: u64,
    pub version_after: u64,
}

/// States on their way into the table.
pub type States = BoxStream<'static, Result<Vec<ContextState>>>;

/// Keeps the states of all contexts.
pub trait StateTable: Send + Sync {
    fn position<'a>(
        &'a self,
        partition: u32,
        topic_id: &'a str,
    ) -> BoxFuture<'a, std::result::Result<TablePosition, TableError>>;

    /// All states of a partition, older ones of a context before newer ones, a bounded number at a time.
    fn read(
        &self,
        partition: u32,
    ) -> BoxFuture<'_, std::result::Result<BoxStream<'static, std::result::Result<TableBatch, TableError>>, TableError>>;

    /// Makes a change: all of it, together with the offset that it covers, or nothing.
    fn write(&self, change: TableChange, states: States) -> BoxFuture<'_, std::result::Result<(), TableError>>;

    /// Takes out all states of these contexts and of combinations that they are a part of, however new, in all partitions.
    /// Doing it again does no harm. `id`: names the erasure in what the table itself notes.
    fn erase<'a>(
        &'a self,
        id: &'a str,
        contexts: &'a ErasedContexts,
    ) -> BoxFuture<'a, std::result::Result<ErasedStates, TableError>>;
}
