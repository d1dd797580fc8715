//! The body of a 202: what was accepted, under which id, and where to look.

use serde::Serialize;

use super::status::{Links, StatusDocument};
use super::time::WireTime;
use crate::domain::ids::TransactionId;

/// The answer to an accepted command.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AcceptedDocument<'a> {
    /// The id to ask for.
    pub transaction_id: TransactionId,
    /// The kind of transaction.
    pub kind: &'static str,
    /// The client's name for it.
    pub reference: &'a str,
    /// The warehouse that works it.
    pub warehouse: &'a str,
    /// Where it stands now; `null` when it ended longer ago than the retention.
    pub state: Option<&'static str>,
    /// Whether nothing can follow.
    pub done: bool,
    /// What the acknowledgement survives.
    pub durability: &'static str,
    /// Of the call that brought it first.
    pub correlation_id: &'a str,
    /// When it was accepted first.
    pub accepted_at: WireTime,
    /// Never promised here; a read of the status may say.
    pub estimate: Option<()>,
    /// Where to go on.
    pub links: Links,
}

impl<'a> AcceptedDocument<'a> {
    /// The answer to a command that was accepted before, with its state of now.
    #[must_use]
    pub fn again(status: &StatusDocument<'a>, durability: &'static str) -> AcceptedDocument<'a> {
        AcceptedDocument {
            transaction_id: status.transaction_id,
            kind: status.kind.as_str(),
            reference: status.reference,
            warehouse: status.warehouse,
            state: Some(status.state.as_str()),
            done: status.done,
            durability,
            correlation_id: status.correlation_id,
            accepted_at: status.accepted_at,
            estimate: None,
            links: Links::of(status.transaction_id, status.kind.0),
        }
    }
}
