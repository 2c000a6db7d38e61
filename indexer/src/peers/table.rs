//! Who holds which shard: what each process said last.

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// A shard as its process tells of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ShardState {
    pub partition: u32,
    /// What was lost is being taken over.
    pub is_rebuilding: bool,
    /// It has not read yet what the log held when it was opened.
    pub is_behind: bool,
    /// First offset that is not searchable.
    pub next: i64,
    pub lag_records: u64,
    pub lag_seconds: f64,
    /// Microseconds.
    pub last_commit: Option<i64>,
}

impl ShardState {
    /// More is better.
    fn worth(&self) -> (bool, bool, i64) {
        (!self.is_rebuilding, !self.is_behind, self.next)
    }
}

/// Whom to ask for which partitions, and the partitions that nobody claims.
#[derive(Debug, PartialEq)]
pub struct Plan {
    pub groups: Vec<(usize, Vec<u32>)>,
    pub missing: Vec<u32>,
}

/// Open shards of a process, or why nothing is known of them.
type Said = Result<Vec<ShardState>, String>;

/// Processes by their places in the configuration.
pub struct Table {
    peers: Vec<String>,
    partitions: u32,
    said: Mutex<Vec<Said>>,
}

impl Table {
    pub fn new(peers: &[String], partitions: u32) -> Self {
        let said = vec![Err("it was not asked yet".to_owned()); peers.len()];
        let peers = peers.iter().map(|peer| peer.trim_end_matches('/').to_owned()).collect();
        Self { peers, partitions, said: Mutex::new(said) }
    }

    pub fn peers(&self) -> &[String] {
        &self.peers
    }

    pub fn partitions(&self) -> Vec<u32> {
        (0..self.partitions).collect()
    }

    /// Takes down what a process said. Only what changes is logged.
    pub fn note(&self, peer: usize, told: Said) {
        let mut said = self.said.lock();
        let address = self.peers[peer].as_str();
        match (&said[peer], &told) {
            (Ok(_), Err(why)) => tracing::warn!(peer = address, why, "a process with shards of the index is away"),
            (Err(before), Err(why)) if before != why => {
                tracing::warn!(peer = address, why, "a process with shards of the index cannot be asked");
            }
            (Err(_), Ok(_)) => tracing::info!(peer = address, "a process with shards of the index answers"),
            _ => {}
        }
        said[peer] = told;
    }

    /// Of each partition the best claim, of others than `avoided` if there are any.
    fn claims(&self, partitions: &[u32], avoided: Option<usize>) -> Vec<(u32, Option<(usize, ShardState)>)> {
        let said = self.said.lock();
        let best_of = |partition: u32| {
            let of_peer = |(peer, said): (usize, &Said)| {
                let shard = said.as_ref().ok()?.iter().find(|shard| shard.partition == partition)?;
                Some((peer, shard.clone()))
            };
            let claims = said.iter().enumerate().filter_map(of_peer);
            claims.max_by_key(|(peer, shard)| (avoided != Some(*peer), shard.worth()))
        };
        partitions.iter().map(|partition| (*partition, best_of(*partition))).collect()
    }

    /// `avoided`: asked only for what nobody else claims.
    pub fn plan(&self, partitions: &[u32], avoided: Option<usize>) -> Plan {
        let mut plan = Plan { groups: Vec::new(), missing: Vec::new() };
        for (partition, claim) in self.claims(partitions, avoided) {
            let Some((peer, _)) = claim else {
                plan.missing.push(partition);
                continue;
            };
            match plan.groups.iter_mut().find(|(other, _)| *other == peer) {
                Some((_, partitions)) => partitions.push(partition),
                None => plan.groups.push((peer, vec![partition])),
            }
        }
        plan
    }

    pub fn shards(&self) -> Vec<ShardState> {
        let claims = self.claims(&self.partitions(), None);
        claims.into_iter().filter_map(|(_, claim)| claim).map(|(_, shard)| shard).collect()
    }

    /// Which partitions nobody claims, and what is known of the processes that might.
    pub fn fault(&self) -> Option<String> {
        let missing = self.plan(&self.partitions(), None).missing;
        if missing.is_empty() {
            return None;
        }
        let said = self.said.lock();
        let away = self.peers.iter().zip(said.iter());
        let away = away.filter_map(|(peer, said)| said.as_ref().err().map(|why| format!("; {peer}: {why}")));
        Some(format!("nobody has partitions {missing:?} of the index{}", away.collect::<String>()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(partition: u32, next: i64) -> ShardState {
        ShardState { partition, next, ..ShardState::default() }
    }

    fn table(said: &[&[ShardState]]) -> Table {
        let peers: Vec<String> = (0..said.len()).map(|peer| format!("http://index-{peer}:1/")).collect();
        let table = Table::new(&peers, 3);
        said.iter().enumerate().for_each(|(peer, shards)| table.note(peer, Ok(shards.to_vec())));
        table
    }

    #[test]
    fn each_partition_is_asked_of_one_process() {
        let table = table(&[&[shard(0, 5), shard(1, 9)], &[shard(1, 8)]]);
        let plan = |avoided| table.plan(&[0, 1, 2], avoided);
        assert_eq!(plan(None), Plan { groups: vec![(0, vec![0, 1])], missing: vec![2] });
        assert_eq!(plan(Some(0)), Plan { groups: vec![(0, vec![0]), (1, vec![1])], missing: vec![2] });
        assert!(table.fault().unwrap().contains("[2]"));
        table.note(1, Ok(vec![shard(2, 0)]));
        assert_eq!((table.fault(), table.shards().len()), (None, 3));
        table.note(0, Err("it is gone".into()));
        let fault = table.fault().unwrap();
        assert!(fault.contains("[0, 1]") && fault.contains("http://index-0:1: it is gone"), "{fault}");
    }

    #[test]
    fn what_is_up_to_date_comes_before_what_is_not() {
        let behind = ShardState { is_behind: true, ..shard(0, 90) };
        let rebuilding = ShardState { is_rebuilding: true, ..shard(0, 100) };
        let whole = |said: &[&[ShardState]]| table(said).plan(&[0], None).groups[0].0;
        let (rebuilding, behind) = ([rebuilding], [behind]);
        assert_eq!(whole(&[&rebuilding, &behind, &[shard(0, 80)]]), 2);
        assert_eq!(whole(&[&rebuilding, &behind]), 1);
        assert_eq!(whole(&[&[shard(0, 7)], &[shard(0, 6)]]), 0);
    }
}
