//! Appends on their way to the writer thread, bounded in bytes.
//!
//! In: calls of `append`. Out: groups for `writer`. While one group is written and synced, the next collects here.

use std::collections::VecDeque;
use std::time::Instant;

use events::{Offset, limits};
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::{AppendRecord, Error, Result};

/// Bounds the memory of one group. Larger groups gained nothing in the measurement in `embedded`.
const GROUP_BYTES_MAX: u64 = 16 << 20;

/// One call of `append`.
pub(super) struct Call {
    pub records: Vec<AppendRecord>,
    pub bytes: u64,
    answer: oneshot::Sender<Result<Vec<Offset>>>,
}

impl Call {
    pub fn resolve(self, outcome: Result<Vec<Offset>>) {
        // The caller may have gone away; its records are in the log all the same.
        let _ = self.answer.send(outcome);
    }
}

/// What the writer thread should do next.
pub(super) enum Taken {
    Group(Vec<Call>),
    /// The deadline passed.
    Due,
    /// Closed, and everything accepted before has been handed out.
    Closed,
}

#[derive(Default)]
struct State {
    calls: VecDeque<Call>,
    /// Bytes of calls here and in the group being written.
    pending_bytes: u64,
    closed: bool,
    due: bool,
}

pub(super) struct Queue {
    state: Mutex<State>,
    wake: Condvar,
    pending_bytes_max: u64,
}

impl Queue {
    pub fn new(pending_bytes_max: u64) -> Self {
        Self { state: Mutex::default(), wake: Condvar::new(), pending_bytes_max }
    }

    /// Accepts a call if it fits beside what is pending, and beside what is held below `held_bytes_max`.
    pub fn push(
        &self,
        records: Vec<AppendRecord>,
        held_bytes: u64,
        held_bytes_max: u64,
    ) -> Result<oneshot::Receiver<Result<Vec<Offset>>>> {
        let max_bytes = limits::RECORD_BYTES_MAX as u64;
        if let Some(record) = records.iter().find(|record| record.frame.len() as u64 > max_bytes) {
            return Err(Error::RecordTooLarge { bytes: record.frame.len() as u64, max_bytes });
        }
        let bytes = records.iter().map(|record| super::entry_bytes(&record.frame)).sum::<u64>();
        let (answer, outcome) = oneshot::channel();
        let mut state = self.state.lock();
        if state.closed {
            return Err(Error::Closed);
        }
        let pending_bytes = state.pending_bytes;
        if held_bytes + pending_bytes + bytes > held_bytes_max {
            return Err(Error::Full { held_bytes: held_bytes + pending_bytes, max_bytes: held_bytes_max });
        }
        // A call that alone exceeds the bound must get through some time, and does when nothing else is pending.
        if pending_bytes > 0 && pending_bytes + bytes > self.pending_bytes_max {
            return Err(Error::Backlogged { pending_bytes, max_bytes: self.pending_bytes_max });
        }
        state.pending_bytes += bytes;
        state.calls.push_back(Call { records, bytes, answer });
        drop(state);
        self.wake.notify_one();
        Ok(outcome)
    }

    /// Waits for the next group, at most until `deadline`.
    pub fn take(&self, deadline: Instant) -> Taken {
        let mut state = self.state.lock();
        while state.calls.is_empty() {
            if state.closed {
                return Taken::Closed;
            }
            if std::mem::take(&mut state.due) || self.wake.wait_until(&mut state, deadline).timed_out() {
                return Taken::Due;
            }
        }
        let (mut group, mut bytes) = (Vec::new(), 0);
        while let Some(call) = state.calls.front() {
            bytes += call.bytes;
            if bytes > GROUP_BYTES_MAX && !group.is_empty() {
                break;
            }
            group.extend(state.calls.pop_front());
        }
        Taken::Group(group)
    }

    /// A group of this many bytes has left memory.
    pub fn release(&self, bytes: u64) {
        self.state.lock().pending_bytes -= bytes;
    }

    pub fn pending_bytes(&self) -> u64 {
        self.state.lock().pending_bytes
    }

    /// Refuses further calls; those accepted are still handed out.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.wake.notify_one();
    }

    /// Refuses further calls and forgets those accepted: their callers see a closed log.
    pub fn abort(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.calls.clear();
    }

    pub fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// Ends the wait of the writer thread now.
    #[cfg(test)]
    pub fn make_due(&self) {
        self.state.lock().due = true;
        self.wake.notify_one();
    }
}
