//! States of contexts as rows of the table, and back.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, MapBuilder, MapFieldNames, RecordBatch, StringArray,
    StringBuilder, TimestampMicrosecondArray, TimestampMicrosecondBuilder,
};
use arrow::datatypes::{Field, Int64Type, TimestampMicrosecondType};
use events::ContextState;

use crate::Result;
use crate::schema::{CONTEXTS, ColumnType};

pub(super) fn batch_of(states: &[ContextState]) -> Result<RecordBatch> {
    let text = |get: fn(&ContextState) -> &str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(states.iter().map(get)))
    };
    let times = |get: fn(&ContextState) -> Option<i64>| -> ArrayRef {
        Arc::new(states.iter().map(get).collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
    };
    let columns: Vec<ArrayRef> = vec![
        text(|state| &state.project),
        text(|state| &state.environment),
        text(|state| &state.kind),
        text(|state| &state.key),
        Arc::new(states.iter().map(|state| Some(state.anonymous)).collect::<BooleanArray>()),
        times(|state| Some(state.last_seen)),
        times(|state| state.attributes_at),
        applications_of(states)?,
        text(|state| &state.context),
        Arc::new(Int64Array::from_iter_values(states.iter().map(|state| state.content as i64))),
    ];
    Ok(RecordBatch::try_new(CONTEXTS.file_schema(), columns)?)
}

fn applications_of(states: &[ContextState]) -> Result<ArrayRef> {
    let names = MapFieldNames { entry: "key_value".into(), key: "key".into(), value: "value".into() };
    let time = ColumnType::Timestamp.arrow();
    let times = TimestampMicrosecondBuilder::new().with_data_type(time.clone());
    let mut map =
        MapBuilder::new(Some(names), StringBuilder::new(), times).with_values_field(Field::new("value", time, false));
    for state in states {
        for (name, at) in &state.applications {
            map.keys().append_value(name);
            map.values().append_value(*at);
        }
        map.append(true)?;
    }
    Ok(Arc::new(map.finish()))
}

/// The states of a batch, or the name of the column that is not as it must be.
pub(super) fn states_of(batch: &RecordBatch) -> std::result::Result<Vec<ContextState>, &'static str> {
    let text =
        |name: &'static str| batch.column_by_name(name).and_then(|column| column.as_string_opt::<i32>()).ok_or(name);
    let times = |name: &'static str| {
        batch.column_by_name(name).and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>()).ok_or(name)
    };
    let (projects, environments) = (text("project")?, text("environment")?);
    let (kinds, keys, contexts) = (text("kind")?, text("key")?, text("context")?);
    let (last_seen, attributes_at) = (times("last_seen")?, times("attributes_at")?);
    let anonymous = batch.column_by_name("anonymous").and_then(|column| column.as_boolean_opt()).ok_or("anonymous")?;
    let hashes = batch.column_by_name("content_hash").and_then(|column| column.as_primitive_opt::<Int64Type>());
    let hashes = hashes.ok_or("content_hash")?;
    let applications = batch.column_by_name("applications").and_then(|column| column.as_map_opt());
    let applications = applications.ok_or("applications")?;
    let names = applications.keys().as_string_opt::<i32>().ok_or("applications")?;
    let seen = applications.values().as_primitive_opt::<TimestampMicrosecondType>().ok_or("applications")?;
    let state = |row: usize| {
        let offsets = applications.value_offsets();
        let entries = offsets[row] as usize..offsets[row + 1] as usize;
        ContextState {
            project: projects.value(row).to_owned(),
            environment: environments.value(row).to_owned(),
            kind: kinds.value(row).to_owned(),
            key: keys.value(row).to_owned(),
            anonymous: anonymous.value(row),
            last_seen: last_seen.value(row),
            attributes_at: attributes_at.is_valid(row).then(|| attributes_at.value(row)),
            content: hashes.value(row) as u64,
            applications: entries.map(|entry| (names.value(entry).to_owned(), seen.value(entry))).collect(),
            context: contexts.value(row).to_owned(),
        }
    };
    Ok((0..batch.num_rows()).map(state).collect())
}
