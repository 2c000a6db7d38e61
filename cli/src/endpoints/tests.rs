use axum::body::Body;
use axum::http::{HeaderMap, Method, Request};
use axum::routing::any;
use futures::FutureExt;
use http_body_util::BodyExt;
use indexer::api::{ApiToken, Role};
use serde_json::json;
use tower::ServiceExt;

use super::*;

const WRITER: &str = "api-00000000-0000-4000-8000-0000000000aa";
const READER: &str = "api-00000000-0000-4000-8000-0000000000bb";

struct FakeStages;

impl Stages for FakeStages {
    fn readiness(&self) -> Result<(), String> {
        Err("the log is full".into())
    }

    fn refresh_gauges(&self) -> BoxFuture<'_, ()> {
        async {}.boxed()
    }

    fn pipeline(&self) -> BoxFuture<'_, Value> {
        async { json!({"now": 1}) }.boxed()
    }

    fn index_work(&self, partition: u32, work: IndexWork) -> BoxFuture<'_, anyhow::Result<Option<Value>>> {
        async move { Ok((partition < 2).then(|| json!({"did": format!("{work:?}")}))) }.boxed()
    }
}

struct FakeTables;

impl Tables for FakeTables {
    fn dead_letters(&self, limit: usize) -> BoxFuture<'_, anyhow::Result<Vec<Value>>> {
        async move { Ok(vec![json!({"id": "a", "limit": limit})]) }.boxed()
    }

    fn dead_letter<'a>(&'a self, id: &'a str) -> BoxFuture<'a, anyhow::Result<Option<WholeLetter>>> {
        async move {
            match id {
                "text" => Ok(Some((json!({"id": id}), b"[1".to_vec()))),
                "bytes" => Ok(Some((json!({"id": id}), vec![0xff]))),
                "broken" => Err(anyhow::anyhow!("cannot open /somewhere/secret")),
                _ => Ok(None),
            }
        }
        .boxed()
    }

    fn evaluations(&self, place: ContextPlace, _: usize) -> BoxFuture<'_, anyhow::Result<Vec<Value>>> {
        async move { Ok(vec![json!({"kind": place.kind, "key": place.key})]) }.boxed()
    }
}

fn app() -> Router {
    let search_api = Router::new()
        .route("/api/v2/{*rest}", any(|request: Request<Body>| async move { request.uri().path().to_owned() }));
    app_with(Some(search_api))
}

fn app_with(search_api: Option<Router>) -> Router {
    let token = |token: &str, role| ApiToken { token: token.into(), role };
    let environment = EnvironmentConfig {
        project: "default".into(),
        key: "dev".into(),
        sdk_keys: vec!["sdk-fake".into()],
        ..EnvironmentConfig::default()
    };
    let shared = Shared::new(Inner {
        stages: Box::new(FakeStages),
        tables: Box::new(FakeTables),
        access: ApiAccess {
            tokens: vec![token(WRITER, Role::Writer), token(READER, Role::Reader)],
            ..ApiAccess::default()
        },
        environments: vec![environment],
        authority: "127.0.0.1:8030".into(),
        runtime: Runtime::system(),
    });
    router(shared, search_api)
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

async fn ask(method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
    ask_of(app(), method, path, headers).await
}

async fn ask_of(app: Router, method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = app.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let (parts, body) = answer.into_parts();
    let body = body.collect().await.unwrap().to_bytes().to_vec();
    Answer { status: parts.status.as_u16(), headers: parts.headers, body }
}

async fn get(path: &str, token: &str) -> Answer {
    ask(Method::GET, path, &[("authorization", token)]).await
}

#[tokio::test]
async fn every_endpoint_of_the_page_asks_for_a_token() {
    let paths = [
        "environments",
        "setup",
        "pipeline",
        "dead-letters",
        "dead-letters/text",
        "projects/default/environments/dev/contexts/user/u/evaluations",
        "no-such",
    ];
    for path in paths {
        let path = format!("/api/tidegate/{path}");
        for token in ["", "sdk-fake", "api-0", &WRITER[..39], &format!("{WRITER}a")] {
            let answer = get(&path, token).await;
            assert_eq!(answer.status, 401, "{path} with {token:?}");
            assert_eq!(answer.json()["code"], "unauthorized");
        }
        assert_eq!(ask(Method::GET, &path, &[]).await.status, 401, "{path}");
        assert_ne!(get(&path, &format!("Bearer {WRITER}")).await.status, 401, "{path}");
    }
}

#[tokio::test]
async fn keys_are_shown_to_writers_only() {
    let refused = get("/api/tidegate/setup", READER).await;
    assert_eq!((refused.status, refused.json()["code"].as_str()), (403, Some("forbidden")));
    let answer = get("/api/tidegate/setup", WRITER).await;
    assert_eq!(answer.headers["cache-control"], "no-store");
    let answer = answer.json();
    assert_eq!(answer["eventsUrl"], "http://127.0.0.1:8030");
    assert_eq!(answer["environments"][0]["sdkKey"], "sdk-fake");
    assert!(answer["curl"].as_str().unwrap().contains("sdk-fake"));
    assert!(
        answer["sdk"]
            .as_object()
            .unwrap()
            .values()
            .all(|line| line.as_str().unwrap().contains("http://127.0.0.1:8030"))
    );
}

#[tokio::test]
async fn work_on_the_index_is_for_writers() {
    let order = async |path: &str, token: &str| {
        ask(Method::POST, &format!("/api/tidegate/index/{path}"), &[("authorization", token)]).await
    };
    for (path, did) in [
        ("1/merge", "Merge"),
        ("1/rebuild", "Rebuild"),
        ("0/check", "Check { repairs: false }"),
        ("0/check?repair=true", "Check { repairs: true }"),
    ] {
        assert_eq!(order(path, READER).await.status, 403, "{path}");
        assert_eq!(order(path, WRITER).await.json()["did"], did, "{path}");
    }
    for (path, status) in [("2/merge", 404), ("x/merge", 404), ("0/check?repair=yes", 400)] {
        assert_eq!(order(path, WRITER).await.status, status, "{path}");
    }
}

#[tokio::test]
async fn page_is_fenced_in_and_revalidated() {
    for path in ["/", "/assets/index.html", "/default/dev/contexts", "/default/dev/contexts/user/a%2Fb"] {
        let answer = ask(Method::GET, path, &[]).await;
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(
            answer.headers["content-security-policy"],
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        );
        assert_eq!(answer.headers["x-content-type-options"], "nosniff");
        assert_eq!(answer.headers["referrer-policy"], "no-referrer");
        assert_eq!(answer.headers["content-type"], "text/html; charset=utf-8");
        let tag = answer.headers["etag"].to_str().unwrap();
        let again = ask(Method::GET, path, &[("if-none-match", tag)]).await;
        assert_eq!((again.status, again.body.len()), (304, 0));
    }
}

#[tokio::test]
async fn every_file_of_the_page_is_served() {
    let mut files = 0;
    for file in std::fs::read_dir("../dashboard").unwrap() {
        let file = file.unwrap();
        let name = file.file_name().into_string().unwrap();
        if ![".html", ".css", ".js", ".svg"].iter().any(|ending| name.ends_with(ending)) {
            continue;
        }
        let answer = ask(Method::GET, &format!("/assets/{name}"), &[]).await;
        assert_eq!(answer.status, 200, "{name}");
        assert_eq!(answer.body, std::fs::read(file.path()).unwrap(), "{name}");
        assert_eq!(answer.headers["cache-control"], "no-cache");
        files += 1;
    }
    assert!(files > 0);
    assert_eq!(ask(Method::GET, "/assets/..%2FCargo.toml", &[]).await.status, 404);
}

#[tokio::test]
async fn probes_need_no_token() {
    assert_eq!(ask(Method::GET, "/healthz", &[]).await.status, 200);
    let ready = ask(Method::GET, "/readyz", &[]).await;
    assert_eq!(ready.status, 503);
    assert!(String::from_utf8(ready.body).unwrap().contains("the log is full"));
    assert_eq!(ask(Method::GET, "/metrics", &[]).await.status, 200);
}

#[tokio::test]
async fn search_api_gets_its_whole_path() {
    let path = "/api/v2/projects/p/environments/e/contexts/user/a%2Fb%3Ac";
    assert_eq!(ask(Method::POST, path, &[]).await.body, path.as_bytes());
}

#[tokio::test]
async fn dead_letters_come_as_text_or_base64() {
    assert_eq!(get("/api/tidegate/dead-letters?limit=7", READER).await.json()["items"][0]["limit"], 7);
    assert_eq!(get("/api/tidegate/dead-letters?limit=0", READER).await.status, 400);
    assert_eq!(get("/api/tidegate/dead-letters/text", READER).await.json()["body"], "[1");
    assert_eq!(get("/api/tidegate/dead-letters/bytes", READER).await.json()["bodyBase64"], "/w==");
    assert_eq!(get("/api/tidegate/dead-letters/none", READER).await.status, 404);
    let broken = get("/api/tidegate/dead-letters/broken", READER).await;
    assert_eq!(broken.status, 503);
    assert!(!String::from_utf8(broken.body).unwrap().contains("secret"), "file names are no business of clients");
}

#[tokio::test]
async fn keys_of_contexts_are_decoded_after_the_path_is_split() {
    let path = "/api/tidegate/projects/default/environments/dev/contexts/user/a%2Fb%3Ac/evaluations";
    assert_eq!(get(path, READER).await.json()["items"][0]["key"], "a/b:c");
    let unknown = "/api/tidegate/projects/default/environments/none/contexts/user/a/evaluations";
    assert_eq!(get(unknown, READER).await.status, 404);
}

#[tokio::test]
async fn search_without_an_index_says_that_it_is_off() {
    let path = "/api/v2/projects/default/environments/dev/contexts/search";
    let off = ask_of(app_with(None), Method::POST, path, &[("authorization", READER)]).await;
    assert_eq!(off.status, 503);
    assert!(off.json()["message"].as_str().unwrap().contains("indexer.enabled"));
    assert_eq!(ask_of(app_with(None), Method::POST, path, &[]).await.status, 401);
}
