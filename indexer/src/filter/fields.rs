//! Which fields a filter may name, and which operators each takes.
//!
//! Source: context-search-api sections 6.2 and 6.3; `seen` is ours.

use events::context::is_valid_kind;
use serde::{Deserialize, Serialize};

use super::FilterError;
use crate::attribute::AttributePath;

/// What a filter is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    Contexts,
    Instances,
}

/// A field of a context, an instance or a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Field {
    Kind,
    Key,
    KindKey,
    Id,
    Application,
    Kinds,
    KindKeys,
    /// `q`.
    Text,
    /// Of legacy users: as `q`, but only key, names and e-mail are searched. No filter text names it.
    UserText,
    /// Ours: when the context, or the version of it, was last seen. An attribute of this name is `*.seen`.
    Seen,
    /// The bare `name`: a text attribute of every kind.
    Name,
    /// Everything else, as written. [`Scope::of`] reads it, as that needs the stored kinds.
    Attribute(String),
}

/// How the values of a field are typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldType {
    Text,
    TextList,
    FullText,
    Any,
}

/// The operators of the language.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    After,
    AnyOf,
    Before,
    Contains,
    Equals,
    Exists,
    NotEquals,
    StartsWith,
}

impl Operator {
    const ALL: [(Self, &'static str); 8] = [
        (Self::After, "after"),
        (Self::AnyOf, "anyOf"),
        (Self::Before, "before"),
        (Self::Contains, "contains"),
        (Self::Equals, "equals"),
        (Self::Exists, "exists"),
        (Self::NotEquals, "notEquals"),
        (Self::StartsWith, "startsWith"),
    ];

    /// Reads an operator in any letter case.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| known.eq_ignore_ascii_case(name)).map(|(operator, _)| *operator)
    }

    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(operator, _)| *operator == self).map_or("", |(_, name)| name)
    }
}

use Operator::{After, AnyOf, Before, Contains, Equals, Exists, NotEquals, StartsWith};

impl Field {
    /// Reads the name of a field.
    ///
    /// # Errors
    /// If the field is empty, or unknown to instances.
    pub fn from_name(name: &str, subject: Subject, at: usize) -> Result<Self, FilterError> {
        let field = match name {
            "applicationId" => Self::Application,
            "id" => Self::Id,
            "kinds" => Self::Kinds,
            "kindKeys" => Self::KindKeys,
            _ if subject == Subject::Instances => {
                let message =
                    format!("instances have no field {name:?}: expected applicationId, id, kinds or kindKeys");
                return Err(FilterError::new(at, message));
            }
            "kind" => Self::Kind,
            "key" => Self::Key,
            "kindKey" => Self::KindKey,
            "q" => Self::Text,
            "name" => Self::Name,
            "seen" => Self::Seen,
            "" => return Err(FilterError::new(at, "expected a field")),
            _ if name.split_once('.').is_some_and(|(_, attribute)| attribute.is_empty()) => {
                return Err(FilterError::new(at, format!("expected an attribute after the dot of {name:?}")));
            }
            _ => Self::Attribute(name.to_owned()),
        };
        Ok(field)
    }

    pub fn field_type(&self) -> FieldType {
        match self {
            Self::Kind | Self::Key | Self::KindKey | Self::Id | Self::Application | Self::Name => FieldType::Text,
            Self::Kinds | Self::KindKeys => FieldType::TextList,
            Self::Text | Self::UserText => FieldType::FullText,
            Self::Seen | Self::Attribute(_) => FieldType::Any,
        }
    }

    pub fn operators(&self) -> &'static [Operator] {
        match self {
            Self::Kind | Self::KindKey | Self::Id | Self::Application => &[Equals, NotEquals, AnyOf],
            Self::Key => &[Equals, NotEquals, AnyOf, StartsWith],
            Self::Name => &[Equals, NotEquals, AnyOf, Exists, StartsWith, Contains],
            Self::Kinds | Self::KindKeys => &[Equals, AnyOf, Contains],
            Self::Text | Self::UserText => &[Equals],
            Self::Seen => &[Before, After],
            Self::Attribute(_) => &[Equals, NotEquals, Exists, StartsWith, Before, After, AnyOf, Contains],
        }
    }
}

/// Where an attribute field looks: in contexts of one kind or of all, at one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// None: every kind.
    pub kind: Option<String>,
    pub path: AttributePath,
}

impl Scope {
    /// Reads `<kind>.<attribute>`, `*.<attribute>` or a bare attribute name.
    ///
    /// The attribute follows the first dot, unless a stored kind has dots in its name and is a longer match. What
    /// stands before the first dot and cannot be a kind belongs to the name: then the field is a bare name.
    pub fn of(field: &str, is_stored_kind: impl Fn(&str) -> bool) -> Self {
        let Some(dot) = field.find('.') else {
            return Self { kind: None, path: AttributePath::parse(field) };
        };
        let (head, rest) = (&field[..dot], &field[dot + 1..]);
        if head == "*" {
            return Self { kind: None, path: AttributePath::parse(rest) };
        }
        let later_dots = field.match_indices('.').map(|(at, _)| at).filter(|at| *at > dot && at + 1 < field.len());
        let longer = later_dots.filter(|at| is_stored_kind(&field[..*at])).last();
        let Some(at) = longer.or(is_valid_kind(head).then_some(dot)) else {
            return Self { kind: None, path: AttributePath::parse(field) };
        };
        Self { kind: Some(field[..at].to_owned()), path: AttributePath::parse(&field[at + 1..]) }
    }

    /// Whether reading `field` depends on which kinds are stored.
    pub fn depends_on_kinds(field: &str) -> bool {
        field.split_once('.').is_none_or(|(head, rest)| !is_valid_kind(head) || rest.contains('.'))
    }
}
