//! Reads the feeds that somebody follows, renders each event once and hands it to all who follow:
//! one reader a feed, shared bytes, a bounded [`Ring`]. It must never wait for a follower.
//!
//! A follower that falls behind by more than the ring is told so and is cut; it comes again with its
//! cursor. When the hub dies the rings die with it: every follower is told, and the next one starts
//! a fresh hub. Nothing is lost by that, for the feed is in the store.

use actix::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use super::events::{self, Event};
use super::gate::Gated;
use super::report::Observed;
use super::ring::{Follower, Ring};
use super::site::Node;
use super::tripwire::Tripwire;
use crate::domain::ids::ClientNo;
use crate::ports::faults::FaultPoint;
use crate::ports::store::ReadError;
use crate::ports::turns::unbroken;

/// Entries read at once.
const PAGE: usize = 256;
/// How often a reader looks by itself: a ring of the bell dies with the actor that was to ring it.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The pause after a read that failed.
const RETRY: Duration = Duration::from_millis(250);

/// Follows a feed.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Tail")]
pub(crate) struct Follow {
    pub(crate) client: ClientNo,
    /// Where to begin when nobody follows this feed yet: a sequence that was given already, or 0.
    pub(crate) after: u64,
}

/// The events of a feed from a place on.
pub(crate) struct Tail {
    /// The sequence before the first event that comes.
    pub(crate) after: u64,
    /// The events.
    pub(crate) events: Follower,
}

/// A feed that is followed.
struct Feed {
    events: Ring,
    /// The last sequence that was read, whether or not it could be rendered. It is changed only with
    /// no await between that and the sending, on the actor's own thread, so who begins to follow sees
    /// both or neither.
    last: AtomicU64,
}

/// The actor.
pub(crate) struct FeedHub {
    node: Arc<Node>,
    feeds: BTreeMap<ClientNo, Arc<Feed>>,
    _tripwire: Tripwire,
}

impl FeedHub {
    pub(crate) fn new(node: Arc<Node>) -> FeedHub {
        let (vitals, clock) = (node.feed_hub.clone(), node.clock.clone());
        let tripwire = Tripwire::new(move |panicked| {
            // Otherwise the node ends.
            if panicked {
                vitals.died(panicked, clock.now());
            }
        });
        FeedHub { node, feeds: BTreeMap::new(), _tripwire: tripwire }
    }

    fn read(&self, client: ClientNo, feed: Arc<Feed>, ctx: &mut Context<Self>) {
        let reading = read(self.node.clone(), client, feed.clone());
        ctx.spawn(reading.into_actor(self).map(move |end, hub, ctx| match end {
            // Somebody came while the reader looked: it was in this very slice, so go on.
            End::Deserted if feed.events.followers() > 0 => hub.read(client, feed.clone(), ctx),
            End::Deserted | End::Gap => {
                hub.feeds.remove(&client);
                hub.show();
            }
        }));
    }

    fn show(&self) {
        let followers = self.feeds.values().map(|feed| feed.events.followers()).sum();
        self.node.feed_hub.show(Observed::FeedHub { feeds: self.feeds.len(), followers });
    }
}

/// Why a reader has ended.
enum End {
    /// Nobody follows any more.
    Deserted,
    /// Entries were evicted before they were read: followers are cut, and told of it when they come
    /// again.
    Gap,
}

/// Reads on for as long as somebody follows.
async fn read(node: Arc<Node>, client: ClientNo, feed: Arc<Feed>) -> End {
    let mut bell = node.bell.listen(client);
    loop {
        match page(&node, client, feed.last.load(SeqCst)).await {
            Ok(Some(Page { events, last, more })) => {
                let _handling = node.feed_hub.handle();
                node.faults.strike(FaultPoint::FeedHubReads, None);
                for event in events {
                    feed.events.send(event);
                }
                feed.last.store(last, SeqCst);
                if more {
                    continue;
                }
            }
            Ok(None) => return End::Gap,
            Err(why) => {
                tracing::warn!(%why, "a feed cannot be read and is tried again");
                tokio::time::sleep(RETRY).await;
                continue;
            }
        }
        if feed.events.followers() == 0 {
            return End::Deserted;
        }
        // At the end of the time it looks by itself.
        let _late = tokio::time::timeout(LOOK_EVERY, bell.heard()).await;
    }
}

struct Page {
    events: Vec<Arc<Event>>,
    /// The last sequence among its entries.
    last: u64,
    /// True when there may be more.
    more: bool,
}

/// The next page after a sequence; `None` when the entry that should be next is gone.
async fn page(node: &Node, client: ClientNo, after: u64) -> Result<Option<Page>, ReadError> {
    let mut entries = node.store.feed(client, after, PAGE).await?;
    if entries.first().is_some_and(|first| first.sequence != after + 1) {
        return Ok(None);
    }
    let found = entries.len();
    entries.truncate(unbroken(&entries));
    let last = entries.last().map_or(after, |entry| entry.sequence);
    let more = found >= PAGE || entries.len() < found;
    let events = events::page(node, client, entries).await?;
    Ok(Some(Page { events, last, more }))
}

impl Actor for FeedHub {
    type Context = Context<Self>;
}

impl Handler<Gated<Follow>> for FeedHub {
    type Result = MessageResult<Gated<Follow>>;

    fn handle(&mut self, gated: Gated<Follow>, ctx: &mut Self::Context) -> Self::Result {
        let _handling = self.node.feed_hub.handle();
        self.node.faults.strike(FaultPoint::FeedHub, None);
        let Gated { message: Follow { client, after }, permit: _permit } = gated;
        let tail = |feed: &Feed| Tail { after: feed.last.load(SeqCst), events: feed.events.follow() };
        let found = self.feeds.get(&client).map(|feed| tail(feed));
        let tail = found.unwrap_or_else(|| {
            let events = Ring::new(self.node.rules.stream_backlog_max);
            let feed = Arc::new(Feed { events, last: AtomicU64::new(after) });
            let tail = tail(&feed);
            self.feeds.insert(client, feed.clone());
            self.read(client, feed, ctx);
            tail
        });
        self.show();
        MessageResult(tail)
    }
}
