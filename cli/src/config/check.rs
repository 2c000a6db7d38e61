//! Tries single settings against the struct that owns them, so that every mistake is found and not only the first.
//!
//! In: a key path with its value. Out: nothing, or a [`Mistake`]. The structs of the sections refuse unknown keys and
//! fill the others from defaults, so a table with one key in it is a valid section exactly if that key is right.

use std::fmt;

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::{Settings, mask};

/// Sections and lists of the tree; the scalars at the top are `TOP`.
pub const SECTIONS: &[&str] = &["log", "kafka", "storage", "ingest", "compactor", "indexer", "api", "api_rate_limit"];
pub const LISTS: &[&str] = &["environments", "api_tokens"];
const TOP: &[&str] = &["listen", "data_dir", "api_generation"];

/// Settings that were renamed: old path, new path. The old one is refused with the new name as the answer.
pub const RENAMED: &[(&str, &str)] = &[];

/// One thing that is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// `section.key`, or the name of the file for a mistake of the whole file.
    pub path: String,
    /// As given, masked if it is a secret; absent if the key itself is the mistake.
    pub value: Option<String>,
    /// What is wrong or was expected.
    pub problem: String,
    /// File, variable or flag.
    pub origin: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)?;
        if let Some(value) = &self.value {
            write!(f, " = {value}")?;
        }
        write!(f, ": {}", self.problem)?;
        if self.origin.is_empty() { Ok(()) } else { write!(f, " ({})", self.origin) }
    }
}

/// All mistakes of a configuration, at least one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mistakes(pub Vec<Mistake>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        write!(f, "the configuration has {count} mistake{}", if count == 1 { "" } else { "s" })?;
        self.0.iter().try_for_each(|mistake| write!(f, "\n  {mistake}"))
    }
}

impl std::error::Error for Mistakes {}

/// The value as a person may see it.
pub fn shown(path: &str, value: &Value) -> String {
    let mut value = value.clone();
    let names: Vec<&str> = path.split('.').map(|step| step.split('[').next().unwrap_or(step)).collect();
    // Whatever stands in the place of an entry with keys may be a key.
    let is_entry = LISTS.contains(&path.split(['.', '[']).next().unwrap_or(path)) && names.len() == 1;
    match &mut value {
        value if is_entry && !value.is_table() => mask::mask_value(value),
        value if names.iter().any(|name| mask::is_secret(name)) => mask::mask_value(value),
        Value::Table(table) => mask::mask_table(table),
        _ => {}
    }
    let text = value.to_string();
    if text.chars().count() <= 100 { text } else { text.chars().take(100).chain("…".chars()).collect() }
}

/// What is wrong with `path = value`; nothing if it is right. A path has one step (`listen`), two (`log.kind`), or
/// three for the free tables `storage.options` and `kafka.librdkafka`.
pub fn check(path: &[String], value: &Value, renamed: &[(&str, &str)]) -> Vec<(String, Option<Value>, String)> {
    let whole = path.join(".");
    if let Some((_, new)) = renamed.iter().find(|(old, _)| *old == whole) {
        return vec![(whole, None, format!("is called {new} now"))];
    }
    let first = path[0].as_str();
    match path {
        [name] if LISTS.contains(&name.as_str()) => check_list(name, value),
        [name] if SECTIONS.contains(&name.as_str()) => {
            vec![(whole, Some(value.clone()), format!("expected a section, written [{name}]"))]
        }
        [name] => found(&whole, value, one_key::<Settings>(name, value), TOP),
        [section, key, rest @ ..] if SECTIONS.contains(&section.as_str()) => {
            let nested = rest
                .iter()
                .rev()
                .fold(value.clone(), |value, step| Value::Table(Table::from_iter([(step.clone(), value)])));
            found(&whole, value, in_section(section, key, &nested), &[])
        }
        _ => vec![(whole, None, unknown(first, &all_names()))],
    }
}

fn all_names() -> Vec<String> {
    [TOP, SECTIONS, LISTS].concat().into_iter().map(str::to_owned).collect()
}

fn check_list(name: &str, value: &Value) -> Vec<(String, Option<Value>, String)> {
    let Value::Array(entries) = value else {
        return vec![(
            name.to_owned(),
            Some(value.clone()),
            format!("expected a list of entries, each written [[{name}]]"),
        )];
    };
    let required: &[&str] = if name == "environments" { &["project", "key"] } else { &["token"] };
    let mut mistakes = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let path = format!("{name}[{index}]");
        let Value::Table(entry) = entry else {
            mistakes.push((path, Some(entry.clone()), format!("expected an entry, written [[{name}]]")));
            continue;
        };
        for key in required.iter().filter(|key| !entry.contains_key(**key)) {
            mistakes.push((format!("{path}.{key}"), None, "is missing".to_owned()));
        }
        for (key, value) in entry {
            let mut table: Table =
                required.iter().map(|key| ((*key).to_owned(), Value::String("placeholder".into()))).collect();
            table.insert(key.clone(), value.clone());
            let fits = match name {
                "environments" => fits::<events::EnvironmentConfig>(table),
                _ => fits::<super::ApiTokenConfig>(table),
            };
            mistakes.extend(found(&format!("{path}.{key}"), value, fits, &[]));
        }
    }
    mistakes
}

fn in_section(section: &str, key: &str, value: &Value) -> Result<(), String> {
    match section {
        "log" => one_key::<eventlog::Config>(key, value),
        "kafka" => one_key::<eventlog::kafka::Config>(key, value),
        "storage" => one_key::<compactor::StorageConfig>(key, value),
        "ingest" => one_key::<ingest::Config>(key, value),
        "compactor" => one_key::<compactor::Config>(key, value),
        "indexer" => one_key::<indexer::Config>(key, value),
        "api" => one_key::<indexer::PeersConfig>(key, value),
        _ => one_key::<indexer::api::RateLimits>(key, value),
    }
}

/// Names of all keys that a section knows, as its struct itself lists them when asked for one that cannot exist.
#[cfg(test)]
pub fn keys_of(section: &str) -> Vec<String> {
    let message = in_section(section, "\u{0}", &Value::Boolean(true)).unwrap_err();
    unknown_field(&message).map(|(_, names)| names).unwrap_or_default()
}

fn one_key<T: DeserializeOwned>(key: &str, value: &Value) -> Result<(), String> {
    fits::<T>(Table::from_iter([(key.to_owned(), value.clone())]))
}

fn fits<T: DeserializeOwned>(table: Table) -> Result<(), String> {
    table.try_into::<T>().map(|_| ()).map_err(|error| error.message().to_owned())
}

fn found(path: &str, value: &Value, fits: Result<(), String>, names: &[&str]) -> Vec<(String, Option<Value>, String)> {
    let Err(message) = fits else { return Vec::new() };
    let key = path.rsplit('.').next().unwrap_or(path);
    match unknown_field(&message) {
        Some((_, known)) => {
            let known = if names.is_empty() { known } else { all_names() };
            vec![(path.to_owned(), None, unknown(key, &known))]
        }
        None => vec![(path.to_owned(), Some(value.clone()), expectation(&message))],
    }
}

/// Splits serde's "unknown field `a`, expected one of `b`, `c`" into `a` and [`b`, `c`].
fn unknown_field(message: &str) -> Option<(String, Vec<String>)> {
    let rest = message.strip_prefix("unknown field `")?;
    let (name, rest) = rest.split_once('`')?;
    let known = rest.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    Some((name.to_owned(), known))
}

fn unknown(key: &str, known: &[String]) -> String {
    match known.iter().map(|name| (distance(key, name), name)).min() {
        Some((distance, name)) if distance <= 2.max(key.len() / 3) => {
            format!("there is no such setting; did you mean {name}?")
        }
        _ => format!("there is no such setting; known here: {}", known.join(", ")),
    }
}

/// The part of a message of serde, TOML or our units that tells what should have been there.
fn expectation(message: &str) -> String {
    let what = message.rfind("expected ").map_or(message, |at| &message[at + "expected ".len()..]);
    let what = what.rfind(", got ").map_or(what, |at| &what[..at]);
    let what = match what {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, not negative",
        "i32" | "i64" => "a whole number",
        "f32" | "f64" => "a number",
        "a boolean" => "true or false, without quotes",
        "a string" | "path string" | "string" => "text in quotes",
        "a sequence" => "a list, such as [\"a\", \"b\"]",
        what if what.contains("socket address") => "an address with a port, such as \"127.0.0.1:8030\"",
        what => what,
    };
    format!("expected {what}")
}

/// Edits (insertions, deletions, replacements, swaps excluded) that turn one name into the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, right) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(left != *right);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
