//! The paused clock of the world as a wall clock, and its steps.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;
use tokio::time::Instant;

use crate::domain::time::Timestamp;
use crate::ports::clock::Clock;

/// 24 November 2026, so that traces read well.
const BEGINS: Timestamp = Timestamp(1_795_478_400_000);
/// The clock is never more than this from the true time: what a wrong zone or a bad server does.
const OFF_MAX_MS: i64 = 3 * 3_600_000;

/// How far a node's clock may drift from the world's either way, in milliseconds.
const NODE_OFF_MAX_MS: i64 = 3_000;

/// The wall clock.
pub(crate) struct WorldClock {
    began: Instant,
    off_ms: AtomicI64,
    ahead_max_ms: AtomicI64,
    settings: AtomicUsize,
}

impl WorldClock {
    /// Begins now; call it inside the world's runtime.
    pub(crate) fn new() -> WorldClock {
        let (off_ms, ahead_max_ms) = (AtomicI64::new(0), AtomicI64::new(0));
        WorldClock { began: Instant::now(), off_ms, ahead_max_ms, settings: AtomicUsize::new(0) }
    }

    /// Steps the clock by `ms`, as far as it may be off.
    pub(crate) fn step(&self, ms: i64) {
        let off = (self.off_ms.load(SeqCst) + ms).clamp(-OFF_MAX_MS, OFF_MAX_MS);
        self.off_ms.store(off, SeqCst);
        self.ahead_max_ms.fetch_max(off, SeqCst);
        self.settings.fetch_add(1, SeqCst);
    }

    /// Puts the clock right.
    pub(crate) fn correct(&self) {
        self.off_ms.store(0, SeqCst);
        self.settings.fetch_add(1, SeqCst);
    }

    /// How often it was set: times between which it was cannot be compared.
    pub(crate) fn settings(&self) -> usize {
        self.settings.load(SeqCst)
    }

    /// How far it was ever ahead: stamps may be this far in the future.
    pub(crate) fn ahead_max(&self) -> Duration {
        Duration::from_millis(self.ahead_max_ms.load(SeqCst).unsigned_abs())
    }

    /// True time since the world began, for the trace.
    pub(crate) fn elapsed_ms(&self) -> u128 {
        self.began.elapsed().as_millis()
    }
}

/// A node's own clock: it began a little off and runs a little fast or slow.
pub(crate) struct NodeClock {
    world: Arc<WorldClock>,
    began: Instant,
    off_ms: i64,
    /// How much it gains on the world's, in millionths.
    drift_ppm: i64,
}

impl NodeClock {
    /// Begins now.
    pub(crate) fn new(world: Arc<WorldClock>, off_ms: i64, drift_ppm: i64) -> NodeClock {
        // Stamps may be as far in the future as a clock that gains is ahead within a world.
        world.ahead_max_ms.fetch_add(NODE_OFF_MAX_MS, SeqCst);
        NodeClock { world, began: Instant::now(), off_ms, drift_ppm }
    }

    /// The earliest that a node's clock may say while the world's says `now`.
    pub(crate) fn earliest(now: Timestamp) -> Timestamp {
        Timestamp(now.0 - NODE_OFF_MAX_MS)
    }
}

impl Clock for NodeClock {
    fn now(&self) -> Timestamp {
        let Timestamp(now) = self.world.now();
        let lived = i64::try_from(self.began.elapsed().as_millis()).unwrap_or(i64::MAX);
        let off = self.off_ms + lived.saturating_mul(self.drift_ppm) / 1_000_000;
        Timestamp(now + off.clamp(-NODE_OFF_MAX_MS, NODE_OFF_MAX_MS))
    }
}

impl Clock for WorldClock {
    fn now(&self) -> Timestamp {
        let Timestamp(true_ms) = BEGINS.after(self.began.elapsed());
        Timestamp(true_ms + self.off_ms.load(SeqCst))
    }
}
