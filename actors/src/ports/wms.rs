//! The warehouse management system at the other end.
//!
//! A WMS takes waves, cancellations and manifests through this trait and reports back through the
//! engine's control lane, whoever it is: the simulation and a real one use the same door.

use std::sync::Arc;

use super::BoxFuture;
use super::store::ManifestCarton;
use crate::domain::command::ShipTo;
use crate::domain::confirmation::{Confirmation, ReleaseReport};
use crate::domain::fact::LineUnits;
use crate::domain::ids::{
    CorrelationId, LineNo, PartitionId, Reference, ReleaseId, Sku, TraceContext, TransactionId, WaveId,
};
use crate::domain::time::Timestamp;

/// A warehouse's WMS. Every call may be repeated with the same ids and must then mean nothing new.
pub trait Wms: Send + Sync + 'static {
    /// Hands over a wave.
    fn wave(&self, wave: Wave) -> BoxFuture<Result<WaveAnswer, WmsError>>;

    /// Asks to cancel a release, or some of its lines.
    fn cancel(
        &self,
        release: ReleaseId,
        lines: Option<Vec<LineNo>>,
    ) -> BoxFuture<Result<CancelReply, WmsError>>;

    /// Tells it to load a truck.
    fn manifest(&self, manifest: ManifestOut) -> BoxFuture<Result<(), WmsError>>;

    /// Asks what it knows of a release that has fallen silent. `None`: it cannot be asked.
    fn release(&self, release: ReleaseId) -> BoxFuture<Result<Option<ReleaseKnown>, WmsError>> {
        let _ = release;
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Presents what is in its hands after our start. Only a WMS that keeps nothing itself (the
    /// in-process simulation) needs it.
    fn present(&self, releases: Vec<Presented>) {
        let _ = releases;
    }
}

/// A wave as it is sent; the same id always has the same content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wave {
    /// Its id.
    pub id: WaveId,
    /// When it was committed.
    pub released_at: Timestamp,
    /// Its orders.
    pub orders: Vec<ReleaseOut>,
}

/// One release of a wave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReleaseOut {
    /// Its id, by which the WMS knows repeats.
    pub release: ReleaseId,
    /// The owner of the goods, by name.
    pub owner: String,
    /// The client's name for the order.
    pub reference: Reference,
    /// From the first call, through the WMS and back.
    pub correlation: CorrelationId,
    /// The trace of the first call.
    pub trace: TraceContext,
    /// How to ship.
    pub service_level: String,
    /// 0 (first) to 9.
    pub priority: u8,
    /// When the client wants it shipped.
    pub requested_ship_by: Option<Timestamp>,
    /// When the carrier's truck for this service leaves next.
    pub cut_off: Option<Timestamp>,
    /// Where it goes; `None` when it was erased.
    pub ship_to: Option<ShipTo>,
    /// The units.
    pub lines: Vec<(LineNo, Sku, u32)>,
}

/// A closed manifest as it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestOut {
    /// Its id, by which the WMS knows repeats.
    pub id: TransactionId,
    /// Who carries it.
    pub carrier: String,
    /// How.
    pub service_level: String,
    /// When it was closed.
    pub closed_at: Timestamp,
    /// Its cartons, as they were stored when it closed: a repeat names the same ones. The link fills
    /// them in as it sends.
    pub cartons: Vec<ManifestCarton>,
}

/// A release that was taken before our start and is not settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presented {
    /// The release.
    pub release: ReleaseId,
    /// When its wave was committed.
    pub released_at: Timestamp,
    /// Its units as asked for, less what came back out of it.
    pub lines: LineUnits,
    /// Units of them that it has reported as missing.
    pub missing: LineUnits,
}

/// What became of a wave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WaveAnswer {
    /// Each release was decided; one that is not named counts as taken.
    Decided(Vec<(ReleaseId, Taken)>),
    /// The wave as a whole was refused; something in it is wrong.
    Refused,
}

/// What became of a release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It will be worked.
    Taken,
    /// It will not.
    Rejected {
        /// The WMS's reason.
        code: String,
    },
}

/// What the WMS says about a cancellation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelReply {
    /// It will not be picked.
    Cancelled,
    /// It is being picked.
    TooLate,
    /// It will say so through the control lane.
    Pending,
}

/// What a WMS knows of a release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReleaseKnown {
    /// Nothing: it is sent again, in a new wave under its old id.
    Unknown,
    /// What it would report, as cumulative as any report; empty when it has only taken it.
    Known(Vec<ReleaseReport>),
}

/// No answer that decides anything: the call is made again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WmsError {
    /// It could not be reached, or said that it cannot now.
    #[error("the WMS cannot be reached: {0}")]
    Unavailable(String),
    /// It did not answer in time.
    #[error("the WMS did not answer in time")]
    Silent,
}

/// The door by which every WMS reports: the warehouse's control lane.
pub trait ConfirmationSink: Send + Sync + 'static {
    /// Queues reports; they are booked in a later turn. Resolves when they are durable.
    ///
    /// # Errors
    /// [`WmsError::Unavailable`] when they were not queued; the WMS reports again.
    fn confirm(&self, partition: PartitionId, reports: Vec<Confirmation>) -> BoxFuture<Result<(), WmsError>>;
}

/// A shared sink.
pub type Sink = Arc<dyn ConfirmationSink>;
