//! A micro-batch in the log, as frames and as raw JSON: its bytes, and core-time of those who write and read it.
//!
//! `frames` is what ingest appends: a record of the topic `events` for the compactor and one of `contexts` for the indexer.
//! `JSON` is one record for both: the bodies as they came, each behind what frames too keep of its request's head, under zstd of
//! the same level. Ingest then packs bodies that nobody has read, and compactor and indexer both decode them as ingest does now.
//!
//! Each payload has contexts, times and an id of its own, and each of its contexts is reported to the index, as `tidegate ingest`
//! does. All else repeats when a body does: within a batch of many payloads, "one summary" and "python flush" are the same
//! text again and again, which no stream of many clients is; of "all recorded", no body is met twice in 64 payloads.
//! In favour of JSON: reading it ends with open columns, reading frames with Arrow arrays.

use std::hint::black_box;
use std::time::Duration;

use clap::Args;
use eventlog::AppendRecord;
use eventlog::frame::{self, ZSTD_LEVEL};
use events::Topic;
use ingest::decode::{Decoder, Payload, Place};
use ingest::payload::PayloadHead;
use ingest::recent::RecentContexts;
use ingest::rows::OpenRows;
use runtime::{Entropy, UnixMicros};

use crate::bodies::{self, Body};
use crate::decode::{head, measure};

/// Batches that take turns, so that none is met as the one just before.
const BATCHES_MIN: usize = 8;
const SEED: u64 = 7;
/// Digits of a time in milliseconds.
const TIME_DIGITS: usize = 13;
/// Time from one payload to the next, and by how much the times in it are moved beyond that.
const PAYLOAD_EVERY_MS: u64 = 1_009;
const JITTER_MS: u64 = 1_000;

#[derive(Args)]
pub struct RecordArgs {
    /// Payloads of a micro-batch, separated by commas.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 64, 256])]
    payloads: Vec<usize>,
}

/// Prints two lines for each kind of bodies and number of payloads, and where JSON is the better one.
pub fn run(args: &RecordArgs) -> anyhow::Result<()> {
    println!("core-us per event on one thread; bytes in the log per byte of JSON; zstd level {ZSTD_LEVEL}");
    println!(
        "| bodies | payloads | record | bytes | compactor reads | indexer reads | ingest us | compactor us | indexer us | all us |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    let mut wins = Vec::new();
    for (name, bodies) in [
        ("one summary", vec![bodies::summary()?]),
        ("python flush", vec![bodies::python_flush()?]),
        ("all recorded", bodies::all_recorded()?),
    ] {
        for payloads in &args.payloads {
            let batches = batches(&bodies, (*payloads).max(1));
            let (frames, json) = (as_frames(&batches)?, as_json(&batches)?);
            for (record, cost) in [("frames", &frames), ("JSON", &json)] {
                let columns = cost.columns().map(|(_, cost)| format!("{cost:.4}")).join(" | ");
                println!("| {name} | {payloads} | {record} | {columns} |");
            }
            let columns = frames.columns().into_iter().zip(json.columns());
            let better: Vec<_> =
                columns.filter(|((_, frames), (_, json))| json < frames).map(|((column, _), _)| column).collect();
            if !better.is_empty() {
                wins.push(format!("{name}, payloads: {payloads}: {}", better.join(", ")));
            }
        }
    }
    println!("where raw JSON wins:");
    wins.iter().for_each(|win| println!("- {win}"));
    Ok(())
}

/// What a form of the record costs, over all batches.
struct Cost {
    /// Bytes in the log, per byte of JSON.
    bytes: Bytes,
    /// Core-us per event, as what follows.
    ingest: f64,
    compactor: f64,
    indexer: f64,
}

struct Bytes {
    all: f64,
    /// Those that each of the readers has to read.
    compactor: f64,
    indexer: f64,
}

impl Cost {
    fn columns(&self) -> [(&'static str, f64); 7] {
        [
            ("bytes", self.bytes.all),
            ("bytes to the compactor", self.bytes.compactor),
            ("bytes to the indexer", self.bytes.indexer),
            ("time of ingest", self.ingest),
            ("time of the compactor", self.compactor),
            ("time of the indexer", self.indexer),
            ("time of all", self.ingest + self.compactor + self.indexer),
        ]
    }
}

/// What comes in with one request.
struct Received {
    head: PayloadHead,
    id: uuid::Uuid,
    /// What frames keep of the head, but for the id.
    head_text: String,
    json: Vec<u8>,
    events: usize,
}

type Batch = Vec<Received>;

/// A body and what changes in it.
struct Varied<'a> {
    body: &'a Body,
    keys: Vec<usize>,
    times: Vec<usize>,
}

impl<'a> Varied<'a> {
    fn new(body: &'a Body) -> Self {
        let is_time = |place: &usize| {
            body.json.get(*place..place + TIME_DIGITS).is_some_and(|digits| digits.iter().all(u8::is_ascii_digit))
        };
        let dates = [&b"Date\":"[..], b"Date\": "].map(|prefix| bodies::digits_after(&body.json, prefix));
        let times = dates.concat().into_iter().filter(is_time).collect();
        Self { body, keys: bodies::digits_after(&body.json, b"user-"), times }
    }

    fn receive(&self, number: usize, chance: &Entropy) -> Received {
        let mut json = self.body.json.clone();
        bodies::vary(&self.body.json, &self.keys, number, &mut json);
        let later_ms = number as u64 * PAYLOAD_EVERY_MS;
        for place in &self.times {
            let digits = &mut json[*place..place + TIME_DIGITS];
            let time = digits.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
            let moved = time + later_ms + chance.next_u64() % JITTER_MS;
            digits.copy_from_slice(format!("{moved:013}").as_bytes());
        }
        let id = chance.uuid();
        let mut head = head();
        head.payload_id = Some(id.to_string().into());
        head.received_at =
            UnixMicros(head.received_at.0 + later_ms as i64 * 1_000 + (chance.next_u64() % 1_000) as i64);
        let PayloadHead { environment, received_at, source, sdk, sdk_version, application_id, schema_version, .. } =
            &head;
        let kept = (received_at.0, environment, source, sdk, sdk_version, application_id, schema_version);
        Received { head_text: format!("{kept:?}"), head, id, json, events: self.body.events }
    }
}

/// Batches in which each body is found.
fn batches(bodies: &[Body], payloads: usize) -> Vec<Batch> {
    let count = bodies.len().div_ceil(payloads).max(BATCHES_MIN);
    let (varied, chance): (Vec<_>, _) = (bodies.iter().map(Varied::new).collect(), Entropy::seeded(SEED));
    let receive = |number: usize| varied[number % varied.len()].receive(number, &chance);
    (0..count).map(|batch| (0..payloads).map(|payload| receive(batch * payloads + payload)).collect()).collect()
}

fn as_frames(batches: &[Batch]) -> anyhow::Result<Cost> {
    let mut unit = DecodingUnit::new();
    let mut records = Vec::new();
    for batch in batches {
        records.push(unit.frames(batch)?);
    }
    let ingest = us_per_event(batches, |number| {
        black_box(unit.frames(&batches[number]).expect("it was made before"));
    });
    let of = |topic: Topic| records.iter().map(|records| frames_of(records, topic)).collect::<Vec<_>>();
    let read = |topic: Topic| {
        let frames = of(topic);
        us_per_event(batches, |number| {
            for frame in &frames[number] {
                black_box(frame::decode(frame).expect("it was encoded just now"));
            }
        })
    };
    let bytes = |topic: Topic| per_json_byte(batches, of(topic).iter().flatten().map(bytes::Bytes::len).sum());
    let (compactor, indexer) = (bytes(Topic::Events), bytes(Topic::Contexts));
    Ok(Cost {
        bytes: Bytes { all: compactor + indexer, compactor, indexer },
        ingest,
        compactor: read(Topic::Events),
        indexer: read(Topic::Contexts),
    })
}

fn frames_of(records: &[AppendRecord], topic: Topic) -> Vec<bytes::Bytes> {
    let records = records.iter().filter(|record| record.topic_partition.topic == topic);
    records.map(|record| record.frame.clone()).collect()
}

fn as_json(batches: &[Batch]) -> anyhow::Result<Cost> {
    let mut compressor = zstd::bulk::Compressor::new(ZSTD_LEVEL)?;
    let mut joined = Vec::new();
    let mut records = Vec::new();
    for batch in batches {
        join(batch, &mut joined);
        records.push((compressor.compress(&joined)?, joined.len()));
    }
    let ingest = us_per_event(batches, |number| {
        join(&batches[number], &mut joined);
        black_box(compressor.compress(&joined).expect("memory is all that it takes"));
    });
    let mut unit = DecodingUnit::new();
    let reader = us_per_event(batches, |number| {
        let (record, joined_bytes) = &records[number];
        let joined = zstd::bulk::decompress(record, *joined_bytes).expect("it was compressed just now");
        unit.columns(batches[number].iter().map(|received| &received.head).zip(split(&joined)));
        unit.rows.clear();
    });
    let bytes = per_json_byte(batches, records.iter().map(|(record, _)| record.len()).sum());
    let bytes = Bytes { all: bytes, compactor: bytes, indexer: bytes };
    Ok(Cost { bytes, ingest, compactor: reader, indexer: reader })
}

const LENGTH_BYTES: usize = 4;
const ID_BYTES: usize = 16;

/// Per payload: length of the head, length of the body, id, head, body.
fn join(batch: &[Received], joined: &mut Vec<u8>) {
    joined.clear();
    for received in batch {
        for length in [received.head_text.len(), received.json.len()] {
            joined.extend_from_slice(&(length as u32).to_le_bytes());
        }
        joined.extend_from_slice(received.id.as_bytes());
        joined.extend_from_slice(received.head_text.as_bytes());
        joined.extend_from_slice(&received.json);
    }
}

/// The bodies of a record that [`join`] made.
fn split(mut joined: &[u8]) -> impl Iterator<Item = &[u8]> {
    let length = |bytes: &[u8; LENGTH_BYTES]| u32::from_le_bytes(*bytes) as usize;
    std::iter::from_fn(move || {
        let (head, rest) = joined.split_first_chunk()?;
        let (body, rest) = rest.split_first_chunk()?;
        let (body, rest) = rest[ID_BYTES + length(head)..].split_at(length(body));
        joined = rest;
        Some(body)
    })
}

/// Reads bodies as ingest does.
struct DecodingUnit {
    decoder: Decoder,
    recent: RecentContexts,
    rows: OpenRows,
}

impl DecodingUnit {
    fn new() -> Self {
        Self {
            decoder: Decoder::new(),
            recent: RecentContexts::new(1, Duration::ZERO),
            rows: OpenRows::new([1, 1, 1], Entropy::seeded(1)),
        }
    }

    fn columns<'a>(&mut self, payloads: impl Iterator<Item = (&'a PayloadHead, &'a [u8])>) {
        let place = Place { events_partition: 0, dead_letters_partition: 0 };
        for (head, body) in payloads {
            let payload = Payload { head, body, place };
            let decoded = self.decoder.decode(payload, &self.recent, &mut self.rows);
            let decoded = decoded.expect("recorded bodies are readable");
            assert!(decoded.dead_letters.is_empty(), "recorded events are usable: {:?}", decoded.dead_letters);
        }
    }

    fn frames(&mut self, batch: &[Received]) -> eventlog::Result<Vec<AppendRecord>> {
        self.columns(batch.iter().map(|received| (&received.head, received.json.as_slice())));
        let records = self.rows.encode();
        self.rows.clear();
        records
    }
}

/// Core-us per event of work on each of the batches.
fn us_per_event(batches: &[Batch], mut work: impl FnMut(usize)) -> f64 {
    let nanos = measure(1, |_| (0..batches.len()).for_each(&mut work));
    let events = batches.iter().flatten().map(|received| received.events).sum::<usize>();
    nanos / 1e3 / events as f64
}

fn per_json_byte(batches: &[Batch], bytes: usize) -> f64 {
    bytes as f64 / batches.iter().flatten().map(|received| received.json.len()).sum::<usize>() as f64
}
