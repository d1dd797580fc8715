//! Notices an actor's end, whatever the cause. `actix::Supervisor` notices neither a panic nor
//! rebuilds from fresh state; a guard inside the actor is dropped in every case.

use actix::prelude::*;

/// Ends an actor; what stands behind it in its mailbox is dropped and its senders are told so.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Stop;

/// Runs its action when dropped, with whether a panic is unwinding.
pub(crate) struct Tripwire(Option<Box<dyn FnOnce(bool) + Send>>);

impl Tripwire {
    /// Sets the wire. The action must not block or panic: it may run while a panic unwinds.
    pub(crate) fn new(action: impl FnOnce(bool) + Send + 'static) -> Tripwire {
        Tripwire(Some(Box::new(action)))
    }
}

impl Drop for Tripwire {
    fn drop(&mut self) {
        if let Some(action) = self.0.take() {
            action(std::thread::panicking());
        }
    }
}
