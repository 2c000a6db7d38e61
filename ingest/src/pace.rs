//! How much may be under way at once: as many payloads between body and answer, and as many connections before their first
//! answer, as are answered in [`ANSWERED_WITHIN`].
//!
//! In: connections as they are accepted, payloads that were read and unpacked. Out: [`Newcomer`] and [`Seat`], held until
//! the answer. Promise: who finds no seat waits in order, at most as long as a request may be held, and costs no decoding;
//! beyond the bound the listener leaves new connections to the kernel ([`Gate`]), save for a trickle, so that probes and
//! people come through when connections that say nothing fill the bound.
//!
//! Why: with ten times too much load and no such bound, every request takes longer than clients wait, and the time goes to
//! those that have hung up (`bench overload`: a third of the peak goodput was left). A fixed bound would be too small
//! for a fast machine or too large for a busy one, so this one follows the rate of answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use crate::admission::NoRoom;

/// The least patient SDKs give up after three seconds, part of which a request spends before it has a seat.
const ANSWERED_WITHIN: Duration = Duration::from_millis(500);

/// A log that stands still for a moment must not turn away what a quiet server takes anyway.
const SEATS_MIN: usize = 256;
const SEATS_MAX: usize = 16_384;

/// Before the rate is known.
const SEATS_FIRST: usize = 1024;

/// Rates over shorter times are chance.
const MEASURED_OVER: Duration = Duration::from_millis(500);

/// Clones share the seats.
#[derive(Clone, Debug)]
pub(crate) struct Pace(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    seats: Arc<Semaphore>,
    waiting: AtomicUsize,
    newcomers: AtomicUsize,
    newcomers_max: AtomicUsize,
    answered: AtomicU64,
    measured: Mutex<Measured>,
}

#[derive(Debug)]
struct Measured {
    at: Instant,
    answered: u64,
    per_second: f64,
    seats: usize,
}

/// Held from before a payload is decoded until its answer.
#[derive(Debug)]
pub(crate) struct Seat {
    shared: Arc<Shared>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Seat {
    /// The payload has its answer. A seat that is given back otherwise, as the client hung up, is no measure of the pace.
    pub fn answered(self) {
        self.shared.answered.fetch_add(1, Ordering::Relaxed);
    }
}

impl Pace {
    pub fn new(now: Instant) -> Self {
        Self(Arc::new(Shared {
            seats: Arc::new(Semaphore::new(SEATS_FIRST)),
            waiting: AtomicUsize::new(0),
            newcomers: AtomicUsize::new(0),
            newcomers_max: AtomicUsize::new(SEATS_FIRST),
            answered: AtomicU64::new(0),
            measured: Mutex::new(Measured { at: now, answered: 0, per_second: 0.0, seats: SEATS_FIRST }),
        }))
    }

    /// A seat, waiting for one in order.
    pub async fn seat(&self, hold_max: Duration) -> Result<Seat, NoRoom> {
        let shared = self.0.clone();
        let permit = match shared.seats.clone().try_acquire_owned() {
            Ok(permit) => Some(permit),
            Err(_) => {
                let _waiting = Waiting::begin(&shared.waiting);
                timeout(hold_max, shared.seats.clone().acquire_owned()).await.map_err(|_| NoRoom)?.ok()
            }
        };
        Ok(Seat { shared, _permit: permit })
    }

    /// A connection that was accepted.
    pub fn newcomer(&self) -> Newcomer {
        self.0.newcomers.fetch_add(1, Ordering::Relaxed);
        Newcomer { shared: self.0.clone(), is_new: AtomicBool::new(true) }
    }

    /// Whether the bound is reached: payloads wait for a seat, or connections for their first answer.
    pub fn is_pressed(&self) -> bool {
        let shared = &self.0;
        shared.waiting.load(Ordering::Relaxed) > 0
            || shared.newcomers.load(Ordering::Relaxed) >= shared.newcomers_max.load(Ordering::Relaxed)
    }

    /// Measures the rate and moves the bound after it. To be called about every second.
    pub fn follow(&self, now: Instant) {
        let mut measured = self.0.measured.lock();
        let elapsed = now.saturating_duration_since(measured.at);
        if elapsed < MEASURED_OVER {
            return;
        }
        let answered = self.0.answered.load(Ordering::Relaxed);
        let latest = (answered - measured.answered) as f64 / elapsed.as_secs_f64();
        // Half of the past: one slow second is not yet a slower machine.
        measured.per_second = (measured.per_second + latest) / 2.0;
        (measured.at, measured.answered) = (now, answered);
        let wanted = (measured.per_second * ANSWERED_WITHIN.as_secs_f64()).round() as usize;
        let wanted = wanted.clamp(SEATS_MIN, SEATS_MAX);
        self.0.newcomers_max.store(wanted, Ordering::Relaxed);
        if wanted >= measured.seats {
            self.0.seats.add_permits(wanted - measured.seats);
            measured.seats = wanted;
        } else {
            // Those that are taken go when they are given back, by a later call.
            measured.seats -= self.0.seats.forget_permits(measured.seats - wanted);
        }
    }
}

/// Counts one who waits, also when the wait is given up.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection until its first answer.
#[derive(Debug)]
pub(crate) struct Newcomer {
    shared: Arc<Shared>,
    is_new: AtomicBool,
}

impl Newcomer {
    /// It was answered. To be called after every answer.
    pub fn answered(&self) {
        if self.is_new.load(Ordering::Relaxed) && self.is_new.swap(false, Ordering::Relaxed) {
            self.shared.newcomers.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        self.answered();
    }
}

/// Lets new connections in: without a bound while nothing is pressed, else a trickle.
#[derive(Debug)]
pub(crate) struct Gate {
    looked: Instant,
    /// How many may come in at once.
    allowed: f64,
}

/// What accepting this many costs is hardly seen.
const TRICKLE_PER_SECOND: f64 = 200.0;
/// Connections saved up from a pause.
const ALLOWED_MAX: f64 = 64.0;

impl Gate {
    pub fn new(now: Instant) -> Self {
        Self { looked: now, allowed: 0.0 }
    }

    /// Whether one more may come in now.
    pub fn admits(&mut self, pace: &Pace, now: Instant) -> bool {
        if !pace.is_pressed() {
            return true;
        }
        let elapsed = now.saturating_duration_since(self.looked).as_secs_f64();
        self.looked = now;
        self.allowed = (self.allowed + elapsed * TRICKLE_PER_SECOND).min(ALLOWED_MAX);
        let admitted = self.allowed >= 1.0;
        if admitted {
            self.allowed -= 1.0;
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    async fn take(pace: &Pace, count: usize) -> Vec<Seat> {
        let mut seats = Vec::new();
        for _ in 0..count {
            seats.push(pace.seat(LONG).await.unwrap());
        }
        seats
    }

    #[tokio::test]
    async fn beyond_the_bound_payloads_wait_and_are_refused_in_time() {
        let pace = Pace::new(Instant::now());
        let mut seats = take(&pace, SEATS_FIRST).await;
        assert!(!pace.is_pressed());
        assert_eq!(pace.seat(Duration::from_millis(1)).await.map(drop), Err(NoRoom));
        assert!(!pace.is_pressed(), "who was refused waits no more");
        let waiting = tokio::spawn({
            let pace = pace.clone();
            async move { pace.seat(LONG).await.map(drop) }
        });
        while !pace.is_pressed() {
            tokio::task::yield_now().await;
        }
        seats.pop();
        assert_eq!(waiting.await.unwrap(), Ok(()));
        assert!(!pace.is_pressed());
    }

    #[tokio::test]
    async fn bound_follows_the_rate_of_answers() {
        let start = Instant::now();
        let pace = Pace::new(start);
        for second in 1..20 {
            for _ in 0..10 {
                take(&pace, 100).await.into_iter().for_each(Seat::answered);
            }
            pace.follow(start + Duration::from_secs(second));
        }
        assert_eq!(pace.0.measured.lock().seats, 500);
        assert_eq!(pace.0.seats.available_permits(), 500);
    }

    #[tokio::test]
    async fn who_hangs_up_is_no_answer() {
        let start = Instant::now();
        let pace = Pace::new(start);
        drop(take(&pace, 1000).await);
        pace.follow(start + LONG);
        assert_eq!(pace.0.measured.lock().per_second, 0.0);
    }

    #[tokio::test]
    async fn bound_shrinks_by_the_seats_that_are_given_back() {
        let start = Instant::now();
        let pace = Pace::new(start);
        let mut seats = take(&pace, SEATS_FIRST).await;
        pace.follow(start + LONG);
        assert_eq!(pace.0.measured.lock().seats, SEATS_FIRST);
        seats.truncate(SEATS_MIN);
        pace.follow(start + 2 * LONG);
        assert_eq!(pace.0.measured.lock().seats, SEATS_MIN);
        assert_eq!(pace.0.seats.available_permits(), 0);
    }

    #[tokio::test]
    async fn gate_is_open_unless_pressed() {
        let start = Instant::now();
        let pace = Pace::new(start);
        let mut gate = Gate::new(start);
        assert!((0..10_000).all(|_| gate.admits(&pace, start)));
        let _waiting = Waiting::begin(&pace.0.waiting);
        let in_a_second = (0..1000).filter(|ms| gate.admits(&pace, start + Duration::from_millis(*ms))).count();
        assert!((190..=200).contains(&in_a_second), "{in_a_second} came in");
    }

    #[tokio::test]
    async fn newcomers_press_until_they_are_answered_or_leave() {
        let pace = Pace::new(Instant::now());
        let mut newcomers: Vec<_> = (0..SEATS_FIRST).map(|_| pace.newcomer()).collect();
        assert!(pace.is_pressed());
        newcomers[0].answered();
        newcomers[0].answered();
        assert!(!pace.is_pressed());
        newcomers.push(pace.newcomer());
        assert!(pace.is_pressed());
        newcomers.truncate(2);
        assert_eq!(pace.0.newcomers.load(Ordering::Relaxed), 1);
    }
}
