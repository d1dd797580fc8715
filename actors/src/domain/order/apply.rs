//! How facts change an order. A fact that does not fit is a broken invariant and panics: the tree
//! dies rather than count a unit twice.

use smallvec::SmallVec;

use super::{Ask, Line, Order};
use crate::domain::fact::{CancelCause, Carton, FailedCause, LineUnits, MissingCause, OrderFact, Units};
use crate::domain::ids::{LineNo, Quantity, TransactionId, WaveId};
use crate::domain::release::{PackedCartonState, Release, ReleaseLine};
use crate::domain::sscc::Sscc;
use crate::domain::time::Timestamp;

impl Order {
    /// Takes in what happened at `at`.
    ///
    /// # Panics
    /// When the fact names units, lines or releases that the order does not hold.
    pub fn apply(&mut self, fact: &OrderFact, at: Timestamp) {
        match fact {
            OrderFact::Allocated { units } => self.allocated(units, at),
            OrderFact::Backordered => self.wait(at),
            OrderFact::Released { n, wave, units } => self.released(*n, *wave, units, at),
            OrderFact::Picking { n, picked } => {
                let release = self.release_mut(*n);
                release.picking = true;
                release.heard = at;
                release.raise_picked(picked);
            }
            OrderFact::Packed { n, picked, cartons, carrier } => {
                self.release_mut(*n).packed(picked, cartons, carrier, at);
            }
            OrderFact::Missing { n, cause, units } => {
                self.missing(*n, *cause, units);
                self.release_mut(*n).heard = at;
            }
            OrderFact::Manifested { manifest, cartons } => self.manifested(*manifest, cartons),
            OrderFact::Shipped { manifest } => self.shipped(*manifest),
            OrderFact::CancelAsked { request, releases, lines } => self.asks.push(Ask {
                request: *request,
                lines: lines.clone(),
                open: releases.clone(),
                answered: SmallVec::new(),
                cancelled: LineUnits::new(),
            }),
            OrderFact::CancelWithdrawn { request, n } => self.answer(*request, *n, &[]),
            OrderFact::Cancelled { cause, release, units } => self.cancelled(*cause, *release, units),
            OrderFact::Refused { cause: _, units } => self.refused(units),
            OrderFact::Exception { code: _, lines: _ } => {}
            OrderFact::Failed { cause, release } => self.failed(*cause, *release),
            OrderFact::Redriven => self.failed = None,
            OrderFact::ShippedAlone { n, cartons } => self.shipped_alone(*n, cartons),
            OrderFact::GivenUp => self.given_up_whole(),
        }
    }

    fn allocated(&mut self, units: &Units, at: Timestamp) {
        match units {
            Units::Whole => {
                for line in &mut self.lines {
                    let all = line.unplaced();
                    line.take_unplaced(all);
                    line.allocated += all;
                }
            }
            Units::Lines(units) => {
                for &(number, quantity) in units {
                    let line = self.line_mut(number);
                    line.take_unplaced(quantity);
                    line.allocated += quantity;
                }
            }
        }
        self.wait(at);
    }

    /// What has no place yet waits; what waited already keeps its time.
    fn wait(&mut self, at: Timestamp) {
        for line in &mut self.lines {
            line.backordered += line.unallocated + line.missing;
            line.unallocated = 0;
            line.missing = 0;
        }
        let waits = self.lines.iter().any(|l| l.backordered > 0);
        self.waiting_since = waits.then(|| self.waiting_since.unwrap_or(at));
    }

    fn released(&mut self, n: u16, wave: WaveId, units: &Units, at: Timestamp) {
        let lines = match units {
            Units::Whole => {
                self.lines.iter().filter(|l| l.allocated > 0).map(|l| (l.number, l.allocated)).collect()
            }
            Units::Lines(units) => units.clone(),
        };
        let mut held = Vec::with_capacity(lines.len());
        for (number, quantity) in lines {
            let line = self.line_mut(number);
            line.allocated -= quantity;
            held.push(ReleaseLine { line: number, asked: quantity, ..ReleaseLine::default() });
        }
        self.releases.push(Release {
            n,
            wave,
            at,
            heard: at,
            picking: false,
            lines: held,
            cartons: Vec::new(),
        });
    }

    fn missing(&mut self, n: u16, cause: MissingCause, units: &LineUnits) {
        for &(number, quantity) in units {
            let held = self.release_mut(n).held_mut(number);
            match cause {
                MissingCause::ShortPick => held.short += quantity,
                MissingCause::Damaged => held.damaged += quantity,
            }
            assert!(held.picked + held.missing() + held.returned <= held.asked, "more missing than asked");
            self.line_mut(number).missing += quantity;
        }
    }

    fn manifested(&mut self, manifest: TransactionId, cartons: &[Sscc]) {
        for release in &mut self.releases {
            let Release { cartons: packed, lines, .. } = release;
            // The WMS may have put units of several releases into one carton: what went with an
            // earlier manifest keeps it.
            let on_it = |c: &&mut PackedCartonState| c.manifest.is_none() && cartons.contains(&c.carton.sscc);
            for carton in packed.iter_mut().filter(on_it) {
                carton.manifest = Some(manifest);
                for &(number, quantity) in &carton.carton.lines {
                    line_of(lines, number).manifested += quantity;
                }
            }
        }
    }

    fn shipped(&mut self, manifest: TransactionId) {
        let Order { releases, lines, .. } = self;
        for release in releases {
            let Release { cartons, lines: held, .. } = release;
            for carton in cartons.iter_mut().filter(|c| c.manifest == Some(manifest) && !c.departed) {
                carton.departed = true;
                for &(number, quantity) in &carton.carton.lines {
                    line_of(held, number).shipped += quantity;
                    own_line(lines, number).shipped += quantity;
                }
            }
        }
    }

    /// Cartons that are on no manifest: they leave as if manifested and shipped at once.
    fn shipped_alone(&mut self, n: u16, cartons: &[Sscc]) {
        let Order { releases, lines, .. } = self;
        let release = releases.iter_mut().find(|r| r.n == n).expect("a fact names a release of its order");
        let Release { cartons: packed, lines: held, .. } = release;
        for carton in packed.iter_mut().filter(|c| cartons.contains(&c.carton.sscc)) {
            assert!(!carton.departed, "a carton leaves once");
            let manifested = carton.manifest.is_some();
            carton.departed = true;
            for &(number, quantity) in &carton.carton.lines {
                let held = line_of(held, number);
                held.manifested += if manifested { 0 } else { quantity };
                held.shipped += quantity;
                own_line(lines, number).shipped += quantity;
            }
        }
    }

    fn cancelled(&mut self, cause: CancelCause, release: Option<u16>, units: &LineUnits) {
        for &(number, quantity) in units {
            match release {
                Some(n) => self.release_mut(n).give_back(number, quantity),
                None => self.line_mut(number).take_unreleased(quantity),
            }
            self.line_mut(number).cancelled += quantity;
        }
        match (cause, release) {
            (CancelCause::Request(request), Some(n)) => self.answer(request, n, units),
            (CancelCause::Request(request), None) => {
                if let Some(ask) = self.asks.iter_mut().find(|a| a.request == request) {
                    add(&mut ask.cancelled, units);
                }
            }
            (CancelCause::Missing, _) => {}
        }
        self.end_wait();
    }

    fn refused(&mut self, units: &Units) {
        let each: LineUnits = match units {
            Units::Whole => self.lines.iter().map(|l| (l.number, l.unplaced())).collect(),
            Units::Lines(units) => units.clone(),
        };
        for (number, quantity) in each {
            let line = self.line_mut(number);
            line.take_unplaced(quantity);
            line.refused += quantity;
        }
        self.end_wait();
    }

    fn failed(&mut self, cause: FailedCause, release: Option<u16>) {
        // What keeps an order aside is stronger than what the WMS does about one of its releases.
        if !self.is_aside() {
            self.failed = Some(cause);
        }
        let Some(n) = release else { return };
        for (number, quantity) in self.release_mut(n).cancellable(None) {
            self.release_mut(n).give_back(number, quantity);
            self.line_mut(number).allocated += quantity;
        }
    }

    fn given_up_whole(&mut self) {
        let open: Vec<(u16, LineUnits)> = self.releases.iter().map(|r| (r.n, r.cancellable(None))).collect();
        for (n, units) in open {
            for (number, quantity) in units {
                self.release_mut(n).give_back(number, quantity);
                self.line_mut(number).refused += quantity;
            }
        }
        for line in &mut self.lines {
            let all = line.unplaced();
            line.take_unplaced(all);
            line.refused += all + line.allocated;
            line.allocated = 0;
        }
        self.failed = None;
        self.end_wait();
    }

    fn end_wait(&mut self) {
        if self.lines.iter().all(|l| l.backordered == 0) {
            self.waiting_since = None;
        }
    }

    fn answer(&mut self, request: TransactionId, n: u16, units: &[(LineNo, Quantity)]) {
        let ask =
            self.asks.iter_mut().find(|a| a.request == request).expect("an answer follows its question");
        ask.open.retain(|open| *open != n);
        ask.answered.push(n);
        add(&mut ask.cancelled, units);
    }

    fn line_mut(&mut self, number: LineNo) -> &mut Line {
        own_line(&mut self.lines, number)
    }

    fn release_mut(&mut self, n: u16) -> &mut Release {
        self.releases.iter_mut().find(|r| r.n == n).expect("a fact names a release of its order")
    }
}

impl Line {
    /// Missing first, then what was never looked at, then what waits.
    fn take_unplaced(&mut self, quantity: Quantity) {
        let mut left = quantity;
        for place in [&mut self.missing, &mut self.unallocated, &mut self.backordered] {
            let taken = left.min(*place);
            *place -= taken;
            left -= taken;
        }
        assert_eq!(left, 0, "more units placed than wanted stock");
    }

    fn take_unreleased(&mut self, quantity: Quantity) {
        let unplaced = quantity.min(self.unplaced());
        self.take_unplaced(unplaced);
        self.allocated -= quantity - unplaced;
    }
}

impl Release {
    fn held_mut(&mut self, number: LineNo) -> &mut ReleaseLine {
        line_of(&mut self.lines, number)
    }

    fn raise_picked(&mut self, picked: &LineUnits) {
        for &(number, quantity) in picked {
            let line = self.held_mut(number);
            assert!(quantity + line.missing() + line.returned <= line.asked, "more picked than asked");
            line.picked = line.picked.max(quantity);
        }
    }

    fn packed(&mut self, picked: &Units, cartons: &[Carton], carrier: &str, at: Timestamp) {
        self.picking = true;
        self.heard = at;
        match picked {
            Units::Whole => {
                for line in &mut self.lines {
                    line.picked = line.asked - line.missing() - line.returned;
                }
            }
            Units::Lines(picked) => self.raise_picked(picked),
        }
        for carton in cartons {
            for &(number, quantity) in &carton.lines {
                let line = self.held_mut(number);
                line.packed += quantity;
                assert!(line.packed <= line.picked, "more packed than picked");
            }
            self.cartons.push(PackedCartonState {
                carton: carton.clone(),
                carrier: carrier.to_owned(),
                packed_at: at,
                manifest: None,
                departed: false,
            });
        }
    }

    /// Takes units out of the release; what the WMS had picked of them goes back on its shelf.
    fn give_back(&mut self, number: LineNo, quantity: Quantity) {
        let line = self.held_mut(number);
        line.returned += quantity;
        let left = line.asked - line.missing() - line.returned;
        assert!(line.packed <= left, "packed units cannot go back");
        line.picked = line.picked.min(left);
    }
}

fn line_of(lines: &mut [ReleaseLine], number: LineNo) -> &mut ReleaseLine {
    lines.iter_mut().find(|l| l.line == number).expect("a fact names a line of its release")
}

fn own_line(lines: &mut [Line], number: LineNo) -> &mut Line {
    lines.iter_mut().find(|l| l.number == number).expect("a fact names a line of its order")
}

fn add(sum: &mut LineUnits, units: &[(LineNo, Quantity)]) {
    for &(number, quantity) in units {
        match sum.iter_mut().find(|(n, _)| *n == number) {
            Some((_, have)) => *have += quantity,
            None => sum.push((number, quantity)),
        }
    }
}
