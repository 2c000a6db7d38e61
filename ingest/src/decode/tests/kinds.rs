//! Rules of single kinds.

use super::*;

fn extra(row: &Row) -> Value {
    row.get("extra").map_or(Value::Null, |text| serde_json::from_str(text.as_str().unwrap()).unwrap())
}

#[test]
fn unknown_kinds_are_kept_whole() {
    let event = r#"{"kind":"brand-new","creationDate":1795274938346,"key":5,"context":7,"x":{"y":[1.50]}}"#;
    let row = row(event);
    assert_eq!((&row["kind"], &row["extra"]), (&json!("other"), &json!(event)));
    assert_eq!(row["created_at"], 1_795_274_938_346_000_i64);
    assert!(!row.contains_key("context_key"));
}

#[test]
fn unknown_fields_are_kept_as_sent() {
    let row =
        row(r#"{"kind":"identify","context":{"kind":"user","key":"u"},"new":[1.0,{}],"trackEvents":true,"url":"x"}"#);
    assert_eq!(extra(&row), json!({"new":[1.0,{}],"trackEvents":true,"url":"x"}));
}

#[test]
fn identify_repeats_its_key_only_if_it_is_another() {
    let identify =
        |key: &str| row(&format!(r#"{{"kind":"identify","key":"{key}","context":{{"kind":"org","key":"a:b"}}}}"#));
    assert!(!identify("org:a%3Ab").contains_key("extra"));
    assert_eq!(extra(&identify("other")), json!({"key":"other"}));
}

#[test]
fn diagnostics_keep_their_whole_object() {
    let event = r#"{"id":{"diagnosticId":"d"},"droppedEvents":3,"kind":"diagnostic","creationDate":1.795274998683E12}"#;
    let mut bench = Bench::new();
    assert_eq!(bench.decode(event.as_bytes()).unwrap().sdk_dropped_events, 3);
    let row = bench.seal().events.remove(0);
    assert_eq!((&row["data"], &row["kind"]), (&json!(event), &json!("diagnostic")));
    assert_eq!(row["created_at"], 1_795_274_998_683_000_i64);
    assert!(!row.contains_key("extra"));
}

#[test]
fn what_a_kind_needs_is_asked_for() {
    let reason = |event: &str| refused(event).0;
    for event in [
        r#"{}"#,
        r#"{"key":"k"}"#,
        r#"{"kind":null}"#,
        r#"{"kind":"feature","userKey":"u"}"#,
        r#"{"kind":"feature","key":"f"}"#,
        r#"{"kind":"debug","key":"f"}"#,
        r#"{"kind":"custom","key":"k"}"#,
        r#"{"kind":"index"}"#,
        r#"{"kind":"identify","key":"u"}"#,
        r#"{"kind":"alias","key":"u"}"#,
        r#"{"kind":"summary"}"#,
        r#"{"kind":"summary","features":{"f":{"counters":[{"value":1}]}}}"#,
        r#"{"kind":"migration_op","userKey":"u","operation":"read"}"#,
        r#"{"kind":"migration_op","userKey":"u","evaluation":{"key":"f"}}"#,
        r#"{"kind":"migration_op","userKey":"u","operation":"read","evaluation":{}}"#,
        r#"{"kind":"migration_op","operation":"read","evaluation":{"key":"f"}}"#,
    ] {
        assert_eq!(reason(event), "missing_field", "{event}");
    }
    for event in [
        r#"{"kind":7}"#,
        r#"{"kind":"feature","key":7,"userKey":"u"}"#,
        r#"{"kind":"custom","key":["k"],"userKey":"u"}"#,
        r#"{"kind":"summary","features":3}"#,
        r#"{"kind":"summary","features":{"f":3}}"#,
        r#"{"kind":"summary","features":{"f":{"counters":3}}}"#,
        r#"{"kind":"summary","features":{"f":{"counters":[{"count":1},3]}}}"#,
        r#"{"kind":"summary","features":{"f":{"counters":[{"count":1.5}]}}}"#,
        r#"{"kind":"summary","features":{"f":{"counters":[{"count":-1}]}}}"#,
        r#"{"kind":"migration_op","userKey":"u","operation":"read","evaluation":3}"#,
        r#"{"kind":"migration_op","userKey":"u","operation":1,"evaluation":{"key":"f"}}"#,
    ] {
        assert_eq!(reason(event), "wrong_type", "{event}");
    }
}

#[test]
fn contexts_that_identify_nobody_are_refused() {
    for context in [
        r#"3"#,
        r#"{"kind":"user"}"#,
        r#"{"kind":"user","key":""}"#,
        r#"{"kind":"user","key":3}"#,
        r#"{"kind":"","key":"u"}"#,
        r#"{"kind":"a b","key":"u"}"#,
        r#"{"kind":"kind","key":"u"}"#,
        r#"{"kind":3,"key":"u"}"#,
        r#"{"kind":"user","key":"u","anonymous":"yes"}"#,
        r#"{"kind":"multi"}"#,
        r#"{"kind":"multi","user":"u"}"#,
        r#"{"kind":"multi","user":{"key":""}}"#,
        r#"{"kind":"multi","a b":{"key":"u"}}"#,
        r#"{"name":"no key"}"#,
    ] {
        let event = format!(r#"{{"kind":"custom","key":"k","context":{context}}}"#);
        assert_eq!(refused(&event).0, "bad_context", "{event}");
    }
    for keys in [r#"3"#, r#"{}"#, r#"{"user":null}"#, r#"{"user":[]}"#, r#"{"a b":"u"}"#, r#"{"org":""}"#] {
        let event = format!(r#"{{"kind":"custom","key":"k","contextKeys":{keys}}}"#);
        assert_eq!(refused(&event).0, "bad_context", "{event}");
    }
    assert_eq!(refused(r#"{"kind":"custom","key":"k","userKey":{}}"#).0, "bad_context");
}

fn context(fields: &str) -> Row {
    let mut row = row(&format!(r#"{{"kind":"custom","key":"k",{fields}}}"#));
    row.retain(|column, _| column.starts_with("context") || column == "anonymous" || column == "extra");
    row
}

fn of(value: Value) -> Row {
    value.as_object().unwrap().clone()
}

#[test]
fn contexts_in_every_form() {
    assert_eq!(
        context(r#""context":{"key":"a:b","kind":"org","anonymous":true}"#),
        of(json!({"context_kind":"org","context_key":"org:a%3Ab","context_keys":{"org":"a:b"},"anonymous":true,
            "context":r#"{"key":"a:b","kind":"org","anonymous":true}"#}))
    );
    let multi = r#"{"user":{"key":"u","anonymous":true},"kind":"multi","org":{"key":"o","a":{"key":3}}}"#;
    assert_eq!(
        context(&format!(r#""context":{multi}"#)),
        of(json!({"context_kind":"multi","context_key":"org:o:user:u","context_keys":{"org":"o","user":"u"},
            "anonymous":false,"context":multi}))
    );
    assert_eq!(
        context(r#""context":{"kind":"multi","org":{"key":"o"}}"#),
        of(json!({"context_kind":"org","context_key":"org:o","context_keys":{"org":"o"},"anonymous":false,
            "context":r#"{"kind":"org","key":"o"}"#}))
    );
    assert_eq!(
        context(r#""contextKeys":{"user":"u","org":"o"}"#),
        of(json!({"context_kind":"multi","context_key":"org:o:user:u","context_keys":{"org":"o","user":"u"}}))
    );
    assert_eq!(
        context(r#""userKey":17,"contextKind":"anonymousUser""#),
        of(json!({"context_kind":"user","context_key":"17","context_keys":{"user":"17"},"anonymous":true,
            "extra":r#"{"contextKind":"anonymousUser"}"#}))
    );
    assert_eq!(
        context(r#""user":{"key":"u","secondary":"s","custom":{"a":1},"anonymous":false}"#),
        of(json!({"context_kind":"user","context_key":"u","context_keys":{"user":"u"},"anonymous":false,
            "context":r#"{"kind":"user","key":"u","a":1}"#,"extra":r#"{"secondary":"s"}"#}))
    );
}

#[test]
fn the_first_form_present_counts_and_others_are_kept() {
    let row = context(r#""userKey":"x","context":null,"contextKeys":{"user":"u"}"#);
    assert_eq!((&row["context_key"], &row["extra"]), (&json!("u"), &json!(r#"{"userKey":"x"}"#)));
}

#[test]
fn private_attributes_are_dropped() {
    let row = context(
        r#""context":{"kind":"multi","user":{"key":"u","email":"e","_meta":{"privateAttributes":["email"]}},"org":{"key":"o"}}"#,
    );
    assert_eq!(row["context"], r#"{"kind":"multi","org":{"key":"o"},"user":{"key":"u"}}"#);
}

#[test]
fn what_users_say_beside_attributes_stands_with_each_event() {
    let event = r#"{"kind":"custom","key":"k","user":{"key":"u","secondary":"s"}}"#;
    let found = found(&format!("[{event},{event}]"));
    assert_eq!(found.contexts, 1);
    for row in &found.events {
        assert_eq!(row["extra"], r#"{"secondary":"s"}"#);
    }
}

fn summary(features: &str) -> Vec<Row> {
    let found =
        found(&format!(r#"[{{"features":{features},"startDate":1000,"endDate":2000,"kind":"summary","x":1}}]"#));
    assert!(found.letters.is_empty(), "{:?}", found.letters);
    found.events
}

#[test]
fn each_counter_is_a_row() {
    let rows = summary(
        r#"{"f":{"counters":[{"count":2,"value":"a","variation":0,"version":9},{"count":3,"unknown":true,"odd":1,"version":"v"}],
        "default":"d","contextKinds":["user","org"],"note":{}},"g":{"counters":[{"count":1,"value":null}]}}"#,
    );
    let common = json!({"kind":"summary","payload_index":0,"started_at":1_000_000,"ended_at":2_000_000});
    let row = |mut rest: Value| {
        rest.as_object_mut().unwrap().extend(common.as_object().unwrap().clone());
        of(rest)
    };
    assert_eq!(
        rows,
        [
            row(
                json!({"flag_key":"f","default_value":"\"d\"","context_kinds":["user","org"],"count":2,"value":"\"a\"",
                "variation":0,"version":9,"extra":r#"{"x":1,"feature":{"note":{}}}"#})
            ),
            row(json!({"flag_key":"f","default_value":"\"d\"","context_kinds":["user","org"],"count":3,"unknown":true,
                "extra":r#"{"counter":{"odd":1,"version":"v"}}"#})),
            row(json!({"flag_key":"g","context_kinds":["user"],"count":1})),
        ]
    );
}

#[test]
fn summaries_without_counters_do_not_vanish() {
    for features in ["{}", "[]"] {
        let rows = summary(features);
        assert_eq!(rows.len(), 1);
        assert!(!rows[0].contains_key("flag_key") && !rows[0].contains_key("count"));
    }
    let rows = summary(r#"{"f":{"default":1,"counters":[]},"g":null}"#);
    assert_eq!((&rows[0]["flag_key"], &rows[0]["default_value"]), (&json!("f"), &json!("1")));
    assert_eq!(rows[1]["flag_key"], "g");
}

#[test]
fn repeated_flags_and_features_count_once() {
    let counts = |rows: &[Row]| rows.iter().map(|row| row["count"].as_i64().unwrap()).collect::<Vec<_>>();
    let rows =
        summary(r#"{"f":{"counters":[{"count":1}]},"g":{"counters":[{"count":2}]},"f":{"counters":[{"count":4}]}}"#);
    assert_eq!(counts(&rows), [2, 4]);
    let rows = summary(r#"{"f":{"counters":[{"count":1,"odd":1}],"counters":[{"count":2}]}}"#);
    assert_eq!(counts(&rows), [2]);
    let body = r#"[{"kind":"summary","features":{"f":{"counters":[{"count":1}]}},"features":{"g":{"counters":[{"count":2}]}}}]"#;
    let mut bench = Bench::new();
    assert_eq!(bench.decode(body.as_bytes()).unwrap().represented_evaluations, 2);
    assert_eq!(counts(&bench.seal().events), [2]);
}

#[test]
fn features_of_other_kinds_are_a_field_like_any() {
    let features = r#"{"f":{"counters":[{"count":1}]}}"#;
    let row = row(&format!(r#"{{"features":{features},"kind":"custom","key":"k","userKey":"u"}}"#));
    assert_eq!(row["extra"], format!(r#"{{"features":{features}}}"#));
    let row = self::row(r#"{"features":{"f":3},"kind":"custom","key":"k","userKey":"u"}"#);
    assert_eq!(row["extra"], r#"{"features":{"f":3}}"#);
}

#[test]
fn a_large_default_cannot_multiply_the_body() {
    let counters = vec![r#"{"count":1}"#; 1000].join(",");
    let event = |bytes: usize| {
        format!(
            r#"{{"kind":"summary","features":{{"f":{{"default":"{}","counters":[{counters}]}}}}}}"#,
            "d".repeat(bytes)
        )
    };
    assert_eq!(summary_rows(&event(1_000)), 1_000);
    assert_eq!(refused(&event(1 << 20)).0, "too_large");
}

fn summary_rows(event: &str) -> usize {
    found(&format!("[{event}]")).events.len()
}

#[test]
fn summaries_count_what_they_represent() {
    let mut bench = Bench::new();
    let body = r#"[{"kind":"summary","features":{"f":{"counters":[{"count":318},{"count":2.0}]}}},
        {"kind":"summary","features":{"f":{"counters":[{"count":1},{"count":"x"}]}}},
        {"kind":"feature","key":"f","userKey":"u"},
        {"kind":"feature","key":"f","userKey":"u","excludeFromSummaries":true}]"#;
    let decoded = bench.decode(body.as_bytes()).unwrap();
    assert_eq!((decoded.events, decoded.rows, decoded.represented_evaluations), (3, 4, 321));
    assert_eq!(decoded.dead_letters, [DeadLetterReason::WrongType]);
}

#[test]
fn measurements_have_columns_or_stay_in_extra() {
    let row = row(r#"{"kind":"migration_op","operation":"write","userKey":"u","samplingRatio":2,
        "evaluation":{"key":"m","value":"live","default":"off","variation":3,"version":1.5,"reason":{"kind":"ERROR"},"z":1},
        "measurements":[{"key":"invoked","values":{"old":true,"new":false}},{"key":"consistent","value":false,"samplingRatio":3},
        {"key":"latency_ms","values":{"new":2.5,"old":4}},{"key":"error","values":{"new":true}},{"key":"odd","value":1},7,
        {"key":"invoked","values":8}]}"#);
    let expected = json!({"operation":"write","flag_key":"m","value":"\"live\"","default_value":"\"off\"","variation":3,
        "reason":"{\"kind\":\"ERROR\"}","reason_kind":"ERROR","sampling_ratio":2,"invoked_old":true,"invoked_new":false,
        "consistent":false,"consistent_sampling_ratio":3,"latency_old_ms":4.0,"latency_new_ms":2.5,"error_new":true,
        "extra":r#"{"evaluation":{"version":1.5,"z":1},"measurements":[{"key":"odd","value":1},7,{"key":"invoked","values":8}]}"#});
    for (column, value) in expected.as_object().unwrap() {
        assert_eq!(row.get(column), Some(value), "{column}");
    }
    assert!(!row.contains_key("error_old") && !row.contains_key("version"));
}
