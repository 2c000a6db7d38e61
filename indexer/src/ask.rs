//! What can be asked about contexts, and of whom.
//!
//! In: an [`Inquiry`], which says what some shards know of it and how answers about different shards become one. Out: the
//! answer, from the shards of this process ([`Indexer`]) or from those of several ([`crate::Peers`]); both ways give the same.
//! What takes several inquiries, one after the other, is here, as methods of [`Ask`]: the meaning of a filter may depend on the
//! kinds of all shards, so these are asked first.
//! Promise: answers are merged by what orders them, and hold nothing that depends on how contexts are divided among shards,
//! except where bounds are reached: a budget holds for each process, and estimates are made by each.

mod attributes;
mod contexts;
mod export;
mod instances;

use std::sync::Arc;

use events::Environment;
use runtime::UnixMicros;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use attributes::{AttributeNames, AttributeValues, Narrowed};
pub use contexts::{Kinds, Observations, ObservedKinds, Search, Versions};
pub use export::{LocateRows, ReadRows, RowsRead};
pub use instances::{InstanceVersions, SearchInstances};

use crate::attribute::AttributePath;
use crate::filter::{Field, Filter, Scope};
use crate::instances::{FoundInstance, InstancePage};
use crate::lookup::Names;
use crate::lookup::values::Values;
use crate::lookup::within::Within;
use crate::page::Place;
use crate::ranked::Ranking;
use crate::search::{FoundContext, SearchPage, SearchRequest};
use crate::shard::Shard;
use crate::wish::Wish;
use crate::{Indexer, Result};

/// Something that can be asked of any set of shards.
pub trait Inquiry: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// What it is called between processes.
    const NAME: &'static str;
    type Answer: Serialize + DeserializeOwned + Send + 'static;

    /// What these shards know. Blocks on files.
    ///
    /// # Errors
    /// `NotOpen` while a shard is being begun anew; `TooBroad`; `Index` and `Damaged`.
    fn answer(&self, indexer: &Indexer, shards: &[Arc<Shard>]) -> Result<Self::Answer>;

    /// One answer of several, about different shards. At least one.
    fn merge(&self, answers: Vec<Self::Answer>) -> Self::Answer;
}

/// Who answers inquiries.
pub trait Ask {
    /// Blocks on files or on other processes: call it where that is allowed.
    ///
    /// # Errors
    /// As [`Inquiry::answer`]; `Unreached` where no process with a shard answers.
    fn ask<I: Inquiry>(&self, inquiry: &I) -> Result<I::Answer>;

    /// Whether some shards were not asked so far, so that answers may lack something.
    fn lacks_shards(&self) -> bool;

    /// Kinds with listed contexts in the environment, sorted.
    ///
    /// # Errors
    /// As [`Self::ask`].
    fn kinds_of(&self, environment: &Environment) -> Result<Vec<String>> {
        self.ask(&Kinds { environment: environment.clone() })
    }

    /// The kinds, if the meaning of the filter depends on them.
    ///
    /// # Errors
    /// As [`Self::ask`].
    fn kinds_for(&self, environment: &Environment, filter: &Filter) -> Result<Vec<String>> {
        if depends_on_kinds(filter) { self.kinds_of(environment) } else { Ok(Vec::new()) }
    }

    /// One page of the contexts that match.
    ///
    /// # Errors
    /// As [`Self::ask`].
    fn search(&self, request: &SearchRequest) -> Result<SearchPage> {
        self.search_since(request, None)
    }

    /// [`Self::search`] over contexts last seen at `since` or later.
    ///
    /// # Errors
    /// As [`Self::ask`].
    fn search_since(&self, request: &SearchRequest, since: Option<UnixMicros>) -> Result<SearchPage> {
        let kinds = self.kinds_for(&request.environment, &request.filter)?;
        let found = self.ask(&Search { request: request.clone(), since, ranking: None, kinds })?;
        Ok(found.into_page(request.limit, self.lacks_shards()))
    }

    /// [`Self::search`] in another order; that of the request does not count.
    ///
    /// # Errors
    /// As [`Self::ask`].
    fn search_ranked(&self, request: &SearchRequest, ranking: &Ranking) -> Result<SearchPage> {
        let kinds = self.kinds_of(&request.environment)?;
        let ranking = Some(ranking.clone());
        let found = self.ask(&Search { request: request.clone(), since: None, ranking, kinds })?;
        Ok(found.into_page(request.limit, self.lacks_shards()))
    }

    /// Versions of one context, newest first: one per application that reported it. Empty if it is unknown.
    ///
    /// # Errors
    /// As [`Self::ask`].
    fn versions(&self, environment: &Environment, kind: &str, key: &str) -> Result<Vec<FoundContext>> {
        let (environment, kind, key) = (environment.clone(), kind.to_owned(), key.to_owned());
        self.ask(&Versions { environment, kind, key })
    }

    /// Attribute names of `kind` or of all kinds, whose name begins with all of `prefixes`.
    ///
    /// # Errors
    /// As [`Self::ask`].
    fn attribute_names(&self, environment: &Environment, kind: Option<&str>, prefixes: &[String]) -> Result<Names> {
        let (kind, prefixes) = (kind.map(str::to_owned), prefixes.to_vec());
        let found = self.ask(&AttributeNames { environment: environment.clone(), within: None, kind, prefixes })?;
        Ok(found.into_names().found)
    }

    /// Attribute names among the contexts that match, as [`Self::attribute_names`].
    ///
    /// # Errors
    /// As [`Self::ask`].
    fn attribute_names_within(
        &self,
        environment: &Environment,
        filter: &Filter,
        kind: Option<&str>,
        prefixes: &[String],
    ) -> Result<Within<Names>> {
        let kinds = self.kinds_for(environment, filter)?;
        let within = Some(Narrowed { filter: filter.clone(), kinds });
        let (kind, prefixes) = (kind.map(str::to_owned), prefixes.to_vec());
        let found = self.ask(&AttributeNames { environment: environment.clone(), within, kind, prefixes })?;
        Ok(found.into_names().partial_if(self.lacks_shards()))
    }

    /// The values of an attribute that most contexts of `kind`, or of each kind, have; their text begins with all of
    /// `prefixes`. At most `limit` per kind, by weight and then by text. Kinds without a value are left out.
    ///
    /// # Errors
    /// As [`Self::ask`].
    fn attribute_values(
        &self,
        environment: &Environment,
        kind: Option<&str>,
        path: &AttributePath,
        prefixes: &[String],
        limit: usize,
    ) -> Result<Vec<(String, Values)>> {
        let kinds = kind.map_or_else(|| self.kinds_of(environment), |kind| Ok(vec![kind.to_owned()]))?;
        Ok(AttributeValues::new(environment, None, kinds, path, prefixes, limit).values(self)?.found)
    }

    /// The values that most of the contexts that match have, as [`Self::attribute_values`].
    ///
    /// # Errors
    /// As [`Self::ask`].
    fn attribute_values_within(
        &self,
        environment: &Environment,
        filter: &Filter,
        kind: Option<&str>,
        path: &AttributePath,
        prefixes: &[String],
        limit: usize,
    ) -> Result<Within<Vec<(String, Values)>>> {
        let within = Narrowed { filter: filter.clone(), kinds: self.kinds_for(environment, filter)? };
        let kinds = kind.map_or_else(|| self.kinds_of(environment), |kind| Ok(vec![kind.to_owned()]))?;
        let found = AttributeValues::new(environment, Some(within), kinds, path, prefixes, limit).values(self)?;
        Ok(found.partial_if(self.lacks_shards()))
    }

    /// One page of the instances that match.
    ///
    /// # Errors
    /// As [`Self::ask`].
    fn search_instances(&self, request: &SearchRequest) -> Result<InstancePage> {
        let found = self.ask(&SearchInstances { request: request.clone() })?;
        let (total, is_partial) = (found.total, found.is_partial || self.lacks_shards());
        let (instances, next) = found.into_records(request.limit);
        Ok(InstancePage { instances, total, next, is_partial })
    }

    /// Versions of the instance with this canonical key, one per application that reported it. Empty if it is unknown.
    ///
    /// # Errors
    /// As [`Self::ask`].
    fn instance(&self, environment: &Environment, canonical: &str) -> Result<Vec<FoundInstance>> {
        self.ask(&InstanceVersions { environment: environment.clone(), canonical: canonical.to_owned() })
    }

    /// What is to be forgotten so that an instance is gone: itself, and those of its parts that no other instance holds.
    /// Empty if it is unknown.
    ///
    /// # Errors
    /// As [`Self::ask`].
    fn deletion_of_instance(&self, environment: &Environment, canonical: &str) -> Result<Vec<Wish>> {
        instances::deletion(self, environment, canonical)
    }

    /// The kinds of contexts in some environments of a project, and when each was last seen there.
    ///
    /// # Errors
    /// As [`Self::ask`].
    fn observed_kinds(&self, environments: Vec<Environment>) -> Result<ObservedKinds> {
        self.ask(&Observations { environments })
    }
}

impl Ask for Indexer {
    fn ask<I: Inquiry>(&self, inquiry: &I) -> Result<I::Answer> {
        inquiry.answer(self, &self.held())
    }

    fn lacks_shards(&self) -> bool {
        !self.is_whole()
    }
}

/// Whether what a filter means depends on the stored kinds.
fn depends_on_kinds(filter: &Filter) -> bool {
    filter.predicates().iter().any(|predicate| match &predicate.field {
        Field::Key | Field::Name => true,
        Field::Attribute(field) => Scope::depends_on_kinds(field),
        _ => false,
    })
}

/// The first records after a place, one more than were asked for if there are more, and how many match in all.
#[derive(Debug, Serialize, Deserialize)]
pub struct FirstRecords<T> {
    found: Vec<(Place, T)>,
    total: u64,
    /// A budget was reached.
    is_partial: bool,
}

impl<T> FirstRecords<T> {
    /// Of several, about different shards. `key`: what orders places.
    fn merged<K: Ord>(parts: Vec<Self>, limit: usize, key: impl Fn(&Place) -> K) -> Self {
        let mut all = Self { found: Vec::new(), total: 0, is_partial: false };
        for part in parts {
            all.found.extend(part.found);
            all.total += part.total;
            all.is_partial |= part.is_partial;
        }
        all.found.sort_by_cached_key(|(place, _)| key(place));
        all.found.truncate(limit + 1);
        all
    }

    /// The records of a page, and the place of the last one if there are more.
    fn into_records(mut self, limit: usize) -> (Vec<T>, Option<Place>) {
        let has_more = self.found.len() > limit;
        self.found.truncate(limit);
        let next = if has_more { self.found.last().map(|(place, _)| place.clone()) } else { None };
        (self.found.into_iter().map(|(_, record)| record).collect(), next)
    }
}

impl FirstRecords<FoundContext> {
    fn into_page(self, limit: usize, lacks_shards: bool) -> SearchPage {
        let (total, is_partial) = (self.total, self.is_partial || lacks_shards);
        let (contexts, next) = self.into_records(limit);
        SearchPage { contexts, total, next, is_partial }
    }
}
