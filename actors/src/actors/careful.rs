//! A tree that begins after repeated deaths: what it takes in hand it writes down first, durably, so
//! that what kills it is found out even when the whole process dies over it.
//!
//! First it folds what is open, then performs what that owes and works its deadlines, then sends the
//! waves, then works the entries that a turn would have taken. It takes them in groups; what was in
//! hand at a death is taken alone, and what has died alone too often is kept aside before anything
//! touches it again. Then the tree goes back to full turns; the first of them clears the record.

use std::sync::Arc;

use super::book::OpenOrder;
use super::conduct::{Hand, Input, Owing, Tree, TurnError, perform, work};
use super::gate::AskError;
use super::gathering::{Found, gather, look_up};
use super::site::Site;
use super::turn::{Conviction, Scope};
use crate::domain::ids::TransactionId;
use crate::domain::time::Timestamp;
use crate::ports::store::{
    CommitError, Fence, Gathered, Lane, LaneEntry, LaneItem, Lookup, PartitionImage, ReadError, TurnCommit,
};
use crate::ports::trouble::{DEATHS_MAX, Span, Thing, Trouble, UNTOUCHABLE};

/// Things in hand together: a tree with thousands of open orders is careful within a second, and a
/// group that died is taken apart within another.
const GROUP_MAX: usize = 64;

/// Writes down what is remembered from here on.
async fn remember(site: &Site, fence: Fence, trouble: Trouble) -> Result<(), CommitError> {
    let turn = TurnCommit { trouble: Some(trouble), wake_at: Timestamp(0), ..TurnCommit::default() };
    site.node.store.commit(fence, turn).await?.wait().await
}

fn span_of<T>(group: &[(Thing, T)]) -> Option<Span> {
    let (first, last) = (group.first()?.0, group.last()?.0);
    Some(Span { first, last })
}

/// Folds each open transaction. What killed trees by its folding is taken out of the image unfolded.
/// A panic in a fold is caught; this is for what ends the process.
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
        "trees died again and again: what is taken in hand is written down first"
    );
    let things = open.into_iter().map(|stored| (Thing::Fold(stored.id), stored)).collect();
    for group in image.trouble.groups(things, GROUP_MAX) {
        let Some(span) = span_of(&group) else { continue };
        if let [(thing, stored)] = group.as_slice() {
            let deaths = image.trouble.deaths_over(*thing);
            if deaths >= DEATHS_MAX {
                let why = format!("folding it crashed the warehouse's tree {deaths} times");
                image.unreadable.push((stored.id, why));
                continue;
            }
        }
        remember(site, fence, image.trouble.with(span)).await?;
        for (_, stored) in group {
            let _folded = OpenOrder::fold(&stored);
            image.open.push(stored);
        }
    }
    // Whatever dies from here on had none of them in hand.
    image.trouble.in_hand = None;
    remember(site, fence, image.trouble.clone()).await
}

/// A careful beginning.
struct Careful<'a> {
    site: &'a Site,
    fence: Fence,
    tree: &'a Tree,
    hand: &'a mut Hand,
    paused: bool,
}

/// Works carefully all that is open and what a full turn would have taken.
pub(super) async fn begin(site: &Site, fence: Fence, tree: &Tree, hand: &mut Hand) -> Result<(), TurnError> {
    let gathered = gather(site, fence, &hand.book).await?.lanes;
    let trouble = hand.trouble.clone();
    let mut careful = Careful { site, fence, tree, hand, paused: gathered.paused };
    careful.convict_blamed().await?;
    let book = &careful.hand.book;
    let orders = book.orders().filter(|o| !o.order.is_aside()).map(|o| o.order.id);
    let mut open: Vec<TransactionId> = orders.chain(book.manifests.keys().copied()).collect();
    open.sort_unstable();
    let waves: Vec<TransactionId> = book.waves().keys().copied().collect();
    for group in trouble.groups(open.into_iter().map(|id| (Thing::Open(id), id)).collect(), GROUP_MAX) {
        careful.open(group).await?;
    }
    for group in trouble.groups(waves.into_iter().map(|id| (Thing::Wave(id), id)).collect(), GROUP_MAX) {
        careful.waves(group).await?;
    }
    let entries = gathered.entries.into_iter().map(|e| (Thing::entry(e.lane, e.n), e)).collect();
    for group in trouble.groups(entries, GROUP_MAX) {
        careful.entries(group).await?;
    }
    // Whatever dies from here on had nothing of this in hand.
    remember(site, fence, Trouble { in_hand: None, ..trouble }).await?;
    tracing::info!(warehouse = %site.warehouse.code, "nothing of it killed the tree: full turns again");
    Ok(())
}

/// Keeps aside the open orders that trees of this process panicked over too often. A panic names
/// the order in hand, so that needs no record; it also finds what kills by an answer of the WMS, which
/// comes only after the first turn.
pub(super) async fn convict_blamed(
    site: &Site,
    fence: Fence,
    tree: &Tree,
    hand: &mut Hand,
) -> Result<(), TurnError> {
    Careful { site, fence, tree, hand, paused: true }.convict_blamed().await
}

impl Careful<'_> {
    async fn convict_blamed(&mut self) -> Result<(), TurnError> {
        for (id, panics) in self.site.desk.blamed() {
            let open = self.hand.book.order(id).is_some_and(|o| !o.order.is_aside());
            if panics >= DEATHS_MAX && open {
                self.convict(Conviction::Open(id), panics.min(UNTOUCHABLE - 1)).await?;
            }
        }
        Ok(())
    }

    /// Takes things in hand; or says how often trees died over one alone, when that is too often.
    /// Keeping it aside may be the next death: that is counted as well.
    async fn take<T>(&self, group: &[(Thing, T)]) -> Result<Option<u32>, TurnError> {
        if self.site.token.is_cancelled() {
            return Err(TurnError::Ask(AskError::Gone));
        }
        let trouble = &self.hand.trouble;
        if let Some(span) = span_of(group) {
            remember(self.site, self.fence, trouble.with(span)).await?;
        }
        let deaths = match group {
            [(thing, _)] => trouble.deaths_over(*thing),
            [] | [_, _, ..] => 0,
        };
        Ok((deaths >= DEATHS_MAX).then_some(deaths))
    }

    async fn open(&mut self, group: Vec<(Thing, TransactionId)>) -> Result<(), TurnError> {
        let died = self.take(&group).await?;
        let ids: Vec<TransactionId> = group.into_iter().map(|(_, id)| id).collect();
        if let (Some(deaths), [id]) = (died, ids.as_slice()) {
            return self.convict(Conviction::Open(*id), deaths).await;
        }
        let owing = Owing { orders: ids.clone(), manifests: ids.clone(), ..Owing::default() };
        self.hand.standing = perform(self.site, self.tree, &self.hand.book, owing).await?;
        self.turn(Found::nothing(self.paused), Scope::Open(Arc::new(ids.into_iter().collect())), None).await
    }

    async fn waves(&mut self, group: Vec<(Thing, TransactionId)>) -> Result<(), TurnError> {
        let died = self.take(&group).await?;
        let waves: Vec<TransactionId> = group.into_iter().map(|(_, id)| id).collect();
        if let (Some(deaths), [id]) = (died, waves.as_slice()) {
            return self.convict(Conviction::Wave(*id), deaths).await;
        }
        let owing = Owing { waves, ..Owing::default() };
        self.hand.standing = perform(self.site, self.tree, &self.hand.book, owing).await?;
        Ok(())
    }

    async fn entries(&mut self, group: Vec<(Thing, LaneEntry)>) -> Result<(), TurnError> {
        let died = self.take(&group).await?;
        let mut entries = Vec::with_capacity(group.len());
        for (_, entry) in group {
            entries.push(self.as_it_is_now(entry).await?);
        }
        let blamed = || match entries.as_slice() {
            [LaneEntry { lane: Lane::Work, item: LaneItem::Transaction(order), .. }] => {
                let panics = self.site.desk.blamed().get(&order.id).copied();
                panics.filter(|panics| *panics >= DEATHS_MAX)
            }
            _ => None,
        };
        if let Some(deaths) = died.or_else(blamed)
            && let Some(entry) = entries.pop()
        {
            return self.convict(Conviction::Entry(Box::new(entry)), deaths).await;
        }
        let lanes = Gathered { entries, paused: self.paused, ..Gathered::default() };
        let found = look_up(self.site, self.fence, &self.hand.book, lanes, false).await?;
        self.turn(found, Scope::Entries, None).await
    }

    /// The entry with its transaction read again: what stood before it may have changed it.
    async fn as_it_is_now(&self, entry: LaneEntry) -> Result<LaneEntry, TurnError> {
        let LaneItem::Transaction(before) = &entry.item else { return Ok(entry) };
        let item = match self.site.node.store.subject(self.fence, before.id).await {
            Ok(Some(Lookup::Live(stored))) => LaneItem::Transaction(Box::new(Arc::unwrap_or_clone(stored))),
            Ok(Some(Lookup::Expired(_)) | None) => {
                LaneItem::Undecodable(Some(before.id), "it is not there".to_owned())
            }
            Err(ReadError::Corrupt { what, source }) => {
                LaneItem::Undecodable(Some(before.id), format!("{what}: {source}"))
            }
            Err(e @ ReadError::Unavailable(_)) => return Err(e.into()),
        };
        Ok(LaneEntry { item, ..entry })
    }

    async fn convict(&mut self, convicted: Conviction, deaths: u32) -> Result<(), TurnError> {
        self.turn(Found::nothing(self.paused), Scope::Entries, Some((convicted, deaths))).await
    }

    /// A turn of this and nothing else.
    async fn turn(
        &mut self,
        found: Found,
        scope: Scope,
        convicted: Option<(Conviction, u32)>,
    ) -> Result<(), TurnError> {
        let input = Input { answers: Vec::new(), found, scope, convicted };
        work(self.site, self.fence, self.tree, self.hand, input).await.map(|_wake_at| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::turn::tests::{site, stored};

    #[tokio::test]
    async fn what_ends_the_process_by_its_folding_is_left_out_unfolded() {
        let site = site();
        let store = &site.node.store;
        let fence = store.take(site.partition(), 1).await.unwrap().wait().await.unwrap();
        let open = (1..=4).map(|n| stored(n, Vec::new())).collect();
        let mut image = PartitionImage { open, ..PartitionImage::default() };
        let ids: Vec<TransactionId> = image.open.iter().map(|o| o.id).collect();
        image.trouble.deaths = vec![(Span::alone(Thing::Fold(ids[1])), DEATHS_MAX)];
        try_folds(&site, fence, &mut image).await.unwrap();
        let left: Vec<TransactionId> = image.open.iter().map(|o| o.id).collect();
        assert_eq!(left, [ids[0], ids[2], ids[3]]);
        assert_eq!(image.unreadable.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [ids[1]]);
        // A death from here on is about none of them.
        let trouble = store.load(fence).await.unwrap().trouble;
        assert_eq!((trouble.in_hand, trouble.deaths), (None, image.trouble.deaths));
    }
}
