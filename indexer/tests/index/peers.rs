//! An index divided among processes answers as a whole one does, and says so when it cannot.

use std::time::{Duration, Instant};

use axum::Router;
use eventlog::memory::MemoryLog;
use http::StatusCode;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use crate::common::peers::{Break, Cluster, SECRET};
use crate::common::random::{context, filter};
use crate::common::{
    BASE, Flow, SEARCH, Seen, ago, append, call_bytes, delete, form, get, keys, new_log, post, until, user,
};

const INSTANCES: &str = "/api/v2/projects/shop/environments/prod/context-instances/search";
const EXPORT: &str = "/api/v2/projects/shop/environments/prod/contexts/export";
const STATE: &str = "x-tidegate-index";

/// The same log, indexed by one process and by three, of which one has nothing.
async fn both(seen: &[Seen]) -> (Flow, Cluster, tempfile::TempDir) {
    let (log, dir): (MemoryLog, _) = (new_log(), tempfile::tempdir().unwrap());
    append(&log, seen).await;
    let whole = Flow::start(dir.path(), log.clone());
    let divided = Cluster::start(&log, &[&[1], &[], &[0]]).await;
    whole.caught_up().await;
    divided.whole().await;
    (whole, divided, dir)
}

async fn json_of(api: &Router, request: http::Request<axum::body::Body>) -> Value {
    let (status, _, body) = call_bytes(api, request).await;
    assert_eq!(status, StatusCode::OK, "{body:?}");
    serde_json::from_slice(&body).unwrap()
}

/// Both answer with the same bytes, which are returned.
async fn assert_same(whole: &Flow, divided: &Cluster, path: &str, body: Option<&Value>) -> Value {
    let request = || body.map_or_else(|| get(path), |body| post(path, body));
    let (status, headers, one) = whole.call_bytes(request()).await;
    let (other_status, other_headers, other) = call_bytes(&divided.api, request()).await;
    assert_eq!((status, &one), (other_status, &other), "{path} {body:?}");
    for name in [STATE, "x-tidegate-row-count", "x-tidegate-total-count", "x-tidegate-continuation-token"] {
        assert_eq!(headers.get(name), other_headers.get(name), "{path} {body:?} {name}");
    }
    serde_json::from_slice(&one).unwrap_or_default()
}

/// All pages of a search are the same.
async fn assert_same_pages(whole: &Flow, divided: &Cluster, path: &str, question: Value) -> usize {
    let (mut question, mut pages) = (question, 0);
    loop {
        let answer = assert_same(whole, divided, path, Some(&question)).await;
        pages += 1;
        match answer.get("continuationToken") {
            Some(token) => question["continuationToken"] = token.clone(),
            None => return pages,
        }
    }
}

fn sample<S: Strategy>(runner: &mut TestRunner, strategy: &S) -> S::Value {
    strategy.new_tree(runner).unwrap().current()
}

#[tokio::test(flavor = "multi_thread")]
async fn searches_and_lookups_are_those_of_one_index() {
    let mut runner = TestRunner::deterministic();
    let mut seen = Vec::new();
    for number in 0..120 {
        let mut context = sample(&mut runner, &context());
        context["key"] = format!("{}-{}", context["key"].as_str().unwrap(), number % 70).into();
        seen.push(Seen::context(&context, ago(200 - number)).by(["web", "GoSDK/1.2", ""][number as usize % 3]));
    }
    let (whole, divided, _dir) = both(&seen).await;
    let mut filters: Vec<String> = (0..40).map(|_| sample(&mut runner, &filter())).collect();
    filters.extend(["", "q equals gold", "applicationId equals web", "seen after 0"].map(str::to_owned));
    for filter in &filters {
        assert_same_pages(&whole, &divided, SEARCH, json!({"filter": filter, "limit": 7})).await;
        for path in ["context-attributes", "context-attributes/plan", "context-attributes/%2Fdeep%2Fcity"] {
            let path = format!("{BASE}/{path}?limit=3&withFilter={}", form(filter));
            assert_same(&whole, &divided, &path, None).await;
        }
        assert_same(&whole, &divided, EXPORT, Some(&json!({"filter": filter, "columns": ["key", "context"]}))).await;
    }
    for sort in ["ts", "-ts", "attr:plan", "-attr:plan", "attr:/n", "-attr:/deep/city", "attr:none"] {
        let pages = assert_same_pages(&whole, &divided, SEARCH, json!({"sort": sort, "limit": 7})).await;
        assert!(pages > 5, "{sort}: {pages}");
    }
    let all = assert_same(&whole, &divided, SEARCH, Some(&json!({"limit": 50}))).await;
    for item in all["items"].as_array().unwrap() {
        let path = item["_links"]["self"]["href"].as_str().unwrap();
        assert_same(&whole, &divided, path, None).await;
    }
    for path in
        ["user-search/shop/prod?q=gold&limit=5", "user-search/shop/prod?sort=-lastSeen&offset=3", "users/shop/prod"]
    {
        assert_same(&whole, &divided, &format!("/api/v2/{path}"), None).await;
    }
    whole.stop().await;
    divided.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_and_kinds_are_those_of_one_index() {
    let mut seen = Vec::new();
    for number in 0..40 {
        let (org, user) = (format!("o{}", number % 5), format!("u{number}"));
        seen.extend(Seen::together(&[("org", &org), ("user", &user)], ago(300 - number)));
        seen.extend(
            Seen::together(&[("org", &org), ("user", &user)], ago(250 - number)).into_iter().map(|part| part.by("web")),
        );
        seen.push(Seen::context(&json!({"kind": "user", "key": user}), ago(100)));
    }
    let (whole, divided, _dir) = both(&seen).await;
    for question in
        [json!({"limit": 7}), json!({"limit": 9, "filter": "kinds contains org"}), json!({"limit": 7, "sort": "-ts"})]
    {
        assert!(assert_same_pages(&whole, &divided, INSTANCES, question).await > 3);
    }
    let some = assert_same(&whole, &divided, INSTANCES, Some(&json!({"limit": 50}))).await;
    for item in some["items"].as_array().unwrap() {
        assert_same(&whole, &divided, item["_links"]["self"]["href"].as_str().unwrap(), None).await;
    }
    let kinds = |answer: Value| -> Vec<Value> {
        let items = answer["items"].as_array().unwrap().iter();
        items.map(|item| json!([item["key"], item["lastSeen"], item["environmentObservations"]])).collect()
    };
    let path = "/api/v2/projects/shop/context-kinds?expand=environmentObservations";
    let (one, other) = (json_of(&whole.api, get(path)).await, json_of(&divided.api, get(path)).await);
    assert_eq!(kinds(one), kinds(other));
    let id = some["items"][0]["id"].as_str().unwrap();
    let gone = format!("{BASE}/context-instances/{id}");
    assert_eq!(call_bytes(&divided.api, delete(&gone)).await.0, StatusCode::NO_CONTENT);
    whole.caught_up().await;
    divided.whole().await;
    until_same(&whole, &divided).await;
    whole.stop().await;
    divided.stop().await;
}

/// Waits until a deletion is everywhere, and holds both against each other then.
async fn until_same(whole: &Flow, divided: &Cluster) {
    let total = async |api: &Router| json_of(api, post(INSTANCES, &json!({}))).await["totalCount"].as_u64().unwrap();
    let before = 80;
    crate::common::until_async(async || total(&whole.api).await < before && total(&divided.api).await < before).await;
    assert_same(whole, divided, INSTANCES, Some(&json!({"limit": 50}))).await;
}

/// More values than a process tells of at once: the best of all are asked for again.
#[tokio::test(flavor = "multi_thread")]
async fn weights_of_many_values_are_those_of_one_index() {
    let value = |n: usize| if n.is_multiple_of(2) { format!("often {}", n % 40) } else { format!("once {n}") };
    let seen: Vec<_> = (0..3_000)
        .map(|n| Seen::context(&json!({"kind": "user", "key": format!("u{n}"), "id": value(n), "n": n}), ago(100)))
        .collect();
    let (whole, divided, _dir) = both(&seen).await;
    for query in ["limit=10", "limit=20&filter=value+startsWith+OFTEN", "limit=10&filter=kind+equals+user"] {
        let path = format!("{BASE}/context-attributes/id?{query}");
        let answer = assert_same(&whole, &divided, &path, None).await;
        assert_eq!(answer["items"][0]["values"][0], json!({"name": "often 0", "weight": 75}));
    }
    let path = format!("{BASE}/context-attributes/id?limit=10&withFilter={}", form("n before 1999"));
    let answer = assert_same(&whole, &divided, &path, None).await;
    assert_eq!(answer["items"][0]["values"][0], json!({"name": "often 0", "weight": 50}));
    whole.stop().await;
    divided.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exports_are_those_of_one_index() {
    let seen: Vec<_> = (0..500).map(|n| user(n, if n % 3 == 0 { "gold" } else { "silver" }, 100)).collect();
    let (whole, divided, _dir) = both(&seen).await;
    for format in ["csv", "ndjson", "parquet"] {
        let question = json!({"filter": "plan equals gold", "columns": ["key", "n", "lastSeen"], "format": format});
        assert_same(&whole, &divided, EXPORT, Some(&question)).await;
    }
    let (mut question, mut parts) = (json!({"columns": ["key"], "limit": 70}), 0);
    loop {
        assert_same(&whole, &divided, EXPORT, Some(&question)).await;
        parts += 1;
        let (_, headers, _) = call_bytes(&divided.api, post(EXPORT, &question)).await;
        match headers.get("x-tidegate-continuation-token") {
            Some(token) => question["continuationToken"] = token.to_str().unwrap().into(),
            None => break,
        }
    }
    assert_eq!(parts, 8);
    whole.stop().await;
    divided.stop().await;
}

async fn state_of(cluster: &Cluster) -> (StatusCode, Option<String>, Value) {
    let (status, headers, body) = call_bytes(&cluster.api, post(SEARCH, &json!({"limit": 50}))).await;
    let state = headers.get(STATE).map(|state| state.to_str().unwrap().to_owned());
    (status, state, serde_json::from_slice(&body).unwrap())
}

fn forty() -> Vec<Seen> {
    (0..40).map(|n| user(n, "gold", 100)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_asked_is_missing_and_the_answer_says_so() {
    let (whole, divided, _dir) = both(&forty()).await;
    for broken in [Break::Hangs, Break::Refuses] {
        divided.set_broken(0, Some(broken));
        let asked = Instant::now();
        let (status, state, answer) = state_of(&divided).await;
        assert!(asked.elapsed() < Duration::from_secs(5), "{broken:?}: {:?}", asked.elapsed());
        assert_eq!((status, state.as_deref()), (StatusCode::OK, Some("partial")), "{broken:?}");
        assert_eq!(answer["isPartial"], true);
        let found = keys(&answer);
        assert!(!found.is_empty() && found.len() < 40 && answer["totalCount"] == found.len(), "{broken:?} {found:?}");
        let values = json_of(&divided.api, get(&format!("{BASE}/context-attributes/plan"))).await;
        assert_eq!(values["isPartial"], true);
        let user = get("/api/v2/users/shop/prod/nobody");
        assert_eq!(
            call_bytes(&divided.api, user).await.0,
            StatusCode::SERVICE_UNAVAILABLE,
            "it may be in the other shard"
        );
        let instance = delete(&format!("{BASE}/context-instances/dXNlcjp1MDAx"));
        assert_eq!(call_bytes(&divided.api, instance).await.0, StatusCode::SERVICE_UNAVAILABLE);
        divided.set_broken(0, None);
        divided.whole().await;
        let (_, state, answer) = state_of(&divided).await;
        assert_eq!((state, keys(&answer).len()), (None, 40));
    }
    divided.set_broken(0, Some(Break::Refuses));
    divided.set_broken(2, Some(Break::Refuses));
    assert_eq!(state_of(&divided).await.0, StatusCode::SERVICE_UNAVAILABLE, "nothing is no answer");
    whole.stop().await;
    divided.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_that_move_or_are_held_twice_count_once() {
    let (whole, divided, _dir) = both(&forty()).await;
    // The new owner has it before the old one lets go.
    divided.assign(1, &[0]);
    until(|| divided.peers.fault().is_none()).await;
    for _ in 0..20 {
        let (_, state, answer) = state_of(&divided).await;
        assert_eq!((state, keys(&answer).len(), &answer["totalCount"]), (None, 40, &json!(40)));
    }
    // One that hangs is made up for by the other.
    divided.assign(1, &[0, 1]);
    until(|| divided.peers.shards().iter().all(|shard| !shard.is_behind)).await;
    divided.set_broken(2, Some(Break::Hangs));
    divided.set_broken(0, Some(Break::Hangs));
    crate::common::until_async(async || {
        let (status, state, answer) = state_of(&divided).await;
        let is_whole = status == StatusCode::OK && state.is_none();
        assert!(!is_whole || keys(&answer).len() == 40, "{answer}");
        is_whole
    })
    .await;
    divided.set_broken(0, None);
    divided.set_broken(2, None);
    // Nobody is told who has it now.
    divided.assign(0, &[]);
    divided.assign(2, &[]);
    for _ in 0..20 {
        let (status, state, answer) = state_of(&divided).await;
        assert_eq!(status, StatusCode::OK);
        assert!(state.is_some() || keys(&answer).len() == 40, "{answer}");
    }
    divided.whole().await;
    assert_eq!(keys(&state_of(&divided).await.2).len(), 40);
    whole.stop().await;
    divided.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_secret_is_refused_and_told() {
    let (whole, divided, _dir) = both(&forty()).await;
    divided.set_secret("another-secret-of-another-cluster");
    until(|| divided.peers.fault().is_some_and(|fault| fault.contains("api.secret"))).await;
    let (status, _, answer) = state_of(&divided).await;
    assert_eq!((status, &answer["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("service_unavailable")));
    divided.set_secret(SECRET);
    divided.whole().await;
    assert_eq!(keys(&state_of(&divided).await.2).len(), 40);
    whole.stop().await;
    divided.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_of_a_question_are_told_as_by_one_index() {
    let (whole, divided, _dir) = both(&forty()).await;
    for question in [json!({"filter": "plan like x"}), json!({"limit": 0}), json!({"sort": "size"})] {
        let (status, one) = whole.post(SEARCH, &question).await;
        let (other_status, _, other) = call_bytes(&divided.api, post(SEARCH, &question)).await;
        let other: Value = serde_json::from_slice(&other).unwrap();
        assert_eq!((status, &one["message"]), (other_status, &other["message"]), "{question}");
        assert_eq!(status, StatusCode::BAD_REQUEST);
    }
    whole.stop().await;
    divided.stop().await;
}
