//! Makes a shard again from the table of states, before it reads on from the log.
//!
//! In: states of the table, older ones of a context first. Out: documents, and the offset from which to read the log.
//! Promise: what was taken over so far can be searched, and is marked as partial in every commit, so that a process that
//! dies meanwhile finds no shard that looks whole: the next one begins anew.
//! Without a table, and where it has nothing of this shard, the log is read from its start.

use events::Topic;
use futures::TryStreamExt;
use runtime::Shutdown;

use super::ShardTask;
use crate::table::{StateTable, TableError};
use crate::{Error, Result};

impl ShardTask {
    /// Takes over what the table holds. Given up when shutdown begins.
    pub(super) async fn seed(&mut self, table: &dyn StateTable, shutdown: &Shutdown) -> Result<()> {
        let failed = |source: TableError| Error::Table { action: "read states from the table", source };
        let partition = self.shard.partition;
        let topic_id = self.surroundings.log.topic_id(Topic::Contexts).to_string();
        // First where it stands, then the states: these may be newer, never older.
        let position = table.position(partition, &topic_id).await.map_err(failed)?;
        let next = match position.next {
            Some(next) => next,
            None => self.surroundings.log.bounds(self.topic_partition()).await?.start.0,
        };
        let mut batches = table.read(partition).await.map_err(failed)?;
        let mut states = 0;
        loop {
            let batch = tokio::select! {
                batch = batches.try_next() => batch.map_err(failed)?,
                () = shutdown.begun() => return Ok(()),
            };
            let Some(batch) = batch else { break };
            states += batch.states.len();
            self.blocking(move |open, surroundings| open.take_over(batch, surroundings)).await?;
        }
        let is_known = position.next.is_some() || states > 0;
        self.blocking(move |open, surroundings| open.finish_taking_over(next, is_known, surroundings)).await?;
        self.needs_seed = false;
        self.shard.progress.lock().is_rebuilding = self.predecessor.is_some();
        if is_known {
            tracing::info!(partition, states, next, "index made again from the table, reading on from the log");
        }
        Ok(())
    }
}
