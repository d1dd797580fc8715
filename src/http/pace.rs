//! When to come back: whole seconds from the measured pace, with jitter, so that clients that
//! were refused together do not return together.

use rand::Rng;
use wavegate_engine::domain::command::Kind;
use wavegate_engine::domain::estimate::Estimate;
use wavegate_engine::domain::fact::{Fact, OrderFact, Recorded};
use wavegate_engine::domain::state::State;
use wavegate_engine::domain::time::Timestamp;
use wavegate_engine::engine::Snapshot;

/// A poll more often than this tells nothing new, and less often makes a client wait in vain.
const POLL_S: (u64, u64) = (1, 60);
/// Nobody is told to stay away longer than this: pace may change.
const BACKLOG_S_MAX: u64 = 600;
/// What is said of a warehouse that is paused: nobody knows for how long.
const PAUSED_S: u64 = 60;
/// What is said before any pace was measured.
const UNMEASURED_S: u64 = 2;

/// Up to a quarter more, and at least a second, at random.
pub(crate) fn jittered(seconds: u64) -> u64 {
    seconds + rand::rng().random_range(0..=(seconds / 4).max(1))
}

/// When a client whose order found the work lane full may find room: the lane is to drain by a
/// tenth first, or those who come back would be refused again.
pub(crate) fn backlog_s(snapshot: &Snapshot) -> u64 {
    if snapshot.paused {
        return jittered(PAUSED_S);
    }
    let drained = snapshot.pace.time_for((snapshot.backlog / 10).max(1));
    let seconds = drained.map_or(UNMEASURED_S, |t| t.as_secs_f64().ceil() as u64);
    jittered(seconds.clamp(1, BACKLOG_S_MAX))
}

/// When a transaction of this kind and state will probably have changed.
pub(crate) fn poll_s(snapshot: &Snapshot, kind: Kind, state: State) -> u64 {
    let ahead = match state {
        State::Accepted | State::Allocated => match kind {
            Kind::Order if snapshot.paused => return jittered(POLL_S.1 / 2),
            Kind::Order => snapshot.pace.time_for(snapshot.backlog + snapshot.unreleased),
            // They have lanes of their own, which pass by whatever waits in the work lane.
            Kind::Move | Kind::Cancellation | Kind::Manifest => None,
        },
        State::Released | State::Picking | State::Packed | State::Manifested | State::Closed => {
            // Four steps from the release to the truck, about alike.
            Some(snapshot.pace.lead_p50 / 4)
        }
        State::Backordered | State::Failed => return jittered(POLL_S.1 / 2),
        State::Shipped | State::Cancelled | State::Rejected | State::Applied | State::Departed => None,
    };
    let seconds = ahead.map_or(POLL_S.0, |t| t.as_secs());
    let seconds = seconds.clamp(POLL_S.0, POLL_S.1);
    // The shortest pause stays what it is: jitter would double it.
    if seconds == POLL_S.0 { seconds } else { jittered(seconds) }
}

/// When an order with these facts will probably ship; see [`Snapshot::estimate`].
pub(crate) fn estimate(
    snapshot: &Snapshot,
    facts: &[Recorded],
    standing: State,
    now: Timestamp,
) -> Option<Estimate> {
    snapshot.estimate(standing, facts.first()?.at, last_release(facts), now)
}

fn last_release(facts: &[Recorded]) -> Option<Timestamp> {
    let released = |r: &&Recorded| matches!(r.fact, Fact::Order(OrderFact::Released { .. }));
    facts.iter().rfind(released).map(|r| r.at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_answer_follows_the_measured_pace() {
        let mut snapshot = Snapshot { backlog: 10_000, ..Snapshot::default() };
        assert!((UNMEASURED_S..=UNMEASURED_S + 1).contains(&backlog_s(&snapshot)));
        snapshot.pace.orders_per_s = Some(50.0);
        assert!((20..=25).contains(&backlog_s(&snapshot)));
        assert!((60..=75).contains(&poll_s(&snapshot, Kind::Order, State::Accepted)));
        assert_eq!(poll_s(&snapshot, Kind::Move, State::Accepted), 1);
        snapshot.pace.lead_p50 = Duration::from_secs(2);
        assert_eq!(poll_s(&snapshot, Kind::Order, State::Picking), 1);
        snapshot.paused = true;
        assert!((PAUSED_S..=PAUSED_S + PAUSED_S / 4).contains(&backlog_s(&snapshot)));
        assert!((30..=37).contains(&poll_s(&snapshot, Kind::Order, State::Accepted)));
        assert_eq!(poll_s(&snapshot, Kind::Order, State::Picking), 1, "what is released goes on");
    }

    #[test]
    fn jitter_only_adds() {
        for _ in 0..1_000 {
            assert!((40..=50).contains(&jittered(40)));
        }
    }

    #[test]
    fn nothing_is_estimated_before_the_promises_have_proved_true() {
        let accepted = Recorded {
            at: Timestamp(50_000),
            fact: Fact::Order(OrderFact::Backordered), // any fact: only its time is read
        };
        let mut snapshot =
            Snapshot { backlog: 100, oldest: Some(Timestamp(0)), unreleased: 10, ..Snapshot::default() };
        snapshot.pace.orders_per_s = Some(10.0);
        snapshot.pace.lead_p90 = Duration::from_secs(3);
        let now = Timestamp(100_000);
        let facts = [accepted];
        assert_eq!(estimate(&snapshot, &facts, State::Accepted, now), None);
        snapshot.pace.calibrated = true;
        let estimated = estimate(&snapshot, &facts, State::Accepted, now).unwrap();
        assert_eq!(estimated.position, 60, "half of the lane and what is pulled");
        assert_eq!(estimated.shipped_p90, Timestamp(109_000));
        assert_eq!(estimate(&snapshot, &facts, State::Backordered, now), None);
        snapshot.paused = true;
        assert_eq!(estimate(&snapshot, &facts, State::Accepted, now), None);
    }
}
