//! The most frequent values within a range of the dictionary of one segment, and a memory of them.
//!
//! In: a segment and the start of a range. Out: a [`RangeTop`]. Reading a range costs time for each of its terms, of which
//! an attribute may have millions; a segment never changes but for the documents that are deleted from it, so what was read
//! is remembered. After deletions only the remembered values are counted again, until half of them are gone.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::Mutex;
use tantivy::index::SegmentId;
use tantivy::postings::TermInfo;
use tantivy::{InvertedIndexReader, Opstamp, SegmentReader};

use super::{Weight, living};
use crate::scan::{Accept, Scan};
use crate::terms::{Tag, text_end};

/// Values kept of each range: some more than anybody may ask for.
pub const TOP_VALUES: usize = 128;
/// Smaller ranges are read again sooner than they are found.
const REMEMBERED_TERMS_MIN: usize = 512;
/// What is cut short by the budget before this many terms is read again with the next look-up, which has its whole budget
/// for it as what was read before is remembered. What is cut later stays cut: of so many values a prefix must choose.
const CUT_TERMS_MIN: usize = 100_000;
/// Memory of all that is remembered.
const REMEMBERED_BYTES_MAX: usize = 8 << 20;

/// One value of a segment.
#[derive(Clone, Debug)]
pub struct TopValue {
    /// Its term from behind the pointer.
    pub term: Box<[u8]>,
    info: TermInfo,
    /// Living documents that have it.
    pub living: Weight,
}

/// The values of a range that most living documents have; of those with equally many, the first by their text.
#[derive(Clone, Debug, Default)]
pub struct RangeTop {
    /// In the order of their terms.
    pub values: Vec<TopValue>,
    /// Whether these are all values of the range.
    pub is_complete: bool,
    /// Whether the range has values that are elements of arrays, and values that are whole.
    pub has_elements: bool,
    pub has_wholes: bool,
    terms: usize,
    is_cut: bool,
    deletes: Option<Opstamp>,
}

/// What orders values of equal weight: the text as it stood.
pub(super) fn shown_text(term: &[u8]) -> Option<(&[u8], Tag)> {
    let tag_at = text_end(term)?;
    let tag = Tag(*term.get(tag_at)?);
    let original = &term[tag_at + 1..];
    // The end of the text is two bytes.
    let text = if original.is_empty() { &term[..tag_at - 2] } else { original };
    (tag.of_type() != Tag::LONG_TEXT).then_some((text, tag))
}

/// A value in the heap, where the worst is on top.
struct Candidate(TopValue);

impl Candidate {
    fn rank(&self) -> (std::cmp::Reverse<u64>, &[u8]) {
        (std::cmp::Reverse(self.0.living.contexts), shown_text(&self.0.term).map_or(&[], |(text, _)| text))
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.rank() == other.rank()
    }
}

impl Eq for Candidate {}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl RangeTop {
    /// Reads the range that begins with `start`. `pointer_end`: where the pointer ends in its terms. `budget`: terms that
    /// may be read, and what is left of it afterwards.
    pub fn read(
        segment: &SegmentReader,
        index: &InvertedIndexReader,
        start: &[u8],
        pointer_end: usize,
        accepts: &dyn Fn(&[u8]) -> bool,
        budget: &mut usize,
    ) -> tantivy::Result<Self> {
        let mut top = Self { is_complete: true, deletes: segment.delete_opstamp(), ..Self::default() };
        let mut best: BinaryHeap<Candidate> = BinaryHeap::with_capacity(TOP_VALUES + 1);
        Scan::prefix(start.to_vec(), Accept::All).for_each(index, |term, info| {
            if *budget == 0 {
                (top.is_complete, top.is_cut) = (false, true);
                return Ok(false);
            }
            *budget -= 1;
            top.terms += 1;
            let term = &term[pointer_end..];
            let Some((text, tag)) = shown_text(term).filter(|_| accepts(term)) else { return Ok(true) };
            let is_element = tag.of_type() != tag;
            top.has_elements |= is_element;
            top.has_wholes |= !is_element;
            if best.len() >= TOP_VALUES
                && let Some(worst) = best.peek()
                && (std::cmp::Reverse(u64::from(info.doc_freq)), text) >= worst.rank()
            {
                top.is_complete = false;
                return Ok(true);
            }
            let living = living(segment, index, info)?;
            if living.contexts > 0 {
                best.push(Candidate(TopValue { term: term.into(), info: info.clone(), living }));
            }
            if best.len() > TOP_VALUES {
                best.pop();
                top.is_complete = false;
            }
            Ok(true)
        })?;
        top.values = best.into_iter().map(|candidate| candidate.0).collect();
        top.values.sort_unstable_by(|left, right| left.term.cmp(&right.term));
        Ok(top)
    }

    /// Counts the values again after deletions. None: too many are gone to stand for the range.
    fn recount(&self, segment: &SegmentReader, index: &InvertedIndexReader) -> tantivy::Result<Option<Self>> {
        let mut top = self.clone();
        for value in &mut top.values {
            value.living = living(segment, index, &value.info)?;
        }
        top.values.retain(|value| value.living.contexts > 0);
        top.deletes = segment.delete_opstamp();
        Ok((top.is_complete || top.values.len() * 2 >= TOP_VALUES).then_some(top))
    }

    /// Living documents of the value with this term, if it is among these.
    pub fn find(&self, term: &[u8]) -> Option<Weight> {
        let place = self.values.binary_search_by(|value| (*value.term).cmp(term)).ok()?;
        Some(self.values[place].living)
    }

    fn bytes(&self) -> usize {
        size_of::<Self>() + self.values.iter().map(|value| size_of::<TopValue>() + value.term.len()).sum::<usize>()
    }
}

type Range = (SegmentId, Vec<u8>);

/// Ranges read lately. Two generations, of which the older is forgotten when the younger is full.
#[derive(Debug, Default)]
pub struct RememberedTops(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<Range, Arc<RangeTop>>,
    old: HashMap<Range, Arc<RangeTop>>,
    young_bytes: usize,
}

impl RememberedTops {
    /// [`RangeTop::read`], or what it gave before.
    pub fn get(
        &self,
        segment: &SegmentReader,
        index: &InvertedIndexReader,
        start: &[u8],
        pointer_end: usize,
        budget: &mut usize,
    ) -> tantivy::Result<Arc<RangeTop>> {
        let range = (segment.segment_id(), start.to_vec());
        if let Some(known) = self.find(&range) {
            if known.deletes == segment.delete_opstamp() {
                return Ok(known);
            }
            if let Some(recounted) = known.recount(segment, index)? {
                let recounted = Arc::new(recounted);
                self.remember(range, Arc::clone(&recounted));
                return Ok(recounted);
            }
        }
        let top = Arc::new(RangeTop::read(segment, index, start, pointer_end, &|_| true, budget)?);
        let enough = if top.is_cut { CUT_TERMS_MIN } else { REMEMBERED_TERMS_MIN };
        if top.terms >= enough {
            self.remember(range, Arc::clone(&top));
        }
        Ok(top)
    }

    fn find(&self, range: &Range) -> Option<Arc<RangeTop>> {
        let mut generations = self.0.lock();
        if let Some(known) = generations.young.get(range) {
            return Some(Arc::clone(known));
        }
        let known = generations.old.remove(range)?;
        generations.insert(range.clone(), Arc::clone(&known));
        Some(known)
    }

    fn remember(&self, range: Range, top: Arc<RangeTop>) {
        self.0.lock().insert(range, top);
    }
}

impl Generations {
    fn insert(&mut self, range: Range, top: Arc<RangeTop>) {
        let bytes = range.1.len() + top.bytes();
        if self.young_bytes + bytes > REMEMBERED_BYTES_MAX / 2 {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        self.young_bytes += bytes;
        if let Some(before) = self.young.insert(range, top) {
            self.young_bytes -= before.bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_ranges_is_bounded() {
        let mut generations = Generations::default();
        let value = TopValue { term: vec![7; 600].into(), info: TermInfo::default(), living: Weight::exact(1) };
        let top = Arc::new(RangeTop { values: vec![value; TOP_VALUES], ..RangeTop::default() });
        let segment = SegmentId::generate_random();
        for number in 0..10_000_u32 {
            generations.insert((segment, number.to_be_bytes().to_vec()), Arc::clone(&top));
            generations.insert((segment, vec![0]), Arc::clone(&top));
        }
        let ranges = generations.young.len() + generations.old.len();
        assert!(ranges * top.bytes() <= REMEMBERED_BYTES_MAX, "{ranges} ranges of {} bytes", top.bytes());
        assert!(generations.young.contains_key(&(segment, vec![0])));
    }
}
