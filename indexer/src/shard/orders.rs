//! What others want done with the writer of a shard: merging its segments now.
//!
//! In: work, in a queue that the task of the shard takes from between two fetches. Out: its result, to whoever asked.
//! Promise: the shard goes on following the log while segments merge; the task only begins a merge and tidies up after it.
//! Not here: merges that the policy of the index decides.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use events::ContextState;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::open_writer::OpenWriter;
use super::{Shard, Surroundings};
use crate::index::MergeUnderWay;
use crate::{Error, Result};

/// Orders that wait; a caller waits for its answer before the next, so there are as many as callers.
const ORDERS_MAX: usize = 64;
/// Rounds of a merge. The first may collide with a merge of the policy, the second cannot.
const ROUNDS_MAX: usize = 8;
/// Searches under way keep files of segments that are merged; they take seconds at most.
const TIDY_ATTEMPTS: usize = 600;
const TIDY_PAUSE: Duration = Duration::from_millis(100);

type Order = Box<dyn FnOnce(&mut OpenWriter, &Surroundings) -> Result<()> + Send>;

#[derive(Default)]
pub(super) struct Orders(Mutex<VecDeque<Order>>);

impl Orders {
    pub fn take(&self) -> Option<Order> {
        self.0.lock().pop_front()
    }
}

/// Which segments a merge takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MergeScope {
    /// All, into one.
    All,
    /// Those from which documents were removed: their bytes are in the files until then.
    WithRemoved,
}

/// What a merge has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// Segments that were replaced.
    pub segments: usize,
    /// Documents that had been removed before, and whose bytes went with these.
    pub removed_documents: u64,
}

impl Shard {
    /// Has `work` done by the task of this shard.
    ///
    /// # Errors
    /// `NotOpen` if the task is not there, or many wait already; what `work` says.
    async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut OpenWriter, &Surroundings) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let closed = || Error::NotOpen { partition: self.partition };
        let (sender, answer) = oneshot::channel();
        {
            let mut orders = self.orders.0.lock();
            if orders.len() >= ORDERS_MAX {
                return Err(closed());
            }
            orders.push_back(Box::new(move |open, surroundings| {
                // Who asked may have gone.
                let _ = sender.send(work(open, surroundings));
                Ok(())
            }));
        }
        self.wake.notify_one();
        answer.await.map_err(|_| closed())?
    }

    /// Puts states that a check found missing or older, unless a newer one has come since.
    pub async fn put_missing(&self, states: Vec<ContextState>) -> Result<()> {
        if states.is_empty() {
            return Ok(());
        }
        self.ask(move |open, surroundings| {
            states.into_iter().try_for_each(|state| open.put_missing(state))?;
            open.commit_if_dirty(surroundings)
        })
        .await
    }

    /// Merges segments and removes their files.
    ///
    /// # Errors
    /// `StillRead` if searches keep files for a minute; `Index`.
    pub async fn merge(self: &Arc<Self>, scope: MergeScope, clock: &runtime::Clock) -> Result<Merged> {
        let merged = self.merge_rounds(scope).await;
        self.ask(|open, _| {
            open.writer.merge_by_policy();
            Ok(())
        })
        .await?;
        let merged = merged?;
        for _ in 0..TIDY_ATTEMPTS {
            self.reader()?.reload()?;
            if self.ask(|open, _| open.writer.remove_unnamed_files()).await? {
                return Ok(merged);
            }
            clock.wait(TIDY_PAUSE).await;
        }
        Err(Error::StillRead { partition: self.partition })
    }

    /// No merge of the policy begins from the first round on, and merges run one after the other. So when the merge of a
    /// round has ended, all that had begun before have, and the next finds what they made.
    async fn merge_rounds(&self, scope: MergeScope) -> Result<Merged> {
        let mut merged = Merged::default();
        let mut failure = None;
        let mut is_certain = false;
        for _ in 0..ROUNDS_MAX {
            let begun = self.ask(move |open, surroundings| {
                open.commit_if_dirty(surroundings)?;
                open.writer.begin_merge(scope)
            });
            let Some(MergeUnderWay { ended, segments, removed_documents }) = begun.await? else { return Ok(merged) };
            match ended.await {
                Ok(_) => {
                    merged.segments += segments;
                    merged.removed_documents += removed_documents;
                    if is_certain || scope == MergeScope::All {
                        return Ok(merged);
                    }
                    failure = None;
                }
                Err(error) => failure = Some(error),
            }
            is_certain = true;
        }
        match failure {
            Some(source) => Err(Error::Index { action: "merge segments", source }),
            None => Ok(merged),
        }
    }
}
