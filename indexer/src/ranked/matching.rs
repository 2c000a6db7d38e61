//! The order of a text search: what equals the text first, then what has its words as prefixes, then what forgave mistakes.
//!
//! In: the texts of the first `q` of a filter. Out: a rank for each document of a segment, as two sets; the default order decides
//! among the same ranks. `evaluate::match_rank` is the plain meaning of it.
//! Values that equal a text are found by asking the dictionary for it below each attribute, but only where all its words are words
//! of some context: while somebody types, the last one seldom is. A term for each whole text would make that one look-up, and the
//! index a third larger.
//! Promise: a budget of its own bounds the cost; beyond it some rank too low, and the answer says that it is partial.

use serde::{Deserialize, Serialize};
use tantivy::schema::Field;
use tantivy::{BitSet, DocId, InvertedIndexReader, SegmentReader, Term};

use crate::filter::{Filter, Phrase};
use crate::matches::documents_of;
use crate::scan::{Accept, Budget, Postings, Scan, prefix_end};
use crate::search::Question;
use crate::terms::{EnvironmentPrefix, Tag, TermBytes, VALUE_BYTES_MAX, exists, family, read_text};

/// An order by how well a context fits a text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BestMatch(Vec<Phrase>);

impl BestMatch {
    /// None: the filter seeks no text.
    pub fn of(filter: &Filter) -> Option<Self> {
        filter.first_phrases().map(|phrases| Self(phrases.to_vec()))
    }

    pub(crate) fn ranker(&self, question: &Question<'_>, terms: Field) -> Ranker {
        let budget = question.ranking_budget.clone();
        Ranker { phrases: self.0.clone(), environment: question.environment, terms, budget }
    }
}

/// Ranks the documents of segments.
pub struct Ranker {
    phrases: Vec<Phrase>,
    environment: EnvironmentPrefix,
    terms: Field,
    budget: Budget,
}

/// Ranks of one segment.
pub struct Ranks {
    exact: BitSet,
    begins: BitSet,
}

impl Ranks {
    pub fn of(&self, document: DocId) -> i64 {
        match (self.exact.contains(document), self.begins.contains(document)) {
            (true, _) => 0,
            (false, true) => 1,
            (false, false) => 2,
        }
    }
}

/// Looks up things in one segment.
struct Segment<'a> {
    ranker: &'a Ranker,
    index: &'a InvertedIndexReader,
    postings: Postings<'a>,
    documents_max: DocId,
}

impl Ranker {
    pub fn of_segment(&self, segment: &SegmentReader) -> tantivy::Result<Ranks> {
        let index = segment.inverted_index(self.terms)?;
        let postings = Postings::new(&index, &self.budget);
        let mut segment = Segment { ranker: self, index: &index, postings, documents_max: segment.max_doc() };
        let (mut exact, mut begins) = (segment.none(), segment.none());
        for phrase in &self.phrases {
            segment.add_beginnings(phrase, &mut begins)?;
            if segment.has_words(phrase)? {
                segment.add_equal(phrase, &mut exact)?;
            }
        }
        Ok(Ranks { exact, begins })
    }
}

impl Segment<'_> {
    fn none(&self) -> BitSet {
        BitSet::with_max_value(self.documents_max)
    }

    /// Whether every word of the text is a word of some context.
    fn has_words(&self, phrase: &Phrase) -> tantivy::Result<bool> {
        for word in &phrase.words {
            let term = Term::from_field_bytes(self.ranker.terms, &self.ranker.environment.word(word));
            if self.index.get_term_info(&term)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Adds the documents where each word of the text begins a word.
    fn add_beginnings(&mut self, phrase: &Phrase, begins: &mut BitSet) -> tantivy::Result<()> {
        let mut all: Option<BitSet> = None;
        for word in &phrase.words {
            let mut with_word = self.none();
            let range = Scan::prefix(self.ranker.environment.word(word), Accept::All);
            self.add_range(&range, &mut with_word)?;
            all = Some(match all {
                None => with_word,
                Some(before) => {
                    let mut both = self.none();
                    documents_of(&before).filter(|document| with_word.contains(*document)).for_each(|document| {
                        both.insert(document);
                    });
                    both
                }
            });
        }
        match all {
            Some(all) => documents_of(&all).for_each(|document| {
                begins.insert(document);
            }),
            // Without a word there is nothing that could be mistaken.
            None => *begins = BitSet::with_max_value_and_full(self.documents_max),
        }
        Ok(())
    }

    /// Adds the documents with a value that equals the text.
    fn add_equal(&mut self, phrase: &Phrase, exact: &mut BitSet) -> tantivy::Result<()> {
        let environment = self.ranker.environment;
        let names = environment.family(family::EXISTS).0;
        let values = environment.family(family::VALUE).0;
        let text = TermBytes(Vec::new()).text(&phrase.folded, VALUE_BYTES_MAX).0;
        let mut last = Vec::new();
        let mut stream =
            self.index.terms().range().ge(&names).lt(prefix_end(&names).unwrap_or_default()).into_stream()?;
        while stream.advance() && self.ranker.budget.take() {
            // Kind and pointer; how the attribute exists is the last byte.
            let Some((_, name)) = stream.key()[names.len()..].split_last() else { continue };
            if name == last.as_slice() {
                continue;
            }
            last = name.to_vec();
            let start = [values.as_slice(), name, &text].concat();
            self.add_values(name, start, exact)?;
        }
        Ok(())
    }

    /// Adds the documents with the texts whose terms begin with `start`. `name`: kind and pointer.
    fn add_values(&mut self, name: &[u8], start: Vec<u8>, exact: &mut BitSet) -> tantivy::Result<()> {
        let tag_at = start.len();
        let range = Scan::prefix(start, Accept::All);
        let mut infos = Vec::new();
        range.for_each(self.index, |term, info| {
            let is_text = |tag: &u8| matches!(Tag(*tag).of_type(), Tag::TEXT | Tag::LONG_TEXT);
            infos.extend(term.get(tag_at).filter(|tag| is_text(tag)).map(|_| info.clone()));
            Ok(self.ranker.budget.take())
        })?;
        if infos.is_empty() {
            return Ok(());
        }
        let Some((Some(kind), Some(pointer))) =
            read_text(name).map(|(kind, rest)| (kind, read_text(rest).and_then(|(pointer, _)| pointer)))
        else {
            return Ok(());
        };
        if pointer == "/kind" {
            return Ok(());
        }
        let mut found = self.none();
        for info in infos {
            self.postings.for_each(&info, |document| {
                found.insert(document);
            })?;
        }
        // The key is searched whatever is held back.
        if pointer != "/key" {
            self.remove_held_back(&kind, &pointer, &mut found)?;
        }
        documents_of(&found).for_each(|document| {
            exact.insert(document);
        });
        Ok(())
    }

    /// What is private is not searched, also where its value is known from another sender.
    fn remove_held_back(&mut self, kind: &str, pointer: &str, found: &mut BitSet) -> tantivy::Result<()> {
        let ends = pointer.match_indices('/').map(|(at, _)| at).skip(1).chain([pointer.len()]);
        for end in ends {
            let term = self.ranker.environment.exists(kind, &pointer[..end], exists::REDACTED_KNOWN);
            let info = self.index.get_term_info(&Term::from_field_bytes(self.ranker.terms, &term))?;
            if let Some(info) = info {
                self.postings.for_each(&info, |document| found.remove(document))?;
            }
        }
        Ok(())
    }

    fn add_range(&mut self, range: &Scan, documents: &mut BitSet) -> tantivy::Result<()> {
        let Self { ranker, index, postings, .. } = self;
        range.for_each(index, |_, info| {
            let may_go_on = ranker.budget.take();
            Ok(may_go_on
                && postings.for_each(info, |document| {
                    documents.insert(document);
                })?)
        })
    }
}
