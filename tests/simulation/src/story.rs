//! One seed from its first to its last step.
//!
//! Load and disturbances run side by side; then the world calms down, everything that is in the log must land within
//! bounded time, everybody is asked to stop, and the oracle adds up.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Once};
use std::time::Duration;

use bytes::Bytes;
use eventlog::AppendRecord;
use events::{Topic, TopicPartition};
use tokio::time::{Instant, sleep};

use crate::client;
use crate::compactors::{Compactors, RETENTION, VACUUM_AGE};
use crate::contexts;
use crate::indexers::Indexers;
use crate::ingests::Ingests;
use crate::log::SimulatedLog;
use crate::oracle::{self, Sums};
use crate::plan::{Disturbance, Ending, Plan};
use crate::planted::Planted;
use crate::store::Bucket;
use crate::world::{Service, World};

/// Calm, everything lands within this time: the longest back-off and the longest slow request are a fraction of it.
const LANDS_WITHIN: Duration = Duration::from_secs(15 * 60);

/// What a seed came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub seed: u64,
    /// Of all steps.
    pub hash: u64,
    pub steps: u64,
    pub sums: Sums,
    pub violations: Vec<String>,
    /// Every step, if asked for.
    pub told: Vec<String>,
}

thread_local! {
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Panics of tasks are caught by their spawner and would go unseen.
fn record_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let default = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICS.with_borrow_mut(|panics| panics.push(info.to_string()));
            if std::env::var_os("RUST_BACKTRACE").is_some() {
                default(info);
            }
        }));
    });
}

/// How seeds are run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    pub planted: Option<Planted>,
    /// Every step is kept as text.
    pub tells: bool,
    /// What clients told of contexts counts, not only what is in the log.
    pub strict_contexts: bool,
}

/// Runs one seed.
pub fn run(seed: u64, options: Options) -> Outcome {
    record_panics();
    PANICS.take();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime on this thread");
    let ran = catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(async {
            let world = World::new(Plan::of(seed), options.planted, options.tells);
            let sums = live(&world, options).await;
            (world, sums)
        })
    }));
    drop(runtime);
    let mut panics = PANICS.take();
    match ran {
        Ok((world, sums)) => {
            let (hash, steps) = world.trace();
            let mut violations = world.violations();
            violations.append(&mut panics);
            Outcome { seed, hash, steps, sums, violations, told: world.told() }
        }
        Err(_) => Outcome { seed, hash: 0, steps: 0, sums: Sums::default(), violations: panics, told: Vec::new() },
    }
}

struct Stage {
    world: Arc<World>,
    log: Arc<SimulatedLog>,
    bucket: Arc<Bucket>,
    ingests: Arc<Ingests>,
    indexers: Arc<Indexers>,
}

async fn live(world: &Arc<World>, options: Options) -> Sums {
    let bucket = Bucket::new(world, VACUUM_AGE);
    let log = SimulatedLog::new(world);
    let ingests = Ingests::new(world, &log, &bucket);
    let indexers = Indexers::new(world, &log, &bucket);
    let stage = Stage { world: Arc::clone(world), log, bucket, ingests, indexers };
    let compactors = Compactors::new(world, &stage.log, &stage.bucket);
    let load = async {
        let (payloads, ()) = tokio::join!(client::send_all(world, &stage.ingests), stage.disturb(&compactors));
        while world.is_anything_under_way() {
            sleep(Duration::from_secs(1)).await;
        }
        world.calm_down();
        compactors.tell_all();
        compactors.wake_all();
        stage.everything_lands(&compactors).await;
        let states = world.plan.has_indexer.then(|| stage.indexers.states());
        compactors.end();
        stage.indexers.end();
        (payloads, states)
    };
    let ((payloads, states), (), ()) = tokio::join!(load, compactors.run(), stage.indexers.run());
    stage.epilogue().await;
    if let Some(states) = states {
        contexts::check(world, options.strict_contexts, &stage.log, &payloads, &states);
    }
    oracle::check(world, &stage.log, &stage.bucket, &payloads).await
}

impl Stage {
    async fn disturb(&self, compactors: &Arc<Compactors>) {
        let begun = Instant::now();
        for (at, disturbance) in self.world.plan.disturbances.clone() {
            tokio::time::sleep_until(begun + at).await;
            self.world.note(format_args!("{disturbance:?}"));
            match disturbance {
                Disturbance::KillIngest { slot, down } => {
                    self.ingests.kill(slot);
                    let ingests = Arc::clone(&self.ingests);
                    tokio::spawn(async move {
                        sleep(down).await;
                        if ingests.is_down(slot) {
                            ingests.begin(slot);
                        }
                    });
                }
                Disturbance::KillCompactor { slot, after, down } => compactors.kill_after(slot, after, down),
                Disturbance::PauseCompactor { slot, length } => {
                    if let Some(node) = compactors.pause(slot) {
                        tokio::spawn(async move {
                            sleep(length).await;
                            node.wake();
                        });
                    }
                }
                Disturbance::RestartCompactor { slot } => compactors.restart(slot),
                Disturbance::Rebalance { share, unaware } => {
                    compactors.divide(share, unaware.map(|(slot, _)| slot));
                    if let Some((_, length)) = unaware {
                        let compactors = Arc::clone(compactors);
                        tokio::spawn(async move {
                            sleep(length).await;
                            compactors.tell_all();
                        });
                    }
                }
                Disturbance::SetClock { machine, ahead } => compactors.set_clock(machine, ahead),
                Disturbance::StoreAway { length } => self.world.take_away(Service::Store, length),
                Disturbance::LogAway { length } => self.world.take_away(Service::Log, length),
                Disturbance::KillIndexer { after, down } => self.indexers.kill_after(after, down),
                Disturbance::LoseIndex => self.indexers.lose_disk(),
                Disturbance::Poison { partition } => {
                    let topic_partition = TopicPartition::new(Topic::Events, partition);
                    let frame = Bytes::from_static(b"nobody can read this");
                    self.log.write("poison", vec![AppendRecord::new(topic_partition, frame)]).await.ok();
                }
                // Contexts stay: a lost index is made again from the start of their topic.
                Disturbance::Trim => self.log.trim(&[(compactor::LOG_READER, &compactor::TOPICS)]),
                Disturbance::Truncate { partition } => {
                    self.log.truncate(TopicPartition::new(Topic::Events, partition));
                }
            }
        }
    }

    /// Waits until the tables cover all that the log holds.
    async fn everything_lands(&self, compactors: &Compactors) {
        let deadline = Instant::now() + LANDS_WITHIN;
        loop {
            let mut behind = self.behind();
            // Who is asked to stop brings the ledger up to date.
            if !compactors.is_any_at_work() {
                behind.push("no compactor is at work".into());
            }
            if self.world.plan.has_indexer && self.indexers.behind() != Some(0) {
                behind.push(format!("the index is behind by {:?} records", self.indexers.behind()));
            }
            if behind.is_empty() {
                return;
            }
            if Instant::now() > deadline {
                self.world.violated(format!("not landed after {LANDS_WITHIN:?}: {}", behind.join(", ")));
                return;
            }
            sleep(Duration::from_secs(1)).await;
        }
    }

    fn behind(&self) -> Vec<String> {
        let truncated = self.log.truncated();
        let watch = self.bucket.watch.lock();
        let mut behind = Vec::new();
        for topic in compactor::TOPICS {
            let table = watch.table(topic.name());
            for topic_partition in self.log.topic_partitions().into_iter().filter(|place| place.topic == topic) {
                let landed = table.and_then(|table| table.txns.get(&self.log.app_id(topic_partition)).copied());
                let (landed, end) = (landed.unwrap_or(0), self.log.end(topic_partition));
                if landed < end && !truncated.get(&topic_partition).is_some_and(|truncated| truncated.has_lost_rows()) {
                    behind.push(format!("{topic_partition} stands at {landed} of {end}"));
                }
            }
        }
        behind
    }

    /// Somebody comes later, when what was replaced may be deleted and what is old must go.
    async fn epilogue(&self) {
        let pause = match self.world.plan.ending {
            Ending::Landed => return,
            Ending::Vacuumed => VACUUM_AGE + Duration::from_secs(5),
            Ending::Expired => RETENTION * 2,
        };
        sleep(pause).await;
        let compactors = Compactors::new(&self.world, &self.log, &self.bucket);
        let work = async {
            sleep(Duration::from_secs(20)).await;
            compactors.end();
        };
        tokio::join!(compactors.run(), work);
    }
}
