//! A window of an export over the shards of several processes.
//!
//! In: where rows are in the shards of each process. Out: the rows in order, read a few megabytes at a time. A process that goes
//! while its rows are read is waited for, or whoever takes its shards over.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use super::{Peers, Replies};
use crate::ask::{Inquiry, LocateRows, ReadRows, RowsRead};
use crate::page::Place;
use crate::search::{FoundContext, SearchRequest};
use crate::{Error, Result};

/// Locating passes over all matches, and reading follows it.
const DEADLINE: Duration = Duration::from_secs(30);
/// How long shards may be nowhere, and how often they are looked for: longer than it takes to take them over.
const ATTEMPTS: u32 = 60;
const ATTEMPT_WAIT: Duration = Duration::from_secs(1);

/// Rows that were located.
pub struct PeerWindow {
    peers: Arc<Peers>,
    request: SearchRequest,
    kinds: Vec<String>,
    /// Whether a row that has gone since fails the window.
    is_exact: bool,
    /// In order, each with its part.
    rows: Vec<(Place, usize)>,
    /// Partitions that were located together.
    parts: Vec<Vec<u32>>,
    pub total: Option<u64>,
    pub next: Option<Place>,
}

/// Rows of one part that were read and not passed on.
struct Reading {
    read: VecDeque<(Place, FoundContext)>,
    has_more: bool,
    after: Option<Place>,
    /// Located and not passed on.
    left: usize,
}

impl Peers {
    /// As [`crate::Indexer::export_window`], over all partitions. `is_exact`: whether exactly the rows that were located are
    /// wanted, or those of them that are there when they are read.
    ///
    /// # Errors
    /// `Unreached` if a partition is nowhere for a minute: an export is whole or fails.
    pub fn export_window(
        self: &Arc<Self>,
        request: &SearchRequest,
        kinds: Vec<String>,
        counts: bool,
        is_exact: bool,
    ) -> Result<PeerWindow> {
        let locate = LocateRows { request: request.clone(), kinds, counts };
        let replies = self.whole_replies(&locate, &self.table.partitions())?;
        let (mut rows, mut parts, mut total, mut has_more) = (Vec::new(), Vec::new(), Some(0), false);
        for reply in replies {
            total = total.zip(reply.answer.total).map(|(sum, some)| sum + some);
            has_more |= reply.answer.has_more;
            rows.extend(reply.answer.places.into_iter().map(|place| (place, parts.len())));
            parts.push(reply.partitions);
        }
        rows.sort_unstable();
        has_more |= rows.len() > request.limit;
        rows.truncate(request.limit);
        let next = if has_more { rows.last().map(|(place, _)| place.clone()) } else { None };
        let LocateRows { request, kinds, .. } = locate;
        Ok(PeerWindow { peers: Arc::clone(self), request, kinds, is_exact, rows, parts, total, next })
    }

    /// Replies about all of these partitions, waited for as long as an export may.
    fn whole_replies<I: Inquiry>(&self, inquiry: &I, partitions: &[u32]) -> Result<Vec<super::Reply<I::Answer>>> {
        Handle::current().block_on(async {
            let mut all = Replies::none(&[]);
            let mut wanted = partitions.to_vec();
            for _ in 0..ATTEMPTS {
                let Replies { replies, missing } = self.replies(inquiry, &wanted, DEADLINE).await?;
                // What is being made again would leave rows out, and nobody would know which.
                let (whole, lacking): (Vec<_>, Vec<_>) =
                    replies.into_iter().partition(|reply| !reply.is_behind && !reply.is_rebuilding);
                wanted = missing.into_iter().chain(lacking.into_iter().flat_map(|reply| reply.partitions)).collect();
                all.replies.extend(whole);
                if wanted.is_empty() {
                    return Ok(all.replies);
                }
                self.runtime.clock.wait(ATTEMPT_WAIT).await;
            }
            Err(self.unreached())
        })
    }
}

impl PeerWindow {
    /// Rows that were located.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Calls `visit` with each row, in order, until it fails.
    ///
    /// # Errors
    /// `Unreached`; `RowsGone` if a row went and exactly those are wanted; whatever `visit` returns.
    pub fn for_each<E: From<Error>>(
        &self,
        mut visit: impl FnMut(FoundContext) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let mut readings: Vec<Reading> = (0..self.parts.len())
            .map(|part| Reading {
                read: VecDeque::new(),
                has_more: true,
                after: self.request.after.clone(),
                left: self.rows.iter().filter(|(_, of)| *of == part).count(),
            })
            .collect();
        for (place, part) in &self.rows {
            let found = self.next_at(&mut readings[*part], *part, place)?;
            readings[*part].left -= 1;
            match found {
                Some(found) => visit(found)?,
                None if self.is_exact => return Err(Error::RowsGone.into()),
                None => {}
            }
        }
        Ok(())
    }

    /// The row at a place; None if it has gone. Rows before it have come since they were located, and wait for another export.
    fn next_at(&self, reading: &mut Reading, part: usize, place: &Place) -> Result<Option<FoundContext>> {
        loop {
            match reading.read.front() {
                Some((at, _)) if at > place => return Ok(None),
                Some(_) => {
                    let row = reading.read.pop_front();
                    if let Some((_, found)) = row.filter(|(at, _)| at == place) {
                        return Ok(Some(found));
                    }
                }
                None if !reading.has_more => return Ok(None),
                None => self.read_on(reading, part)?,
            }
        }
    }

    fn read_on(&self, reading: &mut Reading, part: usize) -> Result<()> {
        let request = SearchRequest { limit: reading.left, after: reading.after.clone(), ..self.request.clone() };
        let read = ReadRows { request, kinds: self.kinds.clone() };
        let replies = self.peers.whole_replies(&read, &self.parts[part])?;
        let RowsRead { rows, has_more } = read.merge(replies.into_iter().map(|reply| reply.answer).collect());
        reading.after = rows.last().map(|(place, _)| place.clone()).or(reading.after.take());
        reading.has_more = has_more;
        reading.read = rows.into();
        Ok(())
    }
}
