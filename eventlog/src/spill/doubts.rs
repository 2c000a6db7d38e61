//! What is known of spilled records that had been handed to the log.
//!
//! Bounded by what may be under way: an entry is made when a record is handed over, and goes when its copy in the spill has
//! been passed.

use std::collections::HashMap;

use parking_lot::Mutex;
use runtime::Clock;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::RecordId;
use crate::traced::Fate;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The log will tell.
    Pending,
    /// It is there, without our having drained it.
    Stored,
    /// It is there, drained by us.
    Drained,
    /// It is not there.
    Absent,
    /// The log does not know: it has to be looked for.
    Unknown,
}

impl From<&Fate> for Verdict {
    fn from(fate: &Fate) -> Self {
        match fate {
            Fate::Stored(_) => Self::Stored,
            Fate::Absent(_) | Fate::Refused(_) => Self::Absent,
            Fate::Unknown(_) => Self::Unknown,
        }
    }
}

pub(super) struct Doubts {
    clock: Clock,
    verdicts: Mutex<HashMap<RecordId, Verdict>>,
    /// When it was last told that something is not known.
    unknown_since: Mutex<Option<Instant>>,
    changed: Notify,
}

impl Doubts {
    pub fn new(clock: &Clock) -> Self {
        let (clock, verdicts, unknown_since) = (clock.clone(), Mutex::default(), Mutex::default());
        Self { clock, verdicts, unknown_since, changed: Notify::new() }
    }

    pub fn get(&self, id: RecordId) -> Option<Verdict> {
        self.verdicts.lock().get(&id).copied()
    }

    pub fn set(&self, verdicts: impl IntoIterator<Item = (RecordId, Verdict)>) {
        let mut known = self.verdicts.lock();
        for (id, verdict) in verdicts {
            if verdict == Verdict::Unknown {
                *self.unknown_since.lock() = Some(self.clock.instant());
            }
            known.insert(id, verdict);
        }
        drop(known);
        self.changed.notify_waiters();
    }

    pub fn forget(&self, ids: impl IntoIterator<Item = RecordId>) {
        let mut verdicts = self.verdicts.lock();
        for id in ids {
            verdicts.remove(&id);
        }
    }

    pub fn unknown_since(&self) -> Option<Instant> {
        *self.unknown_since.lock()
    }

    /// Resolves when something is known from now on.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.verdicts.lock().len()
    }
}
