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
use wavegate_engine::ports::faults::{ArmedFaults, FaultPoint};

use crate::door::{self, ACME, Answer, GLOBEX, OPERATOR, WMS, get, keys, post, receive, request, send};
use crate::node::Node;
use crate::server::{TestServer, wavegate};
use crate::shop::{self, PATIENCE, fast_warehouses};

const LOOPBACK: &str = "webhooks.allow_cidrs=[\"127.0.0.0/8\"]";
const ENDPOINTS: &str = "/v1/webhooks/endpoints";
const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// A delivery that a receiver got.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) bytes: Bytes,
    pub(crate) event: Value,
    at: Instant,
}

impl Heard {
    pub(crate) fn id(&self) -> &str {
        &self.headers["webhook-id"]
    }

    pub(crate) fn subject(&self) -> &str {
        self.event["subject"].as_str().unwrap()
    }

    fn version(&self) -> u64 {
        self.event["data"]["version"].as_u64().unwrap()
    }

    /// Verifies it by the published library.
    pub(crate) fn verify(&self, secret: &str) -> bool {
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

pub(crate) struct Receiver {
    pub(crate) url: String,
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

pub(crate) fn ok() -> (HttpResponse, Duration) {
    (HttpResponse::NoContent().finish(), Duration::ZERO)
}

pub(crate) fn status(status: u16) -> (HttpResponse, Duration) {
    let status = actix_web::http::StatusCode::from_u16(status).unwrap();
    (HttpResponse::build(status).finish(), Duration::ZERO)
}

impl Receiver {
    pub(crate) fn start(
        script: impl Fn(&Heard, usize) -> (HttpResponse, Duration) + Send + Sync + 'static,
    ) -> Receiver {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let shared = web::Data::new(Shared { heard: heard.clone(), script: Box::new(script) });
        let app = move || App::new().app_data(shared.clone()).default_service(web::to(hear));
        let server = HttpServer::new(app).workers(1).disable_signals().bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/hooks", server.addrs()[0]);
        actix_rt::spawn(server.run());
        Receiver { url, heard }
    }

    pub(crate) fn willing() -> Receiver {
        Receiver::start(|_, _| ok())
    }

    pub(crate) fn all(&self) -> Vec<Heard> {
        self.heard.lock().unwrap().clone()
    }

    /// Waits until what was heard is enough.
    pub(crate) async fn when(&self, enough: impl Fn(&[Heard]) -> bool) -> Vec<Heard> {
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
pub(crate) fn server(more: &[&str]) -> TestServer {
    let fast = fast_warehouses(&[]);
    let mut sets = vec![fast.as_str(), "manifests.close_every=100ms", LOOPBACK, "log.level=debug"];
    if !more.iter().any(|set| set.starts_with("webhooks.schedule")) {
        sets.push("webhooks.schedule=[\"100ms\",\"100ms\",\"100ms\",\"100ms\",\"100ms\",\"100ms\"]");
    }
    sets.extend(more);
    TestServer::start_with(&sets)
}

/// Makes an endpoint; its id and its secret.
pub(crate) async fn endpoint(server: &TestServer, mut body: Value, url: &str) -> (String, String) {
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

#[actix_rt::test]
async fn latest_skips_what_a_newer_version_has_overtaken() {
    let slow = |_: &Heard, n: usize| {
        let (answer, _) = ok();
        (answer, if n == 0 { Duration::from_secs(2) } else { Duration::ZERO })
    };
    let (server, receiver) = (server(&[]), Receiver::start(slow));
    endpoint(&server, json!({"types": ["wavegate.order.*"]}), &receiver.url).await;
    receive(&server, "A", 5).await;
    let order = accept(&server, "one").await;
    let heard = receiver.when(|all| all.iter().any(is_shipped)).await;
    let document = door::until(&server, &order, |d| d["state"] == "shipped").await;
    let versions: Vec<u64> = heard.iter().map(Heard::version).collect();
    assert_eq!((versions[0], *versions.last().unwrap()), (1, document["version"].as_u64().unwrap()));
    assert!(versions.is_sorted_by(|a, b| a < b), "{versions:?}");
    assert!((versions.len() as u64) < document["version"].as_u64().unwrap(), "{versions:?}");
}

#[actix_rt::test]
async fn what_fails_is_tried_again_under_the_same_id_and_in_its_order() {
    let receiver = Receiver::start(|_, n| if n < 3 { status(500) } else { ok() });
    let server = server(&[]);
    let (id, _) =
        endpoint(&server, json!({"types": ["wavegate.order.*"], "delivery": "every"}), &receiver.url).await;
    receive(&server, "A", 5).await;
    let order = accept(&server, "one").await;
    let heard = receiver.when(|all| all.iter().any(is_shipped)).await;
    let ids: Vec<&str> = heard.iter().map(Heard::id).collect();
    let first = format!("{order}.1");
    assert_eq!(ids[..4], [&first[..]; 4], "the first version comes through before any other is tried");
    let rest: Vec<u64> = heard[4..].iter().map(Heard::version).collect();
    assert_eq!(rest, (2..2 + rest.len() as u64).collect::<Vec<_>>());
    let attempts = attempts_when(&server, &id, |items| items.len() == heard.len()).await;
    let first: Vec<_> =
        attempts.iter().rev().take(4).map(|a| (&a["attempt"], &a["status"], &a["outcome"])).collect();
    let failed = json!("refused");
    assert_eq!(first[0], (&json!(1), &json!(500), &failed));
    assert_eq!(first[2], (&json!(3), &json!(500), &failed));
    assert_eq!(first[3], (&json!(4), &json!(204), &json!("delivered")));
    assert!(server.log().contains("WARN"), "a failed attempt is a warning");
}

#[actix_rt::test]
async fn a_consumer_says_how_long_it_wants_to_be_left_alone_and_gets_nothing_meanwhile() {
    let mut server = server(&[]);
    let later = chrono::Utc::now() + chrono::Duration::seconds(4);
    let date = later.format("%a, %d %b %Y %H:%M:%S GMT").to_string();
    // Text, and the least and the most that the second attempt comes after the first.
    let forms: [(&str, u64, u64); 5] = [
        ("2", 2_000, 60_000),
        (&date, 500, 60_000),
        ("-5", 0, 4_900),
        ("soon", 0, 4_900),
        ("1000000000", 60_000, u64::MAX),
    ];
    let mut receivers = Vec::new();
    for (text, _, _) in forms {
        let text = text.to_owned();
        let receiver = Receiver::start(move |_, n| match n {
            0 => (
                HttpResponse::ServiceUnavailable().insert_header(("retry-after", text.clone())).finish(),
                Duration::ZERO,
            ),
            _ => ok(),
        });
        let wanted = json!({"types": ["wavegate.move.accepted"], "delivery": "every"});
        let (id, _) = endpoint(&server, wanted, &receiver.url).await;
        receivers.push((id, receiver));
    }
    receive(&server, "A", 5).await;
    for (id, _) in &receivers {
        attempts_when(&server, id, |items| !items.is_empty()).await;
    }
    // A restart does not end what was asked for, nor does another event.
    server.kill();
    server.restart();
    receive(&server, "B", 5).await;
    for ((text, least, most), (_, receiver)) in forms.iter().zip(&receivers) {
        if *most == u64::MAX {
            continue;
        }
        let heard = receiver.when(|all| all.len() >= 3).await;
        let pauses: Vec<_> =
            heard[1..].iter().map(|h| h.at.duration_since(heard[0].at).as_millis()).collect();
        let first = pauses.iter().min().unwrap();
        assert!(*first >= u128::from(*least) && *first < u128::from(*most), "{text}: {pauses:?} ms");
    }
    // Everything else has come by now.
    assert_eq!(receivers[4].1.all().len(), 1, "a day at most, and not at once");
}

#[actix_rt::test]
async fn a_secret_is_rotated_under_traffic_and_nothing_fails_to_verify() {
    let (server, receiver) = (server(&[]), Receiver::willing());
    let (id, first) =
        endpoint(&server, json!({"types": ["wavegate.order.*"], "delivery": "every"}), &receiver.url).await;
    receive(&server, "A", 50).await;
    for n in 0..10 {
        accept(&server, &format!("a{n}")).await;
    }
    let rotated = post(&server, &format!("{ENDPOINTS}/{id}/rotate"), &json!({"grace_seconds": 600})).await;
    assert_eq!(rotated.status, 200, "{}", rotated.body);
    let second = rotated.text("secret").to_owned();
    assert!(rotated.body["previous_expires_at"].is_string() && first != second);
    for n in 0..10 {
        accept(&server, &format!("b{n}")).await;
    }
    let shipped = |all: &[Heard], n: usize| all.iter().filter(|h| is_shipped(h)).count() >= n;
    let heard = receiver.when(|all| shipped(all, 20)).await;
    assert!(heard.iter().all(|h| h.verify(&first)), "the old secret is good throughout");
    let signatures = |h: &Heard| h.headers["webhook-signature"].split(' ').count();
    let last = heard.last().unwrap();
    assert!(last.verify(&second) && signatures(last) == 2, "{:?}", last.headers);
    assert!(heard.iter().all(|h| signatures(h) == 1 || h.verify(&second)));
    // Without grace the old ones end at once; one more rotation leaves only the newest.
    let rotated = post(&server, &format!("{ENDPOINTS}/{id}/rotate"), &json!({"grace_seconds": 0})).await;
    let third = rotated.text("secret").to_owned();
    let sent = receiver.all().len();
    accept(&server, "c").await;
    let heard = receiver.when(|all| all.len() > sent && all.last().is_some_and(is_shipped)).await;
    let last = heard.last().unwrap();
    assert!(last.verify(&third) && !last.verify(&second) && last.verify(&first), "{:?}", last.headers);
}

#[actix_rt::test]
async fn who_is_gone_or_asks_for_it_is_disabled_and_can_be_enabled_again() {
    let gone = Receiver::start(|_, n| if n == 0 { status(410) } else { ok() });
    let enough = Receiver::start(|_, n| {
        let mut answer = HttpResponse::Ok();
        if n == 0 {
            answer.insert_header(("webhook-delivery", "disable"));
        }
        (answer.finish(), Duration::ZERO)
    });
    let witness = Receiver::willing();
    let server = server(&[]);
    let body = json!({"types": ["wavegate.order.*"], "delivery": "every"});
    let (one, _) = endpoint(&server, body.clone(), &gone.url).await;
    let (two, _) = endpoint(&server, body, &enough.url).await;
    endpoint(&server, json!({"types": ["wavegate.endpoint.disabled"]}), &witness.url).await;
    receive(&server, "A", 50).await;
    let first = accept(&server, "first").await;
    let disabled = endpoint_when(&server, &one, |e| e["state"] == "disabled").await;
    assert_eq!(disabled["disabled_reason"], "gone");
    let disabled = endpoint_when(&server, &two, |e| e["state"] == "disabled").await;
    assert_eq!(disabled["disabled_reason"], "asked_to");
    let told = witness.when(|all| all.len() == 2).await;
    let subjects: BTreeSet<&str> = told.iter().map(Heard::subject).collect();
    assert_eq!(subjects, BTreeSet::from([&one[..], &two[..]]));
    assert!(
        told.iter()
            .all(|h| h.event["data"]["state"] == "disabled" && h.event["data"].get("secret").is_none())
    );
    assert_eq!(post(&server, &format!("{ENDPOINTS}/{one}/ping"), &json!({})).await.status, 409);
    door::until(&server, &first, |d| d["state"] == "shipped").await;
    let skipped = accept(&server, "skipped").await;
    door::until(&server, &skipped, |d| d["state"] == "shipped").await;
    let enabled = post(&server, &format!("{ENDPOINTS}/{one}/enable"), &Value::Null).await;
    assert_eq!((enabled.status, enabled.text("state")), (200, "enabled"), "{}", enabled.body);
    // What was refused is tried again; what happened meanwhile is not sent by itself.
    let heard = gone.when(|all| all.len() > 1).await;
    assert_eq!((heard[0].id(), heard[1].id()), (heard[1].id(), heard[0].id()));
    let third = accept(&server, "third").await;
    let heard = gone.when(|all| of(all, &third).iter().any(|h| is_shipped(h))).await;
    assert!(of(&heard, &skipped).is_empty());
    let replay = json!({"since": "2020-01-01T00:00:00Z", "types": ["wavegate.order.shipped"]});
    let replayed = post(&server, &format!("{ENDPOINTS}/{one}/replay"), &replay).await;
    assert_eq!(replayed.status, 202, "{}", replayed.body);
    let heard = gone
        .when(|all| {
            of(all, &skipped).len() == 1 && of(all, &third).iter().filter(|h| is_shipped(h)).count() == 2
        })
        .await;
    assert!(of(&heard, &skipped)[0].event["type"] == "wavegate.order.shipped");
    assert_eq!(enough.all().len(), 1, "the other one is still disabled");
}

#[actix_rt::test]
async fn what_was_skipped_replaces_what_waited_before_it_if_it_was_wanted() {
    let gone_once = || Receiver::start(|_, n| if n == 0 { status(410) } else { ok() });
    let (all, accepted, server) = (gone_once(), gone_once(), server(&[]));
    let (one, _) = endpoint(&server, json!({"types": ["wavegate.order.*"]}), &all.url).await;
    let (two, _) = endpoint(&server, json!({"types": ["wavegate.order.accepted"]}), &accepted.url).await;
    let early = accept(&server, "early").await;
    for id in [&one, &two] {
        endpoint_when(&server, id, |e| e["state"] == "disabled").await;
    }
    door::until(&server, &early, |d| d["state"] == "backordered").await;
    receive(&server, "A", 5).await;
    door::until(&server, &early, |d| d["state"] == "shipped").await;
    for id in [&one, &two] {
        let enabled = post(&server, &format!("{ENDPOINTS}/{id}/enable"), &Value::Null).await;
        assert_eq!((enabled.status, enabled.text("state")), (200, "enabled"), "{}", enabled.body);
    }
    let late = accept(&server, "late").await;
    let heard = all.when(|all| of(all, &late).iter().any(|h| is_shipped(h))).await;
    let old: Vec<_> = of(&heard, &early).iter().map(|h| h.version()).collect();
    assert_eq!(old.len(), 1, "an old version came after newer ones were skipped: {old:?}");
    // Nothing that the other one wants was skipped.
    let heard = accepted.when(|all| all.len() == 3).await;
    assert_eq!((of(&heard, &early).len(), of(&heard, &late).len()), (2, 1));
}

#[actix_rt::test]
async fn a_redirect_is_not_followed() {
    let inside = Receiver::willing();
    let to = inside.url.clone();
    let receiver = Receiver::start(move |_, _| {
        (HttpResponse::Found().insert_header(("location", to.clone())).finish(), Duration::ZERO)
    });
    let server = server(&["webhooks.schedule=[\"50ms\"]"]);
    let (id, _) = endpoint(&server, json!({"types": ["wavegate.move.accepted"]}), &receiver.url).await;
    receive(&server, "A", 5).await;
    let attempts = attempts_when(&server, &id, |items| items.len() == 2).await;
    assert!(attempts.iter().all(|a| a["outcome"] == "redirected" && a["status"] == 302), "{attempts:?}");
    assert!(inside.all().is_empty());
}

#[actix_rt::test]
async fn an_endpoint_that_hangs_or_pours_slows_no_other() {
    let hangs = Receiver::start(|_, _| (HttpResponse::Ok().finish(), Duration::from_secs(600)));
    let pours = Receiver::start(|_, _| {
        let megabyte = Bytes::from(vec![b' '; 1 << 20]);
        let body =
            futures_util::stream::iter((0..1_024).map(move |_| Ok::<_, std::io::Error>(megabyte.clone())));
        (HttpResponse::Ok().streaming(body), Duration::ZERO)
    });
    let (server, good) = (server(&[]), Receiver::willing());
    let body = json!({"types": ["wavegate.order.*"], "delivery": "every"});
    endpoint(&server, body.clone(), &hangs.url).await;
    endpoint(&server, body.clone(), &pours.url).await;
    endpoint(&server, body, &good.url).await;
    receive(&server, "A", 50).await;
    let began = Instant::now();
    for n in 0..20 {
        accept(&server, &format!("o{n}")).await;
    }
    let all_shipped = |all: &[Heard]| all.iter().filter(|h| is_shipped(h)).count() == 20;
    good.when(all_shipped).await;
    pours.when(all_shipped).await;
    assert!(
        began.elapsed() < Duration::from_secs(14),
        "it waited for the one that hangs: {:?}",
        began.elapsed()
    );
    assert!(hangs.all().len() <= 10, "ten under way at most");
}

#[actix_rt::test]
async fn our_own_door_is_a_receiver_like_any_other() {
    let server = server(&["webhooks.schedule=[\"50ms\"]"]);
    let (id, _) =
        endpoint(&server, json!({"types": ["wavegate.move.accepted"]}), &server.at("/v1/orders")).await;
    receive(&server, "A", 5).await;
    let attempts = attempts_when(&server, &id, |items| items.len() == 2).await;
    assert!(attempts.iter().all(|a| a["outcome"] == "refused" && a["status"] == 422), "{attempts:?}");
    assert_eq!(get(&server, "/v1/orders").await.body["items"], json!([]));
}

#[actix_rt::test]
async fn what_is_past_the_schedule_is_kept_aside_and_can_be_redriven_or_given_up() {
    let refusing = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let refuses = refusing.clone();
    let receiver =
        Receiver::start(
            move |_, _| {
                if refuses.load(std::sync::atomic::Ordering::SeqCst) { status(500) } else { ok() }
            },
        );
    let server = server(&["webhooks.schedule=[\"20ms\",\"20ms\"]"]);
    let (id, _) =
        endpoint(&server, json!({"types": ["wavegate.move.*"], "delivery": "every"}), &receiver.url).await;
    receive(&server, "A", 5).await;
    let dead = |items: &[Value]| items.iter().filter(|i| i["kind"] == "delivery").count();
    let until = Instant::now() + PATIENCE;
    let letters = loop {
        let letters = get(&server, "/v1/ops/dead-letters").await.body["items"].as_array().unwrap().clone();
        if dead(&letters) == 2 {
            break letters;
        }
        assert!(Instant::now() < until, "{letters:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(receiver.all().len(), 6, "three attempts each");
    assert_eq!(letters[0]["endpoint"], json!(id));
    assert!(letters[0]["reason"].as_str().unwrap().contains("status 500"), "{}", letters[0]);
    let page = get(&server, "/v1/ops/dead-letters?limit=1").await.body;
    let rest =
        get(&server, &format!("/v1/ops/dead-letters?after={}", page["next"].as_str().unwrap())).await.body;
    assert_eq!((&page["items"][0], &rest["items"][0]), (&letters[0], &letters[1]));
    refusing.store(false, std::sync::atomic::Ordering::SeqCst);
    let letter = |n: usize| letters[n]["id"].as_str().unwrap();
    assert_eq!(
        post(&server, &format!("/v1/ops/dead-letters/{}/redrive", letter(0)), &Value::Null).await.status,
        202
    );
    let heard = receiver.when(|all| all.len() == 7).await;
    assert_eq!(heard[6].id(), heard[0].id(), "the same event");
    let given_up = post(&server, &format!("/v1/ops/dead-letters/{}/give-up", letter(1)), &Value::Null).await;
    assert_eq!(given_up.status, 202, "{}", given_up.body);
    let until = Instant::now() + PATIENCE;
    while get(&server, "/v1/ops/dead-letters").await.body["items"] != json!([]) {
        assert!(Instant::now() < until, "they are dealt with");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for n in [0, 1] {
        let again = post(&server, &format!("/v1/ops/dead-letters/{}/redrive", letter(n)), &Value::Null).await;
        again.is_problem(404, "not_found");
    }
}

#[actix_rt::test]
async fn an_endpoint_is_deleted_with_deliveries_in_flight() {
    let slow = Receiver::start(|_, _| (HttpResponse::Ok().finish(), Duration::from_secs(2)));
    let (mut server, good) = (server(&[]), Receiver::willing());
    let body = json!({"types": ["wavegate.*"], "delivery": "every"});
    let (id, _) = endpoint(&server, body.clone(), &slow.url).await;
    endpoint(&server, body, &good.url).await;
    receive(&server, "A", 5).await;
    slow.when(|all| !all.is_empty()).await;
    let path = format!("{ENDPOINTS}/{id}");
    assert_eq!(send(request(&server, Method::DELETE, &path)).await.status, 204);
    for path in [path.clone(), format!("{path}/attempts")] {
        get(&server, &path).await.is_problem(404, "not_found");
    }
    send(request(&server, Method::DELETE, &path)).await.is_problem(404, "not_found");
    let order = accept(&server, "after").await;
    good.when(|all| of(all, &order).iter().any(|h| is_shipped(h))).await;
    assert!(of(&slow.all(), &order).is_empty(), "nothing is begun for what is deleted");
    let until = Instant::now() + PATIENCE;
    while crate::node::find(&get(&server, "/v1/ops/actors").await.body["actors"], &format!("endpoint/{id}"))
        .is_some()
    {
        assert!(Instant::now() < until, "its actor is gone with it");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!server.log().contains("actor is gone and starts again"), "to be deleted is no death");
    server.restart();
    let listed = get(&server, ENDPOINTS).await.body["items"].as_array().unwrap().len();
    assert_eq!(listed, 1);
}

#[actix_rt::test]
async fn inside_addresses_are_refused_and_checked_again_at_each_attempt() {
    let receiver = Receiver::willing();
    let server = TestServer::start();
    for url in [
        "http://127.0.0.1:9/",
        "http://localhost:9/",
        "http://LOCALHOST./",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0177.1/",
        "http://[::1]/",
        "http://[::ffff:10.0.0.1]/",
        "http://169.254.169.254/latest/meta-data/",
        "http://10.1.2.3/",
        "http://192.168.0.1/",
        "https://224.0.0.1/",
        "http://0.0.0.0/",
    ] {
        let answer = post(&server, ENDPOINTS, &json!({"url": url})).await;
        answer.is_problem(422, "address_forbidden");
    }
    let made = post(&server, ENDPOINTS, &json!({"url": "https://nowhere.invalid/hooks"})).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let path = format!("{ENDPOINTS}/{}", made.text("id"));
    let moved = send(request(&server, Method::PATCH, &path).json(&json!({"url": receiver.url}))).await;
    moved.is_problem(422, "address_forbidden");

    // Allowed when it was made, and no more.
    let mut allowing = self::server(&[]);
    let (id, _) = endpoint(&allowing, json!({"types": ["wavegate.move.accepted"]}), &receiver.url).await;
    allowing.kill();
    let strict = TestServer::start_in(allowing.dir(), &["webhooks.schedule=[\"50ms\"]"]);
    receive(&strict, "A", 5).await;
    let attempts = attempts_when(&strict, &id, |items| items.len() == 2).await;
    assert!(
        attempts.iter().all(|a| a["outcome"] == "address_forbidden" && a["status"] == Value::Null),
        "{attempts:?}"
    );
    assert!(receiver.all().is_empty());
}

async fn as_who(server: &TestServer, key: &str, method: Method, path: &str, body: Option<Value>) -> Answer {
    let mut asked = request(server, method, path).bearer_auth(key);
    if let Some(body) = body {
        asked = asked.json(&body);
    }
    send(asked).await
}

#[actix_rt::test]
async fn an_endpoint_is_its_client_s_alone_and_shows_its_secret_once() {
    let server = server(&[&keys()]);
    let full = json!({
        "url": "https://shop.example/hooks?token=x", "types": ["wavegate.order.*", "wavegate.move.applied"],
        "description": "the shop", "delivery": "every", "content_type": "application/cloudevents+json",
        "include": ["metadata", "ship_to"],
    });
    let made = as_who(&server, ACME, Method::POST, ENDPOINTS, Some(full.clone())).await;
    assert_eq!(made.status, 201, "{}", made.body);
    for (name, value) in full.as_object().unwrap() {
        assert_eq!(&made.body[name], value, "{name}");
    }
    assert!(made.text("secret").starts_with("whsec_"));
    assert_eq!((&made.body["state"], &made.body["disabled_reason"]), (&json!("enabled"), &Value::Null));
    let path = format!("{ENDPOINTS}/{}", made.text("id"));
    assert_eq!(made.header("location"), Some(path.as_str()));
    let mut shown = made.body.clone();
    shown.as_object_mut().unwrap().remove("secret");
    assert_eq!(as_who(&server, ACME, Method::GET, &path, None).await.body, shown);
    let list = as_who(&server, ACME, Method::GET, ENDPOINTS, None).await;
    assert_eq!(list.body, json!({"items": [shown], "next": null}));

    assert_eq!(as_who(&server, GLOBEX, Method::GET, ENDPOINTS, None).await.body["items"], json!([]));
    for (method, rest) in [
        (Method::GET, ""),
        (Method::DELETE, ""),
        (Method::GET, "/attempts"),
        (Method::POST, "/rotate"),
        (Method::POST, "/ping"),
        (Method::POST, "/enable"),
    ] {
        let answer = as_who(&server, GLOBEX, method.clone(), &format!("{path}{rest}"), None).await;
        answer.is_problem(404, "not_found");
        as_who(&server, WMS, method, &format!("{path}{rest}"), None).await.is_problem(403, "forbidden");
    }
    let replay = Some(json!({"since": "2026-01-01T00:00:00Z"}));
    as_who(&server, GLOBEX, Method::POST, &format!("{path}/replay"), replay)
        .await
        .is_problem(404, "not_found");
    let patch = Some(json!({"description": "stolen"}));
    as_who(&server, GLOBEX, Method::PATCH, &path, patch.clone()).await.is_problem(404, "not_found");
    as_who(&server, OPERATOR, Method::GET, &path, None).await.is_problem(400, "client_required");
    let seen = as_who(&server, OPERATOR, Method::GET, &format!("{path}?client=acme"), None).await;
    assert_eq!((seen.status, &seen.body), (200, &shown));
    let patched = as_who(&server, ACME, Method::PATCH, &path, patch).await;
    assert_eq!(
        (patched.status, patched.text("description"), patched.text("delivery")),
        (200, "stolen", "every")
    );
    for nobody in ["nonsense", "019ac2f0-0000-8000-8000-000000000000"] {
        as_who(&server, ACME, Method::GET, &format!("{ENDPOINTS}/{nobody}"), None)
            .await
            .is_problem(404, "not_found");
    }
    as_who(&server, ACME, Method::PUT, &path, None).await.is_problem(405, "method_not_allowed");

    let bad =
        as_who(&server, ACME, Method::POST, ENDPOINTS, Some(json!({"url": "ftp://a/", "colour": 1}))).await;
    bad.is_problem(422, "validation_failed");
    assert_eq!(bad.body["errors"].as_array().unwrap().len(), 2, "{}", bad.body);
    let bad = as_who(
        &server,
        ACME,
        Method::POST,
        &format!("{path}/rotate"),
        Some(json!({"grace_seconds": 1e9 as u64})),
    )
    .await;
    bad.is_fault("/grace_seconds", "out_of_range");
    as_who(&server, ACME, Method::POST, &format!("{path}/replay"), Some(json!({})))
        .await
        .is_fault("/since", "missing");
    for n in 1..50 {
        let made =
            as_who(&server, ACME, Method::POST, ENDPOINTS, Some(json!({"url": "https://shop.example/"})))
                .await;
        assert_eq!(made.status, 201, "{n}: {}", made.body);
    }
    let more =
        as_who(&server, ACME, Method::POST, ENDPOINTS, Some(json!({"url": "https://shop.example/"}))).await;
    more.is_problem(409, "not_possible");
}

#[actix_rt::test]
async fn a_ping_is_posted_once_and_what_is_asked_for_is_included() {
    let (server, receiver) = (server(&[]), Receiver::willing());
    let body = json!({"types": ["wavegate.order.accepted"], "include": ["metadata", "ship_to"]});
    let (id, secret) = endpoint(&server, body, &receiver.url).await;
    let until = Instant::now() + PATIENCE;
    while post(&server, &format!("{ENDPOINTS}/{id}/ping"), &json!({})).await.status != 202 {
        assert!(Instant::now() < until, "its actor starts");
    }
    let heard = receiver.when(|all| all.len() == 1).await;
    assert!(heard[0].verify(&secret));
    assert_eq!((&heard[0].event["type"], heard[0].subject()), (&json!("wavegate.endpoint.ping"), &id[..]));
    let attempts = attempts_when(&server, &id, |items| items.len() == 1).await;
    assert_eq!(
        (&attempts[0]["event_type"], &attempts[0]["transaction_id"]),
        (&json!("wavegate.endpoint.ping"), &Value::Null)
    );
    let mut order = door::order("one");
    order["metadata"] = json!({"channel": "web"});
    assert_eq!(post(&server, "/v1/orders", &order).await.status, 202);
    let heard = receiver.when(|all| all.len() == 2).await;
    let data = &heard[1].event["data"];
    assert_eq!((&data["metadata"], &data["ship_to"]["name"]), (&json!({"channel": "web"}), &json!("Ada")));
    assert_eq!(heard[1].headers["content-type"], "application/json");
}

#[actix_rt::test]
async fn endpoints_are_seen_among_the_actors_and_in_the_metrics() {
    let (server, receiver) = (server(&[]), Receiver::willing());
    let (id, _) =
        endpoint(&server, json!({"types": ["wavegate.move.*"], "delivery": "every"}), &receiver.url).await;
    receive(&server, "A", 5).await;
    attempts_when(&server, &id, |items| items.len() == 2).await;
    let report = get(&server, "/v1/ops/actors").await.body;
    let notifier = crate::node::find(&report["actors"], "notifier").expect("the Notifier");
    let actor = crate::node::find(&notifier["children"], &format!("endpoint/{id}")).expect("its Endpoint");
    assert_eq!((&actor["actor"], &actor["state"]), (&json!("endpoint"), &json!("running")));
    assert_eq!(
        (&actor["observed"]["waiting"], &actor["observed"]["breaker_open"]),
        (&json!(0), &json!(false))
    );
    assert_eq!(actor["gate"]["capacity"], 16);
    let metrics = request(&server, Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("delivery_attempt_seconds_count{outcome=\"delivered\"} 2"), "{metrics}");
    assert!(metrics.contains("dead_letters_total{kind=\"delivery\"} 0"), "{metrics}");
}

#[actix_rt::test]
async fn an_endpoint_that_dies_comes_back_and_goes_on_where_it_was() {
    let faults = Arc::new(ArmedFaults::default());
    let (node, receiver) = (Node::start(faults.clone()).await, Receiver::willing());
    let http = crate::server::client();
    let at = |path: &str| format!("{}{path}", node.url);
    let body = json!({"url": receiver.url, "types": ["wavegate.move.*"], "delivery": "every"});
    let (code, made) = shop::post(&http, at(ENDPOINTS), &body).await;
    assert_eq!(code, 201, "{made}");
    let name = format!("endpoint/{}", made["id"].as_str().unwrap());
    node.actor_when(&name, |actor| actor["state"] == "running").await;
    let receipt = async |n: u32| {
        let receipt = shop::receipt(&format!("asn-{n}"), "ATL1", "A", 5);
        assert_eq!(shop::post(&http, at("/v1/inventory/moves"), &receipt).await.0, 202);
    };
    receipt(1).await;
    receiver.when(|all| all.len() == 2).await;
    faults.arm(FaultPoint::Endpoint, None);
    let ping = at(&format!("{ENDPOINTS}/{}/ping", made["id"].as_str().unwrap()));
    assert_eq!(shop::post(&http, ping, &json!({})).await.0, 503, "it dies of it");
    receipt(2).await;
    let heard = receiver.when(|all| all.iter().map(Heard::id).collect::<BTreeSet<_>>().len() == 4).await;
    assert!(heard.iter().all(|h| h.event["type"] != "wavegate.endpoint.ping"));
    let actor = node.actor_when(&name, |actor| actor["state"] == "running").await;
    assert_eq!((&actor["restarts"]["count"], &actor["restarts"]["last_cause"]), (&json!(1), &json!("panic")));
}

#[test]
fn signatures_are_made_and_explained_on_the_command_line() {
    let dir = tempfile::tempdir().unwrap();
    let body = dir.path().join("body.json");
    std::fs::write(&body, r#"{"test": 2432232314}"#).unwrap();
    let run = |verb: &str, more: &[&str]| {
        let common =
            ["--secret", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "--id", "msg_p5jXN8AQM9LWM0D4loKWxJek"];
        let mut command = wavegate();
        command
            .args(["signature", verb])
            .args(common)
            .args(["--timestamp", "1614265330"])
            .args(more)
            .arg(&body);
        let output = command.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, signed, _) = run("sign", &[]);
    assert_eq!((code, signed.trim()), (Some(0), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="));
    let (code, _, _) = run("verify", &["--signature", signed.trim()]);
    assert_eq!(code, Some(0));
    let (code, _, why) = run("verify", &["--signature", "v1,AAAA"]);
    assert!(code == Some(1) && why.contains("no signature is of this"), "{why}");
    let (code, _, why) = run("verify", &["--signature", "v2,AAAA"]);
    assert!(code == Some(1) && why.contains("no `v1"), "{why}");
}
