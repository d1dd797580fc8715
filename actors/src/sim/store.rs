//! A store that delays, refuses, applies and then fails; and dies with its node, before or after
//! any of its writes.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use super::disk::at_once;
use super::life::{Life, Moment};
use super::seats::Seat;
use super::{Planted, World};
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
    CommitError, Durability, FeedBounds, FeedEntry, Fence, GatherLimits, Gathered, Instruction, Kept, Listed,
    Lookup, ManifestCarton, NewCommand, PartitionImage, ReadError, RegisterError, Registered, Registration,
    Store, StoredTransaction, TurnCommit, Verdict, Written,
};

/// The usual time of a store call, at most, in milliseconds.
const CALL_MS: u64 = 4;
/// The time of a call that stalls, at most, in milliseconds.
const STALL_MS: u64 = 5_000;
/// How long a planted bug keeps a commit that it has answered, at most, in milliseconds.
const UNWRITTEN_MS: u64 = 60;

/// The failing store of one life of the node.
pub(crate) struct FaultyStore {
    pub(super) world: Arc<World>,
    life: Arc<Life>,
    seat: Option<Arc<Seat>>,
}

#[derive(Debug, thiserror::Error)]
#[error("the world says no")]
struct WorldSaysNo;

#[derive(Clone, Copy)]
enum Lot {
    Good,
    Refused,
    AppliedUnknown,
    LostUnknown,
}

fn unknown() -> CommitError {
    CommitError::Unknown(Arc::new(WorldSaysNo))
}

impl FaultyStore {
    pub(crate) fn new(world: Arc<World>, life: Arc<Life>, seat: Option<Arc<Seat>>) -> FaultyStore {
        FaultyStore { world, life, seat }
    }

    /// Whose store it is.
    pub(super) fn life(&self) -> Arc<Life> {
        self.life.clone()
    }

    fn lot(&self) -> Lot {
        let (world, p) = (&self.world, &self.world.profile);
        let (lot, name) = if world.strikes(p.refused) {
            (Lot::Refused, "writes refused")
        } else if world.strikes(p.applied_unknown) {
            (Lot::AppliedUnknown, "writes applied and unknown")
        } else if world.strikes(p.lost_unknown) {
            (Lot::LostUnknown, "writes lost and unknown")
        } else {
            return Lot::Good;
        };
        world.observer.saw(name);
        lot
    }

    fn delay(&self) -> Duration {
        let stalls = self.world.strikes(self.world.profile.stalls);
        if stalls {
            self.world.observer.saw("store stalls");
        }
        self.world.pause(if stalls { STALL_MS } else { CALL_MS })
    }

    /// A write: pauses before and after the moment it is applied, so that a death, and everything
    /// else, can fall there.
    pub(super) fn write<T: Send + 'static>(
        &self,
        write: impl FnOnce(&Arc<World>) -> Result<T, CommitError> + Send + 'static,
    ) -> BoxFuture<Result<Written<T>, CommitError>> {
        let (lot, world, life) = (self.lot(), self.world.clone(), self.life.clone());
        let (before, after) = (self.delay(), self.delay());
        Box::pin(async move {
            tokio::time::sleep(before).await;
            life.go_on().await;
            match lot {
                Lot::Refused => return Err(CommitError::Unavailable(Arc::new(WorldSaysNo))),
                Lot::LostUnknown => return Err(unknown()),
                Lot::AppliedUnknown | Lot::Good => {}
            }
            let reply = apply(&world, &life, write).await?;
            let durable = async move {
                tokio::time::sleep(after).await;
                life.go_on().await;
                match lot {
                    Lot::Good => Ok(()),
                    // Applied, answered, and the acknowledgement never comes.
                    Lot::AppliedUnknown | Lot::Refused | Lot::LostUnknown => Err(unknown()),
                }
            };
            Ok(Written { reply, durable: Box::pin(durable) })
        })
    }

    pub(super) fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&World) -> BoxFuture<Result<T, ReadError>> + Send + 'static,
    ) -> BoxFuture<Result<T, ReadError>> {
        let (world, life) = (self.world.clone(), self.life.clone());
        let refused = world.strikes(world.profile.refused);
        if refused {
            world.observer.saw("reads refused");
        }
        let pause = self.delay() / 4;
        Box::pin(async move {
            tokio::time::sleep(pause).await;
            while world.is_unwritten() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            life.go_on().await;
            if refused { Err(ReadError::Unavailable(Arc::new(WorldSaysNo))) } else { read(&world).await }
        })
    }

    /// A planted bug: answers that a commit is durable, and writes it a little later.
    fn commit_later(&self, fence: Fence, turn: TurnCommit) -> BoxFuture<Result<Written<()>, CommitError>> {
        let (world, life) = (self.world.clone(), self.life.clone());
        world.unwritten.fetch_add(1, SeqCst);
        let pause = world.pause(UNWRITTEN_MS);
        tokio::task::spawn_local(async move {
            tokio::time::sleep(pause).await;
            let _written = apply(&world, &life, |w| w.commit(fence, turn)).await;
            world.unwritten.fetch_sub(1, SeqCst);
        });
        Box::pin(std::future::ready(Ok(Written::durably(()))))
    }
}

/// Applies a write, unless the node is dead or dies just before; when it dies just after, nobody
/// ever hears of it.
async fn apply<T>(
    world: &Arc<World>,
    life: &Life,
    write: impl FnOnce(&Arc<World>) -> Result<T, CommitError>,
) -> Result<T, CommitError> {
    let moment = life.at_write();
    let written = match moment {
        Moment::Alive | Moment::LastWrite => Some(write(world)),
        Moment::Dead => None,
    };
    if life.is_over() {
        world.observer.saw("deaths at a write");
        world.note(format_args!("the node dies at a write, applied: {}", written.is_some()));
    }
    life.go_on().await;
    written.unwrap_or_else(|| Err(unknown()))
}

impl Store for FaultyStore {
    fn durability(&self) -> Durability {
        self.world.disk.durability()
    }

    fn register(&self, names: Registration) -> BoxFuture<Result<Registered, RegisterError>> {
        Store::register(&self.world.disk, names)
    }

    fn accept(&self, batch: Vec<NewCommand>) -> BoxFuture<Written<Vec<Verdict>>> {
        let n = batch.len();
        let written = self.write(move |w| Ok(w.accept(batch)));
        Box::pin(async move {
            match written.await {
                Ok(written) => written,
                Err(CommitError::Unknown(_)) => Written::durably(vec![Verdict::Unknown; n]),
                Err(CommitError::Unavailable(_) | CommitError::Conflict | CommitError::Full) => {
                    Written::durably(vec![Verdict::Unavailable; n])
                }
            }
        })
    }

    fn append_reports(
        &self,
        partition: PartitionId,
        reports: Vec<Confirmation>,
    ) -> BoxFuture<Result<Written<()>, CommitError>> {
        self.write(move |w| at_once(w.disk.append_reports(partition, reports)).map(|written| written.reply))
    }

    fn instruct(
        &self,
        partition: PartitionId,
        asked: Instruction,
    ) -> BoxFuture<Result<Written<()>, CommitError>> {
        self.write(move |w| at_once(w.disk.instruct(partition, asked)).map(|written| written.reply))
    }

    fn set_paused(
        &self,
        partition: PartitionId,
        paused: bool,
    ) -> BoxFuture<Result<Written<()>, CommitError>> {
        self.write(move |w| at_once(w.disk.set_paused(partition, paused)).map(|written| written.reply))
    }

    fn paused(&self) -> BoxFuture<Result<Vec<PartitionId>, ReadError>> {
        // Asked once, at the start, as names are made known.
        self.world.disk.paused()
    }

    fn take(&self, partition: PartitionId, nonce: u64) -> BoxFuture<Result<Written<Fence>, CommitError>> {
        let life = self.life();
        self.write(move |w| w.take(partition, nonce, &life))
    }

    fn load(&self, fence: Fence) -> BoxFuture<Result<PartitionImage, ReadError>> {
        self.read(move |w| w.disk.load(fence))
    }

    fn gather(&self, fence: Fence, limits: GatherLimits) -> BoxFuture<Result<Gathered, ReadError>> {
        self.read(move |w| w.disk.gather(fence, limits))
    }

    fn subject(&self, fence: Fence, id: TransactionId) -> BoxFuture<Result<Option<Lookup>, ReadError>> {
        self.read(move |w| w.disk.subject(fence, id))
    }

    fn commit(&self, fence: Fence, turn: TurnCommit) -> BoxFuture<Result<Written<()>, CommitError>> {
        if self.world.plants(Planted::EffectBeforeCommit, 1_000) {
            return self.commit_later(fence, turn);
        }
        self.write(move |w| w.commit(fence, turn))
    }

    fn lease_serials(&self, count: u64) -> BoxFuture<Result<Written<u64>, CommitError>> {
        self.write(move |w| at_once(w.disk.lease_serials(count)).map(|written| written.reply))
    }

    fn wake_ups(&self) -> BoxFuture<Result<Vec<(PartitionId, Timestamp)>, ReadError>> {
        if self.world.plants(Planted::LostWakeUp, 1_000) {
            return Box::pin(std::future::ready(Ok(Vec::new())));
        }
        self.read(|w| w.disk.wake_ups())
    }

    fn transaction(&self, id: TransactionId) -> BoxFuture<Result<Option<Lookup>, ReadError>> {
        self.read(move |w| w.disk.transaction(id))
    }

    fn ship_to(&self, id: TransactionId) -> BoxFuture<Result<Option<ShipTo>, ReadError>> {
        self.read(move |w| w.disk.ship_to(id))
    }

    fn claimed(
        &self,
        client: ClientNo,
        kind: Kind,
        reference: Reference,
    ) -> BoxFuture<Result<Option<TransactionId>, ReadError>> {
        self.read(move |w| w.disk.claimed(client, kind, reference))
    }

    fn orders_of(
        &self,
        client: ClientNo,
        after: Option<TransactionId>,
        limit: usize,
    ) -> BoxFuture<Result<Vec<TransactionId>, ReadError>> {
        self.read(move |w| w.disk.orders_of(client, after, limit))
    }

    fn position(
        &self,
        partition: PartitionId,
        client: ClientNo,
        sku: Sku,
    ) -> BoxFuture<Result<Option<Position>, ReadError>> {
        self.read(move |w| w.disk.position(partition, client, sku))
    }

    fn positions(
        &self,
        partition: PartitionId,
        client: ClientNo,
        after: Option<Sku>,
        limit: usize,
    ) -> BoxFuture<Result<Vec<(Sku, Position)>, ReadError>> {
        self.read(move |w| w.disk.positions(partition, client, after, limit))
    }

    fn cartons(&self, manifest: TransactionId) -> BoxFuture<Result<Vec<ManifestCarton>, ReadError>> {
        self.read(move |w| w.disk.cartons(manifest))
    }

    fn dead_letters(
        &self,
        partition: PartitionId,
        after: u64,
        limit: usize,
    ) -> BoxFuture<Result<Vec<Listed>, ReadError>> {
        self.read(move |w| w.disk.dead_letters(partition, after, limit))
    }

    fn dead_letter(&self, partition: PartitionId, n: u64) -> BoxFuture<Result<Option<Kept>, ReadError>> {
        self.read(move |w| w.disk.dead_letter(partition, n))
    }

    fn dead_letters_total(&self, partition: PartitionId) -> BoxFuture<Result<u64, ReadError>> {
        self.read(move |w| w.disk.dead_letters_total(partition))
    }

    fn feed_bounds(&self, client: ClientNo) -> BoxFuture<Result<FeedBounds, ReadError>> {
        self.read(move |w| w.disk.feed_bounds(client))
    }

    fn sequences(&self, id: TransactionId) -> BoxFuture<Result<Vec<Option<u64>>, ReadError>> {
        self.read(move |w| w.disk.sequences(id))
    }

    fn estimates(&self, id: TransactionId) -> BoxFuture<Result<Vec<ToldEstimate>, ReadError>> {
        self.read(move |w| w.disk.estimates(id))
    }

    fn sweep_feeds(
        &self,
        now: Timestamp,
        retention: Duration,
        limit: usize,
    ) -> BoxFuture<Result<usize, CommitError>> {
        self.world.disk.sweep_feeds(now, retention, limit)
    }

    fn secret(&self, purpose: &str) -> [u8; 32] {
        self.world.disk.secret(purpose)
    }

    fn feed(
        &self,
        client: ClientNo,
        after: u64,
        limit: usize,
    ) -> BoxFuture<Result<Vec<FeedEntry>, ReadError>> {
        self.read(move |w| w.disk.feed(client, after, limit))
    }

    fn announcement(
        &self,
        client: ClientNo,
        sequence: u64,
    ) -> BoxFuture<Result<Option<Announcement>, ReadError>> {
        self.read(move |w| w.disk.announcement(client, sequence))
    }

    fn scan(
        &self,
        after: Option<TransactionId>,
        limit: usize,
    ) -> BoxFuture<Result<Vec<StoredTransaction>, ReadError>> {
        self.read(move |w| w.disk.scan(after, limit))
    }

    fn sweep(
        &self,
        now: Timestamp,
        retention: Duration,
        limit: usize,
    ) -> BoxFuture<Result<usize, CommitError>> {
        self.world.disk.sweep(now, retention, limit)
    }

    fn feed_epoch(&self) -> u64 {
        self.world.disk.feed_epoch()
    }

    fn membership(&self) -> Option<Arc<dyn Membership>> {
        self.seat.clone().map(|seat| -> Arc<dyn Membership> { seat })
    }

    fn is_writable(&self) -> bool {
        true
    }
}
