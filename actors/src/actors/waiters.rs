//! Callers that wait for a transaction to change. No actor and no thread is held by one.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tokio::sync::oneshot;

use crate::domain::ids::TransactionId;

/// Fewer shards would make commits wait for callers; more would be memory for nothing.
const SHARDS: usize = 16;

/// The node's map of waiting callers, bounded.
#[derive(Debug)]
pub(crate) struct Waiters {
    shards: [Mutex<HashMap<TransactionId, Vec<oneshot::Sender<()>>>>; SHARDS],
    count: Arc<AtomicUsize>,
    max: usize,
}

/// A caller's place; given back when dropped.
pub(crate) struct Waiter {
    woken: oneshot::Receiver<()>,
    count: Arc<AtomicUsize>,
}

impl Waiters {
    /// Room for `max` callers at a time.
    pub(crate) fn new(max: usize) -> Waiters {
        Waiters { shards: Default::default(), count: Arc::new(AtomicUsize::new(0)), max }
    }

    /// Takes a place before the caller reads, so that no change falls between; `None` when full.
    pub(crate) fn register(&self, id: TransactionId) -> Option<Waiter> {
        let room = |count: usize| (count < self.max).then_some(count + 1);
        self.count.fetch_update(Relaxed, Relaxed, room).ok()?;
        let (wake, woken) = oneshot::channel();
        let waiter = Waiter { woken, count: self.count.clone() };
        let mut shard = self.shard(id).lock();
        let waiting = shard.entry(id).or_default();
        // Callers that gave up leave their senders behind until the next one comes.
        waiting.retain(|w| !w.is_closed());
        waiting.push(wake);
        Some(waiter)
    }

    /// Wakes all that wait for a transaction; each looks and may wait again.
    pub(crate) fn wake(&self, id: TransactionId) {
        for waiter in self.shard(id).lock().remove(&id).unwrap_or_default() {
            // A caller that gave up meanwhile is no loss.
            let _gone = waiter.send(());
        }
    }

    /// How many callers wait, and how many may.
    pub(crate) fn load(&self) -> (usize, usize) {
        (self.count.load(Relaxed), self.max)
    }

    /// Wakes everybody: the node ends.
    pub(crate) fn wake_all(&self) {
        for shard in &self.shards {
            shard.lock().clear();
        }
    }

    /// Drops what callers left behind that gave up; called now and then.
    pub(crate) fn tidy(&self) {
        for shard in &self.shards {
            shard.lock().retain(|_, waiting| {
                waiting.retain(|w| !w.is_closed());
                !waiting.is_empty()
            });
        }
    }

    fn shard(&self, id: TransactionId) -> &Mutex<HashMap<TransactionId, Vec<oneshot::Sender<()>>>> {
        &self.shards[usize::from(id.0.as_bytes()[15]) % SHARDS]
    }
}

impl Waiter {
    /// Resolves when the transaction changed.
    pub(crate) async fn changed(&mut self) {
        // An error means that the map was dropped: the node ends, and looking again is right.
        let _ended = (&mut self.woken).await;
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Relaxed);
    }
}
