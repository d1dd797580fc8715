//! Webhook endpoints: what is asked of them and how deliveries go. It must never record for an
//! actor whose epoch is not the last one.

use super::read::walk_chunked;
use super::{ReadRows, RowError, Walk, Write, decoded, keys_under, misshapen, read_chunked};
use crate::domain::endpoint::{DisabledReason, EndpointId, Fortune};
use crate::domain::ids::{ClientNo, PartitionId, TransactionId};
use crate::domain::time::Timestamp;
use crate::ports::endpoints::{
    ATTEMPTS_KEPT, Attempt, Changed, Deliveries, DeliveryRecord, EndpointChange, Notice, PendingDelivery,
    REPLAYS_MAX, Replay, Rest, Skipped, Standing, StoredEndpoint,
};
use crate::ports::store::{CommitError, Lane};
use crate::store::format::{self, Progress};
use crate::store::keys::{self, Table};

/// Where the id begins in a key of `endpoints`, and how long the key is without its chunk.
const ID_AT: usize = 4;
const ENDPOINT_KEY: usize = ID_AT + 16;
/// Where what is numbered begins in a key of `deliveries`.
const NUMBER_AT: usize = 17;

pub(super) fn id_at(key: &[u8], at: usize, table: Table) -> Result<EndpointId, RowError> {
    keys::id_at(key, at).map(|id| EndpointId(id.0)).ok_or_else(|| misshapen(table))
}

fn walk_endpoints(rows: &dyn ReadRows, prefix: &[u8]) -> Result<Vec<StoredEndpoint>, RowError> {
    let mut found = Vec::new();
    walk_chunked(rows, Table::Endpoints, prefix, None, ENDPOINT_KEY, &mut |key, value| {
        let client = ClientNo(keys::u32_at(key, 0).ok_or_else(|| misshapen(Table::Endpoints))?);
        let id = id_at(key, ID_AT, Table::Endpoints)?;
        match format::decode_endpoint(client, id, value) {
            Ok(endpoint) => found.push(endpoint),
            // One that cannot be read must not take the others with it.
            Err(e) => tracing::error!(endpoint = %id, error = %e, "a webhook endpoint cannot be read"),
        }
        Ok(Walk::On)
    })?;
    Ok(found)
}

/// All endpoints; see [`crate::ports::endpoints::EndpointStore::endpoints`].
///
/// # Errors
/// When rows cannot be read.
pub fn endpoints(rows: &dyn ReadRows) -> Result<Vec<StoredEndpoint>, RowError> {
    walk_endpoints(rows, &[])
}

/// A client's endpoints; see [`crate::ports::endpoints::EndpointStore::endpoints_of`].
///
/// # Errors
/// When rows cannot be read.
pub fn endpoints_of(rows: &dyn ReadRows, client: ClientNo) -> Result<Vec<StoredEndpoint>, RowError> {
    let mut found = walk_endpoints(rows, &keys::client(client))?;
    found.retain(|e| e.standing != Standing::Deleted);
    Ok(found)
}

/// One endpoint; see [`crate::ports::endpoints::EndpointStore::endpoint`].
///
/// # Errors
/// When rows cannot be read or decoded.
pub fn endpoint(
    rows: &dyn ReadRows,
    client: ClientNo,
    id: EndpointId,
) -> Result<Option<StoredEndpoint>, RowError> {
    Ok(stored(rows, client, id)?.filter(|e| e.standing != Standing::Deleted))
}

fn stored(rows: &dyn ReadRows, client: ClientNo, id: EndpointId) -> Result<Option<StoredEndpoint>, RowError> {
    let Some(bytes) = read_chunked(rows, Table::Endpoints, &keys::endpoint(client, id))? else {
        return Ok(None);
    };
    decoded(|| format!("endpoint {id}"), format::decode_endpoint(client, id, &bytes)).map(Some)
}

fn put(write: &mut Write<'_>, endpoint: &StoredEndpoint) -> Result<(), RowError> {
    let key = keys::endpoint(endpoint.client, endpoint.id);
    write.delete_chunked(Table::Endpoints, &key)?;
    write.put_chunked(Table::Endpoints, &key, &format::encode_endpoint(endpoint))
}

fn progress(rows: &dyn ReadRows, id: EndpointId) -> Result<Option<Progress>, RowError> {
    let Some(bytes) = rows.get(Table::Deliveries, &keys::progress(id))? else { return Ok(None) };
    decoded(|| format!("the progress of endpoint {id}"), format::decode_progress(bytes)).map(Some)
}

fn set_progress(write: &mut Write<'_>, id: EndpointId, progress: &Progress) -> Result<(), RowError> {
    write.rows.put(Table::Deliveries, &keys::progress(id), &format::encode_progress(progress))
}

/// The number of the last event of a feed.
fn feed_end(write: &mut Write<'_>, client: ClientNo) -> Result<u64, RowError> {
    Ok(write.counter(&keys::feed_counter(client))?.next - 1)
}

/// Keeps a new endpoint; see [`crate::ports::endpoints::EndpointStore::create_endpoint`].
///
/// # Errors
/// When rows cannot be read or written.
pub fn create_endpoint(
    write: &mut Write<'_>,
    endpoint: &StoredEndpoint,
    max: usize,
) -> Result<Result<Option<StoredEndpoint>, CommitError>, RowError> {
    if !write.room.admits(Lane::Work) {
        return Ok(Err(CommitError::Full));
    }
    if endpoints_of(&*write.rows, endpoint.client)?.len() >= max {
        return Ok(Ok(None));
    }
    let cursor = feed_end(write, endpoint.client)?;
    let fortune = Fortune::new(endpoint.created_at);
    let rest = Rest::default();
    let progress = Progress { epoch: 0, cursor, fortune, next_attempt: 1, rest, skipped: None };
    set_progress(write, endpoint.id, &progress)?;
    put(write, endpoint)?;
    Ok(Ok(Some(endpoint.clone())))
}

/// Changes an endpoint; see [`crate::ports::endpoints::EndpointStore::change_endpoint`].
///
/// # Errors
/// When rows cannot be read, decoded or written.
pub fn change_endpoint(
    write: &mut Write<'_>,
    client: ClientNo,
    id: EndpointId,
    change: &EndpointChange,
) -> Result<Result<Changed, CommitError>, RowError> {
    // An endpoint can be deleted and disabled as long as the store takes anything.
    if !write.room.admits(Lane::Control) {
        return Ok(Err(CommitError::Full));
    }
    let Some(mut endpoint) = self::endpoint(&*write.rows, client, id)? else {
        return Ok(Ok(Changed::Absent));
    };
    match change {
        EndpointChange::Settings { revision, .. } if *revision != endpoint.revision => {
            return Ok(Ok(Changed::Moved));
        }
        EndpointChange::Settings { settings, .. } => endpoint.settings = settings.clone(),
        EndpointChange::Rotate { next, until, now } => endpoint.secrets.rotate(next.clone(), *until, *now),
        EndpointChange::Enable { now } => match endpoint.standing {
            Standing::Disabled(_) => {
                endpoint.standing = Standing::Enabled;
                go_on(write, client, id, *now)?;
            }
            Standing::Enabled | Standing::Deleted => return Ok(Ok(Changed::To(Box::new(endpoint)))),
        },
        EndpointChange::Replay(replay) => {
            if endpoint.standing != Standing::Enabled {
                return Ok(Ok(Changed::Disabled));
            }
            if replays(&*write.rows, id)?.len() >= REPLAYS_MAX {
                return Ok(Ok(Changed::TooMany));
            }
            put_replay(write, id, replay)?;
        }
        EndpointChange::Delete => endpoint.standing = Standing::Deleted,
    }
    endpoint.revision += 1;
    put(write, &endpoint)?;
    Ok(Ok(Changed::To(Box::new(endpoint))))
}

/// Has an endpoint begin anew at the end of its feed.
fn go_on(write: &mut Write<'_>, client: ClientNo, id: EndpointId, now: Timestamp) -> Result<(), RowError> {
    let cursor = feed_end(write, client)?;
    let (fortune, rest) = (Fortune::new(now), Rest::default());
    let fresh = match progress(&*write.rows, id)? {
        // Whoever disabled it has said its last word, and its consumer is asked anew.
        Some(before) => {
            let after = before.skipped.map_or(before.cursor, |skipped| skipped.after);
            let skipped = (after < cursor).then_some(Skipped { after, to: cursor });
            Progress { epoch: before.epoch + 1, cursor, fortune, rest, skipped, ..before }
        }
        None => Progress { epoch: 1, cursor, fortune, next_attempt: 1, rest, skipped: None },
    };
    set_progress(write, id, &fresh)
}

fn put_replay(write: &mut Write<'_>, id: EndpointId, replay: &Replay) -> Result<(), RowError> {
    let key = keys::replay(id, replay.id);
    write.delete_chunked(Table::Deliveries, &key)?;
    write.put_chunked(Table::Deliveries, &key, &format::encode_replay(replay))
}

/// Replays that wait; see [`crate::ports::endpoints::EndpointStore::replays`].
///
/// # Errors
/// When rows cannot be read or decoded.
pub fn replays(rows: &dyn ReadRows, id: EndpointId) -> Result<Vec<Replay>, RowError> {
    let mut found = Vec::new();
    let head = NUMBER_AT + 16;
    walk_chunked(rows, Table::Deliveries, &keys::replays_of(id), None, head, &mut |key, value| {
        let replay = keys::id_at(key, NUMBER_AT).ok_or_else(|| misshapen(Table::Deliveries))?.0;
        found.push(decoded(|| format!("replay {replay}"), format::decode_replay(replay, value))?);
        Ok(Walk::On)
    })?;
    Ok(found)
}

/// Raises the epoch; see [`crate::ports::endpoints::EndpointStore::take_endpoint`].
///
/// # Errors
/// When rows cannot be read, decoded or written.
pub fn take_endpoint(
    write: &mut Write<'_>,
    client: ClientNo,
    id: EndpointId,
) -> Result<Result<u64, CommitError>, RowError> {
    if !write.room.admits(Lane::Control) {
        return Ok(Err(CommitError::Full));
    }
    if endpoint(&*write.rows, client, id)?.is_none() {
        return Ok(Ok(0));
    }
    let Some(before) = progress(&*write.rows, id)? else { return Ok(Ok(0)) };
    let taken = Progress { epoch: before.epoch + 1, ..before };
    set_progress(write, id, &taken)?;
    Ok(Ok(taken.epoch))
}

/// Reads what an actor keeps; see [`crate::ports::endpoints::EndpointStore::deliveries`].
///
/// # Errors
/// When rows cannot be read or decoded.
pub fn deliveries(
    rows: &dyn ReadRows,
    client: ClientNo,
    id: EndpointId,
) -> Result<Option<Deliveries>, RowError> {
    let Some(endpoint) = endpoint(rows, client, id)? else { return Ok(None) };
    let Some(Progress { epoch: _, cursor, fortune, next_attempt, rest, skipped }) = progress(rows, id)?
    else {
        return Ok(None);
    };
    let mut pending: Vec<PendingDelivery> = Vec::new();
    rows.walk(Table::Deliveries, &keys::pending_of(id), None, &mut |key, value| {
        let sequence = keys::u64_at(key, NUMBER_AT).ok_or_else(|| misshapen(Table::Deliveries))?;
        pending.push(decoded(|| format!("delivery {sequence}"), format::decode_pending(sequence, value))?);
        Ok(Walk::On)
    })?;
    let replays = replays(rows, id)?;
    Ok(Some(Deliveries { endpoint, cursor, fortune, next_attempt, rest, skipped, pending, replays }))
}

/// Records deliveries; see [`crate::ports::endpoints::EndpointStore::record`].
///
/// # Errors
/// When rows cannot be read, decoded or written.
pub fn record(
    write: &mut Write<'_>,
    client: ClientNo,
    id: EndpointId,
    record: &DeliveryRecord,
) -> Result<Result<(), CommitError>, RowError> {
    let (Some(mut endpoint), Some(before)) =
        (endpoint(&*write.rows, client, id)?, progress(&*write.rows, id)?)
    else {
        return Ok(Err(CommitError::Conflict));
    };
    if before.epoch != record.epoch {
        return Ok(Err(CommitError::Conflict));
    }
    // What has left the house already is of less use than what is to empty it.
    if !write.room.admits(Lane::Stock) {
        return Ok(Err(CommitError::Full));
    }
    for sequence in &record.finished {
        write.rows.delete(Table::Deliveries, &keys::pending(id, *sequence))?;
        // One that was kept aside beyond the cursor is taken up again after a death.
        write.rows.delete(Table::DeadDeliveries, &keys::dead_delivery(id, *sequence))?;
    }
    for pending in &record.pending {
        let key = keys::pending(id, pending.entry.sequence);
        write.rows.put(Table::Deliveries, &key, &format::encode_pending(pending))?;
    }
    for sequence in &record.revived {
        write.rows.delete(Table::DeadDeliveries, &keys::dead_delivery(id, *sequence))?;
    }
    for dead in &record.dead {
        let key = keys::dead_delivery(id, dead.entry.sequence);
        write.rows.put(Table::DeadDeliveries, &key, &format::encode_dead_delivery(dead))?;
    }
    let mut next_attempt = before.next_attempt;
    for (n, attempt) in &record.attempts {
        write.rows.put(Table::Deliveries, &keys::attempt(id, *n), &format::encode_attempt(attempt))?;
        if let Some(oldest) = n.checked_sub(ATTEMPTS_KEPT) {
            write.rows.delete(Table::Deliveries, &keys::attempt(id, oldest))?;
        }
        next_attempt = next_attempt.max(n + 1);
    }
    for (replay, standing) in &record.replays {
        match standing {
            Some(replay) => put_replay(write, id, replay)?,
            None => {
                write.delete_chunked(Table::Deliveries, &keys::replay(id, *replay))?;
            }
        }
    }
    let DeliveryRecord { epoch, cursor, fortune, rest, skipped, .. } = *record;
    set_progress(write, id, &Progress { epoch, cursor, fortune, next_attempt, rest, skipped })?;
    if let Some((reason, at)) = record.disabled {
        endpoint.standing = Standing::Disabled(reason);
        endpoint.revision += 1;
        put(write, &endpoint)?;
        announce(write, &endpoint, reason, at)?;
    }
    Ok(Ok(()))
}

/// Says in the feed that an endpoint is disabled.
fn announce(
    write: &mut Write<'_>,
    endpoint: &StoredEndpoint,
    reason: DisabledReason,
    at: Timestamp,
) -> Result<(), RowError> {
    let StoredEndpoint { id, client, settings, created_at, .. } = endpoint.clone();
    let sequence = write.next(keys::feed_counter(client))?;
    let own = TransactionId::new(at, PartitionId(0), sequence);
    write.rows.put(Table::Feed, &keys::feed(client, sequence), &format::encode_feed(own, 0))?;
    let notice = Notice { endpoint: id, reason, settings, created_at, at };
    write.put_chunked(Table::Notices, &keys::feed(client, sequence), &format::encode_notice(&notice))
}

/// The last attempts; see [`crate::ports::endpoints::EndpointStore::attempts`].
///
/// # Errors
/// When rows cannot be read or decoded.
pub fn attempts(rows: &dyn ReadRows, id: EndpointId) -> Result<Vec<(u64, Attempt)>, RowError> {
    let mut found = Vec::new();
    rows.walk(Table::Deliveries, &keys::attempts_of(id), None, &mut |key, value| {
        let n = keys::u64_at(key, NUMBER_AT).ok_or_else(|| misshapen(Table::Deliveries))?;
        found.push((n, decoded(|| format!("attempt {n}"), format::decode_attempt(value))?));
        Ok(Walk::On)
    })?;
    found.reverse();
    Ok(found)
}

/// Drops rows of what is deleted; see [`crate::ports::endpoints::EndpointStore::purge_endpoint`].
///
/// # Errors
/// When rows cannot be read or written.
pub fn purge_endpoint(
    write: &mut Write<'_>,
    client: ClientNo,
    id: EndpointId,
    limit: usize,
) -> Result<usize, RowError> {
    match stored(&*write.rows, client, id)? {
        Some(endpoint) if endpoint.standing == Standing::Deleted => {}
        Some(_) | None => return Ok(0),
    }
    let mut dropped = 0;
    for table in [Table::DeadDeliveries, Table::Deliveries] {
        let mut first = Vec::new();
        write.rows.walk(table, &keys::of_endpoint(id), None, &mut |key, _| {
            if first.len() + dropped == limit {
                return Ok(Walk::Stop);
            }
            first.push(key.to_vec());
            Ok(Walk::On)
        })?;
        for key in &first {
            write.rows.delete(table, key)?;
        }
        dropped += first.len();
    }
    if dropped < limit {
        for key in keys_under(&*write.rows, Table::Endpoints, &keys::endpoint(client, id))? {
            write.rows.delete(Table::Endpoints, &key)?;
        }
    }
    Ok(dropped)
}
