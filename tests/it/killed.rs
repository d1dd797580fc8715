//! The real process is killed at random moments under load: every 202 is found and ends, every event
//! reaches its readers, stock adds up, and the store is clean.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use actix_web::web::Bytes;
use serde_json::{Value, json};

use crate::server::{TestServer, client};
use crate::shop::{PATIENCE, fast_warehouses, get, id_of, order, post, receipt, status_when};
use crate::sse::{self, Event, Stream};
use crate::webhooks::{self, Heard, Receiver};

/// Kills in one run.
const KILLS: u32 = 12;
/// Clients that post all the time.
const CLIENTS: u64 = 6;
const WAREHOUSES: [&str; 3] = ["ATL1", "DFW2", "RNO3"];
/// More than the clients can order.
const STOCK: u32 = 200_000;

struct Acknowledged {
    /// Transaction by kind and reference; a reference has one, for ever.
    ids: Mutex<BTreeMap<String, String>>,
    next: AtomicU64,
    /// Orders that may be posted.
    most: AtomicU64,
    done: AtomicBool,
    url: Mutex<String>,
}

impl Acknowledged {
    /// Nothing yet, at this server; `most` orders may be posted.
    fn at(server: &TestServer, most: u64) -> Arc<Acknowledged> {
        Arc::new(Acknowledged {
            ids: Mutex::default(),
            next: AtomicU64::new(0),
            most: AtomicU64::new(most),
            done: AtomicBool::new(false),
            url: Mutex::new(server.url.clone()),
        })
    }

    fn note(&self, name: String, id: String) {
        let before = self.ids.lock().unwrap().insert(name.clone(), id.clone());
        assert!(before.is_none_or(|before| before == id), "{name} got a second id");
    }
}

/// Posts orders, and now and then cancels one, until told to stop. What is not answered is posted
/// again word for word: a client's only way to find out.
async fn keep_posting(books: Arc<Acknowledged>) {
    let client = client();
    while !books.done.load(SeqCst) {
        if books.next.load(SeqCst) >= books.most.load(SeqCst) {
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        }
        let n = books.next.fetch_add(1, SeqCst);
        let body = order(&format!("k{n}"), WAREHOUSES[(n % 3) as usize], "SKU-K", 1 + (n % 3) as u32);
        let Some(id) = until_answered(&client, &books, "/v1/orders", &body).await else { return };
        books.note(format!("order k{n}"), id.clone());
        if n.is_multiple_of(7) {
            let path = format!("/v1/orders/{id}/cancel");
            let Some(id) = until_answered(&client, &books, &path, &serde_json::json!({})).await else {
                return;
            };
            books.note(format!("cancellation of k{n}"), id);
        }
    }
}

async fn until_answered(
    client: &reqwest::Client,
    books: &Acknowledged,
    path: &str,
    body: &serde_json::Value,
) -> Option<String> {
    let until = Instant::now() + PATIENCE;
    loop {
        let url = format!("{}{path}", books.url.lock().unwrap());
        match client.post(url).json(body).send().await {
            Ok(response) if response.status() == 202 => {
                // The answer may be cut off by the kill: then it was no answer.
                if let Ok(accepted) = response.json().await {
                    return Some(id_of(&accepted));
                }
            }
            Ok(response) => assert!(matches!(response.status().as_u16(), 429 | 503), "{}", response.status()),
            Err(_) => {}
        }
        if books.done.load(SeqCst) {
            return None;
        }
        assert!(Instant::now() < until, "no answer within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_killed_at_random_moments_loses_nothing_it_acknowledged() {
    let warehouses = fast_warehouses(&[]);
    let mut server = TestServer::start_with(&[&warehouses, "manifests.close_every=100ms"]);
    let http = client();
    for code in WAREHOUSES {
        let body = receipt(&format!("open-{code}"), code, "SKU-K", STOCK);
        assert_eq!(post(&http, server.at("/v1/inventory/moves"), &body).await.0, 202);
    }
    let books = Acknowledged::at(&server, u64::MAX);
    let clients: Vec<_> = (0..CLIENTS).map(|_| tokio::spawn(keep_posting(books.clone()))).collect();
    for kill in 0..KILLS {
        // A random moment; the seed of the moments is the machine's own noise and this spread.
        let acknowledged = books.ids.lock().unwrap().len();
        let moment = Duration::from_millis(30 + u64::from(kill * 97 % 400));
        tokio::time::sleep(moment).await;
        server.kill();
        server.restart();
        *books.url.lock().unwrap() = server.url.clone();
        let until = Instant::now() + PATIENCE;
        while books.ids.lock().unwrap().len() <= acknowledged {
            assert!(Instant::now() < until, "nothing is accepted after kill {kill}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    books.done.store(true, SeqCst);
    for client in clients {
        client.await.expect("a client's own checks");
    }
    let ids = books.ids.lock().unwrap().clone();
    assert!(ids.len() > KILLS as usize * 10, "only {} acknowledged: too few to prove anything", ids.len());
    let mut shipped = BTreeMap::new();
    for (name, id) in &ids {
        let document = status_when(&http, &server.url, id, |d| d["done"] == true).await;
        assert!(document["state"] != "failed", "{name}: {document}");
        if document["state"] == "shipped" {
            let units: u64 =
                document["lines"].as_array().unwrap().iter().map(|l| l["shipped"].as_u64().unwrap()).sum();
            *shipped.entry(document["warehouse"].as_str().unwrap().to_owned()).or_insert(0) += units;
        }
    }
    for code in WAREHOUSES {
        let (_, stock) = get(&http, server.at(&format!("/v1/warehouses/{code}/inventory/SKU-K"))).await;
        // What was accepted and never answered may have shipped as well: then it is in no book of ours.
        let on_hand = stock["on_hand"].as_u64().unwrap();
        assert!(on_hand + shipped[code] <= u64::from(STOCK), "{code}: {stock}");
        assert!(shipped[code] > 0, "{code} shipped nothing");
    }
    ends_clean(&mut server);
}

/// The server ends in order, and nothing is wrong in the store that it leaves.
fn ends_clean(server: &mut TestServer) {
    assert!(server.term().success());
    let check = server.check_command().output().unwrap();
    assert!(
        check.status.success(),
        "{}{}",
        String::from_utf8_lossy(&check.stdout),
        String::from_utf8_lossy(&check.stderr)
    );
}

/// A feed's reader that comes again whenever its server is gone, with the cursor of the last event that
/// came whole, as EventSource does.
async fn keep_following(books: Arc<Acknowledged>, seen: Arc<Mutex<Vec<Event>>>) {
    let mut last = "earliest".to_owned();
    loop {
        let url = books.url.lock().unwrap().clone();
        if let Ok(response) = sse::reach(&url, "/v1/events", &last).await {
            let mut stream = Stream::of(response);
            while let Some(event) = stream.next().await {
                last.clone_from(&event.id);
                seen.lock().unwrap().push(event);
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A consumer that refuses every fifth delivery the first time that it comes, and keeps what it takes.
fn fussy(taken: Arc<Mutex<Vec<Heard>>>) -> Receiver {
    let refused: Mutex<BTreeSet<String>> = Mutex::default();
    Receiver::start(move |heard, n| {
        if n % 5 == 0 && refused.lock().unwrap().insert(heard.id().to_owned()) {
            return webhooks::status(503);
        }
        taken.lock().unwrap().push(heard.clone());
        webhooks::ok()
    })
}

/// The whole of the feed by the event list.
async fn list(http: &reqwest::Client, url: &str) -> Vec<Value> {
    let (mut events, mut after) = (Vec::new(), String::new());
    loop {
        let (status, page) = get(http, format!("{url}/v1/events?limit=1000&after={after}")).await;
        assert!(status == 200 && page.get("gap").is_none(), "{status} {page}");
        let Some(found) = page["events"].as_array().filter(|found| !found.is_empty()) else { return events };
        events.extend(found.iter().cloned());
        page["next"].as_str().unwrap().clone_into(&mut after);
    }
}

fn text<'e>(event: &'e Value, member: &str) -> &'e str {
    event[member].as_str().unwrap_or_else(|| panic!("no text {member} in {event}"))
}

/// True when every transaction that the events tell of has ended.
fn all_done(events: &[Value]) -> bool {
    let is_transaction = |event: &&Value| text(event, "type") != "wavegate.inventory.changed";
    let newest: BTreeMap<&str, &Value> =
        events.iter().filter(is_transaction).map(|event| (text(event, "subject"), event)).collect();
    newest.values().all(|event| event["data"]["done"] == true)
}

/// Every event has its place, its id, and within its transaction its turn.
fn check_list(listed: &[Value]) {
    let mut versions: BTreeMap<&str, u64> = BTreeMap::new();
    for (event, n) in listed.iter().zip(1_u64..) {
        assert_eq!(text(event, "feedsequence"), format!("{n:020}"), "a hole or a repeat");
        if text(event, "type") != "wavegate.inventory.changed" {
            let last = versions.entry(text(event, "subject")).or_default();
            *last += 1;
            assert_eq!(text(event, "id"), format!("{}.{last}", text(event, "subject")));
        }
    }
}

/// What came twice is the same, and what came first came in its order: per transaction, and per SKU of a
/// warehouse.
fn check_taken(taken: &[Heard], secret: &str) {
    let mut bodies: BTreeMap<&str, &Bytes> = BTreeMap::new();
    let mut newest: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    for heard in taken {
        assert!(heard.verify(secret), "{:?}", heard.headers);
        assert_eq!(heard.id(), text(&heard.event, "id"));
        if let Some(first) = bodies.insert(heard.id(), &heard.bytes) {
            assert_eq!(first, &heard.bytes, "a repeat is the same event");
            continue;
        }
        let line = (text(&heard.event, "source"), text(&heard.event, "subject"));
        let sequence = text(&heard.event, "feedsequence");
        let before = newest.insert(line, sequence);
        assert!(before.is_none_or(|before| before < sequence), "{} was overtaken", heard.id());
    }
}

#[actix_rt::test]
async fn over_many_kills_a_webhook_and_a_resumed_stream_each_get_every_event_of_the_list() {
    const ROUNDS: u64 = 6;
    const ORDERS: u64 = 40;
    let mut server = webhooks::server(&[]);
    let http = client();
    let (seen, taken) = (Arc::<Mutex<Vec<Event>>>::default(), Arc::<Mutex<Vec<Heard>>>::default());
    let receiver = fussy(taken.clone());
    let wanted = json!({"types": ["wavegate.*"], "delivery": "every"});
    let (_, secret) = webhooks::endpoint(&server, wanted, &receiver.url).await;
    for code in WAREHOUSES {
        let body = receipt(&format!("open-{code}"), code, "SKU-K", STOCK);
        assert_eq!(post(&http, server.at("/v1/inventory/moves"), &body).await.0, 202);
    }
    let books = Acknowledged::at(&server, 0);
    let clients: Vec<_> = (0..CLIENTS).map(|_| tokio::spawn(keep_posting(books.clone()))).collect();
    let follower = tokio::spawn(keep_following(books.clone(), seen.clone()));
    let come = || (books.ids.lock().unwrap().len(), seen.lock().unwrap().len(), taken.lock().unwrap().len());
    for round in 1..=ROUNDS {
        let before = come();
        books.most.store(round * ORDERS, SeqCst);
        // In the middle of it: of each some are through, and some are not.
        let until = Instant::now() + PATIENCE;
        loop {
            let now = come();
            if now.0 > before.0 + 10 && now.1 > before.1 + 40 && now.2 > before.2 + 20 {
                break;
            }
            assert!(Instant::now() < until, "round {round}: {before:?}, then {now:?}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        server.kill();
        server.restart();
        books.url.lock().unwrap().clone_from(&server.url);
    }
    let until = Instant::now() + PATIENCE * 2;
    let listed = loop {
        let listed = list(&http, &server.url).await;
        let told: BTreeSet<String> = taken.lock().unwrap().iter().map(|h| h.id().to_owned()).collect();
        let now = (books.ids.lock().unwrap().len(), seen.lock().unwrap().len(), told.len());
        let all_posted = now.0 as u64 >= ROUNDS * ORDERS && all_done(&listed);
        if all_posted && now.1 >= listed.len() && now.2 >= listed.len() {
            break listed;
        }
        assert!(Instant::now() < until, "{} in the list; acknowledged, seen, told: {now:?}", listed.len());
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    books.done.store(true, SeqCst);
    for client in clients {
        client.await.expect("a client's own checks");
    }
    follower.abort();
    check_list(&listed);
    // A stock event may have come since, to all three.
    let seen: Vec<Value> = seen.lock().unwrap().iter().map(|event| event.data.clone()).collect();
    assert_eq!(seen[..listed.len()], listed, "the stream: every event once, in the order of the feed");
    let taken = taken.lock().unwrap().clone();
    check_taken(&taken, &secret);
    let told: BTreeMap<&str, &Value> = taken.iter().map(|heard| (heard.id(), &heard.event)).collect();
    for event in &listed {
        assert_eq!(told.get(text(event, "id")), Some(&event), "the webhook: every event");
    }
    let accepted: BTreeSet<&str> = listed.iter().map(|event| text(event, "subject")).collect();
    assert!(books.ids.lock().unwrap().values().all(|id| accepted.contains(id.as_str())));
    ends_clean(&mut server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_in_the_middle_of_a_burst_ends_in_order_and_loses_nothing() {
    let warehouses = fast_warehouses(&[]);
    let mut server = TestServer::start_with(&[&warehouses, "manifests.close_every=100ms"]);
    let http = client();
    let body = receipt("open", "ATL1", "SKU-K", STOCK);
    assert_eq!(post(&http, server.at("/v1/inventory/moves"), &body).await.0, 202);
    let books = Acknowledged::at(&server, u64::MAX);
    let posts: Vec<_> = (0..200u32)
        .map(|n| {
            let (http, url, books) = (http.clone(), server.at("/v1/orders"), books.clone());
            tokio::spawn(async move {
                let body = order(&format!("t{n}"), "ATL1", "SKU-K", 1);
                if let Ok(response) = http.post(url).json(&body).send().await
                    && response.status() == 202
                    && let Ok(accepted) = response.json().await
                {
                    books.note(format!("t{n}"), id_of(&accepted));
                }
            })
        })
        .collect();
    let until = Instant::now() + PATIENCE;
    while books.ids.lock().unwrap().len() < 20 {
        assert!(Instant::now() < until, "no burst");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(server.term().success(), "SIGTERM ends with 0");
    for post in posts {
        post.await.unwrap();
    }
    server.restart();
    let ids = books.ids.lock().unwrap().clone();
    for id in ids.values() {
        let document = status_when(&http, &server.url, id, |d| d["done"] == true).await;
        assert_eq!(document["state"], "shipped", "{document}");
    }
}
