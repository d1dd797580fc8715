//! What one webhook endpoint is owed and what has arrived there, kept by the world itself. The
//! engine's cursors, rows and order are held against it: INV-5.

use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

use super::World;
use super::disk::at_once;
use super::receivers::ATTEMPTS;
use crate::domain::command::Kind;
use crate::domain::endpoint::{DeliveryMode, EndpointId};
use crate::domain::ids::{ClientNo, TransactionId};
use crate::ports::endpoints::EndpointStore;
use crate::ports::store::{FeedEntry, Points, Store};
use crate::store::keys::{self, Table};

/// Entries of the feed that are looked at together.
const PAGE: usize = 256;

/// Whose events an endpoint gets, which, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) client: ClientNo,
    pub(crate) mode: DeliveryMode,
    /// Of orders and nothing else.
    pub(crate) orders_only: bool,
}

/// What an event tells of its transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Tells {
    /// What has happened.
    What,
    /// When it will probably ship.
    When,
}

impl Tells {
    fn of(entry: FeedEntry) -> Tells {
        match entry.points() {
            Points::Announcement | Points::Version(_) => Tells::What,
            Points::Estimate(_) => Tells::When,
        }
    }
}

/// The books of one endpoint, from its creation to its end.
pub(crate) struct Inbox {
    pub(crate) id: EndpointId,
    pub(crate) wish: Wish,
    /// The feed was looked through up to here.
    read_to: u64,
    /// What must still arrive.
    owed: BTreeMap<u64, TransactionId>,
    /// The last wanted event of each transaction, and its last wanted estimate.
    last: BTreeMap<(TransactionId, Tells), u64>,
    /// What has arrived.
    got: BTreeMap<u64, Bytes>,
    /// The last of each transaction that has arrived.
    newest: BTreeMap<TransactionId, u64>,
    /// Attempts that failed, as seen from here.
    failed: BTreeMap<u64, u32>,
    /// What was ever kept aside: it arrives when it arrives.
    out_of_line: BTreeSet<u64>,
    /// Everything up to here may come again, and with it what newer events had replaced: a replay took
    /// it up.
    replayed_to: u64,
    /// Where the cursor stood when the endpoint was disabled.
    stopped_at: Option<u64>,
}

impl Inbox {
    /// The books of an endpoint that is on the disk since this moment.
    pub(crate) fn new(world: &World, id: EndpointId, wish: Wish) -> Inbox {
        Inbox {
            id,
            wish,
            read_to: feed_end(world, wish.client),
            owed: BTreeMap::new(),
            last: BTreeMap::new(),
            got: BTreeMap::new(),
            newest: BTreeMap::new(),
            failed: BTreeMap::new(),
            out_of_line: BTreeSet::new(),
            replayed_to: 0,
            stopped_at: None,
        }
    }

    fn wants(&self, world: &World, entry: FeedEntry) -> bool {
        if !self.wish.orders_only {
            return true;
        }
        // An event about an endpoint is about no transaction.
        entry.points() != Points::Announcement
            && world.stored(entry.id).is_some_and(|stored| stored.command.kind() == Kind::Order)
    }

    /// Takes in what the feed has more. With `latest` a newer event takes the place of an older one.
    fn catch_up(&mut self, world: &World) {
        loop {
            let page = at_once(world.disk.feed(self.wish.client, self.read_to, PAGE)).unwrap_or_default();
            let Some(last) = page.last() else { return };
            self.read_to = last.sequence;
            for entry in page {
                if !self.wants(world, entry) {
                    continue;
                }
                let (subject, tells) = (entry.subject(), Tells::of(entry));
                let before = self.last.insert((subject, tells), entry.sequence);
                if self.wish.mode == DeliveryMode::Latest {
                    // What has happened takes the place of an estimate as well, and not the reverse.
                    let estimate = match tells {
                        Tells::What => self.last.remove(&(subject, Tells::When)),
                        Tells::When => None,
                    };
                    for replaced in before.into_iter().chain(estimate) {
                        self.owed.remove(&replaced);
                    }
                }
                self.owed.insert(entry.sequence, subject);
            }
        }
    }

    /// An event has come that is on the disk.
    ///
    /// Held against the books is only what comes for the first time: `every` asks for all that its
    /// transaction has before it, `latest` for nothing newer before it.
    pub(crate) fn take(&mut self, world: &World, entry: FeedEntry, body: Bytes) {
        self.catch_up(world);
        let (sequence, id) = (entry.sequence, entry.subject());
        if self.got.contains_key(&sequence) {
            return world.observer.saw("deliveries repeated");
        }
        world.observer.saw("deliveries");
        self.got.insert(sequence, body);
        self.owed.remove(&sequence);
        let newest = self.newest.get(&id).copied().unwrap_or(0);
        self.newest.insert(id, newest.max(sequence));
        if self.out_of_line.contains(&sequence) {
            return;
        }
        match self.wish.mode {
            DeliveryMode::Every => {
                let given_up = |n: &u64| {
                    self.out_of_line.contains(n) || self.failed.get(n).is_some_and(|n| *n >= ATTEMPTS)
                };
                let earlier = self.owed.range(..sequence).filter(|(_, of)| **of == id).map(|(n, _)| *n);
                if let Some(missing) = earlier.filter(|n| !given_up(n)).min() {
                    let found = format!("{} has event {sequence} of {id} and not {missing}", self.name());
                    world.violated("INV-5", found);
                }
            }
            DeliveryMode::Latest => {
                // Two nodes that both believe to be the only one may cross each other on the way.
                let replays = at_once(world.disk.replays(self.id)).unwrap_or_default();
                let replayed = sequence <= self.replayed_to || !replays.is_empty();
                let may_go_back = replayed || world.observer.count("rivals") > 0;
                if newest > sequence && !may_go_back {
                    let found = format!("{} has event {newest} of {id} and then {sequence}", self.name());
                    world.violated("INV-5", found);
                }
            }
        }
    }

    /// What came before of an event.
    pub(crate) fn known(&self, sequence: u64) -> Option<&Bytes> {
        self.got.get(&sequence)
    }

    /// An attempt has failed, whether the event has come or not.
    pub(crate) fn has_failed(&mut self, sequence: u64) {
        *self.failed.entry(sequence).or_default() += 1;
    }

    /// Deliveries were recorded: what the cursor has passed has come, or has a row.
    pub(crate) fn recorded(&mut self, world: &World, cursor: u64, dead: impl Iterator<Item = u64>) {
        self.out_of_line.extend(dead);
        self.catch_up(world);
        for (sequence, of) in self.owed.range(..=cursor) {
            let row = world.disk.row(Table::Deliveries, &keys::pending(self.id, *sequence));
            if row.is_none() && !self.is_aside(world, *sequence) {
                let found = format!("the cursor of {} has passed {sequence} of {of}", self.name());
                world.violated("INV-5", format!("{found}, which has not come and has no row"));
            }
        }
        if cursor > self.read_to {
            let found = format!("the cursor of {} is at {cursor}, the feed ends before", self.name());
            world.violated("INV-5", found);
        }
    }

    /// Nothing more is sent, and the cursor stands here.
    pub(crate) fn stops(&mut self, cursor: u64) {
        self.stopped_at = Some(cursor);
    }

    /// Events go on from the feed's end, if they had stopped: what was skipped is not owed any more.
    pub(crate) fn goes_on(&mut self, world: &World) {
        let Some(stopped_at) = self.stopped_at.take() else { return };
        self.catch_up(world);
        let id = self.id;
        self.owed.retain(|sequence, _| {
            let row = world.disk.row(Table::Deliveries, &keys::pending(id, *sequence));
            *sequence <= stopped_at || row.is_some()
        });
    }

    /// A replay has come some way.
    pub(crate) fn replayed(&mut self, world: &World) {
        self.catch_up(world);
        self.replayed_to = self.read_to;
    }

    /// What is left at rest, in words.
    pub(crate) fn left(&mut self, world: &World) -> Vec<String> {
        self.catch_up(world);
        let name = self.name();
        let owed = self.owed.iter().map(|(n, of)| format!("{name} has never got {n} of {of}"));
        let mut left: Vec<String> = owed.collect();
        let found = at_once(world.disk.deliveries(self.wish.client, self.id)).ok().flatten();
        let Some(found) = found else { return vec![format!("the deliveries of {name} are not to be read")] };
        left.extend(found.pending.iter().map(|row| format!("{name} still waits for {}", row.entry.sequence)));
        left.extend(found.replays.iter().map(|replay| format!("{name} still replays {:?}", replay.which)));
        if found.cursor != self.read_to {
            left.push(format!("{name} has come to {}, its feed to {}", found.cursor, self.read_to));
        }
        left
    }

    fn is_aside(&self, world: &World, sequence: u64) -> bool {
        world.disk.row(Table::DeadDeliveries, &keys::dead_delivery(self.id, sequence)).is_some()
    }

    fn name(&self) -> String {
        format!("endpoint {} ({:?} of {:?})", self.id, self.wish.mode, self.wish.client)
    }
}

/// The number of the last event of a feed.
pub(crate) fn feed_end(world: &World, client: ClientNo) -> u64 {
    at_once(world.disk.feed_bounds(client)).map_or(0, |bounds| bounds.next - 1)
}
