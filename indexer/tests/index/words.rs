//! Text search: `q` with its typing mistakes, parts of texts, and the budget of a search.

use std::time::Instant;

use http::StatusCode;
use indexer::Config;
use indexer::api::Generation;
use serde_json::{Value, json};

use crate::common::{Flow, SEARCH, Seen, ago, config, new_log, post};

async fn with(contexts: &[Value]) -> (tempfile::TempDir, Flow) {
    let dir = tempfile::tempdir().unwrap();
    let flow = Flow::start(dir.path(), new_log());
    let seen: Vec<_> = contexts.iter().map(|context| Seen::context(context, ago(100))).collect();
    flow.see(&seen).await;
    (dir, flow)
}

#[tokio::test(flavor = "multi_thread")]
async fn words_of_key_and_texts_are_found_and_private_ones_never() {
    let (_dir, flow) = with(&[
        json!({"kind": "user", "key": "ana-1", "name": "Ana Souza", "tags": ["Zürich office", {"deep": "lagoon"}],
            "address": {"city": "Recife"}, "seats": 44}),
        json!({"kind": "user", "key": "bo", "name": "Bo", "_meta": {"redactedAttributes": ["/secret", "/address/city"]},
            "secret": {"inner": "Hidden treasure"}, "address": {"city": "Atlantis", "street": "Main"}}),
        json!({"kind": "org", "key": "lagoa", "kind2": "x"}),
    ])
    .await;
    for (text, expected) in [
        ("ana", vec!["ana-1"]),
        ("SOU ana", vec!["ana-1"]),
        ("suoza", vec![]),
        ("sousa", vec!["ana-1"]),
        ("rezive", vec![]),
        ("zürich", vec!["ana-1"]),
        ("lagoon", vec!["ana-1"]),
        ("lago", vec!["lagoa", "ana-1"]),
        ("office recife", vec!["ana-1"]),
        ("ana bo", vec![]),
        ("44", vec![]),
        ("user", vec![]),
        ("main", vec!["bo"]),
        ("treasure", vec![]),
        ("atlantis", vec![]),
        ("!?", vec!["lagoa", "ana-1", "bo"]),
    ] {
        assert_eq!(flow.search(&format!("q equals {}", Value::from(text))).await, expected, "{text}");
    }
    flow.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_of_texts_are_found_beside_elements_of_lists() {
    let long = format!("{}Needle{}", "x".repeat(400), "y".repeat(400));
    let (_dir, flow) = with(&[
        json!({"kind": "user", "key": "a", "email": "Ana.Souza@lagoa.example", "plan": "gold", "bio": long}),
        json!({"kind": "user", "key": "b", "email": ["Ana.Souza@lagoa.example"], "plan": ["gold"], "name": "Bo Lind"}),
        json!({"kind": "org", "key": "c", "email": "info@lagoa.example", "bio": "short needle", "n": 44}),
    ])
    .await;
    for (filter, expected) in [
        ("user.email contains souza@", vec!["a"]),
        ("email contains LAGOA", vec!["c", "a"]),
        ("email contains [\"lagoa\",\"ana\"]", vec!["a"]),
        ("user.plan contains gold", vec!["a", "b"]),
        ("user.plan contains ol", vec!["a"]),
        ("bio contains needle", vec!["c", "a"]),
        ("bio contains needley", vec!["a"]),
        ("bio contains needlez", vec![]),
        ("n contains 4", vec![]),
        ("name contains \"o l\"", vec!["b"]),
        ("email contains []", vec!["b"]),
        ("plan contains gold,(kind equals org|bio contains needle)", vec!["a"]),
    ] {
        assert_eq!(flow.search(filter).await, expected, "{filter}");
    }
    flow.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_beyond_its_budget_says_that_it_is_partial() {
    let dir = tempfile::tempdir().unwrap();
    let small = Config { search_budget: 1000, ..config() };
    let flow = Flow::start_with(dir.path(), new_log(), small, Generation::Union);
    let user = |n: usize| Seen::context(&json!({"kind": "user", "key": format!("u{n}"), "plan": "gold"}), ago(50));
    flow.see(&(0..3000).map(user).collect::<Vec<_>>()).await;
    let ask = async |filter: &str| {
        let (status, headers, answer) = flow.call_whole(post(SEARCH, &json!({"filter": filter}))).await;
        assert_eq!(status, StatusCode::OK);
        let state = headers.get("x-tidegate-index").map(|state| state.to_str().unwrap().to_owned());
        (state, answer)
    };
    let (state, answer) = ask("q equals u").await;
    assert_eq!((state.as_deref(), &answer["isPartial"]), (Some("partial"), &json!(true)));
    let total = answer["totalCount"].as_u64().unwrap();
    assert!((1..3000).contains(&total), "{total}");
    let (state, answer) = ask("plan equals gold").await;
    assert_eq!((state, answer.get("isPartial"), &answer["totalCount"]), (None, None, &json!(3000)));
    let (state, answer) = ask("q equals u29").await;
    assert_eq!((state, &answer["totalCount"]), (None, &json!(111)));
    flow.stop().await;
}

/// `q` of 8 kB is refused or answered, and costs another environment nothing but its turn.
#[tokio::test(flavor = "multi_thread")]
async fn long_texts_are_refused_or_answered_in_time() {
    let (_dir, flow) = with(&[json!({"kind": "user", "key": "a", "name": "one two three"})]).await;
    let text = |words: usize, letters: usize| {
        let word = |n: usize| format!("{n:02}{}", "é".repeat(letters - 2));
        (0..words).map(word).collect::<Vec<_>>().join(" ")
    };
    for (words, letters, status) in [(32, 24, 200), (32, 60, 200), (33, 2, 400), (100, 38, 400)] {
        let started = Instant::now();
        let body = json!({"filter": format!("q equals {}", Value::from(text(words, letters)))});
        let (answered, answer) = flow.post(SEARCH, &body).await;
        assert_eq!(answered.as_u16(), status, "{words} words: {answer}");
        assert!(started.elapsed().as_secs() < 10, "{words} words of {letters}: {:?}", started.elapsed());
    }
    let (answered, _) = flow.post(SEARCH, &json!({"filter": format!("q equals \"{}\"", "x".repeat(9000))})).await;
    assert_eq!(answered, StatusCode::BAD_REQUEST);
    flow.stop().await;
}
