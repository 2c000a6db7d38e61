//! The SDKs of a seed: what they send, how they repeat it, and what they were told.
//!
//! As real ones do: a payload whose answer is an error or does not come is sent again after a second under the same id;
//! some are sent again although they were acknowledged. The oracle compares what was told with what the log holds.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::{sleep, timeout};

use crate::ingests::Ingests;
use crate::world::World;

/// Repeats come within this time, which the de-duplication window exceeds.
const REPEATS_WITHIN: Duration = Duration::from_secs(8 * 60);
/// SDKs give up waiting for an answer after some seconds.
const PATIENCE: Duration = Duration::from_secs(10);

pub const ENVIRONMENTS: [&str; 2] = ["one", "two"];

/// Contexts that the payloads are about; few, so that their states change.
pub const CONTEXTS: u32 = 3;
/// States of a context; few, so that they come back.
const STATES: i64 = 3;

/// What one client has to send, and what it was told.
#[derive(Clone, Debug)]
pub struct Payload {
    pub number: usize,
    pub id: Option<String>,
    pub environment: &'static str,
    pub body: Bytes,
    /// Rows of the table that it becomes.
    pub rows: usize,
    /// Dead letters that it becomes.
    pub letters: usize,
    /// What an accepted one is answered.
    pub accepted: StatusCode,
    /// Contexts that its events tell of.
    pub sightings: Vec<Told>,
    pub attempts: usize,
    pub acknowledged: usize,
}

/// What one event says of a context.
#[derive(Clone, Debug)]
pub struct Told {
    pub user: u32,
    pub state: i64,
    /// Milliseconds.
    pub at: i64,
}

impl Payload {
    pub fn marker(&self) -> String {
        format!("payload-{}", self.number)
    }

    /// Draws the payload `number` of the seed.
    fn of(number: usize, world: &World) -> Self {
        let id = world.happens(0.85).then(|| format!("id-{number}"));
        let environment = ENVIRONMENTS[world.among(0..ENVIRONMENTS.len())];
        let mut payload = Self {
            number,
            id,
            environment,
            body: Bytes::new(),
            rows: 0,
            letters: 0,
            accepted: StatusCode::ACCEPTED,
            sightings: Vec::new(),
            attempts: 0,
            acknowledged: 0,
        };
        match world.among(0..12) {
            // Not JSON to its end: kept as one dead letter.
            0 => {
                payload.body = format!("[{{\"kind\":\"custom\",\"key\":\"{}\"", payload.marker()).into();
                (payload.letters, payload.accepted) = (1, StatusCode::BAD_REQUEST);
            }
            // Larger than a body may be.
            1 if world.happens(0.3) => {
                payload.body = format!("[\"{}\"]", "x".repeat(20 << 10)).into();
                (payload.letters, payload.accepted) = (1, StatusCode::BAD_REQUEST);
            }
            kind => {
                let mut events = vec![payload.custom(&payload.marker(), world)];
                for _ in 0..world.among(0..3) {
                    events.push(payload.custom("other", world));
                }
                if kind < 4 {
                    events.push(json!({"kind": "summary", "startDate": 1, "endDate": 2, "features":
                        {"flag": {"default": 0, "contextKinds": ["user"], "counters": [{"value": 1, "variation": 0, "version": 1, "count": 3}]}}}));
                }
                payload.rows = events.len();
                if kind == 4 {
                    events.push(json!(17));
                    payload.letters = 1;
                }
                payload.body = serde_json::Value::from(events).to_string().into();
            }
        }
        payload
    }

    fn custom(&mut self, key: &str, world: &World) -> serde_json::Value {
        let at = world.clock.now().as_millis();
        let told = Told { user: world.among(0..CONTEXTS), state: world.among(0..STATES), at };
        let context = json!({"kind": "user", "key": format!("user-{}", told.user), "state": told.state});
        self.sightings.push(told);
        json!({"kind": "custom", "creationDate": at, "key": key, "context": context})
    }

    fn request(&self) -> Request<Full<Bytes>> {
        let mut request = Request::post("/bulk")
            .header("authorization", format!("sdk-{}", self.environment))
            .header("x-launchdarkly-event-schema", "4");
        if let Some(id) = &self.id {
            request = request.header("x-launchdarkly-payload-id", id);
        }
        request.body(Full::new(self.body.clone())).expect("the head of the request is valid")
    }
}

/// Sends all payloads of the seed, each at its time, and returns what became of them.
pub async fn send_all(world: &Arc<World>, ingests: &Arc<Ingests>) -> Vec<Payload> {
    let sent = Arc::new(Mutex::new(Vec::new()));
    let mut clients = Vec::new();
    for number in 0..world.plan.payloads {
        let at = world.plan.load.mul_f64(world.among(0.0..1.0));
        // Bursts share batches.
        let at = if world.happens(0.4) { Duration::from_secs(at.as_secs() / 10 * 10) } else { at };
        let (world, ingests, sent) = (Arc::clone(world), Arc::clone(ingests), Arc::clone(&sent));
        clients.push(tokio::spawn(async move {
            sleep(at).await;
            let mut payload = Payload::of(number, &world);
            deliver(&mut payload, &world, &ingests).await;
            sent.lock().push(payload);
        }));
    }
    for client in clients {
        client.await.expect("clients do not panic");
    }
    let mut sent = std::mem::take(&mut *sent.lock());
    sent.sort_by_key(|payload| payload.number);
    sent
}

/// Sends until told that it was accepted, or tired of it; then perhaps again.
async fn deliver(payload: &mut Payload, world: &World, ingests: &Ingests) {
    let begun = world.clock.now();
    let mut attempts_left = world.among(1..=4);
    loop {
        attempts_left -= 1;
        if attempt(payload, world, ingests).await {
            if payload.id.is_none() || !world.happens(0.3) {
                return;
            }
            sleep(world.millis(0..REPEATS_WITHIN.as_millis() as u64 / 2)).await;
        } else {
            sleep(Duration::from_secs(1)).await;
        }
        if attempts_left == 0 || world.clock.now().since(begun) > REPEATS_WITHIN {
            return;
        }
    }
}

/// Whether the client knows that its payload was accepted.
async fn attempt(payload: &mut Payload, world: &World, ingests: &Ingests) -> bool {
    world.travel().await;
    let Some((ingest, node)) = ingests.any() else { return false };
    payload.attempts += 1;
    let callers = if world.happens(0.5) { 100 } else { 1 };
    let asked = async { node.live(ingest.answer_directly(payload.request(), callers)).await.flatten() };
    let answered = timeout(PATIENCE, asked).await.ok().flatten().map(|response| response.status());
    world.note(format_args!("{} answers payload {} {answered:?}", node.name, payload.number));
    ingests.check_memory();
    world.travel().await;
    let Some(status) = answered else { return false };
    if !world.is_calm() && world.happens(world.plan.rates.answers) {
        // What was promised counts, whether or not the client heard it.
        payload.acknowledged += usize::from(status == payload.accepted);
        return false;
    }
    match status {
        status if status == payload.accepted => {
            payload.acknowledged += 1;
            true
        }
        StatusCode::SERVICE_UNAVAILABLE => false,
        status => {
            world.violated(format!("payload {} was answered {status}", payload.number));
            false
        }
    }
}
