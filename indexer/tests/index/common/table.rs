//! A table of states in memory.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use events::{ContextState, ErasedContexts};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt};
use indexer::table::{ErasedStates, StateTable, States, TableBatch, TableChange, TableError, TablePosition};
use parking_lot::Mutex;

/// A table in memory that can be slow and can fail.
#[derive(Default)]
pub struct FakeTable {
    pub partitions: Mutex<HashMap<u32, Kept>>,
    /// One state at a time, with a pause after each.
    pub is_slow: AtomicBool,
    pub fails: AtomicBool,
    pub refused: AtomicUsize,
    pub written: AtomicUsize,
}

#[derive(Clone, Default)]
pub struct Kept {
    pub topic_id: String,
    pub next: i64,
    pub sequence: i64,
    pub changes: Vec<Vec<ContextState>>,
}

impl StateTable for FakeTable {
    fn position<'a>(&'a self, partition: u32, topic_id: &'a str) -> BoxFuture<'a, Result<TablePosition, TableError>> {
        let kept = self.partitions.lock().get(&partition).cloned().unwrap_or_default();
        let next = (kept.topic_id == topic_id).then_some(kept.next);
        let position =
            TablePosition { next, sequence: kept.sequence, base_written_at: i64::MAX / 2, ..Default::default() };
        async move { Ok(position) }.boxed()
    }

    fn read(
        &self,
        partition: u32,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Result<TableBatch, TableError>>, TableError>> {
        let kept = self.partitions.lock().get(&partition).cloned().unwrap_or_default();
        let is_slow = self.is_slow.load(Ordering::Relaxed);
        let size = if is_slow { 1 } else { 100 };
        let batches: Vec<TableBatch> = (kept.changes.iter().enumerate())
            .flat_map(|(number, states)| {
                states.chunks(size).map(move |chunk| TableBatch { states: chunk.to_vec(), may_replace: number > 0 })
            })
            .collect();
        let paced = futures::stream::iter(batches).then(move |batch| async move {
            if is_slow {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Ok(batch)
        });
        async move { Ok(paced.boxed()) }.boxed()
    }

    fn write(&self, change: TableChange, states: States) -> BoxFuture<'_, Result<(), TableError>> {
        async move {
            let states: Vec<Vec<ContextState>> = states.try_collect().await?;
            if self.fails.load(Ordering::Relaxed) {
                self.refused.fetch_add(1, Ordering::Relaxed);
                return Err("the table is away".into());
            }
            let mut partitions = self.partitions.lock();
            let kept = partitions.entry(change.partition).or_default();
            assert_eq!(kept.sequence, change.sequence);
            if change.is_base {
                kept.changes.clear();
            } else {
                assert!(kept.topic_id == change.topic_id && change.next >= kept.next, "goes forward");
            }
            (kept.topic_id, kept.next, kept.sequence) = (change.topic_id, change.next, change.sequence + 1);
            self.written.fetch_add(states.iter().map(Vec::len).sum::<usize>(), Ordering::Relaxed);
            kept.changes.push(states.concat());
            Ok(())
        }
        .boxed()
    }

    fn erase<'a>(
        &'a self,
        _: &'a str,
        contexts: &'a ErasedContexts,
    ) -> BoxFuture<'a, Result<ErasedStates, TableError>> {
        let mut rows = 0;
        for kept in self.partitions.lock().values_mut() {
            kept.sequence += 1;
            for states in &mut kept.changes {
                let before = states.len();
                states.retain(|state| {
                    let is_meant = contexts.contains(&state.kind, &state.key) || contexts.are_in(&state.key);
                    !(is_meant && contexts.is_of(&state.project, &state.environment))
                });
                rows += (before - states.len()) as u64;
            }
        }
        async move { Ok(ErasedStates { rows, ..Default::default() }) }.boxed()
    }
}

impl FakeTable {
    /// All rows.
    pub fn states(&self) -> Vec<ContextState> {
        self.partitions.lock().values().flat_map(|kept| kept.changes.concat()).collect()
    }
}
