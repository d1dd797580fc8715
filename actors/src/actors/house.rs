//! The root supervisor of a node: starts trees when there is work, starts them again when they
//! die, puts them to sleep when nothing happens, and sweeps what is past its retention.

use actix::prelude::*;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::desk::{Tree as TreeState, Wake};
use super::home::Home;
use super::options::Rules;
use super::site::{Node, Site};
use super::tenure::Tenure;
use super::tripwire::{Stop, Tripwire};
use super::warehouse::Warehouse;
use crate::domain::ids::PartitionId;
use crate::ports::faults::FaultPoint;
use crate::ports::membership::Word;
use crate::ports::store::CommitError;
use crate::ports::wms::Wms;

/// How often the House looks around.
const TICK: Duration = Duration::from_secs(1);
/// A tree that did nothing for this long and has nothing due is put to sleep.
const SLEEP_AFTER: Duration = Duration::from_secs(300);
/// A tree whose next deadline is nearer than this stays awake.
const SLEEP_AT_LEAST: Duration = Duration::from_secs(60);
/// Restarts within [`BUDGET_WINDOW`] before the House only tries every [`RETRY`].
const BUDGET: usize = 10;
/// Deaths older than this are forgiven.
const BUDGET_WINDOW: Duration = Duration::from_secs(60);
/// The pause before the first restart; doubles with each death in the window.
const BACK_OFF: Duration = Duration::from_millis(10);
/// The longest pause within the budget.
const BACK_OFF_MAX: Duration = Duration::from_secs(5);
/// The pause past the budget.
const RETRY: Duration = Duration::from_secs(30);
/// How often the House sweeps and asks the store who has work, and how many transactions at most. More
/// often where events are kept shorter than twice as long.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
const SWEEP_MAX: usize = 1_000;

/// A tree is gone.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
struct TreeDown {
    partition: PartitionId,
    /// Which start of the tree it was.
    start: u64,
    panicked: bool,
}

/// Ends the House and its trees in order.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Drain;

pub(super) enum Tree {
    Running {
        start: u64,
        warehouse: Addr<Warehouse>,
    },
    /// It is told to end: another node is to work its warehouse.
    Leaving {
        start: u64,
        warehouse: Addr<Warehouse>,
    },
    /// Waits for its next start.
    Down,
}

/// The actor.
pub(crate) struct House {
    pub(super) node: Arc<Node>,
    homes: Vec<Home>,
    wms: BTreeMap<PartitionId, Arc<dyn Wms>>,
    pub(super) trees: BTreeMap<PartitionId, Tree>,
    pub(super) tenure: Tenure,
    deaths: BTreeMap<PartitionId, VecDeque<Instant>>,
    starts: u64,
    sweeping: bool,
    /// Ends every tree when the House is gone, also by a panic.
    token: CancellationToken,
    _end: DropGuard,
    _tripwire: Tripwire,
}

impl House {
    pub(crate) fn new(
        node: Arc<Node>,
        homes: Vec<Home>,
        wms: BTreeMap<PartitionId, Arc<dyn Wms>>,
        tripwire: Tripwire,
    ) -> House {
        let token = CancellationToken::new();
        let end = token.clone().drop_guard();
        House {
            node,
            homes,
            wms,
            trees: BTreeMap::new(),
            tenure: Tenure::default(),
            deaths: BTreeMap::new(),
            starts: 0,
            sweeping: false,
            token,
            _end: end,
            _tripwire: tripwire,
        }
    }

    /// Starts a partition's tree unless it runs or waits for its next start, or another node works it.
    fn wake(&mut self, partition: PartitionId, ctx: &mut Context<Self>) {
        let is_ours = self.node.ownership.holds_warehouse(partition);
        if is_ours && !self.node.is_ending() && !self.trees.contains_key(&partition) {
            self.start(partition, ctx);
        }
    }

    fn start(&mut self, partition: PartitionId, ctx: &mut Context<Self>) {
        let warehouse = self.node.warehouses.of(partition);
        let (Some(warehouse), Some(wms), Some(desk)) =
            (warehouse, self.wms.get(&partition), self.node.desks.get(&partition))
        else {
            tracing::error!(partition = partition.0, "work is queued for a warehouse that is not configured");
            return;
        };
        let site = Site {
            node: self.node.clone(),
            warehouse: Arc::new(warehouse.clone()),
            desk: desk.clone(),
            wms: wms.clone(),
            token: self.token.child_token(),
            in_hand: Arc::default(),
        };
        self.starts += 1;
        let start = self.starts;
        desk.vitals().warehouse.begins();
        desk.tree_is(TreeState::Started);
        let house = ctx.address().recipient::<TreeDown>();
        let tripwire = Tripwire::new(move |panicked| house.do_send(TreeDown { partition, start, panicked }));
        // A tree never moves: the same partition lives on the same thread after every start.
        let home = self.homes[usize::from(partition.0) % self.homes.len()].clone();
        let own = home.clone();
        let warehouse = home.start(move |_| Warehouse::new(site, own, tripwire));
        self.trees.insert(partition, Tree::Running { start, warehouse });
    }

    /// The pause before the next start, longer with every death in the window.
    fn pause_after_death(&mut self, partition: PartitionId) -> Duration {
        let deaths = self.deaths.entry(partition).or_default();
        let now = Instant::now();
        deaths.retain(|at| now.duration_since(*at) < BUDGET_WINDOW);
        deaths.push_back(now);
        if deaths.len() > BUDGET {
            return RETRY;
        }
        let doublings = u32::try_from(deaths.len() - 1).unwrap_or(u32::MAX);
        BACK_OFF.saturating_mul(1 << doublings.min(16)).min(BACK_OFF_MAX)
    }

    fn look_around(&mut self, ctx: &mut Context<Self>) {
        let _handling = self.node.house.handle();
        self.node.faults.strike(FaultPoint::HouseLooks, None);
        let now = self.node.now();
        let desks: Vec<_> = self.node.desks.iter().map(|(p, d)| (*p, d.clone())).collect();
        for (partition, desk) in desks {
            let is_ours = self.node.ownership.holds_warehouse(partition);
            let due = is_ours && (desk.is_nudged() || desk.wake_at() <= now);
            desk.look(due);
            match self.trees.get(&partition) {
                None if due => self.wake(partition, ctx),
                Some(Tree::Running { warehouse, .. }) if !due => {
                    let idle = now.since(desk.last_turn()) >= SLEEP_AFTER && desk.is_served();
                    if idle && desk.wake_at() > now.after(SLEEP_AT_LEAST) {
                        // A nudge that falls between, or a turn that ends over it, is seen by
                        // the next look around.
                        warehouse.do_send(Stop);
                        self.trees.remove(&partition);
                        desk.tree_is(TreeState::Asleep);
                    }
                }
                None | Some(Tree::Running { .. } | Tree::Leaving { .. } | Tree::Down) => {}
            }
        }
        self.node.waiters.tidy();
    }

    fn sweep(&mut self, ctx: &mut Context<Self>) {
        // One node sweeps for all.
        if !self.node.ownership.is_first() || std::mem::replace(&mut self.sweeping, true) {
            return;
        }
        let swept = sweep(self.node.clone());
        ctx.spawn(swept.into_actor(self).map(|swept, house, _| {
            house.sweeping = false;
            if let Err(why) = swept {
                tracing::warn!(%why, "the sweep did not go through and is tried again");
            }
        }));
    }

    /// Starts the trees that the store says have something to do, and has those that run look:
    /// whoever accepted a command or a report may have died before it could nudge.
    pub(super) fn open(&mut self, ctx: &mut Context<Self>, until_answered: bool) {
        let due = self.node.store.wake_ups();
        ctx.spawn(due.into_actor(self).map(move |due, house, ctx| match due {
            Ok(due) => {
                let now = house.node.now();
                for (partition, at) in due {
                    if !house.node.ownership.holds_warehouse(partition) {
                        continue;
                    }
                    let Some(desk) = house.node.desks.get(&partition) else { continue };
                    if desk.is_served() {
                        if at <= now {
                            desk.nudge();
                        }
                    } else {
                        desk.due_at(at, now);
                    }
                }
                house.look_around(ctx);
            }
            Err(why) => {
                tracing::error!(%why, "the store cannot say which warehouses have work; tried again");
                if until_answered {
                    ctx.run_later(TICK, |house, ctx| house.open(ctx, true));
                }
            }
        }));
    }
}

/// Ages what is past its retention, in bounded steps. Events first: none may point at a transaction
/// that is gone, so what a transaction's age is measured by is the time from before.
async fn sweep(node: Arc<Node>) -> Result<(), CommitError> {
    let now = node.now();
    let Rules { retention, events_retention, .. } = node.rules;
    let events = events_retention.min(retention);
    // A full step found at least so many: there may be more.
    while node.store.sweep_feeds(now, events, SWEEP_MAX).await? >= SWEEP_MAX {}
    while node.store.sweep(now, retention, SWEEP_MAX).await? >= SWEEP_MAX {}
    Ok(())
}

impl Actor for House {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        for desk in self.node.desks.values() {
            desk.house_is(ctx.address().recipient());
            // The trees of an earlier House ended with it.
            desk.tree_is(TreeState::Asleep);
        }
        self.join(ctx);
        self.open(ctx, true);
        ctx.run_interval(TICK, |house, ctx| house.look_around(ctx));
        let every = (self.node.rules.events_retention / 2).clamp(TICK, SWEEP_EVERY);
        ctx.run_interval(every, |house, ctx| {
            house.sweep(ctx);
            house.open(ctx, false);
        });
    }
}

impl Handler<Wake> for House {
    type Result = ();

    fn handle(&mut self, Wake(partition): Wake, ctx: &mut Self::Context) {
        let _handling = self.node.house.handle();
        self.node.faults.strike(FaultPoint::House, Some(partition));
        self.wake(partition, ctx);
    }
}

impl Handler<TreeDown> for House {
    type Result = ();

    fn handle(&mut self, down: TreeDown, ctx: &mut Self::Context) {
        let TreeDown { partition, start, panicked } = down;
        let _handling = self.node.house.handle();
        self.node.faults.strike(FaultPoint::HouseTreeDown, Some(partition));
        match self.trees.get(&partition) {
            Some(Tree::Running { start: running, .. }) if *running == start => {}
            Some(Tree::Leaving { start: leaving, .. }) if *leaving == start => {
                self.trees.remove(&partition);
                self.node.ownership.tell(|| Word::Released(partition));
                // It may have come back meanwhile.
                self.open(ctx, false);
                return;
            }
            // It was put to sleep, or a later start runs already.
            Some(Tree::Running { .. } | Tree::Leaving { .. } | Tree::Down) | None => return,
        }
        self.trees.insert(partition, Tree::Down);
        if self.node.is_ending() {
            // An ordered end is no death.
            if let Some(desk) = self.node.desks.get(&partition) {
                desk.tree_is(TreeState::Asleep);
            }
            return;
        }
        let cause = self.node.desks.get(&partition).map(|desk| {
            desk.tree_is(TreeState::Down);
            let cause = desk.vitals().warehouse.died(panicked, self.node.now());
            cause.as_str()
        });
        let pause = self.pause_after_death(partition);
        // Another node may have taken it.
        self.renew(ctx);
        tracing::warn!(
            partition = partition.0,
            panicked,
            cause,
            pause_ms = pause.as_millis(),
            "a warehouse's tree is gone and starts again"
        );
        ctx.run_later(pause, move |house, ctx| {
            house.trees.remove(&partition);
            house.wake(partition, ctx);
        });
    }
}

impl Handler<Drain> for House {
    type Result = ();

    fn handle(&mut self, _: Drain, ctx: &mut Self::Context) {
        self.node.faults.strike(FaultPoint::HouseDrains, None);
        // A commit in flight is durable or not at all; what was not acted on is owed at the next start.
        self.token.cancel();
        // From here on the lease says that this node leaves.
        self.renew(ctx);
    }
}
