//! What this node accepted in the last minutes, in files of its own, so that a Redis which lost the end
//! of what it had acknowledged (a failover to a replica that lagged, a disk that lied) gets it again. It
//! must never be read for anything else: the truth is in Redis.
//!
//! # What is written when
//!
//! 1. A round of commands is claimed and appended in Redis, and is on disk there.
//! 2. Their receipts are written and synced here, once a round: for each command that is new, and for
//!    each that is a replay of a young transaction, which the node before may have died with.
//! 3. The 202s are given.
//!
//! Receipts come second because only Redis knows whether a command is accepted and under which id: one
//! that was refused must never be appended by a receipt. [`super::recover`] appends them again, each
//! under its id, whenever the run of Redis is another than the one before, and at each start; nobody
//! else uses a new run before. Under its id and its claim an append that is there is a replay, so doing
//! it again changes nothing, and there is never a second order.
//!
//! # What may be cut off where
//!
//! | cut off | Redis | receipts | what happens |
//! |---|---|---|---|
//! | before 1 is on disk | all or nothing, and an id without a transaction | none | nobody got a 202; a retry is new or a replay |
//! | between 1 and 2 | the transaction | none | nobody got a 202. If Redis loses its end as well the order is gone, and a retry is new |
//! | within 2 | the transaction | a torn tail | the same: what is torn was answered to nobody. The next process writes into a file of its own |
//! | between 2 and 3 | the transaction | all | nobody got a 202; appended again it is a replay, as the retry is |
//! | Redis lost its end after 3 | perhaps nothing, or the claim alone | all | appended again under the same id |
//! | the run changed between 1 and 2 | perhaps nothing | written after they were read | the round is answered with "unknown": [`Receipts::keep`] sees that they were read since ([`Receipts::era`]) |
//! | while they are appended again | some of them | all | the next attempt, or the next start, appends all of them again |
//! | the receipts cannot be written | the transaction | perhaps | "unknown": no 202 without its receipt |
//!
//! What was lost and cannot be put back is said in the log, with its id: its reference has gone to
//! another order in between, which takes another node or a void (below).
//!
//! # What must not come back
//!
//! A transaction that ended and was erased has neither a row nor a claim, and its receipt would make it
//! anew. So receipts are not kept longer than transactions are ([`ReceiptOptions::keep`]): an erased one
//! ended twice that long ago. A tombstone is found like a transaction, and nothing is appended. What was
//! made void stays void for two hours, and receipts of ids that are older than
//! [`APPEND_WITHIN_MS`](super::accept::APPEND_WITHIN_MS) are not appended. Receipts name their store: those
//! of another one are passed over, also where Redis was emptied and a store begun anew.
//!
//! # Bounds
//!
//! About 0.6 KB an order for ten minutes, in files of a minute or 16 MiB each. A disk without room is a
//! log that cannot be written. Names and addresses stand in it, readable for the process' user alone, for
//! eleven minutes, also when they were erased from the store since.
//!
//! # Several nodes
//!
//! Each node keeps the receipts of what it answered and appends them by itself; claims decide between
//! two nodes as ever. A retry at another node that is quicker than the first node's receipts would get
//! another id, so a run of Redis is used only when all nodes that are there have settled it. Owners are
//! told by their fences ([`super::recover`]).
//!
//! Not in it: reports of a WMS (what it said is asked for again when a release stays silent), what
//! operators and endpoints' owners changed, and turns, which are decided again.

mod frames;
mod log;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use uuid::Uuid;

use super::accept::APPEND_WITHIN_MS;
use super::link::with_causes;
use crate::domain::ids::TransactionId;
use crate::domain::time::Timestamp;
use crate::ports::clock::{Clock as _, SystemClock};
use crate::ports::store::{NewCommand, Verdict};
use crate::store::format;
pub(super) use log::{Kept, Reader};

/// The longest that receipts are kept: a failover that loses more has no end that is known.
pub const KEEP_MAX: Duration = Duration::from_secs(600);

/// Where receipts are kept, and for how long.
#[derive(Clone, Debug)]
pub struct ReceiptOptions {
    /// A directory of this process.
    pub dir: PathBuf,
    /// Not longer than transactions are kept once they are done.
    pub keep: Duration,
}

/// The receipts of this process; none where the store was opened without them.
pub(super) struct Receipts {
    log: Option<Mutex<log::Log>>,
    /// How often they were read. Changed only under the log's lock.
    era: AtomicU64,
    is_failing: AtomicBool,
}

impl Receipts {
    /// Opens the log, if there is to be one.
    ///
    /// # Errors
    /// When its directory cannot be used, or another process has it.
    pub(super) fn open(options: Option<&ReceiptOptions>, store: Uuid) -> io::Result<Receipts> {
        let log = options.map(|of| log::Log::open(&of.dir, of.keep.min(KEEP_MAX), store)).transpose()?;
        let log = log.map(Mutex::new);
        Ok(Receipts { log, era: AtomicU64::new(0), is_failing: AtomicBool::new(false) })
    }

    /// How often they were read; to be asked before commands are accepted.
    pub(super) fn era(&self) -> u64 {
        self.era.load(Ordering::Acquire)
    }

    /// True when the last receipts could not be written.
    pub(super) fn is_failing(&self) -> bool {
        self.is_failing.load(Ordering::Relaxed)
    }

    /// Writes the receipts of a round that was begun in `era`, or makes its acceptances unknown.
    pub(super) async fn keep(self: &Arc<Self>, era: u64, items: &[NewCommand], verdicts: &mut [Verdict]) {
        if self.log.is_none() {
            return;
        }
        let now = SystemClock.now();
        let mut bytes = Vec::new();
        for (new, verdict) in items.iter().zip(verdicts.iter()) {
            if let Some(id) = accepted_as(new, verdict, now) {
                frames::append(&mut bytes, &format::encode_receipt(now, id, new));
            }
        }
        if bytes.is_empty() {
            return;
        }
        let receipts = Arc::clone(self);
        let written = tokio::task::spawn_blocking(move || receipts.write(era, now, &bytes)).await;
        let is_kept = match written {
            Ok(written) => self.judge(written),
            // It panicked, or the store is being closed.
            Err(_) => false,
        };
        if !is_kept {
            for (new, verdict) in items.iter().zip(verdicts.iter_mut()) {
                if accepted_as(new, verdict, now).is_some() {
                    *verdict = Verdict::Unknown;
                }
            }
        }
    }

    /// Writes, and answers whether nobody has read the log since `era`.
    fn write(&self, era: u64, now: Timestamp, bytes: &[u8]) -> io::Result<bool> {
        let Some(log) = &self.log else { return Ok(true) };
        let mut log = log.lock();
        log.write(now, bytes)?;
        Ok(self.era() == era)
    }

    fn judge(&self, written: io::Result<bool>) -> bool {
        let failed = self.is_failing.swap(written.is_err(), Ordering::Relaxed);
        match written {
            Ok(is_of_era) => {
                if failed {
                    tracing::info!("receipts of what is accepted can be written again");
                }
                is_of_era
            }
            Err(e) => {
                if !failed {
                    tracing::error!(
                        error = with_causes(&e),
                        "receipts of what is accepted cannot be written; nothing is accepted until they can"
                    );
                }
                false
            }
        }
    }

    /// Drops what is older than it has to be, also where nothing is accepted any more.
    pub(super) async fn drop_old(self: &Arc<Self>) {
        let receipts = Arc::clone(self);
        let dropped = tokio::task::spawn_blocking(move || match &receipts.log {
            Some(log) => log.lock().drop_old(SystemClock.now()),
            None => Ok(()),
        });
        if let Ok(Err(e)) = dropped.await {
            tracing::warn!(error = with_causes(&e), "old receipts cannot be dropped; it is tried again");
        }
    }

    /// All files of receipts so far, and what reads them. A round that was begun before is not answered
    /// any more: its receipts may not be among them.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub(super) fn close_files(&self) -> io::Result<Option<(Vec<PathBuf>, Reader)>> {
        let Some(log) = &self.log else { return Ok(None) };
        let mut log = log.lock();
        self.era.fetch_add(1, Ordering::AcqRel);
        Ok(Some((log.close_files()?, log.reader())))
    }
}

/// The id that a command was accepted under, if it was, lately enough to be appended under again.
fn accepted_as(new: &NewCommand, verdict: &Verdict, now: Timestamp) -> Option<TransactionId> {
    match verdict {
        Verdict::New => Some(new.id),
        Verdict::Replay(id) => (now.since(id.at()) <= Duration::from_millis(APPEND_WITHIN_MS)).then_some(*id),
        Verdict::ReferenceConflict(_)
        | Verdict::KeyReused
        | Verdict::BacklogFull
        | Verdict::StoreFull
        | Verdict::Unavailable
        | Verdict::Unknown => None,
    }
}
