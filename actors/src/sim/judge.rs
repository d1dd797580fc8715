//! What must be true when a node has died, and when the world has come to rest.

use std::time::Duration;

use super::clock::NodeClock;
use super::disk::at_once;
use super::life::Nodes;
use super::operator::letters;
use super::wms::WorldWms;
use super::workload::Workload;
use crate::domain::command::{CancellationCommand, Command};
use crate::domain::fact::Fact;
use crate::domain::ids::{ClientNo, PartitionId, TransactionId};
use crate::domain::state::State;
use crate::domain::time::Timestamp;
use crate::ports::clock::Clock;
use crate::ports::store::{DeadKind, DeadLetter, Store, StoredTransaction};
use crate::store::check::check;

/// Once faults have healed everything must come to rest within this much simulated time, and as
/// much more as the clock was ever ahead: a poisoned tree's longest pause (30 s) several times over,
/// and a release that is asked for and sent again after a silence.
const REST_WITHIN: Duration = Duration::from_secs(1_800);
/// A healthy house looks at an order within this: it needs neither a second look around nor a timer.
const LOOKED_AT_WITHIN: Duration = Duration::from_secs(5);

impl Workload {
    /// Every acknowledged command is found, whole and its client's own (INV-1, INV-8).
    pub(crate) async fn look(&self) {
        for (id, said) in &self.acknowledged {
            match self.world.stored(*id) {
                None => self.violated("INV-1", format!("{:?} {id} is not found", said.name)),
                Some(stored) if stored.client != said.name.0 => {
                    self.violated("INV-8", format!("{:?} {id} is found as {:?}'s", said.name, stored.client));
                }
                Some(stored) if stored.digest != said.digest => {
                    self.violated("INV-1", format!("{:?} {id} is not what was sent", said.name));
                }
                Some(_) => {}
            }
        }
    }

    /// Waits for the node to come to rest by itself.
    pub(crate) async fn rest(&mut self, nodes: &Nodes) {
        let bound = REST_WITHIN + self.world.clock.ahead_max();
        let until = tokio::time::Instant::now() + bound;
        let mut unfinished: Vec<TransactionId> = self.acknowledged.keys().copied().collect();
        while tokio::time::Instant::now() < until && !self.world.observer.is_broken() {
            unfinished.retain(|id| self.standing(*id).is_some());
            // A count that comes late says that there is less.
            if self.redrive(nodes.front()).await {
                self.stock_up(nodes).await;
            }
            if unfinished.is_empty() && nodes.front().unready().is_empty() && self.at_work(nodes).is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        for (id, state) in unfinished.iter().filter_map(|id| Some((id, self.standing(*id)?))) {
            let name = &self.acknowledged[id].name;
            self.violated("INV-1", format!("{name:?} {id} is still {} at rest", state.as_str()));
        }
        for partition in nodes.front().unready() {
            self.violated("INV-1", format!("{partition:?} has work and no owner at rest"));
        }
        for found in self.at_work(nodes) {
            self.violated("INV-1", found);
        }
    }

    /// Warehouses that say that they are at work: no credit is ever lost. An order that failed may
    /// still hold one for a while, when only one of its releases was refused.
    fn at_work(&self, nodes: &Nodes) -> Vec<String> {
        let homes = (1..=self.world.profile.warehouses).map(PartitionId);
        let snapshots = homes.map(|home| (home, nodes.front().snapshot(home)));
        let busy = snapshots.filter(|(_, s)| (s.backlog, s.credits_used) != (0, 0));
        busy.map(|(home, s)| {
            format!("at rest {home:?} has {} waiting and {} credits in use", s.backlog, s.credits_used)
        })
        .collect()
    }

    /// A rested house takes an order up at once, and finishes it: no wake-up is lost, no credit.
    pub(crate) async fn knock(&mut self, nodes: &Nodes) {
        if self.world.observer.is_broken() {
            return;
        }
        let last = self.last_orders(nodes).await;
        // Due by the clock of every node, also of one that is behind.
        let due_by = NodeClock::earliest(self.now());
        tokio::time::sleep(LOOKED_AT_WITHIN).await;
        for id in &last {
            if self.world.stored(*id).is_some_and(|stored| stored.version() == 1 && !waits(&stored, due_by)) {
                self.violated("INV-1", format!("{id} was not looked at within {LOOKED_AT_WITHIN:?}"));
            }
        }
        self.rest(nodes).await;
    }

    fn now(&self) -> Timestamp {
        self.world.clock.now()
    }

    /// The state of a transaction that is neither final nor a dead letter.
    fn standing(&self, id: TransactionId) -> Option<State> {
        let Some(stored) = self.world.stored(id) else {
            self.violated("INV-1", format!("{:?} {id} is not found", self.acknowledged[&id].name));
            return None;
        };
        let state = self.state_of(&stored);
        (!state.is_final() && state != State::Failed).then_some(state)
    }

    fn state_of(&self, stored: &StoredTransaction) -> State {
        let mut state = State::Accepted;
        for recorded in &stored.facts {
            match &recorded.fact {
                Fact::Move(fact) => state = crate::domain::movement::state_after(*fact),
                Fact::Cancellation(fact) => state = crate::domain::cancellation::state_after(fact),
                Fact::Accepted(_) | Fact::Manifest(_) | Fact::Order(_) => {}
            }
        }
        self.world.observer.order(stored.id).map_or(state, |order| order.state())
    }

    /// Holds the store against the invariants and against the books of the WMS, and counts.
    pub(crate) async fn judge(&self, wms: &WorldWms) {
        for violation in check(&self.world.disk).await {
            self.world.observer.violated(violation);
        }
        wms.compare();
        self.world.followers.judge(&self.world);
        for home in (1..=self.world.profile.warehouses).map(PartitionId) {
            // The world's WMS does what it is asked: what cannot be booked of it was lost, unless an
            // operator has ended the order behind its back.
            let lost = |l: &DeadLetter| {
                l.kind == DeadKind::Confirmation && !l.id.is_some_and(|id| self.world.is_given_up(id))
            };
            for (_, letter) in letters(&self.world, home).iter().filter(|(_, l)| lost(l)) {
                self.violated("INV-2", format!("{}: {}", letter.reason, letter.detail));
            }
        }
        for client in [1, 2].map(ClientNo) {
            let listed = at_once(self.world.disk.orders_of(client, None, usize::MAX)).unwrap_or_default();
            if listed != self.world.observer.orders_of(client) {
                self.violated("INV-8", format!("{client:?} is shown other orders than its own"));
            }
        }
        for (id, said) in &self.acknowledged {
            let Some(stored) = self.world.stored(*id) else { continue };
            if let Command::Cancellation(CancellationCommand { order, .. }) = &stored.command
                && self.acknowledged.get(order).is_some_and(|of| of.name.0 != said.name.0)
            {
                self.violated("INV-8", format!("{id} cancels another client's {order}"));
            }
            self.world.observer.saw(match self.state_of(&stored) {
                State::Shipped => "shipped",
                State::Cancelled => "cancelled",
                State::Rejected => "rejected",
                State::Applied => "applied",
                State::Failed => "failed",
                State::Accepted
                | State::Allocated
                | State::Released
                | State::Picking
                | State::Packed
                | State::Manifested
                | State::Backordered
                | State::Closed
                | State::Departed => "unfinished",
            });
        }
    }

    fn violated(&self, id: &'static str, found: String) {
        self.world.violated(id, found);
    }
}

/// True when an order is not to be begun yet.
fn waits(stored: &StoredTransaction, now: Timestamp) -> bool {
    match &stored.command {
        Command::Order(order) => order.not_before.is_some_and(|at| at > now),
        Command::Move(_) | Command::Cancellation(_) | Command::Manifest(_) => false,
    }
}
