//! What is done to the index by order: the steps of erasing contexts, merging, checking.
//!
//! In: contexts of one environment and a time. Out: an index, copies and a table of states in which nothing that was
//! received of them before can be found any more, as no byte of any file.
//! The order is the caller's, who also knows of other tables: [`crate::wish::append_erasures`], until [`Indexer::covers`]
//! says that all shards have read that; then [`Indexer::erase_states`], [`Indexer::merge`] and [`Indexer::renew_copies`].
//! Each step may be done again.

use std::sync::Arc;

use events::{Environment, ErasedContexts};
use tokio::sync::{mpsc, oneshot};

use crate::filter::Filter;
use crate::index::order_bytes;
use crate::keep::{CheckOrder, Checked, EraseOrder, KeepOrder};
use crate::page::{Place, Sort};
use crate::search::SearchRequest;
use crate::shard::{MergeScope, Merged};
use crate::snapshot::{RenewOrder, RenewedCopies};
use crate::table::ErasedStates;
use crate::terms::EnvironmentPrefix;
use crate::{Error, Indexer, Result};

/// Kind and key of a context.
pub type ContextName = (String, String);

impl Indexer {
    /// The first contexts that match, by kind and key, after one of them. Fewer than `limit`: there are no more. Blocks on
    /// files.
    ///
    /// # Errors
    /// As [`Self::search`], but never `TooBroad`.
    pub fn matching(
        &self,
        environment: &Environment,
        filter: &Filter,
        after: Option<&ContextName>,
        limit: usize,
    ) -> Result<Vec<ContextName>> {
        let after = after.map(|(kind, key)| Place { time_key: 0, order: order_bytes(kind, key) });
        let (environment, filter) = (environment.clone(), filter.clone());
        let request = SearchRequest { environment, filter, sort: Sort::KindKey, limit, after };
        let window = self.export_window(&request, false)?;
        let mut names = Vec::with_capacity(window.len());
        window.for_each(|found| {
            names.push((found.kind, found.key));
            Ok::<_, Error>(())
        })?;
        Ok(names)
    }

    /// Documents of these contexts, and of combinations that they are a part of. Blocks on files.
    pub fn documents_of(&self, contexts: &ErasedContexts) -> Result<u64> {
        let environment = EnvironmentPrefix::new(&contexts.environment);
        let mut documents = 0;
        for shard in &self.shards {
            documents += shard.guarded("counting documents", || {
                let reader = shard.reader()?;
                let searcher = reader.searcher();
                let mut found = 0;
                for (kind, key) in contexts.iter() {
                    for term in [environment.identity(kind, key), environment.part(kind, key)] {
                        found += reader.count_with(&searcher, &term)?;
                    }
                }
                Ok(found)
            })?;
        }
        Ok(documents)
    }

    /// Whether all shards have read up to these offsets, one per partition.
    pub fn covers(&self, ends: &[i64]) -> bool {
        self.shards.iter().zip(ends).all(|(shard, end)| {
            let progress = shard.progress.lock();
            !progress.is_rebuilding && progress.next >= *end
        })
    }

    /// Merges all segments of a shard into one, beside its work.
    ///
    /// # Errors
    /// `NotOpen` if there is no such shard; as [`Self::merge`].
    pub async fn merge_whole(&self, partition: u32) -> Result<Merged> {
        let shard = self.shards.get(partition as usize).ok_or(Error::NotOpen { partition })?;
        shard.merge(MergeScope::All, &self.runtime.clock).await
    }

    /// Makes a shard anew from the table of states and the log, beside the present one, which is searched meanwhile. Returns
    /// its contexts.
    ///
    /// # Errors
    /// `NotOpen` if there is no such shard here; `SwitchedOff` without a table; `NotCovered` if table and log do not hold all of it.
    pub async fn renew(&self, partition: u32) -> Result<u64> {
        let shard = self.shards.get(partition as usize).ok_or(Error::NotOpen { partition })?;
        shard.renew(&self.runtime.clock).await?;
        Ok(shard.reader()?.listed_contexts())
    }

    /// Merges segments of all shards, one shard after the other, and removes the files of those that were merged.
    ///
    /// # Errors
    /// `StillRead` (kind `Retry`) if a search keeps such files; `Index`.
    pub async fn merge(&self, scope: MergeScope) -> Result<Vec<Merged>> {
        let mut merged = Vec::with_capacity(self.shards.len());
        for shard in &self.shards {
            merged.push(shard.merge(scope, &self.runtime.clock).await?);
        }
        Ok(merged)
    }

    /// Copies all shards to the store as they are now and removes all other copies. None if there are no copies.
    ///
    /// # Errors
    /// `NotOurs`, `NotOpen`, `Snapshot` (kind `Retry`).
    pub async fn renew_copies(&self) -> Result<Option<Vec<RenewedCopies>>> {
        let Some(orders) = &self.copy_orders else { return Ok(None) };
        let mut renewed = Vec::with_capacity(self.shards.len());
        for shard in &self.shards {
            let (answer, told) = oneshot::channel();
            renewed.push(ask(orders, RenewOrder { partition: shard.partition, answer }, told).await?);
        }
        Ok(Some(renewed))
    }

    /// Takes contexts out of the table of states, but for what came back since. None if there is no table.
    ///
    /// # Errors
    /// `Table` (kind `Retry`).
    pub async fn erase_states(&self, id: &str, contexts: Arc<ErasedContexts>) -> Result<Option<ErasedStates>> {
        let Some(orders) = &self.keep_orders else { return Ok(None) };
        let (answer, told) = oneshot::channel();
        ask(orders, KeepOrder::Erase(EraseOrder { id: id.to_owned(), contexts, answer }), told).await.map(Some)
    }

    /// Holds a shard against the table of states, and mends what differs if `repairs`. None if there is no table.
    ///
    /// # Errors
    /// `NotOpen` if there is no such shard, or it is being made again; `Table`, `Index`.
    pub async fn check(&self, partition: u32, repairs: bool) -> Result<Option<Checked>> {
        let Some(orders) = &self.keep_orders else { return Ok(None) };
        let (answer, told) = oneshot::channel();
        ask(orders, KeepOrder::Check(CheckOrder { partition, repairs, answer }), told).await.map(Some)
    }
}

async fn ask<O, T>(orders: &mpsc::Sender<O>, order: O, told: oneshot::Receiver<Result<T>>) -> Result<T> {
    let stopped = || Error::SwitchedOff { action: "keeping the index" };
    orders.send(order).await.map_err(|_| stopped())?;
    told.await.map_err(|_| stopped())?
}
