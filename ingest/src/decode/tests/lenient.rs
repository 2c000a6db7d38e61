//! What real senders write that strict JSON or strict types refuse.

use super::*;

fn custom(data: &str) -> String {
    format!(r#"{{"kind":"custom","key":"k","userKey":"u","data":{data}}}"#)
}

#[test]
fn numbers_that_json_does_not_know_become_null() {
    assert_eq!(row(&custom("[NaN,Infinity,-Infinity,1e99999]"))["data"], "[null,null,null,null]");
    for text in ["NaN", "-Infinity", "1e99999"] {
        let row = row(&custom(text).replace("\"data\"", "\"metricValue\""));
        assert!(!row.contains_key("metric_value") && !row.contains_key("extra"), "{text}");
        assert!(!self::row(&custom(text)).contains_key("data"), "{text}");
    }
}

#[test]
fn broken_text_is_mended() {
    assert_eq!(row(&custom(r#""\ud800""#))["data"], r#""\ufffd""#);
    let row = row(&custom("1").replace("\"k\"", r#""\ud83dk\ude00""#));
    assert_eq!(row["event_key"], "\u{fffd}k\u{fffd}");
    let mut bench = Bench::new();
    let mut body = format!("[{}]", custom("\"a?b\"")).into_bytes();
    let place = body.iter().position(|byte| *byte == b'?').unwrap();
    body[place] = 0xff;
    bench.decode(&body).unwrap();
    assert_eq!(bench.seal().events[0]["data"], "\"a\u{fffd}b\"");
}

#[test]
fn raw_control_characters_are_escaped() {
    assert_eq!(row(&custom("\"a\0\tb\""))["data"], r#""a\u0000\tb""#);
}

#[test]
fn long_integers_keep_their_spelling_in_json_and_become_doubles_elsewhere() {
    let digits = "1234567890".repeat(4);
    assert_eq!(row(&custom(&digits))["data"], digits);
    let row = row(&custom(&digits).replace("\"data\"", "\"metricValue\""));
    assert_eq!(row["metric_value"].as_f64().unwrap(), digits.parse::<f64>().unwrap());
    assert!(!self::row(&custom(&"9".repeat(10_000))).contains_key("data"), "more than a double holds is null");
}

#[test]
fn whole_numbers_may_be_spelled_as_doubles() {
    let row = row(r#"{"kind":"feature","key":"f","userKey":"u","variation":3.0,"version":1e2,"samplingRatio":2}"#);
    assert_eq!((&row["variation"], &row["version"], &row["sampling_ratio"]), (&json!(3), &json!(100), &json!(2)));
}

#[test]
fn optional_fields_of_a_wrong_type_are_kept_in_extra() {
    let row = row(r#"{"kind":"feature","key":"f","userKey":"u","variation":"one","version":1.5,"prereqOf":3,
        "excludeFromSummaries":"no","creationDate":"2026-01-01"}"#);
    let extra: Value = serde_json::from_str(row["extra"].as_str().unwrap()).unwrap();
    assert_eq!(
        extra,
        json!({"variation":"one","version":1.5,"prereqOf":3,"excludeFromSummaries":"no","creationDate":"2026-01-01"})
    );
    for column in ["variation", "version", "prerequisite_of", "exclude_from_summaries", "created_at"] {
        assert!(!row.contains_key(column), "{column}");
    }
}

#[test]
fn times_are_truncated() {
    for text in ["1795274938346", "1795274938346.75", "1.795274938346E12"] {
        let row = row(&custom("1").replace("{\"kind\"", &format!("{{\"creationDate\":{text},\"kind\"")));
        assert_eq!(row["created_at"], 1_795_274_938_346_000_i64);
    }
}

#[test]
fn null_is_absent() {
    let row = row(r#"{"kind":"feature","key":"f","context":null,"user":null,"userKey":"u","value":null,"default":null,
        "variation":null,"version":null,"reason":null,"prereqOf":null,"samplingRatio":null,"creationDate":null}"#);
    let columns: Vec<_> = row.keys().map(String::as_str).collect();
    assert_eq!(columns, ["kind", "payload_index", "flag_key", "context_kind", "context_key", "context_keys"]);
    assert_eq!(refused(r#"{"kind":"custom","key":null,"userKey":"u"}"#).0, "missing_field");
}

#[test]
fn the_last_of_repeated_names_counts() {
    let row = row(r#"{"kind":"custom","kind":"feature","key":"a","k\u0065y":"b","userKey":"u","version":1,"version":2,
        "odd":1,"value":1,"value":null,"odd":2}"#);
    assert_eq!((&row["kind"], &row["flag_key"], &row["version"]), (&json!("feature"), &json!("b"), &json!(2)));
    assert_eq!(row["extra"], r#"{"odd":2}"#);
    assert!(!row.contains_key("value"));
}

#[test]
fn white_space_goes_and_spelling_stays() {
    let row = row(
        "{ \"kind\" : \"custom\" , \"key\":\"k\",\"userKey\":\"u\",\n\"data\": { \"a\" : [ 1.0 , -1E-7, \" \\/ \" ] } }",
    );
    assert_eq!(row["data"], r#"{"a":[1.0,-1E-7," \/ "]}"#);
}

#[test]
fn extreme_numbers_neither_panic_nor_wrap() {
    for number in ["9223372036854775807", "-9223372036854775808", "18446744073709551615", "1e18", "-0", "5e-324"] {
        let body = format!(
            r#"[{{"kind":"custom","key":"k","userKey":"u","creationDate":{number},"metricValue":{number},"samplingRatio":{number}}},
            {{"kind":"diagnostic","droppedEvents":{number}}},{{"kind":"diagnostic","droppedEvents":{number}}},
            {{"kind":"diagnostic","droppedEvents":{number}}},
            {{"kind":"feature","key":"f","userKey":"u","version":{number},"excludeFromSummaries":true}},
            {{"kind":"summary","startDate":{number},"features":{{"f":{{"counters":[{{"count":{number}}},{{"count":{number}}},
            {{"count":{number},"version":{number}}}]}}}}}},
            {{"kind":"feature","key":"f","userKey":"u","version":{number},"debugEventsUntilDate":{number},"excludeFromSummaries":true}}]"#
        );
        for mut bench in [Bench::new(), Bench::unsummarized()] {
            let decoded = bench.decode(body.as_bytes()).unwrap();
            assert_eq!(decoded.events as usize + decoded.dead_letters.len(), 7);
            bench.seal();
        }
    }
}
