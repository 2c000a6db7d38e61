//! Writes sealed batches to the log, awaits their durability, and tells everyone who waits.
//!
//! In: the rows of a lane and the [`Members`] whose payloads they hold. Out: one outcome for all of them.
//! Promises: nobody is told "stored" before the log said so for every record of the batch; everybody is told
//! something, even if this code panics; bytes in flight are given back only then.
//! An append that the log refused for lack of room is tried again while its members can be held. One that failed in
//! another way is not: its records may be in the log, and payloads without an id cannot be told from their repeats.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use eventlog::{AppendRecord, LogWriter, TraceParent};
use parking_lot::Mutex;
use runtime::{Clock, Entropy, ErrorKind};
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::Instant;

use crate::admission::Held;
use crate::heavy;
use crate::metrics::{Metrics, Tally};
use crate::recent::{RecentContexts, Sighted};
use crate::repeats::{Claim, Verdict};
use crate::rows::OpenRows;

const PENDING: u8 = 0;
const STORED: u8 = 1;
const FAILED: u8 = 2;

/// Room for so many is made at once.
const MEMBERS_EXPECTED: usize = 64;

/// A batch as those see it who wait for it.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    outcome: AtomicU8,
    wakers: Mutex<Vec<Waker>>,
    /// Told when waiting for more members has no use.
    pub seal_now: Notify,
}

impl Batch {
    /// Resolves with whether the batch is durable.
    pub fn ticket(self: &Arc<Self>) -> Ticket {
        Ticket { batch: self.clone(), slot: None }
    }

    fn finish(&self, outcome: u8) {
        let mut wakers = self.wakers.lock();
        self.outcome.store(outcome, Ordering::Release);
        let wakers = std::mem::take(&mut *wakers);
        for waker in wakers {
            waker.wake();
        }
    }

    fn outcome(&self) -> Option<bool> {
        match self.outcome.load(Ordering::Acquire) {
            PENDING => None,
            outcome => Some(outcome == STORED),
        }
    }
}

/// One member's wait for its batch.
#[derive(Debug)]
pub(crate) struct Ticket {
    batch: Arc<Batch>,
    slot: Option<usize>,
}

impl Future for Ticket {
    type Output = bool;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<bool> {
        if let Some(stored) = self.batch.outcome() {
            return Poll::Ready(stored);
        }
        let batch = self.batch.clone();
        let mut wakers = batch.wakers.lock();
        if let Some(stored) = batch.outcome() {
            return Poll::Ready(stored);
        }
        match self.slot {
            Some(slot) => wakers[slot].clone_from(context.waker()),
            None => {
                if wakers.is_empty() {
                    wakers.reserve(MEMBERS_EXPECTED);
                }
                self.slot = Some(wakers.len());
                wakers.push(context.waker().clone());
            }
        }
        Poll::Pending
    }
}

/// Those whose payloads are in a batch, with what they hold. Dropped without an outcome, all are told that it failed.
#[derive(Debug)]
pub(crate) struct Members {
    pub batch: Arc<Batch>,
    pub tally: Tally,
    claims: Vec<(Claim, Verdict)>,
    held: Held,
    /// Shares of the budget for large payloads.
    shares: Vec<OwnedSemaphorePermit>,
    /// Payloads in all open batches, and how many of these are ours.
    open: Arc<AtomicUsize>,
    counted: usize,
    trace: Option<TraceParent>,
}

impl Members {
    pub fn new(held: Held, open: Arc<AtomicUsize>) -> Self {
        let claims = Vec::with_capacity(MEMBERS_EXPECTED);
        let (batch, tally, shares) = (Arc::default(), Tally::default(), Vec::new());
        Self { batch, tally, claims, held, shares, open, counted: 0, trace: None }
    }

    /// A record can follow one trace: the first one that is sampled, else the first one.
    pub fn follow(&mut self, trace: TraceParent) {
        if self.trace.is_none_or(|followed| trace.is_sampled() && !followed.is_sampled()) {
            self.trace = Some(trace);
        }
    }

    /// `verdict`: what becomes of the claim if the batch is stored.
    pub fn join(
        &mut self,
        tally: &Tally,
        claim: Option<(Claim, Verdict)>,
        held: Held,
        share: Option<OwnedSemaphorePermit>,
    ) {
        self.shares.extend(share);
        self.tally.add(tally);
        self.claims.extend(claim);
        self.held.absorb(held);
        self.counted += 1;
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    pub fn bytes(&self) -> usize {
        self.held.bytes()
    }

    /// The batch is open no more.
    pub fn close(&mut self) {
        self.open.fetch_sub(std::mem::take(&mut self.counted), Ordering::Relaxed);
    }

    fn finish(&mut self, stored: bool) {
        self.close();
        // Ids first, answers last: who has its answer may send again at once.
        for (claim, verdict) in self.claims.drain(..) {
            claim.settle(if stored { &verdict } else { &Verdict::Failed });
        }
        self.held.shrink_to(0);
        self.shares.clear();
        if self.batch.outcome().is_none() {
            self.batch.finish(if stored { STORED } else { FAILED });
        }
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        self.finish(false);
    }
}

/// Rows taken from a lane, with those whose payloads they hold.
pub(crate) struct SealedBatch {
    pub rows: OpenRows,
    pub members: Members,
}

/// A batch as records, on its way to the log.
pub(crate) struct EncodedBatch {
    records: Vec<AppendRecord>,
    sighted: Vec<Sighted>,
    members: Members,
    begun: Instant,
}

impl EncodedBatch {
    fn bytes(&self) -> usize {
        self.records.iter().map(|record| record.frame.len()).sum()
    }
}

/// The way from sealed rows to durable records.
pub(crate) struct Appender {
    pub log: Arc<dyn LogWriter>,
    pub recent: RecentContexts,
    pub metrics: Arc<Metrics>,
    pub clock: Clock,
    pub entropy: Entropy,
    pub hold_max: Duration,
    pub append_timeout: Duration,
    /// Whether the last batch failed; failures are reported when they begin and end, not once per batch.
    pub failing: AtomicBool,
}

/// A refused append is tried again this often.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

impl Appender {
    /// Makes the records of a batch, and gives its rows back empty, for their memory.
    ///
    /// None if that cannot be done: the members are then told, and the rows are not to be used again.
    pub fn encode(&self, sealed: SealedBatch) -> Option<(EncodedBatch, OpenRows)> {
        let SealedBatch { mut rows, mut members } = sealed;
        let begun = self.clock.instant();
        let encoded = heavy::run(members.bytes(), || catch_unwind(AssertUnwindSafe(|| rows.encode())));
        match encoded.unwrap_or_else(|_| Err(eventlog::Error::Frame("encoding a batch panicked".into()))) {
            Ok(mut records) => {
                members.trace = members.trace.map(|trace| trace.child(self.entropy.next_u64()));
                records.iter_mut().for_each(|record| record.trace = members.trace);
                let sighted = rows.take_sighted();
                rows.clear();
                Some((EncodedBatch { records, sighted, members, begun }, rows))
            }
            Err(error) => {
                self.fail(members, &error.to_string());
                None
            }
        }
    }

    /// Writes the records of some batches at once and tells their members.
    pub async fn append(&self, mut batches: Vec<EncodedBatch>) {
        if batches.is_empty() {
            return;
        }
        let sizes: Vec<usize> = batches.iter().map(EncodedBatch::bytes).collect();
        let records = batches.iter_mut().flat_map(|batch| std::mem::take(&mut batch.records)).collect();
        let outcome = self.write(records).await;
        for (EncodedBatch { sighted, mut members, begun, .. }, bytes) in batches.into_iter().zip(sizes) {
            match &outcome {
                Ok(()) => {
                    let took = begun.elapsed();
                    self.recent.acknowledge(&sighted, self.clock.now());
                    self.metrics.count_stored(&members.tally, bytes, took);
                    self.report_stored(&members, bytes, took);
                    members.finish(true);
                }
                Err(error) => self.fail(members, error),
            }
        }
    }

    fn fail(&self, mut members: Members, error: &str) {
        self.metrics.count_append_failure();
        self.report_failure(&members, error);
        members.finish(false);
    }

    async fn write(&self, records: Vec<AppendRecord>) -> Result<(), String> {
        let attempts = async {
            let give_up = self.clock.instant() + self.hold_max;
            loop {
                match self.log.append(records.clone()).await {
                    Ok(_) => return Ok(()),
                    Err(error) if error.kind() != ErrorKind::Overloaded || self.clock.instant() >= give_up => {
                        return Err(error.to_string());
                    }
                    Err(_) => self.clock.wait(RETRY_INTERVAL).await,
                }
            }
        };
        let timeout = self.append_timeout;
        tokio::time::timeout(timeout, attempts)
            .await
            .unwrap_or_else(|_| Err(format!("the log gave no answer in {timeout:?}")))
    }

    fn report_stored(&self, members: &Members, bytes: usize, took: Duration) {
        if self.failing.load(Ordering::Relaxed) && self.failing.swap(false, Ordering::Relaxed) {
            tracing::info!(target: "tidegate::ingest", "the log takes batches again");
        }
        let tally = &members.tally;
        tracing::debug!(
            target: "tidegate::batch",
            payloads = tally.payloads,
            events = tally.events,
            rows = tally.rows,
            sightings = tally.sightings,
            dead_letters = tally.dead_letters.iter().sum::<u32>(),
            bytes,
            took_us = took.as_micros() as u64,
            trace = members.trace.map(tracing::field::display),
            "batch stored"
        );
    }

    fn report_failure(&self, members: &Members, error: &str) {
        if !self.failing.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                target: "tidegate::ingest",
                payloads = members.tally.payloads,
                events = members.tally.events,
                error,
                "append of a batch failed, its senders are told to come back; further failures are counted, not logged"
            );
        }
    }
}
