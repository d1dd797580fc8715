//! What a node counts of its commands and orders: verdicts, times, ends, what was kept aside, and
//! invariants that did not hold. What a turn did is counted once it is durable, never ahead of it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::report::{Outcome, Tally};
use crate::domain::command::Kind;
use crate::domain::invariants::Violation;
use crate::domain::state::State;
use crate::ports::measure::{Histogram, Scale, WRITE_TIME};
use crate::ports::store::DeadKind;

/// From the simulated WMS to a backorder of a week. In milliseconds: a sum of weeks must not wrap.
static DOOR_TO_DOOR: Scale = Scale {
    per_unit: 1_000,
    bounds: &[
        100,
        250,
        500,
        1_000,
        2_500,
        5_000,
        10_000,
        30_000,
        60_000,
        300_000,
        900_000,
        1_800_000,
        3_600_000,
        7_200_000,
        14_400_000,
        28_800_000,
        86_400_000,
        172_800_000,
        604_800_000,
    ],
};

/// The invariants by their ids, in the order of their numbers.
pub(crate) const INVARIANTS: [&str; 8] =
    ["INV-1", "INV-2", "INV-3", "INV-4", "INV-5", "INV-6", "INV-7", "INV-8"];
/// The kinds of dead letter by their names, in the order of [`place`].
const DEAD_KINDS: [&str; 4] = ["order", "confirmation", "wave", "stock"];

/// Where a kind of dead letter is counted.
fn place(kind: DeadKind) -> usize {
    match kind {
        DeadKind::Order => 0,
        DeadKind::Confirmation => 1,
        DeadKind::Wave => 2,
        DeadKind::Stock => 3,
    }
}

/// The counters of a node.
#[derive(Debug)]
pub(crate) struct Tallies {
    commands: [[AtomicU64; Outcome::ALL.len()]; Kind::ALL.len()],
    accept: Histogram,
    ended: [AtomicU64; State::ALL.len()],
    door_to_door: Histogram,
    dead: [AtomicU64; DEAD_KINDS.len()],
    violations: [AtomicU64; INVARIANTS.len()],
    events_rendered: AtomicU64,
    events_aside: AtomicU64,
}

/// An order that a turn ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    pub(crate) state: State,
    /// Since it was accepted.
    pub(crate) after: Duration,
}

impl Tallies {
    pub(crate) fn new() -> Tallies {
        Tallies {
            commands: Default::default(),
            accept: Histogram::new(&WRITE_TIME),
            ended: Default::default(),
            door_to_door: Histogram::new(&DOOR_TO_DOOR),
            dead: Default::default(),
            violations: Default::default(),
            events_rendered: AtomicU64::new(0),
            events_aside: AtomicU64::new(0),
        }
    }

    /// A command has its verdict.
    pub(crate) fn judged(&self, kind: Kind, outcome: Outcome) {
        self.commands[kind as usize][outcome as usize].fetch_add(1, Relaxed);
    }

    /// A batch of commands was answered this long after it was handed in.
    pub(crate) fn answered(&self, after: Duration) {
        self.accept.record_time(after);
    }

    /// A turn is durable.
    pub(crate) fn durable(&self, ends: &[End], dead: &[DeadKind]) {
        for End { state, after } in ends {
            self.ended[*state as usize].fetch_add(1, Relaxed);
            if *state == State::Shipped {
                self.door_to_door.record_time(*after);
            }
        }
        for kind in dead {
            self.dead[place(*kind)].fetch_add(1, Relaxed);
        }
    }

    /// An event was rendered from its transaction.
    pub(crate) fn event_rendered(&self) {
        self.events_rendered.fetch_add(1, Relaxed);
    }

    /// An event cannot be rendered; its readers go on behind it.
    pub(crate) fn event_aside(&self) {
        self.events_aside.fetch_add(1, Relaxed);
    }

    /// Counts an invariant that does not hold, and says so.
    pub(crate) fn violated(&self, violation: &Violation) {
        tracing::error!(invariant = violation.id, found = %violation.found, "an invariant does not hold");
        if let Some(i) = INVARIANTS.iter().position(|id| *id == violation.id) {
            self.violations[i].fetch_add(1, Relaxed);
        }
    }

    /// What was counted.
    pub(crate) fn read(&self) -> Tally {
        let load = |counter: &AtomicU64| counter.load(Relaxed);
        let of_kind = |kind: Kind| {
            Outcome::ALL.map(move |outcome| {
                (kind, outcome, self.commands[kind as usize][outcome as usize].load(Relaxed))
            })
        };
        let finals = State::ALL.into_iter().filter(|state| state.ends_an_order());
        Tally {
            commands: Kind::ALL.into_iter().flat_map(of_kind).collect(),
            accept: self.accept.read(),
            ended: finals.map(|state| (state, load(&self.ended[state as usize]))).collect(),
            door_to_door: self.door_to_door.read(),
            dead_letters: DEAD_KINDS.iter().zip(&self.dead).map(|(name, n)| (*name, load(n))).collect(),
            events_rendered: load(&self.events_rendered),
            events_aside: load(&self.events_aside),
            violations: INVARIANTS.iter().zip(&self.violations).map(|(id, n)| (*id, load(n))).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_violation_is_counted_under_its_id_and_all_others_stay_at_zero() {
        let tallies = Tallies::new();
        tallies.violated(&Violation { id: "INV-3", found: "two reserved, one on hand".to_owned() });
        let counted = tallies.read().violations;
        assert_eq!(counted.len(), 8);
        assert!(counted.iter().all(|(id, n)| *n == u64::from(*id == "INV-3")));
    }

    #[test]
    fn only_what_shipped_has_a_time_from_door_to_door() {
        let tallies = Tallies::new();
        let end = |state| End { state, after: Duration::from_secs(90) };
        tallies.durable(&[end(State::Shipped), end(State::Cancelled)], &[DeadKind::Confirmation]);
        let read = tallies.read();
        assert_eq!((read.door_to_door.count(), read.door_to_door.total()), (1, 90.0));
        assert!(read.ended.contains(&(State::Cancelled, 1)) && read.ended.contains(&(State::Shipped, 1)));
        let expected = [("order", 0), ("confirmation", 1), ("wave", 0), ("stock", 0)];
        assert_eq!(read.dead_letters, expected);
    }
}
