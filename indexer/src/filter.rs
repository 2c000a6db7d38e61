//! The filter language of the search API: text to a checked tree, and a plain evaluator over one JSON document.
//!
//! In: filter text as a client wrote it. Out: [`Filter`], whose predicates already passed the field and operator table, so
//! that whoever runs it meets no faulty types. Every fault names its byte offset in the text.
//! [`evaluate`] is the slow, obvious meaning of a filter; `query` is the fast one, and property tests hold them together.
//! Not here: the index. Source: context-search-api section 6.

mod fields;
mod parse;
mod value;

pub mod evaluate;

#[cfg(test)]
mod tests;

pub use fields::{Field, Scope, Subject};
pub use value::{FilterTime, canonical, fold_case, for_each_word_of, number_text, same, words};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::wire;

/// Longest filter text.
pub const FILTER_BYTES_MAX: usize = 8192;
/// Most predicates in one filter.
pub const PREDICATES_MAX: usize = 64;
/// Most entries of one list.
pub const LIST_ENTRIES_MAX: usize = 1000;
/// Most keys that a search is narrowed to.
pub const KEYS_MAX: usize = 10_000;
/// Deepest nesting, of parentheses and of JSON values.
pub const DEPTH_MAX: usize = 16;
/// Most words under `q` in one filter: each is a walk through the dictionary.
pub const WORDS_MAX: usize = 32;
/// Longer words forgive no typing mistakes: the automaton that knows them all has some 30 KB for each letter.
pub const FORGIVING_LETTERS_MAX: usize = 24;
/// Bytes of a word that count: words that begin with the same bytes and are longer are the same word.
pub const WORD_BYTES_MAX: usize = 64;

/// A filter that passed all checks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Filter {
    /// None: everything matches.
    pub root: Option<Expr>,
}

/// Predicates joined by AND and OR.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Expr {
    And(Vec<Expr>),
    Or(Vec<Expr>),
    Is(Predicate),
}

/// One condition on one field.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Predicate {
    pub field: Field,
    pub test: Test,
    /// Byte offset of the field in the filter text.
    pub at: usize,
}

/// What is asked of the field's value. For text fields every value is a `Value::String`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Test {
    Equals(#[serde(with = "wire::value")] Value),
    /// A list under `equals` of the older notation: any of these.
    EqualsOneOf(#[serde(with = "wire::values")] Vec<Value>),
    NotEquals(#[serde(with = "wire::value")] Value),
    AnyOf(#[serde(with = "wire::values")] Vec<Value>),
    Contains(#[serde(with = "wire::values")] Vec<Value>),
    StartsWith(String),
    Exists(bool),
    Before(FilterTime),
    After(FilterTime),
    /// `q`: any of these texts.
    Words(Vec<Phrase>),
}

/// A text to be found by its words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phrase {
    /// All of it in lower case, without blanks around it.
    pub folded: String,
    /// Each once, sorted.
    pub words: Vec<String>,
}

impl Phrase {
    pub fn new(text: &str) -> Self {
        let mut distinct = words(text);
        distinct.sort_unstable();
        distinct.dedup();
        Self { folded: fold_case(text.trim()), words: distinct }
    }
}

/// Why a filter was refused. Shown to the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("filter: {message} at offset {offset}")]
pub struct FilterError {
    pub message: String,
    /// Byte offset in the filter text.
    pub offset: usize,
}

impl FilterError {
    pub(crate) fn new(offset: usize, message: impl Into<String>) -> Self {
        Self { message: message.into(), offset }
    }
}

impl Filter {
    /// A filter that everything matches.
    pub const ALL: Self = Self { root: None };

    /// Reads a filter over `subject`. Blank text matches everything.
    ///
    /// # Errors
    /// Any fault of syntax, type or bound, with its byte offset.
    pub fn parse(text: &str, subject: Subject) -> Result<Self, FilterError> {
        parse::parse(text, subject)
    }

    /// This filter, narrowed to contexts with one of `keys`.
    pub fn with_keys(self, keys: Vec<Value>) -> Self {
        let is_one = Expr::Is(Predicate { field: Field::Key, test: Test::AnyOf(keys), at: 0 });
        Self { root: Some(Expr::And(self.root.into_iter().chain([is_one]).collect())) }
    }

    /// All predicates, in the order of the text.
    pub fn predicates(&self) -> Vec<&Predicate> {
        fn collect<'a>(expr: &'a Expr, out: &mut Vec<&'a Predicate>) {
            match expr {
                Expr::And(parts) | Expr::Or(parts) => parts.iter().for_each(|part| collect(part, out)),
                Expr::Is(predicate) => out.push(predicate),
            }
        }
        let mut out = Vec::new();
        if let Some(root) = &self.root {
            collect(root, &mut out);
        }
        out
    }

    /// The predicates if they are joined by AND alone.
    pub fn conjunction(&self) -> Option<Vec<&Predicate>> {
        fn has_or(expr: &Expr) -> bool {
            match expr {
                Expr::And(parts) => parts.iter().any(has_or),
                Expr::Or(_) => true,
                Expr::Is(_) => false,
            }
        }
        match &self.root {
            Some(root) if has_or(root) => None,
            _ => Some(self.predicates()),
        }
    }

    /// The texts of the first `q`.
    pub fn first_phrases(&self) -> Option<&[Phrase]> {
        self.predicates().into_iter().find_map(|predicate| match (&predicate.field, &predicate.test) {
            (Field::Text, Test::Words(phrases)) => Some(phrases.as_slice()),
            _ => None,
        })
    }

    /// Whether versions are tested instead of contexts: some predicate names `applicationId`.
    pub fn names_application(&self) -> bool {
        self.predicates().iter().any(|predicate| predicate.field == Field::Application)
    }
}
