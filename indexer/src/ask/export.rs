//! Rows of an export: where they are, and what they hold.
//!
//! Which rows there are is asked first, as an export says how many before the first one leaves; a place takes some tens of
//! bytes. Rows are read after that, as much at a time as is held in memory without harm.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Inquiry;
use crate::page::Place;
use crate::search::{FoundContext, SearchRequest};
use crate::shard::Shard;
use crate::{Indexer, Result};

/// Bytes of contexts that one answer holds, but for the last of them.
const ROW_BYTES_MAX: usize = 4 << 20;

/// Where the first matches after a place are, in the default order.
#[derive(Debug, Serialize, Deserialize)]
pub struct LocateRows {
    pub request: SearchRequest,
    /// All that are stored, sorted, as far as the filter depends on them.
    pub kinds: Vec<String>,
    /// Whether all matches are counted, where that takes no reading of records.
    pub counts: bool,
}

/// Places in order, at most as many as were asked for.
#[derive(Debug, Serialize, Deserialize)]
pub struct Located {
    pub places: Vec<Place>,
    pub has_more: bool,
    pub total: Option<u64>,
}

impl Inquiry for LocateRows {
    const NAME: &'static str = "locate-rows";
    type Answer = Located;

    fn answer(&self, indexer: &Indexer, shards: &[Arc<Shard>]) -> Result<Located> {
        let window = indexer.window(shards, &self.request, &self.kinds, self.counts)?;
        let places = window.places().cloned().collect();
        Ok(Located { places, has_more: window.next.is_some(), total: window.total })
    }

    fn merge(&self, answers: Vec<Located>) -> Located {
        let mut all = Located { places: Vec::new(), has_more: false, total: Some(0) };
        for located in answers {
            all.places.extend(located.places);
            all.has_more |= located.has_more;
            all.total = all.total.zip(located.total).map(|(sum, some)| sum + some);
        }
        all.places.sort_unstable();
        all.has_more |= all.places.len() > self.request.limit;
        all.places.truncate(self.request.limit);
        all
    }
}

/// The first matches after a place, in the default order.
#[derive(Debug, Serialize, Deserialize)]
pub struct ReadRows {
    pub request: SearchRequest,
    /// As of [`LocateRows`].
    pub kinds: Vec<String>,
}

/// Rows in order.
#[derive(Debug, Serialize, Deserialize)]
pub struct RowsRead {
    pub rows: Vec<(Place, FoundContext)>,
    pub has_more: bool,
}

impl Inquiry for ReadRows {
    const NAME: &'static str = "read-rows";
    type Answer = RowsRead;

    fn answer(&self, indexer: &Indexer, shards: &[Arc<Shard>]) -> Result<RowsRead> {
        let window = indexer.window(shards, &self.request, &self.kinds, false)?;
        let (mut rows, mut bytes) = (Vec::new(), 0);
        for (number, place) in window.places().enumerate() {
            if bytes >= ROW_BYTES_MAX {
                return Ok(RowsRead { rows, has_more: true });
            }
            let found = window.read(number)?;
            bytes += place.order.len() + found.context.get().len();
            rows.push((place.clone(), found));
        }
        Ok(RowsRead { rows, has_more: window.next.is_some() })
    }

    /// What comes after the end of one that has more may lack rows of it.
    fn merge(&self, answers: Vec<RowsRead>) -> RowsRead {
        let end = |read: &RowsRead| read.rows.last().filter(|_| read.has_more).map(|(place, _)| place.clone());
        let end = answers.iter().filter_map(end).min();
        let mut rows: Vec<_> = answers.into_iter().flat_map(|read| read.rows).collect();
        rows.sort_by(|(left, _), (right, _)| left.cmp(right));
        if let Some(end) = &end {
            rows.retain(|(place, _)| place <= end);
        }
        let has_more = end.is_some() || rows.len() > self.request.limit;
        rows.truncate(self.request.limit);
        RowsRead { rows, has_more }
    }
}
