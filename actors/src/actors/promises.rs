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
