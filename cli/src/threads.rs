//! Threads that stand back for others.

/// How much less a background thread counts than one that answers requests: at this step about a third.
const NICE_STEPS: libc::c_int = 5;

/// Lowers the priority of the calling thread, so that compaction and indexing take the cores that requests leave.
pub fn stand_back() {
    // SAFETY: setpriority takes three integers and touches no memory of ours. On Linux, PRIO_PROCESS with 0 means the
    // calling thread alone. A refusal changes nothing, and nothing depends on it.
    #[cfg(target_os = "linux")]
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, NICE_STEPS);
    }
}
