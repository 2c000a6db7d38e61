//! Which payloads share an append.

use std::sync::atomic::AtomicUsize;

use bytes::Bytes;
use eventlog::memory::MemoryLog;
use eventlog::{AppendRecord, LogReader, TraceParent, WriterHealth};
use events::{Environment, Offset, TopicPartition};
use futures::future::BoxFuture;
use runtime::Clock;

use super::*;
use crate::admission::Rate;
use crate::partition::Shard;

/// Notes how many records each append had.
struct CountingLog(MemoryLog, Mutex<Vec<usize>>);

impl LogWriter for CountingLog {
    fn append(&self, records: Vec<AppendRecord>) -> BoxFuture<'_, eventlog::Result<Vec<Offset>>> {
        self.1.lock().push(records.len());
        LogWriter::append(&self.0, records)
    }

    fn partitions(&self, topic: Topic) -> u32 {
        LogWriter::partitions(&self.0, topic)
    }

    fn health(&self) -> WriterHealth {
        self.0.health()
    }
}

/// A summary of one flag with a value of `bytes` bytes: one row in one partition, and nobody is sighted.
fn summary(bytes: usize, room: &Room) -> UnpackedPayload {
    let body = format!(
        r#"[{{"kind":"summary","features":{{"f":{{"counters":[{{"count":1,"value":"{}"}}]}}}}}}]"#,
        "v".repeat(bytes)
    );
    let environment = Environment::new("default", "dev");
    let hash = environment.hash();
    let known = KnownEnvironment { environment, hash, shard: Shard::of(hash, 1), rate: Rate::default() };
    UnpackedPayload {
        head: crate::payload::tests::head(&[]),
        environment: Arc::new(known),
        content: Content::Body(Bytes::from(body)),
        claim: None,
        held: room.hold(),
    }
}

/// Lets a small and a medium payload join at once; returns the sizes of the appends, when both are answered.
async fn appends(callers: usize) -> Vec<usize> {
    let log = Arc::new(CountingLog(MemoryLog::new(Clock::system(), [1, 1, 1], "test"), Mutex::default()));
    let runtime = Runtime::system();
    let metrics = Arc::new(Metrics::new(&runtime.telemetry));
    let room = Room::new(1 << 20);
    let callers = Arc::new(AtomicUsize::new(callers));
    let batcher = Batcher::new(&Config::default(), log.clone(), &runtime, metrics, room.clone(), callers);
    let mut tickets = Vec::new();
    for bytes in [10, SMALL_BYTES] {
        let joined = batcher.join(summary(bytes, &room)).await.unwrap();
        tickets.push(joined.ticket.unwrap());
    }
    for ticket in tickets {
        assert!(ticket.await);
    }
    log.1.lock().clone()
}

/// The trace that each record of one batch has, by the traces of the requests in it.
async fn followed(parents: &[&str]) -> Vec<Option<TraceParent>> {
    let memory = MemoryLog::new(Clock::system(), [1, 1, 1], "test");
    let runtime = Runtime::system();
    let metrics = Arc::new(Metrics::new(&runtime.telemetry));
    let room = Room::new(1 << 20);
    let callers = Arc::new(AtomicUsize::new(parents.len()));
    let batcher = Batcher::new(&Config::default(), Arc::new(memory.clone()), &runtime, metrics, room.clone(), callers);
    let mut tickets = Vec::new();
    for parent in parents {
        let headers: &[(&'static str, &str)] = if parent.is_empty() { &[] } else { &[("traceparent", parent)] };
        let payload = UnpackedPayload { head: crate::payload::tests::head(headers), ..summary(10, &room) };
        tickets.push(batcher.join(payload).await.unwrap().ticket.unwrap());
    }
    for ticket in tickets {
        assert!(ticket.await);
    }
    let place = TopicPartition::new(Topic::Events, 0);
    let records = memory.fetch(place, Offset(0), usize::MAX, Duration::ZERO).await.unwrap();
    records.iter().map(|record| record.trace).collect()
}

#[tokio::test]
async fn record_follows_the_first_sampled_request_in_it() {
    let one = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
    let sampled = "00-1bf7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let later = "00-2cf7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    assert_eq!(followed(&["", ""]).await, [None]);
    for (parents, expected) in [
        (["", one], one),
        (["no trace", one], one),
        ([one, sampled], sampled),
        ([sampled, later], sampled),
        ([sampled, one], sampled),
    ] {
        let traces = followed(&parents).await;
        let [Some(trace)] = traces[..] else { panic!("{traces:?}") };
        let (parent, span) = (TraceParent::parse(expected).unwrap(), &expected[36..52]);
        assert_eq!(trace.to_string()[..36], expected[..36], "{parents:?}");
        assert_ne!(trace, parent, "the record is a span of its own, not {span}");
    }
}

#[tokio::test]
async fn those_who_wait_for_each_other_share_an_append() {
    assert_eq!(appends(2).await, [2], "nobody else could call");
    assert_eq!(appends(3).await, [1, 1], "somebody could still join either");
}
