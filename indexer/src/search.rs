//! Searches over one shard.
//!
//! In: a checked filter and a place. Out: the first matches after the place, in order, and how many there are in all. Merging
//! the answers of shards needs nothing else, see `ask`.

use std::sync::Arc;

use events::Environment;
use runtime::UnixMicros;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tantivy::Searcher;

use crate::filter::Filter;
use crate::filter::evaluate::{Candidate, matches};
use crate::index::{ShardReader, order_bytes};
use crate::matches::{EXAMINED_MAX, Examine, MatchCollector, Matches};
use crate::page::{Hit, PageCollector, Place, Sort, Time};
use crate::query::{Compiled, Ground, compile};
use crate::ranked::Ranking;
use crate::record::ContextRecord;
use crate::scan::Budget;
use crate::shard::Shard;
use crate::terms::EnvironmentPrefix;
use crate::{Error, Indexer, Result};

/// One search.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SearchRequest {
    pub environment: Environment,
    pub filter: Filter,
    pub sort: Sort,
    /// Records wanted.
    pub limit: usize,
    /// The last record of the page before.
    pub after: Option<Place>,
}

/// One page.
#[derive(Debug)]
pub struct SearchPage {
    pub contexts: Vec<FoundContext>,
    /// All matches on all pages.
    pub total: u64,
    /// Place of the last record, if there are more.
    pub next: Option<Place>,
    /// There may be more matches than these: the search reached its budget, or shards are missing.
    pub is_partial: bool,
}

/// A context, or one version of it, that was found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FoundContext {
    pub kind: String,
    pub key: String,
    pub context: Box<RawValue>,
    pub last_seen: UnixMicros,
    /// Set if the filter names applications, and the sender said what it is.
    pub application: Option<String>,
}

/// How much one question may read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// What a person waits for: bounded, and all matches are counted.
    Bounded,
    /// Everything that is needed. `counts`: all matches are counted where that takes no reading of records.
    Whole { counts: bool },
}

/// A request, made ready for the shards.
pub(crate) struct Question<'a> {
    pub request: &'a SearchRequest,
    /// Set where the order is none of [`Sort`].
    pub ranking: Option<&'a Ranking>,
    pub environment: EnvironmentPrefix,
    /// Those that are stored, sorted, as far as anything depends on them.
    pub kinds: Arc<[String]>,
    cutoff: i64,
    /// The filter is about versions: what is found is the newest that matches.
    by_version: bool,
    pub budget: Budget,
    /// For the order of what is found.
    pub ranking_budget: Budget,
    effort: Effort,
}

/// Matches of one shard, and where their records are read.
pub(crate) struct Located {
    pub hits: Vec<Hit>,
    pub total: Option<u64>,
    pub reader: ShardReader,
    pub searcher: Searcher,
}

/// All matches of one shard, and where their records are read.
pub(crate) struct Gathered {
    pub matches: Matches,
    pub reader: ShardReader,
    pub searcher: Searcher,
}

impl Question<'_> {
    fn compiled(&self, reader: &ShardReader, searcher: &Searcher) -> Compiled {
        let Self { request, environment, kinds, budget, .. } = self;
        let (terms, last_seen) = (reader.fields().terms, reader.fields().last_seen);
        let has_term = |term: &[u8]| reader.has_term(searcher, term);
        let ground = Ground { environment: *environment, kinds, terms, last_seen, has_term: &has_term, budget };
        compile(&request.filter, ground)
    }

    /// All matches of one shard.
    ///
    /// # Errors
    /// `NotOpen`, `TooBroad`, `Index`.
    pub fn gather(&self, shard: &Shard) -> Result<Gathered> {
        let reader = shard.reader()?;
        let searcher = reader.searcher();
        let compiled = self.compiled(&reader, &searcher);
        let collector = MatchCollector {
            cutoff: self.cutoff,
            examine: (!compiled.is_exact).then(|| examiner(&self.request.filter, &self.kinds, self.cutoff)),
            examined_max: EXAMINED_MAX,
            record_field: reader.fields().record,
        };
        let matches = searcher.search(&compiled.query, &collector).map_err(Error::index("search"))?;
        if matches.is_too_broad {
            return Err(Error::TooBroad { max: EXAMINED_MAX });
        }
        Ok(Gathered { matches, reader, searcher })
    }

    /// Whether something was left out, as reading it would have cost too much.
    pub fn is_partial(&self) -> bool {
        self.budget.is_exceeded() || self.ranking_budget.is_exceeded()
    }

    /// The context, or its version that matches.
    pub fn found(&self, record: ContextRecord) -> FoundContext {
        let version = || newest_matching_version(&self.request.filter, &self.kinds, &record, self.cutoff);
        // Without a matching version left, as one may just have expired, the context stands for itself.
        let version = if self.by_version { version() } else { None };
        let (application, last_seen) = version.unwrap_or_else(|| (String::new(), record.last_seen));
        FoundContext {
            kind: record.kind,
            key: record.key,
            context: record.context,
            last_seen: UnixMicros(last_seen),
            application: (!application.is_empty()).then_some(application),
        }
    }
}

impl Indexer {
    /// `kinds`: those that are stored in any shard, sorted, as far as the filter depends on them.
    pub(crate) fn question<'a>(
        &self,
        request: &'a SearchRequest,
        kinds: Arc<[String]>,
        since: Option<UnixMicros>,
        effort: Effort,
    ) -> Question<'a> {
        let environment = EnvironmentPrefix::new(&request.environment);
        let budget = match effort {
            Effort::Bounded => self.config.search_budget,
            Effort::Whole { .. } => u64::MAX,
        };
        Question {
            request,
            ranking: None,
            environment,
            kinds,
            cutoff: since.map_or(i64::MIN, |since| since.0).max(self.cutoff()),
            by_version: request.filter.names_application(),
            budget: Budget::new(budget),
            ranking_budget: Budget::new(budget),
            effort,
        }
    }

    /// The first matches of one shard, one more than the limit, and how many there are in all.
    pub(crate) fn search_shard(
        &self,
        shard: &Shard,
        question: &Question<'_>,
    ) -> Result<(Vec<(Place, FoundContext)>, u64)> {
        let located = self.hits_of(shard, question)?;
        let mut found = Vec::with_capacity(located.hits.len());
        for hit in located.hits {
            let record = located.reader.record(&located.searcher, hit.address)?;
            found.push((hit.place, question.found(record)));
        }
        Ok((found, located.total.unwrap_or_default()))
    }

    /// Where the first matches of one shard are, one more than the limit.
    pub(crate) fn hits_of(&self, shard: &Shard, question: &Question<'_>) -> Result<Located> {
        let Question { request, kinds, cutoff, .. } = question;
        let reader = shard.reader()?;
        let ranker = match question.ranking {
            None => None,
            Some(Ranking::BestMatch(best)) => Some(best.ranker(question, reader.fields().terms)),
            Some(Ranking::Attribute(by)) => return by.locate(shard, question),
        };
        let searcher = reader.searcher();
        let compiled = question.compiled(&reader, &searcher);
        let needs_version_time = question.by_version && matches!(request.sort, Sort::OldestFirst | Sort::NewestFirst);
        let is_examined = !compiled.is_exact || needs_version_time;
        let (examined_max, counts) = match question.effort {
            Effort::Bounded => (EXAMINED_MAX, true),
            Effort::Whole { counts } => (u64::MAX, counts && !is_examined),
        };
        let collector = PageCollector {
            sort: request.sort,
            ranker,
            time: Time::LastSeen,
            after: request.after.clone(),
            with_after: false,
            count: request.limit + 1,
            cutoff: *cutoff,
            examine: is_examined.then(|| examiner(&request.filter, kinds, *cutoff)),
            examined_max,
            counts,
            record_field: reader.fields().record,
        };
        let hits = searcher.search(&compiled.query, &collector).map_err(Error::index("search"))?;
        if hits.is_too_broad {
            return Err(Error::TooBroad { max: EXAMINED_MAX });
        }
        Ok(Located { hits: hits.hits, total: counts.then_some(hits.total), reader, searcher })
    }

    /// Contexts last seen before are past retention, microseconds.
    pub(crate) fn cutoff(&self) -> i64 {
        self.runtime.clock.now().saturating_sub(self.config.retention.get()).0
    }
}

/// Tests records one by one with the plain evaluator.
fn examiner(filter: &Filter, kinds: &Arc<[String]>, cutoff: i64) -> Examine {
    let (filter, kinds) = (filter.clone(), Arc::clone(kinds));
    if filter.names_application() {
        return Arc::new(move |record| newest_matching_version(&filter, &kinds, record, cutoff).map(|(_, at)| at));
    }
    Arc::new(move |record| {
        let context = record.parsed();
        let last_seen = UnixMicros(record.last_seen);
        let (kind, key) = (record.kind.as_str(), record.key.as_str());
        let candidate = Candidate { kind, key, context: &context, application: None, last_seen };
        matches(&filter, &candidate, &|kind| kinds.iter().any(|stored| stored == kind)).then_some(record.last_seen)
    })
}

/// Application and last-seen time of the newest version that matches.
fn newest_matching_version(
    filter: &Filter,
    kinds: &[String],
    record: &ContextRecord,
    cutoff: i64,
) -> Option<(String, i64)> {
    let context = record.parsed();
    let is_match = |application: &str, at: i64| {
        let application = (!application.is_empty()).then_some(application);
        let (kind, key) = (record.kind.as_str(), record.key.as_str());
        let candidate = Candidate { kind, key, context: &context, application, last_seen: UnixMicros(at) };
        matches(filter, &candidate, &|kind| kinds.iter().any(|stored| stored == kind))
    };
    let matching = record.applications.iter().filter(|(name, at)| *at >= cutoff && is_match(name, *at));
    matching.max_by_key(|(_, at)| *at).cloned()
}

impl FoundContext {
    /// Where this version stands among those of its context.
    pub(crate) fn version_place(&self, sort: Sort) -> Place {
        Place {
            time_key: sort.time_key(self.last_seen.0),
            order: order_bytes(self.application.as_deref().unwrap_or_default(), ""),
        }
    }
}
