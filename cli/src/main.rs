//! The program: reads the command line, runs one command, turns its end into an exit code.
//!
//! Read on in [`serve`], which puts all stages together, or [`config`], which every command begins with.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod allocator;
mod args;
mod client;
mod config;
mod contexts;
mod dead_letters;
mod dev_keys;
mod endpoints;
mod index;
mod lake;
mod logging;
mod query;
mod serve;
mod text_table;
mod threads;

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use args::{Arguments, Command, IndexAction, IndexCommand};
use serve::Task;

/// Wrong usage or configuration; clap exits with the same code.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    allocator::keep_little();
    let arguments = Arguments::parse();
    match run(arguments.command) {
        Ok(code) => code,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let mistakes = error.downcast_ref::<config::Mistakes>();
            let text = mistakes.map_or_else(|| format!("{error:#}"), ToString::to_string);
            let _ = writeln!(std::io::stderr(), "tidegate: {text}");
            if mistakes.is_some() || error.is::<UsageError>() { ExitCode::from(USAGE) } else { ExitCode::FAILURE }
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve(arguments) => return serve::run(&arguments, Task::Serve),
        Command::Ingest(arguments) => return serve::run(&arguments, Task::Ingest),
        Command::Compact(arguments) => return serve::run(&arguments, Task::Compact),
        Command::Api(arguments) => return serve::run(&arguments, Task::Api),
        Command::Query(arguments) => query::run(&arguments)?,
        Command::Contexts(arguments) => contexts::run(&arguments)?,
        Command::DeadLetters(args::DeadLetters::List(arguments)) => dead_letters::list(&arguments)?,
        Command::DeadLetters(args::DeadLetters::Show(arguments)) => dead_letters::show(&arguments)?,
        Command::Index(IndexCommand { action, serve: arguments }) => match action {
            None => return serve::run(&arguments, Task::Index),
            Some(IndexAction::Rebuild(arguments)) => index::rebuild(&arguments)?,
            Some(IndexAction::Merge(arguments)) => index::merge(&arguments)?,
            Some(IndexAction::Check(arguments)) => index::check(&arguments)?,
        },
        Command::Config(args::Config::Check(common)) => {
            let settings = config::load(&common.layers())?;
            let environments = settings.environments.len();
            writeln!(std::io::stdout(), "the configuration is right ({environments} environments)")?;
        }
        Command::Config(args::Config::Print(common)) => {
            let settings = config::load(&common.layers())?;
            std::io::stdout().write_all(settings.to_masked_toml()?.as_bytes())?;
        }
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Arguments::command(), "tidegate", &mut std::io::stdout());
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The person asked for something that cannot be; exit code 2.
#[derive(Debug)]
struct UsageError(String);

impl std::fmt::Display for UsageError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

/// `tidegate query … | head` closes our output early; that is no failure.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
    })
}

/// A runtime for a command that does one thing and ends.
fn command_runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}
