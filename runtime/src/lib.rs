//! The only door to time, chance, shutdown and telemetry.
//!
//! Every other crate takes a [`Runtime`] instead of reading the wall clock or the operating system's entropy, so that a
//! whole pipeline can run on one seed: the simulation builds a `Runtime` whose clock follows tokio's paused time and
//! whose entropy comes from a seed; the program builds one from the operating system.
//!
//! Also here, because every crate needs the same: units of configuration values ([`units`]), the classes of errors
//! ([`ErrorKind`]) and the metric registry ([`Telemetry`]). Not here: anything that knows what an event is.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod clock;
pub mod entropy;
pub mod error;
pub mod shutdown;
pub mod telemetry;
pub mod units;

pub use clock::{Clock, UnixMicros};
pub use entropy::Entropy;
pub use error::ErrorKind;
pub use shutdown::Shutdown;
pub use telemetry::Telemetry;
pub use units::{ByteSize, DurationText};

/// Clock, entropy and telemetry of one process or of one simulated node. Cheap to clone.
#[derive(Clone)]
pub struct Runtime {
    pub clock: Clock,
    pub entropy: Entropy,
    pub telemetry: Telemetry,
}

impl Runtime {
    /// The operating system's clock and entropy, and an empty metric registry.
    pub fn system() -> Self {
        Self { clock: Clock::system(), entropy: Entropy::system(), telemetry: Telemetry::new() }
    }

    /// Time follows tokio's clock from `start` on (run it under `tokio::time::pause`), chance comes from `seed`.
    pub fn simulated(start: UnixMicros, seed: u64) -> Self {
        Self { clock: Clock::simulated(start), entropy: Entropy::seeded(seed), telemetry: Telemetry::new() }
    }

    /// Whether everything must happen on the caller's thread, as only then a seed decides the order of events.
    pub fn is_simulated(&self) -> bool {
        self.clock.is_simulated()
    }

    /// Threads that work can be divided among; the same number on every machine if simulated.
    pub fn parallelism(&self) -> usize {
        if self.is_simulated() { 2 } else { std::thread::available_parallelism().map_or(1, usize::from) }
    }
}
