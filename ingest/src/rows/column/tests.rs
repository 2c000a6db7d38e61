//! Columns that skip rows and are cut back.

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;

use super::*;

#[test]
fn skipped_rows_are_null_and_cut_rows_are_gone() {
    let mut text = Text::default();
    text.put(2, b"two");
    text.put(3, b"three");
    text.truncate(3);
    text.put(4, b"four");
    let array = text.seal(6, &DataType::Utf8);
    let found: Vec<_> = array.as_string::<i32>().iter().collect();
    assert_eq!(found, [None, None, Some("two"), None, Some("four"), None]);
    assert_eq!(text.seal(1, &DataType::Utf8).null_count(), 1, "sealing empties the column");
}

#[test]
fn numbers_and_flags_are_cut_back() {
    let (mut number, mut flag) = (Number::<Int64Type>::default(), Flag::default());
    for row in 0..20 {
        number.put(row, row as i64);
        flag.put(row, true);
    }
    number.truncate(9);
    flag.truncate(9);
    flag.put(10, false);
    let numbers = number.seal(11, &DataType::Int64);
    assert_eq!(numbers.as_primitive::<Int64Type>().iter().flatten().sum::<i64>(), 36);
    let flags = flag.seal(11, &DataType::Boolean);
    assert_eq!(flags.as_boolean().iter().filter(|flag| *flag == Some(true)).count(), 9);
    assert_eq!(flags.as_boolean().iter().filter(Option::is_none).count(), 1);
}

#[test]
fn lists_and_maps_are_cut_back() {
    let mut list = TextList::default();
    for row in 0..3 {
        list.put_with(row, |items, next| {
            items.put(next, b"a");
            items.put(next + 1, b"b");
            2
        });
    }
    list.truncate(1);
    list.put_with(2, |_, _| 0);
    let array = list.seal(3, &events::schema::text_list());
    let lengths: Vec<_> = array.as_list::<i32>().iter().map(|item| item.map(|item| item.len())).collect();
    assert_eq!(lengths, [Some(2), None, Some(0)]);

    let mut map = TextMap::default();
    map.put(0, [(&b"k"[..], &b"v"[..])].into_iter());
    map.put(1, [(&b"x"[..], &b"y"[..])].into_iter());
    map.truncate(1);
    let array = map.seal(2, &events::schema::context_keys());
    assert_eq!(array.as_map().keys().len(), 1);
    assert_eq!(array.null_count(), 1);
}
