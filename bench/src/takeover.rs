//! Copies of the context index: what it costs to make one, and how soon a new owner has the shards.
//!
//! The index is that of `search`, made anew or found in `--dir`. Storage is a folder, or a bucket whose credentials come
//! from the usual environment variables (`AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`,
//! `AWS_ALLOW_HTTP=true`). The new owner begins with an empty directory; its time ends when a search finds a context in it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use compactor::{Storage, StorageConfig};
use eventlog::memory::MemoryLog;
use events::Environment;
use indexer::filter::Subject;
use indexer::{Ask as _, Beyond, Config, Filter, Indexer, SearchRequest, SnapshotStore, Sort};
use runtime::{Runtime, Shutdown};
use tokio::task::JoinHandle;

use crate::search::{self, PARTITIONS, SearchArgs};

#[derive(Args)]
pub struct TakeoverArgs {
    #[arg(long, default_value_t = 1_000_000)]
    contexts: usize,
    /// Where the index is made and left; one that is there is used as it is.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Where copies go: a path or a URL.
    #[arg(long)]
    storage: String,
    /// Times that a new owner takes over.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    #[arg(long, default_value_t = 7)]
    seed: u64,
}

pub fn run(arguments: &TakeoverArgs) -> anyhow::Result<()> {
    let temporary = tempfile::tempdir()?;
    let dir = arguments.dir.as_deref().unwrap_or(temporary.path());
    let pool = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    pool.block_on(async {
        if !dir.join("0").exists() {
            search::fill(dir, &SearchArgs::only_made(arguments.contexts, arguments.seed)).await?;
        }
        let storage = StorageConfig { url: arguments.storage.clone(), ..StorageConfig::default() };
        let store = SnapshotStore::new(Storage::open(&storage)?.folder("snapshots"));
        let began = Instant::now();
        let owner = Owner::start(dir, &store)?;
        owner.until("tidegate_index_snapshots_total").await?;
        let bytes = owner.metric("tidegate_index_snapshot_bytes_total") as u64;
        println!("copied: {} MiB in {:.1} s", bytes >> 20, began.elapsed().as_secs_f64());
        owner.stop().await?;
        for _ in 0..arguments.rounds {
            take_over(&store).await?;
        }
        Ok(())
    })
}

async fn take_over(store: &SnapshotStore) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let began = Instant::now();
    let owner = Owner::start(dir.path(), store)?;
    owner.until("tidegate_index_snapshots_restored_total").await?;
    let request = SearchRequest {
        environment: Environment::new("shop", "production"),
        filter: Filter::parse("plan equals gold", Subject::Contexts).map_err(|error| anyhow::anyhow!("{error}"))?,
        sort: Sort::NewestFirst,
        limit: 20,
        after: None,
    };
    let found = owner.indexer.search(&request).context("searching in the new owner")?;
    let seconds = began.elapsed().as_secs_f64();
    let contexts = owner.indexer.status().contexts;
    println!("taken over: {contexts} contexts in {seconds:.2} s, {} match", found.total);
    owner.stop().await
}

/// A process that owns the shards.
struct Owner {
    indexer: Arc<Indexer>,
    runtime: Runtime,
    shutdown: Shutdown,
    running: JoinHandle<()>,
}

impl Owner {
    fn start(dir: &Path, store: &SnapshotStore) -> anyhow::Result<Self> {
        let runtime = Runtime::system();
        let log = Arc::new(MemoryLog::new(runtime.clock.clone(), [1, PARTITIONS, 1], "bench"));
        let beyond = Beyond { snapshots: Some(store.clone()), ..Beyond::default() };
        let indexer = Arc::new(Indexer::open_with(dir, Config::default(), log, &runtime, beyond)?);
        let shutdown = Shutdown::new();
        let running = tokio::spawn({
            let (indexer, shutdown) = (Arc::clone(&indexer), shutdown.clone());
            async move { indexer.run(shutdown).await }
        });
        Ok(Self { indexer, runtime, shutdown, running })
    }

    fn metric(&self, name: &str) -> f64 {
        let text = self.runtime.telemetry.render();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        value.unwrap_or_default()
    }

    /// Until the metric has counted every shard.
    async fn until(&self, name: &str) -> anyhow::Result<()> {
        while self.metric(name) < f64::from(PARTITIONS) {
            anyhow::ensure!(!self.running.is_finished(), "the index stopped");
            // Nothing tells of a metric but looking at it; the step is small against what is measured.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    async fn stop(self) -> anyhow::Result<()> {
        self.shutdown.begin();
        Ok(self.running.await?)
    }
}
