//! The load generator: keep-alive connections that each send the next request as soon as the last is answered.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::bodies;

#[derive(Args, Clone)]
pub struct LoadArgs {
    /// Address of the server.
    #[arg(long)]
    pub address: SocketAddr,
    /// SDK key.
    #[arg(long)]
    pub key: String,
    /// `python` (32 events, 14.8 kB) or `summary` (1 event, 2.4 kB).
    #[arg(long, default_value = "python")]
    pub body: String,
    #[arg(long, default_value_t = 64)]
    pub connections: usize,
    #[arg(long, default_value_t = 10_000)]
    pub requests: usize,
    /// Give each request contexts of its own: the digits in `user-0001` and the like change.
    #[arg(long)]
    pub vary: bool,
}

/// Sends the load and prints one line of JSON: answers by class, elapsed milliseconds, latency percentiles.
pub fn run(args: &LoadArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(send(args))?;
    println!(
        "{}",
        serde_json::json!({
            "accepted": report.accepted, "refused": report.refused, "elapsedMillis": report.elapsed.as_millis() as u64,
            "p50Micros": report.percentile(50.0), "p99Micros": report.percentile(99.0),
        })
    );
    Ok(())
}

struct Report {
    accepted: usize,
    refused: usize,
    elapsed: Duration,
    /// Sorted.
    latencies_us: Vec<u32>,
}

impl Report {
    fn percentile(&self, percent: f64) -> u32 {
        let last = self.latencies_us.len().saturating_sub(1);
        self.latencies_us.get((last as f64 * percent / 100.0) as usize).copied().unwrap_or_default()
    }
}

async fn send(args: &LoadArgs) -> anyhow::Result<Report> {
    let body = bodies::by_name(&args.body)?;
    let template = Arc::new(Template::new(&args.key, &body.json, args.vary));
    let next = Arc::new(AtomicUsize::new(0));
    let run = uuid::Uuid::new_v4().as_u128();
    let started = Instant::now();
    let mut connections = Vec::new();
    for _ in 0..args.connections {
        let (template, next, address, requests) = (template.clone(), next.clone(), args.address, args.requests);
        connections.push(tokio::spawn(async move { connection(address, &template, &next, requests, run).await }));
    }
    let mut report = Report { accepted: 0, refused: 0, elapsed: Duration::ZERO, latencies_us: Vec::new() };
    for connection in connections {
        let (accepted, refused, latencies) = connection.await??;
        report.accepted += accepted;
        report.refused += refused;
        report.latencies_us.extend(latencies);
    }
    report.elapsed = started.elapsed();
    report.latencies_us.sort_unstable();
    Ok(report)
}

async fn connection(
    address: SocketAddr,
    template: &Template,
    next: &AtomicUsize,
    requests: usize,
    run: u128,
) -> anyhow::Result<(usize, usize, Vec<u32>)> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut request = template.bytes.clone();
    let mut answer = Vec::with_capacity(1024);
    let (mut accepted, mut refused, mut latencies) = (0, 0, Vec::new());
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= requests {
            return Ok((accepted, refused, latencies));
        }
        template.fill(&mut request, run ^ number as u128, number);
        let sent = Instant::now();
        stream.write_all(&request).await?;
        if read_answer(&mut stream, &mut answer).await? == 202 {
            accepted += 1;
        } else {
            refused += 1;
        }
        latencies.push(sent.elapsed().as_micros() as u32);
    }
}

/// Reads one answer with a `content-length` (or none, with an empty body) and gives its status.
async fn read_answer(stream: &mut TcpStream, answer: &mut Vec<u8>) -> anyhow::Result<u16> {
    answer.clear();
    let head = loop {
        if let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(answer).await? == 0 {
            bail!("the server closed the connection");
        }
    };
    let text = std::str::from_utf8(&answer[..head])?.to_ascii_lowercase();
    let status = text.get(9..12).and_then(|digits| digits.parse().ok()).context("status line")?;
    let length = text.split("content-length:").nth(1).and_then(|rest| rest.lines().next());
    let length: usize = length.map_or(Ok(0), |digits| digits.trim().parse())?;
    while answer.len() < head + length {
        if stream.read_buf(answer).await? == 0 {
            bail!("the server closed the connection in the middle of an answer");
        }
    }
    Ok(status)
}

/// A request's bytes and the places that change.
struct Template {
    bytes: Vec<u8>,
    payload_id: usize,
    /// Where four digits of a context key stand.
    keys: Vec<usize>,
}

impl Template {
    fn new(key: &str, body: &[u8], vary: bool) -> Self {
        let head = format!(
            "POST /bulk HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept-Encoding: identity\r\nContent-Length: {}\r\nAuthorization: {key}\r\n\
             User-Agent: PythonClient/9.17.0\r\nX-LaunchDarkly-Instance-Id: 13e3c8cc-87db-4d95-8daa-d66d91a2bc66\r\n\
             X-LaunchDarkly-Tags: application-id/checkout-web application-version/2026.11.3-rc.1\r\nContent-Type: application/json\r\n\
             X-LaunchDarkly-Event-Schema: 4\r\nX-LaunchDarkly-Payload-ID: 00000000-0000-4000-8000-000000000000\r\n\r\n",
            body.len()
        );
        let payload_id = head.rfind("00000000-0000-4000").expect("in the head above");
        let bytes = [head.as_bytes(), body].concat();
        let keys = if vary { digits_after(&bytes, b"user-") } else { Vec::new() };
        Self { bytes, payload_id, keys }
    }

    fn fill(&self, request: &mut [u8], id: u128, number: usize) {
        let id = uuid::Builder::from_random_bytes(id.to_be_bytes()).into_uuid();
        id.hyphenated().encode_lower(&mut request[self.payload_id..self.payload_id + 36]);
        for place in &self.keys {
            let original: usize =
                std::str::from_utf8(&self.bytes[*place..place + 4]).map_or(0, |text| text.parse().unwrap_or(0));
            let digits = format!("{:04}", (original + number * 7) % 10_000);
            request[*place..place + 4].copy_from_slice(digits.as_bytes());
        }
    }
}

/// Positions after `prefix` where four digits follow.
fn digits_after(bytes: &[u8], prefix: &[u8]) -> Vec<usize> {
    let starts = bytes.windows(prefix.len() + 4).enumerate().filter(|(_, window)| window.starts_with(prefix));
    starts
        .filter(|(_, window)| window[prefix.len()..].iter().all(u8::is_ascii_digit))
        .map(|(start, _)| start + prefix.len())
        .collect()
}
