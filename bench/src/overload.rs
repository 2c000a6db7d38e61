//! Ten times the load that the machine can take: how much of the peak goodput is left, what it costs in memory, and
//! whether everything that was acknowledged is in the table once.
//!
//! Peak and storm take turns in one run on one server with all its stages, each on cores of its own, so that neither the
//! noise of the machine nor the clients' need for cores tells in their ratio. Each begins with table and index caught up:
//! else a storm would pay for what the peak before it has left for later. Goodput: payloads answered 202 in time.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use serde_json::Value;

use crate::lake::Table;
use crate::process::mib;
use crate::server::{SDK_KEY, Server, Settings, load_command, on_cores, report_of};

/// Longest time for the table to catch up afterwards.
const CATCH_UP_MAX: Duration = Duration::from_secs(1200);

#[derive(Args)]
pub struct OverloadArgs {
    #[arg(long, default_value = "target/release/tidegate")]
    pub tidegate: PathBuf,
    /// `python` (32 events, 14.8 kB) or `summary` (1 event, 2.4 kB).
    #[arg(long, default_value = "python")]
    pub body: String,
    /// Connections of the peak load.
    #[arg(long, default_value_t = 64)]
    pub connections: usize,
    /// The storm arrives at this multiple of the peak.
    #[arg(long, default_value_t = 10.0)]
    pub times: f64,
    /// Clients of the storm at once; more than the server takes connections (8192).
    #[arg(long, default_value_t = 12_000)]
    pub clients: usize,
    /// Length of each peak and each storm.
    #[arg(long, default_value_t = 15.0)]
    pub seconds: f64,
    /// Storms, each between two peaks.
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// Cores of the server, as `taskset` takes them.
    #[arg(long, default_value = "0")]
    pub server_cores: String,
    /// Cores of the clients.
    #[arg(long, default_value = "1")]
    pub client_cores: String,
    /// Where the server keeps its data, if not in a temporary folder.
    #[arg(long)]
    pub data_dir: Option<PathBuf>,
}

/// Accepted payloads of a phase, per second and per second of server core-time.
#[derive(Clone, Copy)]
struct Goodput {
    per_second: f64,
    per_core_second: f64,
}

pub fn run(args: &OverloadArgs) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let data = args.data_dir.clone().unwrap_or_else(|| directory.path().join("data"));
    let acknowledged = directory.path().join("acknowledged");
    let settings = Settings { cores: Some(args.server_cores.clone()), ..Settings::default() };
    let server = Server::with_settings(&args.tidegate, &data, &settings)?;
    peak(args, &server, &acknowledged, args.seconds / 5.0)?;

    println!("| phase | 202/s | 202 per server core-second | of the peaks around it |");
    println!("|---|---|---|---|");
    let row = |phase: &str, goodput: Goodput, share: &str| {
        println!("| {phase} | {:.0} | {:.0} | {share} |", goodput.per_second, goodput.per_core_second);
    };
    let mut before = peak(args, &server, &acknowledged, args.seconds)?;
    row("peak", before, "");
    let (mut shares, mut storms) = (Vec::new(), Vec::new());
    for _ in 0..args.rounds {
        let (during, report) = storm(args, &server, &acknowledged, before.per_second * args.times)?;
        let after = peak(args, &server, &acknowledged, args.seconds)?;
        let share = during.per_second / ((before.per_second + after.per_second) / 2.0);
        row("storm", during, &format!("{:.0} %", share * 100.0));
        row("peak", after, "");
        shares.push(share);
        storms.push(report);
        before = after;
    }
    shares.sort_by(f64::total_cmp);
    println!();
    println!("goodput in the storms: {:.0} % of the peaks in the median", shares[shares.len() / 2] * 100.0);
    for report in &storms {
        println!("storm: {report}");
    }
    println!("peak resident memory: {:.0} MiB", mib(server.process().memory()?.peak));
    server.wait_caught_up("table", CATCH_UP_MAX)?;
    verify(&data.join("lake/events"), &acknowledged)?;
    server.stop()
}

/// As many requests as are answered, by connections that wait for each answer.
fn peak(args: &OverloadArgs, server: &Server, acknowledged: &Path, seconds: f64) -> anyhow::Result<Goodput> {
    settle(server)?;
    let mut command = load_command(server, Some(&args.client_cores))?;
    command.args(["--vary", "--body", &args.body, "--connections", &args.connections.to_string()]);
    command.args(["--seconds", &seconds.to_string()]).arg("--acknowledged").arg(acknowledged);
    let used = server.core_time()?;
    let report = report_of(command)?;
    let used = server.core_time()? - used;
    ensure!(report["refused"] == 0 && report["broken"] == 0, "the peak load was refused: {report}");
    let accepted = report["accepted"].as_f64().context("accepted")?;
    let elapsed = report["elapsedMillis"].as_f64().context("elapsed")? / 1e3;
    Ok(Goodput { per_second: accepted / elapsed, per_core_second: accepted / used.as_secs_f64() })
}

fn storm(args: &OverloadArgs, server: &Server, acknowledged: &Path, rate: f64) -> anyhow::Result<(Goodput, Value)> {
    settle(server)?;
    let mut command = on_cores(Some(&args.client_cores), &std::env::current_exe()?);
    command.args(["storm", "--address", &server.address.to_string(), "--key", SDK_KEY, "--body", &args.body]);
    command.args(["--rate", &rate.to_string(), "--seconds", &args.seconds.to_string()]);
    command.args(["--clients", &args.clients.to_string()]).arg("--acknowledged").arg(acknowledged);
    let used = server.core_time()?;
    let report = report_of(command)?;
    // All of it, the clients' last seconds included, against all that was accepted.
    let used = server.core_time()? - used;
    let (accepted, in_time) = (report["accepted"].as_f64(), report["acceptedInTime"].as_f64());
    let goodput = Goodput {
        per_second: in_time.context("accepted in time")? / args.seconds,
        per_core_second: accepted.context("accepted")? / used.as_secs_f64(),
    };
    Ok((goodput, report))
}

/// Waits until the server has nothing of the last phase under way any more, and table and index have all of it.
fn settle(server: &Server) -> anyhow::Result<()> {
    server.wait_until(CATCH_UP_MAX, || {
        let pipeline = server.pipeline()?;
        let caught_up = ["table", "index"].iter().all(|stage| pipeline[stage]["lagRecords"].as_u64().unwrap_or(0) == 0);
        Ok(pipeline["ingest"]["bytesInFlight"] == 0 && caught_up)
    })
}

/// Holds the table against what clients were told: each payload in its full size, and none twice.
fn verify(table: &Path, acknowledged: &Path) -> anyhow::Result<()> {
    let table = Table::open(table)?;
    let mut rows: HashMap<String, u64> = HashMap::new();
    for file in table.files() {
        table.payload_ids(file, |id| {
            if let Some(count) = rows.get_mut(id) {
                *count += 1;
            } else {
                rows.insert(id.to_owned(), 1);
            }
        })?;
    }
    let text = std::fs::read_to_string(acknowledged)?;
    let told: Vec<&str> = text.lines().collect();
    // Every payload has the same events, so the most frequent number of rows is the right one.
    let mut sizes: HashMap<u64, u64> = HashMap::new();
    rows.values().for_each(|count| *sizes.entry(*count).or_default() += 1);
    let full = sizes.iter().max_by_key(|(_, payloads)| **payloads).map_or(0, |(size, _)| *size);
    let missing = told.iter().filter(|id| !rows.contains_key(**id)).count();
    let odd = rows.values().filter(|count| **count != full).count();
    println!(
        "table: {} payloads of {full} rows; {} acknowledged, {missing} of them missing, {odd} stored twice or in part",
        rows.len(),
        told.len()
    );
    ensure!(missing == 0 && odd == 0, "the table does not hold what was acknowledged");
    Ok(())
}
