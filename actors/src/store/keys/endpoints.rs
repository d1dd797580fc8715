//! Keys of webhook endpoints and their deliveries.

use uuid::Uuid;

use super::{Key, key};
use crate::domain::endpoint::EndpointId;
use crate::domain::ids::ClientNo;

/// A webhook endpoint; chunked.
#[must_use]
pub fn endpoint(client: ClientNo, id: EndpointId) -> Key {
    key(&[&client.0.to_be_bytes(), id.0.as_bytes()])
}

/// The rows of an endpoint in `deliveries` and `dead_deliveries`.
#[must_use]
pub fn of_endpoint(id: EndpointId) -> Key {
    key(&[id.0.as_bytes()])
}

/// How far an endpoint has come.
#[must_use]
pub fn progress(id: EndpointId) -> Key {
    key(&[id.0.as_bytes(), &[0]])
}

/// Deliveries of an endpoint that are not finished.
#[must_use]
pub fn pending_of(id: EndpointId) -> Key {
    key(&[id.0.as_bytes(), &[1]])
}

/// One of them.
#[must_use]
pub fn pending(id: EndpointId, sequence: u64) -> Key {
    key(&[id.0.as_bytes(), &[1], &sequence.to_be_bytes()])
}

/// Attempts of an endpoint.
#[must_use]
pub fn attempts_of(id: EndpointId) -> Key {
    key(&[id.0.as_bytes(), &[2]])
}

/// One of them.
#[must_use]
pub fn attempt(id: EndpointId, n: u64) -> Key {
    key(&[id.0.as_bytes(), &[2], &n.to_be_bytes()])
}

/// Replays of an endpoint.
#[must_use]
pub fn replays_of(id: EndpointId) -> Key {
    key(&[id.0.as_bytes(), &[3]])
}

/// One of them; chunked.
#[must_use]
pub fn replay(id: EndpointId, replay: Uuid) -> Key {
    key(&[id.0.as_bytes(), &[3], replay.as_bytes()])
}

/// A delivery that is kept aside.
#[must_use]
pub fn dead_delivery(id: EndpointId, sequence: u64) -> Key {
    key(&[id.0.as_bytes(), &sequence.to_be_bytes()])
}
