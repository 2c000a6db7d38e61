//! Writes records of version 2, column by column, straight from the buffers that hold the rows.
//!
//! In: slices as Arrow lays them out (offsets, bytes, bits), from open columns of `ingest` or from arrays
//! ([`super::arrays`]). Out: the bytes of one record. No array is built and nothing is allocated for a column: the
//! record is made in memory that the thread keeps.
//! What Arrow holds in four or eight bytes a row mostly needs one or none: offsets are written as lengths, and numbers as
//! what they exceed the smallest by. That is a third less to compress, and rows that repeat then repeat as bytes, which
//! the offsets of version 1 never did.

use std::cell::RefCell;

use bytes::Bytes;
use events::{Topic, limits};

use super::{CODEC_NONE, CODEC_ZSTD, HEADER_BYTES, MAGIC, Section, VERSION, checksum, elsewhere};
use crate::{Error, Result};

/// Level 1 costs a third of level 3 and gives up a twentieth of the size on recorded bodies.
pub const ZSTD_LEVEL: i32 = 1;
/// Below this the zstd frame costs more than it saves.
const COMPRESS_BYTES_MIN: usize = 256;
/// Memory of a thread beyond this is given back after the record.
const KEPT_BYTES_MAX: usize = 4 << 20;

pub(super) const ALL_VALID: u8 = 0;
pub(super) const SOME_NULL: u8 = 1;
/// Length of a payload id in the index that is a UUID as 16 bytes.
pub(super) const UUID_ID: u8 = u8::MAX;
const _: () = assert!(limits::PAYLOAD_ID_BYTES_MAX < UUID_ID as usize);

/// Which rows of a column hold a value.
#[derive(Clone, Copy, Debug)]
pub enum Valid<'a> {
    All,
    /// A bit a row, least significant first; rows beyond the bits hold none.
    Bits(&'a [u8]),
}

impl Valid<'_> {
    #[inline]
    fn holds(self, row: usize) -> bool {
        match self {
            Self::All => true,
            Self::Bits(bits) => bits.get(row / 8).is_some_and(|byte| byte >> (row % 8) & 1 == 1),
        }
    }
}

#[derive(Debug, Default)]
struct Scratch {
    index: Vec<u8>,
    body: Vec<u8>,
    packed: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
    static COMPRESSOR: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
}

/// One record on its way: first the payloads and kinds of its index, then its sections in their order.
#[derive(Debug)]
pub struct RecordWriter {
    topic: Topic,
    payloads: usize,
    /// Rows of the section written last, which is the main one.
    rows: usize,
    kinds_written: bool,
    scratch: Scratch,
}

impl RecordWriter {
    pub fn new(topic: Topic) -> Self {
        let mut scratch = SCRATCH.take();
        scratch.index.clear();
        scratch.body.clear();
        Self { topic, payloads: 0, rows: 0, kinds_written: false, scratch }
    }

    /// Adds a payload with `rows` rows of the main batch.
    pub fn payload(&mut self, environment_hash: u64, rows: u32, payload_id: Option<&[u8]>) {
        assert!(!self.kinds_written, "payloads come before kinds");
        self.payloads += 1;
        let index = &mut self.scratch.index;
        index.extend_from_slice(&environment_hash.to_le_bytes());
        index.extend_from_slice(&rows.to_le_bytes());
        let id = payload_id.unwrap_or_default();
        if let Some(uuid) = parse_uuid(id) {
            index.push(UUID_ID);
            index.extend_from_slice(&uuid);
        } else {
            assert!(id.len() <= limits::PAYLOAD_ID_BYTES_MAX, "a payload id of {} bytes got past ingest", id.len());
            index.push(id.len() as u8);
            index.extend_from_slice(id);
        }
    }

    /// Ends the index. `kinds`: the code of each event, in any order.
    pub fn kinds(&mut self, kinds: &[u8]) {
        assert!(!std::mem::replace(&mut self.kinds_written, true), "kinds are written once");
        let mut counts = [0_u32; 256];
        for kind in kinds {
            counts[*kind as usize] += 1;
        }
        let index = &mut self.scratch.index;
        index.push(counts.iter().filter(|count| **count > 0).count() as u8);
        for (kind, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            index.push(kind as u8);
            index.extend_from_slice(&count.to_le_bytes());
        }
    }

    /// Begins a section. The caller writes every column of its schema, in order.
    pub fn section(&mut self, section: Section, rows: usize) -> SectionWriter<'_> {
        assert!(self.kinds_written, "the index comes first");
        self.rows = rows;
        let body = &mut self.scratch.body;
        let columns = section.schema().fields().len();
        body.extend_from_slice(&[section as u8, super::SECTION_VERSION]);
        body.extend_from_slice(&(columns as u16).to_le_bytes());
        body.extend_from_slice(&(rows as u32).to_le_bytes());
        let bits_at = body.len();
        body.resize(bits_at + columns.div_ceil(8), 0);
        SectionWriter { body, rows, bits_at, columns, column: 0, elsewhere: elsewhere(section) }
    }

    /// The bytes of the record.
    ///
    /// # Errors
    /// `RecordTooLarge` (kind `Reject`) above `limits::RECORD_BYTES_MAX`.
    pub fn finish(mut self) -> Result<Bytes> {
        let Scratch { index, body, packed } = &mut self.scratch;
        if body.len() > limits::RECORD_BYTES_MAX {
            return Err(Error::RecordTooLarge { bytes: body.len() as u64, max_bytes: limits::RECORD_BYTES_MAX as u64 });
        }
        let codec = compress(body, packed)?;
        let stored = if codec == CODEC_NONE { &*body } else { &*packed };
        let mut out = Vec::with_capacity(HEADER_BYTES + index.len() + stored.len());
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[self.topic as u8, codec]);
        for number in [self.rows, self.payloads, index.len(), stored.len(), body.len()] {
            out.extend_from_slice(&(number as u32).to_le_bytes());
        }
        let checksum = checksum(&out, index, stored);
        out.extend_from_slice(&checksum.to_le_bytes());
        out.extend_from_slice(index);
        out.extend_from_slice(stored);
        Ok(out.into())
    }
}

impl Drop for RecordWriter {
    fn drop(&mut self) {
        let mut scratch = std::mem::take(&mut self.scratch);
        for memory in [&mut scratch.index, &mut scratch.body, &mut scratch.packed] {
            if memory.capacity() > KEPT_BYTES_MAX {
                *memory = Vec::new();
            }
        }
        SCRATCH.set(scratch);
    }
}

/// Columns of one section.
#[derive(Debug)]
pub struct SectionWriter<'a> {
    body: &'a mut Vec<u8>,
    rows: usize,
    /// Where the bits of the columns that are present stand.
    bits_at: usize,
    columns: usize,
    /// Number of the next column.
    column: usize,
    elsewhere: u64,
}

impl SectionWriter<'_> {
    /// A column that is null in every row.
    pub fn absent(&mut self) {
        self.begin(0);
    }

    /// Whole numbers and times. `values` may end early: the rows behind it are null.
    pub fn integers<T: Copy + Into<i64>>(&mut self, values: &[T], valid: Valid<'_>) {
        if !self.begin(values.len()) {
            return;
        }
        if self.validity(valid) {
            debug_assert_eq!(values.len(), self.rows, "a row without null has a value");
            let (low, high) = range(values.iter().map(|value| (*value).into()));
            pack(self.body, self.rows, low, high, values.iter().map(|value| (*value).into()));
        } else {
            let held = values.iter().enumerate().filter(|(row, _)| valid.holds(*row));
            let (low, high) = range(held.map(|(_, value)| (*value).into()));
            let value_or_low = |(row, value): (usize, &T)| if valid.holds(row) { (*value).into() } else { low };
            pack(self.body, self.rows, low, high, values.iter().enumerate().map(value_or_low));
        }
    }

    pub fn floats(&mut self, values: &[f64], valid: Valid<'_>) {
        if self.begin(values.len()) {
            self.validity(valid);
            let end = self.body.len() + self.rows * size_of::<f64>();
            self.body.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            self.body.resize(end, 0);
        }
    }

    /// Booleans, a bit a row.
    pub fn flags(&mut self, bits: &[u8], valid: Valid<'_>) {
        if self.begin(self.rows) {
            self.validity(valid);
            push_bits(self.body, bits, self.rows);
        }
    }

    /// Text or bytes. `offsets`: as in Arrow; may end early, and the rows behind it are null.
    pub fn text(&mut self, offsets: &[i32], bytes: &[u8], valid: Valid<'_>) {
        if self.begin(offsets.len().saturating_sub(1)) {
            self.validity(valid);
            self.lengths(offsets);
            self.body.extend_from_slice(ranged(offsets, bytes));
        }
    }

    /// Lists of text, or maps from text to text: `offsets` into `children`, each a column of text.
    pub fn lists(&mut self, offsets: &[i32], valid: Valid<'_>, children: &[(&[i32], &[u8], Valid<'_>)]) {
        if !self.begin(offsets.len().saturating_sub(1)) {
            return;
        }
        self.validity(valid);
        self.lengths(offsets);
        let rows = std::mem::replace(&mut self.rows, span(offsets));
        for (offsets, bytes, valid) in children {
            self.validity(*valid);
            self.lengths(offsets);
            self.body.extend_from_slice(ranged(offsets, bytes));
        }
        self.rows = rows;
    }

    /// Whether the column is to be written; `rows` of it are known, the rest is null.
    fn begin(&mut self, rows: usize) -> bool {
        assert!(self.column < self.columns && rows <= self.rows, "the section has fewer columns or rows");
        let column = self.column;
        self.column += 1;
        let is_present = rows > 0 && self.elsewhere >> column & 1 == 0;
        if is_present {
            self.body[self.bits_at + column / 8] |= 1 << (column % 8);
        }
        is_present
    }

    /// Returns whether no row is null.
    fn validity(&mut self, valid: Valid<'_>) -> bool {
        let Valid::Bits(bits) = valid else {
            self.body.push(ALL_VALID);
            return true;
        };
        let at = self.body.len();
        self.body.push(SOME_NULL);
        push_bits(self.body, bits, self.rows);
        let held: usize = self.body[at + 1..].iter().map(|byte| byte.count_ones() as usize).sum();
        let all = held == self.rows;
        if all {
            self.body.truncate(at);
            self.body.push(ALL_VALID);
        }
        all
    }

    fn lengths(&mut self, offsets: &[i32]) {
        let starts = &offsets[..offsets.len().saturating_sub(1)];
        let lengths = || offsets.iter().skip(1).zip(starts).map(|(end, start)| end - start);
        let (mut low, mut high) =
            lengths().fold((i32::MAX, 0), |(low, high), length| (low.min(length), high.max(length)));
        if starts.len() < self.rows || low > high {
            low = 0;
        }
        high = high.max(low);
        let body = begin_pack(self.body, self.rows, i64::from(low), i64::from(high));
        let above = lengths().map(|length| length - low);
        match body.len() / self.rows.max(1) {
            0 => {}
            1 => body.iter_mut().zip(above).for_each(|(place, number)| *place = number as u8),
            2 => put::<2>(body, above.map(|number| number as u64)),
            _ => put::<4>(body, above.map(|number| number as u64)),
        }
    }
}

impl Drop for SectionWriter<'_> {
    fn drop(&mut self) {
        debug_assert!(std::thread::panicking() || self.column == self.columns, "every column is written");
    }
}

fn span(offsets: &[i32]) -> usize {
    ends(offsets).map_or(0, |(first, last)| (last - first) as usize)
}

fn ends(offsets: &[i32]) -> Option<(i32, i32)> {
    Some((*offsets.first()?, *offsets.last()?))
}

fn ranged<'a>(offsets: &[i32], bytes: &'a [u8]) -> &'a [u8] {
    ends(offsets).map_or(&[], |(first, last)| &bytes[first as usize..last as usize])
}

/// Appends `rows` bits; what is missing is 0.
fn push_bits(body: &mut Vec<u8>, bits: &[u8], rows: usize) {
    let (start, bytes) = (body.len(), rows.div_ceil(8));
    body.extend_from_slice(&bits[..bits.len().min(bytes)]);
    body.resize(start + bytes, 0);
    if !rows.is_multiple_of(8)
        && let Some(last) = body.last_mut()
    {
        *last &= (1 << (rows % 8)) - 1;
    }
}

fn range(values: impl Iterator<Item = i64>) -> (i64, i64) {
    let (low, high) = values.fold((i64::MAX, i64::MIN), |(low, high), value| (low.min(value), high.max(value)));
    if low > high { (0, 0) } else { (low, high) }
}

/// Appends numbers as what they exceed `low` by. Rows without a number get 0.
fn pack(body: &mut Vec<u8>, rows: usize, low: i64, high: i64, values: impl Iterator<Item = i64>) {
    let places = begin_pack(body, rows, low, high);
    let above = values.map(|value| value.wrapping_sub(low) as u64);
    match places.len() / rows.max(1) {
        0 => {}
        1 => places.iter_mut().zip(above).for_each(|(place, number)| *place = number as u8),
        2 => put::<2>(places, above),
        4 => put::<4>(places, above),
        _ => put::<8>(places, above),
    }
}

/// Appends how numbers from `low` to `high` are written, in as few bytes each as that needs, and zeros for them.
fn begin_pack(body: &mut Vec<u8>, rows: usize, low: i64, high: i64) -> &mut [u8] {
    // The difference may not fit an i64, but as an u64 it is right.
    let width = match high.wrapping_sub(low) as u64 {
        0 => 0,
        1..=0xff => 1,
        0x100..=0xffff => 2,
        0x1_0000..=0xffff_ffff => 4,
        _ => 8,
    };
    body.push(width);
    push_varint(body, (low << 1 ^ low >> 63) as u64);
    let start = body.len();
    body.resize(start + rows * width as usize, 0);
    &mut body[start..]
}

fn put<const N: usize>(places: &mut [u8], numbers: impl Iterator<Item = u64>) {
    for (place, number) in places.chunks_exact_mut(N).zip(numbers) {
        place.copy_from_slice(&number.to_le_bytes()[..N]);
    }
}

fn push_varint(body: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        body.push(number as u8 | 0x80);
        number >>= 7;
    }
    body.push(number as u8);
}

/// The bytes of a UUID in its usual spelling, which they give back exactly.
fn parse_uuid(text: &[u8]) -> Option<[u8; 16]> {
    if text.len() != 36 || [8, 13, 18, 23].iter().any(|at| text[*at] != b'-') {
        return None;
    }
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut out = [0; 16];
    let mut at = 0;
    for byte in &mut out {
        at += usize::from(text[at] == b'-');
        *byte = digit(text[at])? << 4 | digit(text[at + 1])?;
        at += 2;
    }
    Some(out)
}

/// Compresses `body` into `packed`, if that is worth it. Returns the codec.
fn compress(body: &[u8], packed: &mut Vec<u8>) -> Result<u8> {
    if body.len() < COMPRESS_BYTES_MIN {
        return Ok(CODEC_NONE);
    }
    let failed = |error: std::io::Error| Error::Frame(format!("compressing {} bytes failed: {error}", body.len()));
    packed.clear();
    packed.reserve(zstd::zstd_safe::compress_bound(body.len()));
    let bytes = COMPRESSOR.with_borrow_mut(|slot| {
        let compressor = match slot {
            Some(compressor) => compressor,
            None => slot.insert(zstd::bulk::Compressor::new(ZSTD_LEVEL)?),
        };
        compressor.compress_to_buffer(body, packed)
    });
    Ok(if bytes.map_err(failed)? < body.len() { CODEC_ZSTD } else { CODEC_NONE })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_usual_spelling_of_a_uuid_is_one() {
        let usual = "97f05140-2a4f-42bd-a4f2-fa1ce91e2bf2";
        assert_eq!(parse_uuid(usual.as_bytes()).map(|bytes| bytes[15]), Some(0xf2));
        for text in [&usual.to_uppercase(), &usual.replace('-', ""), &usual.replace("-2a4f", "2-a4f"), "", "-"] {
            assert_eq!(parse_uuid(text.as_bytes()), None, "{text}");
        }
        let dashes = "-".repeat(36);
        assert_eq!(parse_uuid(dashes.as_bytes()), None);
    }
}
