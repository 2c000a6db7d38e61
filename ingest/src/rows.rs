//! The open micro-batches of one lane: rows of payloads that are decoded and not yet sealed.
//!
//! In: rows from `decode`, one payload at a time, and dead letters. Out: one record for each partition that holds
//! anything. Promise: rows of a payload are consecutive and in one partition; a payload that is refused half-way leaves
//! no row behind. Not here: when to seal, and where the records go.

use eventlog::AppendRecord;
use eventlog::frame::RecordWriter;
use events::{DeadLetterReason, Topic, TopicPartition};
use runtime::Entropy;
use xxhash_rust::xxh3::Xxh3;

pub(crate) mod column;
pub(crate) mod context;
pub(crate) mod event;
pub(crate) mod sighting;

use context::OpenContexts;
use event::{EventColumns, LetterColumns, OpenPayloads};
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
    payloads: OpenPayloads,
    pub contexts: OpenContexts,
    pub columns: EventColumns,
    /// Rows before the payload that is being decoded.
    mark: (usize, usize),
}

#[derive(Debug, Default)]
struct OpenLetters {
    payloads: OpenPayloads,
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

    /// Bytes of all open columns, about what their Arrow buffers would hold.
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

    /// What is open as records, in the order events, contexts, dead letters.
    ///
    /// # Errors
    /// `RecordTooLarge` (kind `Reject`).
    pub fn encode(&mut self) -> eventlog::Result<Vec<AppendRecord>> {
        let mut records = Vec::new();
        let mut add = |topic, partition, record: RecordWriter| -> eventlog::Result<()> {
            let topic_partition = TopicPartition::new(topic, partition);
            records.push(AppendRecord::new(topic_partition, record.finish()?));
            Ok(())
        };
        for (partition, open) in (0..).zip(&self.events) {
            if open.columns.rows > 0 {
                add(Topic::Events, partition, open.write())?;
            }
        }
        for (partition, columns) in (0..).zip(self.sightings.partitions()) {
            if columns.rows > 0 {
                let mut record = RecordWriter::new(Topic::Contexts);
                record.kinds(&[]);
                columns.write(&mut record);
                add(Topic::Contexts, partition, record)?;
            }
        }
        for (partition, open) in (0..).zip(&self.letters) {
            if open.columns.rows > 0 {
                add(Topic::DeadLetters, partition, open.write())?;
            }
        }
        Ok(records)
    }

    /// Forgets all rows and keeps memory for the next batch.
    pub fn clear(&mut self) {
        // A payload may leave contexts without events.
        for open in self.events.iter_mut().filter(|open| open.columns.rows + open.contexts.columns.rows > 0) {
            open.contexts.forget();
            open.contexts.columns.clear();
            open.payloads.clear();
            open.columns.clear();
        }
        for open in self.letters.iter_mut().filter(|open| open.columns.rows > 0) {
            open.payloads.clear();
            open.columns.clear();
        }
        self.sightings.clear();
    }

    /// The sightings of the records that [`OpenRows::encode`] gave: for [`RecentContexts::acknowledge`] once the append
    /// resolved. Call it before [`OpenRows::clear`].
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

impl OpenEvents {
    fn write(&self) -> RecordWriter {
        let (rows, contexts) = (self.columns.rows, self.contexts.columns.rows);
        assert_eq!(self.payloads.claimed_rows(), rows, "a payload's row counts its rows");
        let context_row = self.columns.context_row.values().iter().max();
        // 0 also stands for none.
        assert!(
            context_row.is_none_or(|row| *row == 0 || (*row as usize) < contexts),
            "context rows are those handed out"
        );
        let mut record = RecordWriter::new(Topic::Events);
        self.payloads.write_index(&mut record);
        record.kinds(self.columns.kind.values());
        self.payloads.write(&mut record);
        self.contexts.columns.write(&mut record);
        self.columns.write(&mut record);
        record
    }
}

impl OpenLetters {
    fn write(&self) -> RecordWriter {
        assert_eq!(self.payloads.claimed_rows(), self.columns.rows, "a payload's row counts its letters");
        let mut record = RecordWriter::new(Topic::DeadLetters);
        self.payloads.write_index(&mut record);
        record.kinds(&[]);
        self.payloads.write(&mut record);
        self.columns.write(&mut record);
        record
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
