//! Log to table: events and dead letters become open Delta tables, each acknowledged row exactly once.
//!
//! The walk of a record through the modules: `consume` reads it from where the table stands and `dedup`
//! drops repeated payloads; `expand` turns frames into sorted rows; `encode` makes column chunks and `write` Parquet files of them; `commit`
//! makes files and offsets visible together; `land` is the loop around these. Beside it, `upkeep` merges small
//! files, writes checkpoints, drops what is too old and keeps the `ledger`; `erase` takes contexts out. `views` is for
//! those who query.
//!
//! The table is the only authority: where to read on, what was seen, which files count. This process may die anywhere, or
//! wake up after another one took over, and nothing is lost or doubled.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod config;
pub mod error;
pub mod schema;

mod commit;
mod consume;
mod contexts;
mod dedup;
mod encode;
mod erase;
mod expand;
#[cfg(test)]
mod fixtures;
mod land;
mod ledger;
mod merge;
mod metrics;
mod poison;
mod read;
mod retention;
mod stats;
mod status;
mod table;
mod upkeep;
mod views;
mod write;

use std::sync::Arc;
use std::time::Duration;

use eventlog::{Assignment, LogReader};
use events::{ErasedContexts, Offset, Topic, TopicPartition};
use runtime::{Runtime, Shutdown, UnixMicros};
use tokio::sync::{Mutex, Notify};

pub use config::{Config, StorageConfig};
pub use contexts::{ContextBatch, ContextChange, ContextPosition, ContextTable};
pub use erase::ErasedRows;
pub use error::{Error, Result};
pub use status::Status;
pub use table::store::Storage;
pub use views::{VIEWS, sql_context, sql_context_on};

use consume::{DedupSettings, app_id};
use erase::{EraseSettings, EventEraser, erase_all};
use land::{LandContext, LandSettings, Lander};
use merge::MergeSettings;
use metrics::Metrics;
use schema::{DEAD_LETTERS, EVENTS, LEDGER};
use status::StatusBoard;
use table::Table;
use upkeep::{Upkeep, UpkeepSettings};

/// Name under which the log's retention waits for this stage.
pub const LOG_READER: &str = consume::READER;

/// Topics that this stage reads.
pub const TOPICS: [Topic; 2] = [Topic::Events, Topic::DeadLetters];

/// The start waits this long for the log to tell how far behind the tables are.
const FIRST_LOOK_MAX: Duration = Duration::from_secs(1);

/// Shutdown waits this long for the account of the last rows; the next start makes up for it.
const LAST_LEDGER_MAX: Duration = Duration::from_secs(2);

/// The stage. Share it in an `Arc`: one task runs it, others ask for its status.
pub struct Compactor {
    work: Mutex<Work>,
    /// Beside the work: erasing waits for nothing that runs until the end.
    events: Arc<Table>,
    log: Arc<dyn LogReader>,
    erase: EraseSettings,
    steps: Steps,
    status: StatusBoard,
    metrics: Metrics,
    runtime: Runtime,
}

struct Work {
    events: Lander,
    dead_letters: Lander,
    upkeep: Upkeep,
}

impl Compactor {
    /// Opens the tables, making those that are missing.
    ///
    /// # Errors
    /// `Config` (kind `Reject`) for mistakes in the configuration, or a store that cannot keep two writers apart; `Store` (kind `Retry`) if the storage does not answer;
    /// `Table` (kind `Fatal`) if a table is there that this version must not write to.
    pub async fn open(
        storage: &StorageConfig,
        config: &Config,
        log: Arc<dyn LogReader>,
        runtime: Runtime,
    ) -> Result<Self> {
        Self::open_on(Storage::open(storage)?, config, log, runtime, Steps::default()).await
    }

    /// [`Self::open`] over a storage that is open already, with points at which a test may stop it.
    pub async fn open_on(
        storage: Storage,
        config: &Config,
        log: Arc<dyn LogReader>,
        runtime: Runtime,
        steps: Steps,
    ) -> Result<Self> {
        config.check()?;
        storage.check_conditional_put(&runtime.entropy).await?;
        let metrics = Metrics::new(&runtime.telemetry);
        let kept = config.vacuum_age.get();
        let open = async |spec| Table::open(spec, &storage, kept, runtime.clone(), metrics.clone()).await.map(Arc::new);
        let (events, dead_letters, ledger) = (open(&EVENTS).await?, open(&DEAD_LETTERS).await?, open(&LEDGER).await?);

        let status = StatusBoard::default();
        {
            let state = events.state().await;
            let newest = state.newest_own_info.as_ref().and_then(|info| info.newest_received_at);
            status.set_landed(state.last_commit_at.map(UnixMicros::from_millis), newest.map(UnixMicros));
        }
        let landed = Arc::new(Notify::new());
        let context = LandContext {
            dead_letters: Arc::clone(&dead_letters),
            settings: land_settings(config, log.as_ref()),
            log: Arc::clone(&log),
            runtime: runtime.clone(),
            metrics: metrics.clone(),
            status: status.clone(),
            landed: Arc::clone(&landed),
            steps: steps.clone(),
        };
        let shares = config.shares();
        let merge = MergeSettings {
            target_bytes: config.target_file_bytes.bytes(),
            files_min: config.merge_files_min as usize,
            memory_bytes: shares.merge_bytes,
            row_group_bytes: shares.merge_row_group_bytes,
        };
        let settings = UpkeepSettings {
            merge: config.merge.then_some(merge),
            retention: config.retention.get(),
            vacuum_age: config.vacuum_age.get(),
        };
        let erase = EraseSettings { target_bytes: merge.target_bytes, row_group_bytes: shares.merge_row_group_bytes };
        let events_table = Arc::clone(&events);
        let sources = vec![Arc::clone(&events), Arc::clone(&dead_letters)];
        let mut events = Lander::new(Topic::Events, events, context.clone());
        let mut dead_letters = Lander::new(Topic::DeadLetters, dead_letters, context);
        for lander in [&mut events, &mut dead_letters] {
            // Only for the status: a log that does not answer now is read when it does.
            land::unless(lander.look(), runtime.clock.wait(FIRST_LOOK_MAX)).await;
        }
        let work = Work {
            events,
            dead_letters,
            upkeep: Upkeep::new(sources, ledger, settings, runtime.clone(), landed, steps.clone()),
        };
        Ok(Self { work: Mutex::new(work), events: events_table, log, erase, steps, status, metrics, runtime })
    }

    /// Takes what names these contexts out of the rows of `events` that were received up to the time of the erasure. Rows
    /// that are in the log still are not reached: see [`Self::has_landed`]. `since`: when the erasure `id` began.
    ///
    /// # Errors
    /// Kind `Retry` for what passes by itself; what was done until then is done.
    pub async fn erase(&self, id: &str, contexts: &ErasedContexts, since: UnixMicros) -> Result<ErasedRows> {
        erase_all(&self.events, id, &EventEraser(contexts), self.erase, since.as_millis(), &self.steps).await
    }

    /// Whether the table `events` has all rows before these offsets, one per partition of the topic.
    ///
    /// # Errors
    /// `Store` (kind `Retry`).
    pub async fn has_landed(&self, ends: &[Offset]) -> Result<bool> {
        self.events.refresh().await?;
        let state = self.events.state().await;
        let app_id = |partition| app_id(self.log.as_ref(), TopicPartition::new(Topic::Events, partition));
        let landed = |partition| state.txns.get(&app_id(partition)).copied().unwrap_or_default();
        Ok((0..).zip(ends).all(|(partition, end)| landed(partition) >= end.0))
    }

    /// Works only on the partitions that `assignment` holds; who holds the first one of `events` does the upkeep too.
    pub fn follow(mut self, assignment: Assignment) -> Self {
        let work = self.work.get_mut();
        work.events.follow(assignment.clone());
        work.dead_letters.follow(assignment.clone());
        work.upkeep.follow(assignment);
        self
    }

    /// Runs until shutdown; then commits what is buffered, if that is quick, and returns.
    ///
    /// All of it is one task that spawns none: beside ingest in one process, give it a thread of its own.
    pub async fn run(&self, shutdown: &Shutdown) -> Result<()> {
        let mut work = self.work.lock().await;
        let Work { events, dead_letters, upkeep } = &mut *work;
        let (events, dead_letters, ()) =
            tokio::join!(events.run(shutdown), dead_letters.run(shutdown), upkeep.run(shutdown));
        let clock = &self.runtime.clock;
        if let Some(Err(error)) = land::unless(upkeep.copy_ledger(), clock.wait(LAST_LEDGER_MAX)).await {
            tracing::info!(%error, "the ledger is brought up to date at the next start");
        }
        events.and(dead_letters)
    }

    /// Lands all that the log holds now and does the upkeep that is due. For tools and tests, instead of [`Self::run`].
    pub async fn land_available(&self) -> Result<()> {
        let mut work = self.work.lock().await;
        work.events.land_available().await?;
        work.dead_letters.land_available().await?;
        work.upkeep.copy_ledger().await?;
        work.upkeep.round().await
    }

    pub fn status(&self) -> Status {
        self.status.read(&self.runtime.clock, &self.metrics)
    }
}

fn land_settings(config: &Config, log: &dyn LogReader) -> LandSettings {
    let shares = config.shares();
    let windows = TOPICS.iter().map(|topic| log.partitions(*topic) as usize).sum::<usize>().max(1);
    LandSettings {
        commit_interval: config.commit_interval.get(),
        // Events and dead letters buffer separately, and dead letters are rare.
        buffer_bytes: shares.buffer_bytes,
        target_file_bytes: config.target_file_bytes.bytes(),
        dedup: DedupSettings { window: config.dedup_window.get(), entries_max: shares.dedup_entries / windows },
    }
}

/// Steps between which a process may die.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    PoisonLanded,
    FilesWritten,
    Committed,
    MergeWritten,
    MergeCommitted,
    EraseWritten,
    EraseCommitted,
}

/// Lets a test stop the stage at a [`Step`]; in the program nothing stops.
#[derive(Clone, Default)]
pub struct Steps(Option<Arc<dyn Fn(Step) -> bool + Send + Sync>>);

impl Steps {
    /// `dies`: whether the process ends at this step.
    pub fn new(dies: impl Fn(Step) -> bool + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(dies)))
    }

    fn at(&self, step: Step) -> Result<()> {
        match &self.0 {
            Some(dies) if dies(step) => Err(Error::Stopped(match step {
                Step::PoisonLanded => "poison landed",
                Step::FilesWritten => "files written",
                Step::Committed => "committed",
                Step::MergeWritten => "merge written",
                Step::MergeCommitted => "merge committed",
                Step::EraseWritten => "erase written",
                Step::EraseCommitted => "erase committed",
            })),
            _ => Ok(()),
        }
    }
}
