//! Columns of the Delta tables, in Delta's and in Arrow's words.
//!
//! One list per table says everything about a column: its type, whether it may be null, whether it is a partition
//! column and whether its smallest and largest value are worth keeping. The Arrow schema of the files and the schema
//! text of the Delta metadata are both derived from it. Adding a nullable column at the end is allowed; anything else
//! needs a new table version.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use serde_json::{Value, json};

/// Delta types that occur.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnType {
    Text,
    Int,
    Long,
    Double,
    Boolean,
    Timestamp,
    Date,
    Binary,
    TextMap,
    TimeMap,
    TextList,
}

/// One column.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    pub name: &'static str,
    pub column_type: ColumnType,
    pub nullable: bool,
    /// Part of the folder name instead of the file.
    pub partition: bool,
    /// Smallest, largest value and number of nulls are kept per file and row group, because queries can skip by them.
    pub stats: bool,
    /// Values repeat; a dictionary pays.
    pub dictionary: bool,
}

/// What the compactor needs to know of a table.
#[derive(Debug)]
pub struct TableSpec {
    pub name: &'static str,
    pub columns: &'static [Column],
    /// Order of rows within a file: per key, the columns of which the first that is not null counts.
    pub sort: &'static [&'static [&'static str]],
    /// Integer columns that together identify a row; merges compare a sum over their hashes.
    pub key: &'static [&'static str],
}

use ColumnType::{Binary, Boolean, Date, Double, Int, Long, Text, TextList, TextMap, TimeMap, Timestamp};

const fn required(name: &'static str, column_type: ColumnType) -> Column {
    Column { name, column_type, nullable: false, partition: false, stats: false, dictionary: true }
}

const fn optional(name: &'static str, column_type: ColumnType) -> Column {
    Column { nullable: true, ..required(name, column_type) }
}

impl Column {
    const fn partition(self) -> Self {
        Self { partition: true, ..self }
    }

    const fn stats(self) -> Self {
        Self { stats: true, ..self }
    }

    /// Nearly every value differs: a dictionary would be built and thrown away.
    const fn plain(self) -> Self {
        Self { dictionary: false, ..self }
    }
}

/// One row per event, and one per counter of a `summary`.
pub static EVENTS: TableSpec = TableSpec {
    name: "events",
    columns: &[
        required("event_date", Date).partition(),
        required("kind", Text).partition(),
        required("project", Text).stats(),
        required("environment", Text).stats(),
        required("received_at", Timestamp).stats(),
        optional("created_at", Timestamp).stats().plain(),
        optional("payload_id", Text),
        required("payload_index", Int),
        required("log_partition", Int).stats(),
        required("log_offset", Long).stats(),
        required("log_row", Int),
        required("source", Text),
        optional("sdk", Text),
        optional("sdk_version", Text),
        optional("wrapper", Text),
        optional("instance_id", Text),
        optional("application_id", Text),
        optional("application_version", Text),
        optional("schema_version", Int),
        optional("context_kind", Text),
        optional("context_key", Text).stats(),
        optional("context_keys", TextMap),
        optional("anonymous", Boolean),
        optional("context", Text),
        optional("flag_key", Text).stats(),
        optional("event_key", Text).stats(),
        optional("variation", Long),
        optional("version", Long),
        optional("value", Text),
        optional("default_value", Text),
        optional("reason", Text),
        optional("data", Text),
        optional("reason_kind", Text),
        optional("rule_id", Text),
        optional("rule_index", Long),
        optional("in_experiment", Boolean),
        optional("prerequisite_of", Text),
        optional("sampling_ratio", Long),
        optional("exclude_from_summaries", Boolean),
        optional("count", Long),
        optional("unknown", Boolean),
        optional("started_at", Timestamp),
        optional("ended_at", Timestamp),
        optional("context_kinds", TextList),
        optional("metric_value", Double),
        optional("url", Text),
        optional("selector", Text),
        optional("operation", Text),
        optional("invoked_old", Boolean),
        optional("invoked_new", Boolean),
        optional("consistent", Boolean),
        optional("error_old", Boolean),
        optional("error_new", Boolean),
        optional("consistent_sampling_ratio", Long),
        optional("latency_old_ms", Double),
        optional("latency_new_ms", Double),
        optional("previous_key", Text),
        optional("previous_context_kind", Text),
        optional("extra", Text),
    ],
    sort: &[&["project"], &["environment"], &["flag_key", "event_key"], &["created_at"]],
    key: &["log_partition", "log_offset", "log_row"],
};

/// What could not be read. `project` and `environment` are null only for an unreadable log record.
pub static DEAD_LETTERS: TableSpec = TableSpec {
    name: "dead_letters",
    columns: &[
        required("event_date", Date).partition(),
        required("id", Text).stats().plain(),
        required("received_at", Timestamp).stats(),
        optional("project", Text).stats(),
        optional("environment", Text).stats(),
        optional("payload_id", Text),
        optional("payload_index", Int),
        optional("path", Text),
        optional("headers", Text),
        required("reason", Text).stats(),
        required("message", Text),
        optional("byte_offset", Long),
        required("body", Binary).plain(),
        required("log_partition", Int),
        required("log_offset", Long),
        required("log_row", Int),
        optional("redriven_at", Timestamp),
    ],
    sort: &[&["project"], &["environment"], &["received_at"]],
    key: &["log_partition", "log_offset", "log_row"],
};

/// What became of the rows of the log, per commit, environment and hour of receipt.
pub static LEDGER: TableSpec = TableSpec {
    name: "ledger",
    columns: &[
        required("project", Text),
        required("environment", Text),
        required("hour", Timestamp).stats(),
        required("accepted", Long),
        required("landed", Long),
        required("deduplicated", Long),
        required("dead_lettered", Long),
        required("source_table", Text),
        required("source_version", Long).stats(),
    ],
    sort: &[&["project"], &["environment"], &["hour"]],
    key: &["hour", "source_version", "accepted", "landed"],
};

/// Newest states of contexts, as the index knew them. Rows of a higher `sequence` replace those of the same context in the
/// same `log_partition` (see `crate::contexts`).
pub static CONTEXTS: TableSpec = TableSpec {
    name: "contexts",
    columns: &[
        required("log_partition", Int).partition(),
        required("sequence", Long).partition(),
        required("project", Text).stats(),
        required("environment", Text).stats(),
        required("kind", Text),
        required("key", Text).stats().plain(),
        required("anonymous", Boolean),
        required("last_seen", Timestamp).stats().plain(),
        optional("attributes_at", Timestamp).plain(),
        required("applications", TimeMap),
        required("context", Text).plain(),
        required("content_hash", Long).plain(),
    ],
    sort: &[],
    key: &["last_seen"],
};

impl ColumnType {
    pub fn arrow(self) -> DataType {
        match self {
            Text => DataType::Utf8,
            Int => DataType::Int32,
            Long => DataType::Int64,
            Double => DataType::Float64,
            Boolean => DataType::Boolean,
            Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Date => DataType::Date32,
            Binary => DataType::Binary,
            // Names as the Parquet format asks for, so that every reader sees a map and a list.
            TextMap => {
                let entries = vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Utf8, true)];
                DataType::Map(Arc::new(Field::new("key_value", DataType::Struct(entries.into()), false)), false)
            }
            TimeMap => {
                let entries =
                    vec![Field::new("key", DataType::Utf8, false), Field::new("value", Timestamp.arrow(), false)];
                DataType::Map(Arc::new(Field::new("key_value", DataType::Struct(entries.into()), false)), false)
            }
            TextList => DataType::List(Arc::new(Field::new("element", DataType::Utf8, true))),
        }
    }

    fn delta(self) -> Value {
        match self {
            Text => json!("string"),
            Int => json!("integer"),
            Long => json!("long"),
            Double => json!("double"),
            Boolean => json!("boolean"),
            Timestamp => json!("timestamp"),
            Date => json!("date"),
            Binary => json!("binary"),
            TextMap => json!({"type": "map", "keyType": "string", "valueType": "string", "valueContainsNull": true}),
            TimeMap => {
                json!({"type": "map", "keyType": "string", "valueType": "timestamp", "valueContainsNull": false})
            }
            TextList => json!({"type": "array", "elementType": "string", "containsNull": true}),
        }
    }
}

impl TableSpec {
    /// Columns of a data file: all but the partition columns.
    pub fn file_columns(&self) -> impl Iterator<Item = &'static Column> {
        self.columns.iter().filter(|column| !column.partition)
    }

    pub fn partition_columns(&self) -> impl Iterator<Item = &'static str> {
        self.columns.iter().filter(|column| column.partition).map(|column| column.name)
    }

    /// Schema of a data file.
    pub fn file_schema(&self) -> SchemaRef {
        schema_of(self.file_columns())
    }

    /// Schema that queries see.
    pub fn table_schema(&self) -> SchemaRef {
        schema_of(self.columns.iter())
    }

    /// The `schemaString` of the Delta metadata.
    pub fn delta_schema(&self) -> Value {
        let fields: Vec<Value> = self
            .columns
            .iter()
            .map(|column| {
                json!({"name": column.name, "type": column.column_type.delta(), "nullable": column.nullable, "metadata": {}})
            })
            .collect();
        json!({"type": "struct", "fields": fields})
    }
}

fn schema_of(columns: impl Iterator<Item = &'static Column>) -> SchemaRef {
    let fields: Vec<Field> =
        columns.map(|column| Field::new(column.name, column.column_type.arrow(), column.nullable)).collect();
    Arc::new(Schema::new(fields))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text of every table's schema, held against a file: a change here is a change for everybody who queries.
    #[test]
    fn tables_match_the_golden_file() {
        let mut text = String::new();
        for spec in [&EVENTS, &DEAD_LETTERS, &LEDGER, &CONTEXTS] {
            text.push_str(&format!("{}: sorted by {:?}, key {:?}\n", spec.name, spec.sort, spec.key));
            for column in spec.columns {
                let null = if column.nullable { ", null" } else { "" };
                let partition = if column.partition { ", partition" } else { "" };
                let stats = if column.stats { ", statistics" } else { "" };
                let delta = column.column_type.delta();
                text.push_str(&format!("  {}: {delta}{null}{partition}{stats}\n", column.name));
            }
        }
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/src/schema.golden"), &text).unwrap();
        }
        assert_eq!(text, include_str!("schema.golden"));
    }

    /// Every column of the log's batches has a place in the table, but for those that only describe the batch itself.
    #[test]
    fn no_column_of_the_log_is_lost() {
        let names: Vec<_> = EVENTS.columns.iter().map(|column| column.name).collect();
        for schema in [events::schema::payloads_v1(), events::schema::contexts_v1(), events::schema::events_v1()] {
            for field in schema.fields() {
                let describes_batch = ["rows", "path", "headers", "context_row"].contains(&field.name().as_str());
                assert!(describes_batch || names.contains(&field.name().as_str()), "{}", field.name());
            }
        }
    }
}
