//! The real process is killed at random moments under load: every 202 is found and ends, stock
//! adds up, and the store is clean.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::server::{TestServer, client};
use crate::shop::{PATIENCE, fast_warehouses, get, id_of, order, post, receipt, status_when};

/// Kills in one run.
const KILLS: u32 = 12;
/// Clients that post all the time.
const CLIENTS: u64 = 6;
const WAREHOUSES: [&str; 3] = ["ATL1", "DFW2", "RNO3"];
/// More than the clients can order.
const STOCK: u32 = 200_000;

#[derive(Default)]
struct Acknowledged {
    /// Transaction by kind and reference; a reference has one, for ever.
    ids: Mutex<BTreeMap<String, String>>,
    next: AtomicU64,
    done: AtomicBool,
    url: Mutex<String>,
}

impl Acknowledged {
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
    let books = Arc::new(Acknowledged::default());
    *books.url.lock().unwrap() = server.url.clone();
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
    assert!(server.term().success());
    let check = server.check_command().output().unwrap();
    assert!(
        check.status.success(),
        "{}{}",
        String::from_utf8_lossy(&check.stdout),
        String::from_utf8_lossy(&check.stderr)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_in_the_middle_of_a_burst_ends_in_order_and_loses_nothing() {
    let warehouses = fast_warehouses(&[]);
    let mut server = TestServer::start_with(&[&warehouses, "manifests.close_every=100ms"]);
    let http = client();
    let body = receipt("open", "ATL1", "SKU-K", STOCK);
    assert_eq!(post(&http, server.at("/v1/inventory/moves"), &body).await.0, 202);
    let books = Arc::new(Acknowledged::default());
    *books.url.lock().unwrap() = server.url.clone();
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
