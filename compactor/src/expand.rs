//! Turns frames of the log into rows of a table, grouped by table partition and sorted.
//!
//! In: decoded frames with the payloads that de-duplication dropped. Out: an [`Expansion`]: the frames' columns laid end
//! to end, and per partition of the table the numbers of its rows in the table's order. Batches for the Parquet writer
//! are gathered from it a few thousand rows at a time.
//!
//! What stands once per payload or context in the log stays so until it is encoded: those columns become dictionary
//! arrays over the payloads or contexts, so that one gathering of row numbers serves all of them and no text is copied.
//! Sorting compares ranks, not text: environments and keys are few, and are ranked once.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, DictionaryArray, Int32Array, Int64Array, ListArray, MapArray, RecordBatch, StringArray,
    StructArray, UInt32Array, new_null_array,
};
use arrow::compute::{concat, concat_batches, take};
use arrow::datatypes::{DataType, Int32Type, SchemaRef, TimestampMicrosecondType, UInt8Type, UInt32Type};
use events::batch::column;
use events::{EventKind, LogBatch, Offset, Topic, TopicPartition, schema as log_schema};
use hashbrown::HashMap;

use crate::Result;
use crate::schema::{DEAD_LETTERS, EVENTS, TableSpec};
use crate::table::actions::PartitionValues;

const DAY_MICROS: i64 = 86_400_000_000;

/// One frame, without the columns that are null in all of its rows.
#[derive(Debug)]
pub(crate) struct FrameRows {
    pub source: TopicPartition,
    pub offset: Offset,
    /// Per payload: whether it repeats one that was seen before.
    pub dropped: Vec<bool>,
    payloads: RecordBatch,
    contexts: Option<RecordBatch>,
    rows: usize,
    main: Vec<Option<ArrayRef>>,
    /// Bytes of all of the above.
    pub bytes: usize,
}

impl FrameRows {
    /// Takes a frame apart. `None` for sightings, which have no place in a table.
    pub fn new(source: TopicPartition, offset: Offset, batch: LogBatch, dropped: Vec<bool>) -> Option<Self> {
        let (payloads, contexts, main) = match &batch {
            LogBatch::Events(batch) => (batch.payloads(), Some(batch.contexts()), batch.events()),
            LogBatch::DeadLetters(batch) => (batch.payloads(), None, batch.letters()),
            LogBatch::Sightings(_) => return None,
        };
        let size = |array: &ArrayRef| array.to_data().get_slice_memory_size().unwrap_or_default();
        let kept: Vec<Option<ArrayRef>> = main
            .columns()
            .iter()
            .map(|column| (column.null_count() < column.len()).then(|| Arc::clone(column)))
            .collect();
        let bytes = kept.iter().flatten().map(size).sum::<usize>()
            + payloads.columns().iter().map(size).sum::<usize>()
            + contexts.map_or(0, |contexts| contexts.columns().iter().map(size).sum());
        let (payloads, contexts, rows) = (payloads.clone(), contexts.cloned(), main.num_rows());
        Some(Self { source, offset, dropped, payloads, contexts, rows, main: kept, bytes })
    }

    pub fn payloads(&self) -> &RecordBatch {
        &self.payloads
    }
}

/// Where a column of the table comes from; the number is a column of that batch.
#[derive(Clone, Copy, Debug)]
enum Source {
    Payload(usize),
    Context(usize),
    Main(usize),
    LogPartition,
    LogOffset,
    LogRow,
    Missing,
}

/// Rows of one partition of the table, in the table's order.
#[derive(Debug)]
pub(crate) struct Group {
    pub partition: PartitionValues,
    pub rows: Vec<u32>,
}

/// Frames laid end to end.
pub(crate) struct Expansion {
    schema: SchemaRef,
    sources: Vec<Source>,
    payloads: RecordBatch,
    contexts: Option<RecordBatch>,
    main: Vec<Option<ArrayRef>>,
    payload_of: Int32Array,
    context_of: Option<Int32Array>,
    log_partition: Int32Array,
    log_offset: Int64Array,
    log_row: Int32Array,
    pub groups: Vec<Group>,
    /// Latest `received_at` of the rows, microseconds.
    pub newest_received_at: Option<i64>,
}

/// Expands frames of one topic, in log order.
pub(crate) fn expand(topic: Topic, frames: &[FrameRows]) -> Result<Expansion> {
    let (spec, main_schema) = match topic {
        Topic::DeadLetters => (&DEAD_LETTERS, log_schema::dead_letters_v1()),
        _ => (&EVENTS, log_schema::events_v1()),
    };
    let payloads = concat_batches(&log_schema::payloads_v1(), frames.iter().map(|frame| &frame.payloads))?;
    let contexts: Vec<_> = frames.iter().filter_map(|frame| frame.contexts.as_ref()).collect();
    let contexts = match topic {
        Topic::Events => Some(concat_batches(&log_schema::contexts_v1(), contexts)?),
        _ => None,
    };
    let main = (0..main_schema.fields().len())
        .map(|number| lay_out(frames, number, main_schema.field(number).data_type()))
        .collect::<Result<Vec<_>>>()?;
    let rows: usize = frames.iter().map(|frame| frame.rows).sum();
    let mut expansion = Expansion {
        schema: spec.file_schema(),
        sources: sources(spec, topic, &main_schema),
        payload_of: payload_numbers(frames, rows),
        context_of: context_numbers(frames, rows, topic),
        log_partition: per_row(frames, |frame, _| frame.source.partition.0 as i32).collect(),
        log_offset: per_row(frames, |frame, _| frame.offset.0).collect(),
        log_row: per_row(frames, |_, row| row as i32).collect(),
        payloads,
        contexts,
        main,
        groups: Vec::new(),
        newest_received_at: None,
    };
    let dropped: Vec<bool> = frames.iter().flat_map(|frame| frame.dropped.iter().copied()).collect();
    expansion.group(topic, &dropped, &main_schema);
    Ok(expansion)
}

impl Expansion {
    /// The given rows as columns of the table's files.
    pub fn batch(&self, rows: &[u32]) -> Result<RecordBatch> {
        let rows = UInt32Array::from(rows.to_vec());
        let payload_of = take(&self.payload_of, &rows, None)?.as_primitive::<Int32Type>().clone();
        let context_of = match &self.context_of {
            Some(numbers) => Some(take(numbers, &rows, None)?.as_primitive::<Int32Type>().clone()),
            None => None,
        };
        let mut columns = Vec::with_capacity(self.sources.len());
        for (source, field) in self.sources.iter().zip(self.schema.fields()) {
            columns.push(match source {
                Source::Payload(number) => look_up(self.payloads.column(*number), &payload_of)?,
                Source::Context(number) => {
                    let contexts = self.contexts.as_ref().expect("only events have columns of contexts");
                    look_up(contexts.column(*number), context_of.as_ref().expect("made with the contexts"))?
                }
                Source::Main(number) => match &self.main[*number] {
                    Some(column) => take(column, &rows, None)?,
                    None => new_null_array(field.data_type(), rows.len()),
                },
                Source::LogPartition => take(&self.log_partition, &rows, None)?,
                Source::LogOffset => take(&self.log_offset, &rows, None)?,
                Source::LogRow => take(&self.log_row, &rows, None)?,
                Source::Missing => new_null_array(field.data_type(), rows.len()),
            });
        }
        let columns: Vec<ArrayRef> = columns.into_iter().map(renamed).collect();
        let fields: Vec<_> = (self.schema.fields().iter().zip(&columns))
            .map(|(field, column)| field.as_ref().clone().with_data_type(column.data_type().clone()))
            .collect();
        Ok(RecordBatch::try_new(Arc::new(arrow::datatypes::Schema::new(fields)), columns)?)
    }

    fn group(&mut self, topic: Topic, dropped: &[bool], main_schema: &SchemaRef) {
        let received_at = self.payloads.column(column::RECEIVED_AT).as_primitive::<TimestampMicrosecondType>();
        let main = |name: &str| main_schema.index_of(name).ok().and_then(|number| self.main[number].clone());
        let kinds = main("kind").filter(|_| topic == Topic::Events);
        let kinds = kinds.as_ref().map(|kinds| kinds.as_primitive::<UInt8Type>());
        let created_at = main("created_at");
        let created_at = created_at.as_ref().map(|times| times.as_primitive::<TimestampMicrosecondType>());
        let environments = environment_ranks(&self.payloads);
        let keys = key_ranks(main("flag_key").as_ref(), main("event_key").as_ref(), self.payload_of.len());

        let mut groups: BTreeMap<(i64, u8), Vec<SortedRow>> = BTreeMap::new();
        for (row, payload) in self.payload_of.values().iter().enumerate() {
            let payload = *payload as usize;
            if dropped[payload] {
                continue;
            }
            let received = received_at.value(payload);
            let time = match (topic, created_at) {
                (Topic::DeadLetters, _) => received,
                (_, Some(times)) if times.is_valid(row) => times.value(row),
                // Nulls first, as the row format of a merge has it.
                _ => i64::MIN,
            };
            let partition = (received.div_euclid(DAY_MICROS), kinds.map_or(0, |kinds| kinds.value(row)));
            let rank = u64::from(environments[payload]) << 32 | u64::from(keys[row]);
            groups.entry(partition).or_default().push(SortedRow { rank, time, row: row as u32 });
            self.newest_received_at = self.newest_received_at.max(Some(received));
        }
        self.groups = groups.into_iter().map(|((day, kind), rows)| Group::new(topic, day, kind, rows)).collect();
    }
}

/// Ordered as the fields are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct SortedRow {
    rank: u64,
    time: i64,
    row: u32,
}

impl Group {
    fn new(topic: Topic, day: i64, kind: u8, mut rows: Vec<SortedRow>) -> Self {
        rows.sort_unstable();
        let mut partition = PartitionValues::from([("event_date".to_owned(), Some(date(day)))]);
        if topic == Topic::Events {
            let kind = EventKind::ALL.get(kind as usize).copied().unwrap_or(EventKind::Other);
            partition.insert("kind".to_owned(), Some(kind.as_str().to_owned()));
        }
        Self { partition, rows: rows.iter().map(|sorted| sorted.row).collect() }
    }
}

/// A day since the epoch as `2026-11-22`.
pub(crate) fn date(day: i64) -> String {
    let date = chrono::DateTime::from_timestamp(day.saturating_mul(86_400), 0).unwrap_or_default();
    date.format("%Y-%m-%d").to_string()
}

fn sources(spec: &TableSpec, topic: Topic, main_schema: &SchemaRef) -> Vec<Source> {
    let (payloads, contexts) = (log_schema::payloads_v1(), log_schema::contexts_v1());
    let source = |name: &str| match name {
        "log_partition" => Source::LogPartition,
        "log_offset" => Source::LogOffset,
        "log_row" => Source::LogRow,
        _ => {
            let context = contexts.index_of(name).ok().filter(|_| topic == Topic::Events).map(Source::Context);
            let payload = || payloads.index_of(name).ok().map(Source::Payload);
            let main = || main_schema.index_of(name).ok().map(Source::Main);
            context.or_else(payload).or_else(main).unwrap_or(Source::Missing)
        }
    };
    spec.file_columns().map(|column| source(column.name)).collect()
}

/// One column of the main batches, end to end; `None` if it is null in every row.
fn lay_out(frames: &[FrameRows], number: usize, data_type: &DataType) -> Result<Option<ArrayRef>> {
    if frames.iter().all(|frame| frame.main[number].is_none()) {
        return Ok(None);
    }
    let columns: Vec<ArrayRef> = frames
        .iter()
        .map(|frame| frame.main[number].clone().unwrap_or_else(|| new_null_array(data_type, frame.rows)))
        .collect();
    Ok(Some(concat(&columns.iter().map(AsRef::as_ref).collect::<Vec<_>>())?))
}

fn per_row<T>(frames: &[FrameRows], value: impl Fn(&FrameRows, usize) -> T + Copy) -> impl Iterator<Item = T> {
    frames.iter().flat_map(move |frame| (0..frame.rows).map(move |row| value(frame, row)))
}

fn payload_numbers(frames: &[FrameRows], rows: usize) -> Int32Array {
    let mut numbers = Vec::with_capacity(rows);
    let mut payload = 0;
    for frame in frames {
        for count in frame.payloads.column(column::ROWS).as_primitive::<UInt32Type>().values() {
            numbers.extend(std::iter::repeat_n(payload, *count as usize));
            payload += 1;
        }
    }
    numbers.into()
}

fn context_numbers(frames: &[FrameRows], rows: usize, topic: Topic) -> Option<Int32Array> {
    if topic != Topic::Events {
        return None;
    }
    let mut numbers = Int32Array::builder(rows);
    let mut first = 0;
    for frame in frames {
        match &frame.main[column::CONTEXT_ROW] {
            None => numbers.append_nulls(frame.rows),
            Some(column) => {
                let column = column.as_primitive::<UInt32Type>();
                column.iter().for_each(|row| numbers.append_option(row.map(|row| first + row as i32)));
            }
        }
        first += frame.contexts.as_ref().map_or(0, RecordBatch::num_rows) as i32;
    }
    Some(numbers.finish())
}

/// Texts become a dictionary over the shared values; other types are gathered.
fn look_up(values: &ArrayRef, numbers: &Int32Array) -> Result<ArrayRef> {
    Ok(match values.data_type() {
        _ if values.is_empty() => new_null_array(values.data_type(), numbers.len()),
        DataType::Utf8 => Arc::new(DictionaryArray::<Int32Type>::try_new(numbers.clone(), Arc::clone(values))?),
        _ => take(values, numbers, None)?,
    })
}

/// Maps and lists under the field names that the table's files use.
fn renamed(column: ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Map(..) => {
            let (_, offsets, entries, nulls, sorted) = column.as_map().clone().into_parts();
            let DataType::Map(field, _) = crate::schema::ColumnType::TextMap.arrow() else { return column };
            let DataType::Struct(fields) = field.data_type().clone() else { return column };
            let (_, children, entry_nulls) = entries.into_parts();
            Arc::new(MapArray::new(field, offsets, StructArray::new(fields, children, entry_nulls), nulls, sorted))
        }
        DataType::List(_) => {
            let (_, offsets, values, nulls) = column.as_list::<i32>().clone().into_parts();
            let DataType::List(field) = crate::schema::ColumnType::TextList.arrow() else { return column };
            Arc::new(ListArray::new(field, offsets, values, nulls))
        }
        _ => column,
    }
}

/// Per payload, the rank of its (project, environment) among those that occur.
fn environment_ranks(payloads: &RecordBatch) -> Vec<u32> {
    let text = |number: usize| payloads.column(number).as_string::<i32>();
    let (project, environment) = (text(column::PROJECT), text(column::ENVIRONMENT));
    let pairs: Vec<(&str, &str)> =
        (0..payloads.num_rows()).map(|row| (project.value(row), environment.value(row))).collect();
    ranks(pairs.iter().map(|pair| Some(*pair)))
}

/// Per row, the rank of its flag key, or else of its event key; rows without either come first.
fn key_ranks(flag_key: Option<&ArrayRef>, event_key: Option<&ArrayRef>, rows: usize) -> Vec<u32> {
    fn value(keys: Option<&StringArray>, row: usize) -> Option<&str> {
        keys.filter(|keys| keys.is_valid(row)).map(|keys| keys.value(row))
    }
    let (flag_key, event_key) =
        (flag_key.map(|keys| keys.as_string::<i32>()), event_key.map(|keys| keys.as_string::<i32>()));
    ranks((0..rows).map(|row| value(flag_key, row).or_else(|| value(event_key, row))))
}

fn ranks<T: Ord + std::hash::Hash + Copy>(values: impl Iterator<Item = Option<T>>) -> Vec<u32> {
    let mut numbers: HashMap<T, u32> = HashMap::new();
    let met: Vec<u32> = values
        .map(|value| match value {
            None => 0,
            Some(value) => {
                let next = numbers.len() as u32 + 1;
                *numbers.entry(value).or_insert(next)
            }
        })
        .collect();
    let mut sorted: Vec<(T, u32)> = numbers.into_iter().collect();
    sorted.sort_unstable();
    let mut rank_of = vec![0; sorted.len() + 1];
    for (rank, (_, number)) in sorted.iter().enumerate() {
        rank_of[*number as usize] = rank as u32 + 1;
    }
    met.into_iter().map(|number| rank_of[number as usize]).collect()
}

#[cfg(test)]
mod tests;
