//! What the followers of one feed have still to read: shared, one copy for all, and bounded by number
//! and by bytes. It must never wait for a follower.
//!
//! A follower that falls behind by more is cut: what it has not read is overwritten (by number) or let
//! go of (by bytes), and it finds that out when it reads on. Nothing is lost, for the feed is in the
//! store and the follower comes again with its cursor. A ring of twice as many places would not do
//! instead: one event may be a hundred times as large as another.

use parking_lot::{Mutex, RwLock};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use tokio::sync::broadcast;

use super::events::Event;

/// Events that a follower may be behind. At the pace of a busy shop some seconds; what nobody is
/// behind with is not kept.
const EVENTS_MAX: usize = 2_048;

/// What a feed's reader sends into.
pub(crate) struct Ring {
    places: broadcast::Sender<Arc<Place>>,
    /// Places that somebody may still read, the oldest first.
    owed: Mutex<VecDeque<Weak<Place>>>,
    /// Of the events in them.
    bytes: Arc<AtomicUsize>,
    bytes_max: usize,
}

/// An event until all followers have read it, or it is let go of.
struct Place {
    event: RwLock<Option<Arc<Event>>>,
    bytes: usize,
    all: Arc<AtomicUsize>,
}

impl Place {
    fn let_go(&self) {
        if self.event.write().take().is_some() {
            self.all.fetch_sub(self.bytes, Relaxed);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.let_go();
    }
}

impl Ring {
    /// A ring that keeps at most this much for the slowest of its followers, and one event at least.
    pub(crate) fn new(bytes_max: usize) -> Ring {
        let (places, _) = broadcast::channel(EVENTS_MAX);
        Ring { places, owed: Mutex::default(), bytes: Arc::default(), bytes_max }
    }

    /// Hands an event to all who follow.
    pub(crate) fn send(&self, event: Arc<Event>) {
        let bytes = event.bytes();
        self.bytes.fetch_add(bytes, Relaxed);
        let place = Place { event: RwLock::new(Some(event)), bytes, all: self.bytes.clone() };
        let place = Arc::new(place);
        let mut owed = self.owed.lock();
        owed.push_back(Arc::downgrade(&place));
        // Without a follower it goes to nobody.
        let _nobody = self.places.send(place);
        // What all have read is gone by itself, and stands before what somebody has not.
        while owed.front().is_some_and(|place| place.strong_count() == 0) {
            owed.pop_front();
        }
        while self.bytes.load(Relaxed) > self.bytes_max && owed.len() > 1 {
            if let Some(oldest) = owed.pop_front().and_then(|place| place.upgrade()) {
                oldest.let_go();
            }
        }
    }

    /// Follows from here on.
    pub(crate) fn follow(&self) -> Follower {
        Follower(self.places.subscribe())
    }

    /// How many follow.
    pub(crate) fn followers(&self) -> usize {
        self.places.receiver_count()
    }
}

/// Who follows a feed.
pub(crate) struct Follower(broadcast::Receiver<Arc<Place>>);

impl Follower {
    /// Waits for the next event; `None`: it fell too far behind, or nobody sends any more. May be dropped
    /// while it waits, and called again.
    pub(crate) async fn next(&mut self) -> Option<Arc<Event>> {
        let place = self.0.recv().await.ok()?;
        place.event.read().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::events::tests::event;

    /// The numbers that a follower reads before it has to wait, and whether it is cut then.
    fn read(follower: &mut Follower) -> (Vec<u64>, bool) {
        let mut read = Vec::new();
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        loop {
            match std::pin::pin!(follower.next()).poll(&mut context) {
                std::task::Poll::Ready(Some(event)) => read.push(event.sequence),
                std::task::Poll::Ready(None) => return (read, true),
                std::task::Poll::Pending => return (read, false),
            }
        }
    }

    #[test]
    fn who_owes_more_bytes_than_the_ring_keeps_is_cut_and_who_reads_is_not() {
        let one = event(1, 100_000).bytes();
        let ring = Ring::new(5 * one);
        let (mut slow, mut quick) = (ring.follow(), ring.follow());
        for n in 1..=5 {
            ring.send(event(n, 100_000));
            assert_eq!(read(&mut quick), (vec![n], false));
        }
        assert_eq!(ring.bytes.load(Relaxed), 5 * one);
        let mut later = ring.follow();
        for n in 6..=50 {
            ring.send(event(n, 100_000));
            assert_eq!(read(&mut quick), (vec![n], false));
            assert!(ring.bytes.load(Relaxed) <= 5 * one, "what the slow one owes is bounded");
        }
        assert_eq!(read(&mut slow), (vec![], true), "it is told, and not given what comes after a hole");
        assert_eq!(read(&mut later), (vec![], true));
        drop((slow, later));
        ring.send(event(51, 100_000));
        assert_eq!(read(&mut quick), (vec![51], false));
        ring.send(event(52, 10));
        assert_eq!(ring.bytes.load(Relaxed), event(52, 10).bytes(), "what all have read is not kept");
        assert!(ring.owed.lock().len() <= 2, "nor counted");
    }

    #[test]
    fn who_is_behind_by_less_reads_all_of_it_and_one_event_is_always_kept() {
        let ring = Ring::new(1);
        let mut slow = ring.follow();
        ring.send(event(1, 100_000));
        assert_eq!(read(&mut slow), (vec![1], false), "however large it is");
        let ring = Ring::new(1 << 20);
        let mut slow = ring.follow();
        (1..=100).for_each(|n| ring.send(event(n, 1_000)));
        assert_eq!(read(&mut slow), ((1..=100).collect(), false));
        assert_eq!(ring.bytes.load(Relaxed), 0);
        (1..=3_000).for_each(|n| ring.send(event(n, 10)));
        assert_eq!(read(&mut slow), (vec![], true), "nor by more than its number");
    }
}
