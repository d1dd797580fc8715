//! Where every row lies in Redis: from table and key to slot, Redis key and field, and back. It must
//! never talk to Redis.

use std::sync::Arc;

use crate::domain::ids::{ClientNo, PartitionId, TransactionId};
use crate::ports::store::Lane;
use crate::store::format::FormatError;
use crate::store::keys::{self, Key, Table};
use crate::store::rows::{ClaimHash, RowError};

/// Shards of the feeds, and of what is kept beside them. Part of the layout: it never changes.
pub(super) const SHARDS: u32 = 16;

/// What shares a hash slot, and so can be written by one script.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Slot {
    /// A warehouse.
    Partition(PartitionId),
    /// Feeds and endpoints of every sixteenth client.
    Shard(u32),
    /// The store's own record and its names.
    Meta,
}

impl Slot {
    /// The shard of a client.
    pub(super) fn of_client(client: ClientNo) -> Slot {
        Slot::Shard(client.0 % SHARDS)
    }

    /// A key of this slot.
    pub(super) fn key(self, name: &str) -> Vec<u8> {
        match self {
            Slot::Partition(PartitionId(p)) => format!("wg:{{{p}}}:{name}"),
            Slot::Shard(f) => format!("wg:{{f{f}}}:{name}"),
            Slot::Meta => format!("wg:{{meta}}:{name}"),
        }
        .into_bytes()
    }
}

/// The claim of a reference or an `Idempotency-Key`: a slot of its own.
pub(super) fn claim(ClaimHash(hash): ClaimHash) -> Vec<u8> {
    let hash = hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    format!("wg:{{i{hash}}}").into_bytes()
}

/// A lane of a partition.
pub(super) fn lane(partition: PartitionId, lane: Lane) -> Vec<u8> {
    Slot::Partition(partition).key(match lane {
        Lane::Control => "control",
        Lane::Stock => "stock_lane",
        Lane::Work => "work",
    })
}

/// A client's feed, in its shard.
pub(super) fn feed(client: ClientNo) -> Vec<u8> {
    Slot::of_client(client).key(&format!("feed:{}", client.0))
}

/// The numbers that a transaction's facts, and what was told of its estimate, have in its client's feed.
pub(super) fn numbers(client: ClientNo, id: TransactionId) -> Vec<u8> {
    Slot::of_client(client).key(&format!("of:{id}"))
}

/// The field there of what was told of its estimate: no order is told twice at one time.
pub(super) fn told_at(ms: &[u8]) -> Vec<u8> {
    [b"e", ms].concat()
}

/// The orders of a client in a partition.
pub(super) fn orders(partition: PartitionId, client: ClientNo) -> Vec<u8> {
    Slot::Partition(partition).key(&format!("c:{}", client.0))
}

/// How a unit holds its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// A hash of field to value, with a version in the field `v`.
    Hash,
    /// The same, which goes when its last row goes.
    Disposable,
    /// A sorted set of fields, all of score zero: every value is the mark.
    Index,
    /// A stream whose ids are `0-n`.
    Stream,
}

/// The Redis key that holds rows of a table, and which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unit {
    /// Its Redis key.
    pub(super) key: Vec<u8>,
    /// How many bytes of a row's key all its rows share; the rest is the field.
    pub(super) shared: usize,
    /// How it holds them.
    pub(super) shape: Shape,
}

/// The field of a row whose whole key names its unit.
const ONLY: &[u8] = b"row";

impl Unit {
    /// The field of a row.
    pub(super) fn field<'k>(&self, key: &'k [u8]) -> &'k [u8] {
        match key.get(self.shared..) {
            Some([]) | None => ONLY,
            Some(field) => field,
        }
    }

    /// The key of a row, from the shared bytes of any of them and a field.
    pub(super) fn row(&self, shared: &[u8], field: &[u8]) -> Key {
        let shared = shared.get(..self.shared).unwrap_or(shared);
        if field == ONLY { shared.to_vec() } else { [shared, field].concat() }
    }
}

/// A row that has no place in a slot: the caller mixed two of them.
fn misplaced(slot: Slot, table: Table) -> RowError {
    RowError::Broken(format!("a row of {} does not lie in {slot:?}", table.name()))
}

fn short(table: Table) -> RowError {
    let source = Arc::new(FormatError::Short);
    RowError::Corrupt { what: format!("a key of {}", table.name()), source }
}

/// The unit that holds a row, or all rows that begin with `key`.
///
/// # Errors
/// When the slot has no such rows.
pub(super) fn unit(slot: Slot, table: Table, key: &[u8]) -> Result<Unit, RowError> {
    match slot {
        Slot::Partition(home) => in_partition(home, table, key),
        Slot::Shard(_) => in_shard(slot, table, key),
        Slot::Meta if table == Table::Meta => Ok(hash(slot, "names", 0)),
        Slot::Meta => Err(misplaced(slot, table)),
    }
}

fn hash(slot: Slot, name: &str, shared: usize) -> Unit {
    Unit { key: slot.key(name), shared, shape: Shape::Hash }
}

fn index(slot: Slot, name: &str, shared: usize) -> Unit {
    Unit { key: slot.key(name), shared, shape: Shape::Index }
}

fn disposable(slot: Slot, name: &str, shared: usize) -> Unit {
    Unit { key: slot.key(name), shared, shape: Shape::Disposable }
}

fn in_partition(home: PartitionId, table: Table, key: &[u8]) -> Result<Unit, RowError> {
    let slot = Slot::Partition(home);
    let id = || keys::id_at(key, 0).filter(|id| id.home() == home).ok_or_else(|| misplaced(slot, table));
    let ours = |at: usize, unit: Unit| match keys::u16_at(key, at) {
        Some(p) if p == home.0 => Ok(unit),
        Some(_) | None => Err(misplaced(slot, table)),
    };
    match table {
        Table::Tx => Ok(disposable(slot, &format!("t:{}", id()?), 16)),
        Table::Cartons => Ok(disposable(slot, &format!("m:{}", id()?), 16)),
        Table::ByClient => {
            let client = keys::u32_at(key, 0).ok_or_else(|| short(table))?;
            Ok(Unit { key: orders(home, ClientNo(client)), shared: 4, shape: Shape::Index })
        }
        Table::Open => ours(0, index(slot, "open", 2)),
        Table::Stock => ours(0, hash(slot, "stock", 2)),
        Table::Waves => ours(0, hash(slot, "waves", 2)),
        Table::Dead => ours(0, hash(slot, "dead", 2)),
        Table::Settled => ours(0, hash(slot, "settled", 2)),
        Table::DeadOf => Ok(hash(slot, "dead_of", 0)),
        Table::Partition => ours(0, hash(slot, "own", 2)),
        Table::Counters => ours(1, hash(slot, "counts", 3)),
        Table::Ended => Ok(index(slot, "ended", 0)),
        Table::Tombstones => Ok(index(slot, "tombstones", 0)),
        Table::Lanes => ours(0, lane_unit(home, key)?),
        Table::Claims
        | Table::ClaimsLog
        | Table::Feed
        | Table::Meta
        | Table::Endpoints
        | Table::Deliveries
        | Table::DeadDeliveries
        | Table::Notices => Err(misplaced(slot, table)),
    }
}

fn lane_unit(home: PartitionId, key: &[u8]) -> Result<Unit, RowError> {
    let of = |lane: &Lane| key.starts_with(&keys::lane(home, *lane));
    let lane = Lane::ALL.into_iter().find(of).ok_or_else(|| short(Table::Lanes))?;
    Ok(Unit { key: self::lane(home, lane), shared: keys::lane(home, lane).len(), shape: Shape::Stream })
}

fn in_shard(slot: Slot, table: Table, key: &[u8]) -> Result<Unit, RowError> {
    let client = |at| {
        let client = ClientNo(keys::u32_at(key, at).ok_or_else(|| short(table))?);
        if Slot::of_client(client) == slot { Ok(client) } else { Err(misplaced(slot, table)) }
    };
    let id = || keys::id_at(key, 0).ok_or_else(|| short(table));
    match table {
        Table::Endpoints => Ok(hash(slot, "hooks", 0)),
        Table::Deliveries => {
            let part = key.get(16).ok_or_else(|| short(table))?;
            Ok(disposable(slot, &format!("d:{}:{part}", id()?.0), 17))
        }
        Table::DeadDeliveries => Ok(disposable(slot, &format!("x:{}", id()?.0), 16)),
        Table::Notices => Ok(disposable(slot, &format!("n:{}", client(0)?.0), 4)),
        Table::Feed => Ok(Unit { key: feed(client(0)?), shared: 4, shape: Shape::Stream }),
        Table::Counters => {
            client(1)?;
            Ok(Unit { key: slot.key("next"), shared: 1, shape: Shape::Hash })
        }
        Table::Tx
        | Table::Cartons
        | Table::ByClient
        | Table::Open
        | Table::Stock
        | Table::Waves
        | Table::Dead
        | Table::Settled
        | Table::DeadOf
        | Table::Partition
        | Table::Ended
        | Table::Tombstones
        | Table::Lanes
        | Table::Claims
        | Table::ClaimsLog
        | Table::Meta => Err(misplaced(slot, table)),
    }
}

/// The parts of an endpoint's rows in `deliveries`; a walk over all of them is one over each.
pub(super) const DELIVERY_PARTS: [u8; 4] = [0, 1, 2, 3];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::Timestamp;

    #[test]
    fn what_one_script_writes_has_one_tag() {
        let home = PartitionId(7);
        let id = TransactionId::new(Timestamp(1), home, 2);
        let slot = Slot::Partition(home);
        let rows = [
            (Table::Tx, keys::fact(id, 3)),
            (Table::Cartons, keys::carton(id, 1)),
            (Table::Open, keys::in_partition(home, id)),
            (Table::Dead, keys::dead(home, 1)),
            (Table::Lanes, keys::lane_entry(home, Lane::Work, 9)),
            (Table::Counters, keys::dead_counter(home)),
            (Table::Partition, keys::partition(home)),
        ];
        for (table, key) in rows {
            let unit = unit(slot, table, &key).unwrap();
            assert!(unit.key.starts_with(b"wg:{7}:"), "{table:?}");
            assert_eq!(unit.row(&key, unit.field(&key)), key, "{table:?}");
        }
    }

    #[test]
    fn a_row_of_another_slot_has_no_place() {
        let elsewhere = TransactionId::new(Timestamp(1), PartitionId(8), 2);
        let slot = Slot::Partition(PartitionId(7));
        assert!(unit(slot, Table::Tx, &keys::command(elsewhere)).is_err());
        assert!(unit(slot, Table::Partition, &keys::partition(PartitionId(8))).is_err());
        assert!(unit(Slot::Shard(1), Table::Notices, &keys::feed(ClientNo(2), 1)).is_err());
        assert!(unit(Slot::Meta, Table::Tx, &keys::command(elsewhere)).is_err());
    }
}
