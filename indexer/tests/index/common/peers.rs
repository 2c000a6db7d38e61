//! Processes that share the shards of an index, and the API over all of them, without sockets.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use eventlog::memory::MemoryLog;
use eventlog::{Assigner, LogReader as _};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{Method, Request, StatusCode};
use indexer::api::{Source, router, shards_router};
use indexer::{Beyond, Peers, PeersConfig, Transport};
use parking_lot::Mutex;
use runtime::{DurationText, Runtime, Shutdown};
use tempfile::TempDir;

use super::{Flow, PARTITIONS, access, call_bytes, config, place, until};

pub const SECRET: &str = "a-secret-of-the-cluster";

/// How the way to a process is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Break {
    /// Nothing can be sent.
    Refuses,
    /// What is sent is never answered; what it holds is told all the same.
    Hangs,
}

/// Hands requests on to routers.
#[derive(Default)]
pub struct Ways {
    routers: HashMap<String, Router>,
    broken: Mutex<HashMap<String, Break>>,
    secret: Mutex<String>,
}

impl Transport for Ways {
    fn send<'a>(
        &'a self,
        peer: &'a str,
        method: Method,
        path: String,
        body: Bytes,
    ) -> BoxFuture<'a, Result<(StatusCode, Bytes), String>> {
        async move {
            let broken = self.broken.lock().get(peer).copied();
            match broken {
                Some(Break::Refuses) => return Err("the way is broken".to_owned()),
                Some(Break::Hangs) if method == Method::POST => std::future::pending().await,
                _ => {}
            }
            let authorization = format!("Bearer {}", self.secret.lock());
            let request = Request::builder().method(method).uri(path).header("authorization", authorization);
            let (status, _, body) = call_bytes(&self.routers[peer], request.body(Body::from(body)).unwrap()).await;
            Ok((status, body))
        }
        .boxed()
    }
}

/// One that has some shards.
struct Member {
    flow: Flow,
    assigner: Assigner,
    _dir: TempDir,
}

/// Processes on one log, and the API over them.
pub struct Cluster {
    pub log: MemoryLog,
    pub api: Router,
    pub peers: Arc<Peers>,
    ways: Arc<Ways>,
    members: Vec<Member>,
    shutdown: Shutdown,
}

impl Cluster {
    /// Each process has the partitions that stand here.
    pub async fn start(log: &MemoryLog, held: &[&[u32]]) -> Self {
        let member = |partitions: &&[u32]| {
            let (dir, assigner) = (tempfile::tempdir().unwrap(), Assigner::new());
            let beyond = Beyond { assignment: Some(assigner.assignment()), ..Beyond::default() };
            let flow = Flow::start_kept(dir.path(), log.clone(), config(), beyond);
            assigner.assign(partitions.iter().map(|partition| place(*partition)));
            Member { flow, assigner, _dir: dir }
        };
        let members: Vec<Member> = held.iter().map(member).collect();
        let named = |(number, member): (usize, &Member)| {
            (address(number), shards_router(Arc::clone(&member.flow.indexer), SECRET.to_owned()))
        };
        let routers = members.iter().enumerate().map(named).collect();
        let ways = Arc::new(Ways { routers, secret: Mutex::new(SECRET.to_owned()), ..Ways::default() });
        let settings = PeersConfig {
            peers: (0..members.len()).map(address).collect(),
            deadline: DurationText::millis(1_000),
            hedge_after: DurationText::millis(100),
            ..PeersConfig::default()
        };
        let runtime = Runtime::system();
        let peers = Arc::new(Peers::new(&settings, PARTITIONS, Arc::clone(&ways) as Arc<dyn Transport>, &runtime));
        let shutdown = Shutdown::new();
        tokio::spawn({
            let (peers, shutdown) = (Arc::clone(&peers), shutdown.clone());
            async move { peers.run(shutdown).await }
        });
        let api = router(Source::Peers(Arc::clone(&peers)), access(log));
        Self { log: log.clone(), api, peers, ways, members, shutdown }
    }

    pub fn assign(&self, member: usize, partitions: &[u32]) {
        self.members[member].assigner.assign(partitions.iter().map(|partition| place(*partition)));
    }

    /// Waits until every partition can be asked, up to the end of the log.
    pub async fn whole(&self) {
        let mut ends = Vec::new();
        for partition in 0..PARTITIONS {
            ends.push(self.log.bounds(place(partition)).await.unwrap().end.0);
        }
        until(|| {
            let shards = self.peers.shards();
            shards.len() == ends.len()
                && shards.iter().all(|shard| !shard.is_behind && shard.next >= ends[shard.partition as usize])
        })
        .await;
    }

    /// Breaks the way to a process, or mends it.
    pub fn set_broken(&self, member: usize, broken: Option<Break>) {
        let mut ways = self.ways.broken.lock();
        match broken {
            Some(broken) => ways.insert(address(member), broken),
            None => ways.remove(&address(member)),
        };
    }

    /// What the API says that it is.
    pub fn set_secret(&self, secret: &str) {
        secret.clone_into(&mut self.ways.secret.lock());
    }

    pub async fn stop(self) {
        self.shutdown.begin();
        for member in self.members {
            member.flow.stop().await;
        }
    }
}

fn address(member: usize) -> String {
    format!("http://index-{member}:8050")
}
