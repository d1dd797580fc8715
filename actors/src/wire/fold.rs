//! The fold: a command and its facts, up to a version, as a document.
//!
//! One function gives the document of now, of an old version and of an event. It reads nothing:
//! whoever calls it brings the names that belong to the numbers.

use super::status::{
    CancelledLine, CartonItem, Detail, Fulfillment, HistoryItem, LineItem, LineQuantity, Links, Source,
    StatusDocument, WireKind, WireState,
};
use super::story;
use super::time::WireTime;
use crate::domain::cancellation;
use crate::domain::command::{
    CancellationCommand, Change, Command, ManifestCommand, MoveCommand, OrderCommand, OrderLine,
};
use crate::domain::fact::{CancellationFact, Fact, LineUnits, Recorded};
use crate::domain::ids::{FULFILLMENT, LineNo, Quantity, TransactionId};
use crate::domain::manifest::Manifest;
use crate::domain::movement;
use crate::domain::order::{Line, Order};
use crate::domain::release::{PackedCartonState, Release};
use crate::domain::sscc::Sscc;
use crate::domain::state::State;

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
        Command::Move(command) => move_detail(command),
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

fn move_detail(command: &MoveCommand) -> Detail<'_> {
    let sku = command.sku.as_str();
    let (quantity, delta, reason, counted) = match command.change {
        Change::Receipt { quantity } => (Some(quantity), None, None, None),
        Change::Adjustment { delta, reason } => (None, Some(delta), Some(reason.as_str()), None),
        Change::Count { counted } => (None, None, None, Some(counted)),
    };
    Detail::Move { r#type: command.change.as_str(), sku, quantity, delta, reason, counted }
}

fn order_detail<'a>(source: &Source<'a>, command: &'a OrderCommand, order: Option<&Order>) -> Detail<'a> {
    let line = |(sent, line): (&'a OrderLine, _)| -> LineItem<'a> {
        let (order, line): (&Order, &Line) = line;
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
        metadata: Some(&command.metadata),
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
mod tests {
    use super::*;
    use crate::domain::command::{Allocation, Priority};
    use crate::domain::fact::{
        Accepted, CancelCause, Carton, ExceptionCode, ManifestFact, MissingCause, MoveFact, OrderFact, Units,
    };
    use crate::domain::ids::{PartitionId, TraceContext};
    use crate::domain::time::Timestamp;
    use serde_json::{Value, json};
    use smallvec::smallvec;
    use std::collections::BTreeMap;

    const AT: Timestamp = Timestamp(1_795_536_000_000);

    fn id(n: u64) -> TransactionId {
        TransactionId::new(AT, PartitionId(1), n)
    }

    fn accepted() -> Fact {
        Fact::Accepted(Accepted {
            correlation: "corr-1".parse().unwrap(),
            trace: TraceContext { trace_id: 0xabc, parent_id: 1, flags: 1, state: None },
        })
    }

    fn order(allocation: Allocation) -> Command {
        let line = |line, sku: &str, quantity| OrderLine { line, sku: sku.parse().unwrap(), quantity };
        Command::Order(OrderCommand {
            reference: "WEB-1".parse().unwrap(),
            warehouse: None,
            service_level: "ground".to_owned(),
            allocation,
            priority: Priority::default(),
            not_before: None,
            requested_ship_by: Some(AT),
            lines: vec![line(10, "A", 2), line(20, "B", 3)],
            metadata: BTreeMap::new(),
        })
    }

    fn recorded(facts: Vec<Fact>) -> Vec<Recorded> {
        facts.into_iter().zip(0..).map(|(fact, i)| Recorded { at: Timestamp(AT.0 + i), fact }).collect()
    }

    fn shipped_in_full() -> Vec<Recorded> {
        let sscc = "106141412345678908".parse().unwrap();
        let carton = Carton {
            sscc,
            carton_id: None,
            tracking_number: Some("1Z".to_owned()),
            weight_g: Some(900),
            lines: smallvec![(10, 2), (20, 3)],
        };
        let facts = vec![
            OrderFact::Exception { code: ExceptionCode::CutOffMissed, lines: smallvec![] },
            OrderFact::Allocated { units: Units::Whole },
            OrderFact::Released { n: 1, wave: id(90), units: Units::Whole },
            OrderFact::Picking { n: 1, picked: smallvec![] },
            OrderFact::Packed {
                n: 1,
                picked: Units::Whole,
                cartons: vec![carton],
                carrier: "ups".to_owned(),
            },
            OrderFact::Manifested { manifest: id(91), cartons: smallvec![sscc] },
            OrderFact::Shipped { manifest: id(91) },
        ];
        recorded(std::iter::once(accepted()).chain(facts.into_iter().map(Fact::Order)).collect())
    }

    fn at(command: &Command, facts: &[Recorded], version: Option<u32>) -> Option<Value> {
        let source =
            Source { id: id(1), client: Some("acme"), warehouse: "ATL1", command, facts, cartons: &[] };
        document(&source, version).map(|d| serde_json::to_value(&d).unwrap())
    }

    #[test]
    fn every_version_of_an_order_can_be_read_and_only_those() {
        let (command, facts) = (order(Allocation::ShipComplete), shipped_in_full());
        let states: Vec<Value> =
            (1..=8).map(|v| at(&command, &facts, Some(v)).unwrap()["state"].clone()).collect();
        let way =
            ["accepted", "accepted", "allocated", "released", "picking", "packed", "manifested", "shipped"];
        assert_eq!(states, way);
        for no_version in [0, 9, u32::MAX] {
            assert_eq!(at(&command, &facts, Some(no_version)), None);
        }
        assert_eq!(at(&command, &facts, None), at(&command, &facts, Some(8)));
        let history = at(&command, &facts, None).unwrap()["history"].clone();
        assert_eq!(history.as_array().unwrap().len(), 8);
        assert_eq!(history[7]["state"], "shipped");
        assert_eq!(history[7]["version"], 8);
    }

    #[test]
    fn a_shipped_order_reads_as_the_contract_says() {
        let (command, facts) = (order(Allocation::ShipComplete), shipped_in_full());
        let found = at(&command, &facts, None).unwrap();
        let lines = json!([
            {"line": 10, "sku": "A", "ordered": 2, "reserved": 0, "picked": 2, "shipped": 2, "backordered": 0, "cancelled": 0},
            {"line": 20, "sku": "B", "ordered": 3, "reserved": 0, "picked": 3, "shipped": 3, "backordered": 0, "cancelled": 0},
        ]);
        let fulfillments = json!([{
            "id": format!("{}.1", id(1)), "warehouse": "ATL1", "state": "shipped",
            "lines": [{"line": 10, "quantity": 2}, {"line": 20, "quantity": 3}],
            "cartons": [{
                "sscc": "106141412345678908", "carrier": "ups", "service_level": "ground", "tracking_number": "1Z",
                "weight_g": 900, "manifest_id": id(91).to_string(),
                "lines": [{"line": 10, "quantity": 2}, {"line": 20, "quantity": 3}],
            }],
        }]);
        let expected = json!({
            "transaction_id": id(1).to_string(), "kind": "order", "reference": "WEB-1", "client": "acme",
            "warehouse": "ATL1", "state": "shipped", "done": true, "outcome": "complete", "attention": false,
            "cancel_requested": false, "version": 8, "correlation_id": "corr-1",
            "trace_id": "00000000000000000000000000000abc",
            "accepted_at": "2026-11-24T16:00:00.000Z", "updated_at": "2026-11-24T16:00:00.007Z", "estimate": null,
            "service_level": "ground", "allocation": "ship_complete", "priority": 5, "not_before": null,
            "requested_ship_by": "2026-11-24T16:00:00.000Z", "metadata": {},
            "lines": lines, "fulfillments": fulfillments,
            "exceptions": [{
                "code": "cut_off_missed", "detail": "the requested time to ship by cannot be met",
                "at": "2026-11-24T16:00:00.001Z", "line": null,
            }],
            "actions": [],
            "links": {"status": format!("/v1/status/{}", id(1)), "events": format!("/v1/status/{}/events", id(1)), "cancel": format!("/v1/orders/{}/cancel", id(1))},
            "history": found["history"].clone(),
        });
        assert_eq!(found, expected);
    }

    #[test]
    fn the_units_of_a_line_add_up_at_every_version() {
        let missing = |cause, units| OrderFact::Missing { n: 1, cause, units };
        let facts = vec![
            OrderFact::Allocated { units: Units::Lines(smallvec![(10, 2), (20, 1)]) },
            OrderFact::Released { n: 1, wave: id(90), units: Units::Whole },
            OrderFact::Picking { n: 1, picked: smallvec![(10, 1)] },
            missing(MissingCause::ShortPick, smallvec![(10, 1)]),
            OrderFact::Backordered,
            OrderFact::Cancelled {
                cause: CancelCause::Request(id(2)),
                release: None,
                units: smallvec![(20, 2)],
            },
        ];
        let facts = recorded(std::iter::once(accepted()).chain(facts.into_iter().map(Fact::Order)).collect());
        let command = order(Allocation::ShipPartial);
        for version in 1..=7 {
            let document = at(&command, &facts, Some(version)).unwrap();
            for line in document["lines"].as_array().unwrap() {
                let n = |name: &str| line[name].as_u64().unwrap();
                let placed = n("reserved") + n("backordered") + n("shipped") + n("cancelled");
                let unallocated = if version == 1 { n("ordered") } else { 0 };
                assert_eq!(placed + unallocated, n("ordered"), "version {version}: {line}");
                assert!(n("picked") <= n("reserved") + n("shipped"), "version {version}: {line}");
            }
        }
        let last = at(&command, &facts, None).unwrap();
        assert_eq!(last["exceptions"][0]["code"], "short_pick");
        assert_eq!(last["exceptions"][0]["line"], 10);
        assert_eq!(last["actions"], json!(["cancel"]));
        assert_eq!(last["lines"][0]["backordered"], 1);
    }

    #[test]
    fn other_kinds_have_their_own_fields() {
        let receipt = Command::Move(MoveCommand {
            reference: "ASN-1".parse().unwrap(),
            warehouse: "ATL1".to_owned(),
            sku: "A".parse().unwrap(),
            change: Change::Receipt { quantity: 7 },
        });
        let document =
            at(&receipt, &recorded(vec![accepted(), Fact::Move(MoveFact::Applied)]), None).unwrap();
        assert_eq!((&document["state"], &document["done"]), (&json!("applied"), &json!(true)));
        assert_eq!((&document["type"], &document["quantity"]), (&json!("receipt"), &json!(7)));
        let events = format!("/v1/status/{}/events", id(1));
        assert_eq!(document["links"], json!({"status": format!("/v1/status/{}", id(1)), "events": events}));

        let cancel = Command::Cancellation(CancellationCommand {
            reference: "cancel:x".parse().unwrap(),
            order: id(9),
            lines: None,
        });
        let applied = Fact::Cancellation(CancellationFact::Applied { lines: smallvec![(10, 2)] });
        let document = at(&cancel, &recorded(vec![accepted(), applied]), None).unwrap();
        assert_eq!(document["lines"], json!([{"line": 10, "cancelled": 2}]));
        let rejected = Fact::Cancellation(CancellationFact::Rejected);
        let document = at(&cancel, &recorded(vec![accepted(), rejected]), None).unwrap();
        assert_eq!(document["state"], "rejected");
        assert_eq!(document["exceptions"][0]["code"], "too_late_to_cancel");

        let manifest = Command::Manifest(ManifestCommand {
            reference: "M".parse().unwrap(),
            carrier: "ups".to_owned(),
            service_level: "ground".to_owned(),
        });
        let facts = recorded(vec![accepted(), Fact::Manifest(ManifestFact::Closed { cartons: 1 })]);
        let document = at(&manifest, &facts, None).unwrap();
        assert_eq!((&document["state"], &document["done"]), (&json!("closed"), &json!(false)));
        assert_eq!(document["manifest_ids"], json!([id(1).to_string()]));
    }

    #[test]
    fn the_cheap_state_is_the_document_s() {
        let (command, facts) = (order(Allocation::ShipComplete), shipped_in_full());
        for upto in 1..=facts.len() {
            let document = at(&command, &facts[..upto], None).unwrap();
            assert_eq!(document["state"], state_of(id(1), &command, &facts[..upto]).as_str());
        }
    }
}
