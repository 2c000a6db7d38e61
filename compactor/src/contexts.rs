//! The table `contexts`: newest states of contexts, written by whoever holds an index, and read to make one again.
//!
//! In: states of the contexts of one partition of the `contexts` topic, and the log offset that they cover. Out: the
//! same, older states before newer ones. Promise: states and offset become visible together, and only on top of what the
//! writer knew; of two writers of one partition the slower one is refused.
//!
//! An index changes all over at each commit, so rewriting what changed would rewrite everything. Instead each write is a
//! new `sequence` of its partition: a *base* holds all states, later ones what was touched since, and the writer decides
//! when a new base replaces them all. The newest state of a context is its row of the highest `sequence`; the view
//! `contexts` shows only those.
//! Not here: when to write, and which states.

mod rows;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use events::{ContextState, ErasedContexts, Offset, Topic, TopicPartition};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use parquet::arrow::ParquetRecordBatchStreamBuilder;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use runtime::{Runtime, Telemetry, UnixMicros};

use crate::commit::{Change, NewFiles};
use crate::erase::{EraseSettings, ErasedRows, Searched, StateEraser, done_so_far, is_concerned, replace};
use crate::metrics::Metrics;
use crate::read::ObjectReader;
use crate::retention::{sweep, vacuum};
use crate::schema::CONTEXTS;
use crate::table::Table;
use crate::table::actions::PartitionValues;
use crate::table::checkpoint::checkpoint_if_due;
use crate::table::state::TableState;
use crate::table::store::Storage;
use crate::write::{DataFile, Effort, ROW_GROUP_RAW_BYTES, RollingWriter, discard, remove};
use crate::{Compactor, Config, Error, Result, Steps, StorageConfig};
use rows::{batch_of, states_of};

/// Rows decoded at a time: a context has some hundred bytes, at worst megabytes.
const READ_ROWS: usize = 256;

/// What one write does.
#[derive(Clone, Debug)]
pub struct ContextChange {
    pub partition: u32,
    /// Identity of the topic that `next` counts in.
    pub topic_id: String,
    /// Sequence that the table must stand at, as [`ContextTable::position`] said.
    pub sequence: i64,
    /// First offset that the table does not cover afterwards.
    pub next: i64,
    /// Whether these are all states of the partition, in place of what the table holds.
    pub is_base: bool,
}

/// Where one partition of the table stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContextPosition {
    /// First offset of the topic that the table does not cover; `None` if it covers nothing of this topic.
    pub next: Option<i64>,
    /// 0: nothing was ever written.
    pub sequence: i64,
    pub files: usize,
    pub bytes: u64,
    /// Of these, bytes of the base.
    pub base_bytes: u64,
    /// When the base was written, milliseconds.
    pub base_written_at: i64,
}

/// States read from the table.
#[derive(Clone, Debug)]
pub struct ContextBatch {
    pub states: Vec<ContextState>,
    /// Whether batches before may hold older states of the same contexts.
    pub may_replace: bool,
}

/// The table. Cheap to clone.
#[derive(Clone)]
pub struct ContextTable {
    table: Arc<Table>,
    vacuum_age: Duration,
    target_file_bytes: u64,
}

fn sequence_app(partition: u32) -> String {
    format!("contexts_sequence/{partition}")
}

fn offset_app(topic_id: &str, partition: u32) -> String {
    format!("{}/{topic_id}/{partition}", Topic::Contexts)
}

/// One live file: its sequence, path and bytes.
type SequenceFile = (i64, Arc<str>, u64);

impl ContextTable {
    /// Opens the table, or makes it. `beside`: the compactor of this process, whose metrics it shares.
    ///
    /// # Errors
    /// As [`Compactor::open`].
    pub async fn open(
        storage: &StorageConfig,
        config: &Config,
        runtime: Runtime,
        beside: Option<&Compactor>,
    ) -> Result<Self> {
        let metrics = beside.map_or_else(|| Metrics::new(&Telemetry::new()), |compactor| compactor.metrics.clone());
        Self::open_on(&Storage::open(storage)?, config, runtime, metrics).await
    }

    pub(crate) async fn open_on(
        storage: &Storage,
        config: &Config,
        runtime: Runtime,
        metrics: Metrics,
    ) -> Result<Self> {
        let vacuum_age = config.vacuum_age.get();
        let table = Table::open(&CONTEXTS, storage, vacuum_age, runtime, metrics).await?;
        Ok(Self { table: Arc::new(table), vacuum_age, target_file_bytes: config.target_file_bytes.bytes() })
    }

    /// Where `partition` stands now, as all writers left it.
    pub async fn position(&self, partition: u32, topic_id: &str) -> Result<ContextPosition> {
        self.table.refresh().await?;
        let state = self.table.state().await;
        let files = files_of(&state, partition);
        let base = files.first().map_or(0, |(sequence, ..)| *sequence);
        let of_base = || files.iter().filter(|(sequence, ..)| *sequence == base);
        let written_at = |path: &str| state.files.get(path).map_or(0, |file| file.modified_at);
        Ok(ContextPosition {
            next: state.txns.get(&offset_app(topic_id, partition)).copied(),
            sequence: state.txns.get(&sequence_app(partition)).copied().unwrap_or(0),
            files: files.len(),
            bytes: files.iter().map(|(.., bytes)| bytes).sum(),
            base_bytes: of_base().map(|(.., bytes)| bytes).sum(),
            base_written_at: of_base().map(|(_, path, _)| written_at(path)).min().unwrap_or(0),
        })
    }

    /// All states of `partition` at this moment's version, those of lower sequences first. Holds a few hundred at a time.
    pub async fn read(&self, partition: u32) -> Result<BoxStream<'static, Result<ContextBatch>>> {
        self.table.refresh().await?;
        let files = files_of(&*self.table.state().await, partition);
        let base = files.first().map_or(0, |(sequence, ..)| *sequence);
        let table = Arc::clone(&self.table);
        let batches = futures::stream::iter(files).then(move |(sequence, path, bytes)| {
            let table = Arc::clone(&table);
            async move { read_file(&table, &path, bytes, sequence > base).await }
        });
        Ok(batches.try_flatten().boxed())
    }

    /// Writes states and makes them visible together with the offset that they cover.
    ///
    /// # Errors
    /// `Fenced` (kind `Retry`) if the table does not stand where the change begins: nothing was changed. `Undecided`:
    /// ask for the position before going on. An error of `states` itself ends the write without a change.
    pub async fn write<E: From<Error>>(
        &self,
        change: &ContextChange,
        mut states: BoxStream<'static, std::result::Result<Vec<ContextState>, E>>,
    ) -> std::result::Result<(), E> {
        let sequence = change.sequence + 1;
        let partition: PartitionValues = BTreeMap::from([
            ("log_partition".to_owned(), Some(change.partition.to_string())),
            ("sequence".to_owned(), Some(sequence.to_string())),
        ]);
        let effort = if change.is_base { Effort::Merge } else { Effort::Landing };
        let mut writer = RollingWriter::new(&self.table, partition, effort, self.target_file_bytes)?;
        let written: std::result::Result<(), E> = async {
            while let Some(states) = states.try_next().await? {
                if !states.is_empty() {
                    writer.write(&batch_of(&states)?).await?;
                }
            }
            Ok(writer.close().await?)
        }
        .await;
        let files = writer.into_closed().await;
        if let Err(error) = written {
            discard(&self.table, &files).await;
            return Err(error);
        }
        if let Err(error) = self.commit(change, &files).await {
            if matches!(error, Error::Fenced { .. } | Error::Contended { .. }) {
                discard(&self.table, &files).await;
            }
            return Err(error.into());
        }
        self.keep_up(change).await;
        Ok(())
    }

    /// Takes all states of these contexts, and of combinations that they are a part of, out of the table. Not beside a write:
    /// one that begins before is refused afterwards. `since`: when the erasure `id` began.
    ///
    /// # Errors
    /// `Fenced`, `FileGone` (kind `Retry`) if somebody else changed a partition meanwhile; the others are done.
    pub async fn erase(&self, id: &str, contexts: &ErasedContexts, since: UnixMicros) -> Result<ErasedRows> {
        let eraser = StateEraser(contexts);
        self.table.refresh().await?;
        let (files, foreign): (Vec<(u32, Searched)>, u64) = {
            let state = self.table.state().await;
            let own = state.files.iter().filter(|(_, file)| file.plain).filter_map(|(path, file)| {
                let partition = partition_of(&file.partition)?;
                let file =
                    Searched { path: Arc::clone(path), partition: Arc::clone(&file.partition), bytes: file.bytes };
                Some((partition, file))
            });
            (own.collect(), state.files.values().filter(|file| !file.plain).count() as u64)
        };
        let searched = files.len() as u64;
        let mut concerned: BTreeMap<u32, Vec<Searched>> = BTreeMap::new();
        for (partition, file) in files {
            if is_concerned(&self.table, &file, &eraser).await? {
                concerned.entry(partition).or_default().push(file);
            }
        }
        for (partition, files) in concerned {
            self.erase_from(id, &eraser, partition, &files).await?;
        }
        let done = done_so_far(&self.table, id, since.as_millis()).await?;
        Ok(ErasedRows { searched_files: searched, foreign_files: foreign, ..done })
    }

    /// Rows keep their sequence: what they say is as old as before.
    async fn erase_from(&self, id: &str, eraser: &StateEraser<'_>, partition: u32, files: &[Searched]) -> Result<()> {
        let (app, table) = (sequence_app(partition), self.table.spec.name);
        let expected = self.table.state().await.txns.get(&app).copied().unwrap_or(0);
        let topic_partition = TopicPartition::new(Topic::Contexts, partition);
        let txns = vec![(app.clone(), expected + 1)];
        let guard = |state: &TableState| {
            let found = state.txns.get(&app).copied().unwrap_or(0);
            if found != expected {
                let (start, stored) = (Offset(expected), Offset(found));
                return Err(Error::Fenced { table, topic_partition, start, stored });
            }
            match files.iter().find(|file| !state.files.contains_key(&file.path)) {
                None => Ok(()),
                Some(file) => Err(Error::FileGone { table, path: file.path.to_string() }),
            }
        };
        let target_bytes = self.target_file_bytes;
        let settings = EraseSettings { target_bytes, row_group_bytes: ROW_GROUP_RAW_BYTES };
        replace(&self.table, id, eraser, settings, files, txns, &guard, &Steps::default()).await
    }

    async fn commit(&self, change: &ContextChange, files: &[DataFile]) -> Result<()> {
        let now = self.table.now_millis();
        let removes = match change.is_base {
            true => {
                let state = self.table.state().await;
                let old =
                    state.files.iter().filter(|(_, file)| partition_of(&file.partition) == Some(change.partition));
                old.map(|(path, file)| remove(path, &file.partition, file.bytes, now, true)).collect()
            }
            false => Vec::new(),
        };
        let commit = Change {
            operation: "WRITE",
            parameters: vec![
                ("mode", if change.is_base { "Overwrite" } else { "Append" }.into()),
                ("partition", change.partition.into()),
                ("next", change.next.into()),
            ],
            files: NewFiles::new(files, now, true),
            removes,
            txns: vec![
                (offset_app(&change.topic_id, change.partition), change.next),
                (sequence_app(change.partition), change.sequence + 1),
            ],
            ..Default::default()
        };
        let (app, expected, table) = (sequence_app(change.partition), change.sequence, self.table.spec.name);
        let topic_partition = TopicPartition::new(Topic::Contexts, change.partition);
        // Every write moves the sequence, so that it alone tells whether anything happened since.
        let guard = move |state: &TableState| match state.txns.get(&app).copied().unwrap_or(0) {
            found if found == expected => Ok(()),
            found => Err(Error::Fenced { table, topic_partition, start: Offset(expected), stored: Offset(found) }),
        };
        self.table.commit(&commit, &guard).await.map(|_| ())
    }

    /// Checkpoints, and what a new base replaced. A failure is tried again with the next write.
    async fn keep_up(&self, change: &ContextChange) {
        let kept_up = async {
            checkpoint_if_due(&self.table).await?;
            if change.is_base {
                while vacuum(&self.table, self.vacuum_age).await? > 0 {}
                sweep(&self.table, self.vacuum_age).await?;
                let partition = format!("log_partition={}", change.partition);
                self.table.store.remove_empty_folders(&partition).await;
            }
            Ok::<_, Error>(())
        };
        if let Err(error) = kept_up.await {
            tracing::info!(table = self.table.spec.name, %error, "upkeep of the table failed, it is tried again");
        }
    }
}

fn partition_of(values: &PartitionValues) -> Option<u32> {
    values.get("log_partition")?.as_deref()?.parse().ok()
}

/// Live files of a partition, lower sequences first.
fn files_of(state: &TableState, partition: u32) -> Vec<SequenceFile> {
    let of_partition = state.files.iter().filter(|(_, file)| partition_of(&file.partition) == Some(partition));
    let sequence = |values: &PartitionValues| values.get("sequence")?.as_deref()?.parse::<i64>().ok();
    let mut files: Vec<SequenceFile> = of_partition
        .map(|(path, file)| (sequence(&file.partition).unwrap_or_default(), Arc::clone(path), file.bytes))
        .collect();
    files.sort_unstable();
    files
}

async fn read_file(
    table: &Table,
    path: &str,
    bytes: u64,
    may_replace: bool,
) -> Result<impl futures::Stream<Item = Result<ContextBatch>> + Send + use<>> {
    let path = Path::from(path);
    let failed = |path: Path| move |error| Error::parquet(&path, error);
    let reader = ObjectReader::new(table.store.objects(), path.clone(), bytes);
    // Another writer that rewrote rows may have noted types of its own, such as views of text.
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let builder = ParquetRecordBatchStreamBuilder::new_with_options(reader, options).await;
    let batches =
        builder.map_err(failed(path.clone()))?.with_batch_size(READ_ROWS).build().map_err(failed(path.clone()))?;
    let name = table.spec.name;
    Ok(batches.map_err(failed(path)).and_then(move |batch| async move {
        let unreadable = |column: &str| Error::Table { table: name, what: format!("column {column} cannot be read") };
        states_of(&batch).map(|states| ContextBatch { states, may_replace }).map_err(unreadable)
    }))
}

#[cfg(test)]
mod tests;
