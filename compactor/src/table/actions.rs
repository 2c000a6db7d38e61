//! Lines of a Delta commit, as far as this table needs them. Unknown actions and fields of other writers are ignored.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Values of the partition columns; `None` is null.
pub type PartitionValues = BTreeMap<String, Option<String>>;

/// One line: exactly one field is set.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Action {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit_info: Option<CommitInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meta_data: Option<MetaData>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub txn: Option<Txn>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remove: Option<Remove>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub add: Option<Add>,
}

/// Where the commit came from. `tidegate` is ours; other writers' commits have none.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CommitInfo {
    /// Milliseconds.
    pub timestamp: Option<i64>,
    pub operation: Option<String>,
    pub operation_parameters: BTreeMap<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine_info: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tidegate: Option<OwnInfo>,
}

/// What this program notes in its commits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OwnInfo {
    /// Tells one's own commit from everybody else's after an unclear answer.
    pub commit_id: String,
    /// What became of the rows, per environment and hour.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ledger: Vec<LedgerEntry>,
    /// Latest `received_at` of the landed rows, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub newest_received_at: Option<i64>,
}

/// Rows of one environment, received in one hour, that one commit covers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LedgerEntry {
    pub project: String,
    pub environment: String,
    /// Begin of the hour, microseconds.
    pub hour: i64,
    pub accepted: i64,
    pub landed: i64,
    pub deduplicated: i64,
    pub dead_lettered: i64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Protocol {
    pub min_reader_version: i32,
    pub min_writer_version: i32,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MetaData {
    pub id: String,
    #[serde(default)]
    pub name: Option<String>,
    #[serde(default)]
    pub format: Value,
    pub schema_string: String,
    #[serde(default)]
    pub partition_columns: Vec<String>,
    #[serde(default)]
    pub configuration: BTreeMap<String, Option<String>>,
    #[serde(default)]
    pub created_time: Option<i64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Txn {
    pub app_id: String,
    pub version: i64,
    #[serde(default)]
    pub last_updated: Option<i64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Add {
    pub path: String,
    pub partition_values: PartitionValues,
    pub size: i64,
    /// Milliseconds.
    pub modification_time: i64,
    pub data_change: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stats: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_vector: Option<Value>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Remove {
    pub path: String,
    /// Milliseconds.
    #[serde(default)]
    pub deletion_timestamp: Option<i64>,
    pub data_change: bool,
    #[serde(default)]
    pub extended_file_metadata: Option<bool>,
    #[serde(default)]
    pub partition_values: Option<PartitionValues>,
    #[serde(default)]
    pub size: Option<i64>,
}

/// One commit file: an action per line.
pub(crate) fn encode(actions: &[Action]) -> Bytes {
    let mut out = Vec::new();
    for action in actions {
        serde_json::to_writer(&mut out, action).expect("actions hold only text, numbers and maps with text keys");
        out.push(b'\n');
    }
    out.into()
}

pub(crate) fn decode(bytes: &[u8]) -> Result<Vec<Action>, serde_json::Error> {
    bytes
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.trim_ascii().is_empty())
        .map(serde_json::from_slice)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_writers_lines_are_read() {
        let text = br#"{"commitInfo":{"timestamp":1,"operation":"WRITE","operationParameters":{"mode":"Append"},"isBlindAppend":true}}
{"domainMetadata":{"domain":"x","configuration":"{}","removed":false}}
{"add":{"path":"a.parquet","partitionValues":{"kind":null},"size":1,"modificationTime":2,"dataChange":true,"tags":null}}

{"txn":{"appId":"a","version":3}}"#;
        let actions = decode(text).unwrap();
        assert_eq!(actions.len(), 4);
        assert!(actions[0].commit_info.as_ref().unwrap().tidegate.is_none());
        assert_eq!(actions[2].add.as_ref().unwrap().partition_values["kind"], None);
        assert_eq!(actions[3].txn.as_ref().unwrap().version, 3);
    }

    #[test]
    fn encoded_lines_read_back() {
        let info = OwnInfo { commit_id: "c".into(), newest_received_at: Some(1), ..Default::default() };
        let action = Action {
            commit_info: Some(CommitInfo { tidegate: Some(info.clone()), ..Default::default() }),
            ..Default::default()
        };
        let read = decode(&encode(&[action.clone(), action])).unwrap();
        assert_eq!(read.len(), 2);
        assert_eq!(read[1].commit_info.as_ref().unwrap().tidegate, Some(info));
    }
}
