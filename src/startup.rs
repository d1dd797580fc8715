//! Builds the running process from the settings: store, engine, HTTP, in this order; the only
//! place that knows all three.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wavegate_engine::domain::endpoint::Schedule;
use wavegate_engine::domain::estimate::OUTCOMES_MIN;
use wavegate_engine::domain::fact::Fact;
use wavegate_engine::domain::ids::{PartitionId, TransactionId};
use wavegate_engine::domain::spread::{Charge, NodeId};
use wavegate_engine::engine::{Engine, Handle, Options, Rules, Threads, WarehouseOptions};
use wavegate_engine::ports::BoxFuture;
use wavegate_engine::ports::clock::SystemClock;
use wavegate_engine::ports::entropy::SystemEntropy;
use wavegate_engine::ports::fate::ProcessFate;
use wavegate_engine::ports::faults::Faults;
use wavegate_engine::ports::membership::Roster;
use wavegate_engine::ports::store::{Durability, Lookup, RegisterError, SharedStore};
use wavegate_engine::ports::wms::{Sink, Wms};
use wavegate_engine::store::embedded::{EmbeddedStore, OpenError};
use wavegate_engine::store::redis::{
    self, MemberOptions, ReceiptOptions, RedisOptions, RedisStore, Replication, TlsOptions,
};
use wavegate_engine::webhooks::{Guard, HttpCourier, SystemLookup};
use wavegate_engine::wms::http::{self as wms_http, HttpWms, Origin, Origins};
use wavegate_engine::wms::simulated::{self, Simulated};

use crate::settings::{self, Backend, Key, KeyRole, RedisDurability, RedisUrl, Settings, Warehouse, WmsKind};
use wavegate::http::{self, HttpOptions, KeyConfig, LOCAL_CLIENT, Role};

/// The largest body of a batch, in bytes: 10 MiB, as the contract names it.
const BATCH_BODY_MAX: u64 = 10 << 20;

/// A start that did not succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A warehouse's orders and stock live in its partition.
    #[error(
        "warehouse {code} has partition {stored} in the store and {configured} in the configuration; \
         its orders and stock live there: set it back to {stored}, or give the warehouse a new code"
    )]
    PartitionChanged {
        /// The warehouse.
        code: String,
        /// In the store.
        stored: u16,
        /// In the configuration.
        configured: u16,
    },
    /// Another process has the store.
    #[error(
        "the store in {} is held by another process; stop that one, or choose another directory \
         with --set store.embedded.data_dir=DIR", .0.display()
    )]
    StoreHeld(PathBuf),
    /// The store cannot be opened or read.
    #[error("the store in {} cannot be used; check that the directory is this version's, writable, and its disk healthy", .dir.display())]
    Store {
        /// Its directory.
        dir: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// Redis cannot be used, or not with what it is asked for.
    #[error(transparent)]
    Redis(#[from] redis::OpenError),
    /// The store in Redis cannot be read or written.
    #[error("the store in Redis cannot be used; look whether Redis answers and takes writes")]
    RedisStore(#[source] Box<dyn StdError + Send + Sync>),
    /// The port is taken, or not ours to take.
    #[error(
        "cannot listen on {address}; choose another with --set http.listen=ADDR:PORT (port 0 takes a free one)"
    )]
    Bind {
        /// As configured.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Threads, signals, the HTTP server.
    #[error("the server cannot start")]
    System(#[source] Box<dyn StdError + Send + Sync>),
}

impl Error {
    /// The process's exit code, as the contract numbers them.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Error::PartitionChanged { .. } => 2,
            Error::StoreHeld(_) | Error::Store { .. } | Error::Redis(_) | Error::RedisStore(_) => 3,
            Error::Bind { .. } | Error::System(_) => 1,
        }
    }
}

/// What runs, and the handles that stop it.
pub(crate) struct Running {
    /// Where it accepts connections.
    pub(crate) address: SocketAddr,
    /// What a 202 survives.
    pub(crate) durability: Durability,
    /// The engine.
    pub(crate) engine: Handle,
    /// Resolves when the HTTP server has ended.
    pub(crate) http: JoinHandle<io::Result<()>>,
    /// Stops the HTTP server.
    pub(crate) http_handle: ServerHandle,
    /// Cancelled when no new work is taken.
    pub(crate) drain: CancellationToken,
    /// From the signal to the end.
    pub(crate) grace: Duration,
}

/// Starts everything; when it returns, connections are accepted.
///
/// # Errors
/// What could not be started, with what to do about it. Nothing keeps running then but threads
/// that end with the process.
pub(crate) async fn start(settings: &Settings, faults: Arc<dyn Faults>) -> Result<Running, Error> {
    // Bound first, so that a taken port costs no recovery; requests wait in the backlog until
    // the server takes them.
    let address = settings.http.listen;
    let bind = |source| Error::Bind { address, source };
    let listener = TcpListener::bind(address).map_err(bind)?;
    let address = listener.local_addr().map_err(bind)?;

    let store = open_store(settings, Purpose::Serve)?;
    let durability = store.durability();
    let options = options(settings, store, faults)?;
    let engine = Engine::start(options).await.map_err(|e| refused(settings, e))?;
    let drain = CancellationToken::new();
    let server = http::start(engine.clone(), http_options(settings, drain.clone()), listener)
        .map_err(|e| Error::System(Box::new(e)))?;
    let http_handle = server.handle();
    let http = actix_rt::spawn(server);
    Ok(Running { address, durability, engine, http, http_handle, drain, grace: settings.shutdown.grace })
}

/// What a store is opened for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    /// To accept and work.
    Serve,
    /// To look at it.
    Check,
}

/// Opens the store of the settings; used by `serve`, `demo` and the `store` sub-commands.
pub(crate) fn open_store(settings: &Settings, purpose: Purpose) -> Result<SharedStore, Error> {
    match settings.store.backend {
        Backend::Embedded => {
            let embedded = &settings.store.embedded;
            EmbeddedStore::open(&embedded.data_dir, embedded.size_max.as_u64(), Arc::new(ProcessFate))
                .map(|store| -> SharedStore { Arc::new(store) })
                .map_err(|e| unopened(e, &embedded.data_dir))
        }
        Backend::Redis => {
            let store = RedisStore::open(&redis_options(settings, purpose))?;
            Ok(Arc::new(store))
        }
    }
}

/// How Redis is used, by these settings.
fn redis_options(settings: &Settings, purpose: Purpose) -> RedisOptions {
    let of = &settings.store.redis;
    let urls = of.urls.iter().map(|RedisUrl(url)| url.clone()).collect();
    let assume_durability = of.assume_durability;
    if assume_durability {
        tracing::warn!(
            "store.redis.assume_durability: nobody asks Redis whether it keeps what a 202 promises"
        );
    }
    let receipts = match purpose {
        Purpose::Serve => Some(ReceiptOptions {
            dir: of.receipts_dir.clone(),
            keep: settings.transactions.retention.min(redis::KEEP_MAX),
        }),
        Purpose::Check => None,
    };
    let member = receipts
        .is_some()
        .then(|| MemberOptions { name: settings.cluster.node.clone(), lease: settings.cluster.lease });
    let replication = match of.durability {
        RedisDurability::Fsync => None,
        RedisDurability::Replicated => {
            Some(Replication { replicas: of.replicas, within: of.replicas_within })
        }
    };
    let is_cluster = of.cluster;
    let tls =
        TlsOptions { ca_file: of.ca_file.clone(), client: of.cert_file.clone().zip(of.key_file.clone()) };
    RedisOptions { urls, tls, is_cluster, replication, assume_durability, receipts, member }
}

/// The nodes of the store and what each is in charge of; none where there can be only one.
///
/// # Errors
/// When Redis cannot be asked.
pub(crate) async fn nodes(settings: &Settings) -> Result<Vec<(String, Vec<String>)>, Error> {
    match settings.store.backend {
        Backend::Embedded => Ok(Vec::new()),
        Backend::Redis => {
            let Roster { members, homes, .. } =
                redis::roster(&redis_options(settings, Purpose::Check)).await?;
            let of = |id: NodeId| {
                let home =
                    |w: &&Warehouse| homes.get(&Charge::Warehouse(PartitionId(w.partition))) == Some(&id);
                settings.warehouses.iter().filter(home).map(|w| w.code.clone()).collect()
            };
            Ok(members.into_iter().map(|member| (member.name, of(member.id))).collect())
        }
    }
}

fn unopened(error: OpenError, dir: &Path) -> Error {
    match error {
        OpenError::Held { dir } => Error::StoreHeld(dir),
        other @ (OpenError::Unreadable { .. } | OpenError::WrongFormat { .. }) => {
            Error::Store { dir: dir.to_owned(), source: Box::new(other) }
        }
    }
}

fn refused(settings: &Settings, error: RegisterError) -> Error {
    match error {
        RegisterError::PartitionChanged { code, stored, configured } => {
            Error::PartitionChanged { code, stored, configured }
        }
        other @ (RegisterError::Read(_) | RegisterError::Commit(_)) => match settings.store.backend {
            Backend::Embedded => {
                Error::Store { dir: settings.store.embedded.data_dir.clone(), source: Box::new(other) }
            }
            Backend::Redis => Error::RedisStore(Box::new(other)),
        },
    }
}

/// The one place that turns settings into the engine's options.
fn options(settings: &Settings, store: SharedStore, faults: Arc<dyn Faults>) -> Result<Options, Error> {
    let wms = wms(settings, &store)?;
    Ok(Options {
        store,
        warehouses: settings.warehouses.iter().map(warehouse).collect(),
        rules: Rules {
            backorder_max_wait: settings.backorder.max_wait,
            wms_give_up_after: settings.wms.give_up_after,
            wms_silent_after: settings.wms.silent_after,
            manifest_close_every: settings.manifests.close_every,
            manifest_cartons_max: settings.manifests.cartons_max,
            sscc_prefix: settings.manifests.sscc_prefix,
            outcomes_min: OUTCOMES_MIN,
            retention: settings.transactions.retention,
            events_retention: settings.events.retention.min(settings.transactions.retention),
            waiters_max: settings.limits.waiters_max,
            stream_backlog_max: usize::try_from(settings.limits.sse_backlog_max.as_u64())
                .unwrap_or(usize::MAX),
            webhook_schedule: Schedule::new(settings.webhooks.schedule.clone()),
        },
        clients: clients(&settings.keys),
        threads: Threads::Arbiters(settings.engine.threads),
        clock: Arc::new(SystemClock),
        entropy: Arc::new(SystemEntropy),
        faults,
        wms,
        courier: Arc::new(courier(settings)?),
    })
}

/// Carries webhooks to the public internet and to what the settings open besides.
fn courier(settings: &Settings) -> Result<HttpCourier, Error> {
    let guard = Guard::new(settings.webhooks.allow_cidrs.clone());
    let courier = HttpCourier::new(guard, Arc::new(SystemLookup), Arc::new(SystemClock));
    courier.map_err(|e| Error::System(Box::new(e)))
}

fn warehouse(w: &Warehouse) -> WarehouseOptions {
    WarehouseOptions {
        code: w.code.clone(),
        partition: PartitionId(w.partition),
        timezone: w.timezone,
        backlog_max: w.backlog_max,
        services: w.services.clone(),
        cut_offs: w.cut_offs.clone(),
        carriers: w.carriers.clone(),
        credits: w.wms.credits,
        wave_max: w.wms.wave_max,
    }
}

/// What the engine builds a warehouse's WMS with.
type BuildWms = Box<dyn Fn(&WarehouseOptions, Sink) -> Arc<dyn Wms>>;

/// Builds the WMS of each warehouse; the engine asks for it by the warehouse's options.
fn wms(settings: &Settings, store: &SharedStore) -> Result<BuildWms, Error> {
    let mut remote: BTreeMap<PartitionId, Arc<HttpWms>> = BTreeMap::new();
    let mut simulations = BTreeMap::new();
    for w in &settings.warehouses {
        match (w.wms.kind, &w.wms.url, &w.wms.key) {
            (WmsKind::Http, Some(url), Some(key)) => {
                let settings =
                    wms_http::Settings { warehouse: w.code.clone(), url: url.clone(), key: key.clone() };
                let wms = HttpWms::new(settings, Arc::new(StoredOrigins(store.clone())));
                let wms = wms.map_err(|e| Error::System(Box::new(e)))?;
                remote.insert(PartitionId(w.partition), Arc::new(wms));
            }
            // The settings' own check lets no WMS of kind "http" be without the two.
            (WmsKind::Simulated | WmsKind::Http, _, _) => {
                simulations.insert(PartitionId(w.partition), simulation(&w.wms, w.partition));
            }
        }
    }
    Ok(Box::new(move |w, sink| match remote.get(&w.partition) {
        Some(wms) => wms.clone(),
        None => {
            // Every warehouse of the engine's options comes from the same settings.
            let settings = simulations[&w.partition].clone();
            Arc::new(Simulated::new(w.partition, settings, Arc::new(SystemClock), sink))
        }
    }))
}

/// Finds in the store from which call a transaction came.
struct StoredOrigins(SharedStore);

impl Origins for StoredOrigins {
    fn origin(&self, id: TransactionId) -> BoxFuture<Option<Origin>> {
        let store = self.0.clone();
        Box::pin(async move {
            let Ok(Some(Lookup::Live(transaction))) = store.transaction(id).await else { return None };
            match transaction.facts.first().map(|recorded| &recorded.fact) {
                Some(Fact::Accepted(accepted)) => {
                    Some(Origin { correlation: accepted.correlation.clone(), trace: accepted.trace.clone() })
                }
                Some(_) | None => None,
            }
        })
    }
}

/// How the simulated WMS of a warehouse behaves as a process of its own; by the defaults when the
/// settings know the warehouse with another kind of WMS, or not at all.
///
/// # Errors
/// When the defaults cannot be read.
pub(crate) fn simulation_of(settings: &Settings, code: &str) -> Result<simulated::Settings, Error> {
    let own = settings.warehouses.iter().find(|w| w.code == code);
    let seed = own.map_or(0, |w| w.partition);
    match own.filter(|w| w.wms.kind == WmsKind::Simulated) {
        Some(warehouse) => Ok(simulation(&warehouse.wms, seed)),
        None => {
            let wms = settings::simulated_wms().map_err(|e| Error::System(e))?;
            Ok(simulation(&wms, seed))
        }
    }
}

fn simulation(wms: &settings::Wms, partition: u16) -> simulated::Settings {
    simulated::Settings {
        pick: wms.pick,
        pack: wms.pack,
        depart: wms.depart,
        short_pick_rate: wms.short_pick_rate,
        damage_rate: wms.damage_rate,
        reject_rate: wms.reject_rate,
        refuse_rate: wms.refuse_rate,
        forget_rate: wms.forget_rate,
        silent_rate: wms.silent_rate,
        late_rate: wms.late_rate,
        repeat_rate: wms.repeat_rate,
        reorder_rate: wms.reorder_rate,
        die_after: wms.die_after,
        // The same after every restart: what is to happen to a release must not change.
        seed: u64::from(partition),
    }
}

/// Every client that a key names, once; without keys the one that all callers are.
fn clients(keys: &[Key]) -> Vec<String> {
    let mut clients: Vec<String> = keys.iter().filter_map(|key| key.client.clone()).collect();
    if keys.is_empty() {
        clients.push(LOCAL_CLIENT.into());
    }
    clients.sort();
    clients.dedup();
    clients
}

fn http_options(settings: &Settings, drain: CancellationToken) -> HttpOptions {
    let body_max = settings.limits.body_max.as_u64();
    let bytes = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    HttpOptions {
        keys: settings.keys.iter().map(key).collect(),
        body_max: bytes(body_max),
        batch_body_max: bytes(body_max.max(BATCH_BODY_MAX)),
        client_rate: NonZeroU32::new(settings.limits.client_rate),
        retention: settings.transactions.retention,
        drain,
        streams_max: settings.limits.sse_connections_max,
        cors_origins: settings.http.cors_origins.clone(),
        // With keys a caller proves who it is; without, only that it stands on this machine.
        loopback_only: settings.keys.is_empty(),
        grace: settings.shutdown.grace,
    }
}

fn key(key: &Key) -> KeyConfig {
    let role = match key.role {
        KeyRole::Client => Role::Client { client: key.client.clone().unwrap_or_default() },
        KeyRole::Wms => Role::Wms { warehouses: key.warehouses.clone() },
        KeyRole::Operator => Role::Operator,
    };
    KeyConfig { role, sha256: key.sha256 }
}
