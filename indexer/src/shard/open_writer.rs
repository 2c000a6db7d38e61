//! The writer of an open shard: rows in, changed states pending, commits out.
//!
//! In: fetched records. Out: commits that hold states and offset together.
//! Promise: what is pending stays within its budget, as reaching it commits at once; a state is looked up where it is
//! cheapest: among what was seen lately, then what is pending, then the columns, and only then the stored record.
//! What is read again of offsets that the index covers brings no context back: one that is not there was taken away.
//! Not here: what to do after a failure. All of this is then dropped and read again.

use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use arrow::datatypes::TimestampMicrosecondType;
use eventlog::{FetchedRecord, frame};
use events::{ContextState, Environment, LogBatch};
use hashbrown::HashMap;
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

use super::{IDLE_WAIT, Surroundings};
use crate::Result;
use crate::config::Config;
use crate::fold::{Seen, SeenLately, Sighting, after_first_part, deleted, deleted_alone, fold};
use crate::index::{FORMAT, Position, ShardWriter};
use crate::metrics::Metrics;
use crate::record::{ContextRecord, INSTANCE_KIND};
use crate::shard::erase::Erasure;
use crate::table::TableBatch;
use crate::terms::EnvironmentPrefix;

/// Where only unchanged contexts were read, the offset is saved this often, so that the log can forget them.
const OFFSET_COMMIT_INTERVAL: Duration = Duration::from_secs(10);
/// How often what was taken over from the table becomes searchable.
const PARTIAL_COMMIT_INTERVAL: Duration = Duration::from_secs(2);
/// How often old contexts are looked for.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(3600);

/// A shard that is open for writing.
pub(super) struct OpenWriter {
    pub writer: ShardWriter,
    topic_id: String,
    /// First offset not folded yet; None: the first that the log holds.
    pub next: Option<i64>,
    /// First offset that the index did not cover when it was opened; what is read again before it changes nothing.
    pub covered: i64,
    /// Some context is erased: what comes late must be held off.
    pub(super) has_erasures: bool,
    /// Something was erased of which later sightings may have been folded before: they are to be read again, from this
    /// time on (microseconds), and until then nothing may be committed that covers them.
    pub(super) reads_again_since: Option<i64>,
    pub received_at: i64,
    /// What the last commit covers.
    pub committed: Option<Position>,
    pub(super) pending: HashMap<Vec<u8>, Pending>,
    pending_bytes: usize,
    pub(super) seen: SeenLately,
    /// Few: those of the configuration.
    environments: Vec<(Environment, EnvironmentPrefix)>,
    /// Set when something waits for a commit.
    pub dirty: bool,
    /// Set when the offset alone has moved.
    moved: bool,
    last_commit: Option<Instant>,
    last_expiry: Option<Instant>,
    /// When it was last looked whether an environment is beyond its bound.
    pub(super) last_bound: Option<Instant>,
}

pub(super) struct Pending {
    pub environment: EnvironmentPrefix,
    pub record: ContextRecord,
    pub is_stored: bool,
}

impl OpenWriter {
    /// `next`: first offset to fold. `received_at`: newest time covered so far.
    pub fn new(
        writer: ShardWriter,
        topic_id: String,
        next: Option<i64>,
        received_at: i64,
        seen_entries: usize,
    ) -> Self {
        Self {
            has_erasures: writer.reader().has_erasures(),
            reads_again_since: None,
            writer,
            topic_id,
            next,
            covered: next.unwrap_or(0),
            received_at,
            committed: None,
            pending: HashMap::new(),
            pending_bytes: 0,
            seen: SeenLately::new(seen_entries),
            environments: Vec::new(),
            dirty: false,
            moved: false,
            last_commit: None,
            last_expiry: None,
            last_bound: None,
        }
    }

    /// How long to wait for records before something else is due.
    pub fn wait_max(&self, config: &Config) -> Duration {
        if !self.dirty {
            return IDLE_WAIT;
        }
        let since = self.last_commit.map_or(Duration::MAX, |at| at.elapsed());
        config.commit_interval.get().saturating_sub(since)
    }

    pub fn take(&mut self, fetched: &[FetchedRecord], surroundings: &Surroundings) -> Result<()> {
        for record in fetched {
            match frame::decode(&record.frame) {
                Ok(LogBatch::Sightings(batch)) => {
                    self.fold_rows(batch.sightings(), record.offset.0 < self.covered, surroundings)?;
                }
                Ok(_) => {
                    tracing::error!(offset = record.offset.0, "record of another topic among the contexts passed over")
                }
                Err(error) => {
                    surroundings.metrics.corrupt_records.inc();
                    tracing::error!(offset = record.offset.0, %error, "unreadable record passed over");
                }
            }
            self.next = Some(record.offset.0 + 1);
            self.moved = true;
            if self.reads_again_since.is_some() {
                return Ok(());
            }
            if self.pending_bytes >= surroundings.budget.pending_bytes {
                self.commit(surroundings)?;
            }
        }
        Ok(())
    }

    /// `is_covered`: the index has had these rows before.
    fn fold_rows(&mut self, rows: &RecordBatch, is_covered: bool, surroundings: &Surroundings) -> Result<()> {
        let text = |column: usize| rows.column(column).as_string::<i32>();
        let time = |column: usize| rows.column(column).as_primitive::<TimestampMicrosecondType>();
        let (projects, environments, kinds, keys) = (text(0), text(1), text(2), text(3));
        let (anonymous, contexts) = (rows.column(4).as_boolean(), text(5));
        let (seen_at, received_at, applications) = (time(6), time(7), text(8));
        let (instances, kinds_left_out, wishes) = (text(9), text(10), rows.column(11).as_boolean());
        let erased = rows.column(12).as_boolean();
        let mut erasures = Vec::new();
        fn text_or_none(column: &StringArray, row: usize) -> &str {
            if column.is_valid(row) { column.value(row) } else { "" }
        }
        let refresh = surroundings.config.refresh_interval.get().as_micros() as i64;
        surroundings.metrics.sightings.inc_by(rows.num_rows() as u64);
        for row in 0..rows.num_rows() {
            let (names, environment) = self.environment(projects.value(row), environments.value(row));
            let (kind, key, instance_key) = (kinds.value(row), keys.value(row), text_or_none(instances, row));
            let anonymous_kinds = text_or_none(kinds_left_out, row);
            // Each part of a combination is sighted, but only the shard of the first keeps the combination.
            let others = after_first_part(instance_key, kind, key).filter(|_| !anonymous.value(row));
            let is_alone = others == Some("") && anonymous_kinds.is_empty();
            let sighting = Sighting {
                environment,
                names: &names,
                kind,
                key,
                anonymous: anonymous.value(row),
                context: contexts.is_valid(row).then(|| contexts.value(row)),
                seen_at: seen_at.value(row),
                received_at: received_at.value(row),
                application: text_or_none(applications, row),
                is_alone,
                anonymous_kinds: "",
            };
            self.received_at = self.received_at.max(received_at.value(row));
            if erased.is_valid(row) && erased.value(row) {
                erasures.push(Erasure::new(&sighting));
                continue;
            }
            if wishes.is_valid(row) && wishes.value(row) {
                self.forget(&sighting, instance_key)?;
                continue;
            }
            self.see(&sighting, refresh, is_covered, &surroundings.metrics)?;
            if others.is_some() && !is_alone {
                let instance =
                    Sighting { kind: INSTANCE_KIND, key: instance_key, context: None, anonymous_kinds, ..sighting };
                self.see(&instance, refresh, is_covered, &surroundings.metrics)?;
            }
        }
        // They come in records of their own, so that the order among rows is no matter.
        if erasures.is_empty() { Ok(()) } else { self.erase(erasures, surroundings) }
    }

    /// Forgets what `wish` names, as far as it was not seen later.
    fn forget(&mut self, wish: &Sighting<'_>, instance_key: &str) -> Result<()> {
        let (environment, at) = (wish.environment, wish.seen_at);
        let context = environment.identity(wish.kind, wish.key);
        if instance_key.is_empty() {
            return self.change(environment, context, |record| deleted(record, at));
        }
        let instance = environment.identity(INSTANCE_KIND, instance_key);
        self.change(environment, instance, |record| deleted(record, at))?;
        if wish.is_alone { self.change(environment, context, |record| deleted_alone(record, at)) } else { Ok(()) }
    }

    /// Puts a state of the table as it is, unless one as new is known.
    pub fn put_missing(&mut self, state: ContextState) -> Result<()> {
        let (_, environment) = self.environment(&state.project, &state.environment);
        let record = ContextRecord::try_from(state)?;
        let identity = record.identity(&environment);
        let stored = match self.pending.get(&identity) {
            Some(pending) => Some((pending.record.last_seen, pending.is_stored)),
            None => self.writer.reader().find(&identity)?.map(|stored| (stored.last_seen, true)),
        };
        let is_erased = self.has_erasures
            && !record.is_erasure()
            && self.was_erased(environment, &record.kind, &record.key, record.last_seen)?;
        if is_erased || stored.is_some_and(|(last_seen, _)| last_seen > record.last_seen) {
            return Ok(());
        }
        self.has_erasures |= record.is_erasure();
        self.seen.remember(xxh3_64(&identity), Seen::of(&record), record.attributes_at);
        let is_stored = stored.is_some_and(|(_, is_stored)| is_stored);
        self.pend(identity, Pending { environment, record, is_stored });
        Ok(())
    }

    /// Changes a state that is known.
    fn change(
        &mut self,
        environment: EnvironmentPrefix,
        identity: Vec<u8>,
        change: impl FnOnce(ContextRecord) -> Option<ContextRecord>,
    ) -> Result<()> {
        let (stored, is_stored) = match self.pending.get(&identity) {
            Some(pending) => (Some(pending.record.clone()), pending.is_stored),
            None => (self.writer.reader().find(&identity)?, true),
        };
        if let Some(record) = stored.and_then(change) {
            self.seen.remember(xxh3_64(&identity), Seen::of(&record), record.attributes_at);
            self.pend(identity, Pending { environment, record, is_stored });
        }
        Ok(())
    }

    pub(super) fn pend(&mut self, identity: Vec<u8>, pending: Pending) {
        let identity_bytes = identity.len();
        self.pending_bytes += pending.record.bytes() + identity_bytes;
        if let Some(before) = self.pending.insert(identity, pending) {
            self.pending_bytes -= before.record.bytes() + identity_bytes;
        }
        self.dirty = true;
    }

    fn environment(&mut self, project: &str, key: &str) -> (Environment, EnvironmentPrefix) {
        let known = self.environments.iter().find(|(known, _)| &*known.key == key && &*known.project == project);
        if let Some(known) = known {
            return known.clone();
        }
        let environment = Environment::new(project, key);
        let prefix = EnvironmentPrefix::new(&environment);
        self.environments.push((environment.clone(), prefix));
        (environment, prefix)
    }

    /// Puts states of the table, as they are.
    pub fn take_over(&mut self, batch: TableBatch, surroundings: &Surroundings) -> Result<()> {
        let cutoff = surroundings.runtime.clock.now().saturating_sub(surroundings.config.retention.get());
        for state in batch.states.into_iter().filter(|state| state.last_seen >= cutoff.0) {
            let (_, prefix) = self.environment(&state.project, &state.environment);
            match ContextRecord::try_from(state) {
                Ok(record) => {
                    self.has_erasures |= record.is_erasure();
                    self.writer.put(&prefix, &record, batch.may_replace)?;
                }
                Err(error) => {
                    surroundings.metrics.unreadable_contexts.inc();
                    tracing::error!(%error, "state of a context in the table passed over");
                }
            }
        }
        let now = Instant::now();
        if now - *self.last_commit.get_or_insert(now) >= PARTIAL_COMMIT_INTERVAL {
            self.writer.commit(&self.position(0, true))?;
            self.last_commit = Some(Instant::now());
        }
        Ok(())
    }

    /// Makes what was taken over a whole shard that goes on at `next`. `is_known`: false if there was nothing.
    pub fn finish_taking_over(&mut self, next: i64, is_known: bool, surroundings: &Surroundings) -> Result<()> {
        (self.next, self.covered) = (Some(next), next);
        if is_known { self.commit(surroundings) } else { Ok(()) }
    }

    fn position(&self, next: i64, is_partial: bool) -> Position {
        Position { format: FORMAT, topic_id: self.topic_id.clone(), next, received_at: self.received_at, is_partial }
    }

    fn see(&mut self, sighting: &Sighting<'_>, refresh: i64, is_covered: bool, metrics: &Metrics) -> Result<()> {
        let identity = sighting.environment.identity(sighting.kind, sighting.key);
        let identity_hash = xxh3_64(&identity);
        if self.seen.covers(identity_hash, sighting, refresh) || (self.has_erasures && self.is_erased(sighting)?) {
            metrics.unchanged_sightings.inc();
            return Ok(());
        }
        let (mut stored, is_stored) = match self.pending.remove(&identity) {
            Some(pending) => {
                self.pending_bytes -= pending.record.bytes() + identity.len();
                (Some(pending.record), pending.is_stored)
            }
            None => match self.writer.reader().find_unless(&identity, |seen| seen.covers(sighting, refresh))? {
                Some((seen, None)) => {
                    let sent_at = if sighting.context.is_some() { sighting.seen_at } else { i64::MIN };
                    self.seen.remember(identity_hash, seen, sent_at);
                    metrics.unchanged_sightings.inc();
                    return Ok(());
                }
                Some((_, stored)) => (stored, true),
                None if is_covered => return Ok(()),
                None => (None, false),
            },
        };
        if let Some(record) = &mut stored
            && let Some(sent_at) = self.seen.sent_at(identity_hash, record.content)
            && record.attributes_at > i64::MIN
        {
            // Sent again since, which was not worth a write.
            record.attributes_at = record.attributes_at.max(sent_at);
            record.last_seen = record.last_seen.max(sent_at);
        }
        let (record, unreadable) = fold(stored, sighting);
        metrics.unreadable_contexts.inc_by(u64::from(unreadable));
        self.seen.remember(identity_hash, Seen::of(&record), record.attributes_at);
        self.pend(identity, Pending { environment: sighting.environment, record, is_stored });
        Ok(())
    }

    pub fn expire_if_due(&mut self, surroundings: &Surroundings) -> Result<()> {
        let now = surroundings.runtime.clock.instant();
        if self.last_expiry.is_some_and(|at| now - at < EXPIRY_INTERVAL) {
            return Ok(());
        }
        self.last_expiry = Some(now);
        let cutoff = surroundings.runtime.clock.now().saturating_sub(surroundings.config.retention.get());
        self.dirty |= self.writer.expire(cutoff.0)?;
        Ok(())
    }

    pub fn commit_if_due(&mut self, surroundings: &Surroundings) -> Result<()> {
        if self.reads_again_since.is_some() {
            return Ok(());
        }
        let interval = if self.dirty {
            surroundings.config.commit_interval.get()
        } else if self.moved {
            OFFSET_COMMIT_INTERVAL
        } else {
            return Ok(());
        };
        if self.last_commit.is_none_or(|at| at.elapsed() >= interval) { self.commit(surroundings) } else { Ok(()) }
    }

    pub fn commit_if_dirty(&mut self, surroundings: &Surroundings) -> Result<()> {
        // What was erased and is not committed yet is read again at the next start.
        let may_commit = self.reads_again_since.is_none();
        if may_commit && (self.dirty || self.moved) { self.commit(surroundings) } else { Ok(()) }
    }

    pub(super) fn commit(&mut self, surroundings: &Surroundings) -> Result<()> {
        assert!(self.reads_again_since.is_none(), "nothing is committed before it is known what is read again");
        let timer = surroundings.metrics.commit_seconds.start_timer();
        for pending in self.pending.values() {
            self.writer.put(&pending.environment, &pending.record, pending.is_stored)?;
        }
        let next = self.next.unwrap_or(0).max(self.covered);
        let position = self.position(next, false);
        self.writer.commit(&position)?;
        self.committed = Some(position);
        surroundings.metrics.written_contexts.inc_by(self.pending.len() as u64);
        surroundings.metrics.commits.inc();
        timer.observe_duration();
        tracing::debug!(next, contexts = self.pending.len(), "index committed");
        self.pending.clear();
        self.pending.shrink_to(1024);
        self.pending_bytes = 0;
        self.dirty = false;
        self.moved = false;
        self.last_commit = Some(Instant::now());
        Ok(())
    }
}
