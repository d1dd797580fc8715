//! What a partition remembers of the deaths of its trees: how a poisoned order is told from bad
//! luck. The owner writes it down before it takes something in hand alone, so a panic, an abort of
//! the process and a kill are the same case. Nothing here waits or writes.

use crate::domain::ids::{TransactionId, WaveId};
use crate::ports::store::Lane;
use serde::{Deserialize, Serialize};

/// Starts without a committed turn between them after which a tree takes one thing at a time: the
/// first may be bad luck (a kill, a conflict), and one at a time costs a commit for each thing.
pub const CAREFUL_AFTER: u32 = 2;
/// Deaths over one thing, alone in hand, after which it is kept aside.
pub const DEATHS_MAX: u32 = 3;
/// Deaths over one thing after which it is kept aside without being looked at: keeping it aside
/// with a word to its client has killed the tree as well.
pub const UNTOUCHABLE: u32 = 2 * DEATHS_MAX;
/// Suspects remembered at a time; of more, the one with the fewest deaths is forgotten.
const SUSPECTS_MAX: usize = 16;

/// Something that a tree works alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum InHand {
    /// An open transaction, while its facts are folded.
    Fold(TransactionId),
    /// An open transaction, while what it owes is performed or its deadline is worked.
    Open(TransactionId),
    /// A wave without an answer, while it is sent.
    Wave(WaveId),
    /// An entry of the control lane.
    Control(u64),
    /// An entry of the stock lane.
    Stock(u64),
    /// An entry of the work lane.
    Work(u64),
}

impl InHand {
    /// An entry of a lane.
    #[must_use]
    pub fn entry(lane: Lane, n: u64) -> InHand {
        match lane {
            Lane::Control => InHand::Control(n),
            Lane::Stock => InHand::Stock(n),
            Lane::Work => InHand::Work(n),
        }
    }
}

/// The record. Clear from the first turn that a tree commits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// Starts since the last committed turn.
    pub starts: u32,
    /// What is worked alone now, or was when the tree before this one died.
    pub in_hand: Option<InHand>,
    /// What was in hand at deaths, and at how many.
    pub deaths: Vec<(InHand, u32)>,
}

impl Trouble {
    /// True when there is nothing to remember.
    #[must_use]
    pub fn is_clear(&self) -> bool {
        self.starts == 0 && self.in_hand.is_none() && self.deaths.is_empty()
    }

    /// A tree starts; whatever is in hand was so when the one before it died.
    pub fn start(&mut self) {
        self.starts = self.starts.saturating_add(1);
        let Some(suspect) = self.in_hand else { return };
        match self.deaths.iter_mut().find(|(what, _)| *what == suspect) {
            Some((_, deaths)) => *deaths = deaths.saturating_add(1),
            None => {
                if self.deaths.len() >= SUSPECTS_MAX
                    && let Some(least) = (0..self.deaths.len()).min_by_key(|&i| self.deaths[i].1)
                {
                    self.deaths.remove(least);
                }
                self.deaths.push((suspect, 1));
            }
        }
    }

    /// The tree before this one ended for a reason that is known and not what it had in hand.
    pub fn excuse(&mut self) {
        self.starts = self.starts.saturating_sub(1);
        if let Some(innocent) = self.in_hand {
            for (_, deaths) in self.deaths.iter_mut().filter(|(what, _)| *what == innocent) {
                *deaths = deaths.saturating_sub(1);
            }
            self.deaths.retain(|(_, deaths)| *deaths > 0);
        }
    }

    /// How often trees died with this alone in hand.
    #[must_use]
    pub fn deaths_over(&self, what: InHand) -> u32 {
        self.deaths.iter().find(|(suspect, _)| *suspect == what).map_or(0, |(_, deaths)| *deaths)
    }

    /// True when a tree that starts now takes one thing at a time.
    #[must_use]
    pub fn is_grave(&self) -> bool {
        self.starts >= CAREFUL_AFTER || !self.deaths.is_empty()
    }

    /// The same, with something alone in hand from here on.
    #[must_use]
    pub fn with(&self, what: InHand) -> Trouble {
        Trouble { in_hand: Some(what), ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn three_deaths_over_one_thing_convict_it_whatever_else_dies() {
        let (poison, innocent) = (InHand::Work(7), InHand::Control(1));
        let mut trouble = Trouble::default();
        for _ in 0..CAREFUL_AFTER {
            assert!(!trouble.is_grave());
            trouble.start();
        }
        for died in [poison, innocent, poison, poison] {
            trouble.start();
            assert!(trouble.is_grave());
            assert!(trouble.deaths_over(poison) < DEATHS_MAX);
            trouble = trouble.with(died);
        }
        trouble.start();
        assert_eq!((trouble.deaths_over(poison), trouble.deaths_over(innocent)), (DEATHS_MAX, 1));
    }

    #[test]
    fn an_end_with_a_known_reason_convicts_nobody() {
        let mut trouble = Trouble { starts: 2, ..Trouble::default() }.with(InHand::Stock(3));
        let before = trouble.clone();
        trouble.start();
        trouble.excuse();
        assert_eq!(trouble, before);
    }

    proptest! {
        #[test]
        fn the_record_stays_small_and_never_forgets_the_worst(deaths in prop::collection::vec(0u64..40, 0..200)) {
            let mut trouble = Trouble::default();
            for n in deaths {
                trouble = trouble.with(InHand::Work(n));
                let before = trouble.deaths_over(InHand::Work(n));
                let worst = trouble.deaths.iter().map(|(_, d)| *d).max().unwrap_or(0);
                trouble.start();
                prop_assert_eq!(trouble.deaths_over(InHand::Work(n)), before + 1);
                prop_assert!(trouble.deaths.len() <= SUSPECTS_MAX);
                prop_assert!(trouble.deaths.iter().any(|(_, d)| *d >= worst));
            }
        }
    }
}
