//! The only public door to the running engine: [`Engine::start`] gives a [`Handle`].

mod keeping;
mod streams;
mod webhooks;

use actix::Addr;
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::ThreadId;
use std::time::Duration;

use crate::actors::bell::Bell;
use crate::actors::census;
use crate::actors::desk::Desk;
pub use crate::actors::events::Event;
use crate::actors::events::EventCache;
use crate::actors::feed_hub::FeedHub;
use crate::actors::gate::{AskError, Door};
use crate::actors::home::Home;
use crate::actors::house::{Drain, House};
use crate::actors::ingestion::{Ingestion, Submit};
use crate::actors::letters;
pub use crate::actors::letters::InstructError;
pub use crate::actors::options::{Rules, Snapshot, Submission, Submitted, WarehouseOptions, Warehouses};
use crate::actors::ownership::Ownership;
pub use crate::actors::report;
use crate::actors::site::Node;
use crate::actors::tallies::Tallies;
use crate::actors::vitals::Vitals;
use crate::actors::waiters::Waiters;
use crate::actors::webhooks::{End, Hooks, Notifier};
pub use crate::actors::webhooks::{NewEndpoint, Office, OfficeError};
use crate::domain::confirmation::Confirmation;
use crate::domain::ids::{ClientNo, PartitionId, TransactionId};
use crate::domain::time::Timestamp;
use crate::ports::BoxFuture;
use crate::ports::clock::Clock;
use crate::ports::entropy::Entropy;
use crate::ports::faults::Faults;
use crate::ports::store::{
    CommitError, Instruction, Lookup, ReadError, RegisterError, Registration, SharedStore,
};
use crate::ports::webhook::Courier;
use crate::ports::wms::{ConfirmationSink, Sink, Wms, WmsError};

use keeping::{homes, keep_house, keep_notifier};
pub use streams::{FeedReader, Listener, Next, Place, TransactionReader};

/// Everything that the engine is started with.
pub struct Options {
    /// Where everything durable is.
    pub store: SharedStore,
    /// The warehouses in configured order.
    pub warehouses: Vec<WarehouseOptions>,
    /// Rules for all of them.
    pub rules: Rules,
    /// Names of the clients that the keys speak for.
    pub clients: Vec<String>,
    /// Where the actors live.
    pub threads: Threads,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Faults, for tests and `demo --crash`.
    pub faults: Arc<dyn Faults>,
    /// Builds a warehouse's WMS; it reports through the sink.
    pub wms: WmsMaker,
    /// Who carries webhooks to their consumers.
    pub courier: Arc<dyn Courier>,
}

/// Builds the WMS of a warehouse.
pub type WmsMaker = Box<dyn Fn(&WarehouseOptions, Sink) -> Arc<dyn Wms>>;

/// Where actors live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// Arbiters of their own, this many; 0 means one for each core.
    Arbiters(usize),
    /// The current thread's `LocalSet`: the seeded world.
    Here,
}

/// Why commands have no verdicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// Nothing was accepted; trying again is safe.
    #[error("too many commands are waiting to be accepted")]
    Overloaded,
    /// They may have been accepted; trying again finds out.
    #[error("the acceptance was interrupted")]
    Interrupted,
}

/// Submissions that one HTTP thread may have under way.
const INGESTION_GATE: usize = 2_048;

/// Starts engines.
pub struct Engine;

impl Engine {
    /// Registers names, starts the House and answers the door. Needs an actix `System` with
    /// [`Threads::Arbiters`], or a `LocalSet` with [`Threads::Here`].
    ///
    /// # Errors
    /// When the store refuses the start, above all for a warehouse whose partition changed.
    pub async fn start(options: Options) -> Result<Handle, RegisterError> {
        let names = Registration {
            warehouses: options.warehouses.iter().map(|w| (w.code.clone(), w.partition)).collect(),
            clients: options.clients,
        };
        let registered = options.store.register(names).await?;
        let paused = options.store.paused().await?;
        let clients: HashMap<String, ClientNo> = registered.clients.iter().cloned().collect();
        let node = Arc::new(Node {
            ownership: Ownership::new(options.store.membership()),
            feed_epoch: options.store.feed_epoch(),
            store: options.store,
            clock: options.clock,
            entropy: options.entropy,
            faults: options.faults,
            client_names: registered.clients.into_iter().map(|(name, no)| (no, name)).collect(),
            clients,
            desks: options
                .warehouses
                .iter()
                .map(|w| (w.partition, Arc::new(Desk::new(w.partition))))
                .collect(),
            waiters: Waiters::new(options.rules.waiters_max),
            bell: Bell::default(),
            events: EventCache::new(),
            hooks: Hooks::new(options.courier, options.rules.webhook_schedule.clone()),
            rules: options.rules,
            warehouses: Warehouses::new(options.warehouses),
            ending: AtomicBool::new(false),
            tallies: Tallies::new(),
            house: Vitals::new(),
            feed_hub: Vitals::new(),
            ingestion: RwLock::default(),
        });
        for partition in paused {
            if let Some(desk) = node.desks.get(&partition) {
                desk.paused_is(true);
            }
        }
        let sink: Sink = Arc::new(ControlDoor { node: node.clone() });
        let wms: BTreeMap<PartitionId, Arc<dyn Wms>> =
            node.warehouses.iter().map(|w| (w.partition, (options.wms)(w, sink.clone()))).collect();
        let homes = homes(options.threads);
        let notifier = keep_notifier(node.clone(), homes.clone());
        let house = keep_house(node.clone(), homes.clone(), wms);
        Ok(Handle(Arc::new(Inner {
            node,
            house,
            notifier,
            homes,
            feed_hub: Mutex::new(None),
            ingestion: RwLock::new(HashMap::new()),
            draining: AtomicBool::new(false),
        })))
    }
}

/// An Ingestion's door, and what is counted of it and of those before it.
type Taker = (Door<Ingestion>, Arc<Vitals>);

/// The engine's public door; cheap to clone.
#[derive(Clone)]
pub struct Handle(Arc<Inner>);

struct Inner {
    node: Arc<Node>,
    house: Arc<Mutex<Addr<House>>>,
    notifier: Arc<Mutex<Addr<Notifier>>>,
    homes: Vec<Home>,
    /// Once somebody has followed a feed; a dead one is replaced by the next who does.
    feed_hub: Mutex<Option<Door<FeedHub>>>,
    /// One Ingestion for each thread that submits; a dead one is replaced by the next call.
    ingestion: RwLock<HashMap<ThreadId, Taker>>,
    draining: AtomicBool,
}

impl Handle {
    /// The warehouses in configured order.
    #[must_use]
    pub fn warehouses(&self) -> &Warehouses {
        &self.0.node.warehouses
    }

    /// The store, for reads; writes go through [`Handle::submit`].
    #[must_use]
    pub fn store(&self) -> &SharedStore {
        &self.0.node.store
    }

    /// The engine's clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.0.node.now()
    }

    /// The engine's randomness, for jitter and fresh correlation ids.
    #[must_use]
    pub fn entropy(&self) -> &Arc<dyn Entropy> {
        &self.0.node.entropy
    }

    /// The number of a client that a key or a request names.
    #[must_use]
    pub fn client(&self, name: &str) -> Option<ClientNo> {
        self.0.node.clients.get(name).copied()
    }

    /// The name of a client.
    #[must_use]
    pub fn client_name(&self, client: ClientNo) -> Option<&str> {
        self.0.node.client_names.get(&client).map(String::as_str)
    }

    /// What the owner of a partition last published.
    #[must_use]
    pub fn snapshot(&self, partition: PartitionId) -> Snapshot {
        self.0.node.desks.get(&partition).map(|d| d.snapshot()).unwrap_or_default()
    }

    /// Accepts commands; resolves when they are durable. Verdicts stand in the order given.
    /// Call it on a thread with a `LocalSet`, as every actix worker has.
    ///
    /// # Errors
    /// [`SubmitError::Overloaded`] when too many are under way, [`SubmitError::Interrupted`] when
    /// Ingestion died over them or before them.
    pub async fn submit(&self, batch: Vec<Submission>) -> Result<Vec<Submitted>, SubmitError> {
        let began = tokio::time::Instant::now();
        match self.ingestion().ask(Submit(batch)).await {
            Ok(submitted) => {
                self.0.node.tallies.answered(began.elapsed());
                Ok(submitted)
            }
            Err(AskError::Refused) => Err(SubmitError::Overloaded),
            Err(AskError::Gone) => Err(SubmitError::Interrupted),
        }
    }

    /// Queues what a WMS reports in the control lane of its warehouse; resolves when it is durable.
    /// Whether it can be true is judged in a later turn.
    ///
    /// # Errors
    /// When it is not known to be durable. Reporting again is always safe.
    pub async fn confirm(
        &self,
        partition: PartitionId,
        reports: Vec<Confirmation>,
    ) -> Result<(), CommitError> {
        confirm(&self.0.node, partition, reports).await
    }

    /// Queues what an operator wants done with a dead letter for the owner of its partition; resolves
    /// when it is durable. Asking again is always safe.
    ///
    /// # Errors
    /// When there is no such letter, when it cannot be done, or when it is not known to be durable.
    pub async fn instruct(&self, partition: PartitionId, asked: Instruction) -> Result<(), InstructError> {
        letters::instruct(&self.0.node, partition, asked).await
    }

    /// Pauses a warehouse, or ends its pause: durable when this resolves, and seen by the owner.
    ///
    /// # Errors
    /// When it is not known to be durable.
    pub async fn set_paused(&self, partition: PartitionId, paused: bool) -> Result<(), CommitError> {
        letters::set_paused(&self.0.node, partition, paused).await
    }

    fn ingestion(&self) -> Door<Ingestion> {
        let thread = std::thread::current().id();
        let known = self.0.ingestion.read().get(&thread).cloned();
        let vitals = match known {
            Some((door, _)) if door.addr().connected() => return door,
            Some((_, vitals)) => vitals,
            None => {
                let vitals = Vitals::new();
                self.0.node.ingestion.write().push(vitals.clone());
                vitals
            }
        };
        let (node, counts) = (self.0.node.clone(), vitals.clone());
        let addr = Home::Here.start(move |ctx| {
            ctx.set_mailbox_capacity(INGESTION_GATE);
            Ingestion::new(node, counts)
        });
        let door = Door::new(addr, INGESTION_GATE, &vitals);
        self.0.ingestion.write().insert(thread, (door.clone(), vitals));
        door
    }

    /// Reads a transaction, and waits up to `bound` until `enough` says so. Past
    /// `waiters_max` callers it does not wait and answers at once.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn await_transaction(
        &self,
        id: TransactionId,
        bound: Duration,
        enough: impl Fn(&Lookup) -> bool + Send,
    ) -> Result<Option<Lookup>, ReadError> {
        let until = tokio::time::Instant::now() + bound;
        loop {
            // First the place, then the look: no change falls between.
            let waiter = self.0.node.waiters.register(id);
            let found = self.store().transaction(id).await?;
            let waits = found.as_ref().is_some_and(|found| !enough(found)) && !self.is_draining();
            let (Some(mut waiter), true) = (waiter, waits) else { return Ok(found) };
            if tokio::time::timeout_at(until, waiter.changed()).await.is_err() {
                return self.store().transaction(id).await;
            }
        }
    }

    /// Partitions with work whose owner is not running, and has not been for more than the second
    /// or two that a tree may take to start (empty: ready).
    #[must_use]
    pub fn unready(&self) -> Vec<PartitionId> {
        let node = &self.0.node;
        let settled = node.ownership.is_settled();
        node.desks.iter().filter(|(_, desk)| desk.lacks_owner() || !settled).map(|(p, _)| *p).collect()
    }

    /// What every actor has done and how it stands, what was counted of orders, and the store's own
    /// numbers. Asks no actor: one that hangs is in it like the others.
    #[must_use]
    pub fn report(&self) -> report::Report {
        census::report(&self.0.node)
    }

    /// This node's name; `None` where there can be no other.
    #[must_use]
    pub fn node_name(&self) -> Option<String> {
        self.0.node.ownership.membership().map(|membership| membership.name())
    }

    /// True from the moment the engine is asked to stop.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.0.draining.load(SeqCst)
    }

    /// From here on nobody waits any more; callers that do are answered with what is there.
    pub fn drain(&self) {
        self.0.draining.store(true, SeqCst);
        self.0.node.waiters.wake_all();
    }

    /// Ends the trees and the webhook endpoints. What they had not acted on is owed at the next start; nothing is lost.
    /// Returns when they are gone, or after `grace`.
    pub async fn shutdown(&self, grace: Duration) {
        self.drain();
        // First the word that outlives a House, then the message to the one that is there.
        self.0.node.ending.store(true, SeqCst);
        self.0.notifier.lock().do_send(End);
        self.0.house.lock().do_send(Drain);
        let until = tokio::time::Instant::now() + grace;
        let node = &self.0.node;
        let runs = || node.desks.values().any(|d| d.is_served()) || node.hooks.running() > 0;
        while runs() && tokio::time::Instant::now() < until {
            tokio::time::sleep(DRAIN_LOOK).await;
        }
        if let Some(membership) = node.ownership.membership() {
            let until = until.min(tokio::time::Instant::now() + HANDED_OVER_WITHIN);
            while node.ownership.hands_over() && tokio::time::Instant::now() < until {
                tokio::time::sleep(DRAIN_LOOK).await;
            }
            if let Err(why) = membership.leave().await {
                tracing::warn!(%why, "the other nodes are not told that this one ends; they find out");
            }
        }
    }
}

/// How long a shutdown waits until its warehouses are assigned to other nodes.
const HANDED_OVER_WITHIN: Duration = Duration::from_secs(3);

/// How often a shutdown looks whether the trees are gone.
const DRAIN_LOOK: Duration = Duration::from_millis(5);

/// The door by which every WMS reports.
struct ControlDoor {
    node: Arc<Node>,
}

impl ConfirmationSink for ControlDoor {
    fn confirm(&self, partition: PartitionId, reports: Vec<Confirmation>) -> BoxFuture<Result<(), WmsError>> {
        let node = self.node.clone();
        Box::pin(async move {
            let confirmed = confirm(&node, partition, reports).await;
            confirmed.map_err(|why| WmsError::Unavailable(why.to_string()))
        })
    }
}

/// The one way into the control lane for reports.
async fn confirm(node: &Node, partition: PartitionId, reports: Vec<Confirmation>) -> Result<(), CommitError> {
    node.store.append_reports(partition, reports).await?.wait().await?;
    node.nudge(partition);
    Ok(())
}
