//! The status document: a fold of a command and its facts, up to a version.
//!
//! One function gives the document of now, of an old version and of an event. It reads nothing:
//! whoever calls it brings the names that belong to the numbers.

use serde::{Serialize, Serializer};
use std::collections::BTreeMap;

use super::story;
use super::time::WireTime;
use crate::domain::cancellation;
use crate::domain::command::{
    CancellationCommand, Change, Command, Kind, ManifestCommand, MoveCommand, OrderCommand, ShipTo,
};
use crate::domain::estimate::Estimate;
use crate::domain::fact::{CancellationFact, Fact, LineUnits, Recorded};
use crate::domain::ids::{FULFILLMENT, LineNo, Quantity, TransactionId};
use crate::domain::manifest::Manifest;
use crate::domain::movement;
use crate::domain::order::Order;
use crate::domain::release::{PackedCartonState, Release};
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
        metadata: &'a BTreeMap<String, String>,
        lines: Vec<LineItem<'a>>,
        fulfillments: Vec<Fulfillment<'a>>,
    },
    Move {
        r#type: &'static str,
        sku: &'a str,
        quantity: Quantity,
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
        Links { status: format!("/v1/status/{id}"), cancel }
    }
}

/// The document of a transaction as it was at `version`, or as it is now.
///
/// `None` when it has no such version. The estimate and the personal data are left out: the
/// caller adds them where they belong.
#[must_use]
pub fn document<'a>(source: &Source<'a>, version: Option<u32>) -> Option<StatusDocument<'a>> {
    let newest = source.facts.len();
    let upto = version.map_or(newest, |v| usize::try_from(v).unwrap_or(usize::MAX));
    let facts = source.facts.get(..upto)?;
    let (first, last) = (facts.first()?, facts.last()?);
    let Fact::Accepted(accepted) = &first.fact else { return None };
    let mut fold = Fold::begin(source.id, source.command, first);
    let mut history = Vec::with_capacity(facts.len());
    let mut exceptions = Vec::new();
    for (version, recorded) in (1..).zip(facts) {
        fold.apply(recorded);
        history.push(HistoryItem {
            version,
            state: WireState(fold.state()),
            at: WireTime(recorded.at),
            detail: story::detail(&recorded.fact),
        });
        exceptions.extend(story::exceptions(recorded));
    }
    let state = fold.state();
    Some(StatusDocument {
        transaction_id: source.id,
        kind: WireKind(source.command.kind()),
        reference: source.command.reference().as_str(),
        client: source.client,
        warehouse: source.warehouse,
        state: WireState(state),
        done: state.is_final(),
        outcome: fold.outcome(),
        attention: fold.order().is_some_and(Order::is_failed),
        cancel_requested: fold.order().is_some_and(Order::cancel_requested),
        version: u32::try_from(facts.len()).unwrap_or(u32::MAX),
        correlation_id: accepted.correlation.as_str(),
        trace_id: accepted.trace.trace_id_hex(),
        accepted_at: WireTime(first.at),
        updated_at: WireTime(last.at),
        estimate: None,
        detail: detail(source, &fold, facts),
        exceptions,
        history,
        actions: fold.order().filter(|o| cancellable(o)).map(|_| "cancel").into_iter().collect(),
        links: Links::of(source.id, source.command.kind()),
        ship_to: None,
    })
}

/// Where a transaction stands now, without making its document.
#[must_use]
pub fn state_of(id: TransactionId, command: &Command, facts: &[Recorded]) -> State {
    // Every other kind is told by its last fact; only an order's is a function of all of them.
    let Some(first) = facts.first() else { return State::Accepted };
    let mut fold = Fold::begin(id, command, first);
    facts.iter().for_each(|recorded| fold.apply(recorded));
    fold.state()
}

/// A transaction as its facts leave it.
enum Fold {
    Order(Box<Order>),
    Manifest(Manifest),
    Ended(State),
}

impl Fold {
    fn begin(id: TransactionId, command: &Command, first: &Recorded) -> Fold {
        match command {
            Command::Order(order) => Fold::Order(Box::new(Order::new(id, order, first.at))),
            Command::Manifest(_) => Fold::Manifest(Manifest::default()),
            Command::Move(_) | Command::Cancellation(_) => Fold::Ended(State::Accepted),
        }
    }

    fn apply(&mut self, recorded: &Recorded) {
        match (self, &recorded.fact) {
            (Fold::Order(order), Fact::Order(fact)) => order.apply(fact, recorded.at),
            (Fold::Manifest(manifest), Fact::Manifest(fact)) => manifest.apply(*fact),
            (Fold::Ended(state), Fact::Move(fact)) => *state = movement::state_after(*fact),
            (Fold::Ended(state), Fact::Cancellation(fact)) => *state = cancellation::state_after(fact),
            // `Accepted` is the beginning itself; a fact of another kind is never written.
            (
                Fold::Order(_) | Fold::Manifest(_) | Fold::Ended(_),
                Fact::Accepted(_)
                | Fact::Order(_)
                | Fact::Move(_)
                | Fact::Cancellation(_)
                | Fact::Manifest(_),
            ) => {}
        }
    }

    fn state(&self) -> State {
        match self {
            Fold::Order(order) => order.state(),
            Fold::Manifest(manifest) => manifest.state(),
            Fold::Ended(state) => *state,
        }
    }

    fn order(&self) -> Option<&Order> {
        match self {
            Fold::Order(order) => Some(order),
            Fold::Manifest(_) | Fold::Ended(_) => None,
        }
    }

    fn outcome(&self) -> Option<&'static str> {
        let order = self.order().filter(|o| o.is_done())?;
        if order.lines().iter().all(|l| l.shipped == l.ordered) {
            Some("complete")
        } else {
            order.lines().iter().any(|l| l.shipped > 0).then_some("partial")
        }
    }
}

/// Whether a cancellation would find anything to cancel or to ask about.
fn cancellable(order: &Order) -> bool {
    let unreleased = order.lines().iter().any(|l| l.unplaced() + l.allocated > 0);
    unreleased || order.releases().iter().any(|r| !r.begun() && !r.cancellable(None).is_empty())
}

fn detail<'a>(source: &Source<'a>, fold: &Fold, facts: &[Recorded]) -> Detail<'a> {
    match source.command {
        Command::Order(command) => order_detail(source, command, fold.order()),
        Command::Move(MoveCommand { sku, change: Change::Receipt { quantity }, .. }) => {
            Detail::Move { r#type: "receipt", sku: sku.as_str(), quantity: *quantity }
        }
        Command::Cancellation(command) => {
            Detail::Cancellation { order: command.order, lines: cancelled_lines(command, facts) }
        }
        Command::Manifest(ManifestCommand { carrier, service_level, .. }) => Detail::Manifest {
            carrier,
            service_level,
            manifest_ids: vec![source.id],
            cartons: source.cartons.iter().map(Sscc::to_string).collect(),
        },
    }
}

fn order_detail<'a>(source: &Source<'a>, command: &'a OrderCommand, order: Option<&Order>) -> Detail<'a> {
    let line = |(sent, line): (&'a crate::domain::command::OrderLine, _)| -> LineItem<'a> {
        let (order, line): (&Order, &crate::domain::order::Line) = line;
        LineItem {
            line: line.number,
            sku: sent.sku.as_str(),
            ordered: line.ordered,
            reserved: order.reserved(line),
            picked: order.picked(line.number),
            shipped: line.shipped,
            backordered: line.backordered,
            cancelled: line.cancelled + line.refused,
        }
    };
    let lines = order.into_iter().flat_map(|o| o.lines().iter().map(move |l| (o, l)));
    Detail::Order {
        service_level: &command.service_level,
        allocation: command.allocation.as_str(),
        priority: command.priority.0,
        not_before: command.not_before.map(WireTime),
        requested_ship_by: command.requested_ship_by.map(WireTime),
        metadata: &command.metadata,
        lines: command.lines.iter().zip(lines).map(line).collect(),
        fulfillments: order.and_then(|o| fulfillment(source, command, o)).into_iter().collect(),
    }
}

/// An order has one fulfillment, from its first release on; its state is the order's.
fn fulfillment<'a>(source: &Source<'a>, command: &'a OrderCommand, order: &Order) -> Option<Fulfillment<'a>> {
    if order.releases().is_empty() {
        return None;
    }
    let asked = |line: LineNo| -> Quantity {
        let of_line = order.releases().iter().filter_map(|r: &Release| r.line(line));
        of_line.map(|l| l.asked - l.missing() - l.returned).sum()
    };
    let lines = order.lines().iter().map(|l| LineQuantity { line: l.number, quantity: asked(l.number) });
    let cartons = order.releases().iter().flat_map(|r| &r.cartons);
    Some(Fulfillment {
        id: format!("{}.{FULFILLMENT}", source.id),
        warehouse: source.warehouse,
        state: WireState(order.state()),
        lines: lines.filter(|l| l.quantity > 0).collect(),
        cartons: cartons.map(|c| carton(c, &command.service_level)).collect(),
    })
}

fn carton<'a>(packed: &PackedCartonState, service_level: &'a str) -> CartonItem<'a> {
    CartonItem {
        sscc: packed.carton.sscc.to_string(),
        carrier: packed.carrier.clone(),
        service_level,
        tracking_number: packed.carton.tracking_number.clone(),
        weight_g: packed.carton.weight_g,
        manifest_id: packed.manifest,
        lines: quantities(&packed.carton.lines),
    }
}

fn quantities(units: &LineUnits) -> Vec<LineQuantity> {
    units.iter().map(|&(line, quantity)| LineQuantity { line, quantity }).collect()
}

/// What was cancelled; until that is known, the lines asked for, with nothing cancelled.
fn cancelled_lines(command: &CancellationCommand, facts: &[Recorded]) -> Vec<CancelledLine> {
    for recorded in facts {
        match &recorded.fact {
            Fact::Cancellation(CancellationFact::Applied { lines }) => {
                return lines.iter().map(|&(line, cancelled)| CancelledLine { line, cancelled }).collect();
            }
            Fact::Cancellation(CancellationFact::Rejected)
            | Fact::Accepted(_)
            | Fact::Order(_)
            | Fact::Move(_)
            | Fact::Manifest(_) => {}
        }
    }
    command.lines.iter().flatten().map(|&line| CancelledLine { line, cancelled: 0 }).collect()
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
