//! Which way appends go: to the log, or into the spill; and who is on the second way now.
//!
//! Everything goes the same way, as repeats of a payload must stay behind their twin. What is spilled therefore keeps all
//! that comes later behind it until the spill is empty. Under load it never is for longer than a moment, so the last step
//! back is taken with the gate closed: for that moment new appends wait.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// To the log.
    Direct,
    /// Into the spill.
    Spill,
    /// Nowhere, until what is spilled has been drained.
    Closed,
}

struct State {
    way: Way,
    /// Appends that are being written into the spill.
    writing: usize,
}

pub(super) struct Gate {
    state: Mutex<State>,
    /// Told when the way changes, and when an append into the spill is over.
    changed: Notify,
}

/// Held by an append that goes into the spill, until it is there.
pub(super) struct Writing(Arc<Gate>);

/// Held by whoever closes the gate: however that one ends, nobody waits at it in vain.
pub(super) struct Keeper(pub Arc<Gate>);

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.reopen();
    }
}

impl Gate {
    pub fn new(way: Way) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State { way, writing: 0 }), changed: Notify::new() })
    }

    pub fn way(&self) -> Way {
        self.state.lock().way
    }

    /// Lets an append in; None: to the log.
    pub async fn enter(self: &Arc<Self>) -> Option<Writing> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let mut state = self.state.lock();
                match state.way {
                    Way::Direct => return None,
                    Way::Spill => {
                        state.writing += 1;
                        return Some(Writing(self.clone()));
                    }
                    Way::Closed => {}
                }
            }
            changed.await;
        }
    }

    /// Sends this append, and all that come later, into the spill. The flag says whether they went to the log before.
    pub fn divert(self: &Arc<Self>) -> (Writing, bool) {
        let mut state = self.state.lock();
        let was_direct = state.way == Way::Direct;
        state.way = Way::Spill;
        state.writing += 1;
        drop(state);
        self.changed.notify_waiters();
        (Writing(self.clone()), was_direct)
    }

    /// Closes the gate if appends go into the spill.
    pub fn close(&self) {
        let mut state = self.state.lock();
        if state.way == Way::Spill {
            state.way = Way::Closed;
        }
    }

    /// Lets those in who wait at the closed gate, into the spill.
    pub fn reopen(&self) {
        let mut state = self.state.lock();
        if state.way == Way::Closed {
            state.way = Way::Spill;
            drop(state);
            self.changed.notify_waiters();
        }
    }

    /// Opens the closed gate to the log, if nothing is being spilled and nothing is left.
    pub fn open_direct(&self, is_drained: impl FnOnce() -> bool) -> bool {
        let mut state = self.state.lock();
        if state.way != Way::Closed || state.writing > 0 || !is_drained() {
            return false;
        }
        state.way = Way::Direct;
        drop(state);
        self.changed.notify_waiters();
        true
    }

    /// Resolves when appends do not go to the log.
    pub async fn diverted(&self) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.way() != Way::Direct {
                return;
            }
            changed.await;
        }
    }

    /// Resolves when something has changed from now on.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.0.state.lock().writing -= 1;
        self.0.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn way_back_opens_only_when_nothing_is_written_or_left() {
        let gate = Gate::new(Way::Direct);
        assert!(gate.enter().await.is_none());
        let (first, was_direct) = gate.divert();
        assert!(was_direct && !gate.divert().1);
        let second = gate.enter().await.unwrap();
        gate.close();
        let waiting = tokio::spawn({
            let gate = gate.clone();
            async move { gate.enter().await.is_none() }
        });
        tokio::task::yield_now().await;
        drop(first);
        assert!(!gate.open_direct(|| true), "one is still written");
        drop(second);
        assert!(!gate.open_direct(|| false), "something is left");
        assert!(!waiting.is_finished());
        assert!(gate.open_direct(|| true));
        assert!(waiting.await.unwrap());
    }

    #[tokio::test]
    async fn who_waits_goes_into_the_spill_when_the_gate_reopens() {
        let gate = Gate::new(Way::Spill);
        gate.close();
        let keeper = Keeper(gate.clone());
        let (entered, ()) = tokio::join!(gate.enter(), async { drop(keeper) });
        assert!(entered.is_some() && gate.way() == Way::Spill);
    }
}
