//! Erasing contexts: asking for it, and how it stands. Ours.
//!
//! In: a filter or contexts by name, and a time. Out: an erasure with an id, and later its certificate.
//! Promise: what is asked was checked before it is noted: the filter reads, and names something.
//! Not here: the erasure itself. More than the index takes part in it, so whoever composes the program hands in
//! [`Erasures`]; the token's role travels with the request, as the certificate names it.

use axum::body::Bytes;
use events::Environment;
use events::context::is_valid_kind;
use futures::future::BoxFuture;
use http::{Method, StatusCode};
use runtime::UnixMicros;
use serde::Deserialize;
use serde_json::{Value, json};

use super::access::Role;
use super::answers::{Answer, Link, Problem, json, path_segment, to_json};
use super::{Api, Call};
use crate::ContextName;
use crate::filter::{Filter, FilterTime, Subject};

/// Contexts that one request names.
const CONTEXTS_MAX: usize = 1_000;
/// Furthest that an erasure is set ahead: a year.
const AHEAD_MAX_MICROS: i64 = 366 * 86_400 * 1_000_000;
/// Ids of erasures begin so; contexts of a kind `erasures` with other keys keep their path.
pub const ID_PREFIX: &str = "erasure-";

/// What is to be erased.
#[derive(Clone, Debug, PartialEq)]
pub enum ErasureSubject {
    /// All contexts that match when the time has come; the text was checked.
    Filter(String),
    Contexts(Vec<ContextName>),
}

/// An erasure that somebody asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct AskedErasure {
    pub environment: Environment,
    pub subject: ErasureSubject,
    /// When it begins; what is received later stays.
    pub at: UnixMicros,
    pub role: Role,
}

/// Why an erasure was not noted.
#[derive(Debug, thiserror::Error)]
pub enum ErasureRefusal {
    #[error("{0} erasures are not done yet; ask again when some are")]
    TooMany(usize),
    #[error("the erasure could not be written down: {0}")]
    NotNoted(std::io::Error),
}

/// Runs erasures, and remembers them.
pub trait Erasures: Send + Sync {
    /// Notes an erasure durably; it is carried out whatever happens then. Returns how it stands.
    fn ask(&self, asked: AskedErasure) -> BoxFuture<'_, Result<Value, ErasureRefusal>>;

    /// All erasures of an environment that are remembered, newest first.
    fn list(&self, environment: &Environment) -> Vec<Value>;

    /// How one stands, and its certificate when it is done.
    fn find(&self, environment: &Environment, id: &str) -> Option<Value>;
}

#[derive(Deserialize)]
struct Body {
    filter: Option<String>,
    contexts: Option<Vec<Named>>,
    at: Option<Value>,
}

#[derive(Deserialize)]
struct Named {
    kind: String,
    key: String,
}

impl Api {
    pub(super) async fn erasures(&self, call: &Call<'_>, method: &Method, body: &Bytes) -> Result<Answer, Problem> {
        let erasures = self.access.erasures.as_ref();
        let erasures = erasures.ok_or_else(|| Problem::unavailable("this process cannot erase"))?;
        if *method != Method::POST {
            let items: Vec<Value> =
                erasures.list(call.environment).into_iter().map(|one| with_links(call.environment, one)).collect();
            return Ok(Answer::ok(&json!({ "items": items })));
        }
        let now = self.runtime().clock.now();
        let (subject, at) = read(body, now)?;
        let asked = AskedErasure { environment: call.environment.clone(), subject, at, role: call.role };
        let noted = erasures.ask(asked).await.map_err(|refusal| match refusal {
            ErasureRefusal::TooMany(_) => Problem::too_many(&refusal.to_string()),
            ErasureRefusal::NotNoted(_) => {
                Problem::unavailable("the erasure could not be written down").with_detail(refusal.to_string())
            }
        })?;
        let noted = with_links(call.environment, noted);
        Ok(Answer { response: json(StatusCode::ACCEPTED, to_json(&noted)), is_partial: false })
    }

    pub(super) fn erasure(&self, call: &Call<'_>, id: &str) -> Result<Answer, Problem> {
        let found = self.access.erasures.as_ref().and_then(|erasures| erasures.find(call.environment, id));
        let found = found.ok_or_else(|| Problem::not_found("there is no such erasure"))?;
        Ok(Answer::ok(&with_links(call.environment, found)))
    }
}

/// What is to be erased, and when.
fn read(body: &[u8], now: UnixMicros) -> Result<(ErasureSubject, UnixMicros), Problem> {
    let body: Body = serde_json::from_slice(body).map_err(|error| Problem::invalid(format!("body: {error}")))?;
    let subject = match (body.filter, body.contexts) {
        (Some(filter), None) => by_filter(filter)?,
        (None, Some(contexts)) => ErasureSubject::Contexts(by_name(contexts)?),
        _ => return Err(Problem::invalid("expected either filter or contexts")),
    };
    let at = match body.at.filter(|at| !at.is_null()) {
        None => now,
        Some(at) => {
            let time = FilterTime::read(&at);
            let time = time.ok_or_else(|| Problem::invalid("at: expected RFC 3339 text or epoch milliseconds"))?;
            UnixMicros(time.last_micros()).max(now)
        }
    };
    if at.0 - now.0 > AHEAD_MAX_MICROS {
        return Err(Problem::invalid("at: expected a time within a year"));
    }
    Ok((subject, at))
}

fn by_filter(filter: String) -> Result<ErasureSubject, Problem> {
    // Everything is a lot to erase by leaving something out.
    if Filter::parse(&filter, Subject::Contexts)?.root.is_none() {
        return Err(Problem::invalid("filter: expected what to erase; `key startsWith \"\"` is everything"));
    }
    Ok(ErasureSubject::Filter(filter))
}

fn by_name(contexts: Vec<Named>) -> Result<Vec<ContextName>, Problem> {
    if contexts.is_empty() || contexts.len() > CONTEXTS_MAX {
        return Err(Problem::invalid(format!("contexts: expected 1 to {CONTEXTS_MAX}, or a filter")));
    }
    if let Some(wrong) = contexts.iter().find(|named| !is_valid_kind(&named.kind)) {
        return Err(Problem::invalid(format!("contexts: {:?} is no kind", wrong.kind)));
    }
    Ok(contexts.into_iter().map(|Named { kind, key }| (kind, key)).collect())
}

fn with_links(environment: &Environment, mut erasure: Value) -> Value {
    let (project, key) = (path_segment(&environment.project), path_segment(&environment.key));
    let parent = format!("/api/v2/projects/{project}/environments/{key}");
    let id = path_segment(erasure["id"].as_str().unwrap_or_default());
    let itself = Link::json(format!("{parent}/contexts/erasures/{id}"));
    erasure["_links"] = json!({ "self": itself, "parent": Link::json(parent) });
    erasure
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMicros = UnixMicros(1_795_341_600_000_000);

    #[test]
    fn either_a_filter_or_names() {
        let subject = |body: &str| read(body.as_bytes(), NOW).map(|(subject, _)| subject).ok();
        let filter = ErasureSubject::Filter("plan equals gold".into());
        assert_eq!(subject(r#"{"filter": "plan equals gold"}"#), Some(filter));
        let names = ErasureSubject::Contexts(vec![("user".into(), "a/b".into())]);
        assert_eq!(subject(r#"{"contexts": [{"kind": "user", "key": "a/b"}]}"#), Some(names));
        let many = format!(r#"{{"contexts": [{}]}}"#, vec![r#"{"kind":"user","key":"k"}"#; 1_001].join(","));
        for wrong in [
            "",
            "{}",
            "[]",
            r#"{"filter": ""}"#,
            r#"{"filter": "kind like user"}"#,
            r#"{"filter": "key equals a", "contexts": [{"kind": "user", "key": "a"}]}"#,
            r#"{"contexts": []}"#,
            r#"{"contexts": [{"kind": "multi", "key": "a"}]}"#,
            &many,
        ] {
            assert_eq!(subject(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn time_is_now_or_later() {
        let body = |at: &str| format!(r#"{{"filter": "key equals a", "at": {at}}}"#);
        let at = |at: &str| read(body(at).as_bytes(), NOW).map(|(_, at)| at).ok();
        assert_eq!(at("null"), Some(NOW));
        assert_eq!(at("\"2020-01-01T00:00:00Z\""), Some(NOW), "what has passed is now");
        assert_eq!(at(&(NOW.as_millis() + 5).to_string()), Some(UnixMicros(NOW.0 + 5_000)));
        for wrong in ["\"tomorrow\"", "\"2099-01-01T00:00:00Z\"", "true"] {
            assert_eq!(at(wrong), None, "{wrong}");
        }
    }
}
