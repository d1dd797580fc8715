//! A cancellation as its facts leave it: `accepted → applied | rejected`.
//!
//! It decides nothing itself: its order does, and says when the request is settled.

use super::fact::CancellationFact;
use super::state::State;

/// The state after a cancellation's end.
#[must_use]
pub fn state_after(fact: &CancellationFact) -> State {
    match fact {
        CancellationFact::Applied { .. } => State::Applied,
        CancellationFact::Rejected => State::Rejected,
    }
}
