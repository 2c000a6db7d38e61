//! Instances: searching them, the versions of one, and deleting one.
//!
//! Source: context-search-api sections 4.3 to 4.5.

use events::context::canonical_parts;
use serde::Serialize;
use serde_json::Value;

use super::answers::{Answer, Link, PageLinks, Problem, path_segment, rfc3339};
use super::contexts::Asked;
use super::params::Params;
use super::{Api, Call};
use crate::ask::Ask;
use crate::filter::evaluate::{InstanceCandidate, instance_matches};
use crate::filter::{Field, FilterError, Subject};
use crate::instances::FoundInstance;
use crate::page::Place;
use crate::query::canonical_of_id;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Instances {
    #[serde(rename = "_environmentId")]
    environment_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    total_count: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    continuation_token: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    is_partial: bool,
    items: Vec<InstanceItem>,
    #[serde(rename = "_links")]
    links: PageLinks,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct InstanceItem {
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen: Option<String>,
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    application_id: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    anonymous_kinds: Vec<String>,
    context: Value,
    #[serde(rename = "_links")]
    links: InstanceLinks,
}

#[derive(Debug, Serialize)]
struct InstanceLinks {
    #[serde(rename = "self")]
    itself: Link,
    parent: Link,
}

impl Api {
    pub(super) async fn search_instances(&self, call: &Call<'_>, body: &[u8]) -> Result<Answer, Problem> {
        let params = Params::from_query(call.query)?.with_body(body)?;
        let asked = Asked::new(call, params, self, Subject::Instances, &["instances"])?;
        let request = asked.request(call);
        let page = self.blocking(call.lacks, move |asker| asker.search_instances(&request)).await?;
        let answer = answer(&asked, call, page.instances, page.total, page.next, page.is_partial);
        Ok(Answer::ok(&answer).partial_if(page.is_partial))
    }

    pub(super) async fn instance(&self, call: &Call<'_>, id: &str) -> Result<Answer, Problem> {
        let asked = Asked::new(call, Params::from_query(call.query)?, self, Subject::Instances, &["instance", id])?;
        if let Some(other) = asked.filter.predicates().iter().find(|predicate| predicate.field != Field::Application) {
            return Err(FilterError::new(other.at, "only applicationId may be named here").into());
        }
        let mut versions = match canonical_of(id) {
            Some(canonical) => {
                let environment = call.environment.clone();
                self.blocking(call.lacks, move |asker| asker.instance(&environment, &canonical)).await?
            }
            None => Vec::new(),
        };
        versions.retain(|version| {
            let application = version.application.as_deref();
            instance_matches(&asked.filter, &InstanceCandidate { canonical: &version.canonical, application })
        });
        let (versions, total, next) = asked.page_of(versions, FoundInstance::version_place);
        Ok(Answer::ok(&answer(&asked, call, versions, total, next, call.lacks.shards())))
    }

    pub(super) async fn delete_instance(&self, call: &Call<'_>, id: &str) -> Result<Answer, Problem> {
        let unknown = || Problem::not_found("there is no such context instance");
        let canonical = canonical_of(id).ok_or_else(unknown)?;
        let environment = call.environment.clone();
        let wishes =
            self.blocking(call.lacks, move |asker| asker.deletion_of_instance(&environment, &canonical)).await?;
        if wishes.is_empty() {
            return Err(call.unless_lacking(unknown()));
        }
        self.forget(call.environment, &wishes).await?;
        Ok(Answer::no_content())
    }
}

/// The canonical key that a path names: by its id, or as it is.
fn canonical_of(id: &str) -> Option<String> {
    canonical_of_id(id).or_else(|| canonical_parts(id).map(|_| id.to_owned()))
}

fn answer(
    asked: &Asked,
    call: &Call<'_>,
    found: Vec<FoundInstance>,
    total: u64,
    next: Option<Place>,
    is_partial: bool,
) -> Instances {
    let (continuation_token, links) = asked.links(call, next);
    Instances {
        environment_id: call.environment.id(),
        total_count: asked.total_count(total),
        continuation_token,
        is_partial,
        items: found.into_iter().map(|instance| item(call, instance)).collect(),
        links,
    }
}

fn item(call: &Call<'_>, found: FoundInstance) -> InstanceItem {
    let (project, key) = (path_segment(&call.environment.project), path_segment(&call.environment.key));
    let parent = format!("/api/v2/projects/{project}/environments/{key}");
    let id = found.id();
    InstanceItem {
        last_seen: rfc3339(found.last_seen),
        context: found.context(),
        links: InstanceLinks {
            itself: Link::json(format!("{parent}/context-instances/{}", path_segment(&id))),
            parent: Link::json(parent),
        },
        id,
        application_id: found.application,
        anonymous_kinds: found.anonymous_kinds,
    }
}
