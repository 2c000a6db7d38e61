//! What surrounds events: the array, its end, and events that are none.

use events::limits;

use super::*;

fn body_error(body: &str) -> (DeadLetterReason, u64) {
    let mut bench = Bench::new();
    let error = bench.decode(body.as_bytes()).unwrap_err();
    assert!(bench.rows.is_empty(), "a refused body leaves nothing: {body}");
    assert!(bench.rows.take_sighted().is_empty());
    (error.reason, error.byte_offset)
}

const CUSTOM: &str = r#"{"kind":"custom","key":"k","context":{"kind":"user","key":"u"}}"#;

#[test]
fn empty_bodies_and_arrays_hold_nothing() {
    for body in ["", "  \n", "[]", " [ ] ", "\u{feff}[]"] {
        let mut bench = Bench::new();
        assert_eq!(bench.decode(body.as_bytes()).unwrap(), Decoded::default());
        assert!(bench.rows.is_empty());
    }
}

#[test]
fn a_lone_object_is_an_array_of_one() {
    let found = found(&format!(" {CUSTOM} "));
    assert_eq!(found.events.len(), 1);
    assert_eq!(found.events[0]["payload_index"], 0);
}

#[test]
fn broken_frames_are_refused_at_their_byte() {
    use DeadLetterReason::{InvalidJson, NotAnEvent};
    for (body, expected) in [
        ("not json", (InvalidJson, 0)),
        ("\"text\"", (NotAnEvent, 0)),
        (" 12 ", (NotAnEvent, 1)),
        ("[", (InvalidJson, 1)),
        ("{", (InvalidJson, 1)),
        ("[{\"kind\":\"custom\"", (InvalidJson, 17)),
        ("[{\"kind\":\"custom\"]", (InvalidJson, 17)),
        ("[]]", (InvalidJson, 2)),
        ("[] x", (InvalidJson, 3)),
        ("{\"kind\":}", (InvalidJson, 8)),
        ("[{\"kind\":}]", (InvalidJson, 9)),
        ("\0", (InvalidJson, 0)),
    ] {
        assert_eq!(body_error(body), expected, "{body}");
    }
    let end = CUSTOM.len() as u64;
    assert_eq!(body_error(&format!("[{CUSTOM}")), (InvalidJson, 1 + end));
    assert_eq!(body_error(&format!("[{CUSTOM},]")), (InvalidJson, 2 + end));
    assert_eq!(body_error(&format!("[{CUSTOM},,{CUSTOM}]")), (InvalidJson, 2 + end));
    assert_eq!(body_error(&format!("[{CUSTOM}] {CUSTOM}")), (InvalidJson, 3 + end));
    assert_eq!(body_error(&format!("{CUSTOM}{CUSTOM}")), (InvalidJson, end));
    assert_eq!(body_error(&format!("[{CUSTOM},{{\"a\":\"b]")), (InvalidJson, end + 10));
}

#[test]
fn unreadable_events_cost_only_themselves() {
    for event in [
        r#"{"kind":"custom",}"#,
        r#"{"kind":"custom" "key":"k"}"#,
        r#"{"kind":tru}"#,
        r#"{"a":"\x"}"#,
        r#"{"a":01}"#,
        r#"{"a":[1,2}}"#,
        r#"{"kind":"custom"} 3"#,
        r#"nope"#,
    ] {
        assert_eq!(refused(event).0, "invalid_json", "{event}");
    }
    assert_eq!(refused("{\"a\":tru}").1, "expected a value, found `t`");
}

#[test]
fn what_is_no_object_is_not_an_event() {
    for event in ["1", "null", "\"text\"", "[]", "[{\"kind\":\"custom\"}]", "true"] {
        assert_eq!(refused(event).0, "not_an_event", "{event}");
    }
}

#[test]
fn dead_letters_say_where() {
    let body = format!("[{CUSTOM},{{\"kind\":\"custom\",\"key\":7,\"userKey\":\"u\"}}]");
    let letter = &found(&body).letters[0];
    assert_eq!(letter["byte_offset"], body.find('7').unwrap());
    assert_eq!(letter["message"], "`key` is a number, expected text");
    let again = &found(&body).letters[0]["id"];
    assert_eq!(&letter["id"], again, "the id of a dead letter is the same when its payload comes again");
}

#[test]
fn dead_letters_without_payload_id_have_ids_of_their_own() {
    let mut bench = Bench::new();
    bench.head.payload_id = None;
    bench.decode(b"[1,2]").unwrap();
    bench.decode(b"[1,2]").unwrap();
    let ids: std::collections::HashSet<String> = bench.seal().letters.iter().map(|row| row["id"].to_string()).collect();
    assert_eq!(ids.len(), 4);
}

#[test]
fn deep_nesting_is_refused_without_overflow() {
    let deep = |levels: usize| {
        format!(
            "{{\"kind\":\"custom\",\"key\":\"k\",\"userKey\":\"u\",\"data\":{}1{}}}",
            "[".repeat(levels),
            "]".repeat(levels)
        )
    };
    assert_eq!(row(&deep(limits::EVENT_DEPTH_MAX - 1))["event_key"], "k");
    assert_eq!(refused(&deep(limits::EVENT_DEPTH_MAX)).0, "too_deep");
    assert_eq!(refused(&deep(10_000)).0, "too_deep");
    assert_eq!(refused(&("[".repeat(10_000) + &"]".repeat(10_000))).0, "too_deep");
    assert_eq!(body_error(&"[".repeat(1 << 20)).0, DeadLetterReason::InvalidJson);
    assert_eq!(body_error(&"{\"a\":".repeat(1 << 18)).0, DeadLetterReason::TooDeep);
}

#[test]
fn too_many_events_are_refused() {
    let body = format!("[{}]", "1,".repeat(limits::EVENTS_PER_PAYLOAD_MAX) + "1");
    assert_eq!(body_error(&body).0, DeadLetterReason::TooManyEvents);
    let counters = "{\"count\":1},".repeat(limits::EVENTS_PER_PAYLOAD_MAX) + "{\"count\":1}";
    let body = format!("[{{\"kind\":\"summary\",\"features\":{{\"f\":{{\"counters\":[{counters}]}}}}}}]");
    assert_eq!(body_error(&body).0, DeadLetterReason::TooManyEvents);
}

#[test]
fn a_refused_body_takes_nothing_of_its_neighbours_with_it() {
    let mut bench = Bench::new();
    bench.decode(format!("[{CUSTOM}]").as_bytes()).unwrap();
    let other = CUSTOM.replace("\"u\"", "\"v\"");
    bench.decode(format!("[{CUSTOM},{other},1").as_bytes()).unwrap_err();
    bench.decode(format!("[{other},{CUSTOM}]").as_bytes()).unwrap();
    let found = bench.seal();
    let keys: Vec<_> = found.events.iter().map(|row| row["context_key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["u", "v", "u"]);
    assert!(found.letters.is_empty());
    let sighted: Vec<_> = found.sightings.iter().map(|row| row["key"].as_str().unwrap()).collect();
    assert!(sighted.contains(&"u") && sighted.contains(&"v"));
}

#[test]
fn hostile_bodies_are_answered() {
    let empty = format!("[{}{{}}]", "{},".repeat(10_000_000));
    assert_eq!(body_error(&empty).0, DeadLetterReason::TooManyEvents);
    let long = "x".repeat(32 << 20);
    assert_eq!(body_error(&format!("\"{long}\"")).0, DeadLetterReason::NotAnEvent);
    assert_eq!(body_error(&format!("[\"{long}")).0, DeadLetterReason::InvalidJson);
    assert_eq!(row(&CUSTOM.replace("\"k\"", &format!("\"{long}\"")))["event_key"].as_str().unwrap().len(), 32 << 20);
    assert_eq!(body_error(&"\0".repeat(1 << 20)).0, DeadLetterReason::InvalidJson);
    let members: String = (0..200_000).map(|number| format!(",\"m{number}\":{{}}")).collect();
    assert_eq!(refused(&CUSTOM.replace("\"user\",\"key\":\"u\"", &format!("\"multi\"{members}"))).0, "bad_context");
    let row = row(&CUSTOM.replace("{\"kind\":\"custom\"", &format!("{{\"kind\":\"custom\"{}", members.repeat(2))));
    assert_eq!(row["extra"].as_str().unwrap().len(), members.len() + 1, "each name once");
}
