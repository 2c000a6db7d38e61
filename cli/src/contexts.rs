//! `tidegate contexts`: asks the search API of a running server.
//!
//! Here: which environment of which server is meant. The commands are in the modules below.

mod erase;
mod export;
mod names;
mod search;

use std::fmt;

use anyhow::bail;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::UsageError;
use crate::args::{Contexts, Target};
use crate::client::Api;
use crate::config::{self, Settings};
use crate::dev_keys::DevKeys;

pub fn run(command: &Contexts) -> anyhow::Result<()> {
    match command {
        Contexts::Search(arguments) => search::search(arguments),
        Contexts::Export(arguments) => export::export(arguments),
        Contexts::Erase(arguments) => erase::erase(arguments),
        Contexts::Erasures(arguments) => erase::erasures(arguments),
        Contexts::Attributes(arguments) => names::attributes(arguments),
        Contexts::Values(arguments) => names::values(arguments),
    }
}

/// An environment of a server, and the right to ask about it.
struct Environment {
    api: Api,
    project: String,
    key: String,
}

impl Environment {
    fn of(target: &Target) -> anyhow::Result<Self> {
        let settings = config::load(&target.common.layers())?;
        let dev = DevKeys::load(&settings.data_dir)?;
        let (project, key) = place(target, &settings, dev.as_ref())?;
        Ok(Self { api: Api::new(&target.server, &settings, dev.as_ref())?, project, key })
    }

    /// Path of what is below the environment. `rest`: encoded.
    fn path(&self, rest: &str) -> String {
        format!("/api/v2/projects/{}/environments/{}/{rest}", encoded(&self.project), encoded(&self.key))
    }
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.project, self.key)
    }
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// Which environment is meant: the named one, or the only one there is.
fn place(target: &Target, settings: &Settings, dev: Option<&DevKeys>) -> anyhow::Result<(String, String)> {
    let known = if settings.environments.is_empty() {
        dev.map_or(&[][..], |keys| &keys.environments)
    } else {
        &settings.environments
    };
    let matches = |given: &Option<String>, key: &str| given.as_ref().is_none_or(|given| given == key);
    let fitting: Vec<_> = known
        .iter()
        .filter(|known| matches(&target.project, &known.project) && matches(&target.environment, &known.key))
        .collect();
    match (fitting.as_slice(), &target.project, &target.environment) {
        ([one], ..) => Ok((one.project.clone(), one.key.clone())),
        // Another server may know environments that this configuration does not.
        (_, Some(project), Some(environment)) => Ok((project.clone(), environment.clone())),
        ([], ..) => bail!(UsageError("which environment? give --project and --environment".into())),
        (several, ..) => {
            let names: Vec<_> = several.iter().map(|known| format!("{}/{}", known.project, known.key)).collect();
            bail!(UsageError(format!("which of {}? give --project and --environment", names.join(", "))))
        }
    }
}
