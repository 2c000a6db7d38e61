//! Figures, not checks: `cargo test -p eventlog --release --lib measure -- --ignored --nocapture`.

use std::time::Instant;

use super::*;

async fn measure(callers: usize, frame_bytes: usize, seconds: u64) {
    let dir = TempDir::new_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let log = open(&dir);
    let started = Instant::now();
    let tasks = (0..callers).map(|number| {
        let log = log.clone();
        tokio::spawn(async move {
            let frame = Bytes::from(vec![number as u8; frame_bytes]);
            let topic_partition = ALL[number % 2];
            while started.elapsed() < Duration::from_secs(seconds) {
                log.append(vec![AppendRecord::new(topic_partition, frame.clone())]).await.unwrap();
            }
        })
    });
    futures::future::join_all(tasks).await;
    let elapsed = started.elapsed().as_secs_f64();
    let metrics = &log.shared.metrics;
    let (records, syncs) = (metrics.appended_records.get() as f64, metrics.syncs.get() as f64);
    eprintln!(
        "{callers} callers of {frame_bytes} bytes: {:.0} appends/s, {:.1} MB/s, {:.0} syncs/s, {:.1} appends per sync",
        records / elapsed,
        metrics.appended_bytes.get() as f64 / 1e6 / elapsed,
        syncs / elapsed,
        records / syncs,
    );
    let bytes = log.bytes();
    drop(log);
    let started = Instant::now();
    let log = open(&dir);
    eprintln!("  opened again with {:.0} MB in {:.3} s", bytes as f64 / 1e6, started.elapsed().as_secs_f64());
    let started = Instant::now();
    let (mut next, mut read) = (Offset(0), 0);
    loop {
        let fetched = log.fetch(EVENTS, next, 4 << 20, Duration::ZERO).await.unwrap();
        let Some(last) = fetched.last() else { break };
        next = last.offset.next();
        read += fetched.iter().map(|record| record.frame.len()).sum::<usize>();
    }
    eprintln!("  one partition read at {:.0} MB/s", read as f64 / 1e6 / started.elapsed().as_secs_f64());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures; run by hand"]
async fn measure_start() {
    let dir = TempDir::new_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let log = open(&dir);
    let frame = Bytes::from(vec![1; 64 << 10]);
    while log.bytes() < 1 << 30 {
        let calls = (0..64).map(|number| log.append(vec![AppendRecord::new(ALL[number % 4], frame.clone())]));
        futures::future::try_join_all(calls).await.unwrap();
    }
    drop(log);
    let started = Instant::now();
    let log = open(&dir);
    eprintln!("opened with {} bytes in {:.3} s", log.bytes(), started.elapsed().as_secs_f64());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures; run by hand"]
async fn measure_appends() {
    for (callers, frame_bytes) in
        [(1, 4 << 10), (8, 4 << 10), (64, 4 << 10), (1, 64 << 10), (8, 64 << 10), (8, 256 << 10)]
    {
        measure(callers, frame_bytes, 3).await;
    }
}
