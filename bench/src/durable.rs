//! The endpoint and the embedded log alone, without compactor, index and page: what "durable ingest" costs.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use eventlog::embedded::EmbeddedLog;
use events::EnvironmentConfig;
use http_body_util::Empty;
use hyper::{Response, StatusCode};
use ingest::Ingest;
use runtime::{Runtime, Shutdown};
use tokio::net::TcpListener;

use crate::server::SDK_KEY;

/// Serves until killed; prints the bound address on the first line.
pub fn run(listen: SocketAddr, data_dir: &Path) -> anyhow::Result<()> {
    let threads = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    threads.block_on(async {
        let runtime = Runtime::system();
        let log = EmbeddedLog::open(&data_dir.join("log"), &eventlog::Config::default(), &runtime)?;
        let environment = EnvironmentConfig {
            project: "default".into(),
            key: "dev".into(),
            sdk_keys: vec![SDK_KEY.into()],
            ..Default::default()
        };
        let ingest = Ingest::new(ingest::Config::default(), &[environment], &[], log, runtime)?;
        let listener = TcpListener::bind(listen).await?;
        println!("{}", listener.local_addr()?);
        ingest::server::serve(listener, Arc::new(ingest), |_| Box::pin(not_found()), Shutdown::new()).await?;
        Ok(())
    })
}

async fn not_found() -> Response<Empty<Bytes>> {
    let mut response = Response::new(Empty::new());
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}
