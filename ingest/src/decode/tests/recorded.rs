//! Every request that real SDKs sent: nothing in the dead letters, and the counts that the recording says.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use base64::Engine;

use super::*;

fn folder() -> PathBuf {
    "../tests/fixtures/sdk".into()
}

struct Request {
    method: String,
    payload_id: Option<String>,
    schema: Option<i32>,
    source: Source,
    body: Vec<u8>,
}

fn read(file: &Path) -> Request {
    let request: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let header = |name: &str| {
        let headers = request["headers"].as_object().unwrap();
        let found = headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str().unwrap().to_owned())
    };
    let path = request["path"].as_str().unwrap();
    let mut body = match (&request["body"], &request["body_base64"]) {
        (Value::String(text), _) => text.clone().into_bytes(),
        (_, Value::String(text)) => base64::engine::general_purpose::STANDARD.decode(text).unwrap(),
        _ => Vec::new(),
    };
    if header("content-encoding").as_deref() == Some("gzip") {
        let mut unpacked = vec![0; 1 << 20];
        let bytes = libdeflater::Decompressor::new().gzip_decompress(&body, &mut unpacked).unwrap();
        unpacked.truncate(bytes);
        body = unpacked;
    }
    if path.ends_with(".gif") {
        let query = request["query"].as_str().unwrap();
        body = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(query.strip_prefix("d=").unwrap()).unwrap();
    }
    Request {
        method: request["method"].as_str().unwrap().into(),
        payload_id: header("x-launchdarkly-payload-id"),
        schema: header("x-launchdarkly-event-schema").map(|text| text.parse().unwrap()),
        source: if path.ends_with(".gif") { Source::Pixel } else { Source::Server },
        body,
    }
}

#[test]
fn recorded_requests_count_what_the_recording_says() {
    let expected: BTreeMap<String, Value> =
        serde_json::from_slice(&std::fs::read(folder().join("expected.json")).unwrap()).unwrap();
    assert!(expected.len() > 40);
    for (name, expected) in &expected {
        let mut bench = Bench::new();
        let mut seen = HashSet::new();
        let (mut kinds, mut flags) = (BTreeMap::<String, u64>::new(), BTreeMap::<String, u64>::new());
        let mut represented = 0;
        let mut files: Vec<_> =
            std::fs::read_dir(folder().join(name)).unwrap().map(|file| file.unwrap().path()).collect();
        files.sort();
        for file in files {
            let request = read(&file);
            let repeated = request.payload_id.as_ref().is_some_and(|id| !seen.insert(id.clone()));
            if request.method == "OPTIONS" || repeated {
                continue;
            }
            bench.head.payload_id = request.payload_id.map(Into::into);
            bench.head.schema_version = request.schema;
            bench.head.schema_header_present = request.schema.is_some();
            bench.head.source = request.source;
            let decoded = bench.decode(&request.body).unwrap();
            assert_eq!(decoded.dead_letters, [], "{}", file.display());
            represented += decoded.represented_evaluations;
            let found = bench.seal();
            assert_same_json(&request.body, &found.events, &file);
            let mut indexes = HashSet::new();
            for row in &found.events {
                if indexes.insert(row["payload_index"].as_u64()) {
                    *kinds.entry(row["kind"].as_str().unwrap().into()).or_default() += 1;
                }
                // Rust sends a few evaluations of which no summary knows.
                represented -= u64::from(row.get("exclude_from_summaries") == Some(&json!(true)));
                if row["kind"] == "summary" {
                    let flag = row["flag_key"].as_str().unwrap().to_owned();
                    *flags.entry(flag).or_default() += row["count"].as_u64().unwrap();
                }
            }
        }
        assert_eq!(json!(kinds), expected["events"], "{name}");
        assert_eq!(json!(flags), expected["byFlag"], "{name}");
        assert_eq!(represented, expected["summaryEvaluations"].as_u64().unwrap(), "{name}");
    }
}

/// JSON columns and keys hold what the source says, read by another reader.
fn assert_same_json(body: &[u8], rows: &[Row], file: &Path) {
    let source: Value = serde_json::from_slice(body).unwrap();
    let lone = [source.clone()];
    let source = source.as_array().map_or(&lone[..], |events| events);
    for row in rows {
        let event = &source[row["payload_index"].as_u64().unwrap() as usize];
        let parsed =
            |column: &str| row.get(column).map(|text| serde_json::from_str::<Value>(text.as_str().unwrap()).unwrap());
        let non_null = |field: &str| event.get(field).filter(|value| !value.is_null()).cloned();
        if event["context"]["kind"].is_string() {
            assert_eq!(parsed("context"), non_null("context"), "{}", file.display());
        }
        match row["kind"].as_str().unwrap() {
            "feature" | "debug" => {
                assert_eq!(Some(&event["key"]), row.get("flag_key"));
                for (column, field) in [("value", "value"), ("default_value", "default"), ("reason", "reason")] {
                    assert_eq!(parsed(column), non_null(field), "{}", file.display());
                }
                assert_eq!(non_null("variation"), row.get("variation").cloned());
            }
            "custom" => {
                assert_eq!(Some(&event["key"]), row.get("event_key"));
                assert_eq!(parsed("data"), non_null("data"));
                assert_eq!(event["metricValue"].as_f64(), row.get("metric_value").and_then(Value::as_f64));
            }
            "diagnostic" | "diagnostic-init" | "diagnostic-combined" => {
                assert_eq!(parsed("data").as_ref(), Some(event))
            }
            _ => {}
        }
    }
}

#[test]
fn repeated_contexts_are_stored_once() {
    let request = read(&folder().join("python-server-9.17.0/002.json"));
    let source: Value = serde_json::from_slice(&request.body).unwrap();
    let distinct: HashSet<String> =
        source.as_array().unwrap().iter().filter_map(|event| event.get("context")).map(Value::to_string).collect();
    let mut bench = Bench::new();
    for _ in 0..3 {
        bench.decode(&request.body).unwrap();
    }
    assert_eq!(bench.seal().contexts, distinct.len());
}
