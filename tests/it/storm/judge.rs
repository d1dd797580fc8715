//! The judgement once everything is well again: what was acknowledged, what the WMSs did, what the feeds
//! say and what the store holds must be one story.

use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reqwest::Method;
use tokio::task::JoinHandle;

use super::readers::{Consumers, Heard, Told, compare, digest_of};
use super::shoppers::{Acknowledged, Ends, close_stock};
use super::{CLIENTS, CODES, OPERATOR, SETTLED_WITHIN, Storm};
use crate::floor::Ledger;

/// The books as they stand at the end.
struct Books {
    /// Everything acknowledged, with its document.
    all: Vec<(Acknowledged, Value)>,
    nodes: Vec<String>,
}

/// Waits until everything has ended, then compares. What is wrong goes to the storm's violations.
pub(super) async fn judge(
    storm: Arc<Storm>,
    consumers: Consumers,
    shopping: Vec<JoinHandle<()>>,
    ledgers: Vec<(String, PathBuf)>,
) {
    ready(&storm).await;
    for shopper in shopping {
        shopper.await.expect("a shopper's own checks");
    }
    close_stock(&storm).await;
    let books = settled(&storm).await;
    let mut wrong = books.all.iter().flat_map(|(one, document)| judge_end(one, document)).collect::<Vec<_>>();
    wrong.extend(judge_references(&storm, &books).await);
    for (code, path) in &ledgers {
        wrong.extend(judge_ledger(code, &Ledger::at(path), &books));
    }
    wrong.extend(judge_stock(&storm, &books).await);
    wrong.extend(judge_feeds(&storm, &consumers, &books).await);
    wrong.extend(judge_versions(&storm, &consumers, &books).await);
    wrong.extend(judge_strangers(&storm, &books).await);
    wrong.extend(judge_dead_letters(&storm, &books).await);
    eprintln!("{} acknowledged, {} wrong", books.all.len(), wrong.len());
    storm.violations.lock().unwrap().extend(wrong);
}

async fn ready(storm: &Storm) {
    let until = Instant::now() + SETTLED_WITHIN;
    let nodes = storm.places.lock().unwrap().clone();
    for node in &nodes {
        while !matches!(storm.get(node, "/readyz", OPERATOR).await, Some((200, _))) {
            assert!(Instant::now() < until, "INV-6: {node} is never ready again");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Documents of these, at a node, in the order asked.
async fn documents(storm: &Storm, node: &str, client: usize, ids: &[String]) -> Vec<Value> {
    let mut all = Vec::new();
    for some in ids.chunks(500) {
        let url = format!("{node}/v1/status/query");
        let until = Instant::now() + SETTLED_WITHIN;
        loop {
            let body = json!({ "ids": some });
            match storm.call(Method::POST, url.clone(), CLIENTS[client].1, Some(&body), &[]).await {
                Some((200, answer)) => break all.extend(answer["items"].as_array().cloned().unwrap()),
                other => assert!(Instant::now() < until, "statuses cannot be read: {other:?}"),
            }
        }
    }
    all
}

/// Waits until everything acknowledged has ended, or waits for what never comes.
async fn settled(storm: &Storm) -> Books {
    let nodes = storm.places.lock().unwrap().clone();
    let acknowledged: Vec<Acknowledged> = storm.acknowledged.lock().unwrap().values().cloned().collect();
    let begun = Instant::now();
    let mut open: Vec<Acknowledged> = acknowledged;
    let mut all = Vec::new();
    for turn in 0.. {
        let mut left = Vec::new();
        for client in 0..CLIENTS.len() {
            let of: Vec<Acknowledged> = open.iter().filter(|one| one.client == client).cloned().collect();
            let ids: Vec<String> = of.iter().map(|one| one.id.clone()).collect();
            let found = documents(storm, &nodes[turn % nodes.len()], client, &ids).await;
            for (one, document) in of.into_iter().zip(found) {
                let waits = one.ends == Ends::Waits && document["state"] == "backordered";
                if document["done"] == true || waits {
                    all.push((one, document));
                } else {
                    left.push((one, document));
                }
            }
        }
        if left.is_empty() || begun.elapsed() > SETTLED_WITHIN {
            // Those that never end are judged as they are.
            all.extend(left);
            break;
        }
        open = left.into_iter().map(|(one, _)| one).collect();
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Books { all, nodes }
}

fn shipped_of(document: &Value) -> u64 {
    sum(document, "shipped")
}

fn sum(document: &Value, what: &str) -> u64 {
    document["lines"].as_array().into_iter().flatten().filter_map(|line| line[what].as_u64()).sum()
}

/// INV-1: it is there, it is what was asked for, and it has ended as it had to.
fn judge_end(one: &Acknowledged, document: &Value) -> Option<String> {
    let state = document["state"].as_str().unwrap_or("nowhere");
    let all_shipped = || state == "shipped" && shipped_of(document) == one.units;
    let right = match one.ends {
        Ends::Shipped => all_shipped(),
        Ends::ShippedOrCancelled => {
            let gone = shipped_of(document) + sum(document, "cancelled");
            matches!(state, "shipped" | "cancelled") && gone == one.units
        }
        // What a pick does not find is cancelled under `fill_or_kill`.
        Ends::ShippedOrRejected => {
            let gone = shipped_of(document) + sum(document, "cancelled");
            matches!(state, "shipped" | "rejected") && gone == one.units
        }
        Ends::Waits => state == "backordered" && document["exceptions"][0]["code"] == "unknown_sku",
        Ends::Applied => state == "applied",
        Ends::AppliedOrRejected => matches!(state, "applied" | "rejected"),
    };
    let is_it = document["reference"] == one.reference.as_str()
        && document["client"] == CLIENTS[one.client].0
        && document["version"].as_u64() == Some(document["history"].as_array().map_or(0, Vec::len) as u64);
    (!right || !is_it).then(|| format!("INV-1: {one:?} is {document}"))
}

/// INV-1: a reference is one order, at every node. A cancellation says what its order says.
async fn judge_references(storm: &Storm, books: &Books) -> Vec<String> {
    let mut wrong = Vec::new();
    for (n, (one, _)) in books.all.iter().enumerate() {
        let is_order = one.units > 0;
        // Each is one call, and the machine is shared: a third of them says enough.
        if !is_order || n % 3 != 0 {
            continue;
        }
        let node = &books.nodes[n % books.nodes.len()];
        let path = format!("/v1/orders?reference={}", one.reference);
        let page = storm.read(node, &path, CLIENTS[one.client].1).await;
        let found: Vec<&str> = page["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|d| d["transaction_id"].as_str())
            .collect();
        if found != [one.id.as_str()] {
            wrong.push(format!("INV-1: {} is {found:?}, acknowledged as {}", one.reference, one.id));
        }
    }
    let by_id: BTreeMap<&str, &Value> = books.all.iter().map(|(one, d)| (one.id.as_str(), d)).collect();
    for (one, document) in books.all.iter().filter(|(one, _)| one.ends == Ends::AppliedOrRejected) {
        let order = one.body["order"].as_str().and_then(|id| by_id.get(id));
        let cancelled = order.map_or(0, |order| sum(order, "cancelled"));
        if (document["state"] == "applied") != (cancelled > 0) {
            wrong.push(format!("INV-1: the cancellation {document} of {order:?}"));
        }
    }
    wrong
}

/// INV-2: nothing left the warehouse twice, and both sides say the same to the unit.
fn judge_ledger(code: &str, ledger: &Ledger, books: &Books) -> Vec<String> {
    let mut wrong: Vec<String> = ledger.faults().into_iter().map(|f| format!("INV-2: {code}: {f}")).collect();
    let mut by_order = BTreeMap::new();
    for (one, document) in books.all.iter().filter(|(_, document)| document["warehouse"] == code) {
        for line in document["lines"].as_array().into_iter().flatten() {
            let number = |what: &str| line[what].as_u64().unwrap_or(0);
            if number("shipped") > number("ordered") {
                wrong.push(format!("INV-2: {} shipped more than was ordered: {line}", one.id));
            }
            if number("shipped") > 0 {
                by_order.insert((one.id.clone(), number("line")), number("shipped"));
            }
        }
    }
    let left = ledger.shipped_by_order();
    let keys: BTreeSet<_> = left.keys().chain(by_order.keys()).collect();
    for key in keys {
        let (there, here) = (left.get(key).copied().unwrap_or(0), by_order.get(key).copied().unwrap_or(0));
        if there != here {
            wrong.push(format!("INV-2: {code}: {there} of {key:?} left, {here} are shipped by the document"));
        }
    }
    if left.is_empty() {
        wrong.push(format!("INV-2: {code} shipped nothing, so nothing is proven"));
    }
    wrong
}

/// INV-3 and INV-4: the stock of every client, warehouse and SKU is what the documents make of it.
async fn judge_stock(storm: &Storm, books: &Books) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut expected: BTreeMap<(usize, &str, String), i64> = BTreeMap::new();
    let mut reserved: BTreeMap<(usize, &str, String), i64> = BTreeMap::new();
    for (one, document) in &books.all {
        let Some(code) = CODES.into_iter().find(|code| document["warehouse"] == *code) else { continue };
        for line in document["lines"].as_array().into_iter().flatten() {
            let Some(sku) = line["sku"].as_str() else { continue };
            let key = (one.client, code, sku.to_owned());
            *expected.entry(key.clone()).or_default() -= line["shipped"].as_i64().unwrap_or(0);
            *reserved.entry(key).or_default() += line["reserved"].as_i64().unwrap_or(0);
        }
        if let Some(sku) = one.body["sku"].as_str().filter(|_| document["state"] == "applied") {
            let units = one.body["quantity"].as_i64().or(one.body["delta"].as_i64()).unwrap_or(0);
            *expected.entry((one.client, code, sku.to_owned())).or_default() += units;
        }
    }
    for (client, (name, key)) in CLIENTS.iter().enumerate() {
        for (n, code) in CODES.into_iter().enumerate() {
            let node = &books.nodes[n % books.nodes.len()];
            let page = storm.read(node, &format!("/v1/warehouses/{code}/inventory?limit=500"), key).await;
            for item in page["items"].as_array().into_iter().flatten() {
                let number = |what: &str| item[what].as_i64().unwrap_or(0);
                let at = (client, code, item["sku"].as_str().unwrap_or_default().to_owned());
                if number("reserved") + number("suspect") > number("on_hand") + number("shortfall") {
                    wrong.push(format!("INV-3: {name} in {code}: {item}"));
                }
                let held = reserved.get(&at).copied().unwrap_or(0);
                if number("reserved") != held {
                    wrong.push(format!("INV-3: {name} in {code}: orders hold {held}: {item}"));
                }
                let due = expected.remove(&at).unwrap_or(0);
                if number("on_hand") + number("in_transit") - number("shortfall") != due {
                    wrong.push(format!("INV-4: {name} in {code}: {due} by the documents: {item}"));
                }
            }
        }
    }
    let left = expected.into_iter().filter(|(_, units)| *units != 0);
    wrong.extend(left.map(|at| format!("INV-4: {at:?} by the documents, and no such stock")));
    wrong
}

/// A client's whole feed at a node, by the event list.
async fn feed(storm: &Storm, node: &str, key: &str) -> Vec<Told> {
    let (mut events, mut after) = (Vec::new(), String::new());
    loop {
        let path = format!("/v1/events?limit=500&after={after}");
        let page = storm.read(node, &path, key).await;
        let found = page["events"].as_array().filter(|found| !found.is_empty());
        let Some(found) = found else { return events };
        events.extend(found.iter().map(Told::of));
        page["next"].as_str().expect("a cursor").clone_into(&mut after);
    }
}

/// INV-5: the feed has no hole and every node tells the same; everybody who reads it got all of it.
async fn judge_feeds(storm: &Storm, consumers: &Consumers, books: &Books) -> Vec<String> {
    let mut wrong = Vec::new();
    for (client, (name, key)) in CLIENTS.iter().enumerate() {
        let mut feeds = Vec::new();
        for node in &books.nodes {
            feeds.push(feed(storm, node, key).await);
        }
        let shared = feeds.iter().map(Vec::len).min().unwrap_or(0);
        if feeds.iter().any(|other| other[..shared] != feeds[0][..shared]) {
            wrong.push(format!("INV-5: the feed of {name} is not the same at every node"));
        }
        let feed = feeds.swap_remove(0);
        wrong.extend(judge_numbers(name, &feed));
        let told: BTreeMap<&str, u64> =
            feed.iter().filter_map(|e| Some((e.line.split(' ').nth(1)?, e.version?))).collect();
        for (one, document) in books.all.iter().filter(|(one, _)| one.client == client) {
            let (told, is) = (told.get(one.id.as_str()).copied(), document["version"].as_u64());
            if told != is {
                wrong.push(format!("INV-5: {} is at version {is:?}, the feed of {name} at {told:?}", one.id));
            }
        }
        let until = Instant::now() + SETTLED_WITHIN;
        let heard = &consumers.heard[client];
        let mut differ = compare(name, heard, &feed);
        while !differ.is_empty() && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(500)).await;
            differ = compare(name, heard, &feed);
        }
        wrong.extend(differ);
        let deliveries = heard.webhook.lock().unwrap().len();
        eprintln!("{name}: {} events, {deliveries} deliveries of webhooks", feed.len());
    }
    wrong
}

fn judge_numbers(name: &str, feed: &[Told]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut versions: BTreeMap<&str, u64> = BTreeMap::new();
    for (event, n) in feed.iter().zip(1..) {
        if event.sequence != n {
            wrong.push(format!("INV-5: place {n} in the feed of {name} is {event:?}"));
            break;
        }
        if event.kind == "wavegate.inventory.changed" || event.kind == "wavegate.order.estimate_changed" {
            continue;
        }
        let last = versions.entry(&event.line).or_default();
        *last += 1;
        if event.version != Some(*last) {
            wrong.push(format!("INV-5: {event:?} comes as version {last} of its transaction"));
        }
    }
    wrong
}

/// INV-7: every version that was seen is what it was.
async fn judge_versions(storm: &Storm, consumers: &Consumers, books: &Books) -> Vec<String> {
    let seen = consumers.seen.lock().unwrap().clone();
    let mut wrong = Vec::new();
    let every = seen.len() / 400 + 1;
    for (n, ((id, version), (client, digest))) in seen.iter().enumerate().filter(|(n, _)| n % every == 0) {
        let node = &books.nodes[n % books.nodes.len()];
        let path = format!("/v1/status/{id}?version={version}");
        let document = storm.read(node, &path, CLIENTS[*client].1).await;
        // What it may do now and where it leads is said of the version that is read now.
        if digest_of(&document) != *digest {
            wrong.push(format!("INV-7: version {version} of {id} was another one: {document}"));
        }
    }
    wrong
}

/// INV-8: a stranger's transaction is not there.
async fn judge_strangers(storm: &Storm, books: &Books) -> Vec<String> {
    let mut wrong = Vec::new();
    for (n, (one, _)) in books.all.iter().enumerate().filter(|(n, _)| n % 50 == 0) {
        let stranger = CLIENTS[1 - one.client].1;
        let node = &books.nodes[n % books.nodes.len()];
        match storm.get(node, &format!("/v1/status/{}", one.id), stranger).await {
            Some((404, _)) => {}
            other => wrong.push(format!("INV-8: a stranger asks for {}: {other:?}", one.id)),
        }
    }
    wrong
}

/// Nothing was kept aside: all that was sick were processes.
async fn judge_dead_letters(storm: &Storm, books: &Books) -> Option<String> {
    let letters = storm.read(&books.nodes[0], "/v1/ops/dead-letters", OPERATOR).await;
    let some = letters["items"].as_array().is_some_and(|items| !items.is_empty());
    some.then(|| format!("kept aside: {letters}"))
}

fn told(sequence: u64, version: u64) -> Told {
    Told {
        sequence,
        id: format!("a.{version}"),
        digest: version,
        line: "/warehouses/ATL1 a".to_owned(),
        kind: "wavegate.order.picking".to_owned(),
        version: Some(version),
    }
}

#[test]
fn the_judge_sees_holes_repeats_and_what_came_too_late_or_never() {
    let feed = [told(1, 1), told(2, 2), told(3, 3)];
    assert_eq!(judge_numbers("acme", &feed), Vec::<String>::new());
    for wrong in [&[told(1, 1), told(3, 2)][..], &[told(1, 1), told(2, 1)], &[told(1, 2)]] {
        assert_eq!(judge_numbers("acme", wrong).len(), 1, "{wrong:?}");
    }
    let compared = |stream: &[Told], webhook: &[Told]| {
        let heard = Heard::default();
        heard.webhook.lock().unwrap().extend_from_slice(webhook);
        let heard = Heard { streams: vec![Arc::new(Mutex::new(stream.to_vec()))], ..heard };
        compare("acme", &heard, &feed)
    };
    let twice = [told(1, 1), told(2, 2), told(1, 1), told(3, 3)];
    assert_eq!(compared(&feed, &twice), Vec::<String>::new(), "a webhook may come twice");
    // A stream that repeats and ends early, or that missed one.
    assert_eq!(compared(&twice, &feed).len(), 1);
    assert_eq!(compared(&feed[..2], &feed).len(), 1);
    assert_eq!(compared(&[told(1, 1), told(3, 3)], &feed).len(), 2);
    // A webhook that never came, that came out of order, that was another one.
    assert_eq!(compared(&feed, &feed[..2]).len(), 1);
    assert_eq!(compared(&feed, &[told(2, 2), told(1, 1), told(3, 3)]).len(), 1);
    assert_eq!(compared(&feed, &[told(1, 1), told(2, 2), Told { digest: 9, ..told(3, 3) }]).len(), 1);
}

#[test]
fn the_judge_sees_an_order_that_is_lost_and_one_that_left_twice() {
    let one = Acknowledged {
        id: "a".to_owned(),
        client: 0,
        reference: "r".to_owned(),
        ends: Ends::Shipped,
        units: 2,
        body: json!({}),
    };
    let document = |state: &str, shipped: u64| {
        json!({"transaction_id": "a", "reference": "r", "client": "acme", "warehouse": "ATL1", "state": state,
            "version": 1, "history": [{}], "lines": [{"line": 1, "sku": "S", "ordered": 2, "shipped": shipped}]})
    };
    let shipped = document("shipped", 2);
    assert_eq!(judge_end(&one, &shipped), None);
    for wrong in [document("released", 0), document("shipped", 1), json!({"problem": {"status": 404}})] {
        assert!(judge_end(&one, &wrong).is_some(), "{wrong}");
    }

    let dir = tempfile::tempdir().unwrap();
    let taken = |n: u64| {
        json!({"entry": "taken", "release": {"release_id": format!("a.1.{n}"),
            "lines": [{"line": 1, "sku": "S", "quantity": 2}]}})
    };
    let done = |n: u64| {
        json!({"entry": "done", "confirmation": {"type": "packed", "release_id": format!("a.1.{n}"),
                "cartons": [{"lines": [{"line": 1, "quantity": 2}]}]},
            "shipped": [{"release_id": format!("a.1.{n}"), "line": 1, "sku": "S", "quantity": 2}]})
    };
    let judged = |entries: &[Value], document: &Value| {
        let path = dir.path().join("ledger");
        let lines: String = entries.iter().map(|entry| format!("{entry}\n")).collect();
        std::fs::write(&path, lines).unwrap();
        let books = Books { all: vec![(one.clone(), document.clone())], nodes: Vec::new() };
        judge_ledger("ATL1", &Ledger::at(&path), &books)
    };
    assert_eq!(judged(&[taken(1), done(1)], &shipped), Vec::<String>::new());
    // Taken twice; worked twice; shipped in two releases, of which the document knows one; never shipped.
    assert_eq!(judged(&[taken(1), taken(1), done(1)], &shipped).len(), 1);
    assert!(!judged(&[taken(1), done(1), done(1)], &shipped).is_empty());
    assert_eq!(judged(&[taken(1), taken(2), done(1), done(2)], &shipped).len(), 1);
    assert!(!judged(&[taken(1)], &shipped).is_empty());
    assert!(!judged(&[taken(1), done(1)], &document("shipped", 3)).is_empty());
}
