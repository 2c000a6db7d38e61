//! Names and values of attributes, for autocomplete.
//!
//! Source: context-search-api section 7.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde_json::Value;

use super::access::Generation;
use super::answers::{
    Answer, AttributeName, AttributeNames, AttributeValue, AttributeValues, NamesOfKind, Problem, ValuesOfKind,
    saturated,
};
use super::params::Params;
use super::{Api, Call};
use crate::attribute::AttributePath;
use crate::filter::{Field, Filter, FilterError, Subject, Test};

const LIMIT_MAX: usize = 100;
const NAMES_DEFAULT: usize = 100;
const VALUES_DEFAULT: usize = 50;

impl Api {
    pub(super) async fn attribute_names(&self, call: &Call<'_>) -> Result<Answer, Problem> {
        let params = Params::from_query(call.query)?;
        let limit = params.limit(NAMES_DEFAULT, LIMIT_MAX)?;
        let narrowed = Narrowed::parse(params.filter_text(), "name", |field| *field == Field::Name)?;
        if narrowed.is_void {
            return Ok(Answer::ok(&AttributeNames { items: Vec::new() }));
        }
        let environment = call.environment.clone();
        let names = self
            .blocking(move |indexer| {
                indexer.attribute_names(&environment, narrowed.kind.as_deref(), &narrowed.prefixes)
            })
            .await?;
        let mut by_kind: BTreeMap<String, Vec<AttributeName>> = BTreeMap::new();
        for ((kind, name), found) in names {
            let name = AttributeName { name, weight: saturated(found.weight), redacted: found.redacted };
            by_kind.entry(kind).or_default().push(name);
        }
        let items = by_kind
            .into_iter()
            .map(|(kind, mut names)| {
                names.sort_unstable_by(|left, right| {
                    (Reverse(left.weight), &left.name).cmp(&(Reverse(right.weight), &right.name))
                });
                names.truncate(limit);
                NamesOfKind { kind, names }
            })
            .collect();
        Ok(Answer::ok(&AttributeNames { items }))
    }

    pub(super) async fn attribute_values(&self, call: &Call<'_>, name: String) -> Result<Answer, Problem> {
        let params = Params::from_query(call.query)?;
        let limit = params.limit(VALUES_DEFAULT, LIMIT_MAX)?;
        let is_value = |field: &Field| matches!(field, Field::Attribute(name) if name == "value");
        let narrowed = Narrowed::parse(params.filter_text(), "value", is_value)?;
        if narrowed.kind.is_none() && !narrowed.is_void && self.access.generation == Generation::Current {
            return Err(Problem::invalid("filter: kind equals <kind> is required"));
        }
        if narrowed.is_void {
            return Ok(Answer::ok(&AttributeValues { items: Vec::new() }));
        }
        let environment = call.environment.clone();
        let path = AttributePath::parse(&name);
        let values = self
            .blocking(move |indexer| {
                indexer.attribute_values(&environment, narrowed.kind.as_deref(), &path, &narrowed.prefixes, limit)
            })
            .await?;
        let value = |(name, weight)| AttributeValue { name, weight: saturated(weight) };
        let items = values
            .into_iter()
            .map(|(kind, values)| ValuesOfKind { kind, values: values.into_iter().map(value).collect() })
            .collect();
        Ok(Answer::ok(&AttributeValues { items }))
    }
}

/// The narrow filter of look-ups: kind, and what the name or value begins with.
#[derive(Debug, Default)]
struct Narrowed {
    kind: Option<String>,
    prefixes: Vec<String>,
    /// Two kinds at once: nothing can match.
    is_void: bool,
}

impl Narrowed {
    /// `name`: of the second field, which `is_second` recognises.
    fn parse(text: &str, name: &str, is_second: impl Fn(&Field) -> bool) -> Result<Self, Problem> {
        let filter = Filter::parse(text, Subject::Contexts)?;
        let expected = format!("expected kind equals <kind> and {name} startsWith <text>, joined by commas");
        let mut narrowed = Self::default();
        for predicate in filter.conjunction().ok_or_else(|| FilterError::new(0, expected.as_str()))? {
            let kind = match (&predicate.field, &predicate.test) {
                (Field::Kind, Test::Equals(Value::String(kind))) => kind,
                (Field::Kind, Test::EqualsOneOf(kinds)) if kinds.len() == 1 => kinds[0].as_str().unwrap_or_default(),
                (field, Test::StartsWith(prefix)) if is_second(field) => {
                    narrowed.prefixes.push(prefix.clone());
                    continue;
                }
                _ => return Err(FilterError::new(predicate.at, expected).into()),
            };
            narrowed.is_void |= narrowed.kind.as_ref().is_some_and(|other| other != kind);
            narrowed.kind = Some(kind.to_owned());
        }
        Ok(narrowed)
    }
}
