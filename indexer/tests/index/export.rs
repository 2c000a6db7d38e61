//! Exports through the API: whole, in parts, in every format, and what they refuse.

use std::collections::BTreeSet;

use axum::body::Body;
use http::StatusCode;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::common::{BASE, Flow, Seen, ago, get, new_log, post, until_async, user};

const EXPORT: &str = "/api/v2/projects/shop/environments/prod/contexts/export";
const NEXT: &str = "x-tidegate-continuation-token";
const TOTAL: &str = "x-tidegate-total-count";

async fn with_users(dir: &std::path::Path, count: usize) -> Flow {
    let flow = Flow::start(dir, new_log());
    let plan = |n: usize| if n.is_multiple_of(3) { "gold" } else { "silver" };
    for start in (0..count).step_by(5000) {
        let seen: Vec<_> = (start..count.min(start + 5000)).map(|n| user(n, plan(n), 100)).collect();
        flow.append(&seen).await;
    }
    flow.caught_up().await;
    flow
}

/// Rows of an NDJSON export, and the token of the next part.
async fn rows(flow: &Flow, question: &Value) -> (Vec<Value>, Option<String>, Option<u64>) {
    let (status, headers, body) = flow.call_bytes(post(EXPORT, question)).await;
    assert_eq!(status, StatusCode::OK, "{body:?}");
    let text = String::from_utf8(body.to_vec()).unwrap();
    let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let rows = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (rows, header(NEXT), header(TOTAL).map(|total| total.parse().unwrap()))
}

fn keys(rows: &[Value]) -> Vec<String> {
    rows.iter().map(|row| row["key"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn all_matches_are_exported_once_and_in_order_over_many_windows() {
    let dir = tempfile::tempdir().unwrap();
    // More than two windows.
    let count = 45_000;
    let flow = with_users(dir.path(), count).await;
    let (rows, next, total) = rows(&flow, &json!({"columns": ["key", "plan"]})).await;
    let mut expected: Vec<_> = (0..count).map(|n| format!("u{n:03}")).collect();
    expected.sort_unstable();
    assert_eq!(keys(&rows), expected);
    assert_eq!((next, total), (None, Some(count as u64)));
    assert_eq!(rows[0], json!({"key": "u000", "plan": "gold"}));
    flow.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_can_be_asked_for_again_and_miss_nothing_while_contexts_arrive() {
    let dir = tempfile::tempdir().unwrap();
    let flow = with_users(dir.path(), 100).await;
    let question = |token: &Option<String>| match token {
        None => json!({"filter": "plan equals gold", "columns": ["key"], "limit": 7}),
        Some(token) => {
            json!({"filter": "plan equals gold", "columns": ["key"], "limit": 7, "continuationToken": token})
        }
    };
    let (mut token, mut found) = (None, Vec::new());
    for part in 0.. {
        let (first, next, _) = rows(&flow, &question(&token)).await;
        let (again, next_again, _) = rows(&flow, &question(&token)).await;
        assert_eq!((&first, &next), (&again, &next_again));
        found.extend(keys(&first));
        // Before and behind the place.
        flow.see(&[user(0, "gold", 1), user(900 + part, "gold", 1)]).await;
        token = next;
        if token.is_none() {
            break;
        }
    }
    let distinct: BTreeSet<_> = found.iter().cloned().collect();
    assert_eq!(distinct.len(), found.len(), "no context twice");
    let missing: Vec<_> =
        (0..100).step_by(3).map(|n| format!("u{n:03}")).filter(|key| !distinct.contains(key)).collect();
    assert_eq!(missing, Vec::<String>::new());
    flow.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn formats_tell_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let flow = with_users(dir.path(), 9).await;
    let query = |format: &str| format!("{EXPORT}?filter=plan+equals+gold&columns=key,n,/plan,none&format={format}");
    let (status, headers, csv) = flow.call_bytes(get(&query("csv"))).await;
    assert_eq!((status, &headers["content-type"]), (StatusCode::OK, &"text/csv; charset=utf-8".parse().unwrap()));
    assert_eq!(csv, "key,n,/plan,none\r\nu000,0,gold,\r\nu003,3,gold,\r\nu006,6,gold,\r\n");
    let (_, _, ndjson) = flow.call_bytes(get(&query("ndjson"))).await;
    let text = String::from_utf8(ndjson.to_vec()).unwrap();
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!((text.lines().count(), last), (3, json!({"key": "u006", "n": 6, "/plan": "gold", "none": null})));
    let (_, headers, parquet) = flow.call_bytes(get(&query("parquet"))).await;
    assert_eq!(headers["content-type"], "application/vnd.apache.parquet");
    let file = ParquetRecordBatchReaderBuilder::try_new(parquet).unwrap();
    assert_eq!(file.metadata().file_metadata().num_rows(), 3);
    let names: Vec<_> = file.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["key", "n", "/plan", "none"]);
    flow.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_of_applications_are_exported_without_being_counted_first() {
    let dir = tempfile::tempdir().unwrap();
    let flow = Flow::start(dir.path(), new_log());
    let seen: Vec<_> = (0..20)
        .flat_map(|n| {
            let by = |application: &str, ago_seconds| user(n, "gold", ago_seconds).by(application);
            if n % 2 == 0 { vec![by("web", 50)] } else { vec![by("web", 50), by("ios", 100)] }
        })
        .collect();
    flow.see(&seen).await;
    let filter = "applicationId notEquals web,applicationId equals ios";
    let (rows, _, total) = rows(&flow, &json!({"filter": filter, "columns": ["key", "applicationId"]})).await;
    assert_eq!(rows.len(), 10);
    assert!(rows.iter().all(|row| row["applicationId"] == "ios"));
    assert_eq!(total, None);
    flow.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_meant_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let flow = with_users(dir.path(), 9).await;
    let (_, token, _) = rows(&flow, &json!({"limit": 2})).await;
    for (question, part) in [
        (json!({"format": "xlsx"}), "expected csv, ndjson or parquet"),
        (json!({"columns": ["key", "key"]}), "\"key\" is given twice"),
        (json!({"columns": "key"}), "expected a list of texts"),
        (json!({"limit": 0}), "at least 1"),
        (json!({"filter": "plan equals"}), "at offset"),
        (json!({"filter": "plan equals gold", "continuationToken": token}), "belongs to another"),
        (json!({"continuationToken": "AAAA"}), "damaged"),
    ] {
        let (status, answer) = flow.post(EXPORT, &question).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{question}");
        assert!(answer["message"].as_str().unwrap().contains(part), "{answer}");
    }
    let (status, _) = flow.post(&format!("{EXPORT}?format=csv"), &json!({"columns": ["key"]})).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let (status, _) = flow.get(&format!("{}/contexts/export", BASE.replace("prod", "nowhere"))).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    flow.stop().await;
}

/// A client that reads nothing holds a place; two of them hold all.
#[tokio::test(flavor = "multi_thread")]
async fn few_exports_run_at_once_and_a_client_that_leaves_makes_room() {
    let dir = tempfile::tempdir().unwrap();
    let flow = Flow::start(dir.path(), new_log());
    // More bytes than wait for a client.
    let text = "x".repeat(20_000);
    let wide = |n: usize| Seen::context(&json!({"kind": "user", "key": n.to_string(), "text": text}), ago(5));
    flow.see(&(0..100).map(wide).collect::<Vec<_>>()).await;
    let ask = || async { flow.api.clone().oneshot(get(EXPORT)).await.unwrap() };
    let (first, second) = (ask().await, ask().await);
    assert_eq!((first.status(), second.status()), (StatusCode::OK, StatusCode::OK));
    assert_eq!(ask().await.status(), StatusCode::SERVICE_UNAVAILABLE);
    drop(first);
    until_async(async || {
        let response = ask().await;
        let is_served = response.status() == StatusCode::OK;
        assert!(is_served || response.status() == StatusCode::SERVICE_UNAVAILABLE);
        is_served
    })
    .await;
    let body = axum::body::to_bytes(Body::new(second.into_body()), usize::MAX).await.unwrap();
    assert_eq!(body.iter().filter(|byte| **byte == b'\n').count(), 100);
    flow.stop().await;
}
