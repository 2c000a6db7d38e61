//! Long computations on a thread that serves many connections.

use tokio::runtime::{Handle, RuntimeFlavor};

/// Work on more bytes than this takes a millisecond or more.
pub(crate) const HEAVY_BYTES: usize = 1 << 20;

/// Runs `work` on `bytes` bytes. If these are many and the runtime has other threads, this thread's other tasks move
/// to them first.
pub(crate) fn run<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    let has_others = || Handle::try_current().is_ok_and(|handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread);
    if bytes > HEAVY_BYTES && has_others() { tokio::task::block_in_place(work) } else { work() }
}
