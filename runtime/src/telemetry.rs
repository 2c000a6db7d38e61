//! The metric registry of one process, rendered as Prometheus text.
//!
//! Each crate registers its own metrics in its `metrics.rs` with names that start with `tidegate_` and end with their
//! unit. Label values come from closed sets, never from clients.

use prometheus::core::Collector;
use prometheus::{Registry, TextEncoder};

/// Registry of metrics. Cheap to clone; clones share one registry.
#[derive(Clone, Debug, Default)]
pub struct Telemetry(Registry);

impl Telemetry {
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers a metric and hands it back.
    ///
    /// Panics if the name is already registered: names are constants, so that is a mistake in the program.
    pub fn register<M: Collector + Clone + 'static>(&self, metric: M) -> M {
        self.0.register(Box::new(metric.clone())).expect("metric names are unique constants");
        metric
    }

    /// All metrics in the Prometheus text format, version 0.0.4.
    pub fn render(&self) -> String {
        TextEncoder::new().encode_to_string(&self.0.gather()).unwrap_or_default()
    }
}
