//! The open sightings of a micro-batch: which single contexts its events named.
//!
//! In: parts of contexts, in the order of the events. Out: rows for the `contexts` topic, each in the partition of its
//! hash, and what to tell [`RecentContexts`] once they are durable.
//! Promise: the last sighting of a context in the log order of its partition carries the newest attributes of the
//! batch; a sighting that would repeat what the batch or an acknowledged one before said is left out.

use std::hash::{BuildHasherDefault, Hasher};

use events::context::context_hash;
use hashbrown::{HashMap, HashSet};
use runtime::UnixMicros;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::event::SightingColumns;
use crate::payload::PayloadHead;
use crate::recent::{RecentContexts, Sighted};

/// For keys that are hashes already.
#[derive(Debug, Default)]
pub(crate) struct PassThrough(u64);
pub(crate) type U64Hash = BuildHasherDefault<PassThrough>;

impl Hasher for PassThrough {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

/// A single context as some event named it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part<'a> {
    pub kind: &'a [u8],
    pub key: &'a [u8],
    pub anonymous: bool,
    /// JSON of the single context; `None` where only its key was sent.
    pub context: Option<&'a [u8]>,
    /// Whether the context shows no attribute because it is anonymous: SDKs then strip what they showed elsewhere. Such
    /// a sighting erases nothing, so it counts as one of the key alone.
    pub is_bare: bool,
    /// Where it was evaluated.
    pub instance: Instance<'a>,
}

/// The combination of contexts that an event named.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Instance<'a> {
    /// Canonical key of the parts that are not anonymous; empty if all are.
    pub key: &'a [u8],
    /// Kinds of the anonymous parts, joined by commas.
    pub anonymous_kinds: &'a [u8],
}

impl Instance<'_> {
    fn hash(&self, seed: u64) -> u64 {
        let hash = xxh3_64_with_seed(self.key, seed);
        if self.anonymous_kinds.is_empty() { hash } else { xxh3_64_with_seed(self.anonymous_kinds, hash) }
    }
}

/// One context with certain attributes, as hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    context: u64,
    content: u64,
}

/// Whose sightings these are: what all sightings of a payload share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sender<'a> {
    pub head: &'a PayloadHead,
    pub application: Option<&'a [u8]>,
    /// Hash of environment and application.
    pub hash: u64,
}

impl<'a> Sender<'a> {
    /// `application`: room for `sdk/version`, which stands for the application of a sender without tags.
    pub fn new(head: &'a PayloadHead, application: &'a mut Vec<u8>) -> Self {
        application.clear();
        match (&head.application_id, &head.sdk) {
            (Some(id), _) => application.extend_from_slice(id.as_bytes()),
            (None, Some(sdk)) => {
                application.extend_from_slice(sdk.as_bytes());
                if let Some(version) = &head.sdk_version {
                    application.push(b'/');
                    application.extend_from_slice(version.as_bytes());
                }
            }
            (None, None) => {}
        }
        let hash = xxh3_64_with_seed(application, head.environment_hash);
        Self { head, application: Some(&application[..]).filter(|text| !text.is_empty()), hash }
    }
}

/// Where a payload began, to go back to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mark {
    rows: Vec<usize>,
    sighted: usize,
}

#[derive(Debug)]
pub(crate) struct OpenSightings {
    partitions: Vec<SightingColumns>,
    sighted: Vec<Sighted>,
    /// Hash of each context's newest attributes in this batch, sighted or known before.
    newest: HashMap<u64, u64, U64Hash>,
    places: HashSet<u64, U64Hash>,
    /// How often one context's attributes gave way to others.
    pub changes: u32,
}

impl OpenSightings {
    pub fn new(partitions: u32) -> Self {
        Self {
            partitions: (0..partitions).map(|_| SightingColumns::default()).collect(),
            sighted: Vec::new(),
            newest: HashMap::default(),
            places: HashSet::default(),
            changes: 0,
        }
    }

    /// Notes that an event of `created_at` named `part`. Returns what it noted, and whether a sighting was written.
    pub fn note(
        &mut self,
        sender: &Sender<'_>,
        part: &Part<'_>,
        created_at: Option<i64>,
        recent: &RecentContexts,
    ) -> (Stamp, bool) {
        let head = sender.head;
        let text = |bytes| std::str::from_utf8(bytes).unwrap_or_default();
        let context = context_hash(&head.environment, text(part.kind), text(part.key));
        // 0 stands for a sighting without attributes, which replaces nothing.
        let content = part.context.filter(|_| !part.is_bare).map_or(0, |json| xxh3_64(json).max(1));
        let place = part.instance.hash(context ^ sender.hash);
        let seen_at = created_at.map_or(head.received_at, |at| UnixMicros(at).min(head.received_at));
        let sighted = Sighted { context, place, content, seen_at };

        let stamp = Stamp { context, content };

        let new_place = self.places.insert(place);
        let known = if content == 0 { None } else { self.newest.insert(context, content) };
        if known.is_some_and(|known| known != content) {
            self.changes = self.changes.wrapping_add(1);
        } else {
            let repeats_batch = !new_place && (content == 0 || known.is_some());
            if repeats_batch || recent.suppresses(&sighted, head.received_at) {
                return (stamp, false);
            }
        }

        let partition = (context % self.partitions.len() as u64) as usize;
        let columns = &mut self.partitions[partition];
        let row = columns.rows;
        columns.project.put(row, head.environment.project.as_bytes());
        columns.environment.put(row, head.environment.key.as_bytes());
        columns.kind.put(row, part.kind);
        columns.key.put(row, part.key);
        columns.anonymous.put(row, part.anonymous);
        if let Some(json) = part.context {
            columns.context.put(row, json);
        }
        columns.seen_at.put(row, seen_at.0);
        columns.received_at.put(row, head.received_at.0);
        if let Some(application) = sender.application {
            columns.application.put(row, application);
        }
        if !part.instance.key.is_empty() {
            columns.instance_key.put(row, part.instance.key);
        }
        if !part.instance.anonymous_kinds.is_empty() {
            columns.anonymous_kinds.put(row, part.instance.anonymous_kinds);
        }
        columns.rows += 1;
        recent.expect(&sighted);
        self.sighted.push(sighted);
        (stamp, true)
    }

    /// Whether noting what `stamps` came from would say nothing that this batch does not say already.
    pub fn is_noted(&self, stamps: &[Stamp]) -> bool {
        let newest = |stamp: &Stamp| stamp.content == 0 || self.newest.get(&stamp.context) == Some(&stamp.content);
        stamps.iter().all(newest)
    }

    pub fn mark(&self, mark: &mut Mark) {
        mark.rows.clear();
        mark.rows.extend(self.partitions.iter().map(|columns| columns.rows));
        mark.sighted = self.sighted.len();
    }

    /// Forgets the sightings since `mark`, and what is known of this batch: some of it may come from them.
    pub fn cut(&mut self, mark: &Mark) {
        for (columns, rows) in self.partitions.iter_mut().zip(&mark.rows) {
            columns.truncate(*rows);
        }
        self.sighted.truncate(mark.sighted);
        self.forget();
    }

    fn forget(&mut self) {
        self.newest.clear();
        self.places.clear();
        self.changes = self.changes.wrapping_add(1);
    }

    pub fn partitions(&self) -> &[SightingColumns] {
        &self.partitions
    }

    /// Forgets all rows and what is known of the batch.
    pub fn clear(&mut self) {
        for columns in self.partitions.iter_mut().filter(|columns| columns.rows > 0) {
            columns.clear();
        }
        self.sighted.clear();
        self.forget();
    }

    /// What the batch sighted.
    pub fn take_sighted(&mut self) -> Vec<Sighted> {
        std::mem::take(&mut self.sighted)
    }

    pub fn bytes(&self) -> usize {
        self.partitions.iter().map(SightingColumns::bytes).sum::<usize>() + self.sighted.len() * size_of::<Sighted>()
    }
}
