//! One turn from end to end: gather ▸ decide ▸ commit ▸ act.
//!
//! Between gather and durable nothing leaves the tree; after that the same `perform` serves a turn
//! and a tree that has just been restored.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::book::{Book, Unfounded};
use super::gate::{AskError, Door};
use super::inventory::Inventory;
use super::manifester::{Load, ManifestTurn, Manifester, Standing, loadable};
use super::options::Snapshot;
use super::report::Cause;
use super::site::Site;
use super::turn::{Decided, Turn, cartons_in, cartons_of_answer, manifest_out, subject, wave_out};
use super::wms_link::{Answer, Collect, Perform, Plan, WmsLink};
use crate::domain::ids::{ReleaseId, TransactionId};
use crate::domain::time::Timestamp;
use crate::ports::faults::FaultPoint;
use crate::ports::store::{
    CommitError, DeadKind, Fence, GatherLimits, Gathered, Lane, LaneEntry, LaneItem, Lookup, ReadError,
    StoredTransaction,
};
use crate::ports::wms::Presented;

/// Inputs of a turn, over all lanes: a turn's decisions stay within about a millisecond.
const INPUTS_MAX: usize = 256;
/// Control entries that a turn works at most; the rest of the inputs stay for stock and work, so
/// that a flood of reports cannot hold up receipts for ever.
const CONTROL_MAX: usize = 192;
/// Moves that a turn works at most.
const STOCK_MAX: usize = 64;
/// SSCC serials leased at a time.
const SERIALS_BLOCK: u64 = 1_000;

/// Why a turn, and with it the tree, ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TurnError {
    #[error("an actor of the tree did not answer")]
    Ask(#[from] AskError),
    #[error("the store could not be read")]
    Read(#[from] ReadError),
    #[error("the turn could not be committed")]
    Commit(#[from] CommitError),
    #[error(transparent)]
    Unfounded(#[from] Unfounded),
}

impl TurnError {
    /// The same, as it is counted.
    pub(crate) fn cause(&self) -> Cause {
        match self {
            TurnError::Ask(_) => Cause::NoAnswer,
            TurnError::Read(_) => Cause::Unreadable,
            TurnError::Commit(why) => why.into(),
            TurnError::Unfounded(_) => Cause::Unfounded,
        }
    }
}

/// The doors to the tree's other actors.
#[derive(Clone)]
pub(crate) struct Tree {
    pub(crate) inventory: Door<Inventory>,
    pub(crate) wms: Door<WmsLink>,
    pub(crate) manifester: Door<Manifester>,
}

/// What a turn takes along and brings back.
pub(crate) struct Hand {
    pub(crate) book: Book,
    pub(crate) standing: Standing,
    /// False until everything that the folds owe was performed once.
    begun: bool,
    /// True when the last turn found more than it could take.
    pub(crate) more: bool,
}

impl Hand {
    /// A book that was just restored: all that it owes is still to be performed.
    pub(crate) fn new(book: Book) -> Hand {
        let standing = Standing { closes_at: Timestamp::NEVER, serials_left: 0 };
        Hand { book, standing, begun: false, more: false }
    }
}

/// One turn.
pub(crate) async fn run(site: Site, fence: Fence, tree: Tree, mut hand: Hand) -> Result<Hand, TurnError> {
    if !hand.begun {
        // The same `owes` as after a commit, of everything: there is no other recovery code.
        let all: Vec<TransactionId> = hand.book.orders().map(|o| o.order.id).collect();
        let waves: Vec<TransactionId> = hand.book.waves().keys().copied().collect();
        let manifests: Vec<TransactionId> = hand.book.manifests.keys().copied().collect();
        site.wms.present(presented(&hand.book));
        let owing = Owing { orders: all, waves, manifests, silent: Vec::new() };
        hand.standing = perform(&site, &tree, &hand.book, owing).await?;
        hand.begun = true;
    }
    let answers = tree.wms.ask(Collect).await?;
    let gathered = gather(&site, fence, &hand.book).await?;
    site.strike(FaultPoint::PipelineGathered);
    let pulled = count(Lane::Work, &gathered.lanes.entries) as u64;
    let backlog = (gathered.lanes.backlog - pulled, gathered.lanes.next);
    hand.more = gathered.more;
    let decided = decide(&site, &tree, &mut hand, answers, gathered).await?;
    let Decided { writes, touched, silent, ends, violations } = decided;
    violations.iter().for_each(|violation| site.node.tallies.violated(violation));
    let waves: Vec<TransactionId> = writes.waves.iter().map(|w| w.id).collect();
    let manifests: Vec<TransactionId> = writes.created.iter().map(|(id, _)| *id).collect();
    // Cancellations wait for their wave's answer: with it they are owed.
    let answered = !writes.answered.is_empty();
    let wake_at = writes.wake_at;
    let dead: Vec<DeadKind> = writes.dead.iter().map(|letter| letter.kind).collect();
    if !writes.is_empty() {
        site.node.store.commit(fence, writes).await?.wait().await?;
    }
    site.strike(FaultPoint::PipelineDurable);
    if site.token.is_cancelled() {
        return Err(TurnError::Ask(AskError::Gone));
    }
    site.node.tallies.durable(&ends, &dead);
    for id in &touched {
        site.node.waiters.wake(*id);
    }
    let orders: Vec<TransactionId> = match answered {
        true => hand.book.asking().chain(touched).collect(),
        false => touched.into_iter().collect(),
    };
    hand.standing = perform(&site, &tree, &hand.book, Owing { orders, waves, manifests, silent }).await?;
    // What this turn settled lets in what still stands in the work lane.
    let free =
        (site.warehouse.credits as usize).saturating_sub(hand.book.credits_used() + hand.book.ready_len());
    hand.more |= free > 0 && backlog.0 > 0;
    publish(&site, &hand, backlog, wake_at);
    Ok(hand)
}

/// What a turn found.
struct Found {
    lanes: Gathered,
    /// Orders and manifests that control entries are about and the book does not hold.
    subjects: Vec<Arc<StoredTransaction>>,
    more: bool,
}

async fn gather(site: &Site, fence: Fence, book: &Book) -> Result<Found, TurnError> {
    let credits = site.warehouse.credits as usize;
    let free = credits.saturating_sub(book.credits_used() + book.ready_len());
    let limits = GatherLimits { control: CONTROL_MAX, stock: STOCK_MAX, work: free.min(INPUTS_MAX) };
    let mut lanes = site.node.store.gather(fence, limits).await?;
    let more = cut(&mut lanes, limits);
    let mut subjects = Vec::new();
    let here: BTreeSet<TransactionId> = lanes
        .entries
        .iter()
        .filter_map(|e| match (&e.lane, &e.item) {
            (Lane::Work, LaneItem::Transaction(stored)) => Some(stored.id),
            (Lane::Work | Lane::Stock | Lane::Control, _) => None,
        })
        .collect();
    let mut wanted: Vec<TransactionId> = lanes.entries.iter().filter_map(subject).collect();
    wanted.sort_unstable();
    wanted.dedup();
    for id in wanted {
        let known = book.order(id).is_some() || book.manifests.contains_key(&id) || here.contains(&id);
        if known || id.home() != fence.partition {
            continue;
        }
        if let Some(Lookup::Live(stored)) = site.node.store.transaction(id).await? {
            subjects.push(stored);
        }
    }
    Ok(Found { lanes, subjects, more })
}

fn count(lane: Lane, entries: &[LaneEntry]) -> usize {
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
        LaneItem::Report(_) | LaneItem::Undecodable(_) => None,
    }
}

async fn decide(
    site: &Site,
    tree: &Tree,
    hand: &mut Hand,
    answers: Vec<Answer>,
    found: Found,
) -> Result<Decided, TurnError> {
    let now = site.node.now();
    let serials: usize = found.lanes.entries.iter().map(cartons_in).sum::<usize>()
        + answers.iter().map(cartons_of_answer).sum::<usize>();
    let block = lease(site, hand.standing.serials_left, serials).await?;
    let manifests = tree.manifester.ask(ManifestTurn { now, serials, block }).await?;
    let mut turn = Turn::new(site, now, &mut hand.book, manifests.serials);
    let (mut control, mut stock, mut work) = (Vec::new(), Vec::new(), Vec::new());
    for stored in &found.subjects {
        turn.visit(stored)?;
    }
    for entry in found.lanes.entries {
        match entry.lane {
            Lane::Control => control.push(entry),
            Lane::Stock => stock.push(entry),
            Lane::Work => match entry.item {
                LaneItem::Transaction(stored) => {
                    turn.visit(&stored)?;
                    work.push((entry.n, stored.id));
                }
                item @ (LaneItem::Report(_) | LaneItem::Undecodable(_)) => {
                    stock.push(LaneEntry { item, ..entry })
                }
            },
        }
    }
    turn.answers(answers);
    turn.control(control);
    turn.close(manifests.closings);
    turn.deadlines();
    turn.moves(stock);
    turn.pull(work);
    let stock_turn = turn.stock_turn();
    if !stock_turn.is_empty() {
        let answer = tree.inventory.ask(stock_turn).await?;
        turn.placed(answer);
    }
    let releasable = turn.releasable();
    if !releasable.is_empty() {
        let waves = tree.wms.ask(Plan(releasable)).await?;
        turn.release(waves);
    }
    let mut decided = turn.finish();
    decided.writes.wake_at = if hand.book.owes() { Timestamp(0) } else { hand.book.next_deadline() };
    Ok(decided)
}

/// Leases a block of serials when the rest of the old one does not reach.
async fn lease(site: &Site, left: u64, wanted: usize) -> Result<Option<(u64, u64)>, TurnError> {
    let wanted = wanted as u64;
    if wanted <= left {
        return Ok(None);
    }
    let count = SERIALS_BLOCK.max(wanted);
    let first = site.node.store.lease_serials(count).await?.wait().await?;
    Ok(Some((first, count)))
}

/// Who may owe the world something.
struct Owing {
    orders: Vec<TransactionId>,
    waves: Vec<TransactionId>,
    manifests: Vec<TransactionId>,
    /// Releases to ask the WMS for.
    silent: Vec<ReleaseId>,
}

/// Performs what these orders, waves and manifests owe the world. The token is looked at first:
/// a tree that was dropped does nothing any more.
async fn perform(site: &Site, tree: &Tree, book: &Book, owing: Owing) -> Result<Standing, TurnError> {
    if site.token.is_cancelled() {
        return Err(TurnError::Ask(AskError::Gone));
    }
    let mut owed = Perform { silent: owing.silent, ..Perform::default() };
    let mut load = Vec::new();
    for open in owing.orders.iter().filter_map(|id| book.order(*id)) {
        load.extend(loadable(open));
        owed.questions.extend(open.order.questions().filter(|q| !book.is_unanswered(q.release)));
    }
    for (id, releases) in owing.waves.iter().filter_map(|id| book.waves().get_key_value(id)) {
        owed.waves.push(wave_out(site, book, *id, releases));
    }
    for (id, open) in owing.manifests.iter().filter_map(|id| book.manifests.get_key_value(id)) {
        if open.manifest.owes_loading() {
            owed.manifests.push(manifest_out(book, *id, open));
        }
    }
    if !owed.is_empty() {
        tree.wms.ask(owed).await?;
    }
    Ok(tree.manifester.ask(Load(load)).await?)
}

/// The releases in the WMS's hands, for one that keeps nothing itself.
fn presented(book: &Book) -> Vec<Presented> {
    let releases = book.orders().flat_map(|o| o.order.releases().iter().map(move |r| (o.order.id, r)));
    releases
        .map(|(order, r)| (ReleaseId { order, n: r.n }, r))
        .filter(|(release, r)| !r.settled() && !book.is_unanswered(*release))
        .map(|(release, r)| Presented {
            release,
            released_at: r.at,
            lines: r.lines.iter().map(|l| (l.line, l.asked - l.returned)).filter(|(_, q)| *q > 0).collect(),
            missing: r.lines.iter().map(|l| (l.line, l.missing())).filter(|(_, q)| *q > 0).collect(),
        })
        .collect()
}

fn publish(site: &Site, hand: &Hand, (backlog, oldest): (u64, Option<Timestamp>), wake_at: Timestamp) {
    let now = site.node.now();
    let snapshot = Snapshot {
        backlog,
        oldest,
        open: hand.book.by_state(),
        unreleased: hand.book.ready_len() as u64,
        credits_used: u32::try_from(hand.book.credits_used()).unwrap_or(u32::MAX),
        pace: hand.book.pace.report(now),
    };
    site.desk.publish(snapshot, wake_at, now);
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
            Gathered { entries: control.chain(work).collect(), backlog: 300, next: Some(Timestamp(5_000)) }
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
