//! What feeds say of when an order will ship, and the word that is kept about it: in every reader the
//! same event, in its place, and none of them twice.

use std::time::Instant;

use chrono::DateTime;
use serde_json::{Value, json};

use crate::door::{get, order, post, receive, until};
use crate::floor::{TestWms, free_port};
use crate::server::TestServer;
use crate::shop::PATIENCE;
use crate::sse::{Event, open};
use crate::watch::Running;
use crate::webhooks::{Heard, Receiver, ok};

const CHANGED: &str = "wavegate.order.estimate_changed";
/// What moves less is no news, in milliseconds.
const NEWS_MS: i64 = 10_000;
/// Orders that are sent at a time to be measured by.
const ROUND: usize = 12;

/// A server, and the WMS of its ATL1 as a process of its own: both run.
pub(crate) fn two_sides(more: &[&str]) -> (TestServer, TestWms) {
    let port = free_port();
    let character = "pick=\"20ms\",pack=\"10ms\",depart=\"50ms\"";
    let mut wms = TestWms::new("ATL1", &format!("http://127.0.0.1:{port}"), character);
    let warehouses = format!("warehouses=[{{code=\"ATL1\",partition=1,wms={}}}]", wms.table());
    let listen = format!("http.listen=127.0.0.1:{port}");
    let sets = [&[listen.as_str(), &warehouses, "manifests.close_every=100ms"], more].concat();
    let server = TestServer::start_with(&sets);
    wms.start();
    (server, wms)
}

/// Has orders shipped until the warehouse's estimates have proved true.
pub(crate) async fn measured(server: &TestServer) {
    receive(server, "A", 10_000).await;
    let until_then = Instant::now() + PATIENCE;
    for round in 0.. {
        assert!(Instant::now() < until_then, "no estimates within {PATIENCE:?}");
        let mut ids = Vec::new();
        for n in 0..ROUND {
            let accepted = post(server, "/v1/orders", &order(&format!("round-{round}-{n}"))).await;
            ids.push(accepted.id().to_owned());
        }
        for id in &ids {
            until(server, id, |d| d["state"] == "shipped").await;
        }
        let pace = get(server, "/v1/warehouses/ATL1").await.body;
        if pace["pace"]["calibrated"] == true {
            return;
        }
    }
}

/// A time of the wire in Unix milliseconds.
fn ms(time: &Value) -> i64 {
    DateTime::parse_from_rfc3339(time.as_str().unwrap_or_else(|| panic!("no time: {time}")))
        .unwrap()
        .timestamp_millis()
}

fn check_form(event: &Event, id: &str, version: u64) {
    let (data, sequence) = (&event.data, event.sequence());
    assert_eq!(event.event, CHANGED);
    assert_eq!(event.event_id(), format!("{id}.{version}.e{sequence}"));
    for (field, value) in
        [("type", CHANGED), ("source", "/warehouses/ATL1"), ("subject", id), ("specversion", "1.0")]
    {
        assert_eq!(data[field], value, "{field}");
    }
    let document = &data["data"];
    assert_eq!((&document["version"], &document["state"]), (&json!(version), &json!("released")));
    assert!(document.get("ship_to").is_none() && document.get("metadata").is_none());
}

#[actix_rt::test]
async fn an_order_that_does_not_leave_as_promised_is_told_of_once_to_every_reader_and_after_a_kill_not_again()
{
    let receiver = Receiver::start(|_, _| ok());
    let (mut server, mut wms) = two_sides(&["webhooks.allow_cidrs=[\"127.0.0.0/8\"]"]);
    measured(&server).await;
    let body = json!({"url": receiver.url, "types": [CHANGED], "delivery": "every"});
    let endpoint = post(&server, "/v1/webhooks/endpoints", &body).await;
    assert_eq!(endpoint.status, 201, "{}", endpoint.body);
    // A machine that is busy may keep others waiting as well.
    let of_late = format!("/v1/events?types={CHANGED}&reference=late");
    let mut feed = open(&server, &of_late, None).await;
    feed.comment().await;

    // From here on nothing leaves.
    wms.kill();
    let accepted = post(&server, "/v1/orders", &order("late")).await;
    let (id, accepted_at) = (accepted.id().to_owned(), ms(&accepted.body["accepted_at"]));
    assert_eq!(accepted.body["estimate"], Value::Null);
    let own = format!("/v1/status/{id}/events");
    let (mut live, watch) =
        (open(&server, &own, None).await, Running::start(&["watch", &id, "--url", &server.url]));
    let told = feed.event().await;
    let now = until(&server, &id, |_| true).await;
    let version = now["version"].as_u64().unwrap();
    check_form(&told, &id, version);
    let estimate = &told.data["data"]["estimate"];
    assert!(ms(&told.data["time"]) - accepted_at > NEWS_MS, "too early to be news: {}", told.data);
    assert!(ms(&estimate["shipped_p90"]) - accepted_at > NEWS_MS, "{}", told.data);
    // The document says what the event said, but for what is no news.
    assert_eq!(now["estimate"]["position"], estimate["position"]);
    let moved = ms(&now["estimate"]["shipped_p90"]) - ms(&estimate["shipped_p90"]);
    assert!(moved.abs() <= NEWS_MS, "{now} {}", told.data);
    let without = |mut document: Value| {
        document["estimate"].take();
        document
    };
    let at_version = get(&server, &format!("/v1/status/{id}?version={version}")).await.body;
    let mut rest = without(told.data["data"].clone());
    for gone in ["metadata", "actions"] {
        rest[gone] = at_version[gone].clone();
    }
    assert_eq!(rest, at_version);

    // Each of its readers has the same, in its place among the order's events.
    let before = live.until(|event| event.event == CHANGED).await;
    assert_eq!(before.last(), Some(&told));
    assert_eq!(before.len() as u64, version + 1);
    assert!(before.windows(2).all(|two| two[0].sequence() < two[1].sequence()));
    let of_it = |all: &[Heard]| all.iter().filter(|h| h.event["subject"] == *id).cloned().collect::<Vec<_>>();
    let heard = of_it(&receiver.when(|all| !of_it(all).is_empty()).await);
    assert!(heard[0].verify(endpoint.text("secret")));
    assert_eq!((heard[0].id(), &heard[0].event), (told.event_id(), &told.data));
    let lines: Vec<String> = (0..=version).map(|_| watch.line()).collect();
    assert!(lines.last().unwrap().contains("order late  released  likely to leave by "), "{lines:?}");
    let list = get(&server, &of_late).await.body;
    assert_eq!(list["events"], json!([told.data]));
    let all: Vec<Value> = before.iter().map(|event| event.data.clone()).collect();
    assert_eq!(get(&server, &own).await.body["events"], json!(all));

    // Another process reads the same, and tells nothing again.
    drop((feed, live, watch));
    server.kill();
    server.restart();
    let mut feed = open(&server, &of_late, Some("earliest")).await;
    assert_eq!(feed.event().await, told);
    wms.start();
    let mut live = open(&server, &own, Some(&told.id)).await;
    let after = live.until(|event| event.event == "end").await;
    assert!(after.iter().all(|event| event.event != CHANGED), "{after:?}");
    let last = &after[after.len() - 2];
    assert_eq!((&*last.event, &last.data["data"]["estimate"]), ("wavegate.order.shipped", &Value::Null));
    let list = get(&server, &of_late).await.body;
    assert_eq!(list["events"], json!([told.data]));
    assert_eq!(of_it(&receiver.all()).len(), 1);
}
