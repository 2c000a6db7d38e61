//! The log on a real broker: the one that `./test` starts, or one of its own for tests that kill it.

mod broker;
mod faults;
mod group;
mod leaders;
mod measure;
mod topics;

use runtime::Entropy;

pub(crate) use self::broker::shared_broker;
use super::*;

const EVENTS: TopicPartition = TopicPartition::new(Topic::Events, 0);
const CONTEXTS: TopicPartition = TopicPartition::new(Topic::Contexts, 0);

/// Topics of its own on the shared broker.
pub(crate) fn config() -> Config {
    config_on(shared_broker())
}

fn config_on(brokers: String) -> Config {
    let topic_prefix = format!("test-{}.", Entropy::system().uuid());
    Config { brokers, topic_prefix, message_timeout: runtime::DurationText::secs(3), ..Config::default() }
}

fn log_config() -> crate::Config {
    crate::Config {
        events_partitions: 2,
        contexts_partitions: 1,
        dead_letters_partitions: 1,
        ..crate::Config::default()
    }
}

pub(crate) async fn open(config: &Config, log: &crate::Config) -> Result<Arc<KafkaLog>> {
    KafkaLog::open(config, log, &Runtime::system()).await
}

fn record(topic_partition: TopicPartition, frame: &[u8]) -> AppendRecord {
    AppendRecord::new(topic_partition, bytes::Bytes::copy_from_slice(frame))
}

async fn append(log: &KafkaLog, topic_partition: TopicPartition, frame: &[u8]) -> Result<Offset> {
    log.append(vec![record(topic_partition, frame)]).await.map(|offsets| offsets[0])
}

/// Looks until something is so, which it must be within half a minute.
async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(tokio::time::Instant::now() < deadline, "{what} did not come true");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn admin(config: &Config) -> AdminClient<Callbacks> {
    config.admin().create_with_context(Callbacks::default()).unwrap()
}
