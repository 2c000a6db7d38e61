//! Which payload ids are stored or being stored: event protocol, section 9.4.
//!
//! In: (environment, payload id) of a body that was read. Out: a [`Claim`] to store it, or what became of its twin.
//! Promises: an id counts as stored only after the log said so, and if that fails the next try is stored; of twins that
//! come at once one is stored and all get its answer; memory is bounded by the number of ids.
//! This window is an economy, not the authority: after a restart, or with several processes, the compactor drops what
//! comes twice.

use std::sync::Arc;
use std::time::Duration;

use hashbrown::{HashMap, HashSet};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;
use xxhash_rust::xxh3::Xxh3;

use crate::answer::Answer;
use crate::rows::U64Hash;

const SHARDS: usize = 16;

/// Twins of one payload that may wait for it. Clients repeat at most four times.
const WAITING_MAX: usize = 64;

/// What became of a payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Stored,
    /// Unreadable and kept as a dead letter; the answer that explains it.
    Refused(Arc<Answer>),
    /// Not stored; the next try may be.
    Failed,
}

/// What to do with a payload.
#[derive(Debug)]
pub(crate) enum Entry {
    /// Never seen: store it and settle the claim.
    New(Claim),
    /// Its twin ended so.
    Known(Verdict),
    /// Its twin is under way.
    Waiting(oneshot::Receiver<Verdict>),
}

/// Payload ids of the last while. One for all lanes of a process.
#[derive(Debug)]
pub(crate) struct Repeats {
    shards: [Mutex<Shard>; SHARDS],
    /// Secret of this process, so that nobody can make ids that meet.
    seed: u64,
    window: Duration,
    generation_max: usize,
}

#[derive(Debug)]
struct Shard {
    in_flight: HashMap<Key, Vec<oneshot::Sender<Verdict>>, U64Hash>,
    young: Generation,
    old: Generation,
}

/// Ids that ended in the same stretch of time, forgotten together.
#[derive(Debug)]
struct Generation {
    begun: Instant,
    stored: HashSet<Key, U64Hash>,
    refused: HashMap<Key, Arc<Answer>, U64Hash>,
}

/// 128 bits of hash stand for environment and id: with a million ids in the window, one wrong match is expected in
/// 10^32 payloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key(u128);

impl std::hash::Hash for Key {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write_u64(self.0 as u64);
    }
}

impl Repeats {
    pub fn new(window: Duration, payloads_max: usize, seed: u64) -> Self {
        let now = Instant::now();
        let shard = || {
            Mutex::new(Shard { in_flight: HashMap::default(), young: Generation::new(now), old: Generation::new(now) })
        };
        let generation_max = (payloads_max / SHARDS / 2).max(1);
        Self { shards: std::array::from_fn(|_| shard()), seed, window, generation_max }
    }

    /// Claims an id, or says what became of the payload that had it before.
    pub fn enter(self: &Arc<Self>, environment_hash: u64, payload_id: &str) -> Entry {
        let key = self.key(environment_hash, payload_id);
        let mut shard = self.shard(key).lock();
        if let Some(verdict) = shard.young.get(key).or_else(|| shard.old.get(key)) {
            return Entry::Known(verdict);
        }
        let Some(waiting) = shard.in_flight.get_mut(&key) else {
            shard.in_flight.insert(key, Vec::new());
            return Entry::New(Claim { repeats: Some(self.clone()), key });
        };
        if waiting.len() >= WAITING_MAX {
            return Entry::Known(Verdict::Failed);
        }
        let (sender, receiver) = oneshot::channel();
        waiting.push(sender);
        Entry::Waiting(receiver)
    }

    fn key(&self, environment_hash: u64, payload_id: &str) -> Key {
        let mut hasher = Xxh3::with_seed(self.seed);
        hasher.update(&environment_hash.to_le_bytes());
        hasher.update(payload_id.as_bytes());
        Key(hasher.digest128())
    }

    fn shard(&self, key: Key) -> &Mutex<Shard> {
        &self.shards[(key.0 >> 64) as usize % SHARDS]
    }

    fn settle(&self, key: Key, verdict: &Verdict) {
        let mut shard = self.shard(key).lock();
        let waiting = shard.in_flight.remove(&key).unwrap_or_default();
        if *verdict != Verdict::Failed {
            shard.remember(key, verdict, self.window, self.generation_max);
        }
        drop(shard);
        for sender in waiting {
            // A twin whose client has gone does not wait any more.
            let _ = sender.send(verdict.clone());
        }
    }
}

impl Shard {
    fn remember(&mut self, key: Key, verdict: &Verdict, window: Duration, generation_max: usize) {
        let now = Instant::now();
        if self.young.len() >= generation_max || now.duration_since(self.young.begun) >= window {
            self.old = std::mem::replace(&mut self.young, Generation::new(now));
        }
        match verdict {
            Verdict::Stored => drop(self.young.stored.insert(key)),
            Verdict::Refused(answer) => drop(self.young.refused.insert(key, answer.clone())),
            Verdict::Failed => {}
        }
    }
}

impl Generation {
    fn new(begun: Instant) -> Self {
        Self { begun, stored: HashSet::default(), refused: HashMap::default() }
    }

    fn len(&self) -> usize {
        self.stored.len() + self.refused.len()
    }

    fn get(&self, key: Key) -> Option<Verdict> {
        if self.stored.contains(&key) {
            return Some(Verdict::Stored);
        }
        if self.refused.is_empty() {
            return None;
        }
        self.refused.get(&key).cloned().map(Verdict::Refused)
    }
}

/// The duty to store a payload and to say how it went. Dropping it says that it failed.
#[derive(Debug)]
pub(crate) struct Claim {
    repeats: Option<Arc<Repeats>>,
    key: Key,
}

impl Claim {
    pub fn settle(mut self, verdict: &Verdict) {
        if let Some(repeats) = self.repeats.take() {
            repeats.settle(self.key, verdict);
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(repeats) = self.repeats.take() {
            repeats.settle(self.key, &Verdict::Failed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(600);

    fn repeats(payloads_max: usize) -> Arc<Repeats> {
        Arc::new(Repeats::new(WINDOW, payloads_max, 7))
    }

    fn claim(repeats: &Arc<Repeats>, id: &str) -> Claim {
        match repeats.enter(1, id) {
            Entry::New(claim) => claim,
            other => panic!("{id} is not new: {other:?}"),
        }
    }

    #[test]
    fn stored_id_is_known_in_its_environment_only() {
        let repeats = repeats(1_000);
        claim(&repeats, "a").settle(&Verdict::Stored);
        assert!(matches!(repeats.enter(1, "a"), Entry::Known(Verdict::Stored)));
        assert!(matches!(repeats.enter(2, "a"), Entry::New(_)));
    }

    #[test]
    fn failed_id_may_be_stored_by_the_next_try() {
        let repeats = repeats(1_000);
        claim(&repeats, "a").settle(&Verdict::Failed);
        drop(claim(&repeats, "a"));
        claim(&repeats, "a").settle(&Verdict::Stored);
    }

    #[tokio::test]
    async fn twins_get_the_first_ones_verdict() {
        let repeats = repeats(1_000);
        let first = claim(&repeats, "a");
        let Entry::Waiting(second) = repeats.enter(1, "a") else { panic!() };
        let Entry::Waiting(third) = repeats.enter(1, "a") else { panic!() };
        let refused = Verdict::Refused(Arc::new(Answer::BODY_BROKEN));
        first.settle(&refused);
        assert_eq!((second.await.unwrap(), third.await.unwrap()), (refused.clone(), refused.clone()));
        assert!(matches!(repeats.enter(1, "a"), Entry::Known(verdict) if verdict == refused));
    }

    #[test]
    fn only_so_many_wait() {
        let repeats = repeats(1_000);
        let _first = claim(&repeats, "a");
        let waiting: Vec<_> = (0..WAITING_MAX).map(|_| repeats.enter(1, "a")).collect();
        assert!(waiting.iter().all(|entry| matches!(entry, Entry::Waiting(_))));
        assert!(matches!(repeats.enter(1, "a"), Entry::Known(Verdict::Failed)));
    }

    #[test]
    fn window_is_bounded_and_forgets_the_oldest() {
        let repeats = repeats(320);
        for n in 0..10_000 {
            claim(&repeats, &n.to_string()).settle(&Verdict::Stored);
        }
        let in_shard = |shard: &Mutex<Shard>| {
            let shard = shard.lock();
            shard.young.len() + shard.old.len()
        };
        let known: usize = repeats.shards.iter().map(in_shard).sum();
        assert!(known <= 320, "{known}");
        assert!(matches!(repeats.enter(1, "9999"), Entry::Known(Verdict::Stored)));
        assert!(matches!(repeats.enter(1, "0"), Entry::New(_)));
    }
}
