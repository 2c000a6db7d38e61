//! Look-ups within the contexts that a filter finds: the same names and values, with counts of those contexts alone.
//!
//! In: a filter beside what a look-up has. Out: names or values with their weights, and whether there may be more.
//! Of few matches the records are read, which is exact. Of many the posting lists are held against the set of matches: lists
//! are counted as long as the blocks last, and then estimated by blocks spread over them. Where an attribute has more values
//! than may be read, the records of a sample are read, and all weights are estimates.
//! Promise: a name or value that is told is one of a match. Costs are bounded whatever the filter finds: the filter by the
//! budget of searches, the look-up by the constants below.

use std::cell::Cell;
use std::sync::Arc;

use events::Environment;
use tantivy::postings::{BlockSegmentPostings, TermInfo};
use tantivy::schema::IndexRecordOption;
use tantivy::{DocId, InvertedIndexReader};

use super::values::{Tally, Wanted};
use super::{Names, WantedNames, Weight, is_listed, names_of_segment};
use crate::filter::Filter;
use crate::matches::SegmentMatches;
use crate::page::Sort;
use crate::record::ContextRecord;
use crate::search::{Effort, Gathered, SearchRequest};
use crate::shard::Shard;
use crate::terms::{for_each_attribute, for_each_held_back};
use crate::{Error, Indexer, Result};

/// Matches whose records are read rather than posting lists: reading one costs some ten microseconds.
const FEW_MATCHES: u64 = 256;
/// Records of a sample. Of what a hundredth of all have, twenty are among them.
const SAMPLED_RECORDS: u64 = 2_000;
/// Terms that are read of the values of one attribute. Each value that is found takes some memory.
const VALUES_READ_MAX: usize = 50_000;
/// Blocks of posting lists that one look-up reads to count, of 128 documents each.
const BLOCKS_MAX: u64 = 100_000;
/// Blocks from which the matches of a longer list are estimated.
const SAMPLED_BLOCKS: u32 = 64;

/// What was looked up.
#[derive(Debug)]
pub struct Within<T> {
    pub found: T,
    /// There may be more, as not everything could be read.
    pub is_partial: bool,
}

impl<T> Within<T> {
    pub fn whole(found: T) -> Self {
        Self { found, is_partial: false }
    }

    pub fn partial_if(self, is_partial: bool) -> Self {
        Self { is_partial: self.is_partial || is_partial, ..self }
    }
}

/// The matches of some shards.
pub(crate) struct Ground {
    shards: Vec<(Arc<Shard>, Gathered)>,
    total: u64,
    blocks: Cell<u64>,
    is_partial: bool,
}

impl Indexer {
    /// What matches in these shards. `kinds`: those that are stored in any shard, as far as the filter depends on them.
    ///
    /// # Errors
    /// `NotOpen`, `TooBroad`, `Index`.
    pub(crate) fn ground(
        &self,
        shards: &[Arc<Shard>],
        environment: &Environment,
        filter: &Filter,
        kinds: &[String],
    ) -> Result<Ground> {
        let (environment, filter) = (environment.clone(), filter.clone());
        let request = SearchRequest { environment, filter, sort: Sort::KindKey, limit: 0, after: None };
        let question = self.question(&request, kinds.into(), None, Effort::Bounded);
        let mut gathered = Vec::with_capacity(shards.len());
        for shard in shards {
            gathered.push((Arc::clone(shard), shard.guarded("a look-up", || question.gather(shard))?));
        }
        let total = gathered.iter().map(|(_, gathered)| gathered.matches.total).sum();
        let is_partial = question.is_partial();
        Ok(Ground { shards: gathered, total, blocks: Cell::new(BLOCKS_MAX), is_partial })
    }
}

impl Ground {
    /// Calls `visit` with the postings of each segment that has matches, and the counting of them.
    fn for_each_segment(
        &self,
        visit: &mut dyn FnMut(&InvertedIndexReader, &SegmentMatches) -> tantivy::Result<()>,
    ) -> Result<()> {
        for (shard, Gathered { matches, reader, searcher }) in &self.shards {
            shard.guarded("a look-up", || {
                let matching = searcher.segment_readers().iter().zip(&matches.segments);
                for (segment, matches) in matching.filter(|(_, matches)| matches.count > 0) {
                    let index = segment.inverted_index(reader.fields().terms);
                    let index = index.map_err(Error::index("look up within matches"))?;
                    visit(&index, matches).map_err(Error::index("look up within matches"))?;
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Attribute names among the matches.
    pub fn names(&self, wanted: &WantedNames<'_>) -> Result<Within<Names>> {
        let mut names = Names::new();
        if self.total <= FEW_MATCHES {
            self.for_each_record(FEW_MATCHES, &mut |record| add_names(&mut names, wanted, record))?;
            return Ok(Within { found: names, is_partial: self.is_partial });
        }
        let mut is_partial = self.is_partial;
        self.for_each_segment(&mut |index, matches| {
            let weigh = &mut |info: &TermInfo| self.weigh(index, info, matches);
            is_partial |= !names_of_segment(index, wanted, &mut names, weigh)?;
            Ok(())
        })?;
        Ok(Within { found: names, is_partial })
    }

    /// The values that the matches have, for each of `wanted`.
    pub fn values<'a>(&self, wanted: &[Wanted<'a>]) -> Result<Within<Vec<Tally<'a>>>> {
        let new_tallies = || wanted.iter().map(|wanted| Tally::new(*wanted)).collect::<Vec<_>>();
        let mut budget = VALUES_READ_MAX;
        let mut tallies = new_tallies();
        let mut is_whole = self.total > FEW_MATCHES;
        for tally in &mut tallies {
            is_whole = is_whole && self.add_values(tally, &mut budget)?;
        }
        let mut is_partial = self.is_partial;
        if !is_whole {
            tallies = new_tallies();
            is_partial |= self.add_sample(wanted, &mut tallies)?;
        }
        Ok(Within { found: tallies, is_partial })
    }

    /// Adds the values of all segments. False: there were more than may be read.
    fn add_values(&self, tally: &mut Tally<'_>, budget: &mut usize) -> Result<bool> {
        let mut is_whole = true;
        self.for_each_segment(&mut |index, matches| {
            if is_whole {
                let weigh = &mut |info: &TermInfo| self.weigh(index, info, matches);
                is_whole = tally.add_weighed(index, budget, weigh)?;
            }
            Ok(())
        })?;
        Ok(is_whole)
    }

    /// Adds the values of some matches, or of all if they are few enough. Whether there may be more values.
    fn add_sample(&self, wanted: &[Wanted<'_>], tallies: &mut [Tally<'_>]) -> Result<bool> {
        let mut read = 0;
        self.for_each_record(SAMPLED_RECORDS, &mut |record| {
            read += 1;
            if let Some(tally) = wanted.iter().position(|wanted| wanted.kind == record.kind).map(|at| &mut tallies[at])
            {
                tally.add_context(&record.parsed());
            }
        })?;
        let is_sample = read < self.total;
        if is_sample {
            tallies.iter_mut().for_each(|tally| tally.scale(read, self.total));
        }
        Ok(is_sample)
    }

    /// Calls `visit` with the records of at most `count` matches, spread evenly over all.
    fn for_each_record(&self, count: u64, visit: &mut dyn FnMut(&ContextRecord)) -> Result<()> {
        for (shard, Gathered { matches, reader, searcher }) in &self.shards {
            // A shard has its share of the sample, and at least one if it has a match.
            let share = (matches.total * count).div_ceil(self.total.max(1));
            for address in matches.sample(share) {
                visit(&shard.guarded("a look-up", || reader.record(searcher, address))?);
            }
        }
        Ok(())
    }

    /// How many documents of a posting list match.
    fn weigh(&self, index: &InvertedIndexReader, info: &TermInfo, matches: &SegmentMatches) -> tantivy::Result<Weight> {
        let mut postings = index.read_block_postings_from_terminfo(info, IndexRecordOption::Basic)?;
        let blocks = u64::from(info.doc_freq).div_ceil(128);
        if blocks <= u64::from(SAMPLED_BLOCKS) || blocks <= self.blocks.get() {
            self.blocks.set(self.blocks.get().saturating_sub(blocks));
            return Ok(Weight::exact(counted(&mut postings, matches)));
        }
        Ok(Weight::estimate(estimated(&mut postings, matches)))
    }
}

fn among(documents: &[DocId], matches: &SegmentMatches) -> u64 {
    documents.iter().filter(|document| matches.documents.contains(**document)).count() as u64
}

fn counted(postings: &mut BlockSegmentPostings, matches: &SegmentMatches) -> u64 {
    let mut found = 0;
    while !postings.docs().is_empty() {
        found += among(postings.docs(), matches);
        postings.advance();
    }
    found
}

/// Of a list much longer than [`SAMPLED_BLOCKS`] blocks: blocks that are spread evenly over it stand for all of them.
fn estimated(postings: &mut BlockSegmentPostings, matches: &SegmentMatches) -> u64 {
    let (all, documents) = (u64::from(postings.doc_freq()), matches.documents.max_value());
    let (mut seen, mut found, mut last) = (0, 0, None);
    for step in 0..SAMPLED_BLOCKS {
        let target = (u64::from(documents) * u64::from(step) / u64::from(SAMPLED_BLOCKS)) as DocId;
        postings.seek(target);
        let first = postings.docs().first().copied();
        if first.is_none() {
            break;
        }
        if first != last {
            seen += postings.docs().len() as u64;
            found += among(postings.docs(), matches);
            last = first;
        }
    }
    all * found / u64::max(seen, 1)
}

/// Adds the names of one context.
fn add_names(names: &mut Names, wanted: &WantedNames<'_>, record: &ContextRecord) {
    if wanted.kind.is_some_and(|kind| kind != record.kind) {
        return;
    }
    let context = record.parsed();
    let mut add = |pointer: &str, how| {
        if is_listed(how) && wanted.accepts(pointer) {
            names.entry((record.kind.clone(), pointer.to_owned())).or_default().add(how, Weight::exact(1));
        }
    };
    for_each_attribute(&context, &mut |pointer, _, how| add(pointer, how));
    for_each_held_back(&context, &mut add);
}
