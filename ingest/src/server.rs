//! Accepts connections, speaks HTTP on them, ends them.
//!
//! In: a listener. Out: requests to [`Ingest`], or to the fallback where the path is not one of an SDK. HTTP/1.1 and
//! cleartext HTTP/2 (with prior knowledge) share the port. Promises: connections are bounded in number, heads and
//! idleness in time; on shutdown nothing new is accepted, requests under way are answered, open batches appended.
//! Not here: how long a body may take ([`crate::body`]).

use std::convert::Infallible;
use std::error::Error as StdError;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response, Version};
use http_body::Body;
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use runtime::Shutdown;
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::pace::{Gate, Newcomer};
use crate::{Error, Ingest, Result};

mod activity;

use activity::{Activity, Connections, Signal, Timeouts, Watched};

/// A pixel's request line alone may have nearly 64 KiB (more than 65,534 bytes no URL may have in this HTTP library).
const HEAD_BYTES_MAX: usize = 128 << 10;

/// Streams of one HTTP/2 connection at once.
const STREAMS_MAX: u32 = 128;

/// HTTP/2 windows: one flush of a large SDK fits without waiting, and one connection cannot hold much more.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 2 << 20;

/// Longest wait for requests under way at shutdown; with the last batch it stays below 10 s.
const DRAIN_MAX: Duration = Duration::from_secs(8);
const LAST_BATCH_MAX: Duration = Duration::from_millis(1_500);

/// After this an accept that failed for lack of file descriptors is tried again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Under pressure it is looked this often whether a connection may come in.
const GATE_PAUSE: Duration = Duration::from_millis(5);

/// A client that has hung up before its connection was accepted shows it within this time.
const HUNG_UP_SHOWS: Duration = Duration::from_millis(10);

/// Serves until `shutdown` begins, then drains and returns.
///
/// `fallback` answers every request whose path is not one of the event protocol.
///
/// # Errors
/// `Accept` (kind `Fatal`) if the listener itself is broken.
pub async fn serve<F, B>(listener: TcpListener, ingest: Arc<Ingest>, fallback: F, shutdown: Shutdown) -> Result<()>
where
    F: Fn(Request<Incoming>) -> BoxFuture<'static, Response<B>> + Send + Sync + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    let connections = Arc::new(Connections::new(ingest.clock.instant(), ingest.callers.clone()));
    let house = Arc::new(House { ingest, fallback, connections, http: http_builder() });
    let sweeper = tokio::spawn(sweep(house.ingest.clone(), house.connections.clone()));
    let outcome = tokio::select! {
        outcome = accept(&listener, &house) => outcome,
        () = shutdown.begun() => Ok(()),
    };
    drop(listener);
    house.drain().await;
    sweeper.abort();
    outcome
}

/// What all connections share.
struct House<F> {
    ingest: Arc<Ingest>,
    fallback: F,
    connections: Arc<Connections>,
    http: auto::Builder<TokioExecutor>,
}

fn http_builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        // Heads are timed by the sweep: the library's timer would run while a connection is idle, too.
        .header_read_timeout(None)
        .max_buf_size(HEAD_BYTES_MAX);
    builder
        .http2()
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(HEAD_BYTES_MAX as u32);
    builder
}

async fn accept<F, B>(listener: &TcpListener, house: &Arc<House<F>>) -> Result<()>
where
    F: Fn(Request<Incoming>) -> BoxFuture<'static, Response<B>> + Send + Sync + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    let mut gate = Gate::new(house.ingest.clock.instant());
    for number in 0.. {
        let stream = loop {
            match listener.accept().await {
                Ok((stream, _)) => break stream,
                Err(source) if is_passing(&source) => {
                    // Out of file descriptors: idle connections hold some.
                    house.connections.end_longest_idle();
                    house.ingest.clock.wait(ACCEPT_PAUSE).await;
                }
                Err(source) => {
                    let address = listener.local_addr().map_or_else(|_| "an unknown address".into(), |a| a.to_string());
                    return Err(Error::Accept { address, source });
                }
            }
        };
        house.await_place().await;
        while !gate.admits(&house.ingest.pace, house.ingest.clock.instant()) {
            house.ingest.clock.wait(GATE_PAUSE).await;
        }
        let place = Place::take(house, number);
        tokio::spawn(connection(stream, house.clone(), place));
    }
    Ok(())
}

/// Whether accepting may work again later: the peer left early, or a bound of the operating system was met.
fn is_passing(error: &std::io::Error) -> bool {
    !matches!(error.kind(), std::io::ErrorKind::InvalidInput | std::io::ErrorKind::NotConnected)
}

/// The place that a connection takes up for as long as it is open.
struct Place {
    connections: Arc<Connections>,
    number: u64,
    activity: Arc<Activity>,
    newcomer: Arc<Newcomer>,
}

impl Place {
    fn take<F>(house: &House<F>, number: u64) -> Self {
        let connections = house.connections.clone();
        let activity = connections.open(number);
        Self { connections, number, activity, newcomer: Arc::new(house.ingest.pace.newcomer()) }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.end(self.number);
    }
}

async fn connection<F, B>(stream: TcpStream, house: Arc<House<F>>, place: Place)
where
    F: Fn(Request<Incoming>) -> BoxFuture<'static, Response<B>> + Send + Sync + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    // Answers are written whole; waiting for more to send would only delay them.
    let _ = stream.set_nodelay(true);
    if house.ingest.pace.is_pressed() && has_hung_up(&stream).await {
        return;
    }
    let activity = place.activity.clone();
    let newcomer = place.newcomer.clone();
    let guest = Arc::new(Guest { house: house.clone(), activity: activity.clone(), newcomer });
    let service = service_fn(move |request| {
        let guest = guest.clone();
        async move { Ok::<_, Infallible>(guest.answer(request).await) }
    });
    let io = TokioIo::new(Watched { stream, activity: activity.clone() });
    let http = house.http.serve_connection(io, service);
    tokio::pin!(http);
    let mut enrolled = false;
    let mut finishing = false;
    poll_fn(|context| {
        if !enrolled {
            enrolled = true;
            activity.enroll(context.waker());
        }
        match activity.signal() {
            Signal::GoOn => {}
            Signal::Finish if finishing => {}
            Signal::Finish => {
                finishing = true;
                http.as_mut().graceful_shutdown();
            }
            Signal::Stop => return Poll::Ready(()),
        }
        // How a connection ends is the client's business: a broken one stored nothing and was told nothing.
        http.as_mut().poll(context).map(|_| ())
    })
    .await;
    drop(place);
}

/// Whether the client has closed its side: under pressure it waited too long to be accepted, and reading what it sent
/// would take time from those who still wait.
async fn has_hung_up(stream: &TcpStream) -> bool {
    let ready = timeout(HUNG_UP_SHOWS, stream.ready(Interest::READABLE)).await;
    matches!(ready, Ok(Ok(ready)) if ready.is_read_closed())
}

/// One connection's view of the house.
struct Guest<F> {
    house: Arc<House<F>>,
    activity: Arc<Activity>,
    newcomer: Arc<Newcomer>,
}

impl<F, B> Guest<F>
where
    F: Fn(Request<Incoming>) -> BoxFuture<'static, Response<B>> + Send + Sync + 'static,
{
    async fn answer(&self, request: Request<Incoming>) -> Response<Either<Full<Bytes>, B>> {
        let _busy = self.activity.request_begins(request.version() == Version::HTTP_2);
        let answer = match self.house.ingest.receive(&request) {
            Some(visit) => self.house.ingest.answer(visit, request).await.map(Either::Left),
            None => (self.house.fallback)(request).await.map(Either::Right),
        };
        self.newcomer.answered();
        answer
    }
}

impl<F> House<F> {
    /// Waits until one more connection is allowed, asking an idle one to make room.
    async fn await_place(&self) {
        loop {
            let ended = self.connections.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if self.connections.count() < self.ingest.config.connections_max {
                return;
            }
            if !self.connections.end_longest_idle() {
                // None is idle now, but one may be soon.
                let _ = timeout(ACCEPT_PAUSE, ended).await;
                continue;
            }
            ended.await;
        }
    }

    async fn drain(&self) {
        self.ingest.begin_drain();
        self.connections.send_to_all(Signal::Finish);
        let all_ended = async {
            loop {
                let ended = self.connections.ended.notified();
                tokio::pin!(ended);
                ended.as_mut().enable();
                if self.connections.count() == 0 {
                    return;
                }
                ended.await;
            }
        };
        if timeout(DRAIN_MAX, all_ended).await.is_err() {
            let open = self.connections.count();
            tracing::info!(target: "tidegate::ingest", open, "some requests were not done in time for the shutdown");
            self.connections.send_to_all(Signal::Stop);
        }
        if timeout(LAST_BATCH_MAX, self.ingest.batcher.drain()).await.is_err() {
            tracing::info!(target: "tidegate::ingest", "the log did not take the last batch in time for the shutdown");
        }
    }
}

async fn sweep(ingest: Arc<Ingest>, connections: Arc<Connections>) {
    let timeouts = Timeouts { header: ingest.config.header_timeout.get(), idle: ingest.config.idle_timeout.get() };
    let interval = (timeouts.header.min(timeouts.idle) / 4).clamp(Duration::from_millis(5), Duration::from_secs(1));
    loop {
        ingest.clock.wait(interval).await;
        connections.sweep(timeouts);
        ingest.connections.store(connections.count(), Ordering::Relaxed);
        ingest.update_gauges();
        ingest.pace.follow(ingest.clock.instant());
    }
}

#[cfg(test)]
mod tests;
