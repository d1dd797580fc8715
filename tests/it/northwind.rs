//! Real orders that nobody here wrote, through the command line and to their ends. The data is
//! not part of the repository: without `WAVEGATE_NORTHWIND` (its folder) there is nothing to do.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::server::{TestServer, client, wavegate};

/// The longest that 830 orders may take on a busy machine.
const REST_MAX: Duration = Duration::from_secs(120);

fn submit(server: &TestServer, file: &Path, moves: bool) -> String {
    let mut command = wavegate();
    command.arg("submit").arg(file).args(["--url", &server.url]);
    if moves {
        command.arg("--moves");
    }
    let output = command.output().expect("the binary runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

async fn orders(server: &TestServer) -> Vec<Value> {
    let client = client();
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let url = server.at(&format!("/v1/orders?limit=200{after}"));
        let page: Value = client.get(url).send().await.unwrap().json().await.unwrap();
        all.extend(page["items"].as_array().expect("items").iter().cloned());
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return all,
        }
    }
}

fn count(orders: &[Value], states: &[&str]) -> usize {
    orders.iter().filter(|o| states.iter().any(|s| o["state"] == **s)).count()
}

/// Units by warehouse and SKU of one file's lines.
fn received(file: &Path) -> BTreeMap<(String, String), u64> {
    let mut units = BTreeMap::new();
    for line in std::fs::read_to_string(file).unwrap().lines() {
        let receipt: Value = serde_json::from_str(line).unwrap();
        let name = |n: &str| receipt[n].as_str().unwrap().to_owned();
        *units.entry((name("warehouse"), name("sku"))).or_default() += receipt["quantity"].as_u64().unwrap();
    }
    units
}

#[tokio::test]
async fn northwind_ends_as_its_stock_allows_and_sending_it_twice_changes_nothing() {
    let Some(folder) = std::env::var_os("WAVEGATE_NORTHWIND").map(PathBuf::from) else {
        eprintln!("skipped: WAVEGATE_NORTHWIND is not set");
        return;
    };
    let (stock, file) = (folder.join("stock.ndjson"), folder.join("orders.ndjson"));
    let server = TestServer::start_with(&["manifests.close_every=200ms"]);
    let told = submit(&server, &stock, true);
    assert!(told.contains("279 new, 0 replayed, 0 refused"), "{told}");
    assert!(submit(&server, &file, false).contains("0 refused"));
    assert!(submit(&server, &stock, true).contains("0 new, 279 replayed, 0 refused"));
    assert!(submit(&server, &file, false).contains("0 refused"));

    let until = Instant::now() + REST_MAX;
    let orders = loop {
        let orders = orders(&server).await;
        assert_eq!(orders.len(), 830, "each order once");
        if count(&orders, &["shipped", "backordered", "rejected"]) == 830 {
            break orders;
        }
        assert!(Instant::now() < until, "not at rest: {}", json!(states(&orders)));
        tokio::time::sleep(Duration::from_millis(250)).await;
    };
    let killed = orders.iter().filter(|o| o["state"] == "rejected");
    assert!(killed.clone().all(|o| o["allocation"] == "fill_or_kill"), "only they may be killed");
    assert!(killed.count() <= 68);
    let waiting = |o: &&Value| o["state"] == "backordered";
    assert!(orders.iter().filter(waiting).all(|o| o["allocation"] != "fill_or_kill"), "they never wait");
    let received = received(&stock);
    for ((warehouse, sku), shipped) in shipped(&orders) {
        let had = received.get(&(warehouse.clone(), sku.clone())).copied().unwrap_or(0);
        assert!(shipped <= had, "{warehouse} {sku}: shipped {shipped} of {had}");
    }
}

fn states(orders: &[Value]) -> BTreeMap<String, usize> {
    let mut states = BTreeMap::new();
    for order in orders {
        *states.entry(order["state"].as_str().unwrap_or("?").to_owned()).or_default() += 1;
    }
    states
}

fn shipped(orders: &[Value]) -> BTreeMap<(String, String), u64> {
    let mut units = BTreeMap::new();
    for order in orders {
        for line in order["lines"].as_array().unwrap() {
            let key =
                (order["warehouse"].as_str().unwrap().to_owned(), line["sku"].as_str().unwrap().to_owned());
            *units.entry(key).or_default() += line["shipped"].as_u64().unwrap();
        }
    }
    units
}
