//! Columns that skip rows and are cut back, as a reader of the record finds them.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::Int64Type;
use eventlog::frame::{self, RecordWriter};
use events::{LogBatch, Topic};

use super::*;
use crate::rows::event::{ContextColumns, EventColumns, OpenPayloads};

/// The columns of `rows` events, by name. What the schema requires is filled in.
fn written(mut events: EventColumns, rows: usize) -> impl Fn(&str) -> ArrayRef {
    for row in 0..rows {
        events.kind.put(row, 0);
        events.payload_index.put(row, 0);
    }
    events.rows = rows;
    let mut payloads = OpenPayloads::default();
    payloads.push(&crate::payload::tests::head(&[]), rows as u32, false);
    let mut record = RecordWriter::new(Topic::Events);
    payloads.write_index(&mut record);
    record.kinds(events.kind.values());
    payloads.write(&mut record);
    ContextColumns::default().write(&mut record);
    events.write(&mut record);
    let LogBatch::Events(batch) = frame::decode(&record.finish().unwrap()).unwrap() else { panic!() };
    move |name| batch.events().column_by_name(name).unwrap().clone()
}

#[test]
fn skipped_rows_are_null_and_cut_rows_are_gone() {
    let mut events = EventColumns::default();
    let text = &mut events.flag_key;
    text.put(2, b"two");
    text.put(3, b"three");
    text.truncate(3);
    text.put(4, b"four");
    let column = written(events, 6);
    let found: Vec<_> = column("flag_key").as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect();
    assert_eq!(found, [None, None, Some("two".into()), None, Some("four".into()), None]);
}

#[test]
fn cleared_columns_are_as_new() {
    let mut text = Text::default();
    text.put(2, b"two");
    text.clear();
    text.put(1, b"one");
    let mut events = EventColumns { flag_key: text, ..EventColumns::default() };
    events.in_experiment.put(0, true);
    events.in_experiment.clear();
    let column = written(events, 2);
    assert_eq!(column("flag_key").as_string::<i32>().iter().collect::<Vec<_>>(), [None, Some("one")]);
    assert_eq!(column("in_experiment").null_count(), 2);
}

#[test]
fn memory_of_a_large_batch_is_given_back() {
    let mut text = Text::default();
    text.put(0, &[b'x'; 1 << 20]);
    text.clear();
    assert_eq!(text.bytes.capacity(), 0);
    text.put(0, b"small");
    text.clear();
    assert!(text.bytes.capacity() > 0);
}

#[test]
fn numbers_and_flags_are_cut_back() {
    let mut events = EventColumns::default();
    let (number, flag) = (&mut events.variation, &mut events.unknown);
    for row in 0..20 {
        number.put(row, row as i64);
        flag.put(row, true);
    }
    number.truncate(9);
    flag.truncate(9);
    flag.put(10, false);
    let column = written(events, 11);
    assert_eq!(column("variation").as_primitive::<Int64Type>().iter().flatten().sum::<i64>(), 36);
    let flags = column("unknown");
    assert_eq!(flags.as_boolean().iter().filter(|flag| *flag == Some(true)).count(), 9);
    assert_eq!(flags.as_boolean().iter().filter(Option::is_none).count(), 1);
}

#[test]
fn lists_are_cut_back() {
    let mut events = EventColumns::default();
    let list = &mut events.context_kinds;
    for row in 0..3 {
        list.put_with(row, |items, next| {
            items.put(next, b"a");
            items.put(next + 1, b"b");
            2
        });
    }
    list.truncate(1);
    list.put_with(2, |_, _| 0);
    let column = written(events, 3);
    let lengths: Vec<_> =
        column("context_kinds").as_list::<i32>().iter().map(|item| item.map(|item| item.len())).collect();
    assert_eq!(lengths, [Some(2), None, Some(0)]);
}

#[test]
fn maps_are_cut_back() {
    let mut map = TextMap::default();
    map.put(0, [(&b"k"[..], &b"v"[..])].into_iter());
    map.put(1, [(&b"x"[..], &b"y"[..])].into_iter());
    map.truncate(1);
    assert_eq!(map.keys_of(0).collect::<Vec<_>>(), [b"k"]);
    assert_eq!((map.keys.offsets.len(), map.lists.offsets.len()), (2, 2));
}
