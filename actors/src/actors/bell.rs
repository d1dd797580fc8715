//! Tells readers of feeds that there is more. Ringing costs one look at a counter while nobody
//! listens, so that whoever commits events can ring for all of them.
//!
//! A ring may be lost with the actor that died between its commit and the ring, and it survives no
//! restart; so a reader looks by itself now and then too. It must never carry an event.

use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use tokio::sync::Notify;

use crate::domain::ids::ClientNo;

/// The node's bell, with one clapper a feed that somebody listens to.
#[derive(Debug, Default)]
pub(crate) struct Bell(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    listeners: AtomicUsize,
    /// In order, so that all are rung in the same one every time.
    feeds: RwLock<BTreeMap<ClientNo, Arc<Clapper>>>,
}

/// One feed's. Listeners are woken in the order in which they began to wait: a `watch` wakes them in
/// no order, and a world would not be the same from the same seed.
#[derive(Debug, Default)]
struct Clapper {
    rings: AtomicU64,
    waiting: Notify,
    /// Changed under the lock of the feeds.
    listeners: AtomicUsize,
}

/// A listener's place; given back when dropped.
#[derive(Debug)]
pub struct Listener {
    bell: Arc<Inner>,
    client: ClientNo,
    clapper: Arc<Clapper>,
    /// Rings that it has heard.
    heard: u64,
}

impl Bell {
    /// Says that a client's feed has grown. Call it when the entries are durable.
    pub(crate) fn ring(&self, client: ClientNo) {
        // Ordered after the commit, as the listener's count is ordered before its first read.
        if self.0.listeners.load(SeqCst) == 0 {
            return;
        }
        if let Some(feed) = self.0.feeds.read().get(&client) {
            feed.rings.fetch_add(1, SeqCst);
            feed.waiting.notify_waiters();
        }
    }

    /// Says that any feed may have grown.
    pub(crate) fn ring_all(&self) {
        for feed in self.0.feeds.read().values() {
            feed.rings.fetch_add(1, SeqCst);
            feed.waiting.notify_waiters();
        }
    }

    /// Listens to a feed. In this order nothing is missed: listen, read, [`Listener::heard`], read …
    pub(crate) fn listen(&self, client: ClientNo) -> Listener {
        self.0.listeners.fetch_add(1, SeqCst);
        let mut feeds = self.0.feeds.write();
        let clapper = feeds.entry(client).or_default().clone();
        clapper.listeners.fetch_add(1, SeqCst);
        let heard = clapper.rings.load(SeqCst);
        Listener { bell: self.0.clone(), client, clapper, heard }
    }
}

impl Listener {
    /// Resolves when the bell was rung since the last time, or since it began to listen. Many rings
    /// are heard as one. May be dropped and called again.
    pub async fn heard(&mut self) {
        let rung = self.clapper.waiting.notified();
        tokio::pin!(rung);
        // From here on a ring wakes it, so that none falls between the look and the wait.
        rung.as_mut().enable();
        if self.clapper.rings.load(SeqCst) == self.heard {
            rung.await;
        }
        self.heard = self.clapper.rings.load(SeqCst);
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut feeds = self.bell.feeds.write();
        if self.clapper.listeners.fetch_sub(1, SeqCst) == 1 {
            feeds.remove(&self.client);
        }
        drop(feeds);
        self.bell.listeners.fetch_sub(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn a_ring_between_listening_and_waiting_is_heard_and_only_by_its_feed() {
        let bell = Bell::default();
        bell.ring(ClientNo(1));
        let (mut one, mut two) = (bell.listen(ClientNo(1)), bell.listen(ClientNo(2)));
        assert_eq!(one.heard().now_or_never(), None);
        bell.ring(ClientNo(1));
        bell.ring(ClientNo(1));
        assert_eq!(one.heard().now_or_never(), Some(()));
        assert_eq!(one.heard().now_or_never(), None);
        assert_eq!(two.heard().now_or_never(), None);
    }

    #[test]
    fn the_last_listener_leaves_nothing_behind() {
        let bell = Bell::default();
        let (one, mut other) = (bell.listen(ClientNo(1)), bell.listen(ClientNo(1)));
        drop(one);
        bell.ring(ClientNo(1));
        assert_eq!(other.heard().now_or_never(), Some(()));
        drop(other);
        assert!(bell.0.feeds.read().is_empty());
        assert_eq!(bell.0.listeners.load(SeqCst), 0);
    }
}
