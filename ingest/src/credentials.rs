//! Credential to environment: event protocol, section 2.
//!
//! In: the configured keys, again whenever they change. Out: the environment that a request's credential names.
//! Promises: a credential works on its own family of paths only; keys are found by a secretly keyed hash and then
//! compared in constant time, so that the time of a refusal tells nothing about the keys; no key is ever formatted or
//! logged; and while no list has been loaded nobody is told that a key is wrong, as that would silence SDKs for good.

use std::borrow::Cow;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use events::{Environment, EnvironmentConfig};
use hashbrown::HashMap;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use parking_lot::RwLock;
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use crate::admission::Rate;
use crate::partition::Shard;
use crate::routes::Owner;
use crate::{Error, Result};

/// One `[[api_tokens]]` entry of the configuration. `Debug` does not show the token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiToken {
    pub token: String,
    pub role: Role,
}

/// What an access token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Reader,
    Writer,
}

impl fmt::Debug for ApiToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiToken").field("role", &self.role).finish_non_exhaustive()
    }
}

/// An environment with what admission and batching need of it.
#[derive(Debug)]
pub(crate) struct KnownEnvironment {
    pub environment: Environment,
    pub hash: u64,
    pub shard: Shard,
    pub rate: Rate,
}

/// Outcome of a look-up.
#[derive(Debug)]
pub(crate) enum Access {
    Granted(Arc<KnownEnvironment>),
    /// No list of keys is loaded: nobody knows.
    NotLoaded,
    UnknownKey,
    /// A known access token that may not write.
    ReaderOnly,
    UnknownEnvironment,
}

/// The list of keys, replaced as a whole.
#[derive(Debug, Default)]
pub(crate) struct Credentials(RwLock<Option<KeyTable>>);

impl Credentials {
    /// # Errors
    /// `SharedKey` (kind `Reject`) if two environments have a key in common; the list in force stays.
    pub fn load(&self, environments: &[EnvironmentConfig], tokens: &[ApiToken], partitions: u32) -> Result<()> {
        let table = KeyTable::new(environments, tokens, partitions)?;
        *self.0.write() = Some(table);
        Ok(())
    }

    /// Forgets the list, because it can no longer be trusted.
    pub fn unload(&self) {
        *self.0.write() = None;
    }

    pub fn are_loaded(&self) -> bool {
        self.0.read().is_some()
    }

    pub fn find(&self, owner: Owner<'_>, headers: &HeaderMap) -> Access {
        let table = self.0.read();
        let Some(table) = table.as_ref() else { return Access::NotLoaded };
        let found = match owner {
            Owner::SdkKey => table.find(Family::Sdk, bare_credential(headers)),
            Owner::MobileKey => table.find(Family::Mobile, bare_credential(headers)),
            // An `Authorization` beside the id in the path is sent by some client SDKs and means nothing.
            Owner::ClientSideId(id) => {
                let id = decoded(id);
                return match table.find(Family::ClientSide, id.as_bytes()) {
                    Some(Target::Environment(environment)) => Access::Granted(environment.clone()),
                    _ => Access::UnknownEnvironment,
                };
            }
            Owner::AccessToken { project, environment } => {
                return match table.find(Family::Token, bare_credential(headers)) {
                    Some(Target::Token(Role::Writer)) => table.environment(&decoded(project), &decoded(environment)),
                    Some(_) => Access::ReaderOnly,
                    None => Access::UnknownKey,
                };
            }
        };
        match found {
            Some(Target::Environment(environment)) => Access::Granted(environment.clone()),
            _ => Access::UnknownKey,
        }
    }
}

/// Families of credentials; one is not valid in place of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Family {
    Sdk,
    Mobile,
    ClientSide,
    Token,
}

enum Target {
    Environment(Arc<KnownEnvironment>),
    Token(Role),
}

struct Key {
    family: Family,
    text: Box<[u8]>,
    target: Target,
}

struct KeyTable {
    /// Secret of this process, so that nobody can choose credentials that meet in one bucket.
    hasher: RandomState,
    /// Keys by their hash. More than one only by chance.
    keys: HashMap<u64, Vec<Key>>,
    environments: Vec<Arc<KnownEnvironment>>,
}

impl fmt::Debug for KeyTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyTable").field("keys", &self.keys.len()).finish_non_exhaustive()
    }
}

impl KeyTable {
    fn new(configs: &[EnvironmentConfig], tokens: &[ApiToken], partitions: u32) -> Result<Self> {
        let mut table = Self { hasher: RandomState::new(), keys: HashMap::new(), environments: Vec::new() };
        for config in configs {
            let environment = Environment::new(&config.project, &config.key);
            let hash = environment.hash();
            let shard = Shard::of(hash, partitions);
            let known = Arc::new(KnownEnvironment { environment, hash, shard, rate: Rate::default() });
            table.environments.push(known.clone());
            for (family, what, keys) in [
                (Family::Sdk, "SDK key", &config.sdk_keys),
                (Family::Mobile, "mobile key", &config.mobile_keys),
                (Family::ClientSide, "client-side id", &config.client_side_ids),
            ] {
                for key in keys {
                    table.add(family, what, key, Target::Environment(known.clone()))?;
                }
            }
        }
        for token in tokens {
            table.add(Family::Token, "access token", &token.token, Target::Token(token.role))?;
        }
        Ok(table)
    }

    fn add(&mut self, family: Family, what: &'static str, text: &str, target: Target) -> Result<()> {
        if self.find(family, text.as_bytes()).is_some() {
            return Err(Error::SharedKey { what });
        }
        let hash = self.hash(family, text.as_bytes());
        self.keys.entry(hash).or_default().push(Key { family, text: text.as_bytes().into(), target });
        Ok(())
    }

    fn hash(&self, family: Family, text: &[u8]) -> u64 {
        self.hasher.hash_one((family, text))
    }

    fn find(&self, family: Family, text: &[u8]) -> Option<&Target> {
        let candidates = self.keys.get(&self.hash(family, text))?;
        let same = |key: &&Key| key.family == family && bool::from(key.text.ct_eq(text));
        candidates.iter().find(same).map(|key| &key.target)
    }

    fn environment(&self, project: &str, key: &str) -> Access {
        let named =
            |known: &&Arc<KnownEnvironment>| *known.environment.project == *project && *known.environment.key == *key;
        self.environments.iter().find(named).map_or(Access::UnknownEnvironment, |known| Access::Granted(known.clone()))
    }
}

/// The value of `Authorization` without a scheme: SDKs send none, iOS and old ones `api_key`, people `Bearer`.
fn bare_credential(headers: &HeaderMap) -> &[u8] {
    let value = headers.get(AUTHORIZATION).map_or(&b""[..], |value| value.as_bytes()).trim_ascii();
    for scheme in [&b"api_key "[..], b"bearer "] {
        if let Some((start, rest)) = value.split_at_checked(scheme.len())
            && start.eq_ignore_ascii_case(scheme)
        {
            return rest.trim_ascii();
        }
    }
    value
}

fn decoded(segment: &str) -> Cow<'_, str> {
    percent_decode_str(segment).decode_utf8_lossy()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn credentials() -> Credentials {
        let credentials = Credentials::default();
        let environment = EnvironmentConfig {
            project: "shop".into(),
            key: "prod".into(),
            sdk_keys: vec!["sdk-old".into(), "sdk-new".into()],
            mobile_keys: vec!["mob-1".into()],
            client_side_ids: vec!["c1".into()],
        };
        let tokens = [("api-w", Role::Writer), ("api-r", Role::Reader)]
            .map(|(token, role)| ApiToken { token: token.into(), role });
        credentials.load(&[environment], &tokens, 4).unwrap();
        credentials
    }

    fn access(owner: Owner<'_>, authorization: &str) -> &'static str {
        let mut headers = HeaderMap::new();
        if !authorization.is_empty() {
            headers.insert(AUTHORIZATION, HeaderValue::from_str(authorization).unwrap());
        }
        match credentials().find(owner, &headers) {
            Access::Granted(known) => {
                assert_eq!(known.environment.to_string(), "shop/prod");
                "granted"
            }
            Access::NotLoaded => "not loaded",
            Access::UnknownKey => "unknown key",
            Access::ReaderOnly => "reader",
            Access::UnknownEnvironment => "unknown environment",
        }
    }

    #[test]
    fn schemes_are_stripped() {
        for text in ["sdk-old", "sdk-new", "api_key sdk-new", "Bearer sdk-new", "bearer  sdk-new "] {
            assert_eq!(access(Owner::SdkKey, text), "granted", "{text}");
        }
        assert_eq!(access(Owner::MobileKey, "api_key mob-1"), "granted");
    }

    #[test]
    fn credential_works_on_its_own_family_only() {
        assert_eq!(access(Owner::SdkKey, "mob-1"), "unknown key");
        assert_eq!(access(Owner::MobileKey, "sdk-new"), "unknown key");
        assert_eq!(access(Owner::SdkKey, "c1"), "unknown key");
        assert_eq!(access(Owner::ClientSideId("sdk-new"), ""), "unknown environment");
        for text in ["", "sdk", "sdk-new1", "Basic sdk-new", "api_key", "Bearer"] {
            assert_eq!(access(Owner::SdkKey, text), "unknown key", "{text}");
        }
    }

    #[test]
    fn path_names_the_environment_of_a_browser() {
        assert_eq!(access(Owner::ClientSideId("c1"), "whatever"), "granted");
        assert_eq!(access(Owner::ClientSideId("%631"), ""), "granted");
    }

    #[test]
    fn import_needs_a_writer_and_a_known_environment() {
        let import = |project, environment| Owner::AccessToken { project, environment };
        assert_eq!(access(import("shop", "prod"), "api-w"), "granted");
        assert_eq!(access(import("shop", "prod"), "api-r"), "reader");
        assert_eq!(access(import("shop", "test"), "api-w"), "unknown environment");
        assert_eq!(access(import("shop", "prod"), "sdk-new"), "unknown key");
    }

    #[test]
    fn list_can_be_replaced_and_forgotten() {
        let credentials = credentials();
        credentials.load(&[], &[], 1).unwrap();
        assert!(matches!(credentials.find(Owner::ClientSideId("c1"), &HeaderMap::new()), Access::UnknownEnvironment));
        credentials.unload();
        assert!(matches!(credentials.find(Owner::ClientSideId("c1"), &HeaderMap::new()), Access::NotLoaded));
    }

    #[test]
    fn shared_key_is_refused_and_never_shown() {
        let one = EnvironmentConfig {
            project: "a".into(),
            key: "1".into(),
            sdk_keys: vec!["sdk-fake".into()],
            ..Default::default()
        };
        let two = EnvironmentConfig { key: "2".into(), ..one.clone() };
        let credentials = credentials();
        let error = credentials.load(&[one, two], &[], 1).unwrap_err();
        assert!(!error.to_string().contains("sdk-fake"));
        assert!(credentials.are_loaded());
        assert!(!format!("{credentials:?}").contains("sdk-"));
    }
}
