//! The signal that asks every task to finish what it has accepted and stop.

use tokio_util::sync::CancellationToken;

/// Asks tasks to stop. Clones share one state; once begun it never ends.
#[derive(Clone, Debug, Default)]
pub struct Shutdown(CancellationToken);

impl Shutdown {
    pub fn new() -> Self {
        Self::default()
    }

    /// A signal that begins with this one, and may begin alone: for stopping one stage before another.
    pub fn child(&self) -> Self {
        Self(self.0.child_token())
    }

    pub fn begin(&self) {
        self.0.cancel();
    }

    pub fn has_begun(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Resolves when shutdown begins; at once if it has.
    pub async fn begun(&self) {
        self.0.cancelled().await;
    }
}
