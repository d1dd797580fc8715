//! The invariants as checks, with the ids that tests, assertions and metrics use.

use super::order::Order;
use super::stock::Position;
use std::fmt;

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// `INV-1` to `INV-8`.
    pub id: &'static str,
    /// What was found.
    pub found: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.id, self.found)
    }
}

/// INV-2: what a line's releases ask for, less what was missing or came back, and what is
/// shipped, never exceed what was ordered; and every unit is in exactly one place.
#[must_use]
pub fn ships_at_most_once(order: &Order) -> Option<Violation> {
    let broken = |found: String| Some(Violation { id: "INV-2", found });
    for line in order.lines() {
        let of_line = || order.releases().iter().filter_map(|r| r.line(line.number));
        let asked: u32 = of_line().map(|l| l.asked - l.missing() - l.returned).sum();
        if asked > line.ordered || line.shipped > line.ordered {
            return broken(format!(
                "{} line {}: {asked} asked, {} ordered",
                order.id, line.number, line.ordered
            ));
        }
        let held: u32 = of_line().map(super::release::ReleaseLine::held).sum();
        let placed = line.unplaced() + line.allocated + line.cancelled + line.refused + line.shipped + held;
        if placed != line.ordered {
            return broken(format!(
                "{} line {}: {placed} in places, {} ordered",
                order.id, line.number, line.ordered
            ));
        }
    }
    None
}

/// INV-3: reserved + suspect ≤ on hand + recorded shortfall.
#[must_use]
pub fn nothing_reserved_twice(name: &str, position: &Position) -> Option<Violation> {
    let Position { on_hand, reserved, suspect, shortfall, .. } = *position;
    (position.uncovered() > shortfall).then(|| Violation {
        id: "INV-3",
        found: format!(
            "{name}: {reserved} reserved + {suspect} suspect > {on_hand} on hand + {shortfall} shortfall"
        ),
    })
}

/// INV-4, for one position: on hand is what moves brought (receipts, adjustments, what counts
/// found) less what was shipped.
#[must_use]
pub fn stock_conserved(name: &str, position: &Position, moved: i64, shipped: u64) -> Option<Violation> {
    let shipped = i64::try_from(shipped).unwrap_or(i64::MAX);
    (position.on_hand + shipped != moved).then(|| Violation {
        id: "INV-4",
        found: format!("{name}: {} on hand + {shipped} shipped, {moved} by moves", position.on_hand),
    })
}
