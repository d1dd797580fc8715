//! The life of orders as a client sees it, through the simulated WMS.

use serde_json::{Value, json};
use std::time::Instant;

use crate::server::{TestServer, client};
use crate::shop::{fast_warehouses, get, id_of, order, post, receipt, status_when};

const MANIFESTS: &str = "manifests.close_every=100ms";

fn start() -> TestServer {
    TestServer::start_with(&[&fast_warehouses(&[]), MANIFESTS])
}

async fn submit(http: &reqwest::Client, server: &TestServer, body: &Value) -> String {
    let (status, accepted) = post(http, server.at("/v1/orders"), body).await;
    assert_eq!(status, 202, "{accepted}");
    id_of(&accepted)
}

async fn receive(http: &reqwest::Client, server: &TestServer, reference: &str, sku: &str, quantity: u32) {
    let body = receipt(reference, "ATL1", sku, quantity);
    let (status, accepted) = post(http, server.at("/v1/inventory/moves"), &body).await;
    assert_eq!(status, 202, "{accepted}");
    status_when(http, &server.url, &id_of(&accepted), |d| d["state"] == "applied").await;
}

async fn ended(http: &reqwest::Client, server: &TestServer, id: &str) -> Value {
    status_when(http, &server.url, id, |d| d["done"] == true).await
}

async fn in_state(http: &reqwest::Client, server: &TestServer, id: &str, state: &str) -> Value {
    status_when(http, &server.url, id, |d| d["state"] == state).await
}

fn states(document: &Value) -> Vec<&str> {
    document["history"].as_array().unwrap().iter().map(|h| h["state"].as_str().unwrap()).collect()
}

fn codes(document: &Value) -> Vec<&str> {
    document["exceptions"].as_array().unwrap().iter().map(|e| e["code"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn an_order_goes_from_accepted_to_shipped_with_a_carton_that_can_be_tracked() {
    let (server, http) = (start(), client());
    receive(&http, &server, "r1", "S", 10).await;
    let sent = http
        .post(server.at("/v1/orders"))
        .header("x-correlation-id", "door-to-door")
        .header("prefer", "wait=30")
        .json(&order("o1", "ATL1", "S", 3))
        .send()
        .await
        .unwrap();
    assert_eq!(sent.status(), 200, "done within the wait");
    assert_eq!(sent.headers()["preference-applied"], "wait=30");
    let document: Value = sent.json().await.unwrap();
    let all = ["accepted", "allocated", "released", "picking", "packed", "manifested", "shipped"];
    // Reports that reach one turn together are one fact, so on a busy machine nobody sees it picked.
    let without_picking = all.iter().filter(|state| **state != "picking");
    let seen = states(&document);
    assert!(seen == all || seen.iter().eq(without_picking), "{seen:?}");
    assert_eq!(
        (&document["outcome"], &document["correlation_id"]),
        (&json!("complete"), &json!("door-to-door"))
    );
    let carton = &document["fulfillments"][0]["cartons"][0];
    let sscc = carton["sscc"].as_str().unwrap();
    assert!(sscc.len() == 18 && sscc.starts_with("00614141"), "{sscc}");
    assert!(carton["tracking_number"].as_str().is_some_and(|t| !t.is_empty()));
    let (_, stock) = get(&http, server.at("/v1/warehouses/ATL1/inventory/S")).await;
    assert_eq!((&stock["on_hand"], &stock["reserved"]), (&json!(7), &json!(0)));
}

#[tokio::test]
async fn of_two_orders_for_the_last_unit_one_ships_and_the_other_waits_for_the_next() {
    let (server, http) = (start(), client());
    receive(&http, &server, "r1", "S", 1).await;
    let (a, b) = tokio::join!(async { submit(&http, &server, &order("a", "ATL1", "S", 1)).await }, async {
        submit(&http, &server, &order("b", "ATL1", "S", 1)).await
    },);
    let settled = |d: &Value| d["done"] == true || d["state"] == "backordered";
    let first = status_when(&http, &server.url, &a, settled).await;
    let second = status_when(&http, &server.url, &b, settled).await;
    let (waits, went) = if first["state"] == "backordered" { (a, second) } else { (b, first) };
    assert_eq!(went["state"], "shipped");
    in_state(&http, &server, &waits, "backordered").await;
    receive(&http, &server, "r2", "S", 1).await;
    let document = ended(&http, &server, &waits).await;
    assert_eq!(
        (&document["state"], codes(&document).len()),
        (&json!("shipped"), 0),
        "waiting is no exception"
    );
}

#[tokio::test]
async fn each_policy_does_what_it_says_when_stock_does_not_reach() {
    let (server, http) = (start(), client());
    receive(&http, &server, "r1", "S", 2).await;
    let with = |reference: &str, policy: &str, quantity: u32| {
        let mut body = order(reference, "ATL1", "S", quantity);
        body["allocation"] = json!(policy);
        body
    };
    let killed = submit(&http, &server, &with("kill", "fill_or_kill", 3)).await;
    let killed = ended(&http, &server, &killed).await;
    assert_eq!((killed["state"].as_str(), codes(&killed)), (Some("rejected"), vec!["insufficient_stock"]));
    let complete = submit(&http, &server, &with("complete", "ship_complete", 3)).await;
    in_state(&http, &server, &complete, "backordered").await;
    let partial = submit(&http, &server, &with("partial", "ship_partial", 3)).await;
    let document = in_state(&http, &server, &partial, "backordered").await;
    let line = &document["lines"][0];
    assert_eq!((&line["shipped"], &line["backordered"]), (&json!(2), &json!(1)), "what was there has gone");
    let unknown = submit(&http, &server, &order("unknown", "ATL1", "NEVER-SEEN", 1)).await;
    let unknown = in_state(&http, &server, &unknown, "backordered").await;
    assert_eq!(codes(&unknown), ["unknown_sku"]);
    receive(&http, &server, "r2", "S", 4).await;
    assert_eq!(ended(&http, &server, &complete).await["outcome"], "complete");
    let document = ended(&http, &server, &partial).await;
    assert_eq!((&document["outcome"], &document["lines"][0]["shipped"]), (&json!("complete"), &json!(3)));
}

#[tokio::test]
async fn an_order_that_may_not_begin_yet_holds_no_stock_until_it_may() {
    let (server, http) = (start(), client());
    receive(&http, &server, "r1", "S", 1).await;
    let begins = chrono::Utc::now() + chrono::TimeDelta::milliseconds(1_500);
    let mut later = order("later", "ATL1", "S", 1);
    later["not_before"] = json!(begins.to_rfc3339_opts(chrono::SecondsFormat::Millis, true));
    let later = submit(&http, &server, &later).await;
    let now = submit(&http, &server, &order("now", "ATL1", "S", 1)).await;
    assert_eq!(ended(&http, &server, &now).await["state"], "shipped", "the later order held nothing");
    receive(&http, &server, "r2", "S", 1).await;
    let document = ended(&http, &server, &later).await;
    let allocated = &document["history"].as_array().unwrap()[1];
    let at = chrono::DateTime::parse_from_rfc3339(allocated["at"].as_str().unwrap()).unwrap();
    assert!(at >= begins - chrono::TimeDelta::milliseconds(1), "{allocated}");
}

#[tokio::test]
async fn a_cancellation_before_the_pick_cancels_and_after_it_is_too_late() {
    let (server, http) = (start(), client());
    let waits = submit(&http, &server, &order("waits", "ATL1", "S", 1)).await;
    in_state(&http, &server, &waits, "backordered").await;
    let (status, accepted) = post(&http, server.at(&format!("/v1/orders/{waits}/cancel")), &json!({})).await;
    assert_eq!(status, 202, "{accepted}");
    let cancellation = ended(&http, &server, &id_of(&accepted)).await;
    assert_eq!(
        (&cancellation["state"], &cancellation["lines"][0]["cancelled"]),
        (&json!("applied"), &json!(1))
    );
    assert_eq!(ended(&http, &server, &waits).await["state"], "cancelled");
    receive(&http, &server, "r1", "S", 1).await;
    let gone = submit(&http, &server, &order("gone", "ATL1", "S", 1)).await;
    ended(&http, &server, &gone).await;
    let (_, accepted) = post(&http, server.at(&format!("/v1/orders/{gone}/cancel")), &json!({})).await;
    let cancellation = ended(&http, &server, &id_of(&accepted)).await;
    assert_eq!(
        (cancellation["state"].as_str(), codes(&cancellation)),
        (Some("rejected"), vec!["too_late_to_cancel"])
    );
    assert_eq!(ended(&http, &server, &gone).await["state"], "shipped", "final states are final");
}

#[tokio::test]
async fn a_warehouse_whose_wms_never_answers_slows_no_other() {
    let server = TestServer::start_with(&[&fast_warehouses(&["DFW2"]), MANIFESTS]);
    let http = client();
    for (code, n) in [("ATL1", 40), ("DFW2", 400)] {
        let (status, _) =
            post(&http, server.at("/v1/inventory/moves"), &receipt(&format!("r-{code}"), code, "S", n)).await;
        assert_eq!(status, 202);
    }
    // More than its credits: the silent warehouse is full to the door.
    let silent: Vec<Value> = (0..400).map(|n| order(&format!("d{n}"), "DFW2", "S", 1)).collect();
    let (status, _) = post(&http, server.at("/v1/orders/batch"), &json!(silent)).await;
    assert_eq!(status, 202);
    let began = Instant::now();
    for n in 0..40 {
        let id = submit(&http, &server, &order(&format!("a{n}"), "ATL1", "S", 1)).await;
        if n % 10 == 9 {
            assert_eq!(ended(&http, &server, &id).await["state"], "shipped");
        }
    }
    assert!(began.elapsed().as_secs() < 15, "the WMS's own time-out is 15 s: nobody waited for it");
    let (_, other) = get(&http, server.at("/v1/warehouses/DFW2")).await;
    assert!(other["backlog"].as_u64().unwrap() > 0, "what has no credit waits in the lane: {other}");
    let (status, _) = get(&http, server.at("/readyz")).await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn what_is_missing_at_the_pick_is_suspect_until_it_is_counted() {
    let short = fast_warehouses(&[]).replacen("silent_rate=0.0", "short_pick_rate=1.0", 1);
    let server = TestServer::start_with(&[&short, MANIFESTS]);
    let http = client();
    receive(&http, &server, "r1", "S", 2).await;
    let mut body = order("o", "ATL1", "S", 2);
    body["allocation"] = json!("fill_or_kill");
    let id = submit(&http, &server, &body).await;
    let document = ended(&http, &server, &id).await;
    assert_eq!((document["outcome"].as_str(), codes(&document)), (Some("partial"), vec!["short_pick"]));
    let line = &document["lines"][0];
    assert_eq!((&line["shipped"], &line["cancelled"]), (&json!(1), &json!(1)));
    let stock = || get(&http, server.at("/v1/warehouses/ATL1/inventory/S"));
    let (_, before) = stock().await;
    assert_eq!(
        (&before["on_hand"], &before["suspect"], &before["available"]),
        (&json!(1), &json!(1), &json!(0))
    );
    let count = json!({"reference": "c", "warehouse": "ATL1", "type": "count", "sku": "S", "counted": 0});
    let (_, accepted) = post(&http, server.at("/v1/inventory/moves"), &count).await;
    ended(&http, &server, &id_of(&accepted)).await;
    let (_, after) = stock().await;
    assert_eq!(
        (&after["on_hand"], &after["suspect"], &after["available"]),
        (&json!(0), &json!(0), &json!(0))
    );
}
