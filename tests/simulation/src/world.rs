//! What all of one seed's world shares: its chance, its time, its faults, its trace and what was found wrong.
//!
//! Chance is drawn here in the order in which things happen, which the single thread and the paused clock make the same
//! in every run of a seed. The trace is a hash over every request and its fate: two runs that differ anywhere differ in it.

use std::fmt::{Arguments, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rand::distr::uniform::{SampleRange, SampleUniform};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use runtime::{Clock, UnixMicros};
use tokio::time::{Instant, sleep};

use crate::plan::Plan;
use crate::planted::Planted;

/// 2026-11-22T10:00:00Z
pub const START: UnixMicros = UnixMicros(1_795_341_600_000_000);

/// Effects of requests whose caller has given up come within this time.
pub const LATE_MAX: Duration = Duration::from_secs(60);

/// What becomes of one request that changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Done,
    /// Nothing happens, and the caller hears of an error.
    Refused,
    /// It happens, and the caller hears of an error.
    AnswerLost,
    /// The caller hears of an error, and it happens this much later.
    Late(Duration),
    /// A part of it happens, and the caller hears of an error.
    Torn,
}

/// Who is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    Store,
    Log,
}

pub struct World {
    pub plan: Plan,
    pub planted: Option<Planted>,
    /// The true time.
    pub clock: Clock,
    /// Everybody has stopped doing harm: requests succeed.
    calm: AtomicBool,
    chance: Mutex<StdRng>,
    away_until: [Mutex<Option<Instant>>; 2],
    trace: Mutex<Trace>,
    violations: Mutex<Vec<String>>,
    /// Requests whose effect may still come.
    under_way: AtomicUsize,
}

struct Trace {
    hash: u64,
    steps: u64,
    line: String,
    told: Option<Vec<String>>,
}

impl World {
    /// `tells`: whether every step is kept as text.
    pub fn new(plan: Plan, planted: Option<Planted>, tells: bool) -> Arc<Self> {
        // Not the stream that the plan was drawn from.
        let chance = Mutex::new(StdRng::seed_from_u64(plan.seed ^ 0x5851_f42d_4c95_7f2d));
        let told = tells.then(Vec::new);
        Arc::new(Self {
            plan,
            planted,
            clock: Clock::simulated(START),
            calm: AtomicBool::new(false),
            chance,
            away_until: Default::default(),
            trace: Mutex::new(Trace { hash: 0xcbf2_9ce4_8422_2325, steps: 0, line: String::new(), told }),
            violations: Mutex::default(),
            under_way: AtomicUsize::new(0),
        })
    }

    pub fn happens(&self, probability: f64) -> bool {
        self.chance.lock().random_bool(probability)
    }

    pub fn among<T: SampleUniform, R: SampleRange<T>>(&self, range: R) -> T {
        self.chance.lock().random_range(range)
    }

    pub fn millis(&self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.among(range))
    }

    pub fn is_planted(&self, bug: Planted) -> bool {
        self.planted == Some(bug)
    }

    /// From now on nothing fails.
    pub fn calm_down(&self) {
        self.calm.store(true, Ordering::Relaxed);
        self.note(format_args!("calm"));
    }

    pub fn is_calm(&self) -> bool {
        self.calm.load(Ordering::Relaxed)
    }

    pub fn take_away(&self, service: Service, length: Duration) {
        *self.away_until[service as usize].lock() = Some(Instant::now() + length);
    }

    fn is_away(&self, service: Service) -> bool {
        self.away_until[service as usize].lock().is_some_and(|until| Instant::now() < until)
    }

    fn rate(&self, service: Service) -> f64 {
        match service {
            Service::Store => self.plan.rates.store,
            Service::Log => self.plan.rates.log,
        }
    }

    /// Whether a request that changes nothing fails.
    pub fn read_fails(&self, service: Service) -> bool {
        !self.is_calm() && (self.is_away(service) || self.happens(self.rate(service) / 2.0))
    }

    pub fn fate(&self, service: Service) -> Fate {
        if self.is_calm() {
            return Fate::Done;
        }
        if self.is_away(service) {
            return Fate::Refused;
        }
        if !self.happens(self.rate(service)) {
            return Fate::Done;
        }
        match self.among(0..8) {
            0..=1 => Fate::Refused,
            2..=4 => Fate::AnswerLost,
            5..=6 => Fate::Late(self.millis(1..LATE_MAX.as_millis() as u64)),
            _ => Fate::Torn,
        }
    }

    /// Time that a request spends on one half of its way.
    pub fn latency(&self) -> Duration {
        if !self.is_calm() && self.happens(self.plan.rates.slow) {
            return self.millis(100..20_000);
        }
        self.millis(0..4)
    }

    /// Waits as long as a request spends on one half of its way.
    pub async fn travel(&self) {
        let latency = self.latency();
        if !latency.is_zero() {
            sleep(latency).await;
        }
    }

    /// Sends a request: what it does is done even if the caller is gone by then.
    pub async fn send<T: Send + 'static>(
        self: &Arc<Self>,
        delay: Duration,
        effect: impl Future<Output = T> + Send + 'static,
    ) -> T {
        let world = Arc::clone(self);
        world.under_way.fetch_add(1, Ordering::Relaxed);
        let sent = tokio::spawn(async move {
            sleep(delay).await;
            let answer = effect.await;
            world.under_way.fetch_sub(1, Ordering::Relaxed);
            world.travel().await;
            answer
        });
        sent.await.expect("effects do not panic")
    }

    /// As [`Self::send`], for a caller who does not wait.
    pub fn send_unawaited(self: &Arc<Self>, delay: Duration, effect: impl Future<Output: Send> + Send + 'static) {
        let world = Arc::clone(self);
        world.under_way.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            sleep(delay).await;
            effect.await;
            world.under_way.fetch_sub(1, Ordering::Relaxed);
        });
    }

    pub fn is_anything_under_way(&self) -> bool {
        self.under_way.load(Ordering::Relaxed) > 0
    }

    /// Adds a step to the trace.
    pub fn note(&self, step: Arguments<'_>) {
        let UnixMicros(now) = self.clock.now();
        let mut trace = self.trace.lock();
        let mut line = std::mem::take(&mut trace.line);
        line.clear();
        let seconds = (now - START.0) as f64 / 1e6;
        write!(line, "{seconds:.3} {step}").expect("writing to a string does not fail");
        for byte in line.bytes() {
            trace.hash = (trace.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        trace.steps += 1;
        if let Some(told) = &mut trace.told {
            told.push(line.clone());
        }
        trace.line = line;
    }

    /// A promise was broken.
    pub fn violated(&self, what: String) {
        self.note(format_args!("VIOLATED: {what}"));
        let mut violations = self.violations.lock();
        // One broken promise breaks others; the first few tell enough.
        if violations.len() < 20 {
            violations.push(what);
        }
    }

    pub fn violations(&self) -> Vec<String> {
        self.violations.lock().clone()
    }

    /// Hash and number of all steps so far.
    pub fn trace(&self) -> (u64, u64) {
        let trace = self.trace.lock();
        (trace.hash, trace.steps)
    }

    pub fn told(&self) -> Vec<String> {
        self.trace.lock().told.clone().unwrap_or_default()
    }
}
