//! A store in memory for copies of the index, whose requests go wrong as a test says.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use futures::stream::{BoxStream, TryStreamExt as _};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt as _,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::Semaphore;

/// What becomes of the next write of a manifest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// It is written, the answer is lost.
    AnswerLost,
    /// It is not written, and the caller cannot know.
    Lost,
    /// It takes effect only just before the next write of a manifest.
    Late,
}

#[derive(Debug, Default)]
struct Inner {
    objects: InMemory,
    faults: Mutex<VecDeque<Fault>>,
    late: Mutex<Option<(Path, PutPayload)>>,
    is_away: AtomicBool,
    refused: AtomicUsize,
    /// Writes of each file.
    puts: Mutex<BTreeMap<String, usize>>,
    /// Lists do not show these.
    unlisted: Mutex<Vec<String>>,
    /// Reads of files beyond these wait.
    gate: Mutex<Option<Arc<Semaphore>>>,
    waiting: AtomicUsize,
}

#[derive(Clone, Debug, Default)]
pub struct CopyStore(Arc<Inner>);

fn no_answer() -> object_store::Error {
    object_store::Error::Generic { store: "fault", source: "no answer".into() }
}

impl fmt::Display for CopyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CopyStore")
    }
}

/// One manifest as it lies in the store.
#[derive(Clone, Debug)]
pub struct SeenManifest {
    pub path: Path,
    pub sequence: u64,
    pub body: Value,
}

impl SeenManifest {
    pub fn epoch(&self) -> &str {
        self.body["epoch"].as_str().unwrap()
    }

    /// First offset that the copy does not cover; None without one.
    pub fn next(&self) -> Option<i64> {
        self.body["content"]["next"].as_i64()
    }

    pub fn objects(&self) -> Vec<String> {
        let files = self.body["content"]["files"].as_array().into_iter().flatten();
        files.map(|file| file["object"].as_str().unwrap().to_owned()).collect()
    }
}

impl CopyStore {
    pub fn next_manifests(&self, faults: impl IntoIterator<Item = Fault>) {
        self.0.faults.lock().extend(faults);
    }

    pub fn faults_left(&self) -> usize {
        self.0.faults.lock().len()
    }

    pub fn set_away(&self, is_away: bool) {
        self.0.is_away.store(is_away, Ordering::Relaxed);
    }

    /// Requests that met a store that was away.
    pub fn refused(&self) -> usize {
        self.0.refused.load(Ordering::Relaxed)
    }

    /// The most often that one file was written.
    pub fn puts_max(&self) -> usize {
        self.0.puts.lock().values().copied().max().unwrap_or(0)
    }

    pub fn files_put(&self) -> usize {
        self.0.puts.lock().len()
    }

    /// Files written under an ownership.
    pub fn files_put_by(&self, epoch: &str) -> usize {
        let epoch = epoch.replace('-', "");
        self.0.puts.lock().keys().filter(|path| path.contains(&epoch)).count()
    }

    pub fn hide_from_lists(&self, path: &Path) {
        self.0.unlisted.lock().push(path.to_string());
    }

    /// From now on so many reads of files succeed; further ones wait until the gate is opened.
    pub fn close_gate(&self, reads: usize) {
        self.0.waiting.store(0, Ordering::Relaxed);
        *self.0.gate.lock() = Some(Arc::new(Semaphore::new(reads)));
    }

    pub fn open_gate(&self) {
        if let Some(gate) = self.0.gate.lock().take() {
            gate.close();
        }
    }

    pub fn waiting(&self) -> usize {
        self.0.waiting.load(Ordering::Relaxed)
    }

    /// Manifests of a partition, oldest first.
    pub async fn manifests(&self, partition: u32) -> Vec<SeenManifest> {
        let folder = Path::from(partition.to_string());
        let listed = self.0.objects.list_with_delimiter(Some(&folder)).await.unwrap();
        let mut found = Vec::new();
        for meta in listed.objects {
            let body = self.read(&meta.location).await;
            let body: Value = serde_json::from_slice(&body).unwrap_or_default();
            let sequence = meta.location.filename().unwrap().trim_end_matches(".json").parse().unwrap();
            found.push(SeenManifest { path: meta.location, sequence, body: body["manifest"].clone() });
        }
        found.sort_by_key(|manifest| manifest.sequence);
        found
    }

    pub async fn newest(&self, partition: u32) -> Option<SeenManifest> {
        self.manifests(partition).await.pop()
    }

    pub async fn read(&self, path: &Path) -> Bytes {
        self.0.objects.get(path).await.unwrap().bytes().await.unwrap()
    }

    pub async fn write(&self, path: &Path, content: Vec<u8>) {
        self.0.objects.put(path, PutPayload::from(content)).await.unwrap();
    }

    pub async fn remove(&self, path: &Path) {
        self.0.objects.delete(path).await.unwrap();
    }

    pub async fn paths(&self) -> Vec<Path> {
        let listed: Vec<_> = self.0.objects.list(None).try_collect().await.unwrap();
        listed.into_iter().map(|meta| meta.location).collect()
    }

    /// A store of its own with the same objects.
    pub async fn fork(&self) -> Self {
        let fork = Self::default();
        for path in self.paths().await {
            fork.write(&path, self.read(&path).await.to_vec()).await;
        }
        fork
    }

    fn answer(&self) -> Result<()> {
        if self.0.is_away.load(Ordering::Relaxed) {
            self.0.refused.fetch_add(1, Ordering::Relaxed);
            return Err(no_answer());
        }
        Ok(())
    }
}

#[async_trait::async_trait]
impl ObjectStore for CopyStore {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.answer()?;
        if path.extension() != Some("json") {
            *self.0.puts.lock().entry(path.to_string()).or_default() += 1;
            return self.0.objects.put_opts(path, payload, options).await;
        }
        assert_eq!(options.mode, PutMode::Create, "a manifest is never overwritten");
        let late = self.0.late.lock().take();
        if let Some((path, payload)) = late {
            self.0.objects.put_opts(&path, payload, PutMode::Create.into()).await.ok();
        }
        let fault = self.0.faults.lock().pop_front();
        match fault {
            None => self.0.objects.put_opts(path, payload, options).await,
            Some(Fault::AnswerLost) => {
                self.0.objects.put_opts(path, payload, options).await?;
                Err(no_answer())
            }
            Some(Fault::Lost) => Err(no_answer()),
            Some(Fault::Late) => {
                *self.0.late.lock() = Some((path.clone(), payload));
                Err(no_answer())
            }
        }
    }

    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.answer()?;
        *self.0.puts.lock().entry(path.to_string()).or_default() += 1;
        self.0.objects.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.answer()?;
        let gate = self.0.gate.lock().clone();
        if let (Some(gate), true) = (gate, path.extension() != Some("json")) {
            self.0.waiting.fetch_add(1, Ordering::Relaxed);
            if let Ok(permit) = gate.acquire().await {
                permit.forget();
            }
            self.0.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        self.0.objects.get_opts(path, options).await
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.answer()?;
        self.0.objects.get_ranges(path, ranges).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.0.objects.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.objects.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.answer()?;
        let mut listed = self.0.objects.list_with_delimiter(prefix).await?;
        let unlisted = self.0.unlisted.lock();
        listed.objects.retain(|meta| !unlisted.iter().any(|path| path == meta.location.as_ref()));
        Ok(listed)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.answer()?;
        self.0.objects.copy_opts(from, to, options).await
    }
}
