//! Property tests of the pure core: a small shop of orders and stock under any sequence of inputs.

use proptest::prelude::*;
use std::collections::BTreeMap;

use super::command::{AdjustmentReason, Allocation, Change, OrderCommand, OrderLine, Priority};
use super::confirmation::{PackedCarton, ReleaseReport};
use super::fact::{FailedCause, LineUnits, MoveFact, OrderFact, Units};
use super::ids::{ClientNo, PartitionId, Sku, TransactionId};
use super::invariants;
use super::order::{Booking, Order};
use super::sscc::Sscc;
use super::state::State;
use super::stock::{Ledger, Placement, Want};
use super::time::Timestamp;

const CLIENT: ClientNo = ClientNo(1);
const MANIFEST_BASE: u64 = 1_000_000;

#[derive(Clone, Debug)]
enum Input {
    Order { allocation: Allocation, lines: Vec<(u8, u32)>, priority: u8 },
    Move { sku: u8, change: Change },
    Release { order: usize },
    Report { order: usize, n: u16, reports: Vec<ReleaseReport>, twice: bool },
    Cancel { order: usize, lines: Option<Vec<u32>> },
    CancelAnswer { order: usize, n: u16, cancelled: bool },
    Reject { order: usize, n: u16 },
    Expire { order: usize },
    SetAside { order: usize },
    Redrive { order: usize },
    GiveUp { order: usize },
    Manifest,
    Depart,
}

fn units() -> impl Strategy<Value = LineUnits> {
    prop::collection::btree_map(1u32..4, 1u32..5, 0..3).prop_map(|m| m.into_iter().collect())
}

fn report() -> impl Strategy<Value = ReleaseReport> {
    // One name is an SSCC: a WMS may put several releases into one carton.
    let name = prop_oneof!["[ab]", Just("106141412345678908".to_owned())];
    let carton = (name, units()).prop_map(|(carton_id, lines)| PackedCarton {
        carton_id,
        tracking_number: None,
        weight_g: None,
        lines,
    });
    prop_oneof![
        Just(ReleaseReport::Picking),
        units().prop_map(ReleaseReport::Picked),
        units().prop_map(ReleaseReport::ShortPick),
        units().prop_map(ReleaseReport::Damaged),
        (prop_oneof![Just(LineUnits::new()), units()], prop::collection::vec(carton, 0..3))
            .prop_map(|(lines, cartons)| ReleaseReport::Packed { lines, cartons }),
        prop_oneof![Just(LineUnits::new()), units()].prop_map(ReleaseReport::Shipped),
        Just(ReleaseReport::Rejected { code: "no".to_owned() }),
        Just(ReleaseReport::Cancelled),
        Just(ReleaseReport::CancelRefused),
    ]
}

/// Inputs about the first `orders` orders: few of them, and each goes through many releases.
fn input(orders: usize) -> impl Strategy<Value = Input> {
    let allocation = prop_oneof![
        Just(Allocation::ShipComplete),
        Just(Allocation::ShipPartial),
        Just(Allocation::FillOrKill)
    ];
    let lines = prop::collection::vec((0u8..3, 1u32..4), 1..4);
    let order = 0..orders;
    let n = 1u16..4;
    prop_oneof![
        3 => (allocation, lines, 0u8..10).prop_map(|(allocation, lines, priority)| Input::Order { allocation, lines, priority }),
        3 => (0u8..3, 1u32..8)
            .prop_map(|(sku, quantity)| Input::Move { sku, change: Change::Receipt { quantity } }),
        1 => (0u8..3, 0u32..8)
            .prop_map(|(sku, counted)| Input::Move { sku, change: Change::Count { counted } }),
        1 => (0u8..3, -3i32..3).prop_map(|(sku, delta)| Input::Move {
            sku,
            change: Change::Adjustment { delta, reason: AdjustmentReason::Correction },
        }),
        4 => order.clone().prop_map(|order| Input::Release { order }),
        6 => (order.clone(), n.clone(), prop::collection::vec(report(), 1..4), any::<bool>())
            .prop_map(|(order, n, reports, twice)| Input::Report { order, n, reports, twice }),
        2 => (order.clone(), prop::option::of(prop::collection::vec(1u32..4, 1..3)))
            .prop_map(|(order, lines)| Input::Cancel { order, lines }),
        2 => (order.clone(), n.clone(), any::<bool>())
            .prop_map(|(order, n, cancelled)| Input::CancelAnswer { order, n, cancelled }),
        1 => (order.clone(), n).prop_map(|(order, n)| Input::Reject { order, n }),
        1 => order.clone().prop_map(|order| Input::Expire { order }),
        1 => order.clone().prop_map(|order| Input::SetAside { order }),
        2 => order.clone().prop_map(|order| Input::Redrive { order }),
        1 => order.prop_map(|order| Input::GiveUp { order }),
        2 => Just(Input::Manifest),
        2 => Just(Input::Depart),
    ]
}

/// Orders, stock, and everything that ever happened to them.
#[derive(Default)]
struct Shop {
    orders: Vec<(OrderCommand, Order, Vec<OrderFact>)>,
    ledger: Ledger,
    /// What moves brought, and what they cleared of suspect.
    moved: BTreeMap<Sku, (i64, u64)>,
    ids: u64,
}

impl Shop {
    fn id(&mut self) -> TransactionId {
        self.ids += 1;
        TransactionId::new(Timestamp(1), PartitionId(1), self.ids)
    }

    /// Records facts as the turn does: the ledger books the footprints' difference.
    fn record(&mut self, i: usize, facts: Vec<OrderFact>) {
        let wants = facts.iter().any(|f| matches!(f, OrderFact::Missing { .. } | OrderFact::Redriven));
        let (before, after) = self.take(i, facts);
        self.ledger.book(CLIENT, &before, &after);
        let id = self.orders[i].1.id;
        self.ledger.forget(id);
        let waiting = self.orders[i].1.waiting();
        self.ledger.remember(CLIENT, waiting);
        // What it wants is said before the offer, as a turn says it, and placed behind it.
        let want = Some(self.orders[i].1.want()).filter(|_| wants);
        self.offer();
        self.want(i, want);
    }

    /// An order that is kept aside wants nothing.
    fn want(&mut self, i: usize, want: Option<Want>) {
        let aside = self.orders[i].1.is_aside();
        if let Some(want) = want.filter(|want| !aside && !want.needs.is_empty()) {
            let placement = self.ledger.reserve(CLIENT, want);
            self.placed(&placement);
        }
    }

    fn take(
        &mut self,
        i: usize,
        facts: Vec<OrderFact>,
    ) -> (Vec<super::order::Footprint>, Vec<super::order::Footprint>) {
        let (_, order, history) = &mut self.orders[i];
        let before = order.footprint();
        for fact in facts {
            assert!(!order.is_done(), "INV-7: {fact:?} after the end of {}", order.id);
            order.apply(&fact, Timestamp(2));
            history.push(fact);
        }
        (before, order.footprint())
    }

    fn offer(&mut self) {
        for placement in self.ledger.offer() {
            self.placed(&placement);
        }
    }

    fn placed(&mut self, placement: &Placement) {
        let i = self.orders.iter().position(|(_, o, _)| o.id == placement.order).unwrap();
        let facts = self.orders[i].1.placed(placement);
        self.take(i, facts);
    }

    fn act(&mut self, input: Input) {
        match input {
            Input::Order { allocation, lines, priority } => self.order(allocation, &lines, priority),
            Input::Move { sku, change } => self.shift(sku_of(sku), change),
            Input::Release { order } => {
                let wave = self.id();
                let Some((_, order_, _)) = self.orders.get(order) else { return };
                if order_.ready_for_wave() {
                    let n = order_.releases().last().map_or(1, |r| r.n + 1);
                    self.record(order, vec![OrderFact::Released { n, wave, units: Units::Whole }]);
                }
            }
            Input::Report { order, n, reports, twice } => self.report(order, n, &reports, twice),
            Input::Cancel { order, lines } => {
                let request = self.id();
                let Some((_, order_, _)) = self.orders.get(order) else { return };
                let facts = order_.cancel(request, lines.as_deref());
                self.record(order, facts);
            }
            Input::CancelAnswer { order, n, cancelled } => {
                let Some((_, order_, _)) = self.orders.get(order) else { return };
                let Some(question) = order_.questions().find(|q| q.release.n == n) else { return };
                let request = Some(question.request);
                let facts = order_.cancel_answered(n, request, cancelled);
                assert!(!facts.is_empty(), "an answer to an open question decides it");
                self.record(order, facts);
                assert!(
                    self.orders[order].1.cancel_answered(n, request, cancelled).is_empty(),
                    "a repeated answer means nothing"
                );
            }
            Input::Reject { order, n } => {
                let Some((_, order_, _)) = self.orders.get(order) else { return };
                let facts = order_.rejected_by_wms(n);
                self.record(order, facts);
                let settled = self.orders[order].1.release(n).is_none_or(super::release::Release::settled);
                assert!(settled, "a release that the WMS rejected gives its credit back");
            }
            Input::Expire { order } => {
                let Some((_, order_, _)) = self.orders.get(order) else { return };
                let facts = order_.expire();
                self.record(order, facts);
            }
            Input::SetAside { order } => {
                let Some((_, order_, _)) = self.orders.get(order) else { return };
                let facts = order_.set_aside(FailedCause::Crashed);
                self.record(order, facts);
                let (_, aside, _) = &self.orders[order];
                assert!(aside.is_done() || (aside.is_aside() && aside.state() == State::Failed));
                assert!(aside.set_aside(FailedCause::Crashed).is_empty(), "it is aside once");
                assert!(aside.questions().next().is_none() && aside.loadable().next().is_none());
                assert!(!aside.ready_for_wave() && aside.waiting().needs.is_empty());
            }
            Input::Redrive { order } => {
                let Some((_, order_, _)) = self.orders.get(order) else { return };
                let facts = order_.redrive().expect("these orders are short");
                assert_eq!(!facts.is_empty(), order_.is_failed());
                self.record(order, facts);
                assert!(!self.orders[order].1.is_failed());
            }
            Input::GiveUp { order } => self.give_up(order),
            Input::Manifest => self.manifest(),
            Input::Depart => self.depart(),
        }
    }

    fn give_up(&mut self, i: usize) {
        let Some((_, order, _)) = self.orders.get(i) else { return };
        let failed = order.is_failed();
        let Ok(facts) = order.give_up() else {
            let packed = order.releases().iter().any(|r| r.cartons.iter().any(|c| !c.departed));
            return assert!(failed && packed, "only cartons stand in the way");
        };
        self.record(i, facts);
        let (_, order, _) = &self.orders[i];
        if failed {
            assert!(order.is_done() && order.footprint().iter().all(|f| f.reserved + f.backordered == 0));
        }
        assert_eq!(order.give_up(), Ok(vec![]), "a repeat means nothing");
    }

    fn shift(&mut self, sku: Sku, change: Change) {
        let Ok(fact) = self.ledger.shift((CLIENT, sku.clone()), change) else { return };
        let (counted, cleared) = match fact {
            MoveFact::Applied | MoveFact::Rejected => (0, 0),
            MoveFact::Replenished { cleared } => (0, cleared),
            MoveFact::Counted { delta, cleared } => (delta, cleared),
        };
        let sums = self.moved.entry(sku).or_default();
        sums.1 += cleared;
        sums.0 += match change {
            Change::Receipt { quantity } => i64::from(quantity),
            Change::Adjustment { delta, reason: _ } => i64::from(delta),
            Change::Count { counted: _ } => counted,
        };
        self.offer();
    }

    fn order(&mut self, allocation: Allocation, lines: &[(u8, u32)], priority: u8) {
        let id = self.id();
        let line = |(i, (sku, quantity)): (usize, &(u8, u32))| OrderLine {
            line: i as u32 + 1,
            sku: sku_of(*sku),
            quantity: *quantity,
        };
        let command = OrderCommand {
            reference: format!("o{}", self.ids).parse().unwrap(),
            warehouse: None,
            service_level: "ground".to_owned(),
            allocation,
            priority: Priority(priority),
            not_before: None,
            requested_ship_by: None,
            lines: lines.iter().enumerate().map(line).collect(),
            metadata: BTreeMap::new(),
        };
        let order = Order::new(id, &command, Timestamp(1));
        let want = order.want();
        self.orders.push((command, order, Vec::new()));
        let placement = self.ledger.reserve(CLIENT, want);
        self.placed(&placement);
    }

    fn report(&mut self, i: usize, n: u16, reports: &[ReleaseReport], twice: bool) {
        for round in 0..=u8::from(twice) {
            let serial = self.ids * 10;
            let Some((_, order, _)) = self.orders.get(i) else { return };
            let Ok(mut booking) = Booking::new(order, n) else { return };
            let good = reports.iter().filter(|report| booking.add(report).is_ok()).count();
            if good == 0 {
                return;
            }
            let mut used = 0;
            let prefix = "0614141".parse().unwrap();
            let facts = booking.facts("ups", &mut || {
                used += 1;
                Sscc::build(prefix, serial + used)
            });
            self.ids += 1;
            assert!(round == 0 || facts.is_empty(), "{reports:?} twice means {facts:?}");
            self.record(i, facts);
        }
    }

    fn manifest(&mut self) {
        let manifest = TransactionId::new(Timestamp(3), PartitionId(1), MANIFEST_BASE + self.ids);
        self.ids += 1;
        for i in 0..self.orders.len() {
            let cartons: smallvec::SmallVec<[Sscc; 2]> =
                self.orders[i].1.loadable().map(|(_, c)| c.carton.sscc).collect();
            if !cartons.is_empty() {
                self.record(i, vec![OrderFact::Manifested { manifest, cartons }]);
            }
        }
    }

    fn depart(&mut self) {
        for i in 0..self.orders.len() {
            let next = self.orders[i].1.manifests().next();
            if let Some(manifest) = next {
                self.record(i, vec![OrderFact::Shipped { manifest }]);
            }
        }
    }

    fn judge(&mut self) {
        let mut sums: BTreeMap<Sku, (u64, u64, u64, u64)> = BTreeMap::new();
        for (command, order, history) in &self.orders {
            assert_eq!(invariants::ships_at_most_once(order), None);
            let mut folded = Order::new(order.id, command, Timestamp(1));
            history.iter().for_each(|fact| folded.apply(fact, Timestamp(2)));
            assert_eq!(&folded, order, "live state is the fold of its facts");
            assert_eq!(order.state().is_final(), order.is_done());
            for foot in order.footprint() {
                let sum = sums.entry(foot.sku).or_default();
                sum.0 += foot.reserved;
                sum.1 += foot.backordered;
                sum.2 += foot.missing;
                sum.3 += foot.shipped;
            }
        }
        for ((_, sku), position) in self.ledger.positions() {
            let (reserved, backordered, missing, shipped) = sums.get(sku).copied().unwrap_or_default();
            let (moved, cleared) = self.moved.get(sku).copied().unwrap_or_default();
            assert_eq!((position.reserved, position.backordered), (reserved, backordered), "{sku}");
            assert_eq!(position.suspect + cleared, missing, "{sku}");
            assert_eq!(invariants::nothing_reserved_twice(sku.as_str(), position), None);
            assert_eq!(invariants::stock_conserved(sku.as_str(), position, moved, shipped), None);
        }
        assert!(self.ledger.offer().is_empty(), "what is free no waiter can use");
    }
}

fn receive(quantity: u32) -> Input {
    Input::Move { sku: 0, change: Change::Receipt { quantity } }
}

fn sku_of(n: u8) -> Sku {
    format!("SKU-{n}").parse().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_sequence_of_inputs_loses_or_invents_a_unit(inputs in prop::collection::vec(input(6), 1..60)) {
        let mut shop = Shop::default();
        for input in inputs {
            shop.act(input);
            shop.judge();
        }
    }

    #[test]
    fn an_order_in_many_releases_loses_or_invents_no_unit(inputs in prop::collection::vec(input(1), 1..80)) {
        let mut shop = Shop::default();
        shop.order(Allocation::ShipPartial, &[(0, 3), (1, 3), (0, 2)], 5);
        for input in inputs {
            shop.act(input);
            shop.judge();
        }
    }
}

#[test]
fn an_order_that_ends_while_the_wms_is_asked_settles_its_request_and_gets_no_late_fact() {
    let mut shop = Shop::default();
    shop.act(receive(1));
    shop.order(Allocation::FillOrKill, &[(0, 1)], 5);
    shop.act(Input::Release { order: 0 });
    shop.act(Input::Cancel { order: 0, lines: None });
    let damaged = ReleaseReport::Damaged(LineUnits::from_slice(&[(1, 1)]));
    let before = shop.orders[0].2.len();
    shop.report(0, 1, &[damaged], false);
    let (_, order, history) = &shop.orders[0];
    assert!(order.is_done());
    assert_eq!(order.settled_requests(&history[before..]).len(), 1, "the request is decided with the end");
    assert!([true, false].iter().all(|cancelled| order.cancel_answered(1, None, *cancelled).is_empty()));
}

#[test]
fn freed_stock_goes_to_the_first_in_rank_that_can_use_it() {
    let mut shop = Shop::default();
    // Three wait for one SKU: late but urgent, early and big, early and small.
    shop.order(Allocation::ShipComplete, &[(0, 5)], 5);
    shop.order(Allocation::ShipComplete, &[(0, 2)], 5);
    shop.order(Allocation::ShipComplete, &[(0, 2)], 0);
    shop.act(receive(4));
    let granted: Vec<bool> = shop.orders.iter().map(|(_, o, _)| o.ready_for_wave()).collect();
    assert_eq!(granted, [false, true, true], "the urgent one, then the one that fits");
    shop.act(receive(5));
    assert!(shop.orders[0].1.ready_for_wave());
    shop.judge();
}

#[test]
fn a_missing_unit_is_allocated_again_from_other_stock_or_waits() {
    let mut shop = Shop::default();
    shop.act(receive(3));
    shop.order(Allocation::ShipComplete, &[(0, 2)], 5);
    shop.act(Input::Release { order: 0 });
    let short = |q| ReleaseReport::ShortPick(LineUnits::from_slice(&[(1, q)]));
    shop.report(0, 1, &[short(1)], false);
    assert!(shop.orders[0].1.ready_for_wave(), "the third unit replaces the missing one");
    shop.report(0, 1, &[short(2)], false);
    assert_eq!(shop.orders[0].1.lines()[0].backordered, 1, "no fourth unit: the second missing one waits");
    shop.judge();
}

#[test]
fn one_carton_of_two_releases_leaves_with_each_of_them() {
    let mut shop = Shop::default();
    shop.order(Allocation::ShipPartial, &[(0, 2)], 5);
    for n in 1..=2 {
        shop.act(receive(1));
        shop.act(Input::Release { order: 0 });
        let carton = PackedCarton {
            carton_id: "106141412345678908".to_owned(),
            tracking_number: None,
            weight_g: None,
            lines: LineUnits::from_slice(&[(1, 1)]),
        };
        shop.report(
            0,
            n,
            &[ReleaseReport::Packed { lines: LineUnits::new(), cartons: vec![carton.clone(), carton] }],
            true,
        );
        shop.act(Input::Manifest);
    }
    shop.act(Input::Depart);
    shop.act(Input::Depart);
    assert!(shop.orders[0].1.is_done());
    shop.judge();
}

#[test]
fn stock_of_several_skus_freed_together_is_offered_in_one_order_of_ranks() {
    let mut shop = Shop::default();
    // The late one wants both SKUs, the urgent one only the second.
    shop.order(Allocation::ShipComplete, &[(0, 1), (1, 1)], 9);
    shop.order(Allocation::ShipComplete, &[(1, 1)], 0);
    for sku in [0, 1] {
        shop.ledger.shift((CLIENT, sku_of(sku)), Change::Receipt { quantity: 1 }).unwrap();
    }
    shop.offer();
    let ready: Vec<bool> = shop.orders.iter().map(|(_, o, _)| o.ready_for_wave()).collect();
    assert_eq!(ready, [false, true]);
}

#[test]
fn what_is_packed_of_a_refused_order_ships_once_the_rest_is_cancelled() {
    let mut shop = Shop::default();
    shop.act(receive(3));
    shop.order(Allocation::ShipComplete, &[(0, 2)], 5);
    shop.act(Input::Release { order: 0 });
    let one = LineUnits::from_slice(&[(1, 1)]);
    let carton =
        PackedCarton { carton_id: "a".to_owned(), tracking_number: None, weight_g: None, lines: one.clone() };
    shop.report(
        0,
        1,
        &[
            ReleaseReport::ShortPick(one),
            ReleaseReport::Packed { lines: LineUnits::new(), cartons: vec![carton] },
        ],
        false,
    );
    shop.act(Input::Release { order: 0 });
    shop.act(Input::Reject { order: 0, n: 2 });
    assert!(shop.orders[0].1.is_failed());
    assert_eq!(shop.orders[0].1.loadable().count(), 0, "it ships complete");
    shop.act(Input::Cancel { order: 0, lines: None });
    shop.act(Input::Manifest);
    shop.act(Input::Depart);
    assert_eq!(shop.orders[0].1.state(), super::state::State::Shipped);
    shop.judge();
}

#[test]
fn an_answer_about_some_lines_decides_no_other_request() {
    let mut shop = Shop::default();
    for sku in [0, 1] {
        shop.act(Input::Move { sku, change: Change::Receipt { quantity: 1 } });
    }
    shop.order(Allocation::ShipComplete, &[(0, 1), (1, 1)], 5);
    shop.act(Input::Release { order: 0 });
    shop.act(Input::Cancel { order: 0, lines: Some(vec![1]) });
    shop.act(Input::Cancel { order: 0, lines: Some(vec![2]) });
    // The WMS cancels line 1, then begins to pick: what is asked about line 2 is too late.
    shop.act(Input::CancelAnswer { order: 0, n: 1, cancelled: true });
    shop.report(0, 1, &[ReleaseReport::Cancelled], true);
    let cancelled = |shop: &Shop| shop.orders[0].1.lines().iter().map(|l| l.cancelled).collect::<Vec<_>>();
    assert_eq!(cancelled(&shop), [1, 0]);
    assert_eq!(shop.orders[0].1.questions().count(), 1, "it is still asked about line 2");
    shop.act(Input::CancelAnswer { order: 0, n: 1, cancelled: false });
    assert_eq!((cancelled(&shop), shop.orders[0].1.questions().count()), (vec![1, 0], 0));
    shop.judge();
}
