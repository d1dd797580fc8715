//! What is done before a run of Redis is used that is not the one before: after a restart, a failover,
//! and at each start. It must never open the way to it before all that was accepted is there.
//!
//! 1. Every fence is made void, so that every owner reads its partition anew: it may know of turns that
//!    this run has lost. (Not at the start: then there is no owner yet.)
//! 2. The receipts are appended again ([`super::receipts`]).
//! 3. If it is still the same run, it is the one that is used from here on.
//!
//! Killed or refused between any two of these it is done again from the first; nothing of it is done
//! twice to any effect. Meanwhile nothing is accepted and nobody reads: an answer from a run that has
//! lost its end would be "not found" for what a client holds a 202 for.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use super::link::{Link, LinkError, Shared, Standing};
use super::overlay::Fetch;
use super::place::Slot;
use super::receipts::{Kept, Receipts};
use super::transact::Plan;
use super::{Inner, QUEUE_MAX, accept};
use crate::domain::ids::PartitionId;
use crate::domain::time::Timestamp;
use crate::ports::clock::{Clock as _, SystemClock};
use crate::ports::entropy::{Entropy as _, SystemEntropy};
use crate::ports::store::{CommitError, NewCommand, ReadError, Verdict};
use crate::ports::store_report::StoreVitals;
use crate::store::keys::{self, Table};
use crate::store::rows;

/// Receipts that are appended at once.
const CHUNK: usize = 512;

/// Why a run is not ready. It is tried again.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unsettled {
    /// Redis does not answer.
    #[error("redis does not answer")]
    Link(#[from] LinkError),
    /// It cannot be written.
    #[error("redis cannot be written")]
    Write(#[from] CommitError),
    /// It cannot be read.
    #[error("redis cannot be read")]
    Read(#[from] ReadError),
    /// The receipts cannot be read.
    #[error("the receipts cannot be read")]
    Receipts(#[from] io::Error),
    /// Something was not taken.
    #[error("a receipt was not appended: {0:?}")]
    Refused(Verdict),
    /// It went away meanwhile.
    #[error("redis began anew once more")]
    Moved,
}

/// What came of the receipts.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    /// Accepted lately.
    receipts: usize,
    /// Put back.
    restored: usize,
    /// Their references belong to others now.
    lost: usize,
}

/// Makes the run of Redis that is there now the one that is used.
///
/// # Errors
/// When it cannot be, for now.
pub(super) async fn settle(inner: &Inner) -> Result<(), Unsettled> {
    let beside = inner.beside();
    let run = beside.writes.run_id().await?;
    let before = inner.writes.shared.run.lock().clone();
    if before.as_deref() == Some(&*run) {
        return Ok(());
    }
    let mut all: BTreeSet<PartitionId> = beside.partitions().await?.into_iter().collect();
    all.extend(inner.noted.lock().iter().copied());
    if before.is_some() {
        for partition in &all {
            beside.depose(*partition).await?;
        }
    }
    let tally = beside.restore(&inner.receipts).await?;
    for link in [&beside.writes, &beside.reads] {
        if link.run_id().await? != run {
            return Err(Unsettled::Moved);
        }
    }
    // What was noted here may be among what was lost.
    inner.noted.lock().clear();
    all.extend(beside.noted.lock().iter().copied());
    all.iter().for_each(|partition| inner.relay.wrote(*partition));
    *inner.writes.shared.run.lock() = Some(run.to_string());
    for link in [&inner.writes, &inner.reads] {
        link.forget(None).await;
    }
    let Tally { receipts, restored, lost } = tally;
    if restored > 0 || lost > 0 {
        tracing::error!(receipts, restored, lost, "redis had lost what it acknowledged; it was put back");
    } else if before.is_some() {
        tracing::warn!(receipts, "redis began anew or another one took over; nothing accepted was missing");
    }
    Ok(())
}

impl Inner {
    /// The same store by connections of its own, which lead to any run.
    fn beside(&self) -> Inner {
        let of = &self.writes.shared;
        let shared = Arc::new(Shared {
            client: of.client.clone(),
            assume_durability: of.assume_durability,
            store: parking_lot::Mutex::new(Some(self.id)),
            standing: parking_lot::Mutex::new(Standing::Well),
            run: parking_lot::Mutex::new(None),
            behind: tokio::sync::Notify::new(),
            is_quiet: true,
        });
        Inner {
            writes: Link::new(Arc::clone(&shared)),
            reads: Link::new(shared),
            hasher: self.hasher,
            id: self.id,
            relay: super::Relay::default(),
            vitals: StoreVitals::new(QUEUE_MAX),
            noted: parking_lot::Mutex::default(),
            receipts: Arc::clone(&self.receipts),
            rooms: super::rooms::Rooms::default(),
            seen: super::seen::SeenTransactions::default(),
            members: None,
        }
    }

    /// Makes every fence of a partition void.
    pub(super) async fn depose(&self, partition: PartitionId) -> Result<(), CommitError> {
        let row = Fetch::Row(Table::Partition, keys::partition(partition));
        let plan = Plan::open(Slot::Partition(partition), vec![row]);
        let nonce = SystemEntropy.next();
        self.write_in(partition, plan, 1, |w| rows::depose(w, partition, nonce)).await
    }

    /// Appends what was accepted lately and is not there.
    async fn restore(&self, receipts: &Receipts) -> Result<Tally, Unsettled> {
        let now = SystemClock.now();
        let mut tally = Tally::default();
        let Some((files, reader)) = receipts.close_files()? else { return Ok(tally) };
        for path in files {
            let file = path.clone();
            let read = tokio::task::spawn_blocking(move || reader.read(&file, now)).await;
            let Kept { commands, unreadable, is_foreign } = read.map_err(io::Error::other)??;
            let path = path.display();
            if is_foreign {
                tracing::warn!(%path, "receipts of another store are passed over");
            }
            if unreadable > 0 {
                tracing::error!(%path, unreadable, "receipts are damaged; what stood there is not put back");
            }
            tally.receipts += commands.len();
            for some in commands.chunks(CHUNK) {
                self.restore_some(some, now, &mut tally).await?;
            }
        }
        Ok(tally)
    }

    async fn restore_some(
        &self,
        receipts: &[NewCommand],
        now: Timestamp,
        tally: &mut Tally,
    ) -> Result<(), Unsettled> {
        // Most are there; they are not to be claimed one by one.
        let found = self.find(receipts.iter().map(|new| new.id)).await?;
        let young =
            |new: &NewCommand| now.since(new.id.at()).as_millis() <= u128::from(accept::APPEND_WITHIN_MS);
        let missing = receipts.iter().zip(found).filter(|(new, found)| !found.is_there() && young(new));
        let missing: Vec<NewCommand> = missing.map(|(new, _)| new.clone()).collect();
        for (new, verdict) in missing.iter().zip(self.accept(&missing).await) {
            match verdict {
                Verdict::New => tally.restored += 1,
                Verdict::Replay(id) if id == new.id => {}
                Verdict::Replay(other) | Verdict::ReferenceConflict(other) => {
                    tally.lost += 1;
                    tracing::error!(transaction = %new.id, %other, "an accepted order is lost: its reference belongs to another");
                }
                Verdict::KeyReused => {
                    tally.lost += 1;
                    tracing::error!(transaction = %new.id, "an accepted order is lost: its key belongs to another");
                }
                Verdict::BacklogFull | Verdict::StoreFull | Verdict::Unavailable | Verdict::Unknown => {
                    return Err(Unsettled::Refused(verdict));
                }
            }
        }
        Ok(())
    }
}
