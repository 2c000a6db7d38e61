//! What is written down of one erasure, and how it is shown.

use std::io::Write;
use std::path::{Path, PathBuf};

use events::Environment;
use indexer::ContextName;
use indexer::api::{AskedErasure, ErasureSubject, Role};
use runtime::UnixMicros;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::certificate::{sha256, shown_time};

/// Version of the record.
const VERSION: u32 = 1;

/// Steps, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    Scheduled,
    Resolving,
    Telling,
    Indexing,
    Events,
    States,
    Merging,
    Copying,
    Certifying,
    Done,
}

impl Step {
    /// Steps of which progress is told.
    pub const COUNT: u64 = Self::Done as u64;
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Subject {
    Filter(String),
    Contexts(Vec<ContextName>),
}

impl Subject {
    /// Names what was asked, without telling it.
    pub fn sha256(&self) -> String {
        match self {
            Self::Filter(text) => sha256(text.trim().as_bytes()),
            Self::Contexts(names) => sha256_of(names),
        }
    }
}

/// SHA-256 of a context: of its kind, a zero byte and its key.
pub fn sha256_of_one((kind, key): &ContextName) -> String {
    sha256(&[kind.as_bytes(), b"\0", key.as_bytes()].concat())
}

/// SHA-256 of several: of theirs, sorted, a line each.
pub fn sha256_of(names: &[ContextName]) -> String {
    let mut lines: Vec<String> = names.iter().map(|name| sha256_of_one(name) + "\n").collect();
    lines.sort_unstable();
    sha256(lines.concat().as_bytes())
}

/// The contexts that are worked on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Window {
    pub number: u64,
    pub contexts: Vec<ContextName>,
    /// There are no more after these.
    pub is_last: bool,
    /// Per partition of the log: the first offset after what says that they are to be erased.
    pub told: Vec<i64>,
}

/// What was done in one table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TableDone {
    pub searched_files: u64,
    pub foreign_files: u64,
    pub replaced_files: u64,
    pub rows: u64,
    pub version_before: u64,
    pub version_after: u64,
}

/// What was done so far, over all windows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Totals {
    pub contexts: u64,
    /// SHA-256 of the contexts of each window.
    pub windows_sha256: Vec<String>,
    /// Of each context, while there are few.
    pub contexts_sha256: Vec<String>,
    /// Documents of the index when they were named.
    pub documents: u64,
    /// None: the table is not kept by this process.
    pub events: Option<TableDone>,
    pub states: Option<TableDone>,
    /// Per shard: segments that were merged.
    pub merged_segments: Vec<u64>,
    /// Per shard: number of the copy, and objects removed. None: there are no copies.
    pub copies: Option<Vec<(u64, u64)>>,
}

/// One erasure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    version: u32,
    pub id: String,
    pub project: String,
    pub environment: String,
    /// None when it is done.
    pub subject: Option<Subject>,
    pub subject_sha256: String,
    pub is_filter: bool,
    pub role: Role,
    /// Microseconds.
    pub asked_at: i64,
    /// Until when what was received goes, microseconds.
    pub at: i64,
    pub step: Step,
    pub window: Window,
    pub totals: Totals,
    /// Why the step is tried again.
    #[serde(skip)]
    pub waits_for: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Value>,
}

impl Record {
    pub fn new(id: String, asked: AskedErasure, now: UnixMicros) -> Self {
        let subject = match asked.subject {
            ErasureSubject::Filter(text) => Subject::Filter(text),
            ErasureSubject::Contexts(names) => Subject::Contexts(names),
        };
        Self {
            version: VERSION,
            id,
            project: (*asked.environment.project).to_owned(),
            environment: (*asked.environment.key).to_owned(),
            subject_sha256: subject.sha256(),
            is_filter: matches!(subject, Subject::Filter(_)),
            subject: Some(subject),
            role: asked.role,
            asked_at: now.0,
            at: asked.at.0,
            step: Step::Scheduled,
            window: Window::default(),
            totals: Totals::default(),
            waits_for: None,
            certificate: None,
        }
    }

    pub fn environment(&self) -> Environment {
        Environment::new(&self.project, &self.environment)
    }

    pub fn is_of(&self, environment: &Environment) -> bool {
        *environment.project == *self.project && *environment.key == *self.environment
    }

    pub fn is_done(&self) -> bool {
        self.step == Step::Done
    }

    /// As the API shows it.
    pub fn shown(&self) -> Value {
        let state = match self.step {
            Step::Scheduled => "scheduled",
            Step::Done => "done",
            _ => "running",
        };
        let mut shown = json!({
            "id": self.id,
            "state": state,
            "step": self.step,
            "askedAt": shown_time(UnixMicros(self.asked_at)),
            "at": shown_time(UnixMicros(self.at)),
            "byRole": self.role,
            "progress": {
                "contexts": self.totals.contexts,
                "stepsDone": self.step as u64,
                "steps": Step::COUNT,
            },
        });
        match &self.subject {
            Some(Subject::Filter(text)) => shown["filter"] = text.as_str().into(),
            Some(Subject::Contexts(names)) => {
                shown["contexts"] = names.iter().map(|(kind, key)| json!({"kind": kind, "key": key})).collect();
            }
            None => {}
        }
        if let Some(waits_for) = &self.waits_for {
            shown["waitsFor"] = waits_for.as_str().into();
        }
        if let Some(certificate) = &self.certificate {
            shown["certificate"] = certificate.clone();
        }
        shown
    }

    /// Writes it down, whole or not at all; durable when this returns.
    pub fn save(&self, folder: &Path) -> std::io::Result<()> {
        let path = file_of(folder, &self.id);
        let fresh = path.with_extension("json.new");
        let mut file = std::fs::File::create(&fresh)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()?;
        std::fs::rename(&fresh, &path)?;
        std::fs::File::open(folder)?.sync_all()
    }

    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let record: Self = serde_json::from_slice(&std::fs::read(path)?)?;
        anyhow::ensure!(record.version == VERSION, "it is of version {}, not {VERSION}", record.version);
        Ok(record)
    }
}

pub fn file_of(folder: &Path, id: &str) -> PathBuf {
    folder.join(format!("{id}.json"))
}
