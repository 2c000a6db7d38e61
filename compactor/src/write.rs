//! Writes rows of one table partition as Parquet files that roll over at a size.
//!
//! In: record batches in the table's order, with the file schema's columns (text may come as view), or row groups that are
//! encoded already.
//! Out: [`DataFile`]s, durable but not yet named by any commit.
//! A file streams to the store: the writer holds one row group and one upload part, never a whole large file.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type, TimestampMicrosecondType};
use object_store::buffered::BufWriter;
use object_store::path::Path;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesPtr};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::{ColumnPath, SchemaDescPtr};
use runtime::{Clock, UnixMicros};
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

use crate::encode::chunk::{Chunk, ChunkEncoder};
use crate::encode::{ColumnRows, Target, parquet_schema};
use crate::schema::{ColumnType, TableSpec};
use crate::stats;
use crate::table::Table;
use crate::table::actions::{Add, PartitionValues, Remove};
use crate::{Error, Result};

/// Rows of a row group, and bytes of their codes and distinct values before compression. What is written and read
/// beside it is bounded by these: a writer holds one row group, a merge one of each input.
pub(crate) const ROW_GROUP_ROWS: usize = 1 << 17;
pub(crate) const ROW_GROUP_RAW_BYTES: usize = 16 << 20;
/// Upload part, and the size below which a file is one request.
const PART_BYTES: usize = 8 << 20;
/// Parts under way at once.
const PARTS_MAX: usize = 2;

/// How hard to compress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// A file that a merge will soon replace.
    Landing,
    /// A file that stays.
    Merge,
}

/// When something began, by both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Begun {
    pub instant: Instant,
    pub at: UnixMicros,
}

impl Begun {
    pub fn now(clock: &Clock) -> Self {
        Self { instant: clock.instant(), at: clock.now() }
    }
}

/// A file written and synced, not yet visible.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DataFile {
    pub path: String,
    pub begun: Begun,
    pub partition: PartitionValues,
    pub bytes: u64,
    pub rows: u64,
    pub stats: String,
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
    target_bytes: u64,
    row_group_bytes: usize,
    schema: SchemaDescPtr,
    properties: WriterPropertiesPtr,
    encoder: ChunkEncoder,
    rows: Option<RowGroup>,
    open: Option<OpenFile>,
    closed: Vec<DataFile>,
}

/// Rows that will be a row group.
struct RowGroup {
    columns: Vec<ColumnRows>,
    rows: usize,
}

struct OpenFile {
    path: Path,
    begun: Begun,
    writer: SerializedFileWriter<Vec<u8>>,
    upload: BufWriter,
}

impl<'a> RollingWriter<'a> {
    pub fn new(table: &'a Table, partition: PartitionValues, effort: Effort, target_bytes: u64) -> Result<Self> {
        let level = table.storage.is_compressed().then(|| effort.level());
        Ok(Self {
            table,
            partition,
            target_bytes,
            row_group_bytes: ROW_GROUP_RAW_BYTES,
            schema: parquet_schema(table.spec),
            properties: Arc::new(properties(table.spec, level)),
            encoder: ChunkEncoder::new(level)?,
            rows: None,
            open: None,
            closed: Vec::new(),
        })
    }

    /// Bounds the codes and distinct values of a row group.
    pub fn with_row_group_bytes(self, row_group_bytes: usize) -> Self {
        Self { row_group_bytes, ..self }
    }

    /// Writes rows; they follow all earlier ones in the table's order.
    pub async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let picks: Vec<_> = (0..batch.num_rows()).map(|row| (0, row)).collect();
        self.write_picked(std::slice::from_ref(batch), &picks).await
    }

    /// Writes rows that lie in several batches: (number of the batch, row in it), in the table's order.
    pub async fn write_picked(&mut self, batches: &[RecordBatch], picks: &[(usize, usize)]) -> Result<()> {
        let rows = self.rows.get_or_insert_with(|| RowGroup::new(self.table.spec));
        for (number, column) in rows.columns.iter_mut().enumerate() {
            let arrays: Vec<_> = batches.iter().map(|batch| batch.column(number)).collect();
            column.extend(&arrays, picks);
        }
        rows.rows += picks.len();
        if rows.rows >= ROW_GROUP_ROWS || rows.bytes() >= self.row_group_bytes {
            self.end_row_group().await?;
        }
        // Encoding is pure computation: give ingest on the same thread its turn.
        tokio::task::yield_now().await;
        Ok(())
    }

    async fn end_row_group(&mut self) -> Result<()> {
        let Some(RowGroup { columns, rows }) = self.rows.take() else { return Ok(()) };
        let spec = self.table.spec;
        let mut target = self.target();
        for (column, values) in spec.file_columns().zip(columns) {
            values.encode(column, &mut target, rows)?;
            tokio::task::yield_now().await;
        }
        let chunks = target.chunks;
        self.write_row_group(chunks).await
    }

    /// Where the chunks of a row group are made that [`Self::write_row_group`] takes.
    pub fn target(&mut self) -> Target<'_> {
        Target { encoder: &mut self.encoder, schema: &self.schema, properties: &self.properties, chunks: Vec::new() }
    }

    /// Writes a row group whose columns are encoded already.
    pub async fn write_row_group(&mut self, chunks: Vec<Chunk>) -> Result<()> {
        if self.open.is_none() {
            self.open = Some(self.begin()?);
        }
        let open = self.open.as_mut().expect("opened above");
        let failed = |error| Error::parquet(&open.path, error);
        let mut row_group = open.writer.next_row_group().map_err(failed)?;
        for chunk in chunks {
            row_group.append_column(&chunk.bytes, chunk.close).map_err(failed)?;
        }
        row_group.close().map_err(failed)?;
        open.send().await?;
        if open.writer.bytes_written() as u64 >= self.target_bytes {
            self.close_file().await?;
        }
        Ok(())
    }

    /// Closes the last file and returns all of them.
    pub async fn finish(mut self) -> Result<Vec<DataFile>> {
        self.close().await?;
        Ok(self.closed)
    }

    /// The files closed so far; one that is open is given up.
    pub async fn into_closed(mut self) -> Vec<DataFile> {
        if let Some(open) = &mut self.open {
            open.give_up().await;
        }
        self.closed
    }

    fn begin(&self) -> Result<OpenFile> {
        let folder: String = self
            .table
            .spec
            .partition_columns()
            .map(|name| format!("{name}={}/", self.partition[name].as_deref().unwrap_or_default()))
            .collect();
        let begun = Begun::now(&self.table.runtime.clock);
        let path = Path::from(format!("{folder}{}", file_name(self.table.runtime.entropy.uuid())));
        let upload = BufWriter::with_capacity(self.table.store.objects(), path.clone(), PART_BYTES)
            .with_max_concurrency(PARTS_MAX);
        let (schema, properties) = (self.schema.root_schema_ptr(), Arc::clone(&self.properties));
        let writer = SerializedFileWriter::new(Vec::new(), schema, properties);
        let writer = writer.map_err(|error| Error::parquet(&path, error))?;
        Ok(OpenFile { path, begun, writer, upload })
    }

    /// Writes what waits and closes the open file, if there is one.
    pub async fn close(&mut self) -> Result<()> {
        self.end_row_group().await?;
        self.close_file().await
    }

    async fn close_file(&mut self) -> Result<()> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        let footer = open.writer.finish().map_err(|error| Error::parquet(&open.path, error));
        let footer = match (footer, open.send().await) {
            (Ok(footer), Ok(())) => footer,
            (Err(error), _) | (_, Err(error)) => {
                open.give_up().await;
                return Err(error);
            }
        };
        open.upload.shutdown().await.map_err(|error| open.failed(error))?;
        self.closed.push(DataFile {
            path: open.path.to_string(),
            begun: open.begun,
            partition: self.partition.clone(),
            bytes: open.writer.bytes_written() as u64,
            rows: footer.file_metadata().num_rows() as u64,
            stats: stats::delta_stats(self.table.spec, &footer),
        });
        self.table.store.finished(&open.path).await
    }
}

impl OpenFile {
    /// Hands the bytes written so far to the upload.
    async fn send(&mut self) -> Result<()> {
        self.writer.flush().map_err(|error| self.failed(error))?;
        let bytes = std::mem::take(self.writer.inner_mut());
        self.upload.put(bytes.into()).await.map_err(|error| Error::store("write", &self.path, error))
    }

    async fn give_up(&mut self) {
        if let Err(error) = self.upload.abort().await {
            tracing::debug!(path = %self.path, %error, "an upload could not be given up; the store's own rules end it");
        }
    }

    /// The store failed, not the file.
    fn failed(&self, error: std::io::Error) -> Error {
        Error::parquet(&self.path, ParquetError::External(Box::new(error)))
    }
}

impl RowGroup {
    fn new(spec: &TableSpec) -> Self {
        Self { columns: spec.file_columns().map(ColumnRows::new).collect(), rows: 0 }
    }

    fn bytes(&self) -> usize {
        self.columns.iter().map(ColumnRows::bytes).sum()
    }
}

/// Data files are named so that nobody else's are taken for ours: [`crate::retention::sweep`] deletes by this name.
fn file_name(id: Uuid) -> String {
    format!("tidegate-{id}.zstd.parquet")
}

/// Whether this program gave a data file of a table its path.
pub(crate) fn is_own_path(spec: &TableSpec, path: &str) -> bool {
    let mut parts = path.split('/').collect::<Vec<_>>();
    let name = parts.pop().unwrap_or_default();
    let id = name.strip_prefix("tidegate-").and_then(|name| name.strip_suffix(".zstd.parquet"));
    let in_partition = parts.len() == spec.partition_columns().count()
        && parts.iter().zip(spec.partition_columns()).all(|(part, column)| {
            part.split_once('=').is_some_and(|(name, value)| name == column && !value.is_empty())
        });
    in_partition && id.is_some_and(|id| id.parse::<Uuid>().is_ok())
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

impl Effort {
    /// Level 3 of zstd packs a sixth smaller than 1 at twice the cost; what is merged soon is not worth it.
    fn level(self) -> i32 {
        if self == Self::Merge { 3 } else { 1 }
    }
}

/// For what parquet itself writes: footers, and columns that are stored as differences. There is no page index: row
/// groups are small, and rows sorted by what queries skip by.
pub(crate) fn properties(spec: &TableSpec, level: Option<i32>) -> WriterProperties {
    let zstd = |level| Compression::ZSTD(ZstdLevel::try_new(level).expect("levels 1 to 22 exist"));
    let mut builder = WriterProperties::builder()
        .set_created_by(crate::table::ENGINE.to_owned())
        .set_compression(level.map_or(Compression::UNCOMPRESSED, zstd))
        .set_statistics_enabled(EnabledStatistics::None)
        .set_offset_index_disabled(true);
    for column in spec.file_columns().filter(|column| !column.dictionary) {
        let path = ColumnPath::from(column.name);
        builder = builder.set_column_dictionary_enabled(path.clone(), false);
        if column.stats {
            builder = builder.set_column_statistics_enabled(path.clone(), EnabledStatistics::Chunk);
        }
        if column.column_type == ColumnType::Timestamp {
            builder = builder.set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
        }
    }
    builder.build()
}
