//! What a turn is given: the first entries of the lanes within bounds, and the transactions that they
//! are about. What cannot be read is named as such and holds up nothing else.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::book::{Book, OpenOrder};
use super::conduct::TurnError;
use super::site::Site;
use super::turn::{returning, subject};
use crate::domain::ids::TransactionId;
use crate::domain::time::Timestamp;
use crate::ports::store::{
    Fence, GatherLimits, Gathered, Lane, LaneEntry, LaneItem, Lookup, ReadError, StoredTransaction,
};

/// Inputs of a turn, over all lanes: a turn's decisions stay within about a millisecond.
const INPUTS_MAX: usize = 256;
/// Control entries that a turn works at most; the rest of the inputs stay for stock and work, so
/// that a flood of reports cannot hold up receipts for ever.
const CONTROL_MAX: usize = 192;
/// Moves that a turn works at most.
const STOCK_MAX: usize = 64;
/// What a turn found.
pub(super) struct Found {
    pub(super) lanes: Gathered,
    /// Orders and manifests that control entries are about and the book does not hold.
    pub(super) subjects: Vec<Arc<StoredTransaction>>,
    /// Those of them that cannot be read, and why.
    pub(super) unreadable: Vec<(TransactionId, String)>,
    /// True when some lane may hold more.
    pub(super) more: bool,
}

impl Found {
    /// Nothing but what the turn's scope brings.
    pub(super) fn nothing(paused: bool) -> Found {
        let lanes = Gathered { paused, ..Gathered::default() };
        Found { lanes, subjects: Vec::new(), unreadable: Vec::new(), more: false }
    }
}

/// Gathers a turn's inputs.
pub(super) async fn gather(site: &Site, fence: Fence, book: &Book) -> Result<Found, TurnError> {
    let credits = site.warehouse.credits as usize;
    let free = credits.saturating_sub(book.credits_used() + book.ready_len());
    let limits = GatherLimits { control: CONTROL_MAX, stock: STOCK_MAX, work: free.min(INPUTS_MAX) };
    let mut lanes = site.node.store.gather(fence, limits).await?;
    let more = cut(&mut lanes, limits);
    look_up(site, fence, book, lanes, more).await
}

/// Reads what the entries are about and the book does not hold.
pub(super) async fn look_up(
    site: &Site,
    fence: Fence,
    book: &Book,
    lanes: Gathered,
    more: bool,
) -> Result<Found, TurnError> {
    let (mut unreadable, mut subjects) = (Vec::new(), Vec::new());
    let here: BTreeSet<TransactionId> = lanes
        .entries
        .iter()
        .filter_map(|e| match (&e.lane, &e.item) {
            (Lane::Work, LaneItem::Transaction(stored)) => Some(stored.id),
            (Lane::Work | Lane::Stock | Lane::Control, _) => None,
        })
        .collect();
    let mut wanted: BTreeSet<TransactionId> = lanes.entries.iter().filter_map(subject).collect();
    let returning: BTreeSet<TransactionId> = lanes.entries.iter().filter_map(returning).collect();
    while let Some(id) = wanted.pop_first() {
        let known = book.order(id).is_some() || book.manifests.contains_key(&id) || here.contains(&id);
        if known || id.home() != fence.partition {
            continue;
        }
        match site.node.store.subject(fence, id).await {
            Ok(Some(Lookup::Live(stored))) => {
                if returning.contains(&id)
                    && let Ok(Some(back)) = OpenOrder::fold(&stored)
                {
                    // Its manifests may have left while nobody could book that.
                    wanted.extend(back.order.manifests());
                }
                subjects.push(stored);
            }
            Ok(Some(Lookup::Expired(_)) | None) => {}
            // What is said about it is kept aside; it must not keep the rest from being worked.
            Err(ReadError::Corrupt { what, source }) => unreadable.push((id, format!("{what}: {source}"))),
            Err(e @ ReadError::Unavailable(_)) => return Err(e.into()),
        }
    }
    Ok(Found { lanes, subjects, unreadable, more })
}

/// Entries of one lane.
pub(super) fn count(lane: Lane, entries: &[LaneEntry]) -> usize {
    entries.iter().filter(|e| e.lane == lane).count()
}

/// Bounds a turn's inputs over all lanes; true when some lane may hold more.
fn cut(lanes: &mut Gathered, limits: GatherLimits) -> bool {
    let full = count(Lane::Control, &lanes.entries) >= limits.control
        || count(Lane::Stock, &lanes.entries) >= limits.stock
        || (limits.work > 0 && count(Lane::Work, &lanes.entries) >= limits.work)
        || lanes.entries.len() > INPUTS_MAX;
    let left = lanes.entries.drain(INPUTS_MAX.min(lanes.entries.len())..);
    let left_in_lane = left.filter(|e| e.lane == Lane::Work).find_map(|e| accepted_at(&e.item));
    lanes.next = left_in_lane.or(lanes.next);
    full
}

/// When the order of an entry was accepted.
fn accepted_at(item: &LaneItem) -> Option<Timestamp> {
    match item {
        LaneItem::Transaction(stored) => stored.facts.first().map(|accepted| accepted.at),
        LaneItem::Report(_) | LaneItem::Instruction(..) | LaneItem::Undecodable(..) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::command::{Change, Command, MoveCommand};
    use crate::domain::fact::{Accepted, Fact, Recorded};
    use crate::domain::ids::{ClientNo, PartitionId};

    fn entry(lane: Lane, n: u64) -> LaneEntry {
        let at = Timestamp(n as i64);
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse().unwrap();
        let accepted = Accepted { correlation: "a".parse().unwrap(), trace };
        let stored = StoredTransaction {
            id: TransactionId::new(at, PartitionId(1), n),
            client: ClientNo(1),
            digest: [0; 32],
            command: Command::Move(MoveCommand {
                reference: "r".parse().unwrap(),
                warehouse: "ATL1".to_owned(),
                sku: "A".parse().unwrap(),
                change: Change::Receipt { quantity: 1 },
            }),
            facts: vec![Recorded { at, fact: Fact::Accepted(accepted) }],
        };
        LaneEntry { lane, n, item: LaneItem::Transaction(Box::new(stored)) }
    }

    #[test]
    fn what_a_full_turn_leaves_in_the_lane_is_the_oldest_that_waits() {
        let limits = GatherLimits { control: CONTROL_MAX, stock: STOCK_MAX, work: 100 };
        let full = |work: u64| {
            let control = (0..CONTROL_MAX as u64).map(|n| entry(Lane::Control, n));
            let work = (0..work).map(|n| entry(Lane::Work, 1_000 + n));
            Gathered {
                entries: control.chain(work).collect(),
                backlog: 300,
                next: Some(Timestamp(5_000)),
                paused: false,
            }
        };
        let mut lanes = full(100);
        assert!(cut(&mut lanes, limits));
        assert_eq!(lanes.entries.len(), INPUTS_MAX);
        assert_eq!(lanes.next, Some(Timestamp(1_064)), "192 reports leave room for 64 orders");
        let mut lanes = full(50);
        cut(&mut lanes, limits);
        assert_eq!((lanes.entries.len(), lanes.next), (242, Some(Timestamp(5_000))));
    }
}
