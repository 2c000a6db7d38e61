//! `tidegate serve`: all stages in one process, on one listener.
//!
//! Order of the start: listener (an address in use is found before anything is touched), log (recovers, locks the data
//! directory), tables, index, endpoint. Order of the end: the endpoint answers what it has accepted, then compactor and
//! indexer commit what they hold, then the log is closed. Each part of the end has its time, so that the whole stays
//! below ten seconds; what a stage did not finish it does after the next start, from its offsets.
//!
//! Three pools of threads: one answers requests; one follows the log for the index and asks the tables; one, of a single
//! thread, compacts. The latter two stand back when cores are short.

mod banner;
pub mod contexts_table;
mod erasures;
mod gauges;
pub mod log;
mod peers;
mod pipeline;
mod signals;
mod snapshots;
mod task;

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::body::Body;
use axum::response::Response;
use compactor::Compactor;
use eventlog::config::Kind;
use eventlog::kafka::GroupMember;
use eventlog::{Assigner, Assignment, LogReader};
use events::{Environments, Topic};
use futures::FutureExt;
use futures::future::BoxFuture;
use hyper::body::Incoming;
use indexer::api::{ApiAccess, Source};
use indexer::{Beyond, Indexer, Peers};
use ingest::Ingest;
use parking_lot::Mutex;
use runtime::{Runtime, Shutdown};
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tower::ServiceExt;

use self::log::{Appends, Log};
pub use self::task::Task;
use crate::args::Serve;
use crate::config::{self, ApiTokenConfig, Role, Settings};
use crate::dev_keys::DevKeys;
use crate::endpoints::{self, Inner, Shared};
use crate::lake::Lake;
use crate::{allocator, logging, threads};

/// Threads for the index and for questions to the tables.
const BACK_THREADS: usize = 2;
/// Connections that the kernel keeps until they are accepted, half a second's worth on one core. Beyond it a client's first
/// packet is dropped and it tries again a second later: with the usual 128, a burst cost health checks their answer.
const LISTEN_BACKLOG: u32 = 1024;
/// Threads of each background pool that wait for files. A merge asks for dozens of reads at once, which no disk serves
/// faster from more threads, and each thread costs memory.
const BLOCKING_THREADS_MAX: usize = 16;
/// Time for requests under way. Clients give up after ten seconds, most of them after three.
const ENDPOINT_DRAIN: Duration = Duration::from_millis(5500);
/// Time for the commits of compactor and indexer.
const STAGES_DRAIN: Duration = Duration::from_millis(2500);
/// Commits of tables are kept for at least this long.
const TABLE_LOG_MIN: Duration = Duration::from_secs(7 * 86_400);
/// Time for telling the other processes that this one is gone.
const GROUP_LEAVE: Duration = Duration::from_millis(500);
/// Time for the last fsync, or for the last acknowledgements of the brokers.
const LOG_CLOSE: Duration = Duration::from_millis(1000);

pub fn run(arguments: &Serve, task: Task) -> anyhow::Result<ExitCode> {
    let mut settings = config::load(&arguments.layers())?;
    task.prepare(&mut settings)?;
    logging::start(&arguments.log_level, arguments.log_format)?;
    let front = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("front").build()?;
    let background = |name: &str, threads: usize| {
        let mut pool = tokio::runtime::Builder::new_multi_thread();
        pool.enable_all().thread_name(name).worker_threads(threads).on_thread_start(threads::stand_back);
        pool.max_blocking_threads(BLOCKING_THREADS_MAX).build()
    };
    let (back, compact) = (background("back", BACK_THREADS)?, background("compact", 1)?);
    let code = front.block_on(serve(settings, task, back.handle().clone(), compact.handle().clone()));
    // Nothing that is still running may hold up the end: all that had to be kept is kept.
    compact.shutdown_background();
    back.shutdown_background();
    front.shutdown_background();
    code
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restart must not wait for the connections of the process before it.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(LISTEN_BACKLOG)
}

async fn serve(mut settings: Settings, task: Task, back: Handle, compact: Handle) -> anyhow::Result<ExitCode> {
    let runtime = Runtime::system();
    let mut signals = signals::Signals::new()?;
    std::fs::create_dir_all(&settings.data_dir)
        .with_context(|| format!("creating the data directory {}", settings.data_dir.display()))?;
    let listener = listen(settings.listen).with_context(|| format!("listening on {}", settings.listen))?;
    let address = listener.local_addr()?;

    let pipeline = Pipeline::open(&mut settings, task, &runtime, &back, &compact).await?;
    let draining = Arc::new(AtomicBool::new(false));
    let stages = pipeline::RunningStages::new(&pipeline, Arc::clone(&draining), &runtime, &back);
    let shared = Shared::new(Inner {
        stages: Box::new(stages),
        tables: Box::new(pipeline::BoundedTables::new(Lake::new(settings.storage_resolved()), back.clone())),
        access: pipeline.api_access(&settings),
        environments: settings.environments.clone(),
        authority: address.to_string(),
        runtime: runtime.clone(),
    });
    let router = endpoints::router(shared, pipeline.search_api(&settings));
    let fallback = move |request: http::Request<Incoming>| -> BoxFuture<'static, Response> {
        let answer = router.clone().oneshot(request.map(Body::new));
        async move { answer.await.unwrap_or_else(|never| match never {}) }.boxed()
    };

    banner::print(&settings, address, pipeline.dev_keys.as_ref(), runtime.clock.now())?;
    tracing::info!(%address, data_dir = %settings.data_dir.display(), version = env!("CARGO_PKG_VERSION"), "listening");
    let endpoint_shutdown = Shutdown::new();
    let endpoint = tokio::spawn(ingest::server::serve(
        listener,
        Arc::clone(&pipeline.ingest),
        fallback,
        endpoint_shutdown.clone(),
    ));
    let stages_shutdown = Shutdown::new();
    let followers = pipeline.follow(&back, &compact, &stages_shutdown);
    pipeline.erase(&settings, &back, &compact, &runtime, &stages_shutdown);
    back.spawn(allocator::give_back(runtime.clock.clone()));

    let signal = signals.next().await;
    tracing::info!(signal, "draining");
    draining.store(true, Ordering::Release);
    let drained = drain(pipeline, endpoint_shutdown, endpoint, stages_shutdown, followers);
    tokio::select! {
        () = drained => {
            tracing::info!("stopped");
            Ok(ExitCode::SUCCESS)
        }
        signal = signals.next() => {
            tracing::info!(signal, "ended at once by a second signal");
            Ok(ExitCode::from(signals::EXIT_CODE))
        }
    }
}

/// The groups in which this process shares its work.
struct Members {
    task: Task,
    joined: Mutex<Vec<GroupMember>>,
}

impl Members {
    fn new(task: Task) -> Self {
        Self { task, joined: Mutex::default() }
    }

    /// What this process works on of `topics`; `None`: everything.
    fn join(&self, log: &Log, stage: &str, topics: &[Topic]) -> anyhow::Result<Option<Assignment>> {
        let Log::Kafka { log, .. } = log else { return Ok(None) };
        if !self.task.is_shared() {
            return Ok(None);
        }
        let assigner = Assigner::new();
        let assignment = assigner.assignment();
        self.joined.lock().push(log.join(stage, topics, assigner)?);
        Ok(Some(assignment))
    }

    fn fault(&self) -> Option<String> {
        self.joined.lock().iter().find_map(GroupMember::fault)
    }

    fn leave(&self) {
        self.joined.lock().clear();
    }
}

/// All stages, opened.
struct Pipeline {
    log: Log,
    members: Arc<Members>,
    compactor: Option<Arc<Compactor>>,
    indexer: Option<Arc<Indexer>>,
    /// Who has the shards, where this process has none.
    peers: Option<Arc<Peers>>,
    ingest: Arc<Ingest>,
    /// None where there is no index to erase from.
    erasures: Option<Arc<erasures::Book>>,
    /// Set when there was no environment in the configuration.
    dev_keys: Option<DevKeys>,
}

impl Pipeline {
    async fn open(
        settings: &mut Settings,
        task: Task,
        runtime: &Runtime,
        back: &Handle,
        compact: &Handle,
    ) -> anyhow::Result<Self> {
        let appends = if task.takes_events() { Appends::Events } else { Appends::Little };
        let log = Log::open(settings, appends, runtime).await?;
        let reader = log.reader();
        // After the log, which holds the lock: two processes must not make keys at once.
        let dev_keys = if settings.environments.is_empty() {
            Some(DevKeys::load_or_make(&settings.data_dir, &runtime.entropy)?)
        } else {
            None
        };
        if let Some(keys) = &dev_keys {
            settings.environments = keys.environments.clone();
            settings.api_tokens.extend(keys.api_tokens.clone());
        }
        let members = Members::new(task);
        let compactor = match settings.compactor.enabled {
            true => {
                let assignment = members.join(&log, compactor::LOG_READER, &compactor::TOPICS)?;
                Some(open_compactor(settings, &reader, runtime, compact, assignment).await?)
            }
            false => {
                // What it has not read is kept for the day it is switched on again.
                compactor::TOPICS.into_iter().for_each(|topic| reader.register(compactor::LOG_READER, topic));
                None
            }
        };
        let indexer = match settings.indexer.enabled {
            true => {
                let table = contexts_table::open(settings, runtime, compactor.as_deref()).await?;
                let snapshots = snapshots::open(settings, runtime, compactor.as_ref()).await?;
                let assignment = members.join(&log, indexer::LOG_READER, &[Topic::Contexts])?;
                let beyond = Beyond { assignment, table: Some(table), snapshots };
                Some(open_indexer(&settings.data_dir.join("index"), settings, &reader, runtime, back, beyond).await?)
            }
            false => {
                reader.register(indexer::LOG_READER, Topic::Contexts);
                None
            }
        };
        // Without keys it answers 503 to whatever comes.
        let ingest = Ingest::without_keys(settings.ingest.clone(), log.writer(), runtime.clone())?;
        if task.takes_events() {
            let tokens: Vec<_> = settings.api_tokens.iter().map(ingest_token).collect();
            ingest.load_keys(&settings.environments, &tokens)?;
        }
        let erasures = match &indexer {
            // It takes all stages.
            Some(_) if !task.is_shared() => {
                Some(Arc::new(erasures::Book::open(settings.data_dir.join("erasures"), runtime.clone())?))
            }
            _ => None,
        };
        let peers = match task.asks_peers() {
            true => Some(peers::open(settings, &reader, runtime)?),
            false => None,
        };
        let ingest = Arc::new(ingest);
        Ok(Self { log, members: Arc::new(members), compactor, indexer, peers, ingest, erasures, dev_keys })
    }

    /// Lets compactor and indexer follow the log. A stage that stops is reported; the endpoint goes on without it.
    fn follow(&self, back: &Handle, compact: &Handle, shutdown: &Shutdown) -> Vec<JoinHandle<()>> {
        let mut followers = Vec::new();
        if let Some(compactor) = self.compactor.clone() {
            let shutdown = shutdown.clone();
            followers.push(compact.spawn(async move {
                if let Err(error) = compactor.run(&shutdown).await {
                    tracing::error!(%error, "the compactor stopped; events stay in the log until it runs again");
                }
            }));
        }
        if let Some(indexer) = self.indexer.clone() {
            let shutdown = shutdown.clone();
            followers.push(back.spawn(async move { indexer.run(shutdown).await }));
        }
        if let Some(peers) = self.peers.clone() {
            let shutdown = shutdown.clone();
            followers.push(back.spawn(async move { peers.run(shutdown).await }));
        }
        followers
    }

    fn search_api(&self, settings: &Settings) -> Option<Router> {
        let access = self.api_access(settings);
        if let Some(peers) = &self.peers {
            return Some(indexer::api::router(Source::Peers(Arc::clone(peers)), access));
        }
        let indexer = self.indexer.as_ref()?;
        let router = indexer::api::router(Arc::clone(indexer), access);
        Some(match settings.api.secret.as_str() {
            "" => router,
            secret => router.merge(indexer::api::shards_router(Arc::clone(indexer), secret.to_owned())),
        })
    }

    /// Who may use the search API and the page's endpoints.
    fn api_access(&self, settings: &Settings) -> ApiAccess {
        ApiAccess {
            environments: Environments::new(&settings.environments),
            tokens: settings.api_tokens.iter().map(api_token).collect(),
            generation: settings.api_generation,
            kinds_file: Some(settings.data_dir.join("context-kinds.json")),
            rate_limits: settings.api_rate_limit,
            log: Some(self.log.writer()),
            erasures: self.erasures.clone().map(|book| book as Arc<dyn indexer::api::Erasures>),
        }
    }

    /// Works on erasures. Whatever is under way at the end goes on at the next start.
    fn erase(&self, settings: &Settings, back: &Handle, compact: &Handle, runtime: &Runtime, shutdown: &Shutdown) {
        let (Some(book), Some(indexer)) = (self.erasures.clone(), self.indexer.clone()) else { return };
        let places = erasures::ServedPlaces {
            reader: self.log.reader(),
            writer: self.log.writer(),
            ingest: self.ingest.clone(),
            indexer,
            compactor: self.compactor.clone(),
            compact: compact.clone(),
            runtime: runtime.clone(),
        };
        let leftovers = erasures::Leftovers {
            vacuum_age: settings.compactor.vacuum_age.get(),
            table_log: settings.compactor.vacuum_age.get().max(TABLE_LOG_MIN),
            log_retention: match settings.log.kind {
                Kind::Embedded => settings.log.retention_age.get(),
                Kind::Kafka => settings.kafka.retention.get(),
            },
            table_retention: settings.compactor.retention.get(),
            index_retention: settings.indexer.retention.get(),
        };
        back.spawn(erasures::run(book, Arc::new(places), leftovers, runtime.clone(), shutdown.clone()));
    }
}

async fn open_compactor(
    settings: &Settings,
    log: &Arc<dyn LogReader>,
    runtime: &Runtime,
    compact: &Handle,
    assignment: Option<Assignment>,
) -> anyhow::Result<Arc<Compactor>> {
    let (storage, config, log, runtime) =
        (settings.storage_resolved(), settings.compactor.clone(), log.clone(), runtime.clone());
    let opened = compact.spawn(async move { Compactor::open(&storage, &config, log, runtime).await }).await?;
    let opened = opened.context("opening the tables")?;
    Ok(Arc::new(match assignment {
        Some(assignment) => opened.follow(assignment),
        None => opened,
    }))
}

async fn open_indexer(
    dir: &Path,
    settings: &Settings,
    log: &Arc<dyn LogReader>,
    runtime: &Runtime,
    back: &Handle,
    beyond: Beyond,
) -> anyhow::Result<Arc<Indexer>> {
    let (dir, config, log, runtime) = (dir.to_owned(), settings.indexer.clone(), log.clone(), runtime.clone());
    let open = move || Indexer::open_with(&dir, config, log, &runtime, beyond);
    let opened = back.spawn_blocking(open).await?;
    Ok(Arc::new(opened.context("opening the index")?))
}

pub fn api_token(token: &ApiTokenConfig) -> indexer::api::ApiToken {
    let role = match token.role {
        Role::Reader => indexer::api::Role::Reader,
        Role::Writer => indexer::api::Role::Writer,
    };
    indexer::api::ApiToken { token: token.token.clone(), role }
}

fn ingest_token(token: &ApiTokenConfig) -> ingest::ApiToken {
    let role = match token.role {
        Role::Reader => ingest::Role::Reader,
        Role::Writer => ingest::Role::Writer,
    };
    ingest::ApiToken { token: token.token.clone(), role }
}

async fn drain(
    pipeline: Pipeline,
    endpoint_shutdown: Shutdown,
    endpoint: JoinHandle<ingest::Result<()>>,
    stages_shutdown: Shutdown,
    followers: Vec<JoinHandle<()>>,
) {
    endpoint_shutdown.begin();
    match tokio::time::timeout(ENDPOINT_DRAIN, endpoint).await {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(error))) => tracing::error!(%error, "the endpoint failed"),
        Ok(Err(error)) => tracing::error!(%error, "the endpoint failed"),
        Err(_) => tracing::info!("some requests were still under way; they are cut"),
    }
    stages_shutdown.begin();
    if tokio::time::timeout(STAGES_DRAIN, futures::future::join_all(followers)).await.is_err() {
        tracing::info!("compactor or indexer had more to commit; they go on after the next start");
    }
    // What it has worked on is committed: others may take it up.
    let members = Arc::clone(&pipeline.members);
    if tokio::time::timeout(GROUP_LEAVE, tokio::task::spawn_blocking(move || members.leave())).await.is_err() {
        tracing::info!("the group was not left in time; its other processes wait for kafka.session_timeout");
    }
    pipeline.log.close(LOG_CLOSE).await;
}
