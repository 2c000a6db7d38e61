//! The spill before a log with faults: in files, and in memory on a simulated clock.

mod faults;
mod faulty_log;
mod files;
mod random;

use bytes::Bytes;
use runtime::{Clock, ErrorKind};

use self::faulty_log::{Act, FaultyLog, MemoryStore};
use super::*;
use crate::memory::MemoryLog;
use crate::traced::{Fate, Fates, TracedRecord};

const EVENTS: TopicPartition = TopicPartition::new(Topic::Events, 0);
const CONTEXTS: TopicPartition = TopicPartition::new(Topic::Contexts, 0);
const ALL: [TopicPartition; 3] = [EVENTS, TopicPartition::new(Topic::Events, 1), CONTEXTS];

fn settings() -> Settings {
    Settings { window_bytes: 2_000, ..Settings::new(Duration::from_secs(1), 1 << 20) }
}

/// A record that is told from all others by a number.
fn record(topic_partition: TopicPartition, number: u32) -> AppendRecord {
    AppendRecord::new(topic_partition, Bytes::copy_from_slice(&number.to_le_bytes()))
}

/// A log in memory and the spill before it, which both outlive the process.
struct World {
    runtime: Runtime,
    log: Arc<FaultyLog>,
    store: Arc<MemoryStore>,
}

type Process = SpillLog<FaultyLog, MemoryStore>;

impl World {
    fn new(seed: u64) -> Self {
        let runtime = Runtime::simulated(UnixMicros::from_millis(1_000_000_000), seed);
        let memory = |name| MemoryLog::new(runtime.clock.clone(), [2, 1, 1], name);
        let log = Arc::new(FaultyLog::new(memory("log"), &runtime.clock));
        let store = Arc::new(MemoryStore::new(memory("store")));
        Self { runtime, log, store }
    }

    async fn start(&self) -> Arc<Process> {
        let runtime = Runtime { telemetry: runtime::Telemetry::new(), ..self.runtime.clone() };
        Arc::new(SpillLog::open(self.log.clone(), self.store.clone(), settings(), &runtime).await.unwrap())
    }

    fn numbers(&self) -> Vec<u32> {
        self.log.numbers()
    }
}

/// Looks until something is so, which it must be within five minutes of the test's clock.
async fn until(clock: &Clock, what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = clock.instant();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(300), "{what} did not come true");
        clock.wait(Duration::from_millis(20)).await;
    }
}

async fn drained(process: &Process) {
    let clock = process.inner.runtime.clock.clone();
    until(&clock, "an empty spill", || {
        let status = process.status();
        !status.is_spilling && status.records == 0
    })
    .await;
}
