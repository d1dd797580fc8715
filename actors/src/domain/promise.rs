//! What a client was promised of an order's time, and when it is told anew.
//!
//! A feed that repeated every estimate would say mostly noise: the pace is measured all the time. So an
//! order's client is told only of what would change its plans, and of one order only so often.

use serde::{Deserialize, Serialize};
use std::time::Duration;

use super::estimate::Estimate;
use super::time::Timestamp;

/// Whoever waits plans in no smaller steps.
const MOVED_MIN: Duration = Duration::from_secs(10);
/// Of a long wait only a larger part is news, in percent of the time that was promised.
const MOVED_PERCENT: u32 = 20;
/// A promise stands at least this long.
const STANDS_FOR: Duration = Duration::from_secs(60);
/// An order's client is told at most this often in all: who is told more believes none.
pub const TOLD_MAX: u8 = 10;

/// An estimate that an order's client was told of, in its feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToldEstimate {
    /// Its number in the feed.
    pub sequence: u64,
    /// The version that the order was at.
    pub version: u32,
    /// When it was told.
    pub at: Timestamp,
    /// What was estimated.
    pub estimate: Estimate,
}

/// What a client was last told of an order's estimate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promise {
    /// By when nine in ten such orders ship.
    pub p90: Timestamp,
    /// When it was told.
    pub at: Timestamp,
    /// How often its client was told in all; 0: never, and then it may expect the order at once.
    pub times: u8,
}

impl Promise {
    /// What the client of an order may expect that has been told nothing: it leaves as it came.
    #[must_use]
    pub fn none(accepted_at: Timestamp) -> Promise {
        Promise { p90: accepted_at, at: accepted_at, times: 0 }
    }

    /// What the client knows by all that it was told; `None` when that is nothing.
    #[must_use]
    pub fn last(all: &[ToldEstimate]) -> Option<Promise> {
        let last = all.last()?;
        let times = u8::try_from(all.len()).unwrap_or(u8::MAX);
        Some(Promise { p90: last.estimate.shipped_p90, at: last.at, times })
    }

    /// Whether the client is to be told what is estimated now.
    #[must_use]
    pub fn is_broken_by(&self, estimate: &Estimate, now: Timestamp) -> bool {
        // Of a clock that was set back nobody knows by how much: the promise may stand since long.
        let stands = self.times > 0 && now >= self.at && now.since(self.at) < STANDS_FOR;
        if self.times >= TOLD_MAX || stands {
            return false;
        }
        let later = estimate.shipped_p90.since(self.p90);
        let moved = later.max(self.p90.since(estimate.shipped_p90));
        moved > MOVED_MIN.max(self.p90.since(self.at) * MOVED_PERCENT / 100)
    }

    /// What the client knows once it was told.
    #[must_use]
    pub fn told(&self, estimate: &Estimate, now: Timestamp) -> Promise {
        Promise { p90: estimate.shipped_p90, at: now, times: self.times.saturating_add(1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(p90: i64) -> Estimate {
        Estimate { position: 0, shipped_p50: Timestamp(p90), shipped_p90: Timestamp(p90) }
    }

    #[test]
    fn an_order_that_leaves_soon_is_not_worth_a_word_and_one_that_does_not_is() {
        let nothing = Promise::none(Timestamp(1_000));
        assert!(!nothing.is_broken_by(&at(11_000), Timestamp(1_000)));
        assert!(nothing.is_broken_by(&at(11_001), Timestamp(1_000)));
        // Also one that should have left by now.
        assert!(nothing.is_broken_by(&at(20_000), Timestamp(20_000)));
    }

    #[test]
    fn a_promise_is_broken_by_what_is_more_than_ten_seconds_and_a_fifth_of_the_wait_away() {
        for (wait, news) in [(20_000, 10_000), (50_000, 10_000), (100_000, 20_000), (7_200_000, 1_440_000)] {
            let told = Promise::none(Timestamp(0)).told(&at(wait), Timestamp(0));
            let now = Timestamp(60_000);
            for sign in [1, -1] {
                assert!(!told.is_broken_by(&at(wait + sign * news), now), "{wait} {sign}");
                assert!(told.is_broken_by(&at(wait + sign * (news + 1)), now), "{wait} {sign}");
            }
        }
    }

    #[test]
    fn a_promise_stands_for_a_minute_whatever_is_estimated() {
        let told = Promise::none(Timestamp(0)).told(&at(30_000), Timestamp(5_000));
        assert!(!told.is_broken_by(&at(900_000), Timestamp(64_999)));
        assert!(told.is_broken_by(&at(900_000), Timestamp(65_000)));
        // A clock that is set back by a day does not silence it for a day.
        assert!(told.is_broken_by(&at(900_000), Timestamp(-86_400_000)));
    }

    proptest! {
        #[test]
        fn whatever_is_estimated_an_order_is_told_of_rarely_and_never_of_the_same_again(
            looks in prop::collection::vec((1i64..30_000, -500_000i64..5_000_000), 0..400)
        ) {
            let (mut promise, mut now, mut told) = (Promise::none(Timestamp(0)), Timestamp(0), Vec::new());
            for (pause, ahead) in looks {
                now = Timestamp(now.0 + pause);
                let estimate = at((now.0 + ahead).max(now.0));
                let before = promise;
                if promise.is_broken_by(&estimate, now) {
                    promise = promise.told(&estimate, now);
                    told.push(now.0);
                    prop_assert!((promise.p90.0 - before.p90.0).abs() > 10_000);
                    prop_assert!(!promise.is_broken_by(&estimate, Timestamp(now.0 + 3_600_000)));
                }
                prop_assert_eq!(usize::from(promise.times), told.len());
            }
            prop_assert!(told.len() <= usize::from(TOLD_MAX));
            prop_assert!(told.windows(2).all(|two| two[1] - two[0] >= 60_000));
        }
    }
}
