//! Takes what SDKs send and puts it into the log: the endpoint of the event protocol.
//!
//! The walk of one request: [`server`] accepts a connection and reads a head; `routes` tells whether the path is ours
//! and `credentials` which environment it names; `admission` lets it in; `body` reads and unpacks under caps; `repeats`
//! knows whether the payload was stored before; `pace` lets through what can be answered soon; `batcher` picks a `lane`, where [`decode`] walks the JSON once and
//! writes [`rows`]; `append` encodes the sealed batch, awaits the log and wakes everybody; `answer` says 202. The order of
//! these steps is in `intake`.
//!
//! Knows no table, no index and no dashboard: what is not an SDK path goes to the fallback that the program hands in.

#![cfg_attr(test, allow(clippy::unwrap_used))]

// In the order of the walk; the blank lines keep it.
pub mod server;

mod intake;

mod routes;

mod credentials;

mod cors;

mod admission;

mod body;

mod pixel;

pub mod payload;

mod repeats;

mod partition;

mod pace;

mod batcher;

mod lane;

pub mod decode;

pub mod rows;

pub mod recent;

mod append;

mod answer;

mod heavy;

pub mod config;
pub mod error;
pub mod metrics;

pub use config::Config;
pub use credentials::{ApiToken, Role};
pub use error::{Error, Result};
pub use intake::Ingest;
pub use metrics::Status;
