//! Facts as they are stored. It must never depend on how a fact looks on the wire.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;

use super::{Decoded, Record, packed, unpacked};
use crate::domain::fact::{Accepted, CancellationFact, Fact, ManifestFact, MoveFact, OrderFact, Recorded};
use crate::domain::ids::{CorrelationId, TraceContext};
use crate::domain::time::Timestamp;

#[derive(Serialize, Deserialize)]
struct RecordedV1<'a> {
    at: Timestamp,
    fact: FactV1<'a>,
}

/// [`Fact`] with the trace context spelled out: that type leaves an absent `tracestate` out, for
/// formats with names, and postcard cannot tell that a field is missing.
#[derive(Serialize, Deserialize)]
enum FactV1<'a> {
    Accepted(AcceptedV1<'a>),
    Order(Cow<'a, OrderFact>),
    Move(MoveFact),
    Cancellation(Cow<'a, CancellationFact>),
    Manifest(ManifestFact),
}

#[derive(Serialize, Deserialize)]
struct AcceptedV1<'a> {
    correlation: Cow<'a, CorrelationId>,
    trace_id: u128,
    parent_id: u64,
    flags: u8,
    state: Cow<'a, Option<String>>,
}

/// A fact and its number in its client's feed.
#[derive(Serialize, Deserialize)]
struct NumberedV1<'a> {
    sequence: u64,
    recorded: RecordedV1<'a>,
}

/// A fact of a transaction that belongs to no client.
#[must_use]
pub fn encode_fact(recorded: &Recorded) -> Vec<u8> {
    packed(Record::Fact, &stored(recorded))
}

/// A fact with its number in its client's feed, so that a transaction's own events are found without
/// a walk over the feed.
#[must_use]
pub fn encode_numbered_fact(sequence: u64, recorded: &Recorded) -> Vec<u8> {
    packed(Record::NumberedFact, &NumberedV1 { sequence, recorded: stored(recorded) })
}

fn stored(recorded: &Recorded) -> RecordedV1<'_> {
    let fact = match &recorded.fact {
        Fact::Accepted(Accepted { correlation, trace }) => FactV1::Accepted(AcceptedV1 {
            correlation: Cow::Borrowed(correlation),
            trace_id: trace.trace_id,
            parent_id: trace.parent_id,
            flags: trace.flags,
            state: Cow::Borrowed(&trace.state),
        }),
        Fact::Order(fact) => FactV1::Order(Cow::Borrowed(fact)),
        Fact::Move(fact) => FactV1::Move(*fact),
        Fact::Cancellation(fact) => FactV1::Cancellation(Cow::Borrowed(fact)),
        Fact::Manifest(fact) => FactV1::Manifest(*fact),
    };
    RecordedV1 { at: recorded.at, fact }
}

/// Reads a fact, numbered or not.
///
/// # Errors
/// When the bytes are not one, or a newer release's.
pub fn decode_fact(bytes: &[u8]) -> Decoded<Recorded> {
    decode_numbered_fact(bytes).map(|(_, recorded)| recorded)
}

/// Reads a fact and its number in its client's feed; `None` when it was stored without one.
///
/// # Errors
/// When the bytes are not one, or a newer release's.
pub fn decode_numbered_fact(bytes: &[u8]) -> Decoded<(Option<u64>, Recorded)> {
    if bytes.first() == Some(&(Record::NumberedFact as u8)) {
        let NumberedV1 { sequence, recorded } = unpacked(Record::NumberedFact, bytes)?;
        return Ok((Some(sequence), read(recorded)));
    }
    Ok((None, read(unpacked(Record::Fact, bytes)?)))
}

fn read(RecordedV1 { at, fact }: RecordedV1<'_>) -> Recorded {
    let fact = match fact {
        FactV1::Accepted(AcceptedV1 { correlation, trace_id, parent_id, flags, state }) => {
            let trace = TraceContext { trace_id, parent_id, flags, state: state.into_owned() };
            Fact::Accepted(Accepted { correlation: correlation.into_owned(), trace })
        }
        FactV1::Order(fact) => Fact::Order(fact.into_owned()),
        FactV1::Move(fact) => Fact::Move(fact),
        FactV1::Cancellation(fact) => Fact::Cancellation(fact.into_owned()),
        FactV1::Manifest(fact) => Fact::Manifest(fact),
    };
    Recorded { at, fact }
}
