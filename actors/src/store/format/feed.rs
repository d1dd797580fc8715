//! Entries of feeds: pointers at facts and estimates, and entries that hold what they say.

use super::{Decoded, FormatError, Record, array, body, id_of, packed, unpacked, with};
use crate::domain::ids::{Sku, TransactionId};
use crate::domain::promise::ToldEstimate;
use crate::domain::stock::Position;
use crate::ports::announcement::StockChange;

/// A feed entry: a transaction and the number of what it points at there
/// ([`crate::ports::store::Points`]), or number 0 of an id of its own.
#[must_use]
pub fn encode_feed(id: TransactionId, version: u32) -> Vec<u8> {
    let mut bytes = with(Record::Feed, id.0.as_bytes());
    bytes.extend_from_slice(&version.to_be_bytes());
    bytes
}

/// Reads what a feed entry points at; one that holds what it says is of version 0.
///
/// # Errors
/// When the bytes are not one.
pub fn decode_feed(bytes: &[u8]) -> Decoded<(TransactionId, u32)> {
    if is_stock_change(bytes) {
        let own = body(Record::FeedStock, bytes)?.get(..16).ok_or(FormatError::Short)?;
        return Ok((id_of(own)?, 0));
    }
    let (id, version) = body(Record::Feed, bytes)?.split_at_checked(16).ok_or(FormatError::Short)?;
    Ok((id_of(id)?, u32::from_be_bytes(array(version)?)))
}

/// A feed entry that says how a position is.
#[must_use]
pub fn encode_stock_change(change: &StockChange) -> Vec<u8> {
    let StockChange { id, sku, position } = change;
    let head = with(Record::FeedStock, id.0.as_bytes());
    postcard::to_extend(&(sku, position), head).expect("stored types hold only what postcard can say")
}

/// True when a feed entry says how a position is.
#[must_use]
pub fn is_stock_change(bytes: &[u8]) -> bool {
    bytes.first() == Some(&(Record::FeedStock as u8))
}

/// Reads what a feed entry says of a position.
///
/// # Errors
/// When the bytes are no such entry.
pub fn decode_stock_change(bytes: &[u8]) -> Decoded<StockChange> {
    let (own, said) = body(Record::FeedStock, bytes)?.split_at_checked(16).ok_or(FormatError::Short)?;
    let ((sku, position), rest): ((Sku, Position), _) = postcard::take_from_bytes(said)?;
    if !rest.is_empty() {
        return Err(FormatError::Long);
    }
    Ok(StockChange { id: id_of(own)?, sku, position })
}

/// What an order's client was told of its estimate, the first first.
#[must_use]
pub fn encode_estimates(told: &[ToldEstimate]) -> Vec<u8> {
    packed(Record::Estimates, &told)
}

/// Reads what an order's client was told of its estimate.
///
/// # Errors
/// When the bytes are not that.
pub fn decode_estimates(bytes: &[u8]) -> Decoded<Vec<ToldEstimate>> {
    unpacked(Record::Estimates, bytes)
}
