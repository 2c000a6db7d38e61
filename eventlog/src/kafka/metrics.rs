//! Metrics of the Kafka log.

use prometheus::{IntCounter, IntGauge};
use runtime::Telemetry;

/// Those of appends have the names that the embedded log uses, so that dashboards fit both.
#[derive(Clone, Debug)]
pub(super) struct Metrics {
    pub appended_records: IntCounter,
    pub appended_bytes: IntCounter,
    pub append_failures: IntCounter,
    pub producers_replaced: IntCounter,
    pub is_reachable: IntGauge,
    pub repositions: IntCounter,
}

impl Metrics {
    pub fn new(telemetry: &Telemetry) -> Self {
        let counter = |name: &str, help: &str| telemetry.register(IntCounter::new(name, help).expect("constant name"));
        let gauge = |name: &str, help: &str| telemetry.register(IntGauge::new(name, help).expect("constant name"));
        Self {
            appended_records: counter("tidegate_log_appended_records_total", "Records made durable."),
            appended_bytes: counter("tidegate_log_appended_bytes_total", "Bytes of records made durable."),
            append_failures: counter("tidegate_log_append_failures_total", "Records that were not acknowledged."),
            producers_replaced: counter(
                "tidegate_kafka_producers_replaced_total",
                "Producers that had stopped for good and were replaced.",
            ),
            is_reachable: gauge(
                "tidegate_kafka_reachable_state",
                "1 while the brokers answer and would take records, else 0.",
            ),
            repositions: counter(
                "tidegate_kafka_repositions_total",
                "Times that reading a partition went to another place than the next record.",
            ),
        }
    }
}
