//! What all connections of a store share: whom to ask first, what a Redis must be, which primary has
//! which slot, how each was found. It must never talk to Redis.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use redis::{ConnectionAddr, ConnectionInfo};
use tokio::sync::Notify;
use uuid::Uuid;

use super::link::{LinkError, with_causes};
use super::server::{Doubt, Wanted};
use super::slots::{Address, SlotMap};

/// What all connections share.
pub(super) struct Shared {
    /// Where Redis is, or some nodes of a cluster. They may hold a password: they are never shown.
    seeds: Vec<ConnectionInfo>,
    /// What each Redis must be.
    pub(super) wanted: Wanted,
    /// Whose rows it must hold, once that is known.
    pub(super) store: parking_lot::Mutex<Option<Uuid>>,
    /// How the last call found each of them.
    standings: parking_lot::Mutex<BTreeMap<Address, Standing>>,
    /// Who has which slot; `None` before a cluster was asked.
    map: parking_lot::Mutex<Option<Arc<SlotMap>>>,
    /// The runs of Redis that are known to have all that was accepted: no others are used. `None`: any.
    pub(super) runs: parking_lot::Mutex<Option<BTreeSet<String>>>,
    /// Told when another run is met.
    pub(super) behind: Notify,
    /// Says nothing of what it finds: others do.
    is_quiet: bool,
}

/// How a Redis was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It answers.
    Well,
    /// It does not answer.
    Apart,
    /// It answers, and is not what the store needs.
    Unfit,
    /// It answers, and its replicas do not: it is read, and not written.
    Alone,
}

impl Shared {
    /// Nothing is known yet. There must be a seed.
    pub(super) fn new(seeds: Vec<ConnectionInfo>, wanted: Wanted) -> Shared {
        let only = seeds.first().filter(|_| !wanted.is_cluster);
        let map = only.map(|seed| Arc::new(SlotMap::Single(Address::of(seed.addr()))));
        Shared {
            seeds,
            wanted,
            store: parking_lot::Mutex::new(None),
            standings: parking_lot::Mutex::default(),
            map: parking_lot::Mutex::new(map),
            runs: parking_lot::Mutex::new(None),
            behind: Notify::new(),
            is_quiet: false,
        }
    }

    /// The same Redis for connections that lead to any run of it, and say nothing.
    pub(super) fn beside(&self) -> Shared {
        let beside = Shared::new(self.seeds.clone(), self.wanted);
        *beside.store.lock() = *self.store.lock();
        *beside.map.lock() = self.map();
        Shared { is_quiet: true, ..beside }
    }

    /// Where Redis was said to be.
    pub(super) fn seeds(&self) -> Vec<Address> {
        self.seeds.iter().map(|seed| Address::of(seed.addr())).collect()
    }

    /// How a Redis is connected to: as the seeds are, but for where it is.
    pub(super) fn info(&self, of: &Address) -> Option<ConnectionInfo> {
        let seed = self.seeds.iter().find(|seed| Address::of(seed.addr()) == *of);
        let seed = seed.or_else(|| self.seeds.first())?.clone();
        let addr = match seed.addr().clone() {
            ConnectionAddr::Tcp(..) => ConnectionAddr::Tcp(of.host.to_string(), of.port),
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
                ConnectionAddr::TcpTls { host: of.host.to_string(), port: of.port, insecure, tls_params }
            }
            other => other,
        };
        Some(seed.set_addr(addr))
    }

    /// Who has which slot, as far as it is known.
    pub(super) fn map(&self) -> Option<Arc<SlotMap>> {
        self.map.lock().clone()
    }

    /// A cluster has said who has which slot.
    pub(super) fn mapped(&self, map: SlotMap) -> Arc<SlotMap> {
        let map = Arc::new(map);
        let primaries = map.primaries();
        self.standings.lock().retain(|address, _| primaries.contains(address));
        *self.map.lock() = Some(Arc::clone(&map));
        map
    }

    /// A slot was found elsewhere.
    pub(super) fn moved(&self, slot: u16, to: Address) {
        if let Some(map) = &mut *self.map.lock() {
            Arc::make_mut(map).moved(slot, to);
        }
    }

    /// True when every slot is known to be with a Redis that answered last and is fit.
    pub(super) fn is_well(&self) -> bool {
        let is_whole = self.map().is_some_and(|map| map.is_whole());
        is_whole && self.standings.lock().values().all(|standing| *standing == Standing::Well)
    }

    /// Says once when it changes.
    pub(super) fn found(&self, redis: &Address, standing: Standing, why: &dyn std::error::Error) {
        let before = self.standings.lock().insert(redis.clone(), standing);
        if self.is_quiet || before == Some(standing) {
            return;
        }
        let why = with_causes(why);
        match standing {
            Standing::Well => {}
            Standing::Apart => {
                tracing::error!(%redis, why, "redis does not answer; nothing is accepted until it does")
            }
            Standing::Unfit => {
                tracing::error!(%redis, why, "redis cannot be used; nothing is accepted until it can")
            }
            Standing::Alone => {
                tracing::error!(%redis, why, "redis' replicas do not answer; nothing is accepted until they do")
            }
        }
    }

    /// Says once that it answers again. `with_replicas`: and they have acknowledged it.
    pub(super) fn found_well(&self, redis: &Address, with_replicas: bool) {
        let mut standings = self.standings.lock();
        match standings.get_mut(redis) {
            Some(Standing::Well) => return,
            Some(Standing::Alone) if !with_replicas => return,
            Some(standing @ (Standing::Apart | Standing::Unfit | Standing::Alone)) => {
                *standing = Standing::Well;
            }
            None => {
                standings.insert(redis.clone(), Standing::Well);
                return;
            }
        }
        if !self.is_quiet {
            tracing::info!(%redis, "redis answers again");
        }
    }

    /// Whether a run may be used; who looks after the receipts hears of one that may not.
    pub(super) fn check_run(&self, run: &str) -> Result<(), LinkError> {
        if self.runs.lock().as_ref().is_none_or(|known| known.contains(run)) {
            return Ok(());
        }
        self.behind.notify_one();
        Err(LinkError::Unfit(Arc::new(Doubt::Behind)))
    }
}
