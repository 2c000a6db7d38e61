//! All erasures that this process knows: those that are not done, and certificates.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context;
use events::Environment;
use futures::FutureExt;
use futures::future::BoxFuture;
use indexer::api::{AskedErasure, ErasureRefusal, Erasures, ID_PREFIX};
use parking_lot::Mutex;
use runtime::{Runtime, UnixMicros};
use serde_json::Value;
use tokio::sync::Notify;

use super::record::Record;

/// Erasures that wait or run; one more is refused.
const UNDONE_MAX: usize = 100;
/// Of those that are done, so many are listed, the newest; their files stay, and are found by their ids.
const DONE_SHOWN: usize = 1_000;

/// Records by time and id, as of their files.
pub struct Book {
    folder: PathBuf,
    records: Mutex<BTreeMap<(i64, String), Record>>,
    runtime: Runtime,
    /// Told when an erasure is asked for.
    pub asked: Notify,
}

impl Book {
    /// Reads what is there.
    ///
    /// # Errors
    /// If the folder cannot be read, or a record in it.
    pub fn open(folder: PathBuf, runtime: Runtime) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        let mut records = BTreeMap::new();
        for entry in std::fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
            let path = entry?.path();
            // What a process that died has left beside is not whole.
            if path.extension().is_some_and(|extension| extension == "json") {
                let record = Record::load(&path).with_context(|| format!("reading {}", path.display()))?;
                records.insert((record.asked_at, record.id.clone()), record);
            }
        }
        let book = Self { folder, records: Mutex::new(records), runtime, asked: Notify::new() };
        book.forget_oldest();
        Ok(book)
    }

    /// The erasure that is due first and not done, but for `passed`; with the time of the next that is not due yet.
    pub fn due(&self, now: UnixMicros, passed: &[String]) -> (Option<Record>, Option<UnixMicros>) {
        let records = self.records.lock();
        let mut undone: Vec<&Record> = records.values().filter(|one| !one.is_done()).collect();
        undone.sort_by_key(|record| record.at);
        let (due, later): (Vec<_>, Vec<_>) = undone.into_iter().partition(|record| record.at <= now.0);
        let next = later.first().map(|record| UnixMicros(record.at));
        (due.into_iter().find(|record| !passed.contains(&record.id)).cloned(), next)
    }

    /// Writes a record down and shows it.
    pub async fn save(&self, record: &Record) -> std::io::Result<()> {
        let (folder, saved) = (self.folder.clone(), record.clone());
        tokio::task::spawn_blocking(move || saved.save(&folder)).await.unwrap_or_else(|error| Err(error.into()))?;
        self.show(record);
        Ok(())
    }

    /// Shows a record, without writing it down.
    pub fn show(&self, record: &Record) {
        self.records.lock().insert((record.asked_at, record.id.clone()), record.clone());
        self.forget_oldest();
    }

    fn forget_oldest(&self) {
        let mut records = self.records.lock();
        let done: Vec<_> = records.iter().filter(|(_, one)| one.is_done()).map(|(key, _)| key.clone()).collect();
        for key in &done[..done.len().saturating_sub(DONE_SHOWN)] {
            records.remove(key);
        }
    }
}

impl Erasures for Book {
    fn ask(&self, asked: AskedErasure) -> BoxFuture<'_, Result<Value, ErasureRefusal>> {
        async move {
            let undone = self.records.lock().values().filter(|record| !record.is_done()).count();
            if undone >= UNDONE_MAX {
                return Err(ErasureRefusal::TooMany(undone));
            }
            let id = format!("{ID_PREFIX}{}", self.runtime.entropy.uuid());
            let record = Record::new(id, asked, self.runtime.clock.now());
            self.save(&record).await.map_err(ErasureRefusal::NotNoted)?;
            self.asked.notify_one();
            Ok(record.shown())
        }
        .boxed()
    }

    fn list(&self, environment: &Environment) -> Vec<Value> {
        let records = self.records.lock();
        records.values().rev().filter(|record| record.is_of(environment)).map(Record::shown).collect()
    }

    fn find(&self, environment: &Environment, id: &str) -> Option<Value> {
        if let Some(known) = self.records.lock().values().find(|record| record.id == id) {
            return known.is_of(environment).then(|| known.shown());
        }
        // One that is too old to be listed. Ids become names of files.
        let digits = id.strip_prefix(ID_PREFIX)?;
        digits.parse::<uuid::Uuid>().ok()?;
        let record = Record::load(&super::record::file_of(&self.folder, id)).ok()?;
        record.is_of(environment).then(|| record.shown())
    }
}
