//! An order: where every one of its units is, and what it owes the world.
//!
//! Every unit of a line is in exactly one place, and the state is a total function of the places:
//!
//! ```text
//! unallocated ─▶ allocated ─▶ in a release: released ▸ picking ▸ packed ▸ manifested ─▶ shipped
//!      │  ▲  ▲       ▲            │
//!      ▼  │  └───────┼── missing ◀┘          (short pick: to be allocated again)
//!  waiting for stock ┘            └─▶ back to allocated (WMS refused) or cancelled
//! ```
//!
//! `apply` is the only way an order changes; `decide` says which facts an input means.

mod apply;
mod booking;
mod decide;

pub use booking::Booking;
pub use decide::NotPossible;

use smallvec::SmallVec;

use super::command::{Allocation, OrderCommand};
use super::fact::{FailedCause, LineUnits};
use super::ids::{LineNo, Quantity, ReleaseId, Sku, TransactionId};
use super::rank::Rank;
use super::release::{PackedCartonState, Release};
use super::state::State;
use super::time::Timestamp;
use std::time::Duration;

/// An order as its facts leave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Its transaction.
    pub id: TransactionId,
    /// Its place among those that wait.
    pub rank: Rank,
    /// What it does when stock is short.
    pub allocation: Allocation,
    /// Nothing is reserved before.
    pub not_before: Option<Timestamp>,
    /// What its client asked for.
    pub requested_ship_by: Option<Timestamp>,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// How the warehouse is to ship it.
    pub service_level: String,
    lines: Vec<Line>,
    releases: Vec<Release>,
    asks: Vec<Ask>,
    waiting_since: Option<Timestamp>,
    failed: Option<FailedCause>,
}

/// One line: `ordered` is the sum of the other places and of what the releases hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The client's number.
    pub number: LineNo,
    /// What is ordered.
    pub sku: Sku,
    /// Units ordered.
    pub ordered: Quantity,
    /// Not looked at yet.
    pub unallocated: Quantity,
    /// Waits for stock.
    pub backordered: Quantity,
    /// Reserved and in no release.
    pub allocated: Quantity,
    /// Missing at the pick and not placed again yet.
    pub missing: Quantity,
    /// Ended by a cancellation.
    pub cancelled: Quantity,
    /// Ended by a refusal.
    pub refused: Quantity,
    /// Gone with a carrier.
    pub shipped: Quantity,
}

impl Line {
    /// Units that want stock.
    #[must_use]
    pub fn unplaced(&self) -> Quantity {
        self.missing + self.unallocated + self.backordered
    }
}

/// A client's request to cancel, while the WMS decides about some releases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The cancellation.
    pub request: TransactionId,
    /// The lines it names; `None` means all.
    pub lines: Option<SmallVec<[LineNo; 4]>>,
    /// The releases not answered yet.
    pub open: SmallVec<[u16; 2]>,
    /// The releases answered.
    pub answered: SmallVec<[u16; 2]>,
    /// What it has cancelled so far.
    pub cancelled: LineUnits,
}

/// What an order does to the stock of one of its lines. Differences of footprints are how facts
/// change stock; there is no second table of effects that could disagree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// The SKU.
    pub sku: Sku,
    /// Units held for this line.
    pub reserved: u64,
    /// Units it waits for.
    pub backordered: u64,
    /// Units that left the warehouse, ever.
    pub shipped: u64,
    /// Units that it turned suspect, ever.
    pub missing: u64,
}

/// A question that an order owes the WMS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CancelQuestion {
    /// The cancellation it is asked for.
    pub request: TransactionId,
    /// The release.
    pub release: ReleaseId,
    /// The lines; `None` means all.
    pub lines: Option<SmallVec<[LineNo; 4]>>,
}

impl Order {
    /// An order as it is when accepted: nothing of it is allocated.
    #[must_use]
    pub fn new(id: TransactionId, command: &OrderCommand, accepted_at: Timestamp) -> Order {
        let line = |l: &super::command::OrderLine| Line {
            number: l.line,
            sku: l.sku.clone(),
            ordered: l.quantity,
            unallocated: l.quantity,
            backordered: 0,
            allocated: 0,
            missing: 0,
            cancelled: 0,
            refused: 0,
            shipped: 0,
        };
        Order {
            id,
            rank: Rank::new(id, command, accepted_at),
            allocation: command.allocation,
            not_before: command.not_before,
            requested_ship_by: command.requested_ship_by,
            accepted_at,
            service_level: command.service_level.clone(),
            lines: command.lines.iter().map(line).collect(),
            releases: Vec::new(),
            asks: Vec::new(),
            waiting_since: None,
            failed: None,
        }
    }

    /// The lines in the client's order.
    #[must_use]
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// The releases, oldest first.
    #[must_use]
    pub fn releases(&self) -> &[Release] {
        &self.releases
    }

    /// The release with this number.
    #[must_use]
    pub fn release(&self, n: u16) -> Option<&Release> {
        self.releases.iter().find(|r| r.n == n)
    }

    /// The state a client sees: the first rule that applies.
    ///
    /// Failed; nothing open: shipped if anything was, else cancelled if all went so, else
    /// rejected; all that is open waits for stock: backordered; else the least step among the
    /// open units that do not wait.
    #[must_use]
    pub fn state(&self) -> State {
        if self.is_done() {
            return self.final_state();
        }
        if self.failed.is_some() {
            return State::Failed;
        }
        let own = self.lines.iter().filter_map(|l| {
            // A missing unit was being picked until the fact that places it again.
            if l.unallocated > 0 {
                Some(State::Accepted)
            } else if l.allocated > 0 {
                Some(State::Allocated)
            } else if l.missing > 0 {
                Some(State::Picking)
            } else {
                None
            }
        });
        let released = self.releases.iter().filter_map(Release::least_step);
        own.chain(released).min().unwrap_or(State::Backordered)
    }

    fn final_state(&self) -> State {
        if self.lines.iter().any(|l| l.shipped > 0) {
            State::Shipped
        } else if self.lines.iter().all(|l| l.cancelled == l.ordered) {
            State::Cancelled
        } else {
            State::Rejected
        }
    }

    /// True when no unit is open.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.lines.iter().all(|l| l.shipped + l.cancelled + l.refused == l.ordered)
    }

    /// True when an operator must look.
    #[must_use]
    pub fn is_failed(&self) -> bool {
        self.failed.is_some() && !self.is_done()
    }

    /// True when it is kept aside: nothing is decided or performed for it until an operator says so,
    /// for that is what killed its tree, what cannot be read, or what has no end.
    #[must_use]
    pub fn is_aside(&self) -> bool {
        match self.failed {
            Some(FailedCause::Crashed | FailedCause::TooLong | FailedCause::Unreadable) => !self.is_done(),
            Some(FailedCause::WmsRejected | FailedCause::WmsUnreachable) | None => false,
        }
    }

    /// True while the WMS decides about a cancellation.
    #[must_use]
    pub fn cancel_requested(&self) -> bool {
        !self.is_done() && self.asks.iter().any(|a| !a.open.is_empty())
    }

    /// The request's standing, once the WMS was asked for it.
    #[must_use]
    pub fn ask(&self, request: TransactionId) -> Option<&Ask> {
        self.asks.iter().find(|a| a.request == request)
    }

    /// Releases that hold a credit.
    #[must_use]
    pub fn credits_used(&self) -> usize {
        self.releases.iter().filter(|r| !r.settled()).count()
    }

    /// Units in the warehouse's hands for this line: reserved, as the status document says it.
    #[must_use]
    pub fn reserved(&self, line: &Line) -> Quantity {
        line.allocated + line.missing + self.held(line.number)
    }

    /// Units picked for this line, cumulative.
    #[must_use]
    pub fn picked(&self, line: LineNo) -> Quantity {
        self.releases.iter().filter_map(|r| r.line(line)).map(|l| l.picked).sum()
    }

    fn held(&self, line: LineNo) -> Quantity {
        self.releases.iter().filter_map(|r| r.line(line)).map(|l| l.held()).sum()
    }

    /// What the order does to stock now, one item a line.
    #[must_use]
    pub fn footprint(&self) -> Vec<Footprint> {
        let missing = |n: LineNo| -> u64 {
            self.releases.iter().filter_map(|r| r.line(n)).map(|l| u64::from(l.missing())).sum()
        };
        self.lines
            .iter()
            .map(|l| Footprint {
                sku: l.sku.clone(),
                reserved: u64::from(l.allocated + self.held(l.number)),
                backordered: u64::from(l.backordered),
                shipped: u64::from(l.shipped),
                missing: missing(l.number),
            })
            .collect()
    }

    /// True when units are allocated and its policy lets them go to the WMS now: an order that
    /// ships complete is released when nothing of it waits any more.
    #[must_use]
    pub fn ready_for_wave(&self) -> bool {
        let waits = self.lines.iter().any(|l| l.unplaced() > 0);
        let allocated = self.lines.iter().any(|l| l.allocated > 0);
        self.failed.is_none() && allocated && (!waits || self.allocation == Allocation::ShipPartial)
    }

    /// Cartons that may go on a manifest now, each with the release that packed it: under
    /// `ship_partial` each as it is packed, otherwise none before every open unit is in a carton.
    pub fn loadable(&self) -> impl Iterator<Item = (u16, &PackedCartonState)> {
        let together = self.allocation != Allocation::ShipPartial;
        // What a refused release held is allocated again, so it keeps the rest here until it is
        // cancelled.
        let unpacked = self.lines.iter().any(|l| l.unplaced() + l.allocated > 0)
            || self.releases.iter().flat_map(|r| &r.lines).any(|l| l.unpacked() > 0);
        let hold = self.is_aside() || (together && unpacked);
        let packed = self.releases.iter().flat_map(|r| r.cartons.iter().map(|c| (r.n, c)));
        packed.filter(move |(_, c)| !hold && c.manifest.is_none() && !c.departed)
    }

    /// The manifests that its cartons are on and have not left with.
    pub fn manifests(&self) -> impl Iterator<Item = TransactionId> {
        let cartons = self.releases.iter().flat_map(|r| &r.cartons);
        cartons.filter(|c| !c.departed).filter_map(|c| c.manifest)
    }

    /// The questions it owes the WMS; none once it has ended or while it is kept aside.
    pub fn questions(&self) -> impl Iterator<Item = CancelQuestion> {
        let open = !self.is_done() && !self.is_aside();
        self.asks.iter().filter(move |_| open).flat_map(|ask| {
            ask.open.iter().map(|&n| CancelQuestion {
                request: ask.request,
                release: ReleaseId { order: self.id, n },
                lines: ask.lines.clone(),
            })
        })
    }

    /// Releases that are unsettled, and when each was last heard of.
    pub fn unsettled(&self) -> impl Iterator<Item = (u16, Timestamp)> {
        self.releases.iter().filter(|r| !r.settled()).map(|r| (r.n, r.heard))
    }

    /// The next time at which it wants to be looked at, or never.
    #[must_use]
    pub fn deadline(&self, backorder_max_wait: Duration) -> Timestamp {
        if self.is_done() || self.failed.is_some() {
            return Timestamp::NEVER;
        }
        let waits = self.lines.iter().any(|l| l.backordered > 0);
        let expires = match self.waiting_since {
            Some(since) if waits => since.after(backorder_max_wait),
            Some(_) | None => Timestamp::NEVER,
        };
        let unseen = self.lines.iter().any(|l| l.unallocated > 0);
        let begins = if unseen { self.not_before.unwrap_or_default() } else { Timestamp::NEVER };
        expires.min(begins)
    }
}

impl Release {
    /// The least step of the units it still holds.
    fn least_step(&self) -> Option<State> {
        self.lines
            .iter()
            .filter_map(|l| {
                if l.unpacked() > 0 {
                    Some(if self.begun() { State::Picking } else { State::Released })
                } else if l.packed > l.manifested {
                    Some(State::Packed)
                } else if l.manifested > l.shipped {
                    Some(State::Manifested)
                } else {
                    None
                }
            })
            .min()
    }
}
