//! The newest state of one context, or of one combination of contexts, as the index stores it.
//!
//! Stored as JSON in the document: `kind`, `key`, the context's own JSON kept as text so that an answer can pass it on
//! without parsing, and the times by which states are ordered.
//!
//! An instance of several parts is a state of its own, of kind `multi` and with the canonical key as its key. A context that
//! was seen alone is an instance too; that is noted in the state of the context, as a state of its own for each would make
//! the index half as large again. What was deleted is kept as a state that no application has seen, so that the table of
//! states learns of it, until retention removes it. What was erased leaves a state of kind [`ERASED_KIND`] with a hash for a
//! key, which holds off whatever was received before and comes late.

use events::{ContextState, Environment};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value, json};

use crate::terms::EnvironmentPrefix;
use crate::{Error, Result};

/// Applications remembered per context; beyond, the one seen longest ago is forgotten.
pub const APPLICATIONS_MAX: usize = 16;

/// Kind of the states of instances of several parts: no context can have it.
pub const INSTANCE_KIND: &str = "multi";
/// Kind of the states that say until when a context is erased: no context can have it.
pub const ERASED_KIND: &str = "!erased";
/// In the table, where a context has only one list of applications, names with this before them stand for `alone`. No name
/// that came with a request can hold a zero.
const ALONE_MARK: &str = "alone\0";

/// The newest state of a context.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ContextRecord {
    /// Keys of project and environment: terms hold only their hash, and whoever reads the stored state alone needs both.
    pub project: String,
    pub environment: String,
    pub kind: String,
    pub key: String,
    /// `kind`, `key`, attributes and `_meta.redactedAttributes` as JSON.
    pub context: Box<RawValue>,
    /// Anonymous contexts are kept, so that a later sighting of the key alone does not list them, but never found.
    pub anonymous: bool,
    /// Newest time seen, microseconds.
    pub last_seen: i64,
    /// When the sighting that gave the attributes was made, microseconds; the smallest number if only keys were seen.
    pub attributes_at: i64,
    /// Hash of the attributes as that sighting brought them.
    pub content: u64,
    /// When each application saw it last. The empty text stands for senders that did not say what they are.
    pub applications: Vec<(String, i64)>,
    /// When each application saw it alone, not as a part of a combination.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alone: Vec<(String, i64)>,
}

impl ContextRecord {
    /// Says that what was received of a context up to `until` is erased. Looks deleted to whoever does not know the kind.
    pub fn erasure(environment: &Environment, hash: u128, until: i64) -> Self {
        let key = format!("{hash:032x}");
        let context = json!({ "kind": ERASED_KIND, "key": &key });
        Self {
            project: (*environment.project).to_owned(),
            environment: (*environment.key).to_owned(),
            kind: ERASED_KIND.to_owned(),
            key,
            context: to_raw_value(&context).expect("texts are written without fail"),
            anonymous: false,
            last_seen: until,
            attributes_at: until,
            content: 0,
            applications: Vec::new(),
            alone: Vec::new(),
        }
    }

    pub fn is_erasure(&self) -> bool {
        self.kind == ERASED_KIND
    }

    /// The term by which this state is found and replaced.
    pub fn identity(&self, environment: &EnvironmentPrefix) -> Vec<u8> {
        Self::identity_of(&self.kind, &self.key, environment)
    }

    /// The same of the state with this kind and key.
    pub fn identity_of(kind: &str, key: &str, environment: &EnvironmentPrefix) -> Vec<u8> {
        let hash = if kind == ERASED_KIND { u128::from_str_radix(key, 16).ok() } else { None };
        hash.map_or_else(|| environment.identity(kind, key), |hash| environment.erased(hash))
    }

    /// Whether this is a combination of several parts.
    pub fn is_instance(&self) -> bool {
        self.kind == INSTANCE_KIND
    }

    /// Whether it was deleted, and not seen since.
    pub fn is_deleted(&self) -> bool {
        self.applications.is_empty()
    }

    /// Whether searches may find it.
    pub fn is_listed(&self) -> bool {
        !self.anonymous && !self.is_deleted()
    }

    /// When it was last seen alone, microseconds.
    pub fn alone_at(&self) -> Option<i64> {
        self.alone.iter().map(|(_, at)| *at).max()
    }

    /// The context as a JSON object.
    pub fn parsed(&self) -> Map<String, Value> {
        serde_json::from_str(self.context.get()).unwrap_or_default()
    }

    pub fn to_text(&self) -> String {
        serde_json::to_string(self).expect("texts, numbers and JSON are written without fail")
    }

    /// # Errors
    /// `Damaged` if these are not bytes of [`Self::to_text`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        serde_json::from_slice(bytes)
            .map_err(|error| Error::Damaged { what: format!("stored context does not read: {error}") })
    }

    /// Memory held, about.
    pub fn bytes(&self) -> usize {
        let applications = self.applications.iter().chain(&self.alone).map(|(name, _)| name.len() + 32).sum::<usize>();
        let names = self.project.len() + self.environment.len() + self.kind.len() + 2 * self.key.len();
        256 + names + self.context.get().len() + applications
    }
}

impl From<ContextRecord> for ContextState {
    fn from(record: ContextRecord) -> Self {
        Self {
            project: record.project,
            environment: record.environment,
            kind: record.kind,
            key: record.key,
            anonymous: record.anonymous,
            last_seen: record.last_seen,
            attributes_at: (record.attributes_at > i64::MIN).then_some(record.attributes_at),
            content: record.content,
            applications: record.applications.into_iter().chain(record.alone.into_iter().map(marked)).collect(),
            context: Box::<str>::from(record.context).into(),
        }
    }
}

fn marked((name, at): (String, i64)) -> (String, i64) {
    (format!("{ALONE_MARK}{name}"), at)
}

impl TryFrom<ContextState> for ContextRecord {
    type Error = Error;

    /// # Errors
    /// `Damaged` if the context is no JSON.
    fn try_from(state: ContextState) -> Result<Self> {
        let unreadable = |error| Error::Damaged { what: format!("context of a table does not read: {error}") };
        let mut alone = Vec::new();
        let mut applications = state.applications;
        applications.retain(|(name, at)| match name.strip_prefix(ALONE_MARK) {
            Some(name) => {
                alone.push((name.to_owned(), *at));
                false
            }
            None => true,
        });
        Ok(Self {
            alone,
            context: RawValue::from_string(state.context).map_err(unreadable)?,
            project: state.project,
            environment: state.environment,
            kind: state.kind,
            key: state.key,
            anonymous: state.anonymous,
            last_seen: state.last_seen,
            attributes_at: state.attributes_at.unwrap_or(i64::MIN),
            content: state.content,
            applications,
        })
    }
}
