//! Why one event, or a whole body, cannot be used.

use events::DeadLetterReason;

use super::scan::Span;
use super::scan::{Failed, SyntaxError};
use super::text::Body;

/// A whole body that cannot be read: nothing of it was kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} at byte {byte_offset}")]
pub struct BodyError {
    pub reason: DeadLetterReason,
    pub message: String,
    pub byte_offset: u64,
}

/// What ends the reading of one event.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Fault {
    /// It is not JSON, as the scanner's `failure` tells; where it ends is not known either.
    Syntax,
    /// It is JSON and was read to its end.
    Event { reason: DeadLetterReason, message: String, at: usize },
    /// It ends the body.
    Stop(Stop),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Stop {
    Body(BodyError),
    /// The payload turned out to be unsummarised: read it again as that.
    Unsummarized,
}

impl From<Failed> for Fault {
    fn from(Failed: Failed) -> Self {
        Self::Syntax
    }
}

impl From<Stop> for Fault {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

/// `expected a name in quotes, found `]``
pub(crate) fn syntax_message(bytes: &[u8], error: &SyntaxError) -> String {
    if error.reason == DeadLetterReason::TooDeep {
        return format!("more than {} levels of nesting", events::limits::EVENT_DEPTH_MAX);
    }
    let found = match bytes.get(error.at) {
        None => "the end".to_owned(),
        Some(byte @ b' '..=b'~') => format!("`{}`", char::from(*byte)),
        Some(byte) => format!("byte 0x{byte:02x}"),
    };
    format!("expected {}, found {found}", error.expected)
}

/// What a value is, in a word for people.
pub(crate) fn type_name(body: &Body<'_>, span: Span) -> &'static str {
    match body.first(span) {
        b'"' => "text",
        b'{' => "an object",
        b'[' => "an array",
        b't' | b'f' => "a boolean",
        b'n' | b'N' | b'I' | 0 => "null",
        _ => "a number",
    }
}

pub(crate) fn missing(field: &str, at: usize) -> Fault {
    Fault::Event { reason: DeadLetterReason::MissingField, message: format!("`{field}` is missing"), at }
}

pub(crate) fn wrong_type(body: &Body<'_>, field: &str, span: Span, expected: &str) -> Fault {
    let message = format!("`{field}` is {}, expected {expected}", type_name(body, span));
    Fault::Event { reason: DeadLetterReason::WrongType, message, at: span.start() }
}

pub(crate) fn bad_context(message: impl Into<String>, span: Span) -> Fault {
    Fault::Event { reason: DeadLetterReason::BadContext, message: message.into(), at: span.start() }
}
