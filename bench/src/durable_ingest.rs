//! Durable ingest: core-time per request and per event, beside the bare server in the same run.
//!
//! Expected for the 14.8 kB body, from the cost of the parts: reading and answering 12.5 core-us, decoding 22
//! (`bench decode`), sealing, compression and framing 15, log 10: about 60 core-us, 2 an event.

use crate::bodies;
use crate::server::{Server, load};

/// Prints one line per case.
pub fn run(connections: usize, requests: usize, rounds: usize) -> anyhow::Result<()> {
    println!("server core-us, user + system; {connections} connections, {requests} requests a round, {rounds} rounds");
    println!("| body | events | bare us/request | tidegate us/request | us/event | p50 us | p99 us | peak MiB |");
    println!("|---|---|---|---|---|---|---|---|");
    for (name, vary) in [("summary", false), ("python", false), ("python", true)] {
        let body = bodies::by_name(name)?;
        let (mut bare_us, mut ours_us, mut peak, mut latency) = (Vec::new(), Vec::new(), 0, (0, 0));
        for _ in 0..rounds {
            let bare = Server::bare()?;
            bare_us.push(measure(&bare, name, connections, requests, vary)?.0);
            drop(bare);
            let directory = tempfile::tempdir()?;
            let ours = Server::durable(&directory.path().join("data"))?;
            let (us, report) = measure(&ours, name, connections, requests, vary)?;
            ours_us.push(us);
            latency = (report["p50Micros"].as_u64().unwrap_or(0), report["p99Micros"].as_u64().unwrap_or(0));
            peak = peak.max(ours.peak_mib()?);
        }
        let (bare, ours) = (spread(&mut bare_us), spread(&mut ours_us));
        let label = if vary { format!("{}, contexts vary", body.name) } else { body.name.to_owned() };
        let per_event = ours.1 / body.events as f64;
        println!(
            "| {label} | {} | {:.1} ({:.1}-{:.1}) | {:.1} ({:.1}-{:.1}) | {per_event:.2} | {} | {} | {peak} |",
            body.events, bare.1, bare.0, bare.2, ours.1, ours.0, ours.2, latency.0, latency.1
        );
    }
    Ok(())
}

fn measure(
    server: &Server,
    body: &str,
    connections: usize,
    requests: usize,
    vary: bool,
) -> anyhow::Result<(f64, serde_json::Value)> {
    load(server, body, connections, requests / 10, vary)?;
    let before = server.core_time()?;
    let report = load(server, body, connections, requests, vary)?;
    let used = server.core_time()? - before;
    Ok((used.as_secs_f64() * 1e6 / requests as f64, report))
}

/// Minimum, median and maximum.
fn spread(values: &mut [f64]) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    (values[0], values[values.len() / 2], values[values.len() - 1])
}
