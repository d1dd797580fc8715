//! The books of the world's WMS: what it took, picked, packed and sent away, kept by itself. What
//! the engine believes is held against them.

use std::collections::{BTreeMap, BTreeSet};

use super::World;
use crate::domain::command::Command;
use crate::domain::confirmation::ReleaseReport;
use crate::domain::fact::LineUnits;
use crate::domain::ids::{LineNo, ReleaseId, TransactionId, WaveId};
use crate::domain::order::Order;
use crate::ports::store::ManifestCarton;
use crate::ports::wms::{CancelReply, ManifestOut};

/// The books.
#[derive(Default)]
pub(crate) struct Books {
    pub(crate) releases: BTreeMap<ReleaseId, Work>,
    /// Manifests as they were first sent.
    pub(crate) manifests: BTreeMap<TransactionId, ManifestOut>,
    /// Those of them whose departure the engine has not taken in.
    pub(crate) loading: BTreeSet<TransactionId>,
    pub(crate) refused: BTreeSet<WaveId>,
    /// Waves that came before.
    pub(crate) met: BTreeSet<WaveId>,
    /// What was answered: a repeated question gets the same answer.
    pub(crate) cancellations: BTreeMap<(ReleaseId, Option<Vec<LineNo>>), CancelReply>,
    /// Units packed, over all releases of an order.
    packed: BTreeMap<(TransactionId, LineNo), u32>,
    /// Cartons that left, and with which truck.
    left: BTreeMap<ReleaseId, TransactionId>,
}

/// A release on the floor.
#[derive(Clone)]
pub(crate) struct Work {
    /// As the wave asked.
    pub(crate) asked: LineUnits,
    /// As they are worked: less what was cancelled.
    pub(crate) lines: LineUnits,
    pub(crate) step: Step,
    /// What is in its carton.
    pub(crate) packed: LineUnits,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Rejected,
    Taken,
    Picking,
    Done,
    /// Done, and the engine has taken it in: only a repeat could say it again.
    Told,
    Cancelled,
}

impl Books {
    /// Answers a question to cancel, always in the same way.
    pub(crate) fn cancel(&mut self, release: ReleaseId, lines: Option<Vec<LineNo>>) -> CancelReply {
        if let Some(reply) = self.cancellations.get(&(release, lines.clone())) {
            return *reply;
        }
        let reply = match self.releases.get_mut(&release) {
            Some(work) if work.step == Step::Taken => {
                let dropped = |line: &LineNo| lines.as_ref().is_none_or(|l| l.contains(line));
                work.lines.retain(|(line, _)| !dropped(line));
                if work.lines.is_empty() {
                    work.step = Step::Cancelled;
                }
                CancelReply::Cancelled
            }
            Some(_) | None => CancelReply::TooLate,
        };
        self.cancellations.insert((release, lines), reply);
        reply
    }

    /// Moves a release on; `None` when it is not to be worked. Nothing that is done is undone.
    pub(crate) fn advance(&mut self, release: ReleaseId, to: Step) -> Option<LineUnits> {
        let work = self.releases.get_mut(&release)?;
        if work.step == Step::Cancelled || work.step == Step::Rejected {
            return None;
        }
        if work.step != Step::Told && (work.step != Step::Done || to == Step::Told) {
            work.step = to;
        }
        Some(work.lines.clone())
    }

    /// Packs what was picked of a release, once, and holds it against what was ordered (INV-2).
    pub(crate) fn pack(&mut self, world: &World, release: ReleaseId, reports: &[ReleaseReport]) {
        let Some(work) = self.releases.get_mut(&release).filter(|work| work.packed.is_empty()) else {
            return;
        };
        for report in reports {
            if let ReleaseReport::Packed { cartons, .. } = report {
                work.packed.extend(cartons.iter().flat_map(|carton| carton.lines.iter().copied()));
            }
        }
        for (line, units) in work.packed.clone() {
            let packed = self.packed.entry((release.order, line)).or_default();
            *packed += units;
            let ordered = ordered(world, release.order, line);
            if *packed > ordered {
                let found = format!("{} line {line}: {packed} packed, {ordered} ordered", release.order);
                world.violated("INV-2", found);
            }
        }
    }

    /// A truck leaves, once; each carton leaves with one truck (INV-2).
    pub(crate) fn depart(&mut self, world: &World, manifest: TransactionId) {
        for ManifestCarton { release, .. } in
            self.manifests.get(&manifest).into_iter().flat_map(|m| &m.cartons)
        {
            let before = self.left.insert(*release, manifest);
            if let Some(before) = before.filter(|before| *before != manifest) {
                world.violated("INV-2", format!("the carton of {release} left with {before} and {manifest}"));
            }
            if self.releases.get(release).is_none_or(|work| work.packed.is_empty()) {
                world.violated("INV-2", format!("{manifest} takes {release}, which is not packed"));
            }
        }
    }

    /// Holds an order as the engine believes it against what was done, at rest (INV-2).
    pub(crate) fn compare(&self, world: &World, order: &Order) {
        if world.is_given_up(order.id) {
            return;
        }
        let of_order = |n| self.releases.get(&ReleaseId { order: order.id, n });
        let refused = order.releases().iter().any(|r| of_order(r.n).is_some_and(Work::is_refused));
        if order.is_failed() && !refused {
            let found = format!("{} is a dead letter, and the WMS refused nothing of it", order.id);
            world.violated("INV-1", found);
        }
        for release in order.releases() {
            let work = of_order(release.n);
            for line in &release.lines {
                let done = work.map_or(0, |work| units(&work.packed, line.line));
                if line.packed != done {
                    let found = format!(
                        "{} release {} line {}: {} packed by the facts, {done} by the WMS",
                        order.id, release.n, line.line, line.packed
                    );
                    world.violated("INV-2", found);
                }
                let id = ReleaseId { order: order.id, n: release.n };
                if line.shipped != 0 && !self.left.contains_key(&id) {
                    world.violated("INV-2", format!("{id} has shipped, and no truck has left with it"));
                }
            }
        }
        let known: BTreeSet<u16> = order.releases().iter().map(|r| r.n).collect();
        let all = ReleaseId { order: order.id, n: 0 }..=ReleaseId { order: order.id, n: u16::MAX };
        for (id, _) in self.releases.range(all).filter(|(id, _)| !known.contains(&id.n)) {
            world.violated("INV-2", format!("the WMS worked {id}, which the engine does not know"));
        }
    }
}

impl Work {
    fn is_refused(&self) -> bool {
        self.step == Step::Rejected
    }
}

fn units(lines: &LineUnits, line: LineNo) -> u32 {
    lines.iter().filter(|(of, _)| *of == line).map(|(_, units)| units).sum()
}

fn ordered(world: &World, order: TransactionId, line: LineNo) -> u32 {
    match world.stored(order).map(|stored| stored.command.clone()) {
        Some(Command::Order(command)) => {
            command.lines.iter().filter(|l| l.line == line).map(|l| l.quantity).sum()
        }
        Some(Command::Move(_) | Command::Cancellation(_) | Command::Manifest(_)) | None => 0,
    }
}
