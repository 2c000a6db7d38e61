//! Structured log lines on standard error: text for a person at a terminal, JSON for machines.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

use crate::UsageError;
use crate::args::LogFormat;

/// Libraries whose own lines say nothing to an operator that ours do not say better.
const QUIET: &str = "deltalake_core=error,buoyant_kernel=error,delta_kernel=error,datafusion=error,tantivy=error,object_store=error,hyper=error,h2=error";

/// Starts logging for the rest of the process. `filter` as in `info` or `info,ingest=debug`.
pub fn start(filter: &str, format: Option<LogFormat>) -> anyhow::Result<()> {
    // What the person wrote comes last and wins.
    let filter = EnvFilter::try_new(format!("{QUIET},{filter}"))
        .map_err(|error| UsageError(format!("--log-level {filter:?}: {error}")))?;
    let default = if std::io::stderr().is_terminal() { LogFormat::Text } else { LogFormat::Json };
    let format = format.unwrap_or(default);
    let lines = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => lines.init(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).with_span_list(false).init(),
    }
    Ok(())
}
