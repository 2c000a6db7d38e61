//! Legacy users: lists, searches, single users, deleting.

use http::StatusCode;
use serde_json::{Value, json};

use crate::common::{Flow, Seen, ago, delete, new_log};

const LIST: &str = "/api/v2/users/shop/prod";
const SEARCH: &str = "/api/v2/user-search/shop/prod";

async fn with_users(dir: &std::path::Path) -> Flow {
    let flow = Flow::start(dir, new_log());
    let mut seen: Vec<_> = (0..7)
        .map(|n| {
            let context = json!({"kind": "user", "key": format!("u-{n}"), "name": format!("Number {n}"), "seats": n, "beta": n == 3,
                "email": format!("{n}@shop.example"), "note": "ordinary"});
            // Pairs are seen in the same millisecond.
            Seen::context(&context, ago(1000 - 10 * (n / 2)) / 1_000_000 * 1_000_000 + n % 2)
        })
        .collect();
    seen.push(Seen::context(
        &json!({"kind": "user", "key": "ana", "firstName": "Ana", "lastName": "Souza", "email": 5, "a.b": "x", "plan": {"name": "gold"},
            "_meta": {"redactedAttributes": ["/ip", "/a~1b", "/address/city"]}}),
        ago(100),
    ));
    seen.push(Seen::context(&json!({"kind": "org", "key": "ana", "name": "Ana's"}), ago(50)));
    flow.see(&seen).await;
    flow
}

fn keys(answer: &Value) -> Vec<&str> {
    answer["items"].as_array().unwrap().iter().map(|item| item["user"]["key"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn users_have_their_old_shape() {
    let dir = tempfile::tempdir().unwrap();
    let flow = with_users(dir.path()).await;
    let (status, user) = flow.get(&format!("{LIST}/ana")).await;
    assert_eq!(status, StatusCode::OK);
    let expected = json!({"key": "ana", "firstName": "Ana", "lastName": "Souza",
        "custom": {"email": 5, "a.b": "x", "plan": {"name": "gold"}}, "privateAttrs": ["ip", "a/b", "/address/city"]});
    assert_eq!(user["user"], expected);
    assert!(user["lastPing"].as_str().unwrap().ends_with('Z') && user.get("sortValue").is_none());
    assert_eq!(flow.get(&format!("{LIST}/nobody")).await.0, StatusCode::NOT_FOUND);
    flow.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn users_are_searched_filtered_and_sorted() {
    let dir = tempfile::tempdir().unwrap();
    let flow = with_users(dir.path()).await;
    for (query, expected) in [
        ("q=ana", "ana"),
        ("q=sousa", "ana"),
        ("q=gold", ""),
        ("q=ordinary", ""),
        ("q=number+3", "u-3"),
        ("filter=seats:3", "u-3"),
        ("filter=beta:true,name:Number+3", "u-3"),
        ("filter=beta:true,name:none", ""),
        ("filter=a.b:x", "ana"),
        ("filter=email:5", "ana"),
        ("sort=-userKey&limit=2", "u-6 u-5"),
        ("sort=userKey&limit=2", "ana u-0"),
        ("sort=-lastSeen&limit=2", "ana u-6"),
        ("sort=lastSeen&offset=5", "u-5 u-6 ana"),
        ("offset=0&limit=1", "ana"),
        ("offset=100", ""),
    ] {
        let (status, answer) = flow.get(&format!("{SEARCH}?{query}")).await;
        assert_eq!(status, StatusCode::OK, "{query}: {answer}");
        assert_eq!(keys(&answer).join(" "), expected, "{query}");
        assert!(answer["totalCount"].is_u64());
    }
    let (_, answer) = flow.get(&format!("{SEARCH}?after={}", ago(200) / 1_000)).await;
    assert_eq!((keys(&answer), &answer["totalCount"]), (vec!["ana"], &json!(1)));
    for query in ["sort=name", "limit=0", "offset=10001", "offset=-1", "after=soon", "filter=plan", "q=a&q=b"] {
        assert_eq!(flow.get(&format!("{SEARCH}?{query}")).await.0, StatusCode::BAD_REQUEST, "{query}");
    }
    let sorted = flow.get(&format!("{SEARCH}?sort=lastSeen&limit=1")).await.1;
    assert!(sorted["items"][0]["sortValue"].as_i64().unwrap() > 1_600_000_000_000, "{sorted}");
    flow.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn links_lead_through_all_users_once_in_each_order() {
    let dir = tempfile::tempdir().unwrap();
    let flow = with_users(dir.path()).await;
    let whole = flow.get(LIST).await.1;
    assert_eq!(keys(&whole), ["ana", "u-0", "u-1", "u-2", "u-3", "u-4", "u-5", "u-6"]);
    for first in [
        LIST.to_owned(),
        SEARCH.to_owned(),
        format!("{SEARCH}?sort=-userKey"),
        format!("{SEARCH}?sort=lastSeen"),
        format!("{SEARCH}?sort=-lastSeen"),
    ] {
        let joint = if first.contains('?') { '&' } else { '?' };
        let all = flow.get(&first).await.1;
        let mut next = Some(format!("{first}{joint}limit=3"));
        let mut found = Vec::new();
        while let Some(path) = next {
            let (status, page) = flow.get(&path).await;
            assert_eq!(status, StatusCode::OK, "{path}: {page}");
            assert_eq!(page["totalCount"], 8);
            found.extend(keys(&page).into_iter().map(str::to_owned));
            next = page["_links"]["next"]["href"].as_str().map(str::to_owned);
        }
        assert_eq!(found, keys(&all), "{first}");
    }
    flow.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_users_are_gone() {
    let dir = tempfile::tempdir().unwrap();
    let flow = with_users(dir.path()).await;
    assert_eq!(flow.call(delete(&format!("{LIST}/u-3"))).await.0, StatusCode::NO_CONTENT);
    flow.caught_up().await;
    assert_eq!(flow.get(&format!("{LIST}/u-3")).await.0, StatusCode::NOT_FOUND);
    assert_eq!(flow.call(delete(&format!("{LIST}/u-3"))).await.0, StatusCode::NOT_FOUND);
    assert!(flow.search("key equals u-3").await.is_empty());
    assert_eq!(flow.get(LIST).await.1["totalCount"], 7);
    flow.stop().await;
}
