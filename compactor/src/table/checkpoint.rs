//! Keeps the log of a table short: checkpoints, and removal of the commits that they cover.
//!
//! Written by deltalake-core, so that other engines find exactly what the reference writers write. It opens the table
//! anew each time: a handle that lives long keeps the statistics of every file that ever was.

use std::sync::Arc;

use deltalake_core::checkpoints::{cleanup_metadata, create_checkpoint};
use deltalake_core::logstore::{
    LogStore, LogStoreFactory, ObjectStoreRef, StorageConfig, default_logstore, logstore_factories,
};
use deltalake_core::{DeltaResult, DeltaTable, DeltaTableBuilder};
use url::Url;

use super::Table;
use super::store::Storage;
use crate::Result;

/// A new process reads at most this many commits after the checkpoint.
pub(crate) const COMMITS_PER_CHECKPOINT: u64 = 64;

/// The library's own log store for stores with conditional writes, for schemes that it does not know by itself.
struct ConditionalWrites;

impl LogStoreFactory for ConditionalWrites {
    fn with_options(
        &self,
        prefixed: ObjectStoreRef,
        root: ObjectStoreRef,
        location: &Url,
        options: &StorageConfig,
    ) -> DeltaResult<Arc<dyn LogStore>> {
        Ok(default_logstore(prefixed, root, location, options))
    }
}

/// Opens a table with the library.
pub(crate) async fn open_with_library(storage: &Storage, table: &str) -> Result<DeltaTable> {
    let (store, url) = storage.root(table);
    if let Ok(scheme) = Url::parse(&format!("{}://", url.scheme())) {
        logstore_factories().entry(scheme).or_insert_with(|| Arc::new(ConditionalWrites));
    }
    Ok(DeltaTableBuilder::from_url(url.clone())?.with_storage_backend(store, url).load().await?)
}

/// Writes a checkpoint if enough commits came since the last one.
pub(crate) async fn checkpoint_if_due(table: &Table) -> Result<()> {
    let (version, last) = {
        let state = table.state().await;
        (state.version, state.checkpoint_version)
    };
    if version < last + COMMITS_PER_CHECKPOINT {
        return Ok(());
    }
    let written = checkpoint(&table.storage, table.spec.name).await?;
    table.state().await.checkpoint_version = written.max(version);
    tracing::debug!(table = table.spec.name, version = written, "checkpoint written");
    Ok(())
}

/// Writes a checkpoint of the newest version and removes commits older than the table's log retention. Returns the version.
pub(crate) async fn checkpoint(storage: &Storage, table: &str) -> Result<u64> {
    let handle = open_with_library(storage, table).await?;
    create_checkpoint(&handle, None).await?;
    cleanup_metadata(&handle, None).await?;
    Ok(handle.version().unwrap_or_default())
}
