//! What a process does: everything, or the part of it that several processes share.
//!
//! In: the subcommand. Out: settings in which the other stages are off. A part needs what the processes have in common: a
//! log on Kafka, tables outside of the data directory, and the same keys.

use std::fmt::Write;

use eventlog::config::Kind;
use runtime::DurationText;

use crate::UsageError;
use crate::config::Settings;

/// Named after its subcommand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    Serve,
    Ingest,
    Compact,
    Index,
    Api,
}

impl Task {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Serve => "serve",
            Self::Ingest => "ingest",
            Self::Compact => "compact",
            Self::Index => "index",
            Self::Api => "api",
        }
    }

    pub fn takes_events(self) -> bool {
        matches!(self, Self::Serve | Self::Ingest)
    }

    /// Whether other processes may do the same on the same log.
    pub fn is_shared(self) -> bool {
        self != Self::Serve
    }

    /// Whether it answers searches by asking the processes that have the shards.
    pub fn asks_peers(self) -> bool {
        self == Self::Api
    }

    /// Switches off what is not to be done.
    ///
    /// # Errors
    /// All that the configuration lacks for a part.
    pub fn prepare(self, settings: &mut Settings) -> Result<(), UsageError> {
        if !self.is_shared() {
            return Ok(());
        }
        let mut lacks = String::new();
        let mut lack = |what: &str| write!(lacks, "\n  {what}").expect("a text takes all that is written to it");
        if settings.log.kind != Kind::Kafka {
            lack("log.kind: expected \"kafka\", as an embedded log belongs to one process");
        }
        if settings.storage.url.is_empty() {
            lack("storage.url: expected a place that all processes reach, as in \"s3://bucket/prefix\"");
        }
        if self != Self::Compact && settings.environments.is_empty() {
            lack("environments: expected at least one, as keys made for development belong to one process");
        }
        if self.asks_peers() && settings.api.peers.is_empty() {
            lack("api.peers: expected the addresses of all index processes");
        }
        if self.asks_peers() && settings.api.secret.is_empty() {
            lack("api.secret: expected the one that the index processes have");
        }
        if !lacks.is_empty() {
            return Err(UsageError(format!("tidegate {} shares its work with other processes:{lacks}", self.name())));
        }
        settings.compactor.enabled = self == Self::Compact;
        settings.indexer.enabled = self == Self::Index;
        // One that has just reported a context does not know what others have reported of it since, and would leave out the
        // newest attributes if these are what it remembers. The index passes over what has not changed.
        settings.ingest.sighting_refresh = DurationText::secs(0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use events::EnvironmentConfig;

    use super::*;

    fn shared() -> Settings {
        let mut settings = Settings { environments: vec![EnvironmentConfig::default()], ..Settings::default() };
        settings.log.kind = Kind::Kafka;
        settings.storage.url = "s3://bucket".into();
        settings.api.peers = vec!["http://index-1:8050".into()];
        settings.api.secret = "a-secret-of-the-cluster".into();
        settings
    }

    #[test]
    fn each_task_has_its_stages() {
        let stages = |task: Task| {
            let mut settings = shared();
            task.prepare(&mut settings).unwrap();
            (task.takes_events(), settings.compactor.enabled, settings.indexer.enabled)
        };
        assert_eq!(stages(Task::Serve), (true, true, true));
        assert_eq!(stages(Task::Ingest), (true, false, false));
        assert_eq!(stages(Task::Compact), (false, true, false));
        assert_eq!(stages(Task::Index), (false, false, true));
        assert_eq!(stages(Task::Api), (false, false, false));
    }

    #[test]
    fn everything_that_a_part_lacks_is_told_at_once() {
        let mut settings = Settings::default();
        let text = Task::Index.prepare(&mut settings).unwrap_err().to_string();
        for key in ["tidegate index", "log.kind", "storage.url", "environments"] {
            assert!(text.contains(key), "{key}: {text}");
        }
        assert!(!Task::Compact.prepare(&mut settings).unwrap_err().to_string().contains("environments"));
        let text = Task::Api.prepare(&mut settings).unwrap_err().to_string();
        assert!(text.contains("api.peers") && text.contains("api.secret"), "{text}");
        assert_eq!(settings, Settings::default(), "nothing is changed then");
        Task::Serve.prepare(&mut settings).unwrap();
    }
}
