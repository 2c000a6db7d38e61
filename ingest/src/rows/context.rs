//! The distinct contexts of an open micro-batch, and the memory that finds them again by their bytes.
//!
//! In: contexts that `decode::context` read. Out: row numbers for `context_row`, and the contexts batch.
//! Most of a body is contexts, and most of them repeat byte for byte: from one event to the next, and from one payload
//! to the next. A value that begins with the bytes of an object read before *is* that object, as an object ends with
//! its own brace; so finding one costs a hash of its first bytes and one comparison, and it is not read again.

use hashbrown::HashMap;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::event::ContextColumns;
use super::sighting::{Stamp, U64Hash};

/// Memory beyond this is not used; contexts are then read again each time.
const ARENA_BYTES_MAX: usize = 1 << 20;
const ENTRY_BYTES_MAX: usize = 64 << 10;
/// Entries whose beginnings fall together are tried from the newest on, this many of them.
const CHAIN_MAX: usize = 8;
const HEADS: usize = 1024;
/// Beginnings of this length tell contexts apart; shorter contexts are found by their first [`SHORT`] bytes.
const LONG: usize = 48;
const SHORT: usize = 20;
const NONE: u32 = u32::MAX;

/// How the text of an entry was understood; the same text may stand for two things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Form {
    /// `context` or `user`.
    Object,
    /// `contextKeys`.
    Keys,
    /// `userKey`.
    UserKey,
    /// `userKey` beside `contextKind: "anonymousUser"`.
    AnonymousUserKey,
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    raw: (u32, u32),
    form: Form,
    next: u32,
    pub row: u32,
    /// What a legacy user said that is no attribute, as members for `extra`; a range of the arena.
    aside: (u32, u32),
    /// For whom, and at which change of the sightings, this context was last sighted.
    pub sighted: (u64, u32),
    /// What was sighted then; a range of `stamps`.
    stamps: (u32, u32),
}

#[derive(Debug)]
pub(crate) struct OpenContexts {
    pub columns: ContextColumns,
    heads: Box<[u32; HEADS]>,
    entries: Vec<Entry>,
    exact: HashMap<u64, u32, U64Hash>,
    arena: Vec<u8>,
    stamps: Vec<Stamp>,
    short_entries: usize,
}

impl Default for OpenContexts {
    fn default() -> Self {
        Self {
            columns: ContextColumns::default(),
            heads: Box::new([NONE; HEADS]),
            entries: Vec::new(),
            exact: HashMap::default(),
            arena: Vec::new(),
            stamps: Vec::new(),
            short_entries: 0,
        }
    }
}

impl OpenContexts {
    /// The object that `rest` begins with, if it was read before, and its length.
    #[inline]
    pub fn find_object(&self, rest: &[u8]) -> Option<(usize, usize)> {
        if let Some(beginning) = rest.get(..LONG)
            && let found @ Some(_) = self.find_in_chain(head(beginning), rest)
        {
            return found;
        }
        if self.short_entries == 0 {
            return None;
        }
        self.find_in_chain(head(rest.get(..SHORT)?), rest)
    }

    fn find_in_chain(&self, head: usize, rest: &[u8]) -> Option<(usize, usize)> {
        let mut number = self.heads[head];
        for _ in 0..CHAIN_MAX {
            let entry = self.entries.get(number as usize)?;
            let raw = &self.arena[entry.raw.0 as usize..entry.raw.1 as usize];
            if rest.starts_with(raw) {
                return Some((number as usize, raw.len()));
            }
            number = entry.next;
        }
        None
    }

    /// The entry of exactly this text.
    pub fn find(&self, form: Form, raw: &[u8]) -> Option<usize> {
        let number = *self.exact.get(&exact_hash(form, raw))? as usize;
        let entry = &self.entries[number];
        let stored = &self.arena[entry.raw.0 as usize..entry.raw.1 as usize];
        (entry.form == form && stored == raw).then_some(number)
    }

    /// Remembers that `raw` stands for `row`. `aside`: see [`Entry`]. Returns the entry's number, if there was room.
    pub fn remember(&mut self, form: Form, raw: &[u8], row: u32, aside: &[u8]) -> Option<usize> {
        let bytes = raw.len() + aside.len();
        if bytes > ENTRY_BYTES_MAX || self.arena.len() + bytes > ARENA_BYTES_MAX {
            return None;
        }
        let number = self.entries.len() as u32;
        let place = |arena: &mut Vec<u8>, text: &[u8]| {
            let start = arena.len() as u32;
            arena.extend_from_slice(text);
            (start, arena.len() as u32)
        };
        let mut entry = Entry {
            raw: place(&mut self.arena, raw),
            form,
            next: NONE,
            row,
            aside: place(&mut self.arena, aside),
            sighted: (0, u32::MAX),
            stamps: (0, 0),
        };
        if form == Form::Object && raw.len() >= SHORT {
            self.short_entries += usize::from(raw.len() < LONG);
            let length = if raw.len() < LONG { SHORT } else { LONG };
            let head = &mut self.heads[head(&raw[..length])];
            entry.next = std::mem::replace(head, number);
        }
        self.exact.insert(exact_hash(form, raw), number);
        self.entries.push(entry);
        Some(number as usize)
    }

    pub fn entry(&self, number: usize) -> &Entry {
        &self.entries[number]
    }

    pub fn stamps(&self, number: usize) -> &[Stamp] {
        let (start, end) = self.entries[number].stamps;
        &self.stamps[start as usize..end as usize]
    }

    /// Notes that the entry was sighted, `state` as in [`Entry::sighted`]. `stamps`: if they are others than before.
    pub fn set_sighted(&mut self, number: usize, state: (u64, u32), stamps: Option<&[Stamp]>) {
        let entry = &mut self.entries[number];
        entry.sighted = state;
        if let Some(stamps) = stamps {
            let start = self.stamps.len() as u32;
            self.stamps.extend_from_slice(stamps);
            entry.stamps = (start, self.stamps.len() as u32);
        }
    }

    pub fn aside(&self, number: usize) -> &[u8] {
        let (start, end) = self.entries[number].aside;
        &self.arena[start as usize..end as usize]
    }

    /// Forgets what was remembered, not the rows.
    pub fn forget(&mut self) {
        if !self.entries.is_empty() {
            self.heads.fill(NONE);
            self.entries.clear();
            self.exact.clear();
            self.arena.clear();
            self.stamps.clear();
            self.short_entries = 0;
        }
    }

    pub fn bytes(&self) -> usize {
        self.columns.bytes()
    }
}

#[inline]
fn head(beginning: &[u8]) -> usize {
    xxh3_64(beginning) as usize % HEADS
}

fn exact_hash(form: Form, raw: &[u8]) -> u64 {
    xxh3_64_with_seed(raw, form as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_found_by_what_they_begin_with() {
        let mut open = OpenContexts::default();
        let long = format!(r#"{{"kind":"user","key":"u1","name":"{}"}}"#, "n".repeat(100));
        open.remember(Form::Object, long.as_bytes(), 7, b"").unwrap();
        let found = open.find_object(format!("{long},\"next\"").as_bytes());
        assert_eq!(found, Some((0, long.len())));
        assert_eq!(open.find_object(long.replace("u1", "u2").as_bytes()), None);
        assert_eq!(open.find_object(&long.as_bytes()[..60]), None);
    }

    #[test]
    fn short_objects_are_found_whatever_follows() {
        let mut open = OpenContexts::default();
        let short = br#"{"kind":"user","key":"u1"}"#;
        open.remember(Form::Object, short, 1, b"").unwrap();
        assert_eq!(open.find_object(short), Some((0, short.len())));
        assert_eq!(
            open.find_object(&[short, &b",,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,"[..]].concat()),
            Some((0, short.len()))
        );
    }

    #[test]
    fn forms_do_not_meet_and_forgetting_forgets() {
        let mut open = OpenContexts::default();
        let raw = br#"{"key":"u1"}"#;
        open.remember(Form::Keys, raw, 1, b"").unwrap();
        assert_eq!(open.find(Form::Object, raw), None);
        assert_eq!(open.find_object(raw), None);
        assert_eq!(open.find(Form::Keys, raw), Some(0));
        open.forget();
        assert_eq!(open.find(Form::Keys, raw), None);
    }

    #[test]
    fn memory_is_bounded() {
        let mut open = OpenContexts::default();
        assert_eq!(open.remember(Form::Object, &vec![b'{'; ENTRY_BYTES_MAX + 1], 0, b""), None);
        let entry = |number: usize| format!("{{{number:060000}}}").into_bytes();
        let kept = (0..100).filter(|n| open.remember(Form::Object, &entry(*n), 0, b"").is_some()).count();
        assert!(kept < 20, "{kept} entries of 60 kB");
    }
}
