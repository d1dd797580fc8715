//! An event as it stands on the wire: one version of a transaction as a CloudEvent 1.0 in JSON, its
//! type, and the filters by type that readers name.
//!
//! An event is rendered when it is read; what is stored is a pointer. The same version gives the
//! same event for ever, so a reader can tell a repeat by its `id`.

use bytes::Bytes;
use serde::{Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

use super::status::{Detail, Source, StatusDocument, document};
use super::time::WireTime;
use crate::domain::command::{Kind, ShipTo};
use crate::domain::fact::{Accepted, Fact, OrderFact};
use crate::domain::ids::TransactionId;
use crate::domain::promise::ToldEstimate;
use crate::domain::state::State;

/// What an event is about: the CloudEvent's `type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventType {
    /// `wavegate.order.exception`: the fact is an exception.
    Exception,
    /// `wavegate.order.estimate_changed`: about no fact of the order, but when it will probably ship.
    EstimateChanged,
    /// `wavegate.<kind>.<state>`: any other fact, with the state after it.
    State(Kind, State),
    /// `wavegate.endpoint.disabled`: about a webhook endpoint, and no transaction.
    EndpointDisabled,
    /// `wavegate.inventory.changed`: about a position, and no transaction.
    InventoryChanged,
}

impl EventType {
    /// The type of a fact's event; `state` is the transaction's after it.
    #[must_use]
    pub fn of(fact: &Fact, kind: Kind, state: State) -> EventType {
        match fact {
            Fact::Order(OrderFact::Exception { .. } | OrderFact::Missing { .. }) => EventType::Exception,
            Fact::Order(
                OrderFact::Allocated { .. }
                | OrderFact::Backordered
                | OrderFact::Released { .. }
                | OrderFact::Picking { .. }
                | OrderFact::Packed { .. }
                | OrderFact::Manifested { .. }
                | OrderFact::Shipped { .. }
                | OrderFact::CancelAsked { .. }
                | OrderFact::CancelWithdrawn { .. }
                | OrderFact::Cancelled { .. }
                | OrderFact::Refused { .. }
                | OrderFact::Failed { .. }
                | OrderFact::Redriven
                | OrderFact::GivenUp
                | OrderFact::ShippedAlone { .. },
            )
            | Fact::Accepted(_)
            | Fact::Move(_)
            | Fact::Cancellation(_)
            | Fact::Manifest(_) => EventType::State(kind, state),
        }
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EventType::Exception => f.write_str("wavegate.order.exception"),
            EventType::EstimateChanged => f.write_str("wavegate.order.estimate_changed"),
            EventType::EndpointDisabled => f.write_str("wavegate.endpoint.disabled"),
            EventType::InventoryChanged => f.write_str("wavegate.inventory.changed"),
            EventType::State(kind, state) => write!(f, "wavegate.{}.{}", kind.as_str(), state.as_str()),
        }
    }
}

impl Serialize for EventType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What of a transaction goes into an event's `data` beside what every reader sees.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Include {
    /// The order's `metadata`.
    pub metadata: bool,
    /// Personal data, for who asked for it.
    pub ship_to: Option<ShipTo>,
}

/// A CloudEvent 1.0 (JSON format) with our extensions `feedsequence`, `correlationid` and
/// `traceparent`.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "the fields are the contract's own names")]
pub struct CloudEvent<'a> {
    pub specversion: &'static str,
    pub id: String,
    pub r#type: EventType,
    pub source: String,
    pub subject: TransactionId,
    pub time: WireTime,
    pub datacontenttype: &'static str,
    /// Absent in events of transactions that belong to no client: the house has no feed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub feedsequence: Option<String>,
    pub correlationid: &'a str,
    pub traceparent: String,
    pub data: StatusDocument<'a>,
}

impl<'a> CloudEvent<'a> {
    /// The event of a version; `None` when the transaction has no such version. `sequence` is its
    /// number in its client's feed.
    #[must_use]
    pub fn of(source: &Source<'a>, version: u32, sequence: Option<u64>, include: Include) -> Option<Self> {
        let mut data = document(source, Some(version))?;
        let Fact::Accepted(Accepted { trace, .. }) = &source.facts.first()?.fact else { return None };
        let recorded = source.facts.get(usize::try_from(version).ok()?.checked_sub(1)?)?;
        if let (Detail::Order { metadata, .. }, false) = (&mut data.detail, include.metadata) {
            *metadata = None;
        }
        data.ship_to = include.ship_to;
        Some(CloudEvent {
            specversion: "1.0",
            id: event_id(source.id, version),
            r#type: EventType::of(&recorded.fact, data.kind.0, data.state.0),
            source: format!("/warehouses/{}", source.warehouse),
            subject: source.id,
            time: WireTime(recorded.at),
            datacontenttype: "application/json",
            feedsequence: sequence.map(|n| format!("{n:020}")),
            correlationid: data.correlation_id,
            traceparent: trace.traceparent(),
            data,
        })
    }

    /// The event that tells of an estimate, beside the version that the order was at then.
    #[must_use]
    pub fn of_estimate(source: &Source<'a>, told: &ToldEstimate, include: Include) -> Option<Self> {
        let mut event = CloudEvent::of(source, told.version, Some(told.sequence), include)?;
        event.id = estimate_id(source.id, told.version, told.sequence);
        event.r#type = EventType::EstimateChanged;
        event.time = WireTime(told.at);
        event.data.estimate = Some(told.estimate.into());
        Some(event)
    }
}

/// `<transaction>.<version>.e<n>`; n is the event's number in its feed.
#[must_use]
pub fn estimate_id(id: TransactionId, version: u32, sequence: u64) -> String {
    format!("{}.e{sequence}", event_id(id, version))
}

/// `<transaction>.<version>`: the same on every resend of an event.
#[must_use]
pub fn event_id(id: TransactionId, version: u32) -> String {
    format!("{id}.{version}")
}

/// One server-sent event (WHATWG HTML §9.2) as it is written. `data` is one line, as JSON without
/// line breaks is: in it every control character is escaped.
#[must_use]
pub fn frame(id: &str, event: &str, data: &[u8]) -> Frame {
    let mut text = Vec::with_capacity(id.len() + event.len() + data.len() + 24);
    for part in [b"id: ", id.as_bytes(), b"\nevent: ", event.as_bytes(), b"\ndata: "] {
        text.extend_from_slice(part);
    }
    let at = text.len();
    text.extend_from_slice(data);
    text.extend_from_slice(b"\n\n");
    let text = Bytes::from(text);
    Frame { data: text.slice(at..at + data.len()), text }
}

/// A written server-sent event, and its data within it: both share their bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The whole, with the empty line that ends it.
    pub text: Bytes,
    /// What stands behind `data: `.
    pub data: Bytes,
}

/// Which types of event a reader wants: a list, each exact or ending in `.*`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TypeFilter(Vec<Pattern>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    Exact(String),
    /// With its last dot.
    Below(String),
}

impl TypeFilter {
    /// The most patterns of a filter: more than there are types.
    pub const PATTERNS_MAX: usize = 64;

    /// The longest pattern, in bytes: longer than any type.
    pub const PATTERN_BYTES_MAX: usize = 128;

    /// Reads patterns; one of no known shape is none. A name that no event has yet is a name.
    #[must_use]
    pub fn new<'p>(patterns: impl IntoIterator<Item = &'p str>) -> Option<TypeFilter> {
        let read: Option<Vec<Pattern>> = patterns.into_iter().map(Pattern::read).collect();
        read.filter(|all| (1..=Self::PATTERNS_MAX).contains(&all.len())).map(TypeFilter)
    }

    /// True when an event of this type is wanted. A filter without patterns wants everything.
    #[must_use]
    pub fn passes(&self, of: EventType) -> bool {
        self.0.is_empty() || self.passes_name(&of.to_string())
    }

    /// The same by the type's name.
    #[must_use]
    pub fn passes_name(&self, name: &str) -> bool {
        self.0.is_empty()
            || self.0.iter().any(|pattern| match pattern {
                Pattern::Exact(exact) => exact == name,
                Pattern::Below(above) => name.len() > above.len() && name.starts_with(above.as_str()),
            })
    }

    /// The patterns as they were written.
    pub fn patterns(&self) -> impl Iterator<Item = String> + '_ {
        self.0.iter().map(|pattern| match pattern {
            Pattern::Exact(exact) => exact.clone(),
            Pattern::Below(above) => format!("{above}*"),
        })
    }
}

impl Pattern {
    fn read(text: &str) -> Option<Pattern> {
        if text.len() > TypeFilter::PATTERN_BYTES_MAX {
            return None;
        }
        let (name, below) = match text.strip_suffix(".*") {
            Some(name) => (name, true),
            None => (text, false),
        };
        let part = |p: &str| !p.is_empty() && p.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        if !name.split('.').all(part) {
            return None;
        }
        Some(if below { Pattern::Below(format!("{name}.")) } else { Pattern::Exact(name.to_owned()) })
    }
}

impl FromStr for TypeFilter {
    type Err = MalformedFilter;

    /// Reads a list with commas, as in `?types=`.
    fn from_str(list: &str) -> Result<Self, MalformedFilter> {
        TypeFilter::new(list.split(',').map(str::trim)).ok_or(MalformedFilter)
    }
}

/// Not a list of types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to 64 types, each exact or ending in .*")]
pub struct MalformedFilter;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::command::{Allocation, Command, OrderCommand, OrderLine, Priority};
    use crate::domain::estimate::Estimate;
    use crate::domain::fact::{ExceptionCode, Recorded};
    use crate::domain::ids::{PartitionId, TraceContext};
    use crate::domain::time::Timestamp;
    use serde_json::{Value, json};
    use smallvec::smallvec;

    fn order(reference: &str) -> Command {
        Command::Order(OrderCommand {
            reference: reference.parse().unwrap(),
            warehouse: None,
            service_level: "ground".to_owned(),
            allocation: Allocation::ShipComplete,
            priority: Priority::default(),
            not_before: None,
            requested_ship_by: None,
            lines: vec![OrderLine { line: 1, sku: "A".parse().unwrap(), quantity: 2 }],
            metadata: [("channel".to_owned(), "web".to_owned())].into(),
        })
    }

    fn facts() -> Vec<Recorded> {
        let trace: TraceContext = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse().unwrap();
        let at = |ms, fact| Recorded { at: Timestamp(ms), fact };
        vec![
            at(1_000, Fact::Accepted(Accepted { correlation: "corr-1".parse().unwrap(), trace })),
            at(
                2_000,
                Fact::Order(OrderFact::Exception { code: ExceptionCode::UnknownSku, lines: smallvec![1] }),
            ),
            at(3_000, Fact::Order(OrderFact::Backordered)),
        ]
    }

    fn written(command: &Command, version: u32, include: Include) -> Option<Value> {
        let facts = facts();
        let id = TransactionId::new(Timestamp(1_000), PartitionId(1), 7);
        let source =
            Source { id, client: Some("acme"), warehouse: "ATL1", command, facts: &facts, cartons: &[] };
        let event = CloudEvent::of(&source, version, Some(42), include)?;
        Some(serde_json::to_value(&event).unwrap())
    }

    #[test]
    fn an_event_is_a_cloud_event_with_the_document_of_its_version() {
        let found = written(&order("WEB-1"), 2, Include::default()).unwrap();
        let id = TransactionId::new(Timestamp(1_000), PartitionId(1), 7);
        for (field, value) in [
            ("specversion", json!("1.0")),
            ("id", json!(format!("{id}.2"))),
            ("type", json!("wavegate.order.exception")),
            ("source", json!("/warehouses/ATL1")),
            ("subject", json!(id)),
            ("time", json!("1970-01-01T00:00:02.000Z")),
            ("feedsequence", json!("00000000000000000042")),
            ("correlationid", json!("corr-1")),
            ("traceparent", json!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")),
        ] {
            assert_eq!(found[field], value, "{field}");
        }
        let data = &found["data"];
        assert_eq!((&data["version"], &data["state"]), (&json!(2), &json!("accepted")));
        assert_eq!(data["estimate"], Value::Null);
        assert!(data.get("metadata").is_none() && data.get("ship_to").is_none());
        let third = written(&order("WEB-1"), 3, Include::default()).unwrap();
        assert_eq!(third["type"], "wavegate.order.backordered");
        assert_eq!(written(&order("WEB-1"), 4, Include::default()), None);
        assert_eq!(written(&order("WEB-1"), 0, Include::default()), None);
    }

    #[test]
    fn an_estimate_is_told_beside_a_version_and_is_no_part_of_it() {
        let (facts, command) = (facts(), order("WEB-1"));
        let id = TransactionId::new(Timestamp(1_000), PartitionId(1), 7);
        let source = Source {
            id,
            client: Some("acme"),
            warehouse: "ATL1",
            command: &command,
            facts: &facts,
            cartons: &[],
        };
        let estimate =
            Estimate { position: 12, shipped_p50: Timestamp(60_000), shipped_p90: Timestamp(90_500) };
        let told = ToldEstimate { sequence: 77, version: 1, at: Timestamp(9_000), estimate };
        let event = CloudEvent::of_estimate(&source, &told, Include::default()).unwrap();
        let found = serde_json::to_value(&event).unwrap();
        for (field, value) in [
            ("id", json!(format!("{id}.1.e77"))),
            ("type", json!("wavegate.order.estimate_changed")),
            ("source", json!("/warehouses/ATL1")),
            ("subject", json!(id)),
            ("time", json!("1970-01-01T00:00:09.000Z")),
            ("feedsequence", json!("00000000000000000077")),
            ("correlationid", json!("corr-1")),
        ] {
            assert_eq!(found[field], value, "{field}");
        }
        let mut data = found["data"].clone();
        let said = data["estimate"].take();
        let times = json!({"position": 12, "shipped_p50": "1970-01-01T00:01:00.000Z",
            "shipped_p90": "1970-01-01T00:01:30.500Z"});
        assert_eq!(said, times);
        // The rest is the document of the version, which carries none.
        assert_eq!(data, written(&command, 1, Include::default()).unwrap()["data"]);
        let beyond = ToldEstimate { version: 4, ..told };
        assert!(CloudEvent::of_estimate(&source, &beyond, Include::default()).is_none());
    }

    #[test]
    fn who_asks_for_metadata_gets_it() {
        let include = Include { metadata: true, ship_to: None };
        let found = written(&order("WEB-1"), 1, include).unwrap();
        assert_eq!(found["data"]["metadata"], json!({"channel": "web"}));
    }

    #[test]
    fn no_reference_breaks_out_of_its_line() {
        for reference in ["a\u{2028}b\u{2029}c", "\"}\\ndata: x", "data: y", "📦"] {
            let event = written(&order(reference), 1, Include::default()).unwrap();
            let data = serde_json::to_vec(&event).unwrap();
            let frame = frame("c", "wavegate.order.accepted", &data);
            let text = std::str::from_utf8(&frame.text).unwrap();
            assert!(!text.contains('\r'));
            let lines: Vec<&str> = text.split('\n').collect();
            let [id, event, line, "", ""] = lines.as_slice() else { panic!("{lines:?}") };
            assert_eq!((*id, *event), ("id: c", "event: wavegate.order.accepted"));
            let read: Value = serde_json::from_str(line.strip_prefix("data: ").unwrap()).unwrap();
            assert_eq!(read["data"]["reference"], reference);
            assert_eq!(frame.data, data);
        }
    }

    #[test]
    fn a_filter_is_exact_or_everything_below() {
        let shipped = EventType::State(Kind::Order, State::Shipped);
        for (list, passes) in [
            ("wavegate.order.shipped", true),
            ("wavegate.order.*", true),
            ("wavegate.*", true),
            ("wavegate.move.*, wavegate.order.shipped", true),
            ("wavegate.order.ship.*", false),
            ("wavegate.order", false),
            ("wavegate.order.shipped.*", false),
            ("wavegate.move.*", false),
            ("wavegate.order.exception", false),
            ("wavegate.order.estimate_changed", false),
        ] {
            let filter: TypeFilter = list.parse().unwrap();
            assert_eq!(filter.passes(shipped), passes, "{list}");
        }
        for bad in
            ["", "*", ".*", "a,,b", "wavegate.*.shipped", "wavegate.order.*.*", "Wavegate", "a..b", "a b"]
        {
            assert_eq!(bad.parse::<TypeFilter>(), Err(MalformedFilter), "{bad}");
        }
        let all: TypeFilter = TypeFilter::default();
        assert!(all.passes(shipped) && all.passes(EventType::Exception));
        let estimates: TypeFilter = "wavegate.order.estimate_changed".parse().unwrap();
        assert!(estimates.passes(EventType::EstimateChanged) && !estimates.passes(shipped));
    }
}
