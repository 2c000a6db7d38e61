//! Where copies lie: names, and the requests that the rest of this module is made of.
//!
//! Promise: [`SnapshotStore::create`] says `Created` only if the manifest of that number is the one given or an earlier
//! attempt of the same owner, whatever was lost on the way: an answer that leaves it open is resolved by reading.
//! Memory: [`PART_BYTES`] for each of [`FILES_AT_ONCE`] files.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use runtime::Runtime;
use xxhash_rust::xxh3::Xxh3Default;

use super::manifest::{BYTES_MAX, KeptFile, Manifest, Unreadable};
use crate::{Error, Result, blocking};

/// Bytes that one request carries at most; larger files go up in parts. S3 wants at least 5 MiB.
const PART_BYTES: u64 = 8 << 20;
/// S3 takes no more parts of one object; a file of more than 80 GiB has larger parts.
const PARTS_MAX: u64 = 10_000;
/// Bytes that are written to the local file at once.
const WRITE_BYTES: usize = 1 << 20;
/// Files on their way at once: most are small, and the time of a request is the answer's.
pub const FILES_AT_ONCE: usize = 4;

/// A folder of an object store, below which the copies of all shards lie.
#[derive(Clone, Debug)]
pub struct SnapshotStore {
    objects: Arc<dyn ObjectStore>,
}

/// How a conditional write ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Created {
    /// What lies there now is ours.
    Ours(Manifest),
    /// Somebody else has that number; what it says if that can be read.
    Taken(Option<Manifest>),
}

/// A manifest as found.
#[derive(Clone, Debug)]
pub struct Found {
    pub sequence: u64,
    pub manifest: std::result::Result<Manifest, Unreadable>,
}

impl SnapshotStore {
    /// `objects`: a store whose root is the folder of the copies. It must honour conditional writes (`PutMode::Create`).
    pub fn new(objects: Arc<dyn ObjectStore>) -> Self {
        Self { objects }
    }

    fn manifest_path(partition: u32, sequence: u64) -> Path {
        Path::from(format!("{partition}/{sequence:020}.json"))
    }

    fn files_path(partition: u32) -> Path {
        Path::from(format!("{partition}/files"))
    }

    fn file_path(partition: u32, object: &str) -> Path {
        Self::files_path(partition).join(object)
    }

    /// Numbers of the manifests of a shard, newest first.
    ///
    /// A list may be older than the newest manifest, so whoever builds on it looks for the next number too.
    pub async fn sequences(&self, partition: u32) -> Result<Vec<(u64, ObjectMeta)>> {
        let folder = Path::from(partition.to_string());
        let listed = self.objects.list_with_delimiter(Some(&folder)).await.map_err(failed("list", &folder))?;
        let sequence = |meta: &ObjectMeta| meta.location.filename()?.strip_suffix(".json")?.parse().ok();
        let mut found: Vec<(u64, ObjectMeta)> =
            listed.objects.into_iter().filter_map(|meta| Some((sequence(&meta)?, meta))).collect();
        found.sort_unstable_by_key(|(sequence, _)| std::cmp::Reverse(*sequence));
        Ok(found)
    }

    /// The newest manifest, also if a list does not show it yet.
    pub async fn newest(&self, partition: u32) -> Result<Option<Found>> {
        let listed = self.sequences(partition).await?.first().map(|(sequence, _)| *sequence);
        let mut newest = match listed {
            Some(sequence) => self.manifest(partition, sequence).await?,
            None => None,
        };
        let mut next = listed.unwrap_or_default() + 1;
        while let Some(found) = self.manifest(partition, next).await? {
            (newest, next) = (Some(found), next + 1);
        }
        Ok(newest)
    }

    /// One manifest; `None` if there is none of that number.
    pub async fn manifest(&self, partition: u32, sequence: u64) -> Result<Option<Found>> {
        let path = Self::manifest_path(partition, sequence);
        let got = match self.objects.get(&path).await {
            Ok(got) => got,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(failed("read", &path)(error)),
        };
        if got.meta.size > BYTES_MAX as u64 {
            let manifest = Err(Unreadable::Damaged(format!("it has {} bytes", got.meta.size)));
            return Ok(Some(Found { sequence, manifest }));
        }
        let bytes = got.bytes().await.map_err(failed("read", &path))?;
        Ok(Some(Found { sequence, manifest: Manifest::from_bytes(&bytes, partition, sequence) }))
    }

    /// Writes a manifest unless its number is taken.
    ///
    /// # Errors
    /// `Snapshot` (kind `Retry`) if it is not known to be there: it may still appear, and is recognised then.
    pub async fn create(&self, manifest: Manifest) -> Result<Created> {
        let path = Self::manifest_path(manifest.partition, manifest.sequence);
        let options = PutOptions { mode: PutMode::Create, ..Default::default() };
        let payload = PutPayload::from_bytes(Bytes::from(manifest.to_bytes()));
        let unclear = match self.objects.put_opts(&path, payload, options).await {
            Ok(_) => return Ok(Created::Ours(manifest)),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => None,
            Err(error) => Some(error),
        };
        match (self.manifest(manifest.partition, manifest.sequence).await?, unclear) {
            (Some(Found { manifest: Ok(there), .. }), _) if there.epoch == manifest.epoch => Ok(Created::Ours(there)),
            (Some(there), _) => Ok(Created::Taken(there.manifest.ok())),
            (None, Some(error)) => Err(failed("write", &path)(error)),
            // Taken, and swept since.
            (None, None) => Ok(Created::Taken(None)),
        }
    }

    /// Uploads a file of `bytes` bytes and returns its checksum.
    pub async fn upload(
        &self,
        partition: u32,
        object: &str,
        file: Arc<File>,
        bytes: u64,
        runtime: &Runtime,
    ) -> Result<String> {
        let path = Self::file_path(partition, object);
        let part_bytes = PART_BYTES.max(bytes.div_ceil(PARTS_MAX));
        let mut hash = Xxh3Default::new();
        if bytes <= part_bytes {
            let content = read_part(&file, 0, bytes, runtime).await?;
            hash.update(&content);
            self.objects.put(&path, PutPayload::from_bytes(content)).await.map_err(failed("write", &path))?;
            return Ok(shown(&hash));
        }
        let mut upload = self.objects.put_multipart(&path).await.map_err(failed("begin to write", &path))?;
        let sent: Result<()> = async {
            for number in 0..bytes.div_ceil(part_bytes) {
                let from = number * part_bytes;
                let content = read_part(&file, from, part_bytes.min(bytes - from), runtime).await?;
                hash.update(&content);
                upload.put_part(PutPayload::from_bytes(content)).await.map_err(failed("write a part of", &path))?;
            }
            upload.complete().await.map_err(failed("finish", &path))?;
            Ok(())
        }
        .await;
        if let Err(error) = sent {
            if let Err(error) = upload.abort().await {
                tracing::debug!(%path, %error, "parts of an upload stay behind");
            }
            return Err(error);
        }
        Ok(shown(&hash))
    }

    /// Downloads a file into `folder`.
    ///
    /// # Errors
    /// `Damaged` if it is not there or not what the manifest says.
    pub async fn download(&self, partition: u32, kept: &KeptFile, folder: &FilePath, runtime: &Runtime) -> Result<()> {
        let path = Self::file_path(partition, &kept.object);
        let damaged = |what: String| Error::Damaged { what: format!("{path}, which holds {}, {what}", kept.name) };
        let got = match self.objects.get(&path).await {
            Ok(got) => got,
            Err(object_store::Error::NotFound { .. }) => return Err(damaged("is gone".into())),
            Err(error) => return Err(failed("read", &path)(error)),
        };
        if got.meta.size != kept.bytes {
            return Err(damaged(format!("has {} bytes instead of {}", got.meta.size, kept.bytes)));
        }
        let mut written = WrittenFile::create(folder.join(&kept.name))?;
        let mut chunks = got.into_stream();
        let mut waiting: Vec<Bytes> = Vec::new();
        let mut waiting_bytes = 0;
        while let Some(chunk) = chunks.try_next().await.map_err(failed("read", &path))? {
            waiting_bytes += chunk.len();
            waiting.push(chunk);
            if waiting_bytes >= WRITE_BYTES {
                written = written.take(std::mem::take(&mut waiting), runtime).await?;
                waiting_bytes = 0;
            }
        }
        let checksum = written.take(waiting, runtime).await?.finish(runtime).await?;
        if checksum == kept.checksum { Ok(()) } else { Err(damaged("does not fit its checksum".into())) }
    }

    /// The files of a shard in the store, with their names there.
    pub async fn objects_of(&self, partition: u32) -> Result<Vec<(String, ObjectMeta)>> {
        let folder = Self::files_path(partition);
        let listed: Vec<ObjectMeta> =
            self.objects.list(Some(&folder)).try_collect().await.map_err(failed("list", &folder))?;
        let name = |meta: &ObjectMeta| meta.location.filename().map(str::to_owned);
        Ok(listed.into_iter().filter_map(|meta| Some((name(&meta)?, meta))).collect())
    }

    /// Deletes an object; one that is gone already counts as deleted.
    pub async fn delete(&self, path: &Path) -> Result<()> {
        match self.objects.delete(path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(failed("delete", path)(error)),
        }
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(object_store::Error) -> Error {
    let path = path.to_string();
    move |source| Error::Snapshot { action, path, source: Box::new(source) }
}

fn shown(hash: &Xxh3Default) -> String {
    format!("{:032x}", hash.digest128())
}

async fn read_part(file: &Arc<File>, from: u64, bytes: u64, runtime: &Runtime) -> Result<Bytes> {
    let file = Arc::clone(file);
    let read = move || {
        let mut content = vec![0; bytes as usize];
        file.read_exact_at(&mut content, from).map_err(Error::io("read", "a file of the index"))?;
        Ok(Bytes::from(content))
    };
    blocking(runtime, "reading a file of the index", read).await
}

/// A checksum of what is in a file of the index.
pub fn checksum_of(file: &File, bytes: u64) -> Result<String> {
    let mut hash = Xxh3Default::new();
    let mut content = vec![0; WRITE_BYTES.min(bytes as usize)];
    let mut from = 0;
    while from < bytes {
        let part = &mut content[..(bytes - from).min(WRITE_BYTES as u64) as usize];
        file.read_exact_at(part, from).map_err(Error::io("read", "a file of the index"))?;
        hash.update(part);
        from += part.len() as u64;
    }
    Ok(shown(&hash))
}

/// A file on its way from the store.
struct WrittenFile {
    path: PathBuf,
    file: File,
    hash: Box<Xxh3Default>,
}

impl WrittenFile {
    fn create(path: PathBuf) -> Result<Self> {
        let file = File::create_new(&path).map_err(Error::io("create", &path))?;
        Ok(Self { path, file, hash: Box::new(Xxh3Default::new()) })
    }

    async fn take(mut self, chunks: Vec<Bytes>, runtime: &Runtime) -> Result<Self> {
        let write = move || {
            for chunk in chunks {
                self.hash.update(&chunk);
                self.file.write_all(&chunk).map_err(Error::io("write", &self.path))?;
            }
            Ok(self)
        };
        blocking(runtime, "writing a file of the index", write).await
    }

    /// Makes it durable, and gives its checksum.
    async fn finish(self, runtime: &Runtime) -> Result<String> {
        let sync = move || {
            self.file.sync_all().map_err(Error::io("sync", &self.path))?;
            Ok(shown(&self.hash))
        };
        blocking(runtime, "writing a file of the index", sync).await
    }
}
