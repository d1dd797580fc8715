//! Distributions that many threads add to and anybody may read, without a lock: fixed buckets of
//! relaxed atomics. Nothing here is global: whoever owns a thing owns what is measured of it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// In what a distribution counts, and where its buckets end.
#[derive(Debug, PartialEq, Eq)]
pub struct Scale {
    /// Recorded values in one unit that is reported: a billion when nanoseconds are recorded and
    /// seconds reported.
    pub per_unit: u64,
    /// The largest value of each bucket, ascending, as recorded; one more bucket takes the rest.
    pub bounds: &'static [u64],
}

/// For what ends with a write to a disk: from one that meets nothing but a page in the cache to a
/// caller that has given up. Nanoseconds, reported as seconds.
pub static WRITE_TIME: Scale = Scale {
    per_unit: 1_000_000_000,
    bounds: &[
        250_000,
        500_000,
        1_000_000,
        2_500_000,
        5_000_000,
        10_000_000,
        25_000_000,
        50_000_000,
        100_000_000,
        250_000_000,
        500_000_000,
        1_000_000_000,
        2_500_000_000,
        10_000_000_000,
    ],
};

/// A distribution in the making.
#[derive(Debug)]
pub struct Histogram {
    scale: &'static Scale,
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
    max: AtomicU64,
}

/// A distribution as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distribution {
    /// Its scale.
    pub scale: &'static Scale,
    /// Values in each bucket, those above the last bound at the end.
    pub counts: Vec<u64>,
    /// All values together, as recorded.
    pub sum: u64,
    /// The largest value, as recorded.
    pub max: u64,
}

impl Histogram {
    /// An empty one.
    #[must_use]
    pub fn new(scale: &'static Scale) -> Histogram {
        let counts = (0..=scale.bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Histogram { scale, counts, sum: AtomicU64::new(0), max: AtomicU64::new(0) }
    }

    /// Adds a value.
    pub fn record(&self, value: u64) {
        let bucket = self.scale.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket].fetch_add(1, Relaxed);
        self.sum.fetch_add(value, Relaxed);
        // Nearly always it is not the largest, and a look is cheaper than a write.
        if self.max.load(Relaxed) < value {
            self.max.fetch_max(value, Relaxed);
        }
    }

    /// Adds a duration to a distribution of seconds.
    pub fn record_time(&self, time: Duration) {
        let parts = time.as_nanos() * u128::from(self.scale.per_unit) / 1_000_000_000;
        self.record(u64::try_from(parts).unwrap_or(u64::MAX));
    }

    /// Reads it. What is added meanwhile may be in a part of it already.
    #[must_use]
    pub fn read(&self) -> Distribution {
        Distribution {
            scale: self.scale,
            counts: self.counts.iter().map(|count| count.load(Relaxed)).collect(),
            sum: self.sum.load(Relaxed),
            max: self.max.load(Relaxed),
        }
    }
}

impl Distribution {
    /// An empty one.
    #[must_use]
    pub fn empty(scale: &'static Scale) -> Distribution {
        Distribution { scale, counts: vec![0; scale.bounds.len() + 1], sum: 0, max: 0 }
    }

    /// How many values.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// All values together, in the unit that is reported.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.in_units(self.sum as f64)
    }

    /// The value that this share of all do not exceed, in the unit that is reported; straight
    /// between the ends of its bucket, and never beyond the largest. `None` of an empty one.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let wanted = self.count() as f64 * share.clamp(0.0, 1.0);
        let mut below = 0.0;
        let ends = self.scale.bounds.iter().copied().chain([u64::MAX]);
        let mut begins = 0;
        for (end, count) in ends.zip(&self.counts).map(|(end, count)| (end.min(self.max), *count as f64)) {
            if count > 0.0 && below + count >= wanted {
                let within = (wanted - below) / count;
                let begins = begins.min(end) as f64;
                return Some(self.in_units(begins + (end as f64 - begins) * within));
            }
            below += count;
            begins = end;
        }
        None
    }

    /// Adds what another of the same scale holds.
    pub fn add(&mut self, other: &Distribution) {
        debug_assert_eq!(self.scale, other.scale);
        for (own, more) in self.counts.iter_mut().zip(&other.counts) {
            *own += more;
        }
        self.sum = self.sum.wrapping_add(other.sum);
        self.max = self.max.max(other.max);
    }

    /// The buckets: the largest value of each in the unit that is reported, infinite for the last,
    /// and how many values fell into it.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> {
        let ends = self.scale.bounds.iter().map(|bound| self.in_units(*bound as f64));
        ends.chain([f64::INFINITY]).zip(self.counts.iter().copied())
    }

    fn in_units(&self, value: f64) -> f64 {
        value / self.scale.per_unit as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    static SCALE: Scale = Scale { per_unit: 1_000, bounds: &[10, 100, 1_000] };

    #[test]
    fn a_value_falls_into_the_first_bucket_that_it_does_not_exceed() {
        let histogram = Histogram::new(&SCALE);
        for value in [0, 10, 11, 100, 1_000, 1_001, u64::from(u32::MAX)] {
            histogram.record(value);
        }
        let read = histogram.read();
        assert_eq!(read.counts, [2, 2, 1, 2]);
        assert_eq!(read.buckets().map(|(end, _)| end).collect::<Vec<_>>(), [0.01, 0.1, 1.0, f64::INFINITY]);
    }

    #[test]
    fn durations_are_recorded_in_the_scale_s_parts_of_a_second() {
        let histogram = Histogram::new(&SCALE);
        histogram.record_time(Duration::from_micros(50_900));
        assert_eq!((histogram.read().sum, histogram.read().total()), (50, 0.05));
    }

    #[test]
    fn nothing_measured_has_no_quantile() {
        assert_eq!(Histogram::new(&SCALE).read().quantile(0.5), None);
        assert_eq!(Distribution::empty(&SCALE), Histogram::new(&SCALE).read());
    }

    proptest! {
        #[test]
        fn a_quantile_lies_in_the_bucket_of_the_value_that_it_stands_for(
            mut values in prop::collection::vec(0u64..3_000, 1..60), share in 0.0f64..=1.0,
        ) {
            let histogram = Histogram::new(&SCALE);
            values.iter().for_each(|value| histogram.record(*value));
            values.sort_unstable();
            let rank = ((values.len() as f64 * share).ceil() as usize).clamp(1, values.len());
            let exact = values[rank - 1];
            let bucket = SCALE.bounds.partition_point(|bound| *bound < exact);
            let begins = if bucket == 0 { 0 } else { SCALE.bounds[bucket - 1] };
            let ends = SCALE.bounds.get(bucket).copied().unwrap_or(u64::MAX).min(*values.last().unwrap());
            let found = histogram.read().quantile(share).unwrap() * 1_000.0;
            prop_assert!(found >= begins.min(ends) as f64 - 1e-6 && found <= ends as f64 + 1e-6, "{found} for {exact}");
        }

        #[test]
        fn adding_two_is_measuring_all(a in prop::collection::vec(0u64..3_000, 0..20), b in prop::collection::vec(0u64..3_000, 0..20)) {
            let of = |values: &[u64]| {
                let histogram = Histogram::new(&SCALE);
                values.iter().for_each(|value| histogram.record(*value));
                histogram.read()
            };
            let mut sum = of(&a);
            sum.add(&of(&b));
            prop_assert_eq!(sum, of(&[a, b].concat()));
        }
    }
}
