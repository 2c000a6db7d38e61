//! How the running stages answer the endpoints.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use compactor::Compactor;
use eventlog::WriterHealth;
use futures::FutureExt;
use futures::future::BoxFuture;
use indexer::{Indexer, Peers};
use ingest::Ingest;
use runtime::{Runtime, UnixMicros};
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::gauges::Gauges;
use super::log::Log;
use super::{Members, Pipeline};
use crate::endpoints::{IndexWork, Stages, Tables};
use crate::lake::{ContextPlace, Lake, WholeLetter};

/// Questions to the tables at once; each may hold some row groups in memory.
const QUESTIONS_MAX: usize = 2;
/// Longest time for one, waiting included.
const QUESTION_TIME: Duration = Duration::from_secs(30);

/// Reads the state of each stage when asked; holds nothing of its own.
pub struct RunningStages {
    log: Log,
    members: Arc<Members>,
    takes_events: bool,
    compactor: Option<Arc<Compactor>>,
    indexer: Option<Arc<Indexer>>,
    peers: Option<Arc<Peers>>,
    ingest: Arc<Ingest>,
    draining: Arc<AtomicBool>,
    runtime: Runtime,
    started: Instant,
    gauges: Gauges,
    /// Where the index works.
    back: Handle,
}

impl RunningStages {
    pub fn new(pipeline: &Pipeline, draining: Arc<AtomicBool>, runtime: &Runtime, back: &Handle) -> Self {
        Self {
            back: back.clone(),
            log: pipeline.log.clone(),
            members: pipeline.members.clone(),
            takes_events: pipeline.members.task.takes_events(),
            compactor: pipeline.compactor.clone(),
            indexer: pipeline.indexer.clone(),
            peers: pipeline.peers.clone(),
            ingest: pipeline.ingest.clone(),
            draining,
            runtime: runtime.clone(),
            started: runtime.clock.instant(),
            gauges: Gauges::new(&runtime.telemetry),
        }
    }

    /// Walks directories: not on a thread that answers requests.
    async fn index_status(&self) -> Option<indexer::Status> {
        let indexer = self.indexer.clone()?;
        tokio::task::spawn_blocking(move || indexer.status()).await.ok()
    }
}

impl Stages for RunningStages {
    fn readiness(&self) -> Result<(), String> {
        if self.draining.load(Ordering::Acquire) {
            return Err("shutting down".into());
        }
        if let Some(fault) = self.members.fault() {
            return Err(fault);
        }
        if self.takes_events {
            return self.ingest.ready();
        }
        // With some shards it answers, and says what is missing: to be taken out of service would be worse.
        if let Some(peers) = &self.peers
            && peers.shards().is_empty()
        {
            return Err(peers.fault().unwrap_or_default());
        }
        match self.log.writer().health() {
            WriterHealth::Ready => Ok(()),
            WriterHealth::Unavailable(why) => Err(format!("the log is away: {why}")),
        }
    }

    fn refresh_gauges(&self) -> BoxFuture<'_, ()> {
        async {
            let gauges = &self.gauges;
            gauges.uptime_seconds.set(self.started.elapsed().as_secs_f64());
            gauges.log_pending_bytes.set(self.log.pending_bytes() as f64);
            self.log.refresh_gauges();
            // It sets its own gauges when asked.
            let _ = self.ingest.status();
            if let Some(compactor) = &self.compactor {
                let status = compactor.status();
                gauges.table_lag_seconds.set(status.lag_seconds);
                gauges.table_freshness_seconds.set(freshness(status.lag_records, status.lag_seconds));
            }
            if let Some(status) = self.index_status().await {
                gauges.index_lag_records.set(status.lag_records as f64);
                gauges.index_lag_seconds.set(status.lag_seconds);
                gauges.index_freshness_seconds.set(freshness(status.lag_records, status.lag_seconds));
                gauges.index_contexts.set(status.contexts as f64);
                gauges.index_bytes.set(status.bytes as f64);
                gauges.index_rebuilding.set(f64::from(u8::from(status.is_rebuilding)));
            }
        }
        .boxed()
    }

    fn pipeline(&self) -> BoxFuture<'_, Value> {
        async {
            let now = self.runtime.clock.now();
            let index = self.index_status().await;
            json!({
                "now": now.as_millis(),
                "uptimeSeconds": self.started.elapsed().as_secs(),
                "version": env!("CARGO_PKG_VERSION"),
                "ingest": self.ingest.status(),
                "log": self.log.state().await,
                "table": self.compactor.as_ref().map_or_else(|| json!({}), |compactor| table_state(&compactor.status())),
                "index": match &self.peers {
                    Some(peers) => peers_state(peers),
                    None => index.as_ref().map_or_else(|| json!({}), index_state),
                },
            })
        }
        .boxed()
    }

    fn index_work(&self, partition: u32, work: IndexWork) -> BoxFuture<'_, anyhow::Result<Option<Value>>> {
        async move {
            let Some(indexer) = self.indexer.clone() else { return Ok(None) };
            if partition >= indexer.partitions() {
                return Ok(None);
            }
            let done = self.back.spawn(async move { work_on(&indexer, partition, work).await });
            done.await?.map(Some)
        }
        .boxed()
    }
}

/// Does work on a shard, and tells what was done.
async fn work_on(indexer: &Indexer, partition: u32, work: IndexWork) -> anyhow::Result<Value> {
    Ok(match work {
        IndexWork::Merge => {
            let merged = indexer.merge_whole(partition).await?;
            json!({"partition": partition, "segments": merged.segments, "removedDocuments": merged.removed_documents})
        }
        IndexWork::Rebuild => json!({"partition": partition, "contexts": indexer.renew(partition).await?}),
        IndexWork::Check { repairs } => {
            let checked = indexer.check(partition, repairs).await?.context("there is no table to check against")?;
            json!({
                "partition": partition,
                "inIndex": checked.in_index,
                "inTable": checked.in_table,
                "onlyInIndex": checked.only_in_index,
                "onlyInTable": checked.only_in_table,
                "different": checked.different,
                "repaired": checked.repaired,
                "isCut": checked.is_cut,
            })
        }
    })
}

/// How old what can be seen is: nothing waiting means that everything can be seen.
fn freshness(lag_records: u64, lag_seconds: f64) -> f64 {
    if lag_records == 0 { 0.0 } else { lag_seconds }
}

fn millis(time: Option<UnixMicros>) -> Option<i64> {
    time.map(UnixMicros::as_millis)
}

fn table_state(status: &compactor::Status) -> Value {
    json!({
        "version": status.table_version,
        "files": status.files,
        "bytes": status.bytes,
        "lagRecords": status.lag_records,
        "lagSeconds": status.lag_seconds,
        "lastCommitMs": millis(status.last_commit_at),
        "freshnessSeconds": freshness(status.lag_records, status.lag_seconds),
        "stopped": status.stopped,
    })
}

fn index_state(status: &indexer::Status) -> Value {
    json!({
        "shards": status.shards.len(),
        "partitions": status.shards.iter().filter(|shard| shard.is_open).map(|shard| shard.partition).collect::<Vec<_>>(),
        "contexts": status.contexts,
        "bytes": status.bytes,
        "lagRecords": status.lag_records,
        "lagSeconds": status.lag_seconds,
        "lastCommitMs": millis(status.last_commit),
        "freshnessSeconds": freshness(status.lag_records, status.lag_seconds),
        "rebuilding": status.is_rebuilding,
    })
}

/// What the processes with shards say of them. How large they are is not asked each time.
fn peers_state(peers: &Peers) -> Value {
    let shards = peers.shards();
    let lag_records = shards.iter().map(|shard| shard.lag_records).sum();
    let lag_seconds = shards.iter().map(|shard| shard.lag_seconds).fold(0.0, f64::max);
    json!({
        "shards": shards.len(),
        "partitions": shards.iter().map(|shard| shard.partition).collect::<Vec<_>>(),
        "lagRecords": lag_records,
        "lagSeconds": lag_seconds,
        "lastCommitMs": millis(shards.iter().filter_map(|shard| shard.last_commit).max().map(UnixMicros)),
        "freshnessSeconds": freshness(lag_records, lag_seconds),
        "rebuilding": shards.iter().any(|shard| shard.is_rebuilding),
        "missing": peers.fault(),
    })
}

/// The tables with a bound on how many questions they answer at once, on threads that do not answer events.
pub struct BoundedTables {
    lake: Lake,
    back: Handle,
    room: Arc<Semaphore>,
}

impl BoundedTables {
    pub fn new(lake: Lake, back: Handle) -> Self {
        Self { lake, back, room: Arc::new(Semaphore::new(QUESTIONS_MAX)) }
    }

    fn ask<T, F>(&self, question: impl FnOnce(Lake) -> F + Send + 'static) -> BoxFuture<'static, anyhow::Result<T>>
    where
        T: Send + 'static,
        F: Future<Output = anyhow::Result<T>> + Send,
    {
        let (lake, room) = (self.lake.clone(), Arc::clone(&self.room));
        let asked = self.back.spawn(async move {
            let answer = async {
                let _place = room.acquire().await?;
                question(lake).await
            };
            tokio::time::timeout(QUESTION_TIME, answer).await.context("the tables took too long")?
        });
        async move { asked.await? }.boxed()
    }
}

impl Tables for BoundedTables {
    fn dead_letters(&self, limit: usize) -> BoxFuture<'_, anyhow::Result<Vec<Value>>> {
        self.ask(move |lake| async move { lake.dead_letters(None, limit).await })
    }

    fn dead_letter<'a>(&'a self, id: &'a str) -> BoxFuture<'a, anyhow::Result<Option<WholeLetter>>> {
        let id = id.to_owned();
        self.ask(move |lake| async move { lake.dead_letter(&id).await })
    }

    fn evaluations(&self, place: ContextPlace, limit: usize) -> BoxFuture<'_, anyhow::Result<Vec<Value>>> {
        self.ask(move |lake| async move { lake.evaluations(&place, limit).await })
    }
}
