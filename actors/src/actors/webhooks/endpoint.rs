//! One webhook endpoint: it takes its deliveries over, reads its client's feed, makes attempts,
//! records what came of them, and ends when there is nothing to send to any more.
//!
//! All it must not forget is in the store. What it decides is decided in [`super::queue`]; here is
//! only when something is read, posted and recorded. At most one record is under way, so what
//! happens meanwhile goes into the next: that is the batch.

use actix::prelude::*;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use super::attempt::{Attempted, Message};
use super::held::Held;
use super::hooks::Hook;
use crate::actors::bell::Listener;
use crate::actors::gate::Gated;
use crate::actors::report::{Cause, Observed, Phase};
use crate::actors::site::Node;
use crate::actors::tripwire::{Stop, Tripwire};
use crate::domain::endpoint::EndpointId;
use crate::domain::ids::ClientNo;
use crate::ports::endpoints::{Deliveries, StoredEndpoint};
use crate::ports::faults::FaultPoint;
use crate::ports::store::{CommitError, ReadError};

/// Pings that may wait for an endpoint.
pub(super) const GATE: usize = 16;
/// A ring of the bell may be lost with who was to ring it.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// A store that takes longer is not there; the Notifier tries again.
const TAKE_WITHIN: Duration = Duration::from_secs(60);
/// The pause after a store call that did not go through.
pub(super) const RETRY: Duration = Duration::from_secs(1);
/// How long an ordered end waits for attempts that are under way.
const END_WITHIN: Duration = Duration::from_secs(2);

/// The endpoint's record has changed: look again.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub(super) struct Refresh(pub(super) Arc<StoredEndpoint>);

/// The node ends: begin nothing more, record what comes back soon.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(super) struct Finish;

/// Post this once, whatever is due.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub(super) struct Ping(pub(super) Box<Message>);

/// The actor.
pub(crate) struct Endpoint {
    pub(super) node: Arc<Node>,
    pub(super) hook: Arc<Hook>,
    client: ClientNo,
    id: EndpointId,
    /// What it works on, once it is taken over.
    pub(super) held: Option<Held>,
    /// Pings that came before that.
    early: VecDeque<Gated<Ping>>,
    finishing: bool,
    /// Set before it ends because it is to; otherwise its end is a death.
    ended: Arc<AtomicBool>,
    _tripwire: Tripwire,
}

/// Why an endpoint could not begin.
#[derive(Debug, thiserror::Error)]
enum TakeError {
    #[error("its deliveries could not be taken over")]
    Take(#[from] CommitError),
    #[error("its deliveries could not be read")]
    Read(#[from] ReadError),
    #[error("the store did not hand over its deliveries in time")]
    Late,
}

async fn take(
    node: Arc<Node>,
    client: ClientNo,
    id: EndpointId,
) -> Result<Option<(u64, Deliveries)>, TakeError> {
    let taking = async {
        let epoch = node.store.take_endpoint(client, id).await?.wait().await?;
        let found = node.store.deliveries(client, id).await?;
        Ok(found.filter(|_| epoch > 0).map(|found| (epoch, found)))
    };
    tokio::time::timeout(TAKE_WITHIN, taking).await.unwrap_or(Err(TakeError::Late))
}

impl Endpoint {
    pub(super) fn new(
        node: Arc<Node>,
        hook: Arc<Hook>,
        client: ClientNo,
        id: EndpointId,
        ended: Arc<AtomicBool>,
        tripwire: Tripwire,
    ) -> Endpoint {
        let (held, early) = (None, VecDeque::new());
        Endpoint { node, hook, client, id, held, early, finishing: false, ended, _tripwire: tripwire }
    }

    fn begin(&mut self, epoch: u64, found: Deliveries, ctx: &mut Context<Self>) {
        self.held = Some(Held::new(epoch, found));
        self.hook.phase_is(Phase::Running);
        let listener = self.node.bell.listen(self.client);
        self.listen(listener, ctx);
        ctx.run_interval(LOOK_EVERY, |endpoint, ctx| endpoint.look(ctx));
        for ping in std::mem::take(&mut self.early) {
            self.ping(ping, ctx);
        }
        self.go_on(ctx);
    }

    /// Waits for the bell again and again.
    fn listen(&mut self, mut listener: Listener, ctx: &mut Context<Self>) {
        let heard = async move {
            listener.heard().await;
            listener
        };
        ctx.spawn(heard.into_actor(self).map(|listener, endpoint, ctx| {
            endpoint.rung(ctx);
            endpoint.listen(listener, ctx);
        }));
    }

    /// The feed has grown.
    fn rung(&mut self, ctx: &mut Context<Self>) {
        let _handling = self.hook.vitals.handle();
        if let Some(held) = &mut self.held {
            held.ring();
        }
        self.go_on(ctx);
    }

    /// Time has passed, and there may be more in the feed.
    fn look(&mut self, ctx: &mut Context<Self>) {
        let _handling = self.hook.vitals.handle();
        if let Some(held) = &mut self.held {
            held.look();
        }
        self.go_on(ctx);
    }

    /// True while attempts may begin.
    pub(super) fn may_begin(&self) -> bool {
        !self.finishing
    }

    /// Ends in order once nothing is left to record.
    pub(super) fn end_if_done(&mut self, ctx: &mut Context<Self>) -> bool {
        let Some(held) = &self.held else { return false };
        let ends = held.is_disabled() || (self.finishing && held.queue.flying() == 0);
        if ends && held.is_recorded() {
            self.end(ctx);
        }
        ends
    }

    /// Ends because it is to.
    pub(super) fn end(&mut self, ctx: &mut Context<Self>) {
        self.ended.store(true, SeqCst);
        ctx.stop();
    }

    /// Ends because of the store; a fresh one reads what is there.
    pub(super) fn die(&mut self, cause: Cause, ctx: &mut Context<Self>) {
        self.hook.vitals.foretell(cause, None);
        ctx.stop();
    }

    /// Shows what it holds.
    pub(super) fn show(&self) {
        let Some(held) = &self.held else { return };
        self.hook.waiting_is(held.queue.len());
        self.hook.vitals.show(Observed::Endpoint {
            cursor: held.queue.cursor(),
            waiting: held.queue.len(),
            under_way: held.queue.flying(),
            breaker_open: held.queue.is_open(),
            replays: held.replays.len(),
        });
    }

    /// Posts a ping; its place behind the gate is taken until it is answered.
    fn ping(&mut self, Gated { message, permit }: Gated<Ping>, ctx: &mut Context<Self>) {
        let Some(held) = &self.held else { return };
        let posted = super::attempt::post(self.node.clone(), held.endpoint.clone(), *message.0, 1);
        let posted = async move {
            let attempted = posted.await;
            drop(permit);
            attempted
        };
        ctx.spawn(posted.into_actor(self).map(|attempted: Attempted, endpoint, ctx| {
            let _handling = endpoint.hook.vitals.handle();
            if let Some(held) = &mut endpoint.held {
                held.log(attempted.attempt);
            }
            endpoint.go_on(ctx);
        }));
    }
}

impl Actor for Endpoint {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let _handling = self.hook.vitals.handle();
        let taking = take(self.node.clone(), self.client, self.id);
        ctx.spawn(taking.into_actor(self).map(|taken, endpoint, ctx| {
            let _handling = endpoint.hook.vitals.handle();
            endpoint.node.faults.strike(FaultPoint::EndpointBegins, None);
            match taken {
                Ok(Some((epoch, found))) => endpoint.begin(epoch, found, ctx),
                // It was deleted meanwhile.
                Ok(None) => endpoint.end(ctx),
                Err(why) => {
                    let cause = match &why {
                        TakeError::Take(why) => why.into(),
                        TakeError::Read(_) | TakeError::Late => Cause::Unreadable,
                    };
                    let source = std::error::Error::source(&why).map(ToString::to_string);
                    tracing::error!(endpoint = %endpoint.id, %why, source, "a webhook endpoint cannot begin");
                    endpoint.die(cause, ctx);
                }
            }
        }));
    }
}

impl Handler<Refresh> for Endpoint {
    type Result = ();

    fn handle(&mut self, Refresh(endpoint): Refresh, ctx: &mut Self::Context) {
        let _handling = self.hook.vitals.handle();
        self.node.faults.strike(FaultPoint::EndpointRefreshed, None);
        if let Some(held) = &mut self.held {
            held.refresh(endpoint);
            self.read_replays(ctx);
        }
        self.go_on(ctx);
    }
}

impl Handler<Gated<Ping>> for Endpoint {
    type Result = ();

    fn handle(&mut self, ping: Gated<Ping>, ctx: &mut Self::Context) {
        let _handling = self.hook.vitals.handle();
        self.node.faults.strike(FaultPoint::Endpoint, None);
        match self.held {
            Some(_) => self.ping(ping, ctx),
            None => self.early.push_back(ping),
        }
    }
}

impl Handler<Finish> for Endpoint {
    type Result = ();

    fn handle(&mut self, _: Finish, ctx: &mut Self::Context) {
        self.node.faults.strike(FaultPoint::EndpointFinishes, None);
        self.finishing = true;
        if self.held.is_none() {
            self.end(ctx);
            return;
        }
        ctx.run_later(END_WITHIN, |endpoint, ctx| endpoint.end(ctx));
        self.go_on(ctx);
    }
}

impl Handler<Stop> for Endpoint {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        self.end(ctx);
    }
}
