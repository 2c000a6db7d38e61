//! The first matches of a segment by the value of one attribute: a walk through its values in order.
//!
//! In: the set of matches, the dictionary. Out: hits for [`Best`]. The dictionary has texts in order, so that the walk begins at
//! the place and ends when the page is full; numbers and truth values stand among them as texts, so that all numbers are read,
//! but the posting lists of those alone that come before what is there. Where few matches have the attribute at all, their
//! records are read instead: a walk might pass millions of values that none of them has.
//! Promise: no more is read than the budget has, and memory does not depend on how many match.
//! A column for each attribute was the other choice: there may be 100,000 of them, and each would cost every context some bytes.

use std::ops::Bound;

use tantivy::columnar::BytesColumn;
use tantivy::postings::TermInfo;
use tantivy::schema::Field;
use tantivy::{BitSet, DocAddress, DocId, InvertedIndexReader, Searcher, Term};

use super::best::Best;
use super::key::{AttributeSort, Class, ValueKey};
use crate::index::{ORDER, ShardReader};
use crate::matches::{SegmentMatches, documents_of};
use crate::page::first_ordinal;
use crate::scan::{Budget, Postings, prefix_end};
use crate::terms::{EnvironmentPrefix, Tag, exists, family, split_text};
use crate::{Error, Result};

/// How many matches of one kind in one segment have their records read, rather than the values of the attribute walked through,
/// if `contexts` have a value at all. A record costs what some 70 values do, and a walk for a page of 20 passes about
/// `contexts * 20 / matches` values, so both cost the same at a root of `contexts`.
fn few(contexts: u32) -> usize {
    f64::from(contexts / 3).sqrt() as usize
}

const FEW_MIN: usize = 8;
const FEW_MAX: usize = 512;

/// What all segments of a search have in common.
pub struct Walk<'a> {
    pub by: &'a AttributeSort,
    pub pointer: String,
    pub environment: EnvironmentPrefix,
    /// All kinds of the environment.
    pub kinds: &'a [String],
    pub budget: &'a Budget,
    pub reader: &'a ShardReader,
    pub searcher: &'a Searcher,
}

/// One segment.
struct Segment<'a> {
    number: u32,
    terms: Field,
    index: &'a InvertedIndexReader,
    matches: &'a SegmentMatches,
    postings: Postings<'a>,
    group: Group,
}

/// Matches of a segment that have one value.
struct Group {
    /// The default order, which decides among them.
    order: Option<BytesColumn>,
    /// Of the matches with the value of the place, ordinals before are on earlier pages.
    first_after: u64,
    /// With their ordinals, no more than a few times what a page needs.
    documents: Vec<(u64, DocId)>,
}

impl Walk<'_> {
    /// Offers the first matches of a segment. `segment`: its number.
    pub fn visit(&self, segment: u32, matches: &SegmentMatches, best: &mut Best<'_>) -> Result<()> {
        let failed = || Error::index("order contexts by an attribute");
        let terms = self.reader.fields().terms;
        let reader = self.searcher.segment_reader(segment);
        let index = reader.inverted_index(terms).map_err(failed())?;
        let order = reader.fast_fields().bytes(ORDER).map_err(failed())?;
        let first_after = match (best.after().and_then(|after| self.by.split(after)), &order) {
            (Some((_, _, rest)), Some(order)) => first_ordinal(order, Bound::Excluded(rest)).map_err(failed())?,
            _ => 0,
        };
        let group = Group { order, first_after, documents: Vec::new() };
        let postings = Postings::new(&index, self.budget);
        let mut segment = Segment { number: segment, terms, index: &index, matches, postings, group };
        let mut walked = Vec::new();
        for kind in self.kinds {
            let few = self.scalars(kind, &mut segment).map_err(failed())?;
            match few {
                Some(few) => self.by_records(&segment, &few, best)?,
                None => walked.push(kind.as_str()),
            }
        }
        for (rank, class) in (0..).zip(self.by.classes()) {
            if !best.is_out_of_reach(rank) {
                self.class(class, &walked, &mut segment, best).map_err(failed())?;
            }
        }
        Ok(())
    }

    fn class(
        &self,
        class: Class,
        walked: &[&str],
        segment: &mut Segment<'_>,
        best: &mut Best<'_>,
    ) -> tantivy::Result<()> {
        match class {
            Class::Bool => walked.iter().try_for_each(|kind| self.bools(kind, segment, best)),
            Class::Number => walked.iter().try_for_each(|kind| self.numbers(kind, segment, best)),
            Class::Text => walked.iter().try_for_each(|kind| self.texts(kind, segment, best)),
            Class::List => self.lists(segment, best),
            Class::Absent => self.absent(segment, best),
        }
    }

    /// Matches of a kind that have a single value, if they are few; None: they are many.
    fn scalars(&self, kind: &str, segment: &mut Segment<'_>) -> tantivy::Result<Option<Vec<DocId>>> {
        let mut infos = Vec::new();
        for how in exists::SCALARS {
            infos.extend(segment.info(&self.environment.exists(kind, &self.pointer, how))?);
        }
        let few_max = few(infos.iter().map(|info| info.doc_freq).sum()).clamp(FEW_MIN, FEW_MAX);
        let mut few = Vec::new();
        for info in infos {
            let mut postings = segment.index.read_block_postings_from_terminfo(&info, super::BASIC)?;
            while !postings.docs().is_empty() && self.budget.take() {
                few.extend(postings.docs().iter().filter(|document| segment.matches.documents.contains(**document)));
                if few.len() > few_max {
                    return Ok(None);
                }
                postings.advance();
            }
        }
        Ok(Some(few))
    }

    fn by_records(&self, segment: &Segment<'_>, documents: &[DocId], best: &mut Best<'_>) -> Result<()> {
        for document in documents {
            let address = DocAddress::new(segment.number, *document);
            let record = self.reader.record(self.searcher, address)?;
            let key = self.by.of(self.by.path.get(&record.parsed()));
            best.offer(key.place(&crate::index::order_bytes(&record.kind, &record.key)), address);
        }
        Ok(())
    }

    fn bools(&self, kind: &str, segment: &mut Segment<'_>, best: &mut Best<'_>) -> tantivy::Result<()> {
        for value in [false, true] {
            let term = self.environment.value(kind, &self.pointer, &value.into(), false).unwrap_or_default();
            let key = self.by.bool(value);
            if let Some(info) = segment.info(&term)?
                && !best.is_behind(&key)
                && !best.is_beyond(&key)
            {
                segment.add(&info, &key, best)?;
            }
        }
        Ok(())
    }

    /// Numbers are read in the order of their texts, so all of them are.
    fn numbers(&self, kind: &str, segment: &mut Segment<'_>, best: &mut Best<'_>) -> tantivy::Result<()> {
        let start = self.environment.attribute(family::VALUE, kind, &self.pointer).0;
        for (first, end) in [(b'-', b'-' + 1), (b'0', b'9' + 1)] {
            let (from, to) = ([start.as_slice(), &[first]].concat(), [start.as_slice(), &[end]].concat());
            let mut stream = segment.index.terms().range().ge(&from).lt(&to).into_stream()?;
            while stream.advance() && self.budget.take() {
                let Some((text, rest)) = split_text(&stream.key()[start.len()..]) else { continue };
                if rest.first() != Some(&Tag::NUMBER.0) {
                    continue;
                }
                let key = std::str::from_utf8(text).ok().and_then(|text| self.by.number(text));
                if let Some(key) = key.filter(|key| !best.is_behind(key) && !best.is_beyond(key)) {
                    segment.add(stream.value(), &key, best)?;
                }
            }
        }
        Ok(())
    }

    fn texts(&self, kind: &str, segment: &mut Segment<'_>, best: &mut Best<'_>) -> tantivy::Result<()> {
        let start = self.environment.attribute(family::VALUE, kind, &self.pointer).0;
        let reached = best.after().and_then(|after| match self.by.split(after)? {
            (Class::Text, key, _) => self.by.open_text_of(key),
            _ => None,
        });
        let reached = reached.map(|text| [start.as_slice(), &text].concat());
        let (from, end) = match reached {
            // A text ends with 00 01 or, if it was cut, with 00 02.
            Some(reached) if self.by.is_descending => (start.clone(), Some([reached.as_slice(), &[0, 3]].concat())),
            reached => (reached.unwrap_or_else(|| start.clone()), prefix_end(&start)),
        };
        let range = || {
            let range = segment.index.terms().range().ge(&from);
            end.iter().fold(range, |range, end| range.lt(end))
        };
        // The end of the way down: a stream that goes backward does not end at its lower bound, but looks for another term
        // within its bounds as far as the dictionary reaches.
        let mut last = None;
        let mut stream = if self.by.is_descending {
            let mut upward = range().into_stream()?;
            if !upward.advance() {
                return Ok(());
            }
            last = Some(upward.key().to_vec());
            range().backward().into_stream()?
        } else {
            range().into_stream()?
        };
        let mut is_last = false;
        while !is_last && stream.advance() && self.budget.take() {
            is_last = last.as_deref() == Some(stream.key());
            let Some((text, rest)) = split_text(&stream.key()[start.len()..]) else { continue };
            let key = self.by.open_text(text);
            if best.is_beyond(&key) {
                break;
            }
            let is_text = rest.first().is_some_and(|tag| matches!(Tag(*tag), Tag::TEXT | Tag::LONG_TEXT));
            if is_text && !best.is_behind(&key) {
                segment.add(stream.value(), &key, best)?;
            }
        }
        Ok(())
    }

    fn lists(&self, segment: &mut Segment<'_>, best: &mut Best<'_>) -> tantivy::Result<()> {
        let key = self.by.without_value(Class::List);
        for kind in self.kinds {
            for how in exists::LISTS {
                if let Some(info) = segment.info(&self.environment.exists(kind, &self.pointer, how))? {
                    segment.add(&info, &key, best)?;
                }
            }
        }
        Ok(())
    }

    fn absent(&self, segment: &mut Segment<'_>, best: &mut Best<'_>) -> tantivy::Result<()> {
        let mut absent = BitSet::clone(&segment.matches.documents);
        for kind in self.kinds {
            for how in exists::ALL {
                if let Some(info) = segment.info(&self.environment.exists(kind, &self.pointer, how))?
                    && !segment.postings.for_each(&info, |document| absent.remove(document))?
                {
                    return Ok(());
                }
            }
        }
        let key = self.by.without_value(Class::Absent);
        let is_at_place = segment.is_at_place(&key, best);
        documents_of(&absent).for_each(|document| segment.group.take(document, is_at_place, best.count()));
        segment.offer(&key, best)
    }
}

impl Segment<'_> {
    fn info(&self, term: &[u8]) -> tantivy::Result<Option<TermInfo>> {
        Ok(self.index.get_term_info(&Term::from_field_bytes(self.terms, term))?)
    }

    /// Whether the page may begin among the contexts with this value.
    fn is_at_place(&self, key: &ValueKey, best: &Best<'_>) -> bool {
        best.after().is_some_and(|after| key.is_before(after).is_none())
    }

    /// Offers the matches of a posting list, all of which have one value.
    fn add(&mut self, info: &TermInfo, key: &ValueKey, best: &mut Best<'_>) -> tantivy::Result<()> {
        let is_at_place = self.is_at_place(key, best);
        let Self { postings, matches, group, .. } = self;
        postings.for_each(info, |document| {
            if matches.documents.contains(document) {
                group.take(document, is_at_place, best.count());
            }
        })?;
        self.offer(key, best)
    }

    fn offer(&mut self, key: &ValueKey, best: &mut Best<'_>) -> tantivy::Result<()> {
        let Group { order, documents, .. } = &mut self.group;
        documents.sort_unstable();
        for (ordinal, document) in documents.drain(..) {
            let mut bytes = Vec::new();
            if let Some(order) = order {
                order.ord_to_bytes(ordinal, &mut bytes)?;
            }
            if !best.offer(key.place(&bytes), DocAddress::new(self.number, document)) {
                break;
            }
        }
        Ok(())
    }
}

impl Group {
    /// Adds a match. No more than the first are kept.
    fn take(&mut self, document: DocId, is_at_place: bool, count: usize) {
        let order = self.order.as_ref();
        let ordinal = order.and_then(|order| order.ords().first(document)).unwrap_or_default();
        if is_at_place && ordinal < self.first_after {
            return;
        }
        self.documents.push((ordinal, document));
        if self.documents.len() >= count * 4 {
            self.documents.select_nth_unstable(count);
            self.documents.truncate(count);
        }
    }
}
