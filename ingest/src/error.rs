//! What can go wrong with the endpoint as a whole. What a single request is told is in [`crate::answer`].

use runtime::ErrorKind;

pub type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("settings of the endpoint are not usable: {}", problems.join("; "))]
    Config { problems: Vec<String> },
    #[error("two environments have the same {what}; a key must belong to one environment")]
    SharedKey { what: &'static str },
    #[error("accepting connections on {address} failed: {source}")]
    Accept { address: String, source: std::io::Error },
}

impl Error {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Config { .. } | Self::SharedKey { .. } => ErrorKind::Reject,
            Self::Accept { .. } => ErrorKind::Fatal,
        }
    }
}
