//! Where a reader goes on: what its cursor says, and what it could have missed if it says nothing
//! that holds here. Never a refusal, and never silence.

use actix_web::http::header::HeaderMap;
use serde::Serialize;
use wavegate_engine::domain::ids::ClientNo;
use wavegate_engine::ports::store::{FeedBounds, StoredTransaction};
use wavegate_engine::ports::turns::{first_of_turn, turn_of};
use wavegate_engine::wire::cursor::Cursor;

use crate::http::problem::Problem;
use crate::http::query::Params;
use crate::http::state::{State, unreadable};
use crate::http::status;

/// The word for the beginning of what is kept.
pub(super) const EARLIEST: &str = "earliest";

/// Characters of a cursor that are repeated to its sender; ours are shorter.
const REQUESTED_MAX: usize = 128;

/// Where a reader begins.
pub(super) struct Start {
    /// The place of the last event that it has seen.
    pub(super) after: u64,
    /// What it is told first.
    pub(super) gap: Option<Gap>,
    /// True when it has seen the last word of a transaction.
    pub(super) ended: bool,
}

/// What could have been missed.
#[derive(Debug, Serialize)]
pub(super) struct Gap {
    /// The cursor that does not hold, cut where it is longer than any of ours.
    pub(super) requested: String,
    /// The cursor of the oldest event that is kept; `null` when none is.
    pub(super) oldest: Option<String>,
    /// Why.
    pub(super) reason: Reason,
}

/// Why a cursor does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Reason {
    /// It is no cursor of ours.
    Malformed,
    /// It is of a feed that was numbered anew since.
    OlderEpoch,
    /// It is of another feed.
    Unknown,
    /// The events behind it are kept no longer.
    Evicted,
    /// No event has come so far.
    BeyondTheEnd,
}

/// The cursor that a caller brings: `Last-Event-ID`, else `?last_event_id=`. An empty one is none.
pub(super) fn last_event_id(headers: &HeaderMap, params: &Params) -> Option<String> {
    let header =
        headers.get("last-event-id").map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let named = header.filter(|text| !text.is_empty());
    named.or_else(|| params.text("last_event_id").filter(|text| !text.is_empty()).map(str::to_owned))
}

/// Where to begin in a client's feed; without a cursor at its end.
pub(super) async fn in_feed(state: &State, client: ClientNo, last: Option<&str>) -> Result<Start, Problem> {
    let bounds = state.engine.feed_bounds(client).await.map_err(|e| unreadable(&e))?;
    let FeedBounds { first, next } = bounds;
    let begin = |after| Start { after, gap: None, ended: false };
    let text = match last.filter(|text| !text.is_empty()) {
        None => return Ok(begin(next - 1)),
        Some(EARLIEST) => return Ok(begin(first - 1)),
        Some(text) => text,
    };
    // Whatever is kept of its turn, something behind it may be missing.
    let is_older = text.parse().is_ok_and(|cursor: Cursor| turn_of(cursor.sequence) < turn_of(next - 1));
    let judged = match judge(state, client, text, bounds) {
        Ok(_) | Err(Reason::Evicted) if is_older => Err(Reason::OlderEpoch),
        Ok(cursor) => Ok(cursor),
        Err(reason) => Err(reason),
    };
    Ok(match judged {
        Ok(cursor) => begin(cursor.sequence),
        Err(reason) => {
            // Of the turns before, something may be missing.
            let first = first.max(first_of_turn(turn_of(next - 1)).min(next));
            let oldest = (first < next).then(|| state.engine.cursor(client, first).to_string());
            Start { after: first - 1, gap: Some(gap(text, oldest, reason)), ended: false }
        }
    })
}

/// Where to begin in a transaction's events; without a cursor at its first. They are kept as long as
/// the transaction is, whatever its client's feed has evicted.
pub(super) async fn in_transaction(
    state: &State,
    of: &StoredTransaction,
    last: Option<&str>,
) -> Result<Start, Problem> {
    let begin = |after, ended| Start { after, gap: None, ended };
    let text = match last.filter(|text| !text.is_empty()) {
        None | Some(EARLIEST) => return Ok(begin(0, false)),
        Some(text) => text,
    };
    let places = state.engine.places_of(of).await.map_err(|e| unreadable(&e))?;
    let newest = places.last().map_or(0, |place| place.at);
    let bounds = match of.client {
        ClientNo::HOUSE => FeedBounds { first: Cursor::version_of(of.id, 0) + 1, next: newest + 1 },
        client => {
            let bounds = state.engine.feed_bounds(client).await.map_err(|e| unreadable(&e))?;
            FeedBounds { first: 1, ..bounds }
        }
    };
    Ok(match judge(state, of.client, text, bounds) {
        Ok(cursor) => {
            let ended = cursor.ended && cursor.sequence >= newest && status::state_of(of).is_final();
            begin(cursor.sequence, ended)
        }
        Err(reason) => {
            let oldest = places.first().map(|place| state.engine.cursor(of.client, place.at).to_string());
            Start { after: 0, gap: Some(gap(text, oldest, reason)), ended: false }
        }
    })
}

/// What a cursor says, if it holds in a feed that keeps this much.
fn judge(state: &State, client: ClientNo, text: &str, bounds: FeedBounds) -> Result<Cursor, Reason> {
    let cursor: Cursor = text.parse().map_err(|_| Reason::Malformed)?;
    if cursor.epoch != state.engine.cursor(client, 0).epoch {
        Err(Reason::OlderEpoch)
    } else if cursor.client != client {
        Err(Reason::Unknown)
    } else if cursor.sequence >= bounds.next {
        Err(Reason::BeyondTheEnd)
    } else if cursor.sequence + 1 < bounds.first {
        Err(Reason::Evicted)
    } else {
        Ok(cursor)
    }
}

fn gap(requested: &str, oldest: Option<String>, reason: Reason) -> Gap {
    Gap { requested: requested.chars().take(REQUESTED_MAX).collect(), oldest, reason }
}

/// What a reader is told that events it had yet to read were evicted meanwhile.
pub(super) fn overtaken(state: &State, client: ClientNo, seen: u64, oldest: u64) -> Gap {
    let cursor = |sequence| state.engine.cursor(client, sequence).to_string();
    gap(&cursor(seen), Some(cursor(oldest)), Reason::Evicted)
}
