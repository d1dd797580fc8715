//! What clients do to the node, and what they may rely on afterwards.

use futures_util::future::join_all;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::World;
use super::life::Nodes;
use super::shops;
use super::submissions::{CLIENTS, SKUS, Writer, sku};
use crate::domain::command::{Change, Command};
use crate::domain::fact::{Accepted, Fact, Recorded};
use crate::domain::ids::{ClientNo, PartitionId, TransactionId};
use crate::engine::{Handle, Submission};
use crate::ports::clock::Clock;
use crate::ports::entropy::Entropy;
use crate::ports::store::{Digest, NewCommand, Verdict};
use crate::store::format;

/// Orders in a burst, at most: twice a backlog.
const BURST_MAX: u64 = 24;
/// The longest lull, in milliseconds: longer than a tree stays awake for nothing.
const LULL_MS: u64 = 400_000;

/// The clients.
pub(crate) struct Workload {
    pub(crate) world: Arc<World>,
    step: usize,
    /// Submissions, so that they can be repeated word for word.
    said: Vec<Submission>,
    /// What was acknowledged: it must be found.
    pub(crate) acknowledged: BTreeMap<TransactionId, Said>,
    by_name: BTreeMap<Name, TransactionId>,
}

/// What makes a command one command.
pub(crate) type Name = (ClientNo, String);

/// An acknowledged command.
#[derive(Clone)]
pub(crate) struct Said {
    pub(crate) name: Name,
    pub(crate) digest: Digest,
    pub(crate) is_order: bool,
}

impl Said {
    fn of(submission: &Submission) -> Said {
        let Submission { client, command, ship_to, .. } = submission;
        Said {
            name: (*client, format!("{} {}", command.kind().as_str(), command.reference())),
            digest: format::digest(command, ship_to.as_ref()),
            is_order: matches!(command, Command::Order(_)),
        }
    }
}

impl Workload {
    pub(crate) fn new(world: Arc<World>) -> Workload {
        Workload { world, step: 0, said: Vec::new(), acknowledged: BTreeMap::new(), by_name: BTreeMap::new() }
    }

    /// Does the next `steps` steps, or all that are left.
    pub(crate) async fn run(&mut self, nodes: &mut Nodes, steps: usize) {
        let mut left = steps;
        while self.step < self.world.profile.steps && left > 0 && !self.world.observer.is_broken() {
            self.step += 1;
            left -= 1;
            nodes.tick().await;
            self.step_clock();
            let webhooks = self.world.profile.webhooks;
            if webhooks && self.step == 1 {
                shops::open(&self.world, nodes.front()).await;
            }
            self.act(nodes.front()).await;
            if webhooks && self.world.chance.below(4) == 0 {
                shops::act(&self.world, nodes.front()).await;
            }
            let lull = self.world.strikes(self.world.profile.lulls);
            tokio::time::sleep(self.world.pause(if lull { LULL_MS } else { 120 })).await;
        }
    }

    fn step_clock(&self) {
        let world = &self.world;
        if world.strikes(world.profile.clock_steps) {
            let by = match world.chance.below(4) {
                0 => world.chance.below(3 * 3_600_000),
                _ => world.chance.below(5 * 60_000),
            };
            let by = i64::try_from(by).unwrap_or_default();
            world.observer.saw("clock steps");
            world.note(format_args!("the clock steps by {by} ms"));
            world.clock.step(if world.chance.below(2) == 0 { by } else { -by });
        }
    }

    fn writer<'a>(&self, world: &'a World, handle: &'a Handle) -> Writer<'a> {
        Writer { world, handle, step: self.step }
    }

    async fn act(&mut self, handle: &Handle) {
        let world = self.world.clone();
        let (chance, write) = (&world.chance, self.writer(&world, handle));
        let reference = format!("o{}", self.step);
        let batches = match chance.below(21) {
            0..=7 => vec![vec![write.order(write.client(), write.home(), &reference)]],
            8..=11 => vec![vec![write.movement()]],
            12..=13 => match self.own_order(chance.next()) {
                Some((client, order)) => vec![vec![write.cancellation(client, order)]],
                None => vec![vec![write.movement()]],
            },
            14..=16 => match self.said.get(chance.below(self.said.len().max(1) as u64) as usize) {
                Some(said) => vec![vec![said.clone()]],
                None => vec![vec![write.movement()]],
            },
            17 => {
                // Twice at the same time, and in one batch: whoever is first, it is one command.
                let order = write.order(write.client(), write.home(), &reference);
                vec![vec![order.clone(), order.clone()], vec![order]]
            }
            18 => return self.say_otherwise(handle).await,
            19 => self.burst(&write),
            _ => return self.operate(handle).await,
        };
        self.submit_all(handle, batches).await;
    }

    /// More orders of one warehouse than its lane takes, in batches that arrive together.
    fn burst(&self, write: &Writer<'_>) -> Vec<Vec<Submission>> {
        let chance = &self.world.chance;
        let (home, n) = (write.home(), 2 + chance.below(BURST_MAX));
        let order = |i| write.order(write.client(), home, &format!("o{}-{i}", self.step));
        let mut orders: Vec<Submission> = (0..n).map(order).collect();
        // A duplicate in the same batch.
        orders.push(orders[chance.below(n) as usize].clone());
        let at = chance.below(n) as usize;
        let rest = orders.split_off(at);
        vec![orders, rest]
    }

    /// An acknowledged order and its client.
    fn own_order(&self, any: u64) -> Option<(&'static str, TransactionId)> {
        let orders: Vec<_> = self.acknowledged.iter().filter(|(_, said)| said.is_order).collect();
        let (id, said) = orders.get(any.checked_rem(orders.len() as u64)? as usize)?;
        let ClientNo(client) = said.name.0;
        Some((CLIENTS.get(client as usize - 1)?, **id))
    }

    /// The reference of an acknowledged order with other content: it is refused, and nothing else.
    async fn say_otherwise(&mut self, handle: &Handle) {
        let world = self.world.clone();
        let Some((client, id)) = self.own_order(world.chance.next()) else { return };
        let reference = self.acknowledged[&id].name.1.trim_start_matches("order ").to_owned();
        let mut other = self.writer(&world, handle).order(client, id.home(), &reference);
        other.key = None;
        if let Command::Order(command) = &mut other.command {
            command.metadata.insert("other".to_owned(), "yes".to_owned());
        }
        let Ok(submitted) = handle.submit(vec![other]).await else { return };
        for submitted in submitted {
            match submitted.verdict {
                Verdict::ReferenceConflict(found) if found == id => {}
                Verdict::Unavailable | Verdict::Unknown => {}
                Verdict::New
                | Verdict::Replay(_)
                | Verdict::ReferenceConflict(_)
                | Verdict::KeyReused
                | Verdict::BacklogFull
                | Verdict::StoreFull => {
                    let found = format!("{reference} with other content met {:?}", submitted.verdict);
                    world.violated("INV-1", found);
                }
            }
        }
    }

    /// Submits batches at the same time, and takes in what was answered.
    async fn submit_all(&mut self, handle: &Handle, batches: Vec<Vec<Submission>>) {
        self.said.extend(batches.iter().flatten().cloned());
        let before = self.by_name.clone();
        let said: Vec<Vec<Said>> = batches.iter().map(|b| b.iter().map(Said::of).collect()).collect();
        let answers = join_all(batches.into_iter().map(|batch| handle.submit(batch))).await;
        for (said, answer) in said.into_iter().zip(answers) {
            let Ok(submitted) = answer else { continue };
            for (said, submitted) in said.into_iter().zip(submitted) {
                // Copies that are under way together may be judged in any order.
                let was_known = before.contains_key(&said.name);
                self.answered(said, submitted.verdict, submitted.id, was_known);
            }
        }
    }

    fn answered(&mut self, said: Said, verdict: Verdict, id: Option<TransactionId>, was_known: bool) {
        let known = self.by_name.get(&said.name).copied();
        let id = match verdict {
            Verdict::New | Verdict::Replay(_) => id,
            Verdict::ReferenceConflict(_) | Verdict::KeyReused => {
                let found = format!("{:?} repeated word for word met {verdict:?}", said.name);
                return self.world.violated("INV-1", found);
            }
            Verdict::BacklogFull | Verdict::StoreFull if was_known => {
                let found = format!("{:?} is acknowledged and a repeat met {verdict:?}", said.name);
                return self.world.violated("INV-1", found);
            }
            Verdict::BacklogFull | Verdict::StoreFull | Verdict::Unavailable | Verdict::Unknown => None,
        };
        let Some(id) = id else { return };
        if known.is_some_and(|known| known != id) {
            self.world.violated("INV-1", format!("{:?} is {known:?} and {id}", said.name));
        }
        self.by_name.insert(said.name.clone(), id);
        if self.acknowledged.insert(id, said).is_none() {
            self.world.observer.saw("acknowledged");
        }
    }

    /// After the faults: stock for everybody, and every unknown outcome asked again.
    pub(crate) async fn provide(&mut self, nodes: &Nodes) {
        for said in self.said.clone() {
            self.submit_all(nodes.front(), vec![vec![said]]).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.stock_up(nodes).await;
    }

    /// More of every SKU than all orders want.
    pub(crate) async fn stock_up(&mut self, nodes: &Nodes) {
        self.step += 1;
        let (world, step) = (self.world.clone(), self.step);
        for client in CLIENTS {
            for home in (1..=world.profile.warehouses).map(PartitionId) {
                let write = self.writer(&world, nodes.front());
                let receipts = (0..SKUS).map(|n| {
                    let (change, name) =
                        (Change::Receipt { quantity: 1_000 }, format!("s{step}-{}-{n}", home.0));
                    write.movement_of(client, home, sku(n), change, &name)
                });
                let receipts = receipts.collect();
                self.submit_all(nodes.front(), vec![receipts]).await;
            }
        }
    }

    /// Has the store accept an order whose taker died before it could nudge the owner.
    pub(crate) async fn slip_in(&mut self, nodes: &Nodes) {
        self.step += 1;
        let world = self.world.clone();
        let write = self.writer(&world, nodes.front());
        let submission = write.order(write.client(), write.home(), &format!("o{}", self.step));
        let said = Said::of(&submission);
        let Submission { client, home, key, command, ship_to, correlation, trace } = submission;
        let at = world.clock.now();
        let new = NewCommand {
            id: TransactionId::new(at, home, world.chance.next()),
            client,
            key,
            digest: said.digest,
            command,
            ship_to,
            accepted: Recorded { at, fact: Fact::Accepted(Accepted { correlation, trace }) },
            backlog_max: u64::MAX,
        };
        let id = new.id;
        let verdict = world.accept(vec![new])[0];
        self.answered(said, verdict, Some(id), false);
    }

    /// Sends each warehouse an order through the front door, and names them.
    pub(crate) async fn last_orders(&mut self, nodes: &Nodes) -> Vec<TransactionId> {
        self.step += 1;
        let world = self.world.clone();
        let before: Vec<TransactionId> = self.acknowledged.keys().copied().collect();
        for home in (1..=world.profile.warehouses).map(PartitionId) {
            let write = self.writer(&world, nodes.front());
            let order = write.order(write.client(), home, &format!("o{}-{}", self.step, home.0));
            self.submit_all(nodes.front(), vec![vec![order]]).await;
        }
        self.acknowledged.keys().filter(|id| !before.contains(id)).copied().collect()
    }
}
