//! The first matches after a place, of one shard: Tantivy collector, and what a place is.
//!
//! Contexts are ordered by a time key and then by kind and key, bytewise; the default order has the same time key for all.
//! A [`Place`] names the last record of a page by what it is ordered by, never by a count, so that arrivals neither
//! repeat nor hide others.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::ops::Bound;

use serde::{Deserialize, Serialize};
use tantivy::collector::{Collector, SegmentCollector};
use tantivy::columnar::{BytesColumn, Column};
use tantivy::schema::Field;
use tantivy::{DocAddress, DocId, Score, SegmentReader};

use crate::index::{ALONE_AT, LAST_SEEN, ORDER};
use crate::matches::{Examine, Examiner};
use crate::ranked::{Ranker, Ranks};
use crate::wire;

/// The orders that a client may ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sort {
    /// Kind, then key.
    #[default]
    KindKey,
    /// `ts`: oldest last seen first.
    OldestFirst,
    /// `-ts`.
    NewestFirst,
    /// The default order backwards.
    KeyDescending,
}

impl Sort {
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "ts" => Some(Self::OldestFirst),
            "-ts" => Some(Self::NewestFirst),
            _ => None,
        }
    }

    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::KindKey | Self::KeyDescending => None,
            Self::OldestFirst => Some("ts"),
            Self::NewestFirst => Some("-ts"),
        }
    }

    /// A number that ascends in this order.
    pub fn time_key(self, last_seen: i64) -> i64 {
        match self {
            Self::KindKey | Self::KeyDescending => 0,
            Self::OldestFirst => last_seen,
            Self::NewestFirst => !last_seen,
        }
    }

    /// Bytes that ascend in this order, from those of the default order.
    pub fn order_key(self, order: &[u8]) -> Vec<u8> {
        match self {
            // With an end that comes after all bytes, so that what is longer comes first.
            Self::KeyDescending => order.iter().map(|byte| !byte).chain([u8::MAX]).collect(),
            _ => order.to_vec(),
        }
    }

    /// What [`Self::order_key`] was made from.
    fn order_of(self, order_key: &[u8]) -> Vec<u8> {
        match (self, order_key.split_last()) {
            (Self::KeyDescending, Some((_, inverted))) => inverted.iter().map(|byte| !byte).collect(),
            _ => order_key.to_vec(),
        }
    }

    /// A number that ascends in this order, from that of the default order within a segment.
    fn rank(self, ordinal: u64) -> i64 {
        let ordinal = i64::try_from(ordinal).unwrap_or(i64::MAX);
        if self == Self::KeyDescending { -ordinal } else { ordinal }
    }
}

/// A place in an order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// Or what comes first in an order that is not by time.
    pub time_key: i64,
    #[serde(with = "wire::bytes")]
    pub order: Vec<u8>,
}

/// A match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    pub place: Place,
    pub address: DocAddress,
}

/// The matches of one shard.
#[derive(Debug, Default)]
pub struct ShardHits {
    /// In order, at most as many as asked for.
    pub hits: Vec<Hit>,
    /// All matches, before and after the place too, if they are counted.
    pub total: u64,
    /// Documents that had to be tested one by one were more than allowed.
    pub is_too_broad: bool,
}

/// Which time of a document counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Time {
    /// When the context was last seen.
    LastSeen,
    /// When the instance was last seen: of a context that is one, when it was last seen alone.
    OfInstance,
}

/// Collects a page.
pub struct PageCollector {
    pub sort: Sort,
    /// Set where something else than time comes before the default order.
    pub ranker: Option<Ranker>,
    pub time: Time,
    pub after: Option<Place>,
    /// Whether the page may begin with the record at `after` itself.
    pub with_after: bool,
    pub count: usize,
    /// Contexts last seen before do not count, microseconds.
    pub cutoff: i64,
    /// Set where the query alone does not decide.
    pub examine: Option<Examine>,
    /// Documents of a segment that are examined at most.
    pub examined_max: u64,
    /// Whether all matches are counted. If not, what cannot be on the page is not examined; only for orders that do not depend
    /// on what an examination says.
    pub counts: bool,
    pub record_field: Field,
}

/// Order within a segment, where ordinals stand for the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct SegmentHit {
    time_key: i64,
    rank: i64,
    document: DocId,
}

pub struct SegmentPage {
    segment: u32,
    sort: Sort,
    ranks: Option<Ranks>,
    last_seen: Column<i64>,
    /// Where it says nothing, `last_seen` holds.
    instance_seen: Option<Column<i64>>,
    order: Option<BytesColumn>,
    /// Hits before are on earlier pages.
    after: Option<(i64, i64)>,
    count: usize,
    cutoff: i64,
    examiner: Option<Examiner>,
    counts: bool,
    /// The worst of the best is on top.
    best: BinaryHeap<SegmentHit>,
    total: u64,
}

impl Collector for PageCollector {
    type Fruit = ShardHits;
    type Child = SegmentPage;

    fn for_segment(&self, segment: u32, reader: &SegmentReader) -> tantivy::Result<SegmentPage> {
        let order = reader.fast_fields().bytes(ORDER)?;
        let after = match (&self.after, &order) {
            (Some(place), Some(order)) => {
                let place_order = self.sort.order_of(&place.order);
                let is_descending = self.sort == Sort::KeyDescending;
                let bound = match self.with_after || is_descending {
                    true => Bound::Included(place_order.as_slice()),
                    false => Bound::Excluded(place_order.as_slice()),
                };
                let first = first_ordinal(order, bound)?;
                // Backwards, the first that is wanted is the one before.
                Some((place.time_key, self.sort.rank(first) + i64::from(is_descending)))
            }
            _ => None,
        };
        let examiner = |examine| Examiner::new(examine, reader, self.record_field, self.examined_max);
        Ok(SegmentPage {
            segment,
            sort: self.sort,
            ranks: self.ranker.as_ref().map(|ranker| ranker.of_segment(reader)).transpose()?,
            last_seen: reader.fast_fields().i64(LAST_SEEN)?,
            instance_seen: match self.time {
                Time::LastSeen => None,
                Time::OfInstance => Some(reader.fast_fields().i64(ALONE_AT)?),
            },
            order,
            after,
            count: self.count,
            cutoff: self.cutoff,
            examiner: self.examine.as_ref().map(examiner).transpose()?,
            counts: self.counts,
            best: BinaryHeap::with_capacity(self.count + 1),
            total: 0,
        })
    }

    fn requires_scoring(&self) -> bool {
        false
    }

    fn merge_fruits(&self, segments: Vec<tantivy::Result<ShardHits>>) -> tantivy::Result<ShardHits> {
        let mut merged = ShardHits::default();
        for segment in segments {
            let segment = segment?;
            merged.hits.extend(segment.hits);
            merged.total += segment.total;
            merged.is_too_broad |= segment.is_too_broad;
        }
        merged.hits.sort_unstable_by(|left, right| left.place.cmp(&right.place));
        merged.hits.truncate(self.count);
        Ok(merged)
    }
}

/// The first ordinal whose bytes are within the bound.
pub fn first_ordinal(order: &BytesColumn, from: Bound<&[u8]>) -> tantivy::Result<u64> {
    let (first, _) = order.dictionary().term_bounds_to_ord(from, Bound::Unbounded)?;
    Ok(match first {
        Bound::Included(ordinal) => ordinal,
        Bound::Excluded(ordinal) => ordinal + 1,
        Bound::Unbounded => 0,
    })
}

impl SegmentPage {
    fn time_key(&self, document: DocId, last_seen: i64) -> i64 {
        match &self.ranks {
            Some(ranks) => ranks.of(document),
            None => self.sort.time_key(last_seen),
        }
    }

    /// Whether a match comes after the place, and before the last of the best so far.
    fn is_on_page(&self, hit: &SegmentHit) -> bool {
        let is_before_page = self.after.is_some_and(|(time_key, first)| match hit.time_key.cmp(&time_key) {
            Ordering::Less => true,
            Ordering::Equal => hit.rank < first,
            Ordering::Greater => false,
        });
        !is_before_page && (self.best.len() < self.count || self.best.peek().is_some_and(|worst| hit < worst))
    }
}

impl SegmentCollector for SegmentPage {
    type Fruit = tantivy::Result<ShardHits>;

    fn collect(&mut self, document: DocId, _: Score) {
        let of_instance = self.instance_seen.as_ref().and_then(|column| column.first(document));
        let Some(mut last_seen) = of_instance.or_else(|| self.last_seen.first(document)) else { return };
        if last_seen < self.cutoff {
            return;
        }
        let ordinal = self.order.as_ref().and_then(|order| order.ords().first(document)).unwrap_or_default();
        let rank = self.sort.rank(ordinal);
        let hit = SegmentHit { time_key: self.time_key(document, last_seen), rank, document };
        if !self.counts && !self.is_on_page(&hit) {
            return;
        }
        if let Some(examiner) = &mut self.examiner {
            match examiner.examine(document) {
                Some(of_version) => last_seen = of_version,
                None => return,
            }
        }
        self.total += 1;
        let hit = SegmentHit { time_key: self.time_key(document, last_seen), ..hit };
        if self.is_on_page(&hit) {
            if self.best.len() == self.count {
                self.best.pop();
            }
            self.best.push(hit);
        }
    }

    fn harvest(self) -> tantivy::Result<ShardHits> {
        let is_too_broad = self.examiner.map(Examiner::finish).transpose()?.unwrap_or(false);
        let mut hits = Vec::with_capacity(self.best.len());
        for hit in self.best {
            let mut order = Vec::new();
            if let Some(column) = &self.order {
                column.ord_to_bytes(hit.rank.unsigned_abs(), &mut order)?;
            }
            let place = Place { time_key: hit.time_key, order: self.sort.order_key(&order) };
            hits.push(Hit { place, address: DocAddress::new(self.segment, hit.document) });
        }
        Ok(ShardHits { hits, total: self.total, is_too_broad })
    }
}
