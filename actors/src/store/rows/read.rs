//! What readers and owners ask for. It must never write.

use std::sync::Arc;

use super::{ReadRows, RowError, Walk, dead, decoded, misshapen, read_chunked, read_counter, read_partition};
use crate::domain::command::ShipTo;
use crate::domain::fact::Recorded;
use crate::domain::ids::{ClientNo, PartitionId, Sku, TransactionId};
use crate::domain::promise::Promise;
use crate::domain::stock::Position;
use crate::domain::time::Timestamp;
use crate::ports::store::{
    GatherLimits, Gathered, Lane, LaneEntry, LaneItem, Listed, Lookup, ManifestCarton, PartitionImage,
    StoredTransaction, StoredWave,
};
use crate::store::format::{self, StoredItem};
use crate::store::keys::{self, Table};

/// Visits chunked values whole, behind the key `after`. `head` is the length of a key without its chunk number.
pub(super) fn walk_chunked(
    rows: &dyn ReadRows,
    table: Table,
    prefix: &[u8],
    after: Option<&[u8]>,
    head: usize,
    visit: &mut super::Visit<'_>,
) -> Result<(), RowError> {
    let mut current: Option<(Vec<u8>, Vec<u8>)> = None;
    let mut stopped = false;
    rows.walk(table, prefix, after, &mut |key, part| {
        let key = key.get(..head).ok_or_else(|| misshapen(table))?;
        match &mut current {
            Some((same, value)) if same == key => value.extend_from_slice(part),
            Some(_) | None => {
                if let Some((key, value)) = current.replace((key.to_vec(), part.to_vec())) {
                    let walk = visit(&key, &value)?;
                    stopped = walk == Walk::Stop;
                    return Ok(walk);
                }
            }
        }
        Ok(Walk::On)
    })?;
    if let Some((key, value)) = current
        && !stopped
    {
        visit(&key, &value)?;
    }
    Ok(())
}

/// Reads a transaction; see [`crate::ports::store::Store::transaction`].
///
/// # Errors
/// When rows cannot be read or decoded.
pub fn transaction(rows: &dyn ReadRows, id: TransactionId) -> Result<Option<Lookup>, RowError> {
    let Some(bytes) = read_chunked(rows, Table::Tx, &keys::command(id))? else { return Ok(None) };
    if format::is_tombstone(&bytes) {
        let (tombstone, _) =
            decoded(|| format!("the tombstone of {id}"), format::decode_tombstone(id, &bytes))?;
        return Ok(Some(Lookup::Expired(Arc::new(tombstone))));
    }
    live_of(rows, id, &bytes).map(|stored| Some(Lookup::Live(Arc::new(stored))))
}

fn live_of(rows: &dyn ReadRows, id: TransactionId, command: &[u8]) -> Result<StoredTransaction, RowError> {
    let (head, command) = decoded(|| format!("the command of {id}"), format::decode_command(command))?;
    let facts = facts(rows, id)?;
    Ok(StoredTransaction { id, client: head.client, digest: head.digest, command, facts })
}

/// A transaction, if it is there and not a tombstone.
pub(super) fn live(
    rows: &dyn ReadRows,
    id: TransactionId,
) -> Result<Option<Box<StoredTransaction>>, RowError> {
    match read_chunked(rows, Table::Tx, &keys::command(id))? {
        Some(bytes) if !format::is_tombstone(&bytes) => live_of(rows, id, &bytes).map(Box::new).map(Some),
        Some(_) | None => Ok(None),
    }
}

/// Where the version begins in the key of a fact.
pub(super) const VERSION_AT: usize = 17;

fn facts(rows: &dyn ReadRows, id: TransactionId) -> Result<Vec<Recorded>, RowError> {
    let mut facts = Vec::new();
    walk_chunked(rows, Table::Tx, &keys::facts(id), None, VERSION_AT + 4, &mut |key, value| {
        let version = keys::u32_at(key, VERSION_AT).ok_or_else(|| misshapen(Table::Tx))?;
        if usize::try_from(version).ok() != Some(facts.len() + 1) {
            return Err(RowError::Corrupt {
                what: format!("{id}: fact {version} where {} should be", facts.len() + 1),
                source: Arc::new(format::FormatError::Short),
            });
        }
        facts.push(decoded(|| format!("fact {version} of {id}"), format::decode_fact(value))?);
        Ok(Walk::On)
    })?;
    Ok(facts)
}

/// Reads personal data; see [`crate::ports::store::Store::ship_to`].
///
/// # Errors
/// When rows cannot be read or decoded.
pub fn ship_to(rows: &dyn ReadRows, id: TransactionId) -> Result<Option<ShipTo>, RowError> {
    let Some(bytes) = rows.get(Table::Tx, &keys::ship_to(id))? else { return Ok(None) };
    decoded(|| format!("the address of {id}"), format::decode_ship_to(bytes)).map(Some)
}

/// Walks a client's orders; see [`crate::ports::store::Store::orders_of`].
///
/// # Errors
/// When rows cannot be read.
pub fn orders_of(
    rows: &dyn ReadRows,
    client: ClientNo,
    after: Option<TransactionId>,
    limit: usize,
) -> Result<Vec<TransactionId>, RowError> {
    let mut orders = Vec::new();
    let after = after.map(|id| keys::by_client(client, id));
    rows.walk(Table::ByClient, &keys::client(client), after.as_deref(), &mut |key, _| {
        if orders.len() == limit {
            return Ok(Walk::Stop);
        }
        orders.push(keys::id_at(key, 4).ok_or_else(|| misshapen(Table::ByClient))?);
        Ok(Walk::On)
    })?;
    Ok(orders)
}

/// Reads a position; see [`crate::ports::store::Store::position`].
///
/// # Errors
/// When rows cannot be read or decoded.
pub fn position(
    rows: &dyn ReadRows,
    partition: PartitionId,
    client: ClientNo,
    sku: &Sku,
) -> Result<Option<Position>, RowError> {
    let Some(bytes) = rows.get(Table::Stock, &keys::position(partition, client, sku))? else {
        return Ok(None);
    };
    decoded(|| format!("the position of {sku}"), format::decode_position(bytes)).map(Some)
}

/// Where the SKU begins in a key of `stock`.
const SKU_AT: usize = 6;

fn sku_of(key: &[u8]) -> Result<Sku, RowError> {
    let text = key.get(SKU_AT..).and_then(|sku| std::str::from_utf8(sku).ok());
    text.and_then(|sku| sku.parse().ok()).ok_or_else(|| misshapen(Table::Stock))
}

/// Walks a client's positions; see [`crate::ports::store::Store::positions`].
///
/// # Errors
/// When rows cannot be read or decoded.
pub fn positions(
    rows: &dyn ReadRows,
    partition: PartitionId,
    client: ClientNo,
    after: Option<&Sku>,
    limit: usize,
) -> Result<Vec<(Sku, Position)>, RowError> {
    let mut found = Vec::new();
    let after = after.map(|sku| keys::position(partition, client, sku));
    let prefix = keys::positions(partition, client);
    rows.walk(Table::Stock, &prefix, after.as_deref(), &mut |key, value| {
        if found.len() == limit {
            return Ok(Walk::Stop);
        }
        let sku = sku_of(key)?;
        let position = decoded(|| format!("the position of {sku}"), format::decode_position(value))?;
        found.push((sku, position));
        Ok(Walk::On)
    })?;
    Ok(found)
}

/// Reads a manifest's cartons; see [`crate::ports::store::Store::cartons`].
///
/// # Errors
/// When rows cannot be read or decoded.
pub fn cartons(rows: &dyn ReadRows, manifest: TransactionId) -> Result<Vec<ManifestCarton>, RowError> {
    let mut found = Vec::new();
    rows.walk(Table::Cartons, &keys::tx(manifest), None, &mut |_, value| {
        found.push(decoded(|| format!("a carton of {manifest}"), format::decode_carton(value))?);
        Ok(Walk::On)
    })?;
    Ok(found)
}

/// Walks all live transactions; see [`crate::ports::store::Store::scan`].
///
/// # Errors
/// When rows cannot be read or decoded.
pub fn scan(
    rows: &dyn ReadRows,
    after: Option<TransactionId>,
    limit: usize,
) -> Result<Vec<StoredTransaction>, RowError> {
    const PART_AT: usize = 16;
    let mut ids = Vec::new();
    let after = after.map(keys::tx_end);
    rows.walk(Table::Tx, &[], after.as_deref(), &mut |key, value| {
        if ids.len() == limit {
            return Ok(Walk::Stop);
        }
        let is_command = key.get(PART_AT..) == Some(&[0, 0, 0]);
        if is_command && !format::is_tombstone(value) {
            ids.push(keys::id_at(key, 0).ok_or_else(|| misshapen(Table::Tx))?);
        }
        Ok(Walk::On)
    })?;
    let mut found = Vec::with_capacity(ids.len());
    for id in ids {
        found.extend(live(rows, id)?.map(|stored| *stored));
    }
    Ok(found)
}

/// Reads what an owner rebuilds from; see [`crate::ports::store::Store::load`].
///
/// # Errors
/// When rows cannot be read or decoded.
pub fn load(rows: &dyn ReadRows, partition: PartitionId) -> Result<PartitionImage, RowError> {
    let prefix = keys::partition(partition);
    let mut image = PartitionImage::default();
    rows.walk(Table::Stock, &prefix, None, &mut |key, value| {
        let client = ClientNo(keys::u32_at(key, 2).ok_or_else(|| misshapen(Table::Stock))?);
        let sku = sku_of(key)?;
        match format::decode_position(value) {
            Ok(position) => {
                if format::is_untold_position(value) {
                    image.untold.push((client, sku.clone()));
                }
                image.positions.push(((client, sku), position));
            }
            Err(e) => image.unreadable_positions.push(((client, sku), e.to_string())),
        }
        Ok(Walk::On)
    })?;
    walk_chunked(rows, Table::Waves, &prefix, None, 2 + 16, &mut |key, value| {
        let id = keys::id_at(key, 2).ok_or_else(|| misshapen(Table::Waves))?;
        match format::decode_wave(value) {
            Ok(releases) => image.waves.push(StoredWave { id, releases }),
            Err(e) => image.unreadable_waves.push((id, e.to_string())),
        }
        Ok(Walk::On)
    })?;
    for key in super::keys_under(rows, Table::Open, &prefix)? {
        let id = keys::id_at(&key, 2).ok_or_else(|| misshapen(Table::Open))?;
        // One that cannot be read must not keep the others from their owner.
        match live(rows, id) {
            Ok(Some(stored)) => {
                image.open.push(*stored);
                let told = super::feed::readable_estimates(rows, id)?;
                image.promises.extend(Promise::last(&told).map(|promise| (id, promise)));
            }
            Ok(None) => image.unreadable.push((id, "it is not there".to_owned())),
            Err(RowError::Corrupt { what, source }) => {
                image.unreadable.push((id, format!("{what}: {source}")));
            }
            Err(e @ (RowError::Full | RowError::Backend(_) | RowError::Broken(_))) => return Err(e),
        }
    }
    image.trouble = read_partition(rows, partition)?.trouble;
    Ok(image)
}

/// Where the number begins in a key of `lanes`.
const N_AT: usize = 3;

/// Reads the heads of the lanes; see [`crate::ports::store::Store::gather`].
///
/// # Errors
/// When rows cannot be read. What cannot be decoded is an entry that says so.
pub fn gather(
    rows: &dyn ReadRows,
    partition: PartitionId,
    limits: GatherLimits,
) -> Result<Gathered, RowError> {
    let paused = read_partition(rows, partition)?.paused;
    let mut entries = Vec::new();
    for (lane, limit) in [(Lane::Control, limits.control), (Lane::Stock, limits.stock)] {
        for (n, value) in lane_head(rows, partition, lane, limit)? {
            entries.push(LaneEntry { lane, n, item: lane_item(rows, partition, &value)? });
        }
    }
    // One more than is taken: how long that one has waited is what operators and clients are told.
    let mut next = None;
    let work_max = if paused { 0 } else { limits.work };
    let work = lane_head(rows, partition, Lane::Work, work_max.saturating_add(1))?;
    for (i, (n, value)) in work.into_iter().enumerate() {
        if i == work_max {
            next = accepted_at(rows, &value)?;
        } else {
            entries.push(LaneEntry { lane: Lane::Work, n, item: lane_item(rows, partition, &value)? });
        }
    }
    let backlog = read_counter(rows, &keys::lane_counter(partition, Lane::Work))?.count;
    Ok(Gathered { entries, backlog, next, paused })
}

fn lane_head(
    rows: &dyn ReadRows,
    partition: PartitionId,
    lane: Lane,
    limit: usize,
) -> Result<Vec<(u64, Vec<u8>)>, RowError> {
    let mut head = Vec::new();
    if limit == 0 {
        return Ok(head);
    }
    walk_chunked(rows, Table::Lanes, &keys::lane(partition, lane), None, N_AT + 8, &mut |key, value| {
        let n = keys::u64_at(key, N_AT).ok_or_else(|| misshapen(Table::Lanes))?;
        head.push((n, value.to_vec()));
        Ok(if head.len() == limit { Walk::Stop } else { Walk::On })
    })?;
    Ok(head)
}

/// An entry that cannot be read must not stop the lane: it is handed over as such.
fn lane_item(rows: &dyn ReadRows, partition: PartitionId, value: &[u8]) -> Result<LaneItem, RowError> {
    let id = match format::decode_lane(value) {
        Ok(StoredItem::Report(report)) => return Ok(LaneItem::Report(Box::new(report))),
        Ok(StoredItem::Instruction(asked)) => {
            let letter = match dead::letter(rows, partition, asked.letter()) {
                Ok(letter) => letter.map(|(letter, _)| Box::new(letter)),
                // A letter that cannot be read cannot be dealt with; the instruction means nothing.
                Err(RowError::Corrupt { .. }) => None,
                Err(e @ (RowError::Full | RowError::Backend(_) | RowError::Broken(_))) => return Err(e),
            };
            return Ok(LaneItem::Instruction(asked, letter));
        }
        Ok(StoredItem::Transaction(id)) => id,
        Err(e) => return Ok(LaneItem::Undecodable(None, format!("{e}: {value:02x?}"))),
    };
    match live(rows, id) {
        Ok(Some(stored)) => Ok(LaneItem::Transaction(stored)),
        Ok(None) => Ok(LaneItem::Undecodable(Some(id), format!("transaction {id} is not there"))),
        Err(RowError::Corrupt { what, source }) => {
            Ok(LaneItem::Undecodable(Some(id), format!("{what}: {source}")))
        }
        Err(e @ (RowError::Full | RowError::Backend(_) | RowError::Broken(_))) => Err(e),
    }
}

fn accepted_at(rows: &dyn ReadRows, value: &[u8]) -> Result<Option<Timestamp>, RowError> {
    let Ok(StoredItem::Transaction(id)) = format::decode_lane(value) else { return Ok(None) };
    let first = read_chunked(rows, Table::Tx, &keys::fact(id, 1))?;
    Ok(first.and_then(|bytes| format::decode_fact(&bytes).ok()).map(|recorded| recorded.at))
}

/// Who must be awake when; see [`crate::ports::store::Store::wake_ups`].
///
/// # Errors
/// When rows cannot be read or decoded.
pub fn wake_ups(rows: &dyn ReadRows) -> Result<Vec<(PartitionId, Timestamp)>, RowError> {
    let mut due = std::collections::BTreeMap::new();
    rows.walk(Table::Partition, &[], None, &mut |key, value| {
        let partition = PartitionId(keys::u16_at(key, 0).ok_or_else(|| misshapen(Table::Partition))?);
        let row = decoded(|| format!("{partition:?}"), format::decode_partition(value))?;
        if row.wake_at < Timestamp::NEVER {
            due.insert(partition, row.wake_at);
        }
        Ok(Walk::On)
    })?;
    rows.walk(Table::Counters, keys::LANE_COUNTERS, None, &mut |key, value| {
        let partition = PartitionId(keys::u16_at(key, 1).ok_or_else(|| misshapen(Table::Counters))?);
        if decoded(|| "a lane's counter".to_owned(), format::decode_counter(value))?.count > 0 {
            due.insert(partition, Timestamp::default());
        }
        Ok(Walk::On)
    })?;
    Ok(due.into_iter().collect())
}

/// Walks a partition's dead letters; see [`crate::ports::store::Store::dead_letters`].
///
/// # Errors
/// When rows cannot be read. What cannot be decoded is a letter that says so.
pub fn dead_letters(
    rows: &dyn ReadRows,
    partition: PartitionId,
    after: u64,
    limit: usize,
) -> Result<Vec<Listed>, RowError> {
    let mut found = Vec::new();
    if limit == 0 {
        return Ok(found);
    }
    let after = keys::chunk(&keys::dead(partition, after), u16::MAX);
    let prefix = keys::partition(partition);
    walk_chunked(rows, Table::Dead, &prefix, Some(&after), 2 + 8, &mut |key, value| {
        let n = keys::u64_at(key, 2).ok_or_else(|| misshapen(Table::Dead))?;
        // One that cannot be read must not hide the others.
        let letter = format::decode_dead(value).map(|(letter, _)| letter);
        found.push((n, letter.map_err(|e| format!("dead letter {n}: {e}"))));
        Ok(if found.len() == limit { Walk::Stop } else { Walk::On })
    })?;
    Ok(found)
}
