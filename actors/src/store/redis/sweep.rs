//! Ageing: transactions to tombstones to nothing, and the ends of feeds. It must never free a claim
//! whose transaction stays.

use std::time::Duration;

use super::link::{Call, Lua};
use super::overlay::{Fetch, Overlay};
use super::place::{self, SHARDS, Slot};
use super::replies::{Entry, bytes, entries, list, pairs};
use super::transact::{self, Plan};
use super::{Inner, fetch::Reading};
use crate::domain::ids::{ClientNo, PartitionId, TransactionId};
use crate::domain::time::Timestamp;
use crate::ports::store::{CommitError, Lookup};
use crate::store::format;
use crate::store::keys::{self, Table};
use crate::store::rows;

impl Inner {
    /// See [`crate::ports::store::Store::sweep`].
    pub(super) async fn sweep(
        &self,
        now: Timestamp,
        retention: Duration,
        limit: usize,
    ) -> Result<usize, CommitError> {
        let mut swept = 0;
        for partition in self.partitions().await? {
            if swept >= limit {
                break;
            }
            swept += self.sweep_in(partition, now, retention, limit - swept).await?;
        }
        Ok(swept)
    }

    async fn sweep_in(
        &self,
        partition: PartitionId,
        now: Timestamp,
        retention: Duration,
        limit: usize,
    ) -> Result<usize, CommitError> {
        let slot = Slot::Partition(partition);
        // One more than is swept says that these are not all.
        let heads = |reading: &mut Reading| {
            for table in [Table::Ended, Table::Tombstones] {
                reading.head(table, limit.saturating_add(1))?;
            }
            Ok::<(), rows::RowError>(())
        };
        let mut overlay = Overlay::new(slot);
        let mut reading = Reading::of(slot);
        heads(&mut reading)?;
        reading.read(&self.reads, &mut overlay).await?;
        let expired = rows::due(&overlay, Table::Ended, now, retention, limit)?;
        let gone = rows::due(&overlay, Table::Tombstones, now, retention.saturating_mul(2), limit)?;
        if expired.is_empty() && gone.is_empty() {
            return Ok(0);
        }
        let all = |id: TransactionId| Fetch::All(Table::Tx, keys::tx(id));
        let mut ahead: Vec<Fetch> = expired.iter().chain(&gone).map(|(_, id)| all(*id)).collect();
        ahead.extend(expired.iter().map(|(_, id)| Fetch::All(Table::Cartons, keys::tx(*id))));
        transact::fetch(&self.reads, &mut overlay, ahead.clone()).await?;
        let numbers = numbers_of(&overlay, &expired);
        let claims = self.claims_of(&overlay, &gone)?;
        // What only these transactions need in other slots goes first: after a death in between their
        // rows are still there to find it by.
        self.writes.write(&numbers).await?;
        for answer in self.writes.run(&claims).await? {
            answer?;
        }
        let plan = Plan::open(slot, ahead);
        let prepare = |reading: &mut Reading| {
            // It was in its place a moment ago.
            let _placed = heads(reading);
        };
        transact::write_over(&self.writes, &plan, self.hasher, prepare, |w| {
            rows::sweep(w, now, retention, limit)
        })
        .await
    }

    /// What frees the claims of tombstones.
    fn claims_of(
        &self,
        overlay: &Overlay,
        gone: &[(Timestamp, TransactionId)],
    ) -> Result<Vec<Call>, rows::RowError> {
        let mut calls = Vec::new();
        for (_, id) in gone {
            let Some((digest, claims)) = rows::claims_of(overlay, self.hasher, *id)? else { continue };
            let held = format::encode_held_claim(*id, &digest);
            calls.extend(claims.into_iter().map(|claim| Call {
                lua: Lua::Unclaim,
                keys: vec![place::claim(claim)],
                args: vec![held.clone()],
            }));
        }
        Ok(calls)
    }

    /// See [`crate::ports::store::Store::sweep_feeds`].
    pub(super) async fn sweep_feeds(
        &self,
        now: Timestamp,
        retention: Duration,
        limit: usize,
    ) -> Result<usize, CommitError> {
        self.relay.settle(&self.writes).await?;
        let mut evicted = 0;
        for shard in (0..SHARDS).map(Slot::Shard) {
            let mut ask = redis::pipe();
            ask.cmd("HGETALL").arg(shard.key("next"));
            let counted = self.reads.ask(&ask).await?.into_iter().next().map(pairs).unwrap_or_default();
            let clients: Vec<_> =
                counted.iter().filter_map(|(client, _)| keys::u32_at(client, 0)).map(ClientNo).collect();
            let mut firsts = redis::pipe();
            for client in &clients {
                firsts.cmd("XRANGE").arg(place::feed(*client)).arg("-").arg("+").arg("COUNT").arg(1);
            }
            for (client, first) in clients.into_iter().zip(self.reads.ask(&firsts).await?) {
                if evicted >= limit {
                    return Ok(evicted);
                }
                if entries(first).first().is_some_and(|entry| is_old(entry, now, retention)) {
                    evicted += self.evict(client, now, retention, limit - evicted).await?;
                }
            }
        }
        Ok(evicted)
    }

    async fn evict(
        &self,
        client: ClientNo,
        now: Timestamp,
        retention: Duration,
        limit: usize,
    ) -> Result<usize, CommitError> {
        let feed = place::feed(client);
        let notices = Slot::of_client(client).key(&format!("n:{}", client.0));
        let mut ask = redis::pipe();
        ask.cmd("XRANGE").arg(&feed).arg("-").arg("+").arg("COUNT").arg(limit);
        let head = self.reads.ask(&ask).await?.into_iter().next().map(entries).unwrap_or_default();
        let old = head.iter().take_while(|entry| is_old(entry, now, retention)).count();
        let Some(last) = old.checked_sub(1).and_then(|i| head.get(i)) else { return Ok(0) };
        let mut ask = redis::pipe();
        ask.cmd("HKEYS").arg(&notices);
        let fields = self.reads.ask(&ask).await?.into_iter().next().map(list).unwrap_or_default();
        let said = |field: &Vec<u8>| keys::u64_at(field, 0).is_some_and(|sequence| sequence <= last.n);
        let mut args = vec![(last.n + 1).to_string().into_bytes()];
        args.extend(fields.into_iter().filter_map(bytes).filter(|f| f.len() > 8).filter(said));
        let call = Call { lua: Lua::Evict, keys: vec![feed, notices], args };
        for answer in self.writes.run(&[call]).await? {
            answer?;
        }
        Ok(old)
    }
}

/// What drops the numbers of transactions that are to become tombstones.
fn numbers_of(overlay: &Overlay, expired: &[(Timestamp, TransactionId)]) -> redis::Pipeline {
    let mut numbers = redis::pipe();
    for (_, id) in expired {
        if let Ok(Some(Lookup::Live(stored))) = rows::transaction(overlay, *id) {
            numbers.cmd("DEL").arg(place::numbers(stored.client, *id));
        }
    }
    numbers
}

/// True for an entry of a feed that is past its retention.
fn is_old(entry: &Entry, now: Timestamp, retention: Duration) -> bool {
    let at = Timestamp(i64::try_from(entry.number(b"a")).unwrap_or(i64::MAX));
    at.after(retention) < now
}
