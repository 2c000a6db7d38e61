//! Randomness: from the operating system in the program, from a seed in tests and simulation.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use uuid::Uuid;

/// Source of random numbers. Clones share one stream.
#[derive(Clone)]
pub struct Entropy(Arc<Mutex<StdRng>>);

impl Entropy {
    pub fn system() -> Self {
        Self(Arc::new(Mutex::new(StdRng::from_os_rng())))
    }

    pub fn seeded(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(StdRng::seed_from_u64(seed))))
    }

    pub fn next_u64(&self) -> u64 {
        self.0.lock().next_u64()
    }

    /// A random (version 4) UUID.
    pub fn uuid(&self) -> Uuid {
        let mut bytes = [0; 16];
        self.0.lock().fill_bytes(&mut bytes);
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }

    /// A duration between half of `base` and one and a half times it, so that repeated attempts of many do not meet.
    pub fn jitter(&self, base: Duration) -> Duration {
        base.mul_f64(self.0.lock().random_range(0.5..1.5))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_gives_same_stream() {
        let (one, two) = (Entropy::seeded(7), Entropy::seeded(7));
        assert_eq!((one.next_u64(), one.uuid()), (two.next_u64(), two.uuid()));
        assert_eq!(one.uuid().get_version_num(), 4);
    }
}
