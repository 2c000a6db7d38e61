//! Searches ordered by an attribute against plain sorting, page by page.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use http::StatusCode;
use indexer::api::Generation;
use indexer::attribute::AttributePath;
use indexer::filter::{Filter, Subject, fold_case};
use indexer::{Ask as _, AttributeSort, Config, Ranking, SearchRequest, Sort};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::common::random::context;
use crate::common::{BASE, Flow, SEARCH, Seen, ago, config, environment, keys, new_log};

type Object = Map<String, Value>;

/// Truth values, numbers, texts; lists and objects; what is absent.
fn class(value: Option<&Value>) -> u8 {
    match value {
        Some(Value::Bool(_)) => 0,
        Some(Value::Number(_)) => 1,
        Some(Value::String(_)) => 2,
        Some(Value::Array(_) | Value::Object(_)) => 3,
        Some(Value::Null) | None => 4,
    }
}

fn compare(left: Option<&Value>, right: Option<&Value>, is_descending: bool) -> Ordering {
    let (classes, both) = ((class(left), class(right)), left.zip(right));
    let inner = match both {
        Some((Value::Bool(left), Value::Bool(right))) => left.cmp(right),
        // The numbers of these tests are whole or halves.
        Some((Value::Number(left), Value::Number(right))) => {
            left.as_f64().unwrap().partial_cmp(&right.as_f64().unwrap()).unwrap()
        }
        Some((Value::String(left), Value::String(right))) => {
            let cut = |text: &str| {
                let folded = fold_case(text);
                folded[..folded.floor_char_boundary(256)].to_owned()
            };
            cut(left).cmp(&cut(right))
        }
        _ => Ordering::Equal,
    };
    let turned = |order: Ordering| if is_descending { order.reverse() } else { order };
    match classes {
        (0..=2, 0..=2) => turned(classes.0.cmp(&classes.1).then(inner)),
        (left, right) => left.cmp(&right),
    }
}

fn identity(context: &Object) -> (String, String) {
    let text = |name: &str| context[name].as_str().unwrap().to_owned();
    (text("kind"), text("key"))
}

fn expected(contexts: &[Object], path: &AttributePath, is_descending: bool) -> Vec<(String, String)> {
    let mut sorted: Vec<&Object> = contexts.iter().collect();
    sorted.sort_by(|left, right| {
        let by_value = compare(path.get(left), path.get(right), is_descending);
        by_value.then_with(|| identity(left).cmp(&identity(right)))
    });
    sorted.into_iter().map(identity).collect()
}

fn paged(flow: &Flow, filter: &str, name: &str, limit: usize) -> Vec<(String, String)> {
    let ranking = Ranking::Attribute(AttributeSort::from_name(name).unwrap());
    let mut request = SearchRequest {
        environment: environment(),
        filter: Filter::parse(filter, Subject::Contexts).unwrap(),
        sort: Sort::KindKey,
        limit,
        after: None,
    };
    let (mut found, mut total) = (Vec::new(), None);
    loop {
        let page = flow.indexer.search_ranked(&request, &ranking).unwrap();
        assert!(!page.is_partial);
        assert_eq!(*total.get_or_insert(page.total), page.total);
        assert!(page.next.is_none() || page.contexts.len() == limit);
        found.extend(page.contexts.into_iter().map(|context| (context.kind, context.key)));
        request.after = page.next;
        if request.after.is_none() {
            assert_eq!(total, Some(found.len() as u64), "{name} {filter}");
            return found;
        }
    }
}

/// `copies`: how many contexts are made of each: of few the records are read, of many the dictionary is walked.
fn check(contexts: &[Value], copies: usize, parts: usize) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let flow = Flow::start(dir.path(), new_log());
        let mut made = Vec::new();
        for (at, context) in contexts.iter().enumerate() {
            for copy in 0..copies {
                let mut context = context.as_object().unwrap().clone();
                let key = format!("{}-{at}-{copy}", context["key"].as_str().unwrap());
                context.insert("key".into(), key.into());
                // Values that differ, beside those that many share.
                context.insert("rank".into(), if copy % 3 == 0 { json!(copy) } else { json!(format!("R{copy}")) });
                made.push(context);
            }
        }
        let seen: Vec<_> =
            made.iter().map(|context| Seen::context(&Value::Object(context.clone()), ago(100))).collect();
        for part in seen.chunks(seen.len().div_ceil(parts)) {
            flow.see(part).await;
        }
        for attribute in ["plan", "n", "name", "/deep/city", "tags", "rank", "key", "kind", "gone"] {
            for direction in ["", "-"] {
                let name = format!("{direction}attr:{attribute}");
                let path = AttributePath::parse(attribute);
                let limit = if copies > 10 { 397 } else { 3 };
                assert_eq!(paged(&flow, "", &name, limit), expected(&made, &path, direction == "-"), "{name}");
                let gold: Vec<_> =
                    made.iter().filter(|context| context.get("plan") != Some(&json!("gold"))).cloned().collect();
                let found = paged(&flow, "*.plan notEquals gold", &name, limit);
                assert_eq!(found, expected(&gold, &path, direction == "-"), "{name} of some");
            }
        }
        flow.stop().await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, max_shrink_iters: 60, ..ProptestConfig::default() })]

    #[test]
    fn few_contexts_come_in_the_order_of_their_values(contexts in prop::collection::vec(context(), 1..25)) {
        check(&contexts, 1, 3);
    }

    #[test]
    fn many_contexts_come_in_the_order_of_their_values(contexts in prop::collection::vec(context(), 4..8)) {
        check(&contexts, 700, 1);
    }
}

fn user(key: &str, plan: &Value) -> Seen {
    let mut context = json!({"kind": "user", "key": key});
    if !plan.is_null() {
        context["plan"] = plan.clone();
    }
    Seen::context(&context, ago(100))
}

async fn ask(flow: &Flow, sort: &str, token: Option<&str>) -> (StatusCode, Value) {
    let mut body = json!({"sort": sort, "limit": 2});
    if let Some(token) = token {
        body["continuationToken"] = token.into();
    }
    flow.post(SEARCH, &body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_hold_their_place_while_contexts_arrive() {
    let dir = tempfile::tempdir().unwrap();
    let log = new_log();
    let flow = Flow::start(dir.path(), log.clone());
    let plans = [json!("b"), json!("d"), json!(7), json!(["x"]), Value::Null, json!("B"), json!(true)];
    flow.see(&plans.iter().zip('a'..).map(|(plan, key)| user(&key.to_string(), plan)).collect::<Vec<_>>()).await;
    let (status, first) = ask(&flow, "attr:plan", None).await;
    assert_eq!((status, keys(&first)), (StatusCode::OK, vec!["g".into(), "c".into()]));
    assert_eq!(first["totalCount"], 7);
    let token = first["continuationToken"].as_str().unwrap();
    // One before the place, one after it, and one that is on the page already moves behind it.
    flow.see(&[user("h", &json!(1)), user("i", &json!("c")), user("g", &json!("z"))]).await;
    flow.stop().await;
    let flow = Flow::start(dir.path(), log);
    flow.caught_up().await;
    let mut seen = Vec::new();
    let mut token = Some(token.to_owned());
    while let Some(next) = token {
        let (status, page) = ask(&flow, "attr:plan", Some(&next)).await;
        assert_eq!(status, StatusCode::OK, "{page}");
        seen.extend(keys(&page));
        token = page["continuationToken"].as_str().map(str::to_owned);
    }
    assert_eq!(seen, ["a", "f", "i", "b", "g", "d", "e"]);
    let (_, down) = ask(&flow, "-attr:/plan", None).await;
    assert_eq!(keys(&down), ["g", "b"]);
    assert!(down["_links"]["next"]["href"].as_str().unwrap().contains("sort=-attr%3A%2Fplan"));
    let (status, linked) = flow.get(down["_links"]["next"]["href"].as_str().unwrap()).await;
    assert_eq!((status, keys(&linked)), (StatusCode::OK, vec!["i".into(), "a".into()]));
    flow.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_and_names_of_other_orders_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let flow = Flow::start(dir.path(), new_log());
    flow.see(&["a", "b", "c", "d"].map(|key| user(key, &json!(key)))).await;
    let (_, page) = ask(&flow, "attr:plan", None).await;
    let token = page["continuationToken"].as_str().unwrap();
    for other in ["-attr:plan", "attr:key", "ts", "-ts"] {
        let (status, answer) = ask(&flow, other, Some(token)).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{other}");
        assert_eq!(answer["message"], "continuationToken: it belongs to another environment, filter or sort");
    }
    assert_eq!(ask(&flow, "attr:/plan", Some(token)).await.0, StatusCode::OK, "the same attribute");
    for wrong in ["attr:", "plan", "-attr", "attr", &format!("attr:{}", "x".repeat(600))] {
        let (status, answer) = ask(&flow, wrong, None).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{wrong}");
        assert_eq!(answer["message"], "sort: expected ts or -ts, attr:<attribute> or -attr:<attribute>");
    }
    for path in ["contexts/user/a", "context-instances/search"] {
        let (status, answer) = flow.get(&format!("{BASE}/{path}?sort=attr:plan")).await;
        assert_eq!((status, answer["message"].as_str()), (StatusCode::BAD_REQUEST, Some("sort: expected ts or -ts")));
    }
    flow.stop().await;
}

/// 3,000 values are more than 1,000 units: the page says that it may lack some, and holds those in order.
#[tokio::test(flavor = "multi_thread")]
async fn orders_beyond_the_budget_say_that_they_are_partial() {
    let dir = tempfile::tempdir().unwrap();
    let small = Config { search_budget: 1000, ..config() };
    let flow = Flow::start_with(dir.path(), new_log(), small, Generation::Union);
    let many = |number: usize| user(&format!("u{number:04}"), &json!(number));
    flow.see(&(0..6000).map(many).collect::<Vec<_>>()).await;
    let (status, answer) = ask(&flow, "attr:plan", None).await;
    assert_eq!((status, &answer["isPartial"], &answer["totalCount"]), (StatusCode::OK, &json!(true), &json!(6000)));
    let texts = ask(&flow, "attr:key", None).await.1;
    assert_eq!(
        (keys(&texts), texts.get("isPartial")),
        (vec!["u0000".into(), "u0001".into()], None),
        "a walk ends early"
    );
    let numbers: BTreeSet<String> = keys(&answer).into_iter().collect();
    assert_eq!(numbers.len(), 2);
    flow.stop().await;
}
