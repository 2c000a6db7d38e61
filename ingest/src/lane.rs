//! One lane: a decoder and the open rows of one batch, with those who wait for it.
//!
//! In: payloads from [`crate::batcher`], one at a time. Out: the answer each earns when the batch is durable, and the
//! batch itself when it is sealed. Promise: a payload that makes the decoder panic costs nobody an acknowledged event:
//! its bytes go to the dead letters, and its neighbours, not yet answered, are told to come back.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use events::DeadLetterReason;
use runtime::Entropy;
use tokio::time::Instant;

use crate::answer::Answer;
use crate::append::{Batch, Members, SealedBatch};
use crate::decode::{Decoded, Decoder, Payload, Place};
use crate::metrics::Tally;
use crate::payload::PayloadHead;
use crate::recent::RecentContexts;
use crate::rows::{DeadLetter, OpenRows};

pub(crate) enum Content {
    /// JSON, as far as anybody knows.
    Body(Bytes),
    /// Bytes that are known to be unreadable, for the dead letters.
    Unreadable { reason: DeadLetterReason, message: String, body: Bytes },
}

impl Content {
    pub fn len(&self) -> usize {
        match self {
            Self::Body(body) | Self::Unreadable { body, .. } => body.len(),
        }
    }
}

pub(crate) struct Lane {
    pub open: Option<Members>,
    /// When the last batch was answered.
    pub answered_at: Instant,
    decoder: Decoder,
    rows: OpenRows,
    /// Rows of batches before, empty: while one batch is encoded the next is filled.
    spares: Vec<OpenRows>,
    /// Bytes of bodies since the rows were measured.
    unmeasured: usize,
    partitions: [u32; 3],
    entropy: Entropy,
}

/// The open rows are measured again after this many bytes of bodies.
const MEASURE_BYTES: usize = 16 << 10;

/// Batches of one lane that are being encoded at once, mostly.
const SPARES_MAX: usize = 2;

impl Lane {
    /// `partitions`: of the topics, in their order.
    pub fn new(partitions: [u32; 3], entropy: Entropy, answered_at: Instant) -> Self {
        let rows = OpenRows::new(partitions, entropy.clone());
        Self {
            open: None,
            answered_at,
            decoder: Decoder::default(),
            rows,
            spares: Vec::new(),
            unmeasured: 0,
            partitions,
            entropy,
        }
    }

    /// Decodes into the open rows. Returns the answer that the payload earns when they are durable, and its counts.
    pub fn decode(
        &mut self,
        head: &PayloadHead,
        content: Content,
        place: Place,
        recent: &RecentContexts,
    ) -> (Answer, Tally) {
        let (reason, message, byte_offset, body) = match content {
            Content::Unreadable { reason, message, body } => (reason, message, None, body),
            Content::Body(body) => {
                let (decoder, rows) = (&mut self.decoder, &mut self.rows);
                let attempt = || decoder.decode(Payload { head, body: &body, place }, recent, rows);
                match catch_unwind(AssertUnwindSafe(attempt)) {
                    Ok(Ok(decoded)) => return (Answer::ACCEPTED, tally(&decoded)),
                    Ok(Err(error)) => (error.reason, error.message, Some(error.byte_offset), body),
                    Err(_) => return (Answer::ACCEPTED, self.survive(head, place, &body)),
                }
            }
        };
        let answer = Answer::unreadable(reason, &message, byte_offset);
        let tally = self.put_aside(head, place, reason, message, byte_offset, &body);
        (answer, tally)
    }

    /// Whether the open rows hold at least `batch_bytes`. `added`: bytes of the body that was decoded last.
    pub fn is_full(&mut self, added: usize, batch_bytes: usize) -> bool {
        self.unmeasured += added;
        if self.unmeasured < MEASURE_BYTES.min(batch_bytes) {
            return false;
        }
        self.unmeasured = 0;
        self.rows.bytes() >= batch_bytes
    }

    /// Takes the open batch, if there is one; `only`: if it is this one.
    pub fn seal(&mut self, only: Option<&Arc<Batch>>) -> Option<SealedBatch> {
        let mut members = self.open.take_if(|open| only.is_none_or(|batch| Arc::ptr_eq(batch, &open.batch)))?;
        members.close();
        self.unmeasured = 0;
        let empty = self.spares.pop().unwrap_or_else(|| OpenRows::new(self.partitions, self.entropy.clone()));
        Some(SealedBatch { rows: std::mem::replace(&mut self.rows, empty), members })
    }

    /// Keeps the memory of rows that were sealed and are empty again.
    pub fn reuse(&mut self, rows: OpenRows) {
        if self.spares.len() < SPARES_MAX {
            self.spares.push(rows);
        }
    }

    fn survive(&mut self, head: &PayloadHead, place: Place, body: &[u8]) -> Tally {
        tracing::error!(
            target: "tidegate::ingest",
            environment = %head.environment,
            bytes = body.len(),
            "decoding a body panicked; it is kept as a dead letter, and the other senders of its batch are told to come back"
        );
        self.start_over();
        let message = "the decoder failed on this body; send it again after an upgrade".to_owned();
        self.put_aside(head, place, DeadLetterReason::InvalidJson, message, None, body)
    }

    /// Forgets rows that may be half-written. Dropping the members tells them.
    fn start_over(&mut self) {
        self.open = None;
        self.decoder = Decoder::default();
        self.rows = OpenRows::new(self.partitions, self.entropy.clone());
    }

    fn put_aside(
        &mut self,
        head: &PayloadHead,
        place: Place,
        reason: DeadLetterReason,
        message: String,
        byte_offset: Option<u64>,
        body: &[u8],
    ) -> Tally {
        let byte_offset = byte_offset.map(|offset| offset as i64);
        let letter = DeadLetter { payload_index: None, reason, message, byte_offset, body };
        self.rows.push_dead_letter(place.dead_letters_partition, head, letter);
        let mut tally = Tally { payloads: 1, ..Tally::default() };
        tally.count_dead_letter(reason);
        tally
    }
}

fn tally(decoded: &Decoded) -> Tally {
    let mut tally = Tally {
        payloads: 1,
        events: u64::from(decoded.events),
        rows: u64::from(decoded.rows),
        sightings: u64::from(decoded.sightings),
        represented_evaluations: decoded.represented_evaluations,
        sdk_dropped_events: decoded.sdk_dropped_events,
        ..Tally::default()
    };
    for reason in &decoded.dead_letters {
        tally.count_dead_letter(*reason);
    }
    tally
}
