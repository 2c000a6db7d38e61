//! Appends on their way to the brokers: who waits for which records, and how many bytes are under way.
//!
//! A [`Call`] is one `append`. Each of its records travels with a [`Report`] that comes back exactly once, with its
//! fate; the last one answers the call. A report that is lost on the way, because a client is given up, leaves its record in
//! doubt.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use events::TopicPartition;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::traced::{Fate, Fates};
use crate::{Error, Result};

/// Bytes of records that are under way, with their bound.
pub(super) struct Pending {
    bytes: AtomicU64,
    max_bytes: u64,
}

impl Pending {
    pub fn new(max_bytes: u64) -> Self {
        Self { bytes: AtomicU64::new(0), max_bytes }
    }

    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Takes room for a call.
    ///
    /// # Errors
    /// `Backlogged` if there is none. A call that alone exceeds the bound must get through some time, and does when nothing
    /// else is pending.
    pub fn reserve(&self, bytes: u64) -> Result<()> {
        let fits = |pending| (pending == 0 || pending + bytes <= self.max_bytes).then_some(pending + bytes);
        match self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits) {
            Ok(_) => Ok(()),
            Err(pending_bytes) => Err(Error::Backlogged { pending_bytes, max_bytes: self.max_bytes }),
        }
    }

    /// Whether a small record would be refused.
    pub fn is_full(&self) -> bool {
        self.bytes() >= self.max_bytes
    }

    fn release(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// One call of `send`.
pub(super) struct Call(Mutex<State>);

struct State {
    fates: Vec<Option<Fate>>,
    open: usize,
    answer: Option<oneshot::Sender<Vec<Fate>>>,
}

impl Call {
    /// A call of so many records, and where its answer comes.
    pub fn new(records: usize) -> (Arc<Self>, Fates) {
        let (answer, outcome) = oneshot::channel();
        let fates = vec![None; records];
        (Arc::new(Self(Mutex::new(State { fates, open: records, answer: Some(answer) }))), outcome)
    }

    fn settle(&self, index: usize, fate: Fate) {
        let mut state = self.0.lock();
        state.fates[index] = Some(fate);
        state.open -= 1;
        if state.open == 0
            && let Some(answer) = state.answer.take()
        {
            // The caller may have gone away; its records are in the log all the same.
            let _ = answer.send(state.fates.drain(..).flatten().collect());
        }
    }
}

/// Travels with one record.
pub(super) struct Report {
    call: Arc<Call>,
    pending: Arc<Pending>,
    index: usize,
    pub topic_partition: TopicPartition,
    pub bytes: u64,
    settled: bool,
}

impl Report {
    /// `bytes` must have been reserved.
    pub fn new(
        call: &Arc<Call>,
        pending: &Arc<Pending>,
        index: usize,
        topic_partition: TopicPartition,
        bytes: u64,
    ) -> Self {
        Self { call: call.clone(), pending: pending.clone(), index, topic_partition, bytes, settled: false }
    }

    pub fn settle(mut self, fate: Fate) {
        self.finish(fate);
    }

    fn finish(&mut self, fate: Fate) {
        self.settled = true;
        // Room first: who has its answer may append again at once.
        self.pending.release(self.bytes);
        self.call.settle(self.index, fate);
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        if !self.settled {
            let topic_partition = self.topic_partition;
            self.finish(Fate::Unknown(Error::Unacknowledged {
                topic_partition,
                reason: "the client was given up".into(),
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use events::{Offset, Topic};

    use super::*;

    const EVENTS: TopicPartition = TopicPartition::new(Topic::Events, 0);

    fn reports(count: usize, pending: &Arc<Pending>) -> (Vec<Report>, Fates) {
        let (call, outcome) = Call::new(count);
        pending.reserve(10 * count as u64).unwrap();
        ((0..count).map(|index| Report::new(&call, pending, index, EVENTS, 10)).collect(), outcome)
    }

    #[test]
    fn last_report_answers_in_the_order_of_the_records() {
        let pending = Arc::new(Pending::new(100));
        let (mut reports, mut outcome) = reports(2, &pending);
        reports.pop().unwrap().settle(Fate::Stored(Offset(8)));
        assert!(outcome.try_recv().is_err());
        reports.pop().unwrap().settle(Fate::Stored(Offset(7)));
        let fates = outcome.try_recv().unwrap();
        assert!(matches!(fates[..], [Fate::Stored(Offset(7)), Fate::Stored(Offset(8))]), "{fates:?}");
        assert_eq!(pending.bytes(), 0);
    }

    #[test]
    fn lost_report_leaves_its_record_in_doubt() {
        let pending = Arc::new(Pending::new(100));
        let (mut reports, mut outcome) = reports(3, &pending);
        reports.pop().unwrap().settle(Fate::Absent(Error::Closed));
        reports.pop().unwrap().settle(Fate::Stored(Offset(7)));
        assert!(outcome.try_recv().is_err());
        // Lost with its client.
        drop(reports);
        let fates = outcome.try_recv().unwrap();
        assert!(matches!(fates[..], [Fate::Unknown(_), Fate::Stored(_), Fate::Absent(_)]), "{fates:?}");
        assert_eq!(pending.bytes(), 0);
    }

    #[test]
    fn bound_is_reached_and_a_larger_call_passes_alone() {
        let pending = Arc::new(Pending::new(100));
        pending.reserve(1000).unwrap();
        let error = pending.reserve(1).unwrap_err();
        assert!(matches!(error, Error::Backlogged { pending_bytes: 1000, max_bytes: 100 }), "{error}");
        assert!(pending.is_full());
        pending.release(1000);
        pending.reserve(60).unwrap();
        assert!(pending.reserve(41).is_err());
        pending.reserve(40).unwrap();
    }
}
