//! Filter -> Tantivy query over one shard.
//!
//! In: a checked [`Filter`], the environment, the kinds stored there. Out: a query, and whether it is exact. A query that
//! is not exact finds too much, never too little: the caller then tests each document it finds with the plain evaluator.
//! Everything is intersected with the environment's listed contexts, so that "not" stays inside the environment.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use events::context::canonical_parts;
use serde_json::Value;
use tantivy::Term;
use tantivy::query::{BooleanQuery, EmptyQuery, Occur, Query, RangeQuery, TermQuery};
use tantivy::schema::{Field as IndexField, IndexRecordOption};

use crate::filter::evaluate::{context_id, forgiven_edits};
use crate::filter::{Expr, Field, Filter, Predicate, Scope, Test};
use crate::record::INSTANCE_KIND;
use crate::scan::{Accept, Budget, NearWord, Scan, UnionQuery};
use crate::terms::{EnvironmentPrefix, exists, family};

/// A query for one shard.
pub struct Compiled {
    pub query: Box<dyn Query>,
    /// False: it may find contexts that do not match.
    pub is_exact: bool,
}

/// What a filter is compiled for.
pub struct Ground<'a> {
    pub environment: EnvironmentPrefix,
    /// All kinds stored in the environment, sorted, if the filter depends on them.
    pub kinds: &'a [String],
    pub terms: IndexField,
    /// The column of last-seen times.
    pub last_seen: IndexField,
    /// Whether the shard has a term.
    pub has_term: &'a dyn Fn(&[u8]) -> bool,
    /// Of the whole search.
    pub budget: &'a Budget,
}

/// Compiles `filter` for one shard.
pub fn compile(filter: &Filter, ground: Ground<'_>) -> Compiled {
    let mut compiler = Compiler::new(filter, ground);
    let query = match &filter.root {
        None => compiler.listed(),
        Some(root) => all(vec![compiler.listed(), compiler.expr(root)]),
    };
    // Two predicates on the application may hold for two different versions.
    let applications = filter.predicates().iter().filter(|predicate| predicate.field == Field::Application).count();
    Compiled { query, is_exact: compiler.is_exact && applications < 2 }
}

/// Compiles a filter of instances. Not exact where it names an application, as a context may be an instance of fewer
/// applications than have seen it.
pub fn compile_instances(filter: &Filter, ground: Ground<'_>) -> Compiled {
    let compiler = Compiler::new(filter, ground);
    let query = match &filter.root {
        None => compiler.all_instances(),
        Some(root) => all(vec![compiler.all_instances(), compiler.instance_expr(root)]),
    };
    Compiled { query, is_exact: !compiler.is_by_version }
}

struct Compiler<'a> {
    ground: Ground<'a>,
    /// Versions are tested, not contexts.
    is_by_version: bool,
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

impl<'a> Compiler<'a> {
    fn new(filter: &Filter, ground: Ground<'a>) -> Self {
        Self { ground, is_by_version: filter.names_application(), is_exact: true }
    }

    fn term(&self, term: Vec<u8>) -> Boxed {
        Box::new(TermQuery::new(Term::from_field_bytes(self.ground.terms, &term), IndexRecordOption::Basic))
    }

    fn union(&self, mut terms: Vec<Vec<u8>>, scans: Vec<Scan>) -> Boxed {
        terms.sort_unstable();
        terms.dedup();
        match (terms.len(), scans.len()) {
            (0, 0) => Box::new(EmptyQuery),
            (1, 0) => self.term(terms.swap_remove(0)),
            _ => self.union_query(terms, scans, None),
        }
    }

    fn union_query(&self, terms: Vec<Vec<u8>>, scans: Vec<Scan>, near: Option<NearWord>) -> Boxed {
        let (terms, scans) = (Arc::new(terms), Arc::new(scans));
        Box::new(UnionQuery { field: self.ground.terms, terms, scans, near, budget: self.ground.budget.clone() })
    }

    fn terms(&self, terms: impl IntoIterator<Item = Vec<u8>>) -> Boxed {
        self.union(terms.into_iter().collect(), Vec::new())
    }

    /// Contexts whose attribute is the same as one of some values.
    fn equal<'v>(&self, kinds: &[String], pointer: &str, values: impl IntoIterator<Item = &'v Value>) -> Boxed {
        let (mut single, mut parts) = (Vec::new(), Vec::new());
        for value in values {
            let terms = kinds.iter().filter_map(|kind| self.ground.environment.equal(kind, pointer, value));
            for mut terms in terms {
                match terms.len() {
                    1 => single.append(&mut terms),
                    // Few kinds have an object there at all.
                    _ if !(self.ground.has_term)(&terms[0]) => {}
                    _ => parts.push(all(terms.into_iter().map(|term| self.term(term)).collect())),
                }
            }
        }
        if !single.is_empty() {
            parts.push(self.terms(single));
        }
        any(parts)
    }

    fn scans(&self, scans: impl Iterator<Item = Scan>) -> Boxed {
        self.union(Vec::new(), scans.collect())
    }

    fn listed(&self) -> Boxed {
        self.term(self.ground.environment.listed())
    }

    fn all_instances(&self) -> Boxed {
        self.terms([self.ground.environment.instance(), self.ground.environment.alone()])
    }

    fn expr(&mut self, expr: &Expr) -> Boxed {
        match expr {
            Expr::And(parts) => all(parts.iter().map(|part| self.expr(part)).collect()),
            Expr::Or(parts) => any(parts.iter().map(|part| self.expr(part)).collect()),
            Expr::Is(predicate) => self.predicate(predicate),
        }
    }

    fn predicate(&mut self, predicate: &Predicate) -> Boxed {
        let environment = self.ground.environment;
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
                Test::Words(texts) => any(texts.iter().map(|phrase| self.words(&phrase.words)).collect()),
                _ => Box::new(EmptyQuery),
            },
            // Words of other attributes are found too: what is found is tested.
            Field::UserText => match test {
                Test::Words(texts) => {
                    self.is_exact = false;
                    any(texts.iter().map(|phrase| self.words(&phrase.words)).collect())
                }
                _ => Box::new(EmptyQuery),
            },
            Field::Seen => self.seen(test),
            Field::Name => self.attribute(None, "/name", test),
            Field::Attribute(field) => {
                let kinds = self.ground.kinds;
                let scope = Scope::of(field, |kind| kinds.binary_search_by(|stored| stored.as_str().cmp(kind)).is_ok());
                self.attribute(scope.kind.as_deref(), &scope.path.pointer(), test)
            }
        }
    }

    fn instance_expr(&self, expr: &Expr) -> Boxed {
        match expr {
            Expr::And(parts) => all(parts.iter().map(|part| self.instance_expr(part)).collect()),
            Expr::Or(parts) => any(parts.iter().map(|part| self.instance_expr(part)).collect()),
            Expr::Is(Predicate { field: Field::Id, test: Test::NotEquals(given), .. }) => {
                let texts = given.as_str().map(|id| self.instance_terms(id)).unwrap_or_default();
                without(self.all_instances(), self.terms(texts))
            }
            Expr::Is(predicate) => self.instance_predicate(predicate),
        }
    }

    fn instance_predicate(&self, predicate: &Predicate) -> Boxed {
        let environment = self.ground.environment;
        match &predicate.field {
            Field::Id => self.texts(&predicate.test, |id| self.instance_terms(id)),
            // Only a first choice: every version found is tested.
            Field::Application => match &predicate.test {
                Test::NotEquals(_) => self.all_instances(),
                test => self.texts(test, |text| vec![environment.application(text)]),
            },
            // A part of several, or the context itself.
            Field::Kinds => {
                self.parts(&predicate.test, |kind| vec![environment.part_kind(kind), environment.kind(kind)])
            }
            Field::KindKeys => self.parts(&predicate.test, |text| match text.split_once(':') {
                Some((kind, key)) => vec![environment.part(kind, key), environment.identity(kind, key)],
                None => Vec::new(),
            }),
            _ => Box::new(EmptyQuery),
        }
    }

    /// Tests of the set of parts.
    fn parts(&self, test: &Test, terms_of: impl Fn(&str) -> Vec<Vec<u8>>) -> Boxed {
        let environment = self.ground.environment;
        let texts = |given: &[Value]| -> BTreeSet<String> {
            given.iter().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let has_all = |texts: &BTreeSet<String>| all(texts.iter().map(|text| self.terms(terms_of(text))).collect());
        match test {
            Test::Equals(Value::Array(given)) if !given.is_empty() => {
                let texts = texts(given);
                let mut counts = vec![environment.part_count(texts.len())];
                // A context alone has no count.
                counts.extend((texts.len() == 1).then(|| environment.alone()));
                all(vec![has_all(&texts), self.terms(counts)])
            }
            Test::Contains(given) if given.is_empty() => self.all_instances(),
            Test::Contains(given) => has_all(&texts(given)),
            Test::AnyOf(given) => self.terms(texts(given).iter().flat_map(|text| terms_of(text))),
            _ => Box::new(EmptyQuery),
        }
    }

    /// Terms of the documents that may be the instance with this id.
    fn instance_terms(&self, id: &str) -> Vec<Vec<u8>> {
        let Some(canonical) = canonical_of_id(id) else { return Vec::new() };
        let mut terms = vec![self.ground.environment.identity(INSTANCE_KIND, &canonical)];
        if let Some([(kind, key)]) = canonical_parts(&canonical).as_deref() {
            terms.push(self.ground.environment.identity(kind, key));
        }
        terms
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
        let (environment, kinds) = (self.ground.environment, self.ground.kinds);
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
        let environment = self.ground.environment;
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

    fn seen(&mut self, test: &Test) -> Boxed {
        // The column has the time of the newest version; others were seen before it.
        self.is_exact &= !self.is_by_version;
        if self.is_by_version && matches!(test, Test::Before(_)) {
            return self.listed();
        }
        let time = |micros| Term::from_field_i64(self.ground.last_seen, micros);
        let (from, to) = match test {
            Test::Before(limit) => (Bound::Unbounded, Bound::Included(time(limit.last_micros()))),
            Test::After(limit) => (Bound::Included(time(limit.first_micros())), Bound::Unbounded),
            _ => return Box::new(EmptyQuery),
        };
        Box::new(RangeQuery::new(from, to))
    }

    fn words(&self, words: &[String]) -> Boxed {
        if words.is_empty() {
            return self.listed();
        }
        let one = |word: &String| {
            let begins = Scan::prefix(self.ground.environment.word(word), Accept::All);
            let edits = forgiven_edits(word);
            let all_words = || self.ground.environment.family(family::WORD).0;
            let near = (edits > 0).then(|| NearWord::new(all_words(), word, edits));
            self.union_query(Vec::new(), vec![begins], near)
        };
        all(words.iter().map(one).collect())
    }

    /// Contexts whose text at `pointer` has `part` in it: all value terms of the attribute are read, which bounds the cost
    /// by the number of its distinct values. Texts that do not stand whole in their terms are tested one by one.
    fn containing(&mut self, kinds: &[String], pointer: &str, part: &str) -> Boxed {
        let environment = self.ground.environment;
        let part = EnvironmentPrefix::part_of_value(part);
        let mut long = Vec::new();
        let mut scans = Vec::with_capacity(kinds.len());
        for kind in kinds {
            let start = environment.attribute(family::VALUE, kind, pointer).0;
            let accept = Accept::Containing { text_at: start.len(), part: part.clone() };
            scans.push(Scan::prefix(start, accept));
            let has_long = environment.exists(kind, pointer, exists::LONG_TEXT);
            if (self.ground.has_term)(&has_long) {
                self.is_exact = false;
                long.push(has_long);
            }
        }
        self.union(long, scans)
    }

    fn attribute(&mut self, kind: Option<&str>, pointer: &str, test: &Test) -> Boxed {
        let environment = self.ground.environment;
        let one = kind.map(|kind| [kind.to_owned()]);
        let kinds = one.as_ref().map_or(self.ground.kinds, |one| one.as_slice());
        let in_scope = || match kind {
            Some(kind) => self.term(environment.kind(kind)),
            None => self.listed(),
        };
        let equal = |given: &Value| self.equal(kinds, pointer, [given]);
        let elements = |given: &Value| -> Vec<Vec<u8>> {
            kinds.iter().filter_map(|kind| environment.value(kind, pointer, given, true)).collect()
        };
        let exists =
            || self.terms(kinds.iter().flat_map(|kind| exists::ALL.map(|how| environment.exists(kind, pointer, how))));
        match test {
            Test::Equals(given) => equal(given),
            Test::EqualsOneOf(given) => self.equal(kinds, pointer, given),
            Test::NotEquals(given) => without(in_scope(), equal(given)),
            // A stored array is tested by its elements, so a whole array is never asked for.
            Test::AnyOf(given) => any(vec![
                self.equal(kinds, pointer, given.iter().filter(|given| !given.is_array())),
                self.terms(given.iter().flat_map(elements)),
            ]),
            Test::Contains(given) if given.is_empty() => {
                let all = exists();
                self.is_exact = false;
                all
            }
            Test::Contains(given) => {
                let elements = all(given.iter().map(|given| self.terms(elements(given))).collect());
                match given.iter().map(Value::as_str).collect::<Option<Vec<_>>>() {
                    Some(parts) => {
                        let within = parts.into_iter().map(|part| self.containing(kinds, pointer, part));
                        let within = all(within.collect());
                        any(vec![elements, within])
                    }
                    None => elements,
                }
            }
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
                self.scans(kinds.iter().flat_map(|kind| environment.times_until(kind, pointer, *limit)))
            }
            Test::After(limit) => {
                self.scans(kinds.iter().flat_map(|kind| environment.times_from(kind, pointer, *limit)))
            }
            Test::Words(_) => Box::new(EmptyQuery),
        }
    }
}

/// The id of the instance with this canonical key.
pub fn instance_id(canonical: &str) -> String {
    URL_SAFE_NO_PAD.encode(canonical)
}

/// The canonical key that an id stands for.
pub fn canonical_of_id(id: &str) -> Option<String> {
    let canonical = String::from_utf8(URL_SAFE_NO_PAD.decode(id).ok()?).ok()?;
    canonical_parts(&canonical).is_some().then_some(canonical)
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
