//! `tidegate index merge`, `check` and `rebuild --online`: work that a running server does on its index, shard by shard.

use std::io::Write;

use anyhow::bail;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::args::{IndexCheck, IndexRebuild, Shards};
use crate::client::Api;
use crate::dev_keys::DevKeys;
use crate::{UsageError, command_runtime, config};

pub fn merge(arguments: &Shards) -> anyhow::Result<()> {
    let done = in_each_shard(arguments, "merge")?;
    let mut out = std::io::stdout();
    for shard in &done {
        let number = |name: &str| shard[name].as_u64().unwrap_or_default();
        let (partition, segments, removed) = (number("partition"), number("segments"), number("removedDocuments"));
        writeln!(out, "shard {partition}: {segments} segments merged, {removed} removed documents freed")?;
    }
    Ok(())
}

pub fn check(arguments: &IndexCheck) -> anyhow::Result<()> {
    let work = if arguments.repair { "check?repair=true" } else { "check" };
    let done = in_each_shard(&arguments.shards, work)?;
    let sum = |name: &str| done.iter().filter_map(|shard| shard[name].as_u64()).sum::<u64>();
    let mut out = std::io::stdout();
    writeln!(out, "{} states in the index, {} in the table", sum("inIndex"), sum("inTable"))?;
    let differences = sum("onlyInIndex") + sum("onlyInTable") + sum("different");
    if differences == 0 {
        writeln!(out, "no differences")?;
        return Ok(());
    }
    let (missing, lost, different) = (sum("onlyInIndex"), sum("onlyInTable"), sum("different"));
    writeln!(out, "{missing} only in the index, {lost} only in the table, {different} different")?;
    if done.iter().any(|shard| shard["isCut"] == true) {
        writeln!(out, "there may be more; `tidegate index rebuild` makes a shard anew")?;
    }
    match sum("repaired") {
        repaired if repaired == differences => Ok(writeln!(out, "{repaired} mended")?),
        repaired if arguments.repair => bail!("{repaired} of {differences} differences mended"),
        _ => bail!("there are {differences} differences; --repair mends them"),
    }
}

pub fn rebuild(arguments: &IndexRebuild) -> anyhow::Result<()> {
    let done = in_each_shard(&arguments.shards, "rebuild")?;
    let contexts: u64 = done.iter().filter_map(|shard| shard["contexts"].as_u64()).sum();
    writeln!(std::io::stdout(), "rebuilt {} shards, which have {contexts} contexts", done.len())?;
    Ok(())
}

/// Has `work` done in each shard, or in the given ones, and shows how far it is.
fn in_each_shard(shards: &Shards, work: &str) -> anyhow::Result<Vec<Value>> {
    let Shards { common, server, partitions: given } = shards;
    let settings = config::load(&common.layers())?;
    let dev = DevKeys::load(&settings.data_dir)?;
    let api = Api::new(server, &settings, dev.as_ref())?;
    command_runtime()?.block_on(async {
        let count = api.get("/api/tidegate/pipeline").await?["index"]["shards"].as_u64().unwrap_or_default() as u32;
        if let Some(wrong) = given.iter().find(|partition| **partition >= count) {
            bail!(UsageError(format!("--partition {wrong}: there are {count}, counted from 0")));
        }
        let partitions = if given.is_empty() { (0..count).collect() } else { given.clone() };
        let style = ProgressStyle::with_template("{wide_bar} {pos} of {len} shards  {elapsed}");
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        let progress = ProgressBar::new(partitions.len() as u64).with_style(style);
        progress.tick();
        let mut done = Vec::new();
        for partition in partitions {
            done.push(api.post(&format!("/api/tidegate/index/{partition}/{work}"), &json!({})).await?);
            progress.inc(1);
        }
        progress.finish_and_clear();
        Ok(done)
    })
}
