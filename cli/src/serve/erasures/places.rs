//! The places that an erasure goes through, and what it asks of each.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use compactor::{Compactor, ErasedRows};
use eventlog::{LogReader, LogWriter};
use events::{Environment, ErasedContexts, Offset, Topic, TopicPartition};
use futures::FutureExt;
use futures::future::BoxFuture;
use indexer::{ContextName, Filter, Indexer, MergeScope};
use ingest::Ingest;
use runtime::{Runtime, UnixMicros};
use tokio::runtime::Handle;

use super::record::TableDone;

/// How often a place is asked whether it is there yet.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

type Answer<'a, T> = BoxFuture<'a, anyhow::Result<T>>;

/// What the job asks of the stages. Every question may be asked again.
pub trait Places: Send + Sync {
    /// Nothing that was received before counts as known any more where events come in.
    fn distrust(&self, until: UnixMicros);

    /// The first contexts that match after one of them; fewer than `limit`: there are no more.
    fn matching(
        &self,
        environment: Environment,
        filter: String,
        after: Option<ContextName>,
        limit: usize,
    ) -> Answer<'_, Vec<ContextName>>;

    /// Documents that the index has of them.
    fn documents(&self, contexts: Arc<ErasedContexts>) -> Answer<'_, u64>;

    /// Tells the index what to erase. Returns where in the log that stands.
    fn tell(&self, contexts: Arc<ErasedContexts>) -> Answer<'_, Vec<i64>>;

    /// Waits until the index has erased what was told.
    fn indexed(&self, told: Vec<i64>) -> Answer<'_, ()>;

    /// Takes them out of the table `events`, all that was received before included. None: it is not written here.
    fn erase_events(&self, id: String, contexts: Arc<ErasedContexts>) -> Answer<'_, Option<TableDone>>;

    /// Takes them out of the table `contexts`. None: it is not written here.
    fn erase_states(&self, id: String, contexts: Arc<ErasedContexts>) -> Answer<'_, Option<TableDone>>;

    /// Frees the bytes of what is erased. Returns how many segments each shard has merged.
    fn merge(&self) -> Answer<'_, Vec<u64>>;

    /// Copies the shards anew and removes all other copies: per shard number of the copy and objects removed.
    fn renew_copies(&self) -> Answer<'_, Option<Vec<(u64, u64)>>>;
}

/// The stages of this process.
pub struct ServedPlaces {
    pub reader: Arc<dyn LogReader>,
    pub writer: Arc<dyn LogWriter>,
    pub ingest: Arc<Ingest>,
    pub indexer: Arc<Indexer>,
    pub compactor: Option<Arc<Compactor>>,
    /// Where the compactor runs.
    pub compact: Handle,
    pub runtime: Runtime,
}

impl ServedPlaces {
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Indexer) -> indexer::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        let indexer = Arc::clone(&self.indexer);
        Ok(tokio::task::spawn_blocking(move || work(&indexer)).await??)
    }

    /// Waits until the table has all that was received up to `until`.
    async fn landed(&self, compactor: &Compactor, until: UnixMicros) -> anyhow::Result<()> {
        let clock = &self.runtime.clock;
        let settled = until.saturating_add(self.ingest.in_flight_max());
        clock.wait(settled.since(clock.now())).await;
        self.writer.settled().await;
        let mut ends: Vec<Offset> = Vec::new();
        for partition in 0..self.reader.partitions(Topic::Events) {
            ends.push(self.reader.bounds(TopicPartition::new(Topic::Events, partition)).await?.end);
        }
        while !compactor.has_landed(&ends).await? {
            clock.wait(LOOK_INTERVAL).await;
        }
        Ok(())
    }
}

fn done(rows: ErasedRows) -> TableDone {
    TableDone {
        searched_files: rows.searched_files,
        foreign_files: rows.foreign_files,
        replaced_files: rows.files,
        rows: rows.rows,
        version_before: rows.version_before,
        version_after: rows.version_after,
    }
}

impl Places for ServedPlaces {
    fn distrust(&self, until: UnixMicros) {
        self.ingest.distrust_sightings(until);
    }

    fn matching(
        &self,
        environment: Environment,
        filter: String,
        after: Option<ContextName>,
        limit: usize,
    ) -> Answer<'_, Vec<ContextName>> {
        async move {
            // It was checked when it was asked for.
            let filter = Filter::parse(&filter, indexer::filter::Subject::Contexts)?;
            self.blocking(move |indexer| indexer.matching(&environment, &filter, after.as_ref(), limit)).await
        }
        .boxed()
    }

    fn documents(&self, contexts: Arc<ErasedContexts>) -> Answer<'_, u64> {
        self.blocking(move |indexer| indexer.documents_of(&contexts)).boxed()
    }

    fn tell(&self, contexts: Arc<ErasedContexts>) -> Answer<'_, Vec<i64>> {
        async move {
            let now = self.runtime.clock.now();
            let mut told = indexer::append_erasures(self.writer.as_ref(), &contexts, now).await?;
            for (partition, next) in (0..).zip(&mut told) {
                // A log that does not tell the place has it by then.
                if *next == Offset::UNKNOWN.next().0 {
                    self.writer.settled().await;
                    *next = self.reader.bounds(TopicPartition::new(Topic::Contexts, partition)).await?.end.0;
                }
            }
            Ok(told)
        }
        .boxed()
    }

    fn indexed(&self, told: Vec<i64>) -> Answer<'_, ()> {
        async move {
            while !self.indexer.covers(&told) {
                self.runtime.clock.wait(LOOK_INTERVAL).await;
            }
            Ok(())
        }
        .boxed()
    }

    fn erase_events(&self, id: String, contexts: Arc<ErasedContexts>) -> Answer<'_, Option<TableDone>> {
        async move {
            let Some(compactor) = self.compactor.clone() else { return Ok(None) };
            let until = UnixMicros(contexts.until);
            self.landed(&compactor, until).await?;
            let erase = async move { compactor.erase(&id, &contexts, until).await };
            let erased = self.compact.spawn(erase).await.context("erasing from the table events")?;
            Ok(Some(done(erased?)))
        }
        .boxed()
    }

    fn erase_states(&self, id: String, contexts: Arc<ErasedContexts>) -> Answer<'_, Option<TableDone>> {
        async move {
            let erased = self.indexer.erase_states(&id, contexts).await?;
            Ok(erased.map(|states| TableDone {
                searched_files: states.searched_files,
                foreign_files: states.foreign_files,
                replaced_files: states.files,
                rows: states.rows,
                version_before: states.version_before,
                version_after: states.version_after,
            }))
        }
        .boxed()
    }

    fn merge(&self) -> Answer<'_, Vec<u64>> {
        async move {
            // A merge that was begun is tidied up after, also if nobody waits for it any more.
            let indexer = Arc::clone(&self.indexer);
            let merging = tokio::spawn(async move { indexer.merge(MergeScope::WithRemoved).await });
            let merged = merging.await.map_err(|error| anyhow!("merging: {error}"))??;
            Ok(merged.into_iter().map(|shard| shard.segments as u64).collect())
        }
        .boxed()
    }

    fn renew_copies(&self) -> Answer<'_, Option<Vec<(u64, u64)>>> {
        async move {
            let renewed = self.indexer.renew_copies().await?;
            Ok(renewed.map(|copies| copies.into_iter().map(|copy| (copy.sequence, copy.removed)).collect()))
        }
        .boxed()
    }
}
