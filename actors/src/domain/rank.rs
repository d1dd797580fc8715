//! Who is first when stock is scarce.

use super::command::{OrderCommand, Priority};
use super::ids::TransactionId;
use super::time::Timestamp;

/// An order's place among those that wait for the same SKU: less is first.
///
/// Priority, then the date its client asked for (none is last), then age, then the id, so that
/// two orders never tie. It does not change while the order lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    priority: Priority,
    ship_by: Timestamp,
    accepted: Timestamp,
    id: TransactionId,
}

impl Rank {
    /// The rank of an order.
    #[must_use]
    pub fn new(id: TransactionId, command: &OrderCommand, accepted: Timestamp) -> Rank {
        Rank {
            priority: command.priority,
            ship_by: command.requested_ship_by.unwrap_or(Timestamp::NEVER),
            accepted,
            id,
        }
    }

    /// The order that holds this rank.
    #[must_use]
    pub fn order(&self) -> TransactionId {
        self.id
    }
}
