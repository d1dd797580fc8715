//! The Pipeline's memory: the open orders and manifests of its warehouse, and what follows from
//! them. All of it is derived: a restart folds it again from the store.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::options::Snapshot;
use super::promises::Promises;
use super::untold::Untold;
use crate::domain::command::{Command, Priority};
use crate::domain::estimate::Pace;
use crate::domain::fact::{Accepted, Fact};
use crate::domain::ids::{
    ClientNo, CorrelationId, Reference, ReleaseId, TraceContext, TransactionId, WaveId,
};
use crate::domain::manifest::Manifest;
use crate::domain::order::Order;
use crate::domain::rank::Rank;
use crate::domain::state::State;
use crate::domain::stock::{Position, StockKey};
use crate::domain::time::Timestamp;
use crate::ports::store::{NewEstimate, PartitionImage, StoredTransaction, StoredWave};

/// An order in hand.
#[derive(Clone, Debug)]
pub(crate) struct OpenOrder {
    pub(crate) client: ClientNo,
    /// The newest version.
    pub(crate) version: u32,
    pub(crate) order: Order,
    pub(crate) reference: Reference,
    pub(crate) priority: Priority,
    pub(crate) correlation: CorrelationId,
    pub(crate) trace: TraceContext,
    /// When its silent releases were last asked for; in memory only, a restart asks again.
    pub(crate) asked_at: Timestamp,
}

/// A closed manifest that has not departed.
#[derive(Clone, Debug)]
pub(crate) struct OpenManifest {
    pub(crate) version: u32,
    pub(crate) manifest: Manifest,
    pub(crate) carrier: String,
    pub(crate) service_level: String,
    pub(crate) closed_at: Timestamp,
    /// The orders with cartons on it.
    pub(crate) orders: BTreeSet<TransactionId>,
}

/// How long the house waits for others.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Waits {
    pub(crate) backorder_max: Duration,
    pub(crate) give_up_after: Duration,
    pub(crate) silent_after: Duration,
}

/// What an order contributes to the indexes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Indexed {
    deadline: Timestamp,
    ready: bool,
    credits: usize,
    asking: bool,
    loading: bool,
    state: State,
}

/// The memory.
#[derive(Debug, Default)]
pub(crate) struct Book {
    orders: BTreeMap<TransactionId, OpenOrder>,
    indexed: BTreeMap<TransactionId, Indexed>,
    deadlines: BTreeSet<(Timestamp, TransactionId)>,
    ready: BTreeSet<Rank>,
    asking: BTreeSet<TransactionId>,
    credits_used: usize,
    by_state: [u32; State::ALL.len()],
    /// Orders with cartons that no manifest has yet.
    loading: usize,
    /// When a wave that is still unanswered is given up.
    give_up: BTreeSet<(Timestamp, WaveId)>,
    waits: Waits,
    /// Manifests that the WMS must load.
    pub(crate) manifests: BTreeMap<TransactionId, OpenManifest>,
    waves: BTreeMap<WaveId, Vec<ReleaseId>>,
    unanswered: BTreeSet<ReleaseId>,
    /// What is measured.
    pub(crate) pace: Pace,
    /// Positions that feeds are to be told of.
    pub(crate) untold: Untold,
    /// What clients know of estimates.
    pub(crate) promises: Promises,
}

/// A stored transaction cannot be folded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unfoldable {
    #[error("it does not begin with an acceptance")]
    Unfounded,
    #[error("its facts contradict each other: {0}")]
    Contradictory(String),
}

/// What an owner found and cannot hold: to be put away with its first turn.
#[derive(Debug, Default)]
pub(crate) struct Aside {
    pub(crate) transactions: Vec<(TransactionId, String)>,
    pub(crate) waves: Vec<(WaveId, String)>,
    /// With what stands in their place.
    pub(crate) positions: Vec<(StockKey, Position, String)>,
}

impl OpenOrder {
    /// Folds a stored order; `None` for other kinds.
    pub(crate) fn fold(stored: &StoredTransaction) -> Result<Option<OpenOrder>, Unfoldable> {
        // A fold sees nothing but its own order, so a panic in it leaves nothing half done.
        catch_unwind(AssertUnwindSafe(|| OpenOrder::folded(stored))).unwrap_or_else(|panic| {
            let words = panic.downcast_ref::<String>().cloned();
            let words = words.or_else(|| panic.downcast_ref::<&str>().map(|&s| s.to_owned()));
            Err(Unfoldable::Contradictory(words.unwrap_or_default()))
        })
    }

    fn folded(stored: &StoredTransaction) -> Result<Option<OpenOrder>, Unfoldable> {
        let Command::Order(command) = &stored.command else { return Ok(None) };
        let (Accepted { correlation, trace }, at) = accepted(stored)?;
        let mut order = Order::new(stored.id, command, at);
        for recorded in &stored.facts {
            if let Fact::Order(fact) = &recorded.fact {
                order.apply(fact, recorded.at);
            }
        }
        Ok(Some(OpenOrder {
            client: stored.client,
            version: stored.version(),
            order,
            reference: command.reference.clone(),
            priority: command.priority,
            correlation,
            trace,
            asked_at: Timestamp::default(),
        }))
    }
}

impl OpenManifest {
    pub(crate) fn fold(stored: &StoredTransaction) -> Option<OpenManifest> {
        let Command::Manifest(command) = &stored.command else { return None };
        let mut manifest = Manifest::default();
        let mut closed_at = Timestamp::default();
        for recorded in &stored.facts {
            if let Fact::Manifest(fact) = recorded.fact {
                manifest.apply(fact);
                closed_at = recorded.at;
            }
        }
        Some(OpenManifest {
            version: stored.version(),
            manifest,
            carrier: command.carrier.clone(),
            service_level: command.service_level.clone(),
            closed_at,
            orders: BTreeSet::new(),
        })
    }
}

fn accepted(stored: &StoredTransaction) -> Result<(Accepted, Timestamp), Unfoldable> {
    match stored.facts.first().map(|r| (&r.fact, r.at)) {
        Some((Fact::Accepted(accepted), at)) => Ok((accepted.clone(), at)),
        Some(_) | None => Err(Unfoldable::Unfounded),
    }
}

impl Book {
    /// Folds everything that is open, and says what cannot be held.
    pub(crate) fn restore(image: &PartitionImage, waits: Waits) -> (Book, Aside) {
        let mut book = Book { waits, ..Book::default() };
        let mut aside = Aside {
            transactions: image.unreadable.clone(),
            waves: image.unreadable_waves.clone(),
            positions: Vec::new(),
        };
        for stored in &image.open {
            match OpenOrder::fold(stored) {
                Ok(Some(order)) => book.insert(order),
                Ok(None) => {
                    if let Some(manifest) = OpenManifest::fold(stored) {
                        book.manifests.insert(stored.id, manifest);
                    }
                }
                Err(why) => aside.transactions.push((stored.id, why.to_string())),
            }
        }
        let placed: Vec<_> =
            book.orders.values().flat_map(|o| o.order.manifests().map(|m| (m, o.order.id))).collect();
        for (manifest, order) in placed {
            if let Some(manifest) = book.manifests.get_mut(&manifest) {
                manifest.orders.insert(order);
            }
        }
        for StoredWave { id, releases } in &image.waves {
            book.wave_out(*id, releases.clone());
        }
        for (key, why) in &image.unreadable_positions {
            aside.positions.push((key.clone(), book.promised(key), why.clone()));
        }
        (book, aside)
    }

    /// A position of which nothing is known but what its orders hold and wait for: that much is taken
    /// to be there, and nothing more is offered.
    fn promised(&self, (client, sku): &StockKey) -> Position {
        let orders = self.orders.values().filter(|o| o.client == *client);
        let lines = orders.flat_map(|o| o.order.footprint()).filter(|line| line.sku == *sku);
        let mut position = Position { known: true, ..Position::default() };
        for line in lines {
            position.reserved += line.reserved;
            position.backordered += line.backordered;
        }
        position.on_hand = i64::try_from(position.reserved).unwrap_or(i64::MAX);
        position
    }

    /// A wave is out; its releases wait for an answer.
    pub(crate) fn wave_out(&mut self, id: WaveId, releases: Vec<ReleaseId>) {
        let given_up = id.at().after(self.waits.give_up_after);
        self.give_up.insert((given_up, id));
        self.unanswered.extend(releases.iter().copied());
        self.waves.insert(id, releases);
    }

    /// A wave is answered; its releases, or `None` when it was answered before.
    pub(crate) fn wave_answered(&mut self, id: WaveId) -> Option<Vec<ReleaseId>> {
        let releases = self.waves.remove(&id)?;
        self.give_up.remove(&(id.at().after(self.waits.give_up_after), id));
        releases.iter().for_each(|release| {
            self.unanswered.remove(release);
        });
        Some(releases)
    }

    /// Waves that have been unanswered for too long; each is named once.
    pub(crate) fn given_up(&mut self, now: Timestamp) -> Vec<WaveId> {
        let late: Vec<_> = self.give_up.iter().take_while(|(at, _)| *at <= now).copied().collect();
        late.into_iter()
            .map(|late| {
                self.give_up.remove(&late);
                late.1
            })
            .collect()
    }

    /// Releases of an order that have been silent for too long.
    pub(crate) fn silent(&self, open: &OpenOrder, now: Timestamp) -> Vec<ReleaseId> {
        let order = open.order.id;
        let unsettled = open.order.unsettled().map(|(n, heard)| (ReleaseId { order, n }, heard));
        unsettled
            .filter(|(release, heard)| {
                let since = (*heard).max(open.asked_at);
                !self.is_unanswered(*release) && since.after(self.waits.silent_after) <= now
            })
            .map(|(release, _)| release)
            .collect()
    }

    /// When the first of its releases has been silent for too long; never while it is kept aside. A
    /// release that waits for its wave's answer counts too: it is looked at in vain once, and then
    /// again.
    fn silent_at(&self, open: &OpenOrder) -> Timestamp {
        if open.order.is_aside() {
            return Timestamp::NEVER;
        }

        let heard = open.order.unsettled().map(|(_, heard)| heard.max(open.asked_at)).min();
        heard.map_or(Timestamp::NEVER, |at| at.after(self.waits.silent_after))
    }

    /// The waves that the WMS has not answered.
    pub(crate) fn waves(&self) -> &BTreeMap<WaveId, Vec<ReleaseId>> {
        &self.waves
    }

    pub(crate) fn order(&self, id: TransactionId) -> Option<&OpenOrder> {
        self.orders.get(&id)
    }

    pub(crate) fn orders(&self) -> impl Iterator<Item = &OpenOrder> {
        self.orders.values()
    }

    /// Takes an order in, or in again after it changed.
    pub(crate) fn insert(&mut self, order: OpenOrder) {
        let id = order.order.id;
        self.unindex(id);
        let now = Indexed {
            deadline: order.order.deadline(self.waits.backorder_max).min(self.silent_at(&order)),
            ready: order.order.ready_for_wave(),
            credits: order.order.credits_used(),
            asking: order.order.cancel_requested() && !order.order.is_aside(),
            loading: order.order.loadable().next().is_some(),
            state: order.order.state(),
        };
        if now.deadline < Timestamp::NEVER {
            self.deadlines.insert((now.deadline, id));
        }
        if now.ready {
            self.ready.insert(order.order.rank);
        }
        if now.asking {
            self.asking.insert(id);
        }
        self.credits_used += now.credits;
        self.by_state[now.state as usize] += 1;
        self.loading += usize::from(now.loading);
        self.indexed.insert(id, now);
        self.orders.insert(id, order);
    }

    /// Lets an order go: to change it, or because it is done.
    pub(crate) fn remove(&mut self, id: TransactionId) -> Option<OpenOrder> {
        self.unindex(id);
        self.orders.remove(&id)
    }

    fn unindex(&mut self, id: TransactionId) {
        let (Some(was), Some(order)) = (self.indexed.remove(&id), self.orders.get(&id)) else { return };
        self.deadlines.remove(&(was.deadline, id));
        self.ready.remove(&order.order.rank);
        self.asking.remove(&id);
        self.credits_used -= was.credits;
        self.by_state[was.state as usize] -= 1;
        self.loading -= usize::from(was.loading);
    }

    /// Orders in hand.
    pub(crate) fn len(&self) -> usize {
        self.orders.len()
    }

    /// How many are in each state.
    pub(crate) fn by_state(&self) -> [u32; State::ALL.len()] {
        self.by_state
    }

    /// Unsettled releases at the WMS.
    pub(crate) fn credits_used(&self) -> usize {
        self.credits_used
    }

    /// Orders about which the WMS is asked to cancel.
    pub(crate) fn asking(&self) -> impl Iterator<Item = TransactionId> {
        self.asking.iter().copied()
    }

    /// Orders that may go into a wave, first in rank first.
    pub(crate) fn ready(&self) -> impl Iterator<Item = TransactionId> {
        self.ready.iter().map(Rank::order)
    }

    pub(crate) fn ready_len(&self) -> usize {
        self.ready.len()
    }

    /// Orders whose deadline is past, at most `max`.
    pub(crate) fn due(&self, now: Timestamp, max: usize) -> Vec<TransactionId> {
        self.deadlines.iter().take_while(|(at, _)| *at <= now).take(max).map(|(_, id)| *id).collect()
    }

    /// True when the order's deadline is past.
    pub(crate) fn is_due(&self, id: TransactionId, now: Timestamp) -> bool {
        self.indexed.get(&id).is_some_and(|indexed| indexed.deadline <= now)
    }

    /// The earliest deadline, or never.
    pub(crate) fn next_deadline(&self) -> Timestamp {
        let order = self.deadlines.first().map_or(Timestamp::NEVER, |(at, _)| *at);
        let wave = self.give_up.first().map_or(Timestamp::NEVER, |(at, _)| *at);
        order.min(wave).min(self.untold.next())
    }

    /// Whose clients are to be told what is estimated now.
    pub(crate) fn promised_anew(&mut self, measured: &Snapshot, now: Timestamp) -> Vec<NewEstimate> {
        self.promises.look(&self.orders, measured, now)
    }

    /// When estimates are looked at next; never while nothing is at the WMS, for then nothing moves.
    pub(crate) fn next_look(&self) -> Timestamp {
        if self.credits_used == 0 { Timestamp::NEVER } else { self.promises.next_at() }
    }

    /// True while the WMS owes an answer, or we owe it a question or a manifest that is still to
    /// close: the tree must stay awake.
    pub(crate) fn owes(&self) -> bool {
        self.credits_used > 0
            || self.loading > 0
            || !self.waves.is_empty()
            || !self.manifests.is_empty()
            || !self.asking.is_empty()
    }

    /// True while the release waits in a wave for the WMS's answer: nothing else is asked about it.
    pub(crate) fn is_unanswered(&self, release: ReleaseId) -> bool {
        self.unanswered.contains(&release)
    }
}
