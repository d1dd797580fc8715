//! Stock: receipts, orders that want units, deadlines, and what the ledger answered.

use super::{Scope, Turn};
use crate::actors::inventory::{StockAnswer, StockMove, StockTurn};
use crate::domain::command::Command;
use crate::domain::fact::Fact;
use crate::domain::ids::TransactionId;
use crate::domain::movement;
use crate::ports::store::{Lane, LaneEntry, LaneItem};

/// Deadlines worked in one turn; the rest follow in the next.
const DUE_MAX: usize = 64;

impl Turn<'_> {
    /// Looks at what has waited too long: for its `not_before`, for stock, for the WMS.
    pub(crate) fn deadlines(&mut self) {
        let due = match &self.scope {
            Scope::Full => {
                self.give_up_waves();
                self.book.due(self.now, DUE_MAX)
            }
            Scope::Open(only) => only.iter().copied().filter(|id| self.book.is_due(*id, self.now)).collect(),
            Scope::Entries => return,
        };
        for id in due {
            self.touch(id);
            let Some(open) = self.book.order(id) else { continue };
            if open.order.lines().iter().any(|l| l.unallocated > 0) {
                self.wanting.insert(id);
                continue;
            }
            if open.order.deadline(self.site.node.rules.backorder_max_wait) <= self.now {
                let facts = open.order.expire();
                self.record(id, facts);
            }
            self.ask_for_silent(id);
        }
        self.site.put_down();
    }

    fn give_up_waves(&mut self) {
        for wave in self.book.given_up(self.now) {
            for release in self.book.waves().get(&wave).cloned().unwrap_or_default() {
                let Some(open) = self.book.order(release.order) else { continue };
                let facts = open.order.given_up();
                if !facts.is_empty() {
                    self.record(release.order, facts);
                    let reason = "the WMS has not answered for too long".to_owned();
                    self.bury_order(release.order, reason);
                }
            }
        }
    }

    fn ask_for_silent(&mut self, id: TransactionId) {
        let Some(mut open) = self.book.remove(id) else { return };
        self.silent.extend(self.book.silent(&open, self.now));
        open.asked_at = self.now;
        self.book.insert(open);
    }

    /// Works the stock lane.
    pub(crate) fn moves(&mut self, entries: Vec<LaneEntry>) {
        for entry in entries {
            self.writes.taken.push((entry.lane, entry.n));
            match entry.item {
                LaneItem::Transaction(stored) if stored.version() == 1 => match stored.command {
                    Command::Move(command) => self.stock.moves.push(StockMove {
                        id: stored.id,
                        client: stored.client,
                        sku: command.sku,
                        change: command.change,
                    }),
                    Command::Order(_) | Command::Cancellation(_) | Command::Manifest(_) => {
                        let reason = "this kind of command is not worked in the stock lane".to_owned();
                        self.bury_entry((entry.lane, entry.n), Some(stored.id), reason);
                    }
                },
                // Decided in an earlier turn.
                LaneItem::Transaction(_) => {}
                LaneItem::Report(_) | LaneItem::Instruction(..) => {
                    let reason = "this belongs in the control lane".to_owned();
                    self.bury_entry((entry.lane, entry.n), None, reason);
                }
                LaneItem::Undecodable(id, reason) => {
                    self.bury_entry((entry.lane, entry.n), id, reason);
                }
            }
        }
    }

    /// Pulls orders, which visit already: each comes into the book and wants its stock, now or at
    /// its `not_before`; one that was cancelled in the lane is only taken out of it.
    pub(crate) fn pull(&mut self, entries: Vec<(u64, TransactionId)>) {
        // Sorts the samples: once a turn, not once an order.
        let report = self.book.pace.report(self.now);
        for (n, id) in entries {
            self.writes.taken.push((Lane::Work, n));
            if let Some(why) = self.unreadable.get(&id).cloned() {
                self.bury_entry((Lane::Work, n), Some(id), why);
                continue;
            }
            let Some(open) = self.visiting.remove(&id) else { continue };
            if open.order.is_done() {
                self.visiting.insert(id, open);
                continue;
            }
            let ahead = self.book.ready_len() as u64;
            if let Some(estimate) = report.estimate(ahead, None, self.now) {
                self.book.pace.forecast(id, estimate.shipped_p90);
            }
            self.writes.opened.push(id);
            let begins = open.order.may_begin(self.now);
            self.book.insert(open);
            if begins {
                self.touch(id);
                self.wanting.insert(id);
            }
        }
        self.site.put_down();
    }

    /// What the ledger is to do. First what facts have done, then receipts, then who waits is
    /// offered what is free, then the wants in the order given.
    pub(crate) fn stock_turn(&mut self) -> StockTurn {
        for id in std::mem::take(&mut self.reranked) {
            self.stock.forget.push(id);
            if let Some(open) = self.book.order(id) {
                self.stock.remember.push((open.client, open.order.waiting()));
            }
        }
        for id in std::mem::take(&mut self.wanting) {
            let Some(open) = self.book.order(id).filter(|o| !o.order.is_aside()) else { continue };
            let want = open.order.want();
            if !want.needs.is_empty() {
                self.stock.wants.push((open.client, want));
            }
        }
        std::mem::take(&mut self.stock)
    }

    /// Records what the ledger answered.
    pub(crate) fn placed(&mut self, answer: StockAnswer) {
        for (id, client, fact) in answer.moves {
            debug_assert!(movement::state_after(fact).is_final());
            self.note(id, client, 1, vec![Fact::Move(fact)]);
            self.writes.ended.push((id, self.now));
        }
        for placement in answer.placements {
            let Some(open) = self.order(placement.order) else { continue };
            let facts = open.order.placed(&placement);
            if placement.granted.is_empty() {
                // It waits for stock, and no pace says how long.
                self.book.pace.ended(placement.order);
            }
            self.record_placed(placement.order, facts);
        }
        self.writes.positions = answer.positions;
    }

    /// Has feeds told of positions that changed a while ago. One that its client cannot see is none.
    pub(super) fn tell_stock(&mut self) {
        for (key, _) in self.writes.positions.iter().filter(|(_, position)| position.known) {
            self.book.untold.changed(key, self.now);
        }
        if self.scope == Scope::Full {
            let due = self.book.untold.take_due(self.now);
            self.writes.told = due.into_iter().map(|key| (key, self.now)).collect();
        }
    }

    /// Has feeds told of orders that will ship at another time than their clients know of.
    pub(super) fn tell_estimates(&mut self) {
        if self.scope == Scope::Full {
            self.writes.estimates = self.book.promised_anew(&self.site.desk.snapshot(), self.now);
        }
    }
}
