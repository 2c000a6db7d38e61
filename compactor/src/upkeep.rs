//! Keeps the tables in shape beside the landing of rows: ledger, merges, checkpoints, retention, vacuum.
//!
//! One job at a time, so that one share of the memory budget is enough. Every job works on a state that is checked again
//! when it commits, so it may run beside landings and beside other processes; the worst that a collision costs is the
//! work. Failures are noted and the next round begins anew.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use eventlog::Assignment;
use events::{Topic, TopicPartition};
use runtime::{ErrorKind, Runtime, Shutdown};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::expand::date;
use crate::land::unless;
use crate::ledger;
use crate::merge::{self, Candidate, MergeSettings};
use crate::retention::{expire, sweep, vacuum};
use crate::table::Table;
use crate::table::actions::PartitionValues;
use crate::table::checkpoint::checkpoint_if_due;
use crate::{Error, Result, Steps};

/// The ledger follows the tables at this distance.
const LEDGER_EVERY: Duration = Duration::from_secs(30);
const RETENTION_EVERY: Duration = Duration::from_secs(3600);
/// Without landings, look this often.
const ROUND_EVERY: Duration = Duration::from_secs(10);
/// Of several processes on the same tables, the one that works on this partition does the upkeep. That two believe to be it
/// for a moment costs the work of one.
const CARETAKER: TopicPartition = TopicPartition::new(Topic::Events, 0);
/// After midnight, a batch that was received before it may still land.
const STILL_RECEIVING: Duration = Duration::from_secs(3600);

/// What the operator chose.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UpkeepSettings {
    /// `None`: files are not merged.
    pub merge: Option<MergeSettings>,
    pub retention: Duration,
    pub vacuum_age: Duration,
}

pub(crate) struct Upkeep {
    /// Tables whose landings the ledger accounts for.
    pub sources: Vec<Arc<Table>>,
    pub ledger: Arc<Table>,
    pub settings: UpkeepSettings,
    pub runtime: Runtime,
    pub steps: Steps,
    landed: Arc<Notify>,
    /// `None`: this process is the only one.
    assignment: Option<Assignment>,
    ledger_due: Instant,
    retention_due: Instant,
    /// First files of merges that cannot be carried out, until this process ends.
    skipped: HashSet<String>,
}

impl Upkeep {
    pub fn new(
        sources: Vec<Arc<Table>>,
        ledger: Arc<Table>,
        settings: UpkeepSettings,
        runtime: Runtime,
        landed: Arc<Notify>,
        steps: Steps,
    ) -> Self {
        let now = runtime.clock.instant();
        Self {
            sources,
            ledger,
            settings,
            runtime,
            steps,
            landed,
            assignment: None,
            ledger_due: now,
            retention_due: now,
            skipped: HashSet::new(),
        }
    }

    /// Does the work only while `assignment` says so.
    pub fn follow(&mut self, assignment: Assignment) {
        self.assignment = Some(assignment);
    }

    /// Waits until the work is this process's; false if shutdown begins before.
    async fn is_its_turn(&mut self, shutdown: &Shutdown) -> bool {
        let Some(assignment) = &mut self.assignment else { return !shutdown.has_begun() };
        loop {
            assignment.news();
            if shutdown.has_begun() || assignment.holds(CARETAKER) {
                return !shutdown.has_begun();
            }
            unless(assignment.changed(), shutdown.begun()).await;
        }
    }

    pub async fn run(&mut self, shutdown: &Shutdown) {
        while self.is_its_turn(shutdown).await {
            // A merge under way is given up at shutdown: before its commit it has changed nothing that counts.
            let done = unless(self.round(), shutdown.begun()).await;
            let pause = self.runtime.clock.wait(self.runtime.entropy.jitter(ROUND_EVERY));
            if let Some(Err(error)) = done {
                tracing::warn!(%error, "upkeep of the tables failed, it is tried again");
                unless(pause, shutdown.begun()).await;
            } else {
                unless(unless(self.landed.notified(), pause), shutdown.begun()).await;
            }
        }
    }

    /// One look at every table, doing what is due.
    pub async fn round(&mut self) -> Result<()> {
        let now = self.runtime.clock.instant();
        if now >= self.ledger_due {
            self.ledger_due = now + LEDGER_EVERY;
            self.copy_ledger().await?;
        }
        for table in self.tables() {
            while self.merge_once(&table).await? {}
            checkpoint_if_due(&table).await?;
        }
        if now >= self.retention_due {
            self.retention_due = now + RETENTION_EVERY;
            for table in self.tables() {
                while expire(&table, self.settings.retention).await? > 0 {}
                while vacuum(&table, self.settings.vacuum_age).await? > 0 {}
                sweep(&table, self.settings.vacuum_age).await?;
            }
        }
        Ok(())
    }

    fn tables(&self) -> Vec<Arc<Table>> {
        self.sources.iter().chain([&self.ledger]).cloned().collect()
    }

    pub async fn copy_ledger(&self) -> Result<()> {
        for source in &self.sources {
            // Commits of other processes; one of them may have died right after its last.
            source.refresh().await?;
            while ledger::copy(source, &self.ledger).await? {}
        }
        Ok(())
    }

    /// Merges one set of files of `table`, if a partition needs it.
    pub async fn merge_once(&mut self, table: &Table) -> Result<bool> {
        let Some(settings) = self.settings.merge else { return Ok(false) };
        let Some((partition, paths)) = self.next_merge(table, settings).await else { return Ok(false) };
        match merge::execute(table, &partition, &paths, settings, &self.steps).await {
            Ok(files) => {
                tracing::debug!(table = table.spec.name, files, ?partition, "files merged");
                Ok(true)
            }
            // Somebody else replaced one of them: the next plan is made on what is there now.
            Err(Error::FileGone { .. }) => Ok(true),
            Err(error) if error.kind() == ErrorKind::Fatal && !matches!(error, Error::Stopped(_)) => {
                tracing::error!(table = table.spec.name, %error, ?partition, "files cannot be merged and stay as they are");
                self.skipped.extend(paths);
                Ok(true)
            }
            Err(error) => Err(error),
        }
    }

    async fn next_merge(&self, table: &Table, settings: MergeSettings) -> Option<(PartitionValues, Vec<String>)> {
        let mut partitions: BTreeMap<PartitionValues, Vec<Candidate>> = BTreeMap::new();
        for (path, file) in &table.state().await.files {
            if file.plain && !self.skipped.contains(path.as_ref()) {
                let candidate = Candidate { path: path.to_string(), bytes: file.bytes };
                partitions.entry(file.partition.as_ref().clone()).or_default().push(candidate);
            }
        }
        let now = self.runtime.clock.now();
        let today = date(now.saturating_sub(STILL_RECEIVING).0.div_euclid(86_400_000_000));
        partitions.into_iter().find_map(|(partition, files)| {
            let day = partition.get("event_date").and_then(Option::as_deref);
            let receiving = day.is_none_or(|day| day >= today.as_str());
            merge::plan(&files, receiving, settings).map(|paths| (partition, paths))
        })
    }
}

#[cfg(test)]
mod tests;
