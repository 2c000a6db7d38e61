//! The `[kafka]` section, and the settings of librdkafka that follow from it.
//!
//! In: what the operator wrote. Out: one [`ClientConfig`] each for producing, reading and administration. Promise: no
//! setting that passes through can break what the log promises; such names are refused, each with the reason.
//! Order of precedence: our defaults, then `[kafka.librdkafka]`, then what promises depend on.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use events::limits;
use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use runtime::{ByteSize, DurationText};
use serde::de::Deserializer;
use serde::{Deserialize, Serialize};

/// librdkafka takes no larger message.
const RECORD_BYTES_CEILING: ByteSize = ByteSize(1_000_000_000);
/// What a record may have around its frame in Kafka's batch format.
const BATCH_OVERHEAD_BYTES: u64 = 4 << 10;
/// Bytes that one answer to a fetch aims at, all partitions together. A larger record comes all the same.
const FETCH_BYTES: u64 = 16 << 20;
/// Bytes of one partition in such an answer, and those that may wait here to be taken: with the record that is being
/// taken these bound what reading a partition holds in memory.
const PARTITION_FETCH_BYTES: u64 = 1 << 20;
const PARTITION_QUEUE_KIB: u64 = 2 << 10;
/// A broker without new records answers after this time. As a connection carries one fetch at a time, a partition that is
/// asked for anew, or at another place, waits as long at most.
const FETCH_WAIT: Duration = Duration::from_millis(100);

/// Below this, every breath of a broker would send events to the local disk.
const SPILL_AFTER_MIN: Duration = Duration::from_millis(50);

const SESSION_MIN: Duration = Duration::from_secs(6);
const SESSION_MAX: Duration = Duration::from_secs(1800);

/// Where the brokers are and what topics on them must be like.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Addresses to begin with, separated by commas; the brokers name the others.
    pub brokers: String,
    /// Stands before the names of the topics and of the consumer group.
    pub topic_prefix: String,
    /// Copies of each record; 0 leaves it to the brokers (`default.replication.factor`).
    pub replication_factor: u16,
    /// Copies that must exist before a record counts as stored; 0 leaves it to the brokers.
    pub min_insync_replicas: u16,
    /// Records are kept this long, and no longer than it takes to exceed `retention_bytes` in their partition; 0B: any size.
    /// Kafka does not wait for readers.
    pub retention: DurationText,
    pub retention_bytes: ByteSize,
    /// Largest record.
    pub record_bytes_max: ByteSize,
    /// An append that the brokers have not acknowledged after this time has failed.
    pub message_timeout: DurationText,
    /// An append that the brokers have not acknowledged after this time is kept on the local disk instead.
    pub spill_after: DurationText,
    /// Bytes on the local disk for that; 0B: nothing is kept there.
    pub spill_max: ByteSize,
    /// Name of this process among those that share a stage, the same after a restart, which then moves nothing; empty: a new
    /// one at each start.
    pub member: String,
    /// A process that shares a stage and has said nothing for so long has lost its partitions to the others.
    pub session_timeout: DurationText,
    /// Further settings of librdkafka.
    pub librdkafka: PassedOn,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            brokers: "127.0.0.1:9092".into(),
            topic_prefix: "tidegate.".into(),
            replication_factor: 0,
            min_insync_replicas: 0,
            retention: DurationText::secs(7 * 86_400),
            retention_bytes: ByteSize(0),
            record_bytes_max: ByteSize::mib(64),
            message_timeout: DurationText::secs(8),
            spill_after: DurationText::secs(1),
            spill_max: ByteSize::gib(4),
            member: String::new(),
            session_timeout: DurationText::secs(10),
            librdkafka: PassedOn::default(),
        }
    }
}

/// Settings of librdkafka by their names there. `Debug` shows no values, as some are secrets.
#[derive(Clone, Default, PartialEq, Eq, Serialize)]
pub struct PassedOn(pub BTreeMap<String, String>);

impl fmt::Debug for PassedOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// A value as a person may write it. A name with dots, not in quotes, makes tables of TOML.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected text, a number, true or false")]
enum Written {
    Truth(bool),
    Number(i64),
    Text(String),
    Table(BTreeMap<String, Written>),
}

impl Written {
    fn flatten(self, name: String, into: &mut BTreeMap<String, String>) {
        match self {
            Self::Truth(truth) => drop(into.insert(name, truth.to_string())),
            Self::Number(number) => drop(into.insert(name, number.to_string())),
            Self::Text(text) => drop(into.insert(name, text)),
            Self::Table(table) => {
                table.into_iter().for_each(|(rest, value)| value.flatten(format!("{name}.{}", dotted(&rest)), into));
            }
        }
    }
}

/// Names of variables of the environment have no dots.
fn dotted(name: &str) -> String {
    name.replace('_', ".")
}

impl<'de> Deserialize<'de> for PassedOn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut settings = BTreeMap::new();
        let written = BTreeMap::<String, Written>::deserialize(deserializer)?;
        written.into_iter().for_each(|(name, value)| value.flatten(dotted(&name), &mut settings));
        Ok(Self(settings))
    }
}

/// Names that do not pass through, and why.
const REFUSED: &[(&[&str], &str)] = &[
    (&["bootstrap.servers", "metadata.broker.list"], "is set by kafka.brokers"),
    (&["message.timeout.ms", "delivery.timeout.ms"], "is set by kafka.message_timeout"),
    (&["message.max.bytes"], "is set by kafka.record_bytes_max"),
    (&["acks", "request.required.acks"], "is always \"all\": 202 means that every copy that counts has the record"),
    (
        &[
            "enable.idempotence",
            "max.in.flight",
            "max.in.flight.requests.per.connection",
            "retries",
            "message.send.max.retries",
        ],
        "is part of idempotent producing, which keeps records of a partition in order and apart",
    ),
    (&["transactional.id"], "is not used: ownership is fenced at the table"),
    (&["group.id"], "is made from kafka.topic_prefix"),
    (&["group.instance.id"], "is set by kafka.member"),
    (&["session.timeout.ms", "heartbeat.interval.ms"], "is set by kafka.session_timeout"),
    (&["partition.assignment.strategy", "group.protocol"], "is fixed: processes that share a stage must agree on it"),
    (
        &[
            "auto.offset.reset",
            "enable.auto.commit",
            "enable.auto.offset.store",
            "enable.partition.eof",
            "isolation.level",
        ],
        "is fixed: where reading starts comes from the table and the index, never from the brokers",
    ),
    (
        &["queue.buffering.max.messages", "queue.buffering.max.kbytes"],
        "is fixed: log.pending_bytes_max bounds what waits",
    ),
    (&["allow.auto.create.topics"], "is fixed: topics are made with the settings of [kafka]"),
];

impl Config {
    /// All mistakes, as (key, what is wrong).
    pub fn mistakes(&self) -> Vec<(String, String)> {
        let mut mistakes = Vec::new();
        let mut wrong = |key: &str, what: String| mistakes.push((format!("kafka.{key}"), what));
        if self.brokers.split(',').any(|broker| broker.trim().is_empty()) {
            wrong("brokers", "expected addresses such as \"kafka-1:9092,kafka-2:9092\"".into());
        }
        let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if self.topic_prefix.len() > 200 || !self.topic_prefix.chars().all(fits) {
            wrong("topic_prefix", "expected at most 200 letters, digits, dots, underscores and hyphens".into());
        }
        if self.replication_factor > 0 && self.min_insync_replicas > self.replication_factor {
            let most = self.replication_factor;
            wrong("min_insync_replicas", format!("expected at most kafka.replication_factor, {most}"));
        }
        if self.retention.get() < limits::DEDUP_WINDOW_MIN {
            wrong("retention", format!("expected at least 10m, got {}", self.retention));
        }
        if !(ByteSize::mib(1)..=RECORD_BYTES_CEILING).contains(&self.record_bytes_max) {
            wrong("record_bytes_max", format!("expected from 1MiB to 1000000000B, got {}", self.record_bytes_max));
        }
        if self.message_timeout.get() < Duration::from_secs(1) {
            wrong("message_timeout", format!("expected at least 1s, got {}", self.message_timeout));
        }
        if self.spill_after.get() < SPILL_AFTER_MIN {
            wrong("spill_after", format!("expected at least 50ms, got {}", self.spill_after));
        }
        if self.spill_max.0 > 0 && self.spill_max < ByteSize::mib(1) {
            wrong("spill_max", format!("expected 0B or at least 1MiB, got {}", self.spill_max));
        }
        if !(SESSION_MIN..=SESSION_MAX).contains(&self.session_timeout.get()) {
            // The brokers' own bounds, as they come.
            wrong("session_timeout", format!("expected from 6s to 30m, got {}", self.session_timeout));
        }
        mistakes.extend(self.librdkafka.mistakes());
        mistakes
    }

    /// Settings that all clients share.
    fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set_log_level(RDKafkaLogLevel::Notice);
        client.set("client.id", "tidegate").set("socket.keepalive.enable", "true");
        // A broker that comes back is used again within a second; one that has gone silent is given up after ten.
        client.set("reconnect.backoff.ms", "50").set("reconnect.backoff.max.ms", "1000");
        client.set("socket.timeout.ms", "10000");
        client
    }

    fn promised(&self, mut client: ClientConfig, promised: &[(&str, String)]) -> ClientConfig {
        for (name, value) in &self.librdkafka.0 {
            client.set(canonical(name), value);
        }
        client.set("bootstrap.servers", &self.brokers);
        for (name, value) in promised {
            client.set(*name, value);
        }
        client
    }

    pub(super) fn admin(&self) -> ClientConfig {
        self.promised(self.client(), &[])
    }

    pub(super) fn producer(&self) -> ClientConfig {
        let mut client = self.client();
        // A record is a batch already: waiting for more of them would only make answers late.
        client.set("linger.ms", "0");
        // Frames are zstd inside: packing a record of 64 KiB again makes 118 core-us of 74 and saves nothing (`tests::measure`).
        client.set("compression.codec", "none");
        let promised = [
            ("acks", "all".to_owned()),
            ("enable.idempotence", "true".to_owned()),
            ("message.timeout.ms", self.message_timeout.get().as_millis().to_string()),
            ("message.max.bytes", self.batch_bytes_max().to_string()),
            ("queue.buffering.max.messages", "0".to_owned()),
            ("queue.buffering.max.kbytes", "2147483647".to_owned()),
        ];
        self.promised(client, &promised)
    }

    pub(super) fn consumer(&self) -> ClientConfig {
        let mut client = self.client();
        client.set("fetch.max.bytes", FETCH_BYTES.max(self.batch_bytes_max()).to_string());
        client.set("receive.message.max.bytes", (self.batch_bytes_max() + 2 * FETCH_BYTES).to_string());
        client.set("max.partition.fetch.bytes", PARTITION_FETCH_BYTES.to_string());
        client.set("queued.max.messages.kbytes", PARTITION_QUEUE_KIB.to_string());
        // How long a full queue keeps a partition out of the next fetch; the default of a second would bound a reader that
        // catches up to two queues a second.
        client.set("fetch.queue.backoff.ms", "10");
        client.set("fetch.wait.max.ms", FETCH_WAIT.as_millis().to_string());
        let promised = [
            ("group.id", format!("{}readers", self.topic_prefix)),
            ("enable.auto.commit", "false".to_owned()),
            ("enable.auto.offset.store", "false".to_owned()),
            ("auto.offset.reset", "error".to_owned()),
            ("enable.partition.eof", "true".to_owned()),
            // Nothing here writes transactions; what the brokers have acknowledged is read.
            ("isolation.level", "read_uncommitted".to_owned()),
            ("allow.auto.create.topics", "false".to_owned()),
        ];
        self.promised(client, &promised)
    }

    /// Of a process that shares `stage` with others. Their group is another one than that of the readers: the brokers take no
    /// offsets from outside of a group that has members.
    pub(super) fn member(&self, stage: &str) -> ClientConfig {
        let session = self.session_timeout.get();
        let mut promised = vec![
            ("group.id", format!("{}{stage}.members", self.topic_prefix)),
            ("partition.assignment.strategy", "cooperative-sticky".to_owned()),
            ("session.timeout.ms", session.as_millis().to_string()),
            ("heartbeat.interval.ms", (session / 4).as_millis().to_string()),
            ("enable.auto.commit", "false".to_owned()),
            ("enable.auto.offset.store", "false".to_owned()),
            ("auto.offset.reset", "latest".to_owned()),
            ("allow.auto.create.topics", "false".to_owned()),
        ];
        if !self.member.is_empty() {
            promised.push(("group.instance.id", self.member.clone()));
        }
        self.promised(self.client(), &promised)
    }

    /// `max.message.bytes` of the topics, which bounds a record with what Kafka puts around it.
    pub(super) fn batch_bytes_max(&self) -> u64 {
        (self.record_bytes_max.0 + BATCH_OVERHEAD_BYTES).min(RECORD_BYTES_CEILING.0)
    }
}

/// librdkafka knows some settings by two names; of those that we set too, the one that we use. Otherwise both would be set,
/// in no order.
fn canonical(name: &str) -> &str {
    match name {
        "queue.buffering.max.ms" => "linger.ms",
        "compression.type" => "compression.codec",
        "fetch.message.max.bytes" => "max.partition.fetch.bytes",
        name => name,
    }
}

impl PassedOn {
    fn mistakes(&self) -> Vec<(String, String)> {
        let mistake = |name: &str, what: String| (format!("kafka.librdkafka.{name}"), what);
        let mut mistakes = Vec::new();
        for (name, value) in &self.0 {
            if let Some((_, why)) = REFUSED.iter().find(|(names, _)| names.contains(&name.as_str())) {
                mistakes.push(mistake(name, (*why).to_owned()));
                continue;
            }
            // Each alone, so that all that are wrong are told. What several say together shows when a client is made.
            let native = ClientConfig::new().set(name, value).create_native_config();
            if let Err(KafkaError::ClientConfig(_, what, ..)) = native {
                // It quotes the value, which may be a secret in the wrong place.
                let what = what.replace(&format!("{value:?}"), "the value");
                mistakes.push(mistake(name, format!("librdkafka refuses it: {what}")));
            }
        }
        mistakes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(pairs: &[(&str, &str)]) -> Config {
        let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Config { librdkafka: PassedOn(pairs.collect()), ..Config::default() }
    }

    #[test]
    fn defaults_have_no_mistakes() {
        assert_eq!(Config::default().mistakes(), []);
    }

    #[test]
    fn settings_that_promises_depend_on_are_refused_by_name() {
        for (names, why) in REFUSED {
            for name in *names {
                let mistakes = passed(&[(name, "1")]).mistakes();
                assert_eq!(mistakes, [(format!("kafka.librdkafka.{name}"), (*why).to_owned())]);
            }
        }
    }

    #[test]
    fn names_that_librdkafka_does_not_know_are_told_all_at_once_without_values() {
        let mistakes =
            passed(&[("no.such.setting", "hidden"), ("security.protocol", "hidden"), ("linger.ms", "3")]).mistakes();
        assert_eq!(mistakes.len(), 2, "{mistakes:?}");
        assert!(mistakes.iter().all(|(_, what)| !what.contains("hidden")), "{mistakes:?}");
    }

    #[test]
    fn promises_come_last() {
        let config = passed(&[("queue.buffering.max.ms", "3"), ("acks", "0"), ("auto.offset.reset", "earliest")]);
        assert_eq!(config.producer().get("acks"), Some("all"));
        assert_eq!(config.producer().get("linger.ms"), Some("3"));
        assert_eq!(config.consumer().get("auto.offset.reset"), Some("error"));
        for client in [config.admin(), Config::default().producer(), Config::default().consumer()] {
            client.create_native_config().unwrap();
        }
    }

    #[test]
    fn bounds_between_numbers_are_checked() {
        let config = Config {
            brokers: "a:1,,b:2".into(),
            topic_prefix: "with blanks ".into(),
            replication_factor: 1,
            min_insync_replicas: 2,
            retention: DurationText::secs(1),
            record_bytes_max: ByteSize(1),
            message_timeout: DurationText::millis(1),
            spill_after: DurationText::millis(1),
            spill_max: ByteSize(1),
            session_timeout: DurationText::secs(5),
            ..Config::default()
        };
        let keys: Vec<_> = config.mistakes().into_iter().map(|(key, _)| key).collect();
        let expected = [
            "brokers",
            "topic_prefix",
            "min_insync_replicas",
            "retention",
            "record_bytes_max",
            "message_timeout",
            "spill_after",
            "spill_max",
            "session_timeout",
        ];
        assert_eq!(keys, expected.map(|key| format!("kafka.{key}")));
    }
}
