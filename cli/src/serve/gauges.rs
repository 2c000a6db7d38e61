//! Gauges of what only the whole program knows: how far table and index are behind, and how long it has run.
//!
//! Set when the metrics are asked for, from the same states as the pipeline page.

use prometheus::Gauge;
use runtime::Telemetry;

#[derive(Clone)]
pub struct Gauges {
    pub uptime_seconds: Gauge,
    pub log_pending_bytes: Gauge,
    pub table_lag_seconds: Gauge,
    pub table_freshness_seconds: Gauge,
    pub index_lag_records: Gauge,
    pub index_lag_seconds: Gauge,
    pub index_freshness_seconds: Gauge,
    pub index_contexts: Gauge,
    pub index_bytes: Gauge,
    pub index_rebuilding: Gauge,
}

impl Gauges {
    pub fn new(telemetry: &Telemetry) -> Self {
        let gauge = |name: &str, help: &str| telemetry.register(Gauge::new(name, help).expect("constant name"));
        Self {
            uptime_seconds: gauge("tidegate_uptime_seconds", "Time since the start of the process."),
            log_pending_bytes: gauge("tidegate_log_pending_bytes", "Appends that are not durable yet."),
            table_lag_seconds: gauge("tidegate_table_lag_seconds", "Age of the oldest record that is in no table yet."),
            table_freshness_seconds: gauge(
                "tidegate_table_freshness_seconds",
                "Everything acknowledged longer ago than this can be queried.",
            ),
            index_lag_records: gauge("tidegate_index_lag_records", "Records of the log that are not searchable yet."),
            index_lag_seconds: gauge(
                "tidegate_index_lag_seconds",
                "Age of the oldest record that is not searchable yet.",
            ),
            index_freshness_seconds: gauge(
                "tidegate_index_freshness_seconds",
                "Everything acknowledged longer ago than this can be searched.",
            ),
            index_contexts: gauge("tidegate_index_contexts_count", "Contexts that can be found."),
            index_bytes: gauge("tidegate_index_files_bytes", "Bytes of the index on disk."),
            index_rebuilding: gauge(
                "tidegate_index_rebuilding_state",
                "1 while a lost index is coming back and searches lack contexts, else 0.",
            ),
        }
    }
}
