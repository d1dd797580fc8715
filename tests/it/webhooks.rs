//! Webhooks, against receivers that do as a test says: right, slow, wrong, or nothing at all.
//! Whatever they do, no event is lost, and what comes twice has the same id.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use actix_web::web::Bytes;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use reqwest::Method;
use serde_json::{Value, json};
use standardwebhooks::Webhook;
use tokio::net::TcpListener;

use crate::door::{self, ACME, Answer, GLOBEX, OPERATOR, WMS, get, keys, post, receive, request, send};
use crate::server::{TestServer, wavegate};
use crate::shop::{PATIENCE, fast_warehouses};

const LOOPBACK: &str = "webhooks.allow_cidrs=[\"127.0.0.0/8\"]";
const ENDPOINTS: &str = "/v1/webhooks/endpoints";
const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// A delivery that a receiver got.
#[derive(Clone, Debug)]
struct Heard {
    headers: BTreeMap<String, String>,
    bytes: Bytes,
    event: Value,
    at: Instant,
}

impl Heard {
    fn id(&self) -> &str {
        &self.headers["webhook-id"]
    }

    fn subject(&self) -> &str {
        self.event["subject"].as_str().unwrap()
    }

    fn version(&self) -> u64 {
        self.event["data"]["version"].as_u64().unwrap()
    }

    /// Verifies it by the published library.
    fn verify(&self, secret: &str) -> bool {
        let mut headers = http_headers();
        for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
            headers.insert(name, self.headers[name].parse().unwrap());
        }
        Webhook::new(secret).unwrap().verify(&self.bytes, &headers).is_ok()
    }
}

fn http_headers() -> reqwest::header::HeaderMap {
    reqwest::header::HeaderMap::new()
}

/// Answers the n-th delivery; a delay is before the answer.
type Script = dyn Fn(&Heard, usize) -> (HttpResponse, Duration) + Send + Sync;

struct Receiver {
    url: String,
    heard: Arc<Mutex<Vec<Heard>>>,
}

struct Shared {
    heard: Arc<Mutex<Vec<Heard>>>,
    script: Box<Script>,
}

async fn hear(shared: web::Data<Shared>, request: HttpRequest, bytes: Bytes) -> HttpResponse {
    let text = |(name, value): (&HeaderName, &HeaderValue)| {
        (name.to_string(), value.to_str().unwrap_or_default().to_owned())
    };
    let all: &HeaderMap = request.headers();
    let heard = Heard {
        headers: all.iter().map(text).collect(),
        event: serde_json::from_slice(&bytes).unwrap_or_default(),
        bytes,
        at: Instant::now(),
    };
    let n = {
        let mut all = shared.heard.lock().unwrap();
        all.push(heard.clone());
        all.len() - 1
    };
    let (answer, delay) = (shared.script)(&heard, n);
    tokio::time::sleep(delay).await;
    answer
}

fn ok() -> (HttpResponse, Duration) {
    (HttpResponse::NoContent().finish(), Duration::ZERO)
}

fn status(status: u16) -> (HttpResponse, Duration) {
    let status = actix_web::http::StatusCode::from_u16(status).unwrap();
    (HttpResponse::build(status).finish(), Duration::ZERO)
}

impl Receiver {
    fn start(script: impl Fn(&Heard, usize) -> (HttpResponse, Duration) + Send + Sync + 'static) -> Receiver {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let shared = web::Data::new(Shared { heard: heard.clone(), script: Box::new(script) });
        let app = move || App::new().app_data(shared.clone()).default_service(web::to(hear));
        let server = HttpServer::new(app).workers(1).disable_signals().bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/hooks", server.addrs()[0]);
        actix_rt::spawn(server.run());
        Receiver { url, heard }
    }

    fn willing() -> Receiver {
        Receiver::start(|_, _| ok())
    }

    fn all(&self) -> Vec<Heard> {
        self.heard.lock().unwrap().clone()
    }

    /// Waits until what was heard is enough.
    async fn when(&self, enough: impl Fn(&[Heard]) -> bool) -> Vec<Heard> {
        let until = Instant::now() + PATIENCE;
        loop {
            let all = self.all();
            if enough(&all) {
                return all;
            }
            let seen: Vec<_> = all.iter().map(|h| (&h.event["type"], h.id())).collect();
            assert!(Instant::now() < until, "not within {PATIENCE:?}: {seen:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// A server that may post to this machine, with short pauses between attempts.
fn server(more: &[&str]) -> TestServer {
    let fast = fast_warehouses(&[]);
    let mut sets = vec![fast.as_str(), "manifests.close_every=100ms", LOOPBACK, "log.level=debug"];
    if !more.iter().any(|set| set.starts_with("webhooks.schedule")) {
        sets.push("webhooks.schedule=[\"100ms\",\"100ms\",\"100ms\",\"100ms\",\"100ms\",\"100ms\"]");
    }
    sets.extend(more);
    TestServer::start_with(&sets)
}

/// Makes an endpoint; its id and its secret.
async fn endpoint(server: &TestServer, mut body: Value, url: &str) -> (String, String) {
    body["url"] = json!(url);
    let made = post(server, ENDPOINTS, &body).await;
    assert_eq!(made.status, 201, "{}", made.body);
    (made.text("id").to_owned(), made.text("secret").to_owned())
}

/// Accepts an order of one unit of A; its id.
async fn accept(server: &TestServer, reference: &str) -> String {
    let accepted = post(server, "/v1/orders", &door::order(reference)).await;
    assert_eq!(accepted.status, 202, "{}", accepted.body);
    accepted.id().to_owned()
}

/// Reads an endpoint's attempts until they are as wanted.
async fn attempts_when(server: &TestServer, id: &str, enough: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let until = Instant::now() + PATIENCE;
    loop {
        let answer = get(server, &format!("{ENDPOINTS}/{id}/attempts?limit=500")).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let items = answer.body["items"].as_array().unwrap().clone();
        if enough(&items) {
            return items;
        }
        assert!(Instant::now() < until, "not within {PATIENCE:?}: {items:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Reads an endpoint until it is as wanted.
async fn endpoint_when(server: &TestServer, id: &str, enough: impl Fn(&Value) -> bool) -> Value {
    let until = Instant::now() + PATIENCE;
    loop {
        let answer = get(server, &format!("{ENDPOINTS}/{id}")).await;
        if answer.status == 200 && enough(&answer.body) {
            return answer.body;
        }
        assert!(Instant::now() < until, "not within {PATIENCE:?}: {}", answer.body);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn is_shipped(heard: &Heard) -> bool {
    heard.event["type"] == "wavegate.order.shipped"
}

fn of<'h>(all: &'h [Heard], subject: &str) -> Vec<&'h Heard> {
    all.iter().filter(|h| h.event["subject"] == subject).collect()
}

#[actix_rt::test]
async fn every_event_of_an_order_is_delivered_signed_and_traced() {
    let (server, receiver) = (server(&[]), Receiver::willing());
    let body = json!({"types": ["wavegate.order.*"], "delivery": "every", "content_type": "application/cloudevents+json"});
    let (id, secret) = endpoint(&server, body, &receiver.url).await;
    receive(&server, "A", 5).await;
    let order = request(&server, Method::POST, "/v1/orders")
        .header("x-correlation-id", "corr-hooks")
        .header("traceparent", TRACE)
        .json(&door::order("one"));
    let order = send(order).await.id().to_owned();
    let heard = receiver.when(|all| all.iter().any(is_shipped)).await;
    let document = door::until(&server, &order, |d| d["state"] == "shipped").await;
    let versions: Vec<u64> = heard.iter().map(Heard::version).collect();
    let all: Vec<u64> = (1..=document["version"].as_u64().unwrap()).collect();
    assert_eq!(versions, all, "each of them, once, in order, and nothing else");
    for h in &heard {
        assert!(h.verify(&secret), "{:?}", h.headers);
        assert_eq!(h.id(), format!("{order}.{}", h.version()));
        assert_eq!((h.event["specversion"].as_str(), h.event["id"].as_str()), (Some("1.0"), Some(h.id())));
        assert_eq!(h.headers["content-type"], "application/cloudevents+json");
        assert_eq!(
            (h.headers["x-correlation-id"].as_str(), &h.event["correlationid"]),
            ("corr-hooks", &json!("corr-hooks"))
        );
        assert_eq!(h.event["traceparent"], TRACE);
        let (own, theirs): (Vec<_>, Vec<_>) =
            (h.headers["traceparent"].split('-').collect(), TRACE.split('-').collect());
        assert_eq!((own[1], own[3]), (theirs[1], theirs[3]), "one trace");
        assert_ne!(own[2], theirs[2], "the attempt is a span of its own");
        let data = &h.event["data"];
        assert!(data.get("ship_to").is_none() && data.get("metadata").is_none(), "{data}");
        assert_eq!(data["estimate"], Value::Null);
    }
    let attempts = attempts_when(&server, &id, |items| items.len() == versions.len()).await;
    assert!(attempts.iter().all(|a| a["outcome"] == "delivered" && a["status"] == 204 && a["attempt"] == 1));
    assert_eq!(attempts[0]["webhook_id"], heard.last().unwrap().id(), "the newest first");
    assert_eq!(attempts[0]["transaction_id"], json!(order));
    let line = server.log().lines().find(|l| l.contains("webhook attempt")).map(str::to_owned);
    let line = line.expect("a line for each attempt");
    assert!(line.contains("corr-hooks") && line.contains("0af7651916cd43dd8448eb211c80319c"), "{line}");
    assert!(!server.log().contains(&receiver.url), "an address may hold a secret");
}
