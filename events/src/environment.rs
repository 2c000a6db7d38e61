//! Environments: which there are, their keys and the id that the REST API shows.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// One `[[environments]]` entry of the configuration. Keys are credentials: `Debug` does not show them.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvironmentConfig {
    /// Key of the project.
    pub project: String,
    /// Key of the environment within the project.
    pub key: String,
    /// Keys of server-side SDKs. Several, so that an old key stays valid during rotation.
    #[serde(default)]
    pub sdk_keys: Vec<String>,
    /// Keys of mobile SDKs.
    #[serde(default)]
    pub mobile_keys: Vec<String>,
    /// Client-side ids, which browsers put into the path.
    #[serde(default)]
    pub client_side_ids: Vec<String>,
}

impl fmt::Debug for EnvironmentConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnvironmentConfig")
            .field("project", &self.project)
            .field("key", &self.key)
            .field("sdk_keys", &self.sdk_keys.len())
            .field("mobile_keys", &self.mobile_keys.len())
            .field("client_side_ids", &self.client_side_ids.len())
            .finish()
    }
}

/// A project's environment. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Environment {
    pub project: Arc<str>,
    pub key: Arc<str>,
}

impl Environment {
    pub fn new(project: &str, key: &str) -> Self {
        Self { project: project.into(), key: key.into() }
    }

    /// 24 hexadecimal digits, the same for the same pair of keys everywhere: `_environmentId` of the REST API.
    pub fn id(&self) -> String {
        let hash = xxh3_128(&self.joined());
        format!("{hash:032x}")[..24].to_owned()
    }

    /// Hash of (project, environment), used in frames and for choosing partitions. Part of the log format: never change it.
    pub fn hash(&self) -> u64 {
        xxh3_64(&self.joined())
    }

    fn joined(&self) -> Vec<u8> {
        [self.project.as_bytes(), b"\0", self.key.as_bytes()].concat()
    }
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.project, self.key)
    }
}

/// All configured environments, looked up by their pair of keys.
#[derive(Clone, Debug, Default)]
pub struct Environments(Arc<[Environment]>);

impl Environments {
    pub fn new(configs: &[EnvironmentConfig]) -> Self {
        Self(configs.iter().map(|config| Environment::new(&config.project, &config.key)).collect())
    }

    pub fn get(&self, project: &str, key: &str) -> Option<&Environment> {
        self.0.iter().find(|environment| &*environment.project == project && &*environment.key == key)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Environment> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_depends_on_both_keys_and_their_border() {
        let ids = [("a", "b"), ("ab", ""), ("", "ab"), ("a", "c")].map(|(p, e)| Environment::new(p, e).id());
        assert!(ids.iter().all(|id| id.len() == 24));
        assert_eq!(ids.iter().collect::<std::collections::HashSet<_>>().len(), 4);
    }

    #[test]
    fn debug_hides_keys() {
        let config = EnvironmentConfig { sdk_keys: vec!["sdk-fake".into()], ..Default::default() };
        assert!(!format!("{config:?}").contains("sdk-fake"));
    }
}
