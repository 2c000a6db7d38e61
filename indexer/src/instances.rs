//! Searches over instances: combinations of contexts that were evaluated together, a context alone among them.
//!
//! In: a checked filter and a place. Out: one record per instance and application that reported it. Instances of several
//! parts are documents of their own, each in the shard of its first part; a context that was seen alone is found by its own
//! document. Records of one instance stay together, by application; instances are ordered as contexts are.
//! Source: context-search-api sections 3, 4.3 and 4.4.

use std::sync::Arc;

use events::context::{canonical_key, canonical_parts};
use runtime::UnixMicros;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::filter::Filter;
use crate::filter::evaluate::{InstanceCandidate, instance_matches};
use crate::fold::anonymous_kinds;
use crate::matches::{EXAMINED_MAX, Examine};
use crate::page::{PageCollector, Place, Sort, Time};
use crate::query::{Ground, compile_instances, instance_id};
use crate::record::{ContextRecord, INSTANCE_KIND};
use crate::scan::Budget;
use crate::search::SearchRequest;
use crate::shard::Shard;
use crate::terms::EnvironmentPrefix;
use crate::{Error, Indexer, Result};

/// Stands between the order of an instance and the application of a version of it in a place. No text has this byte, and
/// the application is the last of a place.
const VERSION_MARK: u8 = 0xFF;

/// One version of an instance.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FoundInstance {
    /// Canonical key of its parts.
    pub canonical: String,
    /// Kinds of the parts that are anonymous.
    pub anonymous_kinds: Vec<String>,
    pub last_seen: UnixMicros,
    /// None: the sender did not say what it is.
    pub application: Option<String>,
}

/// One page of instances.
#[derive(Debug)]
pub struct InstancePage {
    pub instances: Vec<FoundInstance>,
    /// Instances that match, whatever their versions.
    pub total: u64,
    pub next: Option<Place>,
    /// As of [`crate::SearchPage`].
    pub is_partial: bool,
}

impl FoundInstance {
    pub fn id(&self) -> String {
        instance_id(&self.canonical)
    }

    /// Kind and keys of the parts.
    pub fn context(&self) -> Value {
        let mut context = Map::new();
        let parts = canonical_parts(&self.canonical).unwrap_or_default();
        if let [(kind, key)] = parts.as_slice() {
            return json!({ "kind": kind, "key": key });
        }
        context.insert("kind".into(), INSTANCE_KIND.into());
        context.extend(parts.into_iter().map(|(kind, key)| (kind, json!({ "key": key }))));
        Value::Object(context)
    }

    pub(crate) fn version_place(&self, sort: Sort) -> Place {
        let application = self.application.as_deref().unwrap_or_default();
        Place { time_key: sort.time_key(self.last_seen.0), order: application.as_bytes().to_vec() }
    }
}

/// Where a record stands: its instance, then its application.
type Order = (i64, Vec<u8>, Vec<u8>);

impl Indexer {
    /// The first records of one shard, some more than the limit, and how many instances match in all.
    pub(crate) fn search_instances_of(
        &self,
        shard: &Shard,
        request: &SearchRequest,
        budget: &Budget,
    ) -> Result<(Vec<(Place, FoundInstance)>, u64)> {
        let after = request.after.as_ref().map(order_of);
        let reader = shard.reader()?;
        let searcher = reader.searcher();
        let cutoff = self.cutoff();
        let (terms, last_seen) = (reader.fields().terms, reader.fields().last_seen);
        let environment = EnvironmentPrefix::new(&request.environment);
        let ground = Ground { environment, kinds: &[], terms, last_seen, has_term: &|_| true, budget };
        let compiled = compile_instances(&request.filter, ground);
        let collector = PageCollector {
            sort: request.sort,
            ranker: None,
            time: Time::OfInstance,
            after: after.as_ref().map(|(time_key, order, _)| Place { time_key: *time_key, order: order.clone() }),
            // Some versions of the instance there may be on the page before, others on this.
            with_after: true,
            count: request.limit + 1,
            cutoff,
            examine: (!compiled.is_exact).then(|| examiner(&request.filter, cutoff)),
            examined_max: EXAMINED_MAX,
            counts: true,
            record_field: reader.fields().record,
        };
        let hits = searcher.search(&compiled.query, &collector).map_err(Error::index("search for instances"))?;
        if hits.is_too_broad {
            return Err(Error::TooBroad { max: EXAMINED_MAX });
        }
        let mut found = Vec::new();
        for hit in hits.hits {
            let record = reader.record(&searcher, hit.address)?;
            for version in versions_of(&record, cutoff) {
                let application = version.application.clone().unwrap_or_default().into_bytes();
                let order = (hit.place.time_key, hit.place.order.clone(), application);
                if version_matches(&request.filter, &version) && after.as_ref().is_none_or(|after| order > *after) {
                    found.push((place_of(&order), version));
                }
            }
        }
        Ok((found, hits.total))
    }
}

/// Versions of an instance within retention: those of a combination, or those in which a context was seen alone.
pub(crate) fn versions_of(record: &ContextRecord, cutoff: i64) -> Vec<FoundInstance> {
    if !record.is_listed() {
        return Vec::new();
    }
    let (canonical, anonymous_kinds, seen) = match record.is_instance() {
        true => (record.key.clone(), anonymous_kinds(&record.parsed()), &record.applications),
        false => (canonical_key(&mut [(&record.kind, &record.key)]), Vec::new(), &record.alone),
    };
    let version = |(application, at): &(String, i64)| FoundInstance {
        canonical: canonical.clone(),
        anonymous_kinds: anonymous_kinds.clone(),
        last_seen: UnixMicros(*at),
        application: Some(application.clone()).filter(|application| !application.is_empty()),
    };
    seen.iter().filter(|(_, at)| *at >= cutoff).map(version).collect()
}

fn version_matches(filter: &Filter, version: &FoundInstance) -> bool {
    let application = version.application.as_deref();
    instance_matches(filter, &InstanceCandidate { canonical: &version.canonical, application })
}

/// Tests all versions of an instance, and names the time at which it was last seen if one matches.
fn examiner(filter: &Filter, cutoff: i64) -> Examine {
    let filter = filter.clone();
    Arc::new(move |record| {
        let versions = versions_of(record, cutoff);
        let is_match = versions.iter().any(|version| version_matches(&filter, version));
        is_match.then(|| versions.iter().map(|version| version.last_seen.0).max()).flatten()
    })
}

fn place_of((time_key, order, application): &Order) -> Place {
    Place { time_key: *time_key, order: [order.as_slice(), &[VERSION_MARK], application].concat() }
}

/// Orders places as the records there are ordered.
pub(crate) fn order_of(place: &Place) -> Order {
    match place.order.iter().rposition(|byte| *byte == VERSION_MARK) {
        Some(at) => (place.time_key, place.order[..at].to_vec(), place.order[at + 1..].to_vec()),
        None => (place.time_key, place.order.clone(), Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::evaluate::context_id;

    #[test]
    fn places_read_back_whatever_they_hold() {
        for (order, application) in [(&b"multi\0org:a"[..], &b"GoSDK/1.2"[..]), (b"user\0k\xFF\xFE", b""), (b"", b"a")]
        {
            let place: Order = (-7, order.to_vec(), application.to_vec());
            assert_eq!(order_of(&place_of(&place)), place);
        }
    }

    #[test]
    fn ids_are_those_of_the_published_look() {
        assert_eq!(instance_id("org:launchdarkly"), "b3JnOmxhdW5jaGRhcmtseQ");
        assert_eq!(instance_id("user:a%3Ab"), context_id("user", "a:b"));
    }
}
