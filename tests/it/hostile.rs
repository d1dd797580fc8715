//! Requests that no client of good will sends, against the real server over plain sockets: random,
//! damaged, truncated, oversized and slow. Nothing of it is answered 5xx, nothing hangs, memory
//! stays, and others are served meanwhile.
//!
//! The generator is seeded and says its seed; `HOSTILE_SEED=n` repeats a run, `HOSTILE_REQUESTS=n`
//! makes it longer.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngCore, SeedableRng};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::door::{order, post};
use crate::server::TestServer;

/// Requests under way at once.
const AT_ONCE: usize = 48;
/// What may not be a whole request is waited for so long: the server may be waiting for the rest of it.
const ANSWER_WITHIN: Duration = Duration::from_millis(400);
/// A whole request is answered, or its connection closed, within this; and after our end of a connection
/// is closed the other is too.
const HANG: Duration = Duration::from_secs(60);
/// What the process may hold more after many requests than after some.
const GROWTH_MAX: u64 = 48 << 20;

fn env(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn address(server: &TestServer) -> SocketAddr {
    server.url.strip_prefix("http://").unwrap().parse().unwrap()
}

/// Memory of its own, in bytes.
fn memory(server: &TestServer) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("RssAnon:"));
    line.and_then(|l| l.trim().trim_end_matches("kB").trim().parse::<u64>().ok()).unwrap_or(0) << 10
}

/// Valid requests of every kind, to be damaged.
fn valid() -> Vec<Vec<u8>> {
    let id = "019ac2f0-0000-8000-8000-000000000000";
    let one = order("h").to_string();
    let with = |method: &str, path: &str, headers: &str, body: &str| {
        let length = body.len();
        format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{headers}\
             Content-Length: {length}\r\n\r\n{body}"
        )
        .into_bytes()
    };
    let batch = format!("[{one},{one}]");
    let receipt =
        json!({"reference": "h", "warehouse": "ATL1", "type": "receipt", "sku": "A", "quantity": 1});
    let release = format!("{id}.1.1");
    let report = json!([{"confirmation_id": "c", "type": "picking", "release_id": release, "at": "2026-01-01T00:00:00Z"}]);
    let traced = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\
                  tracestate: a=1,b=2\r\nX-Correlation-ID: h-1\r\n";
    let chunked = format!(
        "POST /v1/orders HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{one}\r\n0\r\n\r\n",
        one.len()
    );
    vec![
        with("POST", "/v1/orders", "Idempotency-Key: \"8e03978e\"\r\n", &one),
        with("POST", "/v1/orders", traced, &one),
        with("POST", "/v1/orders", "Prefer: wait=0, respond-async\r\n", &one),
        with("POST", "/v1/orders/batch", "", &batch),
        with("POST", "/v1/inventory/moves", "", &receipt.to_string()),
        with("POST", &format!("/v1/orders/{id}/cancel"), "", "{}"),
        with("POST", "/v1/status/query", "", &json!({"ids": [id]}).to_string()),
        with("POST", "/v1/warehouses/ATL1/confirmations", "", &report.to_string()),
        with(
            "GET",
            &format!("/v1/status/{id}?version=1&include=ship_to"),
            "If-None-Match: \"1\", W/\"2\"\r\n",
            "",
        ),
        with(
            "GET",
            "/v1/orders?reference=%F0%9F%93%A6&limit=5&state=shipped&updated_since=2026-01-01T00:00:00Z",
            "",
            "",
        ),
        with("GET", "/v1/warehouses/ATL1/inventory?sku=A&limit=3", "", ""),
        with(
            "GET",
            "/v1/events?types=wavegate.order.*&after=earliest&limit=5",
            "Accept: application/json\r\n",
            "",
        ),
        with("POST", "/v1/events/tickets", "", &json!({"types": ["wavegate.order.*"]}).to_string()),
        with("PATCH", &format!("/v1/webhooks/endpoints/{id}"), "", &json!({"types": ["*"]}).to_string()),
        with("POST", "/v1/ops/dead-letters/ATL1.1/redrive", "", ""),
        chunked.into_bytes(),
    ]
}

/// Text that parsers stumble over.
const DAMAGE: [&str; 22] = [
    "\r\n",
    "\0",
    "\u{feff}",
    "\"",
    "\\ud800",
    "{",
    "]",
    "1e999",
    "-1",
    "18446744073709551616",
    "9007199254740993",
    "null",
    "..%2f",
    "%00",
    "%ff",
    "HTTP/9.9",
    "Content-Length: 18446744073709551615\r\n",
    "Content-Length: -1\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: gzip, chunked\r\n",
    "Expect: 100-continue\r\n",
    "Upgrade: h2c\r\nConnection: Upgrade\r\n",
];

fn hostile(rng: &mut StdRng, valid: &[Vec<u8>]) -> Vec<u8> {
    if rng.random_ratio(1, 20) {
        let mut noise = vec![0; rng.random_range(1..2_000)];
        rng.fill_bytes(&mut noise);
        return noise;
    }
    let mut bytes = valid.choose(rng).unwrap().clone();
    for _ in 0..rng.random_range(1..=4) {
        damage(rng, &mut bytes, valid);
    }
    // What is damaged in the body is to be read as a body, more often than not.
    if rng.random_bool(0.6) { with_length(bytes) } else { bytes }
}

fn damage(rng: &mut StdRng, bytes: &mut Vec<u8>, valid: &[Vec<u8>]) {
    // A damaged head seldom comes past the framework, so the body gets more than its share.
    let body = bytes.windows(4).position(|w| w == b"\r\n\r\n").map_or(0, |end| end + 4);
    let from = if rng.random_bool(0.6) { body } else { 0 };
    let at = rng.random_range(from..=bytes.len());
    let until = (at + rng.random_range(0..40)).min(bytes.len());
    match rng.random_range(0..8) {
        0 if at < bytes.len() => bytes[at] ^= 1 << rng.random_range(0..8),
        1 => drop(bytes.drain(at..until)),
        2 => {
            let twice = bytes[at..until].to_vec();
            bytes.splice(at..at, twice);
        }
        3 => bytes.truncate(at),
        4 => {
            let run = vec![rng.random_range(b' '..=b'~'); rng.random_range(1..70_000)];
            bytes.splice(at..at, run);
        }
        5 => {
            let other = valid.choose(rng).unwrap();
            let from = rng.random_range(0..other.len());
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from..]);
        }
        _ => {
            let text = DAMAGE.choose(rng).unwrap();
            bytes.splice(at..at, text.bytes());
        }
    }
}

/// The same request with the length that its body has.
fn with_length(bytes: Vec<u8>) -> Vec<u8> {
    let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else { return bytes };
    let Some(at) = bytes[..end].windows(16).position(|w| w == b"Content-Length: ") else { return bytes };
    let digits = bytes[at + 16..end].iter().take_while(|b| b.is_ascii_digit()).count();
    let length = (bytes.len() - end - 4).to_string();
    let mut fixed = bytes;
    fixed.splice(at + 16..at + 16 + digits, length.bytes());
    fixed
}

/// Sends bytes and reads all that comes until both ends are closed.
async fn exchange(to: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(to).await.expect("a connection");
    let mut answer = Vec::new();
    // The server may close before it has read all: that is its right.
    let _written = stream.write_all(bytes).await;
    let patience = if is_whole(bytes) { HANG } else { ANSWER_WITHIN };
    let some = tokio::time::timeout(patience, first(&mut stream, &mut answer)).await;
    assert!(some.is_ok() || !is_whole(bytes), "it hangs: {:?}", String::from_utf8_lossy(bytes));
    let _closed = stream.shutdown().await;
    let rest = tokio::time::timeout(HANG, stream.read_to_end(&mut answer)).await;
    assert!(rest.is_ok(), "no end within {HANG:?} for {:?}", String::from_utf8_lossy(bytes));
    answer
}

/// True when a request says how long its body is, and it is that long.
fn is_whole(bytes: &[u8]) -> bool {
    let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let mut lengths = head.lines().filter_map(|line| line.strip_prefix("content-length:"));
    let length = lengths.next().and_then(|n| n.trim().parse::<usize>().ok());
    length == Some(bytes.len() - end - 4) && lengths.next().is_none() && !head.contains("transfer-encoding")
}

async fn first(stream: &mut TcpStream, answer: &mut Vec<u8>) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(n @ 1..) = stream.read(&mut buffer).await {
        answer.extend_from_slice(&buffer[..n]);
        if answer.windows(4).any(|w| w == b"\r\n\r\n") {
            return;
        }
    }
}

/// The statuses of the answers in a stream of them.
fn statuses(answer: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(answer);
    let heads = text.split("HTTP/1.").skip(1).filter_map(|head| head.get(2..5)?.parse().ok());
    heads.collect()
}

/// Sends `count` hostile requests; how often each status came.
async fn assault(to: SocketAddr, rng: &mut StdRng, count: u64) -> BTreeMap<u16, u64> {
    let valid = valid();
    let requests: Vec<Vec<u8>> = (0..count).map(|_| hostile(rng, &valid)).collect();
    let sent = futures_util::stream::iter(requests).map(|request| async move {
        let answer = exchange(to, &request).await;
        (request, answer)
    });
    let mut sent = sent.buffer_unordered(AT_ONCE);
    let mut seen = BTreeMap::new();
    while let Some((request, answer)) = sent.next().await {
        for status in statuses(&answer) {
            *seen.entry(status).or_default() += 1;
            assert!(
                (100..500).contains(&status),
                "{status} for {:?}\n{:?}",
                String::from_utf8_lossy(&request),
                String::from_utf8_lossy(&answer)
            );
        }
    }
    seen
}

#[actix_rt::test]
async fn damaged_requests_are_refused_and_cost_nothing_that_stays() {
    let seed = env("HOSTILE_SEED").unwrap_or_else(|| rand::rng().random_range(0..1 << 32));
    let count = env("HOSTILE_REQUESTS").unwrap_or(1_500);
    eprintln!("HOSTILE_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let server = TestServer::start();
    let to = address(&server);
    // What is kept from the first ones is kept for all: buffers, threads' arenas.
    assault(to, &mut rng, count).await;
    let before = memory(&server);
    let seen = assault(to, &mut rng, count).await;
    let after = memory(&server);
    eprintln!("{seen:?}, {before} bytes before and {after} after");
    assert!(seen.keys().any(|s| (400..500).contains(s)), "damage is refused: {seen:?}");
    assert!(seen.keys().any(|s| (200..300).contains(s)), "not all of it is deadly: {seen:?}");
    assert!(after < before + GROWTH_MAX, "{before} bytes before, {after} after; HOSTILE_SEED={seed}");
    let log = server.log();
    assert!(!log.contains("panicked"), "HOSTILE_SEED={seed}\n{log}");
    let lines = log.lines().count();
    assert!(lines < 50, "strangers fill the log: {lines} lines, {}", log.lines().last().unwrap_or_default());
    assert_eq!(post(&server, "/v1/orders", &order("after")).await.status, 202, "HOSTILE_SEED={seed}");
}

#[actix_rt::test]
async fn a_header_that_the_framework_panics_at_ends_its_own_connection_and_no_more() {
    let server = TestServer::start();
    let to = address(&server);
    let request = format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\n{}: 1\r\n\r\n", "x".repeat(70_000));
    for _ in 0..100 {
        assert!(statuses(&exchange(to, request.as_bytes()).await).iter().all(|s| *s < 500));
    }
    assert_eq!(post(&server, "/v1/orders", &order("after")).await.status, 202);
    let log = server.log();
    assert!(!log.contains("ERROR") && !log.contains("panicked"), "{log}");
}

#[actix_rt::test]
async fn idle_and_slow_connections_do_not_keep_others_out() {
    const IDLE: usize = 5_000;
    const SLOW: usize = 500;
    let server = TestServer::start();
    let to = address(&server);
    let mut idle = Vec::with_capacity(IDLE);
    for _ in 0..IDLE {
        match TcpStream::connect(to).await {
            Ok(stream) => idle.push(stream),
            Err(e) => {
                eprintln!("skipped: this process may not open {IDLE} connections: {e}");
                return;
            }
        }
    }
    let body = order("slow").to_string();
    let head = format!(
        "POST /v1/orders HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    // Half of them are slow in the head, half in the body.
    let trickle = Arc::new(format!("{head}{body}").into_bytes());
    let mut slow = Vec::with_capacity(SLOW);
    for n in 0..SLOW {
        let mut stream = TcpStream::connect(to).await.expect("a connection");
        let begun = if n % 2 == 0 { 1 } else { head.len() + 1 };
        stream.write_all(&trickle[..begun]).await.expect("the beginning is taken");
        let trickle = trickle.clone();
        slow.push(actix_rt::spawn(async move {
            for byte in &trickle[begun..] {
                tokio::time::sleep(Duration::from_millis(500)).await;
                if stream.write_all(&[*byte]).await.is_err() {
                    return;
                }
            }
        }));
    }
    let mut longest = Duration::ZERO;
    for n in 0..100 {
        let begun = Instant::now();
        assert_eq!(post(&server, "/v1/orders", &order(&format!("in-between-{n}"))).await.status, 202);
        longest = longest.max(begun.elapsed());
    }
    for task in slow {
        task.abort();
    }
    // A tenth of the slowest that anybody waits for; a busy machine takes its share of it.
    assert!(longest < Duration::from_secs(3), "one took {longest:?}");
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

#[actix_rt::test]
async fn a_head_or_a_body_that_trickles_is_cut_off_and_a_body_is_told_why() {
    let server = TestServer::start();
    let to = address(&server);
    let cut = async |whole: String, begun: usize| {
        let stream = TcpStream::connect(to).await.expect("a connection");
        let (mut read, mut write) = stream.into_split();
        let whole = whole.into_bytes();
        write.write_all(&whole[..begun]).await.expect("the beginning is taken");
        let trickling = actix_rt::spawn(async move {
            for byte in &whole[begun..] {
                tokio::time::sleep(Duration::from_millis(500)).await;
                if write.write_all(&[*byte]).await.is_err() {
                    return;
                }
            }
        });
        let (sent, mut answer) = (Instant::now(), Vec::new());
        // A connection that is reset is cut off, too.
        let _end = tokio::time::timeout(HANG, read.read_to_end(&mut answer)).await.expect("it is cut off");
        let took = sent.elapsed();
        trickling.abort();
        (took, statuses(&answer), String::from_utf8_lossy(&answer).into_owned())
    };
    let body = order("trickle").to_string();
    let head = format!(
        "POST /v1/orders HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let in_head = format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(200));
    let (head_cut, body_cut) = tokio::join!(cut(in_head, 20), cut(format!("{head}{body}"), head.len() + 1));
    let (took, seen, _) = head_cut;
    assert!((10..30).contains(&took.as_secs()) && seen.iter().all(|s| *s == 408), "{seen:?} after {took:?}");
    let (took, seen, answer) = body_cut;
    assert!((25..50).contains(&took.as_secs()), "{took:?}");
    assert!(seen == [408] && answer.contains("request_timeout"), "{answer}");
}
