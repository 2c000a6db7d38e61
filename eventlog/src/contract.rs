//! What every log promises, held against all of them: in memory, embedded, on Kafka, and one with a spill before it.

mod cases;

use std::sync::Arc;
use std::time::Duration;

use events::{Offset, Topic, TopicPartition};
use runtime::{ByteSize, Clock, Runtime};
use tempfile::TempDir;

use crate::embedded::EmbeddedLog;
use crate::kafka::{KafkaLog, tests as brokers};
use crate::memory::MemoryLog;
use crate::spill::{LocalStore, Settings, SpillLog};
use crate::{AppendRecord, Config, LogReader, LogWriter, Result};

const EVENTS: TopicPartition = TopicPartition::new(Topic::Events, 0);
const EVENTS_1: TopicPartition = TopicPartition::new(Topic::Events, 1);
const CONTEXTS: TopicPartition = TopicPartition::new(Topic::Contexts, 0);

/// An empty log with two partitions of events and one of each other topic.
struct Log {
    writer: Arc<dyn LogWriter>,
    reader: Arc<dyn LogReader>,
    _dir: Option<TempDir>,
}

impl Log {
    fn new<L: LogWriter + LogReader + 'static>(log: Arc<L>, dir: Option<TempDir>) -> Self {
        Self { writer: log.clone(), reader: log, _dir: dir }
    }

    async fn in_memory() -> Self {
        Self::new(Arc::new(MemoryLog::new(Clock::system(), [2, 1, 1], "contract")), None)
    }

    async fn embedded() -> Self {
        let dir = TempDir::new().unwrap();
        let log = EmbeddedLog::open(dir.path(), &config(), &Runtime::system()).unwrap();
        Self::new(log, Some(dir))
    }

    async fn on_kafka() -> Self {
        let log: Arc<KafkaLog> = brokers::open(&brokers::config(), &config()).await.unwrap();
        Self::new(log, None)
    }

    async fn spilling() -> Self {
        let (dir, runtime) = (TempDir::new().unwrap(), Runtime::system());
        let log = Arc::new(MemoryLog::new(runtime.clock.clone(), [2, 1, 1], "contract"));
        let store = Arc::new(LocalStore::open(dir.path(), ByteSize::mib(64), &config(), &runtime).unwrap());
        let settings = Settings::new(Duration::from_secs(10), config().pending_bytes_max.0);
        let writer = SpillLog::open(log.clone(), store, settings, &runtime).await.unwrap();
        Self { writer: Arc::new(writer), reader: log, _dir: Some(dir) }
    }

    async fn append(&self, topic_partition: TopicPartition, frame: &[u8]) -> Result<Offset> {
        let frame = bytes::Bytes::copy_from_slice(frame);
        self.writer.append(vec![AppendRecord::new(topic_partition, frame)]).await.map(|offsets| offsets[0])
    }
}

fn config() -> Config {
    Config { events_partitions: 2, contexts_partitions: 1, dead_letters_partitions: 1, ..Config::default() }
}

/// One test for each log and case.
macro_rules! hold {
    ($($log:ident: $($case:ident)*;)*) => {$(
        mod $log {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    cases::$case(Log::$log().await).await;
                }
            )*
        }
    )*};
    ($($log:ident),* | $cases:tt) => { $(hold!(@one $log $cases);)* };
    (@one $log:ident ($($case:ident)*)) => { hold!($log: $($case)*;); };
}

hold!(in_memory, embedded, on_kafka, spilling | (
    offsets_are_consecutive_per_partition
    fetch_waits_for_the_first_record
    fetch_gives_up_in_time
    fetch_stays_within_bytes_but_gives_at_least_one
    place_outside_of_the_log_is_told_with_what_it_holds
    what_bounds_tell_is_there_without_waiting
    two_readers_of_a_partition_go_each_their_own_way
    offset_at_finds_the_first_record_of_a_time
    concurrent_appends_are_there_once
    fetch_that_is_given_up_loses_nothing
    large_and_empty_records_read_back
    unknown_partition_stops_the_caller_alone
));
