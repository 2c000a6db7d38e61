//! Groups payloads into micro-batches and has them appended.
//!
//! In: payloads whose body is unpacked. Out: a [`Ticket`] that resolves when the payload is durable, and the answer that
//! it then earns. Each lane holds the open rows of one batch; a payload is decoded straight into them, under the lane's
//! lock. Promise: rows of one payload are in one batch. Not here: durability; an open batch is only in memory.
//!
//! An append costs nearly the same for a batch of two as for one of sixty, so small payloads share few lanes and
//! wait for each other's decoding, which is shorter than that; medium ones take the first free lane of one per thread;
//! large ones, which would make all others wait, have a lane of their own.
//!
//! A batch is sealed when it is large enough, or some milliseconds after the one before it was answered, so that a
//! quiet system answers at once and a busy one gathers, including those whom the last batch has just set free. It is
//! also sealed when everyone who could call waits in an open batch, as nobody is left to add to it: without this, a few
//! busy clients would wait for the clock in each round. All open batches then go to the log in one append, for one sync
//! costs more than the rest of it. Two other rules were tried: sealing whenever the log was idle
//! made half of the batches hold a few payloads only; counting the milliseconds from the seal before kept the clients
//! in two halves that took turns, each in batches of half the size.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use eventlog::LogWriter;
use events::Topic;
use parking_lot::Mutex;
use runtime::{Runtime, UnixMicros};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::time::{sleep_until, timeout};
use tokio_util::task::TaskTracker;

use crate::Config;
use crate::admission::{Held, NoRoom, Room};
use crate::answer::Answer;
use crate::append::{Appender, Batch, Members, SealedBatch, Ticket};
use crate::credentials::KnownEnvironment;
use crate::decode::Place;
use crate::heavy;
use crate::lane::{Content, Lane};
use crate::metrics::{Metrics, Tally};
use crate::payload::PayloadHead;
use crate::recent::RecentContexts;
use crate::repeats::{Claim, Verdict};

/// A payload on its way into a batch.
pub(crate) struct UnpackedPayload {
    pub head: PayloadHead,
    pub environment: Arc<KnownEnvironment>,
    pub content: Content,
    pub claim: Option<Claim>,
    pub held: Held,
}

/// A payload in an open batch.
#[derive(Debug)]
pub(crate) struct Joined {
    /// None if there was nothing to store.
    pub ticket: Option<Ticket>,
    /// What the sender is told once the batch is durable.
    pub answer: Answer,
    pub events: u64,
}

/// Payloads up to this size are small: decoding one takes some 10 us.
const SMALL_BYTES: usize = 8 << 10;

/// Payloads above this size go through the lane of large ones, one at a time.
const LARGE_BYTES: usize = 256 << 10;

/// Large payloads between decoding and answer, together; one at least. A body of the worst kind takes ten times its size
/// as rows and record.
const LARGE_BUDGET_BYTES: usize = 48 << 20;

/// Decoding is a quarter of the work of a small request.
const THREADS_PER_SMALL_LANE: usize = 4;

/// Appends under way at once. The log gathers them into one fsync; more would only hold memory.
const APPENDS_MAX: usize = 8;

/// Lanes and the way to the log. Clones share them.
#[derive(Clone)]
pub(crate) struct Batcher(Arc<Shared>);

struct Shared {
    /// Those of small payloads, then those of medium ones, then that of large ones.
    lanes: Box<[Mutex<Lane>]>,
    small: usize,
    /// Per lane, held by the batch that is sealed by the clock until it is answered.
    turns: Box<[Semaphore]>,
    /// Held while a large payload is decoded.
    large: Semaphore,
    /// Bytes of large payloads between decoding and answer.
    large_budget: Arc<Semaphore>,
    appender: Appender,
    appends: Semaphore,
    room: Room,
    dead_letters_partitions: u64,
    batch_bytes: usize,
    batch_age: Duration,
    /// Payloads in open batches.
    open: Arc<AtomicUsize>,
    /// Requests that the open connections could bring at once.
    callers: Arc<AtomicUsize>,
    /// Spreads payloads over lanes, and those without an id over partitions.
    turn: AtomicU64,
    draining: AtomicBool,
    tasks: TaskTracker,
}

impl Batcher {
    /// `callers`: how many requests the open connections could bring at once, kept by the server.
    pub fn new(
        config: &Config,
        log: Arc<dyn LogWriter>,
        runtime: &Runtime,
        metrics: Arc<Metrics>,
        room: Room,
        callers: Arc<AtomicUsize>,
    ) -> Self {
        let partitions = Topic::ALL.map(|topic| log.partitions(topic));
        let now = runtime.clock.instant();
        let answered_at = now.checked_sub(config.batch_age.get()).unwrap_or(now);
        let lane = || Mutex::new(Lane::new(partitions, runtime.entropy.clone(), answered_at));
        let threads = runtime.parallelism().min(32);
        let small = (threads / THREADS_PER_SMALL_LANE).max(1);
        let lanes = small + threads + 1;
        let appender = Appender {
            log,
            recent: RecentContexts::new(config.sighting_contexts_max, config.sighting_refresh.get()),
            metrics,
            clock: runtime.clock.clone(),
            entropy: runtime.entropy.clone(),
            hold_max: config.hold_max.get(),
            append_timeout: config.append_timeout.get(),
            failing: AtomicBool::new(false),
        };
        Self(Arc::new(Shared {
            lanes: (0..lanes).map(|_| lane()).collect(),
            turns: (0..lanes).map(|_| Semaphore::new(1)).collect(),
            small,
            large: Semaphore::new(1),
            large_budget: Arc::new(Semaphore::new(LARGE_BUDGET_BYTES)),
            appender,
            appends: Semaphore::new(APPENDS_MAX),
            room,
            dead_letters_partitions: u64::from(partitions[2]),
            batch_bytes: config.batch_bytes.as_usize(),
            batch_age: config.batch_age.get(),
            open: Arc::default(),
            callers,
            turn: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            tasks: TaskTracker::new(),
        }))
    }

    /// See [`RecentContexts::trust_from`].
    pub fn trust_sightings_from(&self, from: UnixMicros) {
        self.0.appender.recent.trust_from(from);
    }

    /// Puts a payload into an open batch.
    ///
    /// # Errors
    /// If it is large, and other large ones were not done in the time that it may be held.
    pub async fn join(&self, payload: UnpackedPayload) -> Result<Joined, NoRoom> {
        let (small, large) = (self.0.small, self.0.lanes.len() - 1);
        let size = payload.content.len();
        if size <= SMALL_BYTES {
            // Not by who is free: that would scatter few payloads over many batches.
            let index = if small == 1 { 0 } else { self.0.next_turn() as usize % small };
            return Ok(self.join_lane(index, &mut self.0.lanes[index].lock(), payload, None));
        }
        if size <= LARGE_BYTES {
            return Ok(self.join_first_free(small..large, payload));
        }
        let share = self.0.large_budget.clone().acquire_many_owned(size.min(LARGE_BUDGET_BYTES) as u32);
        let share = timeout(self.0.appender.hold_max, share).await.map_err(|_| NoRoom)?.ok();
        let _decoding = self.0.large.acquire().await;
        Ok(heavy::run(size, || self.join_lane(large, &mut self.0.lanes[large].lock(), payload, share)))
    }

    /// Appends what is open and waits until nothing is under way.
    pub async fn drain(&self) {
        self.0.draining.store(true, Ordering::SeqCst);
        self.seal_all();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    fn join_first_free(&self, lanes: Range<usize>, payload: UnpackedPayload) -> Joined {
        for index in lanes.clone() {
            if let Some(mut lane) = self.0.lanes[index].try_lock() {
                return self.join_lane(index, &mut lane, payload, None);
            }
        }
        let index = lanes.start + self.0.next_turn() as usize % lanes.len();
        self.join_lane(index, &mut self.0.lanes[index].lock(), payload, None)
    }

    fn join_lane(
        &self,
        index: usize,
        lane: &mut Lane,
        payload: UnpackedPayload,
        share: Option<OwnedSemaphorePermit>,
    ) -> Joined {
        let shared = &self.0;
        let size = payload.content.len();
        let place = shared.place(&payload);
        let UnpackedPayload { head, content, claim, held, .. } = payload;
        let (answer, tally) = lane.decode(&head, content, place, &shared.appender.recent);
        let events = tally.events;
        if tally == (Tally { payloads: 1, ..Tally::default() }) {
            if let Some(claim) = claim {
                claim.settle(&Verdict::Stored);
            }
            return Joined { ticket: None, answer, events };
        }
        let verdict =
            if answer == Answer::ACCEPTED { Verdict::Stored } else { Verdict::Refused(Arc::new(answer.clone())) };
        let begins = lane.open.is_none();
        let members = lane.open.get_or_insert_with(|| Members::new(shared.room.hold(), shared.open.clone()));
        if let Some(trace) = head.trace {
            members.follow(trace);
        }
        members.join(&tally, claim.map(|claim| (claim, verdict)), held, share);
        let batch = members.batch.clone();
        if begins {
            shared.tasks.spawn(close(self.clone(), index, batch.clone()));
        }
        if lane.is_full(size, shared.batch_bytes) {
            batch.seal_now.notify_one();
        }
        if shared.everyone_waits() || shared.draining.load(Ordering::Relaxed) {
            batch.seal_now.notify_one();
            self.seal_others(index);
        }
        Joined { ticket: Some(batch.ticket()), answer, events }
    }

    fn seal_others(&self, but: usize) {
        for (index, lane) in self.0.lanes.iter().enumerate() {
            // A lane that is locked is about to come here itself.
            if index != but
                && let Some(lane) = lane.try_lock()
                && let Some(open) = &lane.open
            {
                open.batch.seal_now.notify_one();
            }
        }
    }

    fn seal_all(&self) {
        for lane in &self.0.lanes {
            if let Some(open) = &lane.lock().open {
                open.batch.seal_now.notify_one();
            }
        }
    }
}

/// The life of one batch from its first payload on.
async fn close(batcher: Batcher, lane: usize, batch: Arc<Batch>) {
    let shared = &batcher.0;
    // Whatever has arrived by now joins before this task runs again.
    tokio::task::yield_now().await;
    let _turn = tokio::select! {
        biased;
        () = batch.seal_now.notified() => None,
        turn = shared.turn_of(lane) => Some(turn),
    };
    let _permit = shared.appends.acquire().await;
    let (mut lanes, mut encoded) = (Vec::new(), Vec::new());
    for (lane, sealed) in shared.seal(lane, &batch) {
        if let Some((batch, rows)) = shared.appender.encode(sealed) {
            shared.lanes[lane].lock().reuse(rows);
            lanes.push(lane);
            encoded.push(batch);
        }
    }
    shared.appender.append(encoded).await;
    let now = shared.appender.clock.instant();
    lanes.into_iter().for_each(|lane| shared.lanes[lane].lock().answered_at = now);
}

impl Shared {
    /// Whether everyone who could call waits in an open batch.
    fn everyone_waits(&self) -> bool {
        self.open.load(Ordering::Relaxed) >= self.callers.load(Ordering::Relaxed)
    }

    /// Seals `batch` of `lane`, if nobody has yet; and those of the other lanes with it if nobody is left to add to
    /// them, so that one append and one sync serve all. Large payloads go alone.
    fn seal(&self, lane: usize, batch: &Arc<Batch>) -> Vec<(usize, SealedBatch)> {
        let (together, large) = (self.everyone_waits(), self.lanes.len() - 1);
        let Some(own) = self.lanes[lane].lock().seal(Some(batch)) else { return Vec::new() };
        let mut sealed = vec![(lane, own)];
        for index in (0..large).filter(|index| together && *index != lane) {
            // A lane that is locked is about to be sealed itself.
            if let Some(other) = self.lanes[index].try_lock().and_then(|mut lane| lane.seal(None)) {
                // Ends the task that would have done this.
                other.members.batch.seal_now.notify_one();
                sealed.push((index, other));
            }
        }
        sealed
    }

    /// Resolves when the lane's last batch has been answered for long enough.
    async fn turn_of(&self, lane: usize) -> Option<SemaphorePermit<'_>> {
        let turn = self.turns[lane].acquire().await.ok();
        let due = self.lanes[lane].lock().answered_at + self.batch_age;
        if self.appender.clock.instant() < due {
            sleep_until(due).await;
        }
        turn
    }

    fn next_turn(&self) -> u64 {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }

    fn place(&self, payload: &UnpackedPayload) -> Place {
        let spread = self.next_turn();
        let id = payload.head.payload_id.as_deref();
        Place {
            events_partition: payload.environment.shard.partition(id, spread),
            dead_letters_partition: (payload.environment.hash % self.dead_letters_partitions) as u32,
        }
    }
}

#[cfg(test)]
mod tests;
