//! Works on the shards that this process holds, when those of the index are divided among several.
//!
//! In: an [`Assignment`] of partitions of `contexts`. Out: a task for each that is held.
//! Promise: a shard that goes is committed and closed before it is opened here again. Its directory stays: if the shard
//! comes back, what happened meanwhile is read from the log, or it gives way to a copy that has it.
//! Not here: who else holds a shard. Two processes that follow the same partition do the same work, each in its own
//! directory; which of them may write copies and states for others is decided there.

use std::sync::Arc;

use eventlog::Assignment;
use hashbrown::HashMap;
use runtime::Shutdown;
use tokio::task::{JoinError, JoinSet};

use crate::blocking;
use crate::shard::{RETRY_WAIT, Shard, ShardTask, Surroundings};

pub struct Holding {
    pub assignment: Assignment,
    pub shards: Vec<Arc<Shard>>,
    pub surroundings: Surroundings,
}

impl Holding {
    /// Follows the assignment until shutdown begins, and ends when all shards are committed.
    pub async fn run(mut self, shutdown: Shutdown) {
        let mut tasks = JoinSet::new();
        let mut held = HashMap::new();
        while !shutdown.has_begun() {
            self.follow(&mut held, &mut tasks, &shutdown);
            tokio::select! {
                biased;
                () = shutdown.begun() => {}
                () = self.assignment.changed() => {}
                Some(ended) = tasks.join_next() => tell(ended),
            }
        }
        while let Some(ended) = tasks.join_next().await {
            tell(ended);
        }
    }

    fn follow(&mut self, held: &mut HashMap<u32, Shutdown>, tasks: &mut JoinSet<()>, shutdown: &Shutdown) {
        let Some(news) = self.assignment.news() else { return };
        for shard in &self.shards {
            let is_held = news.contains(&shard.topic_partition());
            if !is_held {
                if let Some(stop) = held.remove(&shard.partition) {
                    stop.begin();
                }
            } else if !held.contains_key(&shard.partition) {
                let stop = shutdown.child();
                held.insert(shard.partition, stop.clone());
                tasks.spawn(work(Arc::clone(shard), self.surroundings.clone(), stop));
            }
        }
    }
}

fn tell(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a shard of the index stopped");
    }
}

/// Works on one shard until it goes.
async fn work(shard: Arc<Shard>, surroundings: Surroundings, stop: Shutdown) {
    // It may just have been here, and be committing.
    let _turn = shard.turn.lock().await;
    shard.set_held(true);
    let partition = shard.partition;
    let mut has_failed = false;
    while !stop.has_begun() {
        let (opened, with) = (Arc::clone(&shard), surroundings.clone());
        match blocking(&surroundings.runtime, "opening a shard", move || ShardTask::open(opened, with)).await {
            Ok(task) => {
                tracing::info!(partition, "shard of the index taken up");
                task.run(stop.clone()).await;
            }
            Err(error) => {
                if !std::mem::replace(&mut has_failed, true) {
                    tracing::error!(partition, %error, "shard of the index cannot be opened, trying again");
                }
                tokio::select! {
                    () = surroundings.runtime.clock.wait(RETRY_WAIT) => {}
                    () = stop.begun() => {}
                }
            }
        }
    }
    shard.set_held(false);
    tracing::info!(partition, "shard of the index let go");
}
