//! Check data of context-search-api section 6.5, from the fixture that the end-to-end suite reads too. For tests.

use serde_json::{Map, Value};

/// Contexts and filters with what they find.
#[derive(Debug, serde::Deserialize)]
pub struct CheckData {
    /// By letter, oldest last seen first.
    pub contexts: Map<String, Value>,
    /// Filters and the letters of the contexts they find.
    pub matches: Vec<(String, Vec<String>)>,
    /// Filters that are refused.
    pub faults: Vec<String>,
}

/// The fixture. Panics if it does not read, as it is part of the source.
pub fn check_data() -> CheckData {
    serde_json::from_str(include_str!("../../tests/fixtures/search/check_data.json")).expect("a fixture that reads")
}
