//! Takes contexts out of the table of states.
//!
//! In: contexts that the index has erased. Out: a table without any state of them but those that came back since.
//! Promise: a state that the index holds is in the table afterwards too. Rows do not tell which part of a state is how old;
//! so all of them go, and what the index still has, or has again, is written anew.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use events::{ErasedContexts, Topic};
use tokio::sync::oneshot;

use super::{Keeper, Touched, blocking, failed, stream_states};
use crate::Result;
use crate::shard::Shard;
use crate::table::{ErasedStates, TableChange};
use crate::terms::EnvironmentPrefix;

/// What is to be erased, and who wants to know.
pub struct EraseOrder {
    pub id: String,
    pub contexts: Arc<ErasedContexts>,
    pub answer: oneshot::Sender<Result<ErasedStates>>,
}

impl Keeper {
    pub(super) async fn erase(&self, id: &str, contexts: &Arc<ErasedContexts>) -> Result<ErasedStates> {
        let erased = self.table.erase(id, contexts).await.map_err(failed("erase contexts from the table"))?;
        let topic_id = self.log.topic_id(Topic::Contexts).to_string();
        for shard in &self.shards {
            self.write_again(shard, contexts, &topic_id).await?;
        }
        Ok(erased)
    }

    async fn write_again(&self, shard: &Arc<Shard>, contexts: &Arc<ErasedContexts>, topic_id: &str) -> Result<()> {
        // A shard that is made again meanwhile folds from the log what was received since.
        let Some((_, reader)) = shard.whole() else { return Ok(()) };
        let (asked, erased) = (reader.clone(), Arc::clone(contexts));
        let known = blocking(&self.runtime, "look for contexts that came back", move || {
            let searcher = asked.searcher();
            let environment = EnvironmentPrefix::new(&erased.environment);
            let mut known = Touched::default();
            for (kind, key) in erased.iter() {
                for term in [environment.identity(kind, key), environment.part(kind, key)] {
                    asked.for_each_with(&searcher, &term, |record| {
                        known.touch(record.identity(&environment), i64::MIN);
                    })?;
                }
            }
            Ok(known)
        })
        .await?;
        if known.seen_at.is_empty() {
            return Ok(());
        }
        let position = self.table.position(shard.partition, topic_id).await;
        let position = position.map_err(failed("ask the table where it stands"))?;
        // A table that covers nothing is written from the start with the next round.
        let Some(next) = position.next else { return Ok(()) };
        let (partition, sequence) = (shard.partition, position.sequence);
        let change = TableChange { partition, topic_id: topic_id.to_owned(), sequence, next, is_base: false };
        let states = stream_states(Arc::clone(shard), reader, Some(known), Arc::new(AtomicU64::new(0)));
        self.table.write(change, states).await.map_err(failed("write states to the table"))
    }
}
