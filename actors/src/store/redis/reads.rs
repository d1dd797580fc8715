//! What owners and callers read, in as few round trips as the rows allow. It must never write.

use std::collections::BTreeMap;

use redis::Value;

use super::fetch::{Reading, learn_hash};
use super::link::LinkError;
use super::overlay::{Fetch, Overlay};
use super::place::{self, Slot};
use super::program::COMMAND;
use super::replies::{bytes, entries, list, number, pairs};
use super::{Inner, seen, transact};
use crate::domain::ids::{ClientNo, PartitionId, Sku, TransactionId};
use crate::domain::promise::ToldEstimate;
use crate::domain::stock::Position;
use crate::domain::time::Timestamp;
use crate::ports::store::{
    FeedBounds, FeedEntry, Fence, GatherLimits, Gathered, Lane, Lookup, PartitionImage, ReadError,
    StoredTransaction,
};
use crate::store::format::{self, FormatError, PartitionRow, StoredItem};
use crate::store::keys::{self, Table};
use crate::store::rows::{self, ClaimHash, ReadRows, RowError};

/// The most entries of a lane that one gather reads.
const LANE_MAX: usize = 100_000;

fn whole(id: TransactionId) -> Fetch {
    Fetch::All(Table::Tx, keys::tx(id))
}

fn corrupt(what: &str, source: FormatError) -> ReadError {
    ReadError::Corrupt { what: what.to_owned(), source: std::sync::Arc::new(source) }
}

/// As its row says; one that cannot be read is told by who reads it.
fn is_paused(overlay: &Overlay) -> bool {
    let mut row = overlay.learnt(Table::Partition);
    row.next().is_some_and(|(_, row)| format::decode_partition(row).is_ok_and(|row| row.paused))
}

impl Inner {
    /// See [`crate::ports::store::Store::transaction`].
    pub(super) async fn transaction(&self, id: TransactionId) -> Result<Option<Lookup>, ReadError> {
        let slot = Slot::Partition(id.home());
        let mut ask = redis::pipe();
        ask.cmd("HGETALL").arg(slot.key(&format!("t:{id}")));
        let answer = self.reads.ask(&ask).await?.into_iter().next().unwrap_or(Value::Nil);
        if let Some(lookup) = self.decoded.get(id, &answer) {
            return Ok(Some(lookup));
        }
        let flat = seen::flat(&answer);
        let mut overlay = Overlay::new(slot);
        learn_hash(&mut overlay, Table::Tx, keys::tx(id), answer)?;
        let read = &mut |rows: &dyn ReadRows| rows::transaction(rows, id);
        let lookup = transact::run_over(&self.reads, &mut overlay, read).await?;
        if let (Some(flat), Some(lookup)) = (flat, &lookup) {
            self.decoded.keep(id, &flat, lookup);
        }
        Ok(lookup)
    }

    /// Reads in a partition's slot.
    pub(super) async fn read_in<T>(
        &self,
        partition: PartitionId,
        ahead: Vec<Fetch>,
        read: impl FnMut(&dyn ReadRows) -> Result<T, RowError>,
    ) -> Result<T, ReadError> {
        transact::read(&self.reads, Slot::Partition(partition), ahead, read).await
    }

    /// See [`crate::ports::store::Store::load`].
    pub(super) async fn load(&self, fence: Fence) -> Result<PartitionImage, ReadError> {
        let home = fence.partition;
        let prefix = keys::partition(home);
        let mut overlay = Overlay::new(Slot::Partition(home));
        let mut ahead: Vec<Fetch> =
            [Table::Stock, Table::Waves, Table::Open].map(|table| Fetch::All(table, prefix.clone())).into();
        ahead.push(Fetch::Row(Table::Partition, prefix));
        transact::fetch(&self.reads, &mut overlay, ahead).await?;
        let open =
            overlay.learnt(Table::Open).filter_map(|(key, _)| keys::id_at(key, 2)).map(whole).collect();
        transact::fetch(&self.reads, &mut overlay, open).await?;
        transact::run_over(&self.reads, &mut overlay, &mut |r| rows::load(r, home))
            .await
            .map_err(ReadError::from)
    }

    /// See [`crate::ports::store::Store::gather`].
    pub(super) async fn gather(&self, fence: Fence, limits: GatherLimits) -> Result<Gathered, ReadError> {
        let home = fence.partition;
        let mut overlay = Overlay::new(Slot::Partition(home));
        let mut reading = Reading::of(overlay.slot);
        reading.lane(home, Lane::Control, limits.control.min(LANE_MAX));
        reading.lane(home, Lane::Stock, limits.stock.min(LANE_MAX));
        // How long the one behind has waited is told as well.
        reading.lane(home, Lane::Work, limits.work.min(LANE_MAX) + 1);
        reading.length(home, Lane::Work);
        reading.fetch(Fetch::Row(Table::Partition, keys::partition(home)))?;
        reading.read(&self.reads, &mut overlay).await?;
        // Of a warehouse that is paused nothing is pulled: only how long the first has waited is told.
        let pulled = if is_paused(&overlay) { 0 } else { limits.work.min(LANE_MAX) };
        let (work, mut pulling) = (keys::lane(home, Lane::Work), 0..=pulled);
        let mut wanted = Vec::new();
        for (key, value) in overlay.learnt(Table::Lanes) {
            if key.starts_with(&work) && pulling.next().is_none() {
                continue;
            }
            match format::decode_lane(value) {
                Ok(StoredItem::Transaction(id)) if id.home() == home => wanted.push(whole(id)),
                Ok(StoredItem::Instruction(_)) => wanted.push(Fetch::All(Table::Dead, keys::partition(home))),
                Ok(StoredItem::Transaction(_) | StoredItem::Report(_)) | Err(_) => {}
            }
        }
        wanted.sort_unstable();
        wanted.dedup();
        transact::fetch(&self.reads, &mut overlay, wanted).await?;
        let limits = GatherLimits { work: limits.work.min(LANE_MAX), ..limits };
        transact::run_over(&self.reads, &mut overlay, &mut |r| rows::gather(r, home, limits))
            .await
            .map_err(ReadError::from)
    }

    /// What stands in `own` of each partition, and how many entries its lanes have.
    async fn partition_rows(&self) -> Result<Vec<(PartitionId, PartitionRow, u64)>, ReadError> {
        let partitions = self.partitions().await?;
        let mut ask = redis::pipe();
        for partition in &partitions {
            ask.cmd("HGET").arg(Slot::Partition(*partition).key("own")).arg("row");
            for lane in Lane::ALL {
                ask.cmd("XLEN").arg(place::lane(*partition, lane));
            }
        }
        let mut answers = self.reads.ask(&ask).await?.into_iter();
        let mut found = Vec::with_capacity(partitions.len());
        for partition in partitions {
            let row = match answers.next().and_then(bytes) {
                Some(row) => format::decode_partition(&row).map_err(|e| corrupt("a partition", e))?,
                None => PartitionRow::default(),
            };
            let waiting = (&mut answers).take(Lane::ALL.len()).filter_map(number).sum();
            found.push((partition, row, waiting));
        }
        Ok(found)
    }

    /// See [`crate::ports::store::Store::wake_ups`].
    pub(super) async fn wake_ups(&self) -> Result<Vec<(PartitionId, Timestamp)>, ReadError> {
        let all = self.partition_rows().await?.into_iter();
        let due = all.filter_map(|(partition, row, waiting)| match waiting {
            0 if row.wake_at < Timestamp::NEVER => Some((partition, row.wake_at)),
            0 => None,
            _ => Some((partition, Timestamp::default())),
        });
        Ok(due.collect())
    }

    /// See [`crate::ports::store::Store::paused`].
    pub(super) async fn paused(&self) -> Result<Vec<PartitionId>, ReadError> {
        let all = self.partition_rows().await?.into_iter();
        Ok(all.filter(|(_, row, _)| row.paused).map(|(partition, ..)| partition).collect())
    }

    /// See [`crate::ports::store::Store::claimed`].
    pub(super) async fn claimed(&self, claim: ClaimHash) -> Result<Option<TransactionId>, ReadError> {
        let mut ask = redis::pipe();
        ask.cmd("GET").arg(place::claim(claim));
        let Some(held) = self.reads.ask(&ask).await?.into_iter().next().and_then(bytes) else {
            return Ok(None);
        };
        let (id, _) = format::decode_held_claim(&held).map_err(|e| corrupt("a claim", e))?;
        // A claim without its transaction is nobody's yet.
        let mut ask = redis::pipe();
        ask.cmd("HEXISTS").arg(Slot::Partition(id.home()).key(&format!("t:{id}"))).arg(COMMAND);
        let there = self.reads.ask(&ask).await?.into_iter().next().and_then(number);
        Ok((there == Some(1)).then_some(id))
    }

    /// Ids out of one sorted set of each partition, in order.
    async fn ids(
        &self,
        set: impl Fn(PartitionId) -> Vec<u8>,
        after: Option<TransactionId>,
        limit: usize,
    ) -> Result<Vec<TransactionId>, LinkError> {
        let from = after.map_or_else(|| b"-".to_vec(), |id| [&b"("[..], id.0.as_bytes()].concat());
        let mut ask = redis::pipe();
        for partition in self.partitions().await? {
            ask.cmd("ZRANGEBYLEX").arg(set(partition)).arg(&from).arg("+").arg("LIMIT").arg(0).arg(limit);
        }
        let answers = self.reads.ask(&ask).await?.into_iter();
        let id = |member| keys::id_at(&bytes(member)?, 0);
        let mut ids: Vec<_> = answers.flat_map(list).filter_map(id).collect();
        ids.sort_unstable();
        ids.truncate(limit);
        Ok(ids)
    }

    /// See [`crate::ports::store::Store::orders_of`].
    pub(super) async fn orders_of(
        &self,
        client: ClientNo,
        after: Option<TransactionId>,
        limit: usize,
    ) -> Result<Vec<TransactionId>, ReadError> {
        Ok(self.ids(|partition| place::orders(partition, client), after, limit).await?)
    }

    /// See [`crate::ports::store::Store::scan`].
    pub(super) async fn scan(
        &self,
        mut after: Option<TransactionId>,
        limit: usize,
    ) -> Result<Vec<StoredTransaction>, ReadError> {
        let mut found = Vec::new();
        while found.len() < limit {
            let ids = self.ids(|p| Slot::Partition(p).key("ids"), after, limit - found.len()).await?;
            let Some(last) = ids.last() else { break };
            after = Some(*last);
            for id in ids {
                if let Some(Lookup::Live(stored)) = self.transaction(id).await? {
                    found.push(std::sync::Arc::unwrap_or_clone(stored));
                }
            }
        }
        Ok(found)
    }

    /// See [`crate::ports::store::Store::positions`].
    pub(super) async fn positions(
        &self,
        partition: PartitionId,
        client: ClientNo,
        after: Option<Sku>,
        limit: usize,
    ) -> Result<Vec<(Sku, Position)>, ReadError> {
        let slot = Slot::Partition(partition);
        let of = client.0.to_be_bytes();
        let from = match &after {
            Some(sku) => [&b"("[..], &of, sku.as_str().as_bytes()].concat(),
            None => [&b"["[..], &of].concat(),
        };
        let to = client.0.checked_add(1).map_or(b"+".to_vec(), |n| [&b"("[..], &n.to_be_bytes()].concat());
        let mut ask = redis::pipe();
        ask.cmd("ZRANGEBYLEX").arg(slot.key("skus")).arg(from).arg(to).arg("LIMIT").arg(0).arg(limit);
        let fields = self.reads.ask(&ask).await?.into_iter().next().map(list).unwrap_or_default();
        let key = |field| Some([keys::partition(partition), bytes(field)?].concat());
        let ahead: Vec<_> =
            fields.into_iter().filter_map(key).map(|key| Fetch::Row(Table::Stock, key)).collect();
        let mut overlay = Overlay::new(slot);
        transact::fetch(&self.reads, &mut overlay, ahead).await?;
        // These are all that the walk can come to.
        overlay.learn_all(Table::Stock, keys::positions(partition, client));
        Ok(rows::positions(&overlay, partition, client, None, limit)?)
    }

    /// See [`crate::ports::store::Store::feed`].
    pub(super) async fn feed(
        &self,
        client: ClientNo,
        after: u64,
        limit: usize,
    ) -> Result<Vec<FeedEntry>, ReadError> {
        self.relay.settle(&self.writes).await?;
        let from = format!("0-{}", after.saturating_add(1));
        let mut ask = redis::pipe();
        ask.cmd("XRANGE").arg(place::feed(client)).arg(from).arg("+").arg("COUNT").arg(limit);
        let found = self.reads.ask(&ask).await?.into_iter().next().map(entries).unwrap_or_default();
        let read = |entry: super::replies::Entry| {
            let (id, version) =
                format::decode_feed(entry.field(b"e")).map_err(|e| corrupt("a feed entry", e))?;
            Ok(FeedEntry { sequence: entry.n, id, version })
        };
        if let Some(last) = found.last() {
            self.seen.fed(client, last.n);
        }
        found.into_iter().map(read).collect()
    }

    /// See [`crate::ports::store::Store::feed_bounds`].
    pub(super) async fn feed_bounds(&self, client: ClientNo) -> Result<FeedBounds, ReadError> {
        self.relay.settle(&self.writes).await?;
        let mut ask = redis::pipe();
        // The end first: what comes in between is then beyond it, and not missing.
        ask.cmd("HGET").arg(Slot::of_client(client).key("next")).arg(super::program::counted(client));
        ask.cmd("XRANGE").arg(place::feed(client)).arg("-").arg("+").arg("COUNT").arg(1);
        let mut answers = self.reads.ask(&ask).await?.into_iter();
        let next = answers.next().and_then(number).unwrap_or(0) + 1;
        let first = answers.next().map(entries).unwrap_or_default().first().map_or(next, |entry| entry.n);
        self.seen.fed(client, next - 1);
        Ok(FeedBounds { first: first.min(next), next })
    }

    /// See [`crate::ports::store::Store::sequences`].
    pub(super) async fn sequences(&self, id: TransactionId) -> Result<Vec<Option<u64>>, ReadError> {
        self.relay.settle(&self.writes).await?;
        let Some(Lookup::Live(stored)) = self.transaction(id).await? else { return Ok(Vec::new()) };
        let numbers = self.numbers(stored.client, id).await?;
        let of = |version: u32| numbers.get(version.to_string().as_bytes()).copied();
        Ok((1..=stored.version()).map(of).collect())
    }

    /// See [`crate::ports::store::Store::estimates`].
    pub(super) async fn estimates(&self, id: TransactionId) -> Result<Vec<ToldEstimate>, ReadError> {
        let Some(Lookup::Live(stored)) = self.transaction(id).await? else { return Ok(Vec::new()) };
        let ahead = vec![Fetch::Row(Table::Tx, keys::estimates(id))];
        let mut told = self.read_in(id.home(), ahead, |r| rows::estimates(r, id)).await?;
        if told.is_empty() {
            return Ok(told);
        }
        // After they were read: then each of them has its number.
        self.relay.settle(&self.writes).await?;
        let numbers = self.numbers(stored.client, id).await?;
        for told in &mut told {
            let field = place::told_at(told.at.0.to_string().as_bytes());
            told.sequence = numbers.get(&field).copied().unwrap_or(0);
        }
        Ok(told)
    }

    async fn numbers(
        &self,
        client: ClientNo,
        id: TransactionId,
    ) -> Result<BTreeMap<Vec<u8>, u64>, LinkError> {
        let mut ask = redis::pipe();
        ask.cmd("HGETALL").arg(place::numbers(client, id));
        let numbers = self.reads.ask(&ask).await?.into_iter().next().map(pairs).unwrap_or_default();
        let read =
            |(field, n): (Vec<u8>, Vec<u8>)| Some((field, std::str::from_utf8(&n).ok()?.parse().ok()?));
        Ok(numbers.into_iter().filter_map(read).collect())
    }
}
