//! Streams and lists of events through the front door: everything once and in order, from every
//! place on, whatever the cursor says and whoever dies meanwhile.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use wavegate_engine::ports::faults::{ArmedFaults, FaultPoint};

use crate::door::{ACME, GLOBEX, OPERATOR, WMS, get, keys, order, post, receive, request, send};
use crate::node::Node;
use crate::server::{TestServer, wavegate};
use crate::shop::{PATIENCE, fast_warehouses};
use crate::sse::{Ask, Event, Stream, ask, follow, open};

/// The types of a small order that ships.
const WAY: [&str; 7] = ["accepted", "allocated", "released", "picking", "packed", "manifested", "shipped"];

fn fast() -> String {
    fast_warehouses(&[])
}

fn start() -> TestServer {
    TestServer::start_with(&[&fast(), "manifests.close_every=100ms"])
}

/// Orders one unit and answers the transaction's id.
async fn place(server: &TestServer, reference: &str) -> String {
    let answer = post(server, "/v1/orders", &order(reference)).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    answer.id().to_owned()
}

fn types(events: &[Event]) -> Vec<&str> {
    events.iter().map(|e| e.event.strip_prefix("wavegate.order.").unwrap_or(&e.event)).collect()
}

/// The order went its way from the first step to the last. Reports that come together make one step
/// of two.
#[track_caller]
fn went_its_way(events: &[Event]) {
    let found = types(events);
    let mut left = WAY.iter();
    assert!(found.iter().all(|step| left.any(|known| known == step)), "{found:?}");
    assert_eq!((found[0], found[found.len() - 1]), ("accepted", "shipped"), "{found:?}");
}

fn is_shipped(event: &Event) -> bool {
    event.event == "wavegate.order.shipped"
}

fn check_numbers(events: &[Event]) {
    for (one, next) in events.iter().zip(&events[1..]) {
        assert_eq!(one.sequence() + 1, next.sequence(), "a hole or a repeat");
    }
}

#[actix_rt::test]
async fn every_event_of_an_order_comes_once_in_order_and_numbered_without_holes() {
    let server = start();
    receive(&server, "A", 10).await;
    let mut live = open(&server, "/v1/events", None).await;
    live.comment().await;
    let sent = request(&server, Method::POST, "/v1/orders")
        .header("x-correlation-id", "corr-7")
        .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    let answer = send(sent.json(&order("E-1"))).await;
    let id = answer.id().to_owned();
    assert_eq!(answer.text_link("events"), format!("/v1/status/{id}/events"));
    let events = live.until(is_shipped).await;
    assert_eq!(live.retry.as_deref(), Some("3000"));
    went_its_way(&events);
    check_numbers(&events);
    for (version, event) in (1..).zip(&events) {
        let data = &event.data;
        assert_eq!(event.event_id(), format!("{id}.{version}"));
        assert_eq!((&data["specversion"], &data["type"]), (&json!("1.0"), &json!(event.event)));
        assert_eq!((&data["source"], &data["subject"]), (&json!("/warehouses/ATL1"), &json!(id)));
        assert_eq!(data["correlationid"], "corr-7");
        assert_eq!(data["traceparent"], "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        // The document is the one that a read of that version gives, without notes and people.
        let mut document = get(&server, &format!("/v1/status/{id}?version={version}")).await.body;
        document.as_object_mut().unwrap().remove("metadata");
        assert_eq!(data["data"], document);
        assert_eq!(data["time"], document["updated_at"]);
        assert_eq!(data["data"]["estimate"], Value::Null);
    }
    // The list is the same events, and goes on from its `next`.
    let list = get(&server, "/v1/events?types=wavegate.order.*").await;
    let listed: Vec<&Value> = list.body["events"].as_array().unwrap().iter().collect();
    assert_eq!(listed, events.iter().map(|e| &e.data).collect::<Vec<_>>());
    assert_eq!(list.body.get("gap"), None);
    let rest = get(&server, &format!("/v1/events?after={}", list.text("next"))).await;
    assert_eq!((&rest.body["events"], rest.text("next")), (&json!([]), list.text("next")));
}

#[actix_rt::test]
async fn a_published_reader_of_cloud_events_takes_ours() {
    use cloudevents::AttributesReader;
    let server = TestServer::start();
    let id = place(&server, "C-1").await;
    let list = get(&server, &format!("/v1/status/{id}/events")).await;
    let event: cloudevents::Event =
        serde_json::from_value(list.body["events"][0].clone()).expect("a CloudEvent");
    assert_eq!((event.id(), event.ty()), (&*format!("{id}.1"), "wavegate.order.accepted"));
    assert_eq!((event.source().as_str(), event.subject()), ("/warehouses/ATL1", Some(&*id)));
    assert!(event.time().is_some());
    let sequence = event.extension("feedsequence").map(ToString::to_string);
    assert_eq!(sequence.as_deref(), Some("00000000000000000001"));
    assert!(event.extension("correlationid").is_some() && event.extension("traceparent").is_some());
}

#[actix_rt::test]
async fn a_stream_that_is_cut_at_any_event_goes_on_behind_it() {
    let server = start();
    receive(&server, "A", 10).await;
    let id = place(&server, "R-1").await;
    for path in ["/v1/events?types=wavegate.order.*".to_owned(), format!("/v1/status/{id}/events")] {
        let whole = open(&server, &path, Some("earliest")).await.until(is_shipped).await;
        went_its_way(&whole);
        for seen in 1..whole.len() {
            let rest = open(&server, &path, Some(&whole[seen - 1].id)).await.until(is_shipped).await;
            assert_eq!(rest, whole[seen..], "after {seen} at {path}");
            let query = if path.contains('?') { "&" } else { "?" };
            let by_query = format!("{path}{query}last_event_id={}", whole[seen - 1].id);
            assert_eq!(open(&server, &by_query, None).await.until(is_shipped).await, whole[seen..]);
        }
        // Cut in the middle of an event: what was not whole has not been seen.
        let address = server.url.strip_prefix("http://").unwrap();
        let mut socket = TcpStream::connect(address).unwrap();
        write!(socket, "GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\nLast-Event-ID: {}\r\n\r\n", whole[2].id).unwrap();
        let (mut text, mut byte) = (String::new(), [0]);
        while !text.ends_with("\"specversion") {
            assert_eq!(socket.read(&mut byte).unwrap(), 1, "{text}");
            text.push(char::from(byte[0]));
        }
        drop(socket);
        assert!(text.contains(&format!("id: {}\n", whole[3].id)), "{text}");
        assert_eq!(open(&server, &path, Some(&whole[2].id)).await.until(is_shipped).await, whole[3..]);
    }
}

#[actix_rt::test]
async fn a_transaction_s_stream_ends_with_its_last_word_and_does_not_begin_again() {
    let server = start();
    receive(&server, "A", 10).await;
    let id = place(&server, "T-1").await;
    let path = format!("/v1/status/{id}/events");
    let mut live = open(&server, &path, None).await;
    let events = live.until(|e| e.event == "end").await;
    let (end, order) = events.split_last().unwrap();
    went_its_way(order);
    assert_eq!(end.data, json!({"transaction_id": id, "state": "shipped"}));
    assert_eq!(live.next().await, None, "the stream ends");
    let again = ask(&server, &path, Ask { last: Some(&end.id), ..Ask::default() }).await.unwrap();
    assert_eq!(again.status(), 204);
    // Who has seen the last event and not the end is told the end.
    let mut last_word = open(&server, &path, Some(&order[order.len() - 1].id)).await;
    assert_eq!(last_word.event().await, *end);
    assert_eq!(last_word.next().await, None);
    // A manifest that the house began belongs to no client: it has a stream, and no place in a feed.
    let manifest =
        order[order.len() - 1].data["data"]["fulfillments"][0]["cartons"][0]["manifest_id"].as_str().unwrap();
    let path = format!("/v1/status/{manifest}/events");
    let of_house = open(&server, &path, None).await.until(|e| e.event == "end").await;
    let way = ["accepted", "closed", "departed"].map(|state| format!("wavegate.manifest.{state}"));
    assert_eq!(types(&of_house[..3]), way);
    assert!(of_house.iter().all(|e| e.data.get("feedsequence").is_none()));
    let rest = open(&server, &path, Some(&of_house[0].id)).await.until(|e| e.event == "end").await;
    assert_eq!(rest, of_house[1..]);
    let again = ask(&server, &path, Ask { last: Some(&of_house[3].id), ..Ask::default() }).await.unwrap();
    assert_eq!(again.status(), 204);
    let foreign = open(&server, &path, Some(&order[0].id)).await.event().await;
    assert_eq!((&*foreign.event, &foreign.data["reason"]), ("gap", &json!("unknown")));
    // A move has a stream as well.
    let asn = get(&server, "/v1/events?types=wavegate.move.*").await;
    let of_move = asn.body["events"][0]["subject"].as_str().unwrap().to_owned();
    let mut stream = open(&server, &format!("/v1/status/{of_move}/events"), None).await;
    let events = stream.until(|e| e.event == "end").await;
    assert_eq!(types(&events), ["wavegate.move.accepted", "wavegate.move.applied", "end"]);
}

#[actix_rt::test]
async fn a_cursor_that_does_not_hold_is_a_gap_and_never_silence() {
    let server = TestServer::start_with(&[&keys()]);
    let placed = async |key: &str, reference: &str| {
        let sent = request(&server, Method::POST, "/v1/orders").bearer_auth(key);
        send(sent.json(&order(reference))).await.id().to_owned()
    };
    let mine = placed(ACME, "G-1").await;
    placed(GLOBEX, "G-1").await;
    let opened = async |key, path: &str, last: &str| {
        Stream::of(ask(&server, path, Ask { key: Some(key), last: Some(last), cookie: None }).await.unwrap())
    };
    let first = opened(ACME, "/v1/events", "earliest").await.event().await;
    let theirs = opened(GLOBEX, "/v1/events", "earliest").await.event().await;
    let digits = |n: usize| "0".repeat(n);
    let future = format!("{}{}", &first.id[..26], "00000000ffffffff");
    let epoch = format!("{}{}{}", &first.id[..2], digits(16), &first.id[18..]);
    for (cursor, reason) in [
        ("nonsense", "malformed"),
        (&*"x".repeat(65_536), "malformed"),
        (&*first.id.to_uppercase(), "malformed"),
        (&*future, "beyond_the_end"),
        (&*epoch, "older_epoch"),
        (&*theirs.id, "unknown"),
    ] {
        for path in ["/v1/events".to_owned(), format!("/v1/status/{mine}/events")] {
            if cursor == first.id {
                continue;
            }
            let mut stream = opened(ACME, &path, cursor).await;
            let gap = stream.event().await;
            assert_eq!((&*gap.event, &gap.data["reason"]), ("gap", &json!(reason)), "{path}");
            assert_eq!(gap.data["oldest"], first.id);
            let requested = gap.data["requested"].as_str().unwrap();
            assert!(cursor.starts_with(requested) && requested.len() <= 128);
            assert_eq!(stream.event().await, first, "it goes on from the oldest");
            // The gap's own cursor holds.
            assert_eq!(opened(ACME, &path, &gap.id).await.event().await, first);
        }
    }
    // In a query a cursor may be longer than any header.
    let long = format!("/v1/events?last_event_id={}", "y".repeat(60_000));
    let answer = ask(&server, &long, Ask { key: Some(ACME), ..Ask::default() }).await.unwrap();
    if answer.status() == 200 {
        assert_eq!(Stream::of(answer).event().await.event, "gap");
    } else {
        assert!(answer.status().is_client_error(), "{}", answer.status());
    }
    // An empty one is none: the feed from now on, and a transaction from its first event.
    assert_eq!(opened(ACME, &format!("/v1/status/{mine}/events"), "").await.event().await, first);
    let mut now = opened(ACME, "/v1/events", "").await;
    now.comment().await;
    let next = placed(ACME, "G-2").await;
    assert_eq!(now.event().await.data["subject"], json!(next));
    // The same in the list.
    let sent = request(&server, Method::GET, "/v1/events?after=nonsense").bearer_auth(ACME);
    let list = send(sent).await;
    assert_eq!(list.body["gap"]["reason"], "malformed");
    assert_eq!(list.body["events"][0], first.data);
}

#[actix_rt::test]
async fn a_stream_that_is_cut_before_its_first_event_misses_none() {
    let server = TestServer::start();
    place(&server, "C-1").await;
    let path = "/v1/events?types=wavegate.order.accepted";
    let mut stream = open(&server, path, None).await;
    stream.comment().await;
    let cursor = stream.cursor.clone().expect("a cursor before any event");
    drop(stream);
    let id = place(&server, "C-2").await;
    let mut again = open(&server, path, Some(&cursor)).await;
    assert_eq!(again.event().await.data["subject"], json!(id));
}

#[actix_rt::test]
async fn a_stream_that_lets_nothing_through_still_says_how_far_it_has_looked() {
    let server = TestServer::start();
    let mut stream = open(&server, "/v1/events?types=wavegate.order.shipped", None).await;
    stream.comment().await;
    let begun = stream.cursor.clone();
    place(&server, "C-1").await;
    stream.comment().await;
    assert_ne!(stream.cursor, begun);
    let mut again = open(&server, "/v1/events", stream.cursor.as_deref()).await;
    let id = place(&server, "C-2").await;
    assert_eq!(again.event().await.data["subject"], json!(id), "what was looked at does not come again");
}

#[actix_rt::test]
async fn a_copy_of_a_store_does_not_take_the_cursors_of_the_store_for_its_own() {
    let server = TestServer::start();
    place(&server, "P-1").await;
    let mut stream = open(&server, "/v1/events", Some("earliest")).await;
    let first = stream.event().await;
    let copied = wavegate().current_dir(server.dir().path()).args(["store", "backup", "copy"]).output();
    assert!(copied.unwrap().status.success());
    let copy = TestServer::start_in(server.dir(), &["store.embedded.data_dir=\"copy\""]);
    let gap = open(&copy, "/v1/events", Some(&first.id)).await.event().await;
    assert_eq!((gap.event.as_str(), &gap.data["reason"]), ("gap", &json!("older_epoch")));
    // The store itself goes on as before.
    let next = stream.event().await;
    let mut again = open(&server, "/v1/events", Some(&first.id)).await;
    assert_eq!(again.event().await, next);
}

#[actix_rt::test]
async fn what_is_evicted_is_announced() {
    let server = TestServer::start_with(&["events.retention=1s"]);
    place(&server, "V-1").await;
    let mut stream = open(&server, "/v1/events", Some("earliest")).await;
    let first = stream.event().await;
    let until = Instant::now() + PATIENCE;
    loop {
        let place = get(&server, &format!("/v1/events?after={}", first.id)).await;
        if place.body["gap"]["reason"] == "evicted" || place.body["events"] == json!([]) {
            break;
        }
        assert!(Instant::now() < until, "nothing is evicted");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // The earliest place there is now is behind what is gone.
    let left = get(&server, "/v1/events").await;
    assert!(left.body["events"].as_array().unwrap().iter().all(|e| e["id"] != *first.event_id()));
    let beginning = format!("{}{:016x}", &first.id[..26], 0);
    let gap = open(&server, "/v1/events", Some(&beginning)).await.event().await;
    assert_eq!((&*gap.event, &gap.data["reason"]), ("gap", &json!("evicted")));
    // The order is there, and so are its own events.
    let own = format!("/v1/status/{}/events", first.data["subject"].as_str().unwrap());
    assert_eq!(open(&server, &own, None).await.event().await, first);
}

#[actix_rt::test]
async fn filters_let_through_what_they_name() {
    let server = start();
    receive(&server, "A", 10).await;
    let path = "/v1/events?types=wavegate.order.shipped,wavegate.order.accepted&reference=F-2&warehouse=ATL1";
    let mut stream = open(&server, path, None).await;
    stream.comment().await;
    let ids = [place(&server, "F-1").await, place(&server, "F-2").await];
    let events = stream.until(is_shipped).await;
    assert_eq!(types(&events), ["accepted", "shipped"]);
    assert!(events.iter().all(|e| e.data["subject"] == ids[1]));
    let other = get(&server, "/v1/events?warehouse=DFW2").await;
    assert_eq!(other.body["events"], json!([]));
    for (query, pointer) in [
        ("types=*", "/types"),
        ("types=", "/types"),
        ("warehouse=X", "/warehouse"),
        ("limit=0", "/limit"),
        ("limit=1001", "/limit"),
        ("typos=a", "/typos"),
    ] {
        let answer = get(&server, &format!("/v1/events?{query}")).await;
        answer.is_problem(422, "validation_failed");
        assert_eq!(answer.body["errors"][0]["pointer"], pointer, "{query}");
    }
    let mut paged = Vec::new();
    let mut after = "earliest".to_owned();
    loop {
        let page = get(&server, &format!("/v1/events?limit=3&after={after}")).await;
        let events = page.body["events"].as_array().unwrap();
        assert!(events.len() <= 3);
        if events.is_empty() {
            break;
        }
        paged.extend(events.iter().map(|e| e["feedsequence"].as_str().unwrap().parse::<u64>().unwrap()));
        after = page.text("next").to_owned();
    }
    assert_eq!(paged, (1..=paged.len() as u64).collect::<Vec<_>>());
    assert!(paged.len() >= 9);
}

#[actix_rt::test]
async fn nobody_sees_another_s_events() {
    let server = TestServer::start_with(&[&keys()]);
    let sent = request(&server, Method::POST, "/v1/orders").bearer_auth(ACME);
    let mine = send(sent.json(&order("S-1"))).await.id().to_owned();
    let path = format!("/v1/status/{mine}/events");
    let asked =
        async |key: &str, path: &str| send(request(&server, Method::GET, path).bearer_auth(key)).await;
    asked(GLOBEX, &path).await.is_problem(404, "not_found");
    asked(WMS, &path).await.is_problem(404, "not_found");
    assert_eq!(asked(ACME, &path).await.body["events"][0]["subject"], json!(mine));
    assert_eq!(asked(OPERATOR, &path).await.status, 200);
    assert_eq!(asked(GLOBEX, "/v1/events").await.body["events"], json!([]));
    asked(GLOBEX, "/v1/events?client=acme").await.is_problem(403, "forbidden");
    asked(WMS, "/v1/events").await.is_problem(403, "forbidden");
    asked(OPERATOR, "/v1/events").await.is_problem(400, "client_required");
    assert_eq!(asked(OPERATOR, "/v1/events?client=acme").await.body["events"][0]["subject"], json!(mine));
    get(&server, &path).await.is_problem(401, "unauthorized");
    get(&server, "/v1/status/019ac2f0-0000-8000-8000-000000000000/events")
        .await
        .is_problem(401, "unauthorized");
    asked(ACME, "/v1/status/019ac2f0-0000-8000-8000-000000000000/events").await.is_problem(404, "not_found");
}

#[actix_rt::test]
async fn a_hostile_reference_stays_within_its_line() {
    let server = TestServer::start();
    let mut stream = open(&server, "/v1/events", None).await;
    stream.comment().await;
    for bad in ["a\r\ndata: x", "a\nid: 1", "a\u{85}b", "a\u{0}"] {
        let answer = post(&server, "/v1/orders", &order(bad)).await;
        answer.is_problem(422, "validation_failed");
    }
    for reference in ["a\u{2028}data: x\u{2029}", "\\r\\ndata: x", "\"}\\n\\nevent: end", "📦 é"] {
        place(&server, reference).await;
        let event = stream.until(|e| e.event == "wavegate.order.accepted").await.pop().unwrap();
        assert_eq!(event.data["data"]["reference"], reference);
    }
}

#[actix_rt::test]
async fn the_number_of_streams_is_bounded_and_a_closed_one_makes_room() {
    let server = TestServer::start_with(&["limits.sse_connections_max=2"]);
    let id = place(&server, "L-1").await;
    let first = open(&server, "/v1/events", None).await;
    let own = format!("/v1/status/{id}/events");
    let mut second = open(&server, &own, None).await;
    let event = second.event().await;
    assert_eq!((streams(&server).await, metric(&server, "sse_connections_max").await), (2.0, 2.0));
    let refused = ask(&server, "/v1/events", Ask::default()).await.unwrap();
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("retry-after"));
    // One with a cursor gets no answer at all: EventSource would never come again after a 503.
    let comes_again = ask(&server, "/v1/events", Ask { last: Some(&event.id), ..Ask::default() }).await;
    assert!(comes_again.is_err(), "{comes_again:?}");
    drop(first);
    let until = Instant::now() + Duration::from_secs(5);
    loop {
        let response = ask(&server, &own, Ask::default()).await.unwrap();
        if response.status() == 200 {
            break;
        }
        assert!(Instant::now() < until, "a closed stream keeps its place for five seconds");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn metric(server: &TestServer, name: &str) -> f64 {
    let text = crate::server::client().get(server.at("/metrics")).send().await.unwrap().text().await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
    line.unwrap_or_else(|| panic!("no {name}")).trim().parse().unwrap()
}

async fn streams(server: &TestServer) -> f64 {
    metric(server, "sse_connections").await
}

#[actix_rt::test]
async fn thousands_of_streams_that_are_reset_leave_nothing_behind() {
    let server = TestServer::start();
    place(&server, "Z-1").await;
    let address = server.url.strip_prefix("http://").unwrap().to_owned();
    let before = metric(&server, "process_open_fds").await;
    for _ in 0..10 {
        let sockets: Vec<TcpStream> = (0..500)
            .map(|n| {
                let mut socket = TcpStream::connect(&address).unwrap();
                let last = if n % 2 == 0 { "earliest" } else { "" };
                write!(socket, "GET /v1/events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\nLast-Event-ID: {last}\r\n\r\n").unwrap();
                socket
            })
            .collect();
        for socket in sockets {
            // What is there and not read makes the close a reset.
            let mut byte = [0];
            (&socket).read_exact(&mut byte).unwrap();
        }
    }
    let until = Instant::now() + Duration::from_secs(5);
    while streams(&server).await > 0.0 {
        assert!(Instant::now() < until, "{} streams are left after five seconds", streams(&server).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let until = Instant::now() + PATIENCE;
    while metric(&server, "process_open_fds").await > before + 8.0 {
        assert!(Instant::now() < until, "sockets are left open");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // And the next one is served.
    let id = place(&server, "Z-2").await;
    let next = open(&server, &format!("/v1/status/{id}/events"), None).await.event().await;
    assert_eq!(next.event, "wavegate.order.accepted");
}

#[actix_rt::test]
async fn who_does_not_read_is_cut_and_goes_on_by_its_cursor() {
    let server = TestServer::start();
    let address = server.url.strip_prefix("http://").unwrap().to_owned();
    let mut slow = TcpStream::connect(&address).unwrap();
    write!(slow, "GET /v1/events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n").unwrap();
    let mut live = open(&server, "/v1/events", None).await;
    live.comment().await;
    let mut expected = 0;
    for batch in 0..8 {
        let orders: Vec<Value> = (0..1_000).map(|n| order(&format!("slow-{batch}-{n}"))).collect();
        let answer = post(&server, "/v1/orders/batch", &json!(orders)).await;
        assert_eq!(answer.status, 202);
        expected += 1_000;
    }
    // Who reads gets everything, and is not held up by who does not.
    let (mut waiting, mut last) = (0, 0);
    while waiting < expected {
        match live.next().await {
            Some(event) => {
                assert_eq!(event.sequence(), last + 1);
                last = event.sequence();
                waiting += usize::from(event.event == "wavegate.order.backordered");
            }
            // On a machine that is busy enough this one may be cut too.
            None => {
                let cursor = get(&server, &format!("/v1/events?limit={}", last.clamp(1, 1_000))).await;
                let after = format!("{}{last:016x}", &cursor.text("next")[..26]);
                live = open(&server, "/v1/events", Some(&after)).await;
            }
        }
    }
    // Now the slow one reads: an unbroken beginning, and then its end.
    slow.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; 1 << 20]);
    loop {
        match slow.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => bytes.extend_from_slice(&buffer[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => panic!("it was not cut"),
            // Reset by the kernel for not reading.
            Err(_) => break,
        }
    }
    let text = String::from_utf8_lossy(&bytes);
    let number = |id: &str| u64::from_str_radix(&id[26..], 16).unwrap();
    let ids = text.lines().filter_map(|line| line.strip_prefix("id: ")).filter(|id| id.len() == 42);
    // The first is where the stream began.
    let ids: Vec<&str> = ids.filter(|id| number(id) > 0).collect();
    assert!(!ids.is_empty() && number(ids[ids.len() - 1]) < last, "{} of {last}", ids.len());
    // All but the last are certainly whole.
    let whole = &ids[..ids.len() - 1];
    assert!(whole.iter().zip(1..).all(|(id, n)| number(id) == n), "a hole or a repeat before the cut");
    let seen = whole.len() as u64;
    let mut rest = open(&server, "/v1/events", Some(whole[whole.len() - 1])).await;
    assert_eq!(rest.event().await.sequence(), seen + 1);
}

#[actix_rt::test]
async fn who_does_not_read_large_events_is_cut_by_their_bytes() {
    const ORDERS: u64 = 150;
    let server = TestServer::start_with(&["limits.sse_backlog_max=1MiB"]);
    let address = server.url.strip_prefix("http://").unwrap().to_owned();
    let mut slow = TcpStream::connect(&address).unwrap();
    write!(slow, "GET /v1/events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n").unwrap();
    let mut live = open(&server, "/v1/events", None).await;
    live.comment().await;
    // More than the kernel takes for who does not read, and far fewer events than a ring has places.
    let lines: Vec<Value> =
        (1..=500).map(|n| json!({"line": n, "sku": format!("SKU-{n:0>50}"), "quantity": 1})).collect();
    let (mut last, mut bytes) = (0, 0);
    for n in 0..ORDERS {
        let mut large = order(&format!("large-{n}"));
        large["lines"] = json!(lines);
        assert_eq!(post(&server, "/v1/orders", &large).await.status, 202);
        // Who reads is not cut: it owes two events at most.
        while last < 2 * (n + 1) {
            let event = live.event().await;
            assert_eq!(event.sequence(), last + 1);
            (last, bytes) = (last + 1, bytes + event.data.to_string().len());
        }
    }
    assert!(bytes > 16 << 20 && last < 2_000, "{last} events of {bytes} bytes");
    assert_eq!(metric(&server, "sse_cut_total").await, 0.0, "it has not tried to read on");
    slow.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut text, mut buffer) = (Vec::new(), vec![0; 1 << 20]);
    loop {
        match slow.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => text.extend_from_slice(&buffer[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => panic!("it was not cut"),
            // Reset by the kernel for not reading.
            Err(_) => break,
        }
    }
    assert!(text.len() + (2 << 20) < bytes, "{} of {bytes} bytes were kept for it", text.len());
    let text = String::from_utf8_lossy(&text);
    let ids: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("id: ")).collect();
    let whole = ids[ids.len() - 2];
    let seen = u64::from_str_radix(&whole[26..], 16).unwrap();
    let mut rest = open(&server, "/v1/events", Some(whole)).await;
    for n in seen + 1..=last {
        assert_eq!(rest.event().await.sequence(), n);
    }
}

#[actix_rt::test]
async fn a_stream_ends_in_order_when_the_server_does() {
    let mut server = TestServer::start();
    let id = place(&server, "D-1").await;
    let mut feed = open(&server, "/v1/events", Some("earliest")).await;
    let mut own = open(&server, &format!("/v1/status/{id}/events"), None).await;
    let last = feed.until(|e| e.event == "wavegate.order.backordered").await.pop().unwrap();
    own.until(|e| e.event == "wavegate.order.backordered").await;
    let began = Instant::now();
    server.signal_term();
    // An end with a last chunk: the reader would see an error otherwise.
    assert_eq!(feed.next().await, None);
    assert_eq!(own.next().await, None);
    assert!(server.wait(PATIENCE).success());
    assert!(began.elapsed() < Duration::from_secs(10), "streams held up the end");
    server.restart();
    // The cursor holds in the next process: nothing is new, and what comes is seen.
    let mut again = open(&server, "/v1/events", Some(&last.id)).await;
    again.comment().await;
    let next = place(&server, "D-2").await;
    let event = again.event().await;
    assert_eq!((event.sequence(), &event.data["subject"]), (last.sequence() + 1, &json!(next)));
}

#[actix_rt::test]
async fn a_hub_that_dies_ends_its_streams_and_each_goes_on_by_its_cursor() {
    let faults = Arc::new(ArmedFaults::default());
    let node = Node::start(faults.clone()).await;
    let client = crate::server::client();
    let place = async |reference: &str| {
        let body = crate::shop::order(reference, "ATL1", "A", 1);
        assert_eq!(crate::shop::post(&client, format!("{}/v1/orders", node.url), &body).await.0, 202);
    };
    place("H-1").await;
    let mut first = Stream::of(follow(&node.url, "/v1/events", "earliest").await);
    let last = first.until(|e| e.event == "wavegate.order.backordered").await.pop().unwrap();
    // The next who comes kills it, and is served by its successor.
    faults.arm(FaultPoint::FeedHub, None);
    let mut second = Stream::of(follow(&node.url, "/v1/events", "earliest").await);
    assert_eq!(second.event().await.sequence(), 1);
    assert_eq!(first.next().await, None, "it is not left without a word");
    assert_eq!(faults.armed(), 0);
    let mut again = Stream::of(follow(&node.url, "/v1/events", &last.id).await);
    place("H-2").await;
    assert_eq!(again.event().await.sequence(), last.sequence() + 1);
}
