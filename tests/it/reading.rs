//! Status, lists and stock, as clients poll them.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;

use crate::door::{get, order, post, receive, request, send, until};
use crate::server::{TestServer, client};
use crate::shop::{PATIENCE, status_when};

#[actix_rt::test]
async fn a_status_is_tagged_by_its_version_and_every_version_can_be_read() {
    let server = TestServer::start();
    receive(&server, "A", 5).await;
    let sent = request(&server, Method::POST, "/v1/orders").header("prefer", "respond-async, wait=30");
    let done = send(sent.json(&order("poll"))).await;
    assert_eq!((done.status, done.text("state")), (200, "shipped"), "{}", done.body);
    assert_eq!(done.header("preference-applied"), Some("wait=30"));
    let version = done.body["version"].as_u64().unwrap();
    let path = format!("/v1/status/{}", done.id());

    let read = get(&server, &path).await;
    assert_eq!(read.header("etag"), Some(&*format!("\"{version}\"")));
    assert_eq!(read.header("cache-control"), Some("private, no-cache"));
    assert_eq!(read.header("retry-after"), None);
    assert_eq!(read.body["ship_to"], json!(null));
    assert_eq!(get(&server, &format!("{path}?include=ship_to")).await.body["ship_to"]["city"], "Atlanta");
    for tags in [
        format!("\"{version}\""),
        format!("W/\"{version}\""),
        format!("\"1\", \"{version}\""),
        "*".to_owned(),
    ] {
        let unchanged = send(request(&server, Method::GET, &path).header("if-none-match", &tags)).await;
        assert_eq!((unchanged.status, &unchanged.body), (304, &json!(null)), "{tags}");
        assert_eq!(unchanged.header("etag"), Some(&*format!("\"{version}\"")));
    }
    let changed = send(request(&server, Method::GET, &path).header("if-none-match", "\"1\"")).await;
    assert_eq!(changed.status, 200);

    for v in 1..=version {
        let old = get(&server, &format!("{path}?version={v}")).await;
        assert_eq!(
            (&old.body["version"], old.body["history"].as_array().unwrap().len() as u64),
            (&json!(v), v)
        );
        assert_eq!(old.body["state"], done.body["history"][v as usize - 1]["state"]);
    }
    get(&server, &format!("{path}?version={}", version + 1)).await.is_problem(404, "version_not_found");
    get(&server, &format!("{path}?version=0")).await.is_problem(404, "version_not_found");
    get(&server, &format!("{path}?version=x")).await.is_fault("/version", "malformed");
}

#[actix_rt::test]
async fn a_wait_holds_the_answer_until_the_version_is_newer() {
    let server = TestServer::start();
    let accepted = post(&server, "/v1/orders", &order("slow")).await;
    assert!(accepted.header("retry-after").is_some());
    let path = format!("/v1/status/{}", accepted.id());
    // Nobody received this SKU: the order waits, and its version stays.
    let waiting = until(&server, accepted.id(), |d| d["state"] == "backordered").await;
    assert_eq!(waiting["exceptions"][0]["code"], "unknown_sku");
    assert_eq!(waiting["actions"], json!(["cancel"]));
    let tag = format!("\"{}\"", waiting["version"]);

    let begun = Instant::now();
    let held =
        send(request(&server, Method::GET, &format!("{path}?wait=1")).header("if-none-match", &tag)).await;
    assert_eq!(held.status, 304);
    let after = get(&server, &format!("{path}?wait=1&after_version={}", waiting["version"])).await;
    assert_eq!((after.status, &after.body["version"]), (200, &waiting["version"]));
    assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());

    let begun = Instant::now();
    assert_eq!(get(&server, &format!("{path}?wait=30")).await.status, 200);
    assert!(begun.elapsed() < Duration::from_secs(10), "wait alone answers at once");

    let newer = request(&server, Method::GET, &format!("{path}?wait=30")).header("if-none-match", &tag);
    let (changed, ()) = futures_util::future::join(send(newer), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        receive(&server, "A", 1).await;
    })
    .await;
    assert_eq!(changed.status, 200);
    assert!(changed.body["version"].as_u64() > waiting["version"].as_u64());
}

#[actix_rt::test]
async fn a_query_answers_in_the_order_asked_and_each_id_for_itself() {
    let server = TestServer::start();
    let a = post(&server, "/v1/orders", &order("a")).await;
    let b = post(&server, "/v1/orders", &order("b")).await;
    let unknown = "019ac2f0-0000-8000-8000-000000000000";
    let answer =
        post(&server, "/v1/status/query", &json!({"ids": [b.id(), unknown, "nonsense", a.id()]})).await;
    let items = answer.body["items"].as_array().unwrap();
    assert_eq!((&items[0]["reference"], &items[3]["reference"]), (&json!("b"), &json!("a")));
    for i in [1, 2] {
        assert_eq!(items[i]["problem"]["code"], "not_found");
    }
    assert_eq!(items[1]["transaction_id"], unknown);
    let many = vec![unknown; 501];
    post(&server, "/v1/status/query", &json!({"ids": many})).await.is_fault("/ids", "too_long");
}

#[actix_rt::test]
async fn orders_are_listed_by_page_and_filter() {
    let server = TestServer::start();
    for i in 0..5 {
        assert_eq!(post(&server, "/v1/orders", &order(&format!("o-{i}"))).await.status, 202);
    }
    let mut seen = Vec::new();
    let mut path = "/v1/orders?limit=2".to_owned();
    loop {
        let page = get(&server, &path).await.body;
        seen.extend(
            page["items"].as_array().unwrap().iter().map(|i| i["reference"].as_str().unwrap().to_owned()),
        );
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/v1/orders?limit=2&after={next}");
    }
    seen.sort();
    assert_eq!(seen, ["o-0", "o-1", "o-2", "o-3", "o-4"]);
    let count = async |query: &str| {
        get(&server, &format!("/v1/orders?{query}")).await.body["items"].as_array().unwrap().len()
    };
    assert_eq!(count("reference=o-3").await, 1);
    assert_eq!(count("warehouse=ATL1").await, 5);
    assert_eq!(count("warehouse=DFW2").await, 0);
    assert_eq!(count("state=shipped").await, 0);
    assert_eq!(count("updated_since=2100-01-01T00:00:00Z").await, 0);
    get(&server, "/v1/orders?state=lost").await.is_fault("/state", "malformed");
    get(&server, "/v1/orders?limit=0").await.is_fault("/limit", "out_of_range");
}

#[actix_rt::test]
async fn an_order_without_a_warehouse_goes_where_everything_is() {
    let server = TestServer::start();
    let body = json!({"reference": "d", "warehouse": "DFW2", "type": "receipt", "sku": "A", "quantity": 3});
    let sent = request(&server, Method::POST, "/v1/inventory/moves").header("prefer", "wait=30").json(&body);
    assert_eq!(send(sent).await.status, 200);
    let mut anywhere = order("anywhere");
    anywhere.as_object_mut().unwrap().remove("warehouse");
    assert_eq!(post(&server, "/v1/orders", &anywhere).await.text("warehouse"), "DFW2");
    anywhere["reference"] = json!("nowhere");
    anywhere["lines"][0]["quantity"] = json!(1000);
    assert_eq!(post(&server, "/v1/orders", &anywhere).await.text("warehouse"), "ATL1");
}

#[actix_rt::test]
async fn stock_is_read_by_warehouse_and_sku() {
    let server = TestServer::start();
    receive(&server, "B/1 é", 4).await;
    receive(&server, "C", 1).await;
    let all = get(&server, "/v1/warehouses/ATL1/inventory").await.body;
    assert_eq!(all["items"].as_array().unwrap().len(), 2);
    let one = get(&server, "/v1/warehouses/ATL1/inventory/B%2F1%20%C3%A9").await.body;
    assert_eq!((&one["owner"], &one["on_hand"], &one["available"]), (&json!("local"), &json!(4), &json!(4)));
    let page = get(&server, "/v1/warehouses/ATL1/inventory?limit=1").await.body;
    assert_eq!((&page["items"][0]["sku"], &page["next"]), (&json!("B/1 é"), &json!("B/1 é")));
    let found = get(&server, "/v1/warehouses/ATL1/inventory?sku=C").await.body;
    assert_eq!(found["items"][0]["sku"], "C");
    get(&server, "/v1/warehouses/ATL1/inventory/never").await.is_problem(404, "not_found");
    get(&server, "/v1/warehouses/NOPE").await.is_problem(404, "not_found");
    let warehouses = get(&server, "/v1/warehouses").await.body;
    assert_eq!(warehouses["items"].as_array().unwrap().len(), 3);
    assert_eq!(get(&server, "/readyz").await.body["durability"], "fsync");
}

#[actix_rt::test]
async fn what_ended_is_gone_once_its_retention_is_over_and_a_replay_still_finds_its_id() {
    let server = TestServer::start_with(&["transactions.retention=2s", "backorder.max_wait=1s"]);
    let sent = || request(&server, Method::POST, "/v1/orders").header("prefer", "wait=30");
    let ended = send(sent().json(&order("old"))).await;
    assert_eq!((ended.status, ended.text("state")), (200, "rejected"), "{}", ended.body);
    let path = format!("/v1/status/{}", ended.id());
    let cancel = format!("/v1/orders/{}/cancel", ended.id());
    let cancelled = post(&server, &cancel, &json!({})).await;
    assert_eq!(get(&server, &path).await.status, 200);

    // Longer than the retention, much shorter than the pause between two sweeps.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    get(&server, &path).await.is_problem(410, "transaction_expired");
    get(&server, &format!("{path}?version=1")).await.is_problem(410, "transaction_expired");
    let tagged = request(&server, Method::GET, &path).header("if-none-match", "*");
    send(tagged).await.is_problem(410, "transaction_expired");
    let items = post(&server, "/v1/status/query", &json!({"ids": [ended.id()]})).await.body["items"].clone();
    assert_eq!(items[0]["problem"]["code"], "transaction_expired");
    assert_eq!(get(&server, "/v1/orders").await.body["items"], json!([]));

    for again in [sent().json(&order("old")), request(&server, Method::POST, &cancel)] {
        let again = send(again).await;
        assert_eq!(
            (again.status, again.header("idempotent-replayed")),
            (202, Some("true")),
            "{}",
            again.body
        );
        assert_eq!((&again.body["state"], &again.body["done"]), (&json!(null), &json!(true)));
        assert!([ended.id(), cancelled.id()].contains(&again.id()));
    }
    // A cancellation that is not the one of before has nothing to cancel any more.
    let other = post(&server, &cancel, &json!({"reference": "another"})).await;
    other.is_problem(410, "transaction_expired");
    let other = post(&server, &cancel, &json!({"lines": [1]})).await;
    other.is_problem(409, "reference_conflict");
}

#[actix_rt::test]
async fn an_old_version_that_the_caller_has_is_not_sent_again() {
    let server = TestServer::start();
    let accepted = post(&server, "/v1/orders", &order("tagged")).await;
    until(&server, accepted.id(), |d| d["state"] == "backordered").await;
    let path = format!("/v1/status/{}?version=1", accepted.id());
    for (tag, status) in [("\"1\"", 304), ("*", 304), ("\"2\"", 200)] {
        let read = send(request(&server, Method::GET, &path).header("if-none-match", tag)).await;
        assert_eq!((read.status, read.header("etag")), (status, Some("\"1\"")), "{tag}");
    }
    let none = request(&server, Method::GET, &format!("/v1/status/{}?version=99", accepted.id()));
    send(none.header("if-none-match", "*")).await.is_problem(404, "version_not_found");
}

#[actix_rt::test]
async fn what_answers_to_get_answers_to_head_without_a_body() {
    let server = TestServer::start();
    let accepted = post(&server, "/v1/orders", &order("head")).await;
    let status = format!("/v1/status/{}", accepted.id());
    for path in
        ["/healthz", "/readyz", "/v1/orders", "/v1/warehouses", "/v1/warehouses/ATL1/inventory", &status]
    {
        let head = send(request(&server, Method::HEAD, path)).await;
        assert_eq!((head.status, &head.body), (200, &json!(null)), "{path}");
        assert_eq!(head.header("content-type"), Some("application/json"), "{path}");
        assert!(head.header("x-correlation-id").is_some(), "{path}");
    }
    assert!(send(request(&server, Method::HEAD, &status)).await.header("etag").is_some());
    let missing = send(request(&server, Method::HEAD, "/v1/status/nonsense")).await;
    assert_eq!(missing.status, 404);
}

#[actix_rt::test]
async fn a_receipt_is_not_polled_at_the_pace_of_the_orders_it_passes() {
    let warehouse = r#"warehouses=[{code="ATL1",partition=1,wms={kind="simulated",credits=1,pick="1h"}}]"#;
    let server = TestServer::start_with(&[warehouse]);
    receive(&server, "A", 1_000).await;
    let orders: Vec<_> = (0..200).map(|i| order(&format!("wait-{i}"))).collect();
    assert_eq!(post(&server, "/v1/orders/batch", &json!(orders)).await.status, 202);
    let slow =
        |answer: &crate::door::Answer| answer.header("retry-after").unwrap().parse::<u64>().unwrap() > 1;
    let waiting = until_slow(&server, slow).await;
    // Moves and cancellations have lanes of their own, which no credit holds up.
    let body = json!({"reference": "m", "warehouse": "ATL1", "type": "receipt", "sku": "A", "quantity": 1});
    let moved = post(&server, "/v1/inventory/moves", &body).await;
    assert_eq!((moved.status, moved.header("retry-after")), (202, Some("1")));
    let cancelled = post(&server, &format!("/v1/orders/{waiting}/cancel"), &json!({})).await;
    assert_eq!((cancelled.status, cancelled.header("retry-after")), (202, Some("1")));
    let first = get(&server, &format!("/v1/status/{}?version=1", cancelled.id())).await;
    assert_eq!(first.header("retry-after"), Some("1"));
}

/// Waits until the pace is known by which a waiting order is polled; that order's id.
async fn until_slow(server: &TestServer, slow: impl Fn(&crate::door::Answer) -> bool) -> String {
    for i in 0..100 {
        let accepted = post(server, "/v1/orders", &order(&format!("slow-{i}"))).await;
        if slow(&accepted) {
            return accepted.id().to_owned();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("no pace was measured");
}

/// Threads that read for callers.
const READERS: usize = 2;

#[actix_rt::test]
async fn statuses_that_wait_for_the_disk_hold_up_no_other_call() {
    // On connections of their own: some for each HTTP worker.
    let cold_max = 4 * std::thread::available_parallelism().map_or(1, usize::from) + READERS;
    let mut server = TestServer::start();
    receive(&server, "A", 1_000).await;
    let mut orders = Vec::new();
    for n in 0..=cold_max {
        orders.push(post(&server, "/v1/orders", &order(&format!("o{n}"))).await.id().to_owned());
    }
    for id in &orders {
        status_when(&client(), &server.url, id, |d| d["state"] == "shipped").await;
    }
    // Of what was read before, nothing is in memory; then one of them is.
    server.restart();
    let hot = server.at(&format!("/v1/status/{}", orders.pop().expect("an order")));
    let before = client().get(&hot).send().await.unwrap().text().await.unwrap();
    server.slow_disk();
    let cold: Vec<_> = orders
        .iter()
        .map(|id| client().get(server.at(&format!("/v1/status/{id}"))).send())
        .map(actix_rt::spawn)
        .collect();
    let patience = Instant::now() + PATIENCE;
    while !server.is_held_by_disk(READERS) {
        assert!(Instant::now() < patience, "nobody reads from the slow disk");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    for _ in 0..cold_max {
        let read = client().get(&hot).timeout(PATIENCE / 4).send().await.expect("a status from memory");
        assert_eq!(read.text().await.expect("a status from memory"), before);
        let alive = client().get(server.at("/healthz")).timeout(PATIENCE / 4).send().await;
        assert_eq!(alive.expect("a sign of life").status(), 200);
    }
    assert!(cold.iter().all(|read| !read.is_finished()), "nothing came from the slow disk");
    server.quick_disk();
    for read in cold {
        assert_eq!(read.await.unwrap().expect("a status from disk").status(), 200);
    }
}
