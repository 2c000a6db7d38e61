//! Arrow schemas of what a log record holds. Part of the log format: columns are only ever appended, in a new version.
//!
//! | batch | one row per | found in topic |
//! |---|---|---|
//! | [`payloads_v1`] | request body, with what its headers and path said | `events`, `dead_letters` |
//! | [`contexts_v1`] | distinct context of the micro-batch | `events` |
//! | [`events_v1`] | event, and one per counter of a `summary` | `events` |
//! | [`sightings_v3`] | single context that some event named, or that is to be forgotten | `contexts` |
//! | [`dead_letters_v1`] | event or body that could not be read | `dead_letters` |
//!
//! What is constant within a payload stands once in `payloads`, and a context that many events name stands once in
//! `contexts`: the record stays small, and neither the decoder nor the compactor copies the same text again and again.
//! "JSON" is compact JSON text exactly as sent. All times are UTC microseconds.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

/// Type of every time column.
pub fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// Type of `context_keys`: context kind to key, entries sorted by kind.
pub fn context_keys() -> DataType {
    let entries = Field::new(
        "entries",
        DataType::Struct(
            vec![Field::new("keys", DataType::Utf8, false), Field::new("values", DataType::Utf8, true)].into(),
        ),
        false,
    );
    DataType::Map(Arc::new(entries), false)
}

/// Type of `context_kinds`.
pub fn text_list() -> DataType {
    DataType::List(Arc::new(Field::new("item", DataType::Utf8, true)))
}

fn required(name: &str, data_type: DataType) -> Field {
    Field::new(name, data_type, false)
}

fn optional(name: &str, data_type: DataType) -> Field {
    Field::new(name, data_type, true)
}

fn text(name: &str) -> Field {
    optional(name, DataType::Utf8)
}

/// One row per payload of the micro-batch, in the order of its rows.
///
/// `rows`: how many consecutive rows of the record's main batch belong to it. `headers` and `path` are filled in the
/// `dead_letters` topic only.
pub fn payloads_v1() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        Arc::new(Schema::new(vec![
            required("project", DataType::Utf8),
            required("environment", DataType::Utf8),
            required("received_at", timestamp()),
            text("payload_id"),
            required("source", DataType::Utf8),
            text("sdk"),
            text("sdk_version"),
            text("wrapper"),
            text("instance_id"),
            text("application_id"),
            text("application_version"),
            optional("schema_version", DataType::Int32),
            required("rows", DataType::UInt32),
            text("path"),
            text("headers"),
        ]))
    });
    SCHEMA.clone()
}

/// Distinct contexts of the micro-batch.
///
/// `context_key` is the fully-qualified key; `context` is null where only keys were sent.
pub fn contexts_v1() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        Arc::new(Schema::new(vec![
            text("context_kind"),
            text("context_key"),
            optional("context_keys", context_keys()),
            optional("anonymous", DataType::Boolean),
            text("context"),
        ]))
    });
    SCHEMA.clone()
}

/// Rows of events. `kind` is the code of `EventKind`; `context_row` is a row number of the record's contexts batch.
pub fn events_v1() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        Arc::new(Schema::new(vec![
            required("kind", DataType::UInt8),
            required("payload_index", DataType::Int32),
            optional("created_at", timestamp()),
            optional("context_row", DataType::UInt32),
            text("flag_key"),
            text("event_key"),
            optional("variation", DataType::Int64),
            optional("version", DataType::Int64),
            text("value"),
            text("default_value"),
            text("reason"),
            text("data"),
            text("reason_kind"),
            text("rule_id"),
            optional("rule_index", DataType::Int64),
            optional("in_experiment", DataType::Boolean),
            text("prerequisite_of"),
            optional("sampling_ratio", DataType::Int64),
            optional("exclude_from_summaries", DataType::Boolean),
            optional("count", DataType::Int64),
            optional("unknown", DataType::Boolean),
            optional("started_at", timestamp()),
            optional("ended_at", timestamp()),
            optional("context_kinds", text_list()),
            optional("metric_value", DataType::Float64),
            text("url"),
            text("selector"),
            text("operation"),
            optional("invoked_old", DataType::Boolean),
            optional("invoked_new", DataType::Boolean),
            optional("consistent", DataType::Boolean),
            optional("error_old", DataType::Boolean),
            optional("error_new", DataType::Boolean),
            optional("consistent_sampling_ratio", DataType::Int64),
            optional("latency_old_ms", DataType::Float64),
            optional("latency_new_ms", DataType::Float64),
            text("previous_key"),
            text("previous_context_kind"),
            text("extra"),
        ]))
    });
    SCHEMA.clone()
}

/// Sightings of single contexts; each part of a multi-context is a row of its own.
///
/// `context`: JSON of the single context (`kind`, `key`, attributes, `_meta.redactedAttributes`); null where only its key
/// was sent. `seen_at`: when the event was created, never later than `received_at`. `application`: id from the SDK's
/// tags, else `sdk/version`. `instance_key`: canonical key of the combination it was evaluated in.
pub fn sightings_v1() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        Arc::new(Schema::new(vec![
            required("project", DataType::Utf8),
            required("environment", DataType::Utf8),
            required("kind", DataType::Utf8),
            required("key", DataType::Utf8),
            required("anonymous", DataType::Boolean),
            text("context"),
            required("seen_at", timestamp()),
            required("received_at", timestamp()),
            text("application"),
            text("instance_key"),
        ]))
    });
    SCHEMA.clone()
}

/// [`sightings_v1`] with what came later.
///
/// `instance_key` names the parts that are not anonymous, and is null where all are. `anonymous_kinds`: kinds of the other
/// parts, joined by commas. `deleted`: true where the row is no sighting but the wish of a client to forget what was seen up
/// to `seen_at`: the combination, if there is an `instance_key`, else the context.
pub fn sightings_v2() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        let mut fields: Vec<Field> = sightings_v1().fields().iter().map(|field| (**field).clone()).collect();
        fields.extend([text("anonymous_kinds"), optional("deleted", DataType::Boolean)]);
        Arc::new(Schema::new(fields))
    });
    SCHEMA.clone()
}

/// [`sightings_v2`] with what came later.
///
/// `erased`: true beside `deleted` where the context is to be erased: everything that was *received* up to `seen_at` of it
/// and of all combinations that it is a part of goes, also what is still on its way, and no key of it is kept. Such a row
/// stands in every partition, as combinations lie in that of their first part.
pub fn sightings_v3() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        let mut fields: Vec<Field> = sightings_v2().fields().iter().map(|field| (**field).clone()).collect();
        fields.push(optional("erased", DataType::Boolean));
        Arc::new(Schema::new(fields))
    });
    SCHEMA.clone()
}

/// What could not be read. `payload_index` is null for a whole body; `byte_offset` counts from the start of the unpacked
/// body; `body` holds the event's bytes, or the whole body.
pub fn dead_letters_v1() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        Arc::new(Schema::new(vec![
            required("id", DataType::Utf8),
            optional("payload_index", DataType::Int32),
            required("reason", DataType::Utf8),
            required("message", DataType::Utf8),
            optional("byte_offset", DataType::Int64),
            required("body", DataType::Binary),
        ]))
    });
    SCHEMA.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text of every schema, held against a file: a change here is a change of the log format.
    #[test]
    fn schemas_match_the_golden_file() {
        let mut text = String::new();
        for (name, schema) in [
            ("payloads_v1", payloads_v1()),
            ("contexts_v1", contexts_v1()),
            ("events_v1", events_v1()),
            ("sightings_v1", sightings_v1()),
            ("sightings_v2", sightings_v2()),
            ("sightings_v3", sightings_v3()),
            ("dead_letters_v1", dead_letters_v1()),
        ] {
            text.push_str(name);
            text.push('\n');
            for field in schema.fields() {
                let null = if field.is_nullable() { ", null" } else { "" };
                text.push_str(&format!("  {}: {}{null}\n", field.name(), field.data_type()));
            }
        }
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/src/schema.golden"), &text).unwrap();
        }
        assert_eq!(text, include_str!("schema.golden"));
    }
}
