//! What an input means for an order: facts, or nothing. Nothing has happened when these return;
//! the turn commits the facts in one write, applies them, and then performs what the order owes.

use smallvec::SmallVec;
use std::collections::BTreeMap;

use super::{Ask, Order};
use crate::domain::command::Allocation;
use crate::domain::confirmation::{PackedCarton, ReleaseReport, Unbookable};
use crate::domain::fact::{
    CancelCause, Carton, ExceptionCode, FailedCause, LineUnits, MissingCause, OrderFact, RefusedCause, Units,
};
use crate::domain::ids::{LineNo, Quantity, TransactionId};
use crate::domain::release::{Release, ReleaseLine};
use crate::domain::sscc::Sscc;
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

    /// The wait it is in: all units that are backordered. Rebuilds the ranks after a restart.
    #[must_use]
    pub fn waiting(&self) -> Want {
        let needs = self.lines.iter().filter(|l| l.backordered > 0);
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

fn exception(code: ExceptionCode, lines: impl IntoIterator<Item = LineNo>) -> OrderFact {
    OrderFact::Exception { code, lines: lines.into_iter().collect() }
}

/// Books the reports about one release that arrived together: one fact a step.
///
/// Reports are cumulative, so each only raises what is known; one that cannot be true is refused
/// alone and leaves no trace in the facts.
pub struct Booking<'a> {
    order: &'a Order,
    release: &'a Release,
    begun: bool,
    picked: BTreeMap<LineNo, Quantity>,
    short: BTreeMap<LineNo, Quantity>,
    damaged: BTreeMap<LineNo, Quantity>,
    cartons: Vec<PackedCarton>,
    rejected: bool,
    cancelled: Option<bool>,
}

impl<'a> Booking<'a> {
    /// Begins to book reports about release `n`.
    ///
    /// # Errors
    /// [`Unbookable::UnknownRelease`] when the order has no such release.
    pub fn new(order: &'a Order, n: u16) -> Result<Self, Unbookable> {
        let release = order.release(n).ok_or(Unbookable::UnknownRelease)?;
        let counts = |count: fn(&ReleaseLine) -> Quantity| {
            release.lines.iter().map(|l| (l.line, count(l))).collect::<BTreeMap<_, _>>()
        };
        Ok(Booking {
            order,
            release,
            begun: false,
            picked: counts(|l| l.picked),
            short: counts(|l| l.short),
            damaged: counts(|l| l.damaged),
            cartons: Vec::new(),
            rejected: false,
            cancelled: None,
        })
    }

    /// Takes one report.
    ///
    /// # Errors
    /// When it cannot be true of this release; nothing of it is booked.
    pub fn add(&mut self, report: &ReleaseReport) -> Result<(), Unbookable> {
        match report {
            ReleaseReport::Picking => {
                if self.release.is_emptied() {
                    return Err(Unbookable::Contradiction);
                }
                self.begun = true;
            }
            ReleaseReport::Picked(units) => {
                self.release.check(units, |l| self.missing_of(l.line))?;
                for &(line, q) in units {
                    let picked = self.picked.entry(line).or_default();
                    *picked = q.max(*picked);
                }
                self.begun = true;
            }
            ReleaseReport::ShortPick(units) => self.miss(units, MissingCause::ShortPick)?,
            ReleaseReport::Damaged(units) => self.miss(units, MissingCause::Damaged)?,
            ReleaseReport::Packed(cartons) => self.pack(cartons)?,
            ReleaseReport::Rejected { code: _ } => {
                if self.release.begun() || self.begun {
                    return Err(Unbookable::Contradiction);
                }
                self.rejected = true;
            }
            ReleaseReport::Cancelled => {
                self.asked_about()?;
                self.cancelled.get_or_insert(true);
            }
            ReleaseReport::CancelRefused => {
                self.asked_about()?;
                self.cancelled.get_or_insert(false);
            }
        }
        Ok(())
    }

    fn asked_about(&self) -> Result<(), Unbookable> {
        let n = self.release.n;
        let known = |a: &Ask| a.open.contains(&n) || a.answered.contains(&n);
        if self.order.asks.iter().any(known) { Ok(()) } else { Err(Unbookable::Contradiction) }
    }

    /// Missing so far by all that is known; the two causes of one line add up.
    fn missing_of(&self, line: LineNo) -> Quantity {
        count(&self.short, line) + count(&self.damaged, line)
    }

    fn miss(&mut self, units: &LineUnits, cause: MissingCause) -> Result<(), Unbookable> {
        let other = match cause {
            MissingCause::ShortPick => &self.damaged,
            MissingCause::Damaged => &self.short,
        };
        self.release.check(units, |l| count(&self.picked, l.line) + count(other, l.line))?;
        let this = match cause {
            MissingCause::ShortPick => &mut self.short,
            MissingCause::Damaged => &mut self.damaged,
        };
        for &(line, q) in units {
            let missing = this.entry(line).or_default();
            *missing = q.max(*missing);
        }
        self.begun = true;
        Ok(())
    }

    fn pack(&mut self, cartons: &[PackedCarton]) -> Result<(), Unbookable> {
        let mut new: Vec<PackedCarton> = Vec::new();
        for carton in cartons {
            let known = self.release.carton(&carton.carton_id, carton.carton_id.parse().ok()).is_some();
            let named = |have: &PackedCarton| have.carton_id == carton.carton_id;
            // A carton is packed once; one without units is nothing that could be shipped, and
            // must not follow an end.
            let empty = carton.lines.iter().all(|(_, q)| *q == 0);
            if !known && !empty && !self.cartons.iter().chain(&new).any(named) {
                new.push(carton.clone());
            }
        }
        let mut sums: BTreeMap<LineNo, Quantity> = BTreeMap::new();
        for &(line, q) in self.cartons.iter().chain(&new).flat_map(|c| &c.lines) {
            let sum = sums.entry(line).or_default();
            *sum = sum.saturating_add(q);
        }
        let sums: LineUnits = sums.into_iter().collect();
        self.release.check(&sums, |l| self.missing_of(l.line) + l.packed)?;
        for &(line, q) in &sums {
            let packed = self.release.line(line).map_or(0, |l| l.packed) + q;
            let picked = self.picked.entry(line).or_default();
            *picked = packed.max(*picked);
        }
        self.cartons.extend(new);
        self.begun = true;
        Ok(())
    }

    /// The cartons that need a code of the house's: one for each that has none of its own.
    #[must_use]
    pub fn ssccs_needed(&self) -> usize {
        self.cartons.iter().filter(|c| c.carton_id.parse::<Sscc>().is_err()).count()
    }

    /// What all reports together mean; `next_sscc` names cartons that have no code of their own.
    #[must_use]
    pub fn facts(self, carrier: &str, next_sscc: &mut dyn FnMut() -> Sscc) -> Vec<OrderFact> {
        let n = self.release.n;
        let mut facts = Vec::new();
        self.missing_facts(&mut facts);
        let was = |line: LineNo| self.release.line(line).map_or(0, |l| l.picked);
        let raised = self.picked.iter().any(|(&line, &q)| q > was(line));
        let picked: LineUnits = self.picked.iter().filter(|(_, q)| **q > 0).map(|(l, q)| (*l, *q)).collect();
        if !self.cartons.is_empty() {
            let done = |l: &ReleaseLine| {
                count(&self.picked, l.line) == l.asked - self.missing_of(l.line) - l.returned
            };
            let whole = self.release.lines.iter().all(done);
            let cartons = self.cartons.iter().map(|c| carton(c, next_sscc)).collect();
            let picked = if whole { Units::Whole } else { Units::Lines(picked) };
            facts.push(OrderFact::Packed { n, picked, cartons, carrier: carrier.to_owned() });
        } else if raised || (self.begun && self.begins() && facts.is_empty()) {
            facts.push(OrderFact::Picking { n, picked });
        }
        if self.rejected || self.cancelled.is_some() {
            // What was picked or missing by the same message is not there to be taken out.
            let mut so_far = self.order.clone();
            facts.iter().for_each(|fact| so_far.apply(fact, self.release.at));
            facts.extend(match (self.rejected, self.cancelled) {
                (true, _) => so_far.rejected_by_wms(n),
                (false, cancelled) => so_far.cancel_answered(n, None, cancelled == Some(true)),
            });
        }
        facts
    }

    /// True when the first report of work is news. Reports without units are true of an emptied
    /// release too, and mean nothing there.
    fn begins(&self) -> bool {
        !self.release.begun() && !self.release.is_emptied()
    }

    fn missing_facts(&self, facts: &mut Vec<OrderFact>) {
        let n = self.release.n;
        let mut lost: BTreeMap<LineNo, Quantity> = BTreeMap::new();
        for cause in [MissingCause::ShortPick, MissingCause::Damaged] {
            let (reported, booked): (_, fn(&ReleaseLine) -> Quantity) = match cause {
                MissingCause::ShortPick => (&self.short, |l| l.short),
                MissingCause::Damaged => (&self.damaged, |l| l.damaged),
            };
            let new = |l: &ReleaseLine| (l.line, count(reported, l.line) - booked(l));
            let units: LineUnits = self.release.lines.iter().map(new).filter(|(_, q)| *q > 0).collect();
            for &(line, q) in &units {
                *lost.entry(line).or_default() += q;
            }
            if !units.is_empty() {
                facts.push(OrderFact::Missing { n, cause, units });
            }
        }
        if !lost.is_empty() && self.order.allocation == Allocation::FillOrKill {
            let units = lost.into_iter().collect();
            facts.push(OrderFact::Cancelled { cause: CancelCause::Missing, release: None, units });
        }
    }
}

fn count(counts: &BTreeMap<LineNo, Quantity>, line: LineNo) -> Quantity {
    counts.get(&line).copied().unwrap_or(0)
}

fn carton(packed: &PackedCarton, next_sscc: &mut dyn FnMut() -> Sscc) -> Carton {
    let (sscc, carton_id) = match packed.carton_id.parse() {
        Ok(sscc) => (sscc, None),
        Err(_) => (next_sscc(), Some(packed.carton_id.clone())),
    };
    // An SSCC identifies the parcel to carriers too, so a carton without a tracking number of
    // the carrier's own is tracked by it.
    let tracking = packed.tracking_number.clone().unwrap_or_else(|| sscc.to_string());
    Carton {
        sscc,
        carton_id,
        tracking_number: Some(tracking),
        weight_g: packed.weight_g,
        lines: packed.lines.clone(),
    }
}
