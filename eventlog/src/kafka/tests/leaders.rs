//! A partition without a leader, which a healthy broker does not show on demand: librdkafka's own stand-in for brokers does.

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::*;

const NO_LEADER: RDKafkaRespErr = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION;
/// Room for all attempts that librdkafka and we make of one question.
const MANY: usize = 1000;

struct Brokers {
    cluster: MockCluster<'static, DefaultProducerContext>,
    reader: Reader,
}

impl Brokers {
    fn new() -> Self {
        let cluster = MockCluster::new(1).unwrap();
        let config = config_on(cluster.bootstrap_servers());
        let names = Names::new(&config.topic_prefix);
        cluster.create_topic(names.of(Topic::Events), 2, 1).unwrap();
        let topic_ids = Topic::ALL.map(|topic| TopicId(topic.to_string().as_str().into()));
        let state = Arc::new(State::new(names, [2, 1, 1], topic_ids));
        let runtime = Runtime::system();
        let consumer = || reader::consumer(&config.consumer()).unwrap();
        let metrics = Metrics::new(&runtime.telemetry);
        let reader = Reader::new([consumer(), consumer()], state, runtime.clock, metrics);
        Self { cluster, reader }
    }

    fn refuse(&self, times: usize) {
        self.cluster.request_errors(RDKafkaApiKey::ListOffsets, &vec![NO_LEADER; times]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn first_record_since_a_time_is_found_once_there_is_a_leader() {
    let brokers = Brokers::new();
    assert_eq!(brokers.reader.offset_at(EVENTS, UnixMicros(1)).await.unwrap(), Offset(0));
    brokers.refuse(2);
    assert_eq!(brokers.reader.offset_at(EVENTS, UnixMicros(1)).await.unwrap(), Offset(0));
    brokers.refuse(MANY);
    let error = brokers.reader.offset_at(EVENTS, UnixMicros(1)).await.unwrap_err();
    assert_eq!(error.kind(), runtime::ErrorKind::Retry, "{error}");
    assert!(error.to_string().contains("first record of events/0 since a time"), "{error}");
    brokers.cluster.clear_request_errors(RDKafkaApiKey::ListOffsets);
    assert_eq!(brokers.reader.offset_at(EVENTS, UnixMicros(1)).await.unwrap(), Offset(0));
}
