//! Text searches without an order: what equals the text first, then prefixes, then mistakes.

use std::collections::BTreeSet;

use http::StatusCode;
use indexer::filter::evaluate::{Candidate, match_rank, matches};
use indexer::filter::{Filter, Subject};
use indexer::{Ask as _, BestMatch, Ranking, SearchRequest, Sort};
use proptest::prelude::*;
use runtime::UnixMicros;
use serde_json::{Value, json};

use crate::common::random::{context, scalar, typed};
use crate::common::{Flow, SEARCH, Seen, ago, environment, keys, new_log};

type Ranked = (i64, String, String);

fn expected(contexts: &[Value], filter: &Filter) -> Vec<Ranked> {
    let kinds: BTreeSet<&str> = contexts.iter().map(|context| context["kind"].as_str().unwrap()).collect();
    let mut found = Vec::new();
    for context in contexts {
        let context = context.as_object().unwrap();
        let (kind, key) = (context["kind"].as_str().unwrap(), context["key"].as_str().unwrap());
        let candidate = Candidate { kind, key, context, application: None, last_seen: UnixMicros(0) };
        if matches(filter, &candidate, &|kind| kinds.contains(kind)) {
            found.push((match_rank(filter, &candidate), kind.to_owned(), key.to_owned()));
        }
    }
    found.sort_unstable();
    found
}

fn paged(flow: &Flow, filter: &Filter, limit: usize) -> Vec<(String, String)> {
    let ranking = Ranking::BestMatch(BestMatch::of(filter).unwrap());
    let (environment, filter) = (environment(), filter.clone());
    let mut request = SearchRequest { environment, filter, sort: Sort::KindKey, limit, after: None };
    let mut found = Vec::new();
    loop {
        let page = flow.indexer.search_ranked(&request, &ranking).unwrap();
        found.extend(page.contexts.into_iter().map(|context| (context.kind, context.key)));
        request.after = page.next;
        if request.after.is_none() {
            assert_eq!(page.total, found.len() as u64);
            return found;
        }
    }
}

fn text_filter() -> impl Strategy<Value = String> {
    let text = prop_oneof![typed(), scalar().prop_filter("a text", Value::is_string)];
    let more = prop::sample::select(vec!["", ",kind anyOf [\"user\",\"org\"]", "|*.plan exists true"]);
    (text, more)
        .prop_map(|(text, more)| format!("q equals {text}{more}"))
        .prop_filter("not too long", |text| Filter::parse(text, Subject::Contexts).is_ok())
}

fn check(contexts: &[Value], filters: &[String]) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let flow = Flow::start(dir.path(), new_log());
        let mut made = contexts.to_vec();
        for (at, context) in made.iter_mut().enumerate() {
            // One of each key, so that nothing is known of an older state.
            context["key"] = if at % 3 == 0 { context["key"].clone() } else { json!(format!("k{at}")) };
        }
        let mut distinct = BTreeSet::new();
        made.retain(|context| distinct.insert((context["kind"].to_string(), context["key"].to_string())));
        let seen: Vec<_> = made.iter().map(|context| Seen::context(context, ago(100))).collect();
        for part in seen.chunks(seen.len().div_ceil(3).max(1)) {
            flow.see(part).await;
        }
        for text in filters {
            let filter = Filter::parse(text, Subject::Contexts).unwrap();
            let ranked = expected(&made, &filter);
            let order: Vec<_> = ranked.iter().cloned().map(|(_, kind, key)| (kind, key)).collect();
            assert_eq!(paged(&flow, &filter, 3), order, "{text}\n{ranked:?}\n{}", Value::from(made.clone()));
        }
        flow.stop().await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn text_searches_come_in_the_order_of_their_fit(
        contexts in prop::collection::vec(context(), 1..25),
        filters in prop::collection::vec(text_filter(), 40),
    ) {
        check(&contexts, &filters);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exact_hits_come_first_unless_an_order_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let flow = Flow::start(dir.path(), new_log());
    let contexts = [
        json!({"kind": "user", "key": "a", "name": "Marinas"}),
        json!({"kind": "user", "key": "b", "name": "Marina Souza"}),
        json!({"kind": "user", "key": "c", "name": "Maria"}),
        json!({"kind": "user", "key": "d", "address": {"city": "MARINA"}}),
        json!({"kind": "user", "key": "Marina"}),
        json!({"kind": "org", "key": "z", "tags": ["eu", "marina"]}),
        json!({"kind": "user", "key": "e", "name": "Merina", "_meta": {"redactedAttributes": ["/secret"]}}),
    ];
    flow.see(&contexts.iter().zip(0..).map(|(context, at)| Seen::context(context, ago(100 - at))).collect::<Vec<_>>())
        .await;
    let ask = async |body: Value| {
        let (status, answer) = flow.post(SEARCH, &body).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        answer
    };
    let filter = "q equals marina";
    let all = ["z", "Marina", "d", "a", "b", "c", "e"];
    assert_eq!(keys(&ask(json!({"filter": filter})).await), all);
    let mut token = Value::Null;
    let mut paged = Vec::new();
    loop {
        let page = ask(json!({"filter": filter, "limit": 2, "continuationToken": token})).await;
        assert_eq!(page["totalCount"], 7);
        paged.extend(keys(&page));
        token = page["continuationToken"].clone();
        if token.is_null() {
            break;
        }
        let (status, _) = flow.post(SEARCH, &json!({"filter": filter, "sort": "ts", "continuationToken": token})).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "a place in another order");
        assert!(!page["_links"]["next"]["href"].as_str().unwrap().contains("sort="));
    }
    assert_eq!(paged, all);
    assert_eq!(keys(&ask(json!({"filter": filter, "sort": "ts"})).await), ["a", "b", "c", "d", "Marina", "z", "e"]);
    flow.stop().await;
}
