//! Single values, their marks, and what is refused.

use super::*;

fn read(text: &str) -> std::result::Result<(Span, usize), SyntaxError> {
    let mut scanner = Scanner::new(text.as_bytes());
    match scanner.value() {
        Ok(span) => Ok((span, scanner.position)),
        Err(Failed) => Err(scanner.failure.unwrap()),
    }
}

#[test]
fn values_end_where_they_end() {
    for text in ["1", "-0.5e+3", "\"a\\\"b\"", "{}", "[]", "[[],{\"a\":[1,{\"b\":null}]}]", "true", "false", "null"] {
        let (span, position) = read(&format!("{text}  ,")).unwrap();
        assert_eq!((span.start(), span.len()), (0, text.len()), "{text}");
        assert_eq!(position, text.len() + 2);
    }
}

#[test]
fn marks_say_what_copying_must_mend() {
    let marks = |text: &str| read(text).unwrap().0.marks();
    assert_eq!(marks(r#"{"a":1}"#), 0);
    assert_eq!(marks(r#"{"a": 1}"#), SPACED);
    assert_eq!(marks(r#"["\ud83d\ude00"]"#), ESCAPED);
    assert_eq!(marks(r#"["\ud83d"]"#), ESCAPED | BROKEN);
    assert_eq!(marks(r#"["\ude00\ud83d"]"#), ESCAPED | BROKEN);
    for text in ["NaN", "[Infinity]", "-Infinity", "1e99999", "\"a\nb\""] {
        assert_eq!(marks(text), BROKEN, "{text}");
    }
    assert_eq!(marks(&"9".repeat(40)), 0);
    assert_eq!(marks(&"9".repeat(400)), BROKEN);
}

#[test]
fn what_is_not_json_is_refused_at_its_byte() {
    for (text, at) in [
        ("{\"a\" 1}", 5),
        ("{\"a\":1,}", 7),
        ("[1,]", 3),
        ("[1 2]", 3),
        ("[1}", 2),
        ("tru", 0),
        ("01", 0),
        ("1.", 0),
        ("-", 0),
        ("\"a\\x\"", 2),
        ("\"a", 2),
        ("{1:2}", 1),
        ("", 0),
    ] {
        assert_eq!(read(text).unwrap_err().at, at, "{text}");
    }
}

#[test]
fn nesting_is_bounded_without_recursion() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert!(read(&nested(limits::EVENT_DEPTH_MAX)).is_ok());
    let error = read(&nested(limits::EVENT_DEPTH_MAX + 1)).unwrap_err();
    assert_eq!((error.reason, error.at), (DeadLetterReason::TooDeep, limits::EVENT_DEPTH_MAX));
    assert!(read(&"{\"a\":".repeat(100_000)).is_err());
}

#[test]
fn special_finds_the_first_of_its_bytes_at_every_place() {
    for byte in [b'"', b'\\', 0, b'\n', 0x1f] {
        for place in 0..8 {
            let mut word = [b'a', 0x20, 0x80, 0xff, b'!', b'#', b'[', b']'];
            word[place] = byte;
            assert_eq!(special(u64::from_le_bytes(word)).trailing_zeros() as usize / 8, place);
        }
    }
}
