//! The wire format: what goes in comes out, damage is noticed, old versions stay readable.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Float64Array, Int32Array, Int64Array, ListBuilder, MapBuilder, StringArray,
    StringBuilder, TimestampMicrosecondArray, UInt8Array, UInt32Array, new_null_array,
};
use events::{Environment, EventKind};
use proptest::prelude::*;

use super::*;

fn times(values: Vec<Option<i64>>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from(values).with_timezone("UTC"))
}

/// A batch of `schema` with the given columns, the others null.
fn batch(schema: SchemaRef, rows: usize, columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let arrays = schema.fields().iter().map(|field| {
        let given = columns.iter().find(|(name, _)| name == field.name());
        given.map_or_else(|| new_null_array(field.data_type(), rows), |(_, array)| array.clone())
    });
    RecordBatch::try_new(schema.clone(), arrays.collect()).unwrap()
}

fn payloads(rows: &[u32], ids: &[Option<&str>]) -> RecordBatch {
    let count = rows.len();
    batch(
        schema::payloads_v1(),
        count,
        vec![
            ("project", Arc::new(StringArray::from(vec!["shop"; count]))),
            ("environment", Arc::new(StringArray::from(vec!["prod"; count]))),
            ("received_at", times((0..count as i64).map(Some).collect())),
            ("payload_id", Arc::new(StringArray::from(ids.to_vec()))),
            ("source", Arc::new(StringArray::from(vec!["server"; count]))),
            ("rows", Arc::new(UInt32Array::from(rows.to_vec()))),
        ],
    )
}

fn contexts() -> RecordBatch {
    let mut keys = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
    keys.keys().append_value("user");
    keys.values().append_value("u1");
    keys.append(true).unwrap();
    let keys = keys.finish();
    let keys = arrow::compute::cast(&keys, &schema::context_keys()).unwrap();
    batch(
        schema::contexts_v1(),
        1,
        vec![
            ("context_kind", Arc::new(StringArray::from(vec!["user"]))),
            ("context_key", Arc::new(StringArray::from(vec!["u1"]))),
            ("context_keys", keys),
            ("anonymous", Arc::new(BooleanArray::from(vec![false]))),
            ("context", Arc::new(StringArray::from(vec![r#"{"kind":"user","key":"u1"}"#]))),
        ],
    )
}

fn events(flags: &[Option<&str>]) -> RecordBatch {
    let rows = flags.len();
    let mut kinds = ListBuilder::new(StringBuilder::new());
    for row in 0..rows {
        kinds.values().append_value("user");
        kinds.append(row % 2 == 0);
    }
    batch(
        schema::events_v1(),
        rows,
        vec![
            ("kind", Arc::new(UInt8Array::from(vec![EventKind::Feature as u8; rows]))),
            ("payload_index", Arc::new(Int32Array::from_iter_values(0..rows as i32))),
            ("created_at", times((0..rows).map(|row| (row % 3 > 0).then_some(row as i64)).collect())),
            ("context_row", Arc::new(UInt32Array::from(vec![Some(0); rows]))),
            ("flag_key", Arc::new(StringArray::from(flags.to_vec()))),
            ("variation", Arc::new(Int64Array::from_iter((0..rows).map(|row| (row % 2 > 0).then_some(row as i64))))),
            ("metric_value", Arc::new(Float64Array::from(vec![0.5; rows]))),
            ("context_kinds", Arc::new(kinds.finish())),
        ],
    )
}

fn sample() -> LogBatch {
    let flags = [Some("a"), None, Some("wörld")];
    LogBatch::Events(EventsBatch::new(payloads(&[2, 1], &[Some("p-1"), None]), contexts(), events(&flags)).unwrap())
}

fn letters() -> LogBatch {
    let letters = batch(
        schema::dead_letters_v1(),
        1,
        vec![
            ("id", Arc::new(StringArray::from(vec!["d1"]))),
            ("reason", Arc::new(StringArray::from(vec!["invalid_json"]))),
            ("message", Arc::new(StringArray::from(vec!["unexpected end at byte 4"]))),
            ("body", Arc::new(BinaryArray::from(vec![&b"\x00\xff["[..]]))),
        ],
    );
    LogBatch::DeadLetters(DeadLettersBatch::new(payloads(&[1], &[None]), letters).unwrap())
}

fn sightings() -> LogBatch {
    let text = |value: &'static str| Arc::new(StringArray::from(vec![value])) as ArrayRef;
    let rows = batch(
        schema::sightings_v1(),
        1,
        vec![
            ("project", text("shop")),
            ("environment", text("prod")),
            ("kind", text("user")),
            ("key", text("u1")),
            ("anonymous", Arc::new(BooleanArray::from(vec![false]))),
            ("context", text(r#"{"kind":"user","key":"u1","plan":"gold"}"#)),
            ("seen_at", times(vec![Some(5)])),
            ("received_at", times(vec![Some(7)])),
        ],
    );
    LogBatch::Sightings(SightingsBatch::new(rows).unwrap())
}

/// A sighting with the columns of its second version, and a wish to forget.
fn later_sightings() -> LogBatch {
    let text = |values: [Option<&'static str>; 2]| Arc::new(StringArray::from(values.to_vec())) as ArrayRef;
    let rows = batch(
        schema::sightings_v2(),
        2,
        vec![
            ("project", text([Some("shop"); 2])),
            ("environment", text([Some("prod"); 2])),
            ("kind", text([Some("org"); 2])),
            ("key", text([Some("lagoa"); 2])),
            ("anonymous", Arc::new(BooleanArray::from(vec![false, false]))),
            ("seen_at", times(vec![Some(5), Some(6)])),
            ("received_at", times(vec![Some(7), Some(8)])),
            ("instance_key", text([Some("org:lagoa"), Some("org:lagoa")])),
            ("anonymous_kinds", text([Some("device,user"), None])),
            ("deleted", Arc::new(BooleanArray::from(vec![None, Some(true)]))),
        ],
    );
    LogBatch::Sightings(SightingsBatch::new(rows).unwrap())
}

/// A wish to erase.
fn erasure() -> LogBatch {
    let text = |value: &'static str| Arc::new(StringArray::from(vec![value])) as ArrayRef;
    let flag = |value| Arc::new(BooleanArray::from(vec![value])) as ArrayRef;
    let rows = batch(
        schema::sightings_v3(),
        1,
        vec![
            ("project", text("shop")),
            ("environment", text("prod")),
            ("kind", text("user")),
            ("key", text("u1")),
            ("anonymous", flag(false)),
            ("seen_at", times(vec![Some(5)])),
            ("received_at", times(vec![Some(7)])),
            ("deleted", flag(true)),
            ("erased", flag(true)),
        ],
    );
    LogBatch::Sightings(SightingsBatch::new(rows).unwrap())
}

#[test]
fn every_topic_reads_back() {
    for batch in [sample(), letters(), sightings(), later_sightings(), erasure()] {
        assert_eq!(decode(&encode(&batch).unwrap()).unwrap(), batch);
    }
}

#[test]
fn index_tells_payloads_and_kinds_without_the_body() {
    let index = peek(&encode(&sample()).unwrap()).unwrap();
    assert_eq!(index.rows, 3);
    assert_eq!(index.kinds, [(EventKind::Feature as u8, 3)]);
    let hash = Environment::new("shop", "prod").hash();
    let expected = [(2, Some("p-1".into())), (1, None)];
    let expected = expected.map(|(rows, payload_id)| PayloadIndex { environment_hash: hash, rows, payload_id });
    assert_eq!(index.payloads, expected);
}

#[test]
fn payload_ids_read_back_whatever_they_look_like() {
    let uuid = "97f05140-2a4f-42bd-a4f2-fa1ce91e2bf2";
    let upper = uuid.to_uppercase();
    let long = "x".repeat(limits::PAYLOAD_ID_BYTES_MAX);
    let ids = [Some(uuid), Some(&upper), None, Some(&long), Some("{97f05140-2a4f-42bd-a4f2-fa1ce91e2}")];
    let flags = vec![Some("f"); ids.len()];
    let batch = EventsBatch::new(payloads(&[1; 5], &ids), contexts(), events(&flags)).unwrap();
    let frame = encode(&LogBatch::Events(batch.clone())).unwrap();
    assert_eq!(decode(&frame).unwrap(), LogBatch::Events(batch));
    let found = peek(&frame).unwrap().payloads.into_iter().map(|payload| payload.payload_id);
    assert_eq!(found.collect::<Vec<_>>(), ids.map(|id| id.map(Into::into)));
}

#[test]
fn numbers_at_their_bounds_read_back() {
    for values in [
        vec![Some(i64::MIN), None, Some(i64::MAX)],
        vec![Some(i64::MAX); 3],
        vec![None, Some(-1), Some(0xff)],
        vec![Some(-70_000), Some(5), None],
        vec![Some(1 << 40), Some(1 << 20), Some(0)],
    ] {
        let mut rows = events(&[Some("f"); 3]);
        let number = rows.schema().index_of("count").unwrap();
        let mut columns = rows.columns().to_vec();
        columns[number] = Arc::new(Int64Array::from(values));
        rows = RecordBatch::try_new(rows.schema(), columns).unwrap();
        let batch = LogBatch::Events(EventsBatch::new(payloads(&[3], &[None]), contexts(), rows).unwrap());
        assert_eq!(decode(&encode(&batch).unwrap()).unwrap(), batch);
    }
}

/// Slices of arrays have offsets that do not begin at 0, and bits in the middle of a byte.
#[test]
fn slices_of_batches_read_back() {
    let flags: Vec<Option<String>> = (0..40).map(|row| (row % 3 > 0).then(|| "f".repeat(row))).collect();
    let flags: Vec<Option<&str>> = flags.iter().map(Option::as_deref).collect();
    let slice = events(&flags).slice(11, 20);
    let batch = LogBatch::Events(EventsBatch::new(payloads(&[20], &[None]), contexts(), slice).unwrap());
    assert_eq!(decode(&encode(&batch).unwrap()).unwrap(), batch);
}

/// Whatever a body says whose checksum is right, reading it ends in a batch or an error.
#[test]
fn damaged_bodies_are_refused_without_panic() {
    for batch in [sample(), letters(), sightings()] {
        let mut good = encode(&batch).unwrap().to_vec();
        assert_eq!(good[7], CODEC_NONE, "small enough to be stored as it is");
        for position in HEADER_BYTES..good.len() {
            for flipped in [0x01, 0x40, 0xff] {
                good[position] ^= flipped;
                let sum = checksum(&good[..28], &good[HEADER_BYTES..], &[]);
                good[28..32].copy_from_slice(&sum.to_le_bytes());
                let _ = decode(&good.clone().into());
                good[position] ^= flipped;
            }
        }
    }
}

/// Version 1 as it was first written. If this fails the reader broke; never replace the file.
#[test]
fn golden_frames_of_version_1_stay_readable() {
    let golden = [
        (&include_bytes!("events_v1.golden")[..], sample()),
        (&include_bytes!("dead_letters_v1.golden")[..], letters()),
        (&include_bytes!("sightings_v1.golden")[..], sightings()),
    ];
    for (bytes, expected) in golden {
        assert_eq!(decode(&Bytes::from_static(bytes)).unwrap(), expected);
    }
}

/// Version 2 as it was first written. As above.
#[test]
fn golden_frames_of_version_2_stay_readable() {
    let golden = [
        (&include_bytes!("events_v2.golden")[..], sample()),
        (&include_bytes!("dead_letters_v2.golden")[..], letters()),
        (&include_bytes!("sightings_v2.golden")[..], sightings()),
    ];
    for (bytes, expected) in golden {
        assert_eq!(decode(&Bytes::from_static(bytes)).unwrap(), expected);
    }
}

/// Sightings of version 2 of their schema, in version 2 of the frame.
#[test]
fn golden_frame_of_later_sightings_stays_readable() {
    let bytes = Bytes::from_static(include_bytes!("later_sightings_v2.golden"));
    assert_eq!(decode(&bytes).unwrap(), later_sightings());
}

/// A wish to erase, of version 3 of the schema of sightings.
#[test]
fn golden_frame_of_an_erasure_stays_readable() {
    let bytes = Bytes::from_static(include_bytes!("erasure_v2.golden"));
    assert_eq!(decode(&bytes).unwrap(), erasure());
}

/// Writes the golden files where they do not exist yet.
#[test]
#[ignore = "makes golden files of a new version; run by hand when the version grows"]
fn write_golden_frames() {
    let all = [
        ("events", sample()),
        ("dead_letters", letters()),
        ("sightings", sightings()),
        ("later_sightings", later_sightings()),
        ("erasure", erasure()),
    ];
    for (name, batch) in all {
        let path = format!("{}/src/frame/{name}_v{VERSION}.golden", env!("CARGO_MANIFEST_DIR"));
        if std::fs::metadata(&path).map_or(0, |meta| meta.len()) == 0 {
            std::fs::write(path, encode(&batch).unwrap()).unwrap();
        }
    }
}

#[test]
fn newer_version_is_named() {
    let mut bytes = encode(&sample()).unwrap().to_vec();
    bytes[4] = 9;
    let error = decode(&bytes.into()).unwrap_err();
    assert!(error.to_string().contains("version 9"), "{error}");
}

#[test]
fn every_flipped_byte_is_noticed() {
    let good = encode(&sample()).unwrap();
    for position in 0..good.len() {
        let mut bytes = good.to_vec();
        bytes[position] ^= 0x40;
        assert!(decode(&bytes.into()).is_err(), "byte {position}");
    }
}

#[test]
fn every_truncation_is_noticed() {
    let good = encode(&sample()).unwrap();
    for bytes in 0..good.len() {
        assert!(decode(&good.slice(..bytes)).is_err() && peek(&good.slice(..bytes)).is_err());
    }
}

proptest! {
    #[test]
    fn flags_read_back(flags in proptest::collection::vec(proptest::option::of(".{0,40}"), 0..60)) {
        let flags: Vec<Option<&str>> = flags.iter().map(Option::as_deref).collect();
        let payloads = payloads(&[flags.len() as u32], &[Some("id")]);
        let batch = LogBatch::Events(EventsBatch::new(payloads, contexts(), events(&flags)).unwrap());
        prop_assert_eq!(decode(&encode(&batch).unwrap()).unwrap(), batch);
    }

    #[test]
    fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(decode(&bytes.into()).is_err());
    }
}
