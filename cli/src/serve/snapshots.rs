//! Where the index keeps copies of its shards: below the tables, if those lie in a bucket or the configuration says so.

use std::sync::Arc;

use anyhow::Context;
use compactor::{Compactor, Storage};
use indexer::{SnapshotStore, Snapshots};
use runtime::Runtime;

use crate::config::Settings;

/// The folder of the copies.
const FOLDER: &str = "snapshots";

/// Opens the place of the copies; `None` if there shall be none. `compactor`: the one of this process, which has tried the
/// store before.
pub async fn open(
    settings: &Settings,
    runtime: &Runtime,
    compactor: Option<&Arc<Compactor>>,
) -> anyhow::Result<Option<SnapshotStore>> {
    let storage = settings.storage_resolved();
    let is_wanted = match settings.indexer.snapshots {
        Snapshots::On => true,
        Snapshots::Off => false,
        Snapshots::Auto => storage.is_remote(),
    };
    if !is_wanted {
        return Ok(None);
    }
    let storage = Storage::open(&storage).context("opening the store for copies of the index")?;
    if compactor.is_none() {
        storage.check_conditional_put(&runtime.entropy).await.context("opening the store for copies of the index")?;
    }
    Ok(Some(SnapshotStore::new(storage.folder(FOLDER))))
}
