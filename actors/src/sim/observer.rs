//! Sees every write of the store as it is applied, keeps the trace, and checks safety at each: what
//! the disk says must be what was there before and what this write added, and nothing else.

use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};
use std::hash::Hasher;
use std::sync::Arc;
use std::time::Duration;

use super::World;
use super::disk::at_once;
use super::life::Life;
use super::operator::is_by_deaths;
use super::profile::Outcome;
use crate::domain::command::{Change, Command};
use crate::domain::fact::{Fact, MoveFact, Recorded};
use crate::domain::ids::{ClientNo, PartitionId, Sku, TransactionId};
use crate::domain::invariants::{self, Violation};
use crate::domain::order::{Footprint, Order};
use crate::domain::promise;
use crate::domain::state::State;
use crate::domain::stock::Position;
use crate::domain::time::Timestamp;
use crate::ports::announcement::{Announcement, StockChange};
use crate::ports::clock::Clock;
use crate::ports::store::{
    Digest, FeedEntry, Fence, NewCommand, NewFacts, Points, Store, StoredTransaction, TurnCommit, Verdict,
};

/// A position is told of no more often.
const TOLD_AT_MOST_EVERY: Duration = Duration::from_secs(1);
/// A client is told of the same order no sooner.
const TOLD_ANEW_AFTER: Duration = Duration::from_secs(60);
/// Violations kept; the first says what is wrong, the hundredth says nothing more.
const VIOLATIONS_MAX: usize = 10;

/// The observer.
pub(crate) struct Observer {
    log: Mutex<Log>,
    seen: Mutex<Seen>,
}

/// The trace: its digest, and its lines when they are wanted.
struct Log {
    line: String,
    digest: std::hash::DefaultHasher,
    lines: Option<Vec<String>>,
    violations: Vec<Violation>,
    counts: BTreeMap<&'static str, usize>,
    taken: BTreeMap<u16, usize>,
}

/// What the disk held after the last write.
#[derive(Default)]
struct Seen {
    known: BTreeMap<TransactionId, Known>,
    owners: BTreeMap<PartitionId, Fence>,
    /// The node that took each partition last.
    holders: BTreeMap<PartitionId, (Fence, Arc<Life>)>,
    /// Owners of void fences whose nodes live: what they remember is not what the store holds.
    overtaken: Vec<(Fence, Arc<Life>)>,
    /// The last number of each feed.
    feeds: BTreeMap<ClientNo, u64>,
    stock: BTreeMap<StockOf, Sums>,
    /// When feeds were last told of positions, and by which clock.
    told: BTreeMap<StockOf, (Option<ClockOf>, Timestamp)>,
}

type StockOf = (PartitionId, ClientNo, Sku);

/// Times of one clock can be compared: how often it had been set, and whose it is where nodes that share
/// have clocks of their own (0 where they have not).
type ClockOf = (usize, u64);

/// A transaction as it was last seen.
struct Known {
    client: ClientNo,
    digest: Digest,
    facts: Vec<Recorded>,
    /// Its fold, when it is an order.
    order: Option<Order>,
    ended: Option<State>,
}

/// What facts made of one position.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    reserved: i64,
    backordered: i64,
    missing: i64,
    shipped: i64,
    moved: i64,
    cleared: i64,
}

impl Observer {
    /// An observer that keeps the lines of its trace when it is `traced`.
    pub(crate) fn new(traced: bool) -> Observer {
        let log = Log {
            line: String::new(),
            digest: std::hash::DefaultHasher::new(),
            lines: traced.then(Vec::new),
            violations: Vec::new(),
            counts: BTreeMap::new(),
            taken: BTreeMap::new(),
        };
        Observer { log: Mutex::new(log), seen: Mutex::default() }
    }

    /// Writes a line into the trace.
    pub(crate) fn note(&self, line: fmt::Arguments<'_>) {
        let mut log = self.log.lock();
        let Log { line: buffer, digest, lines, .. } = &mut *log;
        buffer.clear();
        // Writing to a string cannot fail.
        let _written = buffer.write_fmt(line);
        digest.write(buffer.as_bytes());
        if let Some(lines) = lines {
            lines.push(buffer.clone());
        }
    }

    /// Counts something that happened, so that tests see that it did.
    pub(crate) fn saw(&self, what: &'static str) {
        *self.log.lock().counts.entry(what).or_default() += 1;
    }

    /// How often it happened so far.
    pub(crate) fn count(&self, what: &'static str) -> usize {
        self.log.lock().counts.get(what).copied().unwrap_or(0)
    }

    pub(crate) fn violated(&self, violation: Violation) {
        self.note(format_args!("VIOLATION {violation}"));
        let mut log = self.log.lock();
        if log.violations.len() < VIOLATIONS_MAX {
            log.violations.push(violation);
        }
    }

    /// True when something was found: going on would only find its consequences.
    pub(crate) fn is_broken(&self) -> bool {
        !self.log.lock().violations.is_empty()
    }

    /// What became of the world.
    pub(crate) fn outcome(&self) -> Outcome {
        let log = self.log.lock();
        Outcome {
            violations: log.violations.clone(),
            trace: log.lines.clone().unwrap_or_default(),
            digest: log.digest.finish(),
            taken: log.taken.clone(),
            seen: log.counts.clone(),
        }
    }

    /// The owner of a partition, as the store last named it.
    pub(crate) fn owner(&self, partition: PartitionId) -> Option<Fence> {
        self.seen.lock().owners.get(&partition).copied()
    }

    /// The client and the facts of a transaction as last seen.
    pub(crate) fn orders_of(&self, client: ClientNo) -> Vec<TransactionId> {
        let seen = self.seen.lock();
        let of_client = seen.known.iter().filter(|(_, k)| k.client == client && k.order.is_some());
        of_client.map(|(id, _)| *id).collect()
    }

    /// An order as its facts leave it.
    pub(crate) fn order(&self, id: TransactionId) -> Option<Order> {
        self.seen.lock().known.get(&id).and_then(|known| known.order.clone())
    }

    /// All orders that were ever accepted.
    pub(crate) fn orders(&self) -> Vec<Order> {
        self.seen.lock().known.values().filter_map(|known| known.order.clone()).collect()
    }

    /// A partition has a new owner: no epoch is given twice (INV-6).
    pub(crate) fn taken(&self, world: &World, fence: Fence, life: &Arc<Life>) {
        *self.log.lock().taken.entry(fence.partition.0).or_default() += 1;
        world.note(format_args!("take {fence:?}"));
        let mut seen = self.seen.lock();
        let held = seen.holders.insert(fence.partition, (fence, life.clone()));
        self.overtakes(&mut seen, held.filter(|(_, before)| !Arc::ptr_eq(before, life)));
        let before = seen.owners.insert(fence.partition, fence);
        drop(seen);
        if before.is_some_and(|before| before.epoch >= fence.epoch) {
            world.violated("INV-6", format!("{before:?} is followed by {fence:?}"));
        }
    }

    /// Commands were accepted, or known before.
    pub(crate) fn accepted(&self, world: &World, batch: &[NewCommand], verdicts: &[Verdict]) {
        let mut seen = self.seen.lock();
        let mut announced = Vec::new();
        for (new, verdict) in batch.iter().zip(verdicts) {
            world.note(format_args!("{} {} is {verdict:?}", new.id, new.command.reference()));
            match verdict {
                Verdict::New => {
                    announced.push((new.client, new.id, 1));
                    seen.begins(new.id, new.client, new.digest, &new.command, vec![new.accepted.clone()]);
                }
                Verdict::Replay(id) => match seen.known.get(id) {
                    Some(known) if known.client != new.client => {
                        world.violated("INV-8", format!("{:?} is answered {id} of another", new.client));
                    }
                    Some(known) if known.digest == new.digest => {}
                    Some(_) | None => {
                        world.violated("INV-1", format!("a replay of {id}, which is another command"));
                    }
                },
                Verdict::ReferenceConflict(id) => {
                    if seen.known.get(id).is_none_or(|known| known.client != new.client) {
                        world.violated("INV-8", format!("{:?} meets {id} of another", new.client));
                    }
                }
                Verdict::BacklogFull => self.saw("refused by a full lane"),
                Verdict::KeyReused | Verdict::StoreFull | Verdict::Unavailable | Verdict::Unknown => {}
            }
        }
        seen.feeds(world, announced);
    }

    /// An endpoint was disabled, which its client's feed says.
    pub(crate) fn noticed(&self, world: &World, client: ClientNo, at: Timestamp) {
        let mut seen = self.seen.lock();
        let sequence = seen.feeds.get(&client).copied().unwrap_or(0) + 1;
        let own = TransactionId::new(at, PartitionId(0), sequence);
        seen.feeds(world, vec![(client, own, 0)]);
    }

    /// A partition has no owner any more.
    pub(crate) fn deposed(&self, partition: PartitionId, nonce: u64) {
        let mut seen = self.seen.lock();
        if let Some(owner) = seen.owners.get_mut(&partition) {
            owner.nonce = nonce;
        }
        let held = seen.holders.remove(&partition);
        self.overtakes(&mut seen, held);
    }

    /// The fence of an owner is void; where its node lives, it may not know.
    fn overtakes(&self, seen: &mut Seen, held: Option<(Fence, Arc<Life>)>) {
        if let Some(held) = held.filter(|(_, life)| !life.is_over()) {
            self.saw("owners overtaken");
            seen.overtaken.push(held);
        }
    }

    /// True while there is an owner that may not know that it is none. False when it cannot be asked: a
    /// panic in the observer is no owner's.
    pub(crate) fn has_stale_owners(&self) -> bool {
        self.seen.try_lock().is_some_and(|seen| seen.overtaken.iter().any(|(_, life)| !life.is_over()))
    }

    /// A turn was committed, or refused.
    pub(crate) fn committed(&self, world: &World, fence: Fence, turn: &TurnCommit, written: bool) {
        let mut seen = self.seen.lock();
        let owns = seen.owners.get(&fence.partition) == Some(&fence);
        if owns != written {
            world.violated("INV-6", format!("{fence:?} owns: {owns}, its commit was written: {written}"));
        }
        let facts: Vec<_> = turn.facts.iter().map(|f| (f.id, &f.facts)).collect();
        let done = if written { "commits" } else { "is refused" };
        world.note(format_args!("{fence:?} {done} taken {:?} facts {facts:?}", turn.taken));
        let TurnCommit { opened, closed, dead, settled, trouble, .. } = turn;
        for (what, ids) in
            [("opened", opened), ("closed", closed)].into_iter().filter(|(_, ids)| !ids.is_empty())
        {
            world.note(format_args!("  {what} {ids:?}"));
        }
        for letter in dead {
            world.note(format_args!("  kept aside {:?} {:?}: {}", letter.kind, letter.id, letter.reason));
            if written && is_by_deaths(letter) {
                self.saw("kept aside for deaths");
            }
        }
        if !settled.is_empty() || trouble.is_some() {
            world.note(format_args!("  settled {settled:?} trouble {trouble:?}"));
        }
        if !written {
            // Now it knows, and drops its tree.
            seen.overtaken.retain(|(of, _)| *of != fence);
            return;
        }
        for (id, command) in &turn.created {
            seen.begins(*id, ClientNo::HOUSE, crate::store::digest(command, None), command, Vec::new());
        }
        let mut touched: BTreeSet<StockOf> =
            turn.positions.iter().map(|((client, sku), _)| (fence.partition, *client, sku.clone())).collect();
        let mut announced = Vec::new();
        for new in &turn.facts {
            if new.id.home() != fence.partition {
                world.violated("INV-6", format!("{} is decided by the owner of {fence:?}", new.id));
            }
            if new.client != ClientNo::HOUSE {
                let versions = (new.first_version..).take(new.facts.len());
                announced.extend(versions.map(|version| (new.client, new.id, version)));
            }
            touched.extend(seen.grows(world, new));
        }
        for ((client, sku), at) in &turn.told {
            announced.push((*client, StockChange::entry_id(*at, fence.partition, sku), 0));
        }
        for new in &turn.estimates {
            announced.push((new.client, new.id, Points::Estimate(new.version).number()));
        }
        seen.feeds(world, announced);
        seen.told(world, fence, turn);
        seen.promised(world, turn);
        for key in touched {
            let (partition, client, sku) = key.clone();
            let position = at_once(world.disk.position(partition, client, sku));
            seen.position(world, &key, position.ok().flatten().unwrap_or_default());
        }
    }
}

impl Seen {
    fn begins(
        &mut self,
        id: TransactionId,
        client: ClientNo,
        digest: Digest,
        command: &Command,
        facts: Vec<Recorded>,
    ) {
        let at = facts.first().map(|f| f.at).unwrap_or_default();
        let order = match command {
            Command::Order(command) => Some(Order::new(id, command, at)),
            Command::Move(_) | Command::Cancellation(_) | Command::Manifest(_) => None,
        };
        self.known.insert(id, Known { client, digest, facts, order, ended: None });
    }

    /// A transaction has new facts: INV-2, INV-7 and INV-8. Answers which positions they move.
    fn grows(&mut self, world: &World, new: &NewFacts) -> Vec<StockOf> {
        let Some(stored) = world.stored(new.id) else {
            world.violated("INV-1", format!("{} is not found after its commit", new.id));
            return Vec::new();
        };
        let Some(known) = self.known.get_mut(&new.id) else {
            world.violated("INV-1", format!("{} was never accepted", new.id));
            return Vec::new();
        };
        if stored.client != known.client || new.client != known.client {
            let (was, is, by) = (known.client, stored.client, new.client);
            world.violated("INV-8", format!("{} of {was:?} is {is:?}'s, written for {by:?}", new.id));
        }
        let before = known.facts.len();
        let kept = stored.facts.get(..before) == Some(&known.facts[..]);
        let added = stored.facts.get(before..) == Some(&new.facts[..]);
        if !kept || !added || new.first_version as usize != before + 1 {
            let found = format!("{} had {before} versions and its history is another now", new.id);
            world.violated("INV-7", found);
            return Vec::new();
        }
        let moved = known.apply(world, &stored, &new.facts);
        known.facts.clone_from(&stored.facts);
        let client = known.client;
        let home = new.id.home();
        moved
            .into_iter()
            .map(|(sku, sums)| {
                let key = (home, client, sku);
                self.stock.entry(key.clone()).or_default().add(sums);
                key
            })
            .collect()
    }

    /// Feeds have grown by these events and no others, in this order: INV-5.
    fn feeds(&mut self, world: &World, announced: Vec<(ClientNo, TransactionId, u32)>) {
        let mut of_client: BTreeMap<ClientNo, Vec<(TransactionId, u32)>> = BTreeMap::new();
        for (client, id, version) in announced {
            of_client.entry(client).or_default().push((id, version));
        }
        for (client, events) in of_client {
            let last = self.feeds.entry(client).or_default();
            let page = at_once(world.disk.feed(client, *last, events.len() + 1)).unwrap_or_default();
            let numbered = page.iter().zip(*last + 1..).all(|(entry, n)| entry.sequence == n);
            let entries: Vec<_> = page.iter().map(|FeedEntry { id, version, .. }| (*id, *version)).collect();
            if !numbered || entries != events {
                let found = format!("after {last} the feed of {client:?} has {page:?} for {events:?}");
                world.violated("INV-5", found);
            }
            *last += events.len() as u64;
        }
    }

    /// What a turn tells of positions is what they are, and no more often than once a second.
    fn told(&mut self, world: &World, fence: Fence, turn: &TurnCommit) {
        let home = fence.partition;
        let owner = if world.profile.shared { fence.epoch } else { 0 };
        for ((client, sku), at) in &turn.told {
            world.observer.saw("stock told");
            let last = self.feeds.get(client).copied().unwrap_or_default();
            let told = (1..=last)
                .rev()
                .take(turn.told.len() + turn.estimates.len())
                .filter_map(|sequence| at_once(world.disk.announcement(*client, sequence)).ok().flatten());
            let id = StockChange::entry_id(*at, home, sku);
            let position = at_once(world.disk.position(home, *client, sku.clone())).ok().flatten();
            let change = position.map(|position| StockChange { id, sku: sku.clone(), position });
            if !change.is_some_and(|c| told.into_iter().any(|said| said == Announcement::Stock(c.clone()))) {
                world.violated("INV-5", format!("the feed of {client:?} does not say how {sku} is"));
            }
            // Between two steps of the clock its times can be compared; one that lies ahead was read
            // before the last step.
            let clock = (world.clock.now() >= *at).then(|| (world.clock.settings(), owner));
            let key = (home, *client, sku.clone());
            let Some((clock_then, before)) = self.told.insert(key, (clock, *at)) else { continue };
            if clock.is_some() && clock == clock_then && at.since(before) < TOLD_AT_MOST_EVERY {
                world.violated("INV-5", format!("{sku} of {client:?} is told of at {before:?} and {at:?}"));
            }
        }
    }

    /// What a turn tells of estimates is what it has measured, beside the version that the order is at;
    /// and of no order more often than may be.
    fn promised(&mut self, world: &World, turn: &TurnCommit) {
        for new in &turn.estimates {
            world.observer.saw("estimates told");
            let told = at_once(world.disk.estimates(new.id)).unwrap_or_default();
            let last = told.last().map(|last| (last.version, last.at, last.estimate));
            let known = self.known.get(&new.id);
            let is_newest =
                known.is_some_and(|k| k.client == new.client && k.facts.len() == new.version as usize);
            if last != Some((new.version, new.at, new.estimate)) || !is_newest {
                world.violated("INV-5", format!("{new:?} is not what the disk says: {told:?}"));
            }
            if known.is_some_and(|known| known.ended.is_some()) {
                world.violated("INV-5", format!("{} is done, and is estimated", new.id));
            }
            if told.len() > usize::from(promise::TOLD_MAX) {
                world.violated("INV-5", format!("{} is estimated {} times", new.id, told.len()));
            }
            let before = told.len().checked_sub(2).and_then(|before| told.get(before));
            // Where the clock was set back nobody can tell how long the last one stands.
            let soon = |at: Timestamp| new.at >= at && new.at.since(at) < TOLD_ANEW_AFTER;
            if before.is_some_and(|before| soon(before.at)) {
                world.violated("INV-5", format!("{} is estimated anew too soon: {told:?}", new.id));
            }
        }
    }

    /// A position is what the facts make of it: INV-3 and INV-4.
    fn position(&self, world: &World, key: &StockOf, position: Position) {
        let (PartitionId(partition), client, sku) = key;
        let sums = self.stock.get(key).copied().unwrap_or_default();
        let name = format!("{sku} of {client:?} in partition {partition}");
        let shipped = u64::try_from(sums.shipped).unwrap_or_default();
        let found = invariants::nothing_reserved_twice(&name, &position)
            .or_else(|| invariants::stock_conserved(&name, &position, sums.moved, shipped));
        if let Some(Violation { id, found }) = found {
            world.violated(id, found);
        }
        for (what, stored, folded) in [
            ("reserved", position.reserved, sums.reserved),
            ("backordered", position.backordered, sums.backordered),
            ("suspect", position.suspect, sums.missing - sums.cleared),
        ] {
            if i64::try_from(stored) != Ok(folded) {
                world.violated("INV-3", format!("{name}: {stored} {what} stored, {folded} by the facts"));
            }
        }
    }
}

impl Known {
    /// Applies new facts, and says what they move.
    fn apply(&mut self, world: &World, stored: &StoredTransaction, facts: &[Recorded]) -> Vec<(Sku, Sums)> {
        let mut moved = Vec::new();
        let before = self.order.as_ref().map(Order::footprint).unwrap_or_default();
        for recorded in facts {
            if let Some(state) = self.ended {
                let (id, fact) = (stored.id, &recorded.fact);
                world.violated("INV-7", format!("{id} is {} and then {fact:?}", state.as_str()));
                return moved;
            }
            match &recorded.fact {
                Fact::Accepted(_) => {}
                Fact::Order(fact) => {
                    let Some(order) = &mut self.order else { continue };
                    order.apply(fact, recorded.at);
                    self.ended = order.state().is_final().then(|| order.state());
                }
                Fact::Move(fact) => {
                    self.ended = Some(crate::domain::movement::state_after(*fact));
                    moved.extend(moved_by(&stored.command, *fact));
                }
                Fact::Cancellation(fact) => {
                    self.ended = Some(crate::domain::cancellation::state_after(fact));
                }
                Fact::Manifest(fact) => {
                    let departed = *fact == crate::domain::fact::ManifestFact::Departed;
                    self.ended = departed.then_some(State::Departed);
                }
            }
        }
        if let Some(order) = &self.order {
            if let Some(Violation { id, found }) = invariants::ships_at_most_once(order) {
                world.violated(id, found);
            }
            let after = order.footprint();
            let changed = before.iter().zip(&after).filter(|(was, is)| was != is);
            moved.extend(changed.map(|(was, is)| (is.sku.clone(), Sums::between(was, is))));
        }
        moved
    }
}

/// What a move's decision did to its position.
fn moved_by(command: &Command, fact: MoveFact) -> Option<(Sku, Sums)> {
    let Command::Move(command) = command else { return None };
    let (counted, cleared) = match fact {
        MoveFact::Rejected => return None,
        MoveFact::Applied => (0, 0),
        MoveFact::Replenished { cleared } => (0, cleared),
        MoveFact::Counted { delta, cleared } => (delta, cleared),
    };
    let moved = match command.change {
        Change::Receipt { quantity } => i64::from(quantity),
        Change::Adjustment { delta, reason: _ } => i64::from(delta),
        Change::Count { counted: _ } => counted,
    };
    let cleared = i64::try_from(cleared).unwrap_or(i64::MAX);
    Some((command.sku.clone(), Sums { moved, cleared, ..Sums::default() }))
}

impl Sums {
    fn between(was: &Footprint, is: &Footprint) -> Sums {
        let by = |was: u64, is: u64| is as i64 - was as i64;
        Sums {
            reserved: by(was.reserved, is.reserved),
            backordered: by(was.backordered, is.backordered),
            missing: by(was.missing, is.missing),
            shipped: by(was.shipped, is.shipped),
            moved: 0,
            cleared: 0,
        }
    }

    fn add(&mut self, by: Sums) {
        self.reserved += by.reserved;
        self.backordered += by.backordered;
        self.missing += by.missing;
        self.shipped += by.shipped;
        self.moved += by.moved;
        self.cleared += by.cleared;
    }
}
