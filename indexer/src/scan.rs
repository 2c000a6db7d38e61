//! Tantivy queries over the `terms` field that need more than one term: unions, ranges of the dictionary, near words.
//!
//! In: terms, ranges and words from `query`. Out: per segment, the set of documents as a bitmap.
//! Promise: all parts of one search together read no more than its [`Budget`]; what lies beyond is left out, and the
//! budget says so. A part finds only, never excludes, so that leaving out makes an answer partial and never wrong.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, LazyLock};

use levenshtein_automata::{DFA, Distance, LevenshteinAutomatonBuilder, SINK_STATE};
use memchr::memmem::Finder;
use tantivy::postings::{BlockSegmentPostings, TermInfo};
use tantivy::query::{BitSetDocSet, ConstScorer, EnableScoring, Explanation, Query, Scorer, Weight};
use tantivy::schema::{Field, IndexRecordOption};
use tantivy::{BitSet, DocId, DocSet, InvertedIndexReader, Score, SegmentReader, TantivyError, Term};
use tantivy_fst::Automaton;

use crate::terms::{Tag, after_text, split_text, text_end};

/// What one search may still read: a unit is a term of the dictionary or a block of a posting list. Shared by its parts.
#[derive(Clone, Debug)]
pub struct Budget(Arc<AtomicI64>);

impl Budget {
    pub fn new(units: u64) -> Self {
        Self(Arc::new(AtomicI64::new(i64::try_from(units).unwrap_or(i64::MAX))))
    }

    /// Takes a unit. False: none was left, and what it was for is left out.
    pub fn take(&self) -> bool {
        self.0.fetch_sub(1, Ordering::Relaxed) > 0
    }

    /// Whether something was left out.
    pub fn is_exceeded(&self) -> bool {
        self.0.load(Ordering::Relaxed) < 0
    }
}

/// Which terms of a range count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accept {
    All,
    /// All but this one.
    Except(Vec<u8>),
    /// Value terms of whole texts; the number is where the text begins in the term.
    WholeText(usize),
    /// Of these, terms that hold the whole text and in it `part`, which is written as in a term.
    Containing {
        text_at: usize,
        part: Vec<u8>,
    },
    /// Value terms of whole numbers from `from` to `to`, both inclusive, whole or elements.
    WholeNumber {
        text_at: usize,
        from: i64,
        to: i64,
    },
}

/// [`Accept`], made ready for many terms.
enum Acceptor<'a> {
    All,
    Except(&'a [u8]),
    WholeText(usize),
    Containing(usize, Box<Finder<'a>>),
    WholeNumber(usize, RangeInclusive<i64>),
}

impl Accept {
    fn acceptor(&self) -> Acceptor<'_> {
        match self {
            Self::All => Acceptor::All,
            Self::Except(other) => Acceptor::Except(other),
            Self::WholeText(start) => Acceptor::WholeText(*start),
            Self::Containing { text_at, part } => Acceptor::Containing(*text_at, Box::new(Finder::new(part))),
            Self::WholeNumber { text_at, from, to } => Acceptor::WholeNumber(*text_at, *from..=*to),
        }
    }
}

impl Acceptor<'_> {
    fn accepts(&self, term: &[u8]) -> bool {
        match self {
            Self::All => true,
            Self::Except(other) => term != *other,
            Self::WholeText(start) => after_text(&term[*start..])
                .and_then(|rest| rest.first())
                .is_some_and(|tag| matches!(Tag(*tag), Tag::TEXT | Tag::LONG_TEXT)),
            Self::Containing(start, finder) => {
                let text = &term[*start..];
                // Most terms end here. The text as it stood may follow, where a part means nothing.
                finder.find(text).is_some_and(|found| {
                    let ends_within = |end: usize| found + finder.needle().len() + 2 <= end;
                    text_end(text).is_some_and(|end| ends_within(end) && text.get(end) == Some(&Tag::TEXT.0))
                })
            }
            // Longer texts that begin as these numbers do lie among them.
            Self::WholeNumber(start, numbers) => split_text(&term[*start..]).is_some_and(|(text, rest)| {
                rest.first().is_some_and(|tag| Tag(*tag).of_type() == Tag::NUMBER)
                    && std::str::from_utf8(text)
                        .is_ok_and(|text| text.parse().is_ok_and(|number| numbers.contains(&number)))
            }),
        }
    }
}

/// A range of the dictionary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// Inclusive.
    pub from: Vec<u8>,
    /// Exclusive; None: to the end.
    pub to: Option<Vec<u8>>,
    pub accept: Accept,
}

impl Scan {
    /// All terms that begin with `prefix`.
    pub fn prefix(prefix: Vec<u8>, accept: Accept) -> Self {
        Self { to: prefix_end(&prefix), from: prefix, accept }
    }

    /// All terms from `from` up to and without `to`.
    pub fn range(from: Vec<u8>, to: Vec<u8>) -> Self {
        Self { from, to: Some(to), accept: Accept::All }
    }

    #[cfg(test)]
    pub fn finds(&self, term: &[u8]) -> bool {
        let is_within = *term >= *self.from && self.to.as_ref().is_none_or(|to| *term < **to);
        is_within && self.accept.acceptor().accepts(term)
    }

    /// Calls `visit` with each term of the range that counts and where its postings are, until it says false.
    pub fn for_each(
        &self,
        index: &InvertedIndexReader,
        visit: impl FnMut(&[u8], &TermInfo) -> tantivy::Result<bool>,
    ) -> tantivy::Result<()> {
        self.for_each_within(index, &|| true, visit)
    }

    /// `may_read`: asked before each term of the range, whether it counts or not.
    fn for_each_within(
        &self,
        index: &InvertedIndexReader,
        may_read: &dyn Fn() -> bool,
        mut visit: impl FnMut(&[u8], &TermInfo) -> tantivy::Result<bool>,
    ) -> tantivy::Result<()> {
        let mut range = index.terms().range().ge(&self.from);
        if let Some(to) = &self.to {
            range = range.lt(to);
        }
        let acceptor = self.accept.acceptor();
        let mut stream = range.into_stream()?;
        while stream.advance() && may_read() {
            if acceptor.accepts(stream.key()) && !visit(stream.key(), stream.value())? {
                break;
            }
        }
        Ok(())
    }
}

/// The smallest bytes that come after everything that begins with `prefix`.
pub fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != 0xFF)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

/// Documents with any of some terms, with any term of some ranges, or with a word near some words.
#[derive(Clone, Debug)]
pub struct UnionQuery {
    pub field: Field,
    pub terms: Arc<Vec<Vec<u8>>>,
    pub scans: Arc<Vec<Scan>>,
    pub near: Option<NearWord>,
    pub budget: Budget,
}

impl Query for UnionQuery {
    fn weight(&self, _: EnableScoring<'_>) -> tantivy::Result<Box<dyn Weight>> {
        Ok(Box::new(self.clone()))
    }
}

impl Weight for UnionQuery {
    fn scorer(&self, segment: &SegmentReader, boost: Score) -> tantivy::Result<Box<dyn Scorer>> {
        let index = segment.inverted_index(self.field)?;
        let documents = BitSet::with_max_value(segment.max_doc());
        let mut union = Union { postings: Postings::new(&index, &self.budget), documents };
        for term in self.terms.iter() {
            if let Some(term_info) = index.get_term_info(&Term::from_field_bytes(self.field, term))? {
                union.add(&term_info)?;
            }
        }
        let may_read = || self.budget.take();
        for scan in self.scans.iter() {
            scan.for_each_within(&index, &may_read, |_, term_info| union.add(term_info))?;
        }
        if let Some(near) = &self.near {
            let mut stream = index.terms().search(&*near.0).into_stream()?;
            while stream.advance() && may_read() {
                union.add(stream.value())?;
            }
        }
        Ok(Box::new(ConstScorer::new(BitSetDocSet::from(union.documents), boost)))
    }

    fn explain(&self, segment: &SegmentReader, document: DocId) -> tantivy::Result<Explanation> {
        let mut scorer = self.scorer(segment, 1.0)?;
        if scorer.doc() > document || scorer.seek(document) != document {
            return Err(TantivyError::InvalidArgument(format!("document {document} does not match")));
        }
        Ok(Explanation::new("union of terms", 1.0))
    }
}

/// The documents of one segment so far.
struct Union<'a> {
    postings: Postings<'a>,
    documents: BitSet,
}

impl Union<'_> {
    /// Adds the documents of a term. False: the budget ended.
    fn add(&mut self, term_info: &TermInfo) -> tantivy::Result<bool> {
        let Self { postings, documents } = self;
        postings.for_each(term_info, |document| {
            documents.insert(document);
        })
    }
}

/// The posting lists of one segment, one after the other.
pub struct Postings<'a> {
    index: &'a InvertedIndexReader,
    budget: &'a Budget,
    postings: Option<BlockSegmentPostings>,
}

impl<'a> Postings<'a> {
    pub fn new(index: &'a InvertedIndexReader, budget: &'a Budget) -> Self {
        Self { index, budget, postings: None }
    }

    /// Calls `visit` with the documents of a term. False: the budget ended.
    pub fn for_each(&mut self, term_info: &TermInfo, mut visit: impl FnMut(DocId)) -> tantivy::Result<bool> {
        // Opening a posting list costs more than reading one of a few documents, and a range may have 100,000 of them.
        match &mut self.postings {
            Some(postings) => self.index.reset_block_postings_from_terminfo(term_info, postings)?,
            None => {
                let opened = self.index.read_block_postings_from_terminfo(term_info, IndexRecordOption::Basic)?;
                self.postings = Some(opened);
            }
        }
        let Some(postings) = &mut self.postings else { return Ok(true) };
        while !postings.docs().is_empty() {
            if !self.budget.take() {
                return Ok(false);
            }
            postings.docs().iter().for_each(|document| visit(*document));
            postings.advance();
        }
        Ok(true)
    }
}

/// The words within an edit distance of a given one.
#[derive(Clone)]
pub struct NearWord(Arc<NearWordAutomaton>);

struct NearWordAutomaton {
    /// What all words' terms begin with.
    prefix: Vec<u8>,
    word: String,
    dfa: DFA,
}

/// Building these tables takes milliseconds; their use for a word takes microseconds.
static AUTOMATA: LazyLock<[LevenshteinAutomatonBuilder; 2]> =
    LazyLock::new(|| [LevenshteinAutomatonBuilder::new(1, false), LevenshteinAutomatonBuilder::new(2, false)]);

impl NearWord {
    /// `edits`: 1 or 2.
    pub fn new(prefix: Vec<u8>, word: &str, edits: u8) -> Self {
        let dfa = AUTOMATA[usize::from(edits.clamp(1, 2)) - 1].build_dfa(word);
        Self(Arc::new(NearWordAutomaton { prefix, word: word.to_owned(), dfa }))
    }
}

impl std::fmt::Debug for NearWord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("NearWord").field(&self.0.word).finish()
    }
}

/// Progress through a term: within the prefix, within the word, or lost.
#[derive(Clone, Copy, Debug)]
enum Progress {
    Prefix(usize),
    Word(u32),
    Lost,
}

impl Automaton for NearWordAutomaton {
    type State = Progress;

    fn start(&self) -> Progress {
        if self.prefix.is_empty() { Progress::Word(self.dfa.initial_state()) } else { Progress::Prefix(0) }
    }

    fn is_match(&self, state: &Progress) -> bool {
        matches!(state, Progress::Word(state) if matches!(self.dfa.distance(*state), Distance::Exact(_)))
    }

    fn can_match(&self, state: &Progress) -> bool {
        match state {
            Progress::Prefix(_) => true,
            Progress::Word(state) => *state != SINK_STATE,
            Progress::Lost => false,
        }
    }

    fn accept(&self, state: &Progress, byte: u8) -> Progress {
        match state {
            Progress::Prefix(at) if self.prefix[*at] != byte => Progress::Lost,
            Progress::Prefix(at) if at + 1 == self.prefix.len() => Progress::Word(self.dfa.initial_state()),
            Progress::Prefix(at) => Progress::Prefix(at + 1),
            Progress::Word(state) => Progress::Word(self.dfa.transition(*state, byte)),
            Progress::Lost => Progress::Lost,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_end_is_the_next_sibling() {
        assert_eq!(prefix_end(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(prefix_end(&[1, 0xFF, 0xFF]), Some(vec![2]));
        assert_eq!(prefix_end(&[0xFF]), None);
        assert_eq!(prefix_end(b""), None);
    }
}
