//! What a node knows of who is in charge of what. Everybody on the node reads it; only the House
//! changes it (`tenure`). A node whose store has no other nodes is in charge of everything.

use parking_lot::RwLock;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use tokio::sync::oneshot;

use crate::domain::ids::PartitionId;
use crate::domain::spread::{Charge, NodeId};
use crate::ports::membership::{Member, Membership, Roster, Word};

/// The node's knowledge.
pub(crate) struct Ownership {
    membership: Option<Arc<dyn Membership>>,
    view: RwLock<View>,
    /// There are other nodes to tell something.
    has_others: AtomicBool,
    /// Wishes that another node is to grant, by their names.
    wishes: parking_lot::Mutex<BTreeMap<u64, oneshot::Sender<bool>>>,
}

#[derive(Default)]
struct View {
    roster: Option<Roster>,
    held: BTreeSet<Charge>,
}

impl Ownership {
    pub(crate) fn new(membership: Option<Arc<dyn Membership>>) -> Ownership {
        Ownership {
            membership,
            view: RwLock::default(),
            has_others: AtomicBool::new(false),
            wishes: parking_lot::Mutex::default(),
        }
    }

    /// The nodes of the store; `None` where there can be no others.
    pub(crate) fn membership(&self) -> Option<&Arc<dyn Membership>> {
        self.membership.as_ref()
    }

    /// True when this node works it.
    pub(crate) fn holds(&self, charge: Charge) -> bool {
        self.membership.is_none() || self.view.read().held.contains(&charge)
    }

    /// True when this node works a warehouse.
    pub(crate) fn holds_warehouse(&self, partition: PartitionId) -> bool {
        self.holds(Charge::Warehouse(partition))
    }

    /// All that this node works, where there are others.
    pub(super) fn held(&self) -> BTreeSet<Charge> {
        self.view.read().held.clone()
    }

    /// Others are seen before this node could do anything itself: then it is not ready.
    pub(crate) fn is_settled(&self) -> bool {
        self.membership.is_none() || self.view.read().roster.is_some()
    }

    /// Who was there and in charge when the House last looked.
    pub(crate) fn roster(&self) -> Option<Roster> {
        self.view.read().roster.clone()
    }

    /// The living node in charge.
    pub(crate) fn in_charge(&self, charge: Charge) -> Option<Member> {
        let view = self.view.read();
        let roster = view.roster.as_ref()?;
        roster.member(*roster.homes.get(&charge)?).cloned()
    }

    /// True when another living node is in charge.
    pub(crate) fn is_elsewhere(&self, charge: Charge) -> bool {
        let me = self.me();
        me.is_some() && self.in_charge(charge).is_some_and(|member| Some(member.id) != me)
    }

    /// This node, where there can be others.
    pub(crate) fn me(&self) -> Option<NodeId> {
        self.membership.as_ref().map(|membership| membership.me())
    }

    /// True while other nodes are there.
    pub(super) fn has_others(&self) -> bool {
        self.has_others.load(Relaxed)
    }

    /// True for one of the living nodes, and for a node that is alone: what one for all does.
    pub(crate) fn is_first(&self) -> bool {
        let Some(me) = self.me() else { return true };
        let view = self.view.read();
        view.roster.as_ref().and_then(|roster| roster.members.first()).is_some_and(|first| first.id == me)
    }

    /// True while this node is in charge of something that another one, which stays, can be in charge of.
    pub(crate) fn hands_over(&self) -> bool {
        let (me, view) = (self.me(), self.view.read());
        let stays = |member: &Member| Some(member.id) != me && !member.leaving;
        let has_heir = view.roster.as_ref().is_some_and(|roster| roster.members.iter().any(stays));
        has_heir && !view.held.is_empty()
    }

    /// The House has read this. Answers what it had read before.
    pub(super) fn read(&self, roster: Roster) -> Option<Roster> {
        self.has_others.store(roster.members.len() > 1, Relaxed);
        self.view.write().roster.replace(roster)
    }

    /// This node works it from here on.
    pub(super) fn hold(&self, charge: Charge) {
        self.view.write().held.insert(charge);
    }

    /// This node works it no longer. False when it did not.
    pub(super) fn let_go(&self, charge: Charge) -> bool {
        self.view.write().held.remove(&charge)
    }

    /// Tells the other nodes, if there are any.
    pub(crate) fn tell(&self, word: impl FnOnce() -> Word) {
        if let Some(membership) = &self.membership
            && self.has_others()
        {
            membership.tell(word());
        }
    }

    /// Wishes something of whoever can grant it; resolves with whether it is granted.
    pub(super) fn wish(&self, wish: u64, word: Word) -> oneshot::Receiver<bool> {
        let (answer, answered) = oneshot::channel();
        let mut wishes = self.wishes.lock();
        wishes.retain(|_, waiting| !waiting.is_closed());
        wishes.insert(wish, answer);
        drop(wishes);
        self.tell(|| word);
        answered
    }

    /// Another node has answered a wish.
    pub(super) fn answered(&self, wish: u64, granted: bool) {
        if let Some(waiting) = self.wishes.lock().remove(&wish) {
            // Whoever wished has given up.
            let _gone = waiting.send(granted);
        }
    }
}
