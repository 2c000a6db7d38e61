//! Metrics of the indexer.

use prometheus::{Histogram, HistogramOpts, IntCounter};
use runtime::Telemetry;

/// Counters of all shards together. Gauges of lag and size come from `Indexer::status`.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub sightings: IntCounter,
    pub unchanged_sightings: IntCounter,
    pub written_contexts: IntCounter,
    pub evicted_contexts: IntCounter,
    pub commits: IntCounter,
    pub commit_seconds: Histogram,
    pub corrupt_records: IntCounter,
    pub unreadable_contexts: IntCounter,
    pub rebuilds: IntCounter,
    pub table_states: IntCounter,
    pub snapshots: IntCounter,
    pub snapshot_bytes: IntCounter,
    pub restored_snapshots: IntCounter,
    pub snapshots_passed_over: IntCounter,
    pub search_seconds: Histogram,
    pub partial_searches: IntCounter,
    pub lookup_seconds: Histogram,
}

/// A histogram of times from a millisecond to ten seconds.
pub fn seconds(name: &str, help: &str) -> Histogram {
    let options = HistogramOpts::new(name, help).buckets(vec![0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0]);
    Histogram::with_opts(options).expect("constant name")
}

impl Metrics {
    pub fn new(telemetry: &Telemetry) -> Self {
        let counter = |name: &str, help: &str| telemetry.register(IntCounter::new(name, help).expect("constant name"));
        let seconds = |name: &str, help: &str| telemetry.register(self::seconds(name, help));
        Self {
            sightings: counter("tidegate_index_sightings_total", "Sightings read from the log."),
            unchanged_sightings: counter(
                "tidegate_index_unchanged_sightings_total",
                "Sightings that a hash look-up settled.",
            ),
            written_contexts: counter("tidegate_index_written_contexts_total", "Contexts written to the index."),
            evicted_contexts: counter(
                "tidegate_index_evicted_contexts_total",
                "Contexts that went because their environment was beyond its bound.",
            ),
            commits: counter("tidegate_index_commits_total", "Commits of shards."),
            commit_seconds: seconds("tidegate_index_commit_seconds", "Time of one commit of a shard."),
            corrupt_records: counter(
                "tidegate_index_corrupt_records_total",
                "Log records that could not be read and were passed over.",
            ),
            unreadable_contexts: counter(
                "tidegate_index_unreadable_contexts_total",
                "Sightings whose attributes could not be read or are too long.",
            ),
            rebuilds: counter("tidegate_index_rebuilds_total", "Shards begun anew."),
            table_states: counter("tidegate_index_table_states_total", "States of contexts written to the table."),
            snapshots: counter("tidegate_index_snapshots_total", "Copies of shards written to the object store."),
            snapshot_bytes: counter("tidegate_index_snapshot_bytes_total", "Bytes uploaded for copies of shards."),
            restored_snapshots: counter(
                "tidegate_index_snapshots_restored_total",
                "Shards that were taken over from a copy.",
            ),
            snapshots_passed_over: counter(
                "tidegate_index_snapshots_passed_over_total",
                "Copies of shards that could not be used when one was wanted.",
            ),
            search_seconds: seconds("tidegate_search_seconds", "Time of one context search."),
            partial_searches: counter(
                "tidegate_partial_searches_total",
                "Searches that reached their budget and were answered in part.",
            ),
            lookup_seconds: seconds(
                "tidegate_attribute_lookup_seconds",
                "Time of one look-up of attribute names or values.",
            ),
        }
    }
}
