//! Bytes that rot while the server is down: whatever they were, what they say is kept aside with its
//! reason, and everything else goes on.

use std::sync::Arc;

use serde_json::{Value, json};
use wavegate_engine::domain::confirmation::{Confirmation, ReleaseReport, Report};
use wavegate_engine::domain::ids::{PartitionId, ReleaseId, TransactionId};
use wavegate_engine::domain::time::Timestamp;
use wavegate_engine::ports::fate::Fate;
use wavegate_engine::ports::store::{Lane, Store};
use wavegate_engine::store::EmbeddedStore;
use wavegate_engine::store::embedded::Rot;

use crate::door;
use crate::operators::{about, is_in, letters, letters_when, ops, place, start, stock};
use crate::server::TestServer;
use crate::shop::fast_warehouses;

const ATL1: PartitionId = PartitionId(1);

/// A store whose failure ends the test.
struct Ends;

impl Fate for Ends {
    fn end(&self, why: &str) {
        panic!("{why}");
    }
}

/// The store of a server that has ended.
fn opened(server: &TestServer) -> EmbeddedStore {
    EmbeddedStore::open(&server.data_dir(), 1 << 30, Arc::new(Ends)).expect("the store")
}

/// Ends the server and lets rows rot, of each kind at least one.
async fn end_and_rot(server: &mut TestServer, what: &[Rot]) {
    assert!(server.term().success());
    let store = opened(server);
    for &rot in what {
        assert!(store.damage(rot).await.expect("damaged rows") > 0, "there is no {rot:?}");
    }
}

fn id(text: &str) -> TransactionId {
    text.parse().expect("an id")
}

fn says_why(letter: &Value) {
    let reason = letter["reason"].as_str().unwrap();
    // By the kind of record that it should have been: its first byte, or its second, is not of this program.
    assert!(["format 99", "stands where"].iter().any(|said| reason.contains(said)), "{letter}");
}

/// A report about a release that nobody knows.
fn report(confirmation_id: &str) -> Confirmation {
    let order = id("019ac2f0-0000-8001-8000-000000000000");
    let report = Report::Release { release: ReleaseId { order, n: 1 }, step: ReleaseReport::Picking };
    Confirmation { confirmation_id: confirmation_id.to_owned(), at: Timestamp(0), report }
}

/// What rots, of an order that stands first in the lane.
type Rots = fn(TransactionId) -> Rot;

#[actix_rt::test]
async fn whatever_rots_of_one_order_is_listed_and_the_rest_goes_on() {
    // With the letter's kind, whether it names the order, and the state the order is in then.
    let cases: [(&str, Rots, &str, bool, Option<&str>); 5] = [
        ("its command", Rot::Command, "order", true, None),
        ("its acceptance", |order| Rot::Fact(order, 1), "order", true, None),
        ("where it goes", Rot::ShipTo, "order", true, Some("failed")),
        ("its entry in the lane", |_| Rot::FirstIn(ATL1, Lane::Work), "order", false, Some("accepted")),
        ("a report", |_| Rot::FirstIn(ATL1, Lane::Control), "confirmation", false, Some("shipped")),
    ];
    for (name, rot, kind, named, state) in cases {
        let mut server = start();
        stock(&server, "ATL1", "S", 10).await;
        assert_eq!(ops(&server, "pause").await.status, 200);
        let bad = place(&server, "bad").await;
        let good = place(&server, "good").await;
        assert!(server.term().success());
        let store = opened(&server);
        // It stands there only while nobody works the lane.
        if kind == "confirmation" {
            store.append_reports(ATL1, vec![report("c1")]).await.unwrap().wait().await.unwrap();
        }
        assert_eq!(store.damage(rot(id(&bad))).await.expect("a damaged row"), 1, "{name}");
        drop(store);
        server.restart();
        assert_eq!(ops(&server, "resume").await.status, 200);

        is_in(&server, &good, "shipped").await;
        let found = letters_when(&server, |l| l.len() == 1).await;
        let of = named.then_some(&bad);
        assert_eq!((&found[0]["kind"], &found[0]["transaction_id"]), (&json!(kind), &json!(of)), "{name}");
        says_why(&found[0]);
        match state {
            Some(state) => {
                is_in(&server, &bad, state).await;
            }
            None => {
                let status = door::get(&server, &format!("/v1/status/{bad}")).await;
                status.is_problem(500, "internal_error");
            }
        }
        // A restart does not find it anew.
        server.restart();
        is_in(&server, &place(&server, "after").await, "shipped").await;
        assert_eq!(letters(&server).await, found, "{name}");
    }
}

#[actix_rt::test]
async fn an_order_whose_address_cannot_be_read_goes_aside_again_when_redriven_and_can_be_given_up() {
    let mut server = start();
    stock(&server, "ATL1", "S", 2).await;
    assert_eq!(ops(&server, "pause").await.status, 200);
    let bad = place(&server, "bad").await;
    end_and_rot(&mut server, &[Rot::ShipTo(id(&bad))]).await;
    server.restart();
    assert_eq!(ops(&server, "resume").await.status, 200);
    let document = is_in(&server, &bad, "failed").await;
    assert_eq!((&document["attention"], &document["done"]), (&json!(true), &json!(false)), "{document}");
    let first = letters_when(&server, |l| l.len() == 1).await.remove(0);
    assert_eq!(about(&server, &first, "redrive").await.status, 202);
    let second = letters_when(&server, |l| l.len() == 1 && l[0]["id"] != first["id"]).await.remove(0);
    is_in(&server, &bad, "failed").await;
    assert_eq!(about(&server, &second, "give-up").await.status, 202);
    is_in(&server, &bad, "rejected").await;
    letters_when(&server, <[Value]>::is_empty).await;
    let position = door::get(&server, "/v1/warehouses/ATL1/inventory/S").await.body;
    assert_eq!(position["available"], 2, "{position}");
}

#[actix_rt::test]
async fn open_orders_that_cannot_be_read_are_listed_and_their_ids_alone_fail() {
    let mut server = start();
    let mut open = Vec::new();
    for reference in ["a", "b"] {
        let waits = place(&server, reference).await;
        is_in(&server, &waits, "backordered").await;
        open.push(waits);
    }
    assert_eq!(ops(&server, "pause").await.status, 200);
    let healthy = place(&server, "healthy").await;
    end_and_rot(&mut server, &[Rot::Command(id(&open[0])), Rot::Fact(id(&open[1]), 2)]).await;
    server.restart();

    stock(&server, "ATL1", "S", 10).await;
    assert_eq!(ops(&server, "resume").await.status, 200);
    is_in(&server, &healthy, "shipped").await;
    let found = letters_when(&server, |l| l.len() == 2).await;
    let mut named: Vec<_> = found.iter().map(|l| l["transaction_id"].as_str().unwrap()).collect();
    named.sort_unstable();
    assert_eq!(named, open);
    for letter in &found {
        says_why(letter);
        about(&server, letter, "give-up").await.is_problem(409, "not_possible");
    }
    // What cannot be read is that id's trouble alone.
    let status = door::get(&server, &format!("/v1/status/{}", open[0])).await;
    status.is_problem(500, "internal_error");
    let many = json!({"ids": [open[0], healthy]});
    let items = door::post(&server, "/v1/status/query", &many).await.body["items"].clone();
    assert_eq!(items[0]["problem"]["status"], 500, "{items}");
    assert_eq!(items[1]["state"], "shipped");
    assert_eq!(door::get(&server, "/v1/orders").await.body["items"].as_array().unwrap().len(), 1);
    // A restart does not find them anew.
    server.restart();
    is_in(&server, &place(&server, "after").await, "shipped").await;
    assert_eq!(letters(&server).await.len(), 2);
}

/// The settings of a warehouse whose WMS never answers.
fn silent() -> [String; 3] {
    let rest = ["manifests.close_every=100ms", "wms.silent_after=1s"].map(str::to_owned);
    let [close, silent] = rest;
    [fast_warehouses(&["ATL1"]), close, silent]
}

/// The same with one that does.
fn fast() -> [String; 3] {
    let [_, close, silent] = silent();
    [fast_warehouses(&[]), close, silent]
}

fn sets(of: &[String; 3]) -> [&str; 3] {
    [&of[0], &of[1], &of[2]]
}

#[actix_rt::test]
async fn a_wave_that_cannot_be_read_is_listed_and_its_orders_go_in_another() {
    let mut server = TestServer::start_with(&sets(&silent()));
    stock(&server, "ATL1", "S", 10).await;
    let order = place(&server, "waits").await;
    is_in(&server, &order, "released").await;
    end_and_rot(&mut server, &[Rot::Waves(ATL1)]).await;
    let mut server = TestServer::start_in(server.dir(), &sets(&fast()));
    is_in(&server, &order, "shipped").await;
    let letter = letters_when(&server, |l| l.len() == 1).await.remove(0);
    assert_eq!(letter["kind"], "wave", "{letter}");
    says_why(&letter);
    assert_eq!(about(&server, &letter, "give-up").await.status, 202);
    letters_when(&server, <[Value]>::is_empty).await;
    server.restart();
    is_in(&server, &place(&server, "after").await, "shipped").await;
    assert!(letters(&server).await.is_empty());
}

#[actix_rt::test]
async fn a_manifest_whose_cartons_cannot_be_read_is_listed_and_the_rest_goes_on() {
    let slow = "warehouses=[{code=\"ATL1\",partition=1,wms={kind=\"simulated\",pick=\"20ms\",pack=\"10ms\",\
                depart=\"300s\",credits=200}}]";
    let mut server = TestServer::start_with(&[slow, "manifests.close_every=100ms"]);
    stock(&server, "ATL1", "S", 10).await;
    let loaded = place(&server, "loaded").await;
    is_in(&server, &loaded, "manifested").await;
    end_and_rot(&mut server, &[Rot::Cartons]).await;
    let mut server = TestServer::start_in(server.dir(), &sets(&fast()));
    let letter = letters_when(&server, |l| l.len() == 1).await.remove(0);
    assert_eq!(letter["kind"], "order", "{letter}");
    assert_ne!(letter["transaction_id"], json!(loaded), "it is the manifest's");
    says_why(&letter);
    about(&server, &letter, "give-up").await.is_problem(409, "not_possible");
    is_in(&server, &place(&server, "after").await, "shipped").await;
    is_in(&server, &loaded, "manifested").await;
    // Its bytes are as they were: it is kept aside again.
    assert_eq!(about(&server, &letter, "redrive").await.status, 202);
    letters_when(&server, |l| l.len() == 1 && l[0]["id"] != letter["id"]).await;
    server.restart();
    is_in(&server, &place(&server, "later").await, "shipped").await;
    assert_eq!(letters(&server).await.len(), 1);
}

#[actix_rt::test]
async fn a_dead_letter_that_cannot_be_read_is_listed_as_such_and_the_others_are_dealt_with() {
    let [warehouses, close, _] = silent();
    let mut server = TestServer::start_with(&[&warehouses, &close, "wms.give_up_after=1s"]);
    stock(&server, "ATL1", "S", 10).await;
    let unknown = json!({"confirmation_id": "c1", "type": "picking", "at": "2026-11-24T00:00:00Z",
                         "release_id": "019ac2f0-0000-8001-8000-000000000000.1.1"});
    assert_eq!(door::post(&server, "/v1/warehouses/ATL1/confirmations", &unknown).await.status, 202);
    letters_when(&server, |l| l.len() == 1).await;
    let order = place(&server, "order").await;
    is_in(&server, &order, "failed").await;
    letters_when(&server, |l| l.len() == 2).await;
    end_and_rot(&mut server, &[Rot::Letter(ATL1, 1)]).await;
    server.restart();

    let found = letters(&server).await;
    let ids: Vec<_> = found.iter().map(|l| l["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["1-1", "1-2"], "{found:?}");
    assert_eq!((&found[0]["kind"], &found[0]["transaction_id"]), (&json!("confirmation"), &Value::Null));
    says_why(&found[0]);
    for verb in ["redrive", "give-up"] {
        about(&server, &found[0], verb).await.is_problem(409, "not_possible");
    }
    assert_eq!(about(&server, &found[1], "redrive").await.status, 202);
    is_in(&server, &order, "released").await;
    assert_eq!(letters_when(&server, |l| l.len() == 1).await[0]["id"], "1-1");
    // Whoever checks the store is told.
    assert!(server.term().success());
    let check = server.check_command().output().unwrap();
    let text = String::from_utf8_lossy(&check.stdout).into_owned() + &String::from_utf8_lossy(&check.stderr);
    assert!(!check.status.success() && text.contains("dead letter 1"), "{text}");
}

#[actix_rt::test]
async fn an_order_whose_own_letter_cannot_be_read_goes_on_when_its_wms_answers() {
    let [warehouses, close, _] = silent();
    let mut server = TestServer::start_with(&[&warehouses, &close, "wms.give_up_after=1s"]);
    stock(&server, "ATL1", "S", 10).await;
    let order = place(&server, "order").await;
    is_in(&server, &order, "failed").await;
    letters_when(&server, |l| l.len() == 1).await;
    end_and_rot(&mut server, &[Rot::Letter(ATL1, 1)]).await;
    let server = TestServer::start_in(server.dir(), &sets(&fast()));
    is_in(&server, &order, "shipped").await;
    letters_when(&server, <[Value]>::is_empty).await;
}

#[actix_rt::test]
async fn a_position_that_cannot_be_read_offers_nothing_before_a_count_and_keeps_nobody_from_starting() {
    let mut server = start();
    stock(&server, "ATL1", "S", 10).await;
    is_in(&server, &place(&server, "before").await, "shipped").await;
    assert_eq!(ops(&server, "pause").await.status, 200);
    end_and_rot(&mut server, &[Rot::Stock(ATL1)]).await;
    server.restart();

    let letter = letters_when(&server, |l| l.len() == 1).await.remove(0);
    assert_eq!(letter["kind"], "stock", "{letter}");
    assert!(letter["reason"].as_str().unwrap().contains("stands where"), "{letter}");
    assert!(letter["detail"].as_str().unwrap().starts_with("S of client local"), "{letter}");
    let position = door::get(&server, "/v1/warehouses/ATL1/inventory/S").await.body;
    assert_eq!((&position["available"], &position["on_hand"]), (&json!(0), &json!(0)), "{position}");
    let waits = place(&server, "waits").await;
    assert_eq!(ops(&server, "resume").await.status, 200);
    is_in(&server, &waits, "backordered").await;
    let count = json!({"reference": "count", "warehouse": "ATL1", "type": "count", "sku": "S", "counted": 9});
    assert_eq!(door::post(&server, "/v1/inventory/moves", &count).await.status, 202);
    is_in(&server, &waits, "shipped").await;
    about(&server, &letter, "redrive").await.is_problem(409, "not_possible");
    assert_eq!(about(&server, &letter, "give-up").await.status, 202);
    letters_when(&server, |l| l.is_empty()).await;
    // It was written anew: a restart finds nothing.
    server.restart();
    is_in(&server, &place(&server, "after").await, "shipped").await;
    assert!(letters(&server).await.is_empty());
}
