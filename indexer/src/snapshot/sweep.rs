//! Removes what no kept manifest names.
//!
//! Promise: no file of a manifest that is kept, and no file that an upload under way may still be naming: such files are
//! young. Ages are differences between times of the store itself, so that a wrong clock of ours deletes nothing.
//! Manifests first, then the files that only they named: a crash between leaves files for the next sweep.

use std::time::Duration;

use hashbrown::HashSet;

use super::manifest::{Content, Manifest, Unreadable};
use super::store::SnapshotStore;
use crate::Result;

/// Copies kept, whatever their age: one that turns out to be damaged has others behind it.
pub const COPIES_KEPT: usize = 3;
/// Nothing younger is removed: who downloads has begun with a manifest that was the newest then, and who uploads names
/// its files within [`super::publish::UPLOAD_AGE_MAX`].
pub const AGE_MIN: Duration = Duration::from_secs(2 * 3600);

/// Returns how many objects were removed. `own`: what the caller has just published, which a list may not show yet.
pub async fn sweep(store: &SnapshotStore, partition: u32, own: Option<&Content>, age_min: Duration) -> Result<usize> {
    let manifests = store.sequences(partition).await?;
    if manifests.is_empty() {
        // The caller has just published one, so this list is older than that and says nothing of what is named.
        return Ok(0);
    }
    let objects = store.objects_of(partition).await?;
    // The newest of all times is what comes closest to the store's own clock.
    let times = manifests.iter().map(|(_, meta)| meta).chain(objects.iter().map(|(_, meta)| meta));
    let Some(now) = times.map(|meta| meta.last_modified).max() else { return Ok(0) };
    let is_old = |meta: &object_store::ObjectMeta| {
        now.signed_duration_since(meta.last_modified).to_std().is_ok_and(|age| age >= age_min)
    };
    let mut named: HashSet<String> = HashSet::new();
    let mut name = |content: &Content| named.extend(content.files.iter().map(|file| file.object.clone()));
    own.into_iter().for_each(&mut name);
    let (mut copies, mut removed) = (0, Vec::new());
    for (sequence, meta) in &manifests {
        if copies >= COPIES_KEPT && is_old(meta) {
            removed.push(meta.location.clone());
            continue;
        }
        match store.manifest(partition, *sequence).await?.map(|found| found.manifest) {
            Some(Ok(manifest)) => {
                if let Some(content) = &manifest.content {
                    name(content);
                    copies += 1;
                }
            }
            // What it names is not known.
            Some(Err(Unreadable::Newer(_))) => return Ok(0),
            Some(Err(Unreadable::Damaged(_))) | None => {}
        }
    }
    // Oldest first, so that what is left is without gaps.
    removed.reverse();
    removed.extend(
        objects.into_iter().filter(|(name, meta)| !named.contains(name) && is_old(meta)).map(|(_, meta)| meta.location),
    );
    for path in &removed {
        store.delete(path).await?;
    }
    Ok(removed.len())
}

/// Removes all copies but `own`, whatever their age, and all files that it does not name. Returns how many objects.
///
/// For what must not be found any more: whoever downloads one of them begins again with `own`.
pub async fn purge(store: &SnapshotStore, own: &Manifest) -> Result<usize> {
    let named: HashSet<&str> =
        own.content.iter().flat_map(|content| &content.files).map(|file| file.object.as_str()).collect();
    let manifests = store.sequences(own.partition).await?;
    let older = manifests.into_iter().filter(|(sequence, _)| *sequence < own.sequence).map(|(_, meta)| meta.location);
    // Oldest first, so that what is left is without gaps.
    let mut removed: Vec<_> = older.collect();
    removed.reverse();
    let objects = store.objects_of(own.partition).await?;
    removed
        .extend(objects.into_iter().filter(|(name, _)| !named.contains(name.as_str())).map(|(_, meta)| meta.location));
    for path in &removed {
        store.delete(path).await?;
    }
    Ok(removed.len())
}
