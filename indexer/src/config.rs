//! The `[indexer]` section.

use std::time::Duration;

use runtime::{ByteSize, DurationText};
use serde::{Deserialize, Serialize};

/// How contexts are indexed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// False: contexts are neither indexed nor searched, and wait in the log.
    pub enabled: bool,
    /// At most this often does a shard commit, which makes what it has read searchable.
    pub commit_interval: DurationText,
    /// Contexts last seen longer ago are neither found nor counted, and removed.
    pub retention: DurationText,
    /// Contexts of one environment, and combinations of contexts; those last seen longest ago go first. 0: as many as come.
    pub environment_contexts_max: u64,
    /// Memory of all shards together: buffers of the index writers, contexts not yet committed, and hashes of contexts
    /// seen lately. Pages of the index files, which the operating system caches, are not counted.
    pub memory_budget: ByteSize,
    /// An unchanged context that was seen less than this before costs a hash look-up; its last-seen time may lag by as much.
    pub refresh_interval: DurationText,
    /// Threads of each shard that turn contexts into segments.
    pub writer_threads: u32,
    /// Terms of the dictionary and blocks of posting lists that one search reads at most. What lies beyond is left out, and
    /// the answer says that it is partial.
    pub search_budget: u64,
    /// How often states are written down in the table `contexts`, from which a lost index comes back; the log keeps what
    /// is not in it yet. Zero: never, and then an index comes back with what the log still holds.
    pub table_interval: DurationText,
    /// Whether shards are copied to the object store of the tables, from which a new owner takes them over.
    pub snapshots: Snapshots,
    /// How often a shard that has changed is copied there.
    pub snapshot_interval: DurationText,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            commit_interval: DurationText::secs(1),
            retention: DurationText::secs(30 * 24 * 3600),
            environment_contexts_max: 100_000_000,
            memory_budget: ByteSize::mib(128),
            refresh_interval: DurationText::secs(60),
            writer_threads: 1,
            search_budget: 2_000_000,
            table_interval: DurationText::secs(60),
            snapshots: Snapshots::Auto,
            snapshot_interval: DurationText::secs(300),
        }
    }
}

/// Where copies of shards are of use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Snapshots {
    /// If the tables lie in a bucket. On a local path a copy is lost with what it was copied from, and costs its room.
    #[default]
    Auto,
    On,
    Off,
}

/// A shorter time would have a shard uploaded without a pause.
const SNAPSHOT_INTERVAL_MIN: Duration = Duration::from_secs(1);

/// What one shard may use, from the budget of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardBudget {
    pub writer_bytes_per_thread: usize,
    pub writer_threads: usize,
    pub pending_bytes: usize,
    pub seen_entries: usize,
    /// Contexts of one environment in this shard; None: as many as come.
    pub environment_contexts: Option<u64>,
}

/// Tantivy refuses a smaller writer.
const WRITER_BYTES_MIN: usize = 16 << 20;
/// One remembered context: 56 bytes in a map that is on average three quarters full, with room to grow.
const SEEN_ENTRY_BYTES: usize = 96;

impl Config {
    /// All mistakes, as (key, expectation).
    pub fn mistakes(&self) -> Vec<(&'static str, String)> {
        let mut mistakes = Vec::new();
        if self.commit_interval.get() < Duration::from_millis(10) {
            mistakes.push(("indexer.commit_interval", format!("at least 10ms, got {}", self.commit_interval)));
        }
        if self.retention.get() < Duration::from_secs(3600) {
            mistakes.push(("indexer.retention", format!("at least 1h, got {}", self.retention)));
        }
        if self.refresh_interval.get() > self.retention.get() / 2 {
            let expected = format!("at most half of indexer.retention, got {}", self.refresh_interval);
            mistakes.push(("indexer.refresh_interval", expected));
        }
        if self.memory_budget < ByteSize::mib(32) || self.memory_budget > ByteSize::gib(64) {
            mistakes.push(("indexer.memory_budget", format!("from 32MiB to 64GiB, got {}", self.memory_budget)));
        }
        if self.snapshot_interval.get() < SNAPSHOT_INTERVAL_MIN {
            mistakes.push(("indexer.snapshot_interval", format!("at least 1s, got {}", self.snapshot_interval)));
        }
        if !(1..=8).contains(&self.writer_threads) {
            mistakes.push(("indexer.writer_threads", format!("from 1 to 8, got {}", self.writer_threads)));
        }
        if self.search_budget < 1000 {
            mistakes.push(("indexer.search_budget", format!("at least 1000, got {}", self.search_budget)));
        }
        mistakes
    }

    /// A quarter goes to writers, an eighth to what is pending, three eighths to what was seen lately; the rest is slack.
    pub fn shard_budget(&self, shards: u32) -> ShardBudget {
        let shard = self.memory_budget.as_usize() / shards.max(1) as usize;
        let threads = self.writer_threads.clamp(1, 8) as usize;
        ShardBudget {
            writer_bytes_per_thread: (shard / 4 / threads).clamp(WRITER_BYTES_MIN, 2 << 30),
            writer_threads: threads,
            pending_bytes: (shard / 8).max(1 << 20),
            // Rounded down: all shares together are not more than the bound.
            environment_contexts: (self.environment_contexts_max > 0)
                .then(|| (self.environment_contexts_max / u64::from(shards.max(1))).max(1)),
            seen_entries: (shard * 3 / 8 / SEEN_ENTRY_BYTES).max(1024),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_mistakes_are_told() {
        assert!(Config::default().mistakes().is_empty());
        let wrong = Config {
            commit_interval: DurationText::millis(1),
            retention: DurationText::secs(1),
            memory_budget: ByteSize::mib(1),
            writer_threads: 0,
            search_budget: 0,
            snapshot_interval: DurationText::millis(1),
            ..Config::default()
        };
        assert_eq!(wrong.mistakes().len(), 7);
    }

    #[test]
    fn budget_is_kept_by_default() {
        let budget = Config::default().shard_budget(2);
        let bytes = budget.writer_bytes_per_thread * budget.writer_threads
            + budget.pending_bytes
            + budget.seen_entries * SEEN_ENTRY_BYTES;
        assert!(bytes * 2 <= Config::default().memory_budget.as_usize());
    }
}
