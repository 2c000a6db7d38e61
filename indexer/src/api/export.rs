//! Export of all contexts that match: streamed as a whole, or in parts that can be asked for again.
//!
//! In: filter, columns, format, in the query or in the body. Out: rows as they are read. With `limit` the answer is a part:
//! the token of the next one is in a header, known before the first row leaves, so that a client whose connection broke
//! asks for that part again. Without, all matches are one answer.
//! Promise: an answer that ends well is whole; one that fails half-way ends as a broken connection, never as a short file. A
//! client that stops reading is given up after a minute, as a place among the few exports is held for it.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use events::Environment;
use futures::{Stream, stream};
use http::header::{self, HeaderName, HeaderValue};
use runtime::Clock;
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::answers::{Answer, Problem};
use super::asker::{Asker, Rows};
use super::params::{binding_of, fields_of, keys_of, limit_of, text_of, unique_params};
use super::{Api, Call};
use crate::export::WINDOW_ROWS;
use crate::export::columns::{self, Column};
use crate::export::rows::{Format, RowError, RowWriter};
use crate::filter::{Filter, Subject};
use crate::page::{Place, Sort};
use crate::search::SearchRequest;
use crate::token::{self, Binding};

/// Exports that run at once; each has a thread.
const EXPORTS_MAX: usize = 2;
/// Rows of one part.
const PART_ROWS_MAX: usize = 100_000;
/// Bytes that are sent together, and how many such chunks wait for the client.
const CHUNK_BYTES: usize = 64 << 10;
const CHUNKS_WAITING: usize = 4;
/// How long a client may take for a chunk.
const STALL_MAX: Duration = Duration::from_secs(60);
const KNOWN: [&str; 5] = ["filter", "columns", "format", "limit", "continuationToken"];
const NEXT: HeaderName = HeaderName::from_static("x-tidegate-continuation-token");
const ROWS: HeaderName = HeaderName::from_static("x-tidegate-row-count");
const TOTAL: HeaderName = HeaderName::from_static("x-tidegate-total-count");

/// Places for exports.
pub(super) struct Exports(Arc<Semaphore>);

impl Default for Exports {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(EXPORTS_MAX)))
    }
}

impl Api {
    pub(super) async fn export(&self, call: &Call<'_>, body: &[u8]) -> Result<Answer, Problem> {
        let wanted = Wanted::parse(call, body)?;
        let place = Arc::clone(&self.exports.0)
            .try_acquire_owned()
            .map_err(|_| Problem::unavailable("as many exports as may run at once are under way, try again later"))?;
        let (chunks, received) = mpsc::channel(CHUNKS_WAITING);
        let (told, head) = oneshot::channel();
        let format = wanted.format;
        let task = Task {
            asker: Asker { source: self.source.clone(), lacks: Arc::clone(call.lacks) },
            environment: call.environment.clone(),
            wanted,
            chunks,
            runtime: Handle::current(),
            _place: place,
        };
        tokio::task::spawn_blocking(move || task.run(told));
        let head = head.await.map_err(|_| Problem::internal("an export panicked".into()))??;
        Ok(Answer { response: response(format, &head, Body::from_stream(rows(received))), is_partial: false })
    }
}

/// Bytes of rows, or None after the last: whoever does not see that knows that some are missing.
type Chunk = Option<Bytes>;

fn rows(received: mpsc::Receiver<Chunk>) -> impl Stream<Item = io::Result<Bytes>> + Send {
    stream::unfold(Some(received), |received| async move {
        let mut received = received?;
        match received.recv().await {
            Some(Some(chunk)) => Some((Ok(chunk), Some(received))),
            Some(None) => None,
            None => Some((Err(io::Error::other("the export failed half-way")), None)),
        }
    })
}

fn response(format: Format, head: &Head, rows: Body) -> Response {
    let mut response = Response::new(rows);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::CONTENT_DISPOSITION, HeaderValue::from_static(format.disposition()));
    if let Some(rows) = head.rows {
        headers.insert(ROWS, HeaderValue::from(rows));
    }
    if let Some(total) = head.total {
        headers.insert(TOTAL, HeaderValue::from(total));
    }
    if let Some(next) = head.next.as_deref().and_then(|token| HeaderValue::from_str(token).ok()) {
        headers.insert(NEXT, next);
    }
    response
}

/// A checked question.
struct Wanted {
    filter: Filter,
    columns: Vec<Column>,
    format: Format,
    /// Rows of the part; None: all.
    part: Option<usize>,
    after: Option<Place>,
    binding: Binding,
}

impl Wanted {
    fn parse(call: &Call<'_>, body: &[u8]) -> Result<Self, Problem> {
        let (params, keys) = given(call.query, body)?;
        let text = |name: &str| params.get(name).and_then(Value::as_str);
        let filter_text = text("filter").unwrap_or_default().trim();
        let id = call.environment.id();
        let keys = keys.as_deref();
        let binding = Binding::new(&[id.as_str(), filter_text, "export", &binding_of(keys)]);
        let filter = Filter::parse(filter_text, Subject::Contexts)?;
        let format = text("format").unwrap_or("ndjson");
        let names = params.get("columns").map(names_of).transpose()?.unwrap_or_default();
        Ok(Self {
            filter: keys.map_or(filter.clone(), |keys| filter.with_keys(keys.to_vec())),
            columns: columns::parse(&names).map_err(|error| Problem::invalid(format!("columns: {error}")))?,
            format: Format::from_name(format)
                .ok_or_else(|| Problem::invalid("format: expected csv, ndjson or parquet"))?,
            part: text("limit").map(|limit| limit_of("limit", Some(limit), 0, PART_ROWS_MAX)).transpose()?,
            after: text("continuationToken").map(|text| token::read(text, binding)).transpose()?,
            binding,
        })
    }
}

/// Parameters by their names.
type Given = HashMap<&'static str, Value>;

/// The parameters, from the query or from the body, and the keys that a body may have beside either. All are texts, but for
/// a list of columns.
fn given(query: &str, body: &[u8]) -> Result<(Given, Option<Vec<Value>>), Problem> {
    let in_query: Given = unique_params(query, &KNOWN)?.into_iter().map(|(name, text)| (name, text.into())).collect();
    if body.trim_ascii().is_empty() {
        return Ok((in_query, None));
    }
    let fields = fields_of(body)?;
    let mut params = HashMap::new();
    for name in KNOWN {
        let value = match (name, fields.get(name)) {
            ("columns", Some(list @ Value::Array(_))) => Some(list.clone()),
            ("columns", Some(Value::Null) | None) => None,
            ("columns", Some(_)) => return Err(Problem::invalid("columns: expected a list of texts")),
            _ => text_of(&fields, name)?.map(Value::from),
        };
        params.extend(value.map(|value| (name, value)));
    }
    if !in_query.is_empty() && !params.is_empty() {
        return Err(Problem::invalid("parameters of an export go into the query or into the body, not into both"));
    }
    Ok((if params.is_empty() { in_query } else { params }, keys_of(&fields)?))
}

/// Names of columns: a list, or in a query text joined by commas, where a list in JSON holds names with commas.
fn names_of(value: &Value) -> Result<Vec<String>, Problem> {
    let refused = || Problem::invalid("columns: expected a list of texts");
    let list = match value {
        Value::String(text) if text.trim_start().starts_with('[') => {
            return serde_json::from_str(text).map_err(|_| refused());
        }
        Value::String(text) => return Ok(text.split(',').map(|name| name.trim().to_owned()).collect()),
        Value::Array(list) => list,
        _ => return Err(refused()),
    };
    list.iter().map(|name| name.as_str().map(str::to_owned).ok_or_else(refused)).collect()
}

/// What is known before the first row.
struct Head {
    /// Of this part.
    rows: Option<usize>,
    total: Option<u64>,
    next: Option<String>,
}

/// An export under way, on a thread that may block.
struct Task {
    asker: Asker,
    environment: Environment,
    wanted: Wanted,
    chunks: mpsc::Sender<Chunk>,
    runtime: Handle,
    _place: OwnedSemaphorePermit,
}

impl Task {
    /// The question for the window after a place.
    fn request(&self, after: Option<Place>) -> SearchRequest {
        SearchRequest {
            environment: self.environment.clone(),
            filter: self.wanted.filter.clone(),
            sort: Sort::KindKey,
            limit: self.wanted.part.unwrap_or(WINDOW_ROWS),
            after,
        }
    }

    fn run(self, told: oneshot::Sender<Result<Head, Problem>>) {
        let request = self.request(self.wanted.after.clone());
        let rows = match self.asker.rows(&request, true, self.wanted.part.is_some()) {
            Ok(rows) => rows,
            Err(error) => {
                // The client may have gone: nobody is left to tell.
                let _ = told.send(Err(error.into()));
                return;
            }
        };
        let next = self.wanted.part.and(rows.next()).map(|place| token::write(place, self.wanted.binding));
        if told.send(Ok(Head { rows: self.wanted.part.map(|_| rows.len()), total: rows.total(), next })).is_err() {
            return;
        }
        if let Err(error) = self.write_all(rows) {
            match &error {
                RowError::Sink(error) => tracing::debug!(%error, "an export was given up"),
                error => tracing::error!(%error, "an export failed half-way"),
            }
        }
    }

    fn write_all(&self, first: Rows<'_>) -> Result<(), RowError> {
        let clock = self.asker.source.runtime().clock.clone();
        let sink = ChunkSink::new(self.chunks.clone(), self.runtime.clone(), clock);
        let is_first = self.wanted.after.is_none();
        let mut rows = RowWriter::new(self.wanted.format, self.wanted.columns.clone(), sink, is_first)?;
        first.for_each(|found| rows.write(&found))?;
        let mut next = first.next().cloned();
        drop(first);
        while self.wanted.part.is_none() && next.is_some() {
            let request = self.request(next);
            let window = self.asker.rows(&request, false, false)?;
            window.for_each(|found| rows.write(&found))?;
            next = window.next().cloned();
        }
        Ok(rows.finish()?.end()?)
    }
}

/// Gathers bytes into chunks and waits for the client to take them.
struct ChunkSink {
    buffer: Vec<u8>,
    chunks: mpsc::Sender<Chunk>,
    runtime: Handle,
    clock: Clock,
}

impl ChunkSink {
    fn new(chunks: mpsc::Sender<Chunk>, runtime: Handle, clock: Clock) -> Self {
        Self { buffer: Vec::with_capacity(CHUNK_BYTES), chunks, runtime, clock }
    }

    fn send_buffer(&mut self) -> io::Result<()> {
        let chunk = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK_BYTES));
        self.send(Some(chunk.into()))
    }

    fn send(&self, chunk: Chunk) -> io::Result<()> {
        self.runtime.block_on(async {
            // A client that has made room at the very last moment has read.
            tokio::select! {
                biased;
                sent = self.chunks.send(chunk) => {
                    sent.map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the client has gone"))
                }
                () = self.clock.wait(STALL_MAX) => {
                    Err(io::Error::new(io::ErrorKind::TimedOut, "the client has read nothing for a minute"))
                }
            }
        })
    }

    fn end(mut self) -> io::Result<()> {
        if !self.buffer.is_empty() {
            self.send_buffer()?;
        }
        self.send(None)
    }
}

impl io::Write for ChunkSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK_BYTES {
            self.send_buffer()?;
        }
        Ok(bytes.len())
    }

    /// Chunks go when they are full; the last one goes with [`Self::end`].
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use futures::StreamExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn clients_that_read_nothing_are_given_up() {
        let (chunks, received) = mpsc::channel(CHUNKS_WAITING);
        let mut sink = ChunkSink::new(chunks, Handle::current(), Clock::system());
        let writing = std::thread::spawn(move || {
            let mut taken = 0;
            let error = loop {
                match sink.write_all(&[b'x'; CHUNK_BYTES]) {
                    Ok(()) => taken += 1,
                    Err(error) => break error,
                }
            };
            (taken, error.kind())
        });
        while !writing.is_finished() {
            tokio::time::advance(STALL_MAX).await;
            tokio::task::yield_now().await;
        }
        assert_eq!(writing.join().unwrap(), (CHUNKS_WAITING, io::ErrorKind::TimedOut));
        let read: Vec<_> = rows(received).collect().await;
        assert_eq!(read.len(), CHUNKS_WAITING + 1);
        assert!(read.last().unwrap().is_err(), "what is short must not end well");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn whole_answers_end_well() {
        let (chunks, received) = mpsc::channel(CHUNKS_WAITING);
        let mut sink = ChunkSink::new(chunks, Handle::current(), Clock::system());
        let writing = std::thread::spawn(move || {
            sink.write_all(b"one").unwrap();
            sink.write_all(b"two").unwrap();
            sink.end().unwrap();
        });
        let read: Vec<_> = rows(received).map(Result::unwrap).collect().await;
        writing.join().unwrap();
        assert_eq!(read, [Bytes::from_static(b"onetwo")]);
    }

    #[test]
    fn columns_of_a_query_may_hold_commas_in_a_list() {
        let names = |text: &str| names_of(&text.into()).unwrap();
        assert_eq!(names("key, plan"), ["key", "plan"]);
        assert_eq!(names(r#"["a,b","c"]"#), ["a,b", "c"]);
        assert!(names_of(&"[1]".into()).is_err() && names_of(&serde_json::json!([1])).is_err());
    }
}
