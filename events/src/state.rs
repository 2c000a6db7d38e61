//! The newest state of a context, as the index writes it down in the table `contexts` and reads it back.

/// Newest state of one (project, environment, kind, key). Times are UTC microseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextState {
    pub project: String,
    pub environment: String,
    pub kind: String,
    pub key: String,
    pub anonymous: bool,
    pub last_seen: i64,
    /// When the sighting that gave the attributes was made; `None` if only keys were seen.
    pub attributes_at: Option<i64>,
    /// Hash of the attributes as that sighting brought them.
    pub content: u64,
    /// When each application saw it last. The empty text stands for senders that did not say what they are.
    pub applications: Vec<(String, i64)>,
    /// JSON: `kind`, `key`, attributes, `_meta.redactedAttributes`.
    pub context: String,
}

impl ContextState {
    /// Memory held, about.
    pub fn bytes(&self) -> usize {
        let applications: usize = self.applications.iter().map(|(name, _)| name.len() + 32).sum();
        let names = self.project.len() + self.environment.len() + self.kind.len() + self.key.len();
        256 + names + self.context.len() + applications
    }
}
