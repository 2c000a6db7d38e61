//! Arrow columns that grow row by row and can be cut back.
//!
//! Arrow's own builders want every column appended for every row and cannot forget a row. Most of the columns of an
//! event are null, and a refused event must leave no trace; so a column here is told the row number with each value,
//! fills what was skipped with nulls by itself, costs nothing while it is untouched, and [`Column::truncate`]s.
//! Sealing hands the buffers to Arrow without copying them.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, GenericByteArray, ListArray, MapArray, PrimitiveArray, StringArray, StructArray,
    new_null_array,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{ArrowPrimitiveType, BinaryType, ByteArrayType, DataType, Field, Utf8Type};

/// What all columns can do.
pub(crate) trait Column {
    /// Forgets every row from number `rows` on.
    fn truncate(&mut self, rows: usize);
    /// Bytes held.
    fn bytes(&self) -> usize;
    /// The column as an array of `rows` rows of `data_type`; empties it.
    fn seal(&mut self, rows: usize, data_type: &DataType) -> ArrayRef;
}

/// Takes the content and leaves room for as much again, so that the next batch grows without copying.
fn take<T>(values: &mut Vec<T>) -> Vec<T> {
    const KEPT_BYTES_MAX: usize = 256 << 10;
    let room = values.len().min(KEPT_BYTES_MAX / size_of::<T>().max(1));
    std::mem::replace(values, Vec::with_capacity(room))
}

/// One bit a row, least significant first; bits never set are 0.
#[derive(Debug, Default)]
pub(crate) struct Bits(Vec<u8>);

impl Bits {
    #[inline]
    pub fn set(&mut self, row: usize) {
        let byte = row / 8;
        if byte >= self.0.len() {
            self.0.resize(byte + 1, 0);
        }
        self.0[byte] |= 1 << (row % 8);
    }

    fn truncate(&mut self, rows: usize) {
        self.0.truncate(rows.div_ceil(8));
        if !rows.is_multiple_of(8) && self.0.len() == rows.div_ceil(8) {
            self.0[rows / 8] &= (1 << (rows % 8)) - 1;
        }
    }

    fn seal(&mut self, rows: usize) -> BooleanBuffer {
        let mut bytes = take(&mut self.0);
        bytes.resize(rows.div_ceil(8), 0);
        BooleanBuffer::new(Buffer::from_vec(bytes), 0, rows)
    }

    fn nulls(&mut self, rows: usize) -> Option<NullBuffer> {
        Some(NullBuffer::new(self.seal(rows))).filter(|nulls| nulls.null_count() > 0)
    }
}

/// Text or bytes.
#[derive(Debug, Default)]
pub(crate) struct Bytes<T> {
    /// Start of each row and end of the last; empty while no row was written.
    offsets: Vec<i32>,
    bytes: Vec<u8>,
    valid: Bits,
    kind: std::marker::PhantomData<T>,
}

/// Which Arrow type the bytes are.
pub(crate) trait BytesKind {
    type Arrow: ByteArrayType<Offset = i32>;
}

#[derive(Debug, Default)]
pub(crate) struct Utf8;

impl BytesKind for Utf8 {
    type Arrow = Utf8Type;
}

#[derive(Debug, Default)]
pub(crate) struct Opaque;

impl BytesKind for Opaque {
    type Arrow = BinaryType;
}

pub(crate) type Text = Bytes<Utf8>;
pub(crate) type Binary = Bytes<Opaque>;

impl<T> Bytes<T> {
    fn rows(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    #[inline]
    fn pad(&mut self, row: usize) {
        if self.offsets.len() <= row {
            let end = self.offsets.last().copied().unwrap_or(0);
            self.offsets.resize(row + 1, end);
        }
        debug_assert_eq!(self.rows(), row, "a row is written once");
    }

    #[inline]
    pub fn put(&mut self, row: usize, text: &[u8]) {
        self.put_with(row, |out| out.extend_from_slice(text));
    }

    pub fn put_opt(&mut self, row: usize, text: Option<&str>) {
        if let Some(text) = text {
            self.put(row, text.as_bytes());
        }
    }

    /// `write` appends the text of this row and touches nothing before it.
    #[inline]
    pub fn put_with(&mut self, row: usize, write: impl FnOnce(&mut Vec<u8>)) {
        self.pad(row);
        write(&mut self.bytes);
        let end = i32::try_from(self.bytes.len()).expect("a body at its ceiling expands to less than 2 GiB");
        self.offsets.push(end);
        self.valid.set(row);
    }

    /// Writes the text of row `from` once more.
    pub fn repeat(&mut self, from: usize, row: usize) {
        let (start, end) = (self.offsets[from] as usize, self.offsets[from + 1] as usize);
        self.put_with(row, |out| out.extend_from_within(start..end));
    }

    /// The bytes of a row that was written.
    pub fn get(&self, row: usize) -> &[u8] {
        &self.bytes[self.offsets[row] as usize..self.offsets[row + 1] as usize]
    }

    pub fn is_null(&self, row: usize) -> bool {
        self.valid.0.get(row / 8).is_none_or(|byte| byte >> (row % 8) & 1 == 0)
    }

    fn parts(&mut self, rows: usize) -> (OffsetBuffer<i32>, Buffer, Option<NullBuffer>) {
        let mut offsets = take(&mut self.offsets);
        let end = offsets.last().copied().unwrap_or(0);
        offsets.resize(rows + 1, end);
        let bytes = Buffer::from_vec(take(&mut self.bytes));
        (OffsetBuffer::new(ScalarBuffer::from(offsets)), bytes, self.valid.nulls(rows))
    }
}

impl<T: BytesKind> Column for Bytes<T> {
    fn truncate(&mut self, rows: usize) {
        if self.rows() > rows {
            self.bytes.truncate(self.offsets[rows] as usize);
            self.offsets.truncate(rows + 1);
            self.valid.truncate(rows);
        }
    }

    fn bytes(&self) -> usize {
        self.bytes.len() + self.offsets.len() * 4
    }

    fn seal(&mut self, rows: usize, data_type: &DataType) -> ArrayRef {
        if self.offsets.is_empty() {
            return new_null_array(data_type, rows);
        }
        let (offsets, bytes, nulls) = self.parts(rows);
        Arc::new(GenericByteArray::<T::Arrow>::new(offsets, bytes, nulls))
    }
}

/// Numbers and times.
#[derive(Debug)]
pub(crate) struct Number<T: ArrowPrimitiveType> {
    values: Vec<T::Native>,
    valid: Bits,
}

impl<T: ArrowPrimitiveType> Default for Number<T> {
    fn default() -> Self {
        Self { values: Vec::new(), valid: Bits::default() }
    }
}

impl<T: ArrowPrimitiveType> Number<T> {
    #[inline]
    pub fn put(&mut self, row: usize, value: T::Native) {
        if self.values.len() < row {
            self.values.resize(row, T::default_value());
        }
        debug_assert_eq!(self.values.len(), row, "a row is written once");
        self.values.push(value);
        self.valid.set(row);
    }

    #[inline]
    pub fn put_opt(&mut self, row: usize, value: Option<T::Native>) {
        if let Some(value) = value {
            self.put(row, value);
        }
    }
}

impl<T: ArrowPrimitiveType> Column for Number<T> {
    fn truncate(&mut self, rows: usize) {
        if self.values.len() > rows {
            self.values.truncate(rows);
            self.valid.truncate(rows);
        }
    }

    fn bytes(&self) -> usize {
        self.values.len() * size_of::<T::Native>()
    }

    fn seal(&mut self, rows: usize, data_type: &DataType) -> ArrayRef {
        if self.values.is_empty() {
            return new_null_array(data_type, rows);
        }
        let mut values = take(&mut self.values);
        values.resize(rows, T::default_value());
        let nulls = self.valid.nulls(rows);
        Arc::new(PrimitiveArray::<T>::new(ScalarBuffer::from(values), nulls).with_data_type(data_type.clone()))
    }
}

/// True, false or null.
#[derive(Debug, Default)]
pub(crate) struct Flag {
    value: Bits,
    valid: Bits,
    rows: usize,
}

impl Flag {
    #[inline]
    pub fn put(&mut self, row: usize, value: bool) {
        if value {
            self.value.set(row);
        }
        self.valid.set(row);
        self.rows = row + 1;
    }

    #[inline]
    pub fn put_opt(&mut self, row: usize, value: Option<bool>) {
        if let Some(value) = value {
            self.put(row, value);
        }
    }
}

impl Column for Flag {
    fn truncate(&mut self, rows: usize) {
        if self.rows > rows {
            self.value.truncate(rows);
            self.valid.truncate(rows);
            self.rows = rows;
        }
    }

    fn bytes(&self) -> usize {
        self.value.0.len() + self.valid.0.len()
    }

    fn seal(&mut self, rows: usize, data_type: &DataType) -> ArrayRef {
        if std::mem::take(&mut self.rows) == 0 {
            return new_null_array(data_type, rows);
        }
        let nulls = self.valid.nulls(rows);
        Arc::new(BooleanArray::new(self.value.seal(rows), nulls))
    }
}

/// Ends of lists within a child column, one entry a row.
#[derive(Debug, Default)]
struct Lists {
    offsets: Vec<i32>,
    valid: Bits,
}

impl Lists {
    fn rows(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    fn end(&self) -> usize {
        self.offsets.last().copied().unwrap_or(0) as usize
    }

    fn put(&mut self, row: usize, items: usize) {
        let end = self.end() as i32;
        if self.offsets.len() <= row {
            self.offsets.resize(row + 1, end);
        }
        debug_assert_eq!(self.rows(), row, "a row is written once");
        self.offsets.push(end + items as i32);
        self.valid.set(row);
    }

    fn truncate(&mut self, rows: usize) {
        if self.rows() > rows {
            self.offsets.truncate(rows + 1);
            self.valid.truncate(rows);
        }
    }

    fn seal(&mut self, rows: usize) -> (OffsetBuffer<i32>, Option<NullBuffer>) {
        let end = self.end() as i32;
        let mut offsets = take(&mut self.offsets);
        offsets.resize(rows + 1, end);
        (OffsetBuffer::new(ScalarBuffer::from(offsets)), self.valid.nulls(rows))
    }
}

/// Lists of text.
#[derive(Debug, Default)]
pub(crate) struct TextList {
    lists: Lists,
    items: Text,
}

impl TextList {
    /// `write` puts each item; it gets the item column and the number of the next item.
    pub fn put_with(&mut self, row: usize, write: impl FnOnce(&mut Text, usize) -> usize) {
        let start = self.lists.end();
        let items = write(&mut self.items, start);
        self.lists.put(row, items);
    }
}

impl TextList {
    /// Writes the list of row `from` once more.
    pub fn repeat(&mut self, from: usize, row: usize) {
        let (start, end) = (self.lists.offsets[from] as usize, self.lists.offsets[from + 1] as usize);
        for item in start..end {
            let next = self.items.rows();
            self.items.repeat(item, next);
        }
        self.lists.put(row, end - start);
    }
}

impl Column for TextList {
    fn truncate(&mut self, rows: usize) {
        self.lists.truncate(rows);
        self.items.truncate(self.lists.end());
    }

    fn bytes(&self) -> usize {
        self.items.bytes() + self.lists.offsets.len() * 4
    }

    fn seal(&mut self, rows: usize, data_type: &DataType) -> ArrayRef {
        let (false, DataType::List(field)) = (self.lists.offsets.is_empty(), data_type) else {
            return new_null_array(data_type, rows);
        };
        let items = self.items.seal(self.lists.end(), field.data_type());
        let (offsets, nulls) = self.lists.seal(rows);
        Arc::new(ListArray::new(field.clone(), offsets, items, nulls))
    }
}

/// Maps from text to text.
#[derive(Debug, Default)]
pub(crate) struct TextMap {
    lists: Lists,
    keys: Text,
    values: Text,
}

impl TextMap {
    /// `entries`: sorted by key.
    pub fn put<'a>(&mut self, row: usize, entries: impl Iterator<Item = (&'a [u8], &'a [u8])>) {
        let start = self.lists.end();
        let mut count = 0;
        for (key, value) in entries {
            self.keys.put(start + count, key);
            self.values.put(start + count, value);
            count += 1;
        }
        self.lists.put(row, count);
    }
}

impl TextMap {
    /// Keys of a row that was written.
    pub fn keys_of(&self, row: usize) -> impl Iterator<Item = &[u8]> {
        (self.lists.offsets[row]..self.lists.offsets[row + 1]).map(|entry| self.keys.get(entry as usize))
    }
}

impl Column for TextMap {
    fn truncate(&mut self, rows: usize) {
        self.lists.truncate(rows);
        self.keys.truncate(self.lists.end());
        self.values.truncate(self.lists.end());
    }

    fn bytes(&self) -> usize {
        self.keys.bytes() + self.values.bytes() + self.lists.offsets.len() * 4
    }

    fn seal(&mut self, rows: usize, data_type: &DataType) -> ArrayRef {
        let (false, DataType::Map(field, sorted)) = (self.lists.offsets.is_empty(), data_type) else {
            return new_null_array(data_type, rows);
        };
        let DataType::Struct(fields) = field.data_type() else {
            return new_null_array(data_type, rows);
        };
        let entries = self.lists.end();
        let text = |column: &mut Text, field: &Field| -> ArrayRef {
            // A required child may hold no row at all.
            if entries == 0 { Arc::new(StringArray::new_null(0)) } else { column.seal(entries, field.data_type()) }
        };
        let children = vec![text(&mut self.keys, &fields[0]), text(&mut self.values, &fields[1])];
        let entries = StructArray::new(fields.clone(), children, None);
        let (offsets, nulls) = self.lists.seal(rows);
        Arc::new(MapArray::new(field.clone(), offsets, entries, nulls, *sorted))
    }
}

#[cfg(test)]
mod tests;
