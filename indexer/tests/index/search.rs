//! Search and look-ups through the API: the check data of the specification, pages, keys of every kind, errors.

use axum::body::Body;
use events::Environment;
use http::{Request, StatusCode};
use indexer::api::{Generation, RateLimits};
use indexer::check_data::check_data;
use serde_json::{Map, Value, json};

use crate::common::{
    BASE, Flow, READER, SEARCH, Seen, WRITER, ago, environment, form, get, keys, new_log, post, until,
};

fn check_contexts() -> Vec<(String, Value)> {
    check_data().contexts.into_iter().collect()
}

async fn with_check_data(dir: &std::path::Path) -> Flow {
    let flow = Flow::start(dir, new_log());
    let seen: Vec<_> = check_contexts()
        .iter()
        .enumerate()
        .map(|(at, (_, context))| Seen::context(context, ago(100 - at as i64)))
        .collect();
    flow.see(&seen).await;
    flow
}

#[tokio::test(flavor = "multi_thread")]
async fn check_data_holds_through_body_and_query() {
    let dir = tempfile::tempdir().unwrap();
    let flow = with_check_data(dir.path()).await;
    let name_of: Map<String, Value> = check_contexts()
        .into_iter()
        .map(|(name, context)| (context["key"].as_str().unwrap().into(), name.into()))
        .collect();
    for (filter, expected) in check_data().matches {
        let body = flow.post(&format!("{SEARCH}?includeTotalCount=true"), &json!({"filter": filter})).await;
        let by_form = flow.get(&format!("{SEARCH}?filter={}", form(&filter))).await;
        let by_percent = flow.post(&format!("{SEARCH}?filter={}", form(&filter).replace('+', "%20")), &json!({})).await;
        for (status, answer) in [body, by_form, by_percent] {
            assert_eq!(status, StatusCode::OK, "{filter}: {answer}");
            let mut found: Vec<_> = keys(&answer).iter().map(|key| name_of[key].as_str().unwrap().to_owned()).collect();
            found.sort_unstable();
            assert_eq!(found, expected, "{filter}");
            assert_eq!(answer["totalCount"], found.len(), "{filter}");
        }
    }
    for filter in check_data().faults {
        for (status, answer) in [
            flow.post(SEARCH, &json!({"filter": filter})).await,
            flow.get(&format!("{SEARCH}?filter={}", form(&filter))).await,
        ] {
            assert_eq!(status, StatusCode::BAD_REQUEST, "{filter}");
            assert_eq!(answer["code"], "invalid_request");
            assert!(answer["message"].as_str().unwrap().contains(" at offset "), "{answer}");
        }
    }
    flow.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answer_has_the_shape_that_clients_enforce() {
    let dir = tempfile::tempdir().unwrap();
    let flow = with_check_data(dir.path()).await;
    let (status, headers, answer) = flow.call_whole(post(SEARCH, &json!({"filter": "key equals u:jo\\|1"}))).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(answer["_environmentId"], environment().id());
    let item = &answer["items"][0];
    assert_eq!(item["context"], json!({"kind":"user","key":"u:jo|1","name":"Johan, Jr","plan":"gold","beta":false}));
    assert_eq!(item["associatedContexts"], 1);
    assert!(item.get("applicationId").is_none());
    let last_seen = item["lastSeen"].as_str().unwrap();
    assert!(last_seen.contains('T') && last_seen.ends_with('Z'));
    assert_eq!(item["_links"]["self"]["href"], format!("{BASE}/contexts/user/u%3Ajo%7C1"));
    assert_eq!(item["_links"]["site"], json!({"href": "/shop/prod/contexts/user/u%3Ajo%7C1", "type": "text/html"}));
    assert!(answer["_links"].get("next").is_none() && answer.get("continuationToken").is_none());
    let (_, answer) = flow.get(&format!("{SEARCH}?includeTotalCount=False")).await;
    assert!(answer.get("totalCount").is_none());
    flow.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_two_return_each_context_once_in_each_order() {
    let dir = tempfile::tempdir().unwrap();
    let flow = Flow::start(dir.path(), new_log());
    let seen: Vec<_> = (0..25)
        .map(|n| {
            let kind = ["user", "org", "a"][n % 3];
            // Groups of four share a time, so that the tie-break matters.
            Seen::context(
                &json!({"kind": kind, "key": format!("k{:02}", (n * 7) % 25), "n": n}),
                ago(500 - 10 * (n as i64 / 4)),
            )
        })
        .collect();
    // In several commits, so that there are several segments.
    for part in seen.chunks(6) {
        flow.see(part).await;
    }
    for sort in [None, Some("ts"), Some("-ts")] {
        let mut expected: Vec<_> = seen.clone();
        expected.sort_by_key(|seen| {
            let time = match sort {
                None => 0,
                Some("ts") => seen.seen_at,
                _ => -seen.seen_at,
            };
            (time, seen.kind.clone(), seen.key.clone())
        });
        let expected: Vec<_> = expected.into_iter().map(|seen| seen.key).collect();
        let mut body = json!({"limit": 2, "filter": "*.n exists true"});
        if let Some(sort) = sort {
            body["sort"] = sort.into();
        }
        let mut by_token = Vec::new();
        let (_, mut page) = flow.post(SEARCH, &body).await;
        let mut by_link = keys(&page);
        let mut next = page["_links"]["next"]["href"].as_str().map(str::to_owned);
        loop {
            by_token.extend(keys(&page));
            assert_eq!(page["totalCount"], 25);
            let Some(token) = page.get("continuationToken") else { break };
            body["continuationToken"] = token.clone();
            page = flow.post(SEARCH, &body).await.1;
        }
        assert!(page["_links"].get("next").is_none());
        while let Some(href) = next {
            let (status, page) = flow.post(&href, &json!({})).await;
            assert_eq!(status, StatusCode::OK, "{page}");
            by_link.extend(keys(&page));
            next = page["_links"]["next"]["href"].as_str().map(str::to_owned);
        }
        assert_eq!(by_token, expected, "{sort:?}");
        assert_eq!(by_link, expected, "{sort:?}");
    }
    flow.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn token_is_bound_to_environment_filter_and_sort() {
    let dir = tempfile::tempdir().unwrap();
    let flow = with_check_data(dir.path()).await;
    let (_, page) = flow.post(SEARCH, &json!({"limit": 1, "filter": "kind equals user"})).await;
    let token = page["continuationToken"].as_str().unwrap();
    for body in [
        json!({"limit": 1, "continuationToken": token}),
        json!({"limit": 1, "filter": "kind equals org", "continuationToken": token}),
        json!({"limit": 1, "filter": "kind equals user", "sort": "ts", "continuationToken": token}),
        json!({"limit": 1, "filter": "kind equals user", "continuationToken": &token[1..]}),
        json!({"limit": 1, "filter": "kind equals user", "continuationToken": ""}),
    ] {
        assert_eq!(flow.post(SEARCH, &body).await.0, StatusCode::BAD_REQUEST, "{body}");
    }
    let elsewhere = SEARCH.replace("prod", "test");
    let body = json!({"limit": 1, "filter": "kind equals user", "continuationToken": token});
    assert_eq!(flow.post(&elsewhere, &body).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(flow.post(SEARCH, &body).await.0, StatusCode::OK);
    flow.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_names_of_any_characters_survive() {
    let dir = tempfile::tempdir().unwrap();
    let flow = Flow::start(dir.path(), new_log());
    let long = "x".repeat(3000);
    let odd =
        ["a/b:c", "100%", "a+b", "q?x#y", " blank ", "é中", "%2F", "\u{0}\u{1}", "|(),!\\\"", "..", long.as_str()];
    let seen: Vec<_> =
        odd.iter().map(|text| Seen::context(&json!({"kind": "user", "key": text, *text: text}), ago(1))).collect();
    flow.see(&seen).await;
    for text in odd {
        let encoded = percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
        let (status, answer) = flow.get(&format!("{BASE}/contexts/user/{encoded}")).await;
        assert_eq!(status, StatusCode::OK, "{text:?}");
        assert_eq!(keys(&answer), [text]);
        assert_eq!(answer["items"][0]["applicationId"], "GoSDK/1.2");
        let (_, answer) = flow.get(&format!("{BASE}/context-attributes/{encoded}")).await;
        let expected = if text.len() > 256 { json!([]) } else { json!([{"name": text, "weight": 1}]) };
        let values = answer["items"].get(0).map_or(json!([]), |item| item["values"].clone());
        assert_eq!(values, expected, "{text:?}");
        let quoted = Value::from(text).to_string();
        assert_eq!(flow.search(&format!("key equals {quoted}")).await, [text]);
        let field = Value::from(format!("user.{text}")).to_string();
        assert_eq!(flow.search(&format!("{field} equals {quoted}")).await, [text]);
    }
    let (_, answer) = flow.get(&format!("{BASE}/contexts/user/a%2Fb:c")).await;
    assert_eq!(keys(&answer), ["a/b:c"], "as Go writes it");
    let (_, answer) = flow.get(&format!("{BASE}/context-attributes/%2Fa~1b:c")).await;
    assert_eq!(answer["items"][0]["values"][0]["name"], "a/b:c");
    let prefix = Value::from(&long[..2000]).to_string();
    assert_eq!(flow.search(&format!("key startsWith {prefix}")).await, [long.as_str()]);
    flow.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn long_texts_are_told_apart_beyond_what_a_term_holds() {
    let dir = tempfile::tempdir().unwrap();
    let flow = Flow::start(dir.path(), new_log());
    let long = |end: &str| format!("{}{end}", "Ab".repeat(300));
    let context = |key: &str, text: String| Seen::context(&json!({"kind": "user", "key": key, "bio": text}), ago(1));
    flow.see(&[context("one", long("one")), context("two", long("two"))]).await;
    assert_eq!(flow.search(&format!("user.bio equals {}", long("one"))).await, ["one"]);
    assert_eq!(flow.search(&format!("user.bio startsWith {}", long("ON"))).await, ["one"]);
    assert_eq!(flow.search(&format!("bio startsWith {}", long(""))).await, ["one", "two"]);
    assert!(flow.search(&format!("bio startsWith {}", long("three"))).await.is_empty());
    flow.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn newest_state_wins_and_look_ups_forget_the_old() {
    let dir = tempfile::tempdir().unwrap();
    let flow = Flow::start(dir.path(), new_log());
    let at =
        |plan: &str, seen_at: i64| Seen::context(&json!({"kind": "user", "key": "u", "plan": plan, plan: 1}), seen_at);
    flow.see(&[at("old", ago(50)), Seen::context(&json!({"kind": "user", "key": "v", "plan": "other"}), ago(50))])
        .await;
    flow.see(&[at("new", ago(40))]).await;
    flow.see(&[at("late", ago(45)), at("new", ago(40)).key_only()]).await;
    assert_eq!(flow.search("plan equals new").await, ["u"]);
    assert!(flow.search("plan equals old").await.is_empty());
    let (_, names) = flow.get(&format!("{BASE}/context-attributes")).await;
    assert_eq!(
        names,
        json!({"items": [{"kind": "user", "names": [
            {"name": "/key", "weight": 2}, {"name": "/plan", "weight": 2}, {"name": "/new", "weight": 1}]}]})
    );
    let (_, values) = flow.get(&format!("{BASE}/context-attributes/plan")).await;
    assert_eq!(
        values,
        json!({"items": [{"kind": "user", "values": [{"name": "new", "weight": 1}, {"name": "other", "weight": 1}]}]})
    );
    flow.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn look_ups_keep_types_elements_and_redaction() {
    let dir = tempfile::tempdir().unwrap();
    let flow = Flow::start(dir.path(), new_log());
    let contexts = [
        json!({"kind": "user", "key": "a", "x": 44, "tags": ["Eu", "vip", "Eu"], "address": {"city": "Recife", "zip": null}}),
        json!({"kind": "user", "key": "b", "x": "44", "tags": "eu", "_meta": {"redactedAttributes": ["email", "/address/city"]}}),
        json!({"kind": "user", "key": "c", "x": true, "job/title": "kiosk", "empty": {}}),
        json!({"kind": "user", "key": "d", "x": 44.0}),
        json!({"kind": "org", "key": "o", "x": 44, "name": "Lagoa"}),
        json!({"kind": "user", "key": "e", "anonymous": true, "secret": 1, "x": 44}),
    ];
    flow.see(&contexts.map(|context| Seen::context(&context, ago(1)))).await;
    flow.see(&[Seen::context(&json!({"kind": "user", "key": "t", "x": 44}), ago(1))
        .in_environment(Environment::new("shop", "test"))])
        .await;
    let (_, names) = flow.get(&format!("{BASE}/context-attributes")).await;
    assert_eq!(
        names["items"],
        json!([
            {"kind": "org", "names": [{"name": "/key", "weight": 1}, {"name": "/name", "weight": 1}, {"name": "/x", "weight": 1}]},
            {"kind": "user", "names": [
                {"name": "/key", "weight": 4}, {"name": "/x", "weight": 4}, {"name": "/address/city", "weight": 2, "redacted": true},
                {"name": "/tags", "weight": 2}, {"name": "/email", "weight": 1, "redacted": true}, {"name": "/job~1title", "weight": 1}]},
        ])
    );
    for (filter, expected) in [
        ("name startsWith X,kind equals user", json!([{"kind": "user", "names": [{"name": "/x", "weight": 4}]}])),
        (
            "kind equals \"user\",name startsWith \"/ADDR\"",
            json!([{"kind": "user", "names": [{"name": "/address/city", "weight": 2, "redacted": true}]}]),
        ),
        (
            "kind:{\"equals\":[\"org\"]},name startsWith na",
            json!([{"kind": "org", "names": [{"name": "/name", "weight": 1}]}]),
        ),
        ("kind equals user,kind equals org", json!([])),
        ("name startsWith zzz", json!([])),
    ] {
        let (status, names) = flow.get(&format!("{BASE}/context-attributes?filter={}", form(filter))).await;
        assert_eq!(status, StatusCode::OK, "{filter}: {names}");
        assert_eq!(names["items"], expected, "{filter}");
    }
    let (_, values) = flow.get(&format!("{BASE}/context-attributes/x")).await;
    assert_eq!(
        values["items"],
        json!([
            {"kind": "org", "values": [{"name": 44, "weight": 1}]},
            {"kind": "user", "values": [{"name": 44, "weight": 2}, {"name": "44", "weight": 1}, {"name": true, "weight": 1}]},
        ])
    );
    let (_, values) = flow
        .get(&format!("{BASE}/context-attributes/tags?filter={}", form("kind equals user,value startsWith EU")))
        .await;
    assert_eq!(
        values["items"],
        json!([{"kind": "user", "values": [{"name": "Eu", "weight": 1}, {"name": "eu", "weight": 1}]}])
    );
    let (_, values) = flow
        .get(&format!("{BASE}/context-attributes/%2Faddress%2Fcity?filter={}", form("value startsWith \"\"")))
        .await;
    assert_eq!(values["items"], json!([{"kind": "user", "values": [{"name": "Recife", "weight": 1}]}]));
    let (_, values) = flow.get(&format!("{BASE}/context-attributes/x?limit=1")).await;
    assert_eq!(values["items"][1]["values"], json!([{"name": 44, "weight": 2}]));
    let (_, values) = flow.get(&format!("{BASE}/context-attributes/none")).await;
    assert_eq!(values, json!({"items": []}));
    for filter in [
        "kind anyOf [\"user\"]",
        "name equals a",
        "kind equals a|kind equals b",
        "key startsWith a",
        "value startsWith a",
    ] {
        let (status, _) = flow.get(&format!("{BASE}/context-attributes?filter={}", form(filter))).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{filter}");
    }
    flow.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_by_application() {
    let dir = tempfile::tempdir().unwrap();
    let flow = Flow::start(dir.path(), new_log());
    let context = |key: &str| json!({"kind": "user", "key": key, "plan": "gold"});
    flow.see(&[
        Seen::context(&context("u"), ago(30)).by("web"),
        Seen::context(&context("u"), ago(20)).by("GoSDK/1.2"),
        Seen::context(&context("u"), ago(10)).by("mobile"),
        Seen::context(&context("v"), ago(15)).by("web"),
    ])
    .await;
    let applications = |answer: &Value| {
        let items = answer["items"].as_array().unwrap().iter();
        items.map(|item| item["applicationId"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let path = format!("{BASE}/contexts/user/u");
    let (_, answer) = flow.get(&path).await;
    assert_eq!(applications(&answer), ["mobile", "GoSDK/1.2", "web"]);
    assert_eq!(answer["totalCount"], 3);
    let (_, answer) = flow.get(&format!("{path}?sort=ts&limit=2")).await;
    assert_eq!(applications(&answer), ["web", "GoSDK/1.2"]);
    let (_, answer) = flow.get(answer["_links"]["next"]["href"].as_str().unwrap()).await;
    assert_eq!(applications(&answer), ["mobile"]);
    assert!(answer.get("continuationToken").is_none());
    let (_, answer) = flow.get(&format!("{path}?filter={}", form("applicationId anyOf [\"web\",\"mobile\"]"))).await;
    assert_eq!(applications(&answer), ["mobile", "web"]);
    assert_eq!(flow.get(&format!("{path}?filter=plan+equals+gold")).await.0, StatusCode::BAD_REQUEST);
    let (status, answer) = flow.get(&format!("{BASE}/contexts/user/unknown")).await;
    assert_eq!((status, &answer["items"]), (StatusCode::OK, &json!([])));

    let (_, answer) = flow.post(SEARCH, &json!({"filter": "applicationId equals web", "sort": "-ts"})).await;
    assert_eq!(keys(&answer), ["v", "u"], "ordered by the version's time");
    assert_eq!(applications(&answer), ["web", "web"]);
    let (_, answer) = flow.post(SEARCH, &json!({"filter": "applicationId:\"web\"|plan equals silver"})).await;
    assert_eq!(keys(&answer), ["u", "v"]);
    let (_, answer) = flow.post(SEARCH, &json!({"filter": "applicationId notEquals web"})).await;
    assert_eq!((keys(&answer), applications(&answer)), (vec!["u".into()], vec!["mobile".into()]));
    let filter = "applicationId notEquals web,applicationId notEquals mobile,applicationId notEquals GoSDK/1.2";
    assert!(flow.search(filter).await.is_empty(), "no single version passes all three");
    flow.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_by_status_and_code() {
    let dir = tempfile::tempdir().unwrap();
    let flow = with_check_data(dir.path()).await;
    let request = |method: &str, path: &str, token: Option<&str>, body: &str| {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header("authorization", token);
        }
        request.body(Body::from(body.to_owned())).unwrap()
    };
    let path = |rest: &str| format!("{BASE}{rest}");
    let query = |rest: &str| format!("{SEARCH}?{rest}");
    for (request, status, code) in [
        (request("POST", SEARCH, None, "{}"), 401, "unauthorized"),
        (request("POST", SEARCH, Some("api-wrong"), "{}"), 401, "unauthorized"),
        (request("POST", SEARCH, Some(""), "{}"), 401, "unauthorized"),
        (request("GET", "/api/v2/flags/shop", Some(READER), ""), 404, "not_found"),
        (request("GET", "/api/v2", Some(READER), ""), 404, "not_found"),
        (request("GET", &path("/contexts/user"), Some(READER), ""), 404, "not_found"),
        (
            request("POST", "/api/v2/projects/shop/environments/none/contexts/search", Some(READER), "{}"),
            404,
            "not_found",
        ),
        (
            request("POST", "/api/v2/projects/none/environments/prod/contexts/search", Some(READER), "{}"),
            404,
            "not_found",
        ),
        (request("PUT", &path("/contexts/user/a"), Some(READER), ""), 403, "forbidden"),
        (request("PUT", &path("/contexts/user/a"), Some(WRITER), ""), 405, "method_not_allowed"),
        (request("POST", &path("/context-attributes"), Some(WRITER), ""), 405, "method_not_allowed"),
        (request("POST", SEARCH, Some(READER), "{"), 400, "invalid_request"),
        (request("POST", SEARCH, Some(READER), "[]"), 400, "invalid_request"),
        (request("POST", SEARCH, Some(READER), "{\"limit\":0}"), 400, "invalid_request"),
        (request("POST", SEARCH, Some(READER), "{\"limit\":2.5}"), 400, "invalid_request"),
        (request("POST", SEARCH, Some(READER), "{\"limit\":\"2\"}"), 400, "invalid_request"),
        (request("POST", SEARCH, Some(READER), "{\"filter\":7}"), 400, "invalid_request"),
        (request("POST", SEARCH, Some(READER), "{\"sort\":\"key\"}"), 400, "invalid_request"),
        (request("POST", &query("limit=5"), Some(READER), "{\"sort\":\"ts\"}"), 400, "invalid_request"),
        (request("POST", &query("limit=5&limit=5"), Some(READER), "{}"), 400, "invalid_request"),
        (request("GET", &query("limit=-1"), Some(READER), ""), 400, "invalid_request"),
        (request("GET", &query("limit="), Some(READER), ""), 400, "invalid_request"),
        (request("GET", &query("includeTotalCount=yes"), Some(READER), ""), 400, "invalid_request"),
        (request("GET", &query("filter=%FF"), Some(READER), ""), 400, "invalid_request"),
        (request("GET", &path("/contexts/user/%FF"), Some(READER), ""), 400, "invalid_request"),
        (
            request("POST", &path("/context-instances/search"), Some(READER), &" ".repeat(100_000)),
            400,
            "invalid_request",
        ),
    ] {
        let what = format!("{} {}", request.method(), request.uri());
        let (answered, headers, body) = flow.call_whole(request).await;
        assert_eq!((answered.as_u16(), body["code"].as_str().unwrap()), (status, code), "{what}: {body}");
        assert_eq!(headers["content-type"], "application/json");
        assert!(body["message"].is_string() && body["id"].is_string());
    }
    for request in [
        request("POST", SEARCH, Some("Bearer api-reader"), ""),
        request(
            "POST",
            &query("unknown=1&unknown=2&limit=99999999999999999999"),
            Some(WRITER),
            "{\"unknown\":1,\"filter\":null}",
        ),
        request("POST", &query("includeTotalCount=false"), Some(READER), "{\"filter\":\"\"}"),
    ] {
        assert_eq!(flow.call(request).await.0, StatusCode::OK);
    }
    flow.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_of_versions_methods_and_origins() {
    let dir = tempfile::tempdir().unwrap();
    let flow = Flow::start(dir.path(), new_log());
    let with = |name: &str, value: &str| {
        Request::get(SEARCH).header("authorization", READER).header(name, value).body(Body::empty()).unwrap()
    };
    assert_eq!(flow.call(with("LD-API-Version", "20240415")).await.0, StatusCode::OK);
    assert_eq!(flow.call(with("LD-API-Version", "20991231")).await.0, StatusCode::BAD_REQUEST);
    let (_, headers, _) = flow.call_whole(with("Origin", "https://app.example")).await;
    assert_eq!(headers["access-control-allow-origin"], "https://app.example");
    assert!(headers["access-control-expose-headers"].to_str().unwrap().contains("X-Ratelimit-Reset"));
    let preflight = Request::options(SEARCH).header("Origin", "https://app.example").body(Body::empty()).unwrap();
    let (status, headers, _) = flow.call_whole(preflight).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    assert_eq!(headers["access-control-max-age"], "300");
    assert!(headers["access-control-allow-headers"].to_str().unwrap().contains("LD-API-Version"));
    let overridden = Request::post(SEARCH).header("authorization", WRITER).header("X-HTTP-Method-Override", "DELETE");
    assert_eq!(flow.call(overridden.body(Body::empty()).unwrap()).await.0, StatusCode::METHOD_NOT_ALLOWED);
    flow.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_post_acts_as_the_method_that_its_header_names() {
    let dir = tempfile::tempdir().unwrap();
    let flow = with_check_data(dir.path()).await;
    let user = "/api/v2/users/shop/prod/u-bo";
    let post = |path: &str, token: &str, method: &str, body: &str| {
        let request = Request::post(path).header("authorization", token).header("X-HTTP-Method-Override", method);
        request.body(Body::from(body.to_owned())).unwrap()
    };
    assert_eq!(flow.call(post(user, READER, "DELETE", "")).await.0, StatusCode::FORBIDDEN);
    assert_eq!(flow.call(post(user, WRITER, "SPLICE", "")).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(flow.call(post(user, WRITER, "delete", "")).await.0, StatusCode::NO_CONTENT);
    flow.caught_up().await;
    assert_eq!(flow.get(user).await.0, StatusCode::NOT_FOUND);
    let kind = "/api/v2/projects/shop/context-kinds/org";
    assert_eq!(flow.call(post(kind, WRITER, "PUT", r#"{"name":"Company"}"#)).await.0, StatusCode::OK);
    flow.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_requests_are_told_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let limits = RateLimits { global: 0, route: 3 };
    let flow = Flow::start_limited(dir.path(), new_log(), limits);
    // A window may end between two of these requests, but not twice.
    let mut refused = None;
    for _ in 0..7 {
        let (status, headers, body) = flow.call_whole(get(SEARCH)).await;
        assert!(headers.contains_key("x-ratelimit-reset") && headers.contains_key("x-ratelimit-route-remaining"));
        if status == StatusCode::TOO_MANY_REQUESTS {
            refused = Some((headers, body));
            break;
        }
        assert_eq!(status, StatusCode::OK);
    }
    let (headers, body) = refused.unwrap();
    assert_eq!(
        (body["code"].as_str().unwrap(), &headers["x-ratelimit-route-remaining"]),
        ("rate_limited", &"0".parse().unwrap())
    );
    assert!((1..=10).contains(&headers["retry-after"].to_str().unwrap().parse::<i32>().unwrap()));
    assert_eq!(flow.get(&format!("{BASE}/context-attributes")).await.0, StatusCode::OK, "another route");
    flow.stop().await;
}

/// What the description requires of an answer is there, and what is there is of the type that it names.
fn fits(document: &Value, schema: &Value, value: &Value, at: &str) {
    let schema = match schema["$ref"].as_str() {
        Some(name) => document.pointer(name.strip_prefix('#').unwrap()).unwrap(),
        None => schema,
    };
    match schema["type"].as_str() {
        Some("object") => {
            let members = value.as_object().unwrap_or_else(|| panic!("{at}: {value} is no object"));
            for name in schema["required"].as_array().into_iter().flatten() {
                assert!(members.contains_key(name.as_str().unwrap()), "{at} lacks {name}: {value}");
            }
            for (name, member) in members {
                let described = schema["properties"].get(name).or_else(|| schema.get("additionalProperties"));
                let described = described.unwrap_or_else(|| panic!("{at}.{name} is not described"));
                if described.is_object() {
                    fits(document, described, member, &format!("{at}.{name}"));
                }
            }
        }
        Some("array") => {
            let items = value.as_array().unwrap_or_else(|| panic!("{at}: {value} is no list"));
            items.iter().for_each(|item| fits(document, &schema["items"], item, at));
        }
        Some("string") => assert!(value.is_string(), "{at}: {value}"),
        Some("integer") => assert!(value.is_i64(), "{at}: {value}"),
        Some("boolean") => assert!(value.is_boolean(), "{at}: {value}"),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_as_the_description_says() {
    let dir = tempfile::tempdir().unwrap();
    let flow = with_check_data(dir.path()).await;
    let open = Request::get("/api/v2/openapi.json").body(Body::empty()).unwrap();
    let (status, document) = flow.call(open).await;
    assert_eq!(status, StatusCode::OK, "no token is needed");
    let mut described = 0;
    for (pattern, item) in document["paths"].as_object().unwrap() {
        let Some(schema) = item["get"].pointer("/responses/200/content/application~1json/schema") else { continue };
        let mut path = pattern.clone();
        for (place, text) in [
            ("{project}", "shop"),
            ("{environment}", "prod"),
            ("{kind}", "user"),
            ("{key}", "u-ana"),
            ("{userKey}", "u-ana"),
            ("{id}", "user%3Au-ana"),
            ("{attributeName}", "plan"),
        ] {
            path = path.replace(place, text);
        }
        // Who erases is beyond this crate: `tests/e2e/test_erase.py` has its answers.
        if path.ends_with("openapi.json") || path.contains("/erasures") {
            continue;
        }
        let query = if path.ends_with("context-kinds") { "?expand=environmentObservations" } else { "?limit=1" };
        let (status, answer) = flow.get(&format!("{path}{query}")).await;
        assert_eq!(status, StatusCode::OK, "{path}: {answer}");
        fits(&document, schema, &answer, pattern);
        described += 1;
    }
    assert!(described >= 10, "{described}");
    let (_, refused) = flow.get(&format!("{BASE}/contexts/search?limit=0")).await;
    fits(&document, &json!({"$ref": "#/components/schemas/Error"}), &refused, "error");
    flow.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn current_generation_refuses_what_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let flow = Flow::start_with(dir.path(), new_log(), crate::common::config(), Generation::Current);
    assert_eq!(flow.post(SEARCH, &json!({"sort": "ts"})).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(flow.get(&format!("{BASE}/context-attributes/plan")).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(flow.get(&format!("{BASE}/context-attributes/plan?filter=kind+equals+user")).await.0, StatusCode::OK);
    flow.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn environments_do_not_see_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let flow = with_check_data(dir.path()).await;
    let (_, answer) =
        flow.post(&SEARCH.replace("prod", "test"), &json!({"filter": "plan notEquals x|q equals recife"})).await;
    assert_eq!(answer["items"], json!([]));
    let (_, answer) = flow.call(get(&format!("{}/context-attributes", BASE.replace("prod", "test")))).await;
    assert_eq!(answer, json!({"items": []}));
    flow.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn anonymous_contexts_are_not_found_until_they_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let flow = Flow::start(dir.path(), new_log());
    let anonymous = Seen::context(&json!({"kind": "user", "key": "u", "anonymous": true, "a": 1}), ago(30));
    flow.see(std::slice::from_ref(&anonymous)).await;
    flow.see(&[Seen { seen_at: ago(20), anonymous: false, context: None, ..anonymous.clone() }]).await;
    assert!(flow.search("").await.is_empty());
    assert_eq!(flow.get(&format!("{BASE}/contexts/user/u")).await.1["items"], json!([]));
    assert_eq!(flow.indexer.status().contexts, 0);
    flow.see(&[Seen::context(&json!({"kind": "user", "key": "u", "a": 1}), ago(10))]).await;
    assert_eq!(flow.search("a equals 1").await, ["u"]);
    flow.see(&[Seen { seen_at: ago(5), ..anonymous }]).await;
    until(|| flow.indexer.status().contexts == 0).await;
    assert!(flow.search("").await.is_empty());
    flow.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn contexts_past_retention_are_neither_found_nor_counted() {
    let dir = tempfile::tempdir().unwrap();
    let flow = Flow::start(dir.path(), new_log());
    let context =
        |key: &str, days: i64| Seen::context(&json!({"kind": "user", "key": key, "plan": key}), ago(days * 86_400));
    flow.see(&[context("old", 31), context("new", 29)]).await;
    assert_eq!(flow.search("").await, ["new"]);
    assert_eq!(flow.get(&format!("{BASE}/contexts/user/old")).await.1["items"], json!([]));
    let log = flow.log.clone();
    flow.stop().await;
    // Removal happens at the start and every hour.
    let flow = Flow::start(dir.path(), log);
    until(|| flow.indexer.status().contexts == 1).await;
    let (_, values) = flow.get(&format!("{BASE}/context-attributes/plan")).await;
    assert_eq!(values["items"][0]["values"], json!([{"name": "new", "weight": 1}]));
    flow.see(&[context("old", 0)]).await;
    assert_eq!(flow.search("").await, ["new", "old"]);
    flow.stop().await;
}

const KINDS: &str = "/api/v2/projects/shop/context-kinds";

fn write(method: &str, path: &str, token: &str, body: &str) -> Request<Body> {
    Request::builder()
        .method(method)
        .uri(path)
        .header("authorization", token)
        .body(Body::from(body.to_owned()))
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn kinds_are_those_of_events_and_those_that_people_made() {
    let dir = tempfile::tempdir().unwrap();
    let flow = with_check_data(dir.path()).await;
    flow.see(&[Seen::context(&json!({"kind": "device", "key": "d-2"}), ago(5))
        .in_environment(Environment::new("shop", "test"))])
        .await;
    let (status, answer) = flow.get(&format!("{KINDS}?expand=environmentObservations")).await;
    assert_eq!(status, StatusCode::OK);
    let items = answer["items"].as_array().unwrap();
    let made: Vec<_> =
        items.iter().map(|item| (item["key"].as_str().unwrap(), item["createdFrom"].as_str().unwrap())).collect();
    assert_eq!(made, [("device", "auto-add"), ("org", "auto-add"), ("user", "default")]);
    for item in items {
        for (name, holds) in [
            ("name", item["name"].is_string()),
            ("description", item["description"].is_string()),
            ("version", item["version"] == 1),
            ("creationDate", item["creationDate"].is_i64()),
            ("lastModified", item["lastModified"].is_i64()),
            ("lastSeen", item["lastSeen"].is_i64()),
        ] {
            assert!(holds, "{name}: {item}");
        }
    }
    assert!(answer["_links"].is_object());
    let observed: Vec<_> = items[0]["environmentObservations"].as_array().unwrap().iter().collect();
    assert_eq!(observed.len(), 2);
    assert_eq!(items[0]["lastSeen"].as_i64(), observed.iter().map(|one| one["lastSeen"].as_i64().unwrap()).max());
    let (_, plain) = flow.get(KINDS).await;
    assert!(plain["items"][0].get("environmentObservations").is_none());

    let put = |key: &str, body: &str| write("PUT", &format!("{KINDS}/{key}"), WRITER, body);
    for (request, expected) in [
        (put("team", r#"{"name": "Team", "description": "a few people"}"#), 200),
        (put("org", r#"{"name": "Company", "version": 1, "hideInTargeting": true}"#), 200),
        (put("org", r#"{"name": "Late", "version": 1}"#), 400),
        (put("org", r#"{"name": "Both", "archived": true, "hideInTargeting": false}"#), 400),
        (put("org", r#"{"description": "no name"}"#), 400),
        (put("multi", r#"{"name": "no"}"#), 400),
        (put("a%2Fb", r#"{"name": "no"}"#), 400),
        (write("PUT", &format!("{KINDS}/team"), READER, r#"{"name": "no"}"#), 403),
        (write("GET", &format!("{KINDS}/team"), READER, ""), 405),
        (write("PUT", "/api/v2/projects/none/context-kinds/team", WRITER, r#"{"name": "no"}"#), 404),
        (write("GET", "/api/v2/projects/none/context-kinds", READER, ""), 404),
    ] {
        let what = request.uri().clone();
        let (status, answer) = flow.call(request).await;
        assert_eq!(status.as_u16(), expected, "{what}: {answer}");
        if expected == 200 {
            assert_eq!(answer["status"], "success");
        }
    }
    let (_, answer) = flow.get(KINDS).await;
    let kind = |key: &str| answer["items"].as_array().unwrap().iter().find(|item| item["key"] == key).unwrap().clone();
    assert_eq!(
        (&kind("team")["createdFrom"], &kind("team")["description"]),
        (&json!("manual"), &json!("a few people"))
    );
    assert!(kind("team").get("lastSeen").is_none());
    let org = kind("org");
    assert_eq!(
        (&org["name"], &org["version"], &org["archived"], &org["hideInTargeting"]),
        (&json!("Company"), &json!(2), &json!(true), &json!(true))
    );
    flow.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn contexts_are_found_by_when_they_were_seen() {
    let dir = tempfile::tempdir().unwrap();
    let flow = Flow::start(dir.path(), new_log());
    let user = |key: &str| json!({"kind": "user", "key": key});
    // In the middle of a millisecond.
    let within = |micros: i64| micros / 1_000 * 1_000 + 500;
    let (first, second) = (within(ago(300)), within(ago(200)));
    flow.see(&[
        Seen::context(&user("a"), first),
        Seen::context(&user("b"), second).by("web"),
        Seen::context(&user("b"), first).by("ios"),
    ])
    .await;
    let millis = |micros: i64| micros / 1_000;
    for (filter, expected) in [
        (format!("seen after {}", millis(second)), vec!["b"]),
        (format!("seen before {}", millis(second)), vec!["a"]),
        (format!("seen before {},seen after {}", millis(first) + 1, millis(first)), vec!["a"]),
        // Of versions, each has its own time.
        (format!("seen before {},applicationId equals ios", millis(first) + 1), vec!["b"]),
        (format!("seen after {},applicationId equals ios", millis(second)), vec![]),
    ] {
        assert_eq!(flow.search(&filter).await, expected, "{filter}");
    }
    flow.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn searches_are_narrowed_to_many_keys() {
    let dir = tempfile::tempdir().unwrap();
    let flow = with_check_data(dir.path()).await;
    // As many as may be given, of the longest; three of them are there.
    let mut given: Vec<Value> = (0..9_997).map(|n| format!("{n:0>1024}").into()).collect();
    given.extend([json!("u-ana"), json!("u:jo|1"), json!("d-1"), json!("u-ana")]);
    let found = |answer: &Value| keys(answer);
    let (status, answer) = flow.post(SEARCH, &json!({"keys": given, "limit": 2})).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!((found(&answer), &answer["totalCount"]), (vec!["d-1".to_owned(), "u-ana".to_owned()], &json!(3)));
    assert_eq!(answer["_links"].get("next"), None, "no link holds so many keys");
    let token = &answer["continuationToken"];
    let (_, answer) = flow.post(SEARCH, &json!({"keys": given, "limit": 2, "continuationToken": token})).await;
    assert_eq!(found(&answer), ["u:jo|1"]);
    let (status, _) = flow.post(SEARCH, &json!({"keys": ["u-ana"], "limit": 2, "continuationToken": token})).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "the token belongs to other keys");
    let (_, answer) = flow.post(SEARCH, &json!({"keys": given, "filter": "plan equals gold,kind equals user"})).await;
    assert_eq!(found(&answer), ["u-ana", "u:jo|1"]);
    let (_, answer) = flow.post(SEARCH, &json!({"keys": []})).await;
    assert_eq!(found(&answer), Vec::<String>::new());

    given.push(json!("one too many"));
    given.push(json!("one more"));
    for (body, part) in [
        (json!({"keys": given}), "at most 10000"),
        (json!({"keys": "u-ana"}), "a list of texts"),
        (json!({"keys": [true]}), "a list of texts"),
        (json!({"keys": ["x".repeat(13 << 20)]}), "exceeds"),
    ] {
        let (status, answer) = flow.post(SEARCH, &body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(answer["message"].as_str().unwrap().contains(part), "{answer}");
    }
    let instances = SEARCH.replace("/contexts/", "/context-instances/");
    assert_eq!(flow.post(&instances, &json!({"keys": ["u-ana"]})).await.0, StatusCode::BAD_REQUEST);
    flow.stop().await;
}
