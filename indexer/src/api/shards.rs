//! Answers other processes of the cluster for the shards of this one.
//!
//! In: inquiries of [`crate::Peers`], with the secret that all processes share. Out: what the shards that are open here know, and
//! which these are. Promise: 401 before anything is told; the secret is compared in constant time and never logged; bodies and
//! answers at once are bounded.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, Request, State};
use axum::response::Response;
use axum::routing::{get, post};
use http::StatusCode;
use http::header::AUTHORIZATION;
use runtime::{ErrorKind, UnixMicros};
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;

use super::SEARCHES_MAX;
use super::answers::{json, to_json};
use crate::ask::{
    AttributeNames, AttributeValues, Inquiry, InstanceVersions, Kinds, LocateRows, Observations, ReadRows, Search,
    SearchInstances, Versions,
};
use crate::peers::{Asked, INQUIRY_BYTES_MAX, PATH, Refusal, Reply, ShardState};
use crate::shard::Shard;
use crate::{Error, Indexer};

/// Inquiries larger than [`SMALL_BYTES_MAX`] that are in memory at once.
const LARGE_MAX: usize = 4;
const SMALL_BYTES_MAX: u64 = 64 << 10;

struct Shards {
    indexer: Arc<Indexer>,
    secret: String,
    answering: Arc<Semaphore>,
    large: Semaphore,
}

/// Answers processes that know the secret; only for a secret that is not empty.
pub fn shards_router(indexer: Arc<Indexer>, secret: String) -> Router {
    assert!(!secret.is_empty(), "an empty secret would be known to everybody");
    let (answering, large) = (Arc::new(Semaphore::new(SEARCHES_MAX)), Semaphore::new(LARGE_MAX));
    Router::new()
        .route(&format!("{PATH}/shards"), get(states))
        .route(&format!("{PATH}/ask/{{inquiry}}"), post(ask))
        .with_state(Arc::new(Shards { indexer, secret, answering, large }))
}

async fn states(State(shards): State<Arc<Shards>>, request: Request) -> Response {
    match shards.knows(&request) {
        true => json(StatusCode::OK, to_json(&shards.indexer.shard_states())),
        false => refusal(StatusCode::UNAUTHORIZED, false, "the secret is another"),
    }
}

async fn ask(State(shards): State<Arc<Shards>>, Path(inquiry): Path<String>, request: Request) -> Response {
    if !shards.knows(&request) {
        return refusal(StatusCode::UNAUTHORIZED, false, "the secret is another");
    }
    let body = request.into_body();
    match inquiry.as_str() {
        Kinds::NAME => shards.answer::<Kinds>(body).await,
        Search::NAME => shards.answer::<Search>(body).await,
        Versions::NAME => shards.answer::<Versions>(body).await,
        Observations::NAME => shards.answer::<Observations>(body).await,
        AttributeNames::NAME => shards.answer::<AttributeNames>(body).await,
        AttributeValues::NAME => shards.answer::<AttributeValues>(body).await,
        SearchInstances::NAME => shards.answer::<SearchInstances>(body).await,
        InstanceVersions::NAME => shards.answer::<InstanceVersions>(body).await,
        LocateRows::NAME => shards.answer::<LocateRows>(body).await,
        ReadRows::NAME => shards.answer::<ReadRows>(body).await,
        _ => refusal(StatusCode::NOT_FOUND, false, "there is no such inquiry"),
    }
}

fn refusal(status: StatusCode, is_final: bool, message: impl Into<String>) -> Response {
    json(status, to_json(&Refusal { is_final, message: message.into() }))
}

impl Shards {
    fn knows(&self, request: &Request) -> bool {
        let sent = request.headers().get(AUTHORIZATION).map_or(&[][..], |value| value.as_bytes());
        sent.strip_prefix(b"Bearer ").is_some_and(|sent| bool::from(self.secret.as_bytes().ct_eq(sent)))
    }

    async fn answer<I: Inquiry>(self: &Arc<Self>, body: Body) -> Response {
        let busy = |_| refusal(StatusCode::SERVICE_UNAVAILABLE, false, "shutting down");
        let is_small = http_body::Body::size_hint(&body).upper().is_some_and(|bytes| bytes <= SMALL_BYTES_MAX);
        let _large = match is_small {
            true => None,
            false => match self.large.acquire().await.map_err(busy) {
                Ok(place) => Some(place),
                Err(refused) => return refused,
            },
        };
        let Ok(body) = to_bytes(body, INQUIRY_BYTES_MAX).await else {
            return refusal(StatusCode::PAYLOAD_TOO_LARGE, false, "the body could not be read or is too large");
        };
        let asked: Asked<I> = match serde_json::from_slice(&body) {
            Ok(asked) => asked,
            Err(error) => {
                return refusal(StatusCode::BAD_REQUEST, false, format!("the inquiry does not read: {error}"));
            }
        };
        let permit = match Arc::clone(&self.answering).acquire_owned().await.map_err(busy) {
            Ok(permit) => permit,
            Err(refused) => return refused,
        };
        let shards = Arc::clone(self);
        let work = move || {
            let _permit = permit;
            shards.reply(&asked).map(|reply| to_json(&reply))
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(Ok(reply)) => json(StatusCode::OK, reply),
            Ok(Err(error)) => match error.kind() {
                ErrorKind::Reject | ErrorKind::Overloaded => {
                    refusal(StatusCode::UNPROCESSABLE_ENTITY, true, error.to_string())
                }
                _ => refusal(StatusCode::SERVICE_UNAVAILABLE, false, error.to_string()),
            },
            Err(error) => refusal(StatusCode::INTERNAL_SERVER_ERROR, false, format!("an inquiry panicked: {error}")),
        }
    }

    fn reply<I: Inquiry>(&self, asked: &Asked<I>) -> Result<Reply<I::Answer>, Error> {
        let is_asked = |shard: &Arc<Shard>| asked.partitions.contains(&shard.partition) && shard.reader().is_ok();
        let mut shards = self.indexer.held();
        shards.retain(is_asked);
        // Before the answer: what is taken over meanwhile may have come too late for it.
        let (mut is_rebuilding, mut is_behind) = (false, false);
        for shard in &shards {
            let progress = shard.progress.lock();
            is_rebuilding |= progress.is_rebuilding;
            is_behind |= progress.is_behind;
        }
        let answer = asked.inquiry.answer(&self.indexer, &shards)?;
        let partitions = shards.iter().map(|shard| shard.partition).collect();
        Ok(Reply { partitions, is_rebuilding, is_behind, answer })
    }
}

impl Indexer {
    /// The shards that can be searched here.
    fn shard_states(&self) -> Vec<ShardState> {
        let mut states = Vec::new();
        for shard in self.held().iter().filter(|shard| shard.reader().is_ok()) {
            let progress = shard.progress.lock().clone();
            let waits = |since: UnixMicros| self.runtime().clock.now().since(since).as_secs_f64();
            states.push(ShardState {
                partition: shard.partition,
                is_rebuilding: progress.is_rebuilding,
                is_behind: progress.is_behind,
                next: progress.next,
                lag_records: (progress.end - progress.next).max(0) as u64,
                lag_seconds: progress.waiting_since.map_or(0.0, waits),
                last_commit: progress.last_commit.map(|at| at.0),
            });
        }
        states
    }
}
