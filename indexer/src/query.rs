//! Filter -> Tantivy query over one shard.
//!
//! In: a checked [`Filter`], the environment, the kinds stored there. Out: a query, and whether it is exact. A query that
//! is not exact finds too much, never too little: the caller then tests each document it finds with the plain evaluator.
//! Everything is intersected with the environment's listed contexts, so that "not" stays inside the environment.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use tantivy::Term;
use tantivy::query::{BooleanQuery, EmptyQuery, Occur, Query, TermQuery};
use tantivy::schema::{Field as IndexField, IndexRecordOption};

use crate::filter::evaluate::{context_id, forgiven_edits};
use crate::filter::{Expr, Field, Filter, Predicate, Scope, Test};
use crate::scan::{Accept, NearWordQuery, Scan, UnionQuery};
use crate::terms::{EnvironmentPrefix, WORD_BYTES_MAX, exists, family};

/// A query for one shard.
pub struct Compiled {
    pub query: Box<dyn Query>,
    /// False: it may find contexts that do not match.
    pub is_exact: bool,
}

/// Compiles `filter`. `kinds`: all kinds stored in the environment, sorted.
pub fn compile(filter: &Filter, environment: EnvironmentPrefix, kinds: &[String], terms: IndexField) -> Compiled {
    let mut compiler = Compiler { environment, kinds, terms, is_exact: true };
    let listed = compiler.term(environment.listed());
    let query = match &filter.root {
        None => listed,
        Some(root) => all(vec![listed, compiler.expr(root)]),
    };
    // Two predicates on the application may hold for two different versions.
    let applications = filter.predicates().iter().filter(|predicate| predicate.field == Field::Application).count();
    Compiled { query, is_exact: compiler.is_exact && applications < 2 }
}

struct Compiler<'a> {
    environment: EnvironmentPrefix,
    kinds: &'a [String],
    terms: IndexField,
    is_exact: bool,
}

type Boxed = Box<dyn Query>;

fn all(parts: Vec<Boxed>) -> Boxed {
    Box::new(BooleanQuery::new(parts.into_iter().map(|part| (Occur::Must, part)).collect()))
}

fn any(mut parts: Vec<Boxed>) -> Boxed {
    match parts.len() {
        0 => Box::new(EmptyQuery),
        1 => parts.swap_remove(0),
        _ => Box::new(BooleanQuery::new(parts.into_iter().map(|part| (Occur::Should, part)).collect())),
    }
}

fn without(base: Boxed, excluded: Boxed) -> Boxed {
    Box::new(BooleanQuery::new(vec![(Occur::Must, base), (Occur::MustNot, excluded)]))
}

impl Compiler<'_> {
    fn term(&self, term: Vec<u8>) -> Boxed {
        Box::new(TermQuery::new(Term::from_field_bytes(self.terms, &term), IndexRecordOption::Basic))
    }

    fn union(&self, mut terms: Vec<Vec<u8>>, scans: Vec<Scan>) -> Boxed {
        terms.sort_unstable();
        terms.dedup();
        match (terms.len(), scans.len()) {
            (0, 0) => Box::new(EmptyQuery),
            (1, 0) => self.term(terms.swap_remove(0)),
            _ => Box::new(UnionQuery { field: self.terms, terms: Arc::new(terms), scans: Arc::new(scans) }),
        }
    }

    fn terms(&self, terms: impl IntoIterator<Item = Vec<u8>>) -> Boxed {
        self.union(terms.into_iter().collect(), Vec::new())
    }

    fn ranges(&self, ranges: impl Iterator<Item = (Vec<u8>, Vec<u8>)>) -> Boxed {
        self.union(Vec::new(), ranges.map(|(from, to)| Scan { from, to: Some(to), accept: Accept::All }).collect())
    }

    fn listed(&self) -> Boxed {
        self.term(self.environment.listed())
    }

    fn expr(&mut self, expr: &Expr) -> Boxed {
        match expr {
            Expr::And(parts) => all(parts.iter().map(|part| self.expr(part)).collect()),
            Expr::Or(parts) => any(parts.iter().map(|part| self.expr(part)).collect()),
            Expr::Is(predicate) => self.predicate(predicate),
        }
    }

    fn predicate(&mut self, predicate: &Predicate) -> Boxed {
        let environment = self.environment;
        let test = &predicate.test;
        match &predicate.field {
            Field::Kind => self.texts(test, |text| vec![environment.kind(text)]),
            Field::KindKey => self.texts(test, |text| kind_key_terms(environment, text)),
            Field::Id => self.texts(test, |text| id_terms(environment, text)),
            Field::Key => self.key(test),
            Field::Application => self.application(test),
            Field::Kinds => self.set(test, |text| vec![environment.kind(text)]),
            Field::KindKeys => self.set(test, |text| kind_key_terms(environment, text)),
            Field::Text => match test {
                Test::Words(texts) => any(texts.iter().map(|words| self.words(words)).collect()),
                _ => Box::new(EmptyQuery),
            },
            Field::Name => self.attribute(None, "/name", test),
            Field::Attribute(field) => {
                let kinds = self.kinds;
                let scope = Scope::of(field, |kind| kinds.binary_search_by(|stored| stored.as_str().cmp(kind)).is_ok());
                self.attribute(scope.kind.as_deref(), &scope.path.pointer(), test)
            }
        }
    }

    /// Tests of a text that stands in terms as it is.
    fn texts(&self, test: &Test, terms_of: impl Fn(&str) -> Vec<Vec<u8>>) -> Boxed {
        let of = |given: &[Value]| self.terms(given.iter().filter_map(Value::as_str).flat_map(&terms_of));
        match test {
            Test::Equals(given) => of(std::slice::from_ref(given)),
            Test::EqualsOneOf(given) | Test::AnyOf(given) => of(given),
            Test::NotEquals(given) => without(self.listed(), of(std::slice::from_ref(given))),
            _ => Box::new(EmptyQuery),
        }
    }

    fn key(&mut self, test: &Test) -> Boxed {
        let (environment, kinds) = (self.environment, self.kinds);
        let Test::StartsWith(prefix) = test else {
            return self.texts(test, |key| kinds.iter().map(|kind| environment.identity(kind, key)).collect());
        };
        let mut scans = Vec::with_capacity(kinds.len());
        for kind in kinds {
            let (start, was_cut) = environment.identity_prefix(kind, prefix);
            self.is_exact &= !was_cut;
            scans.push(Scan::prefix(start, Accept::All));
        }
        self.union(Vec::new(), scans)
    }

    fn application(&self, test: &Test) -> Boxed {
        let environment = self.environment;
        match test {
            Test::NotEquals(Value::String(given)) => {
                let others = Scan::prefix(
                    environment.family(family::APPLICATION).0,
                    Accept::Except(environment.application(given)),
                );
                self.union(Vec::new(), vec![others])
            }
            test => {
                self.texts(test, |text| if text.is_empty() { Vec::new() } else { vec![environment.application(text)] })
            }
        }
    }

    /// Tests of a set that has one member.
    fn set(&self, test: &Test, terms_of: impl Fn(&str) -> Vec<Vec<u8>>) -> Boxed {
        let texts = |given: &[Value]| given.iter().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>();
        let all_same = |given: &[Value]| match texts(given).as_slice() {
            [first, rest @ ..] if rest.iter().all(|other| other == first) => self.terms(terms_of(first)),
            _ => Box::new(EmptyQuery),
        };
        match test {
            Test::Equals(Value::Array(given)) => all_same(given),
            Test::Contains(given) if given.is_empty() => self.listed(),
            Test::Contains(given) => all_same(given),
            Test::AnyOf(given) => self.terms(texts(given).iter().flat_map(|text| terms_of(text))),
            _ => Box::new(EmptyQuery),
        }
    }

    fn words(&mut self, words: &[String]) -> Boxed {
        if words.is_empty() {
            return self.listed();
        }
        let mut parts = Vec::with_capacity(words.len());
        for word in words {
            self.is_exact &= word.len() <= WORD_BYTES_MAX;
            let prefixed = self.union(Vec::new(), vec![Scan::prefix(self.environment.word(word), Accept::All)]);
            let edits = forgiven_edits(word);
            parts.push(if edits == 0 || word.len() > WORD_BYTES_MAX {
                prefixed
            } else {
                let near = NearWordQuery::new(self.terms, self.environment.family(family::WORD).0, word, edits);
                any(vec![prefixed, Box::new(near)])
            });
        }
        all(parts)
    }

    fn attribute(&mut self, kind: Option<&str>, pointer: &str, test: &Test) -> Boxed {
        let environment = self.environment;
        let one = kind.map(|kind| [kind.to_owned()]);
        let kinds = one.as_ref().map_or(self.kinds, |one| one.as_slice());
        let in_scope = || match kind {
            Some(kind) => self.term(environment.kind(kind)),
            None => self.listed(),
        };
        let values = |value: &Value, is_element: bool| {
            kinds.iter().filter_map(|kind| environment.value(kind, pointer, value, is_element)).collect::<Vec<_>>()
        };
        let exists = || {
            let ways = [exists::LEAF, exists::OTHER];
            self.terms(kinds.iter().flat_map(|kind| ways.map(|how| environment.exists(kind, pointer, how))))
        };
        match test {
            Test::Equals(given) => self.terms(values(given, false)),
            Test::EqualsOneOf(given) => self.terms(given.iter().flat_map(|given| values(given, false))),
            Test::NotEquals(given) => without(in_scope(), self.terms(values(given, false))),
            Test::AnyOf(given) => self.terms(given.iter().flat_map(|given| {
                // A stored array is tested by its elements, so a whole array is never asked for.
                let whole = if given.is_array() { Vec::new() } else { values(given, false) };
                [whole, values(given, true)].concat()
            })),
            Test::Contains(given) if given.is_empty() => {
                self.is_exact = false;
                self.terms(
                    kinds.iter().flat_map(|kind| {
                        [exists::LEAF, exists::OTHER].map(|how| environment.exists(kind, pointer, how))
                    }),
                )
            }
            Test::Contains(given) => all(given.iter().map(|given| self.terms(values(given, true))).collect()),
            Test::Exists(true) => exists(),
            Test::Exists(false) => without(in_scope(), exists()),
            Test::StartsWith(prefix) => {
                let mut scans = Vec::with_capacity(kinds.len());
                let mut is_cut = false;
                for kind in kinds {
                    let (start, was_cut) = environment.value_prefix(kind, pointer, prefix);
                    is_cut |= was_cut;
                    let text_at = environment.attribute(family::VALUE, kind, pointer).0.len();
                    scans.push(Scan::prefix(start, Accept::WholeText(text_at)));
                }
                self.is_exact &= !is_cut;
                self.union(Vec::new(), scans)
            }
            Test::Before(limit) => {
                self.ranges(kinds.iter().flat_map(|kind| environment.times_until(kind, pointer, *limit)))
            }
            Test::After(limit) => {
                self.ranges(kinds.iter().flat_map(|kind| environment.times_from(kind, pointer, *limit)))
            }
            Test::Words(_) => Box::new(EmptyQuery),
        }
    }
}

/// Identity of `kind:key`; kinds have no colon.
fn kind_key_terms(environment: EnvironmentPrefix, text: &str) -> Vec<Vec<u8>> {
    text.split_once(':').map(|(kind, key)| environment.identity(kind, key)).into_iter().collect()
}

/// Identity of the context that has this id.
fn id_terms(environment: EnvironmentPrefix, id: &str) -> Vec<Vec<u8>> {
    let decoded = URL_SAFE_NO_PAD.decode(id).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let Some((kind, escaped)) = decoded.as_deref().and_then(|text| text.split_once(':')) else { return Vec::new() };
    let key = escaped.replace("%3A", ":").replace("%25", "%");
    if context_id(kind, &key) == id { vec![environment.identity(kind, &key)] } else { Vec::new() }
}
