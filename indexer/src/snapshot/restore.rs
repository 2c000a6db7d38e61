//! Fetches a copy of a shard into an empty folder.
//!
//! In: manifests, newest first. Out: a folder that opens as an index, each of its files checked against the manifest and
//! against Tantivy's own checksum, which also tells of files that were damaged before they were copied.
//! Promise: a copy that is damaged, of another format, or older than the log reaches back is passed over, and why is
//! logged. The folder is complete and durable when this returns, so that it can be moved into place.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use futures::{StreamExt, TryStreamExt};
use runtime::Runtime;

use super::manifest::{Content, Manifest};
use super::store::{FILES_AT_ONCE, Found, SnapshotStore};
use crate::index::{self, FORMAT};
use crate::metrics::Metrics;
use crate::{Error, Result, blocking};

/// Different copies that are tried.
const COPIES_MAX: usize = 4;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub partition: u32,
    /// The log that is read on from the copy.
    pub topic_id: String,
    /// The first offset that it holds. None: a copy serves though the log has forgotten what came after it, as nothing else has kept that.
    pub log_start: Option<i64>,
    /// Only copies of a smaller number: that one and those after it have disappointed.
    pub below: Option<u64>,
}

/// What was fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    pub sequence: u64,
    pub next: i64,
    pub files: usize,
    pub bytes: u64,
}

/// Fetches the newest copy that serves; `None` if none does. Whatever was in `folder` is removed.
///
/// # Errors
/// `Snapshot` (kind `Retry`) if the store does not answer.
pub async fn fetch(
    store: &SnapshotStore,
    wanted: &Wanted,
    folder: &Path,
    runtime: &Runtime,
    metrics: &Metrics,
) -> Result<Option<Restored>> {
    let partition = wanted.partition;
    let mut tried: Vec<Content> = Vec::new();
    let newest = store.newest(partition).await?;
    let listed = store.sequences(partition).await?.into_iter().map(|(sequence, _)| sequence);
    let sequences: Vec<u64> = newest.iter().map(|found| found.sequence).chain(listed).collect();
    let mut last = u64::MAX;
    for sequence in sequences {
        if sequence >= last || wanted.below.is_some_and(|below| sequence >= below) {
            continue;
        }
        last = sequence;
        let Some(Found { manifest, .. }) = store.manifest(partition, sequence).await? else { continue };
        let passed_over = |reason: &dyn std::fmt::Display| {
            metrics.snapshots_passed_over.inc();
            tracing::warn!(partition, sequence, %reason, "copy of the index passed over");
        };
        let content = match manifest {
            Ok(Manifest { content: Some(content), .. }) => content,
            Ok(Manifest { content: None, .. }) => continue,
            Err(reason) => {
                passed_over(&reason);
                continue;
            }
        };
        if tried.contains(&content) {
            continue;
        }
        if let Some(log_start) = wanted.log_start
            && content.topic_id == wanted.topic_id
            && content.next < log_start
        {
            let next = content.next;
            tracing::info!(partition, sequence, next, log_start, "the log no longer holds what comes after the copy");
            return Ok(None);
        }
        match fetch_content(store, partition, &content, folder, runtime).await {
            Ok(()) => {
                let bytes = content.files.iter().map(|file| file.bytes).sum();
                return Ok(Some(Restored { sequence, next: content.next, files: content.files.len(), bytes }));
            }
            Err(error @ Error::Damaged { .. }) => passed_over(&error),
            Err(error) => return Err(error),
        }
        tried.push(content);
        if tried.len() >= COPIES_MAX {
            break;
        }
    }
    Ok(None)
}

async fn fetch_content(
    store: &SnapshotStore,
    partition: u32,
    content: &Content,
    folder: &Path,
    runtime: &Runtime,
) -> Result<()> {
    if content.index_format != FORMAT {
        return Err(Error::Damaged { what: format!("it is of format {}, not {FORMAT}", content.index_format) });
    }
    let emptied = folder.to_owned();
    let empty = move || {
        index::discard(&emptied)?;
        std::fs::create_dir_all(&emptied).map_err(Error::io("create", &emptied))
    };
    blocking(runtime, "making room for a copy", empty).await?;
    let downloads: Vec<_> = content.files.iter().map(|kept| store.download(partition, kept, folder, runtime)).collect();
    futures::stream::iter(downloads).buffer_unordered(FILES_AT_ONCE).try_collect::<()>().await?;
    let (content, folder) = (content.clone(), folder.to_owned());
    blocking(runtime, "completing a copy", move || complete(&content, &folder)).await
}

/// Adds what is not a segment's, and looks whether it makes an index.
fn complete(content: &Content, folder: &Path) -> Result<()> {
    let mut managed: Vec<&str> = content.files.iter().map(|file| file.name.as_str()).collect();
    managed.push(index::META_FILE);
    let managed = serde_json::to_vec(&managed).expect("texts are written without fail");
    write_synced(folder.join(index::MANAGED_FILE), &managed)?;
    write_synced(folder.join(index::META_FILE), content.meta.as_bytes())?;
    let synced = std::fs::File::open(folder).and_then(|opened| opened.sync_all());
    synced.map_err(Error::io("sync", folder))?;
    // Tantivy answers some kinds of damage with a panic.
    catch_unwind(AssertUnwindSafe(|| index::verify(folder)))
        .unwrap_or_else(|_| Err(Error::Damaged { what: "opening it panicked".into() }))
}

fn write_synced(path: PathBuf, content: &[u8]) -> Result<()> {
    use std::io::Write as _;
    let written = std::fs::File::create(&path).and_then(|mut file| {
        file.write_all(content)?;
        file.sync_all()
    });
    written.map_err(Error::io("write", path))
}
