//! The bound of an actor's mailbox. actix's own capacity bounds nothing: every clone of an address
//! is a fresh sender with a place of its own. So a message carries a permit of its receiver's gate,
//! and without a permit it is not sent.

use actix::{Actor, Addr, Handler, Message};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use super::vitals::Vitals;

/// Counts the messages that an actor has not finished, up to a capacity.
#[derive(Clone, Debug)]
pub(crate) struct Gate(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    capacity: usize,
    depth: AtomicUsize,
    refused: AtomicU64,
}

/// A place behind a gate; given back when dropped, also by a panic or a dead mailbox.
#[derive(Debug)]
pub(crate) struct Permit(Gate);

impl Gate {
    /// A gate that lets `capacity` messages in at a time.
    pub(crate) fn new(capacity: usize) -> Gate {
        Gate(Arc::new(Counts { capacity, depth: AtomicUsize::new(0), refused: AtomicU64::new(0) }))
    }

    /// Takes a place, or counts a refusal.
    pub(crate) fn enter(&self) -> Option<Permit> {
        let room = |depth: usize| (depth < self.0.capacity).then_some(depth + 1);
        match self.0.depth.fetch_update(Relaxed, Relaxed, room) {
            Ok(_) => Some(Permit(self.clone())),
            Err(_) => {
                self.0.refused.fetch_add(1, Relaxed);
                None
            }
        }
    }

    /// Messages inside now.
    pub(crate) fn depth(&self) -> usize {
        self.0.depth.load(Relaxed)
    }

    /// Messages that it lets in at a time.
    pub(crate) fn capacity(&self) -> usize {
        self.0.capacity
    }

    /// Messages that it did not let in.
    pub(crate) fn refused(&self) -> u64 {
        self.0.refused.load(Relaxed)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.0.depth.fetch_sub(1, Relaxed);
    }
}

/// A message with its permit.
pub(crate) struct Gated<M> {
    /// The message.
    pub(crate) message: M,
    /// Keep it until the work is done.
    pub(crate) permit: Permit,
}

impl<M: Message> Message for Gated<M> {
    type Result = M::Result;
}

/// Why an actor did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AskError {
    /// Its gate is full.
    #[error("the actor's gate is full")]
    Refused,
    /// It is dead, or died over the message.
    #[error("the actor is gone")]
    Gone,
}

/// An actor's address and gate.
pub(crate) struct Door<A: Actor> {
    addr: Addr<A>,
    gate: Gate,
}

impl<A: Actor> Clone for Door<A> {
    fn clone(&self) -> Self {
        Door { addr: self.addr.clone(), gate: self.gate.clone() }
    }
}

impl<A: Actor<Context = actix::Context<A>>> Door<A> {
    /// The door of an actor that takes `capacity` messages at a time. The gate is a fresh one, so that
    /// what is left behind at a dead actor's gate takes no place at this one's; its vitals read it.
    pub(crate) fn new(addr: Addr<A>, capacity: usize, vitals: &Vitals) -> Door<A> {
        let gate = Gate::new(capacity);
        vitals.stands_behind(gate.clone());
        Door { addr, gate }
    }

    /// Sends a message and waits for its answer.
    pub(crate) async fn ask<M>(&self, message: M) -> Result<M::Result, AskError>
    where
        M: Message + Send + 'static,
        M::Result: Send,
        A: Handler<Gated<M>>,
    {
        let permit = self.gate.enter().ok_or(AskError::Refused)?;
        self.addr.send(Gated { message, permit }).await.map_err(|_| AskError::Gone)
    }

    /// The actor's address, for supervision.
    pub(crate) fn addr(&self) -> &Addr<A> {
        &self.addr
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_lets_in_its_capacity_and_a_dropped_permit_gives_its_place_back() {
        let gate = Gate::new(2);
        let first = gate.enter();
        let second = gate.enter();
        assert!(first.is_some() && second.is_some());
        assert!(gate.enter().is_none());
        drop(first);
        assert!(gate.enter().is_some());
        drop(second);
        assert_eq!(gate.depth(), 0);
    }

    #[test]
    fn a_panic_over_a_message_gives_its_place_back() {
        let gate = Gate::new(1);
        let inside = gate.clone();
        let died = std::panic::catch_unwind(move || {
            let _permit = inside.enter();
            panic!("over a message");
        });
        assert!(died.is_err());
        assert_eq!(gate.depth(), 0);
    }
}
