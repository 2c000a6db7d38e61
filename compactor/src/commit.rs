//! Makes files and offsets visible together, exactly once.
//!
//! A commit is one file `_delta_log/<version>.json`, written only if it does not exist. Between the first attempt and
//! the answer four things can happen: it is written; somebody else wrote that version; the answer is lost; or our
//! write, believed lost, lands late. All four are settled the same way: read the log from the base version on and look
//! for one's own commit id. Nothing is retried, and no file is deleted, before that. Each attempt carries the same id
//! and aims at the version after the newest visible one, so that a late first attempt and its repetition can only ever
//! become one commit.
//!
//! The guard runs on every base state: it refuses when a partition no longer stands where the batch begins (fencing) or
//! a file to be replaced is gone. The library's own conflict check looks only at commits after the snapshot it read and
//! never at whether offsets grow, so a batch of a zombie would pass it.

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use crate::table::actions::{self, Action, Add, CommitInfo, OwnInfo, Remove, Txn};
use crate::table::load::commit_path;
use crate::table::state::TableState;
use crate::table::store::PutNew;
use crate::table::{ENGINE, Table};
use crate::write::{Begun, DataFile};
use crate::{Error, Result};

/// With the back-off below, ten attempts outlast half a minute of an unreachable store.
const ATTEMPTS_MAX: u32 = 10;
/// A commit names no file whose writing began longer ago. It is far more than any landing or merge takes.
pub(crate) const FILES_AGE_MAX: Duration = Duration::from_secs(30 * 60);
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// What one commit does.
#[derive(Clone, Debug, Default)]
pub(crate) struct Change {
    pub operation: &'static str,
    pub parameters: Vec<(&'static str, Value)>,
    pub files: NewFiles,
    pub removes: Vec<Remove>,
    /// Application id and the version it stands at afterwards.
    pub txns: Vec<(String, i64)>,
    pub own: OwnInfo,
}

/// Files that a change makes visible.
#[derive(Clone, Debug, Default)]
pub(crate) struct NewFiles {
    adds: Vec<Add>,
    /// When the writing of the oldest of them began.
    begun: Option<Begun>,
}

impl NewFiles {
    pub fn new(files: &[DataFile], now_millis: i64, data_change: bool) -> Self {
        let adds = files.iter().map(|file| file.add(now_millis, data_change)).collect();
        Self { adds, begun: files.iter().map(|file| file.begun).min() }
    }
}

impl Change {
    fn actions(&self, commit_id: &str, now_millis: i64) -> Vec<Action> {
        let info = CommitInfo {
            timestamp: Some(now_millis),
            operation: Some(self.operation.to_owned()),
            operation_parameters: self
                .parameters
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.clone()))
                .collect(),
            engine_info: Some(ENGINE.to_owned()),
            tidegate: Some(OwnInfo { commit_id: commit_id.to_owned(), ..self.own.clone() }),
        };
        let mut actions = vec![Action { commit_info: Some(info), ..Default::default() }];
        actions.extend(self.txns.iter().map(|(app_id, version)| {
            let txn = Txn { app_id: app_id.clone(), version: *version, last_updated: Some(now_millis) };
            Action { txn: Some(txn), ..Default::default() }
        }));
        actions.extend(self.removes.iter().map(|remove| Action { remove: Some(remove.clone()), ..Default::default() }));
        actions.extend(self.files.adds.iter().map(|add| Action { add: Some(add.clone()), ..Default::default() }));
        actions
    }
}

/// Refuses a base state that the change does not fit.
pub(crate) type Guard<'a> = &'a (dyn Fn(&TableState) -> Result<()> + Send + Sync);

impl Table {
    /// Commits `change` and returns the version that shows it.
    ///
    /// # Errors
    /// `FilesTooOld` (kind `Retry`): the files must be written anew; these may be named by an earlier attempt.
    /// What `guard` says, or `Contended`: the change is not visible and never will be, its new files may be deleted.
    /// `Undecided` (kind `Retry`): it may become visible; keep the files, read the state again before going on.
    pub async fn commit(&self, change: &Change, guard: Guard<'_>) -> Result<u64> {
        let commit_id = self.runtime.entropy.uuid().to_string();
        let mut state = self.state.lock().await;
        let actions = change.actions(&commit_id, self.now_millis());
        let bytes = actions::encode(&actions);
        let guard = |state: &TableState| {
            self.check_age(change.files.begun)?;
            guard(state)
        };
        let version = self.commit_encoded(&mut state, &commit_id, &actions, bytes, &guard).await?;
        self.metrics.commits.with_label_values(&[self.spec.name]).inc();
        self.show(&state);
        Ok(version)
    }

    /// Refuses files that [`crate::retention::sweep`] may soon take for forgotten ones. Asked directly before each write.
    fn check_age(&self, begun: Option<Begun>) -> Result<()> {
        let Some(begun) = begun else { return Ok(()) };
        // The one clock stands still while the machine sleeps, the other may be set back.
        let clock = &self.runtime.clock;
        let age = clock.instant().duration_since(begun.instant).max(clock.now().since(begun.at));
        match age <= FILES_AGE_MAX {
            true => Ok(()),
            false => Err(Error::FilesTooOld { table: self.spec.name, age }),
        }
    }

    async fn commit_encoded(
        &self,
        state: &mut TableState,
        commit_id: &str,
        actions: &[Action],
        bytes: Bytes,
        guard: Guard<'_>,
    ) -> Result<u64> {
        let mut backoff = BACKOFF_FIRST;
        // The last error after which we do not know whether our commit is on its way.
        let mut unknown = None;
        for attempt in 1..=ATTEMPTS_MAX {
            guard(state)?;
            let version = state.version + 1;
            match self.store.put_new(&commit_path(version), bytes.clone()).await {
                PutNew::Written => {
                    state.apply(version, actions);
                    return Ok(version);
                }
                PutNew::Exists => self.metrics.commit_conflicts.with_label_values(&[self.spec.name]).inc(),
                PutNew::Unknown(error) => unknown = Some(error),
            }
            if attempt > 1 || unknown.is_some() {
                self.runtime.clock.wait(self.runtime.entropy.jitter(backoff)).await;
                backoff = (backoff * 2).min(BACKOFF_MAX);
            }
            match self.catch_up(state, Some(commit_id)).await {
                Ok(Some(version)) => return Ok(version),
                // A version that somebody else took is decided: ours can no longer be written there.
                Ok(None) if state.version >= version => unknown = None,
                Ok(None) => {}
                Err(Error::Store { source, .. }) => unknown = Some(source),
                Err(error) => return Err(error),
            }
        }
        let table = self.spec.name;
        match unknown {
            None => Err(Error::Contended { table, attempts: ATTEMPTS_MAX }),
            Some(source) => Err(Error::Undecided { table, version: state.version + 1, attempts: ATTEMPTS_MAX, source }),
        }
    }
}

#[cfg(test)]
mod tests;
