//! An object store that counts the requests made of it.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result,
};

/// Requests by class; clones share the counters.
#[derive(Clone, Debug, Default)]
pub struct Requests(Arc<[AtomicU64; 4]>);

#[derive(Clone, Copy)]
enum Class {
    Put,
    Get,
    List,
    Delete,
}

/// Counted requests of a while.
pub struct Counted([u64; 4]);

impl Requests {
    fn add(&self, class: Class, count: u64) {
        self.0[class as usize].fetch_add(count, Ordering::Relaxed);
    }

    /// The requests since this was last asked.
    pub fn take(&self) -> Counted {
        Counted(std::array::from_fn(|class| self.0[class].swap(0, Ordering::Relaxed)))
    }
}

impl Counted {
    pub fn per_million(&self, events: f64) -> String {
        let names = ["PUT", "GET", "LIST", "DELETE"];
        let each = self.0.iter().zip(names).map(|(count, name)| format!("{:.0} {name}", *count as f64 * 1e6 / events));
        each.collect::<Vec<_>>().join(", ")
    }
}

/// Hands everything on to `inner`.
#[derive(Debug)]
pub struct CountingStore<S> {
    inner: S,
    requests: Requests,
}

impl<S> CountingStore<S> {
    pub fn new(inner: S, requests: Requests) -> Self {
        Self { inner, requests }
    }
}

impl<S: ObjectStore> fmt::Display for CountingStore<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "counted {}", self.inner)
    }
}

#[async_trait::async_trait]
impl<S: ObjectStore> ObjectStore for CountingStore<S> {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.requests.add(Class::Put, 1);
        self.inner.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        // Begin and end; parts are counted as if they were as large as the compactor makes them.
        self.requests.add(Class::Put, 2);
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.requests.add(Class::Get, 1);
        self.inner.get_opts(path, options).await
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        // As an object store does it: near ranges are one request.
        object_store::coalesce_ranges(
            ranges,
            |range| async move {
                self.requests.add(Class::Get, 1);
                self.inner.get_ranges(path, &[range]).await.map(|mut bytes| bytes.swap_remove(0))
            },
            object_store::OBJECT_STORE_COALESCE_DEFAULT,
        )
        .await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let requests = self.requests.clone();
        self.inner.delete_stream(paths.inspect(move |_| requests.add(Class::Delete, 1)).boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.requests.add(Class::List, 1);
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.requests.add(Class::List, 1);
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.requests.add(Class::Put, 1);
        self.inner.copy_opts(from, to, options).await
    }
}
