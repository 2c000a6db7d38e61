//! The model: what an event, a context sighting and a dead letter are, as ids, limits and Arrow schemas.
//!
//! Everything after the decoder works on these shapes; nothing here knows HTTP, a log or a file. Start with
//! [`schema`], which lists every column, then [`batch`], which holds rows that belong together.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod batch;
pub mod context;
pub mod environment;
pub mod erasure;
pub mod ids;
pub mod kinds;
pub mod limits;
pub mod schema;
pub mod state;

pub use batch::{DeadLettersBatch, EventsBatch, LogBatch, SightingsBatch};
pub use environment::{Environment, EnvironmentConfig, Environments};
pub use erasure::ErasedContexts;
pub use ids::{Offset, OffsetRange, Partition, Topic, TopicId, TopicPartition};
pub use kinds::{DeadLetterReason, EventKind, Source};
pub use state::ContextState;
