//! The end of transactions: live → tombstone → gone. It must never touch what has not ended.

use std::time::Duration;

use super::{
    ClaimHash, ClaimHasher, ReadRows, RowError, Walk, Write, decoded, keys_under, misshapen, read_chunked,
};
use crate::domain::command::Kind;
use crate::domain::fact::Fact;
use crate::domain::ids::{ClientNo, TransactionId};
use crate::domain::time::Timestamp;
use crate::ports::store::{Digest, StoredTransaction, Tombstone};
use crate::store::format;
use crate::store::keys::{self, Table};

/// Ages what has ended; see [`crate::ports::store::Store::sweep`].
///
/// Tombstones keep their claims and their digest, so a replay is still answered; when they go,
/// the claims go with them and the reference is free again.
///
/// # Errors
/// When rows cannot be read, decoded or written.
pub fn sweep(
    write: &mut Write<'_>,
    now: Timestamp,
    retention: Duration,
    limit: usize,
) -> Result<usize, RowError> {
    let expired = due(&*write.rows, Table::Ended, now, retention, limit)?;
    for &(ended_at, id) in &expired {
        bury(write, id, ended_at)?;
    }
    let gone = due(&*write.rows, Table::Tombstones, now, retention.saturating_mul(2), limit)?;
    for &(ended_at, id) in &gone {
        erase(write, id, ended_at)?;
    }
    Ok(expired.len() + gone.len())
}

/// The first entries of `ended` or `tombstones` that are more than `age` old.
///
/// # Errors
/// When rows cannot be read.
pub fn due(
    rows: &dyn ReadRows,
    table: Table,
    now: Timestamp,
    age: Duration,
    limit: usize,
) -> Result<Vec<(Timestamp, TransactionId)>, RowError> {
    let mut found = Vec::new();
    rows.walk(table, &[], None, &mut |key, _| {
        let at = keys::u64_at(key, 0).ok_or_else(|| misshapen(table))?;
        let at = Timestamp(i64::try_from(at).unwrap_or(i64::MAX));
        if found.len() == limit || at.after(age) >= now {
            return Ok(Walk::Stop);
        }
        found.push((at, keys::id_at(key, 8).ok_or_else(|| misshapen(table))?));
        Ok(Walk::On)
    })?;
    Ok(found)
}

fn bury(write: &mut Write<'_>, id: TransactionId, ended_at: Timestamp) -> Result<(), RowError> {
    write.rows.delete(Table::Ended, &keys::ended(ended_at, id))?;
    // Ended twice, or already gone: nothing is left to do for this entry.
    let read = super::read::live(&*write.rows, id);
    let Some(stored) = readable(id, read)?.flatten() else { return Ok(()) };
    let Some(tombstone) = tombstone_of(&stored) else {
        tracing::warn!(%id, "an ended transaction does not begin with its acceptance; it is kept");
        return Ok(());
    };
    write.delete_chunked(Table::Tx, &keys::command(id))?;
    write.rows.delete(Table::Tx, &keys::ship_to(id))?;
    write.delete_chunked(Table::Tx, &keys::facts(id))?;
    write.rows.delete(Table::Tx, &keys::estimates(id))?;
    write.delete_chunked(Table::Cartons, &keys::tx(id))?;
    if stored.client != ClientNo::HOUSE && tombstone.kind == Kind::Order {
        write.rows.delete(Table::ByClient, &keys::by_client(stored.client, id))?;
    }
    write.changed.push(id);
    write.put_chunked(Table::Tx, &keys::command(id), &format::encode_tombstone(&tombstone, ended_at))?;
    write.rows.put(Table::Tombstones, &keys::ended(ended_at, id), &format::encode_mark())
}

/// What cannot be read is kept for whoever looks into it, and must not hold up what stands behind.
fn readable<T>(id: TransactionId, read: Result<T, RowError>) -> Result<Option<T>, RowError> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(e @ RowError::Corrupt { .. }) => {
            tracing::warn!(%id, error = %e, "an ended transaction cannot be read; it is kept");
            Ok(None)
        }
        Err(e @ (RowError::Full | RowError::Backend(_) | RowError::Broken(_))) => Err(e),
    }
}

fn tombstone_of(stored: &StoredTransaction) -> Option<Tombstone> {
    let first = stored.facts.first()?;
    let Fact::Accepted(accepted) = &first.fact else { return None };
    Some(Tombstone {
        id: stored.id,
        client: stored.client,
        digest: stored.digest,
        kind: stored.command.kind(),
        reference: stored.command.reference().clone(),
        accepted_at: first.at,
        correlation: accepted.correlation.clone(),
    })
}

/// The digest of a tombstone and the claims that lead to it; `None` when there is none that can be read.
///
/// # Errors
/// When rows cannot be read.
pub fn claims_of(
    rows: &dyn ReadRows,
    hasher: ClaimHasher,
    id: TransactionId,
) -> Result<Option<(Digest, Vec<ClaimHash>)>, RowError> {
    let Some(bytes) = read_chunked(rows, Table::Tx, &keys::command(id))? else { return Ok(None) };
    let read = decoded(|| format!("the tombstone of {id}"), format::decode_tombstone(id, &bytes));
    let Some((tombstone, _)) = readable(id, read)? else { return Ok(None) };
    let mut claims = vec![hasher.reference(tombstone.client, tombstone.kind, &tombstone.reference)];
    let keys_prefix = keys::keys_of(id);
    for back in keys_under(rows, Table::Tx, &keys_prefix)? {
        let hash = back.get(keys_prefix.len()..).and_then(|hash| hash.try_into().ok());
        claims.push(ClaimHash(hash.ok_or_else(|| misshapen(Table::Tx))?));
    }
    Ok(Some((tombstone.digest, claims)))
}

fn erase(write: &mut Write<'_>, id: TransactionId, ended_at: Timestamp) -> Result<(), RowError> {
    write.rows.delete(Table::Tombstones, &keys::ended(ended_at, id))?;
    let Some((_, claims)) = claims_of(&*write.rows, write.claims.hasher(), id)? else { return Ok(()) };
    for claim in claims {
        write.claims.release(write.rows, claim, id)?;
    }
    write.changed.push(id);
    write.delete_chunked(Table::Tx, &keys::tx(id))?;
    Ok(())
}
