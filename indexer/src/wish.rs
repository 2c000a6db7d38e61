//! What clients want forgotten, on its way into the log.
//!
//! In: contexts and instances that the API was told to delete. Out: rows of the `contexts` topic, after those that they
//! take back. Promise: what was appended is forgotten also by an index that is made again, by another owner of the shard
//! and by the table of states, as all of them read the log. Writing to the index directly was the other choice: its
//! deletion would be gone with the index, and an API apart from the index could not delete at all.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array};
use eventlog::{AppendRecord, LogWriter, frame};
use events::context::context_hash;
use events::{Environment, LogBatch, SightingsBatch, Topic, TopicPartition, schema};
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
        let rows = SightingsBatch::new(row_of(environment, wish, now))
            .map_err(|error| Error::Damaged { what: format!("a row for the log does not fit its schema: {error}") })?;
        let frame = frame::encode(&LogBatch::Sightings(rows))?;
        records.push(AppendRecord { topic_partition: TopicPartition::new(Topic::Contexts, partition), frame });
    }
    log.append(records).await?;
    Ok(())
}

fn row_of(environment: &Environment, wish: &Wish, now: UnixMicros) -> RecordBatch {
    let schema = schema::sightings_v2();
    let text = |value: Option<&str>| Arc::new(StringArray::from(vec![value])) as ArrayRef;
    let flag = |value: bool| Arc::new(BooleanArray::from(vec![value])) as ArrayRef;
    let columns = schema.fields().iter().map(|field| match field.name().as_str() {
        "project" => text(Some(&environment.project)),
        "environment" => text(Some(&environment.key)),
        "kind" => text(Some(&wish.kind)),
        "key" => text(Some(&wish.key)),
        "anonymous" => flag(false),
        "seen_at" | "received_at" => Arc::new(TimestampMicrosecondArray::from(vec![now.0]).with_timezone("UTC")),
        "instance_key" => text(wish.instance.as_deref()),
        "deleted" => flag(true),
        _ => new_null_array(field.data_type(), 1),
    });
    RecordBatch::try_new(schema.clone(), columns.collect()).expect("one value of its type for each column")
}
