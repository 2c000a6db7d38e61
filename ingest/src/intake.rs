//! The walk of one request, from its head to its answer.
//!
//! In: a request whose path is one of ours. Out: the answer of event protocol, section 9.2, when it is true: 202 only
//! once the log has everything. The steps are in [`Ingest::take`]; each lives in a file of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use eventlog::{LogWriter, TraceParent, WriterHealth};
use events::{DeadLetterReason, EnvironmentConfig, Source, Topic};
use http::header::EXPECT;
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::Full;
use runtime::{Clock, Runtime, UnixMicros};
use tokio::time::Instant;

use crate::admission::{Held, Room};
use crate::answer::{Answer, OwnResponse, content};
use crate::batcher::{Batcher, UnpackedPayload};
use crate::body::{self, BodyLimits, Encoding, Unpackable, Unread};
use crate::cors::Cors;
use crate::credentials::{Access, ApiToken, Credentials, KnownEnvironment};
use crate::lane::Content;
use crate::metrics::{Metrics, Status};
use crate::pace::Pace;
use crate::payload::PayloadHead;
use crate::pixel;
use crate::repeats::{Claim, Entry, Repeats, Verdict};
use crate::routes::{Endpoint, Route, Verb};
use crate::{Config, Error, Result};

/// The endpoint: takes payloads and puts them into the log.
pub struct Ingest {
    pub(crate) config: Config,
    pub(crate) clock: Clock,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) batcher: Batcher,
    /// Requests that the open connections could bring at once; kept by the server.
    pub(crate) callers: Arc<AtomicUsize>,
    /// Open connections; kept by the server.
    pub(crate) connections: AtomicUsize,
    credentials: Credentials,
    allowed_origins: Vec<HeaderValue>,
    limits: BodyLimits,
    room: Room,
    pub(crate) pace: Pace,
    repeats: Arc<Repeats>,
    log: Arc<dyn LogWriter>,
    draining: AtomicBool,
}

/// What the head of a request says, with nothing borrowed from it.
pub(crate) struct Visit {
    endpoint: Endpoint,
    verb: Verb,
    access: Access,
    cors: Option<Cors>,
    begun: Instant,
}

impl Ingest {
    /// An endpoint with its list of keys loaded.
    ///
    /// # Errors
    /// `Config` with everything that is wrong; `SharedKey`.
    pub fn new(
        config: Config,
        environments: &[EnvironmentConfig],
        api_tokens: &[ApiToken],
        log: Arc<dyn LogWriter>,
        runtime: Runtime,
    ) -> Result<Self> {
        let ingest = Self::without_keys(config, log, runtime)?;
        ingest.load_keys(environments, api_tokens)?;
        Ok(ingest)
    }

    /// An endpoint that answers 503 until [`Ingest::load_keys`].
    ///
    /// # Errors
    /// `Config` with everything that is wrong.
    pub fn without_keys(config: Config, log: Arc<dyn LogWriter>, runtime: Runtime) -> Result<Self> {
        let mut problems = config.problems();
        let origins = config.allowed_origins.iter().map(|origin| {
            HeaderValue::from_str(origin).map_err(|_| format!("ingest.allowed_origins: {origin:?} is no origin"))
        });
        let (allowed_origins, bad): (Vec<_>, Vec<_>) = origins.partition(std::result::Result::is_ok);
        problems.extend(bad.into_iter().filter_map(std::result::Result::err));
        if !problems.is_empty() {
            return Err(Error::Config { problems });
        }
        let metrics = Arc::new(Metrics::new(&runtime.telemetry));
        let room = Room::new(config.bytes_in_flight_max.as_usize());
        let callers = Arc::<AtomicUsize>::default();
        let batcher = Batcher::new(&config, log.clone(), &runtime, metrics.clone(), room.clone(), callers.clone());
        let repeats = Repeats::new(config.dedup_window.get(), config.dedup_payloads_max, runtime.entropy.next_u64());
        let limits = BodyLimits {
            bytes_max: config.body_bytes_max.as_usize(),
            silence_max: config.body_timeout.get(),
            hold_max: config.hold_max.get(),
        };
        Ok(Self {
            pace: Pace::new(runtime.clock.instant()),
            clock: runtime.clock,
            metrics,
            batcher,
            callers,
            connections: AtomicUsize::new(0),
            credentials: Credentials::default(),
            allowed_origins: allowed_origins.into_iter().flatten().collect(),
            limits,
            room,
            repeats: Arc::new(repeats),
            log,
            draining: AtomicBool::new(false),
            config,
        })
    }

    /// Replaces the list of keys, at any time. On an error the list in force stays.
    ///
    /// # Errors
    /// `SharedKey` (kind `Reject`).
    pub fn load_keys(&self, environments: &[EnvironmentConfig], api_tokens: &[ApiToken]) -> Result<()> {
        self.credentials.load(environments, api_tokens, self.log.partitions(Topic::Events))
    }

    /// Forgets the list of keys, because it is stale and its source cannot be reached: events are answered 503, never
    /// 401, until a list is loaded again.
    pub fn unload_keys(&self) {
        self.credentials.unload();
    }

    /// Whether a request with good credentials would be answered 202 now.
    ///
    /// # Errors
    /// The reason why not.
    pub fn ready(&self) -> std::result::Result<(), String> {
        if self.draining.load(Ordering::Relaxed) {
            return Err("shutting down".into());
        }
        if !self.credentials.are_loaded() {
            return Err("the list of keys is not loaded".into());
        }
        if let WriterHealth::Unavailable(why) = self.log.health() {
            return Err(format!("the log takes nothing: {why}"));
        }
        let (used, max) = (self.room.used(), self.room.max());
        if used >= max { Err(format!("{used} of {max} bytes are in flight")) } else { Ok(()) }
    }

    /// Counters for the pipeline page.
    pub fn status(&self) -> Status {
        self.update_gauges();
        self.metrics.status()
    }

    /// Time after which a payload whose sender does not stop in the middle is in the log or never will be.
    pub fn in_flight_max(&self) -> Duration {
        // It may be held for room, for its turn and for the log.
        self.config.body_timeout.get() + self.config.hold_max.get() * 3 + self.config.append_timeout.get()
    }

    /// Nothing that was received up to `time` leaves a later sighting of a context out: it may be erased from the index.
    pub fn distrust_sightings(&self, time: UnixMicros) {
        self.batcher.trust_sightings_from(time.saturating_add(self.in_flight_max()));
    }

    pub(crate) fn update_gauges(&self) {
        self.metrics.bytes_in_flight.set(self.room.used() as i64);
        self.metrics.connections.set(self.connections.load(Ordering::Relaxed) as i64);
    }

    pub(crate) fn begin_drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
    }

    /// Answers a request that came without a connection of ours; None if its path belongs to somebody else. For
    /// simulation, which has no sockets. `callers`: how many requests could come at once, as [`Ingest::serve`] counts them
    /// from the open connections.
    pub async fn answer_directly<B>(&self, request: Request<B>, callers: usize) -> Option<Response<Full<Bytes>>>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        self.callers.store(callers, Ordering::Relaxed);
        let visit = self.receive(&request)?;
        Some(self.answer(visit, request).await)
    }

    /// Looks at the head of a request; None if its path belongs to somebody else.
    pub(crate) fn receive<B>(&self, request: &Request<B>) -> Option<Visit> {
        let route = Route::find(self.config.prefix(), request.uri().path())?;
        let headers = request.headers();
        let cors = route.is_for_browsers().then(|| Cors::of(headers, &self.allowed_origins, route.methods()));
        let verb = route.verb(request.method());
        let access = match verb {
            Verb::Take => self.credentials.find(route.owner, headers),
            Verb::Preflight | Verb::NotAllowed(_) => Access::NotLoaded,
        };
        Some(Visit { endpoint: route.endpoint, verb, access, cors, begun: self.clock.instant() })
    }

    /// Answers a request that [`Ingest::receive`] took.
    pub(crate) async fn answer<B>(&self, visit: Visit, request: Request<B>) -> OwnResponse
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let Visit { endpoint, verb, access, cors, begun } = visit;
        let (parts, body) = request.into_parts();
        let mut trace = Trace { endpoint, begun, environment: None, parent: None, bytes: 0, events: 0 };
        if let Access::Granted(known) = &access {
            trace.environment = Some(known.clone());
        }
        let mut response = match (verb, endpoint) {
            (Verb::Preflight, _) => Answer::NO_CONTENT.into_response(),
            (Verb::NotAllowed(allow), _) => {
                refuse(&parts, body, Answer::method_not_allowed(allow)).await.into_response()
            }
            (Verb::Take, Endpoint::Pixel) => {
                self.take_pixel(access, parts, &mut trace).await;
                pixel::image()
            }
            (Verb::Take, Endpoint::Goals) => goals(&access),
            (Verb::Take, Endpoint::Events(source)) => {
                self.take(source, access, parts, body, &mut trace).await.into_response()
            }
            (Verb::Take, Endpoint::Diagnostic(source)) => {
                self.take_diagnostic(source, access, parts, body, &mut trace).await.into_response()
            }
        };
        if let Some(cors) = cors {
            cors.add_to(response.headers_mut());
        }
        self.metrics.count_answer(response.status());
        trace.write(response.status());
        response
    }

    /// A diagnostic is accepted whatever its body: a 4xx would end the event sending of some SDKs.
    async fn take_diagnostic<B>(
        &self,
        source: Source,
        access: Access,
        parts: Parts,
        body: B,
        trace: &mut Trace,
    ) -> Answer
    where
        B: Body<Data = Bytes> + Unpin,
    {
        if matches!(access, Access::NotLoaded) {
            return refuse(&parts, body, Answer::ACCEPTED).await;
        }
        let answer = self.take(source, access, parts, body, trace).await;
        match answer.status {
            StatusCode::BAD_REQUEST | StatusCode::REQUEST_TIMEOUT => Answer::ACCEPTED,
            _ => answer,
        }
    }

    /// Credential, rate, body, repeat, unpacking, batch: in this order, and the first that objects answers.
    async fn take<B>(&self, source: Source, access: Access, parts: Parts, body: B, trace: &mut Trace) -> Answer
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let environment = match access {
            Access::Granted(environment) => environment,
            Access::NotLoaded => return refuse(&parts, body, Answer::KEYS_NOT_LOADED).await,
            Access::UnknownKey => return refuse(&parts, body, Answer::UNKNOWN_KEY).await,
            Access::ReaderOnly => return refuse(&parts, body, Answer::READER_TOKEN).await,
            Access::UnknownEnvironment => return refuse(&parts, body, Answer::UNKNOWN_ENVIRONMENT).await,
        };
        let received_at = self.clock.now();
        if !environment.rate.admits(self.config.environment_requests_per_second, received_at) {
            return refuse(&parts, body, Answer::OVER_RATE).await;
        }
        let mut held = self.room.hold();
        let read = body::read(body, self.limits, &mut held).await;
        let encoding = Encoding::of(&parts.headers);
        let path = parts.uri.path();
        let head = PayloadHead::new(
            environment.environment.clone(),
            environment.hash,
            received_at,
            source,
            path,
            parts.headers,
        );
        trace.parent = head.trace;
        let received = match read {
            Ok(packed) if packed.is_empty() => {
                self.metrics.empty_bodies.inc();
                return Answer::ACCEPTED;
            }
            Ok(packed) => Ok(packed),
            Err(Unread::TooLarge(kept)) => Err(kept),
            Err(Unread::TimedOut) => return Answer::BODY_TIMED_OUT,
            Err(Unread::Broken) => return Answer::BODY_BROKEN,
            Err(Unread::NoRoom) => return Answer::NO_ROOM,
        };
        trace.bytes = received.as_ref().unwrap_or_else(|kept| kept).len();
        self.metrics.bytes.inc_by(trace.bytes as u64);
        let claim = match head.payload_id.as_deref().map(|id| self.repeats.enter(environment.hash, id)) {
            None => None,
            Some(Entry::New(claim)) => Some(claim),
            Some(Entry::Known(verdict)) => return self.answer_repeat(verdict),
            Some(Entry::Waiting(verdict)) => {
                drop((received, held));
                return self.answer_repeat(verdict.await.unwrap_or(Verdict::Failed));
            }
        };
        let content = match received {
            Ok(packed) => match self.unpack(&encoding, packed, &mut held).await {
                Ok(Content::Body(body)) if body.is_empty() => {
                    self.metrics.empty_bodies.inc();
                    return settled(claim, &Verdict::Stored, Answer::ACCEPTED);
                }
                Ok(content) => content,
                Err(answer) => return answer,
            },
            Err(kept) => {
                let message = format!("the body is larger than {} bytes", self.limits.bytes_max);
                Content::Unreadable { reason: DeadLetterReason::TooLarge, message, body: kept }
            }
        };
        self.store(UnpackedPayload { head, environment, content, claim, held }, trace).await
    }

    async fn unpack(
        &self,
        encoding: &Encoding,
        packed: Bytes,
        held: &mut Held,
    ) -> std::result::Result<Content, Answer> {
        match body::unpack(encoding, &packed, self.limits, held).await {
            Ok(body) => {
                drop(packed);
                held.shrink_to(body.len());
                self.metrics.unpacked_bytes.inc_by(body.len() as u64);
                Ok(Content::Body(body))
            }
            Err(Unpackable::Refused { reason, message }) => {
                held.shrink_to(packed.len());
                Ok(Content::Unreadable { reason, message, body: packed })
            }
            Err(Unpackable::NoRoom) => Err(Answer::NO_ROOM),
        }
    }

    /// Joins a batch and waits until the log has it.
    async fn store(&self, payload: UnpackedPayload, trace: &mut Trace) -> Answer {
        let Ok(seat) = self.pace.seat(self.limits.hold_max).await else { return Answer::NO_ROOM };
        let answer = self.store_seated(payload, trace).await;
        seat.answered();
        answer
    }

    async fn store_seated(&self, payload: UnpackedPayload, trace: &mut Trace) -> Answer {
        let Ok(joined) = self.batcher.join(payload).await else { return Answer::NO_ROOM };
        trace.events = joined.events;
        match joined.ticket {
            None => joined.answer,
            Some(ticket) => {
                if ticket.await {
                    joined.answer
                } else {
                    Answer::LOG_UNAVAILABLE
                }
            }
        }
    }

    fn answer_repeat(&self, verdict: Verdict) -> Answer {
        match verdict {
            Verdict::Stored => {
                self.metrics.deduplicated_payloads.inc();
                Answer::ACCEPTED
            }
            Verdict::Refused(answer) => {
                self.metrics.deduplicated_payloads.inc();
                Answer::clone(&answer)
            }
            Verdict::Failed => Answer::LOG_UNAVAILABLE,
        }
    }

    /// Stores what a pixel carries; whatever happens, its answer is the image.
    async fn take_pixel(&self, access: Access, parts: Parts, trace: &mut Trace) {
        let Access::Granted(environment) = access else { return };
        let Some(parameter) = parts.uri.query().and_then(pixel::parameter) else { return };
        let received_at = self.clock.now();
        let mut held = self.room.hold();
        if !environment.rate.admits(self.config.environment_requests_per_second, received_at)
            || held.grow(parameter.len(), self.limits.hold_max).await.is_err()
        {
            return;
        }
        trace.bytes = parameter.len();
        self.metrics.bytes.inc_by(trace.bytes as u64);
        let content = match pixel::decode(&parameter) {
            Ok(body) if body.is_empty() => return,
            Ok(body) => Content::Body(body.into()),
            Err(message) => Content::Unreadable {
                reason: DeadLetterReason::BadEncoding,
                message,
                body: Bytes::copy_from_slice(parameter.as_bytes()),
            },
        };
        let (known, path) = (environment.environment.clone(), parts.uri.path());
        let mut head = PayloadHead::new(known, environment.hash, received_at, Source::Pixel, path, parts.headers);
        // A page cannot set headers on an image: what looks like one of ours was put there by something else.
        head.payload_id = None;
        self.store(UnpackedPayload { head, environment, content, claim: None, held }, trace).await;
    }
}

/// Answers without looking at the body, but reads it first, so that the client does not see its connection break.
/// A client that waits to be asked for its body is not asked.
async fn refuse<B>(parts: &Parts, body: B, answer: Answer) -> Answer
where
    B: Body<Data = Bytes> + Unpin,
{
    if !parts.headers.contains_key(EXPECT) {
        body::discard(body).await;
    }
    answer
}

fn settled(claim: Option<Claim>, verdict: &Verdict, answer: Answer) -> Answer {
    if let Some(claim) = claim {
        claim.settle(verdict);
    }
    answer
}

/// There are no goals; a 404 would only be logged by the SDK.
fn goals(access: &Access) -> OwnResponse {
    match access {
        Access::Granted(_) => content("application/json", b"[]"),
        Access::NotLoaded => Answer::KEYS_NOT_LOADED.into_response(),
        _ => Answer::UNKNOWN_ENVIRONMENT.into_response(),
    }
}

/// What the line of a request tells.
struct Trace {
    endpoint: Endpoint,
    begun: Instant,
    environment: Option<Arc<KnownEnvironment>>,
    parent: Option<TraceParent>,
    bytes: usize,
    events: u64,
}

impl Trace {
    /// One line per request under the target `tidegate::request`, at level debug: off unless asked for.
    fn write(&self, status: StatusCode) {
        tracing::debug!(
            target: "tidegate::request",
            endpoint = ?self.endpoint,
            environment = self.environment.as_ref().map(|known| tracing::field::display(&known.environment)),
            status = status.as_u16(),
            bytes = self.bytes,
            events = self.events,
            took_us = self.begun.elapsed().as_micros() as u64,
            trace = self.parent.map(tracing::field::display),
            "request"
        );
    }
}
