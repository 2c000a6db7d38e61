//! The open columns of events, payloads and dead letters, in the order of their schemas.

use eventlog::frame::{RecordWriter, Section};

use super::column::{Column, Flag, Number, Text, TextList, TextMap};
use crate::payload::PayloadHead;

/// Microseconds since the epoch.
type Time = Number<i64>;
type Long = Number<i64>;

/// A struct of columns named as in a schema and in its order, with the row count and the operations on all of them.
macro_rules! columns {
    ($(#[$meta:meta])* $name:ident in $section:path { $($field:ident: $type:ty),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Default)]
        pub(crate) struct $name {
            pub rows: usize,
            $(pub $field: $type,)+
        }

        impl $name {
            #[cfg(test)]
            pub const NAMES: &[&str] = &[$(stringify!($field)),+];

            /// Forgets rows from `rows` on, also one that was begun and not counted yet.
            #[allow(dead_code, reason = "not every batch is ever cut")]
            pub fn truncate(&mut self, rows: usize) {
                $(self.$field.truncate(rows);)+
                self.rows = rows;
            }

            pub fn bytes(&self) -> usize {
                0 $(+ self.$field.bytes())+
            }

            /// Writes all rows as the next section of a record.
            pub fn write(&self, record: &mut RecordWriter) {
                let mut section = record.section($section, self.rows);
                $(self.$field.write(&mut section);)+
            }

            /// Forgets all rows, keeping memory for the next batch.
            pub fn clear(&mut self) {
                self.rows = 0;
                $(self.$field.clear();)+
            }
        }
    };
}

columns! {
    /// Rows of events.
    EventColumns in Section::Events {
        kind: Number<u8>,
        payload_index: Number<i32>,
        created_at: Time,
        context_row: Number<u32>,
        flag_key: Text,
        event_key: Text,
        variation: Long,
        version: Long,
        value: Text,
        default_value: Text,
        reason: Text,
        data: Text,
        reason_kind: Text,
        rule_id: Text,
        rule_index: Long,
        in_experiment: Flag,
        prerequisite_of: Text,
        sampling_ratio: Long,
        exclude_from_summaries: Flag,
        count: Long,
        unknown: Flag,
        started_at: Time,
        ended_at: Time,
        context_kinds: TextList,
        metric_value: Number<f64>,
        url: Text,
        selector: Text,
        operation: Text,
        invoked_old: Flag,
        invoked_new: Flag,
        consistent: Flag,
        error_old: Flag,
        error_new: Flag,
        consistent_sampling_ratio: Long,
        latency_old_ms: Number<f64>,
        latency_new_ms: Number<f64>,
        previous_key: Text,
        previous_context_kind: Text,
        extra: Text,
    }
}

columns! {
    /// Distinct contexts.
    ContextColumns in Section::Contexts {
        context_kind: Text,
        context_key: Text,
        context_keys: TextMap,
        anonymous: Flag,
        context: Text,
    }
}

columns! {
    SightingColumns in Section::Sightings {
        project: Text,
        environment: Text,
        kind: Text,
        key: Text,
        anonymous: Flag,
        context: Text,
        seen_at: Time,
        received_at: Time,
        application: Text,
        instance_key: Text,
        anonymous_kinds: Text,
        // No sighting is one; only the search API writes those.
        deleted: Flag,
        erased: Flag,
    }
}

columns! {
    LetterColumns in Section::DeadLetters {
        id: Text,
        payload_index: Number<i32>,
        reason: Text,
        message: Text,
        byte_offset: Long,
        body: Text,
    }
}

columns! {
    PayloadColumns in Section::Payloads {
        project: Text,
        environment: Text,
        received_at: Time,
        payload_id: Text,
        source: Text,
        sdk: Text,
        sdk_version: Text,
        wrapper: Text,
        instance_id: Text,
        application_id: Text,
        application_version: Text,
        schema_version: Number<i32>,
        payload_rows: Number<u32>,
        path: Text,
        headers: Text,
    }
}

/// The payloads of an open micro-batch.
#[derive(Debug, Default)]
pub(crate) struct OpenPayloads {
    columns: PayloadColumns,
    environment_hashes: Vec<u64>,
}

impl OpenPayloads {
    pub fn bytes(&self) -> usize {
        self.columns.bytes()
    }

    /// Rows of the main batch that belong to the payloads.
    pub fn claimed_rows(&self) -> usize {
        self.columns.payload_rows.values().iter().map(|rows| *rows as usize).sum()
    }

    /// Writes the index entry of each payload.
    pub fn write_index(&self, record: &mut RecordWriter) {
        let PayloadColumns { payload_rows, payload_id, .. } = &self.columns;
        for (row, (hash, rows)) in self.environment_hashes.iter().zip(payload_rows.values()).enumerate() {
            record.payload(*hash, *rows, (!payload_id.is_null(row)).then(|| payload_id.get(row)));
        }
    }

    pub fn write(&self, record: &mut RecordWriter) {
        self.columns.write(record);
    }

    pub fn clear(&mut self) {
        self.columns.clear();
        self.environment_hashes.clear();
    }

    /// Appends one payload with `rows` rows of the main batch. `with_request`: path and headers too.
    pub fn push(&mut self, head: &PayloadHead, rows: u32, with_request: bool) {
        self.environment_hashes.push(head.environment_hash);
        self.columns.push(head, rows, with_request);
    }
}

impl PayloadColumns {
    fn push(&mut self, head: &PayloadHead, rows: u32, with_request: bool) {
        let row = self.rows;
        self.project.put(row, head.environment.project.as_bytes());
        self.environment.put(row, head.environment.key.as_bytes());
        self.received_at.put(row, head.received_at.0);
        self.payload_id.put_opt(row, head.payload_id.as_deref());
        self.source.put(row, head.source.as_str().as_bytes());
        self.sdk.put_opt(row, head.sdk.as_deref());
        self.sdk_version.put_opt(row, head.sdk_version.as_deref());
        self.wrapper.put_opt(row, head.wrapper.as_deref());
        self.instance_id.put_opt(row, head.instance_id.as_deref());
        self.application_id.put_opt(row, head.application_id.as_deref());
        self.application_version.put_opt(row, head.application_version.as_deref());
        self.schema_version.put_opt(row, head.schema_version);
        self.payload_rows.put(row, rows);
        if with_request {
            self.path.put(row, head.path.as_bytes());
            self.headers.put_with(row, |out| write_headers(out, &head.headers));
        }
        self.rows += 1;
    }
}

/// A JSON object of the headers; a repeated header has its values joined by `, `.
fn write_headers(out: &mut Vec<u8>, headers: &http::HeaderMap) {
    out.push(b'{');
    for (number, name) in headers.keys().enumerate() {
        if number > 0 {
            out.push(b',');
        }
        crate::decode::text::push_json_text(out, name.as_str());
        out.push(b':');
        let values: Vec<_> =
            headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        crate::decode::text::push_json_text(out, &values.join(", "));
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use events::schema;

    use super::*;

    #[test]
    fn columns_have_the_names_and_order_of_their_schemas() {
        for (names, schema) in [
            (EventColumns::NAMES, schema::events_v1()),
            (ContextColumns::NAMES, schema::contexts_v1()),
            (SightingColumns::NAMES, schema::sightings_v3()),
            (LetterColumns::NAMES, schema::dead_letters_v1()),
            (PayloadColumns::NAMES, schema::payloads_v1()),
        ] {
            let expected: Vec<_> = schema.fields().iter().map(|field| field.name().as_str()).collect();
            let found: Vec<_> = names.iter().map(|name| if *name == "payload_rows" { "rows" } else { name }).collect();
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn headers_are_one_object() {
        let mut headers = http::HeaderMap::new();
        headers.append("accept", "a".parse().unwrap());
        headers.append("accept", "\"b\"".parse().unwrap());
        let mut out = Vec::new();
        write_headers(&mut out, &headers);
        assert_eq!(out, br#"{"accept":"a, \"b\""}"#);
    }
}
