//! The object store of a seed: what lies in it, and one process's way to it.
//!
//! [`Bucket`] carries requests out one after the other; reads see every write before them, as object stores promise today,
//! except that a list may be old. [`NodeStore`] is the store as one process sees it: requests take time, fail before or
//! after their effect, take effect long after their caller gave up, or leave half of a file.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;
use runtime::UnixMicros;
use tokio::time::Instant;

use crate::node::Node;
use crate::planted::Planted;
use crate::watch::Watch;
use crate::world::{Fate, Service, World};

/// What is known of one object.
#[derive(Clone, Copy)]
struct Object {
    bytes: u64,
    written: Instant,
    written_at: UnixMicros,
}

/// What the store holds.
pub struct Bucket {
    world: Arc<World>,
    inner: InMemory,
    objects: Mutex<BTreeMap<String, Object>>,
    pub watch: Mutex<Watch>,
    /// Age at which files that were taken out may be deleted.
    vacuum_age: Duration,
}

/// `lake/events/_delta_log/00000000000000000007.json` is version 7 of the table `events`.
fn as_commit(path: &str) -> Option<(&str, u64)> {
    let (table, file) = path.strip_prefix("lake/")?.split_once("/_delta_log/")?;
    Some((table, file.strip_suffix(".json")?.parse().ok()?))
}

fn as_data_file(path: &str) -> Option<(&str, &str)> {
    let (table, file) = path.strip_prefix("lake/")?.split_once('/')?;
    (!file.starts_with("_delta_log/")).then_some((table, file))
}

fn no_answer() -> object_store::Error {
    object_store::Error::Generic { store: "simulated", source: "no answer".into() }
}

impl Bucket {
    pub fn new(world: &Arc<World>, vacuum_age: Duration) -> Arc<Self> {
        Arc::new(Self {
            world: Arc::clone(world),
            inner: InMemory::new(),
            objects: Mutex::default(),
            watch: Mutex::default(),
            vacuum_age,
        })
    }

    pub async fn read(&self, path: &str) -> Result<Bytes> {
        self.inner.get(&Path::from(path)).await?.bytes().await
    }

    async fn put(&self, who: &str, path: &Path, bytes: Bytes, mode: PutMode) -> Result<PutResult> {
        let length = bytes.len();
        let result = self.inner.put_opts(path, PutPayload::from_bytes(bytes.clone()), mode.into()).await;
        let outcome = if result.is_ok() { "put" } else { "not put" };
        self.world.note(format_args!("{who} {outcome} {path} {length}"));
        if result.is_ok() {
            let (written, written_at) = (Instant::now(), self.world.clock.now());
            self.objects.lock().insert(path.to_string(), Object { bytes: length as u64, written, written_at });
            if let Some((table, version)) = as_commit(path.as_ref()) {
                let objects = self.objects.lock();
                let size_of = |file: &str| objects.get(&format!("lake/{table}/{file}")).map(|object| object.bytes);
                let broken = self.watch.lock().commit(table, version, &bytes, self.world.clock.now(), size_of);
                broken.into_iter().for_each(|what| self.world.violated(what));
            }
        }
        result
    }

    async fn delete(&self, who: &str, path: &Path) -> Result<()> {
        self.world.note(format_args!("{who} deletes {path}"));
        if let Some((table, file)) = as_data_file(path.as_ref()) {
            let age_min = self.world.plan.clocks_agree().then_some(self.vacuum_age.as_micros() as i64);
            let broken = self.watch.lock().deletion(table, file, self.world.clock.now(), age_min);
            broken.into_iter().for_each(|what| self.world.violated(what));
        }
        self.objects.lock().remove(path.as_ref());
        self.inner.delete(path).await
    }

    /// Objects below `prefix` as they were `age` ago.
    async fn list(&self, prefix: Option<&Path>, age: Duration) -> Vec<Result<ObjectMeta>> {
        let listed: Vec<_> = self.inner.list(prefix).collect().await;
        let now = Instant::now();
        let was_there = |meta: &ObjectMeta| {
            self.objects.lock().get(meta.location.as_ref()).is_some_and(|object| object.written + age <= now)
        };
        listed.into_iter().flatten().filter(was_there).map(|meta| Ok(self.dated(meta))).collect()
    }

    /// With the simulated time at which it was written.
    fn dated(&self, mut meta: ObjectMeta) -> ObjectMeta {
        if let Some(object) = self.objects.lock().get(meta.location.as_ref()) {
            meta.last_modified = chrono::DateTime::from_timestamp_micros(object.written_at.0).unwrap_or_default();
        }
        meta
    }

    fn newest_version(&self, table: &str) -> u64 {
        self.watch.lock().table(table).map_or(0, |watched| watched.next_version)
    }
}

/// The store as one process sees it.
#[derive(Clone)]
pub struct NodeStore {
    node: Arc<Node>,
    bucket: Arc<Bucket>,
    /// Versions that were there when the process began, by table.
    began_at: Arc<BTreeMap<String, u64>>,
}

impl NodeStore {
    pub fn new(node: &Arc<Node>, bucket: &Arc<Bucket>) -> Self {
        let began_at = ["events", "dead_letters", "ledger"]
            .map(|table| (table.to_owned(), bucket.newest_version(table)))
            .into_iter()
            .collect();
        Self { node: Arc::clone(node), bucket: Arc::clone(bucket), began_at: Arc::new(began_at) }
    }

    fn world(&self) -> &Arc<World> {
        &self.node.world
    }

    async fn put_with(&self, path: &Path, bytes: Bytes, mode: PutMode, fate: Fate) -> Result<PutResult> {
        let world = self.world();
        let effect = |bytes: Bytes, mode: PutMode| {
            let (bucket, node, path) = (Arc::clone(&self.bucket), Arc::clone(&self.node), path.clone());
            async move { bucket.put(&node.name, &path, bytes, mode).await }
        };
        if fate != Fate::Done {
            world.note(format_args!("{} putting {path} {fate:?}", self.node.name));
        }
        match fate {
            Fate::Done => world.send(world.latency(), effect(bytes, mode)).await,
            Fate::Refused => {
                world.travel().await;
                Err(no_answer())
            }
            Fate::AnswerLost => {
                world.send(world.latency(), effect(bytes, mode)).await.ok();
                Err(no_answer())
            }
            Fate::Late(delay) => {
                world.send_unawaited(delay, effect(bytes, mode));
                world.travel().await;
                Err(no_answer())
            }
            // What is written under a condition is written whole or not at all.
            Fate::Torn if mode == PutMode::Create => Err(no_answer()),
            Fate::Torn => {
                let half = bytes.slice(..bytes.len() / 2);
                world.send(world.latency(), effect(half, mode)).await.ok();
                Err(no_answer())
            }
        }
    }

    /// The data file counts as written when it is sent, and is lost with its process.
    fn put_before_it_is_there(&self, path: &Path, bytes: Bytes) -> PutResult {
        let (bucket, node, path) = (Arc::clone(&self.bucket), Arc::clone(&self.node), path.clone());
        let world = self.world();
        world.send_unawaited(world.millis(0..3_000), async move {
            if !node.is_dead() {
                bucket.put(&node.name, &path, bytes, PutMode::Overwrite).await.ok();
            }
        });
        PutResult { e_tag: None, version: None }
    }

    /// The commit of a merge, with one file more taken out.
    fn with_a_file_dropped(&self, table: &str, bytes: &Bytes) -> Bytes {
        let text = String::from_utf8_lossy(bytes);
        if !text.contains("\"OPTIMIZE\"") {
            return bytes.clone();
        }
        let watch = self.bucket.watch.lock();
        let live = watch.table(table).map(|watched| &watched.live);
        match live.and_then(|live| live.keys().find(|path| !text.contains(path.as_str()))) {
            Some(path) => {
                let remove = serde_json::json!({"remove": {"path": path, "deletionTimestamp": 0, "dataChange": false}});
                Bytes::from(format!("{}\n{remove}\n", text.trim_end()))
            }
            None => bytes.clone(),
        }
    }

    /// A commit of another process, without the offsets that it covers.
    async fn without_offsets(&self, path: &Path) -> Result<Option<InMemory>> {
        let Some((table, version)) = as_commit(path.as_ref()) else { return Ok(None) };
        if self.began_at.get(table).is_none_or(|began_at| version < *began_at) {
            return Ok(None);
        }
        let bytes = self.bucket.read(path.as_ref()).await?;
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.starts_with(b"{\"txn\""));
        let kept = lines.collect::<Vec<_>>().join(&b'\n');
        let aside = InMemory::new();
        aside.put(path, PutPayload::from(kept)).await?;
        Ok(Some(aside))
    }

    async fn reading(&self) -> Result<()> {
        self.node.step().await;
        self.world().travel().await;
        if self.world().read_fails(Service::Store) { Err(no_answer()) } else { Ok(()) }
    }
}

impl fmt::Debug for NodeStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeStore({})", self.node.name)
    }
}

impl fmt::Display for NodeStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "store of {}", self.node.name)
    }
}

#[async_trait::async_trait]
impl ObjectStore for NodeStore {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.node.step().await;
        let mut bytes = Bytes::from(payload.iter().flat_map(|part| part.to_vec()).collect::<Vec<u8>>());
        let is_data = as_data_file(path.as_ref()).is_some();
        if is_data && self.world().is_planted(Planted::CommitBeforeFile) {
            return Ok(self.put_before_it_is_there(path, bytes));
        }
        if let Some((table, _)) = as_commit(path.as_ref()).filter(|_| self.world().is_planted(Planted::MergeDropsFile))
        {
            bytes = self.with_a_file_dropped(table, &bytes);
        }
        let fate = self.world().fate(Service::Store);
        let answer = self.put_with(path, bytes, options.mode, fate).await;
        self.node.step().await;
        answer
    }

    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.world().violated(format!("{path} is uploaded in parts, which is not simulated"));
        self.bucket.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.reading().await?;
        let answer = match self.world().is_planted(Planted::NoFencing) {
            true => match self.without_offsets(path).await? {
                Some(aside) => aside.get_opts(path, options).await,
                None => self.bucket.inner.get_opts(path, options).await,
            },
            false => self.bucket.inner.get_opts(path, options).await,
        };
        self.node.step().await;
        answer.map(|mut got| {
            got.meta = self.bucket.dated(got.meta);
            got
        })
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.reading().await?;
        let answer = self.bucket.inner.get_ranges(path, ranges).await;
        self.node.step().await;
        answer
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        paths
            .then(move |path| {
                let this = this.clone();
                async move {
                    let path = path?;
                    this.node.step().await;
                    let (bucket, node, target) = (Arc::clone(&this.bucket), Arc::clone(&this.node), path.clone());
                    let fate = this.world().fate(Service::Store);
                    let effect = async move { bucket.delete(&node.name, &target).await };
                    let world = this.world();
                    let answer = match fate {
                        Fate::Done => world.send(world.latency(), effect).await.map(|()| path),
                        Fate::AnswerLost => {
                            world.send(world.latency(), effect).await.ok();
                            Err(no_answer())
                        }
                        Fate::Late(delay) => {
                            world.send_unawaited(delay, effect);
                            Err(no_answer())
                        }
                        Fate::Refused | Fate::Torn => Err(no_answer()),
                    };
                    this.node.step().await;
                    answer
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (this, prefix) = (self.clone(), prefix.cloned());
        let listed = async move {
            if let Err(error) = this.reading().await {
                return vec![Err(error)];
            }
            let is_stale = !this.world().is_calm() && this.world().happens(this.world().plan.rates.store);
            let age = if is_stale { this.world().millis(0..120_000) } else { Duration::ZERO };
            let listed = this.bucket.list(prefix.as_ref(), age).await;
            this.node.step().await;
            listed
        };
        futures::stream::once(listed).flat_map(futures::stream::iter).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.reading().await?;
        self.bucket.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(object_store::Error::NotSupported { source: format!("copy of {from} is not simulated").into() })
    }
}
