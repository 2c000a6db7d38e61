//! Writes the states of contexts down in a table, from which a lost index comes back.
//!
//! In: the log, for which contexts were touched since the table was last written, and the index, for their states. Out:
//! changes of a [`StateTable`], and the offset up to which the log may forget as far as the table is concerned.
//! Promise: what the table covers it holds: states are taken from an index that is at least as new as the offset written
//! with them. A state that is newer than that offset is no harm, as folding the same rows again changes nothing.
//! Whoever makes an index from the table and then reads the log from the table's offset misses nothing.
//!
//! The rows of a change are not handed over by the writer of the index: it would have to hold them until the table has
//! answered, and after a death of the process they would have to be found again from the log anyway. So they always are.
//! Keeping only events' own rows (table `events`) was the other choice: it names every context too, but a rebuild would
//! read thirty days of events, and could not tell an attribute that was held back from one that was taken away.

mod check;
mod erase;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use eventlog::{FetchedRecord, LogReader, frame};
use events::{ContextState, Environment, LogBatch, Offset, Topic, TopicPartition};
use futures::StreamExt;
use hashbrown::HashMap;
use runtime::{Runtime, Shutdown};
use tokio::sync::mpsc;

use crate::fold::after_first_part;
use crate::index::ShardReader;
use crate::metrics::Metrics;
use crate::record::INSTANCE_KIND;
use crate::shard::Shard;
use crate::table::{StateTable, States, TableChange, TablePosition};
use crate::terms::EnvironmentPrefix;
use crate::{Error, Result, blocking};
pub use check::{CheckOrder, Checked};
pub use erase::EraseOrder;

/// Name under which the log knows this reader.
pub const READER: &str = "contexts-table";

/// Bytes asked of the log at once.
const FETCH_BYTES: usize = 4 << 20;
/// Identities of touched contexts that one change covers at most, in bytes.
const TOUCHED_BYTES_MAX: usize = 16 << 20;
/// States in flight between index and table: this many batches of about this size.
const BATCHES_IN_FLIGHT: usize = 2;
const BATCH_BYTES: usize = 1 << 20;
/// All states are written anew when what was added since is larger than they were, and this.
const ADDED_BYTES_MIN: u64 = 16 << 20;
/// Or when there are so many files, each of which a rebuild opens.
const FILES_MAX: usize = 256;
/// Or when they were last written so long ago, so that contexts past their retention leave the table too.
const BASE_AGE_MAX: Duration = Duration::from_secs(24 * 3600);

/// Keeps a table up with the shards of this process.
pub struct Keeper {
    pub shards: Vec<Arc<Shard>>,
    pub table: Arc<dyn StateTable>,
    pub log: Arc<dyn LogReader>,
    pub runtime: Runtime,
    pub interval: Duration,
    pub metrics: Metrics,
    pub orders: mpsc::Receiver<KeepOrder>,
    pub retention: Duration,
    /// Bound on the contexts of one environment in one shard.
    pub environment_contexts: Option<u64>,
}

/// What others want done with the table.
pub enum KeepOrder {
    Erase(EraseOrder),
    Check(CheckOrder),
}

impl Keeper {
    /// Writes once per interval until shutdown begins. What is not written then is found in the log after the next start.
    pub async fn run(mut self, shutdown: Shutdown) {
        let mut has_failed = false;
        while !shutdown.has_begun() {
            tokio::select! {
                () = self.pause() => {}
                () = shutdown.begun() => return,
            }
            let kept = tokio::select! {
                kept = self.keep_all() => kept,
                () = shutdown.begun() => return,
            };
            match kept {
                Ok(()) => has_failed = false,
                Err(error) if has_failed => {
                    tracing::debug!(%error, "states of contexts still not written to the table")
                }
                Err(error) => {
                    has_failed = true;
                    tracing::warn!(%error, "states of contexts could not be written to the table, trying again");
                }
            }
        }
    }

    /// Waits for the next round, and does meanwhile what is asked for.
    async fn pause(&mut self) {
        let clock = self.runtime.clock.clone();
        let mut pause = std::pin::pin!(clock.wait(self.interval));
        loop {
            tokio::select! {
                () = &mut pause => return,
                Some(order) = self.orders.recv() => {
                    // Who asked may have gone.
                    match order {
                        KeepOrder::Erase(order) => {
                            let _ = order.answer.send(self.erase(&order.id, &order.contexts).await);
                        }
                        KeepOrder::Check(order) => {
                            let _ = order.answer.send(self.check(order.partition, order.repairs).await);
                        }
                    }
                }
            }
        }
    }

    /// Brings the table up to all shards.
    pub async fn keep_all(&self) -> Result<()> {
        let topic_id = self.log.topic_id(Topic::Contexts).to_string();
        for shard in &self.shards {
            while self.keep(shard, &topic_id).await? {}
        }
        Ok(())
    }

    /// One change of the table, if it is behind. Returns whether there was one.
    async fn keep(&self, shard: &Arc<Shard>, topic_id: &str) -> Result<bool> {
        // Both at once: a shard that is begun anew from here on must not pass for the one that covered this.
        let Some((covered, reader)) = shard.whole() else { return Ok(false) };
        let topic_partition = TopicPartition::new(Topic::Contexts, shard.partition);
        let position =
            self.table.position(shard.partition, topic_id).await.map_err(failed("ask the table where it stands"))?;
        if let Some(next) = position.next {
            self.log.commit(READER, topic_partition, Offset(next));
        }
        if position.next.is_some_and(|next| next >= covered) {
            return Ok(false);
        }
        let held = self.log.bounds(topic_partition).await?;
        // What the log has forgotten cannot be looked up there; what the index holds is all that there is.
        let known = position.next.filter(|next| *next >= held.start.0);
        let (next, states) = match known {
            Some(from) if !self.wants_base(&position) => {
                let (reached, touched) = self.touched(topic_partition, from, covered).await?;
                (reached, Some(touched))
            }
            _ => (covered, None),
        };
        let change = TableChange {
            partition: shard.partition,
            topic_id: topic_id.to_owned(),
            sequence: position.sequence,
            next,
            is_base: states.is_none(),
        };
        let written = Arc::new(AtomicU64::new(0));
        let states = stream_states(Arc::clone(shard), reader, states, Arc::clone(&written));
        self.table.write(change, states).await.map_err(failed("write states to the table"))?;
        self.log.commit(READER, topic_partition, Offset(next));
        let written = written.load(Ordering::Relaxed);
        self.metrics.table_states.inc_by(written);
        tracing::debug!(partition = shard.partition, next, states = written, "states of contexts written to the table");
        Ok(true)
    }

    fn wants_base(&self, position: &TablePosition) -> bool {
        let age = self.runtime.clock.now().as_millis() - position.base_written_at;
        position.bytes > 2 * position.base_bytes + ADDED_BYTES_MIN
            || position.files > FILES_MAX
            || age > BASE_AGE_MAX.as_millis() as i64
    }

    /// The contexts that the log names from `from` on, up to `end` or to the bound of memory; and how far that is.
    async fn touched(&self, topic_partition: TopicPartition, from: i64, end: i64) -> Result<(i64, Touched)> {
        let mut touched = Touched::default();
        let mut reached = from;
        while reached < end && touched.bytes < TOUCHED_BYTES_MAX {
            let mut fetched = self.log.fetch(topic_partition, Offset(reached), FETCH_BYTES, Duration::ZERO).await?;
            fetched.retain(|record| record.offset.0 < end);
            let Some(last) = fetched.last() else { break };
            reached = last.offset.0 + 1;
            touched = blocking(&self.runtime, "read the log", move || Ok(touched.with(&fetched))).await?;
        }
        Ok((reached, touched))
    }
}

fn failed(action: &'static str) -> impl FnOnce(crate::table::TableError) -> Error {
    move |source| Error::Table { action, source }
}

/// Identities of contexts, each with the oldest time at which it was seen.
#[derive(Debug, Default)]
struct Touched {
    seen_at: HashMap<Vec<u8>, i64>,
    bytes: usize,
}

impl Touched {
    fn with(mut self, fetched: &[FetchedRecord]) -> Self {
        for record in fetched {
            // What cannot be read was reported when the index passed over it.
            if let Ok(LogBatch::Sightings(batch)) = frame::decode(&record.frame) {
                self.add(batch.sightings());
            }
        }
        self
    }

    fn add(&mut self, rows: &RecordBatch) {
        let text = |column: usize| rows.column(column).as_string::<i32>();
        let (projects, environments, kinds, keys) = (text(0), text(1), text(2), text(3));
        let seen_at = rows.column(6).as_primitive::<TimestampMicrosecondType>();
        let (instances, wishes, erased) = (text(9), rows.column(11).as_boolean(), rows.column(12).as_boolean());
        let mut last: Option<(&str, &str, EnvironmentPrefix)> = None;
        for row in 0..rows.num_rows() {
            let (project, key) = (projects.value(row), environments.value(row));
            let prefix = match last {
                Some((last_project, last_key, prefix)) if (last_project, last_key) == (project, key) => prefix,
                _ => EnvironmentPrefix::new(&Environment::new(project, key)),
            };
            last = Some((project, key, prefix));
            // A state from which something was deleted has changed, however long ago it was last seen.
            let is_wish = wishes.is_valid(row) && wishes.value(row);
            let at = if is_wish { i64::MIN } else { seen_at.value(row) };
            let (kind, key) = (kinds.value(row), keys.value(row));
            if erased.is_valid(row) && erased.value(row) {
                self.touch(prefix.erased(prefix.erased_hash(kind, key)), at);
                continue;
            }
            self.touch(prefix.identity(kind, key), at);
            if instances.is_valid(row) && after_first_part(instances.value(row), kind, key).is_some() {
                self.touch(prefix.identity(INSTANCE_KIND, instances.value(row)), at);
            }
        }
    }

    fn touch(&mut self, identity: Vec<u8>, at: i64) {
        let bytes = identity.len() + size_of::<(Vec<u8>, i64)>();
        let oldest = self.seen_at.entry(identity).or_insert_with(|| {
            self.bytes += bytes;
            i64::MAX
        });
        *oldest = (*oldest).min(at);
    }
}

/// States of the touched contexts, or of all, read from the index as the table takes them.
fn stream_states(shard: Arc<Shard>, reader: ShardReader, touched: Option<Touched>, written: Arc<AtomicU64>) -> States {
    let (sender, receiver) = mpsc::channel(BATCHES_IN_FLIGHT);
    tokio::task::spawn_blocking(move || {
        let mut batches = Batches { sender, states: Vec::new(), bytes: 0, written };
        let sent = shard.guarded("reading states for the table", || {
            let searcher = reader.searcher();
            let Some(touched) = &touched else {
                return reader.for_each_record(&searcher, |record| Ok(batches.push(record.into())));
            };
            let seen: Vec<_> = touched.seen_at.iter().collect();
            let identities = seen.iter().map(|(identity, _)| identity.as_slice());
            for (address, number) in reader.locate_all(&searcher, identities)? {
                let record = reader.record(&searcher, address)?;
                // Seen later than it was last written: every sighting since said nothing new, and nothing was folded.
                let is_unchanged = record.last_seen < *seen[number].1;
                if !is_unchanged && !batches.push(record.into()) {
                    break;
                }
            }
            Ok(())
        });
        match sent {
            Ok(()) => batches.flush() && batches.sender.blocking_send(Ok(None)).is_ok(),
            Err(error) => batches.sender.blocking_send(Err(error)).is_ok(),
        };
    });
    // Only the mark ends the states: a sender that is gone without it has not sent all.
    let next = |receiver: Option<mpsc::Receiver<Result<Option<Vec<ContextState>>>>>| async move {
        let mut receiver = receiver?;
        match receiver.recv().await {
            Some(Ok(Some(states))) => Some((Ok(states), Some(receiver))),
            Some(Ok(None)) => None,
            Some(Err(error)) => Some((Err(error), None)),
            None => Some((Err(Error::Panicked { action: "reading states for the table" }), None)),
        }
    };
    futures::stream::unfold(Some(receiver), next).boxed()
}

/// States on their way.
struct Batches {
    sender: mpsc::Sender<Result<Option<Vec<ContextState>>>>,
    states: Vec<ContextState>,
    bytes: usize,
    written: Arc<AtomicU64>,
}

impl Batches {
    /// False: nobody takes them any more.
    fn push(&mut self, state: ContextState) -> bool {
        self.bytes += state.bytes();
        self.states.push(state);
        self.bytes < BATCH_BYTES || self.flush()
    }

    fn flush(&mut self) -> bool {
        self.bytes = 0;
        self.written.fetch_add(self.states.len() as u64, Ordering::Relaxed);
        self.sender.blocking_send(Ok(Some(std::mem::take(&mut self.states)))).is_ok()
    }
}
