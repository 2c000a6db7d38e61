//! Instances, and what deleting one takes.

use std::sync::Arc;

use events::Environment;
use events::context::canonical_parts;
use serde::{Deserialize, Serialize};

use super::{Ask, FirstRecords, Inquiry};
use crate::filter::{Expr, Field, Filter, Predicate, Test};
use crate::instances::{self, FoundInstance};
use crate::page::Sort;
use crate::query::instance_id;
use crate::record::INSTANCE_KIND;
use crate::scan::Budget;
use crate::search::SearchRequest;
use crate::shard::Shard;
use crate::terms::EnvironmentPrefix;
use crate::wish::Wish;
use crate::{Error, Indexer, Result};

/// A page of instances.
#[derive(Debug, Serialize, Deserialize)]
pub struct SearchInstances {
    pub request: SearchRequest,
}

impl Inquiry for SearchInstances {
    const NAME: &'static str = "search-instances";
    type Answer = FirstRecords<FoundInstance>;

    fn answer(&self, indexer: &Indexer, shards: &[Arc<Shard>]) -> Result<Self::Answer> {
        let _timer = indexer.metrics.search_seconds.start_timer();
        let budget = Budget::new(indexer.config.search_budget);
        let mut parts = Vec::with_capacity(shards.len());
        for shard in shards {
            let search = || indexer.search_instances_of(shard, &self.request, &budget);
            let (found, total) = shard.guarded("a search for instances", search)?;
            parts.push(FirstRecords { found, total, is_partial: false });
        }
        let is_partial = budget.is_exceeded();
        indexer.metrics.partial_searches.inc_by(u64::from(is_partial));
        Ok(FirstRecords { is_partial, ..self.merge(parts) })
    }

    fn merge(&self, answers: Vec<Self::Answer>) -> Self::Answer {
        FirstRecords::merged(answers, self.request.limit, instances::order_of)
    }
}

/// The versions of one instance.
#[derive(Debug, Serialize, Deserialize)]
pub struct InstanceVersions {
    pub environment: Environment,
    pub canonical: String,
}

impl Inquiry for InstanceVersions {
    const NAME: &'static str = "instance-versions";
    type Answer = Vec<FoundInstance>;

    fn answer(&self, indexer: &Indexer, shards: &[Arc<Shard>]) -> Result<Vec<FoundInstance>> {
        let prefix = EnvironmentPrefix::new(&self.environment);
        let mut identities = vec![prefix.identity(INSTANCE_KIND, &self.canonical)];
        if let Some([(kind, key)]) = canonical_parts(&self.canonical).as_deref() {
            identities.push(prefix.identity(kind, key));
        }
        let cutoff = indexer.cutoff();
        let mut versions = Vec::new();
        for shard in shards {
            for identity in &identities {
                let record = shard.guarded("a look-up of an instance", || shard.reader()?.find(identity))?;
                versions.extend(record.iter().flat_map(|record| instances::versions_of(record, cutoff)));
            }
        }
        Ok(versions)
    }

    fn merge(&self, answers: Vec<Vec<FoundInstance>>) -> Vec<FoundInstance> {
        answers.into_iter().flatten().collect()
    }
}

/// As [`Ask::deletion_of_instance`].
pub(super) fn deletion(asker: &(impl Ask + ?Sized), environment: &Environment, canonical: &str) -> Result<Vec<Wish>> {
    let parts = canonical_parts(canonical).unwrap_or_default();
    let Some((first_kind, first_key)) = parts.first() else { return Ok(Vec::new()) };
    if asker.instance(environment, canonical)?.is_empty() {
        return Ok(Vec::new());
    }
    if asker.lacks_shards() {
        // A part that another instance holds must not go because that one cannot be seen.
        return Err(Error::Unreached { why: "shards of the index are missing".into() });
    }
    let mut wishes = vec![Wish::instance(first_kind, first_key, canonical)];
    for (kind, key) in &parts {
        if !is_held_elsewhere(asker, environment, kind, key, canonical)? {
            wishes.push(Wish::context(kind, key));
        }
    }
    Ok(wishes)
}

/// Whether an instance other than `canonical` has this part.
fn is_held_elsewhere(
    asker: &(impl Ask + ?Sized),
    environment: &Environment,
    kind: &str,
    key: &str,
    canonical: &str,
) -> Result<bool> {
    let is = |field, test| Expr::Is(Predicate { field, test, at: 0 });
    let part = is(Field::KindKeys, Test::Contains(vec![format!("{kind}:{key}").into()]));
    let other = is(Field::Id, Test::NotEquals(instance_id(canonical).into()));
    let filter = Filter { root: Some(Expr::And(vec![part, other])) };
    let environment = environment.clone();
    let request = SearchRequest { environment, filter, sort: Sort::KindKey, limit: 1, after: None };
    let page = asker.search_instances(&request)?;
    Ok(!page.instances.is_empty() || page.is_partial)
}
