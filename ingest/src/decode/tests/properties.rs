//! Properties: nothing panics, neighbours survive, JSON stays what it was.

use proptest::prelude::*;

use super::*;

/// Any JSON value, of bounded size.
fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_filter("JSON has no such number", |number| number.is_finite()).prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(".{0,6}", inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn written(value: &Value, pretty: bool) -> String {
    if pretty { serde_json::to_string_pretty(value).unwrap() } else { value.to_string() }
}

/// Bytes that are nearly events.
fn nearly_events() -> impl Strategy<Value = Vec<u8>> {
    let event = include_str!("every_kind.json").as_bytes();
    let change =
        (0..event.len(), prop_oneof![any::<u8>(), prop::sample::select(&b"{}[]\",:\\0enIN "[..])], any::<bool>());
    prop::collection::vec(change, 1..6).prop_map(move |changes| {
        let mut body = event.to_vec();
        for (place, byte, insert) in changes {
            let place = place.min(body.len() - 1);
            if insert { body.insert(place, byte) } else { body[place] = byte }
        }
        body
    })
}

/// Whatever came in, what comes out is a valid batch of valid JSON, and every event is accounted for.
fn check(body: &[u8]) {
    let mut bench = Bench::new();
    let Ok(decoded) = bench.decode(body) else {
        assert!(bench.rows.is_empty());
        return;
    };
    let found = bench.seal();
    assert_eq!(decoded.rows as usize, found.events.len());
    assert_eq!(decoded.dead_letters.len(), found.letters.len());
    for row in found.events.iter().chain(&found.sightings) {
        for column in ["value", "default_value", "reason", "data", "extra", "context"] {
            if let Some(text) = row.get(column) {
                let parsed = serde_json::from_str::<Value>(text.as_str().unwrap());
                assert!(parsed.is_ok(), "{column} {text}: {parsed:?}");
            }
        }
    }
}

#[test]
fn bytes_that_are_not_utf8_never_panic_at_any_place() {
    let good = include_str!("every_kind.json").as_bytes();
    for place in 0..good.len() {
        let mut body = good.to_vec();
        body[place] = 0xff;
        check(&body);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn garbage_never_panics(body in prop::collection::vec(any::<u8>(), 0..200)) {
        check(&body);
        check(&[&b"["[..], &body, b"]"].concat());
    }

    #[test]
    fn garbage_of_json_parts_never_panics(body in r#"(\[|\]|\{|\}|,|:|"|\\|"kind":"summary"|"features":|"key":|1|null|NaN| ){0,60}"#) {
        check(body.as_bytes());
        check(format!("[{body}]").as_bytes());
    }

    #[test]
    fn broken_events_never_panic(body in nearly_events()) {
        check(&body);
    }

    #[test]
    fn json_columns_hold_what_was_sent(value in json_value(), attribute in json_value(), pretty in any::<bool>()) {
        // The other reader rounds some numbers: what counts is that it reads the same from both texts.
        let reread = |value: &Value| serde_json::from_str::<Value>(&value.to_string()).unwrap();
        let context = json!({"kind": "user", "key": "u", "attribute": attribute});
        let event = json!({"kind": "feature", "key": "f", "context": context, "value": value, "default": value, "new": value});
        let row = row(&written(&event, pretty));
        let parsed = |column: &str| row.get(column).map(|text| serde_json::from_str::<Value>(text.as_str().unwrap()).unwrap());
        let expected = Some(reread(&value)).filter(|value| !value.is_null());
        prop_assert_eq!(parsed("value"), expected.clone());
        prop_assert_eq!(parsed("default_value"), expected);
        prop_assert_eq!(parsed("context"), Some(reread(&context)));
        prop_assert_eq!(parsed("extra"), Some(json!({"new": reread(&value)})));
    }

    #[test]
    fn neighbours_of_bad_events_survive(
        bad in prop::sample::select(vec!["{}", "1", "{\"kind\":tru}", "{\"kind\":\"feature\"}", "{\"a\":1,}", "[[[]]]", "x"]),
        places in prop::collection::vec(any::<bool>(), 1..30),
    ) {
        let good = |number: usize| format!(r#"{{"kind":"custom","key":"k{number}","userKey":"u"}}"#);
        prop_assume!(places.iter().any(|is_good| *is_good));
        let items: Vec<_> = places.iter().enumerate().map(|(n, is_good)| if *is_good { good(n) } else { bad.into() }).collect();
        let found = found(&format!("[{}]", items.join(",")));
        let keys: Vec<_> = found.events.iter().map(|row| row["event_key"].as_str().unwrap().to_owned()).collect();
        let expected: Vec<_> = (0..places.len()).filter(|n| places[*n]).map(|n| format!("k{n}")).collect();
        prop_assert_eq!(keys, expected);
        prop_assert_eq!(found.letters.len(), places.iter().filter(|is_good| !**is_good).count());
    }

    /// Strict JSON that another reader takes is never called invalid here.
    #[test]
    fn whatever_is_json_is_read(value in json_value(), pretty in any::<bool>()) {
        let found = found(&format!("[{}]", written(&value, pretty)));
        prop_assert!(found.letters.iter().all(|letter| letter["reason"] != "invalid_json"));
        prop_assert_eq!(found.letters.len() + found.events.len(), 1);
    }
}
