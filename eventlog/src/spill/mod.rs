//! Stands before a log that may be away, and keeps on the local disk what it does not take in time.
//!
//! An append goes to the log ([`append`]). If that does not acknowledge it within [`Settings::spill_after`], or is known to be away, the
//! records are written into a [`store`] and the append resolves with its fsync. From then on everything goes that way (see
//! [`gate`]) while the [`drain`] brings the records to the log, in order, behind a [`breaker`]; when nothing is left, appends
//! go to the log again.
//!
//! Promise: as [`LogWriter`], and each spilled record comes into the log exactly once, whatever dies and whenever.
//!
//! # Exactly once
//! Every record has a [`RecordId`], drawn here, that travels with it into the log. A record that the log was handed and did
//! not acknowledge may come there yet. While the process lives it is left with the log's producer, whose own attempts are
//! exactly once, and the spilled copy waits for its [`Fate`]. What the producer itself does not know, and everything that
//! was handed over when a process died, is looked for in the log by its id before it is sent ([`scan`]). Records that were
//! never handed over are in no doubt. What must be known for that is kept with the record ([`entry`]) or in notes that are
//! durable before the drain hands anything over ([`progress`]).
//!
//! Assumption: once the log has answered without a break for [`DOUBT_REST`], it takes nothing more from requests of before, be
//! it of this process or of the one before it. A search is never begun earlier. Kafka's brokers work through the requests of a
//! connection that was closed within moments; the time is that of a request (`socket.timeout.ms`).
//!
//! # Time of records
//! A drained record has the time at which it was spilled. The compactor's window of payload ids runs on the time of
//! records, and the twin of a payload that was spilled for an hour lies an hour back. It is found unless others have written
//! on into the same partition meanwhile, for longer than the window: a client that sends one payload to two processes, one of
//! which is cut off from Kafka for longer than `compactor.dedup_window`, may find it counted twice.

mod append;
mod breaker;
mod doubts;
mod drain;
mod entry;
mod gate;
mod metrics;
mod progress;
mod scan;
mod status;
pub mod store;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use events::{Offset, Topic, TopicPartition};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use runtime::{Runtime, Shutdown, UnixMicros};
use tokio::task::JoinHandle;

use self::breaker::Breaker;
use self::doubts::Doubts;
use self::drain::Drain;
use self::gate::{Gate, Keeper, Way};
use self::metrics::Metrics;
use crate::traced::TracedLog;
use crate::{AppendRecord, Error, LogWriter, Result, WriterHealth};

pub use self::breaker::BreakerState;
pub use self::status::Status;
pub use self::store::{LocalStore, Store};

/// See the module: how long the log must have answered before it is searched.
pub const DOUBT_REST: Duration = Duration::from_secs(10);
/// How soon something that nobody announces is looked at again.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// How the spill behaves.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// What the log has not acknowledged after this time is spilled.
    pub spill_after: Duration,
    /// Bytes that the drain has under way.
    pub window_bytes: usize,
    pub doubt_rest: Duration,
}

impl Settings {
    /// `pending_bytes_max`: what the log takes before it refuses; the drain leaves half of it to others.
    pub fn new(spill_after: Duration, pending_bytes_max: u64) -> Self {
        let window_bytes = (pending_bytes_max / 2).min(16 << 20) as usize;
        Self { spill_after, window_bytes, doubt_rest: DOUBT_REST }
    }
}

/// A log with a spill before it. See the module.
pub struct SpillLog<L: TracedLog + 'static, S: Store> {
    inner: Arc<Inner<L, S>>,
    draining: Mutex<Option<JoinHandle<()>>>,
}

struct Inner<L, S> {
    log: Arc<L>,
    store: Arc<S>,
    settings: Settings,
    runtime: Runtime,
    topic_partitions: Vec<TopicPartition>,
    /// See [`entry::topic_mark`].
    topic_marks: [u32; 3],
    gate: Arc<Gate>,
    breaker: Breaker,
    doubts: Doubts,
    metrics: Metrics,
    /// Everything before is in the log.
    drained: Mutex<BTreeMap<TopicPartition, Offset>>,
    /// When the oldest record that is left was spilled.
    oldest: Mutex<Option<UnixMicros>>,
    /// Bytes in the store when it had no room for an append, until it has taken one.
    full_at: Mutex<Option<u64>>,
    is_closed: AtomicBool,
    /// Ends the drain after the round that it is in.
    stop: Shutdown,
    /// Ends everything between two of its steps.
    cut: Shutdown,
}

impl<L: TracedLog + 'static, S: Store> SpillLog<L, S> {
    /// Stands before `log`. What is left in the store is drained first.
    ///
    /// # Errors
    /// Of the store, if it cannot be read.
    pub async fn open(log: Arc<L>, store: Arc<S>, settings: Settings, runtime: &Runtime) -> Result<Self> {
        let of = |topic| (0..LogWriter::partitions(&*log, topic)).map(move |number| TopicPartition::new(topic, number));
        let topic_partitions: Vec<_> = Topic::ALL.into_iter().flat_map(of).collect();
        let topic_marks = Topic::ALL.map(|topic| entry::topic_mark(&log.topic_id(topic)));
        let inner = Arc::new(Inner {
            topic_partitions,
            topic_marks,
            gate: Gate::new(Way::Direct),
            breaker: Breaker::default(),
            doubts: Doubts::new(&runtime.clock),
            metrics: Metrics::new(&runtime.telemetry),
            drained: Mutex::default(),
            oldest: Mutex::default(),
            full_at: Mutex::default(),
            is_closed: AtomicBool::new(false),
            stop: Shutdown::new(),
            cut: Shutdown::new(),
            log,
            store,
            settings,
            runtime: runtime.clone(),
        });
        let drain = Drain::open(&inner).await?;
        if inner.left() > 0 {
            drop(inner.gate.divert());
            let (records, bytes) = (inner.left(), inner.store.bytes());
            tracing::info!(records, bytes, "records that were kept on the local disk go to Kafka first");
        }
        let (cut, keeper) = (inner.cut.clone(), Keeper(inner.gate.clone()));
        let draining = tokio::spawn(async move {
            let _keeper = keeper;
            tokio::select! {
                biased;
                () = cut.begun() => {}
                () = drain.run() => {}
            }
        });
        Ok(Self { inner, draining: Mutex::new(Some(draining)) })
    }

    /// The log behind the spill.
    pub fn log(&self) -> &Arc<L> {
        &self.inner.log
    }

    pub fn store(&self) -> &Arc<S> {
        &self.inner.store
    }

    /// Refuses further appends and ends the drain, at most after `wait_max`. What is left stays for the next start.
    pub async fn stop(&self, wait_max: Duration) {
        self.inner.is_closed.store(true, Ordering::Release);
        self.inner.stop.begin();
        let draining = self.draining.lock().take();
        if let Some(mut draining) = draining
            && tokio::time::timeout(wait_max, &mut draining).await.is_err()
        {
            draining.abort();
            tracing::debug!("the drain had records under way; they are looked for at the next start");
        }
        let records = self.inner.left();
        if records > 0 {
            let bytes = self.inner.store.bytes();
            tracing::info!(
                records,
                bytes,
                "Kafka does not have all yet; the rest stays on the local disk for the next start"
            );
        }
    }
}

impl<L: TracedLog + 'static, S: Store> Drop for SpillLog<L, S> {
    fn drop(&mut self) {
        self.inner.cut.begin();
    }
}

impl<L: TracedLog + 'static, S: Store> Inner<L, S> {
    /// Records that are only in the spill, as far as is known.
    fn left(&self) -> u64 {
        self.left_beside(&[])
    }

    /// Of other partitions than `broken`.
    fn left_beside(&self, broken: &[TopicPartition]) -> u64 {
        let drained = self.drained.lock();
        let left = self.topic_partitions.iter().filter(|place| !broken.contains(place)).map(|place| {
            let end = self.store.range(*place).end;
            let drained = drained.get(place).copied().unwrap_or_default();
            (end.0 - drained.0).max(0) as u64
        });
        left.sum()
    }

    /// Whether everything before `ends` is in the log, in the order of `topic_partitions`.
    fn has_drained(&self, ends: &[Offset]) -> bool {
        let drained = self.drained.lock();
        let passed = |place: &TopicPartition, end: &Offset| drained.get(place).is_some_and(|drained| drained >= end);
        self.topic_partitions.iter().zip(ends).all(|(place, end)| passed(place, end))
    }
}

impl<L: TracedLog + 'static, S: Store> LogWriter for SpillLog<L, S> {
    fn append(&self, records: Vec<AppendRecord>) -> BoxFuture<'_, Result<Vec<Offset>>> {
        Box::pin(async move {
            if records.is_empty() {
                return Ok(Vec::new());
            }
            if self.inner.is_closed.load(Ordering::Acquire) {
                return Err(Error::Closed);
            }
            match self.inner.gate.enter().await {
                None => self.inner.clone().append_direct(records).await,
                Some(writing) => self.inner.clone().spill(records, writing).await,
            }
        })
    }

    fn settled(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let ends: Vec<_> =
                self.inner.topic_partitions.iter().map(|place| self.inner.store.range(*place).end).collect();
            while !self.inner.has_drained(&ends) {
                tokio::select! {
                    () = self.inner.gate.changed() => {}
                    () = self.inner.runtime.clock.wait(LOOK_INTERVAL) => {}
                }
            }
        })
    }

    fn partitions(&self, topic: Topic) -> u32 {
        LogWriter::partitions(&*self.inner.log, topic)
    }

    fn health(&self) -> WriterHealth {
        if self.inner.is_closed.load(Ordering::Acquire) {
            return WriterHealth::Unavailable(Error::Closed.to_string());
        }
        let is_direct = self.inner.gate.way() == Way::Direct;
        if is_direct && self.inner.log.health() == WriterHealth::Ready {
            return WriterHealth::Ready;
        }
        let bytes = self.inner.store.bytes();
        match self.inner.store.health() {
            WriterHealth::Ready if self.inner.full_at.lock().is_none_or(|full_at| bytes < full_at) => {
                WriterHealth::Ready
            }
            WriterHealth::Ready => WriterHealth::Unavailable(format!(
                "Kafka takes no records, and the local disk has no room beside {bytes} bytes (kafka.spill_max)"
            )),
            WriterHealth::Unavailable(why) => {
                WriterHealth::Unavailable(format!("Kafka takes no records, and the local disk neither: {why}"))
            }
        }
    }
}

#[cfg(test)]
mod tests;
