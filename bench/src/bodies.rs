//! The recorded bodies that load is made of.

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::Value;

/// One body and the number of events in it.
pub struct Body {
    pub name: &'static str,
    pub json: Vec<u8>,
    pub events: usize,
}

/// The Python server SDK's first flush: 32 events, 14.8 kB (`python-server-9.17.0/002.json`).
pub fn python_flush() -> anyhow::Result<Body> {
    let json = recorded("python-server-9.17.0/002.json")?;
    let events = serde_json::from_str::<Vec<Value>>(&json)?.len();
    Ok(Body { name: "python flush", json: json.into_bytes(), events })
}

/// The summary of the same flush alone: one event, 2.4 kB.
pub fn summary() -> anyhow::Result<Body> {
    let json = recorded("python-server-9.17.0/002.json")?;
    let start = json.rfind(r#"{"kind":"summary""#).context("the recorded body has a summary")?;
    Ok(Body { name: "one summary", json: format!("[{}", &json[start..]).into_bytes(), events: 1 })
}

pub fn by_name(name: &str) -> anyhow::Result<Body> {
    match name {
        "python" => python_flush(),
        "summary" => summary(),
        other => anyhow::bail!("body {other:?} is not one of python, summary"),
    }
}

fn recorded(file: &str) -> anyhow::Result<String> {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/sdk").join(file);
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let request: Value = serde_json::from_str(&text)?;
    Ok(request["body"].as_str().context("the recorded request has a text body")?.to_owned())
}

/// Positions after `prefix` where four digits follow.
pub fn digits_after(bytes: &[u8], prefix: &[u8]) -> Vec<usize> {
    let starts = bytes.windows(prefix.len() + 4).enumerate().filter(|(_, window)| window.starts_with(prefix));
    starts
        .filter(|(_, window)| window[prefix.len()..].iter().all(u8::is_ascii_digit))
        .map(|(start, _)| start + prefix.len())
        .collect()
}
