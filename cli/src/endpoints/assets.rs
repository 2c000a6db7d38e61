//! The page: its files, which are part of the program, and the headers that fence it in.

use std::hash::{DefaultHasher, Hash, Hasher};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::{Refusal, Shared};

/// Name and bytes of every file of the folder `dashboard`.
pub const FILES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/assets.rs"));

/// Attribute values come from strangers: should one ever reach the page as markup, it still runs and loads nothing.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub fn router() -> Router<Shared> {
    Router::new()
        .route("/", get(index))
        .route("/assets/{name}", get(asset))
        // The `site` links of the search API; the page turns them into its own form.
        .route("/{project}/{environment}/contexts", get(index))
        .route("/{project}/{environment}/contexts/{kind}/{key}", get(index))
}

async fn index(headers: HeaderMap, State(shared): State<Shared>) -> Response {
    serve("index.html", &headers, &shared)
}

async fn asset(headers: HeaderMap, Path(name): Path<String>, State(shared): State<Shared>) -> Response {
    serve(&name, &headers, &shared)
}

fn serve(name: &str, headers: &HeaderMap, shared: &Shared) -> Response {
    let Some((_, bytes)) = FILES.iter().find(|(known, _)| *known == name) else {
        return Refusal::not_found(&shared.runtime, "the page has no such file").into_response();
    };
    let tag = entity_tag(bytes);
    let fixed = [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        // Asked again each time, answered 304: a new version of the program is never mixed with old files.
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_TYPE, content_type(name)),
    ];
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    if known.is_some_and(|known| known.split(',').any(|one| one.trim().trim_start_matches("W/") == tag)) {
        return (StatusCode::NOT_MODIFIED, fixed, [(header::ETAG, tag)]).into_response();
    }
    (fixed, [(header::ETAG, tag)], *bytes).into_response()
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    }
}

fn entity_tag(bytes: &[u8]) -> String {
    // Deterministic keys: the tag is the same in every process of one build.
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    format!("\"{:016x}\"", hasher.finish())
}
