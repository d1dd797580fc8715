//! The actor that works one warehouse turn by turn, and sleeps between them.
//!
//! While a turn runs, the book is away with it and no other message can touch it; memory is ahead
//! of the store by exactly the commit in flight. Whatever goes wrong ends the tree, and the tree is
//! rebuilt from the store: that is the only roll-back.

use actix::prelude::*;
use std::time::Duration;

use super::book::Book;
use super::conduct::{Hand, Tree, TurnError, run};
use super::desk::Nudge;
use super::report::Observed;
use super::site::Site;
use super::tripwire::{Stop, Tripwire};
use super::vitals::Handling;
use crate::domain::time::Timestamp;
use crate::ports::store::Fence;

/// The actor.
pub(crate) struct Pipeline {
    site: Site,
    fence: Fence,
    tree: Tree,
    /// Away while a turn runs.
    hand: Option<Hand>,
    /// The turn that runs.
    handling: Option<Handling>,
    again: bool,
    alarm: Option<SpawnHandle>,
    _tripwire: Tripwire,
}

impl Pipeline {
    pub(crate) fn new(site: Site, fence: Fence, tree: Tree, book: Book, tripwire: Tripwire) -> Pipeline {
        let hand = Some(Hand::new(book));
        Pipeline { site, fence, tree, hand, handling: None, again: false, alarm: None, _tripwire: tripwire }
    }

    fn begin_turn(&mut self, ctx: &mut Context<Self>) {
        let Some(hand) = self.hand.take() else {
            self.again = true;
            return;
        };
        self.again = false;
        self.handling = Some(self.site.desk.vitals().pipeline.handle());
        if let Some(alarm) = self.alarm.take() {
            ctx.cancel_future(alarm);
        }
        self.site.desk.looked();
        let turn = run(self.site.clone(), self.fence, self.tree.clone(), hand);
        ctx.spawn(turn.into_actor(self).map(|ended, pipeline, ctx| pipeline.end_turn(ended, ctx)));
    }

    fn show(&self, hand: &Hand) {
        self.site.desk.vitals().pipeline.show(Observed::Pipeline {
            backlog: self.site.desk.snapshot().backlog,
            open: hand.book.len(),
            ready: hand.book.ready_len(),
            credits_used: hand.book.credits_used(),
            unanswered_waves: hand.book.waves().len(),
            manifests: hand.book.manifests.len(),
        });
    }

    fn end_turn(&mut self, ended: Result<Hand, TurnError>, ctx: &mut Context<Self>) {
        self.handling = None;
        match ended {
            Ok(hand) => {
                self.show(&hand);
                let now = self.site.node.now();
                let next = hand.book.next_deadline().min(hand.standing.closes_at);
                let again = self.again || hand.more || next <= now || self.site.desk.is_nudged();
                self.hand = Some(hand);
                if again {
                    return self.begin_turn(ctx);
                }
                if next < Timestamp::NEVER {
                    // The timer may be early by a tick; the turn looks at the clock itself. An
                    // hour at most, since the wall clock may step.
                    let pause = next.since(now).min(Duration::from_secs(3_600)) + Duration::from_millis(1);
                    self.alarm = Some(ctx.run_later(pause, |pipeline, ctx| {
                        pipeline.alarm = None;
                        pipeline.begin_turn(ctx);
                    }));
                }
            }
            Err(why) => {
                let source = std::error::Error::source(&why).map(ToString::to_string);
                tracing::warn!(warehouse = %self.site.warehouse.code, %why, source, "a turn failed: the tree is dropped and rebuilt from the store");
                self.site.desk.vitals().pipeline.foretell(why.cause(), None);
                ctx.stop();
            }
        }
    }
}

impl Actor for Pipeline {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // A tree that was dropped before it ran must not say that it serves: nobody would take it back.
        if self.site.token.is_cancelled() {
            return ctx.stop();
        }
        self.site.desk.owner_is(self.fence.epoch, ctx.address().recipient());
        self.begin_turn(ctx);
    }
}

impl Handler<Stop> for Pipeline {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

impl Handler<Nudge> for Pipeline {
    type Result = ();

    fn handle(&mut self, _: Nudge, ctx: &mut Self::Context) {
        self.begin_turn(ctx);
    }
}
