//! What the actors of a node, and of one tree, share. All of it is immutable, a port, or counts.

use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use tokio_util::sync::CancellationToken;

use super::bell::Bell;
use super::desk::Desk;
use super::events::EventCache;
use super::ownership::Ownership;
use super::tallies::Tallies;
use super::vitals::Vitals;
use super::waiters::Waiters;
use super::webhooks::Hooks;
use crate::actors::options::{Rules, WarehouseOptions, Warehouses};
use crate::domain::ids::{ClientNo, PartitionId, TraceContext, TransactionId};
use crate::domain::time::Timestamp;
use crate::ports::clock::Clock;
use crate::ports::entropy::Entropy;
use crate::ports::faults::{FaultPoint, Faults};
use crate::ports::membership::Word;
use crate::ports::store::SharedStore;
use crate::ports::wms::Wms;

/// What all actors of a node share.
pub(crate) struct Node {
    pub(crate) store: SharedStore,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) faults: Arc<dyn Faults>,
    pub(crate) rules: Rules,
    pub(crate) warehouses: Warehouses,
    pub(crate) clients: HashMap<String, ClientNo>,
    pub(crate) client_names: BTreeMap<ClientNo, String>,
    pub(crate) desks: BTreeMap<PartitionId, Arc<Desk>>,
    pub(crate) waiters: Waiters,
    /// Rung when a client's feed has grown.
    pub(crate) bell: Bell,
    /// Events that were rendered lately.
    pub(crate) events: EventCache,
    /// Webhook endpoints.
    pub(crate) hooks: Hooks,
    /// Who works what.
    pub(crate) ownership: Ownership,
    /// Of the store; it stands in every cursor.
    pub(crate) feed_epoch: u64,
    /// True once no tree is to be started any more.
    pub(crate) ending: AtomicBool,
    pub(crate) tallies: Tallies,
    /// Of the House, through all its restarts.
    pub(crate) house: Arc<Vitals>,
    /// Of the FeedHub, through all its restarts.
    pub(crate) feed_hub: Arc<Vitals>,
    /// Of the Ingestion of each thread that ever submitted.
    pub(crate) ingestion: RwLock<Vec<Arc<Vitals>>>,
}

impl Node {
    /// The time now.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// True once no tree is to be started any more. Here and not in the House, so that one which
    /// dies at that moment does not take the word with it.
    pub(crate) fn is_ending(&self) -> bool {
        self.ending.load(SeqCst)
    }

    /// A fresh transaction or wave id.
    pub(crate) fn new_id(&self, home: PartitionId) -> TransactionId {
        TransactionId::new(self.now(), home, self.entropy.next())
    }

    /// A fresh trace, for what the house begins by itself.
    pub(crate) fn new_trace(&self) -> TraceContext {
        let trace_id = u128::from(self.entropy.next()) << 64 | u128::from(self.entropy.next() | 1);
        TraceContext { trace_id, parent_id: self.entropy.next() | 1, flags: 0, state: None }
    }

    /// There is something new in a partition's lanes: whoever works it is to look.
    pub(crate) fn nudge(&self, partition: PartitionId) {
        self.wrote(partition, true, [].into_iter(), [].into_iter());
    }

    /// A write of a partition is durable. Whoever waits for it is told, here and on other nodes:
    /// `queued`, there is something new in its lanes; these transactions have new versions; the feeds of
    /// these clients have grown.
    pub(crate) fn wrote(
        &self,
        partition: PartitionId,
        queued: bool,
        transactions: impl Iterator<Item = TransactionId> + Clone,
        clients: impl Iterator<Item = ClientNo> + Clone,
    ) {
        if queued
            && self.ownership.holds_warehouse(partition)
            && let Some(desk) = self.desks.get(&partition)
        {
            desk.nudge();
        }
        transactions.clone().for_each(|id| self.waiters.wake(id));
        clients.clone().for_each(|client| self.bell.ring(client));
        self.ownership.tell(|| Word::Wrote {
            partition,
            queued,
            transactions: transactions.collect(),
            clients: clients.collect(),
        });
    }

    /// Webhook endpoints have changed: whoever works them is to look.
    pub(crate) fn endpoints_changed(&self) {
        self.hooks.look();
        self.ownership.tell(|| Word::Endpoints);
    }
}

/// What the actors of one tree share.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) node: Arc<Node>,
    pub(crate) warehouse: Arc<WarehouseOptions>,
    pub(crate) desk: Arc<Desk>,
    pub(crate) wms: Arc<dyn Wms>,
    /// Cancelled when the tree is dropped: every effect looks at it first.
    pub(crate) token: CancellationToken,
    /// The order that the Pipeline decides or performs something for right now.
    pub(crate) in_hand: Arc<Mutex<Option<TransactionId>>>,
}

impl Site {
    pub(crate) fn partition(&self) -> PartitionId {
        self.warehouse.partition
    }

    pub(crate) fn strike(&self, point: FaultPoint) {
        self.node.faults.strike(point, Some(self.partition()));
    }

    /// Names the order in hand, for whoever finds the Pipeline dead; gives a fault its place.
    pub(crate) fn take_in_hand(&self, order: TransactionId, reference: &str) {
        *self.in_hand.lock() = Some(order);
        self.node.faults.work(reference);
    }

    /// Nothing in particular is in hand: a death from here on is nobody's.
    pub(crate) fn put_down(&self) {
        *self.in_hand.lock() = None;
    }

    /// Who carries a service here.
    pub(crate) fn carrier(&self, service: &str) -> &str {
        self.warehouse.carriers.get(service).map_or("ups", String::as_str)
    }
}
