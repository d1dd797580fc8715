//! From a backend that holds ordered rows to the [`Store`] that actors see. It must never decide
//! anything itself: operations are in [`super::rows`], durability is the backend's.

use sha2::{Digest as _, Sha256};
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

use super::rows::{self, ClaimHasher, ReadRows, RecentClaims, RowError, Write};
use crate::domain::command::{Kind, ShipTo};
use crate::domain::confirmation::Confirmation;
use crate::domain::ids::{ClientNo, PartitionId, Reference, Sku, TransactionId};
use crate::domain::promise::ToldEstimate;
use crate::domain::stock::Position;
use crate::domain::time::Timestamp;
use crate::ports::BoxFuture;
use crate::ports::announcement::Announcement;
use crate::ports::store::{
    CommitError, Durability, FeedBounds, FeedEntry, Fence, GatherLimits, Gathered, Instruction, Kept, Listed,
    Lookup, ManifestCarton, NewCommand, PartitionImage, ReadError, RegisterError, Registered, Registration,
    Store, StoredTransaction, TurnCommit, Verdict, Written,
};
use crate::ports::store_report::StoreReport;

/// On whose behalf a read is made: neither is to wait for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// Whoever calls the house. There may be many of them, and some are refused.
    Caller,
    /// The owner of a partition, whose tree would end if it were refused.
    Owner,
}

/// Holds ordered rows and runs operations over them.
pub trait Backend: Send + Sync + 'static {
    /// What an acknowledged write survives.
    fn durability(&self) -> Durability;

    /// True while it takes writes.
    fn is_writable(&self) -> bool;

    /// The random id that it got when it began.
    fn id(&self) -> Uuid;

    /// A random number of the copy that this store began as; 0 when it began empty.
    fn copied(&self) -> u64 {
        0
    }

    /// What it has done since it was opened.
    fn report(&self) -> StoreReport {
        StoreReport::default()
    }

    /// The claims that its table does not have yet.
    fn recent_claims(&self) -> RecentClaims;

    /// Runs a short read over one consistent view, on the caller's thread.
    ///
    /// # Errors
    /// When the view cannot be had, or what the operation returns.
    fn read<T>(&self, read: impl FnOnce(&dyn ReadRows) -> Result<T, RowError>) -> Result<T, ReadError>;

    /// The same where it may take long, by its size or because the disk is waited for: not on the
    /// caller's thread.
    fn read_apart<T: Send + 'static>(
        &self,
        reader: Reader,
        read: impl FnOnce(&dyn ReadRows) -> Result<T, RowError> + Send + 'static,
    ) -> BoxFuture<Result<T, ReadError>>;

    /// Reads one transaction, as it is after every write that was answered.
    fn look_up(&self, reader: Reader, id: TransactionId) -> BoxFuture<Result<Option<Lookup>, ReadError>> {
        self.read_apart(reader, move |r| rows::transaction(r, id))
    }

    /// Runs a write, all or nothing, and answers when it is durable. `items` says how many things
    /// it writes. The operation may be run again when the transaction it shared was aborted.
    fn write<T: Send + 'static>(
        &self,
        items: usize,
        operation: impl FnMut(&mut Write<'_>) -> Result<T, RowError> + Send + 'static,
    ) -> BoxFuture<Result<T, CommitError>>;
}

/// The most things that a sweep is taken to write.
const SWEEP_ITEMS: usize = 256;

fn done<T: Send + 'static>(value: T) -> BoxFuture<T> {
    Box::pin(ready(value))
}

/// A write whose answer holds its own refusal.
pub(super) fn flat<T: Send + 'static>(
    write: BoxFuture<Result<Result<T, CommitError>, CommitError>>,
) -> BoxFuture<Result<Written<T>, CommitError>> {
    Box::pin(async move { write.await.flatten().map(Written::durably) })
}

impl<B: Backend> Store for B {
    fn durability(&self) -> Durability {
        Backend::durability(self)
    }

    fn is_writable(&self) -> bool {
        Backend::is_writable(self)
    }

    fn report(&self) -> StoreReport {
        Backend::report(self)
    }

    fn feed_epoch(&self) -> u64 {
        // Numbers are never given back, so they hold as long as the store does; a copy of it goes on
        // with numbers of its own.
        let (high, low) = self.id().as_u64_pair();
        high ^ low ^ self.copied()
    }

    fn register(&self, names: Registration) -> BoxFuture<Result<Registered, RegisterError>> {
        let items = names.clients.len() + names.warehouses.len();
        let write = self.write(items, move |w| rows::register(w, &names));
        Box::pin(async move { write.await.map_err(RegisterError::Commit)? })
    }

    fn accept(&self, batch: Vec<NewCommand>) -> BoxFuture<Written<Vec<Verdict>>> {
        let items = batch.len();
        let write = self.write(items, move |w| rows::accept(w, &batch));
        Box::pin(async move {
            let all = |verdict| vec![verdict; items];
            Written::durably(match write.await {
                Ok(verdicts) => verdicts,
                Err(CommitError::Full) => all(Verdict::StoreFull),
                // No fence is involved; were it one, nothing would have been written.
                Err(CommitError::Conflict | CommitError::Unavailable(_)) => all(Verdict::Unavailable),
                Err(CommitError::Unknown(_)) => all(Verdict::Unknown),
            })
        })
    }

    fn append_reports(
        &self,
        partition: PartitionId,
        reports: Vec<Confirmation>,
    ) -> BoxFuture<Result<Written<()>, CommitError>> {
        flat(self.write(reports.len(), move |w| rows::append_reports(w, partition, &reports)))
    }

    fn instruct(
        &self,
        partition: PartitionId,
        asked: Instruction,
    ) -> BoxFuture<Result<Written<()>, CommitError>> {
        flat(self.write(1, move |w| rows::instruct(w, partition, asked)))
    }

    fn set_paused(
        &self,
        partition: PartitionId,
        paused: bool,
    ) -> BoxFuture<Result<Written<()>, CommitError>> {
        flat(self.write(1, move |w| rows::set_paused(w, partition, paused)))
    }

    fn paused(&self) -> BoxFuture<Result<Vec<PartitionId>, ReadError>> {
        done(self.read(rows::paused))
    }

    fn take(&self, partition: PartitionId, nonce: u64) -> BoxFuture<Result<Written<Fence>, CommitError>> {
        flat(self.write(1, move |w| rows::take(w, partition, nonce, 0)))
    }

    fn load(&self, fence: Fence) -> BoxFuture<Result<PartitionImage, ReadError>> {
        self.read_apart(Reader::Owner, move |r| rows::load(r, fence.partition))
    }

    fn gather(&self, fence: Fence, limits: GatherLimits) -> BoxFuture<Result<Gathered, ReadError>> {
        self.read_apart(Reader::Owner, move |r| rows::gather(r, fence.partition, limits))
    }

    fn subject(&self, _: Fence, id: TransactionId) -> BoxFuture<Result<Option<Lookup>, ReadError>> {
        self.look_up(Reader::Owner, id)
    }

    fn commit(&self, fence: Fence, turn: TurnCommit) -> BoxFuture<Result<Written<()>, CommitError>> {
        let facts: usize = turn.facts.iter().map(|f| f.facts.len()).sum();
        let items = 1 + facts + turn.positions.len() + turn.told.len() + turn.taken.len();
        flat(self.write(items, move |w| rows::commit(w, fence, &turn)))
    }

    fn lease_serials(&self, count: u64) -> BoxFuture<Result<Written<u64>, CommitError>> {
        let write = self.write(1, move |w| rows::lease_serials(w, count));
        Box::pin(async move { write.await.map(Written::durably) })
    }

    fn wake_ups(&self) -> BoxFuture<Result<Vec<(PartitionId, Timestamp)>, ReadError>> {
        done(self.read(rows::wake_ups))
    }

    fn transaction(&self, id: TransactionId) -> BoxFuture<Result<Option<Lookup>, ReadError>> {
        self.look_up(Reader::Caller, id)
    }

    fn ship_to(&self, id: TransactionId) -> BoxFuture<Result<Option<ShipTo>, ReadError>> {
        self.read_apart(Reader::Caller, move |r| rows::ship_to(r, id))
    }

    fn claimed(
        &self,
        client: ClientNo,
        kind: Kind,
        reference: Reference,
    ) -> BoxFuture<Result<Option<TransactionId>, ReadError>> {
        // First what is recent, then the table: a claim that is merged in between is in both.
        let recent = self.recent_claims();
        let claim = recent.hasher().reference(client, kind, &reference);
        match recent.get(claim) {
            Some(id) => done(Ok(Some(id))),
            None => done(self.read(|r| rows::claimed(r, claim))),
        }
    }

    fn orders_of(
        &self,
        client: ClientNo,
        after: Option<TransactionId>,
        limit: usize,
    ) -> BoxFuture<Result<Vec<TransactionId>, ReadError>> {
        self.read_apart(Reader::Caller, move |r| rows::orders_of(r, client, after, limit))
    }

    fn position(
        &self,
        partition: PartitionId,
        client: ClientNo,
        sku: Sku,
    ) -> BoxFuture<Result<Option<Position>, ReadError>> {
        done(self.read(|r| rows::position(r, partition, client, &sku)))
    }

    fn positions(
        &self,
        partition: PartitionId,
        client: ClientNo,
        after: Option<Sku>,
        limit: usize,
    ) -> BoxFuture<Result<Vec<(Sku, Position)>, ReadError>> {
        self.read_apart(Reader::Caller, move |r| rows::positions(r, partition, client, after.as_ref(), limit))
    }

    fn cartons(&self, manifest: TransactionId) -> BoxFuture<Result<Vec<ManifestCarton>, ReadError>> {
        self.read_apart(Reader::Caller, move |r| rows::cartons(r, manifest))
    }

    fn feed_bounds(&self, client: ClientNo) -> BoxFuture<Result<FeedBounds, ReadError>> {
        done(self.read(|r| rows::feed_bounds(r, client)))
    }

    fn sequences(&self, id: TransactionId) -> BoxFuture<Result<Vec<Option<u64>>, ReadError>> {
        self.read_apart(Reader::Caller, move |r| rows::sequences(r, id))
    }

    fn estimates(&self, id: TransactionId) -> BoxFuture<Result<Vec<ToldEstimate>, ReadError>> {
        self.read_apart(Reader::Caller, move |r| rows::estimates(r, id))
    }

    fn sweep_feeds(
        &self,
        now: Timestamp,
        retention: Duration,
        limit: usize,
    ) -> BoxFuture<Result<usize, CommitError>> {
        self.write(limit.min(SWEEP_ITEMS), move |w| rows::sweep_feeds(w, now, retention, limit))
    }

    fn secret(&self, purpose: &str) -> [u8; 32] {
        // The store's one secret is of a fixed length, so what is hashed tells it from the purpose.
        let ClaimHasher(secret) = *self.recent_claims().hasher();
        Sha256::new().chain_update(secret).chain_update(purpose).finalize().into()
    }

    fn feed(
        &self,
        client: ClientNo,
        after: u64,
        limit: usize,
    ) -> BoxFuture<Result<Vec<FeedEntry>, ReadError>> {
        self.read_apart(Reader::Caller, move |r| rows::feed(r, client, after, limit))
    }

    fn announcement(
        &self,
        client: ClientNo,
        sequence: u64,
    ) -> BoxFuture<Result<Option<Announcement>, ReadError>> {
        self.read_apart(Reader::Caller, move |r| rows::announcement(r, client, sequence))
    }

    fn dead_letters(
        &self,
        partition: PartitionId,
        after: u64,
        limit: usize,
    ) -> BoxFuture<Result<Vec<Listed>, ReadError>> {
        self.read_apart(Reader::Caller, move |r| rows::dead_letters(r, partition, after, limit))
    }

    fn dead_letter(&self, partition: PartitionId, n: u64) -> BoxFuture<Result<Option<Kept>, ReadError>> {
        done(self.read(|r| rows::dead_letter(r, partition, n)))
    }

    fn dead_letters_total(&self, partition: PartitionId) -> BoxFuture<Result<u64, ReadError>> {
        done(self.read(|r| rows::dead_letters_total(r, partition)))
    }

    fn scan(
        &self,
        after: Option<TransactionId>,
        limit: usize,
    ) -> BoxFuture<Result<Vec<StoredTransaction>, ReadError>> {
        self.read_apart(Reader::Caller, move |r| rows::scan(r, after, limit))
    }

    fn sweep(
        &self,
        now: Timestamp,
        retention: Duration,
        limit: usize,
    ) -> BoxFuture<Result<usize, CommitError>> {
        // It frees more than it writes, so that it may be large must not close lanes to others.
        self.write(limit.min(SWEEP_ITEMS), move |w| rows::sweep(w, now, retention, limit))
    }
}

/// A failure of an engine, as the trait's errors carry it.
pub(super) fn backend_error(e: impl std::error::Error + Send + Sync + 'static) -> RowError {
    RowError::Backend(Arc::new(e))
}
