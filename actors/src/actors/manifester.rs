//! Manifesting: gathers packed cartons by carrier and service, says when a manifest closes, and
//! gives SSCC serials out of its durable block.

use actix::prelude::*;
use std::collections::BTreeMap;

use super::book::OpenOrder;
use super::gate::Gated;
use super::report::Observed;
use super::site::Site;
use super::tripwire::{Stop, Tripwire};
use crate::domain::ids::{ReleaseId, TransactionId};
use crate::domain::sscc::Sscc;
use crate::domain::time::Timestamp;
use crate::ports::faults::FaultPoint;
use crate::ports::store::ManifestCarton;

/// Manifests closed in one turn: with `cartons_max` of 200 a commit stays under a thousand facts.
const CLOSINGS_MAX: usize = 4;

/// Asks which manifests are due and for serials.
#[derive(Debug, Message)]
#[rtype(result = "ManifestAnswer")]
pub(crate) struct ManifestTurn {
    pub(crate) now: Timestamp,
    /// Serials wanted.
    pub(crate) serials: usize,
    /// A fresh block of serials (first, count), when the rest of the old one is too small.
    pub(crate) block: Option<(u64, u64)>,
}

/// What is due.
#[derive(Debug)]
pub(crate) struct ManifestAnswer {
    pub(crate) closings: Vec<Closing>,
    pub(crate) serials: Vec<Sscc>,
}

/// A manifest that closes now, with its cartons by order.
#[derive(Debug)]
pub(crate) struct Closing {
    pub(crate) carrier: String,
    pub(crate) service_level: String,
    pub(crate) cartons: BTreeMap<TransactionId, Vec<ManifestCarton>>,
}

/// Cartons that may be loaded. Idempotent: a carton it has is not taken twice.
#[derive(Debug, Message)]
#[rtype(result = "Standing")]
pub(crate) struct Load(pub(crate) Vec<LoadCarton>);

/// A carton that may be loaded.
#[derive(Debug)]
pub(crate) struct LoadCarton {
    carrier: String,
    service_level: String,
    packed_at: Timestamp,
    carton: ManifestCarton,
}

/// Where the Manifester stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    /// When the next manifest closes, or never.
    pub(crate) closes_at: Timestamp,
    /// Serials left in the block.
    pub(crate) serials_left: u64,
}

#[derive(Debug, Default)]
struct Group {
    /// By code and release, so that a carton is here once for each that has units in it; with when
    /// it was packed.
    cartons: BTreeMap<(Sscc, ReleaseId), (Timestamp, ManifestCarton)>,
}

/// The actor.
pub(crate) struct Manifester {
    site: Site,
    groups: BTreeMap<(String, String), Group>,
    next_serial: u64,
    block_end: u64,
    _tripwire: Tripwire,
}

impl Manifester {
    pub(crate) fn new(site: Site, tripwire: Tripwire) -> Manifester {
        Manifester { site, groups: BTreeMap::new(), next_serial: 0, block_end: 0, _tripwire: tripwire }
    }

    fn closes_at(&self, group: &Group) -> Timestamp {
        let rules = &self.site.node.rules;
        if group.cartons.len() >= rules.manifest_cartons_max {
            return Timestamp(0);
        }
        let oldest = group.cartons.values().map(|(packed_at, _)| *packed_at).min();
        oldest.map_or(Timestamp::NEVER, |at| at.after(rules.manifest_close_every))
    }

    fn close_due(&mut self, now: Timestamp) -> Vec<Closing> {
        let due: Vec<_> =
            self.groups.iter().filter(|(_, g)| self.closes_at(g) <= now).map(|(k, _)| k.clone()).collect();
        due.into_iter().take(CLOSINGS_MAX).filter_map(|key| self.close(key)).collect()
    }

    fn close(&mut self, key: (String, String)) -> Option<Closing> {
        let max = self.site.node.rules.manifest_cartons_max;
        let group = self.groups.get_mut(&key)?;
        let mut cartons: BTreeMap<TransactionId, Vec<ManifestCarton>> = BTreeMap::new();
        for _ in 0..max {
            let Some((_, (_, carton))) = group.cartons.pop_first() else { break };
            cartons.entry(carton.release.order).or_default().push(carton);
        }
        if group.cartons.is_empty() {
            self.groups.remove(&key);
        }
        let (carrier, service_level) = key;
        Some(Closing { carrier, service_level, cartons })
    }

    fn take_serials(&mut self, wanted: usize) -> Vec<Sscc> {
        let end = self.block_end.min(self.next_serial + wanted as u64);
        let prefix = self.site.node.rules.sscc_prefix;
        let serials = (self.next_serial..end).map(|serial| Sscc::build(prefix, serial)).collect();
        self.next_serial = end;
        serials
    }

    fn show(&self) {
        self.site.desk.vitals().manifester.show(Observed::Manifester {
            groups: self.groups.len(),
            cartons: self.groups.values().map(|g| g.cartons.len()).sum(),
            serials_left: self.block_end - self.next_serial,
        });
    }

    fn standing(&self) -> Standing {
        let closes_at = self.groups.values().map(|g| self.closes_at(g)).min().unwrap_or(Timestamp::NEVER);
        Standing { closes_at, serials_left: self.block_end - self.next_serial }
    }
}

impl Actor for Manifester {
    type Context = Context<Self>;
}

impl Handler<Stop> for Manifester {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

impl Handler<Gated<ManifestTurn>> for Manifester {
    type Result = MessageResult<Gated<ManifestTurn>>;

    fn handle(&mut self, gated: Gated<ManifestTurn>, _: &mut Self::Context) -> Self::Result {
        let _handling = self.site.desk.vitals().manifester.handle();
        self.site.strike(FaultPoint::Manifester);
        let ManifestTurn { now, serials, block } = gated.message;
        if let Some((first, count)) = block {
            // The rest of the old block is a gap; gaps are allowed, repeats are not.
            (self.next_serial, self.block_end) = (first, first + count);
        }
        let answer = ManifestAnswer { closings: self.close_due(now), serials: self.take_serials(serials) };
        drop(gated.permit);
        MessageResult(answer)
    }
}

impl Handler<Gated<Load>> for Manifester {
    type Result = MessageResult<Gated<Load>>;

    fn handle(&mut self, gated: Gated<Load>, _: &mut Self::Context) -> Self::Result {
        let _handling = self.site.desk.vitals().manifester.handle();
        self.site.strike(FaultPoint::ManifesterLoads);
        for load in gated.message.0 {
            let group = self.groups.entry((load.carrier, load.service_level)).or_default();
            let key = (load.carton.sscc, load.carton.release);
            group.cartons.entry(key).or_insert((load.packed_at, load.carton));
        }
        drop(gated.permit);
        self.show();
        MessageResult(self.standing())
    }
}

/// The cartons of an order that may be loaded now.
pub(crate) fn loadable(open: &OpenOrder) -> Vec<LoadCarton> {
    let order = open.order.id;
    open.order
        .loadable()
        .map(|(n, c)| LoadCarton {
            carrier: c.carrier.clone(),
            service_level: open.order.service_level.clone(),
            packed_at: c.packed_at,
            carton: ManifestCarton {
                sscc: c.carton.sscc,
                carton_id: c.carton.carton_id.clone(),
                release: ReleaseId { order, n },
            },
        })
        .collect()
}
