//! Looks in the log for records that may be there.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use events::{Offset, TopicPartition};
use runtime::UnixMicros;

use crate::traced::TracedLog;
use crate::{Error, RecordId, Result};

const FETCH_BYTES: usize = 4 << 20;
const FETCH_WAIT: Duration = Duration::from_secs(1);
/// How often a log may say that it has nothing where it holds records.
const EMPTY_MAX: u32 = 5;
/// How far the clocks of broker and program may differ, where there is no place to begin at.
const CLOCKS_APART: Duration = Duration::from_secs(600);

/// A record to look for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sought {
    pub id: RecordId,
    /// It is here or later; 0: by time.
    pub from: Offset,
    pub taken_at: UnixMicros,
}

/// Those of `sought` that are in a partition, up to where it ends now.
///
/// # Errors
/// Of the log; then nothing is known.
pub(super) async fn find(
    log: &impl TracedLog,
    topic_partition: TopicPartition,
    sought: &[Sought],
) -> Result<HashSet<RecordId>> {
    let held = log.bounds(topic_partition).await?;
    let mut next = held.end;
    for begin in sought.iter().filter(|sought| sought.from > Offset(0)).map(|sought| sought.from) {
        // A place beyond the end is none of this log.
        next = next.min(if begin > held.end { held.start } else { begin });
    }
    let by_time = sought.iter().filter(|sought| sought.from <= Offset(0)).map(|sought| sought.taken_at);
    if let Some(oldest) = by_time.min() {
        next = next.min(log.offset_at(topic_partition, oldest.saturating_sub(CLOCKS_APART)).await?);
    }
    next = next.max(held.start);
    let mut wanted: HashMap<RecordId, bool> = sought.iter().map(|sought| (sought.id, false)).collect();
    let mut empty = 0;
    while next < held.end {
        let records = log.fetch(topic_partition, next, FETCH_BYTES, FETCH_WAIT).await?;
        let Some(last) = records.last() else {
            empty += 1;
            if empty > EMPTY_MAX {
                let action = format!("looking for records in {topic_partition}, which holds {held}");
                return Err(Error::Kafka { action, reason: format!("nothing came from offset {next} on") });
            }
            continue;
        };
        (empty, next) = (0, last.offset.next());
        for id in records.iter().filter_map(|record| record.id) {
            wanted.entry(id).and_modify(|is_there| *is_there = true);
        }
    }
    Ok(wanted.into_iter().filter_map(|(id, is_there)| is_there.then_some(id)).collect())
}
