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

/// A fact.
#[must_use]
pub fn encode_fact(recorded: &Recorded) -> Vec<u8> {
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
    packed(Record::Fact, &RecordedV1 { at: recorded.at, fact })
}

/// Reads a fact.
///
/// # Errors
/// When the bytes are not one, or a newer release's.
pub fn decode_fact(bytes: &[u8]) -> Decoded<Recorded> {
    let RecordedV1 { at, fact } = unpacked(Record::Fact, bytes)?;
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
    Ok(Recorded { at, fact })
}
