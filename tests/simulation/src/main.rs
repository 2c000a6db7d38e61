//! The whole pipeline on one seed: real state machines, simulated log, store, clients, time and chance.
//!
//! `plan` draws what a seed holds; `story` lives it. `world` is what all share, `node` a process that may die or stand
//! still, `log` and `store` the two services with their faults, `ingests`, `compactors` and `indexers` the processes, `client` their
//! users. `watch`, `oracle` and `contexts` say what was promised and not kept; `planted` holds bugs that they must see.
//!
//!     cargo run -p simulation -- --seeds 100000      # seeds 0 to 99,999, on all cores
//!     cargo run -p simulation -- --seed 4711 --tell  # one seed again, with every step
//!     cargo run -p simulation -- --plant no-fencing  # seeds until the planted bug is found

mod client;
mod compactors;
mod contexts;
mod indexers;
mod ingests;
mod log;
mod node;
mod oracle;
mod plan;
mod planted;
mod seeds;
mod store;
mod story;
#[cfg(test)]
mod tests;
mod watch;
mod world;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use planted::Planted;
use story::Options;

/// Runs seeds of the simulation.
#[derive(Parser)]
struct Arguments {
    /// Run this one seed.
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// With --seed: print its plan and every step.
    #[arg(long)]
    tell: bool,
    /// Run so many seeds.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Plant a bug; succeeds if a seed finds it.
    #[arg(long)]
    plant: Option<Planted>,
    /// Count what clients told of contexts, not only what is in the log.
    #[arg(long)]
    strict_contexts: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut out = std::io::stdout().lock();
    let succeeded = match arguments.seed {
        Some(seed) => one(seed, arguments.options(), &mut out),
        None => many(&arguments, &mut out),
    };
    match succeeded {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(_) => ExitCode::FAILURE,
    }
}

impl Arguments {
    fn options(&self) -> Options {
        Options { planted: self.plant, tells: self.tell, strict_contexts: self.strict_contexts }
    }
}

fn one(seed: u64, options: Options, out: &mut impl Write) -> std::io::Result<bool> {
    let outcome = story::run(seed, options);
    if options.tells {
        writeln!(out, "{:#?}", plan::Plan::of(seed))?;
        outcome.told.iter().try_for_each(|step| writeln!(out, "{step}"))?;
    }
    writeln!(out, "seed {seed}: {} steps, hash {:016x}, {:?}", outcome.steps, outcome.hash, outcome.sums)?;
    outcome.violations.iter().try_for_each(|what| writeln!(out, "seed {seed}: {what}"))?;
    Ok(outcome.violations.is_empty() != options.planted.is_some())
}

fn many(arguments: &Arguments, out: &mut impl Write) -> std::io::Result<bool> {
    let options = Options { tells: false, ..arguments.options() };
    let run = seeds::run(arguments.first, arguments.seeds, options);
    for outcome in &run.failed {
        writeln!(out, "{}", seeds::report(outcome, options))?;
    }
    writeln!(out, "{}", run.summary())?;
    Ok(run.failed.is_empty() != arguments.plant.is_some())
}
