//! Takes what names certain contexts out of a table.
//!
//! In: an [`Eraser`], which knows the rows that are meant and what becomes of them. Out: files without them, in the place of
//! those that had them, in commits like any other; versions before still name the old files until vacuum.
//! Only key columns are read to find the rows, and only of row groups whose statistics allow any; a file that has none is not
//! touched. Files that merges and landings bring meanwhile are searched too, until there are none that were not.
//! Promise: each commit swaps whole files on a state in which they are live, so it collides with neither; what was written is
//! read back and compared before. Doing all of it again finds nothing, and does no harm. What it did is noted in the commits
//! themselves under the id of the erasure ([`ErasedRows`]), as a process may die after any of them.
//!
//! Rows of `events` keep their place and lose what is about a person: context, keys and free content. Their counts, flags,
//! variations and origin stay: evaluations, metrics and the ledger say the same as before, and nobody can be found by them.
//! Removing the rows was the other choice: each erasure would then change numbers that were reported already, and no
//! account of accepted rows would add up any more. Rows of `contexts` are nothing but a person, and go.

mod events;
mod states;

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch};
use futures::TryStreamExt;
use object_store::path::Path;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;
use parquet::file::metadata::RowGroupMetaData;

use crate::commit::{Change, NewFiles};
use crate::merge::{Checksum, read_back, reading_schema};
use crate::read::ObjectReader;
use crate::table::Table;
use crate::table::actions::PartitionValues;
use crate::table::load::read_commit;
use crate::table::state::{LiveFile, TableState};
use crate::write::{DataFile, Effort, RollingWriter, discard, remove};
use crate::{Error, Result, Step, Steps};

pub(crate) use self::events::EventEraser;
pub(crate) use self::states::StateEraser;

/// Rows decoded at a time.
const ROWS: usize = 2_048;
/// Files that one commit replaces: few enough that they are young when it is made.
const FILES_PER_COMMIT: usize = 8;
/// Name of the erasure among the parameters of a commit.
const PARAMETER: &str = "erasure";

/// Knows which rows of a table are meant, and what becomes of them.
pub(crate) trait Eraser: Send + Sync {
    /// Columns by which rows are recognised.
    fn columns(&self) -> &'static [&'static str];

    /// Whether rows of a row group may be meant, as far as its statistics tell.
    fn may_be_in(&self, partition: &PartitionValues, row_group: &RowGroupMetaData) -> bool;

    /// The rows of a batch that are meant. Text comes as views.
    fn rows(&self, batch: &RecordBatch) -> Result<BooleanArray>;

    /// A batch with all columns, after what is meant has been taken out of `rows`.
    fn erased(&self, batch: &RecordBatch, rows: &BooleanArray) -> Result<RecordBatch>;
}

/// How files are written anew.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EraseSettings {
    pub target_bytes: u64,
    pub row_group_bytes: usize,
}

/// What an erasure has done to a table, in all of its commits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ErasedRows {
    /// Files that were looked at this time.
    pub searched_files: u64,
    /// Files of other writers that were not, as this program does not know how.
    pub foreign_files: u64,
    /// Files that were replaced.
    pub files: u64,
    /// Rows from which something was taken, or which are gone.
    pub rows: u64,
    /// The table before the first commit and after the last; the same if there was none.
    pub version_before: u64,
    pub version_after: u64,
}

/// A live file.
pub(crate) struct Searched {
    pub path: Arc<str>,
    pub partition: Arc<PartitionValues>,
    pub bytes: u64,
}

/// Takes what is meant out of all files of a table. `since`: when the erasure began, milliseconds.
pub(crate) async fn erase_all(
    table: &Table,
    id: &str,
    eraser: &dyn Eraser,
    settings: EraseSettings,
    since: i64,
    steps: &Steps,
) -> Result<ErasedRows> {
    let mut searched: HashSet<Arc<str>> = HashSet::new();
    let foreign = loop {
        table.refresh().await?;
        let (files, foreign) = {
            let state = table.state().await;
            let foreign = state.files.values().filter(|file| !file.plain).count() as u64;
            let fresh = state.files.iter().filter(|(path, file)| file.plain && !searched.contains(*path));
            let searched = |(path, file): (&Arc<str>, &LiveFile)| {
                let (path, partition) = (Arc::clone(path), Arc::clone(&file.partition));
                Searched { path, partition, bytes: file.bytes }
            };
            (fresh.map(searched).collect::<Vec<_>>(), foreign)
        };
        if files.is_empty() {
            break foreign;
        }
        let mut found = Vec::new();
        for file in files {
            if is_concerned(table, &file, eraser).await? {
                found.push(file);
            } else {
                searched.insert(file.path);
            }
            if found.len() == FILES_PER_COMMIT {
                replace_live(table, id, eraser, settings, std::mem::take(&mut found), steps).await?;
            }
        }
        replace_live(table, id, eraser, settings, found, steps).await?;
    };
    let done = done_so_far(table, id, since).await?;
    Ok(ErasedRows { searched_files: searched.len() as u64, foreign_files: foreign, ..done })
}

/// Replaces files, unless somebody else did that first: then the next look finds what they became.
async fn replace_live(
    table: &Table,
    id: &str,
    eraser: &dyn Eraser,
    settings: EraseSettings,
    files: Vec<Searched>,
    steps: &Steps,
) -> Result<()> {
    let name = table.spec.name;
    let live = files.iter().map(|file| Arc::clone(&file.path)).collect::<Vec<_>>();
    let guard = move |state: &TableState| match live.iter().find(|path| !state.files.contains_key(*path)) {
        None => Ok(()),
        Some(path) => Err(Error::FileGone { table: name, path: path.to_string() }),
    };
    match replace(table, id, eraser, settings, &files, Vec::new(), &guard, steps).await {
        Ok(()) | Err(Error::FileGone { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Whether a file has rows that are meant. One that is gone has none.
pub(crate) async fn is_concerned(table: &Table, file: &Searched, eraser: &dyn Eraser) -> Result<bool> {
    match count(table, &file.path, &file.partition, file.bytes, eraser).await {
        Ok(rows) => Ok(rows > 0),
        Err(error) => {
            table.refresh().await?;
            if table.state().await.files.contains_key(&file.path) { Err(error) } else { Ok(false) }
        }
    }
}

/// Rows of a file that are meant.
async fn count(table: &Table, path: &str, partition: &PartitionValues, bytes: u64, eraser: &dyn Eraser) -> Result<u64> {
    let path = Path::from(path);
    let failed = |error| Error::parquet(&path, error);
    let reader = ObjectReader::new(table.store.objects(), path.clone(), bytes);
    let options = ArrowReaderOptions::new().with_schema(reading_schema(table.spec));
    let builder = ParquetRecordBatchStreamBuilder::new_with_options(reader, options).await.map_err(failed)?;
    let row_groups = builder.metadata().row_groups().iter().enumerate();
    let wanted = row_groups.filter(|(_, group)| eraser.may_be_in(partition, group)).map(|(number, _)| number);
    let wanted: Vec<usize> = wanted.collect();
    if wanted.is_empty() {
        return Ok(0);
    }
    let roots: Vec<usize> = (table.spec.file_columns().enumerate())
        .filter(|(_, column)| eraser.columns().contains(&column.name))
        .map(|(number, _)| number)
        .collect();
    let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
    let builder = builder.with_row_groups(wanted).with_projection(mask).with_batch_size(ROWS);
    let mut batches = builder.build().map_err(failed)?;
    let mut rows = 0;
    while let Some(batch) = batches.try_next().await.map_err(failed)? {
        rows += eraser.rows(&batch)?.true_count() as u64;
        tokio::task::yield_now().await;
    }
    Ok(rows)
}

/// Writes files anew without what is meant, and swaps them for the old ones in one commit.
#[allow(clippy::too_many_arguments, reason = "the parts of one commit, from two callers")]
pub(crate) async fn replace(
    table: &Table,
    id: &str,
    eraser: &dyn Eraser,
    settings: EraseSettings,
    files: &[Searched],
    txns: Vec<(String, i64)>,
    guard: &(dyn Fn(&TableState) -> Result<()> + Send + Sync),
    steps: &Steps,
) -> Result<()> {
    if files.is_empty() {
        return Ok(());
    }
    let mut written = Vec::new();
    let rows = match rewrite_all(table, eraser, settings, files, &mut written).await {
        Ok(rows) => rows,
        Err(error) => {
            discard(table, &written).await;
            return Err(error);
        }
    };
    steps.at(Step::EraseWritten)?;
    let now = table.now_millis();
    let change = Change {
        operation: "UPDATE",
        parameters: vec![(PARAMETER, id.into()), ("files", files.len().into()), ("rows", rows.into())],
        removes: files.iter().map(|file| remove(&file.path, &file.partition, file.bytes, now, true)).collect(),
        files: NewFiles::new(&written, now, true),
        txns,
        ..Default::default()
    };
    if let Err(error) = table.commit(&change, guard).await {
        // Only what is certainly not in the table may go: an undecided commit could still name these files.
        if matches!(error, Error::FileGone { .. } | Error::Fenced { .. } | Error::Contended { .. }) {
            discard(table, &written).await;
        }
        return Err(error);
    }
    steps.at(Step::EraseCommitted)
}

async fn rewrite_all(
    table: &Table,
    eraser: &dyn Eraser,
    settings: EraseSettings,
    files: &[Searched],
    written: &mut Vec<DataFile>,
) -> Result<u64> {
    let mut rows = 0;
    for file in files {
        rows += rewrite(table, eraser, settings, file, written).await?;
    }
    Ok(rows)
}

/// Writes one file anew. Returns how many rows were meant.
async fn rewrite(
    table: &Table,
    eraser: &dyn Eraser,
    settings: EraseSettings,
    file: &Searched,
    written: &mut Vec<DataFile>,
) -> Result<u64> {
    let mut writer = RollingWriter::new(table, file.partition.as_ref().clone(), Effort::Merge, settings.target_bytes)?
        .with_row_group_bytes(settings.row_group_bytes);
    let copied = match copy(table, eraser, file, &mut writer).await {
        Ok(copied) => writer.close().await.map(|()| copied),
        Err(error) => Err(error),
    };
    let outputs = writer.into_closed().await;
    written.extend(outputs.iter().cloned());
    let (kept, erased) = copied?;
    let found = read_back(table, &outputs).await?;
    if found != kept {
        return Err(Error::MergeMismatch {
            table: table.spec.name,
            files: 1,
            rows_read: kept.rows,
            sum_read: kept.keys,
            rows_written: found.rows,
            sum_written: found.keys,
        });
    }
    for output in &outputs {
        if count(table, &output.path, &output.partition, output.bytes, eraser).await? > 0 {
            let what = format!("{} still has what was to be erased", output.path);
            return Err(Error::Table { table: table.spec.name, what });
        }
    }
    Ok(erased)
}

async fn copy(
    table: &Table,
    eraser: &dyn Eraser,
    file: &Searched,
    writer: &mut RollingWriter<'_>,
) -> Result<(Checksum, u64)> {
    let path = Path::from(file.path.as_ref());
    let failed = |error| Error::parquet(&path, error);
    let reader = ObjectReader::new(table.store.objects(), path.clone(), file.bytes);
    let options = ArrowReaderOptions::new().with_schema(reading_schema(table.spec));
    let builder = ParquetRecordBatchStreamBuilder::new_with_options(reader, options).await.map_err(failed)?;
    let mut batches = builder.with_batch_size(ROWS).build().map_err(failed)?;
    let (mut kept, mut erased) = (Checksum::default(), 0);
    while let Some(batch) = batches.try_next().await.map_err(failed)? {
        let rows = eraser.rows(&batch)?;
        erased += rows.true_count() as u64;
        let batch = if rows.true_count() == 0 { batch } else { eraser.erased(&batch, &rows)? };
        if batch.num_rows() > 0 {
            kept.add(table.spec, &batch)?;
            writer.write(&batch).await?;
        }
    }
    Ok((kept, erased))
}

/// What the commits of an erasure say that they did, from the newest back to when it began.
pub(crate) async fn done_so_far(table: &Table, id: &str, since: i64) -> Result<ErasedRows> {
    let newest = table.state().await.version;
    let (mut done, mut first, mut last) = (ErasedRows::default(), None, None);
    let mut version = newest;
    while let Some(actions) = read_commit(table.spec.name, &table.store, version).await? {
        let info = actions.iter().find_map(|action| action.commit_info.as_ref());
        if info.and_then(|info| info.timestamp).is_some_and(|timestamp| timestamp < since) {
            break;
        }
        let parameters = info.map(|info| &info.operation_parameters);
        let number = |name: &str| parameters.and_then(|all| all.get(name)?.as_u64()).unwrap_or_default();
        if parameters.and_then(|all| all.get(PARAMETER)?.as_str()) == Some(id) {
            done.files += number("files");
            done.rows += number("rows");
            first = Some(version);
            last = last.or(Some(version));
        }
        let Some(before) = version.checked_sub(1) else { break };
        version = before;
    }
    Ok(ErasedRows {
        version_before: first.map_or(newest, |first| first.saturating_sub(1)),
        version_after: last.unwrap_or(newest),
        ..done
    })
}

#[cfg(test)]
mod tests;
