//! The `[ingest]` section.

use std::num::NonZeroUsize;

use events::limits;
use runtime::{ByteSize, DurationText};
use serde::{Deserialize, Serialize};

/// Bounds and time-outs of the endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Path that SDKs were told to put before theirs, such as `/events-proxy`. Paths without it work all the same.
    pub path_prefix: String,
    /// Origins whose pages may post; empty allows every origin, as the events service of the protocol does.
    pub allowed_origins: Vec<String>,
    /// Largest body, packed and unpacked. A larger one is answered 400.
    pub body_bytes_max: ByteSize,
    /// Bodies being read or waiting for the log, all together. Requests beyond it are held, then answered 503.
    pub bytes_in_flight_max: ByteSize,
    /// Open connections. At the bound the longest idle one makes room; if none is idle, new ones wait.
    pub connections_max: usize,
    /// Longest time from the first byte of a request to the end of its headers.
    pub header_timeout: DurationText,
    /// Longest time without a byte while a body is being read.
    pub body_timeout: DurationText,
    /// A connection without a request is closed after this time. SDKs flush up to every 30 s and some take a closed
    /// connection for an error, so not below four of those.
    pub idle_timeout: DurationText,
    /// Under pressure a request waits this long for room before it is answered 503. Clients give up after 3 s.
    pub hold_max: DurationText,
    /// A batch that the log has not taken after this time is answered 503.
    pub append_timeout: DurationText,
    /// A micro-batch is appended when it holds this much ...
    pub batch_bytes: ByteSize,
    /// ... or this long after the one before it was answered.
    pub batch_age: DurationText,
    /// How long a payload id is remembered, so that a repeat of the same payload is not stored again.
    pub dedup_window: DurationText,
    /// Payload ids remembered at most; beyond it the oldest are forgotten early, and the compactor finds the repeat.
    pub dedup_payloads_max: usize,
    /// An unchanged context is reported to the index again after this time.
    pub sighting_refresh: DurationText,
    /// Contexts whose last report is remembered for that.
    pub sighting_contexts_max: usize,
    /// Requests per second of one environment, above which it is answered 429. 0 means no limit.
    pub environment_requests_per_second: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            path_prefix: String::new(),
            allowed_origins: Vec::new(),
            body_bytes_max: ByteSize(limits::BODY_BYTES_DEFAULT as u64),
            bytes_in_flight_max: ByteSize::mib(192),
            connections_max: 8192,
            header_timeout: DurationText::secs(15),
            body_timeout: DurationText::secs(20),
            idle_timeout: DurationText::secs(180),
            hold_max: DurationText::secs(2),
            append_timeout: DurationText::secs(10),
            batch_bytes: ByteSize(limits::BATCH_BYTES_TARGET as u64),
            batch_age: DurationText::millis(5),
            dedup_window: DurationText(limits::DEDUP_WINDOW_MIN),
            dedup_payloads_max: 1_000_000,
            sighting_refresh: DurationText::secs(60),
            sighting_contexts_max: 262_144,
            environment_requests_per_second: 0,
        }
    }
}

/// Shortest idle time that does not disturb SDKs (event protocol, section 9.2).
const IDLE_TIMEOUT_MIN: DurationText = DurationText::secs(120);

impl Config {
    /// Everything wrong with these settings, as `key: what is expected`; empty if nothing is.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut require = |holds: bool, key: &str, expected: String| {
            if !holds {
                problems.push(format!("ingest.{key}: {expected}"));
            }
        };
        let prefix = self.path_prefix.as_str();
        require(
            prefix.is_empty() || prefix.starts_with('/'),
            "path_prefix",
            format!("must begin with \"/\", got {prefix:?}"),
        );
        let ceiling = ByteSize(limits::BODY_BYTES_CEILING as u64);
        let body = self.body_bytes_max;
        require(
            body.0 > 0 && body <= ceiling,
            "body_bytes_max",
            format!("must be above 0 and at most {ceiling}, got {body}"),
        );
        // A packed body and what it unpacks to are held at once, and others must be able to pass meanwhile.
        let room = ByteSize(body.0.saturating_mul(3));
        let in_flight = self.bytes_in_flight_max;
        require(
            in_flight >= room,
            "bytes_in_flight_max",
            format!("must be at least three bodies, {room}, got {in_flight}"),
        );
        require(self.connections_max > 0, "connections_max", "must be above 0".into());
        let idle = self.idle_timeout;
        require(idle >= IDLE_TIMEOUT_MIN, "idle_timeout", format!("must be at least {IDLE_TIMEOUT_MIN}, got {idle}"));
        for (key, value) in [
            ("header_timeout", self.header_timeout),
            ("body_timeout", self.body_timeout),
            ("append_timeout", self.append_timeout),
        ] {
            require(!value.get().is_zero(), key, "must be above 0".into());
        }
        let window = DurationText(limits::DEDUP_WINDOW_MIN);
        let dedup = self.dedup_window;
        require(
            dedup >= window,
            "dedup_window",
            format!("must be at least {window}, as clients and relays repeat that late, got {dedup}"),
        );
        require(NonZeroUsize::new(self.dedup_payloads_max).is_some(), "dedup_payloads_max", "must be above 0".into());
        let batch = self.batch_bytes;
        require(
            batch.0 > 0 && batch <= ceiling,
            "batch_bytes",
            format!("must be above 0 and at most {ceiling}, got {batch}"),
        );
        problems
    }

    /// The prefix without a trailing slash; empty if there is none.
    pub(crate) fn prefix(&self) -> &str {
        self.path_prefix.trim_end_matches('/')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_have_no_problems() {
        assert_eq!(Config::default().problems(), Vec::<String>::new());
    }

    #[test]
    fn all_problems_come_at_once() {
        let config = Config {
            path_prefix: "x".into(),
            bytes_in_flight_max: ByteSize::mib(1),
            idle_timeout: DurationText::secs(60),
            dedup_window: DurationText::secs(1),
            ..Config::default()
        };
        let problems = config.problems().join("\n");
        for key in ["path_prefix", "bytes_in_flight_max", "idle_timeout", "dedup_window"] {
            assert!(problems.contains(&format!("ingest.{key}: ")), "{problems}");
        }
    }

    #[test]
    fn unknown_key_refused() {
        let error = serde_json::from_str::<Config>(r#"{"batch_size":"1MiB"}"#).unwrap_err();
        assert!(error.to_string().contains("batch_size"));
    }
}
