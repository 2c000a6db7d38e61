//! The recorded bodies that load is made of.

use std::collections::BTreeMap;
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

/// The events of all requests that were recorded unpacked, each body once.
pub fn all_recorded() -> anyhow::Result<Vec<Body>> {
    let mut bodies = BTreeMap::new();
    for folder in std::fs::read_dir(fixtures())? {
        let folder = folder?.path();
        if !folder.is_dir() {
            continue;
        }
        for file in std::fs::read_dir(folder)? {
            let request: Value = serde_json::from_slice(&std::fs::read(file?.path())?)?;
            // Diagnostics are objects.
            let Some(json) = request["body"].as_str().filter(|json| json.starts_with('[')) else { continue };
            bodies.insert(json.to_owned(), serde_json::from_str::<Vec<Value>>(json)?.len());
        }
    }
    let bodies = bodies.into_iter();
    Ok(bodies.map(|(json, events)| Body { name: "recorded", json: json.into_bytes(), events }).collect())
}

pub fn by_name(name: &str) -> anyhow::Result<Body> {
    match name {
        "python" => python_flush(),
        "summary" => summary(),
        other => anyhow::bail!("body {other:?} is not one of python, summary"),
    }
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/sdk")
}

fn recorded(file: &str) -> anyhow::Result<String> {
    let path = fixtures().join(file);
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

/// Writes other contexts into `copy`: at each of the places of `original` four digits that follow from its own and `number`.
pub fn vary(original: &[u8], places: &[usize], number: usize, copy: &mut [u8]) {
    for place in places {
        let digits = original[*place..*place + 4].iter().fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0'));
        let digits = format!("{:04}", (digits + number * 7) % 10_000);
        copy[*place..*place + 4].copy_from_slice(digits.as_bytes());
    }
}
