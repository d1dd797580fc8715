//! What clients ask for, as parsed: the part of a transaction that never changes.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use super::ids::{LineNo, Quantity, Reference, Sku, TransactionId};
use super::time::Timestamp;

/// The kinds of transaction. A reference is unique per client **and** kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// An order to pick, pack and ship.
    Order,
    /// A change of stock.
    Move,
    /// A request to cancel an order or some of its lines.
    Cancellation,
    /// Cartons handed to a carrier together.
    Manifest,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 4] = [Kind::Order, Kind::Move, Kind::Cancellation, Kind::Manifest];

    /// The kind's name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Order => "order",
            Kind::Move => "move",
            Kind::Cancellation => "cancellation",
            Kind::Manifest => "manifest",
        }
    }

    /// The kind's number in stored keys; never reused.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Kind::Order => 1,
            Kind::Move => 2,
            Kind::Cancellation => 3,
            Kind::Manifest => 4,
        }
    }
}

/// What a transaction is to do, as its client sent it; personal data stands apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// See [`OrderCommand`].
    #[serde(rename = "o")]
    Order(OrderCommand),
    /// See [`MoveCommand`].
    #[serde(rename = "m")]
    Move(MoveCommand),
    /// See [`CancellationCommand`].
    #[serde(rename = "c")]
    Cancellation(CancellationCommand),
    /// See [`ManifestCommand`].
    #[serde(rename = "f")]
    Manifest(ManifestCommand),
}

impl Command {
    /// The command's kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Command::Order(_) => Kind::Order,
            Command::Move(_) => Kind::Move,
            Command::Cancellation(_) => Kind::Cancellation,
            Command::Manifest(_) => Kind::Manifest,
        }
    }

    /// The client's name for it.
    #[must_use]
    pub fn reference(&self) -> &Reference {
        match self {
            Command::Order(c) => &c.reference,
            Command::Move(c) => &c.reference,
            Command::Cancellation(c) => &c.reference,
            Command::Manifest(c) => &c.reference,
        }
    }
}

/// An order. Fields at their default are not stored, so they do not change its digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderCommand {
    /// The client's name for the order.
    pub reference: Reference,
    /// The warehouse's code as sent; `None` lets the house choose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warehouse: Option<String>,
    /// One of the warehouse's configured services.
    pub service_level: String,
    /// What to do when stock does not reach for everything.
    #[serde(default, skip_serializing_if = "is_default")]
    pub allocation: Allocation,
    /// 0 (first) to 9.
    #[serde(default = "Priority::default", skip_serializing_if = "is_default")]
    pub priority: Priority,
    /// Nothing is reserved before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// When the client wants it shipped; part of its rank for scarce stock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_ship_by: Option<Timestamp>,
    /// 1 to 500 lines, numbers unique.
    pub lines: Vec<OrderLine>,
    /// The client's own notes, at most 16 pairs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

/// One line of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderLine {
    /// The client's number for the line.
    #[serde(rename = "n")]
    pub line: LineNo,
    /// What to ship.
    #[serde(rename = "s")]
    pub sku: Sku,
    /// How many units.
    #[serde(rename = "q")]
    pub quantity: Quantity,
}

/// What an order does when stock does not reach for all of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Allocation {
    /// Waits until everything is there, ships once.
    #[default]
    ShipComplete,
    /// Ships what is there, the rest waits.
    ShipPartial,
    /// All lines at allocation, or the order is rejected.
    FillOrKill,
}

impl Allocation {
    /// The policy's name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Allocation::ShipComplete => "ship_complete",
            Allocation::ShipPartial => "ship_partial",
            Allocation::FillOrKill => "fill_or_kill",
        }
    }
}

/// 0 (first) to 9, 5 unless the client says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Priority(pub u8);

impl Default for Priority {
    fn default() -> Self {
        Priority(5)
    }
}

/// Where an order goes: personal data, kept in a record of its own so that it can be erased.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShipTo {
    /// Who receives it.
    pub name: String,
    /// The receiver's company.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub company: Option<String>,
    /// Street lines, at least one.
    pub lines: Vec<String>,
    /// Town or city.
    pub city: String,
    /// State, province or county, free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Postal code; some countries have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postal_code: Option<String>,
    /// ISO 3166-1 alpha-2.
    pub country: String,
    /// Telephone number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phone: Option<String>,
    /// E-mail address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
}

/// A change of stock in one warehouse.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveCommand {
    /// The client's name for the move.
    pub reference: Reference,
    /// The warehouse's code as sent.
    pub warehouse: String,
    /// What is moved.
    pub sku: Sku,
    /// What happens to it.
    pub change: Change,
}

/// What a move does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Units arrive. Clears what is suspect: whoever put them away stood at the place.
    Receipt {
        /// How many.
        quantity: Quantity,
    },
    /// Units are written off, or found.
    Adjustment {
        /// How many more (or fewer) there are; never 0.
        delta: i32,
        /// Why.
        reason: AdjustmentReason,
    },
    /// A cycle count: sets what is on hand and clears what is suspect.
    Count {
        /// How many there are.
        counted: Quantity,
    },
}

impl Change {
    /// The type's name on the wire.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Change::Receipt { .. } => "receipt",
            Change::Adjustment { .. } => "adjustment",
            Change::Count { .. } => "count",
        }
    }
}

/// Why stock was adjusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AdjustmentReason {
    /// Broken.
    Damaged,
    /// Gone.
    Lost,
    /// There after all.
    Found,
    /// Past its date.
    Expired,
    /// Came back from a customer.
    Returned,
    /// The books were wrong.
    Correction,
}

impl AdjustmentReason {
    /// All reasons, for parsing.
    pub const ALL: [AdjustmentReason; 6] = [
        AdjustmentReason::Damaged,
        AdjustmentReason::Lost,
        AdjustmentReason::Found,
        AdjustmentReason::Expired,
        AdjustmentReason::Returned,
        AdjustmentReason::Correction,
    ];

    /// The reason's name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            AdjustmentReason::Damaged => "damaged",
            AdjustmentReason::Lost => "lost",
            AdjustmentReason::Found => "found",
            AdjustmentReason::Expired => "expired",
            AdjustmentReason::Returned => "returned",
            AdjustmentReason::Correction => "correction",
        }
    }
}

/// A request to cancel an order, or some of its lines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancellationCommand {
    /// The client's name for the request; `cancel:<order id>` when it gave none.
    pub reference: Reference,
    /// The order.
    pub order: TransactionId,
    /// Its lines to cancel; `None` means all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lines: Option<Vec<LineNo>>,
}

/// Cartons of one carrier and service that leave together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestCommand {
    /// Its name; the house names its own after the warehouse and the id.
    pub reference: Reference,
    /// The carrier.
    pub carrier: String,
    /// The service level.
    pub service_level: String,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
