//! What an endpoint holds in memory: its queue, and what has happened since the last record.

use actix::SpawnHandle;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use uuid::Uuid;

use super::queue::{Outcome, Queue, Settlement};
use super::reading::Page;
use crate::domain::endpoint::{DeliveryMode, DisabledReason, Fortune};
use crate::domain::time::Timestamp;
use crate::ports::endpoints::{
    Attempt, DeadDelivery, Deliveries, DeliveryRecord, PendingDelivery, Replay, Skipped, Standing,
    StoredEndpoint,
};
use crate::ports::store::FeedEntry;
use crate::ports::webhook::{Answer, PostError};
use crate::wire::event::TypeFilter;

/// The cursor is recorded by itself when it is so far ahead of what is stored.
const CURSOR_AHEAD_MAX: u64 = 512;

/// What an endpoint works on.
pub(super) struct Held {
    pub(super) endpoint: Arc<StoredEndpoint>,
    pub(super) queue: Queue,
    pub(super) replays: VecDeque<Replay>,
    pub(super) filter: TypeFilter,
    pub(super) epoch: u64,
    pub(super) fortune: Fortune,
    pub(super) next_attempt: u64,
    pub(super) unrecorded: Unrecorded,
    pub(super) recorded_cursor: u64,
    pub(super) recording: bool,
    /// The last record did not go through yet: nothing more is begun until it has.
    pub(super) troubled: bool,
    /// The cursor may be recorded though little has happened.
    pub(super) cursor_is_due: bool,
    pub(super) reading: bool,
    pub(super) may_have_more: bool,
    pub(super) replaying: bool,
    /// What was skipped while it was disabled and may still replace what waited before.
    pub(super) skipped: Option<Skipped>,
    pub(super) looking_back: bool,
    /// The feed was read to its end once, or as far as there was room.
    caught_up: bool,
    /// Replays that are done and may still be found in the store.
    pub(super) replayed: BTreeSet<Uuid>,
    pub(super) disabled: bool,
    pub(super) timer: Option<(Timestamp, SpawnHandle)>,
}

/// What has happened since the last record.
#[derive(Default)]
pub(super) struct Unrecorded {
    pub(super) pending: BTreeMap<u64, PendingDelivery>,
    pub(super) finished: BTreeSet<u64>,
    pub(super) dead: Vec<DeadDelivery>,
    pub(super) revived: Vec<u64>,
    pub(super) attempts: Vec<(u64, Attempt)>,
    pub(super) replays: BTreeMap<Uuid, Option<Replay>>,
    pub(super) disabled: Option<(DisabledReason, Timestamp)>,
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
        let Deliveries { endpoint, cursor, fortune, next_attempt, rest, skipped, pending, replays } = found;
        let mut held = Held {
            queue: Queue::new(endpoint.settings.delivery, cursor, pending, rest),
            endpoint: Arc::new(endpoint),
            replays: replays.into(),
            filter: TypeFilter::default(),
            epoch,
            fortune,
            next_attempt,
            unrecorded: Unrecorded::default(),
            recorded_cursor: cursor,
            recording: false,
            troubled: false,
            cursor_is_due: false,
            reading: false,
            may_have_more: true,
            replaying: false,
            skipped,
            looking_back: false,
            caught_up: false,
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
        if endpoint.settings.url != self.endpoint.settings.url {
            self.queue.has_moved();
        }
        for replaced in self.queue.mode_is(endpoint.settings.delivery) {
            self.unrecorded.pending.remove(&replaced);
            self.unrecorded.finished.insert(replaced);
        }
        match endpoint.standing {
            Standing::Enabled => {}
            Standing::Disabled(_) | Standing::Deleted => self.disabled = true,
        }
        self.endpoint = endpoint;
    }

    /// Replays that wait: those that are known are further on than their record says.
    pub(super) fn replays_are(&mut self, found: Vec<Replay>) {
        self.replayed.retain(|id| found.iter().any(|replay| replay.id == *id));
        let known = |id| self.replayed.contains(&id) || self.replays.iter().any(|known| known.id == id);
        let fresh: Vec<Replay> = found.into_iter().filter(|replay| !known(replay.id)).collect();
        self.replays.extend(fresh);
    }

    /// There may be more in the feed.
    pub(super) fn ring(&mut self) {
        self.may_have_more = true;
    }

    /// There may be more in the feed, and time has passed.
    pub(super) fn look(&mut self) {
        self.ring();
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

    pub(super) fn disable(&mut self, reason: DisabledReason, now: Timestamp) {
        if !std::mem::replace(&mut self.disabled, true) {
            tracing::warn!(endpoint = %self.endpoint.id, reason = reason.as_str(), "a webhook endpoint is disabled");
            self.unrecorded.disabled = Some((reason, now));
        }
    }

    pub(super) fn note(&mut self, settlement: Settlement, why: &str, now: Timestamp) {
        let Settlement { pending, finished, dead, failed } = settlement;
        for sequence in finished {
            self.unrecorded.pending.remove(&sequence);
            self.unrecorded.finished.insert(sequence);
        }
        for row in pending {
            self.unrecorded.finished.remove(&row.entry.sequence);
            self.unrecorded.dead.retain(|dead| dead.entry.sequence != row.entry.sequence);
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
    pub(super) fn take_record(&mut self) -> Option<DeliveryRecord> {
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
            rest: self.queue.rest(),
            skipped: self.skipped,
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

/// A filter of an endpoint's types.
pub(super) fn filter(types: &[String]) -> TypeFilter {
    TypeFilter::new(types.iter().map(String::as_str)).unwrap_or_default()
}

impl Held {
    pub(super) fn take_up(&mut self, page: Page, now: Timestamp) {
        let Page { wanted, last, first, full } = page;
        let expected = self.queue.taken_to() + 1;
        if let Some(first) = first.filter(|first| *first > expected) {
            tracing::warn!(endpoint = %self.endpoint.id, from = expected, to = first - 1, "events were evicted before a webhook endpoint took them up");
        }
        for entry in wanted {
            let taken = self.queue.take_up(entry, now);
            self.note(taken, "", now);
        }
        if let Some(last) = last {
            self.queue.passed(last);
        }
        self.may_have_more |= full;
        self.caught_up |= !full;
    }

    /// Whether attempts may begin. With `latest` a row, or an event that is read again, may have been
    /// replaced before a death by a newer one that was delivered and is in no record: what is to
    /// replace it again is read first, or versions would go back at the consumer.
    pub(super) fn may_attempt(&mut self) -> bool {
        self.caught_up |= !self.queue.has_room();
        let is_ready = match self.endpoint.settings.delivery {
            DeliveryMode::Latest => self.caught_up && self.skipped.is_none(),
            DeliveryMode::Every => true,
        };
        is_ready && !self.troubled
    }

    /// What is to be looked through before anything is begun: where every event counts, or none waits,
    /// what was skipped replaces nothing.
    pub(super) fn left_to_look_through(&mut self) -> Option<Skipped> {
        let replaces = match self.endpoint.settings.delivery {
            DeliveryMode::Latest => self.queue.len() > 0,
            DeliveryMode::Every => false,
        };
        self.skipped = self.skipped.filter(|_| replaces);
        self.skipped.filter(|_| !self.looking_back)
    }

    /// Of what was skipped this much was looked through: these are newer than what waits of their
    /// transactions.
    pub(super) fn looked_through(&mut self, newer: Vec<FeedEntry>, left: Option<Skipped>, now: Timestamp) {
        (self.looking_back, self.skipped) = (false, left);
        if self.endpoint.settings.delivery == DeliveryMode::Latest {
            for entry in newer {
                let finished = self.queue.replaced_by(entry);
                self.note(Settlement { finished, ..Settlement::default() }, "", now);
            }
        }
    }

    pub(super) fn take_up_again(&mut self, wanted: Vec<FeedEntry>, now: Timestamp) {
        for entry in wanted {
            if let Some(settlement) = self.queue.take_up_again(entry, now) {
                self.unrecorded.revived.push(entry.sequence);
                self.note(settlement, "", now);
            }
        }
    }

    /// Does what an answer asks of us beyond the one event.
    pub(super) fn obey(&mut self, answer: &Result<Answer, PostError>, now: Timestamp) {
        match answer {
            Ok(Answer { status: 410, .. }) => self.disable(DisabledReason::Gone, now),
            Ok(Answer { disable: true, .. }) => self.disable(DisabledReason::Asked, now),
            Ok(Answer { disable: false, .. }) | Err(_) => {}
        }
    }
}

/// What an answer means for the event, and in words for who finds it kept aside.
pub(super) fn judged(
    answer: &Result<Answer, PostError>,
    fortune: &mut Fortune,
    now: Timestamp,
) -> (Outcome, String) {
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
