//! Keeps the allocator from holding on to what the program no longer uses.
//!
//! glibc gives threads arenas of their own, up to eight per core, and each keeps the memory of the largest thing that was ever
//! done in it. Under a steady load the resident set then grew by steps for as long as one looked (`bench soak`, test build,
//! 60 requests/s: 200 MiB after half a minute, 657 after fifteen), though no more was in use. Few arenas make it about
//! 250; giving back their free pages takes half of that again (anonymous memory after nine minutes: 214 MiB, then 80). The
//! core-time per event stayed the same.

use std::time::Duration;

use runtime::Clock;

/// Often enough that what a merge took is not counted against the program for long; a stall of some milliseconds.
const GIVE_BACK_EVERY: Duration = Duration::from_secs(20);

/// Sets bounds for the whole process. To be called before there are threads; elsewhere than on glibc there is nothing to do.
pub fn keep_little() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt takes two integers and changes settings of the allocator under its own lock. A refusal changes
    // nothing, and nothing depends on it.
    unsafe {
        // Enough for the threads that work at the same time; their own caches serve the small blocks.
        libc::mallopt(libc::M_ARENA_MAX, 4);
        // Larger blocks live outside of arenas and go back as soon as they are freed. Setting it also stops glibc from
        // raising it, and from raising the next one.
        libc::mallopt(libc::M_MMAP_THRESHOLD, 4 << 20);
        // Free memory at the end of an arena beyond this goes back at once.
        libc::mallopt(libc::M_TRIM_THRESHOLD, 32 << 20);
    }
}

/// Gives back free pages inside of arenas, now and then, for as long as the program runs.
pub async fn give_back(clock: Clock) {
    loop {
        clock.wait(GIVE_BACK_EVERY).await;
        #[cfg(all(target_os = "linux", target_env = "gnu"))]
        // SAFETY: malloc_trim takes an integer and works under the allocator's own locks.
        unsafe {
            libc::malloc_trim(0);
        }
    }
}
