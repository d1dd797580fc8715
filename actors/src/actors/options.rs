//! What actors are told and what they say, beyond their messages: settings, submissions, snapshots.
//! `engine` hands these types out as its own.

use chrono::NaiveTime;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::domain::command::{Command, ShipTo};
use crate::domain::endpoint::Schedule;
use crate::domain::estimate::{Estimate, PaceReport};
use crate::domain::ids::{ClientNo, CorrelationId, PartitionId, TraceContext, TransactionId};
use crate::domain::sscc::CompanyPrefix;
use crate::domain::state::State;
use crate::domain::time::Timestamp;
use crate::ports::store::{IdempotencyKey, Verdict};

/// One configured warehouse.
#[derive(Clone, Debug)]
pub struct WarehouseOptions {
    /// Its code on the wire.
    pub code: String,
    /// Its partition, for ever.
    pub partition: PartitionId,
    /// Where its cut-offs are read.
    pub timezone: chrono_tz::Tz,
    /// Orders that may wait in the work lane.
    pub backlog_max: u64,
    /// The services it offers.
    pub services: Vec<String>,
    /// When the truck of a service leaves, in local time.
    pub cut_offs: BTreeMap<String, NaiveTime>,
    /// Service to carrier; `ups` for the rest.
    pub carriers: BTreeMap<String, String>,
    /// Releases that may be unsettled at the WMS.
    pub credits: u32,
    /// Orders in a wave, at most.
    pub wave_max: usize,
}

/// The configured warehouses in their order, found by partition and by code at once.
#[derive(Clone, Debug, Default)]
pub struct Warehouses {
    all: Vec<WarehouseOptions>,
    by_partition: HashMap<PartitionId, usize>,
    by_code: HashMap<String, usize>,
}

impl Warehouses {
    /// Indexes warehouses; of two with one partition or code the first is found.
    #[must_use]
    pub fn new(all: Vec<WarehouseOptions>) -> Warehouses {
        let mut warehouses = Warehouses::default();
        for (place, warehouse) in all.iter().enumerate() {
            warehouses.by_partition.entry(warehouse.partition).or_insert(place);
            warehouses.by_code.entry(warehouse.code.clone()).or_insert(place);
        }
        Warehouses { all, ..warehouses }
    }

    /// All of them in configured order.
    pub fn iter(&self) -> std::slice::Iter<'_, WarehouseOptions> {
        self.all.iter()
    }

    /// The warehouse that lives in a partition.
    #[must_use]
    pub fn of(&self, partition: PartitionId) -> Option<&WarehouseOptions> {
        self.by_partition.get(&partition).and_then(|place| self.all.get(*place))
    }

    /// The warehouse with a code.
    #[must_use]
    pub fn named(&self, code: &str) -> Option<&WarehouseOptions> {
        self.by_code.get(code).and_then(|place| self.all.get(*place))
    }
}

/// Rules for all warehouses.
#[derive(Clone, Debug)]
pub struct Rules {
    /// A wait for stock ends after this long.
    pub backorder_max_wait: Duration,
    /// An order whose wave the WMS has not answered for this long becomes a dead letter.
    pub wms_give_up_after: Duration,
    /// A release that the WMS has said nothing new about for this long is asked for.
    pub wms_silent_after: Duration,
    /// A manifest closes when its oldest carton has waited this long.
    pub manifest_close_every: Duration,
    /// Or when it has this many cartons.
    pub manifest_cartons_max: usize,
    /// Prefix of the SSCCs that the house gives.
    pub sscc_prefix: CompanyPrefix,
    /// Outcomes of promises that are known before estimates are published;
    /// [`crate::domain::estimate::OUTCOMES_MIN`] but in a world that is over too soon for them.
    pub outcomes_min: usize,
    /// Ended transactions are kept this long, their tombstones as long again.
    pub retention: Duration,
    /// Events are kept this long, and never longer than an ended transaction: they point at it.
    pub events_retention: Duration,
    /// Callers that may wait for a change at once.
    pub waiters_max: usize,
    /// Bytes of a feed's events that a stream may have to read still.
    pub stream_backlog_max: usize,
    /// The pauses between the attempts of a webhook.
    pub webhook_schedule: Schedule,
}

/// A command as HTTP hands it in.
#[derive(Clone, Debug)]
pub struct Submission {
    /// Whose it is.
    pub client: ClientNo,
    /// The partition that is to work it.
    pub home: PartitionId,
    /// The `Idempotency-Key` header.
    pub key: Option<IdempotencyKey>,
    /// What is asked for.
    pub command: Command,
    /// Personal data.
    pub ship_to: Option<ShipTo>,
    /// Of the call.
    pub correlation: CorrelationId,
    /// Of the call.
    pub trace: TraceContext,
}

/// What became of a submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submitted {
    /// The store's verdict.
    pub verdict: Verdict,
    /// The id it was accepted under, when it was.
    pub id: Option<TransactionId>,
    /// When it was accepted, if it is new.
    pub at: Timestamp,
}

/// What the owner of a warehouse last published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Orders in the work lane.
    pub backlog: u64,
    /// When the oldest of them was accepted.
    pub oldest: Option<Timestamp>,
    /// Pulled orders that are not done, by state.
    pub open: [u32; State::ALL.len()],
    /// Pulled orders that are not released yet.
    pub unreleased: u64,
    /// Unsettled releases at the WMS.
    pub credits_used: u32,
    /// Measured pace.
    pub pace: PaceReport,
    /// True while nothing is pulled or released.
    pub paused: bool,
}

impl Snapshot {
    /// When an order will probably ship, once the warehouse's promises have proved true; `None` for
    /// what waits for stock or an operator, because no pace says how long. `released_at` is that of its
    /// last release.
    #[must_use]
    pub fn estimate(
        &self,
        standing: State,
        accepted_at: Timestamp,
        released_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Option<Estimate> {
        let (position, released) = match standing {
            // Nothing moves it before somebody resumes the warehouse.
            State::Accepted | State::Allocated if self.paused => return None,
            State::Accepted => (self.unreleased + self.before_in_lane(accepted_at, now), None),
            State::Allocated => (self.unreleased, None),
            State::Released | State::Picking | State::Packed | State::Manifested => (0, released_at),
            State::Backordered
            | State::Failed
            | State::Shipped
            | State::Cancelled
            | State::Rejected
            | State::Applied
            | State::Closed
            | State::Departed => return None,
        };
        self.pace.estimate(position, released, now).filter(|_| self.pace.calibrated)
    }

    /// Orders before one in the work lane, read off the time it was accepted: the lane is in order of
    /// arrival, so its place lies between the oldest and the newest as its age does.
    fn before_in_lane(&self, accepted_at: Timestamp, now: Timestamp) -> u64 {
        let Some(oldest) = self.oldest else { return self.backlog };
        let span = now.since(oldest).as_secs_f64().max(0.001);
        let share = (accepted_at.since(oldest).as_secs_f64() / span).min(1.0);
        (self.backlog as f64 * share) as u64
    }
}
