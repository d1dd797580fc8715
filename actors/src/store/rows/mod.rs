//! Every store operation, once, over ordered tables: the embedded store and the one in memory
//! differ only in how they hold rows. Keys are in [`super::keys`], values in [`super::format`].
//!
//! Operations read and write rows within a transaction that their backend began; they must never
//! commit, wait or know which backend it is. An operation that answers with a refusal has written
//! nothing; one that fails may have, and its backend aborts.

mod accept;
mod claims;
mod dead;
mod dead_deliveries;
mod endpoints;
mod feed;
mod inspect;
mod names;
mod read;
mod sweep;
mod turn;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::sync::Arc;

use super::format::{self, Counter, FormatError, PartitionRow};
use super::keys::{self, CHUNK_BYTES, Key, Table};
use crate::domain::fact::Recorded;
use crate::domain::ids::{ClientNo, PartitionId, TransactionId};
use crate::domain::time::Timestamp;
use crate::ports::store::{CommitError, Lane, ReadError};

pub use accept::{accept, append_reports};
pub use claims::{ClaimHash, ClaimHasher, Claims, GENERATION, RecentClaims, merged as claimed};
pub use dead::{dead_letter, dead_letters_total, instruct, paused, set_paused};
pub use dead_deliveries::{dead_deliveries, dead_deliveries_of, dead_delivery, give_up_delivery};
pub use endpoints::{
    attempts, change_endpoint, create_endpoint, deliveries, endpoint, endpoints, endpoints_of,
    purge_endpoint, record, replays, take_endpoint,
};
pub use feed::{announcement, estimates, feed, feed_bounds, sequences, sweep_feeds};
pub use inspect::{damaged_endpoints, delivery_rows, delivery_rows_of};
pub use names::{LAYOUT, begin, claim_hasher, lease_serials, register};
pub use read::{
    cartons, dead_letters, gather, load, orders_of, position, positions, scan, ship_to, transaction, wake_ups,
};
pub use sweep::{claims_of, due, sweep};
pub use turn::{commit, depose, take};

/// Reads rows as one transaction sees them.
pub trait ReadRows {
    /// The value at a key.
    ///
    /// # Errors
    /// When the backend cannot read.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<&[u8]>, RowError>;

    /// Visits the rows whose key begins with `prefix`, in order, behind the key `after` when one
    /// is given, until the visitor stops.
    ///
    /// # Errors
    /// When the backend cannot read, or what the visitor returns.
    fn walk(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), RowError>;
}

/// Looks at one row.
pub type Visit<'v> = dyn FnMut(&[u8], &[u8]) -> Result<Walk, RowError> + 'v;

/// Whether a walk goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Walk {
    /// To the next row.
    On,
    /// No further.
    Stop,
}

/// Writes rows; all or nothing, by its backend.
pub trait WriteRows: ReadRows {
    /// Sets a value.
    ///
    /// # Errors
    /// When the backend cannot write.
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), RowError>;

    /// Sets a value unless there is one; false when there was.
    ///
    /// # Errors
    /// When the backend cannot write.
    fn put_new(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<bool, RowError>;

    /// Deletes a row; false when there was none.
    ///
    /// # Errors
    /// When the backend cannot write.
    fn delete(&mut self, table: Table, key: &[u8]) -> Result<bool, RowError>;

    /// Lanes and feeds where the backend numbers their entries itself; `None` where they are rows like
    /// all others.
    fn queues(&mut self) -> Option<&mut dyn Queues> {
        None
    }
}

/// Lanes and feeds whose entries get their numbers when the transaction is written, or later.
pub trait Queues {
    /// Appends to a lane.
    fn enqueue(&mut self, partition: PartitionId, lane: Lane, value: &[u8]);

    /// Takes an entry, which must be there.
    fn dequeue(&mut self, partition: PartitionId, lane: Lane, n: u64);

    /// Appends to a client's feed what happened at `at`.
    fn tell(&mut self, client: ClientNo, entry: &[u8], at: Timestamp);
}

/// Why an operation failed. Its transaction must be aborted.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RowError {
    /// The backend has no room left.
    #[error("the store has no room")]
    Full,
    /// The backend failed.
    #[error("the store's engine failed")]
    Backend(#[source] Arc<dyn Error + Send + Sync>),
    /// Bytes are not what was written.
    #[error("{what} cannot be decoded")]
    Corrupt {
        /// What was read.
        what: String,
        /// Why not.
        #[source]
        source: Arc<dyn Error + Send + Sync>,
    },
    /// What the caller says and what is stored cannot both be true: going on would lie.
    #[error("a broken invariant: {0}")]
    Broken(String),
}

impl From<RowError> for ReadError {
    fn from(e: RowError) -> Self {
        match e {
            RowError::Backend(source) => ReadError::Unavailable(source),
            RowError::Corrupt { what, source } => ReadError::Corrupt { what, source },
            RowError::Full | RowError::Broken(_) => ReadError::Unavailable(Arc::new(e)),
        }
    }
}

impl From<RowError> for CommitError {
    fn from(e: RowError) -> Self {
        match e {
            RowError::Full => CommitError::Full,
            RowError::Backend(source) => CommitError::Unavailable(source),
            RowError::Corrupt { .. } => CommitError::Unavailable(Arc::new(e)),
            RowError::Broken(_) => CommitError::Unknown(Arc::new(e)),
        }
    }
}

/// What lanes there is room for: as it gets less, work closes first and control last, so that
/// what empties the house still gets in when orders no longer do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Room {
    /// For nothing.
    Nothing,
    /// For the control lane, and for turns.
    Control,
    /// For the stock lane as well.
    Stock,
    /// For all.
    All,
}

impl Room {
    /// True when a lane takes entries.
    #[must_use]
    pub fn admits(self, lane: Lane) -> bool {
        match lane {
            Lane::Control => self >= Room::Control,
            Lane::Stock => self >= Room::Stock,
            Lane::Work => self >= Room::All,
        }
    }
}

/// A write transaction as operations see it.
pub struct Write<'a> {
    /// The rows.
    pub rows: &'a mut dyn WriteRows,
    /// Numbers and counts; flushed before the commit, forgotten on an abort.
    pub counters: &'a mut Counters,
    /// Who holds which reference.
    pub claims: &'a mut Claims,
    /// Transactions that were there before and are changed: what was read of them is old.
    pub changed: &'a mut Vec<TransactionId>,
    /// What there is room for.
    pub room: Room,
}

/// The counters that a writer has met, so that a batch writes each of them once.
#[derive(Debug, Default)]
pub struct Counters {
    known: BTreeMap<Key, Counter>,
    dirty: BTreeSet<Key>,
}

impl Counters {
    /// Writes what changed. Call it before the commit.
    ///
    /// # Errors
    /// When the backend cannot write.
    pub fn flush(&mut self, rows: &mut dyn WriteRows) -> Result<(), RowError> {
        for key in std::mem::take(&mut self.dirty) {
            if let Some(counter) = self.known.get(&key) {
                rows.put(Table::Counters, &key, &format::encode_counter(*counter))?;
            }
        }
        Ok(())
    }

    /// Drops everything: the transaction that changed them was aborted.
    pub fn forget(&mut self) {
        self.known.clear();
        self.dirty.clear();
    }
}

impl Write<'_> {
    fn counter(&mut self, key: &[u8]) -> Result<Counter, RowError> {
        if let Some(known) = self.counters.known.get(key) {
            return Ok(*known);
        }
        let counter = read_counter(&*self.rows, key)?;
        self.counters.known.insert(key.to_vec(), counter);
        Ok(counter)
    }

    fn set_counter(&mut self, key: Key, counter: Counter) {
        self.counters.known.insert(key.clone(), counter);
        self.counters.dirty.insert(key);
    }

    /// Takes the next number of a log.
    fn next(&mut self, key: Key) -> Result<u64, RowError> {
        let Counter { next, count } = self.counter(&key)?;
        self.set_counter(key, Counter { next: next + 1, count: count + 1 });
        Ok(next)
    }

    /// Appends to a lane.
    fn enqueue(&mut self, partition: PartitionId, lane: Lane, value: &[u8]) -> Result<(), RowError> {
        if let Some(queues) = self.rows.queues() {
            queues.enqueue(partition, lane, value);
            return Ok(());
        }
        let n = self.next(keys::lane_counter(partition, lane))?;
        self.put_chunked(Table::Lanes, &keys::lane_entry(partition, lane, n), value)
    }

    /// Takes an entry out of a lane.
    fn dequeue(&mut self, partition: PartitionId, lane: Lane, n: u64) -> Result<(), RowError> {
        if let Some(queues) = self.rows.queues() {
            queues.dequeue(partition, lane, n);
            return Ok(());
        }
        if !self.delete_chunked(Table::Lanes, &keys::lane_entry(partition, lane, n))? {
            return Err(RowError::Broken(format!("no entry {n} in {lane:?} of {partition:?}")));
        }
        let key = keys::lane_counter(partition, lane);
        let Counter { next, count } = self.counter(&key)?;
        let count = count.checked_sub(1).ok_or_else(|| RowError::Broken(format!("{lane:?} miscounted")))?;
        self.set_counter(key, Counter { next, count });
        Ok(())
    }

    /// Writes a fact and appends it to its client's feed; the house has none.
    fn put_fact(
        &mut self,
        client: ClientNo,
        id: TransactionId,
        version: u32,
        fact: &Recorded,
    ) -> Result<(), RowError> {
        let value = if client == ClientNo::HOUSE {
            format::encode_fact(fact)
        } else if let Some(queues) = self.rows.queues() {
            queues.tell(client, &format::encode_feed(id, version), fact.at);
            format::encode_fact(fact)
        } else {
            let sequence = self.next(keys::feed_counter(client))?;
            self.rows.put(Table::Feed, &keys::feed(client, sequence), &format::encode_feed(id, version))?;
            format::encode_numbered_fact(sequence, fact)
        };
        self.put_chunked(Table::Tx, &keys::fact(id, version), &value)
    }

    /// Writes a value that must be new, in chunks.
    fn put_chunked(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), RowError> {
        for (n, part) in (0u16..).zip(value.chunks(CHUNK_BYTES)) {
            if !self.rows.put_new(table, &keys::chunk(key, n), part)? {
                return Err(RowError::Broken(format!("{} {key:02x?} is written twice", table.name())));
            }
        }
        Ok(())
    }

    fn delete_chunked(&mut self, table: Table, key: &[u8]) -> Result<bool, RowError> {
        let all = keys_under(&*self.rows, table, key)?;
        for key in &all {
            self.rows.delete(table, key)?;
        }
        Ok(!all.is_empty())
    }

    fn partition(&self, partition: PartitionId) -> Result<PartitionRow, RowError> {
        read_partition(&*self.rows, partition)
    }

    fn set_partition(&mut self, partition: PartitionId, row: &PartitionRow) -> Result<(), RowError> {
        self.rows.put(Table::Partition, &keys::partition(partition), &format::encode_partition(row))
    }
}

fn read_partition(rows: &dyn ReadRows, partition: PartitionId) -> Result<PartitionRow, RowError> {
    match rows.get(Table::Partition, &keys::partition(partition))? {
        Some(bytes) => decoded(|| format!("{partition:?}"), format::decode_partition(bytes)),
        None => Ok(PartitionRow::default()),
    }
}

fn read_counter(rows: &dyn ReadRows, key: &[u8]) -> Result<Counter, RowError> {
    match rows.get(Table::Counters, key)? {
        Some(bytes) => decoded(|| "a counter".to_owned(), format::decode_counter(bytes)),
        None => Ok(Counter::default()),
    }
}

/// Reads a chunked value.
pub(super) fn read_chunked(
    rows: &dyn ReadRows,
    table: Table,
    key: &[u8],
) -> Result<Option<Vec<u8>>, RowError> {
    let first = keys::chunk(key, 0);
    let Some(value) = rows.get(table, &first)? else { return Ok(None) };
    let mut value = value.to_vec();
    if value.len() == CHUNK_BYTES {
        rows.walk(table, key, Some(&first), &mut |_, part| {
            value.extend_from_slice(part);
            Ok(Walk::On)
        })?;
    }
    Ok(Some(value))
}

/// The keys that begin with `prefix`.
pub(super) fn keys_under(rows: &dyn ReadRows, table: Table, prefix: &[u8]) -> Result<Vec<Key>, RowError> {
    let mut all = Vec::new();
    rows.walk(table, prefix, None, &mut |key, _| {
        all.push(key.to_vec());
        Ok(Walk::On)
    })?;
    Ok(all)
}

/// Says what could not be decoded.
fn decoded<T>(what: impl FnOnce() -> String, result: Result<T, FormatError>) -> Result<T, RowError> {
    result.map_err(|e| RowError::Corrupt { what: what(), source: Arc::new(e) })
}

/// A key that does not have the shape of its table.
fn misshapen(table: Table) -> RowError {
    RowError::Corrupt { what: format!("a key of {}", table.name()), source: Arc::new(FormatError::Short) }
}
