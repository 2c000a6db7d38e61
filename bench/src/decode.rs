//! What decoding costs: nanoseconds a body and an event, for recorded bodies, beside rivals on the same bytes.
//!
//! `decode` is the whole way from bytes to log records, compressed; `no repeats` the same with every context changed in
//! each round, so that none is recognised from the round before; `simd-json tape` only parses, into the tape that
//! the columns would then have to be read from; `utf-8` only looks at each byte once.

use std::hint::black_box;
use std::time::{Duration, Instant};

use events::{Environment, Source};
use ingest::decode::{Decoder, Payload, Place};
use ingest::payload::PayloadHead;
use ingest::recent::RecentContexts;
use ingest::rows::OpenRows;
use runtime::{Entropy, UnixMicros};

/// A round is one body, or less.
const AT_ONCE: u64 = 64;

const BODIES: [&str; 5] = [
    "python-server-9.17.0/002.json",
    "python-server-9.17.0/003.json",
    "js-client-4.10.3/004.json",
    "node-server-6.4.3--inline-users/002.json",
    "rust-server-3.2.0/001.json",
];

/// What headers and path of a Python SDK's request say.
pub fn head() -> PayloadHead {
    let environment = Environment::new("default", "dev");
    PayloadHead {
        environment_hash: environment.hash(),
        environment,
        received_at: UnixMicros::from_millis(1_800_000_000_000),
        payload_id: Some("97f05140-2a4f-42bd-a4f2-fa1ce91e2bf2".into()),
        source: Source::Server,
        sdk: Some("PythonClient".into()),
        sdk_version: Some("9.17.0".into()),
        wrapper: None,
        instance_id: None,
        application_id: Some("checkout-web".into()),
        application_version: None,
        schema_version: Some(4),
        unsummarized: false,
        schema_header_present: true,
        trace: None,
        path: "/bulk".into(),
        headers: hyper::HeaderMap::new(),
    }
}

/// Nanoseconds that this thread has been on a core: other programs do not count. Linux only.
fn cpu_nanos() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells the time of a thread");
    text.split(' ').next().and_then(|nanos| nanos.parse().ok()).expect("the first number is the time on a core")
}

/// Nanoseconds of a round: the best of ten tenths of a second, as other programs also take caches. `at_once`: rounds between
/// two looks at the clock, enough of them for these to cost nothing.
pub fn measure(at_once: u64, mut round: impl FnMut(u64)) -> f64 {
    let (mut best, mut rounds) = (f64::MAX, 0);
    for _ in 0..10 {
        let (start, cpu_start, first) = (Instant::now(), cpu_nanos(), rounds);
        while start.elapsed() < Duration::from_millis(100) {
            for _ in 0..at_once {
                round(rounds);
                rounds += 1;
            }
        }
        best = best.min((cpu_nanos() - cpu_start) as f64 / (rounds - first) as f64);
    }
    best
}

fn decode_all(bodies: &[Vec<u8>]) -> f64 {
    let (head, mut decoder) = (head(), Decoder::new());
    let recent = RecentContexts::new(100_000, Duration::from_secs(60));
    let mut rows = OpenRows::new([1, 1, 1], Entropy::seeded(1));
    let place = Place { events_partition: 0, dead_letters_partition: 0 };
    measure(AT_ONCE, |round| {
        let body = &bodies[round as usize % bodies.len()];
        let payload = Payload { head: &head, body, place };
        decoder.decode(payload, &recent, &mut rows).expect("recorded bodies are readable");
        if rows.bytes() > 512 << 10 {
            black_box(rows.encode().expect("records of this size are allowed"));
            recent.acknowledge(&rows.take_sighted(), head.received_at);
            rows.clear();
        }
    })
}

/// Prints the costs of each body.
pub fn run() {
    println!("{:44} {:>7} {:>6}  ns/body (ns/event)", "body", "bytes", "events");
    for name in BODIES {
        let file = format!("{}/../tests/fixtures/sdk/{name}", env!("CARGO_MANIFEST_DIR"));
        let Ok(text) = std::fs::read(&file) else { continue };
        let request: serde_json::Value = serde_json::from_slice(&text).expect("fixtures are JSON");
        let body = request["body"].as_str().expect("an unpacked body").as_bytes().to_vec();
        let parsed: serde_json::Value = serde_json::from_slice(&body).expect("recorded bodies are JSON");
        let events = parsed.as_array().map_or(1, Vec::len);
        // Other keys of the same length: 1,024 payloads that have no context in common.
        let changed: Vec<Vec<u8>> = (0..1024)
            .map(|number| {
                let text = String::from_utf8_lossy(&body);
                text.replace("user-0", &format!("u{number:04}"))
                    .replace("org-ac", &format!("o{number:04}"))
                    .into_bytes()
            })
            .collect();

        let mut buffers = simd_json::Buffers::new(body.len());
        let mut copy = body.clone();
        let tape = measure(AT_ONCE, |_| {
            copy.copy_from_slice(&body);
            black_box(simd_json::to_tape_with_buffers(&mut copy, &mut buffers).is_ok());
        });
        let utf8 = measure(AT_ONCE, |_| {
            black_box(std::str::from_utf8(black_box(&body)).is_ok());
        });
        println!("{name:44} {:>7} {events:>6}", body.len());
        for (what, nanos) in [
            ("decode", decode_all(std::slice::from_ref(&body))),
            ("decode, no repeats", decode_all(&changed)),
            ("simd-json tape", tape),
            ("utf-8", utf8),
        ] {
            println!("    {what:40} {nanos:>14.0} ({:.0})", nanos / events as f64);
        }
    }
}
