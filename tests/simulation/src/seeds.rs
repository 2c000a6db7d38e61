//! Many seeds, one after the other on each core. A seed has its thread and everything in it for itself.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::oracle::Sums;
use crate::story::{self, Options, Outcome};

/// Failing seeds that are collected before a run ends early.
const FAILURES_MAX: usize = 5;

/// What a number of seeds came to.
#[derive(Default)]
pub struct Run {
    pub seeds: u64,
    pub steps: u64,
    pub sums: Sums,
    /// In the order of their seeds.
    pub failed: Vec<Outcome>,
    pub took: Duration,
}

impl Run {
    pub fn summary(&self) -> String {
        let Sums { payloads, acknowledged, landed, dead_lettered, deduplicated, commits } = self.sums;
        let Self { seeds, steps, took, .. } = self;
        format!(
            "{seeds} seeds, {} failed, {:.1} s; {steps} steps, {commits} commits; {payloads} payloads, {acknowledged} \
             acknowledged; rows: {landed} landed, {deduplicated} de-duplicated, {dead_lettered} dead-lettered",
            self.failed.len(),
            took.as_secs_f64()
        )
    }
}

/// Runs `count` seeds from `first` on. With a planted bug, ends when it is found.
pub fn run(first: u64, count: u64, options: Options) -> Run {
    let began = Instant::now();
    let next = AtomicU64::new(first);
    let enough = AtomicBool::new(false);
    let run = Mutex::new(Run::default());
    let work = || {
        while !enough.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + count {
                return;
            }
            let outcome = story::run(seed, options);
            let mut run = run.lock();
            run.seeds += 1;
            run.steps += outcome.steps;
            run.sums.add(&outcome.sums);
            if !outcome.violations.is_empty() {
                run.failed.push(outcome);
                enough.fetch_or(options.planted.is_some() || run.failed.len() >= FAILURES_MAX, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let mut run = run.into_inner();
    run.failed.sort_by_key(|outcome| outcome.seed);
    run.took = began.elapsed();
    run
}

/// What failed, and how to see it again.
pub fn report(outcome: &Outcome, options: Options) -> String {
    let seed = outcome.seed;
    let plant = options.planted.map(|bug| format!(" --plant {}", bug.name())).unwrap_or_default();
    let strict = if options.strict_contexts { " --strict-contexts" } else { "" };
    let mut text =
        format!("seed {seed} failed; again with: cargo run -p simulation -- --seed {seed} --tell{plant}{strict}");
    for what in &outcome.violations {
        text.push_str(&format!("\n  {what}"));
    }
    text
}
