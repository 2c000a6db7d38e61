//! Random contexts and random filters: the index finds what the plain evaluator says.

use std::collections::BTreeSet;

use indexer::attribute::redacted;
use indexer::filter::evaluate::{Candidate, matches};
use indexer::filter::{Filter, Subject};
use indexer::{Ask as _, SearchRequest, Sort};
use proptest::prelude::*;
use runtime::UnixMicros;
use serde_json::{Value, json};

use crate::common::random::{context, filter, objects};
use crate::common::{Flow, Seen, ago, environment, new_log};

fn expected(contexts: &[Value], filter: &Filter, stored: &BTreeSet<String>) -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    for context in contexts {
        let context = context.as_object().unwrap();
        let (kind, key) = (context["kind"].as_str().unwrap(), context["key"].as_str().unwrap());
        // No field of these filters asks for it.
        let last_seen = UnixMicros(0);
        let candidate = Candidate { kind, key, context, application: None, last_seen };
        if matches(filter, &candidate, &|kind| stored.contains(kind)) {
            found.insert((kind.to_owned(), key.to_owned()));
        }
    }
    found
}

/// What is known of a context after it was seen as `newer`: a value that is held back now, but came before, is kept.
fn state_after(older: Option<&Value>, newer: &Value) -> Value {
    let mut state = newer.as_object().unwrap().clone();
    state.retain(|_, value| !value.is_null());
    for path in redacted(newer.as_object().unwrap()) {
        if let Some(value) = older.and_then(|older| path.get(older.as_object().unwrap())) {
            path.insert_if_absent(&mut state, value.clone());
        }
    }
    Value::Object(state)
}

fn check(contexts: &[Value], filters: &[String]) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let flow = Flow::start(dir.path(), new_log());
        // Several commits, so that later contexts of one key replace documents of older segments.
        let seen: Vec<_> =
            contexts.iter().enumerate().map(|(at, context)| Seen::context(context, ago(1000 - at as i64))).collect();
        for part in seen.chunks(seen.len().div_ceil(3).max(1)) {
            flow.see(part).await;
        }
        let mut newest: Vec<Value> = Vec::new();
        for context in contexts {
            let is_same = |other: &&Value| (&other["kind"], &other["key"]) == (&context["kind"], &context["key"]);
            let state = state_after(newest.iter().find(is_same), context);
            newest.retain(|other| !is_same(&other));
            newest.push(state);
        }
        let stored = newest.iter().map(|context| context["kind"].as_str().unwrap().to_owned()).collect();
        for text in filters {
            let filter = Filter::parse(text, Subject::Contexts).unwrap();
            let request = SearchRequest {
                environment: environment(),
                filter: filter.clone(),
                sort: Sort::KindKey,
                limit: 1000,
                after: None,
            };
            let page = flow.indexer.search(&request).unwrap();
            let found: BTreeSet<_> = page.contexts.into_iter().map(|context| (context.kind, context.key)).collect();
            assert_eq!(found, expected(&newest, &filter, &stored), "{text}\n{}", Value::from(newest.clone()));
            assert_eq!(page.total as usize, found.len());
        }
        flow.stop().await;
    });
}

#[test]
fn values_that_are_held_back_later_are_still_found() {
    let seen = json!({"kind": "user", "key": "u-1", "plan": "gold", "deep": {"city": "Recife", "n": 1}});
    let held_back = json!({"kind": "user", "key": "u-1", "plan": null, "deep": {"n": 2},
        "_meta": {"redactedAttributes": ["/plan", "/deep/city"]}});
    let filters = [
        "user.plan equals gold",
        "*.plan startsWith go",
        "user./deep/city exists true",
        "user./deep/n equals 1",
        "q equals recife",
    ];
    check(&[seen, held_back], &filters.map(str::to_owned));
}

#[test]
fn objects_equal_those_with_the_same_members() {
    let contexts: Vec<Value> = (0..)
        .zip(objects())
        .map(|(n, object)| {
            let kind = ["user", "org"][n % 2];
            json!({"kind": kind, "key": format!("k{n}"), "deep": object.clone(), "tags": [object, "gold"]})
        })
        .collect();
    let questions = |object: Value| {
        [
            format!("user.deep equals {object}"),
            format!("*.deep notEquals {object}"),
            format!("deep anyOf [{object},[{object}],44]"),
            format!("*.deep equals {object}|org./deep/n equals {object}"),
            format!("*.tags equals [{object},\"gold\"]"),
            format!("user.tags contains {object}"),
            format!("tags anyOf {object}"),
        ]
    };
    // None may name null.
    let is_question = |text: &String| Filter::parse(text, Subject::Contexts).is_ok();
    let questions: Vec<String> = objects().into_iter().flat_map(questions).filter(is_question).collect();
    assert!(questions.len() > 7 * 24);
    check(&contexts, &questions);
}

#[test]
fn times_are_found_however_they_are_written() {
    let times = vec![
        json!(-1),
        json!(44),
        json!("0000000000044"),
        json!(99_999_999),
        json!(100_000_000),
        json!(100_000_000.5),
        json!(999_999_999),
        json!(1_000_000_000),
        json!(1_735_689_599_999_i64),
        json!(1_735_689_600_000_i64),
        json!(1_735_689_600_000.0),
        json!(17_356_896_000_000_i64),
        json!(1_735_706_000_000_i64),
        json!(i64::MAX),
        json!(u64::MAX),
        json!("1735689600000"),
        json!("1735689600000 or so"),
        json!("2025-01-01T00:00:00Z"),
        json!("2025-01-01T01:00:00.000000001+01:00"),
        json!("2024-12-31T23:59:59.999999Z"),
    ];
    let contexts: Vec<Value> = (0..)
        .zip(&times)
        .map(|(n, time)| {
            let kind = ["user", "org"][n % 2];
            json!({"kind": kind, "key": format!("k{n}"), "at": time, "tags": [time, "gold", [time]]})
        })
        .collect();
    let questions = |time: &Value| {
        [
            format!("user.at before {time}"),
            format!("at after {time}"),
            format!("*.tags before {time}"),
            format!("org.tags after {time}"),
            format!("at before {time},at after {time}"),
        ]
    };
    let is_question = |text: &String| Filter::parse(text, Subject::Contexts).is_ok();
    let questions: Vec<String> = times.iter().flat_map(questions).filter(is_question).collect();
    assert!(questions.len() > 5 * 15);
    check(&contexts, &questions);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 16,
        max_shrink_iters: 200,
        // Of the types that are drawn for a condition most do not fit; however many cases are asked for, that is no failure.
        max_local_rejects: u32::MAX,
        ..ProptestConfig::default()
    })]

    #[test]
    fn index_finds_what_the_evaluator_says(
        contexts in prop::collection::vec(context(), 1..25),
        filters in prop::collection::vec(filter(), 60),
    ) {
        check(&contexts, &filters);
    }
}
