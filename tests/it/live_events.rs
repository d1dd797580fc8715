//! What feeds say beside facts: how stock is. The last word on a SKU always comes, and a busy SKU
//! does not drown its readers.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use chrono::DateTime;
use reqwest::Method;
use serde_json::{Value, json};

use crate::door::{ACME, GLOBEX, get, keys, order, post, receive, request, send, until};
use crate::server::TestServer;
use crate::shop::fast_warehouses;
use crate::sse::{Ask, Event, Stream, ask, open};
use crate::webhooks::{Receiver, ok};

const OF_STOCK: &str = "/v1/events?types=wavegate.inventory.*";
const QUICKLY: &str = "manifests.close_every=100ms";

fn start() -> TestServer {
    TestServer::start_with(&[&fast_warehouses(&[]), QUICKLY])
}

/// How a SKU is in the first warehouse.
async fn stock(server: &TestServer, sku: &str) -> Value {
    let answer = get(server, &format!("/v1/warehouses/ATL1/inventory/{sku}")).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body
}

/// When an event was told, in Unix milliseconds.
fn told_at(event: &Value) -> i64 {
    DateTime::parse_from_rfc3339(event["time"].as_str().unwrap()).unwrap().timestamp_millis()
}

fn check_form(event: &Event, sku: &str) {
    let data = &event.data;
    assert_eq!(event.event, "wavegate.inventory.changed");
    assert_eq!(event.event_id(), format!("ATL1.{sku}.{:020}", event.sequence()));
    for (field, value) in [
        ("specversion", "1.0"),
        ("type", "wavegate.inventory.changed"),
        ("source", "/warehouses/ATL1"),
        ("subject", sku),
        ("datacontenttype", "application/json"),
    ] {
        assert_eq!(data[field], value, "{field}");
    }
    assert!(data["correlationid"].is_string() && data["traceparent"].is_string());
}

#[actix_rt::test]
async fn a_busy_sku_is_told_of_once_a_second_and_at_last_as_it_is() {
    let server = start();
    let began = Instant::now();
    let mut live = open(&server, OF_STOCK, None).await;
    live.comment().await;
    receive(&server, "A", 1_000).await;
    let (mut orders, mut n) = (Vec::new(), 0);
    while began.elapsed() < Duration::from_millis(3_500) {
        n += 1;
        let accepted = post(&server, "/v1/orders", &order(&format!("busy-{n}"))).await;
        assert_eq!(accepted.status, 202, "{}", accepted.body);
        orders.push(accepted.id().to_owned());
        let more = json!({"reference": format!("more-{n}"), "warehouse": "ATL1", "type": "receipt", "sku": "A", "quantity": 2});
        assert_eq!(post(&server, "/v1/inventory/moves", &more).await.status, 202);
    }
    for id in &orders {
        until(&server, id, |d| d["state"] == "shipped").await;
    }
    let rested = stock(&server, "A").await;
    assert_eq!((&rested["on_hand"], &rested["reserved"]), (&json!(1_000 + n), &json!(0)));
    let events = live.until(|event| event.data["data"] == rested).await;
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap();
    assert!((3..=seconds + 1).contains(&events.len()), "{} events for {n} orders", events.len());
    events.iter().for_each(|event| check_form(event, "A"));
    for (one, next) in events.iter().zip(&events[1..]) {
        assert!(told_at(&next.data) - told_at(&one.data) >= 1_000, "{} {}", one.data, next.data);
    }
    // The list says the same, and nothing more comes of a SKU at rest.
    let list = get(&server, OF_STOCK).await;
    assert_eq!(list.body["events"], json!(events.iter().map(|e| &e.data).collect::<Vec<_>>()));
    // What the fact of a change says stands in the feed before what came of it.
    let all = get(&server, "/v1/events?limit=1").await;
    assert_eq!(all.body["events"][0]["type"], "wavegate.move.accepted");
}

#[actix_rt::test]
async fn a_change_that_a_kill_keeps_from_being_told_is_told_afterwards() {
    let mut server = start();
    receive(&server, "A", 7).await;
    server.kill();
    let killed = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
    server.restart();
    let mut live = open(&server, OF_STOCK, Some("earliest")).await;
    let told = live.event().await;
    check_form(&told, "A");
    assert!(told_at(&told.data) > killed, "it was told before the kill: {}", told.data);
    assert_eq!((&told.data["data"], &told.data["data"]["on_hand"]), (&stock(&server, "A").await, &json!(7)));
    // It is the same when it is read again, also by another process, and it is not told again.
    server.kill();
    server.restart();
    receive(&server, "B", 1).await;
    let mut again = open(&server, OF_STOCK, Some("earliest")).await;
    assert_eq!(again.event().await, told);
    check_form(&again.event().await, "B");
}

#[actix_rt::test]
async fn stock_is_told_to_its_owner_and_to_nobody_else() {
    let server = TestServer::start_with(&[&fast_warehouses(&[]), &keys()]);
    for (key, warehouse, sku) in [(GLOBEX, "ATL1", "G"), (ACME, "ATL1", "A"), (ACME, "DFW2", "D")] {
        let body = json!({"reference": format!("r-{sku}"), "warehouse": warehouse, "type": "receipt", "sku": sku, "quantity": 3});
        let sent = request(&server, Method::POST, "/v1/inventory/moves").bearer_auth(key).json(&body);
        assert_eq!(send(sent).await.status, 202);
    }
    for (key, filter, subject, owner) in [
        (ACME, "&warehouse=ATL1", "A", "acme"),
        (ACME, "&warehouse=DFW2", "D", "acme"),
        (GLOBEX, "", "G", "globex"),
    ] {
        let asked = Ask { key: Some(key), last: Some("earliest"), ..Ask::default() };
        let answer = ask(&server, &format!("{OF_STOCK}{filter}"), asked).await.unwrap();
        let told = Stream::of(answer).event().await;
        assert_eq!((&told.data["subject"], &told.data["data"]["owner"]), (&json!(subject), &json!(owner)));
    }
}

#[actix_rt::test]
async fn a_webhook_endpoint_is_told_of_stock_by_the_same_id_whatever_the_sku() {
    let receiver = Receiver::start(|_, _| ok());
    let server =
        TestServer::start_with(&[&fast_warehouses(&[]), QUICKLY, "webhooks.allow_cidrs=[\"127.0.0.0/8\"]"]);
    let body = json!({"url": receiver.url, "types": ["wavegate.inventory.*"]});
    let endpoint = post(&server, "/v1/webhooks/endpoints", &body).await;
    assert_eq!(endpoint.status, 201, "{}", endpoint.body);
    for sku in ["A", "caf\u{e9} 50%"] {
        receive(&server, sku, 4).await;
    }
    let heard = receiver.when(|all| all.len() == 2).await;
    for (sku, path, id) in
        [("A", "A", "ATL1.A."), ("caf\u{e9} 50%", "caf%C3%A9%2050%25", "ATL1.caf%C3%A9%2050%25.")]
    {
        let told = heard.iter().find(|h| h.event["subject"] == sku).unwrap();
        assert!(told.verify(endpoint.text("secret")));
        assert_eq!(told.id(), told.event["id"]);
        assert!(told.id().starts_with(id), "{}", told.id());
        assert_eq!(told.event["type"], "wavegate.inventory.changed");
        assert_eq!(told.event["data"], stock(&server, path).await);
    }
    let attempts = get(&server, &format!("/v1/webhooks/endpoints/{}/attempts", endpoint.text("id"))).await;
    assert_eq!(attempts.body["items"][0]["transaction_id"], Value::Null);
}
