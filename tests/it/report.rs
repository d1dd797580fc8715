//! The actors' report and `/metrics`: what an operator sees when actors die, hang and sleep, and
//! what Prometheus reads.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use prometheus_parse::{Sample, Scrape, Value as Measured};
use reqwest::Method;
use serde_json::{Value, json};
use wavegate_engine::domain::ids::PartitionId;
use wavegate_engine::engine::report::{ActorReport, Cause, Observed, Phase, Report};
use wavegate_engine::engine::{Handle, Threads};
use wavegate_engine::ports::faults::{ArmedFaults, FaultPoint, Faults, NoFaults};
use wavegate_engine::store::memory::MemoryStore;
use wavegate_engine::store::rows::Room;

use crate::door::{self, ACME, OPERATOR, WMS, keys, receive, request, send};
use crate::node::{self, ATL1, BACKORDER_MAX, Node, PausedClock, find};
use crate::server::TestServer;
use crate::shop::{self, PATIENCE};
use crate::sse;

fn parse(text: &str) -> Scrape {
    Scrape::parse(text.lines().map(|line| Ok(line.to_owned()))).expect("Prometheus can read it")
}

/// The value of a series.
fn value(scrape: &Scrape, name: &str, labels: &[(&str, &str)]) -> f64 {
    value_if_any(scrape, name, labels).unwrap_or_else(|| panic!("there is no {name} {labels:?}"))
}

fn value_if_any(scrape: &Scrape, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let is = |s: &&Sample| s.metric == name && labels.iter().all(|(k, v)| s.labels.get(k) == Some(v));
    match &scrape.samples.iter().find(is)?.value {
        Measured::Counter(v) | Measured::Gauge(v) => Some(*v),
        Measured::Histogram(buckets) => Some(buckets.last().map_or(0.0, |b| b.count)),
        other => panic!("{name} {labels:?} is {other:?}"),
    }
}

async fn metrics(server: &TestServer, accept: Option<&str>) -> (String, String) {
    let mut asked = request(server, Method::GET, "/metrics");
    if let Some(accept) = accept {
        asked = asked.header("accept", accept);
    }
    let answer = asked.send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let content_type = answer.headers()["content-type"].to_str().unwrap().to_owned();
    (content_type, answer.text().await.unwrap())
}

/// Ships one order.
async fn ship(server: &TestServer, reference: &str) {
    let accepted = door::post(server, "/v1/orders", &door::order(reference)).await;
    assert_eq!(accepted.status, 202, "{}", accepted.body);
    door::until(server, accepted.id(), |status| status["state"] == "shipped").await;
}

fn fast() -> String {
    shop::fast_warehouses(&[])
}

#[actix_rt::test]
async fn an_order_moves_the_counters_of_its_way_through_the_house() {
    let server = TestServer::start_with(&[&fast(), "manifests.close_every=\"100ms\""]);
    let before = parse(&metrics(&server, None).await.1);
    for counter in ["orders_accepted_total", "orders_replayed_total", "moves_accepted_total"] {
        assert_eq!(value(&before, counter, &[]), 0.0);
    }
    receive(&server, "A", 5).await;
    ship(&server, "one").await;
    assert_eq!(door::post(&server, "/v1/orders", &door::order("one")).await.status, 202);
    let mut other = door::order("one");
    other["lines"][0]["quantity"] = json!(2);
    assert_eq!(door::post(&server, "/v1/orders", &other).await.status, 409);
    let waits = door::post(&server, "/v1/orders", &shop::order("waits", "ATL1", "B", 1)).await;
    door::until(&server, waits.id(), |status| status["state"] == "backordered").await;

    let after = parse(&metrics(&server, None).await.1);
    let is = |name: &str, labels: &[(&str, &str)], wanted: f64| {
        assert_eq!(value(&after, name, labels), wanted, "{name} {labels:?}");
    };
    is("orders_accepted_total", &[], 2.0);
    is("orders_replayed_total", &[], 1.0);
    is("orders_refused_total", &[("reason", "reference_conflict")], 1.0);
    is("moves_accepted_total", &[], 1.0);
    is("orders_ended_total", &[("state", "shipped")], 1.0);
    is("orders", &[("state", "backordered")], 1.0);
    is("order_door_to_door_seconds", &[], 1.0);
    is("warehouse_backlog", &[("warehouse", "ATL1")], 0.0);
    is("warehouse_backlog_oldest_seconds", &[("warehouse", "ATL1")], 0.0);
    is("trees", &[("state", "running")], 1.0);
    is("trees", &[("state", "asleep")], 2.0);
    is("store_writable", &[], 1.0);
    is("store_queue_depth", &[], 0.0);
    for n in 1..=8 {
        is("invariant_violations_total", &[("invariant", &format!("INV-{n}"))], 0.0);
    }
    assert_eq!(value(&after, "accept_seconds", &[]), 5.0);
    assert!(value(&after, "commit_seconds", &[]) >= 4.0);
    assert!(value(&after, "commit_items", &[]) == value(&after, "commit_seconds", &[]));
    assert!(value(&after, "actor_handled_total", &[("actor", "pipeline")]) >= 4.0);
    assert!(value(&after, "actor_handled_total", &[("actor", "ingestion")]) >= 5.0);
    assert!(value(&after, "process_resident_memory_bytes", &[]) > 1e6);
    // Only a warehouse that has or had work has series of its own.
    let named = after.samples.iter().filter_map(|s| s.labels.get("warehouse")).collect::<BTreeSet<_>>();
    assert_eq!(named, BTreeSet::from(["ATL1"]));
}

#[actix_rt::test]
async fn what_waits_at_a_paused_warehouse_is_its_backlog_with_the_age_of_the_oldest() {
    let server = TestServer::start();
    let pause = "/v1/ops/warehouses/ATL1/pause";
    assert_eq!(door::post(&server, pause, &json!({})).await.status, 200);
    for n in 1..=3 {
        assert_eq!(door::post(&server, "/v1/orders", &door::order(&format!("w{n}"))).await.status, 202);
    }
    let atl1 = [("warehouse", "ATL1")];
    let seen = |of: &Scrape| {
        let backlog = value_if_any(of, "warehouse_backlog", &atl1)?;
        let oldest = value_if_any(of, "warehouse_backlog_oldest_seconds", &atl1)?;
        Some((backlog, oldest, value_if_any(of, "orders", &[("state", "accepted")])?))
    };
    let waits = |(backlog, oldest, accepted)| (backlog, accepted) == (3.0, 3.0) && oldest > 0.2;
    metrics_until(&server, |of| seen(of).is_some_and(waits)).await;
    assert_eq!(door::post(&server, "/v1/ops/warehouses/ATL1/resume", &json!({})).await.status, 200);
    metrics_until(&server, |of| seen(of) == Some((0.0, 0.0, 0.0))).await;
}

/// Reads the metrics until they are as wanted.
async fn metrics_until(server: &TestServer, wanted: impl Fn(&Scrape) -> bool) {
    let begun = Instant::now();
    loop {
        let now = parse(&metrics(server, None).await.1);
        if wanted(&now) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{:?}", now.samples);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Name, type and help of every family, checked line by line on the way: each sample belongs to the
/// family above it, no series stands twice, buckets rise to the count.
fn families(text: &str) -> BTreeMap<String, (String, String)> {
    let mut found = BTreeMap::new();
    let mut helps = BTreeMap::new();
    let mut series = BTreeSet::new();
    let (mut name, mut kind) = (String::new(), String::new());
    for line in text.lines() {
        if let Some((of, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            helps.insert(of.to_owned(), help.to_owned());
        } else if let Some((of, is)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            (name, kind) = (of.to_owned(), is.to_owned());
            let help = helps[of].clone();
            assert!(help.ends_with('.') && !help.contains('|'), "{of}: {help}");
            assert!(found.insert(name.clone(), (kind.clone(), help)).is_none(), "{of} stands twice");
        } else {
            let (key, number) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
            number.parse::<f64>().unwrap_or_else(|_| panic!("{line}"));
            assert!(series.insert(key.to_owned()), "{key} stands twice");
            let suffix = key.split('{').next().unwrap().strip_prefix(name.as_str());
            let suffix = suffix.unwrap_or_else(|| panic!("{line} under {name}"));
            let allowed: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(allowed.contains(&suffix), "{line} under {name}");
        }
    }
    found
}

#[actix_rt::test]
async fn what_prometheus_reads_parses_and_is_what_the_readme_says() {
    let server = TestServer::start_with(&[&fast()]);
    receive(&server, "A", 5).await;
    let (content_type, text) = metrics(&server, None).await;
    assert_eq!(content_type, "text/plain; version=0.0.4; charset=utf-8");
    let families = families(&text);
    let scrape = parse(&text);
    for sample in &scrape.samples {
        match &sample.value {
            Measured::Counter(_) => assert!(sample.metric.ends_with("_total"), "{}", sample.metric),
            Measured::Gauge(_) => assert!(!sample.metric.ends_with("_total"), "{}", sample.metric),
            Measured::Histogram(buckets) => {
                assert!(buckets.is_sorted_by_key(|b| b.count), "{}", sample.metric);
                assert_eq!(buckets.last().unwrap().less_than, f64::INFINITY, "{}", sample.metric);
            }
            // This parser knows a histogram by its buckets alone.
            Measured::Untyped(_) => {
                let name = sample.metric.strip_suffix("_sum").or(sample.metric.strip_suffix("_count"));
                let family = name.and_then(|name| families.get(name));
                assert!(family.is_some_and(|(kind, _)| kind == "histogram"), "{} has no type", sample.metric);
            }
            Measured::Summary(_) => panic!("{} is a summary", sample.metric),
        }
    }

    let rows: BTreeSet<String> =
        families.iter().map(|(name, (kind, help))| format!("| `{name}` | {kind} | {help} |")).collect();
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let table: BTreeSet<String> = readme
        .lines()
        .skip_while(|line| *line != "| metric | type | what |")
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(str::to_owned)
        .collect();
    let missing: Vec<_> = rows.difference(&table).collect();
    let invented: Vec<_> = table.difference(&rows).collect();
    assert!(missing.is_empty() && invented.is_empty(), "missing: {missing:#?}\ninvented: {invented:#?}");
}

#[actix_rt::test]
async fn a_scraper_that_asks_for_openmetrics_gets_it() {
    let server = TestServer::start();
    let prometheus =
        "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
    let (content_type, text) = metrics(&server, Some(prometheus)).await;
    assert_eq!(content_type, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(text.ends_with("# EOF\n"));
    assert!(text.contains("# TYPE orders_accepted counter\n"), "{text}");
    assert!(text.contains("# UNIT commit_seconds seconds\n"), "{text}");
    for rather in ["text/plain;q=0.9, application/openmetrics-text;q=0.1", "*/*", "text/html"] {
        let (content_type, text) = metrics(&server, Some(rather)).await;
        assert!(content_type.starts_with("text/plain; version=0.0.4"), "{rather}: {content_type}");
        assert!(text.contains("# TYPE orders_accepted_total counter\n") && !text.contains("# EOF"));
    }
}

#[actix_rt::test]
async fn the_report_and_the_metrics_are_for_operators() {
    let server = TestServer::start_with(&[&keys()]);
    for path in ["/metrics", "/v1/ops/actors"] {
        let call = |key: Option<&str>, method: Method| {
            let asked = request(&server, method, path);
            match key {
                Some(key) => asked.bearer_auth(key),
                None => asked,
            }
        };
        for key in [None, Some("wrong-key-0123456789")] {
            send(call(key, Method::GET)).await.is_problem(401, "unauthorized");
        }
        for key in [ACME, WMS] {
            send(call(Some(key), Method::GET)).await.is_problem(403, "forbidden");
        }
        let answer = call(Some(OPERATOR), Method::GET).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        assert!(!answer.text().await.unwrap().is_empty());
        send(call(Some(OPERATOR), Method::POST)).await.is_problem(405, "method_not_allowed");
    }
    let unknown = request(&server, Method::GET, "/v1/ops/actors?depth=2").bearer_auth(OPERATOR);
    assert_eq!(send(unknown).await.status, 422);
}

#[actix_rt::test]
async fn the_tree_of_every_warehouse_is_in_the_report_and_those_without_work_sleep() {
    let server = TestServer::start_with(&[&fast()]);
    receive(&server, "A", 5).await;
    let report = door::get(&server, "/v1/ops/actors").await.body;
    assert_eq!(report["node"], "local");
    let types: Vec<_> = report["actors"].as_array().unwrap().iter().map(|a| &a["actor"]).collect();
    assert_eq!(types[0], "house");
    let [_, ingestion @ .., notifier, feed_hub] = types.as_slice() else { panic!("{types:?}") };
    assert!(!ingestion.is_empty() && ingestion.iter().all(|actor| *actor == "ingestion"), "{types:?}");
    assert_eq!((*notifier, *feed_hub), (&json!("notifier"), &json!("feed_hub")));
    let of = |name: &str| find(&report["actors"], name).unwrap_or_else(|| panic!("no {name}: {report}"));
    for code in ["DFW2", "RNO3"] {
        let sleeping = of(&format!("warehouse/{code}"));
        assert_eq!((&sleeping["state"], &sleeping["warehouse"]), (&json!("asleep"), &json!(code)));
        assert_eq!(sleeping["children"], json!([]));
    }
    let awake = of("warehouse/ATL1");
    assert_eq!(awake["state"], "running");
    for child in ["pipeline", "inventory", "wms_link", "manifester"] {
        let child = of(&format!("{child}/ATL1"));
        assert!(awake["children"].as_array().unwrap().contains(child));
        assert_eq!(
            (&child["gate"]["capacity"], &child["gate"]["refused"]),
            (&json!(1), &json!(0)),
            "{child}"
        );
        assert_eq!(child["restarts"], json!({"count": 0, "last_cause": null, "last_at": null}));
        assert!(child["handled"].as_u64() > Some(0), "{child}");
        assert_eq!(child["handling_seconds"]["count"], child["handled"]);
        let times = &child["handling_seconds"];
        let number = |name: &str| times[name].as_f64().unwrap_or_else(|| panic!("{name}: {child}"));
        assert!(number("p50") <= number("p99") && number("sum") > 0.0, "{child}");
        assert!(child["observed"].is_object(), "{child}");
    }
    assert_eq!(of("inventory/ATL1")["observed"], json!({"positions": 1, "waiting": 0}));
}

/// Who counts a death at a fault point, what it says, and what its supervisor says of it; `None` for points
/// that a single order to a node without webhooks and without others does not come to in time.
fn told(point: FaultPoint) -> Option<(&'static str, &'static str, Option<&'static str>)> {
    Some(match point {
        FaultPoint::House => ("house", "house", None),
        FaultPoint::Ingestion => ("ingestion", "ingestion/0", None),
        FaultPoint::Warehouse | FaultPoint::WarehouseTaken => ("warehouse", "warehouse/ATL1", None),
        FaultPoint::PipelineGathered | FaultPoint::PipelineDurable => {
            ("pipeline", "pipeline/ATL1", Some("panic in pipeline"))
        }
        FaultPoint::Inventory => ("inventory", "inventory/ATL1", Some("panic in inventory")),
        FaultPoint::WmsLink
        | FaultPoint::WmsLinkCollects
        | FaultPoint::WmsLinkPerforms
        | FaultPoint::WmsLinkAnswered => ("wms_link", "wms_link/ATL1", Some("panic in wms_link")),
        FaultPoint::FeedHub => ("feed_hub", "feed_hub", None),
        FaultPoint::Manifester | FaultPoint::ManifesterLoads => {
            ("manifester", "manifester/ATL1", Some("panic in manifester"))
        }
        FaultPoint::HouseLooks
        | FaultPoint::HouseAgrees
        | FaultPoint::HouseHears
        | FaultPoint::HouseTreeDown
        | FaultPoint::HouseDrains
        | FaultPoint::WarehouseChildDown
        | FaultPoint::FeedHubReads
        | FaultPoint::NotifierLooks
        | FaultPoint::NotifierAgrees
        | FaultPoint::NotifierChildDown
        | FaultPoint::NotifierEnds
        | FaultPoint::EndpointBegins
        | FaultPoint::EndpointRefreshed
        | FaultPoint::Endpoint
        | FaultPoint::EndpointAnswered
        | FaultPoint::EndpointRecorded
        | FaultPoint::EndpointFinishes => return None,
    })
}

#[actix_rt::test]
async fn whichever_actor_is_killed_the_report_and_the_metrics_name_it_and_why() {
    for (point, (actor, name, supervisor_says)) in
        FaultPoint::ALL.into_iter().filter_map(|point| Some((point, told(point)?)))
    {
        let faults = Arc::new(ArmedFaults::default());
        let node = Node::start(faults.clone()).await;
        let url = |path: &str| format!("{}{path}", node.url);
        // All that is killed within a tree is killed at work; the others when it begins.
        let before = matches!(
            point,
            FaultPoint::House | FaultPoint::Warehouse | FaultPoint::WarehouseTaken | FaultPoint::Ingestion
        );
        if before {
            faults.arm(point, (point != FaultPoint::Ingestion).then_some(ATL1));
        }
        let client = crate::server::client();
        let receipt = shop::receipt("asn", "ATL1", "A", 5);
        let mut answered = shop::post(&client, url("/v1/inventory/moves"), &receipt).await;
        if point == FaultPoint::Ingestion {
            assert_eq!(answered.0, 503, "{}", answered.1);
            answered = shop::post(&client, url("/v1/inventory/moves"), &receipt).await;
        }
        let wanted = |status: &Value| status["state"] == "applied";
        shop::status_when(&client, &node.url, &shop::id_of(&answered.1), wanted).await;
        if point == FaultPoint::FeedHub {
            faults.arm(point, None);
            let mut stream = sse::Stream::of(sse::follow(&node.url, "/v1/events", "earliest").await);
            assert_eq!(stream.event().await.event, "wavegate.move.accepted");
        } else if !before {
            faults.arm(point, Some(ATL1));
        }
        let order = shop::order("one", "ATL1", "A", 1);
        let (status, accepted) = shop::post(&client, url("/v1/orders"), &order).await;
        assert_eq!(status, 202, "{point:?}: {accepted}");
        let wanted = |status: &Value| status["state"] == "shipped";
        shop::status_when(&client, &node.url, &shop::id_of(&accepted), wanted).await;
        assert_eq!(faults.armed(), 0, "{point:?} struck");

        let one = |actor: &Value| actor["restarts"]["count"] == 1;
        let name = match point {
            // Which thread's it was is chance.
            FaultPoint::Ingestion => {
                let report = node.actors().await;
                let all = report["actors"].as_array().unwrap().clone();
                let dead = all.into_iter().find(one).unwrap_or_else(|| panic!("{report}"));
                dead["name"].as_str().unwrap().to_owned()
            }
            _other => name.to_owned(),
        };
        let dead = node.actor_when(&name, one).await;
        assert_eq!(dead["restarts"]["last_cause"], "panic", "{point:?}: {dead}");
        assert!(dead["restarts"]["last_at"].is_string(), "{point:?}: {dead}");
        let tree = node.actor_when("warehouse/ATL1", |tree| tree["state"] == "running").await;
        if let Some(says) = supervisor_says {
            assert_eq!(tree["restarts"]["last_cause"], says, "{tree}");
        }
        let restarts: u64 = node.actors().await["actors"].as_array().unwrap().iter().map(count).sum();
        assert_eq!(restarts, 1 + u64::from(supervisor_says.is_some()), "{point:?}: nobody else counts");
        let scrape = parse(&node.metrics().await);
        let labels = [("actor", actor), ("cause", "panic")];
        assert_eq!(value(&scrape, "actor_restarts_total", &labels), 1.0, "{point:?}");
    }
}

/// The restarts of an actor and of all below it.
fn count(actor: &Value) -> u64 {
    let below: u64 = actor["children"].as_array().unwrap().iter().map(count).sum();
    actor["restarts"]["count"].as_u64().unwrap() + below
}

/// Holds every actor that comes to a point until it is opened.
#[derive(Default)]
struct Barrier {
    closed: Mutex<bool>,
    opened: Condvar,
}

impl Barrier {
    fn set(&self, closed: bool) {
        *self.closed.lock() = closed;
        self.opened.notify_all();
    }
}

impl Faults for Barrier {
    fn strike(&self, point: FaultPoint, _: Option<PartitionId>) {
        let mut closed = self.closed.lock();
        while point == FaultPoint::Inventory && *closed {
            self.opened.wait(&mut closed);
        }
    }
}

#[actix_rt::test]
async fn an_actor_that_hangs_is_seen_by_the_age_of_what_it_has_in_hand() {
    let barrier = Arc::new(Barrier::default());
    let node = Node::start(barrier.clone()).await;
    barrier.set(true);
    let client = crate::server::client();
    let url = format!("{}/v1/inventory/moves", node.url);
    let (_, accepted) = shop::post(&client, url, &shop::receipt("asn", "ATL1", "A", 5)).await;
    let older = |age: f64| move |actor: &Value| actor["in_hand_seconds"].as_f64() > Some(age);
    let hangs = node.actor_when("inventory/ATL1", older(0.0)).await;
    assert_eq!((&hangs["handled"], &hangs["gate"]["depth"]), (&json!(0), &json!(1)), "{hangs}");
    let first = hangs["in_hand_seconds"].as_f64().unwrap();
    node.actor_when("inventory/ATL1", older(first)).await;
    // The turn waits for it.
    node.actor_when("pipeline/ATL1", older(first)).await;
    let scrape = parse(&node.metrics().await);
    assert!(value(&scrape, "actor_in_hand_seconds", &[("actor", "inventory")]) > first);
    assert_eq!(value(&scrape, "gate_depth", &[("actor", "inventory")]), 1.0);
    barrier.set(false);
    shop::status_when(&client, &node.url, &shop::id_of(&accepted), |s| s["state"] == "applied").await;
    let free = node.actor_when("inventory/ATL1", |actor| actor["in_hand_seconds"].is_null()).await;
    assert_eq!(free["gate"]["depth"], 0);
}

/// Runs an engine on one thread and a paused clock.
fn paused<F: Future>(
    faults: Arc<dyn Faults>,
    store: MemoryStore,
    test: impl FnOnce(Handle) -> F,
) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    tokio::task::LocalSet::new().block_on(&runtime.unwrap(), async {
        let clock = Arc::new(PausedClock::new());
        test(node::engine(store, clock, faults, Threads::Here).await).await
    })
}

fn tree(report: &Report) -> &ActorReport {
    report.actors[0].children.iter().find(|w| w.warehouse.as_deref() == Some("ATL1")).expect("the tree")
}

/// Lets the paused clock run until the report is as wanted, at most a day.
async fn report_when(handle: &Handle, wanted: impl Fn(&Report) -> bool) -> Report {
    for _ in 0..86_400 {
        let report = handle.report();
        if wanted(&report) {
            return report;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    panic!("not within a day: {:?}", tree(&handle.report()));
}

#[test]
fn a_tree_without_work_falls_asleep_and_keeps_what_was_counted_of_it() {
    paused(Arc::new(NoFaults), MemoryStore::new(), |handle| async move {
        assert_eq!(tree(&handle.report()).phase, Phase::Asleep);
        handle.submit(vec![node::receipt(&handle, "asn-1")]).await.unwrap();
        let awake = report_when(&handle, |report| tree(report).phase == Phase::Running).await;
        assert_eq!(
            awake.trees,
            [(Phase::Asleep, 1), (Phase::Starting, 0), (Phase::Running, 1), (Phase::Down, 0)]
        );
        let asleep = report_when(&handle, |report| tree(report).phase == Phase::Asleep).await;
        let handled: Vec<u64> = tree(&asleep).children.iter().map(|child| child.handling.count()).collect();
        assert!(handled.len() == 4 && handled.iter().all(|n| *n > 0), "{handled:?}");
        assert!(tree(&asleep).children.iter().all(|child| child.phase == Phase::Asleep));
        assert_eq!(tree(&asleep).restarts.count(), 0, "sleep is no death");
        handle.submit(vec![node::receipt(&handle, "asn-2")]).await.unwrap();
        report_when(&handle, |report| tree(report).phase == Phase::Running).await;
    });
}

#[test]
fn a_tree_that_cannot_commit_says_so_until_it_can() {
    let store = MemoryStore::new();
    let disk = store.clone();
    paused(Arc::new(NoFaults), store, |handle| async move {
        handle.submit(vec![node::order(&handle, "o-1")]).await.unwrap();
        let backordered = |report: &Report| {
            report.orders.iter().any(|(state, n)| state.as_str() == "backordered" && *n == 1)
        };
        report_when(&handle, backordered).await;
        disk.set_room(Room::Nothing);
        tokio::time::sleep(BACKORDER_MAX).await;
        let down = report_when(&handle, |report| tree(report).restarts.count() > 1).await;
        let pipeline = &tree(&down).children[0];
        assert_eq!(pipeline.restarts.last.map(|last| last.cause), Some(Cause::StoreFull));
        assert_eq!(pipeline.restarts.count(), 1, "it was not started again");
        assert_eq!(tree(&down).restarts.last.map(|last| last.to_string()), Some("store full".to_owned()));
        assert_ne!(tree(&down).phase, Phase::Running);
        disk.set_room(Room::All);
        report_when(&handle, |report| {
            tree(report).phase == Phase::Running && report.tally.ended.iter().any(|(_, n)| *n == 1)
        })
        .await;
    });
}

#[test]
fn a_house_that_dies_as_the_node_ends_starts_no_tree_again() {
    let faults = Arc::new(ArmedFaults::default());
    faults.arm(FaultPoint::House, Some(ATL1));
    paused(faults.clone(), MemoryStore::new(), |handle| async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        // Within one poll: the House finds the word of new work, and behind that the word to end.
        handle.confirm(ATL1, Vec::new()).await.unwrap();
        handle.shutdown(Duration::from_secs(1)).await;
        tokio::time::sleep(Duration::from_secs(120)).await;
        assert_eq!(faults.armed(), 0, "the House died");
        let house = &handle.report().actors[0];
        assert_eq!(house.restarts.count(), 1);
        let observed = house.observed;
        let ended = matches!(observed, Some(Observed::House { ending: true, running: 0, starting: 0, .. }));
        assert!(ended, "{observed:?}");
    });
}
