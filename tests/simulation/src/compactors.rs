//! The compactor processes of a seed: each is begun again when it has ended, as a supervisor would.

use std::sync::Arc;
use std::time::Duration;

use compactor::{Compactor, Config, Steps, Storage};
use eventlog::Assigner;
use events::TopicPartition;
use parking_lot::Mutex;
use runtime::{Clock, DurationText, Runtime, Shutdown};
use tokio::time::sleep;
use url::Url;

use crate::log::{NodeLog, SimulatedLog};
use crate::node::Node;
use crate::plan::Ending;
use crate::store::{Bucket, NodeStore};
use crate::world::World;

pub const VACUUM_AGE: Duration = Duration::from_secs(600);
pub const RETENTION: Duration = Duration::from_secs(86_400);

/// Who runs in a slot.
struct Running {
    node: Arc<Node>,
    clock: Clock,
    shutdown: Shutdown,
    /// Tells it which partitions it has; `None`: all.
    assigner: Option<Arc<Assigner>>,
    /// How long nobody runs there if it is killed.
    down: Duration,
    /// It has opened the tables.
    is_at_work: bool,
}

pub struct Compactors {
    world: Arc<World>,
    log: Arc<SimulatedLog>,
    bucket: Arc<Bucket>,
    slots: Vec<Mutex<Option<Running>>>,
    /// Which partitions the second one has, bit by bit; `None`: everybody works on all.
    share: Mutex<Option<u64>>,
    /// By how much the clock of each machine is ahead, microseconds.
    ahead: Mutex<Vec<i64>>,
    begun: Mutex<usize>,
    end: Shutdown,
}

impl Compactors {
    pub fn new(world: &Arc<World>, log: &Arc<SimulatedLog>, bucket: &Arc<Bucket>) -> Arc<Self> {
        Arc::new(Self {
            world: Arc::clone(world),
            log: Arc::clone(log),
            bucket: Arc::clone(bucket),
            slots: (0..world.plan.compactors).map(|_| Mutex::default()).collect(),
            share: Mutex::new(world.plan.share),
            ahead: Mutex::new(vec![0; 2]),
            begun: Mutex::default(),
            end: Shutdown::new(),
        })
    }

    /// Runs all slots until [`Self::end`].
    pub async fn run(self: &Arc<Self>) {
        let supervise = |slot| tokio::spawn(Arc::clone(self).supervise(slot));
        let slots: Vec<_> = (0..self.slots.len()).map(supervise).collect();
        for slot in slots {
            slot.await.expect("a compactor panicked");
        }
    }

    /// Asks all to finish and stop.
    pub fn end(&self) {
        self.end.begin();
        self.wake_all();
    }

    async fn supervise(self: Arc<Self>, slot: usize) {
        while !self.end.has_begun() {
            let node = Node::new(self.next_name(slot), &self.world);
            let runtime = Runtime::simulated(self.world.clock.now(), self.world.among(0..u64::MAX));
            runtime.clock.set_ahead(self.ahead.lock()[slot]);
            let shutdown = self.end.child();
            let assigner = self.share.lock().is_some().then(|| Arc::new(Assigner::new()));
            *self.slots[slot].lock() = Some(Running {
                node: Arc::clone(&node),
                clock: runtime.clock.clone(),
                shutdown: shutdown.clone(),
                assigner: assigner.clone(),
                down: Duration::ZERO,
                is_at_work: false,
            });
            self.tell(slot);
            let ended = node.live(self.work(slot, &node, runtime, assigner, &shutdown)).await;
            let down = self.slots[slot].lock().take().map_or(Duration::ZERO, |running| running.down);
            match ended {
                Some(Ok(())) => self.world.note(format_args!("{} has ended", node.name)),
                Some(Err(error)) => {
                    self.world.note(format_args!("{} has failed: {error}", node.name));
                    sleep(Duration::from_secs(1)).await;
                }
                None => sleep(down).await,
            }
        }
    }

    fn next_name(&self, slot: usize) -> String {
        let mut begun = self.begun.lock();
        *begun += 1;
        format!("compactor-{slot}-{begun}")
    }

    async fn work(
        &self,
        slot: usize,
        node: &Arc<Node>,
        runtime: Runtime,
        assigner: Option<Arc<Assigner>>,
        shutdown: &Shutdown,
    ) -> compactor::Result<()> {
        let plan = &self.world.plan;
        let config = Config {
            commit_interval: DurationText(plan.commit_interval),
            merge_files_min: plan.merge_files_min,
            vacuum_age: DurationText(VACUUM_AGE),
            retention: DurationText(if plan.ending == Ending::Expired { RETENTION } else { Duration::ZERO }),
            ..Config::default()
        };
        let url = Url::parse("memory:///lake").expect("a constant");
        let storage = Storage::with_store(Arc::new(NodeStore::new(node, &self.bucket)), url)?.uncompressed();
        let log = NodeLog::new(node, &self.log, &self.bucket);
        let mut compactor = Compactor::open_on(storage, &config, log, runtime, Steps::default()).await?;
        if let Some(assigner) = &assigner {
            compactor = compactor.follow(assigner.assignment());
        }
        self.with(slot, |running| running.is_at_work = true);
        let ended = compactor.run(shutdown).await;
        for stopped in compactor.status().stopped {
            self.world.note(format_args!("{} had stopped {stopped}", node.name));
        }
        ended
    }

    fn with(&self, slot: usize, action: impl FnOnce(&mut Running)) {
        if let Some(running) = &mut *self.slots[slot].lock() {
            action(running);
        }
    }

    pub fn kill_after(&self, slot: usize, steps: i64, down: Duration) {
        self.with(slot, |running| {
            running.down = down;
            running.node.kill_after(steps);
        });
    }

    pub fn pause(&self, slot: usize) -> Option<Arc<Node>> {
        let mut paused = None;
        self.with(slot, |running| {
            running.node.pause();
            paused = Some(Arc::clone(&running.node));
        });
        paused
    }

    pub fn restart(&self, slot: usize) {
        self.with(slot, |running| running.shutdown.begin());
    }

    /// Divides the partitions anew and tells everybody but one.
    pub fn divide(&self, share: u64, unaware: Option<usize>) {
        *self.share.lock() = Some(share);
        (0..self.slots.len()).filter(|slot| Some(*slot) != unaware).for_each(|slot| self.tell(slot));
    }

    /// Tells everybody how the partitions are divided.
    pub fn tell_all(&self) {
        (0..self.slots.len()).for_each(|slot| self.tell(slot));
    }

    fn tell(&self, slot: usize) {
        let Some(share) = *self.share.lock() else { return };
        let places = self.log.topic_partitions().into_iter().filter(|place| compactor::TOPICS.contains(&place.topic));
        let held = places.enumerate().filter(|(number, _)| (share >> number & 1) as usize == slot);
        let held: Vec<TopicPartition> = held.map(|(_, place)| place).collect();
        self.with(slot, |running| {
            if let Some(assigner) = &running.assigner {
                assigner.assign(held);
            }
        });
    }

    pub fn set_clock(&self, machine: usize, ahead: i64) {
        self.ahead.lock()[machine] = ahead;
        if machine < self.slots.len() {
            self.with(machine, |running| running.clock.set_ahead(ahead));
        }
    }

    /// Not one that was asked to stop before: it may have brought the ledger up to date already, ahead of its last commit.
    pub fn is_any_at_work(&self) -> bool {
        let works = |running: &Running| running.is_at_work && !running.shutdown.has_begun();
        self.slots.iter().any(|slot| slot.lock().as_ref().is_some_and(works))
    }

    pub fn wake_all(&self) {
        for slot in 0..self.slots.len() {
            self.with(slot, |running| running.node.wake());
        }
    }
}
