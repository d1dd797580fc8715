//! A partition's desk: where the rest of the node leaves word for its owner and reads what the
//! owner last published. Nothing here is a message: a nudge is a flag, a snapshot is a copy.

use actix::prelude::*;
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use crate::actors::options::Snapshot;
use crate::actors::report::Phase;
use crate::actors::vitals::TreeVitals;
use crate::domain::ids::{PartitionId, TransactionId};
use crate::domain::time::Timestamp;

/// There may be something in the lanes.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Nudge;

/// A partition without a running owner has something to do.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Wake(pub(crate) PartitionId);

/// Looks without an owner before the partition is not ready: a tree starts within one.
const MISSED_MAX: u32 = 2;

/// A panic longer ago than this says nothing about the order any more.
const BLAMED_FOR: Duration = Duration::from_secs(600);
/// Orders remembered as blamed; of more, the later ones are found out by durable marks alone.
const BLAMED_MAX: usize = 64;

/// One partition's desk.
pub(crate) struct Desk {
    partition: PartitionId,
    nudged: AtomicBool,
    /// The epoch of the owner that serves, 0 when none does.
    serving: AtomicU64,
    last_turn: AtomicI64,
    /// Looks around in a row at which there was work and no owner.
    missed: AtomicU32,
    wake_at: AtomicI64,
    pipeline: Mutex<Option<Recipient<Nudge>>>,
    house: Mutex<Option<Recipient<Wake>>>,
    snapshot: RwLock<Snapshot>,
    /// The last tree ended for a reason that is not what it had in hand.
    excused: AtomicBool,
    /// Orders that were in hand when trees of this process panicked, how often and when last.
    blamed: Mutex<BTreeMap<TransactionId, (u32, Timestamp)>>,
    tree: Mutex<Tree>,
    /// Made at the first start: a warehouse that never had work costs nothing.
    vitals: OnceLock<TreeVitals>,
}

/// What the House does with the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tree {
    /// It has none.
    Asleep,
    /// It has started one.
    Started,
    /// It waits before the next start.
    Down,
}

impl Desk {
    pub(crate) fn new(partition: PartitionId) -> Desk {
        Desk {
            partition,
            nudged: AtomicBool::new(false),
            serving: AtomicU64::new(0),
            last_turn: AtomicI64::new(0),
            missed: AtomicU32::new(0),
            wake_at: AtomicI64::new(i64::MAX),
            pipeline: Mutex::new(None),
            house: Mutex::new(None),
            snapshot: RwLock::new(Snapshot::default()),
            excused: AtomicBool::new(false),
            blamed: Mutex::default(),
            tree: Mutex::new(Tree::Asleep),
            vitals: OnceLock::new(),
        }
    }

    /// Says that there is something in the lanes. Cheap: while the owner has not looked, further
    /// nudges are only a flag that is set already.
    pub(crate) fn nudge(&self) {
        if self.nudged.swap(true, SeqCst) {
            return;
        }
        // Supervision signals go ungated: the flag lets one through at a time.
        match self.pipeline.lock().as_ref().filter(|p| p.connected()) {
            Some(pipeline) => pipeline.do_send(Nudge),
            None => {
                if let Some(house) = self.house.lock().as_ref() {
                    house.do_send(Wake(self.partition));
                }
            }
        }
    }

    /// The owner is about to look: what is nudged from here on is nudged again. Until it publishes
    /// the partition is due, so that what it looked at is not forgotten when it ends over it.
    pub(crate) fn looked(&self) {
        self.wake_at.store(0, SeqCst);
        self.nudged.store(false, SeqCst);
    }

    /// True while a nudge waits to be looked at.
    pub(crate) fn is_nudged(&self) -> bool {
        self.nudged.load(SeqCst)
    }

    /// The House is where a sleeping partition's nudges go.
    pub(crate) fn house_is(&self, house: Recipient<Wake>) {
        *self.house.lock() = Some(house);
    }

    /// An owner serves the partition from here on.
    pub(crate) fn owner_is(&self, epoch: u64, pipeline: Recipient<Nudge>) {
        let mut current = self.pipeline.lock();
        *current = Some(pipeline);
        self.serving.store(epoch, SeqCst);
    }

    /// The owner of this epoch serves no longer. A later owner is not disturbed.
    pub(crate) fn owner_gone(&self, epoch: u64) {
        let mut current = self.pipeline.lock();
        if self.serving.load(SeqCst) == epoch {
            *current = None;
            self.serving.store(0, SeqCst);
        }
    }

    /// True while an owner serves it.
    pub(crate) fn is_served(&self) -> bool {
        self.serving.load(SeqCst) != 0
    }

    /// The epoch of the owner that serves, 0 when none does.
    pub(crate) fn epoch(&self) -> u64 {
        self.serving.load(SeqCst)
    }

    /// The House says what it does with the tree.
    pub(crate) fn tree_is(&self, tree: Tree) {
        *self.tree.lock() = tree;
    }

    /// Where the tree stands.
    pub(crate) fn phase(&self) -> Phase {
        match *self.tree.lock() {
            Tree::Asleep => Phase::Asleep,
            Tree::Started if self.is_served() => Phase::Running,
            Tree::Started => Phase::Starting,
            Tree::Down => Phase::Down,
        }
    }

    /// What is counted of the tree's actors, through all its starts.
    pub(crate) fn vitals(&self) -> &TreeVitals {
        self.vitals.get_or_init(TreeVitals::new)
    }

    /// The same; `None` when the tree has never been started.
    pub(crate) fn vitals_if_any(&self) -> Option<&TreeVitals> {
        self.vitals.get()
    }

    /// The House looked: is there work and nobody who does it?
    pub(crate) fn look(&self, due: bool) {
        match due && !self.is_served() {
            true => self.missed.fetch_add(1, SeqCst),
            false => self.missed.swap(0, SeqCst),
        };
    }

    /// True when work has been without an owner for more than the moment that a tree needs to start.
    pub(crate) fn lacks_owner(&self) -> bool {
        !self.is_served() && self.missed.load(SeqCst) >= MISSED_MAX
    }

    /// When its owner last ended a turn.
    pub(crate) fn last_turn(&self) -> Timestamp {
        Timestamp(self.last_turn.load(SeqCst))
    }

    /// When the partition must be awake next; time zero while something is owed.
    pub(crate) fn wake_at(&self) -> Timestamp {
        Timestamp(self.wake_at.load(SeqCst))
    }

    /// The owner publishes, after its commit is durable.
    pub(crate) fn publish(&self, snapshot: Snapshot, wake_at: Timestamp, now: Timestamp) {
        *self.snapshot.write() = snapshot;
        self.last_turn.store(now.0, SeqCst);
        self.wake_at.store(wake_at.0, SeqCst);
    }

    /// What the store said about a partition that has no owner: with work in it, it is not ready
    /// until it has one.
    pub(crate) fn due_at(&self, wake_at: Timestamp, now: Timestamp) {
        self.wake_at.store(wake_at.0, SeqCst);
        if wake_at <= now {
            self.missed.store(MISSED_MAX, SeqCst);
        }
    }

    /// The tree ends because of the store, not of what it works.
    pub(crate) fn excuse(&self) {
        self.excused.store(true, SeqCst);
    }

    /// Whether the tree before this one is excused; asked once by each.
    pub(crate) fn take_excuse(&self) -> bool {
        self.excused.swap(false, SeqCst)
    }

    /// A tree panicked over this order.
    pub(crate) fn blame(&self, order: TransactionId, now: Timestamp) {
        let mut blamed = self.blamed.lock();
        blamed.retain(|_, (_, last)| now.since(*last) < BLAMED_FOR);
        if blamed.len() < BLAMED_MAX || blamed.contains_key(&order) {
            let (panics, last) = blamed.entry(order).or_default();
            (*panics, *last) = (*panics + 1, now);
        }
    }

    /// How often trees of this process panicked over each order lately.
    pub(crate) fn blamed(&self) -> BTreeMap<TransactionId, u32> {
        self.blamed.lock().iter().map(|(order, (panics, _))| (*order, *panics)).collect()
    }

    /// The order is dealt with: it is kept aside, or goes on anew.
    pub(crate) fn forgive(&self, order: TransactionId) {
        self.blamed.lock().remove(&order);
    }

    /// Says what is known of a pause before the owner does.
    pub(crate) fn paused_is(&self, paused: bool) {
        self.snapshot.write().paused = paused;
    }

    /// Another node works the partition; this is what its owner there has published.
    pub(crate) fn show(&self, snapshot: Snapshot) {
        *self.snapshot.write() = snapshot;
    }

    /// What the owner last published.
    pub(crate) fn snapshot(&self) -> Snapshot {
        *self.snapshot.read()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_that_does_not_end_leaves_its_partition_due() {
        let desk = Desk::new(PartitionId(1));
        desk.publish(Snapshot::default(), Timestamp::NEVER, Timestamp(1));
        desk.nudge();
        desk.looked();
        // Here the House may put the tree to sleep: the nudge is gone, the turn is not done.
        assert!(!desk.is_nudged() && desk.wake_at() == Timestamp(0));
        desk.publish(Snapshot::default(), Timestamp::NEVER, Timestamp(2));
        assert_eq!(desk.wake_at(), Timestamp::NEVER);
    }
}
