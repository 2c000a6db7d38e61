//! What it means that two values are equal, that a text begins with another, and that a value is a date.
//!
//! Shared by the evaluator and by the terms of the index: one meaning, two uses.
//! Source: context-search-api section 6.4.

use chrono::DateTime;
use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};

use super::WORD_BYTES_MAX;

/// An instant with the precision of RFC 3339 text: seconds and nanoseconds since the epoch. Orders by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FilterTime {
    pub seconds: i64,
    pub nanos: u32,
}

impl FilterTime {
    fn from_millis(millis: i64) -> Self {
        Self { seconds: millis.div_euclid(1_000), nanos: millis.rem_euclid(1_000) as u32 * 1_000_000 }
    }

    /// Epoch milliseconds as a whole number or as digits, or RFC 3339 text; anything else is no date.
    pub fn read(value: &Value) -> Option<Self> {
        match value {
            Value::Number(number) => {
                number.as_i64().or_else(|| number_text(number).parse().ok()).map(Self::from_millis)
            }
            Value::String(text) => Self::read_text(text),
            _ => None,
        }
    }

    fn read_text(text: &str) -> Option<Self> {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return text.parse().ok().map(Self::from_millis);
        }
        // The parser also takes a blank in place of `T`; RFC 3339 leaves that to agreement, and ours is no.
        let separator = text.as_bytes().get(10)?;
        if !matches!(separator, b'T' | b't') {
            return None;
        }
        let time = DateTime::parse_from_rfc3339(text).ok()?;
        Some(Self { seconds: time.timestamp(), nanos: time.timestamp_subsec_nanos() })
    }

    /// The first whole microsecond at this time or after it; the last that there is beyond those that can be told.
    pub fn first_micros(self) -> i64 {
        self.whole(1_000_000, u32::div_ceil)
    }

    /// The last whole microsecond at this time or before it.
    pub fn last_micros(self) -> i64 {
        self.whole(1_000_000, |nanos, each| nanos / each)
    }

    /// As [`Self::first_micros`], of milliseconds.
    pub fn first_millis(self) -> i64 {
        self.whole(1_000, u32::div_ceil)
    }

    /// As [`Self::last_micros`], of milliseconds.
    pub fn last_millis(self) -> i64 {
        self.whole(1_000, |nanos, each| nanos / each)
    }

    /// Parts of which a second has so many; `rounded` divides what is left of the second.
    fn whole(self, per_second: u32, rounded: impl FnOnce(u32, u32) -> u32) -> i64 {
        let of_second = rounded(self.nanos, 1_000_000_000 / per_second);
        self.seconds.saturating_mul(i64::from(per_second)).saturating_add(i64::from(of_second))
    }

    /// 12 bytes that order as the times do.
    pub fn to_sortable(self) -> [u8; 12] {
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&((self.seconds as u64) ^ (1 << 63)).to_be_bytes());
        bytes[8..].copy_from_slice(&self.nanos.to_be_bytes());
        bytes
    }
}

/// One text per number: `44`, `44.0` and `4.4e1` are all `44`.
pub fn number_text(number: &Number) -> String {
    let Some(float) = number.as_f64().filter(|_| number.is_f64()) else {
        return number.to_string();
    };
    // Whole floats in the range of the integer types read as those integers; each is exact there.
    if float.fract() == 0.0 && (-9.3e18..1.9e19).contains(&float) {
        let whole = float as i128;
        if i64::try_from(whole).is_ok() || u64::try_from(whole).is_ok() {
            return whole.to_string();
        }
    }
    number.to_string()
}

/// Type-aware equality: arrays element by element in order, objects by member, where a null member counts as absent.
pub fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::String(left), Value::String(right)) => left == right,
        (Value::Number(left), Value::Number(right)) => number_text(left) == number_text(right),
        (Value::Array(_), Value::Array(_)) | (Value::Object(_), Value::Object(_)) => {
            canonical(left).is_some_and(|left| canonical(right).is_some_and(|right| left == right))
        }
        (Value::Bool(left), Value::Bool(right)) => left == right,
        (Value::Null, Value::Null) => true,
        _ => false,
    }
}

/// Longest canonical form that is made: no value of a filter, which has at most 8 KiB, has a longer one.
const CANONICAL_BYTES_MAX: usize = 64 << 10;

/// Bytes that are equal exactly if the values are the [`same`]; None if they would be too long to equal a given value.
pub fn canonical(value: &Value) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    push_canonical(value, &mut out);
    (out.len() <= CANONICAL_BYTES_MAX).then_some(out)
}

fn push_canonical(value: &Value, out: &mut Vec<u8>) {
    if out.len() > CANONICAL_BYTES_MAX {
        return;
    }
    let push_text = |text: &str, out: &mut Vec<u8>| {
        out.extend_from_slice(&(text.len() as u64).to_le_bytes());
        out.extend_from_slice(text.as_bytes());
    };
    match value {
        Value::Null => out.push(b'0'),
        Value::Bool(value) => out.push(if *value { b't' } else { b'f' }),
        Value::Number(number) => {
            out.push(b'n');
            push_text(&number_text(number), out);
        }
        Value::String(text) => {
            out.push(b's');
            push_text(text, out);
        }
        Value::Array(elements) => {
            out.push(b'[');
            elements.iter().for_each(|element| push_canonical(element, out));
            out.push(b']');
        }
        Value::Object(members) => {
            let mut sorted: Vec<_> = members.iter().filter(|(_, value)| !value.is_null()).collect();
            sorted.sort_unstable_by_key(|(name, _)| *name);
            out.push(b'{');
            for (name, value) in sorted {
                push_text(name, out);
                push_canonical(value, out);
            }
            out.push(b'}');
        }
    }
}

/// Lower case, character by character: unlike `str::to_lowercase`, a prefix stays a prefix whatever follows it.
pub fn fold_case(text: &str) -> String {
    if text.is_ascii() { text.to_ascii_lowercase() } else { text.chars().flat_map(char::to_lowercase).collect() }
}

/// Calls `visit` with the words of a text in lower case, cut at anything that is no letter or digit, each as far as it counts.
pub fn for_each_word_of(text: &str, mut visit: impl FnMut(&str)) {
    for word in text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
        let cut = &word[..word.floor_char_boundary(WORD_BYTES_MAX)];
        // Of most words the lower case fits into no more bytes: nothing is allocated for them.
        let mut bytes = [0; WORD_BYTES_MAX];
        if cut.is_ascii() {
            let bytes = &mut bytes[..cut.len()];
            bytes.copy_from_slice(cut.as_bytes());
            bytes.make_ascii_lowercase();
            visit(std::str::from_utf8(bytes).expect("ASCII"));
        } else {
            let folded = fold_case(cut);
            visit(&folded[..folded.floor_char_boundary(WORD_BYTES_MAX)]);
        }
    }
}

/// The words of a text, see [`for_each_word_of`].
pub fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    for_each_word_of(text, |word| words.push(word.to_owned()));
    words
}
