//! The server under test: this same program with warehouses, a WMS and stock of the benchmark's
//! own, in a directory that is thrown away.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::load::{FixedRequests, Load, Pace, Requests};
use super::order::{self, code};
use super::process::Served;
use super::redis::RedisServer;
use super::wire::Connection;
use super::{Bench, Error};

/// No measure may end at a full lane.
pub(super) const BACKLOG_MAX: u64 = 10_000_000;
/// The longest that anything may take to happen that a measure waits for, without any progress.
const STILL_MAX: Duration = Duration::from_secs(60);
/// Enough that receipts are written together.
const STOCK_CONNECTIONS: usize = 32;
/// Between two looks at something that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How the WMS of every warehouse behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wms {
    /// It would do everything at once, but its warehouse is to be paused: orders are accepted and
    /// stay in their lane.
    Paused,
    /// Everything is done the moment it is asked for.
    AtOnce,
    /// It answers no call.
    Dead,
    /// Picking takes it a second.
    Slow,
    /// It gets as many orders as it likes and answers no call: they stay open.
    Holds,
}

impl Wms {
    fn settings(self) -> &'static str {
        match self {
            Wms::AtOnce | Wms::Paused => r#"{ kind = "simulated", pick = "0s", pack = "0s", depart = "0s" }"#,
            Wms::Dead => r#"{ kind = "simulated", silent_rate = 1.0 }"#,
            Wms::Holds => r#"{ kind = "simulated", silent_rate = 1.0, credits = 100000 }"#,
            Wms::Slow => r#"{ kind = "simulated", pick = "1s", pack = "0s", depart = "0s" }"#,
        }
    }
}

/// The numbers of warehouses and their partitions.
pub(super) fn warehouses(count: u32) -> impl Iterator<Item = (u32, u16)> {
    (0..count).zip(1..)
}

/// How many of the first `count` orders go to the `n`th of so many warehouses.
pub(super) fn orders_of(n: u32, warehouses: u32, count: u64) -> u64 {
    (count + u64::from(warehouses - 1 - n)) / u64::from(warehouses)
}

/// What the user passes on to the server under test.
#[derive(Clone, Debug, Default)]
pub(crate) struct Passed {
    /// `--config`, in order.
    pub(crate) files: Vec<PathBuf>,
    /// `--set`, as `key=value`, in order.
    pub(crate) sets: Vec<String>,
    /// Whether they ask for the store in Redis: then each store is a Redis of its own.
    pub(crate) is_redis: bool,
}

impl Passed {
    /// Starts a server with this many warehouses on the store in `dir`.
    ///
    /// # Errors
    /// When it does not start.
    pub(super) fn start(&self, dir: &Path, count: u32, wms: Wms) -> Result<Served, Error> {
        self.start_with(dir, count, wms, "keys = []\n")
    }

    /// The same with settings of its own, the keys among them.
    ///
    /// # Errors
    /// When it does not start.
    pub(super) fn start_with(&self, dir: &Path, count: u32, wms: Wms, more: &str) -> Result<Served, Error> {
        let redis = self.is_redis.then(|| RedisServer::start(&dir.join("redis"))).transpose()?;
        let url = redis.as_ref().map(RedisServer::url);
        Ok(self.start_on(dir, url.as_deref(), count, wms, more)?.on(redis))
    }

    /// The same on a Redis that is there already.
    ///
    /// # Errors
    /// When it does not start.
    pub(super) fn start_on(
        &self,
        dir: &Path,
        redis: Option<&str>,
        count: u32,
        wms: Wms,
        more: &str,
    ) -> Result<Served, Error> {
        let write = |name: &str, text: &str| {
            let path = dir.join(name);
            std::fs::write(&path, text).map_err(|e| Error::io("write settings", e)).map(|()| path)
        };
        // Below what the user sets, and above it: the benchmark knows no other warehouses.
        let below = write("below.toml", "[log]\nlevel = \"warn\"\n[manifests]\nclose_every = \"100ms\"\n")?;
        let above = write("above.toml", &format!("{more}{}", above(count, wms)))?;
        let mut args = vec!["serve".to_owned()];
        let mut option = |name: &str, value: String| args.extend([name.to_owned(), value]);
        for file in [&below].into_iter().chain(&self.files).chain([&above]) {
            let file = std::path::absolute(file).map_err(|e| Error::io("find a file of settings", e))?;
            option("--config", file.display().to_string());
        }
        for set in &self.sets {
            option("--set", set.clone());
        }
        option("--set", "http.listen=127.0.0.1:0".into());
        option("--set", format!("store.embedded.data_dir={:?}", dir.join("data")));
        option("--set", format!("store.redis.receipts_dir={:?}", dir.join("receipts")));
        if let Some(url) = redis {
            option("--set", format!("store.redis.urls=[{url:?}]"));
        }
        Served::start(dir, args)
    }
}

fn above(count: u32, wms: Wms) -> String {
    let mut text = String::new();
    for (n, partition) in warehouses(count) {
        // Writing to a String cannot fail.
        writeln!(
            text,
            "[[warehouses]]\ncode = \"{}\"\npartition = {partition}\nbacklog_max = {BACKLOG_MAX}\nwms = {}",
            code(n),
            wms.settings()
        )
        .ok();
    }
    text
}

/// Books the stock of the first `count` warehouses and waits until it is there.
///
/// # Errors
/// When a receipt is refused, or nothing is booked for too long.
pub(super) async fn stock(address: SocketAddr, count: u32) -> Result<(), Error> {
    once(address, (0..count).flat_map(order::receipts).collect(), 202, "stock").await?;
    for n in 0..count {
        until(address, n, |on_hand| on_hand == order::STOCK).await?;
    }
    Ok(())
}

/// Pauses the first `count` warehouses: from the answer on nothing is pulled, also after a restart.
///
/// # Errors
/// When one cannot be paused.
pub(super) async fn pause(address: SocketAddr, count: u32) -> Result<(), Error> {
    once(address, (0..count).map(order::pause).collect(), 200, "pause").await
}

/// Sends each request once; every answer must have the status that is wanted.
pub(super) async fn once(
    address: SocketAddr,
    requests: Vec<Vec<u8>>,
    wanted: u16,
    name: &str,
) -> Result<(), Error> {
    let load = Load {
        address,
        connections: STOCK_CONNECTIONS,
        requests: Requests::Fixed(Rc::new(FixedRequests::once(requests))),
        pace: Pace::Answers,
        warm: Duration::ZERO,
        window: Duration::ZERO,
        wanted,
    };
    let answered = load.send_all().await.map_err(|e| Error::io("prepare the warehouses", e))?;
    Bench::sound(answered, name).map(|_answered| ())
}

/// Waits until this many units have left the `n`th warehouse.
///
/// # Errors
/// When none leaves for too long.
pub(super) async fn shipped(address: SocketAddr, n: u32, units: u64) -> Result<(), Error> {
    until(address, n, |on_hand| order::STOCK.saturating_sub(on_hand) >= units).await
}

/// Waits until this many nodes share the warehouses.
///
/// # Errors
/// When one has none for too long.
pub(super) async fn shared(address: SocketAddr, nodes: usize) -> Result<(), Error> {
    let request = order::get("/v1/ops/actors", "");
    let failed = |e| Error::io("look at the nodes", e);
    let mut connection = Connection::open(address).await.map_err(failed)?;
    let begun = Instant::now();
    while begun.elapsed() < STILL_MAX {
        let answer = connection.exchange(request.as_bytes()).await.map_err(failed)?;
        let report: Value = serde_json::from_slice(answer.body).unwrap_or_default();
        let all = report["nodes"].as_array().map(Vec::as_slice).unwrap_or_default();
        let works = |node: &&Value| node["warehouses"].as_array().is_some_and(|own| !own.is_empty());
        if all.iter().filter(works).count() == nodes {
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Err(Error::failed(format!("the warehouses are not shared by {nodes} nodes")))
}

async fn until(address: SocketAddr, n: u32, enough: impl Fn(u64) -> bool) -> Result<(), Error> {
    let request = order::get(&format!("/v1/warehouses/{}/inventory?limit=1000", code(n)), "");
    let mut connection = Connection::open(address).await.map_err(|e| Error::io("look at stock", e))?;
    let (mut last, mut changed) = (0, Instant::now());
    loop {
        let answer = connection.exchange(request.as_bytes()).await;
        let answer = answer.map_err(|e| Error::io("look at stock", e))?;
        let page: Value = serde_json::from_slice(answer.body).unwrap_or_default();
        let items = page["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        let on_hand = items.iter().filter_map(|item| item["on_hand"].as_u64()).sum();
        if enough(on_hand) {
            return Ok(());
        }
        if on_hand != last {
            (last, changed) = (on_hand, Instant::now());
        }
        if changed.elapsed() > STILL_MAX {
            let told = format!("nothing moves in {}: {on_hand} units are there", code(n));
            return Err(Error::failed(told));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Sources, load};

    #[test]
    fn orders_go_to_the_warehouses_in_turn() {
        assert_eq!([0, 1, 2].map(|n| orders_of(n, 3, 10)), [4, 3, 3]);
        assert_eq!([0, 1, 2].map(|n| orders_of(n, 3, 12)), [4, 4, 4]);
        assert_eq!([0, 1, 2].map(|n| orders_of(n, 3, 1)), [1, 0, 0]);
    }

    #[test]
    fn the_settings_of_every_behaviour_are_valid() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("above.toml");
        for wms in [Wms::Paused, Wms::AtOnce, Wms::Dead, Wms::Slow, Wms::Holds] {
            std::fs::write(&file, format!("keys = []\n{}", above(100, wms))).unwrap();
            let sources = Sources { files: vec![file.clone()], ..Sources::default() };
            let settings = load(&sources).unwrap().settings;
            assert_eq!((settings.warehouses.len(), settings.keys.len()), (100, 0));
            let last = &settings.warehouses[99];
            assert_eq!((last.code.as_str(), last.partition, last.backlog_max), ("W099", 100, BACKLOG_MAX));
            assert_eq!(last.wms.silent_rate > 0.0, matches!(wms, Wms::Dead | Wms::Holds));
        }
    }
}
