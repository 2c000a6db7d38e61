//! What clients want forgotten, on its way into the log.
//!
//! In: contexts and instances that the API was told to delete, contexts that are to be erased. Out: rows of the `contexts` topic, after those that they
//! take back. Promise: what was appended is forgotten also by an index that is made again, by another owner of the shard
//! and by the table of states, as all of them read the log. Writing to the index directly was the other choice: its
//! deletion would be gone with the index, and an API apart from the index could not delete at all.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array};
use bytes::Bytes;
use eventlog::{AppendRecord, LogWriter, frame};
use events::context::context_hash;
use events::{Environment, ErasedContexts, LogBatch, SightingsBatch, Topic, TopicPartition, schema};
use runtime::UnixMicros;

use crate::{Error, Result};

/// One state to be forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The context, or the first part of the instance: it decides the partition.
    kind: String,
    key: String,
    /// Canonical key of the instance.
    instance: Option<String>,
}

impl Wish {
    pub fn context(kind: &str, key: &str) -> Self {
        Self { kind: kind.to_owned(), key: key.to_owned(), instance: None }
    }

    pub fn instance(first_kind: &str, first_key: &str, canonical: &str) -> Self {
        Self { instance: Some(canonical.to_owned()), ..Self::context(first_kind, first_key) }
    }
}

/// Appends `wishes` for what was seen up to `now`. They are durable when this returns.
///
/// # Errors
/// As [`LogWriter::append`].
pub async fn append(log: &dyn LogWriter, environment: &Environment, wishes: &[Wish], now: UnixMicros) -> Result<()> {
    let mut records = Vec::with_capacity(wishes.len());
    for wish in wishes {
        let hash = context_hash(environment, &wish.kind, &wish.key);
        let partition = (hash % u64::from(log.partitions(Topic::Contexts))) as u32;
        let frame = frame_of(row_of(environment, wish, now))?;
        records.push(AppendRecord::new(TopicPartition::new(Topic::Contexts, partition), frame));
    }
    log.append(records).await?;
    Ok(())
}

/// Rows of one record: each has a key of a kilobyte at most, usually some tens of bytes.
const ERASURE_ROWS: usize = 500;

/// Appends what is to be erased, to every partition. Returns, per partition, the first offset after it.
///
/// # Errors
/// As [`LogWriter::append`]. What was appended before the error does no harm.
pub async fn append_erasures(log: &dyn LogWriter, contexts: &ErasedContexts, now: UnixMicros) -> Result<Vec<i64>> {
    let partitions = log.partitions(Topic::Contexts);
    let mut ends = vec![0; partitions as usize];
    let all: Vec<(&str, &str)> = contexts.iter().collect();
    for some in all.chunks(ERASURE_ROWS) {
        let frame = frame_of(erasures(contexts, some, now))?;
        let record = |partition| {
            let topic_partition = TopicPartition::new(Topic::Contexts, partition);
            AppendRecord::new(topic_partition, frame.clone())
        };
        let offsets = log.append((0..partitions).map(record).collect()).await?;
        ends.iter_mut().zip(offsets).for_each(|(end, offset)| *end = offset.0 + 1);
    }
    Ok(ends)
}

fn frame_of(rows: RecordBatch) -> Result<Bytes> {
    let rows = SightingsBatch::new(rows)
        .map_err(|error| Error::Damaged { what: format!("a row for the log does not fit its schema: {error}") })?;
    Ok(frame::encode(&LogBatch::Sightings(rows))?)
}

/// Rows of version 3 that are wishes. `of`: the column of that name, if it is not that of all wishes.
fn wishes(environment: &Environment, rows: usize, of: impl Fn(&str) -> Option<ArrayRef>) -> RecordBatch {
    let schema = schema::sightings_v3();
    let text = |value: &str| Arc::new(StringArray::from(vec![value; rows])) as ArrayRef;
    let flag = |value: bool| Arc::new(BooleanArray::from(vec![value; rows])) as ArrayRef;
    let columns = schema.fields().iter().map(|field| {
        of(field.name()).unwrap_or_else(|| match field.name().as_str() {
            "project" => text(&environment.project),
            "environment" => text(&environment.key),
            "anonymous" => flag(false),
            "deleted" => flag(true),
            _ => new_null_array(field.data_type(), rows),
        })
    });
    RecordBatch::try_new(schema.clone(), columns.collect()).expect("one value of its type for each column and row")
}

fn times(time: i64, rows: usize) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from(vec![time; rows]).with_timezone("UTC"))
}

fn row_of(environment: &Environment, wish: &Wish, now: UnixMicros) -> RecordBatch {
    let text = |value: Option<&str>| Arc::new(StringArray::from(vec![value])) as ArrayRef;
    wishes(environment, 1, |name| match name {
        "kind" => Some(text(Some(&wish.kind))),
        "key" => Some(text(Some(&wish.key))),
        "seen_at" | "received_at" => Some(times(now.0, 1)),
        "instance_key" => Some(text(wish.instance.as_deref())),
        _ => None,
    })
}

fn erasures(erased: &ErasedContexts, contexts: &[(&str, &str)], now: UnixMicros) -> RecordBatch {
    let rows = contexts.len();
    let texts = |values: Vec<&str>| Arc::new(StringArray::from(values)) as ArrayRef;
    wishes(&erased.environment, rows, |name| match name {
        "kind" => Some(texts(contexts.iter().map(|(kind, _)| *kind).collect())),
        "key" => Some(texts(contexts.iter().map(|(_, key)| *key).collect())),
        "seen_at" => Some(times(erased.until, rows)),
        "received_at" => Some(times(now.0, rows)),
        "erased" => Some(Arc::new(BooleanArray::from(vec![true; rows]))),
        _ => None,
    })
}
