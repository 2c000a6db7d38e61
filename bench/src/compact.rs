//! From log to table: core-time, bytes, memory and requests of the compactor alone, on recorded bodies.
//!
//! The log is filled first and not measured: bodies through the real decoder into the embedded log, in as many portions
//! as there are commits. Each portion is then landed; at the end the files are merged as the program would merge them.
//! The store counts its requests. Everything happens in this process, so the resident set is this program's own (some
//! MiB) plus what the compactor holds; `--commits 1` lands all of it as one backlog.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use compactor::{Compactor, Config, Steps, Storage};
use eventlog::LogWriter;
use eventlog::embedded::EmbeddedLog;
use events::{Environment, Topic};
use ingest::decode::{Decoder, Payload, Place};
use ingest::recent::RecentContexts;
use ingest::rows::OpenRows;
use object_store::local::LocalFileSystem;
use runtime::{ByteSize, Entropy, Runtime};
use url::Url;

use crate::bodies::{self, Body};
use crate::counting::{CountingStore, Requests};
use crate::decode::head;
use crate::process::{Process, mib};

/// Rows of one log record, as ingest seals them under load.
const FRAME_BYTES: usize = 512 << 10;

#[derive(clap::Args)]
pub struct CompactArgs {
    /// `python` (32 events, 14.8 kB) or `summary` (one event, 2.4 kB).
    #[arg(long, default_value = "python")]
    body: String,
    #[arg(long, default_value_t = 40_000)]
    requests: usize,
    /// Portions that the log is filled and landed in.
    #[arg(long, default_value_t = 16)]
    commits: usize,
    #[arg(long, default_value_t = 2)]
    partitions: u32,
    /// Environments that the bodies are spread over.
    #[arg(long, default_value_t = 1)]
    environments: usize,
    /// The compactor's `memory_budget` in MiB.
    #[arg(long, default_value_t = 256)]
    memory_mib: u64,
}

pub fn run(args: &CompactArgs) -> anyhow::Result<()> {
    let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    // On a worker, as in the program: the compactor is one task.
    let args = Arc::new(CompactArgs { body: args.body.clone(), ..*args });
    threads.block_on(async move { tokio::spawn(async move { measure(&args).await }).await? })
}

async fn measure(args: &CompactArgs) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let runtime = Runtime::system();
    let log_config = eventlog::Config { events_partitions: args.partitions, ..Default::default() };
    let log = EmbeddedLog::open(&directory.path().join("log"), &log_config, &runtime)?;
    let lake = directory.path().join("lake");
    std::fs::create_dir_all(&lake)?;
    let requests = Requests::default();
    let store = CountingStore::new(LocalFileSystem::new_with_prefix(&lake)?, requests.clone());
    let storage = Storage::with_store(Arc::new(store), Url::parse("bench:///")?)?;
    let config = Config { memory_budget: ByteSize::mib(args.memory_mib), merge: false, ..Config::default() };

    let body = bodies::by_name(&args.body)?;
    let mut filler = Filler::new(args, body);
    let landing = Compactor::open_on(storage.clone(), &config, log.clone(), runtime.clone(), Steps::default()).await?;
    let mut land = Usage::default();
    for portion in 0..args.commits {
        filler.fill(&log, args.requests * (portion + 1) / args.commits).await?;
        land.add(Usage::of(async { Ok(landing.land_available().await?) }).await?);
    }
    let land_requests = requests.take();
    let landed_bytes = directory_bytes(&lake.join("events"), ".parquet")?;
    let landed_files = landing.status().files;
    drop(landing);

    let config = Config { merge: true, ..config };
    let runtime = Runtime { telemetry: Default::default(), ..runtime };
    let merging = Compactor::open_on(storage, &config, log.clone(), runtime, Steps::default()).await?;
    let merge = Usage::of(async { Ok(merging.land_available().await?) }).await?;
    let status = merging.status();

    let (events, json_bytes) = (filler.events as f64, filler.json_bytes as f64);
    println!("{} events, {} bytes of JSON each on average", filler.events, filler.json_bytes / filler.events);
    println!("log bytes per JSON byte: {:.4}", log.bytes() as f64 / json_bytes);
    println!("| stage | core-us/event | events/s/core | peak MiB | files | bytes per JSON byte |");
    println!("|---|---|---|---|---|---|");
    for (stage, usage, files, bytes) in
        [("land", &land, landed_files, landed_bytes), ("merge", &merge, status.files, status.bytes)]
    {
        let us = usage.core.as_secs_f64() * 1e6 / events;
        let bytes = bytes as f64 / json_bytes;
        println!("| {stage} | {us:.2} | {:.0} | {:.0} | {files} | {bytes:.4} |", 1e6 / us, mib(usage.peak));
    }
    println!("resident before: {:.0} MiB", mib(land.before));
    println!("requests per million events, landing: {}", land_requests.per_million(events));
    println!("requests per million events, merging: {}", requests.take().per_million(events));
    Ok(())
}

/// Core-time and memory of a piece of work.
#[derive(Default)]
struct Usage {
    core: Duration,
    before: u64,
    peak: u64,
}

impl Usage {
    async fn of(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<Self> {
        let process = Process(std::process::id());
        // "5" forgets the largest resident set so far.
        std::fs::write("/proc/self/clear_refs", "5").context("resetting the peak")?;
        let (before, core) = (process.memory()?.resident, process.core_time()?);
        work.await?;
        Ok(Self { core: process.core_time()? - core, before, peak: process.memory()?.peak })
    }

    fn add(&mut self, other: Self) {
        self.core += other.core;
        self.peak = self.peak.max(other.peak);
        if self.before == 0 {
            self.before = other.before;
        }
    }
}

/// Fills the log with bodies whose contexts vary.
struct Filler {
    body: Body,
    digits: Vec<usize>,
    environments: Vec<Environment>,
    partitions: u32,
    decoder: Decoder,
    recent: RecentContexts,
    rows: OpenRows,
    sent: usize,
    events: usize,
    json_bytes: usize,
}

impl Filler {
    fn new(args: &CompactArgs, body: Body) -> Self {
        Self {
            digits: bodies::digits_after(&body.json, b"user-"),
            body,
            environments: (0..args.environments.max(1))
                .map(|number| Environment::new("default", &format!("env-{number}")))
                .collect(),
            partitions: args.partitions,
            decoder: Decoder::new(),
            recent: RecentContexts::new(100_000, Duration::from_secs(60)),
            rows: OpenRows::new([args.partitions, 1, 1], Entropy::seeded(1)),
            sent: 0,
            events: 0,
            json_bytes: 0,
        }
    }

    /// Appends bodies until `until` have been sent since the start.
    async fn fill(&mut self, log: &EmbeddedLog, until: usize) -> anyhow::Result<()> {
        let mut json = self.body.json.clone();
        while self.sent < until {
            bodies::vary(&self.body.json, &self.digits, self.sent, &mut json);
            let environment = self.environments[self.sent % self.environments.len()].clone();
            let id = uuid::Builder::from_random_bytes((self.sent as u128).to_be_bytes()).into_uuid();
            let received_at = runtime::Clock::system().now();
            let head = ingest::payload::PayloadHead {
                environment_hash: environment.hash(),
                environment,
                received_at,
                payload_id: Some(id.to_string().into()),
                ..head()
            };
            let place = Place { events_partition: self.sent as u32 % self.partitions, dead_letters_partition: 0 };
            let payload = Payload { head: &head, body: &json, place };
            self.decoder
                .decode(payload, &self.recent, &mut self.rows)
                .map_err(|error| anyhow::anyhow!("a recorded body is refused: {error:?}"))?;
            self.sent += 1;
            self.events += self.body.events;
            self.json_bytes += json.len();
            if self.rows.bytes() > FRAME_BYTES * self.partitions as usize {
                self.seal(log).await?;
            }
        }
        self.seal(log).await
    }

    async fn seal(&mut self, log: &EmbeddedLog) -> anyhow::Result<()> {
        // The index reads sightings; nothing here does.
        let mut records = self.rows.encode()?;
        records.retain(|record| record.topic_partition.topic != Topic::Contexts);
        self.recent.acknowledge(&self.rows.take_sighted(), runtime::Clock::system().now());
        self.rows.clear();
        log.append(records).await?;
        Ok(())
    }
}

fn directory_bytes(path: &Path, suffix: &str) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(path).with_context(|| path.display().to_string())? {
        let entry = entry?;
        let meta = entry.metadata()?;
        if meta.is_dir() {
            bytes += directory_bytes(&entry.path(), suffix)?;
        } else if entry.file_name().to_string_lossy().ends_with(suffix) {
            bytes += meta.len();
        }
    }
    Ok(bytes)
}
