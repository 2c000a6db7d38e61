//! Attribute names and values for autocomplete: ranges of the term dictionary, counted over living documents.
//!
//! In: environment, kinds, what was typed. Out: kinds and names with weights; values are in `values`.
//! A term outlives the documents that had it until its segment merges, so a term counts only as far as a living document
//! has it. Long posting lists are counted by sample: a weight may be an estimate, a listed name or value is never dead.

pub mod tops;
pub mod values;

use hashbrown::HashMap;
use tantivy::postings::TermInfo;
use tantivy::schema::{Field, IndexRecordOption};
use tantivy::{InvertedIndexReader, Searcher, SegmentReader};

use crate::filter::fold_case;
use crate::scan::{Accept, Scan};
use crate::terms::{EnvironmentPrefix, exists, family, read_text};

/// Terms that one look-up of kinds or names reads at most in one segment, so that a keystroke stays quick.
const TERMS_READ_MAX: usize = 50_000;
/// Documents of one posting list that are looked at; beyond, the share of living ones is taken from these.
const SAMPLE_MAX: u64 = 20_000;

/// Weight of one attribute name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NameWeight {
    pub weight: u64,
    pub redacted: bool,
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

/// Names of attributes of `kind` that begin with `prefix` in any letter case, with or without a leading slash.
pub fn names(
    searcher: &Searcher,
    terms: Field,
    environment: EnvironmentPrefix,
    kind: Option<&str>,
    prefixes: &[String],
    names: &mut Names,
) -> tantivy::Result<()> {
    let start = environment.family(family::EXISTS);
    let after_family = start.0.len();
    let scan_start = match kind {
        Some(kind) => start.text(kind, crate::terms::NAME_BYTES_MAX).0,
        None => start.0,
    };
    let folded: Vec<String> = prefixes.iter().map(|prefix| fold_case(prefix)).collect();
    for segment in searcher.segment_readers() {
        let index = segment.inverted_index(terms)?;
        let mut reads = 0;
        Scan::prefix(scan_start.clone(), Accept::All).for_each(&index, |term, info| {
            reads += 1;
            if let Some((kind, pointer, how)) = read_exists(&term[after_family..])
                && how != exists::OTHER
                && how != exists::LONG_TEXT
                && folded.iter().all(|prefix| has_name_prefix(&pointer, prefix))
            {
                let weight = living(segment, &index, info)?;
                if weight > 0 {
                    let entry = names.entry((kind, pointer)).or_default();
                    // A known value has been counted as a leaf.
                    entry.weight += if how == exists::REDACTED_KNOWN { 0 } else { weight };
                    entry.redacted |= how == exists::REDACTED || how == exists::REDACTED_KNOWN;
                }
            }
            Ok(reads < TERMS_READ_MAX)
        })?;
    }
    Ok(())
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
fn living(segment: &SegmentReader, index: &InvertedIndexReader, info: &TermInfo) -> tantivy::Result<u64> {
    let all = u64::from(info.doc_freq);
    let Some(alive) = segment.alive_bitset() else { return Ok(all) };
    let mut postings = index.read_block_postings_from_terminfo(info, IndexRecordOption::Basic)?;
    let (mut seen, mut found) = (0, 0);
    while !postings.docs().is_empty() {
        seen += postings.docs().len() as u64;
        found += postings.docs().iter().filter(|document| alive.is_alive(**document)).count() as u64;
        if seen >= SAMPLE_MAX && found > 0 {
            return Ok((all * found / seen).max(1));
        }
        postings.advance();
    }
    Ok(found)
}
