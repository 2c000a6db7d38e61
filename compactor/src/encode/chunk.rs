//! Makes one column chunk of a row group: dictionary page, data pages, their description and statistics.
//!
//! Pages are of version 1, each compressed on its own; nothing but their bytes is shared with parquet's own writer, which
//! hashes each value of each row. Here the codes are known before. <https://parquet.apache.org/docs/file-format/data-pages/>

use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::{Compression, Encoding, PageType, ZstdLevel};
use parquet::column::page::{CompressedPage, Page, PageWriteSpec, PageWriter};
use parquet::column::writer::{ColumnCloseResult, get_column_writer, get_typed_column_writer};
use parquet::data_type::{ByteArray, Int64Type};
use parquet::file::metadata::{ColumnChunkMetaData, PageEncodingStats};
use parquet::file::properties::WriterPropertiesPtr;
use parquet::file::statistics::{Statistics, ValueStatistics};
use parquet::file::writer::{SerializedPageWriter, TrackedWrite};
use parquet::schema::types::ColumnDescPtr;

use super::dictionary::{Dictionary, NULL};
use super::hybrid;
use crate::Result;
use crate::schema::{Column, ColumnType};
use crate::stats::BOUND_BYTES_MAX;

/// Values of a data page. Readers unpack whole pages of all columns at once, and a merge reads many files side by side.
const PAGE_VALUES: usize = 16 << 10;
/// Bytes of a data page whose values are not codes.
const PAGE_BYTES: usize = 256 << 10;

/// Values of one leaf of a column, for the rows of one row group.
#[derive(Default)]
pub(crate) struct Leaf {
    /// Levels of each value and each null; empty where a column cannot have them.
    pub repetition: Vec<u8>,
    pub definition: Vec<u8>,
    /// Values and nulls.
    pub slots: usize,
    /// Codes of the values that are not null; of booleans the values themselves.
    pub codes: Vec<u32>,
}

impl Leaf {
    /// A column without lists: one value or [`NULL`] per row.
    pub fn flat(codes: impl ExactSizeIterator<Item = u32>, nullable: bool) -> Self {
        let mut leaf = Self { slots: codes.len(), codes: Vec::with_capacity(codes.len()), ..Self::default() };
        if nullable {
            leaf.definition.reserve(leaf.slots);
            for code in codes {
                leaf.definition.push(u8::from(code != NULL));
                if code != NULL {
                    leaf.codes.push(code);
                }
            }
        } else {
            leaf.codes.extend(codes.filter(|code| *code != NULL));
        }
        leaf
    }

    /// Appends a value or null of a column with lists.
    pub fn slot(&mut self, repetition: u8, definition: u8) {
        self.slots += 1;
        self.repetition.push(repetition);
        self.definition.push(definition);
    }

    /// A flat column that is null in each of `rows` rows.
    pub fn nulls(rows: usize) -> Self {
        Self { definition: vec![0; rows], slots: rows, ..Self::default() }
    }
}

/// Bytes of a chunk and what the footer says of it.
pub(crate) struct Chunk {
    pub bytes: Bytes,
    pub close: ColumnCloseResult,
}

/// Makes chunks. Keeps its buffers from one to the next.
pub(crate) struct ChunkEncoder {
    /// With its level; without one, pages are stored as they are.
    compressor: Option<(zstd::bulk::Compressor<'static>, i32)>,
    page: Vec<u8>,
    /// New code of each code of a dictionary, for the values that this chunk has.
    dense: Vec<u32>,
}

/// A chunk in the making.
struct Pages<'a> {
    out: TrackedWrite<Vec<u8>>,
    compressor: &'a mut Option<(zstd::bulk::Compressor<'static>, i32)>,
    compressed: i64,
    uncompressed: i64,
    data_offset: Option<i64>,
    data_pages: i32,
}

impl ChunkEncoder {
    /// `level` of zstd; `None` does not compress.
    pub fn new(level: Option<i32>) -> Result<Self> {
        let compressor = |level| zstd::bulk::Compressor::new(level).map(|compressor| (compressor, level));
        let compressor = level.map(compressor).transpose();
        let compressor = compressor.map_err(|error| crate::Error::parquet("compressor", error.into()))?;
        Ok(Self { compressor, page: Vec::new(), dense: Vec::new() })
    }

    /// Encodes one leaf. `dictionary` has the values of its codes; booleans have none.
    pub fn encode(
        &mut self,
        descr: &ColumnDescPtr,
        column: &Column,
        leaf: &Leaf,
        dictionary: Option<&Dictionary>,
        rows: usize,
    ) -> Result<Chunk> {
        let (distinct, bytes) = self.number_densely(leaf, dictionary);
        // A dictionary of values that hardly repeat would only come on top of them.
        let coded = column.dictionary && !distinct.is_empty() && distinct.len() * 4 <= leaf.codes.len() * 3;
        let raw_bytes = bytes + leaf.definition.len() / 8 + leaf.codes.len() / 8;
        let mut pages = Pages {
            out: TrackedWrite::new(Vec::with_capacity(64 + raw_bytes / 8)),
            compressor: &mut self.compressor,
            compressed: 0,
            uncompressed: 0,
            data_offset: None,
            data_pages: 0,
        };
        let dictionary_of_codes = dictionary.filter(|_| coded);
        if let Some(dictionary) = dictionary_of_codes {
            self.page.clear();
            distinct.iter().for_each(|code| self.page.extend_from_slice(dictionary.plain(*code)));
            pages.dictionary(&self.page, distinct.len())?;
        }
        let width = hybrid::width(distinct.len().saturating_sub(1) as u32);
        let level_width = |levels: i16| hybrid::width(levels as u32);
        let (mut slot, mut value) = (0, 0);
        while slot < leaf.slots || pages.data_pages == 0 {
            let (slot_end, value_end) =
                page_end(leaf, dictionary.filter(|_| !coded), slot, value, descr.max_def_level());
            self.page.clear();
            for (levels, max) in [(&leaf.repetition, descr.max_rep_level()), (&leaf.definition, descr.max_def_level())]
            {
                if max > 0 {
                    let start = self.page.len();
                    self.page.extend_from_slice(&[0; 4]);
                    hybrid::encode(&levels[slot..slot_end], level_width(max), &mut self.page);
                    let length = (self.page.len() - start - 4) as u32;
                    self.page[start..start + 4].copy_from_slice(&length.to_le_bytes());
                }
            }
            let codes = &leaf.codes[value..value_end];
            match dictionary {
                Some(_) if coded => {
                    self.page.push(width);
                    let dense: Vec<u32> = codes.iter().map(|code| self.dense[*code as usize]).collect();
                    hybrid::encode(&dense, width, &mut self.page);
                }
                Some(dictionary) => {
                    codes.iter().for_each(|code| self.page.extend_from_slice(dictionary.plain(*code)));
                }
                None => self.page.extend(codes.chunks(8).map(|bits| {
                    bits.iter().enumerate().fold(0_u8, |byte, (place, bit)| byte | (*bit as u8 & 1) << place)
                })),
            }
            let encoding = if coded { Encoding::RLE_DICTIONARY } else { Encoding::PLAIN };
            pages.data(&self.page, slot_end - slot, encoding)?;
            (slot, value) = (slot_end, value_end);
        }
        let nulls = (leaf.slots - leaf.codes.len()) as u64;
        let statistics = match dictionary {
            Some(dictionary) if column.stats => Some(statistics(column.column_type, dictionary, &distinct, nulls)),
            _ => None,
        };
        pages.finish(descr, coded, leaf.slots, rows, statistics)
    }

    /// Codes that the leaf has, in order of their first occurrence, and the bytes of its values without a dictionary's
    /// help. Leaves the new code of each in `dense`.
    fn number_densely(&mut self, leaf: &Leaf, dictionary: Option<&Dictionary>) -> (Vec<u32>, usize) {
        let Some(dictionary) = dictionary else { return (Vec::new(), leaf.codes.len() / 8) };
        self.dense.clear();
        self.dense.resize(dictionary.len(), NULL);
        let (mut distinct, mut bytes) = (Vec::new(), 0);
        for code in &leaf.codes {
            let dense = &mut self.dense[*code as usize];
            if *dense == NULL {
                *dense = distinct.len() as u32;
                distinct.push(*code);
                bytes += dictionary.plain(*code).len();
            }
        }
        (distinct, bytes + leaf.codes.len())
    }
}

/// Where the data page that begins at `slot` ends: slots and values. A page holds whole rows.
fn page_end(leaf: &Leaf, plain: Option<&Dictionary>, slot: usize, value: usize, present: i16) -> (usize, usize) {
    if leaf.codes.is_empty() {
        return (leaf.slots, 0);
    }
    let mut end = (slot + PAGE_VALUES).min(leaf.slots);
    if let Some(dictionary) = plain {
        let (mut bytes, mut values) = (0, value);
        for place in slot..end {
            if leaf.definition.get(place).is_none_or(|level| i16::from(*level) == present) {
                bytes += dictionary.plain(leaf.codes[values]).len();
                values += 1;
            }
            if bytes >= PAGE_BYTES {
                end = place + 1;
                break;
            }
        }
    }
    while leaf.repetition.get(end).is_some_and(|level| *level > 0) {
        end += 1;
    }
    let values = match leaf.definition.get(slot..end) {
        Some(levels) if !levels.is_empty() => levels.iter().filter(|level| i16::from(**level) == present).count(),
        _ => end - slot,
    };
    (end, value + values)
}

impl Pages<'_> {
    fn dictionary(&mut self, raw: &[u8], values: usize) -> Result<()> {
        self.page(raw, |buf| Page::DictionaryPage {
            buf,
            num_values: values as u32,
            encoding: Encoding::PLAIN,
            is_sorted: false,
        })?;
        Ok(())
    }

    fn data(&mut self, raw: &[u8], slots: usize, encoding: Encoding) -> Result<()> {
        let spec = self.page(raw, |buf| Page::DataPage {
            buf,
            num_values: slots as u32,
            encoding,
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        })?;
        self.data_offset.get_or_insert(spec.offset as i64);
        self.data_pages += 1;
        Ok(())
    }

    fn page(&mut self, raw: &[u8], page: impl FnOnce(Bytes) -> Page) -> Result<PageWriteSpec> {
        let failed = |path: &str, error| crate::Error::parquet(path, error);
        let packed: Bytes = match &mut self.compressor {
            Some((compressor, _)) => {
                let packed = compressor.compress(raw);
                packed.map_err(|error| failed("page in memory", error.into()))?.into()
            }
            None => Bytes::copy_from_slice(raw),
        };
        let page = CompressedPage::new(page(packed), raw.len());
        let spec = SerializedPageWriter::new(&mut self.out).write_page(page);
        let spec = spec.map_err(|error| failed("page in memory", error))?;
        self.compressed += spec.compressed_size as i64;
        self.uncompressed += spec.uncompressed_size as i64;
        Ok(spec)
    }

    fn finish(
        self,
        descr: &ColumnDescPtr,
        coded: bool,
        slots: usize,
        rows: usize,
        statistics: Option<Statistics>,
    ) -> Result<Chunk> {
        let failed = |error| crate::Error::parquet(descr.path().string(), error);
        let encoding = if coded { Encoding::RLE_DICTIONARY } else { Encoding::PLAIN };
        let compression = match self.compressor {
            Some((_, level)) => Compression::ZSTD(ZstdLevel::try_new(*level).map_err(failed)?),
            None => Compression::UNCOMPRESSED,
        };
        let pages = |page_type, encoding, count| PageEncodingStats { page_type, encoding, count };
        let mut encodings = vec![Encoding::RLE, encoding];
        let mut page_stats = vec![pages(PageType::DATA_PAGE, encoding, self.data_pages)];
        if coded {
            encodings.push(Encoding::PLAIN);
            page_stats.insert(0, pages(PageType::DICTIONARY_PAGE, Encoding::PLAIN, 1));
        }
        let mut metadata = ColumnChunkMetaData::builder(Arc::clone(descr))
            .set_compression(compression)
            .set_encodings(encodings)
            .set_total_compressed_size(self.compressed)
            .set_total_uncompressed_size(self.uncompressed)
            .set_num_values(slots as i64)
            .set_data_page_offset(self.data_offset.unwrap_or_default())
            .set_dictionary_page_offset(coded.then_some(0))
            .set_page_encoding_stats(page_stats);
        if let Some(statistics) = statistics {
            metadata = metadata.set_statistics(statistics);
        }
        let bytes = self.out.into_inner().map_err(failed)?;
        let close = ColumnCloseResult {
            bytes_written: bytes.len() as u64,
            rows_written: rows as u64,
            metadata: metadata.build().map_err(failed)?,
            bloom_filter: None,
            column_index: None,
            offset_index: None,
        };
        Ok(Chunk { bytes: bytes.into(), close })
    }
}

/// Times that hardly repeat but lie close together: parquet's own delta encoding.
pub(crate) fn encode_times(
    descr: &ColumnDescPtr,
    properties: &WriterPropertiesPtr,
    values: &[i64],
    definition: &[i16],
) -> Result<Chunk> {
    let failed = |error| crate::Error::parquet(descr.path().string(), error);
    let mut out = TrackedWrite::new(Vec::new());
    let pages = Box::new(SerializedPageWriter::new(&mut out));
    let mut writer =
        get_typed_column_writer::<Int64Type>(get_column_writer(Arc::clone(descr), Arc::clone(properties), pages));
    let levels = (descr.max_def_level() > 0).then_some(definition);
    writer.write_batch(values, levels, None).map_err(failed)?;
    let close = writer.close().map_err(failed)?;
    Ok(Chunk { bytes: out.into_inner().map_err(failed)?.into(), close })
}

fn statistics(column_type: ColumnType, dictionary: &Dictionary, distinct: &[u32], nulls: u64) -> Statistics {
    let values = || distinct.iter().map(|code| dictionary.value(*code));
    match column_type {
        ColumnType::Int => {
            let numbers = || values().map(|bytes| i32::from_le_bytes(bytes.try_into().unwrap_or_default()));
            ValueStatistics::<i32>::new(numbers().min(), numbers().max(), None, Some(nulls), false).into()
        }
        ColumnType::Long | ColumnType::Timestamp => {
            let numbers = || values().map(|bytes| i64::from_le_bytes(bytes.try_into().unwrap_or_default()));
            ValueStatistics::<i64>::new(numbers().min(), numbers().max(), None, Some(nulls), false).into()
        }
        _ => {
            let (min, max) = (values().min(), values().max());
            let low = min.map(|text| prefix(text).to_vec());
            let high = max.and_then(upper_bound);
            let exact = |bound: &Option<Vec<u8>>, value: Option<&[u8]>| bound.as_deref() == value;
            let (low_is_exact, high_is_exact) = (exact(&low, min), exact(&high, max));
            ValueStatistics::<ByteArray>::new(
                low.map(ByteArray::from),
                high.map(ByteArray::from),
                None,
                Some(nulls),
                false,
            )
            .with_min_is_exact(low_is_exact)
            .with_max_is_exact(high_is_exact)
            .into()
        }
    }
}

/// At most [`BOUND_BYTES_MAX`] bytes, cut between characters.
fn prefix(text: &[u8]) -> &[u8] {
    if text.len() <= BOUND_BYTES_MAX {
        return text;
    }
    let mut end = BOUND_BYTES_MAX;
    while end > 0 && text[end] & 0xc0 == 0x80 {
        end -= 1;
    }
    &text[..end]
}

/// A short text that is not less than `text`; `None` if there is none.
fn upper_bound(text: &[u8]) -> Option<Vec<u8>> {
    if text.len() <= BOUND_BYTES_MAX {
        return Some(text.to_vec());
    }
    let mut kept = std::str::from_utf8(prefix(text)).ok()?.to_owned();
    while let Some(last) = kept.pop() {
        // Surrogates are no characters; the next that is one lies above them.
        let next = if last == '\u{d7ff}' { Some('\u{e000}') } else { char::from_u32(u32::from(last) + 1) };
        if let Some(next) = next {
            kept.push(next);
            return Some(kept.into_bytes());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_bounds_are_cut_outwards() {
        let long = "é".repeat(100);
        assert_eq!(prefix(long.as_bytes()), "é".repeat(32).as_bytes());
        let bound = upper_bound(long.as_bytes()).unwrap();
        assert!(bound.as_slice() > long.as_bytes() && bound.len() <= BOUND_BYTES_MAX, "{bound:?}");
        assert_eq!(std::str::from_utf8(&bound).unwrap(), format!("{}ê", "é".repeat(31)));
        assert_eq!(upper_bound("\u{10ffff}".repeat(100).as_bytes()), None);
        let before_surrogates = format!("{}\u{d7ff}{}", "a".repeat(61), "b".repeat(10));
        assert_eq!(
            upper_bound(before_surrogates.as_bytes()).unwrap(),
            format!("{}\u{e000}", "a".repeat(61)).into_bytes()
        );
        assert_eq!(upper_bound(b"short").unwrap(), b"short");
    }
}
