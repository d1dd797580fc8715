//! The only public door to the running engine: [`Engine::start`] gives a [`Handle`].

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use chrono::NaiveTime;

use crate::domain::command::{Command, Kind, ShipTo};
use crate::domain::estimate::PaceReport;
use crate::domain::ids::{ClientNo, CorrelationId, PartitionId, TraceContext, TransactionId};
use crate::domain::sscc::CompanyPrefix;
use crate::domain::time::Timestamp;
use crate::ports::store::{IdempotencyKey, Lookup, ReadError, SharedStore, Verdict};

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

/// Rules for all warehouses.
#[derive(Clone, Debug)]
pub struct Rules {
    /// A wait for stock ends after this long.
    pub backorder_max_wait: Duration,
    /// A manifest closes when its oldest carton has waited this long.
    pub manifest_close_every: Duration,
    /// Or when it has this many cartons.
    pub manifest_cartons_max: usize,
    /// Prefix of the SSCCs that the house gives.
    pub sscc_prefix: CompanyPrefix,
    /// Ended transactions are kept this long, their tombstones as long again.
    pub retention: Duration,
    /// Callers that may wait for a change at once.
    pub waiters_max: usize,
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
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Orders in the work lane.
    pub backlog: u64,
    /// When the oldest of them was accepted.
    pub oldest: Option<Timestamp>,
    /// Pulled orders that are not released yet.
    pub unreleased: u64,
    /// Unsettled releases at the WMS.
    pub credits_used: u32,
    /// Measured pace.
    pub pace: PaceReport,
}

/// Why a wait did not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyWaiters;
/// The engine's public door; cheap to clone.
#[derive(Clone)]
pub struct Handle(Arc<Inner>);

struct Inner {
    store: SharedStore,
    warehouses: Vec<WarehouseOptions>,
    clients: HashMap<String, ClientNo>,
}

impl Handle {
    /// The warehouses in configured order.
    #[must_use]
    pub fn warehouses(&self) -> &[WarehouseOptions] {
        &self.0.warehouses
    }
    /// The store, for reads; writes go through [`Handle::submit`].
    #[must_use]
    pub fn store(&self) -> &SharedStore {
        &self.0.store
    }
    /// The number of a client that a key or a request names.
    #[must_use]
    pub fn client(&self, name: &str) -> Option<ClientNo> {
        self.0.clients.get(name).copied()
    }
    /// The name of a client.
    #[must_use]
    pub fn client_name(&self, _client: ClientNo) -> Option<&str> {
        None
    }
    /// What the owner of a partition last published.
    #[must_use]
    pub fn snapshot(&self, _partition: PartitionId) -> Snapshot {
        Snapshot::default()
    }
    /// Accepts commands; resolves when they are durable. Verdicts stand in the order given.
    pub async fn submit(&self, _batch: Vec<Submission>) -> Vec<Submitted> {
        Vec::new()
    }
    /// Reads a transaction, and waits up to `bound` until `enough` says so or it has ended.
    ///
    /// # Errors
    /// When the store cannot be read. Past `waiters_max` it does not wait: it answers at once.
    pub async fn await_transaction(
        &self,
        id: TransactionId,
        _bound: Duration,
        _enough: impl Fn(&Lookup) -> bool + Send,
    ) -> Result<Option<Lookup>, ReadError> {
        self.0.store.transaction(id).await
    }
    /// Partitions with work whose owner is not running (empty: ready).
    #[must_use]
    pub fn unready(&self) -> Vec<PartitionId> {
        Vec::new()
    }
    /// True from the moment the engine is asked to stop.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        false
    }
    /// The kinds, for metrics.
    #[must_use]
    pub fn kinds(&self) -> [Kind; 4] {
        [Kind::Order, Kind::Move, Kind::Cancellation, Kind::Manifest]
    }
}
