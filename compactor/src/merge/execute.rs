//! Carries out one merge.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::kernels::zip::zip;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::row::{RowConverter, Rows, SortField};
use futures::TryStreamExt;
use object_store::path::Path;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::{ParquetRecordBatchStream, ParquetRecordBatchStreamBuilder};
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};

use super::MergeSettings;
use crate::commit::{Change, NewFiles};
use crate::read::ObjectReader;
use crate::schema::{ColumnType, TableSpec};
use crate::table::Table;
use crate::table::actions::PartitionValues;
use crate::table::state::TableState;
use crate::write::{DataFile, Effort, RollingWriter, discard, key_sum, remove};
use crate::{Error, Result, Step, Steps};

/// Rows decoded at a time per input, and written at a time.
const INPUT_ROWS: usize = 2_048;

/// Merges live files of one partition. Returns how many were replaced.
///
/// # Errors
/// `FileGone` (kind `Retry`) if one of them is no longer live: nothing was changed. `MergeMismatch` (kind `Fatal`) if
/// what was written is not what was read: nothing was changed.
pub(crate) async fn execute(
    table: &Table,
    partition: &PartitionValues,
    paths: &[String],
    settings: MergeSettings,
    steps: &Steps,
) -> Result<usize> {
    let mut inputs = live_files(table, paths).await?;
    let mut writer = RollingWriter::new(table, partition.clone(), Effort::Merge, settings.target_bytes)?
        .with_row_group_bytes(settings.row_group_bytes);
    let read = match merge_rows(table, &mut inputs, settings.memory_bytes, &mut writer).await {
        Ok(read) => writer.close().await.map(|()| read),
        Err(error) => Err(error),
    };
    let outputs = writer.into_closed().await;
    let read = match read {
        Ok(read) => read,
        Err(error) => {
            discard(table, &outputs).await;
            return Err(error);
        }
    };
    if let Err(error) = replace(table, partition, &inputs, &outputs, read, steps).await {
        // Only what is certainly not in the table may go: an undecided commit could still name these files.
        if matches!(error, Error::FileGone { .. } | Error::Contended { .. } | Error::MergeMismatch { .. }) {
            discard(table, &outputs).await;
        }
        return Err(error);
    }
    Ok(inputs.len())
}

/// Number of rows and sum of their key hashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Checksum {
    pub rows: u64,
    pub keys: u64,
}

impl Checksum {
    pub fn add(&mut self, spec: &TableSpec, batch: &RecordBatch) -> Result<()> {
        self.rows += batch.num_rows() as u64;
        self.keys = self.keys.wrapping_add(key_sum(spec, batch)?);
        Ok(())
    }
}

async fn replace(
    table: &Table,
    partition: &PartitionValues,
    inputs: &[(String, u64)],
    outputs: &[DataFile],
    read: Checksum,
    steps: &Steps,
) -> Result<()> {
    let written = read_back(table, outputs).await?;
    if written != read {
        return Err(Error::MergeMismatch {
            table: table.spec.name,
            files: inputs.len(),
            rows_read: read.rows,
            sum_read: read.keys,
            rows_written: written.rows,
            sum_written: written.keys,
        });
    }
    steps.at(Step::MergeWritten)?;
    let now = table.now_millis();
    let change = Change {
        operation: "OPTIMIZE",
        parameters: vec![("files", inputs.len().into()), ("rows", read.rows.into())],
        removes: inputs.iter().map(|(path, bytes)| remove(path, partition, *bytes, now, false)).collect(),
        files: NewFiles::new(outputs, now, false),
        ..Default::default()
    };
    let name = table.spec.name;
    let guard = |state: &TableState| match inputs.iter().find(|(path, _)| !state.files.contains_key(path.as_str())) {
        None => Ok(()),
        Some((path, _)) => Err(Error::FileGone { table: name, path: path.clone() }),
    };
    table.commit(&change, &guard).await?;
    steps.at(Step::MergeCommitted)?;
    table.metrics.merged_files.with_label_values(&[name]).inc_by(inputs.len() as u64);
    Ok(())
}

async fn live_files(table: &Table, paths: &[String]) -> Result<Vec<(String, u64)>> {
    let state = table.state().await;
    let live = |path: &String| match state.files.get(path.as_str()) {
        Some(file) => Ok((path.clone(), file.bytes)),
        None => Err(Error::FileGone { table: table.spec.name, path: path.clone() }),
    };
    paths.iter().map(live).collect()
}

/// Key columns of the written files, through the store.
pub(crate) async fn read_back(table: &Table, files: &[DataFile]) -> Result<Checksum> {
    let mut sum = Checksum::default();
    for file in files {
        let path = Path::from(file.path.as_str());
        let failed = |error| Error::parquet(&path, error);
        let reader = ObjectReader::new(table.store.objects(), path.clone(), file.bytes);
        let builder = ParquetRecordBatchStreamBuilder::new(reader).await.map_err(failed)?;
        let mask = ProjectionMask::columns(builder.parquet_schema(), table.spec.key.iter().copied());
        let mut batches = builder.with_projection(mask).build().map_err(failed)?;
        while let Some(batch) = batches.try_next().await.map_err(failed)? {
            sum.add(table.spec, &batch)?;
            tokio::task::yield_now().await;
        }
    }
    Ok(sum)
}

/// Text as views: the values of a dictionary page are then shared, not copied, from input to output.
pub(crate) fn reading_schema(spec: &TableSpec) -> SchemaRef {
    let fields: Vec<Field> = spec
        .file_columns()
        .map(|column| {
            let data_type = match column.column_type {
                ColumnType::Text => DataType::Utf8View,
                ColumnType::Binary => DataType::BinaryView,
                other => other.arrow(),
            };
            Field::new(column.name, data_type, column.nullable)
        })
        .collect();
    Arc::new(Schema::new(fields))
}

/// One input: its current batch and the place in it.
struct Input {
    path: Path,
    batches: ParquetRecordBatchStream<ObjectReader>,
    /// Place of the current batch among the batches that pending output rows refer to.
    batch: usize,
    keys: Option<Rows>,
    row: usize,
}

/// Bytes that reading a file holds: its largest row group as stored, and all of it unpacked. Less is unpacked at a time,
/// but decoded text refers to pages until its rows are written.
fn input_bytes(file: &ParquetMetaData) -> u64 {
    let bytes = |row_group: &RowGroupMetaData| row_group.compressed_size() + row_group.total_byte_size();
    file.row_groups().iter().map(bytes).max().unwrap_or_default() as u64
}

/// Merges as many of `files` as fit into `memory_bytes`, at least two; the others are taken off the list.
async fn merge_rows(
    table: &Table,
    files: &mut Vec<(String, u64)>,
    memory_bytes: u64,
    writer: &mut RollingWriter<'_>,
) -> Result<Checksum> {
    let spec = table.spec;
    let schema = reading_schema(spec);
    let mut converter = RowConverter::new(sort_fields(spec, &schema))?;
    let mut sum = Checksum::default();
    let mut pending = Pending::default();
    let mut inputs = Vec::with_capacity(files.len());
    let (mut opened, mut held) = (0, 0);
    for (path, bytes) in files.iter() {
        let path = Path::from(path.as_str());
        let reader = ObjectReader::new(table.store.objects(), path.clone(), *bytes);
        let options = ArrowReaderOptions::new().with_schema(Arc::clone(&schema));
        let failed = |error| Error::parquet(&path, error);
        let builder = ParquetRecordBatchStreamBuilder::new_with_options(reader, options).await.map_err(failed)?;
        held += input_bytes(builder.metadata());
        if held > memory_bytes && opened >= 2 {
            break;
        }
        opened += 1;
        let batches = builder.with_batch_size(INPUT_ROWS).build().map_err(failed)?;
        let mut input = Input { path, batches, batch: 0, keys: None, row: 0 };
        if let Some(batch) = input.advance(spec, &mut converter, &mut pending).await? {
            sum.add(spec, &batch)?;
            inputs.push(input);
        }
    }
    files.truncate(opened);
    let mut heap = Heap::new(&inputs);
    while let Some(first) = heap.first() {
        let input = &mut inputs[first];
        pending.rows.push((input.batch, input.row));
        input.row += 1;
        if pending.rows.len() == INPUT_ROWS {
            pending.write(writer, &mut inputs).await?;
        }
        let input = &mut inputs[first];
        if input.keys.as_ref().is_some_and(|keys| input.row == keys.num_rows()) {
            match input.advance(spec, &mut converter, &mut pending).await? {
                Some(batch) => sum.add(spec, &batch)?,
                None => {
                    heap.remove_first(&inputs);
                    continue;
                }
            }
        }
        heap.settle_first(&inputs);
    }
    if !pending.rows.is_empty() {
        pending.write(writer, &mut inputs).await?;
    }
    Ok(sum)
}

impl Input {
    /// Goes to the next batch that has rows.
    async fn advance(
        &mut self,
        spec: &TableSpec,
        converter: &mut RowConverter,
        pending: &mut Pending,
    ) -> Result<Option<RecordBatch>> {
        self.keys = None;
        loop {
            let next = self.batches.try_next().await.map_err(|error| Error::parquet(&self.path, error))?;
            let Some(batch) = next else { return Ok(None) };
            if batch.num_rows() == 0 {
                continue;
            }
            self.keys = Some(converter.convert_columns(&sort_columns(spec, &batch)?)?);
            self.row = 0;
            self.batch = pending.batches.len();
            pending.batches.push(batch.clone());
            return Ok(Some(batch));
        }
    }
}

/// Output rows that are chosen but not written, and the batches they lie in.
#[derive(Default)]
struct Pending {
    batches: Vec<RecordBatch>,
    /// (batch, row)
    rows: Vec<(usize, usize)>,
}

impl Pending {
    /// Writes the chosen rows. Afterwards only the current batches of the inputs are held.
    async fn write(&mut self, writer: &mut RollingWriter<'_>, inputs: &mut [Input]) -> Result<()> {
        writer.write_picked(&self.batches, &self.rows).await?;
        self.rows.clear();
        let mut kept = Vec::with_capacity(inputs.len());
        for input in inputs.iter_mut().filter(|input| input.keys.is_some()) {
            kept.push(self.batches[input.batch].clone());
            input.batch = kept.len() - 1;
        }
        self.batches = kept;
        Ok(())
    }
}

fn sort_fields(spec: &TableSpec, schema: &SchemaRef) -> Vec<SortField> {
    let data_type = |names: &[&str]| schema.field_with_name(names[0]).map(|field| field.data_type().clone());
    spec.sort.iter().filter_map(|names| data_type(names).ok()).map(SortField::new).collect()
}

fn sort_columns(spec: &TableSpec, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
    let column = |name: &str| Arc::clone(batch.column_by_name(name).expect("sort columns are part of the file schema"));
    spec.sort
        .iter()
        .map(|names| names[1..].iter().try_fold(column(names[0]), |first, name| first_valid(first, &column(name))))
        .collect()
}

/// `first` where it is not null, else `second`.
fn first_valid(first: ArrayRef, second: &ArrayRef) -> Result<ArrayRef> {
    if first.null_count() == 0 || second.null_count() == second.len() {
        return Ok(first);
    }
    if first.null_count() == first.len() {
        return Ok(Arc::clone(second));
    }
    let valid = arrow::compute::is_not_null(&first)?;
    Ok(zip(&valid, &first, second)?)
}

/// Inputs by their current key; a binary heap that is told when its first member has changed.
struct Heap(Vec<usize>);

impl Heap {
    fn new(inputs: &[Input]) -> Self {
        let mut order: Vec<usize> = (0..inputs.len()).collect();
        order.sort_by(
            |a, b| if before(inputs, *a, *b) { std::cmp::Ordering::Less } else { std::cmp::Ordering::Greater },
        );
        Self(order)
    }

    fn first(&self) -> Option<usize> {
        self.0.first().copied()
    }

    fn remove_first(&mut self, inputs: &[Input]) {
        self.0.swap_remove(0);
        self.settle_first(inputs);
    }

    fn settle_first(&mut self, inputs: &[Input]) {
        let mut parent = 0;
        loop {
            let left = 2 * parent + 1;
            if left >= self.0.len() {
                return;
            }
            let right = left + 1;
            let child = if right < self.0.len() && before(inputs, self.0[right], self.0[left]) { right } else { left };
            if !before(inputs, self.0[child], self.0[parent]) {
                return;
            }
            self.0.swap(parent, child);
            parent = child;
        }
    }
}

/// Equal keys keep the order of the inputs.
fn before(inputs: &[Input], a: usize, b: usize) -> bool {
    let key = |input: usize| inputs[input].keys.as_ref().map(|keys| keys.row(inputs[input].row));
    (key(a), a) < (key(b), b)
}
