//! Orders of contexts that no column has.
//!
//! In: a search, and by what its matches are ordered. Out: what a search by a column gives: the first matches after a place, and
//! how many there are. Promise: a total order, whatever arrives meanwhile; a page holds its own records in memory and no more, and
//! one bit for each document.

mod best;
mod key;
mod matching;
mod walk;

pub use key::AttributeSort;
pub use matching::{BestMatch, Ranker, Ranks};

use serde::{Deserialize, Serialize};
use tantivy::schema::IndexRecordOption;

use crate::Result;
use crate::page::Place;
use crate::search::{Gathered, Located, Question};
use crate::shard::Shard;
use best::Best;
use walk::Walk;

const BASIC: IndexRecordOption = IndexRecordOption::Basic;

/// By what contexts are ordered, where it is none of [`crate::Sort`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ranking {
    Attribute(AttributeSort),
    BestMatch(BestMatch),
}

impl Ranking {
    /// Differs between different orders.
    pub fn name(&self) -> String {
        match self {
            Self::Attribute(by) => by.name(),
            Self::BestMatch(_) => "best match".to_owned(),
        }
    }

    /// Whether a place is one of this order.
    pub fn has_place(&self, place: &Place) -> bool {
        match self {
            Self::Attribute(by) => by.split(place).is_some(),
            Self::BestMatch(_) => true,
        }
    }
}

impl AttributeSort {
    /// # Errors
    /// `NotOpen`, `TooBroad`, `Index`, `Damaged`.
    pub(crate) fn locate(&self, shard: &Shard, question: &Question<'_>) -> Result<Located> {
        let Gathered { matches, reader, searcher } = question.gather(shard)?;
        let mut best = Best::new(question.request.limit + 1, question.request.after.as_ref());
        let walk = Walk {
            by: self,
            pointer: self.path.pointer(),
            environment: question.environment,
            kinds: &question.kinds,
            budget: &question.budget,
            reader: &reader,
            searcher: &searcher,
        };
        for (number, matches) in (0..).zip(&matches.segments).filter(|(_, matches)| matches.count > 0) {
            walk.visit(number, matches, &mut best)?;
        }
        let hits = best.into_hits();
        Ok(Located { hits, total: Some(matches.total), reader, searcher })
    }
}
