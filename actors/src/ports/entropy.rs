//! Randomness: ids, nonces, jitter.

use rand::{Rng, SeedableRng, rngs::StdRng};

/// Gives random numbers.
pub trait Entropy: Send + Sync + 'static {
    /// 64 random bits.
    fn next(&self) -> u64;

    /// A number below `bound`, or 0 when the bound is 0; the bias is below 2^-32 for small bounds.
    fn below(&self, bound: u64) -> u64 {
        self.next().checked_rem(bound).unwrap_or(0)
    }
}

/// The process's cryptographic generator, seeded by the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn next(&self) -> u64 {
        rand::rng().random()
    }
}

/// A generator that repeats itself from a seed.
#[derive(Debug)]
pub struct SeededEntropy(parking_lot::Mutex<StdRng>);

impl SeededEntropy {
    /// Starts the sequence that belongs to `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        SeededEntropy(parking_lot::Mutex::new(StdRng::seed_from_u64(seed)))
    }
}

impl Entropy for SeededEntropy {
    fn next(&self) -> u64 {
        self.0.lock().random()
    }
}
