//! Rows of `events` that name a context: by its key, alone or in a combination, or as who it was before (`alias`).
//!
//! What goes with the keys is all content that a client chose freely and that may tell the same again: attributes, the data
//! of custom events, unknown fields, addresses of pages. A row of a combination loses all of its context, as attributes of
//! the others may tell of this one too.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::kernels::boolean::or;
use arrow::compute::nullif;
use arrow::datatypes::TimestampMicrosecondType;
use events::ErasedContexts;
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::statistics::Statistics;

use super::Eraser;
use crate::stats::BOUND_BYTES_MAX;
use crate::table::actions::PartitionValues;
use crate::{Error, Result};

/// What is blanked in a row that names the context.
const OF_CONTEXT: [&str; 3] = ["context_key", "context_keys", "context"];
/// In a row that names who it was before.
const OF_PREVIOUS: [&str; 1] = ["previous_key"];
/// In both.
const FREE: [&str; 4] = ["data", "url", "selector", "extra"];

const COLUMNS: [&str; 6] =
    ["project", "environment", "received_at", "context_keys", "previous_key", "previous_context_kind"];

/// Partition of the events that say who somebody was before.
const ALIAS: &str = "alias";
/// Kind of such a context where the event does not say.
const LEGACY_KIND: &str = "user";

pub(crate) struct EventEraser<'a>(pub &'a ErasedContexts);

impl Eraser for EventEraser<'_> {
    fn columns(&self) -> &'static [&'static str] {
        &COLUMNS
    }

    fn may_be_in(&self, partition: &PartitionValues, row_group: &RowGroupMetaData) -> bool {
        let statistics = |name: &str| {
            let chunk = row_group.columns().iter().find(|chunk| chunk.column_path().string() == name)?;
            chunk.statistics()
        };
        let environment = &self.0.environment;
        let is_alias = partition.get("kind").and_then(Option::as_deref) == Some(ALIAS);
        let nulls = statistics("context_key").and_then(Statistics::null_count_opt);
        let names_none = !is_alias && nulls == Some(row_group.num_rows() as u64);
        !names_none
            && may_hold(statistics("project"), &environment.project)
            && may_hold(statistics("environment"), &environment.key)
            && !all_later(statistics("received_at"), self.0.until)
    }

    fn rows(&self, batch: &RecordBatch) -> Result<BooleanArray> {
        let (context, previous) = self.named(batch)?;
        Ok(or(&context, &previous)?)
    }

    fn erased(&self, batch: &RecordBatch, rows: &BooleanArray) -> Result<RecordBatch> {
        let (context, previous) = self.named(batch)?;
        let blanked =
            batch.schema_ref().fields().iter().zip(batch.columns()).map(|(field, column)| -> Result<ArrayRef> {
                let name = field.name().as_str();
                Ok(match name {
                    _ if OF_CONTEXT.contains(&name) => nullif(column, &context)?,
                    _ if OF_PREVIOUS.contains(&name) => nullif(column, &previous)?,
                    _ if FREE.contains(&name) => nullif(column, rows)?,
                    _ => Arc::clone(column),
                })
            });
        let columns = blanked.collect::<Result<Vec<ArrayRef>>>()?;
        Ok(RecordBatch::try_new(batch.schema(), columns)?)
    }
}

impl EventEraser<'_> {
    /// Rows that name a context, and rows that name who somebody was before.
    fn named(&self, batch: &RecordBatch) -> Result<(BooleanArray, BooleanArray)> {
        let missing = |name: &str| Error::Table { table: "events", what: format!("column {name} cannot be read") };
        let text = |name: &'static str| {
            batch.column_by_name(name).and_then(|column| column.as_string_view_opt()).ok_or_else(|| missing(name))
        };
        let (projects, environments) = (text("project")?, text("environment")?);
        let (previous_keys, previous_kinds) = (text("previous_key")?, text("previous_context_kind")?);
        let received = batch.column_by_name("received_at");
        let received = received.and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
        let received = received.ok_or_else(|| missing("received_at"))?;
        let maps = batch.column_by_name("context_keys").and_then(|column| column.as_map_opt());
        let maps = maps.ok_or_else(|| missing("context_keys"))?;
        let (kinds, keys) = (maps.keys().as_string::<i32>(), maps.values().as_string::<i32>());
        let offsets = maps.value_offsets();
        let is_meant = |row: usize| {
            received.value(row) <= self.0.until && self.0.is_of(projects.value(row), environments.value(row))
        };
        let names_context = |row: usize| {
            let mut entries = offsets[row] as usize..offsets[row + 1] as usize;
            maps.is_valid(row)
                && entries.any(|entry| keys.is_valid(entry) && self.0.contains(kinds.value(entry), keys.value(entry)))
        };
        let names_previous = |row: usize| {
            let kind = if previous_kinds.is_valid(row) { previous_kinds.value(row) } else { LEGACY_KIND };
            previous_keys.is_valid(row) && self.0.contains(kind, previous_keys.value(row))
        };
        let rows = |named: &dyn Fn(usize) -> bool| {
            (0..batch.num_rows()).map(|row| Some(is_meant(row) && named(row))).collect::<BooleanArray>()
        };
        Ok((rows(&names_context), rows(&names_previous)))
    }
}

/// Whether the bounds of a column allow a value. They are cut outwards.
fn may_hold(statistics: Option<&Statistics>, value: &str) -> bool {
    let Some(Statistics::ByteArray(found)) = statistics else { return true };
    let (Some(low), Some(high)) = (found.min_opt(), found.max_opt()) else { return true };
    // A value as long as a bound may be cut to it.
    value.len() >= BOUND_BYTES_MAX || (low.data() <= value.as_bytes() && value.as_bytes() <= high.data())
}

fn all_later(statistics: Option<&Statistics>, until: i64) -> bool {
    matches!(statistics, Some(Statistics::Int64(found)) if found.min_opt().is_some_and(|first| *first > until))
}
