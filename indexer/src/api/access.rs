//! Who may use the API, and for which environments.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use eventlog::LogWriter;
use events::environment::Environments;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use super::erasures::Erasures;
use super::rates::RateLimits;

/// What a token allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Writer,
    #[default]
    Reader,
}

/// One `[[api_tokens]]` entry. `Debug` does not show the token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiToken {
    pub token: String,
    #[serde(default)]
    pub role: Role,
}

impl fmt::Debug for ApiToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiToken").field("role", &self.role).finish_non_exhaustive()
    }
}

/// Which generation of clients the API serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Generation {
    /// Both.
    #[default]
    Union,
    /// Refuses `sort` and value look-ups without a kind, as LaunchDarkly does now.
    Current,
}

/// Who may ask for what.
#[derive(Clone, Default)]
pub struct ApiAccess {
    pub environments: Environments,
    pub tokens: Vec<ApiToken>,
    pub generation: Generation,
    /// Where what people say of context kinds is kept; None: in memory alone.
    pub kinds_file: Option<PathBuf>,
    pub rate_limits: RateLimits,
    /// Where wishes to forget go; None: this process cannot delete.
    pub log: Option<Arc<dyn LogWriter>>,
    /// Who erases contexts; None: this process cannot.
    pub erasures: Option<Arc<dyn Erasures>>,
}

impl fmt::Debug for ApiAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tokens = self.tokens.len();
        f.debug_struct("ApiAccess")
            .field("generation", &self.generation)
            .field("tokens", &tokens)
            .finish_non_exhaustive()
    }
}

impl ApiAccess {
    /// The role of the request's token; None if it has none or an unknown one.
    pub fn role_of(&self, headers: &HeaderMap) -> Option<Role> {
        let sent = headers.get(AUTHORIZATION)?.as_bytes().trim_ascii();
        let bare = match sent.get(..7) {
            Some(scheme) if scheme.eq_ignore_ascii_case(b"bearer ") => sent[7..].trim_ascii(),
            _ => sent,
        };
        // Every token is compared, whichever fits.
        let mut role = None;
        for known in &self.tokens {
            if bool::from(known.token.as_bytes().ct_eq(bare)) && !bare.is_empty() {
                role = Some(known.role);
            }
        }
        role
    }
}
