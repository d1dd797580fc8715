//! A node inside the test's own process, on a store in memory: for what the front door of the real
//! binary has no handle for, above all killing an actor. Served over HTTP, or on a paused clock.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wavegate::http::{self, HttpOptions, LOCAL_CLIENT};
use wavegate_engine::domain::command::{Change, Command, MoveCommand, OrderCommand, OrderLine};
use wavegate_engine::domain::endpoint::Schedule;
use wavegate_engine::domain::estimate::OUTCOMES_MIN;
use wavegate_engine::domain::ids::PartitionId;
use wavegate_engine::domain::time::Timestamp;
use wavegate_engine::engine::{Engine, Handle, Options, Rules, Submission, Threads, WarehouseOptions};
use wavegate_engine::ports::clock::{Clock, SystemClock};
use wavegate_engine::ports::entropy::SeededEntropy;
use wavegate_engine::ports::faults::Faults;
use wavegate_engine::store::memory::MemoryStore;
use wavegate_engine::webhooks::{Guard, HttpCourier, SystemLookup};
use wavegate_engine::wms::simulated::{Settings, Simulated};

use crate::server::client;
use crate::shop::PATIENCE;

/// The first warehouse, `ATL1`.
pub(crate) const ATL1: PartitionId = PartitionId(1);
/// A wait for stock ends after this long: before its tree would fall asleep over it.
pub(crate) const BACKORDER_MAX: Duration = Duration::from_secs(200);

/// A node that is served over HTTP until it is dropped.
pub(crate) struct Node {
    /// `http://ADDR:PORT`
    pub(crate) url: String,
    server: actix_web::dev::ServerHandle,
}

impl Node {
    /// Starts it; the faults strike where they are armed.
    pub(crate) async fn start(faults: Arc<dyn Faults>) -> Node {
        let clock = Arc::new(SystemClock);
        let engine = engine(MemoryStore::new(), clock, faults, Threads::Arbiters(1)).await;
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        let options = HttpOptions {
            keys: Vec::new(),
            body_max: 1 << 20,
            batch_body_max: 10 << 20,
            client_rate: None,
            retention: Duration::from_secs(86_400),
            drain: CancellationToken::new(),
            streams_max: 100,
            cors_origins: Vec::new(),
            loopback_only: true,
            grace: Duration::from_secs(1),
        };
        let server = http::start(engine, options, listener).expect("a server");
        let handle = server.handle();
        actix_rt::spawn(server);
        Node { url, server: handle }
    }

    /// The actors' report.
    pub(crate) async fn actors(&self) -> Value {
        let answer = client().get(format!("{}/v1/ops/actors", self.url)).send().await.expect("an answer");
        assert_eq!(answer.status(), 200);
        answer.json().await.expect("JSON")
    }

    /// Reads the report until one of its actors is as wanted, and answers that one.
    pub(crate) async fn actor_when(&self, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let until = std::time::Instant::now() + PATIENCE;
        loop {
            let report = self.actors().await;
            let actor = find(&report["actors"], name).cloned().unwrap_or(Value::Null);
            if wanted(&actor) {
                return actor;
            }
            assert!(std::time::Instant::now() < until, "{name} not within {PATIENCE:?}: {actor}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// `/metrics` in Prometheus's own format.
    pub(crate) async fn metrics(&self) -> String {
        let answer = client().get(format!("{}/metrics", self.url)).send().await.expect("an answer");
        answer.text().await.expect("text")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // The answer comes when it has stopped; the test does not wait for that.
        drop(self.server.stop(false));
    }
}

/// The actor of this name, at any depth.
pub(crate) fn find<'a>(actors: &'a Value, name: &str) -> Option<&'a Value> {
    actors.as_array()?.iter().find_map(|actor| match actor["name"] == name {
        true => Some(actor),
        false => find(&actor["children"], name),
    })
}

/// The wall clock of a runtime whose time is paused.
pub(crate) struct PausedClock(Instant);

impl PausedClock {
    /// Begins now.
    pub(crate) fn new() -> PausedClock {
        PausedClock(Instant::now())
    }
}

impl Clock for PausedClock {
    fn now(&self) -> Timestamp {
        // 24 November 2026.
        Timestamp(1_795_478_400_000).after(self.0.elapsed())
    }
}

/// An engine of two warehouses, whose simulated WMS works fast.
pub(crate) async fn engine(
    store: MemoryStore,
    clock: Arc<dyn Clock>,
    faults: Arc<dyn Faults>,
    threads: Threads,
) -> Handle {
    let fast = |ms| Duration::from_millis(ms);
    let settings = Settings { pick: fast(20), pack: fast(10), depart: fast(30), ..Settings::default() };
    let wms_clock = clock.clone();
    crate::server::client();
    let guard = Guard::new(vec!["127.0.0.0/8".parse().expect("a network")]);
    let courier = HttpCourier::new(guard, Arc::new(SystemLookup), clock.clone());
    let courier = Arc::new(courier.expect("a client"));
    let options = Options {
        store: Arc::new(store),
        warehouses: [("ATL1", 1), ("DFW2", 2)].map(warehouse).into(),
        rules: Rules {
            backorder_max_wait: BACKORDER_MAX,
            wms_give_up_after: Duration::from_secs(86_400),
            wms_silent_after: Duration::from_secs(120),
            manifest_close_every: Duration::from_millis(100),
            manifest_cartons_max: 100,
            sscc_prefix: "0614141".parse().expect("seven digits"),
            outcomes_min: OUTCOMES_MIN,
            retention: Duration::from_secs(30 * 86_400),
            events_retention: Duration::from_secs(30 * 86_400),
            waiters_max: 100,
            stream_backlog_max: 1 << 20,
            webhook_schedule: Schedule::new(vec![Duration::from_millis(100)]),
        },
        clients: vec![LOCAL_CLIENT.to_owned()],
        threads,
        clock,
        entropy: Arc::new(SeededEntropy::new(7)),
        faults,
        wms: Box::new(move |w, sink| {
            Arc::new(Simulated::new(w.partition, settings.clone(), wms_clock.clone(), sink))
        }),
        courier,
    };
    Engine::start(options).await.expect("a start on an empty store")
}

fn warehouse((code, partition): (&str, u16)) -> WarehouseOptions {
    WarehouseOptions {
        code: code.to_owned(),
        partition: PartitionId(partition),
        timezone: chrono_tz::UTC,
        backlog_max: 100,
        services: vec!["ground".to_owned()],
        cut_offs: Default::default(),
        carriers: Default::default(),
        credits: 10,
        wave_max: 10,
    }
}

/// Ten units of SKU `A` arrive in `ATL1`.
pub(crate) fn receipt(handle: &Handle, reference: &str) -> Submission {
    let command = Command::Move(MoveCommand {
        reference: reference.parse().expect("a short name"),
        warehouse: "ATL1".to_owned(),
        sku: "A".parse().expect("a short name"),
        change: Change::Receipt { quantity: 10 },
    });
    submission(handle, command)
}

/// An order of one unit of SKU `A` in `ATL1`.
pub(crate) fn order(handle: &Handle, reference: &str) -> Submission {
    let command = Command::Order(OrderCommand {
        reference: reference.parse().expect("a short name"),
        warehouse: None,
        service_level: "ground".to_owned(),
        allocation: Default::default(),
        priority: Default::default(),
        not_before: None,
        requested_ship_by: None,
        lines: vec![OrderLine { line: 1, sku: "A".parse().expect("a short name"), quantity: 1 }],
        metadata: Default::default(),
    });
    submission(handle, command)
}

fn submission(handle: &Handle, command: Command) -> Submission {
    Submission {
        client: handle.client(LOCAL_CLIENT).expect("the client is registered"),
        home: ATL1,
        key: None,
        command,
        ship_to: None,
        correlation: "a-test".parse().expect("letters"),
        trace: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse().expect("a trace"),
    }
}
