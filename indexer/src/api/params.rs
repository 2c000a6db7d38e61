//! Parameters of a request: from the query, or from the body of a search.
//!
//! Unknown ones are ignored, a repeated known one is refused, and the four of a search come from one place only.
//! Source: context-search-api sections 2.1 and 4.1.

use std::collections::HashMap;

use percent_encoding::percent_decode;
use serde_json::{Map, Value};
use xxhash_rust::xxh3::xxh3_128;

use super::access::Generation;
use super::answers::Problem;
use crate::filter::{Filter, FilterError, KEYS_MAX, Subject};
use crate::page::Sort;
use crate::ranked::AttributeSort;

type Result<T> = std::result::Result<T, Problem>;

const KNOWN: [&str; 6] = ["filter", "limit", "sort", "continuationToken", "includeTotalCount", "withFilter"];
/// Those that a search also takes in its body.
const SEARCH: [&str; 4] = ["filter", "limit", "sort", "continuationToken"];

/// An order that can be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    Column(Sort),
    /// Ours.
    Attribute(AttributeSort),
}

/// Parameters as sent.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Params {
    pub filter: Option<String>,
    limit: Option<String>,
    sort: Option<String>,
    pub token: Option<String>,
    include_total_count: Option<String>,
    /// Ours, of a look-up: the filter of the contexts that count.
    with_filter: Option<String>,
    /// Ours, of a body alone: the keys that a search is narrowed to.
    pub keys: Option<Vec<Value>>,
}

impl Params {
    fn slot(&mut self, name: &str) -> Option<&mut Option<String>> {
        match name {
            "filter" => Some(&mut self.filter),
            "limit" => Some(&mut self.limit),
            "sort" => Some(&mut self.sort),
            "continuationToken" => Some(&mut self.token),
            "includeTotalCount" => Some(&mut self.include_total_count),
            "withFilter" => Some(&mut self.with_filter),
            _ => None,
        }
    }

    /// Reads a query string.
    pub fn from_query(query: &str) -> Result<Self> {
        let mut params = Self::default();
        for (name, value) in unique_params(query, &KNOWN)? {
            if let Some(slot) = params.slot(name) {
                *slot = Some(value);
            }
        }
        Ok(params)
    }

    /// Adds what the body of a search says.
    pub fn with_body(mut self, body: &[u8]) -> Result<Self> {
        if body.trim_ascii().is_empty() {
            return Ok(self);
        }
        let fields = fields_of(body)?;
        let in_query = SEARCH.iter().any(|name| self.slot(name).is_some_and(|slot| slot.is_some()));
        for name in SEARCH {
            let Some(text) = text_of(&fields, name)? else { continue };
            if in_query {
                return Err(Problem::invalid(
                    "parameters of a search go into the query or into the body, not into both",
                ));
            }
            if let Some(slot) = self.slot(name) {
                *slot = Some(text);
            }
        }
        self.keys = keys_of(&fields)?;
        Ok(self)
    }

    /// The limit: `default` if absent, cut to `most`.
    pub fn limit(&self, default: usize, most: usize) -> Result<usize> {
        limit_of("limit", self.limit.as_deref(), default, most)
    }

    pub fn has_sort(&self) -> bool {
        self.sort.is_some()
    }

    /// The order that is asked for. `may_rank`: one by an attribute may be.
    pub fn sort(&self, generation: Generation, may_rank: bool) -> Result<Option<Order>> {
        match (&self.sort, generation) {
            (None, _) => Ok(None),
            (Some(_), Generation::Current) => {
                Err(Problem::invalid("sort: not available in this generation of the API"))
            }
            (Some(name), Generation::Union) => {
                let ranked = || AttributeSort::from_name(name).filter(|_| may_rank).map(Order::Attribute);
                let order = Sort::from_name(name).map(Order::Column).or_else(ranked);
                let more = if may_rank { ", attr:<attribute> or -attr:<attribute>" } else { "" };
                let expected = || Problem::invalid(format!("sort: expected ts or -ts{more}"));
                order.map(Some).ok_or_else(expected)
            }
        }
    }

    pub fn include_total_count(&self) -> Result<bool> {
        match self.include_total_count.as_deref() {
            None | Some("true" | "True") => Ok(true),
            Some("false" | "False") => Ok(false),
            Some(_) => Err(Problem::invalid("includeTotalCount: expected true or false")),
        }
    }

    /// The filter of the contexts that count in a look-up; None: all do.
    pub fn with_filter(&self) -> Result<Option<Filter>> {
        let text = self.with_filter.as_deref().unwrap_or_default();
        let filter = Filter::parse(text, Subject::Contexts);
        let named = |error: FilterError| format!("withFilter: {} at offset {}", error.message, error.offset);
        let filter = filter.map_err(|error| Problem::invalid(named(error)))?;
        Ok((filter != Filter::ALL).then_some(filter))
    }

    pub fn filter_text(&self) -> &str {
        self.filter.as_deref().unwrap_or_default()
    }
}

/// The fields of a body.
///
/// # Errors
/// If it is no JSON object.
pub fn fields_of(body: &[u8]) -> Result<Map<String, Value>> {
    serde_json::from_slice(body).map_err(|error| Problem::invalid(format!("the body is no JSON object: {error}")))
}

/// The text of a parameter in a body, or the digits of `limit`; None if it is absent.
///
/// # Errors
/// If it is of another type.
pub fn text_of(fields: &Map<String, Value>, name: &str) -> Result<Option<String>> {
    match (name, fields.get(name)) {
        (_, None | Some(Value::Null)) => Ok(None),
        ("limit", Some(Value::Number(number))) => Ok(Some(number.to_string())),
        ("limit", Some(_)) => Err(Problem::invalid("limit: expected an integer")),
        (_, Some(Value::String(text))) => Ok(Some(text.clone())),
        (_, Some(_)) => Err(Problem::invalid(format!("{name}: expected a text"))),
    }
}

/// The keys that a body narrows a search to, each once.
///
/// # Errors
/// If they are no list of texts, or too many.
pub fn keys_of(fields: &Map<String, Value>) -> Result<Option<Vec<Value>>> {
    let list = match fields.get("keys") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(Problem::invalid("keys: expected a list of texts")),
    };
    let mut keys = Vec::with_capacity(list.len());
    for key in list {
        match key {
            Value::String(_) => keys.push(key.clone()),
            Value::Number(number) => keys.push(number.to_string().into()),
            _ => return Err(Problem::invalid("keys: expected a list of texts")),
        }
    }
    keys.sort_unstable_by(|left, right| left.as_str().cmp(&right.as_str()));
    keys.dedup();
    if keys.len() > KEYS_MAX {
        return Err(Problem::invalid(format!("keys: {} of them, at most {KEYS_MAX} are allowed", keys.len())));
    }
    Ok(Some(keys))
}

/// A text that is the same for the same keys alone, to bind tokens to.
pub fn binding_of(keys: Option<&[Value]>) -> String {
    let Some(keys) = keys else { return String::new() };
    let texts =
        keys.iter().filter_map(Value::as_str).flat_map(|key| [key.as_bytes(), &[0]]).collect::<Vec<_>>().concat();
    format!("{:032x}", xxh3_128(&texts))
}

/// A count that is at least 1: `default` if absent, cut to `most`.
pub fn limit_of(name: &str, text: Option<&str>, default: usize, most: usize) -> Result<usize> {
    let Some(text) = text else { return Ok(default) };
    let refused = || Problem::invalid(format!("{name}: expected an integer of at least 1"));
    let digits = text.strip_prefix('+').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(refused());
    }
    // More digits than a number holds are still more than the most.
    match digits.parse().unwrap_or(usize::MAX) {
        0 => Err(refused()),
        limit => Ok(limit.min(most)),
    }
}

/// The parameters of a query that are `known`. Others are ignored.
///
/// # Errors
/// If a known one is given twice or is no UTF-8 text.
pub fn unique_params(query: &str, known: &[&'static str]) -> Result<HashMap<&'static str, String>> {
    let mut params = HashMap::new();
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let Some(name) = decoded(name).ok().and_then(|name| known.iter().find(|known| **known == name).copied()) else {
            continue;
        };
        let value = decoded(value).map_err(|()| Problem::invalid(format!("{name}: no UTF-8 text")))?;
        if params.insert(name, value).is_some() {
            return Err(Problem::invalid(format!("{name}: given twice")));
        }
    }
    Ok(params)
}

fn decoded(text: &str) -> std::result::Result<String, ()> {
    let blanks: Vec<u8> = text.bytes().map(|byte| if byte == b'+' { b' ' } else { byte }).collect();
    percent_decode(&blanks).decode_utf8().map(|text| text.into_owned()).map_err(|_| ())
}
