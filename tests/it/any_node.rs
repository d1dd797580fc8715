//! Any node serves any call: streams, webhooks, waiting and reading at a node that does not work the
//! warehouse are as good as at the one that does; and Redis standing still is borne by all of them.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

use crate::nodes::Nodes;
use crate::server::TestServer;
use crate::shop::{PATIENCE, get, id_of, order, post, status_when};
use crate::sse::{self, Event, Stream};
use crate::webhooks::Receiver;

/// What another node does is known here by then.
const KNOWN_WITHIN: Duration = Duration::from_secs(2);
const ENDPOINTS: &str = "/v1/webhooks/endpoints";

fn is_shipped(event: &Event) -> bool {
    event.event == "wavegate.order.shipped"
}

/// How long after its fact an event is read.
fn lag(event: &Event) -> Duration {
    let at = DateTime::parse_from_rfc3339(event.data["time"].as_str().unwrap()).unwrap();
    (Utc::now() - at.to_utc()).to_std().unwrap_or_default()
}

async fn accept(nodes: &Nodes, at: usize, reference: &str, code: &str) -> String {
    let body = order(reference, code, "SKU-N", 1);
    let (status, accepted) = post(&nodes.http, nodes.all[at].at("/v1/orders"), &body).await;
    assert_eq!(status, 202, "{accepted}");
    id_of(&accepted)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_at_one_node_has_the_events_of_the_other_at_once_and_goes_on_there_by_its_cursor() {
    let nodes = Nodes::start(2).await;
    nodes.stock(0).await;
    let (code, home) = nodes.some_home().await;
    let path = format!("/v1/events?warehouse={code}");
    let mut stream = sse::open(&nodes.all[1 - home], &path, None).await;
    stream.comment().await;
    let mut lags = Vec::new();
    let mut last = String::new();
    let mut ids = Vec::new();
    for n in 0..20 {
        let at = [home, 1 - home][n % 2];
        ids.push(accept(&nodes, at, &format!("live{n}"), &code).await);
        loop {
            let event = stream.event().await;
            lags.push(lag(&event));
            last.clone_from(&event.id);
            if is_shipped(&event) {
                break;
            }
        }
    }
    lags.sort();
    assert!(lags[lags.len() / 2] < Duration::from_secs(1), "events are late: {lags:?}");
    drop(stream);
    // The same cursor at the other node, and back.
    for turn in 0..4 {
        let at = if turn % 2 == 0 { home } else { 1 - home };
        let id = accept(&nodes, 1 - at, &format!("on{turn}"), &code).await;
        let mut stream = Stream::of(sse::follow(&nodes.all[at].url, &path, &last).await);
        let events = stream.until(is_shipped).await;
        let of_it = |e: &&Event| e.data["subject"] == id.as_str();
        let versions: Vec<u64> =
            events.iter().filter(of_it).map(|e| e.data["data"]["version"].as_u64().unwrap()).collect();
        assert_eq!(versions, (1..=versions.len() as u64).collect::<Vec<_>>(), "none missed, none twice");
        assert!(!events.iter().any(|e| e.event == "gap"), "{events:?}");
        last.clone_from(&events[events.len() - 1].id);
    }
    // One transaction's own stream, where its warehouse is not worked.
    let own = format!("/v1/status/{}/events", ids[0]);
    let events = sse::open(&nodes.all[1 - home], &own, None).await.until(|e| e.event == "end").await;
    assert!(events.len() > 5, "{events:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_made_at_one_node_opens_its_stream_at_any_of_them_once() {
    let nodes = Nodes::start(2).await;
    let made = async |at: usize| {
        let wants = json!({ "types": ["wavegate.order.*"] });
        let (status, made) = post(&nodes.http, nodes.all[at].at("/v1/events/tickets"), &wants).await;
        assert_eq!(status, 201, "{made}");
        format!("/v1/events?ticket={}", made["ticket"].as_str().unwrap())
    };
    let open = async |at: usize, path: &str| {
        let asked = nodes.http.get(nodes.all[at].at(path)).header("accept", "text/event-stream");
        let answer = asked.send().await.unwrap();
        (answer.status().as_u16(), answer.headers().get("set-cookie").cloned())
    };
    for (maker, first, then) in [(0, 1, 0), (1, 0, 1), (0, 0, 1)] {
        let path = made(maker).await;
        let (status, cookie) = open(first, &path).await;
        assert_eq!(status, 200);
        assert_eq!(open(then, &path).await.0, 401, "it was used");
        // What it has set goes on at the other one.
        let cookie = cookie.unwrap().to_str().unwrap().split(';').next().unwrap().to_owned();
        let again = nodes.http.get(nodes.all[then].at(&path)).header("cookie", cookie);
        assert_eq!(again.send().await.unwrap().status(), 200);
    }
    // Of two that come at the same time one is let in.
    for _ in 0..10 {
        let path = made(0).await;
        let (one, other) = tokio::join!(open(0, &path), open(1, &path));
        let mut both = [one.0, other.0];
        both.sort();
        assert_eq!(both, [200, 401]);
    }
    // Nobody is let in while nobody can say whether the ticket was used.
    let path = made(0).await;
    nodes.redis.signal("STOP");
    assert_eq!(open(1, &path).await.0, 503);
    nodes.redis.signal("CONT");
}

/// What a receiver of its own gets from an endpoint.
struct Endpoint {
    id: String,
    secret: String,
    receiver: Receiver,
}

/// Pings it at a node until a ping comes that is signed with its secret: one that was rotated is used by
/// whoever delivers as soon as that one has heard of it.
async fn ping(nodes: &Nodes, at: usize, endpoint: &Endpoint) {
    let until = Instant::now() + KNOWN_WITHIN;
    loop {
        let before = endpoint.receiver.all().len();
        let path = format!("{ENDPOINTS}/{}/ping", endpoint.id);
        let (status, said) = post(&nodes.http, nodes.all[at].at(&path), &json!({})).await;
        assert_eq!(status, 202, "{said}");
        let all = endpoint.receiver.when(|all| all.len() > before).await;
        if all[before].verify(&endpoint.secret) {
            return;
        }
        assert!(Instant::now() < until, "an old secret: {:?}", all[before].headers);
    }
}

#[actix_rt::test]
async fn an_endpoint_is_made_pinged_rotated_changed_and_deleted_at_any_node() {
    let nodes = Nodes::start(2).await;
    nodes.stock(0).await;
    // As many as let both nodes work some of them: who does is in nobody's hands here.
    let mut endpoints = Vec::new();
    for n in 0..6 {
        let receiver = Receiver::willing();
        let wanted = json!({"url": receiver.url, "types": ["wavegate.order.shipped"], "delivery": "every"});
        let (status, made) = post(&nodes.http, nodes.all[n % 2].at(ENDPOINTS), &wanted).await;
        assert_eq!(status, 201, "{made}");
        let text = |name: &str| made[name].as_str().unwrap().to_owned();
        endpoints.push(Endpoint { id: text("id"), secret: text("secret"), receiver });
    }
    for endpoint in &endpoints {
        for at in 0..2 {
            ping(&nodes, at, endpoint).await;
        }
    }
    let ids = nodes.order_everywhere(0, "hook").await;
    for endpoint in &endpoints {
        endpoint.receiver.when(|all| ids.iter().all(|id| all.iter().any(|h| h.subject() == id))).await;
    }
    for (n, endpoint) in endpoints.iter_mut().enumerate() {
        let path = format!("{ENDPOINTS}/{}", endpoint.id);
        for node in &nodes.all {
            assert_eq!(get(&nodes.http, node.at(&path)).await.1["id"], endpoint.id.as_str());
        }
        let rotate = nodes.all[1 - n % 2].at(&format!("{path}/rotate"));
        let (status, rotated) = post(&nodes.http, rotate, &json!({"grace_seconds": 0})).await;
        assert_eq!(status, 200, "{rotated}");
        rotated["secret"].as_str().unwrap().clone_into(&mut endpoint.secret);
        // Whoever delivers signs with the new one.
        for at in 0..2 {
            ping(&nodes, at, endpoint).await;
        }
        let url = nodes.all[n % 2].at(&path);
        let patched = nodes.http.patch(url).json(&json!({"description": "seen"})).send().await.unwrap();
        assert_eq!(patched.status(), 200);
        for node in &nodes.all {
            assert_eq!(get(&nodes.http, node.at(&path)).await.1["description"], "seen");
        }
        let gone = nodes.http.delete(nodes.all[1 - n % 2].at(&path)).send().await.unwrap();
        assert_eq!(gone.status(), 204);
        for node in &nodes.all {
            assert_eq!(get(&nodes.http, node.at(&path)).await.0, 404);
        }
    }
    let before: Vec<usize> = endpoints.iter().map(|e| e.receiver.all().len()).collect();
    let ids = nodes.order_everywhere(1, "unheard").await;
    nodes.ship(0, &ids).await;
    let after: Vec<usize> = endpoints.iter().map(|e| e.receiver.all().len()).collect();
    assert_eq!(before, after, "a deleted endpoint is delivered to");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_at_one_node_for_a_warehouse_of_the_other_is_answered_when_it_is_done() {
    let nodes = Nodes::start(2).await;
    nodes.stock(0).await;
    let (code, home) = nodes.some_home().await;
    for n in 0..10 {
        let at = [1 - home, home][n % 2];
        let begun = Instant::now();
        let request = nodes.http.post(nodes.all[at].at("/v1/orders")).header("prefer", "wait=25");
        let body = order(&format!("wait{n}"), &code, "SKU-N", 1);
        let answer = request.json(&body).send().await.unwrap();
        let status = answer.status();
        let document: Value = answer.json().await.unwrap();
        assert_eq!((status.as_u16(), &document["state"]), (200, &json!("shipped")), "{document}");
        assert!(begun.elapsed() < Duration::from_secs(5), "it waited for {:?}", begun.elapsed());
    }
    // And a status that is waited for.
    for n in 0..10 {
        let begun = Instant::now();
        let id = accept(&nodes, home, &format!("watch{n}"), &code).await;
        let mut version = 1;
        loop {
            let path = format!("/v1/status/{id}?wait=25&after_version={version}");
            let (status, document) = get(&nodes.http, nodes.all[1 - home].at(&path)).await;
            assert_eq!(status, 200, "{document}");
            if document["done"] == true {
                break;
            }
            version = document["version"].as_u64().unwrap();
        }
        assert!(begun.elapsed() < Duration::from_secs(5), "it waited for {:?}", begun.elapsed());
    }
}

/// Reads at both nodes until they agree, at most so long.
async fn agree<T: PartialEq + std::fmt::Debug>(
    nodes: &Nodes,
    path: &str,
    what: impl Fn(&Value) -> Option<T>,
) -> T {
    let until = Instant::now() + KNOWN_WITHIN;
    loop {
        let mut said = Vec::new();
        for node in &nodes.all {
            said.push(get(&nodes.http, node.at(path)).await.1);
        }
        let [one, other] = [&said[0], &said[1]].map(&what);
        match one {
            Some(one) if Some(&one) == other.as_ref() => return one,
            _ => assert!(Instant::now() < until, "two nodes do not agree: {said:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_nodes_say_the_same_of_a_warehouse_and_when_its_orders_will_ship() {
    const WAITING: u64 = 30;
    let wms = "{kind=\"simulated\",pick=\"200ms\",pack=\"100ms\",depart=\"300ms\",credits=200}";
    let entries = [("ATL1", 1), ("DFW2", 2), ("RNO3", 3)]
        .map(|(code, partition)| format!("{{code=\"{code}\",partition={partition},wms={wms}}}"));
    let nodes = Nodes::start_with(2, format!("warehouses=[{}]", entries.join(","))).await;
    nodes.stock(0).await;
    let (code, home) = nodes.some_home().await;
    let path = format!("/v1/warehouses/{code}");
    // Work is measured where it is done, and known everywhere.
    let until = Instant::now() + PATIENCE;
    for round in 0.. {
        let mut ids = Vec::new();
        for n in 0..12 {
            ids.push(accept(&nodes, 1 - home, &format!("m{round}-{n}"), &code).await);
        }
        nodes.ship(1 - home, &ids).await;
        if get(&nodes.http, nodes.all[home].at(&path)).await.1["pace"]["calibrated"] == true {
            break;
        }
        assert!(Instant::now() < until, "no estimates within {PATIENCE:?}");
    }
    let calibrated = agree(&nodes, &path, |said| said["pace"]["calibrated"].as_bool()).await;
    assert!(calibrated);
    // Nothing moves any more: then both say the same to the last number.
    let none = agree(&nodes, &path, |said| {
        (said["backlog"] == 0 && said["credits"]["used"] == 0).then(|| said["credits"].clone())
    })
    .await;
    assert_eq!(none["used"], 0);

    let id = accept(&nodes, home, "estimated", &code).await;
    for node in [1 - home, home] {
        let open = status_when(&nodes.http, &nodes.all[node].url, &id, |d| {
            d["estimate"].is_object() || d["done"] == true
        })
        .await;
        assert!(open["estimate"]["shipped_p90"].is_string(), "no estimate at n{node}: {open}");
    }
    nodes.ship(0, &[id]).await;

    let pause = nodes.all[1 - home].at(&format!("/v1/ops/warehouses/{code}/pause"));
    assert_eq!(post(&nodes.http, pause, &json!({})).await.0, 200);
    for n in 0..WAITING {
        accept(&nodes, (n % 2) as usize, &format!("waiting{n}"), &code).await;
    }
    let backlog = agree(&nodes, &path, |said| said["backlog"].as_u64().filter(|n| *n == WAITING)).await;
    assert_eq!(backlog, WAITING);
}

async fn until_accepted(http: &reqwest::Client, node: &TestServer, body: &Value) -> String {
    let until = Instant::now() + PATIENCE;
    loop {
        let (status, accepted) = post(http, node.at("/v1/orders"), body).await;
        if status == 202 {
            return id_of(&accepted);
        }
        assert_eq!(status, 503, "{accepted}");
        assert!(Instant::now() < until, "nothing is accepted within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_stands_still_past_every_lease_moves_no_warehouse_and_ends_no_stream() {
    let mut nodes = Nodes::start(2).await;
    nodes.stock(0).await;
    let homes = nodes.homes(0).await;
    let mut streams = Vec::new();
    for node in &nodes.all {
        let mut stream = sse::open(node, "/v1/events?types=wavegate.order.*", None).await;
        stream.comment().await;
        streams.push(stream);
    }
    let mut ids = nodes.order_everywhere(0, "before").await;
    nodes.ship(1, &ids).await;
    nodes.redis.signal("STOP");
    // Twice the lease and some.
    let till = Instant::now() + Duration::from_secs(7);
    let mut bodies = Vec::new();
    while Instant::now() < till {
        for node in &nodes.all {
            let body = order(&format!("s{}", bodies.len()), "ATL1", "SKU-N", 1);
            let begun = Instant::now();
            let (status, refused) = post(&nodes.http, node.at("/v1/orders"), &body).await;
            assert_eq!(status, 503, "{refused}");
            assert!(begun.elapsed() < Duration::from_secs(2), "it took {:?}", begun.elapsed());
            bodies.push(body);
        }
    }
    nodes.redis.signal("CONT");
    for (n, body) in bodies.iter().enumerate() {
        ids.push(until_accepted(&nodes.http, &nodes.all[n % 2], body).await);
    }
    ids.extend(nodes.order_everywhere(1, "after").await);
    nodes.ship(0, &ids).await;
    for node in 0..2 {
        assert_eq!(nodes.homes(node).await, homes, "nothing moved");
        assert!(!nodes.all[node].has_ended());
    }
    for stream in &mut streams {
        let mut left = ids.len();
        while left > 0 {
            // The same stream: its connection was never closed.
            let event = stream.event().await;
            assert_ne!(event.event, "gap", "{}", event.data);
            left -= usize::from(is_shipped(&event));
        }
    }
}

/// What Redis says of each connection but the one that asks.
fn connections(nodes: &Nodes) -> Vec<String> {
    let list = nodes.redis.tell("CLIENT LIST");
    list.lines().filter(|line| !line.contains("cmd=client")).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nodes_connections_to_redis_do_not_grow_with_its_subscribers() {
    const STREAMS: usize = 200;
    let nodes = Nodes::start(2).await;
    nodes.stock(0).await;
    let ids = nodes.order_everywhere(0, "before").await;
    nodes.ship(1, &ids).await;
    let before = connections(&nodes).len();
    let mut streams = Vec::new();
    for n in 0..STREAMS {
        let path =
            if n % 4 == 0 { format!("/v1/status/{}/events", ids[n % 3]) } else { "/v1/events".to_owned() };
        let last = (n % 2 == 0).then_some("earliest");
        streams.push(sse::open(&nodes.all[n % 2], &path, last).await);
    }
    let more = nodes.order_everywhere(1, "during").await;
    nodes.ship(0, &more).await;
    for stream in streams.iter_mut().skip(1).step_by(20) {
        stream.until(|event| more.iter().any(|id| event.data["subject"] == id.as_str())).await;
    }
    let list = connections(&nodes);
    assert!(list.len() <= before, "{before} before {STREAMS} streams, then {}: {list:#?}", list.len());
    assert!(list.len() <= 20, "two nodes hold {}: {list:#?}", list.len());
}
