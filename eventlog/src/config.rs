//! The `[log]` section.

use runtime::{ByteSize, DurationText};
use serde::{Deserialize, Serialize};

/// Which log, and the bounds of the embedded one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub kind: Kind,
    /// Partitions of each topic. Fixed once the data directory exists.
    pub events_partitions: u32,
    pub contexts_partitions: u32,
    pub dead_letters_partitions: u32,
    /// Size at which a segment file of the embedded log is closed and the next begun.
    pub segment_bytes: ByteSize,
    /// What all readers have committed is removed when the log is larger than this or older than `retention_age`,
    /// but kept as long as the de-duplication window needs it.
    pub retention_bytes: ByteSize,
    pub retention_age: DurationText,
    /// Above this size appends are refused with 503, whoever has not committed.
    pub bytes_max: ByteSize,
    /// Records accepted but not yet written, in all appends under way.
    pub pending_bytes_max: ByteSize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    #[default]
    Embedded,
    Kafka,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            kind: Kind::Embedded,
            events_partitions: 2,
            contexts_partitions: 2,
            dead_letters_partitions: 1,
            segment_bytes: ByteSize::mib(64),
            retention_bytes: ByteSize::gib(1),
            retention_age: DurationText::secs(3600),
            bytes_max: ByteSize::gib(64),
            pending_bytes_max: ByteSize::mib(64),
        }
    }
}
