//! The REST API of context search: paths, credentials, errors and CORS. Handlers are in the modules below.
//!
//! In: any request under `/api/v2`. Out: JSON, errors too. Paths are split before they are decoded, as keys hold slashes.
//! Promise: 401 before anything about the data is told; one table turns errors into answers.
//! Not here: the listener, its time-outs and the rest of its paths.
//! Source: context-search-api sections 2, 4.1, 4.2, 5, 7 and 8.

mod access;
mod answers;
mod attributes;
mod contexts;
mod kinds;
mod params;

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
use percent_encoding::percent_decode_str;
use tokio::sync::Semaphore;

pub use access::{ApiAccess, ApiToken, Generation, Role};

use crate::Indexer;
use answers::{Problem, json};
use kinds::KindBook;

/// Largest body of a search: its filter is at most 8 KiB.
const BODY_BYTES_MAX: usize = 64 << 10;
/// Searches that run at once; more wait their turn.
const SEARCHES_MAX: usize = 32;

/// Versions of the API that clients name; all behave alike.
const API_VERSIONS: [&str; 6] = ["20240415", "20220603", "20210729", "20191212", "20160426", "beta"];

const ALLOWED_METHODS: &str = "OPTIONS, GET, POST, PUT, DELETE, PATCH";
const ALLOWED_HEADERS: &str = "Accept, Content-Type, Content-Length, Accept-Encoding, Authorization, LD-API-Version, \
                               X-LaunchDarkly-User-Agent, X-HTTP-Method-Override";
const EXPOSED_HEADERS: &str = "X-Ratelimit-Global-Remaining, X-Ratelimit-Route-Remaining, X-Ratelimit-Reset, \
                               Retry-After, X-Tidegate-Index";
/// Says `rebuilding` where an answer may lack contexts, because a lost index is coming back.
const INDEX_STATE: HeaderName = HeaderName::from_static("x-tidegate-index");

struct Api {
    indexer: Arc<Indexer>,
    access: ApiAccess,
    searches: Semaphore,
    kinds: KindBook,
}

/// Answers everything under `/api/v2`.
pub fn router(indexer: Arc<Indexer>, access: ApiAccess) -> Router {
    let kinds = KindBook::open(access.kinds_file.clone());
    let api = Arc::new(Api { indexer, access, searches: Semaphore::new(SEARCHES_MAX), kinds });
    Router::new()
        .route("/api/v2", any(handle))
        .route("/api/v2/", any(handle))
        .route("/api/v2/{*rest}", any(handle))
        .with_state(api)
}

async fn handle(State(api): State<Arc<Api>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let mut response = if parts.method == Method::OPTIONS {
        preflight()
    } else {
        match api.answer(&parts, body).await {
            Ok(answer) => {
                let mut response = json(StatusCode::OK, answer);
                if api.indexer.is_rebuilding() {
                    response.headers_mut().insert(INDEX_STATE, HeaderValue::from_static("rebuilding"));
                }
                response
            }
            Err(problem) => problem.into_response(api.indexer.runtime().entropy.uuid(), parts.uri.path()),
        }
    };
    allow_origin(&parts.headers, response.headers_mut());
    response
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

/// A route with what its path names.
enum Route {
    Search,
    Versions { kind: String, key: String },
    AttributeNames,
    AttributeValues { name: String },
}

impl Route {
    fn allows(&self, method: &Method) -> bool {
        matches!(*method, Method::GET | Method::HEAD) || (matches!(self, Self::Search) && *method == Method::POST)
    }
}

/// A request whose credentials, route and environment are settled.
struct Call<'a> {
    environment: &'a Environment,
    /// Path as sent, for links.
    path: &'a str,
    query: &'a str,
}

impl Api {
    async fn answer(&self, parts: &Parts, body: Body) -> Result<Vec<u8>, Problem> {
        let method = effective_method(parts);
        let role = self.access.role_of(&parts.headers).ok_or_else(Problem::unauthorized)?;
        if matches!(method, Method::PUT | Method::DELETE | Method::PATCH) && role == Role::Reader {
            return Err(Problem::forbidden());
        }
        if let Some(version) = parts.headers.get("ld-api-version")
            && !API_VERSIONS.iter().any(|known| version.as_bytes() == known.as_bytes())
        {
            return Err(Problem::invalid("LD-API-Version: unknown version"));
        }
        let path = parts.uri.path();
        let segments = decoded_segments(path)?;
        let no_route = || Problem::not_found("there is no such route");
        let query = parts.uri.query().unwrap_or_default();
        let (project, environment, route) = match target_of(&segments).ok_or_else(no_route)? {
            Target::Kinds { project } if matches!(method, Method::GET | Method::HEAD) => {
                return self.context_kinds(project, path, query).await;
            }
            Target::Kind { project, key } if method == Method::PUT => {
                return self.upsert_kind(project, key, &read_body(body).await?);
            }
            Target::Kinds { .. } | Target::Kind { .. } => return Err(Problem::method_not_allowed()),
            Target::Environment { project, environment, route } => (project, environment, route),
        };
        let environment = self
            .access
            .environments
            .get(project, environment)
            .ok_or_else(|| Problem::not_found("there is no such project or environment"))?;
        if !route.allows(&method) {
            return Err(Problem::method_not_allowed());
        }
        let call = Call { environment, path, query };
        match route {
            Route::Search => {
                let body = if method == Method::POST { read_body(body).await? } else { Bytes::new() };
                self.search(&call, &body).await
            }
            Route::Versions { kind, key } => self.versions(&call, kind, key).await,
            Route::AttributeNames => self.attribute_names(&call).await,
            Route::AttributeValues { name } => self.attribute_values(&call, name).await,
        }
    }

    /// Runs a search where blocking on files is allowed.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Indexer) -> crate::Result<T> + Send + 'static,
    ) -> Result<T, Problem> {
        let _permit = self.searches.acquire().await.map_err(|_| Problem::unavailable("shutting down"))?;
        let indexer = Arc::clone(&self.indexer);
        match tokio::task::spawn_blocking(move || work(&indexer)).await {
            Ok(result) => Ok(result?),
            Err(error) => Err(Problem::internal(format!("a search panicked: {error}"))),
        }
    }
}

/// A POST may stand for another method.
fn effective_method(parts: &Parts) -> Method {
    const OVERRIDE: HeaderName = HeaderName::from_static("x-http-method-override");
    if parts.method == Method::POST
        && let Some(wanted) = parts.headers.get(OVERRIDE).and_then(|wanted| Method::from_bytes(wanted.as_bytes()).ok())
        && matches!(wanted, Method::PUT | Method::DELETE | Method::PATCH)
    {
        return wanted;
    }
    parts.method.clone()
}

fn decoded_segments(path: &str) -> Result<Vec<String>, Problem> {
    let rest = path.strip_prefix("/api/v2").unwrap_or(path);
    let rest = rest.strip_prefix('/').unwrap_or(rest);
    rest.split('/')
        .map(|segment| {
            let decoded = percent_decode_str(segment).decode_utf8();
            decoded.map(|text| text.into_owned()).map_err(|_| Problem::invalid("the path is no UTF-8 text"))
        })
        .collect()
}

/// What a path names.
enum Target<'a> {
    Kinds { project: &'a str },
    Kind { project: &'a str, key: &'a str },
    Environment { project: &'a str, environment: &'a str, route: Route },
}

fn target_of(segments: &[String]) -> Option<Target<'_>> {
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let (project, environment, rest) = match segments.as_slice() {
        ["projects", project, "context-kinds"] => return Some(Target::Kinds { project }),
        ["projects", project, "context-kinds", key] => return Some(Target::Kind { project, key }),
        ["projects", project, "environments", environment, rest @ ..] => (project, environment, rest),
        _ => return None,
    };
    let route = match rest {
        ["contexts", "search"] => Route::Search,
        ["contexts", kind, key] => Route::Versions { kind: (*kind).to_owned(), key: (*key).to_owned() },
        ["context-attributes"] => Route::AttributeNames,
        ["context-attributes", name] => Route::AttributeValues { name: (*name).to_owned() },
        _ => return None,
    };
    Some(Target::Environment { project, environment, route })
}

async fn read_body(body: Body) -> Result<Bytes, Problem> {
    to_bytes(body, BODY_BYTES_MAX)
        .await
        .map_err(|_| Problem::invalid(format!("the body could not be read or exceeds {BODY_BYTES_MAX} bytes")))
}
