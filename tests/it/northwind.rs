//! Real orders that nobody here wrote, when they are there: `WAVEGATE_NORTHWIND` names a folder
//! with `orders.ndjson`, `stock.ndjson` and `expected.tsv`; without it these tests say so and end.

use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::server::{TestServer, client, wavegate};
use crate::shop::{PATIENCE, get, id_of, post, status_when};

/// The warehouses, and the units that each receives in all.
pub(crate) const WAREHOUSES: [(&str, u64); 3] = [("ATL1", 27_311), ("DFW2", 10_555), ("RNO3", 9_651)];

/// The folder, if it is named.
pub(crate) fn data() -> Option<PathBuf> {
    let folder = std::env::var_os("WAVEGATE_NORTHWIND").map(PathBuf::from);
    if folder.is_none() {
        eprintln!("skipped: WAVEGATE_NORTHWIND is not set");
    }
    folder
}

/// Submits a file and expects all of it to be accepted.
pub(crate) fn submit(server: &TestServer, file: &Path, more: &[&str]) -> String {
    let mut command = wavegate();
    command.arg("submit").arg(file).args(["--url", &server.url]).args(more);
    let output = command.output().expect("the binary runs");
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}");
    text
}

fn lines(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).expect("a readable file");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// All orders, by pages.
async fn all_orders(http: &reqwest::Client, server: &TestServer) -> Vec<Value> {
    let mut orders = Vec::new();
    let mut after = String::new();
    loop {
        let (status, page) = get(http, server.at(&format!("/v1/orders?limit=200{after}"))).await;
        assert_eq!(status, 200, "{page}");
        orders.extend(page["items"].as_array().unwrap().iter().cloned());
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return orders,
        }
    }
}

/// Waits until every order is done or waits for stock, and answers them all.
pub(crate) async fn at_rest(http: &reqwest::Client, server: &TestServer) -> Vec<Value> {
    let until = Instant::now() + PATIENCE * 2;
    loop {
        let orders = all_orders(http, server).await;
        let rests = |o: &Value| o["done"] == true || o["state"] == "backordered";
        if orders.iter().all(rests) {
            return orders;
        }
        assert!(Instant::now() < until, "not at rest: {:?}", orders.iter().find(|o| !rests(o)));
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

/// Stock by (warehouse, SKU).
pub(crate) async fn stock(http: &reqwest::Client, server: &TestServer) -> BTreeMap<(String, String), Value> {
    let mut stock = BTreeMap::new();
    for (code, _) in WAREHOUSES {
        let (_, page) = get(http, server.at(&format!("/v1/warehouses/{code}/inventory?limit=500"))).await;
        assert_eq!(page["next"], Value::Null);
        for item in page["items"].as_array().unwrap() {
            stock.insert((code.to_owned(), item["sku"].as_str().unwrap().to_owned()), item.clone());
        }
    }
    stock
}

fn shipped(order: &Value) -> u64 {
    order["lines"].as_array().unwrap().iter().map(|l| l["shipped"].as_u64().unwrap()).sum()
}

fn number(value: &Value, field: &str) -> u64 {
    value[field].as_u64().unwrap_or_else(|| panic!("{field} in {value}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_orders_submitted_in_bulk_end_as_their_facts_demand() {
    let Some(data) = data() else { return };
    let mut server = TestServer::start();
    let http = client();
    submit(&server, &data.join("stock.ndjson"), &["--moves"]);
    submit(&server, &data.join("orders.ndjson"), &[]);
    let orders = at_rest(&http, &server).await;
    assert_eq!(orders.len(), 830);
    let stock = stock(&http, &server).await;
    let mut gone: BTreeMap<(String, String), u64> = BTreeMap::new();
    let mut killed = 0;
    for order in &orders {
        let code = order["warehouse"].as_str().unwrap();
        for line in order["lines"].as_array().unwrap() {
            let key = (code.to_owned(), line["sku"].as_str().unwrap().to_owned());
            *gone.entry(key).or_default() += number(line, "shipped");
        }
        let kill = order["allocation"] == "fill_or_kill";
        match order["state"].as_str().unwrap() {
            "shipped" => {}
            "rejected" => {
                assert!(kill, "only fill_or_kill is killed: {order}");
                killed += 1;
            }
            "backordered" => {
                assert!(!kill, "fill_or_kill never waits: {order}");
                let lacks = |line: &Value| {
                    let key = (code.to_owned(), line["sku"].as_str().unwrap().to_owned());
                    let free = stock.get(&key).map_or(0, |s| number(s, "available"));
                    number(line, "backordered") > free
                };
                assert!(order["lines"].as_array().unwrap().iter().any(lacks), "waits for nothing: {order}");
            }
            other => panic!("{other} at rest: {order}"),
        }
    }
    assert!(killed <= 68);
    for (code, received) in WAREHOUSES {
        let here = |(c, _): &(&(String, String), _)| c.0 == code;
        let on_hand: u64 = stock.iter().filter(|(k, _)| k.0 == code).map(|(_, s)| number(s, "on_hand")).sum();
        let reserved: u64 =
            stock.iter().filter(|(k, _)| k.0 == code).map(|(_, s)| number(s, "reserved")).sum();
        let out: u64 = gone.iter().filter(here).map(|(_, q)| q).sum();
        assert_eq!((on_hand + out, reserved), (received, 0), "{code}");
    }
    // Once more changes nothing: same references, same content.
    let before: Vec<_> = orders.iter().map(|o| (o["transaction_id"].clone(), o["version"].clone())).collect();
    submit(&server, &data.join("stock.ndjson"), &["--moves"]);
    submit(&server, &data.join("orders.ndjson"), &[]);
    let again: Vec<_> = at_rest(&http, &server)
        .await
        .iter()
        .map(|o| (o["transaction_id"].clone(), o["version"].clone()))
        .collect();
    assert_eq!(before, again);
    assert!(server.term().success());
    let check = server.check_command().output().unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_orders_one_at_a_time_fill_exactly_as_counted_by_hand() {
    let Some(data) = data() else { return };
    let server = TestServer::start();
    let http = client();
    submit(&server, &data.join("stock.ndjson"), &["--moves"]);
    let (_, receipts) = get(&http, server.at("/v1/warehouses/ATL1")).await;
    assert!(receipts["code"] == "ATL1");
    for move_ in lines(&data.join("stock.ndjson")) {
        let (status, accepted) = post(&http, server.at("/v1/inventory/moves"), &move_).await;
        assert_eq!(status, 202, "{accepted}");
        status_when(&http, &server.url, &id_of(&accepted), |d| d["state"] == "applied").await;
    }
    for order in lines(&data.join("orders.ndjson")) {
        let (status, accepted) = post(&http, server.at("/v1/orders"), &order).await;
        assert_eq!(status, 202, "{accepted}");
        status_when(&http, &server.url, &id_of(&accepted), |d| d["state"] != "accepted").await;
    }
    let orders = at_rest(&http, &server).await;
    let of = |wanted: &dyn Fn(&Value) -> bool| orders.iter().filter(|o| wanted(o)).count();
    let ordered =
        |o: &Value| -> u64 { o["lines"].as_array().unwrap().iter().map(|l| number(l, "ordered")).sum() };
    let filled = of(&|o| shipped(o) == ordered(o));
    let part = of(&|o| shipped(o) > 0 && shipped(o) < ordered(o));
    let waiting = of(&|o| o["state"] == "backordered" && shipped(o) == 0);
    let killed = of(&|o| o["state"] == "rejected");
    assert_eq!((filled, part, waiting, killed), (708, 10, 100, 12));
    let at = |code: &str| of(&|o| o["warehouse"] == code);
    assert_eq!((at("ATL1"), at("DFW2"), at("RNO3")), (506, 200, 124));
    assert_eq!(orders.iter().map(shipped).sum::<u64>(), 41_895);
    let mut by_sku: BTreeMap<String, u64> = BTreeMap::new();
    for line in orders.iter().flat_map(|o| o["lines"].as_array().unwrap()) {
        *by_sku.entry(line["sku"].as_str().unwrap().to_owned()).or_default() += number(line, "shipped");
    }
    let expected = fs::read_to_string(data.join("expected.tsv")).unwrap();
    for row in expected.lines().skip(1) {
        let cells: Vec<&str> = row.split('\t').collect();
        assert_eq!(by_sku[cells[0]].to_string(), cells[3], "{}", cells[0]);
    }
}
