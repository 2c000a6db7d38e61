//! What is swept and what is not; and the requests of this module on a real S3 server.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt as _, PutPayload};
use runtime::Runtime;
use uuid::Uuid;

use super::manifest::{Content, KeptFile, Manifest, VERSION};
use super::store::{Created, SnapshotStore};
use super::sweep::{COPIES_KEPT, sweep};
use crate::Error;
use crate::index::FORMAT;

const EVER: Duration = Duration::from_secs(1 << 40);

fn kept(object: &str) -> KeptFile {
    let name = format!("{}.store", "0a".repeat(16));
    KeptFile { name, object: object.into(), bytes: 3, checksum: String::new() }
}

fn manifest(sequence: u64, objects: Option<&[&str]>) -> Manifest {
    let content = objects.map(|objects| Content {
        index_format: FORMAT,
        topic_id: "t".into(),
        next: sequence as i64,
        meta: "{}".into(),
        files: objects.iter().map(|object| kept(object)).collect(),
    });
    Manifest { version: VERSION, partition: 0, sequence, epoch: Uuid::nil(), written_at: 0, content }
}

struct World {
    objects: Arc<dyn ObjectStore>,
    store: SnapshotStore,
}

impl World {
    fn on(objects: Arc<dyn ObjectStore>) -> Self {
        Self { store: SnapshotStore::new(Arc::clone(&objects)), objects }
    }

    fn in_memory() -> Self {
        Self::on(Arc::new(InMemory::new()))
    }

    async fn file(&self, object: &str) {
        self.objects.put(&Path::from(format!("0/files/{object}")), PutPayload::from_static(b"abc")).await.unwrap();
    }

    async fn publish(&self, manifest: Manifest) {
        for file in manifest.content.iter().flat_map(|content| &content.files) {
            self.file(&file.object).await;
        }
        assert_eq!(self.store.create(manifest.clone()).await.unwrap(), Created::Ours(manifest));
    }

    async fn sequences(&self) -> Vec<u64> {
        self.store.sequences(0).await.unwrap().into_iter().map(|(sequence, _)| sequence).collect()
    }

    async fn files(&self) -> Vec<String> {
        let mut names: Vec<_> = self.store.objects_of(0).await.unwrap().into_iter().map(|(name, _)| name).collect();
        names.sort();
        names
    }
}

#[tokio::test]
async fn what_no_kept_manifest_names_goes() {
    let world = World::in_memory();
    for sequence in 1..=6 {
        let own = format!("own-{sequence}");
        world.publish(manifest(sequence, Some(&["shared", &own]))).await;
    }
    // Claims without content are no copies, and do not push copies out.
    world.publish(manifest(7, None)).await;
    world.publish(manifest(8, None)).await;
    world.file("stray").await;
    assert_eq!(sweep(&world.store, 0, None, EVER).await.unwrap(), 0, "all of it is young");
    assert_eq!(sweep(&world.store, 0, None, Duration::ZERO).await.unwrap(), 3 + 3 + 1);
    assert_eq!(world.sequences().await, [8, 7, 6, 5, 4]);
    assert_eq!(world.sequences().await.len(), 2 + COPIES_KEPT);
    assert_eq!(world.files().await, ["own-4", "own-5", "own-6", "shared"]);
    assert_eq!(sweep(&world.store, 0, None, Duration::ZERO).await.unwrap(), 0);
}

#[tokio::test]
async fn damaged_copies_do_not_count_and_own_files_stay_whatever_a_list_shows() {
    let world = World::in_memory();
    for sequence in 1..=5 {
        let own = format!("own-{sequence}");
        world.publish(manifest(sequence, Some(&[&own]))).await;
    }
    let path = Path::from(format!("0/{:020}.json", 5));
    world.objects.put(&path, PutPayload::from_static(b"damaged")).await.unwrap();
    world.file("of number 6").await;
    let own = manifest(6, Some(&["of number 6"]));
    sweep(&world.store, 0, own.content.as_ref(), Duration::ZERO).await.unwrap();
    assert_eq!(world.sequences().await, [5, 4, 3, 2], "three that can be read, and what came after them");
    assert_eq!(world.files().await, ["of number 6", "own-2", "own-3", "own-4"]);
}

#[tokio::test]
async fn list_without_manifests_is_a_stale_one() {
    let world = World::in_memory();
    world.file("named by a manifest that the list lacks").await;
    assert_eq!(sweep(&world.store, 0, None, Duration::ZERO).await.unwrap(), 0);
    assert_eq!(world.files().await.len(), 1);
}

#[tokio::test]
async fn nothing_goes_where_a_newer_version_writes() {
    let world = World::in_memory();
    for sequence in 1..=5 {
        world.publish(manifest(sequence, Some(&["a"]))).await;
    }
    let newer = Manifest { version: VERSION + 1, ..manifest(6, None) };
    let path = Path::from(format!("0/{:020}.json", 6));
    world.objects.put(&path, PutPayload::from(newer.to_bytes())).await.unwrap();
    world.file("of the newer one").await;
    assert_eq!(sweep(&world.store, 0, None, Duration::ZERO).await.unwrap(), 0);
    assert_eq!(world.sequences().await.len(), 6);
}

/// The server that `./test` started, in a folder of its own.
fn s3() -> World {
    let variable = |name: &str| {
        let name = format!("TIDEGATE_TEST_S3_{name}");
        std::env::var(&name).unwrap_or_else(|_| panic!("{name} is not set; ./test starts an S3 server and sets it"))
    };
    let store = AmazonS3Builder::new()
        .with_endpoint(variable("ENDPOINT"))
        .with_region("us-east-1")
        .with_bucket_name(variable("BUCKET"))
        .with_access_key_id(variable("ACCESS_KEY"))
        .with_secret_access_key(variable("SECRET_KEY"))
        .with_allow_http(true)
        .build()
        .unwrap();
    World::on(Arc::new(PrefixStore::new(store, format!("snapshots-{}", Uuid::new_v4()))))
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_takes_each_number_once_and_large_files_in_parts() {
    let (world, runtime) = (s3(), Runtime::system());
    world.publish(manifest(1, Some(&["a"]))).await;
    let other = Manifest { epoch: Uuid::max(), ..manifest(1, None) };
    assert_eq!(world.store.create(other.clone()).await.unwrap(), Created::Taken(Some(manifest(1, Some(&["a"])))));
    assert_eq!(world.store.create(manifest(1, None)).await.unwrap(), Created::Ours(manifest(1, Some(&["a"]))), "again");
    assert_eq!(world.store.newest(0).await.unwrap().unwrap().manifest, Ok(manifest(1, Some(&["a"]))));

    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for (number, bytes) in [0, 1, (8 << 20) - 1, 8 << 20, (8 << 20) + 1, 21 << 20].into_iter().enumerate() {
        let path = from.path().join(number.to_string());
        let content: Vec<u8> = (0..bytes).map(|at: u32| (at ^ (at >> 9)) as u8).collect();
        std::fs::File::create(&path).unwrap().write_all(&content).unwrap();
        let file = Arc::new(std::fs::File::open(&path).unwrap());
        let object = format!("object-{number}");
        let checksum = world.store.upload(0, &object, file, u64::from(bytes), &runtime).await.unwrap();
        let kept = KeptFile { name: number.to_string(), object, bytes: u64::from(bytes), checksum };
        world.store.download(0, &kept, to.path(), &runtime).await.unwrap();
        assert!(std::fs::read(to.path().join(&kept.name)).unwrap() == content, "{bytes} bytes");
        let wrong = [
            KeptFile { name: "w1".into(), checksum: "0".into(), ..kept.clone() },
            KeptFile { name: "w2".into(), bytes: kept.bytes + 1, ..kept.clone() },
            KeptFile { name: "w3".into(), object: "absent".into(), ..kept },
        ];
        for wrong in wrong {
            let refused = world.store.download(0, &wrong, to.path(), &runtime).await;
            assert!(matches!(refused, Err(Error::Damaged { .. })), "{refused:?}");
            std::fs::remove_file(to.path().join(&wrong.name)).ok();
        }
    }
    world.file("stray").await;
    assert_eq!(sweep(&world.store, 0, None, Duration::ZERO).await.unwrap(), 6 + 1);
    assert_eq!(world.files().await, ["a"]);
}
