//! Input that is wrong in every way a client or an attacker finds; none of it harms anybody else.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::door::{get, order, post, post_text, request, send};
use crate::server::TestServer;

fn socket(server: &TestServer) -> TcpStream {
    let address = server.url.strip_prefix("http://").expect("an http address");
    let stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a time-out");
    stream
}

#[actix_rt::test]
async fn what_is_no_json_is_malformed_and_says_where() {
    let server = TestServer::start();
    let nested = "[".repeat(10_000) + &"]".repeat(10_000);
    let objects = r#"{"a":"#.repeat(10_000);
    let twice = order("x").to_string().replacen('{', r#"{"reference":"y","#, 1);
    let escaped = order("x").to_string().replacen('{', r#"{"\u0072eference":"y","#, 1);
    let deep = order("x").to_string().replace(r#""sku":"A""#, r#""sku":"A","sku":"B""#);
    let huge = order("x").to_string().replace(r#""quantity":1"#, r#""quantity":1e400"#);
    let trailing = order("x").to_string() + " {}";
    for body in [
        String::new(),
        "{".to_owned(),
        "nonsense".to_owned(),
        r#"{"reference":"\ud800"}"#.to_owned(),
        nested,
        objects,
        twice,
        escaped,
        deep,
        huge,
        trailing,
    ] {
        let shown: String = body.chars().take(80).collect();
        let answer = post_text(&server, "/v1/orders", body).await;
        answer.is_problem(400, "malformed_json");
        assert!(answer.text("detail").contains("line") || shown.is_empty(), "{shown}: {}", answer.body);
    }
    post_text(&server, "/v1/orders", vec![b'"', 0xff, b'"']).await.is_problem(400, "malformed_json");
    assert_eq!(post(&server, "/v1/orders", &order("x")).await.status, 202);
}

#[actix_rt::test]
async fn quantities_references_and_skus_are_judged_to_the_letter() {
    let server = TestServer::start();
    let with = |quantity: &str| {
        order("q").to_string().replace(r#""quantity":1"#, &format!(r#""quantity":{quantity}"#))
    };
    for (quantity, code) in [
        ("0", "out_of_range"),
        ("-1", "out_of_range"),
        ("9007199254740993", "out_of_range"),
        ("1000001", "out_of_range"),
        ("1.0", "wrong_type"),
        ("1e2", "wrong_type"),
        ("\"1\"", "wrong_type"),
    ] {
        post_text(&server, "/v1/orders", with(quantity)).await.is_fault("/lines/0/quantity", code);
    }
    for bad in ["a\r\nSet-Cookie: x", "a\u{0}b", "\u{7f}"] {
        post(&server, "/v1/orders", &order(bad)).await.is_fault("/reference", "malformed");
        let mut body = order("sku");
        body["lines"][0]["sku"] = json!(bad);
        post(&server, "/v1/orders", &body).await.is_fault("/lines/0/sku", "malformed");
    }
    let mut emoji = order("📦 Ünïcode/../#?%");
    emoji["lines"][0]["sku"] = json!("👕/%2F &é");
    let answer = post(&server, "/v1/orders", &emoji).await;
    assert_eq!((answer.status, answer.text("reference")), (202, "📦 Ünïcode/../#?%"));
    let coded = "%F0%9F%93%A6%20%C3%9Cn%C3%AFcode%2F..%2F%23%3F%25";
    let found = get(&server, &format!("/v1/orders?reference={coded}")).await;
    assert_eq!(found.body["items"][0]["transaction_id"], answer.id());
}

#[actix_rt::test]
async fn every_fault_is_told_at_once_and_unknown_names_are_faults() {
    let server = TestServer::start();
    let mut body = order("x");
    body["warehouse"] = json!("NOPE");
    post(&server, "/v1/orders", &body).await.is_fault("/warehouse", "unknown_warehouse");
    let mut body = order("x");
    body["service_level"] = json!("drone");
    post(&server, "/v1/orders", &body).await.is_fault("/service_level", "unknown_service_level");
    let mut body = order("x");
    body["colour"] = json!(1);
    body["priority"] = json!(10);
    body["lines"][0]["quantity"] = json!(0);
    let answer = post(&server, "/v1/orders", &body).await;
    answer.is_problem(422, "validation_failed");
    assert_eq!(answer.body["errors"].as_array().map(Vec::len), Some(3));
    post(&server, "/v1/orders", &json!([order("x")])).await.is_fault("", "wrong_type");
    let transfer = json!({"reference": "t", "warehouse": "ATL1", "type": "transfer", "sku": "A", "quantity": 1, "to_warehouse": "DFW2"});
    post(&server, "/v1/inventory/moves", &transfer).await.is_fault("/type", "unknown_value");
    post(&server, "/v1/orders?wiat=1", &order("x")).await.is_fault("/wiat", "unknown_field");
}

#[actix_rt::test]
async fn a_wrong_path_method_type_or_size_is_a_problem_document() {
    let server = TestServer::start();
    for path in
        ["/", "/v1", "/v2/orders", "/v1/orders/", "/v1/status/nonsense", "/v1/manifests", "/v1/events/"]
    {
        get(&server, path).await.is_problem(404, "not_found");
    }
    for (method, path, allowed) in [
        (Method::PUT, "/v1/orders", "GET, HEAD, POST"),
        (Method::GET, "/v1/orders/batch", "POST"),
        (Method::DELETE, "/v1/status/019ac2f0-0000-8000-8000-000000000000", "GET, HEAD"),
        (Method::GET, "/v1/inventory/moves", "POST"),
        (Method::POST, "/v1/events", "GET, HEAD"),
        (Method::GET, "/v1/events/tickets", "POST"),
        (Method::POST, "/healthz", "GET, HEAD"),
    ] {
        let answer = send(request(&server, method, path)).await;
        answer.is_problem(405, "method_not_allowed");
        assert_eq!(answer.header("allow"), Some(allowed), "{path}");
    }
    for kind in ["text/plain", "application/xml", "application/x-ndjson"] {
        let sent = request(&server, Method::POST, "/v1/orders").header("content-type", kind).body("{}");
        send(sent).await.is_problem(415, "unsupported_media_type");
    }
    let bare = request(&server, Method::POST, "/v1/orders").body(order("x").to_string());
    send(bare).await.is_problem(415, "unsupported_media_type");
    let suffixed = request(&server, Method::POST, "/v1/orders");
    let suffixed = suffixed.header("content-type", "application/vnd.acme+json").body(order("x").to_string());
    assert_eq!(send(suffixed).await.status, 202);
    let large = vec![b' '; 256 * 1024 + 1];
    post_text(&server, "/v1/orders", large).await.is_problem(413, "body_too_large");
}

#[actix_rt::test]
async fn a_chunked_body_past_the_bound_is_cut_off_at_the_bound() {
    let server = TestServer::start();
    let mut stream = socket(&server);
    let head = "POST /v1/orders HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).expect("the head is taken");
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
    for _ in 0..6 {
        stream.write_all(chunk.as_bytes()).expect("the chunks are taken");
    }
    // The body never ends; the server answers and hangs up all the same.
    let begun = Instant::now();
    let mut answer = Vec::new();
    let _reset = stream.read_to_end(&mut answer);
    let text = String::from_utf8_lossy(&answer);
    assert!(text.starts_with("HTTP/1.1 413"), "{text}");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert_eq!(post(&server, "/v1/orders", &order("after")).await.status, 202);
}

#[actix_rt::test]
async fn a_body_cut_short_accepts_nothing_and_hurts_nobody() {
    let server = TestServer::start();
    let body = order("cut").to_string();
    let head = format!(
        "POST /v1/orders HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    for _ in 0..20 {
        let mut stream = socket(&server);
        stream.write_all(head.as_bytes()).expect("the head is taken");
        stream.write_all(&body.as_bytes()[..body.len() - 1]).expect("most of the body is taken");
        drop(stream);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(get(&server, "/v1/orders?reference=cut").await.body["items"], json!([]));
    assert_eq!(post(&server, "/v1/orders", &order("whole")).await.status, 202);
}

#[actix_rt::test]
async fn a_client_that_hangs_up_before_the_answer_finds_its_order_by_asking_again() {
    let server = TestServer::start();
    let body = order("gone").to_string();
    let whole = format!(
        "POST /v1/orders HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    for _ in 0..20 {
        let mut stream = socket(&server);
        stream.write_all(whole.as_bytes()).expect("the request is taken");
        drop(stream);
    }
    let first = post(&server, "/v1/orders", &order("gone")).await;
    let again = post(&server, "/v1/orders", &order("gone")).await;
    assert_eq!((first.status, again.status), (202, 202));
    assert_eq!(first.id(), again.id());
    let items = get(&server, "/v1/orders").await.body["items"].clone();
    assert_eq!(items.as_array().map(Vec::len), Some(1), "{items}");
}

#[actix_rt::test]
async fn a_correlation_id_comes_back_on_every_answer_and_a_bad_one_is_replaced() {
    let server = TestServer::start();
    for (method, path) in [(Method::GET, "/nope"), (Method::PUT, "/v1/orders"), (Method::GET, "/healthz")] {
        let sent = request(&server, method, path).header("x-correlation-id", "call-7:a.b_c");
        assert_eq!(send(sent).await.header("x-correlation-id"), Some("call-7:a.b_c"), "{path}");
    }
    let sent = request(&server, Method::GET, "/healthz").header("x-correlation-id", "not this one!");
    let answer = send(sent).await;
    assert!(answer.header("x-correlation-id").is_some_and(|id| id.len() == 36));
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let traced = |reference: &str, parent: &str| {
        let sent = request(&server, Method::POST, "/v1/orders").header("traceparent", parent.to_owned());
        sent.header("x-correlation-id", "mine").json(&order(reference))
    };
    let accepted = send(traced("traced", parent)).await;
    assert_eq!(accepted.text("correlation_id"), "mine");
    let status = get(&server, accepted.text_link("status")).await;
    assert_eq!(status.text("trace_id"), "0af7651916cd43dd8448eb211c80319c");
    let fresh = send(traced("untraced", "00-garbage")).await;
    let status: Value = get(&server, fresh.text_link("status")).await.body;
    assert_ne!(status["trace_id"], "0af7651916cd43dd8448eb211c80319c");
}
