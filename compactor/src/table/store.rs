//! One table's folder on an object store.
//!
//! Promise: when `put_new` or `finished` returns, the file survives a loss of power. Object stores give that by
//! themselves; a local file system only after an fsync of the file and of the folders that name it. The log may be
//! truncated after a commit, so without it a power cut could lose rows that were acknowledged.
//! On a local file system a commit is written aside, synced and then linked to its name, so that no reader ever meets a
//! torn one.

use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use runtime::Entropy;
use url::Url;

use super::remote;
use crate::config::StorageConfig;
use crate::{Error, Result};

/// Where all tables live.
#[derive(Clone, Debug)]
pub struct Storage {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    url: Url,
    is_compressed: bool,
}

impl Storage {
    /// Opens what the configuration names. A local path is made if it is missing.
    ///
    /// # Errors
    /// `Config` if the URL cannot be read or its scheme is not built in.
    pub fn open(config: &StorageConfig) -> Result<Self> {
        let url = parse_location(&config.url)?;
        if let Some((store, prefix)) = remote::open(&url, &config.options)? {
            return Ok(Self { store, prefix, url, is_compressed: true });
        }
        let refused = |error: object_store::Error| Error::Config(format!("storage.url {url}: {error}"));
        let (store, prefix) = object_store::parse_url_opts(&url, config.options.clone()).map_err(refused)?;
        Ok(Self { store: Arc::from(store), prefix, url, is_compressed: true })
    }

    /// Uses a store that exists already; `url` names its folder. For simulation and for tests that put faults into the store.
    pub fn with_store(store: Arc<dyn ObjectStore>, url: Url) -> Result<Self> {
        let prefix =
            Path::from_url_path(url.path()).map_err(|error| Error::Config(format!("storage.url {url}: {error}")))?;
        Ok(Self { store, prefix, url, is_compressed: true })
    }

    /// Data files are written as they are. For simulation, whose files hold a few rows: setting up a compressor costs more
    /// than all the rest.
    pub fn uncompressed(self) -> Self {
        Self { is_compressed: false, ..self }
    }

    pub(crate) fn is_compressed(&self) -> bool {
        self.is_compressed
    }

    /// Finds out whether two writers of one version would be told apart, before the first of them writes.
    ///
    /// # Errors
    /// `Config` with what is wrong; `Store` (kind `Retry`) if the store does not answer.
    pub async fn check_conditional_put(&self, entropy: &Entropy) -> Result<()> {
        // On a local file system commits are linked to their names, which cannot overwrite.
        if self.url.scheme() == "file" {
            return Ok(());
        }
        remote::check_conditional_put(self.store.as_ref(), &self.prefix, &self.url, entropy).await
    }

    /// The store and the URL of `table`'s folder in it, for libraries that open tables themselves.
    pub fn root(&self, table: &str) -> (Arc<dyn ObjectStore>, Url) {
        let mut url = self.url.clone();
        url.set_path(&format!("{}/{table}/", self.url.path().trim_end_matches('/')));
        (Arc::clone(&self.store), url)
    }

    /// A folder beside the tables, for what others keep there.
    pub fn folder(&self, name: &'static str) -> Arc<dyn ObjectStore> {
        Arc::new(PrefixStore::new(Arc::clone(&self.store), self.prefix.clone().join(name)))
    }

    pub(crate) fn table(&self, table: &'static str) -> TableStore {
        let inner = PrefixStore::new(Arc::clone(&self.store), self.prefix.clone().join(table));
        let local = (self.url.scheme() == "file").then(|| self.url.to_file_path().ok()).flatten();
        TableStore { inner: Arc::new(inner), local: local.map(|path| path.join(table)), table }
    }
}

/// A URL, or a local path in either form.
fn parse_location(text: &str) -> Result<Url> {
    if text.is_empty() {
        return Err(Error::Config("storage.url is empty".into()));
    }
    match Url::parse(text) {
        Ok(url) if url.scheme() != "file" => Ok(url),
        Ok(url) => {
            let path =
                url.to_file_path().map_err(|()| Error::Config(format!("storage.url {url} is not a local path")))?;
            local_url(&path)
        }
        Err(_) => local_url(FilePath::new(text)),
    }
}

fn local_url(path: &FilePath) -> Result<Url> {
    let unusable = |error: std::io::Error| Error::Config(format!("storage.url {}: {error}", path.display()));
    std::fs::create_dir_all(path).map_err(unusable)?;
    let path = path.canonicalize().map_err(unusable)?;
    Url::from_directory_path(&path)
        .map_err(|()| Error::Config(format!("storage.url {} is not absolute", path.display())))
}

/// How a conditional write ended.
#[derive(Debug)]
pub(crate) enum PutNew {
    Written,
    Exists,
    /// It may or may not have taken effect.
    Unknown(object_store::Error),
}

/// One table's folder. Paths are relative to it.
#[derive(Clone, Debug)]
pub(crate) struct TableStore {
    inner: Arc<dyn ObjectStore>,
    local: Option<PathBuf>,
    table: &'static str,
}

impl TableStore {
    pub fn objects(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.inner)
    }

    /// Writes `bytes` to `path` unless something is there already.
    pub async fn put_new(&self, path: &Path, bytes: Bytes) -> PutNew {
        let result = match &self.local {
            None => {
                let options = PutOptions { mode: PutMode::Create, ..Default::default() };
                self.inner.put_opts(path, PutPayload::from_bytes(bytes), options).await.map(|_| ())
            }
            Some(root) => {
                let file = root.join(path.as_ref());
                blocking(move || link_synced(&file, &bytes)).await.map_err(|source| local_error(path, source))
            }
        };
        match result {
            Ok(()) => PutNew::Written,
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => PutNew::Exists,
            Err(error) => PutNew::Unknown(error),
        }
    }

    /// Makes a file that was just written through [`Self::objects`] durable.
    pub async fn finished(&self, path: &Path) -> Result<()> {
        let Some(root) = self.local.clone() else { return Ok(()) };
        let file = root.join(path.as_ref());
        let synced = blocking(move || sync_with_folders(&file, &root)).await;
        synced.map_err(|source| self.error("sync", path, local_error(path, source)))
    }

    /// The whole file; `None` if there is none.
    pub async fn get(&self, path: &Path) -> Result<Option<Bytes>> {
        let got = match self.inner.get(path).await {
            Ok(got) => got.bytes().await,
            Err(error) => Err(error),
        };
        match got {
            Ok(bytes) => Ok(Some(bytes)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.error("read", path, error)),
        }
    }

    pub async fn size(&self, path: &Path) -> Result<u64> {
        self.inner.head(path).await.map(|meta| meta.size).map_err(|error| self.error("look at", path, error))
    }

    pub async fn list(&self, prefix: &Path) -> Result<Vec<ObjectMeta>> {
        let listed: std::result::Result<Vec<_>, _> = self.inner.list(Some(prefix)).try_collect().await;
        listed.map_err(|error| self.error("list", prefix, error))
    }

    /// All files of the table's folder.
    pub fn list_stream(&self) -> BoxStream<'_, Result<ObjectMeta>> {
        self.inner.list(None).map_err(|error| self.error("list", Path::default(), error)).boxed()
    }

    /// Deletes files; those that are gone already count as deleted. Returns how many were asked for.
    pub async fn delete(&self, paths: Vec<Path>) -> Result<usize> {
        let count = paths.len();
        let paths = futures::stream::iter(paths.into_iter().map(Ok)).boxed();
        let mut deleted = self.inner.delete_stream(paths);
        while let Some(result) = deleted.next().await {
            match result {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(self.error("delete", Path::default(), error)),
            }
        }
        Ok(count)
    }

    /// Removes what a crash left of files that were being written aside, if it is older than `before`. `is_own` gets the
    /// path that the whole file would have had. Only local file systems have any, and no list shows them; of a bucket,
    /// parts of uploads that were never completed are for a rule of its life cycle. Returns the number of files.
    pub async fn remove_aside(
        &self,
        before: SystemTime,
        is_own: impl Fn(&str) -> bool + Send + 'static,
    ) -> Result<usize> {
        let Some(root) = self.local.clone() else { return Ok(0) };
        let removed = blocking(move || remove_aside(&root, before, &is_own)).await;
        removed.map_err(|source| self.error("clean up", Path::default(), local_error(&Path::default(), source)))
    }

    /// Removes the empty folders below `prefix`; only local file systems have any.
    pub async fn remove_empty_folders(&self, prefix: &str) {
        let Some(folder) = self.local.as_ref().map(|root| root.join(prefix)) else { return };
        // One that is not empty refuses to go.
        let removed = blocking(move || {
            for entry in std::fs::read_dir(folder)? {
                std::fs::remove_dir(entry?.path()).ok();
            }
            Ok(())
        });
        removed.await.ok();
    }

    fn error(&self, action: &'static str, path: impl ToString, source: object_store::Error) -> Error {
        Error::store(action, format!("{}/{}", self.table, path.to_string()), source)
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(std::io::Error::other(error)))
}

/// An existing file must be told from other failures: it decides who owns a version.
fn local_error(path: &Path, source: std::io::Error) -> object_store::Error {
    let (path, exists) = (path.to_string(), source.kind() == std::io::ErrorKind::AlreadyExists);
    if exists {
        object_store::Error::AlreadyExists { path, source: Box::new(source) }
    } else {
        object_store::Error::Generic { store: "local", source: Box::new(source) }
    }
}

fn link_synced(path: &FilePath, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    let folder = path.parent().ok_or(std::io::ErrorKind::InvalidInput)?;
    std::fs::create_dir_all(folder)?;
    let (mut file, aside) = create_aside(folder)?;
    let linked = (|| {
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::hard_link(&aside, path)
    })();
    std::fs::remove_file(&aside).ok();
    linked?;
    std::fs::File::open(folder)?.sync_all()
}

/// A new file of a name that no reader takes for a commit. Names that a dead process or one in another container left
/// behind are stepped over.
fn create_aside(folder: &FilePath) -> std::io::Result<(std::fs::File, PathBuf)> {
    let mut number = 0;
    loop {
        let aside = folder.join(format!(".commit-{}-{number}.tmp", std::process::id()));
        match std::fs::File::create_new(&aside) {
            Ok(file) => return Ok((file, aside)),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(error),
        }
    }
}

/// The name that a file written aside is to have in the end, relative to the table's folder: the library appends `#` and
/// a number, [`create_aside`] has names of its own.
fn name_in_the_end(path: &str) -> Option<&str> {
    if path.strip_prefix("_delta_log/.commit-").is_some_and(|rest| rest.ends_with(".tmp")) {
        return Some("_delta_log");
    }
    path.rsplit_once('#').filter(|(_, number)| number.parse::<u64>().is_ok()).map(|(name, _)| name)
}

fn remove_aside(root: &FilePath, before: SystemTime, is_own: &dyn Fn(&str) -> bool) -> std::io::Result<usize> {
    let (mut folders, mut removed) = (vec![root.to_owned()], 0);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(root).ok().and_then(FilePath::to_str).and_then(name_in_the_end);
            // One that is gone meanwhile was finished by its writer.
            let old = || entry.metadata().and_then(|file| file.modified()).is_ok_and(|modified| modified < before);
            if name.is_some_and(|name| name == "_delta_log" || is_own(name)) && old() {
                removed += usize::from(std::fs::remove_file(&path).is_ok());
            }
        }
    }
    Ok(removed)
}

fn sync_with_folders(file: &FilePath, root: &FilePath) -> std::io::Result<()> {
    std::fs::File::open(file)?.sync_all()?;
    for folder in file.ancestors().skip(1) {
        std::fs::File::open(folder)?.sync_all()?;
        if folder == root {
            break;
        }
    }
    Ok(())
}
