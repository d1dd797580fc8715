//! What is done before a run of Redis is used that is not the one before: after a restart, a failover,
//! and at each start. In a cluster that is one of its primaries: the others are used meanwhile. It must
//! never open the way to it before all that was accepted is there.
//!
//! 1. Every fence is made void, so that every owner reads its partition anew: it may know of turns that
//!    this run has lost. (Not at the start: then there is no owner yet.)
//! 2. The receipts are appended again ([`super::receipts`]).
//! 3. Numbers that may have been given out are passed over ([`super::rollback`]).
//! 4. The other nodes that are there have done the same: a client that asks again at a node which is
//!    quicker than the one that has its receipt would get a second order. A node that does not come to it
//!    within a lease is dead, or will find its references taken.
//! 5. If they are still the same runs, they are the ones that are used from here on, and no other: one
//!    that was used before and comes back as a primary has lost what was written since.
//!
//! Killed or refused between any two of these it is done again from the first; nothing of it is done
//! twice to any effect. Meanwhile nothing is accepted and nobody reads: an answer from a run that has
//! lost its end would be "not found" for what a client holds a 202 for.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::claims::Found;
use super::link::{Link, LinkError, with_causes};
use super::overlay::Fetch;
use super::place::Slot;
use super::receipts::{Kept, Receipts};
use super::rollback::Seen;
use super::transact::Plan;
use super::watch::WATCH_EVERY;
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

/// How often old receipts are looked for: as often as a file of them ends.
const DROP_EVERY: Duration = Duration::from_secs(60);

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
    let runs = beside.writes.run_ids().await?;
    let before = inner.writes.shared.runs.lock().clone();
    if before.as_ref().is_some_and(|before| before.is_subset(&runs)) {
        // Primaries that joined a cluster: what they have came from those that are known, and still are.
        if let Some(members) = &inner.members {
            beside.say_settled(members, &runs).await?;
        }
        *inner.writes.shared.runs.lock() = Some(runs);
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
    if let Some(before) = &before {
        beside.pass_over(&inner.seen, before, &runs).await?;
    }
    if let Some(members) = &inner.members {
        beside.others_settle(members, &runs).await?;
    }
    for link in [&beside.writes, &beside.reads] {
        if link.run_ids().await? != runs {
            return Err(Unsettled::Moved);
        }
    }
    // What was noted may be among what was lost, and what it is about elsewhere.
    beside.note_all(&all).await?;
    if inner.writes.shared.wanted.is_cluster && before.is_some() {
        beside.note_endpoints().await?;
    }
    all.extend(beside.noted.lock().iter().copied());
    all.iter().for_each(|partition| inner.relay.wrote(*partition));
    *inner.writes.shared.runs.lock() = Some(runs);
    for link in [&inner.writes, &inner.reads] {
        link.forget().await;
    }
    let Tally { receipts, restored, lost } = tally;
    if restored > 0 || lost > 0 {
        tracing::error!(receipts, restored, lost, "redis had lost what it acknowledged; it was put back");
    } else if before.is_some() {
        tracing::warn!(receipts, "redis began anew or another one took over; nothing accepted was missing");
    }
    Ok(())
}

/// Makes each run of Redis fit for use and drops old receipts, until the store is dropped.
pub(super) async fn keep_settled(inner: Arc<Inner>) {
    loop {
        let behind = inner.writes.shared.behind.notified();
        if tokio::time::timeout(DROP_EVERY, behind).await.is_err() {
            inner.receipts.drop_old().await;
            continue;
        }
        while let Err(e) = settle(&inner).await {
            tracing::warn!(
                error = with_causes(&e),
                "what was accepted is not put back yet; it is tried again"
            );
            tokio::time::sleep(WATCH_EVERY).await;
        }
    }
}

impl Inner {
    /// The same store by connections of its own, which lead to any run.
    fn beside(&self) -> Inner {
        let shared = Arc::new(self.writes.shared.beside());
        Inner {
            writes: Link::writes(Arc::clone(&shared)),
            reads: Link::reads(shared),
            hasher: self.hasher,
            id: self.id,
            relay: super::Relay::default(),
            vitals: StoreVitals::new(QUEUE_MAX),
            noted: parking_lot::Mutex::default(),
            receipts: Arc::clone(&self.receipts),
            seen: Seen::default(),
            rooms: super::rooms::Rooms::default(),
            decoded: super::seen::SeenTransactions::default(),
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
        // Most are there; they are not to be claimed one by one. In a cluster one primary may have lost
        // the claim of a transaction that is there on another: then its append is a replay.
        let found = self.find(receipts.iter().map(|new| new.id)).await?;
        let are_held = self.are_held(receipts).await?;
        let young =
            |new: &NewCommand| now.since(new.id.at()).as_millis() <= u128::from(accept::APPEND_WITHIN_MS);
        let is_missing = |found: &Found, is_held: bool| !found.is_there() || !is_held;
        let missing = receipts.iter().zip(found.iter().zip(are_held));
        let missing = missing.filter(|(new, (found, is_held))| is_missing(found, *is_held) && young(new));
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
