//! The way of one append: to the log, and into the spill if the log does not take it in time.
//!
//! What may be in the log already is spilled with a note that says so. If there is no room for it, its only hope is the
//! log's own answer, and it must not be reported as merely refused: whoever appends would send it again.

use std::sync::Arc;

use events::Offset;
use futures::future::BoxFuture;
use runtime::ErrorKind;

use super::doubts::Verdict;
use super::entry::{self, Label};
use super::gate::Writing;
use super::{Inner, Store};
use crate::traced::{Fate, Fates, TracedLog, TracedRecord};
use crate::{AppendRecord, Error, RecordId, Result, WriterHealth};

impl<L: TracedLog + 'static, S: Store> Inner<L, S> {
    /// Sends this append, and what comes later, into the spill.
    fn divert(&self, why: &str) -> Writing {
        let (writing, was_direct) = self.gate.divert();
        if was_direct {
            self.breaker.open();
            self.oldest.lock().get_or_insert(self.runtime.clock.now());
            // The watch of the brokers warns if they are away; one that is only slow mends itself.
            tracing::info!(why, "Kafka does not take records in time, they are kept on the local disk");
        }
        writing
    }

    /// To the log, with the spill behind it.
    pub async fn append_direct(self: Arc<Self>, records: Vec<AppendRecord>) -> Result<Vec<Offset>> {
        if let WriterHealth::Unavailable(why) = self.log.health() {
            return self.clone().spill(records, self.divert(&why)).await;
        }
        let named = self.name(records);
        // Before the records are handed over: they come at or after these places.
        let labels: Vec<_> = named
            .iter()
            .map(|traced| Label { id: traced.id, from: Some(self.log.end_seen(traced.record.topic_partition)) })
            .collect();
        let mut fates = match self.log.send(named.clone()) {
            Ok(fates) => fates,
            Err(error) if is_final(&error) => return Err(error),
            Err(error) => {
                let records = named.into_iter().map(|traced| traced.record).collect();
                return self.clone().spill(records, self.divert(&error.to_string())).await;
            }
        };
        let told = tokio::time::timeout(self.settings.spill_after, &mut fates).await;
        let Ok(told) = told else {
            let after = self.settings.spill_after;
            let writing = self.divert(&format!("no acknowledgement within {after:?}"));
            return self.detached(self.clone().spill_in_doubt(named, labels, fates, writing)).await;
        };
        let fates = told.map_err(|_| Error::Closed)?;
        if fates.iter().all(|fate| matches!(fate, Fate::Stored(_))) {
            return fates.into_iter().map(Fate::stored).collect();
        }
        if let Some(refused) = fates.iter().find(|fate| matches!(fate, Fate::Refused(_))) {
            return refused.clone().stored().map(|_| Vec::new());
        }
        self.detached(self.clone().spill_failed(named, labels, fates)).await
    }

    /// Those of a call that the log does not have.
    async fn spill_failed(
        self: Arc<Self>,
        named: Vec<TracedRecord>,
        labels: Vec<Label>,
        fates: Vec<Fate>,
    ) -> Result<Vec<Offset>> {
        let why = fates.iter().find_map(|fate| fate.clone().stored().err());
        let writing = self.divert(&why.map(|error| error.to_string()).unwrap_or_default());
        self.doubts.set(
            labels
                .iter()
                .zip(&fates)
                .filter(|(_, fate)| !matches!(fate, Fate::Stored(_)))
                .map(|(label, fate)| (label.id, Verdict::from(fate))),
        );
        let left = named.iter().zip(&labels).zip(&fates).filter(|(_, fate)| !matches!(fate, Fate::Stored(_)));
        let copies = left.map(|((traced, label), fate)| {
            let from = if matches!(fate, Fate::Absent(_)) { None } else { label.from };
            self.entry(&traced.record, Label { from, ..*label })
        });
        let stored = self.store_copies(copies.collect(), writing).await;
        if let Err(error) = stored {
            self.doubts.forget(labels.iter().map(|label| label.id));
            // Some of the call may be in the log: it must not be taken for one that was only refused.
            let topic_partition = named[0].record.topic_partition;
            return Err(Error::Unacknowledged { topic_partition, reason: error.to_string() });
        }
        Ok(fates.into_iter().map(|fate| fate.stored().unwrap_or(Offset::UNKNOWN)).collect())
    }

    /// A call whose fate the log has not told yet.
    async fn spill_in_doubt(
        self: Arc<Self>,
        named: Vec<TracedRecord>,
        labels: Vec<Label>,
        fates: Fates,
        writing: Writing,
    ) -> Result<Vec<Offset>> {
        let ids: Vec<RecordId> = labels.iter().map(|label| label.id).collect();
        self.doubts.set(ids.iter().map(|id| (*id, Verdict::Pending)));
        let told = self.detached({
            let (inner, ids) = (self.clone(), ids.clone());
            async move {
                let fates = fates.await.map_err(|_| Error::Closed)?;
                inner.doubts.set(ids.into_iter().zip(fates.iter().map(Verdict::from)));
                fates.into_iter().map(Fate::stored).collect::<Result<Vec<_>>>()
            }
        });
        let copies = named.iter().zip(&labels).map(|(traced, label)| self.entry(&traced.record, *label));
        match self.store_copies(copies.collect(), writing).await {
            Ok(()) => Ok(vec![Offset::UNKNOWN; named.len()]),
            // No room here either, but the log may still answer. Whatever it says, nobody needs to know it later.
            Err(_) => {
                let told = told.await;
                self.doubts.forget(ids);
                told
            }
        }
    }

    /// A call that was not handed to the log.
    pub async fn spill(self: Arc<Self>, records: Vec<AppendRecord>, writing: Writing) -> Result<Vec<Offset>> {
        let count = records.len();
        let named = self.name(records);
        let copies = named.iter().map(|traced| self.entry(&traced.record, Label { id: traced.id, from: None }));
        let copies = copies.collect();
        let inner = self.clone();
        self.detached(async move { inner.store_copies(copies, writing).await }).await?;
        Ok(vec![Offset::UNKNOWN; count])
    }

    async fn store_copies(&self, copies: Vec<AppendRecord>, writing: Writing) -> Result<()> {
        let count = copies.len() as u64;
        let stored = self.store.append(copies).await;
        drop(writing);
        match stored {
            Ok(_) => {
                self.metrics.spilled.inc_by(count);
                *self.full_at.lock() = None;
                Ok(())
            }
            Err(error) => {
                self.metrics.refused.inc();
                Err(match error {
                    Error::Full { held_bytes, max_bytes } => {
                        *self.full_at.lock() = Some(self.store.bytes());
                        Error::SpillFull { held_bytes, max_bytes }
                    }
                    error => error,
                })
            }
        }
    }

    fn name(&self, records: Vec<AppendRecord>) -> Vec<TracedRecord> {
        let name =
            |record| TracedRecord { id: RecordId(*self.runtime.entropy.uuid().as_bytes()), taken_at: None, record };
        records.into_iter().map(name).collect()
    }

    fn entry(&self, record: &AppendRecord, label: Label) -> AppendRecord {
        entry::encode(record, label, self.topic_marks[record.topic_partition.topic as usize])
    }

    /// Goes on though nobody waits for it any more: what is written here must also be counted here.
    fn detached<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> BoxFuture<'static, Result<T>> {
        let cut = self.cut.clone();
        let running = tokio::spawn(async move {
            tokio::select! {
                biased;
                () = cut.begun() => Err(Error::Closed),
                outcome = work => outcome,
            }
        });
        Box::pin(async move { running.await.unwrap_or(Err(Error::Closed)) })
    }
}

/// Whether the spill has no use for it.
fn is_final(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Reject | ErrorKind::Fatal | ErrorKind::Corrupt) || matches!(error, Error::Closed)
}
