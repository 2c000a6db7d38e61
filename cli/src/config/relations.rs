//! What settings must fulfil together, after each one alone is right.

use std::collections::HashMap;

use runtime::ByteSize;

use super::check::{Mistake, shown};
use super::{Settings, mask};

/// Schemes of `storage.url`: local files and the buckets of three clouds, as `object_store` names them.
const STORAGE_SCHEMES: [&str; 8] = ["file", "s3", "s3a", "gs", "az", "azure", "abfs", "abfss"];

/// More partitions than this would be more files and shards than one machine has a use for.
const PARTITIONS_MAX: u32 = 256;

/// Everything in `settings` that contradicts something else or cannot be served by this version.
pub fn mistakes(settings: &Settings) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    of_sections(settings, &mut mistakes);
    of_places(settings, &mut mistakes);
    of_environments(settings, &mut mistakes);
    of_tokens(settings, &mut mistakes);
    mistakes
}

fn mistake(path: impl Into<String>, value: Option<String>, problem: impl Into<String>) -> Mistake {
    Mistake { path: path.into(), value, problem: problem.into(), origin: String::new() }
}

fn of_sections(settings: &Settings, mistakes: &mut Vec<Mistake>) {
    let found = settings.compactor.mistakes().into_iter().chain(settings.indexer.mistakes());
    let found = found.chain(settings.api.mistakes());
    mistakes.extend(found.map(|(path, expected)| mistake(path, None, format!("expected {expected}"))));
    for problem in settings.ingest.problems() {
        let (path, expected) = problem.split_once(": ").unwrap_or(("ingest", &problem));
        mistakes.push(mistake(path, None, expected));
    }
    of_log(&settings.log, mistakes);
    of_kafka(settings, mistakes);
}

fn of_kafka(settings: &Settings, mistakes: &mut Vec<Mistake>) {
    let kafka = &settings.kafka;
    mistakes.extend(kafka.mistakes().into_iter().map(|(path, problem)| mistake(path, None, problem)));
    if settings.log.kind != eventlog::config::Kind::Kafka {
        return;
    }
    // The compactor looks back as far after a restart.
    let window = settings.compactor.dedup_window;
    if kafka.retention < window {
        let problem = format!("expected at least compactor.dedup_window, {window}");
        mistakes.push(mistake("kafka.retention", Some(kafka.retention.to_string()), problem));
    }
    // Otherwise a client is told to come back while its events may still be stored.
    let most = settings.ingest.append_timeout;
    if kafka.message_timeout >= most {
        let problem = format!("expected less than ingest.append_timeout, {most}");
        mistakes.push(mistake("kafka.message_timeout", Some(kafka.message_timeout.to_string()), problem));
    }
    // Otherwise a client is told to come back before the local disk has been asked.
    if kafka.spill_max.0 > 0 && kafka.spill_after >= most {
        let problem = format!("expected less than ingest.append_timeout, {most}");
        mistakes.push(mistake("kafka.spill_after", Some(kafka.spill_after.to_string()), problem));
    }
    // A body can become one record. What cannot be packed grows by its bookkeeping, and no body doubles.
    let least = ByteSize(2 * settings.ingest.body_bytes_max.0);
    if kafka.record_bytes_max < least {
        let problem = format!("expected at least twice ingest.body_bytes_max, {least}");
        mistakes.push(mistake("kafka.record_bytes_max", Some(kafka.record_bytes_max.to_string()), problem));
    }
}

fn of_log(log: &eventlog::Config, mistakes: &mut Vec<Mistake>) {
    let partitions = [
        ("log.events_partitions", log.events_partitions),
        ("log.contexts_partitions", log.contexts_partitions),
        ("log.dead_letters_partitions", log.dead_letters_partitions),
    ];
    for (path, count) in partitions {
        if !(1..=PARTITIONS_MAX).contains(&count) {
            mistakes.push(mistake(
                path,
                Some(count.to_string()),
                format!("expected a number from 1 to {PARTITIONS_MAX}"),
            ));
        }
    }
    // Retention removes whole segments, and stops short of the one that is being written.
    let sizes = [
        ("log.segment_bytes", log.segment_bytes, "log.retention_bytes", log.retention_bytes),
        ("log.retention_bytes", log.retention_bytes, "log.bytes_max", log.bytes_max),
    ];
    for (path, size, larger_path, larger) in sizes {
        if size > larger {
            mistakes.push(mistake(path, Some(size.to_string()), format!("expected at most {larger_path}, {larger}")));
        }
    }
}

fn of_places(settings: &Settings, mistakes: &mut Vec<Mistake>) {
    if settings.data_dir.as_os_str().is_empty() {
        mistakes.push(mistake("data_dir", Some("\"\"".into()), "expected the path of a folder"));
    }
    if let Some((scheme, _)) = settings.storage.url.split_once("://")
        && !STORAGE_SCHEMES.contains(&scheme)
    {
        mistakes.push(mistake(
            "storage.url",
            Some(shown("storage.url", &toml::Value::String(settings.storage.url.clone()))),
            format!("expected a local path, or a URL that begins with one of {}", STORAGE_SCHEMES.join(", ")),
        ));
    }
}

fn of_environments(settings: &Settings, mistakes: &mut Vec<Mistake>) {
    let mut places: HashMap<(&str, &str), usize> = HashMap::new();
    let mut keys: HashMap<&str, String> = HashMap::new();
    for (index, environment) in settings.environments.iter().enumerate() {
        let path = format!("environments[{index}]");
        for (name, text) in [("project", &environment.project), ("key", &environment.key)] {
            if text.is_empty() || text.chars().any(char::is_control) {
                mistakes.push(mistake(
                    format!("{path}.{name}"),
                    Some(format!("{text:?}")),
                    "expected a name, not empty and without control characters",
                ));
            }
        }
        if let Some(first) = places.insert((&environment.project, &environment.key), index) {
            let pair = format!("{}/{}", environment.project, environment.key);
            mistakes.push(mistake(&path, None, format!("the environment {pair} is already environments[{first}]")));
        }
        let lists = [
            ("sdk_keys", &environment.sdk_keys),
            ("mobile_keys", &environment.mobile_keys),
            ("client_side_ids", &environment.client_side_ids),
        ];
        for (name, list) in lists {
            for (nth, key) in list.iter().enumerate() {
                let path = format!("{path}.{name}[{nth}]");
                if !is_credential(key) {
                    mistakes.push(mistake(path, Some(mask::mask(key)), CREDENTIAL));
                } else if let Some(first) = keys.get(key.as_str()) {
                    // One key must lead to one environment, whatever the path family.
                    mistakes.push(mistake(path, Some(mask::mask(key)), format!("the same key is already {first}")));
                } else {
                    keys.insert(key, path);
                }
            }
        }
    }
}

fn of_tokens(settings: &Settings, mistakes: &mut Vec<Mistake>) {
    let mut tokens: HashMap<&str, usize> = HashMap::new();
    for (index, token) in settings.api_tokens.iter().enumerate() {
        let path = format!("api_tokens[{index}].token");
        if !is_credential(&token.token) {
            mistakes.push(mistake(path, Some(mask::mask(&token.token)), CREDENTIAL));
        } else if let Some(first) = tokens.insert(&token.token, index) {
            let problem = format!("the same token is already api_tokens[{first}]");
            mistakes.push(mistake(path, Some(mask::mask(&token.token)), problem));
        }
    }
}

const CREDENTIAL: &str = "expected printable characters without blanks, at least one";

/// Whether a text can be sent as a credential in a header or path.
fn is_credential(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}
