//! Bodies of answers, and the one table from errors to answers.
//!
//! Absent optional fields are left out, never null: older clients refuse null.
//! Source: context-search-api sections 2.3, 2.4, 4.1 and 7.

use axum::body::Body;
use axum::response::Response;
use chrono::{DateTime, SecondsFormat};
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use runtime::{ErrorKind, UnixMicros};
use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::Error;
use crate::token::TokenError;

/// A link. Relative.
#[derive(Debug, Serialize)]
pub struct Link {
    pub href: String,
    #[serde(rename = "type")]
    pub media_type: &'static str,
}

impl Link {
    pub fn json(href: String) -> Self {
        Self { href, media_type: "application/json" }
    }

    pub fn html(href: String) -> Self {
        Self { href, media_type: "text/html" }
    }
}

#[derive(Debug, Serialize)]
pub struct PageLinks {
    #[serde(rename = "self")]
    pub itself: Link,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<Link>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Contexts {
    #[serde(rename = "_environmentId")]
    pub environment_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_count: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub continuation_token: Option<String>,
    /// Ours: the search reached its budget, so there may be more matches than these. Left out where it is not so.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_partial: bool,
    pub items: Vec<ContextItem>,
    #[serde(rename = "_links")]
    pub links: PageLinks,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ContextItem {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub application_id: Option<String>,
    pub associated_contexts: i32,
    pub context: Box<RawValue>,
    #[serde(rename = "_links")]
    pub links: ContextLinks,
}

#[derive(Debug, Serialize)]
pub struct ContextLinks {
    #[serde(rename = "self")]
    pub itself: Link,
    pub parent: Link,
    pub site: Link,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AttributeNames {
    /// Ours: there may be more than these. Left out where it is not so.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_partial: bool,
    pub items: Vec<NamesOfKind>,
}

#[derive(Debug, Serialize)]
pub struct NamesOfKind {
    pub kind: String,
    pub names: Vec<AttributeName>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AttributeName {
    pub name: String,
    pub weight: i32,
    /// Ours: not all contexts were counted.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_estimate: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub redacted: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AttributeValues {
    /// As of [`AttributeNames`].
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_partial: bool,
    pub items: Vec<ValuesOfKind>,
}

#[derive(Debug, Serialize)]
pub struct ValuesOfKind {
    pub kind: String,
    pub values: Vec<AttributeValue>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AttributeValue {
    pub name: serde_json::Value,
    pub weight: i32,
    /// As of [`AttributeName`].
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_estimate: bool,
}

/// A count as clients can hold it: 32 bits.
pub fn saturated(count: u64) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// RFC 3339 in UTC, with as many fraction digits as it takes; None beyond the years it can name.
pub fn rfc3339(time: UnixMicros) -> Option<String> {
    let format = if time.0 % 1_000 == 0 { SecondsFormat::Millis } else { SecondsFormat::Micros };
    DateTime::from_timestamp_micros(time.0).map(|time| time.to_rfc3339_opts(format, true))
}

const UNRESERVED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// One segment of a path.
pub fn path_segment(text: &str) -> String {
    utf8_percent_encode(text, &UNRESERVED).to_string()
}

/// A query string; a blank becomes a plus.
pub fn query_string(parameters: &[(&str, &str)]) -> String {
    let encode = |text: &str| utf8_percent_encode(text, &UNRESERVED).to_string().replace("%20", "+");
    let pairs: Vec<_> = parameters.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
    pairs.join("&")
}

/// A request that was served.
#[derive(Debug)]
pub struct Answer {
    pub response: Response,
    /// A search reached its budget: there may be more matches.
    pub is_partial: bool,
}

impl Answer {
    pub fn no_content() -> Self {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        Self { response, is_partial: false }
    }

    pub fn ok<T: Serialize>(answer: &T) -> Self {
        Self::json(to_json(answer))
    }

    /// `text`: JSON.
    pub fn json(text: impl Into<Body>) -> Self {
        Self { response: json(StatusCode::OK, text), is_partial: false }
    }

    pub fn partial_if(self, is_partial: bool) -> Self {
        Self { is_partial, ..self }
    }
}

pub fn to_json<T: Serialize>(answer: &T) -> Vec<u8> {
    serde_json::to_vec(answer).expect("answers have text keys and finite numbers")
}

pub fn json(status: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Why a request was not answered, in the words for the client.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    message: String,
    /// For the log alone.
    detail: Option<String>,
}

#[derive(Serialize)]
struct ProblemBody<'a> {
    code: &'a str,
    message: &'a str,
    id: String,
}

impl Problem {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), detail: None }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", message)
    }

    pub fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "the Authorization header must hold an API token")
    }

    pub fn forbidden() -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", "this token may only read")
    }

    pub fn not_found(message: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    pub fn method_not_allowed() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this route has no such method")
    }

    pub fn rate_limited() -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", "too many requests in ten seconds, try again later")
    }

    pub fn too_many(message: &str) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", message)
    }

    /// What only the server's log shall say.
    pub fn with_detail(self, detail: String) -> Self {
        Self { detail: Some(detail), ..self }
    }

    pub fn unavailable(message: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "service_unavailable", message)
    }

    pub fn shards_are_missing() -> Self {
        Self::unavailable("shards of the index are missing, try again later")
    }

    pub fn internal(detail: String) -> Self {
        let problem = Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "something failed on our side");
        Self { detail: Some(detail), ..problem }
    }

    /// `id`: fresh for each error, also in the server's log.
    pub fn into_response(self, id: Uuid, path: &str) -> Response {
        if let Some(detail) = &self.detail {
            tracing::error!(%id, path, detail, "request failed");
        } else {
            tracing::debug!(%id, path, status = self.status.as_u16(), message = self.message, "request refused");
        }
        let body = ProblemBody { code: self.code, message: &self.message, id: id.to_string() };
        json(self.status, to_json(&body))
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error.kind() {
            ErrorKind::Reject => Self::invalid(error.to_string()),
            ErrorKind::Overloaded => Self::invalid(error.to_string()),
            ErrorKind::Retry if matches!(error, Error::Unreached { .. }) => Self::shards_are_missing(),
            ErrorKind::Retry => Self { detail: Some(error.to_string()), ..Self::unavailable("the index is not ready") },
            ErrorKind::Corrupt | ErrorKind::Fatal => Self::internal(error.to_string()),
        }
    }
}

impl From<crate::FilterError> for Problem {
    fn from(error: crate::FilterError) -> Self {
        Self::invalid(error.to_string())
    }
}

impl From<TokenError> for Problem {
    fn from(error: TokenError) -> Self {
        Self::invalid(error.to_string())
    }
}
