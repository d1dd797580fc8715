//! Many want what there is little of: never one unit too many, never one left while somebody who
//! could use it waits.

use serde_json::{Value, json};
use std::time::{Duration, Instant};

use crate::server::{TestServer, client};
use crate::shop::{PATIENCE, fast_warehouses, get, id_of, order, post, receipt, status_when};

/// Clients that fight.
const CLIENTS: u32 = 64;
/// Orders of each.
const ORDERS: u32 = 4;
/// Units that there are, in receipts that arrive during the fight.
const RECEIPTS: [u32; 6] = [30, 1, 7, 40, 2, 50];

async fn fight(http: reqwest::Client, url: String, who: u32) -> Vec<String> {
    let mut ids = Vec::new();
    for n in 0..ORDERS {
        let mut body = order(&format!("f{who}-{n}"), "ATL1", "RARE", 1 + (who + n) % 3);
        body["allocation"] = json!(["ship_complete", "ship_partial"][((who + n) % 2) as usize]);
        body["priority"] = json!(who % 10);
        let (status, accepted) = post(&http, format!("{url}/v1/orders"), &body).await;
        assert_eq!(status, 202, "{accepted}");
        ids.push(id_of(&accepted));
    }
    ids
}

fn units(document: &Value, place: &str) -> u64 {
    document["lines"][0][place].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_clients_fight_for_one_sku_while_picks_come_up_short() {
    let short = fast_warehouses(&[]).replacen("silent_rate=0.0", "short_pick_rate=0.2", 1);
    let server = TestServer::start_with(&[&short, "manifests.close_every=100ms"]);
    let http = client();
    let fighters: Vec<_> =
        (0..CLIENTS).map(|who| tokio::spawn(fight(http.clone(), server.url.clone(), who))).collect();
    for (n, quantity) in RECEIPTS.into_iter().enumerate() {
        let body = receipt(&format!("r{n}"), "ATL1", "RARE", quantity);
        let (status, accepted) = post(&http, server.at("/v1/inventory/moves"), &body).await;
        assert_eq!(status, 202);
        status_when(&http, &server.url, &id_of(&accepted), |d| d["state"] == "applied").await;
    }
    let mut ids = Vec::new();
    for fighter in fighters {
        ids.extend(fighter.await.unwrap());
    }
    let until = Instant::now() + PATIENCE;
    let (orders, stock) = loop {
        let mut orders = Vec::new();
        for page in ids.chunks(200) {
            let (_, found) = post(&http, server.at("/v1/status/query"), &json!({"ids": page})).await;
            orders.extend(found["items"].as_array().unwrap().iter().cloned());
        }
        let (_, stock) = get(&http, server.at("/v1/warehouses/ATL1/inventory/RARE")).await;
        // One that ships complete keeps what is packed here while the rest of it waits.
        let rests = |o: &Value| {
            let waits = units(o, "backordered") > 0;
            o["done"] == true || (waits && units(o, "reserved") + units(o, "shipped") == units(o, "picked"))
        };
        if orders.iter().all(rests) {
            break (orders, stock);
        }
        assert!(Instant::now() < until, "not at rest: {stock} {:?}", orders.iter().find(|o| !rests(o)));
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let received: u64 = RECEIPTS.iter().map(|q| u64::from(*q)).sum();
    let shipped: u64 = orders.iter().map(|o| units(o, "shipped")).sum();
    assert_eq!(shipped + stock["on_hand"].as_u64().unwrap(), received, "never one unit too many: {stock}");
    let free = stock["available"].as_u64().unwrap();
    for order in orders.iter().filter(|o| o["done"] == false) {
        let wants = units(order, "backordered");
        let could = if order["allocation"] == "ship_partial" { free > 0 } else { wants <= free };
        assert!(!could, "{free} units are free and this order could use them: {order}");
    }
    let waiting: u64 = orders.iter().map(|o| units(o, "backordered")).sum();
    assert_eq!(stock["backordered"].as_u64(), Some(waiting));
    assert!(shipped > 0 && waiting > 0 && stock["suspect"].as_u64() > Some(0), "no fight: {stock}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wms_that_does_not_answer_for_too_long_makes_its_orders_visible_dead_letters() {
    let silent = fast_warehouses(&["DFW2"]);
    let mut server =
        TestServer::start_with(&[&silent, "wms.give_up_after=1s", "manifests.close_every=100ms"]);
    let http = client();
    let (_, accepted) = post(&http, server.at("/v1/inventory/moves"), &receipt("r", "DFW2", "S", 1)).await;
    status_when(&http, &server.url, &id_of(&accepted), |d| d["state"] == "applied").await;
    let (_, accepted) = post(&http, server.at("/v1/orders"), &order("o", "DFW2", "S", 1)).await;
    let id = id_of(&accepted);
    let document = status_when(&http, &server.url, &id, |d| d["state"] == "failed").await;
    assert_eq!(document["exceptions"][0]["code"], "wms_unreachable");
    assert_eq!((&document["attention"], &document["done"]), (&json!(true), &json!(false)));
    assert_eq!(document["lines"][0]["reserved"], 1, "the WMS may have taken it: its stock stays reserved");
    // The WMS is back: the wave is still sent, and the order goes on by itself.
    assert!(server.term().success());
    let server = TestServer::start_in(server.dir(), &[&fast_warehouses(&[]), "manifests.close_every=100ms"]);
    let document = status_when(&http, &server.url, &id, |d| d["done"] == true).await;
    assert_eq!((&document["state"], &document["attention"]), (&json!("shipped"), &json!(false)));
}

/// Posts orders from several clients at once; the time that 99 in 100 answers took.
async fn accept_p99(http: &reqwest::Client, url: &str, name: &str) -> Duration {
    let clients: Vec<_> = (0..16)
        .map(|who| {
            let (http, url, name) = (http.clone(), format!("{url}/v1/orders"), format!("{name}-{who}"));
            tokio::spawn(async move {
                let mut took = Vec::new();
                for n in 0..40 {
                    let began = Instant::now();
                    let (status, body) =
                        post(&http, url.clone(), &order(&format!("{name}-{n}"), "ATL1", "S", 1)).await;
                    assert_eq!(status, 202, "{body}");
                    took.push(began.elapsed());
                }
                took
            })
        })
        .collect();
    let mut all = Vec::new();
    for client in clients {
        all.extend(client.await.unwrap());
    }
    all.sort();
    all[all.len() * 99 / 100]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accepting_is_no_slower_while_the_wms_is_down() {
    let warehouse =
        |wms: &str| format!("warehouses=[{{code=\"ATL1\",partition=1,backlog_max=100000,wms={wms}}}]");
    let up = warehouse("{kind=\"simulated\",pick=\"20ms\",pack=\"10ms\",depart=\"50ms\"}");
    // Nobody listens on the discard port.
    let down = warehouse("{kind=\"http\",url=\"http://127.0.0.1:9\",key=\"nobody-is-there-1\"}");
    let http = client();
    let mut ratios = Vec::new();
    let (up, down) = (TestServer::start_with(&[&up]), TestServer::start_with(&[&down]));
    for server in [&up, &down] {
        let (status, _) =
            post(&http, server.at("/v1/inventory/moves"), &receipt("r", "ATL1", "S", 100_000)).await;
        assert_eq!(status, 202);
    }
    // Alternated, so that other work on the machine falls on both; the middle ratio counts.
    for round in 0..5 {
        let well = accept_p99(&http, &up.url, &format!("up{round}")).await;
        let ill = accept_p99(&http, &down.url, &format!("down{round}")).await;
        ratios.push(ill.as_secs_f64() / well.as_secs_f64());
    }
    ratios.sort_by(f64::total_cmp);
    assert!(ratios[2] <= 1.3, "accept p99 while the WMS is down, as a ratio: {ratios:.2?}");
    let (_, view) = get(&http, down.at("/v1/warehouses/ATL1")).await;
    assert!(view["backlog"].as_u64() > Some(0), "the backlog grows meanwhile: {view}");
}
