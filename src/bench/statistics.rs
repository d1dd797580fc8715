//! Medians and spreads of a handful of runs; latencies in a histogram.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// The longest latency that is told apart, in microseconds: a minute.
const LATENCY_MAX_US: u64 = 60_000_000;

/// The same thing measured several times.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Series(pub(crate) Vec<f64>);

impl Series {
    /// The middle value, or the mean of the two in the middle; NaN without any.
    pub(crate) fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let half = sorted.len() / 2;
        match sorted.len() {
            0 => f64::NAN,
            n if n % 2 == 1 => sorted[half],
            _ => f64::midpoint(sorted[half - 1], sorted[half]),
        }
    }

    /// The least and the greatest value; NaN without any.
    pub(crate) fn range(&self) -> (f64, f64) {
        let least = self.0.iter().copied().reduce(f64::min);
        let greatest = self.0.iter().copied().reduce(f64::max);
        (least.unwrap_or(f64::NAN), greatest.unwrap_or(f64::NAN))
    }

    /// Each of these over the other's of the same round.
    pub(crate) fn over(&self, other: &Series) -> Series {
        Series(self.0.iter().zip(&other.0).map(|(a, b)| a / b).collect())
    }
}

impl FromIterator<f64> for Series {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Series {
        Series(values.into_iter().collect())
    }
}

/// Latencies to a thousandth of their value.
pub(super) struct Latencies(Histogram<u64>);

impl Latencies {
    /// None yet.
    pub(super) fn new() -> Latencies {
        // Bounds that the crate takes: from 1, at least twice that, up to five digits.
        Latencies(Histogram::new_with_bounds(1, LATENCY_MAX_US, 3).expect("valid bounds"))
    }

    /// Counts one; above the longest it counts as that.
    pub(super) fn record(&mut self, latency: Duration) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.0.saturating_record(us.max(1));
    }

    /// The latency in milliseconds that this share, 0.0 to 1.0, does not exceed.
    pub(super) fn quantile_ms(&self, share: f64) -> f64 {
        self.0.value_at_quantile(share) as f64 / 1_000.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(values: &[f64]) -> Series {
        values.iter().copied().collect()
    }

    #[test]
    fn a_median_is_the_middle_whatever_the_order() {
        assert_eq!(series(&[3.0, 1.0, 200.0]).median(), 3.0);
        assert_eq!(series(&[4.0, 1.0, 2.0, 300.0]).median(), 3.0);
        assert_eq!(series(&[7.0]).median(), 7.0);
        assert!(series(&[]).median().is_nan());
    }

    #[test]
    fn a_range_names_both_ends_and_a_ratio_pairs_rounds() {
        assert_eq!(series(&[3.0, 1.0, 2.0]).range(), (1.0, 3.0));
        assert_eq!(series(&[1.0, 9.0]).over(&series(&[2.0, 3.0])), series(&[0.5, 3.0]));
    }

    #[test]
    fn quantiles_follow_what_was_recorded() {
        let mut latencies = Latencies::new();
        for ms in 1..=1_000 {
            latencies.record(Duration::from_millis(ms));
        }
        assert!((latencies.quantile_ms(0.5) - 500.0).abs() < 1.0);
        assert!((latencies.quantile_ms(0.99) - 990.0).abs() < 1.0);
        latencies.record(Duration::from_secs(3_600));
        assert!((latencies.quantile_ms(1.0) - 60_000.0).abs() < 100.0);
    }
}
