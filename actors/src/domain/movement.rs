//! A stock move as its facts leave it: `accepted → applied | rejected`.

use super::fact::MoveFact;
use super::state::State;

/// The state after a move's end.
#[must_use]
pub fn state_after(fact: MoveFact) -> State {
    match fact {
        MoveFact::Applied | MoveFact::Replenished { .. } | MoveFact::Counted { .. } => State::Applied,
        MoveFact::Rejected => State::Rejected,
    }
}
