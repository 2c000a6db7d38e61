//! The account of every row: accepted = landed + deduplicated + dead-lettered, per environment and hour of receipt.
//!
//! Each landing commit carries the account of the rows it covers in its `commitInfo`, so the account is exact by
//! construction: both become visible together. For queries those entries are copied to the small table `ledger`, again
//! exactly once: its `txn` action holds the newest version of the source table that has been copied.
//! What is accepted but in no entry yet is still in the log. The table follows at some distance, so that it has few
//! files; who asks through SQL gets the entries that it lacks from the commits themselves ([`pending`]).

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{TimestampMicrosecondType, UInt32Type};
use events::batch::column;

use crate::commit::{Change, NewFiles};
use crate::schema::LEDGER;
use crate::table::Table;
use crate::table::actions::{LedgerEntry, PartitionValues};
use crate::table::load::read_commit;
use crate::table::state::TableState;
use crate::table::store::TableStore;
use crate::write::{Effort, RollingWriter};
use crate::{Error, Result};

const HOUR_MICROS: i64 = 3_600_000_000;
/// Versions that one copy covers at most; bounds the memory of a copy after a long pause.
const VERSIONS_PER_COPY: u64 = 1_000;

/// Entries of one commit in the making.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally(BTreeMap<(String, String, i64), LedgerEntry>);

/// Where rows of the main batch go if they are not dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Destination {
    Landed,
    DeadLettered,
}

impl Tally {
    /// Counts the rows of a payloads batch; `dropped` tells which payloads were repetitions.
    pub fn count(&mut self, payloads: &RecordBatch, dropped: &[bool], destination: Destination) {
        let project = payloads.column(column::PROJECT).as_string::<i32>();
        let environment = payloads.column(column::ENVIRONMENT).as_string::<i32>();
        let received_at = payloads.column(column::RECEIVED_AT).as_primitive::<TimestampMicrosecondType>();
        let rows = payloads.column(column::ROWS).as_primitive::<UInt32Type>();
        for (payload, dropped) in dropped.iter().enumerate() {
            let rows = i64::from(rows.value(payload));
            let entry = self.entry(project.value(payload), environment.value(payload), received_at.value(payload));
            entry.accepted += rows;
            match destination {
                _ if *dropped => entry.deduplicated += rows,
                Destination::Landed => entry.landed += rows,
                Destination::DeadLettered => entry.dead_lettered += rows,
            }
        }
    }

    /// Counts a log record that could not be read: how many rows it held is unknown, so it counts as one.
    pub fn count_unreadable(&mut self, received_at: i64) {
        let entry = self.entry("", "", received_at);
        entry.accepted += 1;
        entry.dead_lettered += 1;
    }

    fn entry(&mut self, project: &str, environment: &str, received_at: i64) -> &mut LedgerEntry {
        let hour = received_at.div_euclid(HOUR_MICROS) * HOUR_MICROS;
        let key = (project.to_owned(), environment.to_owned(), hour);
        self.0.entry(key).or_insert_with(|| LedgerEntry {
            project: project.to_owned(),
            environment: environment.to_owned(),
            hour,
            ..Default::default()
        })
    }

    pub fn entries(&self) -> Vec<LedgerEntry> {
        self.0.values().cloned().collect()
    }
}

/// Copies the entries of `source` that are not in `ledger` yet. Returns whether there were any versions to look at.
pub(crate) async fn copy(source: &Table, ledger: &Table) -> Result<bool> {
    let app_id = app_id(source.spec.name);
    let newest = source.state().await.version;
    let copied = ledger.state().await.txns.get(&app_id).copied().unwrap_or(0);
    let until = newest.min(copied as u64 + VERSIONS_PER_COPY);
    if until <= copied as u64 {
        return Ok(false);
    }
    let rows = entries(source.spec.name, &source.store, copied as u64 + 1..=until).await?;
    let mut files = Vec::new();
    if !rows.is_empty() {
        let mut writer = RollingWriter::new(ledger, PartitionValues::new(), Effort::Landing, u64::MAX)?;
        writer.write(&batch(source.spec.name, rows)?).await?;
        files = writer.finish().await?;
    }
    let now = ledger.now_millis();
    let change = Change {
        operation: "WRITE",
        parameters: vec![("mode", "Append".into())],
        txns: vec![(app_id.clone(), until as i64)],
        files: NewFiles::new(&files, now, true),
        ..Default::default()
    };
    let guard = move |state: &TableState| match state.txns.get(&app_id).copied().unwrap_or(0) {
        found if found == copied => Ok(()),
        _ => Err(Error::FileGone { table: "ledger", path: app_id.clone() }),
    };
    match ledger.commit(&change, &guard).await {
        Ok(_) => Ok(true),
        // Another process copied them; its commit has been read by now, so the next look starts after it.
        Err(Error::FileGone { .. }) => {
            ledger.store.delete(files.iter().map(|file| file.path.as_str().into()).collect()).await?;
            Ok(true)
        }
        Err(error) => Err(error),
    }
}

/// Name under which the ledger notes how far it has copied a table.
pub(crate) fn app_id(table: &str) -> String {
    format!("ledger/{table}")
}

/// The accounts in the given commits of a table, with their version.
async fn entries(
    table: &'static str,
    store: &TableStore,
    versions: RangeInclusive<u64>,
) -> Result<Vec<(u64, LedgerEntry)>> {
    let mut rows = Vec::new();
    for version in versions {
        // A missing commit was removed with the log's retention, long after its entries were due.
        let Some(actions) = read_commit(table, store, version).await? else { continue };
        let own = actions.into_iter().find_map(|action| action.commit_info?.tidegate);
        rows.extend(own.unwrap_or_default().ledger.into_iter().map(|entry| (version, entry)));
    }
    Ok(rows)
}

/// What the ledger, which has copied a table up to version `copied`, lacks for version `until` of it.
pub(crate) async fn pending(
    table: &'static str,
    store: &TableStore,
    copied: Option<i64>,
    until: Option<u64>,
) -> Result<RecordBatch> {
    let (first, last) = (copied.unwrap_or_default() as u64 + 1, until.unwrap_or_default());
    let first = first.max((last + 1).saturating_sub(VERSIONS_PER_COPY));
    batch(table, entries(table, store, first..=last).await?)
}

fn batch(source: &str, mut rows: Vec<(u64, LedgerEntry)>) -> Result<RecordBatch> {
    rows.sort_by(|(_, a), (_, b)| (&a.project, &a.environment, a.hour).cmp(&(&b.project, &b.environment, b.hour)));
    let text = |get: fn(&LedgerEntry) -> &str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(rows.iter().map(|(_, entry)| get(entry))))
    };
    let number = |get: fn(&LedgerEntry) -> i64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|(_, entry)| get(entry))))
    };
    let hours =
        TimestampMicrosecondArray::from_iter_values(rows.iter().map(|(_, entry)| entry.hour)).with_timezone("UTC");
    let columns: Vec<ArrayRef> = vec![
        text(|entry| &entry.project),
        text(|entry| &entry.environment),
        Arc::new(hours),
        number(|entry| entry.accepted),
        number(|entry| entry.landed),
        number(|entry| entry.deduplicated),
        number(|entry| entry.dead_lettered),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|_| source))),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|(version, _)| *version as i64))),
    ];
    Ok(RecordBatch::try_new(LEDGER.file_schema(), columns)?)
}
