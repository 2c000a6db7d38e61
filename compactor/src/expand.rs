//! Turns frames of the log into rows of a table, grouped by table partition and sorted.
//!
//! In: decoded frames with the payloads that de-duplication dropped. Out: an [`Expansion`]: per partition of the table
//! the numbers of its rows in the table's order, and the columns of any of them, encoded.
//!
//! Frames are never laid end to end and no text is copied from row to row: each column becomes codes of a dictionary in
//! one pass over the frames in log order, what stands once per payload or context once per payload or context, and
//! sorting moves codes. Sorting compares ranks, not text: environments and keys are few, and are ranked once.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{TimestampMicrosecondType, UInt8Type, UInt32Type};
use events::batch::column;
use events::{EventKind, LogBatch, Offset, Topic, TopicPartition, schema as log_schema};
use hashbrown::HashMap;

use crate::Result;
use crate::encode::chunk::{Chunk, Leaf};
use crate::encode::dictionary::{Dictionary, NULL};
use crate::encode::{Codes, ColumnRows, ListRows, MapLevels, MapRows, Target, Values, push_list};
use crate::schema::{Column, ColumnType, DEAD_LETTERS, EVENTS, TableSpec};
use crate::table::actions::PartitionValues;

const DAY_MICROS: i64 = 86_400_000_000;
/// What an array costs beside its values: its description, buffers' headers and padding.
const ARRAY_BYTES: usize = 256;

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
        let size = |array: &ArrayRef| array.to_data().get_slice_memory_size().unwrap_or_default() + ARRAY_BYTES;
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

/// Frames whose rows, payloads and contexts are numbered through.
pub(crate) struct Expansion<'a> {
    frames: &'a [FrameRows],
    sources: Vec<(&'static Column, Source)>,
    /// Number of the first row, payload and context of each frame.
    first_row: Vec<u32>,
    first_payload: Vec<u32>,
    first_context: Vec<u32>,
    rows: usize,
    /// Per payload.
    frame_of: Vec<u32>,
    /// Per row.
    payload_of: Vec<u32>,
    /// Per row; empty where the topic has no contexts.
    context_of: Vec<u32>,
    pub groups: Vec<Group>,
    /// Latest `received_at` of the rows, microseconds.
    pub newest_received_at: Option<i64>,
}

/// Expands frames of one topic, in log order.
pub(crate) fn expand(topic: Topic, frames: &[FrameRows]) -> Expansion<'_> {
    let spec = if topic == Topic::DeadLetters { &DEAD_LETTERS } else { &EVENTS };
    let first = |count: fn(&FrameRows) -> usize| -> Vec<u32> {
        let firsts = frames.iter().scan(0, |next, frame| {
            let first = *next;
            *next += count(frame) as u32;
            Some(first)
        });
        firsts.collect()
    };
    let mut expansion = Expansion {
        frames,
        sources: sources(spec, topic),
        first_row: first(|frame| frame.rows),
        first_payload: first(|frame| frame.payloads.num_rows()),
        first_context: first(|frame| frame.contexts.as_ref().map_or(0, RecordBatch::num_rows)),
        rows: frames.iter().map(|frame| frame.rows).sum(),
        frame_of: frame_numbers(frames),
        payload_of: payload_numbers(frames),
        context_of: Vec::new(),
        groups: Vec::new(),
        newest_received_at: None,
    };
    if topic == Topic::Events {
        expansion.context_of = context_numbers(frames, &expansion.first_context);
    }
    expansion.group(topic);
    expansion
}

impl<'a> Expansion<'a> {
    /// Encodes the columns of the given rows, at most a row group of them, in their order.
    pub async fn encode(&self, rows: &[u32], mut target: Target<'_>) -> Result<Vec<Chunk>> {
        let mut selection = Selection::new(self, rows);
        for (column, source) in &self.sources {
            selection.column(column, *source).encode(column, &mut target, rows.len())?;
            // Encoding is pure computation: give ingest on the same thread its turn.
            tokio::task::yield_now().await;
        }
        Ok(target.chunks)
    }

    fn group(&mut self, topic: Topic) {
        let received_at = self.of_payloads(|payloads, row| {
            payloads.column(column::RECEIVED_AT).as_primitive::<TimestampMicrosecondType>().value(row)
        });
        let dropped: Vec<bool> = self.frames.iter().flat_map(|frame| frame.dropped.iter().copied()).collect();
        let environments = self.environment_ranks();
        let keys = if topic == Topic::Events { self.key_ranks() } else { vec![0; self.rows] };
        let main_schema = main_schema(topic);
        let number = |name: &str| main_schema.index_of(name).ok();
        let (kind, created_at) = (number("kind"), number("created_at"));

        let mut groups: BTreeMap<(i64, u8), Vec<SortedRow>> = BTreeMap::new();
        for (frame, first) in self.frames.iter().zip(&self.first_row) {
            let main = |number: Option<usize>| frame.main.get(number?)?.as_ref();
            let kinds = main(kind).map(|kinds| kinds.as_primitive::<UInt8Type>());
            let times = main(created_at).map(|times| times.as_primitive::<TimestampMicrosecondType>());
            for place in 0..frame.rows {
                let row = *first + place as u32;
                let payload = self.payload_of[row as usize] as usize;
                if dropped[payload] {
                    continue;
                }
                let received = received_at[payload];
                let time = match (topic, times) {
                    (Topic::DeadLetters, _) => received,
                    (_, Some(times)) if times.is_valid(place) => times.value(place),
                    // Nulls first, as the row format of a merge has it.
                    _ => i64::MIN,
                };
                let partition = (received.div_euclid(DAY_MICROS), kinds.map_or(0, |kinds| kinds.value(place)));
                let rank = u64::from(environments[payload]) << 32 | u64::from(keys[row as usize]);
                groups.entry(partition).or_default().push(SortedRow { rank, time, row });
                self.newest_received_at = self.newest_received_at.max(Some(received));
            }
        }
        self.groups = groups.into_iter().map(|((day, kind), rows)| Group::new(topic, day, kind, rows)).collect();
    }

    fn of_payloads<T>(&self, value: impl Fn(&RecordBatch, usize) -> T + Copy) -> Vec<T> {
        let values = self
            .frames
            .iter()
            .flat_map(|frame| (0..frame.payloads.num_rows()).map(move |row| value(&frame.payloads, row)));
        values.collect()
    }

    /// Per payload, the rank of its (project, environment) among those that occur.
    fn environment_ranks(&self) -> Vec<u32> {
        let mut numbers: HashMap<(&str, &str), u32> = HashMap::new();
        let mut met = Vec::new();
        for frame in self.frames {
            let text = |number: usize| frame.payloads.column(number).as_string::<i32>();
            let (project, environment) = (text(column::PROJECT), text(column::ENVIRONMENT));
            for row in 0..frame.payloads.num_rows() {
                let next = numbers.len() as u32;
                met.push(*numbers.entry((project.value(row), environment.value(row))).or_insert(next));
            }
        }
        let mut sorted: Vec<_> = numbers.into_iter().collect();
        sorted.sort_unstable();
        let mut rank_of = vec![0; sorted.len()];
        for (rank, (_, number)) in sorted.iter().enumerate() {
            rank_of[*number as usize] = rank as u32;
        }
        met.into_iter().map(|number| rank_of[number as usize]).collect()
    }

    /// Per row, the rank of its flag key, or else of its event key; rows without either come first.
    fn key_ranks(&self) -> Vec<u32> {
        let schema = log_schema::events_v1();
        let number = |name: &str| schema.index_of(name).ok();
        let (flag_key, event_key) = (number("flag_key"), number("event_key"));
        let mut keys = Dictionary::of_texts();
        let mut met = Vec::with_capacity(self.rows);
        for frame in self.frames {
            let texts = |number: Option<usize>| frame.main.get(number?)?.as_ref().map(|array| array.as_string::<i32>());
            let (flag_keys, event_keys) = (texts(flag_key), texts(event_key));
            for row in 0..frame.rows {
                let keys_of_row = [flag_keys, event_keys].into_iter().flatten();
                let key = keys_of_row.filter(|keys| keys.is_valid(row)).map(|keys| keys.value(row)).next();
                met.push(key.map_or(NULL, |key| keys.code(key.as_bytes())));
            }
        }
        let mut sorted: Vec<u32> = (0..keys.len() as u32).collect();
        sorted.sort_unstable_by(|a, b| keys.value(*a).cmp(keys.value(*b)));
        let mut rank_of = vec![0; sorted.len()];
        for (rank, code) in sorted.iter().enumerate() {
            rank_of[*code as usize] = rank as u32 + 1;
        }
        met.iter_mut().for_each(|code| *code = rank_of.get(*code as usize).copied().unwrap_or(0));
        met
    }
}

/// Some rows of an expansion, on the way to a row group.
struct Selection<'e> {
    expansion: &'e Expansion<'e>,
    /// In the table's order.
    rows: &'e [u32],
    /// In log order, and what they refer to.
    log_rows: Vec<u32>,
    payloads: Vec<u32>,
    contexts: Vec<u32>,
    /// Codes by number of the row, payload or context; only those of the selection are meant.
    codes: Vec<u32>,
}

impl<'e> Selection<'e> {
    fn new(expansion: &'e Expansion<'e>, rows: &'e [u32]) -> Self {
        let payloads = expansion.frames.iter().map(|frame| frame.payloads.num_rows()).sum();
        let contexts = expansion.frames.iter().filter_map(|frame| frame.contexts.as_ref());
        let contexts = contexts.map(RecordBatch::num_rows).sum();
        let of = |numbers: &'e [u32]| rows.iter().filter_map(|row| numbers.get(*row as usize)).copied();
        Self {
            expansion,
            rows,
            log_rows: ascending(rows.iter().copied(), expansion.rows),
            payloads: ascending(of(&expansion.payload_of), payloads),
            contexts: ascending(of(&expansion.context_of).filter(|context| *context != NULL), contexts),
            codes: vec![NULL; expansion.rows.max(payloads).max(contexts)],
        }
    }

    fn column(&mut self, column: &Column, source: Source) -> ColumnRows {
        match source {
            Source::Missing => ColumnRows::new(column),
            Source::Payload(number) => self.of_payloads(column, |frame| Some(frame.payloads.column(number))),
            Source::Context(number) => match column.column_type {
                ColumnType::TextMap => self.maps_of_contexts(column, number),
                _ => self.of_contexts(column, number),
            },
            Source::Main(number) => match ColumnRows::new(column) {
                ColumnRows::Times { .. } => self.times(number),
                ColumnRows::List { .. } => self.lists(column, number),
                _ => self.of_rows(column, number),
            },
            Source::LogPartition => {
                self.number_of_frame(column, |frame| (frame.source.partition.0 as i32).to_le_bytes().to_vec())
            }
            Source::LogOffset => self.number_of_frame(column, |frame| frame.offset.0.to_le_bytes().to_vec()),
            Source::LogRow => {
                let mut codes = Codes::of(column);
                let place = |row: &u32| self.expansion.place_of_row(*row).1 as i32;
                let rows = self.rows.iter().map(|row| codes.code(&place(row).to_le_bytes())).collect();
                ColumnRows::Flat { codes, nulls_first: 0, rows }
            }
        }
    }

    /// One value per payload.
    fn of_payloads(&mut self, column: &Column, array: impl Fn(&'e FrameRows) -> Option<&'e ArrayRef>) -> ColumnRows {
        let mut codes = Codes::of(column);
        let expansion = self.expansion;
        each(expansion.frames, &expansion.first_payload, &self.payloads, array, |payload, values, place| {
            self.codes[payload as usize] = values.code(place, &mut codes);
        });
        let code = |row: &u32| self.codes[expansion.payload_of[*row as usize] as usize];
        ColumnRows::Flat { codes, nulls_first: 0, rows: self.rows.iter().map(code).collect() }
    }

    fn number_of_frame(&mut self, column: &Column, number: impl Fn(&FrameRows) -> Vec<u8>) -> ColumnRows {
        let mut codes = Codes::of(column);
        let expansion = self.expansion;
        let frames: Vec<u32> = expansion.frames.iter().map(|frame| codes.code(&number(frame))).collect();
        for payload in &self.payloads {
            self.codes[*payload as usize] = frames[expansion.frame_of[*payload as usize] as usize];
        }
        let code = |row: &u32| self.codes[expansion.payload_of[*row as usize] as usize];
        ColumnRows::Flat { codes, nulls_first: 0, rows: self.rows.iter().map(code).collect() }
    }

    /// One value per context; a row without a context has none.
    fn of_contexts(&mut self, column: &Column, number: usize) -> ColumnRows {
        if self.contexts.is_empty() {
            return ColumnRows::new(column);
        }
        let mut codes = Codes::of(column);
        let expansion = self.expansion;
        let array = |frame: &'e FrameRows| frame.contexts.as_ref().map(|contexts| contexts.column(number));
        each(expansion.frames, &expansion.first_context, &self.contexts, array, |context, values, place| {
            self.codes[context as usize] = values.code(place, &mut codes);
        });
        let code = |row: &u32| match expansion.context_of[*row as usize] {
            NULL => NULL,
            context => self.codes[context as usize],
        };
        ColumnRows::Flat { codes, nulls_first: 0, rows: self.rows.iter().map(code).collect() }
    }

    fn maps_of_contexts(&mut self, column: &Column, number: usize) -> ColumnRows {
        let (mut keys, mut values) = (Codes::of(column), Codes::of_entries(column));
        let mut levels = MapLevels::of(column);
        // Codes of the entries of all contexts, one after the other; of each context where they lie.
        let mut entries: Vec<(u32, u32)> = Vec::new();
        let mut places: Vec<Option<std::ops::Range<usize>>> = Vec::with_capacity(self.contexts.len());
        let expansion = self.expansion;
        let mut open: Option<(usize, MapRows)> = None;
        for (place_in_list, context) in self.contexts.iter().enumerate() {
            let frame = expansion.first_context.partition_point(|first| first <= context) - 1;
            let place = (context - expansion.first_context[frame]) as usize;
            if open.as_ref().is_none_or(|(number, _)| *number != frame) {
                let contexts = expansion.frames[frame].contexts.as_ref().expect("a context was numbered");
                open = Some((frame, MapRows::of(contexts.column(number).as_map())));
            }
            let (_, map) = open.as_ref().expect("opened above");
            let first = entries.len();
            let found = map.entries(place);
            let is_null = found.is_none();
            for entry in found.into_iter().flatten() {
                entries.push((map.keys.code(entry, &mut keys), map.values.code(entry, &mut values)));
            }
            places.push((!is_null).then_some(first..entries.len()));
            self.codes[*context as usize] = place_in_list as u32;
        }
        for row in self.rows {
            let context = expansion.context_of.get(*row as usize).copied().unwrap_or(NULL);
            let range = if context == NULL { None } else { places[self.codes[context as usize] as usize].clone() };
            let is_null = range.is_none();
            let found = range.into_iter().flat_map(|range| entries[range].iter().copied());
            levels.push(is_null, found);
        }
        ColumnRows::Map { keys, values, rows: levels }
    }

    fn of_rows(&mut self, column: &Column, number: usize) -> ColumnRows {
        if self.expansion.frames.iter().all(|frame| frame.main[number].is_none()) {
            return ColumnRows::new(column);
        }
        let mut codes = Codes::of(column);
        let (expansion, mut found) = (self.expansion, false);
        each(
            expansion.frames,
            &expansion.first_row,
            &self.log_rows,
            |frame| frame.main[number].as_ref(),
            |row, values, place| {
                let code = values.code(place, &mut codes);
                found |= code != NULL;
                self.codes[row as usize] = code;
            },
        );
        if !found && column.nullable {
            return ColumnRows::new(column);
        }
        let rows = self.rows.iter().map(|row| self.codes[*row as usize]).collect();
        ColumnRows::Flat { codes, nulls_first: 0, rows }
    }

    fn times(&self, number: usize) -> ColumnRows {
        let mut values = Vec::with_capacity(self.rows.len());
        let mut definition = Vec::with_capacity(self.rows.len());
        let arrays: Vec<_> = (self.expansion.frames.iter())
            .map(|frame| frame.main[number].as_ref().map(|array| array.as_primitive::<TimestampMicrosecondType>()))
            .collect();
        for row in self.rows {
            let (frame, place) = self.expansion.place_of_row(*row);
            let time = arrays[frame].filter(|times| times.is_valid(place)).map(|times| times.value(place));
            definition.push(i16::from(time.is_some()));
            values.extend(time);
        }
        ColumnRows::Times { values, definition }
    }

    fn lists(&self, column: &Column, number: usize) -> ColumnRows {
        let (mut codes, mut leaf) = (Codes::of(column), Leaf::default());
        let arrays: Vec<_> = (self.expansion.frames.iter())
            .map(|frame| frame.main[number].as_ref().map(|array| ListRows::of(array.as_list())))
            .collect();
        for row in self.rows {
            let (frame, place) = self.expansion.place_of_row(*row);
            let list = arrays[frame].as_ref();
            let items = list.and_then(|list| list.items(place));
            let code = |item| list.map_or(NULL, |list| list.values.code(item, &mut codes));
            push_list(&mut leaf, items.is_none(), items.into_iter().flatten().map(code));
        }
        ColumnRows::List { codes, leaf }
    }
}

impl Expansion<'_> {
    fn place_of_row(&self, row: u32) -> (usize, usize) {
        let frame = self.frame_of[self.payload_of[row as usize] as usize] as usize;
        (frame, (row - self.first_row[frame]) as usize)
    }
}

/// Distinct numbers below `end`, in ascending order.
fn ascending(numbers: impl Iterator<Item = u32>, end: usize) -> Vec<u32> {
    let mut met = vec![false; end];
    numbers.for_each(|number| met[number as usize] = true);
    (0..end as u32).filter(|number| met[*number as usize]).collect()
}

/// Calls `take` with each of `numbers`, which ascend, the values of its frame, and its place in them.
fn each<'e>(
    frames: &'e [FrameRows],
    firsts: &[u32],
    numbers: &[u32],
    array: impl Fn(&'e FrameRows) -> Option<&'e ArrayRef>,
    mut take: impl FnMut(u32, &Values<'e>, usize),
) {
    let mut numbers = numbers.iter().copied().peekable();
    for (place, (frame, first)) in frames.iter().zip(firsts).enumerate() {
        let end = firsts.get(place + 1).copied().unwrap_or(u32::MAX);
        let values = array(frame).map_or(Values::Nulls, Values::of);
        while let Some(number) = numbers.next_if(|number| *number < end) {
            take(number, &values, (number - first) as usize);
        }
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

fn main_schema(topic: Topic) -> arrow::datatypes::SchemaRef {
    if topic == Topic::DeadLetters { log_schema::dead_letters_v1() } else { log_schema::events_v1() }
}

fn sources(spec: &'static TableSpec, topic: Topic) -> Vec<(&'static Column, Source)> {
    let (payloads, contexts, main) = (log_schema::payloads_v1(), log_schema::contexts_v1(), main_schema(topic));
    let source = |name: &str| match name {
        "log_partition" => Source::LogPartition,
        "log_offset" => Source::LogOffset,
        "log_row" => Source::LogRow,
        _ => {
            let context = contexts.index_of(name).ok().filter(|_| topic == Topic::Events).map(Source::Context);
            let payload = || payloads.index_of(name).ok().map(Source::Payload);
            let main = || main.index_of(name).ok().map(Source::Main);
            context.or_else(payload).or_else(main).unwrap_or(Source::Missing)
        }
    };
    spec.file_columns().map(|column| (column, source(column.name))).collect()
}

/// Per payload, the number of its frame.
fn frame_numbers(frames: &[FrameRows]) -> Vec<u32> {
    let numbers = frames.iter().enumerate();
    numbers.flat_map(|(number, frame)| std::iter::repeat_n(number as u32, frame.payloads.num_rows())).collect()
}

/// Per row, the number of its payload.
fn payload_numbers(frames: &[FrameRows]) -> Vec<u32> {
    let mut numbers = Vec::with_capacity(frames.iter().map(|frame| frame.rows).sum());
    let mut payload = 0;
    for frame in frames {
        for count in frame.payloads.column(column::ROWS).as_primitive::<UInt32Type>().values() {
            numbers.extend(std::iter::repeat_n(payload, *count as usize));
            payload += 1;
        }
    }
    numbers
}

/// Per row, the number of its context, or [`NULL`].
fn context_numbers(frames: &[FrameRows], firsts: &[u32]) -> Vec<u32> {
    let mut numbers = Vec::with_capacity(frames.iter().map(|frame| frame.rows).sum());
    for (frame, first) in frames.iter().zip(firsts) {
        match &frame.main[column::CONTEXT_ROW] {
            None => numbers.extend(std::iter::repeat_n(NULL, frame.rows)),
            Some(column) => {
                let column = column.as_primitive::<UInt32Type>();
                numbers.extend(column.iter().map(|row| row.map_or(NULL, |row| first + row)));
            }
        }
    }
    numbers
}

#[cfg(test)]
mod tests;
