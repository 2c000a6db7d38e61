//! Makes the three topics with the settings that the promises need, or holds existing ones against them.
//!
//! In: `[kafka]` and the numbers of partitions. Out: the topics as the brokers describe them. Promise: a topic that could
//! lose what was acknowledged, or that could not take a record of the configured size, is refused at the start, with all
//! that is wrong with all topics in one error.
//!
//! Partitions are fixed for the life of a log. Writer and readers must agree on their number, and a payload's partition
//! follows from it: while it changes, a repeat of a payload could miss its twin. So a topic whose number differs from the
//! configured one is refused, also a larger one: of `events` and `dead_letters` an operator may take the larger number into
//! the configuration, with all processes stopped for the minute in which clients repeat. A partition of `contexts` is a
//! shard of the index, and a context's shard follows from their number: there the topic has to be made anew. A topic that
//! grows while the log is open changes nothing until the next start, as nothing is written to partitions beyond ours.

use std::time::Duration;

use events::Topic;
use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::types::RDKafkaErrorCode as Code;
use runtime::Clock;
use tokio::time::Instant;

use super::callbacks::Callbacks;
use super::config::Config;
use super::native::{self, Failure, TopicDescription};
use crate::{Error, Result};

/// One request of the start.
const REQUEST_TIME: Duration = Duration::from_secs(5);
/// A topic that was just made is known to all brokers, and has leaders, after this time.
const SETTLE_TIME: Duration = Duration::from_secs(15);
const SETTLE_STEP: Duration = Duration::from_millis(100);

/// A topic as it has to be.
pub(super) struct Wanted<'a> {
    pub topic: Topic,
    pub name: String,
    pub partitions: u32,
    pub config: &'a Config,
}

/// A setting of a topic, and which values of it serve.
struct Setting {
    name: &'static str,
    value: String,
    rule: Rule,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Rule {
    Same,
    /// This or a larger number.
    AtLeast,
    /// As `AtLeast`, where -1 means without bound.
    AtLeastOrUnbounded,
}

impl Wanted<'_> {
    fn settings(&self) -> Vec<Setting> {
        let config = self.config;
        let setting = |name, value: String, rule| Setting { name, value, rule };
        let retention_bytes = match config.retention_bytes.0 {
            0 => "-1".to_owned(),
            bytes => bytes.to_string(),
        };
        let mut settings = vec![
            setting("cleanup.policy", "delete".into(), Rule::Same),
            setting("message.timestamp.type", "LogAppendTime".into(), Rule::Same),
            setting("unclean.leader.election.enable", "false".into(), Rule::Same),
            setting("max.message.bytes", config.batch_bytes_max().to_string(), Rule::AtLeast),
            setting("retention.ms", config.retention.get().as_millis().to_string(), Rule::AtLeastOrUnbounded),
            setting("retention.bytes", retention_bytes, Rule::AtLeastOrUnbounded),
        ];
        if config.min_insync_replicas > 0 {
            settings.push(setting("min.insync.replicas", config.min_insync_replicas.to_string(), Rule::AtLeast));
        }
        settings
    }

    fn partitions_mismatch(&self, found: usize) -> Option<String> {
        if found == self.partitions as usize {
            return None;
        }
        let key = format!("log.{}_partitions", self.topic);
        let remedy = match self.topic {
            Topic::Contexts => {
                "a partition is a shard of the index, so make the topic anew or set another kafka.topic_prefix"
            }
            Topic::Events | Topic::DeadLetters => {
                "set the same number, after all processes have been stopped for a minute if the topic has grown"
            }
        };
        Some(format!("{} has {found} partitions, {key} is {} ({remedy})", self.name, self.partitions))
    }

    fn replicas_mismatch(&self, found: usize) -> Option<String> {
        let wanted = usize::from(self.config.replication_factor);
        (found < wanted)
            .then(|| format!("{} has {found} copies of each record, kafka.replication_factor is {wanted}", self.name))
    }
}

impl Setting {
    /// What is wrong with a value found in its place.
    fn mismatch(&self, topic: &str, found: Option<&str>) -> Option<String> {
        let Some(found) = found else { return Some(format!("{topic} tells no {}", self.name)) };
        let wanted = &self.value;
        if self.rule == Rule::Same {
            return (found != wanted).then(|| format!("{topic} has {} = {found}, needed is {wanted}", self.name));
        }
        let (Ok(found), Ok(wanted)) = (found.parse::<i64>(), wanted.parse::<i64>()) else {
            return Some(format!("{topic} has {} = {found}, which is no number", self.name));
        };
        let unbounded = self.rule == Rule::AtLeastOrUnbounded;
        let serves = (unbounded && found < 0) || (found >= wanted && !(unbounded && wanted < 0));
        let needed = if unbounded && wanted < 0 { "-1 (no bound)".to_owned() } else { format!("at least {wanted}") };
        (!serves).then(|| format!("{topic} has {} = {found}, needed is {needed}", self.name))
    }
}

/// The topics as they are, in the order asked for.
pub(super) struct Ensured {
    pub topics: Vec<TopicDescription>,
    /// Copies in sync without which a record is refused.
    pub min_in_sync: usize,
}

/// Brings the topics to what is wanted, or says why they are not.
///
/// # Errors
/// `TopicMismatch`, `Denied` (kind `Fatal`); `Kafka` (kind `Retry`) if a broker did not answer or a new topic did not come
/// up in time.
pub(super) async fn ensure(
    admin: &AdminClient<Callbacks>,
    wanted: &[Wanted<'_>],
    described: Vec<std::result::Result<TopicDescription, Failure>>,
    clock: &Clock,
) -> Result<Ensured> {
    let mut missing = Vec::new();
    for (wanted, described) in wanted.iter().zip(&described) {
        match described {
            Err(failure) if failure.code == Code::UnknownTopicOrPartition => missing.push(wanted),
            Err(failure) => return Err(failed(&format!("asking for topic {}", wanted.name), failure)),
            Ok(_) => {}
        }
    }
    if !missing.is_empty() {
        create(admin, &missing).await?;
    }
    let deadline = clock.instant() + SETTLE_TIME;
    let topics = settled(admin, wanted, clock, deadline).await?;
    let settings = read_settings(admin, wanted, clock, deadline).await?;
    let mut mismatches = Vec::new();
    for ((wanted, topic), settings) in wanted.iter().zip(&topics).zip(&settings) {
        mismatches.extend(wanted.partitions_mismatch(topic.partitions.len()));
        let replicas = topic.partitions.iter().map(|partition| partition.replicas).min();
        mismatches.extend(replicas.and_then(|replicas| wanted.replicas_mismatch(replicas)));
        let value = |name| settings.get(name).and_then(|entry| entry.value.as_deref());
        mismatches.extend(wanted.settings().iter().filter_map(|need| need.mismatch(&wanted.name, value(need.name))));
    }
    if !mismatches.is_empty() {
        return Err(Error::TopicMismatch { mismatches });
    }
    if let Some(topic) =
        wanted.iter().zip(&topics).find(|(_, topic)| topic.partitions.iter().any(|one| one.replicas < 2))
    {
        tracing::info!(topic = topic.0.name, "there is one copy of each record, which is lost with its broker's disk");
    }
    let in_sync = |settings: &ConfigResource| settings.get("min.insync.replicas")?.value.as_deref()?.parse().ok();
    let min_in_sync = settings.iter().filter_map(in_sync).max().unwrap_or(1);
    Ok(Ensured { topics, min_in_sync })
}

async fn create(admin: &AdminClient<Callbacks>, missing: &[&Wanted<'_>]) -> Result<()> {
    let settings: Vec<Vec<Setting>> = missing.iter().map(|wanted| wanted.settings()).collect();
    let topics: Vec<NewTopic<'_>> = (missing.iter().zip(&settings))
        .map(|(wanted, settings)| {
            // -1 leaves the number to the brokers.
            let copies = match wanted.config.replication_factor {
                0 => -1,
                copies => i32::from(copies),
            };
            let topic = NewTopic::new(&wanted.name, wanted.partitions as i32, TopicReplication::Fixed(copies));
            settings.iter().fold(topic, |topic, setting| topic.set(setting.name, &setting.value))
        })
        .collect();
    let options = AdminOptions::new().request_timeout(Some(REQUEST_TIME)).operation_timeout(Some(REQUEST_TIME));
    let made = admin
        .create_topics(&topics, &options)
        .await
        .map_err(|error| Error::Kafka { action: "making topics".into(), reason: error.to_string() })?;
    for outcome in made {
        match outcome {
            Ok(name) => tracing::info!(topic = name, "topic made"),
            // Another process that starts at the same time.
            Err((_, Code::TopicAlreadyExists)) => {}
            Err((name, code)) => {
                return Err(failed(&format!("making topic {name}"), &Failure { code, reason: code.to_string() }));
            }
        }
    }
    Ok(())
}

/// Waits until all topics are known with leaders for all partitions.
async fn settled(
    admin: &AdminClient<Callbacks>,
    wanted: &[Wanted<'_>],
    clock: &Clock,
    deadline: Instant,
) -> Result<Vec<TopicDescription>> {
    let names: Vec<String> = wanted.iter().map(|wanted| wanted.name.clone()).collect();
    loop {
        let described = native::describe_topics(admin.inner(), &names, REQUEST_TIME);
        let described = described.and_then(|topics| topics.into_iter().collect::<std::result::Result<Vec<_>, _>>());
        let has_leaders = |topic: &TopicDescription| topic.partitions.iter().all(|partition| partition.has_leader);
        let why = match described {
            Ok(topics) if topics.iter().all(has_leaders) => return Ok(topics),
            Ok(_) => Failure { code: Code::LeaderNotAvailable, reason: "a partition has no leader".into() },
            Err(failure) => failure,
        };
        if clock.instant() >= deadline {
            return Err(failed(&format!("waiting for topics {}", names.join(", ")), &why));
        }
        clock.wait(SETTLE_STEP).await;
    }
}

/// Reads the settings of all topics. A broker that has just heard of a topic may not know them yet.
async fn read_settings(
    admin: &AdminClient<Callbacks>,
    wanted: &[Wanted<'_>],
    clock: &Clock,
    deadline: Instant,
) -> Result<Vec<ConfigResource>> {
    let resources: Vec<_> = wanted.iter().map(|wanted| ResourceSpecifier::Topic(&wanted.name)).collect();
    let options = AdminOptions::new().request_timeout(Some(REQUEST_TIME));
    loop {
        let action = "reading the settings of the topics";
        let why = match admin.describe_configs(&resources, &options).await {
            Ok(answers) => match answers.into_iter().collect::<std::result::Result<Vec<_>, _>>() {
                Ok(settings) if settings.len() == wanted.len() => return Ok(settings),
                Ok(settings) => Failure {
                    code: Code::UnknownTopicOrPartition,
                    reason: format!("{} of {} topics were told", settings.len(), wanted.len()),
                },
                Err(code) => Failure { code, reason: code.to_string() },
            },
            Err(error) => Failure { code: Code::Fail, reason: error.to_string() },
        };
        let is_final = is_denied(why.code);
        if is_final || clock.instant() >= deadline {
            return Err(failed(action, &why));
        }
        clock.wait(SETTLE_STEP).await;
    }
}

fn is_denied(code: Code) -> bool {
    matches!(code, Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed | Code::GroupAuthorizationFailed)
}

/// The error for a request about topics that failed.
pub(super) fn failed(action: &str, failure: &Failure) -> Error {
    let (action, reason) = (action.to_owned(), failure.reason.clone());
    match failure.code {
        code if is_denied(code) => Error::Denied { action, reason },
        Code::InvalidReplicationFactor | Code::InvalidPartitions | Code::InvalidConfig | Code::PolicyViolation => {
            Error::KafkaSettings { reason: format!("{action}: {reason}") }
        }
        _ => Error::Kafka { action, reason },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(value: &str, rule: Rule) -> Setting {
        Setting { name: "s", value: value.into(), rule }
    }

    #[test]
    fn numbers_are_compared_as_numbers_and_minus_one_has_no_bound() {
        let cases = [
            ("5", Rule::Same, "5", true),
            ("5", Rule::Same, "6", false),
            ("5", Rule::AtLeast, "10", true),
            ("5", Rule::AtLeast, "4", false),
            ("5", Rule::AtLeast, "-1", false),
            ("5", Rule::AtLeastOrUnbounded, "-1", true),
            ("5", Rule::AtLeastOrUnbounded, "4", false),
            ("-1", Rule::AtLeastOrUnbounded, "-1", true),
            ("-1", Rule::AtLeastOrUnbounded, "4000000000", false),
            ("5", Rule::AtLeast, "many", false),
        ];
        for (wanted, rule, found, serves) in cases {
            let mismatch = setting(wanted, rule).mismatch("t", Some(found));
            assert_eq!(mismatch.is_none(), serves, "{wanted} {found}: {mismatch:?}");
        }
        assert!(setting("5", Rule::Same).mismatch("t", None).is_some());
    }

    #[test]
    fn unreadable_number_is_told_as_such() {
        let mismatch = setting("5", Rule::AtLeast).mismatch("t", Some("many")).unwrap();
        assert_eq!(mismatch, "t has s = many, which is no number");
    }
}
