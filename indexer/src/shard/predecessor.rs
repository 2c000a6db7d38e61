//! What is searched while a shard is made anew: the directory that was there before.
//!
//! In: a shard that is to be made anew though it can be searched, since its format is an older one or somebody ordered it.
//! Out: searches over the old directory until the new shard covers what that covered; then the old one goes.
//! Promise: searches find what they found before, though nothing newer until then. A process that dies meanwhile leaves
//! both directories, and the next one searches the old while it makes the new again.
//! Not here: damage. A shard that may be damaged is thrown away, and searches lack its contexts meanwhile.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use events::Topic;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{Shard, ShardTask};
use crate::index::{self, Position, ShardReader};
use crate::table::StateTable;
use crate::{Error, Result, blocking};

/// Callers that wait for the beginning of one.
const ASKED_MAX: usize = 8;
/// How often it is looked whether a shard is whole again.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// The directory before, open to searches.
pub(super) struct Predecessor {
    path: PathBuf,
    position: Position,
}

/// Who wants a shard made anew.
#[derive(Default)]
pub(super) struct Renewals(Mutex<VecDeque<oneshot::Sender<Result<()>>>>);

impl Renewals {
    pub fn take(&self) -> Option<oneshot::Sender<Result<()>>> {
        self.0.lock().pop_front()
    }
}

/// Where the directory before a shard lies.
pub fn path_before(path: &Path) -> PathBuf {
    let mut name = path.to_owned().into_os_string();
    name.push(".before");
    name.into()
}

impl Shard {
    /// Makes the shard anew from the table of states and the log, while the one before is searched.
    ///
    /// # Errors
    /// `NotOpen` if the task is not there, or many wait already; `SwitchedOff` without a table; `NotCovered` if table and
    /// log do not hold all of it.
    pub async fn renew(&self, clock: &runtime::Clock) -> Result<()> {
        let closed = || Error::NotOpen { partition: self.partition };
        let (sender, begun) = oneshot::channel();
        {
            let mut asked = self.renewals.0.lock();
            if asked.len() >= ASKED_MAX {
                return Err(closed());
            }
            asked.push_back(sender);
        }
        self.wake.notify_one();
        begun.await.map_err(|_| closed())??;
        while self.progress.lock().is_rebuilding {
            if !self.is_held() {
                return Err(closed());
            }
            clock.wait(LOOK_INTERVAL).await;
        }
        Ok(())
    }
}

impl ShardTask {
    /// At the start: sets a shard aside that is of an older format, and takes up one that was set aside before.
    pub(super) fn find_predecessor(&mut self) -> Result<()> {
        if index::is_outdated(&self.shard.path) {
            tracing::warn!(partition = self.shard.partition, "the index is of an older format; it is made anew beside");
            self.note_rebuild();
            self.set_aside()?;
        }
        self.take_up_predecessor()
    }

    fn set_aside(&self) -> Result<()> {
        let before = path_before(&self.shard.path);
        index::discard(&before)?;
        std::fs::rename(&self.shard.path, &before).map_err(Error::io("move aside", &self.shard.path))
    }

    fn take_up_predecessor(&mut self) -> Result<()> {
        let path = path_before(&self.shard.path);
        if !path.exists() {
            return Ok(());
        }
        match index::open_to_search(&path) {
            Ok((reader, position)) => {
                self.shard.search(reader, &position);
                self.predecessor = Some(Predecessor { path, position });
                Ok(())
            }
            Err(error) => {
                tracing::warn!(partition = self.shard.partition, %error, "what was to be searched meanwhile is thrown away");
                index::discard(&path)
            }
        }
    }

    /// Begins to make the shard anew because somebody wants it.
    pub(super) async fn renew(&mut self) -> Result<()> {
        if self.predecessor.is_some() || self.needs_seed || self.needs_restore {
            // It is being made anew.
            return Ok(());
        }
        let Some(table) = self.surroundings.table.clone() else {
            return Err(Error::SwitchedOff { action: "keeping the table of states" });
        };
        self.check_covered(table.as_ref()).await?;
        self.blocking(|open, surroundings| open.commit_if_dirty(surroundings)).await?;
        let Some(open) = self.open.take() else { return Ok(()) };
        // A merge that outlived its writer would go on in the directory that takes this one's place.
        blocking(&self.surroundings.runtime, "ending merges", move || open.writer.close()).await?;
        self.note_rebuild();
        self.set_aside()?;
        self.take_up_predecessor()?;
        self.open_shard()?;
        // Who asks for this does not trust the copies either.
        self.needs_restore = false;
        Ok(())
    }

    /// Whether table and log hold all that the shard does.
    async fn check_covered(&self, table: &dyn StateTable) -> Result<()> {
        let partition = self.shard.partition;
        let topic_id = self.surroundings.log.topic_id(Topic::Contexts).to_string();
        let position = table.position(partition, &topic_id).await;
        let position = position.map_err(|source| Error::Table { action: "ask the table where it stands", source })?;
        let log_start = self.surroundings.log.bounds(self.topic_partition()).await?.start.0;
        if position.next.unwrap_or(0) < log_start {
            return Err(Error::NotCovered { partition, table_end: position.next, log_start });
        }
        Ok(())
    }

    /// Lets searches see the new shard once it covers what the one before it did, or all there is.
    pub(super) fn replace_predecessor(&mut self, log_end: i64) {
        let Some(before) = &self.predecessor else { return };
        let Some(open) = &self.open else { return };
        let is_of_this_log = before.position.topic_id == self.surroundings.log.topic_id(Topic::Contexts).to_string();
        {
            let mut progress = self.shard.progress.lock();
            if is_of_this_log && progress.next < before.position.next.min(log_end) {
                return;
            }
            self.shard.show(open.writer.reader().clone());
            (progress.is_rebuilding, progress.has_predecessor) = (false, false);
        }
        let partition = self.shard.partition;
        tracing::info!(partition, "the index made anew has taken the place of the one before");
        // Searches under way keep what they read.
        if let Some(before) = self.predecessor.take()
            && let Err(error) = index::discard(&before.path)
        {
            tracing::warn!(partition, %error, "the index before is still there; the next start removes it");
        }
    }
}

impl Shard {
    /// Lets searches see a directory that is not kept up with the log.
    fn search(&self, reader: ShardReader, position: &Position) {
        let mut progress = self.progress.lock();
        self.show(reader);
        progress.has_predecessor = true;
        progress.received_at = super::known_time(position.received_at);
    }

    pub(super) fn show(&self, reader: ShardReader) {
        *self.reader.write() = Some(reader);
        self.generation.fetch_add(1, Ordering::AcqRel);
    }
}
