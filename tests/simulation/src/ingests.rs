//! The ingest processes of a seed.

use std::sync::Arc;

use events::EnvironmentConfig;
use ingest::Ingest;
use parking_lot::Mutex;
use runtime::{ByteSize, Runtime};

use crate::client::ENVIRONMENTS;
use crate::log::{NodeLog, SimulatedLog};
use crate::node::Node;
use crate::store::Bucket;
use crate::world::World;

/// So small that some payloads are too large, and many at once find no room.
const BODY_BYTES_MAX: u64 = 8 << 10;

struct Running {
    node: Arc<Node>,
    ingest: Arc<Ingest>,
}

/// Slots of processes; empty while one is down.
pub struct Ingests {
    world: Arc<World>,
    log: Arc<SimulatedLog>,
    bucket: Arc<Bucket>,
    slots: Vec<Mutex<Option<Running>>>,
    begun: Mutex<usize>,
}

impl Ingests {
    pub fn new(world: &Arc<World>, log: &Arc<SimulatedLog>, bucket: &Arc<Bucket>) -> Arc<Self> {
        let slots = (0..world.plan.ingests).map(|_| Mutex::default()).collect();
        let (log, bucket) = (Arc::clone(log), Arc::clone(bucket));
        let this = Self { world: Arc::clone(world), log, bucket, slots, begun: Mutex::default() };
        (0..world.plan.ingests).for_each(|slot| this.begin(slot));
        Arc::new(this)
    }

    /// Starts a process in a slot.
    pub fn begin(&self, slot: usize) {
        let number = {
            let mut begun = self.begun.lock();
            *begun += 1;
            *begun
        };
        let node = Node::new(format!("ingest-{slot}-{number}"), &self.world);
        let runtime = Runtime::simulated(self.world.clock.now(), self.world.among(0..u64::MAX));
        let config = ingest::Config {
            body_bytes_max: ByteSize(BODY_BYTES_MAX),
            bytes_in_flight_max: ByteSize(BODY_BYTES_MAX * 3),
            ..Default::default()
        };
        let environments = ENVIRONMENTS.map(|key| EnvironmentConfig {
            project: "default".into(),
            key: key.into(),
            sdk_keys: vec![format!("sdk-{key}")],
            ..Default::default()
        });
        let log = NodeLog::new(&node, &self.log, &self.bucket);
        let ingest = Ingest::new(config, &environments, &[], log, runtime).expect("the configuration is valid");
        *self.slots[slot].lock() = Some(Running { node, ingest: Arc::new(ingest) });
    }

    /// Ends the process of a slot at once.
    pub fn kill(&self, slot: usize) {
        if let Some(running) = self.slots[slot].lock().take() {
            running.node.kill();
        }
    }

    pub fn is_down(&self, slot: usize) -> bool {
        self.slots[slot].lock().is_none()
    }

    /// One of the processes that run.
    pub fn any(&self) -> Option<(Arc<Ingest>, Arc<Node>)> {
        let slot = self.world.among(0..self.slots.len());
        let running = self.slots[slot].lock();
        running.as_ref().map(|running| (Arc::clone(&running.ingest), Arc::clone(&running.node)))
    }

    /// No process holds more than it may.
    pub fn check_memory(&self) {
        for slot in &self.slots {
            if let Some(running) = &*slot.lock() {
                let in_flight = running.ingest.status().bytes_in_flight;
                if in_flight > BODY_BYTES_MAX * 3 {
                    self.world.violated(format!("{} holds {in_flight} bytes in flight", running.node.name));
                }
            }
        }
    }
}
