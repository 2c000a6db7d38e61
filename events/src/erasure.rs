//! Contexts that are to be erased, as every stage asks about them.

use std::collections::{HashMap, HashSet};

use crate::Environment;
use crate::context::canonical_parts;

/// Contexts of one environment, and until when what was received of them goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErasedContexts {
    pub environment: Environment,
    /// What was received later stays. Microseconds.
    pub until: i64,
    /// Keys by kind.
    keys: HashMap<String, HashSet<String>>,
}

impl ErasedContexts {
    /// `contexts`: kinds and keys.
    pub fn new(environment: Environment, until: i64, contexts: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut keys: HashMap<String, HashSet<String>> = HashMap::new();
        for (kind, key) in contexts {
            keys.entry(kind).or_default().insert(key);
        }
        Self { environment, until, keys }
    }

    pub fn contains(&self, kind: &str, key: &str) -> bool {
        self.keys.get(kind).is_some_and(|keys| keys.contains(key))
    }

    /// Whether a combination with this canonical key has one of them as a part.
    pub fn are_in(&self, canonical: &str) -> bool {
        canonical_parts(canonical).is_some_and(|parts| parts.iter().any(|(kind, key)| self.contains(kind, key)))
    }

    pub fn is_of(&self, project: &str, environment: &str) -> bool {
        *self.environment.project == *project && *self.environment.key == *environment
    }

    /// Kinds and keys, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.keys.iter().flat_map(|(kind, keys)| keys.iter().map(move |key| (kind.as_str(), key.as_str())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn combinations_are_known_by_their_parts() {
        let contexts = [("user", "a:b%c"), ("org", "lagoa")].map(|(kind, key)| (kind.to_owned(), key.to_owned()));
        let erased = ErasedContexts::new(Environment::new("shop", "prod"), 0, contexts);
        assert!(erased.contains("user", "a:b%c") && !erased.contains("org", "a:b%c"));
        assert!(erased.are_in("device:d:user:a%3Ab%25c") && erased.are_in("org:lagoa"));
        assert!(!erased.are_in("device:lagoa") && !erased.are_in("org:lagoa:user"));
        assert!(erased.is_of("shop", "prod") && !erased.is_of("shop", "test"));
        assert_eq!(erased.iter().count(), 2);
    }
}
