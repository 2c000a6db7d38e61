//! Sightings of contexts -> newest state of each context.
//!
//! In: rows of the `contexts` topic, in log order. Out: [`ContextRecord`]s that differ from what is stored.
//! Promise: the newest sighting by time gives the attributes, of two at the same time the later in the log; a sighting of
//! the key alone, or one whose attribute was held back as private, erases nothing; folding the same rows again changes
//! nothing. Not here: where records are stored, and when.

use std::collections::BTreeSet;

use events::Environment;
use events::context::{canonical_parts, push_escaped_key};
use hashbrown::HashMap;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use xxhash_rust::xxh3::xxh3_64;

use crate::attribute::redacted;
use crate::record::{APPLICATIONS_MAX, ContextRecord, INSTANCE_KIND};
use crate::terms::EnvironmentPrefix;

/// One row of the `contexts` topic.
#[derive(Clone, Copy, Debug)]
pub struct Sighting<'a> {
    pub environment: EnvironmentPrefix,
    /// The environment that the prefix stands for.
    pub names: &'a Environment,
    pub kind: &'a str,
    pub key: &'a str,
    pub anonymous: bool,
    /// JSON of the context; None where only the key was sent.
    pub context: Option<&'a str>,
    /// Microseconds.
    pub seen_at: i64,
    /// By our clock, microseconds.
    pub received_at: i64,
    /// Empty if unknown.
    pub application: &'a str,
    /// Whether the context was not part of a combination.
    pub is_alone: bool,
    /// Of a combination: kinds of the parts that are anonymous, joined by commas.
    pub anonymous_kinds: &'a str,
}

impl Sighting<'_> {
    /// Hash of the attributes as sent; None where only the key was sent.
    pub fn content(&self) -> Option<u64> {
        self.context.map(|context| xxh3_64(context.as_bytes()))
    }
}

/// Kinds of anonymous parts that are kept of one combination.
const ANONYMOUS_KINDS_MAX: usize = 100;
/// Longest JSON of a context that is kept. A longer one counts as not sent, as one body could otherwise hold hundreds of
/// megabytes of memory while it is indexed.
pub const CONTEXT_BYTES_MAX: usize = 4 << 20;

/// The state after `sighting`. The flag says that its attributes could not be read and count as not sent.
pub fn fold(stored: Option<ContextRecord>, sighting: &Sighting<'_>) -> (ContextRecord, bool) {
    let mut record = match stored {
        Some(deleted) if deleted.is_deleted() && sighting.seen_at <= deleted.last_seen => return (deleted, false),
        Some(record) => record,
        None => empty(sighting),
    };
    let mut unreadable = false;
    if let Some(context) = sighting.context
        && sighting.seen_at >= record.attributes_at
    {
        let is_short = context.len() <= CONTEXT_BYTES_MAX;
        match is_short.then(|| serde_json::from_str::<Map<String, Value>>(context)) {
            Some(Ok(attributes)) => take_attributes(&mut record, attributes, sighting),
            _ => unreadable = true,
        }
        record.attributes_at = sighting.seen_at;
        record.content = sighting.content().unwrap_or_default();
    }
    record.last_seen = record.last_seen.max(sighting.seen_at);
    see_application(&mut record.applications, sighting);
    if sighting.is_alone {
        see_application(&mut record.alone, sighting);
    }
    if record.is_instance() && !sighting.anonymous_kinds.is_empty() {
        add_anonymous_kinds(&mut record, sighting.anonymous_kinds);
    }
    (record, unreadable)
}

/// The state after everything that was seen up to `at` was deleted, or None if it was seen later.
pub fn deleted(record: ContextRecord, at: i64) -> Option<ContextRecord> {
    (record.last_seen <= at).then(|| ContextRecord {
        context: bare(&record.kind, &record.key),
        anonymous: false,
        last_seen: at,
        attributes_at: at,
        content: 0,
        applications: Vec::new(),
        alone: Vec::new(),
        ..record
    })
}

/// The state after what was seen up to `at` of the context alone was deleted, or None if there was nothing.
pub fn deleted_alone(mut record: ContextRecord, at: i64) -> Option<ContextRecord> {
    let before = record.alone.len();
    record.alone.retain(|(_, seen_at)| *seen_at > at);
    (record.alone.len() < before).then_some(record)
}

fn empty(sighting: &Sighting<'_>) -> ContextRecord {
    ContextRecord {
        project: (*sighting.names.project).to_owned(),
        environment: (*sighting.names.key).to_owned(),
        kind: sighting.kind.to_owned(),
        key: sighting.key.to_owned(),
        context: bare(sighting.kind, sighting.key),
        anonymous: sighting.anonymous,
        last_seen: sighting.seen_at,
        attributes_at: i64::MIN,
        content: 0,
        applications: Vec::new(),
        alone: Vec::new(),
    }
}

/// What follows a context in the key of a combination whose first part it is: nothing if it is alone, else the other parts.
/// None: it is not the first.
pub fn after_first_part<'a>(canonical: &'a str, kind: &str, key: &str) -> Option<&'a str> {
    let rest = canonical.strip_prefix(kind)?.strip_prefix(':')?;
    let rest = if key.contains(['%', ':']) {
        let mut escaped = String::with_capacity(key.len() + 8);
        push_escaped_key(&mut escaped, key);
        rest.strip_prefix(&escaped)?
    } else {
        rest.strip_prefix(key)?
    };
    (rest.is_empty() || rest.starts_with(':')).then_some(rest)
}

/// What is known of a context by its identity alone; of a combination, by the identities of its parts.
fn bare(kind: &str, key: &str) -> Box<RawValue> {
    if kind != INSTANCE_KIND {
        return to_raw(&Kept { kind, key, attributes: &Map::new() });
    }
    let mut context = Map::new();
    context.insert("kind".into(), kind.into());
    for (kind, key) in canonical_parts(key).unwrap_or_default() {
        context.insert(kind, json!({ "key": key }));
    }
    to_raw(&context)
}

/// A context as it is kept: its identity, then its attributes, among which what was sent as its identity does not count.
struct Kept<'a> {
    kind: &'a str,
    key: &'a str,
    attributes: &'a Map<String, Value>,
}

impl Serialize for Kept<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut members = serializer.serialize_map(None)?;
        members.serialize_entry("kind", self.kind)?;
        members.serialize_entry("key", self.key)?;
        let mut others = self.attributes.iter().filter(|(name, _)| !matches!(name.as_str(), "kind" | "key"));
        others.try_for_each(|(name, value)| members.serialize_entry(name, value))?;
        members.end()
    }
}

fn add_anonymous_kinds(record: &mut ContextRecord, kinds: &str) {
    let mut context = record.parsed();
    let mut known: BTreeSet<String> = anonymous_kinds(&context).into_iter().collect();
    let before = known.len();
    known.extend(kinds.split(',').take(ANONYMOUS_KINDS_MAX - before.min(ANONYMOUS_KINDS_MAX)).map(str::to_owned));
    if known.len() > before {
        context.insert("_meta".into(), json!({ "anonymousKinds": known }));
        record.context = to_raw(&context);
    }
}

/// Kinds of the anonymous parts of a combination, sorted.
pub fn anonymous_kinds(context: &Map<String, Value>) -> Vec<String> {
    let kinds = context.get("_meta").and_then(|meta| meta.get("anonymousKinds")).and_then(Value::as_array);
    kinds.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn take_attributes(record: &mut ContextRecord, mut attributes: Map<String, Value>, sighting: &Sighting<'_>) {
    record.anonymous = sighting.anonymous;
    if sighting.anonymous {
        record.context = bare(sighting.kind, sighting.key);
        return;
    }
    let held_back = redacted(&attributes);
    attributes.retain(|name, value| name != "_meta" && !value.is_null());
    if !held_back.is_empty() {
        let stored = record.parsed();
        for path in &held_back {
            if let Some(value) = path.get(&stored) {
                path.insert_if_absent(&mut attributes, value.clone());
            }
        }
        let pointers: Vec<_> = held_back.iter().map(|path| path.pointer()).collect();
        attributes.insert("_meta".into(), json!({ "redactedAttributes": pointers }));
    }
    // Written as it was read: a new map of all would be filled for nothing.
    record.context = to_raw(&Kept { kind: sighting.kind, key: sighting.key, attributes: &attributes });
}

fn to_raw(context: &impl Serialize) -> Box<RawValue> {
    serde_json::value::to_raw_value(context).expect("a JSON object is written without fail")
}

fn see_application(applications: &mut Vec<(String, i64)>, sighting: &Sighting<'_>) {
    if let Some((_, at)) = applications.iter_mut().find(|(name, _)| name == sighting.application) {
        *at = (*at).max(sighting.seen_at);
        return;
    }
    applications.push((sighting.application.to_owned(), sighting.seen_at));
    if applications.len() > APPLICATIONS_MAX {
        let oldest = (0..applications.len()).min_by_key(|index| applications[*index].1).unwrap_or(0);
        applications.swap_remove(oldest);
    }
}

/// Applications whose last sighting a [`Seen`] remembers.
pub const SEEN_APPLICATIONS: usize = 3;

/// What it takes to tell that a sighting changes nothing. Times are whole seconds, rounded down: at worst a context is
/// written a second early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    content: u64,
    last_seen: u32,
    /// (hash, time) of applications, newest first; hash 0 marks an empty place.
    applications: [(u32, u32); SEEN_APPLICATIONS],
}

fn whole_seconds(micros: i64) -> u32 {
    (micros / 1_000_000).clamp(0, i64::from(u32::MAX)) as u32
}

/// `alone`: of having seen a context alone, which is more than having seen it.
fn application_hash(application: &str, alone: bool) -> u32 {
    (xxh3_64(application.as_bytes()) as u32 ^ if alone { 1 << 31 } else { 0 }).max(1)
}

impl Seen {
    pub fn of(record: &ContextRecord) -> Self {
        let alone = record.alone.iter().map(|(name, at)| (application_hash(name, true), whole_seconds(*at)));
        // What was seen alone was seen: one entry says both.
        let others = record.applications.iter().filter(|application| !record.alone.contains(application));
        let others = others.map(|(name, at)| (application_hash(name, false), whole_seconds(*at)));
        let mut newest: Vec<_> = alone.chain(others).collect();
        newest.sort_unstable_by_key(|(_, at)| std::cmp::Reverse(*at));
        let mut applications = [(0, 0); SEEN_APPLICATIONS];
        for (place, application) in applications.iter_mut().zip(newest) {
            *place = application;
        }
        Self { content: record.content, last_seen: whole_seconds(record.last_seen), applications }
    }

    /// As numbers, to be stored in columns.
    pub fn to_numbers(self) -> (u64, impl Iterator<Item = u64>) {
        let packed = self.applications.into_iter().filter(|(hash, _)| *hash != 0);
        (self.content, packed.map(|(hash, at)| u64::from(hash) << 32 | u64::from(at)))
    }

    /// From what [`Self::to_numbers`] gave and the last-seen time in microseconds.
    pub fn from_numbers(content: u64, last_seen: i64, packed: impl Iterator<Item = u64>) -> Self {
        let mut applications = [(0, 0); SEEN_APPLICATIONS];
        for (place, packed) in applications.iter_mut().zip(packed) {
            *place = ((packed >> 32) as u32, packed as u32);
        }
        Self { content, last_seen: whole_seconds(last_seen), applications }
    }

    /// Whether `sighting` says nothing new but for a time that is less than `refresh` micros newer.
    pub fn covers(&self, sighting: &Sighting<'_>, refresh: i64) -> bool {
        let is_recent = |at: u32| sighting.seen_at < (i64::from(at) * 1_000_000).saturating_add(refresh);
        let alone = application_hash(sighting.application, true);
        let application = if sighting.is_alone { alone } else { application_hash(sighting.application, false) };
        sighting.content().is_none_or(|content| content == self.content)
            && is_recent(self.last_seen)
            && self.applications.iter().any(|(hash, at)| (*hash == application || *hash == alone) && is_recent(*at))
    }
}

/// Contexts seen lately, by hash of their identity: settles the sightings that change nothing. Bounded: two generations,
/// of which the older is dropped when the younger is full.
#[derive(Debug)]
pub struct SeenLately {
    young: HashMap<u64, Lately>,
    old: HashMap<u64, Lately>,
    entries_max: usize,
}

/// What is stored of a context, and the newest time at which its attributes were sent, whether that was stored or not:
/// other attributes of an earlier time may come later, and must not win over those.
#[derive(Clone, Copy, Debug)]
struct Lately {
    seen: Seen,
    /// Microseconds.
    sent_at: i64,
}

impl Lately {
    fn covers(&mut self, sighting: &Sighting<'_>, refresh: i64) -> bool {
        let is_covered = self.seen.covers(sighting, refresh);
        if is_covered && sighting.context.is_some() {
            self.sent_at = self.sent_at.max(sighting.seen_at);
        }
        is_covered
    }
}

impl SeenLately {
    pub fn new(entries_max: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), entries_max: entries_max.max(2) }
    }

    pub fn covers(&mut self, identity: u64, sighting: &Sighting<'_>, refresh: i64) -> bool {
        if let Some(lately) = self.young.get_mut(&identity) {
            return lately.covers(sighting, refresh);
        }
        let Some(mut lately) = self.old.remove(&identity) else { return false };
        let is_covered = lately.covers(sighting, refresh);
        self.insert(identity, lately);
        is_covered
    }

    /// Remembers what is stored, or will be with the next commit, and that its attributes were sent at `sent_at`.
    pub fn remember(&mut self, identity: u64, seen: Seen, sent_at: i64) {
        let known = self.sent_at(identity, seen.content).unwrap_or(i64::MIN);
        self.insert(identity, Lately { seen, sent_at: sent_at.max(known) });
    }

    /// The newest time at which the attributes with this hash were sent, if they are what is remembered.
    pub fn sent_at(&self, identity: u64, content: u64) -> Option<i64> {
        let lately = self.young.get(&identity).or_else(|| self.old.get(&identity))?;
        (lately.seen.content == content).then_some(lately.sent_at)
    }

    /// Forgets what is known of a context, as it is not stored any more.
    pub fn forget(&mut self, identity: u64) {
        self.young.remove(&identity);
        self.old.remove(&identity);
    }

    fn insert(&mut self, identity: u64, lately: Lately) {
        if self.young.len() >= self.entries_max / 2 && !self.young.contains_key(&identity) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(identity, lately);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;

    fn sighting<'a>(context: Option<&'a str>, seen_at: i64, application: &'a str) -> Sighting<'a> {
        static NAMES: LazyLock<Environment> = LazyLock::new(|| Environment::new("default", "dev"));
        let environment = EnvironmentPrefix::new(&NAMES);
        Sighting {
            environment,
            names: &NAMES,
            kind: "user",
            key: "u",
            anonymous: false,
            context,
            seen_at,
            received_at: seen_at,
            application,
            is_alone: true,
            anonymous_kinds: "",
        }
    }

    fn folded(sightings: &[Sighting<'_>]) -> ContextRecord {
        sightings.iter().fold(None, |record, sighting| Some(fold(record, sighting).0)).unwrap()
    }

    #[test]
    fn newest_by_time_then_by_log_order_wins() {
        let old = sighting(Some(r#"{"plan":"old"}"#), 1, "");
        let new = sighting(Some(r#"{"plan":"new"}"#), 2, "");
        let later = sighting(Some(r#"{"plan":"later"}"#), 2, "");
        for order in [[old, new], [new, old]] {
            assert_eq!(folded(&order).context.get(), r#"{"kind":"user","key":"u","plan":"new"}"#);
        }
        assert_eq!(folded(&[new, later]).parsed()["plan"], "later");
    }

    #[test]
    fn attributes_survive_being_held_back_or_left_out() {
        let full = sighting(Some(r#"{"email":"a@b","address":{"city":"R","street":"S"},"gone":1}"#), 1, "");
        let redacting = sighting(
            Some(r#"{"address":{"city":"Q"},"_meta":{"redactedAttributes":["email","/address/street","never"]}}"#),
            2,
            "",
        );
        let key_only = sighting(None, 3, "");
        let record = folded(&[full, redacting, key_only]);
        assert_eq!(record.last_seen, 3);
        assert_eq!(
            Value::Object(record.parsed()),
            json!({"kind":"user","key":"u","email":"a@b","address":{"city":"Q","street":"S"},
                   "_meta":{"redactedAttributes":["/email","/address/street","/never"]}})
        );
    }

    #[test]
    fn identity_stands_once_whatever_is_sent_of_it() {
        let sent = sighting(
            Some(r#"{"key":"other","a":1,"kind":2,"_meta":{"redactedAttributes":["key","/kind","b"]}}"#),
            1,
            "",
        );
        let expected = r#"{"kind":"user","key":"u","a":1,"_meta":{"redactedAttributes":["/key","/kind","/b"]}}"#;
        assert_eq!(folded(&[sent]).context.get(), expected);
        let without = sighting(Some(r#"{"a":1,"_meta":{"redactedAttributes":["key","/kind","b"]}}"#), 2, "");
        assert_eq!(folded(&[sent, without]).context.get(), expected);
    }

    #[test]
    fn anonymous_contexts_keep_nothing_but_their_key() {
        let mut anonymous = sighting(Some(r#"{"anonymous":true,"a":1}"#), 1, "");
        anonymous.anonymous = true;
        let record = folded(&[anonymous, sighting(None, 2, "")]);
        assert!(record.anonymous);
        assert_eq!(record.context.get(), r#"{"kind":"user","key":"u"}"#);
        assert!(!folded(&[anonymous, sighting(Some("{}"), 2, "")]).anonymous);
    }

    #[test]
    fn unreadable_attributes_count_as_not_sent() {
        let (record, unreadable) =
            fold(Some(folded(&[sighting(Some(r#"{"a":1}"#), 1, "")])), &sighting(Some("{"), 2, ""));
        assert!(unreadable);
        assert_eq!(record.parsed()["a"], 1);
        let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(CONTEXT_BYTES_MAX));
        let (record, unreadable) = fold(Some(record), &sighting(Some(&long), 3, ""));
        assert!(unreadable);
        assert_eq!(record.parsed()["a"], 1);
    }

    #[test]
    fn applications_are_bounded_and_the_oldest_goes() {
        let names: Vec<_> = (0..APPLICATIONS_MAX + 5).map(|n| format!("app{n}")).collect();
        let sightings: Vec<_> = names.iter().enumerate().map(|(at, name)| sighting(None, at as i64, name)).collect();
        let record = folded(&sightings);
        assert_eq!(record.applications.len(), APPLICATIONS_MAX);
        assert!(!record.applications.iter().any(|(name, _)| name == "app4"));
        assert!(record.applications.iter().any(|(name, _)| name == "app5"));
    }

    #[test]
    fn deleted_states_come_back_with_what_is_newer_alone() {
        let seen = folded(&[sighting(Some(r#"{"a":1}"#), 5, "one")]);
        assert!(deleted(seen.clone(), 4).is_none(), "seen since");
        let gone = deleted(seen, 6).unwrap();
        assert!(gone.is_deleted() && !gone.is_listed() && gone.alone.is_empty());
        assert_eq!(gone.context.get(), r#"{"kind":"user","key":"u"}"#);
        let late = fold(Some(gone.clone()), &sighting(Some(r#"{"a":1}"#), 6, "one")).0;
        assert!(late.is_deleted());
        let back = fold(Some(gone.clone()), &sighting(None, 7, "one")).0;
        assert!(back.is_listed() && back.parsed().get("a").is_none());
        assert_eq!(fold(Some(gone), &sighting(Some(r#"{"a":2}"#), 7, "one")).0.parsed()["a"], 2);
    }

    #[test]
    fn first_part_of_a_combination() {
        assert_eq!(after_first_part("org:a%3Ab:user:u", "org", "a:b"), Some(":user:u"));
        assert_eq!(after_first_part("org:a", "org", "a"), Some(""));
        assert_eq!(after_first_part("org:ab", "org", "a"), None);
        assert_eq!(after_first_part("org:a:user:u", "user", "u"), None);
        assert_eq!(after_first_part("", "user", "u"), None);
    }

    #[test]
    fn instances_keep_their_parts_and_the_kinds_of_anonymous_ones() {
        let instance = |kinds| Sighting {
            kind: INSTANCE_KIND,
            key: "org:a%3Ab:user:u",
            is_alone: false,
            anonymous_kinds: kinds,
            ..sighting(None, 1, "one")
        };
        let record = folded(&[instance(""), instance("tab,device"), instance("device")]);
        assert!(record.is_instance() && record.is_listed());
        let expected = json!({"kind": "multi", "org": {"key": "a:b"}, "user": {"key": "u"},
            "_meta": {"anonymousKinds": ["device", "tab"]}});
        assert_eq!(Value::Object(record.parsed()), expected);
        let many: Vec<String> = (0..500).map(|number| format!("k{number}")).collect();
        let kinds = anonymous_kinds(&folded(&[instance("tab"), instance(&many.join(","))]).parsed());
        assert_eq!(kinds.len(), ANONYMOUS_KINDS_MAX);
    }

    #[test]
    fn seen_alone_is_told_from_seen_in_company() {
        let alone = sighting(None, 5_000_000, "one");
        let in_company = Sighting { is_alone: false, ..alone };
        let covers = |seen: &[Sighting<'_>], sighting| Seen::of(&folded(seen)).covers(&sighting, 1_000_000);
        assert!(covers(&[alone], alone) && covers(&[alone], in_company) && covers(&[in_company], in_company));
        assert!(!covers(&[in_company], alone));
        assert!(covers(&[alone, Sighting { seen_at: 9_000_000, ..in_company }], in_company));
    }

    #[test]
    fn states_survive_the_table() {
        let in_company = Sighting { is_alone: false, ..sighting(None, 9, "two") };
        let record = folded(&[sighting(Some("{}"), 5, "one"), in_company]);
        let state = events::ContextState::from(record.clone());
        let back = ContextRecord::try_from(state).unwrap();
        assert_eq!((back.applications, back.alone), (record.applications, record.alone));
    }

    #[test]
    fn unchanged_within_the_refresh_interval_is_settled_from_memory() {
        const SECOND: i64 = 1_000_000;
        let at = |context, seconds, application| sighting(context, seconds * SECOND, application);
        let mut lately = SeenLately::new(100);
        let first = at(Some(r#"{"a":1}"#), 100, "one");
        assert!(!lately.covers(7, &first, 10 * SECOND));
        lately.remember(7, Seen::of(&folded(&[first])), first.seen_at);
        let mut covers = |sighting: Sighting<'_>| lately.covers(7, &sighting, 10 * SECOND);
        assert!(covers(at(Some(r#"{"a":1}"#), 109, "one")));
        assert!(covers(at(None, 109, "one")));
        assert!(!covers(at(Some(r#"{"a":1}"#), 110, "one")), "time to refresh");
        assert!(!covers(at(Some(r#"{"a":2}"#), 101, "one")), "other attributes");
        assert!(!covers(at(Some(r#"{"a":1}"#), 101, "two")), "other application");
    }

    #[test]
    fn seen_survives_its_columns() {
        let record = folded(&[sighting(Some("{}"), 5_000_001, "one"), sighting(None, 9_000_000, "two")]);
        let seen = Seen::of(&record);
        let (content, packed) = seen.to_numbers();
        assert_eq!(Seen::from_numbers(content, record.last_seen, packed), seen);
    }

    #[test]
    fn memory_of_what_was_seen_is_bounded() {
        let mut lately = SeenLately::new(100);
        let seen = Seen::of(&folded(&[sighting(None, 1, "")]));
        (0..10_000).for_each(|identity| lately.remember(identity, seen, 1));
        assert!(lately.young.len() + lately.old.len() <= 100);
    }

    proptest! {
        /// What the log repeats after a restart changes nothing.
        #[test]
        fn folding_again_changes_nothing(times in prop::collection::vec((0i64..5, 0usize..4), 1..12)) {
            let contexts = [
                None, Some(r#"{"a":1}"#), Some(r#"{"b":2}"#), Some(r#"{"_meta":{"redactedAttributes":["a"]}}"#),
            ];
            let sightings: Vec<_> = times.iter().map(|(at, which)| sighting(contexts[*which], *at, "")).collect();
            // Redaction remembers what was known before, so only logs without it fold to the same state twice.
            if times.iter().all(|(_, which)| *which != 3) {
                let once = folded(&sightings);
                let again = folded(&[sightings.clone(), sightings].concat());
                prop_assert_eq!(once.last_seen, again.last_seen);
                prop_assert_eq!(once.attributes_at, again.attributes_at);
                prop_assert_eq!(once.context.get(), again.context.get());
            }
        }
    }
}
