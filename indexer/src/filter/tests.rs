//! The check data of context-search-api section 6.5 against the plain evaluator, bounds, and hostile text.

use proptest::prelude::*;
use runtime::UnixMicros;

use super::evaluate::{Candidate, matches};
use super::*;
use crate::check_data::check_data;

const SEEN: UnixMicros = UnixMicros(1_772_359_200_123_456);

fn parse(text: &str) -> Result<Filter, FilterError> {
    Filter::parse(text, Subject::Contexts)
}

fn found(text: &str) -> String {
    let filter = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let kinds = ["user", "org", "device"];
    let mut names = Vec::new();
    for (name, context) in &check_data().contexts {
        let context = context.as_object().unwrap();
        let candidate = Candidate {
            kind: context["kind"].as_str().unwrap(),
            key: context["key"].as_str().unwrap(),
            context,
            application: None,
            last_seen: SEEN,
        };
        if matches(&filter, &candidate, &|kind| kinds.contains(&kind)) {
            names.push(name.clone());
        }
    }
    names.join(" ")
}

#[test]
fn check_data_matches() {
    for (filter, expected) in check_data().matches {
        assert_eq!(found(&filter), expected.join(" "), "{filter}");
    }
}

#[test]
fn check_data_faults() {
    for text in check_data().faults {
        assert!(parse(&text).is_err(), "{text} was accepted");
    }
}

#[test]
fn faults_name_their_offset() {
    for (text, offset) in [
        ("kind equals", 11),
        ("kind like \"user\"", 5),
        ("kind before \"2026-01-01T00:00:00Z\"", 5),
        ("(kind equals \"user\"", 19),
        ("kind equals \"user\",", 19),
        ("user.joined after tomorrow", 18),
        ("name equals Johan Jr", 18),
        ("user.email exists \"yes\"", 18),
        ("!kind equals \"user\"", 0),
        ("kind equals \"user", 17),
        ("user.plan equals null", 17),
        ("kind anyOf [\"a\", nul]", 20),
        ("kind anyOf [\"a\",\n nul]", 21),
        ("kind equals user)", 16),
        ("user. equals 1", 0),
        ("a equals 1e999", 9),
        ("kind equals a\\", 13),
    ] {
        let error = parse(text).unwrap_err();
        assert_eq!(error.offset, offset, "{text}: {error}");
        assert!(error.to_string().ends_with(&format!("at offset {offset}")));
    }
}

#[test]
fn bounds_are_reached_and_kept() {
    let parenthesised = |depth| format!("{}a equals 1{}", "(".repeat(depth), ")".repeat(depth));
    assert!(parse(&parenthesised(DEPTH_MAX)).is_ok());
    assert!(parse(&parenthesised(DEPTH_MAX + 1)).is_err());
    let nested = |depth| format!("a equals {}1{}", "[".repeat(depth), "]".repeat(depth));
    assert!(parse(&nested(DEPTH_MAX)).is_ok());
    assert!(parse(&nested(DEPTH_MAX + 1)).is_err());
    assert!(parse(&format!("a equals {}", "[".repeat(8000))).is_err());
    let joined = |count| vec!["a equals 1"; count].join("|");
    assert!(parse(&joined(PREDICATES_MAX)).is_ok());
    assert!(parse(&joined(PREDICATES_MAX + 1)).is_err());
    let entries = |count| format!("a anyOf [{}]", vec!["1"; count].join(","));
    assert!(parse(&entries(LIST_ENTRIES_MAX)).is_ok());
    assert!(parse(&entries(LIST_ENTRIES_MAX + 1)).is_err());
    let padded = |length: usize| format!("a equals {}", "x".repeat(length - 9));
    assert!(parse(&padded(FILTER_BYTES_MAX)).is_ok());
    assert!(parse(&padded(FILTER_BYTES_MAX + 1)).is_err());
    let many_words =
        |count: usize| format!("q equals \"{}\"", (0..count).map(|n| format!("w{n} ")).collect::<String>());
    assert!(parse(&many_words(WORDS_MAX)).is_ok());
    assert!(parse(&many_words(WORDS_MAX + 1)).is_err());
}

#[test]
fn blank_matches_everything() {
    assert_eq!(found(""), "A B C D E");
    assert_eq!(found(" \t\r\n"), "A B C D E");
}

#[test]
fn older_notation_and_its_blanks() {
    assert_eq!(found(r#"kind: {"equals": ["user"]}"#), "A B C");
    assert_eq!(found(r#"kind:"org""#), "D");
    assert_eq!(found(r#""user.name" : "Bo Lind""#), "B");
    assert_eq!(found(r#"org.tags:["eu","vip"]"#), "D");
    assert_eq!(found(r#"key:{"startsWith":"u","notEquals":"u-bo"}"#), "A C");
    assert!(parse("kind:{}").is_err());
    assert!(parse(r#"kind:{"is":"user"}"#).is_err());
    assert!(parse(r#"kind equals ["user"]"#).is_err(), "a list under equals belongs to the older notation");
}

#[test]
fn text_fields_take_numbers_as_their_text() {
    let test = |text: &str| match parse(text).unwrap().root {
        Some(Expr::Is(predicate)) => predicate.test,
        other => panic!("{other:?}"),
    };
    assert_eq!(test("key equals 1.50"), Test::Equals("1.50".into()));
    assert_eq!(test("key anyOf [1,2]"), Test::AnyOf(vec!["1".into(), "2".into()]));
    assert_eq!(test("user.seats equals 044"), Test::Equals("044".into()));
    assert_eq!(test("user.seats equals \\44"), Test::Equals("44".into()));
    assert!(parse("key equals true").is_err());
    assert!(parse("key equals {\"a\":1}").is_err());
}

#[test]
fn operators_in_any_case_and_not_for_every_field() {
    assert_eq!(found("kind EQUALS user"), "A B C");
    for text in
        ["kind startsWith u", "key exists true", "kinds notEquals user", "q anyOf a", "id contains a", "kind equals"]
    {
        assert!(parse(text).is_err(), "{text}");
    }
}

#[test]
fn instances_have_four_fields() {
    for text in ["applicationId equals a", "id anyOf a", "kinds contains [\"user\"]", "kindKeys equals \"user:a\""] {
        assert!(Filter::parse(text, Subject::Instances).is_ok(), "{text}");
    }
    for text in ["kind equals user", "key equals a", "plan equals gold", "q equals a"] {
        assert!(Filter::parse(text, Subject::Instances).is_err(), "{text}");
    }
}

#[test]
fn numbers_equal_by_value_and_not_by_type() {
    let number = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    assert!(same(&number("44"), &number("44.0")));
    assert!(same(&number("-0.0"), &number("0")));
    assert!(same(&number("1e3"), &number("1000")));
    assert!(same(&number("18446744073709551615"), &number("18446744073709551615")));
    assert!(!same(&number("9007199254740993"), &number("9007199254740992")));
    assert!(!same(&number("44"), &number("\"44\"")));
    assert!(!same(&number("1"), &number("true")));
    assert!(same(&number(r#"{"a":1,"b":[2.0]}"#), &number(r#"{"b":[2],"a":1.0,"c":null}"#)));
}

#[test]
fn dates_of_every_form_and_order() {
    let time = |text: &str| FilterTime::read(&serde_json::from_str(text).unwrap());
    assert_eq!(time("1768435200000"), time("\"2026-01-15T00:00:00Z\""));
    assert_eq!(time("\"1768435200000\""), time("\"2026-01-14T23:00:00-01:00\""));
    assert_eq!(time("1768435200000.0"), time("1768435200000"));
    for text in ["\"2026-01-15\"", "\"tomorrow\"", "\"2026-01-15 00:00:00Z\"", "1.5", "true", "\"-5\"", "[1]", "\"\""] {
        assert_eq!(time(text), None, "{text}");
    }
    let ordered = ["-9223372036854775808", "-1", "0", "\"1970-01-01T00:00:00.0000001Z\"", "1", "9223372036854775807"];
    let sortable: Vec<_> = ordered.iter().map(|text| time(text).unwrap().to_sortable()).collect();
    assert!(sortable.is_sorted());
}

#[test]
fn dotted_kinds_win_when_stored() {
    let scope = |stored: &[&str]| Scope::of("a.b.c.d", |kind| stored.contains(&kind));
    assert_eq!(scope(&[]).kind.as_deref(), Some("a"));
    assert_eq!(scope(&["a.b"]).kind.as_deref(), Some("a.b"));
    assert_eq!(scope(&["a.b", "a.b.c"]).path.pointer(), "/d");
    assert_eq!(Scope::of("*./a/b", |_| false).path.pointer(), "/a/b");
    let reserved = |stored: &'static str| Scope::of("kind.a.b", move |kind| kind == stored).kind;
    assert_eq!((reserved("").as_deref(), reserved("kind.a").as_deref()), (None, Some("kind.a")));
    assert_eq!(
        Scope::of("/v1.0", |_| false),
        Scope { kind: None, path: crate::attribute::AttributePath::parse("/v1.0") }
    );
}

#[test]
fn versions_are_tested_by_application() {
    let context = check_data().contexts["A"].as_object().unwrap().clone();
    let holds = |text: &str, application: Option<&str>| {
        let candidate = Candidate { kind: "user", key: "u-ana", context: &context, application, last_seen: SEEN };
        matches(&parse(text).unwrap(), &candidate, &|_| true)
    };
    assert!(holds("applicationId:\"GoSDK/1.2\"", Some("GoSDK/1.2")));
    assert!(!holds("applicationId equals GoSDK/1.2", None));
    assert!(holds("applicationId notEquals a", None));
    assert!(holds("id equals dXNlcjp1LWFuYQ", None));
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in ".{0,200}") {
        let _ = parse(&text);
    }

    #[test]
    fn near_filters_are_read_or_refused(parts in prop::collection::vec(prop::sample::select(vec![
        "kind", "user.a", "*./b/c", "\"x y\"", "q", "key", " ", " ", " ", "equals", "anyOf", "exists", "before", "startsWith", "contains",
        "true", "44", "\"t\"", "[1,\"a\"]", "{\"a\":1}", "null", ",", "|", "(", ")", ":", "!", "\\", "\\,", "é", "\u{0}", "[", "{", "\"",
    ]), 0..30)) {
        let text = parts.concat();
        if let Err(error) = parse(&text) {
            prop_assert!(error.offset <= text.len());
        }
    }
}

#[test]
fn seen_is_a_time_of_the_record_and_no_attribute() {
    for (text, expected) in [
        ("seen after 1772359200123", "A B C D E"),
        ("seen after 1772359200124", ""),
        ("seen before \"2026-03-01T10:00:00.123456Z\"", "A B C D E"),
        ("seen before \"2026-03-01T10:00:00.123455999Z\"", ""),
        ("seen after \"2026-03-01T10:00:00.123455001Z\"", "A B C D E"),
        ("seen after \"2026-03-01T10:00:00.123456001Z\"", ""),
        ("seen after 1,seen before 9000000000000000000", "A B C D E"),
        ("*.seen exists true", ""),
    ] {
        assert_eq!(found(text), expected, "{text}");
    }
    for text in ["seen equals 1", "seen exists true", "seen after yesterday"] {
        assert!(parse(text).is_err(), "{text}");
    }
    assert!(Filter::parse("seen after 1", Subject::Instances).is_err());
}
