//! Reports of the WMS about one release, booked together: one fact a step.

use smallvec::SmallVec;
use std::collections::BTreeMap;

use super::{Ask, Order};
use crate::domain::command::Allocation;
use crate::domain::confirmation::{PackedCarton, ReleaseReport, Unbookable};
use crate::domain::fact::{CancelCause, Carton, LineUnits, MissingCause, OrderFact, Units};
use crate::domain::ids::{LineNo, Quantity};
use crate::domain::release::{Release, ReleaseLine};
use crate::domain::sscc::Sscc;

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
    /// In cartons so far, where a report said it without cartons.
    packed: BTreeMap<LineNo, Quantity>,
    cartons: Vec<PackedCarton>,
    /// Gone so far.
    shipped: Option<BTreeMap<LineNo, Quantity>>,
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
            packed: BTreeMap::new(),
            cartons: Vec::new(),
            shipped: None,
            rejected: false,
            cancelled: None,
        })
    }

    /// Takes one report.
    ///
    /// # Errors
    /// When it cannot be true of this release; nothing of it is booked.
    pub fn add(&mut self, report: &ReleaseReport) -> Result<(), Unbookable> {
        let works = match report {
            ReleaseReport::Picking
            | ReleaseReport::Picked(_)
            | ReleaseReport::Packed { .. }
            | ReleaseReport::ShortPick(_)
            | ReleaseReport::Damaged(_)
            | ReleaseReport::Shipped(_) => true,
            ReleaseReport::Rejected { .. } | ReleaseReport::Cancelled | ReleaseReport::CancelRefused => false,
        };
        // A release that was emptied by a cancellation or a refusal cannot be begun, nor one that
        // the same message refuses.
        if works && (self.rejected || !self.release.begun() && self.release.is_emptied()) {
            return Err(Unbookable::Contradiction);
        }
        match report {
            ReleaseReport::Picking => self.begun = true,
            ReleaseReport::Picked(units) => {
                self.release.check(units, |l| self.missing_of(l.line))?;
                raise(&mut self.picked, units);
                self.begun = true;
            }
            ReleaseReport::ShortPick(units) => self.miss(units, MissingCause::ShortPick)?,
            ReleaseReport::Damaged(units) => self.miss(units, MissingCause::Damaged)?,
            ReleaseReport::Packed { lines, cartons } => {
                self.release.check(lines, |l| self.missing_of(l.line))?;
                self.pack(cartons)?;
                raise(&mut self.packed, lines);
                raise(&mut self.picked, lines);
            }
            ReleaseReport::Shipped(lines) => {
                let whole = |l: &ReleaseLine| (l.line, l.asked - l.returned - self.missing_of(l.line));
                let lines = &match lines.is_empty() {
                    true => self.release.lines.iter().map(whole).collect(),
                    false => lines.clone(),
                };
                self.release.check(lines, |l| self.missing_of(l.line))?;
                // Shipped implies packed, and packed picked.
                raise(&mut self.packed, lines);
                raise(&mut self.picked, lines);
                raise(self.shipped.get_or_insert_default(), lines);
                self.begun = true;
            }
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
        raise(this, units);
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

    /// What all reports together mean; `next_sscc` names cartons that have no code of their own.
    #[must_use]
    pub fn facts(self, carrier: &str, next_sscc: &mut dyn FnMut() -> Sscc) -> Vec<OrderFact> {
        let n = self.release.n;
        let mut facts = Vec::new();
        self.missing_facts(&mut facts);
        let was = |line: LineNo| self.release.line(line).map_or(0, |l| l.picked);
        let raised = self.picked.iter().any(|(&line, &q)| q > was(line));
        let picked: LineUnits = self.picked.iter().filter(|(_, q)| **q > 0).map(|(l, q)| (*l, *q)).collect();
        let mut cartons: Vec<Carton> = self.cartons.iter().map(|c| carton(c, next_sscc)).collect();
        let loose = self.loose();
        if !loose.is_empty() {
            cartons.push(nameless(loose, next_sscc()));
        }
        if !cartons.is_empty() {
            let done = |l: &ReleaseLine| {
                count(&self.picked, l.line) == l.asked - self.missing_of(l.line) - l.returned
            };
            let whole = self.release.lines.iter().all(done);
            let picked = if whole { Units::Whole } else { Units::Lines(picked) };
            facts.push(OrderFact::Packed { n, picked, cartons, carrier: carrier.to_owned() });
        } else if raised || (self.begun && self.begins() && facts.is_empty()) {
            facts.push(OrderFact::Picking { n, picked });
        }
        if let Some(shipped) = &self.shipped {
            let mut so_far = self.order.clone();
            facts.iter().for_each(|fact| so_far.apply(fact, self.release.at));
            facts.extend(so_far.release(n).and_then(|r| left(r, shipped)));
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

    /// Units that a report says are in cartons, beyond all cartons known.
    fn loose(&self) -> LineUnits {
        let new = |line: LineNo| -> Quantity {
            let lines = self.cartons.iter().flat_map(|c| &c.lines);
            lines.filter(|(l, _)| *l == line).map(|(_, q)| q).sum()
        };
        let known = |line: LineNo| self.release.line(line).map_or(0, |l| l.packed) + new(line);
        let beyond = |(&line, &q): (&LineNo, &Quantity)| (line, q.saturating_sub(known(line)));
        self.packed.iter().map(beyond).filter(|(_, q)| *q > 0).collect()
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

pub(super) fn count(counts: &BTreeMap<LineNo, Quantity>, line: LineNo) -> Quantity {
    counts.get(&line).copied().unwrap_or(0)
}

/// Cumulative numbers only rise: a report that came late says less than what is known.
fn raise(counts: &mut BTreeMap<LineNo, Quantity>, units: &LineUnits) {
    for &(line, q) in units {
        let known = counts.entry(line).or_default();
        *known = q.max(*known);
    }
}

/// The cartons that have left, if `shipped` units of each line have.
fn left(release: &Release, shipped: &BTreeMap<LineNo, Quantity>) -> Option<OrderFact> {
    let gone = |l: &ReleaseLine| (l.line, count(shipped, l.line).saturating_sub(l.shipped));
    let mut left: BTreeMap<LineNo, Quantity> = release.lines.iter().map(gone).collect();
    let mut cartons = SmallVec::new();
    for carton in release.cartons.iter().filter(|c| !c.departed) {
        let fits = |&(line, q): &(LineNo, Quantity)| q <= count(&left, line);
        if carton.carton.lines.iter().all(fits) {
            for (line, q) in &carton.carton.lines {
                let left = left.entry(*line).or_default();
                *left = left.saturating_sub(*q);
            }
            cartons.push(carton.carton.sscc);
        }
    }
    (!cartons.is_empty()).then_some(OrderFact::ShippedAlone { n: release.n, cartons })
}

/// A carton that the WMS did not name.
fn nameless(lines: LineUnits, sscc: Sscc) -> Carton {
    Carton { sscc, carton_id: None, tracking_number: Some(sscc.to_string()), weight_g: None, lines }
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
