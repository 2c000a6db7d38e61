//! What a caller should do about an error. Each crate's error enum answers `kind()` with one of these.

/// The reaction an error asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// Never send this again: the input is wrong.
    Reject,
    /// Try again later: nothing is wrong with the input.
    Retry,
    /// Try again later and slower: a bound was reached.
    Overloaded,
    /// Stored bytes are unreadable: to the dead letters, go on with the next.
    Corrupt,
    /// A belief is broken: stop and say so.
    Fatal,
}
