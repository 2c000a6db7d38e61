//! The index over a log in memory, through its API: one program, as each costs half a minute of linking.

#![allow(clippy::unwrap_used)]

mod common;

mod best_match;
mod bound;
mod check;
mod erase;
mod export;
mod holding;
mod instances;
mod peers;
mod properties;
mod recovery;
mod renewed;
mod search;
mod snapshots;
mod snapshots_random;
mod sorted;
mod speed;
mod table;
mod users;
mod values;
mod within;
mod words;
