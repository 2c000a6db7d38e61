//! Contexts: kinds, searches, versions.

use std::collections::BTreeMap;
use std::sync::Arc;

use events::Environment;
use runtime::UnixMicros;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{FirstRecords, Inquiry};
use crate::filter::{Expr, Field, Filter, Predicate, Test};
use crate::lookup;
use crate::page::Sort;
use crate::ranked::Ranking;
use crate::search::{Effort, FoundContext, SearchRequest};
use crate::shard::Shard;
use crate::terms::EnvironmentPrefix;
use crate::{Error, Indexer, Result};

/// Kinds of one environment whose last-seen times are told.
const OBSERVED_KINDS_MAX: usize = 1_000;

/// Kinds with listed contexts.
#[derive(Debug, Serialize, Deserialize)]
pub struct Kinds {
    pub environment: Environment,
}

impl Inquiry for Kinds {
    const NAME: &'static str = "kinds";
    type Answer = Vec<String>;

    fn answer(&self, _: &Indexer, shards: &[Arc<Shard>]) -> Result<Vec<String>> {
        let environment = EnvironmentPrefix::new(&self.environment);
        let mut kinds = Vec::new();
        for shard in shards {
            shard.guarded("a look-up of kinds", || {
                let reader = shard.reader()?;
                lookup::kinds(&reader.searcher(), reader.fields().terms, environment, &mut kinds)
                    .map_err(Error::index("look up kinds"))
            })?;
        }
        kinds.sort_unstable();
        Ok(kinds)
    }

    fn merge(&self, answers: Vec<Vec<String>>) -> Vec<String> {
        let mut kinds: Vec<String> = answers.into_iter().flatten().collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }
}

/// A page of contexts.
#[derive(Debug, Serialize, Deserialize)]
pub struct Search {
    pub request: SearchRequest,
    /// Contexts last seen before do not count.
    pub since: Option<UnixMicros>,
    /// Set where the order is none of [`Sort`].
    pub ranking: Option<Ranking>,
    /// All that are stored, sorted, as far as filter or order depend on them.
    pub kinds: Vec<String>,
}

impl Inquiry for Search {
    const NAME: &'static str = "search";
    type Answer = FirstRecords<FoundContext>;

    fn answer(&self, indexer: &Indexer, shards: &[Arc<Shard>]) -> Result<Self::Answer> {
        let _timer = indexer.metrics.search_seconds.start_timer();
        let mut question = indexer.question(&self.request, self.kinds.as_slice().into(), self.since, Effort::Bounded);
        question.ranking = self.ranking.as_ref();
        let mut parts = Vec::with_capacity(shards.len());
        for shard in shards {
            let (found, total) = shard.guarded("a search", || indexer.search_shard(shard, &question))?;
            parts.push(FirstRecords { found, total, is_partial: false });
        }
        let is_partial = question.is_partial();
        indexer.metrics.partial_searches.inc_by(u64::from(is_partial));
        Ok(FirstRecords { is_partial, ..self.merge(parts) })
    }

    fn merge(&self, answers: Vec<Self::Answer>) -> Self::Answer {
        FirstRecords::merged(answers, self.request.limit, Clone::clone)
    }
}

/// The versions of one context, newest first.
#[derive(Debug, Serialize, Deserialize)]
pub struct Versions {
    pub environment: Environment,
    pub kind: String,
    pub key: String,
}

impl Inquiry for Versions {
    const NAME: &'static str = "versions";
    type Answer = Vec<FoundContext>;

    fn answer(&self, indexer: &Indexer, shards: &[Arc<Shard>]) -> Result<Vec<FoundContext>> {
        let identity = EnvironmentPrefix::new(&self.environment).identity(&self.kind, &self.key);
        let cutoff = indexer.cutoff();
        for shard in shards {
            let Some(record) = shard.guarded("a look-up", || shard.reader()?.find(&identity))? else { continue };
            if !record.is_listed() || record.last_seen < cutoff {
                return Ok(Vec::new());
            }
            let mut applications = record.applications.clone();
            applications.retain(|(_, at)| *at >= cutoff);
            applications.sort_unstable_by(|(left, left_at), (right, right_at)| {
                right_at.cmp(left_at).then_with(|| left.cmp(right))
            });
            let version = |(application, last_seen): (String, i64)| FoundContext {
                kind: record.kind.clone(),
                key: record.key.clone(),
                context: record.context.clone(),
                last_seen: UnixMicros(last_seen),
                application: (!application.is_empty()).then_some(application),
            };
            return Ok(applications.into_iter().map(version).collect());
        }
        Ok(Vec::new())
    }

    fn merge(&self, answers: Vec<Vec<FoundContext>>) -> Vec<FoundContext> {
        answers.into_iter().flatten().collect()
    }
}

/// When the kinds of some environments of a project were last seen.
#[derive(Debug, Serialize, Deserialize)]
pub struct Observations {
    pub environments: Vec<Environment>,
}

/// Milliseconds by kind, then by key of the environment.
pub type ObservedKinds = BTreeMap<String, BTreeMap<String, i64>>;

impl Inquiry for Observations {
    const NAME: &'static str = "observations";
    type Answer = ObservedKinds;

    fn answer(&self, indexer: &Indexer, shards: &[Arc<Shard>]) -> Result<ObservedKinds> {
        let mut seen = ObservedKinds::new();
        for environment in &self.environments {
            let kinds = Kinds { environment: environment.clone() }.answer(indexer, shards)?;
            for kind in kinds.into_iter().take(OBSERVED_KINDS_MAX) {
                let test = Test::Equals(Value::String(kind.clone()));
                let filter = Filter { root: Some(Expr::Is(Predicate { field: Field::Kind, test, at: 0 })) };
                let environment = environment.clone();
                let environment_key = environment.key.to_string();
                let request = SearchRequest { environment, filter, sort: Sort::NewestFirst, limit: 1, after: None };
                let search = Search { request, since: None, ranking: None, kinds: Vec::new() };
                if let Some((_, newest)) = search.answer(indexer, shards)?.found.first() {
                    seen.entry(kind).or_default().insert(environment_key, newest.last_seen.as_millis());
                }
            }
        }
        Ok(seen)
    }

    fn merge(&self, answers: Vec<ObservedKinds>) -> ObservedKinds {
        let mut all = ObservedKinds::new();
        for (kind, environments) in answers.into_iter().flatten() {
            let known = all.entry(kind).or_default();
            for (environment, at) in environments {
                let newest = known.entry(environment).or_insert(at);
                *newest = at.max(*newest);
            }
        }
        all
    }
}
