//! The endpoint and a log alone, without compactor, index and page: what "durable ingest" costs.
//!
//! The log is the embedded one, or on Kafka with a spill before it, as in the program.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use eventlog::LogWriter;
use eventlog::embedded::EmbeddedLog;
use eventlog::kafka::KafkaLog;
use eventlog::spill::{LocalStore, Settings, SpillLog};
use events::EnvironmentConfig;
use futures::future::BoxFuture;
use http_body_util::Full;
use hyper::Response;
use ingest::Ingest;
use runtime::{Runtime, Shutdown};
use tokio::net::TcpListener;

use crate::server::SDK_KEY;

/// Serves until killed; prints the bound address on the first line. Every path that is not ingest's shows the metrics.
pub fn run(listen: SocketAddr, data_dir: &Path, kafka: Option<&str>) -> anyhow::Result<()> {
    let threads = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    threads.block_on(async {
        let runtime = Runtime::system();
        let config = eventlog::Config::default();
        let log: Arc<dyn LogWriter> = match kafka {
            None => EmbeddedLog::open(&data_dir.join("log"), &config, &runtime)?,
            Some(brokers) => Arc::new(on_kafka(brokers, data_dir, &config, &runtime).await?),
        };
        let environment = EnvironmentConfig {
            project: "default".into(),
            key: "dev".into(),
            sdk_keys: vec![SDK_KEY.into()],
            ..Default::default()
        };
        let ingest = Ingest::new(ingest::Config::default(), &[environment], &[], log, runtime.clone())?;
        let metrics = move |_| -> BoxFuture<'static, _> {
            Box::pin(std::future::ready(Response::new(Full::<Bytes>::from(runtime.telemetry.render()))))
        };
        let listener = TcpListener::bind(listen).await?;
        println!("{}", listener.local_addr()?);
        ingest::server::serve(listener, Arc::new(ingest), metrics, Shutdown::new()).await?;
        Ok(())
    })
}

/// A log with topics of its own, so that runs on one broker do not meet.
async fn on_kafka(
    brokers: &str,
    data_dir: &Path,
    log: &eventlog::Config,
    runtime: &Runtime,
) -> anyhow::Result<SpillLog<KafkaLog, LocalStore>> {
    let config =
        eventlog::kafka::Config { brokers: brokers.to_owned(), topic_prefix: topic_prefix(), ..Default::default() };
    let store = LocalStore::open(&data_dir.join("spill"), config.spill_max, log, runtime)?;
    let settings = Settings::new(config.spill_after.get(), log.pending_bytes_max.0);
    let kafka = KafkaLog::open(&config, log, runtime).await?;
    Ok(SpillLog::open(kafka, Arc::new(store), settings, runtime).await?)
}

/// The prefix of the topics of one run.
pub fn topic_prefix() -> String {
    format!("bench-{}.", uuid::Uuid::new_v4())
}
