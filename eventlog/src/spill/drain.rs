//! Brings spilled records to the log, in order, and each once.
//!
//! One task, in rounds: take the next records of each partition, settle what is in doubt, hand the rest to the log and wait
//! for what became of them. A partition whose next record is in doubt stands still; the others go on.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use events::{Offset, TopicPartition};
use runtime::UnixMicros;
use tokio::time::Instant;

use super::breaker::BreakerState;
use super::doubts::Verdict;
use super::entry::Entry;
use super::gate::Way;
use super::progress::{Lane, Progress};
use super::scan::{self, Sought};
use super::{Inner, LOOK_INTERVAL, Store};
use crate::traced::{Fate, Fates, TracedLog};
use crate::{Error, Result, WriterHealth};

/// How long appends wait at the closed gate, and how soon it is closed again if that was not enough.
const CLOSED_MAX: Duration = Duration::from_millis(500);
const CLOSED_AGAIN: Duration = Duration::from_secs(2);
/// Appends are kept waiting for so few records only.
const LAST_RECORDS: u64 = 64;

/// What a round may hand to the log.
#[derive(Clone, Copy)]
struct Budget {
    bytes: usize,
    records: usize,
}

/// What a round has taken from the store.
#[derive(Default)]
struct Taken {
    entries: BTreeMap<TopicPartition, Vec<Entry>>,
    sends: Vec<(TopicPartition, Entry)>,
    uncertain: BTreeMap<TopicPartition, Vec<Sought>>,
}

pub(super) struct Drain<L, S> {
    inner: Arc<Inner<L, S>>,
    progress: Progress,
    /// Partitions whose next record cannot be read here, or that the log refuses for good. Until the next start.
    broken: Vec<TopicPartition>,
    /// Since when the log has answered without a break.
    answering_since: Option<Instant>,
    closed_at: Instant,
}

impl<L: TracedLog + 'static, S: Store> Drain<L, S> {
    pub async fn open(inner: &Arc<Inner<L, S>>) -> Result<Self> {
        let mut progress = Progress::new(inner.topic_marks, inner.topic_partitions.iter().copied());
        let is_known = inner.store.notes().is_some_and(|noted| progress.take_up(&noted));
        let mut oldest: Option<UnixMicros> = None;
        for (place, lane) in &mut progress.lanes {
            let held = inner.store.range(*place);
            lane.drained = Offset(lane.drained.0.clamp(held.start.0, held.end.0));
            // Without notes nobody knows what was handed over.
            lane.handed = if is_known { lane.handed.min(held.end) } else { held.end };
            inner.drained.lock().insert(*place, lane.drained);
            inner.store.release(*place, lane.drained);
            if lane.drained < held.end {
                let first = inner.store.fetch(*place, lane.drained, 1).await?;
                oldest = oldest.into_iter().chain(first.first().map(|record| record.appended_at)).min();
            }
        }
        *inner.oldest.lock() = oldest;
        let closed_at = inner.runtime.clock.instant() - CLOSED_AGAIN;
        Ok(Self { inner: inner.clone(), progress, broken: Vec::new(), answering_since: None, closed_at })
    }

    pub async fn run(mut self) {
        let stop = self.inner.stop.clone();
        let inner = self.inner.clone();
        loop {
            tokio::select! {
                biased;
                () = stop.begun() => break,
                () = inner.gate.diverted() => {}
            }
            self.round().await;
        }
        self.note().await;
    }

    async fn round(&mut self) {
        if self.inner.gate.way() == Way::Closed && self.closed_at.elapsed() >= CLOSED_MAX {
            self.inner.gate.reopen();
        }
        let Some(budget) = self.budget().await else { return };
        let taken = match self.take(budget).await {
            Ok(taken) => taken,
            Err(error) => {
                tracing::debug!(%error, "the spill was not read, trying again");
                return self.pause(LOOK_INTERVAL).await;
            }
        };
        if taken.entries.is_empty() {
            return self.rest().await;
        }
        let before = self.left();
        let is_blocked = !taken.uncertain.is_empty();
        self.look_for(&taken.uncertain).await;
        if !taken.sends.is_empty() {
            self.hand_over(&taken.sends).await;
        }
        self.advance(&taken.entries);
        if self.left() >= before && taken.sends.is_empty() {
            let known = self.inner.doubts.changed();
            tokio::select! {
                () = known => {}
                () = self.pause(LOOK_INTERVAL) => {}
            }
        } else if !is_blocked && self.left() <= LAST_RECORDS && self.closed_at.elapsed() >= CLOSED_AGAIN {
            self.close_gate();
        }
    }

    /// What may be handed over now; None after a pause in which the log was left alone.
    async fn budget(&mut self) -> Option<Budget> {
        if self.inner.breaker.state() == BreakerState::Open {
            self.answering_since = None;
            self.inner.gate.reopen();
            self.pause(self.inner.breaker.pause(&self.inner.runtime.entropy)).await;
        }
        if self.inner.log.health() != WriterHealth::Ready {
            self.failed();
            return None;
        }
        self.answering_since.get_or_insert(self.inner.runtime.clock.instant());
        if self.inner.breaker.state() == BreakerState::Closed {
            return Some(Budget { bytes: self.inner.settings.window_bytes, records: usize::MAX });
        }
        self.inner.breaker.half_open();
        Some(Budget { bytes: 1, records: 1 })
    }

    /// Records that are left to drain.
    fn left(&self) -> u64 {
        self.inner.left_beside(&self.broken)
    }

    fn failed(&mut self) {
        self.answering_since = None;
        self.inner.breaker.open();
    }

    /// Waits, but not longer than until the end.
    async fn pause(&self, time: Duration) {
        tokio::select! {
            () = self.inner.stop.begun() => {}
            () = self.inner.runtime.clock.wait(time) => {}
        }
    }

    async fn take(&mut self, budget: Budget) -> Result<Taken> {
        let mut taken = Taken::default();
        let mut oldest: Option<UnixMicros> = None;
        let waiting: Vec<_> = (self.progress.lanes.iter())
            .map(|(place, lane)| (*place, *lane))
            .filter(|(place, lane)| lane.drained < self.inner.store.range(*place).end && !self.broken.contains(place))
            .collect();
        let share = budget.bytes / waiting.len().max(1);
        for (place, lane) in waiting {
            let fetched = match self.inner.store.fetch(place, lane.drained, share).await {
                Ok(fetched) => fetched,
                Err(error @ Error::Corrupt { .. }) => {
                    self.give_up(place, &error.to_string());
                    continue;
                }
                Err(error) => return Err(error),
            };
            let mark = self.inner.topic_marks[place.topic as usize];
            let entries: Option<Vec<_>> = fetched.iter().map(|record| Entry::decode(record, mark)).collect();
            let Some(entries) = entries else {
                self.give_up(place, "a record is not of the form that spilled ones have");
                continue;
            };
            oldest = oldest.into_iter().chain(entries.first().map(|entry| entry.taken_at)).min();
            self.sort(place, lane, &entries, budget, &mut taken);
            taken.entries.insert(place, entries);
        }
        *self.inner.oldest.lock() = oldest;
        Ok(taken)
    }

    fn give_up(&mut self, place: TopicPartition, why: &str) {
        if self.broken.contains(&place) {
            return;
        }
        tracing::error!(partition = %place, why, "records on the local disk cannot be brought to Kafka; they stay there and are tried again at the next start");
        self.broken.push(place);
    }

    /// What to do with the records of one partition.
    fn sort(&self, place: TopicPartition, lane: Lane, entries: &[Entry], budget: Budget, taken: &mut Taken) {
        let mut stands_still = false;
        for entry in entries {
            match self.verdict(lane, entry) {
                Verdict::Stored | Verdict::Drained => {}
                Verdict::Pending => stands_still = true,
                Verdict::Unknown => {
                    stands_still = true;
                    let noted = (entry.offset < lane.handed).then_some(lane.from);
                    let from = entry.label.from.into_iter().chain(noted).min().unwrap_or_default();
                    let sought = Sought { id: entry.label.id, from, taken_at: entry.taken_at };
                    taken.uncertain.entry(place).or_default().push(sought);
                }
                Verdict::Absent if !stands_still && taken.sends.len() < budget.records => {
                    taken.sends.push((place, entry.clone()));
                }
                Verdict::Absent => {}
            }
        }
    }

    fn verdict(&self, lane: Lane, entry: &Entry) -> Verdict {
        let may_be_there = entry.label.from.is_some() || entry.offset < lane.handed;
        let by_default = if may_be_there { Verdict::Unknown } else { Verdict::Absent };
        self.inner.doubts.get(entry.label.id).unwrap_or(by_default)
    }

    /// Settles records in doubt by looking for them.
    async fn look_for(&mut self, uncertain: &BTreeMap<TopicPartition, Vec<Sought>>) {
        let rest = self.inner.settings.doubt_rest;
        let since = self.answering_since.max(self.inner.doubts.unknown_since());
        if self.answering_since.is_none() || since.is_none_or(|since| since.elapsed() < rest) {
            return;
        }
        for (place, sought) in uncertain {
            let found = match scan::find(&*self.inner.log, *place, sought).await {
                Ok(found) => found,
                Err(error) => {
                    tracing::debug!(partition = %place, %error, "records in doubt were not looked for, trying again");
                    return self.failed();
                }
            };
            let verdict = |id| if found.contains(&id) { Verdict::Stored } else { Verdict::Absent };
            self.inner.doubts.set(sought.iter().map(|sought| (sought.id, verdict(sought.id))));
        }
        if !uncertain.is_empty() {
            self.inner.breaker.close();
        }
    }

    async fn hand_over(&mut self, sends: &[(TopicPartition, Entry)]) {
        let handed = self.note_handed(sends).await;
        let traced = sends.iter().map(|(place, entry)| entry.traced(*place)).collect();
        let fates = match handed.and_then(|()| self.inner.log.send(traced)) {
            Ok(fates) => self.fates(fates).await,
            Err(error) => {
                tracing::debug!(%error, "nothing was drained, trying again");
                return self.failed();
            }
        };
        let Some(fates) = fates else { return self.failed() };
        let mut is_stored = true;
        let mut verdicts = HashMap::new();
        for ((place, entry), fate) in sends.iter().zip(&fates) {
            let verdict = match fate {
                Fate::Stored(_) => Verdict::Drained,
                Fate::Refused(error) => {
                    self.give_up(*place, &error.to_string());
                    Verdict::Absent
                }
                fate => {
                    is_stored = false;
                    Verdict::from(fate)
                }
            };
            verdicts.insert(entry.label.id, verdict);
        }
        self.inner.doubts.set(verdicts);
        if is_stored { self.inner.breaker.close() } else { self.failed() }
    }

    /// Waits for the log's answer, and no longer with the gate closed than it may be. None if there will be none.
    async fn fates(&self, mut fates: Fates) -> Option<Vec<Fate>> {
        if self.inner.gate.way() == Way::Closed {
            match tokio::time::timeout_at(self.closed_at + CLOSED_MAX, &mut fates).await {
                Ok(fates) => return fates.ok(),
                Err(_) => self.inner.gate.reopen(),
            }
        }
        fates.await.ok()
    }

    /// Makes it known to whoever comes after us that these records may be in the log.
    async fn note_handed(&mut self, sends: &[(TopicPartition, Entry)]) -> Result<()> {
        let mut progress = self.progress.clone();
        for (place, entry) in sends {
            let Some(lane) = progress.lanes.get_mut(place) else { continue };
            if entry.offset < lane.handed {
                continue;
            }
            if lane.drained >= lane.handed {
                // Nothing of before is in doubt any more.
                lane.from = self.inner.log.end_seen(*place);
            }
            lane.handed = entry.offset.next();
        }
        if progress != self.progress {
            self.inner.store.note(progress.encode()).await?;
            self.progress = progress;
        }
        Ok(())
    }

    /// Lets go of what is in the log.
    fn advance(&mut self, entries: &BTreeMap<TopicPartition, Vec<Entry>>) {
        for (place, entries) in entries {
            let Some(lane) = self.progress.lanes.get_mut(place) else { continue };
            for entry in entries {
                match self.inner.doubts.get(entry.label.id) {
                    Some(Verdict::Drained) => self.inner.metrics.drained.inc(),
                    Some(Verdict::Stored) => self.inner.metrics.found.inc(),
                    _ => break,
                }
                self.inner.doubts.forget([entry.label.id]);
                lane.drained = entry.offset.next();
            }
            self.inner.drained.lock().insert(*place, lane.drained);
            self.inner.store.release(*place, lane.drained);
        }
    }

    /// Nothing is left to drain: takes the last step back, or waits for what is being spilled.
    async fn rest(&mut self) {
        let inner = self.inner.clone();
        if inner.gate.way() == Way::Spill && self.closed_at.elapsed() >= CLOSED_AGAIN {
            self.close_gate();
        }
        let changed = inner.gate.changed();
        let broken = self.broken.clone();
        if inner.gate.open_direct(|| inner.left_beside(&broken) == 0) {
            inner.breaker.close();
            *inner.oldest.lock() = None;
            self.note().await;
            let (drained, found) = (inner.metrics.drained.get(), inner.metrics.found.get());
            tracing::info!(drained, found, "Kafka takes records again, and has all that were kept on the local disk");
            return;
        }
        tokio::select! {
            () = changed => {}
            () = self.pause(LOOK_INTERVAL) => {}
        }
    }

    fn close_gate(&mut self) {
        self.closed_at = self.inner.runtime.clock.instant();
        self.inner.gate.close();
    }

    /// Spares the next start from looking for what is in no doubt.
    async fn note(&mut self) {
        for lane in self.progress.lanes.values_mut() {
            lane.handed = lane.handed.max(lane.drained);
        }
        if let Err(error) = self.inner.store.note(self.progress.encode()).await {
            tracing::debug!(%error, "not noted how far the spill was drained; the next start looks for its last records");
        }
    }
}
