//! Remembers which payloads were seen, so that one that a client sent twice lands once.
//!
//! One window per partition, in log order: ingest sends a repeated payload to the partition of its twin. The key is
//! (environment, payload id); a payload without an id is always new. Time is when the log took the record.
//! Promise: an entry stays at least the configured time unless the bound on entries is reached; then the oldest slice
//! goes early and is counted. The window is derived state: `consume` rebuilds it from the index of the log's frames.
//!
//! Entries lie in slices of time and a slice is forgotten as a whole, so an entry costs 12 bytes of fingerprint and no
//! time stamp, list or id. 96 bits: at 24 million entries a wrong match has odds of 3 in 10^22 per payload.

use std::collections::VecDeque;

use eventlog::frame::PayloadIndex;
use hashbrown::HashSet;
use runtime::UnixMicros;
use std::time::Duration;
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// Part of the window that is forgotten at once.
const SLICES: u32 = 8;

type Fingerprint = [u32; 3];

#[derive(Default)]
struct Slice {
    /// Times of the first and the last entry.
    begin: UnixMicros,
    end: UnixMicros,
    seen: HashSet<Fingerprint>,
}

/// Payload ids of one partition.
pub(crate) struct DedupWindow {
    window: Duration,
    entries_max: usize,
    entries: usize,
    slices: VecDeque<Slice>,
    evicted_early: u64,
}

impl DedupWindow {
    pub fn new(window: Duration, entries_max: usize) -> Self {
        Self {
            window,
            entries_max: entries_max.max(SLICES as usize),
            entries: 0,
            slices: VecDeque::new(),
            evicted_early: 0,
        }
    }

    /// Notes a payload of a record that the log took at `at`; false if it was seen before.
    pub fn insert(&mut self, payload: &PayloadIndex, at: UnixMicros) -> bool {
        let Some(id) = &payload.payload_id else { return true };
        let fingerprint = fingerprint(payload.environment_hash, id);
        self.forget(at);
        if self.slices.iter().any(|slice| slice.seen.contains(&fingerprint)) {
            return false;
        }
        let slice_time = self.window / SLICES;
        let slice_entries = self.entries_max / SLICES as usize;
        let full = |slice: &Slice| at.since(slice.begin) >= slice_time || slice.seen.len() >= slice_entries;
        if self.slices.back().is_none_or(full) {
            self.slices.push_back(Slice { begin: at, end: at, seen: HashSet::new() });
        }
        let slice = self.slices.back_mut().expect("pushed above");
        slice.end = slice.end.max(at);
        slice.seen.insert(fingerprint);
        self.entries += 1;
        true
    }

    /// Forgets everything, and what it took.
    pub fn clear(&mut self) {
        self.slices = VecDeque::new();
        self.entries = 0;
    }

    /// Entries forgotten before their time since this was last asked.
    pub fn take_evicted_early(&mut self) -> u64 {
        std::mem::take(&mut self.evicted_early)
    }

    fn forget(&mut self, now: UnixMicros) {
        while let Some(slice) = self.slices.front() {
            let old = now.since(slice.end) > self.window;
            if !old && self.entries < self.entries_max {
                break;
            }
            if !old {
                self.evicted_early += slice.seen.len() as u64;
            }
            self.entries -= slice.seen.len();
            self.slices.pop_front();
        }
    }
}

fn fingerprint(environment_hash: u64, id: &str) -> Fingerprint {
    let hash = xxh3_128_with_seed(id.as_bytes(), environment_hash);
    [hash as u32, (hash >> 32) as u32, (hash >> 64) as u32]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(environment_hash: u64, id: &str) -> PayloadIndex {
        PayloadIndex { environment_hash, rows: 1, payload_id: (!id.is_empty()).then(|| id.into()) }
    }

    fn at(secs: i64) -> UnixMicros {
        UnixMicros(secs * 1_000_000)
    }

    #[test]
    fn repeated_payload_is_known_until_the_window_ends() {
        let mut window = DedupWindow::new(Duration::from_secs(600), 1_000);
        assert!(window.insert(&payload(1, "a"), at(0)));
        assert!(!window.insert(&payload(1, "a"), at(600)));
        assert!(window.insert(&payload(1, "a"), at(700)), "forgotten with its slice");
    }

    #[test]
    fn environments_and_missing_ids_stay_apart() {
        let mut window = DedupWindow::new(Duration::from_secs(600), 1_000);
        assert!(window.insert(&payload(1, "a"), at(0)));
        assert!(window.insert(&payload(2, "a"), at(0)));
        assert!(window.insert(&payload(1, ""), at(0)) && window.insert(&payload(1, ""), at(0)));
    }

    #[test]
    fn bound_on_entries_holds_and_is_counted() {
        let mut window = DedupWindow::new(Duration::from_secs(600), 80);
        for number in 0..1_000 {
            assert!(window.insert(&payload(1, &number.to_string()), at(number / 100)));
            assert!(window.entries <= 80 && window.slices.len() <= 9);
        }
        assert!(window.take_evicted_early() >= 900);
        assert!(!window.insert(&payload(1, "999"), at(10)), "the newest are kept");
        assert_eq!(window.entries, window.slices.iter().map(|slice| slice.seen.len()).sum::<usize>());
    }

    #[test]
    fn clock_that_steps_back_forgets_nothing() {
        let mut window = DedupWindow::new(Duration::from_secs(600), 1_000);
        window.insert(&payload(1, "a"), at(10_000));
        window.insert(&payload(1, "b"), at(5));
        assert!(!window.insert(&payload(1, "a"), at(5)));
        assert!(!window.insert(&payload(1, "b"), at(10_000)));
    }
}
