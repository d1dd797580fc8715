//! How a House gets warehouses and gives them away, where several nodes share a store. It renews the
//! node's lease, writes the next assignment when the last no longer fits who is there, and makes what
//! this node works agree with it.
//!
//! A warehouse moves in four steps, and every one of them may be lost:
//!
//! | step | by | if it is lost |
//! |---|---|---|
//! | the assignment names another node | any node | the next look writes it |
//! | the node before stops the tree and says so | the one that gives it away | the next one waits no longer than [`HANDOVER`] |
//! | every fence is made void | the one that gets it | it is tried again until it is done |
//! | a tree starts when there is work | the one that gets it | as after any death |
//!
//! A node that died says nothing and is not waited for: its lease is over. One that only seems dead
//! meets its void fence at the next commit.

use actix::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

use super::desk::Tree as TreeState;
use super::house::{House, Tree};
use super::options::Snapshot;
use super::tripwire::Stop;
use super::webhooks::ping_here;
use crate::domain::ids::PartitionId;
use crate::domain::spread::{Charge, NodeId, spread};
use crate::ports::faults::FaultPoint;
use crate::ports::membership::{Member, RenewError, Roster, Word};
use crate::ports::store::CommitError;

/// How often a lease is renewed and the others are looked at: some times within the shortest lease.
pub(super) const RENEW_EVERY: Duration = Duration::from_secs(1);
/// A node that could not renew its lease for longer than this judges nobody for [`STEADY_FOR`].
const GAP_MAX: Duration = Duration::from_secs(3);
/// So long must a node have renewed its lease without a gap before it takes another one for dead: when
/// the store was away, all leases are over, and the others need a moment to say that they live.
const STEADY_FOR: Duration = Duration::from_secs(3);
/// How long a warehouse's new node waits for the word of the one before, while that one lives.
const HANDOVER: Duration = Duration::from_millis(500);
/// Every so many looks a node that is not alone asks the store who has work: the word of it may be lost.
const OPEN_EVERY: u32 = 5;
/// Every so many looks a node publishes what it knows of its warehouses even when nothing has changed.
const PUBLISH_ALL_EVERY: u32 = 10;

/// What the House remembers of its leases and of what moves.
#[derive(Default)]
pub(super) struct Tenure {
    renewing: bool,
    again: bool,
    /// Since when the lease was renewed without a gap, and when last.
    steady: Option<(Instant, Instant)>,
    /// What is assigned to this node and not its own yet.
    coming: BTreeMap<Charge, Coming>,
    /// What other nodes have let go of, and when they said so: often before this node has read that it
    /// is to have it.
    let_go: BTreeMap<PartitionId, Instant>,
    published: BTreeMap<PartitionId, Snapshot>,
    looks: u32,
    /// Another process lives under this node's id.
    replaced: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coming {
    /// A living node has it still.
    Awaited,
    /// Its fences are being made void.
    Taking,
}

impl Tenure {
    /// Whether others may be judged.
    fn is_steady(&self, now: Instant) -> bool {
        self.steady.is_some_and(|(since, last)| {
            now.duration_since(last) <= GAP_MAX && now.duration_since(since) >= STEADY_FOR
        })
    }

    fn renewed(&mut self, at: Instant) {
        let since = match self.steady {
            Some((since, last)) if at.duration_since(last) <= GAP_MAX => since,
            Some(_) | None => at,
        };
        self.steady = Some((since, at));
    }
}

impl House {
    /// Begins to renew the lease and to hear the other nodes.
    pub(super) fn join(&mut self, ctx: &mut Context<Self>) {
        let Some(membership) = self.node.ownership.membership().cloned() else { return };
        let words = futures_util::stream::unfold(membership.listen(), |mut words| async move {
            match words.recv().await {
                Ok(word) => Some((word, words)),
                Err(RecvError::Lagged(_)) => Some((Word::Missed, words)),
                Err(RecvError::Closed) => None,
            }
        });
        ctx.spawn(words.into_actor(self).map(|word, house, ctx| house.heard(word, ctx)).finish());
        ctx.run_interval(RENEW_EVERY, |house, ctx| {
            house.tenure.looks = house.tenure.looks.wrapping_add(1);
            house.renew(ctx);
            house.publish();
            if house.tenure.looks.is_multiple_of(OPEN_EVERY) && house.node.ownership.has_others() {
                house.open(ctx, false);
            }
        });
        // What was said before this House listened.
        self.heard(Word::Missed, ctx);
    }

    /// Renews the lease, reads who is there and goes by it.
    pub(super) fn renew(&mut self, ctx: &mut Context<Self>) {
        let Some(membership) = self.node.ownership.membership() else { return };
        if std::mem::replace(&mut self.tenure.renewing, true) {
            self.tenure.again = true;
            return;
        }
        let asked = Instant::now();
        let renewed = membership.renew(self.node.is_ending(), self.tenure.is_steady(asked));
        ctx.spawn(renewed.into_actor(self).map(move |renewed, house, ctx| {
            house.node.faults.strike(FaultPoint::HouseAgrees, None);
            house.tenure.renewing = false;
            match renewed {
                Ok(roster) => {
                    house.tenure.renewed(asked);
                    house.tenure.replaced = false;
                    house.agree(roster, ctx);
                }
                Err(RenewError::Replaced) => house.yield_all(),
                // What it owns it goes on working: the fences say whether it may.
                Err(RenewError::Commit(why)) => {
                    tracing::warn!(%why, "the node's lease is not renewed; tried again")
                }
            }
            if std::mem::take(&mut house.tenure.again) {
                house.renew(ctx);
            }
        }));
    }

    /// Goes by a roster, and has it fit who is there.
    fn agree(&mut self, roster: Roster, ctx: &mut Context<Self>) {
        let Some(membership) = self.node.ownership.membership().cloned() else { return };
        let me = membership.me();
        self.assign(&roster, ctx);
        let mine: BTreeSet<Charge> =
            roster.homes.iter().filter(|(_, home)| **home == me).map(|(charge, _)| *charge).collect();
        let members = roster.members.clone();
        let before = self.node.ownership.read(roster);
        if let Some(before) = &before {
            for gone in before.members.iter().filter(|m| members.iter().all(|now| now.id != m.id)) {
                tracing::warn!(node = %gone.name, "a node is gone");
            }
        }
        for lost in self.node.ownership.held().difference(&mine) {
            self.give_away(*lost);
        }
        self.tenure.coming.retain(|charge, _| mine.contains(charge));
        let new = |charge: &&Charge| {
            !self.node.ownership.holds(**charge) && !self.tenure.coming.contains_key(charge)
        };
        let gained: Vec<Charge> = mine.iter().filter(new).copied().collect();
        if !gained.is_empty() {
            self.get(gained, before.as_ref(), &members, ctx);
        }
    }

    /// Writes the next assignment when this one does not fit who is there.
    fn assign(&self, roster: &Roster, ctx: &mut Context<Self>) {
        let Some(membership) = self.node.ownership.membership().cloned() else { return };
        let warehouses = self.node.warehouses.iter().map(|w| Charge::Warehouse(w.partition));
        let charges = warehouses.chain((0..Charge::ENDPOINTS).map(Charge::Endpoints)).collect();
        let staying = roster.members.iter().filter(|member| !member.leaving).map(|member| member.id);
        let homes = spread(&roster.homes, &charges, &staying.collect());
        if homes == roster.homes {
            return;
        }
        let assigned = membership.assign(roster.version, homes);
        ctx.spawn(assigned.into_actor(self).map(|assigned: Result<bool, CommitError>, house, ctx| {
            match assigned {
                Ok(is_ours) => {
                    if is_ours {
                        house.node.ownership.tell(|| Word::Roster);
                    }
                    house.renew(ctx);
                }
                // The next look finds the same.
                Err(why) => tracing::warn!(%why, "warehouses are not assigned anew; tried again"),
            }
        }));
    }

    /// Gets what is assigned to this node: at once what nobody alive has had, the rest when its node has
    /// let go of it.
    fn get(
        &mut self,
        gained: Vec<Charge>,
        before: Option<&Roster>,
        members: &[Member],
        ctx: &mut Context<Self>,
    ) {
        let Some(me) = self.node.ownership.me() else { return };
        let others: BTreeSet<NodeId> = members.iter().map(|m| m.id).filter(|id| *id != me).collect();
        let (mut free, mut awaited) = (Vec::new(), Vec::new());
        for charge in gained {
            let partition = match charge {
                Charge::Endpoints(_) => {
                    // Whoever has delivered for them meets the epoch of the next one.
                    self.node.ownership.hold(charge);
                    continue;
                }
                Charge::Warehouse(partition) => partition,
            };
            let is_free = match before.map(|roster| roster.homes.get(&charge)) {
                Some(Some(owner)) => !others.contains(owner),
                // It never had one.
                Some(None) => true,
                // Nobody knows whose it was.
                None => others.is_empty(),
            };
            let said = self.tenure.let_go.remove(&partition);
            if is_free || said.is_some_and(|at| at.elapsed() < HANDOVER) {
                free.push(partition);
            } else {
                self.tenure.coming.insert(charge, Coming::Awaited);
                awaited.push(partition);
            }
        }
        self.node.hooks.look();
        self.take(free, ctx);
        if !awaited.is_empty() {
            ctx.run_later(HANDOVER, move |house, ctx| house.released(awaited, ctx));
        }
    }

    /// The node before has let go of it.
    fn heard_released(&mut self, partition: PartitionId, ctx: &mut Context<Self>) {
        if self.tenure.coming.contains_key(&Charge::Warehouse(partition)) {
            self.released(vec![partition], ctx);
        } else {
            self.tenure.let_go.insert(partition, Instant::now());
        }
    }

    /// The node before has let go of these, or is not waited for any more.
    fn released(&mut self, mut partitions: Vec<PartitionId>, ctx: &mut Context<Self>) {
        let awaits =
            |p: &PartitionId| self.tenure.coming.get(&Charge::Warehouse(*p)) == Some(&Coming::Awaited);
        partitions.retain(awaits);
        self.take(partitions, ctx);
    }

    /// Makes the fences of all earlier owners void, and then works these.
    fn take(&mut self, partitions: Vec<PartitionId>, ctx: &mut Context<Self>) {
        let Some(membership) = self.node.ownership.membership() else { return };
        if partitions.is_empty() {
            return;
        }
        let charges: Vec<Charge> = partitions.iter().map(|p| Charge::Warehouse(*p)).collect();
        self.tenure.coming.extend(charges.iter().map(|charge| (*charge, Coming::Taking)));
        let deposed = membership.depose(partitions);
        ctx.spawn(deposed.into_actor(self).map(move |deposed, house, ctx| match deposed {
            Ok(()) => {
                // Some may be assigned to another node by now.
                for charge in charges.iter().filter(|charge| house.tenure.coming.remove(charge).is_some()) {
                    house.node.ownership.hold(*charge);
                }
                house.open(ctx, true);
            }
            Err(why) => {
                tracing::warn!(warehouses = charges.len(), %why, "warehouses are not taken over yet; tried again");
                ctx.run_later(RENEW_EVERY, move |house, ctx| house.take_again(&charges, ctx));
            }
        }));
    }

    fn take_again(&mut self, charges: &[Charge], ctx: &mut Context<Self>) {
        let still = charges.iter().filter(|charge| self.tenure.coming.contains_key(charge));
        let partitions = still.filter_map(|charge| match charge {
            Charge::Warehouse(partition) => Some(*partition),
            Charge::Endpoints(_) => None,
        });
        let partitions = partitions.collect();
        self.take(partitions, ctx);
    }

    /// Another node is to work it.
    fn give_away(&mut self, charge: Charge) {
        self.node.ownership.let_go(charge);
        match charge {
            Charge::Endpoints(_) => self.node.hooks.look(),
            Charge::Warehouse(partition) => {
                self.tenure.published.remove(&partition);
                if let Some(desk) = self.node.desks.get(&partition) {
                    desk.tree_is(TreeState::Asleep);
                }
                match self.trees.remove(&partition) {
                    Some(Tree::Running { start, warehouse } | Tree::Leaving { start, warehouse }) => {
                        warehouse.do_send(Stop);
                        self.trees.insert(partition, Tree::Leaving { start, warehouse });
                    }
                    Some(Tree::Down) | None => self.node.ownership.tell(|| Word::Released(partition)),
                }
            }
        }
    }

    /// Another process lives under this node's id: this one is in charge of nothing.
    fn yield_all(&mut self) {
        if !std::mem::replace(&mut self.tenure.replaced, true) {
            tracing::error!(
                "another process has this node's id and so its directory: this one works nothing any more"
            );
        }
        self.tenure.coming.clear();
        for charge in self.node.ownership.held() {
            self.give_away(charge);
        }
    }

    /// Tells the others how this node's warehouses stand.
    fn publish(&mut self) {
        let ownership = &self.node.ownership;
        let all = self.tenure.looks.is_multiple_of(PUBLISH_ALL_EVERY);
        for (partition, desk) in self.node.desks.iter().filter(|(p, _)| ownership.holds_warehouse(**p)) {
            let snapshot = desk.snapshot();
            let before = self.tenure.published.insert(*partition, snapshot);
            if all && desk.vitals_if_any().is_some() || before.is_some_and(|before| before != snapshot) {
                ownership.tell(|| Word::Published {
                    partition: *partition,
                    // Numbers, times and truths can always be written.
                    snapshot: serde_json::to_string(&snapshot).unwrap_or_default(),
                });
            }
        }
    }

    /// Another node has said something.
    fn heard(&mut self, word: Word, ctx: &mut Context<Self>) {
        let _handling = self.node.house.handle();
        self.node.faults.strike(FaultPoint::HouseHears, None);
        let node = &self.node;
        match word {
            Word::Missed => {
                node.waiters.wake_all();
                node.bell.ring_all();
                node.hooks.look();
                self.open(ctx, false);
                self.renew(ctx);
            }
            Word::Roster => self.renew(ctx),
            Word::Wrote { partition, queued, transactions, clients } => {
                if queued
                    && node.ownership.holds_warehouse(partition)
                    && let Some(desk) = node.desks.get(&partition)
                {
                    desk.nudge();
                }
                transactions.into_iter().for_each(|id| node.waiters.wake(id));
                clients.into_iter().for_each(|client| node.bell.ring(client));
            }
            Word::Fed(client) => node.bell.ring(client),
            Word::Endpoints => node.hooks.look(),
            Word::Released(partition) => self.heard_released(partition, ctx),
            Word::Published { partition, snapshot } => {
                if !node.ownership.holds_warehouse(partition)
                    && let Some(desk) = node.desks.get(&partition)
                    && let Ok(snapshot) = serde_json::from_str(&snapshot)
                {
                    desk.show(snapshot);
                }
            }
            Word::Ping { endpoint, wish, correlation, traceparent } => {
                let (Ok(correlation), Ok(trace)) = (correlation.parse(), traceparent.parse()) else { return };
                // Who does not have it says nothing: another node has.
                if node.hooks.has(endpoint) {
                    let node = node.clone();
                    let pinged = async move {
                        let granted = ping_here(&node, endpoint, &correlation, &trace).await.is_ok();
                        node.ownership.tell(|| Word::Answer { wish, granted });
                    };
                    ctx.spawn(pinged.into_actor(self));
                }
            }
            Word::Answer { wish, granted } => node.ownership.answered(wish, granted),
        }
    }
}
