//! The `[api]` section.

use std::fmt;
use std::time::Duration;

use runtime::DurationText;
use serde::{Deserialize, Serialize};

/// Shortest secret: one of letters and digits that nobody guesses.
const SECRET_BYTES_MIN: usize = 16;

/// How processes find the shards of an index that is divided among them.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PeersConfig {
    /// Addresses of the processes that may hold shards.
    pub peers: Vec<String>,
    /// What they prove to each other that they belong together by. Empty: shards answer nobody from outside.
    pub secret: String,
    /// Longest time for the shards to answer one question.
    pub deadline: DurationText,
    /// A process that has not answered after this time is made up for by another.
    pub hedge_after: DurationText,
}

impl Default for PeersConfig {
    fn default() -> Self {
        Self {
            peers: Vec::new(),
            secret: String::new(),
            deadline: DurationText::secs(2),
            hedge_after: DurationText::millis(500),
        }
    }
}

impl fmt::Debug for PeersConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeersConfig")
            .field("peers", &self.peers)
            .field("deadline", &self.deadline)
            .field("hedge_after", &self.hedge_after)
            .finish_non_exhaustive()
    }
}

impl PeersConfig {
    /// Key path and what was expected there, of everything that is wrong.
    pub fn mistakes(&self) -> Vec<(&'static str, String)> {
        let mut mistakes = Vec::new();
        if !self.secret.is_empty()
            && (self.secret.len() < SECRET_BYTES_MIN || !self.secret.bytes().all(|byte| byte.is_ascii_graphic()))
        {
            mistakes.push(("api.secret", format!("at least {SECRET_BYTES_MIN} printable characters without blanks")));
        }
        if self.peers.iter().any(|peer| !is_address(peer)) {
            mistakes.push(("api.peers", "addresses such as \"http://index-1:8050\", without a path".to_owned()));
        }
        if !(Duration::from_millis(50)..=Duration::from_secs(60)).contains(&self.deadline.get()) {
            mistakes.push(("api.deadline", "from 50ms to 1m".to_owned()));
        }
        if self.hedge_after.get() >= self.deadline.get() {
            mistakes.push(("api.hedge_after", format!("less than api.deadline, {}", self.deadline)));
        }
        mistakes
    }
}

fn is_address(peer: &str) -> bool {
    peer.strip_prefix("http://")
        .is_some_and(|rest| rest.parse::<http::uri::Authority>().is_ok_and(|authority| authority.port().is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_mistakes_are_told() {
        assert_eq!(PeersConfig::default().mistakes(), []);
        let right = PeersConfig {
            peers: vec!["http://index-1:8050".into(), "http://[::1]:8050".into()],
            secret: "a-secret-of-the-cluster".into(),
            ..PeersConfig::default()
        };
        assert_eq!(right.mistakes(), []);
        assert!(!format!("{right:?}").contains("a-secret"));
        for peer in ["index-1:8050", "https://index-1:8050", "http://index-1", "http://index-1:8050/api", "http://"] {
            let wrong = PeersConfig { peers: vec![peer.into()], ..PeersConfig::default() };
            assert_eq!(wrong.mistakes().len(), 1, "{peer}");
        }
        let wrong = PeersConfig {
            peers: vec!["index-1".into()],
            secret: "short".into(),
            deadline: DurationText::millis(10),
            hedge_after: DurationText::secs(3),
        };
        assert_eq!(wrong.mistakes().len(), 4);
    }
}
