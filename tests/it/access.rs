//! Who may do what: without keys by name, with keys by role.

use reqwest::Method;
use serde_json::json;

use crate::door::{ACME, Answer, GLOBEX, OPERATOR, WMS, keys, order, request, send};
use crate::server::TestServer;

async fn call(
    server: &TestServer,
    key: &str,
    method: Method,
    path: &str,
    body: Option<serde_json::Value>,
) -> Answer {
    let mut sent = request(server, method, path);
    if !key.is_empty() {
        sent = sent.bearer_auth(key);
    }
    if let Some(body) = body {
        sent = sent.json(&body);
    }
    send(sent).await
}

#[actix_rt::test]
async fn without_keys_only_names_of_this_machine_are_answered() {
    let server = TestServer::start();
    for host in ["localhost", "localhost:99", "127.0.0.1", "[::1]:8080"] {
        let answer = send(request(&server, Method::GET, "/healthz").header("host", host)).await;
        assert_eq!(answer.status, 200, "{host}");
    }
    for host in ["evil.example", "localhost.evil.example", "10.0.0.1"] {
        let answer = send(request(&server, Method::GET, "/v1/orders").header("host", host)).await;
        answer.is_problem(421, "host_not_allowed");
    }
    for origin in ["https://evil.example", "null"] {
        let sent = request(&server, Method::POST, "/v1/orders").header("origin", origin).json(&order("x"));
        send(sent).await.is_problem(403, "origin_not_allowed");
    }
    let sent = request(&server, Method::POST, "/v1/orders").header("origin", "http://localhost:3000");
    assert_eq!(send(sent.json(&order("x"))).await.status, 202);
    let named = call(&server, "", Method::POST, "/v1/orders?client=nobody", Some(order("y"))).await;
    named.is_fault("/client", "unknown_client");
}

#[actix_rt::test]
async fn every_role_does_what_is_its_own_and_nothing_else() {
    let server = TestServer::start_with(&[&keys()]);
    assert_eq!(call(&server, "", Method::GET, "/healthz", None).await.status, 200);
    assert_eq!(call(&server, "", Method::GET, "/readyz", None).await.status, 200);
    for key in ["", "wrong-key-0123456789"] {
        let answer = call(&server, key, Method::GET, "/v1/orders", None).await;
        answer.is_problem(401, "unauthorized");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    }
    let post =
        async |key: &'static str, path: &str, body| call(&server, key, Method::POST, path, Some(body)).await;
    assert_eq!(post(ACME, "/v1/orders", order("a")).await.status, 202);
    post(WMS, "/v1/orders", order("a")).await.is_problem(403, "forbidden");
    call(&server, WMS, Method::GET, "/v1/orders", None).await.is_problem(403, "forbidden");
    post(OPERATOR, "/v1/orders", order("a")).await.is_problem(400, "client_required");
    assert_eq!(post(OPERATOR, "/v1/orders?client=globex", order("a")).await.status, 202);
    post(OPERATOR, "/v1/orders?client=nobody", order("a")).await.is_fault("/client", "unknown_client");
    post(ACME, "/v1/orders?client=globex", order("b")).await.is_problem(403, "forbidden");

    let receipt = |owner: Option<&str>, warehouse: &str, reference: &str| {
        let mut body = json!({"reference": reference, "warehouse": warehouse, "type": "receipt", "sku": "A", "quantity": 1});
        if let Some(owner) = owner {
            body["owner"] = json!(owner);
        }
        body
    };
    let moves = "/v1/inventory/moves";
    assert_eq!(post(ACME, moves, receipt(None, "ATL1", "m1")).await.status, 202);
    assert_eq!(post(ACME, moves, receipt(Some("acme"), "ATL1", "m2")).await.status, 202);
    post(ACME, moves, receipt(Some("globex"), "ATL1", "m3")).await.is_problem(403, "forbidden");
    post(ACME, moves, receipt(Some("nobody"), "ATL1", "m3")).await.is_problem(403, "forbidden");
    post(WMS, moves, receipt(None, "ATL1", "m4")).await.is_problem(400, "client_required");
    assert_eq!(post(WMS, moves, receipt(Some("acme"), "ATL1", "m4")).await.status, 202);
    post(WMS, moves, receipt(Some("acme"), "DFW2", "m5")).await.is_problem(403, "forbidden");
    post(OPERATOR, moves, receipt(None, "ATL1", "m6")).await.is_problem(400, "client_required");
    assert_eq!(post(OPERATOR, moves, receipt(Some("globex"), "ATL1", "m6")).await.status, 202);
    post(OPERATOR, moves, receipt(Some("nobody"), "ATL1", "m7")).await.is_fault("/owner", "unknown_client");

    let seen = call(&server, WMS, Method::GET, "/v1/warehouses", None).await.body;
    assert_eq!(seen["items"].as_array().unwrap().len(), 1);
    call(&server, WMS, Method::GET, "/v1/warehouses/DFW2", None).await.is_problem(403, "forbidden");
    call(&server, WMS, Method::GET, "/v1/warehouses/ATL1/inventory", None)
        .await
        .is_problem(400, "client_required");
    assert_eq!(
        call(&server, WMS, Method::GET, "/v1/warehouses/ATL1/inventory?client=acme", None).await.status,
        200
    );
}

#[actix_rt::test]
async fn another_client_s_transaction_is_as_unknown_as_one_that_is_not_there() {
    let server = TestServer::start_with(&[&keys()]);
    let accepted = call(&server, ACME, Method::POST, "/v1/orders", Some(order("mine"))).await;
    let unknown = "019ac2f0-0000-8000-8000-000000000000";
    for (method, prefix, suffix) in
        [(Method::GET, "/v1/status/", ""), (Method::POST, "/v1/orders/", "/cancel")]
    {
        let theirs = format!("{prefix}{}{suffix}", accepted.id());
        let nothing = format!("{prefix}{unknown}{suffix}");
        let strip = |mut answer: Answer| {
            answer.is_problem(404, "not_found");
            let body = answer.body.as_object_mut().unwrap();
            body.remove("correlation_id");
            body.remove("instance");
            answer.body
        };
        let other = strip(call(&server, GLOBEX, method.clone(), &theirs, None).await);
        assert_eq!(other, strip(call(&server, GLOBEX, method.clone(), &nothing, None).await));
        let own = call(&server, ACME, method.clone(), &theirs, None).await;
        assert!(own.status < 300, "{}", own.body);
    }
    let listed = call(&server, GLOBEX, Method::GET, "/v1/orders", None).await.body;
    assert_eq!(listed["items"], json!([]));
    let query = json!({"ids": [accepted.id(), unknown]});
    let items =
        call(&server, GLOBEX, Method::POST, "/v1/status/query", Some(query)).await.body["items"].clone();
    assert_eq!(items[0]["problem"]["detail"], items[1]["problem"]["detail"]);
    let path = format!("/v1/status/{}", accepted.id());
    let seen = call(&server, OPERATOR, Method::GET, &path, None).await;
    assert_eq!((seen.status, seen.text("client")), (200, "acme"));
    // One client's reference says nothing about another's.
    let same = call(&server, GLOBEX, Method::POST, "/v1/orders", Some(order("mine"))).await;
    assert_ne!(same.id(), accepted.id());
}

#[actix_rt::test]
async fn a_client_past_its_rate_is_told_when_to_come_back_and_replays_are_not_counted() {
    let server = TestServer::start_with(&["limits.client_rate=2"]);
    let mut refused = None;
    for i in 0..20 {
        let answer = call(&server, "", Method::POST, "/v1/orders", Some(order(&format!("r-{i}")))).await;
        if answer.status != 202 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("twenty at once are more than two a second");
    refused.is_problem(429, "client_rate_limited");
    assert!(refused.header("retry-after").unwrap().parse::<u64>().is_ok_and(|s| s >= 1));
    let again = call(&server, "", Method::POST, "/v1/orders", Some(order("r-0"))).await;
    assert_eq!((again.status, again.header("idempotent-replayed")), (202, Some("true")));
}

#[actix_rt::test]
async fn a_warehouse_s_system_reads_the_moves_and_manifests_of_its_warehouses_and_no_orders() {
    let server = TestServer::start_with(&[&keys()]);
    let post =
        async |key: &'static str, path: &str, body| call(&server, key, Method::POST, path, Some(body)).await;
    let receipt = |warehouse: &str| {
        json!({"reference": format!("asn-{warehouse}"), "warehouse": warehouse, "type": "receipt", "sku": "A",
               "quantity": 5, "owner": "acme"})
    };
    let own = post(WMS, "/v1/inventory/moves", receipt("ATL1")).await;
    let location = own.header("location").expect("where to look").to_owned();
    let read = call(&server, WMS, Method::GET, &location, None).await;
    assert_eq!((read.status, read.text("kind")), (200, "move"), "{}", read.body);
    let elsewhere = post(OPERATOR, "/v1/inventory/moves", receipt("DFW2")).await;
    let placed = post(ACME, "/v1/orders", order("o")).await;
    for hidden in [&elsewhere, &placed] {
        let path = format!("/v1/status/{}", hidden.id());
        call(&server, WMS, Method::GET, &path, None).await.is_problem(404, "not_found");
    }

    let status = format!("/v1/status/{}?wait=30&after_version=6", placed.id());
    let shipped = call(&server, ACME, Method::GET, &status, None).await;
    assert_eq!(shipped.text("state"), "shipped", "{}", shipped.body);
    let manifest = shipped.body["fulfillments"][0]["cartons"][0]["manifest_id"].as_str().unwrap().to_owned();
    let path = format!("/v1/status/{manifest}");
    let read = call(&server, WMS, Method::GET, &path, None).await;
    assert_eq!((read.status, read.text("kind")), (200, "manifest"), "{}", read.body);
    call(&server, ACME, Method::GET, &path, None).await.is_problem(404, "not_found");
    let ids = json!({"ids": [manifest, own.id(), placed.id()]});
    let items = post(WMS, "/v1/status/query", ids).await.body["items"].clone();
    assert_eq!((&items[0]["kind"], &items[1]["kind"]), (&json!("manifest"), &json!("move")));
    assert_eq!(items[2]["problem"]["code"], "not_found");
    call(&server, WMS, Method::POST, &format!("/v1/orders/{}/cancel", placed.id()), None)
        .await
        .is_problem(403, "forbidden");
}

#[actix_rt::test]
async fn what_accepts_nothing_uses_up_nothing_of_a_client_s_rate() {
    let server = TestServer::start_with(&["limits.client_rate=2"]);
    let post = async |path, body| call(&server, "", Method::POST, path, Some(body)).await;
    assert_eq!(post("/v1/orders", order("first")).await.status, 202);
    let mut other = order("first");
    other["priority"] = json!(1);
    // In one batch, so that the rate gives back next to nothing between the first and the last.
    let mut orders = vec![order("first"); 10];
    orders.extend([other, order("second")]);
    let results = post("/v1/orders/batch", json!(orders)).await.body["results"].clone();
    let statuses: Vec<_> =
        results.as_array().unwrap().iter().map(|r| r["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [&[202; 10][..], &[409, 202]].concat());
}
