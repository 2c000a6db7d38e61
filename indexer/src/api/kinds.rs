//! Context kinds of a project: those that events named, and what people said of them.
//!
//! What is known of a kind beyond its key stands in a small file of its own, not in the index: the index comes back from
//! events, and a description does not. The file is written aside and renamed, so that it is the old or the new one.
//! Source: context-search-api section 8.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use events::Environment;
use events::context::is_valid_kind;
use parking_lot::Mutex;
use runtime::UnixMicros;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::Api;
use super::answers::{Answer, Link, Problem, path_segment, to_json};
use super::asker::Lacks;
use crate::ask::Ask;

/// Kinds of one project that are listed and kept. Events may name more; these are found by search all the same.
const KINDS_MAX: usize = 1000;
/// Longest name or description.
const TEXT_BYTES_MAX: usize = 16 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum CreatedFrom {
    Default,
    AutoAdd,
    Manual,
}

/// What is known of a kind. Dates are milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct KindRecord {
    name: String,
    description: String,
    version: i32,
    creation_date: i64,
    last_modified: i64,
    created_from: CreatedFrom,
    #[serde(default)]
    archived: bool,
}

/// By project, then by key.
type Projects = BTreeMap<String, BTreeMap<String, KindRecord>>;

/// The kinds of all projects, kept in a file.
#[derive(Debug)]
pub(super) struct KindBook {
    path: Option<PathBuf>,
    projects: Mutex<Projects>,
    /// Why the file cannot be used; it is then left as it is.
    fault: Option<String>,
}

impl KindBook {
    /// `path`: None keeps what is said in memory alone.
    pub fn open(path: Option<PathBuf>) -> Self {
        let read = path.as_deref().map_or_else(|| Ok(Projects::new()), read_projects);
        let (projects, fault) = match read {
            Ok(projects) => (projects, None),
            Err(fault) => {
                tracing::error!(fault, "context kinds cannot be read; they are listed without what was said of them");
                (Projects::new(), Some(fault))
            }
        };
        Self { path, projects: Mutex::new(projects), fault }
    }

    /// The kinds of a project, those that events named included.
    fn list(&self, project: &str, seen: &[String], now: UnixMicros) -> Result<BTreeMap<String, KindRecord>, Problem> {
        let mut projects = self.projects.lock();
        let known = projects.get(project);
        let missing = |key: &str| known.is_none_or(|kinds| !kinds.contains_key(key));
        let room = KINDS_MAX.saturating_sub(known.map_or(0, BTreeMap::len));
        let mut added: Vec<(String, KindRecord)> = Vec::new();
        if missing("user") {
            added.push(("user".into(), KindRecord::new("User", CreatedFrom::Default, now)));
        }
        let named = seen.iter().filter(|key| *key != "user" && missing(key)).take(room);
        added.extend(named.map(|key| (key.clone(), KindRecord::new(key, CreatedFrom::AutoAdd, now))));
        if !added.is_empty() {
            let mut changed = projects.clone();
            changed.entry(project.to_owned()).or_default().extend(added);
            // A kind that could not be written down is listed all the same, and written with the next question.
            if self.fault.is_none() && self.write(&changed).is_ok() {
                *projects = changed;
            } else {
                return Ok(changed.remove(project).unwrap_or_default());
            }
        }
        Ok(projects.get(project).cloned().unwrap_or_default())
    }

    fn upsert(&self, project: &str, key: &str, wanted: &Wanted, now: UnixMicros) -> Result<(), Problem> {
        if let Some(fault) = &self.fault {
            return Err(Problem::internal(fault.clone()));
        }
        let mut projects = self.projects.lock();
        let mut changed = projects.clone();
        let kinds = changed.entry(project.to_owned()).or_default();
        let is_full = kinds.len() >= KINDS_MAX;
        match kinds.get_mut(key) {
            Some(kind) if wanted.version.is_some_and(|version| version != kind.version) => {
                let message = format!("version: the stored version is {}", kind.version);
                return Err(Problem::invalid(message));
            }
            Some(kind) => {
                wanted.apply(kind);
                kind.version = kind.version.saturating_add(1);
                kind.last_modified = now.as_millis();
            }
            None if is_full => {
                return Err(Problem::invalid(format!("a project has at most {KINDS_MAX} context kinds")));
            }
            None => {
                let mut kind = KindRecord::new(key, CreatedFrom::Manual, now);
                wanted.apply(&mut kind);
                kind.version = wanted.version.unwrap_or(1);
                kinds.insert(key.to_owned(), kind);
            }
        }
        self.write(&changed)
            .map_err(|error| Problem::internal(format!("writing the context kinds failed: {error}")))?;
        *projects = changed;
        Ok(())
    }

    fn write(&self, projects: &Projects) -> std::io::Result<()> {
        use std::io::Write;
        let Some(path) = &self.path else { return Ok(()) };
        let aside = path.with_extension("json.new");
        let mut file = std::fs::File::create(&aside)?;
        file.write_all(&to_json(projects))?;
        file.sync_all()?;
        std::fs::rename(&aside, path)?;
        path.parent().map_or(Ok(()), |folder| std::fs::File::open(folder)?.sync_all())
    }
}

fn read_projects(path: &Path) -> Result<Projects, String> {
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| format!("{}: {error}", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Projects::new()),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

impl KindRecord {
    fn new(name: &str, created_from: CreatedFrom, now: UnixMicros) -> Self {
        Self {
            name: name.to_owned(),
            description: String::new(),
            version: 1,
            creation_date: now.as_millis(),
            last_modified: now.as_millis(),
            created_from,
            archived: false,
        }
    }
}

/// What a PUT says.
#[derive(Debug)]
struct Wanted {
    name: String,
    description: Option<String>,
    archived: Option<bool>,
    version: Option<i32>,
}

impl Wanted {
    fn parse(body: &[u8]) -> Result<Self, Problem> {
        let fields: Map<String, Value> = serde_json::from_slice(body)
            .map_err(|error| Problem::invalid(format!("the body is no JSON object: {error}")))?;
        let text = |name: &str| match fields.get(name) {
            None => Ok(None),
            Some(Value::String(text)) if text.len() <= TEXT_BYTES_MAX => Ok(Some(text.clone())),
            Some(_) => Err(Problem::invalid(format!("{name}: expected a text of at most {TEXT_BYTES_MAX} bytes"))),
        };
        let flag = |name: &str| match fields.get(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(Problem::invalid(format!("{name}: expected true or false"))),
        };
        let name =
            text("name")?.filter(|name| !name.is_empty()).ok_or_else(|| Problem::invalid("name: it is required"))?;
        let (archived, hidden) = (flag("archived")?, flag("hideInTargeting")?);
        if archived.zip(hidden).is_some_and(|(archived, hidden)| archived != hidden) {
            return Err(Problem::invalid("archived and hideInTargeting are the same and must not differ"));
        }
        let version = match fields.get("version") {
            None => None,
            Some(number) => {
                let number = number.as_i64().and_then(|number| i32::try_from(number).ok());
                Some(number.ok_or_else(|| Problem::invalid("version: expected an integer of 32 bits"))?)
            }
        };
        Ok(Self { name, description: text("description")?, archived: archived.or(hidden), version })
    }

    fn apply(&self, kind: &mut KindRecord) {
        kind.name.clone_from(&self.name);
        if let Some(description) = &self.description {
            kind.description.clone_from(description);
        }
        kind.archived = self.archived.unwrap_or(kind.archived);
    }
}

impl Api {
    fn environments_of(&self, project: &str) -> Result<Vec<Environment>, Problem> {
        let of_project = self.access.environments.iter().filter(|environment| &*environment.project == project);
        let environments: Vec<_> = of_project.cloned().collect();
        if environments.is_empty() { Err(Problem::not_found("there is no such project")) } else { Ok(environments) }
    }

    pub(super) async fn context_kinds(
        &self,
        project: &str,
        path: &str,
        query: &str,
        lacks: &Arc<Lacks>,
    ) -> Result<Answer, Problem> {
        let environments = self.environments_of(project)?;
        let is_expanded = query.split('&').any(|pair| pair == "expand=environmentObservations");
        let seen = self.blocking(lacks, move |asker| asker.observed_kinds(environments)).await?;
        let keys: Vec<String> = seen.keys().cloned().collect();
        let kinds = self.kinds.list(project, &keys, self.runtime().clock.now())?;
        let item = |(key, kind): (String, KindRecord)| {
            let observed = seen.get(&key);
            let mut item = json!({
                "key": key, "name": kind.name, "description": kind.description, "version": kind.version,
                "creationDate": kind.creation_date, "lastModified": kind.last_modified,
                "createdFrom": kind.created_from, "archived": kind.archived, "hideInTargeting": kind.archived,
            });
            if let Some(newest) = observed.and_then(|observed| observed.values().max()) {
                item["lastSeen"] = (*newest).into();
            }
            if is_expanded {
                let observed = observed.into_iter().flatten();
                let one = |(environment, at): (&String, &i64)| json!({"environmentKey": environment, "lastSeen": at});
                item["environmentObservations"] = observed.map(one).collect();
            }
            item
        };
        let items: Vec<Value> = kinds.into_iter().map(item).collect();
        Ok(Answer::ok(&json!({"items": items, "_links": {"self": Link::json(path.to_owned())}})))
    }

    pub(super) fn upsert_kind(&self, project: &str, key: &str, body: &[u8]) -> Result<Answer, Problem> {
        self.environments_of(project)?;
        if !is_valid_kind(key) {
            return Err(Problem::invalid(
                "the key of a kind has letters, digits, `.`, `_` and `-`, and is neither `kind` nor `multi`",
            ));
        }
        let wanted = Wanted::parse(body)?;
        self.kinds.upsert(project, key, &wanted, self.runtime().clock.now())?;
        let href = format!("/api/v2/projects/{}/context-kinds", path_segment(project));
        Ok(Answer::ok(&json!({"status": "success", "_links": {"self": Link::json(href)}})))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMicros = UnixMicros::from_millis(1_000);

    #[test]
    fn what_was_said_survives_a_restart_and_damage_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("context-kinds.json");
        let book = KindBook::open(Some(path.clone()));
        let wanted = Wanted::parse(br#"{"name": "Company", "description": "who pays", "version": 4}"#).unwrap();
        book.upsert("shop", "org", &wanted, NOW).unwrap();
        let listed = book.list("shop", &["device".into(), "org".into()], NOW).unwrap();
        assert_eq!(listed.keys().collect::<Vec<_>>(), ["device", "org", "user"]);
        assert_eq!(KindBook::open(Some(path.clone())).list("shop", &[], NOW).unwrap(), listed);
        std::fs::write(&path, b"{").unwrap();
        let damaged = KindBook::open(Some(path.clone()));
        assert_eq!(damaged.list("shop", &["org".into()], NOW).unwrap().len(), 2);
        assert!(damaged.upsert("shop", "org", &wanted, NOW).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"{");
    }

    #[test]
    fn kinds_of_a_project_are_bounded() {
        let book = KindBook::open(None);
        let seen: Vec<String> = (0..5 * KINDS_MAX).map(|number| format!("kind-{number}")).collect();
        assert!(book.list("shop", &seen, NOW).unwrap().len() <= KINDS_MAX + 1);
        let wanted = Wanted::parse(br#"{"name": "One more"}"#).unwrap();
        assert!(book.upsert("shop", "one-more", &wanted, NOW).is_err());
    }
}
