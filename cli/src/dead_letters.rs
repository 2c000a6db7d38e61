//! `tidegate dead-letters`: what could not be read, from the table.

use std::io::Write;

use anyhow::bail;
use serde_json::Value;

use crate::args::{DeadLettersList, DeadLettersShow, ListFormat};
use crate::lake::Lake;
use crate::{command_runtime, config, text_table};

const COLUMNS: [&str; 6] = ["id", "receivedAt", "environment", "reason", "message", "bodyPreview"];

pub fn list(arguments: &DeadLettersList) -> anyhow::Result<()> {
    let settings = config::load(&arguments.common.layers())?;
    let lake = Lake::new(settings.storage_resolved());
    let letters = command_runtime()?.block_on(lake.dead_letters(arguments.reason.as_deref(), arguments.limit))?;
    let mut out = std::io::stdout().lock();
    match arguments.format {
        ListFormat::Json => letters.iter().try_for_each(|letter| writeln!(out, "{letter}"))?,
        ListFormat::Table => {
            let rows: Vec<Vec<String>> = letters.iter().map(row).collect();
            out.write_all(text_table::render(&COLUMNS.map(str::to_owned), &rows).as_bytes())?;
        }
    }
    Ok(())
}

fn row(letter: &Value) -> Vec<String> {
    let cell = |name: &str| match &letter[name] {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    let environment = format!("{}/{}", cell("project"), cell("environment"));
    COLUMNS.iter().map(|name| if *name == "environment" { environment.clone() } else { cell(name) }).collect()
}

pub fn show(arguments: &DeadLettersShow) -> anyhow::Result<()> {
    let settings = config::load(&arguments.common.layers())?;
    let lake = Lake::new(settings.storage_resolved());
    let Some((letter, body)) = command_runtime()?.block_on(lake.dead_letter(&arguments.id))? else {
        bail!(
            "no dead letter has the id {}; `tidegate dead-letters list` shows those that are in the table",
            arguments.id
        );
    };
    let mut out = std::io::stdout().lock();
    if arguments.raw {
        out.write_all(&body)?;
        return Ok(());
    }
    writeln!(out, "{}", serde_json::to_string_pretty(&letter)?)?;
    writeln!(out, "\nbody, {} bytes:", body.len())?;
    // A terminal obeys control characters; what a stranger sent must not command it.
    let text = String::from_utf8_lossy(&body);
    let safe: String = text
        .chars()
        .flat_map(|c| if c.is_control() && c != '\n' && c != '\t' { c.escape_default().collect() } else { vec![c] })
        .collect();
    writeln!(out, "{safe}")?;
    Ok(())
}
