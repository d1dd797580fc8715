//! Readers of the world's feeds. Whatever dies and however often they are cut, each is given every
//! event of its client once, by number, and knows at rest all that the disk knows: INV-5.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::World;
use super::disk::at_once;
use crate::domain::ids::{ClientNo, PartitionId};
use crate::domain::stock::StockKey;
use crate::engine::{Event, Handle, Next};
use crate::ports::entropy::Entropy;
use crate::ports::store::{FeedEntry, Fence, Points, Store};
use crate::wire::event::{estimate_id, event_id};

/// A reader loses its connection after one event in this many.
const CUT_ONE_IN: u64 = 25;
/// A reader that was not told looks by itself every five seconds; one that was cut comes again.
const REST_WITHIN: Duration = Duration::from_secs(60);
/// The pause before a reader that was cut comes again.
const AGAIN: Duration = Duration::from_millis(200);

/// What the readers have seen, through all lives of the node.
#[derive(Default)]
pub(crate) struct Followers {
    /// The last number by client.
    seen: Mutex<BTreeMap<ClientNo, u64>>,
}

impl Followers {
    /// Begins to follow every client's feed on this node, until its life is over.
    pub(crate) fn begin(world: &Arc<World>, handle: &Handle) {
        for client in [1, 2].map(ClientNo) {
            // It ends with the life, whose `LocalSet` it lives on.
            let _until_the_end = tokio::task::spawn_local(follow(world.clone(), handle.clone(), client));
        }
    }

    fn seen(&self, client: ClientNo) -> u64 {
        self.seen.lock().get(&client).copied().unwrap_or(0)
    }

    fn take(&self, world: &World, client: ClientNo, event: &Event) {
        let before = self.seen(client);
        let entry = at_once(world.disk.feed(client, before, 1)).unwrap_or_default().first().copied();
        let named = entry.is_some_and(|entry| is_named(&entry, &event.id));
        let stored = entry.map(|entry| (entry.sequence, entry.id, entry.points().version()));
        let given = (event.sequence, event.transaction, event.version);
        // Events of what a planted bug has spoiled are left aside.
        let spoiled = world.profile.planted.is_some() && event.sequence > before;
        if (stored != Some(given) || !named) && !spoiled {
            let found =
                format!("after {before} a reader of {client:?} is given {} {}", event.sequence, event.id);
            world.violated("INV-5", format!("{found}, the disk has {stored:?}"));
        }
        world.note(format_args!("a reader of {client:?} has event {}", event.sequence));
        self.seen.lock().insert(client, event.sequence);
    }

    /// Waits until all readers have everything, for as long as that may take them.
    pub(crate) async fn rest(&self, world: &World) {
        let until = tokio::time::Instant::now() + REST_WITHIN;
        while !(untold(world).is_empty() && self.left(world).is_empty())
            && tokio::time::Instant::now() < until
        {
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// At rest nothing is left to be read, nor to be told.
    pub(crate) fn judge(&self, world: &World) {
        for (partition, (client, sku)) in untold(world) {
            let found = format!("at rest {client:?} was not told of {sku} in {partition:?}");
            world.violated("INV-5", found);
        }
        for (client, seen, next) in self.left(world) {
            let found = format!("a reader of {client:?} has {seen} events at rest, next is {next}");
            world.violated("INV-5", found);
        }
    }

    /// Readers that do not have everything: whose, their last number, and the next of their feed.
    fn left(&self, world: &World) -> Vec<(ClientNo, u64, u64)> {
        let of = |client| {
            let next = at_once(world.disk.feed_bounds(client)).map_or(0, |bounds| bounds.next);
            (client, self.seen(client), next)
        };
        let all = [1, 2].map(|client| of(ClientNo(client)));
        all.into_iter().filter(|(_, seen, next)| seen + 1 != *next).collect()
    }
}

/// Positions that have changed since their feed told of them.
fn untold(world: &World) -> Vec<(PartitionId, StockKey)> {
    let homes = (1..=world.profile.warehouses).map(PartitionId);
    // It reads for whoever names a partition.
    let image = |partition| at_once(world.disk.load(Fence { partition, epoch: 0, nonce: 0 }));
    let untold = |home| image(home).unwrap_or_default().untold.into_iter().map(move |key| (home, key));
    homes.flat_map(untold).collect()
}

/// Whether the id of an entry's event is its own: one of a version is named by it, one of an estimate by
/// that and its place in the feed, one of stock by its place alone, one about an endpoint by its own id.
pub(crate) fn is_named(entry: &FeedEntry, id: &str) -> bool {
    match entry.points() {
        Points::Announcement => {
            id == entry.id.to_string() || id.ends_with(&format!(".{:020}", entry.sequence))
        }
        Points::Version(version) => id == event_id(entry.id, version),
        Points::Estimate(version) => id == estimate_id(entry.id, version, entry.sequence),
    }
}

async fn follow(world: Arc<World>, handle: Handle, client: ClientNo) {
    loop {
        let mut reader = handle.follow(client, world.followers.seen(client));
        loop {
            match reader.next().await {
                Next::Event(event) => {
                    world.followers.take(&world, client, &event);
                    if world.chance.below(CUT_ONE_IN) == 0 {
                        break;
                    }
                }
                Next::Cut => break,
                Next::Gap { oldest } => {
                    world.violated(
                        "INV-5",
                        format!("nothing is evicted, and {client:?} has a gap to {oldest}"),
                    );
                }
                Next::End => world.violated("INV-5", format!("the feed of {client:?} has an end")),
            }
        }
        world.observer.saw("readers cut");
        tokio::time::sleep(AGAIN).await;
    }
}
