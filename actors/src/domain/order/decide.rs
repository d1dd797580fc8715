//! What an input means for an order: facts, or nothing. Nothing has happened when these return;
//! the turn commits the facts in one write, applies them, and then performs what the order owes.

use smallvec::SmallVec;
use std::collections::BTreeMap;

use super::booking::count;
use super::{Ask, Order};
use crate::domain::fact::{
    CancelCause, ExceptionCode, FailedCause, LineUnits, OrderFact, RefusedCause, Units,
};
use crate::domain::ids::{LineNo, Quantity, TransactionId};
use crate::domain::release::Release;
use crate::domain::stock::{Need, Placement, Want};
use crate::domain::time::Timestamp;

impl Order {
    /// What it wants from stock now: all units that are unallocated or missing.
    #[must_use]
    pub fn want(&self) -> Want {
        let needs = self.lines.iter().filter(|l| l.unallocated + l.missing > 0);
        Want {
            rank: self.rank,
            allocation: self.allocation,
            needs: needs
                .map(|l| Need { line: l.number, sku: l.sku.clone(), quantity: l.unallocated + l.missing })
                .collect(),
        }
    }

    /// The wait it is in: all units that are backordered, none while it is kept aside. Rebuilds the ranks after a restart.
    #[must_use]
    pub fn waiting(&self) -> Want {
        // One that is kept aside stands in no rank: an offer would work it.
        let needs = self.lines.iter().filter(|l| l.backordered > 0 && !self.is_aside());
        Want {
            rank: self.rank,
            allocation: self.allocation,
            needs: needs
                .map(|l| Need { line: l.number, sku: l.sku.clone(), quantity: l.backordered })
                .collect(),
        }
    }

    /// True when it may be allocated now: `not_before` is past.
    #[must_use]
    pub fn may_begin(&self, now: Timestamp) -> bool {
        self.not_before.is_none_or(|t| t <= now)
    }

    /// What the stock's answer means.
    #[must_use]
    pub fn placed(&self, placement: &Placement) -> Vec<OrderFact> {
        let first_look = self.lines.iter().any(|l| l.unallocated > 0);
        let mut facts = Vec::new();
        if first_look && self.requested_ship_by.is_some_and(|t| t <= self.accepted_at) {
            facts.push(exception(ExceptionCode::CutOffMissed, []));
        }
        if first_look && !placement.unknown.is_empty() {
            facts.push(exception(ExceptionCode::UnknownSku, placement.unknown.iter().copied()));
        }
        let unplaced: Quantity = self.lines.iter().map(super::Line::unplaced).sum();
        let granted: Quantity = placement.granted.iter().map(|(_, q)| q).sum();
        if placement.killed {
            facts.push(exception(ExceptionCode::InsufficientStock, placement.short.iter().copied()));
            facts.push(OrderFact::Refused { cause: RefusedCause::InsufficientStock, units: Units::Whole });
        } else if granted == unplaced && granted > 0 {
            facts.push(OrderFact::Allocated { units: Units::Whole });
        } else if granted > 0 {
            facts.push(OrderFact::Allocated { units: Units::Lines(placement.granted.clone()) });
        } else if self.lines.iter().any(|l| l.unallocated + l.missing > 0) {
            facts.push(OrderFact::Backordered);
        }
        facts
    }

    /// Ends the wait for stock when it went past its bound.
    #[must_use]
    pub fn expire(&self) -> Vec<OrderFact> {
        let waits: SmallVec<[LineNo; 4]> =
            self.lines.iter().filter(|l| l.backordered > 0).map(|l| l.number).collect();
        if waits.is_empty() {
            return Vec::new();
        }
        vec![
            OrderFact::Exception { code: ExceptionCode::BackorderExpired, lines: waits },
            OrderFact::Refused { cause: RefusedCause::BackorderExpired, units: Units::Whole },
        ]
    }

    /// What a request to cancel these lines (`None`: all) means.
    ///
    /// What is in no release is cancelled at once. About releases that are not being picked the
    /// WMS must be asked; from then on it decides. Nothing at all: it is too late.
    #[must_use]
    pub fn cancel(&self, request: TransactionId, lines: Option<&[LineNo]>) -> Vec<OrderFact> {
        let wanted = |line: LineNo| lines.is_none_or(|lines| lines.contains(&line));
        let open = |r: &&Release| !r.begun() && !r.cancellable(lines).is_empty();
        let releases: SmallVec<[u16; 2]> = self.releases.iter().filter(open).map(|r| r.n).collect();
        let now: LineUnits = self
            .lines
            .iter()
            .filter(|l| wanted(l.number) && l.unplaced() + l.allocated > 0)
            .map(|l| (l.number, l.unplaced() + l.allocated))
            .collect();
        let mut facts = Vec::new();
        if !releases.is_empty() {
            facts.push(OrderFact::CancelAsked { request, releases, lines: lines.map(SmallVec::from_slice) });
        }
        if !now.is_empty() {
            facts.push(OrderFact::Cancelled {
                cause: CancelCause::Request(request),
                release: None,
                units: now,
            });
        }
        facts
    }

    /// What the WMS's answer to a question about release `n` means: `cancelled` or too late. A
    /// repeat means nothing.
    ///
    /// An answer through the control lane names no request. It decides when only one ever asked
    /// about the release; among several it could be a repeat of an older answer, about other
    /// lines, so the question is asked again instead, and its own answer decides.
    #[must_use]
    pub fn cancel_answered(&self, n: u16, request: Option<TransactionId>, cancelled: bool) -> Vec<OrderFact> {
        let asks = || self.asks.iter().filter(|a| a.open.contains(&n) || a.answered.contains(&n));
        let asked = match request {
            Some(request) => asks().find(|a| a.request == request),
            None => asks().next().filter(|_| asks().count() == 1),
        };
        self.answered(n, asked.into_iter(), cancelled)
    }

    /// One answer to the open ones of these requests.
    fn answered<'a>(&self, n: u16, asks: impl Iterator<Item = &'a Ask>, cancelled: bool) -> Vec<OrderFact> {
        let Some(release) = self.release(n).filter(|_| !self.is_done()) else { return Vec::new() };
        let mut gone: BTreeMap<LineNo, Quantity> = BTreeMap::new();
        let (mut withdrawn, mut taken) = (Vec::new(), Vec::new());
        for ask in asks.filter(|a| a.open.contains(&n)) {
            // Several requests may ask about one release; each unit is cancelled by the first.
            let units: LineUnits = release
                .cancellable(ask.lines.as_deref())
                .into_iter()
                .map(|(line, q)| (line, q - count(&gone, line)))
                .filter(|(_, q)| cancelled && *q > 0)
                .collect();
            if units.is_empty() {
                withdrawn.push(OrderFact::CancelWithdrawn { request: ask.request, n });
                continue;
            }
            for (line, q) in &units {
                *gone.entry(*line).or_default() += q;
            }
            let cause = CancelCause::Request(ask.request);
            taken.push(OrderFact::Cancelled { cause, release: Some(n), units });
        }
        // The last of the cancelled units may end the order, and nothing follows an end.
        withdrawn.append(&mut taken);
        withdrawn
    }

    /// What it means that the WMS refuses release `n`: what was to be cancelled is, and if
    /// anything is left the order is a dead letter, once more if it is one already: every refused
    /// release gives its units and its credit back.
    #[must_use]
    pub fn rejected_by_wms(&self, n: u16) -> Vec<OrderFact> {
        let Some(release) = self.release(n) else { return Vec::new() };
        if release.settled() {
            return Vec::new();
        }
        let mut facts = self.answered(n, self.asks.iter(), true);
        let mut after = self.clone();
        for fact in &facts {
            after.apply(fact, release.at);
        }
        let left = after.release(n).map(|r| r.cancellable(None)).unwrap_or_default();
        if !left.is_empty() {
            facts.push(exception(ExceptionCode::WmsRejected, left.iter().map(|(line, _)| *line)));
            facts.push(OrderFact::Failed { cause: FailedCause::WmsRejected, release: Some(n) });
        }
        facts
    }

    /// What it means that the WMS has not answered for too long: an operator must look. The release
    /// stays as it is, for the WMS may have taken it.
    #[must_use]
    pub fn given_up(&self) -> Vec<OrderFact> {
        if self.failed.is_some() || self.is_done() {
            return Vec::new();
        }
        vec![
            exception(ExceptionCode::WmsUnreachable, []),
            OrderFact::Failed { cause: FailedCause::WmsUnreachable, release: None },
        ]
    }

    /// What it means that the WMS was heard again: an order that was given up for its silence goes on.
    #[must_use]
    pub fn heard_again(&self) -> Vec<OrderFact> {
        match self.failed {
            Some(FailedCause::WmsUnreachable) if !self.is_done() => vec![OrderFact::Redriven],
            Some(
                FailedCause::WmsUnreachable
                | FailedCause::WmsRejected
                | FailedCause::Crashed
                | FailedCause::TooLong
                | FailedCause::Unreadable,
            )
            | None => Vec::new(),
        }
    }

    /// What it means that the order cannot be worked: it is kept aside. Reads nothing but whether it
    /// is so already, for its own decisions may be what kills.
    #[must_use]
    pub fn set_aside(&self, cause: FailedCause) -> Vec<OrderFact> {
        if self.is_done() || self.is_aside() {
            return Vec::new();
        }
        vec![exception(ExceptionCode::CrashedPipeline, []), OrderFact::Failed { cause, release: None }]
    }

    /// What it means that an operator wants a failed order to go on; nothing when it is not failed.
    ///
    /// # Errors
    /// When it has as many facts as an order may have: then there is no going on.
    pub fn redrive(&self) -> Result<Vec<OrderFact>, NotPossible> {
        match self.failed {
            Some(FailedCause::TooLong) if !self.is_done() => Err(NotPossible::TooLong),
            Some(_) if !self.is_done() => Ok(vec![OrderFact::Redriven]),
            Some(_) | None => Ok(Vec::new()),
        }
    }

    /// What it means that an operator gives a failed order up; nothing when it is not failed.
    ///
    /// # Errors
    /// When units stand in cartons in the warehouse: their stock is not free, and they would leave.
    pub fn give_up(&self) -> Result<Vec<OrderFact>, NotPossible> {
        if !self.is_failed() {
            return Ok(Vec::new());
        }
        if self.releases.iter().flat_map(|r| &r.cartons).any(|c| !c.departed) {
            return Err(NotPossible::Packed);
        }
        Ok(vec![OrderFact::GivenUp])
    }

    /// Releases that the WMS may not have: unsettled, and not begun by all that is known.
    pub fn unbegun(&self) -> impl Iterator<Item = u16> {
        self.releases.iter().filter(|r| !r.settled() && !r.begun()).map(|r| r.n)
    }

    /// The requests to cancel that these facts, already applied, have settled: their last question
    /// is answered, or the order has ended and the answer cannot change anything any more.
    #[must_use]
    pub fn settled_requests(&self, facts: &[OrderFact]) -> Vec<TransactionId> {
        let answered = |request: TransactionId| {
            facts.iter().any(|fact| match fact {
                OrderFact::CancelWithdrawn { request: of, .. } => *of == request,
                OrderFact::Cancelled { cause, release, .. } => {
                    *cause == CancelCause::Request(request) && release.is_some()
                }
                _ => false,
            })
        };
        let settled = |ask: &&Ask| match ask.open.is_empty() {
            true => answered(ask.request),
            false => self.is_done(),
        };
        self.asks.iter().filter(settled).map(|ask| ask.request).collect()
    }
}

/// Why an operator's wish cannot be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotPossible {
    /// Cartons of it stand in the warehouse.
    #[error("cartons of the order stand in the warehouse")]
    Packed,
    /// It has as many facts as an order may have.
    #[error("the order has as many facts as an order may have")]
    TooLong,
}

fn exception(code: ExceptionCode, lines: impl IntoIterator<Item = LineNo>) -> OrderFact {
    OrderFact::Exception { code, lines: lines.into_iter().collect() }
}
