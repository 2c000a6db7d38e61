//! Takes questions about shards to other processes, over HTTP.
//!
//! In: requests of [`indexer::Peers`]. Out: status and body. Connections are kept open; an answer that is larger than its bound
//! is given up. Not here: deadlines, second tries and who is asked.

use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use eventlog::LogReader;
use events::Topic;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use indexer::{ANSWER_BYTES_MAX, Peers, Transport};
use runtime::Runtime;

use crate::config::Settings;

/// Idle connections that are kept to one process.
const IDLE_MAX: usize = 64;

/// The processes of the settings, which are to hold all partitions of the log.
///
/// # Errors
/// If the secret cannot stand in a header.
pub fn open(settings: &Settings, log: &Arc<dyn LogReader>, runtime: &Runtime) -> anyhow::Result<Arc<Peers>> {
    let transport = HttpTransport::new(&settings.api.secret).context("api.secret")?;
    let partitions = log.partitions(Topic::Contexts);
    Ok(Arc::new(Peers::new(&settings.api, partitions, Arc::new(transport), runtime)))
}

struct HttpTransport {
    client: Client<HttpConnector, Full<Bytes>>,
    authorization: HeaderValue,
}

impl HttpTransport {
    fn new(secret: &str) -> anyhow::Result<Self> {
        let mut authorization = HeaderValue::from_str(&format!("Bearer {secret}"))?;
        authorization.set_sensitive(true);
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(IDLE_MAX).build_http();
        Ok(Self { client, authorization })
    }

    async fn request(&self, url: &str, method: Method, body: Bytes) -> anyhow::Result<(StatusCode, Bytes)> {
        let request = Request::builder()
            .method(method)
            .uri(url)
            .header(AUTHORIZATION, &self.authorization)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))?;
        let answer = self.client.request(request).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        Ok((status, body.map_err(|error| anyhow::anyhow!("its answer: {error}"))?.to_bytes()))
    }
}

impl Transport for HttpTransport {
    fn send<'a>(
        &'a self,
        peer: &'a str,
        method: Method,
        path: String,
        body: Bytes,
    ) -> BoxFuture<'a, Result<(StatusCode, Bytes), String>> {
        async move {
            let url = format!("{peer}{path}");
            self.request(&url, method, body).await.map_err(|error| format!("{error:#}"))
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    /// Answers one request with what is given, and returns it.
    fn answering_once(answer: &'static str) -> (String, std::thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let answered = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let (mut request, mut buffer) = (String::new(), [0; 1024]);
            while !request.ends_with("{}") {
                let read = stream.read(&mut buffer).unwrap();
                request.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
            }
            stream.write_all(answer.as_bytes()).unwrap();
            request
        });
        (address, answered)
    }

    #[tokio::test]
    async fn requests_carry_the_secret_and_whatever_is_answered_comes_back() {
        let transport = HttpTransport::new("a-secret-of-the-cluster").unwrap();
        for (answer, expected) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]", Some((StatusCode::OK, "[]"))),
            ("HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n", Some((StatusCode::UNAUTHORIZED, ""))),
            ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort", None),
        ] {
            let (address, answered) = answering_once(answer);
            let told = transport.send(&address, Method::POST, "/internal/a".into(), Bytes::from_static(b"{}")).await;
            let request = answered.join().unwrap();
            assert!(request.starts_with("POST /internal/a HTTP/1.1\r\n"), "{request}");
            assert!(request.contains("authorization: Bearer a-secret-of-the-cluster\r\n"), "{request}");
            assert_eq!(told.ok(), expected.map(|(status, body)| (status, Bytes::from_static(body.as_bytes()))));
        }
        assert!(transport.send("http://127.0.0.1:1", Method::GET, "/".into(), Bytes::new()).await.is_err());
    }
}
