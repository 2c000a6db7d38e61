//! Keeps the contexts of each environment within a bound: those seen longest ago go first.
//!
//! In: the last commit. Out: documents removed with the next. Each shard holds its share of the bound, as contexts are spread
//! evenly by their hash; contexts and combinations are bounded alike, each by themselves.
//! What is beyond goes within seconds, a little more than that at once, so that an environment at its bound is not counted
//! through at each look. A context that goes comes back with its next sighting; its row leaves the table of states when that is
//! next written as a whole.
//! Counting each context as it comes was the other choice: counts would have to live in commits, and every mistake in them
//! would stay.

use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

use super::Surroundings;
use super::open_writer::OpenWriter;
use crate::Result;

/// How often it is looked whether an environment is beyond its bound.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// One in so many goes along with what is beyond.
const SLACK: u64 = 100;
/// States that go at once: each is read, and remembered until then.
const AT_ONCE_MAX: u64 = 50_000;

impl OpenWriter {
    pub(super) fn keep_bound_if_due(&mut self, surroundings: &Surroundings) -> Result<()> {
        let Some(share) = surroundings.budget.environment_contexts else { return Ok(()) };
        let now = surroundings.runtime.clock.instant();
        if self.reads_again_since.is_some() || self.last_bound.is_some_and(|at| now - at < LOOK_INTERVAL) {
            return Ok(());
        }
        self.last_bound = Some(now);
        let reader = self.writer.reader().clone();
        let searcher = reader.searcher();
        for environment in reader.environments(&searcher)? {
            for term in [environment.listed(), environment.instance()] {
                let excess = reader.living_beyond(&searcher, &term, share)?;
                if excess == 0 {
                    continue;
                }
                let wanted = (excess + share / SLACK).min(AT_ONCE_MAX);
                if wanted < excess {
                    // The rest right after the next commit.
                    self.last_bound = None;
                }
                for address in reader.oldest_with(&searcher, &term, wanted as usize)? {
                    let identity = reader.record(&searcher, address)?.identity(&environment);
                    // Seen just now.
                    if self.pending.contains_key(&identity) {
                        continue;
                    }
                    self.seen.forget(xxh3_64(&identity));
                    self.writer.remove_with(&identity);
                    surroundings.metrics.evicted_contexts.inc();
                    self.dirty = true;
                }
            }
        }
        Ok(())
    }
}
