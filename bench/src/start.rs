//! From the start of the process to readiness, on a data directory that is large already.
//!
//! Elapsed time, as that is what an operator waits for: of a stop in order, and of `kill -9`, which leaves the last segment
//! of the log to be read. Expected: no more than reading that segment (64 MiB at most) and opening tables and index.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;

use crate::lake::folder_bytes;
use crate::process::mib;
use crate::server::{Load, Server, Settings, load};

/// Requests between two looks at the size.
const STEP_REQUESTS: usize = 20_000;
const CONNECTIONS: usize = 64;

#[derive(Args)]
pub struct StartArgs {
    #[arg(long, default_value = "target/release/tidegate")]
    pub tidegate: PathBuf,
    /// Size of the data directory, in MiB.
    #[arg(long, default_value_t = 1024.0)]
    pub mib: f64,
    /// Starts of each sort.
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
    /// Where the server keeps its data, if not in a temporary folder; one that is large enough is used as it is.
    #[arg(long)]
    pub data_dir: Option<PathBuf>,
}

pub fn run(args: &StartArgs) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let data = args.data_dir.clone().unwrap_or_else(|| directory.path().join("data"));
    let start = || {
        let begun = Instant::now();
        Ok::<_, anyhow::Error>((Server::with_settings(&args.tidegate, &data, &Settings::default())?, begun.elapsed()))
    };
    let mut server = start()?.0;
    while mib(folder_bytes(&data)?) < args.mib {
        load(&server, &Load::varied("python", CONNECTIONS, STEP_REQUESTS))?;
    }
    let log = mib(folder_bytes(&data.join("log"))?);
    println!("data directory {:.0} MiB, {log:.0} MiB of it the log", mib(folder_bytes(&data)?));
    println!("| after | min ms | median ms | max ms |");
    println!("|---|---|---|---|");
    for after in ["a stop in order", "kill -9 after a load"] {
        let mut took = Vec::new();
        for _ in 0..args.rounds {
            load(&server, &Load::varied("python", CONNECTIONS, STEP_REQUESTS / 10))?;
            match after {
                "a stop in order" => server.stop()?,
                // What the load left behind is not yet in table and index.
                _ => drop(server),
            }
            let (started, elapsed) = start()?;
            took.push(elapsed);
            server = started;
        }
        took.sort();
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        let (first, last) = (took[0], took[took.len() - 1]);
        println!("| {after} | {:.0} | {:.0} | {:.0} |", millis(first), millis(took[took.len() / 2]), millis(last));
    }
    server.stop()
}
