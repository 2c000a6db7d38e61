//! Making and checking topics, and wrong set-ups.

use std::collections::BTreeMap;

use rdkafka::admin::{AdminOptions, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication};
use runtime::{ByteSize, DurationText, ErrorKind};

use super::*;

async fn refusal(config: &Config, log: &crate::Config) -> Error {
    let begun = tokio::time::Instant::now();
    let error = open(config, log).await.err().expect("refused");
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    error
}

#[tokio::test]
async fn topics_are_made_as_configured_and_opened_again() {
    let config = Config {
        retention: DurationText::secs(3600),
        retention_bytes: ByteSize::gib(1),
        record_bytes_max: ByteSize::mib(2),
        min_insync_replicas: 1,
        replication_factor: 1,
        ..config()
    };
    let log = open(&config, &log_config()).await.unwrap();
    let name = format!("{}events", config.topic_prefix);
    let described = admin(&config).describe_configs(&[ResourceSpecifier::Topic(&name)], &AdminOptions::new()).await;
    let described = described.unwrap().remove(0).unwrap();
    let found: BTreeMap<_, _> = described.entries.iter().map(|entry| (&*entry.name, entry.value.as_deref())).collect();
    for (name, value) in [
        ("cleanup.policy", "delete"),
        ("message.timestamp.type", "LogAppendTime"),
        ("unclean.leader.election.enable", "false"),
        ("max.message.bytes", &config.batch_bytes_max().to_string()),
        ("retention.ms", "3600000"),
        ("retention.bytes", "1073741824"),
        ("min.insync.replicas", "1"),
    ] {
        assert_eq!(found[name], Some(value), "{name}");
    }
    let again = open(&config, &log_config()).await.unwrap();
    for topic in Topic::ALL {
        assert_eq!(again.topic_id(topic), log.topic_id(topic));
    }
}

#[tokio::test]
async fn everything_that_is_wrong_with_topics_is_told_at_once() {
    let config = config();
    let names = Names::new(&config.topic_prefix);
    let made = [
        NewTopic::new(names.of(Topic::Events), 3, TopicReplication::Fixed(1)).set("retention.ms", "1000"),
        NewTopic::new(names.of(Topic::Contexts), 5, TopicReplication::Fixed(1))
            .set("cleanup.policy", "compact")
            .set("max.message.bytes", "1000"),
    ];
    admin(&config).create_topics(&made, &AdminOptions::new()).await.unwrap();
    let wanted = Config { replication_factor: 3, min_insync_replicas: 2, ..config.clone() };
    // Too many copies for one broker: nothing can be made, and what is there is not what is wanted.
    let error = refusal(&wanted, &log_config()).await;
    assert_eq!(error.kind(), ErrorKind::Fatal, "{error}");
    assert!(error.to_string().contains("dead_letters"), "{error}");
    let error = refusal(&Config { min_insync_replicas: 1, ..config }, &log_config()).await;
    assert_eq!(error.kind(), ErrorKind::Fatal);
    let text = error.to_string();
    for part in [
        "events has 3 partitions, log.events_partitions is 2",
        "contexts has 5 partitions, log.contexts_partitions is 1",
        "events has retention.ms = 1000, needed is at least 604800000",
        "contexts has cleanup.policy = compact, needed is delete",
        "contexts has max.message.bytes = 1000, needed is at least 67112960",
        "events has message.timestamp.type = CreateTime, needed is LogAppendTime",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
}

#[tokio::test]
async fn grown_topic_works_until_the_restart_and_is_told_then() {
    let config = config();
    let log = open(&config, &log_config()).await.unwrap();
    let name = format!("{}events", config.topic_prefix);
    let grown = admin(&config).create_partitions(&[NewPartitions::new(&name, 3)], &AdminOptions::new()).await;
    grown.unwrap().remove(0).unwrap();
    append(&log, EVENTS, b"x").await.unwrap();
    assert_eq!(log.fetch(EVENTS, Offset(0), 100, Duration::from_secs(10)).await.unwrap().len(), 1);
    let error = until("the brokers know", async || open(&config, &log_config()).await.err()).await;
    assert!(error.to_string().contains("events has 3 partitions, log.events_partitions is 2"), "{error}");
    let grown = crate::Config { events_partitions: 3, ..log_config() };
    let log = open(&config, &grown).await.unwrap();
    assert_eq!(append(&log, TopicPartition::new(Topic::Events, 2), b"y").await.unwrap(), Offset(0));
}

#[tokio::test]
async fn wrong_address_is_told_in_time_with_the_reason() {
    let error = refusal(&config_on("127.0.0.1:1".into()), &log_config()).await;
    assert!(matches!(error, Error::BrokersSilent { .. }), "{error}");
    assert!(error.to_string().contains("127.0.0.1:1") && error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn settings_that_contradict_each_other_are_told() {
    let mut config = config();
    // More than an answer may have.
    config.librdkafka.0.insert("fetch.max.bytes".into(), "2147483135".into());
    let error = refusal(&config, &log_config()).await;
    assert!(matches!(error, Error::KafkaSettings { .. }), "{error}");
}
