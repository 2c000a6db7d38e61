//! Asks the processes that hold the shards of the index, and makes one answer of theirs.
//!
//! In: an [`Inquiry`]. Out: its answer over all partitions, and whether some are missing from it. Each partition is asked of
//! exactly one process, and every answer says for which partitions it is, so that no context counts twice while shards move.
//! A process that is slow, fails or has lost a shard is made up for once, by whoever claims the shard then; after the deadline
//! the shard is missing, and the answer says so.
//! Not here: how bytes get to a process and back, which is a [`Transport`]; `cli` has one over HTTP.

mod config;
mod table;
mod window;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, join_all};
use http::{Method, StatusCode};
use prometheus::{Histogram, IntCounter};
use runtime::{ErrorKind, Runtime, Shutdown};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

pub use config::PeersConfig;
pub use table::ShardState;
pub use window::PeerWindow;

use crate::ask::Inquiry;
use crate::{Error, Result};
use table::{Plan, Table};

/// Where processes of an index answer each other. The number is that of the version of all bodies.
pub const PATH: &str = "/internal/index/v1";
/// Largest answer of a process: places of a whole part of an export, or names of attributes.
pub const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Largest inquiry: a search for ten thousand of the longest keys, written as values.
pub const INQUIRY_BYTES_MAX: usize = 16 << 20;
/// How often each process is asked what it holds, and how long that may take.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
const POLL_TIMEOUT: Duration = Duration::from_secs(1);

/// Takes requests to other processes.
pub trait Transport: Send + Sync {
    /// Sends a request with the secret and returns status and body, of at most [`ANSWER_BYTES_MAX`]; an error says why that
    /// was not possible. `peer`: as in the configuration.
    fn send<'a>(
        &'a self,
        peer: &'a str,
        method: Method,
        path: String,
        body: Bytes,
    ) -> BoxFuture<'a, std::result::Result<(StatusCode, Bytes), String>>;
}

/// A question to one process.
#[derive(Serialize, Deserialize)]
pub struct Asked<I> {
    pub partitions: Vec<u32>,
    pub inquiry: I,
}

/// What it says.
#[derive(Serialize, Deserialize)]
pub struct Reply<T> {
    /// Those of the partitions asked for that it has open.
    pub partitions: Vec<u32>,
    pub is_rebuilding: bool,
    pub is_behind: bool,
    pub answer: T,
}

/// Why it says nothing else.
#[derive(Serialize, Deserialize)]
pub struct Refusal {
    /// The question is at fault, whoever is asked.
    pub is_final: bool,
    pub message: String,
}

/// An answer over several processes.
#[derive(Debug)]
pub struct Told<T> {
    pub answer: T,
    /// Some partitions are missing from it, or were not up to date.
    pub lacks_shards: bool,
    pub is_rebuilding: bool,
}

/// Replies about different partitions, and which partitions none is about.
struct Replies<T> {
    replies: Vec<Reply<T>>,
    missing: Vec<u32>,
}

impl<T> Replies<T> {
    fn none(missing: &[u32]) -> Self {
        Self { replies: Vec::new(), missing: missing.to_vec() }
    }

    fn one(reply: Reply<T>, asked: &[u32]) -> Self {
        let missing = asked.iter().filter(|partition| !reply.partitions.contains(partition)).copied().collect();
        Self { replies: vec![reply], missing }
    }

    fn add(&mut self, others: Self) {
        self.replies.extend(others.replies);
        self.missing.extend(others.missing);
    }
}

/// Why a process gave no reply.
enum Failure {
    Final(String),
    Passing(String),
}

#[derive(Clone, Debug)]
struct Metrics {
    asked: IntCounter,
    failed: IntCounter,
    hedged: IntCounter,
    partial: IntCounter,
    seconds: Histogram,
}

/// The processes of an index.
pub struct Peers {
    table: Table,
    transport: Arc<dyn Transport>,
    runtime: Runtime,
    deadline: Duration,
    hedge_after: Duration,
    metrics: Metrics,
}

impl Peers {
    /// `partitions`: of the topic, all of which some process should hold. Nobody is asked before [`Self::run`].
    pub fn new(config: &PeersConfig, partitions: u32, transport: Arc<dyn Transport>, runtime: &Runtime) -> Self {
        Self {
            table: Table::new(&config.peers, partitions),
            transport,
            runtime: runtime.clone(),
            deadline: config.deadline.get(),
            hedge_after: config.hedge_after.get(),
            metrics: Metrics::new(runtime),
        }
    }

    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Asks every process again and again what it holds, until shutdown begins.
    pub async fn run(&self, shutdown: Shutdown) {
        let follow = |place| {
            let shutdown = shutdown.clone();
            async move {
                while !shutdown.has_begun() {
                    self.poll(place).await;
                    tokio::select! {
                        () = self.runtime.clock.wait(POLL_INTERVAL) => {}
                        () = shutdown.begun() => {}
                    }
                }
            }
        };
        join_all((0..self.table.peers().len()).map(follow)).await;
    }

    /// Why not all partitions can be asked; `None` if they can.
    pub fn fault(&self) -> Option<String> {
        self.table.fault()
    }

    /// The shards that can be asked, one of each partition.
    pub fn shards(&self) -> Vec<ShardState> {
        self.table.shards()
    }

    /// Asks all partitions. Blocks until they have answered or the deadline has passed; call it on a thread of a runtime on
    /// which that is allowed.
    ///
    /// # Errors
    /// `Unreached` if none answers; `Refused` if the question is at fault.
    pub fn ask<I: Inquiry>(&self, inquiry: &I) -> Result<Told<I::Answer>> {
        let _timer = self.metrics.seconds.start_timer();
        let partitions = self.table.partitions();
        let replies = Handle::current().block_on(self.replies(inquiry, &partitions, self.deadline))?;
        let told = self.merged(inquiry, replies)?;
        self.metrics.partial.inc_by(u64::from(told.lacks_shards));
        Ok(told)
    }

    fn merged<I: Inquiry>(&self, inquiry: &I, replies: Replies<I::Answer>) -> Result<Told<I::Answer>> {
        let Replies { replies, missing } = replies;
        if replies.is_empty() {
            return Err(self.unreached());
        }
        let is_rebuilding = replies.iter().any(|reply| reply.is_rebuilding);
        let lacks_shards = !missing.is_empty() || replies.iter().any(|reply| reply.is_behind);
        let answer = inquiry.merge(replies.into_iter().map(|reply| reply.answer).collect());
        Ok(Told { answer, lacks_shards, is_rebuilding })
    }

    fn unreached(&self) -> Error {
        Error::Unreached { why: self.fault().unwrap_or_else(|| "none answered in time".into()) }
    }

    /// Asks these partitions, each of one process.
    async fn replies<I: Inquiry>(
        &self,
        inquiry: &I,
        partitions: &[u32],
        deadline: Duration,
    ) -> Result<Replies<I::Answer>> {
        let Plan { groups, missing } = self.table.plan(partitions, None);
        let ask = |(peer, partitions): (usize, Vec<u32>)| async move {
            let asked = self.reply_of_group(inquiry, peer, &partitions);
            match self.in_time(deadline, asked).await {
                Some(replies) => replies,
                None => Ok(Replies::none(&partitions)),
            }
        };
        let mut all = Replies::none(&missing);
        for replies in join_all(groups.into_iter().map(ask)).await {
            all.add(replies?);
        }
        Ok(all)
    }

    async fn in_time<T>(&self, deadline: Duration, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = work => Some(done),
            () = self.runtime.clock.wait(deadline) => None,
        }
    }

    /// Asks one process, and if it is slow or does not have everything, whoever else claims what is missing.
    async fn reply_of_group<I: Inquiry>(
        &self,
        inquiry: &I,
        peer: usize,
        partitions: &[u32],
    ) -> Result<Replies<I::Answer>> {
        let first = self.call(inquiry, peer, partitions);
        tokio::pin!(first);
        if let Some(told) = self.in_time(self.hedge_after, &mut first).await {
            return self.made_up_for(inquiry, peer, partitions, told).await;
        }
        self.metrics.hedged.inc();
        let second = self.second_try(inquiry, peer, partitions);
        tokio::pin!(second);
        tokio::select! {
            told = &mut first => match told {
                Ok(reply) if reply.partitions.len() == partitions.len() => Ok(Replies::one(reply, partitions)),
                Err(Failure::Final(message)) => Err(refused(message)),
                _ => second.await,
            },
            replies = &mut second => {
                let replies = replies?;
                if replies.missing.is_empty() {
                    return Ok(replies);
                }
                match first.await {
                    Ok(reply) if partitions.len() - reply.partitions.len() < replies.missing.len() => {
                        Ok(Replies::one(reply, partitions))
                    }
                    Err(Failure::Final(message)) => Err(refused(message)),
                    _ => Ok(replies),
                }
            }
        }
    }

    /// What came, and what is missing from it from elsewhere.
    async fn made_up_for<I: Inquiry>(
        &self,
        inquiry: &I,
        peer: usize,
        partitions: &[u32],
        told: std::result::Result<Reply<I::Answer>, Failure>,
    ) -> Result<Replies<I::Answer>> {
        let mut replies = match told {
            Ok(reply) => Replies::one(reply, partitions),
            Err(Failure::Final(message)) => return Err(refused(message)),
            Err(Failure::Passing(why)) => {
                tracing::debug!(peer = self.table.peers()[peer], why, "a part of the index did not answer");
                Replies::none(partitions)
            }
        };
        let missing = std::mem::take(&mut replies.missing);
        if !missing.is_empty() {
            // Who has these now is not what was known before.
            let _ = self.in_time(self.hedge_after, self.poll_all()).await;
            replies.add(self.second_try(inquiry, peer, &missing).await?);
        }
        Ok(replies)
    }

    /// Asks others than `peer`, or that one again if it alone claims a partition.
    async fn second_try<I: Inquiry>(&self, inquiry: &I, peer: usize, partitions: &[u32]) -> Result<Replies<I::Answer>> {
        let Plan { groups, missing } = self.table.plan(partitions, Some(peer));
        let ask = |(peer, partitions): (usize, Vec<u32>)| async move {
            match self.call(inquiry, peer, &partitions).await {
                Ok(reply) => Ok(Replies::one(reply, &partitions)),
                Err(Failure::Final(message)) => Err(refused(message)),
                Err(Failure::Passing(_)) => Ok(Replies::none(&partitions)),
            }
        };
        let mut all = Replies::none(&missing);
        for replies in join_all(groups.into_iter().map(ask)).await {
            all.add(replies?);
        }
        Ok(all)
    }

    async fn call<I: Inquiry>(
        &self,
        inquiry: &I,
        peer: usize,
        partitions: &[u32],
    ) -> std::result::Result<Reply<I::Answer>, Failure> {
        self.metrics.asked.inc();
        let asked = Asked { partitions: partitions.to_vec(), inquiry };
        let body = serde_json::to_vec(&asked).expect("inquiries have text keys and finite numbers");
        let path = format!("{PATH}/ask/{}", I::NAME);
        let told = self.request(peer, Method::POST, path, body.into()).await;
        if told.is_err() {
            self.metrics.failed.inc();
        }
        let reply: Reply<I::Answer> = told?;
        let is_asked = |partition: &u32| partitions.contains(partition);
        match reply.partitions.iter().all(is_asked) && reply.partitions.len() <= partitions.len() {
            true => Ok(reply),
            false => Err(Failure::Passing("it answered for partitions that it was not asked for".into())),
        }
    }

    async fn request<T: DeserializeOwned>(
        &self,
        peer: usize,
        method: Method,
        path: String,
        body: Bytes,
    ) -> std::result::Result<T, Failure> {
        let sent = self.transport.send(&self.table.peers()[peer], method, path, body).await;
        let (status, body) = sent.map_err(Failure::Passing)?;
        let damaged = |error: serde_json::Error| Failure::Passing(format!("its answer does not read: {error}"));
        match status {
            StatusCode::OK => serde_json::from_slice(&body).map_err(damaged),
            StatusCode::UNAUTHORIZED => Err(Failure::Passing("it refuses the secret (api.secret)".into())),
            StatusCode::NOT_FOUND => Err(Failure::Passing(
                "it answers no other process: it has no api.secret, or is of another version".into(),
            )),
            _ => match serde_json::from_slice(&body) {
                Ok(Refusal { is_final: true, message }) => Err(Failure::Final(message)),
                Ok(Refusal { message, .. }) => Err(Failure::Passing(format!("it answered {status}: {message}"))),
                Err(_) => Err(Failure::Passing(format!("it answered {status}"))),
            },
        }
    }

    async fn poll_all(&self) {
        join_all((0..self.table.peers().len()).map(|peer| self.poll(peer))).await;
    }

    async fn poll(&self, peer: usize) {
        let asked = self.request(peer, Method::GET, format!("{PATH}/shards"), Bytes::new());
        let told = match self.in_time(POLL_TIMEOUT, asked).await {
            Some(Ok(shards)) => Ok(shards),
            Some(Err(Failure::Final(why) | Failure::Passing(why))) => Err(why),
            None => Err(format!("it said nothing for {} s", POLL_TIMEOUT.as_secs())),
        };
        self.table.note(peer, told);
    }
}

fn refused(message: String) -> Error {
    Error::Refused { kind: ErrorKind::Reject, message }
}

impl Metrics {
    fn new(runtime: &Runtime) -> Self {
        let counter =
            |name: &str, help: &str| runtime.telemetry.register(IntCounter::new(name, help).expect("constant name"));
        Self {
            asked: counter("tidegate_peers_asked_total", "Questions to processes that hold shards of the index."),
            failed: counter("tidegate_peers_failed_total", "Questions to such processes that they did not answer."),
            hedged: counter("tidegate_peers_hedged_total", "Questions asked again as the answer took long."),
            partial: counter("tidegate_peers_partial_total", "Answers that lacked shards."),
            seconds: runtime.telemetry.register(crate::metrics::seconds(
                "tidegate_peers_seconds",
                "Time in which all shards of the index answered one question.",
            )),
        }
    }
}
