//! Keeps copies of the shards of this process in the store.
//!
//! In: the last commit of each shard, and its files. Out: files that the store does not have, then a manifest.
//! Promise: a copy is one commit: its files are opened while Tantivy holds them for us, so merges and later commits take
//! none away. Only the owner publishes: see the module above. A copy covers no less than the one before it.
//! Memory and requests: one shard at a time, a few files at a time. A store that is away costs nothing but its own lag;
//! the log does not wait for copies, as the table of states covers what they lack.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use eventlog::LogReader;
use events::{Topic, TopicPartition};
use futures::StreamExt;
use hashbrown::HashMap;
use runtime::{Runtime, Shutdown};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use uuid::Uuid;

use super::manifest::{Content, KeptFile, Manifest, Unreadable, VERSION};
use super::store::{Created, FILES_AT_ONCE, SnapshotStore, checksum_of};
use super::sweep::{AGE_MIN, purge, sweep};
use crate::index::{self, FORMAT, Position};
use crate::metrics::Metrics;
use crate::shard::Shard;
use crate::{Error, Result, blocking};

/// An upload that no manifest names after this time is made again: a sweep may take it for left behind.
pub const UPLOAD_AGE_MAX: Duration = Duration::from_secs(3600);
const _: () = assert!(UPLOAD_AGE_MAX.as_secs() * 2 <= AGE_MIN.as_secs());
const SWEEP_INTERVAL: Duration = Duration::from_secs(3600);
/// An owner that has published nothing for so many intervals, though there was something, is taken for gone: by mistake a
/// program may have been started for a moment, and nobody would copy the index any more.
const SILENT_INTERVALS: u32 = 4;
/// Each attempt to claim a shard fails only if another process claims it at that moment.
const CLAIMS_MAX: usize = 8;

/// Publishes copies until shutdown begins.
pub struct Snapshotter {
    pub shards: Vec<Arc<Shard>>,
    pub store: SnapshotStore,
    pub log: Arc<dyn LogReader>,
    pub runtime: Runtime,
    pub interval: Duration,
    pub metrics: Metrics,
    pub orders: mpsc::Receiver<RenewOrder>,
}

/// Wants a copy of a shard made now, and all others gone.
pub struct RenewOrder {
    pub partition: u32,
    pub answer: oneshot::Sender<Result<RenewedCopies>>,
}

/// What became of the copies of a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RenewedCopies {
    /// The copy that is there now; 0 if there never was any.
    pub sequence: u64,
    /// Objects removed.
    pub removed: u64,
}

/// What this process knows of its copies of one shard.
pub struct Ownership {
    standing: Standing,
    /// Changes with each claim.
    epoch: Uuid,
    /// Uploaded, but in no manifest yet: by name in the index.
    pending: HashMap<String, (KeptFile, Instant)>,
    uploads: u64,
    /// Of the shard when `pending` was uploaded: in another one names come again with another content.
    generation: u64,
    last_sweep: Option<Instant>,
    has_failed: bool,
}

enum Standing {
    Unclaimed,
    /// With the last manifest.
    Owner(Manifest),
    /// Another process owns it; this one publishes no more, unless that one falls silent.
    Overtaken {
        /// Newest manifest, and since when it has been the newest.
        sequence: u64,
        since: Instant,
    },
    /// A newer version of the program writes copies that this one does not know.
    Foreign,
}

/// One commit of a shard.
struct Cut {
    position: Position,
    meta: String,
    files: Vec<CutFile>,
    generation: u64,
}

struct CutFile {
    name: String,
    file: Arc<File>,
    bytes: u64,
}

impl CutFile {
    /// Lists of deleted documents alone have names that another process may give too: other files are called by chance.
    fn is_named_by_chance(&self) -> bool {
        !self.name.ends_with(".del")
    }
}

impl Ownership {
    pub fn new() -> Self {
        Self {
            standing: Standing::Unclaimed,
            epoch: Uuid::nil(),
            pending: HashMap::new(),
            uploads: 0,
            generation: 0,
            last_sweep: None,
            has_failed: false,
        }
    }

    fn lose(&mut self, partition: u32, topic_id: &str, sequence: u64, other: Option<&Manifest>, now: Instant) {
        self.standing = Standing::Overtaken { sequence, since: now };
        self.pending.clear();
        match other.and_then(|other| other.content.as_ref()) {
            Some(content) if content.topic_id != topic_id => tracing::warn!(
                partition,
                sequence,
                theirs = content.topic_id,
                ours = topic_id,
                "copies of the index of another log are written to the same place; this process writes none meanwhile"
            ),
            _ => tracing::info!(
                partition,
                sequence,
                "another process has taken over the copies of the index; this one writes none meanwhile"
            ),
        }
    }
}

impl Snapshotter {
    /// Claims the shards, then publishes once per interval.
    pub async fn run(mut self, shutdown: Shutdown) {
        let mut owned: Vec<Ownership> = self.shards.iter().map(|_| Ownership::new()).collect();
        while !shutdown.has_begun() {
            let round = async {
                for (shard, owned) in self.shards.iter().zip(&mut owned) {
                    if shard.is_held() {
                        self.keep_or_tell(shard, owned).await;
                    } else if !matches!(owned.standing, Standing::Unclaimed) {
                        // Whoever holds it has claimed it since; if it comes back it is claimed again.
                        *owned = Ownership::new();
                    }
                }
                self.pause(&mut owned).await;
            };
            tokio::select! {
                () = round => {}
                () = shutdown.begun() => return,
            }
        }
    }

    /// Waits for the next round, and renews copies meanwhile where that is asked for.
    async fn pause(&mut self, owned: &mut [Ownership]) {
        let clock = self.runtime.clock.clone();
        // Processes that were started together do not stay together.
        let mut pause = std::pin::pin!(clock.wait(self.runtime.entropy.jitter(self.interval)));
        loop {
            let order = tokio::select! {
                () = &mut pause => return,
                Some(order) = self.orders.recv() => order,
            };
            let place = order.partition as usize;
            let (Some(shard), Some(owned)) = (self.shards.get(place), owned.get_mut(place)) else { continue };
            let renewed = self.renew(&Arc::clone(shard), owned).await;
            // Who asked may have gone.
            let _ = order.answer.send(renewed);
        }
    }

    /// Publishes a copy of the shard as it is now, and removes all others at once.
    ///
    /// # Errors
    /// `NotOurs` if another process owns the copies; `NotOpen` if the shard is not whole. `Snapshot` if objects could not be
    /// removed.
    async fn renew(&self, shard: &Arc<Shard>, owned: &mut Ownership) -> Result<RenewedCopies> {
        let partition = shard.partition;
        if shard.whole().is_none() {
            return Err(Error::NotOpen { partition });
        }
        self.publish(shard, owned, true).await?;
        let Standing::Owner(own) = &owned.standing else { return Err(Error::NotOurs { partition }) };
        let removed = purge(&self.store, own).await?;
        // An owner that came meanwhile may have begun with what is gone now.
        match self.store.newest(partition).await? {
            Some(newest) if newest.sequence == own.sequence => {
                Ok(RenewedCopies { sequence: own.sequence, removed: removed as u64 })
            }
            _ => Err(Error::NotOurs { partition }),
        }
    }

    async fn keep_or_tell(&self, shard: &Arc<Shard>, owned: &mut Ownership) {
        let partition = shard.partition;
        match self.keep(shard, owned).await {
            Ok(()) => owned.has_failed = false,
            Err(error) if owned.has_failed => {
                tracing::debug!(partition, %error, "the index could still not be copied to the store");
            }
            Err(error) => {
                owned.has_failed = true;
                tracing::warn!(partition, %error, "the index could not be copied to the store, trying again");
            }
        }
    }

    /// Publishes a copy of the shard if it has changed.
    pub async fn keep(&self, shard: &Arc<Shard>, owned: &mut Ownership) -> Result<()> {
        self.publish(shard, owned, false).await
    }

    /// `always`: also if it covers no more of the log than the last.
    async fn publish(&self, shard: &Arc<Shard>, owned: &mut Ownership, always: bool) -> Result<()> {
        if matches!(owned.standing, Standing::Unclaimed) {
            self.claim(shard.partition, owned).await?;
        }
        let Some(cut) = self.cut(shard).await? else { return Ok(()) };
        let last = match &owned.standing {
            Standing::Owner(last) => last,
            Standing::Overtaken { .. } => return self.watch(shard.partition, &cut.position, owned).await,
            Standing::Unclaimed | Standing::Foreign => return Ok(()),
        };
        let end = self.log.bounds(TopicPartition::new(Topic::Contexts, shard.partition)).await?.end.0;
        if !always && last.content.as_ref().is_some_and(|content| !goes_beyond(&cut.position, content, end)) {
            return Ok(());
        }
        let last = last.clone();
        let sequence = last.sequence + 1;
        let position = cut.position.clone();
        let content = self.upload(shard.partition, cut, last.content.as_ref(), owned).await?;
        let manifest = Manifest {
            version: VERSION,
            partition: shard.partition,
            sequence,
            epoch: owned.epoch,
            written_at: self.runtime.clock.now().as_millis(),
            content: Some(content),
        };
        match self.store.create(manifest).await? {
            Created::Ours(manifest) => {
                self.metrics.snapshots.inc();
                tracing::debug!(
                    partition = shard.partition,
                    sequence,
                    next = position.next,
                    "index copied to the store"
                );
                owned.pending.clear();
                owned.standing = Standing::Owner(manifest);
                self.sweep_if_due(shard.partition, owned).await
            }
            Created::Taken(other) => {
                owned.lose(shard.partition, &position.topic_id, sequence, other.as_ref(), self.runtime.clock.instant());
                Ok(())
            }
        }
    }

    /// Looks whether the owner is still there; if not, the next round claims the shard.
    async fn watch(&self, partition: u32, position: &Position, owned: &mut Ownership) -> Result<()> {
        let Standing::Overtaken { sequence, since } = owned.standing else { return Ok(()) };
        let Some(newest) = self.store.newest(partition).await? else { return Ok(()) };
        let now = self.runtime.clock.instant();
        let content = newest.manifest.ok().and_then(|manifest| manifest.content);
        // Of another log nothing can be told.
        let is_behind = content.is_none_or(|content| {
            content.topic_id == position.topic_id && content.index_format == FORMAT && content.next < position.next
        });
        if newest.sequence != sequence || !is_behind {
            owned.standing = Standing::Overtaken { sequence: newest.sequence, since: now };
        } else if now.duration_since(since) >= self.interval * SILENT_INTERVALS {
            tracing::info!(partition, sequence, "nobody copies the index any more; this process does again");
            owned.standing = Standing::Unclaimed;
        }
        Ok(())
    }

    /// Takes the copies of a shard over from whoever wrote them before.
    async fn claim(&self, partition: u32, owned: &mut Ownership) -> Result<()> {
        let epoch = self.runtime.entropy.uuid();
        for _ in 0..CLAIMS_MAX {
            let (sequence, content) = match self.store.newest(partition).await? {
                None => (1, None),
                Some(found) => match found.manifest {
                    Ok(manifest) => (found.sequence + 1, self.if_there(partition, manifest.content).await?),
                    Err(Unreadable::Newer(version)) => {
                        tracing::warn!(
                            partition,
                            version,
                            "copies of the index are written by a newer version of this program; this one writes none"
                        );
                        owned.standing = Standing::Foreign;
                        return Ok(());
                    }
                    // Those before it may be whole, and stay.
                    Err(Unreadable::Damaged(_)) => (found.sequence + 1, None),
                },
            };
            let written_at = self.runtime.clock.now().as_millis();
            let claim = Manifest { version: VERSION, partition, sequence, epoch, written_at, content };
            if let Created::Ours(manifest) = self.store.create(claim).await? {
                owned.epoch = epoch;
                owned.standing = Standing::Owner(manifest);
                return Ok(());
            }
        }
        Err(Error::Damaged { what: format!("the copies of partition {partition} were claimed by others all the time") })
    }

    /// The content of a manifest, unless files of it are missing: a claim does not go on with what cannot be taken over.
    async fn if_there(&self, partition: u32, content: Option<Content>) -> Result<Option<Content>> {
        if content.is_none() {
            return Ok(None);
        }
        let objects = self.store.objects_of(partition).await?;
        let there: HashMap<String, u64> = objects.into_iter().map(|(name, meta)| (name, meta.size)).collect();
        let is_there = |file: &KeptFile| there.get(&file.object) == Some(&file.bytes);
        Ok(content.filter(|content| content.files.iter().all(is_there)))
    }

    /// The last commit of a shard with its files opened; `None` while there is none that is whole.
    async fn cut(&self, shard: &Arc<Shard>) -> Result<Option<Cut>> {
        let shard = Arc::clone(shard);
        blocking(&self.runtime, "reading the last commit of the index", move || take_cut(&shard)).await
    }

    /// Uploads what the store does not have.
    async fn upload(&self, partition: u32, cut: Cut, last: Option<&Content>, owned: &mut Ownership) -> Result<Content> {
        let now = self.runtime.clock.instant();
        if owned.generation != cut.generation {
            owned.generation = cut.generation;
            owned.pending.clear();
        }
        owned.pending.retain(|_, (_, at)| now.duration_since(*at) < UPLOAD_AGE_MAX);
        let before: HashMap<&str, &KeptFile> =
            last.into_iter().flat_map(|last| &last.files).map(|kept| (kept.name.as_str(), kept)).collect();
        let mut files = Vec::with_capacity(cut.files.len());
        let mut missing = Vec::new();
        for file in cut.files {
            let known = before.get(file.name.as_str()).copied().or(owned.pending.get(&file.name).map(|(kept, _)| kept));
            let known = known.filter(|known| known.bytes == file.bytes);
            let is_known = match known {
                None => false,
                Some(_) if file.is_named_by_chance() => true,
                Some(known) => self.checksum(&file).await? == known.checksum,
            };
            match known {
                Some(known) if is_known => files.push(known.clone()),
                _ => missing.push(file),
            }
        }
        let mut uploads = Vec::with_capacity(missing.len());
        for file in missing {
            owned.uploads += 1;
            let object = format!("{}-{}-{}", owned.epoch.simple(), owned.uploads, file.name);
            uploads.push(self.upload_file(partition, object, file));
        }
        let mut uploads = futures::stream::iter(uploads).buffer_unordered(FILES_AT_ONCE);
        let mut failure = None;
        while let Some(uploaded) = uploads.next().await {
            match uploaded {
                Ok(kept) => {
                    self.metrics.snapshot_bytes.inc_by(kept.bytes);
                    owned.pending.insert(kept.name.clone(), (kept.clone(), now));
                    files.push(kept);
                }
                // Those on their way are not begun again next time.
                Err(error) => failure = Some(error),
            }
        }
        if let Some(error) = failure {
            return Err(error);
        }
        files.sort_unstable_by(|left, right| left.name.cmp(&right.name));
        let Position { topic_id, next, .. } = cut.position;
        Ok(Content { index_format: FORMAT, topic_id, next, meta: cut.meta, files })
    }

    async fn upload_file(&self, partition: u32, object: String, file: CutFile) -> Result<KeptFile> {
        let CutFile { name, file, bytes } = file;
        let checksum = self.store.upload(partition, &object, file, bytes, &self.runtime).await?;
        Ok(KeptFile { name, object, bytes, checksum })
    }

    async fn checksum(&self, file: &CutFile) -> Result<String> {
        let (content, bytes) = (Arc::clone(&file.file), file.bytes);
        blocking(&self.runtime, "reading a file of the index", move || checksum_of(&content, bytes)).await
    }

    async fn sweep_if_due(&self, partition: u32, owned: &mut Ownership) -> Result<()> {
        let now = self.runtime.clock.instant();
        if owned.last_sweep.is_some_and(|at| now.duration_since(at) < SWEEP_INTERVAL) {
            return Ok(());
        }
        owned.last_sweep = Some(now);
        let Standing::Owner(own) = &owned.standing else { return Ok(()) };
        let removed = sweep(&self.store, partition, own.content.as_ref(), AGE_MIN).await?;
        tracing::debug!(partition, removed, "copies of the index swept");
        Ok(())
    }
}

/// Whether a commit is worth a copy. `end`: of the log; a copy that claims to cover more is no measure.
fn goes_beyond(position: &Position, kept: &Content, end: i64) -> bool {
    let is_same = position.topic_id == kept.topic_id && kept.index_format == FORMAT;
    !is_same || position.next > kept.next || (position.next < kept.next && kept.next > end)
}

fn take_cut(shard: &Shard) -> Result<Option<Cut>> {
    let generation = shard.generation.load(Ordering::Acquire);
    let Some((_, reader)) = shard.whole() else { return Ok(None) };
    // Held until the files are open: Tantivy removes no file of a segment that somebody knows.
    let meta = reader.searcher().index().load_metas().map_err(Error::index("read the index's metadata"))?;
    let position = meta.payload.as_deref().and_then(|payload| serde_json::from_str::<Position>(payload).ok());
    let Some(position) = position.filter(|position| position.format == FORMAT && !position.is_partial) else {
        return Ok(None);
    };
    let files = meta.segments.iter().flat_map(index::files_of).map(|name| open(&shard.path, &name));
    let files = files.collect::<Result<Vec<_>>>()?;
    let text = serde_json::to_string(&meta).expect("metadata of an index are written without fail");
    // Files of two beginnings do not make one index, though their names may fit.
    let is_same = shard.generation.load(Ordering::Acquire) == generation;
    Ok(is_same.then_some(Cut { position, meta: text, files, generation }))
}

fn open(folder: &Path, name: &Path) -> Result<CutFile> {
    let path = folder.join(name);
    let file = File::open(&path).map_err(Error::io("open", &path))?;
    let bytes = file.metadata().map_err(Error::io("look at", &path))?.len();
    Ok(CutFile { name: name.to_string_lossy().into_owned(), file: Arc::new(file), bytes })
}
