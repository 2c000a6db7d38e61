//! Removes the oldest sealed segments when the log is too large or too old, and never what somebody still needs.
//!
//! Needed is what a reader has not committed, and what is younger than the de-duplication window, which is rebuilt from
//! the log at start. A spool has no such window, and lets go of what has been read. Segments go oldest first and one by one, each removal synced before the next, so that what a
//! crash leaves is always the newest part without gaps.

use std::time::Duration;

use events::limits;
use runtime::UnixMicros;

use super::directory::Directory;
use super::held::Segment;
use super::{Shared, Usage};

/// Beyond the de-duplication window, as a reader looks back from a time a little before now.
const WINDOW_MARGIN: Duration = Duration::from_secs(60);

pub(super) fn remove_expired(shared: &Shared, directory: &Directory, now: UnixMicros) {
    while let Some(segment) = expired(shared, now) {
        let removed = directory.disk.remove(&segment.path).or_else(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        });
        if let Err(error) = removed.and_then(|()| directory.disk.sync_dir(&directory.path)) {
            tracing::warn!(path = %segment.path.display(), %error, "segment not removed, trying again later");
            return;
        }
        let mut held = shared.held.lock();
        held.segments.pop_front();
        shared.note_held(&held);
    }
}

/// The oldest segment, if it may go and should.
fn expired(shared: &Shared, now: UnixMicros) -> Option<Segment> {
    let held = shared.held.lock();
    let oldest = held.segments.front().filter(|_| held.segments.len() > 1)?;
    let age = now.since(oldest.last_at);
    let goes = match shared.bounds.usage {
        Usage::Log => {
            let should_go = held.bytes() > shared.bounds.retention_bytes || age > shared.bounds.retention_age;
            should_go && age > limits::DEDUP_WINDOW_MIN + WINDOW_MARGIN
        }
        Usage::Spool => true,
    };
    (goes && held.all_committed(oldest)).then(|| oldest.clone())
}
