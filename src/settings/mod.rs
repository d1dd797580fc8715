//! The settings: what they are and what each may be.
//!
//! Parsed once at the start; every type here holds only values that work. Layering and the
//! report of faults are in [`load`], the display in [`show`]. Nothing here opens, binds or starts.

mod check;
mod cluster;
mod fault;
mod layers;
mod load;
mod parse;
mod redis;
mod show;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use chrono::NaiveTime;
use ipnet::IpNet;
use serde::Deserialize;
use wavegate_engine::domain::sscc::CompanyPrefix;
use wavegate_engine::wms::http::{ApiKey, BaseUrl};

pub(crate) use check::doubts;
pub(crate) use cluster::Cluster;
pub(crate) use fault::Faults;
pub(crate) use layers::{Assignment, Sources};
pub(crate) use load::{Loaded, load, simulated_wms};
pub(crate) use parse::{CLIENT_EXPECTED, client_name};
pub(crate) use redis::{Redis, RedisDurability, RedisUrl};
pub(crate) use show::show;

/// The built-in defaults, as they stand in the repository.
pub(crate) const DEFAULTS: &str = include_str!("../../config/default.toml");

/// A day in milliseconds, for bounds.
const DAY_MS: u64 = 86_400_000;
/// Ten years in milliseconds: the longest that anything may be kept or waited for.
const TEN_YEARS_MS: u64 = 3_650 * DAY_MS;

/// All settings.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// The HTTP server.
    pub(crate) http: Http,
    /// Where everything is kept.
    pub(crate) store: Store,
    /// In configured order, which is the order of routing.
    pub(crate) warehouses: Vec<Warehouse>,
    /// Who may call.
    #[serde(default)]
    pub(crate) keys: Vec<Key>,
    /// The engine.
    pub(crate) engine: Engine,
    /// Patience with warehouse management systems.
    pub(crate) wms: WmsPatience,
    /// Manifests.
    pub(crate) manifests: Manifests,
    /// Events.
    pub(crate) events: Events,
    /// Webhooks.
    pub(crate) webhooks: Webhooks,
    /// Transactions.
    pub(crate) transactions: Transactions,
    /// Limits.
    pub(crate) limits: Limits,
    /// Waiting for stock.
    pub(crate) backorder: Backorder,
    /// Several nodes on one store.
    pub(crate) cluster: Cluster,
    /// Logs.
    pub(crate) log: Log,
    /// The end.
    pub(crate) shutdown: Shutdown,
}

/// `[http]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Http {
    /// Port 0 takes a free one.
    #[serde(deserialize_with = "parse::listen")]
    pub(crate) listen: SocketAddr,
    /// Exactly as a browser writes them.
    #[serde(deserialize_with = "parse::origins")]
    pub(crate) cors_origins: Vec<String>,
}

/// `[store]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Store {
    /// Which backend.
    pub(crate) backend: Backend,
    /// The embedded backend's own.
    pub(crate) embedded: Embedded,
    /// The Redis backend's own.
    pub(crate) redis: Redis,
}

/// The store's backends in this version.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Backend {
    /// LMDB in a data directory.
    Embedded,
    /// A Redis server.
    Redis,
}

/// `[store.embedded]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Embedded {
    /// Relative to the working directory.
    #[serde(deserialize_with = "parse::path")]
    pub(crate) data_dir: PathBuf,
    /// The map's size in bytes.
    #[serde(deserialize_with = "parse::size::<_, { 16 << 20 }, { 64 << 40 }>")]
    pub(crate) size_max: ByteSize,
}

/// One of `[[warehouses]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Warehouse {
    /// Its name on the wire.
    #[serde(deserialize_with = "parse::code")]
    pub(crate) code: String,
    /// For ever.
    #[serde(deserialize_with = "parse::number::<_, _, 0, 65_535>")]
    pub(crate) partition: u16,
    /// Of its cut-offs.
    #[serde(deserialize_with = "parse::timezone")]
    pub(crate) timezone: chrono_tz::Tz,
    /// Of the work lane.
    #[serde(deserialize_with = "parse::number::<_, _, 1, 10_000_000>")]
    pub(crate) backlog_max: u64,
    /// Service levels.
    pub(crate) services: Vec<String>,
    /// Service level to local time.
    #[serde(deserialize_with = "parse::cut_offs")]
    pub(crate) cut_offs: BTreeMap<String, NaiveTime>,
    /// Service level to carrier.
    pub(crate) carriers: BTreeMap<String, String>,
    /// Its WMS.
    pub(crate) wms: Wms,
}

/// The WMS of a warehouse.
///
/// One table for all kinds, so that a fault can name the very field; which fields belong to which
/// kind is [`check`]'s. What another kind has is at its empty value and means nothing.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wms {
    /// Which one.
    pub(crate) kind: WmsKind,
    /// Orders in a wave.
    #[serde(deserialize_with = "parse::number::<_, _, 1, 1_000>")]
    pub(crate) wave_max: usize,
    /// Releases in its hands.
    #[serde(deserialize_with = "parse::number::<_, _, 1, 100_000>")]
    pub(crate) credits: u32,
    /// `http`: where it is.
    #[serde(default, deserialize_with = "parse::url")]
    pub(crate) url: Option<BaseUrl>,
    /// `http`: what it knows us by.
    #[serde(default, deserialize_with = "parse::api_key")]
    pub(crate) key: Option<ApiKey>,
    /// `simulated`: from the wave to picked.
    #[serde(default, deserialize_with = "parse::duration::<_, 0, DAY_MS>")]
    pub(crate) pick: Duration,
    /// `simulated`: from picked to packed.
    #[serde(default, deserialize_with = "parse::duration::<_, 0, DAY_MS>")]
    pub(crate) pack: Duration,
    /// `simulated`: from the closed manifest to shipped.
    #[serde(default, deserialize_with = "parse::duration::<_, 0, DAY_MS>")]
    pub(crate) depart: Duration,
    /// `simulated`: share of lines.
    #[serde(default, deserialize_with = "parse::rate")]
    pub(crate) short_pick_rate: f64,
    /// `simulated`: share of lines.
    #[serde(default, deserialize_with = "parse::rate")]
    pub(crate) damage_rate: f64,
    /// `simulated`: share of orders.
    #[serde(default, deserialize_with = "parse::rate")]
    pub(crate) reject_rate: f64,
    /// `simulated`: share of orders for whose sake whole waves are refused.
    #[serde(default, deserialize_with = "parse::rate")]
    pub(crate) refuse_rate: f64,
    /// `simulated`: share of orders.
    #[serde(default, deserialize_with = "parse::rate")]
    pub(crate) forget_rate: f64,
    /// `simulated`: share of calls.
    #[serde(default, deserialize_with = "parse::rate")]
    pub(crate) silent_rate: f64,
    /// `simulated`: share of calls.
    #[serde(default, deserialize_with = "parse::rate")]
    pub(crate) late_rate: f64,
    /// `simulated`: share of reports.
    #[serde(default, deserialize_with = "parse::rate")]
    pub(crate) repeat_rate: f64,
    /// `simulated`: share of reports.
    #[serde(default, deserialize_with = "parse::rate")]
    pub(crate) reorder_rate: f64,
    /// `simulated`: reports; 0 = never.
    #[serde(default, deserialize_with = "parse::number::<_, _, 0, 1_000_000_000>")]
    pub(crate) die_after: u64,
}

/// The kinds of WMS in this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum WmsKind {
    /// Inside this process.
    Simulated,
    /// Somebody else's program.
    Http,
}

impl WmsKind {
    /// The kind's name in the settings.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            WmsKind::Simulated => "simulated",
            WmsKind::Http => "http",
        }
    }
}

/// One of `[[keys]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Key {
    /// What it may do.
    pub(crate) role: KeyRole,
    /// Whose it is, for a client's.
    #[serde(default, deserialize_with = "parse::client")]
    pub(crate) client: Option<String>,
    /// Which warehouses, for a WMS's.
    #[serde(default)]
    pub(crate) warehouses: Vec<String>,
    /// Digest of the key as printed.
    #[serde(deserialize_with = "parse::sha256")]
    pub(crate) sha256: [u8; 32],
}

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum KeyRole {
    /// Its own transactions and stock.
    Client,
    /// Confirmations, moves and manifests of named warehouses.
    Wms,
    /// Everything.
    Operator,
}

/// `[engine]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Engine {
    /// 0 = by the cores.
    #[serde(deserialize_with = "parse::number::<_, _, 0, 256>")]
    pub(crate) threads: usize,
}

/// `[manifests]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifests {
    /// Age of the oldest carton.
    #[serde(deserialize_with = "parse::duration::<_, 100, DAY_MS>")]
    pub(crate) close_every: Duration,
    /// Cartons.
    #[serde(deserialize_with = "parse::number::<_, _, 1, 10_000>")]
    pub(crate) cartons_max: usize,
    /// GS1 company prefix.
    #[serde(deserialize_with = "parse::sscc_prefix")]
    pub(crate) sscc_prefix: CompanyPrefix,
}

/// `[events]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Events {
    /// In its client's feed.
    #[serde(deserialize_with = "parse::duration::<_, 1_000, TEN_YEARS_MS>")]
    pub(crate) retention: Duration,
}

/// `[webhooks]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Webhooks {
    /// Networks that deliveries may go to besides the public internet.
    #[serde(deserialize_with = "parse::cidrs")]
    pub(crate) allow_cidrs: Vec<IpNet>,
    /// The pause before each attempt but the first.
    #[serde(deserialize_with = "parse::schedule")]
    pub(crate) schedule: Vec<Duration>,
}

/// `[transactions]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Transactions {
    /// After their end.
    #[serde(deserialize_with = "parse::duration::<_, 1_000, TEN_YEARS_MS>")]
    pub(crate) retention: Duration,
}

/// `[limits]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Limits {
    /// Commands a second and client; 0 = off.
    #[serde(deserialize_with = "parse::number::<_, _, 0, 1_000_000>")]
    pub(crate) client_rate: u32,
    /// Of one command.
    #[serde(deserialize_with = "parse::size::<_, { 1 << 10 }, { 10 << 20 }>")]
    pub(crate) body_max: ByteSize,
    /// Streams of events.
    #[serde(deserialize_with = "parse::number::<_, _, 0, 1_000_000>")]
    pub(crate) sse_connections_max: usize,
    /// Of a feed, for its slowest stream.
    #[serde(deserialize_with = "parse::size::<_, { 64 << 10 }, { 1 << 30 }>")]
    pub(crate) sse_backlog_max: ByteSize,
    /// Requests that wait.
    #[serde(deserialize_with = "parse::number::<_, _, 0, 1_000_000>")]
    pub(crate) waiters_max: usize,
}

/// `[wms]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WmsPatience {
    /// With waves that are not answered.
    #[serde(deserialize_with = "parse::duration::<_, 1_000, TEN_YEARS_MS>")]
    pub(crate) give_up_after: Duration,
    /// With releases of which nothing new is heard.
    #[serde(deserialize_with = "parse::duration::<_, 1_000, TEN_YEARS_MS>")]
    pub(crate) silent_after: Duration,
}

/// `[backorder]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Backorder {
    /// For stock.
    #[serde(deserialize_with = "parse::duration::<_, 1_000, TEN_YEARS_MS>")]
    pub(crate) max_wait: Duration,
}

/// `[log]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Log {
    /// On standard error.
    pub(crate) format: LogFormat,
    /// Directives.
    #[serde(deserialize_with = "parse::log_level")]
    pub(crate) level: String,
}

/// How a log line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// `[shutdown]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Shutdown {
    /// From the signal to the end.
    #[serde(deserialize_with = "parse::duration::<_, 0, 3_600_000>")]
    pub(crate) grace: Duration,
}
