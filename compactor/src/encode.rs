//! From columns to the row groups of a Parquet file.
//!
//! In: values of one column after the other, as Arrow arrays or as codes of a dictionary. Out: column chunks, which
//! `write` puts into files.
//! One column is encoded at a time, so that a row group in the making holds codes and distinct values, not 58 open
//! writers with a hash table each. parquet's `ArrowWriter` was there before: it hashes every value of every row, also
//! those that stand once per payload or context in the log. `bench compact --requests 20000`, dev profile, loaded machine,
//! both in one sitting: landing 4.45 core-us an event with it, 3.16 with this; a backlog held 200 MiB, now 67.
//!
//! `hybrid` packs levels and codes, `dictionary` numbers values, `chunk` makes the pages of one column.

pub(crate) mod chunk;
pub(crate) mod dictionary;
pub(crate) mod hybrid;

use std::sync::{Arc, LazyLock};

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BinaryViewArray, BooleanArray, StringArray, StringViewArray,
};
use arrow::array::{Float64Array, Int32Array, Int64Array, ListArray, MapArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType};
use parquet::arrow::ArrowSchemaConverter;
use parquet::file::properties::WriterPropertiesPtr;
use parquet::schema::types::{ColumnDescPtr, SchemaDescPtr};

use self::chunk::{Chunk, ChunkEncoder, Leaf, encode_times};
use self::dictionary::{Dictionary, NULL};
use crate::schema::{CONTEXTS, Column, ColumnType, DEAD_LETTERS, EVENTS, LEDGER, TableSpec};
use crate::{Error, Result};

/// Parquet schema of a table's files.
pub(crate) fn parquet_schema(spec: &TableSpec) -> SchemaDescPtr {
    static SCHEMAS: LazyLock<Vec<(&'static str, SchemaDescPtr)>> = LazyLock::new(|| {
        let tables = [&EVENTS, &DEAD_LETTERS, &LEDGER, &CONTEXTS].into_iter();
        let converted = |spec: &TableSpec| ArrowSchemaConverter::new().convert(&spec.file_schema());
        tables
            .map(|spec| (spec.name, Arc::new(converted(spec).expect("columns have types that Parquet knows"))))
            .collect()
    });
    let found = SCHEMAS.iter().find(|(name, _)| *name == spec.name);
    Arc::clone(&found.expect("every table is in the list above").1)
}

/// Rows of an array as codes of a dictionary.
pub(crate) enum Values<'a> {
    Nulls,
    Text(&'a StringArray),
    TextView(&'a StringViewArray),
    Binary(&'a BinaryArray),
    BinaryView(&'a BinaryViewArray),
    Boolean(&'a BooleanArray),
    Int(&'a Int32Array),
    Long(&'a Int64Array),
    Time(&'a TimestampMicrosecondArray),
    Double(&'a Float64Array),
}

impl<'a> Values<'a> {
    pub fn of(array: &'a ArrayRef) -> Self {
        if array.null_count() == array.len() {
            return Self::Nulls;
        }
        match array.data_type() {
            DataType::Utf8 => Self::Text(array.as_string()),
            DataType::Utf8View => Self::TextView(array.as_string_view()),
            DataType::Binary => Self::Binary(array.as_binary()),
            DataType::BinaryView => Self::BinaryView(array.as_binary_view()),
            DataType::Boolean => Self::Boolean(array.as_boolean()),
            DataType::Int32 => Self::Int(array.as_primitive::<Int32Type>()),
            DataType::Int64 => Self::Long(array.as_primitive::<Int64Type>()),
            DataType::Timestamp(..) => Self::Time(array.as_primitive::<TimestampMicrosecondType>()),
            DataType::Float64 => Self::Double(array.as_primitive::<Float64Type>()),
            other => unreachable!("no table has a column of type {other}"),
        }
    }

    fn is_null(&self, row: usize) -> bool {
        match self {
            Self::Nulls => true,
            Self::Text(array) => array.is_null(row),
            Self::TextView(array) => array.is_null(row),
            Self::Binary(array) => array.is_null(row),
            Self::BinaryView(array) => array.is_null(row),
            Self::Boolean(array) => array.is_null(row),
            Self::Int(array) => array.is_null(row),
            Self::Long(array) => array.is_null(row),
            Self::Time(array) => array.is_null(row),
            Self::Double(array) => array.is_null(row),
        }
    }

    /// The code of a row's value, or [`NULL`].
    pub fn code(&self, row: usize, codes: &mut Codes) -> u32 {
        if self.is_null(row) {
            return NULL;
        }
        match self {
            Self::Nulls => NULL,
            Self::Text(array) => codes.code(array.value(row).as_bytes()),
            Self::TextView(array) => codes.code(array.value(row).as_bytes()),
            Self::Binary(array) => codes.code(array.value(row)),
            Self::BinaryView(array) => codes.code(array.value(row)),
            Self::Boolean(array) => u32::from(array.value(row)),
            Self::Int(array) => codes.code(&array.value(row).to_le_bytes()),
            Self::Long(array) => codes.code(&array.value(row).to_le_bytes()),
            Self::Time(array) => codes.code(&array.value(row).to_le_bytes()),
            Self::Double(array) => codes.code(&array.value(row).to_le_bytes()),
        }
    }
}

/// A dictionary, and whether it is worth looking whether a value was met before.
pub(crate) struct Codes {
    pub dictionary: Dictionary,
    repeats: bool,
}

impl Codes {
    pub fn of(column: &Column) -> Self {
        let dictionary = match column.column_type {
            ColumnType::Text
            | ColumnType::Binary
            | ColumnType::TextMap
            | ColumnType::TimeMap
            | ColumnType::TextList => Dictionary::of_texts(),
            _ => Dictionary::of_numbers(),
        };
        Self { dictionary, repeats: column.dictionary }
    }

    /// Of the values of a map's entries.
    pub fn of_entries(column: &Column) -> Self {
        match column.column_type {
            ColumnType::TimeMap => Self { dictionary: Dictionary::of_numbers(), repeats: column.dictionary },
            _ => Self::of(column),
        }
    }

    pub fn code(&mut self, value: &[u8]) -> u32 {
        if self.repeats { self.dictionary.code(value) } else { self.dictionary.push(value) }
    }
}

/// One column of a row group in the making.
pub(crate) enum ColumnRows {
    /// Codes, after so many rows that are null.
    Flat {
        codes: Codes,
        nulls_first: usize,
        rows: Vec<u32>,
    },
    /// Times that hardly repeat; `definition` is 0 where one is null.
    Times {
        values: Vec<i64>,
        definition: Vec<i16>,
    },
    Map {
        keys: Codes,
        values: Codes,
        rows: MapLevels,
    },
    List {
        codes: Codes,
        leaf: Leaf,
    },
}

impl ColumnRows {
    pub fn new(column: &Column) -> Self {
        let codes = || Codes::of(column);
        match column.column_type {
            ColumnType::TextMap | ColumnType::TimeMap => {
                Self::Map { keys: codes(), values: Codes::of_entries(column), rows: MapLevels::of(column) }
            }
            ColumnType::TextList => Self::List { codes: codes(), leaf: Leaf::default() },
            ColumnType::Timestamp if !column.dictionary => Self::Times { values: Vec::new(), definition: Vec::new() },
            _ => Self::Flat { codes: codes(), nulls_first: 0, rows: Vec::new() },
        }
    }

    /// Appends rows: `picks` are (number of the array, row in it).
    pub fn extend(&mut self, arrays: &[&ArrayRef], picks: &[(usize, usize)]) {
        match self {
            Self::Flat { codes, nulls_first, rows } => {
                let arrays: Vec<Values> = arrays.iter().map(|array| Values::of(array)).collect();
                if arrays.iter().all(|values| matches!(values, Values::Nulls)) {
                    if rows.is_empty() {
                        *nulls_first += picks.len();
                    } else {
                        rows.resize(rows.len() + picks.len(), NULL);
                    }
                    return;
                }
                rows.extend(picks.iter().map(|(array, row)| arrays[*array].code(*row, codes)));
            }
            Self::Times { values, definition } => {
                let arrays: Vec<_> =
                    arrays.iter().map(|array| array.as_primitive::<TimestampMicrosecondType>()).collect();
                for (array, row) in picks {
                    let valid = arrays[*array].is_valid(*row);
                    definition.push(i16::from(valid));
                    if valid {
                        values.push(arrays[*array].value(*row));
                    }
                }
            }
            Self::Map { keys, values, rows: levels } => {
                let arrays: Vec<MapRows> = arrays.iter().map(|array| MapRows::of(array.as_map())).collect();
                for (array, row) in picks {
                    let (map, entries) = (&arrays[*array], arrays[*array].entries(*row));
                    let code = |entry| (map.keys.code(entry, keys), map.values.code(entry, values));
                    levels.push(entries.is_none(), entries.into_iter().flatten().map(code));
                }
            }
            Self::List { codes, leaf } => {
                let arrays: Vec<ListRows> = arrays.iter().map(|array| ListRows::of(array.as_list())).collect();
                for (array, row) in picks {
                    let (list, items) = (&arrays[*array], arrays[*array].items(*row));
                    let code = |item| list.values.code(item, codes);
                    push_list(leaf, items.is_none(), items.into_iter().flatten().map(code));
                }
            }
        }
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        let leaf = |leaf: &Leaf| leaf.repetition.len() + leaf.definition.len() + 4 * leaf.codes.len();
        match self {
            Self::Flat { codes, rows, .. } => codes.dictionary.bytes() + 4 * rows.len(),
            Self::Times { values, definition } => 8 * values.len() + 2 * definition.len(),
            Self::Map { keys, values, rows } => {
                keys.dictionary.bytes() + values.dictionary.bytes() + leaf(&rows.keys) + leaf(&rows.values)
            }
            Self::List { codes, leaf: rows } => codes.dictionary.bytes() + leaf(rows),
        }
    }

    /// Encodes the column, which has `rows` rows.
    pub fn encode(self, column: &Column, target: &mut Target<'_>, rows: usize) -> Result<()> {
        match self {
            Self::Flat { rows: codes, .. } if codes.is_empty() && column.nullable => {
                target.leaf(column, &Leaf::nulls(rows), Some(&Dictionary::of_texts()), rows)
            }
            Self::Flat { codes, nulls_first, rows: found } => {
                let dictionary = (column.column_type != ColumnType::Boolean).then_some(&codes.dictionary);
                let all = Nulls(nulls_first).chain(found);
                target.leaf(column, &Leaf::flat(all, column.nullable), dictionary, rows)
            }
            Self::Times { values, definition } => target.times(&values, &definition),
            Self::Map { keys, values, rows: levels } => {
                target.leaf(column, &levels.keys, Some(&keys.dictionary), rows)?;
                target.leaf(column, &levels.values, Some(&values.dictionary), rows)
            }
            Self::List { codes, leaf } => target.leaf(column, &leaf, Some(&codes.dictionary), rows),
        }
    }
}

/// So many nulls before other codes.
struct Nulls(usize);

impl Nulls {
    fn chain(self, codes: Vec<u32>) -> impl ExactSizeIterator<Item = u32> {
        let nulls = self.0;
        (0..nulls + codes.len()).map(move |row| if row < nulls { NULL } else { codes[row - nulls] })
    }
}

/// Where the chunks of one row group go, in the order of the file's leaves.
pub(crate) struct Target<'a> {
    pub encoder: &'a mut ChunkEncoder,
    pub schema: &'a SchemaDescPtr,
    pub properties: &'a WriterPropertiesPtr,
    pub chunks: Vec<Chunk>,
}

impl Target<'_> {
    fn descr(&self) -> ColumnDescPtr {
        self.schema.column(self.chunks.len())
    }

    pub fn leaf(&mut self, column: &Column, leaf: &Leaf, dictionary: Option<&Dictionary>, rows: usize) -> Result<()> {
        let descr = self.descr();
        if leaf.codes.len() < leaf.slots && descr.max_def_level() == 0 {
            let what = format!("column {} must not be null", column.name);
            return Err(Error::Arrow(arrow::error::ArrowError::InvalidArgumentError(what)));
        }
        self.chunks.push(self.encoder.encode(&descr, column, leaf, dictionary, rows)?);
        Ok(())
    }

    pub fn times(&mut self, values: &[i64], definition: &[i16]) -> Result<()> {
        let descr = self.descr();
        self.chunks.push(encode_times(&descr, self.properties, values, definition)?);
        Ok(())
    }
}

/// Keys and values of a map column.
pub(crate) struct MapLevels {
    pub keys: Leaf,
    pub values: Leaf,
    /// Definition level of a map that is there.
    present: u8,
    /// Whether an entry's value may be null.
    optional_values: bool,
}

impl MapLevels {
    pub fn of(column: &Column) -> Self {
        Self {
            keys: Leaf::default(),
            values: Leaf::default(),
            present: u8::from(column.nullable),
            optional_values: column.column_type == ColumnType::TextMap,
        }
    }

    /// Appends a row.
    pub fn push(&mut self, is_null: bool, entries: impl Iterator<Item = (u32, u32)>) {
        let before = self.keys.slots;
        for (key, value) in entries {
            let repetition = u8::from(self.keys.slots > before);
            self.keys.slot(repetition, self.present + 1);
            self.keys.codes.push(key);
            self.values.slot(repetition, self.present + 1 + u8::from(self.optional_values && value != NULL));
            self.values.codes.extend((value != NULL).then_some(value));
        }
        if self.keys.slots == before {
            let level = if is_null { 0 } else { self.present };
            self.keys.slot(0, level);
            self.values.slot(0, level);
        }
    }
}

/// Levels of a row of an optional list with optional items.
pub(crate) fn push_list(leaf: &mut Leaf, is_null: bool, items: impl Iterator<Item = u32>) {
    let before = leaf.slots;
    for code in items {
        leaf.slot(u8::from(leaf.slots > before), if code == NULL { 2 } else { 3 });
        leaf.codes.extend((code != NULL).then_some(code));
    }
    if leaf.slots == before {
        leaf.slot(0, u8::from(!is_null));
    }
}

/// A map array taken apart.
pub(crate) struct MapRows<'a> {
    array: &'a MapArray,
    pub keys: Values<'a>,
    pub values: Values<'a>,
}

impl<'a> MapRows<'a> {
    pub fn of(array: &'a MapArray) -> Self {
        Self { array, keys: Values::of(array.keys()), values: Values::of(array.values()) }
    }

    /// Numbers of a row's entries; `None` if the row is null.
    pub fn entries(&self, row: usize) -> Option<std::ops::Range<usize>> {
        let offsets = self.array.value_offsets();
        self.array.is_valid(row).then(|| offsets[row] as usize..offsets[row + 1] as usize)
    }
}

/// A list array taken apart.
pub(crate) struct ListRows<'a> {
    array: &'a ListArray,
    pub values: Values<'a>,
}

impl<'a> ListRows<'a> {
    pub fn of(array: &'a ListArray) -> Self {
        Self { array, values: Values::of(array.values()) }
    }

    pub fn items(&self, row: usize) -> Option<std::ops::Range<usize>> {
        let offsets = self.array.value_offsets();
        self.array.is_valid(row).then(|| offsets[row] as usize..offsets[row + 1] as usize)
    }
}

#[cfg(test)]
mod tests;
