//! Honest about time: the measured pace of a warehouse and what it promises.
//!
//! A forecast is queue + house: how long until the order is released at the measured pace, and
//! how long released orders have taken to ship. Forecasts are kept back until enough of them
//! came true, because a wrong promise is worse than none.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::ids::TransactionId;
use super::time::Timestamp;

/// Pace is counted over at most this long; older orders say little about now.
const WINDOW: Duration = Duration::from_secs(60);
/// Lead times and outcomes kept: enough for a steady 90th percentile.
const SAMPLES_MAX: usize = 256;
/// Outcomes needed before anything is promised, where nobody says otherwise.
pub const OUTCOMES_MIN: usize = 30;
/// A 90 % promise must have been kept at least this often, in percent.
const HIT_RATE_MIN: usize = 80;
/// Forecasts that wait for their outcome; an order beyond this is simply not measured.
const FORECASTS_MAX: usize = 4_096;

/// What the owner of a warehouse measures. In memory only: after a restart it measures anew.
#[derive(Debug)]
pub struct Pace {
    outcomes_min: usize,
    released: VecDeque<(Timestamp, u32)>,
    leads_ms: VecDeque<u64>,
    forecasts: BTreeMap<TransactionId, Timestamp>,
    outcomes: VecDeque<bool>,
}

/// The measured pace, as published to whoever answers clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PaceReport {
    /// Orders released a second over the last minute of work; `None` before there was any.
    pub orders_per_s: Option<f64>,
    /// Half of the orders shipped within this of their release.
    pub lead_p50: Duration,
    /// Nine tenths did.
    pub lead_p90: Duration,
    /// True once enough forecasts came true.
    pub calibrated: bool,
}

/// When an order will probably ship.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Estimate {
    /// Orders of this warehouse that are before it.
    pub position: u64,
    /// As likely before as after.
    pub shipped_p50: Timestamp,
    /// Nine in ten ship by then.
    pub shipped_p90: Timestamp,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace::new(OUTCOMES_MIN)
    }
}

impl Pace {
    /// Nothing measured; promises are made once the outcome of this many is known.
    #[must_use]
    pub fn new(outcomes_min: usize) -> Pace {
        Pace {
            outcomes_min,
            released: VecDeque::new(),
            leads_ms: VecDeque::new(),
            forecasts: BTreeMap::new(),
            outcomes: VecDeque::new(),
        }
    }

    /// Counts orders that were released.
    pub fn released(&mut self, now: Timestamp, orders: u32) {
        if orders > 0 {
            self.released.push_back((now, orders));
        }
        while self.released.front().is_some_and(|(at, _)| now.since(*at) > WINDOW) {
            self.released.pop_front();
        }
    }

    /// Remembers what would have been promised for an order, to be held against its outcome.
    pub fn forecast(&mut self, order: TransactionId, p90: Timestamp) {
        if self.forecasts.len() < FORECASTS_MAX {
            self.forecasts.insert(order, p90);
        }
    }

    /// Counts an order that shipped `lead` after its release.
    pub fn shipped(&mut self, order: TransactionId, lead: Duration, now: Timestamp) {
        push(&mut self.leads_ms, u64::try_from(lead.as_millis()).unwrap_or(u64::MAX));
        if let Some(promised) = self.forecasts.remove(&order) {
            push(&mut self.outcomes, now <= promised);
        }
    }

    /// An order left without shipping: its forecast has no outcome.
    pub fn ended(&mut self, order: TransactionId) {
        self.forecasts.remove(&order);
    }

    /// What is measured now.
    #[must_use]
    pub fn report(&self, now: Timestamp) -> PaceReport {
        let mut leads: Vec<u64> = self.leads_ms.iter().copied().collect();
        leads.sort_unstable();
        let hits = self.outcomes.iter().filter(|hit| **hit).count();
        let outcomes = self.outcomes.len();
        PaceReport {
            orders_per_s: self.orders_per_s(now),
            lead_p50: percentile(&leads, 50),
            lead_p90: percentile(&leads, 90),
            calibrated: outcomes >= self.outcomes_min && hits * 100 >= outcomes * HIT_RATE_MIN,
        }
    }

    fn orders_per_s(&self, now: Timestamp) -> Option<f64> {
        let (first, _) = self.released.front()?;
        let orders: u64 = self.released.iter().map(|(_, n)| u64::from(*n)).sum();
        // Less than a second of work would make one wave look like a thousand orders a second.
        let seconds = now.since(*first).as_secs_f64().max(1.0);
        Some(orders as f64 / seconds)
    }
}

impl PaceReport {
    /// How long `orders` take to be released; `None` before any pace was measured.
    #[must_use]
    pub fn time_for(&self, orders: u64) -> Option<Duration> {
        let pace = self.orders_per_s.filter(|p| *p > 0.0)?;
        // A backlog that takes longer than a year is answered with a year.
        Some(Duration::from_secs_f64((orders as f64 / pace).min(365.0 * 86_400.0)))
    }

    /// When an order will probably ship: `position` orders are before it, or it was released at
    /// `released_at`. The caller publishes it only when the report is calibrated.
    #[must_use]
    pub fn estimate(
        &self,
        position: u64,
        released_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Option<Estimate> {
        let from = match released_at {
            Some(at) => at,
            None => now.after(self.time_for(position)?),
        };
        Some(Estimate {
            position: if released_at.is_some() { 0 } else { position },
            shipped_p50: from.after(self.lead_p50).max(now),
            shipped_p90: from.after(self.lead_p90).max(now),
        })
    }
}

fn push<T>(ring: &mut VecDeque<T>, sample: T) {
    if ring.len() == SAMPLES_MAX {
        ring.pop_front();
    }
    ring.push_back(sample);
}

fn percentile(sorted: &[u64], percent: usize) -> Duration {
    let index = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    Duration::from_millis(sorted.get(index).copied().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::PartitionId;

    fn id(n: u64) -> TransactionId {
        TransactionId::new(Timestamp(1), PartitionId(1), n)
    }

    #[test]
    fn nothing_is_promised_before_enough_promises_came_true() {
        let mut pace = Pace::default();
        for n in 0..OUTCOMES_MIN as u64 {
            assert!(!pace.report(Timestamp(0)).calibrated, "after {n}");
            pace.forecast(id(n), Timestamp(1_000));
            pace.shipped(id(n), Duration::from_millis(500), Timestamp(900));
        }
        assert!(pace.report(Timestamp(0)).calibrated);
    }

    #[test]
    fn promises_that_were_broken_are_not_made_again() {
        let mut pace = Pace::default();
        for n in 0..100 {
            pace.forecast(id(n), Timestamp(1_000));
            pace.shipped(id(n), Duration::from_millis(500), Timestamp(if n % 3 == 0 { 2_000 } else { 900 }));
        }
        assert!(!pace.report(Timestamp(0)).calibrated);
    }

    #[test]
    fn the_pace_is_that_of_the_last_minute() {
        let mut pace = Pace::default();
        pace.released(Timestamp(0), 1_000_000);
        for s in 0..61 {
            pace.released(Timestamp(100_000 + s * 1_000), 10);
        }
        let per_s = pace.report(Timestamp(160_000)).orders_per_s.unwrap();
        assert!((9.0..11.0).contains(&per_s), "{per_s}");
    }
}
