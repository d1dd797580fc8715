//! Reading a client's feed for an endpoint: the next page, what was skipped, and what a replay asks for. It writes
//! nothing and decides nothing but what is wanted.

use std::collections::BTreeSet;
use std::time::Duration;

use super::held::filter;
use crate::actors::events;
use crate::actors::site::Node;
use crate::domain::endpoint::EndpointId;
use crate::domain::ids::{ClientNo, TransactionId};
use crate::domain::time::Timestamp;
use crate::ports::endpoints::{Replay, Skipped, Which};
use crate::ports::store::{FeedBounds, FeedEntry, Lookup, Points, ReadError};
use crate::wire::event::TypeFilter;

/// Entries of the feed that are read at a time; each is rendered to know its type.
const PAGE: usize = 32;
/// Of a replay, or of what was skipped, more: most are passed over without being rendered.
const REPLAY_PAGE: usize = 256;

/// How far times in a feed may be out of order: warehouses commit side by side, and clocks are set. Of a
/// feed whose clock was set back by more, a replay may pass over events of the time that came twice.
const DISORDER: Duration = Duration::from_secs(3_600);

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
    let mut cursor = match replay.cursor {
        0 => begin(node, client, since, until_sequence).await?,
        cursor => cursor,
    };
    let entries = node.store.feed(client, cursor, REPLAY_PAGE).await?;
    let full = entries.len() == REPLAY_PAGE;
    let mut wanted = Vec::new();
    for entry in entries.into_iter().take_while(|entry| entry.sequence <= until_sequence) {
        cursor = entry.sequence;
        let at = time_of(node, entry).await?;
        if at.is_some_and(|at| at > until.after(DISORDER)) {
            return Ok((wanted, None));
        }
        if at.is_some_and(|at| at >= since && at <= until) {
            let event = events::event(node, client, entry).await?;
            wanted.extend(event.filter(|event| filter.passes(event.event_type)).map(|_| entry));
        }
    }
    let on = full && cursor < until_sequence;
    Ok((wanted, on.then_some(Replay { cursor, ..replay })))
}

/// The sequence up to which every event of a feed is older than `since`, or almost.
async fn begin(node: &Node, client: ClientNo, since: Timestamp, until: u64) -> Result<u64, ReadError> {
    let FeedBounds { first, next } = node.store.feed_bounds(client).await?;
    let is_early = async |sequence: u64| match node.store.feed(client, sequence - 1, 1).await?.first() {
        Some(entry) => Ok(time_of(node, *entry).await?.is_some_and(|at| at.after(DISORDER) < since)),
        None => Ok(false),
    };
    last_early(first - 1, next.min(until + 1), is_early).await
}

/// Halves what lies between a sequence that is early and one that is not, until it is a page.
async fn last_early(
    mut early: u64,
    mut late: u64,
    is_early: impl AsyncFn(u64) -> Result<bool, ReadError>,
) -> Result<u64, ReadError> {
    while late.saturating_sub(early) > REPLAY_PAGE as u64 {
        let middle = early + (late - early) / 2;
        match is_early(middle).await? {
            true => early = middle,
            false => late = middle,
        }
    }
    Ok(early)
}

/// When an event happened; `None` where that is not to be had.
async fn time_of(node: &Node, entry: FeedEntry) -> Result<Option<Timestamp>, ReadError> {
    let version = match entry.points() {
        Points::Announcement => return Ok(Some(entry.id.at())),
        Points::Estimate(_) => {
            return match node.store.estimates(entry.id).await {
                Ok(told) => Ok(told.iter().find(|told| told.sequence == entry.sequence).map(|told| told.at)),
                Err(ReadError::Corrupt { .. }) => Ok(None),
                Err(e @ ReadError::Unavailable(_)) => Err(e),
            };
        }
        Points::Version(version) => version,
    };
    match events::transaction_at(node, entry.id, version).await {
        Ok(Some(Lookup::Live(stored))) => {
            let place = usize::try_from(version).ok().and_then(|version| version.checked_sub(1));
            Ok(place.and_then(|place| stored.facts.get(place)).map(|recorded| recorded.at))
        }
        Ok(Some(Lookup::Expired(_)) | None) | Err(ReadError::Corrupt { .. }) => Ok(None),
        Err(e @ ReadError::Unavailable(_)) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[tokio::test]
    async fn a_replay_finds_its_beginning_in_a_long_feed_by_a_few_looks() {
        for border in [0, 1, 700, 4_711, 999_999, 1_000_000] {
            let looks = Cell::new(0);
            let is_early = async |sequence: u64| {
                looks.set(looks.get() + 1);
                assert!((1..=1_000_000).contains(&sequence));
                Ok(sequence <= border)
            };
            let found = last_early(0, 1_000_001, is_early).await.unwrap();
            assert!(found <= border && border - found <= REPLAY_PAGE as u64, "{found} for {border}");
            assert!(looks.get() <= 12, "{} looks", looks.get());
        }
        let never = async |_| panic!("a page is read as it is");
        assert_eq!(last_early(40, 200, never).await.unwrap(), 40);
        assert_eq!(last_early(40, 7, never).await.unwrap(), 40, "the feed ends before the replay begins");
    }
}
