//! Names and values of attributes.
//!
//! The values that are frequent in each process need not be those that are frequent in all. So values are asked for twice where
//! a process has more of them than it tells: first which there are, then how many contexts have the best of them all.

use std::sync::Arc;

use events::Environment;
use serde::{Deserialize, Serialize};

use super::{Ask, Inquiry};
use crate::attribute::AttributePath;
use crate::filter::Filter;
use crate::lookup::values::{Tallied, Tally, ValueTerm, Values, Wanted};
use crate::lookup::within::Within;
use crate::lookup::{self, NameWeight, Names, WantedNames};
use crate::shard::Shard;
use crate::terms::EnvironmentPrefix;
use crate::{Error, Indexer, Result};

/// Among which contexts is looked.
#[derive(Debug, Serialize, Deserialize)]
pub struct Narrowed {
    pub filter: Filter,
    /// All that are stored, sorted, as far as the filter depends on them.
    pub kinds: Vec<String>,
}

/// Names of attributes.
#[derive(Debug, Serialize, Deserialize)]
pub struct AttributeNames {
    pub environment: Environment,
    /// None: all contexts.
    pub within: Option<Narrowed>,
    /// None: of all kinds.
    pub kind: Option<String>,
    pub prefixes: Vec<String>,
}

/// Kinds and names with their weights.
#[derive(Debug, Serialize, Deserialize)]
pub struct FoundNames {
    names: Vec<(String, String, NameWeight)>,
    is_partial: bool,
}

impl FoundNames {
    fn of(Within { found, is_partial }: Within<Names>) -> Self {
        let names = found.into_iter().map(|((kind, name), weight)| (kind, name, weight)).collect();
        Self { names, is_partial }
    }

    pub(super) fn into_names(self) -> Within<Names> {
        let mut found = Names::new();
        for (kind, name, weight) in self.names {
            *found.entry((kind, name)).or_default() += weight;
        }
        Within { found, is_partial: self.is_partial }
    }
}

impl Inquiry for AttributeNames {
    const NAME: &'static str = "attribute-names";
    type Answer = FoundNames;

    fn answer(&self, indexer: &Indexer, shards: &[Arc<Shard>]) -> Result<FoundNames> {
        let _timer = indexer.metrics.lookup_seconds.start_timer();
        let environment = EnvironmentPrefix::new(&self.environment);
        let wanted = WantedNames::new(environment, self.kind.as_deref(), &self.prefixes);
        if let Some(within) = &self.within {
            let ground = indexer.ground(shards, &self.environment, &within.filter, &within.kinds)?;
            return ground.names(&wanted).map(FoundNames::of);
        }
        let mut names = Names::new();
        for shard in shards {
            shard.guarded("a look-up of names", || {
                let reader = shard.reader()?;
                lookup::names(&reader.searcher(), reader.fields().terms, &wanted, &mut names)
                    .map_err(Error::index("look up attribute names"))
            })?;
        }
        Ok(FoundNames::of(Within::whole(names)))
    }

    fn merge(&self, answers: Vec<FoundNames>) -> FoundNames {
        let is_partial = answers.iter().any(|found| found.is_partial);
        FoundNames { names: answers.into_iter().flat_map(|found| found.names).collect(), is_partial }
    }
}

/// Values of one attribute.
#[derive(Debug, Serialize, Deserialize)]
pub struct AttributeValues {
    environment: Environment,
    /// None: among all contexts.
    within: Option<Narrowed>,
    kinds: Vec<String>,
    pointer: String,
    prefixes: Vec<String>,
    limit: usize,
    /// Per kind, the values whose weights are asked for. None: which there are.
    candidates: Option<Vec<Vec<ValueTerm>>>,
}

/// Of each kind what is known of its values.
#[derive(Debug, Serialize, Deserialize)]
pub struct FoundValues {
    kinds: Vec<Tallied>,
    is_partial: bool,
    /// Of several processes.
    is_merged: bool,
}

impl AttributeValues {
    /// Values of each of `kinds`, at most `limit` of them.
    pub(super) fn new(
        environment: &Environment,
        within: Option<Narrowed>,
        kinds: Vec<String>,
        path: &AttributePath,
        prefixes: &[String],
        limit: usize,
    ) -> Self {
        let (environment, pointer, prefixes) = (environment.clone(), path.pointer(), prefixes.to_vec());
        Self { environment, within, kinds, pointer, prefixes, limit, candidates: None }
    }

    fn wanted<'a>(&'a self, kind: &'a str) -> Wanted<'a> {
        let environment = EnvironmentPrefix::new(&self.environment);
        Wanted { environment, kind, pointer: &self.pointer, prefixes: &self.prefixes, limit: self.limit }
    }

    /// What is known of one kind, which is the one at this place of `kinds`.
    fn tallied(&self, place: usize, tally: &Tally<'_>) -> Tallied {
        tally.tallied(self.candidates.as_ref().map(|candidates| candidates[place].as_slice()))
    }

    /// The values, best first; kinds without a value are left out.
    pub(super) fn values(self, asker: &(impl Ask + ?Sized)) -> Result<Within<Vec<(String, Values)>>> {
        let first = asker.ask(&self)?;
        let mut is_partial = first.is_partial;
        let tallies = |kinds: Vec<Tallied>| {
            kinds.into_iter().zip(&self.kinds).map(|(tallied, kind)| {
                let mut tally = Tally::new(self.wanted(kind));
                tally.add_tallied(tallied);
                (kind.clone(), tally)
            })
        };
        let is_settled = !first.is_merged || first.kinds.iter().all(|tallied| tallied.is_complete);
        let found: Vec<(String, Values)> = if is_settled {
            tallies(first.kinds).map(|(kind, tally)| (kind, tally.values())).collect()
        } else {
            let candidates = tallies(first.kinds).map(|(_, tally)| tally.candidates()).collect();
            let Self { environment, within, kinds, pointer, prefixes, limit, .. } = self;
            let second = Self { environment, within, kinds, pointer, prefixes, limit, candidates: Some(candidates) };
            let told = asker.ask(&second)?;
            is_partial |= told.is_partial;
            let of_kind = |(tallied, kind): (Tallied, &String)| {
                let mut tally = Tally::new(second.wanted(kind));
                tally.add_tallied(tallied);
                (kind.clone(), tally.values())
            };
            told.kinds.into_iter().zip(&second.kinds).map(of_kind).collect()
        };
        Ok(Within { found: found.into_iter().filter(|(_, values)| !values.is_empty()).collect(), is_partial })
    }

    fn of_kind(&self, indexer: &Indexer, shards: &[Arc<Shard>], place: usize) -> Result<Tallied> {
        let failed = || Error::index("look up attribute values");
        let mut tally = Tally::new(self.wanted(&self.kinds[place]));
        let mut searchers = Vec::with_capacity(shards.len());
        for shard in shards {
            shard.guarded("a look-up of values", || {
                let reader = shard.reader()?;
                let searcher = reader.searcher();
                let (number, terms) = (shard.partition as usize, reader.fields().terms);
                tally.add(number, &searcher, terms, &indexer.tops).map_err(failed())?;
                searchers.push((searcher, terms));
                Ok(())
            })?;
        }
        if !tally.is_complete() {
            let candidates = match &self.candidates {
                Some(candidates) => candidates[place].clone(),
                None => tally.candidates(),
            };
            for (shard, (searcher, terms)) in shards.iter().zip(&searchers) {
                shard.guarded("a look-up of values", || {
                    tally.complete(&candidates, shard.partition as usize, searcher, *terms).map_err(failed())
                })?;
            }
        }
        Ok(self.tallied(place, &tally))
    }
}

impl Inquiry for AttributeValues {
    const NAME: &'static str = "attribute-values";
    type Answer = FoundValues;

    fn answer(&self, indexer: &Indexer, shards: &[Arc<Shard>]) -> Result<FoundValues> {
        let _timer = indexer.metrics.lookup_seconds.start_timer();
        if self.candidates.as_ref().is_some_and(|candidates| candidates.len() != self.kinds.len()) {
            return Err(Error::Damaged { what: "values of other kinds than those that are asked for".into() });
        }
        let Some(within) = &self.within else {
            let kinds = (0..self.kinds.len()).map(|place| self.of_kind(indexer, shards, place));
            return Ok(FoundValues { kinds: kinds.collect::<Result<_>>()?, is_partial: false, is_merged: false });
        };
        let ground = indexer.ground(shards, &self.environment, &within.filter, &within.kinds)?;
        let wanted: Vec<_> = self.kinds.iter().map(|kind| self.wanted(kind)).collect();
        let Within { found: tallies, is_partial } = ground.values(&wanted)?;
        let kinds = tallies.iter().enumerate().map(|(place, tally)| self.tallied(place, tally)).collect();
        Ok(FoundValues { kinds, is_partial, is_merged: false })
    }

    fn merge(&self, answers: Vec<FoundValues>) -> FoundValues {
        let is_merged = answers.len() > 1;
        let is_partial = answers.iter().any(|found| found.is_partial);
        let mut kinds: Vec<Tallied> = Vec::new();
        for found in answers {
            kinds.resize_with(self.kinds.len(), || Tallied { weights: Vec::new(), is_complete: true });
            for (all, some) in kinds.iter_mut().zip(found.kinds) {
                all.weights.extend(some.weights);
                all.is_complete &= some.is_complete;
            }
        }
        FoundValues { kinds, is_partial, is_merged }
    }
}
