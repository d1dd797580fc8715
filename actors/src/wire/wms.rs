//! The protocol between Wavegate and a WMS, as it stands on the wire: both sides use these types.
//!
//! Wavegate sends waves, cancellations and manifests and asks for releases; the WMS answers, and
//! reports by confirmations. Unknown fields of answers are passed over: a WMS may say more.

use serde::{Deserialize, Serialize};

use super::time::WireTime;
use crate::domain::command::ShipTo;
use crate::domain::ids::{LineNo, Quantity};

/// `POST {url}/waves`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are the contract's own names")]
pub struct WaveMessage {
    pub wave_id: String,
    pub warehouse: String,
    pub released_at: WireTime,
    pub orders: Vec<ReleaseMessage>,
}

/// One release of a wave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are the contract's own names")]
pub struct ReleaseMessage {
    pub release_id: String,
    pub transaction_id: String,
    pub owner: String,
    pub reference: String,
    pub correlation_id: String,
    pub traceparent: String,
    pub service_level: String,
    pub priority: u8,
    pub requested_ship_by: Option<WireTime>,
    pub cut_off: Option<WireTime>,
    pub ship_to: Option<ShipTo>,
    pub lines: Vec<ReleaseLineMessage>,
}

/// Units of one line that a WMS is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are the contract's own names")]
pub struct ReleaseLineMessage {
    pub line: LineNo,
    pub sku: String,
    pub quantity: Quantity,
}

/// The answer to a wave; without a body all are taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are the contract's own names")]
pub struct WaveResults {
    pub results: Vec<WaveResult>,
}

/// What became of one release of a wave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are the contract's own names")]
pub struct WaveResult {
    pub release_id: String,
    pub result: Taken,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

/// Whether a release will be worked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Taken {
    /// It will.
    Taken,
    /// It will not.
    Rejected,
}

/// `POST {url}/cancellations`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are the contract's own names")]
pub struct CancellationMessage {
    pub release_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lines: Option<Vec<LineNo>>,
}

/// The answer to a cancellation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are the contract's own names")]
pub struct CancellationAnswer {
    pub result: CancellationResult,
}

/// What the WMS decides about a cancellation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CancellationResult {
    /// It will not be picked.
    Cancelled,
    /// It is being picked.
    TooLate,
    /// It will say so by a confirmation.
    Pending,
}

/// `POST {url}/manifests`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are the contract's own names")]
pub struct ManifestMessage {
    pub manifest_id: String,
    pub carrier: String,
    pub service_level: String,
    pub cartons: Vec<String>,
    pub contents: Vec<ContentMessage>,
}

/// One carton of a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are the contract's own names")]
pub struct ContentMessage {
    pub sscc: String,
    pub carton_id: Option<String>,
    pub release_id: String,
}

/// The answer to `GET {url}/releases/{release_id}`: `unknown`, `taken`, or the last confirmation's
/// type, with cumulative lines and cartons.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are the contract's own names")]
pub struct ReleaseStateMessage {
    pub release_id: String,
    pub state: String,
    #[serde(default)]
    pub lines: Vec<UnitsMessage>,
    #[serde(default)]
    pub cartons: Vec<CartonMessage>,
}

/// A confirmation: `POST /v1/warehouses/{code}/confirmations`, one or an array.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are the contract's own names")]
pub struct ConfirmationMessage {
    pub confirmation_id: String,
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest_id: Option<String>,
    pub at: WireTime,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<UnitsMessage>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cartons: Vec<CartonMessage>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// Units of one line, cumulative.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are the contract's own names")]
pub struct UnitsMessage {
    pub line: LineNo,
    pub quantity: Quantity,
}

/// A carton as the WMS packed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are the contract's own names")]
pub struct CartonMessage {
    pub carton_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracking_number: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_g: Option<u32>,
    pub lines: Vec<UnitsMessage>,
}
