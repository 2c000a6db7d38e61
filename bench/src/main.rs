//! Benchmarks: server CPU per event, beside a bare server in the same run, and the whole flow stage by stage.
//!
//! Every figure is core-time of the server process (user + system, read from `/proc`), never elapsed time: the machine may
//! be shared. Load comes from a process of its own. Bodies are recorded from real SDKs (`tests/fixtures/sdk`); only the
//! payload id, and with `--vary` the digits of context keys, change from request to request.

#![allow(clippy::print_stdout, reason = "a benchmark prints its table")]

mod bare;
mod bodies;
mod decode;
mod durable;
mod durable_ingest;
mod flow;
mod load;
mod server;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Benchmarks of Tidegate: server core-time per event", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Durable ingest beside a bare hyper server that reads the body and answers.
    Ingest {
        #[arg(long, default_value_t = 64)]
        connections: usize,
        /// Requests per case and round.
        #[arg(long, default_value_t = 40_000)]
        requests: usize,
        /// Rounds; the bare server and Tidegate take turns.
        #[arg(long, default_value_t = 3)]
        rounds: usize,
    },
    /// The whole flow, one stage at a time: fill the log, then let each stage catch up alone.
    Flow {
        #[arg(long, default_value = "target/release/tidegate")]
        tidegate: PathBuf,
        #[arg(long, default_value_t = 64)]
        connections: usize,
        #[arg(long, default_value_t = 20_000)]
        requests: usize,
    },
    /// Decoding alone, from bytes to Arrow batches, beside rivals on the same bytes.
    Decode,
    /// A bare hyper server: reads the body, answers 202.
    #[command(hide = true)]
    Bare { listen: SocketAddr },
    /// The endpoint and the embedded log alone.
    #[command(hide = true)]
    Durable { listen: SocketAddr, data_dir: PathBuf },
    /// Sends recorded bodies to a running server.
    Load(load::LoadArgs),
}

fn main() -> anyhow::Result<()> {
    match Args::parse().command {
        Command::Ingest { connections, requests, rounds } => durable_ingest::run(connections, requests, rounds),
        Command::Flow { tidegate, connections, requests } => flow::run(&tidegate, connections, requests),
        Command::Decode => {
            decode::run();
            Ok(())
        }
        Command::Bare { listen } => bare::run(listen),
        Command::Durable { listen, data_dir } => durable::run(listen, &data_dir),
        Command::Load(args) => load::run(&args),
    }
}
