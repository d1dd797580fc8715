//! Who is told: readers of each client's feed that resume at whatever node answers, a consumer of
//! webhooks that refuses some of them, and somebody who reads statuses again and again. What they were
//! told is kept as a digest: one storm has some ten thousand events.

use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use actix_web::web::Bytes;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use reqwest::Method;
use standardwebhooks::Webhook;
use wavegate_engine::ports::entropy::Entropy as _;

use super::{CLIENTS, SETTLED_WITHIN, Storm};
use crate::sse::Stream;

/// Readers of each client's feed.
const READERS: u64 = 2;
/// A stream that says nothing for so long is left: its node may stand still.
const SILENT_MAX: Duration = Duration::from_secs(3);
/// Of so many deliveries one is refused.
const REFUSES: u64 = 7;

/// An event as somebody got it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// Its place in the feed.
    pub(super) sequence: u64,
    /// The CloudEvent's id.
    pub(super) id: String,
    pub(super) digest: u64,
    /// Per transaction, or per SKU of a warehouse: what is in order.
    pub(super) line: String,
    pub(super) kind: String,
    /// The document's version, of a transaction.
    pub(super) version: Option<u64>,
}

impl Told {
    pub(super) fn of(event: &Value) -> Told {
        let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
        Told {
            sequence: text("feedsequence").parse().unwrap_or(0),
            id: text("id"),
            digest: digest_of(event),
            line: format!("{} {}", text("source"), text("subject")),
            kind: text("type"),
            version: event["data"]["version"].as_u64(),
        }
    }
}

pub(super) fn digest_of(value: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.to_string().hash(&mut hasher);
    hasher.finish()
}

/// What a client was told in all its ways.
#[derive(Default)]
pub(super) struct Heard {
    pub(super) streams: Vec<Arc<Mutex<Vec<Told>>>>,
    pub(super) webhook: Arc<Mutex<Vec<Told>>>,
    /// What is wrong with single deliveries.
    pub(super) wrong: Arc<Mutex<Vec<String>>>,
}

/// Everybody who is told, by client; and what the reader of statuses has seen.
pub(super) struct Consumers {
    pub(super) heard: Vec<Heard>,
    /// Documents by transaction and version.
    pub(super) seen: Seen,
    /// The end of it ends the receivers.
    _receivers: tokio::sync::watch::Sender<()>,
}

/// Digests of documents by transaction and version, and the client.
pub(super) type Seen = Arc<Mutex<BTreeMap<(String, u64), (usize, u64)>>>;

/// Begins to read and to receive.
pub(super) async fn begin(storm: &Arc<Storm>) -> Consumers {
    let (end, ended) = tokio::sync::watch::channel(());
    let mut heard = Vec::new();
    for (client, (name, key)) in CLIENTS.iter().enumerate() {
        let of = Heard { streams: (0..READERS).map(|_| Arc::default()).collect(), ..Heard::default() };
        for (n, told) in (0..).zip(&of.streams) {
            tokio::spawn(follow(storm.clone(), client, n, told.clone()));
        }
        let hook = Hook {
            heard: of.webhook.clone(),
            wrong: of.wrong.clone(),
            seed: storm.seed,
            secret: Arc::default(),
        };
        let secret = hook.secret.clone();
        let url = receive(hook, ended.clone());
        let wanted = json!({"url": url, "types": ["wavegate.*"], "delivery": "every", "description": name});
        let node = storm.places.lock().unwrap()[0].clone();
        let made = storm.call(Method::POST, node + "/v1/webhooks/endpoints", key, Some(&wanted), &[]).await;
        let (status, endpoint) = made.expect("an endpoint");
        assert_eq!(status, 201, "{endpoint}");
        endpoint["secret"].as_str().unwrap().clone_into(&mut secret.lock().unwrap());
        heard.push(of);
    }
    let seen = Seen::default();
    tokio::spawn(look(storm.clone(), seen.clone()));
    Consumers { heard, seen, _receivers: end }
}

/// Reads a feed from its beginning, as EventSource would: again and again, each time at some node, from
/// the last event that came whole.
async fn follow(storm: Arc<Storm>, client: usize, n: u64, told: Arc<Mutex<Vec<Told>>>) {
    let dice = storm.dice(700 + 10 * client as u64 + n);
    let mut last = "earliest".to_owned();
    loop {
        let url = storm.some_node(&dice) + "/v1/events";
        let request = storm.http.get(url).bearer_auth(CLIENTS[client].1);
        let request = request.header("accept", "text/event-stream").header("last-event-id", &last);
        let answer = tokio::time::timeout(SILENT_MAX, request.send()).await;
        if let Ok(Ok(answer)) = answer
            && answer.status() == 200
        {
            let mut stream = Stream::of(answer);
            while let Ok(Some(event)) = tokio::time::timeout(SILENT_MAX, stream.next()).await {
                if event.event == "gap" {
                    storm.violation(format!("INV-5: a gap where nothing was evicted: {}", event.data));
                }
                last.clone_from(&event.id);
                told.lock().unwrap().push(Told::of(&event.data));
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Reads the statuses of what was acknowledged, at some node each.
async fn look(storm: Arc<Storm>, seen: Seen) {
    let dice = storm.dice(800);
    // The newest version that was seen of each, and whether it was the last.
    let mut newest: BTreeMap<String, (u64, bool)> = BTreeMap::new();
    loop {
        tokio::time::sleep(Duration::from_millis(15)).await;
        let one = {
            let all = storm.acknowledged.lock().unwrap();
            let at = dice.below(all.len() as u64) as usize;
            all.values().nth(at).map(|one| (one.id.clone(), one.client))
        };
        let Some((id, client)) = one else { continue };
        let node = storm.some_node(&dice);
        let asked = Instant::now();
        let answer = storm.get(&node, &format!("/v1/status/{id}"), CLIENTS[client].1).await;
        let mut document = match answer {
            Some((200, document)) => document,
            Some((429 | 503, _)) | None => continue,
            Some((status, said)) => {
                storm.violation(format!("INV-1: {id} was acknowledged and is answered {status} {said}"));
                continue;
            }
        };
        let version = document["version"].as_u64().unwrap_or(0);
        let done = document["done"] == true;
        document["estimate"] = Value::Null;
        let (before, was_done) = newest.get(&id).copied().unwrap_or_default();
        if was_done && version != before {
            storm.violation(format!("INV-7: {id} was done at {before} and is at {version}"));
        }
        if version < before && asked.elapsed() < super::CALL_MAX {
            storm.violation(format!("{id} was at version {before} and is read at {version} at {node}"));
        }
        newest.insert(id.clone(), (version.max(before), done || was_done));
        let digest = digest_of(&document);
        if let Some((_, before)) = seen.lock().unwrap().insert((id.clone(), version), (client, digest))
            && before != digest
        {
            storm.violation(format!("INV-7: version {version} of {id} is not what it was: {document}"));
        }
    }
}

/// A receiver of webhooks.
#[derive(Clone)]
struct Hook {
    heard: Arc<Mutex<Vec<Told>>>,
    wrong: Arc<Mutex<Vec<String>>>,
    seed: u64,
    secret: Arc<Mutex<String>>,
}

/// Starts it on a thread of its own; its address.
fn receive(hook: Hook, mut ended: tokio::sync::watch::Receiver<()>) -> String {
    let (send, url) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        actix_rt::System::new().block_on(async move {
            let hook = web::Data::new((hook, Mutex::new(BTreeMap::<String, u64>::new())));
            let app = move || App::new().app_data(hook.clone()).default_service(web::to(hear));
            let server = HttpServer::new(app).workers(1).disable_signals().bind("127.0.0.1:0").unwrap();
            send.send(format!("http://{}/hooks", server.addrs()[0])).ok();
            tokio::select! {
                _ = server.run() => {}
                _ = ended.changed() => {}
            }
        });
    });
    url.recv_timeout(SETTLED_WITHIN).expect("a receiver")
}

type Attempts = Mutex<BTreeMap<String, u64>>;

async fn hear(hook: web::Data<(Hook, Attempts)>, request: HttpRequest, bytes: Bytes) -> HttpResponse {
    let (hook, attempts) = hook.get_ref();
    let text = |name: &str| request.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let id = text("webhook-id").to_owned();
    let attempt = {
        let mut attempts = attempts.lock().unwrap();
        let attempt = attempts.entry(id.clone()).or_default();
        *attempt += 1;
        *attempt
    };
    let mut hasher = DefaultHasher::new();
    (hook.seed, &id, attempt).hash(&mut hasher);
    if hasher.finish().is_multiple_of(REFUSES) {
        return HttpResponse::InternalServerError().finish();
    }
    let mut headers = reqwest::header::HeaderMap::new();
    for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        headers.insert(name, text(name).parse().unwrap());
    }
    let secret = hook.secret.lock().unwrap().clone();
    let event: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    if Webhook::new(&secret).is_ok_and(|secret| secret.verify(&bytes, &headers).is_err()) {
        hook.wrong.lock().unwrap().push(format!("INV-5: the signature of {id} is wrong"));
    }
    if event["id"] != id.as_str() {
        hook.wrong.lock().unwrap().push(format!("INV-5: {id} brings {event}"));
    }
    hook.heard.lock().unwrap().push(Told::of(&event));
    HttpResponse::NoContent().finish()
}

/// Everything that is wrong with what was told about a client's feed, given the feed itself.
pub(super) fn compare(client: &str, heard: &Heard, feed: &[Told]) -> Vec<String> {
    let mut wrong = heard.wrong.lock().unwrap().clone();
    for (n, stream) in heard.streams.iter().enumerate() {
        let stream = stream.lock().unwrap();
        for (place, (told, event)) in stream.iter().zip(feed).enumerate() {
            if told != event {
                wrong.push(format!("INV-5: reader {n} of {client}, event {place}: {told:?}, not {event:?}"));
                break;
            }
        }
        if stream.len() < feed.len() {
            wrong.push(format!("INV-5: reader {n} of {client} got {} of {}", stream.len(), feed.len()));
        }
    }
    let webhook = heard.webhook.lock().unwrap();
    let known: BTreeMap<&str, &Told> = feed.iter().map(|event| (event.id.as_str(), event)).collect();
    let mut first: BTreeSet<&str> = BTreeSet::new();
    let mut newest: BTreeMap<&str, u64> = BTreeMap::new();
    for told in webhook.iter() {
        // What has come since the feed was read is in nobody's books yet.
        let Some(event) = known.get(told.id.as_str()) else { continue };
        if *event != told {
            wrong.push(format!("INV-5: a webhook of {client}: {told:?}, not {event:?}"));
        }
        if first.insert(&told.id) {
            let before = newest.insert(&told.line, told.sequence);
            if before.is_some_and(|before| before > told.sequence) {
                wrong.push(format!("INV-5: a webhook of {client} was overtaken: {told:?}"));
            }
        }
    }
    let missing: Vec<&&str> = known.keys().filter(|id| !first.contains(**id)).collect();
    if !missing.is_empty() {
        let some: Vec<_> = missing.iter().take(5).collect();
        wrong
            .push(format!("INV-5: {} events never came to the webhook of {client}: {some:?}", missing.len()));
    }
    wrong
}
