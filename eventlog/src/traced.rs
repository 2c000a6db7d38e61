//! Records with a name of their own, and a log that tells of each what became of it.
//!
//! `LogWriter::append` answers for a whole call. Who keeps a second copy of what may be in the log already, as the
//! [`spill`](crate::spill) does, has to know more: which records are there, which are not, and of the rest how to find out.

use events::{Offset, TopicPartition};
use runtime::UnixMicros;
use tokio::sync::oneshot;

use crate::{AppendRecord, Error, LogReader, LogWriter, Result};

/// Name of one record, drawn by who appends it. It travels with the record and is read back with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordId(pub [u8; 16]);

/// One record to append, by its name.
#[derive(Clone, Debug)]
pub struct TracedRecord {
    pub id: RecordId,
    /// When it was taken elsewhere, if that was before: readers see this as its time. None: now.
    pub taken_at: Option<UnixMicros>,
    pub record: AppendRecord,
}

/// What became of one record.
#[derive(Clone, Debug)]
pub enum Fate {
    /// It is durable; [`Offset::UNKNOWN`] at a place that the log did not tell.
    Stored(Offset),
    /// It is not in the log and will not be.
    Absent(Error),
    /// It is not in the log, and sending it again has no use.
    Refused(Error),
    /// It may be in the log, or come there yet.
    Unknown(Error),
}

impl Fate {
    /// # Errors
    /// Why it is not known to be durable.
    pub fn stored(self) -> Result<Offset> {
        match self {
            Self::Stored(offset) => Ok(offset),
            Self::Absent(error) | Self::Refused(error) | Self::Unknown(error) => Err(error),
        }
    }
}

/// One fate for each record, in the order given. Comes exactly once.
pub type Fates = oneshot::Receiver<Vec<Fate>>;

/// A log that tells what became of each record.
pub trait TracedLog: LogWriter + LogReader {
    /// Hands records over. Those of a partition keep their order, also beyond calls.
    ///
    /// # Errors
    /// As [`LogWriter::append`]; then nothing was handed over.
    fn send(&self, records: Vec<TracedRecord>) -> Result<Fates>;

    /// A place that whatever is sent from now on comes at or after. 0 if nothing is known of the partition.
    fn end_seen(&self, topic_partition: TopicPartition) -> Offset;
}
