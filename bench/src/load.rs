//! The load generator: keep-alive connections that each send the next request as soon as the last is answered, or at a
//! given rate. A refused or broken request costs a connection one second, as it does an SDK.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clap::Args;

use crate::bodies;
use crate::client::{Connection, Template};

const PAUSE_AFTER_REFUSAL: Duration = Duration::from_secs(1);

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
    /// Requests in all; without it as many as fit into --seconds.
    #[arg(long, default_value_t = usize::MAX, hide_default_value = true)]
    pub requests: usize,
    /// Ends after this time; without it after --requests.
    #[arg(long, default_value_t = f64::MAX, hide_default_value = true)]
    pub seconds: f64,
    /// Requests per second in all; without it as many as are answered.
    #[arg(long)]
    pub rate: Option<f64>,
    /// Give each request contexts of its own: the digits in `user-0001` and the like change.
    #[arg(long)]
    pub vary: bool,
    /// File that gets the payload ids that were answered 202, one per line.
    #[arg(long)]
    pub acknowledged: Option<PathBuf>,
}

/// Sends the load and prints one line of JSON: answers by status, elapsed milliseconds, latency percentiles.
pub fn run(args: &LoadArgs) -> anyhow::Result<()> {
    anyhow::ensure!(args.requests < usize::MAX || args.seconds < f64::MAX, "either --requests or --seconds, please");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut report, elapsed) = runtime.block_on(send(args))?;
    report.latencies_us.sort_unstable();
    report.since_due_us.sort_unstable();
    if let Some(path) = &args.acknowledged {
        append_lines(path, &report.acknowledged)?;
    }
    println!(
        "{}",
        serde_json::json!({
            "accepted": report.answers.get(&202).copied().unwrap_or_default(),
            "refused": report.answers.iter().filter(|(status, _)| **status != 202).map(|(_, count)| count).sum::<u64>(),
            "broken": report.broken, "answers": report.answers, "elapsedMillis": elapsed.as_millis() as u64,
            "p50Micros": percentile(&report.latencies_us, 50.0), "p99Micros": percentile(&report.latencies_us, 99.0),
            "p99SinceDueMicros": percentile(&report.since_due_us, 99.0),
        })
    );
    Ok(())
}

/// Appends lines to a file, which may be there already.
pub fn append_lines(path: &std::path::Path, lines: &[String]) -> anyhow::Result<()> {
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
    let mut file = std::io::BufWriter::new(file);
    for line in lines {
        writeln!(file, "{line}")?;
    }
    Ok(file.flush()?)
}

/// The value below which `percent` of the sorted values lie.
pub fn percentile<T: Copy + Default>(sorted: &[T], percent: f64) -> T {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * percent / 100.0).round() as usize).copied().unwrap_or_default()
}

#[derive(Default)]
struct Report {
    answers: BTreeMap<u16, u64>,
    broken: u64,
    latencies_us: Vec<u32>,
    /// From the time that a request was due, at a rate: with all connections waiting for answers it was sent later.
    since_due_us: Vec<u32>,
    acknowledged: Vec<String>,
}

async fn send(args: &LoadArgs) -> anyhow::Result<(Report, Duration)> {
    let body = bodies::by_name(&args.body)?;
    let plan = Arc::new(Plan {
        template: Template::new(&args.key, &body.json, args.vary),
        next: AtomicUsize::new(0),
        run: uuid::Uuid::new_v4().as_u128(),
        started: Instant::now(),
        args: args.clone(),
    });
    let connections: Vec<_> = (0..args.connections).map(|_| tokio::spawn(connection(plan.clone()))).collect();
    let mut report = Report::default();
    for connection in connections {
        let part = connection.await?;
        part.answers.iter().for_each(|(status, count)| *report.answers.entry(*status).or_default() += count);
        report.broken += part.broken;
        report.latencies_us.extend(part.latencies_us);
        report.since_due_us.extend(part.since_due_us);
        report.acknowledged.extend(part.acknowledged);
    }
    Ok((report, plan.started.elapsed()))
}

struct Plan {
    template: Template,
    next: AtomicUsize,
    run: u128,
    started: Instant,
    args: LoadArgs,
}

impl Plan {
    /// The next request's number, and when it was due, at that time; none when all are sent.
    async fn next(&self) -> Option<(usize, Instant)> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let due = match self.args.rate {
            None => Instant::now(),
            Some(rate) => {
                let due = self.started + Duration::from_secs_f64(number as f64 / rate);
                tokio::time::sleep_until(due.into()).await;
                due
            }
        };
        let goes_on = number < self.args.requests && self.started.elapsed().as_secs_f64() < self.args.seconds;
        goes_on.then_some((number, due))
    }
}

async fn connection(plan: Arc<Plan>) -> Report {
    let mut report = Report::default();
    let mut request = plan.template.bytes.clone();
    let mut open: Option<Connection> = None;
    while let Some((number, due)) = plan.next().await {
        let id = plan.template.fill(&mut request, plan.run ^ number as u128, number).to_owned();
        let sent = Instant::now();
        let status = async {
            let mut connection = match open.take() {
                Some(connection) => connection,
                None => Connection::open(plan.args.address).await?,
            };
            let status = connection.exchange(&request).await?;
            open = Some(connection);
            std::io::Result::Ok(status)
        };
        let status = status.await;
        report.latencies_us.push(sent.elapsed().as_micros() as u32);
        report.since_due_us.push(due.elapsed().as_micros() as u32);
        match &status {
            Ok(status) => *report.answers.entry(*status).or_default() += 1,
            Err(_) => report.broken += 1,
        }
        if !matches!(status, Ok(202)) {
            tokio::time::sleep(PAUSE_AFTER_REFUSAL).await;
        } else if plan.args.acknowledged.is_some() {
            report.acknowledged.push(id);
        }
    }
    report
}
