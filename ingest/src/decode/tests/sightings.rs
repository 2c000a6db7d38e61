//! Which contexts an event makes known, and which sightings are left out.

use super::*;

fn custom(context: &str) -> String {
    format!(r#"{{"kind":"custom","key":"k","creationDate":1795274938346,"context":{context}}}"#)
}

fn pairs(found: &Found) -> Vec<(String, Option<String>)> {
    let text = |row: &Row, column: &str| row.get(column).map(|value| value.as_str().unwrap().to_owned());
    found.sightings.iter().map(|row| (text(row, "key").unwrap(), text(row, "context"))).collect()
}

const A: &str = r#"{"kind":"user","key":"u","plan":"a"}"#;
const B: &str = r#"{"kind":"user","key":"u","plan":"b"}"#;

#[test]
fn a_sighting_says_who_when_and_through_what() {
    let mut bench = Bench::new();
    bench.head.application_id = Some("checkout".into());
    bench.decode(format!("[{}]", custom(r#"{"kind":"org","key":"a:b","anonymous":true}"#)).as_bytes()).unwrap();
    let found = bench.seal();
    let expected = json!({"project":"default","environment":"dev","kind":"org","key":"a:b","anonymous":true,
        "context":r#"{"kind":"org","key":"a:b","anonymous":true}"#,"seen_at":1_795_274_938_346_000_i64,
        "received_at":NOW.0,"application":"checkout","anonymous_kinds":"org"});
    assert_eq!(json!(found.sightings), json!([expected]));
}

#[test]
fn each_part_of_a_multi_context_is_sighted() {
    let found = found(&format!("[{}]", custom(r#"{"user":{"key":"u"},"kind":"multi","org":{"key":"o","x":1}}"#)));
    let expected = [("o", r#"{"kind":"org","key":"o","x":1}"#), ("u", r#"{"kind":"user","key":"u"}"#)];
    let expected: Vec<_> = expected.iter().map(|(key, json)| (key.to_string(), Some(json.to_string()))).collect();
    assert_eq!(pairs(&found), expected);
    assert!(found.sightings.iter().all(|row| row["instance_key"] == "org:o:user:u"));
    assert_eq!(found.sightings[0]["application"], "GoClient/7.14.6");
}

#[test]
fn a_combination_is_named_by_its_parts_that_are_not_anonymous() {
    let context =
        r#"{"kind":"multi","user":{"key":"x1","anonymous":true},"org":{"key":"o"},"tab":{"key":"t","anonymous":true}}"#;
    let sightings = found(&format!("[{}]", custom(context))).sightings;
    assert_eq!(sightings.len(), 3);
    assert!(sightings.iter().all(|row| row["instance_key"] == "org:o" && row["anonymous_kinds"] == "tab,user"));
    let other = context.replace("x1", "x2");
    let sightings = found(&format!("[{},{}]", custom(context), custom(&other))).sightings;
    let keys: Vec<_> = sightings.iter().map(|row| row["key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["o", "t", "x1", "x2"], "another anonymous user makes no other combination");
}

#[test]
fn nobody_is_seen_in_the_future() {
    let event = custom(A).replace("1795274938346", "1900000000000");
    assert_eq!(found(&format!("[{event}]")).sightings[0]["seen_at"], NOW.0);
}

#[test]
fn repeats_in_a_batch_are_left_out_and_changes_are_not() {
    let body =
        |contexts: &[&str]| format!("[{}]", contexts.iter().map(|json| custom(json)).collect::<Vec<_>>().join(","));
    assert_eq!(found(&body(&[A, A, A])).sightings.len(), 1);
    let found = found(&body(&[A, B, A, A, B, B]));
    let plans: Vec<_> = pairs(&found).into_iter().map(|(_, json)| json.unwrap()).collect();
    assert_eq!(plans, [A, B, A, B], "the last sighting is the newest state");
    assert_eq!(found.contexts, 2);
}

#[test]
fn keys_alone_are_sighted_if_nothing_else_is() {
    let keys = r#"{"kind":"custom","key":"k","contextKeys":{"user":"u"}}"#;
    let found = found(&format!("[{keys},{keys},{},{keys}]", custom(A)));
    assert_eq!(pairs(&found), [("u".to_owned(), None), ("u".to_owned(), Some(A.to_owned()))]);
}

#[test]
fn acknowledged_sightings_are_not_repeated() {
    let mut bench = Bench::new();
    let body = format!("[{},{}]", custom(A), custom(r#"{"kind":"multi","user":{"key":"u"},"org":{"key":"o"}}"#));
    let first = bench.decode(body.as_bytes()).unwrap().sightings;
    assert_eq!(first, 3);
    bench.seal();
    assert_eq!(bench.decode(body.as_bytes()).unwrap().sightings, 3, "the first batch was not acknowledged");
    bench.seal();
    bench.acknowledge();
    let only_a = format!("[{}]", custom(r#"{"kind":"org","key":"o2"}"#));
    bench.decode(only_a.as_bytes()).unwrap();
    bench.seal();
    bench.acknowledge();
    assert_eq!(bench.decode(only_a.as_bytes()).unwrap().sightings, 0);
    let found = bench.seal();
    assert!(found.sightings.is_empty() && found.events.len() == 1);
}

#[test]
fn another_environment_or_application_is_another_sighting() {
    let mut bench = Bench::new();
    let body = format!("[{}]", custom(A));
    assert_eq!(bench.decode(body.as_bytes()).unwrap().sightings, 1);
    bench.head.application_id = Some("other".into());
    assert_eq!(bench.decode(body.as_bytes()).unwrap().sightings, 1);
    bench.head.environment = Environment::new("default", "live");
    bench.head.environment_hash = bench.head.environment.hash();
    assert_eq!(bench.decode(body.as_bytes()).unwrap().sightings, 1);
    assert_eq!(bench.decode(body.as_bytes()).unwrap().sightings, 0);
    assert_eq!(bench.seal().contexts, 1);
}
