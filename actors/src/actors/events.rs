//! Renders events: from a pointer in a feed to the CloudEvent that every reader sees. One that cannot
//! be rendered is counted, told of and left aside, so that it holds up nothing behind it.

use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::site::Node;
use crate::domain::command::Command;
use crate::domain::fact::{Accepted, Fact};
use crate::domain::ids::{ClientNo, CorrelationId, Reference, TraceContext, TransactionId};
use crate::domain::promise::ToldEstimate;
use crate::domain::sscc::Sscc;
use crate::domain::state::State;
use crate::ports::announcement::{Announcement, StockChange};
use crate::ports::store::{FeedEntry, Lookup, Points, ReadError, StoredTransaction};
use crate::wire::cursor::Cursor;
use crate::wire::endpoints::{self, Disabled};
use crate::wire::event::{CloudEvent, EventType, Frame, Include, frame};
use crate::wire::status::Source;
use crate::wire::stock::{self, Changed, StockView};

/// A rendered event.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Its number in its client's feed; 0 when the transaction belongs to no client.
    pub sequence: u64,
    /// `<transaction>.<version>`, or an id of its own: the CloudEvent's `id`, the same on every resend.
    pub id: String,
    /// The CloudEvent's `type`.
    pub event_type: EventType,
    /// The transaction; an id of its own where it is about an endpoint or a position.
    pub transaction: TransactionId,
    /// Its version; 0 where it is about no transaction.
    pub version: u32,
    /// The code of its warehouse.
    pub warehouse: String,
    /// The client's name for it.
    pub reference: Reference,
    /// Where it stands at this version.
    pub state: State,
    /// Of the call that brought it.
    pub correlation: CorrelationId,
    /// Of the call that brought it.
    pub traceparent: String,
    /// The CloudEvent as JSON, on one line.
    pub body: Bytes,
    /// The server-sent event around the same bytes, with its cursor.
    pub frame: Bytes,
}

impl Event {
    /// The memory that it takes.
    pub(crate) fn bytes(&self) -> usize {
        // The body is a part of the frame.
        EVENT_BYTES + self.frame.len()
    }
}

/// What is rendered lately, for readers who ask for the same: many resume at once after a restart.
pub(crate) struct EventCache(Cache<(ClientNo, u64), Arc<Event>, Size>);

/// Memory for rendered events, in bytes; some thousand of small orders.
const CACHE_BYTES: u64 = 16 << 20;
/// Events that the cache expects to hold; it only sizes its tables.
const CACHE_EVENTS: usize = 5_000;
/// Transactions of a page that are read at once: many enough that one read is not waited for while
/// others could run, few enough that other readers have their turn.
const AT_ONCE: usize = 16;
/// How often a transaction is read again that is behind its feed, and the pause before: a writer lets go
/// of a batch within milliseconds.
const BEHIND_LOOKS: usize = 500;
const BEHIND_FOR: Duration = Duration::from_millis(2);
/// What an event takes beside its frame, in bytes.
const EVENT_BYTES: usize = 500;

#[derive(Clone)]
struct Size;

impl Weighter<(ClientNo, u64), Arc<Event>> for Size {
    fn weight(&self, _: &(ClientNo, u64), event: &Arc<Event>) -> u64 {
        event.bytes() as u64
    }
}

impl EventCache {
    pub(crate) fn new() -> EventCache {
        EventCache(Cache::with_weighter(CACHE_EVENTS, CACHE_BYTES, Size))
    }
}

/// The event of a feed's entry, with what every reader sees. Rendered once while it is cached: the
/// FeedHub, the event list and webhooks that include nothing more share its bytes.
///
/// `None` when it is left aside: it can never be rendered, which is counted and logged here.
///
/// # Errors
/// When the store cannot be read now; trying again may help.
pub(crate) async fn event(
    node: &Node,
    client: ClientNo,
    entry: FeedEntry,
) -> Result<Option<Arc<Event>>, ReadError> {
    let key = (client, entry.sequence);
    if let Some(event) = node.events.0.get(&key) {
        return Ok(Some(event));
    }
    let event = event_with(node, client, entry, |_| Include::default()).await?.map(Arc::new);
    if let Some(event) = &event {
        node.events.0.insert(key, event.clone());
    }
    Ok(event)
}

/// The events of entries, in their order, without those that are left aside.
///
/// # Errors
/// When the store cannot be read now; trying again may help.
pub(crate) async fn page(
    node: &Node,
    client: ClientNo,
    entries: Vec<FeedEntry>,
) -> Result<Vec<Arc<Event>>, ReadError> {
    let events = stream::iter(entries).map(|entry| event(node, client, entry)).buffered(AT_ONCE);
    events.try_filter_map(|event| std::future::ready(Ok(event))).try_collect().await
}

/// The same with more in its `data`; not cached.
///
/// # Errors
/// When the store cannot be read now; trying again may help.
pub(crate) async fn event_with(
    node: &Node,
    client: ClientNo,
    entry: FeedEntry,
    include: impl FnOnce(&StoredTransaction) -> Include,
) -> Result<Option<Event>, ReadError> {
    let FeedEntry { sequence, id, .. } = entry;
    let version = match entry.points() {
        Points::Announcement => return announced(node, client, entry).await,
        Points::Version(version) | Points::Estimate(version) => version,
    };
    let aside = |why: &str| {
        node.tallies.event_aside();
        tracing::error!(%id, version, sequence, why, "an event cannot be rendered and is left aside");
        Ok(None)
    };
    let stored = match transaction_at(node, id, version).await {
        Ok(Some(Lookup::Live(stored))) => stored,
        Ok(Some(Lookup::Expired(_))) => return aside("the transaction is past its retention"),
        Ok(None) => return aside("the transaction is not there"),
        Err(ReadError::Corrupt { what, source }) => return aside(&format!("{what}: {source}")),
        Err(e @ ReadError::Unavailable(_)) => return Err(e),
    };
    let told = match entry.points() {
        Points::Estimate(_) => match node.store.estimates(id).await {
            Ok(told) => match told.into_iter().find(|told| told.sequence == sequence) {
                Some(told) => Some(told),
                None => return aside("what was estimated is not there"),
            },
            Err(ReadError::Corrupt { what, source }) => return aside(&format!("{what}: {source}")),
            Err(e @ ReadError::Unavailable(_)) => return Err(e),
        },
        Points::Announcement | Points::Version(_) => None,
    };
    let cartons = match stored.command {
        Command::Manifest(_) => match node.store.cartons(id).await {
            Ok(cartons) => cartons.into_iter().map(|c| c.sscc).collect(),
            Err(ReadError::Corrupt { what, source }) => return aside(&format!("{what}: {source}")),
            Err(e @ ReadError::Unavailable(_)) => return Err(e),
        },
        Command::Order(_) | Command::Move(_) | Command::Cancellation(_) => Vec::new(),
    };
    let include = include(&stored);
    // A fold sees one transaction alone: facts that contradict each other are its own trouble.
    let rendered = catch_unwind(AssertUnwindSafe(|| {
        let place = told.map_or(Told::Version(version, sequence), Told::Estimate);
        render(node, client, &stored, &cartons, place, include)
    }));
    match rendered {
        Ok(Some(event)) => {
            node.tallies.event_rendered();
            Ok(Some(event))
        }
        Ok(None) => aside("it has no such version"),
        Err(_panicked) => aside("its facts contradict each other"),
    }
}

/// A transaction as it is from this version on, of which a feed has told.
///
/// A commit can be seen in the feed a moment before the writer has let go of what it remembers of the
/// transactions that it changed: until then a read may still be answered with the version before.
///
/// # Errors
/// When the store cannot be read now; trying again may help.
pub(crate) async fn transaction_at(
    node: &Node,
    id: TransactionId,
    version: u32,
) -> Result<Option<Lookup>, ReadError> {
    caught_up(async || node.store.transaction(id).await, version).await
}

async fn caught_up(
    look: impl AsyncFn() -> Result<Option<Lookup>, ReadError>,
    version: u32,
) -> Result<Option<Lookup>, ReadError> {
    for _ in 0..BEHIND_LOOKS {
        match look().await? {
            Some(Lookup::Live(stored)) if stored.version() < version => {
                tokio::time::sleep(BEHIND_FOR).await;
            }
            found => return Ok(found),
        }
    }
    look().await
}

/// The event of an entry that points at no version.
async fn announced(node: &Node, client: ClientNo, entry: FeedEntry) -> Result<Option<Event>, ReadError> {
    let FeedEntry { sequence, id, version } = entry;
    let aside = |why: String| {
        node.tallies.event_aside();
        tracing::error!(%id, sequence, why, "an event cannot be rendered and is left aside");
        Ok(None)
    };
    let said = match node.store.announcement(client, sequence).await {
        Ok(Some(said)) => said,
        Ok(None) => return aside("what it says is not there".to_owned()),
        Err(ReadError::Corrupt { what, source }) => return aside(format!("{what}: {source}")),
        Err(e @ ReadError::Unavailable(_)) => return Err(e),
    };
    // No call asked for it: its correlation and its trace are a function of its id.
    let own = id.to_string();
    let (Ok(correlation), Ok(reference)) = (own.parse(), own.parse()) else {
        return aside("its id is no name".to_owned());
    };
    let (_, low) = id.0.as_u64_pair();
    let trace = TraceContext { trace_id: id.0.as_u128(), parent_id: low, flags: 0, state: None };
    let Worded { id: name, event_type, warehouse, body } = match said {
        Announcement::Endpoint(said) => Worded {
            body: endpoints::disabled(Disabled {
                id: &own,
                sequence,
                endpoint: said.endpoint,
                settings: &said.settings,
                reason: said.reason,
                created_at: said.created_at,
                at: said.at,
                correlation: &correlation,
                trace: &trace,
            }),
            id: own,
            event_type: EventType::EndpointDisabled,
            warehouse: String::new(),
        },
        Announcement::Stock(StockChange { id: _, sku, position }) => {
            let warehouse = node.warehouses.of(id.home()).map_or("", |w| &w.code);
            let owner = node.client_names.get(&client).map_or("", String::as_str);
            let name = stock::changed_id(warehouse, &sku, sequence);
            let (at, id) = (id.at(), &*name);
            let said = Changed { id, sequence, warehouse, at, correlation: &correlation, trace: &trace };
            Worded {
                body: stock::changed(said, StockView::new(owner, &sku, &position)),
                id: name,
                event_type: EventType::InventoryChanged,
                warehouse: warehouse.to_owned(),
            }
        }
    };
    let cursor = Cursor { epoch: node.feed_epoch, client, sequence, ended: false };
    let Frame { text, data } = frame(&cursor.to_string(), &event_type.to_string(), &body);
    node.tallies.event_rendered();
    Ok(Some(Event {
        sequence,
        event_type,
        transaction: id,
        version,
        warehouse,
        reference,
        state: State::Accepted,
        correlation,
        traceparent: trace.traceparent(),
        id: name,
        body: data,
        frame: text,
    }))
}

/// What an announcement becomes.
struct Worded {
    id: String,
    event_type: EventType,
    warehouse: String,
    body: Vec<u8>,
}

/// What an event tells of a transaction.
enum Told {
    /// A version, with its number in its client's feed.
    Version(u32, u64),
    /// What was estimated beside one.
    Estimate(ToldEstimate),
}

fn render(
    node: &Node,
    client: ClientNo,
    stored: &StoredTransaction,
    cartons: &[Sscc],
    told: Told,
    include: Include,
) -> Option<Event> {
    let warehouse = node.warehouses.of(stored.id.home()).map_or("", |w| &w.code);
    let source = Source {
        id: stored.id,
        client: node.client_names.get(&stored.client).map(String::as_str),
        warehouse,
        command: &stored.command,
        facts: &stored.facts,
        cartons,
    };
    let numbered = |sequence| (client != ClientNo::HOUSE).then_some(sequence);
    let (version, sequence, event) = match told {
        Told::Version(version, sequence) => {
            (version, sequence, CloudEvent::of(&source, version, numbered(sequence), include)?)
        }
        Told::Estimate(told) => {
            (told.version, told.sequence, CloudEvent::of_estimate(&source, &told, include)?)
        }
    };
    let Fact::Accepted(Accepted { correlation, .. }) = &stored.facts.first()?.fact else { return None };
    let place = if client == ClientNo::HOUSE { Cursor::version_of(stored.id, version) } else { sequence };
    let cursor = Cursor { epoch: node.feed_epoch, client, sequence: place, ended: false };
    let body = serde_json::to_vec(&event).ok()?;
    let Frame { text, data } = frame(&cursor.to_string(), &event.r#type.to_string(), &body);
    Some(Event {
        sequence,
        event_type: event.r#type,
        transaction: stored.id,
        version,
        warehouse: warehouse.to_owned(),
        reference: stored.command.reference().clone(),
        state: event.data.state.0,
        correlation: correlation.clone(),
        traceparent: event.traceparent,
        id: event.id,
        body: data,
        frame: text,
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::actors::turn::tests::stored;
    use crate::domain::fact::OrderFact;
    use std::cell::Cell;

    /// An event of a feed with so many bytes of body.
    pub(crate) fn event(sequence: u64, bytes: usize) -> Arc<Event> {
        let name = format!("e{sequence}");
        let Frame { text, data } = frame(&name, "wavegate.test", &vec![b' '; bytes]);
        Arc::new(Event {
            sequence,
            id: name.clone(),
            event_type: EventType::InventoryChanged,
            transaction: stored(1, Vec::new()).id,
            version: 0,
            warehouse: String::new(),
            reference: name.parse().unwrap(),
            state: State::Accepted,
            correlation: name.parse().unwrap(),
            traceparent: String::new(),
            body: data,
            frame: text,
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_transaction_that_is_behind_its_feed_is_read_again_until_it_is_not() {
        let looks = Cell::new(0);
        let look = async || {
            looks.set(looks.get() + 1);
            let facts = if looks.get() < 4 { Vec::new() } else { vec![OrderFact::Backordered] };
            Ok(Some(Lookup::Live(Arc::new(stored(1, facts)))))
        };
        let Ok(Some(Lookup::Live(found))) = caught_up(look, 2).await else { panic!("it is there") };
        assert_eq!((found.version(), looks.get()), (2, 4));
        // One that never gets there is not waited for for ever.
        let Ok(Some(Lookup::Live(found))) = caught_up(look, 9).await else { panic!("it is there") };
        assert_eq!(found.version(), 2);
    }
}
