//! What is kept aside because it kills its tree or cannot be read, and what operators say about it.
//! It must never decide for an order that is to be kept aside: that may be what kills.

use super::Turn;
use crate::actors::book::{OpenManifest, OpenOrder};
use crate::domain::command::Command;
use crate::domain::fact::{CancellationFact, Fact, FailedCause, MoveFact, OrderFact};
use crate::domain::ids::{ClientNo, ReleaseId, TransactionId, WaveId};
use crate::domain::order::NotPossible;
use crate::domain::stock::{Position, StockKey};
use crate::ports::store::{
    DeadKind, DeadLetter, Instruction, Lane, LaneEntry, LaneItem, Settled, StoredTransaction, StoredWave,
};
use crate::ports::trouble::UNTOUCHABLE;

/// What died too often alone in hand.
pub(crate) enum Conviction {
    /// An entry of a lane.
    Entry(Box<LaneEntry>),
    /// An open order or manifest.
    Open(TransactionId),
    /// A wave without an answer.
    Wave(WaveId),
}

impl Turn<'_> {
    /// The order is in hand from here on; see [`crate::actors::site::Site::put_down`].
    pub(super) fn touch(&self, id: TransactionId) {
        if let Some(open) = self.order(id) {
            self.site.take_in_hand(id, open.reference.as_str());
        }
    }

    /// Why nothing can be booked about an order, if so.
    pub(super) fn unworkable(&self, id: TransactionId) -> Option<String> {
        // What is said about it waits with it: booking it may be what kills.
        let aside = |o: &&OpenOrder| o.order.is_aside();
        let why = || self.order(id).filter(aside).map(|_| "its order is kept aside".to_owned());
        self.unreadable.get(&id).cloned().or_else(why)
    }

    /// Keeps aside what killed trees `deaths` times. An order is failed; where that has killed as
    /// well, and for everything that is no order, it is taken out of the way as it is.
    pub(crate) fn convict(&mut self, convicted: Conviction, deaths: u32) {
        let reason = format!("it crashed the warehouse's tree {deaths} times");
        match convicted {
            Conviction::Entry(entry) => self.convict_entry(*entry, deaths, reason),
            Conviction::Open(id) => {
                let order = self.book.order(id).is_some();
                match order && deaths < UNTOUCHABLE {
                    true => self.fail(id, FailedCause::Crashed, reason),
                    false => self.put_away(id, reason),
                }
            }
            Conviction::Wave(id) => {
                let releases = self.book.wave_answered(id).unwrap_or_default();
                self.put_wave_away(id, reason, &releases);
            }
        }
    }

    fn convict_entry(&mut self, entry: LaneEntry, deaths: u32, reason: String) {
        let LaneEntry { lane, n, item } = entry;
        match (lane, item) {
            (Lane::Work, LaneItem::Transaction(stored)) if deaths < UNTOUCHABLE && self.visit(&stored) => {
                self.writes.taken.push((lane, n));
                let Some(open) = self.visiting.remove(&stored.id) else { return };
                self.writes.opened.push(stored.id);
                self.book.insert(open);
                self.fail(stored.id, FailedCause::Crashed, reason);
            }
            (_, item) => {
                self.writes.taken.push((lane, n));
                let id = match &item {
                    LaneItem::Transaction(stored) => Some(stored.id),
                    LaneItem::Undecodable(id, _) => *id,
                    LaneItem::Report(report) => Some(report.about()),
                    LaneItem::Instruction(_, letter) => letter.as_ref().and_then(|letter| letter.id),
                };
                self.bury_entry((lane, n), id, reason);
            }
        }
    }

    /// An order becomes a dead letter without a decision of its own.
    fn fail(&mut self, id: TransactionId, cause: FailedCause, reason: String) {
        let Some(open) = self.book.order(id) else { return };
        let facts = open.order.set_aside(cause);
        if facts.is_empty() {
            return;
        }
        self.record(id, facts);
        self.reranked.insert(id);
        self.bury_order(id, reason);
        self.site.desk.forgive(id);
    }

    /// Keeps aside the orders, or the manifest, of which the WMS cannot be told because bytes of them
    /// cannot be read; the wave goes again without them. Said twice it changes nothing: an order is
    /// aside once, a manifest leaves memory once, and the wave is named the same.
    pub(super) fn unreadable_parts(&mut self, wave: Option<WaveId>, of: Vec<(TransactionId, String)>) {
        for (id, why) in of {
            match self.book.manifests.contains_key(&id) {
                true => self.put_away(id, why),
                false => self.fail(id, FailedCause::Unreadable, why),
            }
        }
        self.resend.extend(wave);
    }

    /// An order has as many facts or releases as it may have.
    pub(super) fn too_long(&mut self, id: TransactionId) {
        let Some(open) = self.book.order(id) else { return };
        let facts = open.order.set_aside(FailedCause::TooLong);
        self.record(id, facts);
        self.reranked.insert(id);
        self.bury_order(id, NotPossible::TooLong.to_string());
    }

    /// An open transaction leaves memory as it is: nobody will find it but by its dead letter.
    pub(crate) fn put_away(&mut self, id: TransactionId, reason: String) {
        self.stock.forget.push(id);
        self.book.remove(id);
        self.book.manifests.remove(&id);
        self.writes.closed.push(id);
        self.bury_order(id, reason);
    }

    /// A wave is sent no more. What it held is asked for when it has been silent for too long, and
    /// goes again if the WMS does not know it.
    pub(crate) fn put_wave_away(&mut self, id: WaveId, reason: String, releases: &[ReleaseId]) {
        let releases: Vec<String> = releases.iter().map(ToString::to_string).collect();
        self.writes.answered.push(id);
        self.dropped.push(id);
        self.bury(DeadKind::Wave, None, format!("wave {id}: {reason}"), releases.join(" "), None);
    }

    /// A position that cannot be read is written anew from what is known of it.
    pub(crate) fn replace_position(&mut self, key: StockKey, position: Position, reason: String) {
        let owner = self.site.node.client_names.get(&key.0).map_or("", String::as_str);
        let detail = format!("{} of client {owner}: nothing is offered before a count", key.1);
        self.writes.positions.push((key, position));
        self.bury(DeadKind::Stock, None, reason, detail, None);
    }

    /// Does what an operator wants done with a dead letter. One that is dealt with means nothing.
    pub(super) fn instructed(&mut self, asked: Instruction, letter: Option<&DeadLetter>) {
        let Some(letter) = letter else { return };
        let done = match (letter.kind, letter.id, letter.entry) {
            (DeadKind::Order, Some(id), None) => self.order_instructed(asked, id),
            (kind, id, entry) => match asked {
                // The commit puts it back into its lane.
                Instruction::Redrive(_) => entry.is_some(),
                // An order that nobody can decide about would be lost.
                Instruction::GiveUp(_) if kind == DeadKind::Order => false,
                Instruction::GiveUp(_) => {
                    if let Some(id) = id {
                        self.refuse_request(id);
                    }
                    true
                }
            },
        };
        let (n, settled) = match asked {
            Instruction::Redrive(n) => (n, Settled::Redriven),
            Instruction::GiveUp(n) => (n, Settled::GivenUp),
        };
        tracing::info!(warehouse = %self.site.warehouse.code, letter = n, ?asked, done, "an operator's word about a dead letter");
        if done {
            self.writes.settled.push((n, settled));
        }
    }

    fn order_instructed(&mut self, asked: Instruction, id: TransactionId) -> bool {
        if let Some(manifest) = self.away.remove(&id) {
            return self.manifest_instructed(asked, id, manifest);
        }
        if !self.reopen(id) {
            return false;
        }
        let Some(open) = self.book.order(id).filter(|o| !o.order.is_done()) else { return true };
        let aside = open.order.is_aside();
        let decided = match asked {
            Instruction::Redrive(_) => open.order.redrive(),
            Instruction::GiveUp(_) => open.order.give_up(),
        };
        let Ok(facts) = decided else { return false };
        self.record(id, facts);
        self.reranked.insert(id);
        // What was missing at a pick or never looked at meanwhile wants stock from here on.
        if self.book.order(id).is_some_and(|o| o.order.may_begin(self.now)) {
            self.wanting.insert(id);
        }
        match asked {
            Instruction::Redrive(_) => self.send_again(id, aside),
            Instruction::GiveUp(_) => self.call_back(id),
        }
        true
    }

    /// A manifest that was put away is loaded again; it cannot be given up, for its cartons leave.
    fn manifest_instructed(&mut self, asked: Instruction, id: TransactionId, mut open: OpenManifest) -> bool {
        match asked {
            Instruction::GiveUp(_) => return false,
            Instruction::Redrive(_) => {}
        }
        let on_it = |o: &&OpenOrder| o.order.manifests().any(|manifest| manifest == id);
        open.orders = self.book.orders().filter(on_it).map(|o| o.order.id).collect();
        self.writes.opened.push(id);
        self.book.manifests.insert(id, open);
        self.reload.push(id);
        true
    }

    /// Takes an order back into memory that was put away; false when it cannot be read.
    fn reopen(&mut self, id: TransactionId) -> bool {
        if self.unreadable.contains_key(&id) {
            return false;
        }
        let Some(open) = self.visiting.remove(&id) else { return true };
        if open.order.is_done() {
            self.visiting.insert(id, open);
            return true;
        }
        self.writes.opened.push(id);
        // What it owes is owed from here on, whether or not a new fact says so.
        self.owing.insert(id);
        let mut left = Vec::new();
        for manifest in open.order.manifests() {
            match self.book.manifests.get_mut(&manifest) {
                Some(on_it) => {
                    on_it.orders.insert(id);
                }
                None if self.past_manifests.contains(&manifest) => left.push(manifest),
                None => {}
            }
        }
        self.book.insert(open);
        // Nobody could book its cartons when these left.
        left.sort_unstable();
        left.dedup();
        for manifest in left {
            self.record(id, vec![OrderFact::Shipped { manifest }]);
        }
        true
    }

    /// What the order has at the WMS, or may have, is sent again: a release that the WMS knows is one
    /// that it has already taken.
    fn send_again(&mut self, id: TransactionId, was_aside: bool) {
        self.resend.extend(self.waves_of(id));
        let Some(open) = self.book.order(id).filter(|_| was_aside) else { return };
        let lost = open.order.unbegun().map(|n| ReleaseId { order: id, n });
        let lost: Vec<ReleaseId> = lost.filter(|r| !self.book.is_unanswered(*r)).collect();
        for release in lost {
            let id = self.site.node.new_id(self.site.partition());
            self.book.wave_out(id, vec![release]);
            self.writes.waves.push(StoredWave { id, releases: vec![release] });
        }
    }

    /// The order's waves go on without it, or not at all.
    fn call_back(&mut self, id: TransactionId) {
        for wave in self.waves_of(id) {
            let releases = self.book.waves().get(&wave).cloned().unwrap_or_default();
            let others = releases.iter().any(|r| r.order != id && self.book.order(r.order).is_some());
            if others {
                self.resend.insert(wave);
            } else {
                self.book.wave_answered(wave);
                self.writes.answered.push(wave);
                self.dropped.push(wave);
            }
        }
    }

    fn waves_of(&self, id: TransactionId) -> Vec<WaveId> {
        let holds = |releases: &[ReleaseId]| releases.iter().any(|r| r.order == id);
        self.book.waves().iter().filter(|(_, releases)| holds(releases)).map(|(wave, _)| *wave).collect()
    }

    /// A move or a cancellation whose entry is given up is rejected.
    fn refuse_request(&mut self, id: TransactionId) {
        let Some((client, fact)) = self.requests.remove(&id) else { return };
        self.note(id, client, 1, vec![fact]);
        self.writes.ended.push((id, self.now));
    }

    /// Takes in what an instruction may be about besides an order.
    pub(super) fn visit_other(&mut self, stored: &StoredTransaction) {
        let undecided = stored.version() == 1;
        let refused = match &stored.command {
            Command::Move(_) => Fact::Move(MoveFact::Rejected),
            Command::Cancellation(_) => Fact::Cancellation(CancellationFact::Rejected),
            Command::Manifest(_) => {
                match OpenManifest::fold(stored).filter(|open| open.manifest.owes_loading()) {
                    Some(open) => {
                        self.away.insert(stored.id, open);
                    }
                    None => {
                        self.past_manifests.insert(stored.id);
                    }
                }
                return;
            }
            Command::Order(_) => return,
        };
        if undecided {
            self.requests.insert(stored.id, (stored.client, refused));
        }
    }

    /// One letter an order, and none for one that has gone on since in the same turn.
    pub(super) fn tidy_letters(&mut self) {
        let mut dead = std::mem::take(&mut self.writes.dead);
        dead.retain(|letter| match (letter.kind, letter.id, letter.entry) {
            (DeadKind::Order, Some(id), None) => self.order(id).is_none_or(|o| o.order.is_failed()),
            (DeadKind::Order | DeadKind::Confirmation | DeadKind::Wave | DeadKind::Stock, _, _) => true,
        });
        self.writes.dead = dead;
        let mut relieved = std::mem::take(&mut self.writes.relieved);
        relieved.retain(|id| self.order(*id).is_none_or(|o| !o.order.is_failed()));
        self.writes.relieved = relieved;
    }
}

/// Who a request is of and how it is refused.
pub(crate) type Refusable = (ClientNo, Fact);
