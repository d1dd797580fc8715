//! One release: units of an order that went to the WMS together, and what became of them.

use super::confirmation::Unbookable;
use super::fact::{Carton, LineUnits};
use super::ids::{LineNo, Quantity, TransactionId, WaveId};
use super::sscc::Sscc;
use super::time::Timestamp;

/// A release as its order's facts leave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// Counts the order's releases from 1.
    pub n: u16,
    /// The wave it travelled in.
    pub wave: WaveId,
    /// When it was released.
    pub at: Timestamp,
    /// When the WMS last said something new about it.
    pub heard: Timestamp,
    /// True once the WMS began.
    pub picking: bool,
    /// What it holds.
    pub lines: Vec<ReleaseLine>,
    /// Its cartons so far.
    pub cartons: Vec<PackedCartonState>,
}

/// A carton and how far it got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedCartonState {
    /// As packed.
    pub carton: Carton,
    /// Who carries it.
    pub carrier: String,
    /// When it was packed.
    pub packed_at: Timestamp,
    /// The closed manifest it is on.
    pub manifest: Option<TransactionId>,
    /// True once it left.
    pub departed: bool,
}

/// One line of a release. `asked = picked + missing + returned + still to pick`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReleaseLine {
    /// The order's line.
    pub line: LineNo,
    /// Units asked for.
    pub asked: Quantity,
    /// Units picked, cumulative.
    pub picked: Quantity,
    /// Units not found, cumulative.
    pub short: Quantity,
    /// Units found damaged, cumulative.
    pub damaged: Quantity,
    /// Units that went back out of the release: cancelled, or rejected by the WMS.
    pub returned: Quantity,
    /// Units in cartons, cumulative.
    pub packed: Quantity,
    /// Units on closed manifests, cumulative.
    pub manifested: Quantity,
    /// Units that left.
    pub shipped: Quantity,
}

impl ReleaseLine {
    /// Units that the WMS could not pick.
    #[must_use]
    pub fn missing(&self) -> Quantity {
        self.short + self.damaged
    }

    /// Units in the warehouse's hands: asked for and neither gone nor missing.
    #[must_use]
    pub fn held(&self) -> Quantity {
        self.asked - self.missing() - self.returned - self.shipped
    }

    /// Units that the WMS has still to pick or to miss.
    #[must_use]
    pub fn unsettled(&self) -> Quantity {
        self.asked - self.missing() - self.returned - self.picked
    }

    /// Units that are not in a carton and still expected there.
    #[must_use]
    pub fn unpacked(&self) -> Quantity {
        self.asked - self.missing() - self.returned - self.packed
    }
}

impl Release {
    /// True when every line is picked, missing or returned: its credit is free again.
    #[must_use]
    pub fn settled(&self) -> bool {
        self.lines.iter().all(|l| l.unsettled() == 0)
    }

    /// True when the WMS has begun with it, by whatever report.
    #[must_use]
    pub fn begun(&self) -> bool {
        self.picking || self.lines.iter().any(|l| l.picked + l.missing() > 0)
    }

    /// True when a cancellation or a refusal took everything out: it cannot be picked.
    #[must_use]
    pub fn is_emptied(&self) -> bool {
        self.lines.iter().all(|l| l.returned == l.asked)
    }

    /// Units that a cancellation could still take out, by line, of the lines named.
    #[must_use]
    pub fn cancellable(&self, lines: Option<&[LineNo]>) -> LineUnits {
        let wanted = |line: LineNo| lines.is_none_or(|lines| lines.contains(&line));
        let left = |l: &ReleaseLine| l.asked - l.missing() - l.returned - l.packed;
        self.lines.iter().filter(|l| wanted(l.line) && left(l) > 0).map(|l| (l.line, left(l))).collect()
    }

    /// The carton that the WMS or the house calls so.
    #[must_use]
    pub fn carton(&self, carton_id: &str, sscc: Option<Sscc>) -> Option<&PackedCartonState> {
        self.cartons
            .iter()
            .find(|c| c.carton.carton_id.as_deref() == Some(carton_id) || sscc == Some(c.carton.sscc))
    }

    /// Checks a cumulative report against what was asked; `other` is what each line already
    /// counts against the same units.
    pub(super) fn check(
        &self,
        units: &LineUnits,
        other: impl Fn(&ReleaseLine) -> Quantity,
    ) -> Result<(), Unbookable> {
        for &(line, quantity) in units {
            let held = self.line(line).ok_or(Unbookable::UnknownLine)?;
            let room = held.asked.saturating_sub(held.returned + other(held));
            if quantity > room {
                return Err(Unbookable::MoreThanAsked);
            }
        }
        Ok(())
    }

    /// The release's line with this number.
    #[must_use]
    pub fn line(&self, line: LineNo) -> Option<&ReleaseLine> {
        self.lines.iter().find(|l| l.line == line)
    }
}
