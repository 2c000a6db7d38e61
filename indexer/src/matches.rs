//! The documents of one shard that match a search, as one set for each segment.
//!
//! In: what a query finds. Out: [`Matches`], for whoever has to put them in an order that no column has, or counts what they
//! have in common. A set is a bit for each document: 1.2 MiB for ten million. Also here: the test of single records, where a
//! query finds more than what matches.

use std::sync::Arc;

use tantivy::collector::{Collector, SegmentCollector};
use tantivy::columnar::Column;
use tantivy::schema::Field;
use tantivy::store::StoreReader;
use tantivy::{BitSet, DocAddress, DocId, Score, SegmentReader, TantivyDocument, TantivyError};

use crate::index::{LAST_SEEN, record_of};
use crate::record::ContextRecord;

/// Tests a stored state and names the last-seen time to order it by, or None if it does not match.
pub type Examine = Arc<dyn Fn(&ContextRecord) -> Option<i64> + Send + Sync>;

/// Documents of one search that are tested one by one at most; each costs a read of the document store.
pub const EXAMINED_MAX: u64 = 200_000;

/// [`Examine`] over the records of one segment.
pub struct Examiner {
    examine: Examine,
    store: StoreReader,
    record_field: Field,
    examined: u64,
    examined_max: u64,
    failure: Option<TantivyError>,
}

impl Examiner {
    pub fn new(
        examine: &Examine,
        segment: &SegmentReader,
        record_field: Field,
        examined_max: u64,
    ) -> tantivy::Result<Self> {
        let store = segment.get_store_reader(16)?;
        Ok(Self { examine: Arc::clone(examine), store, record_field, examined: 0, examined_max, failure: None })
    }

    /// The last-seen time of a document that matches.
    pub fn examine(&mut self, document: DocId) -> Option<i64> {
        self.examined += 1;
        if self.examined > self.examined_max {
            return None;
        }
        match self.store.get::<TantivyDocument>(document) {
            Ok(stored) => {
                let record = record_of(&stored, self.record_field).ok()?;
                (self.examine)(&record)
            }
            Err(error) => {
                self.failure = Some(error);
                None
            }
        }
    }

    /// Whether there were more documents than may be examined.
    pub fn finish(self) -> tantivy::Result<bool> {
        match self.failure {
            Some(error) => Err(error),
            None => Ok(self.examined > self.examined_max),
        }
    }
}

/// The matches of one shard.
#[derive(Debug, Default)]
pub struct Matches {
    /// In the order of the segments.
    pub segments: Vec<SegmentMatches>,
    pub total: u64,
    /// Documents that had to be tested one by one were more than allowed.
    pub is_too_broad: bool,
}

/// The matches of one segment.
#[derive(Debug)]
pub struct SegmentMatches {
    pub documents: BitSet,
    pub count: u64,
}

impl SegmentMatches {
    /// The documents, ascending.
    pub fn iter(&self) -> impl Iterator<Item = DocId> {
        documents_of(&self.documents)
    }
}

/// The documents of a set, ascending.
pub fn documents_of(documents: &BitSet) -> impl Iterator<Item = DocId> {
    let bucket_from = |at| documents.first_non_empty_bucket(at).map(|at| (at, documents.tinyset(at)));
    let mut current = bucket_from(0);
    std::iter::from_fn(move || {
        loop {
            let (at, left) = current.as_mut()?;
            if let Some(bit) = left.pop_lowest() {
                return Some(*at * 64 + bit);
            }
            let next = *at + 1;
            current = bucket_from(next);
        }
    })
}

impl Matches {
    /// At most `count` of the matches, spread evenly over all of them; all, if they are no more.
    pub fn sample(&self, count: u64) -> Vec<DocAddress> {
        let count = count.min(self.total);
        let mut sampled = Vec::with_capacity(count as usize);
        let mut passed = 0;
        for (segment, matches) in (0..).zip(&self.segments) {
            for document in matches.iter() {
                // The next one that is wanted is this far from the first.
                let wanted = (sampled.len() as u64) * self.total / count.max(1);
                if passed >= wanted && (sampled.len() as u64) < count {
                    sampled.push(DocAddress::new(segment, document));
                }
                passed += 1;
            }
        }
        sampled
    }
}

/// Collects [`Matches`].
pub struct MatchCollector {
    /// Contexts last seen before do not count, microseconds.
    pub cutoff: i64,
    /// Set where the query alone does not decide.
    pub examine: Option<Examine>,
    /// Documents of a segment that are examined at most.
    pub examined_max: u64,
    pub record_field: Field,
}

pub struct SegmentCollecting {
    segment: u32,
    last_seen: Column<i64>,
    cutoff: i64,
    examiner: Option<Examiner>,
    matches: SegmentMatches,
}

impl Collector for MatchCollector {
    type Fruit = Matches;
    type Child = SegmentCollecting;

    fn for_segment(&self, segment: u32, reader: &SegmentReader) -> tantivy::Result<SegmentCollecting> {
        let examiner = |examine| Examiner::new(examine, reader, self.record_field, self.examined_max);
        Ok(SegmentCollecting {
            segment,
            last_seen: reader.fast_fields().i64(LAST_SEEN)?,
            cutoff: self.cutoff,
            examiner: self.examine.as_ref().map(examiner).transpose()?,
            matches: SegmentMatches { documents: BitSet::with_max_value(reader.max_doc()), count: 0 },
        })
    }

    fn requires_scoring(&self) -> bool {
        false
    }

    fn merge_fruits(&self, fruits: Vec<tantivy::Result<(u32, SegmentMatches, bool)>>) -> tantivy::Result<Matches> {
        let mut segments = fruits.into_iter().collect::<tantivy::Result<Vec<_>>>()?;
        segments.sort_unstable_by_key(|(segment, ..)| *segment);
        let mut all = Matches::default();
        for (_, matches, is_too_broad) in segments {
            all.total += matches.count;
            all.is_too_broad |= is_too_broad;
            all.segments.push(matches);
        }
        Ok(all)
    }
}

impl SegmentCollector for SegmentCollecting {
    type Fruit = tantivy::Result<(u32, SegmentMatches, bool)>;

    fn collect(&mut self, document: DocId, _: Score) {
        let is_kept = self.last_seen.first(document).is_some_and(|last_seen| last_seen >= self.cutoff);
        let is_match = is_kept && self.examiner.as_mut().is_none_or(|examiner| examiner.examine(document).is_some());
        if is_match {
            self.matches.documents.insert(document);
            self.matches.count += 1;
        }
    }

    fn harvest(self) -> Self::Fruit {
        let is_too_broad = self.examiner.map(Examiner::finish).transpose()?.unwrap_or(false);
        Ok((self.segment, self.matches, is_too_broad))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(sets: &[&[DocId]]) -> Matches {
        let mut all = Matches::default();
        for set in sets {
            let mut documents = BitSet::with_max_value(1000);
            set.iter().for_each(|document| {
                documents.insert(*document);
            });
            all.total += set.len() as u64;
            all.segments.push(SegmentMatches { documents, count: set.len() as u64 });
        }
        all
    }

    #[test]
    fn documents_come_in_order_over_all_words_of_the_set() {
        let set = [0, 1, 63, 64, 127, 500, 999];
        assert_eq!(matches(&[&set]).segments[0].iter().collect::<Vec<_>>(), set);
        assert_eq!(matches(&[&[]]).segments[0].iter().count(), 0);
    }

    #[test]
    fn samples_are_spread_over_all_matches() {
        let many: Vec<DocId> = (0..1000).collect();
        let all = matches(&[&many, &[], &[5, 7]]);
        assert_eq!(all.sample(5000).len(), 1002);
        let few = all.sample(10);
        assert_eq!(few.len(), 10);
        assert!(few.windows(2).all(|pair| pair[1].doc_id - pair[0].doc_id >= 100), "{few:?}");
        assert!(matches(&[&[]]).sample(10).is_empty());
    }
}
