//! What one seed holds: how large the world is, how often requests fail, what is done to it and when.
//!
//! Everything is drawn here, before the first step, so that a seed reads as a story (`--seed N --tell`).

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// What is done to the world at some time of its load.
#[derive(Clone, Debug)]
pub enum Disturbance {
    /// The process is gone at once and comes back after a while.
    KillIngest {
        slot: usize,
        down: Duration,
    },
    /// The process dies at its so-manieth request to log or store from now on: between any two steps.
    KillCompactor {
        slot: usize,
        after: i64,
        down: Duration,
    },
    KillIndexer {
        after: i64,
        down: Duration,
    },
    /// The indexer dies, and what it had on disk is gone.
    LoseIndex,
    /// The process stands still and wakes up later, believing that nothing happened.
    PauseCompactor {
        slot: usize,
        length: Duration,
    },
    /// A compactor is asked to stop, and another begins: a rolling restart.
    RestartCompactor {
        slot: usize,
    },
    /// The partitions are divided anew among the compactors. `share`: bit by bit, whether the second has a partition.
    /// `unaware`: this one hears of it so much later.
    Rebalance {
        share: u64,
        unaware: Option<(usize, Duration)>,
    },
    /// The wall clock of all processes that start on this machine is set.
    SetClock {
        machine: usize,
        ahead: i64,
    },
    /// The store answers nothing but errors.
    StoreAway {
        length: Duration,
    },
    /// The log answers nothing but errors.
    LogAway {
        length: Duration,
    },
    /// A record that nobody can read.
    Poison {
        partition: u32,
    },
    /// Old records that everybody has read are removed.
    Trim,
    /// Records go that nobody has read yet.
    Truncate {
        partition: u32,
    },
}

/// Chances of one request to go wrong.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rates {
    pub store: f64,
    pub log: f64,
    /// Answers that do not reach the client.
    pub answers: f64,
    /// Requests that take seconds instead of milliseconds.
    pub slow: f64,
}

/// How a seed ends, after the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Everything lands, everybody stops.
    Landed,
    /// Later another process cleans up behind them.
    Vacuumed,
    /// Days later rows are too old to keep.
    Expired,
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    /// Of events, contexts and dead letters.
    pub partitions: [u32; 3],
    pub ingests: usize,
    pub compactors: usize,
    /// Which partitions the second compactor has at the beginning, bit by bit; `None`: both work on all of them.
    pub share: Option<u64>,
    /// Its files and threads cost more than all the rest, so not every seed has one.
    pub has_indexer: bool,
    pub payloads: usize,
    /// Time over which payloads are first sent.
    pub load: Duration,
    pub rates: Rates,
    pub commit_interval: Duration,
    pub merge_files_min: u32,
    pub disturbances: Vec<(Duration, Disturbance)>,
    pub ending: Ending,
}

impl Plan {
    pub fn of(seed: u64) -> Self {
        let mut chance = StdRng::seed_from_u64(seed);
        let load = Duration::from_secs(chance.random_range(2..90));
        let ingests = chance.random_range(1..=2);
        let compactors = if chance.random_bool(0.4) { 2 } else { 1 };
        let partitions = [chance.random_range(1..=3), chance.random_range(1..=2), 1];
        let has_indexer = chance.random_bool(1.0 / 8.0);
        let rates = rates(&mut chance);
        let mut disturbances = Vec::new();
        for _ in 0..chance.random_range(0..6) {
            let at = load.mul_f64(chance.random_range(0.0..1.2));
            disturbances.push((at, disturbance(&mut chance, ingests, compactors, partitions[0])));
        }
        let mut plan = Self {
            seed,
            partitions,
            ingests,
            compactors,
            share: None,
            has_indexer,
            payloads: chance.random_range(3..=14),
            load,
            rates,
            commit_interval: Duration::from_millis(chance.random_range(100..6_000)),
            merge_files_min: chance.random_range(2..=4),
            disturbances,
            ending: match chance.random_range(0..16) {
                0 => Ending::Expired,
                1..=5 => Ending::Vacuumed,
                _ => Ending::Landed,
            },
        };
        if compactors == 2 && chance.random_bool(0.6) {
            plan.share = Some(chance.random());
            for _ in 0..chance.random_range(0..6) {
                let at = load.mul_f64(chance.random_range(0.0..1.2));
                plan.disturbances.push((at, rebalance(&mut chance)));
            }
        }
        plan.disturbances.sort_by_key(|(at, _)| *at);
        plan
    }

    /// Whether all clocks show the same time.
    pub fn clocks_agree(&self) -> bool {
        !self.disturbances.iter().any(|(_, disturbance)| matches!(disturbance, Disturbance::SetClock { .. }))
    }
}

fn rates(chance: &mut StdRng) -> Rates {
    let mut rate = |most: f64| match chance.random_range(0..4) {
        0 => 0.0,
        1 => most / 16.0,
        2 => most / 4.0,
        _ => most,
    };
    Rates { store: rate(0.25), log: rate(0.3), answers: rate(0.4), slow: rate(0.1) }
}

fn rebalance(chance: &mut StdRng) -> Disturbance {
    let is_told_to_all = chance.random_bool(0.6);
    let later = (chance.random_range(0..2), Duration::from_millis(chance.random_range(1..30_000)));
    Disturbance::Rebalance { share: chance.random(), unaware: (!is_told_to_all).then_some(later) }
}

fn disturbance(chance: &mut StdRng, ingests: usize, compactors: usize, partitions: u32) -> Disturbance {
    let seconds = |chance: &mut StdRng, most: u64| Duration::from_millis(chance.random_range(1..most * 1_000));
    let partition = chance.random_range(0..partitions);
    match chance.random_range(0..34) {
        0..=3 => Disturbance::KillIngest { slot: chance.random_range(0..ingests), down: seconds(chance, 10) },
        4..=11 => Disturbance::KillCompactor {
            slot: chance.random_range(0..compactors),
            after: chance.random_range(0..60),
            down: seconds(chance, 20),
        },
        12..=16 => {
            let slot = chance.random_range(0..compactors);
            Disturbance::PauseCompactor { slot, length: seconds(chance, 120) }
        }
        17..=18 => Disturbance::RestartCompactor { slot: chance.random_range(0..compactors) },
        19..=21 => Disturbance::SetClock {
            machine: chance.random_range(0..2),
            ahead: chance.random_range(-3_600..3_600) * 1_000_000,
        },
        22..=23 => Disturbance::StoreAway { length: seconds(chance, 60) },
        24..=25 => Disturbance::LogAway { length: seconds(chance, 20) },
        26 => Disturbance::Poison { partition },
        27..=28 => Disturbance::Trim,
        29 => Disturbance::Truncate { partition },
        30..=32 => Disturbance::KillIndexer { after: chance.random_range(0..30), down: seconds(chance, 10) },
        _ => Disturbance::LoseIndex,
    }
}
