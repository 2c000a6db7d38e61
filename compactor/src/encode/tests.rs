//! What is encoded reads back, for every type of column, levels and pages of every shape.

use arrow::array::{Int64Builder, ListBuilder, MapBuilder, MapFieldNames, RecordBatch, StringBuilder};
use parquet::basic::Encoding;
use proptest::prelude::*;
use runtime::Entropy;

use super::*;
use crate::fixtures::read_chunks;
use crate::write::properties;

/// Rows of `events` with columns of every type; `seed` decides values, `distinct` how many of each there are.
fn random_rows(seed: u64, rows: usize, distinct: u64, nulls: u64) -> RecordBatch {
    let entropy = Entropy::seeded(seed);
    let below = |end: u64| entropy.uuid().as_u128() as u64 % end.max(1);
    let null = |nullable: bool| nullable && below(10) < nulls;
    let word = || "é".repeat(below(40) as usize % 7) + &below(distinct).to_string();
    let columns = EVENTS.file_columns().map(|column| -> ArrayRef {
        let number = || (!null(column.nullable)).then(|| below(distinct) as i64 - 3);
        match column.column_type {
            ColumnType::Text => {
                Arc::new((0..rows).map(|_| (!null(column.nullable)).then(word)).collect::<StringArray>())
            }
            ColumnType::Int => Arc::new((0..rows).map(|_| number().map(|n| n as i32)).collect::<Int32Array>()),
            ColumnType::Long => Arc::new((0..rows).map(|_| number()).collect::<Int64Array>()),
            ColumnType::Double => {
                Arc::new((0..rows).map(|_| number().map(|n| n as f64 / 3.0)).collect::<Float64Array>())
            }
            ColumnType::Boolean => Arc::new((0..rows).map(|_| number().map(|n| n % 2 == 0)).collect::<BooleanArray>()),
            ColumnType::Timestamp => {
                let times = (0..rows).map(|_| number()).collect::<TimestampMicrosecondArray>();
                Arc::new(times.with_timezone("UTC"))
            }
            ColumnType::TextMap => {
                let names = MapFieldNames { entry: "key_value".into(), key: "key".into(), value: "value".into() };
                let mut maps = MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new());
                for _ in 0..rows {
                    let is_null = null(true);
                    for _ in 0..if is_null { 0 } else { below(4) } {
                        maps.keys().append_value(word());
                        maps.values().append_option((!null(true)).then(word));
                    }
                    maps.append(!is_null).unwrap();
                }
                Arc::new(maps.finish())
            }
            ColumnType::TextList => {
                let field = arrow::datatypes::Field::new("element", DataType::Utf8, true);
                let mut lists = ListBuilder::new(StringBuilder::new()).with_field(field);
                for _ in 0..rows {
                    let is_null = null(true);
                    for _ in 0..if is_null { 0 } else { below(4) } {
                        lists.values().append_option((!null(true)).then(word));
                    }
                    lists.append(!is_null);
                }
                Arc::new(lists.finish())
            }
            ColumnType::Date | ColumnType::Binary | ColumnType::TimeMap => {
                unreachable!("no such column in this table's files")
            }
        }
    });
    RecordBatch::try_new(EVENTS.file_schema(), columns.collect()).unwrap()
}

/// The chosen rows, encoded in portions.
fn encode(batches: &[RecordBatch], picks: &[(usize, usize)], portion: usize) -> Vec<Chunk> {
    let (schema, mut encoder) = (parquet_schema(&EVENTS), ChunkEncoder::new(Some(1)).unwrap());
    let properties = Arc::new(properties(&EVENTS, Some(1)));
    let mut target = Target { encoder: &mut encoder, schema: &schema, properties: &properties, chunks: Vec::new() };
    for (number, column) in EVENTS.file_columns().enumerate() {
        let mut values = ColumnRows::new(column);
        for picks in picks.chunks(portion.max(1)) {
            values.extend(&batches.iter().map(|batch| batch.column(number)).collect::<Vec<_>>(), picks);
        }
        values.encode(column, &mut target, picks.len()).unwrap();
    }
    target.chunks
}

fn expect_same(found: &RecordBatch, expected: &RecordBatch) {
    for (number, field) in expected.schema().fields().iter().enumerate() {
        let (found, expected) = (found.column(number), expected.column(number));
        assert_eq!(found.to_data(), expected.to_data(), "{}", field.name());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn rows_read_back(seed: u64, rows in 1_usize..400, distinct in 1_u64..500, nulls in 0_u64..=10, portion in 1_usize..200) {
        let batches = [random_rows(seed, rows, distinct, nulls), random_rows(seed ^ 1, rows, distinct, 10 - nulls)];
        let picks: Vec<_> = (0..rows * 2).map(|pick| ((pick * 7 + 3) % 2, (pick * 31) % rows)).collect();
        let expected = arrow::compute::interleave_record_batch(&batches.iter().collect::<Vec<_>>(), &picks).unwrap();
        expect_same(&read_chunks(&EVENTS, encode(&batches, &picks, portion)), &expected);
    }
}

/// More rows than a page holds, both as codes and as plain values.
#[test]
fn several_pages_read_back() {
    for distinct in [3, u64::MAX] {
        let batch = random_rows(5, 40_000, distinct, 3);
        let picks: Vec<_> = (0..batch.num_rows()).map(|row| (0, row)).collect();
        expect_same(&read_chunks(&EVENTS, encode(std::slice::from_ref(&batch), &picks, 2_048)), &batch);
    }
}

#[test]
fn null_in_a_required_column_is_an_error() {
    let column = EVENTS.file_columns().find(|column| column.name == "log_offset").unwrap();
    let mut numbers = Int64Builder::new();
    numbers.append_null();
    let array: ArrayRef = Arc::new(numbers.finish());
    let (schema, mut encoder) = (parquet_schema(&EVENTS), ChunkEncoder::new(Some(1)).unwrap());
    let properties = Arc::new(properties(&EVENTS, Some(1)));
    let mut target = Target { encoder: &mut encoder, schema: &schema, properties: &properties, chunks: Vec::new() };
    let mut rows = ColumnRows::new(column);
    rows.extend(&[&array], &[(0, 0)]);
    // The first leaf is `project`, which must not be null either.
    assert!(rows.encode(column, &mut target, 1).unwrap_err().to_string().contains("log_offset"));
}

/// Not every reader knows dictionaries of booleans, or empty ones.
#[test]
fn booleans_and_nulls_have_no_dictionary() {
    let batch = random_rows(9, 200, 2, 10);
    let nullable = EVENTS.file_columns().map(|column| column.nullable);
    let leaf_columns = EVENTS.file_columns().zip(nullable).flat_map(|(column, nullable)| {
        let leaves = if column.column_type == ColumnType::TextMap { 2 } else { 1 };
        std::iter::repeat_n((column, nullable), leaves)
    });
    let picks: Vec<_> = (0..batch.num_rows()).map(|row| (0, row)).collect();
    let chunks = encode(std::slice::from_ref(&batch), &picks, 64);
    let mut without = 0;
    for (chunk, (column, nullable)) in chunks.iter().zip(leaf_columns) {
        let metadata = &chunk.close.metadata;
        if nullable || column.column_type == ColumnType::Boolean {
            assert_eq!(metadata.dictionary_page_offset(), None, "{}", column.name);
            assert!(metadata.encodings().all(|encoding| encoding != Encoding::RLE_DICTIONARY), "{}", column.name);
            without += 1;
        }
    }
    assert!(without > 40);
}
