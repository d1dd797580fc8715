//! What a WMS reports about a release or a manifest.
//!
//! Quantities are cumulative per release: a repeat or a reordering finds equal or greater numbers
//! already booked and changes nothing.

use serde::{Deserialize, Serialize};

use super::fact::LineUnits;
use super::ids::{ReleaseId, TransactionId};
use super::time::Timestamp;

/// One report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmation {
    /// The WMS's id of the report; kept for tracing, decides nothing.
    pub confirmation_id: String,
    /// When it happened, by the WMS's clock.
    pub at: Timestamp,
    /// What it reports.
    pub report: Report,
}

impl Confirmation {
    /// The order or the manifest that it is about.
    #[must_use]
    pub fn about(&self) -> TransactionId {
        match &self.report {
            Report::Release { release, step: _ } => release.order,
            Report::Departed { manifest } => *manifest,
        }
    }
}

/// What is reported, and of what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// Something happened to a release.
    Release {
        /// The release.
        release: ReleaseId,
        /// What.
        step: ReleaseReport,
    },
    /// A manifest left with its carrier, and all its cartons with it.
    Departed {
        /// The manifest.
        manifest: TransactionId,
    },
}

/// What happened to a release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReleaseReport {
    /// Picking has begun.
    Picking,
    /// Picked so far.
    Picked(LineUnits),
    /// In cartons so far. `lines` are cumulative and may be left out; what they say beyond the
    /// cartons known is in one carton more, which the house names.
    Packed {
        /// Units in cartons by now.
        lines: LineUnits,
        /// Cartons, known ones and new ones alike.
        cartons: Vec<PackedCarton>,
    },
    /// Not found so far.
    ShortPick(LineUnits),
    /// Found damaged so far.
    Damaged(LineUnits),
    /// The WMS will not work it.
    Rejected {
        /// Its reason.
        code: String,
    },
    /// Asked to cancel, it has.
    Cancelled,
    /// Asked to cancel, it will not.
    CancelRefused,
    /// Gone with a carrier so far, without a manifest of ours; none named: all of the release that
    /// is not missing. Shipped implies packed.
    Shipped(LineUnits),
}

/// A carton as the WMS reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackedCarton {
    /// The WMS's name for it; a valid SSCC-18 is kept as the SSCC.
    pub carton_id: String,
    /// The carrier's tracking number.
    pub tracking_number: Option<String>,
    /// Grams.
    pub weight_g: Option<u32>,
    /// What is in it.
    pub lines: LineUnits,
}

/// Why a report could not be booked; it becomes a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unbookable {
    /// The release does not exist in this warehouse.
    #[error("unknown release")]
    UnknownRelease,
    /// The manifest does not exist in this warehouse.
    #[error("unknown manifest")]
    UnknownManifest,
    /// A line that the release does not hold.
    #[error("a line that the release does not hold")]
    UnknownLine,
    /// More than the release asks for.
    #[error("more than was asked for")]
    MoreThanAsked,
    /// The order is final, or the release is settled otherwise.
    #[error("contradicts what is final")]
    Contradiction,
}
