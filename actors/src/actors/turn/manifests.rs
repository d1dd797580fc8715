//! Manifests: closing those that are due, and their departure.

use std::collections::BTreeSet;

use super::Turn;
use crate::actors::book::OpenManifest;
use crate::actors::manifester::Closing;
use crate::domain::command::{Command, ManifestCommand};
use crate::domain::confirmation::{Confirmation, Unbookable};
use crate::domain::fact::{Accepted, Fact, ManifestFact, OrderFact};
use crate::domain::ids::{ClientNo, TransactionId};
use crate::domain::manifest::Manifest;
use crate::ports::store::ManifestCarton;
use crate::ports::wms::ManifestOut;

impl Turn<'_> {
    /// Closes the manifests that the Manifester says are due: the manifest begins and closes, and
    /// its orders are manifested, all in this commit.
    pub(crate) fn close(&mut self, closings: Vec<Closing>) {
        for closing in closings {
            self.close_one(closing);
        }
    }

    fn close_one(&mut self, closing: Closing) {
        let site = self.site;
        let id = site.node.new_id(site.partition());
        let reference = format!("{}:{}:{}:{id}", site.warehouse.code, closing.carrier, closing.service_level);
        let reference = reference.parse().or_else(|_| id.to_string().parse());
        let command = ManifestCommand {
            reference: reference.expect("an id is a reference"),
            carrier: closing.carrier.clone(),
            service_level: closing.service_level.clone(),
        };
        let mut orders = BTreeSet::new();
        let mut cartons = Vec::with_capacity(closing.cartons.len());
        for (order, of_order) in &closing.cartons {
            // What the Manifester gathered may have been cancelled or failed since.
            let Some(open) = self.book.order(*order) else { continue };
            let loadable: Vec<ManifestCarton> = of_order
                .iter()
                .filter(|c| open.order.loadable().any(|(n, l)| (n, l.carton.sscc) == (c.release.n, c.sscc)))
                .cloned()
                .collect();
            if loadable.is_empty() {
                continue;
            }
            let sscc = loadable.iter().map(|c| c.sscc).collect();
            self.record(*order, vec![OrderFact::Manifested { manifest: id, cartons: sscc }]);
            orders.insert(*order);
            cartons.extend(loadable);
        }
        if orders.is_empty() {
            return;
        }
        let count = u32::try_from(cartons.len()).unwrap_or(u32::MAX);
        let closed = ManifestFact::Closed { cartons: count };
        let correlation = id.to_string().parse().expect("an id is a correlation id");
        let accepted = Accepted { correlation, trace: site.node.new_trace() };
        self.note(id, ClientNo::HOUSE, 0, vec![Fact::Accepted(accepted), Fact::Manifest(closed)]);
        let mut manifest = Manifest::default();
        manifest.apply(closed);
        self.writes.created.push((id, Command::Manifest(command)));
        self.writes.opened.push(id);
        self.writes.cartons.push((id, cartons));
        let open = OpenManifest {
            version: self.version_of(id),
            manifest,
            carrier: closing.carrier,
            service_level: closing.service_level,
            closed_at: self.now,
            orders,
        };
        self.book.manifests.insert(id, open);
    }

    /// Books a departure: all the manifest's cartons left. A repeat finds nothing to do.
    pub(super) fn departed(&mut self, id: TransactionId, report: &(Option<u64>, Confirmation)) {
        let Some(mut open) = self.book.manifests.remove(&id) else {
            if !self.past_manifests.contains(&id) {
                self.unbookable(report, Unbookable::UnknownManifest);
            }
            return;
        };
        for &order in &open.orders {
            // What left by itself before has nothing more to say.
            if !self.book.order(order).is_some_and(|o| o.order.manifests().any(|m| m == id)) {
                continue;
            }
            self.record(order, vec![OrderFact::Shipped { manifest: id }]);
        }
        open.manifest.apply(ManifestFact::Departed);
        self.note(id, ClientNo::HOUSE, open.version, vec![Fact::Manifest(ManifestFact::Departed)]);
        self.past_manifests.insert(id);
        self.writes.closed.push(id);
        self.writes.ended.push((id, self.now));
    }
}

/// A manifest as it is sent to the WMS, but for its cartons.
pub(crate) fn manifest_out(id: TransactionId, open: &OpenManifest) -> ManifestOut {
    ManifestOut {
        id,
        carrier: open.carrier.clone(),
        service_level: open.service_level.clone(),
        closed_at: open.closed_at,
        cartons: Vec::new(),
    }
}
