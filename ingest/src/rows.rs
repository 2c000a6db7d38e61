//! The open micro-batches of one lane: rows of payloads that are decoded and not yet sealed.
//!
//! In: rows from `decode`, one payload at a time, and dead letters. Out: one [`LogBatch`] for each partition that holds
//! anything. Promise: rows of a payload are consecutive and in one partition; a payload that is refused half-way leaves
//! no row behind. Not here: when to seal, and where the batches go.

use events::{DeadLetterReason, DeadLettersBatch, EventsBatch, LogBatch, SightingsBatch, Topic, TopicPartition};
use runtime::Entropy;
use xxhash_rust::xxh3::Xxh3;

pub(crate) mod column;
pub(crate) mod context;
pub(crate) mod event;
pub(crate) mod sighting;

use context::OpenContexts;
use event::{EventColumns, LetterColumns, PayloadColumns};
pub(crate) use sighting::U64Hash;
use sighting::{Mark, OpenSightings};

use crate::payload::PayloadHead;
use crate::recent::Sighted;

/// What could not be read.
#[derive(Clone, Debug)]
pub struct DeadLetter<'a> {
    /// Position in the array; `None` for a whole body.
    pub payload_index: Option<i32>,
    pub reason: DeadLetterReason,
    /// What was attempted and what stood there; shown to people.
    pub message: String,
    /// Where reading failed, from the start of the unpacked body.
    pub byte_offset: Option<i64>,
    pub body: &'a [u8],
}

/// Open micro-batches: one for each partition of each topic.
pub struct OpenRows {
    events: Vec<OpenEvents>,
    pub(crate) sightings: OpenSightings,
    letters: Vec<OpenLetters>,
    entropy: Entropy,
    mark: Mark,
}

/// The open micro-batch of one `events` partition.
#[derive(Debug, Default)]
pub(crate) struct OpenEvents {
    payloads: PayloadColumns,
    pub contexts: OpenContexts,
    pub columns: EventColumns,
    /// Rows before the payload that is being decoded.
    mark: (usize, usize),
}

#[derive(Debug, Default)]
struct OpenLetters {
    payloads: PayloadColumns,
    columns: LetterColumns,
}

impl OpenRows {
    /// `partitions`: of the topics `events`, `contexts` and `dead_letters`, each at least one.
    pub fn new(partitions: [u32; 3], entropy: Entropy) -> Self {
        let [events, contexts, letters] = partitions;
        assert!(events > 0 && contexts > 0 && letters > 0, "a topic without partitions");
        Self {
            events: (0..events).map(|_| OpenEvents::default()).collect(),
            sightings: OpenSightings::new(contexts),
            letters: (0..letters).map(|_| OpenLetters::default()).collect(),
            entropy,
            mark: Mark::default(),
        }
    }

    /// Bytes of all open columns, about what their Arrow buffers will hold.
    pub fn bytes(&self) -> usize {
        let events = |open: &OpenEvents| open.payloads.bytes() + open.contexts.bytes() + open.columns.bytes();
        let letters = |open: &OpenLetters| open.payloads.bytes() + open.columns.bytes();
        self.events.iter().map(events).sum::<usize>()
            + self.letters.iter().map(letters).sum::<usize>()
            + self.sightings.bytes()
    }

    pub fn is_empty(&self) -> bool {
        self.events.iter().all(|open| open.columns.rows == 0) && self.letters.iter().all(|open| open.columns.rows == 0)
    }

    /// Takes what is open as batches, in the order events, contexts, dead letters.
    pub fn seal(&mut self) -> Vec<(TopicPartition, LogBatch)> {
        let mut sealed = Vec::new();
        for (partition, open) in (0..).zip(&mut self.events) {
            if open.columns.rows > 0 {
                open.contexts.forget();
                let contexts = open.contexts.columns.seal();
                let batch = EventsBatch::new(open.payloads.seal(), contexts, open.columns.seal());
                let batch = batch.expect("a payload's row counts its rows, and context rows are those handed out");
                sealed.push((TopicPartition::new(Topic::Events, partition), LogBatch::Events(batch)));
            }
        }
        for (partition, columns) in (0..).zip(self.sightings.partitions()) {
            if columns.rows > 0 {
                let batch = SightingsBatch::new(columns.seal()).expect("columns follow the schema");
                sealed.push((TopicPartition::new(Topic::Contexts, partition), LogBatch::Sightings(batch)));
            }
        }
        for (partition, open) in (0..).zip(&mut self.letters) {
            if open.columns.rows > 0 {
                let batch = DeadLettersBatch::new(open.payloads.seal(), open.columns.seal());
                let batch = batch.expect("a payload's row counts its letters");
                sealed.push((TopicPartition::new(Topic::DeadLetters, partition), LogBatch::DeadLetters(batch)));
            }
        }
        sealed
    }

    /// The sightings of the batches that [`OpenRows::seal`] just took: for [`RecentContexts::acknowledge`] once the
    /// append resolved. Call it with every seal.
    ///
    /// [`RecentContexts::acknowledge`]: crate::recent::RecentContexts::acknowledge
    pub fn take_sighted(&mut self) -> Vec<Sighted> {
        self.sightings.take_sighted()
    }

    /// Puts what could not be read aside. Its id is the same each time the same part of a payload with an id fails.
    pub fn push_dead_letter(&mut self, partition: u32, head: &PayloadHead, letter: DeadLetter<'_>) {
        self.push_dead_letters(partition, head, std::iter::once(letter));
    }

    /// Puts parts of one payload aside.
    pub(crate) fn push_dead_letters<'a>(
        &mut self,
        partition: u32,
        head: &PayloadHead,
        letters: impl Iterator<Item = DeadLetter<'a>>,
    ) {
        let open = &mut self.letters[partition as usize];
        let (start, columns) = (open.columns.rows, &mut open.columns);
        for letter in letters {
            let row = columns.rows;
            columns.id.put(row, letter_id(head, letter.payload_index, &self.entropy).as_bytes());
            columns.payload_index.put_opt(row, letter.payload_index);
            columns.reason.put(row, letter.reason.as_str().as_bytes());
            columns.message.put(row, letter.message.as_bytes());
            columns.byte_offset.put_opt(row, letter.byte_offset);
            columns.body.put(row, letter.body);
            columns.rows += 1;
        }
        if columns.rows > start {
            open.payloads.push(head, (columns.rows - start) as u32, true);
        }
    }

    /// Begins a payload: [`OpenRows::cut_payload`] goes back to here.
    pub(crate) fn begin_payload(&mut self, partition: u32) -> (&mut OpenEvents, &mut OpenSightings) {
        self.sightings.mark(&mut self.mark);
        let open = &mut self.events[partition as usize];
        open.mark = (open.columns.rows, open.contexts.columns.rows);
        (open, &mut self.sightings)
    }

    pub(crate) fn cut_payload(&mut self, partition: u32) {
        let open = &mut self.events[partition as usize];
        open.columns.truncate(open.mark.0);
        open.contexts.columns.truncate(open.mark.1);
        open.contexts.forget();
        self.sightings.cut(&self.mark);
    }

    /// Ends a payload. Returns how many rows it has.
    pub(crate) fn end_payload(&mut self, partition: u32, head: &PayloadHead) -> u32 {
        let open = &mut self.events[partition as usize];
        let rows = (open.columns.rows - open.mark.0) as u32;
        if rows > 0 {
            open.payloads.push(head, rows, false);
        }
        rows
    }
}

fn letter_id(head: &PayloadHead, payload_index: Option<i32>, entropy: &Entropy) -> String {
    let Some(payload_id) = &head.payload_id else {
        return entropy.uuid().to_string();
    };
    let mut hash = Xxh3::new();
    hash.update(&head.environment_hash.to_le_bytes());
    hash.update(payload_id.as_bytes());
    hash.update(&[0]);
    hash.update(&payload_index.unwrap_or(-1).to_le_bytes());
    format!("{:032x}", hash.digest128())
}
