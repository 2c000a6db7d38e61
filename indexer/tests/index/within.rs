//! Look-ups narrowed by a filter against plain counting over the contexts that match.

use std::collections::{BTreeMap, BTreeSet};

use http::StatusCode;
use indexer::api::Generation;
use indexer::attribute::{AttributePath, walk};
use indexer::filter::evaluate::{Candidate, matches};
use indexer::filter::{Filter, Subject, canonical, fold_case};
use indexer::{Ask as _, Config, Within};
use proptest::prelude::*;
use runtime::UnixMicros;
use serde_json::{Map, Value, json};

use crate::common::random::{NAMES, context, filter};
use crate::common::{BASE, Flow, Seen, ago, config, environment, form, new_log};

type Object = Map<String, Value>;

fn text_of(context: &Object, name: &str) -> String {
    context[name].as_str().unwrap().to_owned()
}

fn matching<'a>(contexts: &'a [Object], filter: &Filter) -> Vec<&'a Object> {
    let kinds: BTreeSet<String> = contexts.iter().map(|context| text_of(context, "kind")).collect();
    let is_match = |context: &&Object| {
        let (kind, key) = (text_of(context, "kind"), text_of(context, "key"));
        let candidate = Candidate { kind: &kind, key: &key, context, application: None, last_seen: UnixMicros(0) };
        matches(filter, &candidate, &|kind| kinds.contains(kind))
    };
    contexts.iter().filter(is_match).collect()
}

/// Names by kind and pointer: contexts that have them, and whether one of these holds them back.
fn counted_names(contexts: &[&Object]) -> BTreeMap<(String, String), (u64, bool)> {
    let mut names: BTreeMap<_, (u64, bool)> = BTreeMap::new();
    for context in contexts {
        let kind = text_of(context, "kind");
        walk(context, &mut |pointer, value| {
            if !value.is_object() && pointer != "/kind" {
                names.entry((kind.clone(), pointer.to_owned())).or_default().0 += 1;
            }
        });
        for path in indexer::attribute::redacted(context) {
            let name = names.entry((kind.clone(), path.pointer())).or_default();
            name.0 += u64::from(path.get(context).is_none());
            name.1 = true;
        }
    }
    names
}

/// Values by kind and the bytes that make them equal. Long texts are not told.
fn counted_values(contexts: &[&Object], path: &AttributePath, prefix: &str) -> BTreeMap<(String, Vec<u8>), u64> {
    let mut values = BTreeMap::new();
    for context in contexts {
        let Some(value) = path.get(context) else { continue };
        let elements = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        let is_told = |value: &&Value| match value {
            Value::String(text) => text.len().max(fold_case(text).len()) <= 256,
            Value::Number(_) | Value::Bool(_) => true,
            _ => false,
        };
        let begins = |value: &&Value| {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            fold_case(&text).starts_with(prefix)
        };
        let told: BTreeSet<Vec<u8>> = elements.iter().filter(is_told).filter(begins).filter_map(canonical).collect();
        for value in told {
            *values.entry((text_of(context, "kind"), value)).or_default() += 1;
        }
    }
    values
}

fn check(flow: &Flow, contexts: &[Object], text: &str) {
    let filter = Filter::parse(text, Subject::Contexts).unwrap();
    let found = matching(contexts, &filter);
    let Within { found: names, is_partial } =
        flow.indexer.attribute_names_within(&environment(), &filter, None, &[]).unwrap();
    let names: BTreeMap<_, _> = names
        .into_iter()
        .map(|(name, found)| {
            assert!(!found.weight.is_estimate);
            (name, (found.weight.contexts, found.redacted))
        })
        .collect();
    assert_eq!(names, counted_names(&found), "names within {text}");
    assert!(!is_partial);
    for (name, prefix) in NAMES.iter().map(|name| (*name, "")).chain([("plan", "go"), ("/deep/city", "4"), ("n", "1")])
    {
        let path = AttributePath::parse(name);
        let prefixes = [prefix.to_owned()];
        let within =
            flow.indexer.attribute_values_within(&environment(), &filter, None, &path, &prefixes, 1000).unwrap();
        assert!(!within.is_partial);
        let mut values = BTreeMap::new();
        for (kind, found) in within.found {
            for (value, weight) in found {
                assert!(!weight.is_estimate);
                values.insert((kind.clone(), canonical(&value).unwrap()), weight.contexts);
            }
        }
        assert_eq!(
            values,
            counted_values(&found, &path, prefix),
            "values of {name} beginning with {prefix:?} within {text}"
        );
    }
}

/// `copies`: how many contexts are made of each, so that there are few matches, whose records are read, or many.
fn check_all(contexts: &[Value], filters: &[String], copies: usize) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let flow = Flow::start(dir.path(), new_log());
        let mut made = Vec::new();
        for (at, context) in contexts.iter().enumerate() {
            for copy in 0..copies {
                let mut context = context.as_object().unwrap().clone();
                let key = format!("{}-{at}-{copy}", text_of(&context, "key"));
                context.insert("key".into(), key.into());
                made.push(context);
            }
        }
        let seen: Vec<_> =
            made.iter().map(|context| Seen::context(&Value::Object(context.clone()), ago(100))).collect();
        for part in seen.chunks(seen.len().div_ceil(3).max(1)) {
            flow.see(part).await;
        }
        // As the index keeps them: what is null is absent.
        for context in &mut made {
            context.retain(|_, value| !value.is_null());
        }
        check(&flow, &made, "");
        for text in filters {
            check(&flow, &made, text);
        }
        flow.stop().await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, max_shrink_iters: 100, ..ProptestConfig::default() })]

    #[test]
    fn look_ups_within_few_matches_are_exact(
        contexts in prop::collection::vec(context(), 1..25),
        filters in prop::collection::vec(filter(), 20),
    ) {
        check_all(&contexts, &filters, 1);
    }

    #[test]
    fn look_ups_within_many_matches_are_exact(
        contexts in prop::collection::vec(context(), 8..16),
        filters in prop::collection::vec(filter(), 10),
    ) {
        check_all(&contexts, &filters, 60);
    }
}

fn user(number: usize) -> Value {
    json!({
        "kind": "user", "key": format!("u{number:05}"), "id": format!("{:05}", (number * 7919) % 60_000),
        "plan": if number.is_multiple_of(5) { "gold" } else { "silver" }, "city": format!("City {}", number % 7),
    })
}

/// More distinct values than are read: the values of a sample, marked as what they are.
#[tokio::test(flavor = "multi_thread")]
async fn values_beyond_the_bound_are_estimated() {
    let dir = tempfile::tempdir().unwrap();
    let flow = Flow::start(dir.path(), new_log());
    flow.see(&(0..60_000).map(|number| Seen::context(&user(number), ago(100))).collect::<Vec<_>>()).await;
    let within = async |attribute: &str, filter: &str, with: &str| {
        let path = format!(
            "{BASE}/context-attributes/{attribute}?filter={}&withFilter={}",
            form(&format!("kind equals user{filter}")),
            form(with)
        );
        let (status, headers, answer) = flow.call_whole(crate::common::get(&path)).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        assert_eq!(answer["isPartial"] == true, headers.contains_key("x-tidegate-index"), "{answer}");
        answer
    };
    let many = within("id", "", "plan equals silver").await;
    assert_eq!(many["isPartial"], true);
    let values = many["items"][0]["values"].as_array().unwrap();
    assert_eq!(values.len(), 50);
    // One in 24 was read.
    assert!(values.iter().all(|value| value["isEstimate"] == true && value["weight"] == 24), "{many}");
    let narrow = within("id", ",value startsWith \"1234\"", "plan equals silver").await;
    assert_eq!(narrow.get("isPartial"), None);
    let told = narrow["items"][0]["values"].as_array().unwrap();
    assert!((1..10).contains(&told.len()) && told.iter().all(|value| value.get("isEstimate").is_none()), "{narrow}");
    let cities = within("city", "", "plan equals gold").await;
    let weights: u64 =
        cities["items"][0]["values"].as_array().unwrap().iter().map(|value| value["weight"].as_u64().unwrap()).sum();
    assert_eq!((weights, cities.get("isPartial")), (12_000, None));
    flow.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn look_ups_say_what_is_wrong_with_the_filter_and_what_was_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let small = Config { search_budget: 1000, ..config() };
    let flow = Flow::start_with(dir.path(), new_log(), small, Generation::Union);
    flow.see(&(0..3000).map(|number| Seen::context(&user(number), ago(100))).collect::<Vec<_>>()).await;
    let ask = async |path: &str, with: &str| flow.get(&format!("{BASE}/{path}?withFilter={}", form(with))).await;
    for path in ["context-attributes", "context-attributes/plan"] {
        let (status, answer) = ask(path, "plan equals").await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert_eq!(answer["message"], "withFilter: expected a value at offset 11");
        let (status, answer) = ask(path, "q equals u").await;
        assert_eq!((status, &answer["isPartial"]), (StatusCode::OK, &json!(true)), "{answer}");
        assert_eq!(ask(path, " ").await, flow.get(&format!("{BASE}/{path}")).await, "blank is no filter");
        let (status, answer) = ask(path, "plan equals copper").await;
        assert_eq!((status, answer), (StatusCode::OK, json!({"items": []})));
    }
    flow.stop().await;
}
