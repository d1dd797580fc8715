//! Webhook endpoints and their deliveries as they are stored. It must never hold an event: only
//! where it stands in its feed.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    Decoded, FormatError, NAMED_BYTES, Record, body, decode_feed, encode_feed, head_of, packed, unpacked,
    write_named,
};
use crate::domain::endpoint::{DisabledReason, EndpointId, EndpointSettings, Fortune, Secrets};
use crate::domain::ids::{ClientNo, TransactionId};
use crate::domain::time::Timestamp;
use crate::ports::endpoints::{
    Attempt, AttemptOutcome, DeadDelivery, Notice, Open, PendingDelivery, Replay, Rest, Skipped, Standing,
    StoredEndpoint, Which,
};
use crate::ports::store::FeedEntry;

/// With names, so that settings can be added.
#[derive(Serialize, Deserialize)]
struct EndpointV1 {
    settings: EndpointSettings,
    secrets: Secrets,
    standing: u8,
    created_at: Timestamp,
    revision: u64,
}

fn standing_number(standing: Standing) -> u8 {
    match standing {
        Standing::Enabled => 0,
        Standing::Disabled(DisabledReason::Gone) => 1,
        Standing::Disabled(DisabledReason::Asked) => 2,
        Standing::Disabled(DisabledReason::Failing) => 3,
        Standing::Deleted => 4,
    }
}

fn standing_of(number: u8) -> Decoded<Standing> {
    Ok(match number {
        0 => Standing::Enabled,
        1 => Standing::Disabled(DisabledReason::Gone),
        2 => Standing::Disabled(DisabledReason::Asked),
        3 => Standing::Disabled(DisabledReason::Failing),
        4 => Standing::Deleted,
        other => return Err(FormatError::Number(other)),
    })
}

/// An endpoint; its client and id are in its key.
#[must_use]
pub fn encode_endpoint(endpoint: &StoredEndpoint) -> Vec<u8> {
    let stored = EndpointV1 {
        settings: endpoint.settings.clone(),
        secrets: endpoint.secrets.clone(),
        standing: standing_number(endpoint.standing),
        created_at: endpoint.created_at,
        revision: endpoint.revision,
    };
    let mut bytes = head_of(Record::Endpoint, NAMED_BYTES);
    write_named(&mut bytes, &stored);
    bytes
}

/// Reads an endpoint.
///
/// # Errors
/// When the bytes are not one.
pub fn decode_endpoint(client: ClientNo, id: EndpointId, bytes: &[u8]) -> Decoded<StoredEndpoint> {
    let stored: EndpointV1 = rmp_serde::from_slice(body(Record::Endpoint, bytes)?)?;
    Ok(StoredEndpoint {
        id,
        client,
        settings: stored.settings,
        secrets: stored.secrets,
        standing: standing_of(stored.standing)?,
        created_at: stored.created_at,
        revision: stored.revision,
    })
}

/// How far an endpoint has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Raised by every actor of the endpoint.
    pub epoch: u64,
    /// Every event up to here is finished or has a row.
    pub cursor: u64,
    /// How it has fared.
    pub fortune: Fortune,
    /// The number of its next attempt.
    pub next_attempt: u64,
    /// How it rests.
    pub rest: Rest,
    /// What was skipped and is still to be looked through.
    pub skipped: Option<Skipped>,
}

/// What most endpoints have.
#[derive(Serialize, Deserialize)]
struct ProgressV1 {
    epoch: u64,
    cursor: u64,
    fortune: Fortune,
    next_attempt: u64,
}

/// With names, for what few endpoints have at a time and later releases may add to.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct BesidesV1 {
    #[serde(skip_serializing_if = "Option::is_none")]
    asked: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    open: Option<Open>,
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<Skipped>,
}

/// An endpoint's progress.
#[must_use]
pub fn encode_progress(progress: &Progress) -> Vec<u8> {
    let Progress { epoch, cursor, fortune, next_attempt, rest, skipped } = *progress;
    let first = ProgressV1 { epoch, cursor, fortune, next_attempt };
    if rest == Rest::default() && skipped.is_none() {
        return packed(Record::Progress, &first);
    }
    let mut bytes = packed(Record::ProgressBesides, &first);
    let Rest { asked, open } = rest;
    write_named(&mut bytes, &BesidesV1 { asked, open, skipped });
    bytes
}

/// Reads an endpoint's progress.
///
/// # Errors
/// When the bytes are not that.
pub fn decode_progress(bytes: &[u8]) -> Decoded<Progress> {
    let (first, besides) = match bytes.first() {
        Some(kind) if *kind == Record::ProgressBesides as u8 => {
            let (first, rest) = postcard::take_from_bytes(body(Record::ProgressBesides, bytes)?)?;
            (first, rmp_serde::from_slice(rest)?)
        }
        Some(_) | None => (unpacked(Record::Progress, bytes)?, BesidesV1::default()),
    };
    let ProgressV1 { epoch, cursor, fortune, next_attempt } = first;
    let BesidesV1 { asked, open, skipped } = besides;
    Ok(Progress { epoch, cursor, fortune, next_attempt, rest: Rest { asked, open }, skipped })
}

/// An event by its value in the feed, whatever kinds of them there will be.
fn feed_bytes(entry: &FeedEntry) -> Vec<u8> {
    encode_feed(entry.id, entry.version)
}

fn feed_entry(sequence: u64, bytes: &[u8]) -> Decoded<FeedEntry> {
    let (id, version) = decode_feed(bytes)?;
    Ok(FeedEntry { sequence, id, version })
}

#[derive(Serialize, Deserialize)]
struct PendingV1 {
    feed: Vec<u8>,
    attempts: u16,
    next_at: Timestamp,
}

/// A delivery that is not finished; its sequence is in its key.
#[must_use]
pub fn encode_pending(pending: &PendingDelivery) -> Vec<u8> {
    let PendingDelivery { entry, attempts, next_at } = *pending;
    packed(Record::Pending, &PendingV1 { feed: feed_bytes(&entry), attempts, next_at })
}

/// Reads a delivery that is not finished.
///
/// # Errors
/// When the bytes are not one.
pub fn decode_pending(sequence: u64, bytes: &[u8]) -> Decoded<PendingDelivery> {
    let PendingV1 { feed, attempts, next_at } = unpacked(Record::Pending, bytes)?;
    Ok(PendingDelivery { entry: feed_entry(sequence, &feed)?, attempts, next_at })
}

#[derive(Serialize, Deserialize)]
struct AttemptV1 {
    webhook_id: String,
    event_type: String,
    transaction_id: Option<TransactionId>,
    attempt: u16,
    at: Timestamp,
    status: Option<u16>,
    duration_ms: u32,
    outcome: u8,
}

/// An attempt.
#[must_use]
pub fn encode_attempt(attempt: &Attempt) -> Vec<u8> {
    let outcome = match attempt.outcome {
        AttemptOutcome::Delivered => 0,
        AttemptOutcome::Refused => 1,
        AttemptOutcome::Redirected => 2,
        AttemptOutcome::TimedOut => 3,
        AttemptOutcome::Unreachable => 4,
        AttemptOutcome::AddressForbidden => 5,
    };
    let Attempt { webhook_id, event_type, transaction_id, attempt, at, status, duration_ms, outcome: _ } =
        attempt.clone();
    packed(
        Record::Attempt,
        &AttemptV1 { webhook_id, event_type, transaction_id, attempt, at, status, duration_ms, outcome },
    )
}

/// Reads an attempt.
///
/// # Errors
/// When the bytes are not one.
pub fn decode_attempt(bytes: &[u8]) -> Decoded<Attempt> {
    let AttemptV1 { webhook_id, event_type, transaction_id, attempt, at, status, duration_ms, outcome } =
        unpacked(Record::Attempt, bytes)?;
    let outcome = match outcome {
        0 => AttemptOutcome::Delivered,
        1 => AttemptOutcome::Refused,
        2 => AttemptOutcome::Redirected,
        3 => AttemptOutcome::TimedOut,
        4 => AttemptOutcome::Unreachable,
        5 => AttemptOutcome::AddressForbidden,
        other => return Err(FormatError::Number(other)),
    };
    Ok(Attempt { webhook_id, event_type, transaction_id, attempt, at, status, duration_ms, outcome })
}

#[derive(Serialize, Deserialize)]
struct DeadDeliveryV1 {
    client: ClientNo,
    feed: Vec<u8>,
    attempts: u16,
    reason: String,
    at: Timestamp,
}

/// A delivery that is kept aside; its endpoint and sequence are in its key.
#[must_use]
pub fn encode_dead_delivery(dead: &DeadDelivery) -> Vec<u8> {
    let (feed, reason) = (feed_bytes(&dead.entry), dead.reason.clone());
    let DeadDelivery { client, attempts, at, .. } = *dead;
    packed(Record::DeadDelivery, &DeadDeliveryV1 { client, feed, attempts, reason, at })
}

/// Reads a delivery that is kept aside.
///
/// # Errors
/// When the bytes are not one.
pub fn decode_dead_delivery(endpoint: EndpointId, sequence: u64, bytes: &[u8]) -> Decoded<DeadDelivery> {
    let DeadDeliveryV1 { client, feed, attempts, reason, at } = unpacked(Record::DeadDelivery, bytes)?;
    Ok(DeadDelivery { endpoint, client, entry: feed_entry(sequence, &feed)?, attempts, reason, at })
}

#[derive(Serialize, Deserialize)]
enum WhichV1 {
    One(u64),
    Span { since: Timestamp, until: Timestamp, types: Vec<String> },
}

/// A replay; its id is in its key.
#[must_use]
pub fn encode_replay(replay: &Replay) -> Vec<u8> {
    let which = match &replay.which {
        Which::One(sequence) => WhichV1::One(*sequence),
        Which::Span { since, until, types } => {
            WhichV1::Span { since: *since, until: *until, types: types.clone() }
        }
    };
    packed(Record::Replay, &(which, replay.cursor))
}

/// Reads a replay.
///
/// # Errors
/// When the bytes are not one.
pub fn decode_replay(id: Uuid, bytes: &[u8]) -> Decoded<Replay> {
    let (which, cursor): (WhichV1, u64) = unpacked(Record::Replay, bytes)?;
    let which = match which {
        WhichV1::One(sequence) => Which::One(sequence),
        WhichV1::Span { since, until, types } => Which::Span { since, until, types },
    };
    Ok(Replay { id, which, cursor })
}

/// With names, as the settings of endpoints are.
#[derive(Serialize, Deserialize)]
struct NoticeV1 {
    endpoint: EndpointId,
    standing: u8,
    settings: EndpointSettings,
    created_at: Timestamp,
    at: Timestamp,
}

/// What an entry of a feed says about an endpoint.
#[must_use]
pub fn encode_notice(notice: &Notice) -> Vec<u8> {
    let Notice { endpoint, reason, settings, created_at, at } = notice.clone();
    let standing = standing_number(Standing::Disabled(reason));
    let mut bytes = head_of(Record::Notice, NAMED_BYTES);
    write_named(&mut bytes, &NoticeV1 { endpoint, standing, settings, created_at, at });
    bytes
}

/// Reads what an entry of a feed says about an endpoint.
///
/// # Errors
/// When the bytes are not that.
pub fn decode_notice(bytes: &[u8]) -> Decoded<Notice> {
    let stored: NoticeV1 = rmp_serde::from_slice(body(Record::Notice, bytes)?)?;
    let NoticeV1 { endpoint, standing, settings, created_at, at } = stored;
    match standing_of(standing)? {
        Standing::Disabled(reason) => Ok(Notice { endpoint, reason, settings, created_at, at }),
        Standing::Enabled | Standing::Deleted => Err(FormatError::Number(standing)),
    }
}
