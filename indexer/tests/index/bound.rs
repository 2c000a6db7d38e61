//! The bound on the contexts of one environment: reached, kept, by age, for each environment by itself.

use events::Environment;
use indexer::Config;
use indexer::api::Generation;
use serde_json::json;

use crate::common::{BASE, Flow, Seen, ago, config, new_log, until, user};

const MAX: u64 = 40;

fn bounded() -> Config {
    Config { environment_contexts_max: MAX, ..config() }
}

fn start(dir: &std::path::Path, log: eventlog::memory::MemoryLog) -> Flow {
    Flow::start_with(dir, log, bounded(), Generation::Union)
}

#[tokio::test(flavor = "multi_thread")]
async fn oldest_go_first_and_come_back_when_seen() {
    let dir = tempfile::tempdir().unwrap();
    let flow = start(dir.path(), new_log());
    let elsewhere = |n| user(n, "gold", 100).in_environment(Environment::new("shop", "test"));
    flow.see(&(0..10).map(elsewhere).collect::<Vec<_>>()).await;
    // Number 0 was seen last.
    flow.see(&(0..100).map(|n| user(n, "gold", 100 + n as i64)).collect::<Vec<_>>()).await;
    let count = || flow.indexer.status().contexts;
    until(|| count() <= MAX + 10).await;
    let found = flow.search("kind equals user").await;
    assert!(found.len() as u64 >= MAX * 3 / 4, "{}", found.len());
    assert!(found.contains(&"u000".into()) && !found.contains(&"u099".into()), "{found:?}");
    // Of each shard the youngest: none of those that went is younger than all that stayed.
    assert!(found.iter().all(|key| key.as_str() < "u070"), "{found:?}");
    let others = json!({"filter": "", "limit": 50});
    let (_, answer) = flow.post("/api/v2/projects/shop/environments/test/contexts/search", &others).await;
    assert_eq!(answer["totalCount"], 10, "another environment has its own bound");
    // What is seen again comes back, and another goes for it.
    flow.see(&[user(99, "gold", 0)]).await;
    assert_eq!(flow.search("key equals u099").await, ["u099"]);
    until(|| count() <= MAX + 10).await;
    assert_eq!(flow.search("key equals u099").await, ["u099"]);
    flow.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn combinations_have_the_same_bound() {
    let dir = tempfile::tempdir().unwrap();
    let flow = start(dir.path(), new_log());
    let together = |n: i64| Seen::together(&[("org", "lagoa"), ("user", &format!("u{:03}", n % 10))], ago(1000 - n));
    let many = |n: i64| Seen::together(&[("device", &format!("d{n:03}")), ("org", "lagoa")], ago(1000 - n));
    flow.see(&(0..100).flat_map(|n| [together(n), many(n)].concat()).collect::<Vec<_>>()).await;
    let instances = async || {
        let path = format!("{BASE}/context-instances/search");
        flow.post(&path, &json!({"filter": "kinds contains org"})).await.1["totalCount"].as_u64().unwrap()
    };
    crate::common::until_async(async || instances().await <= MAX).await;
    assert!(flow.search("kind equals device").await.len() as u64 <= MAX);
    flow.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bound_that_was_lowered_is_kept_after_a_start() {
    let dir = tempfile::tempdir().unwrap();
    let flow = Flow::start(dir.path(), new_log());
    flow.see(&(0..100).map(|n| user(n, "gold", 100 + n as i64)).collect::<Vec<_>>()).await;
    assert_eq!(flow.indexer.status().contexts, 100);
    let log = flow.log.clone();
    flow.stop().await;
    let flow = start(dir.path(), log);
    until(|| flow.indexer.status().contexts <= MAX).await;
    // What is read again at a start does not bring them back.
    flow.caught_up().await;
    flow.see(&[user(0, "changed", 0)]).await;
    assert!(flow.indexer.status().contexts <= MAX);
    flow.stop().await;
}
