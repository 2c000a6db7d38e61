//! Names and values of attributes, for autocomplete.
//!
//! Source: context-search-api section 7; `withFilter` and the marks of estimates are ours.

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
use crate::ask::Ask;
use crate::attribute::AttributePath;
use crate::filter::{Field, Filter, FilterError, Subject, Test};
use crate::lookup::Weight;
use crate::lookup::within::Within;

const LIMIT_MAX: usize = 100;
const NAMES_DEFAULT: usize = 100;
const VALUES_DEFAULT: usize = 50;

impl Api {
    pub(super) async fn attribute_names(&self, call: &Call<'_>) -> Result<Answer, Problem> {
        let params = Params::from_query(call.query)?;
        let limit = params.limit(NAMES_DEFAULT, LIMIT_MAX)?;
        let narrowed = Narrowed::parse(params.filter_text(), "name", |field| *field == Field::Name)?;
        let within = params.with_filter()?;
        if narrowed.is_void {
            return Ok(Answer::ok(&AttributeNames { is_partial: false, items: Vec::new() }));
        }
        let environment = call.environment.clone();
        let Within { found: names, is_partial } = self
            .blocking(call.lacks, move |asker| {
                let (kind, prefixes) = (narrowed.kind.as_deref(), &narrowed.prefixes);
                match within {
                    Some(filter) => asker.attribute_names_within(&environment, &filter, kind, prefixes),
                    None => asker.attribute_names(&environment, kind, prefixes).map(Within::whole),
                }
            })
            .await?;
        let is_partial = is_partial || call.lacks.shards();
        let mut by_kind: BTreeMap<String, Vec<AttributeName>> = BTreeMap::new();
        for ((kind, name), found) in names {
            let (weight, is_estimate) = (saturated(found.weight.contexts), found.weight.is_estimate);
            let name = AttributeName { name, weight, is_estimate, redacted: found.redacted };
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
        Ok(Answer::ok(&AttributeNames { is_partial, items }).partial_if(is_partial))
    }

    pub(super) async fn attribute_values(&self, call: &Call<'_>, name: String) -> Result<Answer, Problem> {
        let params = Params::from_query(call.query)?;
        let limit = params.limit(VALUES_DEFAULT, LIMIT_MAX)?;
        let is_value = |field: &Field| matches!(field, Field::Attribute(name) if name == "value");
        let narrowed = Narrowed::parse(params.filter_text(), "value", is_value)?;
        if narrowed.kind.is_none() && !narrowed.is_void && self.access.generation == Generation::Current {
            return Err(Problem::invalid("filter: kind equals <kind> is required"));
        }
        let within = params.with_filter()?;
        if narrowed.is_void {
            return Ok(Answer::ok(&AttributeValues { is_partial: false, items: Vec::new() }));
        }
        let environment = call.environment.clone();
        let path = AttributePath::parse(&name);
        let Within { found: values, is_partial } = self
            .blocking(call.lacks, move |asker| {
                let (kind, prefixes) = (narrowed.kind.as_deref(), &narrowed.prefixes);
                match within {
                    Some(filter) => asker.attribute_values_within(&environment, &filter, kind, &path, prefixes, limit),
                    None => asker.attribute_values(&environment, kind, &path, prefixes, limit).map(Within::whole),
                }
            })
            .await?;
        let is_partial = is_partial || call.lacks.shards();
        let value = |(name, weight): (Value, Weight)| AttributeValue {
            name,
            weight: saturated(weight.contexts),
            is_estimate: weight.is_estimate,
        };
        let items = values
            .into_iter()
            .map(|(kind, values)| ValuesOfKind { kind, values: values.into_iter().map(value).collect() })
            .collect();
        Ok(Answer::ok(&AttributeValues { is_partial, items }).partial_if(is_partial))
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
