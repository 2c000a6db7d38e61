//! All matches of a filter, in the default order, a window at a time.
//!
//! In: a checked filter and a place. Out: the contexts after the place, read one by one, so that memory does not depend on
//! how many there are or how large they are. A window locates its rows in one pass over all matches and reads records after
//! that; between windows nothing is held, as a place names a record and not a state of the index.
//! Promise: a context that is there from the first window to the last is told once. No budget cuts an export short: how many
//! run at once is bounded instead, by the API.
//! Holding one view of the index from the first row to the last was the other choice: it would keep the files of all merges
//! meanwhile, and an export could not be taken up again by another connection.

pub mod columns;
pub mod rows;

use std::sync::Arc;

use tantivy::{DocAddress, Searcher};

use crate::ask::Ask as _;
use crate::index::ShardReader;
use crate::page::{Place, Sort};
use crate::search::{Effort, FoundContext, SearchRequest};
use crate::shard::Shard;
use crate::{Indexer, Result};

/// Rows located at a time. Locating them costs a pass over all matches, some tens of nanoseconds each; reading a record costs
/// some microseconds.
pub const WINDOW_ROWS: usize = 20_000;

/// Rows that were located, and where they are read.
pub struct Window<'a> {
    question: crate::search::Question<'a>,
    rows: Vec<Row>,
    readers: Vec<(Arc<Shard>, ShardReader, Searcher)>,
    /// All matches, if they were counted.
    pub total: Option<u64>,
    /// Place of the last row, if there are more.
    pub next: Option<Place>,
}

struct Row {
    place: Place,
    shard: usize,
    address: DocAddress,
}

impl Indexer {
    /// Locates the first `request.limit` matches after the place. Blocks on files. `counts`: whether all matches are counted,
    /// where that takes no reading of records.
    ///
    /// # Errors
    /// As [`Self::search`], but never `TooBroad`.
    pub fn export_window<'a>(&self, request: &'a SearchRequest, counts: bool) -> Result<Window<'a>> {
        let kinds = self.kinds_for(&request.environment, &request.filter)?;
        self.window(&self.held(), request, &kinds, counts)
    }

    /// [`Self::export_window`] over these shards. `kinds`: those that are stored in any shard, as far as the filter depends on
    /// them.
    pub(crate) fn window<'a>(
        &self,
        shards: &[Arc<Shard>],
        request: &'a SearchRequest,
        kinds: &[String],
        counts: bool,
    ) -> Result<Window<'a>> {
        assert!(request.sort == Sort::KindKey, "exports have the default order");
        let question = self.question(request, kinds.into(), None, Effort::Whole { counts });
        let (mut rows, mut readers, mut total) = (Vec::new(), Vec::new(), Some(0));
        for (number, shard) in shards.iter().enumerate() {
            let located = shard.guarded("an export", || self.hits_of(shard, &question))?;
            total = total.zip(located.total).map(|(sum, of_shard)| sum + of_shard);
            let row = |hit: crate::page::Hit| Row { place: hit.place, shard: number, address: hit.address };
            rows.extend(located.hits.into_iter().map(row));
            readers.push((Arc::clone(shard), located.reader, located.searcher));
        }
        rows.sort_unstable_by(|left, right| left.place.cmp(&right.place));
        let has_more = rows.len() > request.limit;
        rows.truncate(request.limit);
        let next = if has_more { rows.last().map(|row| row.place.clone()) } else { None };
        Ok(Window { question, rows, readers, total, next })
    }
}

impl Window<'_> {
    /// Rows that were located.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Calls `visit` with each row, in order, until it fails.
    ///
    /// # Errors
    /// `Index` and `Damaged`; whatever `visit` returns.
    pub fn for_each<E: From<crate::Error>>(
        &self,
        mut visit: impl FnMut(FoundContext) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        (0..self.len()).try_for_each(|row| visit(self.read(row)?))
    }

    /// Where the rows are, in order.
    pub(crate) fn places(&self) -> impl Iterator<Item = &Place> {
        self.rows.iter().map(|row| &row.place)
    }

    /// The row of this number.
    pub(crate) fn read(&self, row: usize) -> Result<FoundContext> {
        let row = &self.rows[row];
        let (shard, reader, searcher) = &self.readers[row.shard];
        let record = shard.guarded("an export", || reader.record(searcher, row.address))?;
        Ok(self.question.found(record))
    }
}
