//! The spill in real files: its bound, a full disk, torn files, and that it gives its room back.

use runtime::{ByteSize, Telemetry};
use tempfile::TempDir;

use super::*;
use crate::embedded::tests::{Fault, FaultyDisk, Op};
use crate::embedded::{EmbeddedLog, Usage};

const NO_ROOM: i32 = 28;

fn log_config() -> crate::Config {
    crate::Config {
        events_partitions: 2,
        contexts_partitions: 1,
        dead_letters_partitions: 1,
        ..crate::Config::default()
    }
}

struct Files {
    dir: TempDir,
    disk: FaultyDisk,
    log: Arc<FaultyLog>,
}

type OnDisk = SpillLog<FaultyLog, LocalStore>;

impl Files {
    fn new() -> Self {
        let dir = TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap();
        let clock = Clock::system();
        let memory = MemoryLog::new(clock.clone(), [2, 1, 1], "log");
        Self { dir, disk: FaultyDisk::new(), log: Arc::new(FaultyLog::new(memory, &clock)) }
    }

    async fn start(&self, bytes_max: u64) -> OnDisk {
        let config = LocalStore::config(ByteSize(bytes_max), &log_config());
        let spool: Arc<EmbeddedLog> = self.disk.open_for(Usage::Spool, self.dir.path(), &config);
        let store = Arc::new(LocalStore::on(spool, &log_config()).unwrap());
        let settings = Settings { doubt_rest: Duration::from_millis(200), ..settings() };
        let runtime = Runtime { telemetry: Telemetry::new(), ..Runtime::system() };
        SpillLog::open(self.log.clone(), store, settings, &runtime).await.unwrap()
    }
}

/// Ends it between two of its steps, and waits until nothing has the files open any more.
async fn kill(process: OnDisk) {
    let store = Arc::downgrade(process.store());
    drop(process);
    until(&Clock::system(), "free files", || store.strong_count() == 0).await;
}

async fn append(process: &OnDisk, number: u32) -> Result<Vec<Offset>> {
    process.append(vec![record(EVENTS, number)]).await
}

async fn until_drained(process: &OnDisk) {
    until(&Clock::system(), "an empty spill", || {
        let status = process.status();
        !status.is_spilling && status.records == 0
    })
    .await;
}

#[tokio::test]
async fn spilled_records_survive_and_their_room_is_given_back() {
    let files = Files::new();
    let process = files.start(1 << 20).await;
    files.log.set_away(true);
    for number in 0..100 {
        append(&process, number).await.unwrap();
    }
    kill(process).await;
    let process = files.start(1 << 20).await;
    assert_eq!(process.status().records, 100);
    let full = process.status().bytes;
    files.log.set_away(false);
    until_drained(&process).await;
    assert_eq!(files.log.numbers(), (0..100).collect::<Vec<_>>());
    until(&Clock::system(), "room", || process.status().bytes < full / 4).await;
    kill(process).await;
    assert!(!files.start(1 << 20).await.status().is_spilling);
}

#[tokio::test]
async fn bound_is_reached_told_and_left_again() {
    let files = Files::new();
    let process = files.start(8 << 10).await;
    files.log.set_away(true);
    let mut stored = Vec::new();
    let error = loop {
        match append(&process, stored.len() as u32).await {
            Ok(_) => stored.push(stored.len() as u32),
            Err(error) => break error,
        }
        assert!(stored.len() < 1_000);
    };
    assert!(matches!(error, Error::SpillFull { max_bytes: 8192, .. }), "{error}");
    assert!(process.status().bytes <= 8 << 10);
    files.log.set_away(false);
    until_drained(&process).await;
    assert_eq!(files.log.numbers(), stored);
}

#[tokio::test]
async fn full_disk_is_an_error_and_does_not_hinder_the_drain() {
    let files = Files::new();
    let process = files.start(1 << 20).await;
    files.log.set_away(true);
    append(&process, 1).await.unwrap();
    files.disk.plan(|op| matches!(op, Op::Create | Op::Write).then_some(Fault::Half(NO_ROOM)));
    let error = append(&process, 2).await.unwrap_err();
    assert!(matches!(&error, Error::Io { .. }), "{error}");
    assert!(matches!(process.health(), WriterHealth::Unavailable(_)));
    // What has its place on the disk can be written still: the notes.
    files.disk.plan(|op| matches!(op, Op::Create).then_some(Fault::Error(NO_ROOM)));
    files.log.set_away(false);
    until_drained(&process).await;
    assert_eq!(files.log.numbers(), [1]);
}

#[tokio::test]
async fn torn_tail_was_acknowledged_to_nobody() {
    let files = Files::new();
    let process = files.start(1 << 20).await;
    files.log.set_away(true);
    append(&process, 1).await.unwrap();
    kill(process).await;
    let segment = std::fs::read_dir(files.dir.path()).unwrap().map(|entry| entry.unwrap().path());
    let segment = segment.filter(|path| path.extension().is_some_and(|ending| ending == "seg")).max().unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes.extend([7; 33]);
    std::fs::write(&segment, bytes).unwrap();
    let process = files.start(1 << 20).await;
    append(&process, 2).await.unwrap();
    files.log.set_away(false);
    until_drained(&process).await;
    assert_eq!(files.log.numbers(), [1, 2]);
}
