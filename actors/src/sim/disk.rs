//! The disk of the world: every write goes through here, so that the observer sees it at the moment
//! at which it is applied; and the bugs that sit in a store are planted here.

use futures_util::FutureExt;
use std::sync::Arc;

use super::life::Life;
use super::{Planted, World};
use crate::domain::ids::{ClientNo, PartitionId, TransactionId};
use crate::ports::BoxFuture;
use crate::ports::store::{
    CommitError, Fence, Lookup, NewCommand, Store, StoredTransaction, TurnCommit, Verdict,
};
use crate::store::format::{self, Counter};
use crate::store::keys::{self, Table};

/// The answer of the store in memory, which is always there.
pub(crate) fn at_once<T>(answer: BoxFuture<T>) -> T {
    answer.now_or_never().expect("the store in memory answers at once")
}

impl World {
    /// A transaction as it is on the disk, unless it is not there or cannot be read.
    pub(crate) fn stored(&self, id: TransactionId) -> Option<Arc<StoredTransaction>> {
        match at_once(self.disk.transaction(id)) {
            Ok(Some(Lookup::Live(stored))) => Some(stored),
            Ok(Some(Lookup::Expired(_)) | None) | Err(_) => None,
        }
    }

    /// Accepts commands.
    pub(crate) fn accept(&self, mut batch: Vec<NewCommand>) -> Vec<Verdict> {
        if self.plants(Planted::LostCommand, 50) {
            return vec![Verdict::New; batch.len()];
        }
        for new in &mut batch {
            if self.plants(Planted::MixedClients, 50) {
                new.client = ClientNo(3 - new.client.0);
            }
        }
        let verdicts = at_once(self.disk.accept(batch.clone())).reply;
        self.observer.accepted(self, &batch, &verdicts);
        self.spoil(batch.iter().map(|new| (new.client, new.id, 1)));
        if self.plants(Planted::LateWakeUp, 100) {
            // Ingestion nudges nobody for what was there before.
            let known = |(new, verdict): (&NewCommand, Verdict)| match verdict {
                Verdict::New => Verdict::Replay(new.id),
                _ => verdict,
            };
            return batch.iter().zip(verdicts).map(known).collect();
        }
        verdicts
    }

    /// Makes a caller the owner of a partition.
    pub(crate) fn take(
        &self,
        partition: PartitionId,
        nonce: u64,
        life: &Arc<Life>,
    ) -> Result<Fence, CommitError> {
        let fence = at_once(self.disk.take(partition, nonce))?.reply;
        self.observer.taken(self, fence, life);
        Ok(fence)
    }

    /// Commits a turn.
    pub(crate) fn commit(&self, fence: Fence, mut turn: TurnCommit) -> Result<(), CommitError> {
        if self.plants(Planted::Overpromise, 50)
            && let Some((_, position)) = turn.positions.first_mut()
        {
            position.reserved += position.available() + 1;
        }
        if self.plants(Planted::StockFromNothing, 50)
            && let Some((_, position)) = turn.positions.first_mut()
        {
            position.on_hand += 1;
        }
        let mut committed = at_once(self.disk.commit(fence, turn.clone()));
        if let Err(CommitError::Conflict) = &committed {
            self.observer.saw("stale commits");
            if self.plants(Planted::StaleOwner, 1_000)
                && let Some(owner) = self.observer.owner(fence.partition)
            {
                committed = at_once(self.disk.commit(owner, turn.clone()));
            }
        }
        self.observer.committed(self, fence, &turn, committed.is_ok());
        committed?;
        self.spoil(turn.facts.iter().map(|new| (new.client, new.id, new.first_version)));
        Ok(())
    }

    /// Spoils what stands beside facts that were just written, where such a bug is planted.
    fn spoil(&self, written: impl Iterator<Item = (ClientNo, TransactionId, u32)>) {
        for (client, id, version) in written {
            if self.plants(Planted::FeedNumberTwice, 50) && client != ClientNo::HOUSE {
                let key = keys::feed_counter(client);
                let counter = self.disk.row(Table::Counters, &key);
                let counter = counter.and_then(|bytes| format::decode_counter(&bytes).ok());
                if let Some(Counter { next: next @ 2.., count }) = counter {
                    let row = format::encode_counter(Counter { next: next - 1, count });
                    self.disk.tamper(Table::Counters, key, row);
                }
            }
            if self.plants(Planted::VersionRewritten, 50) && version > 2 {
                let fact = |version| keys::chunk(&keys::fact(id, version), 0);
                if let Some(later) = self.disk.row(Table::Tx, &fact(version)) {
                    self.disk.tamper(Table::Tx, fact(version - 1), later);
                }
            }
        }
    }

    /// Where a bug that answers before it writes keeps readers from seeing what is not there yet.
    pub(crate) fn is_unwritten(&self) -> bool {
        self.unwritten.load(std::sync::atomic::Ordering::SeqCst) > 0
    }
}
