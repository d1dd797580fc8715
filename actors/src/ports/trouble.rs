//! What a partition remembers of the deaths of its trees: how a poisoned order is told from bad
//! luck. The owner writes down what it takes in hand before it does, so a panic, an abort of the
//! process and a kill are the same case. Nothing here waits or writes.

use crate::domain::ids::{TransactionId, WaveId};
use crate::ports::store::Lane;
use serde::{Deserialize, Serialize};

/// Starts without a committed turn between them from which on a tree is careful: the first may be bad
/// luck (a kill, a conflict), and being careful costs commits.
pub const CAREFUL_FROM: u32 = 2;
/// Deaths over one thing, alone in hand, after which it is kept aside.
pub const DEATHS_MAX: u32 = 3;
/// Deaths over one thing after which it is kept aside without being looked at: keeping it aside
/// with a word to its client has killed the tree as well.
pub const UNTOUCHABLE: u32 = 2 * DEATHS_MAX;
/// Suspects remembered at a time; of more, the one with the fewest deaths is forgotten.
const SUSPECTS_MAX: usize = 16;

/// Something that a tree works. In order of their working, so that a span of them has a first and a
/// last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Thing {
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

impl Thing {
    /// An entry of a lane.
    #[must_use]
    pub fn entry(lane: Lane, n: u64) -> Thing {
        match lane {
            Lane::Control => Thing::Control(n),
            Lane::Stock => Thing::Stock(n),
            Lane::Work => Thing::Work(n),
        }
    }
}

/// Things that are in hand together: all that there are from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The first.
    pub first: Thing,
    /// The last; the first when it is alone.
    pub last: Thing,
}

impl Span {
    /// One thing alone.
    #[must_use]
    pub fn alone(thing: Thing) -> Span {
        Span { first: thing, last: thing }
    }

    fn holds(&self, thing: Thing) -> bool {
        (self.first..=self.last).contains(&thing)
    }
}

/// The record. Clear from the first turn that a tree commits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// Starts since the last committed turn.
    pub starts: u32,
    /// What is in hand now, or was when the tree before this one died.
    pub in_hand: Option<Span>,
    /// What was in hand at deaths, and at how many.
    pub deaths: Vec<(Span, u32)>,
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
        match self.deaths.iter_mut().find(|(span, _)| *span == suspect) {
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
            for (_, deaths) in self.deaths.iter_mut().filter(|(span, _)| *span == innocent) {
                *deaths = deaths.saturating_sub(1);
            }
            self.deaths.retain(|(_, deaths)| *deaths > 0);
        }
    }

    /// How often trees died with this alone in hand.
    #[must_use]
    pub fn deaths_over(&self, thing: Thing) -> u32 {
        let alone = Span::alone(thing);
        self.deaths.iter().find(|(span, _)| *span == alone).map_or(0, |(_, deaths)| *deaths)
    }

    /// True when a tree that starts now is careful.
    #[must_use]
    pub fn is_grave(&self) -> bool {
        self.starts >= CAREFUL_FROM || !self.deaths.is_empty()
    }

    /// The same, with these in hand from here on.
    #[must_use]
    pub fn with(&self, span: Span) -> Trouble {
        Trouble { in_hand: Some(span), ..self.clone() }
    }

    /// Puts things, in order, into groups that may be in hand together, of at most `max`: what was in
    /// hand at a death is alone in its group.
    pub fn groups<T>(&self, things: Vec<(Thing, T)>, max: usize) -> Vec<Vec<(Thing, T)>> {
        let mut groups: Vec<Vec<(Thing, T)>> = Vec::new();
        let mut joins = false;
        for (thing, item) in things {
            let suspect = self.deaths.iter().any(|(span, _)| span.holds(thing));
            match groups.last_mut() {
                Some(group) if joins && !suspect && group.len() < max => group.push((thing, item)),
                Some(_) | None => groups.push(vec![(thing, item)]),
            }
            joins = !suspect;
        }
        groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn alone(n: u64) -> Span {
        Span::alone(Thing::Work(n))
    }

    #[test]
    fn three_deaths_over_one_thing_convict_it_whatever_else_dies() {
        let (poison, innocent) = (Thing::Work(7), Thing::Control(1));
        let mut trouble = Trouble::default();
        for _ in 0..CAREFUL_FROM {
            assert!(!trouble.is_grave());
            trouble.start();
        }
        for died in [poison, innocent, poison, poison] {
            assert!(trouble.is_grave());
            assert!(trouble.deaths_over(poison) < DEATHS_MAX);
            trouble = trouble.with(Span::alone(died));
            trouble.start();
        }
        assert_eq!((trouble.deaths_over(poison), trouble.deaths_over(innocent)), (DEATHS_MAX, 1));
    }

    #[test]
    fn an_end_with_a_known_reason_convicts_nobody() {
        let mut trouble = Trouble { starts: 2, ..Trouble::default() }.with(Span::alone(Thing::Stock(3)));
        let before = trouble.clone();
        trouble.start();
        trouble.excuse();
        assert_eq!(trouble, before);
    }

    #[test]
    fn a_group_that_died_is_taken_apart_and_convicts_none_of_its_members() {
        let things = || (1..=7).map(|n| (Thing::Work(n), n)).collect::<Vec<_>>();
        let members =
            |trouble: &Trouble| trouble.groups(things(), 3).iter().map(Vec::len).collect::<Vec<_>>();
        let mut trouble = Trouble::default();
        assert_eq!(members(&trouble), [3, 3, 1]);
        trouble = trouble.with(Span { first: Thing::Work(4), last: Thing::Work(6) });
        trouble.start();
        assert_eq!(members(&trouble), [3, 1, 1, 1, 1]);
        assert!((1..=7).all(|n| trouble.deaths_over(Thing::Work(n)) == 0));
    }

    proptest! {
        #[test]
        fn the_record_stays_small_and_never_forgets_the_worst(deaths in prop::collection::vec(0u64..40, 0..200)) {
            let mut trouble = Trouble::default();
            for n in deaths {
                trouble = trouble.with(alone(n));
                let before = trouble.deaths_over(Thing::Work(n));
                let worst = trouble.deaths.iter().map(|(_, d)| *d).max().unwrap_or(0);
                trouble.start();
                prop_assert_eq!(trouble.deaths_over(Thing::Work(n)), before + 1);
                prop_assert!(trouble.deaths.len() <= SUSPECTS_MAX);
                prop_assert!(trouble.deaths.iter().any(|(_, d)| *d >= worst));
            }
        }

        #[test]
        fn groups_hold_everything_once_in_order(died in prop::collection::vec((0u64..30, 0u64..5), 0..4), max in 1usize..9) {
            let mut trouble = Trouble::default();
            for (first, length) in died {
                trouble = trouble.with(Span { first: Thing::Work(first), last: Thing::Work(first + length) });
                trouble.start();
            }
            let groups = trouble.groups((0..40).map(|n| (Thing::Work(n), n)).collect(), max);
            prop_assert!(groups.iter().all(|g| !g.is_empty() && g.len() <= max));
            let all: Vec<u64> = groups.into_iter().flatten().map(|(_, n)| n).collect();
            prop_assert_eq!(all, (0..40).collect::<Vec<_>>());
        }
    }
}
