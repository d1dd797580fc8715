//! Looks for invariants that do not hold in a store at rest: folds every transaction from its
//! facts and compares with what is stored beside them. It must never write, nor read around the
//! [`Store`] trait: what a reader cannot see is not checked.
//!
//! Memory is bounded by positions, clients and unfinished transactions, not by all transactions:
//! feeds are compared with transactions by sums over (id, version).

mod endpoints;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::domain::command::{Change, Command, MoveCommand, OrderCommand};
use crate::domain::fact::{Fact, ManifestFact, MoveFact};
use crate::domain::ids::{ClientNo, PartitionId, Sku, TransactionId};
use crate::domain::invariants::{Violation, nothing_reserved_twice, ships_at_most_once, stock_conserved};
use crate::domain::order::Order;
use crate::domain::stock::Position;
use crate::ports::store::{
    FeedEntry, Fence, GatherLimits, LaneItem, Lookup, Points, ReadError, RegisterError, Registration, Store,
    StoredTransaction,
};
use crate::ports::turns::{first_of_turn, turn_of};

/// Transactions read at once.
const PAGE: usize = 256;
/// Feed entries or positions read at once.
const ENTRIES: usize = 1_000;
/// Versions remembered while a feed is walked; its neighbours mostly concern the same orders.
const VERSIONS_MAX: usize = 4_096;

/// Checks INV-1 to INV-5 and INV-7 and says what does not hold; empty: all does.
///
/// Run it while nothing is written: it reads in pages, and a turn between two of them would look
/// like a violation. Where transactions have been swept, stock is not compared with all receipts
/// and shipments any more, for those of the swept are gone.
pub async fn check(store: &dyn Store) -> Vec<Violation> {
    let mut check = Check::default();
    if let Err(e) = check.run(store).await {
        let source = std::error::Error::source(&e).map_or_else(String::new, |s| format!(": {s}"));
        check.found("INV-1", format!("the store cannot be read to its end: {e}{source}"));
    }
    check.violations
}

type StockOf = (PartitionId, ClientNo, Sku);

/// What the facts of all transactions make of one position.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    reserved: u64,
    backordered: u64,
    missing: u64,
    shipped: u64,
    moved: i64,
    cleared: u64,
}

/// What a client's transactions, or its feed, amount to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Versions {
    count: u64,
    hashes: u64,
}

impl Versions {
    fn add(&mut self, id: TransactionId, version: u32) {
        self.count += 1;
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one((id, version));
        self.hashes = self.hashes.wrapping_add(hash);
    }
}

#[derive(Default)]
struct Check {
    violations: Vec<Violation>,
    stock: BTreeMap<StockOf, Sums>,
    partitions: BTreeSet<PartitionId>,
    /// The first sequence that each client's feed keeps.
    first: BTreeMap<ClientNo, u64>,
    /// What each client's feed must say.
    clients: BTreeMap<ClientNo, Versions>,
    /// Facts of each client's transactions.
    facts: BTreeMap<ClientNo, u64>,
    /// Clients some of whose transactions are no longer there.
    swept: BTreeSet<ClientNo>,
    /// Orders and manifests that have not ended.
    unfinished: BTreeSet<TransactionId>,
}

impl Check {
    fn found(&mut self, id: &'static str, found: String) {
        self.violations.push(Violation { id, found });
    }

    async fn run(&mut self, store: &dyn Store) -> Result<(), ReadError> {
        for (_, client) in clients(store).await? {
            self.clients.entry(client).or_default();
        }
        self.transactions(store).await?;
        self.feeds(store).await?;
        self.positions(store).await?;
        self.standing(store).await?;
        self.violations.extend(endpoints::check(store).await?);
        Ok(())
    }

    async fn transactions(&mut self, store: &dyn Store) -> Result<(), ReadError> {
        let mut after = None;
        loop {
            let page = store.scan(after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.id);
            for stored in &page {
                self.partitions.insert(stored.id.home());
                self.acceptance(stored);
                self.announced(store, stored).await?;
                self.claim(store, stored).await?;
                match &stored.command {
                    Command::Order(command) => self.order(stored, command),
                    Command::Move(command) => self.movement(stored, command),
                    Command::Cancellation(_) => self.ends_once(stored),
                    Command::Manifest(_) => self.manifest(store, stored).await?,
                }
            }
        }
    }

    /// The first fact, and only it, is the acceptance. That versions have no holes is known by
    /// now: such a transaction cannot be read.
    fn acceptance(&mut self, stored: &StoredTransaction) {
        let at = |f: &Fact| matches!(f, Fact::Accepted(_));
        let first = stored.facts.first().is_some_and(|f| at(&f.fact));
        if !first || stored.facts.iter().skip(1).any(|f| at(&f.fact)) {
            self.found("INV-7", format!("{} is not accepted once, as its version 1", stored.id));
        }
    }

    /// Notes what the feed must say of a transaction: all of its facts but those that it has evicted.
    async fn announced(&mut self, store: &dyn Store, stored: &StoredTransaction) -> Result<(), ReadError> {
        if stored.client == ClientNo::HOUSE {
            return Ok(());
        }
        *self.facts.entry(stored.client).or_default() += u64::from(stored.version());
        let first = match self.first.get(&stored.client) {
            Some(first) => *first,
            None => {
                let first = store.feed_bounds(stored.client).await?.first;
                *self.first.entry(stored.client).or_insert(first)
            }
        };
        let versions = self.clients.entry(stored.client).or_default();
        if first <= 1 {
            (1..=stored.version()).for_each(|version| versions.add(stored.id, version));
            return Ok(());
        }
        for (version, sequence) in (1..).zip(store.sequences(stored.id).await?) {
            if sequence.is_some_and(|sequence| sequence >= first) {
                versions.add(stored.id, version);
            }
        }
        Ok(())
    }

    async fn claim(&mut self, store: &dyn Store, stored: &StoredTransaction) -> Result<(), ReadError> {
        if stored.client == ClientNo::HOUSE {
            return Ok(());
        }
        let reference = stored.command.reference();
        let holder = store.claimed(stored.client, stored.command.kind(), reference.clone()).await?;
        if holder != Some(stored.id) {
            let holder = holder.map_or_else(|| "nothing".to_owned(), |id| id.to_string());
            self.found("INV-1", format!("the claim {reference} of {} leads to {holder}", stored.id));
        }
        Ok(())
    }

    fn order(&mut self, stored: &StoredTransaction, command: &OrderCommand) {
        // A fact that does not fit panics; here that is a finding like any other.
        let Ok(folded) = catch_unwind(AssertUnwindSafe(|| fold(stored, command))) else {
            self.found("INV-7", format!("{}: its facts do not fit each other", stored.id));
            return;
        };
        let (order, misfits) = folded;
        self.violations.extend(misfits);
        self.violations.extend(ships_at_most_once(&order));
        if !order.is_done() {
            self.unfinished.insert(stored.id);
        }
        for footprint in order.footprint() {
            let key = (stored.id.home(), stored.client, footprint.sku);
            let sums = self.stock.entry(key).or_default();
            sums.reserved += footprint.reserved;
            sums.backordered += footprint.backordered;
            sums.missing += footprint.missing;
            sums.shipped += footprint.shipped;
        }
    }

    fn movement(&mut self, stored: &StoredTransaction, command: &MoveCommand) {
        self.ends_once(stored);
        for recorded in &stored.facts {
            let Fact::Move(fact) = recorded.fact else { continue };
            let (counted, cleared) = match fact {
                MoveFact::Rejected => continue,
                MoveFact::Applied => (0, 0),
                MoveFact::Replenished { cleared } => (0, cleared),
                MoveFact::Counted { delta, cleared } => (delta, cleared),
            };
            let key = (stored.id.home(), stored.client, command.sku.clone());
            let sums = self.stock.entry(key).or_default();
            sums.cleared += cleared;
            sums.moved += match command.change {
                Change::Receipt { quantity } => i64::from(quantity),
                Change::Adjustment { delta, reason: _ } => i64::from(delta),
                Change::Count { counted: _ } => counted,
            };
        }
    }

    fn ends_once(&mut self, stored: &StoredTransaction) {
        if stored.facts.len() > 2 {
            self.found("INV-7", format!("{} ended more than once", stored.id));
        }
    }

    async fn manifest(&mut self, store: &dyn Store, stored: &StoredTransaction) -> Result<(), ReadError> {
        let mut departed = false;
        for recorded in &stored.facts {
            match &recorded.fact {
                Fact::Manifest(ManifestFact::Closed { cartons }) => {
                    let there = store.cartons(stored.id).await?.len();
                    if u32::try_from(there).ok() != Some(*cartons) {
                        let id = stored.id;
                        self.found("INV-1", format!("{id} closed with {cartons} cartons, {there} are there"));
                    }
                }
                Fact::Manifest(ManifestFact::Departed) => departed = true,
                Fact::Accepted(_) | Fact::Order(_) | Fact::Move(_) | Fact::Cancellation(_) => {}
            }
        }
        if !departed {
            self.unfinished.insert(stored.id);
        }
        Ok(())
    }

    async fn feeds(&mut self, store: &dyn Store) -> Result<(), ReadError> {
        let clients: Vec<_> = self.clients.iter().map(|(client, expected)| (*client, *expected)).collect();
        for (client, expected) in clients {
            let seen = self.feed(store, client).await?;
            if seen != expected {
                let (have, want) = (seen.count, expected.count);
                let found = format!("the feed of {client:?} has {have} of {want} events, or not each once");
                self.found("INV-5", found);
            }
        }
        Ok(())
    }

    /// Walks a feed and sums up its entries about transactions that are there.
    async fn feed(&mut self, store: &dyn Store, client: ClientNo) -> Result<Versions, ReadError> {
        let mut known: HashMap<TransactionId, Option<u32>> = HashMap::new();
        let bounds = store.feed_bounds(client).await?;
        let (mut seen, mut last) = (Versions::default(), bounds.first - 1);
        let mut announcements = 0;
        loop {
            let page = store.feed(client, last, ENTRIES).await?;
            if page.is_empty() {
                // What was evicted may have been about transactions that are no longer there. One that
                // was about no transaction looks like that too; then the check is only less strict.
                if self.facts.get(&client).copied().unwrap_or(0) + announcements < bounds.next - 1 {
                    self.swept.insert(client);
                }
                return Ok(seen);
            }
            for entry in page {
                let FeedEntry { sequence, id, version: _ } = entry;
                let is_first_of_turn =
                    turn_of(sequence) > turn_of(last) && sequence == first_of_turn(turn_of(sequence));
                if sequence != last + 1 && !is_first_of_turn {
                    self.found("INV-5", format!("the feed of {client:?} jumps from {last} to {sequence}"));
                }
                last = sequence;
                if known.len() >= VERSIONS_MAX {
                    known.clear();
                }
                let newest = match known.get(&id) {
                    Some(newest) => *newest,
                    None => *known.entry(id).or_insert(newest(store, id).await?),
                };
                match (newest, entry.points()) {
                    (Some(newest), Points::Version(version)) if version <= newest => seen.add(id, version),
                    (Some(newest), Points::Estimate(version)) if version <= newest => {
                        announcements += 1;
                        let told = store.estimates(id).await?;
                        if !told.iter().any(|told| (told.sequence, told.version) == (sequence, version)) {
                            let found =
                                format!("feed entry {sequence} of {client:?}: {id} has no such estimate");
                            self.found("INV-5", found);
                        }
                    }
                    (Some(_), points) => {
                        let found = format!("feed entry {sequence} of {client:?}: {id} has no {points:?}");
                        self.found("INV-5", found);
                    }
                    // It is about no transaction.
                    (None, Points::Announcement) => announcements += 1,
                    (None, Points::Version(_) | Points::Estimate(_)) => {
                        self.swept.insert(client);
                    }
                }
            }
        }
    }

    async fn positions(&mut self, store: &dyn Store) -> Result<(), ReadError> {
        for partition in self.partitions.clone() {
            for client in self.clients.keys().copied().collect::<Vec<_>>() {
                let mut after = None;
                loop {
                    let page = store.positions(partition, client, after, ENTRIES).await?;
                    let Some((last, _)) = page.last() else { break };
                    after = Some(last.clone());
                    for (sku, position) in page {
                        let key = (partition, client, sku);
                        let sums = self.stock.remove(&key).unwrap_or_default();
                        self.position(&key, &position, sums);
                    }
                }
            }
        }
        // What is left has facts and no position: it is compared with an empty one.
        for (key, sums) in std::mem::take(&mut self.stock) {
            self.position(&key, &Position::default(), sums);
        }
        Ok(())
    }

    fn position(&mut self, key: &StockOf, position: &Position, sums: Sums) {
        let (PartitionId(partition), client, sku) = key;
        let name = format!("{sku} of {client:?} in partition {partition}");
        self.violations.extend(nothing_reserved_twice(&name, position));
        let swept = self.swept.contains(client);
        let mut compare = |what: &str, stored: u64, folded: u64| {
            if stored != folded {
                self.found("INV-3", format!("{name}: {stored} {what} stored, {folded} by the facts"));
            }
        };
        compare("reserved", position.reserved, sums.reserved);
        compare("backordered", position.backordered, sums.backordered);
        if swept {
            return;
        }
        compare("suspect", position.suspect + sums.cleared, sums.missing);
        self.violations.extend(stock_conserved(&name, position, sums.moved, sums.shipped));
    }

    /// What has not ended is in a lane, open, or an operator's to decide: else no owner would ever find it.
    async fn standing(&mut self, store: &dyn Store) -> Result<(), ReadError> {
        const ALL: GatherLimits = GatherLimits { control: usize::MAX, stock: usize::MAX, work: usize::MAX };
        for partition in self.partitions.clone() {
            // Reads are not fenced, so nothing has to be taken for them.
            let fence = Fence { partition, epoch: 0, nonce: 0 };
            for open in store.load(fence).await?.open {
                self.unfinished.remove(&open.id);
            }
            let mut after = 0;
            loop {
                let letters = store.dead_letters(partition, after, ENTRIES).await?;
                let Some((last, _)) = letters.last() else { break };
                after = *last;
                for (_, letter) in letters {
                    let read = letter.map_err(|why| self.found("INV-1", format!("{partition:?}: {why}")));
                    read.ok().and_then(|letter| letter.id).map(|id| self.unfinished.remove(&id));
                }
            }
            for entry in store.gather(fence, ALL).await?.entries {
                match entry.item {
                    LaneItem::Transaction(stored) => {
                        self.unfinished.remove(&stored.id);
                    }
                    LaneItem::Report(_) | LaneItem::Instruction(..) => {}
                    LaneItem::Undecodable(_, why) => {
                        self.found("INV-1", format!("lane entry {} of {partition:?}: {why}", entry.n));
                    }
                }
            }
        }
        for id in std::mem::take(&mut self.unfinished) {
            let found = format!("{id} has not ended and is neither open, in a lane nor a dead letter");
            self.found("INV-1", found);
        }
        Ok(())
    }
}

async fn clients(store: &dyn Store) -> Result<Vec<(String, ClientNo)>, ReadError> {
    match store.register(Registration::default()).await {
        Ok(met) => Ok(met.clients),
        Err(RegisterError::Read(e)) => Err(e),
        Err(e @ (RegisterError::PartitionChanged { .. } | RegisterError::Commit(_))) => {
            Err(ReadError::Unavailable(std::sync::Arc::new(e)))
        }
    }
}

/// The newest version of a transaction that is there.
async fn newest(store: &dyn Store, id: TransactionId) -> Result<Option<u32>, ReadError> {
    Ok(match store.transaction(id).await? {
        Some(Lookup::Live(stored)) => Some(stored.version()),
        Some(Lookup::Expired(_)) | None => None,
    })
}

fn fold(stored: &StoredTransaction, command: &OrderCommand) -> (Order, Vec<Violation>) {
    let accepted_at = stored.facts.first().map_or_else(|| stored.id.at(), |f| f.at);
    let mut order = Order::new(stored.id, command, accepted_at);
    let mut misfits = Vec::new();
    for (version, recorded) in (1u32..).zip(&stored.facts) {
        let ended = order.is_done().then(|| order.state());
        match &recorded.fact {
            Fact::Order(fact) => order.apply(fact, recorded.at),
            Fact::Accepted(_) => {}
            Fact::Move(_) | Fact::Cancellation(_) | Fact::Manifest(_) => misfits.push(Violation {
                id: "INV-7",
                found: format!("{} version {version} is no fact of an order", stored.id),
            }),
        }
        if ended.is_some_and(|state| state != order.state()) {
            let found = format!("{} version {version} changes what is final", stored.id);
            misfits.push(Violation { id: "INV-7", found });
        }
    }
    (order, misfits)
}

#[cfg(test)]
mod tests;
