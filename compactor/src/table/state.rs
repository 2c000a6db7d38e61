//! What a table holds at one version: its live files, what was replaced, and the offsets it covers.
//!
//! In: actions of commits and checkpoints, in order of version. Promise: the state is exactly what the actions say up
//! to `version`. Not here: reading them (`load`), and deciding what to commit.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::actions::{Action, OwnInfo, PartitionValues};

/// One live file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LiveFile {
    pub partition: Arc<PartitionValues>,
    pub bytes: u64,
    /// Milliseconds.
    pub modified_at: i64,
    /// Whether its bytes are the whole truth: no deletion vector, a path of our own form.
    pub plain: bool,
}

/// A table at `version`.
#[derive(Clone, Debug, Default)]
pub(crate) struct TableState {
    pub version: u64,
    /// Version of the newest checkpoint, as far as this process knows.
    pub checkpoint_version: u64,
    pub files: BTreeMap<Arc<str>, LiveFile>,
    /// Replaced or dropped files and when that was (milliseconds). Taken out once vacuum has deleted them.
    pub tombstones: BTreeMap<Arc<str>, i64>,
    /// Application id to the version it last wrote: the next offset to read.
    pub txns: HashMap<String, i64>,
    pub schema_string: String,
    pub min_reader_version: i32,
    pub min_writer_version: i32,
    /// Our own note in the newest commit that has one.
    pub newest_own_info: Option<OwnInfo>,
    /// Milliseconds.
    pub last_commit_at: Option<i64>,
    pub bytes: u64,
    partitions: HashSet<Arc<PartitionValues>>,
}

impl TableState {
    /// An empty state that the actions of a checkpoint will fill.
    pub fn at_checkpoint(version: u64) -> Self {
        Self { version, checkpoint_version: version, ..Default::default() }
    }

    pub fn apply(&mut self, version: u64, actions: &[Action]) {
        for action in actions {
            self.apply_action(action);
        }
        self.version = version;
    }

    pub fn apply_action(&mut self, action: &Action) {
        if let Some(add) = &action.add {
            let plain = add.deletion_vector.is_none() && !add.path.contains(['%', ':']);
            self.add(&add.path, &add.partition_values, add.size, add.modification_time, plain);
        }
        if let Some(remove) = &action.remove {
            self.remove(&remove.path, remove.deletion_timestamp.unwrap_or_default());
        }
        if let Some(txn) = &action.txn {
            self.txns.insert(txn.app_id.clone(), txn.version);
        }
        if let Some(meta) = &action.meta_data {
            self.schema_string.clone_from(&meta.schema_string);
        }
        if let Some(protocol) = &action.protocol {
            self.min_reader_version = protocol.min_reader_version;
            self.min_writer_version = protocol.min_writer_version;
        }
        if let Some(info) = &action.commit_info {
            self.last_commit_at = info.timestamp.or(self.last_commit_at);
            if info.tidegate.is_some() {
                self.newest_own_info.clone_from(&info.tidegate);
            }
        }
    }

    pub fn add(&mut self, path: &str, partition: &PartitionValues, bytes: i64, modified_at: i64, plain: bool) {
        let partition = match self.partitions.get(partition) {
            Some(known) => Arc::clone(known),
            None => {
                let partition = Arc::new(partition.clone());
                self.partitions.insert(Arc::clone(&partition));
                partition
            }
        };
        let bytes = u64::try_from(bytes).unwrap_or_default();
        self.tombstones.remove(path);
        self.bytes += bytes;
        if let Some(before) = self.files.insert(path.into(), LiveFile { partition, bytes, modified_at, plain }) {
            self.bytes -= before.bytes;
        }
    }

    pub fn remove(&mut self, path: &str, deleted_at: i64) {
        let path = match self.files.remove_entry(path) {
            Some((path, file)) => {
                self.bytes -= file.bytes;
                path
            }
            None => path.into(),
        };
        self.tombstones.insert(path, deleted_at);
    }
}
