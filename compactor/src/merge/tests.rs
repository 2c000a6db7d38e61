//! The planner by properties; the execution by rows and key sums.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::fixtures::{EVENTS_0, EVENTS_1, World, feature, is_stopped, payload, summary};
use crate::schema::EVENTS;
use crate::{Step, Steps};

const SETTINGS: MergeSettings =
    MergeSettings { target_bytes: 64 << 20, files_min: 8, memory_bytes: 64 << 20, row_group_bytes: 16 << 20 };

fn candidates(sizes: &[u64]) -> Vec<Candidate> {
    sizes.iter().enumerate().map(|(number, bytes)| Candidate { path: format!("f{number}"), bytes: *bytes }).collect()
}

#[test]
fn few_small_files_wait_while_rows_arrive() {
    let files = candidates(&[1_000; 7]);
    assert_eq!(plan(&files, true, SETTINGS), None);
    assert_eq!(plan(&files, false, SETTINGS).unwrap().len(), 7);
    assert_eq!(plan(&candidates(&[1_000; 8]), true, SETTINGS).unwrap().len(), 8);
}

#[test]
fn large_files_are_left_alone() {
    assert_eq!(plan(&candidates(&[40 << 20; 100]), false, SETTINGS), None);
}

proptest! {
    #[test]
    fn plan_keeps_its_bounds(sizes in prop::collection::vec(0u64..100 << 20, 0..200), receiving: bool) {
        let files = candidates(&sizes);
        if let Some(set) = plan(&files, receiving, SETTINGS) {
            let size: BTreeMap<_, _> = files.iter().map(|file| (file.path.as_str(), file.bytes)).collect();
            let chosen: Vec<u64> = set.iter().map(|path| size[path.as_str()]).collect();
            let distinct: std::collections::BTreeSet<_> = set.iter().collect();
            prop_assert_eq!(distinct.len(), set.len());
            prop_assert!(set.len() >= 2 && set.len() <= FILES_MAX);
            prop_assert!(chosen.iter().sum::<u64>() <= SETTINGS.target_bytes);
            prop_assert!(chosen.iter().all(|bytes| *bytes < SETTINGS.target_bytes / 2));
            let memory: u64 = chosen.iter().map(|bytes| input_memory(*bytes)).sum();
            prop_assert!(memory <= SETTINGS.memory_bytes || set.len() == 2);
        }
    }

    /// Merging as planned ends, and in a closed partition at most one small file is left.
    #[test]
    fn planning_comes_to_an_end(sizes in prop::collection::vec(1u64..80 << 20, 0..120), receiving: bool) {
        let mut files = candidates(&sizes);
        let total: u64 = sizes.iter().sum();
        let mut merges = 0;
        while let Some(set) = plan(&files, receiving, SETTINGS) {
            let bytes = files.iter().filter(|file| set.contains(&file.path)).map(|file| file.bytes).sum();
            files.retain(|file| !set.contains(&file.path));
            files.push(Candidate { path: format!("m{merges}"), bytes });
            merges += 1;
            prop_assert!(merges <= sizes.len());
        }
        prop_assert_eq!(files.iter().map(|file| file.bytes).sum::<u64>(), total);
        let small = files.iter().filter(|file| file.bytes < SETTINGS.target_bytes / 2).count();
        prop_assert!(receiving || small <= 1);
    }
}

/// Every row with all its columns, in an order of its own.
async fn all_rows(world: &World) -> Vec<String> {
    world.lines("SELECT * FROM events ORDER BY log_partition, log_offset, log_row").await
}

async fn landed_in_pieces(world: &World, pieces: i64) {
    let compactor = world.compactor().await;
    for piece in 0..pieces {
        let flags: Vec<_> = (0..20)
            .map(|flag| feature(&format!("flag-{}", (flag * 7 + piece) % 20), &format!("user-{piece}")))
            .collect();
        let partition = if piece % 2 == 0 { EVENTS_0 } else { EVENTS_1 };
        let mut events = flags;
        events.push(summary("flag-s", piece));
        world.events(partition, &[payload(&format!("p{piece}"), events)]).await;
        let mut work = compactor.work.lock().await;
        work.events.land_available().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn merge_keeps_every_row_and_its_order() {
    let world = World::local();
    landed_in_pieces(&world, 9).await;
    let before = all_rows(&world).await;
    assert_eq!(world.compactor_files().await, 18);
    world.land().await;
    assert_eq!(world.compactor_files().await, 2, "9 files of each kind became one");
    assert_eq!(all_rows(&world).await, before);
    let sorted = "SELECT flag_key FROM events WHERE kind = 'feature'";
    let keys = world.lines(sorted).await;
    assert!(keys.is_sorted(), "{keys:?}");
    // Reading it again from its log gives the same files, and the counts in the log are those of the rows.
    assert_eq!(world.number("SELECT count(*) FROM events").await, 9 * 21);
}

/// What does not fit into memory beside the first two files is left for the next merge.
#[tokio::test(flavor = "multi_thread")]
async fn merge_opens_no_more_files_than_fit() {
    let world = World::local();
    landed_in_pieces(&world, 5).await;
    let before = all_rows(&world).await;
    let table = world.table(&EVENTS).await;
    let (partition, paths) = {
        let state = table.state().await;
        let features = state.files.iter().filter(|(_, file)| file.partition["kind"].as_deref() == Some("feature"));
        let paths: Vec<String> = features.clone().map(|(path, _)| path.to_string()).collect();
        (features.map(|(_, file)| file.partition.as_ref().clone()).next().unwrap(), paths)
    };
    assert_eq!(paths.len(), 5);
    let settings = MergeSettings { memory_bytes: 1, ..SETTINGS };
    assert_eq!(execute(&table, &partition, &paths, settings, &Steps::default()).await.unwrap(), 2);
    assert_eq!(world.compactor_files().await, 10 - 2 + 1);
    assert_eq!(all_rows(&world).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn dying_in_a_merge_changes_nothing() {
    for step in [Step::MergeWritten, Step::MergeCommitted] {
        let world = World::local();
        landed_in_pieces(&world, 5).await;
        let before = all_rows(&world).await;
        let dying = world.compactor_dying(Steps::new(move |at| at == step)).await.unwrap();
        assert!(is_stopped(dying.land_available().await));
        assert_eq!(all_rows(&world).await, before, "{step:?}");
        world.land().await;
        assert_eq!(all_rows(&world).await, before, "{step:?}");
        assert_eq!(world.compactor_files().await, 2);
    }
}

/// Two processes plan the same merge; the second finds its inputs gone, removes what it wrote and leaves the table alone.
#[tokio::test(flavor = "multi_thread")]
async fn files_merged_by_another_are_not_merged_again() {
    let world = World::local();
    landed_in_pieces(&world, 5).await;
    let before = all_rows(&world).await;
    let (one, two) = (world.compactor().await, world.compactor().await);
    one.land_available().await.unwrap();
    let live = world.compactor_files().await;
    // Its view of the table is from before the merge.
    two.work.lock().await.upkeep.round().await.unwrap();
    assert_eq!(world.compactor_files().await, live);
    assert_eq!(all_rows(&world).await, before);
    let on_disk = walk(&world.folder().join("events")).len();
    assert_eq!(on_disk, 10 + 2, "inputs wait for vacuum, the second merge left nothing behind");
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(walk(&path));
        } else if path.extension().is_some_and(|extension| extension == "parquet")
            && !path.to_str().unwrap().contains("_delta_log")
        {
            found.push(path);
        }
    }
    found
}
