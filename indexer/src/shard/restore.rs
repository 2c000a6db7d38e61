//! Brings a lost shard back from a copy on the object store, before the table of states is asked.
//!
//! In: the newest copy that serves. Out: the shard's directory, opened, and the offset from which to read the log.
//! Promise: the directory is replaced in one step, by a copy that was checked; a process that dies meanwhile finds an
//! empty shard, and begins anew. A copy that turns out not to serve after all is not asked for a second time.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use events::{Offset, Topic};
use runtime::Shutdown;

use super::{READER, ShardTask};
use crate::index;
use crate::snapshot::SnapshotStore;
use crate::snapshot::restore::{Wanted, fetch};
use crate::{Error, Result};

impl ShardTask {
    /// Where copies arrive: beside the shard, on the same file system.
    pub(super) fn incoming(&self) -> PathBuf {
        let mut name = self.shard.path.clone().into_os_string();
        name.push(".incoming");
        name.into()
    }

    /// Takes over the newest copy. Given up when shutdown begins.
    pub(super) async fn restore(&mut self, store: &SnapshotStore, shutdown: &Shutdown) -> Result<()> {
        let (log, runtime) = (self.surroundings.log.clone(), self.surroundings.runtime.clone());
        let started = runtime.clock.instant();
        // A copy with a gap after it is better than nothing, but not than the table or a directory with a gap.
        let is_last_resort =
            self.surroundings.table.is_none() && self.open.as_ref().is_none_or(|open| open.next.is_none());
        let log_start = log.bounds(self.topic_partition()).await?.start.0;
        let wanted = Wanted {
            partition: self.shard.partition,
            topic_id: log.topic_id(Topic::Contexts).to_string(),
            log_start: (!is_last_resort).then_some(log_start),
            below: self.copies_below,
        };
        let incoming = self.incoming();
        let fetched = tokio::select! {
            fetched = fetch(store, &wanted, &incoming, &runtime, &self.surroundings.metrics) => fetched,
            () = shutdown.begun() => return Ok(()),
        };
        let restored = fetched?;
        self.needs_restore = false;
        let Some(restored) = restored else {
            // What a copy that did not serve has left.
            index::discard(&incoming)?;
            self.has_no_copy = true;
            self.shard.progress.lock().is_rebuilding = self.needs_seed || self.predecessor.is_some();
            return Ok(());
        };
        // Frees the lock. Who searches sees what was there until the new one is open.
        self.open = None;
        self.shard.generation.fetch_add(1, Ordering::AcqRel);
        index::discard(&self.shard.path)?;
        std::fs::rename(&incoming, &self.shard.path).map_err(Error::io("move into place", &incoming))?;
        self.restored_from = Some(restored.sequence);
        self.open_shard()?;
        let next = self.shard.progress.lock().next;
        log.commit(READER, self.topic_partition(), Offset(next));
        self.surroundings.metrics.restored_snapshots.inc();
        tracing::info!(
            partition = self.shard.partition,
            sequence = restored.sequence,
            next = restored.next,
            files = restored.files,
            bytes = restored.bytes,
            seconds = started.elapsed().as_secs_f64(),
            "index taken over from a copy, reading on from the log"
        );
        Ok(())
    }

    /// Whether a shard that reads on from `next` makes room for a copy, as the log has forgotten what comes then and the
    /// copy has it.
    ///
    /// # Errors
    /// `Damaged` if it is the table that has it: the shard is to be begun anew.
    pub(super) async fn gives_way(&mut self, next: i64, log_start: i64) -> Result<bool> {
        if next >= log_start {
            return Ok(false);
        }
        let partition = self.shard.partition;
        let topic_id = self.surroundings.log.topic_id(Topic::Contexts).to_string();
        if let Some(store) = &self.surroundings.snapshots
            && !self.has_no_copy
            && let Some(Ok(newest)) = store.newest(partition).await?.map(|found| found.manifest)
            && newest.content.is_some_and(|content| content.topic_id == topic_id && content.next >= log_start)
        {
            tracing::info!(partition, next, log_start, "the log has left the index behind; looking for a copy");
            self.needs_restore = true;
            self.shard.progress.lock().is_rebuilding = true;
            return Ok(true);
        }
        let Some(table) = &self.surroundings.table else { return Ok(false) };
        let position = table.position(partition, &topic_id).await;
        let position = position.map_err(|source| Error::Table { action: "ask the table where it stands", source })?;
        if position.next.is_some_and(|next| next >= log_start) {
            return Err(Error::Damaged {
                what: format!(
                    "it covers what is before offset {next}, the log begins at {log_start}, the table has the rest"
                ),
            });
        }
        Ok(false)
    }
}
