//! The REST API of context search: paths, credentials, errors and CORS. Handlers are in the modules below.
//!
//! In: any request under `/api/v2`. Out: JSON, errors too; wishes to forget go into the log.
//! Promise: 401 before anything about the data is told; one table turns errors into answers.
//! Not here: the listener, its time-outs and the rest of its paths.
//! Source: context-search-api sections 2 to 9; the export and erasures are ours.

mod access;
mod answers;
mod asker;
mod attributes;
mod contexts;
mod erasures;
mod export;
mod instances;
mod kinds;
mod params;
mod rates;
mod routes;
mod shards;
mod users;

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::any;
use events::Environment;
use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode};
use runtime::Runtime;
use tokio::sync::Semaphore;

pub use access::{ApiAccess, ApiToken, Generation, Role};
pub use answers::rfc3339;
pub use asker::Source;
pub use erasures::{AskedErasure, ErasureRefusal, ErasureSubject, Erasures, ID_PREFIX};
pub use rates::RateLimits;
pub use shards::shards_router;

use crate::wish::{self, Wish};
use answers::{Answer, Problem};
use asker::{Asker, Lacks};
use export::Exports;
use kinds::KindBook;
use rates::{Rates, Verdict};
use routes::{Matched, Route};

/// The description of all routes, for tools.
const OPEN_API: &str = include_str!("api/openapi.json");

/// Largest body of a search without keys: its filter is at most 8 KiB.
const BODY_BYTES_MAX: usize = 64 << 10;
/// Largest body with keys: ten thousand of the longest.
const LARGE_BODY_BYTES_MAX: usize = 12 << 20;
/// Bodies beyond [`BODY_BYTES_MAX`] that are in memory at once.
const LARGE_BODIES_MAX: usize = 2;
/// Searches that run at once; more wait their turn.
const SEARCHES_MAX: usize = 32;

/// Versions of the API that clients name; all behave alike.
const API_VERSIONS: [&str; 6] = ["20240415", "20220603", "20210729", "20191212", "20160426", "beta"];

const ALLOWED_METHODS: &str = "OPTIONS, GET, POST, PUT, DELETE, PATCH";
const ALLOWED_HEADERS: &str = "Accept, Content-Type, Content-Length, Accept-Encoding, Authorization, LD-API-Version, \
                               X-LaunchDarkly-User-Agent, X-HTTP-Method-Override";
const EXPOSED_HEADERS: &str = "X-Ratelimit-Global-Remaining, X-Ratelimit-Route-Remaining, X-Ratelimit-Reset, \
                               Retry-After, X-Tidegate-Index, X-Tidegate-Continuation-Token, X-Tidegate-Row-Count, \
                               X-Tidegate-Total-Count";
/// Says `rebuilding` where an answer may lack contexts because a lost index is coming back, and `partial` where it may
/// because the search reached its budget or shards are missing.
const INDEX_STATE: HeaderName = HeaderName::from_static("x-tidegate-index");

struct Api {
    source: Source,
    access: ApiAccess,
    searches: Arc<Semaphore>,
    large_bodies: Semaphore,
    exports: Exports,
    kinds: KindBook,
    rates: Rates,
}

/// Answers everything under `/api/v2`.
pub fn router(source: impl Into<Source>, access: ApiAccess) -> Router {
    let kinds = KindBook::open(access.kinds_file.clone());
    let rates = Rates::new(access.rate_limits);
    let api = Arc::new(Api {
        source: source.into(),
        access,
        searches: Arc::new(Semaphore::new(SEARCHES_MAX)),
        large_bodies: Semaphore::new(LARGE_BODIES_MAX),
        exports: Exports::default(),
        kinds,
        rates,
    });
    Router::new()
        .route("/api/v2", any(handle))
        .route("/api/v2/", any(handle))
        .route("/api/v2/{*rest}", any(handle))
        .with_state(api)
}

async fn handle(State(api): State<Arc<Api>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let mut limits = None;
    let lacks = Arc::new(Lacks::default());
    let mut response = if parts.method == Method::OPTIONS {
        preflight()
    } else {
        match api.answer(&parts, body, &mut limits, &lacks).await {
            Ok(answer) => {
                let is_partial = answer.is_partial || lacks.shards();
                let mut response = answer.response;
                if let Some(state) = index_state(lacks.rebuilding(), is_partial) {
                    response.headers_mut().insert(INDEX_STATE, HeaderValue::from_static(state));
                }
                response
            }
            Err(problem) => problem.into_response(api.runtime().entropy.uuid(), parts.uri.path()),
        }
    };
    if let Some(verdict) = limits {
        verdict.write(response.headers_mut());
    }
    allow_origin(&parts.headers, response.headers_mut());
    response
}

fn index_state(is_rebuilding: bool, is_partial: bool) -> Option<&'static str> {
    match (is_rebuilding, is_partial) {
        (true, _) => Some("rebuilding"),
        (false, true) => Some("partial"),
        (false, false) => None,
    }
}

fn preflight() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(ALLOWED_METHODS));
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(ALLOWED_HEADERS));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("300"));
    response
}

fn allow_origin(request: &HeaderMap, response: &mut HeaderMap) {
    let origin = request.get(header::ORIGIN).cloned().unwrap_or(HeaderValue::from_static("*"));
    response.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    response.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED_HEADERS));
    response.insert(header::VARY, HeaderValue::from_static("Origin"));
}

/// A request whose credentials, route and environment are settled.
struct Call<'a> {
    environment: &'a Environment,
    /// Path as sent, for links.
    path: &'a str,
    query: &'a str,
    role: Role,
    /// What answers lacked so far.
    lacks: &'a Arc<Lacks>,
}

impl Call<'_> {
    /// What is answered where nothing was found: not that there is nothing, if it may be in a shard that is missing.
    fn unless_lacking(&self, nothing: Problem) -> Problem {
        if self.lacks.shards() { Problem::shards_are_missing() } else { nothing }
    }
}

impl Api {
    fn runtime(&self) -> &Runtime {
        self.source.runtime()
    }

    /// Serves a request. `limits`: where to put what the rate limits say of it; `lacks`: what the answer lacks.
    async fn answer(
        &self,
        parts: &Parts,
        body: Body,
        limits: &mut Option<Verdict>,
        lacks: &Arc<Lacks>,
    ) -> Result<Answer, Problem> {
        let method = effective_method(parts)?;
        let path = parts.uri.path();
        let matched = routes::find(path);
        if let Ok(Some(Matched { route: Route::OpenApi, .. })) = &matched
            && Route::OpenApi.allows(&method)
        {
            return Ok(Answer::json(OPEN_API));
        }
        let role = self.access.role_of(&parts.headers).ok_or_else(Problem::unauthorized)?;
        let is_erasure = method == Method::POST && matches!(&matched, Ok(Some(Matched { route: Route::Erasures, .. })));
        if (is_erasure || matches!(method, Method::PUT | Method::DELETE | Method::PATCH)) && role == Role::Reader {
            return Err(Problem::forbidden());
        }
        if let Some(version) = parts.headers.get("ld-api-version")
            && !API_VERSIONS.iter().any(|known| version.as_bytes() == known.as_bytes())
        {
            return Err(Problem::invalid("LD-API-Version: unknown version"));
        }
        let matched = matched?.ok_or_else(|| Problem::not_found("there is no such route"))?;
        let project_route = matches!(matched.route, Route::Kinds | Route::Kind);
        let environment = match project_route {
            true => None,
            false => {
                let found = self.access.environments.get(matched.place(0), matched.place(1));
                Some(found.ok_or_else(|| Problem::not_found("there is no such project or environment"))?)
            }
        };
        if !matched.route.allows(&method) {
            return Err(Problem::method_not_allowed());
        }
        *limits = self.rates.take(matched.route, &method, self.runtime().clock.now());
        if limits.is_some_and(|verdict| !verdict.is_allowed) {
            return Err(Problem::rate_limited());
        }
        let query = parts.uri.query().unwrap_or_default();
        match environment {
            Some(environment) => {
                self.serve(&Call { environment, path, query, role, lacks }, &matched, &method, body).await
            }
            None if matched.route == Route::Kinds => self.context_kinds(matched.place(0), path, query, lacks).await,
            None => self.upsert_kind(matched.place(0), matched.place(1), &read_body(body, BODY_BYTES_MAX).await?),
        }
    }

    /// Serves a request about an environment. `method`: one that the route has.
    async fn serve(&self, call: &Call<'_>, matched: &Matched, method: &Method, body: Body) -> Result<Answer, Problem> {
        let may_have_keys = matches!(matched.route, Route::ContextSearch | Route::ContextExport);
        // Held until the answer begins, as long as what was read.
        let mut _large = None;
        let body = match *method == Method::POST {
            true if may_have_keys && is_large(&body) => {
                let place = self.large_bodies.acquire().await;
                _large = Some(place.map_err(|_| Problem::unavailable("shutting down"))?);
                read_body(body, LARGE_BODY_BYTES_MAX).await?
            }
            true => read_body(body, BODY_BYTES_MAX).await?,
            false => Bytes::new(),
        };
        let is_delete = *method == Method::DELETE;
        let named = matched.place(2);
        match matched.route {
            Route::ContextSearch => self.search(call, &body).await,
            Route::Context => self.versions(call, named.to_owned(), matched.place(3).to_owned()).await,
            Route::ContextExport => self.export(call, &body).await,
            Route::Erasures => self.erasures(call, method, &body).await,
            Route::Erasure => self.erasure(call, named),
            Route::InstanceSearch => self.search_instances(call, &body).await,
            Route::Instance if is_delete => self.delete_instance(call, named).await,
            Route::Instance => self.instance(call, named).await,
            Route::AttributeNames => self.attribute_names(call).await,
            Route::AttributeValues => self.attribute_values(call, named.to_owned()).await,
            Route::UserSearch => self.search_users(call).await,
            Route::Users => self.users(call).await,
            Route::User if is_delete => self.delete_user(call, named).await,
            Route::User => self.user(call, named).await,
            Route::Kinds | Route::Kind | Route::OpenApi => Err(Problem::not_found("there is no such route")),
        }
    }

    /// Writes down what is to be forgotten. It is gone from searches as soon as the index has read that.
    async fn forget(&self, environment: &Environment, wishes: &[Wish]) -> Result<(), Problem> {
        let Some(log) = &self.access.log else {
            return Err(Problem::unavailable("this process cannot write to the log"));
        };
        let now = self.runtime().clock.now();
        match wish::append(log.as_ref(), environment, wishes, now).await {
            Ok(()) => Ok(()),
            Err(error) => Err(Problem::unavailable("the log takes nothing now").with_detail(error.to_string())),
        }
    }

    /// Runs a search where blocking is allowed. `lacks`: where to note what its answers lack.
    async fn blocking<T: Send + 'static>(
        &self,
        lacks: &Arc<Lacks>,
        work: impl FnOnce(&Asker) -> crate::Result<T> + Send + 'static,
    ) -> Result<T, Problem> {
        let permit = Arc::clone(&self.searches).acquire_owned().await;
        let permit = permit.map_err(|_| Problem::unavailable("shutting down"))?;
        let asker = Asker { source: self.source.clone(), lacks: Arc::clone(lacks) };
        // A search whose client has gone runs on to its end, and counts as running until then; one that waits never begins.
        let work = move || {
            let _permit = permit;
            work(&asker)
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(result) => Ok(result?),
            Err(error) => Err(Problem::internal(format!("a search panicked: {error}"))),
        }
    }
}

/// A POST may stand for another method.
fn effective_method(parts: &Parts) -> Result<Method, Problem> {
    const OVERRIDE: HeaderName = HeaderName::from_static("x-http-method-override");
    let Some(wanted) = parts.headers.get(OVERRIDE).filter(|_| parts.method == Method::POST) else {
        return Ok(parts.method.clone());
    };
    match wanted.as_bytes().trim_ascii().to_ascii_uppercase().as_slice() {
        b"PUT" => Ok(Method::PUT),
        b"DELETE" => Ok(Method::DELETE),
        b"PATCH" => Ok(Method::PATCH),
        b"POST" => Ok(Method::POST),
        _ => Err(Problem::invalid("X-HTTP-Method-Override: expected PUT, DELETE or PATCH")),
    }
}

/// Whether a body may be larger than those without keys.
fn is_large(body: &Body) -> bool {
    http_body::Body::size_hint(body).upper().is_none_or(|bytes| bytes > BODY_BYTES_MAX as u64)
}

async fn read_body(body: Body, bytes_max: usize) -> Result<Bytes, Problem> {
    to_bytes(body, bytes_max)
        .await
        .map_err(|_| Problem::invalid(format!("the body could not be read or exceeds {bytes_max} bytes")))
}
