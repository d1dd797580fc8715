//! The proof of several nodes: real processes, and everything is killed, stopped and started again at
//! random under load. Then the books of the WMS, of the webhook receivers, of the readers of the feed
//! and of the store are laid side by side, and every invariant that can be seen from outside must hold.
//!
//! `STORM_SEED` repeats a plan of faults (not the machine's own noise), `STORM_SECONDS` makes it longer.

mod faults;
mod judge;
mod readers;
mod shoppers;

use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reqwest::{Client, Method};
use wavegate_engine::ports::entropy::{Entropy as _, SeededEntropy, SystemEntropy};

use self::faults::{Fleet, Victim};
use self::shoppers::Acknowledged;
use crate::balancer::{Balancer, Places};
use crate::door::digest_of;
use crate::floor::{self, TestWms};
use crate::redis_server::{DURABLE, Redis};
use crate::server::TestServer;

/// How long it storms in a run of all tests.
const SECONDS: u64 = 120;
/// What may be slow to come once everything is well again: pauses of breakers and of reports among it.
const SETTLED_WITHIN: Duration = Duration::from_secs(150);
/// A call that is not answered by then is made again, elsewhere.
const CALL_MAX: Duration = Duration::from_secs(4);
const CODES: [&str; 3] = ["ATL1", "DFW2", "RNO3"];
/// Those whose WMS is another process.
const OUTSIDE: [&str; 2] = ["ATL1", "DFW2"];
/// The clients and their keys.
const CLIENTS: [(&str, &str); 2] = [("acme", "acme-key-0123456789"), ("globex", "globex-key-0123456789")];
const OPERATOR: &str = "operator-key-0123456789";
/// Tasks that post for each client.
const SHOPPERS: u64 = 3;

/// What everybody in a storm shares.
struct Storm {
    seed: u64,
    begun: Instant,
    http: Client,
    places: Places,
    /// No more faults and no new work.
    is_over: AtomicBool,
    acknowledged: Mutex<BTreeMap<String, Acknowledged>>,
    /// What was found wrong while it stormed, each with its invariant.
    violations: Mutex<Vec<String>>,
    /// What was done to whom, and when.
    diary: Mutex<Vec<String>>,
}

impl Storm {
    fn is_over(&self) -> bool {
        self.is_over.load(SeqCst)
    }

    fn violation(&self, what: String) {
        let at = self.begun.elapsed().as_secs_f64();
        self.violations.lock().unwrap().push(format!("{at:.1} s: {what}"));
    }

    /// Numbers of their own for somebody in the storm.
    fn dice(&self, who: u64) -> SeededEntropy {
        SeededEntropy::new(self.seed.wrapping_mul(1_000).wrapping_add(who))
    }

    /// One of the nodes, whatever has become of it.
    fn some_node(&self, dice: &SeededEntropy) -> String {
        let places = self.places.lock().unwrap();
        places[dice.below(places.len() as u64) as usize].clone()
    }

    /// Calls a node; the status and the body, if there is an answer and all of it.
    async fn call(
        &self,
        method: Method,
        url: String,
        key: &str,
        body: Option<&Value>,
        headers: &[(&str, &str)],
    ) -> Option<(u16, Value)> {
        let mut request = self.http.request(method, url).bearer_auth(key).timeout(CALL_MAX);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.ok()?;
        let status = answer.status().as_u16();
        Some((status, answer.json().await.ok()?))
    }

    async fn get(&self, node: &str, path: &str, key: &str) -> Option<(u16, Value)> {
        self.call(Method::GET, format!("{node}{path}"), key, None, &[]).await
    }

    /// What every node answers, once it does.
    async fn read(&self, node: &str, path: &str, key: &str) -> Value {
        let until = Instant::now() + SETTLED_WITHIN;
        loop {
            match self.get(node, path, key).await {
                Some((200, body)) => return body,
                other => assert!(Instant::now() < until, "{path} cannot be read: {other:?}"),
            }
        }
    }
}

/// A random moment's length, up to `most`.
fn some_time(dice: &SeededEntropy, least: Duration, most: Duration) -> Duration {
    least + Duration::from_millis(dice.below((most - least).as_millis() as u64 + 1))
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|e| panic!("{name}: {e}")))
}

/// Everything that runs, in good weather still.
async fn set_up(count: usize, places: &Places) -> (Fleet, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let redis = Redis::start(dir.path(), &DURABLE);
    let balancer = Balancer::start(places.clone()).await;
    let character = "pick=\"30ms\",pack=\"20ms\",depart=\"80ms\",short_pick_rate=0.02,damage_rate=0.01,\
                     repeat_rate=0.1,reorder_rate=0.1";
    let houses = OUTSIDE.map(|code| TestWms::new(code, &balancer.url, character));
    let mut tables: Vec<String> = houses.iter().map(TestWms::table).collect();
    tables.push(format!("{{kind=\"simulated\",{character},credits=200}}"));
    let entries = CODES.iter().zip(&tables).zip(1..);
    let entries = entries.map(|((code, wms), partition)| {
        format!("{{code=\"{code}\",partition={partition},backlog_max=2000,wms={wms}}}")
    });
    let warehouses = format!("warehouses=[{}]", entries.collect::<Vec<_>>().join(","));
    let mut keys: Vec<String> = CLIENTS
        .iter()
        .map(|(client, key)| format!("{{role=\"client\",client=\"{client}\",sha256=\"{}\"}}", digest_of(key)))
        .collect();
    keys.push(format!("{{role=\"operator\",sha256=\"{}\"}}", digest_of(OPERATOR)));
    keys.push(format!(
        "{{role=\"wms\",warehouses=[\"ATL1\",\"DFW2\"],sha256=\"{}\"}}",
        digest_of(floor::KEY)
    ));
    let keys = format!("keys=[{}]", keys.join(","));
    let pauses = ["\"100ms\"", "\"300ms\"", "\"1s\""].into_iter().chain(std::iter::repeat_n("\"2s\"", 40));
    let schedule = format!("webhooks.schedule=[{}]", pauses.collect::<Vec<_>>().join(","));
    let [backend, urls] = redis.sets();
    let mut nodes = Vec::new();
    for n in 0..count {
        let name = format!("cluster.node=n{n}");
        nodes.push(TestServer::start_with(&[
            &warehouses,
            &keys,
            &schedule,
            &backend,
            &urls,
            &name,
            "webhooks.allow_cidrs=[\"127.0.0.0/8\"]",
            "manifests.close_every=200ms",
            "cluster.lease=3s",
        ]));
        places.lock().unwrap().push(nodes[n].url.clone());
    }
    let houses = houses.map(|mut house| {
        house.start();
        house
    });
    (Fleet { nodes, houses: houses.into(), redis }, dir)
}

async fn run(count: usize) {
    let seed = number("STORM_SEED").unwrap_or_else(|| SystemEntropy.below(1_000_000));
    let lasts = Duration::from_secs(number("STORM_SECONDS").unwrap_or(SECONDS));
    eprintln!("{count} nodes, {lasts:?}; repeat the plan with STORM_SEED={seed}");
    let places = Places::default();
    let (fleet, _dir) = set_up(count, &places).await;
    crate::server::client();
    let storm = Arc::new(Storm {
        seed,
        begun: Instant::now(),
        http: Client::builder().connect_timeout(Duration::from_secs(1)).build().expect("an HTTP client"),
        places,
        is_over: AtomicBool::new(false),
        acknowledged: Mutex::default(),
        violations: Mutex::default(),
        diary: Mutex::default(),
    });
    let consumers = readers::begin(&storm).await;
    shoppers::open_stock(&storm).await;
    let shopping: Vec<_> = (0..SHOPPERS * CLIENTS.len() as u64)
        .map(|n| tokio::spawn(shoppers::shop(storm.clone(), n)))
        .collect();
    let storming: Vec<_> = fleet.into_victims().into_iter().map(|v| faults::begin(&storm, v)).collect();
    tokio::time::sleep(lasts).await;
    storm.is_over.store(true, SeqCst);
    let victims = tokio::task::spawn_blocking(move || {
        storming.into_iter().map(|thread| thread.join().expect("a thread that makes faults")).collect()
    });
    let victims: Vec<Victim> = victims.await.expect("a thread");
    let mut fleet = Fleet::of(victims);
    let verdict = tokio::spawn(judge::judge(storm.clone(), consumers, shopping, fleet.ledgers()));
    let ended = verdict.await;
    let at_rest = ended.is_ok().then(|| fleet.check_at_rest());
    let mut wrong = storm.violations.lock().unwrap().clone();
    let (told, answered) = (storm.diary.lock().unwrap().len(), storm.acknowledged.lock().unwrap().len());
    // Two lines a fault, five or six processes, a fault of each every ten seconds or so; and work meanwhile.
    if (told.min(answered) as u64) < lasts.as_secs() / 2 {
        wrong.push(format!("it was no storm: {told} lines in the diary, {answered} acknowledged"));
    }
    wrong.extend(fleet.panics());
    if ended.is_err() || !wrong.is_empty() || at_rest.as_ref().is_some_and(Result::is_err) {
        let kept = fleet.keep_logs(seed);
        let diary = storm.diary.lock().unwrap().join("\n");
        panic!(
            "STORM_SEED={seed}, {count} nodes, logs in {}\n{diary}\n{wrong:#?}\nthe judge: {:?}\nat rest: {at_rest:?}",
            kept.display(),
            ended.err()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_in_a_storm_keep_every_promise() {
    run(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_in_a_storm_keep_every_promise() {
    run(3).await;
}
