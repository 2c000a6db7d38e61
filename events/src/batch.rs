//! Rows that travel together: the typed content of one log record.
//!
//! A batch is checked when it is made, so that later stages may index its columns without looking again.

use arrow::array::{AsArray, RecordBatch, new_null_array};
use arrow::datatypes::{SchemaRef, UInt32Type};

use crate::ids::Topic;
use crate::schema;

/// Why a set of Arrow batches is not a valid record.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum BatchError {
    #[error("{batch} batch has schema {found}, expected {expected}")]
    Schema { batch: &'static str, found: String, expected: String },
    #[error("payloads claim {claimed} rows, the record holds {held}")]
    RowCount { claimed: u64, held: u64 },
    #[error("context row {row} is outside the {contexts} contexts of the record")]
    ContextRow { row: u32, contexts: usize },
}

/// Events of some payloads, in order. See `schema` for the three batches.
#[derive(Clone, Debug, PartialEq)]
pub struct EventsBatch {
    payloads: RecordBatch,
    contexts: RecordBatch,
    events: RecordBatch,
}

impl EventsBatch {
    /// # Errors
    /// If a schema differs, the payloads' `rows` do not add up, or a `context_row` points outside the contexts.
    pub fn new(payloads: RecordBatch, contexts: RecordBatch, events: RecordBatch) -> Result<Self, BatchError> {
        check_schema("payloads", &payloads, &schema::payloads_v1())?;
        check_schema("contexts", &contexts, &schema::contexts_v1())?;
        check_schema("events", &events, &schema::events_v1())?;
        check_rows(&payloads, events.num_rows())?;
        let context_rows = events.column(column::CONTEXT_ROW).as_primitive::<UInt32Type>();
        if let Some(row) = arrow::compute::max(context_rows)
            && row as usize >= contexts.num_rows()
        {
            return Err(BatchError::ContextRow { row, contexts: contexts.num_rows() });
        }
        Ok(Self { payloads, contexts, events })
    }

    pub fn payloads(&self) -> &RecordBatch {
        &self.payloads
    }

    pub fn contexts(&self) -> &RecordBatch {
        &self.contexts
    }

    pub fn events(&self) -> &RecordBatch {
        &self.events
    }
}

/// Sightings of contexts that belong to one `contexts` partition.
#[derive(Clone, Debug, PartialEq)]
pub struct SightingsBatch(RecordBatch);

impl SightingsBatch {
    /// Rows of `sightings_v3`, or of a version before, which become such.
    ///
    /// # Errors
    /// If the schema differs.
    pub fn new(sightings: RecordBatch) -> Result<Self, BatchError> {
        if [schema::sightings_v1(), schema::sightings_v2()].contains(sightings.schema_ref()) {
            return Ok(Self(widened(&sightings)));
        }
        check_schema("sightings", &sightings, &schema::sightings_v3())?;
        Ok(Self(sightings))
    }

    pub fn sightings(&self) -> &RecordBatch {
        &self.0
    }
}

/// Rows of an earlier version with the columns that came later, all null.
fn widened(sightings: &RecordBatch) -> RecordBatch {
    let schema = schema::sightings_v3();
    let held = sightings.columns().iter().cloned();
    let added = schema.fields()[sightings.num_columns()..].iter();
    let columns = held.chain(added.map(|field| new_null_array(field.data_type(), sightings.num_rows())));
    RecordBatch::try_new(schema.clone(), columns.collect()).expect("the columns are those of the schema")
}

/// Dead letters of some payloads, in order.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLettersBatch {
    payloads: RecordBatch,
    letters: RecordBatch,
}

impl DeadLettersBatch {
    /// # Errors
    /// If a schema differs or the payloads' `rows` do not add up.
    pub fn new(payloads: RecordBatch, letters: RecordBatch) -> Result<Self, BatchError> {
        check_schema("payloads", &payloads, &schema::payloads_v1())?;
        check_schema("dead letters", &letters, &schema::dead_letters_v1())?;
        check_rows(&payloads, letters.num_rows())?;
        Ok(Self { payloads, letters })
    }

    pub fn payloads(&self) -> &RecordBatch {
        &self.payloads
    }

    pub fn letters(&self) -> &RecordBatch {
        &self.letters
    }
}

/// The content of one log record.
#[derive(Clone, Debug, PartialEq)]
pub enum LogBatch {
    Events(EventsBatch),
    Sightings(SightingsBatch),
    DeadLetters(DeadLettersBatch),
}

impl LogBatch {
    pub const fn topic(&self) -> Topic {
        match self {
            Self::Events(_) => Topic::Events,
            Self::Sightings(_) => Topic::Contexts,
            Self::DeadLetters(_) => Topic::DeadLetters,
        }
    }

    /// Rows of the main batch: events, sightings or dead letters.
    pub fn rows(&self) -> usize {
        match self {
            Self::Events(batch) => batch.events.num_rows(),
            Self::Sightings(batch) => batch.0.num_rows(),
            Self::DeadLetters(batch) => batch.letters.num_rows(),
        }
    }

    /// The payloads batch, where the topic has one.
    pub fn payloads(&self) -> Option<&RecordBatch> {
        match self {
            Self::Events(batch) => Some(&batch.payloads),
            Self::Sightings(_) => None,
            Self::DeadLetters(batch) => Some(&batch.payloads),
        }
    }
}

/// Column numbers, fixed by the schemas; the tests hold them against the names.
pub mod column {
    /// `events_v1`
    pub const CONTEXT_ROW: usize = 3;
    /// `payloads_v1`
    pub const PROJECT: usize = 0;
    pub const ENVIRONMENT: usize = 1;
    pub const RECEIVED_AT: usize = 2;
    pub const PAYLOAD_ID: usize = 3;
    pub const ROWS: usize = 12;
}

fn check_schema(batch: &'static str, found: &RecordBatch, expected: &SchemaRef) -> Result<(), BatchError> {
    if found.schema_ref() == expected {
        return Ok(());
    }
    Err(BatchError::Schema { batch, found: found.schema_ref().to_string(), expected: expected.to_string() })
}

fn check_rows(payloads: &RecordBatch, held: usize) -> Result<(), BatchError> {
    let claimed =
        payloads.column(column::ROWS).as_primitive::<UInt32Type>().values().iter().map(|rows| u64::from(*rows)).sum();
    if claimed == held as u64 { Ok(()) } else { Err(BatchError::RowCount { claimed, held: held as u64 }) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, new_empty_array};

    use super::*;

    fn empty(schema: SchemaRef) -> RecordBatch {
        let columns: Vec<ArrayRef> = schema.fields().iter().map(|field| new_empty_array(field.data_type())).collect();
        RecordBatch::try_new(schema, columns).unwrap()
    }

    #[test]
    fn column_numbers_match_their_names() {
        let payloads = schema::payloads_v1();
        for (number, name) in [
            (column::PROJECT, "project"),
            (column::ENVIRONMENT, "environment"),
            (column::RECEIVED_AT, "received_at"),
            (column::PAYLOAD_ID, "payload_id"),
            (column::ROWS, "rows"),
        ] {
            assert_eq!(payloads.field(number).name(), name);
        }
        assert_eq!(schema::events_v1().field(column::CONTEXT_ROW).name(), "context_row");
    }

    #[test]
    fn wrong_schema_refused() {
        let error = SightingsBatch::new(empty(Arc::clone(&schema::contexts_v1()))).unwrap_err();
        assert!(matches!(error, BatchError::Schema { batch: "sightings", .. }));
    }

    #[test]
    fn sightings_of_earlier_versions_become_those_of_the_last() {
        let last = SightingsBatch::new(empty(schema::sightings_v3())).unwrap();
        for earlier in [schema::sightings_v1(), schema::sightings_v2()] {
            assert_eq!(SightingsBatch::new(empty(earlier)).unwrap(), last);
        }
    }

    #[test]
    fn empty_batches_are_valid() {
        let batch =
            EventsBatch::new(empty(schema::payloads_v1()), empty(schema::contexts_v1()), empty(schema::events_v1()));
        assert_eq!(LogBatch::Events(batch.unwrap()).rows(), 0);
    }
}
