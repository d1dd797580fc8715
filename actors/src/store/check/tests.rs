//! The check finds nothing in a sound store, and each kind of damage by its invariant.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::domain::estimate::Estimate;
use crate::domain::fact::{OrderFact, Recorded, Units};
use crate::domain::time::Timestamp;
use crate::ports::store::{Lane, NewEstimate, NewFacts, SharedStore, TurnCommit};
use crate::store::MemoryStore;
use crate::store::contract::{CLIENT, accept, commit, id, order, receipt, take};

fn recorded(fact: Fact) -> Recorded {
    Recorded { at: Timestamp(9), fact }
}

fn facts(of: u64, first_version: u32, facts: Vec<Fact>) -> NewFacts {
    NewFacts { id: id(of), client: CLIENT, first_version, facts: facts.into_iter().map(recorded).collect() }
}

fn a() -> Sku {
    "A".parse().unwrap()
}

/// A receipt of 10 was applied and an order of 3 is allocated; one more order waits in its lane.
async fn sound() -> (SharedStore, Fence) {
    let store: SharedStore = Arc::new(MemoryStore::new());
    accept(&store, vec![receipt(1, "m1", 10), order(2, "r2", 3), order(3, "r3", 4)]).await;
    let fence = take(&store, 1).await;
    commit(&store, fence, turn()).await.unwrap();
    (store, fence)
}

fn turn() -> TurnCommit {
    let allocated = Fact::Order(OrderFact::Allocated { units: Units::Whole });
    let position = Position { on_hand: 10, reserved: 3, known: true, ..Position::default() };
    TurnCommit {
        taken: vec![(Lane::Stock, 1), (Lane::Work, 1)],
        facts: vec![facts(1, 2, vec![Fact::Move(MoveFact::Applied)]), facts(2, 2, vec![allocated])],
        positions: vec![((CLIENT, a()), position)],
        opened: vec![id(2)],
        ended: vec![(id(1), Timestamp(9))],
        ..TurnCommit::default()
    }
}

async fn found_after(turn: TurnCommit) -> Vec<&'static str> {
    let (store, fence) = sound().await;
    commit(&store, fence, turn).await.unwrap();
    check(&*store).await.into_iter().map(|v| v.id).collect()
}

#[tokio::test]
async fn a_sound_store_has_no_violations() {
    let (store, _) = sound().await;
    assert_eq!(check(&*store).await, []);
    assert_eq!(check(&MemoryStore::new()).await, []);
}

#[tokio::test]
async fn a_swept_receipt_is_no_violation() {
    let (store, _) = sound().await;
    store.sweep(Timestamp(100_000), Duration::from_secs(1), 10).await.unwrap();
    assert_eq!(check(&*store).await, []);
    store.sweep(Timestamp(100_000), Duration::from_secs(1), 10).await.unwrap();
    assert_eq!(check(&*store).await, []);
}

#[tokio::test]
async fn stock_that_the_facts_do_not_explain_is_found() {
    let put = |position| TurnCommit { positions: vec![((CLIENT, a()), position)], ..TurnCommit::default() };
    let sound = Position { on_hand: 10, reserved: 3, known: true, ..Position::default() };
    assert_eq!(found_after(put(Position { on_hand: 9, ..sound })).await, ["INV-4"]);
    assert_eq!(found_after(put(Position { reserved: 4, ..sound })).await, ["INV-3"]);
    assert_eq!(found_after(put(Position { suspect: 1, ..sound })).await, ["INV-3"]);
    assert_eq!(found_after(put(Position { reserved: 11, ..sound })).await, ["INV-3"; 2]);
}

#[tokio::test]
async fn an_order_that_no_owner_would_find_is_found() {
    assert_eq!(found_after(TurnCommit { closed: vec![id(2)], ..TurnCommit::default() }).await, ["INV-1"]);
    let taken = vec![(Lane::Work, 2)];
    assert_eq!(found_after(TurnCommit { taken, ..TurnCommit::default() }).await, ["INV-1"]);
}

#[tokio::test]
async fn facts_without_their_event_are_found() {
    let mut silent = facts(2, 3, vec![Fact::Order(OrderFact::Backordered)]);
    silent.client = ClientNo::HOUSE;
    assert_eq!(found_after(TurnCommit { facts: vec![silent], ..TurnCommit::default() }).await, ["INV-5"]);
}

#[tokio::test]
async fn facts_that_do_not_fit_are_found() {
    let again = Fact::Order(OrderFact::Released {
        n: 1,
        wave: id(9),
        units: Units::Lines([(7, 1)].into_iter().collect()),
    });
    let found =
        found_after(TurnCommit { facts: vec![facts(2, 3, vec![again])], ..TurnCommit::default() }).await;
    // Its footprint is unknown then, so its stock is not explained either.
    assert_eq!(found, ["INV-7", "INV-3"]);
    let twice = facts(1, 3, vec![Fact::Move(MoveFact::Rejected)]);
    assert_eq!(found_after(TurnCommit { facts: vec![twice], ..TurnCommit::default() }).await, ["INV-7"]);
}

#[tokio::test]
async fn a_feed_that_has_evicted_its_beginning_is_sound_and_its_rest_is_checked() {
    let (store, fence) = sound().await;
    let age = Duration::from_millis(1);
    // All but what is accepted later: those facts are of 1970.
    assert_eq!(store.sweep_feeds(Timestamp(1_004), age, 2).await.unwrap(), 2);
    assert_eq!(check(&*store).await, []);
    let late = facts(3, 2, vec![Fact::Order(OrderFact::Backordered)]);
    commit(&store, fence, TurnCommit { facts: vec![late], ..TurnCommit::default() }).await.unwrap();
    let found: Vec<_> = check(&*store).await.into_iter().map(|v| v.id).collect();
    assert!(!found.contains(&"INV-5"), "{found:?}");
    while store.sweep_feeds(Timestamp(60_000), age, 2).await.unwrap() > 0 {}
    let found: Vec<_> = check(&*store).await.into_iter().map(|v| v.id).collect();
    assert!(!found.contains(&"INV-5"), "{found:?}");
}

fn estimated(of: u64, version: u32) -> NewEstimate {
    let times = Estimate { position: 1, shipped_p50: Timestamp(50), shipped_p90: Timestamp(90) };
    NewEstimate { id: id(of), client: CLIENT, version, at: Timestamp(10), estimate: times }
}

#[tokio::test]
async fn an_estimate_stands_in_the_feed_as_with_its_order() {
    let estimates = |all: Vec<NewEstimate>| TurnCommit { estimates: all, ..TurnCommit::default() };
    assert_eq!(found_after(estimates(vec![estimated(2, 2), estimated(2, 2)])).await, [""; 0]);
    // Beside a version that is not there.
    assert_eq!(found_after(estimates(vec![estimated(2, 3)])).await, ["INV-5"]);
}
