//! The one thread that writes: it takes what is queued, up to a bounded batch, runs it in one
//! transaction, syncs once, then answers. No timer: the sync itself lets the next batch form.
//!
//! Large jobs are a warehouse's full turns. They share a commit only up to a bound, so that whoever
//! waits for an order to be accepted waits for one of them and not for one of each warehouse.
//!
//! It must never answer before the commit, and never go on after a commit that failed: what is on
//! disk is then only known by starting again.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::time::Instant;

use heed::{Env, WithoutTls};
use tokio::sync::oneshot;

use super::reader::HotTransactions;
use super::room;
use super::tables::{Tables, Writing, row_error};
use crate::ports::fate::Fate;
use crate::ports::store::CommitError;
use crate::ports::store_report::StoreVitals;
use crate::store::rows::{Claims, Counters, Room, RowError, Write};

/// Requests in one commit. Past this the commit's own time no longer hides the next batch.
const BATCH_MAX: usize = 1_024;

/// A job of more items than this is a large one.
const ITEMS_SMALL: usize = 16;
/// Items that large jobs bring to one commit before the next of them waits for the next commit: those
/// of one full turn.
const ITEMS_LARGE_MAX: usize = 768;

/// A queued write.
pub(super) trait Job: Send {
    /// How many things it writes.
    fn items(&self) -> usize;
    /// Does it within a transaction that may still be aborted; it may be run again after that.
    fn run(&mut self, write: &mut Write<'_>) -> Result<(), RowError>;
    /// Gives the answer once the outcome is known.
    fn answer(self: Box<Self>, outcome: Result<(), CommitError>);
}

/// A write, its value when it was run, and who waits for it.
pub(super) struct Operation<F, T> {
    pub(super) operation: F,
    pub(super) items: usize,
    pub(super) value: Option<T>,
    pub(super) answer: oneshot::Sender<Result<T, CommitError>>,
}

impl<T, F> Job for Operation<F, T>
where
    T: Send,
    F: FnMut(&mut Write<'_>) -> Result<T, RowError> + Send,
{
    fn items(&self) -> usize {
        self.items
    }

    fn run(&mut self, write: &mut Write<'_>) -> Result<(), RowError> {
        self.value = Some((self.operation)(write)?);
        Ok(())
    }

    fn answer(self: Box<Self>, outcome: Result<(), CommitError>) {
        let Operation { value, answer, .. } = *self;
        let result = outcome.map(|()| value.expect("an operation ran before it was committed"));
        // Whoever asked may have gone; what is written stays written.
        drop(answer.send(result));
    }
}

/// Why a batch did not go through.
enum Failure {
    /// Nothing of it was written.
    Aborted(RowError),
    /// It may have been written.
    Commit(heed::Error),
}

impl From<RowError> for Failure {
    fn from(e: RowError) -> Self {
        Failure::Aborted(e)
    }
}

/// The writer's state.
pub(super) struct Writer {
    pub(super) env: Env<WithoutTls>,
    pub(super) tables: Tables,
    pub(super) dir: PathBuf,
    pub(super) counters: Counters,
    pub(super) claims: Claims,
    pub(super) hot: HotTransactions,
    pub(super) fate: Arc<dyn Fate>,
    pub(super) alive: Arc<AtomicBool>,
    pub(super) vitals: Arc<StoreVitals>,
}

impl Writer {
    /// Works until the queue is closed and empty, or the process must end.
    pub(super) fn run(mut self, queue: &Receiver<Box<dyn Job>>) {
        // Large jobs for which there was no place, in the order in which they came.
        let mut waiting = VecDeque::new();
        while let Some(batch) = next_batch(queue, &mut waiting) {
            self.vitals.takes(batch.len());
            if self.work(batch, Room::All).is_break() {
                break;
            }
        }
    }

    fn work(&mut self, mut batch: Vec<Box<dyn Job>>, most: Room) -> ControlFlow<()> {
        let failure = match self.attempt(&mut batch, most) {
            Ok(()) => {
                batch.into_iter().for_each(|job| job.answer(Ok(())));
                return ControlFlow::Continue(());
            }
            Err(failure) => failure,
        };
        self.counters.forget();
        match failure {
            // One request must not take the others with it: each is tried alone. When the map is
            // full only what empties the house is let in.
            Failure::Aborted(e) if batch.len() > 1 => {
                let most = if matches!(e, RowError::Full) { Room::Control } else { most };
                batch.into_iter().try_for_each(|job| self.work(vec![job], most))
            }
            Failure::Aborted(RowError::Broken(why)) => {
                self.end(batch, &Arc::new(RowError::Broken(why)));
                ControlFlow::Break(())
            }
            Failure::Aborted(e @ (RowError::Full | RowError::Backend(_) | RowError::Corrupt { .. })) => {
                tracing::warn!(error = %e, "a write was refused");
                batch.into_iter().for_each(|job| job.answer(Err(e.clone().into())));
                ControlFlow::Continue(())
            }
            Failure::Commit(e) => {
                self.end(batch, &Arc::new(RowError::Backend(Arc::new(e))));
                ControlFlow::Break(())
            }
        }
    }

    /// One transaction, one commit.
    fn attempt(&mut self, batch: &mut [Box<dyn Job>], most: Room) -> Result<(), Failure> {
        let began = Instant::now();
        let items = batch.iter().fold(0, |sum: usize, job| sum.saturating_add(job.items()));
        let room = room::measure(&self.dir, items).min(most);
        let txn = self.env.write_txn().map_err(row_error)?;
        let mut writing = Writing { tables: &self.tables, txn };
        // Worked on apart: an abort leaves what stands.
        let mut claims = self.claims.clone();
        let mut changed = Vec::new();
        for job in batch {
            let (rows, counters) = (&mut writing, &mut self.counters);
            job.run(&mut Write { rows, counters, claims: &mut claims, changed: &mut changed, room })?;
        }
        self.counters.flush(&mut writing)?;
        claims.tidy(&mut writing)?;
        writing.txn.commit().map_err(|e| match e {
            // The free list itself found no page: that is before the first byte is written.
            heed::Error::Mdb(heed::MdbError::MapFull) => Failure::Aborted(RowError::Full),
            e => Failure::Commit(e),
        })?;
        self.vitals.commits(items, began.elapsed());
        self.hot.forget(&changed);
        claims.committed();
        self.claims = claims;
        Ok(())
    }

    /// Going on could lie: everyone is told that the outcome is unknown, and the process ends.
    fn end(&self, batch: Vec<Box<dyn Job>>, why: &Arc<RowError>) {
        self.alive.store(false, Ordering::Release);
        for job in batch {
            job.answer(Err(CommitError::Unknown(Arc::clone(why) as _)));
        }
        let cause = std::error::Error::source(&**why).map_or_else(String::new, |s| format!(": {s}"));
        self.fate.end(&format!("{why}{cause}"));
    }
}

/// Waits for something to do, and takes what goes into one commit; `None` when the queue is closed and
/// empty.
fn next_batch(
    queue: &Receiver<Box<dyn Job>>,
    waiting: &mut VecDeque<Box<dyn Job>>,
) -> Option<Vec<Box<dyn Job>>> {
    if waiting.is_empty() {
        waiting.push_back(queue.recv().ok()?);
    }
    let mut batch = Vec::new();
    let mut large = 0;
    while let Some(job) = waiting.pop_front_if(|job| large == 0 || large + job.items() <= ITEMS_LARGE_MAX) {
        large += if job.items() > ITEMS_SMALL { job.items() } else { 0 };
        batch.push(job);
    }
    for job in queue.try_iter().take(BATCH_MAX - 1) {
        let items = job.items();
        if items <= ITEMS_SMALL {
            batch.push(job);
        } else if waiting.is_empty() && (large == 0 || large + items <= ITEMS_LARGE_MAX) {
            large += items;
            batch.push(job);
        } else {
            waiting.push_back(job);
        }
    }
    Some(batch)
}

impl Drop for Writer {
    /// A panic here leaves requests without an answer; only a new start finds out.
    fn drop(&mut self) {
        self.alive.store(false, Ordering::Release);
        if std::thread::panicking() {
            self.fate.end("the store's writer panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    struct Sized(usize);

    impl Job for Sized {
        fn items(&self) -> usize {
            self.0
        }

        fn run(&mut self, _: &mut Write<'_>) -> Result<(), RowError> {
            Ok(())
        }

        fn answer(self: Box<Self>, _: Result<(), CommitError>) {}
    }

    #[test]
    fn full_turns_wait_for_each_other_in_their_order_and_small_jobs_for_one_of_them() {
        let (send, queue) = channel::<Box<dyn Job>>();
        let mut waiting = VecDeque::new();
        let mut next = || {
            let batch = next_batch(&queue, &mut waiting)?;
            Some(batch.iter().map(|job| job.items()).collect::<Vec<_>>())
        };
        for items in [1, 700, 2, 600, 20, 3, 30] {
            send.send(Box::new(Sized(items))).unwrap();
        }
        assert_eq!(next(), Some(vec![1, 700, 2, 3]));
        // What came later and would fit does not overtake: nobody is left waiting for ever.
        send.send(Box::new(Sized(4))).unwrap();
        assert_eq!(next(), Some(vec![600, 20, 30, 4]));
        // One that is larger than the bound goes alone.
        for items in [5_000, 800, 5] {
            send.send(Box::new(Sized(items))).unwrap();
        }
        drop(send);
        assert_eq!(next(), Some(vec![5_000, 5]));
        assert_eq!(next(), Some(vec![800]));
        assert_eq!(next(), None);
    }
}
