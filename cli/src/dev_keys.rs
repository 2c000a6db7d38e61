//! Keys of the development environment, made once per data directory.
//!
//! The file has the form of a configuration, so that it can be copied into one. Only its owner may read it.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

use anyhow::Context;
use events::EnvironmentConfig;
use runtime::Entropy;
use serde::{Deserialize, Serialize};

use crate::config::{ApiTokenConfig, Role};

pub const FILE_NAME: &str = "dev-keys.toml";

const HEAD: &str = "# Keys of the development environment, made at the first start without [[environments]].\n\
                    # Delete this file to get new ones.\n\n";

/// What the file holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DevKeys {
    pub environments: Vec<EnvironmentConfig>,
    pub api_tokens: Vec<ApiTokenConfig>,
}

impl DevKeys {
    /// The keys kept in `data_dir`, or none if it has no such file.
    pub fn load(data_dir: &Path) -> anyhow::Result<Option<Self>> {
        let path = data_dir.join(FILE_NAME);
        match fs::read_to_string(&path) {
            // Not the parser's error as a whole: it quotes the line, which may hold a key.
            Ok(text) => toml::from_str(&text).map(Some).map_err(|error: toml::de::Error| {
                anyhow::anyhow!("{} is damaged: {}", path.display(), error.message())
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
        }
    }

    /// The keys kept in `data_dir`, made now if there are none.
    pub fn load_or_make(data_dir: &Path, entropy: &Entropy) -> anyhow::Result<Self> {
        if let Some(keys) = Self::load(data_dir)? {
            return Ok(keys);
        }
        let keys = Self::make(entropy);
        keys.store(data_dir).with_context(|| format!("writing {}", data_dir.join(FILE_NAME).display()))?;
        Ok(keys)
    }

    fn make(entropy: &Entropy) -> Self {
        let token = |role| ApiTokenConfig { token: format!("api-{}", entropy.uuid()), role };
        Self {
            environments: vec![EnvironmentConfig {
                project: "default".into(),
                key: "dev".into(),
                sdk_keys: vec![format!("sdk-{}", entropy.uuid())],
                mobile_keys: vec![format!("mob-{}", entropy.uuid())],
                client_side_ids: vec![entropy.uuid().simple().to_string()[..24].to_owned()],
            }],
            api_tokens: vec![token(Role::Writer), token(Role::Reader)],
        }
    }

    /// Whole or not at all: written beside its place, synced, then renamed.
    fn store(&self, data_dir: &Path) -> anyhow::Result<()> {
        let path = data_dir.join(FILE_NAME);
        let fresh = path.with_extension("toml.new");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&fresh)?;
        file.write_all(HEAD.as_bytes())?;
        file.write_all(toml::to_string_pretty(self)?.as_bytes())?;
        file.sync_all()?;
        fs::rename(&fresh, &path)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_made_once_and_only_the_owner_reads_them() {
        let dir = tempfile::tempdir().unwrap();
        let entropy = Entropy::seeded(1);
        let first = DevKeys::load_or_make(dir.path(), &entropy).unwrap();
        let second = DevKeys::load_or_make(dir.path(), &entropy).unwrap();
        assert_eq!(first.environments, second.environments);
        assert_eq!(first.api_tokens, second.api_tokens);
        assert!(first.environments[0].sdk_keys[0].starts_with("sdk-"));
        assert_eq!(first.environments[0].client_side_ids[0].len(), 24);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(dir.path().join(FILE_NAME)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn damaged_file_is_refused_without_its_text() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE_NAME), "environments = [ \"sdk-not-to-be-shown\"").unwrap();
        let error = format!("{:#}", DevKeys::load(dir.path()).unwrap_err());
        assert!(error.contains("damaged") && !error.contains("not-to-be-shown"), "{error}");
    }
}
