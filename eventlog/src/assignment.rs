//! Which partitions this process works on.
//!
//! In: what the processes of one role have agreed upon among themselves, told by an [`Assigner`]; or nobody's word, and
//! then it is all of them. Out: an [`Assignment`], which says what is held now and when that changes.
//! Not promised: that no two processes hold a partition at the same time. One that stood still may not have heard yet that
//! it has lost it. An assignment spares work that would be thrown away; what fences is the commit of the table and that
//! of the index.

use std::collections::BTreeSet;
use std::sync::Arc;

use events::{Topic, TopicPartition};
use tokio::sync::watch;

use crate::LogReader;

/// Tells assignments what is held. When it is dropped they stay as they are.
#[derive(Debug)]
pub struct Assigner(watch::Sender<Arc<BTreeSet<TopicPartition>>>);

impl Default for Assigner {
    fn default() -> Self {
        Self::new()
    }
}

impl Assigner {
    /// Nothing is held yet.
    pub fn new() -> Self {
        Self(watch::Sender::default())
    }

    pub fn assignment(&self) -> Assignment {
        Assignment { held: self.0.subscribe(), known: None }
    }

    /// Says what is held from now on.
    pub fn assign(&self, held: impl IntoIterator<Item = TopicPartition>) {
        let held = held.into_iter().collect::<BTreeSet<_>>();
        self.0.send_if_modified(|current| {
            let is_other = **current != held;
            if is_other {
                *current = Arc::new(held);
            }
            is_other
        });
    }
}

/// What one stage of this process works on.
#[derive(Clone, Debug)]
pub struct Assignment {
    held: watch::Receiver<Arc<BTreeSet<TopicPartition>>>,
    /// What the stage was told last; what is held at the beginning is news too.
    known: Option<Arc<BTreeSet<TopicPartition>>>,
}

impl Assignment {
    /// Every partition of `topics`, for good.
    pub fn all(log: &dyn LogReader, topics: &[Topic]) -> Self {
        let assigner = Assigner::new();
        assigner.assign(
            topics
                .iter()
                .flat_map(|topic| (0..log.partitions(*topic)).map(|partition| TopicPartition::new(*topic, partition))),
        );
        assigner.assignment()
    }

    pub fn holds(&self, topic_partition: TopicPartition) -> bool {
        self.held.borrow().contains(&topic_partition)
    }

    /// What is held now, if the stage was not told yet.
    pub fn news(&mut self) -> Option<Arc<BTreeSet<TopicPartition>>> {
        let held = Arc::clone(&self.held.borrow_and_update());
        let is_known = self.known.as_ref().is_some_and(|known| Arc::ptr_eq(known, &held));
        (!is_known).then(|| self.known.insert(held).clone())
    }

    /// Resolves when there are news; never, if nobody assigns any more.
    pub async fn changed(&self) {
        let mut held = self.held.clone();
        if self.known.is_some() && held.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use runtime::{Clock, UnixMicros};

    use super::*;
    use crate::memory::MemoryLog;

    fn events(partition: u32) -> TopicPartition {
        TopicPartition::new(Topic::Events, partition)
    }

    #[test]
    fn all_partitions_are_held_and_told_once() {
        let log = MemoryLog::new(Clock::simulated(UnixMicros(0)), [3, 1, 1], "a");
        let mut assignment = Assignment::all(&log, &[Topic::Events]);
        let held: Vec<_> = assignment.news().unwrap().iter().copied().collect();
        assert_eq!(held, [events(0), events(1), events(2)]);
        assert!(assignment.news().is_none());
        assert!(assignment.holds(events(2)) && !assignment.holds(TopicPartition::new(Topic::Contexts, 0)));
    }

    #[test]
    fn change_is_told_to_each_assignment_once() {
        let assigner = Assigner::new();
        let (mut one, mut other) = (assigner.assignment(), assigner.assignment());
        assert!(one.news().unwrap().is_empty());
        assigner.assign([events(1)]);
        assert!(one.news().unwrap().contains(&events(1)));
        assert!(one.changed().now_or_never().is_none());
        assert!(other.changed().now_or_never().is_some());
        assert!(other.news().unwrap().contains(&events(1)));
        assigner.assign([events(1)]);
        assert!(one.news().is_none(), "the same again is no news");
    }

    #[test]
    fn what_was_held_stays_when_nobody_assigns_any_more() {
        let assigner = Assigner::new();
        let mut assignment = assigner.assignment();
        assigner.assign([events(1)]);
        drop(assigner);
        assert!(assignment.news().is_some_and(|held| held.contains(&events(1))), "news are not lost with the assigner");
        assert!(assignment.holds(events(1)));
        assert!(assignment.news().is_none());
        assert!(assignment.changed().now_or_never().is_none());
    }
}
