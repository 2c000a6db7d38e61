//! One body of JSON into rows of the open micro-batch, in one pass and without a tree.
//!
//! In: the whole unpacked body and what the request's head said. Out: event rows and contexts in [`OpenRows`], sightings,
//! dead letters for events that cannot be used, and counts for the metrics.
//! Promise: every event of a body that is an array (or one object) ends either in rows or in the dead letters, and a bad
//! one never costs its neighbours; a body whose frame is broken leaves nothing behind and is refused as a whole.
//!
//! Start with [`event`], which reads one event; [`scan`] says why there is no tape. Source: event-protocol sections 4.1
//! to 8.

use events::{DeadLetterReason, limits};
use runtime::UnixMicros;

pub(crate) mod columns;
pub(crate) mod context;
pub(crate) mod event;
pub(crate) mod fault;
pub(crate) mod fields;
pub(crate) mod guess;
pub(crate) mod migration;
pub(crate) mod number;
pub(crate) mod object;
pub(crate) mod private;
pub(crate) mod scan;
pub(crate) mod summary;
pub(crate) mod text;
pub(crate) mod unsummarized;
pub(crate) mod user;

pub use fault::BodyError;
use fault::{Fault, Stop, syntax_message};
use scan::{Scanner, SyntaxError};
use text::Body;
use unsummarized::{Mode, Tally};

use crate::payload::PayloadHead;
use crate::recent::RecentContexts;
use crate::rows::sighting::{OpenSightings, Sender};
use crate::rows::{DeadLetter, OpenEvents, OpenRows};

/// Where the rows of a payload go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub events_partition: u32,
    pub dead_letters_partition: u32,
}

/// One payload, ready to be read.
#[derive(Clone, Copy, Debug)]
pub struct Payload<'a> {
    pub head: &'a PayloadHead,
    /// Unpacked, at most `limits::BODY_BYTES_CEILING` bytes.
    pub body: &'a [u8],
    pub place: Place,
}

/// What a payload came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decoded {
    /// Events that can be used.
    pub events: u32,
    /// Rows of the table: more than events where a summary has several counters, fewer where unsummarised evaluations
    /// were summed up.
    pub rows: u32,
    /// Evaluations that the summaries count, and those that no summary counts.
    pub represented_evaluations: u64,
    /// One for each event that cannot be used.
    pub dead_letters: Vec<DeadLetterReason>,
    /// `droppedEvents` of the diagnostics.
    pub sdk_dropped_events: u64,
    pub sightings: u32,
}

/// Reads bodies. Holds only scratch memory; one for each lane.
#[derive(Debug, Default)]
pub struct Decoder {
    scratch: Scratch,
    application: Vec<u8>,
}

/// Memory that is used again for each event.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub fields: fields::Fields,
    pub object: object::ObjectOutline,
    pub summary: summary::SummaryScratch,
    pub extra: Vec<u8>,
    /// What a legacy user left aside, if its context was too large to be remembered.
    pub aside: Vec<u8>,
    letters: Vec<Letter>,
}

/// An event that cannot be used, until the body turns out to be readable.
#[derive(Debug)]
struct Letter {
    index: i32,
    reason: DeadLetterReason,
    message: String,
    at: usize,
    start: usize,
    end: usize,
}

/// What makes the decoder of a test build panic, half-way through a body, as only a mistake of ours could.
#[cfg(test)]
pub(crate) const PANICS_BEHIND: &str = r#""the decoder panics behind this event""#;

/// One reading of one body.
pub(crate) struct Walk<'a> {
    pub body: Body<'a>,
    pub scan: Scanner<'a>,
    pub scratch: &'a mut Scratch,
    pub open: &'a mut OpenEvents,
    pub sightings: &'a mut OpenSightings,
    pub recent: &'a RecentContexts,
    pub sender: Sender<'a>,
    pub now: UnixMicros,
    pub mode: Mode,
    pub tally: Tally,
    /// Position of the event in the array.
    pub index: i32,
    /// Whether the body is an array.
    pub in_array: bool,
    /// Rows of the partition before this payload.
    pub first_row: usize,
    /// Bytes by which repeated texts (a flag's default in each of its counters) may still exceed the body.
    pub expansion_left: usize,
    pub decoded: Decoded,
}

impl Decoder {
    pub fn new() -> Self {
        Self::default()
    }

    /// Decodes a payload into `rows`.
    ///
    /// All rows of a payload are consecutive rows of one partition. A lone object counts as an array of one; an empty
    /// body as an array of none. Whether a debugging period of an unsummarised event is over is decided as of its receipt.
    ///
    /// # Errors
    /// If the body as a whole cannot be read: it is neither an array nor an object, its brackets do not match, it holds
    /// too many events, or nothing in it is JSON. Nothing is left in `rows` then.
    pub fn decode(
        &mut self,
        payload: Payload<'_>,
        recent: &RecentContexts,
        rows: &mut OpenRows,
    ) -> Result<Decoded, BodyError> {
        let mut mode = Mode::of(payload.head);
        loop {
            match self.walk(payload, recent, rows, mode) {
                Ok(decoded) => return Ok(decoded),
                Err(Stop::Body(error)) => return Err(error),
                Err(Stop::Unsummarized) => mode = Mode::Unsummarized,
            }
        }
    }

    fn walk(
        &mut self,
        payload: Payload<'_>,
        recent: &RecentContexts,
        rows: &mut OpenRows,
        mode: Mode,
    ) -> Result<Decoded, Stop> {
        let Payload { head, body, place } = payload;
        self.scratch.letters.clear();
        let (open, sightings) = rows.begin_payload(place.events_partition);
        let first_row = open.columns.rows;
        let mut walk = Walk {
            body: Body::new(body),
            scan: Scanner::new(body),
            scratch: &mut self.scratch,
            open,
            sightings,
            recent,
            sender: Sender::new(head, &mut self.application),
            now: head.received_at,
            mode,
            tally: Tally::default(),
            index: 0,
            in_array: false,
            first_row,
            expansion_left: (1 << 20) + 4 * body.len(),
            decoded: Decoded::default(),
        };
        let mut decoded = match walk.body() {
            Ok(()) => walk.decoded,
            Err(stop) => {
                rows.cut_payload(place.events_partition);
                return Err(stop);
            }
        };
        decoded.rows = rows.end_payload(place.events_partition, head);
        if !self.scratch.letters.is_empty() {
            decoded.dead_letters = self.scratch.letters.iter().map(|letter| letter.reason).collect();
            let letters = self.scratch.letters.drain(..).map(|letter| DeadLetter {
                payload_index: Some(letter.index),
                reason: letter.reason,
                message: letter.message,
                byte_offset: Some(letter.at as i64),
                body: &body[letter.start..letter.end],
            });
            rows.push_dead_letters(place.dead_letters_partition, head, letters);
        }
        Ok(decoded)
    }
}

impl Walk<'_> {
    fn body(&mut self) -> Result<(), Stop> {
        if self.body.bytes.starts_with(b"\xef\xbb\xbf") {
            self.scan.position = 3;
        }
        self.scan.space();
        match self.scan.peek() {
            _ if self.scan.at_end() => return Ok(()),
            b'[' => self.array()?,
            b'{' => self.item(self.scan.position)?,
            _ => return Err(self.no_array()),
        }
        self.scan.space();
        if !self.scan.at_end() {
            return Err(self.broken("the end of the body"));
        }
        self.finish_tally();
        Ok(())
    }

    fn array(&mut self) -> Result<(), Stop> {
        self.in_array = true;
        self.scan.position += 1;
        self.scan.space();
        if self.scan.peek() == b']' {
            self.scan.position += 1;
            return Ok(());
        }
        let mut unreadable: Option<(SyntaxError, String)> = None;
        loop {
            let start = self.scan.position;
            if matches!(self.scan.peek(), b',' | b']') || self.scan.at_end() {
                return Err(self.broken("an event"));
            }
            let rows = self.open.columns.rows - self.first_row;
            if (self.index as usize).max(rows) >= limits::EVENTS_PER_PAYLOAD_MAX {
                let message = format!("more than {} events", limits::EVENTS_PER_PAYLOAD_MAX);
                return Err(body_error(DeadLetterReason::TooManyEvents, message, start));
            }
            if let Err((error, message)) = self.item_of_array(start)?
                && error.reason == DeadLetterReason::InvalidJson
            {
                unreadable.get_or_insert((error, message));
            }
            self.index += 1;
            let more = self.scan.peek() == b',';
            self.scan.position += 1;
            if !more {
                break;
            }
            self.scan.space();
        }
        match unreadable {
            // Nothing was saved: better say so than take it.
            Some((error, message)) if self.decoded.events == 0 => Err(body_error(error.reason, message, error.at)),
            _ => Ok(()),
        }
    }

    /// Reads the item at `start` up to the comma or bracket behind it. The inner error is of text that is not JSON.
    fn item_of_array(&mut self, start: usize) -> Result<Result<(), (SyntaxError, String)>, Stop> {
        let error = match self.item_or_syntax(start)? {
            Ok(()) => return Ok(Ok(())),
            Err(error) => error,
        };
        let message = syntax_message(self.body.bytes, &error);
        let Some(end) = self.scan.end_of_unreadable(start) else {
            // The rest of the body belongs to this event: its frame is broken.
            return Err(body_error(DeadLetterReason::InvalidJson, message, error.at));
        };
        self.scan.resume(end);
        let end = start + self.body.bytes[start..end].trim_ascii_end().len();
        self.put_aside(error.reason, message.clone(), error.at, start, end);
        Ok(Err((error, message)))
    }

    /// Reads a lone object.
    fn item(&mut self, start: usize) -> Result<(), Stop> {
        self.item_or_syntax(start)?
            .map_err(|error| body_error(error.reason, syntax_message(self.body.bytes, &error), error.at))
    }

    fn item_or_syntax(&mut self, start: usize) -> Result<Result<(), SyntaxError>, Stop> {
        let row = self.open.columns.rows;
        let fault = match self.event() {
            Ok(()) => {
                self.decoded.events += 1;
                #[cfg(test)]
                if memchr::memmem::find(&self.body.bytes[start..self.scan.position], PANICS_BEHIND.as_bytes()).is_some()
                {
                    panic!("a test asked for this");
                }
                return Ok(Ok(()));
            }
            Err(fault) => fault,
        };
        self.open.columns.truncate(row);
        match fault {
            Fault::Stop(stop) => Err(stop),
            Fault::Syntax => {
                // Only a reader of what the scanner accepted could fail without the scanner, and it does not.
                let anywhere = SyntaxError { reason: DeadLetterReason::InvalidJson, expected: "JSON", at: start };
                Ok(Err(self.scan.failure.take().unwrap_or(anywhere)))
            }
            Fault::Event { reason, message, at } => {
                let end = start + self.body.bytes[start..self.scan.position].trim_ascii_end().len();
                self.put_aside(reason, message, at, start, end);
                Ok(Ok(()))
            }
        }
    }

    fn put_aside(&mut self, reason: DeadLetterReason, message: String, at: usize, start: usize, end: usize) {
        self.scratch.letters.push(Letter { index: self.index, reason, message, at, start, end });
    }

    /// What follows an event must end it. Called before anything of it is written.
    #[inline]
    pub(crate) fn expect_end_of_event(&mut self) -> scan::Result<()> {
        match self.scan.peek() {
            b',' | b']' if self.in_array => Ok(()),
            _ if !self.in_array && self.scan.at_end() => Ok(()),
            _ => self.scan.error(if self.in_array { "`,` or `]`" } else { "the end of the body" }),
        }
    }

    fn broken(&self, expected: &'static str) -> Stop {
        let error = SyntaxError { reason: DeadLetterReason::InvalidJson, expected, at: self.scan.position };
        body_error(error.reason, syntax_message(self.body.bytes, &error), error.at)
    }

    fn no_array(&mut self) -> Stop {
        let (at, reason) = (self.scan.position, DeadLetterReason::InvalidJson);
        match self.scan.value() {
            Ok(span) if self.scan.at_end() => {
                let found = fault::type_name(&self.body, span);
                body_error(DeadLetterReason::NotAnEvent, format!("expected an array of events, found {found}"), at)
            }
            Ok(_) => self.broken("the end of the body"),
            Err(_) => {
                let error = self.scan.failure.unwrap_or(SyntaxError { reason, expected: "an array of events", at });
                body_error(error.reason, syntax_message(self.body.bytes, &error), error.at)
            }
        }
    }
}

fn body_error(reason: DeadLetterReason, message: String, at: usize) -> Stop {
    Stop::Body(BodyError { reason, message, byte_offset: at as u64 })
}

#[cfg(test)]
mod tests;
