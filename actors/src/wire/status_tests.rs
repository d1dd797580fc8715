//! Documents of orders that went their way, at every version.

use super::*;
use crate::domain::command::{Allocation, OrderLine, Priority};
use crate::domain::fact::{
    Accepted, CancelCause, Carton, ExceptionCode, ManifestFact, MissingCause, MoveFact, OrderFact, Units,
};
use crate::domain::ids::{PartitionId, TraceContext};
use crate::domain::time::Timestamp;
use serde_json::{Value, json};
use smallvec::smallvec;

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
        OrderFact::Packed { n: 1, picked: Units::Whole, cartons: vec![carton], carrier: "ups".to_owned() },
        OrderFact::Manifested { manifest: id(91), cartons: smallvec![sscc] },
        OrderFact::Shipped { manifest: id(91) },
    ];
    recorded(std::iter::once(accepted()).chain(facts.into_iter().map(Fact::Order)).collect())
}

fn at(command: &Command, facts: &[Recorded], version: Option<u32>) -> Option<Value> {
    let source = Source { id: id(1), client: Some("acme"), warehouse: "ATL1", command, facts, cartons: &[] };
    document(&source, version).map(|d| serde_json::to_value(&d).unwrap())
}

#[test]
fn every_version_of_an_order_can_be_read_and_only_those() {
    let (command, facts) = (order(Allocation::ShipComplete), shipped_in_full());
    let states: Vec<Value> =
        (1..=8).map(|v| at(&command, &facts, Some(v)).unwrap()["state"].clone()).collect();
    let way = ["accepted", "accepted", "allocated", "released", "picking", "packed", "manifested", "shipped"];
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
        "links": {"status": format!("/v1/status/{}", id(1)), "cancel": format!("/v1/orders/{}/cancel", id(1))},
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
        OrderFact::Cancelled { cause: CancelCause::Request(id(2)), release: None, units: smallvec![(20, 2)] },
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
    let document = at(&receipt, &recorded(vec![accepted(), Fact::Move(MoveFact::Applied)]), None).unwrap();
    assert_eq!((&document["state"], &document["done"]), (&json!("applied"), &json!(true)));
    assert_eq!((&document["type"], &document["quantity"]), (&json!("receipt"), &json!(7)));
    assert_eq!(document["links"], json!({"status": format!("/v1/status/{}", id(1))}));

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
