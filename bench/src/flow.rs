//! The whole flow. First one stage at a time on the same log: ingest alone fills it, then compactor, merges and indexer
//! alone catch up. Then everything together: the time from 202 to queryable, at rest and under load.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use crate::bodies::{self, Body};
use crate::freshness::{self, Freshness};
use crate::lake::{Table, folder_bytes};
use crate::server::{Load, Server, Settings, load, load_command, report_of};

/// Longest time for a stage to catch up.
const CATCH_UP_MAX: Duration = Duration::from_secs(600);
/// Part of the cores that the measured load takes, its generator not counted.
const LOAD_SHARE: f64 = 0.4;

#[derive(Args)]
pub struct FlowArgs {
    #[arg(long, default_value = "target/release/tidegate")]
    pub tidegate: PathBuf,
    #[arg(long, default_value_t = 64)]
    pub connections: usize,
    /// Requests that fill the log.
    #[arg(long, default_value_t = 20_000)]
    pub requests: usize,
    /// Probes that are timed from 202 to queryable, at rest and again under load; 0 leaves this part out.
    #[arg(long, default_value_t = 500)]
    pub probes: usize,
    /// Probes per second.
    #[arg(long, default_value_t = 10.0)]
    pub probe_rate: f64,
    /// Requests per second of the load beside the probes; without it what takes 40 % of the cores.
    #[arg(long)]
    pub rate: Option<f64>,
    /// `compactor.commit_interval` of the timed server.
    #[arg(long, default_value = "10s")]
    pub commit_interval: String,
}

/// What a stage cost.
struct Cost {
    stage: &'static str,
    used: Duration,
    peak_mib: u64,
}

pub fn run(args: &FlowArgs) -> anyhow::Result<()> {
    let body = bodies::python_flush()?;
    let events = (args.requests * body.events) as f64;
    let directory = tempfile::tempdir()?;
    let data = directory.path().join("data");
    let per_event = stages(args, &body, events, &data)?;
    if args.probes > 0 {
        let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        let sustained = LOAD_SHARE * cores * 1e6 / per_event / body.events as f64;
        timed(args, &body, args.rate.unwrap_or(sustained), &directory.path().join("timed"))?;
    }
    Ok(())
}

/// Prints the table of stages and the sizes; gives core-us per event of the whole flow.
fn stages(args: &FlowArgs, body: &Body, events: f64, data: &Path) -> anyhow::Result<f64> {
    let server = Server::tidegate(&args.tidegate, data, false, false)?;
    let loaded = load(&server, &Load::varied("python", args.connections, args.requests))?;
    let ingest = Cost { stage: "ingest", used: loaded.core_time, peak_mib: server.peak_mib()? };
    server.stop()?;
    let log_bytes = folder_bytes(&data.join("log"))?;

    let unmerged =
        Settings { compactor: "merge = false".into(), indexer: "enabled = false".into(), ..Settings::default() };
    let compactor = catch_up(args, data, "compactor", &unmerged)?;
    let table = data.join("lake/events");
    let (files, bytes) = (Table::open(&table)?.files().count(), Table::open(&table)?.bytes());
    let merge = merge_all(args, data)?;
    let merged = Table::open(&table)?;
    let only_index = Settings { compactor: "enabled = false".into(), ..Settings::default() };
    let indexer = catch_up(args, data, "indexer", &only_index)?;

    println!("{} requests of {} events, {} bytes each, contexts vary", args.requests, body.events, body.json.len());
    println!("| stage | core-us/event | events/s/core | peak MiB |");
    println!("|---|---|---|---|");
    let mut total = 0.0;
    for Cost { stage, used, peak_mib } in [ingest, compactor, merge, indexer] {
        let us = used.as_secs_f64() * 1e6 / events;
        total += us;
        let rate = if us > 0.0 { format!("{:.0}", 1e6 / us) } else { "-".into() };
        println!("| {stage} | {us:.2} | {rate} | {peak_mib} |");
    }
    println!("| all | {total:.2} | {:.0} | |", 1e6 / total);
    let per_json = |bytes: u64| {
        let json_bytes = (args.requests * body.json.len()) as f64;
        format!("{:.4} per JSON byte (1/{:.1})", bytes as f64 / json_bytes, json_bytes / bytes as f64)
    };
    println!("log: {}", per_json(log_bytes));
    println!("table as landed: {}, {files} files", per_json(bytes));
    println!("table merged: {}, {} files", per_json(merged.bytes()), merged.files().count());
    println!(
        "written to the table: {:.2} times what is live, {:.1} objects per million events",
        merged.written.bytes as f64 / merged.bytes() as f64,
        (merged.written.files + merged.written.commits) as f64 / events * 1e6
    );
    Ok(total)
}

/// Starts one stage on a filled log, waits until its lag is gone, and gives its core-time and peak memory.
fn catch_up(args: &FlowArgs, data: &Path, stage: &'static str, settings: &Settings) -> anyhow::Result<Cost> {
    let server = Server::with_settings(&args.tidegate, data, settings)?;
    server.wait_caught_up(if stage == "indexer" { "index" } else { "table" }, CATCH_UP_MAX)?;
    let (used, peak_mib) = (server.core_time()?, server.peak_mib()?);
    server.stop()?;
    Ok(Cost { stage, used, peak_mib })
}

/// Lets the merges run until no partition has two files of like size.
fn merge_all(args: &FlowArgs, data: &Path) -> anyhow::Result<Cost> {
    let settings =
        Settings { compactor: "merge_files_min = 2".into(), indexer: "enabled = false".into(), ..Settings::default() };
    let server = Server::with_settings(&args.tidegate, data, &settings)?;
    // A merge takes some of the process's time: it is over when that stands still.
    let mut busy = server.core_time()?;
    let mut quiet = 0;
    server.wait_until(CATCH_UP_MAX, || {
        std::thread::sleep(Duration::from_millis(500));
        let used = server.core_time()?;
        quiet = if used - busy <= Duration::from_millis(20) { quiet + 1 } else { 0 };
        busy = used;
        Ok(quiet >= 6)
    })?;
    let (used, peak_mib) = (server.core_time()?, server.peak_mib()?);
    server.stop()?;
    Ok(Cost { stage: "merges", used, peak_mib })
}

/// Prints the time from 202 to queryable, at rest and under a load of `rate` requests per second.
fn timed(args: &FlowArgs, body: &Body, rate: f64, data: &Path) -> anyhow::Result<()> {
    let settings =
        Settings { compactor: format!("commit_interval = {:?}", args.commit_interval), ..Settings::default() };
    let server = Server::with_settings(&args.tidegate, data, &settings)?;
    let table = data.join("lake/events");
    println!();
    println!(
        "seconds from 202 to queryable; compactor.commit_interval = {}, indexer.commit_interval = 1s",
        args.commit_interval
    );
    println!("| load | probes | table p50 | p99 | max | index p50 | p99 | max |");
    println!("|---|---|---|---|---|---|---|---|");
    let measure = || -> anyhow::Result<Freshness> { freshness::measure(&server, &table, args.probes, args.probe_rate) };
    println!("| at rest | {} |", measure()?.columns());

    let seconds = args.probes as f64 / args.probe_rate + 15.0;
    let mut command = load_command(&server, None)?;
    command.args(["--vary", "--connections", &args.connections.to_string()]);
    command.args(["--rate", &rate.to_string(), "--seconds", &seconds.to_string()]);
    let beside = std::thread::spawn(|| report_of(command));
    // The load has begun to be seen in the table before it is measured beside.
    let before = Table::open(&table)?.bytes();
    server.wait_until(CATCH_UP_MAX, || Ok(Table::open(&table)?.bytes() > before + 100_000))?;
    let used = server.core_time()?;
    let fresh = measure()?;
    let used = server.core_time()? - used;
    let report = beside.join().expect("the load does not panic")?;
    let events_rate = report["accepted"].as_f64().unwrap_or_default() / report["elapsedMillis"].as_f64().unwrap_or(1.0)
        * 1e3
        * body.events as f64;
    println!("| {events_rate:.0} events/s | {} |", fresh.columns());
    let spent = args.probes as f64 / args.probe_rate;
    println!(
        "cores in use under this load: {:.2}; 202 after p50 {} us, p99 {} us",
        used.as_secs_f64() / spent,
        report["p50Micros"],
        report["p99Micros"]
    );
    Ok(())
}
