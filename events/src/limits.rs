//! Bounds that belong to the model, and how they relate. Bounds that operators choose live in the configuration.

use std::time::Duration;

/// Deepest nesting of arrays and objects within one event. Deeper events go to the dead letters as `too_deep`.
pub const EVENT_DEPTH_MAX: usize = 128;

/// Most events in one payload. The largest SDK buffer is 10,000; a relay sends 1,000.
pub const EVENTS_PER_PAYLOAD_MAX: usize = 1_000_000;

/// Longest payload id that takes part in de-duplication; a longer one is ignored.
pub const PAYLOAD_ID_BYTES_MAX: usize = 128;

/// A request body in the log: packed or unpacked, the configured cap may not exceed this.
pub const BODY_BYTES_CEILING: usize = 256 << 20;

/// Default cap of a body, packed and unpacked.
pub const BODY_BYTES_DEFAULT: usize = 32 << 20;

/// A micro-batch is sealed at about this many bytes of Arrow buffers.
pub const BATCH_BYTES_TARGET: usize = 512 << 10;

/// Largest encoded record: one payload at the ceiling, as dictionary-free columns with their bookkeeping.
pub const RECORD_BYTES_MAX: usize = 1 << 30;

/// Clients repeat a payload within this time of their first attempt (longest observed: 16 s, relays longer).
pub const CLIENT_RETRY_WINDOW: Duration = Duration::from_secs(60);

/// Payload ids are remembered at least this long.
pub const DEDUP_WINDOW_MIN: Duration = Duration::from_secs(600);

const _: () = assert!(BODY_BYTES_DEFAULT <= BODY_BYTES_CEILING);
const _: () = assert!(BATCH_BYTES_TARGET < RECORD_BYTES_MAX);
const _: () = assert!(BODY_BYTES_CEILING * 4 <= RECORD_BYTES_MAX, "an expanded body must fit in a log record");
const _: () = assert!(CLIENT_RETRY_WINDOW.as_secs() < DEDUP_WINDOW_MIN.as_secs());
