//! Holds the table of states against the index, and mends what differs.
//!
//! In: one shard and its part of the table. Out: how many states there are, how many differ, how many were mended.
//! Promise: what is told is a fault. Both sides change while they are read, so a difference counts only if it is there at a second
//! look, with the table brought up to the index in between and the state in the index still the same.
//! Mended is what is older or missing, from the other side; of two that are as old, the index is believed, as it has read the
//! log. What retention or the bound took out of the index, and the table has until it is next written as a whole, is no fault.
//! Memory: so many hashes at a time ([`AT_ONCE_MAX`]), and as many readings of the table as that takes.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use events::{ContextState, Environment, Topic};
use futures::TryStreamExt;
use hashbrown::{HashMap, HashSet};
use tokio::sync::oneshot;
use xxhash_rust::xxh3::{Xxh3Default, xxh3_64};

use super::{Keeper, Touched, blocking, failed, stream_states};
use crate::index::ShardReader;
use crate::record::ContextRecord;
use crate::shard::Shard;
use crate::table::TableChange;
use crate::terms::EnvironmentPrefix;
use crate::{Error, Result};

/// States whose hashes are held at once.
const AT_ONCE_MAX: u64 = 1_000_000;
/// Differences that are looked at again. With more, it is quicker to make the shard again.
const SUSPECTS_MAX: usize = 100_000;

/// Wants a shard checked.
pub struct CheckOrder {
    pub partition: u32,
    pub repairs: bool,
    pub answer: oneshot::Sender<Result<Checked>>,
}

/// What a check has found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// States in the index: contexts, combinations, and what was deleted.
    pub in_index: u64,
    /// States in the table, the newest of each.
    pub in_table: u64,
    pub only_in_index: u64,
    pub only_in_table: u64,
    pub different: u64,
    /// Of these, written to the other side.
    pub repaired: u64,
    /// There are more differences than were looked at.
    pub is_cut: bool,
}

/// What was found at the first look.
#[derive(Default)]
struct Suspects {
    /// By hash of the identity: the identity and a hash of what the index has; the latter 0 if it has nothing.
    known: HashMap<u64, (Option<Vec<u8>>, u64)>,
    in_index: u64,
    in_table: u64,
}

/// A hash of all that a state says.
fn digest(state: &ContextState) -> u64 {
    let mut hash = Xxh3Default::new();
    for text in [&state.project, &state.environment, &state.kind, &state.key, &state.context] {
        hash.update(&(text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    }
    let times =
        [state.last_seen, state.attributes_at.unwrap_or(i64::MIN), state.content as i64, i64::from(state.anonymous)];
    times.iter().for_each(|time| hash.update(&time.to_le_bytes()));
    for (name, at) in &state.applications {
        hash.update(name.as_bytes());
        hash.update(&at.to_le_bytes());
    }
    hash.digest().max(1)
}

fn identity_of(state: &ContextState) -> Vec<u8> {
    let environment = EnvironmentPrefix::new(&Environment::new(&state.project, &state.environment));
    ContextRecord::identity_of(&state.kind, &state.key, &environment)
}

impl Keeper {
    /// Checks one shard.
    ///
    /// # Errors
    /// `NotOpen` while it is being made again; `Table`, `Index`.
    pub(super) async fn check(&self, partition: u32, repairs: bool) -> Result<Checked> {
        let closed = || Error::NotOpen { partition };
        let shard = self.shards.get(partition as usize).ok_or_else(closed)?;
        let topic_id = self.log.topic_id(Topic::Contexts).to_string();
        while self.keep(shard, &topic_id).await? {}
        let (_, reader) = shard.whole().ok_or_else(closed)?;
        let suspects = self.first_look(shard, reader).await?;
        while self.keep(shard, &topic_id).await? {}
        let (_, reader) = shard.whole().ok_or_else(closed)?;
        let mut checked = Checked {
            in_index: suspects.in_index,
            in_table: suspects.in_table,
            is_cut: suspects.known.len() >= SUSPECTS_MAX,
            ..Checked::default()
        };
        let (to_table, to_index) = self.second_look(shard, &reader, suspects, &mut checked).await?;
        if repairs {
            checked.repaired = (to_table.seen_at.len() + to_index.len()) as u64;
            self.mend_table(shard, reader, to_table, &topic_id).await?;
            shard.put_missing(to_index).await?;
        }
        Ok(checked)
    }

    async fn first_look(&self, shard: &Arc<Shard>, reader: ShardReader) -> Result<Suspects> {
        let mut suspects = Suspects::default();
        let rounds = reader.searcher().num_docs() / AT_ONCE_MAX + 1;
        for round in 0..rounds {
            let is_meant = move |identity: u64| identity % rounds == round;
            let mut in_table: HashMap<u64, u64> = HashMap::new();
            let mut batches = self.table.read(shard.partition).await.map_err(failed("read states from the table"))?;
            while let Some(batch) = batches.try_next().await.map_err(failed("read states from the table"))? {
                for state in batch.states {
                    let identity = xxh3_64(&identity_of(&state));
                    if is_meant(identity) {
                        in_table.insert(identity, digest(&state));
                    }
                }
            }
            let (reader, shard) = (reader.clone(), Arc::clone(shard));
            let compare = move || shard.guarded("comparing states", || compare(&reader, suspects, in_table, &is_meant));
            suspects = blocking(&self.runtime, "compare states", compare).await?;
        }
        Ok(suspects)
    }

    /// What is to be written to the table, and to the index.
    async fn second_look(
        &self,
        shard: &Arc<Shard>,
        reader: &ShardReader,
        suspects: Suspects,
        checked: &mut Checked,
    ) -> Result<(Touched, Vec<ContextState>)> {
        let (mut to_table, mut to_index) = (Touched::default(), Vec::new());
        if suspects.known.is_empty() {
            return Ok((to_table, to_index));
        }
        let mut in_table: HashMap<u64, ContextState> = HashMap::new();
        let mut batches = self.table.read(shard.partition).await.map_err(failed("read states from the table"))?;
        while let Some(batch) = batches.try_next().await.map_err(failed("read states from the table"))? {
            let meant = batch.states.into_iter().map(|state| (xxh3_64(&identity_of(&state)), state));
            in_table.extend(meant.filter(|(identity, _)| suspects.known.contains_key(identity)));
        }
        let cutoff = self.runtime.clock.now().saturating_sub(self.retention).0;
        let full = self.full_environments(reader)?;
        for (hash, (identity, before)) in suspects.known {
            let state = in_table.remove(&hash);
            let Some(identity) = identity.or_else(|| state.as_ref().map(identity_of)) else { continue };
            let record = shard.guarded("a look-up", || reader.find(&identity))?;
            let now: Option<ContextState> = record.map(ContextState::from);
            if now.as_ref().map_or(0, digest) != before {
                continue;
            }
            let age = |state: &ContextState| (state.last_seen, state.attributes_at);
            match (now, state) {
                (Some(_), None) => {
                    checked.only_in_index += 1;
                    to_table.touch(identity, i64::MIN);
                }
                (None, Some(state)) => {
                    let is_full = EnvironmentPrefix::of_term(&identity).is_some_and(|one| full.contains(&one));
                    if state.last_seen >= cutoff && !is_full {
                        checked.only_in_table += 1;
                        to_index.push(state);
                    }
                }
                (Some(now), Some(state)) if digest(&now) != digest(&state) => {
                    checked.different += 1;
                    if age(&state) > age(&now) { to_index.push(state) } else { to_table.touch(identity, i64::MIN) }
                }
                _ => {}
            }
        }
        Ok((to_table, to_index))
    }

    /// Environments at their bound: what the index lacks of them may have gone for others.
    fn full_environments(&self, reader: &ShardReader) -> Result<HashSet<EnvironmentPrefix>> {
        let Some(share) = self.environment_contexts else { return Ok(HashSet::new()) };
        let searcher = reader.searcher();
        let mut full = HashSet::new();
        for environment in reader.environments(&searcher)? {
            for term in [environment.listed(), environment.instance()] {
                // A little more than what is beyond goes at once.
                if reader.living_beyond(&searcher, &term, share - share / 50 - 1)? > 0 {
                    full.insert(environment);
                }
            }
        }
        Ok(full)
    }

    async fn mend_table(&self, shard: &Arc<Shard>, reader: ShardReader, states: Touched, topic_id: &str) -> Result<()> {
        if states.seen_at.is_empty() {
            return Ok(());
        }
        let position = self.table.position(shard.partition, topic_id).await;
        let position = position.map_err(failed("ask the table where it stands"))?;
        let (partition, sequence) = (shard.partition, position.sequence);
        let Some(next) = position.next else { return Ok(()) };
        let change = TableChange { partition, topic_id: topic_id.to_owned(), sequence, next, is_base: false };
        let states = stream_states(Arc::clone(shard), reader, Some(states), Arc::new(AtomicU64::new(0)));
        self.table.write(change, states).await.map_err(failed("write states to the table"))
    }
}

fn compare(
    reader: &ShardReader,
    mut suspects: Suspects,
    mut in_table: HashMap<u64, u64>,
    is_meant: &dyn Fn(u64) -> bool,
) -> Result<Suspects> {
    suspects.in_table += in_table.len() as u64;
    let searcher = reader.searcher();
    reader.for_each_record(&searcher, |record| {
        let state = ContextState::from(record);
        let identity = identity_of(&state);
        let hash = xxh3_64(&identity);
        if is_meant(hash) {
            suspects.in_index += 1;
            let found = digest(&state);
            if in_table.remove(&hash) != Some(found) && suspects.known.len() < SUSPECTS_MAX {
                suspects.known.insert(hash, (Some(identity), found));
            }
        }
        Ok(true)
    })?;
    let room = SUSPECTS_MAX.saturating_sub(suspects.known.len());
    suspects.known.extend(in_table.into_keys().take(room).map(|hash| (hash, (None, 0))));
    Ok(suspects)
}
