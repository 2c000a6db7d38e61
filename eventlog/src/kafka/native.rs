//! What librdkafka knows and the crate `rdkafka` does not: the identity of topics and what we may do with them, and whether a
//! failed message may be stored. All `unsafe` of the Kafka log is in this file, behind [`describe_topics`] and [`may_be_stored`].
//!
//! The former puts one request on a queue of its own and waits for its one answer, so nothing outlives the call.
//!
//! Requests that librdkafka sends to a coordinator this way (such as for the offsets of consumer groups) are not used: when
//! the broker dies meanwhile, an assertion of librdkafka may end the process
//! (<https://github.com/confluentinc/librdkafka/issues/4605>, seen here with 2.12.1).

use std::ffi::{CStr, CString, c_char};
use std::ptr::NonNull;
use std::time::Duration;

use rdkafka::bindings as rd;
use rdkafka::client::{Client, ClientContext};
use rdkafka::message::BorrowedMessage;
use rdkafka::types::{RDKafkaAdminOp, RDKafkaErrorCode as Code, RDKafkaRespErr};

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub code: Code,
    pub reason: String,
}

/// One topic as the brokers describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TopicDescription {
    /// As Kafka's own tools show it.
    pub id: String,
    pub partitions: Vec<PartitionDescription>,
    /// What we may do with it.
    pub may_read: bool,
    pub may_write: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PartitionDescription {
    pub has_leader: bool,
    pub in_sync: usize,
    pub replicas: usize,
}

/// Whether a message that a delivery report says has failed may be on a broker all the same.
pub(super) fn may_be_stored(message: &BorrowedMessage<'_>) -> bool {
    // SAFETY: the message is alive as long as it is borrowed, and comes from a delivery report: its own bookkeeping, which the
    // status is read from, lies around it. The call only reads, and returns nothing but the three values of the enum.
    let status = unsafe { rd::rd_kafka_message_status(message.ptr()) };
    status != rd::rd_kafka_msg_status_t::RD_KAFKA_MSG_STATUS_NOT_PERSISTED
}

/// Asks for topics by name; one description or the reason why there is none for each, in the order given.
///
/// # Errors
/// No broker answered within `timeout`, or none would.
pub(super) fn describe_topics<C: ClientContext>(
    client: &Client<C>,
    names: &[String],
    timeout: Duration,
) -> Result<Vec<Result<TopicDescription, Failure>>, Failure> {
    let names: Vec<CString> = names.iter().map(|name| text(name)).collect::<Result<_, _>>()?;
    let request = Request::new(client, RDKafkaAdminOp::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS, timeout)?;
    let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    // SAFETY: options are alive; the call only stores the flag, and its error, if any, is ours to free.
    let refused = unsafe { rd::rd_kafka_AdminOptions_set_include_authorized_operations(request.options.as_ptr(), 1) };
    drop(OwnedError::from(refused));
    // SAFETY: `pointers` holds as many NUL-ended texts as it is told, which live until after the call; it copies them. The
    // request copies the collection too, which is freed right after.
    let answer = unsafe {
        let topics = rd::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
        rd::rd_kafka_DescribeTopics(request.client, topics, request.options.as_ptr(), request.queue.as_ptr());
        rd::rd_kafka_TopicCollection_destroy(topics);
        request.answer(timeout)?
    };
    // SAFETY: the event is alive until `answer` is dropped, and everything below points into it. The result is null only
    // for an event of another kind, of which the request's queue never gets one.
    unsafe {
        let result = rd::rd_kafka_event_DescribeTopics_result(answer.0.as_ptr());
        if result.is_null() {
            return Err(Failure { code: Code::Fail, reason: "an answer of another kind".into() });
        }
        let mut count = 0;
        let topics = pointed_at(rd::rd_kafka_DescribeTopics_result_topics(result, &mut count), count);
        let absent = || Failure { code: Code::UnknownTopicOrPartition, reason: "not in the answer".into() };
        let described = names.iter().map(|name| {
            let named = |topic: &&*const _| CStr::from_ptr(rd::rd_kafka_TopicDescription_name(**topic)) == &**name;
            topics.iter().find(named).map_or_else(|| Err(absent()), |topic| describe(*topic))
        });
        Ok(described.collect())
    }
}

/// Raises the error after which a producer takes nothing more.
#[cfg(test)]
pub(super) fn stop_for_good<C: ClientContext>(client: &Client<C>) {
    let code = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
    // SAFETY: the client is alive, the text ends with NUL and is copied.
    unsafe { rd::rd_kafka_test_fatal_error(client.native_ptr(), code, c"raised by a test".as_ptr()) };
}

/// What one request needs. Freed on every way out.
struct Request {
    client: *mut rd::rd_kafka_t,
    options: NonNull<rd::rd_kafka_AdminOptions_t>,
    queue: NonNull<rd::rd_kafka_queue_t>,
}

impl Request {
    /// The client must outlive what is returned; the caller holds it by reference for as long.
    fn new<C: ClientContext>(client: &Client<C>, what: RDKafkaAdminOp, timeout: Duration) -> Result<Self, Failure> {
        let client = client.native_ptr();
        let none = || Failure { code: Code::Fail, reason: "out of memory".into() };
        // SAFETY: the client is alive. What the calls return is owned by us, and freed in `drop`.
        let queue = NonNull::new(unsafe { rd::rd_kafka_queue_new(client) }).ok_or_else(none)?;
        // SAFETY: as above.
        let Some(options) = NonNull::new(unsafe { rd::rd_kafka_AdminOptions_new(client, what) }) else {
            // SAFETY: ours, and used no more.
            unsafe { rd::rd_kafka_queue_destroy(queue.as_ptr()) };
            return Err(none());
        };
        let request = Self { client, options, queue };
        let mut why = [0; 256];
        let (bytes, length) = (why.as_mut_ptr(), why.len());
        // SAFETY: `why` is as long as it says.
        let set =
            unsafe { rd::rd_kafka_AdminOptions_set_request_timeout(options.as_ptr(), millis(timeout), bytes, length) };
        match set {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(request),
            code => Err(Failure { code: code.into(), reason: "the time for a request is not possible".into() }),
        }
    }

    /// Waits for the one answer, which librdkafka gives in any case once the request's own time is over.
    ///
    /// # Safety
    /// A request has been put on the queue.
    unsafe fn answer(&self, timeout: Duration) -> Result<Event, Failure> {
        let wait = millis(timeout + Duration::from_secs(1));
        // SAFETY: the queue is alive; the event belongs to us.
        let event = NonNull::new(unsafe { rd::rd_kafka_queue_poll(self.queue.as_ptr(), wait) }).map(Event);
        let silent = || Failure { code: Code::OperationTimedOut, reason: format!("no answer within {timeout:?}") };
        let event = event.ok_or_else(silent)?;
        // SAFETY: the event is alive.
        match unsafe { rd::rd_kafka_event_error(event.0.as_ptr()) } {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(event),
            // SAFETY: the text lives as long as the event.
            code => Err(Failure {
                code: code.into(),
                reason: unsafe { owned(rd::rd_kafka_event_error_string(event.0.as_ptr())) },
            }),
        }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        // SAFETY: both are ours and used no more. An answer that comes later finds its queue gone and is freed there.
        unsafe {
            rd::rd_kafka_AdminOptions_destroy(self.options.as_ptr());
            rd::rd_kafka_queue_destroy(self.queue.as_ptr());
        }
    }
}

struct Event(NonNull<rd::rd_kafka_event_t>);

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: ours, and nothing that points into it is left: callers copy what they return.
        unsafe { rd::rd_kafka_event_destroy(self.0.as_ptr()) };
    }
}

struct OwnedError(*mut rd::rd_kafka_error_t);

impl From<*mut rd::rd_kafka_error_t> for OwnedError {
    fn from(error: *mut rd::rd_kafka_error_t) -> Self {
        Self(error)
    }
}

impl Drop for OwnedError {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: ours and not null.
            unsafe { rd::rd_kafka_error_destroy(self.0) };
        }
    }
}

/// # Safety
/// `topic` points into a result that is alive.
unsafe fn describe(topic: *const rd::rd_kafka_TopicDescription_t) -> Result<TopicDescription, Failure> {
    // SAFETY: everything asked of `topic` lives as long as it, and lists are as long as they say. A topic without error has
    // an id. A partition's leader is null if it has none. Operations are made from bits of those that the enum knows, so no
    // other value can be read.
    unsafe {
        let error = rd::rd_kafka_TopicDescription_error(topic);
        if !error.is_null() && rd::rd_kafka_error_code(error) != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            let code = rd::rd_kafka_error_code(error).into();
            return Err(Failure { code, reason: owned(rd::rd_kafka_error_string(error)) });
        }
        let id = owned(rd::rd_kafka_Uuid_base64str(rd::rd_kafka_TopicDescription_topic_id(topic)));
        let mut count = 0;
        let partitions = rd::rd_kafka_TopicDescription_partitions(topic, &mut count);
        let partitions = pointed_at(partitions, count).iter().map(|partition| {
            let (mut in_sync, mut replicas) = (0, 0);
            rd::rd_kafka_TopicPartitionInfo_isr(*partition, &mut in_sync);
            rd::rd_kafka_TopicPartitionInfo_replicas(*partition, &mut replicas);
            let has_leader = !rd::rd_kafka_TopicPartitionInfo_leader(*partition).is_null();
            PartitionDescription { has_leader, in_sync, replicas }
        });
        let partitions = partitions.collect();
        let mut count = 0;
        let allowed = rd::rd_kafka_TopicDescription_authorized_operations(topic, &mut count);
        let may = |operation| allowed.is_null() || (0..count).any(|index| *allowed.add(index) == operation);
        Ok(TopicDescription {
            // Kafka's tools use the alphabet that fits into URLs and file names, and so do we.
            id: id.replace('+', "-").replace('/', "_"),
            partitions,
            may_read: may(rd::rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_READ),
            may_write: may(rd::rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_WRITE),
        })
    }
}

/// # Safety
/// `first` points to `count` values, or `count` is 0.
unsafe fn pointed_at<'a, T>(first: *mut *const T, count: usize) -> &'a [*const T] {
    if first.is_null() || count == 0 {
        return &[];
    }
    // SAFETY: not null, and as many as the caller says.
    unsafe { std::slice::from_raw_parts(first, count) }
}

/// # Safety
/// `text` is null or a NUL-ended text that is alive.
unsafe fn owned(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: not null, and the caller says the rest.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

fn text(name: &str) -> Result<CString, Failure> {
    CString::new(name).map_err(|_| Failure { code: Code::InvalidArgument, reason: format!("{name:?} holds a NUL") })
}

fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}
