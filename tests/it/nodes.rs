//! Several nodes on one Redis: who works what, what happens when one comes, goes, dies or stands still,
//! and that a client may talk to any of them.

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::redis_server::{DURABLE, Redis};
use crate::server::{TestServer, client};
use crate::shop::{PATIENCE, fast_warehouses, get, id_of, order, post, receipt, status_when};

/// The shortest lease, so that a death is seen soon.
const LEASE: &str = "cluster.lease=3s";
/// A takeover is to take no longer: the lease, two looks, and some for a busy machine.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(10);
const CODES: [&str; 3] = ["ATL1", "DFW2", "RNO3"];

/// Nodes and the Redis that they share; the nodes end first.
pub(crate) struct Nodes {
    pub(crate) all: Vec<TestServer>,
    pub(crate) redis: Redis,
    pub(crate) http: reqwest::Client,
    warehouses: String,
    _dir: tempfile::TempDir,
}

impl Nodes {
    pub(crate) async fn start(count: usize) -> Nodes {
        Nodes::start_with(count, fast_warehouses(&[])).await
    }

    /// With these warehouses.
    pub(crate) async fn start_with(count: usize, warehouses: String) -> Nodes {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let redis = Redis::start(dir.path(), &DURABLE);
        let mut nodes = Nodes { all: Vec::new(), redis, http: client(), warehouses, _dir: dir };
        for _ in 0..count {
            nodes.join();
        }
        nodes.spread_over(&(0..count).collect::<Vec<_>>()).await;
        nodes
    }

    /// One more.
    fn join(&mut self) {
        let [backend, urls] = self.redis.sets();
        let name = format!("cluster.node=n{}", self.all.len());
        let loopback = "webhooks.allow_cidrs=[\"127.0.0.0/8\"]";
        let close = "manifests.close_every=100ms";
        let sets = [&self.warehouses, close, &backend, &urls, LEASE, &name, loopback];
        self.all.push(TestServer::start_with(&sets));
    }

    /// Which node is in charge of each warehouse, as one of them sees it.
    pub(crate) async fn homes(&self, asked: usize) -> Vec<(String, String)> {
        let (_, report) = get(&self.http, self.all[asked].at("/v1/ops/actors")).await;
        let mut homes = Vec::new();
        for node in report["nodes"].as_array().into_iter().flatten() {
            for code in node["warehouses"].as_array().into_iter().flatten() {
                homes.push((code.as_str().unwrap().to_owned(), node["name"].as_str().unwrap().to_owned()));
            }
        }
        homes.sort();
        homes
    }

    /// Waits until exactly these share the warehouses, and all of them know it and are ready.
    pub(crate) async fn spread_over(&self, alive: &[usize]) -> Duration {
        let names: BTreeSet<String> = alive.iter().map(|n| format!("n{n}")).collect();
        let begun = Instant::now();
        loop {
            let mut seen = Vec::new();
            for node in alive {
                seen.push(self.homes(*node).await);
            }
            let at_work: BTreeSet<String> = seen[0].iter().map(|(_, node)| node.clone()).collect();
            let agreed = seen.iter().all(|homes| homes.len() == CODES.len() && *homes == seen[0]);
            if agreed && at_work == names {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "{names:?} do not share the warehouses: {seen:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        begun.elapsed()
    }

    pub(crate) async fn stock(&self, at: usize) {
        for code in CODES {
            let body = receipt(&format!("stock-{code}"), code, "SKU-N", 10_000);
            let (status, accepted) = post(&self.http, self.all[at].at("/v1/inventory/moves"), &body).await;
            assert_eq!(status, 202, "{accepted}");
            status_when(&self.http, &self.all[at].url, &id_of(&accepted), |d| d["state"] == "applied").await;
        }
    }

    /// One order for each warehouse, sent to a node.
    pub(crate) async fn order_everywhere(&self, at: usize, reference: &str) -> Vec<String> {
        let mut ids = Vec::new();
        for code in CODES {
            let order = order(&format!("{reference}-{code}"), code, "SKU-N", 1);
            let (status, accepted) = post(&self.http, self.all[at].at("/v1/orders"), &order).await;
            assert_eq!(status, 202, "{accepted}");
            ids.push(id_of(&accepted));
        }
        ids
    }

    pub(crate) async fn ship(&self, at: usize, ids: &[String]) {
        for id in ids {
            let document = status_when(&self.http, &self.all[at].url, id, |d| d["done"] == true).await;
            assert_eq!(document["state"], "shipped", "{document}");
        }
    }

    /// A warehouse and the node that works it.
    pub(crate) async fn some_home(&self) -> (String, usize) {
        let (code, home) = self.homes(0).await.swap_remove(0);
        (code, home.trim_start_matches('n').parse().expect("a node's number"))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_share_the_warehouses_and_any_of_them_serves_every_call() {
    let nodes = Nodes::start(2).await;
    nodes.stock(0).await;
    // Sent to either, for warehouses of both, and followed at the other one.
    let ids = nodes.order_everywhere(0, "a").await;
    nodes.ship(1, &ids).await;
    let ids = nodes.order_everywhere(1, "b").await;
    nodes.ship(0, &ids).await;
    // The same reference at the other node is the same order.
    assert_eq!(nodes.order_everywhere(0, "b").await, ids);

    // Who has what is also told without any node.
    let shown = nodes.all[0].show_command().output().unwrap();
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    for (code, home) in nodes.homes(0).await {
        let line = shown.lines().find(|line| line.starts_with(&format!("# node {home} is in charge of ")));
        assert!(line.is_some_and(|line| line.contains(&code)), "{code} of {home}: {shown}");
    }

    // A pause asked for at a node that does not work the warehouse holds.
    let (code, home) = nodes.some_home().await;
    let other = 1 - home;
    let pause = format!("/v1/ops/warehouses/{code}/pause");
    let (status, said) = post(&nodes.http, nodes.all[other].at(&pause), &json!({})).await;
    assert_eq!(status, 200, "{said}");
    let (_, accepted) =
        post(&nodes.http, nodes.all[other].at("/v1/orders"), &order("paused", &code, "SKU-N", 1)).await;
    for node in &nodes.all {
        let until = Instant::now() + PATIENCE;
        while get(&nodes.http, node.at(&format!("/v1/warehouses/{code}"))).await.1["paused"] != true {
            assert!(Instant::now() < until, "a node does not know of the pause");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let (_, held) = get(&nodes.http, nodes.all[0].at(&format!("/v1/status/{}", id_of(&accepted)))).await;
    assert_eq!(held["state"], "accepted", "{held}");
    let resume = format!("/v1/ops/warehouses/{code}/resume");
    let (status, said) = post(&nodes.http, nodes.all[other].at(&resume), &json!({})).await;
    assert_eq!(status, 200, "{said}");
    nodes.ship(other, &[id_of(&accepted)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_nodes_warehouses_go_on_elsewhere_and_come_back_with_it() {
    let mut nodes = Nodes::start(2).await;
    nodes.stock(0).await;
    let ids = nodes.order_everywhere(0, "before").await;
    nodes.all[0].kill();
    let died = Instant::now();
    let more = nodes.order_everywhere(1, "after").await;
    nodes.ship(1, &ids).await;
    nodes.ship(1, &more).await;
    assert!(died.elapsed() < TAKEN_OVER_WITHIN, "it took {:?}", died.elapsed());
    assert_eq!(nodes.homes(1).await.len(), 3);
    nodes.all[0].restart();
    nodes.spread_over(&[0, 1]).await;
    let ids = nodes.order_everywhere(0, "again").await;
    nodes.ship(1, &ids).await;
}

/// The longest that an order of any warehouse waited for its owner, until `over`.
async fn longest_wait(http: reqwest::Client, url: String, over: Arc<AtomicBool>) -> (Duration, Vec<String>) {
    let (mut longest, mut ids) = (Duration::ZERO, Vec::new());
    for n in 0.. {
        if over.load(SeqCst) {
            break;
        }
        for code in CODES {
            let begun = Instant::now();
            let body = order(&format!("move{n}-{code}"), code, "SKU-N", 1);
            let (status, accepted) = post(&http, format!("{url}/v1/orders"), &body).await;
            assert_eq!(status, 202, "{accepted}");
            let id = id_of(&accepted);
            status_when(&http, &url, &id, |d| d["version"].as_u64() > Some(1)).await;
            longest = longest.max(begun.elapsed());
            ids.push(id);
        }
    }
    (longest, ids)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_joins_or_drains_moves_warehouses_within_a_second_and_nothing_is_refused() {
    let mut nodes = Nodes::start(1).await;
    nodes.stock(0).await;
    let over = Arc::new(AtomicBool::new(false));
    let orders = longest_wait(nodes.http.clone(), nodes.all[0].url.clone(), over.clone());
    let orders = tokio::spawn(orders);
    nodes.join();
    nodes.spread_over(&[0, 1]).await;
    let ids = nodes.order_everywhere(0, "joined").await;
    nodes.ship(1, &ids).await;
    nodes.all[1].signal_term();
    nodes.spread_over(&[0]).await;
    let ids = nodes.order_everywhere(0, "drained").await;
    nodes.ship(0, &ids).await;
    over.store(true, SeqCst);
    let (longest, ids) = orders.await.unwrap();
    nodes.ship(0, &ids).await;
    assert!(nodes.all[1].wait(PATIENCE).success());
    eprintln!("the longest that an order waited for its owner, over a join and a drain: {longest:?}");
    // A move takes tens of milliseconds; the rest is for a machine that builds and tests meanwhile.
    assert!(longest < Duration::from_secs(1), "an order waited {longest:?}");
    // Nobody waited for a lease to end, and no tree died over it.
    let log = nodes.all[0].log();
    assert!(!log.contains("cannot begin") && !log.contains("starts again"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_slept_past_its_lease_commits_nothing_when_it_wakes() {
    let nodes = Nodes::start(2).await;
    nodes.stock(0).await;
    let mut ids = nodes.order_everywhere(0, "before").await;
    nodes.all[0].signal("STOP");
    ids.extend(nodes.order_everywhere(1, "asleep").await);
    nodes.ship(1, &ids).await;
    let (_, before) = get(&nodes.http, nodes.all[1].at("/v1/warehouses/ATL1/inventory/SKU-N")).await;
    nodes.all[0].signal("CONT");
    nodes.spread_over(&[0, 1]).await;
    let (_, after) = get(&nodes.http, nodes.all[0].at("/v1/warehouses/ATL1/inventory/SKU-N")).await;
    assert_eq!(before, after, "what the sleeper held was shipped once");
    let ids = nodes.order_everywhere(0, "awake").await;
    nodes.ship(1, &ids).await;
    for code in CODES {
        let (_, stock) =
            get(&nodes.http, nodes.all[1].at(&format!("/v1/warehouses/{code}/inventory/SKU-N"))).await;
        let left: Vec<&Value> = vec![&stock["on_hand"], &stock["reserved"], &stock["shortfall"]];
        assert_eq!(left, [&json!(9_997), &json!(0), &json!(0)], "{stock}");
    }
}
