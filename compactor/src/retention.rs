//! Drops what is too old and deletes files that nothing needs any more.
//!
//! [`expire`] takes whole `event_date` partitions out of a table, in a commit like any other. [`vacuum`] deletes files
//! that the table's own history says were replaced or dropped, once that is long enough ago for every reader of an older
//! version to be done. [`sweep`] deletes what a crash between writing and committing left behind.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures::TryStreamExt;
use object_store::path::Path;

use crate::commit::{Change, FILES_AGE_MAX};
use crate::expand::date;
use crate::table::Table;
use crate::table::state::TableState;
use crate::write::{is_own_path, remove};
use crate::{Error, Result};

/// Files without a commit are left alone for at least this long; commits refuse files of half that age.
const FORGOTTEN_AGE_MIN: Duration = Duration::from_secs(2 * FILES_AGE_MAX.as_secs());
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

/// Deletes files that were written more than `age` ago (but at least an hour) and that no version of the table names.
/// Returns their number.
///
/// Why none of them can become visible afterwards: directly before each write of a commit its files must be younger than
/// half this age. So only a write can still name such a file that was sent back then and is on its way since, or that a
/// process sends which was stopped between that look and the write. Either aims at the version after the newest that it
/// knew. The commit made here takes the next version after all others, so that such a write is refused, and whoever
/// sent it looks at the age again. What a version does name by now is seen after that commit, and stays.
/// Ages are differences of times that the store itself gave; no two clocks are compared.
pub(crate) async fn sweep(table: &Table, age: Duration) -> Result<usize> {
    let age = age.max(FORGOTTEN_AGE_MIN);
    let (mut unknown, mut newest) = (Vec::new(), DateTime::<Utc>::MIN_UTC);
    let mut listed = table.store.list_stream();
    while let Some(file) = listed.try_next().await? {
        newest = newest.max(file.last_modified);
        if is_own_path(table.spec, file.location.as_ref()) && !is_named(&*table.state().await, &file.location) {
            unknown.push((file.location, file.last_modified));
        }
    }
    drop(listed);
    let age = TimeDelta::from_std(age).unwrap_or(TimeDelta::MAX);
    // No commit can name these: a file gets its name only when all of it is written.
    let spec = table.spec;
    let aside = match newest.checked_sub_signed(age) {
        Some(before) => table.store.remove_aside(before.into(), |path| is_own_path(spec, path)).await?,
        None => 0,
    };
    unknown.retain(|(_, modified_at)| newest.signed_duration_since(modified_at) > age);
    unknown.truncate(FILES_PER_COMMIT);
    let count = aside + delete_unnamed(table, unknown.into_iter().map(|(path, _)| path).collect()).await?;
    if count == 0 {
        return Ok(0);
    }
    tracing::info!(table = table.spec.name, files = count, "files that were never committed deleted");
    table.metrics.vacuumed_files.with_label_values(&[table.spec.name]).inc_by(count as u64);
    Ok(count)
}

/// Deletes those of `paths` that no version names after the one that is made here.
async fn delete_unnamed(table: &Table, mut paths: Vec<Path>) -> Result<usize> {
    if paths.is_empty() {
        return Ok(0);
    }
    let change = Change {
        operation: "VACUUM START",
        parameters: vec![("forgottenFiles", paths.len().into())],
        ..Default::default()
    };
    table.commit(&change, &|_| Ok(())).await?;
    {
        let state = table.state().await;
        paths.retain(|path| !is_named(&state, path));
    }
    table.store.delete(paths).await
}

fn is_named(state: &TableState, path: &Path) -> bool {
    state.files.contains_key(path.as_ref()) || state.tombstones.contains_key(path.as_ref())
}
