//! Attribute names and values for autocomplete: ranges of the term dictionary, counted over living documents.
//!
//! In: environment, kinds, what was typed. Out: kinds and names with weights; values are in `values`, what is narrowed by a
//! filter is in `within`.
//! A term outlives the documents that had it until its segment merges, so a term counts only as far as a living document
//! has it. Long posting lists are counted by sample: a weight may be an estimate and says so, a listed name or value is never
//! dead.

mod named;
pub mod tops;
pub mod values;

pub mod within;

use std::ops::AddAssign;

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};
use tantivy::postings::TermInfo;
use tantivy::schema::{Field, IndexRecordOption};
use tantivy::{InvertedIndexReader, Searcher, SegmentReader};

use named::Named;

use crate::filter::fold_case;
use crate::scan::{Accept, Scan};
use crate::terms::{EnvironmentPrefix, NAME_BYTES_MAX, exists, family, read_text};

/// Terms that one look-up of kinds or names reads at most in one segment, so that a keystroke stays quick.
const TERMS_READ_MAX: usize = 50_000;
/// Documents of one posting list that are looked at; beyond, the share of living ones is taken from these.
const SAMPLE_MAX: u64 = 20_000;

/// How many contexts there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weight {
    pub contexts: u64,
    /// Not all of them were counted.
    pub is_estimate: bool,
}

impl Weight {
    pub fn exact(contexts: u64) -> Self {
        Self { contexts, is_estimate: false }
    }

    pub fn estimate(contexts: u64) -> Self {
        Self { contexts, is_estimate: true }
    }
}

impl AddAssign for Weight {
    fn add_assign(&mut self, other: Self) {
        self.contexts += other.contexts;
        self.is_estimate |= other.is_estimate;
    }
}

/// Weight of one attribute name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameWeight {
    pub weight: Weight,
    pub redacted: bool,
}

impl AddAssign for NameWeight {
    fn add_assign(&mut self, other: Self) {
        self.weight += other.weight;
        self.redacted |= other.redacted;
    }
}

impl NameWeight {
    /// Adds contexts in which the attribute exists in this way.
    fn add(&mut self, how: u8, weight: Weight) {
        // A known value has been counted as a leaf.
        if how != exists::REDACTED_KNOWN {
            self.weight += weight;
        }
        self.redacted |= how == exists::REDACTED || how == exists::REDACTED_KNOWN;
    }
}

/// Whether look-ups of names tell of attributes that exist in this way.
fn is_listed(how: u8) -> bool {
    ![exists::OTHER, exists::OTHER_LIST, exists::LONG_TEXT].contains(&how)
}

/// Names by (kind, pointer).
pub type Names = HashMap<(String, String), NameWeight>;

/// The kinds that have listed contexts in the environment, added to `kinds`.
pub fn kinds(
    searcher: &Searcher,
    terms: Field,
    environment: EnvironmentPrefix,
    kinds: &mut Vec<String>,
) -> tantivy::Result<()> {
    let start = environment.family(family::KIND).0;
    for segment in searcher.segment_readers() {
        let index = segment.inverted_index(terms)?;
        let mut reads = 0;
        Scan::prefix(start.clone(), Accept::All).for_each(&index, |term, info| {
            reads += 1;
            if let Some((Some(kind), _)) = read_text(&term[start.len()..])
                && !kinds.contains(&kind)
                && has_living(segment, &index, info)?
            {
                kinds.push(kind);
            }
            Ok(reads < TERMS_READ_MAX)
        })?;
    }
    Ok(())
}

/// Which names are looked up.
#[derive(Clone, Debug)]
pub struct WantedNames<'a> {
    pub environment: EnvironmentPrefix,
    /// None: of all kinds.
    pub kind: Option<&'a str>,
    /// The name begins with all of these, in any letter case, with or without a leading slash. Folded.
    prefixes: Vec<String>,
}

impl<'a> WantedNames<'a> {
    pub fn new(environment: EnvironmentPrefix, kind: Option<&'a str>, prefixes: &[String]) -> Self {
        Self { environment, kind, prefixes: prefixes.iter().map(|prefix| fold_case(prefix)).collect() }
    }

    /// Names that do not stand whole in terms are not told.
    fn accepts(&self, pointer: &str) -> bool {
        pointer.len() <= NAME_BYTES_MAX && self.prefixes.iter().all(|prefix| has_name_prefix(pointer, prefix))
    }
}

/// Adds the names of attributes among the living documents of a shard.
pub fn names(searcher: &Searcher, terms: Field, wanted: &WantedNames<'_>, names: &mut Names) -> tantivy::Result<()> {
    for segment in searcher.segment_readers() {
        let index = segment.inverted_index(terms)?;
        names_of_segment(&index, wanted, names, &mut |info| living(segment, &index, info))?;
    }
    Ok(())
}

/// Adds the names of attributes in a segment, as `weigh` counts the documents of a posting list. False: there were more than
/// may be read.
fn names_of_segment(
    index: &InvertedIndexReader,
    wanted: &WantedNames<'_>,
    names: &mut Names,
    weigh: &mut dyn FnMut(&TermInfo) -> tantivy::Result<Weight>,
) -> tantivy::Result<bool> {
    let start = wanted.environment.family(family::EXISTS);
    let after_family = start.0.len();
    let scan_start = match wanted.kind {
        Some(kind) => start.text(kind, NAME_BYTES_MAX).0,
        None => start.0,
    };
    let longest = wanted.prefixes.iter().max_by_key(|prefix| prefix.len()).map_or("", |prefix| prefix);
    let named = Named::new(scan_start, wanted.kind.is_some(), longest);
    let mut stream = index.terms().search(&named).into_stream()?;
    let mut reads = 0;
    while reads < TERMS_READ_MAX && stream.advance() {
        reads += 1;
        if let Some((kind, pointer, how)) = read_exists(&stream.key()[after_family..])
            && is_listed(how)
            && wanted.accepts(&pointer)
        {
            let weight = weigh(stream.value())?;
            if weight.contexts > 0 {
                names.entry((kind, pointer)).or_default().add(how, weight);
            }
        }
    }
    Ok(reads < TERMS_READ_MAX)
}

fn read_exists(bytes: &[u8]) -> Option<(String, String, u8)> {
    let (kind, rest) = read_text(bytes)?;
    let (pointer, rest) = read_text(rest)?;
    Some((kind?, pointer?, *rest.first()?))
}

fn has_name_prefix(pointer: &str, folded_prefix: &str) -> bool {
    let folded = fold_case(pointer);
    folded.starts_with(folded_prefix) || folded.strip_prefix('/').is_some_and(|name| name.starts_with(folded_prefix))
}

fn has_living(segment: &SegmentReader, index: &InvertedIndexReader, info: &TermInfo) -> tantivy::Result<bool> {
    let Some(alive) = segment.alive_bitset() else { return Ok(true) };
    let mut postings = index.read_block_postings_from_terminfo(info, IndexRecordOption::Basic)?;
    while !postings.docs().is_empty() {
        if postings.docs().iter().any(|document| alive.is_alive(*document)) {
            return Ok(true);
        }
        postings.advance();
    }
    Ok(false)
}

/// Living documents of a posting list.
fn living(segment: &SegmentReader, index: &InvertedIndexReader, info: &TermInfo) -> tantivy::Result<Weight> {
    let all = u64::from(info.doc_freq);
    let Some(alive) = segment.alive_bitset() else { return Ok(Weight::exact(all)) };
    let mut postings = index.read_block_postings_from_terminfo(info, IndexRecordOption::Basic)?;
    let (mut seen, mut found) = (0, 0);
    while !postings.docs().is_empty() {
        seen += postings.docs().len() as u64;
        found += postings.docs().iter().filter(|document| alive.is_alive(**document)).count() as u64;
        if seen >= SAMPLE_MAX && found > 0 && seen < all {
            return Ok(Weight::estimate((all * found / seen).max(1)));
        }
        postings.advance();
    }
    Ok(Weight::exact(found))
}
