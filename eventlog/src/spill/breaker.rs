//! Whether the log is worth an attempt.
//!
//! Closed: it takes records. Open: it did not, and is left alone for a while, longer after each failure up to
//! [`PAUSE_MAX`], and by chance, so that many processes do not come back at once. Half-open: one record is tried.

use std::time::Duration;

use parking_lot::Mutex;
use runtime::Entropy;

const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// Bounds how late a log that is back is noticed, to one and a half times this.
const PAUSE_MAX: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BreakerState {
    #[default]
    Closed,
    HalfOpen,
    Open,
}

impl BreakerState {
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half-open",
            Self::Open => "open",
        }
    }
}

#[derive(Default)]
pub(super) struct Breaker(Mutex<(BreakerState, u32)>);

impl Breaker {
    pub fn state(&self) -> BreakerState {
        self.0.lock().0
    }

    pub fn open(&self) {
        let mut inner = self.0.lock();
        *inner = (BreakerState::Open, inner.1.saturating_add(1));
    }

    pub fn half_open(&self) {
        self.0.lock().0 = BreakerState::HalfOpen;
    }

    pub fn close(&self) {
        *self.0.lock() = (BreakerState::Closed, 0);
    }

    /// How long to leave the log alone.
    pub fn pause(&self, entropy: &Entropy) -> Duration {
        let failures = self.0.lock().1;
        let doubled = PAUSE_FIRST.saturating_mul(1 << failures.saturating_sub(1).min(10));
        entropy.jitter(doubled.min(PAUSE_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_bound_and_begin_anew_after_success() {
        let (breaker, entropy) = (Breaker::default(), Entropy::seeded(1));
        breaker.open();
        assert!(breaker.pause(&entropy) <= PAUSE_FIRST * 3 / 2);
        (0..100).for_each(|_| breaker.open());
        let long = breaker.pause(&entropy);
        assert!(long >= PAUSE_MAX / 2 && long <= PAUSE_MAX * 3 / 2, "{long:?}");
        breaker.half_open();
        assert_eq!(breaker.state().name(), "half-open");
        breaker.close();
        breaker.open();
        assert!(breaker.pause(&entropy) <= PAUSE_FIRST * 3 / 2);
    }
}
