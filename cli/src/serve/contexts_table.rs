//! Lets the index keep its states in the table `contexts`: the two crates do not know each other.

use std::sync::Arc;

use anyhow::Context;
use compactor::{Compactor, ContextChange, ContextTable};
use events::ErasedContexts;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt};
use indexer::table::{ErasedStates, StateTable, States, TableBatch, TableChange, TableError, TablePosition};
use runtime::{Runtime, UnixMicros};

use crate::config::Settings;

/// Opens the table. `compactor`: the one of this process.
pub async fn open(
    settings: &Settings,
    runtime: &Runtime,
    compactor: Option<&Compactor>,
) -> anyhow::Result<Arc<dyn StateTable>> {
    let storage = settings.storage_resolved();
    let opened = ContextTable::open(&storage, &settings.compactor, runtime.clone(), compactor).await;
    Ok(Arc::new(Kept(opened.context("opening the table contexts")?)))
}

struct Kept(ContextTable);

type Answer<T> = Result<T, TableError>;

/// Why a change was not made: the states failed, or the table did.
enum Failure {
    States(indexer::Error),
    Table(compactor::Error),
}

impl From<compactor::Error> for Failure {
    fn from(error: compactor::Error) -> Self {
        Self::Table(error)
    }
}

impl StateTable for Kept {
    fn position<'a>(&'a self, partition: u32, topic_id: &'a str) -> BoxFuture<'a, Answer<TablePosition>> {
        async move {
            let position = self.0.position(partition, topic_id).await?;
            Ok(TablePosition {
                next: position.next,
                sequence: position.sequence,
                files: position.files,
                bytes: position.bytes,
                base_bytes: position.base_bytes,
                base_written_at: position.base_written_at,
            })
        }
        .boxed()
    }

    fn read(&self, partition: u32) -> BoxFuture<'_, Answer<BoxStream<'static, Answer<TableBatch>>>> {
        async move {
            let batches = self.0.read(partition).await?;
            let batches = batches
                .map_ok(|batch| TableBatch { states: batch.states, may_replace: batch.may_replace })
                .map_err(TableError::from);
            Ok(batches.boxed())
        }
        .boxed()
    }

    fn erase<'a>(&'a self, id: &'a str, contexts: &'a ErasedContexts) -> BoxFuture<'a, Answer<ErasedStates>> {
        async move {
            let erased = self.0.erase(id, contexts, UnixMicros(contexts.until)).await?;
            Ok(ErasedStates {
                searched_files: erased.searched_files,
                foreign_files: erased.foreign_files,
                files: erased.files,
                rows: erased.rows,
                version_before: erased.version_before,
                version_after: erased.version_after,
            })
        }
        .boxed()
    }

    fn write(&self, change: TableChange, states: States) -> BoxFuture<'_, Answer<()>> {
        async move {
            let change = ContextChange {
                partition: change.partition,
                topic_id: change.topic_id,
                sequence: change.sequence,
                next: change.next,
                is_base: change.is_base,
            };
            match self.0.write(&change, states.map_err(Failure::States).boxed()).await {
                Ok(()) => Ok(()),
                Err(Failure::States(error)) => Err(error.into()),
                Err(Failure::Table(error)) => Err(error.into()),
            }
        }
        .boxed()
    }
}
