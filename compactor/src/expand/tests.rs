//! Rows come out grouped by day and kind, in the table's order, and repeated payloads do not come out.

use arrow::datatypes::{DataType, Int32Type, Int64Type};

use super::*;
use crate::fixtures::{
    EVENTS_0, LETTERS_0, NOON, Payload, custom, events_batch, feature, letters_batch, payload, rows_of, summary,
};

fn frame(offset: i64, batch: LogBatch, dropped: &[bool]) -> FrameRows {
    let source = if batch.topic() == Topic::Events { EVENTS_0 } else { LETTERS_0 };
    FrameRows::new(source, Offset(offset), batch, dropped.to_vec()).unwrap()
}

fn texts(batch: &RecordBatch, name: &str) -> Vec<Option<String>> {
    let column = arrow::compute::cast(batch.column_by_name(name).unwrap(), &DataType::Utf8).unwrap();
    column.as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect()
}

#[tokio::test]
async fn rows_are_sorted_by_environment_key_and_time() {
    let mut late = feature("b", "ann");
    late.created_at = Some(NOON.0 + 1);
    let mut timeless = feature("b", "bob");
    timeless.created_at = None;
    let other = Payload { environment: "abc", ..payload("2", vec![feature("z", "ann")]) };
    let first = frame(
        4,
        events_batch(&[payload("1", vec![late, feature("a", "ann"), custom("click", "ann")]), other]),
        &[false, false],
    );
    let second = frame(5, events_batch(&[payload("3", vec![timeless])]), &[false]);
    let frames = [first, second];
    let expansion = expand(Topic::Events, &frames);

    let kinds: Vec<_> = expansion.groups.iter().map(|group| group.partition["kind"].clone().unwrap()).collect();
    assert_eq!(kinds, ["feature", "custom"]);
    assert_eq!(expansion.groups[0].partition["event_date"].as_deref(), Some("2026-11-22"));
    let batch = rows_of(&expansion, &expansion.groups[0]).await;
    assert_eq!(texts(&batch, "environment"), ["abc", "dev", "dev", "dev"].map(|text| Some(text.to_owned())));
    assert_eq!(texts(&batch, "flag_key"), ["z", "a", "b", "b"].map(|text| Some(text.to_owned())));
    assert_eq!(texts(&batch, "context_key"), ["ann", "ann", "bob", "ann"].map(|text| Some(text.to_owned())));
    assert_eq!(batch.column_by_name("log_offset").unwrap().as_primitive::<Int64Type>().values(), &[4, 4, 5, 4]);
    assert_eq!(batch.column_by_name("log_row").unwrap().as_primitive::<Int32Type>().values(), &[3, 1, 0, 0]);
    assert_eq!(texts(&batch, "payload_id"), ["2", "1", "3", "1"].map(|text| Some(text.to_owned())));
}

#[tokio::test]
async fn dropped_payload_leaves_no_row() {
    let batch = events_batch(&[
        payload("1", vec![feature("a", "ann"), feature("b", "ann")]),
        payload("2", vec![feature("c", "bob")]),
    ]);
    let frames = [frame(0, batch, &[true, false])];
    let expansion = expand(Topic::Events, &frames);
    assert_eq!(expansion.groups.len(), 1);
    assert_eq!(texts(&rows_of(&expansion, &expansion.groups[0]).await, "flag_key"), [Some("c".to_owned())]);
}

#[tokio::test]
async fn columns_fit_the_schema_of_the_files() {
    let batch =
        events_batch(&[payload("1", vec![feature("a", "ann"), summary("s", 3)]), payload("", vec![summary("t", 4)])]);
    let frames = [frame(0, batch, &[false, false])];
    let expansion = expand(Topic::Events, &frames);
    for group in &expansion.groups {
        let batch = rows_of(&expansion, group).await;
        for (field, expected) in batch.schema().fields().iter().zip(EVENTS.file_schema().fields()) {
            let data_type = match field.data_type() {
                DataType::Dictionary(_, values) => values.as_ref().clone(),
                other => other.clone(),
            };
            assert_eq!((field.name(), &data_type), (expected.name(), expected.data_type()));
        }
    }
}

#[tokio::test]
async fn frames_without_contexts_or_rows_expand() {
    let without_contexts = frame(0, events_batch(&[payload("1", vec![summary("s", 3)])]), &[false]);
    let empty = frame(1, events_batch(&[payload("2", vec![])]), &[false]);
    let frames = [without_contexts, empty];
    let expansion = expand(Topic::Events, &frames);
    let batch = rows_of(&expansion, &expansion.groups[0]).await;
    assert_eq!(texts(&batch, "context_key"), [None]);
    assert!(expand(Topic::Events, &[]).groups.is_empty());
}

#[test]
fn receipt_decides_the_day() {
    let midnight = runtime::UnixMicros(NOON.0 + 14 * 3_600_000_000);
    let before =
        Payload { received_at: runtime::UnixMicros(midnight.0 - 1), ..payload("1", vec![feature("a", "ann")]) };
    let after = Payload { received_at: midnight, ..payload("2", vec![feature("a", "ann")]) };
    let frames = [frame(0, events_batch(&[after, before]), &[false, false])];
    let expansion = expand(Topic::Events, &frames);
    let days: Vec<_> = expansion.groups.iter().map(|group| group.partition["event_date"].clone().unwrap()).collect();
    assert_eq!(days, ["2026-11-22", "2026-11-23"]);
    assert_eq!(expansion.newest_received_at, Some(midnight.0));
}

#[tokio::test]
async fn letters_keep_their_payload() {
    let frames = [frame(7, letters_batch(&[payload("x", vec![])]), &[false])];
    let expansion = expand(Topic::DeadLetters, &frames);
    let batch = rows_of(&expansion, &expansion.groups[0]).await;
    assert_eq!(expansion.groups[0].partition.len(), 1);
    assert_eq!(texts(&batch, "path"), [Some("/bulk".to_owned())]);
    assert_eq!(batch.column_by_name("redriven_at").unwrap().null_count(), 1);
    assert_eq!(batch.schema().fields().len(), DEAD_LETTERS.file_schema().fields().len());
}
