//! What is counted of one actor. It is owned by who outlives the actor (a partition's desk, the
//! node) and read without asking it, so that one which hangs or keeps dying is still seen.
//!
//! What it costs an actor: two looks at the clock and a few relaxed atomics a message, one short
//! lock for what it shows of itself. Messages carry batches, so that is nothing an order.

use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::time::Instant;

use super::gate::Gate;
use super::report::{ActorType, Cause, GateReport, Observed, Restart, Restarts};
use crate::domain::time::Timestamp;
use crate::ports::measure::{Distribution, Histogram, Scale};

/// From a decision about one order to a turn whose disk hangs.
pub(crate) static HANDLING: Scale = Scale {
    per_unit: 1_000_000_000,
    bounds: &[
        5_000,
        10_000,
        25_000,
        50_000,
        100_000,
        250_000,
        500_000,
        1_000_000,
        2_500_000,
        5_000_000,
        10_000_000,
        25_000_000,
        50_000_000,
        100_000_000,
        250_000_000,
        1_000_000_000,
        10_000_000_000,
    ],
};

/// One actor's counts, through all its restarts.
#[derive(Debug)]
pub(crate) struct Vitals {
    born: Instant,
    handling: Histogram,
    /// When the message in hand was begun, in nanoseconds after `born` and one; 0 while none is.
    in_hand: AtomicU64,
    causes: [AtomicU64; Cause::ALL.len()],
    deaths: Mutex<Deaths>,
    gate: Mutex<Standing>,
    observed: Mutex<Option<Observed>>,
}

#[derive(Debug, Default)]
struct Deaths {
    /// Why it is about to end, in its own words.
    foretold: Option<(Cause, Option<ActorType>)>,
    last: Option<Restart>,
}

#[derive(Debug, Default)]
struct Standing {
    gate: Option<Gate>,
    /// Refusals at the gates of its earlier lives.
    refused_before: u64,
}

/// A message in hand; it is handled when this is dropped, also by a panic.
#[must_use]
pub(crate) struct Handling {
    vitals: Arc<Vitals>,
    since: Instant,
}

impl Vitals {
    /// Of an actor that has done nothing.
    pub(crate) fn new() -> Arc<Vitals> {
        Arc::new(Vitals {
            born: Instant::now(),
            handling: Histogram::new(&HANDLING),
            in_hand: AtomicU64::new(0),
            causes: Default::default(),
            deaths: Mutex::default(),
            gate: Mutex::default(),
            observed: Mutex::default(),
        })
    }

    /// A message is in hand until the answer is dropped.
    pub(crate) fn handle(self: &Arc<Vitals>) -> Handling {
        let since = Instant::now();
        let after = u64::try_from(since.duration_since(self.born).as_nanos()).unwrap_or(u64::MAX - 1);
        self.in_hand.store(after + 1, Relaxed);
        Handling { vitals: self.clone(), since }
    }

    /// The actor stands behind this gate from here on.
    pub(crate) fn stands_behind(&self, gate: Gate) {
        let mut standing = self.gate.lock();
        if let Some(before) = standing.gate.replace(gate) {
            standing.refused_before += before.refused();
        }
    }

    /// The actor shows what it holds.
    pub(crate) fn show(&self, observed: Observed) {
        *self.observed.lock() = Some(observed);
    }

    /// The actor is about to end, for this reason; `of` is the child whose end is the reason.
    pub(crate) fn foretell(&self, cause: Cause, of: Option<ActorType>) {
        self.deaths.lock().foretold = Some((cause, of));
    }

    /// The actor begins a life: what an earlier one foretold is no longer about it.
    pub(crate) fn begins(&self) {
        self.deaths.lock().foretold = None;
    }

    /// The actor is gone and will be started again. A panic explains itself; otherwise what it
    /// foretold is the cause. Answers the cause.
    pub(crate) fn died(&self, panicked: bool, at: Timestamp) -> Cause {
        let mut deaths = self.deaths.lock();
        let foretold = deaths.foretold.take();
        let (cause, of) = match panicked {
            true => (Cause::Panic, None),
            false => foretold.unwrap_or((Cause::Stopped, None)),
        };
        self.causes[cause as usize].fetch_add(1, Relaxed);
        deaths.last = Some(Restart { cause, of, at });
        cause
    }

    /// What was measured of its messages.
    pub(crate) fn handling(&self) -> Distribution {
        self.handling.read()
    }

    /// How long the message in hand has been there.
    pub(crate) fn in_hand(&self) -> Option<Duration> {
        let since = self.in_hand.load(Relaxed).checked_sub(1)?;
        Some(self.born.elapsed().saturating_sub(Duration::from_nanos(since)))
    }

    /// Its restarts.
    pub(crate) fn restarts(&self) -> Restarts {
        let by_cause = Cause::ALL.map(|cause| (cause, self.causes[cause as usize].load(Relaxed)));
        Restarts { by_cause, last: self.deaths.lock().last }
    }

    /// Its gate; `None` when it has none.
    pub(crate) fn gate(&self) -> Option<GateReport> {
        let standing = self.gate.lock();
        standing.gate.as_ref().map(|gate| GateReport {
            depth: gate.depth(),
            capacity: Some(gate.capacity()),
            refused: standing.refused_before + gate.refused(),
        })
    }

    /// What it last showed.
    pub(crate) fn observed(&self) -> Option<Observed> {
        *self.observed.lock()
    }
}

impl Drop for Handling {
    fn drop(&mut self) {
        self.vitals.handling.record_time(self.since.elapsed());
        self.vitals.in_hand.store(0, Relaxed);
    }
}

/// The vitals of one partition's tree.
#[derive(Debug)]
pub(crate) struct TreeVitals {
    pub(crate) warehouse: Arc<Vitals>,
    pub(crate) pipeline: Arc<Vitals>,
    pub(crate) inventory: Arc<Vitals>,
    pub(crate) wms_link: Arc<Vitals>,
    pub(crate) manifester: Arc<Vitals>,
}

impl TreeVitals {
    pub(crate) fn new() -> TreeVitals {
        let [warehouse, pipeline, inventory, wms_link, manifester] = std::array::from_fn(|_| Vitals::new());
        TreeVitals { warehouse, pipeline, inventory, wms_link, manifester }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_in_hand_until_it_is_handled_and_counts_when_the_actor_died_of_it() {
        let vitals = Vitals::new();
        assert_eq!((vitals.in_hand(), vitals.handling().count()), (None, 0));
        let handling = vitals.handle();
        assert!(vitals.in_hand().is_some());
        drop(handling);
        assert_eq!((vitals.in_hand(), vitals.handling().count()), (None, 1));
        let inside = vitals.clone();
        let over_a_message = std::panic::AssertUnwindSafe(move || {
            let _handling = inside.handle();
            panic!("over a message");
        });
        let died = std::panic::catch_unwind(over_a_message);
        assert!(died.is_err());
        assert_eq!((vitals.in_hand(), vitals.handling().count()), (None, 2));
    }

    #[test]
    fn refusals_are_counted_through_all_lives_and_the_depth_is_that_of_this_one() {
        let vitals = Vitals::new();
        let old = Gate::new(1);
        vitals.stands_behind(old.clone());
        let left_behind = old.enter();
        assert!(left_behind.is_some() && old.enter().is_none());
        vitals.stands_behind(Gate::new(4));
        assert_eq!(vitals.gate(), Some(GateReport { depth: 0, capacity: Some(4), refused: 1 }));
    }

    #[test]
    fn a_death_is_explained_by_a_panic_or_by_what_the_actor_foretold() {
        let vitals = Vitals::new();
        vitals.foretell(Cause::CommitUnknown, None);
        assert_eq!(vitals.died(false, Timestamp(5)), Cause::CommitUnknown);
        assert_eq!(vitals.died(false, Timestamp(6)), Cause::Stopped);
        vitals.foretell(Cause::CommitUnknown, None);
        assert_eq!(vitals.died(true, Timestamp(7)), Cause::Panic);
        vitals.foretell(Cause::Unreadable, None);
        vitals.begins();
        vitals.foretell(Cause::Panic, Some(ActorType::Inventory));
        vitals.died(false, Timestamp(8));
        let restarts = vitals.restarts();
        assert_eq!(restarts.count(), 4);
        assert_eq!(restarts.last.map(|last| last.to_string()), Some("panic in inventory".to_owned()));
        assert!(restarts.by_cause.contains(&(Cause::Panic, 2)));
    }
}
