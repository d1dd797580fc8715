//! The server on a real Redis: what it promises there, and what it does when either dies, stands
//! still, or comes back without what it held.

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::redis_server::{DURABLE, Redis, start_cluster};
use crate::server::{TestServer, client, wavegate};
use crate::shop::{PATIENCE, fast_warehouses, get, id_of, order, post, receipt, status_when};

/// A server and the Redis that it uses; the server ends first.
struct House {
    server: TestServer,
    redis: Redis,
    /// Of a cluster, all but the first; or a replica.
    others: Vec<Redis>,
    _dir: tempfile::TempDir,
}

impl House {
    fn start() -> House {
        House::start_with(&[], "")
    }

    /// With further settings of Redis, and what stands before its address.
    fn start_with(settings: &[&str], before: &str) -> House {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let redis = Redis::start(dir.path(), &[&DURABLE[..], settings].concat());
        let warehouses = fast_warehouses(&[]);
        let [backend, urls] = redis.sets();
        let urls = urls.replace("redis://", &format!("redis://{before}"));
        let server = TestServer::start_with(&[&warehouses, "manifests.close_every=100ms", &backend, &urls]);
        House { server, redis, others: Vec::new(), _dir: dir }
    }

    fn start_on_a_cluster() -> House {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (mut nodes, sets) = start_cluster(dir.path());
        let warehouses = fast_warehouses(&[]);
        let own = [warehouses.as_str(), "manifests.close_every=100ms"];
        let sets: Vec<&str> = own.into_iter().chain(sets.iter().map(String::as_str)).collect();
        let server = TestServer::start_with(&sets);
        House { server, redis: nodes.remove(0), others: nodes, _dir: dir }
    }

    fn start_replicated() -> House {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let redis = Redis::start(&dir.path().join("primary"), &DURABLE);
        let port = redis.port().to_string();
        let of = ["--replicaof", "127.0.0.1", &port, "--repl-diskless-sync-delay", "0"];
        let replica = Redis::start(&dir.path().join("replica"), &[&DURABLE[..], &of].concat());
        let until = Instant::now() + PATIENCE;
        while !redis.tell("WAIT 1 100").starts_with(":1") {
            assert!(Instant::now() < until, "the replica does not keep up");
        }
        let warehouses = fast_warehouses(&[]);
        let [backend, urls] = redis.sets();
        let class = "store.redis.durability=\"replicated\"";
        let sets = [&warehouses, "manifests.close_every=100ms", &backend, &urls, class];
        House { server: TestServer::start_with(&sets), redis, others: vec![replica], _dir: dir }
    }

    async fn stock(&self, http: &reqwest::Client, sku: &str, quantity: u32) {
        let body = receipt(&format!("stock-{sku}"), "ATL1", sku, quantity);
        let (status, accepted) = post(http, self.server.at("/v1/inventory/moves"), &body).await;
        assert_eq!(status, 202, "{accepted}");
        status_when(http, &self.server.url, &id_of(&accepted), |d| d["state"] == "applied").await;
    }

    async fn order(&self, http: &reqwest::Client, reference: &str) -> (u16, Value) {
        post(http, self.server.at("/v1/orders"), &order(reference, "ATL1", "SKU-R", 1)).await
    }

    /// Orders again and again until it is accepted.
    async fn order_until_accepted(&self, http: &reqwest::Client, reference: &str) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let (status, accepted) = self.order(http, reference).await;
            if status == 202 {
                return id_of(&accepted);
            }
            assert_eq!(status, 503, "{accepted}");
            assert!(Instant::now() < until, "nothing is accepted within {PATIENCE:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn ships(&self, http: &reqwest::Client, ids: &[String]) {
        for id in ids {
            let document = status_when(http, &self.server.url, id, |d| d["done"] == true).await;
            assert_eq!(document["state"], "shipped", "{document}");
        }
    }

    /// Every one of these is there, and none of them a second time; nobody is told that it is not.
    async fn has(&self, http: &reqwest::Client, orders: &[(String, String)]) {
        let until = Instant::now() + PATIENCE;
        for (reference, id) in orders {
            loop {
                let (status, document) = get(http, self.server.at(&format!("/v1/status/{id}"))).await;
                if status == 200 {
                    assert_eq!(document["reference"], json!(reference), "{document}");
                    break;
                }
                assert_eq!(status, 503, "{reference} was acknowledged: {document}");
                assert!(Instant::now() < until, "it cannot be read within {PATIENCE:?}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            assert_eq!(&self.order_until_accepted(http, reference).await, id, "a repeat is a replay");
        }
        let (status, all) = get(http, self.server.at("/v1/orders?limit=500")).await;
        let found: Vec<_> = all["items"].as_array().into_iter().flatten().collect();
        let references: BTreeSet<_> = found.iter().map(|order| order["reference"].to_string()).collect();
        assert_eq!(status, 200, "{all}");
        assert_eq!((found.len(), references.len()), (orders.len(), orders.len()), "{all}");
    }

    async fn order_some(&self, http: &reqwest::Client, prefix: &str, count: usize) -> Vec<(String, String)> {
        let mut some = Vec::new();
        for n in 0..count {
            let reference = format!("{prefix}{n}");
            let (status, accepted) = self.order(http, &reference).await;
            assert_eq!(status, 202, "{accepted}");
            some.push((reference, id_of(&accepted)));
        }
        some
    }

    /// Ends the server in order and runs `store check`.
    fn check(&mut self) {
        assert!(self.server.term().success());
        let check = self.server.check_command().output().unwrap();
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(check.status.success(), "{}{}", said(&check.stdout), said(&check.stderr));
    }
}

async fn events_page(http: &reqwest::Client, server: &TestServer, query: &str) -> Value {
    let url = server.at(&format!("/v1/events?{query}"));
    http.get(url).header("accept", "application/json").send().await.unwrap().json().await.unwrap()
}

/// All events of the only client, by their pages.
async fn events(http: &reqwest::Client, server: &TestServer) -> Vec<Value> {
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let page = events_page(http, server, &format!("limit=50{after}")).await;
        let items = page["events"].as_array().unwrap_or_else(|| panic!("{page}"));
        if items.is_empty() {
            return all;
        }
        all.extend(items.iter().cloned());
        after = format!("&after={}", page["next"].as_str().unwrap_or_else(|| panic!("{page}")));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_in_redis_ship_and_a_killed_server_loses_none() {
    let mut house = House::start();
    let http = client();
    let (_, ready) = get(&http, house.server.at("/readyz")).await;
    assert_eq!(ready["durability"], "fsync", "{ready}");
    house.stock(&http, "SKU-R", 1_000).await;
    let (status, accepted) = house.order(&http, "first").await;
    assert_eq!((status, &accepted["durability"]), (202, &json!("fsync")), "{accepted}");
    house.ships(&http, &[id_of(&accepted)]).await;

    let mut ids = Vec::new();
    for n in 0..40 {
        ids.push(id_of(&house.order(&http, &format!("k{n}")).await.1));
        if n == 15 || n == 30 {
            house.server.kill();
            house.server.restart();
        }
    }
    let (status, again) = house.order(&http, "k3").await;
    assert_eq!((status, id_of(&again)), (202, ids[3].clone()), "a repeat is a replay");
    house.ships(&http, &ids).await;
    let (_, stock) = get(&http, house.server.at("/v1/warehouses/ATL1/inventory/SKU-R")).await;
    assert_eq!((&stock["on_hand"], &stock["reserved"]), (&json!(959), &json!(0)), "{stock}");

    let told = events(&http, &house.server).await;
    let distinct: BTreeSet<_> = told.iter().map(|e| e["id"].to_string()).collect();
    assert_eq!(distinct.len(), told.len(), "no event twice");
    for id in &ids {
        let of = told.iter().filter(|e| e["subject"] == json!(format!("{id}"))).count();
        assert!(of == 0 || of >= 5, "{of} events of {id}");
    }
    let shipped = told.iter().filter(|e| e["type"] == "wavegate.order.shipped").count();
    assert_eq!(shipped, 41, "every order tells that it shipped");
    house.check();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_on_a_cluster_ship_though_the_server_and_a_primary_die() {
    let mut house = House::start_on_a_cluster();
    let http = client();
    house.stock(&http, "SKU-R", 1_000).await;
    let mut orders = Vec::new();
    for n in 0..30 {
        let reference = format!("c{n}");
        let id = house.order_until_accepted(&http, &reference).await;
        orders.push((reference, id));
        if n == 10 {
            house.server.kill();
            house.server.restart();
        }
        if n == 20 {
            house.redis.restart();
        }
    }
    let ids: Vec<String> = orders.iter().map(|(_, id)| id.clone()).collect();
    house.ships(&http, &ids).await;
    house.has(&http, &orders).await;
    let (_, stock) = get(&http, house.server.at("/v1/warehouses/ATL1/inventory/SKU-R")).await;
    assert_eq!((&stock["on_hand"], &stock["reserved"]), (&json!(970), &json!(0)), "{stock}");
    let told = events(&http, &house.server).await;
    let shipped = told.iter().filter(|e| e["type"] == "wavegate.order.shipped").count();
    assert_eq!(shipped, 30, "every order tells that it shipped");
    house.check();
}

#[test]
fn a_cluster_is_told_from_a_single_redis_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let single = Redis::start(&dir.path().join("single"), &DURABLE);
    let (nodes, [_, of_cluster, is_cluster]) = start_cluster(&dir.path().join("cluster"));
    let [backend, of_single] = single.sets();
    for (sets, told) in [
        (vec![&backend, &of_single, &is_cluster], "not a node of a cluster"),
        (vec![&backend, &of_cluster], "store.redis.cluster=true"),
    ] {
        let mut serve = wavegate();
        serve.current_dir(dir.path()).args(["serve", "--set", "http.listen=127.0.0.1:0"]);
        sets.into_iter().for_each(|set| {
            serve.args(["--set", set]);
        });
        let refused = serve.output().unwrap();
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(refused.status.code() == Some(3) && said.contains(told), "{said}");
    }
    let several = format!("store.redis.urls=[\"redis://a:1\", \"redis://b:{}\"]", nodes[0].port());
    let check = wavegate().args(["config", "check", "--set", &several]).output().unwrap();
    let said = String::from_utf8_lossy(&check.stderr);
    assert!(check.status.code() == Some(2) && said.contains("expected one"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_replica_orders_get_503_in_time_and_with_it_everything_goes_on() {
    let mut house = House::start_replicated();
    let http = client();
    house.stock(&http, "SKU-R", 1_000).await;
    let (_, ready) = get(&http, house.server.at("/readyz")).await;
    assert_eq!(ready["durability"], "replicated", "{ready}");
    let (status, accepted) = house.order(&http, "before").await;
    assert_eq!((status, &accepted["durability"]), (202, &json!("replicated")), "{accepted}");
    let mut ids = vec![id_of(&accepted)];
    house.others[0].signal("STOP");
    for n in 0..5 {
        let begun = Instant::now();
        let (status, refused) = house.order(&http, &format!("s{n}")).await;
        assert_eq!(status, 503, "{refused}");
        assert!(begun.elapsed() < Duration::from_secs(2), "it took {:?}", begun.elapsed());
    }
    assert_eq!(get(&http, house.server.at("/readyz")).await.0, 503);
    house.others[0].signal("CONT");
    for n in 0..5 {
        ids.push(house.order_until_accepted(&http, &format!("s{n}")).await);
    }
    house.ships(&http, &ids).await;
    house.check();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_is_in_no_log_whatever_redis_does() {
    let mut house = House::start_with(&["--requirepass", "geheim-geheim"], ":geheim-geheim@");
    let http = client();
    house.stock(&http, "SKU-R", 10).await;
    house.redis.kill();
    let (status, refused) = house.order(&http, "lost").await;
    assert_eq!(status, 503, "{refused}");
    house.redis.empty();
    house.redis.restart();
    let until = Instant::now() + PATIENCE;
    while !house.server.log().contains("bring its data back") {
        assert!(Instant::now() < until, "it says nothing: {}", house.server.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let log = house.server.log();
    assert!(log.contains("redis does not answer"), "{log}");
    assert!(!log.contains("geheim") && !log.contains("redis://"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_killed_and_restarted_on_its_data_is_gone_on_with() {
    let mut house = House::start();
    let http = client();
    house.stock(&http, "SKU-R", 1_000).await;
    let mut ids = Vec::new();
    for n in 0..20 {
        ids.push(house.order_until_accepted(&http, &format!("a{n}")).await);
        if n == 10 {
            house.redis.restart();
        }
    }
    house.ships(&http, &ids).await;
    house.check();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_redis_stands_still_orders_get_503_in_time_and_then_everything_goes_on() {
    let mut house = House::start();
    let http = client();
    house.stock(&http, "SKU-R", 1_000).await;
    let mut ids = vec![house.order_until_accepted(&http, "before").await];
    let pid = house.server.pid();
    house.redis.signal("STOP");
    for n in 0..6 {
        let begun = Instant::now();
        let (status, refused) = house.order(&http, &format!("s{n}")).await;
        assert_eq!(status, 503, "{refused}");
        assert!(begun.elapsed() < Duration::from_secs(2), "it took {:?}", begun.elapsed());
    }
    assert_eq!(get(&http, house.server.at("/healthz")).await.0, 200);
    assert_eq!(get(&http, house.server.at("/readyz")).await.0, 503);
    house.redis.signal("CONT");
    // Word for word again: whatever became of the first, there is one of each.
    for n in 0..6 {
        ids.push(house.order_until_accepted(&http, &format!("s{n}")).await);
    }
    house.ships(&http, &ids).await;
    assert_eq!((house.server.pid(), house.server.has_ended()), (pid, false), "without a restart");
    house.check();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_comes_back_empty_is_refused_with_what_to_do() {
    let mut house = House::start();
    let http = client();
    house.stock(&http, "SKU-R", 10).await;
    house.redis.kill();
    house.redis.empty();
    house.redis.restart();
    let until = Instant::now() + PATIENCE;
    while !house.server.log().contains("bring its data back") {
        assert!(Instant::now() < until, "it says nothing: {}", house.server.log());
        let (status, refused) = house.order(&http, "lost").await;
        assert_eq!(status, 503, "{refused}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(get(&http, house.server.at("/readyz")).await.0, 503);
    assert!(!house.server.has_ended());
}

#[test]
fn a_redis_that_cannot_keep_a_202_stops_the_start_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let weak =
        Redis::start(&dir.path().join("weak"), &["--appendonly", "no", "--requirepass", "geheim-geheim"]);
    let [backend, urls] = weak.sets();
    let urls = urls.replace("redis://", "redis://:geheim-geheim@");
    let start = |further: &[&str]| {
        let mut serve = wavegate();
        serve.current_dir(dir.path()).args(["serve", "--set", "http.listen=127.0.0.1:0"]);
        for set in [backend.as_str(), &urls].into_iter().chain(further.iter().copied()) {
            serve.args(["--set", set]);
        }
        serve.output().unwrap()
    };
    let refused = start(&[]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(3), "{said}");
    assert!(said.contains("appendonly") && said.contains("store.redis.assume_durability"), "{said}");
    assert!(!said.contains("geheim"), "{said}");

    let nobody = start(&["store.redis.urls=[\"redis://:geheim-geheim@127.0.0.1:1\"]"]);
    let said = String::from_utf8_lossy(&nobody.stderr);
    assert_eq!(nobody.status.code(), Some(3), "{said}");
    assert!(said.contains("127.0.0.1:1") && !said.contains("geheim"), "{said}");

    let show = wavegate().args(["config", "show", "--set", &urls]).output().unwrap();
    let said = String::from_utf8_lossy(&show.stdout);
    assert!(show.status.success() && said.contains("store.redis.urls") && !said.contains("geheim"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_lost_the_end_of_what_it_acknowledged_gets_every_order_again() {
    let mut house = House::start();
    let http = client();
    house.stock(&http, "SKU-R", 1_000).await;
    let early = house._dir.path().join("early");
    let mut orders = house.order_some(&http, "early", 5).await;
    let ids: Vec<String> = orders.iter().map(|(_, id)| id.clone()).collect();
    house.ships(&http, &ids).await;
    house.redis.copy_data(&early);

    // Some of them ship before they are lost, some have only been accepted.
    let shipped = house.order_some(&http, "shipped", 5).await;
    let ids: Vec<String> = shipped.iter().map(|(_, id)| id.clone()).collect();
    house.ships(&http, &ids).await;
    orders.extend(shipped);
    orders.extend(house.order_some(&http, "late", 20).await);
    let told = events_page(&http, &house.server, "limit=500").await;
    let pid = house.server.pid();
    house.redis.kill();
    house.redis.put_back(&early);
    house.redis.restart();
    house.has(&http, &orders).await;
    assert!(house.server.log().contains("it was put back"), "{}", house.server.log());
    // Whoever had read on is told that what follows is numbered anew.
    let after = told["next"].as_str().unwrap_or_else(|| panic!("{told}"));
    let page = events_page(&http, &house.server, &format!("after={after}")).await;
    assert_eq!(page["gap"]["reason"], "older_epoch", "{page}");
    let next = page["next"].as_str().unwrap_or_else(|| panic!("{page}"));
    let on = events_page(&http, &house.server, &format!("after={next}")).await;
    assert_eq!(on["gap"], json!(null), "{on}");
    assert_eq!((house.server.pid(), house.server.has_ended()), (pid, false), "without a restart");

    // Once more, and the server dies as well before it can put anything back.
    orders.extend(house.order_some(&http, "last", 10).await);
    house.redis.kill();
    house.server.kill();
    house.redis.put_back(&early);
    house.redis.restart();
    house.server.restart();
    house.has(&http, &orders).await;
    let ids: Vec<String> = orders.iter().map(|(_, id)| id.clone()).collect();
    house.ships(&http, &ids).await;
    let (_, stock) = get(&http, house.server.at("/v1/warehouses/ATL1/inventory/SKU-R")).await;
    let left = 1_000 - orders.len();
    assert_eq!(
        (&stock["on_hand"], &stock["reserved"]),
        (&json!(left), &json!(0)),
        "each shipped once: {stock}"
    );
    house.check();
}
