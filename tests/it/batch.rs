//! Batches: each item has a fate of its own.

use reqwest::Method;
use serde_json::{Value, json};

use crate::door::{Answer, order, post, post_text, receive, request, send, until};
use crate::server::TestServer;

const PATH: &str = "/v1/orders/batch";

async fn ndjson(server: &TestServer, body: String) -> Answer {
    send(request(server, Method::POST, PATH).header("content-type", "application/x-ndjson").body(body)).await
}

fn orders(n: usize) -> Vec<Value> {
    (0..n).map(|i| order(&format!("b-{i}"))).collect()
}

#[actix_rt::test]
async fn a_batch_whose_item_500_is_bad_accepts_the_other_999() {
    let server = TestServer::start();
    let mut items = orders(1_000);
    items[500]["lines"][0]["quantity"] = json!(0);
    let answer =
        send(request(&server, Method::POST, PATH).header("x-correlation-id", "batch-1").json(&items)).await;
    assert_eq!(answer.status, 202);
    let results = answer.body["results"].as_array().unwrap();
    assert_eq!(results.len(), 1_000);
    for (i, result) in results.iter().enumerate() {
        assert_eq!(result["index"], i);
        assert_eq!(result["status"], if i == 500 { 422 } else { 202 }, "{result}");
        assert_eq!(result["transaction_id"].is_string(), i != 500);
    }
    let problem = &results[500]["problem"];
    assert_eq!(problem["errors"][0]["pointer"], "/lines/0/quantity");
    assert_eq!(problem["correlation_id"], "batch-1");
    // Sent again, every order is found under its first id.
    let again = post(&server, PATH, &json!(items)).await;
    for (first, second) in results.iter().zip(again.body["results"].as_array().unwrap()) {
        assert_eq!(first["transaction_id"], second["transaction_id"]);
    }
}

#[actix_rt::test]
async fn a_line_that_is_no_json_fails_alone() {
    let server = TestServer::start();
    let body = format!("{}\r\n\n{{oops\n{}\n", order("n-0"), order("n-1"));
    let answer = ndjson(&server, body).await;
    assert_eq!(answer.status, 202);
    let statuses: Vec<&Value> =
        answer.body["results"].as_array().unwrap().iter().map(|r| &r["status"]).collect();
    assert_eq!(statuses, [&json!(202), &json!(400), &json!(202)]);
    assert_eq!(answer.body["results"][1]["problem"]["code"], "malformed_json");
}

#[actix_rt::test]
async fn a_reference_twice_in_a_batch_is_one_order_or_a_conflict() {
    let server = TestServer::start();
    let mut other = order("twice");
    other["priority"] = json!(1);
    let answer = post(&server, PATH, &json!([order("twice"), order("twice"), other])).await;
    let results = &answer.body["results"];
    assert_eq!(results[0]["transaction_id"], results[1]["transaction_id"]);
    assert_eq!(
        (&results[2]["status"], &results[2]["problem"]["code"]),
        (&json!(409), &json!("reference_conflict"))
    );
}

#[actix_rt::test]
async fn a_batch_is_refused_as_a_whole_when_nothing_of_it_stands() {
    let server = TestServer::start();
    let answer = post(&server, PATH, &json!([{}, 1])).await;
    assert_eq!((answer.status, answer.body["results"].as_array().map(Vec::len)), (422, Some(2)));
    post(&server, PATH, &json!([])).await.is_fault("", "out_of_range");
    post(&server, PATH, &json!(orders(1_001))).await.is_fault("", "too_long");
    post(&server, PATH, &order("x")).await.is_fault("", "wrong_type");
    post_text(&server, PATH, "[{}").await.is_problem(400, "malformed_json");
    ndjson(&server, "\n\n".to_owned()).await.is_fault("", "out_of_range");
    let sent = request(&server, Method::POST, PATH).header("content-type", "text/csv").body("a,b");
    send(sent).await.is_problem(415, "unsupported_media_type");
    let large = vec![b' '; (10 << 20) + 1];
    post_text(&server, PATH, large).await.is_problem(413, "body_too_large");
    let keyed = request(&server, Method::POST, PATH).header("idempotency-key", "").json(&json!([order("k")]));
    assert_eq!(send(keyed).await.status, 202, "batches ignore the key header");
}

#[actix_rt::test]
async fn a_full_lane_refuses_orders_with_a_time_to_come_back_but_no_replay_and_no_receipt() {
    let warehouse = r#"warehouses=[{code="ATL1",partition=1,timezone="UTC",backlog_max=3,services=["ground"],wms={kind="simulated",credits=1,pick="1h"}}]"#;
    let server = TestServer::start_with(&[warehouse]);
    // The only credit is taken for an hour, so what follows stays in the lane.
    receive(&server, "A", 100).await;
    let first = post(&server, "/v1/orders", &order("first")).await;
    until(&server, first.id(), |d| d["state"] == "released").await;
    let answer = post(&server, PATH, &json!(orders(6))).await;
    let statuses: Vec<u64> =
        answer.body["results"].as_array().unwrap().iter().map(|r| r["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [202, 202, 202, 429, 429, 429], "{}", answer.body);
    let all_refused = post(&server, PATH, &json!([order("x"), order("y")])).await;
    assert_eq!(all_refused.status, 429);
    assert!(all_refused.header("retry-after").is_some());
    let refused = post(&server, "/v1/orders", &order("z")).await;
    refused.is_problem(429, "warehouse_backlog_full");
    assert!(refused.header("retry-after").unwrap().parse::<u64>().is_ok_and(|s| s >= 1));
    assert_eq!(post(&server, "/v1/orders", &order("b-0")).await.header("idempotent-replayed"), Some("true"));
    let receipt =
        json!({"reference": "m", "warehouse": "ATL1", "type": "receipt", "sku": "A", "quantity": 1});
    assert_eq!(post(&server, "/v1/inventory/moves", &receipt).await.status, 202);
}
