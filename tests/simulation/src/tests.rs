//! Some thousand seeds, the same ones each time unless told otherwise, and the proof that they can fail.

use crate::planted::Planted;
use crate::story::Options;
use crate::{seeds, story};

/// Seeds that `./test` runs; `TIDEGATE_SEEDS` asks for another number, `TIDEGATE_FIRST_SEED` for others.
const SEEDS: u64 = 2_000;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

#[test]
fn no_seed_breaks_a_promise() {
    let run = seeds::run(setting("TIDEGATE_FIRST_SEED", 0), setting("TIDEGATE_SEEDS", SEEDS), Options::default());
    let reports: Vec<_> = run.failed.iter().map(|outcome| seeds::report(outcome, Options::default())).collect();
    assert!(reports.is_empty(), "{}\n{}", reports.join("\n"), run.summary());
    assert!(run.sums.landed > 0 && run.sums.deduplicated > 0 && run.sums.dead_lettered > 0, "{}", run.summary());
}

#[test]
fn a_seed_is_the_same_each_time() {
    for seed in 0..40 {
        let options = Options { tells: true, ..Options::default() };
        let (first, second) = (story::run(seed, options), story::run(seed, options));
        let differs = first.told.iter().zip(&second.told).find(|(first, second)| first != second);
        assert_eq!((first.hash, first.steps, differs), (second.hash, second.steps, None), "seed {seed}");
    }
}

/// Each bug is found within a thousand seeds.
#[test]
fn planted_bugs_are_found() {
    for bug in Planted::ALL {
        let run = seeds::run(0, 1_000, Options { planted: Some(bug), ..Options::default() });
        assert!(!run.failed.is_empty(), "{} was not found: {}", bug.name(), run.summary());
    }
}
