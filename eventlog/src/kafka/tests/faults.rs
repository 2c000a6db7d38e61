//! What goes wrong with brokers and topics while the log is open.

use rdkafka::TopicPartitionList;
use rdkafka::admin::AdminOptions;
use runtime::{ByteSize, ErrorKind};

use super::broker::Broker;
use super::*;
use crate::{RecordId, TraceParent};

fn is_ready(log: &KafkaLog) -> bool {
    log.health() == WriterHealth::Ready
}

#[tokio::test(flavor = "multi_thread")]
async fn broker_that_dies_fails_appends_and_comes_back() {
    let broker = Broker::new();
    let log = open(&config_on(broker.address()), &log_config()).await.unwrap();
    append(&log, EVENTS, b"before").await.unwrap();
    broker.kill();
    let error = append(&log, EVENTS, b"meanwhile").await.unwrap_err();
    assert!(matches!(error, Error::Unacknowledged { .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::Retry);
    assert_eq!(log.pending_bytes(), 0);
    assert!(!is_ready(&log));
    until("questions fail at once", async || log.bounds(EVENTS).await.err()).await;
    broker.start();
    until("readiness", async || is_ready(&log).then_some(())).await;
    let after = append(&log, EVENTS, b"after").await.unwrap();
    let mut frames = Vec::new();
    while frames.last().is_none_or(|frame| frame != "after") {
        let next = Offset(frames.len() as i64);
        let records = log.fetch(EVENTS, next, 1000, Duration::from_secs(20)).await.unwrap();
        frames.extend(records.into_iter().map(|record| record.frame));
    }
    assert_eq!(frames.len() as i64, after.0 + 1);
    assert_eq!(frames[0], "before");
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_reader_goes_on_after_the_broker_has_died() {
    let broker = Broker::new();
    let log = open(&config_on(broker.address()), &log_config()).await.unwrap();
    append(&log, EVENTS, b"before").await.unwrap();
    assert_eq!(log.fetch(EVENTS, Offset(0), 100, Duration::from_secs(10)).await.unwrap().len(), 1);
    let reader = log.clone();
    let fetch = tokio::spawn(async move { reader.fetch(EVENTS, Offset(1), 100, Duration::from_secs(60)).await });
    broker.kill();
    broker.start();
    until("an append", async || append(&log, EVENTS, b"after").await.ok()).await;
    assert_eq!(fetch.await.unwrap().unwrap()[0].offset, Offset(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn recreated_topic_stops_its_readers_and_no_others() {
    let config = config();
    let log = open(&config, &log_config()).await.unwrap();
    append(&log, EVENTS, b"x").await.unwrap();
    append(&log, CONTEXTS, b"x").await.unwrap();
    let reader = log.clone();
    let waiting = tokio::spawn(async move { reader.fetch(EVENTS, Offset(1), 100, Duration::from_secs(60)).await });
    let name = format!("{}events", config.topic_prefix);
    admin(&config).delete_topics(&[&name], &AdminOptions::new()).await.unwrap().remove(0).unwrap();
    let opened = log.topic_id(Topic::Events);
    until("the topic made again", async || {
        open(&config, &log_config()).await.ok().filter(|again| again.topic_id(Topic::Events) != opened)
    })
    .await;
    let error =
        until("an end of reading", async || log.fetch(EVENTS, Offset(0), 100, Duration::ZERO).await.err()).await;
    assert!(!matches!(error, Error::OffsetOutOfRange { .. }), "{error}");
    let error =
        until("the reason", async || log.bounds(EVENTS).await.err().filter(|e| e.kind() == ErrorKind::Fatal)).await;
    assert!(matches!(&error, Error::TopicReplaced { opened: id, .. } if *id == opened), "{error}");
    assert!(waiting.await.unwrap().is_err());
    assert_eq!(log.fetch(CONTEXTS, Offset(0), 100, Duration::from_secs(10)).await.unwrap().len(), 1);
    append(&log, CONTEXTS, b"y").await.unwrap();
}

#[tokio::test]
async fn what_retention_removed_is_told_with_what_is_held() {
    let config = config();
    let log = open(&config, &log_config()).await.unwrap();
    for frame in [b"a", b"b", b"c"] {
        append(&log, EVENTS, frame).await.unwrap();
    }
    let mut before = TopicPartitionList::new();
    let name = format!("{}events", config.topic_prefix);
    before.add_partition_offset(&name, 0, rdkafka::Offset::Offset(2)).unwrap();
    admin(&config).delete_records(&before, &AdminOptions::new()).await.unwrap();
    let error = log.fetch(EVENTS, Offset(1), 100, Duration::ZERO).await.unwrap_err();
    let held = OffsetRange::new(Offset(2), Offset(3));
    assert!(matches!(error, Error::OffsetOutOfRange { held: found, .. } if found == held), "{error}");
    assert_eq!(log.bounds(EVENTS).await.unwrap(), held);
    assert_eq!(log.fetch(EVENTS, Offset(2), 100, Duration::ZERO).await.unwrap()[0].frame, "c");
}

/// What a broker that came back without its disk would say. A record that the log was seen to have counts as one that was
/// acknowledged.
#[tokio::test]
async fn log_that_ends_before_what_was_acknowledged_has_shrunk() {
    let log = open(&config(), &log_config()).await.unwrap();
    append(&log, EVENTS, b"a").await.unwrap();
    log.state.saw_end(EVENTS, Offset(3));
    let error = log.bounds(EVENTS).await.unwrap_err();
    assert!(matches!(error, Error::Shrunk { known: Offset(3), found: Offset(1), .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::Fatal);
    assert!(error.to_string().contains("acknowledged records are gone"), "{error}");
    // A leader that has not caught up with what others acknowledged says so too, for a moment.
    let (bounds, appended) = tokio::join!(log.bounds(EVENTS), async {
        append(&log, EVENTS, b"b").await?;
        append(&log, EVENTS, b"c").await
    });
    assert_eq!(appended.unwrap(), Offset(2));
    assert_eq!(bounds.unwrap(), OffsetRange::new(Offset(0), Offset(3)));
}

#[tokio::test]
async fn bounds_of_records_and_of_what_is_pending_are_reached() {
    let config = Config { record_bytes_max: ByteSize::mib(1), ..config() };
    let log = open(&config, &crate::Config { pending_bytes_max: ByteSize(1000), ..log_config() }).await.unwrap();
    let largest = vec![7; 1 << 20];
    assert_eq!(append(&log, EVENTS, &largest).await.unwrap(), Offset(0));
    let error = append(&log, EVENTS, &[&largest[..], b"x"].concat()).await.unwrap_err();
    assert!(matches!(error, Error::RecordTooLarge { max_bytes: 1_048_576, .. }), "{error}");
    let (first, second) = tokio::join!(append(&log, EVENTS, &largest), append(&log, EVENTS, b"x"));
    first.unwrap();
    let error = second.unwrap_err();
    assert!(matches!(error, Error::Backlogged { max_bytes: 1000, .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::Overloaded);
    assert_eq!((log.pending_bytes(), is_ready(&log)), (0, true));
}

#[tokio::test]
async fn producer_that_has_given_up_is_replaced() {
    let log = open(&config(), &log_config()).await.unwrap();
    append(&log, EVENTS, b"a").await.unwrap();
    log.writer.stop_producer_for_good();
    assert_eq!(append(&log, EVENTS, b"b").await.unwrap(), Offset(1));
    assert!(is_ready(&log));
}

#[tokio::test]
async fn trace_of_a_record_travels_with_it() {
    let log = open(&config(), &log_config()).await.unwrap();
    let trace = TraceParent::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    let traced = AppendRecord { trace, ..record(EVENTS, b"a") };
    log.append(vec![traced.clone(), record(EVENTS, b"b")]).await.unwrap();
    let named = TracedRecord { id: RecordId([7; 16]), taken_at: None, record: traced };
    log.send(vec![named]).unwrap().await.unwrap();
    let mut read = Vec::new();
    while read.len() < 3 {
        let next = Offset(read.len() as i64);
        let records = log.fetch(EVENTS, next, 1000, Duration::from_secs(10)).await.unwrap();
        read.extend(records.into_iter().map(|record| (record.id, record.trace)));
    }
    assert_eq!(read, [(None, trace), (None, None), (Some(RecordId([7; 16])), trace)]);
}

#[tokio::test]
async fn closed_log_refuses_appends_and_still_reads() {
    let log = open(&config(), &log_config()).await.unwrap();
    append(&log, EVENTS, b"a").await.unwrap();
    log.close(Duration::from_secs(5)).await;
    assert!(matches!(append(&log, EVENTS, b"b").await, Err(Error::Closed)));
    assert!(!is_ready(&log));
    assert_eq!(log.fetch(EVENTS, Offset(0), 100, Duration::from_secs(10)).await.unwrap().len(), 1);
}

#[tokio::test]
async fn progress_of_the_slowest_reader_shows_in_the_consumer_group() {
    let config = config();
    let log = open(&config, &log_config()).await.unwrap();
    append(&log, EVENTS, b"a").await.unwrap();
    log.commit("one", EVENTS, Offset(1));
    log.commit("another", EVENTS, Offset(7));
    let other = config.consumer();
    let other: BaseConsumer<Callbacks> = other.create_with_context(Callbacks::default()).unwrap();
    let name = format!("{}events", config.topic_prefix);
    until("the offset", async || {
        let mut asked = TopicPartitionList::new();
        asked.add_partition(&name, 0);
        let found = other.committed_offsets(asked, Duration::from_secs(5)).ok()?;
        (found.find_partition(&name, 0)?.offset() == rdkafka::Offset::Offset(1)).then_some(())
    })
    .await;
}
