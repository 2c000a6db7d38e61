//! Headers of a message: the name of its record, and the trace of a request in it.
//!
//! Header `traceparent`: [`TraceParent`] as text, as whoever follows traces expects it. Only on records with a traced request.
//!
//! Header `tidegate-record`, little-endian. A message without it, or with one that is of another length, has no name.
//!
//! | field | bytes | meaning |
//! |---|---|---|
//! | id | 16 | [`RecordId`] |
//! | taken_at | 8 | microseconds since the epoch, or the field is missing: when the record was taken, if not by the broker |
//!
//! `taken_at` stands for the time that the broker gave the message: the window in which repeated payloads are found runs on
//! the time of records, and one that waited elsewhere for an hour has its twin an hour ago.

use rdkafka::message::{BorrowedMessage, Headers, Message};
use runtime::UnixMicros;

use crate::TraceParent;
use crate::traced::{RecordId, TracedRecord};

pub(super) const HEADER: &str = "tidegate-record";

/// What the header of a record says.
pub(super) fn encode(record: &TracedRecord) -> Vec<u8> {
    let mut value = record.id.0.to_vec();
    if let Some(taken_at) = record.taken_at {
        value.extend_from_slice(&taken_at.0.to_le_bytes());
    }
    value
}

fn decode(value: &[u8]) -> Option<(RecordId, Option<UnixMicros>)> {
    let (id, rest) = value.split_first_chunk::<16>()?;
    let taken_at = match rest {
        [] => None,
        rest => Some(UnixMicros(i64::from_le_bytes(rest.try_into().ok()?))),
    };
    Some((RecordId(*id), taken_at))
}

pub(super) fn of(message: &BorrowedMessage<'_>) -> Option<(RecordId, Option<UnixMicros>)> {
    let headers = message.headers()?;
    let header = headers.iter().find(|header| header.key == HEADER)?;
    header.value.and_then(decode)
}

pub(super) fn parent_of(message: &BorrowedMessage<'_>) -> Option<TraceParent> {
    let headers = message.headers()?;
    let header = headers.iter().find(|header| header.key == TraceParent::HEADER)?;
    TraceParent::parse(std::str::from_utf8(header.value?).ok()?)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use events::{Topic, TopicPartition};

    use super::*;
    use crate::AppendRecord;

    #[test]
    fn header_reads_back_and_others_name_nothing() {
        let record = AppendRecord::new(TopicPartition::new(Topic::Events, 0), Bytes::new());
        let id = RecordId([7; 16]);
        for taken_at in [None, Some(UnixMicros(-5))] {
            let value = encode(&TracedRecord { id, taken_at, record: record.clone() });
            assert_eq!(decode(&value), Some((id, taken_at)));
            assert_eq!(decode(&value[..value.len() - 1]), None);
        }
    }
}
