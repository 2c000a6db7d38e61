//! Errors of the page's endpoints, in the form of the search API.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use runtime::Runtime;
use serde_json::json;

/// An answer other than 200. The id is in the log too where there is more to say there.
#[derive(Debug)]
pub struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: String,
    id: String,
}

impl Refusal {
    fn new(runtime: &Runtime, status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), id: runtime.entropy.uuid().to_string() }
    }

    pub fn invalid(runtime: &Runtime, message: impl Into<String>) -> Self {
        Self::new(runtime, StatusCode::BAD_REQUEST, "invalid_request", message)
    }

    pub fn unauthorized(runtime: &Runtime) -> Self {
        Self::new(
            runtime,
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "an API token is needed in the Authorization header",
        )
    }

    pub fn forbidden(runtime: &Runtime, message: &str) -> Self {
        Self::new(runtime, StatusCode::FORBIDDEN, "forbidden", message)
    }

    pub fn not_found(runtime: &Runtime, message: &str) -> Self {
        Self::new(runtime, StatusCode::NOT_FOUND, "not_found", message)
    }

    /// A stage that would have to answer does not run in this process.
    pub fn switched_off(runtime: &Runtime, message: &str) -> Self {
        Self::new(runtime, StatusCode::SERVICE_UNAVAILABLE, "service_unavailable", message)
    }

    /// The tables could not be asked. The reason goes to the log; it may name files.
    pub fn unavailable(runtime: &Runtime, error: &anyhow::Error) -> Self {
        let refusal =
            Self::new(runtime, StatusCode::SERVICE_UNAVAILABLE, "service_unavailable", "the tables cannot be read now");
        tracing::warn!(id = refusal.id, error = format!("{error:#}"), "question to the tables failed");
        refusal
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = json!({"code": self.code, "message": self.message, "id": self.id});
        (self.status, Json(body)).into_response()
    }
}
