//! Where an actor lives: on an arbiter's thread, or here, in the seeded world's one thread.

use actix::{Actor, Addr, ArbiterHandle, Context};

/// A place to start actors in. An actor never moves.
#[derive(Clone, Debug)]
pub(crate) enum Home {
    /// A thread of its own.
    Arbiter(ArbiterHandle),
    /// The current thread's `LocalSet`.
    Here,
}

impl Home {
    /// Starts the actor that `make` builds there. A panic of `make` kills nobody else.
    pub(crate) fn start<A, F>(&self, make: F) -> Addr<A>
    where
        A: Actor<Context = Context<A>>,
        F: FnOnce(&mut Context<A>) -> A + Send + 'static,
    {
        match self {
            Home::Arbiter(arbiter) => A::start_in_arbiter(arbiter, make),
            Home::Here => A::create(make),
        }
    }
}
