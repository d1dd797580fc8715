//! Reads of the embedded store: what is hot is kept ready, what is not is read by threads of its
//! own. A page that is not in memory faults on the thread that touches it, and on an HTTP worker
//! that would hold up a thousand others.
//!
//! It must never show a transaction older than a commit that was answered: the writer drops what
//! it changed from the cache before it answers, and with it every fill that is under way.

use std::future::ready;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use heed::{Env, WithoutTls};
use parking_lot::Mutex;
use quick_cache::Weighter;
use quick_cache::sync::{Cache, GuardResult};
use tokio::sync::oneshot;

use super::tables::{Reading, Tables};
use crate::domain::command::Command;
use crate::domain::ids::TransactionId;
use crate::ports::BoxFuture;
use crate::ports::store::{Lookup, ReadError};
use crate::store::backend::backend_error;
use crate::store::rows::{self, ReadRows, RowError};

/// Threads of a pool. Two keep a disk busy without taking the cores.
const THREADS: usize = 2;

/// Reads that may wait for them. One more is refused: whoever waits longer has gone away.
const QUEUE_MAX: usize = 4_096;

/// Memory for transactions that are kept ready, in bytes; about twenty thousand small orders.
const CACHE_BYTES: u64 = 64 << 20;

/// Transactions that the cache expects to hold; it only sizes its tables.
const CACHE_ITEMS: usize = 20_000;

/// Memory of a transaction beside its facts and lines, of a fact, and of a line, in bytes: what
/// the types hold, and about as much again on the heap.
const TRANSACTION_BYTES: u64 = 700;
const FACT_BYTES: u64 = 400;
const LINE_BYTES: u64 = 100;

type Job = Box<dyn FnOnce() + Send>;

/// Opens views of the tables.
#[derive(Clone)]
pub(super) struct Views {
    pub(super) env: Env<WithoutTls>,
    pub(super) tables: Tables,
}

impl Views {
    /// Runs a read over one consistent view, on the caller's thread.
    pub(super) fn read<T>(
        &self,
        read: impl FnOnce(&dyn ReadRows) -> Result<T, RowError>,
    ) -> Result<T, ReadError> {
        let txn = self.env.read_txn().map_err(|e| ReadError::from(backend_error(e)))?;
        read(&Reading { tables: &self.tables, txn: &txn }).map_err(ReadError::from)
    }
}

/// Transactions as they were last read, shared with the writer.
#[derive(Clone)]
pub(super) struct HotTransactions(Arc<Cache<TransactionId, Lookup, Bytes>>);

#[derive(Clone)]
struct Bytes;

impl Weighter<TransactionId, Lookup> for Bytes {
    fn weight(&self, _: &TransactionId, lookup: &Lookup) -> u64 {
        let (facts, lines) = match lookup {
            Lookup::Live(transaction) => match &transaction.command {
                Command::Order(order) => (transaction.facts.len(), order.lines.len()),
                Command::Move(_) | Command::Cancellation(_) | Command::Manifest(_) => {
                    (transaction.facts.len(), 0)
                }
            },
            Lookup::Expired(_) => (0, 0),
        };
        TRANSACTION_BYTES + FACT_BYTES * facts as u64 + LINE_BYTES * lines as u64
    }
}

impl HotTransactions {
    pub(super) fn new() -> HotTransactions {
        HotTransactions(Arc::new(Cache::with_weighter(CACHE_ITEMS, CACHE_BYTES, Bytes)))
    }

    /// Drops what a commit has changed. Call it after the commit and before it is answered.
    pub(super) fn forget(&self, changed: &[TransactionId]) {
        for id in changed {
            self.0.remove(id);
        }
    }

    /// Reads a transaction and keeps it; several callers for one id share one read.
    fn fill(
        &self,
        id: TransactionId,
        read: impl FnOnce() -> Result<Option<Lookup>, ReadError>,
    ) -> Result<Option<Lookup>, ReadError> {
        match self.0.get_value_or_guard(&id, None) {
            GuardResult::Value(lookup) => Ok(Some(lookup)),
            GuardResult::Guard(place) => {
                let lookup = read()?;
                if let Some(lookup) = &lookup {
                    // A place that a commit has taken away since is gone, and the value with it.
                    drop(place.insert(lookup.clone()));
                }
                Ok(lookup)
            }
            // Without a bound there is no timeout.
            GuardResult::Timeout => read(),
        }
    }
}

/// Threads that read what is not ready. Callers and owners have a pool each: however much is read
/// from outside, a turn does not wait for it and is not refused. They end when the store is dropped.
pub(super) struct ReadPool {
    queue: Option<SyncSender<Job>>,
    threads: Vec<JoinHandle<()>>,
    views: Views,
    hot: HotTransactions,
}

/// No thread was free to take a read in hand.
#[derive(Debug, thiserror::Error)]
#[error("the store takes no more reads now")]
struct ReadsFull;

/// A read ended without an answer.
#[derive(Debug, thiserror::Error)]
#[error("a read of the store ended without an answer")]
struct NoAnswer;

impl ReadPool {
    /// Starts the threads.
    ///
    /// Each begins with `begin`.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub(super) fn start(views: Views, hot: HotTransactions, begin: fn()) -> std::io::Result<ReadPool> {
        let (queue, jobs) = sync_channel::<Job>(QUEUE_MAX);
        let jobs = Arc::new(Mutex::new(jobs));
        let start = |_| {
            let jobs = Arc::clone(&jobs);
            std::thread::Builder::new().name("store-reader".to_owned()).spawn(move || {
                begin();
                work(&jobs);
            })
        };
        let threads = (0..THREADS).map(start).collect::<std::io::Result<_>>()?;
        Ok(ReadPool { queue: Some(queue), threads, views, hot })
    }

    /// Runs a read on one of the threads.
    pub(super) fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Views, &HotTransactions) -> Result<T, ReadError> + Send + 'static,
    ) -> BoxFuture<Result<T, ReadError>> {
        let (answer, result) = oneshot::channel();
        let (views, hot) = (self.views.clone(), self.hot.clone());
        let job: Job = Box::new(move || {
            // Whoever asked may have gone.
            drop(answer.send(read(&views, &hot)));
        });
        if self.queue.as_ref().is_none_or(|queue| queue.try_send(job).is_err()) {
            return Box::pin(ready(Err(ReadError::Unavailable(Arc::new(ReadsFull)))));
        }
        Box::pin(
            async move { result.await.unwrap_or_else(|_| Err(ReadError::Unavailable(Arc::new(NoAnswer)))) },
        )
    }

    /// One transaction: what is ready at once, or read by one of the threads and then kept.
    pub(super) fn transaction(&self, id: TransactionId) -> BoxFuture<Result<Option<Lookup>, ReadError>> {
        match self.hot.0.get(&id) {
            Some(lookup) => Box::pin(ready(Ok(Some(lookup)))),
            None => self.read(move |views, hot| {
                #[cfg(feature = "testing")]
                super::damage::slow_disk();
                hot.fill(id, || views.read(|r| rows::transaction(r, id)))
            }),
        }
    }
}

impl Drop for ReadPool {
    /// Ends the threads, so that nothing keeps the directory open behind its owner's back.
    fn drop(&mut self) {
        drop(self.queue.take());
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

fn work(jobs: &Mutex<Receiver<Job>>) {
    loop {
        // Held only while waiting for a job; the other thread takes the next one meanwhile.
        let job = jobs.lock().recv();
        let Ok(job) = job else { return };
        // A panic takes its own answer along and nobody else's.
        if catch_unwind(AssertUnwindSafe(job)).is_err() {
            tracing::error!("a read of the store panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::command::Kind;
    use crate::domain::ids::ClientNo;
    use crate::domain::time::Timestamp;
    use crate::ports::store::Tombstone;
    use crate::store::contract::id;

    fn lookup() -> Lookup {
        Lookup::Expired(Arc::new(Tombstone {
            id: id(1),
            client: ClientNo(1),
            digest: [0; 32],
            kind: Kind::Order,
            reference: "r1".parse().unwrap(),
            accepted_at: Timestamp(1),
            correlation: "c".parse().unwrap(),
        }))
    }

    #[test]
    fn what_a_commit_changed_is_not_kept_nor_is_a_read_that_the_commit_overtook() {
        let hot = HotTransactions::new();
        hot.fill(id(1), || Ok(Some(lookup()))).unwrap();
        assert!(hot.0.get(&id(1)).is_some(), "nothing came between");
        hot.forget(&[id(1)]);
        assert!(hot.0.get(&id(1)).is_none());
        let overtaken = || {
            hot.forget(&[id(1)]);
            Ok(Some(lookup()))
        };
        hot.fill(id(1), overtaken).unwrap();
        assert!(hot.0.get(&id(1)).is_none(), "it was read before the commit");
    }
}
