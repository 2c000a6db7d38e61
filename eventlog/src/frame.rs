//! Bytes of one record: a micro-batch as a fixed header, a plain index and a compressed body of columns.
//!
//! All integers are little-endian. Version 2:
//!
//! | field | bytes | meaning |
//! |---|---|---|
//! | magic | 4 | `TGFR` |
//! | version | 2 | 2 |
//! | topic | 1 | 0 `events`, 1 `contexts`, 2 `dead_letters` |
//! | codec | 1 | 0 none, 1 zstd |
//! | rows | 4 | rows of the main batch |
//! | payloads | 4 | entries of the index |
//! | index_bytes | 4 | length of the index |
//! | body_bytes | 4 | length of the body as stored |
//! | body_raw_bytes | 4 | length of the body before compression |
//! | checksum | 4 | CRC-32C of the 28 bytes before it, the index and the body |
//! | index | index_bytes | per payload: environment hash (8), rows (4), length of the payload id (1; 0 none, 255 a UUID as 16 bytes), the id; then number of kinds (1) and per kind its code (1) and rows (4) |
//! | body | body_bytes | sections, one after the other |
//!
//! | section field | bytes | meaning |
//! |---|---|---|
//! | schema | 1 | 1 payloads, 2 contexts, 3 events, 4 sightings, 5 dead letters |
//! | schema version | 1 | 1 |
//! | columns | 2 | number of columns of the schema when written |
//! | rows | 4 | |
//! | present | (columns + 7) / 8 | bit per column; a column that is null in every row is left out, and of payloads `payload_id` and `rows`, which the index holds |
//! | columns | | those present, in order |
//!
//! A column is its validity (1 byte: 0 no row is null, 1 a bit per row follows) and, by its type:
//!
//! | type | bytes |
//! |---|---|
//! | whole numbers, times | *numbers* |
//! | floats | 8 each |
//! | booleans | a bit per row |
//! | text, binary | lengths as *numbers*, then the bytes of all rows |
//! | list of text | lengths as *numbers*, then the items as a column of text with its own validity |
//! | map of text | lengths as *numbers*, then keys and values, each a column of text with its own validity |
//!
//! *numbers*: bytes per row (1: 0, 1, 2, 4 or 8), the smallest number (zigzag varint), and by what each row exceeds it.
//!
//! The index is not compressed, so that the de-duplication window can be rebuilt from headers ([`peek`]).
//! Readers accept every version ever written; golden files in `frame/` hold them to it. Version 1 had other sections
//! ([`v1`]) and no UUIDs in its index.
//!
//! Version 1 held messages of Arrow IPC. Offsets never repeat, so they were most of what was compressed and of what was
//! left, and building arrays first cost most of the allocations of an ingest. `bench ingest` (the same recorded body with
//! other payload ids, 64 connections), log bytes a request: one summary of 2.4 kB 474 -> 67, the Python flush of 14.8 kB
//! 1027 -> 244, with other context keys in each 1513 -> 503.

use std::cell::RefCell;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use events::batch::column;
use events::{DeadLettersBatch, EventsBatch, LogBatch, SightingsBatch, Topic, limits, schema};

use crate::{Error, Result};

mod write;

mod arrays;
mod read;
mod v1;

pub use write::{RecordWriter, SectionWriter, Valid, ZSTD_LEVEL};

const MAGIC: [u8; 4] = *b"TGFR";
const VERSION: u16 = 2;
const HEADER_BYTES: usize = 32;
const CODEC_NONE: u8 = 0;
const CODEC_ZSTD: u8 = 1;
const SECTION_VERSION: u8 = 1;

/// What the index of a frame says, without its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameIndex {
    pub topic: Topic,
    /// Rows of the main batch.
    pub rows: u32,
    /// Payloads in the order of their rows; empty for sightings.
    pub payloads: Vec<PayloadIndex>,
    /// (code of the kind, rows); empty but for events.
    pub kinds: Vec<(u8, u32)>,
}

/// One payload of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PayloadIndex {
    /// `Environment::hash`.
    pub environment_hash: u64,
    pub rows: u32,
    pub payload_id: Option<Box<str>>,
}

/// Encodes one micro-batch that is made of arrays.
///
/// # Errors
/// `RecordTooLarge` (kind `Reject`) above `limits::RECORD_BYTES_MAX`.
pub fn encode(batch: &LogBatch) -> Result<Bytes> {
    arrays::encode(batch)
}

thread_local! {
    /// Making one costs as much as reading a record of one payload.
    static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

fn unpack(packed: &[u8], bytes_max: usize) -> std::io::Result<Vec<u8>> {
    DECOMPRESSOR.with_borrow_mut(|slot| {
        let decompressor = match slot {
            Some(decompressor) => decompressor,
            None => slot.insert(zstd::bulk::Decompressor::new()?),
        };
        decompressor.decompress(packed, bytes_max)
    })
}

/// Decodes one record.
///
/// # Errors
/// Kind `Corrupt`: wrong magic or checksum, a newer version, or content that the schemas refuse.
pub fn decode(frame: &Bytes) -> Result<LogBatch> {
    let header = Header::read(frame)?;
    let body = match header.codec {
        CODEC_NONE => frame.slice(header.body()).to_vec(),
        CODEC_ZSTD => unpack(&frame[header.body()], header.body_raw_bytes)
            .map_err(|error| Error::Frame(format!("body of {} bytes does not unpack: {error}", header.body_bytes)))?,
        codec => return Err(Error::Frame(format!("codec {codec} is unknown"))),
    };
    if body.len() != header.body_raw_bytes {
        return Err(Error::Frame(format!("body unpacks to {} bytes, not {}", body.len(), header.body_raw_bytes)));
    }
    let batch = if header.version == 1 {
        let mut sections = v1::Sections::new(body);
        batch_of(header.topic, |section| sections.next(section))?
    } else {
        let index = header.index(frame)?;
        let mut sections = read::Sections::new(body, &index.payloads);
        batch_of(header.topic, |section| sections.next(section))?
    };
    if batch.rows() != header.rows as usize {
        return Err(Error::Frame(format!("header says {} rows, the body holds {}", header.rows, batch.rows())));
    }
    Ok(batch)
}

fn batch_of(topic: Topic, mut next: impl FnMut(Section) -> Result<RecordBatch>) -> Result<LogBatch> {
    Ok(match topic {
        Topic::Events => LogBatch::Events(EventsBatch::new(
            next(Section::Payloads)?,
            next(Section::Contexts)?,
            next(Section::Events)?,
        )?),
        Topic::Contexts => LogBatch::Sightings(SightingsBatch::new(next(Section::Sightings)?)?),
        Topic::DeadLetters => {
            LogBatch::DeadLetters(DeadLettersBatch::new(next(Section::Payloads)?, next(Section::DeadLetters)?)?)
        }
    })
}

/// Reads the index of a record without unpacking its body.
///
/// # Errors
/// As [`decode`].
pub fn peek(frame: &Bytes) -> Result<FrameIndex> {
    Header::read(frame)?.index(frame)
}

struct Header {
    version: u16,
    topic: Topic,
    codec: u8,
    rows: u32,
    payloads: u32,
    index_bytes: usize,
    body_bytes: usize,
    body_raw_bytes: usize,
}

impl Header {
    fn read(frame: &[u8]) -> Result<Self> {
        if frame.len() < HEADER_BYTES || frame[..4] != MAGIC {
            return Err(Error::Frame(format!("{} bytes that do not begin with the magic", frame.len())));
        }
        let version = u16::from_le_bytes([frame[4], frame[5]]);
        if version == 0 || version > VERSION {
            return Err(Error::Frame(format!("version {version}, this program reads up to {VERSION}")));
        }
        let topic = Topic::from_code(frame[6]).ok_or_else(|| Error::Frame(format!("topic {} is unknown", frame[6])))?;
        let header = Self {
            version,
            topic,
            codec: frame[7],
            rows: u32_at(frame, 8),
            payloads: u32_at(frame, 12),
            index_bytes: u32_at(frame, 16) as usize,
            body_bytes: u32_at(frame, 20) as usize,
            body_raw_bytes: u32_at(frame, 24) as usize,
        };
        let expected = HEADER_BYTES as u64 + header.index_bytes as u64 + header.body_bytes as u64;
        if frame.len() as u64 != expected || header.body_raw_bytes > limits::RECORD_BYTES_MAX {
            return Err(Error::Frame(format!("{} bytes, the header says {expected}", frame.len())));
        }
        let (index, body) = frame[HEADER_BYTES..].split_at(header.index_bytes);
        let (stored, computed) = (u32_at(frame, 28), checksum(&frame[..28], index, body));
        if stored != computed {
            return Err(Error::Frame(format!("checksum {computed:08x}, stored {stored:08x}")));
        }
        Ok(header)
    }

    fn index(&self, frame: &[u8]) -> Result<FrameIndex> {
        let mut rest = &frame[HEADER_BYTES..HEADER_BYTES + self.index_bytes];
        let short = || Error::Frame("the index ends early".into());
        let mut payloads = Vec::with_capacity(self.payloads.min(1 << 16) as usize);
        for _ in 0..self.payloads {
            let (fixed, after) = rest.split_at_checked(13).ok_or_else(short)?;
            let is_uuid = self.version > 1 && fixed[12] == write::UUID_ID;
            let bytes = if is_uuid { 16 } else { fixed[12] as usize };
            let (id, after) = after.split_at_checked(bytes).ok_or_else(short)?;
            rest = after;
            payloads.push(PayloadIndex {
                environment_hash: u64::from_le_bytes(fixed[..8].try_into().expect("8 bytes")),
                rows: u32_at(fixed, 8),
                payload_id: if is_uuid { Some(uuid_text(id)) } else { text_id(id)? },
            });
        }
        let (count, mut rest) = rest.split_first().ok_or_else(short)?;
        let mut kinds = Vec::with_capacity(*count as usize);
        for _ in 0..*count {
            let (entry, after) = rest.split_at_checked(5).ok_or_else(short)?;
            kinds.push((entry[0], u32_at(entry, 1)));
            rest = after;
        }
        Ok(FrameIndex { topic: self.topic, rows: self.rows, payloads, kinds })
    }

    fn body(&self) -> std::ops::Range<usize> {
        let start = HEADER_BYTES + self.index_bytes;
        start..start + self.body_bytes
    }
}

fn text_id(id: &[u8]) -> Result<Option<Box<str>>> {
    let id = std::str::from_utf8(id).map_err(|_| Error::Frame("a payload id is not UTF-8".into()))?;
    Ok((!id.is_empty()).then(|| id.into()))
}

fn uuid_text(bytes: &[u8]) -> Box<str> {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(36);
    for (number, byte) in bytes.iter().enumerate() {
        if matches!(number, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push(char::from(HEX[usize::from(byte >> 4)]));
        text.push(char::from(HEX[usize::from(byte & 15)]));
    }
    text.into()
}

fn checksum(header: &[u8], index: &[u8], body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(header), index), body)
}

fn u32_at(bytes: &[u8], position: usize) -> u32 {
    u32::from_le_bytes(bytes[position..position + 4].try_into().expect("four bytes"))
}

/// Which batch a section holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Section {
    Payloads = 1,
    Contexts = 2,
    Events = 3,
    Sightings = 4,
    DeadLetters = 5,
}

impl Section {
    fn schema(self) -> SchemaRef {
        match self {
            Self::Payloads => schema::payloads_v1(),
            Self::Contexts => schema::contexts_v1(),
            Self::Events => schema::events_v1(),
            Self::Sightings => schema::sightings_v3(),
            Self::DeadLetters => schema::dead_letters_v1(),
        }
    }
}

/// Bits of the columns that are not in the section, because the index holds them.
fn elsewhere(section: Section) -> u64 {
    if section == Section::Payloads { 1 << column::PAYLOAD_ID | 1 << column::ROWS } else { 0 }
}

#[cfg(test)]
mod tests;
