//! Names of the topics on the brokers.

use std::sync::Arc;

use events::Topic;

/// Names made from `kafka.topic_prefix`. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Names {
    topics: Arc<[String; 3]>,
}

impl Names {
    pub fn new(prefix: &str) -> Self {
        Self { topics: Arc::new(Topic::ALL.map(|topic| format!("{prefix}{topic}"))) }
    }

    pub fn of(&self, topic: Topic) -> &str {
        &self.topics[topic as usize]
    }

    /// In the order of [`Topic::ALL`].
    pub fn all(&self) -> &[String] {
        &self.topics[..]
    }
}
