//! Contexts: which kinds are valid, and the keys that identify them.
//!
//! Source: event-protocol section 6 and context-search-api section 3.

use xxhash_rust::xxh3::xxh3_64;

use crate::environment::Environment;

/// Whether `kind` may name a context: ASCII letters, digits, `.`, `_`, `-`, and neither `kind` nor `multi`.
pub fn is_valid_kind(kind: &str) -> bool {
    !kind.is_empty()
        && kind != "kind"
        && kind != "multi"
        && kind.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// Appends `key` with `%` and `:` escaped, as in fully-qualified and canonical keys.
pub fn push_escaped_key(out: &mut String, key: &str) {
    for c in key.chars() {
        match c {
            '%' => out.push_str("%25"),
            ':' => out.push_str("%3A"),
            c => out.push(c),
        }
    }
}

/// The canonical key of a combination of contexts: `kind:key` parts sorted by kind, joined by `:`, keys escaped.
///
/// `parts`: (kind, key), any order.
pub fn canonical_key(parts: &mut [(&str, &str)]) -> String {
    parts.sort_unstable();
    let mut out = String::new();
    for (kind, key) in parts {
        if !out.is_empty() {
            out.push(':');
        }
        out.push_str(kind);
        out.push(':');
        push_escaped_key(&mut out, key);
    }
    out
}

/// The parts of a canonical key, as (kind, key), or None if it is none.
pub fn canonical_parts(canonical: &str) -> Option<Vec<(String, String)>> {
    let mut parts: Vec<(String, String)> = Vec::new();
    let mut words = canonical.split(':');
    while let Some(kind) = words.next() {
        // The other way round `%253A` would lose its first step.
        let key = words.next()?.replace("%3A", ":").replace("%25", "%");
        parts.push((kind.to_owned(), key));
    }
    let mut again: Vec<(&str, &str)> = parts.iter().map(|(kind, key)| (kind.as_str(), key.as_str())).collect();
    let is_canonical = canonical_key(&mut again) == canonical;
    (is_canonical && parts.iter().all(|(kind, _)| is_valid_kind(kind))).then_some(parts)
}

/// The fully-qualified key: the bare key for a lone `user`, the canonical key otherwise.
pub fn fully_qualified_key(parts: &mut [(&str, &str)]) -> String {
    match parts {
        [("user", key)] => (*key).to_owned(),
        parts => canonical_key(parts),
    }
}

/// Hash that identifies a context everywhere: it chooses the `contexts` partition and is the upsert key of the index.
/// Part of the log and index formats: never change it.
pub fn context_hash(environment: &Environment, kind: &str, key: &str) -> u64 {
    let mut bytes = Vec::with_capacity(environment.project.len() + environment.key.len() + kind.len() + key.len() + 3);
    for part in [&*environment.project, &*environment.key, kind] {
        bytes.extend_from_slice(part.as_bytes());
        bytes.push(0);
    }
    bytes.extend_from_slice(key.as_bytes());
    xxh3_64(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lone_user_keeps_its_bare_key() {
        assert_eq!(fully_qualified_key(&mut [("user", "a:b%c")]), "a:b%c");
        assert_eq!(fully_qualified_key(&mut [("org", "a:b%c")]), "org:a%3Ab%25c");
    }

    #[test]
    fn multi_is_sorted_and_spells_user_out() {
        assert_eq!(fully_qualified_key(&mut [("user", "u"), ("org", "o:1")]), "org:o%3A1:user:u");
    }

    #[test]
    fn parts_read_back_from_canonical_keys() {
        let mut parts = [("user", "a:b%c%3A"), ("org", ""), ("a.b", "é")];
        let canonical = canonical_key(&mut parts);
        let read = canonical_parts(&canonical).unwrap();
        let read: Vec<_> = read.iter().map(|(kind, key)| (kind.as_str(), key.as_str())).collect();
        assert_eq!(read, parts);
        for text in ["", "user", "user:a:b", "user:a:org:b", "multi:a", "user:%", "user:a%3a", "a b:c"] {
            assert_eq!(canonical_parts(text), None, "{text}");
        }
    }

    #[test]
    fn kinds() {
        assert!(is_valid_kind("ld_device") && is_valid_kind("a.b-c"));
        assert!(!is_valid_kind("") && !is_valid_kind("kind") && !is_valid_kind("multi") && !is_valid_kind("a b"));
    }
}
