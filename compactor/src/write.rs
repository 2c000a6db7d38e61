//! Writes rows of one table partition as Parquet files that roll over at a size.
//!
//! In: record batches in the table's order, with the file schema's columns (text may come as dictionary or view).
//! Out: [`DataFile`]s, durable but not yet named by any commit.
//! A file streams to the store: the writer holds one row group and one upload part, never a whole large file.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type, SchemaRef, TimestampMicrosecondType};
use object_store::buffered::BufWriter;
use object_store::path::Path;
use parquet::arrow::AsyncArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use xxhash_rust::xxh3::xxh3_64;

use crate::schema::{ColumnType, TableSpec};
use crate::stats;
use crate::table::Table;
use crate::table::actions::{Add, PartitionValues, Remove};
use crate::{Error, Result};

/// Rows that are encoded between two chances for other tasks to run: a few milliseconds.
pub(crate) const BATCH_ROWS: usize = 8_192;
/// Encoded bytes of a row group. A merge holds one of each input, so this bounds its memory.
pub(crate) const ROW_GROUP_BYTES: usize = 8 << 20;
const ROW_GROUP_ROWS: usize = 1 << 20;
/// Contexts repeat from flag to flag; a dictionary that holds a few thousand of them halves their column.
const CONTEXT_DICTIONARY_BYTES: usize = 4 << 20;
/// Upload part, and the size below which a file is one request.
const PART_BYTES: usize = 8 << 20;

/// How hard to compress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// A file that a merge will soon replace.
    Landing,
    /// A file that stays.
    Merge,
}

/// A file written and synced, not yet visible.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DataFile {
    pub path: String,
    pub partition: PartitionValues,
    pub bytes: u64,
    pub rows: u64,
    pub stats: String,
    /// Order-independent: sum over the rows of a hash of their key columns.
    pub key_sum: u64,
}

impl DataFile {
    pub fn add(&self, now_millis: i64, data_change: bool) -> Add {
        Add {
            path: self.path.clone(),
            partition_values: self.partition.clone(),
            size: self.bytes as i64,
            modification_time: now_millis,
            data_change,
            stats: Some(self.stats.clone()),
            deletion_vector: None,
        }
    }
}

/// The action that takes a live file out of the table.
pub(crate) fn remove(
    path: &str,
    partition: &PartitionValues,
    bytes: u64,
    now_millis: i64,
    data_change: bool,
) -> Remove {
    Remove {
        path: path.to_owned(),
        deletion_timestamp: Some(now_millis),
        data_change,
        extended_file_metadata: Some(true),
        partition_values: Some(partition.clone()),
        size: Some(bytes as i64),
    }
}

/// Files of one partition of a table, one open at a time.
pub(crate) struct RollingWriter<'a> {
    table: &'a Table,
    partition: PartitionValues,
    effort: Effort,
    target_bytes: u64,
    schema: SchemaRef,
    open: Option<OpenFile>,
    closed: Vec<DataFile>,
}

struct OpenFile {
    path: Path,
    writer: AsyncArrowWriter<BufWriter>,
    key_sum: u64,
}

impl<'a> RollingWriter<'a> {
    pub fn new(table: &'a Table, partition: PartitionValues, effort: Effort, target_bytes: u64) -> Self {
        Self {
            table,
            partition,
            effort,
            target_bytes,
            schema: table.spec.file_schema(),
            open: None,
            closed: Vec::new(),
        }
    }

    /// Writes rows; they follow all earlier ones in the table's order.
    pub async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let key_sum = key_sum(self.table.spec, batch)?;
        if self.open.is_none() {
            self.open = Some(self.begin()?);
        }
        let open = self.open.as_mut().expect("opened above");
        open.writer.write(batch).await.map_err(|error| Error::parquet(&open.path, error))?;
        open.key_sum = open.key_sum.wrapping_add(key_sum);
        if (open.writer.bytes_written() + open.writer.in_progress_size()) as u64 >= self.target_bytes {
            self.close().await?;
        }
        // Encoding is pure computation: give ingest on the same thread its turn.
        tokio::task::yield_now().await;
        Ok(())
    }

    /// Closes the last file and returns all of them.
    pub async fn finish(mut self) -> Result<Vec<DataFile>> {
        self.close().await?;
        Ok(self.closed)
    }

    /// The files closed so far; one that is open is given up.
    pub fn into_closed(self) -> Vec<DataFile> {
        self.closed
    }

    fn begin(&self) -> Result<OpenFile> {
        let folder: String = self
            .table
            .spec
            .partition_columns()
            .map(|name| format!("{name}={}/", self.partition[name].as_deref().unwrap_or_default()))
            .collect();
        let path = Path::from(format!("{folder}part-{}.zstd.parquet", self.table.runtime.entropy.uuid()));
        let upload = BufWriter::with_capacity(self.table.store.objects(), path.clone(), PART_BYTES);
        // Without the Arrow schema in the file, readers see plain columns even where we write dictionaries.
        let options = ArrowWriterOptions::new()
            .with_properties(properties(self.table, self.effort))
            .with_skip_arrow_metadata(true);
        let writer = AsyncArrowWriter::try_new_with_options(upload, Arc::clone(&self.schema), options)
            .map_err(|error| Error::parquet(&path, error))?;
        Ok(OpenFile { path, writer, key_sum: 0 })
    }

    /// Closes the open file, if there is one.
    pub async fn close(&mut self) -> Result<()> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        let footer = open.writer.finish().await.map_err(|error| Error::parquet(&open.path, error))?;
        self.table.store.finished(&open.path).await?;
        self.closed.push(DataFile {
            path: open.path.to_string(),
            partition: self.partition.clone(),
            bytes: open.writer.bytes_written() as u64,
            rows: footer.file_metadata().num_rows() as u64,
            stats: stats::delta_stats(self.table.spec, &footer),
            key_sum: open.key_sum,
        });
        Ok(())
    }
}

/// Deletes files that no commit can name any more. What cannot be deleted stays behind and costs only space.
pub(crate) async fn discard(table: &Table, files: &[DataFile]) {
    let paths = files.iter().map(|file| Path::from(file.path.as_str())).collect();
    if let Err(error) = table.store.delete(paths).await {
        tracing::info!(table = table.spec.name, files = files.len(), %error, "files that were not committed stay behind");
    }
}

/// Sum over rows of the hash of their key columns, the same for any order and any division into batches.
pub(crate) fn key_sum(spec: &TableSpec, batch: &RecordBatch) -> Result<u64> {
    let mut keys = vec![[0_i64; 4]; batch.num_rows()];
    for (slot, name) in spec.key.iter().enumerate() {
        let column = batch.column_by_name(name).expect("key columns are part of the file schema");
        if let Some(numbers) = column.as_primitive_opt::<Int32Type>() {
            keys.iter_mut().zip(numbers.values()).for_each(|(key, value)| key[slot] = i64::from(*value));
        } else if let Some(numbers) = column.as_primitive_opt::<Int64Type>() {
            keys.iter_mut().zip(numbers.values()).for_each(|(key, value)| key[slot] = *value);
        } else {
            let times = column.as_primitive::<TimestampMicrosecondType>();
            keys.iter_mut().zip(times.values()).for_each(|(key, value)| key[slot] = *value);
        }
    }
    let hash = |key: &[i64; 4]| {
        let mut bytes = [0; 32];
        bytes.chunks_exact_mut(8).zip(key).for_each(|(out, number)| out.copy_from_slice(&number.to_le_bytes()));
        xxh3_64(&bytes)
    };
    Ok(keys.iter().fold(0, |sum, key| sum.wrapping_add(hash(key))))
}

fn properties(table: &Table, effort: Effort) -> WriterProperties {
    // Level 3 packs a sixth smaller than 1 at twice the cost; what is merged soon is not worth it.
    let level = ZstdLevel::try_new(if effort == Effort::Merge { 3 } else { 1 }).expect("levels 1 to 22 exist");
    let compression = if table.storage.is_compressed() { Compression::ZSTD(level) } else { Compression::UNCOMPRESSED };
    let mut builder = WriterProperties::builder()
        .set_created_by(crate::table::ENGINE.to_owned())
        .set_compression(compression)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_max_row_group_bytes(Some(ROW_GROUP_BYTES))
        .set_statistics_enabled(EnabledStatistics::None)
        .set_statistics_truncate_length(Some(stats::BOUND_BYTES_MAX))
        .set_column_index_truncate_length(Some(stats::BOUND_BYTES_MAX));
    for column in table.spec.file_columns() {
        let path = ColumnPath::from(column.name);
        if column.stats {
            builder = builder.set_column_statistics_enabled(path.clone(), EnabledStatistics::Page);
        }
        if !column.dictionary {
            builder = builder.set_column_dictionary_enabled(path.clone(), false);
        }
        if !column.dictionary && column.column_type == ColumnType::Timestamp {
            builder = builder.set_column_encoding(path.clone(), Encoding::DELTA_BINARY_PACKED);
        }
        if matches!(column.name, "context" | "context_key") {
            builder = builder.set_column_dictionary_page_size_limit(path, CONTEXT_DICTIONARY_BYTES);
        }
    }
    builder.build()
}
