//! A tree that begins after repeated deaths: it takes one thing at a time, each behind a durable
//! mark, so that what kills it is found out even when the whole process dies over it.
//!
//! First each open transaction (its folding alone, then what it owes and its deadline), then each
//! wave, then each entry that a turn would have taken. What has died too often is kept aside before
//! anything touches it again. Then the tree goes back to full turns; the first of them clears the
//! record. It costs a commit for each thing, and happens only after two starts without a turn.

use super::book::OpenOrder;
use super::conduct::{Found, Hand, Input, Owing, Tree, TurnError, gather, look_up, perform, work};
use super::gate::AskError;
use super::site::Site;
use super::turn::{Conviction, Scope};
use crate::domain::ids::TransactionId;
use crate::domain::time::Timestamp;
use crate::ports::store::{CommitError, Fence, Gathered, LaneEntry, PartitionImage, TurnCommit};
use crate::ports::trouble::{DEATHS_MAX, InHand, Trouble};

/// Writes down what is in hand alone from here on.
async fn mark(site: &Site, fence: Fence, trouble: &Trouble, what: InHand) -> Result<(), CommitError> {
    let marked =
        TurnCommit { trouble: Some(trouble.with(what)), wake_at: Timestamp(0), ..TurnCommit::default() };
    site.node.store.commit(fence, marked).await?.wait().await
}

/// Folds each open transaction alone. What killed trees by its folding is taken out of the image
/// unfolded. A panic in a fold is caught; this is for what ends the process.
pub(crate) async fn try_folds(
    site: &Site,
    fence: Fence,
    image: &mut PartitionImage,
) -> Result<(), CommitError> {
    let open = std::mem::take(&mut image.open);
    tracing::warn!(
        warehouse = %site.warehouse.code,
        starts = image.trouble.starts,
        open = open.len(),
        "trees died again and again: one thing is taken at a time"
    );
    for stored in open {
        let what = InHand::Fold(stored.id);
        let deaths = image.trouble.deaths_over(what);
        if deaths >= DEATHS_MAX {
            image
                .unreadable
                .push((stored.id, format!("folding it crashed the warehouse's tree {deaths} times")));
            continue;
        }
        mark(site, fence, &image.trouble, what).await?;
        let _folded = OpenOrder::fold(&stored);
        image.open.push(stored);
    }
    Ok(())
}

/// Works one thing at a time: all that is open, and what a full turn would have taken.
pub(super) async fn begin(site: &Site, fence: Fence, tree: &Tree, hand: &mut Hand) -> Result<(), TurnError> {
    let gathered = gather(site, fence, &hand.book).await?.lanes;
    let paused = gathered.paused;
    let orders: Vec<TransactionId> = hand.book.orders().map(|o| o.order.id).collect();
    for id in orders {
        let owing = Owing { orders: vec![id], ..Owing::default() };
        open(site, fence, tree, hand, id, owing, paused).await?;
    }
    let manifests: Vec<TransactionId> = hand.book.manifests.keys().copied().collect();
    for id in manifests {
        let owing = Owing { manifests: vec![id], ..Owing::default() };
        open(site, fence, tree, hand, id, owing, paused).await?;
    }
    let waves: Vec<TransactionId> = hand.book.waves().keys().copied().collect();
    for id in waves {
        if let Some(deaths) = take(site, fence, &hand.trouble, InHand::Wave(id)).await? {
            convict(site, fence, tree, hand, Conviction::Wave(id), deaths, paused).await?;
        } else {
            let owing = Owing { waves: vec![id], ..Owing::default() };
            hand.standing = perform(site, tree, &hand.book, owing).await?;
        }
    }
    for entry in gathered.entries {
        one_entry(site, fence, tree, hand, entry, paused).await?;
    }
    Ok(())
}

/// Takes something in hand alone; or says how often trees died over it, when that is too often.
async fn take(site: &Site, fence: Fence, trouble: &Trouble, what: InHand) -> Result<Option<u32>, TurnError> {
    if site.token.is_cancelled() {
        return Err(TurnError::Ask(AskError::Gone));
    }
    let deaths = trouble.deaths_over(what);
    // Keeping it aside may be the next death: that is counted as well.
    mark(site, fence, trouble, what).await?;
    Ok((deaths >= DEATHS_MAX).then_some(deaths))
}

async fn open(
    site: &Site,
    fence: Fence,
    tree: &Tree,
    hand: &mut Hand,
    id: TransactionId,
    owing: Owing,
    paused: bool,
) -> Result<(), TurnError> {
    if hand.book.order(id).is_some_and(|o| o.order.is_aside()) {
        return Ok(());
    }
    if let Some(deaths) = take(site, fence, &hand.trouble, InHand::Open(id)).await? {
        return convict(site, fence, tree, hand, Conviction::Open(id), deaths, paused).await;
    }
    hand.standing = perform(site, tree, &hand.book, owing).await?;
    alone(site, fence, tree, hand, Found::nothing(paused), Scope::Open(id), None).await
}

async fn one_entry(
    site: &Site,
    fence: Fence,
    tree: &Tree,
    hand: &mut Hand,
    entry: LaneEntry,
    paused: bool,
) -> Result<(), TurnError> {
    let what = InHand::entry(entry.lane, entry.n);
    if let Some(deaths) = take(site, fence, &hand.trouble, what).await? {
        let entry = Conviction::Entry(Box::new(entry));
        return convict(site, fence, tree, hand, entry, deaths, paused).await;
    }
    let lanes = Gathered { entries: vec![entry], paused, ..Gathered::default() };
    let found = look_up(site, fence, &hand.book, lanes, false).await?;
    alone(site, fence, tree, hand, found, Scope::Entry, None).await
}

async fn convict(
    site: &Site,
    fence: Fence,
    tree: &Tree,
    hand: &mut Hand,
    convicted: Conviction,
    deaths: u32,
    paused: bool,
) -> Result<(), TurnError> {
    let found = Found::nothing(paused);
    alone(site, fence, tree, hand, found, Scope::Entry, Some((convicted, deaths))).await
}

/// A turn of this alone.
async fn alone(
    site: &Site,
    fence: Fence,
    tree: &Tree,
    hand: &mut Hand,
    found: Found,
    scope: Scope,
    convicted: Option<(Conviction, u32)>,
) -> Result<(), TurnError> {
    let input = Input { answers: Vec::new(), found, scope, convicted };
    work(site, fence, tree, hand, input).await.map(|_wake_at| ())
}
