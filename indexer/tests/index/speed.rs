//! What indexing and searching cost. Run by hand:
//! `cargo test --release -p indexer --test index speed -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use indexer::attribute::AttributePath;
use indexer::filter::Subject;
use indexer::{Ask as _, Filter, SearchRequest, Sort};
use serde_json::json;

use crate::common::{Flow, Seen, ago, environment, new_log};

const CONTEXTS: usize = 200_000;

fn context(n: usize, seen_at: i64) -> Seen {
    let plan = ["gold", "silver", "bronze"][n % 3];
    Seen::context(
        &json!({"kind": "user", "key": format!("user-{n:08}"), "name": format!("Name {n}"), "email": format!("u{n}@mail.example"),
            "plan": plan, "seats": n % 100, "beta": n.is_multiple_of(7), "joined": 1_700_000_000_000u64 + n as u64 * 1000,
            "address": {"city": format!("City {}", n % 500), "country": "BR"}, "groups": ["qa", "ops", format!("g{}", n % 50)]}),
        seen_at,
    )
}

fn percentiles(mut times: Vec<Duration>) -> String {
    times.sort();
    format!("p50 {:?}, p99 {:?}", times[times.len() / 2], times[times.len() * 99 / 100])
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures; run it by hand in release"]
async fn speed() {
    let dir = tempfile::tempdir().unwrap();
    let config = indexer::Config::default();
    let flow = Flow::start_with(dir.path(), new_log(), config, indexer::api::Generation::Union);
    let seen: Vec<_> = (0..CONTEXTS).map(|n| context(n, ago(600))).collect();
    let timed = |what: &str, rows: usize, since: Instant| {
        let seconds = since.elapsed().as_secs_f64();
        eprintln!("{what}: {rows} rows in {seconds:.2} s, {:.0} rows/s", rows as f64 / seconds);
    };
    let started = Instant::now();
    for part in seen.chunks(2000) {
        flow.append(part).await;
    }
    timed("append to the log in memory", CONTEXTS, started);
    flow.caught_up().await;
    timed("new contexts, with append", CONTEXTS, started);
    let status = flow.indexer.status();
    eprintln!(
        "index: {} contexts, {} bytes, {} bytes each",
        status.contexts,
        status.bytes,
        status.bytes / status.contexts.max(1)
    );

    let started = Instant::now();
    for part in seen.chunks(2000) {
        flow.append(part).await;
    }
    flow.caught_up().await;
    timed("unchanged contexts, with append", CONTEXTS, started);

    let changed: Vec<_> = (0..CONTEXTS / 4).map(|n| context(n, ago(300))).collect();
    let started = Instant::now();
    for part in changed.chunks(2000) {
        flow.append(part).await;
    }
    flow.caught_up().await;
    timed("contexts seen again later, with append", changed.len(), started);

    for filter in [
        "",
        "kind equals user",
        "plan equals gold,beta equals true",
        "user.email equals u777@mail.example",
        "user.email startsWith u77",
        "user.name startsWith \"name 1\"",
        "user./address/city equals \"City 7\"|user.seats equals 44",
        "user.plan notEquals gold",
        "user.joined after 1700000100000",
        "user.groups anyOf [\"g7\",\"g8\"]",
        "q equals \"u777\"",
        "q equals \"citi 44\"",
    ] {
        for sort in [Sort::KindKey, Sort::NewestFirst] {
            let request = SearchRequest {
                environment: environment(),
                filter: Filter::parse(filter, Subject::Contexts).unwrap(),
                sort,
                limit: 20,
                after: None,
            };
            let mut total = 0;
            let times = (0..50).map(|_| {
                let started = Instant::now();
                total = flow.indexer.search(&request).unwrap().total;
                started.elapsed()
            });
            let times = times.collect();
            eprintln!("search {filter:?} {sort:?}: {total} of {CONTEXTS}, {}", percentiles(times));
        }
    }
    for prefix in ["", "u7", "u77"] {
        let path = AttributePath::parse("email");
        let times = (0..50).map(|_| {
            let started = Instant::now();
            flow.indexer.attribute_values(&environment(), Some("user"), &path, &[prefix.to_owned()], 50).unwrap();
            started.elapsed()
        });
        let times = times.collect();
        eprintln!("values of email {prefix:?}: {}", percentiles(times));
    }
    let times = (0..50).map(|_| {
        let started = Instant::now();
        flow.indexer.attribute_names(&environment(), None, &[]).unwrap();
        started.elapsed()
    });
    eprintln!("names: {}", percentiles(times.collect()));
    let log = flow.log.clone();
    flow.stop().await;
    let started = Instant::now();
    let flow = Flow::start(dir.path(), log);
    eprintln!("start: {:?}", started.elapsed());
    flow.stop().await;
}
