//! The actor that works one warehouse turn by turn, and sleeps between them.
//!
//! While a turn runs, the book is away with it and no other message can touch it; memory is ahead
//! of the store by exactly the commit in flight. Whatever goes wrong ends the tree, and the tree is
//! rebuilt from the store: that is the only roll-back.

use actix::prelude::*;
use std::time::Duration;
use tokio::time::Instant;

use super::conduct::{Hand, Tree, TurnError, run};
use super::desk::Nudge;
use super::report::Observed;
use super::site::Site;
use super::tripwire::{Stop, Tripwire};
use super::vitals::Handling;
use crate::domain::time::Timestamp;
use crate::ports::store::Fence;

/// After a turn that found little, the next begins no sooner than this after it began. What comes
/// meanwhile is worked together, for one commit of many things costs little more than one of a single
/// thing; and accepting is not held up by turns that find nothing. Five of these stand between an
/// order and its truck.
const GATHERS_FOR: Duration = Duration::from_millis(20);
/// The longest such pause.
const GATHERS_FOR_MAX: Duration = Duration::from_millis(80);
/// A tree that finds little is at work for one part in this many of its time. The more trees wait
/// for one disk and processor, the longer their turns take; so they gather for longer, and a hundred
/// small warehouses cost no more than three large ones.
const WORKS_ONE_IN: u32 = 8;
/// A turn that found as much as this is followed at once: its commit took long enough.
const INPUTS_FULL: usize = 64;

/// How long after a turn's begin the next may begin.
fn gathers_for(inputs: usize, took: Duration) -> Duration {
    if inputs >= INPUTS_FULL {
        return Duration::ZERO;
    }
    (took * WORKS_ONE_IN).clamp(GATHERS_FOR, GATHERS_FOR_MAX)
}

/// The actor.
pub(crate) struct Pipeline {
    site: Site,
    fence: Fence,
    tree: Tree,
    /// Away while a turn runs.
    hand: Option<Hand>,
    /// The turn that runs.
    handling: Option<Handling>,
    /// When the last turn began.
    begun: Option<Instant>,
    /// How long after that the next may begin.
    gathers_for: Duration,
    again: bool,
    /// True while the next turn only waits for its time.
    due: bool,
    alarm: Option<SpawnHandle>,
    _tripwire: Tripwire,
}

impl Pipeline {
    pub(crate) fn new(site: Site, fence: Fence, tree: Tree, hand: Hand, tripwire: Tripwire) -> Pipeline {
        let hand = Some(hand);
        Pipeline {
            site,
            fence,
            tree,
            hand,
            handling: None,
            begun: None,
            gathers_for: Duration::ZERO,
            again: false,
            due: false,
            alarm: None,
            _tripwire: tripwire,
        }
    }

    /// Begins a turn as soon as that may be.
    fn next_turn(&mut self, ctx: &mut Context<Self>) {
        let pause =
            self.begun.map_or(Duration::ZERO, |begun| self.gathers_for.saturating_sub(begun.elapsed()));
        match pause {
            _ if self.hand.is_none() => self.again = true,
            Duration::ZERO => self.begin_turn(ctx),
            _ if self.due => {}
            pause => {
                self.due = true;
                self.wake_in(pause, ctx);
            }
        }
    }

    fn wake_in(&mut self, pause: Duration, ctx: &mut Context<Self>) {
        let alarm = ctx.run_later(pause, |pipeline, ctx| {
            pipeline.alarm = None;
            pipeline.begin_turn(ctx);
        });
        if let Some(before) = self.alarm.replace(alarm) {
            ctx.cancel_future(before);
        }
    }

    fn begin_turn(&mut self, ctx: &mut Context<Self>) {
        let Some(hand) = self.hand.take() else {
            self.again = true;
            return;
        };
        (self.again, self.due, self.begun) = (false, false, Some(Instant::now()));
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
                let took = self.begun.map_or(Duration::ZERO, |begun| begun.elapsed());
                self.gathers_for = gathers_for(hand.inputs, took);
                let now = self.site.node.now();
                let next = hand.book.next_deadline().min(hand.book.next_look()).min(hand.standing.closes_at);
                let again = self.again || hand.more || next <= now || self.site.desk.is_nudged();
                self.hand = Some(hand);
                if again {
                    return self.next_turn(ctx);
                }
                if next < Timestamp::NEVER {
                    // The timer may be early by a tick; the turn looks at the clock itself. An
                    // hour at most, since the wall clock may step.
                    let pause = next.since(now).min(Duration::from_secs(3_600)) + Duration::from_millis(1);
                    self.wake_in(pause, ctx);
                }
            }
            Err(why) => {
                let source = std::error::Error::source(&why).map(ToString::to_string);
                if why.is_the_stores() {
                    self.site.desk.excuse();
                }
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
        self.next_turn(ctx);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_that_finds_little_gathers_the_longer_the_longer_its_turns_take() {
        let ms = Duration::from_millis;
        assert_eq!(gathers_for(INPUTS_FULL - 1, ms(1)), GATHERS_FOR);
        assert_eq!(gathers_for(0, ms(5)), ms(40));
        assert_eq!(gathers_for(0, ms(500)), GATHERS_FOR_MAX);
        assert_eq!(gathers_for(INPUTS_FULL, ms(500)), Duration::ZERO, "many are worked without a pause");
    }
}
