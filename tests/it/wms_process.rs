//! Wavegate and a WMS as two processes with the wire between them: what one side says was shipped,
//! the other knows to the unit, whatever is killed meanwhile; and each character does its harm.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::floor::{TestWms, free_port};
use crate::northwind;
use crate::server::{TestServer, client};
use crate::shop::{PATIENCE, get, id_of, order, post, receipt, status_when};

/// A warehouse that works as fast as a test wants it.
const FAST: &str = "pick=\"20ms\",pack=\"10ms\",depart=\"50ms\"";
/// SKUs that the clients order.
const SKUS: u64 = 5;
/// More of each than they can order.
const STOCK: u32 = 100_000;
/// Clients that post all the time.
const CLIENTS: u64 = 4;

/// Wavegate with the WMS of ATL1 at the other end; DFW2 is inside it. Only Wavegate runs yet.
fn two_sides(character: &str, atl1: &str, more: &[&str]) -> (TestServer, TestWms) {
    let port = free_port();
    let wms = TestWms::new("ATL1", &format!("http://127.0.0.1:{port}"), &format!("{FAST},{character}"));
    let warehouses = format!(
        "warehouses=[{{code=\"ATL1\",partition=1,{atl1}wms={}}},{{code=\"DFW2\",partition=2,wms={{{FAST}}}}}]",
        wms.table()
    );
    let listen = format!("http.listen=127.0.0.1:{port}");
    let mut sets = vec![listen.as_str(), &warehouses, "manifests.close_every=100ms"];
    sets.extend(more);
    (TestServer::start_with(&sets), wms)
}

fn sku(n: u64) -> String {
    format!("SKU-{}", n % SKUS)
}

async fn stock_up(http: &reqwest::Client, server: &TestServer, code: &str) {
    for n in 0..SKUS {
        let body = receipt(&format!("open-{code}-{n}"), code, &sku(n), STOCK);
        assert_eq!(post(http, server.at("/v1/inventory/moves"), &body).await.0, 202);
    }
}

/// Posts orders of ATL1 and gives back their ids.
async fn order_some(http: &reqwest::Client, server: &TestServer, count: u64) -> Vec<String> {
    let mut ids = Vec::new();
    for n in 0..count {
        let body = order(&format!("o{n}"), "ATL1", &sku(n), 1 + (n % 3) as u32);
        let (status, accepted) = post(http, server.at("/v1/orders"), &body).await;
        assert_eq!(status, 202, "{accepted}");
        ids.push(id_of(&accepted));
    }
    ids
}

/// Stops Wavegate in order and checks its store at rest.
fn check_store(server: &mut TestServer) {
    assert!(server.term().success());
    let check = server.check_command().output().unwrap();
    let text = String::from_utf8_lossy(&check.stdout).into_owned() + &String::from_utf8_lossy(&check.stderr);
    assert!(check.status.success(), "{text}");
}

/// Compares the two sides' books: by order and line, and by SKU with what left the stock.
async fn books_agree(http: &reqwest::Client, server: &TestServer, wms: &TestWms, orders: &[Value]) {
    let ledger = wms.ledger();
    ledger.must_be_sound();
    let mut by_order = BTreeMap::new();
    let mut by_sku: BTreeMap<String, u64> = BTreeMap::new();
    for order in orders.iter().filter(|o| o["warehouse"] == wms.code.as_str()) {
        for line in order["lines"].as_array().unwrap() {
            let shipped = line["shipped"].as_u64().unwrap();
            if shipped > 0 {
                let id = order["transaction_id"].as_str().unwrap().to_owned();
                by_order.insert((id, line["line"].as_u64().unwrap()), shipped);
                *by_sku.entry(line["sku"].as_str().unwrap().to_owned()).or_default() += shipped;
            }
        }
    }
    assert_eq!(ledger.shipped_by_order(), by_order);
    assert_eq!(ledger.shipped_by_sku(), by_sku);
    let (_, page) = get(http, server.at(&format!("/v1/warehouses/{}/inventory?limit=500", wms.code))).await;
    for item in page["items"].as_array().unwrap() {
        assert_eq!(item["reserved"], 0, "{item}");
    }
}

#[derive(Default)]
struct Acknowledged {
    ids: Mutex<BTreeMap<String, String>>,
    next: AtomicU64,
    done: AtomicBool,
    url: String,
}

/// Posts until answered, or until the test is over; what has no answer is posted again word for word.
async fn until_answered(
    http: &reqwest::Client,
    books: &Acknowledged,
    path: &str,
    body: &Value,
) -> Option<String> {
    let until = Instant::now() + PATIENCE;
    while !books.done.load(SeqCst) {
        if let Ok(response) = http.post(format!("{}{path}", books.url)).json(body).send().await {
            let status = response.status().as_u16();
            assert!(matches!(status, 202 | 429 | 503), "{status}");
            // The answer may be cut off by the kill: then it was no answer.
            if status == 202
                && let Ok(accepted) = response.json().await
            {
                return Some(id_of(&accepted));
            }
        }
        assert!(Instant::now() < until, "no answer within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    None
}

/// Orders of one and of several lines; every ninth is cancelled at once.
async fn keep_posting(books: Arc<Acknowledged>) {
    let http = client();
    while !books.done.load(SeqCst) {
        let n = books.next.fetch_add(1, SeqCst);
        let mut body = order(&format!("k{n}"), "ATL1", &sku(n), 1 + (n % 3) as u32);
        if n.is_multiple_of(4) {
            let lines = body["lines"].as_array_mut().unwrap();
            lines.push(json!({"line": 2, "sku": sku(n + 1), "quantity": 2}));
            body["allocation"] = json!("ship_partial");
        }
        let Some(id) = until_answered(&http, &books, "/v1/orders", &body).await else { return };
        books.ids.lock().unwrap().insert(format!("k{n}"), id.clone());
        if n.is_multiple_of(9) {
            let path = format!("/v1/orders/{id}/cancel");
            let body = if n.is_multiple_of(4) { json!({"lines": [1]}) } else { json!({}) };
            until_answered(&http, &books, &path, &body).await;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_killed_at_random_agree_to_the_unit() {
    let character = "short_pick_rate=0.05,damage_rate=0.02,repeat_rate=0.1,reorder_rate=0.1";
    let (mut server, mut wms) = two_sides(character, "", &[]);
    wms.start();
    let http = client();
    stock_up(&http, &server, "ATL1").await;
    let books = Arc::new(Acknowledged { url: server.url.clone(), ..Acknowledged::default() });
    let clients: Vec<_> = (0..CLIENTS).map(|_| tokio::spawn(keep_posting(books.clone()))).collect();
    for kill in 0..12_u64 {
        // A random moment; the seed of the moments is the machine's own noise and this spread.
        tokio::time::sleep(Duration::from_millis(150 + kill * 197 % 500)).await;
        match kill % 3 {
            0 => wms.start(),
            1 => {
                server.kill();
                server.restart();
            }
            _ => {
                wms.kill();
                server.kill();
                server.restart();
                wms.start();
            }
        }
    }
    books.done.store(true, SeqCst);
    for client in clients {
        client.await.expect("a client's own checks");
    }
    let ids = books.ids.lock().unwrap().clone();
    assert!(ids.len() > 200, "only {} acknowledged: too few to prove anything", ids.len());
    let mut orders = Vec::new();
    for (name, id) in &ids {
        let document = status_when(&http, &server.url, id, |d| d["done"] == true).await;
        assert!(document["state"] != "failed", "{name}: {document}");
        orders.push(document);
    }
    assert!(orders.iter().any(|o| o["state"] == "cancelled"), "no cancellation was in time");
    books_agree(&http, &server, &wms, &orders).await;
    assert!(!wms.ledger().missing.is_empty(), "nothing was missing");
    check_store(&mut server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_wms_that_is_down_orders_pile_up_to_the_bound_and_drain_by_credits() {
    const BACKLOG: usize = 300;
    let (mut server, mut wms) = two_sides("", &format!("backlog_max={BACKLOG},"), &[]);
    let http = client();
    for code in ["ATL1", "DFW2"] {
        stock_up(&http, &server, code).await;
    }
    let mut ids = Vec::new();
    let (mut refused, mut slowest) = (0, Duration::ZERO);
    let mut n = 0_u64;
    while refused < 20 {
        assert!(n < 5_000, "the backlog has no bound");
        let began = Instant::now();
        let body = order(&format!("d{n}"), "ATL1", &sku(n), 1);
        let (status, answer) = post(&http, server.at("/v1/orders"), &body).await;
        slowest = slowest.max(began.elapsed());
        match status {
            202 => ids.push(id_of(&answer)),
            429 => {
                assert_eq!(answer["code"], "warehouse_backlog_full");
                refused += 1;
            }
            _ => panic!("{status} {answer}"),
        }
        n += 1;
    }
    assert!(ids.len() >= BACKLOG, "{}", ids.len());
    assert!(slowest < Duration::from_secs(5), "a POST took {slowest:?}: it waited for the WMS");
    // The neighbour works on as if nothing were.
    let (status, accepted) = post(&http, server.at("/v1/orders"), &order("n", "DFW2", &sku(0), 1)).await;
    assert_eq!(status, 202, "{accepted}");
    status_when(&http, &server.url, &id_of(&accepted), |d| d["state"] == "shipped").await;
    wms.start();
    let mut orders = Vec::new();
    for id in &ids {
        orders.push(status_when(&http, &server.url, id, |d| d["state"] == "shipped").await);
    }
    books_agree(&http, &server, &wms, &orders).await;
    let ledger = wms.ledger();
    assert_eq!(ledger.taken.len(), ids.len());
    // The table has 200 credits.
    assert!((2..=200).contains(&ledger.open_max), "{} releases were on the floor at once", ledger.open_max);
    check_store(&mut server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wms_that_dies_again_and_again_goes_on_from_its_ledger() {
    let (mut server, mut wms) = two_sides("die_after=20", "", &[]);
    wms.start();
    let http = client();
    stock_up(&http, &server, "ATL1").await;
    let ids = order_some(&http, &server, 30).await;
    // A picking and a packing each, and the manifests: more than three lives.
    for _ in 0..3 {
        let status = wms.end(PATIENCE);
        assert_eq!(status.code(), Some(1), "{}", wms.log());
        wms.start();
    }
    let mut orders = Vec::new();
    for id in &ids {
        loop {
            let (_, document) =
                get(&http, server.at(&format!("/v1/status/{id}?wait=1&after_version=99"))).await;
            if document["state"] == "shipped" {
                orders.push(document);
                break;
            }
            wms.start();
        }
    }
    books_agree(&http, &server, &wms, &orders).await;
    check_store(&mut server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_wms_forgets_is_asked_for_and_sent_again() {
    let (mut server, mut wms) = two_sides("forget_rate=0.3", "", &["wms.silent_after=1s"]);
    wms.start();
    let http = client();
    stock_up(&http, &server, "ATL1").await;
    let ids = order_some(&http, &server, 40).await;
    let mut orders = Vec::new();
    for id in &ids {
        orders.push(status_when(&http, &server.url, id, |d| d["state"] == "shipped").await);
    }
    let ledger = wms.ledger();
    assert!(!ledger.forgotten.is_empty(), "nothing was forgotten");
    books_agree(&http, &server, &wms, &orders).await;
    check_store(&mut server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_wms_refuses_fails_alone() {
    let (mut server, mut wms) = two_sides("refuse_rate=0.1,reject_rate=0.1", "", &[]);
    wms.start();
    let http = client();
    stock_up(&http, &server, "ATL1").await;
    let ids = order_some(&http, &server, 60).await;
    let mut states: BTreeMap<String, usize> = BTreeMap::new();
    for id in &ids {
        let ended = |d: &Value| d["state"] == "shipped" || d["state"] == "failed";
        let document = status_when(&http, &server.url, id, ended).await;
        *states.entry(document["state"].as_str().unwrap().to_owned()).or_default() += 1;
        if document["state"] == "failed" {
            assert_eq!(document["exceptions"][0]["code"], "wms_rejected", "{document}");
        }
    }
    let ledger = wms.ledger();
    ledger.must_be_sound();
    assert_eq!(ledger.taken.len(), states["shipped"]);
    // Refused waves leave no trace in the ledger; rejected orders do.
    assert!(!ledger.rejected.is_empty() && ledger.rejected.len() < states["failed"], "{states:?}");
    check_store(&mut server);
}

/// Real orders that nobody here wrote, when they are there (see `northwind.rs`): three warehouses,
/// each a process of its own, and everything is killed while they work.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_orders_through_three_warehouses_killed_at_random_agree_to_the_unit() {
    let Some(data) = northwind::data() else { return };
    let port = free_port();
    let url = format!("http://127.0.0.1:{port}");
    let character = format!("{FAST},repeat_rate=0.1,reorder_rate=0.1");
    let mut houses: Vec<TestWms> =
        northwind::WAREHOUSES.iter().map(|(code, _)| TestWms::new(code, &url, &character)).collect();
    let tables = houses.iter().zip(1..).map(|(wms, partition)| {
        format!("{{code=\"{}\",partition={partition},wms={}}}", wms.code, wms.table())
    });
    let warehouses = format!("warehouses=[{}]", tables.collect::<Vec<_>>().join(","));
    let listen = format!("http.listen=127.0.0.1:{port}");
    let mut server = TestServer::start_with(&[&listen, &warehouses, "manifests.close_every=200ms"]);
    houses.iter_mut().for_each(TestWms::start);
    let http = client();
    northwind::submit(&server, &data.join("stock.ndjson"), &["--moves"]);
    // All of the stock is there before the first order, as the facts demand.
    let until = Instant::now() + PATIENCE;
    while northwind::stock(&http, &server).await.values().map(|s| s["on_hand"].as_u64().unwrap()).sum::<u64>()
        < northwind::WAREHOUSES.iter().map(|(_, received)| received).sum()
    {
        assert!(Instant::now() < until, "the stock does not arrive");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    northwind::submit(&server, &data.join("orders.ndjson"), &[]);
    for kill in 0..9_u64 {
        tokio::time::sleep(Duration::from_millis(60 + kill * 197 % 300)).await;
        if kill.is_multiple_of(3) {
            server.kill();
            server.restart();
        }
        houses[(kill % 3) as usize].start();
    }
    let orders = northwind::at_rest(&http, &server).await;
    assert_eq!(orders.len(), 830);
    let stock = northwind::stock(&http, &server).await;
    for (wms, (code, received)) in houses.iter().zip(northwind::WAREHOUSES) {
        books_agree(&http, &server, wms, &orders).await;
        let on_hand: u64 =
            stock.iter().filter(|((c, _), _)| c == code).map(|(_, s)| s["on_hand"].as_u64().unwrap()).sum();
        let shipped: u64 = wms.ledger().shipped_by_sku().values().sum();
        assert_eq!(on_hand + shipped, received, "{code}");
    }
    check_store(&mut server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_ship_although_no_answer_ever_comes_in_time() {
    let (mut server, mut wms) = two_sides("late_rate=1.0", "", &[]);
    wms.start();
    let http = client();
    stock_up(&http, &server, "ATL1").await;
    let mut orders = Vec::new();
    for id in order_some(&http, &server, 2).await {
        orders.push(status_when(&http, &server.url, &id, |d| d["state"] == "shipped").await);
    }
    books_agree(&http, &server, &wms, &orders).await;
    check_store(&mut server);
}
