//! Continuation tokens: a [`Place`] as opaque, URL-safe text, bound to the search it belongs to.
//!
//! | field | bytes | meaning |
//! |---|---|---|
//! | version | 1 | 1 |
//! | binding | 8 | hash of environment, filter and sort |
//! | time_key | 8 | of the last record, big-endian |
//! | order | rest | of the last record |
//! | checksum | 8 | of everything before |
//!
//! Nothing is kept on our side, so a token lives as long as the records do and survives a restart.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use xxhash_rust::xxh3::xxh3_64;

use crate::page::Place;

const VERSION: u8 = 1;

/// What a token belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding(u64);

impl Binding {
    /// `parts`: whatever the order of records depends on.
    pub fn new(parts: &[&str]) -> Self {
        let mut bytes = Vec::new();
        for part in parts {
            bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
            bytes.extend_from_slice(part.as_bytes());
        }
        Self(xxh3_64(&bytes))
    }
}

/// Why a token was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("continuationToken: it is damaged")]
    Damaged,
    #[error("continuationToken: it belongs to another environment, filter or sort")]
    Foreign,
}

pub fn write(place: &Place, binding: Binding) -> String {
    let mut bytes = vec![VERSION];
    bytes.extend_from_slice(&binding.0.to_be_bytes());
    bytes.extend_from_slice(&place.time_key.to_be_bytes());
    bytes.extend_from_slice(&place.order);
    bytes.extend_from_slice(&xxh3_64(&bytes).to_be_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

/// # Errors
/// If the token is damaged or bound to another search.
pub fn read(token: &str, binding: Binding) -> Result<Place, TokenError> {
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| TokenError::Damaged)?;
    let (content, checksum) = bytes.split_last_chunk::<8>().ok_or(TokenError::Damaged)?;
    if xxh3_64(content) != u64::from_be_bytes(*checksum) {
        return Err(TokenError::Damaged);
    }
    let (version, rest) = content.split_first().ok_or(TokenError::Damaged)?;
    let (bound, rest) = rest.split_first_chunk::<8>().ok_or(TokenError::Damaged)?;
    let (time_key, order) = rest.split_first_chunk::<8>().ok_or(TokenError::Damaged)?;
    if *version != VERSION {
        return Err(TokenError::Damaged);
    }
    if u64::from_be_bytes(*bound) != binding.0 {
        return Err(TokenError::Foreign);
    }
    Ok(Place { time_key: i64::from_be_bytes(*time_key), order: order.to_vec() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bound_to_its_search() {
        let place = Place { time_key: -5, order: b"user\0a".to_vec() };
        let binding = Binding::new(&["env", "filter"]);
        let token = write(&place, binding);
        assert_eq!(read(&token, binding), Ok(place));
        assert_eq!(read(&token, Binding::new(&["env", "filte", "r"])), Err(TokenError::Foreign));
        assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'));
    }

    #[test]
    fn damage_is_seen_wherever_it_is() {
        let binding = Binding::new(&["x"]);
        let token = write(&Place { time_key: 1, order: b"user\0k".to_vec() }, binding);
        for at in 0..token.len() {
            let mut damaged = token.clone().into_bytes();
            damaged[at] = if damaged[at] == b'A' { b'B' } else { b'A' };
            assert!(read(std::str::from_utf8(&damaged).unwrap(), binding).is_err());
            assert!(read(&token[..at], binding).is_err());
        }
    }

    proptest! {
        #[test]
        fn any_text_is_refused(text in "\\PC{0,80}") {
            prop_assert!(read(&text, Binding::new(&["x"])).is_err());
        }
    }
}
