//! Events in the query of an image request: event protocol, section 1.1.
//!
//! In: the query. Out: the JSON that `d` holds, and the image that is always the answer. Both base64 alphabets are
//! read, with and without padding, as the senders' own libraries differ.

use std::borrow::Cow;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::HeaderValue;
use http::header::CACHE_CONTROL;
use percent_encoding::percent_decode_str;

use crate::answer::{OwnResponse, content};

/// A transparent GIF of one pixel.
const IMAGE: &[u8] = b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff\x21\xf9\x04\x01\x00\x00\x00\x00\
\x2c\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02\x44\x01\x00\x3b";

/// The answer, whatever the request held: nobody reads it.
pub(crate) fn image() -> OwnResponse {
    let mut response = content("image/gif", IMAGE);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// The parameter `d`, still encoded; None if there is none or it is empty.
pub(crate) fn parameter(query: &str) -> Option<Cow<'_, str>> {
    let value = query.split('&').find_map(|pair| pair.strip_prefix("d="))?;
    let value = percent_decode_str(value).decode_utf8_lossy();
    (!value.is_empty()).then_some(value)
}

/// The bytes behind it.
///
/// # Errors
/// What is wrong with it, for the dead letter.
pub(crate) fn decode(parameter: &str) -> Result<Vec<u8>, String> {
    let standard: Vec<u8> = parameter
        .bytes()
        .map(|byte| match byte {
            b'-' => b'+',
            b'_' => b'/',
            // What a form decoder on the way makes of a plus.
            b' ' => b'+',
            other => other,
        })
        .collect();
    BASE64.decode(&standard).map_err(|error| format!("the parameter d is not base64: {error}"))
}

#[cfg(test)]
mod tests {
    use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD};

    use super::*;

    #[test]
    fn both_alphabets_with_and_without_padding() {
        for text in ["[{\"a\":\"???>>>~~~\"}]", "[]", "[1]", "[12]"] {
            let forms = [
                BASE64_STANDARD.encode(text),
                BASE64_STANDARD_NO_PAD.encode(text),
                BASE64_URL_SAFE.encode(text),
                BASE64_URL_SAFE_NO_PAD.encode(text),
                BASE64_STANDARD.encode(text).replace('+', "%2B").replace('/', "%2F").replace('=', "%3D"),
            ];
            for form in forms {
                let query = format!("x=1&d={form}");
                assert_eq!(decode(&parameter(&query).unwrap()).unwrap(), text.as_bytes(), "{form}");
            }
        }
    }

    #[test]
    fn garbage_is_named() {
        assert!(decode("!!!").unwrap_err().contains("base64"));
        assert_eq!(parameter("e=1"), None);
        assert_eq!(parameter("d="), None);
    }
}
