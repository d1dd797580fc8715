//! The store itself, the names it knows and the numbers it hands out. It must never forget one.

use uuid::Uuid;

use super::{ClaimHasher, ReadRows, RowError, Walk, Write, WriteRows, decoded};
use crate::domain::ids::{ClientNo, PartitionId};
use crate::ports::store::{RegisterError, Registered, Registration};
use crate::store::format;
use crate::store::keys::{self, Table};

/// The number of the layout of tables and keys that this release writes. A backend that places rows in
/// another way than [`keys`] says has numbers of its own.
pub const LAYOUT: u32 = 2;

/// Writes the store's own record if it is new, under `id` and with `layout`; answers those that it has.
///
/// # Errors
/// When rows cannot be read or written.
pub fn begin(rows: &mut dyn WriteRows, id: Uuid, layout: u32) -> Result<(Uuid, u32), RowError> {
    rows.put_new(Table::Meta, keys::STORE, &format::encode_store(id, layout))?;
    match rows.get(Table::Meta, keys::STORE)? {
        Some(bytes) => decoded(|| "the store's own record".to_owned(), format::decode_store(bytes)),
        None => Err(RowError::Broken("the store's own record is not there".to_owned())),
    }
}

/// What the store's claims are hashed with: `fresh` if it has no secret yet.
///
/// # Errors
/// When rows cannot be read or written.
pub fn claim_hasher(rows: &mut dyn WriteRows, fresh: [u8; 16]) -> Result<ClaimHasher, RowError> {
    rows.put_new(Table::Meta, keys::CLAIM_SECRET, &format::encode_secret(fresh))?;
    match rows.get(Table::Meta, keys::CLAIM_SECRET)? {
        Some(bytes) => {
            decoded(|| "the secret of claims".to_owned(), format::decode_secret(bytes)).map(ClaimHasher)
        }
        None => Err(RowError::Broken("the secret of claims is not there".to_owned())),
    }
}

/// Makes names known; see [`crate::ports::store::Store::register`].
///
/// # Errors
/// When rows cannot be read or written.
pub fn register(
    write: &mut Write<'_>,
    names: &Registration,
) -> Result<Result<Registered, RegisterError>, RowError> {
    for (code, partition) in &names.warehouses {
        let stored = number(&*write.rows, &keys::name(keys::WAREHOUSES, code))?;
        if let Some(stored) = stored.filter(|n| *n != u64::from(partition.0)) {
            return Ok(Err(RegisterError::PartitionChanged {
                code: code.clone(),
                stored: u16::try_from(stored).unwrap_or(u16::MAX),
                configured: partition.0,
            }));
        }
    }
    for (code, PartitionId(partition)) in &names.warehouses {
        let key = keys::name(keys::WAREHOUSES, code);
        write.rows.put_new(Table::Meta, &key, &format::encode_number(u64::from(*partition)))?;
    }
    let mut last = clients(&*write.rows)?.iter().map(|(_, ClientNo(n))| *n).max().unwrap_or(0);
    for name in &names.clients {
        let key = keys::name(keys::CLIENTS, name);
        if write.rows.put_new(Table::Meta, &key, &format::encode_number(u64::from(last) + 1))? {
            last += 1;
        }
    }
    Ok(Ok(Registered { clients: clients(&*write.rows)? }))
}

fn clients(rows: &dyn ReadRows) -> Result<Vec<(String, ClientNo)>, RowError> {
    let mut all = Vec::new();
    rows.walk(Table::Meta, keys::CLIENTS, None, &mut |key, value| {
        let name = String::from_utf8_lossy(key.get(1..).unwrap_or_default()).into_owned();
        let number = decoded(|| format!("the number of client {name}"), format::decode_number(value))?;
        all.push((name, ClientNo(u32::try_from(number).unwrap_or(u32::MAX))));
        Ok(Walk::On)
    })?;
    Ok(all)
}

fn number(rows: &dyn ReadRows, key: &[u8]) -> Result<Option<u64>, RowError> {
    let Some(bytes) = rows.get(Table::Meta, key)? else { return Ok(None) };
    decoded(|| "a number of the store".to_owned(), format::decode_number(bytes)).map(Some)
}

/// Takes serials; see [`crate::ports::store::Store::lease_serials`]. The first is 1.
///
/// # Errors
/// When rows cannot be read or written.
pub fn lease_serials(write: &mut Write<'_>, count: u64) -> Result<u64, RowError> {
    let next = number(&*write.rows, keys::SERIALS)?.unwrap_or(1);
    write.rows.put(Table::Meta, keys::SERIALS, &format::encode_number(next + count))?;
    Ok(next)
}
