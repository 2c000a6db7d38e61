//! What is known of a request body before it is read: who sent it, when, under which id.
//!
//! In: the environment that a credential named, and the request's headers. Out: [`PayloadHead`], which the decoder
//! writes beside the rows of the body. Every header is looked at once, in one pass; none is required (event protocol,
//! section 4), and one that makes no sense is treated as absent.

use eventlog::TraceParent;
use events::{Environment, Source, limits};
use http::header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION};
use http::{HeaderMap, HeaderValue};
use runtime::UnixMicros;

/// The envelope of one payload.
#[derive(Clone, Debug)]
pub struct PayloadHead {
    pub environment: Environment,
    /// `Environment::hash`, computed once per environment.
    pub environment_hash: u64,
    pub received_at: UnixMicros,
    /// None where no usable id was sent; such a payload is never a repeat of another.
    pub payload_id: Option<Box<str>>,
    pub source: Source,
    pub sdk: Option<Box<str>>,
    pub sdk_version: Option<Box<str>>,
    pub wrapper: Option<Box<str>>,
    pub instance_id: Option<Box<str>>,
    pub application_id: Option<Box<str>>,
    pub application_version: Option<Box<str>>,
    /// A version that is no number counts as 4, the newest.
    pub schema_version: Option<i32>,
    /// The header `X-LaunchDarkly-Unsummarized` was present, whatever its value.
    pub unsummarized: bool,
    pub schema_header_present: bool,
    /// Of a request that is traced by its sender or by a proxy.
    pub trace: Option<TraceParent>,
    /// Path of the request; in the pixel's case without its query.
    pub path: Box<str>,
    /// As received, without credentials. Rendered for dead letters only.
    pub headers: HeaderMap,
}

/// Newest schema version, which stands for every future one.
const SCHEMA_VERSION_NEWEST: i32 = 4;

impl PayloadHead {
    /// Reads the headers of section 4.
    pub fn new(
        environment: Environment,
        environment_hash: u64,
        received_at: UnixMicros,
        source: Source,
        path: &str,
        headers: HeaderMap,
    ) -> Self {
        let mut head = Self {
            environment,
            environment_hash,
            received_at,
            payload_id: None,
            source,
            sdk: None,
            sdk_version: None,
            wrapper: None,
            instance_id: None,
            application_id: None,
            application_version: None,
            schema_version: None,
            unsummarized: false,
            schema_header_present: false,
            trace: None,
            path: path.into(),
            headers,
        };
        head.read_headers();
        for credential in [AUTHORIZATION, PROXY_AUTHORIZATION, COOKIE] {
            head.headers.remove(credential);
        }
        head
    }

    fn read_headers(&mut self) {
        let mut user_agent = None;
        let mut launchdarkly_user_agent = None;
        for (name, value) in &self.headers {
            match name.as_str() {
                "user-agent" => user_agent = Some(value),
                "x-launchdarkly-user-agent" => launchdarkly_user_agent = Some(value),
                "x-launchdarkly-payload-id" => self.payload_id = payload_id(value),
                "x-launchdarkly-event-schema" => {
                    self.schema_header_present = true;
                    self.schema_version = Some(schema_version(value));
                }
                "x-launchdarkly-unsummarized" => self.unsummarized = true,
                "x-launchdarkly-wrapper" => self.wrapper = text(value).map(Into::into),
                TraceParent::HEADER => self.trace = text(value).and_then(TraceParent::parse),
                "x-launchdarkly-instance-id" => self.instance_id = text(value).map(Into::into),
                "x-launchdarkly-tags" => {
                    (self.application_id, self.application_version) = text(value).map(tags).unwrap_or_default();
                }
                _ => {}
            }
        }
        if let Some(agent) = launchdarkly_user_agent.or(user_agent).and_then(text) {
            (self.sdk, self.sdk_version) = sdk(agent);
        }
    }
}

/// `PythonClient/9.17.0` names an SDK and its version; of a browser's long agent only the first product counts.
fn sdk(agent: &str) -> (Option<Box<str>>, Option<Box<str>>) {
    let product = agent.split_ascii_whitespace().next().unwrap_or(agent);
    match product.split_once('/') {
        Some((name, version)) => (Some(name.into()), (!version.is_empty()).then(|| version.into())),
        None => (Some(product.into()), None),
    }
}

/// `application-id/x application-version/y`, in any order.
fn tags(text: &str) -> (Option<Box<str>>, Option<Box<str>>) {
    let mut found = (None, None);
    for tag in text.split_ascii_whitespace() {
        match tag.split_once('/') {
            Some(("application-id", value)) => found.0 = Some(value.into()),
            Some(("application-version", value)) => found.1 = Some(value.into()),
            _ => {}
        }
    }
    found
}

fn payload_id(value: &HeaderValue) -> Option<Box<str>> {
    let printable = |id: &&str| id.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    text(value).filter(|id| id.len() <= limits::PAYLOAD_ID_BYTES_MAX).filter(printable).map(Into::into)
}

fn schema_version(value: &HeaderValue) -> i32 {
    let version = text(value).and_then(|text| text.parse().ok());
    version.filter(|version| (1..SCHEMA_VERSION_NEWEST).contains(version)).unwrap_or(SCHEMA_VERSION_NEWEST)
}

/// Visible text, trimmed; None if there is none.
fn text(value: &HeaderValue) -> Option<&str> {
    value.to_str().ok().map(str::trim).filter(|text| !text.is_empty())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The head of a request with these headers.
    pub(crate) fn head(pairs: &[(&'static str, &str)]) -> PayloadHead {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let environment = Environment::new("default", "dev");
        let hash = environment.hash();
        PayloadHead::new(environment, hash, UnixMicros(0), Source::Server, "/bulk", headers)
    }

    #[test]
    fn browser_agent_gives_way_to_the_sdk_one() {
        let head =
            head(&[("x-launchdarkly-user-agent", "JSClient/4.10.3"), ("user-agent", "Mozilla/5.0 (X11) Chrome/1")]);
        assert_eq!((head.sdk.as_deref(), head.sdk_version.as_deref()), (Some("JSClient"), Some("4.10.3")));
    }

    #[test]
    fn tags_come_in_any_order() {
        let head = head(&[("x-launchdarkly-tags", "application-version/2.1 other/x application-id/shop")]);
        assert_eq!((head.application_id.as_deref(), head.application_version.as_deref()), (Some("shop"), Some("2.1")));
    }

    #[test]
    fn unusable_payload_id_is_ignored() {
        assert_eq!(head(&[("x-launchdarkly-payload-id", &"x".repeat(129))]).payload_id, None);
        for id in ["b\u{e4}d", "tab\there", "", "  "] {
            assert_eq!(head(&[("x-launchdarkly-payload-id", id)]).payload_id, None, "{id:?}");
        }
        assert_eq!(head(&[("x-launchdarkly-payload-id", &"x".repeat(128))]).payload_id.unwrap().len(), 128);
    }

    #[test]
    fn odd_schema_versions_count_as_the_newest() {
        for (sent, read) in [("1", 1), ("3", 3), ("4", 4), ("17", 4), ("four", 4), ("-1", 4)] {
            assert_eq!(head(&[("x-launchdarkly-event-schema", sent)]).schema_version, Some(read), "{sent}");
        }
        assert_eq!(head(&[]).schema_version, None);
    }

    #[test]
    fn credentials_do_not_travel_on() {
        assert!(head(&[("authorization", "sdk-fake"), ("cookie", "a=b")]).headers.is_empty());
    }
}
