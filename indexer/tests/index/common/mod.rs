//! A log in memory, an index on it and the API in front, for the tests of this crate.

pub mod peers;
pub mod random;
pub mod store;
pub mod table;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{BooleanBuilder, RecordBatch, StringBuilder, TimestampMicrosecondBuilder, new_null_array};
use arrow::datatypes::DataType;
use axum::Router;
use axum::body::{Body, to_bytes};
use bytes::Bytes;
use eventlog::memory::MemoryLog;
use eventlog::{AppendRecord, LogWriter as _, frame};
use events::context::{canonical_key, context_hash};
use events::environment::{EnvironmentConfig, Environments};
use events::{Environment, LogBatch, SightingsBatch, Topic, TopicPartition, schema};
use http::{Request, StatusCode};
use indexer::api::{ApiAccess, ApiToken, Generation, RateLimits, Role, router};
use indexer::{Beyond, Config, Error, Indexer};
use runtime::{Clock, DurationText, Runtime, Shutdown, UnixMicros};
use serde_json::{Value, json};
use tantivy::TantivyError;
use tokio::task::JoinHandle;
use tower::ServiceExt as _;

pub const PARTITIONS: u32 = 2;
pub const WRITER: &str = "api-writer";
pub const READER: &str = "api-reader";

/// One sighting, with defaults.
#[derive(Clone, Debug)]
pub struct Seen {
    pub environment: Environment,
    pub kind: String,
    pub key: String,
    pub anonymous: bool,
    pub context: Option<Value>,
    /// Microseconds.
    pub seen_at: i64,
    /// When it was received, microseconds; None: when it was seen.
    pub received_at: Option<i64>,
    pub application: Option<String>,
    /// Canonical key of the combination it was part of; None: it was alone.
    pub instance: Option<String>,
    /// Kinds of anonymous parts of the combination.
    pub anonymous_kinds: Option<String>,
}

pub fn environment() -> Environment {
    Environment::new("shop", "prod")
}

/// Microseconds of now, less some seconds.
pub fn ago(seconds: i64) -> i64 {
    Clock::system().now().0 - seconds * 1_000_000
}

impl Seen {
    /// A context as its JSON says, in the default environment.
    pub fn context(context: &Value, seen_at: i64) -> Self {
        Self {
            environment: environment(),
            kind: context["kind"].as_str().unwrap().into(),
            key: context["key"].as_str().unwrap().into(),
            anonymous: context["anonymous"].as_bool().unwrap_or(false),
            context: Some(context.clone()),
            seen_at,
            received_at: None,
            application: Some("GoSDK/1.2".into()),
            instance: None,
            anonymous_kinds: None,
        }
    }

    /// Sightings of all parts of a combination.
    pub fn together(parts: &[(&str, &str)], seen_at: i64) -> Vec<Self> {
        let canonical = canonical_key(&mut parts.to_vec());
        let part = |(kind, key): &(&str, &str)| Self {
            instance: Some(canonical.clone()),
            ..Self::context(&json!({"kind": kind, "key": key}), seen_at)
        };
        parts.iter().map(part).collect()
    }

    pub fn by(self, application: &str) -> Self {
        Self { application: Some(application.into()), ..self }
    }

    pub fn in_environment(self, environment: Environment) -> Self {
        Self { environment, ..self }
    }

    pub fn received(self, received_at: i64) -> Self {
        Self { received_at: Some(received_at), ..self }
    }

    pub fn key_only(self) -> Self {
        Self { context: None, ..self }
    }
}

/// Index and API on a log that outlives both.
pub struct Flow {
    pub log: MemoryLog,
    pub indexer: Arc<Indexer>,
    pub api: Router,
    pub runtime: Runtime,
    shutdown: Shutdown,
    running: JoinHandle<()>,
}

/// Both environments, a writer and a reader.
pub fn access(log: &MemoryLog) -> ApiAccess {
    let configured =
        |project: &str, key: &str| EnvironmentConfig { project: project.into(), key: key.into(), ..Default::default() };
    let token = |token: &str, role| ApiToken { token: token.into(), role };
    ApiAccess {
        environments: Environments::new(&[configured("shop", "prod"), configured("shop", "test")]),
        tokens: vec![token(WRITER, Role::Writer), token(READER, Role::Reader)],
        log: Some(Arc::new(log.clone())),
        ..ApiAccess::default()
    }
}

pub fn new_log() -> MemoryLog {
    MemoryLog::new(Clock::system(), [1, PARTITIONS, 1], "test")
}

pub fn config() -> Config {
    Config { commit_interval: DurationText::millis(20), ..Config::default() }
}

impl Flow {
    pub fn start(dir: &Path, log: MemoryLog) -> Self {
        Self::start_with(dir, log, config(), Generation::Union)
    }

    pub fn start_with(dir: &Path, log: MemoryLog, config: Config, generation: Generation) -> Self {
        Self::start_whole(dir, log, config, generation, Beyond::default())
    }

    /// With copies of its shards in a store.
    pub fn start_kept(dir: &Path, log: MemoryLog, config: Config, beyond: Beyond) -> Self {
        Self::start_whole(dir, log, config, Generation::Union, beyond)
    }

    pub fn start_whole(dir: &Path, log: MemoryLog, config: Config, generation: Generation, beyond: Beyond) -> Self {
        Self::start_all(dir, log, config, generation, beyond, RateLimits::default())
    }

    pub fn start_limited(dir: &Path, log: MemoryLog, rate_limits: RateLimits) -> Self {
        Self::start_all(dir, log, config(), Generation::Union, Beyond::default(), rate_limits)
    }

    fn start_all(
        dir: &Path,
        log: MemoryLog,
        config: Config,
        generation: Generation,
        beyond: Beyond,
        rate_limits: RateLimits,
    ) -> Self {
        let reader = Arc::new(log.clone());
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        // Tasks of a process that was killed in this one end a moment later, and their locks with them; one may just be making
        // the index.
        let (runtime, opened) = loop {
            let runtime = Runtime::system();
            match Indexer::open_with(dir, config.clone(), reader.clone(), &runtime, beyond.clone()) {
                Err(Error::Locked { .. } | Error::Index { source: TantivyError::IndexAlreadyExists, .. })
                    if std::time::Instant::now() < deadline =>
                {
                    std::thread::yield_now()
                }
                opened => break (runtime, opened),
            }
        };
        let indexer = Arc::new(opened.unwrap());
        let access = ApiAccess { generation, rate_limits, ..access(&log) };
        let shutdown = Shutdown::new();
        let running = tokio::spawn({
            let (indexer, shutdown) = (Arc::clone(&indexer), shutdown.clone());
            async move { indexer.run(shutdown).await }
        });
        Self { log, api: router(Arc::clone(&indexer), access), indexer, runtime, shutdown, running }
    }

    /// Stops indexing and closes the index.
    pub async fn stop(self) {
        self.shutdown.begin();
        self.running.await.unwrap();
    }

    /// Ends without a chance to commit, as a kill would.
    pub async fn kill(self) -> MemoryLog {
        self.running.abort();
        self.running.await.ok();
        self.log
    }

    /// Appends sightings, in order, to the partitions they belong to.
    pub async fn append(&self, seen: &[Seen]) {
        append(&self.log, seen).await;
    }

    /// Appends sightings and waits until they are searchable.
    pub async fn see(&self, seen: &[Seen]) {
        self.append(seen).await;
        self.caught_up().await;
    }

    /// Waits until everything in the log is searchable.
    pub async fn caught_up(&self) {
        use eventlog::LogReader as _;
        let mut ends = Vec::new();
        for partition in 0..PARTITIONS {
            ends.push(self.log.bounds(TopicPartition::new(Topic::Contexts, partition)).await.unwrap().end.0);
        }
        let is_caught_up =
            || self.indexer.status().shards.iter().zip(&ends).all(|(shard, end)| shard.is_open && shard.next >= *end);
        until(is_caught_up).await;
    }

    pub async fn call(&self, request: Request<Body>) -> (StatusCode, Value) {
        let (status, _, body) = self.call_whole(request).await;
        (status, body)
    }

    pub async fn call_whole(&self, request: Request<Body>) -> (StatusCode, http::HeaderMap, Value) {
        let (status, headers, body) = self.call_bytes(request).await;
        let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
        (status, headers, body)
    }

    /// For answers that are no JSON.
    pub async fn call_bytes(&self, request: Request<Body>) -> (StatusCode, http::HeaderMap, Bytes) {
        call_bytes(&self.api, request).await
    }

    pub async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.call(get(path)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        self.call(post(path, body)).await
    }

    /// Keys found by a filter in the body, in the order of the answer.
    pub async fn search(&self, filter: &str) -> Vec<String> {
        let (status, body) = self.post(SEARCH, &json!({ "filter": filter, "limit": 50 })).await;
        assert_eq!(status, StatusCode::OK, "{filter}: {body}");
        assert_eq!(body["totalCount"].as_u64().unwrap() as usize, body["items"].as_array().unwrap().len(), "{filter}");
        keys(&body)
    }
}

pub async fn call_bytes(api: &Router, request: Request<Body>) -> (StatusCode, http::HeaderMap, Bytes) {
    let (parts, body) = api.clone().oneshot(request).await.unwrap().into_parts();
    (parts.status, parts.headers, to_bytes(body, usize::MAX).await.unwrap())
}

/// Appends sightings, in order, to the partitions they belong to.
pub async fn append(log: &MemoryLog, seen: &[Seen]) {
    for partition in 0..PARTITIONS {
        let of_partition: Vec<_> = seen.iter().filter(|seen| partition_of(seen) == partition).cloned().collect();
        if !of_partition.is_empty() {
            let frame = frame::encode(&LogBatch::Sightings(SightingsBatch::new(rows(&of_partition)).unwrap())).unwrap();
            log.append(vec![AppendRecord::new(place(partition), frame)]).await.unwrap();
        }
    }
}

pub const BASE: &str = "/api/v2/projects/shop/environments/prod";
pub const SEARCH: &str = "/api/v2/projects/shop/environments/prod/contexts/search";

pub fn delete(path: &str) -> Request<Body> {
    Request::delete(path).header("authorization", WRITER).body(Body::empty()).unwrap()
}

pub fn get(path: &str) -> Request<Body> {
    Request::get(path).header("authorization", READER).body(Body::empty()).unwrap()
}

pub fn post(path: &str, body: &Value) -> Request<Body> {
    Request::post(path).header("authorization", READER).body(Body::from(body.to_string())).unwrap()
}

pub fn keys(body: &Value) -> Vec<String> {
    let items = body["items"].as_array().unwrap();
    items.iter().map(|item| item["context"]["key"].as_str().unwrap().to_owned()).collect()
}

/// Form encoding of a query value, as Go, TypeScript and older Python write it.
pub fn form(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string().replace("%20", "+")
}

/// Waits for a condition with a deadline.
pub async fn until(condition: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "condition did not come true");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits for a condition that takes requests to find out, with a deadline.
pub async fn until_async(condition: impl AsyncFn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "condition did not come true");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub fn place(partition: u32) -> TopicPartition {
    TopicPartition::new(Topic::Contexts, partition)
}

pub fn user(n: usize, plan: &str, seconds_ago: i64) -> Seen {
    let context = json!({
        "kind": "user", "key": format!("u{n:03}"), "plan": plan, "n": n, "email": format!("{n}@shop.example"),
    });
    Seen::context(&context, ago(seconds_ago))
}

/// Everything that the API tells of all contexts, versions too.
pub async fn whole_answer(flow: &Flow) -> Vec<Value> {
    let mut answers = Vec::new();
    for sort in ["", "ts"] {
        let mut question = json!({"filter": "", "limit": 50});
        if !sort.is_empty() {
            question["sort"] = sort.into();
        }
        let (status, answer) = flow.post(SEARCH, &question).await;
        assert_eq!(status, StatusCode::OK);
        for item in answer["items"].as_array().unwrap() {
            let (_, versions) = flow.get(item["_links"]["self"]["href"].as_str().unwrap()).await;
            answers.push(versions["items"].clone());
        }
        answers.push(answer["items"].clone());
        answers.push(answer["totalCount"].clone());
    }
    let (status, instances) =
        flow.post(&SEARCH.replace("/contexts/", "/context-instances/"), &json!({"limit": 50})).await;
    assert_eq!(status, StatusCode::OK);
    answers.push(instances);
    answers
}

pub fn partition_of(seen: &Seen) -> u32 {
    (context_hash(&seen.environment, &seen.kind, &seen.key) % u64::from(PARTITIONS)) as u32
}

fn rows(seen: &[Seen]) -> RecordBatch {
    let mut texts: [StringBuilder; 8] = std::array::from_fn(|_| StringBuilder::new());
    let mut anonymous = BooleanBuilder::new();
    let time = || TimestampMicrosecondBuilder::new().with_data_type(schema::timestamp());
    let (mut seen_at, mut received_at) = (time(), time());
    for one in seen {
        texts[0].append_value(&one.environment.project);
        texts[1].append_value(&one.environment.key);
        texts[2].append_value(&one.kind);
        texts[3].append_value(&one.key);
        anonymous.append_value(one.anonymous);
        texts[4].append_option(one.context.as_ref().map(Value::to_string));
        seen_at.append_value(one.seen_at);
        received_at.append_value(one.received_at.unwrap_or(one.seen_at).max(UnixMicros(0).0));
        texts[5].append_option(one.application.as_deref());
        // Ingest names a combination by its parts that are not anonymous.
        let alone = || (!one.anonymous).then(|| canonical_key(&mut [(&one.kind, &one.key)]));
        texts[6].append_option(one.instance.clone().or_else(alone));
        texts[7].append_option(one.anonymous_kinds.as_deref());
    }
    let deleted = new_null_array(&DataType::Boolean, seen.len());
    let [mut project, mut key, mut kind, mut context_key, mut context, mut application, mut instance, mut kinds] =
        texts;
    RecordBatch::try_new(
        schema::sightings_v2(),
        vec![
            Arc::new(project.finish()),
            Arc::new(key.finish()),
            Arc::new(kind.finish()),
            Arc::new(context_key.finish()),
            Arc::new(anonymous.finish()),
            Arc::new(context.finish()),
            Arc::new(seen_at.finish()),
            Arc::new(received_at.finish()),
            Arc::new(application.finish()),
            Arc::new(instance.finish()),
            Arc::new(kinds.finish()),
            deleted,
        ],
    )
    .unwrap()
}

/// Changes what the last commits of all shards say of their format.
pub fn pretend_format(dir: &Path, format: u64) {
    for partition in 0..PARTITIONS {
        let path = dir.join(partition.to_string()).join("meta.json");
        let mut meta: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let mut payload: Value = serde_json::from_str(meta["payload"].as_str().unwrap()).unwrap();
        payload["format"] = format.into();
        meta["payload"] = payload.to_string().into();
        std::fs::write(path, meta.to_string()).unwrap();
    }
}
