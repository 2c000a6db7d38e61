//! Asks a running server over HTTP with an API token.

use std::fmt;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use crate::UsageError;
use crate::args::Server;
use crate::config::Settings;
use crate::dev_keys::DevKeys;

/// Largest answer that is read: a page of 50 contexts with generous attributes.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// Another answer than 200 or 202.
#[derive(Debug)]
pub struct Refused {
    server: String,
    pub status: StatusCode,
    message: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} answered {}: {}", self.server, self.status, self.message)
    }
}

impl std::error::Error for Refused {}

/// A server and the right to ask it.
pub struct Api {
    base: String,
    token: String,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Api {
    /// `dev`: keys of the data directory, for when the configuration names no token.
    pub fn new(server: &Server, settings: &Settings, dev: Option<&DevKeys>) -> anyhow::Result<Self> {
        let base = match &server.server {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => listen_url(settings)?,
        };
        let base = if base.contains("://") { base } else { format!("http://{base}") };
        if !base.starts_with("http://") {
            bail!(UsageError(format!("--server {base}: expected an address that begins with http://")));
        }
        let mut configured = settings.api_tokens.iter().chain(dev.iter().flat_map(|keys| &keys.api_tokens));
        let token = server.token.clone().or_else(|| configured.next().map(|token| token.token.clone()));
        let token = token.ok_or_else(|| {
            UsageError(
                "no API token: give --token, a configuration with [[api_tokens]], or the --data-dir of the server"
                    .into(),
            )
        })?;
        Ok(Self { base, token, client: Client::builder(TokioExecutor::new()).build_http() })
    }

    /// Sends `body` and returns the JSON answer.
    ///
    /// # Errors
    /// Any other answer than 200 or 202, with the server's message.
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.read_json(self.ask(Method::POST, path, Some(body)).await?).await
    }

    /// Returns the JSON answer; errors as of [`Self::post`].
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.read_json(self.ask(Method::GET, path, None).await?).await
    }

    /// Sends `body` and returns head and body of the answer, which is read as it comes; errors as of [`Self::post`].
    pub async fn stream(&self, path: &str, body: &Value) -> anyhow::Result<(HeaderMap, Incoming)> {
        let (parts, body) = self.ask(Method::POST, path, Some(body)).await?.into_parts();
        Ok((parts.headers, body))
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Response<Incoming>> {
        let uri: Uri = format!("{}{path}", self.base)
            .parse()
            .map_err(|_| UsageError(format!("--server {}: not an address", self.base)))?;
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header(header::AUTHORIZATION, &self.token)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body.map(|body| Bytes::from(body.to_string())).unwrap_or_default()))
            .map_err(|_| UsageError("--token: expected printable characters".into()))?;
        let answer = self.client.request(request).await;
        let answer = answer.with_context(|| format!("asking {}; is `tidegate serve` running there?", self.base))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let answer = self.read_json(answer).await.unwrap_or_default();
        let message = answer["message"].as_str().unwrap_or("no explanation");
        bail!(Refused { server: self.base.clone(), status, message: message.to_owned() })
    }

    async fn read_json(&self, answer: Response<Incoming>) -> anyhow::Result<Value> {
        let bytes = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        let bytes = bytes.map_err(|error| anyhow::anyhow!("reading the answer of {}: {error}", self.base))?.to_bytes();
        Ok(serde_json::from_slice(&bytes).unwrap_or_default())
    }
}

fn listen_url(settings: &Settings) -> anyhow::Result<String> {
    let mut address = settings.listen;
    if address.port() == 0 {
        bail!(UsageError(
            "the configuration listens on a free port; say which with --server http://127.0.0.1:PORT".into()
        ));
    }
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    Ok(format!("http://{address}"))
}
