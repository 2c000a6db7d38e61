//! Bytes of one record: a micro-batch as a fixed header, a plain index and a compressed body of Arrow IPC.
//!
//! All integers are little-endian. Version 1:
//!
//! | field | bytes | meaning |
//! |---|---|---|
//! | magic | 4 | `TGFR` |
//! | version | 2 | 1 |
//! | topic | 1 | 0 `events`, 1 `contexts`, 2 `dead_letters` |
//! | codec | 1 | 0 none, 1 zstd |
//! | rows | 4 | rows of the main batch |
//! | payloads | 4 | entries of the index |
//! | index_bytes | 4 | length of the index |
//! | body_bytes | 4 | length of the body as stored |
//! | body_raw_bytes | 4 | length of the body before compression |
//! | checksum | 4 | CRC-32C of the 28 bytes before it, the index and the body |
//! | index | index_bytes | per payload: environment hash (8), rows (4), length of the payload id (1, 0 = none), the id; then number of kinds (1) and per kind its code (1) and rows (4) |
//! | body | body_bytes | sections, one after the other |
//!
//! | section field | bytes | meaning |
//! |---|---|---|
//! | schema | 1 | 1 payloads, 2 contexts, 3 events, 4 sightings, 5 dead letters |
//! | schema version | 1 | 1 |
//! | columns | 2 | number of columns of the schema when written |
//! | present | (columns + 7) / 8 | bit per column; a column that is null in every row is left out |
//! | message_bytes | 4 | length of the IPC message |
//! | data_bytes | 4 | length of the IPC body |
//! | padding | 0-7 | so that the IPC body starts at a multiple of 8 from the start of the body |
//! | message | message_bytes, padded to 8 | flatbuffer `Message` with a `RecordBatch` header, without the schema message |
//! | data | data_bytes | its buffers |
//!
//! The index is not compressed, so that the de-duplication window can be rebuilt from headers ([`peek`]).
//! Readers accept every version ever written; golden files in `frame/` hold them to it.

use std::cell::RefCell;
use std::collections::HashMap;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::buffer::Buffer;
use arrow::datatypes::{SchemaRef, UInt8Type, UInt32Type};
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use arrow::ipc::{MetadataVersion, reader::read_record_batch, root_as_message};
use bytes::Bytes;
use events::batch::column;
use events::{DeadLettersBatch, Environment, EventsBatch, LogBatch, SightingsBatch, Topic, limits, schema};

use crate::{Error, Result};

const MAGIC: [u8; 4] = *b"TGFR";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 32;
const CODEC_NONE: u8 = 0;
const CODEC_ZSTD: u8 = 1;
/// Level 1 costs a third of level 3 and gives up a twentieth of the size on recorded bodies.
const ZSTD_LEVEL: i32 = 1;
/// Below this the zstd frame costs more than it saves.
const COMPRESS_BYTES_MIN: usize = 256;

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

/// Encodes one micro-batch.
///
/// # Errors
/// `RecordTooLarge` (kind `Reject`) above `limits::RECORD_BYTES_MAX`.
pub fn encode(batch: &LogBatch) -> Result<Bytes> {
    let index = encode_index(batch);
    let mut body = Vec::with_capacity(64 << 10);
    match batch {
        LogBatch::Events(batch) => {
            write_section(&mut body, Section::Payloads, batch.payloads())?;
            write_section(&mut body, Section::Contexts, batch.contexts())?;
            write_section(&mut body, Section::Events, batch.events())?;
        }
        LogBatch::Sightings(batch) => write_section(&mut body, Section::Sightings, batch.sightings())?,
        LogBatch::DeadLetters(batch) => {
            write_section(&mut body, Section::Payloads, batch.payloads())?;
            write_section(&mut body, Section::DeadLetters, batch.letters())?;
        }
    }
    if body.len() > limits::RECORD_BYTES_MAX {
        return Err(Error::RecordTooLarge { bytes: body.len() as u64, max_bytes: limits::RECORD_BYTES_MAX as u64 });
    }
    let body_raw_bytes = body.len();
    let (codec, body) = compress(body)?;
    let mut out = Vec::with_capacity(HEADER_BYTES + index.len() + body.len());
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&[batch.topic() as u8, codec]);
    let payloads = batch.payloads().map_or(0, RecordBatch::num_rows);
    for number in [batch.rows(), payloads, index.len(), body.len(), body_raw_bytes] {
        out.extend_from_slice(&(number as u32).to_le_bytes());
    }
    let checksum = checksum(&out, &index, &body);
    out.extend_from_slice(&checksum.to_le_bytes());
    out.extend_from_slice(&index);
    out.extend_from_slice(&body);
    Ok(out.into())
}

/// Decodes one record.
///
/// # Errors
/// Kind `Corrupt`: wrong magic or checksum, a newer version, or content that the schemas refuse.
pub fn decode(frame: &Bytes) -> Result<LogBatch> {
    let header = Header::read(frame)?;
    let body = match header.codec {
        CODEC_NONE => frame.slice(header.body()).to_vec(),
        CODEC_ZSTD => zstd::bulk::decompress(&frame[header.body()], header.body_raw_bytes)
            .map_err(|error| Error::Frame(format!("body of {} bytes does not unpack: {error}", header.body_bytes)))?,
        codec => return Err(Error::Frame(format!("codec {codec} is unknown"))),
    };
    if body.len() != header.body_raw_bytes {
        return Err(Error::Frame(format!("body unpacks to {} bytes, not {}", body.len(), header.body_raw_bytes)));
    }
    let mut sections = Sections { body: Buffer::from_vec(body), position: 0 };
    let batch = match header.topic {
        Topic::Events => LogBatch::Events(EventsBatch::new(
            sections.next(Section::Payloads)?,
            sections.next(Section::Contexts)?,
            sections.next(Section::Events)?,
        )?),
        Topic::Contexts => LogBatch::Sightings(SightingsBatch::new(sections.next(Section::Sightings)?)?),
        Topic::DeadLetters => LogBatch::DeadLetters(DeadLettersBatch::new(
            sections.next(Section::Payloads)?,
            sections.next(Section::DeadLetters)?,
        )?),
    };
    if batch.rows() != header.rows as usize {
        return Err(Error::Frame(format!("header says {} rows, the body holds {}", header.rows, batch.rows())));
    }
    Ok(batch)
}

/// Reads the index of a record without unpacking its body.
///
/// # Errors
/// As [`decode`].
pub fn peek(frame: &Bytes) -> Result<FrameIndex> {
    let header = Header::read(frame)?;
    let mut rest = &frame[HEADER_BYTES..HEADER_BYTES + header.index_bytes];
    let short = || Error::Frame("the index ends early".into());
    let mut payloads = Vec::with_capacity(header.payloads.min(1 << 16) as usize);
    for _ in 0..header.payloads {
        let (fixed, after) = rest.split_at_checked(13).ok_or_else(short)?;
        let (id, after) = after.split_at_checked(fixed[12] as usize).ok_or_else(short)?;
        rest = after;
        let id = std::str::from_utf8(id).map_err(|_| Error::Frame("a payload id is not UTF-8".into()))?;
        payloads.push(PayloadIndex {
            environment_hash: u64::from_le_bytes(fixed[..8].try_into().expect("8 bytes")),
            rows: u32_at(fixed, 8),
            payload_id: (!id.is_empty()).then(|| id.into()),
        });
    }
    let (count, mut rest) = rest.split_first().ok_or_else(short)?;
    let mut kinds = Vec::with_capacity(*count as usize);
    for _ in 0..*count {
        let (entry, after) = rest.split_at_checked(5).ok_or_else(short)?;
        kinds.push((entry[0], u32_at(entry, 1)));
        rest = after;
    }
    Ok(FrameIndex { topic: header.topic, rows: header.rows, payloads, kinds })
}

struct Header {
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
        if version != VERSION {
            return Err(Error::Frame(format!("version {version}, this program reads up to {VERSION}")));
        }
        let topic = Topic::from_code(frame[6]).ok_or_else(|| Error::Frame(format!("topic {} is unknown", frame[6])))?;
        let header = Self {
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

    fn body(&self) -> std::ops::Range<usize> {
        let start = HEADER_BYTES + self.index_bytes;
        start..start + self.body_bytes
    }
}

fn checksum(header: &[u8], index: &[u8], body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(header), index), body)
}

fn u32_at(bytes: &[u8], position: usize) -> u32 {
    u32::from_le_bytes(bytes[position..position + 4].try_into().expect("four bytes"))
}

fn encode_index(batch: &LogBatch) -> Vec<u8> {
    let mut index = Vec::new();
    if let Some(payloads) = batch.payloads() {
        let project = payloads.column(column::PROJECT).as_string::<i32>();
        let environment = payloads.column(column::ENVIRONMENT).as_string::<i32>();
        let payload_id = payloads.column(column::PAYLOAD_ID).as_string::<i32>();
        let rows = payloads.column(column::ROWS).as_primitive::<UInt32Type>();
        for row in 0..payloads.num_rows() {
            let hash = Environment::new(project.value(row), environment.value(row)).hash();
            index.extend_from_slice(&hash.to_le_bytes());
            index.extend_from_slice(&rows.value(row).to_le_bytes());
            let id = if payload_id.is_valid(row) { payload_id.value(row) } else { "" };
            assert!(id.len() <= limits::PAYLOAD_ID_BYTES_MAX, "a payload id of {} bytes got past ingest", id.len());
            index.push(id.len() as u8);
            index.extend_from_slice(id.as_bytes());
        }
    }
    let mut counts = [0_u32; 256];
    if let LogBatch::Events(batch) = batch {
        for kind in batch.events().column(0).as_primitive::<UInt8Type>().values() {
            counts[*kind as usize] += 1;
        }
    }
    index.push(counts.iter().filter(|count| **count > 0).count() as u8);
    for (kind, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        index.push(kind as u8);
        index.extend_from_slice(&count.to_le_bytes());
    }
    index
}

fn compress(body: Vec<u8>) -> Result<(u8, Vec<u8>)> {
    thread_local! {
        static COMPRESSOR: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
    }
    if body.len() < COMPRESS_BYTES_MIN {
        return Ok((CODEC_NONE, body));
    }
    let failed = |error: std::io::Error| Error::Frame(format!("compressing {} bytes failed: {error}", body.len()));
    let packed = COMPRESSOR.with_borrow_mut(|slot| {
        let compressor = match slot {
            Some(compressor) => compressor,
            None => slot.insert(zstd::bulk::Compressor::new(ZSTD_LEVEL)?),
        };
        compressor.compress(&body)
    });
    let packed = packed.map_err(failed)?;
    Ok(if packed.len() < body.len() { (CODEC_ZSTD, packed) } else { (CODEC_NONE, body) })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Section {
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
            Self::Sightings => schema::sightings_v1(),
            Self::DeadLetters => schema::dead_letters_v1(),
        }
    }
}

const SECTION_VERSION: u8 = 1;

fn pad8(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(8), 0);
}

fn write_section(out: &mut Vec<u8>, section: Section, batch: &RecordBatch) -> Result<()> {
    let columns = batch.num_columns();
    let present: Vec<usize> =
        (0..columns).filter(|number| batch.column(*number).null_count() < batch.num_rows()).collect();
    let mut bits = vec![0_u8; columns.div_ceil(8)];
    for number in &present {
        bits[number / 8] |= 1 << (number % 8);
    }
    let failed = |error| Error::Frame(format!("encoding {section:?} failed: {error}"));
    let projected = batch.project(&present).map_err(failed)?;
    let options = IpcWriteOptions::default();
    let mut dictionaries = DictionaryTracker::new(false);
    let (_, encoded) = IpcDataGenerator::default()
        .encode(&projected, &mut dictionaries, &options, &mut IpcWriteContext::default())
        .map_err(failed)?;
    out.extend_from_slice(&[section as u8, SECTION_VERSION]);
    out.extend_from_slice(&(columns as u16).to_le_bytes());
    out.extend_from_slice(&bits);
    out.extend_from_slice(&(encoded.ipc_message.len() as u32).to_le_bytes());
    out.extend_from_slice(&(encoded.arrow_data.len() as u32).to_le_bytes());
    pad8(out);
    out.extend_from_slice(&encoded.ipc_message);
    pad8(out);
    out.extend_from_slice(&encoded.arrow_data);
    Ok(())
}

struct Sections {
    body: Buffer,
    position: usize,
}

impl Sections {
    fn next(&mut self, expected: Section) -> Result<RecordBatch> {
        let head = self.take(4)?;
        let (code, version, columns) = (head[0], head[1], u16::from_le_bytes([head[2], head[3]]) as usize);
        if code != expected as u8 || version != SECTION_VERSION {
            return Err(Error::Frame(format!("section {code} version {version} where {expected:?} was expected")));
        }
        let bits = self.take(columns.div_ceil(8))?.to_vec();
        let message_bytes = u32_at(self.take(4)?, 0) as usize;
        let data_bytes = u32_at(self.take(4)?, 0) as usize;
        self.align();
        let message = self.take(message_bytes)?.to_vec();
        self.align();
        let start = self.position;
        self.take(data_bytes)?;
        let data = self.body.slice_with_length(start, data_bytes);
        let schema = expected.schema();
        let present: Vec<usize> = (0..columns).filter(|number| bits[number / 8] >> (number % 8) & 1 == 1).collect();
        let failed = |what: String| Error::Frame(format!("{expected:?}: {what}"));
        let projected = schema.project(&present).map_err(|error| failed(error.to_string()))?;
        let message = root_as_message(&message).map_err(|error| failed(format!("{error:?}")))?;
        let header = message.header_as_record_batch().ok_or_else(|| failed("no record batch".into()))?;
        let batch = read_record_batch(&data, header, projected.into(), &HashMap::new(), None, &MetadataVersion::V5)
            .map_err(|error| failed(error.to_string()))?;
        fill_absent(&schema, &present, &batch).map_err(|error| failed(error.to_string()))
    }

    fn take(&mut self, bytes: usize) -> Result<&[u8]> {
        let end = self.position.checked_add(bytes).filter(|end| *end <= self.body.len());
        let end = end.ok_or_else(|| Error::Frame(format!("a section ends after {} bytes", self.body.len())))?;
        let taken = &self.body.as_slice()[self.position..end];
        self.position = end;
        Ok(taken)
    }

    fn align(&mut self) {
        self.position = self.position.next_multiple_of(8).min(self.body.len());
    }
}

/// Puts the columns that were left out, and those that a later version appended, back as nulls.
fn fill_absent(
    schema: &SchemaRef,
    present: &[usize],
    batch: &RecordBatch,
) -> std::result::Result<RecordBatch, arrow::error::ArrowError> {
    let rows = batch.num_rows();
    let mut columns: Vec<Option<ArrayRef>> = vec![None; schema.fields().len()];
    for (number, array) in present.iter().zip(batch.columns()) {
        columns[*number] = Some(array.clone());
    }
    let columns = columns
        .into_iter()
        .zip(schema.fields())
        .map(|(column, field)| column.unwrap_or_else(|| new_null_array(field.data_type(), rows)));
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema.clone(), columns.collect(), &options)
}

#[cfg(test)]
mod tests;
