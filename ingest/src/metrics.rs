//! Metrics of the endpoint, and the snapshot that the pipeline page shows.
//!
//! Whatever counts stored things is counted once per batch, after the log has taken it.

use std::collections::BTreeMap;
use std::time::Duration;

use events::DeadLetterReason;
use http::StatusCode;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts};
use runtime::Telemetry;
use serde::Serialize;

/// Statuses that this endpoint gives; anything else is counted as the last.
const STATUSES: [u16; 12] = [200, 202, 204, 400, 401, 403, 404, 405, 408, 429, 503, 500];

/// What a batch, or one payload of it, holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub payloads: u64,
    pub events: u64,
    pub rows: u64,
    pub sightings: u64,
    pub represented_evaluations: u64,
    pub sdk_dropped_events: u64,
    /// By the code of the reason.
    pub dead_letters: [u32; DeadLetterReason::ALL.len()],
}

impl Tally {
    pub fn add(&mut self, other: &Self) {
        self.payloads += other.payloads;
        self.events += other.events;
        self.rows += other.rows;
        self.sightings += other.sightings;
        self.represented_evaluations += other.represented_evaluations;
        self.sdk_dropped_events += other.sdk_dropped_events;
        for (sum, count) in self.dead_letters.iter_mut().zip(other.dead_letters) {
            *sum += count;
        }
    }

    pub fn count_dead_letter(&mut self, reason: DeadLetterReason) {
        self.dead_letters[reason as usize] += 1;
    }
}

/// Counters since the start of the process.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    pub requests_total: u64,
    pub events_total: u64,
    pub represented_evaluations_total: u64,
    pub deduplicated_payloads_total: u64,
    pub bytes_total: u64,
    pub bytes_in_flight: u64,
    pub connections: u64,
    pub dead_letters_total: BTreeMap<&'static str, u64>,
    pub answers: BTreeMap<u16, u64>,
    pub sdk_dropped_events_total: u64,
}

pub(crate) struct Metrics {
    requests: [IntCounter; STATUSES.len()],
    pub payloads: IntCounter,
    pub deduplicated_payloads: IntCounter,
    pub empty_bodies: IntCounter,
    events: IntCounter,
    rows: IntCounter,
    sightings: IntCounter,
    represented_evaluations: IntCounter,
    sdk_dropped_events: IntCounter,
    dead_letters: Vec<IntCounter>,
    pub bytes: IntCounter,
    pub unpacked_bytes: IntCounter,
    pub bytes_in_flight: IntGauge,
    pub connections: IntGauge,
    batch_payloads: Histogram,
    batch_bytes: Histogram,
    append_seconds: Histogram,
    append_failures: IntCounter,
}

impl Metrics {
    pub fn new(telemetry: &Telemetry) -> Self {
        let counter = |name: &str, help: &str| {
            telemetry.register(IntCounter::new(name, help).expect("metric names are valid constants"))
        };
        let gauge = |name: &str, help: &str| {
            telemetry.register(IntGauge::new(name, help).expect("metric names are valid constants"))
        };
        let family = |name: &str, help: &str, label: &str| {
            telemetry.register(
                IntCounterVec::new(Opts::new(name, help), &[label]).expect("metric names are valid constants"),
            )
        };
        let histogram = |name: &str, help: &str, start: f64, factor: f64, count: usize| {
            let buckets =
                prometheus::exponential_buckets(start, factor, count).expect("bucket bounds are valid constants");
            let opts = HistogramOpts::new(name, help).buckets(buckets);
            telemetry.register(Histogram::with_opts(opts).expect("metric names are valid constants"))
        };
        let requests = family(
            "tidegate_ingest_requests_total",
            "Requests on SDK paths by the status they were answered.",
            "status",
        );
        let dead_letters = family("tidegate_ingest_dead_letters_total", "Dead letters stored, by reason.", "reason");
        Self {
            requests: STATUSES.map(|status| requests.with_label_values(&[&status.to_string()])),
            payloads: counter("tidegate_ingest_payloads_total", "Payloads stored durably."),
            deduplicated_payloads: counter(
                "tidegate_ingest_deduplicated_payloads_total",
                "Payloads not stored again, as their id had been stored.",
            ),
            empty_bodies: counter(
                "tidegate_ingest_empty_bodies_total",
                "Requests with an empty body, accepted and not stored.",
            ),
            events: counter("tidegate_ingest_accepted_events_total", "Events stored durably."),
            rows: counter(
                "tidegate_ingest_rows_total",
                "Rows of events stored durably; a summary is one for each of its counters.",
            ),
            sightings: counter("tidegate_ingest_sightings_total", "Sightings of contexts stored durably."),
            represented_evaluations: counter(
                "tidegate_ingest_represented_evaluations_total",
                "Sum of the counters of stored summaries.",
            ),
            sdk_dropped_events: counter(
                "tidegate_ingest_sdk_dropped_events_total",
                "Events that SDKs report as lost inside themselves.",
            ),
            dead_letters: DeadLetterReason::ALL
                .iter()
                .map(|reason| dead_letters.with_label_values(&[reason.as_str()]))
                .collect(),
            bytes: counter("tidegate_ingest_body_bytes_total", "Bytes of request bodies as received."),
            unpacked_bytes: counter("tidegate_ingest_unpacked_bytes_total", "Bytes of request bodies after unpacking."),
            bytes_in_flight: gauge(
                "tidegate_ingest_in_flight_bytes",
                "Bytes of bodies being read or waiting for the log.",
            ),
            connections: gauge("tidegate_ingest_connections", "Open connections."),
            batch_payloads: histogram("tidegate_ingest_batch_payloads", "Payloads in one batch.", 1.0, 2.0, 12),
            batch_bytes: histogram("tidegate_ingest_batch_bytes", "Encoded bytes of one batch.", 1024.0, 4.0, 9),
            append_seconds: histogram(
                "tidegate_ingest_append_seconds",
                "Time until the log has a batch durably.",
                0.000_25,
                2.0,
                16,
            ),
            append_failures: counter("tidegate_ingest_append_failures_total", "Batches that the log did not take."),
        }
    }

    pub fn count_answer(&self, status: StatusCode) {
        let index = STATUSES.iter().position(|known| *known == status.as_u16()).unwrap_or(STATUSES.len() - 1);
        self.requests[index].inc();
    }

    /// A batch is durable.
    pub fn count_stored(&self, tally: &Tally, encoded_bytes: usize, took: Duration) {
        self.payloads.inc_by(tally.payloads);
        self.events.inc_by(tally.events);
        self.rows.inc_by(tally.rows);
        self.sightings.inc_by(tally.sightings);
        self.represented_evaluations.inc_by(tally.represented_evaluations);
        self.sdk_dropped_events.inc_by(tally.sdk_dropped_events);
        for (counter, count) in self.dead_letters.iter().zip(tally.dead_letters) {
            if count > 0 {
                counter.inc_by(u64::from(count));
            }
        }
        self.batch_payloads.observe(tally.payloads as f64);
        self.batch_bytes.observe(encoded_bytes as f64);
        self.append_seconds.observe(took.as_secs_f64());
    }

    pub fn count_append_failure(&self) {
        self.append_failures.inc();
    }

    pub fn status(&self) -> Status {
        let answers = STATUSES.iter().zip(&self.requests).map(|(status, counter)| (*status, counter.get()));
        let letters = DeadLetterReason::ALL
            .iter()
            .zip(&self.dead_letters)
            .map(|(reason, counter)| (reason.as_str(), counter.get()));
        Status {
            requests_total: self.requests.iter().map(IntCounter::get).sum(),
            events_total: self.events.get(),
            represented_evaluations_total: self.represented_evaluations.get(),
            deduplicated_payloads_total: self.deduplicated_payloads.get(),
            bytes_total: self.bytes.get(),
            bytes_in_flight: self.bytes_in_flight.get().max(0) as u64,
            connections: self.connections.get().max(0) as u64,
            dead_letters_total: letters.filter(|(_, count)| *count > 0).collect(),
            answers: answers.filter(|(_, count)| *count > 0).collect(),
            sdk_dropped_events_total: self.sdk_dropped_events.get(),
        }
    }
}
