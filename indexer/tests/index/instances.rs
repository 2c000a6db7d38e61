//! Instances through the API: combinations of contexts, their versions, and deleting them.

use http::StatusCode;
use serde_json::{Value, json};

use crate::common::{BASE, Flow, Seen, ago, delete, form, new_log};

const SEARCH: &str = "/api/v2/projects/shop/environments/prod/context-instances/search";
const ORG_AND_USER: &str = "b3JnOmxhZ29hOnVzZXI6dS1hbmE";

async fn with_instances(dir: &std::path::Path) -> Flow {
    let flow = Flow::start(dir, new_log());
    let mut seen = Seen::together(&[("org", "lagoa"), ("user", "u-ana")], ago(100));
    seen.extend(Seen::together(&[("org", "lagoa"), ("user", "u-ana")], ago(90)).into_iter().map(|part| part.by("web")));
    seen.extend(Seen::together(&[("org", "lagoa"), ("user", "u-bo")], ago(80)));
    seen.push(Seen::context(&json!({"kind": "user", "key": "u-ana", "plan": "gold"}), ago(70)));
    seen.push(Seen::context(&json!({"kind": "user", "key": "u:jo|1"}), ago(60)));
    let mut with_anonymous = Seen::together(&[("org", "acme"), ("region", "eu")], ago(50));
    with_anonymous.iter_mut().for_each(|part| part.anonymous_kinds = Some("user".into()));
    seen.extend(with_anonymous);
    flow.see(&seen).await;
    flow
}

fn ids(answer: &Value) -> Vec<String> {
    let items = answer["items"].as_array().unwrap().iter();
    items.map(|item| format!("{} {}", item["id"].as_str().unwrap(), item["applicationId"].as_str().unwrap())).collect()
}

async fn search(flow: &Flow, filter: &str) -> Vec<Value> {
    let (status, answer) = flow.post(SEARCH, &json!({"filter": filter, "limit": 50})).await;
    assert_eq!(status, StatusCode::OK, "{filter}: {answer}");
    let mut contexts: Vec<Value> = Vec::new();
    for item in answer["items"].as_array().unwrap() {
        if !contexts.contains(&item["context"]) {
            contexts.push(item["context"].clone());
        }
    }
    assert_eq!(answer["totalCount"], contexts.len(), "{filter}");
    let (_, by_query) = flow.get(&format!("{SEARCH}?limit=50&filter={}", form(filter))).await;
    assert_eq!(by_query["items"], answer["items"], "{filter}");
    contexts
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_are_found_by_their_parts_and_applications() {
    let dir = tempfile::tempdir().unwrap();
    let flow = with_instances(dir.path()).await;
    let multi = |user: &str| json!({"kind": "multi", "org": {"key": "lagoa"}, "user": {"key": user}});
    let (ana_in_org, bo_in_org) = (multi("u-ana"), multi("u-bo"));
    let acme = json!({"kind": "multi", "org": {"key": "acme"}, "region": {"key": "eu"}});
    let alone = |key: &str| json!({"kind": "user", "key": key});
    let (ana, jo) = (alone("u-ana"), alone("u:jo|1"));
    for (filter, expected) in [
        ("", vec![&acme, &ana_in_org, &bo_in_org, &ana, &jo]),
        ("kinds contains org", vec![&acme, &ana_in_org, &bo_in_org]),
        ("kinds equals [\"user\",\"org\"]", vec![&ana_in_org, &bo_in_org]),
        ("kinds equals user", vec![&ana, &jo]),
        ("kinds anyOf [\"region\",\"device\"]", vec![&acme]),
        ("kindKeys contains [\"user:u-ana\",\"org:lagoa\"]", vec![&ana_in_org]),
        ("kindKeys contains user:u-ana", vec![&ana_in_org, &ana]),
        ("kindKeys equals \"user:u:jo|1\"", vec![&jo]),
        ("applicationId equals web", vec![&ana_in_org]),
        ("applicationId notEquals web", vec![&acme, &ana_in_org, &bo_in_org, &ana, &jo]),
        ("applicationId anyOf [\"web\",\"none\"]|kinds contains region", vec![&acme, &ana_in_org]),
        ("id equals b3JnOmxhZ29hOnVzZXI6dS1hbmE", vec![&ana_in_org]),
        ("id notEquals b3JnOmxhZ29hOnVzZXI6dS1hbmE,kindKeys contains user:u-ana", vec![&ana]),
        ("id equals nonsense", vec![]),
    ] {
        assert_eq!(search(&flow, filter).await.iter().collect::<Vec<_>>(), expected, "{filter}");
    }
    let (_, answer) = flow.post(SEARCH, &json!({"filter": "kinds contains region"})).await;
    assert_eq!(answer["items"][0]["anonymousKinds"], json!(["user"]));
    let (_, answer) = flow.post(SEARCH, &json!({"filter": "kindKeys contains user:u-bo"})).await;
    assert!(answer["items"][0].get("anonymousKinds").is_none() && answer["items"][0]["lastSeen"].is_string());
    for filter in ["kind equals user", "kinds startsWith u", "q equals a"] {
        assert_eq!(flow.post(SEARCH, &json!({"filter": filter})).await.0, StatusCode::BAD_REQUEST, "{filter}");
    }
    // They are no contexts: neither searched, counted nor completed.
    assert!(flow.search("kind equals multi").await.is_empty());
    assert_eq!(flow.indexer.status().contexts, 6);
    flow.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_return_each_version_once_in_each_order() {
    let dir = tempfile::tempdir().unwrap();
    let flow = with_instances(dir.path()).await;
    for sort in [None, Some("ts"), Some("-ts")] {
        let mut body = json!({"limit": 50});
        if let Some(sort) = sort {
            body["sort"] = sort.into();
        }
        let (_, whole) = flow.post(SEARCH, &body).await;
        assert_eq!((ids(&whole).len(), &whole["totalCount"]), (6, &json!(5)));
        body["limit"] = 1.into();
        let mut found = Vec::new();
        loop {
            let (status, page) = flow.post(SEARCH, &body).await;
            assert_eq!(status, StatusCode::OK, "{page}");
            found.extend(ids(&page));
            let Some(token) = page.get("continuationToken") else {
                assert!(page["_links"].get("next").is_none());
                break;
            };
            body["continuationToken"] = token.clone();
        }
        assert_eq!(found, ids(&whole), "{sort:?}");
    }
    let (_, newest) = flow.post(SEARCH, &json!({"sort": "-ts", "limit": 2})).await;
    assert_eq!(newest["items"][0]["context"]["region"]["key"], "eu");
    assert_eq!(newest["items"][1]["context"]["key"], "u:jo|1");
    flow.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_are_named_by_id_or_by_the_canonical_key() {
    let dir = tempfile::tempdir().unwrap();
    let flow = with_instances(dir.path()).await;
    for id in [ORG_AND_USER, "org%3Alagoa%3Auser%3Au-ana"] {
        let (status, answer) = flow.get(&format!("{BASE}/context-instances/{id}")).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(ids(&answer), [format!("{ORG_AND_USER} web"), format!("{ORG_AND_USER} GoSDK/1.2")]);
    }
    let path = format!("{BASE}/context-instances/{ORG_AND_USER}?filter=applicationId+equals+web");
    assert_eq!(ids(&flow.get(&path).await.1), [format!("{ORG_AND_USER} web")]);
    let (status, answer) = flow.get(&format!("{BASE}/context-instances/bm9uZTpub25l")).await;
    assert_eq!((status, &answer["items"]), (StatusCode::OK, &json!([])));
    flow.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_instances_go_with_the_parts_that_no_other_holds() {
    let dir = tempfile::tempdir().unwrap();
    let flow = with_instances(dir.path()).await;
    let call = async |path: &str| flow.call(delete(path)).await.0;
    let of = |id: &str| format!("{BASE}/context-instances/{id}");
    // The organisation and the user alone stay: other instances hold them.
    assert_eq!(call(&of(ORG_AND_USER)).await, StatusCode::NO_CONTENT);
    flow.caught_up().await;
    assert!(search(&flow, "id equals b3JnOmxhZ29hOnVzZXI6dS1hbmE").await.is_empty());
    assert_eq!(flow.search("key equals u-ana|key equals lagoa").await, ["lagoa", "u-ana"]);
    assert_eq!(call(&of(ORG_AND_USER)).await, StatusCode::NOT_FOUND, "never 410");
    // Now nothing holds her.
    assert_eq!(call(&of("user%3Au-ana")).await, StatusCode::NO_CONTENT);
    flow.caught_up().await;
    assert!(flow.search("key equals u-ana").await.is_empty());
    assert_eq!(flow.get(&format!("{BASE}/contexts/user/u-ana")).await.1["items"], json!([]));
    let (_, values) = flow.get(&format!("{BASE}/context-attributes/plan")).await;
    assert_eq!(values["items"], json!([]), "gone from look-ups too");
    // What comes late stays forgotten, what is new brings it back.
    flow.see(&[Seen::context(&json!({"kind": "user", "key": "u-ana", "plan": "late"}), ago(70))]).await;
    assert!(flow.search("key equals u-ana").await.is_empty());
    flow.see(&[Seen::context(&json!({"kind": "user", "key": "u-ana", "plan": "new"}), ago(-1)).key_only()]).await;
    assert_eq!(flow.search("key equals u-ana").await, ["u-ana"]);
    assert_eq!(search(&flow, "kindKeys equals user:u-ana").await.len(), 1);
    let reader = http::Request::delete(of(ORG_AND_USER)).header("authorization", crate::common::READER);
    assert_eq!(flow.call(reader.body(axum::body::Body::empty()).unwrap()).await.0, StatusCode::FORBIDDEN);
    flow.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deletions_survive_a_restart_and_what_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let flow = with_instances(dir.path()).await;
    assert_eq!(flow.call(delete(&format!("{BASE}/context-instances/user%3Au%3Ajo|1"))).await.0, StatusCode::NOT_FOUND);
    let path = format!("{BASE}/context-instances/user%3Au%253Ajo%7C1");
    assert_eq!(flow.call(delete(&path)).await.0, StatusCode::NO_CONTENT);
    flow.caught_up().await;
    let log = flow.log.clone();
    flow.stop().await;
    let elsewhere = tempfile::tempdir().unwrap();
    for dir in [dir.path(), elsewhere.path()] {
        let flow = Flow::start(dir, log.clone());
        flow.caught_up().await;
        assert!(flow.search("key startsWith \"u:jo\"").await.is_empty());
        assert_eq!(search(&flow, "").await.len(), 4);
        flow.stop().await;
    }
}
