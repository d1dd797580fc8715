//! What clients know of the estimates of open orders, and when to look again whether that still holds.
//! Pure, and derived: what was told stands with each order in the store, so that a new owner repeats
//! nothing.
//!
//! The pace moves with every turn; a look at all orders in each would cost more than working them. So
//! some are looked at every few seconds, one after the other, and few of them are told at a time: when
//! a whole backlog moves its clients learn it over a while, and the turns stay short.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Duration;

use super::book::OpenOrder;
use super::options::Snapshot;
use crate::domain::ids::TransactionId;
use crate::domain::promise::Promise;
use crate::domain::time::Timestamp;
use crate::ports::store::NewEstimate;

/// Between two looks. Nobody plans in shorter steps.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Orders that one look takes in: a tenth of a millisecond.
const LOOKED_AT_MAX: usize = 1_024;
/// Orders that one look tells of.
const TOLD_MAX: usize = 64;

/// What is known, and the next look.
#[derive(Debug, Default)]
pub(crate) struct Promises {
    /// Of open orders that their client was told of.
    told: BTreeMap<TransactionId, Promise>,
    /// The last order of the last look; the next one goes on behind it.
    looked_to: Option<TransactionId>,
    next_at: Timestamp,
}

impl Promises {
    /// What the owner before has told; the first look is a pause away.
    pub(crate) fn restore(told: &[(TransactionId, Promise)], now: Timestamp) -> Promises {
        Promises { told: told.iter().copied().collect(), looked_to: None, next_at: now.after(LOOK_EVERY) }
    }

    /// When the next look is due.
    pub(crate) fn next_at(&self) -> Timestamp {
        self.next_at
    }

    /// An order is done.
    pub(crate) fn forget(&mut self, id: TransactionId) {
        self.told.remove(&id);
    }

    /// Whose clients are to be told what; nothing before the look is due. `measured` is what a status
    /// document says as well, so that an event and a document that are read together agree.
    pub(crate) fn look(
        &mut self,
        orders: &BTreeMap<TransactionId, OpenOrder>,
        measured: &Snapshot,
        now: Timestamp,
    ) -> Vec<NewEstimate> {
        let latest = now.after(LOOK_EVERY);
        // A clock that was set back makes no look wait for it to catch up.
        if now < self.next_at && self.next_at <= latest {
            return Vec::new();
        }
        self.next_at = latest;
        if !measured.pace.calibrated {
            return Vec::new();
        }
        let from = self.looked_to.take().map_or(Bound::Unbounded, Bound::Excluded);
        let mut new = Vec::new();
        for (looked_at, (id, open)) in orders.range((from, Bound::Unbounded)).enumerate() {
            if looked_at == LOOKED_AT_MAX || new.len() == TOLD_MAX {
                break;
            }
            self.looked_to = Some(*id);
            new.extend(self.look_at(open, measured, now));
        }
        // At the end of the orders the next look begins with the first.
        if orders.last_key_value().map(|(last, _)| *last) == self.looked_to {
            self.looked_to = None;
        }
        new
    }

    fn look_at(&mut self, open: &OpenOrder, measured: &Snapshot, now: Timestamp) -> Option<NewEstimate> {
        let order = &open.order;
        if order.is_aside() || !order.may_begin(now) {
            return None;
        }
        let released_at = order.releases().last().map(|release| release.at);
        let estimate = measured.estimate(order.state(), order.accepted_at, released_at, now)?;
        let before = self.told.get(&order.id).copied().unwrap_or_else(|| Promise::none(order.accepted_at));
        if !before.is_broken_by(&estimate, now) {
            return None;
        }
        self.told.insert(order.id, before.told(&estimate, now));
        Some(NewEstimate { id: order.id, client: open.client, version: open.version, at: now, estimate })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::turn::tests::stored;
    use crate::domain::estimate::{Estimate, PaceReport};
    use crate::domain::fact::{OrderFact, Units};
    use std::collections::BTreeSet;

    const LOOK_MS: i64 = 5_000;
    /// Orders are accepted and allocated at this time.
    const FROM: i64 = 1_000;

    fn backlog(orders: u64) -> BTreeMap<TransactionId, OpenOrder> {
        let allocated = || vec![OrderFact::Allocated { units: Units::Whole }];
        let open = |n| OpenOrder::fold(&stored(n, allocated())).unwrap().unwrap();
        (1..=orders).map(open).map(|open| (open.order.id, open)).collect()
    }

    /// A warehouse that has this many orders to release, one a second.
    fn measured(unreleased: u64) -> Snapshot {
        let pace = PaceReport { orders_per_s: Some(1.0), calibrated: true, ..PaceReport::default() };
        Snapshot { unreleased, pace, ..Snapshot::default() }
    }

    /// All that is told over some looks.
    fn told(
        promises: &mut Promises,
        orders: &BTreeMap<TransactionId, OpenOrder>,
        measured: &Snapshot,
        looks: std::ops::Range<i64>,
    ) -> Vec<NewEstimate> {
        looks.flat_map(|n| promises.look(orders, measured, Timestamp(FROM + n * LOOK_MS))).collect()
    }

    #[test]
    fn a_backlog_that_moves_is_told_over_many_looks_and_every_order_of_it_once() {
        let orders = backlog(1_000);
        let mut promises = Promises::restore(&[], Timestamp(FROM));
        assert_eq!(promises.look(&orders, &measured(900), Timestamp(FROM + LOOK_MS - 1)), []);
        let first = promises.look(&orders, &measured(900), Timestamp(FROM + LOOK_MS));
        assert_eq!(first.len(), TOLD_MAX);
        let Estimate { position, shipped_p90, .. } = first[0].estimate;
        assert_eq!((position, shipped_p90), (900, Timestamp(FROM + LOOK_MS + 900_000)));
        assert_eq!(promises.look(&orders, &measured(900), Timestamp(FROM + LOOK_MS)), [], "once a pause");
        let rest = told(&mut promises, &orders, &measured(900), 2..17);
        let of: BTreeSet<TransactionId> = first.iter().chain(&rest).map(|new| new.id).collect();
        assert_eq!((rest.len(), of.len()), (1_000 - TOLD_MAX, 1_000));
        // What holds within a fifth is not told again.
        assert_eq!(told(&mut promises, &orders, &measured(800), 17..40), []);
        // It goes on where it stopped, from the end to the beginning as well.
        let again = told(&mut promises, &orders, &measured(200), 40..56);
        assert_eq!(again.iter().map(|new| new.id).collect::<BTreeSet<_>>().len(), 1_000);
    }

    #[test]
    fn more_orders_than_one_look_takes_in_are_all_looked_at() {
        let orders = backlog(2 * LOOKED_AT_MAX as u64 + 7);
        let last = *orders.last_key_value().unwrap().0;
        let all_but_one: Vec<_> = orders.keys().filter(|id| **id != last).copied().collect();
        let known = Promise { p90: Timestamp(FROM + 900_000), at: Timestamp(FROM), times: 1 };
        let known: Vec<_> = all_but_one.into_iter().map(|id| (id, known)).collect();
        let mut promises = Promises::restore(&known, Timestamp(FROM));
        assert_eq!(told(&mut promises, &orders, &measured(900), 1..3), []);
        let third = told(&mut promises, &orders, &measured(900), 3..4);
        assert_eq!(third.iter().map(|new| new.id).collect::<Vec<_>>(), [last]);
    }

    #[test]
    fn a_new_owner_repeats_nothing_that_was_told() {
        let orders = backlog(10);
        let mut promises = Promises::restore(&[], Timestamp(FROM));
        let before = told(&mut promises, &orders, &measured(900), 1..2);
        assert_eq!(before.len(), 10);
        let none = |id| (id, Promise::none(Timestamp(FROM)));
        let stored: Vec<_> =
            before.iter().map(|new| (new.id, none(new.id).1.told(&new.estimate, new.at))).collect();
        let mut next = Promises::restore(&stored, Timestamp(FROM + 2 * LOOK_MS));
        assert_eq!(told(&mut next, &orders, &measured(900), 2..20), []);
    }

    #[test]
    fn nothing_is_told_of_what_nobody_can_promise_or_waits_for_stock() {
        let mut promises = Promises::restore(&[], Timestamp(FROM));
        let mut unknown = measured(900);
        unknown.pace.calibrated = false;
        assert_eq!(told(&mut promises, &backlog(3), &unknown, 1..9), []);
        let paused = Snapshot { paused: true, ..measured(900) };
        assert_eq!(told(&mut promises, &backlog(3), &paused, 9..19), []);
        let waits = OpenOrder::fold(&stored(1, vec![OrderFact::Backordered])).unwrap().unwrap();
        let waits = [(waits.order.id, waits)].into();
        assert_eq!(told(&mut promises, &waits, &measured(900), 19..29), []);
    }

    #[test]
    fn a_clock_that_is_set_back_stops_no_look() {
        let orders = backlog(1);
        let mut promises = Promises::restore(&[], Timestamp(FROM + 86_400_000));
        assert_eq!(promises.look(&orders, &measured(900), Timestamp(FROM)).len(), 1);
    }
}
