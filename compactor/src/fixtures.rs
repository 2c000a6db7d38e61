//! Frames, logs and tables for tests.

pub(crate) mod faults;
pub(crate) mod s3;

use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, BinaryArray, BooleanArray, Int32Array, Int64Array, ListBuilder, MapBuilder, RecordBatch,
    StringArray, StringBuilder, TimestampMicrosecondArray, UInt8Array, UInt32Array, new_null_array,
};
use arrow::datatypes::{Int64Type, SchemaRef};
use bytes::Bytes;
use eventlog::memory::MemoryLog;
use eventlog::{AppendRecord, LogWriter, frame};
use events::{DeadLettersBatch, EventKind, EventsBatch, LogBatch, Topic, TopicPartition, schema};
use runtime::{DurationText, Runtime, UnixMicros};

use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::writer::SerializedFileWriter;

use crate::encode::chunk::{Chunk, ChunkEncoder};
use crate::encode::{Target, parquet_schema};
use crate::expand::{Expansion, Group};
use crate::metrics::Metrics;
use crate::schema::{DEAD_LETTERS, EVENTS, TableSpec};
use crate::table::Table;
use crate::write::properties;
use crate::{Compactor, Config, Error, Result, Steps, Storage, StorageConfig, sql_context_on};

/// 2026-11-22T10:00:00Z
pub(crate) const NOON: UnixMicros = UnixMicros(1_795_341_600_000_000);

/// One event row.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub kind: EventKind,
    pub flag_key: Option<String>,
    pub event_key: Option<String>,
    pub created_at: Option<i64>,
    pub context: Option<String>,
    pub count: Option<i64>,
}

pub(crate) fn feature(flag: &str, context: &str) -> Event {
    Event {
        kind: EventKind::Feature,
        flag_key: Some(flag.into()),
        event_key: None,
        created_at: Some(NOON.0),
        context: Some(context.into()),
        count: None,
    }
}

pub(crate) fn summary(flag: &str, count: i64) -> Event {
    Event { kind: EventKind::Summary, context: None, created_at: None, count: Some(count), ..feature(flag, "") }
}

pub(crate) fn custom(key: &str, context: &str) -> Event {
    Event { kind: EventKind::Custom, flag_key: None, event_key: Some(key.into()), ..feature("", context) }
}

/// One request body.
#[derive(Clone, Debug)]
pub(crate) struct Payload {
    pub environment: &'static str,
    pub id: Option<String>,
    pub received_at: UnixMicros,
    pub events: Vec<Event>,
}

pub(crate) fn payload(id: &str, events: Vec<Event>) -> Payload {
    Payload { environment: "dev", id: (!id.is_empty()).then(|| id.to_owned()), received_at: NOON, events }
}

fn columns(schema: &SchemaRef, rows: usize, named: Vec<(&str, ArrayRef)>) -> RecordBatch {
    for (name, _) in &named {
        assert!(schema.index_of(name).is_ok(), "{name}");
    }
    let column = |name: &str| named.iter().find(|(found, _)| *found == name).map(|(_, column)| Arc::clone(column));
    let columns = (schema.fields().iter())
        .map(|field| column(field.name()).unwrap_or_else(|| new_null_array(field.data_type(), rows)))
        .collect();
    RecordBatch::try_new(Arc::clone(schema), columns).unwrap()
}

fn payload_rows(payloads: &[Payload], rows: &[usize]) -> RecordBatch {
    let count = payloads.len();
    let text = |get: &dyn Fn(&Payload) -> Option<String>| -> ArrayRef {
        Arc::new(payloads.iter().map(get).collect::<StringArray>())
    };
    columns(
        &schema::payloads_v1(),
        count,
        vec![
            ("project", text(&|_| Some("default".into()))),
            ("environment", text(&|payload| Some(payload.environment.into()))),
            ("received_at", times(payloads.iter().map(|payload| Some(payload.received_at.0)))),
            ("payload_id", text(&|payload| payload.id.clone())),
            ("source", text(&|_| Some("server".into()))),
            ("sdk", text(&|_| Some("PythonClient".into()))),
            ("sdk_version", text(&|_| Some("9.17.0".into()))),
            ("schema_version", Arc::new(Int32Array::from(vec![4; count]))),
            ("rows", Arc::new(rows.iter().map(|rows| Some(*rows as u32)).collect::<UInt32Array>())),
            ("path", text(&|_| Some("/bulk".into()))),
            ("headers", text(&|_| Some("{}".into()))),
        ],
    )
}

fn times(values: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(values.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
}

pub(crate) fn events_batch(payloads: &[Payload]) -> LogBatch {
    let rows: Vec<&Event> = payloads.iter().flat_map(|payload| &payload.events).collect();
    let mut contexts: Vec<&str> = rows.iter().filter_map(|event| event.context.as_deref()).collect();
    contexts.sort_unstable();
    contexts.dedup();
    let mut keys = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
    for context in &contexts {
        for (kind, key) in [("org", "acme"), ("user", context)] {
            keys.keys().append_value(kind);
            keys.values().append_value(key);
        }
        keys.append(true).unwrap();
    }
    let context_batch = columns(
        &schema::contexts_v1(),
        contexts.len(),
        vec![
            ("context_kind", Arc::new(StringArray::from(vec!["user"; contexts.len()]))),
            ("context_key", Arc::new(StringArray::from(contexts.clone()))),
            ("context_keys", Arc::new(keys.finish())),
            ("anonymous", Arc::new(BooleanArray::from(vec![false; contexts.len()]))),
            (
                "context",
                Arc::new(
                    contexts
                        .iter()
                        .map(|key| Some(format!(r#"{{"kind":"user","key":"{key}"}}"#)))
                        .collect::<StringArray>(),
                ),
            ),
        ],
    );
    let mut kinds = ListBuilder::new(StringBuilder::new());
    for event in &rows {
        if event.kind == EventKind::Summary {
            kinds.values().append_value("user");
        }
        kinds.append(event.kind == EventKind::Summary);
    }
    let text = |get: &dyn Fn(&Event) -> Option<String>| -> ArrayRef {
        Arc::new(rows.iter().map(|event| get(event)).collect::<StringArray>())
    };
    let context_row = |event: &Event| event.context.as_deref().and_then(|key| contexts.binary_search(&key).ok());
    let index_in_payload = payloads.iter().flat_map(|payload| 0..payload.events.len() as i32);
    let events = columns(
        &schema::events_v1(),
        rows.len(),
        vec![
            ("kind", Arc::new(rows.iter().map(|event| Some(event.kind as u8)).collect::<UInt8Array>())),
            ("payload_index", Arc::new(index_in_payload.collect::<Int32Array>())),
            ("created_at", times(rows.iter().map(|event| event.created_at))),
            (
                "context_row",
                Arc::new(rows.iter().map(|event| context_row(event).map(|row| row as u32)).collect::<UInt32Array>()),
            ),
            ("flag_key", text(&|event| event.flag_key.clone())),
            ("event_key", text(&|event| event.event_key.clone())),
            ("value", text(&|event| event.flag_key.as_ref().map(|_| "true".into()))),
            ("count", Arc::new(rows.iter().map(|event| event.count).collect::<Int64Array>())),
            ("context_kinds", Arc::new(kinds.finish())),
        ],
    );
    let lengths: Vec<usize> = payloads.iter().map(|payload| payload.events.len()).collect();
    let payload_batch = payload_rows(payloads, &lengths);
    LogBatch::Events(EventsBatch::new(payload_batch, context_batch, events).unwrap())
}

/// One dead letter per payload.
pub(crate) fn letters_batch(payloads: &[Payload]) -> LogBatch {
    let count = payloads.len();
    let ids: StringArray = payloads.iter().map(|payload| payload.id.clone().or(Some("none".into()))).collect();
    let letters = columns(
        &schema::dead_letters_v1(),
        count,
        vec![
            ("id", Arc::new(ids)),
            ("reason", Arc::new(StringArray::from(vec!["invalid_json"; count]))),
            ("message", Arc::new(StringArray::from(vec!["expected a value"; count]))),
            ("byte_offset", Arc::new(Int64Array::from(vec![3; count]))),
            ("body", Arc::new(BinaryArray::from_iter_values(vec![b"\xff[{"; count]))),
        ],
    );
    LogBatch::DeadLetters(DeadLettersBatch::new(payload_rows(payloads, &vec![1; count]), letters).unwrap())
}

pub(crate) const EVENTS_0: TopicPartition = TopicPartition::new(Topic::Events, 0);
pub(crate) const EVENTS_1: TopicPartition = TopicPartition::new(Topic::Events, 1);
pub(crate) const LETTERS_0: TopicPartition = TopicPartition::new(Topic::DeadLetters, 0);

/// A log and the storage of its tables.
pub(crate) struct World {
    pub log: MemoryLog,
    pub storage: Storage,
    pub config: Config,
    pub runtime: Runtime,
    folder: Option<tempfile::TempDir>,
}

impl World {
    /// Tables in a temporary folder.
    pub fn local() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = folder.path().to_str().unwrap().to_owned();
        let storage = Storage::open(&StorageConfig { url, ..Default::default() }).unwrap();
        Self { folder: Some(folder), ..Self::on(storage) }
    }

    /// Tables on the given storage.
    pub fn on(storage: Storage) -> Self {
        let runtime = Runtime::simulated(NOON, 7);
        let log = MemoryLog::new(runtime.clock.clone(), [2, 1, 1], "one");
        let config = Config { commit_interval: DurationText::millis(10), merge_files_min: 4, ..Config::default() };
        Self { log, storage, config, runtime, folder: None }
    }

    /// What another process sees: its own clock and entropy, no shared metrics.
    pub fn new_runtime(&self) -> Runtime {
        Runtime {
            clock: self.runtime.clock.clone(),
            entropy: self.runtime.entropy.clone(),
            telemetry: Default::default(),
        }
    }

    pub async fn append(&self, topic_partition: TopicPartition, batch: &LogBatch) {
        self.append_bytes(topic_partition, frame::encode(batch).unwrap()).await;
    }

    pub async fn append_bytes(&self, topic_partition: TopicPartition, frame: Bytes) {
        self.log.append(vec![AppendRecord::new(topic_partition, frame)]).await.unwrap();
    }

    pub async fn events(&self, topic_partition: TopicPartition, payloads: &[Payload]) {
        self.append(topic_partition, &events_batch(payloads)).await;
    }

    pub async fn compactor(&self) -> Compactor {
        self.compactor_dying(Steps::default()).await.unwrap()
    }

    pub async fn compactor_dying(&self, steps: Steps) -> Result<Compactor> {
        let log = Arc::new(self.log.clone());
        Compactor::open_on(self.storage.clone(), &self.config, log, self.new_runtime(), steps).await
    }

    /// Opens a new compactor and lets it land everything.
    pub async fn land(&self) {
        self.compactor().await.land_available().await.unwrap();
    }

    pub fn folder(&self) -> &std::path::Path {
        self.folder.as_ref().unwrap().path()
    }

    pub async fn query(&self, sql: &str) -> Vec<RecordBatch> {
        let context = sql_context_on(&self.storage).await.unwrap();
        context.sql(sql).await.unwrap().collect().await.unwrap()
    }

    /// The single integer that a query gives.
    pub async fn number(&self, sql: &str) -> i64 {
        let batches = self.query(sql).await;
        batches[0].column(0).as_primitive::<Int64Type>().value(0)
    }

    /// The rows of a query as text, one line each.
    pub async fn lines(&self, sql: &str) -> Vec<String> {
        let batches = self.query(sql).await;
        let text = arrow::util::pretty::pretty_format_batches(&batches).unwrap().to_string();
        let rows = text.lines().filter(|line| line.starts_with('|')).skip(1);
        rows.map(|line| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>().join(" ")).collect()
    }

    /// Panics unless every row of `expected` payload ids is in the table exactly once.
    pub async fn expect_rows(&self, expected: i64) {
        let found = self.lines("SELECT count(*), count(DISTINCT log_partition * 1000000000 + log_offset * 10000 + log_row) FROM events").await;
        assert_eq!(found, [format!("{expected} {expected}")]);
    }
}

pub(crate) fn is_stopped<T>(result: Result<T>) -> bool {
    matches!(result, Err(Error::Stopped(_)))
}

impl World {
    /// A table as another process sees it.
    pub async fn table(&self, spec: &'static TableSpec) -> Table {
        let runtime = self.new_runtime();
        let metrics = Metrics::new(&runtime.telemetry);
        Table::open(spec, &self.storage, self.config.vacuum_age.get(), runtime, metrics).await.unwrap()
    }

    /// Live files of the table `events`.
    pub async fn compactor_files(&self) -> usize {
        let state = crate::table::load::load("events", &self.storage.table("events")).await.unwrap();
        state.unwrap().files.len()
    }
}

/// The rows of a group as a reader of its file sees them.
pub(crate) async fn rows_of(expansion: &Expansion<'_>, group: &Group) -> RecordBatch {
    let spec = if group.partition.contains_key("kind") { &EVENTS } else { &DEAD_LETTERS };
    let (schema, mut encoder) = (parquet_schema(spec), ChunkEncoder::new(Some(1)).unwrap());
    let properties = Arc::new(properties(spec, Some(1)));
    let target = Target { encoder: &mut encoder, schema: &schema, properties: &properties, chunks: Vec::new() };
    let chunks = expansion.encode(&group.rows, target).await.unwrap();
    read_chunks(spec, chunks)
}

/// One row group as a file, read back.
pub(crate) fn read_chunks(spec: &TableSpec, chunks: Vec<Chunk>) -> RecordBatch {
    let properties = Arc::new(properties(spec, Some(1)));
    let mut writer = SerializedFileWriter::new(Vec::new(), parquet_schema(spec).root_schema_ptr(), properties).unwrap();
    let mut row_group = writer.next_row_group().unwrap();
    for chunk in chunks {
        row_group.append_column(&chunk.bytes, chunk.close).unwrap();
    }
    row_group.close().unwrap();
    let file = Bytes::from(writer.into_inner().unwrap());
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().with_batch_size(1 << 20).build().unwrap();
    let batches: Vec<_> = reader.map(std::result::Result::unwrap).collect();
    arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap()
}
