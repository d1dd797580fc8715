//! The status document and its parts, as they are written; `fold.rs` makes them.

use serde::{Serialize, Serializer};
use std::collections::BTreeMap;

pub use super::fold::{document, state_of};
use super::time::WireTime;
use crate::domain::command::{Command, Kind, ShipTo};
use crate::domain::estimate::Estimate;
use crate::domain::fact::Recorded;
use crate::domain::ids::{LineNo, Quantity, TransactionId};
use crate::domain::sscc::Sscc;
use crate::domain::state::State;

/// What a document is made of.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The transaction.
    pub id: TransactionId,
    /// Its client's name; `None` for what the house began by itself.
    pub client: Option<&'a str>,
    /// The code of the warehouse it lives in.
    pub warehouse: &'a str,
    /// What was asked for.
    pub command: &'a Command,
    /// What happened; the first is `Accepted`.
    pub facts: &'a [Recorded],
    /// The cartons of a closed manifest; empty for every other kind.
    pub cartons: &'a [Sscc],
}

/// A transaction as a client sees it.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "the fields are the contract's own names")]
pub struct StatusDocument<'a> {
    pub transaction_id: TransactionId,
    pub kind: WireKind,
    pub reference: &'a str,
    pub client: Option<&'a str>,
    pub warehouse: &'a str,
    pub state: WireState,
    pub done: bool,
    pub outcome: Option<&'static str>,
    pub attention: bool,
    pub cancel_requested: bool,
    pub version: u32,
    pub correlation_id: &'a str,
    pub trace_id: String,
    pub accepted_at: WireTime,
    pub updated_at: WireTime,
    pub estimate: Option<EstimateItem>,
    #[serde(flatten)]
    pub detail: Detail<'a>,
    pub exceptions: Vec<ExceptionItem>,
    pub history: Vec<HistoryItem>,
    pub actions: Vec<&'static str>,
    pub links: Links,
    /// Personal data: only where the caller asked for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ship_to: Option<ShipTo>,
}

/// A kind, written by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireKind(pub Kind);

impl WireKind {
    /// The name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.0.as_str()
    }
}

impl Serialize for WireKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// A state, written by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireState(pub State);

impl WireState {
    /// The name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.0.as_str()
    }
}

impl Serialize for WireState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// What only one kind of transaction has.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
#[expect(missing_docs, reason = "the fields are the contract's own names")]
pub enum Detail<'a> {
    Order {
        service_level: &'a str,
        allocation: &'static str,
        priority: u8,
        not_before: Option<WireTime>,
        requested_ship_by: Option<WireTime>,
        /// Left out of events.
        #[serde(skip_serializing_if = "Option::is_none")]
        metadata: Option<&'a BTreeMap<String, String>>,
        lines: Vec<LineItem<'a>>,
        fulfillments: Vec<Fulfillment<'a>>,
    },
    Move {
        r#type: &'static str,
        sku: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        quantity: Option<Quantity>,
        #[serde(skip_serializing_if = "Option::is_none")]
        delta: Option<i32>,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<&'static str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        counted: Option<Quantity>,
    },
    Cancellation {
        order: TransactionId,
        lines: Vec<CancelledLine>,
    },
    Manifest {
        carrier: &'a str,
        service_level: &'a str,
        manifest_ids: Vec<TransactionId>,
        cartons: Vec<String>,
    },
}

/// One line of an order and where its units are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the fields are the contract's own names")]
pub struct LineItem<'a> {
    pub line: LineNo,
    pub sku: &'a str,
    pub ordered: Quantity,
    pub reserved: Quantity,
    pub picked: Quantity,
    pub shipped: Quantity,
    pub backordered: Quantity,
    pub cancelled: Quantity,
}

/// What one warehouse does for an order.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "the fields are the contract's own names")]
pub struct Fulfillment<'a> {
    pub id: String,
    pub warehouse: &'a str,
    pub state: WireState,
    pub lines: Vec<LineQuantity>,
    pub cartons: Vec<CartonItem<'a>>,
}

/// Units of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the fields are the contract's own names")]
pub struct LineQuantity {
    pub line: LineNo,
    pub quantity: Quantity,
}

/// What a cancellation took out of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the fields are the contract's own names")]
pub struct CancelledLine {
    pub line: LineNo,
    pub cancelled: Quantity,
}

/// A packed carton.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "the fields are the contract's own names")]
pub struct CartonItem<'a> {
    pub sscc: String,
    pub carrier: String,
    pub service_level: &'a str,
    pub tracking_number: Option<String>,
    pub weight_g: Option<u32>,
    pub manifest_id: Option<TransactionId>,
    pub lines: Vec<LineQuantity>,
}

/// Something the client should know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the fields are the contract's own names")]
pub struct ExceptionItem {
    pub code: &'static str,
    pub detail: String,
    pub at: WireTime,
    pub line: Option<LineNo>,
}

/// One version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the fields are the contract's own names")]
pub struct HistoryItem {
    pub version: u32,
    pub state: WireState,
    pub at: WireTime,
    pub detail: String,
}

/// When an order will probably ship.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the fields are the contract's own names")]
pub struct EstimateItem {
    pub position: u64,
    pub shipped_p50: WireTime,
    pub shipped_p90: WireTime,
}

impl From<Estimate> for EstimateItem {
    fn from(estimate: Estimate) -> Self {
        EstimateItem {
            position: estimate.position,
            shipped_p50: WireTime(estimate.shipped_p50),
            shipped_p90: WireTime(estimate.shipped_p90),
        }
    }
}

/// Where to go on from a transaction; names only what exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the fields are the contract's own names")]
pub struct Links {
    pub status: String,
    pub events: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancel: Option<String>,
}

impl Links {
    /// The links of a transaction.
    #[must_use]
    pub fn of(id: TransactionId, kind: Kind) -> Links {
        let cancel = match kind {
            Kind::Order => Some(format!("/v1/orders/{id}/cancel")),
            Kind::Move | Kind::Cancellation | Kind::Manifest => None,
        };
        Links { status: format!("/v1/status/{id}"), events: format!("/v1/status/{id}/events"), cancel }
    }
}
