//! Positions that have changed since their client's feed told of them. Pure, and derived: which they
//! are stands with each position in the store, so that a new owner tells what a dead one had to.
//!
//! A change is not told at once but a second later, with all that came in between. So a position is
//! told of at most once a second, the last state always is, and a SKU that every order wants costs a
//! turn one look into a set.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use crate::domain::stock::StockKey;
use crate::domain::time::Timestamp;

/// From a position's first change to its event.
const TOLD_AFTER: Duration = Duration::from_secs(1);
/// Positions told of in one turn; the rest follow in the next.
const TOLD_MAX: usize = 256;

/// Positions that are to be told of; at most as many as the ledger has.
#[derive(Debug, Default)]
pub(crate) struct Untold {
    keys: BTreeSet<StockKey>,
    /// By when they are due, the first first.
    due: VecDeque<(Timestamp, StockKey)>,
}

impl Untold {
    /// A position has changed, or was found to have.
    pub(crate) fn changed(&mut self, key: &StockKey, now: Timestamp) {
        if self.keys.insert(key.clone()) {
            self.due.push_back((now.after(TOLD_AFTER), key.clone()));
        }
    }

    /// Takes those that are due. A clock that was set back makes none wait for it to catch up.
    pub(crate) fn take_due(&mut self, now: Timestamp) -> Vec<StockKey> {
        let latest = now.after(TOLD_AFTER);
        if self.next() > latest {
            self.due.iter_mut().for_each(|(at, _)| *at = latest.min(*at));
        }
        let due = self.due.iter().take(TOLD_MAX).take_while(|(at, _)| *at <= now).count();
        let taken: Vec<StockKey> = self.due.drain(..due).map(|(_, key)| key).collect();
        for key in &taken {
            self.keys.remove(key);
        }
        taken
    }

    /// When the next is due.
    pub(crate) fn next(&self) -> Timestamp {
        self.due.front().map_or(Timestamp::NEVER, |(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::ClientNo;

    fn key(n: usize) -> StockKey {
        (ClientNo(1), format!("S{n}").parse().unwrap())
    }

    #[test]
    fn a_hot_position_is_told_of_once_a_second_and_its_last_change_within_one() {
        let mut untold = Untold::default();
        let mut told = Vec::new();
        for ms in 0..=3_500 {
            if ms <= 2_400 {
                untold.changed(&key(1), Timestamp(ms));
            }
            told.extend(untold.take_due(Timestamp(ms)).into_iter().map(|_| ms));
        }
        // A change in the very turn that tells is told by it.
        assert_eq!(told, [1_000, 2_001, 3_002]);
        assert!(untold.keys.is_empty());
        assert_eq!(untold.next(), Timestamp::NEVER);
    }

    #[test]
    fn a_clock_that_is_set_back_delays_nothing_by_more_than_a_second() {
        let mut untold = Untold::default();
        untold.changed(&key(1), Timestamp(3_600_000));
        untold.changed(&key(2), Timestamp(100));
        assert_eq!(untold.take_due(Timestamp(100)), []);
        assert_eq!(untold.take_due(Timestamp(1_100)), [key(1), key(2)]);
    }

    #[test]
    fn many_are_told_over_several_turns_and_none_is_forgotten() {
        let mut untold = Untold::default();
        for n in 0..=TOLD_MAX {
            untold.changed(&key(n), Timestamp(5));
        }
        assert_eq!(untold.next(), Timestamp(1_005));
        assert_eq!(untold.take_due(Timestamp(1_004)), []);
        assert_eq!(untold.take_due(Timestamp(1_005)).len(), TOLD_MAX);
        assert_eq!(untold.next(), Timestamp(1_005));
        assert_eq!(untold.take_due(Timestamp(1_005)), [key(TOLD_MAX)]);
    }
}
