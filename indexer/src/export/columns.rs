//! The columns of an export: what a client may choose, and the value of each for one context.
//!
//! `kind`, `key`, `lastSeen`, `applicationId` and `context` (all of its JSON) are fields of the record; anything else names an
//! attribute, by a pointer or by its plain name. An attribute that is called like a field is named by its pointer.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::attribute::AttributePath;
use crate::search::FoundContext;

/// Columns of one export.
pub const COLUMNS_MAX: usize = 200;
/// What is told where no columns are chosen.
pub const DEFAULT: [&str; 4] = ["kind", "key", "lastSeen", "context"];

/// One column, under the name that was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub source: Source,
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    Kind,
    Key,
    LastSeen,
    Application,
    Context,
    Attribute(AttributePath),
}

/// Why columns were refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ColumnError {
    #[error("{0} columns, at most {COLUMNS_MAX} are allowed")]
    TooMany(usize),
    #[error("a column without a name")]
    Unnamed,
    #[error("{0:?} is given twice")]
    Twice(String),
}

/// The value of a column.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell<'a> {
    Absent,
    Text(&'a str),
    /// Microseconds.
    Time(i64),
    /// A value that is no text.
    Json(&'a Value),
    /// JSON as it is stored.
    Raw(&'a str),
}

impl Cell<'_> {
    /// Texts as they are, everything else as JSON; None if absent. Times are left to the format.
    pub fn text(&self) -> Option<Cow<'_, str>> {
        match self {
            Cell::Absent | Cell::Time(_) => None,
            Cell::Text(text) | Cell::Raw(text) => Some(Cow::Borrowed(text)),
            Cell::Json(value) => Some(Cow::Owned(value.to_string())),
        }
    }
}

/// Reads the names of columns; none means the default ones.
///
/// # Errors
/// If there are too many, or one has no name or the name of another.
pub fn parse(names: &[String]) -> Result<Vec<Column>, ColumnError> {
    if names.is_empty() {
        return Ok(DEFAULT.into_iter().map(Column::named).collect());
    }
    if names.len() > COLUMNS_MAX {
        return Err(ColumnError::TooMany(names.len()));
    }
    for (number, name) in names.iter().enumerate() {
        if name.is_empty() {
            return Err(ColumnError::Unnamed);
        }
        if names[..number].contains(name) {
            return Err(ColumnError::Twice(name.clone()));
        }
    }
    Ok(names.iter().map(|name| Column::named(name)).collect())
}

impl Column {
    fn named(name: &str) -> Self {
        let source = match name {
            "kind" => Source::Kind,
            "key" => Source::Key,
            "lastSeen" => Source::LastSeen,
            "applicationId" => Source::Application,
            "context" => Source::Context,
            attribute => Source::Attribute(AttributePath::parse(attribute)),
        };
        Self { name: name.to_owned(), source }
    }
}

/// Reads the columns of one context after the other.
pub struct Reader {
    columns: Vec<Column>,
    needs_attributes: bool,
    attributes: Map<String, Value>,
}

impl Reader {
    pub fn new(columns: Vec<Column>) -> Self {
        let needs_attributes = columns.iter().any(|column| matches!(column.source, Source::Attribute(_)));
        Self { columns, needs_attributes, attributes: Map::new() }
    }

    /// The cells of `found`, in the order of the columns.
    pub fn cells<'a>(&'a mut self, found: &'a FoundContext) -> impl Iterator<Item = (&'a Column, Cell<'a>)> {
        if self.needs_attributes {
            self.attributes = serde_json::from_str(found.context.get()).unwrap_or_default();
        }
        let attributes = &self.attributes;
        self.columns.iter().map(move |column| (column, cell(&column.source, found, attributes)))
    }
}

fn cell<'a>(source: &Source, found: &'a FoundContext, attributes: &'a Map<String, Value>) -> Cell<'a> {
    match source {
        Source::Kind => Cell::Text(&found.kind),
        Source::Key => Cell::Text(&found.key),
        Source::LastSeen => Cell::Time(found.last_seen.0),
        Source::Application => found.application.as_deref().map_or(Cell::Absent, Cell::Text),
        Source::Context => Cell::Raw(found.context.get()),
        Source::Attribute(path) => match path.get(attributes) {
            None => Cell::Absent,
            Some(Value::String(text)) => Cell::Text(text),
            Some(value) => Cell::Json(value),
        },
    }
}

#[cfg(test)]
mod tests {
    use runtime::UnixMicros;
    use serde_json::value::RawValue;

    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn columns_are_checked() {
        assert_eq!(parse(&[]).unwrap().len(), DEFAULT.len());
        assert_eq!(parse(&names(&["key", "plan", "key"])), Err(ColumnError::Twice("key".into())));
        assert_eq!(parse(&names(&["key", ""])), Err(ColumnError::Unnamed));
        let many: Vec<String> = (0..=COLUMNS_MAX).map(|number| number.to_string()).collect();
        assert_eq!(parse(&many), Err(ColumnError::TooMany(COLUMNS_MAX + 1)));
        assert!(parse(&many[1..]).is_ok());
    }

    #[test]
    fn cells_come_from_record_and_context() {
        let context =
            r#"{"kind":"user","key":"u","seats":44,"address":{"city":"Recife"},"lastSeen":"never","gone":null}"#;
        let found = FoundContext {
            kind: "user".into(),
            key: "u".into(),
            context: RawValue::from_string(context.into()).unwrap(),
            last_seen: UnixMicros(5),
            application: None,
        };
        let wanted = ["key", "/address/city", "seats", "lastSeen", "/lastSeen", "gone", "applicationId", "address"];
        let mut reader = Reader::new(parse(&names(&wanted)).unwrap());
        let cells: Vec<_> = reader.cells(&found).map(|(_, cell)| cell.text().map(Cow::into_owned)).collect();
        let text = |text: &str| Some(text.to_owned());
        let expected =
            [text("u"), text("Recife"), text("44"), None, text("never"), None, None, text(r#"{"city":"Recife"}"#)];
        assert_eq!(cells, expected);
        assert!(matches!(reader.cells(&found).nth(3), Some((_, Cell::Time(5)))));
    }
}
