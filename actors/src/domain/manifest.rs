//! A manifest: cartons of one carrier and service that leave together.
//!
//! The house gathers packed cartons by (carrier, service) and closes a manifest when the oldest
//! of them has waited `close_every`, or when `cartons_max` are there. A manifest is written when
//! it closes, not when its first carton appears: until then the packed orders are the only
//! record, and a restart gathers the same cartons from their folds.

use super::fact::ManifestFact;
use super::state::State;

/// Where a manifest stands: `accepted → closed → departed`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    closed: bool,
    departed: bool,
}

impl Manifest {
    /// Takes in what happened.
    pub fn apply(&mut self, fact: ManifestFact) {
        match fact {
            ManifestFact::Closed { .. } => self.closed = true,
            ManifestFact::Departed => self.departed = true,
        }
    }

    /// The state a client sees.
    #[must_use]
    pub fn state(&self) -> State {
        match (self.closed, self.departed) {
            (_, true) => State::Departed,
            (true, false) => State::Closed,
            (false, false) => State::Accepted,
        }
    }

    /// True while the WMS must still be told to load it and has not said that it left.
    #[must_use]
    pub fn owes_loading(&self) -> bool {
        self.closed && !self.departed
    }
}
