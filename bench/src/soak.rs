//! A long run, with a load or without any: does memory grow, and does a server at rest rest?
//!
//! Samples go to a CSV file every few seconds; the summary has memory at three moments, its slope over the second half,
//! and a verdict. At rest the threads are listed that woke or computed at all.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use serde_json::Value;

use crate::lake::folder_bytes;
use crate::process::{Memory, mib};
use crate::server::{Load, Server, Settings, load, load_command};

/// Memory may rise by this part over the second half of the run, or by [`NOISE_MIB`], and still counts as flat.
const NOISE_SHARE: f64 = 0.05;
const NOISE_MIB: f64 = 8.0;
/// Payloads before an idle run, so that every stage has worked once.
const WARM_UP: usize = 500;

#[derive(Args)]
pub struct SoakArgs {
    #[arg(long, default_value = "target/release/tidegate")]
    pub tidegate: PathBuf,
    #[arg(long, default_value_t = 30.0)]
    pub minutes: f64,
    /// Requests per second, or `max`.
    #[arg(long, default_value = "500")]
    pub rate: String,
    /// No load at all: memory, core-time and what wakes threads.
    #[arg(long)]
    pub idle: bool,
    /// `python` (32 events, 14.8 kB) or `summary` (1 event, 2.4 kB).
    #[arg(long, default_value = "python")]
    pub body: String,
    #[arg(long, default_value_t = 64)]
    pub connections: usize,
    /// Seconds between samples.
    #[arg(long, default_value_t = 5.0)]
    pub every: f64,
    /// File that gets the samples.
    #[arg(long, default_value = "soak.csv")]
    pub csv: PathBuf,
    /// Where the server keeps its data, if not in a temporary folder.
    #[arg(long)]
    pub data_dir: Option<PathBuf>,
}

/// The server at one moment.
struct Sample {
    seconds: f64,
    memory: Memory,
    core_time: Duration,
    open_files: usize,
    data_bytes: u64,
    log_bytes: u64,
    pipeline: Value,
}

impl Sample {
    const HEAD: &'static str = "seconds,rss_mib,anon_mib,peak_mib,core_seconds,threads,open_files,accepted,events,other_answers,\
         table_lag_records,table_lag_seconds,index_lag_records,index_lag_seconds,table_files,contexts,data_mib,log_mib";

    fn take(server: &Server, data: &Path, started: Instant) -> anyhow::Result<Self> {
        Ok(Self {
            seconds: started.elapsed().as_secs_f64(),
            memory: server.process().memory()?,
            core_time: server.core_time()?,
            open_files: server.process().open_files()?,
            data_bytes: folder_bytes(data)?,
            log_bytes: folder_bytes(&data.join("log"))?,
            pipeline: server.pipeline()?,
        })
    }

    fn accepted(&self) -> u64 {
        self.pipeline["ingest"]["answers"]["202"].as_u64().unwrap_or_default()
    }

    fn line(&self) -> String {
        let number = |stage: &str, name: &str| self.pipeline[stage][name].as_f64().unwrap_or_default();
        let Memory { resident, anonymous, peak, threads } = self.memory;
        format!(
            "{:.1},{:.1},{:.1},{:.1},{:.2},{threads},{},{},{},{},{},{:.1},{},{:.1},{},{},{:.1},{:.1}",
            self.seconds,
            mib(resident),
            mib(anonymous),
            mib(peak),
            self.core_time.as_secs_f64(),
            self.open_files,
            self.accepted(),
            number("ingest", "eventsTotal"),
            // Counted after the answers, so it may be behind them by a request.
            (number("ingest", "requestsTotal") as u64).saturating_sub(self.accepted()),
            number("table", "lagRecords"),
            number("table", "lagSeconds"),
            number("index", "lagRecords"),
            number("index", "lagSeconds"),
            number("table", "files"),
            number("index", "contexts"),
            mib(self.data_bytes),
            mib(self.log_bytes),
        )
    }
}

pub fn run(args: &SoakArgs) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let data = args.data_dir.clone().unwrap_or_else(|| directory.path().join("data"));
    let server = Server::with_settings(&args.tidegate, &data, &Settings::default())?;
    let mut csv = std::fs::File::create(&args.csv).with_context(|| args.csv.display().to_string())?;
    writeln!(csv, "{}", Sample::HEAD)?;
    let samples = if args.idle { rest(args, &server, &data, &mut csv)? } else { soak(args, &server, &data, &mut csv)? };
    summarize(args, &samples);
    server.stop()
}

/// Samples under load.
fn soak(args: &SoakArgs, server: &Server, data: &Path, csv: &mut std::fs::File) -> anyhow::Result<Vec<Sample>> {
    let mut command = load_command(server, None)?;
    command.args(["--vary", "--body", &args.body, "--connections", &args.connections.to_string()]);
    command.args(["--seconds", &(args.minutes * 60.0).to_string()]);
    if args.rate != "max" {
        let rate: f64 = args.rate.parse().with_context(|| format!("--rate {}: a number or max", args.rate))?;
        command.args(["--rate", &rate.to_string()]);
    }
    let mut load = Beside(command.stdout(Stdio::null()).spawn()?);
    let samples = sample(args, server, data, csv, || {
        // A search in passing, as the page would.
        server.search("kind equals user")?;
        load.check()
    })?;
    load.0.wait()?;
    Ok(samples)
}

/// Samples without a load, and what the threads did meanwhile.
fn rest(args: &SoakArgs, server: &Server, data: &Path, csv: &mut std::fs::File) -> anyhow::Result<Vec<Sample>> {
    load(server, &Load::varied(&args.body, 8, WARM_UP))?;
    server.wait_caught_up("table", Duration::from_secs(60))?;
    server.wait_caught_up("index", Duration::from_secs(60))?;
    // What follows a commit (merge, ledger, checkpoint) is not rest yet.
    std::thread::sleep(Duration::from_secs(40));
    let (before, began) = (server.process().threads()?, Instant::now());
    let samples = sample(args, server, data, csv, || Ok(()))?;
    let minutes = began.elapsed().as_secs_f64() / 60.0;
    println!("| thread | core-ms/min | wakeups/s |");
    println!("|---|---|---|");
    let mut sums: std::collections::BTreeMap<String, (f64, f64)> = std::collections::BTreeMap::new();
    for (id, thread) in server.process().threads()? {
        let earlier = before.get(&id).cloned().unwrap_or_default();
        let sum = sums.entry(thread.name).or_default();
        sum.0 += (thread.on_core - earlier.on_core).as_secs_f64() * 1e3 / minutes;
        sum.1 += (thread.wakeups - earlier.wakeups) as f64 / minutes / 60.0;
    }
    for (name, (core_ms, wakeups)) in &sums {
        println!("| {name} | {core_ms:.2} | {wakeups:.2} |");
    }
    let total: f64 = sums.values().map(|(core_ms, _)| core_ms).sum();
    println!("| all | {total:.2} | {:.2} |", sums.values().map(|(_, wakeups)| wakeups).sum::<f64>());
    println!("(looking at it included: a request for the pipeline state every {:.0} s)", args.every);
    Ok(samples)
}

/// Takes samples for the length of the run.
fn sample(
    args: &SoakArgs,
    server: &Server,
    data: &Path,
    csv: &mut std::fs::File,
    mut beside: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<Vec<Sample>> {
    let (started, length) = (Instant::now(), Duration::from_secs_f64(args.minutes * 60.0));
    let mut samples = Vec::new();
    loop {
        let sample = Sample::take(server, data, started)?;
        writeln!(csv, "{}", sample.line())?;
        samples.push(sample);
        let next = started + Duration::from_secs_f64(samples.len() as f64 * args.every);
        if next > started + length {
            return Ok(samples);
        }
        beside()?;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

fn summarize(args: &SoakArgs, samples: &[Sample]) {
    let (Some(first), Some(last)) = (samples.first(), samples.last()) else { return };
    let minutes = (last.seconds - first.seconds) / 60.0;
    let at = |share: f64| &samples[((samples.len() - 1) as f64 * share) as usize];
    println!("{minutes:.1} minutes, {} samples in {}", samples.len(), args.csv.display());
    for (moment, sample) in [("10 %", at(0.1)), ("50 %", at(0.5)), ("100 %", last)] {
        println!(
            "at {moment}: RSS {:.0} MiB, of it anonymous {:.0} MiB, {} threads, {} open files, data {:.0} MiB",
            mib(sample.memory.resident),
            mib(sample.memory.anonymous),
            sample.memory.threads,
            sample.open_files,
            mib(sample.data_bytes)
        );
    }
    println!("largest RSS: {:.0} MiB", mib(last.memory.peak));
    let used = last.core_time - first.core_time;
    println!("core-time: {:.0} ms per minute", used.as_secs_f64() * 1e3 / minutes);
    let accepted = last.accepted() - first.accepted();
    if accepted > 0 {
        let requests = last.pipeline["ingest"]["requestsTotal"].as_u64().unwrap_or_default();
        println!(
            "accepted: {accepted} requests, {:.0} per second; answered otherwise: {}",
            accepted as f64 / minutes / 60.0,
            requests - last.accepted()
        );
    }
    for stage in ["table", "index"] {
        let lag = |sample: &Sample| sample.pipeline[stage]["lagSeconds"].as_f64().unwrap_or_default();
        let largest = samples.iter().map(lag).fold(0.0, f64::max);
        println!("lag of the {stage}: {:.1} s at the end, {largest:.1} s at most", lag(last));
    }
    let half = &samples[samples.len() / 2..];
    for (what, of) in
        [("RSS", (|memory| memory.resident) as fn(&Memory) -> u64), ("anonymous", |memory| memory.anonymous)]
    {
        let points: Vec<_> = half.iter().map(|sample| (sample.seconds / 3600.0, mib(of(&sample.memory)))).collect();
        let (slope, mean) = (slope(&points), points.iter().map(|point| point.1).sum::<f64>() / points.len() as f64);
        let rise = slope * minutes / 60.0 / 2.0;
        let verdict = if rise <= NOISE_MIB.max(mean * NOISE_SHARE) { "does not grow" } else { "GROWS" };
        println!("{what} over the second half: {slope:+.1} MiB/h by least squares, {rise:+.1} MiB in all: {verdict}");
    }
}

/// Slope of the line through points that has the least squares.
fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len().max(1) as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x_mean, y_mean) = (mean(|point| point.0), mean(|point| point.1));
    let (mut above, mut below) = (0.0, 0.0);
    for (x, y) in points {
        above += (x - x_mean) * (y - y_mean);
        below += (x - x_mean).powi(2);
    }
    if below == 0.0 { 0.0 } else { above / below }
}

/// The load generator; ended with the run.
struct Beside(Child);

impl Beside {
    fn check(&mut self) -> anyhow::Result<()> {
        match self.0.try_wait()? {
            Some(status) if !status.success() => bail!("the load generator ended with {status}"),
            _ => Ok(()),
        }
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::slope;

    #[test]
    fn slope_is_that_of_the_line() {
        assert_eq!(slope(&[(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)]), 2.0);
        assert_eq!(slope(&[(0.0, 7.0), (1.0, 7.0), (2.0, 7.0)]), 0.0);
        assert_eq!(slope(&[(1.0, 7.0)]), 0.0);
    }
}
