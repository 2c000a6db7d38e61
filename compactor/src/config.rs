//! The `[compactor]` and `[storage]` sections.

use std::collections::BTreeMap;
use std::time::Duration;

use events::limits;
use runtime::{ByteSize, DurationText};
use serde::{Deserialize, Serialize};

use crate::write::ROW_GROUP_RAW_BYTES;
use crate::{Error, Result};

/// Where tables live.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StorageConfig {
    /// `file:///…`, `s3://bucket/prefix`, or a local path. Tables are folders below it.
    pub url: String,
    /// Handed to the object store as they are.
    pub options: BTreeMap<String, String>,
}

impl StorageConfig {
    /// Whether the tables lie elsewhere than on this machine's file systems.
    pub fn is_remote(&self) -> bool {
        self.url.split_once("://").is_some_and(|(scheme, _)| scheme != "file")
    }
}

/// How the log becomes a table and the table is kept in shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether this process lands rows in the tables. Without it the log keeps them.
    pub enabled: bool,
    /// Time from the first buffered row to the commit that shows it.
    pub commit_interval: DurationText,
    /// Bytes that all of the compactor may hold: rows that wait for a commit, files being written, a merge under way
    /// and the de-duplication window.
    pub memory_budget: ByteSize,
    /// Size that merged files aim at.
    pub target_file_bytes: ByteSize,
    /// How long a payload id is remembered; at least ten minutes.
    pub dedup_window: DurationText,
    /// Whether small files are merged in the background.
    pub merge: bool,
    /// Files of like size in one partition that are worth a merge.
    pub merge_files_min: u32,
    /// Partitions whose receipt date is older than this are dropped; `0s` keeps everything.
    pub retention: DurationText,
    /// Replaced files are deleted when they have been replaced for this long; readers of older versions need them.
    pub vacuum_age: DurationText,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            commit_interval: DurationText::secs(10),
            memory_budget: ByteSize::mib(256),
            target_file_bytes: ByteSize::mib(256),
            dedup_window: DurationText::secs(15 * 60),
            merge: true,
            merge_files_min: 8,
            retention: DurationText::secs(400 * 86_400),
            vacuum_age: DurationText::secs(86_400),
        }
    }
}

/// Files and tombstones younger than this may belong to a reader or writer that is still at work.
pub const VACUUM_AGE_MIN: Duration = Duration::from_secs(600);

impl Config {
    /// All mistakes, as (key, expectation).
    pub fn mistakes(&self) -> Vec<(&'static str, String)> {
        let mut mistakes = Vec::new();
        if self.commit_interval.get() < Duration::from_millis(10) {
            mistakes.push(("compactor.commit_interval", format!("at least 10ms, got {}", self.commit_interval)));
        }
        if self.dedup_window.get() < limits::DEDUP_WINDOW_MIN {
            mistakes.push(("compactor.dedup_window", format!("at least 10m, got {}", self.dedup_window)));
        }
        if self.memory_budget < ByteSize::mib(16) || self.memory_budget > ByteSize::gib(4) {
            mistakes.push(("compactor.memory_budget", format!("from 16MiB to 4GiB, got {}", self.memory_budget)));
        }
        if self.target_file_bytes < ByteSize::mib(1) {
            mistakes.push(("compactor.target_file_bytes", format!("at least 1MiB, got {}", self.target_file_bytes)));
        }
        if self.merge_files_min < 2 {
            mistakes.push(("compactor.merge_files_min", format!("at least 2, got {}", self.merge_files_min)));
        }
        if self.vacuum_age.get() < VACUUM_AGE_MIN {
            mistakes.push(("compactor.vacuum_age", format!("at least 10m, got {}", self.vacuum_age)));
        }
        let retention = self.retention.get();
        if !retention.is_zero() && retention < Duration::from_secs(86_400) {
            mistakes.push(("compactor.retention", format!("0s or at least 1d, got {}", self.retention)));
        }
        mistakes
    }

    pub(crate) fn check(&self) -> Result<()> {
        match self.mistakes().first() {
            None => Ok(()),
            Some((key, what)) => Err(Error::Config(format!("{key}: expected {what}"))),
        }
    }

    pub(crate) fn shares(&self) -> Shares {
        Shares::of(self.memory_budget)
    }
}

/// How the memory budget is divided. Fixed shares need no negotiation between stages that could starve one another.
/// `tests/backlog_memory.rs` holds the sum against the heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shares {
    /// Decoded rows that wait for their commit. While they are encoded, half as much again goes to numbers per row and as
    /// much again, at worst, to the distinct values of one column and what is encoded already.
    pub buffer_bytes: usize,
    /// Inputs of one merge.
    pub merge_bytes: u64,
    /// The row group that a merge is about to write: its codes and distinct values.
    pub merge_row_group_bytes: usize,
    /// Entries of all de-duplication windows together.
    pub dedup_entries: usize,
}

/// Twelve bytes of fingerprint and one of bookkeeping at a load between 7/16 and 7/8, rounded up.
const DEDUP_ENTRY_BYTES: u64 = 32;

impl Shares {
    fn of(budget: ByteSize) -> Self {
        let quarter = budget.bytes() / 4;
        let merge_row_group_bytes = (quarter / 3).min(ROW_GROUP_RAW_BYTES as u64);
        Self {
            buffer_bytes: (budget.bytes() / 6) as usize,
            merge_bytes: quarter - merge_row_group_bytes,
            merge_row_group_bytes: merge_row_group_bytes as usize,
            dedup_entries: (quarter / DEDUP_ENTRY_BYTES) as usize,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid() {
        assert_eq!(Config::default().mistakes(), []);
    }

    #[test]
    fn all_mistakes_are_named_at_once() {
        let config = Config {
            dedup_window: DurationText::secs(1),
            memory_budget: ByteSize::kib(1),
            merge_files_min: 1,
            ..Config::default()
        };
        let keys: Vec<_> = config.mistakes().iter().map(|(key, _)| *key).collect();
        assert_eq!(keys, ["compactor.dedup_window", "compactor.memory_budget", "compactor.merge_files_min"]);
    }

    #[test]
    fn unknown_keys_refused() {
        assert!(serde_json::from_str::<Config>(r#"{"commit_intervall":"10s"}"#).is_err());
        let config: Config = serde_json::from_str(r#"{"commit_interval":"1s"}"#).unwrap();
        assert_eq!(config, Config { commit_interval: DurationText::secs(1), ..Config::default() });
    }
}
