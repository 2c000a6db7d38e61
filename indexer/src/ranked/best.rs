//! The first contexts after a place, of one shard, in an order that no column has.

use std::collections::BinaryHeap;

use tantivy::DocAddress;

use super::key::ValueKey;
use crate::page::{Hit, Place};

/// A hit in the heap, where the last in order is on top.
#[derive(PartialEq, Eq)]
struct Ranked(Hit);

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.place.cmp(&other.0.place).then_with(|| self.0.address.cmp(&other.0.address))
    }
}

/// Never more than `count` hits.
pub struct Best<'a> {
    count: usize,
    after: Option<&'a Place>,
    heap: BinaryHeap<Ranked>,
}

impl<'a> Best<'a> {
    pub fn new(count: usize, after: Option<&'a Place>) -> Self {
        Self { count, after, heap: BinaryHeap::with_capacity(count + 1) }
    }

    pub fn count(&self) -> usize {
        self.count
    }

    pub fn after(&self) -> Option<&'a Place> {
        self.after
    }

    fn worst(&self) -> Option<&Place> {
        self.heap.peek().filter(|_| self.heap.len() >= self.count).map(|ranked| &ranked.0.place)
    }

    /// Whether all contexts with this value are on earlier pages.
    pub fn is_behind(&self, key: &ValueKey) -> bool {
        self.after.is_some_and(|after| key.is_before(after) == Some(true))
    }

    /// Whether all contexts with this value come after those that are here.
    pub fn is_beyond(&self, key: &ValueKey) -> bool {
        self.worst().is_some_and(|worst| key.is_before(worst) == Some(false))
    }

    /// Whether all contexts of a class come after those that are here, or are on earlier pages. `rank`: of the class.
    pub fn is_out_of_reach(&self, rank: i64) -> bool {
        self.worst().is_some_and(|worst| worst.time_key < rank) || self.after.is_some_and(|after| after.time_key > rank)
    }

    /// Takes a hit, if it is after the place. False: it comes after those that are here, as all that follow it do.
    pub fn offer(&mut self, place: Place, address: DocAddress) -> bool {
        if self.after.is_some_and(|after| place <= *after) {
            return true;
        }
        if self.worst().is_some_and(|worst| place >= *worst) {
            return false;
        }
        self.heap.push(Ranked(Hit { place, address }));
        if self.heap.len() > self.count {
            self.heap.pop();
        }
        true
    }

    /// In order.
    pub fn into_hits(self) -> Vec<Hit> {
        self.heap.into_sorted_vec().into_iter().map(|ranked| ranked.0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(number: u8) -> Place {
        Place { time_key: i64::from(number / 10), order: vec![number] }
    }

    #[test]
    fn the_first_after_a_place_are_kept_whatever_comes_when() {
        let after = place(12);
        let mut best = Best::new(3, Some(&after));
        for number in [40, 12, 33, 5, 13, 31, 99, 20] {
            best.offer(place(number), DocAddress::new(0, 0));
        }
        assert!(best.is_out_of_reach(0) && best.is_out_of_reach(4) && !best.is_out_of_reach(2));
        let key = |number: u8| ValueKey { rank: i64::from(number / 10), bytes: vec![number] };
        assert!(best.is_behind(&key(11)) && !best.is_behind(&key(12)));
        assert!(best.is_beyond(&key(32)) && !best.is_beyond(&key(31)));
        assert!(!best.offer(place(32), DocAddress::new(0, 0)));
        let numbers: Vec<_> = best.into_hits().into_iter().map(|hit| hit.place.order[0]).collect();
        assert_eq!(numbers, [13, 20, 31]);
    }
}
