//! The bytes under which a context is found: one posting-list term per fact.
//!
//! In: the newest state of a context. Out: terms of the one indexed field. Attribute paths are data, not schema: however
//! many there are, the mapping has one field. Every term begins with its environment, so that no query can leave it, and
//! names and values of attributes are ranges of the dictionary.
//!
//! | family | after environment and family byte | says |
//! |---|---|---|
//! | `A` | | the context is listed |
//! | `K` | kind, key (unfinished last) | identity; also of contexts that are not listed |
//! | `k` | kind | contexts of this kind exist |
//! | `x` | kind, pointer, `l` / `m` / `o` / `p` | attribute exists: listed, a scalar / a list; not listed, a scalar / a list or object |
//! | `x` | kind, pointer, `r` / `R` / `L` | is held back: absent / present; is a text too long to stand in a term |
//! | `v` | kind, pointer, text in lower case, tag, text as it stood if different | scalar value, or element of an array |
//! | `w` | kind, pointer, `N`, number of its members, 1 byte | an object, whole: its members have terms of their own |
//! | `w` | kind, pointer, `W` or `E`, 8 bytes of hash | array or object of many members, whole; any of them as an element |
//! | `d` | kind, pointer, 12 sortable bytes | value is, or an element of it is, this time; not of numbers from 10^8 on |
//! | `D` | kind, pointer, level, 8 sortable bytes | the same, of the span of 2^level seconds that holds the time |
//! | `a` | application | some version is of this application |
//! | `q` | word | the key or some text attribute has this word |
//! | `L` | | the context was seen alone, so that it is an instance |
//! | `I` | | the document is an instance of several parts; it has none of the above but `K` and `a` |
//! | `n` | number of parts, 2 bytes | the instance has so many |
//! | `j` | kind | the instance has a part of this kind |
//! | `p` | kind, key | the instance has this part; also of instances that are deleted |
//! | `E` | 16 bytes of hash of the identity | the document says until when a context is erased |
//!
//! Texts end with `00 01`, or with `00 02`, 16 bytes of hash and `00 01` if they were cut; a zero byte within is `00 FF`.
//! So a text's term begins with any shorter text's bytes, no text runs into what follows, and order is kept.
//! Whole numbers of as many digits lie in order among the value terms, so that a time that is one needs no term of its own. Those of
//! few digits have one: a range of their value terms would hold those of all longer numbers.
//! A hash of each object is what its members say already, and random bytes are what costs a dictionary most.
//! The encoding is part of the index format: a change needs a new `index::FORMAT`.

use events::Environment;
use events::context::canonical_parts;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use serde_json::{Map, Value};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::attribute::{push_pointer_name, redacted, walk};
use crate::filter::evaluate::for_each_word;
use crate::filter::{FilterTime, WORD_BYTES_MAX, canonical, fold_case, number_text};
use crate::scan::{Accept, Scan};

/// Bytes of a kind, pointer or application that stand in a term as they are.
pub const NAME_BYTES_MAX: usize = 512;
/// Bytes of a key that stand in a term as they are.
pub const KEY_BYTES_MAX: usize = 1024;
/// Bytes of a text value that stand in a term as they are.
pub const VALUE_BYTES_MAX: usize = 256;
/// Attribute names of one context that look-ups list.
pub const LISTED_NAMES_MAX: usize = 100;
/// Members up to which an object is found by theirs: a question for one has a term for each.
pub const MEMBERS_MAX: usize = 32;
/// Terms of one context. What lies beyond is stored and shown, but not found.
pub const TERMS_MAX: usize = 20_000;

/// Families, see the file head.
pub mod family {
    pub const LISTED: u8 = b'A';
    pub const IDENTITY: u8 = b'K';
    pub const KIND: u8 = b'k';
    pub const EXISTS: u8 = b'x';
    pub const VALUE: u8 = b'v';
    pub const WHOLE: u8 = b'w';
    pub const TIME: u8 = b'd';
    pub const TIME_SPAN: u8 = b'D';
    pub const APPLICATION: u8 = b'a';
    pub const WORD: u8 = b'q';
    pub const ALONE: u8 = b'L';
    pub const INSTANCE: u8 = b'I';
    pub const PART_COUNT: u8 = b'n';
    pub const PART_KIND: u8 = b'j';
    pub const PART: u8 = b'p';
    pub const ERASED: u8 = b'E';
}

/// Spans of time that have terms of their own, as powers of two of a second: 4.5 hours and 48 days. A range of times is
/// then a few hundred terms, however many times there are in it.
const SPAN_LEVELS: [u32; 2] = [14, 22];

/// Numbers of milliseconds from this on are looked for among the value terms.
const LARGE_MILLIS: i64 = 100_000_000;

/// How an attribute exists.
pub mod exists {
    /// Look-ups list the name. Whatever exists has one of these four, and has a value term if that says so.
    pub const LEAF: u8 = b'l';
    pub const LEAF_LIST: u8 = b'm';
    pub const OTHER: u8 = b'o';
    /// A list or an object, and look-ups do not list the name.
    pub const OTHER_LIST: u8 = b'p';
    pub const SCALARS: [u8; 2] = [LEAF, OTHER];
    pub const LISTS: [u8; 2] = [LEAF_LIST, OTHER_LIST];
    pub const ALL: [u8; 4] = [LEAF, LEAF_LIST, OTHER, OTHER_LIST];
    /// Listed as held back, and no value is known.
    pub const REDACTED: u8 = b'r';
    /// Listed as held back, but a value is known from another sighting.
    pub const REDACTED_KNOWN: u8 = b'R';
    /// Beside one of the others: the value is a text that does not stand whole in a term.
    pub const LONG_TEXT: u8 = b'L';
}

/// Whether a text does not stand whole in a term.
fn is_long_text(text: &str) -> bool {
    // No character grows to more than three times its bytes in lower case.
    text.len() > VALUE_BYTES_MAX / 3 && fold_case(text).len().max(text.len()) > VALUE_BYTES_MAX
}

/// How many members an object has, null being none, if it is found by theirs.
fn member_count(members: &Map<String, Value>) -> Option<u8> {
    let count = members.values().filter(|member| !member.is_null()).count();
    u8::try_from(count).ok().filter(|_| count <= MEMBERS_MAX)
}

/// The tag of a value term: its type, and whether it is the whole value or an element of an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag(pub u8);

impl Tag {
    pub const TEXT: Self = Self(b's');
    pub const LONG_TEXT: Self = Self(b'S');
    pub const NUMBER: Self = Self(b'n');
    pub const BOOL: Self = Self(b'b');
    const ELEMENT: u8 = 0x80;

    pub const fn as_element(self) -> Self {
        Self(self.0 | Self::ELEMENT)
    }

    #[cfg(test)]
    pub const fn is_element(self) -> bool {
        self.0 & Self::ELEMENT != 0
    }

    pub const fn of_type(self) -> Self {
        Self(self.0 & !Self::ELEMENT)
    }
}

/// Environment part of every term.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EnvironmentPrefix([u8; Self::BYTES]);

impl EnvironmentPrefix {
    const BYTES: usize = 12;

    pub fn new(environment: &Environment) -> Self {
        let id = environment.id();
        let mut bytes = [0; Self::BYTES];
        for (byte, digits) in bytes.iter_mut().zip(id.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(digits).unwrap_or_default();
            *byte = u8::from_str_radix(digits, 16).expect("environment ids are 24 hexadecimal digits");
        }
        Self(bytes)
    }

    /// The environment of a term; None of a term that is of none.
    pub fn of_term(term: &[u8]) -> Option<Self> {
        let (prefix, rest) = term.split_first_chunk::<{ Self::BYTES }>()?;
        (!rest.is_empty()).then_some(Self(*prefix))
    }

    /// The term before which no other environment's come: none, for the last there can be.
    pub fn after(&self) -> Option<Vec<u8>> {
        crate::scan::prefix_end(&self.0)
    }

    /// The start of all terms of a family.
    pub fn family(&self, family: u8) -> TermBytes {
        let mut bytes = Vec::with_capacity(64);
        bytes.extend_from_slice(&self.0);
        bytes.push(family);
        TermBytes(bytes)
    }

    pub fn listed(&self) -> Vec<u8> {
        self.family(family::LISTED).0
    }

    pub fn kind(&self, kind: &str) -> Vec<u8> {
        self.family(family::KIND).text(kind, NAME_BYTES_MAX).0
    }

    pub fn application(&self, application: &str) -> Vec<u8> {
        self.family(family::APPLICATION).text(application, NAME_BYTES_MAX).0
    }

    /// The term that identifies a context: upserts delete by it.
    pub fn identity(&self, kind: &str, key: &str) -> Vec<u8> {
        self.family(family::IDENTITY).text(kind, NAME_BYTES_MAX).text(key, KEY_BYTES_MAX).0
    }

    /// Names an erased context by a hash, as nothing of its key may stay.
    pub fn erased_hash(&self, kind: &str, key: &str) -> u128 {
        xxh3_128(&self.identity(kind, key))
    }

    /// The term of what is known of an erased context.
    pub fn erased(&self, hash: u128) -> Vec<u8> {
        let mut term = self.family(family::ERASED).0;
        term.extend_from_slice(&hash.to_be_bytes());
        term
    }

    /// The term of contexts that were seen alone.
    pub fn alone(&self) -> Vec<u8> {
        self.family(family::ALONE).0
    }

    /// The term of instances of several parts.
    pub fn instance(&self) -> Vec<u8> {
        self.family(family::INSTANCE).0
    }

    pub fn part_count(&self, parts: usize) -> Vec<u8> {
        let mut term = self.family(family::PART_COUNT).0;
        term.extend_from_slice(&u16::try_from(parts).unwrap_or(u16::MAX).to_be_bytes());
        term
    }

    pub fn part_kind(&self, kind: &str) -> Vec<u8> {
        self.family(family::PART_KIND).text(kind, NAME_BYTES_MAX).0
    }

    pub fn part(&self, kind: &str, key: &str) -> Vec<u8> {
        self.family(family::PART).text(kind, NAME_BYTES_MAX).text(key, KEY_BYTES_MAX).0
    }

    /// Start of the identities of `kind` whose key begins with `prefix`, and whether it had to be cut.
    pub fn identity_prefix(&self, kind: &str, prefix: &str) -> (Vec<u8>, bool) {
        let cut = cut_at(prefix, KEY_BYTES_MAX);
        (self.family(family::IDENTITY).text(kind, NAME_BYTES_MAX).open_text(cut).0, cut.len() < prefix.len())
    }

    pub fn attribute(&self, family: u8, kind: &str, pointer: &str) -> TermBytes {
        self.family(family).text(kind, NAME_BYTES_MAX).text(pointer, NAME_BYTES_MAX)
    }

    pub fn exists(&self, kind: &str, pointer: &str, how: u8) -> Vec<u8> {
        let mut term = self.attribute(family::EXISTS, kind, pointer).0;
        term.push(how);
        term
    }

    /// The terms that a context has, all of them, if its attribute is the same as `value`, and only then. None: no context's is.
    pub fn equal(&self, kind: &str, pointer: &str, value: &Value) -> Option<Vec<Vec<u8>>> {
        let mut terms = Vec::new();
        self.add_equal(kind, &mut pointer.to_owned(), value, &mut terms)?;
        Some(terms)
    }

    fn add_equal(&self, kind: &str, pointer: &mut String, value: &Value, terms: &mut Vec<Vec<u8>>) -> Option<()> {
        terms.push(self.value(kind, pointer, value, false)?);
        let Value::Object(members) = value else { return Some(()) };
        if member_count(members).is_none() {
            return Some(());
        }
        for (name, member) in members.iter().filter(|(_, member)| !member.is_null()) {
            let length = pointer.len();
            push_pointer_name(pointer, name);
            self.add_equal(kind, pointer, member, terms)?;
            pointer.truncate(length);
        }
        Some(())
    }

    /// The term of one value: whole, or as an element of an array. Null has none, nor has what no filter can equal. That of an
    /// object may say no more than how many members it has.
    pub fn value(&self, kind: &str, pointer: &str, value: &Value, is_element: bool) -> Option<Vec<u8>> {
        let mut term = AttributeTerm::new(self, kind, pointer);
        term.value(value, is_element)?;
        Some(term.bytes)
    }

    /// Start of the value terms whose text begins with `prefix` in any letter case, and whether it had to be cut.
    pub fn value_prefix(&self, kind: &str, pointer: &str, prefix: &str) -> (Vec<u8>, bool) {
        let lower = fold_case(prefix);
        let cut = cut_at(&lower, VALUE_BYTES_MAX);
        (self.attribute(family::VALUE, kind, pointer).open_text(cut).0, cut.len() < lower.len())
    }

    /// How a text within a value term is written, so that it can be looked for there.
    pub fn part_of_value(text: &str) -> Vec<u8> {
        TermBytes(Vec::new()).open_text(&fold_case(text)).0
    }

    pub fn time(&self, kind: &str, pointer: &str, time: FilterTime) -> Vec<u8> {
        let mut term = AttributeTerm::new(self, kind, pointer);
        term.time(time);
        term.bytes
    }

    fn time_span(&self, kind: &str, pointer: &str, level: u32, number: i64) -> Vec<u8> {
        let mut term = AttributeTerm::new(self, kind, pointer);
        term.time_span(level, number);
        term.bytes
    }

    /// What finds all times up to and with `limit`.
    pub fn times_until(&self, kind: &str, pointer: &str, limit: FilterTime) -> Vec<Scan> {
        let [small, large] = SPAN_LEVELS;
        let (span, wide) = (limit.seconds >> small, limit.seconds >> large);
        let at = |level, number| self.time_span(kind, pointer, level, number);
        let begin = FilterTime { seconds: span << small, nanos: 0 };
        // The limit itself is included, and no term is longer.
        let end = [self.time(kind, pointer, limit).as_slice(), &[0]].concat();
        let mut scans = vec![
            Scan::range(at(large, i64::MIN), at(large, wide)),
            Scan::range(at(small, wide << (large - small)), at(small, span)),
            Scan::range(self.time(kind, pointer, begin), end),
        ];
        self.add_large_numbers(kind, pointer, (begin.first_millis(), limit.last_millis()), &mut scans);
        scans
    }

    /// What finds all times from `limit` on.
    pub fn times_from(&self, kind: &str, pointer: &str, limit: FilterTime) -> Vec<Scan> {
        let [small, large] = SPAN_LEVELS;
        let (span, wide) = (limit.seconds >> small, limit.seconds >> large);
        let at = |level, number| self.time_span(kind, pointer, level, number);
        // Seconds come from milliseconds or from dates of four digits, so one span more is no overflow.
        let end = FilterTime { seconds: (span + 1) << small, nanos: 0 };
        let last = FilterTime { seconds: end.seconds - 1, nanos: 999_999_999 };
        let mut scans = vec![
            Scan::range(self.time(kind, pointer, limit), self.time(kind, pointer, end)),
            Scan::range(at(small, span + 1), at(small, (wide + 1) << (large - small))),
            Scan::range(at(large, wide + 1), at(large, i64::MAX)),
        ];
        self.add_large_numbers(kind, pointer, (limit.first_millis(), last.last_millis()), &mut scans);
        scans
    }

    /// The value terms of whole numbers from the first to the last, as far as they have no term of their time.
    fn add_large_numbers(&self, kind: &str, pointer: &str, (first, last): (i64, i64), scans: &mut Vec<Scan>) {
        let start = self.attribute(family::VALUE, kind, pointer).0;
        let mut from = first.max(LARGE_MILLIS);
        // One range for each number of digits.
        while from <= last {
            let most = 10_i64.checked_pow(from.ilog10() + 1).map_or(i64::MAX, |power| power - 1);
            let to = last.min(most);
            let text = |number: i64, end: &[u8]| [start.as_slice(), number.to_string().as_bytes(), end].concat();
            let accept = Accept::WholeNumber { text_at: start.len(), from, to };
            scans.push(Scan { from: text(from, &[]), to: Some(text(to, &[0, 2])), accept });
            let Some(next) = to.checked_add(1) else { return };
            from = next;
        }
    }

    pub fn word(&self, word: &str) -> Vec<u8> {
        self.family(family::WORD).open_text(cut_at(word, WORD_BYTES_MAX)).0
    }
}

/// A term under construction.
#[derive(Clone, Debug)]
pub struct TermBytes(pub Vec<u8>);

impl TermBytes {
    /// Appends a text with its end.
    pub fn text(mut self, text: &str, bytes_max: usize) -> Self {
        push_text(&mut self.0, text, bytes_max);
        self
    }

    /// Appends a text without its end: the start of all texts that begin with it.
    pub fn open_text(mut self, text: &str) -> Self {
        push_open_text(&mut self.0, text);
        self
    }
}

fn push_text(term: &mut Vec<u8>, text: &str, bytes_max: usize) {
    let cut = cut_at(text, bytes_max);
    push_open_text(term, cut);
    if cut.len() < text.len() {
        term.extend_from_slice(&[0, 2]);
        term.extend_from_slice(&xxh3_128(text.as_bytes()).to_be_bytes());
    }
    term.extend_from_slice(&[0, 1]);
}

fn push_open_text(term: &mut Vec<u8>, text: &str) {
    if !text.as_bytes().contains(&0) {
        term.extend_from_slice(text.as_bytes());
        return;
    }
    for byte in text.bytes() {
        term.push(byte);
        if byte == 0 {
            term.push(0xFF);
        }
    }
}

/// The terms of the attributes of one kind, one after the other in the same bytes: those of an attribute differ in their family and
/// in their ends.
struct AttributeTerm {
    bytes: Vec<u8>,
    /// Where the kind ends.
    kind_end: usize,
    /// Where the pointer ends.
    start: usize,
}

impl AttributeTerm {
    fn new(environment: &EnvironmentPrefix, kind: &str, pointer: &str) -> Self {
        let mut term = Self::of_kind(environment, kind);
        term.go_to(pointer);
        term
    }

    fn of_kind(environment: &EnvironmentPrefix, kind: &str) -> Self {
        let bytes = environment.family(family::EXISTS).text(kind, NAME_BYTES_MAX).0;
        Self { start: bytes.len(), kind_end: bytes.len(), bytes }
    }

    fn go_to(&mut self, pointer: &str) {
        self.bytes.truncate(self.kind_end);
        push_text(&mut self.bytes, pointer, NAME_BYTES_MAX);
        self.start = self.bytes.len();
    }

    fn begin(&mut self, family: u8) -> &mut Vec<u8> {
        self.bytes.truncate(self.start);
        self.bytes[EnvironmentPrefix::BYTES] = family;
        &mut self.bytes
    }

    fn exists(&mut self, how: u8) -> &[u8] {
        let term = self.begin(family::EXISTS);
        term.push(how);
        term
    }

    /// See [`EnvironmentPrefix::value`].
    fn value(&mut self, value: &Value, is_element: bool) -> Option<&[u8]> {
        let tagged = |tag: Tag| if is_element { tag.as_element().0 } else { tag.0 };
        match value {
            Value::Null => return None,
            Value::Bool(value) => self.scalar(if *value { "true" } else { "false" }, tagged(Tag::BOOL)),
            Value::Number(number) => self.scalar(&number_text(number), tagged(Tag::NUMBER)),
            Value::String(text) => self.text(text, tagged),
            Value::Object(members) if !is_element => match member_count(members) {
                Some(count) => self.begin(family::WHOLE).extend_from_slice(&[b'N', count]),
                None => self.hashed(value, b'W')?,
            },
            Value::Array(_) | Value::Object(_) => self.hashed(value, if is_element { b'E' } else { b'W' })?,
        }
        Some(&self.bytes)
    }

    fn hashed(&mut self, value: &Value, tag: u8) -> Option<()> {
        let hash = xxh3_64(&canonical(value)?);
        let term = self.begin(family::WHOLE);
        term.push(tag);
        term.extend_from_slice(&hash.to_be_bytes());
        Some(())
    }

    fn scalar(&mut self, text: &str, tag: u8) {
        let term = self.begin(family::VALUE);
        push_text(term, text, VALUE_BYTES_MAX);
        term.push(tag);
    }

    fn text(&mut self, text: &str, tagged: impl Fn(Tag) -> u8) {
        if text.is_ascii() && text.len() <= VALUE_BYTES_MAX {
            let start = self.start;
            let term = self.begin(family::VALUE);
            push_text(term, text, VALUE_BYTES_MAX);
            term[start..].make_ascii_lowercase();
            term.push(tagged(Tag::TEXT));
            if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
                term.extend_from_slice(text.as_bytes());
            }
            return;
        }
        let lower = fold_case(text);
        let is_long = is_long_text(text);
        self.scalar(&lower, tagged(if is_long { Tag::LONG_TEXT } else { Tag::TEXT }));
        if is_long {
            self.bytes.extend_from_slice(&xxh3_128(text.as_bytes()).to_be_bytes());
        } else if lower != *text {
            self.bytes.extend_from_slice(text.as_bytes());
        }
    }

    fn time(&mut self, time: FilterTime) -> &[u8] {
        let term = self.begin(family::TIME);
        term.extend_from_slice(&time.to_sortable());
        term
    }

    fn time_span(&mut self, level: u32, number: i64) -> &[u8] {
        let term = self.begin(family::TIME_SPAN);
        term.push(level as u8);
        term.extend_from_slice(&((number as u64) ^ (1 << 63)).to_be_bytes());
        term
    }
}

/// The longest start of `text` within `bytes_max` bytes.
pub fn cut_at(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max.min(text.len()))]
}

/// Reads a text off the front of a term. None in the text's place: it was cut.
pub fn read_text(bytes: &[u8]) -> Option<(Option<String>, &[u8])> {
    let mut text = Vec::new();
    let mut at = 0;
    loop {
        match (bytes.get(at)?, bytes.get(at + 1)) {
            (0, Some(0xFF)) => {
                text.push(0);
                at += 2;
            }
            (0, Some(1)) => return Some((String::from_utf8(text).ok(), &bytes[at + 2..])),
            (0, Some(2)) => return Some((None, bytes.get(at + 2 + 16 + 2..)?)),
            (0, _) => return None,
            (byte, _) => {
                text.push(*byte);
                at += 1;
            }
        }
    }
}

/// The text at the front as it is written, without its end, and what follows it, whether it was cut or not. Reads nothing, so it
/// serves long ranges.
pub fn split_text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut at = 0;
    loop {
        at += bytes[at..].iter().position(|byte| *byte == 0)?;
        match bytes.get(at + 1)? {
            0xFF => at += 2,
            1 => return Some((&bytes[..at], bytes.get(at + 2..)?)),
            2 => return Some((&bytes[..at], bytes.get(at + 2 + 16 + 2..)?)),
            _ => return None,
        }
    }
}

/// What follows the text at the front.
pub fn after_text(bytes: &[u8]) -> Option<&[u8]> {
    split_text(bytes).map(|(_, rest)| rest)
}

/// Where a text that was not cut ends, its end included.
pub fn text_end(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += bytes[at..].iter().position(|byte| *byte == 0)?;
        match bytes.get(at + 1)? {
            0xFF => at += 2,
            1 => return Some(at + 2),
            _ => return None,
        }
    }
}

/// Reads tag and value off a value term, from behind its pointer. None in the value's place: the text is too long to
/// stand in a term.
pub fn read_value(bytes: &[u8]) -> Option<(Tag, Option<Value>)> {
    let (lower, rest) = read_text(bytes)?;
    let (tag, original) = rest.split_first()?;
    let tag = Tag(*tag);
    let value = match tag.of_type() {
        Tag::BOOL => Some(Value::Bool(lower? == "true")),
        Tag::NUMBER => Some(Value::Number(serde_json::from_str(&lower?).ok()?)),
        Tag::TEXT if original.is_empty() => Some(Value::String(lower?)),
        Tag::TEXT => Some(Value::String(String::from_utf8(original.to_vec()).ok()?)),
        _ => None,
    };
    Some((tag, value))
}

/// Terms of one context: each once, and [`TERMS_MAX`] at most. Kept for the next one, for its memory.
#[derive(Default)]
pub struct DistinctTerms {
    /// Hashes of those that were given.
    given: HashTable<u64>,
}

impl DistinctTerms {
    /// Calls `give` with all terms of a listed context.
    ///
    /// `context`: `kind`, `key`, attributes and `_meta`.
    pub fn of_context<'a>(
        &mut self,
        environment: &EnvironmentPrefix,
        (kind, key): (&str, &str),
        context: &Map<String, Value>,
        applications: impl Iterator<Item = &'a str>,
        give: &mut impl FnMut(&[u8]),
    ) {
        self.given.clear();
        self.add(&environment.identity(kind, key), give);
        self.add(&environment.listed(), give);
        self.add(&environment.kind(kind), give);
        applications.for_each(|application| self.add(&environment.application(application), give));
        let mut term = AttributeTerm::of_kind(environment, kind);
        for_each_attribute(context, &mut |pointer, value, how| {
            term.go_to(pointer);
            // Both or none: what is known to exist must be found by its value, or it would be in no order.
            if self.given.len() + 2 <= TERMS_MAX {
                self.add(term.exists(how), give);
                self.add_if_any(term.value(value, false), give);
            }
            if value.as_str().is_some_and(is_long_text) {
                self.add(term.exists(exists::LONG_TEXT), give);
            }
            let elements = match value {
                Value::Array(elements) => elements.as_slice(),
                single => std::slice::from_ref(single),
            };
            for element in elements {
                if value.is_array() {
                    self.add_if_any(term.value(element, true), give);
                }
                if let Some(time) = FilterTime::read(element) {
                    if !element.is_number() || time.first_millis() < LARGE_MILLIS {
                        self.add(term.time(time), give);
                    }
                    for level in SPAN_LEVELS {
                        self.add(term.time_span(level, time.seconds >> level), give);
                    }
                }
            }
        });
        for_each_held_back(context, &mut |pointer, how| self.add(&environment.exists(kind, pointer, how), give));
        let mut term = environment.family(family::WORD).0;
        for_each_word(key, context, &mut |word| {
            term.truncate(EnvironmentPrefix::BYTES + 1);
            push_open_text(&mut term, cut_at(word, WORD_BYTES_MAX));
            self.add(&term, give);
        });
    }

    fn add(&mut self, term: &[u8], give: &mut impl FnMut(&[u8])) {
        if self.given.len() >= TERMS_MAX {
            return;
        }
        let hash = xxh3_64(term);
        if let Entry::Vacant(entry) = self.given.entry(hash, |given| *given == hash, |given| *given) {
            entry.insert(hash);
            give(term);
        }
    }

    fn add_if_any(&mut self, term: Option<&[u8]>, give: &mut impl FnMut(&[u8])) {
        if let Some(term) = term {
            self.add(term, give);
        }
    }
}

/// Calls `visit` with pointer and value of each attribute, and how it exists.
pub fn for_each_attribute<'a>(context: &'a Map<String, Value>, visit: &mut impl FnMut(&str, &'a Value, u8)) {
    let mut listed_names = 0;
    walk(context, &mut |pointer, value| {
        let is_leaf = !value.is_object() && pointer != "/kind";
        listed_names += usize::from(is_leaf);
        let is_listed = is_leaf && listed_names <= LISTED_NAMES_MAX;
        let how = match (is_listed, value.is_array() || value.is_object()) {
            (true, false) => exists::LEAF,
            (true, true) => exists::LEAF_LIST,
            (false, false) => exists::OTHER,
            (false, true) => exists::OTHER_LIST,
        };
        visit(pointer, value, how);
    });
}

/// Calls `visit` with the pointer of each attribute that is listed as held back, and how it exists.
pub fn for_each_held_back(context: &Map<String, Value>, visit: &mut impl FnMut(&str, u8)) {
    for path in redacted(context) {
        let how = if path.get(context).is_some() { exists::REDACTED_KNOWN } else { exists::REDACTED };
        visit(&path.pointer(), how);
    }
}

/// All terms of an instance of several parts. `canonical`: its key.
pub fn of_instance<'a>(
    environment: &EnvironmentPrefix,
    kind: &str,
    canonical: &str,
    applications: impl Iterator<Item = &'a str>,
) -> Vec<Vec<u8>> {
    let parts = canonical_parts(canonical).unwrap_or_default();
    let mut terms = vec![environment.identity(kind, canonical), environment.instance()];
    terms.push(environment.part_count(parts.len()));
    terms.extend(parts.iter().map(|(kind, _)| environment.part_kind(kind)));
    terms.extend(parts.iter().map(|(kind, key)| environment.part(kind, key)));
    terms.extend(applications.map(|application| environment.application(application)));
    terms
}

/// The terms of an instance that is deleted: whoever erases one of its parts finds it too.
pub fn of_deleted_instance(environment: &EnvironmentPrefix, kind: &str, canonical: &str) -> Vec<Vec<u8>> {
    let parts = canonical_parts(canonical).unwrap_or_default();
    let of_parts = parts.iter().map(|(kind, key)| environment.part(kind, key));
    [environment.identity(kind, canonical)].into_iter().chain(of_parts).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn prefix() -> EnvironmentPrefix {
        EnvironmentPrefix::new(&Environment::new("default", "dev"))
    }

    #[test]
    fn values_read_back_with_their_types() {
        for value in [json!(true), json!(44), json!("44"), json!("Recife"), json!("São\u{0}X"), json!(-1.5), json!("")]
        {
            for is_element in [false, true] {
                let term = prefix().value("user", "/a", &value, is_element).unwrap();
                let start = prefix().attribute(family::VALUE, "user", "/a").0;
                let (tag, read) = read_value(term.strip_prefix(start.as_slice()).unwrap()).unwrap();
                assert_eq!(read.as_ref(), Some(&value));
                assert_eq!(tag.is_element(), is_element);
                let text = term.strip_prefix(start.as_slice()).unwrap();
                assert_eq!(after_text(text).map(|rest| rest[0]), Some(tag.0));
            }
        }
    }

    #[test]
    fn long_values_differ_by_their_end() {
        let long =
            |end: &str| prefix().value("user", "/a", &json!(format!("{}{end}", "x".repeat(5000))), false).unwrap();
        assert_ne!(long("a"), long("b"));
        assert_eq!(long("a"), long("a"));
        assert!(long("a").len() < 400);
        let text_at = prefix().attribute(family::VALUE, "user", "/a").0.len();
        assert_eq!(after_text(&long("a")[text_at..]).map(|rest| rest[0]), Some(Tag::LONG_TEXT.0));
        assert_eq!(read_value(&long("a")[prefix().attribute(family::VALUE, "user", "/a").0.len()..]).unwrap().1, None);
    }

    #[test]
    fn whole_and_element_differ() {
        let term = |value: &Value, is_element| prefix().value("user", "/a", value, is_element).unwrap();
        assert_ne!(term(&json!("a"), false), term(&json!("a"), true));
        assert_ne!(term(&json!([1]), false), term(&json!([1]), true));
        assert_eq!(term(&json!([1, 2.0]), false), term(&json!([1.0, 2]), false));
    }

    #[test]
    fn many_attributes_are_bounded() {
        let context: Map<String, Value> = (0..50_000).map(|n| (format!("a{n}"), json!(n))).collect();
        let (mut terms, mut count) = (DistinctTerms::default(), 0);
        terms.of_context(&prefix(), ("user", "k"), &context, std::iter::empty(), &mut |_| count += 1);
        assert_eq!(count, TERMS_MAX);
    }

    proptest! {
        /// A time lies in exactly one of the ranges around a limit, or in both if it is the limit.
        #[test]
        fn ranges_of_times_end_at_their_limit(
            limit in prop_oneof![-9_000_000_000_000_000_i64..9_000_000_000_000_000, -100_000_000_i64..100_000_000],
            distance in prop_oneof![-3_i64..4, -40_000_i64..40_000, -20_000_000_i64..20_000_000, -90_000_000_000_i64..90_000_000_000],
            nanos in prop::sample::select(vec![0_u32, 1, 5_000_000, 999_999_999]),
            other_nanos in prop::sample::select(vec![0_u32, 1, 5_000_000, 999_999_999]),
            is_number in any::<bool>(),
        ) {
            let limit = FilterTime { seconds: limit, nanos };
            let other_nanos = if is_number { other_nanos / 1_000_000 * 1_000_000 } else { other_nanos };
            let time = FilterTime { seconds: limit.seconds + distance, nanos: other_nanos };
            let millis = time.first_millis();
            let value = if is_number { json!(millis) } else { json!("some date") };
            let context = Map::from_iter([("a".to_owned(), value)]);
            let mut terms = Vec::new();
            DistinctTerms::default().of_context(&prefix(), ("user", "k"), &context, std::iter::empty(), &mut |term| terms.push(term.to_vec()));
            if !is_number {
                let span = |level| prefix().time_span("user", "/a", level, time.seconds >> level);
                terms.extend([prefix().time("user", "/a", time)].into_iter().chain(SPAN_LEVELS.map(span)));
            }
            let hits = |scans: Vec<Scan>| {
                scans.iter().map(|scan| terms.iter().filter(|term| scan.finds(term)).count()).sum::<usize>()
            };
            prop_assert_eq!(hits(prefix().times_until("user", "/a", limit)), usize::from(time <= limit));
            prop_assert_eq!(hits(prefix().times_from("user", "/a", limit)), usize::from(time >= limit));
        }

        #[test]
        fn text_order_prefix_and_border_kept(left in "[a\u{0}\u{1}é]{0,6}", right in "[a\u{0}\u{1}é]{0,6}") {
            let open = |text: &str| TermBytes(Vec::new()).open_text(text).0;
            let closed = |text: &str| TermBytes(Vec::new()).text(text, 100).0;
            prop_assert_eq!(closed(&left) == closed(&right), left == right);
            prop_assert_eq!(closed(&left).starts_with(&open(&right)), left.starts_with(&right));
            let mut followed = closed(&left);
            followed.extend_from_slice(b"rest");
            let (text, rest) = read_text(&followed).unwrap();
            prop_assert_eq!(text.as_deref(), Some(left.as_str()));
            prop_assert_eq!(rest, b"rest");
        }
    }
}
