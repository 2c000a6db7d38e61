//! Keeps the newest state of every user context in an index, and answers searches over it.
//!
//! ```text
//! `contexts` topic -> shard: fold -> index -> search <- api
//!                                    |
//!                                    +-> keep -> table of states -> shard, when it is made again
//!                                    +-> snapshot -> copies on an object store -> the same, faster
//! ```
//!
//! One shard per partition of the topic, each a Tantivy index with its own log offset inside its commits. The log never
//! waits for a shard, except that it keeps what a shard has not committed. Reading order for a newcomer: `shard`, `fold`,
//! `terms`, `index`, then `filter`, `query`, `page`, `search`, `api`; `matches`, `ranked` and `lookup` for what needs all
//! matches at once; `keep` and `shard::seed` for what outlives the log, `snapshot` and `shard::restore` for what outlives
//! the machine; `holding` where shards are divided among processes; `upkeep` and `shard::erase` for what is done by order.
//! Must not know: how sightings get into the log, and what else is served on the listener.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod config;
mod error;
mod metrics;

mod holding;
mod shard;

mod fold;

mod keep;
pub mod table;

mod snapshot;

mod upkeep;

mod record;

pub mod attribute;
mod index;
mod terms;

pub mod filter;
mod query;
mod scan;
mod wire;

mod export;
mod instances;
mod lookup;
mod matches;
mod page;
mod ranked;
mod search;
mod token;
mod wish;

mod ask;

mod peers;

pub mod api;

#[doc(hidden)]
pub mod check_data;

use std::path::Path;
use std::sync::Arc;

use eventlog::{Assignment, LogReader};
use events::Topic;
use parking_lot::Mutex;
use runtime::{Runtime, Shutdown, UnixMicros};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

pub use ask::Ask;
pub use config::{Config, Snapshots};
pub use error::{Error, Result};
pub use filter::{Filter, FilterError};
pub use instances::{FoundInstance, InstancePage};
pub use keep::Checked;
pub use lookup::values::Values;
pub use lookup::within::Within;
pub use lookup::{NameWeight, Names, Weight};
pub use page::{Place, Sort};
pub use peers::{ANSWER_BYTES_MAX, Peers, PeersConfig, ShardState, Transport};
pub use ranked::{AttributeSort, BestMatch, Ranking};
pub use search::{FoundContext, SearchPage, SearchRequest};
pub use shard::{MergeScope, Merged};
pub use snapshot::{RenewedCopies, SnapshotStore};
pub use upkeep::ContextName;
pub use wish::{Wish, append_erasures};

/// Name under which the log's retention waits for this stage.
pub const LOG_READER: &str = shard::READER;
/// Name under which it waits until states are in the table.
pub const TABLE_READER: &str = keep::READER;

use holding::Holding;
use keep::KeepOrder;
use keep::Keeper;
use lookup::tops::RememberedTops;
use metrics::Metrics;
use shard::{Shard, ShardTask, Surroundings};
use snapshot::{RenewOrder, Snapshotter};
use table::StateTable;

/// The index of all `contexts` partitions of this process.
pub struct Indexer {
    shards: Vec<Arc<Shard>>,
    /// Taken by `run`.
    tasks: Mutex<Vec<ShardTask>>,
    holding: Mutex<Option<Holding>>,
    keeper: Mutex<Option<Keeper>>,
    snapshotter: Mutex<Option<Snapshotter>>,
    /// To the keeper and the snapshotter, if there are any.
    keep_orders: Option<mpsc::Sender<KeepOrder>>,
    copy_orders: Option<mpsc::Sender<RenewOrder>>,
    tops: RememberedTops,
    config: Config,
    runtime: Runtime,
    metrics: Metrics,
}

/// Removes the shard of a partition from the index at `dir`, so that it is made anew when the index is opened.
///
/// # Errors
/// `Locked` if a process has it open.
pub fn discard_shard(dir: &Path, partition: u32) -> Result<()> {
    let path = dir.join(partition.to_string());
    index::discard_closed(&path)?;
    index::discard(&shard::path_before(&path))
}

/// What there is of the index beyond its directory.
#[derive(Clone, Default)]
pub struct Beyond {
    /// The shards of this process, if other processes have the others. `None`: all.
    pub assignment: Option<Assignment>,
    /// Newest states, from which with the log any shard comes back.
    pub table: Option<Arc<dyn StateTable>>,
    /// Copies of shards, from which one comes back without being indexed again.
    pub snapshots: Option<SnapshotStore>,
}

/// How the index stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status {
    /// Listed contexts.
    pub contexts: u64,
    /// Bytes on disk.
    pub bytes: u64,
    pub lag_records: u64,
    /// Age of the oldest record that was fetched and is not searchable yet.
    pub lag_seconds: f64,
    pub last_commit: Option<UnixMicros>,
    /// Newest received-at time that is searchable in every shard that has any.
    pub received_at: Option<UnixMicros>,
    /// Some shard is being made again: searches lack contexts meanwhile, or what came since.
    pub is_rebuilding: bool,
    pub shards: Vec<ShardStatus>,
}

/// How one shard stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ShardStatus {
    pub partition: u32,
    /// False while it is being begun anew.
    pub is_open: bool,
    pub contexts: u64,
    pub bytes: u64,
    /// First offset that is not searchable.
    pub next: i64,
    pub lag_records: u64,
    pub lag_seconds: f64,
    pub last_commit: Option<UnixMicros>,
    pub received_at: Option<UnixMicros>,
    /// Times it was begun anew since the start.
    pub rebuilds: u64,
    pub is_rebuilding: bool,
}

impl Indexer {
    /// Opens the shards under `dir`, one directory per partition, and registers as a reader of the log. What the
    /// directories hold can be searched at once; [`Self::run`] keeps it up with the log.
    ///
    /// # Errors
    /// `Locked` if another process writes there; `Io` and `Index` if the directory cannot be used.
    pub fn open(dir: &Path, config: Config, log: Arc<dyn LogReader>, runtime: &Runtime) -> Result<Self> {
        Self::open_with(dir, config, log, runtime, Beyond::default())
    }

    /// [`Self::open`] with places outside the directory, from which a shard that is lost comes back.
    pub fn open_with(
        dir: &Path,
        config: Config,
        log: Arc<dyn LogReader>,
        runtime: &Runtime,
        beyond: Beyond,
    ) -> Result<Self> {
        let Beyond { assignment, table, snapshots } = beyond;
        let table = table.filter(|_| !config.table_interval.get().is_zero());
        let partitions = log.partitions(Topic::Contexts);
        log.register(shard::READER, Topic::Contexts);
        let metrics = Metrics::new(&runtime.telemetry);
        let budget = config.shard_budget(partitions);
        if table.is_some() {
            log.register(keep::READER, Topic::Contexts);
        }
        let surroundings = Surroundings {
            log: Arc::clone(&log),
            runtime: runtime.clone(),
            config: config.clone(),
            budget,
            metrics: metrics.clone(),
            table: table.clone(),
            snapshots: snapshots.clone(),
        };
        let mut shards = Vec::with_capacity(partitions as usize);
        let mut tasks = Vec::with_capacity(partitions as usize);
        for partition in 0..partitions {
            let shard = Arc::new(Shard::new(partition, dir.join(partition.to_string())));
            if assignment.is_some() {
                shard.set_held(false);
            } else {
                tasks.push(ShardTask::open(Arc::clone(&shard), surroundings.clone())?);
            }
            shards.push(shard);
        }
        let holding = assignment.map(|assignment| Holding { assignment, shards: shards.clone(), surroundings });
        let (keep_orders, orders) = mpsc::channel(1);
        let keep_orders = table.is_some().then_some(keep_orders);
        let keeper = table.map(|table| Keeper {
            orders,
            retention: config.retention.get(),
            environment_contexts: budget.environment_contexts,
            shards: shards.clone(),
            table,
            log: Arc::clone(&log),
            runtime: runtime.clone(),
            interval: config.table_interval.get(),
            metrics: metrics.clone(),
        });
        let (copy_orders, orders) = mpsc::channel(1);
        let copy_orders = snapshots.is_some().then_some(copy_orders);
        let snapshotter = snapshots.map(|store| Snapshotter {
            orders,
            shards: shards.clone(),
            store,
            log,
            runtime: runtime.clone(),
            interval: config.snapshot_interval.get(),
            metrics: metrics.clone(),
        });
        let (tasks, holding) = (Mutex::new(tasks), Mutex::new(holding));
        let (keeper, snapshotter) = (Mutex::new(keeper), Mutex::new(snapshotter));
        Ok(Self {
            shards,
            tasks,
            holding,
            keeper,
            snapshotter,
            keep_orders,
            copy_orders,
            tops: RememberedTops::default(),
            config,
            runtime: runtime.clone(),
            metrics,
        })
    }

    pub(crate) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Follows the log until shutdown begins, then commits and returns. A second call returns at once.
    pub async fn run(&self, shutdown: Shutdown) {
        let tasks = std::mem::take(&mut *self.tasks.lock());
        // Who drops this future ends the shards with it, and so frees their locks.
        let mut running: JoinSet<()> = tasks.into_iter().map(|task| task.run(shutdown.clone())).collect();
        if let Some(holding) = self.holding.lock().take() {
            running.spawn(holding.run(shutdown.clone()));
        }
        if let Some(keeper) = self.keeper.lock().take() {
            running.spawn(keeper.run(shutdown.clone()));
        }
        if let Some(snapshotter) = self.snapshotter.lock().take() {
            running.spawn(snapshotter.run(shutdown.clone()));
        }
        while let Some(ended) = running.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a shard of the index stopped");
            }
        }
    }

    /// The shards of this process, as they are now.
    fn held(&self) -> Vec<Arc<Shard>> {
        self.shards.iter().filter(|shard| shard.is_held()).cloned().collect()
    }

    /// Shards of this process: the partitions of the topic.
    pub fn partitions(&self) -> u32 {
        self.shards.len() as u32
    }

    /// Whether all shards are here: searches find nothing of those that other processes have.
    pub fn is_whole(&self) -> bool {
        self.shards.iter().all(|shard| shard.is_held())
    }

    /// Whether some shard is being made again with none before it to search, so that searches lack contexts.
    pub fn is_rebuilding(&self) -> bool {
        self.shards.iter().any(|shard| shard.progress.lock().lacks_contexts())
    }

    /// Counts documents and files: for telemetry and pages, not for every request.
    pub fn status(&self) -> Status {
        let shards: Vec<_> = self.held().iter().map(|shard| self.shard_status(shard)).collect();
        Status {
            contexts: shards.iter().map(|shard| shard.contexts).sum(),
            bytes: shards.iter().map(|shard| shard.bytes).sum(),
            lag_records: shards.iter().map(|shard| shard.lag_records).sum(),
            lag_seconds: shards.iter().map(|shard| shard.lag_seconds).fold(0.0, f64::max),
            last_commit: shards.iter().filter_map(|shard| shard.last_commit).max(),
            received_at: shards.iter().filter_map(|shard| shard.received_at).max(),
            is_rebuilding: shards.iter().any(|shard| shard.is_rebuilding),
            shards,
        }
    }

    fn shard_status(&self, shard: &Shard) -> ShardStatus {
        let progress = shard.progress.lock().clone();
        let reader = shard.reader().ok();
        let now = self.runtime.clock.now();
        ShardStatus {
            partition: shard.partition,
            is_open: reader.is_some(),
            contexts: reader.map_or(0, |reader| reader.listed_contexts()),
            bytes: index::size_bytes(&shard.path),
            next: progress.next,
            lag_records: (progress.end - progress.next).max(0) as u64,
            lag_seconds: progress.waiting_since.map_or(0.0, |since| now.since(since).as_secs_f64()),
            last_commit: progress.last_commit,
            received_at: progress.received_at,
            rebuilds: progress.rebuilds,
            is_rebuilding: progress.is_rebuilding,
        }
    }
}

/// Runs work on a thread that may block; simulation has no other thread.
async fn blocking<T: Send + 'static>(
    runtime: &Runtime,
    action: &'static str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    if runtime.is_simulated() {
        return work();
    }
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(Error::Panicked { action }))
}
