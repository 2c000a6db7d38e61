//! Cross-origin headers of the paths that browsers use: event protocol, section 3.
//!
//! They go on every response of these paths, errors too: without them a page sees a network error instead of the
//! status, and repeats what should not be repeated.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue};

/// Headers that SDK releases are known to send; what a preflight asks for beyond them is echoed.
const ALLOWED_HEADERS: &str = "Accept, Accept-Encoding, Authorization, Cache-Control, Content-Encoding, Content-Length, \
    Content-Type, X-LaunchDarkly-Event-Schema, X-LaunchDarkly-Instance-Id, X-LaunchDarkly-Payload-ID, \
    X-LaunchDarkly-Tags, X-LaunchDarkly-Unsummarized, X-LaunchDarkly-User-Agent, X-LaunchDarkly-Wrapper";

/// What the response needs of the request, kept while the request is consumed.
#[derive(Debug)]
pub(crate) struct Cors {
    origin: HeaderValue,
    headers: HeaderValue,
    methods: &'static str,
}

impl Cors {
    /// `methods`: what the path takes, such as `POST, OPTIONS`.
    pub fn of(request: &HeaderMap, allowed_origins: &[HeaderValue], methods: &'static str) -> Self {
        let headers = request.get(ACCESS_CONTROL_REQUEST_HEADERS).map_or_else(
            || HeaderValue::from_static(ALLOWED_HEADERS),
            |asked| {
                HeaderValue::from_bytes(&[ALLOWED_HEADERS.as_bytes(), b", ", asked.as_bytes()].concat())
                    .unwrap_or_else(|_| HeaderValue::from_static(ALLOWED_HEADERS))
            },
        );
        Self { origin: allowed_origin(request.get(ORIGIN), allowed_origins), headers, methods }
    }

    pub fn add_to(self, response: &mut HeaderMap) {
        if self.origin != "*" {
            response.insert(VARY, HeaderValue::from_static("Origin"));
        }
        response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, self.origin);
        response.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(self.methods));
        response.insert(ACCESS_CONTROL_ALLOW_HEADERS, self.headers);
        response.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Date"));
        response.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("false"));
        response.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("300"));
    }
}

/// The request's origin where every one is allowed or it is on the list; else the list's first, which the browser
/// then refuses with a message that names an origin which would work.
fn allowed_origin(origin: Option<&HeaderValue>, allowed: &[HeaderValue]) -> HeaderValue {
    match (origin, allowed.first()) {
        (Some(origin), None) => origin.clone(),
        (Some(origin), Some(_)) if allowed.contains(origin) => origin.clone(),
        (_, Some(first)) => first.clone(),
        (None, None) => HeaderValue::from_static("*"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(request: &[(&'static str, &'static str)], allowed: &[HeaderValue]) -> HeaderMap {
        let request = request.iter().map(|(n, v)| (n.parse().unwrap(), HeaderValue::from_static(v))).collect();
        let mut response = HeaderMap::new();
        Cors::of(&request, allowed, "POST, OPTIONS").add_to(&mut response);
        response
    }

    #[test]
    fn unheard_of_header_is_echoed() {
        let response = answered(&[("access-control-request-headers", "x-brand-new, traceparent")], &[]);
        assert!(response[ACCESS_CONTROL_ALLOW_HEADERS].to_str().unwrap().ends_with(", x-brand-new, traceparent"));
        assert_eq!(response[ACCESS_CONTROL_EXPOSE_HEADERS], "Date");
    }

    #[test]
    fn origin_is_echoed_and_varies() {
        let response = answered(&[("origin", "https://a.example")], &[]);
        assert_eq!(
            (&response[ACCESS_CONTROL_ALLOW_ORIGIN], &response[VARY]),
            (&"https://a.example".parse().unwrap(), &"Origin".parse().unwrap())
        );
        assert_eq!(answered(&[], &[])[ACCESS_CONTROL_ALLOW_ORIGIN], "*");
    }

    #[test]
    fn list_of_origins_is_kept_to() {
        let allowed = ["https://a.example", "https://b.example"].map(HeaderValue::from_static);
        assert_eq!(
            answered(&[("origin", "https://b.example")], &allowed)[ACCESS_CONTROL_ALLOW_ORIGIN],
            "https://b.example"
        );
        assert_eq!(
            answered(&[("origin", "https://c.example")], &allowed)[ACCESS_CONTROL_ALLOW_ORIGIN],
            "https://a.example"
        );
    }
}
