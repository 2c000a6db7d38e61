//! Decoding whole bodies: what each test sends, and the rows it finds, as JSON objects of the columns that are not null.

use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType, UInt8Type, UInt32Type};
use events::{Environment, LogBatch, Source};
use runtime::Entropy;
use serde_json::{Map, Value, json};

use super::*;
use crate::recent::Sighted;

mod frame;
mod golden;
mod kinds;
mod lenient;
mod properties;
mod recorded;
mod sightings;
mod unsummarized;

pub(super) const NOW: UnixMicros = UnixMicros::from_millis(1_800_000_000_000);

pub(super) type Row = Map<String, Value>;

/// A decoder with everything around it.
pub(super) struct Bench {
    pub head: PayloadHead,
    pub recent: RecentContexts,
    pub rows: OpenRows,
    pub decoder: Decoder,
    /// Sightings of the batch that was sealed last.
    sighted: Vec<Sighted>,
}

/// What decoding and sealing gave.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Events with the columns of their contexts.
    pub events: Vec<Row>,
    pub sightings: Vec<Row>,
    pub letters: Vec<Row>,
    pub contexts: usize,
}

impl Bench {
    pub fn new() -> Self {
        let environment = Environment::new("default", "dev");
        let head = PayloadHead {
            environment_hash: environment.hash(),
            environment,
            received_at: NOW,
            payload_id: Some("payload-1".into()),
            source: Source::Server,
            sdk: Some("GoClient".into()),
            sdk_version: Some("7.14.6".into()),
            wrapper: None,
            instance_id: None,
            application_id: None,
            application_version: None,
            schema_version: Some(4),
            unsummarized: false,
            schema_header_present: true,
            trace: None,
            path: "/bulk".into(),
            headers: http::HeaderMap::new(),
        };
        Self {
            head,
            recent: RecentContexts::new(10_000, Duration::from_secs(60)),
            rows: OpenRows::new([2, 1, 1], Entropy::seeded(7)),
            decoder: Decoder::new(),
            sighted: Vec::new(),
        }
    }

    /// A sender of schema 2, which does not sum up.
    pub fn unsummarized() -> Self {
        let mut bench = Self::new();
        bench.head.schema_version = Some(2);
        bench
    }

    pub fn decode(&mut self, body: &[u8]) -> Result<Decoded, BodyError> {
        let place = Place { events_partition: 1, dead_letters_partition: 0 };
        self.decoder.decode(Payload { head: &self.head, body, place }, &self.recent, &mut self.rows)
    }

    pub fn seal(&mut self) -> Found {
        let mut found = Found::default();
        let records = self.rows.encode().unwrap();
        self.sighted = self.rows.take_sighted();
        self.rows.clear();
        for record in records {
            match eventlog::frame::decode(&record.frame).unwrap() {
                LogBatch::Events(batch) => {
                    let contexts = rows_of(batch.contexts());
                    found.contexts += contexts.len();
                    for mut row in rows_of(batch.events()) {
                        if let Some(number) = row.remove("context_row") {
                            row.extend(contexts[number.as_u64().unwrap() as usize].clone());
                        }
                        let kind = row["kind"].as_u64().unwrap() as usize;
                        row.insert("kind".into(), events::EventKind::ALL[kind].as_str().into());
                        found.events.push(row);
                    }
                }
                LogBatch::Sightings(batch) => found.sightings.extend(rows_of(batch.sightings())),
                LogBatch::DeadLetters(batch) => found.letters.extend(rows_of(batch.letters())),
            }
        }
        found
    }

    pub fn acknowledge(&mut self) {
        self.recent.acknowledge(&self.sighted, NOW);
    }
}

/// Decodes one body that is readable.
pub(super) fn found(body: &str) -> Found {
    let mut bench = Bench::new();
    let decoded = bench.decode(body.as_bytes()).unwrap();
    let found = bench.seal();
    assert_eq!(decoded.rows as usize, found.events.len());
    assert_eq!(decoded.dead_letters.len(), found.letters.len());
    found
}

/// Decodes one event that gives one row.
pub(super) fn row(event: &str) -> Row {
    let mut found = found(&format!("[{event}]"));
    assert_eq!((found.events.len(), found.letters.len()), (1, 0), "{event}: {:?}", found.letters);
    found.events.remove(0)
}

/// Decodes one event that cannot be used: its reason and message.
pub(super) fn refused(event: &str) -> (String, String) {
    let good = r#"{"kind":"custom","key":"good","userKey":"u"}"#;
    let found = found(&format!("[{good}, {event} ,{good}]"));
    assert_eq!((found.events.len(), found.letters.len()), (2, 1), "{event}: {:?}", found.letters);
    let letter = &found.letters[0];
    assert_eq!(letter["body"], event, "the dead letter holds the bytes of its event");
    assert_eq!(letter["payload_index"], 1);
    (letter["reason"].as_str().unwrap().into(), letter["message"].as_str().unwrap().into())
}

/// Rows of a batch as objects without nulls; JSON columns stay text.
pub(super) fn rows_of(batch: &RecordBatch) -> Vec<Row> {
    let mut rows = vec![Row::new(); batch.num_rows()];
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        for (number, row) in rows.iter_mut().enumerate().filter(|(number, _)| column.is_valid(*number)) {
            row.insert(field.name().clone(), value_of(column.as_ref(), number));
        }
    }
    rows
}

fn value_of(column: &dyn Array, row: usize) -> Value {
    match column.data_type() {
        DataType::UInt8 => column.as_primitive::<UInt8Type>().value(row).into(),
        DataType::UInt32 => column.as_primitive::<UInt32Type>().value(row).into(),
        DataType::Int32 => column.as_primitive::<Int32Type>().value(row).into(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).into(),
        DataType::Float64 => column.as_primitive::<Float64Type>().value(row).into(),
        DataType::Timestamp(..) => column.as_primitive::<TimestampMicrosecondType>().value(row).into(),
        DataType::Boolean => column.as_boolean().value(row).into(),
        DataType::Utf8 => column.as_string::<i32>().value(row).into(),
        DataType::Binary => String::from_utf8_lossy(column.as_binary::<i32>().value(row)).into(),
        DataType::List(_) => {
            let items = column.as_list::<i32>().value(row);
            (0..items.len()).map(|item| value_of(items.as_ref(), item)).collect()
        }
        DataType::Map(..) => {
            let entries = column.as_map().value(row);
            let pair = |entry| (value_of(entries.column(0), entry), value_of(entries.column(1), entry));
            let pairs = (0..entries.len()).map(pair);
            pairs.map(|(key, value)| (key.as_str().unwrap().to_owned(), value)).collect::<Row>().into()
        }
        other => json!(other.to_string()),
    }
}
