//! Payloads of senders that do not sum up.

use super::*;

fn decode(bench: &mut Bench, body: &str) -> (Decoded, Vec<Row>) {
    let decoded = bench.decode(body.as_bytes()).unwrap();
    let found = bench.seal();
    assert!(found.letters.is_empty(), "{:?}", found.letters);
    (decoded, found.events)
}

fn kinds(rows: &[Row]) -> Vec<&str> {
    rows.iter().map(|row| row["kind"].as_str().unwrap()).collect()
}

const USER: &str = r#""user":{"key":"u","name":"n"}"#;

#[test]
fn evaluations_become_a_summary() {
    let feature = |rest: &str| format!(r#"{{"kind":"feature","key":"f","default":0,{USER},{rest}}}"#);
    let body = format!(
        "[{},{},{},{},{}]",
        feature(r#""creationDate":3000,"version":7,"variation":1,"value":"a""#),
        feature(r#""creationDate":1000,"version":7,"variation":1,"value":"a""#),
        feature(r#""creationDate":2000,"version":7,"variation":0,"value":"b""#),
        feature(r#""creationDate":2000,"value":"c""#),
        feature(r#""creationDate":9000,"version":7,"variation":0,"excludeFromSummaries":true"#),
    );
    let (decoded, rows) = decode(&mut Bench::unsummarized(), &body);
    assert_eq!((decoded.events, decoded.represented_evaluations), (5, 4));
    assert_eq!(kinds(&rows), ["index", "summary", "summary", "summary"]);
    let counters: Vec<_> = rows[1..]
        .iter()
        .map(|row| json!([row.get("variation"), row.get("version"), row.get("unknown"), row["value"], row["count"]]))
        .collect();
    assert_eq!(
        json!(counters),
        json!([[null, null, true, "\"c\"", 1], [0, 7, null, "\"b\"", 1], [1, 7, null, "\"a\"", 2]])
    );
    for row in &rows[1..] {
        assert_eq!(
            (&row["flag_key"], &row["default_value"], &row["payload_index"]),
            (&json!("f"), &json!("0"), &json!(5))
        );
        assert_eq!((&row["started_at"], &row["ended_at"]), (&json!(1_000_000), &json!(3_000_000)));
        assert_eq!(row["context_kinds"], json!(["user"]));
    }
}

#[test]
fn tracked_and_debugged_evaluations_are_kept() {
    let event = |rest: &str| format!(r#"[{{"kind":"feature","key":"f","version":1,"userKey":"u",{rest}}}]"#);
    let kept = |rest: &str| kinds(&decode(&mut Bench::unsummarized(), &event(rest)).1).join(" ");
    assert_eq!(kept(r#""trackEvents":true,"samplingRatio":4"#), "feature summary");
    assert_eq!(kept(r#""trackEvents":false"#), "summary");
    assert_eq!(kept(r#""debugEventsUntilDate":1800000000001"#), "debug summary");
    assert_eq!(kept(r#""debugEventsUntilDate":1800000000000"#), "summary");
    assert_eq!(kept(r#""trackEvents":true,"debugEventsUntilDate":1900000000000.0"#), "feature debug summary");
    let rows = decode(&mut Bench::unsummarized(), &event(r#""trackEvents":true,"samplingRatio":4,"variation":2"#)).1;
    assert_eq!((&rows[0]["sampling_ratio"], &rows[0]["variation"]), (&json!(4), &json!(2)));
}

#[test]
fn contexts_are_indexed_once_and_not_after_identify() {
    let mut bench = Bench::unsummarized();
    let custom = format!(r#"{{"kind":"custom","key":"k",{USER}}}"#);
    let identify = r#"{"kind":"identify","context":{"kind":"user","key":"v"}}"#;
    let of_v = r#"{"kind":"feature","key":"f","context":{"kind":"user","key":"v"}}"#;
    let body = format!("[{custom},{custom},{identify},{of_v}]");
    assert_eq!(kinds(&decode(&mut bench, &body).1), ["index", "custom", "custom", "identify", "summary"]);
    assert_eq!(kinds(&decode(&mut bench, &body).1), ["custom", "custom", "identify", "summary"]);
}

#[test]
fn shape_decides_where_no_header_does() {
    let legacy = format!(r#"[{{"kind":"custom","key":"k",{USER}}},{{"kind":"feature","key":"f",{USER}}}]"#);
    let modern = r#"[{"kind":"feature","key":"f","context":{"kind":"user","key":"u"}}]"#;
    let mut bench = Bench::new();
    assert_eq!(kinds(&decode(&mut bench, &legacy).1), ["custom", "feature"]);
    bench.head.schema_version = None;
    assert_eq!(
        kinds(&decode(&mut bench, &legacy).1),
        ["custom", "feature"],
        "a header that cannot be read counts as 4"
    );
    bench.head.schema_header_present = false;
    assert_eq!(kinds(&decode(&mut bench, modern).1), ["feature"]);
    assert_eq!(kinds(&decode(&mut bench, &legacy).1), ["index", "custom", "summary"]);
    bench.head.source = Source::Pixel;
    assert_eq!(kinds(&decode(&mut bench, &legacy).1), ["custom", "feature"]);
    bench.head.source = Source::Server;
    bench.head.schema_header_present = true;
    bench.head.schema_version = Some(4);
    bench.head.unsummarized = true;
    assert_eq!(kinds(&decode(&mut bench, modern).1), ["summary"]);
}

#[test]
fn bad_evaluations_count_nothing() {
    let mut bench = Bench::unsummarized();
    let body = r#"[{"kind":"feature","key":"f"},{"kind":"feature","key":3,"userKey":"u"},{"kind":"feature","key":"f","userKey":"u"}]"#;
    let decoded = bench.decode(body.as_bytes()).unwrap();
    assert_eq!((decoded.events, decoded.represented_evaluations, decoded.dead_letters.len()), (1, 1, 2));
}
