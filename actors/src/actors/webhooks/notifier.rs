//! The supervisor of webhook endpoints. It takes no orders: whenever it is told to look, it reads
//! what the store says of all endpoints and makes the actors agree with it, at the start as ever
//! after. A dead one is started again from the store, with pauses that grow.

use actix::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;
use tokio::time::Instant;

use super::endpoint::{Endpoint, Finish, GATE, Refresh};
use crate::actors::gate::Door;
use crate::actors::home::Home;
use crate::actors::report::{Observed, Phase};
use crate::actors::site::Node;
use crate::actors::tripwire::{Stop, Tripwire};
use crate::domain::endpoint::EndpointId;
use crate::domain::spread::Charge;
use crate::ports::endpoints::{Standing, StoredEndpoint};
use crate::ports::faults::FaultPoint;

/// A word to look may be lost with the Notifier that it was said to.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// The pause after a store call that did not go through.
const RETRY: Duration = Duration::from_secs(1);
/// The pause before an endpoint's first restart; doubles with each death.
const BACK_OFF: Duration = Duration::from_millis(10);
/// The longest pause.
const BACK_OFF_MAX: Duration = Duration::from_secs(30);
/// An endpoint that lived this long is forgiven its deaths.
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);
/// Rows of a deleted endpoint that are dropped at a time.
const PURGE_MAX: usize = 500;

/// Look at what the store says.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(super) struct Look;

/// Ends the endpoints in order.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct End;

/// An endpoint's actor is gone.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
struct ChildDown {
    id: EndpointId,
    start: u64,
    panicked: bool,
}

/// An endpoint's actor, or the pause before the next one.
struct Child {
    start: u64,
    addr: Option<Addr<Endpoint>>,
    revision: u64,
    since: Instant,
    deaths: u32,
    /// It has ended because it was to.
    ended: Arc<AtomicBool>,
}

/// The actor.
pub(crate) struct Notifier {
    node: Arc<Node>,
    homes: Vec<Home>,
    children: BTreeMap<EndpointId, Child>,
    starts: u64,
    looking: bool,
    look_again: bool,
    _tripwire: Tripwire,
}

impl Notifier {
    pub(crate) fn new(node: Arc<Node>, homes: Vec<Home>, tripwire: Tripwire) -> Notifier {
        let children = BTreeMap::new();
        Notifier { node, homes, children, starts: 0, looking: false, look_again: false, _tripwire: tripwire }
    }

    fn look(&mut self, ctx: &mut Context<Self>) {
        if self.node.is_ending() {
            return;
        }
        if std::mem::replace(&mut self.looking, true) {
            self.look_again = true;
            return;
        }
        let found = self.node.store.endpoints();
        ctx.spawn(found.into_actor(self).map(|found, notifier, ctx| {
            let _handling = notifier.node.hooks.notifier.handle();
            notifier.node.faults.strike(FaultPoint::NotifierAgrees, None);
            notifier.looking = false;
            match found {
                Ok(found) => notifier.agree(found, ctx),
                Err(why) => {
                    tracing::error!(%why, "the store cannot say which webhook endpoints there are; tried again");
                    ctx.run_later(RETRY, |notifier, ctx| notifier.look(ctx));
                }
            }
            if std::mem::take(&mut notifier.look_again) {
                notifier.look(ctx);
            }
        }));
    }

    /// Makes the actors agree with the store.
    fn agree(&mut self, found: Vec<StoredEndpoint>, ctx: &mut Context<Self>) {
        for endpoint in found {
            let endpoint = Arc::new(endpoint);
            if !self.holds(&endpoint) {
                self.give_away(endpoint.id);
                continue;
            }
            match (self.children.get_mut(&endpoint.id), endpoint.standing) {
                (Some(Child { addr: Some(addr), revision, .. }), _) => {
                    if *revision != endpoint.revision {
                        *revision = endpoint.revision;
                        addr.do_send(Refresh(endpoint));
                    }
                }
                (Some(Child { addr: None, .. }) | None, Standing::Deleted) => {
                    self.children.remove(&endpoint.id);
                    self.purge(endpoint, ctx);
                }
                (Some(Child { addr: None, .. }), Standing::Enabled) => {}
                (None, Standing::Enabled) => self.start(&endpoint, 0, ctx),
                (Some(Child { addr: None, .. }) | None, Standing::Disabled(_)) => {
                    self.children.remove(&endpoint.id);
                }
            }
        }
        self.show();
    }

    fn holds(&self, endpoint: &StoredEndpoint) -> bool {
        self.node.ownership.holds(Charge::endpoints_of(endpoint.client))
    }

    /// Another node is to work it.
    fn give_away(&mut self, id: EndpointId) {
        match self.children.get(&id) {
            Some(Child { addr: Some(addr), .. }) => addr.do_send(Finish),
            Some(Child { addr: None, .. }) => {
                self.children.remove(&id);
                self.node.hooks.hook(id).phase_is(Phase::Asleep);
            }
            None => {}
        }
    }

    fn start(&mut self, endpoint: &StoredEndpoint, deaths: u32, ctx: &mut Context<Self>) {
        if self.node.is_ending() {
            return;
        }
        let (id, client, revision) = (endpoint.id, endpoint.client, endpoint.revision);
        let hook = self.node.hooks.hook(id);
        hook.vitals.begins();
        hook.phase_is(Phase::Starting);
        self.starts += 1;
        let start = self.starts;
        let notifier = ctx.address().recipient::<ChildDown>();
        let tripwire = Tripwire::new(move |panicked| notifier.do_send(ChildDown { id, start, panicked }));
        // An endpoint never moves: it lives on the same thread after every start.
        let place = usize::try_from(id.0.as_u128() % self.homes.len() as u128).unwrap_or(0);
        let (node, own) = (self.node.clone(), hook.clone());
        let ended = Arc::new(AtomicBool::new(false));
        let word = ended.clone();
        let addr = self.homes[place].start(move |_| Endpoint::new(node, own, client, id, word, tripwire));
        hook.door_is(Some(Door::new(addr.clone(), GATE, &hook.vitals)));
        let child = Child { start, addr: Some(addr), revision, since: Instant::now(), deaths, ended };
        self.children.insert(id, child);
    }

    /// Drops the rows of a deleted endpoint, some at a time, so that nobody waits behind them.
    fn purge(&mut self, endpoint: Arc<StoredEndpoint>, ctx: &mut Context<Self>) {
        self.node.hooks.forget(endpoint.id);
        let purged = self.node.store.purge_endpoint(endpoint.client, endpoint.id, PURGE_MAX);
        ctx.spawn(purged.into_actor(self).map(move |purged, notifier, ctx| match purged {
            Ok(n) if n >= PURGE_MAX => notifier.purge(endpoint, ctx),
            Ok(_) => {}
            // The next look finds it again.
            Err(why) => tracing::warn!(%why, "a deleted webhook endpoint was not purged to its end"),
        }));
    }

    fn show(&self) {
        let running = self.children.values().filter(|child| child.addr.is_some()).count();
        self.node.hooks.notifier.show(Observed::Notifier { running, down: self.children.len() - running });
    }
}

impl Actor for Notifier {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.node.hooks.supervisor_is(ctx.address().recipient());
        // The endpoints of an earlier Notifier ended with it: the epoch keeps
        // their last words out.
        for (_, hook) in self.node.hooks.all() {
            if let Some(door) = hook.door() {
                door.addr().do_send(Stop);
            }
            hook.phase_is(Phase::Asleep);
        }
        self.look(ctx);
        ctx.run_interval(LOOK_EVERY, |notifier, ctx| notifier.look(ctx));
    }
}

impl Handler<Look> for Notifier {
    type Result = ();

    fn handle(&mut self, _: Look, ctx: &mut Self::Context) {
        let _handling = self.node.hooks.notifier.handle();
        self.node.faults.strike(FaultPoint::NotifierLooks, None);
        self.look(ctx);
    }
}

impl Handler<ChildDown> for Notifier {
    type Result = ();

    fn handle(&mut self, ChildDown { id, start, panicked }: ChildDown, ctx: &mut Self::Context) {
        let _handling = self.node.hooks.notifier.handle();
        self.node.faults.strike(FaultPoint::NotifierChildDown, None);
        let Some(child) = self.children.get_mut(&id).filter(|child| child.start == start) else { return };
        let hook = self.node.hooks.hook(id);
        hook.door_is(None);
        child.addr = None;
        if child.ended.load(SeqCst) || self.node.is_ending() {
            self.children.remove(&id);
            hook.phase_is(Phase::Asleep);
            hook.waiting_is(0);
            // Whatever was asked of it while it ended.
            self.look(ctx);
            return;
        }
        let cause = hook.vitals.died(panicked, self.node.now()).as_str();
        hook.phase_is(Phase::Down);
        child.deaths = if child.since.elapsed() >= FORGIVEN_AFTER { 1 } else { child.deaths + 1 };
        let deaths = child.deaths;
        let pause = BACK_OFF.saturating_mul(1 << (deaths - 1).min(16)).min(BACK_OFF_MAX);
        tracing::warn!(endpoint = %id, cause, pause_ms = pause.as_millis(), "a webhook endpoint's actor is gone and starts again");
        ctx.run_later(pause, move |notifier, ctx| notifier.restart(id, deaths, ctx));
        self.show();
    }
}

impl Notifier {
    /// Starts a dead endpoint again, unless it is to be no more.
    fn restart(&mut self, id: EndpointId, deaths: u32, ctx: &mut Context<Self>) {
        let found = self.node.store.endpoints();
        ctx.spawn(found.into_actor(self).map(move |found, notifier, ctx| match found {
            Ok(found) => {
                notifier.children.remove(&id);
                let own = found.iter().find(|e| e.id == id && e.standing == Standing::Enabled);
                if let Some(endpoint) = own.filter(|endpoint| notifier.holds(endpoint)) {
                    notifier.start(endpoint, deaths, ctx);
                }
                notifier.agree(found, ctx);
            }
            Err(why) => {
                tracing::error!(%why, "the store cannot say which webhook endpoints there are; tried again");
                ctx.run_later(RETRY, move |notifier, ctx| notifier.restart(id, deaths, ctx));
            }
        }));
    }
}

impl Handler<End> for Notifier {
    type Result = ();

    fn handle(&mut self, _: End, _: &mut Self::Context) {
        let _handling = self.node.hooks.notifier.handle();
        self.node.faults.strike(FaultPoint::NotifierEnds, None);
        for (id, child) in &self.children {
            match &child.addr {
                Some(addr) => addr.do_send(Finish),
                // Nobody waits for one that is not started again.
                None => self.node.hooks.hook(*id).phase_is(Phase::Asleep),
            }
        }
    }
}
