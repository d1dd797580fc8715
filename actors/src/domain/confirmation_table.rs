//! Every pair of order state and confirmation, as one table.
//!
//! Rows are situations of an order of one line and two units, columns are reports about its first
//! release. A cell is the state after booking; `=` where the report says nothing new; `x` where it
//! cannot be true and becomes a dead letter.

use super::command::{Allocation, OrderCommand, OrderLine, Priority};
use super::confirmation::{PackedCarton, ReleaseReport};
use super::fact::{LineUnits, OrderFact, Units};
use super::ids::{PartitionId, TransactionId};
use super::order::{Booking, Order};
use super::sscc::Sscc;
use super::state::State;
use super::time::Timestamp;

const TABLE: &str = "
                     | picking    | picked 2   | packed 2   | short 1    | damaged 1  | shipped    | rejected   | cancelled  | refused    | picked 3   | line 9
accepted             | x          | x          | x          | x          | x          | x          | x          | x          | x          | x          | x
backordered          | x          | x          | x          | x          | x          | x          | x          | x          | x          | x          | x
allocated            | x          | x          | x          | x          | x          | x          | x          | x          | x          | x          | x
released             | picking    | picking    | packed     | picking    | picking    | shipped    | failed     | x          | x          | x          | x
released, asked      | picking    | picking    | packed     | picking    | picking    | shipped    | cancelled  | cancelled  | released   | x          | x
picking              | =          | picking    | packed     | picking    | picking    | shipped    | x          | x          | x          | x          | x
picking, 1 short     | =          | x          | x          | =          | picking    | picking    | x          | x          | x          | x          | x
picked               | =          | =          | packed     | x          | x          | shipped    | x          | x          | x          | x          | x
packed               | =          | =          | =          | x          | x          | shipped    | x          | x          | x          | x          | x
manifested           | =          | =          | =          | x          | x          | shipped    | x          | x          | x          | x          | x
shipped              | =          | =          | =          | x          | x          | =          | x          | x          | x          | x          | x
cancelled            | x          | x          | x          | x          | x          | x          | =          | =          | =          | x          | x
failed, rejected     | x          | x          | x          | x          | x          | x          | =          | x          | x          | x          | x
failed, silent       | failed     | failed     | failed     | failed     | failed     | shipped    | failed     | x          | x          | x          | x
";

fn id(n: u64) -> TransactionId {
    TransactionId::new(Timestamp(1), PartitionId(1), n)
}

fn units(quantity: u32) -> LineUnits {
    LineUnits::from_slice(&[(1, quantity)])
}

fn sscc() -> Sscc {
    Sscc::build("0614141".parse().unwrap(), 7)
}

fn packed(quantity: u32) -> ReleaseReport {
    let carton = PackedCarton {
        carton_id: "box".to_owned(),
        tracking_number: None,
        weight_g: None,
        lines: units(quantity),
    };
    ReleaseReport::Packed { lines: LineUnits::new(), cartons: vec![carton] }
}

fn reports() -> Vec<(&'static str, ReleaseReport)> {
    vec![
        ("picking", ReleaseReport::Picking),
        ("picked 2", ReleaseReport::Picked(units(2))),
        ("packed 2", packed(2)),
        ("short 1", ReleaseReport::ShortPick(units(1))),
        ("damaged 1", ReleaseReport::Damaged(units(1))),
        ("shipped", ReleaseReport::Shipped(LineUnits::new())),
        ("rejected", ReleaseReport::Rejected { code: "no".to_owned() }),
        ("cancelled", ReleaseReport::Cancelled),
        ("refused", ReleaseReport::CancelRefused),
        ("picked 3", ReleaseReport::Picked(units(3))),
        ("line 9", ReleaseReport::Picked(LineUnits::from_slice(&[(9, 1)]))),
    ]
}

fn book(order: &mut Order, report: &ReleaseReport) -> Option<usize> {
    let mut booking = Booking::new(order, 1).ok()?;
    booking.add(report).ok()?;
    let facts = booking.facts("ups", &mut sscc);
    for fact in &facts {
        order.apply(fact, Timestamp(3));
    }
    Some(facts.len())
}

/// The order after these facts and reports.
fn order(facts: &[OrderFact], reports: &[ReleaseReport], last: &[OrderFact]) -> Order {
    let command = OrderCommand {
        reference: "o".parse().unwrap(),
        warehouse: None,
        service_level: "ground".to_owned(),
        allocation: Allocation::ShipComplete,
        priority: Priority::default(),
        not_before: None,
        requested_ship_by: None,
        lines: vec![OrderLine { line: 1, sku: "S".parse().unwrap(), quantity: 2 }],
        metadata: Default::default(),
    };
    let mut order = Order::new(id(1), &command, Timestamp(1));
    facts.iter().for_each(|fact| order.apply(fact, Timestamp(2)));
    for report in reports {
        assert!(book(&mut order, report).is_some_and(|facts| facts > 0), "{report:?}");
    }
    last.iter().for_each(|fact| order.apply(fact, Timestamp(2)));
    order
}

fn situations() -> Vec<(&'static str, State, Order)> {
    use State as S;
    let whole = || OrderFact::Allocated { units: Units::Whole };
    let release = || OrderFact::Released { n: 1, wave: id(2), units: Units::Whole };
    let released = || [whole(), release()];
    let request = id(3);
    let asked = |order: Order| {
        let facts = order.cancel(request, None);
        facts.iter().fold(order, |mut order, fact| {
            order.apply(fact, Timestamp(2));
            order
        })
    };
    let answered = |order: Order| {
        let facts = order.cancel_answered(1, None, true);
        facts.iter().fold(order, |mut order, fact| {
            order.apply(fact, Timestamp(2));
            order
        })
    };
    let rejected = |order: Order| {
        let facts = order.rejected_by_wms(1);
        facts.iter().fold(order, |mut order, fact| {
            order.apply(fact, Timestamp(2));
            order
        })
    };
    let manifest = OrderFact::Manifested { manifest: id(4), cartons: [sscc()].into_iter().collect() };
    let shipped = OrderFact::Shipped { manifest: id(4) };
    let silent = order(&released(), &[], &[]).given_up();
    vec![
        ("accepted", S::Accepted, order(&[], &[], &[])),
        ("backordered", S::Backordered, order(&[OrderFact::Backordered], &[], &[])),
        ("allocated", S::Allocated, order(&[whole()], &[], &[])),
        ("released", S::Released, order(&released(), &[], &[])),
        ("released, asked", S::Released, asked(order(&released(), &[], &[]))),
        ("picking", S::Picking, order(&released(), &[ReleaseReport::Picking], &[])),
        ("picking, 1 short", S::Picking, order(&released(), &[ReleaseReport::ShortPick(units(1))], &[])),
        ("picked", S::Picking, order(&released(), &[ReleaseReport::Picked(units(2))], &[])),
        ("packed", S::Packed, order(&released(), &[packed(2)], &[])),
        ("manifested", S::Manifested, order(&released(), &[packed(2)], std::slice::from_ref(&manifest))),
        ("shipped", S::Shipped, order(&released(), &[packed(2)], &[manifest, shipped])),
        ("cancelled", S::Cancelled, answered(asked(order(&released(), &[], &[])))),
        ("failed, rejected", S::Failed, rejected(order(&released(), &[], &[]))),
        ("failed, silent", S::Failed, order(&released(), &[], &silent)),
    ]
}

#[test]
fn every_pair_of_order_state_and_confirmation_is_decided_as_the_table_says() {
    let mut table = format!("\n{:<20}", "");
    for (name, _) in reports() {
        table += &format!(" | {name:<10}");
    }
    for (name, state, order) in situations() {
        assert_eq!(order.state(), state, "{name}");
        table = format!("{}\n{name:<20}", table.trim_end());
        for (_, report) in reports() {
            let mut after = order.clone();
            let cell = match book(&mut after, &report) {
                None => "x",
                Some(0) => "=",
                Some(_) => after.state().as_str(),
            };
            // What was booked says nothing new the second time.
            assert!(
                cell == "x" || book(&mut after, &report).is_none_or(|facts| facts == 0),
                "{name} {report:?}"
            );
            table += &format!(" | {cell:<10}");
        }
    }
    let table = format!("{}\n", table.trim_end());
    assert!(table == TABLE, "{table}");
}
