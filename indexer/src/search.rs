//! Searches and look-ups over all shards of this process.
//!
//! In: a checked filter and a place. Out: the records of one page. Each shard answers for itself with its first matches
//! after the place, in order, and its total; merging needs nothing else, so a peer's answer can be merged the same way.

use std::sync::Arc;

use events::Environment;
use runtime::UnixMicros;
use serde_json::value::RawValue;
use tantivy::Searcher;

use crate::attribute::AttributePath;
use crate::filter::evaluate::{Candidate, matches};
use crate::filter::{Field, Filter, Scope};
use crate::index::{ShardReader, order_bytes};
use crate::lookup::values::{Tally, Values, Wanted};
use crate::lookup::{self, Names, WantedNames};
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
#[derive(Clone, Debug)]
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
    /// The search reached its budget: there may be more matches than these.
    pub is_partial: bool,
}

/// A context, or one version of it, that was found.
#[derive(Clone, Debug)]
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
    /// One page of the contexts that match. Blocks on files: call it where that is allowed.
    ///
    /// # Errors
    /// `NotOpen` while a shard is being begun anew; `TooBroad`; `Index` and `Damaged`.
    pub fn search(&self, request: &SearchRequest) -> Result<SearchPage> {
        self.search_since(request, None)
    }

    /// [`Self::search`] over contexts last seen at `since` or later.
    ///
    /// # Errors
    /// As [`Self::search`].
    pub fn search_since(&self, request: &SearchRequest, since: Option<UnixMicros>) -> Result<SearchPage> {
        let _timer = self.metrics.search_seconds.start_timer();
        self.answer(&self.question(request, since, Effort::Bounded)?)
    }

    /// [`Self::search`] in another order; that of the request does not count.
    ///
    /// # Errors
    /// As [`Self::search`].
    pub fn search_ranked(&self, request: &SearchRequest, ranking: &Ranking) -> Result<SearchPage> {
        let _timer = self.metrics.search_seconds.start_timer();
        let question = self.question(request, None, Effort::Bounded)?;
        let kinds = self.kinds(question.environment)?.into();
        self.answer(&Question { ranking: Some(ranking), kinds, ..question })
    }

    fn answer(&self, question: &Question<'_>) -> Result<SearchPage> {
        let limit = question.request.limit;
        let mut found = Vec::new();
        let mut total = 0;
        for shard in &self.held() {
            let (contexts, matched) = shard.guarded("a search", || self.search_shard(shard, question))?;
            found.extend(contexts);
            total += matched;
        }
        found.sort_unstable_by(|(left, _), (right, _)| left.cmp(right));
        let has_more = found.len() > limit;
        found.truncate(limit);
        let next = if has_more { found.last().map(|(place, _)| place.clone()) } else { None };
        let contexts = found.into_iter().map(|(_, context)| context).collect();
        let is_partial = question.is_partial();
        self.metrics.partial_searches.inc_by(u64::from(is_partial));
        Ok(SearchPage { contexts, total, next, is_partial })
    }

    pub(crate) fn question<'a>(
        &self,
        request: &'a SearchRequest,
        since: Option<UnixMicros>,
        effort: Effort,
    ) -> Result<Question<'a>> {
        let environment = EnvironmentPrefix::new(&request.environment);
        let budget = match effort {
            Effort::Bounded => self.config.search_budget,
            Effort::Whole { .. } => u64::MAX,
        };
        Ok(Question {
            request,
            ranking: None,
            environment,
            kinds: self.stored_kinds(environment, &request.filter)?.into(),
            cutoff: since.map_or(i64::MIN, |since| since.0).max(self.cutoff()),
            by_version: request.filter.names_application(),
            budget: Budget::new(budget),
            ranking_budget: Budget::new(budget),
            effort,
        })
    }

    /// The first matches of one shard, one more than the limit, and how many there are in all.
    fn search_shard(&self, shard: &Shard, question: &Question<'_>) -> Result<(Vec<(Place, FoundContext)>, u64)> {
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

    /// Versions of one context, newest first: one per application that reported it. Empty if it is unknown.
    pub fn versions(&self, environment: &Environment, kind: &str, key: &str) -> Result<Vec<FoundContext>> {
        let identity = EnvironmentPrefix::new(environment).identity(kind, key);
        let cutoff = self.cutoff();
        for shard in &self.held() {
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

    /// Attribute names of `kind` or of all kinds, whose name begins with all of `prefixes`.
    pub fn attribute_names(&self, environment: &Environment, kind: Option<&str>, prefixes: &[String]) -> Result<Names> {
        let _timer = self.metrics.lookup_seconds.start_timer();
        let mut names = Names::new();
        let wanted = WantedNames::new(EnvironmentPrefix::new(environment), kind, prefixes);
        for shard in &self.held() {
            shard.guarded("a look-up of names", || {
                let reader = shard.reader()?;
                lookup::names(&reader.searcher(), reader.fields().terms, &wanted, &mut names)
                    .map_err(Error::index("look up attribute names"))
            })?;
        }
        Ok(names)
    }

    /// The values of an attribute that most contexts of `kind`, or of each kind, have; their text begins with all of
    /// `prefixes`. At most `limit` per kind, by weight and then by text. Kinds without a value are left out.
    pub fn attribute_values(
        &self,
        environment: &Environment,
        kind: Option<&str>,
        path: &AttributePath,
        prefixes: &[String],
        limit: usize,
    ) -> Result<Vec<(String, Values)>> {
        let _timer = self.metrics.lookup_seconds.start_timer();
        let environment = EnvironmentPrefix::new(environment);
        let kinds = match kind {
            Some(kind) => vec![kind.to_owned()],
            None => self.kinds(environment)?,
        };
        let pointer = path.pointer();
        let mut found = Vec::new();
        for kind in kinds {
            let wanted = Wanted { environment, kind: &kind, pointer: &pointer, prefixes, limit };
            let values = self.values_of_kind(wanted)?;
            if !values.is_empty() {
                found.push((kind, values));
            }
        }
        Ok(found)
    }

    fn values_of_kind(&self, wanted: Wanted<'_>) -> Result<Values> {
        let failed = || Error::index("look up attribute values");
        let mut tally = Tally::new(wanted);
        let shards = self.held();
        let mut searchers = Vec::with_capacity(shards.len());
        for shard in &shards {
            shard.guarded("a look-up of values", || {
                let reader = shard.reader()?;
                let searcher = reader.searcher();
                tally.add(shard.partition as usize, &searcher, reader.fields().terms, &self.tops).map_err(failed())?;
                searchers.push((searcher, reader.fields().terms));
                Ok(())
            })?;
        }
        let candidates = tally.candidates();
        if !candidates.is_empty() {
            for (shard, (searcher, terms)) in shards.iter().zip(&searchers) {
                shard.guarded("a look-up of values", || {
                    tally.complete(&candidates, shard.partition as usize, searcher, *terms).map_err(failed())
                })?;
            }
        }
        Ok(tally.values())
    }

    /// Kinds with listed contexts in the environment, sorted.
    pub fn kinds_of(&self, environment: &Environment) -> Result<Vec<String>> {
        self.kinds(EnvironmentPrefix::new(environment))
    }

    pub(crate) fn kinds(&self, environment: EnvironmentPrefix) -> Result<Vec<String>> {
        let mut kinds = Vec::new();
        for shard in &self.held() {
            shard.guarded("a look-up of kinds", || {
                let reader = shard.reader()?;
                lookup::kinds(&reader.searcher(), reader.fields().terms, environment, &mut kinds)
                    .map_err(Error::index("look up kinds"))
            })?;
        }
        kinds.sort_unstable();
        Ok(kinds)
    }

    /// The kinds, if the meaning of the filter depends on them.
    fn stored_kinds(&self, environment: EnvironmentPrefix, filter: &Filter) -> Result<Vec<String>> {
        let depends = filter.predicates().iter().any(|predicate| match &predicate.field {
            Field::Key | Field::Name => true,
            Field::Attribute(field) => Scope::depends_on_kinds(field),
            _ => false,
        });
        if depends { self.kinds(environment) } else { Ok(Vec::new()) }
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
