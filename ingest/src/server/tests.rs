//! Through the front door: a real listener, raw sockets, and what the log then holds.

use eventlog::frame::{self, PayloadIndex};
use eventlog::memory::{AppendFault, MemoryLog};
use eventlog::{AppendRecord, LogReader, LogWriter, WriterHealth};
use events::{EnvironmentConfig, EventKind, LogBatch, Offset, Topic, TopicPartition};
use http::StatusCode;
use runtime::{ByteSize, Clock, DurationText, Runtime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::*;
use crate::{ApiToken, Config, Role};

mod limits;
mod pressure;
mod protocol;
mod repeats;

/// A log whose appends wait while its gate is shut.
#[derive(Clone)]
struct GatedLog {
    memory: MemoryLog,
    open: watch::Sender<bool>,
    arrived: watch::Sender<usize>,
}

impl GatedLog {
    fn new() -> Self {
        let memory = MemoryLog::new(Clock::system(), [2, 2, 1], "test");
        Self { memory, open: watch::Sender::new(true), arrived: watch::Sender::new(0) }
    }

    fn shut(&self) {
        self.open.send_replace(false);
    }

    fn reopen(&self) {
        self.open.send_replace(true);
    }

    /// Resolves once `count` appends have come since the start.
    async fn appends(&self, count: usize) {
        self.arrived.subscribe().wait_for(|arrived| *arrived >= count).await.unwrap();
    }
}

impl LogWriter for GatedLog {
    fn append(&self, records: Vec<AppendRecord>) -> BoxFuture<'_, eventlog::Result<Vec<Offset>>> {
        Box::pin(async move {
            self.arrived.send_modify(|arrived| *arrived += 1);
            let _ = self.open.subscribe().wait_for(|open| *open).await;
            self.memory.append(records).await
        })
    }

    fn partitions(&self, topic: Topic) -> u32 {
        LogWriter::partitions(&self.memory, topic)
    }

    fn health(&self) -> WriterHealth {
        self.memory.health()
    }
}

/// A running endpoint.
struct Door {
    address: std::net::SocketAddr,
    ingest: Arc<Ingest>,
    log: GatedLog,
    shutdown: Shutdown,
    server: JoinHandle<Result<()>>,
}

const SDK_KEY: &str = "sdk-fake-1";
const MOBILE_KEY: &str = "mob-fake-1";
const CLIENT_ID: &str = "c11e4700000000000000000a";
const TOKEN: &str = "api-fake-writer";

fn environment() -> EnvironmentConfig {
    EnvironmentConfig {
        project: "shop".into(),
        key: "prod".into(),
        sdk_keys: vec![SDK_KEY.into()],
        mobile_keys: vec![MOBILE_KEY.into()],
        client_side_ids: vec![CLIENT_ID.into()],
    }
}

fn tokens() -> Vec<ApiToken> {
    vec![
        ApiToken { token: TOKEN.into(), role: Role::Writer },
        ApiToken { token: "api-fake-reader".into(), role: Role::Reader },
    ]
}

impl Door {
    async fn open() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let door = Self::without_keys(change).await;
        door.ingest.load_keys(&[environment()], &tokens()).unwrap();
        door
    }

    async fn without_keys(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config { path_prefix: "/relay/ld".into(), ..Config::default() };
        change(&mut config);
        let log = GatedLog::new();
        let ingest = Arc::new(Ingest::without_keys(config, Arc::new(log.clone()), Runtime::system()).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = Shutdown::new();
        let fallback = |request: Request<Incoming>| -> BoxFuture<'static, Response<Full<Bytes>>> {
            Box::pin(async move {
                let mut response = Response::new(Full::new(Bytes::from(request.uri().path().to_owned())));
                *response.status_mut() = StatusCode::IM_A_TEAPOT;
                response
            })
        };
        let server = tokio::spawn(serve(listener, ingest.clone(), fallback, shutdown.clone()));
        Self { address, ingest, log, shutdown, server }
    }

    async fn connect(&self) -> Client {
        Client(TcpStream::connect(self.address).await.unwrap(), Vec::new())
    }

    /// Sends one request on a connection of its own.
    async fn send(&self, request: impl AsRef<[u8]>) -> Reply {
        let mut client = self.connect().await;
        client.send(request).await
    }

    async fn post(&self, path: &str, headers: &str, body: impl AsRef<[u8]>) -> Reply {
        self.send(post(path, headers, body)).await
    }

    /// Everything in the log, by topic.
    async fn batches(&self, topic: Topic) -> Vec<(frame::FrameIndex, LogBatch)> {
        let mut found = Vec::new();
        for partition in 0..LogWriter::partitions(&self.log, topic) {
            let place = TopicPartition::new(topic, partition);
            for record in self.log.memory.fetch(place, Offset(0), usize::MAX, Duration::ZERO).await.unwrap() {
                found.push((frame::peek(&record.frame).unwrap(), frame::decode(&record.frame).unwrap()));
            }
        }
        found
    }

    async fn payloads(&self) -> Vec<PayloadIndex> {
        self.batches(Topic::Events).await.into_iter().flat_map(|(index, _)| index.payloads).collect()
    }

    async fn kinds(&self) -> Vec<(EventKind, u32)> {
        let batches = self.batches(Topic::Events).await;
        let kinds = batches.iter().flat_map(|(index, _)| &index.kinds);
        kinds.map(|(code, rows)| (EventKind::ALL[*code as usize], *rows)).collect()
    }

    /// Reasons and bodies of the dead letters.
    async fn letters(&self) -> Vec<(String, Vec<u8>)> {
        use arrow::array::AsArray;
        let mut letters = Vec::new();
        for (_, batch) in self.batches(Topic::DeadLetters).await {
            let LogBatch::DeadLetters(batch) = batch else { panic!("wrong topic") };
            let rows = batch.letters();
            let column = |name: &str| rows.column_by_name(name).unwrap();
            let (reasons, bodies) = (column("reason").as_string::<i32>(), column("body").as_binary::<i32>());
            letters.extend((0..rows.num_rows()).map(|row| (reasons.value(row).to_owned(), bodies.value(row).to_vec())));
        }
        letters
    }

    async fn close(self) {
        self.shutdown.begin();
        self.server.await.unwrap().unwrap();
    }
}

/// A connection that reads one response at a time.
struct Client(TcpStream, Vec<u8>);

#[derive(Debug)]
struct Reply {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Client {
    async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.unwrap();
    }

    async fn send(&mut self, request: impl AsRef<[u8]>) -> Reply {
        self.write(request).await;
        self.reply().await
    }

    async fn reply(&mut self) -> Reply {
        self.try_reply().await.expect("an answer before the end of the connection")
    }

    /// None if the connection ends first.
    async fn try_reply(&mut self) -> Option<Reply> {
        loop {
            if let Some(reply) = self.take_reply() {
                return Some(reply);
            }
            let mut buffer = [0; 8192];
            match self.0.read(&mut buffer).await {
                Ok(0) | Err(_) => return None,
                Ok(read) => self.1.extend_from_slice(&buffer[..read]),
            }
        }
    }

    fn take_reply(&mut self) -> Option<Reply> {
        let end = self.1.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
        let head = String::from_utf8(self.1[..end].to_vec()).unwrap();
        let status = head[9..12].parse().unwrap();
        let mut reply = Reply { status, head, body: Vec::new() };
        let length: usize = reply.header("content-length").map_or(0, |text| text.parse().unwrap());
        if self.1.len() < end + length {
            return None;
        }
        reply.body = self.1[end..end + length].to_vec();
        self.1.drain(..end + length);
        Some(reply)
    }

    /// Whether the server has ended the connection without another answer.
    async fn ends(&mut self) -> bool {
        self.try_reply().await.is_none()
    }
}

impl Reply {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

fn post(path: &str, headers: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let length = body.len();
    let head = format!("POST {path} HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\n{headers}\r\n");
    [head.as_bytes(), body].concat()
}

fn sdk() -> String {
    format!("Authorization: {SDK_KEY}\r\nX-LaunchDarkly-Event-Schema: 4\r\n")
}

fn with_id(id: &str) -> String {
    format!("{}X-LaunchDarkly-Payload-ID: {id}\r\n", sdk())
}

const CUSTOM: &str = r#"[{"kind":"custom","creationDate":1760000000000,"key":"bought","context":{"kind":"user","key":"u1","plan":"pro"}}]"#;

const DIAGNOSTIC: &str = r#"{"kind":"diagnostic","creationDate":1760000000000,"id":{"diagnosticId":"d"},"dataSinceDate":1759999000000,"droppedEvents":3,"eventsInLastBatch":0}"#;
