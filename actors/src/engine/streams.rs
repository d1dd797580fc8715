//! The door to the feeds: pages of rendered events, and readers that follow a feed or one
//! transaction from a place on, without a hole and without a repeat.
//!
//! A reader holds a page at most, of bounded bytes; what it has not been asked for stays in the store.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::Handle;
pub use crate::actors::bell::Listener;
use crate::actors::events::{self, Event};
use crate::actors::feed_hub::{FeedHub, Follow, Tail};
use crate::actors::gate::{AskError, Door};
use crate::domain::command::Kind;
use crate::domain::ids::{ClientNo, TransactionId};
use crate::domain::promise::ToldEstimate;
use crate::ports::store::{FeedBounds, FeedEntry, Lookup, Points, ReadError, StoredTransaction};
use crate::ports::turns::{turn_of, unbroken};
use crate::wire::cursor::Cursor;
use crate::wire::status;

/// Followers that may ask the FeedHub at once.
const FEED_HUB_GATE: usize = 2_048;
/// Events that a reader fetches at once.
const PAGE: usize = 64;
/// Events of one transaction that are fetched at once: each shows its whole history.
const TRANSACTION_PAGE: usize = 16;
/// Bytes after which a page ends early: it is held for as long as its stream does not read.
const PAGE_BYTES: usize = 256 << 10;
/// Reads that may fail in a row before a reader gives up and its caller must come again.
const TRIES_MAX: u32 = 8;
/// The pause after one.
const RETRY: Duration = Duration::from_millis(250);
/// How often a transaction without a feed is looked at when nobody wakes its reader.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What a reader comes to next.
#[derive(Clone, Debug)]
pub enum Next {
    /// An event.
    Event(Arc<Event>),
    /// Entries between the last event and this sequence were evicted before they were read.
    Gap {
        /// The oldest that is kept.
        oldest: u64,
    },
    /// Nothing follows: the transaction is done, and all of its events were given.
    End,
    /// It fell too far behind, or cannot read: whoever follows must come again with a cursor.
    Cut,
}

impl Handle {
    /// A client's events after a sequence, rendered, of at most `limit` entries of its feed; and the
    /// sequence of the last of these entries, which is further than the last event where one could not
    /// be rendered. They end with their turn: whoever asks with its last cursor is told of the gap.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn events(
        &self,
        client: ClientNo,
        after: u64,
        limit: usize,
    ) -> Result<(Vec<Arc<Event>>, u64), ReadError> {
        let mut entries = self.store().feed(client, after, limit).await?;
        let follows =
            |first: &FeedEntry| first.sequence == after + 1 || turn_of(first.sequence) == turn_of(after);
        entries.truncate(if entries.first().is_some_and(follows) { unbroken(&entries) } else { 0 });
        let last = entries.last().map_or(after, |entry| entry.sequence);
        Ok((events::page(&self.0.node, client, entries).await?, last))
    }

    /// All events of a transaction in their order, each with its place: the sequence in its client's
    /// feed, and for one that belongs to no client [`Cursor::version_of`].
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn places_of(&self, of: &StoredTransaction) -> Result<Vec<Place>, ReadError> {
        let sequences = self.store().sequences(of.id).await?;
        let place = |(version, sequence): (u32, Option<u64>)| {
            let (points, sequence) = (Points::Version(version), sequence.unwrap_or(0));
            match of.client {
                ClientNo::HOUSE => Place { points, at: Cursor::version_of(of.id, version), sequence: 0 },
                _ => Place { points, at: sequence, sequence },
            }
        };
        let mut places: Vec<Place> = (1..).zip(sequences).map(place).collect();
        if of.command.kind() == Kind::Order {
            let told = self.store().estimates(of.id).await?.into_iter();
            places.extend(told.map(|ToldEstimate { sequence, version, .. }| Place {
                points: Points::Estimate(version),
                at: sequence,
                sequence,
            }));
            places.sort_by_key(|place| place.at);
        }
        Ok(places)
    }

    /// One event of a transaction; `None` when it cannot be rendered.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn event_at(
        &self,
        of: &StoredTransaction,
        place: Place,
    ) -> Result<Option<Arc<Event>>, ReadError> {
        let entry = FeedEntry { sequence: place.sequence, id: of.id, version: place.points.number() };
        match of.client {
            // Not cached: the house's have no number to keep them by.
            ClientNo::HOUSE => {
                let event = events::event_with(&self.0.node, of.client, entry, |_| Default::default());
                Ok(event.await?.map(Arc::new))
            }
            client => events::event(&self.0.node, client, entry).await,
        }
    }

    /// Where a feed begins and ends.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn feed_bounds(&self, client: ClientNo) -> Result<FeedBounds, ReadError> {
        self.store().feed_bounds(client).await
    }

    /// The place in a client's feed as a reader is given it.
    #[must_use]
    pub fn cursor(&self, client: ClientNo, sequence: u64) -> Cursor {
        Cursor { epoch: self.0.node.feed_epoch, client, sequence, ended: false }
    }

    /// Follows a client's feed after a sequence.
    #[must_use]
    pub fn follow(&self, client: ClientNo, after: u64) -> FeedReader {
        FeedReader { engine: self.clone(), client, read_to: after, page: VecDeque::new(), tail: None }
    }

    /// Follows one transaction's events that stand after a place ([`Handle::places_of`]); 0: from its
    /// first.
    #[must_use]
    pub fn follow_transaction(&self, id: TransactionId, client: ClientNo, after: u64) -> TransactionReader {
        TransactionReader { engine: self.clone(), id, client, after, state: Step::Begin }
    }

    /// Listens to a feed: it is rung when the feed has grown. Listen first, then read.
    #[must_use]
    pub fn listen(&self, client: ClientNo) -> Listener {
        self.0.node.bell.listen(client)
    }

    /// Begins to follow; `None` when the hub is too busy for too long.
    async fn tail(&self, client: ClientNo, after: u64) -> Option<Tail> {
        for _ in 0..TRIES_MAX {
            match self.feed_hub().ask(Follow { client, after }).await {
                Ok(tail) => return Some(tail),
                // Many come again at once after a restart; a dead one has a successor by then.
                Err(AskError::Refused | AskError::Gone) => tokio::time::sleep(RETRY).await,
            }
        }
        None
    }

    /// The FeedHub; a dead one is replaced by the next who asks for it.
    fn feed_hub(&self) -> Door<FeedHub> {
        let mut hub = self.0.feed_hub.lock();
        if let Some(door) = hub.as_ref().filter(|door| door.addr().connected()) {
            return door.clone();
        }
        let node = self.0.node.clone();
        // Away from the first arbiter, where the House is, if there is another.
        let home = &self.0.homes[self.0.homes.len() - 1];
        let addr = home.start(move |ctx| {
            ctx.set_mailbox_capacity(FEED_HUB_GATE);
            FeedHub::new(node)
        });
        let door = Door::new(addr, FEED_HUB_GATE, &self.0.node.feed_hub);
        hub.insert(door).clone()
    }
}

/// Where an event of a transaction stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its version, or an estimate beside one.
    pub points: Points,
    /// What its cursor says.
    pub at: u64,
    /// In its client's feed; 0 when it has none.
    pub sequence: u64,
}

/// Runs a read that may fail for a while; `None` when it goes on failing.
async fn patiently<T, F: Future<Output = Result<T, ReadError>>>(mut read: impl FnMut() -> F) -> Option<T> {
    for _ in 0..TRIES_MAX {
        match read().await {
            Ok(value) => return Some(value),
            Err(why) => tracing::debug!(%why, "a feed cannot be read and is tried again"),
        }
        tokio::time::sleep(RETRY).await;
    }
    None
}

/// Follows a feed: first what is stored, then what comes.
pub struct FeedReader {
    engine: Handle,
    client: ClientNo,
    /// The last sequence that was fetched, rendered or not.
    read_to: u64,
    page: VecDeque<Arc<Event>>,
    tail: Option<Tail>,
}

impl FeedReader {
    /// Waits for what comes next. May be dropped while it waits, and called again.
    pub async fn next(&mut self) -> Next {
        loop {
            if let Some(event) = self.page.pop_front() {
                return Next::Event(event);
            }
            let behind = self.tail.as_ref().is_none_or(|tail| self.read_to < tail.after);
            if behind {
                // Apart, so that who only waits does not carry what this needs.
                if let Some(next) = Box::pin(self.catch_up()).await {
                    return next;
                }
                continue;
            }
            let Some(tail) = &mut self.tail else { continue };
            match tail.events.next().await {
                // Fetched before it was sent.
                Some(event) if event.sequence <= self.read_to => {}
                Some(event) => {
                    self.read_to = event.sequence;
                    return Next::Event(event);
                }
                None => return Next::Cut,
            }
        }
    }

    /// Fetches a page, and begins to follow once it is the last.
    async fn catch_up(&mut self) -> Option<Next> {
        let (engine, client, after) = (self.engine.clone(), self.client, self.read_to);
        let Some(entries) = patiently(|| engine.store().feed(client, after, PAGE)).await else {
            return Some(Next::Cut);
        };
        let next = match entries.first() {
            Some(first) => first.sequence,
            // By what is kept first, not by what comes next: more may have come since the look.
            None => match patiently(|| engine.feed_bounds(client)).await {
                Some(bounds) => bounds.first.max(after + 1),
                None => return Some(Next::Cut),
            },
        };
        if next != after + 1 {
            self.read_to = next - 1;
            return Some(Next::Gap { oldest: next });
        }
        let (mut page, mut bytes, mut read_to) = (VecDeque::new(), 0, after);
        for entry in entries.iter().take(unbroken(&entries)) {
            if bytes >= PAGE_BYTES {
                break;
            }
            let Some(event) = patiently(|| events::event(&engine.0.node, client, *entry)).await else {
                return Some(Next::Cut);
            };
            bytes += event.as_ref().map_or(0, |event| event.bytes());
            page.extend(event);
            read_to = entry.sequence;
        }
        let is_whole = entries.last().is_none_or(|last| last.sequence == read_to);
        if self.tail.is_none() && entries.len() < PAGE && is_whole {
            match engine.tail(client, read_to).await {
                Some(tail) => self.tail = Some(tail),
                None => return Some(Next::Cut),
            }
        }
        (self.page, self.read_to) = (page, read_to);
        None
    }
}

/// Follows one transaction.
pub struct TransactionReader {
    engine: Handle,
    id: TransactionId,
    client: ClientNo,
    /// The place of the last event that was fetched, rendered or not.
    after: u64,
    state: Step,
}

enum Step {
    /// Nothing was fetched yet.
    Begin,
    /// Events to give, and what follows behind them.
    Given(VecDeque<Arc<Event>>, Behind),
}

enum Behind {
    /// It is done.
    End,
    /// More is there; then what comes by the feed. None: it has no feed.
    More(Option<Tail>),
    /// What comes by the feed.
    Tail(Tail),
    /// It has no feed: more is found by looking.
    Look,
}

/// What was found of a transaction's events.
struct Newer {
    events: VecDeque<Arc<Event>>,
    /// The place of the last that was looked at.
    to: u64,
    /// True when there are more of them.
    more: bool,
    /// True when nothing can follow these.
    done: bool,
}

impl TransactionReader {
    /// Waits for what comes next. May be dropped while it waits, and called again.
    pub async fn next(&mut self) -> Next {
        loop {
            if let Step::Given(events, behind) = &mut self.state {
                if let Some(event) = events.pop_front() {
                    return Next::Event(event);
                }
                match behind {
                    Behind::End => return Next::End,
                    Behind::Tail(tail) => match tail.events.next().await {
                        Some(event) if event.transaction != self.id || event.sequence <= self.after => {
                            continue;
                        }
                        Some(event) => {
                            self.after = event.sequence;
                            if event.state.is_final() {
                                *behind = Behind::End;
                            }
                            return Next::Event(event);
                        }
                        None => return Next::Cut,
                    },
                    Behind::More(_) | Behind::Look => {}
                }
            }
            // Apart, so that who only waits does not carry what this needs.
            if !Box::pin(self.fetch()).await {
                return Next::Cut;
            }
        }
    }

    /// Fetches what there is, and waits for it where nothing else does. False when it cannot be read.
    ///
    /// It begins to follow before it looks: what comes in between is in both, and is told by its place.
    async fn fetch(&mut self) -> bool {
        if let Step::Begin = self.state {
            let tail = match self.client {
                ClientNo::HOUSE => None,
                client => {
                    let engine = self.engine.clone();
                    let Some(bounds) = patiently(|| engine.feed_bounds(client)).await else { return false };
                    let Some(tail) = engine.tail(client, bounds.next - 1).await else { return false };
                    Some(tail)
                }
            };
            self.state = Step::Given(VecDeque::new(), Behind::More(tail));
        }
        // First the place among those who are woken, then the look: no change falls between.
        let waiter = self.engine.0.node.waiters.register(self.id);
        let Some(Newer { events, to, more, done }) = self.newer().await else { return false };
        let Step::Given(given, behind) = &mut self.state else { return false };
        let nothing = events.is_empty() && !more && !done;
        (*given, self.after) = (events, to);
        if more {
            return true;
        }
        *behind = match std::mem::replace(behind, Behind::Look) {
            _ if done => Behind::End,
            Behind::More(Some(tail)) | Behind::Tail(tail) => Behind::Tail(tail),
            Behind::More(None) | Behind::Look | Behind::End => Behind::Look,
        };
        if nothing && matches!(behind, Behind::Look) {
            match waiter {
                Some(mut waiter) => {
                    let _looked = tokio::time::timeout(LOOK_EVERY * 5, waiter.changed()).await;
                }
                None => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
        true
    }

    /// The events after the last that was fetched: a page of them.
    async fn newer(&self) -> Option<Newer> {
        let (engine, id) = (&self.engine, self.id);
        let stored = match patiently(|| engine.store().transaction(id)).await? {
            Some(Lookup::Live(stored)) => stored,
            Some(Lookup::Expired(_)) | None => {
                return Some(Newer { events: VecDeque::new(), to: self.after, more: false, done: true });
            }
        };
        let places = patiently(|| engine.places_of(&stored)).await?;
        // What is remembered of the transaction may be a moment behind its events, and what comes by the
        // feed begins behind those: none must fall between.
        let newest = places.last().map_or(0, |place| place.points.version());
        let caught_up = match newest > stored.version() {
            true => patiently(|| events::transaction_at(&engine.0.node, id, newest)).await?,
            false => None,
        };
        let stored = match caught_up {
            Some(Lookup::Live(stored)) => stored,
            Some(Lookup::Expired(_)) | None => stored,
        };
        // What came in between is for the next look.
        let left = places.iter().filter(|p| p.points.version() <= stored.version() && p.at > self.after);
        let mut left = left.peekable();
        let (mut events, mut bytes, mut to) = (VecDeque::new(), 0, self.after);
        while events.len() < TRANSACTION_PAGE && bytes < PAGE_BYTES {
            let Some(place) = left.next() else { break };
            let event = patiently(|| engine.event_at(&stored, *place)).await?;
            bytes += event.as_ref().map_or(0, |event| event.bytes());
            events.extend(event);
            to = place.at;
        }
        let more = left.peek().is_some();
        let done = !more && status::state_of(stored.id, &stored.command, &stored.facts).is_final();
        Some(Newer { events, to, more, done })
    }
}
