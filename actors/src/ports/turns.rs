//! Turns of a feed's numbers: how a store that may have lost the end of a feed goes on without giving a
//! number to two events, and how readers notice. A store that loses nothing stays in turn 0.

use super::store::FeedEntry;

/// The bits of a sequence below its turn.
const TURN_AT: u32 = 32;

/// The turn that a sequence is of. What a reader of the turn before has not read may be lost.
#[must_use]
pub fn turn_of(sequence: u64) -> u64 {
    sequence >> TURN_AT
}

/// The first sequence of a turn.
#[must_use]
pub fn first_of_turn(turn: u64) -> u64 {
    (turn << TURN_AT) + 1
}

/// How many entries of a feed follow each other without a hole, from the first on.
#[must_use]
pub fn unbroken(entries: &[FeedEntry]) -> usize {
    let holes = entries.windows(2).position(|two| two[1].sequence != two[0].sequence + 1);
    holes.map_or(entries.len(), |before| before + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::{PartitionId, TransactionId};
    use crate::domain::time::Timestamp;

    #[test]
    fn numbers_of_a_later_turn_are_above_all_of_the_one_before_and_a_hole_lies_between() {
        assert_eq!((turn_of(0), turn_of(u64::from(u32::MAX)), turn_of(first_of_turn(1))), (0, 0, 1));
        let entry = |sequence| FeedEntry {
            sequence,
            id: TransactionId::new(Timestamp(0), PartitionId(1), sequence),
            version: 1,
        };
        let entries = [entry(6), entry(7), entry(first_of_turn(1)), entry(first_of_turn(1) + 1)];
        assert_eq!((unbroken(&entries), unbroken(&entries[2..]), unbroken(&[])), (2, 2, 0));
    }
}
