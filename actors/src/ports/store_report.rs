//! What a store says about its own work, for operators. Nothing decides by it.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use super::measure::{Distribution, Histogram, Scale, WRITE_TIME};

/// From one thing to the largest batches.
static COMMIT_ITEMS: Scale =
    Scale { per_unit: 1, bounds: &[1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000] };

/// What a backend counts while it works. One writer, any number of readers.
#[derive(Debug)]
pub struct StoreVitals {
    time: Histogram,
    items: Histogram,
    capacity: usize,
    depth: AtomicUsize,
    refused: AtomicU64,
}

/// What a store has done since it was opened.
#[derive(Clone, Debug)]
pub struct StoreReport {
    /// How long commits took until they were durable, in seconds.
    pub commit_time: Distribution,
    /// Things (facts, positions, lane entries) written by a commit.
    pub commit_items: Distribution,
    /// Writes that wait for the writer.
    pub queue_depth: usize,
    /// Writes that may wait; 0 when nothing queues.
    pub queue_capacity: usize,
    /// Writes that were refused because the queue was full.
    pub queue_refused: u64,
}

impl StoreVitals {
    /// Of a store whose queue takes this many writes.
    #[must_use]
    pub fn new(capacity: usize) -> StoreVitals {
        StoreVitals {
            time: Histogram::new(&WRITE_TIME),
            items: Histogram::new(&COMMIT_ITEMS),
            capacity,
            depth: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// A write is about to be queued.
    pub fn queues(&self) {
        self.depth.fetch_add(1, Relaxed);
    }

    /// It was not taken.
    pub fn refuses(&self) {
        self.depth.fetch_sub(1, Relaxed);
        self.refused.fetch_add(1, Relaxed);
    }

    /// The writer has taken this many writes out of the queue.
    pub fn takes(&self, writes: usize) {
        self.depth.fetch_sub(writes, Relaxed);
    }

    /// A commit of this many things is durable.
    pub fn commits(&self, items: usize, time: Duration) {
        self.items.record(items as u64);
        self.time.record_time(time);
    }

    /// What was counted.
    #[must_use]
    pub fn read(&self) -> StoreReport {
        StoreReport {
            commit_time: self.time.read(),
            commit_items: self.items.read(),
            queue_depth: self.depth.load(Relaxed),
            queue_capacity: self.capacity,
            queue_refused: self.refused.load(Relaxed),
        }
    }
}

impl Default for StoreReport {
    fn default() -> StoreReport {
        StoreVitals::new(0).read()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_as_deep_as_what_was_neither_taken_nor_refused() {
        let vitals = StoreVitals::new(2);
        (0..3).for_each(|_| vitals.queues());
        vitals.refuses();
        assert_eq!((vitals.read().queue_depth, vitals.read().queue_refused), (2, 1));
        vitals.takes(2);
        vitals.commits(7, Duration::from_millis(3));
        let read = vitals.read();
        assert_eq!((read.queue_depth, read.commit_items.sum, read.commit_time.count()), (0, 7, 1));
    }
}
