//! A backlog on Kafka, and the parts of the pipeline that catch up with it: their rates, and their memory beside the caps that
//! they are given.
//!
//! One `tidegate ingest` fills the log. What it took in a second is the rate at which load arrives. Then `tidegate compact`
//! catches up alone, then `tidegate index`, each from an empty directory. Their time runs from the start of the process, so it
//! holds joining the group, and ends when every row is in the table, every report of a context in the index. Other programs
//! delay them, as they stand back; what a core of their own would do is told from their core-time.
//!
//! Resident memory is more than what a cap is about: the program itself and the buffers of the Kafka client are in it. The caps
//! are the `memory_budget` of compactor and indexer and `ingest.bytes_in_flight_max`.
//!
//! Tables go to a folder of their own below `--storage`. For a bucket credentials come from the usual environment variables, as
//! in `takeover`. Topics have a prefix of their own. Both are left there.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};

use crate::bodies;
use crate::durable::topic_prefix;
use crate::process::{Memory, mib};
use crate::server::{Load, Server, Settings, load};

/// Longest time for a part to catch up.
const CATCH_UP_MAX: Duration = Duration::from_secs(1800);
/// Longest time for what was spilled to come into the log.
const DRAIN_MAX: Duration = Duration::from_secs(120);
const GIB: f64 = (1 << 30) as f64;
const SAMPLE_EVERY: Duration = Duration::from_millis(200);
/// Requests after which it is known how many make the backlog.
const FIRST_REQUESTS: usize = 2_000;

#[derive(Args)]
pub struct BacklogArgs {
    #[arg(long, default_value = "target/release/tidegate")]
    tidegate: PathBuf,
    /// Brokers of the log.
    #[arg(long, value_name = "ADDRESSES")]
    kafka: String,
    /// Where tables go: a path or a URL.
    #[arg(long)]
    storage: String,
    /// Size of the backlog in GiB.
    #[arg(long, default_value_t = 1.0)]
    gib: f64,
    /// What is that large: the bodies that were sent, or the records that the log has of them.
    #[arg(long, value_enum, default_value = "json")]
    of: Size,
    /// Requests per second at which it arrives; without it as many as are answered.
    #[arg(long)]
    rate: Option<f64>,
    /// `python` (32 events, 14.8 kB) or `summary` (1 event, 2.4 kB).
    #[arg(long, default_value = "python")]
    body: String,
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Partitions of events, and of contexts.
    #[arg(long, default_value_t = 2)]
    partitions: u32,
    /// `compactor.memory_budget` in MiB.
    #[arg(long, default_value_t = 256)]
    compactor_mib: u64,
    /// `indexer.memory_budget` in MiB.
    #[arg(long, default_value_t = 128)]
    indexer_mib: u64,
    /// `compactor.commit_interval`: the last rows wait as long for their commit, and are part of the time.
    #[arg(long, default_value = "1s")]
    commit_interval: String,
    /// File that gets memory and lag over time.
    #[arg(long, default_value = "backlog.csv")]
    csv: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Size {
    Json,
    Log,
}

/// A part of the pipeline that catches up.
struct Part {
    task: &'static str,
    /// Its name in the pipeline state.
    stage: &'static str,
    /// What it counts of what it has taken, and ingest of what it has put there.
    taken: &'static str,
    put: &'static str,
}

const PARTS: [Part; 2] = [
    Part {
        task: "compact",
        stage: "table",
        taken: "tidegate_table_landed_rows_total{table=\"events\"}",
        put: "tidegate_ingest_rows_total",
    },
    Part {
        task: "index",
        stage: "index",
        taken: "tidegate_index_sightings_total",
        put: "tidegate_ingest_sightings_total",
    },
];

/// What the log holds, and what putting it there took.
struct Backlog {
    events: f64,
    json_bytes: f64,
    log_bytes: f64,
    /// For each of [`PARTS`].
    put: [f64; 2],
    cost: Cost,
}

/// What a process took.
struct Cost {
    elapsed: Duration,
    core_time: Duration,
    /// Largest resident MiB.
    peak_mib: f64,
    /// Resident MiB at four moments.
    resident: String,
}

pub fn run(args: &BacklogArgs) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let prefix = topic_prefix();
    let mut csv = std::fs::File::create(&args.csv).with_context(|| args.csv.display().to_string())?;
    writeln!(csv, "task,seconds,rss_mib,anon_mib,core_seconds,lag_records,taken")?;
    let backlog = fill(args, &prefix, directory.path())?;
    println!(
        "{:.0} events, {:.2} GiB of JSON, {:.3} GiB in the log; {} partitions each; memory over time in {}",
        backlog.events,
        backlog.json_bytes / GIB,
        backlog.log_bytes / GIB,
        args.partitions,
        args.csv.display()
    );
    println!(
        "| task | events | seconds | events/s | core-us/event | times the arrival | with a core alone | \
         peak MiB | cap MiB | RSS MiB at 25, 50, 75, 100 % |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    let ingest_cap = ingest::Config::default().bytes_in_flight_max.0 >> 20;
    print_line("ingest", &backlog, &backlog.cost, ingest_cap);
    for ((part, put), cap) in PARTS.iter().zip(backlog.put).zip([args.compactor_mib, args.indexer_mib]) {
        let cost = catch_up(args, part, put, &prefix, directory.path(), &mut csv)?;
        print_line(part.task, &backlog, &cost, cap);
    }
    let Cost { elapsed, core_time, .. } = backlog.cost;
    println!(
        "arrived: {:.0} events/s; one core of ingest alone would take {:.0} events/s",
        backlog.events / elapsed.as_secs_f64(),
        backlog.events / core_time.as_secs_f64()
    );
    Ok(())
}

fn print_line(task: &str, backlog: &Backlog, cost: &Cost, cap_mib: u64) {
    let (events, seconds) = (backlog.events, cost.elapsed.as_secs_f64());
    let arrival = backlog.cost.elapsed.as_secs_f64();
    println!(
        "| {task} | {events:.0} | {seconds:.1} | {:.0} | {:.2} | {:.2} | {:.2} | {:.0} | {cap_mib} | {} |",
        events / seconds,
        cost.core_time.as_secs_f64() * 1e6 / events,
        arrival / seconds,
        arrival / cost.core_time.as_secs_f64(),
        cost.peak_mib,
        cost.resident,
    );
}

/// One configuration for all parts, as an operator would have it.
fn settings(args: &BacklogArgs, prefix: &str, task: &'static str) -> Settings {
    let storage = format!("{}/{}", args.storage.trim_end_matches('/'), prefix.trim_end_matches('.'));
    Settings {
        task: Some(task),
        compactor: format!(
            "memory_budget = \"{}MiB\"\ncommit_interval = {:?}",
            args.compactor_mib, args.commit_interval
        ),
        indexer: format!("memory_budget = \"{}MiB\"", args.indexer_mib),
        sections: format!(
            "[log]\nkind = \"kafka\"\nevents_partitions = {0}\ncontexts_partitions = {0}\n\
             [kafka]\nbrokers = {1:?}\ntopic_prefix = {prefix:?}\n[storage]\nurl = {storage:?}",
            args.partitions, args.kafka
        ),
        ..Settings::default()
    }
}

/// Sends bodies whose contexts vary until the backlog is large enough.
fn fill(args: &BacklogArgs, prefix: &str, directory: &Path) -> anyhow::Result<Backlog> {
    let body = bodies::by_name(&args.body)?;
    let server = Server::with_settings(&args.tidegate, &directory.join("ingest"), &settings(args, prefix, "ingest"))?;
    let (mut requests, mut elapsed, mut core_time) = (0, Duration::ZERO, Duration::ZERO);
    let log_bytes = || server.metric("tidegate_log_appended_bytes_total");
    let wanted = args.gib * GIB;
    loop {
        let held = if args.of == Size::Json { (requests * body.json.len()) as f64 } else { log_bytes()? };
        if held >= wanted {
            break;
        }
        // The first portion tells how much of the log a request takes.
        let portion = if requests == 0 {
            FIRST_REQUESTS.min((wanted / body.json.len() as f64) as usize + 1)
        } else {
            ((wanted - held) / held * requests as f64) as usize + 1
        };
        let sent = Load { rate: args.rate, ..Load::varied(&args.body, args.connections, portion) };
        let loaded = load(&server, &sent)?;
        requests += portion;
        elapsed += loaded.elapsed;
        core_time += loaded.core_time;
    }
    server.wait_until(DRAIN_MAX, || Ok(server.metric("tidegate_spill_held_records_count")? == 0.0))?;
    let Memory { resident, peak, .. } = server.process().memory()?;
    let [rows, sightings] = PARTS.each_ref().map(|part| server.metric(part.put));
    let backlog = Backlog {
        events: (requests * body.events) as f64,
        json_bytes: (requests * body.json.len()) as f64,
        log_bytes: log_bytes()?,
        put: [rows?, sightings?],
        cost: Cost { elapsed, core_time, peak_mib: mib(peak), resident: format!("{:.0} at the end", mib(resident)) },
    };
    ensure!(backlog.put.iter().all(|put| *put > 0.0), "ingest counts nothing that it has put into the log");
    server.stop()?;
    Ok(backlog)
}

/// Starts a part and waits until it has taken everything.
fn catch_up(
    args: &BacklogArgs,
    part: &Part,
    put: f64,
    prefix: &str,
    directory: &Path,
    csv: &mut std::fs::File,
) -> anyhow::Result<Cost> {
    let started = Instant::now();
    let server = Server::with_settings(&args.tidegate, &directory.join(part.task), &settings(args, prefix, part.task))?;
    let mut resident = Vec::new();
    let sampled = server.look_until(SAMPLE_EVERY, CATCH_UP_MAX, || {
        let Memory { resident: now, anonymous, .. } = server.process().memory()?;
        resident.push(mib(now));
        let taken = server.metric(part.taken)?;
        let lag = server.pipeline()?[part.stage]["lagRecords"].as_u64().unwrap_or_default();
        let (seconds, core) = (started.elapsed().as_secs_f64(), server.core_time()?.as_secs_f64());
        writeln!(csv, "{},{seconds:.2},{:.1},{:.1},{core:.2},{lag},{taken}", part.task, mib(now), mib(anonymous))?;
        Ok(taken >= put && server.has_caught_up(part.stage)?)
    });
    sampled.with_context(|| format!("{} did not catch up with {put} in the log", part.task))?;
    let elapsed = started.elapsed();
    let moments = [0.25, 0.5, 0.75, 1.0].map(|part| resident[((resident.len() - 1) as f64 * part) as usize]);
    let cost = Cost {
        elapsed,
        core_time: server.core_time()?,
        peak_mib: mib(server.process().memory()?.peak),
        resident: moments.map(|resident| format!("{resident:.0}")).join(", "),
    };
    server.stop()?;
    Ok(cost)
}
