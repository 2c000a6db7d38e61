//! From 202 to queryable: probes are posted at random moments, and outsiders look for them.
//!
//! Table: a probe counts as seen when a commit in `_delta_log` names a file in which its row is read. The probe is a page
//! view, a kind that the load does not have, so that its file in each commit is small and reading it costs next to
//! nothing. Index: a probe counts as seen when the search API finds its context. Merges of files name them once more;
//! only the first time counts.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::lake::Table;
use crate::load::percentile;
use crate::server::Server;

/// Looks for the next commit this often; the resolution of the table's figures.
const TABLE_STEP: Duration = Duration::from_millis(5);
/// Searches this often; the resolution of the index's figures.
const INDEX_STEP: Duration = Duration::from_millis(20);
/// Probes that one search asks for.
const SOUGHT_MAX: usize = 50;
/// A probe that is not seen this long after the last was posted is lost.
const PATIENCE: Duration = Duration::from_secs(120);

/// Milliseconds from 202 to visible, sorted.
#[derive(Debug, Default)]
pub struct Freshness {
    pub table_ms: Vec<f64>,
    pub index_ms: Vec<f64>,
}

impl Freshness {
    /// One line of a table: p50, p99 and maximum of table and index, in seconds.
    pub fn columns(&self) -> String {
        let three = |values: &[f64]| {
            let [p50, p99, max] = [50.0, 99.0, 100.0].map(|percent| percentile(values, percent) / 1e3);
            format!("{p50:.2} | {p99:.2} | {max:.2}")
        };
        format!("{} | {} | {}", self.table_ms.len(), three(&self.table_ms), three(&self.index_ms))
    }
}

/// Probes by payload id, which is the context's key as well: when they were answered 202.
type Answered = Mutex<HashMap<String, Instant>>;

/// Posts `probes` probes, `per_second` of them in the mean, and waits until all of them are seen.
pub fn measure(server: &Server, table: &Path, probes: usize, per_second: f64) -> anyhow::Result<Freshness> {
    let (for_table, for_index) = (Answered::default(), Answered::default());
    let posted = AtomicBool::new(false);
    let run = uuid::Uuid::new_v4().simple().to_string();
    std::thread::scope(|scope| {
        let table = scope.spawn(|| watch_table(table, &for_table, &posted));
        let index = scope.spawn(|| watch_index(server, &for_index, &posted));
        let sent = post(server, &run, probes, per_second, &[&for_table, &for_index]);
        posted.store(true, Ordering::Release);
        let joined = (table.join().expect("a watcher does not panic"), index.join().expect("a watcher does not panic"));
        sent?;
        let (mut table_ms, mut index_ms) = (joined.0?, joined.1?);
        table_ms.sort_by(f64::total_cmp);
        index_ms.sort_by(f64::total_cmp);
        Ok(Freshness { table_ms, index_ms })
    })
}

fn post(server: &Server, run: &str, probes: usize, per_second: f64, into: &[&Answered]) -> anyhow::Result<()> {
    let started = Instant::now();
    for number in 0..probes {
        let id = format!("{run}-{number}");
        let context = format!(r#"{{"kind":"probe","key":"{id}"}}"#);
        let view = format!(
            r#"{{"kind":"pageview","creationDate":1800000000000,"key":"probe","url":"http://bench/","context":{context}}}"#
        );
        let identify = format!(r#"{{"kind":"identify","creationDate":1800000000000,"context":{context}}}"#);
        let status = server.post_events(&format!("[{view},{identify}]"), &id)?;
        ensure!(status == 202, "a probe was answered {status}");
        let answered = Instant::now();
        for map in into {
            map.lock().expect("no panic while locked").insert(id.clone(), answered);
        }
        // Evenly spread within its slot, so that probes keep no step with the intervals of the stages.
        let chance = f64::from(uuid::Uuid::new_v4().as_fields().0) / f64::from(u32::MAX);
        let next = started + Duration::from_secs_f64((number as f64 + 0.5 + chance) / per_second);
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    Ok(())
}

fn watch_table(path: &Path, answered: &Answered, posted: &AtomicBool) -> anyhow::Result<Vec<f64>> {
    let mut table = Table::new(path);
    let mut seen = Vec::new();
    // Seen before the 202 was noticed: a row may be visible before its sender knows.
    let mut early: HashMap<String, Instant> = HashMap::new();
    let mut deadline = None;
    loop {
        while let Some(added) = table.advance()? {
            let now = Instant::now();
            for file in added.iter().filter(|file| file.contains("kind=pageview")) {
                table.payload_ids(file, |id| {
                    early.entry(id.to_owned()).or_insert(now);
                })?;
            }
        }
        take_seen(answered, &mut early, &mut seen);
        if is_over("table", answered, posted, &mut deadline)? {
            return Ok(seen);
        }
        std::thread::sleep(TABLE_STEP);
    }
}

fn watch_index(server: &Server, answered: &Answered, posted: &AtomicBool) -> anyhow::Result<Vec<f64>> {
    let mut seen = Vec::new();
    let mut deadline = None;
    loop {
        let sought: Vec<String> = {
            let answered = answered.lock().expect("no panic while locked");
            let mut oldest: Vec<_> = answered.iter().collect();
            oldest.sort_by_key(|(_, at)| **at);
            oldest.into_iter().take(SOUGHT_MAX).map(|(id, _)| id.clone()).collect()
        };
        if !sought.is_empty() {
            let found = server.search(&format!("kind equals probe,key anyOf {}", serde_json::json!(sought)))?;
            let now = Instant::now();
            let keys = found.iter().filter_map(|item| item["context"]["key"].as_str());
            let mut found = keys.map(|key| (key.to_owned(), now)).collect();
            take_seen(answered, &mut found, &mut seen);
        }
        if is_over("index", answered, posted, &mut deadline)? {
            return Ok(seen);
        }
        std::thread::sleep(INDEX_STEP);
    }
}

/// Moves probes that were answered and seen out of both maps.
fn take_seen(answered: &Answered, visible: &mut HashMap<String, Instant>, seen: &mut Vec<f64>) {
    let mut answered = answered.lock().expect("no panic while locked");
    visible.retain(|id, at| match answered.remove(id) {
        Some(since) => {
            seen.push(at.saturating_duration_since(since).as_secs_f64() * 1e3);
            false
        }
        None => true,
    });
}

fn is_over(
    what: &str,
    answered: &Answered,
    posted: &AtomicBool,
    deadline: &mut Option<Instant>,
) -> anyhow::Result<bool> {
    if !posted.load(Ordering::Acquire) {
        return Ok(false);
    }
    let waiting = answered.lock().expect("no panic while locked").len();
    let deadline = *deadline.get_or_insert_with(|| Instant::now() + PATIENCE);
    (waiting == 0 || Instant::now() < deadline).then_some(waiting == 0).with_context(|| {
        format!("{waiting} probes are not visible in the {what} {PATIENCE:?} after the last was posted")
    })
}
