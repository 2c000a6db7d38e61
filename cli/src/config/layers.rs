//! Reads the layers of the configuration and lays one over the other.
//!
//! A mistake in a lower layer is reported even when a higher one covers it: it would show up on the day the cover goes.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::check::{self, Mistake, Mistakes, RENAMED, SECTIONS, shown};
use super::{Settings, relations};

/// Prefix of environment variables that are settings.
const PREFIX: &str = "TIDEGATE__";

/// Where settings come from, lowest first.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    pub file: Option<PathBuf>,
    /// The environment of the process; variables without our prefix are passed over.
    pub variables: Vec<(String, String)>,
    pub flags: Vec<Flag>,
}

/// A flag of the command line that is also a setting.
#[derive(Clone, Debug)]
pub struct Flag {
    pub name: &'static str,
    pub path: &'static str,
    pub value: String,
}

/// One setting as one layer gives it.
struct Given {
    path: Vec<String>,
    value: GivenValue,
    origin: String,
}

enum GivenValue {
    Typed(Value),
    /// From a variable or flag, which know only text.
    Text(String),
}

/// Resolves all layers into checked settings, or says everything that is wrong with them.
pub fn load(layers: &Layers) -> Result<Settings, Mistakes> {
    let mut mistakes = Vec::new();
    let mut given = Vec::new();
    if let Some(file) = &layers.file {
        match read_file(file) {
            Ok(table) => given.extend(of_file(file, table)),
            Err(mistake) => mistakes.push(mistake),
        }
    }
    given.extend(of_variables(&layers.variables));
    given.extend(layers.flags.iter().map(|flag| Given {
        path: flag.path.split('.').map(str::to_owned).collect(),
        value: GivenValue::Text(flag.value.clone()),
        origin: format!("flag --{}", flag.name),
    }));

    let mut tree = Table::new();
    for setting in given {
        match accept(&setting) {
            Ok(value) => put(&mut tree, &setting.path, value),
            Err(found) => mistakes.extend(found),
        }
    }
    // What is wrong was left out of the tree, so that relations between the rest are judged in the same run.
    match tree.try_into::<Settings>() {
        Ok(settings) => {
            mistakes.extend(relations::mistakes(&settings));
            if mistakes.is_empty() { Ok(settings) } else { Err(Mistakes(mistakes)) }
        }
        Err(error) => {
            if mistakes.is_empty() {
                mistakes.push(Mistake {
                    path: "configuration".into(),
                    value: None,
                    problem: error.message().to_owned(),
                    origin: String::new(),
                });
            }
            Err(Mistakes(mistakes))
        }
    }
}

fn read_file(file: &Path) -> Result<Table, Mistake> {
    let mistake = |problem| Mistake { path: file.display().to_string(), value: None, problem, origin: String::new() };
    let text = std::fs::read_to_string(file).map_err(|error| mistake(format!("cannot be read: {error}")))?;
    text.parse::<Table>().map_err(|error| {
        // Not the error's own display: it quotes the line, which may hold a key.
        let at = error.span().map_or(0, |span| span.start);
        let before = text.get(..at).unwrap_or(&text);
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        mistake(format!("is not TOML: line {line}, column {column}: {}", error.message().replace('\n', ", ")))
    })
}

fn of_file(file: &Path, table: Table) -> Vec<Given> {
    let origin = file.display().to_string();
    let mut given = Vec::new();
    for (name, value) in table {
        match value {
            Value::Table(section) if SECTIONS.contains(&name.as_str()) => {
                given.extend(section.into_iter().map(|(key, value)| Given {
                    path: vec![name.clone(), key],
                    value: GivenValue::Typed(value),
                    origin: origin.clone(),
                }));
            }
            value => {
                given.push(Given { path: vec![name], value: GivenValue::Typed(value), origin: origin.clone() });
            }
        }
    }
    given
}

fn of_variables(variables: &[(String, String)]) -> Vec<Given> {
    let mut given: Vec<_> = variables
        .iter()
        .filter_map(|(name, text)| {
            let path = name.strip_prefix(PREFIX)?.split("__").map(str::to_ascii_lowercase).collect();
            Some(Given { path, value: GivenValue::Text(text.clone()), origin: format!("environment variable {name}") })
        })
        .collect();
    given.sort_by(|a, b| a.path.cmp(&b.path));
    given
}

/// The value to put into the tree, or what is wrong with it.
fn accept(given: &Given) -> Result<Value, Vec<Mistake>> {
    let check = |value: &Value| {
        let found = check::check(&given.path, value, RENAMED);
        if found.is_empty() { Ok(value.clone()) } else { Err(found) }
    };
    let result = match &given.value {
        GivenValue::Typed(value) => check(value),
        GivenValue::Text(text) => {
            let plain = check(&Value::String(text.clone()));
            // Text first, since most settings are text; a number, a truth value or a list reads as TOML.
            match (plain, parsed(text)) {
                (Err(_), Some(value)) => check(&value),
                (plain, _) => plain,
            }
        }
    };
    result.map_err(|found| {
        found
            .into_iter()
            .map(|(path, value, problem)| Mistake {
                value: value.map(|value| shown(&path, &value)),
                path,
                problem,
                origin: given.origin.clone(),
            })
            .collect()
    })
}

fn parsed(text: &str) -> Option<Value> {
    format!("value = {text}").parse::<Table>().ok()?.remove("value")
}

fn put(tree: &mut Table, path: &[String], value: Value) {
    let [first, rest @ ..] = path else { return };
    if rest.is_empty() {
        tree.insert(first.clone(), value);
        return;
    }
    let entry = tree.entry(first.clone()).or_insert_with(|| Value::Table(Table::new()));
    if !entry.is_table() {
        *entry = Value::Table(Table::new());
    }
    if let Value::Table(table) = entry {
        put(table, rest, value);
    }
}
