//! Which partitions a payload's rows go to. Part of the log's layout: a change moves repeats away from their twins.
//!
//! An environment uses a few partitions of all, chosen by rendezvous hash, so that one noisy environment cannot fill
//! every partition; within them the payload id chooses, so that a repeated payload meets its twin in the same one.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Partitions of the `events` topic that one environment may use.
const SHARD_PARTITIONS: usize = 4;

/// The partitions of one environment, in no particular order but always the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shard(Box<[u32]>);

impl Shard {
    /// `partitions`: how many the topic has, at least one.
    pub fn of(environment_hash: u64, partitions: u32) -> Self {
        assert!(partitions > 0, "a topic has at least one partition");
        let mut ranked: Vec<u32> = (0..partitions).collect();
        ranked.sort_by_key(|partition| xxh3_64_with_seed(&partition.to_le_bytes(), environment_hash));
        ranked.truncate(SHARD_PARTITIONS);
        Self(ranked.into())
    }

    /// The partition of a payload; `spread` is used where there is no id, and may be anything.
    pub fn partition(&self, payload_id: Option<&str>, spread: u64) -> u32 {
        let hash = payload_id.map_or(spread, |id| xxh3_64(id.as_bytes()));
        self.0[(hash % self.0.len() as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn environment_stays_within_its_few() {
        let shard = Shard::of(7, 64);
        let used: HashSet<u32> = (0..1_000).map(|n| shard.partition(Some(&format!("id-{n}")), 0)).collect();
        assert_eq!(used.len(), SHARD_PARTITIONS);
        let all: HashSet<u32> = (0..200).flat_map(|hash| Shard::of(hash, 64).0).collect();
        assert_eq!(all.len(), 64);
    }

    #[test]
    fn layout_does_not_move() {
        let ids = ["a", "b", "c", "d"];
        assert_eq!(ids.map(|id| Shard::of(1, 16).partition(Some(id), 0)), [8, 8, 8, 0]);
    }
}
