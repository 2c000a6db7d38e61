//! Copies spans of a body into columns: as JSON text, or as the text that a string stands for.
//!
//! JSON text is copied as sent but for white space outside strings, which is dropped, and for what is not JSON, which is
//! mended: `NaN` and numbers that no double holds become `null`, half a surrogate pair and bytes that are not UTF-8
//! become U+FFFD, raw control characters are escaped. Out is always UTF-8.

use super::scan::{BROKEN, ESCAPED, SPACED, Span, hex4, low_half};

/// A body and whether all of it is UTF-8.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Body<'a> {
    pub bytes: &'a [u8],
    pub utf8: bool,
}

impl<'a> Body<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, utf8: simdutf8::basic::from_utf8(bytes).is_ok() }
    }

    #[inline]
    pub fn raw(&self, span: Span) -> &'a [u8] {
        &self.bytes[span.start()..span.end()]
    }

    /// First byte of the value; 0 if absent.
    #[inline]
    pub fn first(&self, span: Span) -> u8 {
        if span.is_absent() { 0 } else { self.bytes[span.start()] }
    }

    pub fn is_null(&self, span: Span) -> bool {
        self.first(span) == b'n'
    }

    pub fn is_text(&self, span: Span) -> bool {
        self.first(span) == b'"'
    }

    /// The text of a boolean value.
    pub fn flag(&self, span: Span) -> Option<bool> {
        match self.first(span) {
            b't' => Some(true),
            b'f' => Some(false),
            _ => None,
        }
    }

    /// Appends the value as compact JSON.
    #[inline]
    pub fn push_json(&self, out: &mut Vec<u8>, span: Span) {
        let raw = self.raw(span);
        if span.marks() & (SPACED | BROKEN) == 0 && self.utf8 {
            out.extend_from_slice(raw);
        } else {
            push_clean(out, raw);
        }
    }

    /// Appends the text of a string; nothing if the value is not one.
    #[inline]
    pub fn push_text(&self, out: &mut Vec<u8>, span: Span) {
        let raw = self.raw(span);
        let Some(inner) = raw.get(1..raw.len().max(1) - 1).filter(|_| raw[0] == b'"') else {
            return;
        };
        if span.marks() & ESCAPED == 0 && self.utf8 {
            out.extend_from_slice(inner);
        } else {
            push_unescaped(out, inner);
        }
    }

    /// The text of a string.
    pub fn text(&self, span: Span) -> std::borrow::Cow<'a, [u8]> {
        if span.marks() & ESCAPED == 0 && self.utf8 && self.is_text(span) {
            let raw = self.raw(span);
            return raw[1..raw.len() - 1].into();
        }
        let mut out = Vec::new();
        self.push_text(&mut out, span);
        out.into()
    }

    /// The text of a string, or of a number or boolean as it is spelled: keys of old senders.
    pub fn key_text(&self, span: Span) -> Option<std::borrow::Cow<'a, [u8]>> {
        match self.first(span) {
            b'"' => Some(self.text(span)),
            b'-' | b'0'..=b'9' | b't' | b'f' => Some(self.raw(span).into()),
            _ => None,
        }
    }
}

/// Appends `text` as a JSON string.
pub(crate) fn push_json_text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            0..b' ' => push_control(out, byte),
            byte => out.push(byte),
        }
    }
    out.push(b'"');
}

fn push_control(out: &mut Vec<u8>, byte: u8) {
    match byte {
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        byte => {
            const HEX: &[u8; 16] = b"0123456789abcdef";
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
    }
}

/// Bytes that may or may not be UTF-8, with U+FFFD for what is not.
fn push_lossy(out: &mut Vec<u8>, bytes: &[u8]) {
    for chunk in bytes.utf8_chunks() {
        out.extend_from_slice(chunk.valid().as_bytes());
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

fn push_clean(out: &mut Vec<u8>, raw: &[u8]) {
    let mut at = 0;
    while let Some(byte) = raw.get(at) {
        match byte {
            b'"' => at = push_clean_string(out, raw, at),
            b' ' | b'\n' | b'\r' | b'\t' => at += 1,
            b'-' | b'0'..=b'9' | b'N' | b'I' => {
                let length = raw[at..].iter().take_while(|b| b.is_ascii_alphanumeric() || b"+-.".contains(b)).count();
                let number = &raw[at..at + length];
                out.extend_from_slice(if super::number::double(number).is_some() { number } else { b"null" });
                at += length;
            }
            byte => {
                out.push(*byte);
                at += 1;
            }
        }
    }
}

/// Copies the string that opens at `at`; returns the position behind it.
fn push_clean_string(out: &mut Vec<u8>, raw: &[u8], at: usize) -> usize {
    out.push(b'"');
    let mut at = at + 1;
    loop {
        let run = raw[at..].iter().take_while(|byte| !matches!(byte, b'"' | b'\\' | 0..b' ')).count();
        push_lossy(out, &raw[at..at + run]);
        at += run;
        match raw.get(at) {
            Some(b'\\') => {
                let (length, good) = escape(raw, at);
                out.extend_from_slice(if good { &raw[at..at + length] } else { b"\\ufffd" });
                at += length;
            }
            Some(byte @ 0..b' ') => {
                push_control(out, *byte);
                at += 1;
            }
            _ => {
                out.push(b'"');
                return at + 1;
            }
        }
    }
}

/// Length of the escape at `at`, which the scanner accepted, and whether it stands for a character.
fn escape(raw: &[u8], at: usize) -> (usize, bool) {
    if raw.get(at + 1) != Some(&b'u') {
        return (2, true);
    }
    match hex4(raw, at + 2) {
        Some(0xd800..0xdc00) if low_half(raw, at + 6).is_some() => (12, true),
        Some(0xd800..0xe000) => (6, false),
        _ => (6, true),
    }
}

fn push_unescaped(out: &mut Vec<u8>, inner: &[u8]) {
    let mut at = 0;
    while at < inner.len() {
        let run = memchr::memchr(b'\\', &inner[at..]).unwrap_or(inner.len() - at);
        push_lossy(out, &inner[at..at + run]);
        at += run;
        if at >= inner.len() {
            return;
        }
        let (length, good) = escape(inner, at);
        let character = match inner.get(at + 1) {
            Some(b'u') if good => {
                let unit = hex4(inner, at + 2).unwrap_or(0xfffd);
                let code = match low_half(inner, at + 6) {
                    Some(low) if length == 12 => 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00),
                    _ => unit,
                };
                char::from_u32(code).unwrap_or('\u{fffd}')
            }
            Some(b'u') | None => '\u{fffd}',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(byte) => char::from(*byte),
        };
        out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        at += length;
    }
}

/// The span of a JSON text that stands alone.
#[cfg(test)]
pub(crate) fn span_of(text: &[u8]) -> Option<Span> {
    super::scan::Scanner::new(text).value().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &[u8]) -> String {
        let span = span_of(text).unwrap();
        let mut out = Vec::new();
        Body::new(text).push_json(&mut out, span);
        String::from_utf8(out).unwrap()
    }

    fn plain(text: &[u8]) -> String {
        let span = span_of(text).unwrap();
        let mut out = Vec::new();
        Body::new(text).push_text(&mut out, span);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn json_keeps_its_spelling_and_loses_its_white_space() {
        assert_eq!(json(br#"{"a" : [ 1.0 , 1E+2 , "x y" ] }"#), r#"{"a":[1.0,1E+2,"x y"]}"#);
        assert_eq!(json(br#"{"a":"\u003d\/"}"#), r#"{"a":"\u003d\/"}"#);
        assert_eq!(json(&b"9".repeat(40)), "9".repeat(40));
    }

    #[test]
    fn what_is_not_json_is_mended() {
        assert_eq!(json(b"[NaN, -Infinity,Infinity,1e99999,-1]"), "[null,null,null,null,-1]");
        assert_eq!(json(br#"["\ud800x","\ud83d\ude00","\udc00"]"#), r#"["\ufffdx","\ud83d\ude00","\ufffd"]"#);
        assert_eq!(json(b"[\"a\xffb\",\"\0\n\"]"), "[\"a\u{fffd}b\",\"\\u0000\\n\"]");
    }

    #[test]
    fn strings_become_their_text() {
        assert_eq!(plain(br#""a\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00""#), "a\"\\/\u{8}\u{c}\n\r\té😀");
        assert_eq!(plain(br#""\ud800\ud83d\ude00\udc00""#), "\u{fffd}😀\u{fffd}");
        assert_eq!(plain(b"\"a\xff\""), "a\u{fffd}");
        assert_eq!(plain(b"\"\""), "");
        assert_eq!(plain(b"12"), "");
    }

    #[test]
    fn text_is_quoted() {
        let mut out = Vec::new();
        push_json_text(&mut out, "a\"\\\u{1}é\n");
        assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), "a\"\\\u{1}é\n");
    }
}
