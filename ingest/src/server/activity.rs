//! What each connection is doing, so that one sweep can end those that do nothing for too long.
//!
//! In: bytes read (from [`Watched`]), requests begun and ended (from the service). Out: signals to the connection's
//! task. One sweep a second over all connections replaces a timer per request, which would cost more than reading its
//! headers. Also here: how many connections are open, and how many requests they could bring at once.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::Instant;

const IDLE: u8 = 0;
const HEAD: u8 = 1;
const BUSY: u8 = 2;

/// Requests that one HTTP/2 connection may bring at once.
const HTTP2_CALLERS: usize = super::STREAMS_MAX as usize;

/// What a connection's task is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Signal {
    GoOn = 0,
    /// Finish what is under way, take nothing new.
    Finish = 1,
    /// Stop now.
    Stop = 2,
}

/// State of one connection.
#[derive(Debug)]
pub(super) struct Activity {
    origin: Instant,
    /// Start of the phase, in milliseconds after `origin`.
    since_ms: AtomicU64,
    phase: AtomicU8,
    requests: AtomicU32,
    http2: AtomicBool,
    signal: AtomicU8,
    waker: Mutex<Option<Waker>>,
    callers: Arc<AtomicUsize>,
}

/// Longest times of the phases.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeouts {
    pub header: Duration,
    pub idle: Duration,
}

impl Activity {
    fn new(origin: Instant, callers: Arc<AtomicUsize>) -> Self {
        callers.fetch_add(1, Ordering::Relaxed);
        Self {
            origin,
            callers,
            since_ms: AtomicU64::new(origin.elapsed().as_millis() as u64),
            phase: AtomicU8::new(IDLE),
            requests: AtomicU32::new(0),
            http2: AtomicBool::new(false),
            signal: AtomicU8::new(Signal::GoOn as u8),
            waker: Mutex::new(None),
        }
    }

    fn enter(&self, phase: u8) {
        self.since_ms.store(self.origin.elapsed().as_millis() as u64, Ordering::Relaxed);
        self.phase.store(phase, Ordering::Relaxed);
    }

    fn bytes_read(&self, first: &[u8]) {
        if self.phase.load(Ordering::Relaxed) != IDLE {
            return;
        }
        if first.starts_with(b"PRI") {
            self.note_http2();
        }
        // Of HTTP/2 it is not known here what the bytes are; they are a sign of life.
        self.enter(if self.http2.load(Ordering::Relaxed) { IDLE } else { HEAD });
    }

    fn bytes_written(&self) {
        if self.phase.load(Ordering::Relaxed) == IDLE {
            self.enter(IDLE);
        }
    }

    fn note_http2(&self) {
        if !self.http2.swap(true, Ordering::Relaxed) {
            self.callers.fetch_add(HTTP2_CALLERS - 1, Ordering::Relaxed);
        }
    }

    pub fn request_begins(self: &Arc<Self>, http2: bool) -> Busy {
        if http2 {
            self.note_http2();
        }
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.phase.store(BUSY, Ordering::Relaxed);
        Busy(self.clone())
    }

    /// Remembers the connection's task. Called by each poll; only the first does anything.
    pub fn enroll(&self, waker: &Waker) {
        let mut known = self.waker.lock();
        if known.is_none() {
            *known = Some(waker.clone());
        }
    }

    pub fn signal(&self) -> Signal {
        match self.signal.load(Ordering::Acquire) {
            0 => Signal::GoOn,
            1 => Signal::Finish,
            _ => Signal::Stop,
        }
    }

    fn send(&self, signal: Signal) {
        if self.signal.fetch_max(signal as u8, Ordering::AcqRel) < signal as u8
            && let Some(waker) = self.waker.lock().as_ref()
        {
            waker.wake_by_ref();
        }
    }

    fn idle_since(&self) -> Option<u64> {
        (self.phase.load(Ordering::Relaxed) == IDLE).then(|| self.since_ms.load(Ordering::Relaxed))
    }

    fn verdict(&self, timeouts: Timeouts) -> Signal {
        let age = Duration::from_millis(
            (self.origin.elapsed().as_millis() as u64).saturating_sub(self.since_ms.load(Ordering::Relaxed)),
        );
        match self.phase.load(Ordering::Relaxed) {
            // Asked to finish long ago, and the client does not take its last answer.
            IDLE if age >= timeouts.idle * 2 => Signal::Stop,
            IDLE if age >= timeouts.idle => Signal::Finish,
            HEAD if age >= timeouts.header => Signal::Stop,
            _ => Signal::GoOn,
        }
    }
}

impl Drop for Activity {
    fn drop(&mut self) {
        let callers = if *self.http2.get_mut() { HTTP2_CALLERS } else { 1 };
        self.callers.fetch_sub(callers, Ordering::Relaxed);
    }
}

/// A request under way on a connection.
pub(super) struct Busy(Arc<Activity>);

impl Drop for Busy {
    fn drop(&mut self) {
        if self.0.requests.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.enter(IDLE);
        }
    }
}

/// All open connections.
#[derive(Debug)]
pub(super) struct Connections {
    origin: Instant,
    /// Requests that all of them could bring at once.
    callers: Arc<AtomicUsize>,
    open: Mutex<HashMap<u64, Arc<Activity>>>,
    /// Told whenever one ends.
    pub ended: Notify,
}

impl Connections {
    pub fn new(origin: Instant, callers: Arc<AtomicUsize>) -> Self {
        Self { origin, callers, open: Mutex::default(), ended: Notify::new() }
    }

    pub fn open(&self, number: u64) -> Arc<Activity> {
        let activity = Arc::new(Activity::new(self.origin, self.callers.clone()));
        self.open.lock().insert(number, activity.clone());
        activity
    }

    pub fn end(&self, number: u64) {
        self.open.lock().remove(&number);
        self.ended.notify_waiters();
    }

    pub fn count(&self) -> usize {
        self.open.lock().len()
    }

    /// Ends the connections that have done nothing for too long.
    pub fn sweep(&self, timeouts: Timeouts) {
        for activity in self.open.lock().values() {
            activity.send(activity.verdict(timeouts));
        }
    }

    pub fn send_to_all(&self, signal: Signal) {
        for activity in self.open.lock().values() {
            activity.send(signal);
        }
    }

    /// Asks the connection that has been idle for the longest to end. False if none is idle.
    pub fn end_longest_idle(&self) -> bool {
        let open = self.open.lock();
        let idle = open.values().filter_map(|activity| Some((activity.idle_since()?, activity)));
        let longest = idle.filter(|(_, activity)| activity.signal() == Signal::GoOn).min_by_key(|(since, _)| *since);
        longest.inspect(|(_, activity)| activity.send(Signal::Finish)).is_some()
    }
}

/// A stream that tells its connection's activity about bytes read.
#[derive(Debug)]
pub(super) struct Watched<T> {
    pub stream: T,
    pub activity: Arc<Activity>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.activity.bytes_read(&buffer.filled()[before..]);
        }
        outcome
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.activity.bytes_written();
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.activity.bytes_written();
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn phases_have_their_own_limits() {
        let connections = Connections::new(Instant::now(), Arc::default());
        let activity = connections.open(1);
        let strict = |header, idle| Timeouts { header, idle };
        assert_eq!(activity.verdict(strict(Duration::ZERO, NEVER)), Signal::GoOn, "nothing sent yet: idle");
        assert!(activity.verdict(strict(NEVER, Duration::ZERO)) >= Signal::Finish);
        activity.bytes_read(b"POST /bu");
        assert_eq!(activity.verdict(strict(Duration::ZERO, NEVER)), Signal::Stop);
        let busy = activity.request_begins(false);
        assert_eq!(activity.verdict(strict(Duration::ZERO, Duration::ZERO)), Signal::GoOn);
        drop(busy);
        assert_eq!(activity.verdict(strict(Duration::ZERO, NEVER)), Signal::GoOn);
    }

    #[tokio::test]
    async fn http2_frames_are_no_headers() {
        let connections = Connections::new(Instant::now(), Arc::default());
        let activity = connections.open(1);
        activity.bytes_read(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        activity.bytes_read(b"\0\0\0");
        assert_eq!(activity.verdict(Timeouts { header: Duration::ZERO, idle: NEVER }), Signal::GoOn);
    }

    #[tokio::test]
    async fn http2_connection_counts_as_many_callers() {
        let connections = Connections::new(Instant::now(), Arc::default());
        let (plain, many) = (connections.open(1), connections.open(2));
        many.bytes_read(b"PRI * HTTP/2.0");
        drop(many.request_begins(true));
        assert_eq!(connections.callers.load(Ordering::Relaxed), 1 + HTTP2_CALLERS);
        connections.end(1);
        connections.end(2);
        drop((plain, many));
        assert_eq!(connections.callers.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn longest_idle_makes_room() {
        let connections = Connections::new(Instant::now(), Arc::default());
        let (first, second) = (connections.open(1), connections.open(2));
        let busy = first.request_begins(false);
        assert!(connections.end_longest_idle());
        assert_eq!((first.signal(), second.signal()), (Signal::GoOn, Signal::Finish));
        assert!(!connections.end_longest_idle(), "the other is busy");
        drop(busy);
        assert!(connections.end_longest_idle());
    }
}
