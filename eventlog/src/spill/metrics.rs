//! Metrics of the spill.

use prometheus::{IntCounter, IntGauge};
use runtime::Telemetry;

#[derive(Clone, Debug)]
pub(super) struct Metrics {
    pub spilled: IntCounter,
    pub drained: IntCounter,
    pub found: IntCounter,
    pub refused: IntCounter,
    pub bytes: IntGauge,
    pub records: IntGauge,
    pub oldest_seconds: IntGauge,
    pub breaker: IntGauge,
}

impl Metrics {
    pub fn new(telemetry: &Telemetry) -> Self {
        let counter = |name: &str, help: &str| telemetry.register(IntCounter::new(name, help).expect("constant name"));
        let gauge = |name: &str, help: &str| telemetry.register(IntGauge::new(name, help).expect("constant name"));
        Self {
            spilled: counter(
                "tidegate_spill_records_total",
                "Records kept on the local disk, as Kafka did not take them.",
            ),
            drained: counter("tidegate_spill_drained_records_total", "Records brought from the local disk to Kafka."),
            found: counter(
                "tidegate_spill_found_records_total",
                "Records kept on the local disk that had reached Kafka all the same, and were not sent again.",
            ),
            refused: counter(
                "tidegate_spill_refused_appends_total",
                "Appends that the local disk did not take either.",
            ),
            bytes: gauge("tidegate_spill_held_bytes", "Bytes of the spill on the local disk."),
            records: gauge(
                "tidegate_spill_held_records_count",
                "Records on the local disk that Kafka does not have yet.",
            ),
            oldest_seconds: gauge("tidegate_spill_oldest_seconds", "Age of the oldest of them."),
            breaker: gauge("tidegate_spill_breaker_state", "Breaker before Kafka: 0 closed, 1 half-open, 2 open."),
        }
    }
}
