//! The check finds nothing in a sound store, and each kind of damage by its invariant.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::domain::endpoint::DisabledReason;
use crate::domain::estimate::Estimate;
use crate::domain::fact::{OrderFact, Recorded, Units};
use crate::domain::time::Timestamp;
use crate::ports::endpoints::{DeliveryRecord, EndpointChange, EndpointStore};
use crate::ports::store::{Lane, NewEstimate, NewFacts, SharedStore, TurnCommit};
use crate::store::MemoryStore;
use crate::store::backend::Backend;
use crate::store::contract::{CLIENT, accept, commit, id, order, receipt, take};
use crate::store::endpoints_tests::{attempt, dead, endpoint, entry, hook, nothing, pending};
use crate::store::keys::{self, Table};

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

/// An endpoint with rows of every kind, of a feed of three events.
async fn with_endpoint(deleted: bool) -> (Arc<MemoryStore>, u64) {
    let (memory, n) = (Arc::new(MemoryStore::new()), 1);
    let store: SharedStore = memory.clone();
    accept(&store, vec![order(1, "r1", 1), order(2, "r2", 1), order(3, "r3", 1)]).await;
    let made = store.create_endpoint(endpoint(n, CLIENT), 9).await.unwrap().wait().await.unwrap();
    assert!(made.is_some());
    let epoch = store.take_endpoint(CLIENT, hook(n)).await.unwrap().wait().await.unwrap();
    let rows = DeliveryRecord {
        pending: vec![pending(1, 1), pending(2, 3)],
        dead: vec![dead(3)],
        attempts: vec![(1, attempt(1)), (2, attempt(2))],
        ..nothing(epoch, 3)
    };
    store.record(CLIENT, hook(n), rows).await.unwrap();
    if deleted {
        store.change_endpoint(CLIENT, hook(n), EndpointChange::Delete).await.unwrap().wait().await.unwrap();
    }
    (memory, epoch)
}

/// Puts bytes, or nothing, where they do not belong, and says what is found.
async fn found_with(damage: Vec<(Table, keys::Key, Option<Vec<u8>>)>) -> Vec<String> {
    let (store, _) = with_endpoint(false).await;
    let plant = Backend::write(&*store, 1, move |write| {
        for (table, key, bytes) in &damage {
            match bytes {
                Some(bytes) => write.rows.put(*table, key, bytes)?,
                None => {
                    write.rows.delete(*table, key)?;
                }
            }
        }
        Ok(())
    });
    plant.await.unwrap();
    let violations = check(&*store).await;
    assert!(violations.iter().all(|v| v.id == "INV-5"), "{violations:?}");
    violations.into_iter().map(|v| v.found).collect()
}

#[tokio::test]
async fn sound_endpoints_have_no_violations_also_deleted_and_disabled_ones() {
    for deleted in [false, true] {
        assert_eq!(check(&*with_endpoint(deleted).await.0).await, []);
    }
    let (store, epoch) = with_endpoint(false).await;
    let gone = DeliveryRecord { disabled: Some((DisabledReason::Gone, Timestamp(9))), ..nothing(epoch, 3) };
    store.record(CLIENT, hook(1), gone).await.unwrap();
    assert_eq!(check(&*store).await, []);
    // What is evicted is no damage, nor is what points at it.
    let age = Duration::from_millis(1);
    while store.sweep_feeds(Timestamp(1_000_000), age, 9).await.unwrap() > 0 {}
    assert_eq!(check(&*store).await, []);
}

#[tokio::test]
async fn damaged_rows_of_endpoints_are_found_each() {
    let junk = || Some(vec![99, 1, 7]);
    for (table, key, what) in [
        (Table::Endpoints, keys::chunk(&keys::endpoint(CLIENT, hook(9)), 0), "endpoint"),
        (Table::Deliveries, keys::progress(hook(1)), "its progress"),
        (Table::Deliveries, keys::pending(hook(1), 1), "delivery 1"),
        (Table::Deliveries, keys::attempt(hook(1), 2), "attempt 2"),
        (Table::Deliveries, keys::chunk(&keys::replay(hook(1), uuid::Uuid::from_u128(5)), 0), "replay"),
        (Table::DeadDeliveries, keys::dead_delivery(hook(1), 3), "dead delivery 3"),
    ] {
        let found = found_with(vec![(table, key, junk())]).await;
        assert!(found.iter().any(|f| f.contains(what) && f.contains("cannot be read")), "{what}: {found:?}");
    }
}

#[tokio::test]
async fn deliveries_that_point_nowhere_are_found() {
    use crate::store::format::{encode_dead_delivery, encode_pending};
    let row = |n: u64, entry: FeedEntry| {
        let bytes = encode_pending(&crate::ports::endpoints::PendingDelivery { entry, ..pending(n, 1) });
        (Table::Deliveries, keys::pending(hook(1), n), Some(bytes))
    };
    for (damage, what) in [
        (row(7, entry(7)), "event 7 waits, but the feed of ClientNo(1) has no such number"),
        (row(2, FeedEntry { id: id(77), ..entry(2) }), "event 2 waits, but in the feed"),
        (row(2, FeedEntry { version: 4, ..entry(2) }), "event 2 waits, but in the feed"),
    ] {
        let found = found_with(vec![damage]).await;
        assert!(found.len() == 1 && found[0].contains(what), "{what}: {found:?}");
    }
    let letter = crate::ports::endpoints::DeadDelivery { entry: entry(8), ..dead(8) };
    let letter = Some(encode_dead_delivery(&letter));
    let found = found_with(vec![(Table::DeadDeliveries, keys::dead_delivery(hook(1), 8), letter)]).await;
    assert!(found.len() == 1 && found[0].contains("event 8 is kept aside, but"), "{found:?}");
}

#[tokio::test]
async fn what_is_left_of_an_endpoint_that_is_not_there_is_found() {
    // Its record has a second chunk.
    let own =
        [0, 1].map(|chunk| (Table::Endpoints, keys::chunk(&keys::endpoint(CLIENT, hook(1)), chunk), None));
    let found = found_with(own.into()).await;
    assert!(found.len() == 1 && found[0].contains("6 rows are left of endpoint"), "{found:?}");
    assert!(found[0].ends_with("2 wait, 1 are kept aside, 2 attempts"), "{found:?}");
    let found = found_with(vec![(Table::Deliveries, keys::progress(hook(1)), None)]).await;
    assert!(found.len() == 1 && found[0].contains("has no progress"), "{found:?}");
    let attempt = crate::store::format::encode_attempt(&attempt(3));
    let found = found_with(vec![(Table::Deliveries, keys::attempt(hook(1), 9), Some(attempt))]).await;
    assert!(found.len() == 1 && found[0].contains("attempt 9"), "{found:?}");
}

#[tokio::test]
async fn an_endpoint_that_is_ahead_of_its_feed_is_found() {
    let (store, epoch) = with_endpoint(false).await;
    store.record(CLIENT, hook(1), nothing(epoch, 40)).await.unwrap();
    let found: Vec<_> = check(&*store).await.into_iter().map(|v| v.found).collect();
    assert!(found.len() == 1 && found[0].contains("has come to 40 of a feed that ends at 3"), "{found:?}");
}
