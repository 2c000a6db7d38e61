//! What a manifest says, and its bytes.
//!
//! JSON: `{"checksum": "<xxh3 of the text of the manifest, 16 hexadecimal digits>", "manifest": {…}}`, and in it:
//!
//! | field | meaning | since version |
//! |---|---|---|
//! | `version` | of this table | 1 |
//! | `partition`, `sequence` | which manifest this is; its name says the same | 1 |
//! | `epoch` | names the ownership under which it was written | 1 |
//! | `written_at` | milliseconds | 1 |
//! | `content` | absent in a claim of a shard of which there was no copy | 1 |
//! | `content.index_format` | version of schema, terms and records in the files | 1 |
//! | `content.topic_id`, `content.next` | the log, and the first offset that the files do not cover | 1 |
//! | `content.meta` | Tantivy's `meta.json`, as text | 1 |
//! | `content.files` | `name` in the index, `object` in the store, `bytes`, `checksum` (xxh3 of 128 bits) | 1 |

use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

use crate::index::is_of_a_segment;

/// Version of the manifest.
pub const VERSION: u32 = 1;
/// Largest manifest that is read: some hundred bytes a file, and a shard has tens of segments.
pub const BYTES_MAX: usize = 16 << 20;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub version: u32,
    pub partition: u32,
    pub sequence: u64,
    pub epoch: Uuid,
    pub written_at: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Content>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    pub index_format: u32,
    pub topic_id: String,
    pub next: i64,
    pub meta: String,
    pub files: Vec<KeptFile>,
}

/// A file of the index, as it lies in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptFile {
    pub name: String,
    pub object: String,
    pub bytes: u64,
    pub checksum: String,
}

#[derive(Serialize, Deserialize)]
struct Sealed {
    checksum: String,
    manifest: Box<RawValue>,
}

/// Why a manifest is not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    #[error("it is of version {0}, which is newer than this program")]
    Newer(u32),
    #[error("{0}")]
    Damaged(String),
}

impl Manifest {
    pub fn to_bytes(&self) -> Vec<u8> {
        let manifest = to_raw_value(self).expect("numbers and texts are written without fail");
        let checksum = format!("{:016x}", xxh3_64(manifest.get().as_bytes()));
        serde_json::to_vec(&Sealed { checksum, manifest }).expect("text is written without fail")
    }

    /// # Errors
    /// Also if it is not the manifest of `partition` and `sequence`, or names files that no index has.
    pub fn from_bytes(bytes: &[u8], partition: u32, sequence: u64) -> Result<Self, Unreadable> {
        /// All that a newer version has in common with this one.
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let damaged = |error: serde_json::Error| Unreadable::Damaged(format!("it does not read: {error}"));
        let sealed: Sealed = serde_json::from_slice(bytes).map_err(damaged)?;
        let text = sealed.manifest.get();
        if sealed.checksum != format!("{:016x}", xxh3_64(text.as_bytes())) {
            return Err(Unreadable::Damaged("its checksum does not fit".into()));
        }
        let Versioned { version } = serde_json::from_str(text).map_err(damaged)?;
        if version > VERSION {
            return Err(Unreadable::Newer(version));
        }
        let manifest: Self = serde_json::from_str(text).map_err(damaged)?;
        if (manifest.partition, manifest.sequence) != (partition, sequence) {
            let (partition, sequence) = (manifest.partition, manifest.sequence);
            return Err(Unreadable::Damaged(format!("it is number {sequence} of partition {partition}")));
        }
        // Names become paths.
        let mut files = manifest.content.iter().flat_map(|content| &content.files);
        if let Some(file) = files.find(|file| !is_of_a_segment(&file.name) || file.object.contains(['/', '\\'])) {
            return Err(Unreadable::Damaged(format!("it names {:?} as {:?}", file.object, file.name)));
        }
        Ok(manifest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let file = KeptFile {
            name: format!("{}.term", "0a".repeat(16)),
            object: "e-0-f".into(),
            bytes: 5,
            checksum: "1".into(),
        };
        let content =
            Content { index_format: 2, topic_id: "t".into(), next: 7, meta: "{\"a\":1}".into(), files: vec![file] };
        Manifest {
            version: VERSION,
            partition: 3,
            sequence: 9,
            epoch: Uuid::nil(),
            written_at: 1,
            content: Some(content),
        }
    }

    #[test]
    fn what_was_written_is_read() {
        for content in [None, manifest().content] {
            let manifest = Manifest { content, ..manifest() };
            assert_eq!(Manifest::from_bytes(&manifest.to_bytes(), 3, 9), Ok(manifest));
        }
    }

    /// Written by the first version; it stays readable.
    #[test]
    fn first_version_stays_readable() {
        let text = br#"{"checksum":"fcc37fcc27906c0d","manifest":{"version":1,"partition":3,"sequence":9,"epoch":"00000000-0000-0000-0000-000000000000","written_at":1,"content":{"index_format":2,"topic_id":"t","next":7,"meta":"{\"a\":1}","files":[{"name":"0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a.term","object":"e-0-f","bytes":5,"checksum":"1"}]}}}"#;
        assert_eq!(Manifest::from_bytes(text, 3, 9), Ok(manifest()));
        assert_eq!(manifest().to_bytes(), text);
    }

    #[test]
    fn damage_is_seen_wherever_it_is() {
        let bytes = manifest().to_bytes();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_ne!(Manifest::from_bytes(&damaged, 3, 9), Ok(manifest()), "byte {at}");
            assert!(Manifest::from_bytes(&bytes[..at], 3, 9).is_err());
        }
    }

    #[test]
    fn another_manifest_and_files_elsewhere_are_refused() {
        let bytes = manifest().to_bytes();
        assert!(Manifest::from_bytes(&bytes, 4, 9).is_err());
        assert!(Manifest::from_bytes(&bytes, 3, 10).is_err());
        for (name, object) in
            [("../../etc/passwd", "o"), ("meta.json", "o"), (&*format!("{}.x", "00".repeat(16)), "../o")]
        {
            let mut foreign = manifest();
            let file = &mut foreign.content.as_mut().unwrap().files[0];
            (file.name, file.object) = (name.into(), object.into());
            assert!(matches!(Manifest::from_bytes(&foreign.to_bytes(), 3, 9), Err(Unreadable::Damaged(_))), "{name}");
        }
        let newer = Manifest { version: VERSION + 1, ..manifest() };
        assert_eq!(Manifest::from_bytes(&newer.to_bytes(), 3, 9), Err(Unreadable::Newer(VERSION + 1)));
    }
}
