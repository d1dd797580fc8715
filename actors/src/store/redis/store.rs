//! The [`Store`] that actors see. It must never decide anything itself: what operations do is in
//! [`crate::store::rows`], where it is done in the files beside this one.

use sha2::{Digest as _, Sha256};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::members::Members;
use super::overlay::Fetch;
use super::place::Slot;
use super::replies::{list, number};
use super::transact::{self, Plan};
use super::{Inner, RedisStore};
use crate::domain::command::{Kind, ShipTo};
use crate::domain::confirmation::Confirmation;
use crate::domain::ids::{ClientNo, PartitionId, Reference, Sku, TransactionId};
use crate::domain::promise::ToldEstimate;
use crate::domain::stock::Position;
use crate::domain::time::Timestamp;
use crate::ports::BoxFuture;
use crate::ports::announcement::Announcement;
use crate::ports::membership::Membership;
use crate::ports::store::{
    CommitError, DeadKind, Durability, FeedBounds, FeedEntry, Fence, GatherLimits, Gathered, Instruction,
    Kept, Listed, Lookup, ManifestCarton, NewCommand, PartitionImage, ReadError, RegisterError, Registered,
    Registration, Store, StoredTransaction, TurnCommit, Verdict, Written,
};
use crate::ports::store_report::StoreReport;
use crate::store::keys::{self, Table};
use crate::store::rows;

/// A write that answers once it is durable, whose answer may be a refusal.
pub(super) async fn flat<T>(
    write: impl Future<Output = Result<Result<T, CommitError>, CommitError>>,
) -> Result<Written<T>, CommitError> {
    write.await.flatten().map(Written::durably)
}

fn row(partition: PartitionId) -> Fetch {
    Fetch::Row(Table::Partition, keys::partition(partition))
}

/// What a turn will surely read, so that it is read in one round trip.
fn ahead_of(home: PartitionId, turn: &TurnCommit) -> Vec<Fetch> {
    let mut ahead = vec![row(home)];
    for new in &turn.facts {
        let before = match new.first_version {
            0 | 1 => keys::command(new.id),
            version => keys::fact(new.id, version - 1),
        };
        if !turn.created.iter().any(|(id, _)| *id == new.id) {
            ahead.push(Fetch::Row(Table::Tx, keys::chunk(&before, 0)));
        }
    }
    for ((client, sku), _) in &turn.told {
        ahead.push(Fetch::Row(Table::Stock, keys::position(home, *client, sku)));
    }
    ahead.extend(turn.estimates.iter().map(|new| Fetch::Row(Table::Tx, keys::estimates(new.id))));
    if !turn.answered.is_empty() {
        ahead.push(Fetch::All(Table::Waves, keys::partition(home)));
    }
    for letter in &turn.dead {
        if let Some((lane, n)) = letter.entry {
            ahead.push(Fetch::Row(Table::Lanes, keys::chunk(&keys::lane_entry(home, lane, n), 0)));
        }
        if let (DeadKind::Order, Some(order)) = (letter.kind, letter.id) {
            ahead.push(Fetch::Row(Table::DeadOf, keys::tx(order)));
        }
    }
    if !turn.dead.is_empty() || !turn.settled.is_empty() {
        ahead.push(Fetch::Row(Table::Counters, keys::dead_counter(home)));
        ahead.push(Fetch::All(Table::Dead, keys::partition(home)));
    }
    ahead.extend(turn.relieved.iter().map(|order| Fetch::Row(Table::DeadOf, keys::tx(*order))));
    ahead
}

impl Inner {
    /// False for a node that has slept past its lease.
    fn may_write(&self) -> bool {
        self.members.as_ref().is_none_or(Members::may_write)
    }

    async fn take(
        &self,
        partition: PartitionId,
        nonce: u64,
    ) -> Result<Result<Fence, CommitError>, CommitError> {
        let mut ask = redis::pipe();
        ask.cmd("TIME");
        let time = self.reads.ask(&ask).await?.into_iter().next().map(list).unwrap_or_default();
        // A store that forgot an epoch can't hand the same one out twice.
        let epoch_min = time.into_iter().next().and_then(number).unwrap_or(0) * 1_000;
        let plan = Plan::open(Slot::Partition(partition), vec![row(partition)]);
        self.write_in(partition, plan, 1, |w| rows::take(w, partition, nonce, epoch_min)).await
    }

    async fn commit(&self, fence: Fence, turn: &TurnCommit) -> Result<Result<(), CommitError>, CommitError> {
        let facts: usize = turn.facts.iter().map(|f| f.facts.len()).sum();
        let items = 1 + facts + turn.positions.len() + turn.told.len() + turn.taken.len();
        let ahead = ahead_of(fence.partition, turn);
        let plan = Plan { slot: Slot::Partition(fence.partition), fence: Some(fence), ahead };
        self.write_in(fence.partition, plan, items, |w| rows::commit(w, fence, turn)).await
    }

    pub(super) async fn names<T>(
        &self,
        operation: impl FnMut(&mut rows::Write<'_>) -> Result<T, rows::RowError>,
    ) -> Result<T, CommitError> {
        let plan = Plan::open(Slot::Meta, vec![Fetch::All(Table::Meta, keys::Key::new())]);
        transact::write(&self.writes, &plan, self.hasher, operation).await
    }
}

impl Store for RedisStore {
    fn durability(&self) -> Durability {
        match self.inner.writes.shared.wanted.replication {
            Some(_) => Durability::Replicated,
            None => Durability::Fsync,
        }
    }

    fn feed_epoch(&self) -> u64 {
        let (high, low) = self.inner.id.as_u64_pair();
        high ^ low
    }

    fn membership(&self) -> Option<Arc<dyn Membership>> {
        self.nodes()
    }

    fn register(&self, names: Registration) -> BoxFuture<Result<Registered, RegisterError>> {
        let inner = Arc::clone(&self.inner);
        let write = self.writing(async move { inner.names(|w| rows::register(w, &names)).await });
        Box::pin(async move { write.await.map_err(RegisterError::Commit)? })
    }

    fn accept(&self, batch: Vec<NewCommand>) -> BoxFuture<Written<Vec<Verdict>>> {
        let items = batch.len();
        let (answer, verdicts) = tokio::sync::oneshot::channel();
        self.inner.vitals.queues();
        let queued = self.queue.try_send((batch, answer)).is_ok();
        if !queued {
            self.inner.vitals.refuses();
        }
        Box::pin(async move {
            let all = |verdict| vec![verdict; items];
            Written::durably(match verdicts.await {
                Ok(verdicts) => verdicts,
                // It may have been under way when the store was closed.
                Err(_) if queued => all(Verdict::Unknown),
                Err(_) => all(Verdict::Unavailable),
            })
        })
    }

    fn append_reports(
        &self,
        partition: PartitionId,
        reports: Vec<Confirmation>,
    ) -> BoxFuture<Result<Written<()>, CommitError>> {
        let inner = Arc::clone(&self.inner);
        self.writing(flat(async move {
            let plan = Plan::open(Slot::Partition(partition), Vec::new());
            let append = |w: &mut rows::Write<'_>| rows::append_reports(w, partition, &reports);
            inner.write_in(partition, plan, reports.len(), append).await
        }))
    }

    fn instruct(
        &self,
        partition: PartitionId,
        asked: Instruction,
    ) -> BoxFuture<Result<Written<()>, CommitError>> {
        let inner = Arc::clone(&self.inner);
        self.writing(flat(async move {
            let plan = Plan::open(Slot::Partition(partition), Vec::new());
            inner.write_in(partition, plan, 1, |w| rows::instruct(w, partition, asked)).await
        }))
    }

    fn set_paused(
        &self,
        partition: PartitionId,
        paused: bool,
    ) -> BoxFuture<Result<Written<()>, CommitError>> {
        let inner = Arc::clone(&self.inner);
        self.writing(flat(async move {
            let plan = Plan::open(Slot::Partition(partition), vec![row(partition)]);
            inner.write_in(partition, plan, 1, |w| rows::set_paused(w, partition, paused)).await
        }))
    }

    fn paused(&self) -> BoxFuture<Result<Vec<PartitionId>, ReadError>> {
        let inner = Arc::clone(&self.inner);
        self.reading(async move { inner.paused().await })
    }

    fn take(&self, partition: PartitionId, nonce: u64) -> BoxFuture<Result<Written<Fence>, CommitError>> {
        let inner = Arc::clone(&self.inner);
        if !inner.may_write() {
            return Box::pin(std::future::ready(Err(CommitError::Conflict)));
        }
        self.writing(flat(async move { inner.take(partition, nonce).await }))
    }

    fn load(&self, fence: Fence) -> BoxFuture<Result<PartitionImage, ReadError>> {
        let inner = Arc::clone(&self.inner);
        self.reading(async move { inner.load(fence).await })
    }

    fn gather(&self, fence: Fence, limits: GatherLimits) -> BoxFuture<Result<Gathered, ReadError>> {
        let inner = Arc::clone(&self.inner);
        self.reading(async move { inner.gather(fence, limits).await })
    }

    fn subject(&self, _: Fence, id: TransactionId) -> BoxFuture<Result<Option<Lookup>, ReadError>> {
        self.transaction(id)
    }

    fn commit(&self, fence: Fence, turn: TurnCommit) -> BoxFuture<Result<Written<()>, CommitError>> {
        let inner = Arc::clone(&self.inner);
        if !inner.may_write() {
            return Box::pin(std::future::ready(Err(CommitError::Conflict)));
        }
        self.writing(flat(async move { inner.commit(fence, &turn).await }))
    }

    fn lease_serials(&self, count: u64) -> BoxFuture<Result<Written<u64>, CommitError>> {
        let inner = Arc::clone(&self.inner);
        self.writing(async move {
            let first = inner.names(|w| rows::lease_serials(w, count)).await?;
            inner.seen.leased(first + count);
            Ok(Written::durably(first))
        })
    }

    fn wake_ups(&self) -> BoxFuture<Result<Vec<(PartitionId, Timestamp)>, ReadError>> {
        let inner = Arc::clone(&self.inner);
        self.reading(async move { inner.wake_ups().await })
    }

    fn transaction(&self, id: TransactionId) -> BoxFuture<Result<Option<Lookup>, ReadError>> {
        let inner = Arc::clone(&self.inner);
        self.reading(async move { inner.transaction(id).await })
    }

    fn ship_to(&self, id: TransactionId) -> BoxFuture<Result<Option<ShipTo>, ReadError>> {
        let inner = Arc::clone(&self.inner);
        let ahead = vec![Fetch::Row(Table::Tx, keys::ship_to(id))];
        self.reading(async move { inner.read_in(id.home(), ahead, |r| rows::ship_to(r, id)).await })
    }

    fn claimed(
        &self,
        client: ClientNo,
        kind: Kind,
        reference: Reference,
    ) -> BoxFuture<Result<Option<TransactionId>, ReadError>> {
        let inner = Arc::clone(&self.inner);
        let claim = inner.hasher.reference(client, kind, &reference);
        self.reading(async move { inner.claimed(claim).await })
    }

    fn orders_of(
        &self,
        client: ClientNo,
        after: Option<TransactionId>,
        limit: usize,
    ) -> BoxFuture<Result<Vec<TransactionId>, ReadError>> {
        let inner = Arc::clone(&self.inner);
        self.reading(async move { inner.orders_of(client, after, limit).await })
    }

    fn position(
        &self,
        partition: PartitionId,
        client: ClientNo,
        sku: Sku,
    ) -> BoxFuture<Result<Option<Position>, ReadError>> {
        let inner = Arc::clone(&self.inner);
        let ahead = vec![Fetch::Row(Table::Stock, keys::position(partition, client, &sku))];
        let read = move |r: &dyn rows::ReadRows| rows::position(r, partition, client, &sku);
        self.reading(async move { inner.read_in(partition, ahead, read).await })
    }

    fn positions(
        &self,
        partition: PartitionId,
        client: ClientNo,
        after: Option<Sku>,
        limit: usize,
    ) -> BoxFuture<Result<Vec<(Sku, Position)>, ReadError>> {
        let inner = Arc::clone(&self.inner);
        self.reading(async move { inner.positions(partition, client, after, limit).await })
    }

    fn cartons(&self, manifest: TransactionId) -> BoxFuture<Result<Vec<ManifestCarton>, ReadError>> {
        let inner = Arc::clone(&self.inner);
        let ahead = vec![Fetch::All(Table::Cartons, keys::tx(manifest))];
        self.reading(
            async move { inner.read_in(manifest.home(), ahead, |r| rows::cartons(r, manifest)).await },
        )
    }

    fn feed_bounds(&self, client: ClientNo) -> BoxFuture<Result<FeedBounds, ReadError>> {
        let inner = Arc::clone(&self.inner);
        self.reading(async move { inner.feed_bounds(client).await })
    }

    fn sequences(&self, id: TransactionId) -> BoxFuture<Result<Vec<Option<u64>>, ReadError>> {
        let inner = Arc::clone(&self.inner);
        self.reading(async move { inner.sequences(id).await })
    }

    fn estimates(&self, id: TransactionId) -> BoxFuture<Result<Vec<ToldEstimate>, ReadError>> {
        let inner = Arc::clone(&self.inner);
        self.reading(async move { inner.estimates(id).await })
    }

    fn sweep_feeds(
        &self,
        now: Timestamp,
        retention: Duration,
        limit: usize,
    ) -> BoxFuture<Result<usize, CommitError>> {
        let inner = Arc::clone(&self.inner);
        self.writing(async move { inner.sweep_feeds(now, retention, limit).await })
    }

    fn secret(&self, purpose: &str) -> [u8; 32] {
        // As in the other backends: the store's one secret is of a fixed length.
        let secret = self.inner.hasher.0;
        Sha256::new().chain_update(secret).chain_update(purpose).finalize().into()
    }

    fn feed(
        &self,
        client: ClientNo,
        after: u64,
        limit: usize,
    ) -> BoxFuture<Result<Vec<FeedEntry>, ReadError>> {
        let inner = Arc::clone(&self.inner);
        self.reading(async move { inner.feed(client, after, limit).await })
    }

    fn announcement(
        &self,
        client: ClientNo,
        sequence: u64,
    ) -> BoxFuture<Result<Option<Announcement>, ReadError>> {
        let inner = Arc::clone(&self.inner);
        let key = keys::feed(client, sequence);
        let ahead =
            vec![Fetch::Row(Table::Feed, key.clone()), Fetch::Row(Table::Notices, keys::chunk(&key, 0))];
        self.reading(async move {
            let slot = Slot::of_client(client);
            transact::read(&inner.reads, slot, ahead, |r| rows::announcement(r, client, sequence)).await
        })
    }

    fn dead_letters(
        &self,
        partition: PartitionId,
        after: u64,
        limit: usize,
    ) -> BoxFuture<Result<Vec<Listed>, ReadError>> {
        let inner = Arc::clone(&self.inner);
        let ahead = vec![Fetch::All(Table::Dead, keys::partition(partition))];
        let read = move |r: &dyn rows::ReadRows| rows::dead_letters(r, partition, after, limit);
        self.reading(async move { inner.read_in(partition, ahead, read).await })
    }

    fn dead_letter(&self, partition: PartitionId, n: u64) -> BoxFuture<Result<Option<Kept>, ReadError>> {
        let inner = Arc::clone(&self.inner);
        let key = keys::dead(partition, n);
        let ahead = vec![Fetch::Row(Table::Dead, keys::chunk(&key, 0)), Fetch::Row(Table::Settled, key)];
        self.reading(
            async move { inner.read_in(partition, ahead, |r| rows::dead_letter(r, partition, n)).await },
        )
    }

    fn dead_letters_total(&self, partition: PartitionId) -> BoxFuture<Result<u64, ReadError>> {
        let inner = Arc::clone(&self.inner);
        let ahead = vec![Fetch::Row(Table::Counters, keys::dead_counter(partition))];
        let read = move |r: &dyn rows::ReadRows| rows::dead_letters_total(r, partition);
        self.reading(async move { inner.read_in(partition, ahead, read).await })
    }

    fn scan(
        &self,
        after: Option<TransactionId>,
        limit: usize,
    ) -> BoxFuture<Result<Vec<StoredTransaction>, ReadError>> {
        let inner = Arc::clone(&self.inner);
        self.reading(async move { inner.scan(after, limit).await })
    }

    fn sweep(
        &self,
        now: Timestamp,
        retention: Duration,
        limit: usize,
    ) -> BoxFuture<Result<usize, CommitError>> {
        let inner = Arc::clone(&self.inner);
        self.writing(async move { inner.sweep(now, retention, limit).await })
    }

    fn is_writable(&self) -> bool {
        self.inner.writes.shared.is_well() && !self.inner.receipts.is_failing()
    }

    fn report(&self) -> StoreReport {
        self.inner.vitals.read()
    }
}
