//! A command that arrives again, however it arrives.

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::json;

use crate::door::{order, post, receive, request, send, until};
use crate::server::{TestServer, client};

#[actix_rt::test]
async fn the_same_reference_a_hundred_times_at_once_is_one_order() {
    let server = TestServer::start();
    let body = order("same");
    let client = client();
    let once = || send(client.post(server.at("/v1/orders")).json(&body));
    let answers = join_all((0..100).map(|_| once())).await;
    let first = answers[0].id().to_owned();
    assert!(answers.iter().all(|a| a.status == 202 && a.id() == first));
    let fresh = answers.iter().filter(|a| a.header("idempotent-replayed") == Some("false")).count();
    assert_eq!(fresh, 1);
    let accepted = &answers[0].body["accepted_at"];
    assert!(answers.iter().all(|a| a.body["accepted_at"] == *accepted));
}

#[actix_rt::test]
async fn a_replay_answers_the_first_id_and_the_state_of_now() {
    let server = TestServer::start();
    receive(&server, "A", 1).await;
    let sent = request(&server, Method::POST, "/v1/orders").header("x-correlation-id", "first");
    let first = send(sent.json(&order("again"))).await;
    until(&server, first.id(), |d| d["done"] == true).await;
    // Other white space and order of keys, defaults written out: the same content.
    let mut body = order("again");
    body["priority"] = json!(5);
    body["metadata"] = json!({});
    let text = serde_json::to_string_pretty(&body).unwrap();
    let sent = request(&server, Method::POST, "/v1/orders").header("content-type", "application/json");
    let again = send(sent.header("x-correlation-id", "second").body(text)).await;
    assert_eq!((again.status, again.id()), (202, first.id()));
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(again.header("x-correlation-id"), Some("second"));
    assert_eq!(again.header("retry-after"), None);
    assert_eq!((again.text("state"), again.text("correlation_id")), ("shipped", "first"));
}

#[actix_rt::test]
async fn a_reference_with_other_content_is_a_conflict() {
    let server = TestServer::start();
    assert_eq!(post(&server, "/v1/orders", &order("r")).await.status, 202);
    let mut other = order("r");
    other["lines"][0]["quantity"] = json!(2);
    post(&server, "/v1/orders", &other).await.is_problem(409, "reference_conflict");
    let mut elsewhere = order("r");
    elsewhere["ship_to"]["city"] = json!("Dallas");
    post(&server, "/v1/orders", &elsewhere).await.is_problem(409, "reference_conflict");
}

#[actix_rt::test]
async fn an_idempotency_key_replays_its_content_and_refuses_other() {
    let server = TestServer::start();
    let with_key = |key: &str, reference: &str| {
        let sent = request(&server, Method::POST, "/v1/orders").header("idempotency-key", key.to_owned());
        send(sent.json(&order(reference)))
    };
    let first = with_key("\"k-1\"", "a").await;
    let again = with_key("k-1", "a").await;
    assert_eq!((again.status, again.id()), (202, first.id()));
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    with_key("k-1", "b").await.is_problem(422, "idempotency_key_reused");
    with_key("", "c").await.is_problem(400, "idempotency_key_malformed");
    with_key("\"open", "c").await.is_problem(400, "idempotency_key_malformed");
    with_key(&"x".repeat(256), "c").await.is_problem(400, "idempotency_key_malformed");
    let other_key = with_key("k-2", "a").await;
    assert_eq!((other_key.status, other_key.id()), (202, first.id()));
}

#[actix_rt::test]
async fn a_cancellation_without_a_reference_is_repeated_without_harm() {
    let server = TestServer::start();
    let accepted = post(&server, "/v1/orders", &order("c")).await;
    let path = format!("/v1/orders/{}/cancel", accepted.id());
    let first = send(request(&server, Method::POST, &path)).await;
    let again = post(&server, &path, &json!({})).await;
    assert_eq!((first.status, first.text("kind")), (202, "cancellation"));
    assert_eq!((again.status, again.id()), (202, first.id()));
    assert_eq!(first.text("reference"), format!("cancel:{}", accepted.id()));
    assert_eq!(first.body["links"]["cancel"], json!(null));
    let ended = until(&server, accepted.id(), |d| d["done"] == true).await;
    assert_eq!((&ended["state"], &ended["outcome"]), (&json!("cancelled"), &json!(null)));
    let document = until(&server, first.id(), |d| d["done"] == true).await;
    assert_eq!((&document["state"], &document["order"]), (&json!("applied"), &json!(accepted.id())));
    assert_eq!(document["lines"], json!([{"line": 1, "cancelled": 1}]));
    post(&server, &path, &json!({"reference": "z", "lines": [9]})).await.is_fault("/lines/0", "unknown_line");
}
