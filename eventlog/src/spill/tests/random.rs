//! Seeds decide what the log does to each append, when it is away and when the process dies. Whatever they decide: what was
//! acknowledged is in the log exactly once, and what was not at most once.

use std::collections::HashMap;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

const SEEDS: u64 = 300;
const WRITERS: usize = 3;
/// What is sent takes effect within this time, whoever has given up on it.
const EFFECT_MAX_MILLIS: u64 = 9_000;

struct Chance(Mutex<StdRng>);

impl Chance {
    fn millis(&self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.0.lock().random_range(range))
    }

    fn happens(&self, probability: f64) -> bool {
        self.0.lock().random_bool(probability)
    }

    fn act(&self, badness: f64) -> Act {
        if !self.happens(badness) {
            return Act::Store;
        }
        let sort = self.0.lock().random_range(0..6);
        match sort {
            0 => Act::Backlogged,
            1 => Act::Absent(self.millis(0..8_000)),
            number => {
                let stored = self.happens(0.6).then(|| self.millis(0..EFFECT_MAX_MILLIS));
                Act::Late { stored, told: self.millis(0..8_000), knows: number > 3 && stored.is_some() }
            }
        }
    }
}

/// Appends until the process ends; notes what was acknowledged.
async fn write(process: Arc<Process>, chance: Arc<Chance>, next: Arc<Mutex<u32>>, stored: Arc<Mutex<Vec<u32>>>) {
    loop {
        process.inner.runtime.clock.wait(chance.millis(0..1_500)).await;
        let count = chance.0.lock().random_range(1..4);
        let numbers: Vec<u32> = (0..count)
            .map(|_| {
                let mut next = next.lock();
                *next += 1;
                *next
            })
            .collect();
        let place = |_: &u32| ALL[chance.0.lock().random_range(0..ALL.len())];
        let records = numbers.iter().map(|number| record(place(number), *number)).collect();
        if process.append(records).await.is_ok() {
            stored.lock().extend(numbers);
        }
    }
}

async fn run(seed: u64) {
    let world = World::new(seed);
    let chance = Arc::new(Chance(Mutex::new(StdRng::seed_from_u64(seed))));
    let (next, stored) = (Arc::<Mutex<u32>>::default(), Arc::<Mutex<Vec<u32>>>::default());
    let lives = chance.0.lock().random_range(1..5);
    for _ in 0..lives {
        let badness = [0.02, 0.3, 0.8][chance.0.lock().random_range(0..3)];
        let acts = chance.clone();
        world.log.choose(move || acts.act(badness));
        let process = world.start().await;
        let writers: Vec<_> = (0..WRITERS)
            .map(|_| tokio::spawn(write(process.clone(), chance.clone(), next.clone(), stored.clone())))
            .collect();
        let weathers = chance.0.lock().random_range(1..6);
        for _ in 0..weathers {
            world.log.set_away(chance.happens(0.4));
            world.store.is_full.store(chance.happens(0.1), Ordering::Relaxed);
            world.runtime.clock.wait(chance.millis(0..20_000)).await;
        }
        writers.iter().for_each(tokio::task::JoinHandle::abort);
        for writer in writers {
            let _ = writer.await;
        }
        if chance.happens(0.2) {
            process.stop(chance.millis(0..2_000)).await;
        }
        drop(process);
    }
    world.log.choose(|| Act::Store);
    world.log.set_away(false);
    world.store.is_full.store(false, Ordering::Relaxed);
    let process = world.start().await;
    drained(&process).await;
    world.runtime.clock.wait(Duration::from_millis(EFFECT_MAX_MILLIS)).await;
    let mut counts: HashMap<u32, usize> = HashMap::new();
    world.numbers().into_iter().for_each(|number| *counts.entry(number).or_default() += 1);
    let doubled: Vec<_> = counts.iter().filter(|(_, count)| **count > 1).collect();
    assert!(doubled.is_empty(), "seed {seed}: doubled {doubled:?}");
    let lost: Vec<_> = stored.lock().iter().filter(|number| !counts.contains_key(number)).copied().collect();
    assert!(lost.is_empty(), "seed {seed}: lost {lost:?}");
    assert_eq!(process.inner.doubts.len(), 0, "seed {seed}");
}

#[tokio::test(start_paused = true)]
async fn acknowledged_records_are_in_the_log_exactly_once() {
    for seed in 0..SEEDS {
        run(seed).await;
    }
}
