//! `/api/tidegate/…`: what the page needs beyond the search API.

use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use axum::{Extension, Json, Router};
use indexer::api::Role;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{IndexWork, Refusal, Shared, setup};
use crate::lake::{ContextPlace, LETTERS_MAX};

const LIST_DEFAULT: usize = 50;

fn router() -> Router<Shared> {
    Router::new()
        .route("/environments", get(environments))
        .route("/setup", get(setup))
        .route("/pipeline", get(pipeline))
        .route("/index/{partition}/merge", post(merge_index))
        .route("/index/{partition}/check", post(check_index))
        .route("/index/{partition}/rebuild", post(rebuild_index))
        .route("/dead-letters", get(dead_letters))
        .route("/dead-letters/{id}", get(dead_letter))
        .route("/projects/{project}/environments/{environment}/contexts/{kind}/{key}/evaluations", get(evaluations))
        .fallback(unknown)
}

/// Lets a request pass if its token is known, and notes its role.
async fn guard(State(shared): State<Shared>, mut request: Request, next: Next) -> Response {
    let Some(role) = shared.access.role_of(request.headers()) else {
        return Refusal::unauthorized(&shared.runtime).into_response();
    };
    request.extensions_mut().insert(role);
    let mut answer = next.run(request).await;
    // Answers hold what users did; nothing on the way may keep them.
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// All endpoints, behind the token check.
pub fn guarded(shared: &Shared) -> Router<Shared> {
    router().layer(middleware::from_fn_with_state(shared.clone(), guard))
}

/// What answers for the search API where the index is switched off: not "unknown", which would blame the client.
pub fn without_index(shared: &Shared) -> Router {
    Router::new()
        .route("/api/v2/{*path}", any(index_is_off))
        .layer(middleware::from_fn_with_state(shared.clone(), guard))
        .with_state(shared.clone())
}

async fn index_is_off(State(shared): State<Shared>) -> Refusal {
    Refusal::switched_off(&shared.runtime, "the context index is switched off here (indexer.enabled = false)")
}

async fn unknown(State(shared): State<Shared>) -> Refusal {
    Refusal::not_found(&shared.runtime, "there is no such endpoint")
}

async fn environments(State(shared): State<Shared>) -> Json<Value> {
    let items: Vec<Value> = shared
        .environments
        .iter()
        .map(|config| {
            let environment = events::Environment::new(&config.project, &config.key);
            json!({"project": config.project, "environment": config.key, "_environmentId": environment.id()})
        })
        .collect();
    Json(json!({"items": items}))
}

async fn setup(
    State(shared): State<Shared>,
    Extension(role): Extension<Role>,
    headers: HeaderMap,
) -> Result<Json<Value>, Refusal> {
    if role != Role::Writer {
        return Err(Refusal::forbidden(
            &shared.runtime,
            "keys of environments are shown to tokens with the role writer",
        ));
    }
    let url = setup::events_url(&headers, &shared.authority);
    Ok(Json(setup::answer(&url, &shared.environments, shared.runtime.clock.now())))
}

async fn pipeline(State(shared): State<Shared>) -> Json<Value> {
    Json(shared.stages.pipeline().await)
}

async fn merge_index(
    State(shared): State<Shared>,
    Extension(role): Extension<Role>,
    Path(partition): Path<String>,
) -> Result<Json<Value>, Refusal> {
    index_work(&shared, role, &partition, IndexWork::Merge).await
}

async fn rebuild_index(
    State(shared): State<Shared>,
    Extension(role): Extension<Role>,
    Path(partition): Path<String>,
) -> Result<Json<Value>, Refusal> {
    index_work(&shared, role, &partition, IndexWork::Rebuild).await
}

/// `?repair=true`
#[derive(Deserialize)]
struct Repair {
    repair: Option<String>,
}

async fn check_index(
    State(shared): State<Shared>,
    Extension(role): Extension<Role>,
    Path(partition): Path<String>,
    Query(repair): Query<Repair>,
) -> Result<Json<Value>, Refusal> {
    let repairs = match repair.repair.as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(Refusal::invalid(&shared.runtime, "repair: expected true or false")),
    };
    index_work(&shared, role, &partition, IndexWork::Check { repairs }).await
}

async fn index_work(shared: &Shared, role: Role, partition: &str, work: IndexWork) -> Result<Json<Value>, Refusal> {
    if role != Role::Writer {
        return Err(Refusal::forbidden(&shared.runtime, "work on the index takes a token with the role writer"));
    }
    let unknown = || Refusal::not_found(&shared.runtime, "there is no such shard of the index here");
    let partition = partition.parse().map_err(|_| unknown())?;
    match shared.stages.index_work(partition, work).await {
        Ok(Some(done)) => Ok(Json(done)),
        Ok(None) => Err(unknown()),
        Err(error) => Err(Refusal::unavailable(&shared.runtime, &error)),
    }
}

/// `?limit=`; text, so that a wrong one is answered in our form.
#[derive(Deserialize)]
struct Limit {
    limit: Option<String>,
}

impl Limit {
    fn checked(&self, shared: &Shared) -> Result<usize, Refusal> {
        let Some(text) = &self.limit else { return Ok(LIST_DEFAULT) };
        match text.parse::<usize>() {
            Ok(limit @ 1..) => Ok(limit.min(LETTERS_MAX)),
            _ => Err(Refusal::invalid(
                &shared.runtime,
                format!("limit: expected a whole number from 1 to {LETTERS_MAX}"),
            )),
        }
    }
}

async fn dead_letters(State(shared): State<Shared>, Query(limit): Query<Limit>) -> Result<Json<Value>, Refusal> {
    let limit = limit.checked(&shared)?;
    match shared.tables.dead_letters(limit).await {
        Ok(items) => Ok(Json(json!({"items": items}))),
        Err(error) => Err(Refusal::unavailable(&shared.runtime, &error)),
    }
}

async fn dead_letter(State(shared): State<Shared>, Path(id): Path<String>) -> Result<Json<Value>, Refusal> {
    match shared.tables.dead_letter(&id).await {
        Ok(Some((mut letter, body))) => {
            match String::from_utf8(body) {
                Ok(text) => letter["body"] = text.into(),
                Err(error) => {
                    use base64::Engine;
                    letter["bodyBase64"] = base64::engine::general_purpose::STANDARD.encode(error.as_bytes()).into();
                }
            }
            Ok(Json(letter))
        }
        Ok(None) => Err(Refusal::not_found(&shared.runtime, "no dead letter has this id")),
        Err(error) => Err(Refusal::unavailable(&shared.runtime, &error)),
    }
}

async fn evaluations(
    State(shared): State<Shared>,
    Path((project, environment, kind, key)): Path<(String, String, String, String)>,
    Query(limit): Query<Limit>,
) -> Result<Json<Value>, Refusal> {
    let limit = limit.checked(&shared)?;
    if !shared.environments.iter().any(|known| known.project == project && known.key == environment) {
        return Err(Refusal::not_found(&shared.runtime, "there is no such environment"));
    }
    match shared.tables.evaluations(ContextPlace { project, environment, kind, key }, limit).await {
        Ok(items) => Ok(Json(json!({"items": items}))),
        Err(error) => Err(Refusal::unavailable(&shared.runtime, &error)),
    }
}
