//! Reads the sections of version 2 back into Arrow batches.
//!
//! Texts are slices of the unpacked body, not copies; numbers and offsets are computed. Nothing that the bytes say is
//! believed before it is checked against how many bytes there are.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, GenericByteArray, ListArray, MapArray, PrimitiveArray, RecordBatch, RecordBatchOptions,
    StringArray, StructArray, UInt32Array, new_null_array,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer};
use arrow::datatypes::{
    ArrowPrimitiveType, BinaryType, ByteArrayType, DataType, Float64Type, Int32Type, Int64Type,
    TimestampMicrosecondType, UInt8Type, UInt32Type, Utf8Type,
};
use events::batch::column;

use super::write::{ALL_VALID, SOME_NULL};
use super::{PayloadIndex, SECTION_VERSION, Section, elsewhere};
use crate::{Error, Result};

/// More rows or list items than any record can hold: the bytes are damaged.
const ROWS_MAX: u64 = 1 << 28;

pub(super) struct Sections<'a> {
    body: Buffer,
    position: usize,
    payloads: &'a [PayloadIndex],
}

impl<'a> Sections<'a> {
    /// `payloads`: of the record's index, which holds two columns of the payloads section.
    pub fn new(body: Vec<u8>, payloads: &'a [PayloadIndex]) -> Self {
        Self { body: Buffer::from_vec(body), position: 0, payloads }
    }

    /// The next section, which must be `expected`.
    pub fn next(&mut self, expected: Section) -> Result<RecordBatch> {
        self.read(expected).map_err(|error| match error {
            Error::Frame(what) => Error::Frame(format!("{expected:?}: {what}")),
            other => other,
        })
    }

    fn read(&mut self, expected: Section) -> Result<RecordBatch> {
        let head = self.take(8)?;
        let (code, version, columns) = (head[0], head[1], u16::from_le_bytes([head[2], head[3]]) as usize);
        let rows = counted(u64::from(super::u32_at(head, 4)))?;
        let schema = expected.schema();
        if code != expected as u8 || version != SECTION_VERSION || columns > schema.fields().len() {
            return damaged(format!("section {code} version {version} of {columns} columns stands here"));
        }
        let bits = self.take(columns.div_ceil(8))?.to_vec();
        let elsewhere = elsewhere(expected);
        if elsewhere != 0 && rows != self.payloads.len() {
            return damaged(format!("{rows} rows for {} payloads of the index", self.payloads.len()));
        }
        let mut arrays = Vec::with_capacity(schema.fields().len());
        for (number, field) in schema.fields().iter().enumerate() {
            let is_present = number < columns && bits[number / 8] >> (number % 8) & 1 == 1;
            arrays.push(match is_present {
                true => self.column(field.data_type(), rows)?,
                false if elsewhere >> number & 1 == 1 => self.column_of_index(number),
                // Null in every row, or added by a later version of the schema.
                false => new_null_array(field.data_type(), rows),
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(schema, arrays, &options).map_err(refused)
    }

    fn column_of_index(&self, number: usize) -> ArrayRef {
        if number == column::ROWS {
            Arc::new(UInt32Array::from_iter_values(self.payloads.iter().map(|payload| payload.rows)))
        } else {
            let ids: StringArray = self.payloads.iter().map(|payload| payload.payload_id.as_deref()).collect();
            Arc::new(ids)
        }
    }

    fn column(&mut self, data_type: &DataType, rows: usize) -> Result<ArrayRef> {
        let nulls = self.validity(rows)?;
        Ok(match data_type {
            DataType::UInt8 => self.numbers::<UInt8Type>(rows, nulls, data_type)?,
            DataType::UInt32 => self.numbers::<UInt32Type>(rows, nulls, data_type)?,
            DataType::Int32 => self.numbers::<Int32Type>(rows, nulls, data_type)?,
            DataType::Int64 => self.numbers::<Int64Type>(rows, nulls, data_type)?,
            DataType::Timestamp(..) => self.numbers::<TimestampMicrosecondType>(rows, nulls, data_type)?,
            DataType::Float64 => {
                let bytes = self.take(rows * size_of::<f64>())?;
                let numbers = bytes.chunks_exact(8).map(|eight| f64::from_le_bytes(eight.try_into().expect("eight")));
                let values = numbers.collect::<Vec<_>>();
                Arc::new(PrimitiveArray::<Float64Type>::try_new(values.into(), nulls).map_err(refused)?)
            }
            DataType::Boolean => Arc::new(BooleanArray::new(self.bits(rows)?, nulls)),
            DataType::Utf8 => self.texts::<Utf8Type>(rows, nulls)?,
            DataType::Binary => self.texts::<BinaryType>(rows, nulls)?,
            DataType::List(item) => {
                let (offsets, items) = self.offsets(rows)?;
                let items = counted(items as u64)?;
                let nulls_of_items = self.validity(items)?;
                let items = self.texts::<Utf8Type>(items, nulls_of_items)?;
                Arc::new(ListArray::try_new(item.clone(), offsets, items, nulls).map_err(refused)?)
            }
            DataType::Map(entry, sorted) => {
                let DataType::Struct(fields) = entry.data_type() else {
                    return damaged(format!("a map of {}", entry.data_type()));
                };
                let (offsets, entries) = self.offsets(rows)?;
                let entries = counted(entries as u64)?;
                let mut children = Vec::with_capacity(fields.len());
                for _ in fields {
                    let nulls = self.validity(entries)?;
                    children.push(self.texts::<Utf8Type>(entries, nulls)?);
                }
                let entries = StructArray::try_new(fields.clone(), children, None).map_err(refused)?;
                Arc::new(MapArray::try_new(entry.clone(), offsets, entries, nulls, *sorted).map_err(refused)?)
            }
            other => return damaged(format!("columns of type {other} are unknown")),
        })
    }

    fn validity(&mut self, rows: usize) -> Result<Option<NullBuffer>> {
        match self.take(1)?[0] {
            ALL_VALID => Ok(None),
            SOME_NULL => Ok(Some(NullBuffer::new(self.bits(rows)?))),
            other => damaged(format!("validity {other} is unknown")),
        }
    }

    fn bits(&mut self, rows: usize) -> Result<BooleanBuffer> {
        let start = self.position;
        let bytes = self.take(rows.div_ceil(8))?.len();
        Ok(BooleanBuffer::new(self.body.slice_with_length(start, bytes), 0, rows))
    }

    fn numbers<T>(&mut self, rows: usize, nulls: Option<NullBuffer>, data_type: &DataType) -> Result<ArrayRef>
    where
        T: ArrowPrimitiveType,
        T::Native: Default + TryFrom<i64>,
    {
        let mut out = Vec::with_capacity(rows);
        let mut fits = true;
        self.unpack(rows, |number| {
            out.push(T::Native::try_from(number).unwrap_or_else(|_| {
                fits = false;
                T::Native::default()
            }));
        })?;
        if !fits {
            return damaged(format!("a number outside of {data_type}"));
        }
        let array = PrimitiveArray::<T>::try_new(out.into(), nulls).map_err(refused)?;
        Ok(Arc::new(array.with_data_type(data_type.clone())))
    }

    fn texts<T: ByteArrayType<Offset = i32>>(&mut self, rows: usize, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
        let (offsets, bytes) = self.offsets(rows)?;
        let start = self.position;
        self.take(bytes)?;
        let values = self.body.slice_with_length(start, bytes);
        Ok(Arc::new(GenericByteArray::<T>::try_new(offsets, values, nulls).map_err(refused)?))
    }

    /// Offsets from lengths, and their end.
    fn offsets(&mut self, rows: usize) -> Result<(OffsetBuffer<i32>, usize)> {
        let mut offsets = Vec::with_capacity(rows + 1);
        offsets.push(0_i32);
        let (mut end, mut fits) = (0_i64, true);
        self.unpack(rows, |length| {
            end = end.saturating_add(length);
            fits &= (0..=i64::from(i32::MAX)).contains(&length) && end <= i64::from(i32::MAX);
            offsets.push(end as i32);
        })?;
        if !fits {
            return damaged("lengths beyond all bounds".into());
        }
        Ok((OffsetBuffer::new(offsets.into()), end as usize))
    }

    fn unpack(&mut self, rows: usize, mut each: impl FnMut(i64)) -> Result<()> {
        let width = self.take(1)?[0];
        let low = self.varint()?;
        let low = (low >> 1) as i64 ^ -((low & 1) as i64);
        let mut above = |number: u64| each(low.wrapping_add(number as i64));
        match width {
            0 => (0..rows).for_each(|_| above(0)),
            1 => self.take(rows)?.iter().for_each(|byte| above(u64::from(*byte))),
            2 | 4 | 8 => {
                let width = usize::from(width);
                for bytes in self.take(rows * width)?.chunks_exact(width) {
                    let mut eight = [0; 8];
                    eight[..width].copy_from_slice(bytes);
                    above(u64::from_le_bytes(eight));
                }
            }
            other => return damaged(format!("numbers of {other} bytes")),
        }
        Ok(())
    }

    fn varint(&mut self) -> Result<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        damaged("a number without end".into())
    }

    fn take(&mut self, bytes: usize) -> Result<&[u8]> {
        let end = self.position.checked_add(bytes).filter(|end| *end <= self.body.len());
        let end = end.ok_or_else(|| Error::Frame(format!("the body ends after {} bytes", self.body.len())))?;
        let taken = &self.body.as_slice()[self.position..end];
        self.position = end;
        Ok(taken)
    }
}

fn counted(number: u64) -> Result<usize> {
    if number > ROWS_MAX { damaged(format!("{number} rows")) } else { Ok(number as usize) }
}

fn damaged<T>(what: String) -> Result<T> {
    Err(Error::Frame(what))
}

fn refused(error: arrow::error::ArrowError) -> Error {
    Error::Frame(error.to_string())
}
