//! Machines that come and go, die, lose their disks and overtake one another, over a store that loses answers and is away
//! at times, while the log forgets what the newest copies cover: whoever comes last finds every context as it was last seen.
//!
//! A seed decides what is done; threads decide when, so a seed tells what to look at, not what happens to the step.
//! `TIDEGATE_SNAPSHOT_SEED` runs one alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use eventlog::LogReader as _;
use eventlog::memory::MemoryLog;
use events::Offset;
use indexer::{Beyond, Config, SnapshotStore};
use runtime::DurationText;
use serde_json::json;
use tempfile::TempDir;

use crate::common::store::{CopyStore, Fault};
use crate::common::{Flow, PARTITIONS, append, config, new_log, place, until_async, user};

const SEEDS: u64 = 12;
const STEPS: usize = 60;
const CONTEXTS: u64 = 40;

/// Chance from a seed (SplitMix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

struct Machine {
    dir: TempDir,
    running: Option<Flow>,
}

struct World {
    chance: Chance,
    store: CopyStore,
    log: MemoryLog,
    machines: [Machine; 2],
    /// The newest state of each context.
    states: BTreeMap<usize, String>,
}

impl World {
    fn new(seed: u64) -> Self {
        let machine = || Machine { dir: tempfile::tempdir().unwrap(), running: None };
        Self {
            chance: Chance(seed),
            store: CopyStore::default(),
            log: new_log(),
            machines: [machine(), machine()],
            states: BTreeMap::new(),
        }
    }

    fn start(&self, machine: usize) -> Flow {
        let config = Config { snapshot_interval: DurationText::millis(20), ..config() };
        let beyond = Beyond { snapshots: Some(SnapshotStore::new(Arc::new(self.store.clone()))), ..Beyond::default() };
        Flow::start_kept(self.machines[machine].dir.path(), self.log.clone(), config, beyond)
    }

    async fn step(&mut self, number: usize) {
        let machine = self.chance.below(2) as usize;
        match self.chance.below(16) {
            0..=5 => self.see(number).await,
            6..=8 => {
                if self.machines[machine].running.is_none() {
                    self.machines[machine].running = Some(self.start(machine));
                }
            }
            9 => {
                if let Some(flow) = self.machines[machine].running.take() {
                    flow.stop().await;
                }
            }
            10 => self.kill(machine).await,
            11 => {
                self.kill(machine).await;
                self.machines[machine].dir = tempfile::tempdir().unwrap();
            }
            12 => {
                let faults = [Fault::AnswerLost, Fault::Lost, Fault::Late];
                let fault = faults[self.chance.below(3) as usize];
                self.store.next_manifests([fault]);
            }
            13 => self.store.set_away(self.chance.below(2) == 0),
            14 => self.forget().await,
            // Lets what runs get on with it.
            _ => {
                if let Some(flow) = &self.machines[machine].running
                    && !flow.indexer.is_rebuilding()
                {
                    flow.caught_up().await;
                }
            }
        }
    }

    async fn see(&mut self, number: usize) {
        let plan = format!("plan {number}");
        let seen: Vec<_> = (0..5).map(|_| self.chance.below(CONTEXTS) as usize).map(|n| user(n, &plan, 0)).collect();
        for one in &seen {
            let n = one.key.trim_start_matches('u').parse().unwrap();
            self.states.insert(n, plan.clone());
        }
        append(&self.log, &seen).await;
    }

    async fn kill(&mut self, machine: usize) {
        if let Some(flow) = self.machines[machine].running.take() {
            flow.kill().await;
        }
    }

    /// What the newest copies cover is no longer in the log.
    async fn forget(&self) {
        for partition in 0..PARTITIONS {
            let newest = self.store.manifests(partition).await.into_iter().rev().find_map(|manifest| manifest.next());
            if let Some(next) = newest {
                self.log.truncate_before(place(partition), Offset(next));
            }
        }
    }

    /// Everything works again: the machines as they are, and one that is new, find what was seen.
    async fn check(mut self, seed: u64) {
        self.store.set_away(false);
        for machine in 0..2 {
            if self.machines[machine].running.is_none() {
                self.machines[machine].running = Some(self.start(machine));
            }
        }
        self.expect(self.machines[0].running.as_ref().unwrap(), seed).await;
        self.expect(self.machines[1].running.as_ref().unwrap(), seed).await;
        // The owner has copied it all before the machines are lost.
        for partition in 0..PARTITIONS {
            let end = self.log.bounds(place(partition)).await.unwrap().end.0;
            if end > 0 {
                until_async(async || {
                    self.store.newest(partition).await.is_some_and(|newest| newest.next() == Some(end))
                })
                .await;
            }
        }
        self.forget().await;
        for machine in 0..2 {
            self.kill(machine).await;
        }
        self.machines[0].dir = tempfile::tempdir().unwrap();
        let flow = self.start(0);
        self.expect(&flow, seed).await;
        flow.stop().await;
    }

    async fn expect(&self, flow: &Flow, seed: u64) {
        let found = async || {
            let question = json!({"filter": "n exists true", "limit": 50});
            let (_, answer) = flow.post(crate::common::SEARCH, &question).await;
            let items = answer["items"].as_array().cloned().unwrap_or_default();
            let state = |item: &serde_json::Value| {
                let context = &item["context"];
                (context["n"].as_u64().unwrap() as usize, context["plan"].as_str().unwrap().to_owned())
            };
            items.iter().map(state).collect::<BTreeMap<usize, String>>()
        };
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
        loop {
            let found = found().await;
            if found == self.states {
                return;
            }
            if tokio::time::Instant::now() > deadline {
                let wrong: Vec<_> = self
                    .states
                    .iter()
                    .filter(|(n, plan)| found.get(n) != Some(*plan))
                    .map(|(n, plan)| (n, plan, found.get(n)))
                    .collect();
                panic!("seed {seed}: {wrong:?}; {:?}", flow.indexer.status());
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_context_is_lost_whatever_becomes_of_machines_and_store() {
    let seeds = match std::env::var("TIDEGATE_SNAPSHOT_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (0..SEEDS).collect::<Vec<u64>>(),
    };
    for seed in seeds {
        let mut world = World::new(seed);
        for number in 0..STEPS {
            world.step(number).await;
        }
        world.check(seed).await;
    }
}
