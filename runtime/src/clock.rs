//! Wall-clock time and waiting.
//!
//! Times between crates are [`UnixMicros`]; waiting goes through tokio, whose clock a test can pause. A simulated clock
//! starts at a given instant and moves with tokio's, so one `tokio::time::advance` moves everything. It can also be set
//! to another time, as wall clocks are.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// Microseconds since 1970-01-01T00:00:00Z, without leap seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UnixMicros(pub i64);

impl UnixMicros {
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis * 1_000)
    }

    /// Milliseconds since the epoch, rounded down.
    pub const fn as_millis(self) -> i64 {
        self.0.div_euclid(1_000)
    }

    pub const fn saturating_add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration.as_micros() as i64))
    }

    pub const fn saturating_sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(duration.as_micros() as i64))
    }

    /// Time from `earlier` to `self`; zero if `earlier` is later, as wall clocks may step back.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0).max(0) as u64)
    }
}

/// Source of the current time. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Simulated { start: UnixMicros, origin: Instant, ahead_micros: Arc<AtomicI64> },
}

impl Clock {
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that shows `start` now and then follows tokio's clock.
    pub fn simulated(start: UnixMicros) -> Self {
        Self(Source::Simulated { start, origin: Instant::now(), ahead_micros: Arc::default() })
    }

    pub fn is_simulated(&self) -> bool {
        matches!(self.0, Source::Simulated { .. })
    }

    /// Sets a simulated clock and its clones forward, or back if negative, as an operator or a time server would.
    /// The system's clock is left alone.
    pub fn set_ahead(&self, micros: i64) {
        if let Source::Simulated { ahead_micros, .. } = &self.0 {
            ahead_micros.store(micros, Ordering::Relaxed);
        }
    }

    /// The current wall-clock time. It may step back; use [`Clock::instant`] to measure.
    pub fn now(&self) -> UnixMicros {
        match &self.0 {
            Source::System => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                UnixMicros(since.as_micros() as i64)
            }
            Source::Simulated { start, origin, ahead_micros } => {
                let UnixMicros(shown) = start.saturating_add(origin.elapsed());
                UnixMicros(shown.saturating_add(ahead_micros.load(Ordering::Relaxed)))
            }
        }
    }

    /// A monotonic instant for measuring and deadlines.
    pub fn instant(&self) -> Instant {
        Instant::now()
    }

    /// Waits for a period. For intervals and back-off only; waiting for a state is done on the state.
    pub async fn wait(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn simulated_clock_moves_with_tokio() {
        let clock = Clock::simulated(UnixMicros::from_millis(1_000));
        let before = Instant::now();
        clock.wait(Duration::from_millis(2)).await;
        let moved = clock.now().since(UnixMicros::from_millis(1_000));
        assert!(moved >= Duration::from_millis(2) && moved <= before.elapsed() + Duration::from_millis(1_000));
    }

    #[tokio::test]
    async fn simulated_clock_can_be_set_and_its_clones_follow() {
        let clock = Clock::simulated(UnixMicros::from_millis(1_000));
        clock.clone().set_ahead(-500_000);
        assert!(clock.now() < UnixMicros::from_millis(1_000));
        clock.set_ahead(3_600_000_000);
        assert!(clock.now() >= UnixMicros::from_millis(3_601_000));
    }

    #[test]
    fn millis_round_down_before_the_epoch() {
        assert_eq!(UnixMicros(-1).as_millis(), -1);
    }
}
