//! What operators see and do: dead letters of orders that kill their tree or the whole process;
//! redriving and giving up; pausing a warehouse.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use wavegate_engine::ports::trouble::{CAREFUL_FROM, DEATHS_MAX};

use crate::door::{self, ACME, Answer, OPERATOR, WMS, keys, request, send};
use crate::server::{TestServer, client};
use crate::shop::{PATIENCE, fast_warehouses, get, id_of, order, post, receipt, status_when};

const LETTERS: &str = "/v1/ops/dead-letters";

pub(crate) fn start() -> TestServer {
    TestServer::start_with(&[&fast_warehouses(&[]), "manifests.close_every=100ms"])
}

/// Brings stock and waits until it is there.
pub(crate) async fn stock(server: &TestServer, warehouse: &str, sku: &str, quantity: u32) {
    let body = receipt(&format!("asn-{warehouse}-{sku}-{quantity}"), warehouse, sku, quantity);
    let sent = request(server, Method::POST, "/v1/inventory/moves").header("prefer", "wait=30").json(&body);
    let answer = send(sent).await;
    assert_eq!(answer.body["state"], "applied", "{}", answer.body);
}

/// Posts an order of one unit of SKU `S` in ATL1; its id.
pub(crate) async fn place(server: &TestServer, reference: &str) -> String {
    let (status, accepted) =
        post(&client(), server.at("/v1/orders"), &order(reference, "ATL1", "S", 1)).await;
    assert_eq!(status, 202, "{accepted}");
    id_of(&accepted)
}

pub(crate) async fn is_in(server: &TestServer, id: &str, state: &str) -> Value {
    status_when(&client(), &server.url, id, |d| d["state"] == state).await
}

pub(crate) async fn letters(server: &TestServer) -> Vec<Value> {
    let (status, page) = get(&client(), server.at(LETTERS)).await;
    assert_eq!(status, 200, "{page}");
    page["items"].as_array().expect("items").clone()
}

/// Waits until the list is as wanted.
pub(crate) async fn letters_when(server: &TestServer, wanted: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let until = Instant::now() + PATIENCE;
    loop {
        let found = letters(server).await;
        if wanted(&found) {
            return found;
        }
        assert!(Instant::now() < until, "not within {PATIENCE:?}: {found:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) async fn about(server: &TestServer, letter: &Value, verb: &str) -> Answer {
    let id = letter["id"].as_str().expect("an id");
    send(request(server, Method::POST, &format!("{LETTERS}/{id}/{verb}"))).await
}

async fn available(server: &TestServer, sku: &str) -> Value {
    get(&client(), server.at(&format!("/v1/warehouses/ATL1/inventory/{sku}"))).await.1
}

fn store_is_sound(server: &mut TestServer) {
    assert!(server.term().success());
    let check = server.check_command().output().unwrap();
    let text = String::from_utf8_lossy(&check.stdout).into_owned() + &String::from_utf8_lossy(&check.stderr);
    assert!(check.status.success(), "{text}");
}

/// Three deaths with it alone in hand, or that a panic named it for, and no fourth.
fn says_three_times(letter: &Value) {
    assert_eq!(letter["reason"], "it crashed the warehouse's tree 3 times", "{letter}");
}

fn is_crashed(document: &Value) {
    assert_eq!((&document["attention"], &document["done"]), (&json!(true), &json!(false)), "{document}");
    assert_eq!(document["exceptions"][0]["code"], "crashed_pipeline", "{document}");
}

#[actix_rt::test]
async fn an_order_that_crashes_its_tree_is_kept_aside_and_ships_once_it_is_healed() {
    let mut server = start();
    stock(&server, "ATL1", "S", 100).await;
    server.poison("panic", "bad");
    let mut others = Vec::new();
    for n in 0..10 {
        others.push(place(&server, &format!("good-{n}")).await);
    }
    let bad = place(&server, "bad").await;
    for n in 10..20 {
        others.push(place(&server, &format!("good-{n}")).await);
    }
    is_crashed(&is_in(&server, &bad, "failed").await);
    for id in &others {
        is_in(&server, id, "shipped").await;
    }
    let found = letters(&server).await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((&found[0]["kind"], &found[0]["transaction_id"]), (&json!("order"), &json!(bad)));
    says_three_times(&found[0]);
    // The poison stays: neither time nor a restart brings the order back to life by itself.
    server.restart();
    is_in(&server, &place(&server, "after").await, "shipped").await;
    is_crashed(&is_in(&server, &bad, "failed").await);

    server.heal();
    assert_eq!(about(&server, &found[0], "redrive").await.status, 202);
    let shipped = is_in(&server, &bad, "shipped").await;
    assert_eq!((&shipped["outcome"], &shipped["attention"]), (&json!("complete"), &json!(false)));
    letters_when(&server, <[Value]>::is_empty).await;
    assert_eq!(about(&server, &found[0], "redrive").await.status, 202, "a repeat");
    about(&server, &found[0], "give-up").await.is_problem(409, "dead_letter_settled");
    store_is_sound(&mut server);
}

#[actix_rt::test]
async fn an_order_that_is_redriven_too_early_fails_again_and_given_up_frees_its_stock() {
    let mut server = start();
    stock(&server, "ATL1", "S", 1).await;
    server.poison("panic", "bad");
    let bad = place(&server, "bad").await;
    is_crashed(&is_in(&server, &bad, "failed").await);
    let first = letters_when(&server, |l| l.len() == 1).await.remove(0);
    // A fresh process, so that no tree waits out its many deaths.
    server.restart();
    assert_eq!(about(&server, &first, "redrive").await.status, 202);
    let second = letters_when(&server, |l| l.len() == 1 && l[0]["id"] != first["id"]).await.remove(0);
    let document = is_in(&server, &bad, "failed").await;
    assert_eq!(document["exceptions"].as_array().unwrap().len(), 2, "{document}");

    assert_eq!(about(&server, &second, "give-up").await.status, 202);
    let done = is_in(&server, &bad, "rejected").await;
    assert_eq!((&done["done"], &done["lines"][0]["cancelled"]), (&json!(true), &json!(1)), "{done}");
    letters_when(&server, <[Value]>::is_empty).await;
    assert_eq!(about(&server, &second, "give-up").await.status, 202, "a repeat");
    assert_eq!(available(&server, "S").await["available"], 1);
    server.heal();
    is_in(&server, &place(&server, "next").await, "shipped").await;
    store_is_sound(&mut server);
}

#[actix_rt::test]
async fn an_order_that_kills_by_what_is_reported_about_it_goes_on_with_those_reports() {
    // Long enough that the poison is there before the first report, also on a machine that is busy.
    let slow = "warehouses=[{code=\"ATL1\",partition=1,wms={kind=\"simulated\",pick=\"4s\",pack=\"10ms\",\
                depart=\"50ms\",credits=200}}]";
    let mut server = TestServer::start_with(&[slow, "manifests.close_every=100ms"]);
    stock(&server, "ATL1", "S", 10).await;
    let bad = place(&server, "bad").await;
    is_in(&server, &bad, "released").await;
    server.poison("panic", "bad");
    is_crashed(&is_in(&server, &bad, "failed").await);
    let good = place(&server, "good").await;
    is_in(&server, &good, "shipped").await;
    // Meanwhile the WMS has picked and packed it: said, and kept aside like the order itself.
    let said = |l: &Value| l["kind"] == "confirmation" && l["transaction_id"] == json!(bad);
    let found = letters_when(&server, |l| l.iter().filter(|l| said(l)).count() >= 2).await;
    let of_order = found.iter().find(|l| l["kind"] == "order").expect("the order's own letter");
    server.heal();
    assert_eq!(about(&server, of_order, "redrive").await.status, 202);
    is_in(&server, &bad, "shipped").await;
    letters_when(&server, <[Value]>::is_empty).await;
    store_is_sound(&mut server);
}

#[actix_rt::test]
async fn given_up_stock_goes_to_whoever_waits_for_it() {
    let mut server = TestServer::start_with(&[
        &fast_warehouses(&["ATL1"]),
        "manifests.close_every=100ms",
        "wms.give_up_after=1s",
    ]);
    stock(&server, "ATL1", "S", 1).await;
    let first = place(&server, "first").await;
    let second = place(&server, "second").await;
    is_in(&server, &second, "backordered").await;
    let failed = is_in(&server, &first, "failed").await;
    assert_eq!(failed["exceptions"][0]["code"], "wms_unreachable");
    let letter = letters_when(&server, |l| l.len() == 1).await.remove(0);
    assert_eq!(letter["transaction_id"], json!(first));
    assert_eq!(about(&server, &letter, "give-up").await.status, 202);
    is_in(&server, &first, "rejected").await;
    status_when(&client(), &server.url, &second, |d| d["lines"][0]["reserved"] == 1).await;
    store_is_sound(&mut server);
}

#[actix_rt::test]
async fn an_order_that_aborts_the_process_is_found_out_over_restarts() {
    an_order_that_ends_the_process_is_found_out("abort").await;
}

#[actix_rt::test]
async fn an_order_that_overflows_the_stack_is_found_out_over_restarts() {
    let server = an_order_that_ends_the_process_is_found_out("overflow").await;
    let overflows = server.logs().iter().filter(|log| log.contains("has overflowed its stack")).count();
    assert_eq!(overflows, PROCESS_DEATHS);
}

/// Deaths of a process over one order. A panic names the order it was about; of a process that is gone
/// nobody knows what it had in hand until a tree writes that down first. Two deaths pass before a tree
/// does ([`CAREFUL_FROM`]), one more with all that is in the lane in hand together, and then three with the
/// order alone ([`DEATHS_MAX`]).
const PROCESS_DEATHS: usize = CAREFUL_FROM as usize + 1 + DEATHS_MAX as usize;

async fn an_order_that_ends_the_process_is_found_out(how: &str) -> TestServer {
    let mut server = start();
    stock(&server, "ATL1", "S", 100).await;
    assert_eq!(ops(&server, "pause").await.status, 200);
    let mut others = Vec::new();
    for n in 0..5 {
        others.push(place(&server, &format!("good-{n}")).await);
    }
    let bad = place(&server, "bad").await;
    for n in 5..10 {
        others.push(place(&server, &format!("good-{n}")).await);
    }
    server.poison(how, "bad");
    // From the resume on each process dies over it, until one knows better.
    let _answered = client().post(server.at("/v1/ops/warehouses/ATL1/resume")).send().await;
    let mut deaths = 0;
    let until = Instant::now() + PATIENCE;
    let document = loop {
        assert!(Instant::now() < until, "{deaths} deaths and no end");
        if server.has_ended() {
            deaths += 1;
            assert!(deaths <= PROCESS_DEATHS, "it goes on dying");
            server.restart();
        }
        let read = client().get(server.at(&format!("/v1/status/{bad}"))).send().await;
        if let Ok(read) = read
            && let Ok(document) = read.json::<Value>().await
            && document["state"] == "failed"
        {
            break document;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(deaths, PROCESS_DEATHS);
    is_crashed(&document);
    for id in &others {
        is_in(&server, id, "shipped").await;
    }
    let letter = letters_when(&server, |l| l.len() == 1).await.remove(0);
    says_three_times(&letter);
    server.heal();
    assert_eq!(about(&server, &letter, "redrive").await.status, 202);
    is_in(&server, &bad, "shipped").await;
    store_is_sound(&mut server);
    server
}

pub(crate) async fn ops(server: &TestServer, verb: &str) -> Answer {
    send(request(server, Method::POST, &format!("/v1/ops/warehouses/ATL1/{verb}"))).await
}

#[actix_rt::test]
async fn a_paused_warehouse_releases_nothing_also_after_a_restart_and_the_rest_goes_on() {
    let mut server = start();
    for warehouse in ["ATL1", "DFW2"] {
        stock(&server, warehouse, "S", 10).await;
    }
    for _ in 0..2 {
        let paused = ops(&server, "pause").await;
        assert_eq!((paused.status, &paused.body["paused"]), (200, &json!(true)), "{}", paused.body);
    }
    let held = place(&server, "held").await;
    let elsewhere = post(&client(), server.at("/v1/orders"), &order("other", "DFW2", "S", 1)).await.1;
    is_in(&server, &id_of(&elsewhere), "shipped").await;
    // Moves and cancellations go on where orders do not.
    stock(&server, "ATL1", "T", 7).await;
    let withdrawn = place(&server, "withdrawn").await;
    let cancel = format!("/v1/orders/{withdrawn}/cancel");
    assert_eq!(post(&client(), server.at(&cancel), &json!({})).await.0, 202);
    is_in(&server, &withdrawn, "cancelled").await;

    server.restart();
    assert_eq!(door::get(&server, "/v1/warehouses/ATL1").await.body["paused"], true);
    assert_eq!(door::get(&server, "/v1/warehouses/DFW2").await.body["paused"], false);
    stock(&server, "ATL1", "U", 7).await;
    let (_, document) = get(&client(), server.at(&format!("/v1/status/{held}"))).await;
    assert_eq!((&document["state"], &document["version"]), (&json!("accepted"), &json!(1)), "{document}");
    assert_eq!(document["estimate"], Value::Null);

    assert_eq!(ops(&server, "resume").await.body["paused"], false);
    is_in(&server, &held, "shipped").await;
    store_is_sound(&mut server);
}

#[actix_rt::test]
async fn while_paused_what_the_wms_has_ships_and_what_is_allocated_is_not_released() {
    // Long enough that the pause comes before the first report, also on a machine that is busy.
    let one = "warehouses=[{code=\"ATL1\",partition=1,wms={kind=\"simulated\",pick=\"5s\",pack=\"10ms\",\
               depart=\"50ms\",credits=1}}]";
    let mut server = TestServer::start_with(&[one, "manifests.close_every=100ms"]);
    stock(&server, "ATL1", "S", 10).await;
    // Pulled while the credit is free, and ready only once it is not.
    let body = order("second", "ATL1", "T", 1);
    let second = id_of(&post(&client(), server.at("/v1/orders"), &body).await.1);
    is_in(&server, &second, "backordered").await;
    let first = place(&server, "first").await;
    is_in(&server, &first, "released").await;
    stock(&server, "ATL1", "T", 1).await;
    is_in(&server, &second, "allocated").await;
    assert_eq!(ops(&server, "pause").await.status, 200);
    let (_, document) = get(&client(), server.at(&format!("/v1/status/{first}"))).await;
    assert_eq!(document["state"], "released", "nothing was reported before the pause");

    is_in(&server, &first, "shipped").await;
    // The credit is free from here on, and two turns at least find it so.
    for sku in ["U", "V"] {
        stock(&server, "ATL1", sku, 1).await;
    }
    let (_, document) = get(&client(), server.at(&format!("/v1/status/{second}"))).await;
    assert_eq!(document["state"], "allocated", "{document}");
    assert_eq!(door::get(&server, "/v1/warehouses/ATL1").await.body["paused"], true);
    assert_eq!(ops(&server, "resume").await.status, 200);
    is_in(&server, &second, "shipped").await;
    store_is_sound(&mut server);
}

#[actix_rt::test]
async fn a_report_that_cannot_be_booked_is_redriven_into_its_lane_and_given_up() {
    let mut server = start();
    let unknown = "019ac2f0-0000-8001-8000-000000000000.1.1";
    let report = json!({"confirmation_id": "c1", "type": "picking", "release_id": unknown,
                        "at": "2026-11-24T00:00:00Z"});
    let path = "/v1/warehouses/ATL1/confirmations";
    assert_eq!(post(&client(), server.at(path), &report).await.0, 202);
    let first = letters_when(&server, |l| l.len() == 1).await.remove(0);
    assert_eq!(first["kind"], "confirmation");
    assert_eq!(about(&server, &first, "redrive").await.status, 202);
    // It is as unknown as before, and says so again.
    let second = letters_when(&server, |l| l.len() == 1 && l[0]["id"] != first["id"]).await.remove(0);
    assert_eq!(second["detail"], first["detail"]);
    assert_eq!(about(&server, &second, "give-up").await.status, 202);
    letters_when(&server, <[Value]>::is_empty).await;
    store_is_sound(&mut server);
}

#[actix_rt::test]
async fn dead_letters_are_paged_and_only_an_operator_enters() {
    let server = TestServer::start_with(&[&keys()]);
    let call = async |key: &str, method: Method, path: &str| {
        send(request(&server, method, path).bearer_auth(key)).await
    };
    let report = |n: u32| {
        json!({"confirmation_id": format!("c{n}"), "type": "picking", "at": "2026-11-24T00:00:00Z",
               "release_id": format!("019ac2f0-0000-8001-8000-00000000000{n}.1.1")})
    };
    let reports: Vec<Value> = (0..5).map(report).collect();
    for warehouse in ["ATL1", "RNO3"] {
        let path = format!("/v1/warehouses/{warehouse}/confirmations");
        let sent = request(&server, Method::POST, &path).bearer_auth(OPERATOR).json(&reports);
        assert_eq!(send(sent).await.status, 202);
    }
    let until = Instant::now() + PATIENCE;
    while call(OPERATOR, Method::GET, LETTERS).await.body["items"].as_array().unwrap().len() < 10 {
        assert!(Instant::now() < until, "the reports are not kept aside");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (mut seen, mut next) = (Vec::new(), String::new());
    loop {
        let page = call(OPERATOR, Method::GET, &format!("{LETTERS}?limit=4{next}")).await.body;
        seen.extend(page["items"].as_array().unwrap().iter().map(|l| l["id"].as_str().unwrap().to_owned()));
        let Some(cursor) = page["next"].as_str() else { break };
        next = format!("&after={cursor}");
    }
    let all: Vec<String> = ["1", "3"].iter().flat_map(|p| (1..=5).map(move |n| format!("{p}-{n}"))).collect();
    assert_eq!(seen, all);
    let one = call(OPERATOR, Method::GET, &format!("{LETTERS}?warehouse=RNO3")).await.body;
    assert_eq!(one["items"].as_array().unwrap().len(), 5);

    for key in [ACME, WMS] {
        call(key, Method::GET, LETTERS).await.is_problem(403, "forbidden");
        for path in [
            format!("{LETTERS}/1-1/redrive"),
            format!("{LETTERS}/1-1/give-up"),
            "/v1/ops/warehouses/ATL1/pause".to_owned(),
            "/v1/ops/warehouses/ATL1/resume".to_owned(),
        ] {
            call(key, Method::POST, &path).await.is_problem(403, "forbidden");
        }
    }
    for unknown in ["1-99", "9-1", "1", "01-1", "x"] {
        let path = format!("{LETTERS}/{unknown}/redrive");
        call(OPERATOR, Method::POST, &path).await.is_problem(404, "not_found");
    }
    call(OPERATOR, Method::POST, "/v1/ops/warehouses/XXX/pause").await.is_problem(404, "not_found");
    call(OPERATOR, Method::GET, &format!("{LETTERS}/1-1/redrive"))
        .await
        .is_problem(405, "method_not_allowed");
}
