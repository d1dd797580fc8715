//! The operator of the world: pauses and resumes warehouses, redrives dead letters and gives orders
//! up, at any time; and once the faults have healed deals with what bad luck has put aside.
//!
//! An innocent order that was in hand when three trees died is kept aside as a guilty one would be.
//! That loses nothing: redriven it goes on, with all that was said about it meanwhile.

use super::World;
use super::disk::at_once;
use super::workload::Workload;
use crate::domain::fact::{Fact, OrderFact};
use crate::domain::ids::{PartitionId, TransactionId};
use crate::engine::{Handle, InstructError};
use crate::ports::entropy::Entropy;
use crate::ports::store::{DeadKind, DeadLetter, Instruction, Store};

/// How the reason begins of everything that was kept aside for the deaths of trees.
const BY_DEATHS: [&str; 3] = ["it crashed", "folding it crashed", "its order is kept aside"];

impl Workload {
    /// Something that an operator does for no good reason.
    pub(crate) async fn operate(&self, handle: &Handle) {
        let world = &self.world;
        let any = 1 + world.chance.below(u64::from(world.profile.warehouses)) as u16;
        let homes = (any..=world.profile.warehouses).chain(1..any).map(PartitionId);
        // Wherever there is a letter, for there are few.
        let (home, letters) = homes
            .map(|home| (home, letters(world, home)))
            .find(|(_, letters)| !letters.is_empty())
            .unwrap_or((PartitionId(any), Vec::new()));
        let letter = letters.get(world.chance.below(letters.len().max(1) as u64) as usize);
        match (world.chance.below(5), letter) {
            (0 | 4, Some((n, letter))) if letter.kind == DeadKind::Order => {
                self.instruct(handle, home, Instruction::GiveUp(*n)).await;
            }
            (0 | 1 | 4, Some((n, _))) => self.instruct(handle, home, Instruction::Redrive(*n)).await,
            (2, _) => {
                world.observer.saw("pauses");
                // What it answers is not the last word: a pause that is unknown is resumed like the others.
                let _unknown = handle.set_paused(home, true).await;
            }
            (0 | 1 | 3.., _) => {
                let _unknown = handle.set_paused(home, false).await;
            }
        }
    }

    /// Every warehouse works again, whatever was said before.
    pub(crate) async fn resume(&self, handle: &Handle) {
        for home in (1..=self.world.profile.warehouses).map(PartitionId) {
            if handle.set_paused(home, false).await.is_err() {
                self.world.violated("INV-1", format!("{home:?} cannot be resumed in a healthy world"));
            }
        }
    }

    /// Redrives what is kept aside for the deaths of trees. One that goes on killing stays aside: there
    /// is none in a world whose faults have healed. True when there was something.
    pub(crate) async fn redrive(&self, handle: &Handle) -> bool {
        let mut found = false;
        for home in (1..=self.world.profile.warehouses).map(PartitionId) {
            for (n, letter) in letters(&self.world, home).into_iter().filter(|(_, l)| is_by_deaths(l)) {
                let asked = match letter.kind {
                    DeadKind::Order | DeadKind::Confirmation => Instruction::Redrive(n),
                    // A wave's releases are asked for by themselves; a position wants a count.
                    DeadKind::Wave | DeadKind::Stock => Instruction::GiveUp(n),
                };
                self.instruct(handle, home, asked).await;
                found = true;
            }
        }
        found
    }

    async fn instruct(&self, handle: &Handle, home: PartitionId, asked: Instruction) {
        let done = handle.instruct(home, asked).await;
        self.world.note(format_args!("the operator asks {home:?} to {asked:?}: {done:?}"));
        match done {
            Ok(()) => self.world.observer.saw(match asked {
                Instruction::Redrive(_) => "redriven",
                Instruction::GiveUp(_) => "given up",
            }),
            Err(InstructError::Unreadable) => {
                self.world.violated("INV-1", format!("letter {} of {home:?} cannot be read", asked.letter()));
            }
            Err(
                InstructError::Unknown
                | InstructError::Settled
                | InstructError::RedriveOnly
                | InstructError::GiveUpOnly
                | InstructError::NotPossible(_)
                | InstructError::Read(_)
                | InstructError::Commit(_),
            ) => {}
        }
    }
}

impl World {
    /// Whether an operator has given the order up: from then on its warehouse may do what it likes.
    pub(crate) fn is_given_up(&self, order: TransactionId) -> bool {
        let gave_up = |fact: &Fact| matches!(fact, Fact::Order(OrderFact::GivenUp));
        self.stored(order).is_some_and(|stored| stored.facts.iter().any(|f| gave_up(&f.fact)))
    }
}

/// A partition's open letters.
pub(crate) fn letters(world: &World, home: PartitionId) -> Vec<(u64, DeadLetter)> {
    let listed = at_once(world.disk.dead_letters(home, 0, 1_000)).unwrap_or_default();
    listed.into_iter().filter_map(|(n, letter)| letter.ok().map(|letter| (n, letter))).collect()
}

/// Whether it was kept aside for the deaths of trees.
pub(crate) fn is_by_deaths(letter: &DeadLetter) -> bool {
    BY_DEATHS.iter().any(|reason| letter.reason.starts_with(reason))
}
