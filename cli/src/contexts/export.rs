//! `tidegate contexts export`: all contexts that match, part by part, into a file, a folder or standard output.
//!
//! A part is asked for by the token that came with the one before. After each part the place is written down beside the
//! output, once its bytes are on disk: a part that broke off is cut away and asked for again, in the same run or a later one.
//! Not here: what rows look like; the server writes them.

mod place;

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use http::StatusCode;
use http_body_util::BodyExt;
use indicatif::{ProgressBar, ProgressStyle};
use runtime::Clock;
use serde_json::{Value, json};

use super::Environment;
use crate::args::{Export, ExportFormat};
use crate::client::Refused;
use crate::{UsageError, command_runtime};
use place::Place;

/// Rows of one part: some megabytes of usual contexts, which is what an interruption costs.
const PART_ROWS: usize = 20_000;
/// A part is asked for so often; the waits between double, from a second on, which outlasts a restart of the server.
const ATTEMPTS: u32 = 6;
const FIRST_WAIT: Duration = Duration::from_secs(1);

pub fn export(arguments: &Export) -> anyhow::Result<()> {
    let environment = Environment::of(&arguments.target)?;
    let question = question(arguments, &environment)?;
    let mut output = Output::open(arguments, &question)?;
    let progress = progress();
    command_runtime()?.block_on(parts(&environment, &question, &mut output, &progress))?;
    progress.finish_and_clear();
    output.finish()?;
    let rows = output.place().rows;
    writeln!(std::io::stderr(), "{rows} contexts of {environment}")?;
    Ok(())
}

fn question(arguments: &Export, environment: &Environment) -> anyhow::Result<Value> {
    let format = match arguments.format {
        ExportFormat::Csv => "csv",
        ExportFormat::Ndjson => "ndjson",
        ExportFormat::Parquet => "parquet",
    };
    let mut question = json!({
        "environment": environment.to_string(),
        "filter": arguments.filter,
        "columns": arguments.columns,
        "format": format,
        "limit": PART_ROWS,
    });
    if let Some(path) = &arguments.keys {
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        question["keys"] = text.lines().filter(|line| !line.is_empty()).collect();
    }
    Ok(question)
}

fn progress() -> ProgressBar {
    let style = ProgressStyle::with_template("{human_pos} contexts  {elapsed}");
    ProgressBar::no_length().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
}

/// Once it is known how many there are.
fn set_total(progress: &ProgressBar, total: u64) {
    let style = ProgressStyle::with_template("{wide_bar} {human_pos} of {human_len} contexts  {eta} left");
    progress.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    progress.set_length(total);
}

async fn parts(
    environment: &Environment,
    question: &Value,
    output: &mut Output,
    progress: &ProgressBar,
) -> anyhow::Result<()> {
    let clock = Clock::system();
    progress.set_position(output.place().rows);
    while !output.place().is_complete {
        let mut wait = FIRST_WAIT;
        for attempt in 1.. {
            match part(environment, question, output, progress).await {
                Ok(()) => break,
                Err(error) if attempt == ATTEMPTS || is_final(&error) || !output.can_repeat() => {
                    return Err(output.explained(error));
                }
                Err(error) => {
                    progress.suspend(|| note(&error));
                    clock.wait(wait).await;
                    wait *= 2;
                }
            }
        }
        progress.set_position(output.place().rows);
    }
    Ok(())
}

/// Whether the same question would be refused again.
fn is_final(error: &anyhow::Error) -> bool {
    let refused = error.downcast_ref::<Refused>();
    refused.is_some_and(|refused| refused.status.is_client_error() && refused.status != StatusCode::TOO_MANY_REQUESTS)
}

fn note(error: &anyhow::Error) {
    let _ = writeln!(std::io::stderr(), "tidegate: {error:#}; trying again");
}

/// Fetches one part and writes it down.
async fn part(
    environment: &Environment,
    question: &Value,
    output: &mut Output,
    progress: &ProgressBar,
) -> anyhow::Result<()> {
    let mut body = question.clone();
    if let Some(token) = &output.place().token {
        body["continuationToken"] = token.as_str().into();
    }
    output.begin_part()?;
    let (headers, mut rows) = environment.api.stream(&environment.path("contexts/export"), &body).await?;
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let number = |name: &str| text(name).and_then(|text| text.parse::<u64>().ok());
    if let Some(total) = number("x-tidegate-total-count") {
        set_total(progress, total.max(output.place().rows));
    }
    while let Some(frame) = rows.frame().await {
        if let Some(bytes) = frame.context("the answer broke off")?.data_ref() {
            output.write(bytes)?;
        }
    }
    let next = text("x-tidegate-continuation-token").map(str::to_owned);
    output.end_part(next, number("x-tidegate-row-count").unwrap_or_default())
}

/// Where rows go, and how far they are.
struct Output {
    place: Place,
    sink: Sink,
}

enum Sink {
    Standard {
        bytes: u64,
    },
    /// One file that grows.
    File {
        file: File,
        path: PathBuf,
    },
    /// A folder with a file for each part.
    Folder {
        part: Option<File>,
        path: PathBuf,
    },
}

impl Output {
    fn open(arguments: &Export, question: &Value) -> anyhow::Result<Self> {
        let Some(path) = &arguments.output else {
            return Ok(Self { place: Place::start(question), sink: Sink::Standard { bytes: 0 } });
        };
        let is_folder = arguments.format == ExportFormat::Parquet;
        if arguments.overwrite {
            remove(path)?;
        }
        let place = Place::load(path, question)?;
        if place.is_none() && path.exists() {
            bail!(UsageError(format!("{} exists; give --overwrite to replace it", path.display())));
        }
        let place = place.unwrap_or_else(|| Place::start(question));
        let sink = if is_folder {
            std::fs::create_dir_all(path).with_context(|| format!("creating {}", path.display()))?;
            Sink::Folder { part: None, path: path.clone() }
        } else {
            let mut options = OpenOptions::new();
            let file = options.write(true).create(true).truncate(false).open(path);
            Sink::File { file: file.with_context(|| format!("opening {}", path.display()))?, path: path.clone() }
        };
        // From now on what lies there is ours, even if nothing has come yet.
        place.save(path)?;
        Ok(Self { place, sink })
    }

    fn place(&self) -> &Place {
        &self.place
    }

    /// Whether a part that broke off can be taken back.
    fn can_repeat(&self) -> bool {
        !matches!(self.sink, Sink::Standard { bytes: 1.. })
    }

    fn explained(&self, error: anyhow::Error) -> anyhow::Error {
        match self.sink {
            Sink::Standard { .. } => error,
            _ => error.context(format!("after {} contexts; the same command goes on from there", self.place.rows)),
        }
    }

    /// Cuts away what came after the place.
    fn begin_part(&mut self) -> anyhow::Result<()> {
        match &mut self.sink {
            Sink::Standard { bytes } => *bytes = 0,
            Sink::File { file, .. } => {
                file.set_len(self.place.bytes)?;
                file.seek(SeekFrom::End(0))?;
            }
            Sink::Folder { part, path } => {
                let path = path.join(format!("part-{:06}.parquet", self.place.parts));
                *part = Some(File::create(&path).with_context(|| format!("creating {}", path.display()))?);
            }
        }
        Ok(())
    }

    fn write(&mut self, rows: &[u8]) -> anyhow::Result<()> {
        match &mut self.sink {
            Sink::Standard { bytes } => {
                std::io::stdout().lock().write_all(rows)?;
                *bytes += rows.len() as u64;
            }
            Sink::File { file, path } => {
                file.write_all(rows).with_context(|| format!("writing {}", path.display()))?;
            }
            Sink::Folder { part, path } => {
                let part = part.as_mut().context("no part was begun")?;
                part.write_all(rows).with_context(|| format!("writing into {}", path.display()))?;
            }
        }
        Ok(())
    }

    fn end_part(&mut self, next: Option<String>, rows: u64) -> anyhow::Result<()> {
        let bytes = match &mut self.sink {
            Sink::Standard { .. } => 0,
            Sink::File { file, .. } => {
                file.sync_data()?;
                file.stream_position()?
            }
            Sink::Folder { part, .. } => {
                if let Some(part) = part.take() {
                    part.sync_data()?;
                }
                0
            }
        };
        self.place.advance(next, bytes, rows);
        match &self.sink {
            Sink::Standard { .. } => Ok(()),
            Sink::File { path, .. } | Sink::Folder { path, .. } => self.place.save(path),
        }
    }

    fn finish(&mut self) -> anyhow::Result<()> {
        match &self.sink {
            Sink::Standard { .. } => Ok(std::io::stdout().lock().flush()?),
            Sink::File { path, .. } | Sink::Folder { path, .. } => Place::remove(path),
        }
    }
}

/// Removes an earlier output with its place. Of a folder only what an export has put there.
fn remove(path: &Path) -> anyhow::Result<()> {
    let failed = || format!("removing {}", path.display());
    Place::remove(path)?;
    if path.is_dir() {
        for entry in std::fs::read_dir(path).with_context(failed)? {
            let entry = entry.with_context(failed)?;
            let name = entry.file_name();
            let is_part = name.to_str().is_some_and(|name| name.starts_with("part-") && name.ends_with(".parquet"));
            if !is_part {
                bail!(UsageError(format!(
                    "{} holds {}, which is no part of an export",
                    path.display(),
                    name.display()
                )));
            }
            std::fs::remove_file(entry.path()).with_context(failed)?;
        }
        return std::fs::remove_dir(path).with_context(failed);
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).with_context(failed),
        _ => Ok(()),
    }
}
