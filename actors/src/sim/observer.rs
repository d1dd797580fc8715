//! Sees every commit, keeps the trace, and checks safety at each.

use parking_lot::Mutex;

use crate::domain::command::Command;
use crate::domain::fact::Fact;
use crate::domain::invariants::{self, Violation};
use crate::domain::order::Order;
use crate::domain::state::State;
use crate::ports::store::{StoredTransaction, TurnCommit};

/// Violations kept; the first says what is wrong, the hundredth says nothing more.
const VIOLATIONS_MAX: usize = 10;

/// The observer.
#[derive(Default)]
pub(crate) struct Observer {
    trace: Mutex<Vec<String>>,
    violations: Mutex<Vec<Violation>>,
}

impl Observer {
    pub(crate) fn note(&self, line: String) {
        self.trace.lock().push(line);
    }

    pub(crate) fn violated(&self, violation: Violation) {
        let mut violations = self.violations.lock();
        if violations.len() < VIOLATIONS_MAX {
            violations.push(violation);
        }
    }

    pub(crate) fn trace(&self) -> Vec<String> {
        self.trace.lock().clone()
    }

    pub(crate) fn violations(&self) -> Vec<Violation> {
        self.violations.lock().clone()
    }

    /// A turn is in the store: INV-3 of every position it wrote.
    pub(crate) fn positions(&self, turn: &TurnCommit) {
        for ((client, sku), position) in &turn.positions {
            let name = format!("client {} {sku}", client.0);
            if let Some(violation) = invariants::nothing_reserved_twice(&name, position) {
                self.violated(violation);
            }
        }
    }

    /// A transaction has new facts: INV-2 and INV-7.
    pub(crate) fn transaction(&self, stored: &StoredTransaction) {
        let Command::Order(command) = &stored.command else { return };
        let accepted = stored.facts.first().map(|f| f.at).unwrap_or_default();
        let mut order = Order::new(stored.id, command, accepted);
        let mut ended: Option<State> = None;
        for recorded in &stored.facts {
            if let Fact::Order(fact) = &recorded.fact {
                if let Some(state) = ended {
                    let found = format!("{} is {} and then {fact:?}", stored.id, state.as_str());
                    self.violated(Violation { id: "INV-7", found });
                }
                order.apply(fact, recorded.at);
                ended = order.state().is_final().then(|| order.state());
            }
        }
        if let Some(violation) = invariants::ships_at_most_once(&order) {
            self.violated(violation);
        }
    }
}
