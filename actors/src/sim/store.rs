//! A store that delays, refuses, applies and then fails; and dies with its node.

use std::sync::Arc;
use std::time::Duration;

use super::World;
use crate::domain::command::{Kind, ShipTo};
use crate::domain::confirmation::Confirmation;
use crate::domain::ids::{ClientNo, PartitionId, Reference, Sku, TransactionId};
use crate::domain::stock::Position;
use crate::domain::time::Timestamp;
use crate::ports::BoxFuture;
use crate::ports::store::{
    CommitError, DeadLetter, Durability, FeedEntry, Fence, GatherLimits, Gathered, Instruction, Kept, Lookup,
    ManifestCarton, NewCommand, PartitionImage, ReadError, RegisterError, Registered, Registration, Store,
    StoredTransaction, TurnCommit, Verdict, Written,
};

/// The failing store of one life of the node.
pub(crate) struct FaultyStore(Arc<World>);

#[derive(Debug, thiserror::Error)]
#[error("the world says no")]
struct WorldSaysNo;

enum Lot {
    Good,
    Refused,
    AppliedUnknown,
    LostUnknown,
}

impl FaultyStore {
    pub(crate) fn new(world: Arc<World>) -> FaultyStore {
        FaultyStore(world)
    }

    fn lot(&self) -> Lot {
        let p = &self.0.profile;
        if self.0.strikes(p.refused) {
            Lot::Refused
        } else if self.0.strikes(p.applied_unknown) {
            Lot::AppliedUnknown
        } else if self.0.strikes(p.lost_unknown) {
            Lot::LostUnknown
        } else {
            Lot::Good
        }
    }

    /// A write: pauses before and after the moment it is applied, so that a death can fall there.
    fn write<T: Send + 'static>(
        &self,
        write: impl FnOnce(&World) -> BoxFuture<Result<Written<T>, CommitError>> + Send + 'static,
    ) -> BoxFuture<Result<Written<T>, CommitError>> {
        let (lot, world) = (self.lot(), self.0.clone());
        let (before, after) = (world.pause(4), world.pause(4));
        Box::pin(async move {
            tokio::time::sleep(before).await;
            match lot {
                Lot::Refused => Err(CommitError::Unavailable(Arc::new(WorldSaysNo))),
                Lot::LostUnknown => Err(CommitError::Unknown(Arc::new(WorldSaysNo))),
                Lot::AppliedUnknown => {
                    let written = write(&world).await?;
                    // Applied, answered, and the acknowledgement never comes.
                    let lost = async { Err(CommitError::Unknown(Arc::new(WorldSaysNo) as _)) };
                    Ok(Written { reply: written.reply, durable: Box::pin(lost) })
                }
                Lot::Good => {
                    let written = write(&world).await?;
                    let durable = async move {
                        tokio::time::sleep(after).await;
                        written.durable.await
                    };
                    Ok(Written { reply: written.reply, durable: Box::pin(durable) })
                }
            }
        })
    }

    fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&World) -> BoxFuture<Result<T, ReadError>> + Send + 'static,
    ) -> BoxFuture<Result<T, ReadError>> {
        let world = self.0.clone();
        let refused = world.strikes(world.profile.refused);
        let pause = world.pause(1);
        Box::pin(async move {
            tokio::time::sleep(pause).await;
            if refused { Err(ReadError::Unavailable(Arc::new(WorldSaysNo))) } else { read(&world).await }
        })
    }
}

impl Store for FaultyStore {
    fn durability(&self) -> Durability {
        self.0.disk.durability()
    }

    fn register(&self, names: Registration) -> BoxFuture<Result<Registered, RegisterError>> {
        Store::register(&self.0.disk, names)
    }

    fn accept(&self, batch: Vec<NewCommand>) -> BoxFuture<Written<Vec<Verdict>>> {
        let (lot, world, n) = (self.lot(), self.0.clone(), batch.len());
        let pause = world.pause(4);
        Box::pin(async move {
            tokio::time::sleep(pause).await;
            match lot {
                Lot::Refused => Written::durably(vec![Verdict::Unavailable; n]),
                Lot::LostUnknown => Written::durably(vec![Verdict::Unknown; n]),
                Lot::AppliedUnknown => {
                    world.disk.accept(batch).await;
                    Written::durably(vec![Verdict::Unknown; n])
                }
                Lot::Good => world.disk.accept(batch).await,
            }
        })
    }

    fn append_reports(
        &self,
        partition: PartitionId,
        reports: Vec<Confirmation>,
    ) -> BoxFuture<Result<Written<()>, CommitError>> {
        self.write(move |w| w.disk.append_reports(partition, reports))
    }

    fn instruct(
        &self,
        partition: PartitionId,
        asked: Instruction,
    ) -> BoxFuture<Result<Written<()>, CommitError>> {
        self.write(move |w| w.disk.instruct(partition, asked))
    }

    fn set_paused(
        &self,
        partition: PartitionId,
        paused: bool,
    ) -> BoxFuture<Result<Written<()>, CommitError>> {
        self.write(move |w| w.disk.set_paused(partition, paused))
    }

    fn paused(&self) -> BoxFuture<Result<Vec<PartitionId>, ReadError>> {
        // Asked once, at the start, as names are made known.
        self.0.disk.paused()
    }

    fn take(&self, partition: PartitionId, nonce: u64) -> BoxFuture<Result<Written<Fence>, CommitError>> {
        self.write(move |w| {
            w.observer.note(format!("take {partition:?}"));
            w.disk.take(partition, nonce)
        })
    }

    fn load(&self, fence: Fence) -> BoxFuture<Result<PartitionImage, ReadError>> {
        self.read(move |w| w.disk.load(fence))
    }

    fn gather(&self, fence: Fence, limits: GatherLimits) -> BoxFuture<Result<Gathered, ReadError>> {
        self.read(move |w| w.disk.gather(fence, limits))
    }

    fn commit(&self, fence: Fence, turn: TurnCommit) -> BoxFuture<Result<Written<()>, CommitError>> {
        let world = self.0.clone();
        self.write(move |w| {
            let committed = w.disk.commit(fence, turn.clone());
            Box::pin(async move {
                let written = committed.await?;
                let facts: Vec<_> = turn.facts.iter().map(|f| (f.id, &f.facts)).collect();
                let at = crate::ports::clock::Clock::now(&*world.clock).0;
                world.observer.note(format!("{at} {fence:?} taken {:?} facts {facts:?}", turn.taken));
                world.observer.positions(&turn);
                for new in &turn.facts {
                    if let Ok(Some(Lookup::Live(stored))) = world.disk.transaction(new.id).await {
                        world.observer.transaction(&stored);
                    }
                }
                Ok(written)
            })
        })
    }

    fn lease_serials(&self, count: u64) -> BoxFuture<Result<Written<u64>, CommitError>> {
        self.write(move |w| w.disk.lease_serials(count))
    }

    fn wake_ups(&self) -> BoxFuture<Result<Vec<(PartitionId, Timestamp)>, ReadError>> {
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
    ) -> BoxFuture<Result<Vec<(u64, DeadLetter)>, ReadError>> {
        self.read(move |w| w.disk.dead_letters(partition, after, limit))
    }

    fn dead_letter(&self, partition: PartitionId, n: u64) -> BoxFuture<Result<Option<Kept>, ReadError>> {
        self.read(move |w| w.disk.dead_letter(partition, n))
    }

    fn dead_letters_total(&self, partition: PartitionId) -> BoxFuture<Result<u64, ReadError>> {
        self.read(move |w| w.disk.dead_letters_total(partition))
    }

    fn feed(
        &self,
        client: ClientNo,
        after: u64,
        limit: usize,
    ) -> BoxFuture<Result<Vec<FeedEntry>, ReadError>> {
        self.read(move |w| w.disk.feed(client, after, limit))
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
        self.0.disk.sweep(now, retention, limit)
    }

    fn is_writable(&self) -> bool {
        true
    }
}
