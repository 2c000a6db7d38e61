//! Who may come in: bytes in flight, held until there is room, and requests per second of one environment.
//!
//! In: sizes as they become known. Out: [`Held`], a guard that travels with the bytes into the batch and gives the room
//! back when they are durable or given up. Promise: the sum of all guards never exceeds the bound.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use runtime::UnixMicros;
use tokio::sync::Semaphore;

/// Room for bytes in flight. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    /// One permit per free byte. Who waits is served in order, and only those are woken for whom there is room.
    free: Arc<Semaphore>,
    max: usize,
}

/// There was no room within the time that a request may be held.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NoRoom;

impl Room {
    pub fn new(max: usize) -> Self {
        let max = max.min(Semaphore::MAX_PERMITS);
        Self { free: Arc::new(Semaphore::new(max)), max }
    }

    pub fn used(&self) -> usize {
        self.max - self.free.available_permits()
    }

    pub fn max(&self) -> usize {
        self.max
    }

    /// A guard over nothing yet.
    pub fn hold(&self) -> Held {
        Held { room: self.clone(), bytes: 0 }
    }

    async fn take(&self, bytes: usize, hold_max: Duration) -> Result<(), NoRoom> {
        let count = u32::try_from(bytes).map_err(|_| NoRoom)?;
        let permit = match self.free.try_acquire_many(count) {
            Ok(permit) => permit,
            Err(_) => match tokio::time::timeout(hold_max, self.free.acquire_many(count)).await {
                Ok(Ok(permit)) => permit,
                Ok(Err(_)) | Err(_) => return Err(NoRoom),
            },
        };
        // The guard counts bytes itself, as it grows and shrinks.
        permit.forget();
        Ok(())
    }
}

/// Bytes in flight that belong to one request, later to one batch.
#[derive(Debug)]
pub(crate) struct Held {
    room: Room,
    bytes: usize,
}

impl Held {
    /// Takes `bytes` more, waiting up to `hold_max` for others to give back theirs.
    pub async fn grow(&mut self, bytes: usize, hold_max: Duration) -> Result<(), NoRoom> {
        self.room.take(bytes, hold_max).await?;
        self.bytes += bytes;
        Ok(())
    }

    /// Gives back what is above `bytes`.
    pub fn shrink_to(&mut self, bytes: usize) {
        let surplus = self.bytes.saturating_sub(bytes);
        if surplus > 0 {
            self.bytes -= surplus;
            self.room.free.add_permits(surplus);
        }
    }

    /// Makes `other` part of this guard.
    pub fn absorb(&mut self, mut other: Self) {
        self.bytes += std::mem::take(&mut other.bytes);
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.room.free.add_permits(self.bytes);
        }
    }
}

/// Requests per second of one environment; a burst of one second's worth may come at once.
#[derive(Debug, Default)]
pub(crate) struct Rate {
    /// When the requests admitted so far would have come, had they come evenly.
    due_micros: AtomicI64,
}

impl Rate {
    /// Whether one more request fits at `now`; `per_second` 0 means that any number does.
    pub fn admits(&self, per_second: u32, now: UnixMicros) -> bool {
        if per_second == 0 {
            return true;
        }
        let step = 1_000_000 / i64::from(per_second).min(1_000_000);
        let admitted = self.due_micros.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |due| {
            let due = due.max(now.0) + step;
            (due <= now.0 + 1_000_000).then_some(due)
        });
        admitted.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn room_is_never_exceeded_and_comes_back() {
        let room = Room::new(100);
        let mut first = room.hold();
        first.grow(70, LONG).await.unwrap();
        let mut second = room.hold();
        assert_eq!(second.grow(31, Duration::from_millis(1)).await, Err(NoRoom));
        assert_eq!(second.bytes(), 0);
        first.shrink_to(60);
        second.grow(31, LONG).await.unwrap();
        first.absorb(second);
        assert_eq!((first.bytes(), room.used()), (91, 91));
        drop(first);
        assert_eq!(room.used(), 0);
    }

    #[tokio::test]
    async fn waiting_request_goes_on_when_another_ends() {
        let room = Room::new(10);
        let mut first = room.hold();
        first.grow(10, LONG).await.unwrap();
        let mut second = room.hold();
        let waiting = tokio::spawn(async move { second.grow(5, LONG).await.map(|()| second.bytes()) });
        tokio::task::yield_now().await;
        drop(first);
        assert_eq!(waiting.await.unwrap(), Ok(5));
        assert_eq!(room.used(), 0);
    }

    #[test]
    fn rate_allows_a_second_of_burst() {
        let rate = Rate::default();
        let now = UnixMicros(1_000_000_000);
        let admitted = (0..50).filter(|_| rate.admits(10, now)).count();
        assert_eq!(admitted, 10);
        assert!(rate.admits(10, UnixMicros(now.0 + 100_000)));
        assert!(!rate.admits(10, UnixMicros(now.0 + 100_000)));
        assert!((0..50).all(|_| rate.admits(0, now)));
    }
}
