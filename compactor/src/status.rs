//! What the stage tells the operator: how far it is, how far behind.

use std::sync::Arc;

use events::Topic;
use parking_lot::Mutex;
use prometheus::IntGaugeVec;
use runtime::{Clock, UnixMicros};

use crate::metrics::Metrics;
use crate::schema::{DEAD_LETTERS, EVENTS, LEDGER};

/// A moment of the `events` table and of the way to it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status {
    /// Version of the table `events`.
    pub table_version: u64,
    /// Live files and their bytes, all tables.
    pub files: u64,
    pub bytes: u64,
    /// Records of the log that are in no table yet.
    pub lag_records: u64,
    /// Age of the oldest of them.
    pub lag_seconds: f64,
    pub last_commit_at: Option<UnixMicros>,
    /// Latest receipt time that a query of `events` can see.
    pub newest_received_at: Option<UnixMicros>,
    /// Partitions that do not go on, and why.
    pub stopped: Vec<String>,
}

/// How far one topic is.
#[derive(Clone, Debug, Default)]
pub(crate) struct TopicProgress {
    pub lag_records: u64,
    pub oldest_waiting_at: Option<UnixMicros>,
    pub stopped: Vec<String>,
}

#[derive(Default)]
struct Shared {
    topics: [TopicProgress; 3],
    last_commit_at: Option<UnixMicros>,
    newest_received_at: Option<UnixMicros>,
}

/// Written by the stage, read by anybody. Clones share one state.
#[derive(Clone, Default)]
pub(crate) struct StatusBoard(Arc<Mutex<Shared>>);

impl StatusBoard {
    pub fn set_topic(&self, topic: Topic, progress: TopicProgress) {
        self.0.lock().topics[topic as usize] = progress;
    }

    pub fn set_landed(&self, at: Option<UnixMicros>, newest_received_at: Option<UnixMicros>) {
        let mut shared = self.0.lock();
        shared.last_commit_at = shared.last_commit_at.max(at);
        shared.newest_received_at = shared.newest_received_at.max(newest_received_at);
    }

    /// Sizes of tables come from their gauges, which each commit sets.
    pub fn read(&self, clock: &Clock, metrics: &Metrics) -> Status {
        let sum = |gauge: &IntGaugeVec| {
            let tables = [&EVENTS, &DEAD_LETTERS, &LEDGER].map(|spec| gauge.with_label_values(&[spec.name]).get());
            tables.iter().sum::<i64>() as u64
        };
        let shared = self.0.lock();
        let oldest = shared.topics.iter().filter_map(|topic| topic.oldest_waiting_at).min();
        Status {
            table_version: metrics.table_version.with_label_values(&[EVENTS.name]).get() as u64,
            files: sum(&metrics.table_files),
            bytes: sum(&metrics.table_bytes),
            lag_records: shared.topics.iter().map(|topic| topic.lag_records).sum(),
            lag_seconds: oldest.map_or(0.0, |oldest| clock.now().since(oldest).as_secs_f64()),
            last_commit_at: shared.last_commit_at,
            newest_received_at: shared.newest_received_at,
            stopped: shared.topics.iter().flat_map(|topic| topic.stopped.clone()).collect(),
        }
    }
}
