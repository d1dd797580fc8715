//! Stock as a client sees it: a position, and the event that says that it changed.

use serde::Serialize;
use std::fmt::Write as _;

use super::event::EventType;
use super::time::WireTime;
use crate::domain::ids::{CorrelationId, Sku, TraceContext};
use crate::domain::stock::Position;
use crate::domain::time::Timestamp;

/// A position on the wire.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "the fields are the contract's own names")]
pub struct StockView<'a> {
    pub owner: &'a str,
    pub sku: &'a str,
    pub on_hand: i64,
    pub reserved: u64,
    pub suspect: u64,
    pub available: u64,
    pub in_transit: u64,
    pub backordered: u64,
    pub shortfall: u64,
}

impl<'a> StockView<'a> {
    /// A position of a client.
    #[must_use]
    pub fn new(owner: &'a str, sku: &'a Sku, position: &Position) -> StockView<'a> {
        StockView {
            owner,
            sku: sku.as_str(),
            on_hand: position.on_hand,
            reserved: position.reserved,
            suspect: position.suspect,
            available: position.available(),
            in_transit: position.in_transit,
            backordered: position.backordered,
            shortfall: position.shortfall,
        }
    }
}

/// What the feed says when a position has changed.
#[derive(Clone, Copy, Debug)]
pub struct Changed<'a> {
    /// The event's id, by [`changed_id`].
    pub id: &'a str,
    /// Its number in the feed.
    pub sequence: u64,
    /// The code of the warehouse.
    pub warehouse: &'a str,
    /// When it was told.
    pub at: Timestamp,
    /// Of the event.
    pub correlation: &'a CorrelationId,
    /// Of the event.
    pub trace: &'a TraceContext,
}

#[derive(Serialize)]
struct StockEvent<'a> {
    specversion: &'static str,
    id: &'a str,
    r#type: EventType,
    source: String,
    subject: &'a str,
    time: WireTime,
    datacontenttype: &'static str,
    feedsequence: String,
    correlationid: &'a str,
    traceparent: String,
    data: StockView<'a>,
}

/// The event `wavegate.inventory.changed`, as JSON; its data is the position.
#[must_use]
pub fn changed(said: Changed<'_>, data: StockView<'_>) -> Vec<u8> {
    let event = StockEvent {
        specversion: "1.0",
        id: said.id,
        r#type: EventType::InventoryChanged,
        source: format!("/warehouses/{}", said.warehouse),
        subject: data.sku,
        time: WireTime(said.at),
        datacontenttype: "application/json",
        feedsequence: feedsequence(said.sequence),
        correlationid: said.correlation.as_str(),
        traceparent: said.trace.traceparent(),
        data,
    };
    serde_json::to_vec(&event).expect("texts, numbers and a time are JSON")
}

fn feedsequence(sequence: u64) -> String {
    format!("{sequence:020}")
}

/// `<warehouse>.<sku>.<feedsequence>`. A webhook carries the id in a header too, so what of a SKU
/// cannot stand there, and the sign itself, is percent-encoded (RFC 3986 §2.1).
#[must_use]
pub fn changed_id(warehouse: &str, sku: &Sku, sequence: u64) -> String {
    let mut id = format!("{warehouse}.");
    for byte in sku.as_str().bytes() {
        match byte {
            b'!'..=b'~' if byte != b'%' => id.push(char::from(byte)),
            // Writing to a string cannot fail.
            byte => drop(write!(id, "%{byte:02X}")),
        }
    }
    id + "." + &feedsequence(sequence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_the_sku_as_it_is_and_fits_a_header_whatever_that_is() {
        let id = |sku: &str| changed_id("ATL1", &sku.parse().unwrap(), 7);
        assert_eq!(id("TSHIRT-BLK.M/2"), "ATL1.TSHIRT-BLK.M/2.00000000000000000007");
        assert_eq!(id("a b%\u{e9}"), "ATL1.a%20b%25%C3%A9.00000000000000000007");
    }

    #[test]
    fn a_change_is_a_cloud_event_with_the_position() {
        let trace: TraceContext = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse().unwrap();
        let sku: Sku = "A".parse().unwrap();
        let correlation = "corr-1".parse().unwrap();
        let said = Changed {
            id: "ATL1.A.1",
            sequence: 1,
            warehouse: "ATL1",
            at: Timestamp(1_000),
            correlation: &correlation,
            trace: &trace,
        };
        let position = Position { on_hand: 9, reserved: 2, suspect: 1, known: true, ..Position::default() };
        let body = changed(said, StockView::new("acme", &sku, &position));
        let found: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let expected = serde_json::json!({
            "specversion": "1.0", "id": "ATL1.A.1", "type": "wavegate.inventory.changed",
            "source": "/warehouses/ATL1", "subject": "A", "time": "1970-01-01T00:00:01.000Z",
            "datacontenttype": "application/json", "feedsequence": "00000000000000000001",
            "correlationid": "corr-1", "traceparent": trace.traceparent(),
            "data": {"owner": "acme", "sku": "A", "on_hand": 9, "reserved": 2, "suspect": 1, "available": 6,
                "in_transit": 0, "backordered": 0, "shortfall": 0},
        });
        assert_eq!(found, expected);
    }
}
