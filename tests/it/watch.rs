//! `wavegate watch` and `wavegate listen`, which ride the streams.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver as Lines, channel};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::door::{ACME, GLOBEX, OPERATOR, keys, order, request, send};
use crate::server::{TestServer, wait_bounded, wavegate};
use crate::shop::{PATIENCE, fast_warehouses};
use crate::webhooks::{Receiver, ok, status};

/// A sub-command that runs, and what it prints.
pub(crate) struct Running {
    child: Child,
    lines: Lines<String>,
}

impl Running {
    pub(crate) fn start(args: &[&str]) -> Running {
        let mut child =
            wavegate().args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let stdout = child.stdout.take().expect("its standard output");
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                send.send(line).ok();
            }
        });
        Running { child, lines }
    }

    pub(crate) fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("a line in time")
    }

    /// Waits for its end: its code, what was left to read, and what it said beside.
    fn ends(mut self) -> (Option<i32>, Vec<String>, String) {
        let code = wait_bounded(&mut self.child, PATIENCE).code();
        let mut said = String::new();
        self.child.stderr.take().expect("its standard error").read_to_string(&mut said).unwrap();
        (code, self.lines.iter().collect(), said)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A server that comes back at the same address, whose warehouses are fast.
fn server() -> TestServer {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let fast = fast_warehouses(&[]);
    TestServer::start_with(&[&keys(), &fast, &format!("http.listen={free}"), "manifests.close_every=100ms"])
}

async fn placed(server: &TestServer, key: &str, reference: &str) -> String {
    let sent = request(server, Method::POST, "/v1/orders").bearer_auth(key);
    send(sent.json(&order(reference))).await.id().to_owned()
}

async fn stocked(server: &TestServer) {
    for (n, line) in order("any")["lines"].as_array().unwrap().iter().enumerate() {
        let body = json!({"owner": "acme", "reference": format!("R-{n}"), "warehouse": "ATL1", "type": "receipt",
            "sku": line["sku"], "quantity": 1_000});
        let sent = request(server, Method::POST, "/v1/inventory/moves").bearer_auth(OPERATOR);
        assert_eq!(send(sent.json(&body)).await.status, 202);
    }
}

#[actix_rt::test]
async fn watch_shows_an_order_to_its_end_and_goes_on_after_the_server_was_killed() {
    let mut server = server();
    let id = placed(&server, ACME, "W-1").await;
    let watch = Running::start(&["watch", &id, "--url", &server.url, "--key", ACME]);
    let first = watch.line();
    assert!(first.contains("order W-1  accepted  v1  ATL1") && first.ends_with(&id), "{first}");
    assert!(watch.line().contains("! unknown_sku"));
    assert!(watch.line().contains("backordered  v3"));
    server.kill();
    server.restart();
    stocked(&server).await;
    let (code, lines, said) = watch.ends();
    assert_eq!((code, lines.last().unwrap().contains("  shipped  ")), (Some(0), true), "{lines:?} {said}");
    assert!(lines[0].contains("  allocated  v4"), "nothing is missing or shown twice: {lines:?}");
    assert!(said.ends_with("done: shipped\n"), "{said}");
}

#[actix_rt::test]
async fn watch_follows_a_whole_feed_from_its_oldest_event_as_cloudevents() {
    let server = server();
    for reference in ["W-1", "W-2"] {
        placed(&server, ACME, reference).await;
    }
    placed(&server, GLOBEX, "W-3").await;
    let all = ["watch", "--url", &server.url, "--key", ACME, "--from", "earliest", "--json"];
    let watch = Running::start(&[&all[..], &["--types", "wavegate.order.accepted"]].concat());
    let events = [watch.line(), watch.line()].map(|line| serde_json::from_str::<Value>(&line).unwrap());
    let seen = events.each_ref().map(|e| e["data"]["reference"].as_str().unwrap());
    assert_eq!(seen, ["W-1", "W-2"]);
    placed(&server, ACME, "W-4").await;
    assert!(watch.line().contains("\"W-4\""));
}

#[actix_rt::test]
async fn what_cannot_be_watched_ends_with_the_servers_own_words() {
    let server = server();
    let id = placed(&server, ACME, "W-1").await;
    let (code, _, said) = Running::start(&["watch", &id, "--url", &server.url, "--key", GLOBEX]).ends();
    assert!(code == Some(1) && said.contains("not_found"), "{code:?} {said}");
    let (code, _, said) = Running::start(&["watch", &id, "--url", &server.url]).ends();
    assert!(code == Some(1) && said.contains("unauthorized"), "{code:?} {said}");
    let (code, _, said) = Running::start(&["watch", "not/an/id", "--url", &server.url]).ends();
    assert!(code == Some(2) && said.contains("expected a transaction id"), "{code:?} {said}");
}

#[actix_rt::test]
async fn listen_brings_signed_webhooks_in_order_and_tries_again() {
    let server = server();
    // The second delivery is refused once.
    let receiver = Receiver::start(|_, n| if n == 1 { status(503) } else { ok() });
    let args = ["listen", "--forward-to", &receiver.url, "--url", &server.url, "--key", ACME];
    let listen = Running::start(&args);
    let secret = listen.line().strip_prefix("signing with ").expect("the secret").to_owned();
    // What is placed before the stream is open is not listened to: place until one is heard.
    let mut n = 0;
    while receiver.all().is_empty() {
        n += 1;
        placed(&server, ACME, &format!("L-{n}")).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let heard = receiver.when(|heard| heard.len() >= 4).await;
    assert!(heard.iter().all(|delivery| delivery.verify(&secret)));
    assert_eq!(heard[1].id(), heard[2].id(), "the same event again");
    let mut sequences: Vec<&str> =
        heard.iter().map(|delivery| delivery.event["feedsequence"].as_str().unwrap()).collect();
    sequences.dedup();
    assert!(sequences.is_sorted() && sequences.len() == heard.len() - 1, "{sequences:?}");
    for delivery in &heard {
        assert_eq!(delivery.headers["traceparent"], delivery.event["traceparent"].as_str().unwrap());
        assert_eq!(delivery.headers["x-correlation-id"], delivery.event["correlationid"].as_str().unwrap());
    }
    let printed: BTreeSet<String> = (0..4).map(|_| listen.line()).collect();
    assert!(printed.iter().any(|line| line.contains("  503  ")), "{printed:?}");

    let (code, _, said) = Running::start(&["listen", "--forward-to", "ftp://x", "--url", &server.url]).ends();
    assert!(code == Some(2) && said.contains("--forward-to"), "{code:?} {said}");
    let bad = [&args[..], &["--secret", "whsec_short"]].concat();
    assert_eq!(Running::start(&bad).ends().0, Some(2));
}
