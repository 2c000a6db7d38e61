//! Holds what a search finds against what clients told.
//!
//! The newest state of a context is the one seen last of all that are in the log. Events of the same millisecond have no
//! order, so any of theirs is right. A strict look also takes what clients were told is accepted: it finds sightings that
//! ingest left out although they tell something new. Several ingest processes do that for as long as one remembers what
//! another has replaced (`ingest.sighting_refresh`), and so may one that gets older events after newer ones; hence it is
//! an option.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{Array, AsArray};
use arrow::datatypes::TimestampMicrosecondType;
use eventlog::frame;
use events::LogBatch;

use crate::client::Payload;
use crate::log::SimulatedLog;
use crate::world::World;

/// Context by environment and key.
type Key = (String, String);

/// The newest time at which anything was told, and all that was told then.
#[derive(Default)]
struct Newest {
    at_millis: i64,
    states: BTreeSet<i64>,
}

impl Newest {
    fn tell(&mut self, at_millis: i64, state: i64) {
        if at_millis > self.at_millis {
            *self = Self { at_millis, states: BTreeSet::new() };
        }
        if at_millis == self.at_millis {
            self.states.insert(state);
        }
    }
}

/// `strict`: whether what clients were told counts beside what is in the log.
pub fn check(world: &World, strict: bool, log: &SimulatedLog, payloads: &[Payload], found: &BTreeMap<Key, i64>) {
    let mut due: BTreeMap<Key, Newest> = BTreeMap::new();
    for payload in payloads.iter().filter(|payload| strict && payload.acknowledged > 0) {
        for told in &payload.sightings {
            let key = (payload.environment.to_owned(), format!("user/user-{}", told.user));
            due.entry(key).or_default().tell(told.at, told.state);
        }
    }
    for (_, bytes) in log.book().into_values().flatten() {
        if let Ok(LogBatch::Sightings(batch)) = frame::decode(&bytes) {
            let rows = batch.sightings();
            let text = |number: usize| rows.column(number).as_string::<i32>();
            let seen_at = rows.column(6).as_primitive::<TimestampMicrosecondType>();
            for row in (0..rows.num_rows()).filter(|row| text(5).is_valid(*row)) {
                let context: serde_json::Value = serde_json::from_str(text(5).value(row)).unwrap_or_default();
                let key = (text(1).value(row).to_owned(), format!("{}/{}", text(2).value(row), text(3).value(row)));
                let state = context["state"].as_i64().unwrap_or(-1);
                due.entry(key).or_default().tell(seen_at.value(row) / 1_000, state);
            }
        }
    }
    for (key, newest) in &due {
        match found.get(key) {
            Some(state) if newest.states.contains(state) => {}
            found => world
                .violated(format!("context {key:?} is found as {found:?}, its newest state is {:?}", newest.states)),
        }
    }
    for key in found.keys().filter(|key| !due.contains_key(*key)) {
        world.violated(format!("context {key:?} is found, and nobody told of it"));
    }
}
