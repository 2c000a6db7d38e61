//! `tidegate contexts erase`: asks the server to erase contexts, after asking the person, and follows it to its certificate.
//!
//! Not here: the erasure, which goes on without this command.

use std::io::{BufRead, IsTerminal, Write};
use std::time::Duration;

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use runtime::Clock;
use serde_json::{Value, json};

use super::{Environment, encoded};
use crate::args::{Erase, Erasures};
use crate::{UsageError, command_runtime, text_table};

/// What the person has to type.
const CONFIRMATION: &str = "erase";
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// A server that is restarted meanwhile goes on where it was.
const UNREACHED_MAX: u32 = 240;

pub fn erase(arguments: &Erase) -> anyhow::Result<()> {
    let environment = Environment::of(&arguments.target)?;
    command_runtime()?.block_on(async {
        let mut body = match (&arguments.filter, &arguments.key) {
            (Some(filter), _) => json!({ "filter": filter }),
            (None, key) => json!({ "contexts": [{ "kind": arguments.kind, "key": key }] }),
        };
        if let Some(at) = &arguments.at {
            body["at"] = at.as_str().into();
        }
        if !arguments.yes {
            confirm(arguments, &environment).await?;
        }
        let asked = environment.api.post(&environment.path("contexts/erasures"), &body).await?;
        let id = asked["id"].as_str().context("the server's answer has no id")?;
        if !arguments.wait {
            writeln!(std::io::stdout(), "{id}")?;
            writeln!(std::io::stderr(), "noted; `tidegate contexts erasures {id}` tells how it stands")?;
            return Ok(());
        }
        let done = follow(&environment, id).await?;
        let certificate = serde_json::to_string_pretty(&done["certificate"])?;
        writeln!(std::io::stdout(), "{certificate}")?;
        let count = &done["certificate"]["contexts"]["count"];
        writeln!(std::io::stderr(), "{count} contexts of {environment} erased")?;
        Ok(())
    })
}

/// Tells what would go, and goes on only if the person types that it shall.
async fn confirm(arguments: &Erase, environment: &Environment) -> anyhow::Result<()> {
    if !std::io::stdin().is_terminal() {
        bail!(UsageError("nobody can be asked here; say --yes".into()));
    }
    let what = match (&arguments.filter, &arguments.key) {
        (Some(filter), _) => {
            let question = json!({ "filter": filter, "limit": 1 });
            let found = environment.api.post(&environment.path("contexts/search"), &question).await?;
            let count = found["totalCount"].as_u64().map_or_else(|| "all".into(), |count| count.to_string());
            format!("{count} contexts that match `{filter}`")
        }
        (None, key) => format!("{} {}", arguments.kind, key.as_deref().unwrap_or_default()),
    };
    let mut out = std::io::stderr();
    write!(out, "This erases {what} from {environment}, for good. Type {CONFIRMATION} to go on: ")?;
    out.flush()?;
    let mut typed = String::new();
    std::io::stdin().lock().read_line(&mut typed)?;
    if typed.trim() != CONFIRMATION {
        bail!("nothing was erased");
    }
    Ok(())
}

async fn follow(environment: &Environment, id: &str) -> anyhow::Result<Value> {
    let style = ProgressStyle::with_template("{wide_bar} {msg}  {elapsed}");
    let progress = ProgressBar::new(1).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let path = environment.path(&format!("contexts/erasures/{}", encoded(id)));
    let mut unreached = 0;
    loop {
        match environment.api.get(&path).await {
            Ok(erasure) if erasure["state"] == "done" => {
                progress.finish_and_clear();
                return Ok(erasure);
            }
            Ok(erasure) => {
                unreached = 0;
                let number = |name: &str| erasure["progress"][name].as_u64().unwrap_or_default();
                progress.set_length(number("steps"));
                progress.set_position(number("stepsDone"));
                let step = erasure["step"].as_str().unwrap_or_default();
                progress.set_message(format!("{} contexts, {step}", number("contexts")));
            }
            Err(error) if unreached == UNREACHED_MAX => return Err(error),
            Err(_) => unreached += 1,
        }
        Clock::system().wait(LOOK_INTERVAL).await;
    }
}

pub fn erasures(arguments: &Erasures) -> anyhow::Result<()> {
    let environment = Environment::of(&arguments.target)?;
    let path = match &arguments.id {
        Some(id) => format!("contexts/erasures/{}", encoded(id)),
        None => "contexts/erasures".into(),
    };
    let answer = command_runtime()?.block_on(environment.api.get(&environment.path(&path)))?;
    let mut out = std::io::stdout().lock();
    if arguments.id.is_some() {
        writeln!(out, "{}", serde_json::to_string_pretty(&answer)?)?;
        return Ok(());
    }
    let columns = ["id", "state", "step", "at", "contexts"].map(str::to_owned);
    let row = |erasure: &Value| {
        let text = |name: &str| erasure[name].as_str().unwrap_or_default().to_owned();
        vec![text("id"), text("state"), text("step"), text("at"), erasure["progress"]["contexts"].to_string()]
    };
    let rows: Vec<_> = answer["items"].as_array().into_iter().flatten().map(row).collect();
    out.write_all(text_table::render(&columns, &rows).as_bytes())?;
    Ok(())
}
