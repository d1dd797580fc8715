//! Deliveries of webhooks that are kept aside, until somebody replays them or gives them up.

use super::endpoints::id_at;
use super::{ReadRows, RowError, Walk, Write, decoded, misshapen};
use crate::domain::endpoint::EndpointId;
use crate::ports::endpoints::DeadDelivery;
use crate::store::format;
use crate::store::keys::{self, Table};

/// Deliveries kept aside; see [`crate::ports::endpoints::EndpointStore::dead_deliveries`].
///
/// # Errors
/// When rows cannot be read or decoded.
pub fn dead_deliveries(
    rows: &dyn ReadRows,
    after: Option<(EndpointId, u64)>,
    limit: usize,
) -> Result<Vec<DeadDelivery>, RowError> {
    dead_under(rows, &[], after, limit)
}

/// The same of one endpoint.
///
/// # Errors
/// When rows cannot be read or decoded.
pub fn dead_deliveries_of(
    rows: &dyn ReadRows,
    id: EndpointId,
    after: Option<(EndpointId, u64)>,
    limit: usize,
) -> Result<Vec<DeadDelivery>, RowError> {
    dead_under(rows, &keys::of_endpoint(id), after, limit)
}

fn dead_under(
    rows: &dyn ReadRows,
    prefix: &[u8],
    after: Option<(EndpointId, u64)>,
    limit: usize,
) -> Result<Vec<DeadDelivery>, RowError> {
    let mut found = Vec::new();
    let after = after.map(|(id, sequence)| keys::dead_delivery(id, sequence));
    rows.walk(Table::DeadDeliveries, prefix, after.as_deref(), &mut |key, value| {
        if found.len() == limit {
            return Ok(Walk::Stop);
        }
        let id = id_at(key, 0, Table::DeadDeliveries)?;
        let sequence = keys::u64_at(key, 16).ok_or_else(|| misshapen(Table::DeadDeliveries))?;
        found.push(decode_dead(id, sequence, value)?);
        Ok(Walk::On)
    })?;
    Ok(found)
}

fn decode_dead(id: EndpointId, sequence: u64, value: &[u8]) -> Result<DeadDelivery, RowError> {
    decoded(|| format!("dead delivery {sequence}"), format::decode_dead_delivery(id, sequence, value))
}

/// One of them; see [`crate::ports::endpoints::EndpointStore::dead_delivery`].
///
/// # Errors
/// When rows cannot be read or decoded.
pub fn dead_delivery(
    rows: &dyn ReadRows,
    id: EndpointId,
    sequence: u64,
) -> Result<Option<DeadDelivery>, RowError> {
    match rows.get(Table::DeadDeliveries, &keys::dead_delivery(id, sequence))? {
        Some(bytes) => decode_dead(id, sequence, bytes).map(Some),
        None => Ok(None),
    }
}

/// Gives one of them up; see [`crate::ports::endpoints::EndpointStore::give_up_delivery`].
///
/// # Errors
/// When rows cannot be written.
pub fn give_up_delivery(write: &mut Write<'_>, id: EndpointId, sequence: u64) -> Result<bool, RowError> {
    write.rows.delete(Table::DeadDeliveries, &keys::dead_delivery(id, sequence))
}
