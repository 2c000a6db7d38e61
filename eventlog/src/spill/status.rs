//! What the spill tells of itself.

use std::time::Duration;

use super::breaker::BreakerState;
use super::gate::Way;
use super::{SpillLog, Store};
use crate::traced::TracedLog;

/// The spill as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    pub breaker: BreakerState,
    /// Whether appends go into the spill.
    pub is_spilling: bool,
    /// Bytes on disk.
    pub bytes: u64,
    /// Records that the log does not have yet.
    pub records: u64,
    /// Age of the oldest of them.
    pub oldest: Option<Duration>,
    /// Records that were brought to the log since the start, and those that were found there.
    pub drained: u64,
    pub found: u64,
}

impl<L: TracedLog + 'static, S: Store> SpillLog<L, S> {
    /// Also sets the gauges.
    pub fn status(&self) -> Status {
        let inner = &self.inner;
        let now = inner.runtime.clock.now();
        let status = Status {
            breaker: inner.breaker.state(),
            is_spilling: inner.gate.way() != Way::Direct,
            bytes: inner.store.bytes(),
            records: inner.left(),
            oldest: inner.oldest.lock().map(|oldest| now.since(oldest)),
            drained: inner.metrics.drained.get(),
            found: inner.metrics.found.get(),
        };
        inner.metrics.bytes.set(status.bytes as i64);
        inner.metrics.records.set(status.records as i64);
        inner.metrics.oldest_seconds.set(status.oldest.map_or(0, |age| age.as_secs() as i64));
        inner.metrics.breaker.set(match status.breaker {
            BreakerState::Closed => 0,
            BreakerState::HalfOpen => 1,
            BreakerState::Open => 2,
        });
        status
    }
}
