//! The certificate of an erasure: what was asked, where it was looked for, what was removed, and what is left until when.
//!
//! It is read by people who have to show that something is gone, so it says what it does not reach. `sha256` is over the JSON
//! of all the rest: keys sorted, no blanks, UTF-8. `python3 -c "import json,hashlib,sys; c=json.load(sys.stdin);
//! s=c.pop('sha256'); print(s==hashlib.sha256(json.dumps(c,sort_keys=True,separators=(',',':'),ensure_ascii=False).encode()).hexdigest())"`
//! checks it.

use std::time::Duration;

use runtime::UnixMicros;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::record::{Record, TableDone};

/// How long what an erasure does not reach stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leftovers {
    /// Replaced files of tables are deleted after this time.
    pub vacuum_age: Duration,
    /// Commits of tables, whose statistics name smallest and largest keys, are kept for this time.
    pub table_log: Duration,
    /// The log may forget what is older.
    pub log_retention: Duration,
    /// Partitions of tables that are older are dropped; zero: never.
    pub table_retention: Duration,
    /// States that hold off late events, under a hash, leave the index after this time.
    pub index_retention: Duration,
}

/// Columns of `events` that are blanked.
const BLANKED: [&str; 8] =
    ["context_key", "context_keys", "context", "previous_key", "data", "url", "selector", "extra"];

pub fn certificate(record: &Record, leftovers: Leftovers, now: UnixMicros) -> Value {
    let totals = &record.totals;
    let mut certificate = json!({
        "erasure": record.id,
        "asked": {
            "at": shown_time(UnixMicros(record.asked_at)),
            "byRole": record.role,
            "project": record.project,
            "environment": record.environment,
            "by": if record.is_filter { "filter" } else { "contexts" },
            "subjectSha256": record.subject_sha256,
        },
        "erasedUntil": shown_time(UnixMicros(record.at)),
        "finishedAt": shown_time(now),
        "contexts": {
            "count": totals.contexts,
            "sha256": totals.contexts_sha256,
            "windowsSha256": totals.windows_sha256,
        },
        "removed": {
            "index": {
                "searchedShards": totals.merged_segments.len(),
                "documents": totals.documents,
                "replacedSegments": totals.merged_segments,
                "termDictionaries": "of the replaced segments, so that look-ups while typing do not know them",
            },
            "copies": copies(totals.copies.as_deref()),
            "eventsTable": table(totals.events.as_ref(), "rows that lost what is about a person", &BLANKED),
            "contextsTable": table(totals.states.as_ref(), "rows removed", &[]),
        },
        "notReached": not_reached(record, leftovers, now),
    });
    let digest = sha256(canonical(&certificate).as_bytes());
    certificate["sha256"] = digest.into();
    certificate
}

fn copies(copies: Option<&[(u64, u64)]>) -> Value {
    match copies {
        None => json!("this server keeps no copies of the index"),
        Some(copies) => {
            copies.iter().map(|(sequence, removed)| json!({"copy": sequence, "removedObjects": removed})).collect()
        }
    }
}

fn table(done: Option<&TableDone>, rows_are: &str, columns: &[&str]) -> Value {
    let Some(done) = done else { return json!("this server does not write the table; it was not searched") };
    let mut told = json!(done);
    told["rowsAre"] = rows_are.into();
    if !columns.is_empty() {
        told["columns"] = json!(columns);
    }
    told
}

fn not_reached(record: &Record, leftovers: Leftovers, now: UnixMicros) -> Value {
    let after = |age: Duration| shown_time(now.saturating_add(age));
    let totals = &record.totals;
    let mut left = Vec::new();
    let tables = [("events", &totals.events), ("contexts", &totals.states)];
    for (name, done) in tables.into_iter().filter_map(|(name, done)| Some((name, done.as_ref()?))) {
        if done.replaced_files > 0 {
            left.push(json!({
                "place": format!("files of the table {name} that versions up to {} name", done.version_after.saturating_sub(1)),
                "until": after(leftovers.vacuum_age),
                "because": "readers of older versions need them; vacuum deletes them",
            }));
            left.push(json!({
                "place": format!("statistics in the log of the table {name}"),
                "until": after(leftovers.table_log),
                "because": "commits name the smallest and the largest key of files, also of replaced ones",
            }));
        }
        if done.foreign_files > 0 {
            left.push(json!({
                "place": format!("{} files of other writers in the table {name}", done.foreign_files),
                "because": "this program does not rewrite what it did not write",
            }));
        }
    }
    left.push(json!({
        "place": "segments of the log",
        "until": after(leftovers.log_retention),
        "because": "at the earliest: a segment goes as a whole, when it is full and all of it is as old as that",
    }));
    left.push(match leftovers.table_retention.is_zero() {
        true => json!({"place": "dead letters", "because": "bytes that could not be read are kept without limit"}),
        false => json!({
            "place": "dead letters",
            "until": after(leftovers.table_retention),
            "because": "bytes that could not be read are not searched; old ones are dropped",
        }),
    });
    left.push(json!({
        "place": "hashes of the keys in the index and in the table contexts",
        "until": shown_time(UnixMicros(record.at).saturating_add(leftovers.index_retention)),
        "because": "they hold off what was received before and comes late",
    }));
    if record.totals.copies.is_some() {
        left.push(json!({
            "place": "versions of objects that the bucket itself keeps",
            "because": "where versioning is switched on, only its own rules remove them",
        }));
    }
    Value::Array(left)
}

/// RFC 3339.
pub fn shown_time(time: UnixMicros) -> String {
    indexer::api::rfc3339(time).unwrap_or_else(|| format!("{} us", time.0))
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// JSON text whose keys are sorted.
fn canonical(value: &Value) -> String {
    fn sorted(value: &Value) -> Value {
        match value {
            Value::Object(fields) => {
                let mut names: Vec<&String> = fields.keys().collect();
                names.sort_unstable();
                let fields = names.into_iter().map(|name| (name.clone(), sorted(&fields[name])));
                Value::Object(fields.collect::<Map<_, _>>())
            }
            Value::Array(items) => items.iter().map(sorted).collect(),
            other => other.clone(),
        }
    }
    sorted(value).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_the_same_however_fields_are_ordered() {
        assert_eq!(canonical(&json!({"b": [{"d": 1, "c": "é"}], "a": null})), r#"{"a":null,"b":[{"c":"é","d":1}]}"#);
        assert_eq!(sha256(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
