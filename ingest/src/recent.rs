//! Which contexts were sighted lately, so that repeating sightings can be left out.
//!
//! In: sightings whose batch the log acknowledged. Out: whether another one would tell the indexer anything new.
//! Promise: a sighting is left out only if the attributes that are newest for its context are the same, and the same
//! combination was sighted by the same application, both acknowledged within the refresh interval. Losing this memory
//! (a restart, an eviction) costs repeated sightings, never a lost one. Memory is bounded by the capacity. After contexts
//! were erased nothing that was acknowledged before counts, as it may be gone from the index.
//!
//! Also here: the contexts of unsummarised payloads that lately got an `index` event (event-protocol section 8).

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use hashbrown::HashMap;
use parking_lot::Mutex;
use runtime::UnixMicros;

use crate::rows::U64Hash;

const SHARDS: usize = 16;
/// As the SDKs do it: so many contexts are remembered for an environment, for so long.
const INDEXED_CONTEXTS_MAX: usize = 1_000;
const INDEXED_FOR: Duration = Duration::from_secs(300);

/// Attributes that are not known, and equal to none that are sighted.
const UNKNOWN: u64 = 0;

/// One sighting, as hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighted {
    /// `events::context::context_hash`.
    pub context: u64,
    /// Hash of the context, the combination it was evaluated in and the application.
    pub place: u64,
    /// Hash of the attributes; 0 where only a key was sent.
    pub content: u64,
    pub seen_at: UnixMicros,
}

/// Contexts sighted lately. One for all lanes of a process.
#[derive(Debug)]
pub struct RecentContexts {
    refresh: Duration,
    /// What was acknowledged before leaves nothing out. Microseconds.
    trusted_from: AtomicI64,
    shards: Box<[Mutex<Generations>]>,
    indexed: Mutex<HashMap<u64, HashMap<u64, UnixMicros, U64Hash>, U64Hash>>,
}

#[derive(Clone, Copy, Debug)]
enum Known {
    /// A context: its newest attributes, and when they were seen.
    Content { content: u64, seen_at: UnixMicros },
    /// A place: when its sighting was acknowledged.
    Place { acknowledged_at: UnixMicros },
}

/// Two maps that take turns: when the young one is full it becomes the old one, and the old one is forgotten.
#[derive(Debug)]
struct Generations {
    young: HashMap<u64, Known, U64Hash>,
    old: HashMap<u64, Known, U64Hash>,
    capacity: usize,
}

impl Generations {
    fn get(&self, key: u64) -> Option<Known> {
        self.young.get(&key).or_else(|| self.old.get(&key)).copied()
    }

    fn put(&mut self, key: u64, known: Known) {
        if self.young.len() >= self.capacity && !self.young.contains_key(&key) {
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
        self.young.insert(key, known);
    }
}

impl RecentContexts {
    /// Remembers about `capacity` contexts (some 100 bytes each) and repeats a sighting after `refresh`.
    pub fn new(capacity: usize, refresh: Duration) -> Self {
        // Each context takes an entry for its attributes and one for its place.
        let capacity = (capacity * 2 / SHARDS / 2).max(1);
        let shard = |_| Mutex::new(Generations { young: HashMap::default(), old: HashMap::default(), capacity });
        let trusted_from = AtomicI64::new(i64::MIN);
        Self { refresh, trusted_from, shards: (0..SHARDS).map(shard).collect(), indexed: Mutex::default() }
    }

    fn shard(&self, key: u64) -> &Mutex<Generations> {
        &self.shards[(key >> 32) as usize % SHARDS]
    }

    fn get(&self, key: u64) -> Option<Known> {
        self.shard(key).lock().get(key)
    }

    /// From now on only what is acknowledged at `from` or later leaves anything out.
    pub fn trust_from(&self, from: UnixMicros) {
        self.trusted_from.fetch_max(from.0, Ordering::Relaxed);
    }

    /// Whether a sighting would repeat an acknowledged one.
    pub fn suppresses(&self, sighted: &Sighted, now: UnixMicros) -> bool {
        let Some(Known::Place { acknowledged_at }) = self.get(sighted.place) else {
            return false;
        };
        // A clock that stepped back makes the age zero; the refresh is then late by the step.
        now.since(acknowledged_at) < self.refresh
            && acknowledged_at.0 >= self.trusted_from.load(Ordering::Relaxed)
            && (sighted.content == 0
                || matches!(self.get(sighted.context), Some(Known::Content { content, .. }) if content == sighted.content))
    }

    /// A sighting is on its way to the log. Whether it arrives is not known before it is acknowledged, and perhaps never:
    /// until then nothing that was known of its context before may leave a later sighting out.
    pub fn expect(&self, sighted: &Sighted) {
        if sighted.content == 0 {
            return;
        }
        let mut shard = self.shard(sighted.context).lock();
        let stays = match shard.get(sighted.context) {
            Some(Known::Content { content, seen_at }) => content == sighted.content || seen_at > sighted.seen_at,
            _ => false,
        };
        if !stays {
            shard.put(sighted.context, Known::Content { content: UNKNOWN, seen_at: sighted.seen_at });
        }
    }

    /// Remembers sightings whose batch is durable.
    pub fn acknowledge(&self, sighted: &[Sighted], now: UnixMicros) {
        for one in sighted {
            self.shard(one.place).lock().put(one.place, Known::Place { acknowledged_at: now });
            if one.content == 0 {
                continue;
            }
            let mut shard = self.shard(one.context).lock();
            // Batches are acknowledged in any order; the index keeps what was seen last, and so must this.
            if !matches!(shard.get(one.context), Some(Known::Content { seen_at, .. }) if seen_at > one.seen_at) {
                shard.put(one.context, Known::Content { content: one.content, seen_at: one.seen_at });
            }
        }
    }

    /// Whether an unsummarised payload's context was not indexed lately; it counts as indexed from now on.
    ///
    /// Not undone if the payload is refused later: an `index` event is a hint, the sighting is what counts.
    pub fn first_indexed(&self, environment_hash: u64, context: u64, now: UnixMicros) -> bool {
        let mut indexed = self.indexed.lock();
        let contexts = indexed.entry(environment_hash).or_default();
        let first = contexts.get(&context).is_none_or(|at| now.since(*at) >= INDEXED_FOR);
        if first {
            if contexts.len() >= INDEXED_CONTEXTS_MAX {
                contexts.retain(|_, at| now.since(*at) < INDEXED_FOR);
            }
            if contexts.len() >= INDEXED_CONTEXTS_MAX {
                // All are young: forget the oldest half, so that this is rare.
                let mut times: Vec<_> = contexts.values().copied().collect();
                let middle = times.len() / 2;
                let median = *times.select_nth_unstable(middle).1;
                let mut spare = middle;
                contexts.retain(|_, at| {
                    let old = *at <= median && spare > 0;
                    spare -= usize::from(old);
                    !old
                });
            }
            contexts.insert(context, now);
        }
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMicros = UnixMicros::from_millis(1_000_000);

    fn after(seconds: u64) -> UnixMicros {
        NOW.saturating_add(Duration::from_secs(seconds))
    }

    fn sighted(content: u64, seen_at: UnixMicros) -> Sighted {
        Sighted { context: 1 << 33, place: 1 << 34, content, seen_at }
    }

    fn recent() -> RecentContexts {
        RecentContexts::new(1_000, Duration::from_secs(60))
    }

    #[test]
    fn only_acknowledged_and_fresh_sightings_suppress() {
        let recent = recent();
        assert!(!recent.suppresses(&sighted(7, NOW), NOW));
        recent.acknowledge(&[sighted(7, NOW)], NOW);
        assert!(recent.suppresses(&sighted(7, after(59)), after(59)));
        assert!(!recent.suppresses(&sighted(7, after(60)), after(60)));
        assert!(!recent.suppresses(&sighted(8, NOW), NOW));
        assert!(recent.suppresses(&sighted(0, NOW), NOW), "a key alone says nothing new");
        let elsewhere = Sighted { place: 5 << 34, ..sighted(7, NOW) };
        assert!(!recent.suppresses(&elsewhere, NOW));
    }

    #[test]
    fn attributes_that_came_back_are_sighted_again() {
        let recent = recent();
        recent.acknowledge(&[sighted(7, NOW), sighted(8, after(1))], after(1));
        assert!(!recent.suppresses(&sighted(7, after(2)), after(2)));
    }

    #[test]
    fn attributes_come_back_while_others_are_on_their_way() {
        let recent = recent();
        recent.acknowledge(&[sighted(7, NOW)], NOW);
        recent.expect(&sighted(8, after(1)));
        assert!(!recent.suppresses(&sighted(7, after(2)), after(2)), "8 may be in the log, acknowledged or not");
        recent.acknowledge(&[sighted(7, NOW)], after(2));
        assert!(!recent.suppresses(&sighted(7, after(2)), after(2)), "and is newer than this 7");
        recent.expect(&sighted(7, after(2)));
        recent.acknowledge(&[sighted(7, after(2))], after(2));
        assert!(recent.suppresses(&sighted(7, after(3)), after(3)));
    }

    #[test]
    fn late_acknowledgement_of_older_attributes_changes_nothing() {
        let recent = recent();
        recent.acknowledge(&[sighted(8, after(1))], after(1));
        recent.acknowledge(&[sighted(7, NOW)], after(1));
        assert!(!recent.suppresses(&sighted(7, after(2)), after(2)));
        assert!(recent.suppresses(&sighted(8, after(2)), after(2)));
    }

    #[test]
    fn nothing_is_left_out_for_what_may_be_erased() {
        let recent = recent();
        recent.acknowledge(&[sighted(7, NOW)], NOW);
        recent.trust_from(after(10));
        recent.trust_from(after(5));
        for content in [7, 0] {
            assert!(!recent.suppresses(&sighted(content, after(11)), after(11)));
        }
        recent.acknowledge(&[sighted(7, after(9))], after(9));
        assert!(!recent.suppresses(&sighted(7, after(11)), after(11)));
        recent.acknowledge(&[sighted(7, after(11))], after(11));
        assert!(recent.suppresses(&sighted(7, after(12)), after(12)));
    }

    #[test]
    fn memory_is_bounded() {
        let recent = recent();
        for number in 0..100_000_u64 {
            let hash = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            recent.acknowledge(&[Sighted { context: hash, place: !hash, content: 1, seen_at: NOW }], NOW);
        }
        let held_by = |shard: &Generations| shard.young.len() + shard.old.len();
        let held: usize = recent.shards.iter().map(|shard| held_by(&shard.lock())).sum();
        assert!(held <= 2_000 + SHARDS, "{held}");
    }

    #[test]
    fn contexts_are_indexed_once_in_five_minutes() {
        let recent = recent();
        assert!(recent.first_indexed(1, 42, NOW));
        assert!(!recent.first_indexed(1, 42, after(299)));
        assert!(recent.first_indexed(2, 42, NOW), "environments do not share");
        assert!(recent.first_indexed(1, 42, after(300)));
        for context in 0..5_000 {
            assert!(recent.first_indexed(3, context, NOW));
        }
        assert!(!recent.first_indexed(3, 4_999, NOW));
        assert!(recent.indexed.lock()[&3].len() <= INDEXED_CONTEXTS_MAX);
    }
}
