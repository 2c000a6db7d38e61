//! Takes what is to be erased out of a shard, and keeps it out.
//!
//! In: rows of the log that say so; each stands in every partition. Out: documents removed, that of the context and those of
//! all combinations that it is a part of, and a state with a hash of the identity, which holds off what was received
//! before and comes late.
//! Promise: after the commit nothing that was received up to the time of the erasure can be found, and what was received
//! later can, whichever of them the log has first. A state does not tell which part of it is from when; so all of it goes,
//! and the log is read again from that time on, with the hash in place. The commit covers the log up to there only, so that
//! a death in between repeats this. An erasure that is known already does nothing: reading it again ends.
//! Not here: the bytes of removed documents, which are in the files until their segments merge (`shard::orders`).

use events::context::canonical_parts;
use events::{Environment, Offset};
use hashbrown::HashMap;
use xxhash_rust::xxh3::xxh3_64;

use super::open_writer::{OpenWriter, Pending};
use super::{ShardTask, Surroundings};
use crate::Result;
use crate::fold::Sighting;
use crate::record::{ContextRecord, INSTANCE_KIND};
use crate::terms::EnvironmentPrefix;

/// A context that is to be erased.
pub(super) struct Erasure {
    environment: EnvironmentPrefix,
    names: Environment,
    kind: String,
    key: String,
    /// What was received later stays, microseconds.
    until: i64,
}

impl Erasure {
    pub fn new(wish: &Sighting<'_>) -> Self {
        Self {
            environment: wish.environment,
            names: wish.names.clone(),
            kind: wish.kind.to_owned(),
            key: wish.key.to_owned(),
            until: wish.seen_at,
        }
    }
}

impl OpenWriter {
    /// Erases contexts of which that is not known yet.
    pub(super) fn erase(&mut self, mut erasures: Vec<Erasure>, surroundings: &Surroundings) -> Result<()> {
        // The same context twice: the later time counts.
        erasures.sort_by_key(|erasure| std::cmp::Reverse(erasure.until));
        let mut fresh: HashMap<Vec<u8>, (Erasure, u128, bool)> = HashMap::new();
        for erasure in erasures {
            let hash = erasure.environment.erased_hash(&erasure.kind, &erasure.key);
            let term = erasure.environment.erased(hash);
            let known = self.erased_until(&term)?;
            if known.is_none_or(|until| until < erasure.until) {
                fresh.entry(term).or_insert((erasure, hash, known.is_some()));
            }
        }
        if fresh.is_empty() {
            return Ok(());
        }
        // What is pending goes where its terms find it.
        if !self.pending.is_empty() {
            self.commit(surroundings)?;
        }
        let reader = self.writer.reader().clone();
        let searcher = reader.searcher();
        for (term, (erasure, hash, is_stored)) in fresh {
            let Erasure { environment, names, kind, key, until } = erasure;
            let mut forget = |record: ContextRecord| self.seen.forget(xxh3_64(&record.identity(&environment)));
            for found in [environment.identity(&kind, &key), environment.part(&kind, &key)] {
                reader.for_each_with(&searcher, &found, &mut forget)?;
                self.writer.remove_with(&found);
            }
            // A context that is not stored may be remembered all the same.
            self.seen.forget(xxh3_64(&environment.identity(&kind, &key)));
            let record = ContextRecord::erasure(&names, hash, until);
            self.pend(term, Pending { environment, record, is_stored });
            self.reads_again_since = Some(self.reads_again_since.map_or(until, |since| since.min(until)));
        }
        self.has_erasures = true;
        Ok(())
    }

    /// Until when the context with this term is erased, microseconds.
    fn erased_until(&self, term: &[u8]) -> Result<Option<i64>> {
        match self.pending.get(term) {
            Some(pending) => Ok(Some(pending.record.last_seen)),
            None => self.writer.reader().last_seen_of(term),
        }
    }

    /// Whether a sighting, of a context or of a combination, was received before it was erased.
    pub(super) fn is_erased(&self, sighting: &Sighting<'_>) -> Result<bool> {
        self.was_erased(sighting.environment, sighting.kind, sighting.key, sighting.received_at)
    }

    /// Whether a context, or a part of a combination, was erased at `at` or later.
    pub(super) fn was_erased(&self, environment: EnvironmentPrefix, kind: &str, key: &str, at: i64) -> Result<bool> {
        let is_erased = |kind: &str, key: &str| -> Result<bool> {
            let until = self.erased_until(&environment.erased(environment.erased_hash(kind, key)))?;
            Ok(until.is_some_and(|until| at <= until))
        };
        if kind != INSTANCE_KIND {
            return is_erased(kind, key);
        }
        for (kind, key) in canonical_parts(key).unwrap_or_default() {
            if is_erased(&kind, &key)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl ShardTask {
    /// Goes back to where the log may have what was received after an erasure and was taken out with the rest.
    pub(super) async fn go_back_if_erased(&mut self) -> Result<()> {
        let Some(since) = self.open.as_ref().and_then(|open| open.reads_again_since) else { return Ok(()) };
        let topic_partition = self.topic_partition();
        let first = self.surroundings.log.offset_at(topic_partition, runtime::UnixMicros(since)).await?;
        let held = self.surroundings.log.bounds(topic_partition).await?;
        let Offset(from) = first.max(held.start);
        if let Some(open) = &mut self.open {
            open.reads_again_since = None;
            open.next = Some(open.next.map_or(from, |next| next.min(from)));
            open.covered = open.covered.min(from);
            self.shard.progress.lock().next = from.min(open.covered);
        }
        // Readers see what was taken out until this: newer sightings must not be folded onto that.
        self.blocking(OpenWriter::commit_if_dirty).await
    }
}
