//! Reading a client's feed for an endpoint: the next page, what was skipped, and what a replay asks for. It writes
//! nothing and decides nothing but what is wanted.

use std::collections::BTreeSet;

use super::held::filter;
use crate::actors::events;
use crate::actors::site::Node;
use crate::domain::endpoint::EndpointId;
use crate::domain::ids::{ClientNo, TransactionId};
use crate::domain::time::Timestamp;
use crate::ports::endpoints::{Replay, Skipped, Which};
use crate::ports::store::{FeedEntry, Lookup, ReadError};
use crate::wire::event::TypeFilter;

/// Entries of the feed that are read at a time; each is rendered to know its type.
const PAGE: usize = 32;
/// Of a replay, or of what was skipped, more: most are passed over without being rendered.
const REPLAY_PAGE: usize = 256;

/// A page of the feed: which entries are wanted, and the last of all.
pub(super) struct Page {
    pub(super) wanted: Vec<FeedEntry>,
    pub(super) last: Option<u64>,
    /// The first entry that was there.
    pub(super) first: Option<u64>,
    pub(super) full: bool,
}

/// Reads the page after a sequence.
pub(super) async fn read_page(
    node: &Node,
    client: ClientNo,
    after: u64,
    filter: &TypeFilter,
) -> Result<Page, ReadError> {
    let entries = node.store.feed(client, after, PAGE).await?;
    let first = entries.first().map(|entry| entry.sequence);
    let last = entries.last().map(|entry| entry.sequence);
    let full = entries.len() == PAGE;
    let mut wanted = Vec::new();
    for entry in entries {
        // What cannot be rendered is told of and counted there.
        let event = events::event(node, client, entry).await?;
        wanted.extend(event.filter(|event| filter.passes(event.event_type)).map(|_| entry));
    }
    Ok(Page { wanted, last, first, full })
}

/// Looks at a page of what was skipped: which of its entries about these transactions are wanted, and what
/// is left of it.
pub(super) async fn read_skipped(
    node: &Node,
    client: ClientNo,
    Skipped { after, to }: Skipped,
    of: &BTreeSet<TransactionId>,
    filter: &TypeFilter,
) -> Result<(Vec<FeedEntry>, Option<Skipped>), ReadError> {
    let entries = node.store.feed(client, after, REPLAY_PAGE).await?;
    let full = entries.len() == REPLAY_PAGE;
    let last = entries.last().map_or(to, |entry| entry.sequence);
    let mut wanted = Vec::new();
    for entry in entries.into_iter().filter(|entry| entry.sequence <= to && of.contains(&entry.subject())) {
        let event = events::event(node, client, entry).await?;
        wanted.extend(event.filter(|event| filter.passes(event.event_type)).map(|_| entry));
    }
    Ok((wanted, (full && last < to).then_some(Skipped { after: last, to })))
}

/// What a replay is to take up, and how it stands then; `None`: it is done.
pub(super) async fn read_replay(
    node: &Node,
    (client, id): (ClientNo, EndpointId),
    replay: Replay,
    until_sequence: u64,
    own: &TypeFilter,
) -> Result<(Vec<FeedEntry>, Option<Replay>), ReadError> {
    let (since, until, types) = match &replay.which {
        Which::One(sequence) => {
            let dead = node.store.dead_delivery(id, *sequence).await?;
            return Ok((dead.map(|dead| dead.entry).into_iter().collect(), None));
        }
        Which::Span { since, until, types } => (*since, *until, types),
    };
    let filter = if types.is_empty() { own.clone() } else { filter(types) };
    let entries = node.store.feed(client, replay.cursor, REPLAY_PAGE).await?;
    let full = entries.len() == REPLAY_PAGE;
    let mut wanted = Vec::new();
    let mut cursor = replay.cursor;
    for entry in entries.into_iter().take_while(|entry| entry.sequence <= until_sequence) {
        cursor = entry.sequence;
        let within = |at: Timestamp| at >= since && at <= until;
        if time_of(node, entry).await?.is_some_and(within) {
            let event = events::event(node, client, entry).await?;
            wanted.extend(event.filter(|event| filter.passes(event.event_type)).map(|_| entry));
        }
    }
    let on = full && cursor < until_sequence;
    Ok((wanted, on.then_some(Replay { cursor, ..replay })))
}

/// When an event happened; `None` where that is not to be had.
async fn time_of(node: &Node, entry: FeedEntry) -> Result<Option<Timestamp>, ReadError> {
    if entry.version == 0 {
        return Ok(Some(entry.id.at()));
    }
    match events::transaction_at(node, entry.id, entry.version).await {
        Ok(Some(Lookup::Live(stored))) => {
            let place = usize::try_from(entry.version).ok().and_then(|version| version.checked_sub(1));
            Ok(place.and_then(|place| stored.facts.get(place)).map(|recorded| recorded.at))
        }
        Ok(Some(Lookup::Expired(_)) | None) | Err(ReadError::Corrupt { .. }) => Ok(None),
        Err(e @ ReadError::Unavailable(_)) => Err(e),
    }
}
