//! The configuration tree: what can be set, where it comes from, what it must fulfil.
//!
//! In: a TOML file, then environment variables `TIDEGATE__SECTION__KEY`, then flags; later ones win. Out: [`Settings`],
//! checked. Promise: all mistakes are reported at once, each with key path, value and expectation; a secret is never
//! shown beyond its last four characters. Each crate owns the struct of its section; this file composes them.
//! Not here: keys made for development (`dev_keys`).

pub mod check;
pub mod layers;
pub mod mask;
pub mod relations;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use events::EnvironmentConfig;
use serde::{Deserialize, Serialize};

pub use check::Mistakes;
pub use layers::{Flag, Layers, load};

/// Everything that can be set, as in `config/pipeline.toml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    pub listen: SocketAddr,
    pub data_dir: PathBuf,
    /// Which generation of clients the REST API serves.
    pub api_generation: indexer::api::Generation,
    pub log: eventlog::Config,
    pub kafka: eventlog::kafka::Config,
    pub storage: compactor::StorageConfig,
    pub ingest: ingest::Config,
    pub compactor: compactor::Config,
    pub indexer: indexer::Config,
    pub api: indexer::PeersConfig,
    pub api_rate_limit: indexer::api::RateLimits,
    pub environments: Vec<EnvironmentConfig>,
    pub api_tokens: Vec<ApiTokenConfig>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8030)),
            data_dir: PathBuf::from("data"),
            api_generation: indexer::api::Generation::default(),
            log: eventlog::Config::default(),
            kafka: eventlog::kafka::Config::default(),
            storage: compactor::StorageConfig::default(),
            ingest: ingest::Config::default(),
            compactor: compactor::Config::default(),
            indexer: indexer::Config::default(),
            api: indexer::PeersConfig::default(),
            api_rate_limit: indexer::api::RateLimits::default(),
            environments: Vec::new(),
            api_tokens: Vec::new(),
        }
    }
}

impl Settings {
    /// The `[storage]` section with its default filled in: tables live in `<data_dir>/lake`.
    pub fn storage_resolved(&self) -> compactor::StorageConfig {
        let mut storage = self.storage.clone();
        if storage.url.is_empty() {
            storage.url = self.data_dir.join("lake").to_string_lossy().into_owned();
        }
        storage
    }

    /// The tree as TOML with its secrets masked.
    pub fn to_masked_toml(&self) -> anyhow::Result<String> {
        let mut tree = toml::Table::try_from(self)?;
        mask::mask_table(&mut tree);
        Ok(toml::to_string_pretty(&tree)?)
    }
}

/// One `[[api_tokens]]` entry: who may use the REST API. `Debug` does not show the token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiTokenConfig {
    pub token: String,
    #[serde(default)]
    pub role: Role,
}

/// What the bearer of a token may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Search and look.
    #[default]
    Reader,
    /// Also change, delete, import, and see the keys of environments.
    Writer,
}

impl fmt::Debug for ApiTokenConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiTokenConfig").field("token", &mask::mask(&self.token)).field("role", &self.role).finish()
    }
}

#[cfg(test)]
mod tests;
