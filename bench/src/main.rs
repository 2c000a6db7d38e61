//! Benchmarks: server CPU per event, beside a bare server in the same run, the whole flow stage by stage, overload, and
//! long runs.
//!
//! Costs are core-time of the server process (user + system, read from `/proc`), never elapsed time: the machine may
//! be shared. Load comes from a process of its own. Bodies are recorded from real SDKs (`tests/fixtures/sdk`); only the
//! payload id, and with `--vary` the digits of context keys, change from request to request.
//!
//! One file per subcommand; `server`, `client`, `process` and `lake` are what they share.

#![allow(clippy::print_stdout, reason = "a benchmark prints its table")]

mod bodies;
mod client;
mod lake;
mod process;
mod server;

mod backlog;
mod bare;
mod compact;
mod counting;
mod decode;
mod durable;
mod durable_ingest;
mod flow;
mod freshness;
mod load;
mod overload;
mod record;
mod search;
mod soak;
mod start;
mod storm;
mod takeover;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Benchmarks of Tidegate: core-time per event, freshness, overload, memory over time", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Durable ingest beside a bare hyper server that reads the body and answers; with --kafka also on a log on Kafka.
    Ingest(durable_ingest::IngestArgs),
    /// The whole flow: cost of each stage, bytes, and the time from 202 to queryable.
    Flow(flow::FlowArgs),
    /// Ten times the load that the machine can take: goodput, memory, and what the table has afterwards.
    Overload(overload::OverloadArgs),
    /// A long run with or without load: memory, core-time and lag over time.
    Soak(soak::SoakArgs),
    /// From the start of the process to readiness, on a large data directory.
    Start(start::StartArgs),
    /// From log to table: landing and merging alone, with memory, bytes and requests.
    Compact(compact::CompactArgs),
    /// A backlog on Kafka: how fast compactor and indexer catch up with it, each alone, and in how much memory.
    Backlog(backlog::BacklogArgs),
    /// Decoding alone, from bytes to Arrow batches, beside rivals on the same bytes.
    Decode,
    /// A micro-batch in the log as frames and as raw JSON: bytes, and core-time to write and to read it.
    Record(record::RecordArgs),
    /// The context index alone: indexing and questions, over generated contexts.
    Search(search::SearchArgs),
    /// Copies of the context index: making one, and taking shards over from it.
    Takeover(takeover::TakeoverArgs),
    /// A bare hyper server: reads the body, answers 202.
    #[command(hide = true)]
    Bare { listen: SocketAddr },
    /// The endpoint and a log alone.
    #[command(hide = true)]
    Durable {
        listen: SocketAddr,
        data_dir: PathBuf,
        /// Brokers of a log on Kafka; without it the log is the embedded one.
        #[arg(long)]
        kafka: Option<String>,
    },
    /// Sends recorded bodies to a running server.
    Load(load::LoadArgs),
    /// Sends more of them than a server can take.
    #[command(hide = true)]
    Storm(storm::StormArgs),
}

fn main() -> anyhow::Result<()> {
    match Args::parse().command {
        Command::Ingest(args) => durable_ingest::run(&args),
        Command::Flow(args) => flow::run(&args),
        Command::Overload(args) => overload::run(&args),
        Command::Soak(args) => soak::run(&args),
        Command::Start(args) => start::run(&args),
        Command::Compact(args) => compact::run(&args),
        Command::Backlog(args) => backlog::run(&args),
        Command::Decode => {
            decode::run();
            Ok(())
        }
        Command::Record(args) => record::run(&args),
        Command::Bare { listen } => bare::run(listen),
        Command::Durable { listen, data_dir, kafka } => durable::run(listen, &data_dir, kafka.as_deref()),
        Command::Search(args) => search::run(&args),
        Command::Takeover(args) => takeover::run(&args),
        Command::Load(args) => load::run(&args),
        Command::Storm(args) => storm::run(&args),
    }
}
