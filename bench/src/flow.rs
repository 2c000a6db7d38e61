//! The whole flow, one stage at a time on the same log: ingest alone fills it, then the compactor alone and the indexer
//! alone catch up. Then everything together, with the time from 202 to queryable.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

use crate::bodies;
use crate::server::{Server, load};

pub fn run(tidegate: &Path, connections: usize, requests: usize) -> anyhow::Result<()> {
    let body = bodies::python_flush()?;
    let events = (requests * body.events) as f64;
    let json_bytes = (requests * body.json.len()) as f64;
    let directory = tempfile::tempdir()?;
    let data = directory.path().join("data");

    let server = Server::tidegate(tidegate, &data, false, false)?;
    let before = server.core_time()?;
    load(&server, "python", connections, requests, true)?;
    let ingest = server.core_time()? - before;
    server.stop()?;
    let log_bytes = directory_bytes(&data.join("log"))?;

    let (compactor, compactor_peak) = catch_up(tidegate, &data, true)?;
    let table_bytes = directory_bytes(&data.join("lake/events"))?;
    let (indexer, indexer_peak) = catch_up(tidegate, &data, false)?;

    println!("{requests} requests of {} events, {} bytes each, contexts vary", body.events, body.json.len());
    println!("| stage | core-us/event | events/s/core | peak MiB |");
    println!("|---|---|---|---|");
    for (stage, used, peak) in
        [("ingest", ingest, 0), ("compactor", compactor, compactor_peak), ("indexer", indexer, indexer_peak)]
    {
        let us = used.as_secs_f64() * 1e6 / events;
        println!(
            "| {stage} | {us:.2} | {:.0} | {} |",
            1e6 / us,
            if peak == 0 { "-".to_owned() } else { peak.to_string() }
        );
    }
    let total = (ingest + compactor + indexer).as_secs_f64() * 1e6 / events;
    println!("| all | {total:.2} | {:.0} | |", 1e6 / total);
    println!("log bytes per JSON byte: {:.4}", log_bytes as f64 / json_bytes);
    println!("table bytes per JSON byte: {:.4}", table_bytes as f64 / json_bytes);
    Ok(())
}

/// Starts one stage on a filled log, waits until its lag is gone, and gives its core-time and peak memory.
fn catch_up(tidegate: &Path, data: &Path, compactor: bool) -> anyhow::Result<(Duration, u64)> {
    let server = Server::tidegate(tidegate, data, compactor, !compactor)?;
    // Before its first commit a stage has not yet looked at the log and knows of no lag.
    let (stage, result) = if compactor { ("table", "files") } else { ("index", "contexts") };
    server.wait_until(Duration::from_secs(600), || {
        let (_, text) = server.get("/api/tidegate/pipeline")?;
        let pipeline: Value = serde_json::from_str(&text).context("pipeline answer")?;
        Ok(pipeline[stage]["lagRecords"] == 0 && pipeline[stage][result].as_u64().unwrap_or(0) > 0)
    })?;
    let used = (server.core_time()?, server.peak_mib()?);
    server.stop()?;
    Ok(used)
}

fn directory_bytes(path: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(path).with_context(|| path.display().to_string())? {
        let entry = entry?;
        let meta = entry.metadata()?;
        bytes += if meta.is_dir() { directory_bytes(&entry.path())? } else { meta.len() };
    }
    Ok(bytes)
}
