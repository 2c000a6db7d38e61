//! A backlog several times as large as the memory budget is landed and merged, and the heap stays within the budget.
//!
//! In a program of its own, because it counts every allocation of the process.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, UInt8Array, UInt32Array,
    new_null_array,
};
use arrow::datatypes::SchemaRef;
use compactor::{Compactor, Config, Steps, Storage, StorageConfig};
use eventlog::memory::MemoryLog;
use eventlog::{AppendRecord, LogWriter, frame};
use events::{EventKind, EventsBatch, LogBatch, Topic, TopicPartition, schema};
use runtime::{ByteSize, Runtime};

#[global_allocator]
static HEAP: counting::Heap = counting::Heap;

/// Counts what is allocated and not yet freed.
mod counting {
    use std::alloc::{GlobalAlloc, Layout, System};
    use std::sync::atomic::{AtomicUsize, Ordering};

    pub struct Heap;

    static HELD: AtomicUsize = AtomicUsize::new(0);
    static PEAK: AtomicUsize = AtomicUsize::new(0);

    // SAFETY: every call is handed on to the system's allocator unchanged; beside it only counters are touched.
    unsafe impl GlobalAlloc for Heap {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
            PEAK.fetch_max(held, Ordering::Relaxed);
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
            HELD.fetch_sub(layout.size(), Ordering::Relaxed);
            unsafe { System.dealloc(pointer, layout) }
        }
    }

    pub fn held() -> usize {
        HELD.load(Ordering::Relaxed)
    }

    /// The most that was held since this was last called.
    pub fn take_peak() -> usize {
        PEAK.swap(held(), Ordering::Relaxed)
    }
}

const PAYLOADS: usize = 16;
const EVENTS: usize = 100;

fn columns(schema: &SchemaRef, rows: usize, named: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let column = |name: &str| named.iter().find(|(found, _)| *found == name).map(|(_, column)| Arc::clone(column));
    let columns = (schema.fields().iter())
        .map(|field| column(field.name()).unwrap_or_else(|| new_null_array(field.data_type(), rows)))
        .collect();
    RecordBatch::try_new(Arc::clone(schema), columns).expect("columns fit the schema")
}

fn times(rows: usize, time: i64) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter_values((0..rows as i64).map(|row| time + row)).with_timezone("UTC"))
}

fn texts(rows: usize, text: impl Fn(usize) -> String) -> ArrayRef {
    Arc::new(StringArray::from_iter_values((0..rows).map(text)))
}

/// Payloads of evaluations, each of a context that no other has.
fn micro_batch(number: usize, time: i64) -> LogBatch {
    let rows = PAYLOADS * EVENTS;
    let payloads = columns(
        &schema::payloads_v1(),
        PAYLOADS,
        vec![
            ("project", texts(PAYLOADS, |_| "default".into())),
            ("environment", texts(PAYLOADS, |row| format!("env-{}", row % 3))),
            ("received_at", times(PAYLOADS, time)),
            ("payload_id", texts(PAYLOADS, |row| format!("{number:08x}-0000-4000-8000-{row:012x}"))),
            ("source", texts(PAYLOADS, |_| "server".into())),
            ("rows", Arc::new(UInt32Array::from(vec![EVENTS as u32; PAYLOADS]))),
        ],
    );
    let key = |row: usize| format!("user-{number}-{row}");
    let attributes = |row: usize| {
        let mail = format!("{:x}@example.com", (number * rows + row).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        format!(r#"{{"kind":"user","key":"{}","email":"{mail}","plan":"{}"}}"#, key(row), "gold ".repeat(60))
    };
    let contexts = columns(
        &schema::contexts_v1(),
        rows,
        vec![
            ("context_kind", texts(rows, |_| "user".into())),
            ("context_key", texts(rows, key)),
            ("context", texts(rows, attributes)),
        ],
    );
    let events = columns(
        &schema::events_v1(),
        rows,
        vec![
            ("kind", Arc::new(UInt8Array::from(vec![EventKind::Feature as u8; rows]))),
            ("payload_index", Arc::new(Int32Array::from_iter_values((0..rows as i32).map(|row| row % EVENTS as i32)))),
            ("created_at", times(rows, time)),
            ("context_row", Arc::new(UInt32Array::from_iter_values(0..rows as u32))),
            ("flag_key", texts(rows, |row| format!("flag-{}", row % 40))),
            ("variation", Arc::new(Int64Array::from_iter_values((0..rows as i64).map(|row| row % 4)))),
            ("value", texts(rows, |row| (row % 4).to_string())),
        ],
    );
    LogBatch::Events(EventsBatch::new(payloads, contexts, events).expect("a record's batches fit together"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn backlog_is_landed_and_merged_within_the_budget() {
    let budget = ByteSize::mib(64);
    let runtime = Runtime::system();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let url = folder.path().to_str().expect("a path in UTF-8").to_owned();
    let storage = Storage::open(&StorageConfig { url, ..Default::default() }).expect("a local folder opens");
    let log = MemoryLog::new(runtime.clock.clone(), [1, 1, 1], "one");
    let (mut rows, mut decoded, frames) = (0, 0, 300);
    for number in 0..frames {
        let batch = micro_batch(number, runtime.clock.now().0);
        rows += batch.rows() as u64;
        if let LogBatch::Events(batch) = &batch {
            decoded += batch.contexts().get_array_memory_size() + batch.events().get_array_memory_size();
        }
        let topic_partition = TopicPartition::new(Topic::Events, 0);
        let frame = frame::encode(&batch).expect("a batch encodes");
        log.append(vec![AppendRecord::new(topic_partition, frame)]).await.expect("memory takes it");
    }
    assert!(decoded as u64 > 3 * budget.bytes(), "the backlog has only {decoded} bytes");

    let config = Config { memory_budget: budget, merge_files_min: 3, ..Config::default() };
    let before = counting::held();
    counting::take_peak();
    let compactor = Compactor::open_on(storage, &config, Arc::new(log), runtime, Steps::default()).await;
    let compactor = compactor.expect("the tables open");
    compactor.land_available().await.expect("everything lands");
    let held = counting::take_peak() - before;
    let status = compactor.status();
    assert_eq!(status.lag_records, 0);
    eprintln!("{rows} rows, {} MiB decoded: {} MiB held at most, {} files", decoded >> 20, held >> 20, status.files);
    assert!(status.files < 8, "nothing was merged: {} files", status.files);
    assert!(held as u64 <= budget.bytes(), "{} MiB were held, the budget is {budget}", held >> 20);
}
