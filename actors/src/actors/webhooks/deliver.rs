//! The steps that an endpoint takes whenever something has happened: record, look back, read, replay,
//! attempt, wait. Each does nothing when there is nothing to do, so that they are taken in the same order
//! after everything.

use actix::prelude::*;

use super::attempt::{self, Attempted};
use super::endpoint::{Endpoint, RETRY};
use super::held::{Held, judged};
use super::queue::Outcome;
use super::reading::{read_page, read_replay, read_skipped};
use crate::domain::endpoint::{DisabledReason, Schedule};
use crate::ports::endpoints::DeliveryRecord;
use crate::ports::faults::FaultPoint;
use crate::ports::membership::Word;
use crate::ports::store::{CommitError, ReadError};

/// How far an attempt came.
enum Flight {
    Posted(Attempted),
    Unsendable,
    Unreadable(ReadError),
}

impl Endpoint {
    /// Takes every step that can be taken now.
    pub(super) fn go_on(&mut self, ctx: &mut Context<Self>) {
        self.record(ctx);
        if !self.end_if_done(ctx) && self.may_begin() {
            self.look_back(ctx);
            self.read(ctx);
            self.replay(ctx);
            self.attempt(ctx);
            self.wait(ctx);
        }
        self.show();
    }

    fn record(&mut self, ctx: &mut Context<Self>) {
        let Some(record) = self.held.as_mut().and_then(Held::take_record) else { return };
        self.write(record, ctx);
    }

    fn write(&mut self, record: DeliveryRecord, ctx: &mut Context<Self>) {
        let Some(held) = &self.held else { return };
        let written = self.node.store.record(held.endpoint.client, held.endpoint.id, record.clone());
        ctx.spawn(written.into_actor(self).map(move |written, endpoint, ctx| {
            let _handling = endpoint.hook.vitals.handle();
            match written {
                Ok(()) => endpoint.written(&record, ctx),
                // Nothing was written; until it is nothing more is begun.
                Err(why @ (CommitError::Full | CommitError::Unavailable(_))) => {
                    tracing::warn!(%why, "a webhook endpoint's record did not go through and is tried again");
                    if let Some(held) = &mut endpoint.held {
                        held.troubled = true;
                    }
                    ctx.run_later(RETRY, move |endpoint, ctx| endpoint.write(record, ctx));
                }
                // It is deleted: there is nothing left to record.
                Err(CommitError::Conflict) if endpoint.held.as_ref().is_some_and(Held::is_disabled) => {
                    endpoint.end(ctx);
                }
                Err(why @ (CommitError::Conflict | CommitError::Unknown(_))) => {
                    tracing::warn!(%why, "a webhook endpoint's record is not known to be written");
                    endpoint.die((&why).into(), ctx);
                }
            }
        }));
    }

    fn written(&mut self, record: &DeliveryRecord, ctx: &mut Context<Self>) {
        self.node.faults.strike(FaultPoint::EndpointRecorded, None);
        self.node.hooks.kept_aside(record.dead.len());
        let Some(held) = &mut self.held else { return };
        (held.recording, held.troubled) = (false, false);
        record.dead.iter().for_each(|dead| held.queue.ended(dead.entry.sequence));
        if record.disabled.is_some() {
            let client = held.endpoint.client;
            self.node.bell.ring(client);
            self.node.ownership.tell(|| Word::Fed(client));
            self.node.endpoints_changed();
        }
        self.go_on(ctx);
    }

    fn read(&mut self, ctx: &mut Context<Self>) {
        let Some(held) = &mut self.held else { return };
        if held.reading || !held.may_have_more || !held.queue.has_room() {
            return;
        }
        (held.reading, held.may_have_more) = (true, false);
        let (node, client, filter) = (self.node.clone(), held.endpoint.client, held.filter.clone());
        let after = held.queue.taken_to();
        let page = async move { read_page(&node, client, after, &filter).await };
        ctx.spawn(page.into_actor(self).map(|page, endpoint, ctx| {
            let _handling = endpoint.hook.vitals.handle();
            let now = endpoint.node.now();
            let Some(held) = &mut endpoint.held else { return };
            held.reading = false;
            match page {
                Ok(page) => held.take_up(page, now),
                Err(why) => endpoint.look_again(&why, ctx),
            }
            endpoint.go_on(ctx);
        }));
    }

    /// Looks through what was skipped while it was disabled. With `latest` it replaces what waited before:
    /// an old version would come behind newer ones that nobody sends.
    fn look_back(&mut self, ctx: &mut Context<Self>) {
        let Some(held) = &mut self.held else { return };
        let Some(skipped) = held.left_to_look_through() else { return };
        held.looking_back = true;
        let (node, client, filter) = (self.node.clone(), held.endpoint.client, held.filter.clone());
        let of = held.queue.subjects();
        let read = async move { read_skipped(&node, client, skipped, &of, &filter).await };
        ctx.spawn(read.into_actor(self).map(move |read, endpoint, ctx| {
            let _handling = endpoint.hook.vitals.handle();
            let now = endpoint.node.now();
            let Some(held) = &mut endpoint.held else { return };
            match read {
                Ok((newer, left)) => held.looked_through(newer, left, now),
                Err(why) => {
                    // The next try begins with the pause that any read gets.
                    ctx.run_later(RETRY, |endpoint, _| {
                        if let Some(held) = &mut endpoint.held {
                            held.looking_back = false;
                        }
                    });
                    endpoint.look_again(&why, ctx);
                }
            }
            endpoint.go_on(ctx);
        }));
    }

    /// A read did not go through: look again in a while.
    fn look_again(&mut self, why: &ReadError, ctx: &mut Context<Self>) {
        tracing::warn!(%why, "a webhook endpoint cannot read the store and tries again");
        ctx.run_later(RETRY, |endpoint, ctx| {
            if let Some(held) = &mut endpoint.held {
                held.look();
            }
            endpoint.go_on(ctx);
        });
    }

    /// Reads what has been asked to be replayed.
    pub(super) fn read_replays(&mut self, ctx: &mut Context<Self>) {
        let Some(held) = &self.held else { return };
        let found = self.node.store.replays(held.endpoint.id);
        ctx.spawn(found.into_actor(self).map(|found, endpoint, ctx| {
            match (found, &mut endpoint.held) {
                (Ok(found), Some(held)) => held.replays_are(found),
                (Ok(_), None) => {}
                (Err(why), _) => {
                    tracing::warn!(%why, "a webhook endpoint cannot read what to replay and tries again");
                    ctx.run_later(RETRY, |endpoint, ctx| endpoint.read_replays(ctx));
                }
            }
            endpoint.go_on(ctx);
        }));
    }

    fn replay(&mut self, ctx: &mut Context<Self>) {
        let Some(held) = &mut self.held else { return };
        // What is asked for again must not be replaced by what was skipped.
        if held.replaying || held.skipped.is_some() || !held.queue.has_room() {
            return;
        }
        let Some(replay) = held.replays.front().cloned() else { return };
        held.replaying = true;
        let (node, filter) = (self.node.clone(), held.filter.clone());
        let (of, until) = ((held.endpoint.client, held.endpoint.id), held.queue.taken_to());
        let id = replay.id;
        let read = async move { read_replay(&node, of, replay, until, &filter).await };
        ctx.spawn(read.into_actor(self).map(move |read, endpoint, ctx| {
            let _handling = endpoint.hook.vitals.handle();
            let now = endpoint.node.now();
            let Some(held) = &mut endpoint.held else { return };
            match read {
                Ok((wanted, on)) => {
                    held.replaying = false;
                    held.take_up_again(wanted, now);
                    held.replays.pop_front();
                    if on.is_none() {
                        held.replayed.insert(id);
                    }
                    held.replays.extend(on.clone());
                    held.unrecorded.replays.insert(id, on);
                }
                Err(why) => {
                    // The next try begins with the pause that any read gets.
                    ctx.run_later(RETRY, |endpoint, _| {
                        if let Some(held) = &mut endpoint.held {
                            held.replaying = false;
                        }
                    });
                    endpoint.look_again(&why, ctx);
                }
            }
            endpoint.go_on(ctx);
        }));
    }

    fn attempt(&mut self, ctx: &mut Context<Self>) {
        let now = self.node.now();
        loop {
            let Some(held) = self.held.as_mut() else { return };
            if !held.may_attempt() {
                return;
            }
            let Some((entry, behind)) = held.queue.next(now) else { return };
            let (node, endpoint) = (self.node.clone(), held.endpoint.clone());
            let flight = async move {
                match attempt::message(&node, &endpoint, entry).await {
                    Ok(Some(message)) => {
                        Flight::Posted(attempt::post(node, endpoint, message, behind.saturating_add(1)).await)
                    }
                    Ok(None) => Flight::Unsendable,
                    Err(why) => Flight::Unreadable(why),
                }
            };
            ctx.spawn(flight.into_actor(self).map(move |flight, endpoint, ctx| {
                let _handling = endpoint.hook.vitals.handle();
                endpoint.node.faults.strike(FaultPoint::EndpointAnswered, None);
                endpoint.landed(entry.sequence, flight);
                endpoint.go_on(ctx);
            }));
        }
    }

    fn landed(&mut self, sequence: u64, flight: Flight) {
        let (now, jitter) = (self.node.now(), self.node.entropy.below(Schedule::JITTER));
        let Some(held) = &mut self.held else { return };
        let (outcome, why) = match flight {
            Flight::Posted(Attempted { attempt, answer }) => {
                held.log(attempt);
                held.obey(&answer, now);
                judged(&answer, &mut held.fortune, now)
            }
            Flight::Unsendable => (Outcome::Unsendable, "it cannot be rendered".to_owned()),
            Flight::Unreadable(why) => {
                tracing::warn!(%why, "an event cannot be read for a webhook and is tried again");
                (Outcome::Postponed(now.after(RETRY)), String::new())
            }
        };
        let settlement = held.queue.settle(sequence, outcome, &self.node.hooks.schedule, now, jitter);
        held.note(settlement, &why, now);
        if held.fortune.is_hopeless(now) {
            held.disable(DisabledReason::Failing, now);
        }
    }

    /// Sets the clock for the next attempt that is not due yet. While none may begin, a clock would only
    /// ring again and again for what is due already.
    fn wait(&mut self, ctx: &mut Context<Self>) {
        let now = self.node.now();
        let Some(held) = &mut self.held else { return };
        let due = if held.may_attempt() { held.queue.next_at() } else { None };
        if held.timer.map(|(at, _)| at) == due {
            return;
        }
        if let Some((_, timer)) = held.timer.take() {
            ctx.cancel_future(timer);
        }
        if let Some(at) = due {
            let timer = ctx.run_later(at.since(now), |endpoint, ctx| {
                let _handling = endpoint.hook.vitals.handle();
                if let Some(held) = &mut endpoint.held {
                    held.timer = None;
                }
                endpoint.go_on(ctx);
            });
            held.timer = Some((at, timer));
        }
    }
}
