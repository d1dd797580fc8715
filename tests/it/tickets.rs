//! Tickets and cookies, by which a browser follows a stream without a key, and pages of other origins.

use reqwest::Method;
use serde_json::{Value, json};

use crate::door::{ACME, GLOBEX, OPERATOR, WMS, keys, order, request, send};
use crate::server::TestServer;
use crate::sse::{Ask, Stream, ask};

async fn placed(server: &TestServer, key: &str, reference: &str) -> String {
    let sent = request(server, Method::POST, "/v1/orders").bearer_auth(key);
    send(sent.json(&order(reference))).await.id().to_owned()
}

async fn ticket(server: &TestServer, key: &str, wants: Value) -> String {
    let sent = request(server, Method::POST, "/v1/events/tickets").bearer_auth(key);
    let answer = send(sent.json(&wants)).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    assert!(answer.body["expires_at"].is_string());
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    answer.text("ticket").to_owned()
}

/// The name and value of the cookie that an answer sets.
fn cookie(stream: &Stream) -> (String, String) {
    let set = stream.headers().get("set-cookie").expect("a cookie").to_str().unwrap().to_owned();
    (set.split(';').next().unwrap().to_owned(), set)
}

async fn status(server: &TestServer, path: &str, cookie: Option<&str>) -> u16 {
    ask(server, path, Ask { cookie, ..Ask::default() }).await.unwrap().status().as_u16()
}

#[actix_rt::test]
async fn a_ticket_opens_its_stream_once_and_its_cookie_goes_on_after_a_restart() {
    let mut server = TestServer::start_with(&[&keys()]);
    let id = placed(&server, ACME, "B-1").await;
    let own = format!("/v1/status/{id}/events");
    let ticket = ticket(&server, ACME, json!({"transaction_id": id})).await;
    let with_ticket = format!("{own}?ticket={ticket}");
    // Another stream is not what it is for, and it is not used up by trying.
    let other = placed(&server, ACME, "B-2").await;
    for path in ["/v1/events".to_owned(), format!("/v1/status/{other}/events")] {
        let answer = send(request(&server, Method::GET, &format!("{path}?ticket={ticket}"))).await;
        answer.is_problem(403, "ticket_scope");
    }
    let mut stream = Stream::of(ask(&server, &with_ticket, Ask::default()).await.unwrap());
    let (pair, set) = cookie(&stream);
    for part in [&*format!("; Path={own};"), "; HttpOnly", "; SameSite=Strict", "; Max-Age=86400"] {
        assert!(set.contains(part), "{set}");
    }
    assert!(!set.contains("Secure"), "on loopback a browser would not send it back: {set}");
    let first = stream.event().await;
    assert_eq!(first.data["subject"], json!(id));
    // A second use is none; with the cookie the same address goes on, as EventSource asks for it.
    assert_eq!(status(&server, &with_ticket, None).await, 401);
    let goes_on = Ask { cookie: Some(&pair), last: Some(&first.id), key: None };
    let mut again = Stream::of(ask(&server, &with_ticket, goes_on.clone()).await.unwrap());
    assert!(again.headers().get("set-cookie").is_none());
    assert!(again.event().await.sequence() > first.sequence());
    assert_eq!(status(&server, &format!("/v1/status/{other}/events"), Some(&pair)).await, 403);
    assert_eq!(status(&server, "/v1/events", Some(&pair)).await, 403);
    server.kill();
    server.restart();
    let mut after = Stream::of(ask(&server, &with_ticket, goes_on).await.unwrap());
    assert!(after.event().await.sequence() > first.sequence());
    let forged = pair.replace('1', "2");
    assert_eq!(status(&server, &own, Some(&forged)).await, 401);
    // No ticket and no key reaches the log.
    let log = server.log();
    assert!(!log.contains(&ticket) && !log.contains(ACME), "{log}");
}

#[actix_rt::test]
async fn a_ticket_that_has_opened_nothing_is_not_used_up() {
    let server = TestServer::start_with(&[&keys()]);
    placed(&server, ACME, "B-1").await;
    let ticket = ticket(&server, ACME, json!({"types": ["wavegate.order.*"]})).await;
    let path = format!("/v1/events?ticket={ticket}");
    send(request(&server, Method::GET, &format!("{path}&limit=x")))
        .await
        .is_problem(422, "validation_failed");
    // A page of JSON uses it up as a stream does, and sets the cookie.
    let page = send(request(&server, Method::GET, &path).header("accept", "application/json")).await;
    assert_eq!(page.status, 200);
    let cookie =
        page.header("set-cookie").and_then(|set| set.split(';').next()).expect("a cookie").to_owned();
    assert_eq!(status(&server, &path, None).await, 401);
    assert_eq!(status(&server, &path, Some(&cookie)).await, 200);
    let long: Vec<String> = (0..60).map(|n| format!("wavegate.order.{}", "a".repeat(100 - n))).collect();
    let sent = request(&server, Method::POST, "/v1/events/tickets").bearer_auth(ACME);
    send(sent.json(&json!({"types": long}))).await.is_problem(422, "validation_failed");
}

#[actix_rt::test]
async fn a_ticket_for_types_sees_no_others() {
    let server = TestServer::start_with(&[&keys(), "log.level=debug"]);
    placed(&server, ACME, "B-1").await;
    let ticket = ticket(&server, ACME, json!({"types": ["wavegate.order.backordered"]})).await;
    let path = format!("/v1/events?types=wavegate.order.*&ticket={ticket}");
    let mut stream =
        Stream::of(ask(&server, &path, Ask { last: Some("earliest"), ..Ask::default() }).await.unwrap());
    let (pair, set) = cookie(&stream);
    assert!(set.contains("; Path=/v1/events;"), "{set}");
    assert_eq!(stream.event().await.event, "wavegate.order.backordered");
    let again = Ask { last: Some("earliest"), cookie: Some(&pair), key: None };
    let mut stream = Stream::of(ask(&server, "/v1/events", again).await.unwrap());
    assert_eq!(stream.event().await.event, "wavegate.order.backordered");
    assert!(!server.log().contains(&ticket));
}

#[actix_rt::test]
async fn a_ticket_is_for_what_its_maker_sees() {
    let server = TestServer::start_with(&[&keys()]);
    let id = placed(&server, ACME, "B-1").await;
    let asked = async |key: &str, query: &str, wants: Value| {
        let path = format!("/v1/events/tickets{query}");
        send(request(&server, Method::POST, &path).bearer_auth(key).json(&wants)).await
    };
    asked(GLOBEX, "", json!({"transaction_id": id})).await.is_problem(404, "not_found");
    asked(WMS, "", json!({"transaction_id": id})).await.is_problem(404, "not_found");
    asked(WMS, "?client=acme", json!({"types": ["wavegate.*"]})).await.is_problem(403, "forbidden");
    asked(OPERATOR, "", json!({"types": ["wavegate.*"]})).await.is_problem(400, "client_required");
    assert_eq!(asked(OPERATOR, "?client=acme", json!({"types": ["wavegate.*"]})).await.status, 201);
    assert_eq!(asked(OPERATOR, "", json!({"transaction_id": id})).await.status, 201);
    asked(ACME, "", json!({})).await.is_problem(422, "validation_failed");
    asked(ACME, "", json!({"types": ["*"]})).await.is_fault("/types", "malformed");
    let nobody =
        send(request(&server, Method::POST, "/v1/events/tickets").json(&json!({"transaction_id": id}))).await;
    nobody.is_problem(401, "unauthorized");
}

#[actix_rt::test]
async fn without_keys_a_ticket_means_what_it_says_as_well() {
    let server = TestServer::start();
    let sent = request(&server, Method::POST, "/v1/orders").json(&order("B-1"));
    let id = send(sent).await.id().to_owned();
    let sent = request(&server, Method::POST, "/v1/events/tickets").json(&json!({"transaction_id": id}));
    let ticket = send(sent).await.text("ticket").to_owned();
    let path = format!("/v1/status/{id}/events?ticket={ticket}");
    assert_eq!(status(&server, &path, None).await, 200);
    assert_eq!(status(&server, &path, None).await, 401);
    assert_eq!(status(&server, &format!("/v1/status/{id}/events"), None).await, 200);
}

#[actix_rt::test]
async fn only_pages_of_the_named_origins_are_answered_to() {
    let server = TestServer::start_with(&[&keys(), "http.cors_origins=[\"https://shop.example\"]"]);
    let preflight = async |origin: &str, path: &str| {
        let sent = request(&server, Method::OPTIONS, path).header("origin", origin);
        send(sent.header("access-control-request-method", "POST")).await
    };
    let allowed = preflight("https://shop.example", "/v1/orders").await;
    assert_eq!(allowed.status, 204);
    assert_eq!(allowed.header("access-control-allow-origin"), Some("https://shop.example"));
    assert_eq!(allowed.header("access-control-allow-credentials"), Some("true"));
    assert!(allowed.header("access-control-allow-headers").unwrap().contains("authorization"));
    assert!(allowed.header("vary").unwrap().contains("Origin"));
    for (origin, path) in [
        ("https://evil.example", "/v1/orders"),
        ("https://shop.example.evil.example", "/v1/orders"),
        ("http://shop.example", "/v1/orders"),
        ("https://shop.example", "/healthz"),
    ] {
        let refused = preflight(origin, path).await;
        assert_ne!(refused.status, 204);
        assert_eq!(refused.header("access-control-allow-origin"), None, "{origin} {path}");
    }
    let id = placed(&server, ACME, "B-1").await;
    for (key, status) in [(ACME, 200), ("wrong-key-0123456789", 401)] {
        let sent = request(&server, Method::GET, &format!("/v1/status/{id}")).bearer_auth(key);
        let answer = send(sent.header("origin", "https://shop.example")).await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("access-control-allow-origin"), Some("https://shop.example"), "{status}");
        assert!(answer.header("access-control-expose-headers").unwrap().contains("x-correlation-id"));
    }
}
