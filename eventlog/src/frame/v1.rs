//! Reads the sections of version 1, which held each batch as a message of Arrow IPC. Nothing writes them any more.
//!
//! | section field | bytes | meaning |
//! |---|---|---|
//! | schema | 1 | as in version 2 |
//! | schema version | 1 | 1 |
//! | columns | 2 | number of columns of the schema when written |
//! | present | (columns + 7) / 8 | bit per column; a column that is null in every row is left out |
//! | message_bytes | 4 | length of the IPC message |
//! | data_bytes | 4 | length of the IPC body |
//! | padding | 0-7 | so that the IPC body starts at a multiple of 8 from the start of the body |
//! | message | message_bytes, padded to 8 | flatbuffer `Message` with a `RecordBatch` header, without the schema message |
//! | data | data_bytes | its buffers |

use std::collections::HashMap;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::buffer::Buffer;
use arrow::datatypes::SchemaRef;
use arrow::ipc::{MetadataVersion, reader::read_record_batch, root_as_message};

use super::{SECTION_VERSION, Section, u32_at};
use crate::{Error, Result};

pub(super) struct Sections {
    body: Buffer,
    position: usize,
}

impl Sections {
    pub fn new(body: Vec<u8>) -> Self {
        Self { body: Buffer::from_vec(body), position: 0 }
    }

    pub fn next(&mut self, expected: Section) -> Result<RecordBatch> {
        let head = self.take(4)?;
        let (code, version, columns) = (head[0], head[1], u16::from_le_bytes([head[2], head[3]]) as usize);
        if code != expected as u8 || version != SECTION_VERSION {
            return Err(Error::Frame(format!("section {code} version {version} where {expected:?} was expected")));
        }
        if columns > expected.schema().fields().len() {
            return Err(Error::Frame(format!("{expected:?} of {columns} columns")));
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
