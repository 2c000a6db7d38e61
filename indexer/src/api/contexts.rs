//! Searching contexts, and the versions of one context.
//!
//! Source: context-search-api sections 4.1 and 4.2.

use events::Environment;

use super::answers::{
    Answer, ContextItem, ContextLinks, Contexts, Link, PageLinks, Problem, path_segment, query_string, rfc3339,
    saturated,
};
use super::params::{Order, Params, binding_of};
use super::{Api, Call};
use crate::ask::Ask;
use crate::filter::evaluate::{Candidate, matches};
use crate::filter::{Field, Filter, FilterError, Subject};
use crate::page::{Place, Sort};
use crate::ranked::{BestMatch, Ranking};
use crate::search::{FoundContext, SearchRequest};
use crate::token::{self, Binding, TokenError};

const LIMIT_DEFAULT: usize = 20;
const LIMIT_MAX: usize = 50;

impl Api {
    pub(super) async fn search(&self, call: &Call<'_>, body: &[u8]) -> Result<Answer, Problem> {
        let params = Params::from_query(call.query)?.with_body(body)?;
        let asked = Asked::new(call, params, self, Subject::Contexts, &[])?;
        let (request, ranking) = (asked.request(call), asked.ranking.clone());
        let page = self
            .blocking(call.lacks, move |asker| match ranking {
                Some(ranking) => asker.search_ranked(&request, &ranking),
                None => asker.search(&request),
            })
            .await?;
        let answer = answer(&asked, call, page.contexts, page.total, page.next, page.is_partial);
        Ok(Answer::ok(&answer).partial_if(page.is_partial))
    }

    pub(super) async fn versions(&self, call: &Call<'_>, kind: String, key: String) -> Result<Answer, Problem> {
        let asked = Asked::new(call, Params::from_query(call.query)?, self, Subject::Contexts, &[&kind, &key])?;
        if let Some(other) = asked.filter.predicates().iter().find(|predicate| predicate.field != Field::Application) {
            return Err(FilterError::new(other.at, "only applicationId may be named here").into());
        }
        let environment = call.environment.clone();
        let mut versions = self.blocking(call.lacks, move |asker| asker.versions(&environment, &kind, &key)).await?;
        versions.retain(|version| {
            let candidate = Candidate {
                kind: &version.kind,
                key: &version.key,
                context: &serde_json::Map::new(),
                application: version.application.as_deref(),
                last_seen: version.last_seen,
            };
            matches(&asked.filter, &candidate, &|_| false)
        });
        let (versions, total, next) = asked.page_of(versions, FoundContext::version_place);
        Ok(Answer::ok(&answer(&asked, call, versions, total, next, call.lacks.shards())))
    }
}

fn answer(
    asked: &Asked,
    call: &Call<'_>,
    found: Vec<FoundContext>,
    total: u64,
    next: Option<Place>,
    is_partial: bool,
) -> Contexts {
    let (continuation_token, links) = asked.links(call, next);
    Contexts {
        environment_id: call.environment.id(),
        total_count: asked.total_count(total),
        continuation_token,
        is_partial,
        items: found.into_iter().map(|context| context_item(call.environment, context)).collect(),
        links,
    }
}

/// Checked parameters of a search or of a list of versions.
pub(super) struct Asked {
    pub filter: Filter,
    filter_text: String,
    sort: Option<Sort>,
    /// An order beside `sort`.
    ranking: Option<Ranking>,
    sort_name: Option<String>,
    limit: usize,
    include_total_count: bool,
    binding: Binding,
    token: Option<String>,
    has_keys: bool,
    after: Option<Place>,
}

impl Asked {
    /// `bound_to`: what the order of records depends on beside environment, filter and sort.
    pub fn new(
        call: &Call<'_>,
        params: Params,
        api: &Api,
        subject: Subject,
        bound_to: &[&str],
    ) -> Result<Self, Problem> {
        let mut filter = Filter::parse(params.filter_text(), subject)?;
        let keys = binding_of(params.keys.as_deref());
        if let Some(keys) = params.keys.clone() {
            if subject == Subject::Instances {
                return Err(Problem::invalid("keys: instances have none; name parts by kindKeys"));
            }
            filter = filter.with_keys(keys);
        }
        let may_rank = subject == Subject::Contexts && bound_to.is_empty();
        let (sort, ranking) = match params.sort(api.access.generation, may_rank)? {
            None => (None, BestMatch::of(&filter).filter(|_| may_rank).map(Ranking::BestMatch)),
            Some(Order::Column(sort)) => (Some(sort), None),
            Some(Order::Attribute(by)) => (None, Some(Ranking::Attribute(by))),
        };
        let filter_text = params.filter_text().trim().to_owned();
        let order = ranking.as_ref().map(Ranking::name).or(sort.and_then(Sort::name).map(str::to_owned));
        let order = order.unwrap_or_default();
        let id = call.environment.id();
        let parts = [id.as_str(), filter_text.as_str(), order.as_str(), keys.as_str()];
        let binding = Binding::new(&[&parts, bound_to].concat());
        let after = params.token.as_deref().map(|text| token::read(text, binding)).transpose()?;
        let is_foreign = |after: &Place| ranking.as_ref().is_some_and(|ranking| !ranking.has_place(after));
        if after.as_ref().is_some_and(is_foreign) {
            return Err(TokenError::Damaged.into());
        }
        Ok(Self {
            filter,
            sort,
            sort_name: params.has_sort().then_some(order),
            ranking,
            limit: params.limit(LIMIT_DEFAULT, LIMIT_MAX)?,
            include_total_count: params.include_total_count()?,
            binding,
            after,
            token: params.token,
            has_keys: params.keys.is_some(),
            filter_text,
        })
    }

    pub fn request(&self, call: &Call<'_>) -> SearchRequest {
        SearchRequest {
            environment: call.environment.clone(),
            filter: self.filter.clone(),
            sort: self.sort.unwrap_or_default(),
            limit: self.limit,
            after: self.after.clone(),
        }
    }

    /// The page of `versions` that is asked for, how many there are in all, and the place of its last one if there are more.
    /// Newest first where no order is asked for.
    pub fn page_of<V>(
        &self,
        mut versions: Vec<V>,
        place_of: impl Fn(&V, Sort) -> Place,
    ) -> (Vec<V>, u64, Option<Place>) {
        let sort = self.sort.unwrap_or(Sort::NewestFirst);
        versions.sort_by_cached_key(|version| place_of(version, sort));
        let total = versions.len() as u64;
        if let Some(after) = &self.after {
            versions.retain(|version| place_of(version, sort) > *after);
        }
        let next = (versions.len() > self.limit).then(|| place_of(&versions[self.limit - 1], sort));
        versions.truncate(self.limit);
        (versions, total, next)
    }

    pub fn total_count(&self, total: u64) -> Option<i32> {
        self.include_total_count.then(|| saturated(total))
    }

    /// The token of the next page, and the links of this one.
    pub fn links(&self, call: &Call<'_>, next: Option<Place>) -> (Option<String>, PageLinks) {
        let token = next.map(|place| token::write(&place, self.binding));
        let links = PageLinks {
            itself: Link::json(self.href(call, self.token.as_deref())),
            // A link cannot hold the keys: with them, the token belongs into a body like the one before.
            next: token.as_deref().filter(|_| !self.has_keys).map(|token| Link::json(self.href(call, Some(token)))),
        };
        (token, links)
    }

    /// The same question, with all parameters in the query whichever way they came.
    fn href(&self, call: &Call<'_>, token: Option<&str>) -> String {
        let limit = self.limit.to_string();
        let mut parameters = Vec::new();
        if !self.filter_text.is_empty() {
            parameters.push(("filter", self.filter_text.as_str()));
        }
        parameters.push(("limit", limit.as_str()));
        if let Some(sort) = &self.sort_name {
            parameters.push(("sort", sort));
        }
        if !self.include_total_count {
            parameters.push(("includeTotalCount", "false"));
        }
        if let Some(token) = token {
            parameters.push(("continuationToken", token));
        }
        format!("{}?{}", call.path, query_string(&parameters))
    }
}

fn context_item(environment: &Environment, found: FoundContext) -> ContextItem {
    let (project, key) = (path_segment(&environment.project), path_segment(&environment.key));
    let context = format!("contexts/{}/{}", path_segment(&found.kind), path_segment(&found.key));
    let parent = format!("/api/v2/projects/{project}/environments/{key}");
    ContextItem {
        last_seen: rfc3339(found.last_seen),
        application_id: found.application,
        associated_contexts: 1,
        context: found.context,
        links: ContextLinks {
            itself: Link::json(format!("{parent}/{context}")),
            parent: Link::json(parent),
            site: Link::html(format!("/{project}/{key}/{context}")),
        },
    }
}
