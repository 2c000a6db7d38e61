//! Which payloads share an append.

use std::sync::atomic::AtomicUsize;

use bytes::Bytes;
use eventlog::memory::MemoryLog;
use eventlog::{AppendRecord, WriterHealth};
use events::{Environment, Offset};
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

#[tokio::test]
async fn those_who_wait_for_each_other_share_an_append() {
    assert_eq!(appends(2).await, [2], "nobody else could call");
    assert_eq!(appends(3).await, [1, 1], "somebody could still join either");
}
