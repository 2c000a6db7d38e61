//! Watches the tables' logs and says at once when a step breaks a promise.
//!
//! In: every commit and deletion in the order in which the store carries them out. It reads commits as any other engine
//! would, with none of the compactor's code. Promises held here: versions follow one another; a commit names only files
//! that are there, whole; offsets never go back; what is taken out was live; no live file is deleted, and none that a
//! reader of a recent version needs.

use std::collections::BTreeMap;

use runtime::UnixMicros;
use serde_json::Value;

/// One table as its commits say.
#[derive(Default)]
pub struct TableWatch {
    pub next_version: u64,
    /// Path of a live file and its bytes.
    pub live: BTreeMap<String, u64>,
    /// When each file was taken out.
    taken_out: BTreeMap<String, UnixMicros>,
    /// Next offsets, by application id.
    pub txns: BTreeMap<String, i64>,
    /// (version, entry of the account)
    pub account: Vec<(u64, Entry)>,
}

/// One entry of the account of rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    pub accepted: i64,
    pub landed: i64,
    pub deduplicated: i64,
    pub dead_lettered: i64,
}

impl Entry {
    fn read(entry: &Value) -> Self {
        let number = |name: &str| entry[name].as_i64().unwrap_or_default();
        Self {
            accepted: number("accepted"),
            landed: number("landed"),
            deduplicated: number("deduplicated"),
            dead_lettered: number("deadLettered"),
        }
    }

    pub fn add(&mut self, other: Self) {
        self.accepted += other.accepted;
        self.landed += other.landed;
        self.deduplicated += other.deduplicated;
        self.dead_lettered += other.dead_lettered;
    }
}

/// All tables of the store.
#[derive(Default)]
pub struct Watch {
    pub tables: BTreeMap<String, TableWatch>,
}

impl Watch {
    pub fn table(&self, name: &str) -> Option<&TableWatch> {
        self.tables.get(name)
    }

    /// A commit has been written. `size_of`: bytes of a file of the table if it is there.
    pub fn commit(
        &mut self,
        table: &str,
        version: u64,
        bytes: &[u8],
        now: UnixMicros,
        size_of: impl Fn(&str) -> Option<u64>,
    ) -> Vec<String> {
        let mut broken = Vec::new();
        let watched = self.tables.entry(table.to_owned()).or_default();
        if version != watched.next_version {
            broken.push(format!("{table}: version {version} was committed after {}", watched.next_version - 1));
        }
        watched.next_version = version + 1;
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            match serde_json::from_slice::<Value>(line) {
                Ok(action) => watched.apply(table, version, &action, now, &size_of, &mut broken),
                Err(error) => broken.push(format!("{table}: version {version} has an unreadable line: {error}")),
            }
        }
        broken
    }

    /// A file is deleted. `age_min_micros`: how long ago it must have been taken out, if all clocks agree on that.
    pub fn deletion(&self, table: &str, path: &str, now: UnixMicros, age_min_micros: Option<i64>) -> Option<String> {
        let watched = self.tables.get(table)?;
        if watched.live.contains_key(path) {
            return Some(format!("{table}: {path} was deleted though version {} names it", watched.next_version - 1));
        }
        let age = now.0 - watched.taken_out.get(path)?.0;
        (age < age_min_micros?).then(|| format!("{table}: {path} was deleted {age} us after it was taken out"))
    }
}

impl TableWatch {
    fn apply(
        &mut self,
        table: &str,
        version: u64,
        action: &Value,
        now: UnixMicros,
        size_of: impl Fn(&str) -> Option<u64>,
        broken: &mut Vec<String>,
    ) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        if let Some(add) = action.get("add") {
            let (path, bytes) = (text(&add["path"]), add["size"].as_u64().unwrap_or_default());
            match size_of(&path) {
                Some(found) if found == bytes => {}
                found => {
                    broken.push(format!("{table}: version {version} names {path} of {bytes} bytes, found {found:?}"))
                }
            }
            if self.live.insert(path.clone(), bytes).is_some() || self.taken_out.contains_key(&path) {
                broken.push(format!("{table}: version {version} adds {path} again"));
            }
        }
        if let Some(remove) = action.get("remove") {
            let path = text(&remove["path"]);
            if self.live.remove(&path).is_none() {
                broken.push(format!("{table}: version {version} takes out {path}, which is not live"));
            }
            self.taken_out.insert(path, now);
        }
        if let Some(txn) = action.get("txn") {
            let (app_id, next) = (text(&txn["appId"]), txn["version"].as_i64().unwrap_or_default());
            let before = self.txns.insert(app_id.clone(), next);
            if before.is_some_and(|before| before > next) {
                broken.push(format!("{table}: version {version} moves {app_id} back from {before:?} to {next}"));
            }
        }
        if let Some(entries) = action["commitInfo"]["tidegate"]["ledger"].as_array() {
            self.account.extend(entries.iter().map(|entry| (version, Entry::read(entry))));
        }
    }
}
