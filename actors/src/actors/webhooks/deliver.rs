//! What an endpoint holds, and the steps that it takes whenever something has happened: record,
//! read, replay, attempt, wait. Each step does nothing when there is nothing to do, so that they
//! are taken in the same order after everything.

use actix::prelude::*;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::attempt::{self, Attempted};
use super::endpoint::{Endpoint, RETRY};
use super::queue::{Outcome, Queue, Settlement};
use crate::actors::events;
use crate::actors::site::Node;
use crate::domain::endpoint::{DisabledReason, EndpointId, Fortune, Schedule};
use crate::domain::ids::ClientNo;
use crate::domain::time::Timestamp;
use crate::ports::endpoints::{
    Attempt, DeadDelivery, Deliveries, DeliveryRecord, PendingDelivery, Replay, Standing, StoredEndpoint,
    Which,
};
use crate::ports::store::{CommitError, FeedEntry, Lookup, ReadError};
use crate::ports::webhook::{Answer, PostError};
use crate::wire::event::TypeFilter;

/// Entries of the feed that are read at a time; each is rendered to know its type.
const PAGE: usize = 32;
/// The cursor is recorded by itself when it is so far ahead of what is stored.
const CURSOR_AHEAD_MAX: u64 = 512;

/// What an endpoint works on.
pub(super) struct Held {
    pub(super) endpoint: Arc<StoredEndpoint>,
    pub(super) queue: Queue,
    pub(super) replays: VecDeque<Replay>,
    filter: TypeFilter,
    epoch: u64,
    fortune: Fortune,
    next_attempt: u64,
    unrecorded: Unrecorded,
    recorded_cursor: u64,
    recording: bool,
    /// The cursor may be recorded though little has happened.
    cursor_is_due: bool,
    reading: bool,
    may_have_more: bool,
    replaying: bool,
    /// Replays that are done and may still be found in the store.
    replayed: BTreeSet<uuid::Uuid>,
    disabled: bool,
    timer: Option<(Timestamp, SpawnHandle)>,
}

/// What has happened since the last record.
#[derive(Default)]
struct Unrecorded {
    pending: BTreeMap<u64, PendingDelivery>,
    finished: BTreeSet<u64>,
    dead: Vec<DeadDelivery>,
    revived: Vec<u64>,
    attempts: Vec<(u64, Attempt)>,
    replays: BTreeMap<uuid::Uuid, Option<Replay>>,
    disabled: Option<(DisabledReason, Timestamp)>,
}

impl Unrecorded {
    fn is_empty(&self) -> bool {
        self.pending.is_empty()
            && self.finished.is_empty()
            && self.dead.is_empty()
            && self.revived.is_empty()
            && self.attempts.is_empty()
            && self.replays.is_empty()
            && self.disabled.is_none()
    }
}

impl Held {
    pub(super) fn new(epoch: u64, found: Deliveries) -> Held {
        let Deliveries { endpoint, cursor, fortune, next_attempt, pending, replays } = found;
        let mut held = Held {
            queue: Queue::new(endpoint.settings.delivery, cursor, pending),
            endpoint: Arc::new(endpoint),
            replays: replays.into(),
            filter: TypeFilter::default(),
            epoch,
            fortune,
            next_attempt,
            unrecorded: Unrecorded::default(),
            recorded_cursor: cursor,
            recording: false,
            cursor_is_due: false,
            reading: false,
            may_have_more: true,
            replaying: false,
            replayed: BTreeSet::new(),
            disabled: false,
            timer: None,
        };
        held.refresh(held.endpoint.clone());
        held
    }

    /// The endpoint's record is another.
    pub(super) fn refresh(&mut self, endpoint: Arc<StoredEndpoint>) {
        self.filter = filter(&endpoint.settings.types);
        self.queue.mode_is(endpoint.settings.delivery);
        match endpoint.standing {
            Standing::Enabled => {}
            Standing::Disabled(_) | Standing::Deleted => self.disabled = true,
        }
        self.endpoint = endpoint;
    }

    /// Replays that wait: those that are known are further on than their record says.
    fn replays_are(&mut self, found: Vec<Replay>) {
        self.replayed.retain(|id| found.iter().any(|replay| replay.id == *id));
        let known = |id| self.replayed.contains(&id) || self.replays.iter().any(|known| known.id == id);
        let fresh: Vec<Replay> = found.into_iter().filter(|replay| !known(replay.id)).collect();
        self.replays.extend(fresh);
    }

    /// There may be more in the feed, and time has passed.
    pub(super) fn look(&mut self) {
        self.may_have_more = true;
        self.cursor_is_due = true;
    }

    /// Nothing more is to be sent.
    pub(super) fn is_disabled(&self) -> bool {
        self.disabled
    }

    /// Nothing is left to record.
    pub(super) fn is_recorded(&self) -> bool {
        !self.recording && self.unrecorded.is_empty()
    }

    /// Notes an attempt for the log.
    pub(super) fn log(&mut self, attempt: Attempt) {
        self.unrecorded.attempts.push((self.next_attempt, attempt));
        self.next_attempt += 1;
    }

    fn disable(&mut self, reason: DisabledReason, now: Timestamp) {
        if !std::mem::replace(&mut self.disabled, true) {
            tracing::warn!(endpoint = %self.endpoint.id, reason = reason.as_str(), "a webhook endpoint is disabled");
            self.unrecorded.disabled = Some((reason, now));
        }
    }

    fn note(&mut self, settlement: Settlement, why: &str, now: Timestamp) {
        let Settlement { pending, finished, dead, failed } = settlement;
        for sequence in finished {
            self.unrecorded.pending.remove(&sequence);
            self.unrecorded.finished.insert(sequence);
        }
        if let Some(row) = pending {
            self.unrecorded.finished.remove(&row.entry.sequence);
            self.unrecorded.pending.insert(row.entry.sequence, row);
        }
        if let Some(attempt) = failed {
            self.fortune.failed(attempt);
        }
        let Some((entry, attempts)) = dead else { return };
        let reason = match attempts {
            0 => why.to_owned(),
            n => format!("{n} attempts failed; the last: {why}"),
        };
        tracing::error!(endpoint = %self.endpoint.id, transaction_id = %entry.id, reason, "a delivery is kept aside");
        let (endpoint, client) = (self.endpoint.id, self.endpoint.client);
        self.unrecorded.dead.push(DeadDelivery { endpoint, client, entry, attempts, reason, at: now });
    }

    /// What is to be recorded now, if anything is.
    fn take_record(&mut self) -> Option<DeliveryRecord> {
        let cursor = self.queue.cursor();
        let ahead = cursor.saturating_sub(self.recorded_cursor);
        let due = ahead >= CURSOR_AHEAD_MAX || (ahead > 0 && std::mem::take(&mut self.cursor_is_due));
        if self.recording || (self.unrecorded.is_empty() && !due) {
            return None;
        }
        self.recording = true;
        self.recorded_cursor = cursor;
        let new = std::mem::take(&mut self.unrecorded);
        Some(DeliveryRecord {
            epoch: self.epoch,
            cursor,
            fortune: self.fortune,
            pending: new.pending.into_values().collect(),
            finished: new.finished.into_iter().collect(),
            dead: new.dead,
            revived: new.revived,
            attempts: new.attempts,
            replays: new.replays.into_iter().collect(),
            disabled: new.disabled,
        })
    }
}

fn filter(types: &[String]) -> TypeFilter {
    TypeFilter::new(types.iter().map(String::as_str)).unwrap_or_default()
}

/// How far an attempt came.
enum Flight {
    Posted(Attempted),
    Unsendable,
    Unreadable(ReadError),
}

/// A page of the feed: which entries are wanted, and the last of all.
struct Page {
    wanted: Vec<FeedEntry>,
    last: Option<u64>,
    /// The first entry that was there.
    first: Option<u64>,
    full: bool,
}

async fn read_page(
    node: &Node,
    client: ClientNo,
    after: u64,
    filter: &TypeFilter,
) -> Result<Page, ReadError> {
    let entries = node.store.feed(client, after, PAGE).await?;
    let first = entries.first().map(|entry| entry.sequence);
    let last = entries.last().map(|entry| entry.sequence);
    let full = entries.len() == PAGE;
    let mut wanted = Vec::new();
    for entry in entries {
        // What cannot be rendered is told of and counted there.
        let event = events::event(node, client, entry).await?;
        wanted.extend(event.filter(|event| filter.passes(event.event_type)).map(|_| entry));
    }
    Ok(Page { wanted, last, first, full })
}

/// What a replay is to take up, and how it stands then; `None`: it is done.
async fn read_replay(
    node: &Node,
    (client, id): (ClientNo, EndpointId),
    replay: Replay,
    until_sequence: u64,
    own: &TypeFilter,
) -> Result<(Vec<FeedEntry>, Option<Replay>), ReadError> {
    let (since, until, types) = match &replay.which {
        Which::One(sequence) => {
            let dead = node.store.dead_delivery(id, *sequence).await?;
            return Ok((dead.map(|dead| dead.entry).into_iter().collect(), None));
        }
        Which::Span { since, until, types } => (*since, *until, types),
    };
    let filter = if types.is_empty() { own.clone() } else { filter(types) };
    let entries = node.store.feed(client, replay.cursor, PAGE).await?;
    let full = entries.len() == PAGE;
    let mut wanted = Vec::new();
    let mut cursor = replay.cursor;
    for entry in entries.into_iter().take_while(|entry| entry.sequence <= until_sequence) {
        cursor = entry.sequence;
        let within = |at: Timestamp| at >= since && at <= until;
        if time_of(node, entry).await?.is_some_and(within) {
            let event = events::event(node, client, entry).await?;
            wanted.extend(event.filter(|event| filter.passes(event.event_type)).map(|_| entry));
        }
    }
    let on = full && cursor < until_sequence;
    Ok((wanted, on.then_some(Replay { cursor, ..replay })))
}

async fn time_of(node: &Node, entry: FeedEntry) -> Result<Option<Timestamp>, ReadError> {
    match node.store.transaction(entry.id).await {
        Ok(Some(Lookup::Live(stored))) => {
            let place = usize::try_from(entry.version).ok().and_then(|version| version.checked_sub(1));
            Ok(place.and_then(|place| stored.facts.get(place)).map(|recorded| recorded.at))
        }
        Ok(Some(Lookup::Expired(_)) | None) | Err(ReadError::Corrupt { .. }) => Ok(None),
        Err(e @ ReadError::Unavailable(_)) => Err(e),
    }
}

impl Endpoint {
    /// Takes every step that can be taken now.
    pub(super) fn go_on(&mut self, ctx: &mut Context<Self>) {
        self.record(ctx);
        if !self.end_if_done(ctx) && self.may_begin() {
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
                    ctx.run_later(RETRY, move |endpoint, ctx| endpoint.write(record, ctx));
                }
                Err(why @ (CommitError::Conflict | CommitError::Unknown(_))) => {
                    tracing::warn!(%why, "a webhook endpoint's record is not known to be written");
                    endpoint.die((&why).into(), ctx);
                }
            }
        }));
    }

    fn written(&mut self, record: &DeliveryRecord, ctx: &mut Context<Self>) {
        self.node.hooks.kept_aside(record.dead.len());
        let Some(held) = &mut self.held else { return };
        held.recording = false;
        if record.disabled.is_some() {
            self.node.bell.ring(held.endpoint.client);
            self.node.hooks.look();
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
        if held.replaying || !held.queue.has_room() {
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
            let Some(held) = &mut self.held else { return };
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
                held.heed(&answer, now);
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

    /// Sets the clock for the next attempt that is not due yet.
    fn wait(&mut self, ctx: &mut Context<Self>) {
        let now = self.node.now();
        let Some(held) = &mut self.held else { return };
        let due = held.queue.next_at();
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

impl Held {
    fn take_up(&mut self, page: Page, now: Timestamp) {
        let Page { wanted, last, first, full } = page;
        let expected = self.queue.taken_to() + 1;
        if let Some(first) = first.filter(|first| *first > expected) {
            tracing::warn!(endpoint = %self.endpoint.id, from = expected, to = first - 1, "events were evicted before a webhook endpoint took them up");
        }
        for entry in wanted {
            let finished = self.queue.take_up(entry, now);
            self.note(Settlement { finished, ..Settlement::default() }, "", now);
        }
        if let Some(last) = last {
            self.queue.passed(last);
        }
        self.may_have_more |= full;
    }

    fn take_up_again(&mut self, wanted: Vec<FeedEntry>, now: Timestamp) {
        for entry in wanted {
            if let Some(settlement) = self.queue.take_up_again(entry, now) {
                self.unrecorded.revived.push(entry.sequence);
                self.note(settlement, "", now);
            }
        }
    }

    /// Does what an answer asks of us beyond the one event.
    fn heed(&mut self, answer: &Result<Answer, PostError>, now: Timestamp) {
        match answer {
            Ok(Answer { status: 410, .. }) => self.disable(DisabledReason::Gone, now),
            Ok(Answer { disable: true, .. }) => self.disable(DisabledReason::Asked, now),
            Ok(Answer { disable: false, .. }) | Err(_) => {}
        }
    }
}

/// What an answer means for the event, and in words for who finds it kept aside.
fn judged(answer: &Result<Answer, PostError>, fortune: &mut Fortune, now: Timestamp) -> (Outcome, String) {
    match answer {
        Ok(Answer { status: 200..=299, .. }) => {
            *fortune = Fortune::new(now);
            (Outcome::Delivered, String::new())
        }
        Ok(Answer { status, retry_after, .. }) => {
            let retry_after = retry_after.filter(|_| matches!(status, 429 | 503));
            (Outcome::Failed { retry_after }, format!("it answered with status {status}"))
        }
        Err(why) => (Outcome::Failed { retry_after: None }, why.to_string()),
    }
}
