//! Where every record of the ordered stores lies: tables, keys and who writes them. It builds
//! keys and takes them apart; it must never touch a value.
//!
//! Integers are big-endian, so byte order is their order. `p` partition u16, `c` client u32,
//! `id` 16 bytes, `lane` u8 in drain order, `chunk` u16. Values over [`CHUNK_BYTES`] continue
//! under the next chunk number; only the first chunk begins with kind and format byte.
//!
//! | table | key → value | written by |
//! |---|---|---|
//! | `tx` | id ‖ 0 ‖ chunk → command with client and digest, later its tombstone | accept, turn (`created`), sweep |
//! | | id ‖ 1 → personal data | accept; sweep deletes |
//! | | id ‖ 2 ‖ version u32 ‖ chunk → fact, with its number in the feed unless it is the house's (LMDB has those from 2 on in a table of their own: `embedded/place.rs`) | accept (version 1), turn; sweep deletes |
//! | | id ‖ 3 ‖ hash → – (the claims of `Idempotency-Key`s that lead here) | accept; sweep deletes |
//! | | id ‖ 4 → what the order's client was told of its estimate, each with its number in the feed | turn (`estimates`); sweep deletes |
//! | `claims_log` | n u64 → hash of a claim, id | accept; the merge deletes |
//! | `claims` | hash of a claim → id | the merge of `claims_log`; sweep deletes with the tombstone |
//! | `by_client` | c ‖ id → – (orders only) | accept; sweep deletes |
//! | `feed` | c ‖ sequence u64 → id, version (with its highest bit: an estimate; 0: an id of its own, see `notices`) | accept, turn: with each fact and estimate; the sweep of feeds deletes |
//! | | c ‖ sequence u64 → an id of its own, SKU, position | turn (`told`); the sweep of feeds deletes |
//! | `open` | p ‖ id → – | turn that pulls it; turn that ends it deletes |
//! | `lanes` | p ‖ lane ‖ n u64 ‖ chunk → id, a WMS's report, or an operator's instruction | accept, reports, instruct; turn deletes |
//! | `stock` | p ‖ c ‖ SKU → position, absolute, and whether its feed has told of it | turn |
//! | `waves` | p ‖ wave ‖ chunk → releases | turn; the turn of its answer deletes |
//! | `cartons` | manifest id ‖ n u32 → carton | turn that closes the manifest; sweep deletes |
//! | `ended` | ended at i64 ‖ id → – | turn; sweep moves it to `tombstones` |
//! | `tombstones` | ended at i64 ‖ id → – | sweep |
//! | `dead` | p ‖ n u64 ‖ chunk → dead letter | turn |
//! | `dead_of` | order id → number of its open dead letter | turn |
//! | `settled` | p ‖ n u64 → how the dead letter was dealt with | turn |
//! | `partition` | p → epoch, nonce, wake_at, paused, trouble | take, turn, pause |
//! | `endpoints` | c ‖ endpoint id ‖ chunk → webhook endpoint | create, change, record (`disabled`); purge deletes |
//! | `deliveries` | endpoint id ‖ 0 → epoch, cursor, fortune, next attempt, rest, what was skipped | create, take, enable, record; purge deletes |
//! | | endpoint id ‖ 1 ‖ sequence u64 → delivery that is not finished | record |
//! | | endpoint id ‖ 2 ‖ n u64 → attempt | record, which also drops the oldest |
//! | | endpoint id ‖ 3 ‖ replay id ‖ chunk → replay | change; record deletes |
//! | `dead_deliveries` | endpoint id ‖ sequence u64 → delivery that is kept aside | record; give-up deletes |
//! | `notices` | c ‖ sequence u64 ‖ chunk → what an entry of the feed says about an endpoint | record (`disabled`); the sweep of feeds deletes |
//! | `counters` | 1 ‖ p ‖ lane, 2 ‖ c (feed), 3 ‖ p (dead letters) → next number, entries | whoever writes what is counted |
//! | `meta` | 1 → store id and format; 2 → next carton serial; 3 ‖ code → partition; 4 ‖ name → client number; 5 → the secret that claims are hashed with | start; lease of serials |
//!
//! The client number 0 (the house) has no claims, no feed and no `by_client` rows.

mod endpoints;

use crate::domain::ids::{ClientNo, PartitionId, Sku, TransactionId, WaveId};
use crate::domain::time::Timestamp;
use crate::ports::store::Lane;

pub use endpoints::{
    attempt, attempts_of, dead_delivery, endpoint, of_endpoint, pending, pending_of, progress, replay,
    replays_of,
};

/// Bytes of a value's chunk. LMDB gives a value above about 2,000 bytes pages of its own.
pub const CHUNK_BYTES: usize = 1_900;

/// The longest key that LMDB takes, in bytes.
#[cfg(test)]
const KEY_BYTES_MAX: usize = 511;

/// The tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// Transactions.
    Tx,
    /// Who holds a reference or a key, once merged.
    Claims,
    /// Claims that are to be merged.
    ClaimsLog,
    /// A client's orders.
    ByClient,
    /// Clients' feeds.
    Feed,
    /// What owners hold in memory.
    Open,
    /// The queues.
    Lanes,
    /// The ledgers.
    Stock,
    /// Waves without an answer.
    Waves,
    /// Cartons of closed manifests.
    Cartons,
    /// Ended transactions by time.
    Ended,
    /// Tombstones by the time that their transaction ended.
    Tombstones,
    /// Dead letters that are open.
    Dead,
    /// Ownership and wake-up of partitions.
    Partition,
    /// Next numbers and counts.
    Counters,
    /// The store itself and its names.
    Meta,
    /// Which open dead letter is an order's.
    DeadOf,
    /// How dead letters were dealt with.
    Settled,
    /// Webhook endpoints.
    Endpoints,
    /// How far deliveries have come.
    Deliveries,
    /// Deliveries that are kept aside.
    DeadDeliveries,
    /// What feeds say about endpoints.
    Notices,
}

impl Table {
    /// All tables; a table's place here is its index.
    pub const ALL: [Table; 22] = [
        Table::Tx,
        Table::Claims,
        Table::ClaimsLog,
        Table::ByClient,
        Table::Feed,
        Table::Open,
        Table::Lanes,
        Table::Stock,
        Table::Waves,
        Table::Cartons,
        Table::Ended,
        Table::Tombstones,
        Table::Dead,
        Table::Partition,
        Table::Counters,
        Table::Meta,
        Table::DeadOf,
        Table::Settled,
        Table::Endpoints,
        Table::Deliveries,
        Table::DeadDeliveries,
        Table::Notices,
    ];

    /// The table's name on disk.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Table::Tx => "tx",
            Table::Claims => "claims",
            Table::ClaimsLog => "claims_log",
            Table::ByClient => "by_client",
            Table::Feed => "feed",
            Table::Open => "open",
            Table::Lanes => "lanes",
            Table::Stock => "stock",
            Table::Waves => "waves",
            Table::Cartons => "cartons",
            Table::Ended => "ended",
            Table::Tombstones => "tombstones",
            Table::Dead => "dead",
            Table::Partition => "partition",
            Table::Counters => "counters",
            Table::Meta => "meta",
            Table::DeadOf => "dead_of",
            Table::Settled => "settled",
            Table::Endpoints => "endpoints",
            Table::Deliveries => "deliveries",
            Table::DeadDeliveries => "dead_deliveries",
            Table::Notices => "notices",
        }
    }

    /// Its place in [`Table::ALL`].
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }
}

/// A key under construction.
pub type Key = Vec<u8>;

fn key(parts: &[&[u8]]) -> Key {
    parts.concat()
}

/// The rows of one transaction; in `dead_of` its one row.
#[must_use]
pub fn tx(id: TransactionId) -> Key {
    key(&[id.0.as_bytes()])
}

/// Above every row of a transaction and below the next one's.
#[must_use]
pub fn tx_end(id: TransactionId) -> Key {
    key(&[id.0.as_bytes(), &[0xFF]])
}

/// A transaction's command or tombstone; chunked.
#[must_use]
pub fn command(id: TransactionId) -> Key {
    key(&[id.0.as_bytes(), &[0]])
}

/// A transaction's personal data.
#[must_use]
pub fn ship_to(id: TransactionId) -> Key {
    key(&[id.0.as_bytes(), &[1]])
}

/// A transaction's facts.
#[must_use]
pub fn facts(id: TransactionId) -> Key {
    key(&[id.0.as_bytes(), &[2]])
}

/// One fact; chunked.
#[must_use]
pub fn fact(id: TransactionId, version: u32) -> Key {
    key(&[id.0.as_bytes(), &[2], &version.to_be_bytes()])
}

/// The key claims that lead to a transaction.
#[must_use]
pub fn keys_of(id: TransactionId) -> Key {
    key(&[id.0.as_bytes(), &[3]])
}

/// What an order's client was told of its estimate.
#[must_use]
pub fn estimates(id: TransactionId) -> Key {
    key(&[id.0.as_bytes(), &[4]])
}

/// One chunk of a chunked value.
#[must_use]
pub fn chunk(of: &[u8], n: u16) -> Key {
    key(&[of, &n.to_be_bytes()])
}

/// A claim of the log.
#[must_use]
pub fn claim_row(n: u64) -> Key {
    key(&[&n.to_be_bytes()])
}

/// The rows of a client in `by_client`, `endpoints` or `feed`.
#[must_use]
pub fn client(client: ClientNo) -> Key {
    key(&[&client.0.to_be_bytes()])
}

/// An order of a client.
#[must_use]
pub fn by_client(client: ClientNo, id: TransactionId) -> Key {
    key(&[&client.0.to_be_bytes(), id.0.as_bytes()])
}

/// An entry of a feed, and what it says in `notices` (chunked).
#[must_use]
pub fn feed(client: ClientNo, sequence: u64) -> Key {
    key(&[&client.0.to_be_bytes(), &sequence.to_be_bytes()])
}

/// The rows of a partition in `open`, `lanes`, `stock`, `waves`, `dead`, `settled` and `partition`.
#[must_use]
pub fn partition(partition: PartitionId) -> Key {
    key(&[&partition.0.to_be_bytes()])
}

/// An open transaction, or a wave, of a partition.
#[must_use]
pub fn in_partition(partition: PartitionId, id: TransactionId) -> Key {
    key(&[&partition.0.to_be_bytes(), id.0.as_bytes()])
}

/// A wave that waits for its answer.
#[must_use]
pub fn wave(partition: PartitionId, wave: WaveId) -> Key {
    in_partition(partition, wave)
}

/// The lane's number in keys; never reused.
fn lane_number(lane: Lane) -> u8 {
    match lane {
        Lane::Control => 1,
        Lane::Stock => 2,
        Lane::Work => 3,
    }
}

/// The entries of a lane.
#[must_use]
pub fn lane(partition: PartitionId, lane: Lane) -> Key {
    key(&[&partition.0.to_be_bytes(), &[lane_number(lane)]])
}

/// One entry; chunked.
#[must_use]
pub fn lane_entry(partition: PartitionId, of: Lane, n: u64) -> Key {
    key(&[&lane(partition, of), &n.to_be_bytes()])
}

/// The positions of a client in a partition.
#[must_use]
pub fn positions(partition: PartitionId, client: ClientNo) -> Key {
    key(&[&partition.0.to_be_bytes(), &client.0.to_be_bytes()])
}

/// One position.
#[must_use]
pub fn position(partition: PartitionId, client: ClientNo, sku: &Sku) -> Key {
    key(&[&positions(partition, client), sku.as_str().as_bytes()])
}

/// A carton of a manifest.
#[must_use]
pub fn carton(manifest: TransactionId, n: u32) -> Key {
    key(&[manifest.0.as_bytes(), &n.to_be_bytes()])
}

/// A transaction by the time it ended, in `ended` and `tombstones`.
#[must_use]
pub fn ended(at: Timestamp, id: TransactionId) -> Key {
    // Times before 1970 do not occur; clamped, so that they cannot sort behind all others.
    key(&[&at.0.max(0).to_be_bytes(), id.0.as_bytes()])
}

/// A dead letter, in `dead` (chunked) and in `settled`.
#[must_use]
pub fn dead(partition: PartitionId, n: u64) -> Key {
    key(&[&partition.0.to_be_bytes(), &n.to_be_bytes()])
}

/// The counters of all lanes.
pub const LANE_COUNTERS: &[u8] = &[1];

/// The counter of a lane.
#[must_use]
pub fn lane_counter(partition: PartitionId, of: Lane) -> Key {
    key(&[LANE_COUNTERS, &lane(partition, of)])
}

/// The counters of all feeds.
pub const FEED_COUNTERS: &[u8] = &[2];

/// The counter of a feed.
#[must_use]
pub fn feed_counter(client: ClientNo) -> Key {
    key(&[FEED_COUNTERS, &client.0.to_be_bytes()])
}

/// The counter of a partition's dead letters.
#[must_use]
pub fn dead_counter(partition: PartitionId) -> Key {
    key(&[&[3], &partition.0.to_be_bytes()])
}

/// The store's own record.
pub const STORE: &[u8] = &[1];
/// The next carton serial.
pub const SERIALS: &[u8] = &[2];
/// Warehouse codes.
pub const WAREHOUSES: &[u8] = &[3];
/// Client names.
pub const CLIENTS: &[u8] = &[4];
/// The secret that claims are hashed with.
pub const CLAIM_SECRET: &[u8] = &[5];

/// A name in `meta`.
#[must_use]
pub fn name(of: &[u8], name: &str) -> Key {
    key(&[of, name.as_bytes()])
}

/// Reads the id that stands at `at` in a key.
#[must_use]
pub fn id_at(key: &[u8], at: usize) -> Option<TransactionId> {
    let bytes: [u8; 16] = key.get(at..at + 16)?.try_into().ok()?;
    Some(TransactionId(uuid::Uuid::from_bytes(bytes)))
}

/// Reads the u64 that stands at `at` in a key.
#[must_use]
pub fn u64_at(key: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(key.get(at..at + 8)?.try_into().ok()?))
}

/// Reads the u32 that stands at `at` in a key.
#[must_use]
pub fn u32_at(key: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(key.get(at..at + 4)?.try_into().ok()?))
}

/// Reads the u16 that stands at `at` in a key.
#[must_use]
pub fn u16_at(key: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(key.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_sku_fits_a_key() {
        let sku: Sku = "📦".repeat(Sku::CHARS_MAX).parse().unwrap();
        assert!(position(PartitionId(1), ClientNo(1), &sku).len() <= KEY_BYTES_MAX);
    }

    #[test]
    fn each_table_stands_at_its_index() {
        for (i, table) in Table::ALL.into_iter().enumerate() {
            assert_eq!(table.index(), i);
        }
    }
}
