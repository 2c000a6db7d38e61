//! Writes batches that are Arrow arrays already: those of tests and tools. `ingest` writes its open columns itself.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType, UInt8Type, UInt32Type,
};
use bytes::Bytes;
use events::batch::column;
use events::{Environment, LogBatch};

use super::Section;
use super::write::{RecordWriter, SectionWriter, Valid};
use crate::{Error, Result};

pub(super) fn encode(batch: &LogBatch) -> Result<Bytes> {
    let mut record = RecordWriter::new(batch.topic());
    if let Some(payloads) = batch.payloads() {
        index_payloads(&mut record, payloads);
    }
    match batch {
        LogBatch::Events(batch) => {
            record.kinds(batch.events().column(0).as_primitive::<UInt8Type>().values());
            write(&mut record, Section::Payloads, batch.payloads())?;
            write(&mut record, Section::Contexts, batch.contexts())?;
            write(&mut record, Section::Events, batch.events())?;
        }
        LogBatch::Sightings(batch) => {
            record.kinds(&[]);
            write(&mut record, Section::Sightings, batch.sightings())?;
        }
        LogBatch::DeadLetters(batch) => {
            record.kinds(&[]);
            write(&mut record, Section::Payloads, batch.payloads())?;
            write(&mut record, Section::DeadLetters, batch.letters())?;
        }
    }
    record.finish()
}

fn index_payloads(record: &mut RecordWriter, payloads: &RecordBatch) {
    let project = payloads.column(column::PROJECT).as_string::<i32>();
    let environment = payloads.column(column::ENVIRONMENT).as_string::<i32>();
    let payload_id = payloads.column(column::PAYLOAD_ID).as_string::<i32>();
    let rows = payloads.column(column::ROWS).as_primitive::<UInt32Type>();
    for row in 0..payloads.num_rows() {
        let hash = Environment::new(project.value(row), environment.value(row)).hash();
        let id = payload_id.is_valid(row).then(|| payload_id.value(row).as_bytes());
        record.payload(hash, rows.value(row), id);
    }
}

fn write(record: &mut RecordWriter, section: Section, batch: &RecordBatch) -> Result<()> {
    let mut columns = record.section(section, batch.num_rows());
    batch.columns().iter().try_for_each(|array| write_array(&mut columns, array))
}

fn write_array(out: &mut SectionWriter<'_>, array: &ArrayRef) -> Result<()> {
    if array.null_count() == array.len() {
        out.absent();
        return Ok(());
    }
    let bits = array.nulls().map(bits_of);
    let valid = valid_of(bits.as_deref());
    match array.data_type() {
        DataType::UInt8 => integers::<UInt8Type>(out, array, valid),
        DataType::UInt32 => integers::<UInt32Type>(out, array, valid),
        DataType::Int32 => integers::<Int32Type>(out, array, valid),
        DataType::Int64 => integers::<Int64Type>(out, array, valid),
        DataType::Timestamp(..) => integers::<TimestampMicrosecondType>(out, array, valid),
        DataType::Float64 => out.floats(array.as_primitive::<Float64Type>().values(), valid),
        DataType::Boolean => out.flags(&bytes_of(array.as_boolean().values()), valid),
        DataType::Utf8 => {
            let texts = array.as_string::<i32>();
            out.text(texts.value_offsets(), texts.value_data(), valid);
        }
        DataType::Binary => {
            let texts = array.as_binary::<i32>();
            out.text(texts.value_offsets(), texts.value_data(), valid);
        }
        DataType::List(_) => {
            let lists = array.as_list::<i32>();
            write_lists(out, lists.value_offsets(), valid, &[lists.values()]);
        }
        DataType::Map(..) => {
            let maps = array.as_map();
            write_lists(out, maps.value_offsets(), valid, &[maps.keys(), maps.values()]);
        }
        other => return Err(Error::Frame(format!("columns of type {other} are unknown"))),
    }
    Ok(())
}

fn integers<T: ArrowPrimitiveType>(out: &mut SectionWriter<'_>, array: &ArrayRef, valid: Valid<'_>)
where
    T::Native: Into<i64>,
{
    out.integers(array.as_primitive::<T>().values(), valid);
}

/// `children`: columns of text.
fn write_lists(out: &mut SectionWriter<'_>, offsets: &[i32], valid: Valid<'_>, children: &[&ArrayRef]) {
    let (first, last) = (offsets.first().copied().unwrap_or(0), offsets.last().copied().unwrap_or(0));
    let children: Vec<ArrayRef> =
        children.iter().map(|child| child.slice(first as usize, (last - first) as usize)).collect();
    let bits: Vec<Option<Vec<u8>>> = children.iter().map(|child| child.nulls().map(bits_of)).collect();
    let columns = children.iter().zip(&bits).map(|(child, bits)| {
        let texts = child.as_string::<i32>();
        (texts.value_offsets(), texts.value_data(), valid_of(bits.as_deref()))
    });
    out.lists(offsets, valid, &columns.collect::<Vec<_>>());
}

fn valid_of(bits: Option<&[u8]>) -> Valid<'_> {
    bits.map_or(Valid::All, Valid::Bits)
}

fn bits_of(nulls: &NullBuffer) -> Vec<u8> {
    bytes_of(nulls.inner())
}

fn bytes_of(bits: &BooleanBuffer) -> Vec<u8> {
    bits.sliced().to_vec()
}
