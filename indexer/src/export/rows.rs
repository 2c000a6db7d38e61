//! Rows of an export as bytes: NDJSON, CSV or Parquet.
//!
//! In: contexts. Out: bytes to a sink, as they come. Promise: exactly the chosen columns in the order in which they were
//! chosen, under the names that were given; memory does not grow with the number of rows.
//! NDJSON keeps types: an absent value is `null`. CSV (RFC 4180, with a line of names) and Parquet have one type per column:
//! texts as they are, any other value as JSON, absent as empty or null; `lastSeen` is RFC 3339 text, in Parquet a timestamp
//! of microseconds in UTC.

use std::io::Write;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringBuilder, TimestampMicrosecondBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use super::columns::{Cell, Column, Reader, Source};
use crate::api::rfc3339;
use crate::search::FoundContext;

/// Rows that are put together before they are encoded, and their bytes at which that happens earlier.
const BATCH_ROWS: usize = 4096;
const BATCH_BYTES: usize = 4 << 20;
/// Encoded bytes at which a row group ends: it is held in memory until then.
const ROW_GROUP_BYTES: usize = 16 << 20;

/// Form of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Ndjson,
    Csv,
    Parquet,
}

impl Format {
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "ndjson" => Some(Self::Ndjson),
            "csv" => Some(Self::Csv),
            "parquet" => Some(Self::Parquet),
            _ => None,
        }
    }

    pub fn media_type(self) -> &'static str {
        match self {
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8",
            Self::Parquet => "application/vnd.apache.parquet",
        }
    }

    /// What a browser does with it.
    pub fn disposition(self) -> &'static str {
        match self {
            Self::Ndjson => "attachment; filename=\"contexts.ndjson\"",
            Self::Csv => "attachment; filename=\"contexts.csv\"",
            Self::Parquet => "attachment; filename=\"contexts.parquet\"",
        }
    }
}

/// Why rows could not be written.
#[derive(Debug, thiserror::Error)]
pub enum RowError {
    #[error(transparent)]
    Index(#[from] crate::Error),
    #[error("nobody takes the rows any more: {0}")]
    Sink(#[from] std::io::Error),
    #[error("rows could not be encoded: {0}")]
    Encode(String),
}

impl From<csv::Error> for RowError {
    fn from(error: csv::Error) -> Self {
        match error.into_kind() {
            csv::ErrorKind::Io(error) => Self::Sink(error),
            other => Self::Encode(format!("{other:?}")),
        }
    }
}

impl From<ParquetError> for RowError {
    fn from(error: ParquetError) -> Self {
        Self::Encode(error.to_string())
    }
}

type Result<T> = std::result::Result<T, RowError>;

/// Writes rows in one format.
pub struct RowWriter<W: Write + Send> {
    reader: Reader,
    encoder: Encoder<W>,
}

enum Encoder<W: Write + Send> {
    Ndjson(W),
    Csv(Box<csv::Writer<W>>),
    Parquet(Box<ParquetRows<W>>),
}

impl<W: Write + Send> RowWriter<W> {
    /// `is_first`: whether no rows were written before by another: CSV begins with the names of the columns then.
    pub fn new(format: Format, columns: Vec<Column>, sink: W, is_first: bool) -> Result<Self> {
        let encoder = match format {
            Format::Ndjson => Encoder::Ndjson(sink),
            Format::Csv => {
                let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(sink);
                if is_first {
                    writer.write_record(columns.iter().map(|column| column.name.as_str()))?;
                }
                Encoder::Csv(Box::new(writer))
            }
            Format::Parquet => Encoder::Parquet(Box::new(ParquetRows::new(&columns, sink)?)),
        };
        Ok(Self { reader: Reader::new(columns), encoder })
    }

    pub fn write(&mut self, found: &FoundContext) -> Result<()> {
        let cells = self.reader.cells(found);
        match &mut self.encoder {
            Encoder::Ndjson(sink) => write_json_line(sink, cells),
            Encoder::Csv(writer) => {
                for (_, cell) in cells {
                    let text = cell_text(&cell);
                    writer.write_field(text.as_deref().unwrap_or_default())?;
                }
                Ok(writer.write_record(None::<&[u8]>)?)
            }
            Encoder::Parquet(rows) => rows.add(cells),
        }
    }

    /// Ends the rows and hands the sink back.
    pub fn finish(self) -> Result<W> {
        match self.encoder {
            Encoder::Ndjson(sink) => Ok(sink),
            Encoder::Csv(writer) => writer.into_inner().map_err(|error| RowError::Sink(error.into_error())),
            Encoder::Parquet(rows) => rows.finish(),
        }
    }
}

/// The text of a cell, times as RFC 3339.
fn cell_text<'a>(cell: &'a Cell<'_>) -> Option<std::borrow::Cow<'a, str>> {
    match cell {
        Cell::Time(micros) => rfc3339(runtime::UnixMicros(*micros)).map(Into::into),
        other => other.text(),
    }
}

fn write_json_line<'a>(sink: &mut impl Write, cells: impl Iterator<Item = (&'a Column, Cell<'a>)>) -> Result<()> {
    let mut line = Vec::with_capacity(256);
    for (number, (column, cell)) in cells.enumerate() {
        line.push(if number == 0 { b'{' } else { b',' });
        put_json(&mut line, &column.name);
        line.push(b':');
        match &cell {
            Cell::Raw(json) => line.extend_from_slice(json.as_bytes()),
            Cell::Json(value) => put_json(&mut line, value),
            _ => put_json(&mut line, &cell_text(&cell)),
        }
    }
    line.extend_from_slice(b"}\n");
    Ok(sink.write_all(&line)?)
}

fn put_json<T: serde::Serialize + ?Sized>(line: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(line, value).expect("texts and JSON values are written to memory without fail");
}

/// Columns under way to a Parquet file.
struct ParquetRows<W: Write + Send> {
    schema: SchemaRef,
    writer: ArrowWriter<W>,
    builders: Vec<ColumnBuilder>,
    rows: usize,
    bytes: usize,
}

enum ColumnBuilder {
    Text(StringBuilder),
    Time(TimestampMicrosecondBuilder),
}

impl<W: Write + Send> ParquetRows<W> {
    fn new(columns: &[Column], sink: W) -> Result<Self> {
        let time = || DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let field = |column: &Column| match column.source {
            Source::LastSeen => Field::new(&column.name, time(), false),
            Source::Kind | Source::Key | Source::Context => Field::new(&column.name, DataType::Utf8, false),
            Source::Application | Source::Attribute(_) => Field::new(&column.name, DataType::Utf8, true),
        };
        let schema = Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()));
        let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?)).build();
        let builder = |column: &Column| match column.source {
            Source::LastSeen => ColumnBuilder::Time(TimestampMicrosecondBuilder::new().with_data_type(time())),
            _ => ColumnBuilder::Text(StringBuilder::new()),
        };
        let builders = columns.iter().map(builder).collect();
        let writer = ArrowWriter::try_new(sink, schema.clone(), Some(properties))?;
        Ok(Self { schema, writer, builders, rows: 0, bytes: 0 })
    }

    fn add<'a>(&mut self, cells: impl Iterator<Item = (&'a Column, Cell<'a>)>) -> Result<()> {
        for (builder, (_, cell)) in self.builders.iter_mut().zip(cells) {
            match (builder, &cell) {
                (ColumnBuilder::Time(times), Cell::Time(micros)) => times.append_value(*micros),
                (ColumnBuilder::Time(times), _) => times.append_null(),
                (ColumnBuilder::Text(texts), cell) => {
                    let text = cell_text(cell);
                    self.bytes += text.as_ref().map_or(0, |text| text.len());
                    texts.append_option(text);
                }
            }
        }
        self.rows += 1;
        if self.rows >= BATCH_ROWS || self.bytes >= BATCH_BYTES { self.encode() } else { Ok(()) }
    }

    fn encode(&mut self) -> Result<()> {
        let finish = |builder: &mut ColumnBuilder| match builder {
            ColumnBuilder::Text(texts) => Arc::new(texts.finish()) as ArrayRef,
            ColumnBuilder::Time(times) => Arc::new(times.finish()),
        };
        let columns = self.builders.iter_mut().map(finish).collect();
        let batch =
            RecordBatch::try_new(self.schema.clone(), columns).map_err(|error| RowError::Encode(error.to_string()))?;
        (self.rows, self.bytes) = (0, 0);
        self.writer.write(&batch)?;
        if self.writer.in_progress_size() >= ROW_GROUP_BYTES {
            self.writer.flush()?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<W> {
        if self.rows > 0 {
            self.encode()?;
        }
        Ok(self.writer.into_inner()?)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray};
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use runtime::UnixMicros;
    use serde_json::value::RawValue;

    use super::super::columns;
    use super::*;

    fn found(key: &str, rest: &str) -> FoundContext {
        let key_json = serde_json::to_string(key).unwrap();
        let context = format!(r#"{{"kind":"user","key":{key_json}{rest}}}"#);
        FoundContext {
            kind: "user".into(),
            key: key.into(),
            context: RawValue::from_string(context).unwrap(),
            last_seen: UnixMicros(1_772_359_200_123_000),
            application: None,
        }
    }

    fn written(format: Format, names: &[&str], is_first: bool, contexts: &[FoundContext]) -> Vec<u8> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut writer = RowWriter::new(format, columns::parse(&names).unwrap(), Vec::new(), is_first).unwrap();
        contexts.iter().for_each(|context| writer.write(context).unwrap());
        writer.finish().unwrap()
    }

    #[test]
    fn json_lines_keep_types() {
        let rows = [found("a\n\"", r#","seats":44,"beta":true,"tags":["x"]"#), found("b", "")];
        let text =
            String::from_utf8(written(Format::Ndjson, &["key", "seats", "tags", "lastSeen"], true, &rows)).unwrap();
        let expected = "{\"key\":\"a\\n\\\"\",\"seats\":44,\"tags\":[\"x\"],\"lastSeen\":\"2026-03-01T10:00:00.123Z\"}\n\
                        {\"key\":\"b\",\"seats\":null,\"tags\":null,\"lastSeen\":\"2026-03-01T10:00:00.123Z\"}\n";
        assert_eq!(text, expected);
        let whole = String::from_utf8(written(Format::Ndjson, &["context"], true, &rows[1..])).unwrap();
        assert_eq!(whole, "{\"context\":{\"kind\":\"user\",\"key\":\"b\"}}\n");
    }

    #[test]
    fn csv_quotes_what_has_to_be_quoted_and_names_columns_once() {
        let rows = [found("a,\"b\"", r#","name":"two\nlines","seats":44"#), found("c", "")];
        let names = ["key", "name", "seats"];
        let text = String::from_utf8(written(Format::Csv, &names, true, &rows)).unwrap();
        assert_eq!(text, "key,name,seats\r\n\"a,\"\"b\"\"\",\"two\nlines\",44\r\nc,,\r\n");
        let later = String::from_utf8(written(Format::Csv, &names, false, &rows[1..])).unwrap();
        assert_eq!(later, "c,,\r\n");
        assert_eq!(written(Format::Csv, &["name"], false, &rows[1..]), b"\"\"\r\n", "a row of one empty cell is a row");
    }

    #[test]
    fn parquet_reads_back() {
        let rows: Vec<_> = (0..BATCH_ROWS + 5).map(|n| found(&n.to_string(), &format!(r#","seats":{n}"#))).collect();
        let bytes = written(Format::Parquet, &["key", "seats", "absent", "lastSeen"], true, &rows);
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(bytes)).unwrap().build().unwrap();
        let (mut keys, mut seats, mut nulls) = (Vec::new(), Vec::new(), 0);
        for batch in reader {
            let batch = batch.unwrap();
            let text = |column: usize| batch.column(column).as_string::<i32>().clone();
            keys.extend(text(0).iter().map(|key| key.unwrap().to_owned()));
            seats.extend(text(1).iter().map(|seats| seats.unwrap().to_owned()));
            nulls += batch.column(2).null_count();
            assert!(matches!(batch.schema().field(3).data_type(), DataType::Timestamp(TimeUnit::Microsecond, Some(_))));
        }
        let expected: Vec<String> = (0..BATCH_ROWS + 5).map(|n| n.to_string()).collect();
        assert_eq!((keys, seats, nulls), (expected.clone(), expected, BATCH_ROWS + 5));
    }

    #[test]
    fn no_rows_are_a_file_too() {
        assert_eq!(written(Format::Csv, &["key"], true, &[]), b"key\r\n");
        let bytes = written(Format::Parquet, &["key"], true, &[]);
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(bytes)).unwrap();
        assert_eq!(reader.schema().fields().len(), 1);
    }
}
