//! Waves: what is ready goes to the WMS, as far as credits reach.

use chrono::{Days, TimeZone, Utc};

use super::{Scope, Turn};
use crate::actors::book::{Book, OpenOrder};
use crate::actors::options::WarehouseOptions;
use crate::actors::site::Site;
use crate::domain::fact::{OrderFact, Units};
use crate::domain::ids::{ReleaseId, TransactionId, WaveId};
use crate::domain::release::Release;
use crate::domain::time::Timestamp;
use crate::ports::store::StoredWave;
use crate::ports::wms::{ReleaseOut, Wave};

impl Turn<'_> {
    /// Orders that could go now, first in rank first: as many as there are free credits, none while
    /// the warehouse is paused.
    pub(crate) fn releasable(&self, paused: bool) -> Vec<TransactionId> {
        let free = (self.site.warehouse.credits as usize).saturating_sub(self.book.credits_used());
        let ready = self.book.ready().take(if paused { 0 } else { free });
        match &self.scope {
            Scope::Full => ready.collect(),
            Scope::Open(only) => ready.filter(|id| only.contains(id)).collect(),
            Scope::Entries => Vec::new(),
        }
    }

    /// Releases orders in waves as the WmsLink planned them; each takes a credit.
    pub(crate) fn release(&mut self, waves: Vec<Vec<TransactionId>>) {
        for orders in waves {
            let id = self.site.node.new_id(self.site.partition());
            let mut releases = Vec::with_capacity(orders.len());
            for order in orders {
                let Some(open) = self.book.order(order) else { continue };
                let Some(n) = open.order.releases().last().map_or(Some(1), |r| r.n.checked_add(1)) else {
                    self.too_long(order);
                    continue;
                };
                self.record(order, vec![OrderFact::Released { n, wave: id, units: Units::Whole }]);
                releases.push(ReleaseId { order, n });
            }
            if releases.is_empty() {
                continue;
            }
            let orders = u32::try_from(releases.len()).unwrap_or(u32::MAX);
            self.book.pace.released(self.now, orders);
            self.book.wave_out(id, releases.clone());
            self.writes.waves.push(StoredWave { id, releases });
        }
    }
}

/// A wave as it is sent, from the folds of its orders: the same content every time. Where the
/// goods go is read when it is sent.
pub(crate) fn wave_out(site: &Site, book: &Book, id: WaveId, releases: &[ReleaseId]) -> Wave {
    let mut released_at = id.at();
    let mut orders = Vec::with_capacity(releases.len());
    for &release in releases {
        // One that is kept aside goes again, in a wave of its own, when it is redriven.
        let Some(open) = book.order(release.order).filter(|o| !o.order.is_aside()) else { continue };
        let Some(held) = open.order.release(release.n) else { continue };
        released_at = held.at;
        orders.push(release_out(site, open, held, release));
    }
    Wave { id, released_at, orders }
}

fn release_out(site: &Site, open: &OpenOrder, held: &Release, release: ReleaseId) -> ReleaseOut {
    let sku = |line| open.order.lines().iter().find(|l| l.number == line).map(|l| l.sku.clone());
    ReleaseOut {
        release,
        owner: site.node.client_names.get(&open.client).cloned().unwrap_or_default(),
        reference: open.reference.clone(),
        correlation: open.correlation.clone(),
        trace: open.trace.clone(),
        service_level: open.order.service_level.clone(),
        priority: open.priority.0,
        requested_ship_by: open.order.requested_ship_by,
        cut_off: next_cut_off(&site.warehouse, &open.order.service_level, held.at),
        ship_to: None,
        lines: held.lines.iter().filter_map(|l| Some((l.line, sku(l.line)?, l.asked))).collect(),
    }
}

/// When the truck of a service leaves next after `at`, by the warehouse's own clock.
fn next_cut_off(warehouse: &WarehouseOptions, service: &str, at: Timestamp) -> Option<Timestamp> {
    let time = *warehouse.cut_offs.get(service)?;
    let now = Utc.timestamp_millis_opt(at.0).single()?.with_timezone(&warehouse.timezone);
    // A local time that a clock change skips has no truck that day.
    (0..3).find_map(|day| {
        let date = now.date_naive().checked_add_days(Days::new(day))?;
        let leaves = warehouse.timezone.from_local_datetime(&date.and_time(time)).earliest()?;
        (leaves > now).then(|| Timestamp(leaves.timestamp_millis()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::PartitionId;
    use std::collections::BTreeMap;

    #[test]
    fn a_cut_off_is_read_by_the_warehouses_own_clock() {
        let warehouse = WarehouseOptions {
            code: "ATL1".into(),
            partition: PartitionId(1),
            timezone: chrono_tz::America::New_York,
            backlog_max: 1,
            services: vec!["ground".into()],
            cut_offs: BTreeMap::from([(
                "ground".to_owned(),
                chrono::NaiveTime::from_hms_opt(18, 0, 0).unwrap(),
            )]),
            carriers: BTreeMap::new(),
            credits: 1,
            wave_max: 1,
        };
        let at = |s: &str| Timestamp(chrono::DateTime::parse_from_rfc3339(s).unwrap().timestamp_millis());
        let next = |s| next_cut_off(&warehouse, "ground", at(s));
        assert_eq!(next("2026-11-24T22:59:59Z"), Some(at("2026-11-24T23:00:00Z")));
        assert_eq!(next("2026-11-24T23:00:00Z"), Some(at("2026-11-25T23:00:00Z")));
        assert_eq!(next("2026-07-01T12:00:00Z"), Some(at("2026-07-01T22:00:00Z")));
        assert_eq!(next_cut_off(&warehouse, "express", at("2026-07-01T12:00:00Z")), None);
    }
}
