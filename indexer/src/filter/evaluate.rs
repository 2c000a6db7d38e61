//! The plain meaning of a filter, one document at a time.
//!
//! Used where a document is at hand anyway (versions of a context, texts too long to stand whole in a term), and as the
//! oracle that property tests hold the index against.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use events::context::{canonical_key, canonical_parts};
use runtime::UnixMicros;
use serde_json::{Map, Value};

use super::{
    Expr, FORGIVING_LETTERS_MAX, Field, Filter, FilterTime, Predicate, Scope, Test, fold_case, for_each_word_of, same,
};
use crate::attribute::{AttributePath, redacted, walk};

/// What a filter is tested on: one version of one context.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    pub kind: &'a str,
    pub key: &'a str,
    /// `kind`, `key`, attributes and `_meta`.
    pub context: &'a Map<String, Value>,
    pub application: Option<&'a str>,
    pub last_seen: UnixMicros,
}

/// The id of a single context: unpadded base64url of its canonical key.
pub fn context_id(kind: &str, key: &str) -> String {
    URL_SAFE_NO_PAD.encode(canonical_key(&mut [(kind, key)]))
}

/// Whether `candidate` matches. `is_stored_kind` decides how a field with several dots is read.
pub fn matches(filter: &Filter, candidate: &Candidate<'_>, is_stored_kind: &dyn Fn(&str) -> bool) -> bool {
    filter.root.as_ref().is_none_or(|root| holds(root, candidate, is_stored_kind))
}

fn holds(expr: &Expr, candidate: &Candidate<'_>, is_stored_kind: &dyn Fn(&str) -> bool) -> bool {
    match expr {
        Expr::And(parts) => parts.iter().all(|part| holds(part, candidate, is_stored_kind)),
        Expr::Or(parts) => parts.iter().any(|part| holds(part, candidate, is_stored_kind)),
        Expr::Is(predicate) => predicate_holds(predicate, candidate, is_stored_kind),
    }
}

/// What a filter of instances is tested on: one version of a combination.
#[derive(Clone, Copy, Debug)]
pub struct InstanceCandidate<'a> {
    /// Canonical key of its parts that are not anonymous.
    pub canonical: &'a str,
    pub application: Option<&'a str>,
}

/// Whether a version of an instance matches.
pub fn instance_matches(filter: &Filter, candidate: &InstanceCandidate<'_>) -> bool {
    let parts = canonical_parts(candidate.canonical).unwrap_or_default();
    let kinds: Vec<String> = parts.iter().map(|(kind, _)| kind.clone()).collect();
    let kind_keys: Vec<String> = parts.iter().map(|(kind, key)| format!("{kind}:{key}")).collect();
    fn all(expr: &Expr, holds: &dyn Fn(&Predicate) -> bool) -> bool {
        match expr {
            Expr::And(parts) => parts.iter().all(|part| all(part, holds)),
            Expr::Or(parts) => parts.iter().any(|part| all(part, holds)),
            Expr::Is(predicate) => holds(predicate),
        }
    }
    let holds = |predicate: &Predicate| match &predicate.field {
        Field::Id => value_passes(Some(&URL_SAFE_NO_PAD.encode(candidate.canonical).into()), &predicate.test),
        Field::Application => value_passes(candidate.application.map(Value::from).as_ref(), &predicate.test),
        Field::Kinds => set_passes(&kinds, &predicate.test),
        Field::KindKeys => set_passes(&kind_keys, &predicate.test),
        _ => false,
    };
    filter.root.as_ref().is_none_or(|root| all(root, &holds))
}

fn predicate_holds(predicate: &Predicate, candidate: &Candidate<'_>, is_stored_kind: &dyn Fn(&str) -> bool) -> bool {
    let own = |text: &str| Value::String(text.to_owned());
    let kind_key = || format!("{}:{}", candidate.kind, candidate.key);
    let test = &predicate.test;
    match &predicate.field {
        Field::Kind => value_passes(Some(&own(candidate.kind)), test),
        // `key` is compared as it stands, unlike every other text.
        Field::Key => match test {
            Test::StartsWith(prefix) => candidate.key.starts_with(prefix.as_str()),
            test => value_passes(Some(&own(candidate.key)), test),
        },
        Field::KindKey => value_passes(Some(&own(&kind_key())), test),
        Field::Id => value_passes(Some(&own(&context_id(candidate.kind, candidate.key))), test),
        Field::Application => value_passes(candidate.application.map(own).as_ref(), test),
        Field::Kinds => set_passes(&[candidate.kind.to_owned()], test),
        Field::KindKeys => set_passes(&[kind_key()], test),
        Field::Text => match test {
            Test::Words(texts) => texts.iter().any(|phrase| has_words(candidate, &phrase.words, word_matches)),
            _ => false,
        },
        Field::UserText => match test {
            Test::Words(texts) => texts.iter().any(|phrase| has_user_words(candidate, &phrase.words)),
            _ => false,
        },
        Field::Seen => match test {
            Test::Before(limit) => candidate.last_seen.0 <= limit.last_micros(),
            Test::After(limit) => candidate.last_seen.0 >= limit.first_micros(),
            _ => false,
        },
        Field::Name => value_passes(AttributePath::parse("name").get(candidate.context), test),
        Field::Attribute(field) => {
            let scope = Scope::of(field, is_stored_kind);
            scope.kind.is_none_or(|kind| kind == candidate.kind)
                && value_passes(scope.path.get(candidate.context), test)
        }
    }
}

/// Tests a value, or its absence.
fn value_passes(stored: Option<&Value>, test: &Test) -> bool {
    match test {
        Test::NotEquals(given) => stored.is_none_or(|stored| !same(stored, given)),
        Test::Exists(wanted) => stored.is_some() == *wanted,
        test => stored.is_some_and(|stored| present_value_passes(stored, test)),
    }
}

fn present_value_passes(stored: &Value, test: &Test) -> bool {
    let elements = match stored {
        Value::Array(elements) => elements.as_slice(),
        single => std::slice::from_ref(single),
    };
    let any_time = |accept: &dyn Fn(FilterTime) -> bool| elements.iter().filter_map(FilterTime::read).any(accept);
    match test {
        Test::Equals(given) => same(stored, given),
        Test::EqualsOneOf(given) => given.iter().any(|given| same(stored, given)),
        Test::AnyOf(given) => elements.iter().any(|element| given.iter().any(|given| same(element, given))),
        Test::Contains(given) => match stored {
            Value::Array(_) => given.iter().all(|given| elements.iter().any(|element| same(element, given))),
            Value::String(text) => text_contains(text, given),
            _ => false,
        },
        Test::StartsWith(prefix) => stored.as_str().is_some_and(|text| fold_case(text).starts_with(&fold_case(prefix))),
        Test::Before(limit) => any_time(&|time| time <= *limit),
        Test::After(limit) => any_time(&|time| time >= *limit),
        Test::NotEquals(_) | Test::Exists(_) | Test::Words(_) => false,
    }
}

/// Whether every given value is a part of the text, in any letter case. Nothing given is nothing contained.
fn text_contains(text: &str, given: &[Value]) -> bool {
    let folded = fold_case(text);
    !given.is_empty()
        && given.iter().all(|given| given.as_str().is_some_and(|given| folded.contains(&fold_case(given))))
}

/// `kinds` and `kindKeys`: of a context, sets with one member.
fn set_passes(members: &[String], test: &Test) -> bool {
    let is_member = |given: &Value| members.iter().any(|member| given.as_str() == Some(member));
    match test {
        Test::Equals(Value::Array(given)) => {
            given.iter().all(is_member) && members.iter().all(|member| given.iter().any(|given| given == member))
        }
        Test::AnyOf(given) => given.iter().any(is_member),
        Test::Contains(given) => given.iter().all(is_member),
        _ => false,
    }
}

/// How well a match fits the first `q` of the filter: 0 if its key or a text equals one of the texts in any letter case, 1 if all
/// words of one of them are there or begin a word, 2 otherwise.
pub fn match_rank(filter: &Filter, candidate: &Candidate<'_>) -> i64 {
    let phrases = filter.first_phrases().unwrap_or_default();
    let mut is_exact = false;
    for_each_text(candidate.key, candidate.context, &mut |text, is_whole| {
        is_exact |= is_whole && phrases.iter().any(|phrase| phrase.folded == fold_case(text));
    });
    let begins = |wanted: &str, word: &str| word.starts_with(wanted);
    match () {
        () if is_exact => 0,
        () if phrases.iter().any(|phrase| has_words(candidate, &phrase.words, begins)) => 1,
        () => 2,
    }
}

fn has_words(candidate: &Candidate<'_>, wanted: &[String], is_match: impl Fn(&str, &str) -> bool) -> bool {
    let mut present = Vec::new();
    for_each_word(candidate.key, candidate.context, &mut |word| present.push(word.to_owned()));
    wanted.iter().all(|wanted| present.iter().any(|word| is_match(wanted, word)))
}

/// As [`has_words`], but only the words of what a legacy user is searched by count.
fn has_user_words(candidate: &Candidate<'_>, wanted: &[String]) -> bool {
    const SEARCHED: [&str; 4] = ["name", "firstName", "lastName", "email"];
    let is_searched = |name: &str| SEARCHED.contains(&name) || name == "_meta";
    let searched: Map<String, Value> = candidate
        .context
        .iter()
        .filter(|(name, value)| is_searched(name) && (value.is_string() || value.is_object()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    has_words(&Candidate { context: &searched, ..*candidate }, wanted, word_matches)
}

/// Calls `visit` with the words of the key and of all texts among the attributes.
pub(crate) fn for_each_word(key: &str, context: &Map<String, Value>, visit: &mut impl FnMut(&str)) {
    for_each_text(key, context, &mut |text, _| for_each_word_of(text, &mut *visit));
}

/// Calls `visit` with the key and with all texts among the attributes, and whether it is a value or an element of one, not
/// further inside. What some sender holds back as private has none, also where a value of it is known from another.
fn for_each_text(key: &str, context: &Map<String, Value>, visit: &mut impl FnMut(&str, bool)) {
    fn visit_value(value: &Value, depth: usize, visit: &mut impl FnMut(&str, bool)) {
        match value {
            Value::String(text) => visit(text, depth < 2),
            Value::Array(elements) => elements.iter().for_each(|element| visit_value(element, depth + 1, visit)),
            // Members of objects at paths are walked by `walk`; these are objects within arrays.
            Value::Object(members) => members.values().for_each(|member| visit_value(member, depth + 2, visit)),
            _ => {}
        }
    }
    visit(key, true);
    let private: Vec<String> = redacted(context).iter().map(AttributePath::pointer).collect();
    let is_within = |pointer: &str, outer: &String| {
        pointer.strip_prefix(outer.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    walk(context, &mut |pointer, value| {
        let is_searched = pointer != "/kind" && pointer != "/key" && !value.is_object();
        if is_searched && !private.iter().any(|outer| is_within(pointer, outer)) {
            visit_value(value, 0, visit);
        }
    });
}

/// How many edits a wanted word forgives.
pub(crate) fn forgiven_edits(word: &str) -> u8 {
    match word.chars().count() {
        ..4 => 0,
        4..8 => 1,
        8..=FORGIVING_LETTERS_MAX => 2,
        _ => 0,
    }
}

fn word_matches(wanted: &str, word: &str) -> bool {
    word.starts_with(wanted) || edit_distance_at_most(wanted, word, usize::from(forgiven_edits(wanted)))
}

fn edit_distance_at_most(left: &str, right: &str, most: usize) -> bool {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    if left.len().abs_diff(right.len()) > most {
        return false;
    }
    let mut previous: Vec<usize> = (0..=right.len()).collect();
    for (row, from) in left.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, to) in right.iter().enumerate() {
            let replaced = previous[column] + usize::from(from != to);
            current.push(replaced.min(previous[column + 1] + 1).min(current[column] + 1));
        }
        previous = current;
    }
    previous[right.len()] <= most
}
