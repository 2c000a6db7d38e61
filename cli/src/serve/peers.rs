//! Takes questions about shards to other processes, over HTTP.
//!
//! In: requests of [`indexer::Peers`]. Out: status and body. Connections are kept open; an answer that is larger than its bound
//! is given up. Not here: deadlines, second tries and who is asked.

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use indexer::{ANSWER_BYTES_MAX, Transport};

/// Idle connections that are kept to one process.
const IDLE_MAX: usize = 64;

pub struct HttpTransport {
    client: Client<HttpConnector, Full<Bytes>>,
    authorization: HeaderValue,
}

impl HttpTransport {
    /// # Errors
    /// If the secret cannot stand in a header.
    pub fn new(secret: &str) -> anyhow::Result<Self> {
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
