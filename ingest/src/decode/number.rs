//! Numbers as senders write them: `42`, `3.0`, `1.795274998683E12`, `-1.23e+08`.

/// A whole number that fits 64 bits, however it is written.
#[inline]
pub(crate) fn integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    if digits.is_empty() {
        return None;
    }
    // Eighteen digits cannot overflow.
    if digits.len() > 18 {
        return integer_slowly(text);
    }
    let mut number = 0_i64;
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return integer_slowly(text);
        }
        number = number * 10 + i64::from(digit);
    }
    Some(if negative { -number } else { number })
}

#[cold]
fn integer_slowly(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok().filter(|text| looks_like_number(text))?;
    if let Ok(number) = text.parse::<i64>() {
        return Some(number);
    }
    let number: f64 = text.parse().ok()?;
    (number.fract() == 0.0 && in_i64(number)).then_some(number as i64)
}

/// A finite double.
pub(crate) fn double(text: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(text).ok().filter(|text| looks_like_number(text))?;
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

/// Epoch milliseconds as microseconds; a fraction of a millisecond is cut off. `None` outside the years 1 to 9999,
/// which is what readers of the table can show.
#[inline]
pub(crate) fn epoch_micros(text: &[u8]) -> Option<i64> {
    const FIRST_MS: i64 = -62_135_596_800_000;
    const LAST_MS: i64 = 253_402_300_799_999;
    let millis = match integer(text) {
        Some(millis) => millis,
        None => Some(double(text)?.trunc()).filter(|millis| in_i64(*millis))? as i64,
    };
    (FIRST_MS..=LAST_MS).contains(&millis).then(|| millis * 1_000)
}

/// Keeps out words that Rust reads as numbers and JSON does not: `inf`, `nan`, `+1`.
fn looks_like_number(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit() || c == '-') && !text.ends_with(|c: char| c.is_alphabetic())
}

fn in_i64(number: f64) -> bool {
    // Both bounds are exact doubles; 2^63 itself is one too many.
    (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_in_every_spelling() {
        for (text, expected) in [
            ("0", Some(0)),
            ("-0", Some(0)),
            ("42", Some(42)),
            ("3.0", Some(3)),
            ("-7.000", Some(-7)),
            ("1e3", Some(1000)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("3.5", None),
            ("1e400", None),
            ("true", None),
            ("\"3\"", None),
            ("NaN", None),
            ("-Infinity", None),
            ("", None),
        ] {
            assert_eq!(integer(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn times_are_truncated_to_milliseconds() {
        assert_eq!(epoch_micros(b"1795274938346"), Some(1_795_274_938_346_000));
        assert_eq!(epoch_micros(b"1.795274998683E12"), Some(1_795_274_998_683_000));
        assert_eq!(epoch_micros(b"1795274938346.9"), Some(1_795_274_938_346_000));
        assert_eq!(epoch_micros(b"-1.5"), Some(-1_000));
        assert_eq!(epoch_micros(b"1e20"), None);
        assert_eq!(epoch_micros(b"9223372036854775807"), None);
        assert_eq!(epoch_micros(b"-9223372036854775808"), None);
        assert_eq!(epoch_micros(b"\"2026-01-01\""), None);
    }

    #[test]
    fn doubles_are_finite() {
        assert_eq!(double(b"1.7976931348623157e+308"), Some(f64::MAX));
        assert_eq!(double(b"5e-324"), Some(5e-324));
        assert_eq!(double(b"1e99999"), None);
        assert_eq!(double(b"NaN"), None);
        assert_eq!(double(b"-Infinity"), None);
    }
}
