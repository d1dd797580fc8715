//! What happened: one small fact for each change, the only thing that changes state.
//!
//! One fact = one version of its transaction = one event. Facts are stored with postcard behind a
//! format byte (`store::format`), so **variants and fields are only ever appended**; a golden file
//! holds every one of them. A fact that must change shape becomes a new variant.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::ids::{CorrelationId, LineNo, Quantity, TraceContext, TransactionId, WaveId};
use super::sscc::Sscc;
use super::time::Timestamp;

/// A fact and when it was decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// The owner's clock when it decided.
    pub at: Timestamp,
    /// What happened.
    pub fact: Fact,
}

/// What happened to a transaction of any kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fact {
    /// Always version 1, and only there.
    Accepted(Accepted),
    /// Something happened to an order.
    Order(OrderFact),
    /// A move ended.
    Move(MoveFact),
    /// A cancellation ended.
    Cancellation(CancellationFact),
    /// Something happened to a manifest.
    Manifest(ManifestFact),
}

/// The command was durably queued.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// The id that the call carried, or was given.
    pub correlation: CorrelationId,
    /// The trace that the call belongs to; a fresh one when it brought none.
    pub trace: TraceContext,
}

/// Some units of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Units {
    /// All that the fact can be about; its fact says which those are.
    Whole,
    /// These units of these lines; no line twice, no zero.
    Lines(LineUnits),
}

/// Units by line.
pub type LineUnits = SmallVec<[(LineNo, Quantity); 4]>;

/// What happened to an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OrderFact {
    /// Stock is reserved for these units (whole: all that are unallocated, missing or waiting).
    /// What is still unallocated or missing afterwards waits for stock from here on.
    Allocated {
        /// The units that got stock.
        units: Units,
    },
    /// All that is unallocated or missing waits for stock.
    Backordered,
    /// These units (whole: all that are allocated) go to the WMS as release `n` in `wave`.
    /// A credit is taken.
    Released {
        /// Counts the order's releases from 1.
        n: u16,
        /// The wave they travel in.
        wave: WaveId,
        /// The units asked for.
        units: Units,
    },
    /// The WMS is picking release `n` and has picked these so far (cumulative).
    Picking {
        /// The release.
        n: u16,
        /// What is picked by now, lines without any left out.
        picked: LineUnits,
    },
    /// More of release `n` is in cartons; packed implies picked.
    Packed {
        /// The release.
        n: u16,
        /// What is picked by now (whole: everything that release `n` still holds).
        picked: Units,
        /// The cartons that are new.
        cartons: Vec<Carton>,
        /// Who will carry them, by the warehouse's settings when they were packed.
        carrier: String,
    },
    /// These units of release `n` could not be picked: what was reserved is suspect. An exception.
    Missing {
        /// The release.
        n: u16,
        /// Why.
        cause: MissingCause,
        /// The units that are newly missing.
        units: LineUnits,
    },
    /// These cartons are on a closed manifest.
    Manifested {
        /// The manifest.
        manifest: TransactionId,
        /// Its cartons of this order.
        cartons: SmallVec<[Sscc; 2]>,
    },
    /// The order's cartons on this manifest left with the carrier.
    Shipped {
        /// The manifest.
        manifest: TransactionId,
    },
    /// A client wants these releases cancelled; the WMS will be asked and decides.
    CancelAsked {
        /// The cancellation.
        request: TransactionId,
        /// The releases that the WMS is asked about.
        releases: SmallVec<[u16; 2]>,
        /// The lines to cancel; `None` means all.
        lines: Option<SmallVec<[LineNo; 4]>>,
    },
    /// The WMS said "too late" for this release.
    CancelWithdrawn {
        /// The cancellation.
        request: TransactionId,
        /// The release that stays.
        n: u16,
    },
    /// These units are cancelled.
    Cancelled {
        /// Who wanted it.
        cause: CancelCause,
        /// The release they were taken out of; `None`: they were not released.
        release: Option<u16>,
        /// The units.
        units: LineUnits,
    },
    /// These units (whole: all that are unallocated, missing or waiting) will not be shipped.
    Refused {
        /// Why.
        cause: RefusedCause,
        /// The units.
        units: Units,
    },
    /// Something the client should know that changes no units.
    Exception {
        /// What.
        code: ExceptionCode,
        /// The lines it is about; empty: the whole order.
        lines: SmallVec<[LineNo; 4]>,
    },
    /// The order is a dead letter; what its release `n` held is allocated again.
    Failed {
        /// Why.
        cause: FailedCause,
        /// The release that failed.
        release: Option<u16>,
    },
    /// The order is no dead letter any more: what kept it is gone.
    Redriven,
    /// The WMS shipped these cartons of release `n` without a manifest of ours.
    ShippedAlone {
        /// The release.
        n: u16,
        /// Its cartons that left.
        cartons: SmallVec<[Sscc; 2]>,
    },
    /// An operator gives the order up: what is open of it and in no carton will not be shipped.
    GivenUp,
}

/// A carton as it was packed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carton {
    /// Its serial shipping container code.
    pub sscc: Sscc,
    /// The WMS's own name for it, where that is not the SSCC.
    pub carton_id: Option<String>,
    /// The carrier's tracking number.
    pub tracking_number: Option<String>,
    /// Grams, as the WMS weighed it.
    pub weight_g: Option<u32>,
    /// What is in it.
    pub lines: LineUnits,
}

/// Why units were missing at the pick.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MissingCause {
    /// Not found in their place.
    ShortPick,
    /// Found damaged.
    Damaged,
}

/// Who cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CancelCause {
    /// A client's cancellation.
    Request(TransactionId),
    /// `fill_or_kill` gives up what was missing at the pick.
    Missing,
}

/// Why units were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefusedCause {
    /// `fill_or_kill` did not get everything at once.
    InsufficientStock,
    /// They waited longer than `backorder.max_wait`.
    BackorderExpired,
}

/// Why an order is a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailedCause {
    /// The WMS refuses it.
    WmsRejected,
    /// The WMS has not answered for longer than `wms.give_up_after`.
    WmsUnreachable,
    /// It killed the warehouse's tree again and again.
    Crashed,
    /// It has as many facts or releases as an order may have.
    TooLong,
    /// Bytes that its release needs cannot be read.
    Unreadable,
}

/// The exceptions a client can find in a status document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExceptionCode {
    /// Units were refused for want of stock.
    InsufficientStock,
    /// The SKU was never received in this warehouse for this owner.
    UnknownSku,
    /// The requested time to ship by was past when the order was accepted.
    CutOffMissed,
    /// The WMS refused the release.
    WmsRejected,
    /// The wait for stock went past its bound.
    BackorderExpired,
    /// The WMS has not answered for too long.
    WmsUnreachable,
    /// The order could not be worked without crashing, or without end.
    CrashedPipeline,
}

impl ExceptionCode {
    /// The code on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            ExceptionCode::InsufficientStock => "insufficient_stock",
            ExceptionCode::UnknownSku => "unknown_sku",
            ExceptionCode::CutOffMissed => "cut_off_missed",
            ExceptionCode::WmsRejected => "wms_rejected",
            ExceptionCode::BackorderExpired => "backorder_expired",
            ExceptionCode::WmsUnreachable => "wms_unreachable",
            ExceptionCode::CrashedPipeline => "crashed_pipeline",
        }
    }
}

impl MissingCause {
    /// The exception code on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            MissingCause::ShortPick => "short_pick",
            MissingCause::Damaged => "damaged_in_pick",
        }
    }
}

/// How a move ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MoveFact {
    /// The stock changed.
    Applied,
    /// It could not be done: the position would leave its range.
    Rejected,
    /// A receipt that also made suspect units available again: somebody stood at the place.
    Replenished {
        /// Suspect units cleared.
        cleared: u64,
    },
    /// A count set what is on hand.
    Counted {
        /// Counted less what the books said.
        delta: i64,
        /// Suspect units cleared.
        cleared: u64,
    },
}

/// How a cancellation ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CancellationFact {
    /// Something was cancelled.
    Applied {
        /// How much of each line.
        lines: LineUnits,
    },
    /// Nothing could be cancelled any more.
    Rejected,
}

/// What happened to a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ManifestFact {
    /// It takes no more cartons.
    Closed {
        /// How many it has.
        cartons: u32,
    },
    /// It left with its carrier.
    Departed,
}
