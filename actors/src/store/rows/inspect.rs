//! What stands about webhook endpoints, row by row, for whoever checks the store: also rows that nobody
//! reads any more, and bytes that nobody can. It must never stop at damage.

use super::read::walk_chunked;
use super::{ReadRows, RowError, Walk};
use crate::domain::endpoint::EndpointId;
use crate::domain::ids::ClientNo;
use crate::ports::endpoints::DeliveryRows;
use crate::store::format;
use crate::store::keys::{self, Table};

/// Bytes of an endpoint's key without its chunk, and of a replay's.
const ENDPOINT_KEY: usize = 4 + 16;
const REPLAY_KEY: usize = 16 + 1 + 16;
/// Where what is numbered begins in a key of `deliveries`, and in one of `dead_deliveries`.
const NUMBER_AT: usize = 16 + 1;
const DEAD_NUMBER_AT: usize = 16;

/// Endpoints that cannot be read; see [`crate::ports::endpoints::EndpointStore::damaged_endpoints`].
///
/// # Errors
/// When rows cannot be read.
pub fn damaged_endpoints(rows: &dyn ReadRows) -> Result<Vec<(EndpointId, String)>, RowError> {
    let mut damaged = Vec::new();
    walk_chunked(rows, Table::Endpoints, &[], None, ENDPOINT_KEY, &mut |key, value| {
        if let (Some(client), Some(id)) = (keys::u32_at(key, 0), keys::id_at(key, 4)) {
            let id = EndpointId(id.0);
            let read = format::decode_endpoint(ClientNo(client), id, value);
            damaged.extend(read.err().map(|e| (id, e.to_string())));
        }
        Ok(Walk::On)
    })?;
    Ok(damaged)
}

/// The rows of the next endpoint; see [`crate::ports::endpoints::EndpointStore::delivery_rows`].
///
/// # Errors
/// When rows cannot be read.
pub fn delivery_rows(
    rows: &dyn ReadRows,
    after: Option<EndpointId>,
) -> Result<Option<DeliveryRows>, RowError> {
    let next =
        [Table::Deliveries, Table::DeadDeliveries].into_iter().map(|table| next_id(rows, table, after));
    let next: Vec<Option<EndpointId>> = next.collect::<Result<_, _>>()?;
    next.into_iter().flatten().min().map(|endpoint| delivery_rows_of(rows, endpoint)).transpose()
}

/// The rows of this endpoint.
///
/// # Errors
/// When rows cannot be read.
pub fn delivery_rows_of(rows: &dyn ReadRows, endpoint: EndpointId) -> Result<DeliveryRows, RowError> {
    let mut found = DeliveryRows { endpoint, ..DeliveryRows::default() };
    rows.walk(Table::Deliveries, &keys::of_endpoint(endpoint), None, &mut |key, value| {
        let number = keys::u64_at(key, NUMBER_AT);
        match (key.get(16), number) {
            (Some(0), _) => match format::decode_progress(value) {
                Ok(progress) => found.progress = Some((progress.cursor, progress.next_attempt)),
                Err(e) => found.damaged.push(format!("its progress: {e}")),
            },
            (Some(1), Some(n)) => match format::decode_pending(n, value) {
                Ok(pending) => found.pending.push(pending.entry),
                Err(e) => found.damaged.push(format!("delivery {n}: {e}")),
            },
            (Some(2), Some(n)) => match format::decode_attempt(value) {
                Ok(_) => found.attempts.push(n),
                Err(e) => found.damaged.push(format!("attempt {n}: {e}")),
            },
            // Replays are chunked, and read below.
            (Some(3), _) => {}
            (Some(_) | None, _) => found.damaged.push(format!("a row of no kind, of {} bytes", key.len())),
        }
        Ok(Walk::On)
    })?;
    walk_chunked(
        rows,
        Table::Deliveries,
        &keys::replays_of(endpoint),
        None,
        REPLAY_KEY,
        &mut |key, value| {
            let id = keys::id_at(key, NUMBER_AT).map(|id| id.0).unwrap_or_default();
            match format::decode_replay(id, value) {
                Ok(_) => found.replays += 1,
                Err(e) => found.damaged.push(format!("replay {id}: {e}")),
            }
            Ok(Walk::On)
        },
    )?;
    rows.walk(Table::DeadDeliveries, &keys::of_endpoint(endpoint), None, &mut |key, value| {
        let n = keys::u64_at(key, DEAD_NUMBER_AT).unwrap_or(0);
        match format::decode_dead_delivery(endpoint, n, value) {
            Ok(dead) => found.dead.push(dead.entry),
            Err(e) => found.damaged.push(format!("dead delivery {n}: {e}")),
        }
        Ok(Walk::On)
    })?;
    Ok(found)
}

/// The first endpoint behind another that has rows in a table.
fn next_id(
    rows: &dyn ReadRows,
    table: Table,
    after: Option<EndpointId>,
) -> Result<Option<EndpointId>, RowError> {
    // Behind every key that begins with the id.
    let behind = after.map(|id| [id.0.as_bytes().as_slice(), &[u8::MAX; 24]].concat());
    let mut found = None;
    rows.walk(table, &[], behind.as_deref(), &mut |key, _| {
        found = keys::id_at(key, 0).map(|id| EndpointId(id.0));
        Ok(Walk::Stop)
    })?;
    Ok(found)
}
