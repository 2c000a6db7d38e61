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

use super::values::{Tally, Values, Wanted};
use super::{Names, WantedNames, Weight, is_listed, names_of_segment};
use crate::attribute::AttributePath;
use crate::filter::Filter;
use crate::matches::SegmentMatches;
use crate::page::Sort;
use crate::record::ContextRecord;
use crate::search::{Effort, Gathered, SearchRequest};
use crate::shard::Shard;
use crate::terms::{EnvironmentPrefix, for_each_attribute, for_each_held_back};
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
}

/// The matches of all shards.
struct Ground {
    shards: Vec<(Arc<Shard>, Gathered)>,
    total: u64,
    blocks: Cell<u64>,
    is_partial: bool,
}

impl Indexer {
    /// Attribute names among the contexts that match, as [`Self::attribute_names`].
    ///
    /// # Errors
    /// As [`Self::search`].
    pub fn attribute_names_within(
        &self,
        environment: &Environment,
        filter: &Filter,
        kind: Option<&str>,
        prefixes: &[String],
    ) -> Result<Within<Names>> {
        let _timer = self.metrics.lookup_seconds.start_timer();
        let ground = self.ground(environment, filter)?;
        let wanted = WantedNames::new(EnvironmentPrefix::new(environment), kind, prefixes);
        if ground.total > FEW_MATCHES {
            return ground.names(&wanted);
        }
        let mut names = Names::new();
        ground.for_each_record(FEW_MATCHES, &mut |record| add_names(&mut names, &wanted, record))?;
        Ok(Within { found: names, is_partial: ground.is_partial })
    }

    /// The values that most of the contexts that match have, as [`Self::attribute_values`].
    ///
    /// # Errors
    /// As [`Self::search`].
    pub fn attribute_values_within(
        &self,
        environment: &Environment,
        filter: &Filter,
        kind: Option<&str>,
        path: &AttributePath,
        prefixes: &[String],
        limit: usize,
    ) -> Result<Within<Vec<(String, Values)>>> {
        let _timer = self.metrics.lookup_seconds.start_timer();
        let ground = self.ground(environment, filter)?;
        let environment = EnvironmentPrefix::new(environment);
        let kinds = match kind {
            Some(kind) => vec![kind.to_owned()],
            None => self.kinds(environment)?,
        };
        let pointer = path.pointer();
        let tally = |kind| Tally::new(Wanted { environment, kind, pointer: &pointer, prefixes, limit });
        let mut budget = VALUES_READ_MAX;
        let mut tallies: Vec<_> = kinds.iter().map(|kind| tally(kind.as_str())).collect();
        let mut is_whole = ground.total > FEW_MATCHES;
        for tally in &mut tallies {
            is_whole = is_whole && ground.add_values(tally, &mut budget)?;
        }
        let mut is_partial = ground.is_partial;
        if !is_whole {
            tallies = kinds.iter().map(|kind| tally(kind.as_str())).collect();
            is_partial |= ground.add_sample(&kinds, &mut tallies)?;
        }
        let found = kinds.iter().zip(&mut tallies).map(|(kind, tally)| (kind.clone(), tally.values()));
        Ok(Within { found: found.filter(|(_, values)| !values.is_empty()).collect(), is_partial })
    }

    fn ground(&self, environment: &Environment, filter: &Filter) -> Result<Ground> {
        let (environment, filter) = (environment.clone(), filter.clone());
        let request = SearchRequest { environment, filter, sort: Sort::KindKey, limit: 0, after: None };
        let question = self.question(&request, None, Effort::Bounded)?;
        let mut shards = Vec::new();
        for shard in self.held() {
            let gathered = shard.guarded("a look-up", || question.gather(&shard))?;
            shards.push((shard, gathered));
        }
        let total = shards.iter().map(|(_, gathered)| gathered.matches.total).sum();
        let is_partial = question.is_partial();
        Ok(Ground { shards, total, blocks: Cell::new(BLOCKS_MAX), is_partial })
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

    fn names(&self, wanted: &WantedNames<'_>) -> Result<Within<Names>> {
        let mut names = Names::new();
        let mut is_partial = self.is_partial;
        self.for_each_segment(&mut |index, matches| {
            let weigh = &mut |info: &TermInfo| self.weigh(index, info, matches);
            is_partial |= !names_of_segment(index, wanted, &mut names, weigh)?;
            Ok(())
        })?;
        Ok(Within { found: names, is_partial })
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
    fn add_sample(&self, kinds: &[String], tallies: &mut [Tally<'_>]) -> Result<bool> {
        let mut read = 0;
        self.for_each_record(SAMPLED_RECORDS, &mut |record| {
            read += 1;
            if let Some(tally) = kinds.iter().position(|kind| *kind == record.kind).map(|at| &mut tallies[at]) {
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
