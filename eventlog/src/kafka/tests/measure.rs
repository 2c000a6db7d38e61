//! Figures, not checks: `cargo test -p eventlog --release --lib kafka::tests::measure -- --ignored --nocapture`.

use std::time::Instant;

use super::*;

/// Bytes like those of frames, which are packed already: nothing in them repeats.
fn packed(bytes: usize) -> Vec<u8> {
    let entropy = Entropy::seeded(7);
    (0..bytes / 8).flat_map(|_| entropy.next_u64().to_le_bytes()).collect()
}

async fn measure(callers: usize, frame_bytes: usize, codec: &str) {
    let mut config = config();
    config.librdkafka.0.insert("compression.codec".into(), codec.into());
    let log = open(&config, &log_config()).await.unwrap();
    let frame = bytes::Bytes::from(packed(frame_bytes));
    let (began, cpu) = (Instant::now(), cpu_seconds());
    let tasks = (0..callers).map(|number| {
        let (log, frame) = (log.clone(), frame.clone());
        tokio::spawn(async move {
            let topic_partition = TopicPartition::new(Topic::Events, number as u32 % 2);
            let mut took = Vec::new();
            while began.elapsed() < Duration::from_secs(3) {
                let begun = Instant::now();
                log.append(vec![AppendRecord::new(topic_partition, frame.clone())]).await.unwrap();
                took.push(begun.elapsed());
            }
            took
        })
    });
    let mut took: Vec<Duration> = futures::future::try_join_all(tasks).await.unwrap().concat();
    let (elapsed, cpu) = (began.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    took.sort();
    let appends = took.len() as f64;
    eprintln!(
        "{codec}, {callers} callers of {frame_bytes} bytes: {:.0} appends/s, {:.1} MB/s, {:.0} core-us each, half below {:?}, 99 of 100 below {:?}",
        appends / elapsed,
        appends * frame_bytes as f64 / 1e6 / elapsed,
        cpu * 1e6 / appends,
        took[took.len() / 2],
        took[took.len() * 99 / 100],
    );
    let (began, cpu) = (Instant::now(), cpu_seconds());
    let (mut next, mut read) = (Offset(0), 0);
    loop {
        let fetched = log.fetch(EVENTS, next, 1 << 20, Duration::ZERO).await.unwrap();
        let Some(last) = fetched.last() else { break };
        next = last.offset.next();
        read += fetched.iter().map(|record| record.frame.len()).sum::<usize>();
    }
    let (megabytes, elapsed) = (read as f64 / 1e6, began.elapsed().as_secs_f64());
    let cpu = (cpu_seconds() - cpu) * 1e6 / megabytes;
    eprintln!("  one partition, {megabytes:.0} MB, read at {:.0} MB/s, {cpu:.0} core-us a MB", megabytes / elapsed);
}

/// Processor time of this process.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    // Ticks of a hundredth of a second, in user and in kernel mode.
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures; run by hand"]
async fn measure_appends_and_reads() {
    for (callers, frame_bytes) in [(1, 4 << 10), (8, 4 << 10), (64, 4 << 10), (8, 64 << 10), (8, 256 << 10)] {
        for codec in ["none", "zstd"] {
            measure(callers, frame_bytes, codec).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures; run by hand"]
async fn measure_rest() {
    let log = open(&config(), &log_config()).await.unwrap();
    let frame = bytes::Bytes::from(packed(64 << 10));
    for _ in 0..100 {
        log.append(vec![AppendRecord::new(EVENTS, frame.clone())]).await.unwrap();
    }
    // One partition with a full queue, the others with a reader that waits.
    log.fetch(EVENTS, Offset(0), 1, Duration::from_secs(10)).await.unwrap();
    let waiting = [TopicPartition::new(Topic::Events, 1), CONTEXTS]
        .map(|place| log.fetch(place, Offset(0), 1, Duration::from_secs(5)));
    let (began, cpu) = (Instant::now(), cpu_seconds());
    futures::future::try_join_all(waiting).await.unwrap();
    let share = (cpu_seconds() - cpu) / began.elapsed().as_secs_f64();
    eprintln!("at rest: {:.1} % of a core", share * 100.0);
}
