//! What a client is told: event protocol, section 9.2, and its one table from errors to answers.
//!
//! No answer here is 413 or a redirect, and the only 4xx that pressure can cause is 429: anything else would end the
//! event sending of most SDKs until their process restarts.

use std::borrow::Cow;

use bytes::Bytes;
use events::DeadLetterReason;
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;

pub(crate) type OwnResponse = Response<Full<Bytes>>;

/// One answer of section 9.2. Clones are cheap enough to give the same one to every repeat of a payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub status: StatusCode,
    /// For programs; empty where there is no body.
    code: &'static str,
    /// For people.
    message: Cow<'static, str>,
    allow: Option<&'static str>,
}

impl Answer {
    /// Stored durably, or nothing to store.
    pub const ACCEPTED: Self = Self::new(StatusCode::ACCEPTED, "", "");
    pub const NO_CONTENT: Self = Self::new(StatusCode::NO_CONTENT, "", "");
    pub const UNKNOWN_KEY: Self =
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "the credential is not known here");
    pub const READER_TOKEN: Self = Self::new(
        StatusCode::FORBIDDEN,
        "forbidden",
        "the access token may only read; importing events needs the role writer",
    );
    pub const UNKNOWN_ENVIRONMENT: Self =
        Self::new(StatusCode::NOT_FOUND, "not_found", "no environment of that name or client-side id");
    pub const KEYS_NOT_LOADED: Self = Self::unavailable("the list of keys is not loaded yet");
    pub const NO_ROOM: Self = Self::unavailable("too many requests are waiting to be stored");
    pub const LOG_UNAVAILABLE: Self = Self::unavailable("the events could not be stored now");
    pub const BODY_TIMED_OUT: Self =
        Self::new(StatusCode::REQUEST_TIMEOUT, "timeout", "the body did not arrive in time");
    pub const BODY_BROKEN: Self =
        Self::new(StatusCode::BAD_REQUEST, "broken_body", "the connection ended before the body did");
    pub const OVER_RATE: Self = Self::new(
        StatusCode::TOO_MANY_REQUESTS,
        "rate_limited",
        "this environment sends more requests per second than it may",
    );

    const fn new(status: StatusCode, code: &'static str, message: &'static str) -> Self {
        Self { status, code, message: Cow::Borrowed(message), allow: None }
    }

    const fn unavailable(message: &'static str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
    }

    pub const fn method_not_allowed(allow: &'static str) -> Self {
        Self {
            status: StatusCode::METHOD_NOT_ALLOWED,
            code: "method_not_allowed",
            message: Cow::Borrowed("this path does not take that method"),
            allow: Some(allow),
        }
    }

    /// A body that is kept as a dead letter. 400, as SDKs survive it; never 413 or 415.
    pub fn unreadable(reason: DeadLetterReason, message: &str, byte_offset: Option<u64>) -> Self {
        let message = match byte_offset {
            Some(offset) => format!("{message} (at byte {offset})"),
            None => message.to_owned(),
        };
        Self { status: StatusCode::BAD_REQUEST, code: reason.as_str(), message: message.into(), allow: None }
    }

    pub fn into_response(self) -> OwnResponse {
        let body = if self.code.is_empty() { Bytes::new() } else { self.json() };
        let has_body = !body.is_empty();
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if has_body {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if matches!(self.status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        response
    }

    fn json(&self) -> Bytes {
        let mut text = String::with_capacity(40 + self.message.len());
        text.push_str("{\"code\":\"");
        text.push_str(self.code);
        text.push_str("\",\"message\":\"");
        for character in self.message.chars() {
            match character {
                '"' | '\\' => text.extend(['\\', character]),
                c if c.is_control() => text.push_str(&format!("\\u{:04x}", c as u32)),
                c => text.push(c),
            }
        }
        text.push_str("\"}");
        text.into()
    }
}

/// A small body of a known type.
pub(crate) fn content(content_type: &'static str, body: &'static [u8]) -> OwnResponse {
    let mut response = Response::new(Full::new(Bytes::from_static(body)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_is_valid_json_whatever_it_holds() {
        let answer = Answer::unreadable(DeadLetterReason::InvalidJson, "found \"\u{1}\\\" \u{fffd}", Some(17));
        let json: serde_json::Value = serde_json::from_slice(&answer.json()).unwrap();
        assert_eq!(json["code"], "invalid_json");
        assert_eq!(json["message"], "found \"\u{1}\\\" \u{fffd} (at byte 17)");
    }

    #[test]
    fn pressure_names_a_time_to_come_back() {
        for answer in [Answer::NO_ROOM, Answer::LOG_UNAVAILABLE, Answer::KEYS_NOT_LOADED, Answer::OVER_RATE] {
            assert_eq!(answer.into_response().headers()[RETRY_AFTER], "1");
        }
    }
}
