//! Tantivy queries over the `terms` field that need more than one term: unions, ranges of the dictionary, near words.
//!
//! In: terms and ranges from `query`. Out: per segment, the set of documents as a bitmap.

use std::sync::{Arc, LazyLock};

use levenshtein_automata::{DFA, Distance, LevenshteinAutomatonBuilder, SINK_STATE};
use tantivy::postings::BlockSegmentPostings;
use tantivy::query::{AutomatonWeight, BitSetDocSet, ConstScorer, EnableScoring, Explanation, Query, Scorer, Weight};
use tantivy::schema::{Field, IndexRecordOption};
use tantivy::{BitSet, DocId, DocSet, InvertedIndexReader, Score, SegmentReader, TantivyError, Term};
use tantivy_fst::Automaton;

use crate::terms::{Tag, after_text};

/// Which terms of a range count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accept {
    All,
    /// All but this one.
    Except(Vec<u8>),
    /// Value terms of whole texts; the number is where the text begins in the term.
    WholeText(usize),
}

impl Accept {
    fn accepts(&self, term: &[u8]) -> bool {
        match self {
            Self::All => true,
            Self::Except(other) => term != other,
            Self::WholeText(start) => after_text(&term[*start..])
                .and_then(|rest| rest.first())
                .is_some_and(|tag| matches!(Tag(*tag), Tag::TEXT | Tag::LONG_TEXT)),
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

    /// Calls `visit` with each term of the range and its document frequency, until it says false.
    pub fn for_each(
        &self,
        index: &InvertedIndexReader,
        mut visit: impl FnMut(&[u8], &tantivy::postings::TermInfo) -> tantivy::Result<bool>,
    ) -> tantivy::Result<()> {
        let mut range = index.terms().range().ge(&self.from);
        if let Some(to) = &self.to {
            range = range.lt(to);
        }
        let mut stream = range.into_stream()?;
        while stream.advance() {
            if self.accept.accepts(stream.key()) && !visit(stream.key(), stream.value())? {
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

/// Documents with any of some terms, or with any term of some ranges.
#[derive(Clone, Debug)]
pub struct UnionQuery {
    pub field: Field,
    pub terms: Arc<Vec<Vec<u8>>>,
    pub scans: Arc<Vec<Scan>>,
}

impl Query for UnionQuery {
    fn weight(&self, _: EnableScoring<'_>) -> tantivy::Result<Box<dyn Weight>> {
        Ok(Box::new(self.clone()))
    }
}

impl Weight for UnionQuery {
    fn scorer(&self, segment: &SegmentReader, boost: Score) -> tantivy::Result<Box<dyn Scorer>> {
        let index = segment.inverted_index(self.field)?;
        let mut documents = BitSet::with_max_value(segment.max_doc());
        let mut postings = None;
        for term in self.terms.iter() {
            if let Some(term_info) = index.get_term_info(&Term::from_field_bytes(self.field, term))? {
                insert_postings(&index, &term_info, &mut postings, &mut documents)?;
            }
        }
        for scan in self.scans.iter() {
            scan.for_each(&index, |_, term_info| {
                insert_postings(&index, term_info, &mut postings, &mut documents)?;
                Ok(true)
            })?;
        }
        Ok(Box::new(ConstScorer::new(BitSetDocSet::from(documents), boost)))
    }

    fn explain(&self, segment: &SegmentReader, document: DocId) -> tantivy::Result<Explanation> {
        let mut scorer = self.scorer(segment, 1.0)?;
        if scorer.doc() > document || scorer.seek(document) != document {
            return Err(TantivyError::InvalidArgument(format!("document {document} does not match")));
        }
        Ok(Explanation::new("union of terms", 1.0))
    }
}

fn insert_postings(
    index: &InvertedIndexReader,
    term_info: &tantivy::postings::TermInfo,
    reused: &mut Option<BlockSegmentPostings>,
    documents: &mut BitSet,
) -> tantivy::Result<()> {
    // Opening a posting list costs more than reading one of a few documents, and a range may have 100,000 of them.
    match reused {
        Some(postings) => index.reset_block_postings_from_terminfo(term_info, postings)?,
        None => *reused = Some(index.read_block_postings_from_terminfo(term_info, IndexRecordOption::Basic)?),
    }
    let Some(postings) = reused else { return Ok(()) };
    while !postings.docs().is_empty() {
        for document in postings.docs() {
            documents.insert(*document);
        }
        postings.advance();
    }
    Ok(())
}

/// Documents with a word within an edit distance of a given one.
#[derive(Clone)]
pub struct NearWordQuery {
    field: Field,
    word: String,
    automaton: Arc<NearWord>,
}

struct NearWord {
    /// What all words' terms begin with.
    prefix: Vec<u8>,
    dfa: DFA,
}

/// Building these tables takes milliseconds; their use for a word takes microseconds.
static AUTOMATA: LazyLock<[LevenshteinAutomatonBuilder; 2]> =
    LazyLock::new(|| [LevenshteinAutomatonBuilder::new(1, false), LevenshteinAutomatonBuilder::new(2, false)]);

impl NearWordQuery {
    /// `edits`: 1 or 2.
    pub fn new(field: Field, prefix: Vec<u8>, word: &str, edits: u8) -> Self {
        let dfa = AUTOMATA[usize::from(edits.clamp(1, 2)) - 1].build_dfa(word);
        Self { field, word: word.to_owned(), automaton: Arc::new(NearWord { prefix, dfa }) }
    }
}

impl std::fmt::Debug for NearWordQuery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NearWordQuery").field("word", &self.word).finish_non_exhaustive()
    }
}

impl Query for NearWordQuery {
    fn weight(&self, _: EnableScoring<'_>) -> tantivy::Result<Box<dyn Weight>> {
        Ok(Box::new(AutomatonWeight::<NearWord>::new(self.field, Arc::clone(&self.automaton))))
    }
}

/// Progress through a term: within the prefix, within the word, or lost.
#[derive(Clone, Copy, Debug)]
enum Progress {
    Prefix(usize),
    Word(u32),
    Lost,
}

impl Automaton for NearWord {
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
