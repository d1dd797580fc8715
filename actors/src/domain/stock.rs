//! Stock of one warehouse: positions per (client, SKU), and who waits for what.
//!
//! Reservation is one step: an order gets all it may take at once, so nobody waits while holding
//! part of another's stock. Whatever frees stock offers it in the same turn to the waiting orders
//! in rank; so what is free afterwards no waiter can use now, and a new order just takes it.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use std::collections::{BTreeMap, BTreeSet};

use super::command::{Allocation, Change};
use super::fact::{LineUnits, MoveFact};
use super::ids::{ClientNo, LineNo, Quantity, Sku, TransactionId};
use super::order::Footprint;
use super::rank::Rank;

/// Stock of one SKU of one client in one warehouse, in units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Believed to be in the building; below zero when more has left than a count had found.
    pub on_hand: i64,
    /// Held for orders.
    pub reserved: u64,
    /// On hand by the books, missing at a pick: not offered until a receipt or a count of the SKU.
    pub suspect: u64,
    /// On the way from another warehouse; always 0 in this version.
    pub in_transit: u64,
    /// Reserved beyond what a count found.
    pub shortfall: u64,
    /// Wanted by waiting orders.
    pub backordered: u64,
    /// True once a receipt made the SKU known here.
    pub known: bool,
}

impl Position {
    /// Units that a new order can have (INV-3 keeps this from being negative).
    #[must_use]
    pub fn available(&self) -> u64 {
        u64::try_from(self.on_hand).unwrap_or(0).saturating_sub(self.reserved + self.suspect)
    }

    /// Units that are promised or doubted beyond what is on hand.
    #[must_use]
    pub fn uncovered(&self) -> u64 {
        let promised = i64::try_from(self.reserved + self.suspect).unwrap_or(i64::MAX);
        u64::try_from(promised.saturating_sub(self.on_hand)).unwrap_or(0)
    }
}

/// Which position.
pub type StockKey = (ClientNo, Sku);

/// Units that an order wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    /// Whose turn it is when there is not enough.
    pub rank: Rank,
    /// All, some, or all at once or nothing.
    pub allocation: Allocation,
    /// By line; a SKU may stand on several lines.
    pub needs: Vec<Need>,
}

/// Units of one line that want stock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// The order's line.
    pub line: LineNo,
    /// The SKU.
    pub sku: Sku,
    /// How many.
    pub quantity: Quantity,
}

/// What the ledger did for a want.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The order.
    pub order: TransactionId,
    /// Units reserved for it now.
    pub granted: LineUnits,
    /// True when `fill_or_kill` did not get everything: nothing is reserved.
    pub killed: bool,
    /// Lines that did not get all they wanted.
    pub short: SmallVec<[LineNo; 4]>,
    /// Lines whose SKU was never received here.
    pub unknown: SmallVec<[LineNo; 4]>,
}

/// The stock ledger of one warehouse and the ranks of those that wait.
#[derive(Debug, Default)]
pub struct Ledger {
    positions: BTreeMap<StockKey, Position>,
    waiting: BTreeMap<TransactionId, (ClientNo, Want)>,
    ranks: BTreeMap<StockKey, BTreeSet<Rank>>,
    changed: BTreeSet<StockKey>,
    freed: BTreeSet<StockKey>,
}

/// A move would take a position out of its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the position would leave its range")]
pub struct OutOfRange;

impl Ledger {
    /// The most units a position counts; far from overflow in every sum of them.
    pub const ON_HAND_MAX: i64 = 1 << 48;

    /// A ledger as it was stored; waiting orders are added by [`Ledger::remember`].
    #[must_use]
    pub fn new(positions: impl IntoIterator<Item = (StockKey, Position)>) -> Ledger {
        Ledger { positions: positions.into_iter().collect(), ..Ledger::default() }
    }

    /// Puts an order back among those that wait, as it was before a restart or before it was kept
    /// aside. Changes no position; what is free now is offered by the next [`Ledger::offer`], for
    /// nobody offered it while the order was away.
    pub fn remember(&mut self, client: ClientNo, want: Want) {
        for need in &want.needs {
            let key = (client, need.sku.clone());
            if self.position(&key).available() > 0 {
                self.freed.insert(key);
            }
        }
        if !want.needs.is_empty() {
            self.enqueue(client, want);
        }
    }

    /// The position, all zero when there is none.
    #[must_use]
    pub fn position(&self, key: &StockKey) -> Position {
        self.positions.get(key).copied().unwrap_or_default()
    }

    /// All positions.
    pub fn positions(&self) -> impl Iterator<Item = (&StockKey, &Position)> {
        self.positions.iter()
    }

    /// Orders that wait for stock.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// How many positions there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.positions.len()
    }

    /// True when there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }

    /// Books a move and says what it did. What it made available is offered by the next
    /// [`Ledger::offer`].
    ///
    /// A receipt and a count clear what is suspect. A count or an adjustment may leave less than is
    /// promised: the difference is recorded as shortfall.
    ///
    /// # Errors
    /// [`OutOfRange`] when the position would pass [`Ledger::ON_HAND_MAX`], or an adjustment would
    /// take more than is on hand; nothing is booked.
    pub fn shift(&mut self, key: StockKey, change: Change) -> Result<MoveFact, OutOfRange> {
        let was = self.position(&key);
        let mut is = was;
        let fact = match change {
            Change::Receipt { quantity } => {
                is.on_hand += i64::from(quantity);
                is.suspect = 0;
                is.known = true;
                match was.suspect {
                    0 => MoveFact::Applied,
                    cleared => MoveFact::Replenished { cleared },
                }
            }
            Change::Adjustment { delta, reason: _ } => {
                is.on_hand += i64::from(delta);
                if delta < 0 && is.on_hand < 0 {
                    return Err(OutOfRange);
                }
                MoveFact::Applied
            }
            Change::Count { counted } => {
                is.on_hand = i64::from(counted);
                is.suspect = 0;
                is.known = true;
                MoveFact::Counted { delta: is.on_hand - was.on_hand, cleared: was.suspect }
            }
        };
        if is.on_hand > Ledger::ON_HAND_MAX {
            return Err(OutOfRange);
        }
        is.shortfall = is.uncovered();
        *self.change(key.clone()) = is;
        if is.available() > was.available() {
            self.freed.insert(key);
        }
        Ok(fact)
    }

    /// Books what an order's facts did, as the difference of its footprints.
    ///
    /// # Panics
    /// When a position would go below zero: the books are wrong and the tree must not go on.
    pub fn book(&mut self, client: ClientNo, before: &[Footprint], after: &[Footprint]) {
        for (was, is) in before.iter().zip(after).filter(|(was, is)| was != is) {
            let key = (client, is.sku.clone());
            let position = self.change(key.clone());
            let free = position.available();
            position.reserved = moved(position.reserved, was.reserved, is.reserved);
            position.backordered = moved(position.backordered, was.backordered, is.backordered);
            position.suspect = moved(position.suspect, was.missing, is.missing);
            // What has shipped is no longer on hand.
            position.on_hand -= i64::try_from(is.shipped - was.shipped).unwrap_or(i64::MAX);
            // A shortfall only heals here; what would make one is a broken invariant elsewhere.
            position.shortfall = position.shortfall.min(position.uncovered());
            if position.available() > free {
                self.freed.insert(key);
            }
        }
    }

    /// Gives a want what its policy allows, now; the rest waits in rank.
    pub fn reserve(&mut self, client: ClientNo, want: Want) -> Placement {
        let placement = self.place(client, &want);
        if !placement.killed {
            self.wait_for_rest(client, want, &placement);
        }
        placement
    }

    /// Lets an order wait no longer: it was cancelled or its wait expired. Its facts book the rest.
    pub fn forget(&mut self, order: TransactionId) {
        self.dequeue(order);
    }

    /// Offers everything freed since the last call to those that wait for it, in rank, each under
    /// its own policy. Grants are reserved; each is a placement that its order must take in.
    pub fn offer(&mut self) -> Vec<Placement> {
        let mut freed: Vec<StockKey> = std::mem::take(&mut self.freed).into_iter().collect();
        freed.retain(|key| self.position(key).available() > 0);
        // One order of ranks over all SKUs: one that wants several must not take what a better
        // rank waits for because another of its SKUs comes first.
        let ranks: BTreeSet<Rank> =
            freed.iter().filter_map(|key| self.ranks.get(key)).flatten().copied().collect();
        let mut granted = Vec::new();
        for rank in ranks {
            if freed.is_empty() {
                break;
            }
            if let Some(placement) = self.offer_to(rank.order()) {
                granted.push(placement);
                freed.retain(|key| self.position(key).available() > 0);
            }
        }
        granted
    }

    fn offer_to(&mut self, order: TransactionId) -> Option<Placement> {
        let (client, want) = self.waiting.get(&order).cloned()?;
        let placement = self.place(client, &want);
        if placement.granted.is_empty() {
            return None;
        }
        self.dequeue(order);
        for need in &want.needs {
            let got = granted_to(&placement, need.line);
            self.change((client, need.sku.clone())).backordered -= u64::from(got);
        }
        let rest = rest_of(want, &placement);
        self.remember(client, rest);
        Some(placement)
    }

    /// Reserves what the policy allows.
    fn place(&mut self, client: ClientNo, want: &Want) -> Placement {
        let mut free: BTreeMap<&Sku, u64> = BTreeMap::new();
        let mut placement = Placement {
            order: want.rank.order(),
            granted: LineUnits::new(),
            killed: false,
            short: SmallVec::new(),
            unknown: SmallVec::new(),
        };
        for need in &want.needs {
            let position = self.positions.get(&(client, need.sku.clone())).copied().unwrap_or_default();
            let left = free.entry(&need.sku).or_insert_with(|| position.available());
            let got = Quantity::try_from(*left).unwrap_or(Quantity::MAX).min(need.quantity);
            *left -= u64::from(got);
            if got > 0 {
                placement.granted.push((need.line, got));
            }
            if got < need.quantity {
                placement.short.push(need.line);
            }
            if !position.known {
                placement.unknown.push(need.line);
            }
        }
        let all = placement.short.is_empty();
        match want.allocation {
            Allocation::ShipPartial => {}
            Allocation::ShipComplete if all => {}
            Allocation::ShipComplete => placement.granted.clear(),
            Allocation::FillOrKill if all => {}
            Allocation::FillOrKill => {
                placement.granted.clear();
                placement.killed = true;
            }
        }
        for need in &want.needs {
            let got = granted_to(&placement, need.line);
            if got > 0 {
                self.change((client, need.sku.clone())).reserved += u64::from(got);
            }
        }
        placement
    }

    fn wait_for_rest(&mut self, client: ClientNo, want: Want, placement: &Placement) {
        let rest = rest_of(want, placement);
        if rest.needs.is_empty() {
            return;
        }
        for need in &rest.needs {
            self.change((client, need.sku.clone())).backordered += u64::from(need.quantity);
        }
        self.enqueue(client, rest);
    }

    /// An order that waits already waits for the new needs as well, line by line.
    fn enqueue(&mut self, client: ClientNo, mut want: Want) {
        let order = want.rank.order();
        if let Some((_, before)) = self.dequeue(order) {
            for need in before.needs {
                match want.needs.iter_mut().find(|n| n.line == need.line) {
                    Some(same) => same.quantity += need.quantity,
                    None => want.needs.push(need),
                }
            }
        }
        for need in &want.needs {
            self.ranks.entry((client, need.sku.clone())).or_default().insert(want.rank);
        }
        self.waiting.insert(order, (client, want));
    }

    fn dequeue(&mut self, order: TransactionId) -> Option<(ClientNo, Want)> {
        let (client, want) = self.waiting.remove(&order)?;
        for need in &want.needs {
            let key = (client, need.sku.clone());
            if let Some(ranks) = self.ranks.get_mut(&key) {
                ranks.remove(&want.rank);
                if ranks.is_empty() {
                    self.ranks.remove(&key);
                }
            }
        }
        Some((client, want))
    }

    /// The positions that changed since the last call, as they are now.
    pub fn take_changed(&mut self) -> Vec<(StockKey, Position)> {
        let changed = std::mem::take(&mut self.changed);
        changed.into_iter().map(|key| (key.clone(), self.position(&key))).collect()
    }

    fn change(&mut self, key: StockKey) -> &mut Position {
        self.changed.insert(key.clone());
        self.positions.entry(key).or_default()
    }
}

fn granted_to(placement: &Placement, line: LineNo) -> Quantity {
    placement.granted.iter().find(|(l, _)| *l == line).map_or(0, |(_, q)| *q)
}

fn rest_of(mut want: Want, placement: &Placement) -> Want {
    for need in &mut want.needs {
        need.quantity -= granted_to(placement, need.line);
    }
    want.needs.retain(|n| n.quantity > 0);
    want
}

/// A sum after one of its parts went from `was` to `is`.
fn moved(sum: u64, was: u64, is: u64) -> u64 {
    (sum + is).checked_sub(was).expect("a stock position went below zero")
}
