//! Reads JSON text in place, once, and hands out spans of it.
//!
//! In: the bytes of a body. Out: [`Span`]s of names and values, in the order of the text.
//! Promise: what a span covers is one complete JSON value, or differs from one only as its marks say (a literal that
//! Python invented, half a surrogate pair, a raw control character); [`super::text`] mends that while copying. Never
//! recurses: nesting costs one bit a level, up to `limits::EVENT_DEPTH_MAX`.
//!
//! Why not a tape of simd-json: the columns want text exactly as sent, which a tape has already unescaped and whose
//! numbers it has already parsed; a tape covers the whole body, and three quarters of a real body are contexts that
//! repeat byte for byte, which a reader in place skips by comparing (`rows::context`); and a body that strict JSON
//! refuses would need this reader all the same. `bench decode` prints both costs.

use events::{DeadLetterReason, limits};

/// Part of the body, with marks: in one word, so that it stays in a register. The default is the absent span, which no
/// value can have.
///
/// Start in the low 32 bits, end in the next 29, marks above.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Span(u64);

const MARKS_SHIFT: u32 = 61;
const END_SHIFT: u32 = 32;
const _: () = assert!(limits::BODY_BYTES_CEILING < 1 << (MARKS_SHIFT - END_SHIFT));
const MARKS: u8 = SPACED | BROKEN | ESCAPED;
const _: () = assert!(MARKS < 1 << (64 - MARKS_SHIFT));

/// White space outside strings.
pub(crate) const SPACED: u8 = 1;
/// Not JSON as it stands.
pub(crate) const BROKEN: u8 = 2;
/// A backslash in some string.
pub(crate) const ESCAPED: u8 = 4;

impl Span {
    #[inline]
    pub fn new(start: usize, end: usize, marks: u8) -> Self {
        Self(start as u64 | (end as u64) << END_SHIFT | u64::from(marks) << MARKS_SHIFT)
    }

    #[inline]
    pub fn start(self) -> usize {
        self.0 as u32 as usize
    }

    #[inline]
    pub fn end(self) -> usize {
        (self.0 >> END_SHIFT) as usize & ((1 << (MARKS_SHIFT - END_SHIFT)) - 1)
    }

    #[inline]
    pub fn marks(self) -> u8 {
        (self.0 >> MARKS_SHIFT) as u8
    }

    #[inline]
    pub fn is_absent(self) -> bool {
        self.0 == 0
    }

    #[inline]
    pub fn len(self) -> usize {
        self.end() - self.start()
    }
}

impl std::fmt::Debug for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}..{} marks {}", self.start(), self.end(), self.marks())
    }
}

/// Why the text cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    pub reason: DeadLetterReason,
    pub expected: &'static str,
    pub at: usize,
}

/// Says only that the scanner's `failure` tells why: a result that fits two registers, for the busiest functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failed;

pub(crate) type Result<T> = std::result::Result<T, Failed>;

#[derive(Debug)]
pub(crate) struct Scanner<'a> {
    bytes: &'a [u8],
    pub position: usize,
    /// Arrays and objects open now, counted within the event.
    depth: u32,
    marks: u8,
    pub failure: Option<SyntaxError>,
}

impl<'a> Scanner<'a> {
    /// `bytes`: at most `limits::BODY_BYTES_CEILING`, so that a position fits a span.
    pub fn new(bytes: &'a [u8]) -> Self {
        assert!(bytes.len() <= limits::BODY_BYTES_CEILING, "a body of {} bytes got past its cap", bytes.len());
        Self { bytes, position: 0, depth: 0, marks: 0, failure: None }
    }

    /// A reader of the value at `span`, which was read before.
    pub fn at(bytes: &'a [u8], span: Span) -> Self {
        Self { bytes, position: span.start(), depth: 0, marks: 0, failure: None }
    }

    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The next byte; 0 at the end, which is no byte that JSON allows between its parts.
    #[inline]
    pub fn peek(&self) -> u8 {
        self.bytes.get(self.position).copied().unwrap_or(0)
    }

    pub fn at_end(&self) -> bool {
        self.position >= self.bytes.len()
    }

    #[cold]
    pub fn error<T>(&mut self, expected: &'static str) -> Result<T> {
        self.fail(DeadLetterReason::InvalidJson, expected)
    }

    #[cold]
    fn fail<T>(&mut self, reason: DeadLetterReason, expected: &'static str) -> Result<T> {
        self.failure = Some(SyntaxError { reason, expected, at: self.position });
        Err(Failed)
    }

    #[inline]
    pub fn space(&mut self) {
        if self.peek() <= b' ' {
            self.space_slowly();
        }
    }

    fn space_slowly(&mut self) {
        while matches!(self.bytes.get(self.position), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.position += 1;
            self.marks |= SPACED;
        }
    }

    /// Starts collecting marks for a span; give the result to [`Scanner::close_span`].
    #[inline]
    pub fn open_span(&mut self) -> (usize, u8) {
        (self.position, std::mem::take(&mut self.marks))
    }

    #[inline]
    pub fn close_span(&mut self, (start, outer): (usize, u8)) -> Span {
        let span = Span::new(start, self.position, self.marks);
        self.marks |= outer;
        span
    }

    /// Enters an object or array at the current position.
    #[inline]
    pub fn enter(&mut self) -> Result<()> {
        self.depth += 1;
        if self.depth as usize > limits::EVENT_DEPTH_MAX {
            return self.fail(DeadLetterReason::TooDeep, "less nesting");
        }
        self.position += 1;
        self.space();
        Ok(())
    }

    /// The next name of the object entered last, with the position at its value; `None` after the closing brace.
    #[inline]
    pub fn next_name(&mut self, first: &mut bool) -> Result<Option<Span>> {
        if self.peek() == b'}' {
            // After a comma a name must follow, which `string` below says.
            self.position += 1;
            self.depth -= 1;
            return Ok(None);
        }
        if !std::mem::take(first) {
            if self.peek() != b',' {
                return self.error("`,` or `}`");
            }
            self.position += 1;
            self.space();
        }
        self.name().map(Some)
    }

    /// Skips a comma, unless `first`, and `token`, a name in quotes with its colon, if they stand here and a value
    /// follows at once. Returns the span of the name.
    #[inline]
    pub fn skip_name(&mut self, token: &[u8], first: bool) -> Option<Span> {
        let rest = self.bytes.get(self.position..)?;
        let comma = usize::from(!first);
        if !first && rest.first() != Some(&b',') {
            return None;
        }
        let after = rest.get(comma..)?.strip_prefix(token)?;
        if *after.first()? <= b' ' {
            return None;
        }
        let start = self.position + comma;
        self.position = start + token.len();
        Some(Span::new(start, self.position - 1, 0))
    }

    #[inline]
    fn name(&mut self) -> Result<Span> {
        if self.peek() != b'"' {
            return self.error("a name in quotes");
        }
        let open = self.open_span();
        self.string()?;
        let span = self.close_span(open);
        self.space();
        if self.peek() != b':' {
            return self.error("`:`");
        }
        self.position += 1;
        self.space();
        Ok(span)
    }

    /// Whether another item of the array entered last follows, with the position at it.
    #[inline]
    pub fn next_item(&mut self, first: &mut bool) -> Result<bool> {
        if self.peek() == b']' {
            self.position += 1;
            self.depth -= 1;
            return Ok(false);
        }
        if !std::mem::take(first) {
            if self.peek() != b',' {
                return self.error("`,` or `]`");
            }
            self.position += 1;
            self.space();
        }
        Ok(true)
    }

    /// Reads one value of any kind, and the white space after it.
    #[inline]
    pub fn value(&mut self) -> Result<Span> {
        let open = self.open_span();
        match self.peek() {
            b'"' => self.string()?,
            b'{' | b'[' => self.container()?,
            _ => self.scalar()?,
        }
        let span = self.close_span(open);
        self.space();
        Ok(span)
    }

    fn container(&mut self) -> Result<()> {
        // One bit for each open container: 1 for an object.
        const _: () = assert!(limits::EVENT_DEPTH_MAX <= 128);
        let (mut objects, base) = (0_u128, self.depth);
        loop {
            // At a value.
            match self.peek() {
                b'"' => self.string()?,
                opener @ (b'{' | b'[') => {
                    let object = opener == b'{';
                    objects = objects << 1 | u128::from(object);
                    self.enter()?;
                    if self.peek() == opener + 2 {
                        self.position += 1;
                        objects >>= 1;
                        self.depth -= 1;
                    } else {
                        if object {
                            self.name()?;
                        }
                        continue;
                    }
                }
                _ => self.scalar()?,
            }
            // After a value: close what ends here, up to the next value.
            loop {
                if self.depth == base {
                    return Ok(());
                }
                self.space();
                let object = objects & 1 == 1;
                match self.peek() {
                    b',' => {
                        self.position += 1;
                        self.space();
                        if object {
                            self.name()?;
                        }
                        break;
                    }
                    b'}' if object => {}
                    b']' if !object => {}
                    _ => return self.error(if object { "`,` or `}`" } else { "`,` or `]`" }),
                }
                self.position += 1;
                objects >>= 1;
                self.depth -= 1;
            }
        }
    }

    /// Reads a string from its opening quote to behind its closing one.
    #[inline]
    fn string(&mut self) -> Result<()> {
        let bytes = self.bytes;
        let mut at = self.position + 1;
        loop {
            while let Some(chunk) = bytes.get(at..at + 8) {
                let special = special(u64::from_le_bytes(chunk.try_into().expect("eight bytes")));
                if special != 0 {
                    at += special.trailing_zeros() as usize / 8;
                    break;
                }
                at += 8;
            }
            match bytes.get(at) {
                Some(b'"') => {
                    self.position = at + 1;
                    return Ok(());
                }
                Some(b'\\') => {
                    self.marks |= ESCAPED;
                    at = self.escape(at)?;
                }
                Some(byte) => {
                    if *byte < b' ' {
                        self.marks |= BROKEN;
                    }
                    at += 1;
                }
                None => {
                    self.position = bytes.len();
                    return self.error("a closing quote");
                }
            }
        }
    }

    /// Checks the escape at `at` and returns the position behind it.
    fn escape(&mut self, at: usize) -> Result<usize> {
        match self.bytes.get(at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(at + 2),
            Some(b'u') if hex4(self.bytes, at + 2).is_some() => {
                let unit = hex4(self.bytes, at + 2).unwrap_or(0);
                if !(0xd800..0xe000).contains(&unit) {
                    return Ok(at + 6);
                }
                if low_half(self.bytes, at + 6).is_some() && unit < 0xdc00 {
                    return Ok(at + 12);
                }
                self.marks |= BROKEN;
                Ok(at + 6)
            }
            _ => {
                self.position = at;
                self.error("a valid escape")
            }
        }
    }

    fn scalar(&mut self) -> Result<()> {
        let rest = &self.bytes[self.position.min(self.bytes.len())..];
        // Most scalars are short whole numbers.
        let digits = rest.iter().take(19).take_while(|byte| byte.is_ascii_digit()).count();
        if digits > 0
            && digits < 19
            && !matches!(rest.get(digits), Some(b'.' | b'e' | b'E'))
            && (rest[0] != b'0' || digits == 1)
        {
            self.position += digits;
            return Ok(());
        }
        self.scalar_of(rest)
    }

    fn scalar_of(&mut self, rest: &[u8]) -> Result<()> {
        let (length, mark) = match rest {
            [b't', b'r', b'u', b'e', ..] | [b'n', b'u', b'l', b'l', ..] => (4, 0),
            [b'f', b'a', b'l', b's', b'e', ..] => (5, 0),
            [b'0'..=b'9' | b'-', ..] => match number(rest) {
                Some((length, fits)) => (length, if fits { 0 } else { BROKEN }),
                None if rest.starts_with(b"-Infinity") => (9, BROKEN),
                None => return self.error("a number"),
            },
            [b'N', b'a', b'N', ..] => (3, BROKEN),
            _ if rest.starts_with(b"Infinity") => (8, BROKEN),
            _ => return self.error("a value"),
        };
        self.position += length;
        self.marks |= mark;
        Ok(())
    }

    /// The position was moved behind a value that is known from before, marks unknown.
    #[inline]
    pub fn mark_as_repeat(&mut self) {
        self.marks |= SPACED | BROKEN;
    }

    /// Where the reader is, for [`Scanner::back_to`].
    pub fn place(&self) -> (usize, u32, u8) {
        (self.position, self.depth, self.marks)
    }

    pub fn back_to(&mut self, place: (usize, u32, u8)) {
        (self.position, self.depth, self.marks) = place;
    }

    /// Finds the end of an array item that starts at `start` and cannot be read: the next `,` or `]` outside of
    /// strings and brackets. `None` if the text ends before.
    pub fn end_of_unreadable(&self, start: usize) -> Option<usize> {
        let (mut at, mut depth) = (start, 0_u32);
        loop {
            match self.bytes.get(at)? {
                b'"' => {
                    at += 1;
                    loop {
                        match self.bytes.get(at)? {
                            b'"' => break,
                            b'\\' => at += 2,
                            _ => at += 1,
                        }
                    }
                }
                b'{' | b'[' => depth += 1,
                b',' | b']' if depth == 0 => return Some(at),
                b'}' | b']' => depth = depth.saturating_sub(1),
                _ => {}
            }
            at += 1;
        }
    }

    /// Forgets what was open: for going on behind an item that could not be read.
    pub fn resume(&mut self, position: usize) {
        self.position = position;
        self.depth = 0;
        self.marks = 0;
    }
}

/// Sets the top bit of each byte that is a quote, a backslash or a control character; only the lowest set bit is
/// certain, and it is all that is used.
#[inline]
fn special(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const TOPS: u64 = 0x8080_8080_8080_8080;
    let zero = |word: u64| word.wrapping_sub(ONES) & !word;
    let quote = zero(word ^ (ONES * b'"' as u64));
    let backslash = zero(word ^ (ONES * b'\\' as u64));
    let control = word.wrapping_sub(ONES * b' ' as u64) & !word;
    (quote | backslash | control) & TOPS
}

/// Length of the number at the start of `text`, and whether it fits a double.
fn number(text: &[u8]) -> Option<(usize, bool)> {
    let digits = |from: usize| from + text[from.min(text.len())..].iter().take_while(|b| b.is_ascii_digit()).count();
    let start = usize::from(text[0] == b'-');
    let mut at = digits(start);
    if at == start || text[start] == b'0' && at > start + 1 {
        return None;
    }
    let mut sure = at < 300;
    if text.get(at) == Some(&b'.') {
        let fraction = at + 1;
        at = digits(fraction);
        if at == fraction {
            return None;
        }
    }
    if let Some(b'e' | b'E') = text.get(at) {
        let exponent = at + 1 + usize::from(matches!(text.get(at + 1), Some(b'+' | b'-')));
        at = digits(exponent);
        if at == exponent {
            return None;
        }
        sure = false;
    }
    Some((at, sure || super::number::double(&text[..at]).is_some()))
}

/// The four hexadecimal digits at `at`.
pub(crate) fn hex4(bytes: &[u8], at: usize) -> Option<u32> {
    let digits = bytes.get(at..at + 4)?;
    digits.iter().try_fold(0, |unit, digit| Some(unit << 4 | (*digit as char).to_digit(16)?))
}

/// The escape at `at`, if it is the low half of a surrogate pair.
pub(crate) fn low_half(bytes: &[u8], at: usize) -> Option<u32> {
    let escape = bytes.get(at..at + 2)? == b"\\u";
    hex4(bytes, at + 2).filter(|unit| escape && (0xdc00..0xe000).contains(unit))
}

#[cfg(test)]
mod tests;
