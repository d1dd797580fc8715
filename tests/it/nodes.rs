//! Several nodes on one Redis: who works what, what happens when one comes, goes, dies or stands still,
//! and that a client may talk to any of them.

use serde_json::{Value, json};
use std::collections::BTreeSet;
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
struct Nodes {
    all: Vec<TestServer>,
    redis: Redis,
    http: reqwest::Client,
    _dir: tempfile::TempDir,
}

impl Nodes {
    async fn start(count: usize) -> Nodes {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let redis = Redis::start(dir.path(), &DURABLE);
        let mut nodes = Nodes { all: Vec::new(), redis, http: client(), _dir: dir };
        for _ in 0..count {
            nodes.join();
        }
        nodes.spread_over(&(0..count).collect::<Vec<_>>()).await;
        nodes
    }

    /// One more.
    fn join(&mut self) {
        let [backend, urls] = self.redis.sets();
        let warehouses = fast_warehouses(&[]);
        let name = format!("cluster.node=n{}", self.all.len());
        let sets = [&warehouses, "manifests.close_every=100ms", &backend, &urls, LEASE, &name];
        self.all.push(TestServer::start_with(&sets));
    }

    /// Which node is in charge of each warehouse, as one of them sees it.
    async fn homes(&self, asked: usize) -> Vec<(String, String)> {
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
    async fn spread_over(&self, alive: &[usize]) -> Duration {
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

    async fn stock(&self, at: usize) {
        for code in CODES {
            let body = receipt(&format!("stock-{code}"), code, "SKU-N", 10_000);
            let (status, accepted) = post(&self.http, self.all[at].at("/v1/inventory/moves"), &body).await;
            assert_eq!(status, 202, "{accepted}");
            status_when(&self.http, &self.all[at].url, &id_of(&accepted), |d| d["state"] == "applied").await;
        }
    }

    /// One order for each warehouse, sent to a node.
    async fn order_everywhere(&self, at: usize, reference: &str) -> Vec<String> {
        let mut ids = Vec::new();
        for code in CODES {
            let order = order(&format!("{reference}-{code}"), code, "SKU-N", 1);
            let (status, accepted) = post(&self.http, self.all[at].at("/v1/orders"), &order).await;
            assert_eq!(status, 202, "{accepted}");
            ids.push(id_of(&accepted));
        }
        ids
    }

    async fn ship(&self, at: usize, ids: &[String]) {
        for id in ids {
            let document = status_when(&self.http, &self.all[at].url, id, |d| d["done"] == true).await;
            assert_eq!(document["state"], "shipped", "{document}");
        }
    }

    fn signal(&self, node: usize, name: &str) {
        let kill = format!("kill -{name} {}", self.all[node].pid());
        let status = std::process::Command::new("sh").arg("-c").arg(kill).status();
        assert!(status.expect("a shell").success(), "SIG{name} was not sent");
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

    // A pause asked for at a node that does not work the warehouse holds.
    let homes = nodes.homes(0).await;
    let (code, home) = homes.first().cloned().unwrap();
    let other = usize::from(home == "n0");
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_joins_or_drains_moves_warehouses_within_a_second_and_nothing_is_refused() {
    let mut nodes = Nodes::start(1).await;
    nodes.stock(0).await;
    nodes.join();
    let took = nodes.spread_over(&[0, 1]).await;
    assert!(took < Duration::from_secs(3), "a join took {took:?}");
    let mut ids = nodes.order_everywhere(0, "joined").await;
    nodes.all[1].signal_term();
    let begun = Instant::now();
    for n in 0..20 {
        ids.extend(nodes.order_everywhere(0, &format!("draining{n}")).await);
    }
    nodes.spread_over(&[0]).await;
    nodes.ship(0, &ids).await;
    let took = begun.elapsed();
    assert!(nodes.all[1].wait(PATIENCE).success());
    // Nobody waited for a lease to end.
    let log = nodes.all[0].log();
    assert!(!log.contains("cannot begin") && !log.contains("starts again"), "{log}");
    eprintln!("a drain and 63 orders took {took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_slept_past_its_lease_commits_nothing_when_it_wakes() {
    let nodes = Nodes::start(2).await;
    nodes.stock(0).await;
    let mut ids = nodes.order_everywhere(0, "before").await;
    nodes.signal(0, "STOP");
    ids.extend(nodes.order_everywhere(1, "asleep").await);
    nodes.ship(1, &ids).await;
    let (_, before) = get(&nodes.http, nodes.all[1].at("/v1/warehouses/ATL1/inventory/SKU-N")).await;
    nodes.signal(0, "CONT");
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
