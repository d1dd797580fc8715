//! Where webhook endpoints and what is to be delivered to them are kept.
//!
//! An endpoint reads its client's feed by a cursor: every event up to it is finished or has a row
//! of its own as [`PendingDelivery`]. What lies beyond is in no record; it is read again. So an
//! attempt needs no write before it, and a death between an attempt and its record repeats the
//! attempt with the same id: at least once is the promise. An event that has failed for the last time
//! lets the next of its transaction go only once its dead letter is durable: one commit, after a whole
//! schedule of failures, and a death in between cannot turn their order round.
//!
//! One actor at a time writes how deliveries go ([`EndpointStore::record`]), fenced by an epoch.
//! Everybody else leaves a word ([`EndpointChange`]) that it finds by reading.

use serde::{Deserialize, Serialize};
use std::time::Duration;
use uuid::Uuid;

use super::BoxFuture;
use super::store::{CommitError, FeedEntry, ReadError, Written};
pub use crate::domain::endpoint::{Attempt, AttemptOutcome, Standing, StoredEndpoint};
use crate::domain::endpoint::{DisabledReason, EndpointId, EndpointSettings, Fortune, Secret};
use crate::domain::ids::ClientNo;
use crate::domain::time::Timestamp;

/// Durable state of webhooks; the same rules hold as for [`super::store::Store`].
pub trait EndpointStore: Send + Sync + 'static {
    /// Keeps a new endpoint, enabled, which reads its client's feed from its end on. `None` when its
    /// client has `max` of them.
    fn create_endpoint(
        &self,
        endpoint: StoredEndpoint,
        max: usize,
    ) -> BoxFuture<Result<Written<Option<StoredEndpoint>>, CommitError>>;

    /// Changes an endpoint; answers how it is then, `None` when there is none.
    fn change_endpoint(
        &self,
        client: ClientNo,
        id: EndpointId,
        change: EndpointChange,
    ) -> BoxFuture<Result<Written<Changed>, CommitError>>;

    /// All endpoints of all clients, by client and id; those that are deleted and not yet purged too.
    fn endpoints(&self) -> BoxFuture<Result<Vec<StoredEndpoint>, ReadError>>;

    /// A client's endpoints by id.
    fn endpoints_of(&self, client: ClientNo) -> BoxFuture<Result<Vec<StoredEndpoint>, ReadError>>;

    /// One of a client's endpoints.
    fn endpoint(
        &self,
        client: ClientNo,
        id: EndpointId,
    ) -> BoxFuture<Result<Option<StoredEndpoint>, ReadError>>;

    /// Makes the caller the only one that records deliveries: raises the epoch, which it answers. 0
    /// when there is no such endpoint.
    fn take_endpoint(&self, client: ClientNo, id: EndpointId)
    -> BoxFuture<Result<Written<u64>, CommitError>>;

    /// Reads what its actor keeps in memory. Call it after [`EndpointStore::take_endpoint`] is durable.
    fn deliveries(
        &self,
        client: ClientNo,
        id: EndpointId,
    ) -> BoxFuture<Result<Option<Deliveries>, ReadError>>;

    /// Records how deliveries went, all or nothing.
    ///
    /// # Errors
    /// [`CommitError::Conflict`] when the epoch is not the last one, or the endpoint is gone.
    fn record(
        &self,
        client: ClientNo,
        id: EndpointId,
        record: DeliveryRecord,
    ) -> BoxFuture<Result<(), CommitError>>;

    /// Replays of an endpoint that wait, by id.
    fn replays(&self, id: EndpointId) -> BoxFuture<Result<Vec<Replay>, ReadError>>;

    /// An endpoint's last attempts, newest first.
    fn attempts(&self, id: EndpointId) -> BoxFuture<Result<Vec<(u64, Attempt)>, ReadError>>;

    /// Deliveries of all endpoints that are kept aside, by endpoint and sequence, after `after`, at
    /// most `limit`.
    fn dead_deliveries(
        &self,
        after: Option<(EndpointId, u64)>,
        limit: usize,
    ) -> BoxFuture<Result<Vec<DeadDelivery>, ReadError>>;

    /// A delivery that is kept aside.
    fn dead_delivery(
        &self,
        id: EndpointId,
        sequence: u64,
    ) -> BoxFuture<Result<Option<DeadDelivery>, ReadError>>;

    /// Gives up a delivery that is kept aside; false when there is none.
    fn give_up_delivery(
        &self,
        id: EndpointId,
        sequence: u64,
    ) -> BoxFuture<Result<Written<bool>, CommitError>>;

    /// Drops at most `limit` rows of an endpoint that is deleted, the endpoint's own last; answers
    /// how many there were.
    fn purge_endpoint(
        &self,
        client: ClientNo,
        id: EndpointId,
        limit: usize,
    ) -> BoxFuture<Result<usize, CommitError>>;

    /// Endpoints whose records cannot be read, and why: [`EndpointStore::endpoints`] passes over them.
    fn damaged_endpoints(&self) -> BoxFuture<Result<Vec<(EndpointId, String)>, ReadError>>;

    /// What stands about the deliveries of the first endpoint behind `after` that has rows, whether or
    /// not there is such an endpoint. For a check of a store at rest: it reads all of them at once.
    fn delivery_rows(&self, after: Option<EndpointId>) -> BoxFuture<Result<Option<DeliveryRows>, ReadError>>;
}

/// The rows of an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeliveryRows {
    /// Whose they are.
    pub endpoint: EndpointId,
    /// How far it has come, and the number of its next attempt.
    pub progress: Option<(u64, u64)>,
    /// Events that wait.
    pub pending: Vec<FeedEntry>,
    /// Numbers of attempts.
    pub attempts: Vec<u64>,
    /// Replays that wait.
    pub replays: usize,
    /// Events that are kept aside.
    pub dead: Vec<FeedEntry>,
    /// Rows that cannot be read, and why.
    pub damaged: Vec<String>,
}

impl DeliveryRows {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        let numbered = self.pending.len() + self.attempts.len() + self.dead.len();
        usize::from(self.progress.is_some()) + numbered + self.replays + self.damaged.len()
    }
}

/// What is asked of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointChange {
    /// Other settings, all of them, in place of those of this revision.
    Settings {
        /// The new ones.
        settings: EndpointSettings,
        /// The revision that they were made from.
        revision: u64,
    },
    /// A new secret; the one before it signs too until this time.
    Rotate {
        /// The new one.
        next: Secret,
        /// The old one's end.
        until: Timestamp,
        /// The time now.
        now: Timestamp,
    },
    /// Deliveries go on. An endpoint that was disabled goes on from the feed's end; what was waiting
    /// when it was disabled is tried again, what was skipped since ([`Skipped`]) can be replayed.
    Enable {
        /// The time now.
        now: Timestamp,
    },
    /// Events are to be delivered again.
    Replay(Replay),
    /// It is to be no more.
    Delete,
}

/// What became of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// The endpoint as it is now.
    To(Box<StoredEndpoint>),
    /// There is no such endpoint.
    Absent,
    /// It is of another revision by now; nothing was changed.
    Moved,
    /// It has as many replays waiting as it may.
    TooMany,
    /// It is disabled: what is asked can't be done.
    Disabled,
}

/// The most replays of an endpoint that may wait.
pub const REPLAYS_MAX: usize = 1_000;

/// Events that are to be delivered again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// Its id; ids rise.
    pub id: Uuid,
    /// Which.
    pub which: Which,
    /// All events up to this sequence were looked at.
    pub cursor: u64,
}

/// Which events a replay is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// One that is kept aside.
    One(u64),
    /// Those of a time.
    Span {
        /// Not older.
        since: Timestamp,
        /// Not newer.
        until: Timestamp,
        /// Of these types; of the endpoint's own where there are none.
        types: Vec<String>,
    },
}

/// What an endpoint's actor keeps in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deliveries {
    /// The endpoint.
    pub endpoint: StoredEndpoint,
    /// Every event up to here is finished or pending.
    pub cursor: u64,
    /// How it has fared.
    pub fortune: Fortune,
    /// The number of its next attempt.
    pub next_attempt: u64,
    /// How it rests.
    pub rest: Rest,
    /// What was skipped and is still to be looked through.
    pub skipped: Option<Skipped>,
    /// By sequence.
    pub pending: Vec<PendingDelivery>,
    /// By id.
    pub replays: Vec<Replay>,
}

/// Why an endpoint gets nothing for now, whatever waits for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rest {
    /// It asked to be left alone until then.
    pub asked: Option<Timestamp>,
    /// Its breaker is open.
    pub open: Option<Open>,
}

/// An open breaker: one try at a time is let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// When the next may begin.
    pub until: Timestamp,
    /// How long the pause before it is.
    pub pause: Duration,
}

/// Events that were passed over while an endpoint was disabled. They are not delivered by themselves,
/// but with [`crate::domain::endpoint::DeliveryMode::Latest`] they replace what waited before them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Those behind this sequence,
    pub after: u64,
    /// up to this one.
    pub to: u64,
}

/// An event that is taken up and not finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingDelivery {
    /// The event.
    pub entry: FeedEntry,
    /// Attempts that failed.
    pub attempts: u16,
    /// When the next is due.
    pub next_at: Timestamp,
}

/// How deliveries went since the last record. Empty fields write nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryRecord {
    /// The writer's epoch.
    pub epoch: u64,
    /// Every event up to here is finished or pending.
    pub cursor: u64,
    /// How the endpoint fares.
    pub fortune: Fortune,
    /// How it rests.
    pub rest: Rest,
    /// What was skipped and is still to be looked through.
    pub skipped: Option<Skipped>,
    /// Rows as they are now.
    pub pending: Vec<PendingDelivery>,
    /// Events that are finished, whether they have a row or not; none of them is kept aside, but for
    /// those in `dead`.
    pub finished: Vec<u64>,
    /// Deliveries that are kept aside.
    pub dead: Vec<DeadDelivery>,
    /// Deliveries that are no longer kept aside.
    pub revived: Vec<u64>,
    /// Attempts, numbered.
    pub attempts: Vec<(u64, Attempt)>,
    /// How far replays have come; `None`: to their end.
    pub replays: Vec<(Uuid, Option<Replay>)>,
    /// Nothing more is to be sent, from this time on.
    pub disabled: Option<(DisabledReason, Timestamp)>,
}

/// The attempts of an endpoint that are remembered.
pub const ATTEMPTS_KEPT: u64 = 500;

/// A delivery that is kept aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadDelivery {
    /// Whose.
    pub endpoint: EndpointId,
    /// The endpoint's client.
    pub client: ClientNo,
    /// The event.
    pub entry: FeedEntry,
    /// Attempts that failed.
    pub attempts: u16,
    /// Why, in words.
    pub reason: String,
    /// When it was kept aside.
    pub at: Timestamp,
}

/// An event about an endpoint: it was disabled. Its entry in the feed has version 0 and an id of its
/// own, made when it happened; what it says stands apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The endpoint.
    pub endpoint: EndpointId,
    /// Why.
    pub reason: DisabledReason,
    /// What it was set to.
    pub settings: EndpointSettings,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was disabled.
    pub at: Timestamp,
}
