//! Puts log records that cannot be decoded into the dead letters, with their offset and their bytes.
//!
//! They land before the commit that moves past them, in a commit of the other table with an offset of its own, so a
//! crash between the two repeats nothing: what that offset already covers is left out.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array,
};
use events::DeadLetterReason;

use crate::commit::{Change, NewFiles};
use crate::consume::Poisoned;
use crate::expand::date;
use crate::ledger::Tally;
use crate::table::Table;
use crate::table::actions::{OwnInfo, PartitionValues};
use crate::table::state::TableState;
use crate::write::{Effort, RollingWriter};
use crate::{Error, Result};

const DAY_MICROS: i64 = 86_400_000_000;

/// Lands the records that are not in the table yet.
///
/// # Errors
/// `Fenced` (kind `Retry`) if another process put some of them there meanwhile.
pub(crate) async fn land(table: &Table, poisoned: &[Poisoned]) -> Result<()> {
    let mut stored: BTreeMap<String, Option<i64>> = BTreeMap::new();
    {
        let state = table.state().await;
        for record in poisoned {
            let app_id = app_id(record);
            let offset = state.txns.get(&app_id).copied();
            stored.insert(app_id, offset);
        }
    }
    let new: Vec<&Poisoned> =
        poisoned.iter().filter(|record| stored[&app_id(record)].is_none_or(|next| record.offset.0 >= next)).collect();
    if new.is_empty() {
        return Ok(());
    }
    let mut by_day: BTreeMap<i64, Vec<&Poisoned>> = BTreeMap::new();
    for record in &new {
        by_day.entry(record.appended_at.0.div_euclid(DAY_MICROS)).or_default().push(record);
    }
    let mut files = Vec::new();
    for (day, records) in by_day {
        let partition = PartitionValues::from([("event_date".to_owned(), Some(date(day)))]);
        let mut writer = RollingWriter::new(table, partition, Effort::Landing, u64::MAX)?;
        writer.write(&batch(table, &records)?).await?;
        files.extend(writer.finish().await?);
    }
    let mut tally = Tally::default();
    let mut next: BTreeMap<String, i64> = BTreeMap::new();
    for record in &new {
        tally.count_unreadable(record.appended_at.0);
        let offset = next.entry(app_id(record)).or_default();
        *offset = (*offset).max(record.offset.next().0);
    }
    let now = table.now_millis();
    let change = Change {
        operation: "STREAMING UPDATE",
        txns: next.into_iter().collect(),
        own: OwnInfo { ledger: tally.entries(), ..Default::default() },
        files: NewFiles::new(&files, now, true),
        ..Default::default()
    };
    let first = new[0];
    let name = table.spec.name;
    let guard = |state: &TableState| {
        if stored.iter().all(|(app_id, offset)| state.txns.get(app_id) == offset.as_ref()) {
            return Ok(());
        }
        let stored = events::Offset(state.txns.get(&app_id(first)).copied().unwrap_or_default());
        Err(Error::Fenced { table: name, topic_partition: first.topic_partition, start: first.offset, stored })
    };
    table.commit(&change, &guard).await.map(|_| ())
}

fn app_id(record: &Poisoned) -> String {
    format!("unreadable/{}", record.app_id)
}

fn batch(table: &Table, records: &[&Poisoned]) -> Result<RecordBatch> {
    let schema = table.spec.file_schema();
    let text = |get: &dyn Fn(&Poisoned) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(records.iter().map(|record| get(record))))
    };
    let columns: Vec<ArrayRef> = schema
        .fields()
        .iter()
        .map(|field| match field.name().as_str() {
            "id" => text(&|record| format!("log-{}-{}", record.app_id, record.offset).replace('/', "-")),
            "received_at" => {
                let times = records.iter().map(|record| record.appended_at.0);
                Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"))
            }
            "path" => text(&|record| format!("log:{}", record.topic_partition)),
            "reason" => text(&|_| DeadLetterReason::UnreadableRecord.as_str().to_owned()),
            "message" => text(&|record| record.what.clone()),
            "body" => Arc::new(BinaryArray::from_iter_values(records.iter().map(|record| record.bytes.as_ref()))),
            "log_partition" => {
                let partitions = records.iter().map(|record| record.topic_partition.partition.0 as i32);
                Arc::new(Int32Array::from_iter_values(partitions))
            }
            "log_offset" => Arc::new(Int64Array::from_iter_values(records.iter().map(|record| record.offset.0))),
            "log_row" => Arc::new(Int32Array::from_iter_values(records.iter().map(|_| 0))),
            _ => new_null_array(field.data_type(), records.len()),
        })
        .collect();
    Ok(RecordBatch::try_new(schema, columns)?)
}
