//! Brings a table's state up to its newest commit: newest checkpoint, then one commit file after the other.
//!
//! Commits are found by asking for the next version, not by listing: a stale list would only cost a refused commit, but
//! a list of a long log costs many requests. Only classic checkpoints are read, as only those are written here.
//! deltalake-core's snapshot was the alternative: it keeps the statistics of all files in memory, reads the log on
//! threads of its own, and does not tell which commit was ours.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, StringArray, StructArray};
use arrow::datatypes::{Int32Type, Int64Type};
use futures::TryStreamExt;
use object_store::path::Path;
use parquet::arrow::ProjectionMask;
use parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;

use super::actions::{self, Action, PartitionValues};
use super::state::TableState;
use super::store::TableStore;
use crate::read::ObjectReader;
use crate::{Error, Result};

pub(crate) fn commit_path(version: u64) -> Path {
    Path::from(format!("_delta_log/{version:020}.json"))
}

fn checkpoint_path(version: u64) -> Path {
    Path::from(format!("_delta_log/{version:020}.checkpoint.parquet"))
}

/// The state at the newest version; `None` if there is no table.
pub(crate) async fn load(table: &'static str, store: &TableStore) -> Result<Option<TableState>> {
    let mut state = match newest_checkpoint(store).await? {
        Some(version) => read_checkpoint(table, store, version).await?,
        None => match store.get(&commit_path(0)).await? {
            Some(bytes) => {
                let mut state = TableState::default();
                state.apply(0, &parse(table, 0, &bytes)?);
                state
            }
            None => return Ok(None),
        },
    };
    while let Some(actions) = read_commit(table, store, state.version + 1).await? {
        state.apply(state.version + 1, &actions);
    }
    Ok(Some(state))
}

/// The actions of one commit; `None` if it does not exist (yet).
pub(crate) async fn read_commit(table: &'static str, store: &TableStore, version: u64) -> Result<Option<Vec<Action>>> {
    match store.get(&commit_path(version)).await? {
        Some(bytes) => parse(table, version, &bytes).map(Some),
        None => Ok(None),
    }
}

fn parse(table: &'static str, version: u64, bytes: &[u8]) -> Result<Vec<Action>> {
    actions::decode(bytes)
        .map_err(|error| Error::Table { table, what: format!("commit {version} cannot be read: {error}") })
}

/// The hint is only a hint: where it is missing or points at nothing, the log is listed.
async fn newest_checkpoint(store: &TableStore) -> Result<Option<u64>> {
    if let Some(hint) = store.get(&Path::from("_delta_log/_last_checkpoint")).await?
        && let Some(version) =
            serde_json::from_slice::<serde_json::Value>(&hint).ok().and_then(|hint| hint["version"].as_u64())
        && store.size(&checkpoint_path(version)).await.is_ok()
    {
        return Ok(Some(version));
    }
    let listed = store.list(&Path::from("_delta_log")).await?;
    Ok(listed
        .iter()
        .filter_map(|meta| meta.location.filename()?.strip_suffix(".checkpoint.parquet")?.parse().ok())
        .max())
}

async fn read_checkpoint(table: &'static str, store: &TableStore, version: u64) -> Result<TableState> {
    let path = checkpoint_path(version);
    let failed = |error| Error::parquet(&path, error);
    let reader = ObjectReader::new(store.objects(), path.clone(), store.size(&path).await?);
    let builder = ParquetRecordBatchStreamBuilder::new(reader).await.map_err(failed)?;
    let wanted = ["add", "remove", "txn", "metaData", "protocol", "sidecar"];
    let roots: Vec<usize> = (builder.schema().fields().iter().enumerate())
        .filter(|(_, field)| wanted.contains(&field.name().as_str()))
        .map(|(index, _)| index)
        .collect();
    let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
    let mut batches = builder.with_projection(mask).with_batch_size(4096).build().map_err(failed)?;
    let mut state = TableState::at_checkpoint(version);
    while let Some(batch) = batches.try_next().await.map_err(failed)? {
        apply_checkpoint(&mut state, &batch)
            .map_err(|what| Error::Table { table, what: format!("checkpoint {version}: {what}") })?;
    }
    Ok(state)
}

fn apply_checkpoint(state: &mut TableState, batch: &RecordBatch) -> std::result::Result<(), String> {
    if let Some(sidecars) = batch.column_by_name("sidecar")
        && sidecars.null_count() < sidecars.len()
    {
        return Err("it refers to sidecar files, which this version does not read".into());
    }
    let structs = |name: &str| batch.column_by_name(name).and_then(|column| column.as_struct_opt());
    if let Some(adds) = structs("add") {
        let (path, size, time) = (text(adds, "path")?, long(adds, "size")?, long(adds, "modificationTime")?);
        let values = child(adds, "partitionValues")?.as_map_opt().ok_or("partitionValues is not a map")?;
        let vector = adds.column_by_name("deletionVector");
        for row in (0..adds.len()).filter(|row| adds.is_valid(*row)) {
            let entries = values.value(row);
            let (keys, texts) = (entries.column(0).as_string::<i32>(), entries.column(1).as_string::<i32>());
            let partition: PartitionValues = (0..entries.len())
                .map(|entry| {
                    (keys.value(entry).to_owned(), texts.is_valid(entry).then(|| texts.value(entry).to_owned()))
                })
                .collect();
            let plain = vector.is_none_or(|vector| vector.is_null(row)) && !path.value(row).contains(['%', ':']);
            state.add(path.value(row), &partition, size.value(row), time.value(row), plain);
        }
    }
    if let Some(removes) = structs("remove") {
        let (path, time) = (text(removes, "path")?, long(removes, "deletionTimestamp")?);
        for row in (0..removes.len()).filter(|row| removes.is_valid(*row)) {
            state.remove(path.value(row), time.value(row));
        }
    }
    if let Some(txns) = structs("txn") {
        let (app_id, version) = (text(txns, "appId")?, long(txns, "version")?);
        for row in (0..txns.len()).filter(|row| txns.is_valid(*row)) {
            state.txns.insert(app_id.value(row).to_owned(), version.value(row));
        }
    }
    if let Some(metadata) = structs("metaData") {
        let schema = text(metadata, "schemaString")?;
        if let Some(row) = (0..metadata.len()).find(|row| metadata.is_valid(*row)) {
            state.schema_string = schema.value(row).to_owned();
        }
    }
    if let Some(protocol) = structs("protocol") {
        let int = |name| child(protocol, name)?.as_primitive_opt::<Int32Type>().ok_or(format!("{name} is not an int"));
        let (reader, writer) = (int("minReaderVersion")?, int("minWriterVersion")?);
        if let Some(row) = (0..protocol.len()).find(|row| protocol.is_valid(*row)) {
            (state.min_reader_version, state.min_writer_version) = (reader.value(row), writer.value(row));
        }
    }
    Ok(())
}

fn child<'a>(parent: &'a StructArray, name: &str) -> std::result::Result<&'a Arc<dyn Array>, String> {
    parent.column_by_name(name).ok_or_else(|| format!("{name} is missing"))
}

fn text<'a>(parent: &'a StructArray, name: &str) -> std::result::Result<&'a StringArray, String> {
    child(parent, name)?.as_string_opt().ok_or_else(|| format!("{name} is not text"))
}

fn long<'a>(parent: &'a StructArray, name: &str) -> std::result::Result<&'a arrow::array::Int64Array, String> {
    child(parent, name)?.as_primitive_opt::<Int64Type>().ok_or_else(|| format!("{name} is not a long"))
}
