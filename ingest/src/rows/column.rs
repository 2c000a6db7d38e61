//! Arrow columns that grow row by row and can be cut back.
//!
//! Arrow's own builders want every column appended for every row and cannot forget a row. Most of the columns of an
//! event are null, and a refused event must leave no trace; so a column here is told the row number with each value,
//! fills what was skipped with nulls by itself, costs nothing while it is untouched, and [`Column::truncate`]s.
//! It is written into a record as it stands and keeps its memory for the next batch.

use eventlog::frame::{SectionWriter, Valid};

/// What all columns can do.
pub(crate) trait Column {
    /// Forgets every row from number `rows` on.
    fn truncate(&mut self, rows: usize);
    /// Bytes held.
    fn bytes(&self) -> usize;
    /// Writes the rows as the next column of a section; rows behind the last one put are null.
    fn write(&self, out: &mut SectionWriter<'_>);
    /// Forgets all rows, keeping memory for the next batch.
    fn clear(&mut self);
}

/// Empties `values` and keeps its memory, unless a large payload made it grow far beyond what batches need.
fn clear<T>(values: &mut Vec<T>) {
    const KEPT_BYTES_MAX: usize = 256 << 10;
    values.clear();
    if values.capacity() * size_of::<T>() > KEPT_BYTES_MAX {
        *values = Vec::new();
    }
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

    fn valid(&self) -> Valid<'_> {
        Valid::Bits(&self.0)
    }
}

/// Text or bytes.
#[derive(Debug, Default)]
pub(crate) struct Text {
    /// Start of each row and end of the last; empty while no row was written.
    offsets: Vec<i32>,
    bytes: Vec<u8>,
    valid: Bits,
}

impl Text {
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

    /// Writes the texts of rows that were written once more, behind the last row.
    fn repeat(&mut self, rows: std::ops::Range<usize>) {
        let (start, end) = (self.offsets[rows.start] as usize, self.offsets[rows.end] as usize);
        let (first, shift) = (self.rows(), (self.bytes.len() - start) as i32);
        self.bytes.extend_from_within(start..end);
        i32::try_from(self.bytes.len()).expect("a body at its ceiling expands to less than 2 GiB");
        self.offsets.extend_from_within(rows.start + 1..rows.end + 1);
        for (number, offset) in self.offsets[first + 1..].iter_mut().enumerate() {
            *offset += shift;
            self.valid.set(first + number);
        }
    }

    /// The bytes of a row that was written.
    pub fn get(&self, row: usize) -> &[u8] {
        &self.bytes[self.offsets[row] as usize..self.offsets[row + 1] as usize]
    }

    pub fn is_null(&self, row: usize) -> bool {
        self.valid.0.get(row / 8).is_none_or(|byte| byte >> (row % 8) & 1 == 0)
    }

    fn parts(&self) -> (&[i32], &[u8], Valid<'_>) {
        (&self.offsets, &self.bytes, self.valid.valid())
    }
}

impl Column for Text {
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

    fn write(&self, out: &mut SectionWriter<'_>) {
        out.text(&self.offsets, &self.bytes, self.valid.valid());
    }

    fn clear(&mut self) {
        clear(&mut self.offsets);
        clear(&mut self.bytes);
        clear(&mut self.valid.0);
    }
}

/// Numbers and times.
#[derive(Debug, Default)]
pub(crate) struct Number<T> {
    values: Vec<T>,
    valid: Bits,
}

/// How numbers are written.
pub(crate) trait Numeric: Copy + Default {
    fn write(values: &[Self], valid: Valid<'_>, out: &mut SectionWriter<'_>);
}

macro_rules! whole_numbers {
    ($($type:ty),+) => {
        $(impl Numeric for $type {
            fn write(values: &[Self], valid: Valid<'_>, out: &mut SectionWriter<'_>) {
                out.integers(values, valid);
            }
        })+
    };
}

whole_numbers!(u8, u32, i32, i64);

impl Numeric for f64 {
    fn write(values: &[Self], valid: Valid<'_>, out: &mut SectionWriter<'_>) {
        out.floats(values, valid);
    }
}

impl<T: Numeric> Number<T> {
    #[inline]
    pub fn put(&mut self, row: usize, value: T) {
        if self.values.len() < row {
            self.values.resize(row, T::default());
        }
        debug_assert_eq!(self.values.len(), row, "a row is written once");
        self.values.push(value);
        self.valid.set(row);
    }

    #[inline]
    pub fn put_opt(&mut self, row: usize, value: Option<T>) {
        if let Some(value) = value {
            self.put(row, value);
        }
    }

    /// Values of the rows, up to the last that was put; 0 stands for null.
    pub fn values(&self) -> &[T] {
        &self.values
    }
}

impl<T: Numeric> Column for Number<T> {
    fn truncate(&mut self, rows: usize) {
        if self.values.len() > rows {
            self.values.truncate(rows);
            self.valid.truncate(rows);
        }
    }

    fn bytes(&self) -> usize {
        self.values.len() * size_of::<T>()
    }

    fn write(&self, out: &mut SectionWriter<'_>) {
        T::write(&self.values, self.valid.valid(), out);
    }

    fn clear(&mut self) {
        clear(&mut self.values);
        clear(&mut self.valid.0);
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

    fn write(&self, out: &mut SectionWriter<'_>) {
        if self.rows == 0 {
            out.absent();
        } else {
            out.flags(&self.value.0, self.valid.valid());
        }
    }

    fn clear(&mut self) {
        self.rows = 0;
        clear(&mut self.value.0);
        clear(&mut self.valid.0);
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

    fn clear(&mut self) {
        clear(&mut self.offsets);
        clear(&mut self.valid.0);
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
        if start < end {
            self.items.repeat(start..end);
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

    fn write(&self, out: &mut SectionWriter<'_>) {
        out.lists(&self.lists.offsets, self.lists.valid.valid(), &[self.items.parts()]);
    }

    fn clear(&mut self) {
        self.lists.clear();
        self.items.clear();
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

    fn write(&self, out: &mut SectionWriter<'_>) {
        out.lists(&self.lists.offsets, self.lists.valid.valid(), &[self.keys.parts(), self.values.parts()]);
    }

    fn clear(&mut self) {
        self.lists.clear();
        self.keys.clear();
        self.values.clear();
    }
}

#[cfg(test)]
mod tests;
