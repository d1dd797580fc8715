//! Time.

use crate::domain::time::Timestamp;

/// Tells the time of day. Pauses and deadlines go through `tokio::time`, which the seeded world
/// pauses; this only stamps facts and compares with the times that clients name.
pub trait Clock: Send + Sync + 'static {
    /// The time now. May step either way; nothing depends on its being monotonic.
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp(chrono::Utc::now().timestamp_millis())
    }
}
