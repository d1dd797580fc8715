//! Clients' feeds: reading them, and evicting what is old. A number is never given twice, also when
//! its entry is gone.

use std::time::Duration;

use super::read::{VERSION_AT, walk_chunked};
use super::{ReadRows, RowError, Walk, Write, decoded, misshapen, read_chunked, read_counter};
use crate::domain::ids::{ClientNo, TransactionId};
use crate::domain::promise::ToldEstimate;
use crate::domain::time::Timestamp;
use crate::ports::announcement::Announcement;
use crate::ports::store::{FeedBounds, FeedEntry, Points};
use crate::store::format::{self, Counter};
use crate::store::keys::{self, Table};

/// Reads a feed; see [`crate::ports::store::Store::feed`].
///
/// # Errors
/// When rows cannot be read or decoded.
pub fn feed(
    rows: &dyn ReadRows,
    client: ClientNo,
    after: u64,
    limit: usize,
) -> Result<Vec<FeedEntry>, RowError> {
    let mut entries = Vec::new();
    let after = keys::feed(client, after);
    rows.walk(Table::Feed, &keys::client(client), Some(&after), &mut |key, value| {
        if entries.len() == limit {
            return Ok(Walk::Stop);
        }
        let sequence = keys::u64_at(key, 4).ok_or_else(|| misshapen(Table::Feed))?;
        let (id, version) = decoded(|| format!("feed entry {sequence}"), format::decode_feed(value))?;
        entries.push(FeedEntry { sequence, id, version });
        Ok(Walk::On)
    })?;
    Ok(entries)
}

/// What an entry says; see [`crate::ports::store::Store::announcement`].
///
/// # Errors
/// When rows cannot be read or decoded.
pub fn announcement(
    rows: &dyn ReadRows,
    client: ClientNo,
    sequence: u64,
) -> Result<Option<Announcement>, RowError> {
    let key = keys::feed(client, sequence);
    let Some(entry) = rows.get(Table::Feed, &key)? else { return Ok(None) };
    if format::is_stock_change(entry) {
        let change = decoded(|| format!("feed entry {sequence}"), format::decode_stock_change(entry))?;
        return Ok(Some(Announcement::Stock(change)));
    }
    let Some(bytes) = read_chunked(rows, Table::Notices, &key)? else { return Ok(None) };
    let notice = decoded(|| format!("notice {sequence}"), format::decode_notice(&bytes))?;
    Ok(Some(Announcement::Endpoint(notice)))
}

/// What a feed keeps; see [`crate::ports::store::Store::feed_bounds`].
///
/// # Errors
/// When rows cannot be read or decoded.
pub fn feed_bounds(rows: &dyn ReadRows, client: ClientNo) -> Result<FeedBounds, RowError> {
    let next = read_counter(rows, &keys::feed_counter(client))?.next;
    let mut first = next;
    rows.walk(Table::Feed, &keys::client(client), None, &mut |key, _| {
        first = keys::u64_at(key, 4).ok_or_else(|| misshapen(Table::Feed))?;
        Ok(Walk::Stop)
    })?;
    Ok(FeedBounds { first, next })
}

/// The numbers of a transaction's facts; see [`crate::ports::store::Store::sequences`].
///
/// # Errors
/// When rows cannot be read or decoded.
pub fn sequences(rows: &dyn ReadRows, id: TransactionId) -> Result<Vec<Option<u64>>, RowError> {
    let mut found = Vec::new();
    walk_chunked(rows, Table::Tx, &keys::facts(id), None, VERSION_AT + 4, &mut |_, value| {
        let fact = decoded(|| format!("a fact of {id}"), format::decode_numbered_fact(value))?;
        found.push(fact.0);
        Ok(Walk::On)
    })?;
    Ok(found)
}

/// What a client was told; see [`crate::ports::store::Store::estimates`].
///
/// # Errors
/// When rows cannot be read or decoded.
pub fn estimates(rows: &dyn ReadRows, id: TransactionId) -> Result<Vec<ToldEstimate>, RowError> {
    let Some(bytes) = rows.get(Table::Tx, &keys::estimates(id))? else { return Ok(Vec::new()) };
    decoded(|| format!("the estimates of {id}"), format::decode_estimates(bytes))
}

/// The same for who goes on without what cannot be read: it is no reason to stop an order.
pub(super) fn readable_estimates(
    rows: &dyn ReadRows,
    id: TransactionId,
) -> Result<Vec<ToldEstimate>, RowError> {
    match estimates(rows, id) {
        Err(RowError::Corrupt { what, source }) => {
            tracing::warn!(%id, what, error = %source, "what was told of an estimate cannot be read");
            Ok(Vec::new())
        }
        read => read,
    }
}

/// Evicts old entries; see [`crate::ports::store::Store::sweep_feeds`].
///
/// # Errors
/// When rows cannot be read, decoded or written.
pub fn sweep_feeds(
    write: &mut Write<'_>,
    now: Timestamp,
    retention: Duration,
    limit: usize,
) -> Result<usize, RowError> {
    let mut clients = Vec::new();
    write.rows.walk(Table::Counters, keys::FEED_COUNTERS, None, &mut |key, _| {
        clients.push(ClientNo(keys::u32_at(key, 1).ok_or_else(|| misshapen(Table::Counters))?));
        Ok(Walk::On)
    })?;
    let mut evicted = 0;
    for client in clients {
        let old = old(&*write.rows, client, now, retention, limit - evicted)?;
        for sequence in &old {
            write.rows.delete(Table::Feed, &keys::feed(client, *sequence))?;
            write.delete_chunked(Table::Notices, &keys::feed(client, *sequence))?;
        }
        if !old.is_empty() {
            let key = keys::feed_counter(client);
            let Counter { next, count } = write.counter(&key)?;
            write.set_counter(key, Counter { next, count: count.saturating_sub(old.len() as u64) });
        }
        evicted += old.len();
    }
    Ok(evicted)
}

/// The first entries of a feed that are past their retention, without a hole among them.
fn old(
    rows: &dyn ReadRows,
    client: ClientNo,
    now: Timestamp,
    retention: Duration,
    limit: usize,
) -> Result<Vec<u64>, RowError> {
    if limit == 0 {
        return Ok(Vec::new());
    }
    let mut head = Vec::new();
    rows.walk(Table::Feed, &keys::client(client), None, &mut |key, value| {
        let sequence = keys::u64_at(key, 4).ok_or_else(|| misshapen(Table::Feed))?;
        // An entry that cannot be read announces nothing any more.
        let entry = format::decode_feed(value).ok();
        let entry = entry.map(|(id, version)| FeedEntry { sequence, id, version });
        // What is told of a transaction is never older than it, and its id says when that came.
        if head.len() == limit || entry.is_some_and(|entry| entry.id.at().after(retention) >= now) {
            return Ok(Walk::Stop);
        }
        head.push((sequence, entry));
        Ok(Walk::On)
    })?;
    let mut old = Vec::with_capacity(head.len());
    for (sequence, entry) in head {
        if let Some(entry) = entry
            && at(rows, entry)?.after(retention) >= now
        {
            break;
        }
        old.push(sequence);
    }
    Ok(old)
}

/// When a fact was decided or an estimate told; for one that is gone or cannot be read, when its
/// transaction came.
fn at(rows: &dyn ReadRows, entry: FeedEntry) -> Result<Timestamp, RowError> {
    let FeedEntry { sequence, id, version: _ } = entry;
    let at = match entry.points() {
        Points::Announcement => None,
        Points::Version(version) => {
            let fact = read_chunked(rows, Table::Tx, &keys::fact(id, version))?;
            fact.and_then(|bytes| format::decode_fact(&bytes).ok()).map(|recorded| recorded.at)
        }
        Points::Estimate(_) => {
            let told = readable_estimates(rows, id)?;
            told.into_iter().find(|told| told.sequence == sequence).map(|told| told.at)
        }
    };
    Ok(at.unwrap_or_else(|| id.at()))
}
