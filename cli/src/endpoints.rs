//! What the one listener answers beside SDK paths: probes, metrics, the page, its endpoints, the search API.
//!
//! In: requests that `ingest::server` passes on. Out: answers; errors have the body of the search API (`code`,
//! `message`, `id`). Promise: nothing here waits for or changes a stage, but for what an operator orders; tokens are compared in constant time and never
//! logged; every answer of the page forbids scripts, styles and connections from elsewhere.
//! Not here: SDK paths (`ingest`), `/api/v2` (`indexer`).

mod api;
mod assets;
mod refusal;
pub mod setup;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use events::EnvironmentConfig;
use futures::future::BoxFuture;
use indexer::api::ApiAccess;
use runtime::{Runtime, Telemetry};
use serde_json::Value;

pub use refusal::Refusal;

use crate::lake::{ContextPlace, WholeLetter};

/// What the endpoints ask of the running stages.
pub trait Stages: Send + Sync {
    /// Whether an event would be answered 202 now; if not, why.
    fn readiness(&self) -> Result<(), String>;
    /// Brings up to date what the metrics tell of states.
    fn refresh_gauges(&self) -> BoxFuture<'_, ()>;
    /// The body of `/api/tidegate/pipeline`.
    fn pipeline(&self) -> BoxFuture<'_, Value>;
    /// Work on one shard of the index, by order of an operator; `None` if there is no such shard here. It is done also if
    /// nobody waits for it any more.
    fn index_work(&self, partition: u32, work: IndexWork) -> BoxFuture<'_, anyhow::Result<Option<Value>>>;
}

/// What an operator may order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexWork {
    /// All segments become one.
    Merge,
    /// It is made anew from the table `contexts` and the log, beside the one of now.
    Rebuild,
    /// The table `contexts` is held against it; `repairs`: what differs is mended.
    Check { repairs: bool },
}

/// What the endpoints ask of the tables.
pub trait Tables: Send + Sync {
    fn dead_letters(&self, limit: usize) -> BoxFuture<'_, anyhow::Result<Vec<Value>>>;
    fn dead_letter<'a>(&'a self, id: &'a str) -> BoxFuture<'a, anyhow::Result<Option<WholeLetter>>>;
    fn evaluations(&self, place: ContextPlace, limit: usize) -> BoxFuture<'_, anyhow::Result<Vec<Value>>>;
}

/// Everything that handlers need.
#[derive(Clone)]
pub struct Shared(Arc<Inner>);

pub struct Inner {
    pub stages: Box<dyn Stages>,
    pub tables: Box<dyn Tables>,
    pub access: ApiAccess,
    pub environments: Vec<EnvironmentConfig>,
    /// How this server is reached if a request does not tell.
    pub authority: String,
    pub runtime: Runtime,
}

impl Shared {
    pub fn new(inner: Inner) -> Self {
        Self(Arc::new(inner))
    }
}

impl std::ops::Deref for Shared {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

/// All paths but those of SDKs. `search_api` answers everything below `/api/v2`; none if this process keeps no index.
pub fn router(shared: Shared, search_api: Option<Router>) -> Router {
    let search_api = search_api.unwrap_or_else(|| api::without_index(&shared));
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .merge(assets::router())
        .nest("/api/tidegate", api::guarded(&shared))
        .fallback(not_found)
        .with_state(shared)
        .merge(search_api)
}

async fn readyz(State(shared): State<Shared>) -> Response {
    match shared.stages.readiness() {
        Ok(()) => "ready\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")).into_response(),
    }
}

async fn metrics(State(shared): State<Shared>) -> Response {
    shared.stages.refresh_gauges().await;
    let telemetry: &Telemetry = &shared.runtime.telemetry;
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], telemetry.render()).into_response()
}

async fn not_found(State(shared): State<Shared>) -> Refusal {
    Refusal::not_found(&shared.runtime, "there is nothing at this path")
}

#[cfg(test)]
mod tests;
