//! Adds up what clients were told, what the log took and what the tables hold.
//!
//! Three books must agree. What a client was told is accepted is in the log, whole. What the log took is in the tables,
//! row by row, once; but for payloads that stand in their partition before. And the account that commits carry says the
//! same: accepted = landed + de-duplicated + dead-lettered. Tables are read as another engine would: the files that the
//! commits name, with a Parquet reader.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type, TimestampMicrosecondType, UInt32Type};
use bytes::Bytes;
use eventlog::frame;
use events::batch::column;
use events::{LogBatch, Topic, TopicPartition};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::client::Payload;
use crate::compactors::RETENTION;
use crate::log::SimulatedLog;
use crate::plan::Ending;
use crate::store::Bucket;
use crate::watch::Entry;
use crate::world::World;

const DAY_MICROS: i64 = 86_400_000_000;

/// Rows of all seeds so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sums {
    pub payloads: usize,
    pub acknowledged: usize,
    pub landed: usize,
    pub dead_lettered: usize,
    pub deduplicated: usize,
    pub commits: u64,
}

impl Sums {
    pub fn add(&mut self, other: &Self) {
        self.payloads += other.payloads;
        self.acknowledged += other.acknowledged;
        self.landed += other.landed;
        self.dead_lettered += other.dead_lettered;
        self.deduplicated += other.deduplicated;
        self.commits += other.commits;
    }
}

/// Where a row comes from: partition as the table names it, offset, row.
type Origin = (String, i64, i32);

/// What one table must hold, from the log.
#[derive(Default)]
struct Due {
    /// Rows, and the key of their event or their reason.
    rows: BTreeMap<Origin, String>,
    /// Rows that may be missing: too old to keep, lost with a part of the log, or repeating what is no longer there.
    excused: BTreeSet<Origin>,
    account: Entry,
}

/// What the log holds of one payload.
#[derive(Default)]
struct Taken {
    copies: usize,
    rows_of_copies: BTreeSet<usize>,
    letter_copies: usize,
    letters_of_copies: BTreeSet<usize>,
}

pub async fn check(world: &Arc<World>, log: &SimulatedLog, bucket: &Bucket, payloads: &[Payload]) -> Sums {
    let mut taken = BTreeMap::new();
    let mut due = [Due::default(), Due::default()];
    read_book(world, log, &mut taken, &mut due);
    for payload in payloads {
        check_payload(world, payload, &taken);
    }
    let [events, letters] = &due;
    let found_events =
        read_table(world, bucket, "events", &["log_partition", "log_offset", "log_row", "event_key"]).await;
    let columns = ["log_partition", "log_offset", "log_row", "path", "reason"];
    let found_letters = read_table(world, bucket, "dead_letters", &columns).await;
    compare(world, "events", events, &rows_of(&found_events, "events"));
    compare(world, "dead_letters", letters, &rows_of(&found_letters, "dead_letters"));
    if log.truncated().is_empty() {
        check_account(world, bucket, "events", events.account);
        check_account(world, bucket, "dead_letters", letters.account);
    }
    check_ledger(world, bucket).await;
    let commits = bucket.watch.lock().tables.values().map(|table| table.next_version).sum();
    Sums {
        payloads: payloads.len(),
        acknowledged: payloads.iter().filter(|payload| payload.acknowledged > 0).count(),
        landed: events.account.landed as usize,
        dead_lettered: letters.account.dead_lettered as usize,
        deduplicated: (events.account.deduplicated + letters.account.deduplicated) as usize,
        commits,
    }
}

/// Name of a payload in the log: its environment and id, or the key of its first event.
fn name_of(environment: &str, id: Option<&str>, marker: &str) -> String {
    id.map_or_else(|| marker.to_owned(), |id| format!("{environment}/{id}"))
}

fn read_book(world: &World, log: &SimulatedLog, taken: &mut BTreeMap<String, Taken>, due: &mut [Due; 2]) {
    let truncated = log.truncated();
    let first_day_kept = match world.plan.ending {
        Ending::Expired => world.clock.now().saturating_sub(RETENTION).0.div_euclid(DAY_MICROS),
        _ => i64::MIN,
    };
    for (topic_partition, records) in log.book() {
        let TopicPartition { topic, partition } = topic_partition;
        if topic == Topic::Contexts {
            continue;
        }
        let (mut seen, mut forgotten) = (BTreeSet::new(), BTreeSet::new());
        for (offset, (appended_at, bytes)) in records.iter().enumerate() {
            let offset = offset as i64;
            let truncated = truncated.get(&topic_partition);
            // A partition of which unread rows are gone has stopped there.
            let is_lost = truncated.is_some_and(|range| range.has_lost_rows() && offset >= range.unread);
            let is_forgotten = truncated.is_some_and(|range| offset < range.before);
            let Ok(batch) = frame::decode(bytes) else {
                let [_, letters] = &mut *due;
                let origin = (format!("log:{topic_partition}"), offset, 0);
                if is_lost || appended_at.0.div_euclid(DAY_MICROS) < first_day_kept {
                    letters.excused.insert(origin.clone());
                }
                letters.rows.insert(origin, "unreadable_record".into());
                letters.account.accepted += 1;
                letters.account.dead_lettered += 1;
                continue;
            };
            let due = &mut due[usize::from(topic == Topic::DeadLetters)];
            let mut next_row = 0;
            for payload in payloads_of(&batch) {
                let rows = next_row..next_row + payload.rows;
                next_row = rows.end;
                let note = taken.entry(payload.name.clone()).or_default();
                if topic == Topic::Events {
                    note.copies += 1;
                    note.rows_of_copies.insert(payload.rows);
                } else {
                    note.letter_copies += 1;
                    note.letters_of_copies.insert(payload.rows);
                }
                let count = payload.rows as i64;
                due.account.accepted += count;
                let repeats_forgotten = forgotten.contains(&payload.name);
                if payload.has_id && !seen.insert(payload.name.clone()) && !repeats_forgotten {
                    due.account.deduplicated += count;
                    continue;
                }
                if is_forgotten {
                    forgotten.insert(payload.name.clone());
                }
                match topic {
                    Topic::Events => due.account.landed += count,
                    _ => due.account.dead_lettered += count,
                }
                for row in rows {
                    let origin = (format!("{topic}/{partition}"), offset, row as i32);
                    if is_lost || repeats_forgotten || payload.received_at.div_euclid(DAY_MICROS) < first_day_kept {
                        due.excused.insert(origin.clone());
                    }
                    due.rows.insert(origin, key_of(&batch, row));
                }
            }
        }
    }
}

struct PayloadOfFrame {
    name: String,
    has_id: bool,
    rows: usize,
    received_at: i64,
}

fn payloads_of(batch: &LogBatch) -> Vec<PayloadOfFrame> {
    let Some(payloads) = batch.payloads() else { return Vec::new() };
    let text = |number: usize| payloads.column(number).as_string::<i32>();
    let ids = text(column::PAYLOAD_ID);
    let mut next_row = 0;
    let describe = |row: usize| {
        let rows = payloads.column(column::ROWS).as_primitive::<UInt32Type>().value(row) as usize;
        let id = ids.is_valid(row).then(|| ids.value(row));
        let first_key = key_of(batch, next_row);
        next_row += rows;
        PayloadOfFrame {
            name: name_of(text(column::ENVIRONMENT).value(row), id, &first_key),
            has_id: id.is_some(),
            rows,
            received_at: payloads.column(column::RECEIVED_AT).as_primitive::<TimestampMicrosecondType>().value(row),
        }
    };
    (0..payloads.num_rows()).map(describe).collect()
}

/// The key of an event, or the reason of a dead letter.
fn key_of(batch: &LogBatch, row: usize) -> String {
    let (rows, name) = match batch {
        LogBatch::Events(batch) => (batch.events(), "event_key"),
        LogBatch::DeadLetters(batch) => (batch.letters(), "reason"),
        LogBatch::Sightings(_) => return String::new(),
    };
    text_at(rows, name, row)
}

fn text_at(batch: &RecordBatch, name: &str, row: usize) -> String {
    let column = batch.column_by_name(name).map(|column| column.as_string::<i32>());
    column.filter(|column| column.is_valid(row)).map_or(String::new(), |column| column.value(row).to_owned())
}

/// What the client was told must be true.
fn check_payload(world: &World, payload: &Payload, taken: &BTreeMap<String, Taken>) {
    let name = name_of(payload.environment, payload.id.as_deref(), &payload.marker());
    let nothing = Taken::default();
    let found = taken.get(&name).unwrap_or(&nothing);
    let number = payload.number;
    if payload.acknowledged > 0 && payload.rows > 0 && found.copies == 0 {
        world.violated(format!("payload {number} was acknowledged, and the log has no rows of it"));
    }
    if payload.acknowledged > 0 && payload.letters > 0 && payload.id.is_some() && found.letter_copies == 0 {
        world.violated(format!("payload {number} was acknowledged, and the log has no dead letters of it"));
    }
    let whole = |found: &BTreeSet<usize>, sent: usize| found.iter().all(|rows| *rows == sent);
    if !whole(&found.rows_of_copies, payload.rows) || !whole(&found.letters_of_copies, payload.letters) {
        let (rows, letters) = (&found.rows_of_copies, &found.letters_of_copies);
        world.violated(format!("payload {number} has {rows:?} rows and {letters:?} dead letters in the log"));
    }
    if payload.id.is_none() && payload.rows > 0 && !(payload.acknowledged..=payload.attempts).contains(&found.copies) {
        let (copies, acknowledged, attempts) = (found.copies, payload.acknowledged, payload.attempts);
        world.violated(format!(
            "payload {number} is {copies} times in the log, acknowledged {acknowledged} of {attempts} times"
        ));
    }
}

async fn read_table(world: &World, bucket: &Bucket, table: &str, columns: &[&str]) -> Vec<RecordBatch> {
    let live: Vec<String> =
        bucket.watch.lock().table(table).map(|watched| watched.live.keys().cloned().collect()).unwrap_or_default();
    let mut batches = Vec::new();
    for path in live {
        let read = match bucket.read(&format!("lake/{table}/{path}")).await {
            Ok(bytes) => read_file(bytes, columns).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match read {
            Ok(read) => batches.extend(read),
            Err(error) => world.violated(format!("{table} names {path}, which cannot be read: {error}")),
        }
    }
    batches
}

fn read_file(bytes: Bytes, columns: &[&str]) -> anyhow::Result<Vec<RecordBatch>> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes)?;
    let wanted = ProjectionMask::columns(builder.parquet_schema(), columns.iter().copied());
    Ok(builder.with_projection(wanted).build()?.collect::<Result<_, _>>()?)
}

fn rows_of(batches: &[RecordBatch], topic: &str) -> Vec<(Origin, String)> {
    let mut rows = Vec::new();
    for batch in batches {
        let column = |name: &str| batch.column_by_name(name).expect("asked for");
        let partitions = column("log_partition").as_primitive::<Int32Type>();
        let offsets = column("log_offset").as_primitive::<Int64Type>();
        let numbers = column("log_row").as_primitive::<Int32Type>();
        for row in 0..batch.num_rows() {
            let path = text_at(batch, "path", row);
            let place = if path.starts_with("log:") { path } else { format!("{topic}/{}", partitions.value(row)) };
            let key = text_at(batch, if topic == "events" { "event_key" } else { "reason" }, row);
            rows.push(((place, offsets.value(row), numbers.value(row)), key));
        }
    }
    rows
}

fn compare(world: &World, table: &str, due: &Due, found: &[(Origin, String)]) {
    let mut seen = BTreeSet::new();
    for (origin, key) in found {
        if !seen.insert(origin) {
            world.violated(format!("{table} holds {origin:?} twice"));
        }
        match due.rows.get(origin) {
            None => world.violated(format!("{table} holds {origin:?} ({key}), which it must not")),
            Some(expected) if expected != key => {
                world.violated(format!("{table} holds {key} as {origin:?}, the log {expected}"));
            }
            Some(_) => {}
        }
    }
    for (origin, key) in &due.rows {
        if !seen.contains(origin) && !due.excused.contains(origin) {
            world.violated(format!("{table} lacks {origin:?} ({key})"));
        }
    }
}

fn check_account(world: &World, bucket: &Bucket, table: &str, due: Entry) {
    let mut sum = Entry::default();
    let watch = bucket.watch.lock();
    for (_, entry) in watch.table(table).map(|watched| watched.account.as_slice()).unwrap_or_default() {
        sum.add(*entry);
    }
    drop(watch);
    if sum != due {
        world.violated(format!("the account of {table} says {sum:?}, the log {due:?}"));
    }
}

/// The table `ledger` says what the commits say.
async fn check_ledger(world: &World, bucket: &Bucket) {
    let columns = ["accepted", "landed", "deduplicated", "dead_lettered"];
    let mut copied = Entry::default();
    for batch in read_table(world, bucket, "ledger", &columns).await {
        let sum = |name: &str| {
            let column = batch.column_by_name(name).expect("asked for").as_primitive::<Int64Type>();
            column.values().iter().sum::<i64>()
        };
        let [accepted, landed, deduplicated, dead_lettered] = columns.map(sum);
        copied.add(Entry { accepted, landed, deduplicated, dead_lettered });
    }
    let mut due = Entry::default();
    for table in ["events", "dead_letters"] {
        let watch = bucket.watch.lock();
        let account = watch.table(table).map(|watched| watched.account.clone()).unwrap_or_default();
        account.into_iter().for_each(|(_, entry)| due.add(entry));
    }
    if copied != due {
        world.violated(format!("the ledger says {copied:?}, the commits {due:?}"));
    }
}
