//! Metrics of the log.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntGauge};
use runtime::Telemetry;

/// Counters of the embedded log.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub appended_records: IntCounter,
    pub appended_bytes: IntCounter,
    pub syncs: IntCounter,
    pub sync_seconds: Histogram,
    pub append_failures: IntCounter,
    pub held_bytes: IntGauge,
    pub segments: IntGauge,
}

impl Metrics {
    pub fn new(telemetry: &Telemetry) -> Self {
        let counter = |name: &str, help: &str| telemetry.register(IntCounter::new(name, help).expect("constant name"));
        let gauge = |name: &str, help: &str| telemetry.register(IntGauge::new(name, help).expect("constant name"));
        let seconds = HistogramOpts::new("tidegate_log_sync_seconds", "Time of one fsync of the log.")
            .buckets(vec![0.000_1, 0.000_3, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0]);
        Self {
            appended_records: counter("tidegate_log_appended_records_total", "Records made durable."),
            appended_bytes: counter("tidegate_log_appended_bytes_total", "Bytes of records made durable."),
            syncs: counter("tidegate_log_syncs_total", "Group commits."),
            sync_seconds: telemetry.register(Histogram::with_opts(seconds).expect("constant name")),
            append_failures: counter("tidegate_log_append_failures_total", "Group commits that failed."),
            held_bytes: gauge("tidegate_log_held_bytes", "Bytes of segment files on disk."),
            segments: gauge("tidegate_log_segments_count", "Segment files on disk."),
        }
    }
}
