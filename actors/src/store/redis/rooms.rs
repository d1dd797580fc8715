//! How long the lanes of orders are, as far as accepting needs to know: while all that comes has room, who
//! was claimed before need not be asked. It must never decide that a lane is full: Redis does.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use redis::{Pipeline, Value};

use super::accept::Item;
use super::place;
use super::replies::number;
use crate::domain::ids::PartitionId;
use crate::ports::store::Lane;

/// Lengths as they were last seen, with all that was on its way there. Other nodes may have added to them
/// since, owners taken from them: the append in Redis counts anew, and who is refused there is un-claimed.
#[derive(Default)]
pub(super) struct Rooms(Mutex<BTreeMap<PartitionId, u64>>);

/// Commands on their way to lanes.
pub(super) type Coming = BTreeMap<PartitionId, u64>;

/// Whether it is counted by its lane and told when that is full.
pub(super) fn is_limited(item: &Item<'_>) -> bool {
    item.has_claims() && item.new.lane() == Lane::Work
}

impl Rooms {
    /// True when every lane had room for all of these. A lane that nobody looked at may have none.
    pub(super) fn are_ample(&self, wave: &[&mut Item<'_>]) -> bool {
        let lengths = self.0.lock();
        let coming = coming(wave);
        wave.iter().filter(|item| is_limited(item)).all(|item| {
            let home = item.new.id.home();
            let more = coming.get(&home).copied().unwrap_or(0);
            lengths.get(&home).is_some_and(|length| length.saturating_add(more) <= item.new.backlog_max)
        })
    }

    /// Asks how long the lanes of these are.
    pub(super) fn ask(&self, going: &[&mut Item<'_>], ask: &mut Pipeline) -> Coming {
        let coming = coming(going);
        for partition in coming.keys() {
            ask.cmd("XLEN").arg(place::lane(*partition, Lane::Work));
        }
        coming
    }

    /// Takes the answers, which are the first.
    pub(super) fn learn(&self, coming: Coming, answers: &mut impl Iterator<Item = Value>) {
        let mut lengths = self.0.lock();
        for ((partition, more), length) in coming.into_iter().zip(answers) {
            match number(length) {
                Some(length) => lengths.insert(partition, length.saturating_add(more)),
                None => lengths.remove(&partition),
            };
        }
    }
}

fn coming(items: &[&mut Item<'_>]) -> Coming {
    let mut coming = Coming::new();
    for item in items.iter().filter(|item| is_limited(item)) {
        *coming.entry(item.new.id.home()).or_default() += 1;
    }
    coming
}
