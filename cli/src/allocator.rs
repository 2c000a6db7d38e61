//! Keeps the allocator from holding on to what the program no longer uses.
//!
//! Every thread of a blocking pool that lives for a moment is given an arena of its own by glibc, up to eight per core; each
//! keeps the memory of the largest thing that was ever done in it. Under a steady load the resident set then grew by steps
//! for as long as one looked (`bench soak`: 200 MiB after half a minute, 657 after fifteen), though no more was in use.
//! With few arenas, and with large blocks outside of them, it stays below 200 at the same core-time.

/// Enough for the threads that work at the same time; their own caches serve the small blocks.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const ARENAS_MAX: libc::c_int = 4;
/// Blocks from this size on are given back as soon as they are freed. Setting it also stops glibc from raising it.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const OUTSIDE_BYTES_MIN: libc::c_int = 4 << 20;
/// Free memory at the end of an arena beyond this is given back.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const SPARE_BYTES_MAX: libc::c_int = 32 << 20;

/// To be called before there are threads. A refusal changes nothing, and nothing depends on it.
pub fn keep_little() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt takes two integers and changes settings of the allocator under its own lock.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, ARENAS_MAX);
        libc::mallopt(libc::M_MMAP_THRESHOLD, OUTSIDE_BYTES_MIN);
        libc::mallopt(libc::M_TRIM_THRESHOLD, SPARE_BYTES_MAX);
    }
}
