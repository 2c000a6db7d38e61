//! Durable ingest: core-time per request and per event, beside the bare server in the same run, and with `--kafka` on a log
//! on Kafka too. All take turns.
//!
//! Expected for the 14.8 kB body, from the cost of the parts: reading and answering 12.5 core-us, decoding 22
//! (`bench decode`), sealing, compression and framing 15, log 10: about 60 core-us, 2 an event. On Kafka the log is 22
//! core-us a record of 4 KiB (`eventlog/src/kafka`), and 64 connections share a record: about the same.
//!
//! Only the server's core-time is told, but load generator and broker run on the same cores: requests a second are what all of
//! them together can do. Each log is then given half of them, which is what the last columns are about.

use std::time::Duration;

use clap::Args;

use crate::bodies;
use crate::server::{Load, Loaded, Server, load};

#[derive(Args)]
pub struct IngestArgs {
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Requests per case and round.
    #[arg(long, default_value_t = 40_000)]
    requests: usize,
    /// Rounds; the servers take turns.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Brokers of a log on Kafka that is measured too. Its topics have a prefix of their own, and are left there.
    #[arg(long, value_name = "ADDRESSES")]
    kafka: Option<String>,
}

/// Prints one line per body and server.
pub fn run(args: &IngestArgs) -> anyhow::Result<()> {
    println!(
        "server core-us, user + system; {} connections, {} requests a round, {} rounds",
        args.connections, args.requests, args.rounds
    );
    println!(
        "| body | events | server | us/request | us/event | of embedded | requests/s | p50 us | p99 us | \
         half: requests/s | us/event | p50 us | p99 us | p99 us since due | peak MiB |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|");
    let mut cases = vec![Case::Bare, Case::Embedded];
    cases.extend(args.kafka.as_deref().map(Case::Kafka));
    for (name, vary) in [("summary", false), ("python", false), ("python", true)] {
        let body = bodies::by_name(name)?;
        let label = if vary { format!("{}, contexts vary", body.name) } else { body.name.to_owned() };
        let mut rounds: Vec<Vec<Round>> = cases.iter().map(|_| Vec::new()).collect();
        for _ in 0..args.rounds {
            for (case, rounds) in cases.iter().zip(&mut rounds) {
                rounds.push(case.measure(args, name, vary)?);
            }
        }
        let embedded = spread(&rounds[1], |round| round.full_us).1;
        for (case, rounds) in cases.iter().zip(&rounds) {
            println!("| {label} | {} | {} | {} |", body.events, case.name(), columns(rounds, body.events, embedded));
        }
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Case<'a> {
    Bare,
    Embedded,
    Kafka(&'a str),
}

/// One case in one round. Core-times and rates are of requests.
struct Round {
    /// As many requests as are answered.
    full: Loaded,
    full_us: f64,
    full_rate: f64,
    /// Half as many.
    half: Loaded,
    half_us: f64,
    half_rate: f64,
    peak_mib: u64,
}

impl Case<'_> {
    fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Embedded => "embedded log",
            Self::Kafka(_) => "Kafka",
        }
    }

    fn measure(self, args: &IngestArgs, body: &str, vary: bool) -> anyhow::Result<Round> {
        let directory = tempfile::tempdir()?;
        let data = directory.path().join("data");
        let server = match self {
            Self::Bare => Server::bare()?,
            Self::Embedded => Server::durable(&data, None)?,
            Self::Kafka(brokers) => Server::durable(&data, Some(brokers))?,
        };
        let send = |requests, rate| -> anyhow::Result<(Loaded, f64, f64)> {
            let sent = Load { vary, rate, ..Load::varied(body, args.connections, requests) };
            let loaded = load(&server, &sent)?;
            let us = loaded.core_time.as_secs_f64() * 1e6 / requests as f64;
            Ok((loaded, us, requests as f64 / loaded.elapsed.as_secs_f64()))
        };
        send(args.requests / 10, None)?;
        let (full, full_us, full_rate) = send(args.requests, None)?;
        // Half of the requests take as long.
        let (half, half_us, half_rate) = send(args.requests / 2, Some(full_rate / 2.0))?;
        if let Self::Kafka(_) = self {
            let spilled = server.metric("tidegate_spill_records_total")?;
            if spilled > 0.0 {
                println!("{spilled} records were not taken by Kafka in time and kept on the local disk");
            }
        }
        Ok(Round { full, full_us, full_rate, half, half_us, half_rate, peak_mib: server.peak_mib()? })
    }
}

/// The columns of a case, each the median of its rounds.
fn columns(rounds: &[Round], events: usize, embedded_us: f64) -> String {
    let median = |of: fn(&Round) -> f64| spread(rounds, of).1;
    let (least, us, most) = spread(rounds, |round| round.full_us);
    format!(
        "{us:.1} ({least:.1}-{most:.1}) | {:.2} | {:.2} | {:.0} | {:.0} | {:.0} | {:.0} | {:.2} | {:.0} | {:.0} | {:.0} | {}",
        us / events as f64,
        us / embedded_us,
        median(|round| round.full_rate),
        median(|round| micros(round.full.p50)),
        median(|round| micros(round.full.p99)),
        median(|round| round.half_rate),
        median(|round| round.half_us) / events as f64,
        median(|round| micros(round.half.p50)),
        median(|round| micros(round.half.p99)),
        median(|round| micros(round.half.p99_since_due)),
        rounds.iter().map(|round| round.peak_mib).max().unwrap_or_default(),
    )
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Minimum, median and maximum.
fn spread(rounds: &[Round], of: fn(&Round) -> f64) -> (f64, f64, f64) {
    let mut values: Vec<f64> = rounds.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    (values[0], values[values.len() / 2], values[values.len() - 1])
}
