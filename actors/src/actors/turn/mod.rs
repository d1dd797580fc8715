//! One turn's decisions: what was gathered, turned into facts and records. Pure but for the ids it
//! draws; nothing outside sees any of it before the Pipeline has committed it.
//!
//! Order within a turn: the WMS's answers, the control lane, manifests that are due, deadlines,
//! the stock lane, the work lane; then stock is placed, and what is ready goes into waves.

mod aside;
mod control;
mod manifests;
mod placing;
mod waves;

pub(crate) use aside::Conviction;
pub(crate) use control::{cartons_in, cartons_of_answer, returning, subject};
pub(crate) use manifests::manifest_out;
pub(crate) use waves::wave_out;

use indexmap::{IndexMap, IndexSet};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::book::{Book, OpenManifest, OpenOrder};
use super::inventory::StockTurn;
use super::site::Site;
use super::tallies::End;
use crate::domain::fact::{Fact, FailedCause, OrderFact, Recorded};
use crate::domain::ids::{ClientNo, ReleaseId, TransactionId, WaveId};
use crate::domain::invariants::{Violation, nothing_reserved_twice, ships_at_most_once};
use crate::domain::order::Footprint;
use crate::domain::sscc::Sscc;
use crate::domain::state::State;
use crate::domain::time::Timestamp;
use crate::ports::store::{NewFacts, TurnCommit};

/// Facts that a transaction may have; one that reaches it has no end and is kept aside.
const FACTS_MAX: u32 = 10_000;

/// What a turn looks at besides the entries it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// All that is due or could go.
    Full,
    /// Nothing: only the entries are worked.
    Entries,
    /// These open orders.
    Open(Arc<BTreeSet<TransactionId>>),
}

/// A turn in the making.
pub(crate) struct Turn<'a> {
    site: &'a Site,
    now: Timestamp,
    scope: Scope,
    /// Transactions of this turn that cannot be read or folded, and why.
    pub(crate) unreadable: BTreeMap<TransactionId, String>,
    /// Waves to send although they are not new.
    resend: BTreeSet<WaveId>,
    /// Waves that are not to be sent any more.
    dropped: Vec<WaveId>,
    /// Manifests to load although they are not new.
    reload: Vec<TransactionId>,
    /// Moves and cancellations that an instruction may refuse.
    requests: BTreeMap<TransactionId, aside::Refusable>,
    /// Manifests that are not in hand and have not departed.
    away: BTreeMap<TransactionId, OpenManifest>,
    book: &'a mut Book,
    /// Orders that are still in the work lane: pulled now, or only cancelled there.
    visiting: BTreeMap<TransactionId, OpenOrder>,
    /// Manifests that departed before: a repeated report about one means nothing, and their cartons left.
    past_manifests: BTreeSet<TransactionId>,
    /// What Inventory is to do.
    stock: StockTurn,
    /// Orders whose units the ledger may still have in its ranks as they were.
    reranked: BTreeSet<TransactionId>,
    /// Orders that want stock again after units were missing.
    wanting: IndexSet<TransactionId>,
    /// Serials that the Manifester gave for this turn, last first.
    serials: Vec<Sscc>,
    /// Releases to ask the WMS for.
    silent: Vec<ReleaseId>,
    /// Orders that may owe the world something without a new fact: with reports, whose open questions
    /// to the WMS are asked again, and those that are back in memory.
    owing: BTreeSet<TransactionId>,
    facts: IndexMap<TransactionId, NewFacts>,
    writes: TurnCommit,
    /// Orders with new facts.
    changed: BTreeSet<TransactionId>,
    ends: Vec<End>,
    violations: Vec<Violation>,
}

/// What a turn has decided.
pub(crate) struct Decided {
    /// To be committed before anything else happens.
    pub(crate) writes: TurnCommit,
    /// Transactions with new facts.
    pub(crate) touched: BTreeSet<TransactionId>,
    /// Releases to ask the WMS for.
    pub(crate) silent: Vec<ReleaseId>,
    /// Waves to send although they are not new.
    pub(crate) resend: BTreeSet<WaveId>,
    /// Waves that are not to be sent any more.
    pub(crate) dropped: Vec<WaveId>,
    /// Manifests to load although they are not new.
    pub(crate) reload: Vec<TransactionId>,
    /// Orders that it ends.
    pub(crate) ends: Vec<End>,
    /// What must never be.
    pub(crate) violations: Vec<Violation>,
}

impl<'a> Turn<'a> {
    /// Begins a turn; `serials` are the codes for cartons that need one.
    pub(crate) fn new(
        site: &'a Site,
        now: Timestamp,
        scope: Scope,
        book: &'a mut Book,
        mut serials: Vec<Sscc>,
    ) -> Turn<'a> {
        serials.reverse();
        Turn {
            site,
            now,
            scope,
            unreadable: BTreeMap::new(),
            resend: BTreeSet::new(),
            dropped: Vec::new(),
            reload: Vec::new(),
            requests: BTreeMap::new(),
            away: BTreeMap::new(),
            book,
            visiting: BTreeMap::new(),
            past_manifests: BTreeSet::new(),
            stock: StockTurn::default(),
            reranked: BTreeSet::new(),
            wanting: IndexSet::new(),
            serials,
            silent: Vec::new(),
            owing: BTreeSet::new(),
            facts: IndexMap::new(),
            writes: TurnCommit::default(),
            changed: BTreeSet::new(),
            ends: Vec::new(),
            violations: Vec::new(),
        }
    }

    /// The order, in hand or visiting.
    fn order(&self, id: TransactionId) -> Option<&OpenOrder> {
        self.book.order(id).or_else(|| self.visiting.get(&id))
    }

    /// Records facts of an order that were decided here: the stock is told what they did.
    fn record(&mut self, id: TransactionId, facts: Vec<OrderFact>) {
        let Some((client, before, after)) = self.record_placed(id, facts) else { return };
        if before != after {
            self.stock.booked.push((client, before, after));
            self.reranked.insert(id);
        }
    }

    /// Records facts that the stock's own answer brought: the ledger knows them already.
    fn record_placed(
        &mut self,
        id: TransactionId,
        mut facts: Vec<OrderFact>,
    ) -> Option<(ClientNo, Vec<Footprint>, Vec<Footprint>)> {
        if facts.is_empty() {
            return None;
        }
        let in_hand = self.book.remove(id);
        let visits = in_hand.is_none();
        let mut open = in_hand.or_else(|| self.visiting.remove(&id))?;
        if open.order.is_done() {
            let found = format!("{id}: {facts:?} after {}", open.order.state().as_str());
            self.violations.push(Violation { id: "INV-7", found });
        }
        let before = open.order.footprint();
        let failed = open.order.is_failed();
        for fact in &facts {
            open.order.apply(fact, self.now);
        }
        if u32::try_from(facts.len()).unwrap_or(u32::MAX).saturating_add(open.version) >= FACTS_MAX {
            let ends = open.order.set_aside(FailedCause::TooLong);
            ends.iter().for_each(|fact| open.order.apply(fact, self.now));
            if !ends.is_empty() {
                self.bury_order(id, format!("it has {FACTS_MAX} facts"));
            }
            facts.extend(ends);
        }
        if failed && !open.order.is_failed() {
            self.writes.relieved.push(id);
        }
        let after = open.order.footprint();
        for request in open.order.settled_requests(&facts) {
            let cancelled = open.order.ask(request).map(|ask| ask.cancelled.clone()).unwrap_or_default();
            self.decide_request(request, open.client, cancelled);
        }
        self.note(id, open.client, open.version, facts.into_iter().map(Fact::Order).collect());
        open.version = self.version_of(id);
        tracing::debug!(
            correlation_id = %open.correlation,
            transaction_id = %id,
            version = open.version,
            state = open.order.state().as_str(),
            "decided"
        );
        let client = open.client;
        self.changed.insert(id);
        if visits {
            self.visiting.insert(id, open);
        } else {
            self.book.insert(open);
        }
        Some((client, before, after))
    }

    /// Adds facts of any transaction to the commit; `version` is the newest before them.
    fn note(&mut self, id: TransactionId, client: ClientNo, version: u32, facts: Vec<Fact>) {
        let at = self.now;
        let new = self.facts.entry(id).or_insert_with(|| NewFacts {
            id,
            client,
            first_version: version + 1,
            facts: Vec::new(),
        });
        new.facts.extend(facts.into_iter().map(|fact| Recorded { at, fact }));
    }

    fn version_of(&self, id: TransactionId) -> u32 {
        let new = &self.facts[&id];
        new.first_version + u32::try_from(new.facts.len()).unwrap_or(u32::MAX) - 1
    }

    /// Ends the turn: what is done leaves the book, and all writes stand in one commit.
    pub(crate) fn finish(mut self) -> Decided {
        self.tidy_letters();
        for id in std::mem::take(&mut self.changed) {
            let violation = self.order(id).and_then(|open| ships_at_most_once(&open.order));
            self.violations.extend(violation);
            self.leave(id);
        }
        let positions = self.writes.positions.iter();
        let uncovered = positions.filter_map(|((_, sku), at)| nothing_reserved_twice(sku.as_str(), at));
        self.violations.extend(uncovered);
        self.tell_stock();
        self.tell_estimates();
        let mut touched = std::mem::take(&mut self.owing);
        touched.extend(self.facts.keys());
        self.writes.facts = std::mem::take(&mut self.facts).into_values().collect();
        let Turn { writes, silent, resend, dropped, reload, ends, violations, .. } = self;
        Decided { writes, touched, silent, resend, dropped, reload, ends, violations }
    }

    fn leave(&mut self, id: TransactionId) {
        let Some(open) = self.order(id) else { return };
        if !open.order.is_done() {
            return;
        }
        let state = open.order.state();
        let shipped = state == State::Shipped;
        let end = End { state, after: self.now.since(open.order.accepted_at) };
        let released = open.order.releases().last().map(|r| r.at);
        match released.filter(|_| shipped) {
            Some(released) => self.book.pace.shipped(id, self.now.since(released), self.now),
            None => self.book.pace.ended(id),
        }
        let pulled_now = self.writes.opened.iter().position(|opened| *opened == id);
        if let Some(i) = pulled_now {
            self.writes.opened.remove(i);
        } else if self.book.order(id).is_some() {
            self.writes.closed.push(id);
        }
        self.book.remove(id);
        self.book.promises.forget(id);
        self.ends.push(end);
        self.writes.ended.push((id, self.now));
    }
}

#[cfg(test)]
pub(crate) mod tests;
