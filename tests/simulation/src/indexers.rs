//! The indexer process of a seed: begun again when it has ended, over the directory that it left behind.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use events::Environment;
use indexer::{Ask as _, Config, Filter, Indexer, SearchRequest, Sort};
use parking_lot::Mutex;
use runtime::{DurationText, Runtime, Shutdown};
use tempfile::TempDir;
use tokio::time::sleep;

use crate::client::{CONTEXTS, ENVIRONMENTS};
use crate::log::{NodeLog, SimulatedLog};
use crate::node::Node;
use crate::store::Bucket;
use crate::world::World;

struct Running {
    node: Arc<Node>,
    /// How long nobody runs if it is killed.
    down: Duration,
}

pub struct Indexers {
    world: Arc<World>,
    log: Arc<SimulatedLog>,
    bucket: Arc<Bucket>,
    directory: TempDir,
    running: Mutex<Option<Running>>,
    current: Mutex<Option<Arc<Indexer>>>,
    begun: Mutex<usize>,
    end: Shutdown,
}

/// In memory where that is to be had: thousands of commits would wait for a disk to sync.
fn temporary_directory() -> TempDir {
    let in_memory = Path::new("/dev/shm");
    let made = if in_memory.is_dir() { tempfile::tempdir_in(in_memory) } else { tempfile::tempdir() };
    made.expect("a temporary directory")
}

impl Indexers {
    pub fn new(world: &Arc<World>, log: &Arc<SimulatedLog>, bucket: &Arc<Bucket>) -> Arc<Self> {
        Arc::new(Self {
            world: Arc::clone(world),
            log: Arc::clone(log),
            bucket: Arc::clone(bucket),
            directory: temporary_directory(),
            running: Mutex::default(),
            current: Mutex::default(),
            begun: Mutex::default(),
            end: Shutdown::new(),
        })
    }

    /// Runs until [`Self::end`].
    pub async fn run(&self) {
        while self.world.plan.has_indexer && !self.end.has_begun() {
            let name = {
                let mut begun = self.begun.lock();
                *begun += 1;
                format!("indexer-{begun}")
            };
            let node = Node::new(name, &self.world);
            *self.running.lock() = Some(Running { node: Arc::clone(&node), down: Duration::ZERO });
            let ended = node.live(self.work(&node)).await;
            *self.current.lock() = None;
            let down = self.running.lock().take().map_or(Duration::ZERO, |running| running.down);
            match ended {
                Some(Ok(())) => self.world.note(format_args!("{} has ended", node.name)),
                Some(Err(error)) => {
                    self.world.violated(format!("{} has failed: {error}", node.name));
                    sleep(Duration::from_secs(1)).await;
                }
                // What it spawned ends with it before another begins.
                None => sleep(down.max(Duration::from_millis(1))).await,
            }
        }
    }

    async fn work(&self, node: &Arc<Node>) -> indexer::Result<()> {
        let runtime = Runtime::simulated(self.world.clock.now(), self.world.among(0..u64::MAX));
        let log = NodeLog::new(node, &self.log, &self.bucket);
        let config = Config { commit_interval: DurationText::millis(500), ..Config::default() };
        let indexer = Arc::new(Indexer::open(self.directory.path(), config, log, &runtime)?);
        *self.current.lock() = Some(Arc::clone(&indexer));
        indexer.run(self.end.clone()).await;
        Ok(())
    }

    /// Asks it to finish and stop.
    pub fn end(&self) {
        self.end.begin();
    }

    pub fn kill_after(&self, steps: i64, down: Duration) {
        if let Some(running) = &mut *self.running.lock() {
            running.down = down;
            running.node.kill_after(steps);
        }
    }

    /// It is killed, and its disk is gone.
    pub fn lose_disk(&self) {
        if let Some(running) = &*self.running.lock() {
            running.node.kill();
        }
        *self.current.lock() = None;
        for number in 0..self.world.plan.partitions[1] {
            std::fs::remove_dir_all(self.path(number)).ok();
        }
    }

    fn path(&self, partition: u32) -> PathBuf {
        self.directory.path().join(partition.to_string())
    }

    /// Records that cannot be searched yet; `None` while nobody answers.
    pub fn behind(&self) -> Option<i64> {
        let indexer = self.current.lock().clone()?;
        let shards = indexer.status().shards;
        let end = |partition| self.log.end(events::TopicPartition::new(events::Topic::Contexts, partition));
        Some(shards.iter().map(|shard| end(shard.partition) - shard.next).sum())
    }

    /// What a search finds: (environment, kind and key of a context) and its attribute `state`.
    pub fn states(&self) -> BTreeMap<(String, String), i64> {
        let mut states = BTreeMap::new();
        let Some(indexer) = self.current.lock().clone() else { return states };
        for key in ENVIRONMENTS {
            let request = SearchRequest {
                environment: Environment::new("default", key),
                filter: Filter { root: None },
                sort: Sort::default(),
                limit: CONTEXTS as usize * 2,
                after: None,
            };
            match indexer.search(&request) {
                Ok(page) => {
                    for found in page.contexts {
                        let context: serde_json::Value = serde_json::from_str(found.context.get()).unwrap_or_default();
                        let state = context["state"].as_i64().unwrap_or(-1);
                        states.insert((key.to_owned(), format!("{}/{}", found.kind, found.key)), state);
                    }
                }
                Err(error) => self.world.violated(format!("search of {key}: {error}")),
            }
        }
        states
    }
}
