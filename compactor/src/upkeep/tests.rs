//! Checkpoints, retention and vacuum never cost a row.

use std::collections::BTreeSet;
use std::time::Duration;

use arrow::array::RecordBatch;
use events::{Offset, Topic};
use runtime::{DurationText, Runtime, UnixMicros};

use crate::commit::{Change, FILES_AGE_MAX, NewFiles};
use crate::expand::{FrameRows, expand};
use crate::fixtures::{EVENTS_0, NOON, Payload, World, events_batch, feature, is_stopped, payload, rows_of};
use crate::retention::sweep;
use crate::schema::EVENTS;
use crate::table::Table;
use crate::table::actions::PartitionValues;
use crate::table::load::load;
use crate::write::{Effort, RollingWriter};
use crate::{Error, Step, Steps};

fn days(count: u64) -> Duration {
    Duration::from_secs(count * 86_400)
}

/// The world seen at a later time.
fn later(mut world: World, by: Duration) -> World {
    world.runtime = Runtime::simulated(UnixMicros(NOON.0).saturating_add(by), 8);
    world
}

async fn land_one(world: &World, number: i64, received_at: UnixMicros) {
    let payload = Payload { received_at, ..payload(&format!("p{number}"), vec![feature("flag", "ann")]) };
    world.events(EVENTS_0, &[payload]).await;
    world.compactor().await.work.lock().await.events.land_available().await.unwrap();
}

fn data_files(world: &World) -> BTreeSet<String> {
    fn walk(folder: &std::path::Path, found: &mut BTreeSet<String>, root: &std::path::Path) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("_delta_log") {
                walk(&path, found, root);
            } else if path.extension().is_some_and(|extension| extension == "parquet") {
                found.insert(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    let mut found = BTreeSet::new();
    let root = world.folder().join("events");
    walk(&root, &mut found, &root);
    found
}

async fn live_files(world: &World) -> BTreeSet<String> {
    let state = load("events", &world.storage.table("events")).await.unwrap().unwrap();
    state.files.keys().map(|path| path.to_string()).collect()
}

/// A process dies after a commit and before it has told the account of it; another, which lands nothing, does.
#[tokio::test(flavor = "multi_thread")]
async fn ledger_has_what_another_process_landed() {
    let world = World::local();
    let compactor = world.compactor().await;
    land_one(&world, 1, NOON).await;
    compactor.work.lock().await.upkeep.copy_ledger().await.unwrap();
    assert_eq!(world.number("SELECT CAST(sum(landed) AS BIGINT) FROM ledger_entries").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn vacuum_deletes_replaced_files_when_they_are_old_enough() {
    let world = World::local();
    for number in 0..5 {
        land_one(&world, number, NOON).await;
    }
    std::fs::write(world.folder().join("events/event_date=2026-11-22/kind=feature/part-unknown.parquet"), b"x")
        .unwrap();
    world.land().await;
    assert_eq!(live_files(&world).await.len(), 1);
    assert_eq!(data_files(&world).len(), 5 + 1 + 1, "replaced, merged, unknown");

    let world = later(world, Duration::from_secs(23 * 3600));
    world.land().await;
    assert_eq!(data_files(&world).len(), 7, "not old enough");

    let world = later(world, days(2));
    world.land().await;
    let left = data_files(&world);
    assert_eq!(left.len(), 2);
    assert!(live_files(&world).await.is_subset(&left));
    assert!(left.iter().any(|path| path.contains("unknown")), "what the history does not know is left alone");
    world.expect_rows(5).await;
}

/// Files of `events` as if they had been written two days ago.
fn age_files(world: &World, aged: &BTreeSet<String>) {
    let two_days_ago = std::time::SystemTime::now() - days(2);
    for path in aged {
        let file = std::fs::File::options().append(true).open(world.folder().join("events").join(path)).unwrap();
        file.set_modified(two_days_ago).unwrap();
    }
}

/// Files that a process wrote for `events` before it died.
async fn die_before_commit(world: &World, number: i64) -> BTreeSet<String> {
    world.compactor().await;
    let before = data_files(world);
    let payload = payload(&format!("p{number}"), vec![feature("flag", "ann")]);
    world.events(EVENTS_0, &[payload]).await;
    let dying = world.compactor_dying(Steps::new(|at| at == Step::FilesWritten)).await.unwrap();
    assert!(is_stopped(dying.land_available().await));
    data_files(world).difference(&before).cloned().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_a_crash_before_the_commit_are_deleted() {
    let world = World::local();
    let old = die_before_commit(&world, 1).await;
    let young = die_before_commit(&world, 2).await;
    assert!(!old.is_empty() && !young.is_empty());
    age_files(&world, &old);
    // Names that others give, and our name where no partition is.
    let foreign = ["part-00000-0a4f9c3e-8f0d-4ab1-9e1c-111111111111-c000.zstd.parquet", "tidegate-mine.zstd.parquet"];
    let foreign: BTreeSet<String> =
        foreign.iter().map(|name| format!("event_date=2026-11-22/kind=feature/{name}")).collect();
    foreign.iter().for_each(|path| std::fs::write(world.folder().join("events").join(path), b"x").unwrap());
    age_files(&world, &foreign);

    world.land().await;
    // All that is live is as old as what was deleted.
    let live = live_files(&world).await;
    age_files(&world, &live);
    world.land().await;
    let expected: BTreeSet<String> = live.into_iter().chain(young).chain(foreign).collect();
    assert_eq!(data_files(&world), expected);
    world.expect_rows(2).await;
    let versions = load("events", &world.storage.table("events")).await.unwrap().unwrap().version;
    world.land().await;
    let state = load("events", &world.storage.table("events")).await.unwrap().unwrap();
    assert_eq!(state.version, versions, "with nothing to delete there is no commit");
}

/// The object store's library writes local files aside, under names that its lists leave out.
#[tokio::test(flavor = "multi_thread")]
async fn files_that_a_crash_left_half_written_are_deleted() {
    let world = World::local();
    land_one(&world, 1, NOON).await;
    let live = live_files(&world).await;
    let folder = "event_date=2026-11-22/kind=feature";
    let own = format!("{folder}/tidegate-00000000-0000-4000-8000-000000000000.zstd.parquet");
    let write = |path: String| {
        std::fs::write(world.folder().join("events").join(&path), b"PAR1").unwrap();
        path
    };
    let old = BTreeSet::from([
        write(format!("{own}#1")),
        write("_delta_log/.commit-4711-0.tmp".into()),
        write(format!("{folder}/somebody-elses.parquet#1")),
        write(format!("{own}#not-a-number")),
    ]);
    write(format!("{own}#2"));
    age_files(&world, &old);
    let exists = |name: &str| world.folder().join("events").join(name).exists();

    world.land().await;
    let gone = [format!("{own}#1"), "_delta_log/.commit-4711-0.tmp".into()];
    for path in &old {
        assert_eq!(exists(path), !gone.contains(path), "{path}");
    }
    assert!(exists(&format!("{own}#2")), "a write of this hour may still be under way");
    assert_eq!(live_files(&world).await, live);
    world.expect_rows(1).await;
}

/// The worst case: a process is stopped directly before its write, for days, and its successor deletes its files.
#[tokio::test(flavor = "multi_thread")]
async fn zombie_cannot_name_a_deleted_file() {
    let world = World::local();
    let table = world.table(&EVENTS).await;
    let mut writer = RollingWriter::new(&table, one_partition(), Effort::Landing, u64::MAX).unwrap();
    writer.write(&one_row().await).await.unwrap();
    let files = writer.finish().await.unwrap();
    let zombie =
        Change { operation: "WRITE", files: NewFiles::new(&files, table.now_millis(), true), ..Default::default() };
    // What it would write, decided before it was stopped: the next version after the one that it knows.
    let stopped_at = table.state().await.version;

    age_files(&world, &data_files(&world));
    let successor = world.table(&EVENTS).await;
    assert_eq!(sweep(&successor, Duration::ZERO).await.unwrap(), 1);
    assert!(successor.state().await.version > stopped_at, "the version that the zombie aims at is taken");
    assert_eq!(data_files(&world).len(), 0);

    // Awake, it looks at the age of its files again before it aims at a later version.
    let awake = later(world, FILES_AGE_MAX + Duration::from_secs(1));
    let table = Table { runtime: awake.runtime.clone(), ..table };
    let error = table.commit(&zombie, &|_| Ok(())).await.unwrap_err();
    assert!(matches!(error, Error::FilesTooOld { .. }), "{error}");
    assert_eq!(live_files(&awake).await.len(), 0);
}

/// A batch whose files grew too old is written anew and lands.
#[tokio::test(flavor = "multi_thread")]
async fn files_of_half_the_age_are_not_committed() {
    let world = World::local();
    let table = world.table(&EVENTS).await;
    let mut writer = RollingWriter::new(&table, one_partition(), Effort::Landing, u64::MAX).unwrap();
    writer.write(&one_row().await).await.unwrap();
    let files = writer.finish().await.unwrap();
    let change =
        Change { operation: "WRITE", files: NewFiles::new(&files, table.now_millis(), true), ..Default::default() };
    let world = later(world, FILES_AGE_MAX - Duration::from_secs(60));
    let table = Table { runtime: world.runtime.clone(), ..table };
    table.commit(&change, &|_| Ok(())).await.unwrap();
    let world = later(world, FILES_AGE_MAX + Duration::from_secs(1));
    let table = Table { runtime: world.runtime.clone(), ..table };
    let error = table.commit(&change, &|_| Ok(())).await.unwrap_err();
    assert_eq!(error.kind(), runtime::ErrorKind::Retry);
    world.expect_rows(1).await;
}

fn one_partition() -> PartitionValues {
    let values = [("event_date", "2026-11-22"), ("kind", "feature")];
    values.map(|(name, value)| (name.to_owned(), Some(value.to_owned()))).into()
}

/// A row as it would land.
async fn one_row() -> RecordBatch {
    let batch = events_batch(&[payload("p1", vec![feature("flag", "ann")])]);
    let frames = [FrameRows::new(EVENTS_0, Offset(0), batch, vec![false]).unwrap()];
    let expansion = expand(Topic::Events, &frames);
    rows_of(&expansion, &expansion.groups[0]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_drops_whole_days_and_nothing_younger() {
    let mut world = World::local();
    world.config.retention = DurationText(days(30));
    world.config.vacuum_age = DurationText::secs(3600);
    for (number, age) in [40, 31, 30, 29, 0].into_iter().enumerate() {
        land_one(&world, number as i64, NOON.saturating_sub(days(age))).await;
    }
    world.land().await;
    let dates = world.lines("SELECT event_date FROM events ORDER BY event_date").await;
    assert_eq!(dates, ["2026-10-23", "2026-10-24", "2026-11-22"], "the day of the limit is kept");
    assert_eq!(data_files(&world).len(), 5, "readers of older versions still have their files");
    let world = later(world, Duration::from_secs(2 * 3600));
    world.land().await;
    assert_eq!(data_files(&world), live_files(&world).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_can_be_off() {
    let mut world = World::local();
    world.config.retention = DurationText::secs(0);
    land_one(&world, 1, NOON.saturating_sub(days(4_000))).await;
    world.land().await;
    world.expect_rows(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn state_from_a_checkpoint_is_the_state_of_the_log() {
    let mut world = World::local();
    world.config.merge_files_min = 10;
    for number in 0..70 {
        land_one(&world, number, NOON).await;
        if number % 20 == 19 {
            world.land().await;
        }
    }
    let store = world.storage.table("events");
    let before = load("events", &store).await.unwrap().unwrap();
    world.land().await;
    let log = world.folder().join("events/_delta_log");
    assert!(log.join("_last_checkpoint").exists());
    let with_checkpoint = load("events", &store).await.unwrap().unwrap();
    assert!(with_checkpoint.checkpoint_version >= 64);
    // Only merges may have come in between.
    assert_eq!(with_checkpoint.txns, before.txns);

    for entry in std::fs::read_dir(&log).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.contains("checkpoint") {
            std::fs::remove_file(&path).unwrap();
        }
    }
    let from_log = load("events", &store).await.unwrap().unwrap();
    assert_eq!(from_log.checkpoint_version, 0);
    assert_eq!((with_checkpoint.version, with_checkpoint.bytes), (from_log.version, from_log.bytes));
    assert_eq!(with_checkpoint.files, from_log.files);
    assert_eq!(with_checkpoint.txns, from_log.txns);
    assert_eq!(with_checkpoint.schema_string, from_log.schema_string);
    assert_eq!(with_checkpoint.tombstones, from_log.tombstones);
    world.expect_rows(70).await;
}

/// Leaves a table behind for readers in other languages, where a folder is given.
#[tokio::test(flavor = "multi_thread")]
async fn table_for_other_readers() {
    let Some(folder) = std::env::var_os("TIDEGATE_KEEP_TABLE") else { return };
    let mut world = World::local();
    let url = folder.to_str().unwrap().to_owned();
    world.storage = crate::Storage::open(&crate::StorageConfig { url, ..Default::default() }).unwrap();
    for number in 0..6 {
        let events = (0..50)
            .map(|row| feature(&format!("flag-{}", row % 7), &format!("user-{row}")))
            .chain([crate::fixtures::summary("flag-1", 10)]);
        world.events(EVENTS_0, &[payload(&format!("p{number}"), events.collect())]).await;
        if number % 2 == 0 {
            world.land().await;
        }
    }
    world.append(crate::fixtures::LETTERS_0, &crate::fixtures::letters_batch(&[payload("bad", vec![])])).await;
    world.land().await;
}
