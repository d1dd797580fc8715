//! What clients do to the node, and what they may rely on afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::World;
use crate::domain::command::{
    Allocation, CancellationCommand, Change, Command, MoveCommand, OrderCommand, OrderLine, Priority,
};
use crate::domain::fact::{Accepted, Fact, Recorded};
use crate::domain::ids::{PartitionId, Sku, TransactionId};
use crate::domain::invariants::Violation;
use crate::domain::order::Order;
use crate::domain::state::State;
use crate::engine::{Handle, Submission};
use crate::ports::clock::Clock;
use crate::ports::entropy::Entropy;
use crate::ports::store::{DeadKind, Lookup, NewCommand, Store, StoredTransaction, Verdict};
use crate::store::check::check;
use crate::store::format;

/// SKUs of the world: few, so that orders meet.
const SKUS: u64 = 4;
/// Once faults have healed everything must come to rest within this much simulated time: a poisoned
/// tree's longest pause (30 s) several times over.
const REST_WITHIN: Duration = Duration::from_secs(1_800);

/// The clients.
pub(crate) struct Workload {
    world: Arc<World>,
    step: usize,
    /// Submissions by name, so that they can be repeated word for word.
    said: Vec<Submission>,
    /// What was acknowledged: it must be found.
    acknowledged: BTreeMap<TransactionId, String>,
    by_reference: BTreeMap<String, TransactionId>,
    shipped: usize,
}

impl Workload {
    pub(crate) fn new(world: Arc<World>) -> Workload {
        Workload {
            world,
            step: 0,
            said: Vec::new(),
            acknowledged: BTreeMap::new(),
            by_reference: BTreeMap::new(),
            shipped: 0,
        }
    }

    pub(crate) fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }

    pub(crate) fn shipped(&self) -> usize {
        self.shipped
    }

    /// Does the next `steps` steps, or all that are left.
    pub(crate) async fn run(&mut self, handle: &Handle, steps: usize) {
        let mut left = steps;
        while self.step < self.world.profile.steps && left > 0 {
            self.step += 1;
            left -= 1;
            self.act(handle).await;
            tokio::time::sleep(self.world.pause(120)).await;
        }
    }

    async fn act(&mut self, handle: &Handle) {
        let chance = &self.world.chance;
        let submission = match chance.below(10) {
            0..=4 => self.order(handle),
            5..=6 => self.receipt(handle, 1 + chance.below(12) as u32),
            7 => match self.cancellation(handle) {
                Some(cancellation) => cancellation,
                None => self.order(handle),
            },
            _ => match self.said.get(chance.below(self.said.len().max(1) as u64) as usize) {
                Some(said) => said.clone(),
                None => self.receipt(handle, 5),
            },
        };
        self.submit(handle, vec![submission]).await;
    }

    async fn submit(&mut self, handle: &Handle, batch: Vec<Submission>) {
        self.said.extend(batch.iter().cloned());
        let names: Vec<String> = batch.iter().map(name).collect();
        let Ok(submitted) = handle.submit(batch).await else { return };
        for (name, submitted) in names.into_iter().zip(submitted) {
            let id = match submitted.verdict {
                Verdict::New | Verdict::Replay(_) => submitted.id,
                Verdict::ReferenceConflict(_) | Verdict::KeyReused => {
                    self.violated(
                        "INV-1",
                        format!("{name} repeated word for word met {:?}", submitted.verdict),
                    );
                    None
                }
                Verdict::BacklogFull | Verdict::StoreFull | Verdict::Unavailable | Verdict::Unknown => None,
            };
            let Some(id) = id else { continue };
            if let Some(before) = self.by_reference.insert(name.clone(), id)
                && before != id
            {
                self.violated("INV-1", format!("{name} is {before} and {id}"));
            }
            self.acknowledged.insert(id, name);
        }
    }

    fn submission(&self, handle: &Handle, home: PartitionId, command: Command) -> Submission {
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        Submission {
            client: handle.client("acme").expect("the client is registered"),
            home,
            key: None,
            command,
            ship_to: None,
            correlation: format!("step-{}", self.step).parse().expect("letters and digits"),
            trace: trace.parse().expect("the standard's own example"),
        }
    }

    fn home(&self) -> PartitionId {
        PartitionId(1 + self.world.chance.below(u64::from(self.world.profile.warehouses)) as u16)
    }

    fn sku(n: u64) -> Sku {
        format!("SKU-{n}").parse().expect("a short name")
    }

    fn order(&self, handle: &Handle) -> Submission {
        let chance = &self.world.chance;
        let allocation = [Allocation::ShipComplete, Allocation::ShipPartial, Allocation::FillOrKill]
            [chance.below(3) as usize];
        let now = self.world.clock.now();
        let later =
            |c: u64| (chance.below(8) == 0).then(|| now.after(Duration::from_millis(chance.below(c))));
        let lines = (1..=1 + chance.below(3) as u32)
            .map(|line| OrderLine {
                line,
                sku: Workload::sku(chance.below(SKUS)),
                quantity: 1 + chance.below(3) as u32,
            })
            .collect();
        let command = Command::Order(OrderCommand {
            reference: format!("o{}", self.step).parse().expect("a short name"),
            warehouse: None,
            service_level: ["ground", "express"][chance.below(2) as usize].to_owned(),
            allocation,
            priority: Priority(chance.below(10) as u8),
            not_before: later(3_000),
            requested_ship_by: later(60_000),
            lines,
            metadata: BTreeMap::new(),
        });
        self.submission(handle, self.home(), command)
    }

    fn receipt(&self, handle: &Handle, quantity: u32) -> Submission {
        let sku = Workload::sku(self.world.chance.below(SKUS));
        self.receipt_of(handle, self.home(), sku, quantity, format!("r{}", self.step))
    }

    fn receipt_of(
        &self,
        handle: &Handle,
        home: PartitionId,
        sku: Sku,
        quantity: u32,
        name: String,
    ) -> Submission {
        let command = Command::Move(MoveCommand {
            reference: name.parse().expect("a short name"),
            warehouse: format!("{home:?}"),
            sku,
            change: Change::Receipt { quantity },
        });
        self.submission(handle, home, command)
    }

    fn cancellation(&self, handle: &Handle) -> Option<Submission> {
        let chance = &self.world.chance;
        let orders: Vec<_> = self.acknowledged.iter().filter(|(_, name)| name.starts_with("order")).collect();
        let (order, _) = orders.get(chance.below(orders.len() as u64) as usize)?;
        let lines = (chance.below(3) == 0).then(|| vec![1]);
        let command = Command::Cancellation(CancellationCommand {
            reference: format!("c{}", self.step).parse().expect("a short name"),
            order: **order,
            lines,
        });
        Some(self.submission(handle, order.home(), command))
    }

    /// After the faults: stock for everybody, and every unknown outcome asked again.
    pub(crate) async fn provide(&mut self, handle: &Handle) {
        for said in self.said.clone() {
            self.submit(handle, vec![said]).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for home in 1..=self.world.profile.warehouses {
            for n in 0..SKUS {
                let name = format!("last-{home}-{n}");
                let receipt = self.receipt_of(handle, PartitionId(home), Workload::sku(n), 1_000, name);
                self.submit(handle, vec![receipt]).await;
            }
        }
    }

    /// Has the store accept an order whose taker died before it could nudge the owner.
    pub(crate) async fn slip_in(&mut self, handle: &Handle) {
        self.step += 1;
        let submission = self.order(handle);
        let Submission { client, home, key, command, ship_to, correlation, trace } = submission.clone();
        let at = self.world.clock.now();
        let new = NewCommand {
            id: TransactionId::new(at, home, self.world.chance.next()),
            client,
            key,
            digest: format::digest(&command, ship_to.as_ref()),
            command,
            ship_to,
            accepted: Recorded { at, fact: Fact::Accepted(Accepted { correlation, trace }) },
            backlog_max: u64::MAX,
        };
        let id = new.id;
        if self.world.disk.accept(vec![new]).await.reply == [Verdict::New] {
            self.acknowledged.insert(id, name(&submission));
        }
    }

    /// Waits for the node to come to rest by itself.
    pub(crate) async fn rest(&mut self, handle: &Handle) {
        let until = self.world.clock.now().after(REST_WITHIN);
        while self.world.clock.now() < until {
            if self.unfinished().await.is_empty() && handle.unready().is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        for (id, state) in self.unfinished().await {
            self.violated(
                "INV-1",
                format!("{} {id} is still {} at rest", self.acknowledged[&id], state.as_str()),
            );
        }
        for partition in handle.unready() {
            self.violated("INV-1", format!("{partition:?} has work and no owner at rest"));
        }
    }

    /// Acknowledged transactions that are neither final nor dead letters.
    async fn unfinished(&self) -> Vec<(TransactionId, State)> {
        let mut unfinished = Vec::new();
        for id in self.acknowledged.keys() {
            match self.world.disk.transaction(*id).await {
                Ok(Some(Lookup::Live(stored))) => {
                    let state = state_of(&stored);
                    if !state.is_final() && state != State::Failed {
                        unfinished.push((*id, state));
                    }
                }
                Ok(_) | Err(_) => {
                    self.violated("INV-1", format!("{} {id} is not found", self.acknowledged[id]))
                }
            }
        }
        unfinished
    }

    /// Holds the store against the invariants, and counts.
    pub(crate) async fn judge(&mut self) {
        for violation in check(&self.world.disk).await {
            self.world.observer.violated(violation);
        }
        for home in 1..=self.world.profile.warehouses {
            let letters = self.world.disk.dead_letters(PartitionId(home), 0, 1_000).await.unwrap_or_default();
            // The world's WMS does what it is asked: what cannot be booked of it was lost.
            for (_, letter) in letters.iter().filter(|(_, l)| l.kind == DeadKind::Confirmation) {
                self.violated("INV-2", format!("{}: {}", letter.reason, letter.detail));
            }
        }
        let mut shipped = BTreeSet::new();
        for id in self.acknowledged.keys() {
            if let Ok(Some(Lookup::Live(stored))) = self.world.disk.transaction(*id).await
                && state_of(&stored) == State::Shipped
            {
                shipped.insert(*id);
            }
        }
        self.shipped = shipped.len();
    }

    fn violated(&self, id: &'static str, found: String) {
        self.world.observer.violated(Violation { id, found });
    }
}

/// The kind and the reference: what makes a command one command.
fn name(submission: &Submission) -> String {
    format!("{} {}", submission.command.kind().as_str(), submission.command.reference())
}

fn state_of(stored: &StoredTransaction) -> State {
    let accepted = stored.facts.first().map(|f| f.at).unwrap_or_default();
    let mut state = State::Accepted;
    let mut order = match &stored.command {
        Command::Order(command) => Some(Order::new(stored.id, command, accepted)),
        Command::Move(_) | Command::Cancellation(_) | Command::Manifest(_) => None,
    };
    for recorded in &stored.facts {
        match (&recorded.fact, &mut order) {
            (Fact::Order(fact), Some(order)) => {
                order.apply(fact, recorded.at);
                state = order.state();
            }
            (Fact::Move(fact), _) => state = crate::domain::movement::state_after(*fact),
            (Fact::Cancellation(fact), _) => state = crate::domain::cancellation::state_after(fact),
            (Fact::Accepted(_) | Fact::Manifest(_) | Fact::Order(_), _) => {}
        }
    }
    state
}
