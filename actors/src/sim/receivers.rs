//! The consumers of the world's webhooks, and the way to them: they take, refuse, hang, lose their
//! answer, fall silent, want no more. They outlive the node, and keep books of what has come.

use parking_lot::Mutex;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

use super::disk::at_once;
use super::followers::is_named;
use super::inbox::{Inbox, Wish};
use super::life::Life;
use super::{Planted, World};
use crate::domain::endpoint::{DeliveryMode, EndpointId, Schedule, StoredEndpoint};
use crate::ports::BoxFuture;
use crate::ports::endpoints::{Changed, DeliveryRecord, EndpointChange, EndpointStore};
use crate::ports::entropy::Entropy;
use crate::ports::store::{FeedEntry, Points, Store};
use crate::ports::webhook::{AddressForbidden, Answer, Courier, Parcel, PostError};

/// Attempts of a delivery: one more than [`schedule`] has pauses.
pub(crate) const ATTEMPTS: u32 = 3;
/// The longest way to a consumer, in milliseconds; there and back.
const WAY_MS: u64 = 20;
/// The longest that an attempt hangs, in milliseconds: what the real courier allows it.
const HANGS_MS: u64 = 15_000;
/// The longest silence, in milliseconds.
const SILENCE_MS: u64 = 180_000;
/// The longest that a consumer asks to be left alone, in seconds.
const RETRY_AFTER_S: u64 = 40;

/// The pauses between attempts: so short that a world lives through all of them.
pub(crate) fn schedule() -> Schedule {
    Schedule::new(vec![Duration::from_millis(200), Duration::from_secs(2)])
}

/// All consumers, through all lives of the node.
#[derive(Default)]
pub(crate) struct Receivers(Mutex<Known>);

#[derive(Default)]
struct Known {
    inboxes: BTreeMap<EndpointId, Inbox>,
    /// Where each is; no address is used twice.
    addresses: BTreeMap<String, EndpointId>,
    silent_until: BTreeMap<EndpointId, Instant>,
    made: u64,
}

/// What an attempt meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lot {
    Good,
    /// It is taken, and nothing more is wanted.
    TakenForTheLastTime,
    /// It is taken, and the answer says otherwise.
    TakenAndDenied,
    /// It is taken, and the answer is lost.
    AnswerLost,
    Refused,
    LedElsewhere,
    TooMany,
    Gone,
    Hangs,
    NotReached,
}

/// What the world reads of a body.
#[derive(Deserialize)]
struct Said<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    event_type: &'a str,
    feedsequence: Option<&'a str>,
}

impl Receivers {
    /// A fresh address; it says whose it is and which of theirs.
    pub(crate) fn address(&self, client: &str, slot: &str) -> String {
        let mut known = self.0.lock();
        known.made += 1;
        format!("https://{client}.example/{slot}/{}", known.made)
    }

    /// An endpoint is on the disk.
    pub(crate) fn created(&self, world: &World, endpoint: &StoredEndpoint) {
        let mut known = self.0.lock();
        let (id, settings) = (endpoint.id, &endpoint.settings);
        world.note(format_args!("endpoint {id} is made for {:?}", endpoint.client));
        let orders_only = settings.types.iter().all(|pattern| pattern == "wavegate.order.*");
        let wish = Wish { client: endpoint.client, mode: settings.delivery, orders_only };
        known.addresses.insert(settings.url.clone(), id);
        known.inboxes.insert(id, Inbox::new(world, id, wish));
    }

    /// An endpoint was changed on the disk.
    pub(crate) fn changed(&self, world: &World, id: EndpointId, asked: &EndpointChange, became: &Changed) {
        if !matches!(became, Changed::To(_)) {
            return;
        }
        let mut known = self.0.lock();
        match asked {
            EndpointChange::Delete => {
                world.note(format_args!("endpoint {id} is deleted"));
                known.inboxes.remove(&id);
            }
            EndpointChange::Enable { .. } => {
                world.note(format_args!("endpoint {id} goes on"));
                if let Some(inbox) = known.inboxes.get_mut(&id) {
                    inbox.goes_on(world);
                }
            }
            EndpointChange::Replay(replay) => {
                world.note(format_args!("endpoint {id} is to replay {:?}", replay.which));
            }
            EndpointChange::Settings { .. } | EndpointChange::Rotate { .. } => {}
        }
    }

    /// Deliveries were recorded on the disk.
    pub(crate) fn recorded(&self, world: &World, id: EndpointId, record: &DeliveryRecord) {
        let mut known = self.0.lock();
        let DeliveryRecord { epoch, cursor, pending, finished, dead, disabled, .. } = record;
        let waiting: Vec<u64> = pending.iter().map(|row| row.entry.sequence).collect();
        let aside: Vec<u64> = dead.iter().map(|dead| dead.entry.sequence).collect();
        world.note(format_args!(
            "endpoint {id} epoch {epoch} is at {cursor}, finished {finished:?}, waiting {waiting:?}, aside {aside:?}, {disabled:?}"
        ));
        for _ in dead {
            world.observer.saw("deliveries kept aside");
        }
        if disabled.is_some() {
            world.observer.saw("endpoints disabled");
        }
        let Some(inbox) = known.inboxes.get_mut(&id) else {
            return world.violated("INV-5", format!("endpoint {id} is deleted, and records deliveries"));
        };
        if world.judges_deliveries() {
            inbox.recorded(world, *cursor, aside.into_iter());
        }
        if !record.replays.is_empty() {
            inbox.replayed(world);
        }
        if disabled.is_some() {
            inbox.stops(*cursor);
        }
    }

    fn lot(&self, world: &World, id: EndpointId) -> Lot {
        let rate = world.profile.receiver_faults;
        let mut known = self.0.lock();
        if world.chance.below(4) == 0 && world.strikes(world.profile.silences) {
            world.observer.saw("receivers silent");
            world.note(format_args!("the receiver of {id} falls silent"));
            known.silent_until.insert(id, Instant::now() + world.pause(SILENCE_MS));
        }
        let is_silent = known.silent_until.get(&id).is_some_and(|until| Instant::now() < *until);
        if is_silent && world.is_faulty() {
            return if world.chance.below(2) == 0 { Lot::Hangs } else { Lot::NotReached };
        }
        if !world.strikes(rate) {
            return Lot::Good;
        }
        match world.chance.below(40) {
            0..=7 => Lot::Refused,
            8..=11 => Lot::LedElsewhere,
            12..=15 => Lot::TooMany,
            16..=21 => Lot::Hangs,
            22..=25 => Lot::NotReached,
            26..=31 => Lot::AnswerLost,
            32..=37 => Lot::TakenAndDenied,
            38 => Lot::TakenForTheLastTime,
            39.. => Lot::Gone,
        }
    }

    /// An attempt arrives; `None` when nobody lives at its address any more.
    fn arrives(&self, world: &World, parcel: &Parcel) -> Option<Lot> {
        let id = *self.0.lock().addresses.get(&parcel.url)?;
        let lot = self.lot(world, id);
        let mut known = self.0.lock();
        let inbox = known.inboxes.get_mut(&id)?;
        if let Some(entry) = entry_of(world, inbox, parcel) {
            world.note(format_args!("event {} comes to {id} and is {lot:?}", entry.sequence));
            let is_taken = match lot {
                Lot::Good | Lot::TakenForTheLastTime | Lot::TakenAndDenied | Lot::AnswerLost => true,
                Lot::Refused
                | Lot::LedElsewhere
                | Lot::TooMany
                | Lot::Gone
                | Lot::Hangs
                | Lot::NotReached => false,
            };
            if is_taken && world.judges_deliveries() {
                inbox.take(world, entry, parcel.body.clone());
            }
            if !matches!(lot, Lot::Good | Lot::TakenForTheLastTime) {
                inbox.has_failed(entry.sequence);
            }
        }
        world.observer.saw(lot.name());
        Some(lot)
    }

    /// What is left at rest, of all of them, in words.
    pub(crate) fn left(&self, world: &World) -> Vec<String> {
        let mut known = self.0.lock();
        let mut left: Vec<String> = known.inboxes.values_mut().flat_map(|inbox| inbox.left(world)).collect();
        let aside = at_once(world.disk.dead_deliveries(None, usize::MAX)).unwrap_or_default();
        left.extend(
            aside.iter().map(|d| format!("{} of endpoint {} is aside", d.entry.sequence, d.endpoint)),
        );
        let all = at_once(world.disk.endpoints()).unwrap_or_default();
        let gone = all.iter().filter(|endpoint| !known.inboxes.contains_key(&endpoint.id));
        left.extend(gone.map(|endpoint| format!("endpoint {} is deleted and still there", endpoint.id)));
        left
    }
}

/// The entry that a parcel is about: what it says of itself is on the disk, in the feed of the
/// endpoint's client, and says the same as ever. `None` for a ping, and for what is none of that.
fn entry_of(world: &World, inbox: &Inbox, parcel: &Parcel) -> Option<FeedEntry> {
    let client = inbox.wish.client;
    let violated = |id: &'static str, found: String| {
        if world.judges_deliveries() {
            world.violated(id, format!("an attempt for {client:?}: {found}"));
        }
    };
    let Ok(said) = serde_json::from_slice::<Said<'_>>(&parcel.body) else {
        violated("INV-5", "its body is no event".to_owned());
        return None;
    };
    let header = parcel.headers.iter().find(|(name, _)| *name == "webhook-id").map(|(_, id)| id.as_str());
    if header != Some(said.id) {
        violated("INV-5", format!("{} is named {header:?}", said.id));
    }
    if said.event_type == "wavegate.endpoint.ping" {
        world.observer.saw("pings");
        return None;
    }
    let sequence: u64 = said.feedsequence.and_then(|n| n.parse().ok()).unwrap_or(0);
    let before = sequence.saturating_sub(1);
    let entry = at_once(world.disk.feed(client, before, 1)).unwrap_or_default().first().copied();
    let Some(entry) = entry.filter(|entry| entry.sequence == sequence && is_named(entry, said.id)) else {
        let transaction = said.id.split_once('.').and_then(|(id, _)| id.parse().ok());
        let stored = transaction.and_then(|id| world.stored(id));
        let broken = if stored.is_some_and(|stored| stored.client != client) { "INV-8" } else { "INV-5" };
        violated(broken, format!("{} is event {sequence} of its feed, the disk has {entry:?}", said.id));
        return None;
    };
    let is_committed = match entry.points() {
        Points::Announcement => {
            at_once(world.disk.announcement(client, sequence)).is_ok_and(|said| said.is_some())
        }
        Points::Version(version) => world
            .stored(entry.id)
            .is_some_and(|stored| stored.version() >= version && stored.client == client),
        Points::Estimate(version) => {
            let told = at_once(world.disk.estimates(entry.id)).unwrap_or_default();
            let of_client = world.stored(entry.id).is_some_and(|stored| stored.client == client);
            of_client && told.iter().any(|told| (told.sequence, told.version) == (sequence, version))
        }
    };
    if !is_committed {
        violated("INV-5", format!("{} is not on the disk", said.id));
    }
    if inbox.wish.orders_only && !said.event_type.starts_with("wavegate.order.") {
        violated("INV-5", format!("{} was not asked for", said.event_type));
    }
    if inbox.known(sequence).is_some_and(|known| *known != parcel.body) {
        violated("INV-7", format!("{} came before with other bytes", said.id));
    }
    Some(entry)
}

impl Lot {
    fn name(self) -> &'static str {
        match self {
            Lot::Good => "attempts well",
            Lot::TakenForTheLastTime => "attempts taken for the last time",
            Lot::TakenAndDenied => "attempts taken and denied",
            Lot::AnswerLost => "attempts with a lost answer",
            Lot::Refused => "attempts refused",
            Lot::LedElsewhere => "attempts led elsewhere",
            Lot::TooMany => "attempts too many",
            Lot::Gone => "attempts gone",
            Lot::Hangs => "attempts that hang",
            Lot::NotReached => "attempts not reached",
        }
    }
}

/// The way from one life of the node.
pub(crate) struct Way {
    world: Arc<World>,
    life: Arc<Life>,
}

impl Way {
    pub(crate) fn new(world: Arc<World>, life: Arc<Life>) -> Way {
        Way { world, life }
    }
}

impl Courier for Way {
    fn post(&self, mut parcel: Parcel) -> BoxFuture<Result<Answer, PostError>> {
        let (world, life) = (self.world.clone(), self.life.clone());
        if world.plants(Planted::MisledDelivery, 50) {
            parcel.url = world.receivers.another(&parcel.url);
        }
        Box::pin(async move {
            tokio::time::sleep(world.pause(WAY_MS)).await;
            life.go_on().await;
            let lot = world.receivers.arrives(&world, &parcel);
            let back = match lot {
                Some(Lot::Hangs) => 1_000 + world.chance.below(HANGS_MS - 1_000),
                Some(_) | None => world.chance.below(WAY_MS),
            };
            tokio::time::sleep(Duration::from_millis(back)).await;
            life.go_on().await;
            lot.map_or(Ok(status(404)), |lot| answer(&world, lot))
        })
    }

    fn judge(&self, _: String) -> BoxFuture<Result<(), AddressForbidden>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

impl Receivers {
    /// Another's address, for a bug that is planted.
    fn another(&self, url: &str) -> String {
        let known = self.0.lock();
        let client = |id| known.inboxes.get(id).map(|inbox: &Inbox| inbox.wish.client);
        let own = known.addresses.get(url).and_then(client);
        let mut others = known.addresses.iter().filter(|(_, id)| client(id).is_some_and(|c| Some(c) != own));
        others.next().map_or_else(|| url.to_owned(), |(other, _)| other.clone())
    }
}

fn status(status: u16) -> Answer {
    Answer { status, retry_after: None, disable: false }
}

fn answer(world: &World, lot: Lot) -> Result<Answer, PostError> {
    let lost = || PostError::Unreachable("the connection is gone".to_owned());
    match lot {
        Lot::Good => Ok(status(204)),
        Lot::TakenForTheLastTime => Ok(Answer { disable: true, ..status(200) }),
        Lot::Refused | Lot::TakenAndDenied => Ok(status(500)),
        Lot::LedElsewhere => Ok(status(302)),
        Lot::TooMany => {
            let retry_after = Some(Duration::from_secs(1 + world.chance.below(RETRY_AFTER_S)));
            Ok(Answer { retry_after, ..status(429) })
        }
        Lot::Gone => Ok(status(410)),
        Lot::Hangs => Err(PostError::Silent),
        Lot::AnswerLost if world.chance.below(2) == 0 => Err(PostError::Silent),
        Lot::AnswerLost | Lot::NotReached => Err(lost()),
    }
}

/// The two endpoints that each client keeps: their names in addresses, how they are delivered to, and
/// which events they want.
pub(crate) const SLOTS: [(&str, DeliveryMode, &str); 2] =
    [("every", DeliveryMode::Every, "wavegate.*"), ("latest", DeliveryMode::Latest, "wavegate.order.*")];

impl World {
    /// False when a bug is planted that spoils what is delivered, and not how: it is found elsewhere, and
    /// by another name.
    pub(crate) fn judges_deliveries(&self) -> bool {
        self.profile.planted.is_none_or(Planted::is_of_deliveries)
    }
}
