//! Drops what is too old and deletes files that nothing needs any more.
//!
//! [`expire`] takes whole `event_date` partitions out of a table, in a commit like any other. [`vacuum`] deletes files
//! that the table's own history says were replaced or dropped, once that is long enough ago for every reader of an older
//! version to be done. It never deletes what it merely does not know: a file without a commit may be about to get one.

use std::time::Duration;

use object_store::path::Path;

use crate::commit::Change;
use crate::expand::date;
use crate::table::Table;
use crate::table::state::TableState;
use crate::write::remove;
use crate::{Error, Result};

const DAY_MILLIS: i64 = 86_400_000;
/// Files that one commit drops and one round deletes; bounds the commit and the time between other work.
const FILES_PER_COMMIT: usize = 10_000;

/// Drops partitions whose date lies more than `retention` back. Returns the number of files.
pub(crate) async fn expire(table: &Table, retention: Duration) -> Result<usize> {
    if retention.is_zero() || !table.spec.partition_columns().any(|name| name == "event_date") {
        return Ok(0);
    }
    let now = table.now_millis();
    // The day of the limit itself still has rows that are young enough.
    let first_kept = date((now - retention.as_millis() as i64).div_euclid(DAY_MILLIS));
    let old: Vec<_> = {
        let state = table.state().await;
        let old = state.files.iter().filter(|(_, file)| {
            let day = file.partition.get("event_date").and_then(Option::as_deref);
            day.is_some_and(|day| day < first_kept.as_str())
        });
        old.take(FILES_PER_COMMIT).map(|(path, file)| (path.clone(), file.clone())).collect()
    };
    if old.is_empty() {
        return Ok(0);
    }
    let change = Change {
        operation: "DELETE",
        parameters: vec![("before", first_kept.clone().into())],
        removes: old.iter().map(|(path, file)| remove(path, &file.partition, file.bytes, now, true)).collect(),
        ..Default::default()
    };
    let name = table.spec.name;
    let guard = |state: &TableState| match old.iter().find(|(path, _)| !state.files.contains_key(path)) {
        None => Ok(()),
        Some((path, _)) => Err(Error::FileGone { table: name, path: path.to_string() }),
    };
    table.commit(&change, &guard).await?;
    tracing::info!(table = name, files = old.len(), before = first_kept, "old partitions dropped");
    Ok(old.len())
}

/// Deletes files that were replaced more than `age` ago. Returns their number.
pub(crate) async fn vacuum(table: &Table, age: Duration) -> Result<usize> {
    // Others may have put a file back (a restore of an older version); what is live is decided on the newest state.
    table.refresh().await?;
    let limit = table.now_millis() - age.as_millis() as i64;
    let old: Vec<_> = {
        let state = table.state().await;
        let dead = |path: &str, deleted_at: i64| deleted_at < limit && !state.files.contains_key(path);
        let plain = |path: &str| !path.contains(['%', ':']);
        let old = state.tombstones.iter().filter(|(path, deleted_at)| dead(path, **deleted_at) && plain(path));
        old.take(FILES_PER_COMMIT).map(|(path, _)| path.clone()).collect()
    };
    if old.is_empty() {
        return Ok(0);
    }
    table.store.delete(old.iter().map(|path| Path::from(path.as_ref())).collect()).await?;
    let mut state = table.state().await;
    for path in &old {
        state.tombstones.remove(path);
    }
    table.metrics.vacuumed_files.with_label_values(&[table.spec.name]).inc_by(old.len() as u64);
    Ok(old.len())
}
