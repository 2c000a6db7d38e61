//! The values of an attribute that most contexts have, over all segments of all shards.
//!
//! In: the [`RangeTop`] of each segment. Out: the first values by weight, then by text.
//! Promise: a weight is exact where posting lists are short enough to be counted; the choice is exact where a segment has
//! at most [`TOP_VALUES`](super::tops::TOP_VALUES) values in the range. Beyond, a value that is rare in every segment may be passed over for
//! another that is as rare: finding it would mean to read all values at each keystroke.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tantivy::postings::TermInfo;
use tantivy::schema::Field;
use tantivy::{InvertedIndexReader, Searcher, Term};

use super::tops::{RangeTop, RememberedTops, shown_text};
use super::{Weight, living};
use crate::attribute::AttributePath;
use crate::filter::fold_case;
use crate::scan::{Accept, Scan};
use crate::terms::{EnvironmentPrefix, Tag, family, read_value, text_end};
use crate::wire;

/// Terms that one look-up reads at most where nothing is remembered, in all segments together.
pub const TERMS_READ_MAX: usize = 300_000;
/// Values whose weights are completed, per value asked for: what is second in one segment may be first in all.
const COMPLETED: usize = 2;
/// Values that are told of one kind, where shards of several processes are added up.
const TALLIED_MAX: usize = 2_000;

/// Values with the number of contexts that have them.
pub type Values = Vec<(Value, Weight)>;

/// A value as its term from behind the pointer, which is the same in all shards.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ValueTerm(#[serde(with = "wire::bytes")] Vec<u8>);

/// What some shards know of the values of one attribute of one kind.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Tallied {
    pub weights: Vec<(ValueTerm, Weight)>,
    /// All values are here, with all contexts that have them. If not, those that are frequent here.
    pub is_complete: bool,
}

/// What is looked up: values of one attribute of one kind.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    pub environment: EnvironmentPrefix,
    pub kind: &'a str,
    pub pointer: &'a str,
    /// The text of a value begins with all of these, in any letter case.
    pub prefixes: &'a [String],
    pub limit: usize,
}

/// A look-up under way: segments are added first, then the weights completed.
pub struct Tally<'a> {
    wanted: Wanted<'a>,
    /// The start of all terms of the attribute's values; None: no value can begin so.
    pointer: Vec<u8>,
    start: Option<Vec<u8>>,
    /// Prefixes that the range does not ensure.
    others: Vec<String>,
    pieces: Vec<Piece>,
    /// Weight by key: a term from behind the pointer, the same whether the value is whole or an element.
    weights: HashMap<Vec<u8>, Weight>,
    budget: usize,
}

struct Piece {
    shard: usize,
    segment: usize,
    top: Arc<RangeTop>,
}

impl<'a> Tally<'a> {
    pub fn new(wanted: Wanted<'a>) -> Self {
        let longest = wanted.prefixes.iter().max_by_key(|prefix| prefix.len()).map_or("", String::as_str);
        let others = wanted.prefixes.iter().filter(|prefix| *prefix != longest).map(|prefix| fold_case(prefix));
        let (start, was_cut) = wanted.environment.value_prefix(wanted.kind, wanted.pointer, longest);
        Self {
            wanted,
            pointer: wanted.environment.attribute(family::VALUE, wanted.kind, wanted.pointer).0,
            start: (!was_cut).then_some(start),
            others: others.collect(),
            pieces: Vec::new(),
            weights: HashMap::new(),
            budget: TERMS_READ_MAX,
        }
    }

    /// Adds the segments of a shard.
    pub fn add(
        &mut self,
        shard: usize,
        searcher: &Searcher,
        terms: Field,
        remembered: &RememberedTops,
    ) -> tantivy::Result<()> {
        let Some(start) = &self.start else { return Ok(()) };
        let pointer_end = self.pointer.len();
        for (number, segment) in searcher.segment_readers().iter().enumerate() {
            let index = segment.inverted_index(terms)?;
            let top = if self.others.is_empty() {
                remembered.get(segment, &index, start, pointer_end, &mut self.budget)?
            } else {
                let accepts = |term: &[u8]| has_prefixes(term, &self.others);
                Arc::new(RangeTop::read(segment, &index, start, pointer_end, &accepts, &mut self.budget)?)
            };
            for value in &top.values {
                *self.weights.entry(key_of(&value.term)).or_default() += value.living;
            }
            self.pieces.push(Piece { shard, segment: number, top });
        }
        Ok(())
    }

    /// Adds the values of a segment, as `weigh` counts the documents of a posting list. `budget`: terms that may be read. False:
    /// there were more.
    pub fn add_weighed(
        &mut self,
        index: &InvertedIndexReader,
        budget: &mut usize,
        weigh: &mut dyn FnMut(&TermInfo) -> tantivy::Result<Weight>,
    ) -> tantivy::Result<bool> {
        let Some(start) = self.start.clone() else { return Ok(true) };
        let pointer_end = self.pointer.len();
        let mut is_whole = true;
        Scan::prefix(start, Accept::All).for_each(index, |term, info| {
            if *budget == 0 {
                is_whole = false;
                return Ok(false);
            }
            *budget -= 1;
            let term = &term[pointer_end..];
            if shown_text(term).is_some() && has_prefixes(term, &self.others) {
                let weight = weigh(info)?;
                if weight.contexts > 0 {
                    *self.weights.entry(key_of(term)).or_default() += weight;
                }
            }
            Ok(true)
        })?;
        Ok(is_whole)
    }

    /// Adds the values of one context.
    pub fn add_context(&mut self, context: &Map<String, Value>) {
        let Wanted { environment, kind, pointer, .. } = self.wanted;
        let Some(stored) = AttributePath::parse(pointer).get(context) else { return };
        let elements = match stored {
            Value::Array(elements) => elements.as_slice(),
            single => std::slice::from_ref(single),
        };
        let begins = |term: &Vec<u8>| self.start.as_ref().is_some_and(|start| term.starts_with(start));
        let scalars = elements.iter().filter(|element| !element.is_array() && !element.is_object());
        let terms: HashSet<Vec<u8>> =
            scalars.filter_map(|value| environment.value(kind, pointer, value, false)).filter(begins).collect();
        for term in terms {
            let key = &term[self.pointer.len()..];
            if shown_text(key).is_some() && has_prefixes(key, &self.others) {
                *self.weights.entry(key.to_vec()).or_default() += Weight::exact(1);
            }
        }
    }

    /// Takes what was added for a sample of `of` contexts of which there are `all`.
    pub fn scale(&mut self, of: u64, all: u64) {
        for weight in self.weights.values_mut() {
            *weight = Weight::estimate(((weight.contexts * all + of / 2) / of.max(1)).max(1));
        }
    }

    /// Whether all values were read in all segments.
    pub fn is_complete(&self) -> bool {
        self.pieces.iter().all(|piece| piece.top.is_complete)
    }

    /// The best values so far, more than are wanted: those whose weights are worth completing.
    pub fn candidates(&self) -> Vec<ValueTerm> {
        self.best(self.wanted.limit * COMPLETED).into_iter().map(|(key, _)| ValueTerm(key)).collect()
    }

    /// Adds what the segments of a shard hold of `candidates` beyond their first values.
    pub fn complete(
        &mut self,
        candidates: &[ValueTerm],
        shard: usize,
        searcher: &Searcher,
        terms: Field,
    ) -> tantivy::Result<()> {
        let mut term = self.pointer.clone();
        for piece in self.pieces.iter().filter(|piece| piece.shard == shard && !piece.top.is_complete) {
            let segment = searcher.segment_reader(piece.segment as u32);
            let index = segment.inverted_index(terms)?;
            for ValueTerm(key) in candidates {
                for is_element in [false, true] {
                    let is_there = if is_element { piece.top.has_elements } else { piece.top.has_wholes };
                    let suffix = is_there.then(|| with_tag(key, is_element)).flatten();
                    let Some(suffix) = suffix.filter(|suffix| piece.top.find(suffix).is_none()) else { continue };
                    term.truncate(self.pointer.len());
                    term.extend_from_slice(&suffix);
                    if let Some(info) = index.get_term_info(&Term::from_field_bytes(terms, &term))? {
                        let living = living(segment, &index, &info)?;
                        if living.contexts > 0 {
                            *self.weights.entry_ref(key.as_slice()).or_default() += living;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// What was added, for others to be added to it: of `candidates`, or if there are none the best.
    pub fn tallied(&self, candidates: Option<&[ValueTerm]>) -> Tallied {
        let told = |key: &Vec<u8>, weight| (ValueTerm(key.clone()), weight);
        let weights: Vec<_> = match candidates {
            Some(candidates) => {
                let known = candidates.iter().filter_map(|candidate| self.weights.get_key_value(&candidate.0));
                known.map(|(key, weight)| told(key, *weight)).collect()
            }
            None => self.best(TALLIED_MAX).into_iter().map(|(key, weight)| (ValueTerm(key), weight)).collect(),
        };
        let is_complete = self.is_complete() && (candidates.is_some() || weights.len() == self.weights.len());
        Tallied { weights, is_complete }
    }

    /// Adds what other shards know.
    pub fn add_tallied(&mut self, tallied: Tallied) {
        for (ValueTerm(key), weight) in tallied.weights {
            *self.weights.entry(key).or_default() += weight;
        }
    }

    /// The values with their weights, in order.
    pub fn values(&self) -> Values {
        let best = self.best(self.wanted.limit);
        best.into_iter().filter_map(|(key, weight)| Some((value_of(&key)?, weight))).collect()
    }

    fn best(&self, count: usize) -> Vec<(Vec<u8>, Weight)> {
        let mut ranked: Vec<(&Vec<u8>, Weight)> = self.weights.iter().map(|(key, weight)| (key, *weight)).collect();
        // Weights first; texts are read of what may be shown alone.
        let by_weight = |left: &(&Vec<u8>, Weight), right: &(&Vec<u8>, Weight)| right.1.contexts.cmp(&left.1.contexts);
        if ranked.len() > count {
            ranked.select_nth_unstable_by(count, by_weight);
            let least = ranked[count].1.contexts;
            ranked.retain(|(_, weight)| weight.contexts >= least);
        }
        ranked.sort_unstable_by(|left, right| {
            by_weight(left, right).then_with(|| (text_of(left.0), left.0).cmp(&(text_of(right.0), right.0)))
        });
        ranked.truncate(count);
        ranked.into_iter().map(|(key, weight)| (key.clone(), weight)).collect()
    }
}

fn text_of(key: &[u8]) -> &[u8] {
    shown_text(key).map_or(&[], |(text, _)| text)
}

/// A term without the mark of an element.
fn key_of(term: &[u8]) -> Vec<u8> {
    with_tag(term, false).unwrap_or_default()
}

fn with_tag(term: &[u8], is_element: bool) -> Option<Vec<u8>> {
    let tag_at = text_end(term)?;
    let tag = Tag(*term.get(tag_at)?).of_type();
    let mut key = term.to_vec();
    key[tag_at] = if is_element { tag.as_element().0 } else { tag.0 };
    Some(key)
}

/// The value that a key stands for.
fn value_of(key: &[u8]) -> Option<Value> {
    read_value(key)?.1
}

fn has_prefixes(term: &[u8], folded: &[String]) -> bool {
    if folded.is_empty() {
        return true;
    }
    let Some(value) = value_of(&key_of(term)) else { return false };
    let text = fold_case(&value_text(&value));
    folded.iter().all(|prefix| text.starts_with(prefix))
}

/// The text of a scalar, as look-ups compare and order it.
fn value_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
