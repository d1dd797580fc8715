//! One turn from end to end: gather ▸ decide ▸ commit ▸ act.
//!
//! Between gather and durable nothing leaves the tree; after that the same `perform` serves a turn
//! and a tree that has just been restored.

use std::collections::BTreeSet;

use super::book::{Aside, Book};
use super::careful;
use super::gate::{AskError, Door};
use super::gathering::{Found, count, gather};
use super::inventory::Inventory;
use super::manifester::{Load, ManifestTurn, Manifester, Standing, loadable};
use super::options::Snapshot;
use super::report::Cause;
use super::site::Site;
use super::turn::{Conviction, Decided, Scope, Turn, cartons_in, cartons_of_answer, manifest_out, wave_out};
use super::wms_link::{Answer, Collect, Perform, Plan, WmsLink};
use crate::domain::ids::{ClientNo, ReleaseId, TransactionId, WaveId};
use crate::domain::time::Timestamp;
use crate::ports::faults::FaultPoint;
use crate::ports::store::{CommitError, DeadKind, Fence, Lane, LaneEntry, LaneItem, ReadError, Settled};
use crate::ports::trouble::Trouble;
use crate::ports::wms::Presented;

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
}

impl TurnError {
    /// The same, as it is counted.
    pub(crate) fn cause(&self) -> Cause {
        match self {
            TurnError::Ask(_) => Cause::NoAnswer,
            TurnError::Read(_) => Cause::Unreadable,
            TurnError::Commit(why) => why.into(),
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
    /// What is remembered of deaths; clear from the first committed turn.
    pub(super) trouble: Trouble,
    /// What was found at the start and cannot be held.
    aside: Aside,
    /// False until everything that the folds owe was performed once.
    begun: bool,
    /// True when the last turn found more than it could take.
    pub(crate) more: bool,
    /// How much the last turn found.
    pub(crate) inputs: usize,
}

impl TurnError {
    /// True when the store is the reason, and not what was worked.
    pub(crate) fn is_the_stores(&self) -> bool {
        match self {
            TurnError::Ask(_) => false,
            TurnError::Read(_) | TurnError::Commit(_) => true,
        }
    }
}

impl Hand {
    /// A book that was just restored: all that it owes is still to be performed.
    pub(crate) fn new(book: Book, aside: Aside, trouble: Trouble) -> Hand {
        let standing = Standing { closes_at: Timestamp::NEVER, serials_left: 0 };
        Hand { book, standing, trouble, aside, begun: false, more: false, inputs: 0 }
    }
}

/// What a turn works.
pub(super) struct Input {
    pub(super) answers: Vec<Answer>,
    pub(super) found: Found,
    pub(super) scope: Scope,
    /// What died too often, and how often: it is kept aside instead of being worked.
    pub(super) convicted: Option<(Conviction, u32)>,
}

/// One turn.
pub(crate) async fn run(site: Site, fence: Fence, tree: Tree, mut hand: Hand) -> Result<Hand, TurnError> {
    if !hand.begun {
        site.wms.present(presented(&hand.book));
        if hand.trouble.is_grave() {
            careful::begin(&site, fence, &tree, &mut hand).await?;
        } else {
            careful::convict_blamed(&site, fence, &tree, &mut hand).await?;
            // The same `owes` as after a commit, of everything: there is no other recovery code.
            let all: Vec<TransactionId> = hand.book.orders().map(|o| o.order.id).collect();
            let waves: Vec<TransactionId> = hand.book.waves().keys().copied().collect();
            let manifests: Vec<TransactionId> = hand.book.manifests.keys().copied().collect();
            let owing = Owing { orders: all, waves, manifests, ..Owing::default() };
            hand.standing = perform(&site, &tree, &hand.book, owing).await?;
        }
        hand.begun = true;
    }
    let answers = tree.wms.ask(Collect).await?;
    let found = gather(&site, fence, &hand.book).await?;
    site.strike(FaultPoint::PipelineGathered);
    let pulled = count(Lane::Work, &found.lanes.entries) as u64;
    let backlog = (found.lanes.backlog - pulled, found.lanes.next);
    let paused = found.lanes.paused;
    hand.more = found.more;
    hand.inputs = answers.len() + found.lanes.entries.len();
    let input = Input { answers, found, scope: Scope::Full, convicted: None };
    let wake_at = work(&site, fence, &tree, &mut hand, input).await?;
    // What this turn settled lets in what still stands in the work lane.
    let free =
        (site.warehouse.credits as usize).saturating_sub(hand.book.credits_used() + hand.book.ready_len());
    hand.more |= free > 0 && backlog.0 > 0 && !paused;
    publish(&site, &hand, backlog, wake_at, paused);
    Ok(hand)
}

/// Decides about the input, commits, and performs what is owed once that is durable. Answers when
/// the partition must be awake next.
pub(super) async fn work(
    site: &Site,
    fence: Fence,
    tree: &Tree,
    hand: &mut Hand,
    input: Input,
) -> Result<Timestamp, TurnError> {
    let full = input.scope == Scope::Full;
    let decided = decide(site, tree, hand, input).await?;
    let Decided { mut writes, touched, silent, resend, dropped, reload, ends, violations } = decided;
    violations.iter().for_each(|violation| site.node.tallies.violated(violation));
    let waves: Vec<TransactionId> = writes.waves.iter().map(|w| w.id).chain(resend).collect();
    let manifests: Vec<TransactionId> = writes.created.iter().map(|(id, _)| *id).chain(reload).collect();
    // Cancellations wait for their wave's answer: with it they are owed.
    let answered = !writes.answered.is_empty();
    // What was redriven stands in its lane again.
    let again = writes.settled.iter().any(|(_, how)| *how == Settled::Redriven);
    let wake_at = writes.wake_at;
    if full && !hand.trouble.is_clear() {
        writes.trouble = Some(Trouble::default());
    }
    let told = writes.told.iter().map(|((client, _), _)| *client);
    let told = told.chain(writes.estimates.iter().map(|new| new.client));
    let feeds: BTreeSet<ClientNo> = writes.facts.iter().map(|new| new.client).chain(told).collect();
    let dead: Vec<DeadKind> = writes.dead.iter().map(|letter| letter.kind).collect();
    if !writes.is_empty() {
        site.node.store.commit(fence, writes).await?.wait().await?;
    }
    if full {
        hand.trouble = Trouble::default();
    }
    site.strike(FaultPoint::PipelineDurable);
    if site.token.is_cancelled() {
        return Err(TurnError::Ask(AskError::Gone));
    }
    site.node.tallies.durable(&ends, &dead);
    site.node.wrote(site.partition(), false, touched.iter().copied(), feeds.iter().copied());
    let orders: Vec<TransactionId> = match full && answered {
        true => hand.book.asking().chain(touched).collect(),
        false => touched.into_iter().collect(),
    };
    let owing = Owing { orders, waves, manifests, silent, dropped };
    hand.standing = perform(site, tree, &hand.book, owing).await?;
    hand.more |= again;
    Ok(wake_at)
}

async fn decide(site: &Site, tree: &Tree, hand: &mut Hand, input: Input) -> Result<Decided, TurnError> {
    let Input { answers, found, scope, convicted } = input;
    let now = site.node.now();
    let paused = found.lanes.paused;
    let serials: usize = found.lanes.entries.iter().map(cartons_in).sum::<usize>()
        + answers.iter().map(cartons_of_answer).sum::<usize>();
    let block = lease(site, hand.standing.serials_left, serials).await?;
    // Manifests that are due concern many orders: they are no part of working one thing alone.
    let full = scope == Scope::Full;
    let closing = if full { now } else { Timestamp(-1) };
    let manifests = tree.manifester.ask(ManifestTurn { now: closing, serials, block }).await?;
    let aside = if full { std::mem::take(&mut hand.aside) } else { Aside::default() };
    let mut turn = Turn::new(site, now, scope, &mut hand.book, manifests.serials);
    turn.unreadable.extend(found.unreadable);
    aside.transactions.into_iter().for_each(|(id, why)| turn.put_away(id, why));
    aside.waves.into_iter().for_each(|(id, why)| turn.put_wave_away(id, why, &[]));
    aside.positions.into_iter().for_each(|(key, held, why)| turn.replace_position(key, held, why));
    if let Some((convicted, deaths)) = convicted {
        turn.convict(convicted, deaths);
    }
    let (mut control, mut stock, mut work) = (Vec::new(), Vec::new(), Vec::new());
    for stored in &found.subjects {
        turn.visit(stored);
    }
    for entry in found.lanes.entries {
        match entry.lane {
            Lane::Control => control.push(entry),
            Lane::Stock => stock.push(entry),
            Lane::Work => match entry.item {
                LaneItem::Transaction(stored) => {
                    turn.visit(&stored);
                    work.push((entry.n, stored.id));
                }
                item @ (LaneItem::Report(_) | LaneItem::Instruction(..) | LaneItem::Undecodable(..)) => {
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
    let releasable = turn.releasable(paused);
    if !releasable.is_empty() {
        let waves = tree.wms.ask(Plan(releasable)).await?;
        turn.release(waves);
    }
    let mut decided = turn.finish();
    let rests = full && !hand.book.owes();
    decided.writes.wake_at = if rests { hand.book.next_deadline() } else { Timestamp(0) };
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
#[derive(Default)]
pub(super) struct Owing {
    pub(super) orders: Vec<TransactionId>,
    pub(super) waves: Vec<TransactionId>,
    pub(super) manifests: Vec<TransactionId>,
    /// Releases to ask the WMS for.
    pub(super) silent: Vec<ReleaseId>,
    /// Waves that are not to be sent any more.
    pub(super) dropped: Vec<WaveId>,
}

/// Performs what these orders, waves and manifests owe the world. The token is looked at first:
/// a tree that was dropped does nothing any more.
pub(super) async fn perform(
    site: &Site,
    tree: &Tree,
    book: &Book,
    owing: Owing,
) -> Result<Standing, TurnError> {
    if site.token.is_cancelled() {
        return Err(TurnError::Ask(AskError::Gone));
    }
    let mut owed = Perform { silent: owing.silent, dropped: owing.dropped, ..Perform::default() };
    let mut load = Vec::new();
    for open in owing.orders.iter().filter_map(|id| book.order(*id)).filter(|o| !o.order.is_aside()) {
        site.take_in_hand(open.order.id, open.reference.as_str());
        load.extend(loadable(open));
        owed.questions.extend(open.order.questions().filter(|q| !book.is_unanswered(q.release)));
    }
    site.put_down();
    for (id, releases) in owing.waves.iter().filter_map(|id| book.waves().get_key_value(id)) {
        let wave = wave_out(site, book, *id, releases);
        let aside = || releases.iter().any(|r| book.order(r.order).is_some_and(|o| o.order.is_aside()));
        // An order that is kept aside is not sent, nor a wave of nothing else.
        if !(wave.orders.is_empty() && aside()) {
            owed.waves.push(wave);
        }
    }
    for (id, open) in owing.manifests.iter().filter_map(|id| book.manifests.get_key_value(id)) {
        if open.manifest.owes_loading() {
            owed.manifests.push(manifest_out(*id, open));
        }
    }
    if !owed.is_empty() {
        tree.wms.ask(owed).await?;
    }
    Ok(tree.manifester.ask(Load(load)).await?)
}

/// The releases in the WMS's hands, for one that keeps nothing itself. One of an order that is kept aside
/// may have been left out of its wave: unless the WMS has begun it, it goes again when it is redriven.
fn presented(book: &Book) -> Vec<Presented> {
    let releases = book.orders().flat_map(|o| o.order.releases().iter().map(move |r| (&o.order, r)));
    releases
        .filter(|(order, r)| r.begun() || !order.is_aside())
        .map(|(order, r)| (order.id, r))
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

fn publish(
    site: &Site,
    hand: &Hand,
    (backlog, oldest): (u64, Option<Timestamp>),
    wake_at: Timestamp,
    paused: bool,
) {
    let now = site.node.now();
    let snapshot = Snapshot {
        backlog,
        oldest,
        open: hand.book.by_state(),
        unreleased: hand.book.ready_len() as u64,
        credits_used: u32::try_from(hand.book.credits_used()).unwrap_or(u32::MAX),
        pace: hand.book.pace.report(now),
        paused,
    };
    site.desk.publish(snapshot, wake_at, now);
}
